//! QUOTA and QUOTAROOT (RFC 9208 §4.2).

use bytes::{BufMut, BytesMut};

use super::{Names, mailbox_name, number, string};

/// Largest number that IMAP has room for (RFC 9051 §9 `number64`).
const NUMBER_MAX: u64 = u64::MAX >> 1;

/// A limited resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// `STORAGE`, `MESSAGE` or `MAILBOX`.
    pub name: &'static str,
    /// STORAGE: in units of 1024 bytes.
    pub usage: u64,
    /// Likewise.
    pub limit: u64,
}

/// `* QUOTA "root" (STORAGE 10 512 …)`.
pub fn quota(out: &mut BytesMut, root: &str, resources: &[Resource]) {
    out.put_slice(b"* QUOTA ");
    string(out, root.as_bytes());
    out.put_slice(b" (");
    for (position, Resource { name, usage, limit }) in resources.iter().enumerate() {
        if position > 0 {
            out.put_u8(b' ');
        }
        out.put_slice(name.as_bytes());
        for value in [usage, limit] {
            out.put_u8(b' ');
            number(out, (*value).min(NUMBER_MAX));
        }
    }
    out.put_slice(b")\r\n");
}

/// `* QUOTAROOT mailbox "root" …`.
pub fn quota_root<'a>(out: &mut BytesMut, mailbox: &str, roots: impl Iterator<Item = &'a str>, names: Names) {
    out.put_slice(b"* QUOTAROOT ");
    mailbox_name(out, mailbox, names);
    for root in roots {
        out.put_u8(b' ');
        string(out, root.as_bytes());
    }
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_9208_are_known_answers() {
        let written = |write: &dyn Fn(&mut BytesMut)| {
            let mut out = BytesMut::new();
            write(&mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        let storage = |usage, limit| Resource { name: "STORAGE", usage, limit };
        let message = Resource { name: "MESSAGE", usage: 42, limit: 1000 };
        let examples = [
            (written(&|out| quota(out, "", &[storage(10, 512)])), "* QUOTA \"\" (STORAGE 10 512)\r\n"),
            (
                written(&|out| quota(out, "!partition/sda4", &[storage(104, 10_923_847)])),
                "* QUOTA \"!partition/sda4\" (STORAGE 104 10923847)\r\n",
            ),
            (
                written(&|out| quota(out, "#user/alice", &[storage(54, 111), message])),
                "* QUOTA \"#user/alice\" (STORAGE 54 111 MESSAGE 42 1000)\r\n",
            ),
            (written(&|out| quota(out, "x", &[])), "* QUOTA \"x\" ()\r\n"),
            (
                written(&|out| quota_root(out, "INBOX", ["#user/alice", "!partition/sda4"].into_iter(), Names::default())),
                "* QUOTAROOT INBOX \"#user/alice\" \"!partition/sda4\"\r\n",
            ),
            (written(&|out| quota_root(out, "comp.mail.mime", [].into_iter(), Names::default())), "* QUOTAROOT comp.mail.mime\r\n"),
        ];
        for (written, expected) in examples {
            assert_eq!(written, expected);
        }
    }
}
