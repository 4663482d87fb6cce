use super::envelope;

/// The addresses of one field, as in an envelope.
fn addresses(value: &str) -> String {
    let envelope = envelope(&format!("To: {value}\n\n"));
    envelope.strip_prefix("(NIL NIL NIL NIL NIL ").and_then(|rest| rest.strip_suffix(" NIL NIL NIL NIL)")).unwrap().to_owned()
}

#[test]
fn the_example_of_rfc_9051_is_a_known_answer() {
    let message = "\
Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)
From: Terry Gray <gray@cac.washington.edu>
Subject: IMAP4rev2 WG mtg summary and minutes
To: imap@cac.washington.edu
cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>
Message-Id: <B27397-0100000@cac.washington.edu>
MIME-Version: 1.0
Content-Type: TEXT/PLAIN; CHARSET=US-ASCII

";
    let gray = r#"(("Terry Gray" NIL "gray" "cac.washington.edu"))"#;
    assert_eq!(
        envelope(message),
        format!(
            r#"("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)" "IMAP4rev2 WG mtg summary and minutes" {gray} {gray} {gray} ((NIL NIL "imap" "cac.washington.edu")) ((NIL NIL "minutes" "CNRI.Reston.VA.US")("John Klensin" NIL "KLENSIN" "MIT.EDU")) NIL NIL "<B27397-0100000@cac.washington.edu>")"#
        )
    );
}

