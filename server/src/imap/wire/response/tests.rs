//! Known answers, and imap-codec as the judge: what it can read of what we write, it must read whole.

use imap_codec::{GreetingCodec, ResponseCodec, decode::Decoder};
use imap_types::response::{Code as TheirCode, Data, Response, Status, StatusBody, StatusKind};
use index::{Flag, FlagSet, KeywordId, UidValidity};
use proptest::prelude::*;

use super::*;
use crate::imap::wire::enabled::Enabled;

fn written(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::new();
    write(&mut out);
    out.to_vec()
}

/// What was written, after imap-codec read all of it as one response.
fn judged(write: impl FnOnce(&mut BytesMut)) -> String {
    let bytes = written(write);
    let text = String::from_utf8(bytes.clone()).unwrap();
    match ResponseCodec::default().decode(&bytes) {
        Ok((b"", _)) => text,
        other => panic!("imap-codec does not understand {text}: {other:?}"),
    }
}

fn uid(number: u32) -> Uid {
    Uid::new(number).unwrap()
}
fn modseq(number: u64) -> ModSeq {
    ModSeq::new(number).unwrap()
}
fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn status_responses_say_tag_code_and_text() {
    assert_eq!(judged(|out| tagged(out, "a1", Condition::Ok, None, "done")), "a1 OK done\r\n");
    assert_eq!(
        judged(|out| tagged(out, "a1", Condition::No, Some(&Code::TryCreate), "no such mailbox")),
        "a1 NO [TRYCREATE] no such mailbox\r\n"
    );
    assert_eq!(judged(|out| untagged(out, Condition::Bad, None, format_args!("{} wrong", 3))), "* BAD 3 wrong\r\n");
    assert_eq!(judged(|out| bye(out, Some(&Code::Unavailable), "later")), "* BYE [UNAVAILABLE] later\r\n");
    assert_eq!(judged(|out| continuation(out, "go on")), "+ go on\r\n");
    assert_eq!(judged(|out| challenge(out, b"Username:")), "+ VXNlcm5hbWU6\r\n");
    assert_eq!(written(|out| challenge(out, b"")), b"+ \r\n");
    let greeting = written(|out| untagged(out, Condition::Ok, Some(&Code::Capability(&["IMAP4rev1", "IDLE"])), "ready"));
    assert!(matches!(GreetingCodec::default().decode(&greeting), Ok((b"", _))));
}

