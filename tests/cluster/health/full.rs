//! A mail store that is really full, or read-only: clients hear that it is for now, and what was acknowledged is there, also after a crash.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use tests::{
    Context, Result, bail,
    clients::{
        imap::{Imap, Reply, Status},
        lmtp::Lmtp,
    },
    cluster::{Cluster, Demo},
    ensure, mail,
    mounts::{self, Mount},
    packages, wait,
};

use super::super::open;

/// A node that found its store full looks again every few seconds, and tells clients to come again meanwhile.
const WELL_AGAIN: Duration = Duration::from_secs(60);
/// What is left when the store counts as almost full: a few messages' worth.
const SPARE: u64 = 512 * 1024;

macro_rules! need_mounts {
    () => {
        if let Some(why) = mounts::missing() {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            packages::say_skipped(&test, &why);
            return Ok(());
        }
    };
}

/// What a client was told, by UID.
#[derive(Debug, Default)]
struct Told {
    bodies: BTreeMap<u32, Vec<u8>>,
    flagged: BTreeMap<u32, bool>,
}

impl Told {
    fn check(&self, imap: &mut Imap) -> Result<()> {
        imap.select("INBOX")?;
        ensure!(imap.bodies()? == self.bodies, "the messages are not those that were acknowledged");
        for (uid, flags) in imap.flags()? {
            let flagged = flags.iter().any(|flag| flag == "\\Flagged");
            let told = self.flagged.get(&uid).copied().unwrap_or(false);
            ensure!(flagged == told, "UID {uid} is flagged: {flagged}, what was told: {told}");
        }
        Ok(())
    }
    /// APPEND until it is refused; what the refusal says.
    fn append_until_refused(&mut self, imap: &mut Imap, bytes: usize) -> Result<Reply> {
        for number in 0..100 {
            let mut message = mail::message("full", self.bodies.len() + number);
            message.resize(message.len() + bytes, b'x');
            message.extend_from_slice(b"\r\n");
            let reply = imap.command_with_literal("APPEND INBOX ()", &message, "")?;
            if reply.status != Status::Ok {
                return Ok(reply);
            }
            let uid = reply.code("APPENDUID").and_then(|code| code.split(' ').nth(1)).context("no APPENDUID")?.parse()?;
            self.bodies.insert(uid, message);
        }
        bail!("a hundred messages fit into the rest of a full store")
    }
    /// Turns flags on and off until it is refused, or for `times`; what the refusal says.
    fn flag_until_refused(&mut self, imap: &mut Imap, times: usize) -> Result<Option<Reply>> {
        let uids: Vec<u32> = self.bodies.keys().copied().collect();
        for turn in 0..times {
            let uid = uids[turn % uids.len()];
            let on = !self.flagged.get(&uid).copied().unwrap_or(false);
            let reply = imap.command(&format!("UID STORE {uid} {}FLAGS.SILENT (\\Flagged)", if on { '+' } else { '-' }))?;
            if reply.status != Status::Ok {
                return Ok(Some(reply));
            }
            self.flagged.insert(uid, on);
        }
        Ok(None)
    }
}

fn ensure_for_now(reply: &Reply) -> Result<()> {
    ensure!(reply.status == Status::No && reply.code("UNAVAILABLE").is_some(), "{reply:?}");
    Ok(())
}

