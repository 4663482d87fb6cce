//! `berth index check` and `rebuild`: a user's index against itself, and anew from the Maildir; done by the node that holds the user.

use std::{
    io::{self, Write},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::command::{
    control::{IndexReply, Request},
    many,
    moves::progress::Progress,
    place::{NodePlace, normalise},
    seconds,
};

/// Check or rebuild a user's index
///
/// An index holds nothing that can't be had from the Maildir again; damage is noticed and repaired without this command. It is for those who want to
/// be sure, for instance after a fault of the file server. The node that holds the user does it while sessions go on; where nobody does, a node opens
/// the user's mail for it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  berth index check ada@example.org\n  berth index rebuild ada@example.org --json\n\n\
                        Exit codes: 0 the index is sound (or was rebuilt), 1 damage was found (and is repaired), or it could not be looked at")]
pub struct IndexArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Read all of it, and compare every row with its checksum
    Check(UserArgs),
    /// Make it anew, from memory and the Maildir
    Rebuild(UserArgs),
}

#[derive(Debug, Args)]
struct UserArgs {
    /// The user
    user: String,
    #[command(flatten)]
    place: NodePlace,
}

pub(in crate::command) fn run(args: &IndexArgs) -> anyhow::Result<()> {
    let (args, rebuild) = match &args.what {
        What::Check(args) => (args, false),
        What::Rebuild(args) => (args, true),
    };
    let found = args.place.find()?;
    let user = normalise(&args.user, &found.rules)?;
    let request = Request::Index { user: user.to_string(), rebuild };
    let doing = format!("{user}: the index is {}", if rebuild { "made anew" } else { "read" });
    let reply: IndexReply = while_saying(&doing, || found.ask_node("berth index", &request))?;
    let mut out = io::stdout().lock();
    if args.place.json {
        let took = seconds(Duration::from_millis(reply.milliseconds));
        let line = json!({ "user": user, "holder": reply.node, "mailboxes": reply.mailboxes, "took_s": took, "damage": reply.damage });
        writeln!(out, "{line}")?;
    } else {
        let did = if rebuild { "made anew" } else { "checked" };
        writeln!(out, "{user}: {} {did} on {} in {} ms", many(reply.mailboxes, "mailbox"), reply.node, reply.milliseconds)?;
    }
    match reply.damage {
        Some(damage) => bail!("{user}: {damage}"),
        None => Ok(()),
    }
}

/// Says every second for how long `work` goes on.
fn while_saying<T>(doing: &str, work: impl FnOnce() -> T) -> T {
    let (done, wait) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut progress = Progress::new();
            while wait.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                progress.show(&format!("{doing}, {} s", progress.elapsed().as_secs()));
            }
        });
        let result = work();
        drop(done);
        result
    })
}
