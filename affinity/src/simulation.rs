//! The rules against a hostile world: nodes that crash, stall and are cut off, a server that goes away, requests that land late or twice,
//! listings that a rename runs through, clocks that run at different rates. All is drawn from a seed, which every failure names.
//!
//! After each step:
//! - `invariant_one_live_holder_per_user`: no two nodes may acknowledge for one user
//! - `invariant_whoever_acknowledges_holds_the_lease`: the lease folder names whoever may acknowledge, in its epoch
//! - `invariant_epochs_only_rise`, and a lease folder holds one name
//!
//! and at each takeover: what was not released is not called clean. Each rule is also taken away once, and must be missed.

mod world;

use world::{Faults, Rule, World};

/// Seeds of every run: some dozens, so that all of them take seconds.
const SEEDS: std::ops::Range<u64> = 0..24;
/// How many seeds are tried until a missing rule is missed.
const BROKEN_SEEDS: u64 = 400;

/// Runs every seed; the first violation fails.
fn assert_holds(faults: Faults) -> Vec<World> {
    SEEDS
        .map(|seed| {
            let mut world = World::new(seed, faults, None);
            if let Err(violation) = world.run() {
                panic!("seed {seed}: {violation}");
            }
            world
        })
        .collect()
}

/// Runs until the missing rule is missed. `first` is a seed from which that is soon, so that it takes seconds.
fn assert_is_missed(rule: Rule, first: u64) {
    for seed in first..first + BROKEN_SEEDS {
        if let Err(violation) = World::new(seed, Faults::OFTEN, Some(rule)).run() {
            println!("without {rule:?}, seed {seed}: {violation}");
            return;
        }
    }
    panic!("without {rule:?} nothing went wrong: the simulation does not test it");
}

#[test]
fn whatever_goes_wrong_one_node_at_a_time_acknowledges_for_a_user() {
    let worlds: Vec<World> = [Faults::ALL, Faults::OFTEN].into_iter().flat_map(assert_holds).collect();
    let runs = u64::try_from(worlds.len()).expect("some dozens");
    let (steps, taken, unclean, fenced) = worlds
        .iter()
        .fold((0, 0, 0, 0), |sum, world| (sum.0 + world.steps, sum.1 + world.taken, sum.2 + world.unclean, sum.3 + world.fenced()));
    println!("{steps} steps, {taken} leases taken ({unclean} unclean), {fenced} node files fenced");
    assert!(steps > runs * 2000 && taken > runs * 20 && unclean > runs && fenced > worlds.len(), "too quiet to prove anything");
}

#[test]
fn an_outage_alone_fences_nobody() {
    let worlds = assert_holds(Faults { outages: true, ..Faults::NONE });
    for world in &worlds {
        assert_eq!(world.fenced(), 0, "seed {}", world.seed);
    }
    assert!(worlds.iter().map(|world| world.outages).sum::<u64>() > SEEDS.end);
}

#[test]
fn when_all_is_well_again_every_lease_can_be_had() {
    for seed in SEEDS {
        let mut world = World::new(seed, Faults::ALL, None);
        if let Err(violation) = world.run().and_then(|()| world.calm_down()) {
            panic!("seed {seed}: {violation}");
        }
    }
}

#[test]
fn without_exact_fences_a_live_node_is_fenced() {
    assert_is_missed(Rule::FenceNamesTheBeat, 36);
}

#[test]
fn without_the_margin_two_nodes_acknowledge() {
    assert_is_missed(Rule::SelfLimitBelowDeadAfter, 31);
}

#[test]
fn with_an_older_listing_of_nodes_a_live_holder_loses_its_lease() {
    assert_is_missed(Rule::NodesListedAfterLease, 0);
}

#[test]
fn counting_from_the_last_try_two_nodes_acknowledge() {
    assert_is_missed(Rule::BeatCountsFromFirstTry, 10);
}

#[test]
fn trusting_one_listing_a_live_holder_loses_its_lease() {
    assert_is_missed(Rule::AbsenceSeenMoreThanOnce, 2);
}

#[test]
fn keeping_an_unknown_lease_a_late_release_takes_it_away() {
    assert_is_missed(Rule::UnknownLeaseTakenAnew, 42);
}
