//! Relay links: one mutually authenticated TLS connection per pair of nodes, many streams on it (yamux).
//!
//! Either side opens streams on a link, whoever dialled it. A link ends when its TCP connection does, or when one of the two incarnations that made
//! it is no longer in `nodes/`; its streams end with it, with an error that names the peer.
//!
//! Invariants, each with the test that guards it:
//! - a broken link ends the sessions on it and no others, with a reason (`a_broken_link_ends_its_own_streams_only`)
//! - a reader that takes nothing holds up its own stream only (`a_slow_reader_stalls_nobody_else`)
//! - who is not in `listen.relay_from` gets no handshake (`the_relay_takes_links_from_listed_networks_only`)
//! - a node that joined anew uses no link of its incarnation before, which the others end (`a_node_that_joins_anew_uses_no_link_from_before`)
//! - strangers at the relay port are few, and push each other out (`the_oldest_stranger_at_the_relay_port_makes_room`)
//! - streams whose requests are not answered yet don't keep new ones from being opened (`many_unanswered_requests_do_not_block_new_ones`)

use std::{collections::HashMap, future::poll_fn, io, sync::Arc, task::Poll, time::Duration};

use affinity::{HolderId, NodeState, Peer};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::{
    compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt},
    sync::CancellationToken,
};

use super::{
    batch::Batched,
    held::Farewell,
    identity::{Identity, Pin, Published, pin},
};
use crate::node::{
    Node,
    admission::{Admission, Stranger},
};

/// How long connecting to another node and its handshake may take: they share a network.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Streams on one link: every session of a large node at once.
const STREAMS_MAX: usize = 65_536;
/// Streams being opened that wait for the link's task.
const OPEN_QUEUE: usize = 256;
/// By how much the windows of all streams of a link may grow together beyond the 256 KiB that each begins with: what readers that have become slow can
/// make this node hold.
const WINDOWS_BYTES: usize = 32 * 1024 * 1024;
/// Largest frame: few enough for one stream to cost little, small enough for the others not to wait.
const FRAME_BYTES: usize = 64 * 1024;
/// What is read from the network at once: rustls alone would ask for 4 KiB each time.
const READ_BYTES: usize = 128 * 1024;
/// How long sent bytes may stay without the peer's acknowledgement before its host counts as gone: probes (`keep_alive`) are not sent while some are.
const UNACKNOWLEDGED: Duration = Duration::from_secs(25);
/// For how long nobody dials again after a node could not be reached: whoever waited for that dial gets its error.
const REDIAL: Duration = Duration::from_secs(1);
/// How long a new node may take to show up in our listing of `nodes/` before its link is refused.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// How often it is looked for.
const INTRODUCTION_LOOK: Duration = Duration::from_millis(50);

/// Connections to the relay port that are not known to be a node's: the oldest of the address with most makes room for the newest, and a node's own
/// handshake takes milliseconds.
const STRANGERS_MAX: usize = 64;
/// How often it is told that there are as many, or that somebody is not listed.
const CROWDED_TOLD: Duration = Duration::from_secs(60);

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
    published: Arc<Published>,
    /// More than one where two nodes dialled each other at once: the last is used, the others serve the streams they have.
    live: Mutex<HashMap<Pin, Vec<Link>>>,
    dialling: Mutex<HashMap<Pin, Dialling>>,
}

/// One dial at a time per peer, and how the last one failed.
type Dialling = Arc<tokio::sync::Mutex<Option<(Instant, String)>>>;

/// A live link.
#[derive(Clone)]
struct Link {
    /// The pin of this node that the peer has seen.
    ours: Pin,
    open: mpsc::Sender<oneshot::Sender<yamux::Stream>>,
    /// Said with why when it is.
    broken: Farewell,
}

impl Links {
    /// Links under the identity of the present incarnation.
    pub fn new(published: Arc<Published>) -> Links {
        Links { published, live: Mutex::new(HashMap::new()), dialling: Mutex::new(HashMap::new()) }
    }

