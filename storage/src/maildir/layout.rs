//! Mailbox name ↔ Maildir++ folder (`Archive/2026` ↔ `.Archive.2026`), the files beside the mail, and the `subscriptions` file.
//!
//! `subscriptions` has one mailbox name per line in modified UTF-7, levels separated by `/`, as Dovecot writes it (version 1) for a `/` namespace;
//! its version 2 (a `V\t2` line first, levels separated by tabs) is read as well, and `.` as a separator, as Courier and Dovecot with `.` write.

use std::collections::BTreeSet;

use crate::{
    MailboxName, SpecialUse,
    filesystem::Entry,
    names::{decode_utf7, encode_utf7},
};

/// The file with the subscriptions, in the Maildir.
pub(crate) const SUBSCRIPTIONS_FILE: &str = "subscriptions";
/// Longest `subscriptions` file that is read: tens of thousands of names.
pub(crate) const SUBSCRIPTIONS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// An empty file that says that a folder is a mailbox (Maildir++).
pub(crate) const FOLDER_MARK: &str = "maildirfolder";
/// Folders on their way out: no leading dot, so that no listing of mailboxes shows them.
pub(crate) const DELETED_PREFIX: &str = "berth-deleted,";
/// Folders on their way in.
pub(crate) const CREATING_PREFIX: &str = "berth-creating,";
const SPECIAL_USE_PREFIX: &str = "berth-special-use,";
const VALIDITY_PREFIX: &str = "berth-uidvalidity,";

/// A dot within a level, which Maildir++ can't have: modified UTF-7 that no other encoder writes.
const DOT: &str = "&AC4-";

/// The folder of a mailbox below the Maildir; empty for the inbox.
pub(crate) fn folder_of(name: &MailboxName) -> String {
    if name.is_inbox() {
        return String::new();
    }
    name.as_str().split('/').map(|level| format!(".{}", encode_utf7(level).replace('.', DOT))).collect()
}

/// The mailbox in a folder below the Maildir; `None`: the folder is none.
pub(crate) fn name_of(folder: &str) -> Option<MailboxName> {
    if folder.is_empty() {
        return Some(MailboxName::inbox());
    }
    let levels: Vec<String> = folder.strip_prefix('.')?.split('.').map(decode_level).collect();
    let name = MailboxName::parse(&levels.join("/")).ok()?;
    // `.INBOX` would be a second inbox, and a name that is spelt in another way would lead nowhere.
    (!name.is_inbox() && folder_of(&name) == folder).then_some(name)
}

fn decode_level(level: &str) -> String {
    decode_utf7(&level.replace(DOT, ".")).unwrap_or_else(|| level.to_owned())
}

/// The names in a `subscriptions` file.
pub(crate) fn parse_subscriptions(file: &[u8]) -> BTreeSet<MailboxName> {
    let text = String::from_utf8_lossy(file);
    let tabs = text.starts_with("V\t2");
    let separator = |line: &str| match (tabs, line.contains('/')) {
        (true, _) => '\t',
        (false, true) => '/',
        (false, false) => '.',
    };
    let names = text.lines().skip(usize::from(tabs)).filter(|line| !line.is_empty()).filter_map(|line| {
        let levels: Vec<String> = line.split(separator(line)).map(decode_level).collect();
        MailboxName::parse(&levels.join("/")).ok()
    });
    names.collect()
}

/// The content of a `subscriptions` file.
pub(crate) fn print_subscriptions(names: &BTreeSet<MailboxName>) -> String {
    let encode =
        |name: &MailboxName| name.as_str().split('/').map(|level| encode_utf7(level).replace('.', DOT)).collect::<Vec<_>>().join("/");
    names.iter().map(|name| encode(name) + "\n").collect()
}

/// The empty file in a mailbox folder that carries its special use.
pub(crate) fn special_use_file(special_use: SpecialUse) -> String {
    format!("{SPECIAL_USE_PREFIX}{}", special_use_name(special_use))
}

/// The special use that a listing of a mailbox folder shows.
pub(crate) fn find_special_use(entries: &[Entry]) -> Option<SpecialUse> {
    entries.iter().find_map(|entry| special_use_from(entry.name.strip_prefix(SPECIAL_USE_PREFIX)?))
}

const SPECIAL_USES: [(SpecialUse, &str); 7] = [
    (SpecialUse::All, "All"),
    (SpecialUse::Archive, "Archive"),
    (SpecialUse::Drafts, "Drafts"),
    (SpecialUse::Flagged, "Flagged"),
    (SpecialUse::Junk, "Junk"),
    (SpecialUse::Sent, "Sent"),
    (SpecialUse::Trash, "Trash"),
];

/// As the index stores it.
pub(crate) fn special_use_name(special_use: SpecialUse) -> &'static str {
    SPECIAL_USES.iter().find(|(known, _)| *known == special_use).map_or("", |(_, name)| name)
}

/// What [`special_use_name`] gave.
pub(crate) fn special_use_from(name: &str) -> Option<SpecialUse> {
    SPECIAL_USES.iter().find(|(_, known)| *known == name).map(|(special_use, _)| *special_use)
}

/// The empty file in the Maildir whose name carries the highest UIDVALIDITY given to any mailbox of the user.
pub(crate) fn validity_file(highest: u32) -> String {
    format!("{VALIDITY_PREFIX}{highest}")
}

/// The highest UIDVALIDITY given, from a listing of the Maildir.
pub(crate) fn find_validity(entries: &[Entry]) -> Option<u32> {
    entries.iter().filter_map(|entry| entry.name.strip_prefix(VALIDITY_PREFIX)?.parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> MailboxName {
        MailboxName::parse(text).unwrap()
    }

    #[test]
    fn folders_are_read_back() {
        for (mailbox, folder) in
            [("INBOX", ""), ("Archive/2026", ".Archive.2026"), ("INBOX/Lists", ".INBOX.Lists"), ("Entwürfe", ".Entw&APw-rfe")]
        {
            assert_eq!(folder_of(&name(mailbox)), folder);
            assert_eq!(name_of(folder), Some(name(mailbox)));
        }
        for none in ["cur", ".INBOX", "berth-deleted,1", ".", "..", ".a..b"] {
            assert_eq!(name_of(none), None, "{none}");
        }
    }

    #[test]
    fn subscriptions_of_every_kind_are_read() {
        let expected: BTreeSet<_> = [name("Archive/2026"), name("Entwürfe"), name("INBOX")].into();
        assert_eq!(parse_subscriptions(print_subscriptions(&expected).as_bytes()), expected);
        assert_eq!(parse_subscriptions(b"V\t2\n\nArchive\t2026\nEntw&APw-rfe\nINBOX\n"), expected);
        assert_eq!(parse_subscriptions(b"Archive.2026\nEntw&APw-rfe\nINBOX\n"), expected);
    }

    #[test]
    fn special_uses_are_read_back() {
        for (special_use, name) in SPECIAL_USES {
            assert_eq!(special_use_from(special_use_name(special_use)), Some(special_use), "{name}");
            let entries = [Entry { name: special_use_file(special_use), is_folder: Some(false) }];
            assert_eq!(find_special_use(&entries), Some(special_use));
        }
    }
}
