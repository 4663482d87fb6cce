//! Quotas of an account: what is refused, what is counted, and that counting survives whatever happens.

use affinity::Handover;
use index::{Flag, FlagSet};
use proptest::prelude::*;

use super::*;
use crate::{CreateOptions, LimitSource, Limits, MAIN_ROOT, QuotaRules, QuotaSettings, StoreOperation, Usage, filesystem::Failure};

fn settings(rules: &[&str]) -> QuotaSettings {
    let fields: Vec<(String, &str)> = rules.iter().enumerate().map(|(at, rule)| (format!("quota_rule{}", at + 1), *rule)).collect();
    let (rules, complaints) = QuotaRules::default().with_fields(fields.iter().map(|(key, value)| (key.as_str(), *value)));
    assert_eq!(complaints, Vec::<String>::new());
    QuotaSettings { rules, thresholds: [80, 95].into(), limits_from_maildirsize: false }
}
fn used(held: &Held) -> Usage {
    held.quota(None).unwrap()[0].usage
}
fn is_full<T: std::fmt::Debug>(result: Result<T, StorageError>) {
    assert!(matches!(result, Err(StorageError::OverQuota { .. })), "{result:?}");
}
/// What every mailbox shows.
fn really(held: &Held) -> Usage {
    let names: Vec<MailboxName> = held.list().unwrap().into_iter().filter(|entry| entry.selectable).map(|entry| entry.name).collect();
    let rows = names.iter().flat_map(|name| held.mailbox(name).unwrap().read().rows().collect::<Vec<_>>());
    rows.fold(Usage::default(), |usage, row| Usage { bytes: usage.bytes + row.size, messages: usage.messages + 1 })
}

#[test]
fn a_full_mailbox_takes_nothing_but_moves_within_its_root() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    held.set_quota(&settings(&["*:messages=2", "Trash:messages=+1"])).unwrap();
    let (inbox, sent) = (held.inbox(), held.open("Sent"));
    held.create(&name("Trash"), CreateOptions::default()).unwrap();
    append(&inbox, "one", FlagSet::EMPTY).unwrap();
    append(&inbox, "two", FlagSet::EMPTY).unwrap();
    is_full(append(&inbox, "three", FlagSet::EMPTY));
    is_full(inbox.copy_to(&[uid(1)], &sent));
    is_full(held.has_room(&name("Not/There"), 1));
    inbox.move_to(&[uid(1)], &sent).unwrap();
    sent.copy_to(&[uid(1)], &held.open("Trash")).unwrap();
    assert_eq!(used(&held).messages, 3);
    is_full(sent.copy_to(&[uid(1)], &held.open("Trash")));
    assert_eq!(used(&held), really(&held));

    let mut staged = inbox.stage(0).unwrap_err();
    assert!(matches!(staged, StorageError::OverQuota { .. }));
    held.delete(&name("Trash")).unwrap();
    assert_eq!(used(&held).messages, 2);
    sent.remove(&[uid(1)]).unwrap();
    staged = inbox.stage(u64::from(u32::MAX)).unwrap_err();
    assert!(matches!(staged, StorageError::Limit { .. }));
    append(&inbox, "three", FlagSet::EMPTY).unwrap();
    assert_eq!(user.files("").len(), 2, "nothing that was refused is left behind");
}

#[test]
fn a_replacement_needs_room_for_the_difference_only() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    held.set_quota(&settings(&["*:messages=1"])).unwrap();
    let inbox = held.inbox();
    let staged = |held: &Held| {
        held.set_quota(&settings(&["*:messages=2"])).unwrap();
        let mut staged = held.inbox().stage(0).unwrap();
        staged.write(&message("new")).unwrap();
        held.set_quota(&settings(&["*:messages=1"])).unwrap();
        staged
    };
    append(&inbox, "old", FlagSet::EMPTY).unwrap();
    is_full(inbox.append_all(vec![(staged(&held), FlagSet::EMPTY, None)]));
    inbox.append_instead(vec![(staged(&held), FlagSet::EMPTY, None)], Some((&inbox, uid(1)))).unwrap();
    inbox.remove(&[uid(1)]).unwrap();
    assert_eq!(used(&held).messages, 1);
}

