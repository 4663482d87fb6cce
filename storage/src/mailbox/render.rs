//! ENVELOPE, BODYSTRUCTURE, cached header fields and previews: rendered once, when the message passes through, and stored ready to send.

use std::{collections::HashMap, sync::Arc};

use index::Uid;

use super::{Mailbox, Rendered, state::Rendering};
use crate::{StorageError, mime::Structure, parallel};

/// Renders a message with CRLF line ends.
pub(super) fn render(raw: &[u8]) -> Made {
    let structure = Structure::parse(raw);
    let rendered = Rendered {
        envelope: structure.envelope().into(),
        body_structure: structure.body_structure(true).into(),
        headers: structure.cached_headers().into(),
    };
    Made { rendered, preview: structure.preview().into() }
}

/// All that is rendered of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub rendered: Rendered,
    pub preview: Arc<str>,
}

impl Mailbox {
    /// ENVELOPE, BODYSTRUCTURE and cached header fields, in the order of `uids`; `None` for messages that are gone. Renders what is missing. Blocking.
    pub fn rendered(&self, uids: &[Uid]) -> Result<Vec<Option<Rendered>>, StorageError> {
        self.store.twice(|| self.try_rendered(uids))
    }
    fn try_rendered(&self, uids: &[Uid]) -> Result<Vec<Option<Rendered>>, StorageError> {
        let _inside = self.store.enter()?;
        let (ready, mut wanted) = self.ready(uids);
        let mut found: Vec<(Uid, Rendered)> = Vec::with_capacity(uids.len());
        self.store.read(|index| {
            index.rendered(self.id, &wanted, &mut |uid, record| {
                let rendered = Rendered {
                    envelope: record.envelope.into(),
                    body_structure: record.body_structure.into(),
                    headers: record.headers.into(),
                };
                found.push((uid, rendered));
            })
        })?;
        wanted.retain(|uid| found.binary_search_by_key(uid, |(uid, _)| *uid).is_err());
        found.extend(ready.into_iter().map(|(uid, made)| (uid, made.rendered.clone())));
        found.extend(self.render_now(&wanted)?.into_iter().map(|(uid, made)| (uid, made.rendered)));
        found.sort_unstable_by_key(|(uid, _)| *uid);
        // Mostly they are asked for in this order.
        let mut next = 0;
        let found = uids.iter().map(|uid| {
            let at = match found.get(next) {
                Some((there, _)) if there == uid => Ok(next),
                _ => found.binary_search_by_key(uid, |(uid, _)| *uid),
            };
            at.ok().and_then(|at| {
                next = at + 1;
                found.get(at).map(|(_, rendered)| rendered.clone())
            })
        });
        Ok(found.collect())
    }

    /// Calls `visit` with the cached header fields of each of `uids` that is there, in no order. Renders what is missing. Blocking.
    pub fn visit_headers(&self, uids: &[Uid], visit: &mut dyn FnMut(Uid, &[u8])) -> Result<(), StorageError> {
        let _inside = self.store.enter()?;
        let (ready, wanted) = self.ready(uids);
        ready.iter().for_each(|(uid, made)| visit(*uid, &made.rendered.headers));
        let mut missing = wanted.iter().copied().peekable();
        let mut absent = Vec::new();
        self.store.read(|index| {
            index.headers(self.id, &wanted, &mut |uid, headers| {
                while let Some(skipped) = missing.next_if(|missing| *missing < uid) {
                    absent.push(skipped);
                }
                missing.next_if_eq(&uid);
                visit(uid, headers);
            })
        })?;
        absent.extend(missing);
        for (uid, made) in self.render_now(&absent)? {
            visit(uid, &made.rendered.headers);
        }
        Ok(())
    }

    /// Previews (RFC 8970), in the order of `uids`; `None` for messages that are gone, and unless `make` for those that have none yet. Blocking.
    pub fn previews(&self, uids: &[Uid], make: bool) -> Result<Vec<Option<Arc<str>>>, StorageError> {
        let _inside = self.store.enter()?;
        let (ready, mut wanted) = self.ready(uids);
        let mut found: HashMap<Uid, Arc<str>> = ready.into_iter().map(|(uid, made)| (uid, Arc::clone(&made.preview))).collect();
        let kept = self.store.read(|index| index.previews(self.id, &wanted))?;
        found.extend(wanted.iter().zip(kept).filter_map(|(uid, preview)| Some((*uid, preview?.into()))));
        if make {
            wanted.retain(|uid| !found.contains_key(uid));
            found.extend(self.render_now(&wanted)?.into_iter().map(|(uid, made)| (uid, made.preview)));
        }
        Ok(uids.iter().map(|uid| found.get(uid).cloned()).collect())
    }

    /// Those of `uids` that are there: rendered ones that the index lacks, and the others, ascending.
    fn ready(&self, uids: &[Uid]) -> (Vec<(Uid, Arc<Made>)>, Vec<Uid>) {
        let (mut ready, mut wanted) = (Vec::new(), Vec::with_capacity(uids.len()));
        let state = self.state.lock();
        let columns = self.columns.read();
        for uid in uids.iter().filter(|uid| columns.position(**uid).is_some()) {
            match state.pending.get(&uid.get()).map(|pending| &pending.rendering) {
                Some(Rendering::Ready(made)) => ready.push((*uid, Arc::clone(made))),
                _ => wanted.push(*uid),
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        (ready, wanted)
    }

    /// Renders messages from their files, and keeps the result.
    fn render_now(&self, uids: &[Uid]) -> Result<Vec<(Uid, Made)>, StorageError> {
        if uids.is_empty() {
            return Ok(Vec::new());
        }
        let rendered = parallel::for_each(self.store.settings.parallel_operations, uids, |uid| {
            match self.open_message(*uid).and_then(|message| message.read_all()) {
                Ok(raw) => Ok(Some((*uid, render(&raw)))),
                Err(StorageError::Expunged) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let rendered: Vec<Option<(Uid, Made)>> = rendered.into_iter().collect::<Result<_, _>>()?;
        let rendered: Vec<(Uid, Made)> = rendered.into_iter().flatten().collect();
        let mut state = self.state.lock();
        for (uid, rendered) in &rendered {
            if let Some(pending) = state.pending.get_mut(&uid.get()) {
                pending.rendering = Rendering::Ready(Arc::new(rendered.clone()));
            }
        }
        drop(state);
        let kept = self.store.change(|change| {
            rendered.iter().try_for_each(|(uid, Made { rendered, preview })| {
                change.insert_preview(self.id, *uid, preview)?;
                change.insert_rendered(self.id, *uid, [&rendered.envelope, &rendered.body_structure, &rendered.headers])
            })
        });
        match kept {
            Err(lost @ StorageError::LeaseLost(_)) => return Err(lost),
            // Rendered again next time: a full disk must not keep anybody from reading.
            Err(error) => tracing::debug!(%error, "what was rendered is not kept"),
            Ok(()) => {}
        }
        Ok(rendered)
    }
}
