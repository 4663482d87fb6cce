//! The rules against a hostile world: nodes that crash, stall and are cut off, a server that goes away, requests that land late or twice,
//! listings that a rename runs through, clocks that run at different rates. All is drawn from a seed, which every failure names.
//!
//! After each step:
//! - `invariant_one_live_holder_per_user`: no two nodes may acknowledge for one user
//! - `invariant_whoever_acknowledges_holds_the_lease`: the lease folder names whoever may acknowledge, in its epoch
//! - `invariant_epochs_only_rise`, and a lease folder holds one name
//!
//! and at each takeover: what was not released is not called clean. The model (`model.rs`) takes each rule away once; this adds what it can't
//! reach: four nodes and three users, delays within a beat, listings read in two halves, histories of 90 seconds.

mod world;

use world::{Faults, World};

/// Seeds of every run: some dozens, so that all of them take seconds.
const SEEDS: std::ops::Range<u64> = 0..24;

/// Runs every seed; the first violation fails.
fn assert_holds(faults: Faults) -> Vec<World> {
    SEEDS
        .map(|seed| {
            let mut world = World::new(seed, faults);
            if let Err(violation) = world.run() {
                panic!("seed {seed}: {violation}");
            }
            world
        })
        .collect()
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
        let mut world = World::new(seed, Faults::ALL);
        if let Err(violation) = world.run().and_then(|()| world.calm_down()) {
            panic!("seed {seed}: {violation}");
        }
    }
}
