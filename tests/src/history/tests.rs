//! Histories that must pass, and for each property ones that must not.

use std::collections::BTreeSet;

use super::*;

const INBOX: u32 = 100;
const WORK: u32 = 200;

/// Builds a history of one user; each request takes from `sent` to `sent + 9`.
#[derive(Default)]
struct Story(History);

impl Story {
    fn ask(mut self, sent: Micros, request: Request, outcome: Outcome, epoch: u64) -> Story {
        let id = self.0.operations.len();
        let tag = format!("t{id}");
        if matches!(outcome, Outcome::Done(_)) {
            self = self.says(epoch, &format!("n{epoch}"), &tag);
        }
        let (client, user, node) = ("client".to_owned(), "ada".to_owned(), "n1".to_owned());
        self.0.operations.push(Operation { id, client, user, node, tag, sent, ended: sent + 9, request, outcome });
        self
    }
    fn does(self, sent: Micros, request: Request, answer: Answer) -> Story {
        self.ask(sent, request, Outcome::Done(answer), 1)
    }
    fn tries(self, sent: Micros, request: Request) -> Story {
        self.ask(sent, request, Outcome::Unknown("the connection ended".into()), 1)
    }
    fn says(mut self, epoch: u64, holder: &str, tag: &str) -> Story {
        self.0.acknowledgements.push(Acknowledgement { user: "ada".into(), epoch, holder: holder.into(), tag: tag.into() });
        self
    }
    fn sees(self, sent: Micros, uid_next: u32, modseq: u64, messages: &[(u32, &str, &str)]) -> Story {
        let seen = mailbox(INBOX, uid_next, modseq, messages);
        self.does(sent, Request::Look { mailbox: "INBOX".into() }, Answer::Seen(seen))
    }
    fn ends(mut self, mailboxes: &[(&str, Mailbox)]) -> Story {
        let mailboxes = mailboxes.iter().map(|(name, mailbox)| ((*name).to_owned(), mailbox.clone())).collect();
        self.0.finals.push(Final {
            by: format!("n{}", self.0.finals.len() + 1),
            at: 1_000_000,
            user: "ada".into(),
            mailboxes,
            without_uids: false,
        });
        self
    }
    fn ends_with(self, messages: &[(u32, &str, &str)]) -> Story {
        self.ends(&[("INBOX", mailbox(INBOX, 1_000, 1_000, messages))])
    }
    fn passes(self) {
        let violations = check(&self.0);
        assert!(violations.is_empty(), "{violations:#?}");
    }
    /// The violations of that property.
    fn breaks(self, property: &str) -> Vec<Violation> {
        let violations = check(&self.0);
        let of_property: Vec<Violation> = violations.iter().filter(|violation| violation.property.contains(property)).cloned().collect();
        assert!(!of_property.is_empty(), "it was not noticed, only {violations:#?}");
        of_property
    }
}

/// Messages as UID, Message-ID, flags.
fn mailbox(uid_validity: u32, uid_next: u32, highest_modseq: u64, messages: &[(u32, &str, &str)]) -> Mailbox {
    let message = |id: &str, flags: &str| Message { id: id.into(), flags: flags.split_whitespace().map(str::to_owned).collect() };
    let messages = messages.iter().map(|(uid, id, flags)| (*uid, message(id, flags))).collect();
    Mailbox { uid_validity, uid_next, highest_modseq, messages }
}

fn deliver(message: &str) -> Request {
    Request::Deliver { message: message.into() }
}
fn append(message: &str) -> Request {
    Request::Append { mailbox: "INBOX".into(), message: message.into(), flags: BTreeSet::new() }
}
fn targets(uid: u32, message: &str) -> Targets {
    [(uid, message.to_owned())].into()
}
fn store(uid: u32, message: &str, add: bool, flag: &str) -> Request {
    Request::Store { validity: INBOX, targets: targets(uid, message), add, flag: flag.into() }
}
fn expunge(uid: u32, message: &str) -> Request {
    Request::Expunge { validity: INBOX, targets: targets(uid, message) }
}
fn copy(uid: u32, message: &str, to: &str) -> Request {
    Request::Copy { validity: INBOX, targets: targets(uid, message), to: to.into() }
}
fn move_to(uid: u32, message: &str, to: &str) -> Request {
    Request::Move { validity: INBOX, targets: targets(uid, message), to: to.into() }
}
fn placed(validity: u32, source: u32, uid: u32) -> Answer {
    Answer::Placed { validity, uids: vec![(source, uid)] }
}
fn named(name: &str) -> String {
    name.to_owned()
}

