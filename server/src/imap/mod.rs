//! IMAP4rev1 (RFC 3501) and its extensions.

pub mod command;
pub mod wire;

use std::sync::Arc;

use crate::{
    connection::Connection,
    forward::{Held, Preamble},
    node::Node,
    session::End,
};

/// A fresh client connection: greets, answers what may be asked before login, and hands the connection over after it (`forward::enter`).
pub async fn accept(node: Arc<Node>, connection: Connection) -> End {
    let _ = (node, connection);
    todo!()
}

/// A logged-in session on its holder: answers the login command first (`preamble.login_tag`), then runs until LOGOUT.
pub async fn serve(node: Arc<Node>, connection: Connection, held: Held, preamble: Preamble) -> End {
    let _ = (node, connection, held, preamble);
    todo!()
}
