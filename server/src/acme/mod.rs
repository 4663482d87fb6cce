//! Certificates that the nodes get and renew themselves (ACME, RFC 8555; names are proved by HTTP-01, its §8.3, or by TLS-ALPN-01, RFC 8737).
//!
//! Everything is on the shared directory, so that any node can renew, any node can answer for any other, and all use what one got:
//!
//! ```text
//! <root>/acme/challenges/<token>.<thumbprint>    an empty file whose name is the answer to a challenge; `<hash of a host name>,` before it: in handshakes
//! <root>/acme/<name>-<hash>/                     one per authority and set of names
//!     <n>,free,<node>,<incarnation>,<failures>,<retry>    the claim: exactly one, its NAME is the state
//!     <n>,held,…                                          that node orders at present
//!     <n>.account                                the account's key; the highest number counts
//!     <n>.pem                                    a certificate chain and its key; the highest number counts
//! ```
//!
//! - `claim.rs` whose turn it is, and when (pure); `folder.rs` the files; `order.rs` the exchange with the authority; `http.rs` its requests
//! - `renewal.rs` drives them; `answers.rs` answers challenges at `listen.acme`, `handshake.rs` in handshakes
//!
//! Invariants, each with the test that guards it:
//! - one node orders at a time, and the claim of a node that is gone is taken over (`of_many_nodes_one_takes_the_claim`, `the_claim_of_a_node_that_is_gone_is_taken_over`)
//! - failures wait longer each time, for all nodes together (`each_failure_doubles_the_wait_up_to_a_limit`)
//! - a certificate is renewed when a third of its life is left, or a little earlier (`a_certificate_is_renewed_with_a_third_of_its_life_left`)
//! - no name from outside is a path (`a_token_that_is_none_is_looked_up_nowhere`)
//! - keys are readable by the node's account only (`what_is_secret_is_readable_by_its_owner_only`)

pub mod answers;
pub mod claim;
pub mod folder;
pub mod handshake;
mod http;
mod order;
pub mod renewal;

pub use self::{answers::Answers, folder::Folder, renewal::Renewal};
