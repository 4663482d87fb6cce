//! Closing what was abandoned: that may wait for the file server, and a fence abandons ten thousand accounts at once.
//!
//! Invariant: a few threads do it, whatever there is to close and however long that takes (`however_much_is_let_go_few_threads_do_it`).

use std::{collections::VecDeque, io, sync::Arc, thread};

use parking_lot::Mutex;

/// Threads at most: where the file server is away, all of them wait for it.
const THREADS_MAX: usize = 8;

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    threads: usize,
}

/// What is to be let go of, in turn.
#[derive(Clone, Default)]
pub(super) struct LetGo(Arc<Mutex<State>>);

/// Of the whole process.
pub(super) fn of_this_process() -> &'static LetGo {
    static ALL: std::sync::LazyLock<LetGo> = std::sync::LazyLock::new(LetGo::default);
    &ALL
}

impl LetGo {
    /// Does `work` on a thread of its own or after others. Does not wait. Without any thread, what `work` holds goes at once, and what else holds it does later.
    pub(super) fn soon(&self, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut state = self.0.lock();
        state.waiting.push_back(Box::new(work));
        if state.threads >= THREADS_MAX {
            return Ok(());
        }
        let all = self.clone();
        match thread::Builder::new().name("abandon".to_owned()).spawn(move || all.work()) {
            Ok(_) => state.threads += 1,
            Err(_) if state.threads > 0 => {}
            Err(error) => {
                state.waiting.pop_back();
                return Err(error);
            }
        }
        Ok(())
    }

    fn work(&self) {
        /// Counts its thread out, also where it panics.
        struct Counted<'a>(&'a LetGo);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                if thread::panicking() {
                    self.0.0.lock().threads -= 1;
                }
            }
        }
        let _counted = Counted(self);
        loop {
            let next = {
                let mut state = self.0.lock();
                let next = state.waiting.pop_front();
                if next.is_none() {
                    // Under the lock: whoever comes later starts another.
                    state.threads -= 1;
                }
                next
            };
            let Some(work) = next else { return };
            work();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use super::*;

    #[test]
    fn however_much_is_let_go_few_threads_do_it() {
        let all = LetGo::default();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (done, finished) = mpsc::channel();
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock();
        for n in 0..500 {
            let (running, most, done, gate) = (running.clone(), most.clone(), done.clone(), gate.clone());
            all.soon(move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                drop(gate.lock());
                running.fetch_sub(1, Ordering::SeqCst);
                done.send(n).unwrap();
            })
            .unwrap();
        }
        assert!(all.0.lock().threads <= THREADS_MAX);
        drop(closed);
        let limit = std::time::Duration::from_secs(60);
        let mut all_done: Vec<i32> = (0..500).map(|_| finished.recv_timeout(limit).unwrap()).collect();
        all_done.sort_unstable();
        assert_eq!(all_done, (0..500).collect::<Vec<_>>());
        assert!(most.load(Ordering::SeqCst) <= THREADS_MAX);
        all.soon(move || done.send(500).unwrap()).unwrap();
        assert_eq!(finished.recv_timeout(limit), Ok(500), "also when all threads have gone");
    }
}
