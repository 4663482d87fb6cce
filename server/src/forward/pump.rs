//! Moves bytes between a client and its holder. An idle session keeps no buffers: each direction waits on a few bytes inside its own task and takes a
//! large buffer only while data flows.
//!
//! Invariants, each with the test that guards it:
//! - when the holder ends the session, the relay ends, whether the client hangs up or has vanished (`a_client_that_vanished_ends_with_its_session`)
//! - a client that takes nothing ends its own relay only (`a_receiver_that_takes_nothing_ends_the_session`)

use std::{
    io,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

/// What a direction waits on.
const WAIT_BYTES: usize = 128;
/// How long a client whose session has ended may take to hang up.
const HANG_UP: Duration = Duration::from_secs(2);
/// What it moves at once while data flows.
const FLOW_BYTES: usize = 64 * 1024;

/// Copies both ways until the holder has ended, one side fails, or a receiver takes nothing for `write_timeout`. A client may end its sending side
/// early.
pub async fn both_ways<A, B>(client: A, holder: B, write_timeout: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut holder_read, mut holder_write) = tokio::io::split(holder);
    let mut up = pin!(one_way(&mut client_read, &mut holder_write, write_timeout));
    let mut down = pin!(one_way(&mut holder_read, &mut client_write, write_timeout));
    tokio::select! {
        ended = &mut down => {
            ended?;
            // Closed at once, a client that is just sending would get a reset and might not see the last reply. What it sends now has nobody to go to.
            drop(timeout(HANG_UP, up).await);
            Ok(())
        }
        ended = &mut up => {
            ended?;
            down.await
        }
    }
}

async fn one_way<R, W>(from: &mut R, to: &mut W, write_timeout: Duration) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let stuck = |_| io::Error::new(io::ErrorKind::TimedOut, "the receiver takes nothing");
    let mut first = [0; WAIT_BYTES];
    loop {
        let mut read = from.read(&mut first).await?;
        if read == 0 {
            return timeout(write_timeout, to.shutdown()).await.map_err(stuck)?;
        }
        timeout(write_timeout, to.write_all(first.get(..read).unwrap_or_default())).await.map_err(stuck)??;
        if read == WAIT_BYTES {
            let mut flow = vec![0; FLOW_BYTES];
            loop {
                read = match read_ready(from, &mut flow).await? {
                    Some(read) if read > 0 => read,
                    // Nothing more at present, or the end, which the next read says again.
                    _ => break,
                };
                timeout(write_timeout, to.write_all(flow.get(..read).unwrap_or_default())).await.map_err(stuck)??;
            }
        }
        timeout(write_timeout, to.flush()).await.map_err(stuck)??;
    }
}

/// Reads what is there without waiting; `None`: nothing is.
async fn read_ready<R: AsyncRead + Unpin>(from: &mut R, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    std::future::poll_fn(|cx| {
        let mut into = ReadBuf::new(buffer);
        match Pin::new(&mut *from).poll_read(cx, &mut into) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(Some(into.filled().len()))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Ready(Ok(None)),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_pass_both_ways_and_the_end_is_passed_on() {
        let (mut client, client_side) = tokio::io::duplex(100_000);
        let (mut holder, holder_side) = tokio::io::duplex(50);
        let pump = tokio::spawn(both_ways(client_side, holder_side, Duration::from_secs(5)));
        let sent: Vec<u8> = (0..70_000u32).map(|i| i.to_le_bytes()[0]).collect();
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        holder.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, sent);
        holder.write_all(b"bye").await.unwrap();
        holder.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"bye");
        pump.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_end_of_the_holder_is_the_end_though_the_client_goes_on_sending() {
        let (mut client, client_side) = tokio::io::duplex(10);
        let (mut holder, holder_side) = tokio::io::duplex(50);
        let pump = tokio::spawn(both_ways(client_side, holder_side, Duration::from_secs(600)));
        holder.write_all(b"bye").await.unwrap();
        holder.shutdown().await.unwrap();
        let sender = async { while client.write_all(&[0; 8]).await.is_ok() {} };
        let (ended, ()) = tokio::join!(pump, sender);
        ended.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_vanished_ends_with_its_session() {
        let (_client, client_side) = tokio::io::duplex(1000);
        let (mut holder, holder_side) = tokio::io::duplex(1000);
        holder.write_all(b"* BYE idle for too long\r\n").await.unwrap();
        holder.shutdown().await.unwrap();
        timeout(Duration::from_secs(60), both_ways(client_side, holder_side, Duration::from_secs(600))).await.expect("it ends").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_takes_nothing_ends_the_session() {
        let (mut client, client_side) = tokio::io::duplex(1000);
        let (_holder, holder_side) = tokio::io::duplex(10);
        client.write_all(&[0; 500]).await.unwrap();
        let error = both_ways(client_side, holder_side, Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
