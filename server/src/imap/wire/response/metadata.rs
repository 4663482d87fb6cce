//! METADATA (RFC 5464 §4.4).

use bytes::{BufMut, BytesMut};

use super::{Names, astring, literal_header, mailbox_name, primitives::words, string};

/// `* METADATA mailbox (entry value …)`; at least one entry. `mailbox`: empty for the server; no value: NIL.
pub fn metadata<'a>(out: &mut BytesMut, mailbox: &str, entries: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>, names: Names) {
    out.put_slice(b"* METADATA ");
    mailbox_name(out, mailbox, names);
    for (position, (entry, value)) in entries.into_iter().enumerate() {
        out.put_slice(if position == 0 { b" (" } else { b" " });
        astring(out, entry.as_bytes());
        out.put_u8(b' ');
        match value {
            None => out.put_slice(b"NIL"),
            Some(value) if value.contains(&0) => {
                out.put_u8(b'~');
                literal_header(out, value.len() as u64);
                out.put_slice(value);
            }
            Some(value) => string(out, value),
        }
    }
    out.put_slice(b")\r\n");
}

/// `* METADATA mailbox entry …`: what changed (RFC 5464 §4.4.2); at least one entry.
pub fn metadata_changed<'a>(out: &mut BytesMut, mailbox: &str, entries: impl IntoIterator<Item = &'a str>, names: Names) {
    out.put_slice(b"* METADATA ");
    mailbox_name(out, mailbox, names);
    words(out, entries);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_5464_are_known_answers() {
        let written = |mailbox: &str, entries: &[(&str, Option<&[u8]>)]| {
            let mut out = BytesMut::new();
            metadata(&mut out, mailbox, entries.iter().copied(), Names::default());
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(
            written("", &[("/shared/comment", Some(b"Shared comment"))]),
            "* METADATA \"\" (/shared/comment \"Shared comment\")\r\n"
        );
        assert_eq!(
            written("INBOX", &[("/shared/comment", Some(b"Shared comment")), ("/private/comment", Some(b"My own comment"))]),
            "* METADATA INBOX (/shared/comment \"Shared comment\" /private/comment \"My own comment\")\r\n"
        );
        assert_eq!(
            written("INBOX", &[("/private/filters/values/boss", Some(b"FROM \"boss@example.com\""))]),
            "* METADATA INBOX (/private/filters/values/boss \"FROM \\\"boss@example.com\\\"\")\r\n"
        );
        let two_lines = b"My new comment across\r\ntwo lines.\r\n";
        assert_eq!(
            written("INBOX", &[("/private/comment", Some(two_lines)), ("/private/x y", None)]),
            "* METADATA INBOX (/private/comment {35}\r\nMy new comment across\r\ntwo lines.\r\n \"/private/x y\" NIL)\r\n"
        );
        let mut out = BytesMut::new();
        metadata_changed(&mut out, "INBOX", ["/shared/comment"], Names::default());
        metadata_changed(&mut out, "", ["/shared/comment", "/private/x y"], Names::default());
        assert_eq!(&out[..], b"* METADATA INBOX /shared/comment\r\n* METADATA \"\" /shared/comment \"/private/x y\"\r\n");
        assert_eq!(written("&", &[("/private/x", Some(b"\0"))]), "* METADATA &- (/private/x ~{1}\r\n\0)\r\n");
    }
}