#[test]
fn every_code_can_be_read() {
    let keywords = strings(&["$Forwarded", "NonJunk"]);
    let pairs = [(uid(304), uid(3956)), (uid(319), uid(3957)), (uid(320), uid(3958))];
    let validity = UidValidity::new(38505).unwrap();
    for (code, expected) in [
        (Code::Alert, "ALERT"),
        (Code::AlreadyExists, "ALREADYEXISTS"),
        (Code::AppendUid { validity, uids: &[uid(3955)] }, "APPENDUID 38505 3955"),
        (Code::AuthenticationFailed, "AUTHENTICATIONFAILED"),
        (Code::AuthorizationFailed, "AUTHORIZATIONFAILED"),
        (Code::BadCharset(&["US-ASCII", "UTF-8"]), "BADCHARSET (US-ASCII UTF-8)"),
        (Code::Cannot, "CANNOT"),
        (Code::NotificationOverflow, "NOTIFICATIONOVERFLOW"),
        (Code::NoUpdate("B02"), "NOUPDATE \"B02\""),
        (Code::MessageLimit { limit: 1000, lowest: Uid::new(23221) }, "MESSAGELIMIT 1000 23221"),
        (Code::MessageLimit { limit: 1000, lowest: None }, "MESSAGELIMIT 1000"),
        (Code::Capability(&["IMAP4rev1", "UIDPLUS"]), "CAPABILITY IMAP4rev1 UIDPLUS"),
        (Code::ClientBug, "CLIENTBUG"),
        (Code::Closed, "CLOSED"),
        (Code::ContactAdmin, "CONTACTADMIN"),
        (Code::CopyUid { validity, pairs: &pairs }, "COPYUID 38505 304,319:320 3956:3958"),
        (Code::Corruption, "CORRUPTION"),
        (Code::ExpungeIssued, "EXPUNGEISSUED"),
        (Code::HasChildren, "HASCHILDREN"),
        (Code::BadUrl("/INBOX/;UID=113330/;section=1.5.9]\r\n"), "BADURL /INBOX/;UID=113330/;section=1.5.9???"),
        (Code::InProgress { tag: "A001", of: Some((454, 1000)) }, "INPROGRESS (\"A001\" 454 1000)"),
        (Code::InProgress { tag: "A\"1", of: None }, "INPROGRESS (\"A\\\"1\" NIL NIL)"),
        (Code::HighestModSeq(modseq(715_194_045_007)), "HIGHESTMODSEQ 715194045007"),
        (Code::InUse, "INUSE"),
        (Code::Limit, "LIMIT"),
        (Code::MailboxId("F2212ea87-6097-4256-9d51-71338625"), "MAILBOXID (F2212ea87-6097-4256-9d51-71338625)"),
        (Code::MetadataLongEntries(2199), "METADATA LONGENTRIES 2199"),
        (Code::MetadataMaxSize(1024), "METADATA MAXSIZE 1024"),
        (Code::MetadataTooMany, "METADATA TOOMANY"),
        (Code::Modified(&[7, 9, 10]), "MODIFIED 7,9:10"),
        (Code::NoModSeq, "NOMODSEQ"),
        (Code::Nonexistent, "NONEXISTENT"),
        (Code::NoPerm, "NOPERM"),
        (Code::OverQuota, "OVERQUOTA"),
        (Code::Parse, "PARSE"),
        (
            Code::PermanentFlags { system: index::FlagSet::from_bits(u64::MAX), keywords: &keywords, more: true },
            "PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Forwarded NonJunk \\*)",
        ),
        (Code::NoPermanentFlags, "PERMANENTFLAGS ()"),
        (Code::PrivacyRequired, "PRIVACYREQUIRED"),
        (Code::ReadOnly, "READ-ONLY"),
        (Code::ReadWrite, "READ-WRITE"),
        (Code::ServerBug, "SERVERBUG"),
        (Code::TooBig, "TOOBIG"),
        (Code::TryCreate, "TRYCREATE"),
        (Code::UidNext(4392), "UIDNEXT 4392"),
        (Code::UidValidity(validity), "UIDVALIDITY 38505"),
        (Code::Unavailable, "UNAVAILABLE"),
        (Code::UnknownCte, "UNKNOWN-CTE"),
        (Code::UndefinedFilter("on-the-road"), "UNDEFINED-FILTER on-the-road"),
        (Code::Unseen(12), "UNSEEN 12"),
        (Code::UseAttr, "USEATTR"),
    ] {
        assert_eq!(judged(|out| tagged(out, "a", Condition::Ok, Some(&code), "x")), format!("a OK [{expected}] x\r\n"));
    }
}

#[test]
fn codes_with_numbers_mean_what_we_mean() {
    let bytes = written(|out| untagged(out, Condition::Ok, Some(&Code::UidNext(4392)), "predicted"));
    let Ok((_, Response::Status(Status::Untagged(StatusBody { kind, code: Some(code), text })))) = ResponseCodec::default().decode(&bytes)
    else {
        panic!()
    };
    assert_eq!((kind, code, text.inner()), (StatusKind::Ok, TheirCode::UidNext(4392.try_into().unwrap()), "predicted"));
}

#[test]
fn hostile_texts_stay_one_line() {
    let text = |text: &str| judged(|out| tagged(out, "a", Condition::No, None, text));
    assert_eq!(text("x\r\n* BYE y"), "a NO x  * BYE y\r\n");
    assert_eq!(text("[ALERT] x"), "a NO (ALERT] x\r\n");
    assert_eq!(text(""), "a NO .\r\n");
    assert_eq!(text("café\0"), "a NO caf? \r\n");
    assert_eq!(text(&"y".repeat(100_000)).len(), "a NO \r\n".len() + TEXT_BYTES_MAX);
    assert_eq!(judged(|out| tagged(out, "a", Condition::No, Some(&Code::Parse), "[x")), "a NO [PARSE] [x\r\n");
}