#[test]
fn a_history_without_a_fault_passes() {
    Story::default()
        .does(10, Request::Create { mailbox: named("work") }, Answer::Plain)
        .does(20, deliver("a"), Answer::Plain)
        .does(30, append("b"), placed(INBOX, 0, 2))
        .sees(40, 3, 5, &[(1, "a", ""), (2, "b", "")])
        .does(50, store(1, "a", true, "\\Seen"), Answer::Plain)
        .does(60, copy(1, "a", "work"), placed(WORK, 1, 1))
        .does(70, move_to(2, "b", "work"), placed(WORK, 2, 2))
        .does(80, deliver("c"), Answer::Plain)
        .does(90, expunge(3, "c"), Answer::Plain)
        .ends(&[
            ("INBOX", mailbox(INBOX, 4, 20, &[(1, "a", "\\Seen")])),
            ("work", mailbox(WORK, 3, 9, &[(1, "a", "\\Seen"), (2, "b", "")])),
        ])
        .passes();
}

#[test]
fn what_was_moved_is_not_expunged_by_its_old_uid() {
    Story::default()
        .does(10, append("a"), placed(INBOX, 0, 1))
        .does(30, move_to(1, "a", "work"), placed(WORK, 1, 1))
        .does(50, expunge(1, "a"), Answer::Plain)
        .ends(&[("INBOX", mailbox(INBOX, 9, 9, &[])), ("work", mailbox(WORK, 9, 9, &[(1, "a", "")]))])
        .passes();
}

#[test]
fn what_nobody_knows_may_have_been_done_or_not() {
    for end in [&[(1, "a", "")][..], &[(1, "a", ""), (2, "a", "")], &[(1, "a", "\\Seen")]] {
        Story::default()
            .tries(10, deliver("a"))
            .does(20, deliver("a"), Answer::Plain)
            .tries(30, store(1, "a", true, "\\Seen"))
            .ends_with(end)
            .passes();
    }
    Story::default().does(10, append("a"), placed(INBOX, 0, 1)).tries(20, expunge(1, "a")).ends_with(&[]).passes();
    for place in [INBOX, WORK] {
        let both = [("INBOX", INBOX), ("work", WORK)];
        let mailboxes = both.map(|(name, validity)| {
            (name, if validity == place { mailbox(validity, 9, 9, &[(1, "a", "")]) } else { mailbox(validity, 9, 9, &[]) })
        });
        Story::default().does(10, append("a"), placed(INBOX, 0, 1)).tries(20, move_to(1, "a", "work")).ends(&mailboxes).passes();
    }
}

#[test]
fn a_lost_message_is_noticed() {
    Story::default().does(10, deliver("a"), Answer::Plain).ends_with(&[]).breaks("is there");
    let lost = Story::default().does(10, append("a"), placed(INBOX, 0, 1)).ends_with(&[]).breaks("is there");
    assert_eq!(lost[0].operations, [0]);
    // In the other mailbox of a MOVE whose outcome nobody knows, it would do; nowhere, it does not.
    Story::default().does(10, deliver("a"), Answer::Plain).tries(20, move_to(1, "a", "work")).ends_with(&[]).breaks("is there");
    // Somebody expunged one copy, not both.
    Story::default()
        .does(10, append("a"), placed(INBOX, 0, 1))
        .does(20, append("a"), placed(INBOX, 0, 2))
        .does(30, expunge(1, "a"), Answer::Plain)
        .ends_with(&[])
        .breaks("is there");
    // It was expunged before it was there: by somebody who meant another.
    Story::default().does(10, expunge(1, "z"), Answer::Plain).does(30, append("a"), placed(INBOX, 0, 1)).ends_with(&[]).breaks("is there");
}

