//! Serve here or forward: every session and delivery goes to the holder of its user's lease.
//!
//! - `route.rs` finds the holder, or has one made; `placing.rs` says where a user belongs; `accounts.rs` are the accounts open here
//! - `waiting.rs` lets whoever needs a dead node's users wait
//! - `link.rs`, `batch.rs`, `identity.rs`, `frames.rs` are the relay between nodes; `serve.rs` answers other nodes
//! - `session.rs` and `deliver.rs` are the two things that are forwarded; `guest.rs` begins sessions for other users' mailboxes; `pump.rs` moves a relayed session's bytes, and
//!   `goodbyes.rs` is why holders ended them

pub mod accounts;
mod batch;
pub mod deliver;
pub mod frames;
pub mod goodbyes;
pub mod guest;
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
    /// Where the client may log in anew afterwards (UNAUTHENTICATE): what the holder says when it gives the connection back.
    #[serde(default)]
    pub mark: Option<Mark>,
    /// Who is to be served instead of the user, as far as ACLs allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<crate::imap::guest::Guest>,
    /// POP3: the client takes characters beyond ASCII in headers (RFC 6856). IMAP's clients say so later.
    #[serde(default)]
    pub utf8: bool,
    /// An operator's own session (`berth export`): what is to be whole has no `imap.message_limit`.
    #[serde(default)]
    pub operator: bool,
}

impl Preamble {
    /// Operators may set quotas: a master user, and whoever needed no password. A guest's session has a master user too, the guest, who is none.
    pub fn may_set_quota(&self) -> bool {
        self.guest.is_none() && (self.operator || self.master.is_some())
    }
}

/// What a holder sends behind the last byte of a session whose client is to log in anew, before what it read and did not use. Only ingress and holder know it,
/// and it is looked for where a piece of the relay's stream begins, so that nothing a client sees can be taken for it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark([u8; MARK_BYTES]);

/// Length of a [`Mark`].
const MARK_BYTES: usize = 32;

impl Mark {
    /// A new one. It begins with a byte that no response ends with, compressed or not: a piece that may be its start can wait for the next one.
    pub fn random() -> Mark {
        let mut mark: [u8; MARK_BYTES] = rand::random();
        mark[0] = 0;
        mark[1] = mark[1].max(1);
        Mark(mark)
    }
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mark")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client::SessionId, imap::guest::Guest};

    #[test]
    fn operators_may_set_quotas_and_guests_may_not() {
        let user = |name: &str| UserName::normalise(name).unwrap();
        let client = Client {
            session: SessionId::random(),
            address: "192.0.2.1:40000".parse().unwrap(),
            local: "192.0.2.2:993".parse().unwrap(),
            ingress: "mail1".parse().unwrap(),
            tls: None,
        };
        let own = Preamble {
            client,
            protocol: Protocol::Imap,
            user: user("ada"),
            master: None,
            login_tag: "a".to_owned(),
            mark: None,
            guest: None,
            utf8: false,
            operator: false,
        };
        assert!(!own.may_set_quota(), "her own quota is not hers to set");
        let of_a_master = Preamble { master: Some(user("admin")), ..own.clone() };
        assert!(of_a_master.may_set_quota());
        assert!(Preamble { operator: true, ..own.clone() }.may_set_quota());
        // As `guest.rs` makes it: whoever shares a mailbox with bob gives him no say over her quota.
        let guest = Guest { user: user("bob"), groups: Vec::new(), anonymous: false, prefix: "Other Users/ada/".to_owned() };
        let of_a_guest = Preamble { master: Some(user("bob")), guest: Some(guest), ..own };
        assert!(!of_a_guest.may_set_quota());
        assert!(!Preamble { operator: true, ..of_a_guest }.may_set_quota());
    }
}
