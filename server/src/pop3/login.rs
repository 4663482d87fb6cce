//! The AUTHORIZATION state (RFC 1939 §4, RFC 5034): any node, before it is known whose session it is.
//!
//! Invariants, each with the test that guards it:
//! - where passwords may not be sent, none is looked at (`a_password_in_plain_text_is_refused_unseen`)
//! - what the client pipelined after its login stays for the holder (`commands_after_the_login_are_left_for_the_holder`)

use std::{future::Future, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::BufMut;
use tokio::time::Instant;

use super::{
    command::{self, Command},
    reply::{self, Offers},
};
use crate::{
    auth::{AuthError, Conversation, Login, Turn, sasl::Mechanism},
    client::Client,
    connection::{Connection, ConnectionError},
    lines::{Line, LineReader},
    session::End,
    tls::{TlsAcceptor, TlsFacts},
};

/// How long a TLS handshake may take: a few round trips, for slow links.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);

/// What a login needs to know of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long a client may take to log in.
    pub login_timeout: Duration,
    /// Wrong commands and failed logins before the connection is closed.
    pub bad_commands_max: usize,
    /// See [`Offers`].
    pub login_delay_s: u64,
    /// See [`Offers`].
    pub expire_days: Option<u64>,
}

/// What a session asks of its node before the login.
pub trait Gate: Sync {
    /// The present settings.
    fn settings(&self) -> Settings;
    /// `None`: STLS is not offered.
    fn tls(&self) -> Option<TlsAcceptor>;
    /// Whether passwords may be sent over this connection.
    fn allows_password(&self, client: &Client) -> bool;
    /// The mechanisms that this connection may use.
    fn mechanisms(&self, client: &Client, tls: Option<&TlsFacts>) -> Vec<Mechanism>;
    /// Begins AUTH; `None`: the mechanism is not offered.
    fn begin(&self, mechanism: &str, client: &Client, tls: Option<&TlsFacts>) -> Option<Conversation>;
    /// Checks a password.
    fn verify(&self, login: &str, password: &[u8], client: &Client) -> impl Future<Output = Result<Login, AuthError>> + Send;
}

/// How the AUTHORIZATION state ended.
pub enum Outcome {
    /// Somebody is in: hand the connection over. All replies so far were sent, but none to the login.
    Login(Box<Connection>, Login),
    /// The session is over.
    End(End),
}

/// A client that did not log in yet. It stays in this state when the login is right but no node can serve it.
pub struct Authorization<'a, G> {
    gate: &'a G,
    /// What USER said.
    user: Option<String>,
    /// Whether UTF8 was said.
    utf8: bool,
    deadline: Instant,
    bad_commands: usize,
}

impl<'a, G: Gate> Authorization<'a, G> {
    /// A fresh connection, greeted.
    pub fn greet(gate: &'a G, connection: &mut Connection) -> Authorization<'a, G> {
        reply::ok(connection.output(), "Berth ready.");
        Authorization { gate, user: None, utf8: false, deadline: Instant::now() + gate.settings().login_timeout, bad_commands: 0 }
    }

    /// The login was right, but the maildrop can't be served now.
    pub fn refuse(&mut self, connection: &mut Connection, text: &str) {
        reply::err(connection.output(), text);
        self.deadline = Instant::now() + self.gate.settings().login_timeout;
    }

    /// Whether the client takes characters beyond ASCII in headers.
    pub fn utf8(&self) -> bool {
        self.utf8
    }

    /// Until somebody logs in, or the session ends.
    pub async fn run(&mut self, mut connection: Connection) -> Outcome {
        loop {
            match self.converse(&mut connection).await {
                Ok(Leave::Login(login)) => match connection.flush().await {
                    Ok(()) => return Outcome::Login(Box::new(connection), login),
                    Err(error) => return Outcome::End(error.into()),
                },
                Ok(Leave::StartTls(acceptor)) => match connection.start_tls(&acceptor, HANDSHAKE_MAX).await {
                    Ok(secured) => {
                        connection = secured;
                        // RFC 2595 §4: nothing said in plain text counts any more.
                        self.user = None;
                    }
                    Err(error) => return Outcome::End(End::because(format!("STLS: {error}"))),
                },
                Ok(Leave::End(end)) => {
                    connection.close().await;
                    return Outcome::End(end);
                }
                Err(error) => return Outcome::End(error.into()),
            }
        }
    }

    async fn converse(&mut self, connection: &mut Connection) -> Result<Leave, ConnectionError> {
        let mut lines = LineReader::new(command::LINE_BYTES_MAX);
        loop {
            let line = self.line(connection, &mut lines).await?;
            connection.commanded();
            let parsed = match &line {
                Line::Complete(line) => command::parse(line),
                Line::TooLong => Err("The line is too long"),
            };
            let refused = match parsed {
                Ok(Command::Quit) => {
                    reply::ok(connection.output(), "Bye");
                    return Ok(Leave::End(End::logout()));
                }
                Ok(Command::Capa) => {
                    let offers = offers(self.gate, &connection.client, connection.tls.as_deref());
                    reply::capabilities(connection.output(), &offers);
                    continue;
                }
                Ok(Command::Stls) => match self.start_tls(connection) {
                    Ok(acceptor) => return Ok(Leave::StartTls(acceptor)),
                    Err(text) => text,
                },
                Ok(Command::Mechanisms) => {
                    self.mechanisms(connection);
                    continue;
                }
                Ok(Command::Utf8) => {
                    self.utf8 = true;
                    reply::ok(connection.output(), "Messages are sent as they are");
                    continue;
                }
                Ok(Command::Lang(range)) => match reply::language(connection.output(), range.as_deref()) {
                    Ok(()) => continue,
                    Err(text) => text,
                },
                Ok(Command::User(_) | Command::Pass(_) | Command::Auth { .. }) if !self.gate.allows_password(&connection.client) => {
                    self.user = None;
                    if offers(self.gate, &connection.client, None).tls {
                        "[AUTH] Passwords are not taken over this connection: use STLS first"
                    } else {
                        "[AUTH] Passwords are not taken over this connection: it needs TLS"
                    }
                }
                Ok(Command::User(name)) => {
                    // The same for every name: who is here is nobody's business before the password.
                    reply::ok(connection.output(), "Send PASS");
                    self.user = Some(name);
                    continue;
                }
                Ok(Command::Pass(password)) => match self.user.take() {
                    Some(user) => match self.verify(connection, &user, &password).await {
                        Ok(login) => return Ok(Leave::Login(login)),
                        Err(text) => text,
                    },
                    None => "Send USER first",
                },
                Ok(Command::Auth { mechanism, initial_response }) => {
                    match self.authenticate(connection, &mut lines, &mechanism, initial_response).await? {
                        Ok(login) => return Ok(Leave::Login(login)),
                        Err(text) => text,
                    }
                }
                Ok(_) => "Log in first",
                Err(wrong) => wrong,
            };
            reply::err(connection.output(), refused);
            self.bad_commands += 1;
            if self.bad_commands > self.gate.settings().bad_commands_max {
                reply::err(connection.output(), "Too many wrong commands");
                return Ok(Leave::End(End::because("too many wrong commands or failed logins")));
            }
        }
    }

    /// The next line, by the deadline of the login.
    async fn line(&self, connection: &mut Connection, lines: &mut LineReader) -> Result<Line, ConnectionError> {
        loop {
            if let Some(line) = lines.next(connection.input()) {
                return Ok(line);
            }
            connection.flush().await?;
            connection.fill(self.deadline.saturating_duration_since(Instant::now())).await?;
        }
    }

    fn start_tls(&self, connection: &mut Connection) -> Result<TlsAcceptor, &'static str> {
        if connection.client.tls.is_some() {
            return Err("TLS is active already");
        }
        if self.utf8 {
            // RFC 6856 §2.1: a protocol error.
            return Err("STLS comes before UTF8");
        }
        let acceptor = self.gate.tls().ok_or("STLS is not offered")?;
        reply::ok(connection.output(), "Begin TLS");
        Ok(acceptor)
    }