    /// Opens a stream to `to`, dialling if there is no link yet.
    pub async fn open(&self, node: &Arc<Node>, to: &HolderId) -> Result<(RelayStream, Farewell), LinkError> {
        let peer = node.keeper.peer(to).ok_or_else(|| LinkError::Unknown(to.clone()))?;
        let info = peer.info.clone().ok_or_else(|| LinkError::Unknown(to.clone()))?;
        let dialling = self.dialling.lock().entry(info.certificate_pin.clone()).or_default().clone();
        for attempt in 0..2 {
            let link = match self.link(&info.certificate_pin) {
                Some(link) => link,
                None => {
                    // One dial at a time per peer; the others wait and then find the link, or the error.
                    let mut failed = dialling.lock().await;
                    match (self.link(&info.certificate_pin), &*failed) {
                        (Some(link), _) => link,
                        (None, Some((when, reason))) if when.elapsed() < REDIAL => {
                            return Err(LinkError::Unreachable { peer: to.clone(), reason: reason.clone() });
                        }
                        (None, _) => match self.dial(node, &peer, &info.certificate_pin, &info.relay).await {
                            Ok(link) => link,
                            Err(reason) => {
                                *failed = Some((Instant::now(), reason.clone()));
                                return Err(LinkError::Unreachable { peer: to.clone(), reason });
                            }
                        },
                    }
                }
            };
            let asked = async {
                let (sender, receiver) = oneshot::channel();
                link.open.send(sender).await.ok()?;
                receiver.await.ok()
            };
            match timeout(DIAL_TIMEOUT, asked).await {
                Ok(Some(stream)) => return Ok((stream.compat(), link.broken)),
                Ok(None) => tracing::debug!(peer = %to, attempt, "the relay link was dead"),
                // Slow is not dead: the sessions on it go on, and the watch decides about the node.
                Err(_) => return Err(LinkError::Unreachable { peer: to.clone(), reason: "its link is busy".into() }),
            }
        }
        Err(LinkError::Unreachable { peer: to.clone(), reason: "its link breaks at once".into() })
    }

    /// The link in use.
    fn link(&self, pin: &str) -> Option<Link> {
        let identity = self.published.identity();
        self.live.lock().get(pin)?.iter().rev().find(|link| !link.broken.is_said() && link.ours == *identity.pin()).cloned()
    }

    /// Ends all links to a node, and so every stream on them: it is gone.
    pub fn drop_link(&self, pin: &str) {
        let links = self.live.lock().remove(pin);
        for link in links.into_iter().flatten() {
            link.broken.say("the other node left or was fenced");
        }
    }