#[test]
fn a_full_mail_store_refuses_for_now_and_keeps_what_it_acknowledged() -> Result<()> {
    need_mounts!();
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 1, dir: None })?;
    let store = mount(&mut cluster, "", 24)?;
    let (doors, user) = (cluster.nodes[0].doors.clone(), cluster.users[0].clone());
    let mut imap = open(&doors, &user)?;
    let mut lmtp = Lmtp::connect(&doors.lmtp)?;
    let mut told = Told::default();
    for number in 1..=5 {
        let message = mail::message("before", number);
        let (_, uid) = imap.append("INBOX", "", &message)?;
        told.bodies.insert(uid, message);
    }
    store.fill(SPARE)?;
    ensure_for_now(&told.append_until_refused(&mut imap, 60_000)?)?;
    ensure_for_now(&told.append_until_refused(&mut imap, 10)?)?;
    let refused = told.flag_until_refused(&mut imap, 2_000)?.context("flags could be changed without end")?;
    ensure_for_now(&refused)?;
    for reply in lmtp.deliver("ada@tests.example", &[&user.address()], &mail::message("full", 500))? {
        ensure!(reply.code == 452 && reply.lines[0].starts_with("4.3.1"), "{reply:?}");
    }
    let copied = imap.command("UID COPY 1 Sent")?;
    ensure!(copied.status == Status::Ok || ensure_for_now(&copied).is_ok(), "{copied:?}");
    let in_sent = usize::from(copied.status == Status::Ok);
    told.check(&mut imap)?;

    // It dies while there is no room: the next one can't copy the index, which alone has the last flags.
    cluster.nodes[0].process.kill()?;
    cluster.nodes[0].process.wait_ended(WELL_AGAIN)?;
    cluster.restart(0)?;
    let refused = Imap::connect(&doors.imap)?.command(&format!("LOGIN {} \"{}\"", user.name, user.password))?;
    ensure_for_now(&refused)?;
    store.make_room()?;
    let mut imap = wait::until("the mail of a store with room", WELL_AGAIN, || open(&doors, &user))?;
    told.check(&mut imap)?;
    let message = mail::message("after", 1);
    let (_, uid) = imap.append("INBOX", "", &message)?;
    told.bodies.insert(uid, message);
    ensure!(told.flag_until_refused(&mut imap, 3)?.is_none(), "flags can't be changed again");
    imap.command("UID COPY 1:* Sent")?.ok()?;
    told.check(&mut imap)?;
    let mut lmtp = Lmtp::connect(&doors.lmtp)?;
    let delivered = mail::message("after", 2);
    lmtp.deliver_ok("ada@tests.example", &[&user.address()], &delivered)?;
    let inbox = told.bodies.len() + 1;
    let sent = in_sent + told.bodies.len();
    ensure!(imap.select("Sent")?.exists() == Some(u32::try_from(sent)?), "Sent has not {sent} messages");
    imap.logout()?;

    let maildir = store.path()?.join("_").join(&user.name).join("Maildir");
    wait::until("the debris to be gone", WELL_AGAIN, || {
        for (folder, expected) in [(maildir.clone(), inbox), (maildir.join(".Sent"), sent)] {
            ensure!(count(&folder.join("tmp"))? == 0, "{} is not empty", folder.join("tmp").display());
            let files = count(&folder.join("cur"))? + count(&folder.join("new"))?;
            ensure!(files == expected, "{files} files in {}, {expected} messages", folder.display());
        }
        Ok(())
    })
}

#[test]
fn a_read_only_mail_store_refuses_for_now_and_goes_on_when_it_is_writable() -> Result<()> {
    need_mounts!();
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 2, dir: None })?;
    // The index elsewhere: who has a file open for writing keeps a file system from becoming read-only.
    let store = mount(&mut cluster, "index = \"index/{user}\"", 80)?;
    let (doors, user, other) = (cluster.nodes[0].doors.clone(), cluster.users[0].clone(), cluster.users[1].clone());
    let mut imap = open(&doors, &user)?;
    let mut told = Told::default();
    for number in 1..=3 {
        let message = mail::message("writable", number);
        let (_, uid) = imap.append("INBOX", "", &message)?;
        told.bodies.insert(uid, message);
    }
    wait::until("a moment in which nobody writes", WELL_AGAIN, || store.remount("ro"))?;
    ensure_for_now(&told.append_until_refused(&mut imap, 10)?)?;
    ensure_for_now(&imap.command("UID COPY 1 Sent")?)?;
    ensure_for_now(&imap.command("CREATE Nowhere")?)?;
    let reply = Lmtp::connect(&doors.lmtp)?.deliver("ada@tests.example", &[&user.address()], &mail::message("full", 1))?;
    ensure!(reply.iter().all(|reply| (451..=452).contains(&reply.code)), "{reply:?}");
    // Durable in the index; names follow when they can.
    ensure!(told.flag_until_refused(&mut imap, 3)?.is_none(), "flags are kept in the index");
    told.check(&mut imap)?;
    // An account that can't be made is refused for now as well.
    ensure_for_now(&Imap::connect(&doors.imap)?.command(&format!("LOGIN {} \"{}\"", other.name, other.password))?)?;

    store.remount("rw")?;
    let message = mail::message("writable", 4);
    let (_, uid) = wait::until("the store to take mail again", WELL_AGAIN, || imap.append("INBOX", "", &message))?;
    told.bodies.insert(uid, message);
    told.check(&mut imap)?;
    let cur = store.path()?.join("_").join(&user.name).join("Maildir/cur");
    wait::until("the flags in file names", WELL_AGAIN, || {
        let flagged = fs::read_dir(&cur)?.flatten().filter(|entry| entry.file_name().to_string_lossy().ends_with(":2,F")).count();
        ensure!(flagged == 3, "{flagged} names have the flag");
        Ok(())
    })?;
    wait::until("the other user's mail", WELL_AGAIN, || open(&doors, &other)?.logout())?;
    imap.logout()
}

/// Stops the node and starts it again with a file system of so many MiB in the place of `mail/`.
fn mount(cluster: &mut Cluster, settings: &str, mebibytes: u32) -> Result<Mount> {
    let folder = cluster.root.join("mail");
    fs::create_dir_all(&folder)?;
    let store = Mount::new(&folder, mebibytes)?;
    cluster.around = store.around()?;
    cluster.configure(&format!("[mail]\n{settings}\n"))?;
    Ok(store)
}

fn count(folder: &Path) -> Result<usize> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        entries => Ok(entries?.count()),
    }
}
