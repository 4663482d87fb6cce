//! Many nodes and users in virtual time, by the rules that the program runs: `Beat`, `Watch`, `Acquire`, `Release`, `place`.
//!
//! One step is one beat. The directory is in memory and answers at once; what is counted is what it would be asked. What this shows: nothing
//! grows faster than nodes × beats + logins, users spread evenly, a node that comes, goes or dies moves no users but its own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU64,
    time::Duration,
};

use affinity::{
    Epoch, HolderId, Incarnation, Peer, Timings, UserName,
    names::{LeaseName, NodeFile},
    placement::{Wish, place},
    protocol::{Acquire, Answer, Beat, BeatOutcome, Release, ReleaseStep, Roll, Sighting, Verdict, Watch, acquire::Step},
    swap::Swapped,
};

/// What a fresh listing costs on NFS: LOOKUP or ACCESS, GETATTR, READDIR.
const LISTING_REQUESTS: u64 = 3;
/// What a first contact costs: the bucket's and the folder's MKDIR, the file's OPEN and CLOSE, RENAME, GETATTR.
const PREPARE_REQUESTS: u64 = 6;
/// Beats between looks at `settings/`, as the keeper has it.
const SETTINGS_EVERY: u64 = 10;

/// How large, and with what luck.
#[derive(Debug, Clone)]
pub struct Size {
    pub seed: u64,
    pub nodes: usize,
    pub users: usize,
    pub logins_per_beat: usize,
}

/// One row of the table.
#[derive(Debug, Clone)]
pub struct Phase {
    pub name: &'static str,
    pub beats: u64,
    /// Nodes that ran, summed over the beats.
    pub node_beats: u64,
    pub logins: u64,
    pub beat_requests: u64,
    pub lease_requests: u64,
    pub peak: u64,
    /// Users whose holder is another node than before.
    pub moved: u64,
    pub fenced: u64,
    /// Users per running node: fewest, most.
    pub spread: (usize, usize),
    /// Longest time that a user waited for a holder, in beats.
    pub longest_wait: u64,
}

struct Node {
    holder: HolderId,
    beat: Beat,
    watch: Watch,
    peers: Vec<Peer>,
    draining: bool,
    valid_until: Duration,
    held: HashMap<usize, Epoch>,
}

#[derive(Debug, Clone, Default)]
struct Lease {
    name: Option<LeaseName>,
    /// Index of the node that had it last.
    last: Option<usize>,
}

pub struct World {
    size: Size,
    timings: Timings,
    random: u64,
    now: u64,
    away: bool,
    nodes: Vec<Option<Node>>,
    /// `settings/<node>/weight`, by number.
    weights: Vec<u32>,
    by_holder: HashMap<HolderId, usize>,
    /// `nodes/` on the server.
    files: BTreeMap<HolderId, u64>,
    leases: Vec<Lease>,
    /// Users who wait for a holder, since when.
    waiting: BTreeMap<usize, u64>,
    next_login: usize,
    /// Users who are still to be idle once: their lease is given back, and they come again.
    idle_users: Vec<usize>,
    phase: Phase,
}

impl World {
    pub fn new(size: Size) -> World {
        let mut world = World {
            random: size.seed,
            timings: Timings::default(),
            now: 0,
            away: false,
            nodes: Vec::new(),
            weights: Vec::new(),
            by_holder: HashMap::new(),
            files: BTreeMap::new(),
            leases: vec![Lease::default(); size.users],
            waiting: BTreeMap::new(),
            next_login: 0,
            idle_users: Vec::new(),
            phase: Phase::begin(""),
            size,
        };
        (0..world.size.nodes).for_each(|_| world.join());
        world
    }

