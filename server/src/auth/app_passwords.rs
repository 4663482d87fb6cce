//! App passwords: several per user, each for one program and some protocols, revoked one by one.
//!
//! One file beside the cluster's users, the same for all nodes and for users of every source: `user:id:protocols:{SSHA256}hash:created:label`.
//! They are made here and never chosen by people, 100 random bits, so that one fast hash keeps them safe and many can be tried.
//!
//! Invariants, each with the test that guards it:
//! - one opens what it was made for and nothing else, until it is revoked (`an_app_password_is_for_its_user_and_its_protocols`)
//! - the day of the last use is shown, and noted once an hour at most (`the_last_use_is_noted_and_goes_with_the_password`)
//! - a line that can't be read hides no other (`a_line_that_cannot_be_read_is_no_password`)
//! - while the file can't be read, none is called wrong (`a_file_that_cannot_be_read_calls_no_password_wrong`)

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use affinity::UserName;
use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{
    edit::edit_lines,
    login::now,
    scheme::{Scheme, StoredPassword},
    source::users_file::{Stamp, may_not_read, read_with_stamp},
};
use crate::client::Protocol;

/// How often the file is looked at for changes, one request each on NFS.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How often a use is noted: one small write on the shared directory.
const NOTE_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Uses remembered, so that they are not noted again.
const NOTED_MAX: u64 = 100_000;
/// App passwords of one user at most: each costs a hash at a login with one.
pub const PER_USER_MAX: usize = 50;
/// No `0`, `1`, `l`, `o`: people copy them from a screen.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Letters of one, five bits each.
const LETTERS_COUNT: usize = 20;
/// Letters between two hyphens.
const GROUP: usize = 5;
const HEADER: &str = "# App passwords of Berth: user:id:protocols:{SCHEME}hash:created:label (`berth user app-password`)";

/// One app password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppPassword {
    /// Whose.
    pub user: UserName,
    /// Names it for its user: 1, 2, …
    pub id: u32,
    /// What it opens; empty: every protocol.
    pub protocols: Vec<Protocol>,
    /// When it was made, as in `2026-11-22`.
    pub created: String,
    /// What its user calls it.
    pub label: String,
    stored: StoredPassword,
}

impl AppPassword {
    fn parse(line: &str) -> Option<AppPassword> {
        let mut fields = line.splitn(6, ':');
        let mut next = || fields.next();
        let (user, id, protocols, stored, created) = (next()?, next()?, next()?, next()?, next()?);
        let protocols: Option<Vec<Protocol>> = protocols.split(',').filter(|name| !name.is_empty()).map(protocol).collect();
        Some(AppPassword {
            user: UserName::normalise(user).ok()?,
            id: id.parse().ok()?,
            protocols: protocols?,
            stored: StoredPassword::parse(stored, Scheme::Ssha256).ok()?,
            created: created.to_owned(),
            label: next().unwrap_or_default().to_owned(),
        })
    }
}

fn protocol(name: &str) -> Option<Protocol> {
    [Protocol::Imap, Protocol::Pop3].into_iter().find(|protocol| protocol.to_string() == name)
}

/// Who comes while the first one reads the file is told to try again, and not that the password is wrong.
const NOT_YET: &str = "it is being read";

/// The file in memory, read again when it changes.
pub struct AppPasswords {
    file: PathBuf,
    present: ArcSwap<Present>,
    looked: Mutex<Option<Instant>>,
    /// One reader of the file at a time.
    looking: Mutex<()>,
    noted: Cache<(UserName, u32), ()>,
    /// Why the file could not be read the last time: what is remembered may lack some.
    unreadable: Mutex<Option<String>>,
}

#[derive(Default)]
struct Present {
    stamp: Option<Stamp>,
    by_user: HashMap<UserName, Vec<AppPassword>>,
}

impl AppPasswords {
    /// A file that may not be there yet; it is read when it is first needed.
    pub fn new(file: PathBuf) -> AppPasswords {
        let noted = Cache::builder().max_capacity(NOTED_MAX).time_to_live(NOTE_INTERVAL).build();
        AppPasswords {
            file,
            present: ArcSwap::default(),
            looked: Mutex::new(None),
            looking: Mutex::default(),
            noted,
            unreadable: Mutex::new(Some(NOT_YET.to_owned())),
        }
    }

