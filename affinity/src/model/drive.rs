//! What a node does, by the rules that [`crate::keeper`] drives too: `protocol`, `swap`, `names`. Nothing is decided here.

use std::time::Duration;

use super::{
    How, Model, Rule,
    state::{Held, Job, Pending, Process, Reply, Request, State, Thread, Wrong, holder},
};
use crate::{
    Epoch, Handover, Timings,
    faulty::{Fault, FaultyDirectory},
    names::{FENCED, LeaseName, NODES, NodeFile, lease_bucket, lease_folder, sort_out},
    protocol::{
        Acquire, Answer, Attempt, BeatOutcome, Release, ReleaseStep, ReleaseVerdict, Roll, Sighting, Verdict, acquire::Step,
        roll::LISTINGS_MAX, watch::Observed,
    },
    swap::{SharedDirectory, Swapped, swap},
};

pub(super) fn job_wants(job: &Job, user: usize) -> Option<Request> {
    // Only the model's users: their lease folders are known by number.
    let swap = |from: &LeaseName, to: &LeaseName| {
        let user = super::user_name(user);
        Some(Request::Swap(from.in_folder_of(&user), to.in_folder_of(&user)))
    };
    match job {
        Job::Acquire(acquire) => match acquire.step() {
            Step::ListLease => Some(Request::ListLease(user)),
            Step::Prepare => Some(Request::Prepare(user)),
            Step::ListNodes => Some(Request::ListNodes),
            Step::Swap { from, to } => swap(from, to),
            Step::Done(_) => None,
        },
        Job::Release(release) => match release.step() {
            ReleaseStep::ListLease => Some(Request::ListLease(user)),
            ReleaseStep::Swap { from, to } => swap(from, to),
            ReleaseStep::Done(_) => None,
        },
    }
}

impl State {
    fn process(&mut self, node: usize) -> &mut Process {
        self.nodes[node].process.as_mut().expect("only running nodes act")
    }

    /// A request begins: what it is, and when that was by the node's clock.
    pub(super) fn begin(&mut self, model: &Model, node: usize, thread: Thread) -> Option<(Duration, Request)> {
        let now = self.local(model, node);
        let process = self.process(node);
        let request = process.wants(thread)?;
        if thread == Thread::Beat {
            if model.without == Some(Rule::BeatCountsFromFirstTry) {
                process.beat.first_try = None;
            }
            process.beat.attempt(now);
        }
        Some((now, request))
    }

    /// A request, its effect and its reply, at once.
    pub(super) fn go(&mut self, model: &Model, node: usize, thread: Thread, how: How) {
        let Some((began, request)) = self.begin(model, node, thread) else { return };
        let mut reply = self.perform(model, &request, how);
        if let How::HiddenBy(other) = how {
            reply = self.hidden(model, &request, reply, other);
        }
        self.handle(model, node, thread, began, reply);
    }

    /// A rename of `other` ran through the listing, which shows neither of its names.
    fn hidden(&mut self, model: &Model, request: &Request, reply: Reply, other: usize) -> Reply {
        let thread = match request {
            Request::ListLease(user) => Thread::Job(*user),
            _ => Thread::Beat,
        };
        let Some(Request::Swap(old, _)) = self.nodes[other].process.as_ref().and_then(|process| process.wants(thread)) else {
            return reply;
        };
        self.go(model, other, thread, How::Well);
        let Reply::Names(Some(names)) = reply else { return reply };
        let hidden = old.rsplit_once('/').map_or("", |(_, name)| name);
        Reply::Names(Some(names.into_iter().filter(|name| name != hidden).collect()))
    }

