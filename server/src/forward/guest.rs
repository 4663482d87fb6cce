//! A user's session that names another user's mailbox: a guest session with the owner's holder, by the way that every session takes.
//!
//! The holder believes the node that asks, as it does for every relayed session: who may publish a pin under `info/` is a node. Guests are not counted
//! among the owner's sessions: each belongs to a session of its own user, which is.

use std::{io, sync::Arc};

use affinity::UserName;
use bytes::BytesMut;
use futures::{FutureExt, future::BoxFuture};
use storage::{Who, shares::AllShares};
use tokio::io::DuplexStream;
use tracing::{Instrument, field::Empty};

use super::{Preamble, enter};
use crate::{
    client::{Client, Protocol, SessionId},
    connection::Connection,
    imap::{
        foreign::{Neighbours, OWN_TAG},
        guest::Guest,
        reply,
    },
    node::Node,
    session::Left,
};

/// What waits between the two sessions.
const BUFFER_BYTES: usize = 64 * 1024;

/// What one session asks of its node.
pub struct OfNode {
    node: Arc<Node>,
    client: Client,
    user: UserName,
}

impl OfNode {
    /// For the session of `user` from `client`.
    pub fn new(node: Arc<Node>, client: Client, user: UserName) -> OfNode {
        OfNode { node, client, user }
    }
}

impl Neighbours for OfNode {
    fn who(&self) -> BoxFuture<'_, Result<Who, String>> {
        async {
            let record = self.node.auth.record(&self.user).await.map_err(|error| error.to_string())?;
            let groups = record.as_ref().and_then(|record| record.field("groups")).unwrap_or_default();
            let groups = groups.split(',').map(str::trim).filter(|group| !group.is_empty()).map(str::to_owned).collect();
            let anonymous = self.node.config().auth.anonymous_user.as_deref() == Some(self.user.as_str());
            Ok(Who { user: self.user.clone(), groups, anonymous })
        }
        .boxed()
    }

    fn shares(&self) -> BoxFuture<'_, io::Result<AllShares>> {
        async {
            let node = self.node.clone();
            tokio::task::spawn_blocking(move || node.shares.all()).await.map_err(io::Error::other)?
        }
        .boxed()
    }

    fn enter(&self, owner: UserName, guest: Guest) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
        // A session of its own in every list and log.
        let client = Client { session: SessionId::random(), ..self.client.clone() };
        let span = tracing::info_span!("guest", session = %client.session, of = %self.client.session, guest = %guest.user, user = Empty, holder = Empty);
        let connection = Connection::new(Box::new(theirs), client.clone(), BytesMut::new(), self.node.config().limits.write_timeout);
        let preamble = Preamble {
            client,
            protocol: Protocol::Imap,
            user: owner,
            master: Some(guest.user.clone()),
            login_tag: OWN_TAG.to_owned(),
            mark: None,
            guest: Some(guest),
            utf8: false,
            operator: false,
        };
        let node = self.node.clone();
        let session = async move {
            match enter(node, connection, preamble).await {
                Ok(Left::Ended(end)) => tracing::debug!(reason = end.0, "guest session end"),
                // Without a mark no connection comes back.
                Ok(Left::Back(connection)) => connection.close().await,
                Err((mut connection, error)) => {
                    reply::route_error(&error).write(connection.output(), OWN_TAG);
                    connection.close().await;
                }
            }
        };
        self.node.tasks.spawn(session.instrument(span));
        ours
    }
}