    /// The whole story, a row for each part.
    pub fn run(mut self) -> Vec<Phase> {
        let tenth = (self.size.nodes / 10).max(1);
        let all_in = u64::try_from(self.size.users.div_ceil(self.size.logins_per_beat)).unwrap_or(u64::MAX);
        let mut rows = vec![self.phase("every user logs in", all_in + 2)];
        rows.push(self.phase("all are held: nothing to do", 30));
        (0..tenth).for_each(|_| self.join());
        rows.push(self.phase("a tenth more nodes join", 30));
        (0..tenth).for_each(|number| self.drain(number));
        rows.push(self.phase("a tenth drains and leaves", 60));
        (tenth..2 * tenth).for_each(|number| self.crash(number));
        rows.push(self.phase("a tenth dies at once", 60));
        self.away = true;
        self.wait(30);
        self.away = false;
        rows.push(self.phase("the directory was away for 30 beats", 30));
        (tenth..2 * tenth).for_each(|number| self.start(number));
        // Two beats, in which all see them; then everybody is idle once and comes again.
        self.wait(2);
        self.idle_users = (0..self.size.users).collect();
        rows.push(self.phase("the dead come back, and every user is idle once", all_in + 8));
        self.idle_users = (0..self.size.users).collect();
        rows.push(self.phase("every user is idle once more", all_in + 8));
        for (weight, changed, followed) in [
            (50, "a tenth has half its weight, nobody is idle", "then every user is idle once"),
            (100, "it has its weight again, nobody is idle", "then every user is idle once"),
        ] {
            self.weights[tenth..2 * tenth].fill(weight);
            rows.push(self.phase(changed, 3 * SETTINGS_EVERY));
            self.idle_users = (0..self.size.users).collect();
            rows.push(self.phase(followed, all_in + 8));
        }
        for _ in 0..4 {
            (tenth..2 * tenth).for_each(|number| self.crash_quietly(number));
            self.wait(20);
            (tenth..2 * tenth).for_each(|number| self.start(number));
            self.wait(20);
        }
        rows.push(self.phase("a tenth dies and comes back four times, nobody is idle", 20));
        rows
    }

    fn phase(&mut self, name: &'static str, beats: u64) -> Phase {
        self.phase.name = name;
        self.wait(beats);
        let running = self.nodes.iter().flatten().filter(|node| !node.draining);
        let held: Vec<usize> = running.map(|node| node.held.len()).collect();
        self.phase.spread = (held.iter().copied().min().unwrap_or(0), held.iter().copied().max().unwrap_or(0));
        std::mem::replace(&mut self.phase, Phase::begin(""))
    }

    fn wait(&mut self, beats: u64) {
        for _ in 0..beats {
            let before = self.phase.requests();
            self.step();
            self.phase.beats += 1;
            self.phase.peak = self.phase.peak.max(self.phase.requests() - before);
        }
    }

    // Nodes.

    fn join(&mut self) {
        self.nodes.push(None);
        self.weights.push(100);
        self.start(self.nodes.len() - 1);
    }

    /// A new start of a node, under the name that its number gives.
    fn start(&mut self, number: usize) {
        let incarnation = Incarnation::from_number(NonZeroU64::new(self.next()).unwrap_or(NonZeroU64::MIN));
        let holder = HolderId { node: format!("node-{number:03}").parse().expect("a name"), incarnation };
        let beat = Beat::new(holder.clone());
        // As `keeper::join`: an older start of it is moved away.
        self.files.retain(|older, _| older.node != holder.node);
        self.files.insert(holder.clone(), 0);
        self.by_holder.insert(holder.clone(), number);
        self.nodes[number] = Some(Node {
            watch: Watch::new(holder.clone()),
            peers: Vec::new(),
            draining: false,
            valid_until: Duration::ZERO,
            held: HashMap::new(),
            beat,
            holder,
        });
        // Its lock, info/, first listing and node file.
        self.phase.beat_requests += 4 * LISTING_REQUESTS;
    }

    fn drain(&mut self, number: usize) {
        if let Some(node) = &mut self.nodes[number] {
            node.draining = true;
        }
    }

    fn crash(&mut self, number: usize) {
        if let Some(node) = self.nodes[number].take() {
            // Their clients connect again at once.
            self.waiting.extend(node.held.into_keys().map(|user| (user, self.now)));
        }
    }

    /// The same, but nobody of theirs comes again before they are back.
    fn crash_quietly(&mut self, number: usize) {
        self.nodes[number] = None;
    }

    fn step(&mut self) {
        self.now += 1;
        for number in 0..self.nodes.len() {
            self.beat(number);
            self.watch(number);
        }
        if self.away {
            return;
        }
        for number in 0..self.nodes.len() {
            self.hand_over(number);
        }
        for _ in 0..self.size.logins_per_beat.min(self.idle_users.len()) {
            if let Some(user) = self.idle_users.pop() {
                self.be_idle(user);
            }
        }
        for _ in 0..self.size.logins_per_beat.min(self.size.users - self.next_login) {
            self.phase.logins += 1;
            self.waiting.insert(self.next_login, self.now);
            self.next_login += 1;
        }
        for user in self.waiting.keys().copied().collect::<Vec<_>>() {
            self.log_in(user);
        }
    }

