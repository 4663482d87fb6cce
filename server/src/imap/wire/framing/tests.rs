use proptest::prelude::*;

use super::*;
use crate::imap::wire::command::{AppendPiece, FlagArgument, Replaced, SequenceBound};

const LIMITS: Limits = Limits { line_bytes: 200, literal_bytes: 100, command_bytes: 300 };

/// What a session does with steps: takes messages whole, refuses those beyond 1000 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Continue,
    Command(Vec<u8>),
    Append(AppendStart),
    Message(Vec<u8>),
    AppendMore(AppendLine),
    Refused(Refusal),
}

/// A session that is fed pieces.
struct Session {
    framer: Framer,
    input: BytesMut,
    message: Vec<u8>,
    events: Vec<Event>,
}

impl Session {
    fn new() -> Session {
        Session { framer: Framer::new(LIMITS), input: BytesMut::new(), message: Vec::new(), events: Vec::new() }
    }
    fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        loop {
            if self.framer.literal_remaining() > 0 {
                let Some(chunk) = self.framer.literal_chunk(&mut self.input) else { return };
                self.message.extend_from_slice(&chunk);
                if self.framer.literal_remaining() == 0 {
                    self.events.push(Event::Message(std::mem::take(&mut self.message)));
                }
                continue;
            }
            let event = match self.framer.next(&mut self.input) {
                Step::NeedInput => return,
                Step::Continue { .. } => Event::Continue,
                Step::Command(command) => Event::Command(command.to_vec()),
                step @ (Step::Append(_) | Step::AppendMore(_)) => {
                    let (event, literal) = match step {
                        Step::Append(start) => (Event::Append(start.clone()), start.line.literal),
                        Step::AppendMore(line) => (Event::AppendMore(line.clone()), line.literal),
                        _ => unreachable!("matched above"),
                    };
                    let Some(literal) = literal else {
                        self.events.push(event);
                        continue;
                    };
                    let small = literal.size <= 1000;
                    self.events.push(event);
                    if !small {
                        self.framer.refuse_literal();
                        continue;
                    }
                    if !self.framer.accept_literal() {
                        continue;
                    }
                    Event::Continue
                }
                Step::Refused(refusal) => {
                    let fatal = refusal.fatal;
                    self.events.push(Event::Refused(refusal));
                    if fatal {
                        self.input.clear();
                        return;
                    }
                    continue;
                }
            };
            self.events.push(event);
        }
    }
}

