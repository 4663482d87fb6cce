//! Joining: the lock on our node name, older incarnations of it, what we publish, the node file, the first beat.
//!
//! Invariants, each with the test that guards it:
//! - a process that crashed on this host is fenced at once by its successor (`a_crashed_node_is_fenced_by_its_successor_at_once`)
//! - an incarnation that may still run elsewhere is told, but its leases stay taken until `dead_after` has passed
//!   (`a_node_whose_name_is_taken_stops_and_keeps_its_leases_blocked`)
//!
//! The lock proves that older processes of this host are gone, so they are fenced. It says nothing about other hosts: were their node file
//! moved to `fenced/`, others could take their leases while they still acknowledge. Their beat is moved out of their reach instead
//! ([`TAKEN`]): they lose their next beat and hear that their name was taken, and the watch fences the file when it has stood still.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
};

use fs2::FileExt;

use super::{KeeperConfig, engine::Engine, threads::read_info};
use crate::{
    AffinityError, Ending, HolderId, Incarnation, Tenure,
    ending::TAKEN,
    names::{INFO, NodeFile},
    protocol::{Answer, Beat, BeatOutcome, tidy::JOIN_MAX},
    root::io_error,
    swap::{Swapped, swap},
};

/// Most rounds to clear older incarnations: each means that one beat once more meanwhile.
const ROUNDS_MAX: u32 = 20;
/// Most bytes read of the lock file: a line has about 120.
const LOCK_BYTES_MAX: u64 = 64 * 1024;

/// One host's right to a node name, and whom it replaced.
#[derive(Debug, Default)]
pub(super) struct Entrant {
    /// Incarnations of our name that were there before us and may still be listed.
    older: BTreeSet<HolderId>,
}

/// Takes the host-local lock on the node name.
pub(super) fn lock(config: &KeeperConfig) -> Result<File, AffinityError> {
    fs::create_dir_all(&config.lock_dir).map_err(io_error("can't make", &config.lock_dir))?;
    let path = config.lock_dir.join(format!("{}.lock", config.node));
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(io_error("can't open", &path))?;
    match file.try_lock_exclusive() {
        Ok(()) => Ok(file),
        Err(error) if error.kind() == fs2::lock_contended_error().kind() => {
            Err(AffinityError::NodeRuns { node: config.node.clone(), lock: path })
        }
        Err(error) => Err(io_error("can't lock", &path)(error)),
    }
}

/// A new incarnation of our node.
pub(super) fn new_holder(config: &KeeperConfig) -> HolderId {
    HolderId { node: config.node.clone(), incarnation: Incarnation::random() }
}

impl Entrant {
    /// The first join of this process: whoever has our name loses it.
    pub(super) fn join(&mut self, engine: &Engine, tenure: &Tenure) -> Result<Beat, AffinityError> {
        self.clear_older(engine, tenure.holder(), None)?;
        enter(engine, tenure)
    }

    /// We were fenced: back under a new incarnation, unless that was because our name was taken.
    pub(super) fn rejoin(&mut self, engine: &Engine, fenced: &HolderId, tenure: &Tenure) -> Result<Beat, AffinityError> {
        if let Some(theirs) = self.who_took_our_name(engine, fenced)? {
            return Err(AffinityError::NameTaken { ours: fenced.clone(), at: published_address(engine, &theirs), theirs });
        }
        self.clear_older(engine, tenure.holder(), Some(fenced))?;
        enter(engine, tenure)
    }

    /// Waits for the thief to show, if there was one.
    fn who_took_our_name(&self, engine: &Engine, fenced: &HolderId) -> Result<Option<HolderId>, AffinityError> {
        let deadline = engine.now().saturating_add(engine.timings().dead_after());
        loop {
            let (_, files, _) = engine.list_nodes()?;
            let ours: Vec<&NodeFile> = files.iter().filter(|file| file.holder.node == fenced.node).collect();
            let thief = ours.iter().find(|file| file.holder != *fenced && file.beat < TAKEN && !self.older.contains(&file.holder));
            if let Some(thief) = thief {
                return Ok(Some(thief.holder.clone()));
            }
            let was_taken = ours.iter().any(|file| file.holder == *fenced && file.beat >= TAKEN);
            if !was_taken || engine.now() >= deadline || engine.stop.wait(engine.timings().beat()) {
                return Ok(None);
            }
        }
    }

