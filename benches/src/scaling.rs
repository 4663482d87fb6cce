//! What one message costs in mailboxes of a thousand to a hundred thousand messages: where a row grows with the mailbox, something is quadratic.

use std::fs;

use anyhow::{Context, Result};

use crate::{
    client::Client,
    servers::{self, berth_maildir},
};
use tests::wait;

/// What is measured, in this order: each needs what those before it left.
const STEPS: &[(&str, &str)] = &[
    ("SELECT, never seen before", "SELECT INBOX"),
    ("SELECT again", "SELECT INBOX"),
    ("FETCH FLAGS", "FETCH 1:* (FLAGS)"),
    ("FETCH ENVELOPE, first (reads every file)", "FETCH 1:* (ENVELOPE)"),
    ("FETCH ENVELOPE, again", "FETCH 1:* (ENVELOPE)"),
    ("FETCH of every other message's FLAGS, by UID", "UID FETCH {odd} (FLAGS)"),
    ("SEARCH SUBJECT", "SEARCH SUBJECT \"number 77\""),
    ("SORT (SUBJECT)", "SORT (SUBJECT) UTF-8 ALL"),
    ("THREAD REFERENCES", "THREAD REFERENCES UTF-8 ALL"),
    ("STORE on all", "STORE 1:* +FLAGS.SILENT (\\Flagged)"),
    ("STORE on every other message", "UID STORE {odd} +FLAGS.SILENT (\\Deleted)"),
    ("EXPUNGE of every other message", "EXPUNGE"),
];
/// Most ranges of one set: command lines are limited.
const RANGES_MAX: usize = 500;

/// Microseconds per message, a row for each step and a column for each of `sizes`, as Markdown.
pub fn table(sizes: &[usize]) -> Result<String> {
    let cluster = servers::cluster(1, sizes.len())?;
    let mut columns = Vec::new();
    for (user, size) in cluster.users.iter().zip(sizes) {
        plant(&berth_maildir(&cluster.root, &user.name), *size)?;
        let mut session = Client::login(&cluster.nodes[0].doors.imap, None, &user.name, &user.password)?;
        let mut column = Vec::new();
        for (name, command) in STEPS {
            let commands = if command.contains("{odd}") {
                odd(*size).map(|set| command.replace("{odd}", &set)).collect()
            } else {
                vec![(*command).to_owned()]
            };
            let start = wait::now();
            for command in commands {
                session.command(&command).with_context(|| (*name).to_owned())?;
            }
            let each = start.elapsed().as_secs_f64() * 1e6 / *size as f64;
            eprintln!("{name:<50} {size:>8} {each:.2} µs");
            column.push(each);
        }
        columns.push(column);
    }
    let heads: Vec<String> = sizes.iter().map(|size| format!(" {size} |")).collect();
    let mut text = format!("| µs per message of the mailbox |{}\n| --- |{}\n", heads.concat(), " ---: |".repeat(sizes.len()));
    for (at, (name, _)) in STEPS.iter().enumerate() {
        let cells: Vec<String> = columns.iter().map(|column| format!(" {:.2} |", column[at])).collect();
        text += &format!("| {name} |{}\n", cells.concat());
    }
    Ok(text)
}

/// Sets that name every other UID, none of them longer than a command may be.
fn odd(size: usize) -> impl Iterator<Item = String> {
    let uids: Vec<String> = (1..=size).step_by(2).map(|uid| uid.to_string()).collect();
    uids.chunks(RANGES_MAX).map(|chunk| chunk.join(",")).collect::<Vec<_>>().into_iter()
}

/// Small messages, ten to a thread, as another program would have left them.
fn plant(maildir: &std::path::Path, count: usize) -> Result<()> {
    for name in ["cur", "new", "tmp"] {
        fs::create_dir_all(maildir.join(name))?;
    }
    for number in 0..count {
        let references = if number.is_multiple_of(10) { String::new() } else { format!("References: <{}@bench.example>\r\n", number - 1) };
        let message = format!(
            "From: a{number}@bench.example\r\nTo: b@bench.example\r\nSubject: {}number {}\r\nMessage-ID: <{number}@bench.example>\r\n{references}\r\nHello\r\n",
            if references.is_empty() { "" } else { "Re: " },
            number / 10
        );
        let size = message.len();
        fs::write(maildir.join("cur").join(format!("{}.M{number}P1.bench,S={size},W={size}:2,S", 1_763_700_000 + number)), message)?;
    }
    Ok(())
}