fn events(bytes: impl AsRef<[u8]>) -> Vec<Event> {
    let mut session = Session::new();
    session.feed(bytes.as_ref());
    session.events
}
fn command(bytes: &str) -> Event {
    Event::Command(bytes.as_bytes().to_vec())
}
fn append_end() -> Event {
    Event::AppendMore(AppendLine { pieces: vec![], literal: None })
}
/// The flags and date of the only message that begins in a line.
fn begins(line: &AppendLine) -> (&[FlagArgument], Option<i64>) {
    match line.pieces.as_slice() {
        [AppendPiece::Message { flags, date }] => (flags, *date),
        other => panic!("{other:?}"),
    }
}
fn refusal(event: &Event) -> &Refusal {
    match event {
        Event::Refused(refusal) => refusal,
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn lines_end_in_crlf_or_a_bare_lf() {
    assert_eq!(events("a NOOP\r\nb NOOP\n\r\nc"), [command("a NOOP"), command("b NOOP"), command("")]);
}

#[test]
fn literals_are_gathered_and_announced_ones_continued() {
    assert_eq!(
        events("a LOGIN {3}\r\nada {4+}\r\na\r\nb\r\nb NOOP\r\n"),
        [Event::Continue, command("a LOGIN {3}\r\nada {4+}\r\na\r\nb"), command("b NOOP")]
    );
    assert_eq!(events("a LOGIN {0+}\n {0+}\n\n"), [command("a LOGIN {0+}\r\n {0+}\r\n")]);
}

#[test]
fn an_announced_literal_takes_no_memory() {
    let mut session = Session::new();
    session.framer.set_limits(Limits { line_bytes: 200, literal_bytes: usize::MAX, command_bytes: usize::MAX });
    session.feed(b"a LOGIN {9000000000000000000}\r\n");
    assert_eq!(session.events, [Event::Continue]);
    assert!(session.framer.command.capacity() < 1000);
}

#[test]
fn a_literal_is_never_read_as_a_command() {
    // Refused with its literal: what is inside must not run.
    let inside = format!("x LOGOUT\r\n{}", "y".repeat(140));
    let got = events(format!("a LOGIN {{150+}}\r\n{inside} {{10+}}\r\nz LOGOUT\r\nrest\r\nb NOOP\r\n"));
    assert_eq!(got.len(), 2, "{got:?}");
    assert_eq!((refusal(&got[0]).tag.as_deref(), refusal(&got[0]).fatal), (Some("a"), false));
    assert_eq!(got[1], command("b NOOP"));
}

#[test]
fn a_client_that_waits_is_told_bad_and_sends_nothing() {
    let got = events("a LOGIN {150}\r\nb NOOP\r\n");
    assert!(refusal(&got[0]).reason.contains("too large"), "{got:?}");
    assert_eq!(got[1], command("b NOOP"));
    let got = events("a LOGIN {99999999999999999999999}\r\nb NOOP\r\n");
    assert!(!refusal(&got[0]).fatal);
    assert_eq!(got[1], command("b NOOP"));
}

#[test]
fn an_endless_unasked_literal_ends_the_connection() {
    for size in ["99999999999999999999999", "9000000000"] {
        let got = events(format!("a LOGIN {{{size}+}}\r\nb NOOP\r\n"));
        assert_eq!(got.len(), 1);
        assert_eq!((refusal(&got[0]).tag.as_deref(), refusal(&got[0]).fatal), (Some("a"), true));
    }
    // Also where the number is so long that the kept end of a skipped line does not hold it.
    let got = events(format!("a {} {{{}5+}}\r\nb NOOP\r\n", "x".repeat(300), "0".repeat(50)));
    assert!(!refusal(&got[0]).fatal && refusal(&got[1]).fatal, "{got:?}");
}

#[test]
fn a_refused_command_is_skipped_with_its_literals() {
    let long = "x".repeat(300);
    let got = events(format!("a {long}\r\nb NOOP\r\nc {long} {{7+}}\r\nd NOOP\r {{3}}\r\ne NOOP\r\n"));
    assert_eq!(got.len(), 4, "{got:?}");
    assert_eq!(refusal(&got[0]).tag.as_deref(), Some("a"));
    assert_eq!(got[1], command("b NOOP"));
    assert_eq!(refusal(&got[2]).tag.as_deref(), Some("c"));
    assert_eq!(got[3], command("e NOOP"));
}

#[test]
fn a_line_without_end_is_refused_at_once_and_given_up_later() {
    let mut session = Session::new();
    session.feed(&b"a ".repeat(101));
    assert_eq!(refusal(&session.events[0]).tag.as_deref(), Some("a"));
    for _ in 0..1100 {
        session.feed(&[b'x'; 1024]);
        assert!(session.input.is_empty());
    }
    assert!(refusal(&session.events[1]).fatal);
}

#[test]
fn a_nul_in_a_line_is_refused_and_one_in_a_literal_is_the_parsers_affair() {
    let got = events("a NO\0OP {3+}\r\nb X\r\nc NOOP\r\nd X {1+}\r\n\0\r\n");
    assert!(refusal(&got[0]).reason.contains("NUL"));
    assert_eq!(got[1..], [command("c NOOP"), command("d X {1+}\r\n\0")]);
}

#[test]
fn all_parts_of_a_command_together_are_limited() {
    let literal = |size: usize| format!(" {{{size}+}}\r\n{}", "y".repeat(size));
    let got = events(format!("a X{}{}{}\r\nb NOOP\r\n", literal(90), literal(90), literal(100)));
    assert!(refusal(&got[0]).reason.contains("too large"), "{got:?}");
    assert_eq!(got[1..], [command("b NOOP")]);
    let got = events(format!("a X{}{}\r\nb NOOP\r\n", literal(90), literal(100)));
    assert_eq!(got.len(), 2, "{got:?}");
}

#[test]
fn a_message_is_streamed() {
    let mut session = Session::new();
    session.feed(b"a APPEND INBOX (\\Seen $x) \"17-Jul-1996 02:44:25 -0700\" {600}\r\n");
    let Event::Append(start) = &session.events[0] else { panic!("{:?}", session.events) };
    let (flags, date) = begins(&start.line);
    assert_eq!((start.tag.as_str(), flags.len(), date), ("a", 2, Some(837_596_665)));
    assert_eq!(start.line.literal, Some(LiteralHeader { size: 600, non_sync: false, binary: false }));
    assert_eq!(session.events[1], Event::Continue);
    assert!(!session.framer.is_idle());
    session.feed(&[b'm'; 599]);
    assert!(session.input.is_empty() && session.framer.command.is_empty());
    session.feed(b"m\r\nb NOOP\r\n");
    assert_eq!(session.events[2..], [Event::Message(vec![b'm'; 600]), append_end(), command("b NOOP")]);
    assert!(session.framer.is_idle());
}

#[test]
fn arguments_of_append_may_be_literals() {
    let got = events("a append {5+}\r\nINBOX ({5}\r\n\\Seen) ~{3+}\r\na\0b\r\nb NOOP\r\n");
    let [Event::Continue, Event::Append(start), Event::Message(message), end, Event::Command(_)] = &got[..] else { panic!("{got:?}") };
    assert_eq!((start.line.literal.map(|literal| literal.binary), message.as_slice(), end), (Some(true), &b"a\0b"[..], &append_end()));
    assert_eq!(begins(&start.line).0, [FlagArgument::System(index::Flag::Seen)]);
}

#[test]
fn a_refused_message_is_not_read_as_commands() {
    let body = "x LOGOUT\r\n".repeat(200);
    let got = events(format!("a APPEND INBOX {{2000+}}\r\n{body}\r\nb NOOP\r\nc APPEND INBOX {{2000}}\r\nd NOOP\r\n"));
    assert!(
        matches!(&got[..], [Event::Append(_), Event::Command(b), Event::Append(_), Event::Command(d)] if b == b"b NOOP" && d == b"d NOOP"),
        "{got:?}"
    );
}

#[test]
fn a_message_may_be_given_up_in_its_middle() {
    let mut framer = Framer::new(LIMITS);
    let mut input = BytesMut::from(&b"a APPEND INBOX {10}\r\n"[..]);
    assert!(matches!(framer.next(&mut input), Step::Append(_)));
    assert!(framer.accept_literal());
    input.extend_from_slice(b"01234");
    assert_eq!(framer.literal_chunk(&mut input).unwrap(), &b"01234"[..]);
    assert_eq!(framer.literal_chunk(&mut input), None);
    framer.refuse_literal();
    input.extend_from_slice(b"b X\r\n\r\nc NOOP\r\n");
    assert_eq!(framer.next(&mut input), Step::Command(Bytes::from_static(b"c NOOP")));
}

#[test]
fn what_append_does_not_offer_is_refused_clearly() {
    for (line, reason) in [
        ("a APPEND INBOX (\\Bogus) {3+}\r\nabc\r\n", "system flag"),
        ("a APPEND INBOX () \"31-Feb-2026 00:00:00 +0000\" {3+}\r\nabc\r\n", "date-time"),
    ] {
        let got = events(format!("{line}b NOOP\r\n"));
        assert!(refusal(&got[0]).reason.contains(reason), "{got:?}");
        assert_eq!(got[1..], [command("b NOOP")]);
    }
}

#[test]
fn raw_lines_are_taken_as_they_are() {
    let mut framer = Framer::new(LIMITS);
    let mut input = BytesMut::from(&b"AGFk{5}\r\nDONE\ntoo long for ten {3+}\r\nx\r\n*"[..]);
    assert_eq!(framer.next_line(&mut input, 10), LineStep::Line(Bytes::from_static(b"AGFk{5}")));
    assert_eq!(framer.next_line(&mut input, 10), LineStep::Line(Bytes::from_static(b"DONE")));
    assert_eq!(framer.next_line(&mut input, 10), LineStep::TooLong);
    assert_eq!(framer.next_line(&mut input, 10), LineStep::Line(Bytes::from_static(b"x")));
    assert_eq!(framer.next_line(&mut input, 10), LineStep::NeedInput);
}

#[test]
fn announcements_are_only_at_the_end() {
    for (line, expected) in [("{5}", Some((5, false, 3))), ("x {05+}", Some((5, true, 5))), ("~{7}", Some((7, false, 4)))] {
        assert_eq!(announcement(line.as_bytes()).map(|found| (found.size.unwrap(), found.non_sync, found.length)), expected);
    }
    for line in ["", "{}", "{+}", "{5", "5}", "{5} ", "{-5}", "{5++}", "{ 5}"] {
        assert_eq!(announcement(line.as_bytes()), None, "{line}");
    }
}

/// Pieces that make commands whole, broken and nested.
fn traffic() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("a NOOP".to_owned()),
        Just("\r\n".to_owned()),
        Just("\n".to_owned()),
        Just("\r".to_owned()),
        Just("\0".to_owned()),
        Just("b LOGIN {3+}\r\nada {2}\r\npw\r\n".to_owned()),
        Just("c APPEND INBOX (\\Seen) {5+}\r\nhello\r\n".to_owned()),
        Just("c APPEND {5+}\r\nINBOX {1200+}\r\n".to_owned()),
        Just("c APPEND x ".to_owned()),
        (0_u64..2000).prop_map(|size| format!("{{{size}}}\r\n")),
        (0_u64..2000).prop_map(|size| format!("{{{size}+}}\r\n")),
        Just("{99999999999999999999+}\r\n".to_owned()),
        (0_usize..400).prop_map(|length| "z".repeat(length)),
        "[ -~]{0,9}",
    ];
    proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn byte_by_byte_is_the_same_as_at_once(bytes in traffic(), cuts in proptest::collection::vec(1_usize..50, 1..20)) {
        let at_once = events(&bytes);
        let mut singly = Session::new();
        bytes.iter().for_each(|byte| singly.feed(&[*byte]));
        prop_assert_eq!(first_until_fatal(&at_once), first_until_fatal(&singly.events));
        let mut pieces = Session::new();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, next) = rest.split_at((*cut).min(rest.len()));
            pieces.feed(piece);
            rest = next;
        }
        prop_assert_eq!(first_until_fatal(&at_once), first_until_fatal(&pieces.events));
    }

    #[test]
    fn no_bytes_make_the_framer_panic_or_keep_more_than_its_limits(bytes: Vec<u8>, traffic in traffic()) {
        let mut session = Session::new();
        for piece in traffic.chunks(7).chain(bytes.chunks(3)) {
            session.feed(piece);
            prop_assert!(session.framer.command.len() <= LIMITS.command_bytes + 2);
            prop_assert!(session.input.len() <= LIMITS.line_bytes + 2);
        }
    }
}