    /// Which of the user's app passwords this is, if it is one and opens `protocol`. `Err`: that can't be told, and why.
    pub async fn find(self: &Arc<Self>, user: &UserName, protocol: Protocol, password: &[u8]) -> Result<Option<u32>, String> {
        if !has_the_shape(password) {
            return Ok(None);
        }
        let due = {
            let mut looked = self.looked.lock();
            let due = looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL);
            if due {
                *looked = Some(Instant::now());
            }
            due
        };
        if due {
            let this = Arc::clone(self);
            let looking = tokio::task::spawn_blocking(move || this.look());
            if tokio::time::timeout(LOOK_INTERVAL, looking).await.is_err() {
                *self.unreadable.lock() = Some("the file server does not answer".to_owned());
            }
        }
        let present = self.present.load_full();
        let own = present.by_user.get(user).map(Vec::as_slice).unwrap_or_default();
        let opens = |app: &&AppPassword| app.protocols.is_empty() || app.protocols.contains(&protocol);
        let found = own.iter().filter(opens).take(PER_USER_MAX).find(|app| app.stored.verify(password) == Ok(true));
        let Some(id) = found.map(|app| app.id) else {
            return match &*self.unreadable.lock() {
                Some(why) => Err(format!("can't read the app passwords {}: {why}", self.file.display())),
                None => Ok(None),
            };
        };
        if self.noted.get(&(user.clone(), id)).is_none() {
            self.noted.insert((user.clone(), id), ());
            let marker = marker(&self.file, user, id);
            // Nobody waits for it: a login is worth more than its date.
            tokio::task::spawn_blocking(move || {
                if let Err(error) = note(&marker) {
                    warn!(file = %marker.display(), %error, "the use of an app password is not noted");
                }
            });
        }
        Ok(Some(id))
    }

    fn look(&self) {
        // Somebody is at it, and perhaps hangs with the file server: one thread that hangs is enough.
        let Some(_looking) = self.looking.try_lock() else { return };
        let present = self.present.load_full();
        match Stamp::now(&self.file) {
            Ok(stamp) if present.stamp == Some(stamp) => {}
            Ok(_) => match read(&self.file) {
                Ok(new) => self.present.store(Arc::new(new)),
                Err(error) => return self.is_unreadable(&error),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.present.store(Arc::default()),
            Err(error) => return self.is_unreadable(&error),
        }
        if self.unreadable.lock().take().is_some_and(|why| why != NOT_YET) {
            info!(file = %self.file.display(), "the app passwords can be read again");
        }
    }

    fn is_unreadable(&self, error: &io::Error) {
        let why = match error.kind() {
            io::ErrorKind::PermissionDenied => format!("{error}: {}", may_not_read(&self.file)),
            _ => error.to_string(),
        };
        // Once for each reason.
        if self.unreadable.lock().replace(why.clone()).as_ref() != Some(&why) {
            error!(file = %self.file.display(), why, "the app passwords can't be read and stay as they were; logins with others are put off");
        }
    }
}

/// The empty file whose modification time is the last use of an app password.
fn marker(file: &Path, user: &UserName, id: u32) -> PathBuf {
    file.with_file_name("app-passwords-used").join(format!("{},{id}", user.encoded()))
}

fn note(marker: &Path) -> io::Result<()> {
    if let Some(folder) = marker.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = fs::File::options().create(true).write(true).truncate(false).open(marker)?;
    file.set_modified(affinity::clock::wall_clock())
}

/// When an app password was used last, to the hour; `None`: never.
pub fn last_used(file: &Path, app: &AppPassword) -> Option<jiff::Timestamp> {
    let used = fs::metadata(marker(file, &app.user, app.id)).and_then(|marker| marker.modified()).ok()?;
    jiff::Timestamp::try_from(used).ok()
}

