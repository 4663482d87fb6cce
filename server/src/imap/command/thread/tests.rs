use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{references::Grouping, *};
use crate::imap::command::sort::tests::{row, summary};

/// Messages with sequence numbers from 1, sent one after the other.
fn messages(headers: &[&str], algorithm: ThreadAlgorithm) -> Vec<Facts> {
    let facts = |(sequence, header): (u32, &&str)| {
        let row = row(sequence, 1_000 + i64::from(sequence), 1);
        Facts::new(&row, &Summary::read(&summary(header)).unwrap(), algorithm, false)
    };
    (1..).zip(headers).map(facts).collect()
}

fn written(threads: &Threads, messages: &[Facts]) -> String {
    let mut out = BytesMut::new();
    write(&mut out, threads, messages);
    String::from_utf8(out.to_vec()).unwrap().trim_end().trim_start_matches("* THREAD").trim_start().to_owned()
}

fn by_references(headers: &[&str]) -> String {
    let messages = messages(headers, ThreadAlgorithm::References);
    written(&references::threads(&messages, Grouping::AndSubjects), &messages)
}
fn by_refs(headers: &[&str]) -> String {
    let messages = messages(headers, ThreadAlgorithm::Refs);
    written(&references::threads(&messages, Grouping::Alone), &messages)
}
fn by_subject(headers: &[&str]) -> String {
    let messages = messages(headers, ThreadAlgorithm::OrderedSubject);
    written(&ordered_subject::threads(&messages), &messages)
}

#[test]
fn the_example_of_the_response_is_written() {
    // RFC 5256, BASE.7.2.THREAD: * THREAD (2)(3 6 (4 23)(44 7 96))
    let numbers = [2, 3, 6, 4, 23, 44, 7, 96];
    let messages: Vec<Facts> = numbers.iter().map(|number| Facts { number: *number, ..Facts::default() }).collect();
    let children: [&[usize]; 8] = [&[], &[2], &[3, 5], &[4], &[], &[6], &[7], &[]];
    let mut nodes: Vec<Node> = (0..).zip(children).map(|(at, children)| Node { message: Some(at), children: children.to_vec() }).collect();
    nodes.push(Node { message: None, children: vec![0, 7] });
    let threads = Threads { roots: vec![0, 1], nodes };
    assert_eq!(written(&threads, &messages), "(2)(3 6 (4 23)(44 7 96))");
    assert_eq!(written(&Threads { roots: vec![8], ..threads }, &messages), "((2)(96))");
    assert_eq!(written(&Threads::default(), &[]), "");
}

#[test]
fn ordered_subject_has_two_levels() {
    let headers = ["Subject: b", "Subject: a", "Subject: Re: b", "Subject: RE: A", "X: none", "Subject: [l] b", "X: none"];
    assert_eq!(by_subject(&headers), "(1 (3)(6))(2 4)(5 7)");
}

#[test]
fn replies_hang_from_what_they_reply_to() {
    let headers = [
        "Message-ID: <1@x>\nSubject: a",
        "Message-ID: <2@x>\nReferences: <1@x>\nSubject: b",
        "Message-ID: <3@x>\nIn-Reply-To: <1@x> (quoted)\nSubject: c",
        "Message-ID: <4@x>\nReferences: <1@x> <2@x>\nSubject: d",
        "Message-ID: <5@x>\nSubject: e",
    ];
    assert_eq!(by_references(&headers), "(1 (2 4)(3))(5)");
    assert_eq!(by_refs(&headers), "(1 (2 4)(3))(5)");
}

#[test]
fn messages_that_are_not_there_hold_their_replies_together() {
    let headers = [
        "Message-ID: <1@x>\nReferences: <gone@x>\nSubject: a",
        "Message-ID: <2@x>\nReferences: <gone@x> <away@x>\nSubject: b",
        "Message-ID: <3@x>\nReferences: <lost@x>\nSubject: c",
    ];
    assert_eq!(by_references(&headers), "((1)(2))(3)");
}

