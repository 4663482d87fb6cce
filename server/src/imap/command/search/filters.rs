//! FILTER (RFC 5466): search keys that the account keeps under a name, as annotations of the server.
//!
//! - A filter stands for all of its keys together, as if they were in parentheses.
//! - Filters in filters are followed three deep, and to no more keys than [`KEYS_MAX`]; what goes on beyond counts as not there, as the RFC has it.
//! - A filter that names messages by sequence number counts as not there: it would mean others each time.

use std::{cell::Cell, sync::Arc};

use storage::{Account, Annotations, StorageError};

use crate::imap::{
    holding::Holding,
    reply::{Reply, ReplyCode, Stop},
    session::Session,
    wire::{
        command::SearchKey,
        enabled::Enabled,
        parse::{self, Options},
        response::Code,
    },
};

/// How many filters deep (RFC 5466 §3.1 wants three).
const PASSES_MAX: usize = 3;
/// Most keys that the filters of one command may stand for together: they could multiply.
const KEYS_MAX: usize = 10_000;
/// Most BODY, TEXT and HEADER keys of one command: a line of them would keep a processor busy for seconds with each message.
const TEXTS_MAX: usize = 256;

/// `key` with what its filters stand for.
pub async fn resolve<H: Holding>(session: &Session<H>, key: &SearchKey) -> Result<SearchKey, Stop> {
    if !key.any(&|key| matches!(key, SearchKey::Filter(_))) {
        ensure_few_texts(key)?;
        return Ok(key.clone());
    }
    let look = |account: &Arc<Account>| -> Result<Arc<Annotations>, StorageError> { account.annotations(None) };
    // The owner's are no guest's.
    let kept = if session.guest.is_some() { Arc::default() } else { session.held.run(look).await? };
    let mut filters = Filters { kept: &kept, nesting: session.settings.nesting, keys_left: KEYS_MAX };
    let resolved = filters.replace(key, PASSES_MAX).map_err(undefined)?;
    if resolved.depth() > parse::NESTING_MAX {
        return Err(Reply::bad("The search keys with their filters are nested too deep").into());
    }
    ensure_few_texts(&resolved)?;
    Ok(resolved)
}

/// Each text is looked for in every message that is read.
fn ensure_few_texts(key: &SearchKey) -> Result<(), Reply> {
    let texts = Cell::new(0);
    key.any(&|key| {
        texts.set(texts.get() + usize::from(matches!(key, SearchKey::Body(_) | SearchKey::Text(_) | SearchKey::Header { .. })));
        false
    });
    if texts.get() <= TEXTS_MAX {
        return Ok(());
    }
    Err(Reply::no(Code::Limit, format!("At most {TEXTS_MAX} texts may be searched for in one command")))
}

fn undefined(name: String) -> Reply {
    let text = format!("There is no filter {name} that can be used");
    Reply { condition: crate::imap::wire::response::Condition::No, code: Some(ReplyCode::UndefinedFilter(name)), text: text.into() }
}

struct Filters<'a> {
    kept: &'a Annotations,
    nesting: usize,
    keys_left: usize,
}

impl Filters<'_> {
    /// The error is the name of a filter that is not there.
    fn replace(&mut self, key: &SearchKey, passes: usize) -> Result<SearchKey, String> {
        Ok(match key {
            SearchKey::Filter(name) => {
                let keys = passes.checked_sub(1).and_then(|passes| Some((passes, self.read(name)?)));
                let (passes, keys) = keys.ok_or_else(|| name.clone())?;
                self.replace(&keys, passes)?
            }
            SearchKey::And(keys) => SearchKey::And(keys.iter().map(|key| self.replace(key, passes)).collect::<Result<_, _>>()?),
            SearchKey::Or(one, other) => SearchKey::Or(Box::new(self.replace(one, passes)?), Box::new(self.replace(other, passes)?)),
            SearchKey::Not(key) => SearchKey::Not(Box::new(self.replace(key, passes)?)),
            other => other.clone(),
        })
    }

    fn read(&mut self, name: &str) -> Option<SearchKey> {
        let value = |scope: &str| self.kept.get(&format!("/{scope}/filters/values/{name}"));
        let keys = parse::search_keys(
            value("private").or_else(|| value("shared"))?,
            Options { enabled: Enabled::NOTHING, nesting: self.nesting },
        )?;
        self.keys_left = self.keys_left.checked_sub(keys.count())?;
        (!keys.names_sequence_numbers()).then_some(keys)
    }
}
