//! APPEND, FETCH, STORE, SEARCH, COPY, MOVE, EXPUNGE.

use index::Uid;
use storage::mime::{Section, SectionText};

use super::*;
use crate::imap::command::fetch::body::{CHUNK_BYTES, Form, Request, Wanted, When};

#[tokio::test]
async fn an_appended_message_is_fetched_as_it_was_sent() {
    let house = House::new();
    let mut talk = house.session().await;
    let text = message("hello", "one\r\ntwo");
    let answer = talk.append("INBOX (\\Seen $Work) \"17-Jul-1996 02:44:25 -0700\"", &text).await;
    assert!(answer.contains("T OK [APPENDUID "), "{answer}");
    talk.ok("SELECT INBOX").await;
    let answer = talk.ok("UID FETCH 1:* (FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])").await;
    assert!(answer.contains("INTERNALDATE \"17-Jul-1996 09:44:25 +0000\""), "{answer}");
    assert!(answer.contains("\\Seen $Work"), "{answer}");
    assert!(answer.contains(&format!("RFC822.SIZE {}", text.len())), "{answer}");
    assert!(answer.contains(&format!("BODY[] {{{}}}\r\n{text}", text.len())), "{answer}");
}

#[tokio::test]
async fn a_synchronising_literal_is_asked_for() {
    let house = House::new();
    let mut talk = house.session().await;
    talk.send("a APPEND INBOX {12}\r\n").await;
    assert!(talk.until("+ ").await.starts_with("+ "));
    talk.send("Subject: x\r\n\r\n").await;
    assert!(talk.until("a ").await.starts_with("a OK [APPENDUID "));
}

#[tokio::test]
async fn several_messages_of_one_append_are_stored_together() {
    let house = House::new();
    let mut talk = house.session().await;
    talk.ok("SELECT INBOX").await;
    talk.send("a APPEND INBOX (\\Seen) {12}\r\n").await;
    talk.until("+ ").await;
    talk.send("Subject: x\r\n (\\Flagged) \" 7-Feb-1994 22:43:04 -0800\" {12}\r\n").await;
    talk.until("+ ").await;
    let large = message("large", &"0123456789abcde\r\n".repeat(10_000));
    talk.send(&format!("Subject: y\r\n {{{}+}}\r\n{large}\r\n", large.len())).await;
    let answer = talk.until("a ").await;
    assert!(answer.contains("* 3 EXISTS\r\n") && answer.contains("a OK [APPENDUID ") && answer.contains(" 1:3] "), "{answer}");
    let answer = talk.ok("FETCH 1:3 (FLAGS INTERNALDATE RFC822.SIZE)").await;
    assert!(answer.contains("* 1 FETCH (FLAGS (\\Seen \\Recent)"), "{answer}");
    assert!(answer.contains("* 2 FETCH (FLAGS (\\Flagged \\Recent) INTERNALDATE \" 8-Feb-1994 06:43:04 +0000\""), "{answer}");
    assert!(answer.contains(&format!("RFC822.SIZE {}", large.len())), "{answer}");
}

#[tokio::test]
async fn of_several_messages_none_is_stored_if_one_is_refused() {
    let house = House::new();
    let mut talk = house.session().await;
    for (rest, answer) in [
        (" {0+}\r\n\r\n", "T NO [CANNOT]"),
        (" {10000001}\r\n", "T NO [TOOBIG]"),
        (" rubbish\r\n", "T BAD "),
        (" (\\Bogus) {3+}\r\nabc\r\n", "T BAD "),
    ] {
        let refused = talk.ask(&format!("APPEND INBOX {{12+}}\r\nSubject: x\r\n{rest}")).await;
        assert!(refused.starts_with(answer), "{rest}: {refused}");
        assert!(talk.ok("STATUS INBOX (MESSAGES)").await.contains("(MESSAGES 0)"), "{rest}");
    }
    let many = "APPEND INBOX".to_owned() + &" {12+}\r\nSubject: y\r\n".repeat(101);
    assert!(talk.ask(&many).await.starts_with("T NO [LIMIT]"));
    assert!(talk.ok("STATUS INBOX (MESSAGES)").await.contains("(MESSAGES 0)"));
}

