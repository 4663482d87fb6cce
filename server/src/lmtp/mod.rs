//! LMTP (RFC 2033): any node takes a delivery, each recipient is stored by the holder of their lease.

mod attributes;
mod binary;
pub mod command;
pub mod delivery;
pub mod message;
mod receive;
pub mod reply;
pub mod session;
pub mod wire;

use std::{net::IpAddr, sync::Arc};

use storage::MailboxName;

use self::{
    delivery::{Addressee, Envelope, Outcome},
    message::Message,
    reply::Reply,
    session::{Backend, Settings},
};
use crate::{
    auth::{AuthError, Recipient},
    client::Client,
    connection::Connection,
    forward,
    node::Node,
    session::End,
    tls::TlsAcceptor,
};

/// A connection of a mail transfer agent, until QUIT.
pub async fn accept(node: Arc<Node>, connection: Connection) -> End {
    session::run(&node, connection).await
}

impl Backend for Arc<Node> {
    fn settings(&self) -> Settings {
        let config = self.config();
        Settings {
            node: config.node.name.clone(),
            message_bytes_max: config.limits.message_bytes.as_u64(),
            recipients_max: config.limits.recipients,
            bad_commands_max: config.limits.bad_commands,
            spool_dir: config.node.local_dir.clone(),
        }
    }

    fn may_deliver(&self, client: &Client) -> bool {
        // LMTP has no authentication: this list is who may put mail into mailboxes.
        self.config().lmtp.allows(client.address.ip())
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        self.config().lmtp.trusts(peer)
    }

    fn tls(&self) -> Option<TlsAcceptor> {
        self.tls.clone()
    }

    async fn recipient(&self, address: &str) -> Result<Option<Recipient>, AuthError> {
        self.auth.recipient(address).await
    }

    fn over_quota(&self, recipient: &Recipient, bytes: u64) -> Option<Reply> {
        // Where a detail's mail goes is decided by its holder: it is the detail's mailbox or INBOX.
        let detail = recipient.detail.as_deref().and_then(|detail| MailboxName::parse(detail).ok());
        let targets: Vec<MailboxName> = detail.into_iter().chain([MailboxName::inbox()]).collect();
        let is_full = self.accounts.is_full(&recipient.user, &targets, bytes);
        is_full.then(|| reply::over_quota(self.config().lmtp.over_quota))
    }

    async fn deliver(&self, client: &Client, envelope: &Envelope, to: &[Addressee], message: &Message) -> Vec<Outcome> {
        forward::deliver(self, client, envelope, to, message).await
    }
}
