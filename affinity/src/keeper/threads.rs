//! The threads: beat, watch, clock (and `tidy.rs`). Each may hang in the shared directory without stopping the others.

use std::{
    collections::BTreeMap,
    io,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use super::{
    Event, KeeperConfig, Peer,
    engine::{Engine, View},
    join::{self, Entrant},
    tidy,
};
use crate::{
    AffinityError, Ending, HolderId, NodeInfo, Tenure,
    ending::TAKEN,
    names::{INFO, NodeFile},
    protocol::{Answer, Beat, BeatOutcome, Roll, Sighting, Watch, beat_gap_min},
    root::io_error,
    settings::Settings,
    swap::{SharedDirectory, Swapped, swap},
};

/// How many watches pass between looks at `settings/`: one listing more in ten stays within five requests per node and second.
const SETTINGS_EVERY: u64 = 10;
/// How many watches pass between readings of every node's settings, whether the marker moved or not: for files made by hand.
const SETTINGS_ALL_EVERY: u64 = 600;
/// How many looks at the clock there are per beat.
const CLOCK_LOOKS_PER_BEAT: u32 = 4;

/// Name of the thread that beats.
const BEAT: &str = "affinity-beat";
/// Name of the thread that clears what ended nodes left.
pub(super) const TIDY: &str = "affinity-tidy";

/// Locks, joins, starts the threads.
pub(super) fn start(config: KeeperConfig, directory: Arc<dyn SharedDirectory>) -> Result<Arc<Engine>, AffinityError> {
    let lock = join::lock(&config)?;
    let tenure = Tenure::new(join::new_holder(&config), Arc::clone(&config.clock));
    let engine = Arc::new(Engine::new(config, directory, lock, Arc::clone(&tenure)));
    let mut entrant = Entrant::default();
    let beat = entrant.join(&engine, &tenure)?;
    engine.joined();
    tracing::debug!(me = %tenure.holder(), "joined the cluster");

    spawn(&engine, BEAT, {
        let engine = Arc::clone(&engine);
        move || Beater { engine, entrant, beat, failing: false }.run()
    })?;
    spawn(&engine, "affinity-clock", {
        let engine = Arc::clone(&engine);
        move || {
            while !engine.stop.wait(engine.timings().beat() / CLOCK_LOOKS_PER_BEAT) {
                engine.announce();
            }
        }
    })?;
    spawn(&engine, TIDY, {
        let engine = Arc::clone(&engine);
        move || tidy::run(&engine)
    })?;
    // Once before anybody asks who is there.
    let mut watcher = Watcher::new(Arc::clone(&engine));
    watcher.look();
    spawn(&engine, "affinity-watch", move || watcher.run())?;
    Ok(engine)
}

pub(super) fn spawn(engine: &Arc<Engine>, name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<(), AffinityError> {
    let guarded = {
        let engine = Arc::clone(engine);
        move || {
            let Err(panic) = panic::catch_unwind(AssertUnwindSafe(work)) else { return };
            let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
            // The job moves on to the next node, and would end one after the other; what stays in the shared directory does no harm.
            if name == TIDY {
                tracing::error!(
                    error = said.unwrap_or_default(),
                    "an error of the program: this node clears nothing more of what ended nodes left"
                );
                return;
            }
            // Without beats the others take over: what is open must not believe otherwise.
            if name == BEAT {
                engine.end_tenure(|| Ending::Unknown);
            }
            engine.break_down(format!("{name} panicked: {}", said.unwrap_or_default()));
        }
    };
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(guarded);
    spawned.map(drop).map_err(|error| {
        engine.abandon();
        io_error("can't start a thread for", engine.config.root.path())(error)
    })
}

/// Gives signs of life; when fenced, comes back.
struct Beater {
    engine: Arc<Engine>,
    entrant: Entrant,
    beat: Beat,
    failing: bool,
}

impl Beater {
    fn run(mut self) {
        loop {
            if self.engine.resigning.swap(false, Ordering::SeqCst) && !self.resign() {
                return self.stopped(None);
            }
            let began = self.engine.now();
            *self.engine.beat_began.lock() = began;
            let (from, to) = self.beat.attempt(began);
            let answer = self.swap(&from, &to);
            match self.beat.answered(answer, self.engine.timings().self_limit()) {
                BeatOutcome::ValidUntil(until) => {
                    self.engine.tenure().extend(until);
                    self.engine.beat_won();
                }
                BeatOutcome::TryAgain => {}
                BeatOutcome::Fenced => {
                    tracing::debug!(me = %from.holder, "fenced: everything of this tenure is dropped");
                    self.engine.end_tenure(|| self.how_it_ended(&from.holder));
                    if !self.rejoin(&from.holder) {
                        return self.stopped(None);
                    }
                }
            }
            let beat = self.engine.timings().beat();
            let taken = self.engine.now().saturating_sub(began);
            if self.engine.stop.wait(beat.saturating_sub(taken).max(beat_gap_min(beat))) {
                return self.stopped(Some(&self.beat));
            }
        }
    }

    fn how_it_ended(&self, me: &HolderId) -> Ending {
        if let Some(ending) = self.engine.endings(std::slice::from_ref(me)).remove(me) {
            return ending;
        }
        // A name that was taken waits in `nodes/` until somebody fences it.
        let taken = |files: &[NodeFile]| files.iter().any(|file| file.holder == *me && file.beat >= TAKEN);
        if self.engine.list_nodes().is_ok_and(|(_, files, _)| taken(&files)) { Ending::NameTaken } else { Ending::Unknown }
    }

    fn swap(&mut self, from: &NodeFile, to: &NodeFile) -> Answer {
        match swap(&*self.engine.directory, &from.in_nodes(), &to.in_nodes()) {
            Ok(swapped) => {
                self.failing = false;
                Answer::Swapped(swapped)
            }
            Err(error) => {
                // Once per outage.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(file = %from, %error, "can't beat");
                }
                Answer::Unknown
            }
        }
    }

    /// Ends the tenure before the others can know of it, so that nobody acknowledges when they do; false: the node stops.
    fn resign(&mut self) -> bool {
        let me = self.beat.current().holder.clone();
        tracing::debug!(%me, "this node gives up its leases and joins anew");
        self.engine.end_tenure(|| Ending::Resigned);
        // If that fails, joining anew or the others move the file away.
        if let Err(error) = self.move_away(&self.beat, &Ending::Resigned) {
            tracing::warn!(%error, "can't leave yet");
        }
        self.rejoin(&me)
    }

    /// Tries until it works; false: the node stops.
    fn rejoin(&mut self, fenced: &HolderId) -> bool {
        loop {
            if self.engine.stop.wait(Duration::ZERO) {
                return false;
            }
            let tenure = Tenure::new(join::new_holder(&self.engine.config), Arc::clone(&self.engine.config.clock));
            match self.entrant.rejoin(&self.engine, fenced, &tenure) {
                Ok(beat) => {
                    tracing::debug!(me = %tenure.holder(), "rejoined the cluster");
                    self.beat = beat;
                    self.engine.begin_tenure(tenure);
                    return true;
                }
                Err(AffinityError::NameTaken { theirs, at, .. }) => {
                    self.engine.retire(theirs, at);
                    return false;
                }
                Err(error) => tracing::warn!(%error, "can't rejoin yet"),
            }
            if self.engine.stop.wait(self.engine.timings().beat()) {
                return false;
            }
        }
    }

    /// Moves the node file away if the node leaves; after a crash-like stop, others do.
    fn stopped(&self, beat: Option<&Beat>) {
        let tenure = self.engine.tenure();
        tenure.end();
        self.engine.announce();
        let Some(done) = self.engine.stop.leaver() else { return };
        let result = beat.map_or(Ok(()), |beat| self.move_away(beat, &Ending::Left));
        // Whoever waited may have given up.
        done.send(result).ok();
    }

    fn move_away(&self, beat: &Beat, how: &Ending) -> Result<(), AffinityError> {
        // The last beat may have been won in spite of an error. Where neither is there, we were fenced: out as well.
        for file in [beat.current(), beat.next()] {
            let moved = swap(&*self.engine.directory, &file.in_nodes(), &file.ended(how.clone()).path());
            if moved.map_err(io_error("can't move", &self.engine.path(&file.in_nodes())))? == Swapped::Won {
                break;
            }
        }
        Ok(())
    }
}

/// Looks at the others, fences those whose beat stands still, reads what they publish and what operators set.
struct Watcher {
    engine: Arc<Engine>,
    watch: Watch,
    infos: BTreeMap<HolderId, Arc<NodeInfo>>,
    settings: Settings,
    /// They are to be read at the next look.
    settings_due: bool,
    looks: u64,
    failing: bool,
    /// The settings could not be read the last time.
    unreadable: bool,
}

impl Watcher {
    fn new(engine: Arc<Engine>) -> Watcher {
        let watch = Watch::new(engine.tenure().holder().clone());
        Watcher {
            engine,
            watch,
            infos: BTreeMap::new(),
            settings: Settings::default(),
            settings_due: true,
            looks: 0,
            failing: false,
            unreadable: false,
        }
    }

    fn run(mut self) {
        let mut fenced_somebody = false;
        loop {
            let beat = self.engine.timings().beat();
            let since_beat = self.engine.now().saturating_sub(*self.engine.beat_began.lock());
            // After a fence at once: whoever waits for the leases of the dead node hears of it.
            let pause = if fenced_somebody { Duration::ZERO } else { watch_pause(since_beat, beat) };
            let Some(readers) = self.engine.stop.wait_for_readers(pause) else { return };
            if !readers.is_empty() {
                self.settings_due = true;
            }
            fenced_somebody = self.look();
            for reader in readers {
                // Whoever asked may have given up.
                reader.send(!self.settings_due).ok();
            }
        }
    }

    /// One look; whether somebody was fenced.
    fn look(&mut self) -> bool {
        self.watch.rename_self(self.engine.tenure().holder().clone());
        let roll = match self.roll() {
            Ok(roll) => roll,
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "can't watch the other nodes");
                }
                self.watch.failed();
                return false;
            }
        };
        self.failing = false;
        let silent: BTreeMap<HolderId, Duration> = self.missing(&roll).collect();
        let known_suspects = self.engine.view().suspects.clone();
        let sightings = self.watch.listed(&roll, self.engine.timings());
        self.read_settings();
        self.read_infos();
        self.looks += 1;
        self.engine.publish(self.view());

        let mut fenced_somebody = false;
        let mut gone = Vec::new();
        for sighting in sightings {
            match sighting {
                Sighting::Up(holder) => self.engine.emit(Event::NodeUp(holder)),
                Sighting::Down(holder) => gone.push(holder),
                Sighting::Suspect(file) => {
                    if !known_suspects.contains(&file) {
                        tracing::debug!(peer = %file.holder, beat = file.beat, "a node's beat stands still");
                        self.engine.emit(Event::NodeSuspect(file.holder.clone()));
                    }
                    fenced_somebody |= self.fence(&file);
                }
            }
        }
        if !gone.is_empty() {
            self.tell_gone(gone, &silent);
        }
        fenced_somebody
    }

    /// Those who are known and missing, and how long they had been silent when they were last there.
    fn missing(&self, roll: &Roll) -> impl Iterator<Item = (HolderId, Duration)> {
        let missing = self.watch.observed().iter().filter(|(holder, _)| roll.beat_of(holder).is_none());
        missing.map(|(holder, observed)| (holder.clone(), observed.unchanged_for))
    }

    /// Says that nodes are gone, and how they went.
    fn tell_gone(&self, gone: Vec<HolderId>, silent: &BTreeMap<HolderId, Duration>) {
        let mut endings = self.engine.endings(&gone);
        for holder in gone {
            let ending = endings.remove(&holder).unwrap_or(Ending::Unknown);
            let mut silent_for = silent.get(&holder).copied().unwrap_or_default();
            if matches!(ending, Ending::Fenced { .. }) {
                silent_for = silent_for.max(self.engine.timings().dead_after());
            }
            self.engine.emit(Event::NodeDown { holder, ending, silent_for });
        }
    }

    /// Listings of `nodes/`: more than one only if somebody known is missing.
    fn roll(&self) -> Result<Roll, AffinityError> {
        let (began, files, ended) = self.engine.list_nodes()?;
        let mut roll = Roll::new(began, ended, &files);
        while self.watch.misses_somebody(&roll) && !roll.is_proof(self.engine.timings().beat()) && !roll.is_long() {
            let (began, files, ended) = self.engine.list_nodes()?;
            roll.add(began, ended, &files);
        }
        Ok(roll)
    }

    fn fence(&self, file: &NodeFile) -> bool {
        // Not found: it moved on, or somebody else fenced it. The next listing tells.
        let by = self.engine.config.node.clone();
        match self.engine.directory.rename(&file.in_nodes(), &file.ended(Ending::Fenced { by }).path()) {
            Ok(()) => {
                tracing::debug!(peer = %file.holder, "fenced a node");
                self.engine.emit(Event::Fenced(file.holder.clone()));
                true
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                tracing::warn!(peer = %file.holder, %error, "can't fence a node");
                false
            }
        }
    }

    fn read_settings(&mut self) {
        self.settings_due |= self.looks.is_multiple_of(SETTINGS_EVERY);
        if !self.settings_due {
            return;
        }
        match self.settings.read_again(&*self.engine.directory, self.looks.is_multiple_of(SETTINGS_ALL_EVERY)) {
            Ok(Some(settings)) => self.settings = settings,
            Ok(None) => {}
            // They stay due: a node that starts must not take the defaults for what operators said.
            Err(error) => {
                // Once when it begins, and then now and then.
                if !std::mem::replace(&mut self.unreadable, true) || self.looks.is_multiple_of(SETTINGS_ALL_EVERY) {
                    let root = self.engine.config.root.path().display();
                    tracing::error!(%root, %error, "can't read settings: what operators set is not followed (`berth doctor` looks at owners)");
                }
                return;
            }
        }
        if std::mem::take(&mut self.unreadable) {
            tracing::info!("settings can be read again");
        }
        self.settings_due = false;
    }

    /// What new peers publish; what could not be read is tried again from time to time.
    fn read_infos(&mut self) {
        let observed = self.watch.observed();
        self.infos.retain(|holder, _| observed.contains_key(holder));
        let is_retry = self.looks.is_multiple_of(SETTINGS_EVERY);
        let old = self.engine.view();
        let is_new = |holder: &HolderId| !old.peers.iter().any(|peer| peer.holder == *holder);
        let missing: Vec<&HolderId> =
            observed.keys().filter(|holder| !self.infos.contains_key(*holder) && (is_retry || is_new(holder))).collect();
        for holder in missing {
            match read_info(&*self.engine.directory, holder) {
                Ok(info) => drop(self.infos.insert(holder.clone(), Arc::new(info))),
                Err(error) => tracing::warn!(peer = %holder, %error, "can't read what a node publishes"),
            }
        }
    }

    fn view(&self) -> View {
        let peers = self.watch.observed().iter().map(|(holder, observed)| {
            let settings = self.settings.of(&holder.node);
            Peer {
                holder: holder.clone(),
                beat: observed.beat,
                unchanged_for: observed.unchanged_for,
                suspect: observed.suspect,
                draining: settings.draining(),
                trouble: settings.trouble().is_some(),
                weight: settings.weight(),
                tags: settings.tags(),
                info: self.infos.get(holder).cloned(),
            }
        });
        let looked = self.engine.now();
        View { peers: peers.collect(), suspects: self.watch.suspects(), settings: self.settings.clone(), looked }
    }
}