#[test]
fn groups_of_rfc_5322_are_marked() {
    assert_eq!(
        addresses("A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;"),
        r#"((NIL NIL "A Group" NIL)("Ed Jones" NIL "c" "a.test")(NIL NIL "joe" "where.test")("John" NIL "jdoe" "one.test")(NIL NIL NIL NIL))"#
    );
    assert_eq!(addresses("Undisclosed recipients:;"), r#"((NIL NIL "Undisclosed recipients" NIL)(NIL NIL NIL NIL))"#);
    assert_eq!(addresses("A:b@c"), r#"((NIL NIL "A" NIL)(NIL NIL "b" "c")(NIL NIL NIL NIL))"#, "a group that does not end");
    assert_eq!(addresses("a:;, b@c"), r#"((NIL NIL "a" NIL)(NIL NIL NIL NIL)(NIL NIL "b" "c"))"#);
}

#[test]
fn white_space_and_comments_of_rfc_5322_are_no_part_of_an_address() {
    assert_eq!(
        addresses(
            "A Group(Some people)\n     :Chris Jones <c@(Chris's host.)public.example>,\n     joe@example.org,\n  John <jdoe@one.test> (my dear friend); (the end of the group)"
        ),
        r#"((NIL NIL "A Group" NIL)("Chris Jones" NIL "c" "public.example")(NIL NIL "joe" "example.org")("John" NIL "jdoe" "one.test")(NIL NIL NIL NIL))"#
    );
    assert_eq!(addresses("Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>"), r#"(("Pete" NIL "pete" "silly.test"))"#);
}

#[test]
fn old_syntax_of_rfc_5322_is_read() {
    assert_eq!(
        addresses("Mary Smith <@node.test:mary@example.net>, , jdoe@test  . example"),
        r#"(("Mary Smith" "@node.test" "mary" "example.net")(NIL NIL "jdoe" "test.example"))"#
    );
    assert_eq!(addresses("<@a.org, @b.org : joe@x.org>"), r#"((NIL "@a.org,@b.org" "joe" "x.org"))"#);
    assert_eq!(addresses("joe . q @ x . org"), r#"((NIL NIL "joe.q" "x.org"))"#);
    assert_eq!(addresses("Joe Q. Public <joe@x.org>"), r#"(("Joe Q. Public" NIL "joe" "x.org"))"#);
    assert_eq!(addresses("joe@x.org (Joe Public)"), r#"(("Joe Public" NIL "joe" "x.org"))"#);
    assert_eq!(addresses("joe@x.org (Joe (the \\( man) Public)"), r#"(("Joe (the ( man) Public" NIL "joe" "x.org"))"#);
}

#[test]
fn quotes_go_and_what_they_protect_stays() {
    assert_eq!(addresses(r#""Joe \"Q\" \\ Public" <joe@x.org>"#), r#"(("Joe \"Q\" \\ Public" NIL "joe" "x.org"))"#);
    assert_eq!(addresses(r#""a, b" <c@d>, "joe q"@x.org"#), r#"(("a, b" NIL "c" "d")(NIL NIL "joe q" "x.org"))"#);
    assert_eq!(addresses(r#""a"b"c" <a@b>"#), r#"(("a b c" NIL "a" "b"))"#);
    assert_eq!(addresses(r#""" <a@b>"#), r#"((NIL NIL "a" "b"))"#);
    assert_eq!(addresses("Joe \n \tPublic <joe@[127.0.0.1]>"), r#"(("Joe Public" NIL "joe" "[127.0.0.1]"))"#);
    assert_eq!(addresses("=?utf-8?q?J=C3=B6?= <j@x>"), r#"(("=?utf-8?q?J=C3=B6?=" NIL "j" "x"))"#);
}

#[test]
fn broken_addresses_say_what_is_missing() {
    const MISSING: &str = r#"NIL "MISSING_MAILBOX" "MISSING_DOMAIN""#;
    assert_eq!(addresses("joe"), r#"((NIL NIL "joe" "MISSING_DOMAIN"))"#);
    assert_eq!(addresses("joe@"), r#"((NIL NIL "joe" "MISSING_DOMAIN"))"#);
    assert_eq!(addresses("@x.org"), r#"((NIL NIL "MISSING_MAILBOX" "x.org"))"#);
    assert_eq!(addresses("a b c"), format!(r#"(("a b c" {MISSING}))"#));
    assert_eq!(addresses("Joe <>"), format!(r#"(("Joe" {MISSING}))"#));
    assert_eq!(addresses("Joe <joe@x.org"), r#"(("Joe" NIL "joe" "SYNTAX_ERROR"))"#);
    assert_eq!(addresses("<joe@@x.org>"), r#"((NIL NIL "joe" "SYNTAX_ERROR"))"#);
    assert_eq!(addresses("<a b@c>"), r#"((NIL NIL "a" "SYNTAX_ERROR"))"#);
    assert_eq!(addresses("<@x.org>"), r#"((NIL "INVALID_ROUTE" "MISSING_MAILBOX" "MISSING_DOMAIN"))"#);
    assert_eq!(addresses("\"unterminated <j@x>"), format!("((NIL {MISSING}))"));
    assert_eq!(addresses("(unterminated j@x"), "NIL");
    assert_eq!(addresses("[a] <a@b>"), format!("((NIL {MISSING}))"));
    assert_eq!(addresses("a@b..c"), r#"((NIL NIL "a" "MISSING_DOMAIN"))"#);
    assert_eq!(addresses("joe..q.@x"), r#"((NIL NIL "joe..q." "x"))"#);
}

#[test]
fn reading_goes_on_after_a_broken_address() {
    assert_eq!(addresses("Joe <joe@x.org> \"ju, nk\", b@c"), r#"(("Joe" NIL "joe" "x.org")(NIL NIL "b" "c"))"#);
    assert_eq!(addresses("<a@b, c@d>, e@f"), r#"((NIL NIL "a" "SYNTAX_ERROR")(NIL NIL "c" "d")(NIL NIL "e" "f"))"#);
    assert_eq!(addresses("a@b; c@d"), r#"((NIL NIL "a" "b")(NIL NIL "c" "d"))"#);
    assert_eq!(addresses(", ;,"), "NIL");
}

#[test]
fn sender_and_reply_to_are_from_where_they_say_nothing() {
    let from = r#"((NIL NIL "a" "b"))"#;
    assert_eq!(envelope("From: a@b\nSender:\nReply-To: (nobody)\n\n"), format!("(NIL NIL {from} {from} {from} NIL NIL NIL NIL NIL)"));
    assert_eq!(
        envelope("From: a@b\nSender: c@d\nReply-To: e@f, g@h\n\n"),
        format!(r#"(NIL NIL {from} ((NIL NIL "c" "d")) ((NIL NIL "e" "f")(NIL NIL "g" "h")) NIL NIL NIL NIL NIL)"#)
    );
    assert_eq!(envelope("Sender: c@d\n\n"), r#"(NIL NIL NIL ((NIL NIL "c" "d")) NIL NIL NIL NIL NIL NIL)"#);
}

#[test]
fn absent_fields_are_nil_and_empty_ones_are_empty() {
    assert_eq!(envelope("\n"), "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)");
    assert_eq!(envelope("Date:\nSubject: \nIn-Reply-To:\n \nMessage-ID:\n\n"), r#"("" "" NIL NIL NIL NIL NIL NIL "" "")"#);
}

#[test]
fn folded_values_become_one_line() {
    assert_eq!(
        envelope("Subject: a\n   b\tc  d \nDate:   x\n  y\nMessage-ID: <a@b>\n <c@d>\n\n"),
        r#"("x  y" "a b c d" NIL NIL NIL NIL NIL NIL NIL "<a@b> <c@d>")"#
    );
}

#[test]
fn what_can_not_be_quoted_is_a_literal() {
    assert_eq!(envelope("Subject: M\u{fc}ller\n\n"), "(NIL {7}\r\nM\u{c3}\u{bc}ller NIL NIL NIL NIL NIL NIL NIL NIL)");
    assert_eq!(envelope("Date: a\u{1}b\n\n"), "({3}\r\na\u{1}b NIL NIL NIL NIL NIL NIL NIL NIL NIL)");
    assert_eq!(envelope("Date: a\0b\n\n"), "({5}\r\na\u{ef}\u{bf}\u{bd}b NIL NIL NIL NIL NIL NIL NIL NIL NIL)", "no string may have a NUL");
    let long = "x".repeat(5000);
    assert!(envelope(&format!("Subject: {long}\n\n")).contains(&format!("{{5000}}\r\n{long}")));
}

#[test]
fn of_two_subjects_the_last_counts_and_address_fields_add_up() {
    assert_eq!(
        envelope("Subject: one\nSubject: two\nTo: a@b\nTo: c@d\n\n"),
        r#"(NIL "two" NIL NIL NIL ((NIL NIL "a" "b")(NIL NIL "c" "d")) NIL NIL NIL NIL)"#
    );
}

#[test]
fn lines_that_are_no_field_are_passed_over() {
    for junk in ["From x@y Mon Jan  1 00:00:00 2026\n", "garbage\n and: more\n", " Subject: no\n"] {
        assert_eq!(envelope(&format!("{junk}Subject : y\n\n")), r#"(NIL "y" NIL NIL NIL NIL NIL NIL NIL NIL)"#, "{junk:?}");
    }
}