#[test]
fn a_message_in_a_deleted_mailbox_is_lost_rightly_and_only_there() {
    let append_to = |mailbox: &str| Request::Append { mailbox: mailbox.into(), message: "a".into(), flags: BTreeSet::new() };
    let story = || {
        Story::default()
            .does(10, Request::Create { mailbox: named("s1") }, Answer::Plain)
            .does(20, append_to("s1"), placed(WORK, 0, 1))
            .does(30, Request::Rename { from: named("s1"), to: named("s2") }, Answer::Plain)
    };
    story().does(40, Request::Delete { mailbox: named("s2") }, Answer::Plain).ends_with(&[]).passes();
    story().ends(&[("s2", mailbox(WORK, 2, 2, &[]))]).breaks("is there");
}

#[test]
fn a_doubled_message_is_noticed_unless_a_try_of_it_had_no_answer() {
    let twice = [(1, "a", ""), (2, "a", "")];
    Story::default().does(10, deliver("a"), Answer::Plain).ends_with(&twice).breaks("once");
    Story::default().does(10, append("a"), placed(INBOX, 0, 1)).ends_with(&twice).breaks("once");
    let refused = Outcome::Refused("over quota".into());
    Story::default().ask(5, deliver("a"), refused, 1).does(10, deliver("a"), Answer::Plain).ends_with(&twice).breaks("once");
    let mut again = Story::default().does(10, deliver("a"), Answer::Plain).ends_with(&twice);
    again.0.carried_out_again.insert("t0".into());
    again.passes();
}

#[test]
fn an_expunged_message_that_is_back_is_noticed() {
    Story::default()
        .does(10, append("a"), placed(INBOX, 0, 1))
        .does(20, expunge(1, "a"), Answer::Plain)
        .ends_with(&[(1, "a", "")])
        .breaks("gone")
        .iter()
        .for_each(|violation| assert_eq!(violation.operations, [0, 1]));
    let both = [("INBOX", mailbox(INBOX, 9, 9, &[(1, "a", "")])), ("work", mailbox(WORK, 9, 9, &[(1, "a", "")]))];
    let violations = check(
        &Story::default().does(10, append("a"), placed(INBOX, 0, 1)).does(20, move_to(1, "a", "work"), placed(WORK, 1, 1)).ends(&both).0,
    );
    assert!(violations.iter().any(|violation| violation.property.contains("gone")), "{violations:#?}");
}

#[test]
fn a_message_that_nobody_sent_is_noticed() {
    Story::default().ends_with(&[(1, "changed on the way", "")]).breaks("only what was sent");
}

#[test]
fn readers_who_disagree_are_noticed() {
    let story = || Story::default().does(10, append("a"), placed(INBOX, 0, 1)).ends_with(&[(1, "a", "")]);
    story().ends_with(&[(1, "a", "")]).passes();
    let flagged = check(&story().ends_with(&[(1, "a", "\\Seen")]).0);
    assert!(flagged.iter().any(|violation| violation.property.contains("same mail")), "{flagged:#?}");
    let mut on_disk = story().ends_with(&[(1, "a", "")]);
    on_disk.0.finals[1].without_uids = true;
    on_disk.0.finals[1].mailboxes.get_mut("INBOX").unwrap().messages.clear();
    on_disk.breaks("same mail");
}

#[test]
fn an_empty_mailbox_of_a_create_without_an_answer_may_come_late_and_nothing_else() {
    let inbox = ("INBOX", mailbox(INBOX, 1, 1, &[]));
    let create = || Request::Create { mailbox: named("s1") };
    let disagree = |story: Story, late: Mailbox| {
        let violations = check(&story.ends(std::slice::from_ref(&inbox)).ends(&[inbox.clone(), ("s1", late)]).0);
        violations.iter().any(|violation| violation.property.contains("same mail"))
    };
    let empty = || mailbox(WORK, 1, 1, &[]);
    assert!(!disagree(Story::default().tries(10, create()), empty()));
    assert!(disagree(Story::default().does(10, create(), Answer::Plain), empty()), "it was answered");
    assert!(disagree(Story::default().tries(10, Request::Create { mailbox: named("s2") }), empty()), "another one");
    assert!(disagree(Story::default().tries(10, create()), mailbox(WORK, 2, 1, &[(1, "a", "")])), "with mail");
    let gone = Story::default().tries(10, create()).ends(&[inbox.clone(), ("s1", empty())]).ends(std::slice::from_ref(&inbox));
    gone.breaks("same mail");
}

