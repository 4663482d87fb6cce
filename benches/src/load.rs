//! Makes load over parallel connections and measures how fast it is taken.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use tests::{
    clients::{imap::Imap, lmtp::Lmtp},
    site::{Doors, User},
    wait,
};

/// How much, over how many connections.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Deliveries or logins in all.
    pub count: usize,
    /// Connections at a time.
    pub connections: usize,
}

/// Body of a delivered message: a short mail as people write it.
const MESSAGE_BYTES: usize = 4 * 1024;

/// Deliveries per second. Each connection goes on with one recipient after the other; connections are spread over the nodes.
pub fn deliveries_per_second(nodes: &[Doors], users: &[User], load: Load) -> Result<f64> {
    let message = message();
    in_parallel(load, |worker, next| {
        let mut lmtp = Lmtp::connect(&pick(nodes, worker)?.lmtp)?;
        while let Some(number) = next() {
            lmtp.deliver_ok("bench@tests.example", &[&pick(users, number)?.address()], &message)?;
        }
        lmtp.quit()
    })
}

/// LOGIN, SELECT INBOX and LOGOUT, each time on a new connection, per second.
pub fn logins_per_second(nodes: &[Doors], users: &[User], load: Load) -> Result<f64> {
    in_parallel(load, |_, next| {
        while let Some(number) = next() {
            let user = pick(users, number)?;
            let mut imap = Imap::login(&pick(nodes, number)?.imap, &user.name, &user.password)?;
            imap.select("INBOX")?;
            imap.logout()?;
        }
        Ok(())
    })
}

/// So many sessions that sit in IDLE.
pub fn idle_sessions(nodes: &[Doors], users: &[User], count: usize) -> Result<Vec<Imap>> {
    (0..count)
        .map(|number| {
            let user = pick(users, number)?;
            let mut imap = Imap::login(&pick(nodes, number / users.len())?.imap, &user.name, &user.password)?;
            imap.select("INBOX")?;
            imap.idle()?;
            Ok(imap)
        })
        .collect()
}

/// Runs `work` on as many threads as connections; it takes numbers until `next` gives none. Gives numbers per second.
fn in_parallel(load: Load, work: impl Fn(usize, &dyn Fn() -> Option<usize>) -> Result<()> + Sync) -> Result<f64> {
    let taken = AtomicUsize::new(0);
    let next = || Some(taken.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < load.count);
    let start = wait::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..load.connections)
            .map(|worker| {
                scope.spawn({
                    let (work, next) = (&work, &next);
                    move || work(worker, next)
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })?;
    Ok(per_second(load.count, start.elapsed()))
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn pick<T>(all: &[T], number: usize) -> Result<&T> {
    all.get(number % all.len().max(1)).context("an empty list of nodes or users")
}

fn message() -> Vec<u8> {
    let mut message =
        b"From: bench@tests.example\r\nTo: you@localhost\r\nSubject: Bench\r\nDate: Sat, 21 Nov 2026 10:00:00 +0100\r\n\r\n".to_vec();
    while message.len() < MESSAGE_BYTES {
        message.extend_from_slice(b"The quick brown fox jumps over the lazy dog, as it has done for years.\r\n");
    }
    message
}

#[cfg(test)]
mod tests_of_load {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn each_number_is_worked_on_once() {
        let seen = Mutex::new(Vec::new());
        let rate = in_parallel(Load { count: 100, connections: 4 }, |_, next| {
            while let Some(number) = next() {
                seen.lock().unwrap().push(number);
            }
            Ok(())
        })
        .unwrap();
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..100) && rate > 0.0);
    }
}
