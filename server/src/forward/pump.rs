//! Moves bytes between a client and its holder. An idle session keeps no buffers: what the holder sends is passed on as it came, and what the client
//! sends is waited for with a few bytes inside the task, with a large buffer only while data flows.
//!
//! Invariants, each with the test that guards it:
//! - when the holder ends the session, the relay ends, whether the client hangs up or has vanished (`a_client_that_vanished_ends_with_its_session`)
//! - a client that takes nothing ends its own relay only (`a_receiver_that_takes_nothing_ends_the_session`)
//! - a client that the holder gives back loses no byte, wherever its stream is cut (`a_client_is_given_back_with_all_that_it_sent`)
//! - what a client sends goes on while it takes nothing itself (`a_client_that_takes_nothing_may_go_on_sending`)

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{error::Elapsed, timeout},
};

use super::Mark;

/// What a client's direction waits on.
const WAIT_BYTES: usize = 128;
/// How long a client whose session has ended may take to hang up.
const HANG_UP: Duration = Duration::from_secs(2);
/// What a client's direction moves at once while data flows.
const FLOW_BYTES: usize = 32 * 1024;

/// What a client whose session is over may have under way between the nodes; more would take a client that sends without waiting for anything.
const UNUSED_BYTES_MAX: usize = 1024 * 1024;

/// The holder's end of a relayed session.
pub trait Holder: AsyncWrite + Unpin {
    /// Some bytes.
    type Piece: AsRef<[u8]>;
    /// What came next, as it came; `None`: the holder has ended the session.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Self::Piece>>>;
}

/// Copies both ways until the holder has ended, one side fails, or a receiver takes nothing for `write_timeout`. A client may end its sending side
/// early. `Some`: the holder gave the client back by `mark`, with these bytes that it did not use.
pub async fn both_ways<A, B>(client: A, holder: B, mark: Option<&Mark>, write_timeout: Duration) -> io::Result<Option<Vec<u8>>>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: Holder,
{
    let (mut client_read, mut client_write) = tokio::io::split(client);
    // Both directions are of one task: nobody waits for this lock.
    let holder = Mutex::new(holder);
    let mut to_holder = Shared(&holder);
    let stop = AtomicBool::new(false);
    let mut up = pin!(one_way(&mut client_read, &mut to_holder, &stop, write_timeout));
    let mut down = pin!(pieces(&holder, &mut client_write, mark, write_timeout));
    let unused = tokio::select! {
        ended = &mut down => match ended? {
            Some(unused) => {
                // The holder sends back what is under way to it, until it has seen its end.
                stop.store(true, Ordering::Relaxed);
                let (sent, unused) = tokio::join!(up, rest(&holder, unused, write_timeout));
                sent?;
                return unused.map(Some);
            }
            None => {
                // Closed at once, a client that is just sending would get a reset and might not see the last reply. What it sends now has nobody to go to.
                drop(timeout(HANG_UP, up).await);
                return Ok(None);
            }
        },
        ended = &mut up => {
            ended?;
            down.await?
        }
    };
    match unused {
        Some(unused) => rest(&holder, unused, write_timeout).await.map(Some),
        None => Ok(None),
    }
}

/// All that the holder still sends, behind `unused`.
async fn rest<B: Holder>(holder: &Mutex<B>, mut unused: Vec<u8>, limit: Duration) -> io::Result<Vec<u8>> {
    while let Some(piece) = timeout(limit, poll_fn(|cx| holder.lock().poll_piece(cx))).await.map_err(stuck)?? {
        unused.extend_from_slice(piece.as_ref());
        if unused.len() > UNUSED_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the client sent too much ahead of its login"));
        }
    }
    Ok(unused)
}

/// Looks for a mark where pieces begin; it may come in several.
struct Finder<'a> {
    mark: &'a [u8],
    /// So much of it has come.
    matched: usize,
}

/// What a piece is.
#[derive(Debug, PartialEq, Eq)]
enum Found<'a> {
    /// The client's, after so many bytes of the mark that were none.
    Client(usize, &'a [u8]),
    /// Perhaps a part of the mark.
    Perhaps,
    /// The rest of the mark, and what follows it.
    Mark(&'a [u8]),
}

impl Finder<'_> {
    fn look<'p>(&mut self, piece: &'p [u8]) -> Found<'p> {
        let rest = self.mark.get(self.matched..).unwrap_or_default();
        if rest.is_empty() {
            return Found::Client(0, piece);
        }
        if let Some(after) = piece.strip_prefix(rest) {
            return Found::Mark(after);
        }
        if rest.starts_with(piece) {
            self.matched += piece.len();
            return Found::Perhaps;
        }
        let waited = std::mem::take(&mut self.matched);
        Found::Client(waited, piece)
    }
}