    fn local(&self) -> Duration {
        self.timings.beat() * u32::try_from(self.now).unwrap_or(u32::MAX)
    }

    fn beat(&mut self, number: usize) {
        let (now, limit) = (self.local(), self.timings.self_limit());
        let Some(node) = &mut self.nodes[number] else { return };
        self.phase.node_beats += 1;
        let (from, to) = node.beat.attempt(now);
        if self.away {
            return;
        }
        self.phase.beat_requests += 1;
        let swapped = match self.files.get_mut(&from.holder) {
            Some(beat) if *beat == from.beat => {
                *beat = to.beat;
                Swapped::Won
            }
            _ => Swapped::Lost,
        };
        match node.beat.answered(Answer::Swapped(swapped), limit) {
            BeatOutcome::ValidUntil(until) => node.valid_until = until,
            BeatOutcome::Fenced => self.crash(number),
            BeatOutcome::TryAgain => {}
        }
    }

    fn watch(&mut self, number: usize) {
        let now = self.local();
        let Some(node) = &mut self.nodes[number] else { return };
        if self.away {
            return node.watch.failed();
        }
        let files: Vec<NodeFile> = self.files.iter().map(|(holder, beat)| NodeFile { holder: holder.clone(), beat: *beat }).collect();
        self.phase.beat_requests += LISTING_REQUESTS;
        let mut roll = Roll::new(now, now, &files);
        while node.watch.misses_somebody(&roll) && !roll.is_proof(self.timings.beat()) && !roll.is_long() {
            self.phase.beat_requests += LISTING_REQUESTS;
            roll.add(now, now, &files);
        }
        let sightings = node.watch.listed(&roll, &self.timings);
        let looks_at_settings = self.now.is_multiple_of(SETTINGS_EVERY);
        if looks_at_settings {
            self.phase.beat_requests += LISTING_REQUESTS;
        }
        for sighting in &sightings {
            if let Sighting::Suspect(file) = sighting {
                self.phase.beat_requests += 1;
                if self.files.get(&file.holder) == Some(&file.beat) {
                    self.files.remove(&file.holder);
                    self.phase.fenced += 1;
                }
            }
        }
        if !sightings.is_empty() || looks_at_settings {
            self.look_around(number);
        }
    }

    fn look_around(&mut self, number: usize) {
        let draining: BTreeSet<&HolderId> = self.nodes.iter().flatten().filter(|node| node.draining).map(|node| &node.holder).collect();
        let Some(node) = &self.nodes[number] else { return };
        let weight = |holder| self.by_holder.get(holder).and_then(|number| self.weights.get(*number)).copied().unwrap_or(100);
        let peers = node.watch.observed().iter().map(|(holder, observed)| Peer {
            holder: holder.clone(),
            beat: observed.beat,
            unchanged_for: observed.unchanged_for,
            suspect: observed.suspect,
            draining: draining.contains(holder),
            trouble: false,
            weight: weight(holder),
            tags: BTreeSet::new(),
            info: None,
        });
        let peers = peers.collect();
        if let Some(node) = &mut self.nodes[number] {
            node.peers = peers;
        }
    }

    // Users.

    /// Nobody uses the account: its lease is given back, and the user comes again.
    fn be_idle(&mut self, user: usize) {
        let Some((holder, epoch)) = self.leases[user].name.clone().and_then(|name| Some((name.holder?, name.epoch))) else { return };
        let Some(node) = self.by_holder.get(&holder).and_then(|number| self.nodes[*number].as_mut()) else { return };
        if node.holder == holder && node.held.remove(&user).is_some() {
            self.phase.logins += 1;
            self.release(user, &holder, epoch);
        }
    }

    fn release(&mut self, user: usize, holder: &HolderId, epoch: Epoch) {
        let mut release = Release::new(holder.clone(), epoch);
        while let ReleaseStep::Swap { from, to } = release.step().clone() {
            let swapped = self.swap(user, &from, &to);
            release.swapped(Answer::Swapped(swapped));
        }
        self.waiting.insert(user, self.now);
    }

