//! What keeps this node from serving: looked at in the background, shown by `berth nodes`, and said on the shared directory, so that nobody is
//! placed on a node that can serve nobody.
//!
//! - `trial.rs` and `mount.rs` say at a start what the mount is good for (`berth doctor` shows the same)
//! - `check.rs` looks at file systems and the clock, `evidence.rs` at the errors of the mail store, `fitness.rs` decides what follows
//!
//! A node that is unfit gives its users up as one that is drained, wherever another node takes them, once all had time to find out whether the trouble
//! is theirs as well. If it can't close their accounts, because its
//! mount is stale, say, it declares itself dead in the end ([`affinity::Keeper::resign`]): the others take over as from a crash.
//! An outage of the file server makes nobody unfit: everybody waits.

pub mod check;
mod evidence;
mod fitness;
pub mod mount;
pub mod trial;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use affinity::{Clock, NodeState, SystemClock, clock::wall_clock};
use parking_lot::Mutex;
use tokio::time::timeout;

pub use evidence::Evidence;
use fitness::Fitness;

use super::{Node, operate};
use crate::config::Config;

/// How often it is looked.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// The same while it is not clear whether the node can serve.
const LOOK_INTERVAL_UNDECIDED: Duration = Duration::from_secs(2);
/// How often it is tried to write where nothing hints at trouble: some requests each time.
const PROBE_INTERVAL: Duration = Duration::from_secs(600);
/// How long the file systems may take to answer a look.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long an unfit node tries to hand over users whose accounts it can't close.
const RESIGN_AFTER: Duration = Duration::from_secs(60);
/// Most users that are looked at to find one whom another node would take.
const USERS_LOOKED_AT: usize = 100;
/// Longest reason that is said on the shared directory: a name holds 255 bytes, and what is encoded grows.
const REASON_CHARS_MAX: usize = 60;

/// What the looks showed.
#[derive(Debug)]
pub struct Health {
    clock: SystemClock,
    evidence: Arc<Evidence>,
    state: Mutex<State>,
    /// A look is under way; one that hangs is enough.
    looking: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct State {
    trouble: Vec<Trouble>,
    fitness: Fitness,
    looked: bool,
    probed: Option<Duration>,
    /// Fewest users held since the node is unfit, and since when.
    held: Option<(usize, Duration)>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    what: String,
    /// Nobody can be served as they should.
    unfit: bool,
}

impl Default for Health {
    fn default() -> Health {
        Health { clock: SystemClock::new(), evidence: Arc::default(), state: Mutex::default(), looking: Arc::default() }
    }
}

impl Health {
    /// What keeps this node from serving, as of the last look ([`trouble`] has the rest).
    pub fn trouble(&self) -> Vec<String> {
        let state = self.state.lock();
        let mut said: Vec<String> = state.trouble.iter().map(|trouble| trouble.what.clone()).collect();
        if said.is_empty() && state.fitness.is_unfit() {
            said.push("all is well again, and has to stay so for a while before users are placed here".to_owned());
        }
        said
    }
    /// Whether users are to be served elsewhere.
    pub fn is_unfit(&self) -> bool {
        self.state.lock().fitness.is_unfit()
    }
    /// Whether the users that are here are to go elsewhere, where another node takes them.
    pub fn gives_users_up(&self) -> bool {
        self.state.lock().fitness.is_alone_with_it(self.clock.now())
    }
    /// Where errors of the store are told.
    pub fn evidence(&self) -> Arc<Evidence> {
        self.evidence.clone()
    }

    /// Takes what a look found; what is new is logged.
    fn found(&self, found: Vec<Trouble>) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        for trouble in found.iter().filter(|trouble| !state.trouble.contains(trouble)) {
            tracing::error!(what = trouble.what, "this node can't serve as it should");
        }
        let was_unfit = state.fitness.is_unfit();
        state.fitness.saw(now, found.iter().any(|trouble| trouble.unfit));
        match (was_unfit, state.fitness.is_unfit()) {
            (false, true) => {
                tracing::error!("this node takes no new users, and gives up those it has if another node goes on taking users")
            }
            (true, false) => {
                state.held = None;
                tracing::warn!("this node can serve again");
            }
            _ => {}
        }
        state.trouble = found;
    }