#[tokio::test]
async fn append_is_refused_before_the_message_is_sent() {
    let house = House::new();
    let mut talk = house.session().await;
    talk.send("a APPEND Missing {12}\r\n").await;
    assert!(talk.until("a ").await.starts_with("a NO [TRYCREATE]"));
    talk.send("b APPEND INBOX {10000001}\r\n").await;
    assert!(talk.until("b ").await.starts_with("b NO [TOOBIG]"));
    let answer = talk.append("Missing", &message("x", "y")).await;
    assert!(answer.starts_with("T NO [TRYCREATE]"), "{answer}");
    talk.ok("NOOP").await;
}

#[tokio::test]
async fn reading_a_message_marks_it_as_seen_in_the_same_response() {
    let house = House::new();
    let mut talk = inbox_of(&house, 3).await;
    let answer = talk.ok("FETCH 1:2 (BODY[TEXT])").await;
    assert!(answer.contains("FLAGS (\\Seen") && answer.contains("body 2"), "{answer}");
    assert_eq!(answer.matches(" FETCH ").count(), 2, "{answer}");
    let answer = talk.ok("FETCH 1:* (FLAGS)").await;
    assert_eq!(answer.matches("\\Seen").count(), 2, "{answer}");
    assert!(!talk.ok("FETCH 3 BODY.PEEK[]").await.contains("\\Seen"));
}

#[tokio::test]
async fn sections_and_partials_are_cut_out() {
    let house = House::new();
    let mut talk = inbox_of(&house, 1).await;
    let answer = talk.ok("FETCH 1 (BODY.PEEK[HEADER.FIELDS (SUBJECT X-OTHER)])").await;
    assert!(answer.contains("Subject: s1\r\nX-Other: yes\r\n\r\n"), "{answer}");
    let answer = talk.ok("FETCH 1 (BODY.PEEK[HEADER.FIELDS (SUBJECT FROM)])").await;
    assert!(answer.contains("From: Ada <ada@example.org>\r\nSubject: s1\r\n\r\n"), "{answer}");
    let answer = talk.ok("FETCH 1 (BODY.PEEK[TEXT]<2.3>)").await;
    assert!(answer.contains("BODY[TEXT]<2> {3}\r\ndy )") || answer.contains("BODY[TEXT]<2> \"dy \""), "{answer}");
    assert!(talk.ok("FETCH 1 (BODY.PEEK[7])").await.contains("BODY[7] NIL"));
    assert!(talk.ok("FETCH 1 (RFC822.HEADER)").await.contains("RFC822.HEADER {"));
}

#[tokio::test]
async fn envelope_and_structure_are_rendered() {
    let house = House::new();
    let mut talk = inbox_of(&house, 1).await;
    let answer = talk.ok("FETCH 1 (ENVELOPE BODYSTRUCTURE BODY)").await;
    assert!(answer.contains("\"s1\" ((\"Ada\" NIL \"ada\" \"example.org\"))"), "{answer}");
    assert!(answer.to_ascii_uppercase().contains("BODYSTRUCTURE (\"TEXT\" \"PLAIN\""), "{answer}");
    assert!(answer.to_ascii_uppercase().contains(" BODY (\"TEXT\" \"PLAIN\""), "{answer}");
}

