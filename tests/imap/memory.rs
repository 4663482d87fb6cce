//! What open mail takes in memory, and that it is given back.

use std::{fs, path::Path, time::Duration};

use tests::{
    Context, Result,
    clients::imap::Imap,
    cluster::{Cluster, Demo},
    ensure,
    process::Process,
    wait,
};

/// Messages of the large mailbox.
const MESSAGES: u64 = 50_000;
/// Of an open account, by message and beside: 12 MB with 100,000 messages.
const BYTES_EACH: u64 = 100;
const BYTES_BESIDE: u64 = 7 << 20;
/// How long it may take until memory that is not used any more is given back.
const GIVEN_BACK: Duration = Duration::from_secs(180);

#[test]
fn a_large_open_mailbox_is_small_in_memory_and_a_closed_one_is_given_back() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 2, dir: None })?;
    cluster.configure("[mail]\nlinger = \"5s\"\n")?;
    let doors = cluster.nodes[0].doors.clone();
    // What is needed once is there.
    let other = cluster.users[1].clone();
    Imap::login(&doors.imap, &other.name, &other.password)?.logout()?;
    plant(&cluster.root.join("mail/_/user1/Maildir"))?;
    let user = cluster.users[0].clone();
    for round in ["seen for the first time", "from the index"] {
        let process = cluster.nodes[0].process;
        let before = process.resident_bytes()?;
        let mut imap = Imap::login(&doors.imap, &user.name, &user.password)?;
        let there = imap.select("INBOX")?.exists().context("no EXISTS")?;
        ensure!(u64::from(there) == MESSAGES, "{there} messages");
        grown_by_at_most(process, before, MESSAGES * BYTES_EACH + BYTES_BESIDE, &format!("a mailbox {round}"))?;
        imap.logout()?;
        grown_by_at_most(process, before, BYTES_BESIDE, "a closed account")?;
    }
    Ok(())
}

/// Of hostile mail and hostile commands: a message at a time, and no part of it twice.
#[test]
fn a_fetch_of_long_headers_or_of_many_ranges_takes_the_memory_of_one_message() -> Result<()> {
    const MESSAGE_BYTES: usize = 8 << 20;
    let cluster = Cluster::start(&Demo { nodes: 1, users: 1, dir: None })?;
    let user = cluster.users[0].clone();
    let new = cluster.root.join("mail/_/user1/Maildir/new");
    fs::create_dir_all(&new)?;
    // Of another server, with bare line feeds.
    let bare = format!("Subject: bare\n\n{}", "line after line\n".repeat(MESSAGE_BYTES / 16));
    let bare_lines = bare.lines().count();
    for number in 1..=16 {
        let name = format!("{}.M{number}P42.mail.example.org,S={},W={}", 1_763_000_000 + number, bare.len(), bare.len() + bare_lines);
        fs::write(new.join(name), &bare)?;
    }
    let mut imap = Imap::login(&cluster.nodes[0].doors.imap, &user.name, &user.password)?;
    imap.select("INBOX")?;
    let header = format!("Subject: long\r\n{}\r\n", "X-Long: line after line\r\n".repeat(MESSAGE_BYTES / 25));
    for _ in 0..16 {
        imap.append("INBOX", "", header.as_bytes())?;
    }
    let part = format!("Content-Transfer-Encoding: quoted-printable\r\n\r\n{}", "line=20after line\r\n".repeat(MESSAGE_BYTES / 19));
    imap.append("INBOX", "", part.as_bytes())?;
    imap.select("INBOX")?;
    let ranges: Vec<String> = (0..24).map(|start| format!("BINARY.PEEK[1]<{start}.{MESSAGE_BYTES}>")).collect();
    let process = cluster.nodes[0].process;
    let before = process.most_resident_bytes()?;
    for command in
        ["FETCH 17:32 BODY.PEEK[HEADER]".to_owned(), format!("FETCH 33 ({})", ranges.join(" ")), "FETCH 1:16 BODY.PEEK[]".to_owned()]
    {
        imap.command(&command)?.ok()?;
        let grown = process.most_resident_bytes()?.saturating_sub(before);
        eprintln!("{} KiB", grown / 1024);
        ensure!(grown <= 8 * MESSAGE_BYTES as u64, "{command:.40}: {} KiB", grown / 1024);
    }
    imap.logout()
}

fn grown_by_at_most(process: Process, before: u64, limit: u64, what: &str) -> Result<()> {
    wait::until(what, GIVEN_BACK, || {
        let grown = process.resident_bytes()?.saturating_sub(before);
        eprintln!("{what}: {} KiB", grown / 1024);
        ensure!(grown <= limit, "{what} takes {} KiB, {} are allowed", grown / 1024, limit / 1024);
        Ok(())
    })
}

/// Messages with the names that an earlier server gave them: their sizes need no look inside.
fn plant(maildir: &Path) -> Result<()> {
    for folder in ["cur", "new", "tmp"] {
        fs::create_dir_all(maildir.join(folder))?;
    }
    let content = b"Subject: planted\n\nx\n";
    for number in 0..MESSAGES {
        let name = format!("{}.M{number}P42.mail.example.org,S={},W={}:2,S", 1_763_000_000 + number, content.len(), content.len() + 3);
        fs::write(maildir.join("cur").join(name), content)?;
    }
    Ok(())
}
