//! What holds, and what does not without each rule.

use super::*;

const NONE: Faults =
    Faults { crashes: 0, resigns: 0, pauses: 0, outages: 0, delays: 0, slow: 0, errors: 0, resent: 0, hidden: 0, releases: 0, writes: 0 };

#[track_caller]
fn assert_holds(model: Model) {
    match model.check() {
        Ok(states) => println!("{states} states"),
        Err(violation) => panic!("{violation}"),
    }
}

/// The first violation is shortest: it must be of this property.
#[track_caller]
fn assert_breaks(model: Model, property: &str) {
    let violation = model.check().expect_err("the model does not miss the rule");
    println!("{violation}");
    assert!(violation.starts_with(property), "{violation}");
}

#[test]
fn whatever_is_paused_no_two_nodes_acknowledge() {
    assert_holds(Model::new(Faults { pauses: 1, writes: 1, ..NONE }).with_unequal_clocks().lasting(8));
}

#[test]
fn whatever_is_slow_no_two_nodes_acknowledge() {
    assert_holds(Model::new(Faults { slow: 1, ..NONE }).lasting(8));
}

#[test]
fn whatever_crashes_no_two_nodes_acknowledge_and_nothing_acknowledged_is_missing() {
    assert_holds(Model::new(Faults { crashes: 2, delays: 1, writes: 1, ..NONE }).lasting(2));
    assert_holds(Model { dead_stay_dead: true, ..Model::new(Faults { crashes: 1, writes: 2, ..NONE }).lasting(7) });
}

#[test]
fn whoever_resigns_no_two_nodes_acknowledge_and_nothing_acknowledged_is_missing() {
    assert_holds(Model::new(Faults { resigns: 1, errors: 1, writes: 1, ..NONE }).lasting(3));
}

#[test]
fn whatever_a_listing_misses_no_live_holder_loses_its_lease() {
    assert_holds(Model::new(Faults { hidden: 2, crashes: 1, ..NONE }).lasting(3));
}

#[test]
fn whatever_request_fails_or_is_sent_again_no_two_nodes_acknowledge() {
    assert_holds(Model::new(Faults { errors: 2, resent: 1, releases: 1, ..NONE }).lasting(3));
}

#[test]
fn of_three_nodes_no_two_acknowledge() {
    assert_holds(Model::new(Faults { pauses: 1, ..NONE }).with_a_third_node().lasting(8));
}

#[test]
fn of_two_users_each_has_one_holder() {
    assert_holds(Model::new(Faults { crashes: 1, releases: 1, hidden: 1, ..NONE }).with_a_second_user().lasting(3));
}

#[test]
fn an_outage_moves_nobody() {
    let mut model = Model::new(Faults { outages: 1, ..NONE }).lasting(13);
    model.skew = 6;
    assert_holds(model);
}

#[test]
fn users_are_served_in_the_end() {
    for dead_stay_dead in [false, true] {
        for faults in [Faults { crashes: 1, pauses: 1, ..NONE }, Faults { crashes: 1, errors: 1, ..NONE }] {
            assert_holds(Model { dead_stay_dead, ..Model::new(faults).lasting(2).then_calm_for(16) });
        }
    }
}

#[test]
fn without_exact_fences_a_node_that_moved_on_is_fenced() {
    let model = Model::new(Faults { pauses: 1, errors: 1, ..NONE });
    assert_breaks(model.without(Rule::FencesNameTheBeat), "a_node_that_moved_on_is_not_fenced");
}

#[test]
fn without_a_limit_below_the_others_patience_two_nodes_acknowledge() {
    let model = Model::new(Faults { pauses: 1, ..NONE });
    assert_breaks(model.without(Rule::SelfLimitBelowDeadAfter), "");
}

#[test]
fn without_a_margin_clocks_of_unequal_rate_let_two_nodes_acknowledge() {
    let model = Model::new(Faults { pauses: 1, ..NONE }).with_unequal_clocks();
    assert_breaks(model.without(Rule::MarginForClockRates), "");
}

#[test]
fn counting_a_beat_from_its_last_try_two_nodes_acknowledge() {
    let model = Model::new(Faults { errors: 1, pauses: 1, ..NONE });
    assert_breaks(model.without(Rule::BeatCountsFromFirstTry), "");
}

#[test]
fn with_an_older_listing_of_nodes_a_live_holder_loses_its_lease() {
    let model = Model::new(Faults { crashes: 1, delays: 1, ..NONE }).lasting(3);
    assert_breaks(model.without(Rule::NodesListedAfterTheLease), "");
}

#[test]
fn trusting_one_listing_a_live_holder_loses_its_lease() {
    let model = Model::new(Faults { hidden: 1, ..NONE }).lasting(3);
    assert_breaks(model.without(Rule::AbsenceSeenMoreThanOnce), "");
}

#[test]
fn keeping_an_unknown_lease_a_late_release_takes_it_away() {
    let model = Model::new(Faults { errors: 2, releases: 1, ..NONE }).lasting(4);
    assert_breaks(model.without(Rule::UnknownLeasesAreTakenAnew), "");
}

#[test]
fn without_a_second_look_a_resent_beat_ends_a_tenure_that_nobody_ended() {
    let model = Model::new(Faults { resent: 1, ..NONE }).lasting(3);
    assert_breaks(model.without(Rule::LostSwapsAreConfirmed), "nobody_gives_up_unfenced");
}

#[test]
fn counting_time_without_listings_an_outage_moves_users() {
    let mut model = Model::new(Faults { outages: 1, ..NONE }).lasting(16);
    model.skew = 6;
    assert_breaks(model.without(Rule::OutagesCountAgainstNobody), "an_outage_moves_nobody");
}

#[test]
fn without_double_patience_whoever_is_back_last_is_fenced() {
    let mut model = Model::new(Faults { outages: 1, ..NONE }).lasting(16);
    model.skew = 6;
    assert_breaks(model.without(Rule::OutagesDoublePatience), "an_outage_moves_nobody");
}

#[test]
fn without_fences_the_users_of_a_dead_node_wait_for_ever() {
    let mut model = Model::new(Faults { crashes: 1, ..NONE }).lasting(2).then_calm_for(16);
    model.dead_stay_dead = true;
    assert_breaks(model.without(Rule::SuspectsAreFenced), "users_are_served_in_the_end");
}

#[test]
fn acknowledging_without_a_look_at_the_lease_two_nodes_acknowledge() {
    let model = Model::new(Faults { pauses: 1, writes: 1, ..NONE });
    assert_breaks(model.without(Rule::AcknowledgeOnlyWhileValid), "");
}

#[test]
fn going_on_in_a_dead_nodes_folder_its_late_write_lands_there() {
    let model = Model::new(Faults { crashes: 1, writes: 1, ..NONE });
    assert_breaks(model.without(Rule::UncleanTakeoversCopy), "no_late_write_reaches_a_live_folder");
}

#[test]
fn releasing_before_all_is_durable_a_late_write_reaches_the_next_holder() {
    let model = Model::new(Faults { releases: 1, writes: 1, ..NONE }).lasting(4);
    assert_breaks(model.without(Rule::ReleaseOnlyWhenClosed), "no_late_write_reaches_a_live_folder");
}

#[test]
fn resigning_before_the_tenure_is_over_two_nodes_acknowledge() {
    let model = Model::new(Faults { resigns: 1, ..NONE }).lasting(4);
    assert_breaks(model.without(Rule::ResigningEndsTheTenureFirst), "");
}