#[test]
fn usage_survives_the_loss_of_the_index_and_of_the_holder() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    for subject in ["one", "two", "three"] {
        append(&held.inbox(), subject, FlagSet::EMPTY).unwrap();
    }
    held.inbox().move_to(&[uid(1)], &held.open("Sent")).unwrap();
    held.run_background_work().unwrap();
    append(&held.inbox(), "not in the index yet", FlagSet::EMPTY).unwrap();
    let expected = really(&held);
    user.die(held);

    let held = user.open(Handover::Unclean);
    held.set_quota(&settings(&["*:bytes=1M"])).unwrap();
    assert_eq!(used(&held), expected, "asked at once");
    held.close().unwrap();
    drop(held);
    user.delete_index();

    let held = user.open(Handover::Clean);
    held.set_quota(&settings(&["*:bytes=1M"])).unwrap();
    held.run_background_work().unwrap();
    is_full(held.has_room(&name("INBOX"), (1 << 20) - expected.bytes + 1));
    held.has_room(&name("INBOX"), (1 << 20) - expected.bytes).unwrap();
    assert_eq!(held.recount().unwrap(), []);
}

#[test]
fn mail_of_other_programs_counts_once_it_is_seen() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    held.set_quota(&settings(&["*:messages=2"])).unwrap();
    append(&held.inbox(), "one", FlagSet::EMPTY).unwrap();
    std::fs::write(user.maildir().join("new/1.foreign"), message("two")).unwrap();
    std::fs::write(user.maildir().join("new/2.foreign"), message("three")).unwrap();
    held.inbox().refresh(true).unwrap();
    assert_eq!(used(&held).messages, 3, "nobody could refuse it");
    is_full(append_anyway(&held, "four"));
    for file in user.files("").iter().filter(|file| file.contains("foreign")) {
        std::fs::remove_file(user.maildir().join(file)).unwrap();
    }
    held.inbox().refresh(true).unwrap();
    assert_eq!(used(&held), really(&held));
    append(&held.inbox(), "four", FlagSet::EMPTY).unwrap();
}

fn append_anyway(held: &Held, subject: &str) -> Result<Appended, StorageError> {
    append(&held.inbox(), subject, FlagSet::EMPTY)
}

#[test]
fn maildirsize_is_kept_for_users_with_limits() {
    let mut user = User::new();
    let file = user.maildir().join("maildirsize");
    let held = user.open(Handover::Clean);
    held.set_quota(&settings(&[])).unwrap();
    append(&held.inbox(), "one", FlagSet::EMPTY).unwrap();
    held.recount().unwrap();
    held.close().unwrap();
    drop(held);
    assert!(!file.exists(), "nothing is limited");

    let held = user.open(Handover::Clean);
    held.set_quota(&settings(&["*:bytes=1000000:messages=1000"])).unwrap();
    let one = used(&held).bytes;
    held.recount().unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("1000000S,1000C\n{one} 1\n"));
    append(&held.inbox(), "the second", FlagSet::EMPTY).unwrap();
    held.inbox().remove(&[uid(1)]).unwrap();
    held.maildirsize.lock().keep(&held.store, true).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("1000000S,1000C\n{one} 1\n14 0\n"), "a change is added");
    append(&held.inbox(), "three", FlagSet::EMPTY).unwrap();
    std::fs::remove_file(&file).unwrap();
    held.close().unwrap();
    let total = really_of(&std::fs::read_to_string(&file).unwrap());
    assert_eq!(total, (message("the second").len() + message("three").len()) as i64, "removed, it is made anew");
    drop(held);

    let before = std::fs::metadata(&file).unwrap().modified().unwrap();
    let held = user.open(Handover::Clean);
    held.set_quota(&QuotaSettings { limits_from_maildirsize: true, ..settings(&["Trash:messages=+1"]) }).unwrap();
    let limits = held.quota(None).unwrap()[0].limits;
    assert_eq!((limits.bytes, limits.messages), (Some(1_000_000), Some(1_000)), "of a file that another server may have written");
    held.close().unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), before, "what did not change is not written");
}

fn really_of(file: &str) -> i64 {
    file.lines().skip(1).map(|line| line.split_once(' ').unwrap().0.parse::<i64>().unwrap()).sum()
}

