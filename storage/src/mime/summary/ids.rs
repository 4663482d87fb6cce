//! Message-IDs in the one form in which they are compared (RFC 5256 §3: "MUST normalize any msg-id").

/// The valid Message-IDs in a header field, in order, without their brackets: quotes that make no difference and white space are left out,
/// and what stands between the IDs is passed over.
pub fn message_ids(value: &[u8]) -> Vec<Box<[u8]>> {
    let mut ids = Vec::new();
    let mut id: Option<Id> = None;
    let mut bytes = value.iter().copied();
    while let Some(byte) = bytes.next() {
        match (byte, &mut id) {
            (b'"', Some(open)) => open.quoted = !open.quoted,
            (b'\\', Some(open)) if open.quoted => open.text.extend(bytes.next()),
            (_, Some(open)) if open.quoted => open.text.push(byte),
            (b'<', _) => id = Some(Id::default()),
            (b'>', Some(_)) => ids.extend(id.take().and_then(Id::valid)),
            (b' ' | b'\t' | b'\r' | b'\n', _) | (_, None) => {}
            (_, Some(open)) => {
                if byte == b'@' {
                    open.at = Some(open.text.len());
                }
                open.text.push(byte);
            }
        }
    }
    ids
}

/// An ID that is being read.
#[derive(Default)]
struct Id {
    text: Vec<u8>,
    /// Where the last `@` outside of quotes is.
    at: Option<usize>,
    quoted: bool,
}

impl Id {
    /// `id-left "@" id-right`, neither empty.
    fn valid(self) -> Option<Box<[u8]>> {
        let at = self.at?;
        (at > 0 && at + 1 < self.text.len()).then(|| self.text.into_boxed_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(value: &str) -> Vec<String> {
        message_ids(value.as_bytes()).iter().map(|id| String::from_utf8_lossy(id).into_owned()).collect()
    }

    #[test]
    fn quoting_makes_no_difference() {
        assert_eq!(ids("<\"01KF8JCEOCBS0045PS\"@xxx.yyy.com>"), ids("<01KF8JCEOCBS0045PS@xxx.yyy.com>"));
        assert_eq!(ids("<\"a\\\"b\"@c>"), ["a\"b@c"]);
        assert_eq!(ids("<\"a>b\"@c>"), ["a>b@c"]);
    }

    #[test]
    fn ids_are_found_among_other_things() {
        assert_eq!(ids("<a@b> <c@d>,<e@f>\r\n\t<g@h>"), ["a@b", "c@d", "e@f", "g@h"]);
        assert_eq!(ids("Your message of Monday <a@b> from <<c@d>"), ["a@b", "c@d"]);
        assert_eq!(ids("<a @ b>"), ["a@b"]);
    }

    #[test]
    fn what_is_no_id_is_passed_over() {
        assert_eq!(ids("<a> <@b> <a@> <> a@b <a@b"), [""; 0]);
        assert_eq!(ids("<\"a@b\">"), [""; 0]);
        assert_ne!(ids("<a@b>"), ids("<A@b>"));
    }
}
