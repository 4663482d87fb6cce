//! What a session needs of the account it serves: blocking calls off the async threads, and word when the account goes away.

use std::{future::Future, sync::Arc};

use storage::{Account, StorageError};

use crate::forward::Held;

/// Use of an open account. [`Held`] is the real one; tests serve an account without a cluster.
pub trait Holding: Send + Sync + 'static {
    /// The account.
    fn account(&self) -> &Arc<Account>;
    /// Runs a blocking call of the store on the blocking pool.
    fn run<T, F>(&self, work: F) -> impl Future<Output = Result<T, StorageError>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Account>) -> Result<T, StorageError> + Send + 'static;
    /// Resolves, with a text for the client, when the account is taken away. Safe to cancel.
    fn taken_away(&self) -> impl Future<Output = String> + Send;
}

impl Holding for Held {
    fn account(&self) -> &Arc<Account> {
        self
    }
    fn run<T, F>(&self, work: F) -> impl Future<Output = Result<T, StorageError>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Account>) -> Result<T, StorageError> + Send + 'static,
    {
        Held::run(self, work)
    }
    fn taken_away(&self) -> impl Future<Output = String> + Send {
        Held::taken_away(self)
    }
}
