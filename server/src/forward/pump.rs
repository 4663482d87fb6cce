//! Moves bytes between a client and its holder. An idle session keeps no buffers: what the holder sends is passed on as it came, and what the client
//! sends is waited for with a few bytes inside the task, with a large buffer only while data flows.
//!
//! Invariants, each with the test that guards it:
//! - when the holder ends the session, the relay ends, whether the client hangs up or has vanished (`a_client_that_vanished_ends_with_its_session`)
//! - a client that takes nothing ends its own relay only (`a_receiver_that_takes_nothing_ends_the_session`)
//! - what a client sends goes on while it takes nothing itself (`a_client_that_takes_nothing_may_go_on_sending`)

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{error::Elapsed, timeout},
};

/// What a client's direction waits on.
const WAIT_BYTES: usize = 128;
/// How long a client whose session has ended may take to hang up.
const HANG_UP: Duration = Duration::from_secs(2);
/// What a client's direction moves at once while data flows.
const FLOW_BYTES: usize = 32 * 1024;

/// The holder's end of a relayed session.
pub trait Holder: AsyncWrite + Unpin {
    /// Some bytes.
    type Piece: AsRef<[u8]>;
    /// What came next, as it came; `None`: the holder has ended the session.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Self::Piece>>>;
}

/// Copies both ways until the holder has ended, one side fails, or a receiver takes nothing for `write_timeout`. A client may end its sending side
/// early.
pub async fn both_ways<A, B>(client: A, holder: B, write_timeout: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: Holder,
{
    let (mut client_read, mut client_write) = tokio::io::split(client);
    // Both directions are of one task: nobody waits for this lock.
    let holder = Mutex::new(holder);
    let mut to_holder = Shared(&holder);
    let mut up = pin!(one_way(&mut client_read, &mut to_holder, write_timeout));
    let mut down = pin!(pieces(&holder, &mut client_write, write_timeout));
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

/// Passes on what comes from the holder, without a copy of it.
async fn pieces<B: Holder, W: AsyncWrite + Unpin>(holder: &Mutex<B>, to: &mut W, write_timeout: Duration) -> io::Result<()> {
    loop {
        // Asked with our own waker, whatever comes of it: the holder's end keeps one for both directions.
        let piece = match poll_fn(|cx| Poll::Ready(holder.lock().poll_piece(cx))).await {
            Poll::Ready(piece) => piece?,
            // Nothing more at present.
            Poll::Pending => {
                timeout(write_timeout, to.flush()).await.map_err(stuck)??;
                poll_fn(|cx| holder.lock().poll_piece(cx)).await?
            }
        };
        let Some(piece) = piece else {
            return timeout(write_timeout, to.shutdown()).await.map_err(stuck)?;
        };
        timeout(write_timeout, to.write_all(piece.as_ref())).await.map_err(stuck)??;
    }
}

/// The holder's end, for writing.
struct Shared<'a, B>(&'a Mutex<B>);

impl<B: Holder> AsyncWrite for Shared<'_, B> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write(cx, bytes)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_shutdown(cx)
    }
}

fn stuck(_: Elapsed) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the receiver takes nothing")
}

async fn one_way<R, W>(from: &mut R, to: &mut W, write_timeout: Duration) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
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
    poll_fn(|cx| {
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
    use std::{
        sync::Arc,
        task::{Waker, ready},
    };

    use tokio::io::DuplexStream;

    use super::*;

    impl Holder for DuplexStream {
        type Piece = Vec<u8>;
        fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Vec<u8>>>> {
            let mut piece = vec![0; 100];
            let mut into = ReadBuf::new(&mut piece);
            ready!(Pin::new(self).poll_read(cx, &mut into))?;
            let length = into.filled().len();
            piece.truncate(length);
            Poll::Ready(Ok(Some(piece).filter(|piece| !piece.is_empty())))
        }
    }

    /// A holder that has always more to say and is full at first. Its end remembers one waker for both directions, as that of a yamux stream does.
    #[derive(Default)]
    struct OneWaker {
        waker: Option<Waker>,
        has_room: bool,
        got: usize,
    }

    struct Talkative(Arc<Mutex<OneWaker>>);

    impl Holder for Talkative {
        type Piece = [u8; 100];
        fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<[u8; 100]>>> {
            self.0.lock().waker = Some(cx.waker().clone());
            Poll::Ready(Ok(Some([b'x'; 100])))
        }
    }

    impl AsyncWrite for Talkative {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let mut this = self.0.lock();
            if !this.has_room {
                this.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            this.got += bytes.len();
            Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_may_go_on_sending() {
        // Which direction comes first is drawn by lot: more than once.
        for _ in 0..40 {
            let (mut client, client_side) = tokio::io::duplex(150);
            let state = Arc::new(Mutex::new(OneWaker::default()));
            client.write_all(b"a NOOP\r\n").await.unwrap();
            let pump = tokio::spawn(both_ways(client_side, Talkative(state.clone()), Duration::from_secs(600)));
            // One direction waits for the client, the other for the holder.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let waker = {
                let mut state = state.lock();
                state.has_room = true;
                state.waker.take().unwrap()
            };
            waker.wake();
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(state.lock().got, 8);
            pump.abort();
        }
    }

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
