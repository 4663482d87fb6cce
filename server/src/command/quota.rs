//! `berth quota`: what users hold and may hold, as their holders say.

use std::io::{self, Write};

use anyhow::{Context, anyhow, bail};
use bytesize::ByteSize;
use clap::{Args, Subcommand};
use serde_json::json;
use storage::{Limits, MAIN_ROOT, QuotaRules};

use super::{
    ConfigFile,
    control::{QuotaReply, Request},
    many,
    place::{Found, NodePlace, normalise},
    table,
    transfer::session::{Session, quoted},
};
use crate::auth::Authenticator;

/// Show what users hold and may hold
///
/// The node that holds a user says it from memory; a user whom nobody holds is opened for the question, and closed when `mail.linger` has passed.
/// Limits come from the user's `userdb_quota_rule` fields, else from [quota] in the configuration. What is set here (or with SETQUOTA) for one user
/// takes their place at once, on every node, until it is removed; it lies beside the user's mail. LIMIT FROM says which it is.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  berth quota ada@example.org\n  berth quota --all --json\n  berth quota ada@example.org --set storage=2G --set messages=100000\n  berth quota ada@example.org --unset\n  berth quota recalc ada@example.org"
)]
pub struct QuotaArgs {
    #[command(subcommand)]
    command: Option<QuotaCommand>,
    /// The user
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    user: Option<String>,
    /// Every user of the users file, one after the other
    #[arg(long)]
    all: bool,
    /// Set what the user may hold: storage=2G, messages=100000, or both; what is not named is not limited
    #[arg(long, value_name = "LIMIT", conflicts_with = "all")]
    set: Vec<String>,
    /// Remove what was set: what the user's source says holds again
    #[arg(long, conflicts_with_all = ["all", "set"])]
    unset: bool,
    /// The quota root, for --set and --unset
    #[arg(long = "quota-root", value_name = "NAME", default_value = MAIN_ROOT)]
    root: String,
    #[command(flatten)]
    place: NodePlace,
}

#[derive(Debug, Subcommand)]
enum QuotaCommand {
    Recalc(RecalcArgs),
}

/// Compare every mailbox of a user with its folder, count anew, and write `maildirsize`
///
/// Usage is counted by the commits that change it and needs no repair; this is for folders that other programs changed, and to be sure. It names the
/// mailboxes that were counted wrongly.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  berth quota recalc ada@example.org")]
struct RecalcArgs {
    /// The user
    user: String,
    #[command(flatten)]
    place: NodePlace,
}

pub(super) fn run(args: &QuotaArgs) -> anyhow::Result<()> {
    if let Some(QuotaCommand::Recalc(args)) = &args.command {
        let found = args.place.find()?;
        let user = normalise(&args.user, &found.rules)?.to_string();
        return print(&[ask(&found, user, true)?], args.place.json);
    }
    let found = args.place.find()?;
    if let Some(user) = &args.user {
        let user = normalise(user, &found.rules)?.to_string();
        if args.unset || !args.set.is_empty() {
            set(&found, &user, &args.root, &args.set)?;
        }
        return print(&[ask(&found, user, false)?], args.place.json);
    }
    let config = ConfigFile::or_default(args.place.config.as_ref()).load()?;
    let mut failed = 0;
    let mut answers = Vec::new();
    let mut users = Authenticator::open(&config.auth, config.passwd_file())?.users_of_files();
    users.sort();
    users.dedup();
    for user in users {
        match ask(&found, user.to_string(), false) {
            // Line by line: a program that reads them need not wait for the last.
            Ok(answer) if args.place.json => print(&[answer], true)?,
            Ok(answer) => answers.push(answer),
            Err(error) => {
                eprintln!("{user}: {error:#}");
                failed += 1;
            }
        }
    }
    if !args.place.json {
        print(&answers, false)?;
    }
    if failed > 0 {
        bail!("{} could not be asked for, each is named above", many(failed, "user"));
    }
    Ok(())
}