#[tokio::test]
async fn a_large_message_is_streamed_whole_and_in_ranges() {
    let house = House::new();
    let mut talk = house.session().await;
    let text = message("large", &"0123456789abcde\r\n".repeat(60_000));
    talk.append("INBOX", &text).await;
    talk.ok("SELECT INBOX").await;
    let answer = talk.ok("UID FETCH 1 (BODY.PEEK[])").await;
    assert!(answer.contains(&format!("BODY[] {{{}}}\r\n{text})\r\n", text.len())));
    let answer = talk.ok("UID FETCH 1 (BODY.PEEK[]<500000.40>)").await;
    assert!(answer.contains(&text[500_000..500_040]), "{answer}");
    let answer = talk.ok("UID FETCH 1 (BODY.PEEK[TEXT]<0.15> BODY.PEEK[HEADER])").await;
    assert!(answer.contains("0123456789abcde") && answer.contains("X-Other: yes\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn many_messages_are_fetched_in_order() {
    let house = House::new();
    let mut talk = inbox_of(&house, 30).await;
    let answer = talk.ok("UID FETCH 1:* (UID BODY.PEEK[TEXT] ENVELOPE)").await;
    let found: Vec<usize> = (1..=30).map(|number| answer.find(&format!("body {number}\r\n")).expect("a body")).collect();
    assert!(found.is_sorted());
}

#[tokio::test]
async fn store_answers_with_the_new_flags_unless_silent() {
    let house = House::new();
    let mut talk = inbox_of(&house, 2).await;
    talk.ok("NOOP").await;
    let answer = talk.ok("STORE 1:2 +FLAGS (\\Flagged $Todo)").await;
    assert_eq!(answer.matches(" FETCH (FLAGS (\\Flagged $Todo").count(), 2, "{answer}");
    assert!(answer.contains("* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Todo)"), "a new keyword is named first: {answer}");
    assert_eq!(talk.ok("STORE 1 -FLAGS.SILENT (\\Flagged)").await, "T OK Store completed\r\n");
    let answer = talk.ok("UID STORE 1 FLAGS (\\Answered)").await;
    assert!(answer.contains("UID 1") && answer.contains("FLAGS (\\Answered"), "{answer}");
}

#[tokio::test]
async fn a_silent_store_still_tells_what_others_did() {
    let house = House::new();
    let mut mine = inbox_of(&house, 1).await;
    let mut other = house.session().await;
    other.ok("SELECT INBOX").await;
    other.ok("STORE 1 +FLAGS (\\Flagged)").await;
    let answer = mine.ok("STORE 1 +FLAGS.SILENT (\\Seen)").await;
    assert!(answer.contains("* 1 FETCH (FLAGS (\\Flagged"), "{answer}");
}

#[tokio::test]
async fn expunges_of_others_wait_while_sequence_numbers_are_in_use() {
    let house = House::new();
    let mut mine = inbox_of(&house, 3).await;
    let mut other = house.session().await;
    other.ok("SELECT INBOX").await;
    other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    other.ok("EXPUNGE").await;
    let answer = mine.ask("FETCH 1:3 (UID)").await;
    assert!(answer.ends_with("T NO [EXPUNGEISSUED] Some of the messages no longer exist\r\n"), "{answer}");
    assert!(answer.contains("* 2 FETCH (UID 2)") && !answer.contains("EXPUNGE\r\n"), "{answer}");
    assert!(mine.ok("NOOP").await.contains("* 1 EXPUNGE\r\n"));
    assert!(mine.ok("FETCH 1 (UID)").await.contains("* 1 FETCH (UID 2)"));
}

#[tokio::test]
async fn expunge_removes_deleted_messages_and_uid_expunge_only_those_named() {
    let house = House::new();
    let mut talk = inbox_of(&house, 4).await;
    talk.ok("STORE 1,2,4 +FLAGS.SILENT (\\Deleted)").await;
    assert_eq!(talk.ok("UID EXPUNGE 2:3").await, "* 2 EXPUNGE\r\nT OK Expunge completed\r\n");
    let answer = talk.ok("EXPUNGE").await;
    assert!(answer.starts_with("* 3 EXPUNGE\r\n* 1 EXPUNGE\r\n"), "{answer}");
    assert!(talk.ok("FETCH 1:* (UID)").await.contains("* 1 FETCH (UID 3)"));
}

#[tokio::test]
async fn close_expunges_in_silence_and_unselect_does_not() {
    let house = House::new();
    let mut talk = inbox_of(&house, 2).await;
    talk.ok("STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    talk.ok("UNSELECT").await;
    assert!(talk.ok("SELECT INBOX").await.contains("* 2 EXISTS"));
    assert_eq!(talk.ok("CLOSE").await, "T OK Close completed\r\n");
    assert!(talk.ok("SELECT INBOX").await.contains("* 1 EXISTS"));
}

#[tokio::test]
async fn copies_and_moves_say_which_uids_came_of_them() {
    let house = House::new();
    let mut talk = inbox_of(&house, 3).await;
    let answer = talk.ok("COPY 1:2 Sent").await;
    assert!(answer.contains("T OK [COPYUID ") && answer.contains(" 1:2 1:2]"), "{answer}");
    let answer = talk.ok("UID MOVE 2:3 Sent").await;
    let (copyuid, expunge) = (answer.find("* OK [COPYUID ").unwrap(), answer.find("* 3 EXPUNGE").unwrap());
    assert!(copyuid < expunge && answer.contains(" 2:3 3:4]"), "{answer}");
    assert!(talk.ask("COPY 1 Missing").await.starts_with("T NO [TRYCREATE]"));
    assert!(talk.ask("MOVE 1 Missing").await.starts_with("T NO [TRYCREATE]"));
    assert_eq!(talk.ok("UID COPY 900 Sent").await, "T OK No messages to copy\r\n");
    assert!(talk.ask("COPY 9 Sent").await.starts_with("T BAD "));
}

#[tokio::test]
async fn search_answers_in_both_forms() {
    let house = House::new();
    let mut talk = inbox_of(&house, 4).await;
    talk.ok("STORE 2,4 +FLAGS.SILENT (\\Seen)").await;
    assert!(talk.ok("SEARCH UNSEEN").await.contains("* SEARCH 1 3\r\n"));
    assert!(talk.ok("SEARCH SUBJECT s3").await.contains("* SEARCH 3\r\n"));
    assert!(talk.ok("UID SEARCH BODY \"body 4\"").await.contains("* SEARCH 4\r\n"));
    assert!(talk.ok("SEARCH SUBJECT nothing").await.contains("* SEARCH\r\n"));
    let answer = talk.ok("UID SEARCH RETURN (MIN MAX COUNT) SEEN").await;
    assert!(answer.contains("UID MIN 2 MAX 4 COUNT 2\r\n"), "{answer}");
    assert!(talk.ok("SEARCH RETURN () ALL").await.contains(" ALL 1:4\r\n"));
    assert!(talk.ok("SEARCH YOUNGER 3600").await.contains("* SEARCH 1 2 3 4\r\n"));
}

#[tokio::test]
async fn sequence_numbers_beyond_the_mailbox_are_bad_and_unknown_uids_are_nobody() {
    let house = House::new();
    let mut talk = inbox_of(&house, 1).await;
    assert!(talk.ask("FETCH 2 FLAGS").await.starts_with("T BAD "));
    assert_eq!(talk.ok("UID FETCH 7:9 FLAGS").await, "T OK Fetch completed\r\n");
    talk.ok("STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    talk.ok("EXPUNGE").await;
    assert_eq!(talk.ok("FETCH 1:* FLAGS").await, "T OK Fetch completed\r\n");
}

#[tokio::test]
async fn a_nul_never_reaches_a_client() {
    let house = House::new();
    let mut talk = house.session().await;
    let text = message("a\0b", "one\0two");
    let large = message("large", &"0123456789abcd\0\r\n".repeat(30_000));
    talk.append("INBOX", &text).await;
    talk.append("INBOX", &large).await;
    talk.ok("SELECT INBOX").await;
    talk.send("n FETCH 1:2 (BODY.PEEK[] RFC822.TEXT BODY.PEEK[HEADER.FIELDS (SUBJECT)] ENVELOPE)\r\n").await;
    let answer = talk.bytes_until("n ").await;
    assert!(!answer.contains(&0));
    assert!(memchr::memmem::find(&answer, b"one\x80two").is_some());
    let announced = format!("BODY[] {{{}}}\r\n", text.len());
    assert!(memchr::memmem::find(&answer, announced.as_bytes()).is_some(), "sizes stay");
}

#[tokio::test]
async fn a_part_of_a_long_list_is_fetched() {
    let house = House::new();
    let mut talk = inbox_of(&house, 9).await;
    talk.ok("STORE 2,5,8 +FLAGS.SILENT (\\Deleted)").await;
    talk.ok("EXPUNGE").await;
    let uids = |answer: &str| answer.matches("UID ").count();
    let answer = talk.ok("UID FETCH 2:9 (FLAGS) (PARTIAL -1:-3)").await;
    assert!(uids(&answer) == 3 && ["UID 6 ", "UID 7 ", "UID 9 "].iter().all(|uid| answer.contains(uid)), "{answer}");
    let answer = talk.ok("UID FETCH 2:9 (FLAGS) (PARTIAL 3:2)").await;
    assert!(uids(&answer) == 2 && answer.contains("UID 4 ") && answer.contains("UID 6 "), "{answer}");
    assert_eq!(talk.ok("UID FETCH 1:* (FLAGS) (PARTIAL 7:900)").await, "T OK Fetch completed\r\n");
    let modseq = highest_modseq(&mut talk).await;
    talk.ok("UID STORE 1,7 +FLAGS.SILENT (\\Seen)").await;
    let answer = talk.ok(&format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {modseq} PARTIAL -1:-3)")).await;
    assert!(uids(&answer) == 1 && answer.contains("UID 7 "), "the places count before the changes: {answer}");
    for wrong in ["FETCH 1:* (FLAGS) (PARTIAL 1:2)", "UID FETCH 1 (FLAGS) (PARTIAL 0:2)", "UID FETCH 1 (FLAGS) (PARTIAL 1:2 PARTIAL 1:2)"] {
        assert!(talk.ask(wrong).await.starts_with("T BAD "), "{wrong}");
    }
}

async fn highest_modseq(talk: &mut Talk) -> u64 {
    let answer = talk.ok("STATUS INBOX (HIGHESTMODSEQ)").await;
    let (_, rest) = answer.rsplit_once("(HIGHESTMODSEQ ").unwrap();
    rest.split_once(')').unwrap().0.parse().unwrap()
}

#[tokio::test]
async fn a_saved_result_is_named_by_every_command_that_takes_a_set() {
    let house = House::new();
    let mut talk = inbox_of(&house, 5).await;
    assert_eq!(talk.ok("FETCH $ FLAGS").await, "T OK Fetch completed\r\n", "nothing is saved at first");
    talk.ok("SEARCH RETURN (SAVE) 2:4").await;
    assert_eq!(talk.ok("UID FETCH $ (UID)").await.matches(" FETCH (").count(), 3);
    talk.ok("STORE 3 +FLAGS.SILENT (\\Deleted)").await;
    talk.ok("UID EXPUNGE $").await;
    assert_eq!(talk.ok("FETCH $ (UID)").await, "* 2 FETCH (UID 2)\r\n* 3 FETCH (UID 4)\r\nT OK Fetch completed\r\n");
    talk.ok("STORE $ +FLAGS.SILENT (\\Flagged)").await;
    assert_eq!(talk.ok("FETCH 1:* (FLAGS)").await.matches("\\Flagged").count(), 2);
    assert!(talk.ok("COPY $ Sent").await.contains(" 2,4 1:2]"));
    assert!(talk.ok("UID MOVE $ Sent").await.contains(" 2,4 3:4]"));
    assert_eq!(talk.ok("UID STORE $ +FLAGS.SILENT (\\Seen)").await, "T OK Store completed\r\n", "they are gone");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_costs_only_its_own_message() {
    const COUNT: u32 = 20;
    let house = House::new();
    // Of files of other programs nothing is rendered yet.
    for number in 1..=COUNT {
        let text = message(&format!("s{number}"), "body").replacen("Subject", &format!("X-Number: {number}\r\nSubject"), 1);
        std::fs::write(house.maildir().join(format!("new/15000000{number:02}.M{number}P1.host,S={0},W={0}", text.len())), text).unwrap();
    }
    let mut talk = house.session().await;
    assert!(talk.ok("SELECT INBOX").await.contains("* 20 EXISTS\r\n"));
    let spoil = |number: u32| {
        let found = std::fs::read_dir(house.maildir().join("new")).unwrap().map(|entry| entry.unwrap().path());
        let path = found.into_iter().find(|path| path.to_str().unwrap().contains(&format!(".M{number}P1.host"))).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(path).unwrap();
    };
    let items = ["BODY.PEEK[HEADER.FIELDS (X-Number)]", "ENVELOPE", "PREVIEW", "BODY.PEEK[]", "(BODYSTRUCTURE BODY.PEEK[TEXT])"];
    // What was asked of the others is in the index by then.
    for (spoilt, number, items) in [(0, 7, &items[..]), (1, 13, &["BODY.PEEK[HEADER.FIELDS (X-Second)]", "BODY.PEEK[]"])] {
        spoil(number);
        for item in items {
            let told = talk.ask(&format!("FETCH 1:* {item}")).await;
            let fetched = told.lines().filter(|line| line.contains(" FETCH (")).count();
            assert_eq!(fetched, usize::try_from(COUNT).unwrap() - 1 - spoilt, "{item}: {told}");
            assert!(
                !told.contains(&format!("* {number} FETCH")) && told.contains("\r\nT NO [SERVERBUG] A message can't be read"),
                "{item}: {told}"
            );
        }
    }
    // With many of them it is not the files.
    (1..=6).chain(15..=18).for_each(spoil);
    for item in ["BODY.PEEK[HEADER.FIELDS (X-Other)]", "BODY.PEEK[]"] {
        let told = talk.ask(&format!("FETCH 1:* {item}")).await;
        assert!(told.lines().last().is_some_and(|line| line.starts_with("T NO [SERVERBUG] The mail store failed")), "{item}: {told}");
    }
}

#[tokio::test]
async fn a_long_header_is_not_read_ahead() {
    let house = House::new();
    let mut talk = inbox_of(&house, 1).await;
    let header = format!("Subject: long\r\nX-Long: {}\r\n\r\n", "x".repeat(2 * CHUNK_BYTES));
    talk.append("INBOX", &format!("{header}text\r\n")).await;
    let mailbox = house.account().mailbox(&MailboxName::parse("INBOX").unwrap()).unwrap();
    let wanted = Wanted { section: Section { part: vec![], text: SectionText::Header }, partial: None, form: Form::AsItIs };
    let request = Request { sections: vec![wanted], body_structure: false };
    let prepare = |uid, when| request.prepare(&mailbox, Uid::new(uid).unwrap(), when).unwrap();
    assert!(prepare(1, When::Ahead).is_some() && prepare(2, When::Ahead).is_none());
    assert_eq!(prepare(2, When::AtItsTurn).unwrap().raw, header.as_bytes());
    talk.ok("NOOP").await;
    assert!(talk.ok("FETCH 1:2 BODY.PEEK[HEADER]").await.contains(&format!("BODY[HEADER] {{{}}}\r\n{header})", header.len())));
    let often = format!("FETCH 2 ({})", ["BODY.PEEK[HEADER.FIELDS.NOT (X)] BODY.PEEK[HEADER.FIELDS.NOT (Y)]"; 4].join(" "));
    assert!(talk.ask(&often).await.contains("T NO [LIMIT] "));
}
