//! CATENATE (RFC 4469): content of a new message that is in another message already, named by an IMAP URL.

use std::{ops::Range, sync::Arc};

use storage::{Mailbox, MailboxName, Right, Staged, StorageError, mime::Section};

use super::Content;
use crate::imap::{
    command::fetch::body::{CHUNK_BYTES, Form, Part, Prepared, Request, Wanted, When},
    holding::Holding,
    reply::{Reply, ReplyCode, Stop},
    session::Session,
    wire::{
        response::Code,
        url::{self, MessageUrl},
    },
};

/// Without a number of bytes: as many as there may be.
const TO_THE_END: u64 = u64::MAX >> 1;

/// Adds what `url` names to a message that is being received. `selected`: the name of the selected mailbox.
pub(super) async fn add<H: Holding>(
    session: &Session<H>,
    selected: Option<&MailboxName>,
    url: &str,
    mut staged: Staged,
    mut content: Content,
) -> Result<(Staged, Content), Stop> {
    let bad = |why: &'static str| Reply::no(Code::Cannot, why).with(ReplyCode::BadUrl(url.to_owned()));
    let separator = session.enabled.separator;
    let selected_name = selected.map(|name| separator.written(&session.shown(name.as_str())).into_owned());
    let Some(named) = url::parse(url, selected_name.as_deref()) else {
        return Err(bad("This is no URL of a message here").into());
    };
    let name = match &named.mailbox {
        Some(name) => {
            let name = separator.read(name).ok().and_then(|name| MailboxName::parse(&name).ok());
            let name = name.ok_or_else(|| bad("No mailbox can be called so"))?;
            match &session.guest {
                Some(guest) => guest.local(&name).ok_or_else(|| bad("Not a mailbox of the same user"))?,
                None => name,
            }
        }
        None => selected.cloned().ok_or_else(|| bad("The URL names no mailbox, and none is selected"))?,
    };
    if !session.rights(&name).await?.has(Right::Read) {
        return Err(bad("There is no such mailbox").into());
    }
    let room = session.settings.message_bytes.saturating_sub(content.bytes);
    let added = session.held.run(move |account| {
        let prepared = match account.mailbox(&name).and_then(|mailbox| prepare(&mailbox, &named)) {
            Ok(Some(prepared)) => prepared,
            Ok(None) | Err(StorageError::NoMailbox(_) | StorageError::Expunged) => return Ok(Added::NotThere),
            Err(error) => return Err(error),
        };
        let Some(part) = prepared.parts.first() else { return Ok(Added::NotThere) };
        if length(part) > room {
            return Ok(Added::TooBig);
        }
        each_chunk(&prepared, part, &mut |chunk| {
            content.look_at(chunk);
            staged.write(chunk)
        })?;
        Ok(Added::Done(Box::new((staged, content))))
    });
    match added.await? {
        Added::Done(done) => Ok(*done),
        Added::NotThere => Err(bad("There is no such message or part").into()),
        Added::TooBig => Err(Reply::no(Code::TooBig, "The message would be larger than allowed").into()),
    }
}

enum Added {
    Done(Box<(Staged, Content)>),
    NotThere,
    TooBig,
}

/// Reads what is named; `None`: it is not there (any more). Blocking.
fn prepare(mailbox: &Arc<Mailbox>, named: &MessageUrl) -> Result<Option<Prepared>, StorageError> {
    if named.uid_validity.is_some_and(|validity| validity != mailbox.uid_validity().get()) {
        return Ok(None);
    }
    let section = Section::clone(&named.section);
    let partial = named.partial.map(|(first, count)| (first, count.unwrap_or(TO_THE_END)));
    let request = Request { sections: vec![Wanted { section, partial, form: Form::AsItIs }], body_structure: false };
    let prepared = request.prepare(mailbox, named.uid, When::AtItsTurn)?;
    Ok(prepared.filter(|prepared| !matches!(prepared.parts.first(), Some(Part::Nil))))
}

fn length(part: &Part) -> u64 {
    match part {
        Part::Owned(bytes) => bytes.len() as u64,
        Part::Held(range) | Part::Decoded(_, range) => range.len() as u64,
        Part::Streamed(range) => range.end.saturating_sub(range.start),
        Part::Nil | Part::Size(_) | Part::UnknownEncoding | Part::TooMuch => 0,
    }
}

/// Blocking.
fn each_chunk(prepared: &Prepared, part: &Part, take: &mut dyn FnMut(&[u8]) -> Result<(), StorageError>) -> Result<(), StorageError> {
    match part {
        Part::Owned(bytes) => take(bytes),
        Part::Decoded(bytes, range) => take(bytes.get(Range::clone(range)).unwrap_or_default()),
        Part::Held(range) => take(prepared.raw.get(Range::clone(range)).unwrap_or_default()),
        Part::Streamed(range) => {
            let Some(reader) = &prepared.reader else { return Err(StorageError::Expunged) };
            let mut chunk = vec![0; CHUNK_BYTES];
            let mut at = range.start;
            while at < range.end {
                let wanted = usize::try_from(range.end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
                let got = reader.read_at(at, chunk.get_mut(..wanted).unwrap_or_default())?;
                if got == 0 {
                    return Err(StorageError::Expunged); // shorter than it was: nothing may be stored of it
                }
                take(chunk.get(..got).unwrap_or_default())?;
                at += got as u64;
            }
            Ok(())
        }
        Part::Nil | Part::Size(_) | Part::UnknownEncoding | Part::TooMuch => Ok(()),
    }
}
