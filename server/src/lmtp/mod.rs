//! LMTP (RFC 2033): any node takes a delivery, each recipient is stored by the holder of their lease.

pub mod delivery;
pub mod message;

use std::sync::Arc;

use crate::{connection::Connection, node::Node, session::End};

/// A connection of a mail transfer agent, until QUIT.
pub async fn accept(node: Arc<Node>, connection: Connection) -> End {
    let _ = (node, connection);
    todo!()
}
