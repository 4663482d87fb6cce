//! POP3 (RFC 1939, 2449, 2595, 3206, 5034, 6856).
//!
//! `login` is the AUTHORIZATION state on whatever node the client reached; `transaction` is the rest, on the holder of the
//! user's lease. Nothing is removed before QUIT.

pub mod command;
pub mod lock;
pub mod login;
pub mod maildrop;
pub mod reply;
pub mod transaction;
pub mod wire;

use std::sync::Arc;

use storage::MailboxName;

pub use self::lock::{MaildropLock, MaildropLocks};
use self::{
    login::{Authorization, Gate},
    maildrop::{HeldInbox, Rules},
};
use crate::{
    auth::{AuthError, Conversation, Login, sasl::Mechanism},
    client::{Client, Protocol},
    connection::Connection,
    forward::{self, Held, Preamble},
    node::Node,
    session::{End, Left},
    tls::{TlsAcceptor, TlsFacts},
};

/// One day.
const DAY_S: u64 = 24 * 60 * 60;

/// A fresh client connection: the AUTHORIZATION state; hands the connection over after login (`forward::enter`).
pub async fn accept(node: Arc<Node>, mut connection: Connection) -> End {
    let mut authorization = Authorization::greet(&node, &mut connection);
    loop {
        let (entering, login) = match authorization.run(connection).await {
            login::Outcome::Login(connection, login) => (*connection, login),
            login::Outcome::End(end) => return end,
        };
        let preamble = Preamble {
            client: entering.client.clone(),
            protocol: Protocol::Pop3,
            user: login.user,
            master: login.master,
            login_tag: String::new(),
            mark: None,
            guest: None,
            utf8: authorization.utf8(),
            operator: false,
        };
        match forward::enter(Arc::clone(&node), entering, preamble).await {
            Ok(Left::Ended(end)) => return end,
            // POP3 has no way back.
            Ok(Left::Back(back)) => {
                back.close().await;
                return End::because("closed");
            }
            Err((returned, error)) => {
                connection = *returned;
                tracing::warn!(session = %connection.client.session, %error, "a POP3 login could not be served");
                authorization.refuse(&mut connection, reply::route_error(&error));
            }
        }
    }
}

/// The TRANSACTION and UPDATE states on the holder: sends the `+OK` of the login first.
pub async fn serve(node: Arc<Node>, mut connection: Connection, held: Held, preamble: Preamble) -> End {
    let Some(lock) = node.maildrop_locks.try_lock(&preamble.user) else {
        reply::err(connection.output(), "[IN-USE] Another POP3 session has the maildrop");
        connection.close().await;
        return End::because("another POP3 session has the maildrop");
    };
    let pop3 = node.config().pop3.clone();
    if let Some(left) = node.maildrop_locks.too_soon(&preamble.user, pop3.login_delay) {
        reply::err(connection.output(), &format!("[LOGIN-DELAY] The next login may come in {} seconds", left.as_secs() + 1));
        connection.close().await;
        return End::because("the last login was too short a time ago (pop3.login_delay)");
    }
    let rules = Rules::new(&pop3);
    let inbox = match HeldInbox::open(held, lock, rules).await {
        Ok(inbox) => inbox,
        Err(error) => {
            tracing::warn!(session = %preamble.client.session, user = %preamble.user, %error, "a maildrop could not be opened");
            reply::err(connection.output(), reply::storage_error(&error));
            connection.close().await;
            return End::because(format!("the maildrop could not be opened: {error}"));
        }
    };
    node.maildrop_locks.let_in(&preamble.user, pop3.login_delay);
    let settings = transaction::Settings {
        offers: login::offers(&node, &preamble.client, None),
        utf8: preamble.utf8,
        bad_commands_max: node.config().limits.bad_commands,
    };
    transaction::run(&inbox, connection, settings).await
}

impl Gate for Arc<Node> {
    fn settings(&self) -> login::Settings {
        let config = self.config();
        let inbox = MailboxName::inbox();
        let expires = config.expiry.parsed().iter().find(|rule| rule.names(&inbox)).map(|rule| (rule.age().as_secs() / DAY_S).max(1));
        login::Settings {
            login_timeout: config.limits.login_timeout,
            bad_commands_max: config.limits.bad_commands,
            login_delay_s: config.pop3.login_delay.as_secs(),
            expire_days: expires,
        }
    }

    fn tls(&self) -> Option<TlsAcceptor> {
        Some(self.tls.as_ref()?.acceptor(Protocol::Pop3))
    }

    fn allows_password(&self, client: &Client) -> bool {
        self.auth.allows_password(client)
    }

    fn mechanisms(&self, client: &Client, tls: Option<&TlsFacts>) -> Vec<Mechanism> {
        self.auth.mechanisms(client, tls)
    }

    fn begin(&self, mechanism: &str, client: &Client, tls: Option<&TlsFacts>) -> Option<Conversation> {
        self.auth.begin(mechanism, client, tls, Protocol::Pop3)
    }

    async fn verify(&self, login: &str, password: &[u8], client: &Client) -> Result<Login, AuthError> {
        self.auth.verify(login, password, client, Protocol::Pop3).await
    }
}
