use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Everything that can be asked of a message; checks what must always hold.
fn ask_everything(raw: &[u8]) {
    let structure = Structure::parse(raw);
    check_envelope(&read_value(&structure.envelope()));
    check_body(&read_value(&structure.body_structure(true)), true);
    check_body(&read_value(&structure.body_structure(false)), false);
    check_sections(&structure, &mut Vec::new(), 0..raw.len(), 2_000);
    let header = structure.section(&section_name("HEADER")).unwrap();
    let names = ["subject".to_owned(), "x".to_owned()];
    let Found::Range(header) = header else { panic!("a header is a range") };
    assert!(select_fields(&raw[header.clone()], &names, false).ends_with(b"\r\n"));
    assert!(select_fields(&raw[header], &names, true).ends_with(b"\r\n"));
    structure.text_parts(&mut |_| true);
    structure.header_texts(&mut |_| true);
    structure.header_values("subject");
    structure.sent_date();
    read_fields_again(&structure.cached_headers());
}

fn read_fields_again(headers: &[u8]) {
    assert_eq!(Structure::parse(headers).cached_headers(), headers);
}

/// The parts below `path` lie in `outer`, one after the other, and their pieces fit together. Gives how many parts it may still look at.
fn check_sections(structure: &Structure<'_>, path: &mut Vec<u32>, outer: std::ops::Range<usize>, mut budget: usize) -> usize {
    let range = |path: &[u32], text: SectionText| match structure.section(&Section { part: path.to_vec(), text }) {
        Some(Found::Range(range)) => Some(range),
        Some(Found::Owned(_)) => panic!("a range"),
        None => None,
    };
    let mut end = outer.start;
    for number in 1..=u32::MAX {
        path.push(number);
        let found = range(path, SectionText::Whole);
        if let Some(body) = &found {
            let mime = range(path, SectionText::Mime).unwrap();
            assert!(mime.start <= mime.end && mime.end <= body.start && body.start <= body.end && body.end <= outer.end, "{path:?}");
            assert!(end <= body.start, "{path:?} comes after its sibling");
            end = body.end;
            assert!(structure.decoded_part(path).is_some());
            if let Some(header) = range(path, SectionText::Header) {
                let text = range(path, SectionText::Text).unwrap();
                assert_eq!((header.start, header.end, text.end), (body.start, text.start, body.end), "{path:?} is header and text");
            }
            budget = if budget > 0 { check_sections(structure, path, body.clone(), budget - 1) } else { 0 };
        }
        path.pop();
        if found.is_none() || budget == 0 {
            return budget;
        }
    }
    budget
}

const SEEDS: &[&str] = &[
    "From: A <a@b>, g: c@d, \"x y\" <@r:e@f>;\nSubject: =?utf-8?q?=C3=A4?=\n fold\nDate: Fri, 21 Nov 1997 09:55:06 -0600\nX: y\n\nbody\n",
    "Content-Type: multipart/mixed; boundary=b\n\npre\n--b\nContent-Type: text/html; charset=\"iso-8859-1\"\nContent-Transfer-Encoding: quoted-printable\n\n<p>=FC</p>\n--b\nContent-Type: message/rfc822\n\nSubject: in\nContent-Type: multipart/alternative; boundary=c\n\n--c\n\nx\n--c\nContent-Transfer-Encoding: base64\n\nAAEC\n--c--\n--b--\nepi\n",
    "Content-Type: multipart/digest; boundary=\"b c\"\nContent-Language: en, de\nContent-Disposition: inline; filename*0*=utf-8''a; filename*1=\"b\\\"\"\n\n--b c\n\nTo: (c (d)) x@[1.2.3.4] (e)\n\n1\n--b c\n\n--b c--\n",
    "Content-Type: message/rfc822\n\nContent-Type: message/global\n\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogeA0KDQp4\n",
];
const SPLICES: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    "--b",
    "--b--",
    "\r\n--b\r\n",
    "\r\n--c--",
    "\"",
    "\\",
    "(",
    ")",
    "<",
    ">",
    ":",
    ";",
    ",",
    "@",
    ".",
    "[",
    "]",
    "=",
    "=?",
    "?=",
    "\u{fc}",
    "Content-Type: ",
    "message/rfc822",
    "multipart/mixed; boundary=b",
    "\r\n\r\n",
    "Subject:",
    "{3}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn any_message_has_a_structure(
        seed in 0..SEEDS.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..30usize, 0..SPLICES.len()), 0..12),
    ) {
        let mut raw = crlf(SEEDS[seed]);
        for (place, removed, splice) in edits {
            let start = place.index(raw.len() + 1);
            let end = (start + removed.saturating_sub(15)).min(raw.len());
            raw.splice(start..end, SPLICES[splice].bytes());
        }
        ask_everything(&raw);
    }
    #[test]
    fn answers_are_well_formed(raw in prop::collection::vec(prop_oneof![Just(b':'), Just(b'\n'), Just(b'"'), Just(b'('), any::<u8>()], 0..200)) {
        let fields = [b"To:", raw.as_slice(), b"\r\nContent-Type:", &raw, b"\r\nContent-Disposition:", &raw, b"\r\n\r\n"].concat();
        ask_everything(&raw);
        ask_everything(&fields);
    }
}

/// Far more than any of these takes, and far less than anything quadratic would.
const LINEAR: Duration = Duration::from_secs(30);

