//! `maildirsize`, the Maildir++ file that tells other programs what a user may hold and holds: a line with the limits (`1000000S,1000C`), then lines with
//! bytes and messages to be added up, the first of them a count of everything.
//!
//! The holder writes it from its ledger, in the background; usage is never read from it. A whole new file takes the place of the old one by rename, and
//! changes are appended to it: both are what an `open` on another host sees (the file's holder keeps it open for no longer than a line takes).
//! Limits are read from it for users whom no rule limits, as Dovecot does.

use std::{path::PathBuf, time::Duration};

use super::{Limits, Usage};
use crate::{StorageError, filesystem::read_small, maildir::layout::WRITING_PREFIX, store::Store};

/// In the Maildir.
pub(crate) const MAILDIRSIZE_FILE: &str = "maildirsize";
/// The format's own bound: a longer file is to be written anew. It is also all that is ever read of one.
const BYTES_MAX: usize = 5_120;
/// How long changes may wait before they are written: each time is a few requests, and no delivery waits for them.
const EVERY: Duration = Duration::from_secs(60);
/// How old a file may become before it is written anew, as the format has it.
const RENEWED_AFTER: Duration = Duration::from_secs(15 * 60);

/// What this holder knows of the file.
#[derive(Debug, Default)]
pub(crate) struct Maildirsize {
    /// Whether there was a file when the account was opened.
    pub was_there: bool,
    /// The limits that it had then, once they were read.
    pub said: Option<Limits>,
    /// What was held when the account was opened: the holder before wrote that.
    pub opened_with: Option<Usage>,
    written: Option<Written>,
    looked: Duration,
}

/// What was written last.
#[derive(Debug, Clone, Copy)]
struct Written {
    usage: Usage,
    limits: Limits,
    recounts: u64,
    bytes: usize,
    renewed: Duration,
}

impl Maildirsize {
    /// Brings the file up to date if that is due, or `now`. Only users with limits have one.
    pub fn keep(&mut self, store: &Store, now: bool) -> Result<(), StorageError> {
        let time = store.now();
        if !now && time.saturating_sub(self.looked) < EVERY {
            return Ok(());
        }
        self.looked = time;
        let (usage, limits, recounts) = store.quota.main();
        let path = store.paths.maildir.join(MAILDIRSIZE_FILE);
        if !limits.any() {
            // What we wrote would go on to say what does not hold any more.
            if self.written.take().is_some() {
                store.filesystem.remove_file(&path).map_err(store.io("can't remove", path))?;
            }
            return Ok(());
        }
        if self.written.is_none() && self.was_there && recounts == 0 && self.opened_with == Some(usage) {
            return Ok(());
        }
        let same = |written: &Written| written.limits == limits && written.recounts == recounts;
        match self.written {
            Some(written) if same(&written) && written.usage == usage => Ok(()),
            Some(written) if same(&written) && written.bytes < BYTES_MAX && time.saturating_sub(written.renewed) < RENEWED_AFTER => {
                let line = line(difference(usage.bytes, written.usage.bytes), difference(usage.messages, written.usage.messages));
                store.ensure_not_abandoned()?;
                match store.filesystem.append(&path, line.as_bytes()) {
                    Ok(()) => {
                        self.written = Some(Written { usage, bytes: written.bytes + line.len(), ..written });
                        Ok(())
                    }
                    // Another program removed it, which is how some ask for a new count.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.renew(store, path, usage, limits, recounts),
                    Err(error) => Err(store.io("can't add to", path)(error)),
                }
            }
            _ => self.renew(store, path, usage, limits, recounts),
        }
    }

    /// As [`Maildirsize::renew_now`]; without limits it is removed, whoever wrote it.
    pub fn limits_changed(&mut self, store: &Store) -> Result<(), StorageError> {
        if store.quota.main().1.any() {
            return self.renew_now(store);
        }
        (self.written, self.was_there) = (None, false);
        let path = store.paths.maildir.join(MAILDIRSIZE_FILE);
        store.filesystem.remove_file(&path).map(drop).map_err(store.io("can't remove", path))
    }
    /// Writes a whole new file, for users with limits.
    pub fn renew_now(&mut self, store: &Store) -> Result<(), StorageError> {
        let (usage, limits, recounts) = store.quota.main();
        let path = store.paths.maildir.join(MAILDIRSIZE_FILE);
        if limits.any() { self.renew(store, path, usage, limits, recounts) } else { Ok(()) }
    }

    fn renew(&mut self, store: &Store, path: PathBuf, usage: Usage, limits: Limits, recounts: u64) -> Result<(), StorageError> {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let content = print_limits(limits) + "\n" + &line(signed(usage.bytes), signed(usage.messages));
        let scratch = store.paths.maildir.join(format!("{WRITING_PREFIX}{}", store.scratch()));
        store.replace_small(&path, &scratch, content.as_bytes())?;
        self.was_there = true;
        self.written = Some(Written { usage, limits, recounts, bytes: content.len(), renewed: store.now() });
        Ok(())
    }

    /// The limits that the file says.
    pub fn limits(store: &Store) -> Result<Limits, StorageError> {
        let path = store.paths.maildir.join(MAILDIRSIZE_FILE);
        let file = read_small(store.filesystem.as_ref(), &path, BYTES_MAX).map_err(store.io("can't read", path))?;
        Ok(file.map(|file| parse_limits(&file)).unwrap_or_default())
    }
}

/// Bytes and messages, to be added.
fn line(bytes: i64, messages: i64) -> String {
    format!("{bytes} {messages}\n")
}

fn difference(now: u64, before: u64) -> i64 {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    if now >= before { signed(now - before) } else { -signed(before - now) }
}

/// 0 means any there.
fn print_limits(limits: Limits) -> String {
    let parts = [limits.bytes.map(|bytes| format!("{}S", bytes.max(1))), limits.messages.map(|messages| format!("{}C", messages.max(1)))];
    parts.into_iter().flatten().collect::<Vec<_>>().join(",")
}

/// What is no limit is left out.
fn parse_limits(file: &[u8]) -> Limits {
    let text = String::from_utf8_lossy(file);
    let mut limits = Limits::default();
    for part in text.lines().next().unwrap_or_default().split(',') {
        let number = |digits: &str| digits.parse::<u64>().ok().filter(|number| *number > 0);
        if let Some(bytes) = part.strip_suffix('S') {
            limits.bytes = number(bytes);
        } else if let Some(messages) = part.strip_suffix('C') {
            limits.messages = number(messages);
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_maildir_plus_plus_has_them() {
        for (limits, text) in [
            (Limits { bytes: Some(1_000_000), messages: Some(1_000) }, "1000000S,1000C"),
            (Limits { bytes: None, messages: Some(3) }, "3C"),
            (Limits::default(), ""),
        ] {
            assert_eq!(print_limits(limits), text);
            assert_eq!(parse_limits(format!("{text}\n12 1\n").as_bytes()), limits);
        }
        assert_eq!(parse_limits(b"0S,x7C,\xff\n"), Limits::default());
    }
}
