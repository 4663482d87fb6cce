//! Known answers, then everything against imap-codec and against mutated lines.

mod corpus;
mod fuzz;
mod oracle;

use bytes::BytesMut;
use index::Flag;
use storage::{
    SpecialUse,
    mime::{Section, SectionText},
};

use super::*;
use crate::imap::wire::{
    command::{
        AppendLine, AppendPiece, Date, FetchItem, FlagArgument, List, PartialRange, Resync, Search, SearchKey, SearchReturn, Select,
        SequenceBound, SequenceRange, SequenceSet, StatusItem, StoreHow,
    },
    framing::{Framer, Limits, Step},
};

pub(super) const OPTIONS: Options = Options { enabled: Enabled::NOTHING, nesting: 50 };

fn read(line: &str) -> Command {
    match parse(line.as_bytes(), OPTIONS) {
        Ok(tagged) => tagged.command,
        Err(error) => panic!("{line}: {error:?}"),
    }
}
fn complaint(line: &str) -> ParseError {
    match parse(line.as_bytes(), OPTIONS) {
        Err(error) => error,
        Ok(tagged) => panic!("{line} was read as {tagged:?}"),
    }
}
fn mailbox(name: &str) -> MailboxArgument {
    MailboxArgument::Valid(MailboxName::parse(name).unwrap())
}
fn set(numbers: &[(u32, u32)]) -> SequenceSet {
    let bound = |number| if number == 0 { SequenceBound::Star } else { SequenceBound::Number(number) };
    SequenceSet::Ranges(numbers.iter().map(|(low, high)| SequenceRange { low: bound(*low), high: bound(*high) }).collect())
}
fn system(flag: Flag) -> SearchKey {
    SearchKey::Flag(FlagArgument::System(flag))
}

#[test]
fn every_command_of_the_corpus_is_read() {
    for line in corpus::COMMANDS {
        read(line);
    }
}

#[test]
fn the_framer_hands_on_what_the_client_sent() {
    for end in ["\r\n", "\n"] {
        let mut framer = Framer::new(Limits { line_bytes: 1000, literal_bytes: 100, command_bytes: 2000 });
        let mut input = BytesMut::from(corpus::COMMANDS.join(end).as_str());
        input.extend_from_slice(end.as_bytes());
        for line in corpus::COMMANDS {
            let command = loop {
                match framer.next(&mut input) {
                    Step::Continue { .. } => {}
                    Step::Command(command) => break command,
                    other => panic!("{line}: {other:?}"),
                }
            };
            assert_eq!(command, line.as_bytes());
        }
        assert!(input.is_empty() && framer.is_idle());
    }
}

#[test]
fn complaints_say_what_and_where() {
    for (line, tag, reason) in [
        ("", None, "expected a tag at byte 1, found the end of the command"),
        ("* NOOP", None, "expected a tag at byte 1, found \"*\""),
        ("a", Some("a"), "expected a space at byte 2, found the end of the command"),
        ("a NOOP now", Some("a"), "expected the end of the command at byte 8, found \"n\""),
        ("a FROBNICATE", Some("a"), "unknown command FROBNICATE"),
        ("a UID NOOP", Some("a"), "unknown command UID NOOP"),
        ("a SELECT", Some("a"), "expected a space at byte 9, found the end of the command"),
        ("a FETCH 0 FLAGS", Some("a"), "expected a message number or \"*\" at byte 9: a number from 1 to 4294967295"),
        ("a FETCH 1 (FLAGS BOGUS)", Some("a"), "expected a FETCH item such as FLAGS or BODY[] at byte 18, found \"B\""),
        ("a LOGIN ada \"hunter2", Some("a"), "expected the closing double quote at byte 21, found the end of the command"),
        ("a APPEND INBOX", Some("a"), "expected a space at byte 15, found the end of the command"),
        ("a APPEND INBOX (\\Seen) ", Some("a"), "APPEND ends with the message as a literal, as in {310}"),
        ("a SEARCH LARGER 9223372036854775808", Some("a"), "the number at byte 17 is too large"),
    ] {
        let error = complaint(line);
        assert_eq!((error.tag.as_deref(), error.reason.as_str(), error.kind), (tag, reason, ParseErrorKind::Bad), "{line}");
    }
    assert!(!complaint("a LOGIN ada hunter2 x").reason.contains("hunter2"));
}

