//! Serve here or forward: every session and delivery goes to the holder of its user's lease.

use std::{ops::Deref, sync::Arc, time::Duration};

use affinity::UserName;
use serde::{Deserialize, Serialize};
use storage::{Account, StorageError};

use crate::{
    client::{Client, Protocol},
    connection::Connection,
    lmtp::{
        delivery::{Addressee, Envelope, Outcome},
        message::Message,
    },
    node::Node,
    session::End,
};

/// What the ingress tells the holder of a session that it authenticated.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Preamble {
    /// The client.
    pub client: Client,
    /// Which protocol.
    pub protocol: Protocol,
    /// Whose mail.
    pub user: UserName,
    /// The master user who logged in, if any.
    pub master: Option<UserName>,
    /// IMAP: the tag of the login command, which the holder answers. POP3: empty.
    pub login_tag: String,
}

/// Use of an open account: while one exists, the account stays open (unless its lease is lost).
#[derive(Debug)]
pub struct Held {
    account: Arc<Account>,
}

impl Held {
    /// Runs a blocking call of the store on the blocking pool.
    pub async fn run<T, F>(&self, work: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Account>) -> Result<T, StorageError> + Send + 'static,
    {
        let _ = work;
        todo!()
    }
    /// Resolves, with a text for the client, when the account is taken away (lease lost, drain, kick): say BYE and end. Safe to cancel.
    pub async fn taken_away(&self) -> String {
        todo!()
    }
}
impl Deref for Held {
    type Target = Arc<Account>;
    fn deref(&self) -> &Arc<Account> {
        &self.account
    }
}

/// Why no node can serve a user now. The client gets a temporary error (`NO [UNAVAILABLE]`, `-ERR [SYS/TEMP]`, 451 4.3.0).
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Waited for a failover that did not end in time.
    #[error("no node could serve {user} within {}: {reason}", humantime::format_duration(*.waited))]
    Unavailable {
        #[allow(missing_docs)]
        user: UserName,
        #[allow(missing_docs)]
        waited: Duration,
        #[allow(missing_docs)]
        reason: String,
    },
    /// Forwarded too often.
    #[error("{user} was forwarded {hops} times without finding a holder")]
    TooManyHops {
        #[allow(missing_docs)]
        user: UserName,
        #[allow(missing_docs)]
        hops: u8,
    },
    /// The user has as many sessions as allowed.
    #[error("{user} has {limit} sessions, the most allowed")]
    TooManySessions {
        #[allow(missing_docs)]
        user: UserName,
        #[allow(missing_docs)]
        limit: usize,
    },
    /// The store could not be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// After login: serves the session here or relays it to the holder, until it ends. `Err` gives the connection back, so that the protocol can say the error.
pub async fn enter(node: Arc<Node>, connection: Connection, preamble: Preamble) -> Result<End, (Box<Connection>, RouteError)> {
    let _ = (node, connection, preamble);
    todo!()
}

/// Delivers one message to every recipient, each at its holder, local and remote at the same time; the outcomes are in the order of `to`.
pub async fn deliver(node: &Arc<Node>, client: &Client, envelope: &Envelope, to: &[Addressee], message: &Message) -> Vec<Outcome> {
    let _ = (node, client, envelope, to, message);
    todo!()
}
