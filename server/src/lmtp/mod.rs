//! LMTP (RFC 2033): any node takes a delivery, each recipient is stored by the holder of their lease.

mod attributes;
mod binary;
pub mod command;
pub mod delivery;
mod duplicates;
mod gates;
pub mod message;
pub mod receive;
pub mod reply;
pub mod session;
pub mod wire;

use std::{net::IpAddr, sync::Arc};

pub use self::delivery::{Deliveries, Profile};

use storage::MailboxName;

use self::{
    delivery::{Addressee, Envelope, Outcome},
    message::Message,
    reply::Reply,
    session::{Access, Backend, Settings},
};
use crate::{
    auth::{AuthError, Recipient},
    client::{Client, Protocol},
    connection::Connection,
    forward,
    node::Node,
    session::End,
    tls::{TlsAcceptor, TlsFacts},
};

/// A connection of a mail transfer agent, until QUIT.
///
/// `admits`: by where it comes from, it may deliver.
pub async fn accept(node: Arc<Node>, connection: Connection, profile: Profile, admits: bool) -> End {
    session::run(&Door { node, profile, admits }, connection).await
}

/// One listener's view of the node, for one client.
struct Door {
    node: Arc<Node>,
    profile: Profile,
    admits: bool,
}

impl Backend for Door {
    fn settings(&self) -> Settings {
        let config = self.node.config();
        Settings {
            node: config.node.name.clone(),
            message_bytes_max: config.limits.message_bytes.as_u64(),
            recipients_max: config.limits.recipients,
            bad_commands_max: config.limits.bad_commands,
            spool_dir: config.node.local_dir.clone(),
            profile: self.profile,
        }
    }

    fn access(&self, tls: Option<&TlsFacts>) -> Access {
        // LMTP has no authentication: these lists are who may put mail into mailboxes.
        let config = self.node.config();
        match tls {
            _ if self.admits => Access::Granted,
            Some(facts) if config.lmtp.allows_certificate(&facts.certificate_names) => Access::Granted,
            None if !config.lmtp.allow_certificates.is_empty() && self.node.tls.is_some() => Access::NeedsCertificate,
            _ => Access::Refused,
        }
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        self.node.config().lmtp.trusts(peer)
    }

    fn tls(&self) -> Option<TlsAcceptor> {
        Some(self.node.tls.as_ref()?.acceptor(Protocol::Lmtp))
    }

    async fn recipient(&self, address: &str) -> Result<Option<Recipient>, AuthError> {
        self.node.auth.recipient(address).await
    }

    fn over_quota(&self, recipient: &Recipient, bytes: u64) -> Option<Reply> {
        // Where a detail's mail goes is decided by its holder: it is the detail's mailbox or INBOX.
        let detail = recipient.detail.as_deref().and_then(|detail| MailboxName::parse(detail).ok());
        let lmtp = self.node.config().lmtp.clone();
        let targets: Vec<MailboxName> = match self.profile {
            Profile::Inbox => detail.into_iter().chain([MailboxName::inbox()]).collect(),
            Profile::Sent => MailboxName::parse(&lmtp.sent_mailbox).into_iter().collect(),
        };
        let is_full = self.node.accounts.is_full(&recipient.user, &targets, bytes);
        is_full.then(|| reply::over_quota(lmtp.over_quota))
    }

    async fn deliver(&self, client: &Client, envelope: &Envelope, to: &[Addressee], message: &Message) -> Vec<Outcome> {
        forward::deliver(&self.node, client, envelope, to, message).await
    }
}
