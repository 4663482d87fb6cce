//! Relay links: one mutually authenticated TLS connection per pair of nodes, many streams on it (yamux).
//!
//! Either side opens streams on a link, whoever dialled it. A link ends when its TCP connection does, when a request on it gets no answer in
//! time, or when the peer is no longer in `nodes/`; its streams end with it, with an error that names the peer.

use std::{collections::HashMap, future::poll_fn, io, sync::Arc, task::Poll, time::Duration};

use affinity::{HolderId, Peer};
use futures::{AsyncRead, AsyncWrite};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::{
    compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt},
    sync::CancellationToken,
};

use super::identity::{Identity, Pin, pin};
use crate::node::Node;

/// How long connecting to another node and its handshake may take: they share a network.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Streams on one link: every session of a large node at once.
const STREAMS_MAX: usize = 65_536;
/// Streams being opened that wait for the link's task.
const OPEN_QUEUE: usize = 256;
/// How long a new node may take to show up in our listing of `nodes/` before its link is refused.
const INTRODUCTION: Duration = Duration::from_secs(5);

/// One stream of a link.
pub type RelayStream = Compat<yamux::Stream>;

/// Why a node can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It is not (or no longer, or not yet) in `nodes/`, or published no address.
    #[error("node {0} is not known here")]
    Unknown(HolderId),
    /// None of its addresses answered.
    #[error("node {peer} can't be reached: {reason}")]
    Unreachable {
        /// Which node.
        peer: HolderId,
        /// Each address with its error.
        reason: String,
    },
}

/// All links of this process.
pub struct Links {
    identity: Identity,
    live: Mutex<HashMap<Pin, Link>>,
    dialling: Mutex<HashMap<Pin, Arc<tokio::sync::Mutex<()>>>>,
}

/// A live link; dropping the last clone of `open` ends its task.
#[derive(Clone)]
struct Link {
    open: mpsc::Sender<oneshot::Sender<yamux::Stream>>,
    broken: CancellationToken,
}

impl Links {
    /// Links under a fresh identity.
    pub fn new(identity: Identity) -> Links {
        Links { identity, live: Mutex::new(HashMap::new()), dialling: Mutex::new(HashMap::new()) }
    }

    /// Opens a stream to `to`, dialling if there is no link yet.
    pub async fn open(&self, node: &Arc<Node>, to: &HolderId) -> Result<(RelayStream, CancellationToken), LinkError> {
        let peer = node.keeper.peer(to).ok_or_else(|| LinkError::Unknown(to.clone()))?;
        let info = peer.info.clone().ok_or_else(|| LinkError::Unknown(to.clone()))?;
        let dialling = self.dialling.lock().entry(info.certificate_pin.clone()).or_default().clone();
        for attempt in 0..2 {
            let link = {
                // One dial at a time per peer; the others wait and then find the link.
                let _one = dialling.lock().await;
                let live = self.live.lock().get(&info.certificate_pin).cloned();
                match live {
                    Some(link) => link,
                    None => self.dial(node, &peer, &info.certificate_pin, &info.relay).await?,
                }
            };
            let (sender, receiver) = oneshot::channel();
            if link.open.send(sender).await.is_ok()
                && let Ok(Ok(stream)) = timeout(DIAL_TIMEOUT, receiver).await
            {
                return Ok((stream.compat(), link.broken));
            }
            self.drop_link(&info.certificate_pin);
            tracing::debug!(peer = %to, attempt, "the relay link was dead");
        }
        Err(LinkError::Unreachable { peer: to.clone(), reason: "its link breaks at once".into() })
    }

    /// Ends the link to a node, and so every stream on it: it did not answer, or it is gone.
    pub fn drop_link(&self, pin: &str) {
        let link = self.live.lock().remove(pin);
        if let Some(link) = link {
            link.broken.cancel();
        }
    }

    /// Ends the links to nodes that are not in `peers`.
    pub fn retain(&self, peers: &[Peer]) {
        let gone: Vec<Pin> = {
            let live = self.live.lock();
            live.keys()
                .filter(|pin| !peers.iter().any(|peer| peer.info.as_ref().is_some_and(|info| &info.certificate_pin == *pin)))
                .cloned()
                .collect()
        };
        for pin in gone {
            self.drop_link(&pin);
        }
        self.dialling.lock().retain(|_, lock| Arc::strong_count(lock) > 1);
    }

    async fn dial(&self, node: &Arc<Node>, peer: &Peer, pin: &Pin, addresses: &[String]) -> Result<Link, LinkError> {
        let mut reasons = Vec::new();
        for address in addresses {
            match timeout(DIAL_TIMEOUT, self.dial_one(pin, address)).await {
                Ok(Ok(stream)) => {
                    tracing::info!(peer = %peer.holder, address, "relay link up");
                    return Ok(self.start(node.clone(), pin.clone(), stream, yamux::Mode::Client));
                }
                Ok(Err(error)) => reasons.push(format!("{address}: {error:#}")),
                Err(_) => reasons.push(format!("{address}: no answer within {DIAL_TIMEOUT:?}")),
            }
        }
        Err(LinkError::Unreachable { peer: peer.holder.clone(), reason: reasons.join("; ") })
    }