fn limits_of(held: &Held) -> (Option<u64>, Option<u64>, Option<LimitSource>) {
    let main = held.quota(None).unwrap().remove(0);
    (main.limits.bytes, main.limits.messages, main.source)
}
fn set(held: &Held, bytes: Option<u64>, messages: Option<u64>) {
    held.set_limits(MAIN_ROOT, Some(Limits { bytes, messages })).unwrap().unwrap();
}

#[test]
fn limits_that_were_set_win_until_they_are_removed() {
    let mut user = User::new();
    let held = user.open(Handover::Clean);
    let source = settings(&["*:bytes=1M:messages=10", "Trash:messages=+1"]);
    held.set_quota(&source).unwrap();
    assert_eq!(limits_of(&held), (Some(1 << 20), Some(10), Some(LimitSource::User)));
    append(&held.inbox(), "one", FlagSet::EMPTY).unwrap();
    assert_eq!(held.set_limits("nonsense", None).unwrap(), None);
    set(&held, None, Some(1));
    assert_eq!(limits_of(&held), (None, Some(1), Some(LimitSource::Set)), "what is not named is not limited");
    assert_eq!(held.quota_crossings().len(), 1, "it is full now");
    is_full(append(&held.inbox(), "two", FlagSet::EMPTY));
    held.create(&name("Trash"), CreateOptions::default()).unwrap();
    held.inbox().copy_to(&[uid(1)], &held.open("Trash")).unwrap();
    held.set_quota(&settings(&["*:bytes=2M"])).unwrap();
    assert_eq!(limits_of(&held), (None, Some(1), Some(LimitSource::Set)), "whatever the source says");
    assert!(std::fs::read_to_string(user.maildir().join("maildirsize")).unwrap().starts_with("1C\n"));

    user.die(held);
    let held = user.open(Handover::Unclean);
    held.set_quota(&source).unwrap();
    assert_eq!(limits_of(&held), (None, Some(1), Some(LimitSource::Set)));
    held.close().unwrap();
    drop(held);
    user.delete_index();
    let held = user.open(Handover::Clean);
    held.set_quota(&source).unwrap();
    is_full(append(&held.inbox(), "two", FlagSet::EMPTY));
    set(&held, Some(0), None);
    is_full(append(&held.inbox(), "two", FlagSet::EMPTY));

    held.set_limits(MAIN_ROOT, None).unwrap();
    assert_eq!(limits_of(&held), (Some(1 << 20), Some(10), Some(LimitSource::User)));
    append(&held.inbox(), "two", FlagSet::EMPTY).unwrap();
    held.close().unwrap();
    drop(held);
    let held = user.open(Handover::Clean);
    held.set_quota(&source).unwrap();
    assert_eq!(limits_of(&held), (Some(1 << 20), Some(10), Some(LimitSource::User)));
}

#[test]
fn maildirsize_says_again_what_it_said_when_a_limit_is_removed() {
    let from_file = QuotaSettings { limits_from_maildirsize: true, ..settings(&[]) };
    for before in [None, Some("5000S\n0 0\n")] {
        let mut user = User::new();
        user.open(Handover::Clean).close().unwrap();
        let file = user.maildir().join("maildirsize");
        before.iter().for_each(|content| std::fs::write(&file, content).unwrap());
        let held = user.open(Handover::Clean);
        held.set_quota(&from_file).unwrap();
        let was = limits_of(&held);
        assert_eq!(was, before.map_or((None, None, None), |_| (Some(5_000), None, Some(LimitSource::Maildirsize))));
        set(&held, Some(7_000), None);
        assert!(std::fs::read_to_string(&file).unwrap().starts_with("7000S\n"));
        user.die(held);
        let held = user.open(Handover::Unclean);
        held.set_quota(&from_file).unwrap();
        assert_eq!(limits_of(&held), (Some(7_000), None, Some(LimitSource::Set)));
        held.set_limits(MAIN_ROOT, None).unwrap();
        assert_eq!(limits_of(&held), was);
        user.die(held);
        let held = user.open(Handover::Unclean);
        held.set_quota(&from_file).unwrap();
        assert_eq!(limits_of(&held), was);
    }
}

