//! CREATE, DELETE, RENAME, SUBSCRIBE, LIST with its extensions, STATUS.

use std::collections::BTreeMap;

use tests::{
    Context, Result,
    clients::imap::{Imap, Reply, Status},
    ensure,
};

use super::{session, session_with_mail};

#[test]
fn mailboxes_are_created_renamed_listed_and_deleted() -> Result<()> {
    let (_site, mut imap) = session()?;
    imap.command("CREATE Work")?.ok()?;
    ensure!(imap.command("CREATE Work")?.status == Status::No);
    imap.command("CREATE \"Entw&APw-rfe\"")?.ok()?;
    let names = list(&mut imap, "LIST \"\" *")?;
    ensure!(names.contains_key("INBOX") && names.contains_key("Work") && names.contains_key("Entw&APw-rfe"), "{names:?}");
    imap.command("RENAME Work Archive-2026")?.ok()?;
    let names = list(&mut imap, "LIST \"\" *")?;
    ensure!(!names.contains_key("Work") && names.contains_key("Archive-2026"), "{names:?}");
    imap.command("DELETE Archive-2026")?.ok()?;
    ensure!(imap.command("SELECT Archive-2026")?.status == Status::No);
    ensure!(imap.command("DELETE INBOX")?.status == Status::No);
    imap.logout()
}

#[test]
fn children_are_told_of_and_found_by_percent_and_star() -> Result<()> {
    let (_site, mut imap) = session()?;
    let separator = separator(&mut imap)?;
    imap.command(&format!("CREATE a{separator}b"))?.ok()?;
    let names = list(&mut imap, "LIST \"\" % RETURN (CHILDREN)")?;
    ensure!(names["a"].iter().any(|flag| flag == "\\haschildren"), "{names:?}");
    ensure!(!names.contains_key(&format!("a{separator}b")), "{names:?}");
    let names = list(&mut imap, &format!("LIST \"\" a{separator}*"))?;
    ensure!(names[&format!("a{separator}b")].iter().any(|flag| flag == "\\hasnochildren"), "{names:?}");
    imap.logout()
}

#[test]
fn subscriptions_are_kept() -> Result<()> {
    let (site, mut imap) = session()?;
    imap.command("CREATE Lists")?.ok()?;
    imap.command("SUBSCRIBE Lists")?.ok()?;
    imap.logout()?;
    let mut imap = Imap::login(&site.nodes[0].imap, &site.user.name, &site.user.password)?;
    let reply = imap.command("LSUB \"\" *")?.ok()?;
    ensure!(mailbox_names(&reply, "LSUB")?.contains_key("Lists"));
    let names = list(&mut imap, "LIST (SUBSCRIBED) \"\" *")?;
    ensure!(names.contains_key("Lists"), "{names:?}");
    imap.command("UNSUBSCRIBE Lists")?.ok()?;
    let reply = imap.command("LSUB \"\" *")?.ok()?;
    ensure!(!mailbox_names(&reply, "LSUB")?.contains_key("Lists"));
    imap.logout()
}

#[test]
fn status_and_list_status_count_the_same() -> Result<()> {
    let (_site, mut imap, sent) = session_with_mail(3)?;
    imap.command("UID STORE 1:* +FLAGS (\\Seen)")?.ok()?;
    imap.append("INBOX", "", &sent[0])?;
    let items = "(MESSAGES UNSEEN UIDNEXT UIDVALIDITY HIGHESTMODSEQ)";
    let alone = imap.command(&format!("STATUS INBOX {items}"))?.ok()?;
    let listed = imap.command(&format!("LIST \"\" INBOX RETURN (STATUS {items})"))?.ok()?;
    let of = |reply: &Reply| Ok::<_, tests::Report>(reply.all("STATUS").next().context("no STATUS")?.values.clone());
    ensure!(of(&alone)? == of(&listed)?, "{alone:?} {listed:?}");
    let values = of(&alone)?;
    let counts = values[1].list()?;
    let number = |name: &str| -> Result<u64> {
        let at = counts.iter().position(|value| value.text().is_ok_and(|text| text == name)).with_context(|| format!("no {name}"))?;
        counts[at + 1].number()
    };
    ensure!((number("MESSAGES")?, number("UNSEEN")?) == (4, 1), "{counts:?}");
    imap.logout()
}

#[test]
fn a_deleted_and_recreated_mailbox_never_repeats_a_uid_under_one_uidvalidity() -> Result<()> {
    let (_site, mut imap) = session()?;
    imap.command("CREATE Again")?.ok()?;
    let first = imap.append("Again", "", b"Subject: 1\r\n\r\n")?;
    imap.command("DELETE Again")?.ok()?;
    imap.command("CREATE Again")?.ok()?;
    let second = imap.append("Again", "", b"Subject: 2\r\n\r\n")?;
    ensure!(second > first && second.0 >= first.0, "{first:?} and then {second:?}");
    imap.logout()
}

fn separator(imap: &mut Imap) -> Result<String> {
    let reply = imap.command("LIST \"\" \"\"")?.ok()?;
    reply.all("LIST").next().context("no LIST")?.values.get(1).context("no separator")?.text()
}

/// Names with their attributes in small letters.
fn list(imap: &mut Imap, command: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let reply = imap.command(command)?.ok()?;
    mailbox_names(&reply, "LIST")
}

fn mailbox_names(reply: &Reply, response: &str) -> Result<BTreeMap<String, Vec<String>>> {
    reply
        .all(response)
        .map(|response| {
            let [attributes, _, name, ..] = response.values.as_slice() else { tests::bail!("{response:?}") };
            let attributes = attributes.list()?.iter().map(|value| Ok(value.text()?.to_ascii_lowercase())).collect::<Result<_>>()?;
            Ok((name.text()?, attributes))
        })
        .collect()
}