    /// Ends the links that an incarnation of this node before the present one made; a process that was fenced while it stood still says so.
    pub fn end_earlier(&self, stood_still: Option<Duration>) {
        let identity = self.published.identity();
        let why = with_our_own("this node was fenced, and joined anew".to_owned(), stood_still, NodeState::Up);
        for link in self.live.lock().values().flatten().filter(|link| link.ours != *identity.pin()) {
            link.broken.say(&why);
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

    /// Dials one address after the other; the error names each with its own.
    async fn dial(&self, node: &Arc<Node>, peer: &Peer, pin: &Pin, addresses: &[String]) -> Result<Link, String> {
        let mut reasons = Vec::new();
        for address in addresses {
            let identity = self.published.identity();
            match timeout(DIAL_TIMEOUT, dial_one(&identity, pin, address)).await {
                Ok(Ok(stream)) => {
                    tracing::info!(peer = %peer.holder, address, "relay link up");
                    let ends = Ends { ours: identity.pin().clone(), theirs: pin.clone(), peer: peer.holder.clone() };
                    return Ok(self.start(node.clone(), ends, stream, yamux::Mode::Client));
                }
                Ok(Err(error)) => reasons.push(format!("{address}: {error:#}")),
                Err(_) => reasons.push(format!("{address}: no answer within {DIAL_TIMEOUT:?}")),
            }
        }
        Err(reasons.join("; "))
    }

    /// Starts the task that drives a link, and remembers it (a simultaneous second one is used as well until it ends).
    fn start<S>(&self, node: Arc<Node>, ends: Ends, stream: S, mode: yamux::Mode) -> Link
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let Ends { ours, theirs, peer } = ends;
        let socket = Batched::new(stream);
        let connection = yamux::Connection::new(socket.clone().compat(), config(), mode);
        let (open, requests) = mpsc::channel(OPEN_QUEUE);
        let link = Link { ours, open, broken: Farewell::default() };
        self.live.lock().entry(theirs.clone()).or_default().push(link.clone());
        // This node may have joined anew during the handshake.
        self.end_earlier(node.keeper.stood_still());
        let broken = link.broken.clone();
        tokio::spawn(async move {
            let inbound = |stream: yamux::Stream| {
                let from = Opener { peer: peer.clone(), broken: broken.clone() };
                // Tracked: a node that leaves lets them say goodbye.
                node.tasks.spawn(super::serve::stream(node.clone(), stream.compat(), from));
            };
            let ended = tokio::select! {
                result = drive(connection, socket, requests, inbound) => result.err().map(|error| with_our_own(why_it_ended(&error), node.keeper.stood_still(), node.keeper.state())),
                why = broken.heard() => Some(why),
            };
            broken.say(ended.as_deref().unwrap_or("the other node closed it"));
            node.links.forget_broken(&theirs);
            match ended {
                None => tracing::debug!(%peer, "relay link closed"),
                Some(reason) => tracing::info!(%peer, reason, "relay link down"),
            }
        });
        link
    }
}

/// The two ends of a link.
struct Ends {
    ours: Pin,
    theirs: Pin,
    peer: HolderId,
}

async fn dial_one(identity: &Identity, pin: &Pin, address: &str) -> anyhow::Result<tokio_rustls::client::TlsStream<BufReader<TcpStream>>> {
    let tcp = TcpStream::connect(address).await?;
    keep_alive(&tcp)?;
    let connector = TlsConnector::from(Arc::new(identity.client_config(pin.clone())?));
    Ok(connector.connect(ServerName::try_from("berth.invalid")?, BufReader::with_capacity(READ_BYTES, tcp)).await?)
}

/// Who opened a stream.
pub struct Opener {
    /// Which node.
    pub peer: HolderId,
    /// Said with why when the stream's link is broken.
    pub broken: Farewell,
}

/// Adds what this node knows of itself: others close links to a node that gives no sign of life.
fn with_our_own(why: String, stood_still: Option<Duration>, state: NodeState) -> String {
    match (stood_still, state) {
        (Some(time), _) => format!("{why}; this process stood still for {:.1} s a moment ago", time.as_secs_f64()),
        (None, NodeState::Up) => why,
        (None, NodeState::Suspended) => format!("{why}; this node is suspended itself"),
        (None, NodeState::Out) => format!("{why}; this node left or was fenced"),
    }
}

/// For people: what TLS and yamux make of a broken connection says less.
fn why_it_ended(error: &io::Error) -> String {
    const BROKEN: [io::ErrorKind; 4] =
        [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::ConnectionAborted, io::ErrorKind::BrokenPipe];
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let mut kinds = causes.filter_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
    if kinds.any(|kind| BROKEN.contains(&kind)) { "the other node's process or network went away".to_owned() } else { error.to_string() }
}

fn config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config
        // In this order: the window is checked against the number of streams.
        .set_max_connection_receive_window(Some(STREAMS_MAX * yamux::DEFAULT_CREDIT as usize + WINDOWS_BYTES))
        .set_max_num_streams(STREAMS_MAX)
        .set_split_send_size(FRAME_BYTES);
    config
}

impl Links {
    fn forget_broken(&self, pin: &str) {
        let mut live = self.live.lock();
        if let Some(links) = live.get_mut(pin) {
            links.retain(|link| !link.broken.is_said());
            if links.is_empty() {
                live.remove(pin);
            }
        }
    }
}