fn first_until_fatal(events: &[Event]) -> &[Event] {
    let fatal = events.iter().position(|event| matches!(event, Event::Refused(Refusal { fatal: true, .. })));
    &events[..fatal.map_or(events.len(), |fatal| fatal + 1)]
}

#[test]
fn further_messages_of_an_append_have_flags_and_dates_of_their_own() {
    let got = events("a APPEND INBOX (\\Seen) {1+}\r\nx (\\Flagged k) \" 7-Feb-1994 22:43:04 -0800\" {2}\r\nyz {1+}\r\nw \r\nb NOOP\r\n");
    let literal = |size, non_sync| LiteralHeader { size, non_sync, binary: false };
    let begins =
        |flags, date, literal| Event::AppendMore(AppendLine { pieces: vec![AppendPiece::Message { flags, date }], literal: Some(literal) });
    let flags = vec![FlagArgument::System(index::Flag::Flagged), FlagArgument::Keyword("k".into())];
    let second = begins(flags, Some(760_689_784), literal(2, false));
    let third = begins(vec![], None, literal(1, true));
    assert!(matches!(got[0], Event::Append(_)));
    let message = |text: &str| Event::Message(text.as_bytes().to_vec());
    let expected = [message("x"), second, Event::Continue, message("yz"), third, message("w"), append_end(), command("b NOOP")];
    assert_eq!(got[1..], expected);
}

