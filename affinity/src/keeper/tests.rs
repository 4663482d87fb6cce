//! Keepers over real folders and over a directory in memory that hangs and fails.

mod ended;

use std::{future::Future, path::Path};

use super::*;
use crate::{
    Incarnation, SystemClock, Timings,
    faulty::{Fault, FaultyDirectory},
    names::{LeaseName, NodeFile, lease_bucket, lease_folder},
    protocol::tidy::KEEP,
};

/// Long enough for a busy machine; every wait ends as soon as what it waits for happens.
const DEADLINE: Duration = Duration::from_secs(60);

/// A machine that stands still for three seconds, as one that compiles beside does, suspends and fences nobody.
fn timings() -> Timings {
    Timings { beat_ms: 50, self_limit_ms: 3200, dead_after_ms: 4100 }
}

fn user(name: &str) -> UserName {
    UserName::normalise(name).unwrap()
}

fn config(root: &Root, node: &str, lock_dir: &Path) -> KeeperConfig {
    let info = NodeInfo {
        relay: vec![format!("{node}.example:4190")],
        certificate_pin: "00".repeat(32),
        version: "test".into(),
        capabilities: vec![],
        started: 0,
    };
    KeeperConfig {
        root: root.clone(),
        node: node.parse().unwrap(),
        lock_dir: lock_dir.to_owned(),
        info: Arc::new(info),
        clock: Arc::new(SystemClock::new()),
    }
}

/// A cluster in a temporary folder.
struct Cluster {
    folder: tempfile::TempDir,
    root: Root,
}
impl Cluster {
    fn new() -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::init(&folder.path().join("root"), &timings()).unwrap();
        Cluster { folder, root }
    }
    fn join(&self, node: &str) -> Result<Keeper, AffinityError> {
        self.join_on("host", node)
    }
    fn join_on(&self, host: &str, node: &str) -> Result<Keeper, AffinityError> {
        Keeper::join(config(&self.root, node, &self.folder.path().join(host)))
    }
}

