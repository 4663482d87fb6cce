//! The rules, model-checked: every order of what two or three nodes may do and what may go wrong between them, up to a bound.
//!
//! The model runs the functions that [`crate::keeper`] runs (`protocol`, `swap`, `names`, [`crate::Lease::ensure_live`]) over a server in memory.
//! A tick is one beat; within a tick everything happens in every order. What may go wrong is a number per kind ([`Faults`]) and each test's
//! bound; requests that ended in an error or whose process died land at any later time, or never.
//!
//! - no two nodes acknowledge, whoever acknowledges holds the lease: at no moment, in no epoch, also not after the lease moved
//! - what was acknowledged is seen: a change that was acknowledged is in the index folder of whoever may acknowledge next
//! - `epochs_only_rise`, a node that moved on is not fenced, no late write reaches a live folder, nobody gives up unfenced
//! - an outage moves nobody: where only the server was away, nobody is fenced
//! - users are served in the end: some ticks after the last fault, every user has a holder that may acknowledge
//!
//! Each rule is taken away once ([`Rule`], which only the model knows) and must be missed: ARCHITECTURE.md has the table. What the model can't
//! reach (delays within a beat, four nodes, long histories) is drawn at random in `simulation.rs`.

mod drive;
mod state;

use stateright::{Checker, HasDiscoveries, Property};

use crate::{
    Epoch, Timings, UserName,
    faulty::MemoryNames,
    names::{FENCED, LeaseName, NodeFile, lease_folder},
    root::FOLDERS,
};
use state::{Faults, Held, Node, Pending, Reply, Request, State, Store, Thread, Writing, Wrong};

/// More states than any test has: one that grew would take minutes.
const STATES_MAX: usize = 80_000;

/// A rule that can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    FencesNameTheBeat,
    SelfLimitBelowDeadAfter,
    MarginForClockRates,
    BeatCountsFromFirstTry,
    NodesListedAfterTheLease,
    AbsenceSeenMoreThanOnce,
    UnknownLeasesAreTakenAnew,
    LostSwapsAreConfirmed,
    OutagesCountAgainstNobody,
    OutagesDoublePatience,
    SuspectsAreFenced,
    AcknowledgeOnlyWhileValid,
    UncleanTakeoversCopy,
    ReleaseOnlyWhenClosed,
    ResigningEndsTheTenureFirst,
}

/// One bounded world.
#[derive(Debug, Clone)]
struct Model {
    without: Option<Rule>,
    timings: Timings,
    /// By node: milliseconds that its clock runs in one tick.
    tick_millis: Vec<u64>,
    users: Vec<UserName>,
    /// Which node wants which user's lease; the first has it at the start.
    wants: Vec<(usize, usize)>,
    faults: Faults,
    /// Nothing goes wrong from this tick on.
    calm_from: u64,
    /// The last tick.
    end: u64,
    /// How many ticks may pass between the first node that finds the server again and the last, after a long outage.
    skew: u64,
    /// Whoever crashed never comes back.
    dead_stay_dead: bool,
}

/// How a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Well,
    Resent,
    ErrorDone,
    ErrorLate,
    /// A rename of that node runs through the listing.
    HiddenBy(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Tick,
    Go(usize, Thread, How),
    Send(usize, Thread),
    Land(usize, Thread),
    Hear(usize, Thread),
    LandLate(usize),
    Want(usize, usize),
    GiveBack(usize, usize),
    Write(usize, usize),
    WriteLands(usize, usize),
    Acknowledge(usize, usize),
    Crash(usize),
    Start(usize),
    Resign(usize),
    Pause(usize),
    Wake(usize),
    GoLast(usize),
    Outage,
    Reconnect(usize),
}

fn user_name(number: usize) -> UserName {
    UserName::normalise(["ada", "bob"][number]).expect("a name")
}

