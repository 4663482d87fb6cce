//! A stream whose bytes are compressed both ways with DEFLATE (RFC 4978), without I/O of its own.
//!
//! Invariants, each with the test that guards it:
//! - what goes in comes out, however it is cut (`bytes_come_out_as_they_went_in`)
//! - what a peer sends takes no more memory than its reader asks for, whatever it would inflate to (`a_bomb_inflates_as_fast_as_it_is_read`)
//! - what is flushed can be read at once (`each_flush_can_be_read`)
//! - a stream may end inside of a connection that goes on, wherever its parts are cut (`what_follows_the_end_of_a_stream_is_left_as_it_is`)
//! - a stream that rests keeps no compressor (`a_stream_at_rest_gives_its_compressor_back`): what is left is the window of 32 KiB that the peer may
//!   refer to at any time, which only it could give back, and the decoder's tables (about 12 KiB)

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Sleep, sleep},
};

/// How hard to try: beyond this, mail gets hardly smaller and each byte takes twice the time.
const LEVEL: u32 = 4;
/// How much is read at once, compressed.
const READ_BYTES: usize = 4 * 1024;
/// Compressed bytes that wait for the network; more are made once these are gone.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// How much room the compressor gets at once.
const STEP_BYTES: usize = 16 * 1024;
/// What each flush ends with (RFC 1951 §3.2.4: an empty block, stored). A peer that ends its stream without saying so ends it behind one of these.
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];
/// A stream on which nothing happens for so long gives its compressor back: about 300 KiB, of use only while answers come.
const REST_AFTER: Duration = Duration::from_secs(2);

/// A stream inside of which everything is compressed.
pub struct Deflated<S> {
    inner: S,
    /// `None`: at rest. A new one goes on in the same stream of blocks: it refers to nothing that was sent before.
    compress: Option<Box<Compress>>,
    decompress: Box<Decompress>,
    /// Compressed, from the peer.
    input: BytesMut,
    /// Whether the last call gave all that it could of the input it had.
    drained: bool,
    /// How much of [`FLUSHED`] the input that was taken ended with.
    matched: usize,
    /// Compressed, to the peer.
    output: BytesMut,
    /// Whether something was written that is not flushed out of the compressor.
    unflushed: bool,
    rest: Option<Pin<Box<Sleep>>>,
}

impl<S> Deflated<S> {
    /// Compresses what goes over `inner` from now on. `ahead`: what was read of it already, compressed.
    pub fn new(inner: S, ahead: BytesMut) -> Deflated<S> {
        Deflated {
            inner,
            compress: None,
            decompress: Box::new(Decompress::new(false)),
            input: ahead,
            drained: true,
            matched: 0,
            output: BytesMut::new(),
            unflushed: false,
            rest: None,
        }
    }

    /// Compresses as much of `bytes` as there is room for; how much that is.
    fn deflate(&mut self, bytes: &[u8], flush: FlushCompress) -> io::Result<usize> {
        let compress = self.compress.get_or_insert_with(|| Box::new(Compress::new(Compression::new(LEVEL), false)));
        self.rest = None;
        let mut taken = 0;
        loop {
            let mut step = [0; STEP_BYTES];
            let (before_in, before_out) = (compress.total_in(), compress.total_out());
            compress.compress(bytes.get(taken..).unwrap_or_default(), &mut step, flush).map_err(io::Error::other)?;
            taken += usize::try_from(compress.total_in() - before_in).unwrap_or_default();
            let made = usize::try_from(compress.total_out() - before_out).unwrap_or_default();
            self.output.extend_from_slice(step.get(..made).unwrap_or_default());
            // Room that was left says that there is nothing more to give.
            if made < STEP_BYTES && taken == bytes.len() {
                return Ok(taken);
            }
            if taken > 0 && self.output.len() >= OUTPUT_BYTES_MAX && matches!(flush, FlushCompress::None) {
                return Ok(taken);
            }
        }
    }

