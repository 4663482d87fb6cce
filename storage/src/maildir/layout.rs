//! The files beside the mail, and the `subscriptions` file.
//!
//! `subscriptions` has one mailbox name per line in modified UTF-7, levels separated by `/`, as Dovecot writes it (version 1) for a `/` namespace;
//! its version 2 (a `V\t2` line first, levels separated by tabs) is read as well, and `.` as a separator, as Courier and Dovecot with `.` write.

use std::collections::BTreeSet;

use crate::{
    Layout, MailboxName, SpecialUse,
    filesystem::Entry,
    names::{decode_utf7, encode_utf7},
};

/// The file with the subscriptions, in the Maildir.
pub(crate) const SUBSCRIPTIONS_FILE: &str = "subscriptions";
/// Longest `subscriptions` file that is read and written: tens of thousands of names. Tests have few.
pub(crate) const SUBSCRIPTIONS_BYTES_MAX: usize = if cfg!(test) { 64 * 1024 } else { 4 * 1024 * 1024 };
/// An empty file that says that a folder is a mailbox (Maildir++).
pub(crate) const FOLDER_MARK: &str = "maildirfolder";
/// Folders on their way out: no leading dot, so that no listing of mailboxes shows them.
pub(crate) const DELETED_PREFIX: &str = "berth-deleted,";
/// Folders on their way in.
pub(crate) const CREATING_PREFIX: &str = "berth-creating,";
/// Files on their way in, where there is no `tmp`.
pub(crate) const WRITING_PREFIX: &str = "berth-writing,";
const SPECIAL_USE_PREFIX: &str = "berth-special-use,";
const VALIDITY_PREFIX: &str = "berth-uidvalidity,";

/// The names in a `subscriptions` file.
pub(crate) fn parse_subscriptions(file: &[u8], layout: Layout) -> BTreeSet<MailboxName> {
    let text = String::from_utf8_lossy(file);
    let tabs = text.starts_with("V\t2");
    // In the layout `fs`, levels may have a dot.
    let separator = |line: &str| match (tabs, line.contains('/') || layout == Layout::Fs) {
        (true, _) => '\t',
        (false, true) => '/',
        (false, false) => '.',
    };
    let names = text.lines().skip(usize::from(tabs)).filter(|line| !line.is_empty()).filter_map(|line| {
        let levels: Vec<String> = line.split(separator(line)).map(|level| decode_utf7(level).unwrap_or_else(|| level.to_owned())).collect();
        MailboxName::parse(&levels.join("/")).ok()
    });
    names.collect()
}

/// The content of a `subscriptions` file.
pub(crate) fn print_subscriptions(names: &BTreeSet<MailboxName>) -> String {
    names.iter().map(|name| encode_utf7(name.as_str()) + "\n").collect()
}

/// The empty file in a mailbox folder that carries its special use.
pub(crate) fn special_use_file(special_use: SpecialUse) -> String {
    format!("{SPECIAL_USE_PREFIX}{}", special_use_name(special_use))
}

/// The special use that a listing of a mailbox folder shows.
pub(crate) fn find_special_use(entries: &[Entry]) -> Option<SpecialUse> {
    entries.iter().find_map(|entry| special_use_from(entry.name.strip_prefix(SPECIAL_USE_PREFIX)?))
}

/// As the index stores it.
pub(crate) fn special_use_name(special_use: SpecialUse) -> &'static str {
    special_use.as_str().trim_start_matches('\\')
}

/// What [`special_use_name`] gave.
pub(crate) fn special_use_from(name: &str) -> Option<SpecialUse> {
    SpecialUse::ALL.into_iter().find(|special_use| special_use_name(*special_use) == name)
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
    fn subscriptions_of_every_kind_are_read() {
        let expected: BTreeSet<_> = [name("Archive/2026"), name("Entwürfe"), name("INBOX")].into();
        assert_eq!(parse_subscriptions(print_subscriptions(&expected).as_bytes(), Layout::default()), expected);
        assert_eq!(parse_subscriptions(b"V\t2\n\nArchive\t2026\nEntw&APw-rfe\nINBOX\n", Layout::default()), expected);
        assert_eq!(parse_subscriptions(b"Archive.2026\nEntw&APw-rfe\nINBOX\n", Layout::default()), expected);
        assert_eq!(parse_subscriptions(b"20.26\n", Layout::Fs), [name("20.26")].into());
    }

    #[test]
    fn special_uses_are_read_back() {
        // What is in folders and indexes already must go on to be read.
        let on_disk = [
            (SpecialUse::All, "All"),
            (SpecialUse::Archive, "Archive"),
            (SpecialUse::Drafts, "Drafts"),
            (SpecialUse::Flagged, "Flagged"),
            (SpecialUse::Junk, "Junk"),
            (SpecialUse::Sent, "Sent"),
            (SpecialUse::Trash, "Trash"),
        ];
        for (special_use, name) in on_disk {
            assert_eq!(special_use_name(special_use), name);
            assert_eq!(special_use_from(special_use_name(special_use)), Some(special_use), "{name}");
            let entries = [Entry { name: special_use_file(special_use), is_folder: Some(false) }];
            assert_eq!(find_special_use(&entries), Some(special_use));
        }
    }
}