impl Model {
    /// Two nodes, one user whom the second holds and the first wants.
    fn new(faults: Faults) -> Model {
        Model {
            without: None,
            timings: drive::timings(None),
            tick_millis: vec![1000, 1000],
            users: vec![user_name(0)],
            wants: vec![(1, 0), (0, 0)],
            faults,
            calm_from: 9,
            end: 9,
            skew: 0,
            dead_stay_dead: false,
        }
    }
    fn without(mut self, rule: Rule) -> Model {
        self.timings = drive::timings(Some(rule));
        self.without = Some(rule);
        self
    }
    /// One node more, which wants the user as well.
    fn with_a_third_node(mut self) -> Model {
        self.tick_millis.push(1000);
        self.wants.push((2, 0));
        self
    }
    /// One user more, whom both nodes want.
    fn with_a_second_user(mut self) -> Model {
        self.users.push(user_name(1));
        self.wants.extend([(0, 1), (1, 1)]);
        self
    }
    fn lasting(self, ticks: u64) -> Model {
        Model { calm_from: ticks, end: ticks, ..self }
    }
    fn then_calm_for(self, ticks: u64) -> Model {
        Model { end: self.calm_from + ticks, ..self }
    }
    /// The holder's clock is slow, the other's fast: apart by a fifth, within the margin that `Timings::check` keeps.
    fn with_unequal_clocks(mut self) -> Model {
        self.tick_millis = vec![1100, 900];
        self
    }

    /// Whose turn it is: within a tick the nodes act one after the other, each thread of a node after the other, but for what a fault changes.
    fn turn(&self, state: &State) -> Option<Action> {
        let first = state.goes_last.map_or(0, |last| last + 1);
        let nodes = state.nodes.len();
        (first..first + nodes).map(|number| number % nodes).find_map(|number| {
            let node = &state.nodes[number];
            let process = node.acts()?;
            process.threads().find_map(|thread| match process.pending.get(&thread) {
                Some(Pending::Sent { slow: false, .. }) if !node.away => Some(Action::Land(number, thread)),
                Some(Pending::Answered { slow: false, .. }) => Some(Action::Hear(number, thread)),
                Some(_) => None,
                None if process.wants(thread).is_some() && node.away => Some(Action::Send(number, thread)),
                None if process.wants(thread).is_some() => Some(Action::Go(number, thread, How::Well)),
                None => self.wish(state, number, thread),
            })
        })
    }

    /// Asks for a lease, once in a tick.
    fn wish(&self, state: &State, node: usize, thread: Thread) -> Option<Action> {
        let Thread::Job(user) = thread else { return None };
        let process = state.nodes[node].process.as_ref()?;
        let mine = &process.users[user];
        let is_up = !state.nodes[node].away && state.local(self, node) < process.valid_until;
        let is_idle = mine.job.is_none() && mine.held.is_none() && !mine.asked;
        (is_up && is_idle && self.wants.contains(&(node, user))).then_some(Action::Want(node, user))
    }

    /// What may go wrong with whose turn it is.
    fn mishaps(&self, state: &State, turn: Action, actions: &mut Vec<Action>) {
        let left = state.left;
        let (Action::Go(node, thread, _) | Action::Land(node, thread) | Action::Hear(node, thread) | Action::Send(node, thread)) = turn
        else {
            return;
        };
        if left.pauses > 0 {
            actions.push(Action::Pause(node));
        }
        if left.delays > 0 && state.goes_last.is_none() && thread == Thread::Beat {
            actions.push(Action::GoLast(node));
        }
        let Action::Go(..) = turn else { return };
        let Some(request) = state.nodes[node].process.as_ref().and_then(|process| process.wants(thread)) else { return };
        let is_swap = matches!(request, Request::Swap(..));
        if left.slow > 0 {
            actions.push(Action::Send(node, thread));
        }
        if left.errors > 0 {
            actions.push(Action::Go(node, thread, How::ErrorLate));
            if is_swap {
                actions.push(Action::Go(node, thread, How::ErrorDone));
            }
        }
        if left.resent > 0 && is_swap {
            actions.push(Action::Go(node, thread, How::Resent));
        }
        let hider = match request {
            Request::ListNodes => Thread::Beat,
            Request::ListLease(user) => Thread::Job(user),
            _ => return,
        };
        for (other, beside) in state.nodes.iter().enumerate().filter(|(other, beside)| *other != node && !beside.away) {
            if left.hidden > 0 && matches!(beside.acts().and_then(|process| process.wants(hider)), Some(Request::Swap(..))) {
                actions.push(Action::Go(node, thread, How::HiddenBy(other)));
            }
        }
    }

