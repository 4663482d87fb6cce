//! What every session has: an end with a reason.

use crate::connection::{Connection, ConnectionError};

/// Why a session ended; one log line says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End(pub String);

impl End {
    /// The client said goodbye.
    pub fn logout() -> End {
        End("logout".into())
    }
    /// Another reason, for the log.
    pub fn because(reason: impl Into<String>) -> End {
        End(reason.into())
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
        End(error.to_string())
    }
}
