//! One LMTP connection: LHLO, then any number of transactions (RFC 2033, RFC 5321 §4.1).
//!
//! Invariants, each with the test that guards it:
//! - one reply per accepted recipient, in order, whatever happens to the message (`each_accepted_recipient_has_its_own_reply_in_order`,
//!   `a_message_beyond_the_limit_is_refused_for_every_recipient`)
//! - a chunk's bytes are never taken for commands, accepted or not (`the_bytes_of_a_refused_chunk_are_no_commands`)
//! - commands that come in one packet are answered in order, and what follows a message is a command again (`pipelined_commands_are_answered_in_order`)
//! - a message takes bounded memory, and the disk is only touched off the async threads ([`super::message`])
//!
//! Not here: what becomes of a message (`forward::deliver`, then [`super::delivery`] on each holder).

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use affinity::NodeName;
use bytes::BufMut;

use super::{
    attributes::{Attribute, Said},
    command::{self, Command, MailFrom, RcptTo},
    delivery::{Addressee, Envelope, Outcome, Profile},
    message::Message,
    receive::{Receiver, too_large},
    reply::{self, Reply},
};
use crate::{
    auth::{AuthError, Recipient},
    client::Client,
    connection::{Connection, ConnectionError},
    lines::{Line, LineReader},
    session::End,
    tls::{TlsAcceptor, TlsFacts},
};

/// How long a client may be silent, between commands and inside a message (RFC 5321 §4.5.3.2.7: 5 minutes at least).
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(5 * 60);
/// How long a TLS handshake may take: a few round trips, for slow links.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);

/// What a session needs to know of the configuration. Asked for anew at each command: a reload may change it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names this node in greetings.
    pub node: NodeName,
    /// Largest message, as SIZE says it.
    pub message_bytes_max: u64,
    /// Recipients of one transaction.
    pub recipients_max: usize,
    /// Wrong commands before the connection is closed.
    pub bad_commands_max: usize,
    /// Node-local folder for large messages.
    pub spool_dir: PathBuf,
    /// What becomes of messages.
    pub profile: Profile,
}

/// Whether a client may deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Yes.
    Granted,
    /// Not before it has shown a certificate.
    NeedsCertificate,
    /// No.
    Refused,
}

/// What a session asks of its node.
pub trait Backend: Sync {
    /// The present settings.
    fn settings(&self) -> Settings;
    /// Whether this client may deliver, by where it comes from or by the certificate that it showed.
    fn access(&self, tls: Option<&TlsFacts>) -> Access;
    /// Whether what this address says of the clients before it is believed (XCLIENT, XFORWARD).
    fn trusts(&self, peer: IpAddr) -> bool;
    /// `None`: STARTTLS is not offered.
    fn tls(&self) -> Option<TlsAcceptor>;
    /// Who an address, as the client wrote it, is; `None`: nobody here.
    fn recipient(&self, address: &str) -> impl Future<Output = Result<Option<Recipient>, AuthError>> + Send;
    /// Whether it is known already that a message of `bytes` fits nowhere for this recipient; then what to say.
    fn over_quota(&self, recipient: &Recipient, bytes: u64) -> Option<Reply>;
    /// Delivers to every recipient; the outcomes are in the order of `to`.
    fn deliver(
        &self,
        client: &Client,
        envelope: &Envelope,
        to: &[Addressee],
        message: &Message,
    ) -> impl Future<Output = Vec<Outcome>> + Send;
}

/// Serves a connection until it ends.
pub async fn run<B: Backend>(backend: &B, mut connection: Connection) -> End {
    let settings = backend.settings();
    if backend.access(connection.tls.as_deref()) == Access::Refused {
        let text = format!("{} does not take mail from {}", settings.node, connection.client.address.ip().to_canonical());
        Reply::new(554, "5.7.1", text).write(connection.output());
        connection.close().await;
        return End::because("its network is not in [lmtp] allow");
    }
    Reply::new(220, "", format!("{} Berth LMTP ready", settings.node)).write(connection.output());
    let mut session = Session::new(backend, connection.client.address.ip());
    loop {
        match session.converse(&mut connection).await {
            Ok(Leave::StartTls(acceptor)) => match connection.start_tls(&acceptor, HANDSHAKE_MAX).await {
                Ok(secured) => {
                    connection = secured;
                    // RFC 3207 §4.2: nothing said in plain text counts any more.
                    session = Session { bad_commands: session.bad_commands, ..Session::new(backend, session.peer) };
                }
                Err(error) => return End::because(format!("STARTTLS: {error}")),
            },
            Ok(Leave::End(end)) => {
                connection.close().await;
                return end;
            }
            Err(error) => {
                if let ConnectionError::Timeout(_) = error {
                    Reply::new(421, "4.4.2", format!("{} waited too long for you", settings.node)).write(connection.output());
                    connection.close().await;
                }
                return error.into();
            }
        }
    }
}

