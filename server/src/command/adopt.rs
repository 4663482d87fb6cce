//! `berth adopt` and `berth release-to`: mail of another server is taken over in place, and handed back.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
};

use affinity::{Root, UserName};
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use storage::{
    AccountPaths,
    adopt::{self, MailboxReport, Report, Server},
};

use super::{
    ConfigFile, many,
    place::{no_user, normalise},
    runtime, table,
};
use crate::{auth::Authenticator, config::Config};

/// Check mail of another server that is to be taken over in place
///
/// Mail of Dovecot and Courier needs no conversion: it is taken over when a user's account is opened for the first time. UIDs, UIDVALIDITY,
/// flags, keywords, dates, POP3 UIDLs and subscriptions stay, so no client downloads anything again. The other server must have stopped.
/// This command says beforehand what would stay, and gives users back to Berth whom `berth release-to` handed back.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  berth adopt --all --dry-run\n  berth adopt ada@example.org")]
pub struct AdoptArgs {
    /// The user
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    user: Option<String>,
    /// Every user of the users file
    #[arg(long)]
    all: bool,
    /// Only check; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON, one line a user
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

/// Hand a user's mail back to another server
///
/// Writes the server's lists of UIDs, keywords and subscriptions, and removes the index; from then on Berth refuses to open the account, until
/// `berth adopt USER`. Nobody may hold the user: end the sessions and wait for `mail.linger`, or stop the nodes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  berth release-to dovecot ada@example.org")]
pub struct ReleaseArgs {
    /// The server
    to: To,
    /// The user
    user: String,
    #[command(flatten)]
    config: ConfigFile,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum To {
    /// Dovecot, Maildir++ layout
    Dovecot,
}

pub(super) fn adopt(args: &AdoptArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    Root::open(&config.node.root, config.node.cluster_id.as_deref())?;
    let places = Places::open(&config)?;
    let users = match &args.user {
        Some(user) => vec![normalise(user, &config.auth.names)?],
        None => places.every_user(),
    };
    let mut problems = 0;
    for (number, user) in users.iter().enumerate() {
        progress(&format!("{}/{} {user}", number + 1, users.len()));
        problems += adopt_one(&places.of(user)?, user, args).with_context(|| format!("can't check the mail of {user}"))?;
    }
    progress("");
    let said = match problems {
        0 => "nothing would be lost".to_owned(),
        problems => format!("{}, said above", many(problems, "problem")),
    };
    eprintln!("{}: {said}", many(users.len(), "user"));
    Ok(())
}

/// Prints what is found; how many problems there are.
fn adopt_one(paths: &AccountPaths, user: &UserName, args: &AdoptArgs) -> anyhow::Result<usize> {
    let mut seen = 0;
    let report = adopt::check(paths, &mut |mailbox| {
        seen += 1;
        progress(&format!("{user}: {}, {}", many(seen, "mailbox"), mailbox.name));
    })?;
    progress("");
    let Some(report) = report else {
        if args.json {
            println!("{}", json!({ "user": user.as_str(), "maildir": null }));
            return Ok(0);
        }
        println!("{user}: no Maildir {}", paths.maildir.display());
        return Ok(0);
    };
    let returned = !args.dry_run && report.is_released && adopt::take_back(paths)?;
    let problems = report.problems.len() + report.mailboxes.iter().map(|mailbox| mailbox.problems.len()).sum::<usize>();
    if args.json {
        println!("{}", as_json(user, &paths.maildir, &report, returned));
        return Ok(problems);
    }
    if problems == 0 && !report.is_released && report.mailboxes.iter().all(|mailbox| mailbox.is_ours) {
        println!("{user}: is Berth's already, nothing to do ({})", many(report.mailboxes.len(), "mailbox"));
        return Ok(0);
    }
    print_report(&mut io::stdout().lock(), user, &report)?;
    match (report.is_released, returned) {
        (true, true) => println!("{user}: was handed back; is taken over again when opened next"),
        (true, false) => println!("{user}: was handed back; `berth adopt {user}` takes it over again"),
        _ => {}
    }
    Ok(problems)
}

fn server_name(is_ours: bool, server: Option<Server>) -> Option<&'static str> {
    match (is_ours, server) {
        (true, _) => Some("Berth"),
        (false, Some(Server::Dovecot)) => Some("Dovecot"),
        (false, Some(Server::Courier)) => Some("Courier"),
        (false, None) => None,
    }
}

fn as_json(user: &UserName, maildir: &Path, report: &Report, returned: bool) -> Value {
    let mailboxes = report.mailboxes.iter().map(|mailbox| {
        json!({
            "mailbox": mailbox.name.as_str(),
            "from": server_name(mailbox.is_ours, mailbox.server),
            "messages": mailbox.messages,
            "keep_uid": mailbox.with_uid,
            "keep_uidl": mailbox.with_uidl,
            "keywords": mailbox.keywords,
            "to_be_read": mailbox.to_be_read,
            "uidvalidity": mailbox.numbers.map(|(validity, _)| validity),
            "uidnext": mailbox.numbers.map(|(_, next)| next),
            "problems": mailbox.problems,
        })
    });
    json!({
        "user": user.as_str(),
        "maildir": maildir,
        "mailboxes": mailboxes.collect::<Vec<_>>(),
        "was_released": report.is_released,
        "taken_back": returned,
        "problems": report.problems,
    })
}

fn print_report(out: &mut impl Write, user: &UserName, report: &Report) -> io::Result<()> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for mailbox in &report.mailboxes {
        let MailboxReport { name, is_ours, server, messages, with_uid, with_uidl, to_be_read, keywords, numbers, .. } = mailbox;
        let from = server_name(*is_ours, *server).unwrap_or("-");
        let validity = numbers.map_or_else(|| "new".to_owned(), |(validity, _)| validity.to_string());
        let counts = [*messages, *with_uid, *with_uidl, *keywords, *to_be_read].map(|count| count.to_string());
        rows.push([name.to_string(), from.to_owned()].into_iter().chain(counts).chain([validity]).collect());
    }
    writeln!(out, "{user}:")?;
    table::print(out, &["MAILBOX", "FROM", "MESSAGES", "KEEP UID", "KEEP UIDL", "KEYWORDS", "TO BE READ", "UIDVALIDITY"], &rows)?;
    for problem in report.mailboxes.iter().flat_map(|mailbox| &mailbox.problems).chain(&report.problems) {
        writeln!(out, "  problem: {problem}")?;
    }
    Ok(())
}

