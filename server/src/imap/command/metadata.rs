//! GETMETADATA and SETMETADATA (RFC 5464), and what LIST says of annotations (RFC 9590).
//!
//! - `/shared` entries of the server are the administrator's: clients may not set them.
//! - `/private/specialuse` is the special use that LIST shows (RFC 6154 §4); it is given by CREATE and read-only here.

use std::sync::Arc;

use storage::{ANNOTATION_BYTES_MAX, Account, Annotated, Annotations, MailboxEntry, MailboxName, StorageError};

use super::mailboxes::valid;
use crate::imap::{
    holding::Holding,
    reply::{Reply, Stop},
    session::Session,
    wire::{
        command::{Depth, GetMetadata, MailboxArgument},
        enabled::Enabled,
        parse::{self, Options},
        response::{self, Code},
    },
};

/// The entry that shows the special use.
const SPECIAL_USE: &str = "/private/specialuse";

/// Where filters are kept.
const FILTERS: &str = "/private/filters/values/";

/// An entry as it is told, with its value.
type Told = (String, Option<Vec<u8>>);

/// GETMETADATA.
pub async fn get<H: Holding>(session: &mut Session<H>, get: GetMetadata) -> Result<Reply, Stop> {
    let GetMetadata { mailbox, entries, size_max, depth } = get;
    let name = mailbox.map(valid).transpose()?;
    let asked = name.clone();
    let annotations = session.held.run(move |account| look(account, asked.as_ref())).await?;
    let (mut told, mut longest) = (Vec::new(), None);
    let is_guest = session.guest.is_some();
    for (entry, value) in select(&annotations, &entries, depth) {
        // Those are the owner's own.
        let hidden = is_guest && is_private(&entry);
        if hidden && depth != Depth::Zero {
            continue;
        }
        let value = value.filter(|_| !hidden);
        let size = value.as_ref().map_or(0, |value| value.len() as u64);
        match size_max.filter(|most| size > *most) {
            Some(_) => longest = longest.max(Some(size)),
            None => told.push((entry, value)),
        }
    }
    write(session, name.as_ref(), &told).await?;
    let reply = Reply::ok("Getmetadata completed");
    Ok(longest.map_or_else(|| reply.clone(), |size| reply.clone().with(Code::MetadataLongEntries(size).into())))
}

/// SETMETADATA: all entries or none.
pub async fn set<H: Holding>(session: &mut Session<H>, mailbox: Option<MailboxArgument>, values: Vec<Told>) -> Result<Reply, Stop> {
    let name = mailbox.map(valid).transpose()?;
    for (entry, value) in &values {
        if session.guest.is_some() && is_private(entry) {
            return Err(Reply::no(Code::NoPerm, "Private entries of another user's mailbox can't be set").into());
        }
        let is_shared = entry.get(..8).is_some_and(|scope| scope.eq_ignore_ascii_case("/shared/"));
        if name.is_none() && is_shared {
            return Err(Reply::no(Code::NoPerm, "Shared entries of the server are set by the administrator").into());
        }
        if name.is_some() && entry.eq_ignore_ascii_case(SPECIAL_USE) {
            return Err(Reply::no(Code::Cannot, "The special use is given by CREATE").into());
        }
        if let (None, Some(value)) = (&name, value)
            && is_filter(entry)
            && parse::search_keys(value, Options { enabled: Enabled::NOTHING, nesting: session.settings.nesting }).is_none()
        {
            return Err(Reply::no(Code::Cannot, "The value of a filter is not what SEARCH can look for").into());
        }
        if value.as_ref().is_some_and(|value| value.len() > ANNOTATION_BYTES_MAX) {
            return Err(Reply::no(Code::MetadataMaxSize(ANNOTATION_BYTES_MAX as u64), "A value is too large").into());
        }
    }
    let origin = session.origin;
    match session.held.run(move |account| account.annotate_as(origin, name.as_ref(), &values)).await? {
        Annotated::Done => Ok(Reply::ok("Setmetadata completed")),
        Annotated::TooMany => Err(Reply::no(Code::MetadataTooMany, "There are as many entries as there may be").into()),
    }
}

