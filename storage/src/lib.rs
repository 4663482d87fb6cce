//! Mail on disk: keeps Maildir and index in step.
//!
//! All calls block on the file system: the server makes them from its blocking pool. What is only read from memory says so.
//!
//! The Maildir is the truth ([`maildir`]): while nobody holds a user, every UID, flag, keyword, UIDVALIDITY and date can be read from file names, and
//! the index can be deleted. While a user is held, the index (crate `index`) has what names lack: flags not yet written back, expunges not yet carried
//! out, MODSEQs. What a client was told is durable before it is told, and `Lease::ensure_live` comes between the two.
//!
//! Locks, always taken in this order; each is private to its file:
//! 1. `Store::activity`: every call holds it shared, closing takes it whole
//! 2. `Facts::learning`: who learns dates and sizes of files
//! 3. `Mailbox::disk`: who renames or removes files of messages that clients know, and who compares the folder with the index
//! 4. `Mailbox::folder`: shared by whoever uses paths, whole while the folder is renamed (one at a time)
//! 5. `Mailbox::state`: one change of a mailbox at a time; two mailboxes in the order of their rows
//! 6. the ceilings, then the index connection
//! 7. `Mailbox::columns`, `name`, `keywords`, the cache's table: memory only, never held across a call that waits

pub mod account;
pub mod adopt;
mod cache;
mod columns;
mod commits;
pub mod error;
mod expiry;
pub mod filesystem;
#[doc(hidden)]
pub mod fuzz;
mod heal;
mod hierarchy;
pub mod layout;
pub mod mailbox;
mod maildir;
pub mod mime;
pub mod names;
mod object_id;
mod parallel;
mod quota;
pub mod release;
pub mod staged;
mod store;
#[cfg(test)]
mod tests;
mod uidl;
pub use mailbox::inotify as watch;

pub use account::{Account, CreateOptions, Limit, MailboxEntry, SpecialUse, StorageSettings};
pub use cache::{CACHE_BYTES_MAX, CACHE_BYTES_MIN, Cache, CacheError, CacheFigures};
pub use columns::{Columns, Row};
pub use error::StorageError;
pub use expiry::{ExpiryDate, ExpiryRule};
pub use heal::IndexProgress;
pub use hierarchy::annotations::{ANNOTATION_BYTES_MAX, ANNOTATIONS_MAX, Annotated, Annotations};
pub use hierarchy::watched::{AnnotationChange, Numbers};
pub use hierarchy::{
    acl::{self, Acl, AclChange, Right, Rights, Who},
    shares,
};
pub use layout::{AccountPaths, Layout};
pub use mailbox::{Appended, Copied, Mailbox, MessageReader, Rendered, SelectedFields, Status, StoreOperation, Stored};
pub use names::MailboxName;
pub use object_id::{EmailId, NoEmailId, mailbox_object_id};
pub use quota::{Crossing, LimitSource, Limits, MAIN_ROOT, QuotaRules, QuotaSettings, RootUsage, Usage, matches_mask};
pub use staged::{SharedFile, Staged};
pub use store::Retry;
pub use uidl::UidlFormat;