    /// The server does it.
    pub(super) fn perform(&mut self, model: &Model, request: &Request, how: How) -> Reply {
        let fault = match how {
            How::Well | How::HiddenBy(_) => None,
            How::Resent => Some(Fault::Resent),
            How::ErrorDone => Some(Fault::ErrorAfter),
            How::ErrorLate => Some(Fault::ErrorBefore),
        };
        if how == How::ErrorLate && matches!(request, Request::Swap(..) | Request::Fence(_)) {
            self.late.push(request.clone());
            self.late.sort();
        }
        let directory = FaultyDirectory::over(std::mem::take(&mut self.server));
        if let Some(fault) = fault {
            directory.next_rename(fault);
        }
        let is_error = matches!(how, How::ErrorDone | How::ErrorLate);
        let reply = match request {
            Request::ListNodes | Request::ListLease(_) | Request::Prepare(_) if is_error => Reply::Error,
            Request::ListNodes => Reply::Names(directory.list(NODES).ok()),
            Request::ListLease(user) => Reply::Names(directory.list(&lease_folder(&model.users[*user])).ok()),
            Request::Prepare(user) => {
                let user = &model.users[*user];
                directory.create_folder(&lease_bucket(user)).ok();
                if directory.create_folder(&lease_folder(user)).is_ok() {
                    directory.create(&LeaseName::FIRST.in_folder_of(user)).expect("a new folder");
                }
                Reply::Done
            }
            Request::Swap(old, new) if model.without == Some(Rule::LostSwapsAreConfirmed) => {
                let swapped = if directory.rename(old, new).is_ok() { Swapped::Won } else { Swapped::Lost };
                Reply::Swapped(Answer::Swapped(swapped))
            }
            Request::Swap(old, new) => Reply::Swapped(swap(&directory, old, new).map_or(Answer::Unknown, Answer::Swapped)),
            Request::Fence(file) => {
                let there = sort_out::<NodeFile>(&directory.list(NODES).unwrap_or_default()).0;
                let newest = there.into_iter().filter(|other| other.holder == file.holder).max().unwrap_or_else(|| file.clone());
                let named = if model.without == Some(Rule::FencesNameTheBeat) { &newest } else { file };
                let done = directory.rename(&named.in_nodes(), &named.in_fenced()).is_ok();
                if done && newest.beat > file.beat {
                    self.wrong = Some(Wrong::FencedThoughItMovedOn);
                }
                Reply::Done
            }
            Request::Write { user, folder, change } => {
                self.stores[*user].folders.entry(*folder).or_default().insert(*change);
                Reply::Done
            }
        };
        self.server = directory.take_names();
        self.look_at_epochs(model);
        reply
    }

    fn look_at_epochs(&mut self, model: &Model) {
        for (user, name) in model.users.iter().enumerate() {
            let Some(epoch) = self.names::<LeaseName>(&lease_folder(name)).iter().map(|name| name.epoch).max() else { continue };
            if epoch < self.highest[user] {
                self.wrong = Some(Wrong::EpochFell);
            }
            self.highest[user] = epoch.max(self.highest[user]);
        }
    }

    /// The node hears of it.
    pub(super) fn handle(&mut self, model: &Model, node: usize, thread: Thread, began: Duration, reply: Reply) {
        let ended = self.local(model, node);
        match thread {
            Thread::Beat => self.beaten(model, node, &reply),
            Thread::Watch => self.watched(model, node, began, ended, reply),
            Thread::Job(user) => self.job_answered(model, node, user, began, ended, reply),
        }
    }

    fn beaten(&mut self, model: &Model, node: usize, reply: &Reply) {
        let process = self.process(node);
        process.beat_done = true;
        let Reply::Swapped(answer) = *reply else { return };
        match process.beat.answered(answer, model.timings.self_limit()) {
            BeatOutcome::ValidUntil(until) => process.valid_until = process.valid_until.max(until),
            BeatOutcome::TryAgain => {}
            BeatOutcome::Fenced => {
                let me = process.me.clone();
                if !self.names::<NodeFile>(FENCED).iter().any(|file| file.holder == me) {
                    self.wrong = Some(Wrong::GaveUpThoughNobodyFencedIt);
                }
                self.end(node);
                self.join(model, node);
            }
        }
    }

    fn watched(&mut self, model: &Model, node: usize, began: Duration, ended: Duration, reply: Reply) {
        let tick = model.timings.beat();
        let remember = model.without == Some(Rule::NodesListedAfterTheLease);
        let process = self.process(node);
        if !process.fencing.is_empty() {
            process.fencing.remove(0);
            // Whoever waits for a lease hears of it.
            process.users.iter_mut().for_each(|mine| mine.asked = false);
            return;
        }
        let Reply::Names(Some(names)) = reply else {
            process.watch.failed();
            (process.roll, process.watch_done) = (None, true);
            return;
        };
        let files = sort_out::<NodeFile>(&names).0;
        let roll = add(&mut process.roll, began, ended, &files).clone();
        if remember {
            process.old_nodes.clone_from(&files);
        }
        if process.watch.misses_somebody(&roll) && !roll.is_proof(tick) && !roll.is_long() {
            return;
        }
        (process.roll, process.watch_done) = (None, true);
        let before = process.watch.clone();
        let sightings = process.watch.listed(&roll, &model.timings);
        let gap = before.last_ended.map_or(Duration::ZERO, |ended| roll.began.saturating_sub(ended));
        for (holder, observed) in &mut process.watch.observed {
            match (model.without, before.observed.get(holder)) {
                (Some(Rule::OutagesDoublePatience), _) => observed.patience = model.timings.dead_after(),
                (Some(Rule::OutagesCountAgainstNobody), Some(was)) if was.beat == observed.beat => {
                    *observed = Observed { unchanged_for: was.unchanged_for + gap, ..*was };
                }
                _ => {}
            }
        }
        for sighting in sightings {
            if let Sighting::Suspect(file) = sighting
                && model.without != Some(Rule::SuspectsAreFenced)
            {
                process.fencing.push(file);
            }
        }
    }

