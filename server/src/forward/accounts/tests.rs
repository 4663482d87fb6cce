//! Accounts under a real keeper on a temporary directory.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use affinity::{KeeperConfig, NodeInfo, Root, Timings};
use futures::{FutureExt, future::ready};

use super::{super::route::SessionsOf, *};

/// Long enough for a busy machine; every wait ends as soon as what it waits for happens.
const DEADLINE: Duration = Duration::from_secs(60);
const SESSION: Use = session(10);

const fn session(max: usize) -> Use {
    Use::Session { from: IpAddr::V4(Ipv4Addr::LOCALHOST), max, max_per_address: 10 }
}

struct House {
    folder: tempfile::TempDir,
    root: Root,
}

impl House {
    fn new() -> House {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let timings = Timings { beat_ms: 50, self_limit_ms: 5_000, dead_after_ms: 8_000 };
        let root = Root::init(&folder.path().join("root"), &timings).unwrap();
        House { folder, root }
    }

    fn node(&self, name: &str) -> Arc<Accounts> {
        let info = NodeInfo { relay: vec![], certificate_pin: name.into(), version: "test".into(), capabilities: vec![], started: 0 };
        let keeper = Keeper::join(KeeperConfig {
            root: self.root.clone(),
            node: name.parse().unwrap(),
            lock_dir: self.folder.path().to_owned(),
            info: Arc::new(info),
            clock: Arc::new(SystemClock::new()),
        })
        .unwrap();
        let settings = StorageSettings {
            node: name.parse().unwrap(),
            auto_create: vec![],
            auto_subscribe: false,
            message_bytes_max: (1 << 20).into(),
            mailboxes_max: 10,
            write_back_after: Duration::ZERO,
            rescan_interval: Duration::from_secs(60),
            parallel_operations: 4,
            settle_after: Duration::ZERO,
            late_look_interval: Duration::from_secs(10),
            suspended_wait: Duration::ZERO,
            cache: None,
        };
        let placing = Placing::new(keeper.clone(), |_| affinity::Wish::default());
        Arc::new(Accounts::new(keeper, placing, Arc::default(), Arc::new(settings), 8))
    }

    fn paths(&self, user: &UserName) -> AccountPaths {
        let home = self.folder.path().join("mail").join(user.as_str());
        AccountPaths::new(home.join("Maildir"), home.join("index"))
    }

    async fn open(&self, accounts: &Arc<Accounts>, user: &UserName) -> Held {
        match soon(accounts.open(user, self.paths(user), SESSION, Claim::Asked)).await.unwrap() {
            Opened::Here(held) => held,
            other => panic!("{other:?}"),
        }
    }

    fn holder(&self, user: &UserName) -> Option<String> {
        self.root.look(user).unwrap().holder.map(|holder| holder.node.to_string())
    }
}

