//! What every session has: an end with a reason.

use crate::connection::{Connection, ConnectionError};

/// Why a session ended; one log line says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End(pub String, Because);

/// What kind of reason it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// What the session says.
    Said,
    /// An error of the network, which a broken link between nodes looks like.
    Network,
}

impl End {
    /// The client said goodbye.
    pub fn logout() -> End {
        End("logout".into(), Because::Said)
    }
    /// Another reason, for the log.
    pub fn because(reason: impl Into<String>) -> End {
        End(reason.into(), Because::Said)
    }
    /// Whether the network ended it.
    pub fn is_of_network(&self) -> bool {
        self.1 == Because::Network
    }
}

/// What is left of a session.
pub enum Left {
    /// Nothing: the connection is closed.
    Ended(End),
    /// The connection: its client means to log in anew (UNAUTHENTICATE, RFC 8437).
    Back(Box<Connection>),
}

impl From<ConnectionError> for End {
    fn from(error: ConnectionError) -> End {
        let because = if matches!(error, ConnectionError::Timeout(_)) { Because::Said } else { Because::Network };
        End(error.to_string(), because)
    }
}
