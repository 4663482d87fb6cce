//! Many users move: a bounded number at a time, with progress, and safe to interrupt.
//!
//! Each move is the nodes' own work and is finished by them whatever becomes of this command; after an interrupt no other is begun.

pub mod progress;
pub mod rebalance;

use std::{io, sync::Arc};

use affinity::UserName;
use anyhow::{Context, bail};
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet};

use self::progress::Progress;
use super::{
    control::{MoveReply, Request},
    many,
    place::Found,
    seconds,
};

/// Most failures that are shown one by one.
const FAILURES_SHOWN: usize = 20;

/// One user is to be on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Whom.
    pub user: UserName,
    /// Where to.
    pub to: String,
}

/// What became of all of them.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Users who are where they were to be, with the lease's generation.
    pub moved: Vec<(Move, u64)>,
    /// Users who are not, and why.
    pub failed: Vec<(Move, String)>,
    /// Moves that were not begun, because of an interrupt.
    pub left: usize,
    /// How long it took, milliseconds.
    pub millis: u128,
}

impl Outcome {
    /// For `--json`.
    pub fn json(&self) -> serde_json::Value {
        let moved: Vec<_> = self.moved.iter().map(|(one, epoch)| json!({ "user": one.user, "to": one.to, "epoch": epoch })).collect();
        let failed: Vec<_> = self.failed.iter().map(|(one, error)| json!({ "user": one.user, "to": one.to, "error": error })).collect();
        json!({ "moved": moved, "failed": failed, "left": self.left, "took_s": seconds(std::time::Duration::from_millis(u64::try_from(self.millis).unwrap_or(u64::MAX))) })
    }

    /// For people: the counts in one line.
    pub fn said(&self) -> String {
        let took = humantime::format_duration(std::time::Duration::from_millis(u64::try_from(self.millis).unwrap_or(u64::MAX)));
        let mut text = format!("{} moved in {took}", self.moved.len());
        if !self.failed.is_empty() {
            text += &format!(", {} could not be moved", self.failed.len());
        }
        if self.left > 0 {
            text += &format!(", {} not begun (interrupted)", self.left);
        }
        text
    }

    /// An error if anybody is not where they were to be; each reason goes to standard error.
    pub fn check(&self) -> anyhow::Result<()> {
        for (one, error) in self.failed.iter().take(FAILURES_SHOWN) {
            eprintln!("{} is not on {}: {error}", one.user, one.to);
        }
        if self.failed.is_empty() && self.left == 0 {
            return Ok(());
        }
        bail!("{} of {} not moved", self.failed.len() + self.left, many(self.failed.len() + self.left + self.moved.len(), "user"))
    }
}

/// Moves all, in order, `parallel` at a time, by the node on this host.
pub fn run(found: &Found, what: &'static str, moves: Vec<Move>, parallel: usize) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("can't start")?;
    runtime.block_on(run_all(found, what, moves, parallel))
}

async fn run_all(found: &Found, what: &'static str, moves: Vec<Move>, parallel: usize) -> anyhow::Result<Outcome> {
    let (total, mut outcome, mut progress) = (moves.len(), Outcome::default(), Progress::new());
    let permits = Arc::new(Semaphore::new(parallel.max(1)));
    let mut running: JoinSet<(Move, anyhow::Result<MoveReply>)> = JoinSet::new();
    let mut waiting = moves.into_iter();
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut is_interrupted = false;
    loop {
        while !is_interrupted
            && let Ok(permit) = permits.clone().try_acquire_owned()
            && let Some(one) = waiting.next()
        {
            let found = found.clone();
            running.spawn_blocking(move || {
                let request = Request::Move { user: one.user.to_string(), to: one.to.clone() };
                let reply = found.ask_node(what, &request);
                drop(permit);
                (one, reply)
            });
        }
        tokio::select! {
            ended = running.join_next() => match ended {
                None => break,
                Some(ended) => {
                    let (one, reply) = ended.map_err(io::Error::other)?;
                    match reply {
                        Ok(reply) => outcome.moved.push((one, reply.epoch)),
                        Err(error) => outcome.failed.push((one, format!("{error:#}"))),
                    }
                }
            },
            _ = &mut interrupted, if !is_interrupted => {
                is_interrupted = true;
                eprintln!("\ninterrupted: those under way are finished, no others begun");
            }
        }
        let done = outcome.moved.len() + outcome.failed.len();
        progress.show(&format!("{done} of {}, {} under way, {} failed", many(total, "user"), running.len(), outcome.failed.len()));
    }
    outcome.left = waiting.count();
    outcome.millis = progress.elapsed().as_millis();
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_says_what_is_left() {
        let one = |user: &str| Move { user: UserName::normalise(user).unwrap(), to: "b".to_owned() };
        let mut outcome = Outcome { moved: vec![(one("ada"), 3)], millis: 1500, ..Outcome::default() };
        assert_eq!(outcome.said(), "1 moved in 1s 500ms");
        assert!(outcome.check().is_ok());
        outcome.failed.push((one("bob"), "node b: full".to_owned()));
        outcome.left = 2;
        assert_eq!(outcome.said(), "1 moved in 1s 500ms, 1 could not be moved, 2 not begun (interrupted)");
        assert_eq!(outcome.check().unwrap_err().to_string(), "3 of 4 users not moved");
        assert_eq!(outcome.json()["failed"][0]["error"], "node b: full");
    }
}
