//! What is said of why a process stood still, and of threads that end.

use super::*;

/// A clock that jumps on demand: as one does for a process that did not run.
#[derive(Debug)]
struct Jumping {
    system: SystemClock,
    test: crate::TestClock,
}

impl Clock for Jumping {
    fn now(&self) -> Duration {
        self.system.now() + self.test.now()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stood_still_says_so() {
    let memory = Memory::new();
    let test = crate::TestClock::default();
    let clock = Arc::new(Jumping { system: SystemClock::new(), test: test.clone() });
    let config = KeeperConfig { clock, ..config(&Root::for_test(timings()), "a", memory.locks.path()) };
    let directory = memory.server.another_client();
    let a = Keeper::join_over(config, Arc::new(directory.clone())).unwrap();
    let mut events = a.events();
    // Somebody fences it meanwhile.
    directory.hang();
    test.advance(Duration::from_secs(20));
    let suspended = event(&mut events, |event| matches!(event, Event::Suspended { .. })).await;
    let Event::Suspended { stood_still: Some(time) } = suspended else { panic!("{suspended:?}") };
    assert!(time >= Duration::from_secs(20));
    let listed = memory.server.list("nodes").unwrap();
    let file: NodeFile = listed[0].parse().unwrap();
    memory.server.rename(&file.in_nodes(), &file.ended(Ending::Fenced { by: "b".parse().unwrap() }).path()).unwrap();
    directory.restore();
    let why = event(&mut events, |event| matches!(event, Event::Ended(_))).await;
    let Event::Ended(end) = why else { panic!("{why:?}") };
    let said = end.to_string();
    assert!(said.starts_with("this process stood still for 2") && said.contains("fenced by b"), "{said}");
    assert!(a.stood_still().is_some());
}

/// Jumps once something is published: by a join that takes long.
#[derive(Debug)]
struct Joining {
    system: SystemClock,
    server: FaultyDirectory,
}

impl Clock for Joining {
    fn now(&self) -> Duration {
        let published = self.server.list("info").is_ok_and(|names| !names.is_empty());
        self.system.now() + if published { Duration::from_secs(20) } else { Duration::ZERO }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_join_is_no_stand() {
    let memory = Memory::new();
    let clock = Arc::new(Joining { system: SystemClock::new(), server: memory.server.another_client() });
    let config = KeeperConfig { clock, ..config(&Root::for_test(timings()), "a", memory.locks.path()) };
    let a = Keeper::join_over(config, Arc::new(memory.server.another_client())).unwrap();
    assert_eq!(a.stood_still(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_left_did_not_stand_still() {
    let memory = Memory::new();
    let test = crate::TestClock::default();
    let clock = Arc::new(Jumping { system: SystemClock::new(), test: test.clone() });
    let config = KeeperConfig { clock, ..config(&Root::for_test(timings()), "a", memory.locks.path()) };
    let a = Keeper::join_over(config, Arc::new(memory.server.another_client())).unwrap();
    a.leave().await.unwrap();
    // Nobody looks at the clock meanwhile.
    test.advance(Duration::from_secs(20));
    assert_eq!(a.stood_still(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tidy_thread_that_panics_does_not_end_the_node() {
    let memory = Memory::new();
    let (a, _) = memory.join("a");
    let panicked = |name| {
        let engine = Arc::clone(&a.engine);
        let threads_before = Arc::strong_count(&engine);
        threads::spawn(&engine, name, || panic!("for this test")).unwrap();
        move || Arc::strong_count(&engine) <= threads_before
    };
    let over = panicked(threads::TIDY);
    let is_over = async {
        while !over() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, is_over).await.unwrap();
    assert!(tokio::time::timeout(Duration::ZERO, a.engine.broken_down()).await.is_err());
    let _over = panicked("affinity-other");
    let why = tokio::time::timeout(DEADLINE, a.engine.broken_down()).await.unwrap();
    assert!(why.contains("affinity-other"), "{why}");
}
