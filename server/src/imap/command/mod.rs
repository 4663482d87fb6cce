//! Commands of a logged-in session, one file per family; the smallest ones here.

pub mod append;
pub mod contexts;
pub mod copy_move;
pub mod enable;
pub mod expunge;
pub mod fetch;
pub mod idle;
pub mod list;
pub mod mailboxes;
pub mod metadata;
pub mod notify;
pub mod search;
pub mod search_command;
pub mod select;
pub mod sort;
pub mod status;
pub mod store;
pub mod thread;
pub mod vanished;

use tracing::debug;

use crate::{
    connection::Connection,
    imap::{
        holding::Holding,
        reply::{Reply, Stop},
        session::Session,
        state::State,
        wire::response,
    },
};

/// NOOP and CHECK: looks for what other programs brought; the updates that follow every command tell it.
pub async fn noop<H: Holding>(session: &mut Session<H>, state: &mut State) -> Result<Reply, Stop> {
    if let State::Selected(selected) = state {
        let mailbox = selected.mailbox.clone();
        session.held.run(move |_| mailbox.refresh(false)).await?;
    }
    Ok(Reply::ok("Completed"))
}

/// One field of a client's ID.
pub type IdField = (Vec<u8>, Option<Vec<u8>>);

/// ID (RFC 2971), before and after login. What the client says of itself is for the log only.
pub fn id(connection: &mut Connection, fields: Option<&[IdField]>) -> Reply {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
    let said: Vec<String> = fields
        .unwrap_or_default()
        .iter()
        .map(|(name, value)| format!("{}={}", text(name), value.as_deref().map_or_else(String::new, text)))
        .collect();
    debug!(session = %connection.client.session, client = %said.join(", "), "ID");
    response::id(connection.output(), &[("name", "Berth"), ("version", env!("CARGO_PKG_VERSION"))]);
    Reply::ok("ID completed")
}
