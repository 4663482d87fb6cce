//! What NOTIFY asks for (RFC 5465 §8).

use super::{FetchItem, MailboxArgument};

/// NOTIFY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notify {
    /// NOTIFY NONE.
    None,
    /// NOTIFY SET.
    Set {
        /// STATUS: the numbers of every mailbox that is followed come first.
        status: bool,
        /// At least one.
        groups: Vec<EventGroup>,
    },
    /// An event that is not known here: NO, with those that are.
    Unsupported,
}

/// Events of some mailboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventGroup {
    /// Which mailboxes.
    pub filter: Filter,
    /// Which events; none for NONE.
    pub events: Events,
}

/// Which mailboxes (RFC 5465 §6).
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in the RFC")]
pub enum Filter {
    Selected,
    SelectedDelayed,
    /// All of the user's: filters may deliver to any.
    Inboxes,
    Personal,
    Subscribed,
    Subtree(Vec<MailboxArgument>),
    Mailboxes(Vec<MailboxArgument>),
}

/// Which events (RFC 5465 §5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// MessageNew and MessageExpunge, which go together.
    pub messages: bool,
    /// What MessageNew sends of new messages of the selected mailbox.
    pub items: Vec<FetchItem>,
    /// FlagChange.
    pub flags: bool,
    /// MailboxName.
    pub names: bool,
    /// SubscriptionChange.
    pub subscriptions: bool,
    /// MailboxMetadataChange.
    pub mailbox_metadata: bool,
    /// ServerMetadataChange.
    pub server_metadata: bool,
}
