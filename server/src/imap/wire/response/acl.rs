//! ACL, LISTRIGHTS and MYRIGHTS (RFC 4314 §3.6 to §3.8).

use bytes::{BufMut, BytesMut};

use super::{Names, mailbox_name, primitives::words};

/// `* ACL mailbox identifier rights …`
pub fn acl(out: &mut BytesMut, mailbox: &str, entries: &[(String, String)], names: Names) {
    out.put_slice(b"* ACL ");
    mailbox_name(out, mailbox, names);
    words(out, entries.iter().flat_map(|(identifier, rights)| [identifier.as_str(), rights.as_str()]));
}

/// `* LISTRIGHTS mailbox identifier required optional …`
pub fn list_rights<'a>(out: &mut BytesMut, mailbox: &str, identifier: &'a str, rights: impl IntoIterator<Item = &'a str>, names: Names) {
    out.put_slice(b"* LISTRIGHTS ");
    mailbox_name(out, mailbox, names);
    words(out, [identifier].into_iter().chain(rights));
}

/// `* MYRIGHTS mailbox rights`
pub fn my_rights(out: &mut BytesMut, mailbox: &str, rights: &str, names: Names) {
    out.put_slice(b"* MYRIGHTS ");
    mailbox_name(out, mailbox, names);
    words(out, [rights]);
}

#[cfg(test)]
mod tests {
    use super::{super::primitives::tests::written, *};

    #[test]
    fn the_examples_of_rfc_4314_are_known_answers() {
        let entries = [("Fred", "rwipslxetad"), ("-Fred", "wetd"), ("$team", "w")].map(|(who, rights)| (who.to_owned(), rights.to_owned()));
        assert_eq!(written(|out| acl(out, "INBOX", &entries, Names::default())), "* ACL INBOX Fred rwipslxetad -Fred wetd $team w\r\n");
        assert_eq!(
            written(|out| list_rights(out, "~/Mail/saved", "smith", ["la", "r", "swicdkxte"], Names::default())),
            "* LISTRIGHTS ~/Mail/saved smith la r swicdkxte\r\n"
        );
        assert_eq!(
            written(|out| list_rights(out, "archive.imap", "anyone", ["", "l", "r"], Names::default())),
            "* LISTRIGHTS archive.imap anyone \"\" l r\r\n"
        );
        assert_eq!(written(|out| my_rights(out, "INBOX", "rwiptsldaex", Names::default())), "* MYRIGHTS INBOX rwiptsldaex\r\n");
        assert_eq!(written(|out| my_rights(out, "a b", "", Names::default())), "* MYRIGHTS \"a b\" \"\"\r\n");
    }
}
