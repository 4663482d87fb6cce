//! `berth index check` and `rebuild`: a user's index against itself, and anew from the Maildir; done by the node that holds the user.

use std::{
    io::{self, Write},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use affinity::UserName;
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    auth::Authenticator,
    command::{
        ConfigFile,
        control::{IndexProgressReply, IndexReply, Request},
        many,
        moves::progress::Progress,
        place::{Found, NodePlace, normalise},
        seconds,
    },
};

/// Check or rebuild a user's index
///
/// An index holds nothing that can't be had from the Maildir again; damage is noticed and repaired without this command. It is for those who want to
/// be sure, for instance after a fault of the file server. The node that holds the user does it while sessions go on; where nobody does, a node opens
/// the user's mail for it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  berth index check ada@example.org\n  berth index rebuild ada@example.org --json\n  berth index check --all\n\n\
                        Exit codes: 0 the index is sound (or was rebuilt), 1 damage was found (and is repaired), or it could not be looked at"
)]
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
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    user: Option<String>,
    /// Every user of the users file, one after the other
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    place: NodePlace,
}

pub(in crate::command) fn run(args: &IndexArgs) -> anyhow::Result<()> {
    let (args, rebuild) = match &args.what {
        What::Check(args) => (args, false),
        What::Rebuild(args) => (args, true),
    };
    let found = args.place.find()?;
    if let Some(user) = &args.user {
        return look(&found, &normalise(user, &found.rules)?, rebuild, args.place.json, "");
    }
    let config = ConfigFile::or_default(args.place.config.as_ref()).load()?;
    let mut users = Authenticator::open(&config.auth, config.passwd_file())?.users_of_files();
    users.sort();
    users.dedup();
    let mut failed = 0;
    for (at, user) in users.iter().enumerate() {
        if let Err(error) = look(&found, user, rebuild, args.place.json, &format!("{} of {}: ", at + 1, many(users.len(), "user"))) {
            eprintln!("{error:#}");
            failed += 1;
        }
    }
    if failed > 0 {
        bail!("{} had damage or could not be looked at, each is named above", many(failed, "user"));
    }
    Ok(())
}

/// `of`: which of how many it is.
fn look(found: &Found, user: &UserName, rebuild: bool, as_json: bool, of: &str) -> anyhow::Result<()> {
    let request = Request::Index { user: user.to_string(), rebuild };
    let doing = format!("{of}{user}: the index is {}", if rebuild { "made anew" } else { "read" });
    let how_far = || {
        let asked = found.ask::<IndexProgressReply>(&Request::IndexProgress { user: user.to_string() });
        // A node of an older build does not know the question.
        asked.ok().flatten().map(|(_, progress)| progress)
    };
    let reply: IndexReply =
        while_saying(&doing, &how_far, || found.ask_node("berth index", &request)).with_context(|| format!("{user}: not looked at"))?;
    let mut out = io::stdout().lock();
    if as_json {
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

/// Says every second how far `work` is, and for how long it goes on.
fn while_saying<T>(doing: &str, how_far: &(dyn Fn() -> Option<IndexProgressReply> + Sync), work: impl FnOnce() -> T) -> T {
    let (done, wait) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut progress = Progress::new();
            while wait.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                let far = how_far();
                progress.show(&format!("{doing}{}, {} s", far.map_or_else(String::new, say), progress.elapsed().as_secs()));
            }
        });
        let result = work();
        drop(done);
        result
    })
}

fn say(progress: IndexProgressReply) -> String {
    match progress {
        IndexProgressReply { of: 0, .. } => String::new(),
        IndexProgressReply { mailboxes, of, messages } => format!(", {mailboxes} of {of} mailboxes, {messages} messages"),
    }
}