/// Accepts links from other nodes until `stop`.
pub async fn listen(node: Arc<Node>, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
    let (strangers, told) = (Admission::default(), Arc::new(Mutex::new(None::<Instant>)));
    // Changes of [listen] take effect at the next start.
    let listen = node.config().listen.clone();
    let mut strays: Option<Instant> = None;
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
        if !listen.takes_links_from(address.ip()) {
            if strays.is_none_or(|at| at.elapsed() >= CROWDED_TOLD) {
                strays = Some(Instant::now());
                tracing::warn!(%address, "relay links refused: the address is not in listen.relay_from, which must have those of all nodes");
            }
            continue;
        }
        let (node, identity, told) = (node.clone(), node.links.published.identity(), told.clone());
        let stranger = strangers.stranger(address.ip(), STRANGERS_MAX);
        tokio::spawn(async move {
            let Some(admitted) = unless_crowded(stranger, timeout(DIAL_TIMEOUT + INTRODUCTION, admit(&node, &identity, tcp))).await else {
                let mut told = told.lock();
                if told.is_none_or(|at| at.elapsed() >= CROWDED_TOLD) {
                    *told = Some(Instant::now());
                    tracing::warn!(%address, limit = STRANGERS_MAX, "relay links refused: too many strangers connect. Let only nodes reach listen.relay");
                }
                return;
            };
            match admitted {
                Ok(Ok((theirs, peer, stream))) => {
                    tracing::info!(%peer, %address, "relay link up");
                    node.links.start(node.clone(), Ends { ours: identity.pin().clone(), theirs, peer }, stream, yamux::Mode::Server);
                }
                Ok(Err(error)) => tracing::warn!(%address, error = format!("{error:#}"), "relay link refused"),
                Err(_) => tracing::warn!(%address, "relay link refused: the handshake took too long"),
            }
        });
    }
}

/// What becomes of a stranger, unless another one needs the place.
async fn unless_crowded<T>(stranger: Stranger, becomes: impl Future<Output = T>) -> Option<T> {
    let room_wanted = stranger.room_wanted();
    tokio::select! {
        biased;
        became = becomes => Some(became),
        () = room_wanted.cancelled() => None,
    }
}

/// The handshake, then the question whether a live node published this certificate.
async fn admit(
    node: &Arc<Node>,
    identity: &Identity,
    tcp: TcpStream,
) -> anyhow::Result<(Pin, HolderId, tokio_rustls::server::TlsStream<BufReader<TcpStream>>)> {
    keep_alive(&tcp)?;
    let acceptor = TlsAcceptor::from(Arc::new(identity.server_config()?));
    let stream = acceptor.accept(BufReader::with_capacity(READ_BYTES, tcp)).await?;
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
                None => {
                    node.keeper.look_soon();
                    tokio::time::sleep(INTRODUCTION_LOOK).await;
                }
            }
        }
    });
    match known.await {
        Ok(holder) => Ok((pin, holder, stream)),
        Err(_) => anyhow::bail!("no live node has published certificate {pin}"),
    }
}

/// Moves a link along: opens streams that are asked for, hands over those that the peer opens.
async fn drive<S>(
    mut connection: yamux::Connection<Compat<Batched<S>>>,
    socket: Batched<S>,
    mut requests: mpsc::Receiver<oneshot::Sender<yamux::Stream>>,
    mut inbound: impl FnMut(yamux::Stream),
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut asked: Option<oneshot::Sender<yamux::Stream>> = None;
    let mut closing = false;
    poll_fn(|cx| {
        loop {
            let mut progress = false;
            if asked.as_ref().is_some_and(oneshot::Sender::is_closed) {
                asked = None;
            }
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
                // The turn is over: what it brought goes out. Where the network takes no more, it wakes this task again.
                return match socket.poll_send(cx) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
                };
            }
        }
    })
    .await
}

/// A host that vanished is noticed by the kernel too, beside the watch.
fn keep_alive(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5)).with_retries(3))
}

#[cfg(test)]
mod tests;
