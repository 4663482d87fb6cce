//! The server, the nodes, and everything that goes wrong between them.

mod replies;
mod requests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
    time::Duration,
};

use crate::{
    Epoch, Handover, HolderId, Incarnation, Timings, UserName,
    faulty::MemoryNames,
    names::{FENCED, LeaseName, NODES, NodeFile, lease_bucket, lease_folder, sort_out},
    placement::stable_hash,
    protocol::{
        Acquire, Answer, Attempt, Beat, BeatOutcome, Release, ReleaseStep, ReleaseVerdict, Roll, Sighting, Verdict, Watch, acquire::Step,
        beat_gap_min,
    },
    root::FOLDERS,
    swap::Swapped,
};

/// What may go wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Faults {
    /// The server is away for all.
    pub(super) outages: bool,
    /// Nodes crash, stall, or are cut off.
    pub(super) nodes: bool,
    /// Requests end in errors, land late, are sent twice.
    pub(super) requests: bool,
    /// Several times as often, in bursts, and one node gets most of it.
    pub(super) often: bool,
}
impl Faults {
    pub(super) const ALL: Faults = Faults { outages: true, nodes: true, requests: true, often: false };
    pub(super) const OFTEN: Faults = Faults { outages: false, nodes: true, requests: true, often: true };
    pub(super) const NONE: Faults = Faults { outages: false, nodes: false, requests: false, often: false };
}

/// Global time in microseconds, which no node knows.
type Time = u64;
const SECOND: Time = 1_000_000;
const LENGTH: Time = 90 * SECOND;
const NODES_COUNT: usize = 4;

/// One request to the server.
#[derive(Debug, Clone)]
enum Request {
    /// A listing is read in two halves; this holds the first.
    List(String, Option<Vec<String>>),
    Rename(String, String),
    Create(String),
    /// A lease folder renamed into place.
    Prepare(UserName),
    Fence(NodeFile),
}

#[derive(Debug, Clone)]
enum Reply {
    Names(Option<Vec<String>>),
    Done,
    Missing,
    Error,
}

/// What a process waits for.
#[derive(Debug, Clone)]
enum Waiting {
    JoinListing,
    JoinClearing,
    JoinCreating,
    Swap(Purpose, String),
    Confirmation(Purpose, String),
    Roll,
    Fence,
    Lease(UserName),
    Nodes(UserName),
    Prepared(UserName),
}

#[derive(Debug, Clone)]
enum Purpose {
    Beat,
    Take(UserName),
    Release(UserName),
}

#[derive(Debug, Clone)]
enum Event {
    /// A request reaches the server. `wanted`: somebody waits for the reply.
    Land {
        from: Process,
        began: Duration,
        request: Request,
        waiting: Waiting,
        wanted: bool,
    },
    Reply {
        to: Process,
        began: Duration,
        waiting: Waiting,
        reply: Reply,
    },
    BeatDue(Process),
    WatchDue(Process),
    JobDue(Process),
    Start(usize),
    Trouble,
    CutOff(usize),
}

/// One incarnation on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    node: usize,
    start: u64,
}

#[derive(Debug, Default)]
struct Node {
    /// Own clock's speed, in thousandths, and where it began.
    rate: u64,
    offset: u64,
    start: u64,
    stalled_until: Time,
    cut_until: Time,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    me: HolderId,
    beat: Beat,
    joined: bool,
    beat_began: Duration,
    valid_until: Duration,
    watch: Watch,
    roll: Option<Roll>,
    jobs: BTreeMap<UserName, Job>,
    held: BTreeMap<UserName, Epoch>,
    attempts: BTreeMap<UserName, Attempt>,
}

