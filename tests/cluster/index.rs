//! The Maildir is the truth: the index of a user whom no node holds can be deleted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tests::{
    Result,
    cluster::{Cluster, Demo},
    ensure, mail,
};

use super::open;

#[test]
fn without_its_index_a_mailbox_keeps_uids_flags_and_uidvalidity() -> Result<()> {
    let mut cluster = Cluster::start(&Demo::default())?;
    let user = cluster.users[0].clone();
    let mut imap = open(&cluster.nodes[0].doors, &user)?;
    for number in 0..10 {
        imap.append("INBOX", "", &mail::message("index", number))?;
    }
    imap.select("INBOX")?;
    imap.command("CREATE Kept")?.ok()?;
    imap.command("STORE 1,3 +FLAGS (\\Seen Work)")?.ok()?;
    imap.command("STORE 4 +FLAGS (\\Answered \\Flagged \\Draft)")?.ok()?;
    imap.command("COPY 1:4 Kept")?.ok()?;
    // The highest UID is expunged: it must not be given again either.
    imap.command("STORE 5,10 +FLAGS (\\Deleted)")?.ok()?;
    imap.command("EXPUNGE")?.ok()?;
    let mut before = Vec::new();
    for mailbox in ["Kept", "INBOX"] {
        let validity = imap.select(mailbox)?.code_number("UIDVALIDITY")?;
        before.push((mailbox, validity, imap.flags()?, imap.bodies()?));
    }
    imap.logout()?;
    let dir = cluster.stop()?;

    let indexes = folders_named("index", &cluster.root.join("mail"))?;
    ensure!(!indexes.is_empty(), "no index was found under {}", cluster.root.display());
    for index in indexes {
        fs::remove_dir_all(index)?;
    }

    let again = Cluster::start(&Demo { dir: Some(dir), ..Demo::default() })?;
    let mut imap = open(&again.nodes[1].doors, &user)?;
    for (mailbox, validity, flags, bodies) in before {
        let selected = imap.select(mailbox)?;
        ensure!(selected.code_number("UIDVALIDITY")? == validity, "UIDVALIDITY of {mailbox} changed");
        ensure!(imap.flags()? == flags, "UIDs or flags of {mailbox} changed: {flags:?}, {:?}", imap.flags()?);
        ensure!(imap.bodies()? == bodies, "messages of {mailbox} changed");
    }
    let (_, uid) = imap.append("INBOX", "", &mail::message("index", 11))?;
    ensure!(uid > 10, "UID {uid} was given again");
    imap.logout()
}

fn folders_named(name: &str, under: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(under)? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|own| own == name) {
            found.push(path);
        } else if path.is_dir() {
            found.extend(folders_named(name, &path)?);
        }
    }
    Ok(found)
}