fn read(file: &Path) -> io::Result<Present> {
    let (text, stamp) = read_with_stamp(file)?;
    let mut by_user: HashMap<UserName, Vec<AppPassword>> = HashMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| is_entry(line)) {
        match AppPassword::parse(line) {
            Some(app) => by_user.entry(app.user.clone()).or_default().push(app),
            None => warn!("{}, line {}: no app password", file.display(), index + 1),
        }
    }
    Ok(Present { stamp: Some(stamp), by_user })
}

fn is_entry(line: &str) -> bool {
    !line.trim().is_empty() && !line.starts_with('#')
}

/// Whether it could be one: others need not be tried.
fn has_the_shape(password: &[u8]) -> bool {
    let groups: Vec<&[u8]> = password.split(|byte| *byte == b'-').collect();
    groups.len() == LETTERS_COUNT / GROUP
        && groups.iter().all(|group| group.len() == GROUP && group.iter().all(|byte| LETTERS.contains(byte)))
}

/// A new password.
fn random() -> String {
    let mut bits: u128 = rand::random();
    let mut password = String::new();
    for at in 0..LETTERS_COUNT {
        if at > 0 && at % GROUP == 0 {
            password.push('-');
        }
        let letter = usize::try_from(bits % 32).unwrap_or_default();
        password.push(LETTERS.get(letter).copied().map_or('a', char::from));
        bits /= 32;
    }
    password
}

/// Those of one user, in the order in which they were made.
pub fn list(file: &Path, user: &UserName) -> anyhow::Result<Vec<AppPassword>> {
    let present = match read(file) {
        Ok(present) => present,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("can't read the app passwords {}", file.display())),
    };
    Ok(present.by_user.get(user).cloned().unwrap_or_default())
}

/// Makes one; the password is only known now.
pub fn add(file: &Path, user: &UserName, protocols: &[Protocol], label: &str) -> anyhow::Result<(u32, String)> {
    if user.as_str().contains([':', '#']) || label.chars().any(char::is_control) {
        bail!("{user} can't have app passwords, or the label has more than one line");
    }
    let password = random();
    let stored = Scheme::Ssha256.hash(password.as_bytes())?;
    let day = now().to_string().split('T').next().unwrap_or_default().to_owned();
    let protocols = protocols.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut id = 1;
    edit_lines(file, HEADER, |lines| {
        let own: Vec<u32> =
            lines.iter().filter_map(|line| AppPassword::parse(line)).filter(|app| app.user == *user).map(|app| app.id).collect();
        if own.len() >= PER_USER_MAX {
            bail!("{user} has {PER_USER_MAX} app passwords already: `berth user app-password revoke {user} ID`");
        }
        id = own.iter().max().map_or(1, |last| last + 1);
        lines.push(format!("{user}:{id}:{protocols}:{stored}:{day}:{label}"));
        Ok(())
    })?;
    forget_use(file, user, id);
    Ok((id, password))
}

/// A number may be given again: its last use was another's.
fn forget_use(file: &Path, user: &UserName, id: u32) {
    // Where it stays, a date is shown that is too old: no harm.
    fs::remove_file(marker(file, user, id)).ok();
}

