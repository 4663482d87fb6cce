//! Mail on disk: keeps Maildir and index in step.
//!
//! All calls block on the file system: the server makes them from its blocking pool. What is only read from memory says so.

pub mod account;
pub mod error;
pub mod mailbox;
pub mod mime;
pub mod names;
pub mod staged;

pub use account::{Account, AccountPaths, CreateOptions, MailboxEntry, SpecialUse, StorageSettings};
pub use error::StorageError;
pub use mailbox::{Appended, Columns, Copied, Mailbox, MessageReader, Rendered, Row, Status, StoreOperation, Stored};
pub use names::MailboxName;
pub use staged::Staged;
