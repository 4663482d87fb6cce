//! Before login, on the node that the client reached: greeting, STARTTLS, LOGIN and AUTHENTICATE.
//!
//! - A password is never taken over a connection that others can read (`Authenticator::allows_password`).
//! - A successful login is not answered here: the holder does that, once it has the account.
//! - The time to log in is bounded as a whole, and so are attempts.

use std::{pin::Pin, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::time::{Sleep, sleep};
use tracing::debug;

use crate::{
    auth::{AuthError, Authenticator, Login, Turn},
    client::Protocol,
    config,
    connection::{Connection, ConnectionError},
    imap::{
        capability,
        command::id,
        reply::{Reply, Stop},
        wire::{
            command::{Command, Tagged},
            enabled::Enabled,
            framing::{Framer, Limits, LineStep, Step},
            parse::{self, Options, SaslLine},
            response::{self, Code, Condition},
        },
    },
    session::End,
    tls::TlsAcceptor,
};

/// What a client may send before we know who it is: nothing it needs is larger than a SASL response.
const LIMITS: Limits = Limits { line_bytes: 16 * 1024, literal_bytes: 4 * 1024, command_bytes: 32 * 1024 };
/// SEARCH is not for strangers.
const NESTING: usize = 1;

/// What stands between a stranger and a mailbox.
pub struct Door<'a> {
    auth: &'a Authenticator,
    tls: Option<&'a TlsAcceptor>,
    login_timeout: Duration,
    attempts_max: usize,
    deadline: Pin<Box<Sleep>>,
    framer: Framer,
    failures: usize,
    /// The client was logged in before, and its first byte since has not come: see [`Door::again`].
    is_again: bool,
}

/// How a stranger fared.
pub enum Admission {
    /// Is somebody: the login command is not answered yet.
    Admitted {
        /// The connection, with what the client sent ahead.
        connection: Box<Connection>,
        /// Who.
        login: Login,
        /// The login command's tag.
        tag: String,
    },
    /// Is gone.
    Left(End),
}

/// How a command left the conversation.
enum Next {
    GoOn,
    StartTls,
    Admit(Login),
    Logout,
}

