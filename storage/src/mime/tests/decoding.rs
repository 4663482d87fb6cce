use super::*;

fn decoded(fields: &str, body: &[u8]) -> Option<Result<Vec<u8>, UnknownEncoding>> {
    let raw = [crlf(fields).as_slice(), b"\r\n\r\n", body].concat();
    Structure::parse(&raw).decoded_part(&[1]).map(|part| part.map(Cow::into_owned))
}

fn texts(raw: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    Structure::parse(raw).text_parts(&mut |text| {
        texts.push(text.to_owned());
        true
    });
    texts
}

fn text_of(content_type: &str, body: &[u8]) -> String {
    texts(&[b"Content-Type: ", content_type.as_bytes(), b"\r\n\r\n", body].concat()).remove(0)
}

fn header(value: &str) -> Vec<String> {
    Structure::parse(&crlf(&format!("Subject: {value}\n\n"))).header_values("SUBJECT")
}

#[test]
fn binary_removes_the_transfer_encoding() {
    assert_eq!(decoded("Content-Transfer-Encoding: base64", b"AAEC\r\n/w==\r\n"), Some(Ok(vec![0, 1, 2, 255])));
    assert_eq!(
        decoded("Content-Transfer-Encoding: Quoted-Printable (c)", b"a=3D=\r\nb=FC  \r\n=zz"),
        Some(Ok(b"a=b\xfc\r\n=zz".to_vec())),
        "RFC 2045 §6.7"
    );
    for identity in ["7bit", "8BIT", "binary"] {
        assert_eq!(decoded(&format!("Content-Transfer-Encoding: {identity}"), b"=00\xff"), Some(Ok(b"=00\xff".to_vec())));
    }
    assert_eq!(decoded("Subject: x", b"plain"), Some(Ok(b"plain".to_vec())));
}

#[test]
fn an_encoding_that_can_not_be_undone_is_an_error() {
    assert_eq!(decoded("Content-Transfer-Encoding: x-uuencode", b"x"), Some(Err(UnknownEncoding)));
    assert_eq!(decoded("Content-Transfer-Encoding: base64 base64", b"AAEC"), Some(Err(UnknownEncoding)));
    assert_eq!(decoded("Content-Transfer-Encoding: base64", b"AA!C\x80"), Some(Err(UnknownEncoding)));
}

#[test]
fn binary_of_what_holds_parts_is_what_it_is() {
    let raw = crlf(
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\nA: b\n\nx\n--b\nContent-Transfer-Encoding: base64\n\neA==\n--b--\n",
    );
    let structure = Structure::parse(&raw);
    assert_eq!(structure.decoded_part(&[]).unwrap().unwrap(), raw.as_slice());
    assert_eq!(structure.decoded_part(&[1]).unwrap().unwrap(), b"A: b\r\n\r\nx".as_slice());
    assert_eq!(structure.decoded_part(&[1, 1]).unwrap().unwrap(), b"x".as_slice());
    assert_eq!(structure.decoded_part(&[2]).unwrap().unwrap(), b"x".as_slice());
    assert!(structure.decoded_part(&[3]).is_none());
}

#[test]
fn text_is_read_in_its_charset() {
    assert_eq!(text_of("text/plain; charset=iso-8859-1", b"M\xfcller"), "Müller");
    assert_eq!(text_of("text/plain; charset=\"UTF-8\"", "Müller".as_bytes()), "Müller");
    assert_eq!(text_of("text/plain; charset*=us-ascii'en'iso-8859-1", b"M\xfcller"), "Müller", "RFC 2231 §4");
    assert_eq!(text_of("text/plain; charset=koi8-r", b"\xf0\xd2\xc9"), "При");
    assert_eq!(text_of("text/plain; charset=iso-2022-jp", b"\x1b$BF|K\\\x1b(B"), "日本");
    assert_eq!(text_of("text/plain; charset=cp932", b"\x93\xfa\x96\x7b"), "日本");
    assert_eq!(text_of("text/plain; charset=utf-7", b"M+APw-ller"), "Müller");
}

#[test]
fn text_in_no_known_charset_is_guessed() {
    for charset in ["us-ascii", "no-such-charset", "\"\"", "utf-8"] {
        let content_type = format!("text/plain; charset={charset}");
        assert_eq!(text_of(&content_type, "Müller".as_bytes()), "Müller", "{charset}");
        assert_eq!(text_of(&content_type, b"M\xfcller"), "Müller", "{charset}");
    }
}