    async fn dial_one(&self, pin: &Pin, address: &str) -> anyhow::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(address).await?;
        keep_alive(&tcp)?;
        let connector = TlsConnector::from(Arc::new(self.identity.client_config(pin.clone())?));
        Ok(connector.connect(ServerName::try_from("berth.invalid")?, tcp).await?)
    }

    /// Starts the task that drives a link, and remembers it (a simultaneous second one is used as well until it ends).
    fn start<S>(&self, node: Arc<Node>, pin: Pin, stream: S, mode: yamux::Mode) -> Link
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let mut config = yamux::Config::default();
        // Peers are authenticated nodes; what they may make us hold is bounded by the number of streams and each stream's window.
        config.set_max_connection_receive_window(None).set_max_num_streams(STREAMS_MAX);
        let connection = yamux::Connection::new(stream.compat(), config, mode);
        let (open, requests) = mpsc::channel(OPEN_QUEUE);
        let link = Link { open, broken: CancellationToken::new() };
        self.live.lock().insert(pin.clone(), link.clone());
        let broken = link.broken.clone();
        tokio::spawn(async move {
            let inbound_node = node.clone();
            let result = tokio::select! {
                result = drive(connection, requests, |stream| { tokio::spawn(super::serve::stream(inbound_node.clone(), stream.compat())); }) => result,
                () = broken.cancelled() => Err(io::Error::other("given up")),
            };
            broken.cancel();
            let mut live = node.links.live.lock();
            if live.get(&pin).is_some_and(|link| link.broken.is_cancelled()) {
                live.remove(&pin);
            }
            drop(live);
            match result {
                Ok(()) => tracing::debug!(pin, "relay link closed"),
                Err(error) => tracing::info!(pin, %error, "relay link down"),
            }
        });
        link
    }
}

/// Accepts links from other nodes until `stop`.
pub async fn listen(node: Arc<Node>, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(node.links.identity.server_config()?));
    loop {
        let (tcp, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "can't accept a relay link");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = stop.cancelled() => return Ok(()),
        };
        let (node, acceptor) = (node.clone(), acceptor.clone());
        tokio::spawn(async move {
            match timeout(DIAL_TIMEOUT + INTRODUCTION, admit(&node, &acceptor, tcp)).await {
                Ok(Ok((pin, holder, stream))) => {
                    tracing::info!(peer = %holder, %address, "relay link up");
                    node.links.start(node.clone(), pin, stream, yamux::Mode::Server);
                }
                Ok(Err(error)) => tracing::warn!(%address, error = format!("{error:#}"), "relay link refused"),
                Err(_) => tracing::warn!(%address, "relay link refused: the handshake took too long"),
            }
        });
    }
}

/// The handshake, then the question whether a live node published this certificate.
async fn admit(
    node: &Arc<Node>,
    acceptor: &TlsAcceptor,
    tcp: TcpStream,
) -> anyhow::Result<(Pin, HolderId, tokio_rustls::server::TlsStream<TcpStream>)> {
    keep_alive(&tcp)?;
    let stream = acceptor.accept(tcp).await?;
    let certificate =
        stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).ok_or_else(|| anyhow::anyhow!("no certificate"))?;
    let pin = pin(certificate);
    // A node that joined a moment ago is not in our listing yet.
    let known = timeout(INTRODUCTION, async {
        loop {
            let holder = node
                .keeper
                .peers()
                .into_iter()
                .find(|peer| peer.info.as_ref().is_some_and(|info| info.certificate_pin == pin))
                .map(|peer| peer.holder);
            match holder {
                Some(holder) => return holder,
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
    match known.await {
        Ok(holder) => Ok((pin, holder, stream)),
        Err(_) => anyhow::bail!("no live node has published certificate {pin}"),
    }
}

/// Moves a link along: opens streams that are asked for, hands over those that the peer opens.
async fn drive<T>(
    mut connection: yamux::Connection<T>,
    mut requests: mpsc::Receiver<oneshot::Sender<yamux::Stream>>,
    mut inbound: impl FnMut(yamux::Stream),
) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut asked: Option<oneshot::Sender<yamux::Stream>> = None;
    let mut closing = false;
    poll_fn(|cx| {
        loop {
            let mut progress = false;
            if asked.is_none() && !closing {
                match requests.poll_recv(cx) {
                    Poll::Ready(Some(request)) => asked = Some(request),
                    Poll::Ready(None) => closing = true,
                    Poll::Pending => {}
                }
            }
            if asked.is_some() {
                match connection.poll_new_outbound(cx) {
                    Poll::Ready(Ok(stream)) => {
                        // Nobody waits any more: the stream is dropped, which resets it.
                        if let Some(request) = asked.take() {
                            drop(request.send(stream));
                        }
                        progress = true;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                    Poll::Pending => {}
                }
            }
            match connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => {
                    inbound(stream);
                    progress = true;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io::Error::other(error))),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {}
            }
            if !progress {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// A host that vanished is noticed by the kernel too, beside the watch.
fn keep_alive(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    SockRef::from(tcp)
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5)).with_retries(3))
}
