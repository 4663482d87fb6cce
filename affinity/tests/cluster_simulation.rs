//! The short version of `examples/cluster_simulation`: its figures have bounds.

#[path = "../examples/cluster_simulation/world.rs"]
mod world;

use world::{Phase, Size, World};

/// Most requests of beats, watch and settings, per node and beat.
const BEAT_REQUESTS_MAX: u64 = 5;
/// Most requests for one login or move: a look, an acquire with a first contact or two listings of `nodes/`, a release.
const LEASE_REQUESTS_MAX: u64 = 20;

fn run() -> Vec<Phase> {
    World::new(Size { seed: 7, nodes: 20, users: 4000, logins_per_beat: 400 }).run()
}

#[test]
fn requests_grow_with_nodes_times_beats_and_logins_and_nothing_else() {
    for row in run() {
        // Every node looks twice when somebody is gone or comes: as many times as nodes changed.
        let changes = 2 * 4 * 30 * 4;
        assert!(row.beat_requests <= BEAT_REQUESTS_MAX * row.node_beats + changes, "{row:?}");
        assert!(row.lease_requests <= LEASE_REQUESTS_MAX * (row.logins + row.moved), "{row:?}");
    }
}

#[test]
fn who_comes_goes_or_dies_moves_no_users_but_its_own_and_an_outage_none() {
    let rows = run();
    let [logins, idle, join, drain, death, outage, back, again, .., flapping] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((logins.logins, logins.moved, logins.longest_wait), (4000, 0, 0));
    assert_eq!((idle.lease_requests, idle.moved, join.moved), (0, 0, 0));
    assert!(logins.spread.0 >= 130 && logins.spread.1 <= 280, "200 each on average: {:?}", logins.spread);
    assert!((260..=560).contains(&drain.moved) && drain.longest_wait <= 1, "{drain:?}");
    assert!((200..=600).contains(&death.moved) && death.fenced == 2, "{death:?}");
    assert!(death.longest_wait <= 10, "dead_after, and a beat or two: {death:?}");
    assert_eq!((outage.moved, outage.fenced, outage.lease_requests), (0, 0, 0));
    // The nodes that joined after all had logged in get their share as well now: two of 20 that came back, two of 22.
    assert!((550..=1000).contains(&back.moved), "{back:?}");
    assert!(back.spread.0 >= 130 && back.spread.1 <= 280, "{:?}", back.spread);
    assert_eq!((again.moved, again.fenced), (0, 0), "whoever is where they belong stays: nothing flaps");
    assert_eq!((flapping.moved, flapping.lease_requests), (0, 0), "a node that comes and goes moves nobody who is not idle");
}

#[test]
fn a_changed_weight_moves_nobody_until_idle_and_then_no_more_than_its_share() {
    let rows = run();
    let [.., halved, less, whole, back, _] = rows.as_slice() else { panic!("{rows:?}") };
    for row in [halved, whole] {
        assert_eq!((row.moved, row.lease_requests, row.fenced), (0, 0, 0), "{row:?}");
    }
    // Two of 20 nodes have 400 of 4000 users and lose nearly half of them; nobody moves between the others.
    assert!((120..=260).contains(&less.moved) && less.spread.0 < 130, "{less:?}");
    assert_eq!(back.moved, less.moved, "the same come back, and nobody else");
    assert!(back.spread.0 >= 130 && back.spread.1 <= 280, "{back:?}");
}

#[test]
fn a_seed_gives_the_same_figures_each_time() {
    assert_eq!(format!("{:?}", run()), format!("{:?}", run()));
}