#[test]
fn every_text_part_is_visited_until_told_to_stop() {
    let raw = crlf(
        "Content-Type: multipart/mixed; boundary=b\n\npreamble\n--b\n\none\n--b\nContent-Type: image/png\n\nno text\n--b\nContent-Type: message/rfc822\n\nSubject: x\n\ntwo\n--b\nContent-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n<a href=3D\"u\">f&uuml;<b>nf</b></a>\n--b--\n",
    );
    assert_eq!(texts(&raw), ["one", "two", "<a href=\"u\">f&uuml;<b>nf</b></a>", "fünf"]);
    let mut visits = 0;
    Structure::parse(&raw).text_parts(&mut |_| {
        visits += 1;
        false
    });
    assert_eq!(visits, 1);
}

#[test]
fn damaged_text_is_searched_as_far_as_it_goes() {
    assert_eq!(texts(b"Content-Transfer-Encoding: base64\r\n\r\naGVs!bG8=\r\n"), ["hello"]);
    assert_eq!(texts(b"Content-Transfer-Encoding: x-y\r\n\r\nhello"), ["hello"]);
    assert_eq!(texts(b"Content-Type: multipart/mixed\r\n\r\nhello"), ["hello"]);
}

#[test]
fn the_encoded_words_of_rfc_2047_are_decoded() {
    assert_eq!(header("=?US-ASCII?Q?Keith_Moore?= <moore@cs.utk.edu>"), ["Keith Moore <moore@cs.utk.edu>"]);
    assert_eq!(
        header("=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=\n =?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?="),
        ["If you can read this you understand the example."]
    );
    assert_eq!(header("=?ISO-8859-1?Q?a?= b"), ["a b"]);
    assert_eq!(header("=?ISO-8859-1?Q?a?=\n    =?ISO-8859-1?Q?b?="), ["ab"]);
    assert_eq!(header("=?ISO-8859-1?Q?a_b?="), ["a b"]);
}

#[test]
fn header_values_are_unfolded_and_always_text() {
    assert_eq!(header("one\n two\n\tthree "), ["one two three"]);
    assert_eq!(header("Müller"), ["Müller"]);
    assert_eq!(Structure::parse(b"Subject: M\xfcller\r\n\r\n").header_values("subject"), ["Müller"]);
    assert_eq!(header(""), [""]);
    assert_eq!(Structure::parse(b"A: 1\r\na: 2\r\nB: 3\r\n\r\nA: 4\r\n").header_values("a"), ["1", "2"]);
}

#[test]
fn the_header_fields_of_all_parts_are_visited() {
    let raw = crlf(
        "Subject: =?utf-8?q?=C3=A4?=\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\nSubject: in\n\nx\n--b--\n",
    );
    let mut fields = Vec::new();
    Structure::parse(&raw).header_texts(&mut |field| {
        fields.push(field.to_owned());
        true
    });
    assert_eq!(fields, ["Subject: ä", "Content-Type: multipart/mixed; boundary=b", "Content-Type: message/rfc822", "Subject: in"]);
}

#[test]
fn the_sent_date_is_the_day_that_is_written() {
    let sent = |value: &str| Structure::parse(&crlf(&format!("Date: {value}\n\n"))).sent_date();
    assert_eq!(sent("Fri, 21 Nov 1997 09:55:06 -0600"), Some((880_127_706, (1997, 11, 21))));
    assert_eq!(sent("Fri, 21 Nov 1997 23:55:06 -0600").unwrap().1, (1997, 11, 21), "though it is the 22nd in UTC");
    assert_eq!(sent("Tue, 21 Nov 1997 09:55:06 -0600"), sent("Fri, 21 Nov 1997 09:55:06 -0600"), "a wrong weekday");
    assert_eq!(sent("21 Nov 97 09:55:06 GMT").unwrap().1, (1997, 11, 21), "RFC 5322 §4.3");
    assert_eq!(sent("Fri, 21 Nov 1997 09(comment):   55  :  06 -0600").unwrap().1, (1997, 11, 21), "RFC 5322 §A.5");
    for utc in ["21 Nov 1997 15:55:06", "Fri, 21 Nov 1997\n 15:55:06", "21 Nov 97 15:55:06 XYZ"] {
        assert_eq!(sent(utc), sent("21 Nov 1997 15:55:06 +0000"), "{utc:?} (RFC 5256 §2.2)");
    }
    assert_eq!(sent("Fri, 21 Nov 1997"), sent("21 Nov 1997 00:00:00 +0000"));
    for broken in ["", "yesterday", "99 Nov 1997 09:55:06 -0600", "99 Nov 1997", "Fri Nov 21 09:55:06 1997", "1997 11 21"] {
        assert_eq!(sent(broken), None, "{broken:?}");
    }
    assert_eq!(Structure::parse(b"\r\n").sent_date(), None);
}