/// Ends one; nodes notice within seconds.
pub fn revoke(file: &Path, user: &UserName, id: u32) -> anyhow::Result<()> {
    edit_lines(file, HEADER, |lines| {
        let before = lines.len();
        lines.retain(|line| AppPassword::parse(line).is_none_or(|app| app.user != *user || app.id != id));
        if lines.len() == before {
            bail!("{user} has no app password {id}: `berth user app-password list {user}` shows all");
        }
        Ok(())
    })?;
    forget_use(file, user, id);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserName {
        UserName::normalise(name).unwrap()
    }

    #[tokio::test]
    async fn an_app_password_is_for_its_user_and_its_protocols() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("app-passwords");
        let (first, imap_only) = add(&file, &user("ada"), &[Protocol::Imap], "phone: new").unwrap();
        let (second, any) = add(&file, &user("ada"), &[], "laptop").unwrap();
        let (others, bobs) = add(&file, &user("bob"), &[], "").unwrap();
        assert_eq!((first, second, others), (1, 2, 1));
        let found = async |name: &str, protocol, password: &str| {
            Arc::new(AppPasswords::new(file.clone())).find(&user(name), protocol, password.as_bytes()).await.unwrap()
        };
        assert_eq!(found("ada", Protocol::Imap, &imap_only).await, Some(1));
        assert_eq!(found("ada", Protocol::Pop3, &imap_only).await, None);
        assert_eq!(found("ada", Protocol::Pop3, &any).await, Some(2));
        assert_eq!(found("ada", Protocol::Imap, &bobs).await, None);
        assert_eq!(found("ada", Protocol::Imap, &random()).await, None);
        assert_eq!(found("ada", Protocol::Imap, "wrong").await, None);
        assert_eq!(list(&file, &user("ada")).unwrap()[0].label, "phone: new");
        revoke(&file, &user("ada"), 1).unwrap();
        assert!(revoke(&file, &user("ada"), 1).is_err());
        assert_eq!(found("ada", Protocol::Imap, &imap_only).await, None);
        assert_eq!(found("ada", Protocol::Imap, &any).await, Some(2));
        assert_eq!(add(&file, &user("ada"), &[], "").unwrap().0, 3, "a number is not given again while later ones are there");
    }

    #[tokio::test]
    async fn the_last_use_is_noted_and_goes_with_the_password() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("app-passwords");
        let (id, password) = add(&file, &user("ada"), &[], "").unwrap();
        let used = || list(&file, &user("ada")).unwrap().first().and_then(|app| last_used(&file, app));
        assert_eq!(used(), None);
        let apps = Arc::new(AppPasswords::new(file.clone()));
        assert_eq!(apps.find(&user("ada"), Protocol::Imap, random().as_bytes()).await, Ok(None));
        assert_eq!(used(), None, "a wrong one is no use");
        assert_eq!(apps.find(&user("ada"), Protocol::Imap, password.as_bytes()).await, Ok(Some(id)));
        for _ in 0..1_000 {
            if used().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(used().is_some_and(|used| now().duration_since(used).as_secs().abs() < 3_600));
        let marker = marker(&file, &user("ada"), id);
        fs::remove_file(&marker).unwrap();
        assert_eq!(apps.find(&user("ada"), Protocol::Imap, password.as_bytes()).await, Ok(Some(id)));
        assert!(!marker.exists(), "it is noted once an hour");
        note(&marker).unwrap();
        revoke(&file, &user("ada"), id).unwrap();
        assert!(!marker.exists());
    }

    #[tokio::test]
    async fn a_line_that_cannot_be_read_is_no_password() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("app-passwords");
        let (_, password) = add(&file, &user("ada"), &[], "").unwrap();
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("ada:x:y\nada:9:smtp:{{SSHA256}}x:d:\n{text}")).unwrap();
        let apps = Arc::new(AppPasswords::new(file));
        assert_eq!(apps.find(&user("ada"), Protocol::Imap, password.as_bytes()).await, Ok(Some(1)));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_calls_no_password_wrong() {
        let folder = tempfile::tempdir().unwrap();
        // A folder in its place: root could read whatever mode a file has.
        let file = folder.path().join("app-passwords");
        fs::create_dir(&file).unwrap();
        let apps = Arc::new(AppPasswords::new(file.clone()));
        let answer = apps.find(&user("ada"), Protocol::Imap, random().as_bytes()).await;
        assert!(answer.as_ref().is_err_and(|why| why.contains("app-passwords")), "{answer:?}");
        assert_eq!(apps.find(&user("ada"), Protocol::Imap, b"hunter2").await, Ok(None), "this could be none");
        fs::remove_dir(&file).unwrap();
        let (id, password) = add(&file, &user("ada"), &[], "").unwrap();
        apps.look();
        assert_eq!(apps.find(&user("ada"), Protocol::Imap, password.as_bytes()).await, Ok(Some(id)));
        assert_eq!(apps.find(&user("ada"), Protocol::Imap, random().as_bytes()).await, Ok(None));
    }

    #[test]
    fn what_is_made_has_the_shape_of_one() {
        for _ in 0..100 {
            assert!(has_the_shape(random().as_bytes()));
        }
        assert!(!has_the_shape(b"correct-horse-battery-staple") && !has_the_shape(b""));
    }
}
