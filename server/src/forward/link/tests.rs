//! Links over pipes.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};

use super::*;
use crate::forward::frames;

const DEADLINE: Duration = Duration::from_secs(60);

/// Two nodes and the link between them, over a pipe as small as a socket's buffer may be.
struct Pair {
    open: mpsc::Sender<oneshot::Sender<yamux::Stream>>,
    arrived: mpsc::UnboundedReceiver<RelayStream>,
    tasks: [JoinHandle<io::Result<()>>; 2],
}

fn pair() -> Pair {
    let (dialler, listener) = tokio::io::duplex(16 * 1024);
    let (open, requests) = mpsc::channel(OPEN_QUEUE);
    let (_no_requests, none) = mpsc::channel(1);
    let (arrive, arrived) = mpsc::unbounded_channel();
    let (dialler, listener) = (Batched::new(dialler), Batched::new(listener));
    let near = yamux::Connection::new(dialler.clone().compat(), config(), yamux::Mode::Client);
    let far = yamux::Connection::new(listener.clone().compat(), config(), yamux::Mode::Server);
    let inbound = move |stream: yamux::Stream| drop(arrive.send(stream.compat()));
    Pair { open, arrived, tasks: [tokio::spawn(drive(near, dialler, requests, drop)), tokio::spawn(drive(far, listener, none, inbound))] }
}

impl Pair {
    /// A stream and its other end.
    async fn stream(&mut self) -> (RelayStream, RelayStream) {
        let (sender, receiver) = oneshot::channel();
        self.open.send(sender).await.unwrap();
        let mut near = receiver.await.unwrap().compat();
        near.write_all(b"!").await.unwrap();
        near.flush().await.unwrap();
        let mut far = self.arrived.recv().await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'!');
        (near, far)
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("in time")
}

#[tokio::test]
async fn a_slow_reader_stalls_nobody_else() {
    let mut pair = pair();
    let (_slow, mut to_slow) = soon(pair.stream()).await;
    let (mut quick, mut to_quick) = soon(pair.stream()).await;
    let flood = tokio::spawn(async move { to_slow.write_all(&vec![b'x'; 8 << 20]).await });
    let body = vec![b'y'; 2 << 20];
    let writing = tokio::spawn({
        let body = body.clone();
        async move {
            to_quick.write_all(&body).await.unwrap();
            to_quick.flush().await.unwrap();
            to_quick
        }
    });
    let mut read = vec![0; body.len()];
    soon(quick.read_exact(&mut read)).await.unwrap();
    assert_eq!(read, body);
    assert!(!flood.is_finished(), "what the slow reader does not take waits at its sender, not in memory");
    drop(writing.await.unwrap());
}

#[tokio::test]
async fn many_unanswered_requests_do_not_block_new_ones() {
    let mut pair = pair();
    let mut streams = Vec::new();
    for _ in 0..600 {
        let (near, mut far) = soon(pair.stream()).await;
        // What `serve::stream` says before it does what takes long.
        frames::hear(&mut far).await.unwrap();
        streams.push((near, far));
    }
    let (mut near, mut far) = streams.swap_remove(0);
    frames::write(&mut far, &7u32).await.unwrap();
    assert_eq!(soon(frames::read::<u32, _>(&mut near)).await.unwrap(), 7);
}

#[tokio::test]
async fn a_broken_link_ends_its_own_streams_only() {
    let (mut broken, mut whole) = (pair(), pair());
    let (mut cut, _far) = soon(broken.stream()).await;
    let (mut near, mut far) = soon(whole.stream()).await;
    broken.tasks.iter().for_each(JoinHandle::abort);
    let ended = soon(cut.read_u8()).await;
    assert!(ended.is_err(), "{ended:?}");
    far.write_all(b"still here").await.unwrap();
    far.flush().await.unwrap();
    let mut read = [0; 10];
    soon(near.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"still here");
}

#[test]
fn what_this_node_did_is_added_to_why_a_link_broke() {
    let said = |stood, state| with_our_own("reset".to_owned(), stood, state);
    assert_eq!(said(None, NodeState::Up), "reset");
    assert_eq!(said(None, NodeState::Suspended), "reset; this node is suspended itself");
    assert_eq!(said(Some(Duration::from_millis(2_600)), NodeState::Up), "reset; this process stood still for 2.6 s a moment ago");
}

#[tokio::test]
async fn the_oldest_stranger_at_the_relay_port_makes_room() {
    let strangers = Admission::default();
    let stranger = |address: [u8; 4]| strangers.stranger(address.into(), STRANGERS_MAX);
    let mut waiting: Vec<_> =
        (0..STRANGERS_MAX).map(|_| tokio::spawn(unless_crowded(stranger([192, 0, 2, 1]), std::future::pending::<()>()))).collect();
    let newest = unless_crowded(stranger([192, 0, 2, 2]), async { "a node" }).await;
    assert_eq!(newest, Some("a node"));
    let oldest = timeout(Duration::from_secs(30), waiting.remove(0)).await.expect("it made room");
    assert_eq!(oldest.unwrap(), None);
    assert!(waiting.iter().all(|one| !one.is_finished()));
}

#[test]
fn a_node_that_joins_anew_uses_no_link_from_before() {
    let info = affinity::NodeInfo {
        relay: Vec::new(),
        certificate_pin: String::new(),
        version: String::new(),
        capabilities: Vec::new(),
        started: 0,
    };
    let published = Arc::new(Published::new(info).unwrap());
    let links = Links::new(published.clone());
    let first = affinity::Publish::info(&*published).unwrap().certificate_pin;
    let link = Link { ours: first.clone(), open: mpsc::channel(1).0, broken: Farewell::default() };
    links.live.lock().insert("peer".to_owned(), vec![link.clone()]);
    links.end_earlier(None);
    assert!(links.link("peer").is_some() && !link.broken.is_said());
    assert_ne!(affinity::Publish::info(&*published).unwrap().certificate_pin, first, "it joins anew");
    assert!(links.link("peer").is_none());
    links.end_earlier(Some(Duration::from_secs(9)));
    let why = futures::FutureExt::now_or_never(link.broken.heard()).expect("it is said");
    assert_eq!(why, "this node was fenced, and joined anew; this process stood still for 9.0 s a moment ago");
}
