//! The end of a history: all mail read through every node, from disk, and once more after the indexes are gone; what the nodes' logs say.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
};

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{
    clients::{
        imap::{Imap, quoted},
        value::Value as Item,
    },
    history::{Acknowledgement, Final, Mailbox, Message, Recorder},
    lab::{Lab, MAIL, Node, PASSWORD},
    mail,
};

use super::clients::{id_in, message, uid_and_flags};

/// Reads all of a user's mail; with `bodies`, every byte of it.
pub fn read(recorder: &Recorder, node: &Node, by: &str, user: &str, bodies: bool) -> Result<Final> {
    let at = recorder.now();
    let mut imap = Imap::login(&node.imap(), user, PASSWORD)?;
    let mut mailboxes = BTreeMap::new();
    let listed = imap.command("LIST \"\" *")?.ok()?;
    let names: Vec<String> =
        listed.all("LIST").map(|line| line.values.last().context("LIST without a name").and_then(Item::text)).collect::<Result<_>>()?;
    for name in names {
        let reply = imap.command(&format!("EXAMINE {}", quoted(&name)))?.ok()?;
        let mut mailbox = Mailbox {
            uid_validity: u32::try_from(reply.code_number("UIDVALIDITY")?)?,
            uid_next: u32::try_from(reply.code_number("UIDNEXT")?)?,
            highest_modseq: reply.code_number("HIGHESTMODSEQ")?,
            messages: BTreeMap::new(),
        };
        let part = if bodies { "BODY[]" } else { "BODY[HEADER.FIELDS (MESSAGE-ID)]" };
        let fetched = imap.command(&format!("UID FETCH 1:* (UID FLAGS {})", part.replacen("BODY", "BODY.PEEK", 1)))?.ok()?;
        for items in fetched.messages()?.values() {
            let bytes = items.get(part).map(Item::bytes).with_context(|| format!("no {part} of a message in {name} of {user}"))??;
            let (uid, flags) = uid_and_flags(items)?;
            let mut id = id_in(bytes).unwrap_or_else(|_| "no Message-ID".into());
            if bodies && let Err(error) = mail::check_same(&message(&id), bytes) {
                id = format!("{id}, but {error:#}");
            }
            mailbox.messages.insert(uid, Message { id, flags });
        }
        mailboxes.insert(name, mailbox);
    }
    imap.logout()?;
    Ok(Final { by: by.to_owned(), at, user: user.to_owned(), mailboxes, without_uids: false })
}

/// Message-IDs in the files of a user's Maildir, on the file server's own disk. Folders of deleted mailboxes, which no program takes for mailboxes, may wait there
/// to be emptied as long as a dead holder's requests can arrive.
pub fn read_disk(lab: &Lab, recorder: &Recorder, root: &str, user: &str) -> Result<Final> {
    let maildir = format!("{}/mail/_/{user}/Maildir", root.replace(MAIL, "/export"));
    let script = format!(
        "set -e; cd {maildir}; test -d cur; find . -name 'berth-deleted,*' -prune -o -type f \\( -path '*/cur/*' -o -path '*/new/*' \\) -print | xargs -r grep -m 1 -H -i '^Message-ID:' || true"
    );
    let mut mailboxes: BTreeMap<String, Mailbox> = BTreeMap::new();
    mailboxes.entry("INBOX".into()).or_default();
    for line in lab.exec("srv", &["sh", "-c", &script])?.lines() {
        let (path, header) =
            line.split_once(":Message-ID:").or_else(|| line.split_once(":Message-Id:")).with_context(|| line.to_owned())?;
        let folder = path.trim_start_matches("./").rsplit('/').nth(2).unwrap_or("");
        let name = if folder.is_empty() { "INBOX".to_owned() } else { folder.trim_start_matches('.').replace('.', "/") };
        let mailbox = mailboxes.entry(name).or_default();
        let uid = u32::try_from(mailbox.messages.len())? + 1;
        mailbox.messages.insert(uid, Message { id: header.trim().trim_matches(['<', '>']).to_owned(), ..Message::default() });
    }
    Ok(Final { by: "the disk".into(), at: recorder.now(), user: user.to_owned(), mailboxes, without_uids: true })
}

/// What the nodes' logs say about the whole time.
#[derive(Debug, Default)]
pub struct Said {
    pub acknowledgements: Vec<Acknowledgement>,
    pub carried_out_again: Vec<String>,
    /// Panics.
    pub broken: Vec<String>,
    /// Errors, by their text.
    pub errors: BTreeMap<String, usize>,
}

impl Said {
    pub fn read(nodes: &[Node]) -> Result<Said> {
        let mut said = Said::default();
        for node in nodes {
            let path = node.log_file();
            let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            for line in BufReader::new(file).split(b'\n') {
                said.take(&node.name, &String::from_utf8_lossy(&line?));
            }
        }
        Ok(said)
    }

    fn take(&mut self, node: &str, line: &str) {
        let text = |value: &Value, name: &str| value[name].as_str().map(str::to_owned).unwrap_or_default();
        // A line that a power loss cut short says nothing.
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            if line.contains("panicked") {
                self.broken.push(format!("{node}: {line}"));
            }
            return;
        };
        if value["target"] == "acknowledged" {
            self.acknowledgements.push(Acknowledgement {
                user: text(&value, "user"),
                epoch: text(&value, "epoch").parse().unwrap_or_default(),
                holder: text(&value, "holder"),
                tag: text(&value, "request"),
            });
        } else if value["message"] == "a relayed delivery got no answer and is tried again" {
            self.carried_out_again.push(text(&value, "sender"));
        } else if value["level"] == "ERROR" {
            let error = text(&value, "error");
            *self.errors.entry(format!("{}: {}", text(&value, "message"), error.chars().take(160).collect::<String>())).or_default() += 1;
        }
    }
}