    /// What happens when nobody has anything to do before the next tick.
    fn between(&self, state: &State, actions: &mut Vec<Action>) {
        let left = state.left;
        for (number, node) in state.nodes.iter().enumerate() {
            if node.away {
                actions.push(Action::Reconnect(number));
            }
            let Some(process) = &node.process else {
                if !self.dead_stay_dead {
                    actions.push(Action::Start(number));
                }
                continue;
            };
            if node.paused {
                actions.push(Action::Wake(number));
            } else if left.crashes > 0 {
                actions.push(Action::Crash(number));
            }
            if left.resigns > 0 && !node.paused && !node.away {
                actions.push(Action::Resign(number));
            }
            for (thread, pending) in &process.pending {
                match pending {
                    Pending::Sent { slow: true, .. } if !node.away => actions.push(Action::Land(number, *thread)),
                    Pending::Answered { slow: true, .. } if !node.paused => actions.push(Action::Hear(number, *thread)),
                    _ => {}
                }
            }
            for user in 0..process.users.len() {
                self.work(state, number, user, actions);
            }
        }
        if left.outages > 0 && state.nodes.iter().all(|node| !node.away) {
            actions.push(Action::Outage);
        }
        actions.extend((0..state.late.len()).map(Action::LandLate));
    }

    fn work(&self, state: &State, number: usize, user: usize, actions: &mut Vec<Action>) {
        let node = &state.nodes[number];
        let Some(process) = &node.process else { return };
        let Some(held) = &process.users[user].held else { return };
        if let (Some(writing), Some(_)) = (held.writing, held.folder) {
            match writing.durable {
                false if !node.away => actions.push(Action::WriteLands(number, user)),
                true if !node.paused => actions.push(Action::Acknowledge(number, user)),
                _ => {}
            }
        }
        if node.paused || node.away || state.local(self, number) >= process.valid_until {
            return;
        }
        let is_closed = held.writing.is_none() || self.without == Some(Rule::ReleaseOnlyWhenClosed);
        if state.left.releases > 0 && is_closed {
            actions.push(Action::GiveBack(number, user));
        }
        if state.left.writes > 0 && held.writing.is_none() {
            actions.push(Action::Write(number, user));
        }
    }

