//! What there is: the server, the nodes, what each waits for, and what may still go wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
    sync::Arc,
    time::Duration,
};

use super::{Model, Rule};
use crate::{
    Epoch, Handover, HolderId, Incarnation, Lease, Tenure, TestClock,
    faulty::MemoryNames,
    names::{NodeFile, sort_out},
    protocol::{Acquire, Answer, Attempt, Beat, Release, Roll, Watch},
};

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// Beats since the start, of a time that no node knows.
    pub(super) tick: u64,
    /// Who acts after the others in this tick.
    pub(super) goes_last: Option<usize>,
    pub(super) server: MemoryNames,
    /// Users' index folders, by user.
    pub(super) stores: Vec<Store>,
    pub(super) nodes: Vec<Node>,
    /// Requests that nobody waits for any more: they land at some time, or never. Sorted.
    pub(super) late: Vec<Request>,
    pub(super) left: Faults,
    /// When the last outage began, and by when the last node finds the server again once the first did.
    pub(super) away_since: u64,
    pub(super) back_by: Option<u64>,
    /// Highest epoch that a lease folder showed, by user.
    pub(super) highest: Vec<Epoch>,
    pub(super) wrong: Option<Wrong>,
}

/// How much may go wrong on one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Faults {
    pub(super) crashes: u8,
    /// A node gives up all its leases at once and joins anew.
    pub(super) resigns: u8,
    /// A process stands still, for any time, with requests under way.
    pub(super) pauses: u8,
    /// The server is away for all, for any time; the nodes find it again at different times.
    pub(super) outages: u8,
    /// A node acts after the others in a tick.
    pub(super) delays: u8,
    /// A request is under way for any time, then its answer is.
    pub(super) slow: u8,
    /// An error is returned; the request was done, or will be later, or never.
    pub(super) errors: u8,
    /// The reply is lost, and the same request is sent again.
    pub(super) resent: u8,
    /// A rename runs through a listing.
    pub(super) hidden: u8,
    /// Not faults: leases given back.
    pub(super) releases: u8,
    /// Not faults: changes that clients ask for.
    pub(super) writes: u8,
}

/// What no state tells by itself: seen when it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Wrong {
    FencedThoughItMovedOn,
    EpochFell,
    LateWriteInALiveFolder,
    GaveUpThoughNobodyFencedIt,
}

/// One user's index folders: an epoch's folder and the changes that are in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Store {
    pub(super) folders: BTreeMap<Epoch, BTreeSet<u8>>,
    pub(super) acknowledged: BTreeSet<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) starts: u8,
    pub(super) paused: bool,
    pub(super) away: bool,
    pub(super) process: Option<Process>,
}

/// What goes on at the same time within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Thread {
    Beat,
    Watch,
    Job(usize),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) me: HolderId,
    pub(super) beat: Beat,
    pub(super) beat_done: bool,
    pub(super) valid_until: Duration,
    pub(super) watch: Watch,
    pub(super) watch_done: bool,
    pub(super) roll: Option<Roll>,
    /// Suspects that the watch has yet to fence.
    pub(super) fencing: Vec<NodeFile>,
    /// The last listing of `nodes/` by the watch; kept only where a missing rule makes use of it.
    pub(super) old_nodes: Vec<NodeFile>,
    pub(super) pending: BTreeMap<Thread, Pending>,
    pub(super) users: Vec<Mine>,
}

/// A request under way. `slow`: for as long as it likes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Pending {
    Sent { began: Duration, request: Request, slow: bool },
    Answered { began: Duration, reply: Reply, slow: bool },
}

