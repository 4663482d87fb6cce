//! MESSAGELIMIT (RFC 9738), with a client that goes on where it was told.

use std::collections::BTreeSet;

use tests::{
    Context, Result,
    clients::imap::{Imap, Status},
    cluster::{Cluster, Demo},
    ensure, mail,
};

/// The least that may be set.
const LIMIT: usize = 1000;
/// More than that.
const MESSAGES: usize = 1200;
/// What `a_client_that_goes_on_below_the_last_uid_does_everything_once` may take in rounds: one for each limit's worth.
const ROUNDS: usize = MESSAGES.div_ceil(LIMIT);

/// The last UID of the code, if the command stopped.
fn stopped(reply: &tests::clients::imap::Reply) -> Result<Option<u32>> {
    let Some(arguments) = reply.code("MESSAGELIMIT") else { return Ok(None) };
    let (limit, lowest) = arguments.split_once(' ').context("no UID")?;
    ensure!(limit == LIMIT.to_string());
    Ok(Some(lowest.parse()?))
}

#[test]
fn a_client_that_goes_on_below_the_last_uid_does_everything_once() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 1, dir: None })?;
    cluster.configure(&format!("[imap]\nmessage_limit = {LIMIT}\n"))?;
    let user = cluster.users[0].clone();
    let mut imap = Imap::login(&cluster.nodes[1].doors.imap, &user.name, &user.password)?;
    let literal = |number: usize| {
        let text = String::from_utf8_lossy(&mail::message("limits", number)).into_owned();
        format!(" {{{}+}}\r\n{text}", text.len())
    };
    let append = |count: usize| format!("APPEND INBOX{}", (0..count).map(literal).collect::<String>());
    let refused = imap.command(&append(LIMIT + 1))?;
    ensure!(refused.status == Status::No && refused.code("MESSAGELIMIT") == Some("1000"), "{:?}", refused.text);
    for count in [LIMIT, MESSAGES - LIMIT] {
        imap.command(&append(count))?.ok()?;
    }
    // What an operator exports is whole all the same.
    let folder = tempfile::tempdir()?;
    let to = folder.path().join("tree");
    let exported = cluster.command(&["export", &user.name, "--to", to.to_str().context("path")?, "--json"])?;
    ensure!(exported.contains(&format!("\"exported\":{MESSAGES}")), "{exported}");
    imap.select("INBOX")?;
    // Commands of a client, each with what counts as done.
    for (command, told) in
        [("UID FETCH 1:{} (FLAGS)", "FETCH"), ("UID STORE 1:{} +FLAGS (\\Seen)", "FETCH"), ("UID SEARCH UID 1:{} SEEN", "SEARCH")]
    {
        let (mut below, mut done) = (u32::MAX, BTreeSet::new());
        for round in 1.. {
            ensure!(round <= ROUNDS, "{command} goes on and on");
            let reply = imap.command(&command.replace("{}", &below.to_string()))?.ok()?;
            let numbers: Vec<u64> = match told {
                "SEARCH" => reply.search()?,
                _ => reply.all(told).filter_map(|response| response.number.map(u64::from)).collect(),
            };
            let lowest = stopped(&reply)?;
            ensure!(lowest.is_none() || numbers.is_sorted_by(|one, other| one > other), "{command}: not from above");
            ensure!(
                numbers.len() <= LIMIT && numbers.iter().all(|number| done.insert(*number)),
                "{command}: {} at once, or twice",
                numbers.len()
            );
            match lowest {
                Some(lowest) => below = lowest - 1,
                None => break,
            }
        }
        ensure!(done.len() == MESSAGES, "{command}: {} messages", done.len());
    }
    ensure!(imap.command("UID COPY 1:* Sent")?.status == Status::No);
    let mut moves = 1;
    while stopped(&imap.command("UID MOVE 1:* Sent")?.ok()?)?.is_some() {
        moves += 1;
    }
    ensure!(moves == ROUNDS && imap.select("Sent")?.exists().and_then(|count| usize::try_from(count).ok()) == Some(MESSAGES));
    Ok(())
}