/// Where users and their mail are, by settings and sources.
struct Places<'a> {
    config: &'a Config,
    auth: Authenticator,
    runtime: tokio::runtime::Runtime,
}

impl Places<'_> {
    fn open(config: &Config) -> anyhow::Result<Places<'_>> {
        Ok(Places { config, auth: Authenticator::open(&config.auth, config.passwd_file())?, runtime: runtime()? })
    }

    fn of(&self, user: &UserName) -> anyhow::Result<AccountPaths> {
        let record = self.runtime.block_on(self.auth.record(user))?;
        if record.is_none() {
            bail!("{}", no_user(user));
        }
        self.config.account_paths(user, record.as_deref()).map_err(anyhow::Error::msg)
    }

    /// Those of the users files: other sources can't be asked for all that they have.
    fn every_user(&self) -> Vec<UserName> {
        let mut names = self.auth.users_of_files();
        names.sort();
        names.dedup();
        names
    }
}

pub(super) fn release(args: &ReleaseArgs) -> anyhow::Result<()> {
    let To::Dovecot = args.to;
    let config = args.config.load()?;
    let root = Root::open(&config.node.root, config.node.cluster_id.as_deref())?;
    let user = normalise(&args.user, &config.auth.names)?;
    let ensure_free = || match root.look(&user).map(|seen| seen.holder) {
        Ok(None) => Ok(()),
        Ok(Some(holder)) => {
            Err(format!("{user} is held by {}: end the sessions and wait for `mail.linger`, or stop that node", holder.node))
        }
        Err(error) => Err(format!("can't see whether somebody holds {user}: {error}")),
    };
    let released = storage::release::to_dovecot(&Places::open(&config)?.of(&user)?, ensure_free)?;
    if released.is_empty() {
        bail!("no mailbox of {user} was ever opened by Berth");
    }
    println!("{user} was handed back; Berth does not open it until `berth adopt {user}`.");
    println!("Before a client that keeps MODSEQs (QRESYNC) comes back, let Dovecot go on above ours:");
    for mailbox in released {
        println!(
            "  doveadm mailbox update -u {user} --min-highest-modseq {} '{}'    # {} messages",
            mailbox.modseq, mailbox.name, mailbox.messages
        );
    }
    Ok(())
}

/// One line on a terminal that the next one replaces.
fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}