#[test]
fn a_reply_may_come_before_what_it_replies_to() {
    let headers =
        ["Message-ID: <3@x>\nReferences: <1@x> <2@x>", "Message-ID: <2@x>\nIn-Reply-To: <1@x>", "Message-ID: <1@x>\nSubject: first"];
    assert_eq!(by_refs(&headers), "(3 2 1)");
}

#[test]
fn references_that_lead_round_make_no_loop() {
    for headers in [
        ["Message-ID: <1@x>\nReferences: <2@x>", "Message-ID: <2@x>\nReferences: <3@x>", "Message-ID: <3@x>\nReferences: <1@x>"],
        [
            "Message-ID: <1@x>\nReferences: <1@x>",
            "Message-ID: <2@x>\nReferences: <2@x> <1@x> <2@x>",
            "Message-ID: <3@x>\nReferences: <3@x>",
        ],
    ] {
        let mut numbers: Vec<u32> = numbers_in(&by_refs(&headers));
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3]);
    }
}

#[test]
fn a_second_message_of_the_same_id_is_another_message() {
    let headers =
        ["Message-ID: <1@x>\nSubject: a", "Message-ID: <\"1\"@x>\nSubject: b", "Message-ID: <3@x>\nReferences: <1@x>\nSubject: c"];
    assert_eq!(by_references(&headers), "(1 3)(2)");
}

#[test]
fn a_truncated_reference_is_put_right_by_the_message_itself() {
    // Message 1 says that 3 comes after 9; message 3 knows better.
    let headers = ["Message-ID: <1@x>\nReferences: <9@x> <3@x>", "Message-ID: <2@x>", "Message-ID: <3@x>\nReferences: <2@x>"];
    assert_eq!(by_refs(&headers), "(2 3 1)");
}

#[test]
fn subjects_join_threads_that_references_do_not() {
    // A reply without references comes below what it replies to, whichever was first.
    assert_eq!(by_references(&["Message-ID: <1@x>\nSubject: a", "Message-ID: <2@x>\nSubject: Re: a"]), "(1 2)");
    assert_eq!(by_references(&["Message-ID: <1@x>\nSubject: Re: a", "Message-ID: <2@x>\nSubject: a"]), "(2 1)");
    // Two that are alike are siblings; so is a third.
    assert_eq!(by_references(&["Subject: a", "Subject: A"]), "((1)(2))");
    assert_eq!(by_references(&["Subject: Re: a", "Subject: re: a", "Subject: Fwd: a"]), "((1)(2)(3))");
    assert_eq!(by_references(&["Subject: a", "Subject: a", "Subject: Re: a"]), "((1)(2)(3))");
    // Nothing is no subject.
    assert_eq!(by_references(&["X: 1", "Subject: Re:", "Subject: "]), "(1)(2)(3)");
    // The replies of two that are missing come together.
    let headers = [
        "Message-ID: <1@x>\nReferences: <a@x>\nSubject: Re: s",
        "Message-ID: <2@x>\nReferences: <a@x>\nSubject: Re: s",
        "Message-ID: <3@x>\nReferences: <b@x>\nSubject: Re: s",
        "Message-ID: <4@x>\nReferences: <b@x>\nSubject: Re: s",
        "Message-ID: <5@x>\nSubject: s",
    ];
    assert_eq!(by_references(&headers), "((1)(2)(3)(4)(5))");
    assert_eq!(by_refs(&headers), "((1)(2))((3)(4))(5)");
}