#[test]
fn keywords_that_no_client_could_read_are_left_out() {
    let keywords = strings(&["a\r\n* BYE", "", "b)", "c", "é"]);
    let all = FlagSet::of(&(0..5).map(|at| Flag::Keyword(KeywordId::new(at).unwrap())).collect::<Vec<_>>());
    assert_eq!(written(|out| flag_list(out, all, &keywords, false)), b"(c)");
    assert_eq!(judged(|out| flags(out, &keywords)), "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft c)\r\n");
    let code = Code::PermanentFlags { system: index::FlagSet::from_bits(u64::MAX), keywords: &keywords, more: false };
    assert!(judged(|out| untagged(out, Condition::Ok, Some(&code), "x")).ends_with(" \\Draft c)] x\r\n"));
}

#[test]
fn capabilities_ids_and_namespaces() {
    assert_eq!(judged(|out| capability(out, &["IMAP4rev1", "STARTTLS"])), "* CAPABILITY IMAP4rev1 STARTTLS\r\n");
    assert_eq!(judged(|out| enabled(out, &["CONDSTORE"])), "* ENABLED CONDSTORE\r\n");
    assert_eq!(written(|out| enabled(out, &[])), b"* ENABLED\r\n");
    assert_eq!(
        judged(|out| id(out, &[("name", "Berth"), ("support", "a \"b\"")])),
        "* ID (\"name\" \"Berth\" \"support\" \"a \\\"b\\\"\")\r\n"
    );
    assert_eq!(judged(|out| id(out, &[])), "* ID NIL\r\n");
    assert_eq!(judged(|out| namespace(out, None, None, Separator::Slash)), "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n");
    assert_eq!(
        judged(|out| namespace(out, Some("Other Users/"), Some("Shared/"), Separator::Slash)),
        "* NAMESPACE ((\"\" \"/\")) ((\"Other Users/\" \"/\")) ((\"Shared/\" \"/\"))\r\n"
    );
}

#[test]
fn mailboxes_are_listed_under_encoded_names() {
    let line = |attributes, mailbox| ListLine { attributes, mailbox, ..ListLine::default() };
    let seven = Names::default();
    assert_eq!(
        judged(|out| list(out, line(&["\\HasNoChildren", "\\Sent"], "Sent Items"), seven)),
        "* LIST (\\HasNoChildren \\Sent) \"/\" \"Sent Items\"\r\n"
    );
    assert_eq!(judged(|out| list(out, line(&["\\Noselect"], ""), seven)), "* LIST (\\Noselect) \"/\" \"\"\r\n");
    assert_eq!(judged(|out| list(out, line(&[], "Entwürfe/a&b"), seven)), "* LIST () \"/\" Entw&APw-rfe/a&-b\r\n");
    assert_eq!(
        written(|out| list(out, line(&[], "Entwürfe & \"x\""), Names { utf8: true, ..Names::default() })),
        "* LIST () \"/\" \"Entwürfe & \\\"x\\\"\"\r\n".as_bytes()
    );
    assert_eq!(judged(|out| lsub(out, line(&[], "INBOX"), seven)), "* LSUB () \"/\" INBOX\r\n");
    assert_eq!(
        written(|out| list(out, ListLine { subscribed_child: true, ..line(&[], "a") }, seven)),
        b"* LIST () \"/\" a (\"CHILDINFO\" (\"SUBSCRIBED\"))\r\n"
    );
    let items =
        [(StatusItem::Messages, 231.into()), (StatusItem::UidNext, 44292.into()), (StatusItem::HighestModSeq, 7_011_231_777.into())];
    assert_eq!(
        judged(|out| status(out, "a b", &items, seven)),
        "* STATUS \"a b\" (MESSAGES 231 UIDNEXT 44292 HIGHESTMODSEQ 7011231777)\r\n"
    );
    let others = [(StatusItem::Recent, 0), (StatusItem::UidValidity, 1), (StatusItem::Unseen, 2), (StatusItem::Deleted, 3)]
        .map(|(item, value)| (item, StatusValue::Number(value)));
    assert_eq!(judged(|out| status(out, "x", &others, seven)), "* STATUS x (RECENT 0 UIDVALIDITY 1 UNSEEN 2 DELETED 3)\r\n");
    assert_eq!(written(|out| status(out, "x", &[(StatusItem::Size, (1 << 40).into())], seven)), b"* STATUS x (SIZE 1099511627776)\r\n");
}

