//! Clears what ended incarnations left behind ([`crate::protocol::tidy`]), on a thread of its own: a removal may wait for a host that is gone.
//!
//! One node does it, the first by name of those that are up; which one does not matter, and two at once do no harm. A round is four listings
//! and what is to be removed: `info/`, `fenced/`, one of the 256 folders of lease folders, and `nodes/`.

use std::{collections::BTreeSet, io, str::FromStr, sync::Arc, time::Duration};

use super::{NodeState, engine::Engine};
use crate::{
    HolderId,
    names::{FENCED, INFO, LEASES, LeaseName, sort_out},
    protocol::{
        Roll,
        tidy::{Leftovers, Removal, Tidy},
    },
};

/// Between two rounds: all lease folders are looked at in two days.
const ROUNDS_APART: Duration = Duration::from_secs(600);
/// Most removals in a round: a few seconds' work, beside that of users.
const REMOVALS_MAX: usize = 500;
/// Begins the name of a folder that is being prepared; a second one that of a folder that is being removed. In no encoded user name.
const PREPARED: char = '~';

/// What the rounds so far have seen.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    tidy: Tidy,
    /// The folder of lease folders that is looked at next.
    bucket: u8,
}

pub(super) fn run(engine: &Arc<Engine>) {
    let mut rounds = Rounds::default();
    while !engine.stop.wait(ROUNDS_APART) {
        if !is_our_job(engine) {
            rounds.tidy = Tidy::default();
            continue;
        }
        match rounds.next(engine, engine.now()) {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "cleared what ended nodes had left in the shared directory"),
            Err(error) => tracing::warn!(%error, "can't look for what ended nodes left in the shared directory: tried again later"),
        }
    }
}

fn is_our_job(engine: &Engine) -> bool {
    let me = engine.tenure().holder().clone();
    engine.state() == NodeState::Up && engine.view().peers.iter().find(|peer| !peer.suspect).is_some_and(|first| first.holder == me)
}

impl Rounds {
    /// One round; how much was removed.
    pub(super) fn next(&mut self, engine: &Engine, now: Duration) -> io::Result<usize> {
        let directory = &*engine.directory;
        let bucket = format!("{LEASES}/{:02x}", self.bucket);
        self.bucket = self.bucket.wrapping_add(1);
        let prepared = match directory.list(&bucket) {
            // It is made with its first user.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            listing => listing?.into_iter().filter_map(|name| Some((format!("{bucket}/{name}"), whose(&name)?))).collect(),
        };
        let found = Leftovers { info: sort_out(&directory.list(INFO)?).0, fenced: sort_out(&directory.list(FENCED)?).0, prepared };
        // Afterwards: who is missing now is not about to show up with one of these names.
        let list = || engine.list_nodes().map_err(io::Error::other);
        let (began, files, ended) = list()?;
        let mut roll = Roll::new(began, ended, &files);
        while !roll.is_proof(engine.timings().beat()) {
            if roll.is_long() {
                return Ok(0);
            }
            let (began, files, ended) = list()?;
            roll.add(began, ended, &files);
        }
        let there: BTreeSet<HolderId> = roll.seen().map(|(holder, _)| holder.clone()).collect();

        let mut removed = 0;
        for removal in self.tidy.due(now, &found, &there).into_iter().take(REMOVALS_MAX) {
            let outcome = match &removal {
                Removal::File(name) => directory.remove(name),
                Removal::Prepared(folder) => remove_prepared(engine, folder),
            };
            match outcome {
                Ok(()) => removed += 1,
                // Another node was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(?removal, %error, "can't remove what an ended node left in the shared directory"),
            }
        }
        Ok(removed)
    }
}

/// Whose a folder is that was being prepared: `~<node>,<incarnation>,<number>`. `None`: it is no such folder.
fn whose(name: &str) -> Option<HolderId> {
    HolderId::from_str(name.strip_prefix(PREPARED)?.trim_start_matches(PREPARED).rsplit_once(',')?.0).ok()
}

/// Renamed before it is emptied: a rename of its maker that lands late must not make a user's folder without a lease.
fn remove_prepared(engine: &Engine, folder: &str) -> io::Result<()> {
    let directory = &*engine.directory;
    let Some((parent, name)) = folder.rsplit_once('/') else { return Ok(()) };
    let removing = format!("{parent}/{PREPARED}{PREPARED}{}", name.trim_start_matches(PREPARED));
    if removing != folder {
        directory.rename(folder, &removing)?;
    }
    match directory.remove(&format!("{removing}/{}", LeaseName::FIRST)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => directory.remove_folder(&removing),
    }
}