    fn job_answered(&mut self, model: &Model, node: usize, user: usize, began: Duration, ended: Duration, reply: Reply) {
        let without = model.without;
        let process = self.process(node);
        let suspects = process.watch.suspects();
        let mine = &mut process.users[user];
        let Some(job) = &mut mine.job else { return };
        let answered = match (job, reply) {
            (Job::Acquire(acquire), Reply::Names(names)) if *acquire.step() == Step::ListLease => {
                let names = names.map(|names| sort_out::<LeaseName>(&names).0);
                if without == Some(Rule::UnknownLeasesAreTakenAnew)
                    && let Some(Attempt::Release(_)) = acquire.attempt()
                    && let Some(ours) = names.iter().flatten().find(|name| name.holder.as_ref() == Some(&process.me))
                {
                    *acquire = Acquire::new(process.me.clone(), Some(Attempt::Take(ours.clone(), Handover::Clean)));
                }
                acquire.lease_listed(names.as_deref());
                true
            }
            (Job::Acquire(acquire), Reply::Names(Some(names))) => {
                let mut files = sort_out::<NodeFile>(&names).0;
                if without == Some(Rule::NodesListedAfterTheLease) {
                    files.clone_from(&process.old_nodes);
                }
                let times = if without == Some(Rule::AbsenceSeenMoreThanOnce) { LISTINGS_MAX } else { 1 };
                for _ in 0..times {
                    if *acquire.step() == Step::ListNodes {
                        acquire.nodes_listed(began, ended, &files, &suspects, model.timings.beat());
                    }
                }
                true
            }
            (Job::Acquire(acquire), Reply::Done) => {
                acquire.prepared();
                true
            }
            (Job::Acquire(acquire), Reply::Swapped(answer)) => {
                acquire.swapped(answer);
                true
            }
            (Job::Release(release), Reply::Swapped(answer)) => {
                release.swapped(answer);
                true
            }
            (Job::Release(release), Reply::Names(names)) => {
                release.lease_listed(&sort_out::<LeaseName>(&names.unwrap_or_default()).0);
                true
            }
            (_, Reply::Error | Reply::Done | Reply::Names(None)) => false,
        };
        self.job_done(model, node, user, answered);
    }

    /// Takes note of what became of a job that is done, or that an error ended.
    fn job_done(&mut self, model: &Model, node: usize, user: usize, answered: bool) {
        let mine = &mut self.process(node).users[user];
        match &mine.job {
            Some(Job::Acquire(acquire)) => {
                let verdict = match acquire.step() {
                    Step::Done(verdict) => Some(verdict.clone()),
                    _ if answered => return,
                    _ => None,
                };
                mine.attempt = acquire.attempt().cloned();
                mine.job = None;
                if let Some(Verdict::Mine(epoch, handover)) = verdict {
                    mine.held = Some(Held { epoch, handover, folder: None, writing: None });
                    self.open(model, node, user);
                }
            }
            Some(Job::Release(release)) => {
                match release.step() {
                    ReleaseStep::Done(ReleaseVerdict::Gone) => mine.attempt = None,
                    ReleaseStep::Done(ReleaseVerdict::Unknown) => {}
                    _ if answered => return,
                    _ => {}
                }
                mine.job = None;
            }
            None => {}
        }
    }

    /// Opens the account as storage does: in the old folder after a clean handover, in a copy after an unclean one.
    pub(super) fn open(&mut self, model: &Model, node: usize, user: usize) {
        if !self.may_acknowledge(model, node, user) {
            return;
        }
        let process = self.nodes[node].process.as_mut().expect("it acts");
        let Some(held) = &mut process.users[user].held else { return };
        let folders = &mut self.stores[user].folders;
        let newest = folders.last_key_value().map(|(epoch, changes)| (*epoch, changes.clone()));
        let goes_on = held.handover == Handover::Clean || model.without == Some(Rule::UncleanTakeoversCopy);
        held.folder = match newest {
            Some((epoch, _)) if goes_on => Some(epoch),
            newest => {
                folders.insert(held.epoch, newest.map(|(_, changes)| changes).unwrap_or_default());
                Some(held.epoch)
            }
        };
    }

