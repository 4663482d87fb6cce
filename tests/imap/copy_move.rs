//! COPY and MOVE with COPYUID (RFC 4315, RFC 6851).

use tests::{Context, Result, clients::imap::Status, ensure};

use super::session_with_mail;

#[test]
fn a_copy_has_bytes_flags_and_date_of_its_original() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(3)?;
    imap.command("CREATE Kept")?.ok()?;
    imap.command("STORE 1:3 +FLAGS (\\Seen Work)")?.ok()?;
    let originals: Vec<_> = imap.bodies()?.into_values().collect();
    let reply = imap.command("COPY 1:3 Kept")?.ok()?;
    let code = reply.code("COPYUID").context("no COPYUID")?.to_owned();
    imap.select("Kept")?;
    let copies = imap.bodies()?;
    ensure!(copies.values().eq(&originals), "the copies differ");
    ensure!(
        code.split(' ').nth(2).is_some_and(|uids| expand(uids) == copies.keys().copied().collect::<Vec<_>>()),
        "COPYUID {code}, UIDs {:?}",
        copies.keys()
    );
    ensure!(imap.flags()?.values().all(|flags| *flags == ["Work", "\\Seen"]));
    imap.logout()
}

#[test]
fn a_moved_message_is_in_one_place_only() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(3)?;
    imap.command("CREATE Done")?.ok()?;
    let originals: Vec<_> = imap.bodies()?.into_values().collect();
    let reply = imap.command("MOVE 2 Done")?.ok()?;
    ensure!(reply.code("COPYUID").is_some() && reply.all("EXPUNGE").count() == 1, "{reply:?}");
    ensure!(imap.bodies()?.values().eq([&originals[0], &originals[2]]));
    imap.select("Done")?;
    ensure!(imap.bodies()?.values().eq([&originals[1]]));
    imap.logout()
}

#[test]
fn copying_to_a_mailbox_that_does_not_exist_says_trycreate() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(1)?;
    for command in ["COPY 1 Nowhere", "MOVE 1 Nowhere"] {
        let reply = imap.command(command)?;
        ensure!(reply.status == Status::No && reply.text.code.as_deref() == Some("TRYCREATE"), "{command}: {reply:?}");
    }
    ensure!(imap.bodies()?.len() == 1);
    imap.logout()
}

fn expand(set: &str) -> Vec<u32> {
    set.split(',')
        .flat_map(|range| {
            let (from, to) = range.split_once(':').unwrap_or((range, range));
            from.parse().unwrap_or(1)..=to.parse().unwrap_or(0)
        })
        .collect()
}