    /// Inflates into `into`; whether anything came.
    fn inflate(&mut self, into: &mut ReadBuf<'_>) -> io::Result<bool> {
        let room = into.initialize_unfilled();
        let (before_in, before_out) = (self.decompress.total_in(), self.decompress.total_out());
        // What lies behind a flush may be no part of the stream: it is not looked at before what came up to there is read.
        let piece = self.input.get(..self.flushed_at()).unwrap_or_default();
        let status = self.decompress.decompress(piece, room, FlushDecompress::None);
        let taken = usize::try_from(self.decompress.total_in() - before_in).unwrap_or_default();
        self.note_taken(taken);
        let made = usize::try_from(self.decompress.total_out() - before_out).unwrap_or_default();
        self.input.advance(taken);
        self.drained = made < room.len();
        into.advance(made);
        match status {
            Ok(Status::StreamEnd) if made == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(made > 0),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    /// Where the next flush in the input ends, or the input.
    fn flushed_at(&self) -> usize {
        let begun = FLUSHED.get(self.matched..).filter(|rest| self.matched > 0 && self.input.starts_with(rest));
        begun.map(<[u8]>::len).or_else(|| Some(memchr::memmem::find(&self.input, &FLUSHED)? + FLUSHED.len())).unwrap_or(self.input.len())
    }

    fn note_taken(&mut self, taken: usize) {
        let taken = self.input.get(..taken).unwrap_or_default();
        let last = taken.get(taken.len().saturating_sub(FLUSHED.len() - 1)..).unwrap_or_default();
        let seen = [FLUSHED.get(..self.matched).unwrap_or_default(), last].concat();
        self.matched = (0..FLUSHED.len()).rev().find(|count| FLUSHED.get(..*count).is_some_and(|start| seen.ends_with(start))).unwrap_or(0);
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) {
        if self.compress.is_none() || self.unflushed || !self.output.is_empty() {
            return;
        }
        let rest = self.rest.get_or_insert_with(|| Box::pin(sleep(REST_AFTER)));
        if rest.as_mut().poll(cx).is_ready() {
            (self.compress, self.rest, self.output) = (None, None, BytesMut::new());
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Deflated<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            while !this.drained || !this.input.is_empty() {
                let before = this.input.len();
                if this.inflate(buf)? {
                    return Poll::Ready(Ok(()));
                }
                if this.input.len() == before {
                    break;
                }
            }
            let mut chunk = [0; READ_BYTES];
            let mut chunk = ReadBuf::new(&mut chunk);
            match Pin::new(&mut this.inner).poll_read(cx, &mut chunk) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    if this.input.is_empty() {
                        this.input = BytesMut::new();
                    }
                    this.poll_rest(cx);
                    return Poll::Pending;
                }
            }
            if chunk.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.input.extend_from_slice(chunk.filled());
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Deflated<S> {
    /// Sends the end of the compressed stream; what goes over `inner` from now on is plain. Gives it back with what was read of it and not inflated.
    pub async fn finish(mut self) -> io::Result<(S, BytesMut)> {
        self.deflate(&[], FlushCompress::Finish)?;
        poll_fn(|cx| self.poll_send(cx, 0)).await?;
        self.inner.flush().await?;
        Ok((self.inner, self.input))
    }

    /// Sends what is compressed, until at most `left` bytes of it wait.
    fn poll_send(&mut self, cx: &mut Context<'_>, left: usize) -> Poll<io::Result<()>> {
        while self.output.len() > left {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.output))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_all_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.unflushed) {
            self.deflate(&[], FlushCompress::Sync)?;
        }
        self.poll_send(cx, 0)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Deflated<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx, OUTPUT_BYTES_MAX - 1))?;
        let taken = this.deflate(bytes, FlushCompress::None)?;
        this.unflushed |= taken > 0;
        Poll::Ready(Ok(taken))
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_all_out(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_all_out(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;

    fn pair() -> (Deflated<DuplexStream>, Deflated<DuplexStream>) {
        let (one, other) = duplex(1000);
        (Deflated::new(one, BytesMut::new()), Deflated::new(other, BytesMut::new()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn bytes_come_out_as_they_went_in(
            pieces in prop::collection::vec((prop::collection::vec(0_u8..4, 0..5_000), any::<bool>(), any::<bool>()), 0..12)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let (mut writer, mut reader) = pair();
                let sent: Vec<u8> = pieces.iter().flat_map(|(piece, ..)| piece.clone()).collect();
                let write = async {
                    for (piece, flush, rests) in &pieces {
                        writer.write_all(piece).await.unwrap();
                        if *flush || *rests {
                            writer.flush().await.unwrap();
                        }
                        if *rests {
                            writer.compress = None;
                        }
                    }
                    writer.shutdown().await.unwrap();
                };
                let mut got = Vec::new();
                let (read, ()) = tokio::join!(reader.read_to_end(&mut got), write);
                read.unwrap();
                assert_eq!(got, sent);
            });
        }
    }

    #[tokio::test]
    async fn each_flush_can_be_read() {
        let (mut writer, mut reader) = pair();
        for line in [&b"a NOOP\r\n"[..], b"b NOOP\r\n", b"c"] {
            writer.write_all(line).await.unwrap();
            writer.flush().await.unwrap();
            let mut got = vec![0; line.len()];
            reader.read_exact(&mut got).await.unwrap();
            assert_eq!(got, line);
        }
    }

    #[tokio::test]
    async fn what_follows_the_end_of_a_stream_is_left_as_it_is() {
        let said = b"a NOOP\r\nb UNAUTHENTICATE\r\n";
        for end in [FlushCompress::Sync, FlushCompress::Finish] {
            let mut compress = Compress::new(Compression::default(), false);
            let mut sent = Vec::with_capacity(1000);
            compress.compress_vec(said, &mut sent, end).unwrap();
            sent.extend_from_slice(b"c LOGIN ada secret\r\n");
            for cut in 0..sent.len() {
                let (mut peer, inner) = duplex(1000);
                let mut reader = Deflated::new(inner, BytesMut::from(&sent[..cut]));
                peer.write_all(&sent[cut..]).await.unwrap();
                let mut heard = Vec::new();
                while heard.len() < said.len() {
                    assert!(reader.read_buf(&mut heard).await.unwrap() > 0);
                }
                assert_eq!(heard, said, "{end:?} {cut}");
                reader.write_all(b"b OK\r\n").await.unwrap();
                let (mut plain, ahead) = reader.finish().await.unwrap();
                plain.write_all(b"c OK\r\n").await.unwrap();
                peer.shutdown().await.unwrap();
                let mut left = ahead.to_vec();
                plain.read_to_end(&mut left).await.unwrap();
                drop(plain);
                let mut got = Vec::new();
                peer.read_to_end(&mut got).await.unwrap();
                let (mut inflate, mut answer) = (Decompress::new(false), Vec::with_capacity(1000));
                let status = inflate.decompress_vec(&got, &mut answer, FlushDecompress::None).unwrap();
                let taken = usize::try_from(inflate.total_in()).unwrap();
                assert_eq!((status, answer.as_slice(), &got[taken..]), (Status::StreamEnd, &b"b OK\r\n"[..], &b"c OK\r\n"[..]));
                // Only the flush itself may be left over, which no command begins with.
                let first = left.iter().position(u8::is_ascii_graphic).unwrap_or(left.len());
                assert_eq!(&left[first..], b"c LOGIN ada secret\r\n", "{end:?} {cut}");
            }
        }
    }

    #[tokio::test]
    async fn a_bomb_inflates_as_fast_as_it_is_read() {
        let mut compress = Compress::new(Compression::best(), false);
        let mut bomb = Vec::with_capacity(1 << 20);
        compress.compress_vec(&vec![0; 64 << 20], &mut bomb, FlushCompress::Sync).unwrap();
        assert!(bomb.len() < 100_000);
        let (mut peer, inner) = duplex(1 << 20);
        peer.write_all(&bomb).await.unwrap();
        let mut reader = Deflated::new(inner, BytesMut::new());
        let mut chunk = vec![1; 10_000];
        for _ in 0..100 {
            reader.read_exact(&mut chunk).await.unwrap();
            assert!(reader.input.capacity() <= 4 * READ_BYTES && chunk.iter().all(|byte| *byte == 0));
        }
    }

    #[tokio::test]
    async fn what_is_no_deflate_is_an_error() {
        let (mut peer, inner) = duplex(1000);
        peer.write_all(b"\xff\xff\xffa NOOP\r\n").await.unwrap();
        let mut reader = Deflated::new(inner, BytesMut::new());
        assert_eq!(reader.read_u8().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_at_rest_gives_its_compressor_back() {
        let (mut one, mut other) = pair();
        for _ in 0..2 {
            one.write_all(b"hello").await.unwrap();
            one.flush().await.unwrap();
            let mut got = [0; 5];
            other.read_exact(&mut got).await.unwrap();
            assert!(one.compress.is_some() && &got == b"hello");
            let waited = tokio::time::timeout(REST_AFTER * 2, one.read_u8()).await;
            assert!(waited.is_err() && one.compress.is_none() && one.rest.is_none() && one.output.capacity() == 0);
        }
    }
}
