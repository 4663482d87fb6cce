//! himalaya, a mail program for the command line on an IMAP library of its own: lists, reads, searches, flags, copies, moves and removes.

use std::{process::Command, time::Duration};

use tests::{
    Context, Result,
    clients::imap::Imap,
    ensure, mail, packages,
    peers::write,
    process,
    site::{Doors, Site, User},
};

/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// An account of it.
struct Himalaya {
    home: tempfile::TempDir,
}

impl Himalaya {
    fn new(doors: &Doors, user: &User) -> Result<Himalaya> {
        let home = tempfile::tempdir()?;
        let (server, name, password) = (&doors.imap, &user.name, &user.password);
        let settings = format!(
            "[accounts.a]\ndefault = true\nemail = \"{name}@tests.example\"\nimap.server = \"imap://{server}\"\n\
             imap.sasl.plain.username = \"{name}\"\nimap.sasl.plain.password.raw = \"{password}\"\nmailbox.alias.trash = \"Trash\"\n"
        );
        write(&home.path().join("config.toml"), &settings)?;
        Ok(Himalaya { home })
    }

    /// What one command prints, as JSON.
    fn run(&self, arguments: &str) -> Result<String> {
        let mut command = Command::new("himalaya");
        command.arg("-c").arg(self.home.path().join("config.toml")).arg("--json").args(arguments.split_whitespace());
        let output = process::run(command.env("HOME", self.home.path()), LIMIT)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "himalaya {arguments}: {said}{}", String::from_utf8_lossy(&output.stderr));
        Ok(said)
    }
}

#[test]
fn himalaya_lists_reads_finds_flags_copies_moves_and_removes() -> Result<()> {
    if packages::find("himalaya").is_none() {
        // No Debian package, and to build it takes longer than all other tests: nobody must.
        packages::say_skipped(
            "himalaya_lists_reads_finds_flags_copies_moves_and_removes",
            "not installed: himalaya (cargo install himalaya --locked --no-default-features --features imap,rustls-ring)",
        );
        return Ok(());
    }
    let site = Site::start(2, 1)?;
    let user = &site.users[0];
    let mut imap = Imap::login(&site.nodes[0].imap, &user.name, &user.password)?;
    imap.command("CREATE Kept")?;
    imap.command("CREATE Trash")?;
    for number in 1..=4 {
        imap.append("INBOX", "", &mail::message("himalaya", number))?;
    }
    // Through the node that does not hold the user.
    let himalaya = Himalaya::new(&site.nodes[1], user)?;
    let mailboxes = himalaya.run("mailbox list")?;
    ensure!(["Inbox", "Kept", "Trash"].iter().all(|name| mailboxes.contains(&format!("\"name\":\"{name}\""))), "{mailboxes}");
    let told = himalaya.run("envelope list -m INBOX")?;
    ensure!((1..=4).all(|uid| told.contains(&format!("\"id\":\"{uid}\""))), "{told}");
    himalaya.run("message read -m INBOX 1").context("read")?;
    himalaya.run("flag add -m INBOX -f flagged 2 3")?;
    himalaya.run("flag remove -m INBOX -f flagged 3")?;
    let found = himalaya.run("envelope search -m INBOX flag flagged order by subject desc")?;
    ensure!(found.contains("\"id\":\"2\"") && !found.contains("\"id\":\"3\""), "{found}");
    himalaya.run("message copy -f INBOX -t Kept 1")?;
    himalaya.run("message move -f INBOX -t Kept 2")?;
    // Into Trash, then away.
    himalaya.run("message delete -m INBOX 4")?;
    himalaya.run("message delete -m Trash 1")?;
    for (mailbox, uids) in [("INBOX", &[1, 3][..]), ("Kept", &[1, 2]), ("Trash", &[])] {
        imap.select(mailbox)?;
        let flags = imap.flags()?;
        ensure!(flags.keys().eq(uids), "{mailbox}: {flags:?}");
        if mailbox == "Kept" {
            ensure!(flags[&2].contains(&"\\Flagged".to_owned()) && !flags[&1].contains(&"\\Flagged".to_owned()), "{flags:?}");
        }
    }
    imap.logout()
}