#[test]
fn the_updates_of_rfc_5267_are_known_answers() {
    let told = |uid: bool, removed: &[(u32, &[u32])], added: &[(u32, &[u32])]| {
        let moves = |moves: &[(u32, &[u32])]| {
            moves.iter().map(|(position, numbers)| Move { position: *position, numbers: numbers.to_vec() }).collect::<Vec<_>>()
        };
        let mut out = BytesMut::new();
        esearch_update(&mut out, "B01", &Scope::default(), uid, &moves(removed), &moves(added));
        String::from_utf8(out.to_vec()).unwrap()
    };
    assert_eq!(told(true, &[], &[(0, &[32768, 32769])]), "* ESEARCH (TAG \"B01\") UID ADDTO (0 32768:32769)\r\n");
    assert_eq!(told(true, &[], &[(1, &[2731, 2732, 2733])]), "* ESEARCH (TAG \"B01\") UID ADDTO (1 2731:2733)\r\n");
    assert_eq!(told(true, &[(0, &[32768])], &[]), "* ESEARCH (TAG \"B01\") UID REMOVEFROM (0 32768)\r\n");
    let both = told(false, &[(1, &[9]), (3, &[5, 4])], &[(2, &[7]), (9, &[1])]);
    assert_eq!(both, "* ESEARCH (TAG \"B01\") REMOVEFROM (1 9 3 5,4) ADDTO (2 7 9 1)\r\n");
    assert_eq!(told(true, &[], &[]), "");
}

#[test]
fn search_results_are_listed_or_compressed() {
    assert_eq!(judged(|out| search(out, [2, 84, 882], None)), "* SEARCH 2 84 882\r\n");
    assert_eq!(judged(|out| search(out, [], Some(modseq(7)))), "* SEARCH\r\n");
    assert_eq!(judged(|out| search(out, uid_numbers(&[uid(2), uid(5)]), Some(modseq(917_162_500)))), "* SEARCH 2 5 (MODSEQ 917162500)\r\n");
    let result = Esearch { min: Some(2), max: Some(47), all: Some(&[2, 3, 4, 47]), count: Some(4), modseq: Some(modseq(9)), partial: None };
    assert_eq!(
        written(|out| esearch(out, "A285", true, result)),
        b"* ESEARCH (TAG \"A285\") UID MIN 2 MAX 47 COUNT 4 MODSEQ 9 ALL 2:4,47\r\n"
    );
    let nothing = Esearch { all: Some(&[]), count: Some(0), ..Esearch::default() };
    assert_eq!(written(|out| esearch(out, "a", false, nothing)), b"* ESEARCH (TAG \"a\") COUNT 0\r\n");
    let sorted = Esearch { all: Some(&[5, 3, 2, 1, 7, 8]), ..Esearch::default() };
    assert_eq!(written(|out| esearch(out, "a", false, sorted)), b"* ESEARCH (TAG \"a\") ALL 5,3,2,1,7:8\r\n");
    let part =
        |one, other, from_end, numbers| Esearch { partial: Some((PartialRange { one, other, from_end }, numbers)), ..Esearch::default() };
    let told = written(|out| esearch(out, "A01", true, part(1, 100, true, &[17, 18, 30])));
    assert_eq!(told, b"* ESEARCH (TAG \"A01\") UID PARTIAL (-1:-100 17:18,30)\r\n");
    let told = written(|out| esearch(out, "A04", true, part(24_000, 24_500, false, &[])));
    assert_eq!(told, b"* ESEARCH (TAG \"A04\") UID PARTIAL (24000:24500 NIL)\r\n");
    assert_eq!(written(|out| sort(out, [5, 3, 4], None)), b"* SORT 5 3 4\r\n");
    assert_eq!(written(|out| sort(out, [2, 5], Some(modseq(917_162_500)))), b"* SORT 2 5 (MODSEQ 917162500)\r\n");
    assert_eq!(written(|out| sort(out, [], None)), b"* SORT\r\n");
}

#[test]
fn mailbox_numbers_and_flags() {
    assert_eq!(judged(|out| exists(out, 23)), "* 23 EXISTS\r\n");
    assert_eq!(judged(|out| recent(out, 0)), "* 0 RECENT\r\n");
    assert_eq!(judged(|out| expunge(out, u32::MAX)), "* 4294967295 EXPUNGE\r\n");
    assert_eq!(judged(|out| flags(out, &strings(&["$Junk"]))), "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Junk)\r\n");
}

