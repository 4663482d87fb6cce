//! Small files beside the mail, for what file names can't carry and no earlier server had a file for: `berth-<what>,<generation>` in a mailbox folder.
//!
//! A file is written whole under a new name and never changed, so that no reader, on whatever node, sees an old or half a one: the name comes from
//! a fresh listing, the highest generation counts, and a name that nobody opened before can't be stale. An administrator reads and edits them as
//! text: save the edited one under the next higher number while nobody holds the user.
//!
//! Invariants, each with the test that guards it:
//! - the newest whole file is read, whatever was interrupted (`the_newest_file_counts_and_older_ones_go`)

use std::{io, path::Path};

use crate::filesystem::{Entry, Filesystem, read_small, remove_quietly};

/// Longest such file that is read.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// One kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beside {
    /// `berth-<what>,`
    prefix: &'static str,
}

/// Keywords without letters.
pub(crate) const KEYWORDS: Beside = Beside { prefix: "berth-keywords," };

impl Beside {
    /// The newest generation in a listing of the folder.
    fn newest(self, entries: &[Entry]) -> Option<u64> {
        entries.iter().filter_map(|entry| self.generation(&entry.name)).max()
    }
    fn generation(self, name: &str) -> Option<u64> {
        name.strip_prefix(self.prefix)?.parse().ok()
    }
    fn file(self, generation: u64) -> String {
        format!("{}{generation}", self.prefix)
    }
    /// The newest content; `entries` is a fresh listing of `folder`.
    pub fn read(self, filesystem: &dyn Filesystem, folder: &Path, entries: &[Entry]) -> io::Result<Option<Vec<u8>>> {
        match self.newest(entries) {
            Some(generation) => read_small(filesystem, &folder.join(self.file(generation)), BYTES_MAX),
            None => Ok(None),
        }
    }
    /// Writes a new generation, durably, and removes the older ones. `scratch`: a unique name on the same file system.
    pub fn write(self, filesystem: &dyn Filesystem, folder: &Path, scratch: &Path, content: &[u8]) -> io::Result<()> {
        let entries = filesystem.list(folder)?;
        let next = self.newest(&entries).map_or(1, |newest| newest.saturating_add(1));
        let written = (|| {
            let mut file = filesystem.create(scratch)?;
            file.write(content)?;
            file.finish()?;
            filesystem.rename(scratch, &folder.join(self.file(next)))?;
            filesystem.sync_folder(folder)
        })();
        if written.is_err() {
            remove_quietly(filesystem, scratch);
            return written;
        }
        for older in entries.iter().filter(|entry| self.generation(&entry.name).is_some()) {
            remove_quietly(filesystem, &folder.join(&older.name));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filesystem::{Failure, Faulty, Shared};

    #[test]
    fn the_newest_file_counts_and_older_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let scratch = path.join("scratch");
        let read = || KEYWORDS.read(&Shared, path, &Shared.list(path).unwrap()).unwrap();
        assert_eq!(read(), None);
        for number in 1..12 {
            let content = vec![number; 100];
            KEYWORDS.write(&Shared, path, &scratch, &content).unwrap();
            assert_eq!(read(), Some(content));
        }
        let names: Vec<String> = Shared.list(path).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["berth-keywords,11"]);
        // Whatever fails, the content is the old one or the new one, and the next write cleans up.
        let faulty = Faulty::new(5);
        for call in 1..=6 {
            faulty.fail_at(call, Failure::FromThenOn);
            let before = read();
            let written = KEYWORDS.write(&faulty, path, &path.join(format!("scratch{call}")), &[b'a' + u8::try_from(call).unwrap()]);
            faulty.heal();
            let after = read();
            assert!(after == before || after == Some(vec![b'a' + u8::try_from(call).unwrap()]), "call {call}");
            assert!(written.is_err() || after != before, "call {call}");
        }
    }
}
