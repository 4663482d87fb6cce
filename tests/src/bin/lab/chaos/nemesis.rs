//! What is done to the hosts: drawn from the seed, never more than two hosts at once, all undone at the end.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tests::{
    history::Fault,
    lab::{Cluster, Lab, Node},
    wait,
};

use super::clients::{Shared, pause};

/// How long a node may take to end after SIGTERM, or to be served again.
const END_LIMIT: Duration = Duration::from_secs(90);
/// Longest time for which something is away, in milliseconds: past `dead_after` (8 s) and the double patience after an outage.
const LONGEST: u64 = 20_000;

/// One kind of fault with its weight.
const FAULTS: [(Strike, u32); 12] = [
    (Strike::Kill, 16),
    (Strike::Power, 9),
    (Strike::CutFromNfs, 14),
    (Strike::CutFromPeers, 9),
    (Strike::CutFromBoth, 7),
    (Strike::CutFromClients, 3),
    (Strike::Pause, 14),
    (Strike::Terminate, 7),
    (Strike::Drain, 5),
    (Strike::Latency, 4),
    (Strike::FileServer, 3),
    (Strike::Moves, 9),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strike {
    Kill,
    Power,
    CutFromNfs,
    CutFromPeers,
    CutFromBoth,
    CutFromClients,
    Pause,
    Terminate,
    Drain,
    Latency,
    FileServer,
    Moves,
}

/// What both threads of the nemesis share.
pub struct Nemesis {
    pub lab: Lab,
    pub cluster: Cluster,
    pub shared: Arc<Shared>,
    /// Hosts that are being struck.
    busy: Mutex<BTreeSet<String>>,
    /// The lab keeps its cuts in one file.
    network: Mutex<()>,
}

impl Nemesis {
    pub fn new(lab: &Lab, cluster: &Cluster, shared: &Arc<Shared>) -> Nemesis {
        let (lab, cluster, shared) = (lab.clone(), cluster.clone(), shared.clone());
        Nemesis { lab, cluster, shared, busy: Mutex::default(), network: Mutex::default() }
    }

    /// Strikes until clients are told to stop.
    pub fn run(&self, seed: u64) -> Result<()> {
        let mut rng = StdRng::seed_from_u64(seed);
        while !self.shared.stop.load(Ordering::SeqCst) {
            let total = FAULTS.iter().map(|(_, weight)| weight).sum();
            let mut dice = rng.random_range(0..total);
            let strike = FAULTS
                .iter()
                .find(|(_, weight)| {
                    dice < *weight || {
                        dice -= weight;
                        false
                    }
                })
                .map_or(Strike::Kill, |(strike, _)| *strike);
            let node = self.cluster.nodes[rng.random_range(0..self.cluster.nodes.len())].clone();
            let time = Duration::from_millis(rng.random_range(0..LONGEST));
            let rest = Duration::from_millis(rng.random_range(500..6_000));
            let victim = if matches!(strike, Strike::Latency | Strike::FileServer) { "srv" } else { &node.name };
            if self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(victim.to_owned()) {
                let from = self.shared.recorder.now();
                let what = format!("{strike:?} {victim} for {time:.1?}");
                eprintln!("{:8.1} s  {what}", seconds(from));
                let outcome = self.strike(strike, &node, time, &mut rng).with_context(|| what.clone());
                self.shared.recorder.fault(Fault { from, until: self.shared.recorder.now(), what });
                self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(victim);
                outcome?;
            }
            pause(rest);
        }
        Ok(())
    }

    fn strike(&self, strike: Strike, node: &Node, time: Duration, rng: &mut StdRng) -> Result<()> {
        match strike {
            Strike::Kill => {
                self.lab.exec(&node.name, &["sh", "-c", "pkill -9 -x berth; while pgrep -x berth >/dev/null; do sleep 0.01; done"])?;
                // A supervisor is quick, or it is not there.
                if rng.random_bool(0.5) {
                    pause(time);
                }
                self.lab.serve(node)
            }
            Strike::Power => {
                self.lab.verb(&["kill", &node.name])?;
                pause(time);
                self.lab.revive(node)
            }
            Strike::CutFromNfs => self.cut(node, &["nfs"], time),
            Strike::CutFromPeers => self.cut(node, &["peers"], time),
            Strike::CutFromBoth => self.cut(node, &["nfs", "peers"], time),
            Strike::CutFromClients => self.cut(node, &["host"], time),
            Strike::Pause => {
                self.lab.verb(&["pause", &node.name])?;
                pause(time);
                self.lab.verb(&["resume", &node.name])?;
                self.keep_running(node)
            }
            Strike::Terminate => {
                self.lab.exec(&node.name, &["sh", "-c", "pkill -TERM -x berth; true"])?;
                self.wait_ended(node)?;
                self.lab.serve(node)
            }
            Strike::Drain => {
                self.berth(&["drain", &node.name]);
                pause(time);
                self.berth(&["undrain", &node.name]);
                Ok(())
            }
            Strike::Latency => {
                self.lab.verb(&["delay", &format!("{}ms", rng.random_range(2..60))])?;
                pause(time);
                self.lab.verb(&["delay", "off"]).map(drop)
            }
            Strike::FileServer => {
                self.lab.verb(&["kill", "srv"])?;
                pause(time / 2);
                self.lab.verb(&["start", "srv"]).map(drop)
            }
            Strike::Moves => {
                for _ in 0..rng.random_range(1..6) {
                    let user = format!("user{}", rng.random_range(1..=self.cluster.users));
                    self.berth(&["move", &user, &node.name]);
                    pause(Duration::from_millis(rng.random_range(0..2_000)));
                }
                Ok(())
            }
        }
    }

    fn cut(&self, node: &Node, what: &[&str], time: Duration) -> Result<()> {
        for part in what {
            let _alone = self.network.lock().unwrap_or_else(PoisonError::into_inner);
            self.lab.verb(&["cut", &node.name, part])?;
        }
        pause(time);
        {
            let _alone = self.network.lock().unwrap_or_else(PoisonError::into_inner);
            self.lab.verb(&["heal", &node.name])?;
        }
        self.keep_running(node)
    }

    /// A command of an operator, on the first host that takes it: while hosts are struck it may fail, as everywhere.
    fn berth(&self, arguments: &[&str]) {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let victim = arguments.last().copied().unwrap_or_default();
        let Some(node) = self.cluster.nodes.iter().find(|node| !busy.contains(&node.name) || node.name == victim) else { return };
        if let Err(error) = self.lab.berth(node, arguments) {
            let text = error.root_cause().to_string();
            let why = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            eprintln!("{:8.1} s  berth {}: {}", seconds(self.shared.recorder.now()), arguments.join(" "), why.trim());
        }
    }

    /// Starts the node again if it ended by itself.
    fn keep_running(&self, node: &Node) -> Result<()> {
        if self.lab.exec(&node.name, &["sh", "-c", "pgrep -x berth || true"])?.trim().is_empty() {
            eprintln!("{:8.1} s  {} had ended: started again", seconds(self.shared.recorder.now()), node.name);
            self.lab.serve(node)?;
        }
        Ok(())
    }

    /// Waits for the process' end.
    pub fn wait_ended(&self, node: &Node) -> Result<()> {
        wait::until(&format!("the end of berth on {}", node.name), END_LIMIT, || {
            let running = self.lab.exec(&node.name, &["sh", "-c", "pgrep -x berth || true"])?;
            ensure!(running.trim().is_empty(), "it still runs");
            Ok(())
        })
    }

    /// Undoes everything and waits until all nodes serve.
    pub fn heal(&self) -> Result<()> {
        self.lab.verb(&["heal"])?;
        self.lab.verb(&["delay", "off"])?;
        for node in &self.cluster.nodes {
            self.berth(&["undrain", &node.name]);
            self.keep_running(node)?;
        }
        wait::until("all nodes to serve again", END_LIMIT, || self.lab.wait_acquainted(&self.cluster))
    }
}

pub fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}