/// What one process has to do with one user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Mine {
    pub(super) job: Option<Job>,
    pub(super) held: Option<Held>,
    pub(super) attempt: Option<Attempt>,
    /// Asked for within this tick.
    pub(super) asked: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Job {
    Acquire(Acquire),
    Release(Release),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub(super) epoch: Epoch,
    pub(super) handover: Handover,
    /// The index folder, once the account is open.
    pub(super) folder: Option<Epoch>,
    pub(super) writing: Option<Writing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Writing {
    pub(super) change: u8,
    pub(super) durable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Request {
    ListNodes,
    ListLease(usize),
    Prepare(usize),
    Swap(String, String),
    Fence(NodeFile),
    Write { user: usize, folder: Epoch, change: u8 },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Reply {
    Names(Option<Vec<String>>),
    Swapped(Answer),
    Done,
    Error,
}

impl Process {
    pub(super) fn new(me: HolderId, users: usize) -> Process {
        Process {
            beat: Beat::new(me.clone()),
            beat_done: false,
            valid_until: Duration::ZERO,
            watch: Watch::new(me.clone()),
            watch_done: false,
            roll: None,
            fencing: Vec::new(),
            old_nodes: Vec::new(),
            pending: BTreeMap::new(),
            users: vec![Mine::default(); users],
            me,
        }
    }

    /// What the thread would ask of the server next.
    pub(super) fn wants(&self, thread: Thread) -> Option<Request> {
        if self.pending.contains_key(&thread) {
            return None;
        }
        match thread {
            Thread::Beat if self.beat_done => None,
            Thread::Beat => Some(Request::Swap(self.beat.current().in_nodes(), self.beat.next().in_nodes())),
            Thread::Watch => match self.fencing.first() {
                Some(file) => Some(Request::Fence(file.clone())),
                None => (!self.watch_done).then_some(Request::ListNodes),
            },
            Thread::Job(user) => super::drive::job_wants(self.users[user].job.as_ref()?, user),
        }
    }

    pub(super) fn threads(&self) -> impl Iterator<Item = Thread> + use<> {
        std::iter::once(Thread::Beat).chain((0..self.users.len()).map(Thread::Job)).chain([Thread::Watch])
    }
}

impl Node {
    /// Takes part in what happens now.
    pub(super) fn acts(&self) -> Option<&Process> {
        self.process.as_ref().filter(|_| !self.paused)
    }
}

impl State {
    /// What a node's own clock says.
    pub(super) fn local(&self, model: &Model, node: usize) -> Duration {
        // Clocks begin at different times, too.
        Duration::from_millis(100_000 * (node as u64 + 1) + self.tick * model.tick_millis[node])
    }

    /// Whether a node would acknowledge a change for a user now: [`Lease::ensure_live`] says so.
    pub(super) fn may_acknowledge(&self, model: &Model, node: usize, user: usize) -> bool {
        let Some(process) = &self.nodes[node].process else { return false };
        let Some(held) = &process.users[user].held else { return false };
        if model.without == Some(Rule::AcknowledgeOnlyWhileValid) {
            return true;
        }
        let clock = TestClock::default();
        clock.advance(self.local(model, node));
        let tenure = Tenure::new(process.me.clone(), Arc::new(clock));
        tenure.extend(process.valid_until);
        Lease::for_test(model.users[user].clone(), held.epoch, tenure).ensure_live().is_ok()
    }

    /// Who would acknowledge for a user now, under which epoch.
    pub(super) fn live<'a>(&'a self, model: &'a Model, user: usize) -> impl Iterator<Item = (usize, &'a HolderId, &'a Held)> {
        (0..self.nodes.len()).filter(move |node| self.may_acknowledge(model, *node, user)).filter_map(move |node| {
            let process = self.nodes[node].process.as_ref()?;
            Some((node, &process.me, process.users[user].held.as_ref()?))
        })
    }

    pub(super) fn names<T: std::str::FromStr>(&self, folder: &str) -> Vec<T> {
        sort_out(&self.server.list(folder).unwrap_or_default()).0
    }
}

/// The `start`th incarnation of a node.
pub(super) fn holder(node: usize, start: u8) -> HolderId {
    let number = NonZeroU64::new(u64::from(start)).unwrap_or(NonZeroU64::MIN);
    HolderId { node: format!("n{node}").parse().expect("a name"), incarnation: Incarnation::from_number(number) }
}
