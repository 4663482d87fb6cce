//! Stores one message for one recipient, on the holder.
//!
//! Invariants, each with the test that guards it:
//! - 250 only once the message is durable and the lease is still ours (`nothing_is_acknowledged_after_the_lease_is_lost`)
//! - a detail never loses mail: what names no mailbox goes to INBOX (`a_detail_without_a_mailbox_goes_to_inbox`)
//! - a message is called a duplicate only where it is stored (`a_message_that_comes_again_is_stored_once`)

use std::{io, sync::Arc, time::Duration};

use index::{Flag, FlagSet};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use storage::{Account, CreateOptions, Mailbox, MailboxName, SharedFile, Staged, StorageError};

use super::{
    duplicates::{self, Duplicates},
    gates::Gates,
    message::Message,
    reply,
};
use crate::{
    client::{Client, SessionId},
    config::{Config, LmtpSection},
    forward::Held,
};

/// How much of a message is read at once while it is stored.
const COPY_BYTES: usize = 64 * 1024;

/// What is known of a message beside its bytes; travels over the relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The reverse path without angle brackets; empty for bounces.
    pub sender: String,
    /// LMTP session facts for the Received field: what LHLO said, `LMTP`, `LMTPS`, `UTF8LMTP`… (RFC 3848).
    pub lhlo: String,
    /// As above.
    pub with: String,
    /// What the message is.
    #[serde(default)]
    pub profile: Profile,
}

/// One recipient of a delivery; travels over the relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addressee {
    /// The forward path as the client wrote it, for Delivered-To.
    pub address: String,
    /// What ORCPT said (RFC 3461 §4.2), for Original-Recipient.
    pub original: Option<(String, String)>,
    /// Whose mail.
    pub user: affinity::UserName,
    /// The `+detail`.
    pub detail: Option<String>,
}

/// One recipient's reply after DATA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// 250, 451, 452, 550, 552, …
    pub code: u16,
    /// RFC 3463, as in `2.0.0`.
    pub enhanced: String,
    /// For people.
    pub text: String,
}

impl Outcome {
    /// A temporary failure: the sender will retry.
    pub fn temporary(text: impl Into<String>) -> Outcome {
        Outcome { code: 451, enhanced: "4.3.0".into(), text: text.into() }
    }
}

/// What a listener's messages are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Mail for a user.
    #[default]
    Inbox,
    /// Mail that a user sent: filed in `lmtp.sent_mailbox`, seen.
    Sent,
}

/// What a node knows of its deliveries beyond one of them.
#[derive(Debug, Default)]
pub struct Deliveries {
    gates: Gates,
    duplicates: Arc<Duplicates>,
}

/// One message on its holder, for one or several users.
#[derive(Clone)]
pub struct Delivery {
    deliveries: Arc<Deliveries>,
    client: Client,
    envelope: Envelope,
    message: Message,
    settings: LmtpSection,
    /// How long a delivery waits for others of its user.
    patience: Duration,
    /// The message as one file for several users, once the first of them wrote it; `None`: each has a file of its own.
    copies: Option<Arc<Mutex<Option<SharedFile>>>>,
}

impl Delivery {
    /// `recipients`: how many users this node may store it for.
    pub fn new(
        deliveries: Arc<Deliveries>,
        config: &Config,
        client: Client,
        envelope: Envelope,
        message: Message,
        recipients: usize,
    ) -> Delivery {
        let settings = config.lmtp.clone();
        let copies = (settings.share_copies && recipients > 1).then(Arc::default);
        Delivery { deliveries, client, envelope, message, settings, patience: config.limits.route_wait, copies }
    }

    /// Stores the message (with Return-Path, Delivered-To and Received before it) in the mailbox where it belongs; 250 only once it is durable and
    /// the lease is still ours.
    pub async fn store(&self, held: &Held, to: &Addressee) -> Outcome {
        let Some(_turn) = self.deliveries.gates.enter(&to.user, self.settings.parallel_per_user, self.patience).await else {
            tracing::warn!(session = %self.client.session, user = %to.user, "too many deliveries at once: deferred");
            return Outcome { code: 451, enhanced: "4.3.2".into(), text: "Too many deliveries for this user at once, try again".into() };
        };
        let Delivery { client, envelope, settings, .. } = self;
        let job = Job {
            session: client.session,
            sender: envelope.sender.clone(),
            trace: trace_fields(client, envelope, to, self.copies.is_none(), &now()),
            to: to.clone(),
            message: self.message.clone(),
            create_mailbox: settings.detail_creates_mailbox,
            sent: (envelope.profile == Profile::Sent).then(|| settings.sent_mailbox.clone()),
            window: Some(settings.suppress_duplicates).filter(|window| !window.is_zero()),
            duplicates: Arc::clone(&self.deliveries.duplicates),
            copies: self.copies.clone(),
        };
        match held.run(move |account| job.run(account)).await {
            Ok(outcome) => {
                if outcome.code == 250 {
                    crate::log::acknowledged(held.account().lease(), &envelope.sender);
                }
                outcome
            }
            Err(error) => {
                tracing::warn!(session = %client.session, sender = envelope.sender, user = %to.user, %error, "a message was not stored");
                match error {
                    StorageError::OverQuota { .. } => reply::over_quota(settings.over_quota).into(),
                    error => reply::storage_error(&error),
                }
            }
        }
    }
}