#[derive(Debug)]
enum Job {
    Acquire(Acquire),
    Release(Release),
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) steps: u64,
    pub(super) taken: u64,
    pub(super) unclean: u64,
    pub(super) outages: u64,
    random: Random,
    faults: Faults,
    timings: Timings,
    now: Time,
    sequence: u64,
    queue: BTreeMap<Reverse<(Time, u64)>, Event>,
    server: MemoryNames,
    away_until: Time,
    nodes: Vec<Node>,
    users: Vec<UserName>,
    /// Their lease folders.
    folders: Vec<String>,
    /// What each epoch was taken from.
    history: BTreeMap<(UserName, Epoch), LeaseName>,
    highest: BTreeMap<UserName, Epoch>,
    calm: bool,
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> World {
        let timings = Timings::default();
        timings.check().expect("the default is sane");
        let users = ["ada", "bob", "eve"].map(|name| UserName::normalise(name).expect("a name")).to_vec();
        let mut server = MemoryNames::default();
        for folder in FOLDERS {
            server.create(folder, None).expect("new");
        }
        let mut random = Random(seed);
        let nodes = (0..NODES_COUNT)
            .map(|_| Node { rate: 900 + random.below(201), offset: random.below(1000 * SECOND), ..Node::default() })
            .collect();
        let mut world = World {
            seed,
            steps: 0,
            taken: 0,
            unclean: 0,
            outages: 0,
            random,
            faults,
            timings,
            now: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            server,
            away_until: 0,
            nodes,
            folders: users.iter().map(lease_folder).collect(),
            users,
            history: BTreeMap::new(),
            highest: BTreeMap::new(),
            calm: false,
        };
        for node in 0..NODES_COUNT {
            let at = world.random.below(2 * SECOND);
            world.at(at, Event::Start(node));
        }
        world.after(5 * SECOND, Event::Trouble);
        world
    }

    /// Lets it all happen; says what invariant was violated.
    pub(super) fn run(&mut self) -> Result<(), String> {
        self.run_until(LENGTH)
    }

    /// No more trouble: soon every lease is held or free again.
    pub(super) fn calm_down(&mut self) -> Result<(), String> {
        self.calm = true;
        self.run_until(LENGTH + 60 * SECOND)?;
        let taken = self.taken;
        self.run_until(LENGTH + 90 * SECOND)?;
        if self.taken == taken { Err("no lease is taken any more".into()) } else { Ok(()) }
    }

    /// How many node files are in `fenced/`.
    pub(super) fn fenced(&self) -> usize {
        self.server.list(FENCED).map_or(0, |names| names.len())
    }

    fn run_until(&mut self, end: Time) -> Result<(), String> {
        while let Some(next) = self.queue.last_entry() {
            let Reverse((at, _)) = *next.key();
            if at > end {
                break;
            }
            let event = next.remove();
            self.now = at;
            self.steps += 1;
            // What nobody could have changed needs no look.
            let matters = match &event {
                Event::Reply { .. } => true,
                Event::Land { request, .. } => !matches!(request, Request::List(..)),
                Event::BeatDue(_) | Event::WatchDue(_) | Event::JobDue(_) | Event::Start(_) | Event::Trouble | Event::CutOff(_) => false,
            };
            self.happen(event)?;
            if !matters {
                continue;
            }
            self.invariants().map_err(|violation| format!("at {} µs: {violation}", self.now))?;
        }
        Ok(())
    }

    // What must always hold.

    fn invariants(&mut self) -> Result<(), String> {
        for (user, folder) in self.users.iter().zip(&self.folders) {
            let Ok(listing) = self.server.list(folder) else { continue };
            let (names, _) = sort_out::<LeaseName>(&listing);
            let [name] = names.as_slice() else { return Err(format!("the lease folder of {user} holds {listing:?}")) };
            let live: Vec<LeaseName> = self.live_holders(user);
            invariant_one_live_holder_per_user(user, &live)?;
            invariant_whoever_acknowledges_holds_the_lease(user, &live, name)?;
            let highest = self.highest.get(user).copied().unwrap_or(Epoch::ZERO);
            invariant_epochs_only_rise(user, highest, name.epoch)?;
            if name.epoch > highest {
                self.highest.insert(user.clone(), name.epoch);
            }
        }
        Ok(())
    }

    /// Whoever would acknowledge for `user` now.
    fn live_holders(&self, user: &UserName) -> Vec<LeaseName> {
        let live = self.nodes.iter().enumerate().filter_map(|(node, state)| {
            let running = state.running.as_ref().filter(|running| running.joined && self.local(node) < running.valid_until)?;
            let epoch = *running.held.get(user)?;
            Some(LeaseName { epoch, holder: Some(running.me.clone()) })
        });
        live.collect()
    }

    // Events.

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Trouble => self.trouble(),
            Event::CutOff(node) => self.nodes[node].cut_until = self.now + SECOND + self.random.below(7 * SECOND),
            Event::Start(node) => self.start(node),
            Event::Land { from, began, request, waiting, wanted } => self.land(from, began, request, waiting, wanted),
            Event::Reply { to, .. } | Event::BeatDue(to) | Event::WatchDue(to) | Event::JobDue(to)
                if self.nodes[to.node].stalled_until > self.now =>
            {
                let until = self.nodes[to.node].stalled_until;
                self.at(until, event);
            }
            Event::Reply { to, began, waiting, reply } if self.is_running(to) => return self.reply(to, began, waiting, reply),
            Event::BeatDue(process) if self.is_running(process) => self.beat(process),
            Event::WatchDue(process) if self.is_running(process) => self.send(process, Request::List(NODES.into(), None), Waiting::Roll),
            Event::JobDue(process) if self.is_running(process) => return self.job(process),
            // Of a process that is gone.
            Event::Reply { .. } | Event::BeatDue(_) | Event::WatchDue(_) | Event::JobDue(_) => {}
        }
        Ok(())
    }

    fn trouble(&mut self) {
        if self.calm {
            return;
        }
        let often = self.faults.often;
        let next = if often { SECOND / 4 + self.random.below(6 * SECOND) } else { SECOND + self.random.below(12 * SECOND) };
        self.after(next, Event::Trouble);
        let node = if often && self.random.below(3) > 0 { 0 } else { self.random.index(NODES_COUNT) };
        // Mostly around the limits, where it matters.
        let until = self.now + SECOND / 2 + self.random.below(if often { 8 } else { 12 } * SECOND);
        match self.random.below(10) {
            0 | 1 if self.faults.outages => {
                self.outages += 1;
                self.away_until = self.away_until.max(until + self.random.below(20 * SECOND));
            }
            2..=5 if self.faults.nodes => self.nodes[node].cut_until = until,
            6 | 7 if self.faults.nodes => self.nodes[node].stalled_until = until,
            8 if self.faults.nodes && self.nodes[node].running.is_some() => self.crash(node),
            9 if self.faults.nodes && often => {
                // Stalled, and cut off soon after it wakes.
                self.nodes[node].stalled_until = until;
                let awake = self.random.below(SECOND);
                self.at(until + awake, Event::CutOff(node));
            }
            _ => {}
        }
    }

    fn crash(&mut self, node: usize) {
        self.nodes[node].running = None;
        let pause = self.random.below(6 * SECOND);
        self.after(pause, Event::Start(node));
    }

    fn start(&mut self, node: usize) {
        let incarnation = Incarnation::from_number(NonZeroU64::new(self.random.next()).unwrap_or(NonZeroU64::MIN));
        let me = HolderId { node: format!("n{node}").parse().expect("a name"), incarnation };
        let state = &mut self.nodes[node];
        state.start += 1;
        state.running = Some(Running {
            beat: Beat::new(me.clone()),
            joined: false,
            beat_began: Duration::ZERO,
            valid_until: Duration::ZERO,
            watch: Watch::new(me.clone()),
            roll: None,
            jobs: BTreeMap::new(),
            held: BTreeMap::new(),
            attempts: BTreeMap::new(),
            me,
        });
        let process = Process { node, start: state.start };
        self.send(process, Request::List(NODES.into(), None), Waiting::JoinListing);
    }

    fn beat(&mut self, process: Process) {
        let now = self.local(process.node);
        let running = self.running(process);
        running.beat_began = now;
        let (from, to) = running.beat.attempt(now);
        self.swap(process, from.in_nodes(), to.in_nodes(), Purpose::Beat);
    }

    /// Takes a lease or gives one back.
    fn job(&mut self, process: Process) -> Result<(), String> {
        let pause = 50_000 + self.random.below(700_000);
        self.after(pause, Event::JobDue(process));
        let user = self.users[self.random.index(self.users.len())].clone();
        let release = self.random.below(3) == 0;
        let now = self.local(process.node);
        let running = self.running(process);
        if now >= running.valid_until || running.jobs.contains_key(&user) {
            return Ok(());
        }
        match running.held.get(&user).copied() {
            Some(epoch) if release => {
                running.held.remove(&user);
                running.attempts.insert(user.clone(), Attempt::Release(epoch));
                running.jobs.insert(user.clone(), Job::Release(Release::new(running.me.clone(), epoch)));
            }
            Some(_) => return Ok(()),
            None => {
                let acquire = Acquire::new(running.me.clone(), running.attempts.get(&user).cloned());
                running.jobs.insert(user.clone(), Job::Acquire(acquire));
            }
        }
        self.go_on(process, &user)
    }

    /// Sends what a job wants next, or takes note of what became of it.
    fn go_on(&mut self, process: Process, user: &UserName) -> Result<(), String> {
        let running = self.running(process);
        let step = match running.jobs.get(user) {
            Some(Job::Acquire(acquire)) => acquire.step().clone(),
            Some(Job::Release(release)) => match release.step().clone() {
                ReleaseStep::Swap { from, to } => {
                    self.swap(process, from.in_folder_of(user), to.in_folder_of(user), Purpose::Release(user.clone()));
                    return Ok(());
                }
                ReleaseStep::ListLease => Step::ListLease,
                ReleaseStep::Done(verdict) => {
                    running.jobs.remove(user);
                    if verdict == ReleaseVerdict::Gone {
                        running.attempts.remove(user);
                    }
                    return Ok(());
                }
            },
            None => return Ok(()),
        };
        match step {
            Step::ListLease => self.send(process, Request::List(lease_folder(user), None), Waiting::Lease(user.clone())),
            Step::Prepare => self.send(process, Request::Prepare(user.clone()), Waiting::Prepared(user.clone())),
            Step::ListNodes => self.send(process, Request::List(NODES.into(), None), Waiting::Nodes(user.clone())),
            Step::Swap { from, to } => {
                self.swap(process, from.in_folder_of(user), to.in_folder_of(user), Purpose::Take(user.clone()));
            }
            Step::Done(verdict) => return self.acquired(process, user, verdict),
        }
        Ok(())
    }

    fn acquired(&mut self, process: Process, user: &UserName, verdict: Verdict) -> Result<(), String> {
        let running = self.running(process);
        let Some(Job::Acquire(acquire)) = running.jobs.remove(user) else { return Ok(()) };
        match acquire.attempt() {
            Some(attempt) => drop(running.attempts.insert(user.clone(), attempt.clone())),
            None => drop(running.attempts.remove(user)),
        }
        let me = running.me.clone();
        match verdict {
            Verdict::Mine(epoch, handover) => {
                running.held.insert(user.clone(), epoch);
                self.taken += 1;
                if handover == Handover::Unclean {
                    self.unclean += 1;
                }
                let from = self.history.get(&(user.clone(), epoch)).and_then(|name| name.holder.clone());
                match from {
                    // Its own lease, closed before, is as good as free.
                    Some(holder) if handover == Handover::Clean && holder != me => {
                        Err(format!("{me} took epoch {epoch} of {user} from {holder}, who did not release it, and calls that clean"))
                    }
                    _ => Ok(()),
                }
            }
            Verdict::Broken => Err(format!("the lease folder of {user} seems broken to {me}")),
            _ => Ok(()),
        }
    }

    /// The job ends here; the next one begins anew with what is left.
    fn give_up(&mut self, process: Process, user: &UserName) {
        let running = self.running(process);
        if let Some(Job::Acquire(acquire)) = running.jobs.remove(user) {
            match acquire.attempt() {
                Some(attempt) => drop(running.attempts.insert(user.clone(), attempt.clone())),
                None => drop(running.attempts.remove(user)),
            }
        }
    }

    // Time.

    /// What the node's own clock says.
    fn local(&self, node: usize) -> Duration {
        let state = &self.nodes[node];
        Duration::from_micros(state.offset + self.now * state.rate / 1000)
    }
    fn after_local(&mut self, process: Process, pause: Duration, event: Event) {
        let micros = u64::try_from(pause.as_micros()).expect("short");
        self.after(micros * 1000 / self.nodes[process.node].rate, event);
    }
    fn after(&mut self, pause: Time, event: Event) {
        self.at(self.now + pause, event);
    }
    fn at(&mut self, time: Time, event: Event) {
        self.sequence += 1;
        self.queue.insert(Reverse((time, self.sequence)), event);
    }
    /// One way over the network: mostly a millisecond, at times half a second.
    fn delay(&mut self) -> Time {
        if self.random.below(25) == 0 { self.random.below(SECOND / 2) } else { 200 + self.random.below(2_000) }
    }
    fn is_running(&self, process: Process) -> bool {
        let node = &self.nodes[process.node];
        node.running.is_some() && node.start == process.start
    }
    fn running(&mut self, process: Process) -> &mut Running {
        self.nodes[process.node].running.as_mut().expect("asked before")
    }
}

fn invariant_one_live_holder_per_user(user: &UserName, live: &[LeaseName]) -> Result<(), String> {
    let holders: BTreeSet<_> = live.iter().map(|name| &name.holder).collect();
    if holders.len() > 1 { Err(format!("{live:?} may all acknowledge for {user}")) } else { Ok(()) }
}

fn invariant_whoever_acknowledges_holds_the_lease(user: &UserName, live: &[LeaseName], lease: &LeaseName) -> Result<(), String> {
    match live.iter().find(|name| *name != lease) {
        Some(name) => Err(format!("{name} may acknowledge for {user}, whose lease is {lease}")),
        None => Ok(()),
    }
}

fn invariant_epochs_only_rise(user: &UserName, before: Epoch, after: Epoch) -> Result<(), String> {
    if after < before { Err(format!("the epoch of {user} fell from {before} to {after}")) } else { Ok(()) }
}

/// splitmix64: the same numbers for a seed on every machine and in every version.
#[derive(Debug)]
struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(u64::try_from(length).expect("few"))).expect("small")
    }
}
