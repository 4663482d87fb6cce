//! A message file in the hands of an async task: closed where waiting is allowed.

use storage::{MessageReader, StorageError};
use tokio::runtime::Handle;

/// An opened message; the blocking pool closes it: over NFS that is a round trip, and other sessions' tasks share the thread.
#[derive(Debug)]
pub struct Opened<T: Send + 'static = MessageReader>(Option<T>);

impl<T: Send + 'static> Opened<T> {
    /// Takes it over.
    pub const fn new(reader: T) -> Opened<T> {
        Opened(Some(reader))
    }
}

impl Opened {
    /// As [`MessageReader::read_at`]. Blocking.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        self.0.as_ref().ok_or(StorageError::Expunged)?.read_at(offset, buffer)
    }
}

impl<T: Send + 'static> Drop for Opened<T> {
    fn drop(&mut self) {
        // Without a runtime this thread may wait.
        if let (Some(reader), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(reader));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    struct Closes(mpsc::Sender<thread::ThreadId>);
    impl Drop for Closes {
        fn drop(&mut self) {
            self.0.send(thread::current().id()).unwrap();
        }
    }

    #[tokio::test]
    async fn a_file_is_closed_off_the_threads_that_serve_sessions() {
        let (told, closed) = mpsc::channel();
        drop(Opened::new(Closes(told)));
        assert_ne!(closed.recv_timeout(Duration::from_secs(30)).unwrap(), thread::current().id());
    }
}
