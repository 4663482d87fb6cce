//! What nodes say to each other on one stream of a relay link: a request, a response, then (sessions) the client's bytes.
//!
//! A frame is a 32-bit length (big endian) and that many bytes of JSON. A frame of length 0 says only "heard": the node that was asked sends one at
//! once, since a link opens no more than 256 streams that the peer has not answered at all.

use std::io;

use affinity::{HolderId, UserName};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Preamble, route::SessionsOf};
use crate::{
    auth::penalty::Failures,
    client::{Client, SessionId},
    lmtp::delivery::{Addressee, Envelope, Outcome},
    node::sessions::{SessionFilter, SessionLine},
};

/// Largest frame: a delivery to a thousand recipients with long addresses stays below.
const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// The first frame of a stream.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Serve this session; the client's bytes follow the response.
    Session(Preamble),
    /// The same for a guest in the user's mailboxes (`Preamble::guest`): a request of its own, so that no node takes it for the user's own session.
    Guest(Preamble),
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
    /// Which sessions and leases are yours? Answered by [`WhoReply`] frames until one says that it is the last.
    Who {
        /// Only this user's.
        user: Option<UserName>,
    },
    /// How are you? Answered by a [`StatusReply`].
    Status,
    /// End these sessions. Answered by how many there were.
    End {
        /// Which.
        filter: SessionFilter,
        /// What their clients are told.
        why: String,
    },
    /// Hand this user of yours over to that node. Answered by the new epoch, or why not.
    Move {
        /// Whom.
        user: UserName,
        /// To whom.
        to: HolderId,
    },
    /// Take this user's lease. Answered by the new epoch, or why not.
    Take {
        /// Whom.
        user: UserName,
    },
    /// Check this user's index, or make it anew. Answered by [`AtHolder`] with a [`crate::command::control::IndexReply`].
    Index {
        /// Whose.
        user: UserName,
        /// Make it anew.
        rebuild: bool,
    },
    /// How far is that? Answered by [`AtHolder`] with a [`crate::command::control::IndexProgressReply`].
    IndexProgress {
        /// Whose.
        user: UserName,
    },
    /// What does this user of yours hold? Answered by [`AtHolder`].
    Quota {
        /// Whose.
        user: UserName,
        /// Count anew first.
        recount: bool,
    },
    /// Settings on the shared directory were changed: read them and act on them now. Answered by whether they could be read.
    Settings,
    /// This session of a client of yours is about to end, told to by this node. Answered by `true`.
    Ended {
        /// Which.
        session: SessionId,
        /// What its client is told.
        why: String,
    },
    /// Logins failed here, or succeeded after failures. Answered by `true`.
    Failures {
        /// Of addresses and users; [`crate::auth::penalty::NEWS_MAX`] at most count.
        news: Vec<Failures>,
    },
}

/// The answer to [`Request::Move`] and [`Request::Take`].
pub type Moved = Result<u64, String>;

/// The answer to what only a user's holder can do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtHolder<T> {
    /// Done, or why not.
    Done(Result<T, String>),
    /// Somebody else serves this user.
    NotMine(Redirect),
}

/// The answer to [`Request::Status`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StatusReply {
    /// Sessions served here.
    pub sessions: usize,
    /// Client connections to this node, whoever serves them.
    pub connections: usize,
    /// Leases held here.
    pub held: usize,
    /// Takes no new users.
    pub draining: bool,
    /// What keeps it from serving.
    pub trouble: Vec<String>,
}

/// The answer to [`Request::Session`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionReply {
    /// Go on: the bytes that follow are the session's.
    Accepted,
    /// Somebody else serves this user.
    NotMine(Redirect),
    /// The user has as many sessions as allowed.
    TooMany {
        /// The limit.
        limit: usize,
        /// Which sessions it counts.
        of: SessionsOf,
    },
    /// No, with the reason for the log.
    Refused(String),
}

/// Where to ask instead.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Redirect {
    /// The holder; `None`: unclear at present (a node is suspect, or the answering one leaves), ask again.
    pub holder: Option<HolderId>,
}

/// The answer to [`Request::Deliver`], one per recipient.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// Whether another frame follows.
    pub more: bool,
}

/// Lines of one [`WhoReply`] frame: a line is below 1 KiB.
const WHO_LINES: usize = 500;

/// Sends a reply of any length.
pub async fn write_who<S: AsyncWrite + Unpin>(stream: &mut S, mut reply: WhoReply) -> io::Result<()> {
    loop {
        let sessions = reply.sessions.split_off(reply.sessions.len().min(WHO_LINES));
        let held = reply.held.split_off(reply.held.len().min(WHO_LINES));
        reply.more = !sessions.is_empty() || !held.is_empty();
        write(stream, &reply).await?;
        if !reply.more {
            return Ok(());
        }
        reply = WhoReply { sessions, held, more: false };
    }
}

/// Receives one.
pub async fn read_who<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<WhoReply> {
    let mut whole = WhoReply::default();
    loop {
        let part: WhoReply = read(stream).await?;
        whole.sessions.extend(part.sessions);
        whole.held.extend(part.held);
        if !part.more {
            return Ok(whole);
        }
    }
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
    async fn a_list_of_any_length_is_read_back() {
        let (mut a, mut b) = tokio::io::duplex(1 << 16);
        let held: Vec<(UserName, u64)> =
            (0..20_000).map(|n| (UserName::normalise(&format!("user{n}@{}.example", "x".repeat(60))).unwrap(), n)).collect();
        let sent = WhoReply { held: held.clone(), ..WhoReply::default() };
        let (_, got) = tokio::join!(async { write_who(&mut a, sent).await.unwrap() }, read_who(&mut b));
        assert_eq!(got.unwrap().held, held);
    }

    #[tokio::test]
    async fn frames_are_read_back_and_bounded() {
        let (mut a, mut b) = tokio::io::duplex(64);
        let user = UserName::normalise("ada").unwrap();
        let send = async { write(&mut a, &Request::Who { user: Some(user.clone()) }).await.unwrap() };
        let (_, request) = tokio::join!(send, read::<Request, _>(&mut b));
        assert!(matches!(request.unwrap(), Request::Who { user: Some(u) } if u == user));

        hear(&mut a).await.unwrap();
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