    fn mechanisms(&self, connection: &mut Connection) {
        let offered = self.gate.mechanisms(&connection.client, connection.tls.as_deref());
        let out = connection.output();
        reply::ok(out, "Mechanisms follow");
        for mechanism in offered {
            out.put_slice(mechanism.name().as_bytes());
            out.put_slice(b"\r\n");
        }
        out.put_slice(b".\r\n");
    }

    async fn verify(&self, connection: &Connection, login: &str, password: &[u8]) -> Result<Login, &'static str> {
        let _check = connection.in_check();
        self.gate.verify(login, password, &connection.client).await.map_err(|error| reply::auth_error(&error))
    }

    /// AUTH (RFC 5034 §4).
    async fn authenticate(
        &self,
        connection: &mut Connection,
        lines: &mut LineReader,
        mechanism: &str,
        initial_response: Option<String>,
    ) -> Result<Result<Login, &'static str>, ConnectionError> {
        const NOT_BASE64: &str = "The response is not base64";
        let Some(mut conversation) = self.gate.begin(mechanism, &connection.client, connection.tls.as_deref()) else {
            return Ok(Err("The mechanism is not offered"));
        };
        let mut response = match initial_response.as_deref() {
            None => None,
            Some("=") => Some(Vec::new()),
            Some(encoded) => match BASE64_STANDARD.decode(encoded) {
                Ok(decoded) => Some(decoded),
                Err(_) => return Ok(Err(NOT_BASE64)),
            },
        };
        loop {
            connection.flush().await?;
            let check = connection.in_check();
            let turn = conversation.respond(response.as_deref()).await;
            drop(check);
            match turn {
                Turn::Done(decided) => return Ok(decided.map_err(|error| reply::auth_error(&error))),
                Turn::Malformed(text) => return Ok(Err(text)),
                Turn::Challenge(challenge) => {
                    let challenge = format!("+ {}\r\n", BASE64_STANDARD.encode(challenge));
                    connection.output().put_slice(challenge.as_bytes());
                    response = match self.line(connection, lines).await? {
                        Line::Complete(line) if &line[..] == b"*" => return Ok(Err("AUTH was cancelled")),
                        Line::Complete(line) => match BASE64_STANDARD.decode(&line) {
                            Ok(decoded) => Some(decoded),
                            Err(_) => return Ok(Err(NOT_BASE64)),
                        },
                        Line::TooLong => return Ok(Err("The response is too long")),
                    };
                }
            }
        }
    }
}

/// Why the conversation on this stream is over.
enum Leave {
    Login(Login),
    StartTls(TlsAcceptor),
    End(End),
}

/// What can be used on this connection.
pub fn offers<G: Gate>(gate: &G, client: &Client, tls: Option<&TlsFacts>) -> Offers {
    let settings = gate.settings();
    Offers {
        login_delay_s: settings.login_delay_s,
        expire_days: settings.expire_days,
        passwords: gate.allows_password(client),
        mechanisms: gate.mechanisms(client, tls),
        tls: client.tls.is_none() && gate.tls().is_some(),
    }
}

#[cfg(test)]
mod tests;
