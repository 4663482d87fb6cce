//! POP3 (RFC 1939, 2449, 2595).

use std::sync::Arc;

use crate::{
    connection::Connection,
    forward::{Held, Preamble},
    node::Node,
    session::End,
};

/// A fresh client connection: the AUTHORIZATION state; hands the connection over after login (`forward::enter`).
pub async fn accept(node: Arc<Node>, connection: Connection) -> End {
    let _ = (node, connection);
    todo!()
}

/// The TRANSACTION and UPDATE states on the holder: sends the `+OK` of the login first.
pub async fn serve(node: Arc<Node>, connection: Connection, held: Held, preamble: Preamble) -> End {
    let _ = (node, connection, held, preamble);
    todo!()
}