impl<'a> Door<'a> {
    /// A door for one connection; the time to log in runs from here.
    pub fn new(auth: &'a Authenticator, tls: Option<&'a TlsAcceptor>, limits: &config::Limits) -> Door<'a> {
        Door {
            auth,
            tls,
            login_timeout: limits.login_timeout,
            attempts_max: limits.bad_commands,
            deadline: Box::pin(sleep(limits.login_timeout)),
            framer: Framer::new(LIMITS),
            failures: 0,
            is_again: false,
        }
    }

    /// For a client that was logged in before (UNAUTHENTICATE, RFC 8437). What its compressed stream may leave behind its last command, the end of a block that it
    /// flushed, is no byte that a tag can have, and is skipped.
    pub fn again(self) -> Door<'a> {
        Door { is_again: true, ..self }
    }

    fn skip_the_end_of_a_stream(&mut self, input: &mut BytesMut) {
        if self.is_again {
            let rest = input.iter().take_while(|byte| !byte.is_ascii_graphic() && !b"\r\n ".contains(byte)).count();
            input.advance(rest);
            self.is_again = input.is_empty();
        }
    }

    /// Writes the greeting.
    pub fn greet(&self, mut connection: Connection) -> Connection {
        let capabilities = self.capabilities(&connection);
        let capabilities: Vec<&str> = capabilities.iter().map(String::as_str).collect();
        response::untagged(connection.output(), Condition::Ok, Some(&Code::Capability(&capabilities)), "Berth ready");
        connection
    }

    /// Talks until the client is somebody or gone. May be called again when a login led nowhere.
    pub async fn admit(&mut self, mut connection: Connection) -> Admission {
        let end = loop {
            let (tag, next) = match self.next_command(&mut connection).await {
                Ok(step) => step,
                Err(Stop::Bye(text)) => {
                    response::bye(connection.output(), None, &text);
                    break End::because(text);
                }
                Err(Stop::Reply(reply)) => break End::because(reply.text),
                Err(Stop::Connection(error)) => break End::from(error),
            };
            match next {
                Next::GoOn if self.failures > self.attempts_max => {
                    response::bye(connection.output(), None, "Too many failed commands");
                    break End::because("too many failed commands before login");
                }
                Next::GoOn => {}
                Next::Admit(login) => return Admission::Admitted { connection: Box::new(connection), login, tag },
                Next::Logout => break End::logout(),
                Next::StartTls => {
                    let Some(acceptor) = self.tls else { continue };
                    connection = match connection.start_tls(acceptor, self.login_timeout).await {
                        Ok(inside) => inside,
                        Err(error) => return Admission::Left(End::because(format!("TLS: {error}"))),
                    };
                    self.framer = Framer::new(LIMITS);
                }
            }
        };
        connection.close().await;
        Admission::Left(end)
    }

    /// Reads and runs one command; its tag, and what comes of it.
    async fn next_command(&mut self, connection: &mut Connection) -> Result<(String, Next), Stop> {
        connection.commanded();
        loop {
            self.skip_the_end_of_a_stream(connection.input());
            match self.framer.next(connection.input()) {
                Step::NeedInput => self.fill(connection).await?,
                Step::Continue { text } => response::continuation(connection.output(), text),
                Step::Command(line) if line.is_empty() => {}
                Step::Command(line) => match parse::parse(&line, Options { enabled: Enabled::NOTHING, nesting: NESTING }) {
                    Ok(Tagged { tag, command }) => {
                        let next = match self.run(connection, &tag, command).await {
                            Ok(next) => next,
                            Err(Stop::Reply(reply)) => {
                                self.failures += 1;
                                reply.write(connection.output(), &tag);
                                Next::GoOn
                            }
                            Err(stop) => return Err(stop),
                        };
                        return Ok((tag, next));
                    }
                    Err(error) => return Ok(self.refuse(connection, error.tag, error.reason)),
                },
                Step::Append(start) => {
                    self.framer.refuse_literal();
                    return Ok(self.refuse(connection, Some(start.tag), LOG_IN_FIRST.to_owned()));
                }
                Step::AppendMore(_) => {}
                Step::Refused(refusal) if refusal.fatal => return Err(Stop::Bye(refusal.reason.into())),
                Step::Refused(refusal) => return Ok(self.refuse(connection, refusal.tag, refusal.reason)),
            }
        }
    }

    fn refuse(&mut self, connection: &mut Connection, tag: Option<String>, reason: String) -> (String, Next) {
        self.failures += 1;
        let reply = Reply::bad(reason);
        match &tag {
            Some(tag) => reply.write(connection.output(), tag),
            None => reply.write_untagged(connection.output()),
        }
        (tag.unwrap_or_default(), Next::GoOn)
    }

    async fn run(&mut self, connection: &mut Connection, tag: &str, command: Command) -> Result<Next, Stop> {
        let reply = match command {
            Command::Capability => {
                let capabilities = self.capabilities(connection);
                let capabilities: Vec<&str> = capabilities.iter().map(String::as_str).collect();
                response::capability(connection.output(), &capabilities);
                Reply::ok("Capability completed")
            }
            Command::Noop => Reply::ok("Completed"),
            Command::Id(fields) => id(connection, fields.as_deref()),
            Command::Logout => {
                response::bye(connection.output(), None, "Logging out");
                Reply::ok("Logout completed").write(connection.output(), tag);
                return Ok(Next::Logout);
            }
            Command::StartTls => {
                self.may_start_tls(connection)?;
                Reply::ok("Begin TLS negotiation now").write(connection.output(), tag);
                return Ok(Next::StartTls);
            }
            Command::Login { user, password } => {
                self.may_send_password(connection)?;
                let Ok(user) = String::from_utf8(user) else { return Err(wrong_credentials().into()) };
                return self.verify(connection, &user, &password).await.map(Next::Admit);
            }
            Command::Authenticate { mechanism, initial } => {
                self.may_send_password(connection)?;
                return self.exchange(connection, &mechanism, initial).await.map(Next::Admit);
            }
            _ => Reply::bad(LOG_IN_FIRST),
        };
        if reply.condition == Condition::Bad {
            return Err(reply.into());
        }
        reply.write(connection.output(), tag);
        Ok(Next::GoOn)
    }

    fn capabilities(&self, connection: &Connection) -> Vec<String> {
        let mechanisms = self.auth.mechanisms(&connection.client, connection.tls.as_deref());
        capability::before_login(&connection.client, self.tls.is_some(), self.auth.allows_password(&connection.client), &mechanisms)
    }

    fn may_start_tls(&self, connection: &Connection) -> Result<(), Reply> {
        match (&connection.client.tls, self.tls) {
            (Some(_), _) => Err(Reply::bad("TLS is active already")),
            (None, None) => Err(Reply::no(Code::Cannot, "TLS is not available")),
            (None, Some(_)) => Ok(()),
        }
    }

    fn may_send_password(&self, connection: &Connection) -> Result<(), Reply> {
        if self.auth.allows_password(&connection.client) {
            return Ok(());
        }
        Err(Reply::no(Code::PrivacyRequired, "Passwords are not taken over this connection: use TLS"))
    }

    /// A SASL exchange.
    async fn exchange(&mut self, connection: &mut Connection, mechanism: &str, initial: Option<Vec<u8>>) -> Result<Login, Stop> {
        let begun = self.auth.begin(mechanism, &connection.client, connection.tls.as_deref(), Protocol::Imap);
        let Some(mut conversation) = begun else {
            return Err(Reply::no(Code::Cannot, "This SASL mechanism is not offered").into());
        };
        let mut from_client = initial;
        loop {
            connection.flush().await?;
            let check = connection.in_check();
            let turn = conversation.respond(from_client.as_deref()).await;
            drop(check);
            match turn {
                Turn::Done(decided) => return self.decided(connection, decided),
                Turn::Malformed(reason) => return Err(Reply::bad(reason).into()),
                Turn::Challenge(challenge) => response::challenge(connection.output(), &challenge),
            }
            from_client = Some(self.sasl_response(connection).await?);
        }
    }

    async fn sasl_response(&mut self, connection: &mut Connection) -> Result<Vec<u8>, Stop> {
        loop {
            match self.framer.next_line(connection.input(), LIMITS.line_bytes) {
                LineStep::NeedInput => self.fill(connection).await?,
                LineStep::TooLong => return Err(Reply::bad("The SASL response is too long").into()),
                LineStep::Line(line) => {
                    return match parse::sasl_line(&line) {
                        SaslLine::Response(response) => Ok(response),
                        SaslLine::Cancel => Err(Reply::bad("Authentication cancelled").into()),
                        SaslLine::Malformed => Err(Reply::bad("The SASL response is not base64").into()),
                    };
                }
            }
        }
    }

    async fn verify(&self, connection: &mut Connection, user: &str, password: &[u8]) -> Result<Login, Stop> {
        connection.flush().await?;
        let check = connection.in_check();
        let decided = self.auth.verify(user, password, &connection.client, Protocol::Imap).await;
        drop(check);
        self.decided(connection, decided)
    }

    fn decided(&self, connection: &Connection, decided: Result<Login, AuthError>) -> Result<Login, Stop> {
        match decided {
            Ok(login) => {
                debug!(session = %connection.client.session, user = login.user.as_str(), "login accepted");
                Ok(login)
            }
            // Whoever decided wrote the log line: it knows the reason that a client must not.
            Err(error) => Err(auth_error(&error).into()),
        }
    }

    /// Sends what is ready and waits for more, until the time to log in is over.
    async fn fill(&mut self, connection: &mut Connection) -> Result<(), Stop> {
        connection.flush().await?;
        tokio::select! {
            filled = connection.fill(self.login_timeout) => match filled {
                Err(ConnectionError::Timeout(_)) => Err(too_late()),
                other => Ok(other?),
            },
            () = &mut self.deadline => Err(too_late()),
        }
    }
}

