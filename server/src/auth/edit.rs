//! Changes to the users file, for `berth user`.
//!
//! Invariants, each with the test that guards it:
//! - a reader sees the old file or the new one, never a part (`a_change_replaces_the_file_as_a_whole`)
//! - comments, order and fields that were not named stay (`a_change_touches_nothing_else`)
//! - two edits at once are one after the other (`edits_at_the_same_time_are_all_kept`)
//! - what root makes can be read by the nodes' account (`what_root_makes_is_the_nodes`)

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
    time::Duration,
};

use affinity::{NameRules, UserName, owner::follow_folder_of};
use anyhow::{Context, bail};

use super::passwd_file::{is_entry, user_of};

/// Hashes are for the server and its group alone.
const MODE: u32 = 0o640;
/// How long an edit waits for another one; each takes milliseconds, but a lock of a lost NFS client stays for 100 s.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(50);
const HEADER: &str = "# Users of Berth in Dovecot's passwd-file format: user:{SCHEME}password:uid:gid:gecos:home:shell:extra fields\n";

/// The lines of a users file, to be changed.
#[derive(Debug)]
pub struct Lines {
    lines: Vec<String>,
    /// Where each user's (first) line is: a file may have a hundred thousand.
    at: HashMap<UserName, usize>,
    rules: NameRules,
}

impl Lines {
    fn new(lines: Vec<String>, rules: &NameRules) -> Lines {
        let mut lines = Lines { lines, at: HashMap::new(), rules: rules.clone() };
        lines.find_all();
        lines
    }

    fn find_all(&mut self) {
        self.at.clear();
        for (at, line) in self.lines.iter().enumerate().filter(|(_, line)| is_entry(line)) {
            if let Ok(user) = user_of(line, &self.rules) {
                self.at.entry(user).or_insert(at);
            }
        }
    }

    /// Adds a user with a stored password.
    pub fn add(&mut self, user: &UserName, stored: &str) -> anyhow::Result<()> {
        if user.as_str().contains([':', '#']) {
            bail!("{user} can't be in a users file: it holds `:` or `#`");
        }
        if self.find(user).is_some() {
            bail!("{user} is there already: `berth user passwd {user}` changes the password");
        }
        self.at.insert(user.clone(), self.lines.len());
        self.lines.push(format!("{user}:{stored}::::::"));
        Ok(())
    }

    /// Changes a user's password and nothing else.
    pub fn set_password(&mut self, user: &UserName, stored: &str) -> anyhow::Result<()> {
        let line = self.find(user).and_then(|at| self.lines.get_mut(at)).with_context(|| not_there(user))?;
        let (name, rest) = line.split_once(':').unwrap_or((line.as_str(), "::::::"));
        let others = rest.split_once(':').map_or("", |(_, others)| others);
        *line = format!("{name}:{stored}:{others}");
        Ok(())
    }

    /// A user's stored password as it is now.
    pub fn password_of(&self, user: &UserName) -> Option<&str> {
        self.find(user).and_then(|at| self.lines.get(at)).and_then(|line| line.split(':').nth(1))
    }

    /// Removes a user. The mail stays.
    pub fn remove(&mut self, user: &UserName) -> anyhow::Result<()> {
        let at = self.find(user).with_context(|| not_there(user))?;
        self.lines.remove(at);
        self.find_all();
        Ok(())
    }

    fn find(&self, user: &UserName) -> Option<usize> {
        self.at.get(user).copied()
    }
}

fn not_there(user: &UserName) -> String {
    format!("no user {user}: `berth user list` shows all, `berth user add {user}` makes it")
}

/// Whether `file` has the user now; a missing file has nobody.
pub fn contains(file: &Path, rules: &NameRules, user: &UserName) -> anyhow::Result<bool> {
    Ok(read(file, rules)?.find(user).is_some())
}

/// Changes `file` under its lock; a missing file is made.
pub fn edit(file: &Path, rules: &NameRules, change: impl FnOnce(&mut Lines) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let lock = lock(file)?;
    let mut lines = read(file, rules)?;
    change(&mut lines)?;
    let mut new = lines.lines.join("\n");
    new.push('\n');
    replace(file, &new).with_context(|| format!("can't write the users file {}", file.display()))?;
    drop(lock);
    Ok(())
}

/// The same for a file of other lines, which is made with `header` where it is missing.
pub(super) fn edit_lines(file: &Path, header: &str, change: impl FnOnce(&mut Vec<String>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let lock = lock(file)?;
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!("{header}\n"),
        read => read.with_context(|| format!("can't read {}", file.display()))?,
    };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines)?;
    let mut new = lines.join("\n");
    new.push('\n');
    replace(file, &new).with_context(|| format!("can't write {}", file.display()))?;
    drop(lock);
    Ok(())
}

fn read(file: &Path, rules: &NameRules) -> anyhow::Result<Lines> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => HEADER.to_owned(),
        Err(error) => return Err(error).with_context(|| format!("can't read the users file {}", file.display())),
    };
    Ok(Lines::new(text.lines().map(str::to_owned).collect(), rules))
}

fn lock(file: &Path) -> anyhow::Result<File> {
    let path = beside(file, "lock");
    let is_new = !path.exists();
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    // Nodes lock the users file too, where they store weak passwords anew.
    let owned = lock.and_then(|lock| if is_new { follow_folder_of(&lock, &path).map(|()| lock) } else { Ok(lock) });
    let lock = owned.with_context(|| format!("can't open the lock {}", path.display()))?;
    let mut waited = Duration::ZERO;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if waited < LOCK_WAIT => {
                std::thread::sleep(LOCK_RETRY);
                waited += LOCK_RETRY;
            }
            Err(TryLockError::WouldBlock) => bail!("{} is being edited by somebody else: try again", file.display()),
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("can't lock {}", path.display())),
        }
    }
}