/// Whether the entry of the server holds search keys (RFC 5466 §3.2).
fn is_filter(entry: &str) -> bool {
    entry.get(..FILTERS.len()).is_some_and(|start| start.eq_ignore_ascii_case(FILTERS))
}

fn is_private(entry: &str) -> bool {
    entry.get(..9).is_some_and(|scope| scope.eq_ignore_ascii_case("/private/"))
}

/// The annotations with what is worked out.
#[derive(Debug)]
pub struct Looked {
    kept: Arc<Annotations>,
    special_use: Option<&'static str>,
}

fn look(account: &Arc<Account>, name: Option<&MailboxName>) -> Result<Looked, StorageError> {
    let entries = if name.is_some() { account.list()? } else { Vec::new() };
    let entry = entries.iter().find(|entry| Some(&entry.name) == name);
    Ok(Looked { kept: account.annotations(name)?, special_use: special_use(entry) })
}

fn special_use(entry: Option<&MailboxEntry>) -> Option<&'static str> {
    entry?.special_use.map(storage::SpecialUse::as_str)
}

/// What these mailboxes have, for LIST; those that can't be read now are left out. Blocking.
pub fn look_all(account: &Arc<Account>, entries: &[MailboxEntry]) -> Result<Vec<(MailboxName, Looked)>, StorageError> {
    let names: Vec<_> = entries.iter().map(|entry| Some(entry.name.clone())).collect();
    let mut looked = Vec::with_capacity(entries.len());
    for (entry, kept) in entries.iter().zip(account.annotations_of(&names)?) {
        match kept {
            Ok(kept) => looked.push((entry.name.clone(), Looked { kept, special_use: special_use(Some(entry)) })),
            Err(error @ (StorageError::LeaseLost(_) | StorageError::Closing(_))) => return Err(error),
            Err(error) => tracing::warn!(mailbox = %entry.name, %error, "LIST leaves METADATA out"),
        }
    }
    Ok(looked)
}

/// Entries that were asked for, NIL where there is none; with a depth, also what lies below them.
pub fn select(annotations: &Looked, entries: &[String], depth: Depth) -> Vec<Told> {
    let mut told: Vec<Told> = Vec::new();
    let kept = annotations.kept.iter().filter(|(entry, _)| *entry != SPECIAL_USE);
    let all: Vec<(&str, &[u8])> = kept.chain(annotations.special_use.map(|special_use| (SPECIAL_USE, special_use.as_bytes()))).collect();
    for asked in entries {
        let lower = asked.to_ascii_lowercase();
        let value = all.iter().find(|(entry, _)| *entry == lower).map(|(_, value)| value.to_vec());
        if value.is_some() || depth == Depth::Zero {
            add(&mut told, asked.clone(), value);
        }
        for (entry, value) in &all {
            let below = entry.strip_prefix(&lower).and_then(|rest| rest.strip_prefix('/'));
            let wanted = match depth {
                Depth::Zero => false,
                Depth::One => below.is_some_and(|rest| !rest.contains('/')),
                Depth::Infinity => below.is_some(),
            };
            if wanted {
                add(&mut told, (*entry).to_owned(), Some(value.to_vec()));
            }
        }
    }
    told
}

/// Each entry is told once.
fn add(told: &mut Vec<Told>, entry: String, value: Option<Vec<u8>>) {
    if !told.iter().any(|(other, _)| other.eq_ignore_ascii_case(&entry)) {
        told.push((entry, value));
    }
}

/// METADATA, if there is anything to say.
pub async fn write<H: Holding>(session: &mut Session<H>, name: Option<&MailboxName>, told: &[Told]) -> Result<(), Stop> {
    if !told.is_empty() {
        let names = session.enabled.names();
        let entries = told.iter().map(|(entry, value)| (entry.as_str(), value.as_deref()));
        let shown = name.map_or_else(String::new, |name| session.shown(name.as_str()));
        response::metadata(session.connection.output(), &shown, entries, names);
    }
    Ok(session.connection.flush_if_large().await?)
}
