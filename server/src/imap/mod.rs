//! IMAP4rev1 (RFC 3501) and its extensions.
//!
//! [`accept`] runs on the node that a client reached, up to its login; [`serve`] on the holder of the user's lease, from there on.
//! `session.rs` reads commands and runs them (`command/`), `view.rs` keeps what the client believes, `updates.rs` tells it what changed,
//! `reply.rs` has the words for errors, `wire/` the grammar.

mod capability;
mod command;
pub mod foreign;
pub mod guest;
mod holding;
mod limits;
mod login;
mod patience;
pub mod reply;
mod session;
mod sets;
mod state;
mod updates;
mod view;
pub mod wire;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use affinity::UserName;

use self::{
    foreign::Sharing,
    limits::MessageLimits,
    login::{Admission, Door},
    session::{Session, Settings},
    wire::enabled::Separator,
};
use crate::{
    client::Protocol,
    config::Config,
    connection::Connection,
    forward::{self, Held, Mark, Preamble, guest::OfNode},
    node::Node,
    session::{End, Left},
};

/// How often a client that waits for a long command hears how far it is: before it gives up (20 s is short), and not so often that it costs anything.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// A fresh client connection: greets, answers what may be asked before login, and hands the connection over after it (`forward::enter`).
pub async fn accept(node: Arc<Node>, connection: Connection) -> End {
    let limits = node.config().limits.clone();
    let tls = node.tls.as_ref().map(|tls| tls.acceptor(Protocol::Imap));
    let mut door = Door::new(&node.auth, tls.as_ref(), &limits);
    let room_wanted = connection.room_wanted().unwrap_or_default();
    let mut connection = door.greet(connection);
    loop {
        let (admitted, login, tag) = match door.admit(connection).await {
            Admission::Admitted { connection, login, tag } => (connection, login, tag),
            Admission::Left(end) => return end,
        };
        let preamble = Preamble {
            client: admitted.client.clone(),
            protocol: Protocol::Imap,
            user: login.user,
            master: login.master,
            login_tag: tag.clone(),
            mark: Some(Mark::random()),
            guest: None,
            utf8: false,
            operator: false,
        };
        match forward::enter(Arc::clone(&node), *admitted, preamble).await {
            Ok(Left::Ended(end)) => return end,
            Ok(Left::Back(back)) => {
                tracing::info!("logged out, to log in anew");
                let address = back.client.address.ip();
                let stranger = node.admission.stranger_again(address, limits.connections_before_login, room_wanted.clone());
                connection = back.of_a_stranger(Some(stranger));
                door = Door::new(&node.auth, tls.as_ref(), &limits).again();
            }
            Err((back, error)) => {
                connection = *back;
                reply::route_error(&error).write(connection.output(), &tag);
            }
        }
    }
}

/// The tag of the login that nobody had to give.
pub const OPERATOR_TAG: &str = "login";

/// A session that an operator on this host opened without a password; served by the holder, as every session.
pub async fn serve_operator(node: Arc<Node>, connection: Connection, user: UserName) -> End {
    let login_tag = OPERATOR_TAG.to_owned();
    let preamble = Preamble {
        client: connection.client.clone(),
        protocol: Protocol::Imap,
        user,
        master: None,
        login_tag,
        mark: None,
        guest: None,
        utf8: false,
        operator: true,
    };
    match forward::enter(node, connection, preamble).await {
        Ok(Left::Ended(end)) => end,
        Ok(Left::Back(connection)) => {
            connection.close().await;
            End::because("no other login is possible here")
        }
        Err((mut connection, error)) => {
            reply::route_error(&error).write(connection.output(), OPERATOR_TAG);
            connection.close().await;
            End::because(error.to_string())
        }
    }
}

/// A logged-in session on its holder: answers the login command first (`preamble.login_tag`), then runs until LOGOUT.
pub async fn serve(node: Arc<Node>, connection: Connection, held: Held, preamble: Preamble) -> Left {
    let config = node.config();
    let client = connection.client.clone();
    let mut settings = Settings { may_log_in_anew: preamble.mark.is_some(), may_set_quota: preamble.may_set_quota(), ..settings(&config) };
    if preamble.operator {
        settings.message_limits = MessageLimits::None;
    }
    let session = Session::new(connection, held, settings);
    let session = match preamble.guest {
        Some(guest) => session.of_guest(guest),
        None if config.mail.sharing => {
            let account = config.mail.shared_account.as_deref().and_then(|name| UserName::normalise(name).ok());
            session.with_sharing(Sharing::new(Arc::new(OfNode::new(node.clone(), client, preamble.user)), account))
        }
        None => session,
    };
    drop((node, config));
    session.run(&preamble.login_tag).await
}

fn settings(config: &Config) -> Settings {
    let limits = &config.limits;
    let bytes = |size: bytesize::ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
    Settings {
        limits: wire::framing::Limits {
            line_bytes: bytes(limits.line_bytes),
            literal_bytes: bytes(limits.literal_bytes),
            command_bytes: bytes(limits.command_bytes),
        },
        nesting: limits.nesting,
        message_bytes: limits.message_bytes.as_u64(),
        refuse_8bit_headers: limits.refuse_8bit_headers,
        separator: Separator::parse(&config.mail.separator).unwrap_or_default(),
        bad_commands: limits.bad_commands,
        idle_timeout: limits.idle_timeout,
        progress_interval: PROGRESS_INTERVAL,
        rescan_interval: config.mail.rescan_interval,
        may_log_in_anew: false,
        may_set_quota: false,
        message_limits: MessageLimits::new(config.imap.message_limit, config.imap.save_limit),
    }
}