    /// `ours` is still listed where we gave it up and could not move it away.
    fn clear_older(&mut self, engine: &Engine, me: &HolderId, ours: Option<&HolderId>) -> Result<(), AffinityError> {
        let mut lock = engine.lock.lock();
        let recorded = Record::read(&mut lock).map_err(io_error("can't read", &engine.config.lock_dir))?;
        for _ in 0..ROUNDS_MAX {
            let (_, files, _) = engine.list_nodes()?;
            let mut all_cleared = true;
            let mut still_listed = Vec::new();
            for file in files.iter().filter(|file| file.holder.node == me.node && file.holder != *me) {
                let new = if recorded.holders.contains(&file.holder) {
                    still_listed.push(file.holder.clone());
                    file.ended(if ours == Some(&file.holder) { Ending::Resigned } else { Ending::Restarted }).path()
                } else if file.beat >= TAKEN {
                    self.older.insert(file.holder.clone());
                    continue;
                } else {
                    self.older.insert(file.holder.clone());
                    NodeFile { holder: file.holder.clone(), beat: file.beat.saturating_add(TAKEN) }.in_nodes()
                };
                let path = engine.path(&file.in_nodes());
                match swap(&*engine.directory, &file.in_nodes(), &new).map_err(io_error("can't move", &path))? {
                    Swapped::Won if ours == Some(&file.holder) => {
                        tracing::debug!(older = %file.holder, "the tenure that was given up is out")
                    }
                    Swapped::Won if recorded.holders.contains(&file.holder) => {
                        tracing::warn!(older = %file.holder, "the start of this node before this one ended without leaving (crashed or killed)");
                    }
                    Swapped::Won => tracing::warn!(
                        older = %file.holder,
                        at = published_address(engine, &file.holder),
                        "a node on another host (or this one, before it booted) ran under this name: its name is taken from it, and it stops if it still runs. \
                         Where both are to run, give one of them another node.name"
                    ),
                    Swapped::Lost => all_cleared = false,
                }
            }
            if all_cleared {
                // Before the node file exists: it must be known as ours whenever we crash.
                still_listed.push(me.clone());
                return recorded.write(&mut lock, &still_listed).map_err(io_error("can't write", &engine.config.lock_dir));
            }
        }
        let cause = io::Error::new(io::ErrorKind::WouldBlock, "an older start of this node beats faster than it can be replaced");
        Err(AffinityError::Io { doing: "can't join", path: engine.config.root.nodes(), cause })
    }
}

/// Where an incarnation said that it can be reached, for people.
fn published_address(engine: &Engine, holder: &HolderId) -> String {
    match read_info(&*engine.directory, holder) {
        Ok(info) if !info.relay.is_empty() => info.relay.join(" "),
        _ => "an unknown address".to_owned(),
    }
}

/// Publishes, creates the node file, and wins the first beat.
fn enter(engine: &Engine, tenure: &Tenure) -> Result<Beat, AffinityError> {
    let began = engine.now();
    let info_name = format!("{INFO}/{}", tenure.holder());
    let info_path = engine.path(&info_name);
    let info = engine.config.info.info().and_then(|info| Ok(serde_json::to_vec(&info)?)).map_err(io_error("can't write", &info_path))?;
    engine.directory.write(&info_name, &info).map_err(io_error("can't write", &info_path))?;
    engine.directory.sync(INFO).map_err(io_error("can't sync", &info_path))?;

    let mut beat = Beat::new(tenure.holder().clone());
    let node_file = beat.current().in_nodes();
    let node_path = engine.path(&node_file);
    engine.directory.create(&node_file).map_err(io_error("can't make", &node_path))?;
    let (from, to) = beat.attempt(engine.now());
    let swapped = swap(&*engine.directory, &from.in_nodes(), &to.in_nodes()).map_err(io_error("can't move", &node_path))?;
    match beat.answered(Answer::Swapped(swapped), engine.timings().self_limit()) {
        // What it published may be taken for a leftover by now: it begins anew, and this file is fenced as it stands still.
        BeatOutcome::ValidUntil(_) if engine.now().saturating_sub(began) > JOIN_MAX => {
            let cause = io::Error::new(io::ErrorKind::TimedOut, "joining took too long");
            Err(AffinityError::Io { doing: "can't join by", path: node_path, cause })
        }
        BeatOutcome::ValidUntil(until) => {
            tenure.extend(until);
            Ok(beat)
        }
        BeatOutcome::Fenced | BeatOutcome::TryAgain => {
            let cause = io::Error::new(io::ErrorKind::NotFound, "fenced before the first beat");
            Err(AffinityError::Io { doing: "can't move", path: node_path, cause })
        }
    }
}

/// The incarnations that ran under this lock since the host's boot, one a line after the boot's id. A record of another boot proves
/// nothing: the disk may be a copy of one whose host still runs.
struct Record {
    boot: Option<String>,
    holders: Vec<HolderId>,
}

impl Record {
    fn read(file: &mut File) -> io::Result<Record> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned()).filter(|id| !id.is_empty());
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.take(LOCK_BYTES_MAX).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let of_this_boot = text.lines().filter_map(|line| {
            let (id, holder) = line.split_once(' ')?;
            (Some(id) == boot.as_deref()).then(|| holder.parse().ok())?
        });
        let holders = of_this_boot.collect();
        Ok(Record { boot, holders })
    }

    fn write(&self, file: &mut File, holders: &[HolderId]) -> io::Result<()> {
        let Some(boot) = &self.boot else { return Ok(()) };
        let text: String = holders.iter().map(|holder| format!("{boot} {holder}\n")).collect();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(text.as_bytes())?;
        file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))
    }
}
