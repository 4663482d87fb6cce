//! A transfer agent and a mail program that never stop writing, and remember what was acknowledged to them.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tests::{
    Context, Result,
    clients::{imap::Imap, lmtp::Lmtp},
    mail,
    site::{Doors, User},
    wait::Deadline,
};

/// How long one delivery may be retried: longer than any failover.
const RETRY_LIMIT: Duration = Duration::from_secs(40);

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct Acknowledged {
    /// Message-IDs that got 250 or OK.
    pub messages: BTreeSet<String>,
    /// Those among them that were sent more than once, since an earlier try had no answer: they may be there more than once.
    pub retried: BTreeSet<String>,
    /// UIDs that APPEND told (UIDPLUS), with the Message-ID.
    pub uids: Vec<(u32, u32, String)>,
}

/// A writer on a thread of its own.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Acknowledged>>,
}

impl Writer {
    /// Delivers one message after the other through a node.
    pub fn delivering(doors: &Doors, user: &User, series: &'static str) -> Writer {
        let (doors, user) = (doors.clone(), user.clone());
        Writer::start(series, move |message, acknowledged, id| {
            Lmtp::connect(&doors.lmtp)?.deliver_ok("ada@tests.example", &[&user.address()], message)?;
            acknowledged.messages.insert(id);
            Ok(())
        })
    }

    /// Appends one message after the other through a node, in a session that it opens again when it breaks.
    pub fn appending(doors: &Doors, user: &User, series: &'static str) -> Writer {
        let (doors, user) = (doors.clone(), user.clone());
        let mut session: Option<Imap> = None;
        Writer::start(series, move |message, acknowledged, id| {
            let mut imap = match session.take() {
                Some(imap) => imap,
                None => Imap::login(&doors.imap, &user.name, &user.password)?,
            };
            let (validity, uid) = imap.append("INBOX", "\\Seen", message)?;
            acknowledged.uids.push((validity, uid, id.clone()));
            acknowledged.messages.insert(id);
            session = Some(imap);
            Ok(())
        })
    }

    fn start(series: &'static str, mut write: impl FnMut(&[u8], &mut Acknowledged, String) -> Result<()> + Send + 'static) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut acknowledged = Acknowledged::default();
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let message = mail::message(series, number);
                let id = mail::id_of(&message)?;
                let deadline = Deadline::after(RETRY_LIMIT);
                while let Err(error) = write(&message, &mut acknowledged, id.clone()) {
                    if deadline.passed() {
                        return Err(error).with_context(|| format!("{id} could not be written for {RETRY_LIMIT:?}"));
                    }
                    acknowledged.retried.insert(id.clone());
                    thread::sleep(Duration::from_millis(50));
                }
            }
            Ok(acknowledged)
        });
        Writer { stop, thread }
    }

    /// Ends it after its present message; what was acknowledged.
    pub fn finish(self) -> Result<Acknowledged> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| tests::Report::msg("the writer panicked"))?
    }
}
