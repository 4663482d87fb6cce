//! Why holders ended sessions that this node relays, told beside the sessions' own bytes: their streams just end, and the log of the node that the client reached
//! is to say why as well.
//!
//! Invariant: what nobody asks for takes bounded memory (`what_is_told_is_heard_once_and_bounded`), and who waits is woken by its own word alone.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use crate::client::SessionId;

/// What a node publishes that hears [`super::frames::Request::Ended`].
pub const ENDED: &str = "ended/1";
/// What waits to be asked for: a node that is drained ends some hundred at once.
const TOLD_MAX: usize = 4096;
/// Longest reason.
const WHY_CHARS_MAX: usize = 200;

/// See the module.
#[derive(Debug, Default)]
pub struct Goodbyes(Mutex<Words>);

#[derive(Debug, Default)]
struct Words {
    /// The oldest first: it makes room.
    told: VecDeque<(SessionId, String)>,
    /// Sessions that have ended and wait for a word: as many as there are sessions.
    waiting: HashMap<SessionId, oneshot::Sender<String>>,
}

impl Goodbyes {
    /// A holder says why it ends a session.
    pub fn tell(&self, session: SessionId, why: &str) {
        let why: String = why.chars().take(WHY_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut words = self.0.lock();
        let why = match words.waiting.remove(&session).map(|waiting| waiting.send(why.clone())) {
            Some(Ok(())) => return,
            Some(Err(why)) => why,
            None => why,
        };
        if words.told.len() >= TOLD_MAX {
            words.told.pop_front();
        }
        words.told.push_back((session, why));
    }

    /// What was told of a session that has ended, or is within `limit`.
    pub async fn of(&self, session: SessionId, limit: Duration) -> Option<String> {
        let heard = {
            let mut words = self.0.lock();
            if let Some(at) = words.told.iter().position(|(of, _)| *of == session) {
                return words.told.remove(at).map(|(_, why)| why);
            }
            let (sender, heard) = oneshot::channel();
            words.waiting.insert(session, sender);
            heard
        };
        let _waits = Waits { goodbyes: self, session };
        timeout(limit, heard).await.ok()?.ok()
    }
}

/// Who waits, until it is told or goes away.
struct Waits<'a> {
    goodbyes: &'a Goodbyes,
    session: SessionId,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.goodbyes.0.lock().waiting.remove(&self.session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_told_is_heard_once_and_bounded() {
        let goodbyes = Goodbyes::default();
        let (session, limit) = (SessionId::random(), Duration::from_millis(100));
        assert_eq!(goodbyes.of(session, limit).await, None);
        let (heard, ()) = tokio::join!(goodbyes.of(session, limit), async { goodbyes.tell(session, "a move\r\nof its user") });
        assert_eq!(heard.as_deref(), Some("a move  of its user"));
        assert_eq!(goodbyes.of(session, limit).await, None);
        assert!(goodbyes.0.lock().waiting.is_empty());
        for _ in 0..TOLD_MAX * 2 {
            goodbyes.tell(SessionId::random(), "nobody asks");
        }
        goodbyes.tell(session, "the newest");
        goodbyes.tell(SessionId::random(), "one more");
        assert!(goodbyes.0.lock().told.len() <= TOLD_MAX);
        assert_eq!(goodbyes.of(session, limit).await.as_deref(), Some("the newest"), "the oldest makes room");
    }
}