    /// Whether it is to be tried to write.
    fn probe_is_due(&self) -> bool {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let due = state.fitness.is_undecided() || state.probed.is_none_or(|probed| now.saturating_sub(probed) >= PROBE_INTERVAL);
        if due {
            state.probed = Some(now);
        }
        due
    }

    /// Whether an unfit node that holds `held` users gives up handing them over one by one.
    fn is_stuck(&self, now: Duration, held: usize) -> bool {
        let mut state = self.state.lock();
        if !state.fitness.is_unfit() || held == 0 {
            state.held = None;
            return false;
        }
        match state.held {
            Some((fewest, since)) if held >= fewest => now.saturating_sub(since) >= RESIGN_AFTER,
            _ => {
                state.held = Some((held, now));
                false
            }
        }
    }
}

/// Looks from time to time, and at once where an error hints at trouble, until it is dropped.
pub async fn follow(node: Arc<Node>) {
    loop {
        look(&node).await;
        say(&node).await;
        give_up_if_stuck(&node);
        let undecided = node.health.state.lock().fitness.is_undecided();
        let pause = if undecided { LOOK_INTERVAL_UNDECIDED } else { LOOK_INTERVAL };
        let hint = async {
            // Errors come in swarms: one look for all of them.
            tokio::time::sleep(LOOK_INTERVAL_UNDECIDED).await;
            node.health.evidence.is_worth_a_look().await;
            node.health.state.lock().probed = None;
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = hint => {}
        }
    }
}

/// What keeps `node` from serving at present: what the last look found, and what it knows at any moment.
pub fn trouble(node: &Node) -> Vec<String> {
    let at_once = match node.keeper.state() {
        NodeState::Up => None,
        NodeState::Suspended => Some("gives no sign of life at present: nothing is acknowledged"),
        NodeState::Out => Some("fenced, and joining again, or leaving"),
    };
    at_once.map(str::to_owned).into_iter().chain(node.health.trouble()).collect()
}

async fn look(node: &Arc<Node>) {
    let health = &node.health;
    if health.looking.swap(true, Ordering::SeqCst) {
        return health.found(vec![hanging()]);
    }
    let places = Places::of(&node.config(), node.keeper.state() == NodeState::Up);
    let (looking, probe) = (health.looking.clone(), health.probe_is_due());
    let found = tokio::task::spawn_blocking(move || {
        let found = places.check(probe);
        looking.store(false, Ordering::SeqCst);
        found
    });
    let mut found: Vec<Trouble> = match timeout(ANSWER_LIMIT, found).await {
        Ok(found) => found.unwrap_or_default().into_iter().map(|what| Trouble { what, unfit: true }).collect(),
        Err(_) => vec![hanging()],
    };
    found.extend(health.evidence.trouble().map(|what| Trouble { what, unfit: true }));
    let first = !std::mem::replace(&mut health.state.lock().looked, true);
    if first && node.keeper.settings(&node.keeper.me().node).trouble().is_some() {
        health.state.lock().fitness.was_unfit(health.clock.now());
    }
    health.found(found);
}

/// Everybody waits for a file server that is away, and moves nobody.
fn hanging() -> Trouble {
    let what = format!("the file systems do not answer within {}", humantime::format_duration(ANSWER_LIMIT));
    Trouble { what, unfit: false }
}

/// Says on the shared directory whether this node can serve, where that says something else.
async fn say(node: &Arc<Node>) {
    let unfit = node.health.is_unfit();
    let said = node.keeper.settings(&node.keeper.me().node).trouble().is_some();
    if unfit == said || node.keeper.state() != NodeState::Up {
        return;
    }
    let why = unfit.then(|| {
        let trouble = node.health.trouble().into_iter().next().unwrap_or_default();
        trouble.chars().take(REASON_CHARS_MAX).collect::<String>()
    });
    match timeout(ANSWER_LIMIT, node.keeper.say_trouble(why.as_deref())).await {
        Ok(Ok(())) => {
            operate::settings_everywhere(node).await;
        }
        // The next look tries again. Until then this node sends on whoever is placed here.
        Ok(Err(error)) => tracing::warn!(%error, "can't say on the shared directory how this node is"),
        Err(_) => tracing::warn!("can't say on the shared directory how this node is: it does not answer"),
    }
}