/// Nothing to set: what was set is removed.
fn set(found: &Found, user: &str, root: &str, limits: &[String]) -> anyhow::Result<()> {
    let limits = if limits.is_empty() { String::new() } else { resources(limits)? };
    let socket = found.socket.as_ref().context("this asks a running node")?;
    let mut session = Session::open(socket, user).with_context(|| format!("can't open the mail of {user}"))?;
    let command = format!("SETQUOTA {} ({limits})", quoted(root));
    session.ask(&command, &mut |_, _| Ok(())).with_context(|| format!("the quota of {user} was not changed"))?;
    Ok(())
}

/// As SETQUOTA names them. Amounts are those of quota rules.
fn resources(limits: &[String]) -> anyhow::Result<String> {
    let mut rules = QuotaRules::default();
    rules.set(MAIN_ROOT, &format!("*:{}", limits.join(":"))).map_err(|why| anyhow!("--set: {why}"))?;
    let Limits { bytes, messages } = rules.main_limits();
    let named = [("STORAGE", bytes.map(|bytes| bytes.div_ceil(1024))), ("MESSAGE", messages)];
    let named: Vec<String> = named.into_iter().filter_map(|(name, limit)| Some(format!("{name} {}", limit?))).collect();
    if named.is_empty() {
        bail!("--set: 0 limits nothing");
    }
    Ok(named.join(" "))
}

fn ask(found: &Found, user: String, recount: bool) -> anyhow::Result<(String, QuotaReply)> {
    let request = Request::Quota { user: user.clone(), recount };
    let reply = found.ask_node("this", &request).with_context(|| format!("can't say what {user} holds"))?;
    Ok((user, reply))
}

/// A line of JSON per user, or one table.
fn print(answers: &[(String, QuotaReply)], as_json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        for (user, QuotaReply { holder, roots, corrected }) in answers {
            writeln!(out, "{}", json!({ "user": user, "holder": holder, "roots": roots, "corrected": corrected }))?;
        }
        return Ok(());
    }
    let limited = |used: String, limit: Option<String>| limit.map_or(used.clone(), |limit| format!("{used} of {limit}"));
    let size = |bytes: u64| ByteSize::b(bytes).display().iec().to_string();
    let mut rows = Vec::new();
    for (user, QuotaReply { holder, roots, .. }) in answers {
        for root in roots {
            let parts = [(root.bytes, root.bytes_limit), (root.messages, root.messages_limit)];
            let fullest = parts.into_iter().filter_map(|(used, limit)| Some(u128::from(used) * 100 / u128::from(limit?.max(1)))).max();
            rows.push(vec![
                user.clone(),
                root.root.clone(),
                limited(size(root.bytes), root.bytes_limit.map(size)),
                limited(root.messages.to_string(), root.messages_limit.map(|limit| limit.to_string())),
                root.mailboxes.to_string(),
                fullest.map_or_else(|| "-".to_owned(), |percent| format!("{percent} %")),
                root.source.clone().unwrap_or_else(|| "-".to_owned()),
                holder.clone(),
            ]);
        }
    }
    table::print(&mut out, &["USER", "ROOT", "BYTES", "MESSAGES", "MAILBOXES", "FULL", "LIMIT FROM", "HOLDER"], &rows)?;
    for (user, mailbox) in answers.iter().flat_map(|(user, reply)| reply.corrected.iter().map(move |mailbox| (user, mailbox))) {
        writeln!(out, "{user}: {mailbox} was counted wrongly and is right now")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_named_as_rules_name_them() {
        let named = |limits: &[&str]| {
            resources(&limits.iter().map(|limit| (*limit).to_owned()).collect::<Vec<_>>()).map_err(|error| error.to_string())
        };
        assert_eq!(named(&["storage=1G", "messages=10000"]).unwrap(), "STORAGE 1048576 MESSAGE 10000");
        assert_eq!(named(&["bytes=1"]).unwrap(), "STORAGE 1");
        assert!(named(&["messages=0"]).is_err());
        assert!(named(&["storage=soon"]).is_err());
        assert!(named(&["storage=+10%"]).is_err());
    }
}
