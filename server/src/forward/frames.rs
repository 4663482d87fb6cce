//! What nodes say to each other on one stream of a relay link: a request, a response, then (sessions) the client's bytes.
//!
//! A frame is a 32-bit length (big endian) and that many bytes of JSON. A frame of length 0 says only "heard": the node that was asked sends one at
//! once, since a link opens no more than 256 streams that the peer has not answered at all.

use std::io;

use affinity::{HolderId, UserName};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Preamble;
use crate::{
    client::Client,
    lmtp::delivery::{Addressee, Envelope, Outcome},
    node::sessions::SessionLine,
};

/// Largest frame: a delivery to a thousand recipients with long addresses stays below.
const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// The first frame of a stream.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Serve this session; the client's bytes follow the response.
    Session(Preamble),
    /// Store a message; its `bytes` bytes follow at once.
    Deliver {
        /// Who brought it.
        client: Client,
        /// Sender and how it came.
        envelope: Envelope,
        /// For whom.
        to: Vec<Addressee>,
        /// How long it is.
        bytes: u64,
    },
    /// Which sessions and leases are yours?
    Who {
        /// Only this user's.
        user: Option<UserName>,
    },
}

/// The answer to [`Request::Session`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionReply {
    /// Go on: the bytes that follow are the session's.
    Accepted,
    /// Somebody else serves this user.
    NotMine(Redirect),
    /// No, with the reason for the client.
    Refused(String),
}

/// Where to ask instead.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Redirect {
    /// The holder; `None`: unclear at present (a node is suspect, or the answering one leaves), ask again.
    pub holder: Option<HolderId>,
}

/// The answer to [`Request::Deliver`], one per recipient.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryReply {
    /// Tried, with this result.
    Done(Outcome),
    /// Not tried.
    NotMine(Redirect),
}

/// The answer to [`Request::Who`].
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct WhoReply {
    /// Sessions served here.
    pub sessions: Vec<SessionLine>,
    /// Leases held here.
    pub held: Vec<(UserName, u64)>,
}

/// Sends one frame.
pub async fn write<T: Serialize, S: AsyncWrite + Unpin>(stream: &mut S, frame: &T) -> io::Result<()> {
    let body = serde_json::to_vec(frame).map_err(io::Error::other)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= FRAME_BYTES_MAX)
        .ok_or_else(|| io::Error::other("a relay frame is too large"))?;
    let mut bytes = Vec::with_capacity(4 + body.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&body);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Says that a request is heard, before it is answered.
pub async fn hear<S: AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.write_all(&0u32.to_be_bytes()).await?;
    stream.flush().await
}

/// Receives one frame.
pub async fn read<T: DeserializeOwned, S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<T> {
    let mut length = 0;
    while length == 0 {
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await?;
        length = usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX);
    }
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a relay frame of {length} bytes is over the limit of {FRAME_BYTES_MAX}"),
        ));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    serde_json::from_slice(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_read_back_and_bounded() {
        let (mut a, mut b) = tokio::io::duplex(64);
        let user = UserName::normalise("ada").unwrap();
        let send = async { write(&mut a, &Request::Who { user: Some(user.clone()) }).await.unwrap() };
        let (_, request) = tokio::join!(send, read::<Request, _>(&mut b));
        assert!(matches!(request.unwrap(), Request::Who { user: Some(u) } if u == user));

        a.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        assert_eq!(
            read::<Request, _>(&mut b).await.unwrap_err().kind(),
            io::ErrorKind::InvalidData,
            "nothing is allocated for a huge announcement"
        );
        a.write_all(&[0, 0, 0, 2, b'{', b']']).await.unwrap();
        assert_eq!(read::<Request, _>(&mut b).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