#[test]
fn rubbish_after_a_message_refuses_the_append_and_its_further_literals() {
    for rubbish in [" x {1+}", "{1+}", " (\\Seen) x {1+}", " \"31-Feb-2026 00:00:00 +0000\" {1+}", " () () {1+}"] {
        let got = events(format!("a APPEND INBOX {{1+}}\r\nx{rubbish}\r\ny {{3+}}\r\nz N\r\nb NOOP\r\n"));
        assert!(matches!(got[1], Event::Message(_)), "{rubbish}: {got:?}");
        assert_eq!(refusal(&got[2]).tag.as_deref(), Some("a"), "{rubbish}");
        assert_eq!(got[3..], [command("b NOOP")], "{rubbish}");
    }
    let got = events("a APPEND INBOX {1+}\r\nx y\r\nb NOOP\r\n");
    assert!(!refusal(&got[2]).fatal && got[3..] == [command("b NOOP")]);
}

#[test]
fn a_message_with_utf8_headers_stands_in_parentheses() {
    let got = events("a APPEND x UTF8 (~{1+}\r\ny)\r\nb APPEND x (\\Seen) UTF8 ({1+}\r\ny) (k) UTF8 (~{1+}\r\nz) {1+}\r\nw\r\nc NOOP\r\n");
    let literals = got.iter().filter(|event| matches!(event, Event::Message(_))).count();
    let begun = got.iter().filter(|event| matches!(event, Event::AppendMore(line) if !line.pieces.is_empty())).count();
    assert_eq!((literals, begun, got.last()), (4, 2, Some(&command("c NOOP"))), "{got:?}");
    for wrong in ["UTF8 (~{1+}\r\ny", "UTF8 ~{1+}\r\ny)", "UTF8 (x ~{1+}\r\ny)", "UTF8 (~{1+}\r\ny) UTF8", "UTF8 (~{1+}\r\ny))"] {
        let got = events(format!("a APPEND x {wrong}\r\nb NOOP\r\n"));
        let refused = got.iter().filter(|event| matches!(event, Event::Refused(_))).count();
        assert_eq!((refused, got.last()), (1, Some(&command("b NOOP"))), "{wrong}: {got:?}");
    }
}