#[test]
fn siblings_are_ordered_by_the_date_they_were_sent() {
    let headers = [
        "Message-ID: <1@x>\nDate: 4 Jan 2026 00:00:00 +0000\nSubject: a",
        "Message-ID: <2@x>\nReferences: <1@x>\nDate: 3 Jan 2026 00:00:00 +0000\nSubject: b",
        "Message-ID: <3@x>\nReferences: <1@x>\nDate: 2 Jan 2026 00:00:00 +0000\nSubject: c",
        "Message-ID: <4@x>\nDate: 1 Jan 2026 00:00:00 +0000\nSubject: d",
    ];
    assert_eq!(by_references(&headers), "(4)(1 (3)(2))");
    // The thread with the newest arrival last.
    assert_eq!(by_refs(&headers), "(1 (3)(2))(4)");
    let answered = [&headers[..], &["Message-ID: <5@x>\nReferences: <2@x>"]].concat();
    assert_eq!(by_refs(&answered), "(4)(1 (3)(2 5))");
}

fn numbers_in(written: &str) -> Vec<u32> {
    written.split(['(', ')', ' ']).filter(|word| !word.is_empty()).map(|word| word.parse().unwrap()).collect()
}

#[test]
fn a_hundred_thousand_messages_are_threaded_in_time() {
    const MESSAGES: u32 = 100_000;
    let id = |number: u32| -> Box<[u8]> { format!("{number}@x").into_bytes().into() };
    let message = |number: u32, references: Vec<Box<[u8]>>| Facts {
        number,
        sequence: number,
        sent: number.into(),
        id: Some(id(number)),
        references,
        subject: format!("{}", number % 7).into(),
        is_reply: number.is_multiple_of(2),
        ..Facts::default()
    };
    // One chain; the same in the other order; a chain, and then every second message moved below its end; one parent for all.
    let chains: [Vec<Facts>; 4] = [
        (1..=MESSAGES).map(|number| message(number, vec![id(number - 1)])).collect(),
        (1..=MESSAGES).map(|number| message(number, vec![id(number + 1)])).collect(),
        (1..=MESSAGES)
            .map(|number| {
                let parent = if number > MESSAGES / 2 { id(MESSAGES / 2) } else { id(number - 1) };
                message(number, vec![id(number + MESSAGES), id(number + 1), parent])
            })
            .collect(),
        (1..=MESSAGES).map(|number| message(number, vec![id(0)])).collect(),
    ];
    #[expect(clippy::disallowed_methods, reason = "measures what the processor does; nothing waits")]
    let start = Instant::now();
    for messages in &chains {
        for grouping in [Grouping::AndSubjects, Grouping::Alone] {
            let written = written(&references::threads(messages, grouping), messages);
            assert_eq!(numbers_in(&written).len(), messages.len());
        }
        assert_eq!(numbers_in(&written(&ordered_subject::threads(messages), messages)).len(), messages.len());
    }
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

proptest! {
    #[test]
    fn every_message_is_in_one_thread(
        drawn in prop::collection::vec((0_u8..12, prop::collection::vec(0_u8..12, 0..5), 0_u8..4, any::<bool>(), 0_i64..5), 0..20),
    ) {
        let id = |number: u8| -> Box<[u8]> { Box::new([number, b'@', b'x']) };
        let messages: Vec<Facts> = (1..).zip(&drawn).map(|(number, (own, references, subject, is_reply, sent))| Facts {
            number,
            sequence: number,
            sent: *sent,
            arrived: *sent,
            id: (*own > 0).then(|| id(*own)),
            references: references.iter().map(|reference| id(*reference)).collect(),
            subject: if *subject == 0 { "".into() } else { format!("{subject}").into() },
            is_reply: *is_reply,
        }).collect();
        let expected: BTreeSet<u32> = (1..=u32::try_from(messages.len()).unwrap()).collect();
        for threads in [
            references::threads(&messages, Grouping::AndSubjects),
            references::threads(&messages, Grouping::Alone),
            ordered_subject::threads(&messages),
        ] {
            let written = written(&threads, &messages);
            let numbers = numbers_in(&written);
            prop_assert_eq!(numbers.len(), messages.len(), "{}", written);
            prop_assert_eq!(numbers.into_iter().collect::<BTreeSet<u32>>(), expected.clone(), "{}", written);
            prop_assert!(!written.contains("()") && !written.contains("( "), "{}", written);
        }
    }
}