/// One user's part of a delivery, with all it needs on the blocking pool.
struct Job {
    session: SessionId,
    sender: String,
    trace: String,
    to: Addressee,
    message: Message,
    create_mailbox: bool,
    /// The mailbox of sent mail, where this is some.
    sent: Option<String>,
    /// How long a message that comes again is not stored again.
    window: Option<Duration>,
    duplicates: Arc<Duplicates>,
    copies: Option<Arc<Mutex<Option<SharedFile>>>>,
}

impl Job {
    /// Stores the message, unless it is stored already. Blocking.
    fn run(&self, account: &Arc<Account>) -> Result<Outcome, StorageError> {
        let mailbox = match self.sent.as_deref().map(MailboxName::parse) {
            Some(Ok(sent)) => named(account, &sent, true)?,
            Some(Err(_)) | None => target(account, self.to.detail.as_deref(), self.create_mailbox)?,
        };
        let identity = match self.window {
            Some(_) => match self.head() {
                Ok(head) => duplicates::identity(&head, &self.sender),
                Err(error) => return Ok(self.spool_failed(&error)),
            },
            None => None,
        };
        let Some((window, identity)) = self.window.zip(identity) else { return self.store(&mailbox) };
        let window_s = i64::try_from(window.as_secs()).unwrap_or(i64::MAX);
        let slot = self.duplicates.slot(account, &mailbox, identity, window_s)?;
        // Held while it is stored: the same message at the same time waits, and is none if this one fails.
        let mut stored = slot.lock();
        if stored.is_some_and(|at| duplicates::now_s().saturating_sub(at) < window_s) {
            account.lease().ensure_live()?;
            let Job { session, sender, to, .. } = self;
            tracing::info!(%session, sender, user = %to.user, mailbox = %mailbox.name(), "a duplicate: it is stored already");
            return Ok(Outcome { code: 250, enhanced: "2.0.0".into(), text: format!("<{}> Saved before", to.address) });
        }
        // It may be stored, only not acknowledged.
        let outcome = self.store(&mailbox).inspect_err(|_| self.duplicates.look_again(account, &mailbox))?;
        if outcome.code == 250 {
            *stored = Some(duplicates::now_s());
        }
        Ok(outcome)
    }

    fn store(&self, mailbox: &Arc<Mailbox>) -> Result<Outcome, StorageError> {
        let staged = match &self.copies {
            None => self.write(mailbox)?,
            Some(copies) => {
                let mut shared = copies.lock();
                if shared.is_none() {
                    *shared = match self.write(mailbox)? {
                        Ok(staged) => Some(staged.share()?),
                        Err(outcome) => return Ok(outcome),
                    };
                }
                match shared.as_ref().map(|shared| mailbox.stage_shared(shared)).transpose()?.flatten() {
                    Some(staged) => Ok(staged),
                    None => self.write(mailbox)?,
                }
            }
        };
        let staged = match staged {
            Ok(staged) => staged,
            Err(outcome) => return Ok(outcome),
        };
        let bytes = staged.len();
        let flags = if self.sent.is_some() { FlagSet::EMPTY.with(Flag::Seen) } else { FlagSet::EMPTY };
        let appended = mailbox.append(staged, flags, None)?;
        let Job { session, sender, to, .. } = self;
        tracing::info!(%session, sender, user = %to.user, mailbox = %mailbox.name(), uid = %appended.uid, bytes, "stored");
        Ok(Outcome { code: 250, enhanced: "2.0.0".into(), text: format!("<{}> Saved", to.address) })
    }