fn give_up_if_stuck(node: &Arc<Node>) {
    if !node.health.is_unfit() {
        return;
    }
    let held = node.keeper.held();
    let wanted = held.iter().take(USERS_LOOKED_AT).any(|(user, _)| node.accounts.placing.elsewhere(user).is_some());
    if node.health.is_stuck(node.health.clock.now(), if wanted { held.len() } else { 0 }) {
        tracing::error!(
            users = held.len(),
            "these users can't be handed over cleanly: this node declares itself dead, so that others take over"
        );
        node.keeper.resign();
    }
}

/// The file systems that a node needs.
struct Places {
    local: PathBuf,
    /// Where state, mail and indexes are, each place once.
    shared: Vec<(&'static str, PathBuf)>,
    /// Changed at every beat, so that its time is the file server's present one; `None`: this node does not beat.
    nodes: Option<PathBuf>,
    /// Written and removed.
    probe: String,
}

impl Places {
    fn of(config: &Config, beats: bool) -> Places {
        let root = &config.node.root;
        let mut shared: Vec<(&'static str, PathBuf)> = vec![("the shared directory", root.clone())];
        for (what, template) in [("the mail store", &config.mail.maildir), ("the place of indexes", &config.mail.index)] {
            let path = check::fixed_part(root, template);
            if !shared.iter().any(|(_, known)| *known == path) {
                shared.push((what, path));
            }
        }
        Places {
            local: config.node.local_dir.clone(),
            shared,
            nodes: beats.then(|| root.join(affinity::names::NODES)),
            probe: format!(".berth-probe-{}", config.node.name),
        }
    }

    fn check(&self, probe: bool) -> Vec<String> {
        let mut found = Vec::new();
        let local = ("node.local_dir", self.local.clone());
        for (what, path) in std::iter::once(&local).chain(&self.shared) {
            // A user's first mail makes what is missing.
            let place = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
            let troubles = check::space(what, place);
            if troubles.is_empty() && probe {
                found.extend(check::write_probe(what, place, &self.probe));
            }
            found.extend(troubles);
        }
        if let Some(nodes) = &self.nodes {
            let beaten = std::fs::metadata(nodes).and_then(|metadata| metadata.modified());
            found.extend(beaten.ok().and_then(|there| check::clock(wall_clock(), there)));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_and_indexes_beside_each_other_are_one_place() {
        let config = Config::new(Path::new("/srv/berth"));
        let places = Places::of(&config, true);
        let paths: Vec<&Path> = places.shared.iter().map(|(_, path)| path.as_path()).collect();
        assert_eq!(paths, [Path::new("/srv/berth"), Path::new("/srv/berth/mail")]);
    }

    #[test]
    fn troubles_of_two_looks_make_a_node_unfit_and_a_hanging_server_does_not() {
        let health = Health::default();
        for _ in 0..10 {
            health.found(vec![hanging()]);
            assert!(!health.is_unfit());
        }
        let full = || vec![Trouble { what: "node.local_dir, /x, is full".to_owned(), unfit: true }];
        health.found(full());
        assert!(!health.is_unfit() && health.trouble() == ["node.local_dir, /x, is full"]);
        health.found(full());
        assert!(health.is_unfit());
        health.found(Vec::new());
        assert!(health.is_unfit() && health.trouble()[0].contains("well again"), "{:?}", health.trouble());
    }

    #[test]
    fn users_that_go_one_by_one_are_waited_for() {
        let health = Health::default();
        let full = || vec![Trouble { what: "full".to_owned(), unfit: true }];
        health.found(full());
        health.found(full());
        let at = Duration::from_secs;
        assert!(!health.is_stuck(at(5), 10));
        assert!(!health.is_stuck(at(64), 10));
        assert!(!health.is_stuck(at(65), 9), "one went: it goes on");
        assert!(!health.is_stuck(at(124), 9));
        assert!(health.is_stuck(at(125), 9));
        assert!(!health.is_stuck(at(126), 0));
    }
}
