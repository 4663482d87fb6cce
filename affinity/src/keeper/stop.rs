//! How the threads are told to stop, and the watch to look at once.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::AffinityError;

/// Tells the threads to stop, and wakes the watch for whoever changed a setting.
#[derive(Debug, Default)]
pub(super) struct Stop {
    state: Mutex<Waking>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waking {
    stopping: Stopping,
    /// Who waits for the settings to be read.
    readers: Vec<oneshot::Sender<bool>>,
    /// Somebody has seen a sign that `nodes/` changed.
    look: bool,
}

#[derive(Debug, Default)]
enum Stopping {
    #[default]
    Not,
    /// The node file is to be moved away first, and this be told.
    Leave(oneshot::Sender<Result<(), AffinityError>>),
    Now,
}

impl Stop {
    pub(super) fn leave(&self, done: oneshot::Sender<Result<(), AffinityError>>) {
        self.state.lock().stopping = Stopping::Leave(done);
        self.changed.notify_all();
    }
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        if matches!(state.stopping, Stopping::Not) {
            state.stopping = Stopping::Now;
        }
        self.changed.notify_all();
    }
    pub(super) fn wake_for(&self, reader: oneshot::Sender<bool>) {
        self.state.lock().readers.push(reader);
        self.changed.notify_all();
    }
    pub(super) fn wake_to_look(&self) {
        self.state.lock().look = true;
        self.changed.notify_all();
    }
    /// Waits; whether to stop.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let mut state = self.state.lock();
        // Who runs out of time sees that in the state as well.
        let _ = self.changed.wait_while_for(&mut state, |state| matches!(state.stopping, Stopping::Not), limit);
        !matches!(state.stopping, Stopping::Not)
    }
    /// Waits, also for somebody who wants a look now or the settings read; `None`: stop.
    pub(super) fn wait_for_readers(&self, limit: Duration) -> Option<Vec<oneshot::Sender<bool>>> {
        let mut state = self.state.lock();
        let nothing = |state: &mut Waking| matches!(state.stopping, Stopping::Not) && state.readers.is_empty() && !state.look;
        let _ = self.changed.wait_while_for(&mut state, nothing, limit);
        state.look = false;
        matches!(state.stopping, Stopping::Not).then(|| std::mem::take(&mut state.readers))
    }
    /// Who waits for the node to leave, if that is why it stops.
    pub(super) fn leaver(&self) -> Option<oneshot::Sender<Result<(), AffinityError>>> {
        match std::mem::replace(&mut self.state.lock().stopping, Stopping::Now) {
            Stopping::Leave(done) => Some(done),
            Stopping::Not | Stopping::Now => None,
        }
    }
}