/// Writes beside, makes durable, renames over. Owner, group and mode of an existing file stay.
#[expect(clippy::disallowed_methods, reason = "the users file is neither cluster state nor mail: readers need either version whole")]
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let temporary = beside(file, &format!("tmp{}", std::process::id()));
    let written = write_new(&temporary, text, fs::metadata(file).ok().as_ref()).and_then(|()| fs::rename(&temporary, file));
    if let Err(error) = written {
        // The first error says more than a second one about the leftover.
        drop(fs::remove_file(&temporary));
        return Err(error);
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, text: &str, like: Option<&fs::Metadata>) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    let own = new.metadata()?;
    let mode = like.map_or(MODE, |old| old.permissions().mode() & MODE);
    match like {
        Some(old) if (old.uid(), old.gid()) != (own.uid(), own.gid()) => fchown(&new, Some(old.uid()), Some(old.gid()))?,
        Some(_) => {}
        None => follow_folder_of(&new, path)?,
    }
    new.set_permissions(Permissions::from_mode(mode))?;
    new.write_all(text.as_bytes())?;
    new.sync_all()
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{suffix}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserName {
        UserName::normalise(name).unwrap()
    }
    fn rules() -> NameRules {
        NameRules { local_domains: vec!["localhost".to_owned()], ..NameRules::default() }
    }

    #[test]
    fn a_change_touches_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        let before =
            "# our users\n\nAda@localhost:{PLAIN}a:1:2:g:/h:/s:nologin allow_nets=::1\n# next\nbob:{PLAIN}b\nbroken/line:x\ncarol\n";
        fs::write(&file, before).unwrap();
        edit(&file, &rules(), |lines| {
            lines.set_password(&user("ada"), "{PLAIN}new")?;
            lines.set_password(&user("carol"), "{PLAIN}c")?;
            lines.remove(&user("bob"))?;
            lines.add(&user("dave"), "{PLAIN}d")
        })
        .unwrap();
        let after = "# our users\n\nAda@localhost:{PLAIN}new:1:2:g:/h:/s:nologin allow_nets=::1\n# next\nbroken/line:x\ncarol:{PLAIN}c::::::\ndave:{PLAIN}d::::::\n";
        assert_eq!(fs::read_to_string(&file).unwrap(), after);
    }

    #[test]
    fn many_users_are_changed_in_one_pass() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        // Looked for line by line, each of 20,000 users would cost 20,000 names: minutes.
        let started = tokio::time::Instant::now();
        for stored in ["{PLAIN}a", "{PLAIN}b"] {
            edit(&file, &rules(), |lines| {
                (0..20_000)
                    .map(|n| user(&format!("user{n}")))
                    .try_for_each(|user| lines.set_password(&user, stored).or_else(|_| lines.add(&user, stored)))
            })
            .unwrap();
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!((text.lines().count(), text.contains("{PLAIN}a")), (20_001, false));
    }

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        fs::write(&file, "ada:a\n").unwrap();
        let said = |change: &dyn Fn(&mut Lines) -> anyhow::Result<()>| edit(&file, &rules(), change).unwrap_err().to_string();
        assert_eq!(said(&|lines| lines.add(&user("ada"), "x")), "ada is there already: `berth user passwd ada` changes the password");
        assert_eq!(
            said(&|lines| lines.set_password(&user("eve"), "x")),
            "no user eve: `berth user list` shows all, `berth user add eve` makes it"
        );
        assert!(said(&|lines| lines.remove(&user("eve"))).starts_with("no user eve"));
        assert!(said(&|lines| lines.add(&user("a:b"), "x")).starts_with("a:b can't be in a users file"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "ada:a\n");
    }

    #[test]
    fn a_change_replaces_the_file_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        edit(&file, &rules(), |lines| lines.add(&user("ada"), "a")).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        let old = File::open(&file).unwrap();
        let old_inode = old.metadata().unwrap().ino();
        edit(&file, &rules(), |lines| lines.add(&user("bob"), "b")).unwrap();
        assert_eq!(io::read_to_string(old).unwrap(), format!("{HEADER}ada:a::::::\n"), "an open file keeps what it was");
        assert_ne!(fs::metadata(&file).unwrap().ino(), old_inode);
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "only the file and its lock stay: {names:?}");
    }

    #[test]
    fn what_root_makes_is_the_nodes() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(folder.path(), Some(4242), Some(4343)).unwrap();
        let (users, others) = (folder.path().join("users"), folder.path().join("app-passwords"));
        edit(&users, &rules(), |lines| lines.add(&user("ada"), "a")).unwrap();
        edit_lines(&others, "# header", |lines| {
            lines.push("ada:1".to_owned());
            Ok(())
        })
        .unwrap();
        edit(&users, &rules(), |lines| lines.add(&user("bob"), "b")).unwrap();
        for file in [users.clone(), others, beside(&users, "lock")] {
            let made = fs::metadata(&file).unwrap();
            assert_eq!((made.uid(), made.gid()), (4242, 4343), "{}", file.display());
        }
    }

    #[test]
    fn edits_at_the_same_time_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let file = &file;
                scope.spawn(move || edit(file, &rules(), |lines| lines.add(&user(&format!("user{number}")), "x")).unwrap());
            }
        });
        assert_eq!(fs::read_to_string(&file).unwrap().lines().filter(|line| is_entry(line)).count(), 8);
    }
}