#[test]
fn a_uid_that_was_another_message_is_noticed() {
    Story::default()
        .does(10, deliver("a"), Answer::Plain)
        .does(20, deliver("b"), Answer::Plain)
        .sees(40, 3, 5, &[(1, "a", ""), (2, "b", "")])
        .does(50, expunge(1, "a"), Answer::Plain)
        .does(60, expunge(2, "b"), Answer::Plain)
        .does(70, deliver("c"), Answer::Plain)
        .ends_with(&[(2, "c", "")])
        .breaks("two messages");
}

#[test]
fn counters_that_go_back_are_noticed() {
    let story = || Story::default().does(10, append("a"), placed(INBOX, 0, 7));
    let there = [(7, "a", "")];
    story().sees(30, 8, 5, &there).sees(50, 8, 5, &there).ends_with(&there).passes();
    story().sees(30, 9, 5, &there).sees(50, 8, 5, &there).ends_with(&there).breaks("UIDNEXT");
    story().sees(30, 7, 5, &there).ends_with(&there).breaks("UIDNEXT");
    story().does(30, append("b"), placed(INBOX, 0, 6)).ends_with(&[(6, "b", ""), (7, "a", "")]).breaks("UIDNEXT");
    story().sees(30, 8, 5, &there).sees(50, 8, 4, &there).ends_with(&there).breaks("HIGHESTMODSEQ");
    // Two at once may be told in any order.
    let both = [(7, "a", ""), (6, "b", "")];
    story().does(12, append("b"), placed(INBOX, 0, 6)).ends_with(&both).passes();
}

#[test]
fn a_modseq_that_a_new_message_did_not_raise_is_noticed() {
    let there = [(7, "a", "")];
    Story::default()
        .sees(10, 7, 5, &[])
        .does(30, append("a"), placed(INBOX, 0, 7))
        .sees(50, 8, 5, &there)
        .ends_with(&there)
        .breaks("HIGHESTMODSEQ");
}

#[test]
fn a_uidvalidity_that_changes_without_a_reason_is_noticed() {
    let look = |validity| (Request::Look { mailbox: "INBOX".into() }, Answer::Seen(mailbox(validity, 1, 1, &[])));
    let story = |validities: [u32; 2]| {
        validities.iter().zip([10, 30]).fold(Story::default(), |story, (validity, sent)| {
            let (request, answer) = look(*validity);
            story.does(sent, request, answer)
        })
    };
    story([INBOX, INBOX]).passes();
    story([INBOX, INBOX + 1]).breaks("UIDVALIDITY");
    story([INBOX, INBOX - 1]).breaks("UIDVALIDITY");
}

#[test]
fn flags_that_no_order_gives_are_noticed() {
    let story = || Story::default().does(10, append("a"), placed(INBOX, 0, 1)).does(30, store(1, "a", true, "\\Seen"), Answer::Plain);
    story().ends_with(&[(1, "a", "\\Seen")]).passes();
    let lost = story().ends_with(&[(1, "a", "")]).breaks("some order");
    assert_eq!(lost[0].operations, [1]);
    // Undone later: only that.
    let undone = || story().does(50, store(1, "a", false, "\\Seen"), Answer::Plain);
    undone().ends_with(&[(1, "a", "")]).passes();
    undone().ends_with(&[(1, "a", "\\Seen")]).breaks("some order");
    // At once, or of unknown outcome: either.
    for end in ["", "\\Seen"] {
        story().does(33, store(1, "a", false, "\\Seen"), Answer::Plain).ends_with(&[(1, "a", end)]).passes();
        story().tries(50, store(1, "a", false, "\\Seen")).ends_with(&[(1, "a", end)]).passes();
    }
    // Nobody ever set it.
    story().ends_with(&[(1, "a", "\\Seen \\Flagged")]).breaks("some order");
}

