//! The beginning of a message's text (PREVIEW, RFC 8970).

use proptest::prelude::*;

use super::*;

fn preview(message: &str) -> String {
    Structure::parse(message.replace('\n', "\r\n").as_bytes()).preview()
}

#[test]
fn a_preview_is_what_a_reader_reads_first() {
    let plain = "Subject: x\n\nOn Monday Ada wrote:\n> quoted\n\n\u{200b}\u{200c} Yes,\tof   course.\n-- \nSignature\n";
    assert_eq!(preview(plain), "On Monday Ada wrote: Yes, of course.");
    let html = "Content-Type: text/html; charset=utf-8\n\n<html><head><title>T</title><style>p { color: red }</style></head>\
                <body><script>x()</script><p>Caf&eacute; <b>o</b>pen&nbsp;now</p></body></html>\n";
    let shown = preview(html);
    assert!(shown.contains("Caf\u{e9} open now") && !shown.contains("color") && !shown.contains("x()") && !shown.contains('<'), "{shown}");
    let alternative =
        "Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/html\n\n<p>html</p>\n--b\n\nplain\n--b--\n";
    assert_eq!(preview(alternative), "plain");
    let empty_plain = "Content-Type: multipart/alternative; boundary=b\n\n--b\n\n \n--b\nContent-Type: text/html\n\n<p>html</p>\n--b--\n";
    assert_eq!(preview(empty_plain), "html");
    let attached =
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Disposition: attachment; filename=a.txt\n\nfile\n--b\n\nletter\n--b--\n";
    assert_eq!(preview(attached), "letter");
    let encoded = "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nGr=FC=DFe =\nan alle\n";
    assert_eq!(preview(encoded), "Gr\u{fc}\u{df}e an alle");
    for nothing_to_read in [
        "Subject: x\n\n",
        "Content-Type: image/png\nContent-Transfer-Encoding: base64\n\niVBORw0KGgo=\n",
        "Content-Type: multipart/encrypted; boundary=b\n\n--b\nContent-Type: application/pgp-encrypted\n\nVersion: 1\n--b\nContent-Type: application/octet-stream\n\nx\n--b--\n",
        "\n-----BEGIN PGP MESSAGE-----\n\nhQEMA\n-----END PGP MESSAGE-----\n",
    ] {
        assert_eq!(preview(nothing_to_read), "", "{nothing_to_read}");
    }
}

#[test]
fn a_long_text_is_cut_between_characters() {
    let long = preview(&format!(
        "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{}\n",
        "\u{fc}\u{1f600}".repeat(500)
    ));
    assert_eq!(long, "\u{fc}\u{1f600}".repeat(100));
    assert_eq!(preview(&format!("\n{} end\n", "x".repeat(199))), "x".repeat(199));
    assert_eq!(preview(&format!("\n{}\nend\n", "> quoted\n".repeat(10_000))), "", "no more is looked at");
}

proptest! {
    #[test]
    fn any_message_has_a_short_preview(header in "(Content-(Type|Transfer-Encoding): (text/html|text/plain; charset=x|multipart/mixed; boundary=b|base64)\r\n){0,3}", body in prop::collection::vec(any::<u8>(), 0..600)) {
        let message = [header.as_bytes(), b"\r\n--b\r\n\r\n", &body].concat();
        let preview = Structure::parse(&message).preview();
        prop_assert!(preview.chars().count() <= 200 && !preview.contains(|character: char| character.is_control()));
    }
}
