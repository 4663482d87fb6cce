//! `berth import` and `berth export`: a user's mail from and to files.
//!
//! Both are IMAP sessions through the control socket of the node on this host, so that whoever holds the user does the work: one writer, quotas and
//! durability as for every client.

mod export;
mod import;
mod mbox;
mod message;
pub(super) mod session;
mod source;

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use self::{export::Target, import::Importer, mbox::Variant, session::Session, source::Reading};
use super::place::{NodePlace, normalise};

/// Bring mail of a user in, from a Maildir tree, mbox files or a tar archive of either
///
/// Flags, keywords, dates and subscriptions come along; new mailboxes are made. What the user has already (by size, Message-ID, Date, Subject and From
/// within a mailbox) is left out, so that the same command can be given again after an interruption, and does nothing when all is there. A message that
/// occurs twice in the source is there twice afterwards. Compressed archives come through a pipe: zcat mail.tar.gz | berth import ada --from -
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  berth import ada@example.org --from /home/ada/Maildir --dry-run\n  berth import ada@example.org --from old.mbox --mailbox Archive/Old\n  zcat ada.tar.gz | berth import ada@example.org --from -"
)]
pub struct ImportArgs {
    /// The user
    user: String,
    /// A Maildir or a folder of Maildirs or mbox files, an mbox file, a tar archive; `-`: standard input (tar or mbox)
    #[arg(long, value_name = "PATH")]
    from: PathBuf,
    /// Put everything into this mailbox, and the source's other mailboxes below it
    #[arg(long, value_name = "MAILBOX")]
    mailbox: Option<String>,
    /// How mbox files keep lines that begin with "From "
    #[arg(long, value_enum, default_value_t)]
    mbox: Variant,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    place: NodePlace,
}

/// Write a user's mail into files
///
/// As a Maildir++ tree (message files never change their names, so the same command goes on after an interruption and adds what is new), as a tar archive of
/// one (`--to mail.tar`, or `-` for standard output), or as a folder of mbox files (mboxrd). Flags, keywords, dates and subscriptions are kept; mbox has no
/// subscriptions.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  berth export ada@example.org --to /backup/ada\n  berth export ada@example.org --to - | zstd > ada.tar.zst\n  berth export ada@example.org --to /tmp/ada --format mbox --mailbox 'Archive/*'"
)]
pub struct ExportArgs {
    /// The user
    user: String,
    /// Where to: a folder, a file whose name ends with .tar, or `-` (a tar archive on standard output)
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
    /// How, in a folder
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only mailboxes that fit this, with `*` for any text
    #[arg(long, value_name = "PATTERN")]
    mailbox: Option<String>,
    #[command(flatten)]
    place: NodePlace,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Maildir++
    #[default]
    Maildir,
    /// a file for each mailbox
    Mbox,
}

fn open(place: &NodePlace, user: &str) -> anyhow::Result<(String, Session)> {
    let found = place.find()?;
    let user = normalise(user, &found.rules)?.to_string();
    let socket = found.socket.context("this asks a running node")?;
    let session = Session::open(&socket, &user).with_context(|| format!("can't open the mail of {user}"))?;
    Ok((user, session))
}

pub(super) fn import(args: &ImportArgs) -> anyhow::Result<()> {
    let (user, mut session) = open(&args.place, &args.user)?;
    let reading = Reading { variant: args.mbox, below: args.mailbox.clone(), scratch: std::env::temp_dir() };
    let mut importer = Importer::new(&mut session, args.dry_run)?;
    let read = source::read(&args.from, &reading, &mut importer).and_then(|()| importer.flush());
    let counts = importer.counts;
    if args.place.json {
        println!("{}", json!({ "user": user, "dry_run": args.dry_run, "counts": counts }));
    } else {
        let done = if args.dry_run { "would be imported" } else { "imported" };
        println!(
            "{user}: {} messages {done}, {} there already, {} not taken, {} mailboxes made",
            counts.imported, counts.skipped, counts.failed, counts.made
        );
    }
    read?;
    if counts.failed > 0 {
        bail!("{} messages were not taken, each is named above", counts.failed);
    }
    Ok(())
}

pub(super) fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let is_tar = args.to == Path::new("-") || args.to.extension().is_some_and(|extension| extension == "tar");
    if is_tar && args.format == Format::Mbox {
        bail!("mbox files go into a folder: --to FOLDER");
    }
    if args.place.json && args.to == Path::new("-") {
        bail!("standard output has the archive: leave --json out");
    }
    let (user, mut session) = open(&args.place, &args.user)?;
    let mut names = session.mailboxes()?;
    if let Some(pattern) = &args.mailbox {
        names.retain(|name| storage::matches_mask(pattern.as_bytes(), name.as_bytes()));
        if names.is_empty() {
            bail!("{user} has no mailbox that fits {pattern:?}");
        }
    }
    let archive = |out: Box<dyn Write>| Target::Tar(Box::new(tar::Builder::new(out)));
    let mut target = match (is_tar, args.format) {
        (true, _) if args.to == Path::new("-") => archive(Box::new(BufWriter::new(io::stdout()))),
        (true, _) => {
            let file = File::create(&args.to).with_context(|| format!("can't make {}", args.to.display()))?;
            archive(Box::new(BufWriter::new(file)))
        }
        (false, Format::Maildir) => Target::Maildir(args.to.clone()),
        (false, Format::Mbox) => Target::Mbox(args.to.clone()),
    };
    let counts = export::run(&mut session, &names, &mut target)?;
    if args.place.json {
        println!("{}", json!({ "user": user, "counts": counts }));
    } else {
        eprintln!("{user}: {} messages of {} mailboxes exported, {} there already", counts.exported, counts.mailboxes, counts.skipped);
    }
    Ok(())
}