#[test]
fn a_limit_that_was_refused_and_undone_does_not_come_back() {
    let source = settings(&["*:messages=10"]);
    let mut refused = 0;
    for call in 1..12 {
        let mut user = User::new();
        let held = user.open(Handover::Clean);
        held.set_quota(&source).unwrap();
        append(&held.inbox(), "one", FlagSet::EMPTY).unwrap();
        user.faulty.fail_at(call, Failure::Once);
        let set = held.set_limits(MAIN_ROOT, Some(Limits { bytes: None, messages: Some(1) }));
        user.faulty.heal();
        if set.is_err() {
            refused += 1;
            assert_eq!(limits_of(&held), (None, Some(10), Some(LimitSource::User)));
        }
        held.set_limits(MAIN_ROOT, None).unwrap();
        user.die(held);
        let held = user.open(Handover::Unclean);
        held.set_quota(&source).unwrap();
        assert_eq!(limits_of(&held), (None, Some(10), Some(LimitSource::User)), "call {call} failed");
    }
    assert!(refused > 4, "{refused} calls");
}

#[test]
fn a_broken_file_of_limits_is_said() {
    let mut user = User::new();
    user.open(Handover::Clean).close().unwrap();
    let file = user.maildir().join("berth-quota");
    std::fs::write(&file, "berth-quota 1\n10 soon User quota\n").unwrap();
    let held = user.open(Handover::Clean);
    held.set_quota(&settings(&["*:messages=3"])).unwrap();
    assert_eq!(limits_of(&held), (None, Some(3), Some(LimitSource::User)));
    assert!(std::fs::read_to_string(&file).unwrap().contains("soon"), "kept for whoever can read it");
    set(&held, None, Some(2));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "berth-quota 1\n- 2 User quota\n");
}

#[derive(Debug, Clone)]
enum Step {
    Append,
    Copy(u32),
    Move(u32),
    MoveBack(u32),
    Delete(u32),
    Foreign,
    Die,
    Reopen,
    LoseIndex,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_the_ledger_says_what_is_there_and_no_more_than_may(steps in proptest::collection::vec(
        prop_oneof![
            4 => Just(Step::Append), 2 => (1..6u32).prop_map(Step::Copy), 2 => (1..6u32).prop_map(Step::Move), 1 => (1..6u32).prop_map(Step::MoveBack),
            2 => (1..6u32).prop_map(Step::Delete), 1 => Just(Step::Foreign), 1 => Just(Step::Die), 1 => Just(Step::Reopen), 1 => Just(Step::LoseIndex),
        ], 1..30)) {
        let quota = settings(&["*:messages=5", "Sent:messages=+1"]);
        let mut user = User::new();
        let mut held = user.open(Handover::Clean);
        let mut foreign = 0;
        held.set_quota(&quota).unwrap();
        for step in steps {
            let (inbox, sent) = (held.inbox(), held.open("Sent"));
            match step {
                Step::Append => drop(append(&inbox, "x", FlagSet::EMPTY)),
                Step::Copy(number) => drop(inbox.copy_to(&[uid(number)], &sent)),
                Step::Move(number) => drop(inbox.move_to(&[uid(number)], &sent).unwrap()),
                Step::MoveBack(number) => drop(sent.move_to(&[uid(number)], &inbox)),
                Step::Delete(number) => {
                    inbox.store(&[uid(number)], StoreOperation::Add(FlagSet::of(&[Flag::Deleted])), None).unwrap();
                    inbox.expunge(None).unwrap();
                }
                Step::Foreign => {
                    foreign += 1;
                    std::fs::write(user.maildir().join(format!("new/{foreign}.foreign")), message("foreign")).unwrap();
                    inbox.refresh(true).unwrap();
                }
                Step::Die => {
                    user.die(held);
                    held = user.open(Handover::Unclean);
                }
                Step::Reopen | Step::LoseIndex => {
                    held.close().unwrap();
                    drop(held);
                    if matches!(step, Step::LoseIndex) {
                        user.delete_index();
                    }
                    held = user.open(Handover::Clean);
                }
            }
            held.set_quota(&quota).unwrap();
            let now = used(&held);
            prop_assert_eq!(now, really(&held));
            prop_assert!(now.messages <= 6 + foreign);
        }
        prop_assert_eq!(held.recount().unwrap(), Vec::<MailboxName>::new());
    }
}
