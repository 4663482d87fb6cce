//! How a tenure begins, is suspended, and ends; who is told of it, and what is known of ends afterwards.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{Engine, Leases};
use crate::{
    AffinityError, EndedFile, Ending, HolderId, Tenure, TenureEnd,
    keeper::{Event, NodeState, stand::Stand},
    names::{FENCED, NODES, sort_out},
};

impl Engine {
    /// Tells everybody whose state it concerns if it changed; called whenever it may have.
    pub(in crate::keeper) fn announce(&self) {
        let mut announced = self.announced.lock();
        // Nobody looks at the clock for a node that leaves.
        if !self.stop.wait(Duration::ZERO) {
            announced.stand.look(self.now(), self.timings().self_limit());
        }
        let state = self.state();
        if announced.state == state {
            return;
        }
        match (announced.state, state) {
            (NodeState::Up, NodeState::Suspended) => {
                tracing::debug!("suspended");
                self.emit(Event::Suspended { stood_still: announced.stand.blame(self.timings().self_limit()) });
            }
            (NodeState::Suspended, NodeState::Up) => {
                tracing::debug!("resumed");
                self.emit(Event::Resumed);
            }
            _ => {}
        }
        announced.state = state;
        self.changes.send_replace(());
    }

    /// A beat was won: what stood still before it did no harm, unless it was won too late.
    pub(in crate::keeper) fn beat_won(&self) {
        self.announce();
        if self.tenure().is_valid() {
            self.announced.lock().stand.beat(self.now());
        }
    }

    /// For how long this process stood still lately, if it did.
    pub(in crate::keeper) fn stood_still(&self) -> Option<Duration> {
        if self.stop.wait(Duration::ZERO) {
            return None;
        }
        self.announce();
        self.announced.lock().stand.within(self.timings().dead_after())
    }

    /// It joined: what that took is no stand, since nobody looked at the clock.
    pub(in crate::keeper) fn joined(&self) {
        self.announced.lock().stand = Stand::new(self.now());
        self.announce();
    }

    /// A thread of ours ended that must not.
    pub(in crate::keeper) fn break_down(&self, why: String) {
        self.broken.send_replace(Some(why));
    }

    /// Waits for that.
    pub(in crate::keeper) async fn broken_down(&self) -> String {
        let mut broken = self.broken.subscribe();
        let why = broken.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        // The sender lives as long as `self`.
        why.unwrap_or_default()
    }

    /// How incarnations ended, as far as `fenced/` says.
    pub(in crate::keeper) fn endings(&self, of: &[HolderId]) -> BTreeMap<HolderId, Ending> {
        let listed = self.directory.list(FENCED).inspect_err(|error| tracing::debug!(%error, "can't list fenced/")).unwrap_or_default();
        let ended: Vec<EndedFile> = sort_out(&listed).0;
        ended.into_iter().filter(|ended| of.contains(&ended.file.holder)).map(|ended| (ended.file.holder.clone(), ended.ending())).collect()
    }

    /// We were fenced: nothing of the tenure may be used any more. How it ended is looked up when everybody was told that: the shared directory may hang.
    pub(in crate::keeper) fn end_tenure(&self, ending: impl FnOnce() -> Ending) {
        let tenure = self.tenure();
        tenure.end();
        *self.leases.lock() = Leases::none(Arc::clone(&tenure));
        self.announce();
        let stood_still = self.announced.lock().stand.blame(self.timings().self_limit());
        self.emit(Event::TenureOver { tenure, stood_still });
        self.emit(Event::Ended(TenureEnd { ending: ending(), stood_still }));
    }

    /// We are back.
    pub(in crate::keeper) fn begin_tenure(&self, tenure: Arc<Tenure>) {
        *self.leases.lock() = Leases::none(Arc::clone(&tenure));
        self.tenure.store(Arc::clone(&tenure));
        let now = self.now();
        self.announced.lock().stand.beat(now);
        self.announce();
        self.emit(Event::Rejoined(tenure.holder().clone()));
    }

    /// Another host took our node name: this process is out for good.
    pub(in crate::keeper) fn retire(&self, theirs: HolderId, at: String) {
        self.left.store(true, Ordering::SeqCst);
        self.stop.abandon();
        self.announce();
        self.emit(Event::NameTaken { theirs, at });
    }

    /// As in a crash: nobody is left to use the leases.
    pub(in crate::keeper) fn abandon(&self) {
        self.tenure().end();
        self.stop.abandon();
    }

    pub(in crate::keeper) async fn leave(&self) -> Result<(), AffinityError> {
        if self.left.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        if self.broken.borrow().is_some() && self.tenure().is_over() {
            let cause = io::Error::other("nobody beats any more");
            return Err(AffinityError::Io { doing: "can't leave", path: self.path(NODES), cause });
        }
        let (done, left) = oneshot::channel();
        self.stop.leave(done);
        self.announce();
        // Past this time the others fence us anyway.
        let limit = self.timings().dead_after();
        let cause = match tokio::time::timeout(limit, left).await {
            Ok(Ok(result)) => return result,
            Ok(Err(_)) => return Ok(()),
            Err(_) => io::Error::new(io::ErrorKind::TimedOut, "the shared directory does not answer"),
        };
        Err(AffinityError::Io { doing: "can't leave", path: self.path(NODES), cause })
    }
}