fn in_linear_time(what: &str, raw: &[u8]) {
    #[expect(clippy::disallowed_methods, reason = "measures what the processor does; nothing waits")]
    let start = Instant::now();
    ask_everything(raw);
    let taken = start.elapsed();
    assert!(taken < LINEAR, "{what}: {taken:?} for {} bytes", raw.len());
}

#[test]
fn hostile_sizes_take_linear_time() {
    let head = |name: &str| format!("{name}: ");
    let megabytes = |piece: &str| piece.repeat(10_000_000 / piece.len());
    let megabyte = |piece: &str| piece.repeat(1_000_000 / piece.len());
    for (what, raw) in [
        ("parts", ("Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_owned() + &"--b\r\n\r\nx\r\n".repeat(100_000)).into_bytes()),
        ("multiparts in multiparts", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n".repeat(100_000).into_bytes()),
        (
            "boundaries",
            (0..100_000).flat_map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n").into_bytes()).collect(),
        ),
        (
            "a boundary of several lines",
            format!("Content-Type: multipart/mixed; boundary*=''{}z\r\n\r\n{}", megabyte("%0D%0A--"), megabytes("--\r\n")).into_bytes(),
        ),
        (
            "a boundary in pieces",
            (0..800)
                .fold("Content-Type: multipart/mixed".to_owned(), |field, n| field + &format!(";boundary*{n}={}", "b".repeat(12_000)))
                .into_bytes(),
        ),
        ("messages in messages", "Content-Type: message/rfc822\r\n\r\n".repeat(100_000).into_bytes()),
        ("addresses", (head("From") + &megabytes("a,")).into_bytes()),
        ("groups", (head("To") + &megabyte("a:;")).into_bytes()),
        ("open comments", (head("To") + &megabytes("(")).into_bytes()),
        ("comments", (head("To") + &megabyte("()")).into_bytes()),
        ("open quotes", (head("To") + &megabyte("\"a\\")).into_bytes()),
        ("open angles", (head("To") + &megabyte("<")).into_bytes()),
        ("routes", (head("To") + "<" + &megabyte("@a,")).into_bytes()),
        ("dots", (head("To") + &megabyte(".a ")).into_bytes()),
        ("words", (head("To") + &megabyte("a ")).into_bytes()),
        ("parameters", (head("Content-Type") + "text/plain" + &megabytes(";a=b")).into_bytes()),
        ("unquoted value", (head("Content-Type") + "text/plain;a=" + &megabyte("b ")).into_bytes()),
        ("languages", (head("Content-Language") + &megabyte("a,")).into_bytes()),
        ("encoded-words", (head("Subject") + &megabytes("=?utf-8?q?a?= ")).into_bytes()),
        ("open encoded-words", (head("Subject") + &megabyte("=?")).into_bytes()),
        ("folds", (head("Subject") + &megabyte("\r\n ")).into_bytes()),
        ("NULs", (head("Subject") + &megabyte("\0")).into_bytes()),
        ("fields", megabyte("a:\r\n").into_bytes()),
        ("lines without a colon", megabyte("a\r\n").into_bytes()),
        ("one line", megabytes("a").into_bytes()),
        ("tags", ("Content-Type: text/html\r\n\r\n".to_owned() + &megabytes("<a")).into_bytes()),
    ] {
        in_linear_time(what, &raw);
    }
}

#[test]
fn a_boundary_is_of_one_line_and_in_pieces_in_any_order() {
    let count = |parameters: &str, boundary: &str| {
        let raw = format!("Content-Type: multipart/mixed; {parameters}\r\n\r\n--{boundary}\r\n\r\na\r\n--{boundary}--\r\n");
        find::find_parts(raw.as_bytes()).len()
    };
    assert_eq!(count("boundary*=''a%0D%0A--b", "a\r\n--b"), 1, "of two lines");
    assert_eq!(count("boundary=\"a\0b\"", "a\0b"), 1, "of control characters");
    let longest = "b".repeat(structure::BOUNDARY_BYTES_MAX);
    assert_eq!(count(&format!("boundary={longest}"), &longest), 2);
    assert_eq!(count(&format!("boundary={longest}b"), &format!("{longest}b")), 1, "longer than a line");
    assert_eq!(count("boundary*1*=b%20; BOUNDARY*0*=''%61; boundary*2=c; boundary*4=e", "ab c"), 2);
    assert_eq!(count("boundary*0*=''%61; boundary*0=z; boundary*00=x", "z"), 2, "the one as it is");
    assert_eq!(count(&format!("boundary=b; x={}", "x".repeat(structure::FIELD_BYTES_MAX)), "b"), 1, "a field that nobody reads");
}

#[test]
fn what_lies_too_deep_stays_one_part() {
    let raw = "Content-Type: message/rfc822\r\n\r\n".repeat(1_000).into_bytes();
    let structure = Structure::parse(&raw);
    let path = vec![1; structure::DEPTH_MAX - 1];
    assert!(structure.section(&Section { part: path.clone(), text: SectionText::Whole }).is_some());
    assert!(structure.section(&Section { part: [path, vec![1, 1, 1]].concat(), text: SectionText::Whole }).is_none());
    assert!(
        text(structure.body_structure(false)).contains(r#"("application" "octet-stream""#),
        "what is not opened is not called a message"
    );
}