struct Session<'a, B> {
    backend: &'a B,
    /// Who is connected, whatever XCLIENT says since.
    peer: IpAddr,
    lhlo: Option<String>,
    /// What XFORWARD said of the next message.
    forwarded: Vec<Attribute>,
    transaction: Option<Transaction>,
    /// Since the last message that was taken: a long-lived connection of a busy sender may err now and then.
    bad_commands: usize,
}

struct Transaction {
    mail: MailFrom,
    to: Vec<Addressee>,
    /// What BDAT brought so far; `None` before the first.
    chunks: Option<Receiver>,
}

/// Why the conversation on this stream is over.
enum Leave {
    End(End),
    StartTls(TlsAcceptor),
}

impl<'a, B: Backend> Session<'a, B> {
    /// Nothing was said yet.
    fn new(backend: &'a B, peer: IpAddr) -> Session<'a, B> {
        Session { backend, peer, lhlo: None, forwarded: Vec::new(), transaction: None, bad_commands: 0 }
    }

    async fn converse(&mut self, connection: &mut Connection) -> Result<Leave, ConnectionError> {
        let mut lines = LineReader::new(command::LINE_BYTES_MAX);
        loop {
            let parsed = match lines.next(connection.input()) {
                Some(Line::Complete(line)) => command::parse(&line),
                Some(Line::TooLong) => Err(Reply::new(500, "5.5.2", "The line is too long")),
                None => {
                    connection.flush().await?;
                    connection.fill(SILENCE_MAX).await?;
                    continue;
                }
            };
            connection.commanded();
            let done = match parsed {
                Ok(Command::Quit) => {
                    Reply::new(221, "2.0.0", "Bye").write(connection.output());
                    return Ok(Leave::End(End::logout()));
                }
                Ok(Command::StartTls) => match self.start_tls(connection) {
                    Ok(acceptor) => return Ok(Leave::StartTls(acceptor)),
                    Err(refused) => Err(refused),
                },
                Ok(Command::Data) => match self.take_transaction() {
                    Ok(transaction) => {
                        self.data(connection, transaction).await?;
                        continue;
                    }
                    Err(refused) => Ok(refused),
                },
                Ok(Command::Bdat { bytes, last }) => {
                    self.bdat(connection, bytes, last).await?;
                    continue;
                }
                Ok(Command::Said(said, attributes)) => self.said(&mut connection.client, said, attributes),
                Ok(Command::Lhlo(host)) => {
                    self.lhlo(connection, host);
                    continue;
                }
                Ok(Command::SmtpHello) => Err(Reply::new(500, "5.5.1", "This is LMTP: say LHLO")),
                Ok(Command::Mail(mail)) => self.mail(connection, mail),
                Ok(Command::Rcpt(rcpt)) => self.rcpt(rcpt).await,
                Ok(Command::Rset) => {
                    self.transaction = None;
                    self.forwarded.clear();
                    Ok(Reply::new(250, "2.0.0", "OK"))
                }
                Ok(Command::Noop) => Ok(Reply::new(250, "2.0.0", "OK")),
                Ok(Command::Vrfy) => Ok(Reply::new(252, "2.5.0", "RCPT tells whether an address is taken")),
                Err(malformed) => Err(malformed),
            };
            match done {
                Ok(reply) => reply.write(connection.output()),
                Err(bad) => {
                    bad.write(connection.output());
                    self.bad_commands += 1;
                    if self.bad_commands > self.backend.settings().bad_commands_max {
                        Reply::new(421, "4.7.0", "Too many wrong commands").write(connection.output());
                        return Ok(Leave::End(End::because("too many wrong commands")));
                    }
                }
            }
            connection.flush_if_large().await?;
        }
    }

    fn lhlo(&mut self, connection: &mut Connection, host: String) {
        let settings = self.backend.settings();
        let secured = connection.client.tls.is_some();
        let out = connection.output();
        let mut line = |text: &str| {
            out.put_slice(text.as_bytes());
            out.put_slice(b"\r\n");
        };
        line(&format!("250-{}", settings.node));
        line("250-PIPELINING");
        line("250-8BITMIME");
        line("250-SMTPUTF8");
        line("250-CHUNKING");
        line("250-BINARYMIME");
        line(&format!("250-SIZE {}", settings.message_bytes_max));
        if self.backend.tls().is_some() && !secured {
            line("250-STARTTLS");
        }
        if self.backend.trusts(self.peer) {
            line(&format!("250-{}", Said::Client.offer()));
            line(&format!("250-{}", Said::Forward.offer()));
        }
        line("250 ENHANCEDSTATUSCODES");
        self.lhlo = Some(host);
        self.transaction = None;
        self.forwarded.clear();
    }

    fn start_tls(&self, connection: &mut Connection) -> Result<TlsAcceptor, Reply> {
        if connection.client.tls.is_some() {
            return Err(Reply::new(503, "5.5.1", "TLS is active already"));
        }
        let Some(acceptor) = self.backend.tls() else {
            return Err(Reply::new(502, "5.5.1", "STARTTLS is not offered"));
        };
        Reply::new(220, "2.0.0", "Begin TLS").write(connection.output());
        Ok(acceptor)
    }

    /// XCLIENT makes a new session of another client; XFORWARD is for the log.
    fn said(&mut self, client: &mut Client, said: Said, attributes: Vec<Attribute>) -> Result<Reply, Reply> {
        if !self.backend.trusts(self.peer) {
            return Err(Reply::new(550, "5.7.0", format!("{} is not in [lmtp] trusted", self.peer.to_canonical())));
        }
        if self.transaction.is_some() {
            return Err(Reply::new(503, "5.5.1", "A transaction is open"));
        }
        if !attributes.iter().all(|attribute| said.has(attribute)) {
            return Err(Reply::new(501, "5.5.4", format!("Offered is: {}", said.offer())));
        }
        if said == Said::Forward {
            self.forwarded = attributes;
            return Ok(Reply::new(250, "2.0.0", "OK"));
        }
        tracing::info!(session = %client.session, peer = %self.peer.to_canonical(), said = ?attributes, "XCLIENT");
        for attribute in &attributes {
            match attribute {
                Attribute::Address(Some(ip)) => client.address = SocketAddr::new(*ip, client.address.port()),
                Attribute::Port(Some(port)) => client.address.set_port(*port),
                _ => {}
            }
        }
        self.lhlo = None;
        self.forwarded.clear();
        Ok(Reply::new(220, "", format!("{} Berth LMTP ready", self.backend.settings().node)))
    }

    fn mail(&mut self, connection: &mut Connection, mail: MailFrom) -> Result<Reply, Reply> {
        match self.backend.access(connection.tls.as_deref()) {
            Access::Granted => connection.logged_in(),
            Access::NeedsCertificate => {
                return Err(Reply::new(530, "5.7.0", "Say STARTTLS first, and show a certificate that may deliver here"));
            }
            Access::Refused => {
                let text =
                    format!("{} does not take mail from {} with this certificate", self.backend.settings().node, self.peer.to_canonical());
                return Err(Reply::new(554, "5.7.1", text));
            }
        }
        if self.lhlo.is_none() {
            return Err(Reply::new(503, "5.5.1", "Say LHLO first"));
        }
        if self.transaction.is_some() {
            return Err(Reply::new(503, "5.5.1", "A transaction is open already: end it with DATA or RSET"));
        }
        if mail.size.is_some_and(|size| size > self.backend.settings().message_bytes_max) {
            // Not a wrong command: the sender asked, as RFC 1870 wants it.
            return Ok(too_large());
        }
        self.transaction = Some(Transaction { mail, to: Vec::new(), chunks: None });
        Ok(Reply::new(250, "2.1.0", "OK"))
    }

    async fn rcpt(&mut self, rcpt: RcptTo) -> Result<Reply, Reply> {
        let RcptTo { address, original } = rcpt;
        let Some(transaction) = &mut self.transaction else {
            // Not counted as wrong: a client that pipelines has sent its RCPTs before it sees that MAIL was refused.
            return Ok(Reply::new(503, "5.5.1", "Say MAIL first"));
        };
        if transaction.chunks.is_some() {
            return Ok(Reply::new(503, "5.5.1", "The message has begun: end it with BDAT LAST or RSET"));
        }
        if transaction.to.len() >= self.backend.settings().recipients_max {
            return Ok(Reply::new(452, "4.5.3", "Too many recipients: send the message again for the rest"));
        }
        if !address.is_ascii() && !transaction.mail.utf8 {
            return Ok(Reply::new(553, "5.6.7", "The address needs SMTPUTF8"));
        }
        // Unknown users are not counted as wrong commands: the sender passes on what others wrote.
        Ok(match self.backend.recipient(&address).await {
            Ok(Some(recipient)) => {
                if let Some(full) = self.backend.over_quota(&recipient, transaction.mail.size.unwrap_or(1)) {
                    tracing::info!(user = %recipient.user, "over quota: refused at RCPT");
                    return Ok(full);
                }
                transaction.to.push(Addressee { address, original, user: recipient.user, detail: recipient.detail });
                Reply::new(250, "2.1.5", "OK")
            }
            Ok(None) => Reply::new(550, "5.1.1", format!("<{address}> No such user here")),
            Err(error) => {
                tracing::warn!(%address, %error, "a recipient was not looked up");
                reply::lookup_error(&error)
            }
        })
    }

    /// The transaction that DATA ends, if it has a recipient.
    fn take_transaction(&mut self) -> Result<Transaction, Reply> {
        match self.transaction.take() {
            Some(transaction) if transaction.mail.binary || transaction.chunks.is_some() => {
                self.transaction = Some(transaction);
                // RFC 3030 §2 and §3: neither after BDAT nor for binary content.
                Err(Reply::new(503, "5.5.1", "This message comes with BDAT"))
            }
            Some(transaction) if !transaction.to.is_empty() => Ok(transaction),
            Some(transaction) => {
                self.transaction = Some(transaction);
                // RFC 2033 §4.2: 503 when no RCPT succeeded.
                Err(Reply::new(503, "5.5.1", "No recipient was accepted"))
            }
            None => Err(Reply::new(503, "5.5.1", "Say MAIL and RCPT first")),
        }
    }

    async fn data(&mut self, connection: &mut Connection, transaction: Transaction) -> Result<(), ConnectionError> {
        Reply::new(354, "", "End the message with a dot on a line").write(connection.output());
        connection.flush().await?;
        let settings = self.backend.settings();
        let message = Receiver::new(&settings).data(connection).await?;
        self.finish(connection, transaction, message).await;
        Ok(())
    }

    /// RFC 3030. The bytes are taken whatever the answer is, or they would be read as commands.
    async fn bdat(&mut self, connection: &mut Connection, bytes: u64, last: bool) -> Result<(), ConnectionError> {
        let Some(mut transaction) = self.transaction.take_if(|transaction| !transaction.to.is_empty()) else {
            Receiver::skip(connection, bytes).await?;
            Reply::new(503, "5.5.1", "No recipient was accepted").write(connection.output());
            return Ok(());
        };
        let mut receiver = transaction.chunks.take().unwrap_or_else(|| Receiver::new(&self.backend.settings()));
        receiver.chunk(connection, bytes).await?;
        if last {
            let message = receiver.finish(transaction.mail.binary).await;
            self.finish(connection, transaction, message).await;
            return Ok(());
        }
        let reply = receiver.refused().cloned().unwrap_or_else(|| Reply::new(250, "2.0.0", format!("{bytes} octets received")));
        reply.write(connection.output());
        connection.flush_if_large().await?;
        transaction.chunks = Some(receiver);
        self.transaction = Some(transaction);
        Ok(())
    }

    /// Delivers, and writes one reply for each recipient.
    async fn finish(&mut self, connection: &mut Connection, transaction: Transaction, message: Result<Message, Reply>) {
        let forwarded = std::mem::take(&mut self.forwarded);
        let outcomes = match message {
            Ok(message) => {
                if !forwarded.is_empty() {
                    tracing::info!(session = %connection.client.session, said = ?forwarded, "XFORWARD");
                }
                let envelope = self.envelope(&connection.client, transaction.mail);
                self.bad_commands = 0;
                self.backend.deliver(&connection.client, &envelope, &transaction.to, &message).await
            }
            Err(refused) => vec![refused.into(); transaction.to.len()],
        };
        let mut outcomes = outcomes.into_iter();
        for _ in &transaction.to {
            let outcome = outcomes.next().unwrap_or_else(|| Outcome::temporary("Nothing is known of the delivery, try again"));
            outcome.write(connection.output());
        }
    }

    fn envelope(&self, client: &Client, mail: MailFrom) -> Envelope {
        // The names of RFC 3848 and RFC 6531 §4.3.
        let with = match (mail.utf8, client.tls.is_some()) {
            (false, false) => "LMTP",
            (false, true) => "LMTPS",
            (true, false) => "UTF8LMTP",
            (true, true) => "UTF8LMTPS",
        };
        let profile = self.backend.settings().profile;
        Envelope { sender: mail.sender, lhlo: self.lhlo.clone().unwrap_or_default(), with: with.to_owned(), profile }
    }
}

#[cfg(test)]
pub(crate) mod tests;