/// Passes on what comes from the holder, without a copy of it. `Some`: the mark came, and these bytes behind it.
async fn pieces<B: Holder, W: AsyncWrite + Unpin>(
    holder: &Mutex<B>,
    to: &mut W,
    mark: Option<&Mark>,
    write_timeout: Duration,
) -> io::Result<Option<Vec<u8>>> {
    let mark = mark.map(Mark::as_bytes).unwrap_or_default();
    let mut finder = Finder { mark, matched: 0 };
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
            let waited = mark.get(..finder.matched).unwrap_or_default();
            timeout(write_timeout, to.write_all(waited)).await.map_err(stuck)??;
            return timeout(write_timeout, to.shutdown()).await.map_err(stuck)?.map(|()| None);
        };
        match finder.look(piece.as_ref()) {
            Found::Client(waited, piece) => {
                if waited > 0 {
                    timeout(write_timeout, to.write_all(mark.get(..waited).unwrap_or_default())).await.map_err(stuck)??;
                }
                timeout(write_timeout, to.write_all(piece)).await.map_err(stuck)??;
            }
            Found::Perhaps => {}
            Found::Mark(after) => {
                timeout(write_timeout, to.flush()).await.map_err(stuck)??;
                return Ok(Some(after.to_vec()));
            }
        }
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

/// Copies until the end of `from`, or until `stop`: then all that was read is passed on.
async fn one_way<R, W>(from: &mut R, to: &mut W, stop: &AtomicBool, write_timeout: Duration) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut first = [0; WAIT_BYTES];
    loop {
        let mut read = read_unless(from, &mut first, stop).await?;
        if read == 0 {
            return timeout(write_timeout, to.shutdown()).await.map_err(stuck)?;
        }
        timeout(write_timeout, to.write_all(first.get(..read).unwrap_or_default())).await.map_err(stuck)??;
        if read == WAIT_BYTES {
            let mut flow = vec![0; FLOW_BYTES];
            while !stop.load(Ordering::Relaxed) {
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

/// Waits for bytes; 0: there are none any more, or it is time to stop. Whoever says stop polls this once more.
async fn read_unless<R: AsyncRead + Unpin>(from: &mut R, buffer: &mut [u8], stop: &AtomicBool) -> io::Result<usize> {
    poll_fn(|cx| {
        if stop.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(0));
        }
        let mut into = ReadBuf::new(buffer);
        Pin::new(&mut *from).poll_read(cx, &mut into).map_ok(|()| into.filled().len())
    })
    .await
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

    use tokio::io::{AsyncReadExt, DuplexStream};

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
            let pump = tokio::spawn(both_ways(client_side, Talkative(state.clone()), None, Duration::from_secs(600)));
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
        let pump = tokio::spawn(both_ways(client_side, holder_side, None, Duration::from_secs(5)));
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
        let pump = tokio::spawn(both_ways(client_side, holder_side, None, Duration::from_secs(600)));
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
        timeout(Duration::from_secs(60), both_ways(client_side, holder_side, None, Duration::from_secs(600)))
            .await
            .expect("it ends")
            .unwrap();
    }

    #[tokio::test]
    async fn a_client_is_given_back_with_all_that_it_sent() {
        let mark = Mark::random();
        // How much the link takes at once cuts the mark anywhere; a false start comes right before it.
        for window in 1..80 {
            let (mut client, client_side) = tokio::io::duplex(100_000);
            let (mut holder, holder_side) = tokio::io::duplex(window);
            let pump = tokio::spawn({
                let mark = mark.clone();
                async move {
                    let mut client = client_side;
                    let unused = both_ways(&mut client, holder_side, Some(&mark), Duration::from_secs(20)).await;
                    (client, unused)
                }
            });
            let sent: Vec<u8> = (0..10_000_u32).flat_map(|number| format!("{number} ").into_bytes()).collect();
            client.write_all(&sent).await.unwrap();
            let mut used = vec![0; 1000];
            holder.read_exact(&mut used).await.unwrap();
            holder.write_all(b"OK\r\n").await.unwrap();
            let mut read = Vec::new();
            while !read.ends_with(b"OK\r\n") {
                client.read_buf(&mut read).await.unwrap();
            }
            holder.write_all(mark.as_bytes()).await.unwrap();
            let mut chunk = [0; 50];
            loop {
                let read = holder.read(&mut chunk).await.unwrap();
                if read == 0 {
                    break;
                }
                holder.write_all(&chunk[..read]).await.unwrap();
            }
            holder.shutdown().await.unwrap();
            let (mut client_side, unused) = pump.await.unwrap();
            drop(client);
            let mut unread = Vec::new();
            client_side.read_to_end(&mut unread).await.unwrap();
            assert_eq!([used, unused.unwrap().unwrap(), unread].concat(), sent, "{window}");
        }
    }

    #[test]
    fn a_mark_is_found_where_a_piece_begins_and_nowhere_else() {
        let mark = Mark::random();
        let mark = mark.as_bytes();
        let mut finder = Finder { mark, matched: 0 };
        let inside = [b"x", mark].concat();
        assert_eq!(finder.look(&inside), Found::Client(0, &inside));
        assert_eq!((finder.look(&mark[..1]), finder.look(b"no")), (Found::Perhaps, Found::Client(1, b"no")));
        assert_eq!((finder.look(&mark[..7]), finder.look(&mark[7..9])), (Found::Perhaps, Found::Perhaps));
        assert_eq!(finder.look(&[&mark[9..], b"more"].concat()), Found::Mark(b"more"));
        assert_eq!(Finder { mark: b"", matched: 0 }.look(b"any"), Found::Client(0, b"any"), "who has no mark finds none");
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_takes_nothing_ends_the_session() {
        let (mut client, client_side) = tokio::io::duplex(1000);
        let (_holder, holder_side) = tokio::io::duplex(10);
        client.write_all(&[0; 500]).await.unwrap();
        let error = both_ways(client_side, holder_side, None, Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