    fn happen(&self, state: &mut State, action: Action) {
        match action {
            Action::Tick => self.tick(state),
            Action::Go(node, thread, how) => {
                match how {
                    How::Well => {}
                    How::Resent => state.left.resent -= 1,
                    How::ErrorDone | How::ErrorLate => state.left.errors -= 1,
                    How::HiddenBy(_) => state.left.hidden -= 1,
                }
                state.go(self, node, thread, how);
            }
            Action::Send(node, thread) => {
                let slow = !state.nodes[node].away;
                if slow {
                    state.left.slow -= 1;
                }
                if let Some((began, request)) = state.begin(self, node, thread)
                    && let Some(process) = &mut state.nodes[node].process
                {
                    process.pending.insert(thread, Pending::Sent { began, request, slow });
                }
            }
            Action::Land(node, thread) => self.land(state, node, thread),
            Action::Hear(node, thread) => {
                let heard = state.nodes[node].process.as_mut().and_then(|process| process.pending.remove(&thread));
                if let Some(Pending::Answered { began, reply, .. }) = heard {
                    state.handle(self, node, thread, began, reply);
                }
            }
            Action::LandLate(number) => {
                let request = state.late.remove(number);
                match request {
                    Request::Write { user, folder, change } => state.write_lands(self, user, folder, change, None),
                    request => drop(state.perform(self, &request, How::Well)),
                }
            }
            Action::Want(node, user) => state.acquire(node, user),
            Action::GiveBack(node, user) => {
                state.left.releases -= 1;
                state.release(node, user);
            }
            Action::Write(node, user) => self.write(state, node, user),
            Action::WriteLands(node, user) => {
                if let Some(held) = held_mut(state, node, user)
                    && let (Some(folder), Some(writing)) = (held.folder, &mut held.writing)
                {
                    writing.durable = true;
                    let change = writing.change;
                    state.write_lands(self, user, folder, change, Some(node));
                }
            }
            Action::Acknowledge(node, user) => {
                let is_live = state.may_acknowledge(self, node, user);
                if let Some(writing) = held_mut(state, node, user).and_then(|held| held.writing.take())
                    && is_live
                {
                    state.stores[user].acknowledged.insert(writing.change);
                }
            }
            Action::Crash(node) => {
                state.left.crashes -= 1;
                state.end(node);
            }
            Action::Start(node) => state.join(self, node),
            Action::Resign(node) => {
                state.left.resigns -= 1;
                state.resign(self, node);
            }
            Action::Pause(node) => {
                state.left.pauses -= 1;
                state.nodes[node].paused = true;
            }
            Action::GoLast(node) => {
                state.left.delays -= 1;
                state.goes_last = Some(node);
            }
            Action::Wake(node) => state.nodes[node].paused = false,
            Action::Outage => {
                state.left.outages -= 1;
                (state.away_since, state.back_by) = (state.tick, None);
                state.nodes.iter_mut().for_each(|node| node.away = true);
            }
            Action::Reconnect(node) => {
                state.nodes[node].away = false;
                // Clients try again at growing intervals: the longer they tried in vain, the later they notice.
                let late = self.skew.min(2 * (state.tick - state.away_since));
                state.back_by.get_or_insert(state.tick + late);
            }
        }
    }

    fn land(&self, state: &mut State, node: usize, thread: Thread) {
        let Some(sent) = state.nodes[node].process.as_mut().and_then(|process| process.pending.remove(&thread)) else { return };
        let Pending::Sent { began, request, slow } = sent else { return };
        let reply: Reply = state.perform(self, &request, How::Well);
        if slow {
            if let Some(process) = &mut state.nodes[node].process {
                process.pending.insert(thread, Pending::Answered { began, reply, slow });
            }
        } else {
            state.handle(self, node, thread, began, reply);
        }
    }

    fn write(&self, state: &mut State, node: usize, user: usize) {
        if held_mut(state, node, user).is_some_and(|held| held.folder.is_none()) {
            state.open(self, node, user);
        }
        let change = self.faults.writes - state.left.writes;
        state.left.writes -= 1;
        if let Some(held) = held_mut(state, node, user).filter(|held| held.folder.is_some()) {
            held.writing = Some(Writing { change, durable: false });
        }
    }

    fn tick(&self, state: &mut State) {
        state.tick += 1;
        state.goes_last = None;
        for process in state.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            process.beat_done = process.pending.contains_key(&Thread::Beat);
            process.watch_done = process.pending.contains_key(&Thread::Watch);
            process.users.iter_mut().for_each(|mine| mine.asked = false);
        }
    }

    /// Checks; says what was violated, and how.
    fn check(self) -> Result<usize, String> {
        let checker = stateright::Model::checker(self)
            .threads(1)
            .finish_when(HasDiscoveries::AnyFailures)
            .target_state_count(STATES_MAX)
            .spawn_bfs()
            .join();
        let states = checker.unique_state_count();
        match checker.discoveries().into_iter().next() {
            None if states >= STATES_MAX => Err(format!("more than {STATES_MAX} states: nothing is proven")),
            None => Ok(states),
            Some((property, path)) => {
                let steps: Vec<String> = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
                Err(format!("{property} ({states} states): {}", steps.join(", ")))
            }
        }
    }
}

fn held_mut(state: &mut State, node: usize, user: usize) -> Option<&mut Held> {
    state.nodes[node].process.as_mut()?.users[user].held.as_mut()
}