#[test]
fn a_message_is_put_together_from_texts_and_urls() {
    let got = events(
        "a APPEND x (k) CATENATE (URL /y/;UID=1 TEXT {1+}\r\np URL {8+}\r\n/y/;UID= URL \"/z/;UID=2\" UTF8 (~{1+}\r\nq) TEXT {0+}\r\n) CATENATE (URL w)\r\nb NOOP\r\n",
    );
    let Event::Append(start) = &got[0] else { panic!("{got:?}") };
    assert!(matches!(&start.line.pieces[..], [AppendPiece::Message { .. }, AppendPiece::Url(url)] if url == "/y/;UID=1"), "{start:?}");
    let urls = |event: &Event| match event {
        Event::AppendMore(line) => {
            line.pieces.iter().map(|piece| if let AppendPiece::Url(url) = piece { url.clone() } else { "new".into() }).collect()
        }
        other => vec![format!("{other:?}")],
    };
    assert_eq!(urls(&got[2]), ["/y/;UID=", "/z/;UID=2"]);
    assert_eq!((&got[1], &got[3]), (&Event::Message(b"p".to_vec()), &Event::Message(b"q".to_vec())));
    assert_eq!(urls(&got[5]), ["new", "w"], "{got:?}");
    assert_eq!(got.last(), Some(&command("b NOOP")));
    let whole = "a APPEND x CATENATE (URL one URL two) (k) CATENATE (URL three)";
    assert_eq!(events(format!("{whole}\r\n")), [command(whole)]);
    for wrong in ["TEXT {1+}\r\ny", "URL y TEXT {1+}\r\nz z)", "TEXT {1+}\r\ny URL z", "BOGUS {1+}\r\ny)", "URLy {1+}\r\ny)"] {
        let got = events(format!("a APPEND x CATENATE ({wrong}\r\nb NOOP\r\n"));
        let refused = got.iter().filter(|event| matches!(event, Event::Refused(_))).count();
        assert_eq!((refused, got.last()), (1, Some(&command("b NOOP"))), "{wrong}: {got:?}");
    }
}

#[test]
fn a_flag_of_a_further_message_may_be_a_literal() {
    let got = events("a APPEND x {1+}\r\ny ({5}\r\n\\Seen) {1+}\r\nz\r\nb NOOP\r\n");
    let Event::AppendMore(second) = &got[3] else { panic!("{got:?}") };
    assert_eq!(begins(second).0, [FlagArgument::System(index::Flag::Seen)]);
    assert_eq!(got[5..], [append_end(), command("b NOOP")]);
}

#[test]
fn the_message_of_replace_is_streamed_like_that_of_append() {
    for (line, uid, message) in [
        ("a REPLACE 4 Drafts (\\Seen) {1+}\r\nx\r\n", false, SequenceBound::Number(4)),
        ("a uid replace * {6+}\r\nDrafts {1+}\r\nx\r\n", true, SequenceBound::Star),
    ] {
        let got = events(line);
        let Event::Append(start) = &got[0] else { panic!("{got:?}") };
        assert_eq!(start.replaces, Some(Replaced { uid, message }));
        assert_eq!(got[1..], [Event::Message(b"x".to_vec()), append_end()]);
    }
    for wrong in ["REPLACE 0 x {1+}\r\ny", "REPLACE 1:2 x {1+}\r\ny", "UID REPLACE x {1+}\r\ny", "REPLACE 4 {1+}\r\ny"] {
        let got = events(format!("a {wrong}\r\nb NOOP\r\n"));
        assert!(!got.iter().any(|event| matches!(event, Event::Append(_))) && got.last() == Some(&command("b NOOP")), "{got:?}");
    }
}
