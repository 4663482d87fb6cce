//! Quotas: what a user may hold, what is held, and the file that tells other programs.
//!
//! - `rules.rs`: limits, in Dovecot's words
//! - `account.rs`: what sessions, deliveries and operators ask of an account
//! - `ledger.rs`: usage, exact at any time: room is taken before a message comes and given back if it does not come
//! - `set.rs`: limits that operators set for one user, in a file beside the mail
//! - `maildirsize.rs`: the Maildir++ file beside the mail, for other programs; never read for usage
//!
//! Usage is in memory. It comes from the index, whose commits count ([`index::UserIndex::usages`]), so that neither an opening nor a delivery looks at
//! messages for it. Bytes are RFC822.SIZE. A mailbox whose rows the index lost is counted when it is opened, which background work does soon.

mod account;
mod ledger;
mod maildirsize;
mod rules;
mod set;

pub(crate) use ledger::Quota;
pub(crate) use maildirsize::{MAILDIRSIZE_FILE, Maildirsize};
pub(crate) use set::{SET_FILE, SetLimits};

pub use account::QuotaSettings;
pub use ledger::{Crossing, RootUsage, Usage};
pub use rules::{LimitSource, Limits, MAIN_ROOT, QuotaRules, matches_mask};