    /// The whole message, not durable yet; the inner `Err`: what the sender is told.
    fn write(&self, mailbox: &Arc<Mailbox>) -> Result<Result<Staged, Outcome>, StorageError> {
        let mut staged = mailbox.stage(self.message.len().saturating_add(self.trace.len() as u64))?;
        staged.write(self.trace.as_bytes())?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut offset = 0;
        while offset < self.message.len() {
            match self.message.read_at(offset, &mut buffer) {
                Ok(count @ 1..) => {
                    staged.write(buffer.get(..count).unwrap_or_default())?;
                    offset += count as u64;
                }
                Ok(0) => return Ok(Err(self.spool_failed(&"the file is shorter than what was received"))),
                Err(error) => return Ok(Err(self.spool_failed(&error))),
            }
        }
        Ok(Ok(staged))
    }

    /// Where the message's own header fields are.
    fn head(&self) -> io::Result<Vec<u8>> {
        let mut head = vec![0; COPY_BYTES];
        let read = self.message.read_at(0, &mut head)?;
        head.truncate(read);
        Ok(head)
    }

    fn spool_failed(&self, error: &dyn std::fmt::Display) -> Outcome {
        tracing::error!(session = %self.session, user = %self.to.user, %error, "a spooled message can't be read back");
        Outcome::temporary("The message could not be read back, try again")
    }
}

/// The mailbox of a detail, or INBOX.
fn target(account: &Arc<Account>, detail: Option<&str>, create: bool) -> Result<Arc<Mailbox>, StorageError> {
    match detail.and_then(|detail| MailboxName::parse(detail).ok()) {
        Some(name) => named(account, &name, create),
        None => account.mailbox(&MailboxName::inbox()),
    }
}

/// The mailbox of this name, made if need be, or INBOX where there can't be one.
fn named(account: &Arc<Account>, name: &MailboxName, create: bool) -> Result<Arc<Mailbox>, StorageError> {
    let inbox = || account.mailbox(&MailboxName::inbox());
    match account.mailbox(name) {
        Err(StorageError::NoMailbox(_)) if create => {}
        Err(error) if names_no_mailbox(&error) => return inbox(),
        found => return found,
    }
    match account.create(name, CreateOptions::default()) {
        // Another delivery may have made it at the same time.
        Ok(_) | Err(StorageError::MailboxExists(_)) => match account.mailbox(name) {
            Err(error) if names_no_mailbox(&error) => inbox(),
            found => found,
        },
        Err(error) if names_no_mailbox(&error) => inbox(),
        Err(error) => Err(error),
    }
}

/// Whether the detail is what is wrong, not the store.
fn names_no_mailbox(error: &StorageError) -> bool {
    matches!(error, StorageError::NoMailbox(_) | StorageError::NotAllowed(_) | StorageError::BadName(_) | StorageError::Limit { .. })
}

/// The fields that final delivery adds (RFC 5321 §4.4). Without `names_recipient`, they are the same for every recipient.
fn trace_fields(client: &Client, envelope: &Envelope, to: &Addressee, names_recipient: bool, date: &str) -> String {
    let ip = client.address.ip().to_canonical();
    let literal = if ip.is_ipv4() { format!("[{ip}]") } else { format!("[IPv6:{ip}]") };
    let using = client.tls.as_ref().map(|facts| format!("\t(using {facts})\r\n")).unwrap_or_default();
    // RFC 8098 §2.3: final delivery keeps what ORCPT said.
    let original = to.original.as_ref().map(|(kind, address)| format!("Original-Recipient: {kind};{address}\r\n")).unwrap_or_default();
    let (delivered_to, recipient) = match names_recipient {
        true => (format!("{original}Delivered-To: {}\r\n", to.address), format!("\r\n\tfor <{}>", to.address)),
        false => (String::new(), String::new()),
    };
    format!(
        "Return-Path: <{sender}>\r\n\
         {delivered_to}\
         Received: from {lhlo} ({literal})\r\n\
         {using}\
         \tby {ingress} with {with} id {session}{recipient}; {date}\r\n",
        sender = envelope.sender,
        lhlo = envelope.lhlo,
        ingress = client.ingress,
        with = envelope.with,
        session = client.session,
    )
}

/// The present date and time as RFC 5322 §3.3 writes it, in the host's time zone.
fn now() -> String {
    let now = jiff::Timestamp::try_from(affinity::clock::wall_clock()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let zoned = now.to_zoned(jiff::tz::TimeZone::system());
    jiff::fmt::rfc2822::to_string(&zoned).unwrap_or_else(|_| "Thu, 1 Jan 1970 00:00:00 +0000".to_owned())
}

#[cfg(test)]
pub(crate) mod tests;
