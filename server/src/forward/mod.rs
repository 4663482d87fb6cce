//! Serve here or forward: every session and delivery goes to the holder of its user's lease.
//!
//! - `route.rs` finds the holder, or has one made; `placing.rs` says where a user belongs; `accounts.rs` are the accounts open here
//! - `waiting.rs` lets whoever needs a dead node's users wait
//! - `link.rs`, `batch.rs`, `identity.rs`, `frames.rs` are the relay between nodes; `serve.rs` answers other nodes
//! - `session.rs` and `deliver.rs` are the two things that are forwarded; `pump.rs` moves a relayed session's bytes

pub mod accounts;
mod batch;
pub mod deliver;
pub mod frames;
pub mod held;
pub mod identity;
pub mod link;
pub mod opened;
pub mod placing;
pub mod pump;
pub mod route;
pub mod serve;
pub mod session;
pub mod waiting;

use affinity::UserName;
use serde::{Deserialize, Serialize};

pub use deliver::deliver;
pub use held::Held;
pub use opened::Opened;
pub use route::RouteError;
pub use session::enter;

use crate::client::{Client, Protocol};

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
