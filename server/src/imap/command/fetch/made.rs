//! What the index has of a batch of messages, and what is read of their files where it has nothing: without those that can't be read.

use std::{collections::VecDeque, sync::Arc};

use index::Uid;
use storage::{Rendered, SelectedFields, StorageError};

use super::{Message, Plan, UNREADABLE_MAX, makes_previews};
use crate::imap::{holding::Holding, reply::Stop, state::Selected};

/// The number of EIO, which has no kind of its own.
const EIO: i32 = 5;

/// A batch, and what the index has of it.
pub(super) struct Ready {
    pub batch: VecDeque<Message>,
    pub made: Made,
    /// How many messages were left out: their files can't be read.
    pub unreadable: usize,
}

impl Ready {
    /// Of a file that can't be read, only its own message is left out.
    pub async fn of<H: Holding>(
        held: &H,
        selected: &Selected,
        plan: &Plan,
        batch: Option<VecDeque<Message>>,
    ) -> Result<Option<Ready>, Stop> {
        let Some(mut batch) = batch else { return Ok(None) };
        let mut unreadable = 0;
        loop {
            let error = match Made::of(held, selected, plan, &batch).await {
                Ok(made) => return Ok(Some(Ready { batch, made, unreadable })),
                Err(error) => error,
            };
            unreadable += 1;
            if unreadable > UNREADABLE_MAX || !is_of_one_file(&error) {
                return Err(error.into());
            }
            let position = first_unreadable(held, selected, plan, &batch).await?;
            if let Some(message) = batch.remove(position) {
                log(&error, message.row.uid);
            }
        }
    }
}

/// The place of a message that can't be read, where one of the batch can't be: half of those it may be among are read again, and so on.
async fn first_unreadable<H: Holding>(held: &H, selected: &Selected, plan: &Plan, batch: &VecDeque<Message>) -> Result<usize, Stop> {
    let (mut start, mut end) = (0, batch.len());
    while end - start > 1 {
        let middle = start + (end - start) / 2;
        let half = batch.range(start..middle).copied().collect();
        match Made::of(held, selected, plan, &half).await {
            Ok(_) => start = middle,
            Err(error) if is_of_one_file(&error) => end = middle,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(start)
}

/// Whether others may be readable: a disk's EIO is of one file, an unreachable server of all.
pub(super) fn is_of_one_file(error: &StorageError) -> bool {
    let StorageError::Io { cause, .. } = error else { return false };
    !error.may_pass() || cause.raw_os_error() == Some(EIO)
}

pub(super) fn log(error: &StorageError, uid: Uid) {
    tracing::error!(%error, uid = uid.get(), "a message can't be read: it is left out of the answer");
}

/// What the index has of a batch, as far as the plan needs it.
#[derive(Default)]
pub(super) struct Made {
    pub rendered: Option<VecDeque<Option<Rendered>>>,
    pub fields: Vec<SelectedFields>,
    pub previews: Vec<Option<Arc<str>>>,
}

impl Made {
    async fn of<H: Holding>(held: &H, selected: &Selected, plan: &Plan, batch: &VecDeque<Message>) -> Result<Made, StorageError> {
        if batch.is_empty() {
            return Ok(Made::default());
        }
        Ok(Made {
            rendered: render(held, selected, plan, batch).await?,
            fields: fields(held, selected, plan, batch).await?,
            previews: previews(held, selected, plan, batch).await?,
        })
    }
}

/// What is rendered of a batch's messages, if the plan needs any of it.
async fn render<H: Holding>(
    held: &H,
    selected: &Selected,
    plan: &Plan,
    batch: &VecDeque<Message>,
) -> Result<Option<VecDeque<Option<Rendered>>>, StorageError> {
    if !plan.needs_rendered {
        return Ok(None);
    }
    let uids: Vec<Uid> = batch.iter().map(|message| message.row.uid).collect();
    let mailbox = Arc::clone(&selected.mailbox);
    let needs_headers = plan.tells_cached_fields();
    let made = held.run(move |_| if needs_headers { mailbox.rendered(&uids) } else { mailbox.shapes(&uids) });
    Ok(Some(made.await?.into()))
}

/// The header fields of a batch, set by set, that the index has.
async fn fields<H: Holding>(
    held: &H,
    selected: &Selected,
    plan: &Plan,
    batch: &VecDeque<Message>,
) -> Result<Vec<SelectedFields>, StorageError> {
    if plan.fields.is_empty() {
        return Ok(Vec::new());
    }
    let uids: Vec<Uid> = batch.iter().map(|message| message.row.uid).collect();
    let (mailbox, sets) = (Arc::clone(&selected.mailbox), Arc::clone(&plan.fields));
    held.run(move |_| sets.iter().map(|names| mailbox.header_fields(&uids, names)).collect()).await
}

/// The previews of a batch, if they are asked for. Those of messages that are gone are left out with them.
async fn previews<H: Holding>(
    held: &H,
    selected: &Selected,
    plan: &Plan,
    batch: &VecDeque<Message>,
) -> Result<Vec<Option<Arc<str>>>, StorageError> {
    let Some(make) = makes_previews(plan) else { return Ok(Vec::new()) };
    let uids: Vec<Uid> = batch.iter().map(|message| message.row.uid).collect();
    let mailbox = Arc::clone(&selected.mailbox);
    held.run(move |_| mailbox.previews(&uids, make)).await
}