const LOG_IN_FIRST: &str = "Log in first";

fn too_late() -> Stop {
    Stop::Bye("Disconnected: no login in time".into())
}

fn wrong_credentials() -> Reply {
    Reply::no(Code::AuthenticationFailed, "Wrong user name or password")
}

fn auth_error(error: &AuthError) -> Reply {
    match error {
        AuthError::WrongCredentials => wrong_credentials(),
        AuthError::NotAllowed(_) => Reply::no(Code::ContactAdmin, "This account may not log in here, ask its administrator"),
        AuthError::Crowded => Reply::no(Code::Unavailable, "Too many wrong passwords came from this network, please try again later"),
        AuthError::Unavailable(_) => Reply::no(Code::Unavailable, "Logins can't be checked at the moment, please try again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wrong_password_is_called_one() {
        let code = |error| auth_error(&error).code;
        assert_eq!(code(AuthError::WrongCredentials), Some(Code::AuthenticationFailed.into()));
        assert_eq!(code(AuthError::NotAllowed("disabled".into())), Some(Code::ContactAdmin.into()));
        let unavailable = auth_error(&AuthError::Unavailable("/etc/users: gone".into()));
        assert_eq!(unavailable.code, Some(Code::Unavailable.into()));
        assert!(!unavailable.text.contains("/etc"));
    }
}