fn ada() -> UserName {
    UserName::normalise("ada").unwrap()
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

async fn until(what: impl Fn() -> bool) {
    let mut again = tokio::time::interval(Duration::from_millis(10));
    soon(async {
        while !what() {
            again.tick().await;
        }
    })
    .await;
}

fn block(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "not a folder").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handed_over_account_is_closed_and_its_lease_is_free() {
    let house = House::new();
    let a = house.node("a");
    let held = house.open(&a, &ada()).await;
    assert_eq!(house.holder(&ada()).as_deref(), Some("a"));
    let session = tokio::spawn(async move { held.taken_away().await });
    assert!(soon(a.hand_over(&ada(), "moved")).await);
    assert_eq!(session.await.unwrap(), "moved");
    assert_eq!((house.holder(&ada()), a.count()), (None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_during_the_goodbye_loses_no_clean_close() {
    let house = House::new();
    let a = house.node("a");
    let held = house.open(&a, &ada()).await;
    let leaving = tokio::spawn({
        let a = a.clone();
        async move { a.close_all("bye", DEADLINE).await }
    });
    soon(held.taken_away()).await;
    // The session is still in its last command when somebody else comes.
    let other = tokio::spawn({
        let (a, paths) = (a.clone(), house.paths(&ada()));
        async move { a.open(&ada(), paths, SESSION, Claim::Asked).await }
    });
    tokio::task::yield_now().await;
    drop(held);
    assert!(matches!(soon(other).await.unwrap(), Err(RouteError::Leaving)));
    soon(leaving).await.unwrap();
    assert_eq!(house.holder(&ada()), None, "released: the next holder takes over cleanly");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_being_opened_when_the_node_leaves_is_closed_too() {
    let house = House::new();
    let a = house.node("a");
    let opening: Vec<_> = (0..20)
        .map(|n| {
            let user = UserName::normalise(&format!("user{n}")).unwrap();
            let (a, paths) = (a.clone(), house.paths(&user));
            tokio::spawn(async move { a.open(&user, paths, Use::Delivery, Claim::Asked).await.map(drop) })
        })
        .collect();
    tokio::task::yield_now().await;
    soon(a.close_all("bye", DEADLINE)).await;
    for one in opening {
        // Served before, or refused.
        drop(one.await.unwrap());
    }
    let held: Vec<_> = (0..20).filter_map(|n| house.holder(&UserName::normalise(&format!("user{n}")).unwrap())).collect();
    assert!(held.is_empty(), "{held:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_goes_on_when_its_caller_goes_away() {
    let house = House::new();
    let a = house.node("a");
    let user = ada();
    {
        let first = a.open(&user, house.paths(&user), SESSION, Claim::Asked);
        // Started, then dropped before it is done.
        tokio::select! {
            biased;
            _ = first => {}
            () = tokio::task::yield_now() => {}
        }
    }
    until(|| a.count() == 1).await;
    let held = house.open(&a, &user).await;
    assert_eq!(house.root.look(&user).unwrap().epoch.0, 1, "opened once");
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_account_could_not_be_opened_is_released_in_the_end() {
    let house = House::new();
    let a = house.node("a");
    let user = ada();
    let index = house.paths(&user).index;
    block(&index);
    assert!(a.open(&user, house.paths(&user), SESSION, Claim::Asked).await.is_err());
    assert_eq!(house.holder(&user).as_deref(), Some("a"));
    soon(a.free_stuck(&user, ready(Ok(house.paths(&user))))).await;
    assert_eq!(house.holder(&user).as_deref(), Some("a"), "what an earlier holder left is not dealt with yet");
    std::fs::remove_file(&index).unwrap();
    soon(a.free_stuck(&user, ready(Ok(house.paths(&user))))).await;
    assert_eq!(house.holder(&user), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_of_a_user_who_was_removed_is_released() {
    let house = House::new();
    let a = house.node("a");
    let user = ada();
    let Acquired::Mine { lease, .. } = a.keeper.acquire(&user).await.unwrap() else { panic!("nobody else holds it") };
    *a.slot(&user).lock_owned().await = State::Stuck(Stuck { lease, rest: Rest::Release, since: Duration::ZERO });
    soon(a.free_stuck(&user, ready(Err(RouteError::Refused("no such user".to_owned()))))).await;
    assert_eq!(house.holder(&user), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_wants_a_user_whose_lease_is_stuck_on_a_leaving_node_asks_again() {
    let house = House::new();
    let (a, b) = (house.node("a"), house.node("b"));
    until(|| a.keeper.peers().len() == 2 && b.keeper.peers().len() == 2).await;
    let user = ada();
    block(&house.paths(&user).index);
    assert!(a.open(&user, house.paths(&user), SESSION, Claim::Asked).await.is_err());
    a.placing.leave();
    let opened = soon(a.open(&user, house.paths(&user), SESSION, Claim::Asked)).await;
    assert!(matches!(opened, Err(RouteError::Leaving)), "{opened:?}: the other node would send them back");
    // It is tried again after a while, and not at once.
    let since = async || match &*a.slot(&user).lock_owned().await {
        State::Stuck(stuck) => stuck.since,
        other => panic!("{other:?}"),
    };
    let before = since().await;
    soon(a.free_stuck(&user, ready(Ok(house.paths(&user))))).await;
    assert!(since().await > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_on_an_open_account_is_left_alone_for_a_while() {
    let house = House::new();
    let a = house.node("a");
    let held = house.open(&a, &ada()).await;
    let full = || StorageError::NoSpace { path: "/full".into(), cause: std::io::ErrorKind::StorageFull.into() };
    held.run(|_| Ok(())).await.unwrap();
    assert!(held.open.begin_work_if_due());
    held.open.work_ended(Ok(Err(full())));
    assert!(!held.open.begin_work_if_due());
    held.open.work_ended(Ok(Ok(Vec::new())));
    assert!(held.open.begin_work_if_due());

    let open = held.open.clone();
    drop(held);
    assert!(open.is_due(Duration::ZERO));
    open.closing_failed(storage::Retry::default(), &full());
    assert!(!open.is_due(Duration::ZERO) && !open.may_close());
    open.abandon(LOST);
    assert!(open.is_due(Duration::ZERO), "nothing is written any more: it goes at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_failed_is_rebuilt_even_if_nobody_comes_back_soon() {
    let house = House::new();
    let a = house.node("a");
    let held = house.open(&a, &ada()).await;
    held.open.abandon("failed");
    drop(held);
    a.close_idle(Duration::ZERO, |user| {
        let paths = house.paths(&user);
        async move { Ok(paths) }.boxed()
    });
    until(|| a.count() == 0).await;
    let state = a.slot(&ada()).lock_owned().await;
    assert!(matches!(&*state, State::Stuck(stuck) if stuck.rest == Rest::Rebuild), "{state:?}");
    drop(state);
    drop(house.open(&a, &ada()).await);
    a.close_idle(Duration::ZERO, |user| {
        let paths = house.paths(&user);
        async move { Ok(paths) }.boxed()
    });
    until(|| house.holder(&ada()).is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_fails_after_a_takeover_is_no_trouble_of_this_node() {
    let house = House::new();
    let a = house.node("a");
    let users: Vec<UserName> = ["ada", "bob", "carol"].iter().map(|name| UserName::normalise(name).unwrap()).collect();
    let fail = |held: &[Held]| {
        for (held, user) in held.iter().zip(&users) {
            held.open.index_failed(&StorageError::Index { user: user.clone(), reason: "no such file".to_owned() });
            assert!(!held.open.is_usable());
        }
        a.evidence.trouble()
    };
    let mut held = Vec::new();
    for user in &users {
        held.push(house.open(&a, user).await);
    }
    a.keeper.resign();
    until(|| held.iter().all(|held| held.open.tenure.is_over())).await;
    assert_eq!(fail(&held), None);
    a.abandon_ended();
    drop(held);
    soon(a.keeper.wait_until_up(DEADLINE)).await;
    let mut held = Vec::new();
    for user in &users {
        held.push(house.open(&a, user).await);
    }
    assert!(fail(&held).is_some_and(|said| said.contains("3 users")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_tenure_left_is_forgotten() {
    let house = House::new();
    let a = house.node("a");
    let held = house.open(&a, &ada()).await;
    let tenure = held.lease().tenure().clone();
    drop(held);
    tenure.end();
    a.abandon(&tenure, LOST);
    a.look_after_slots();
    assert!(a.slots.lock().is_empty(), "an abandoned account must not stay in memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_hands_over_and_sends_newcomers_elsewhere() {
    let house = House::new();
    let (a, b) = (house.node("a"), house.node("b"));
    until(|| a.keeper.peers().len() == 2 && b.keeper.peers().len() == 2).await;
    drop(house.open(&a, &ada()).await);
    a.placing.set_draining(true);
    a.drain_some("drained");
    until(|| house.holder(&ada()).is_none()).await;
    match soon(a.open(&ada(), house.paths(&ada()), SESSION, Claim::Asked)).await.unwrap() {
        Opened::HeldBy(holder) => assert_eq!(holder, b.keeper.me()),
        other => panic!("{other:?}"),
    }
    let held = soon(a.open(&ada(), house.paths(&ada()), SESSION, Claim::Anyway)).await.unwrap();
    assert!(matches!(held, Opened::Here(_)), "a mailbox that can be served is served");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_user_is_sent_to_the_chosen_node() {
    let house = House::new();
    let (a, b) = (house.node("a"), house.node("b"));
    until(|| a.keeper.peers().len() == 2).await;
    drop(house.open(&a, &ada()).await);
    assert!(soon(a.move_to(&ada(), b.keeper.me(), "moved")).await);
    let opened = soon(a.open(&ada(), house.paths(&ada()), SESSION, Claim::Asked)).await.unwrap();
    assert!(matches!(opened, Opened::HeldBy(holder) if holder == b.keeper.me()));
    let held = house.open(&b, &ada()).await;
    assert_eq!(held.lease().epoch().0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_no_more_sessions_than_allowed() {
    let house = House::new();
    let a = house.node("a");
    let user = ada();
    let open = || a.open(&user, house.paths(&user), session(1), Claim::Asked);
    let first = soon(open()).await.unwrap();
    assert!(matches!(soon(open()).await, Err(RouteError::TooManySessions { limit: 1, of: SessionsOf::User, .. })));
    drop(first);
    assert!(matches!(soon(open()).await, Ok(Opened::Here(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_leaves_sessions_for_the_others() {
    let house = House::new();
    let a = house.node("a");
    let user = ada();
    let open = async |address: &str| {
        let what_for = Use::Session { from: address.parse().unwrap(), max: 3, max_per_address: 2 };
        soon(a.open(&user, house.paths(&user), what_for, Claim::Asked)).await
    };
    let _first = open("192.0.2.1").await.unwrap();
    let second = open("::ffff:192.0.2.1").await.unwrap();
    assert!(matches!(open("192.0.2.1").await, Err(RouteError::TooManySessions { limit: 2, of: SessionsOf::UserAndAddress, .. })));
    let _other = open("2001:db8::1").await.unwrap();
    assert!(matches!(open("2001:db8::2").await, Err(RouteError::TooManySessions { limit: 3, of: SessionsOf::User, .. })));
    drop(second);
    assert!(open("192.0.2.1").await.is_ok(), "what has ended is not counted");
}

/// What a test says of everybody; asked for, it waits while the test holds the lock.
#[derive(Debug, Clone, Default)]
struct Said(Arc<Mutex<Option<storage::QuotaSettings>>>);

impl Quotas for Said {
    fn settings(&self, _: &UserName) -> Option<storage::QuotaSettings> {
        self.0.lock().clone()
    }
    fn default_settings(&self) -> storage::QuotaSettings {
        storage::QuotaSettings::default()
    }
    fn crossed(&self, _: &UserName, _: storage::Crossing) {}
}

fn at_most(messages: u64) -> storage::QuotaSettings {
    let mut rules = storage::QuotaRules::default();
    rules.set(storage::MAIN_ROOT, &format!("*:messages={messages}")).unwrap();
    storage::QuotaSettings { rules, ..storage::QuotaSettings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_stays_while_nothing_is_known_of_its_user() {
    let house = House::new();
    let a = house.node("a");
    let said = Said(Arc::new(Mutex::new(Some(at_most(7)))));
    a.set_quotas(Box::new(said.clone()));
    let held = house.open(&a, &ada()).await;
    let limit = || held.account().quota(None).unwrap()[0].limits.messages;
    let follow = async || {
        assert!(a.refresh_quotas());
        until(|| !a.quotas_refreshing.load(Ordering::SeqCst)).await;
    };
    assert_eq!(limit(), Some(7));
    *said.0.lock() = None;
    follow().await;
    assert_eq!(limit(), Some(7), "a source that has not been asked lately takes no limit away");
    *said.0.lock() = Some(at_most(9));
    follow().await;
    assert_eq!(limit(), Some(9));
    *said.0.lock() = Some(storage::QuotaSettings::default());
    follow().await;
    assert_eq!(held.account().quota(None).unwrap().first().and_then(|root| root.limits.messages), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_followed_by_one_thread_at_a_time() {
    let house = House::new();
    let a = house.node("a");
    let said = Said::default();
    a.set_quotas(Box::new(said.clone()));
    let _held = house.open(&a, &ada()).await;
    let busy = said.0.lock();
    assert!(a.refresh_quotas());
    for _ in 0..10 {
        assert!(!a.refresh_quotas(), "the last one is not done");
    }
    drop(busy);
    until(|| !a.quotas_refreshing.load(Ordering::SeqCst)).await;
    assert!(a.refresh_quotas());
}