    /// A change reaches the index folder.
    pub(super) fn write_lands(&mut self, model: &Model, user: usize, folder: Epoch, change: u8, writer: Option<usize>) {
        let strangers = self.live(model, user).any(|(node, _, held)| Some(node) != writer && held.folder == Some(folder));
        if strangers {
            self.wrong = Some(Wrong::LateWriteInALiveFolder);
        }
        self.perform(model, &Request::Write { user, folder, change }, How::Well);
    }

    pub(super) fn acquire(&mut self, node: usize, user: usize) {
        let process = self.process(node);
        let mine = &mut process.users[user];
        mine.asked = true;
        mine.job = Some(Job::Acquire(Acquire::new(process.me.clone(), mine.attempt.clone())));
    }

    pub(super) fn release(&mut self, node: usize, user: usize) {
        let process = self.process(node);
        let mine = &mut process.users[user];
        let Some(held) = mine.held.take() else { return };
        let left_open = held.writing.filter(|writing| !writing.durable).zip(held.folder);
        mine.attempt = Some(Attempt::Release(held.epoch));
        mine.job = Some(Job::Release(Release::new(process.me.clone(), held.epoch)));
        if let Some((writing, folder)) = left_open {
            self.late.push(Request::Write { user, folder, change: writing.change });
            self.late.sort();
        }
    }

    /// The process is gone; what it had under way may still land.
    pub(super) fn end(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.take() else { return };
        self.nodes[node].paused = false;
        for pending in process.pending.into_values() {
            if let Pending::Sent { request: request @ (Request::Swap(..) | Request::Fence(_)), .. } = pending {
                self.late.push(request);
            }
        }
        for (user, mine) in process.users.into_iter().enumerate() {
            if let Some(Held { folder: Some(folder), writing: Some(writing), .. }) = mine.held
                && !writing.durable
            {
                self.late.push(Request::Write { user, folder, change: writing.change });
            }
        }
        self.late.sort();
    }

    /// As `keeper::threads` does: the tenure ends, then the node file is moved away. The node starts anew some time later.
    pub(super) fn resign(&mut self, model: &Model, node: usize) {
        let file = self.process(node).beat.current();
        if model.without != Some(Rule::ResigningEndsTheTenureFirst) {
            self.end(node);
        }
        self.perform(model, &Request::Swap(file.in_nodes(), file.in_fenced()), How::Well);
    }

    /// As `keeper::join` on one host: older incarnations of the node are moved away, then it is there.
    pub(super) fn join(&mut self, model: &Model, node: usize) {
        let start = self.nodes[node].starts + 1;
        let me = holder(node, start);
        self.nodes[node].starts = start;
        for older in self.names::<NodeFile>(NODES).into_iter().filter(|file| file.holder.node == me.node) {
            self.perform(model, &Request::Swap(older.in_nodes(), older.in_fenced()), How::Well);
        }
        let process = Process::new(me, model.users.len());
        self.server.create(&process.beat.current().in_nodes(), Some(Vec::new())).expect("nodes/ is there, and the name is new");
        self.nodes[node].process = Some(process);
        self.go(model, node, Thread::Beat, How::Well);
    }
}

fn add<'a>(roll: &'a mut Option<Roll>, began: Duration, ended: Duration, files: &[NodeFile]) -> &'a Roll {
    match roll {
        Some(roll) => {
            roll.add(began, ended, files);
            roll
        }
        none => none.insert(Roll::new(began, ended, files)),
    }
}

/// The timings that a model is checked under: as `berth.toml` would have them, scaled down.
pub(super) fn timings(without: Option<Rule>) -> Timings {
    let timings = Timings { beat_ms: 1_000, self_limit_ms: 3_000, dead_after_ms: 5_000 };
    timings.check().expect("sane");
    match without {
        Some(Rule::SelfLimitBelowDeadAfter) => Timings { self_limit_ms: timings.dead_after_ms + 1_000, ..timings },
        Some(Rule::MarginForClockRates) => Timings { self_limit_ms: timings.dead_after_ms, ..timings },
        _ => timings,
    }
}