/// The part of a beat by which the watch looks before it: a listing takes less.
const AHEAD_OF_BEAT: u32 = 32;

/// How long the watch pauses: about a beat, until right before the next beat of ours. What the NFS client learns of the folder by the listing is what the
/// rename needs: at any other time it would ask for the file once more. The beat does not wait for it.
fn watch_pause(since_beat: Duration, beat: Duration) -> Duration {
    let beat = beat.max(Duration::from_nanos(1));
    let aim = beat - beat / AHEAD_OF_BEAT;
    let phase = Duration::from_nanos(u64::try_from(since_beat.as_nanos() % beat.as_nanos()).unwrap_or_default());
    let pause = if phase <= aim { aim.saturating_sub(phase) } else { (beat + aim).saturating_sub(phase) };
    // Never twice within a quarter, and never more than a beat: a pause counts as time without sight of the others.
    if pause < beat / 4 { beat - beat / 8 } else { pause }
}

/// What an incarnation published.
pub(crate) fn read_info(directory: &dyn SharedDirectory, holder: &HolderId) -> io::Result<NodeInfo> {
    // This client may remember that the file was missing.
    directory.refresh(INFO)?;
    Ok(serde_json::from_slice(&directory.read(&format!("{INFO}/{holder}"))?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watch_looks_once_a_beat_and_right_before_it() {
        let beat = Duration::from_millis(3200);
        for since in (0..3200).map(Duration::from_millis) {
            for listing in [0, 1, 50, 700, 2300].map(Duration::from_millis) {
                let mut at = since;
                for _ in 0..5 {
                    let pause = watch_pause(at, beat);
                    assert!(pause >= beat / 4 && pause <= beat, "{at:?}: {pause:?}");
                    at += pause;
                    if at.as_millis() % 3200 == 3100 {
                        break;
                    }
                    at += listing;
                }
                assert_eq!(at.as_millis() % 3200, 3100, "from {since:?}, listings of {listing:?}");
            }
        }
        for slow in (2400..6400).map(Duration::from_millis) {
            assert!(watch_pause(slow, beat) <= beat, "{slow:?}");
        }
        // A look that takes a while does not make the next one late.
        assert_eq!(watch_pause(Duration::from_millis(3120), beat), Duration::from_millis(3180));
        assert!(watch_pause(Duration::from_secs(5), Duration::ZERO) <= Duration::from_nanos(2));
    }
}
