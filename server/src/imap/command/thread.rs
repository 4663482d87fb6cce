//! THREAD and UID THREAD (RFC 5256): ORDEREDSUBJECT, REFERENCES and REFS.
//!
//! What threads are made of comes from summaries in one pass over the index; the threads are made on the blocking pool
//! (`thread/references.rs`, `thread/ordered_subject.rs`).
//!
//! Invariants, each with the test that guards it:
//! - every message found is in the answer once (`every_message_is_in_one_thread`)
//! - depth is data, not recursion: a thread of any depth is made, written and dropped (`a_hundred_thousand_messages_are_threaded_in_time`)

mod forest;
mod ordered_subject;
mod references;

use bytes::{BufMut, BytesMut};
use storage::mime::Summary;

use super::{
    search::{
        RowFacts,
        find::{Most, find},
    },
    sort::{self, with_summaries},
};
use crate::imap::{
    holding::Holding,
    patience::{Progress, while_wanted},
    reply::{Reply, Stop},
    session::Session,
    state::Selected,
    wire::{
        command::{Thread, ThreadAlgorithm},
        response,
    },
};

/// Most references of one message that are followed, the last ones: nearer relatives stand later. Longer lists than this are no discussions.
const REFERENCES_MAX: usize = 1000;

/// THREAD and UID THREAD.
pub async fn thread<H: Holding>(session: &mut Session<H>, selected: &Selected, uid: bool, thread: &Thread) -> Result<Reply, Stop> {
    let most = Most::of(session.settings.message_limits, Some("THREAD"));
    let found = find(session, selected, &thread.key, most).await?.rows;
    let algorithm = thread.algorithm;
    let Session { connection, held, settings, tag, .. } = &mut *session;
    let work = async {
        let messages = with_summaries(held, selected, found, move |row, summary| Facts::new(&row, summary, algorithm, uid)).await?;
        held.run(move |_| {
            let threads = match algorithm {
                ThreadAlgorithm::OrderedSubject => ordered_subject::threads(&messages),
                ThreadAlgorithm::References => references::threads(&messages, references::Grouping::AndSubjects),
                ThreadAlgorithm::Refs => references::threads(&messages, references::Grouping::Alone),
            };
            let mut out = BytesMut::new();
            write(&mut out, &threads, &messages);
            Ok(out)
        })
        .await
    };
    let answer = while_wanted(connection, held, settings, &Progress::unknown(tag), work).await?;
    connection.output().unsplit(answer);
    Ok(Reply::ok("Thread completed"))
}

/// What threads are made of.
#[derive(Debug, Clone, Default)]
struct Facts {
    /// Sequence number or UID, as the client asked.
    number: u32,
    /// Its place in the mailbox.
    sequence: u32,
    /// Sent date, Unix seconds.
    sent: i64,
    /// INTERNALDATE, Unix seconds.
    arrived: i64,
    /// Its Message-ID, if that is one.
    id: Option<Box<[u8]>>,
    /// Message-IDs of its ancestors, the nearest last.
    references: Vec<Box<[u8]>>,
    /// Base subject, as it is compared.
    subject: Box<str>,
    /// Whether the subject says reply or forward.
    is_reply: bool,
}

impl Facts {
    /// Only what the algorithm looks at.
    fn new(row: &RowFacts, summary: &Summary<'_>, algorithm: ThreadAlgorithm, uid: bool) -> Facts {
        let mut facts = Facts {
            number: if uid { row.uid.get() } else { row.sequence },
            sequence: row.sequence,
            sent: sort::sent(row, Some(summary)),
            arrived: row.internal_date,
            ..Facts::default()
        };
        if algorithm != ThreadAlgorithm::Refs {
            facts.subject = summary.base_subject().into();
            facts.is_reply = summary.is_reply();
        }
        if algorithm != ThreadAlgorithm::OrderedSubject {
            facts.id = summary.message_id();
            facts.references = summary.ancestors();
            facts.references.drain(..facts.references.len().saturating_sub(REFERENCES_MAX));
        }
        facts
    }
    /// The order of siblings.
    fn by_date(&self) -> (i64, u32) {
        (self.sent, self.sequence)
    }
}

/// Threads over a list of messages: nodes by number, children after children.
#[derive(Debug, Default)]
struct Threads {
    /// First messages (or dummies), in order.
    roots: Vec<usize>,
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// Position in the list of messages; `None`: a dummy, which only roots are.
    message: Option<usize>,
    /// In order.
    children: Vec<usize>,
}

/// Writes `* THREAD (2)(3 6 (4 23)(44 7 96))`.
fn write(out: &mut BytesMut, threads: &Threads, messages: &[Facts]) {
    enum Step {
        Open(usize),
        Close,
    }
    out.put_slice(b"* THREAD");
    if !threads.roots.is_empty() {
        out.put_u8(b' ');
    }
    let mut steps: Vec<Step> = threads.roots.iter().rev().map(|root| Step::Open(*root)).collect();
    while let Some(step) = steps.pop() {
        let Step::Open(first) = step else {
            out.put_u8(b')');
            continue;
        };
        out.put_u8(b'(');
        let mut node = &threads.nodes[first];
        let message = |node: &Node| node.message.and_then(|at| messages.get(at));
        if let Some(message) = message(node) {
            response::number(out, message.number.into());
        }
        // One child goes on in the line, several open lists of their own.
        while let [only] = node.children[..] {
            node = &threads.nodes[only];
            if let Some(message) = message(node) {
                out.put_u8(b' ');
                response::number(out, message.number.into());
            }
        }
        if !node.children.is_empty() && node.message.is_some() {
            out.put_u8(b' ');
        }
        steps.push(Step::Close);
        steps.extend(node.children.iter().rev().map(|child| Step::Open(*child)));
    }
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