#[test]
fn what_real_clients_send_is_tolerated() {
    assert_eq!(read("a noop "), Command::Noop);
    assert_eq!(read("A001  Select  INBOX "), read("A001 SELECT inbox"));
    assert_eq!(read("a uid fetch 1:* (FLAGS )"), read("a UID FETCH 1:* FLAGS"));
    assert_eq!(read("a SELECT [x]"), Command::Select(Select { mailbox: mailbox("[x]"), read_only: false, condstore: false, resync: None }));
    assert_eq!(read("a FETCH 1 (UID FAST)"), read("a FETCH 1 (UID FLAGS INTERNALDATE RFC822.SIZE)"));
    assert_eq!(read("a SEARCH SINCE 1-feb-2026"), read("a SEARCH SINCE \" 1-Feb-2026\""));
    assert_eq!(read("a STORE 1 +FLAGS \\Seen"), read("a STORE 1 +flags (\\seen)"));
    assert_eq!(read("a FETCH 1 body.peek[header.fields (date from)]"), read("a FETCH 1 BODY.PEEK[HEADER.FIELDS (\"Date\" \"From\")]"));
}

#[test]
fn strings_may_be_atoms_quoted_or_literals() {
    let expected = Command::Login { user: b"a\"b".to_vec(), password: b"x\\y".to_vec() };
    assert_eq!(read(r#"a LOGIN "a\"b" "x\\y""#), expected);
    assert_eq!(read("a LOGIN {3}\r\na\"b {3+}\r\nx\\y"), expected);
    assert_eq!(read("a LOGIN {3+}\na\"b {3}\nx\\y"), expected);
    assert_eq!(read("a LOGIN \"\" {0}\r\n"), Command::Login { user: vec![], password: vec![] });
    for line in ["a LOGIN a {3}\r\nab", "a LOGIN a {1}x", "a LOGIN a \"\\n\"", "a LOGIN a {2}\r\n\0x", "a LOGIN a é", "a LOGIN a b*"] {
        complaint(line);
    }
}

#[test]
fn sasl_responses_are_decoded() {
    let plain = |initial: Option<&[u8]>| Command::Authenticate { mechanism: "PLAIN".to_owned(), initial: initial.map(Vec::from) };
    assert_eq!(read("a AUTHENTICATE plain"), plain(None));
    assert_eq!(read("a AUTHENTICATE PLAIN ="), plain(Some(b"")));
    assert_eq!(read("a AUTHENTICATE PLAIN AGFkYQB4"), plain(Some(b"\0ada\0x")));
    complaint("a AUTHENTICATE PLAIN AGFkYQB4 x");
    assert_eq!(complaint("a AUTHENTICATE PLAIN !").reason, "the initial response is not valid base64");
    assert_eq!(sasl_line(b"*"), SaslLine::Cancel);
    assert_eq!(sasl_line(b""), SaslLine::Response(vec![]));
    assert_eq!(sasl_line(b"YQ"), SaslLine::Response(b"a".to_vec()));
    assert_eq!(sasl_line(b"YQ=="), SaslLine::Response(b"a".to_vec()));
    assert_eq!(sasl_line(b"=A"), SaslLine::Malformed);
}

#[test]
fn mailbox_names_are_decoded_or_kept_as_impossible() {
    let name = |line: &str, options| match parse(line.as_bytes(), options) {
        Ok(Tagged { command: Command::Delete(name), .. }) => name,
        other => panic!("{other:?}"),
    };
    let utf8 = Options { enabled: Enabled { utf8_accept: true, ..Enabled::NOTHING }, ..OPTIONS };
    assert_eq!(name("a DELETE Entw&APw-rfe", OPTIONS), mailbox("Entwürfe"));
    assert_eq!(name("a DELETE \"Entwürfe\"", utf8), mailbox("Entwürfe"));
    assert_eq!(name("a DELETE iNbOx", OPTIONS), MailboxArgument::Valid(MailboxName::inbox()));
    for line in ["a DELETE Entw&AP", "a DELETE \"Entwürfe\"", "a DELETE &AGE-", "a DELETE \"\"", "a DELETE a//b"] {
        assert!(matches!(name(line, OPTIONS), MailboxArgument::Impossible(_)), "{line}");
    }
    // RFC 6855 §3: BAD, wherever it stands.
    assert!(parse(b"a DELETE \"\xff\"", utf8).is_err() && parse(b"a SEARCH SUBJECT \"a\\\"\xff\"", utf8).is_err());
    let rev2 = Options { enabled: Enabled { rev2: true, ..Enabled::NOTHING }, ..OPTIONS };
    let renamed = MailboxArgument::Renamed { name: MailboxName::inbox(), written: "iNbOx".to_owned() };
    assert_eq!(name("a DELETE iNbOx", rev2), renamed);
    assert_eq!(name("a DELETE \"Entwu\u{308}rfe\"", utf8), mailbox("Entwürfe"));
    assert!(matches!(name("a DELETE \"Entwu\u{308}rfe\"", rev2), MailboxArgument::Renamed { name, .. } if name.as_str() == "Entwürfe"));
}

#[test]
fn create_takes_a_special_use_and_a_trailing_separator() {
    assert_eq!(
        read("a CREATE Sent/ (USE (\\Sent \\sent))"),
        Command::Create { mailbox: mailbox("Sent"), special_use: vec![SpecialUse::Sent] }
    );
    assert_eq!(complaint("a CREATE x (USE (\\Important))").kind, ParseErrorKind::UnknownUse);
    complaint("a CREATE x (QUOTA 1)");
}

#[test]
fn list_knows_its_extensions() {
    let plain = List { patterns: vec!["*".to_owned()], ..List::default() };
    assert_eq!(read("a LIST \"\" *"), Command::List(plain.clone()));
    assert_eq!(
        read("a LIST (SUBSCRIBED RECURSIVEMATCH) \"\" (% \"Sent Items\") RETURN (CHILDREN STATUS (MESSAGES SIZE) SPECIAL-USE)"),
        Command::List(List {
            patterns: vec!["%".to_owned(), "Sent Items".to_owned()],
            select_subscribed: true,
            select_recursive_match: true,
            return_subscribed: true,
            return_children: true,
            return_special_use: true,
            return_status: Some(vec![StatusItem::Messages, StatusItem::Size]),
            extended: true,
            ..plain.clone()
        })
    );
    assert_eq!(read("a LIST () \"\" * RETURN ()"), Command::List(List { extended: true, ..plain.clone() }));
    assert_eq!(read("a LIST \"\" Entw&APw-%"), Command::List(List { patterns: vec!["Entwü%".to_owned()], ..plain.clone() }));
    assert_eq!(read("a LIST \"\" &%"), Command::List(List { patterns: vec!["\0".to_owned()], ..plain }));
    for line in [
        "a LIST (RECURSIVEMATCH REMOTE) \"\" *",
        "a LIST \"\" ()",
        "a LIST \"\" * RETURN (BOGUS)",
        "a LIST \"\" * RETURN",
        "a LIST (X) \"\" *",
    ] {
        complaint(line);
    }
    complaint(&format!("a LIST \"\" ({})", "% ".repeat(33)));
}

#[test]
fn fetch_sections_repeat_their_name() {
    let section = |line: &str| match read(line) {
        Command::Fetch { items, .. } => match items.into_iter().next() {
            Some(FetchItem::Section { section, peek, partial, name }) => (section, peek, partial, name),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let fields = |names: &[&str]| SectionText::HeaderFields(names.iter().map(|name| (*name).to_owned()).collect());
    for (line, part, text, peek, partial, name) in [
        ("a FETCH 1 BODY[]", vec![], SectionText::Whole, false, None, ""),
        ("a FETCH 1 BODY.PEEK[]<0.100>", vec![], SectionText::Whole, true, Some((0, 100)), ""),
        ("a FETCH 1 BODY[1.2.mime]", vec![1, 2], SectionText::Mime, false, None, "1.2.MIME"),
        ("a FETCH 1 BODY[4.1]<5000000000.1>", vec![4, 1], SectionText::Whole, false, Some((5_000_000_000, 1)), "4.1"),
        ("a FETCH 1 BODY[3.HEADER]", vec![3], SectionText::Header, false, None, "3.HEADER"),
        ("a FETCH 1 BODY[text]", vec![], SectionText::Text, false, None, "TEXT"),
        ("a FETCH 1 BODY[HEADER.FIELDS (from X-Ab)]", vec![], fields(&["FROM", "X-AB"]), false, None, "HEADER.FIELDS (FROM X-AB)"),
        ("a FETCH 1 BODY[header.fields (\"a b\" {1}\r\n\")]", vec![], fields(&["A B", "\""]), false, None, r#"HEADER.FIELDS ("A B" "\"")"#),
        (
            "a FETCH 1 BODY[2.HEADER.FIELDS.NOT (TO)]",
            vec![2],
            SectionText::HeaderFieldsNot(vec!["TO".to_owned()]),
            false,
            None,
            "2.HEADER.FIELDS.NOT (TO)",
        ),
    ] {
        assert_eq!(section(line), (Section { part, text }, peek, partial, name.to_owned()), "{line}");
    }
    for item in [
        "BODY[MIME]",
        "BODY[0]",
        "BODY[1.0]",
        "BODY[1.]",
        "BODY[HEADER.FIELDS]",
        "BODY[HEADER.FIELDS ()]",
        "BODY[]<0.0>",
        "BODY[]<0>",
        "BODY[",
        "BODY.PEEK",
        "BODY[HEADER.FIELDS ({2}\r\n\r\n)]",
        "()",
    ] {
        complaint(&format!("a FETCH 1 {item}"));
    }
}

#[test]
fn fetch_asks_for_each_item_once_and_for_few() {
    let Command::Fetch { items, .. } = read(&format!("a FETCH 1 ({})", "UID BODY[] FLAGS BODY[] ".repeat(1000))) else { panic!() };
    assert_eq!(items.len(), 3);
    let many: Vec<String> = (1..300).map(|part| format!("BODY[{part}]")).collect();
    assert_eq!(complaint(&format!("a FETCH 1 ({})", many.join(" "))).reason, "FETCH has more than 256 items");
}

#[test]
fn condstore_has_its_modifiers() {
    assert_eq!(
        read("a SELECT x (CONDSTORE)"),
        Command::Select(Select { mailbox: mailbox("x"), read_only: false, condstore: true, resync: None })
    );
    assert_eq!(
        read("a UID FETCH 1:* FLAGS (CHANGEDSINCE 12 VANISHED)"),
        Command::Fetch {
            uid: true,
            set: set(&[(1, 0)]),
            items: vec![FetchItem::Flags],
            changed_since: Some(12),
            vanished: true,
            partial: None
        }
    );
    let Command::Fetch { partial, .. } = read("a UID FETCH 25900:26600 (UID FLAGS) (PARTIAL -1:-30 CHANGEDSINCE 98305)") else { panic!() };
    assert_eq!(partial, Some(PartialRange { one: 1, other: 30, from_end: true }));
    for refused in ["a FETCH 1:* FLAGS (PARTIAL 1:2)", "a UID FETCH 1:* FLAGS (PARTIAL 1:2 PARTIAL 1:2)"] {
        assert!(complaint(refused).reason.contains("PARTIAL"), "{refused}");
    }
    assert_eq!(
        read("a STORE 1,3 (UNCHANGEDSINCE 0) -FLAGS.SILENT ()"),
        Command::Store {
            uid: false,
            set: set(&[(1, 1), (3, 3)]),
            unchanged_since: Some(0),
            how: StoreHow::Remove,
            silent: true,
            flags: vec![]
        }
    );
    // The examples of RFC 7162 §3.2.5.
    let resync = |line: &str| match read(line) {
        Command::Select(Select { resync: Some(resync), condstore: false, .. }) => resync,
        other => panic!("{other:?}"),
    };
    let known = Some(set(&[(41, 41), (43, 211), (214, 541)]));
    let expected = Resync { uid_validity: 67_890_007, modseq: 20_050_715_194_045_000, known, matches: None };
    assert_eq!(resync("A02 SELECT INBOX (QRESYNC (67890007 20050715194045000 41,43:211,214:541))"), expected);
    let matches = resync("A04 SELECT INBOX (QRESYNC (67890007 90060115194045000 41:211,214:541 (1,3,5 41,43,50)))").matches;
    assert_eq!(matches, Some((set(&[(1, 1), (3, 3), (5, 5)]), set(&[(41, 41), (43, 43), (50, 50)]))));
    for line in ["a SELECT x (QRESYNC (1))", "a FETCH 1 FLAGS (VANISHED)", "a UID FETCH 1 FLAGS (VANISHED)", "a STORE 1 (X 1) FLAGS ()"] {
        complaint(line);
    }
}

#[test]
fn flags_are_those_a_client_may_set() {
    for line in [
        "a STORE 1 FLAGS (\\Recent)",
        "a STORE 1 FLAGS (\\*)",
        "a STORE 1 FLAGS (\\Bogus)",
        "a STORE 1 FLAGS (a])",
        "a STORE 1 FLAGS",
        "a STORE 1 FLAG ()",
    ] {
        complaint(line);
    }
    let Command::Store { flags, how, .. } = read("a STORE 1 FLAGS ($Forwarded \\deleted NonJunk)") else { panic!() };
    assert_eq!(how, StoreHow::Replace);
    assert_eq!(
        flags,
        [FlagArgument::Keyword("$Forwarded".to_owned()), FlagArgument::System(Flag::Deleted), FlagArgument::Keyword("NonJunk".to_owned())]
    );
}

#[test]
fn search_keys_are_read() {
    let search = |line: &str| match read(line) {
        Command::Search { search, .. } => search,
        other => panic!("{other:?}"),
    };
    let key = |line: &str| search(line).key;
    let not = |key| SearchKey::Not(Box::new(key));
    assert_eq!(key("a SEARCH ALL"), SearchKey::All);
    assert_eq!(
        key("a SEARCH UNSEEN 2:4 (FROM ada OR OLD NEW)"),
        SearchKey::And(vec![
            not(system(Flag::Seen)),
            SearchKey::Sequence(set(&[(2, 4)])),
            SearchKey::And(vec![
                SearchKey::Header { field: "from".to_owned(), value: "ada".to_owned() },
                SearchKey::Or(Box::new(not(SearchKey::Recent)), Box::new(SearchKey::New)),
            ]),
        ])
    );
    assert_eq!(key("a SEARCH UID 7,9:*"), SearchKey::Uid(set(&[(7, 7), (9, 0)])));
    assert_eq!(key("a SEARCH HEADER Message-ID \"\""), SearchKey::Header { field: "Message-ID".to_owned(), value: String::new() });
    assert_eq!(key("a SEARCH SENTON 07-Mar-2026"), SearchKey::SentOn(Date { year: 2026, month: 3, day: 7 }));
    assert_eq!(key("a SEARCH YOUNGER 3600"), SearchKey::Younger(3600));
    assert_eq!(key("a SEARCH LARGER 5000000000"), SearchKey::Larger(5_000_000_000));
    assert_eq!(key("a SEARCH MODSEQ \"/flags/\\\\draft\" all 620162338"), SearchKey::ModSeq(620_162_338));
    assert_eq!(key("a SEARCH MODSEQ 7"), SearchKey::ModSeq(7));
    assert_eq!(key("a SEARCH UNKEYWORD $Junk"), not(SearchKey::Flag(FlagArgument::Keyword("$Junk".to_owned()))));
    for line in [
        "a SEARCH",
        "a SEARCH ()",
        "a SEARCH BOGUS",
        "a SEARCH NOT",
        "a SEARCH OR ALL",
        "a SEARCH ON 30-Feb-2026",
        "a SEARCH OLDER 0",
        "a SEARCH 0",
        "a SEARCH FROM",
        "a SEARCH (ALL",
    ] {
        complaint(line);
    }
}

#[test]
fn the_examples_of_rfc_9738_are_read() {
    let key = |line: &str| match read(line) {
        Command::Search { search: Search { key, .. }, uid: true } => key,
        other => panic!("{other:?}"),
    };
    let not = |key| SearchKey::Not(Box::new(key));
    let undeleted = || not(system(Flag::Deleted));
    let uids = |low, high| SearchKey::Uid(SequenceSet::of(low, high));
    assert_eq!(key("04 UID SEARCH UID 22000:25000 UNDELETED"), SearchKey::And(vec![uids(22_000, 25_000), undeleted()]));
    assert_eq!(key("12 UID SEARCH UIDAFTER 25000 UNDELETED"), SearchKey::And(vec![uids(25_001, u32::MAX), undeleted()]));
    assert_eq!(key("12 UID SEARCH uidbefore 25000"), uids(1, 24_999));
    assert_eq!(key("12 UID SEARCH UIDAFTER 4294967295"), not(SearchKey::All));
    assert_eq!(key("12 UID SEARCH UIDBEFORE 1"), not(SearchKey::All));
    for refused in ["UIDAFTER *", "UIDAFTER 1:2", "UIDAFTER 0", "UIDBEFORE $", "UIDBEFORE"] {
        complaint(&format!("a UID SEARCH {refused}"));
    }
    for (line, uid) in [
        ("03 FETCH 10000:14589 (UID FLAGS)", false),
        ("05 UID COPY 18000:21000 \"Trash\"", true),
        ("06 UID MOVE 18000:21000 \"Archive/2021/2021-12\"", true),
        ("07 UID STORE 18000:20000 +FLAGS (\\Seen)", true),
        ("08 UID EXPUNGE 11000:13000", true),
        ("10 UID FETCH 22000:25000 (UID FLAGS MODSEQ) (PARTIAL -1:-1500)", true),
        ("D0004 UID SEARCH RETURN (SAVE) SINCE 1-Jan-2004 NOT FROM \"Smith\" UID 22000:25000 UNDELETED", true),
    ] {
        let named = match read(line) {
            Command::Fetch { uid, .. }
            | Command::Copy { uid, .. }
            | Command::Move { uid, .. }
            | Command::Store { uid, .. }
            | Command::Search { uid, .. } => uid,
            Command::UidExpunge(_) => true,
            other => panic!("{other:?}"),
        };
        assert_eq!(named, uid, "{line}");
    }
}

#[test]
fn search_returns_what_is_asked_for() {
    let returned = |line: &str| match read(line) {
        Command::Search { search: Search { return_options, .. }, .. } => return_options,
        other => panic!("{other:?}"),
    };
    assert_eq!(returned("a SEARCH ALL"), None);
    assert_eq!(returned("a SEARCH RETURN () ALL"), Some(vec![]));
    assert_eq!(returned("a UID SEARCH RETURN (MIN count MIN) CHARSET UTF-8 ALL"), Some(vec![SearchReturn::Min, SearchReturn::Count]));
    assert_eq!(returned("a SEARCH RETURN (SAVE) ALL"), Some(vec![SearchReturn::Save]));
    let partial = |one, other, from_end| Some(vec![SearchReturn::Partial(PartialRange { one, other, from_end })]);
    assert_eq!(returned("a UID SEARCH RETURN (PARTIAL 23500:24000) UNDELETED UNKEYWORD $Junk"), partial(23_500, 24_000, false));
    assert_eq!(returned("a UID SEARCH RETURN (partial -100:-1) ALL"), partial(100, 1, true));
    for refused in ["PARTIAL 1:2 ALL", "PARTIAL 1:2 PARTIAL 3:4", "PARTIAL 0:2", "PARTIAL -1:2", "PARTIAL 1:*", "PARTIAL 1", "PARTIAL"] {
        assert_eq!(complaint(&format!("a SEARCH RETURN ({refused}) ALL")).kind, ParseErrorKind::Bad, "{refused}");
    }
    let saving = complaint("a SEARCH RETURN (SAVE) CHARSET UTF-7 ALL");
    assert!(matches!(saving.kind, ParseErrorKind::BadCharsetForSaving(_)));
}

#[test]
fn search_strings_are_decoded_from_their_charset() {
    let subject = |line: &[u8]| match parse(line, OPTIONS) {
        Ok(Tagged { command: Command::Search { search: Search { key: SearchKey::Header { value, .. }, .. }, .. }, .. }) => Ok(value),
        Err(error) => Err(error),
        other => panic!("{other:?}"),
    };
    assert_eq!(subject(b"a SEARCH CHARSET ISO-8859-1 SUBJECT \"caf\xe9\"").unwrap(), "café");
    assert_eq!(subject("a SEARCH CHARSET utf-8 SUBJECT {5}\r\ncafé".as_bytes()).unwrap(), "café");
    assert_eq!(subject("a SEARCH SUBJECT \"café\"".as_bytes()).unwrap(), "café");
    assert_eq!(subject(b"a SEARCH CHARSET SHIFT_JIS SUBJECT {4}\r\n\x93\xfa\x96\x7b").unwrap(), "日本");
    assert_eq!(subject(b"a SEARCH CHARSET UTF-8 SUBJECT {1}\r\n\xe9").unwrap_err().kind, ParseErrorKind::Bad);
    assert_eq!(subject(b"a SEARCH SUBJECT {1}\r\n\xe9").unwrap_err().kind, ParseErrorKind::Bad);
    for charset in ["X-NONE", "UTF-7", "UTF-16", "ISO-2022-KR", "x-user-defined"] {
        let error = subject(format!("a SEARCH CHARSET {charset} SUBJECT x").as_bytes()).unwrap_err();
        assert!(matches!(error.kind, ParseErrorKind::BadCharset(offered) if offered.contains(&"UTF-8")), "{charset}");
    }
    let utf8 = Options { enabled: Enabled { utf8_accept: true, ..Enabled::NOTHING }, ..OPTIONS };
    assert!(parse(b"a SEARCH CHARSET UTF-8 ALL", utf8).is_err());
}

#[test]
fn nesting_is_limited() {
    for deep in ["NOT ".repeat(50) + "ALL", "(".repeat(50) + "ALL" + &")".repeat(50), "OR ALL ".repeat(50) + "ALL"] {
        read(&format!("a SEARCH {deep}"));
    }
    for deeper in ["NOT ".repeat(51) + "ALL", "(".repeat(100_000), "OR ".repeat(100_000)] {
        assert_eq!(complaint(&format!("a SEARCH {deeper}")).reason, "the search keys are nested deeper than 50 levels");
    }
    let unlimited = Options { nesting: usize::MAX, ..OPTIONS };
    let deepest = "(NOT OR ALL ".repeat(100_000);
    assert!(parse(format!("a SEARCH {deepest}").as_bytes(), unlimited).is_err());
}

#[test]
fn ids_are_few() {
    assert_eq!(read("a ID NIL"), Command::Id(None));
    assert_eq!(
        read("a ID (\"name\" \"x\" \"os\" nil)"),
        Command::Id(Some(vec![(b"name".to_vec(), Some(b"x".to_vec())), (b"os".to_vec(), None)]))
    );
    complaint(&format!("a ID ({})", "\"a\" NIL ".repeat(31)));
    complaint("a ID (\"a\")");
    complaint("a ID");
}

#[test]
fn tags_are_of_bounded_length() {
    assert!(parse(format!("{} NOOP", "x".repeat(128)).as_bytes(), OPTIONS).is_ok());
    assert_eq!(complaint(&format!("{} NOOP", "x".repeat(129))).tag, None);
    assert_eq!(complaint("a+b NOOP").tag.as_deref(), Some("a"));
}
