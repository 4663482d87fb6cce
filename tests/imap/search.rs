//! SEARCH and ESEARCH (RFC 4731).

use tests::{
    Context, Result,
    clients::{
        imap::{Imap, Status},
        value::Value,
    },
    ensure, mail,
    site::Site,
};

use super::{session, session_with_mail};

#[test]
fn several_mailboxes_are_searched_through_either_node() -> Result<()> {
    if Site::is_dovecot() {
        return Ok(()); // has no MULTISEARCH
    }
    let (site, mut imap) = session()?;
    for mailbox in ["Work", "Work/2026", "Play"] {
        imap.command(&format!("CREATE {mailbox}"))?.ok()?;
        imap.append(mailbox, "", &mail::message("multisearch", 1))?;
    }
    imap.command("SELECT Play")?.ok()?;
    let mut other = Imap::login(&site.nodes[0].imap, &site.user.name, &site.user.password)?;
    for client in [&mut imap, &mut other] {
        let reply =
            client.command("ESEARCH IN (subtree Work mailboxes (Play Nowhere)) RETURN (COUNT ALL) HEADER Message-ID multisearch")?.ok()?;
        let told = reply.all("ESEARCH").map(|response| {
            let [Value::List(scope), found @ ..] = response.values.as_slice() else { tests::bail!("{response:?}") };
            let [tag, _, mailbox, name, validity, number] = scope.as_slice() else { tests::bail!("{scope:?}") };
            ensure!(tag.text()? == "TAG" && mailbox.text()? == "MAILBOX" && validity.text()? == "UIDVALIDITY" && number.number()? > 0);
            let found = found.iter().map(Value::text).collect::<Result<Vec<_>>>()?;
            Ok((name.text()?, found.join(" ")))
        });
        let expected = ["Play", "Work", "Work/2026"].map(|name| (name.to_owned(), "UID COUNT 1 ALL 1".to_owned()));
        ensure!(told.collect::<Result<Vec<_>>>()? == expected, "{reply:?}");
    }
    other.logout()?;
    imap.logout()
}

#[test]
fn keys_find_what_they_name() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(7)?;
    imap.command("STORE 2,4 +FLAGS (\\Flagged Work)")?.ok()?;
    for (keys, expected) in [
        ("ALL", vec![1, 2, 3, 4, 5, 6, 7]),
        ("FLAGGED", vec![2, 4]),
        ("UNFLAGGED NOT 1", vec![3, 5, 6, 7]),
        ("KEYWORD Work 3:*", vec![4]),
        ("OR 1 (FLAGGED 2)", vec![1, 2]),
        ("SUBJECT \"greetings 3\"", vec![4]),
        ("FROM lovelace HEADER Message-ID <5.imap", vec![6]),
        ("BODY \"body of it\"", vec![6]),
        ("TEXT \"From here on\"", vec![3]),
        ("LARGER 3000", vec![7]),
        ("SENTON 21-Nov-2026 1", vec![1]),
        ("SENTBEFORE 21-Nov-2026", vec![]),
        ("SINCE 1-Jan-2020 5", vec![5]),
    ] {
        let found = imap.command(&format!("SEARCH {keys}"))?.ok()?.search()?;
        ensure!(found == expected, "SEARCH {keys} found {found:?}, not {expected:?}");
    }
    imap.logout()
}

#[test]
fn text_in_other_letters_is_found() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(3)?;
    for keys in ["SUBJECT", "BODY"] {
        let found = imap.command_with_literal(&format!("SEARCH CHARSET UTF-8 {keys}"), "Grüße".as_bytes(), "")?.ok()?.search()?;
        ensure!(found == [2], "{keys}: {found:?}");
    }
    imap.logout()
}

#[test]
fn esearch_gives_minimum_maximum_count_and_all_with_the_tag() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(5)?;
    imap.command("STORE 3 +FLAGS (\\Seen)")?.ok()?;
    let tag = imap.send("UID SEARCH RETURN (MIN MAX COUNT ALL) UNSEEN")?;
    let reply = imap.finish(&tag)?.ok()?;
    let response = reply.all("ESEARCH").next().context("no ESEARCH")?;
    let words: Vec<String> = response.values[1..].iter().map(|value| value.text()).collect::<Result<_>>()?;
    ensure!(response.values[0].list()?[1].text()? == tag);
    ensure!(words[0] == "UID");
    let value = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1)).cloned();
    ensure!(
        value("COUNT").as_deref() == Some("4") && value("MIN").is_some() && value("MAX").is_some() && value("ALL").is_some(),
        "{words:?}"
    );
    imap.logout()
}

#[test]
fn an_unknown_charset_is_refused_with_the_known_ones() -> Result<()> {
    let (_site, mut imap, _) = session_with_mail(1)?;
    let reply = imap.command("SEARCH CHARSET X-NONE SUBJECT a")?;
    ensure!(reply.status == Status::No && reply.text.code.as_deref() == Some("BADCHARSET"), "{reply:?}");
    imap.logout()
}

#[test]
fn older_and_younger_count_seconds_from_now() -> Result<()> {
    let (_site, mut imap, sent) = session_with_mail(1)?;
    imap.command_with_literal("APPEND INBOX \"17-Jul-1996 02:44:25 -0700\"", &sent[0], "")?.ok()?;
    imap.command("NOOP")?.ok()?;
    ensure!(imap.command("SEARCH YOUNGER 3600")?.ok()?.search()? == [1]);
    ensure!(imap.command("SEARCH OLDER 3600")?.ok()?.search()? == [2]);
    imap.logout()
}