/// A cluster in memory, whose nodes lose contact on demand.
struct Memory {
    server: FaultyDirectory,
    locks: tempfile::TempDir,
}
impl Memory {
    fn new() -> Memory {
        Memory { server: FaultyDirectory::cluster(), locks: tempfile::tempdir().unwrap() }
    }
    fn join(&self, node: &str) -> (Keeper, FaultyDirectory) {
        let client = self.server.another_client();
        let config = config(&Root::for_test(timings()), node, self.locks.path());
        (Keeper::join_over(config, Arc::new(client.clone())).unwrap(), client)
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

async fn event(events: &mut broadcast::Receiver<Event>, wanted: impl Fn(&Event) -> bool) -> Event {
    soon(async {
        loop {
            let event = events.recv().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
}

async fn mine(keeper: &Keeper, name: &str) -> (Lease, Handover) {
    match keeper.acquire(&user(name)).await.unwrap() {
        Acquired::Mine { lease, handover } => (lease, handover),
        other => panic!("{other:?}"),
    }
}

/// Asks until the lease is ours: its holder is being fenced.
async fn mine_at_last(keeper: &Keeper, name: &str) -> (Lease, Handover) {
    let mut retry = tokio::time::interval(Duration::from_millis(20));
    soon(async {
        loop {
            if let Ok(Acquired::Mine { lease, handover }) = keeper.acquire(&user(name)).await {
                return (lease, handover);
            }
            retry.tick().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_goes_from_hand_to_hand() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join("a").unwrap(), cluster.join("b").unwrap());
    assert_eq!(a.look(&user("ada")).await.unwrap(), Seen { epoch: Epoch::ZERO, holder: None });
    assert!(!cluster.root.lease(&user("ada")).exists(), "a look makes nothing");

    let (lease, handover) = mine(&a, "ada").await;
    assert_eq!((lease.epoch(), handover), (Epoch(1), Handover::Clean));
    lease.ensure_live().unwrap();
    assert!(matches!(b.acquire(&user("ada")).await.unwrap(), Acquired::HeldBy(holder) if holder == a.me()));
    assert_eq!(b.look(&user("ada")).await.unwrap(), Seen { epoch: Epoch(1), holder: Some(a.me()) });
    assert_eq!(mine(&a, "ada").await.0.epoch(), Epoch(1), "the same lease");
    assert_eq!(a.held(), [(user("ada"), Epoch(1))]);

    let copy = lease.clone();
    a.release(lease).await.unwrap();
    assert!(copy.ensure_live().is_err(), "released in every hand");
    assert!(a.held().is_empty());
    let (lease, handover) = mine(&b, "ada").await;
    assert_eq!((lease.epoch(), handover), (Epoch(2), Handover::Clean));
    a.release(copy).await.unwrap();
    lease.ensure_live().expect("releasing twice is nobody else's loss");

    let seen: Vec<_> = cluster.root.leases().unwrap().map(|lease| lease.unwrap()).collect();
    assert_eq!(seen, [crate::LeaseSeen { user: user("ada"), seen: Seen { epoch: Epoch(2), holder: Some(b.me()) } }]);
    a.leave().await.unwrap();
    b.leave().await.unwrap();
    assert!(cluster.root.live_nodes().unwrap().is_empty());
    assert_eq!(cluster.root.fenced_nodes().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_a_lease_one_gets_it() {
    let cluster = Cluster::new();
    let keepers = ["a", "b", "c"].map(|node| cluster.join(node).unwrap());
    for round in 0..10 {
        let name = user(&format!("user{round}"));
        let tries = keepers.iter().flat_map(|keeper| [keeper, keeper]).map(|keeper| {
            let (keeper, name) = (keeper.clone(), name.clone());
            tokio::spawn(async move { keeper.acquire(&name).await.unwrap() })
        });
        let mut holders = Vec::new();
        let mut mine = 0;
        for one in tries.collect::<Vec<_>>() {
            match one.await.unwrap() {
                Acquired::Mine { lease, .. } => {
                    mine += 1;
                    assert_eq!(lease.epoch(), Epoch(1));
                    holders.push(lease.tenure().holder().clone());
                }
                Acquired::HeldBy(holder) | Acquired::Suspect(holder) => holders.push(holder),
            }
        }
        holders.dedup();
        assert_eq!((holders.len(), mine), (1, 2), "both tries of the winner get the same lease");
        let names: Vec<_> = std::fs::read_dir(cluster.root.path().join(lease_bucket(&name))).unwrap().collect();
        assert!(names.iter().all(|name| !name.as_ref().unwrap().file_name().to_string_lossy().starts_with('~')), "{names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_see_each_other_with_what_they_publish() {
    let cluster = Cluster::new();
    let a = cluster.join("a").unwrap();
    let mut events = a.events();
    cluster.root.set(&"b".parse().unwrap(), "drain", "yes").unwrap();
    let b = cluster.join("b").unwrap();
    event(&mut events, |event| matches!(event, Event::NodeUp(holder) if *holder == b.me())).await;
    let peer = a.peer(&b.me()).unwrap();
    assert_eq!(peer.info.unwrap().relay, ["b.example:4190"]);
    assert_eq!(a.peers().len(), 2);
    assert!(b.peer(&b.me()).unwrap().draining, "read before anybody asks");
    for n in 0..20 {
        assert_eq!(b.place(&user(&format!("user{n}")), &Wish::default()), Some(a.me()), "b drains");
    }
    let seen = cluster.root.live_nodes().unwrap();
    assert_eq!(seen.iter().map(|node| node.holder.node.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(seen[1].settings.draining());
    let b_was = b.me();
    b.leave().await.unwrap();
    assert_eq!(b.state(), NodeState::Out);
    event(&mut events, |event| matches!(event, Event::NodeDown { holder, ending: Ending::Left, .. } if *holder == b_was)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_runs_once_per_host() {
    let cluster = Cluster::new();
    let a = cluster.join("a").unwrap();
    assert!(matches!(cluster.join("a"), Err(AffinityError::NodeRuns { .. })));
    assert_eq!(a.state(), NodeState::Up);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_node_is_fenced_by_its_successor_at_once() {
    let cluster = Cluster::new();
    let a = cluster.join("a").unwrap();
    let (lease, _) = mine(&a, "ada").await;
    let crashed = a.me();
    drop(a);
    assert!(lease.ensure_live().is_err());
    // Its threads end, and with them the lock.
    let a = soon(async {
        loop {
            match cluster.join("a") {
                Err(AffinityError::NodeRuns { .. }) => tokio::task::yield_now().await,
                joined => return joined.unwrap(),
            }
        }
    })
    .await;
    assert!(cluster.root.fenced_nodes().unwrap().iter().any(|ended| ended.file.holder == crashed && ended.ending() == Ending::Restarted));
    let (lease, handover) = mine(&a, "ada").await;
    assert_eq!((lease.epoch(), handover), (Epoch(2), Handover::Unclean));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_name_is_taken_stops_and_keeps_its_leases_blocked() {
    let cluster = Cluster::new();
    let (old, other) = (cluster.join_on("host1", "a").unwrap(), cluster.join("b").unwrap());
    let mut events = old.events();
    let mut others_events = other.events();
    mine(&old, "ada").await.0.ensure_live().unwrap();
    let new = cluster.join_on("host2", "a").unwrap();
    assert!(
        matches!(other.acquire(&user("ada")).await.unwrap(), Acquired::HeldBy(holder) if holder == old.me()),
        "the old one may still acknowledge"
    );
    let taken = event(&mut events, |event| matches!(event, Event::NameTaken { .. })).await;
    assert!(matches!(taken, Event::NameTaken { theirs, at } if theirs == new.me() && at == "a.example:4190"));
    assert_eq!(old.state(), NodeState::Out);
    let gone = event(&mut others_events, |event| matches!(event, Event::NodeDown { holder, .. } if *holder == old.me())).await;
    assert!(matches!(gone, Event::NodeDown { ending: Ending::NameTaken, .. }), "{gone:?}");
    assert_eq!(mine_at_last(&other, "ada").await.1, Handover::Unclean);
    assert_eq!(new.state(), NodeState::Up);
    old.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_node_drops_its_leases_and_rejoins() {
    let memory = Memory::new();
    let ((a, a_directory), (b, _)) = (memory.join("a"), memory.join("b"));
    let mut events = a.events();
    let mut others_events = b.events();
    let first = a.me();
    let (lease, _) = mine(&a, "ada").await;

    a_directory.hang();
    event(&mut others_events, |event| matches!(event, Event::Fenced(holder) if *holder == first)).await;
    assert!(lease.ensure_live().is_err(), "silent before it was fenced");
    let (taken, handover) = mine_at_last(&b, "ada").await;
    assert_eq!((taken.epoch(), handover), (Epoch(2), Handover::Unclean));
    a_directory.restore();

    let over = event(&mut events, |event| matches!(event, Event::TenureOver { .. })).await;
    assert!(matches!(over, Event::TenureOver { tenure, .. } if tenure.is_over() && *tenure.holder() == first));
    let why = event(&mut events, |event| matches!(event, Event::Ended(_))).await;
    assert!(matches!(&why, Event::Ended(end) if end.ending == Ending::Fenced { by: "b".parse().unwrap() }), "{why:?}");
    let back = event(&mut events, |event| matches!(event, Event::Rejoined(_))).await;
    assert!(matches!(back, Event::Rejoined(holder) if holder == a.me() && holder != first));
    assert!(soon(a.wait_until_up(DEADLINE)).await);
    assert!(a.held().is_empty() && lease.ensure_live().is_err());
    assert!(matches!(a.acquire(&user("ada")).await.unwrap(), Acquired::HeldBy(holder) if holder == b.me()));
    a.release(lease).await.unwrap();
    taken.ensure_live().expect("a lease of an old tenure can't be given away");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_resigns_acknowledges_nothing_and_comes_back_with_nothing() {
    let cluster = Cluster::new();
    let a = cluster.join("a").unwrap();
    let b = cluster.join("b").unwrap();
    let (lease, _) = mine(&a, "ada").await;
    let (was, mut events) = (a.me(), a.events());
    a.resign();
    event(&mut events, |event| matches!(event, Event::TenureOver { tenure, .. } if *tenure.holder() == was)).await;
    assert!(lease.ensure_live().is_err());
    event(&mut events, |event| matches!(event, Event::Rejoined(_))).await;
    assert!(a.held().is_empty() && a.me() != was);
    let (_, handover) = mine_at_last(&b, "ada").await;
    assert_eq!(handover, Handover::Unclean, "whatever it could not close is taken over as from a crash");
    assert!(
        std::fs::read_dir(cluster.root.fenced()).unwrap().any(|name| name
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with(&was.to_string()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_and_settings_are_read_when_somebody_says_so() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.join("a").unwrap(), cluster.join("b").unwrap());
    let mut events = a.events();
    while a.peers().len() < 2 {
        event(&mut events, |event| matches!(event, Event::NodeUp(_))).await;
    }
    let ada = user("ada");
    for node in ["a", "b", "a"] {
        let node: NodeName = node.parse().unwrap();
        cluster.root.pin(&ada, Some(&node)).unwrap();
        soon(a.read_settings()).await.unwrap();
        assert_eq!(a.pin_of(&ada), Some(node.clone()));
        let wish = Wish { pin: a.pin_of(&ada), ..Wish::default() };
        assert_eq!(a.place(&ada, &wish).unwrap().node, node);
    }
    soon(b.say_trouble(Some("full, all of it"))).await.unwrap();
    soon(a.read_settings()).await.unwrap();
    assert!(a.peer(&b.me()).unwrap().trouble);
    assert_eq!(a.settings(&b.me().node).trouble(), Some("full, all of it"));
    soon(b.say_trouble(None)).await.unwrap();
    soon(a.read_settings()).await.unwrap();
    assert!(!a.peer(&b.me()).unwrap().trouble);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_node_left_is_cleared_and_its_late_requests_do_no_harm() {
    let memory = Memory::new();
    let (keeper, directory) = memory.join("a");
    let dead: HolderId = "b,00000000000000bb".parse().unwrap();
    let temporary = format!("leases/00/~{dead},0");
    directory.create_folder("leases/00").unwrap();
    directory.create_folder(&temporary).unwrap();
    directory.create(&format!("{temporary}/0,free")).unwrap();
    let ours = format!("leases/00/~{},0", keeper.me());
    directory.create_folder(&ours).unwrap();
    directory.write(&format!("info/{dead}"), b"{}").unwrap();
    directory.create(&format!("fenced/{dead},9")).unwrap();
    directory.create("fenced/b,00000000000000bc,2").unwrap();
    let mut rounds = tidy::Rounds::default();
    let mut round = |kept| rounds.next(&keeper.engine, KEEP * kept).unwrap();
    assert_eq!(round(0), 1);
    assert_eq!(directory.list("leases/00").unwrap(), [ours.rsplit_once('/').unwrap().1], "a live node goes on with its own");
    // Only one of the two ends of `b` is the last word on it.
    assert_eq!(round(1), 2);
    assert_eq!(directory.list("info").unwrap(), [keeper.me().to_string()]);
    assert_eq!(directory.list("fenced").unwrap().len(), 1);

    // What the dead one had under way when it died lands now, or was carried out twice.
    let ada = user("ada");
    assert!(directory.rename(&temporary, &lease_folder(&ada)).is_err(), "nothing to rename: no folder without a lease");
    directory.create_folder(&temporary).unwrap();
    assert_eq!((0..256).map(|_| round(1)).sum::<usize>(), 1, "all folders have their turn");
    assert_eq!(directory.list("leases/00").unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_that_somebody_joined_is_followed_before_the_next_beat() {
    let (server, locks) = (FaultyDirectory::cluster(), tempfile::tempdir().unwrap());
    let slow = Timings { beat_ms: 600_000, self_limit_ms: 3_000_000, dead_after_ms: 5_000_000 };
    let join = |node: &str| {
        let config = config(&Root::for_test(slow.clone()), node, locks.path());
        Keeper::join_over(config, Arc::new(server.another_client())).unwrap()
    };
    let a = join("a");
    let b = join("b");
    assert!(a.peer(&b.me()).is_none(), "its next look is ten minutes away");
    soon(async {
        while a.peer(&b.me()).is_none() {
            a.look_soon();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_directory_suspends_and_resumes() {
    let memory = Memory::new();
    let (a, directory) = memory.join("a");
    let mut events = a.events();
    let me = a.me();
    let (lease, _) = mine(&a, "ada").await;
    directory.hang();
    event(&mut events, |event| matches!(event, Event::Suspended { .. })).await;
    assert_eq!(a.state(), NodeState::Suspended);
    assert!(lease.ensure_live().is_err());
    assert!(matches!(a.acquire(&user("ada")).await, Err(AffinityError::Suspended)));
    assert!(matches!(a.release(lease.clone()).await, Err(AffinityError::Suspended)));
    assert!(!a.wait_until_up(Duration::from_millis(1)).await);
    directory.restore();
    assert!(a.wait_until_up(DEADLINE).await);
    event(&mut events, |event| matches!(event, Event::Resumed)).await;
    assert_eq!(a.me(), me, "nobody fenced us");
    lease.ensure_live().expect("the lease is still ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_directory_suspend_as_well() {
    let memory = Memory::new();
    let (a, directory) = memory.join("a");
    let mut events = a.events();
    directory.fail();
    event(&mut events, |event| matches!(event, Event::Suspended { .. })).await;
    assert!(a.look(&user("ada")).await.is_err());
    directory.restore();
    event(&mut events, |event| matches!(event, Event::Resumed)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handover_is_repeated_until_it_is_taken_over() {
    let memory = Memory::new();
    let (a, _) = memory.join("a");
    let gone = HolderId { node: "gone".parse().unwrap(), incarnation: Incarnation::random() };
    let left = LeaseName { epoch: Epoch(7), holder: Some(gone) };
    memory.server.create_folder(&lease_bucket(&user("ada"))).unwrap();
    memory.server.create_folder(&lease_folder(&user("ada"))).unwrap();
    memory.server.create(&left.in_folder_of(&user("ada"))).unwrap();
    for _ in 0..2 {
        let (lease, handover) = mine(&a, "ada").await;
        assert_eq!((lease.epoch(), handover), (Epoch(8), Handover::Unclean));
    }
    mine(&a, "ada").await.0.taken_over();
    assert_eq!(mine(&a, "ada").await.1, Handover::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_after_a_won_swap_is_resolved() {
    let memory = Memory::new();
    let (a, _) = memory.join("a");
    let (lease, _) = mine(&a, "ada").await;
    a.release(lease).await.unwrap();
    // Faults hit whichever rename comes next, the beat's or the lease's: both cope.
    let (b, directory) = memory.join("b");
    for n in 0..60 {
        directory.next_rename([Fault::ErrorAfter, Fault::Resent, Fault::ErrorBefore][n % 3]);
        let (lease, handover) = mine(&b, "ada").await;
        assert_eq!(handover, Handover::Clean);
        directory.next_rename([Fault::ErrorBefore, Fault::ErrorAfter, Fault::Resent, Fault::ErrorBefore][n % 4]);
        b.release(lease.clone()).await.unwrap();
        assert!(lease.ensure_live().is_err());
    }
    assert_eq!(b.look(&user("ada")).await.unwrap(), Seen { epoch: Epoch(61), holder: None });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_failed_is_not_done_until_the_lease_is_free() {
    let memory = Memory::new();
    let ((a, directory), (b, _)) = (memory.join("a"), memory.join("b"));
    let (lease, _) = mine(&a, "ada").await;
    directory.fail_below("leases/", usize::MAX);
    for _ in 0..3 {
        assert!(a.release(lease.clone()).await.is_err(), "nothing reached the directory");
        assert!(lease.ensure_live().is_err() && a.held().is_empty(), "it must not be used any more all the same");
        assert!(matches!(b.acquire(&user("ada")).await.unwrap(), Acquired::HeldBy(holder) if holder == a.me()));
    }
    directory.fail_below("", 0);
    a.release(lease.clone()).await.unwrap();
    assert_eq!(b.look(&user("ada")).await.unwrap(), Seen { epoch: Epoch(1), holder: None });
    let (taken, handover) = mine(&b, "ada").await;
    assert_eq!((taken.epoch(), handover), (Epoch(2), Handover::Clean));
    a.release(lease).await.unwrap();
    taken.ensure_live().expect("what was released is nobody's to release again");

    // An error of the swap and one of the listing after it are no reason to give up.
    b.release(taken).await.unwrap();
    let (lease, _) = mine(&a, "ada").await;
    directory.fail_below("leases/", 2);
    a.release(lease).await.unwrap();
    assert_eq!(b.look(&user("ada")).await.unwrap(), Seen { epoch: Epoch(3), holder: None });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_folder_that_nobody_wrote_is_an_error_that_says_so() {
    let memory = Memory::new();
    let (a, _) = memory.join("a");
    memory.server.create_folder(&lease_bucket(&user("ada"))).unwrap();
    memory.server.create_folder(&lease_folder(&user("ada"))).unwrap();
    memory.server.create(&format!("{}/README", lease_folder(&user("ada")))).unwrap();
    for error in [a.acquire(&user("ada")).await.unwrap_err(), a.look(&user("ada")).await.unwrap_err()] {
        assert!(matches!(&error, AffinityError::BadLeaseFolder { found, .. } if found == "README"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_stands_still_is_suspect_then_fenced() {
    let memory = Memory::new();
    let (b, _) = memory.join("b");
    // A node that never beats again.
    let still = NodeFile { holder: HolderId { node: "still".parse().unwrap(), incarnation: Incarnation::random() }, beat: 3 };
    let (lease, _) = mine(&b, "ada").await;
    b.release(lease).await.unwrap();
    memory.server.create(&still.in_nodes()).unwrap();
    memory
        .server
        .rename(
            &LeaseName { epoch: Epoch(1), holder: None }.in_folder_of(&user("ada")),
            &LeaseName { epoch: Epoch(2), holder: Some(still.holder.clone()) }.in_folder_of(&user("ada")),
        )
        .unwrap();
    let mut events = b.events();
    assert!(matches!(b.acquire(&user("ada")).await.unwrap(), Acquired::HeldBy(holder) if holder == still.holder));
    event(&mut events, |event| matches!(event, Event::NodeSuspect(holder) if *holder == still.holder)).await;
    let gone = event(&mut events, |event| matches!(event, Event::NodeDown { holder, .. } if *holder == still.holder)).await;
    let Event::NodeDown { ending: Ending::Fenced { by }, silent_for, .. } = gone else { panic!("{gone:?}") };
    assert!(by == b.me().node && silent_for >= timings().dead_after());
    assert_eq!(mine_at_last(&b, "ada").await.1, Handover::Unclean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_loses_no_handover() {
    let memory = Memory::new();
    let (a, directory) = memory.join("a");
    let gone = HolderId { node: "gone".parse().unwrap(), incarnation: Incarnation::random() };
    let left = LeaseName { epoch: Epoch(7), holder: Some(gone) };
    memory.server.create_folder(&lease_bucket(&user("ada"))).unwrap();
    memory.server.create_folder(&lease_folder(&user("ada"))).unwrap();
    memory.server.create(&left.in_folder_of(&user("ada"))).unwrap();
    directory.hang();
    let (keeper, name) = (a.clone(), user("ada"));
    let mut acquiring = Box::pin(async move { keeper.acquire(&name).await });
    // Far enough to have begun; then nobody is interested any more.
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut acquiring).await.is_err());
    drop(acquiring);
    directory.restore();
    assert_eq!(mine_at_last(&a, "ada").await.1, Handover::Unclean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_panics_is_told() {
    for (folder, thread) in [("fenced", "affinity-watch"), ("nodes", "affinity-")] {
        let memory = Memory::new();
        let (a, directory) = memory.join("a");
        let (lease, _) = mine(&a, "ada").await;
        if thread == "affinity-watch" {
            // Its end has the watch look at `fenced/`.
            let (b, _) = memory.join("b");
            event(&mut a.events(), |event| matches!(event, Event::NodeUp(_))).await;
            directory.panic_below(folder);
            b.leave().await.unwrap();
        } else {
            directory.panic_below("nodes/a");
        }
        let why = soon(a.broken()).await;
        assert!(why.starts_with(thread) && why.contains("of a test"), "{why}");
        if thread == "affinity-watch" {
            lease.ensure_live().expect("it beats, so that it can hand its users on");
            a.leave().await.unwrap();
        } else {
            assert!(why.starts_with("affinity-beat"), "only beats rename node files: {why}");
            assert!(lease.ensure_live().is_err(), "nobody gives signs of life");
            assert!(a.leave().await.is_err());
        }
    }
}