    /// A draining node gives its leases back, as many in a beat as logins come, and leaves.
    fn hand_over(&mut self, number: usize) {
        let Some(node) = self.nodes[number].as_mut().filter(|node| node.draining) else { return };
        let (holder, users): (HolderId, Vec<usize>) =
            (node.holder.clone(), node.held.keys().copied().take(self.size.logins_per_beat).collect());
        for user in users {
            let Some(epoch) = self.nodes[number].as_mut().and_then(|node| node.held.remove(&user)) else { continue };
            self.release(user, &holder, epoch);
        }
        if self.nodes[number].as_ref().is_some_and(|node| node.held.is_empty()) {
            self.phase.beat_requests += 1;
            self.files.remove(&holder);
            self.nodes[number] = None;
        }
    }

    /// A connection reaches some node, which finds the holder or waits.
    fn log_in(&mut self, user: usize) {
        let luck = self.next();
        let Some(ingress) = self.any_node(luck) else { return };
        let lease = self.leases[user].name.clone();
        // The ingress looked once, and waits for its watch to tell that the holder is gone.
        if let Some(holder) = lease.as_ref().and_then(|name| name.holder.as_ref())
            && ingress.watch.observed().contains_key(holder)
        {
            return;
        }
        let name = UserName::normalise(&format!("user{user}@example.org")).expect("a name");
        let Some(at) = place(&name, &Wish::default(), ingress.peers.iter()).and_then(|placed| self.by_holder.get(placed.on)).copied()
        else {
            return;
        };
        self.phase.lease_requests += LISTING_REQUESTS;
        let Some(node) = self.nodes[at].as_ref().filter(|node| node.valid_until > self.local()) else { return };
        let (me, suspects) = (node.holder.clone(), node.watch.suspects());
        let mut acquire = Acquire::new(me, None);
        let verdict = loop {
            match acquire.step().clone() {
                Step::ListLease => {
                    self.phase.lease_requests += LISTING_REQUESTS;
                    let names = self.leases[user].name.clone().map(|name| vec![name]);
                    acquire.lease_listed(names.as_deref());
                }
                Step::Prepare => {
                    self.phase.lease_requests += PREPARE_REQUESTS;
                    self.leases[user].name = Some(LeaseName::FIRST);
                    acquire.prepared();
                }
                Step::ListNodes => {
                    self.phase.lease_requests += LISTING_REQUESTS;
                    let files: Vec<NodeFile> =
                        self.files.iter().map(|(holder, beat)| NodeFile { holder: holder.clone(), beat: *beat }).collect();
                    acquire.nodes_listed(self.local(), self.local(), &files, &suspects, self.timings.beat());
                }
                Step::Swap { from, to } => {
                    let swapped = self.swap(user, &from, &to);
                    acquire.swapped(Answer::Swapped(swapped));
                }
                Step::Done(verdict) => break verdict,
            }
        };
        let Verdict::Mine(epoch, _) = verdict else { return };
        if let Some(node) = &mut self.nodes[at] {
            node.held.insert(user, epoch);
        }
        if self.leases[user].last.replace(at).is_some_and(|last| last != at) {
            self.phase.moved += 1;
        }
        if let Some(since) = self.waiting.remove(&user) {
            self.phase.longest_wait = self.phase.longest_wait.max(self.now - since);
        }
    }

    fn any_node(&self, luck: u64) -> Option<&Node> {
        let first = usize::try_from(luck % u64::try_from(self.nodes.len()).ok()?).ok()?;
        let (before, after) = self.nodes.split_at(first);
        after.iter().chain(before).flatten().find(|node| !node.draining)
    }

    fn swap(&mut self, user: usize, from: &LeaseName, to: &LeaseName) -> Swapped {
        self.phase.lease_requests += 1;
        let name = &mut self.leases[user].name;
        if name.as_ref() != Some(from) {
            return Swapped::Lost;
        }
        *name = Some(to.clone());
        Swapped::Won
    }

    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Phase {
    fn begin(name: &'static str) -> Phase {
        Phase {
            name,
            beats: 0,
            node_beats: 0,
            logins: 0,
            beat_requests: 0,
            lease_requests: 0,
            peak: 0,
            moved: 0,
            fenced: 0,
            spread: (0, 0),
            longest_wait: 0,
        }
    }
    pub fn requests(&self) -> u64 {
        self.beat_requests + self.lease_requests
    }
}