#[test]
fn a_reader_who_sees_an_old_flag_is_noticed() {
    Story::default()
        .does(10, append("a"), placed(INBOX, 0, 1))
        .does(30, store(1, "a", true, "\\Seen"), Answer::Plain)
        .sees(50, 2, 5, &[(1, "a", "")])
        .ends_with(&[(1, "a", "\\Seen")])
        .breaks("some order");
}

#[test]
fn a_copy_has_the_flags_of_its_original() {
    let story = || {
        Story::default()
            .does(10, append("a"), placed(INBOX, 0, 1))
            .does(30, store(1, "a", true, "\\Seen"), Answer::Plain)
            .does(50, copy(1, "a", "work"), placed(WORK, 1, 1))
            .does(70, store(1, "a", false, "\\Seen"), Answer::Plain)
    };
    let end = |copied: &str| [("INBOX", mailbox(INBOX, 9, 9, &[(1, "a", "")])), ("work", mailbox(WORK, 9, 9, &[(1, "a", copied)]))];
    story().ends(&end("\\Seen")).passes();
    story().ends(&end("")).breaks("some order");
}

#[test]
fn two_nodes_in_one_epoch_are_noticed() {
    Story::default().does(10, deliver("a"), Answer::Plain).says(1, "n9", "t0").ends_with(&[(1, "a", "")]).breaks("in one epoch");
}

#[test]
fn a_holder_that_answers_after_its_successor_is_noticed() {
    let story = |second: Micros, first_epoch, second_epoch| {
        let done = || Outcome::Done(Answer::Plain);
        Story::default()
            .ask(10, deliver("a"), done(), first_epoch)
            .ask(second, deliver("b"), done(), second_epoch)
            .ends_with(&[(1, "a", ""), (2, "b", "")])
    };
    story(30, 1, 2).passes();
    story(15, 2, 1).passes();
    assert_eq!(story(30, 2, 1).breaks("two holders")[0].operations, [0, 1]);
}

#[test]
fn an_acknowledgement_that_no_log_knows_is_noticed() {
    let mut story = Story::default().does(10, deliver("a"), Answer::Plain).ends_with(&[(1, "a", "")]);
    story.0.acknowledgements.clear();
    story.breaks("under a lease");
}

#[test]
fn a_mailbox_that_is_missing_or_back_is_noticed() {
    let inbox = ("INBOX", mailbox(INBOX, 1, 1, &[]));
    let work = ("s1", mailbox(WORK, 1, 1, &[]));
    let made = || Story::default().does(10, Request::Create { mailbox: named("s1") }, Answer::Plain);
    made().ends(&[inbox.clone(), work.clone()]).passes();
    made().ends(std::slice::from_ref(&inbox)).breaks("there or gone");
    let deleted = || made().does(30, Request::Delete { mailbox: named("s1") }, Answer::Plain);
    deleted().ends(std::slice::from_ref(&inbox)).passes();
    deleted().ends(&[inbox.clone(), work.clone()]).breaks("there or gone");
    let renamed = || made().does(30, Request::Rename { from: named("s1"), to: named("s2") }, Answer::Plain);
    renamed().ends(&[inbox.clone(), ("s2", mailbox(WORK, 1, 1, &[]))]).passes();
    renamed().ends(&[inbox.clone(), work.clone()]).breaks("there or gone");
    for end in [vec![inbox.clone()], vec![inbox, work]] {
        made().tries(30, Request::Delete { mailbox: named("s1") }).ends(&end).passes();
    }
}

#[test]
fn a_history_comes_back_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history");
    let mut story = Story::default()
        .does(10, append("a"), placed(INBOX, 0, 1))
        .tries(20, expunge(1, "a"))
        .sees(40, 2, 5, &[(1, "a", "\\Seen")])
        .ends_with(&[]);
    story.0.title = "seed 1".into();
    story.0.faults.push(Fault { from: 5, until: 6, what: "n1 loses power".into() });
    story.0.carried_out_again.insert("s".into());
    write(&story.0, &path).unwrap();
    assert_eq!(read(&path).unwrap(), story.0);
}