#[test]
fn fetch_items_stand_between_one_pair_of_parentheses() {
    let keywords = strings(&["a", "b"]);
    let set =
        FlagSet::of(&[Flag::Seen, Flag::Passed, Flag::Keyword(KeywordId::new(1).unwrap()), Flag::Keyword(KeywordId::new(9).unwrap())]);
    let text = judged(|out| {
        let mut fetch = FetchWriter::begin(out, Enabled::NOTHING, 12, uid(7));
        fetch.uid(out, uid(34));
        fetch.flags(out, set, &keywords, true);
        fetch.internal_date(out, 837_596_665);
        fetch.size(out, 4286);
        fetch.modseq(out, modseq(65_402));
        fetch.envelope(out, b"(NIL \"s\" NIL NIL NIL NIL NIL NIL NIL \"<a@b>\")");
        fetch.body(out, b"(\"TEXT\" \"PLAIN\" NIL NIL NIL \"7BIT\" 2 1)");
        fetch.body_structure(out, b"(\"TEXT\" \"PLAIN\" (\"CHARSET\" \"utf-8\") NIL NIL \"7BIT\" 2 1 NIL NIL NIL NIL)");
        fetch.section(out, "HEADER.FIELDS (FROM TO)", None, Some(b"From: a\r\n\r\n"));
        fetch.section(out, "2.MIME", None, None);
        fetch.section_header(out, "", Some(7), 5);
        out.extend_from_slice(b"hello");
        fetch.literal_header(out, "RFC822.TEXT", 2);
        out.extend_from_slice(b"x)");
        fetch.finish(out);
    });
    assert_eq!(
        text,
        "* 12 FETCH (UID 34 FLAGS (\\Seen b \\Recent) INTERNALDATE \"17-Jul-1996 09:44:25 +0000\" RFC822.SIZE 4286 MODSEQ (65402) \
         ENVELOPE (NIL \"s\" NIL NIL NIL NIL NIL NIL NIL \"<a@b>\") BODY (\"TEXT\" \"PLAIN\" NIL NIL NIL \"7BIT\" 2 1) \
         BODYSTRUCTURE (\"TEXT\" \"PLAIN\" (\"CHARSET\" \"utf-8\") NIL NIL \"7BIT\" 2 1 NIL NIL NIL NIL) \
         BODY[HEADER.FIELDS (FROM TO)] {11}\r\nFrom: a\r\n\r\n BODY[2.MIME] NIL BODY[]<7> {5}\r\nhello RFC822.TEXT {2}\r\nx))\r\n"
    );
}

proptest! {
    #[test]
    fn any_text_can_be_answered(text: String, code: bool) {
        let code = code.then_some(Code::Limit);
        judged(|out| tagged(out, "a", Condition::Bad, code.as_ref(), &text));
    }

    #[test]
    fn any_string_is_read_back(bytes in proptest::collection::vec(1_u8..=255, 0..60)) {
        let answer = written(|out| {
            let mut fetch = FetchWriter::begin(out, Enabled::NOTHING, 1, uid(1));
            fetch.envelope(out, b"(NIL ");
            string(out, &bytes);
            out.extend_from_slice(b" NIL NIL NIL NIL NIL NIL NIL NIL)");
            fetch.finish(out);
        });
        let Ok((b"", Response::Data(Data::Fetch { items, .. }))) = ResponseCodec::default().decode(&answer) else {
            panic!("{}", String::from_utf8_lossy(&answer))
        };
        let imap_types::fetch::MessageDataItem::Envelope(envelope) = &items.as_ref()[0] else { panic!() };
        prop_assert_eq!(envelope.subject.0.as_ref().unwrap().as_ref(), &bytes[..]);
    }

    #[test]
    fn any_mailbox_name_can_be_listed(name in "[^\\x00-\\x1f]{0,20}") {
        let line = ListLine { attributes: &[], mailbox: &name, ..ListLine::default() };
        let bytes = written(|out| list(out, line, Names::default()));
        prop_assert!(matches!(ResponseCodec::default().decode(&bytes), Ok((b"", _))), "{}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn a_snippet_that_would_have_to_be_made_is_nil_within_its_algorithm() {
    let mut out = BytesMut::new();
    let mut fetch = FetchWriter::begin(&mut out, Enabled::NOTHING, 1, uid(1));
    fetch.snippet(&mut out, None);
    fetch.finish(&mut out);
    assert_eq!(&out[..], b"* 1 FETCH (SNIPPET (FUZZY NIL))\r\n");
}