impl stateright::Model for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut server = MemoryNames::default();
        for folder in FOLDERS {
            server.create(folder, None).expect("new");
        }
        let nobody = Node { starts: 0, paused: false, away: false, process: None };
        let mut state = State {
            tick: 0,
            goes_last: None,
            server,
            stores: vec![Store::default(); self.users.len()],
            nodes: vec![nobody; self.tick_millis.len()],
            late: Vec::new(),
            left: self.faults,
            away_since: 0,
            back_by: None,
            highest: vec![Epoch::ZERO; self.users.len()],
            wrong: None,
        };
        for node in 0..state.nodes.len() {
            state.join(self, node);
        }
        for node in 0..state.nodes.len() {
            state.go(self, node, Thread::Watch, How::Well);
        }
        let (node, user) = self.wants[0];
        state.acquire(node, user);
        while state.nodes[node].process.as_ref().is_some_and(|process| process.users[user].job.is_some()) {
            state.go(self, node, Thread::Job(user), How::Well);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong.is_some() {
            return;
        }
        let is_calm = state.tick >= self.calm_from;
        if let Some(turn) = self.turn(state) {
            actions.push(turn);
            if !is_calm {
                self.mishaps(state, turn, actions);
            }
            return;
        }
        let tick = (state.tick < self.end).then_some(Action::Tick);
        if is_calm {
            // All is mended, in a fixed order, and nothing more goes wrong.
            let mended = State { left: Faults::default(), late: Vec::new(), ..state.clone() };
            self.between(&mended, actions);
            actions.truncate(1);
            if actions.is_empty() {
                actions.extend(tick);
            }
            return;
        }
        self.between(state, actions);
        let waits = state.nodes.iter().any(|node| node.away) && state.back_by.is_some_and(|by| state.tick >= by);
        actions.extend(tick.filter(|_| !waits));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.happen(&mut next, action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Model>> {
        vec![
            Property::always("no_two_nodes_acknowledge", |model: &Model, state: &State| {
                (0..model.users.len()).all(|user| state.live(model, user).count() <= 1)
            }),
            Property::always("whoever_acknowledges_holds_the_lease", |model: &Model, state: &State| {
                model.users.iter().enumerate().all(|(user, name)| {
                    let names = state.names::<LeaseName>(&lease_folder(name));
                    state
                        .live(model, user)
                        .all(|(_, me, held)| names.len() == 1 && names[0] == LeaseName { epoch: held.epoch, holder: Some(me.clone()) })
                })
            }),
            Property::always("what_was_acknowledged_is_seen", |model: &Model, state: &State| {
                (0..model.users.len()).all(|user| {
                    let store = &state.stores[user];
                    state
                        .live(model, user)
                        .filter_map(|(_, _, held)| held.folder)
                        .all(|folder| store.folders.get(&folder).is_some_and(|changes| changes.is_superset(&store.acknowledged)))
                })
            }),
            Property::always("epochs_only_rise", |_, state: &State| state.wrong != Some(Wrong::EpochFell)),
            Property::always("a_node_that_moved_on_is_not_fenced", |_, state: &State| state.wrong != Some(Wrong::FencedThoughItMovedOn)),
            Property::always("no_late_write_reaches_a_live_folder", |_, state: &State| state.wrong != Some(Wrong::LateWriteInALiveFolder)),
            Property::always("nobody_gives_up_unfenced", |_, state: &State| state.wrong != Some(Wrong::GaveUpThoughNobodyFencedIt)),
            Property::always("an_outage_moves_nobody", |model: &Model, state: &State| {
                let only_outages = model.faults == Faults { outages: model.faults.outages, ..Faults::default() };
                !only_outages || state.names::<NodeFile>(FENCED).is_empty()
            }),
            Property::always("users_are_served_in_the_end", |model: &Model, state: &State| {
                model.end == model.calm_from
                    || state.tick < model.end
                    || (0..model.users.len()).all(|user| state.live(model, user).count() == 1)
            }),
        ]
    }
}

#[cfg(test)]
mod tests;
