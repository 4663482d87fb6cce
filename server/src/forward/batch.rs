//! What lies between a link's streams and its TLS connection: output of many streams goes out together.
//!
//! yamux writes each frame in two pieces and flushes after each; every piece would be a TLS record and a system call of its own. Here they gather until
//! there is nothing more to send at the moment, or [`BATCH_BYTES`] are.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What gathers before it is sent in any case: four full TLS records, what rustls takes at once.
const BATCH_BYTES: usize = 64 * 1024;

/// One half is yamux's, the other its driver's: only the driver knows when a turn is over, and then calls [`Batched::poll_send`].
#[derive(Debug)]
pub struct Batched<S> {
    inner: Arc<Mutex<Inner<S>>>,
}

#[derive(Debug)]
struct Inner<S> {
    stream: S,
    output: BytesMut,
}

impl<S> Clone for Batched<S> {
    fn clone(&self) -> Batched<S> {
        Batched { inner: self.inner.clone() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Batched<S> {
    /// Gathers what is written to `stream`.
    pub fn new(stream: S) -> Batched<S> {
        Batched { inner: Arc::new(Mutex::new(Inner { stream, output: BytesMut::new() })) }
    }

    /// Sends what has gathered.
    pub fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.inner.lock();
        ready!(inner.poll_drain(cx))?;
        // An idle link keeps no buffer.
        inner.output = BytesMut::new();
        Pin::new(&mut inner.stream).poll_flush(cx)
    }
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.output.has_remaining() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Batched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner.lock().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Batched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.inner.lock();
        // Much at once is not copied first: it goes behind what has gathered, in the same records.
        while inner.output.len() + bytes.len() >= BATCH_BYTES {
            let gathered = inner.output.len();
            let pieces = [IoSlice::new(&inner.output), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut inner.stream).poll_write_vectored(cx, &pieces))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            inner.output.advance(written.min(gathered));
            if written > gathered {
                return Poll::Ready(Ok(written - gathered));
            }
        }
        inner.output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
    /// Not yet: [`Batched::poll_send`].
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.inner.lock();
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn pieces_go_out_together_when_the_turn_is_over() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut yamux = Batched::new(near);
        let driver = yamux.clone();
        for _ in 0..100 {
            yamux.write_all(b"header").await.unwrap();
            yamux.write_all(&[b'x'; 94]).await.unwrap();
            yamux.flush().await.unwrap();
        }
        let mut got = vec![0; 1 << 20];
        assert!(futures::poll!(Box::pin(far.read(&mut got))).is_pending(), "nothing goes out alone");
        poll_fn(|cx| driver.poll_send(cx)).await.unwrap();
        assert_eq!(far.read(&mut got).await.unwrap(), 10_000);
    }

    #[tokio::test]
    async fn what_gathers_is_bounded_by_a_peer_that_takes_nothing() {
        let (near, _far) = tokio::io::duplex(1000);
        let mut yamux = Batched::new(near);
        let mut taken = 0;
        while let Poll::Ready(written) = futures::poll!(Box::pin(yamux.write(&[0; 4096]))) {
            taken += written.unwrap();
            assert!(taken <= 1000 + BATCH_BYTES + 2 * 4096, "{taken}");
        }
        assert!(taken >= BATCH_BYTES);
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_arrive_whole_and_in_order(sizes in prop::collection::vec(0..200_000_usize, 1..12), pipe in 1..100_000_usize) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let sent: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|at| (at % 251).to_le_bytes()[0]).collect();
            let got = runtime.block_on(async {
                let (near, mut far) = tokio::io::duplex(pipe);
                let mut yamux = Batched::new(near);
                let writing = async {
                    let mut rest = sent.as_slice();
                    for size in &sizes {
                        let (piece, behind) = rest.split_at(*size);
                        yamux.write_all(piece).await.unwrap();
                        rest = behind;
                    }
                    yamux.shutdown().await.unwrap();
                };
                let mut got = Vec::new();
                let reading = async { far.read_to_end(&mut got).await.unwrap() };
                tokio::join!(writing, reading);
                got
            });
            prop_assert!(got == sent);
        }
    }
}
