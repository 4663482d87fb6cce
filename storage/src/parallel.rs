//! Many file operations at once: a bulk command never waits for one round trip after the other.

use std::{
    num::NonZeroUsize,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use parking_lot::Mutex;

/// Most helping threads of the whole process: enough to keep a file server busy, few enough that a server that hangs does not exhaust the host.
const HELPERS_MAX: usize = 256;

/// Mailboxes dealt with at once where there are many: each takes several requests one after the other, and a commit that all of them share.
pub(crate) const MAILBOXES: usize = 64;

/// Names of one folder changed at once. A kernel changes one at a time, on NFS as well (and one name from folder to folder of a whole mount); whoever else
/// wants to look into the folder waits behind all that queue for that. So few that the next is looked up while one is changed.
pub(crate) const NAMES: usize = 4;

static HELPERS: AtomicUsize = AtomicUsize::new(0);

/// Helping threads that may run; given back when dropped.
struct Helpers(usize);

impl Helpers {
    fn take(wanted: usize) -> Helpers {
        let taken =
            HELPERS.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |busy| Some(busy + wanted.min(HELPERS_MAX.saturating_sub(busy))));
        let busy = taken.unwrap_or(HELPERS_MAX);
        Helpers(wanted.min(HELPERS_MAX.saturating_sub(busy)))
    }
}
impl Drop for Helpers {
    fn drop(&mut self) {
        HELPERS.fetch_sub(self.0, Ordering::SeqCst);
    }
}

/// Calls `work` for every item, at most `limit` at once; the results are in the order of the items.
pub(crate) fn for_each<T: Sync, R: Send>(limit: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let at_once = limit.min(items.len());
    let Some(helpers) = NonZeroUsize::new(at_once.saturating_sub(1)) else { return items.iter().map(work).collect() };
    let helpers = Helpers::take(helpers.get());
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<R>>> = Mutex::new(items.iter().map(|_| None).collect());
    let run = || {
        while let Some((position, item)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, items.get(at)?))) {
            let result = work(item);
            if let Some(slot) = results.lock().get_mut(position) {
                *slot = Some(result);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..helpers.0 {
            // A thread that can't be had is one helper fewer: this thread does all that is left.
            let spawned = thread::Builder::new().name("storage".to_owned()).spawn_scoped(scope, run);
            if spawned.is_err() {
                break;
            }
        }
        run();
    });
    results.into_inner().into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_however_many_there_are() {
        for count in [0_usize, 1, 2, 1000] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(for_each(4, &items, |item| item * 2), items.iter().map(|item| item * 2).collect::<Vec<_>>());
        }
    }
}
