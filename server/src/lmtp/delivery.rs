//! Stores one message for one recipient, on the holder.
//!
//! Invariants, each with the test that guards it:
//! - 250 only once the message is durable and the lease is still ours (`nothing_is_acknowledged_after_the_lease_is_lost`)
//! - a detail never loses mail: what names no mailbox goes to INBOX (`a_detail_without_a_mailbox_goes_to_inbox`)

use std::sync::Arc;

use index::FlagSet;
use serde::{Deserialize, Serialize};
use storage::{Account, CreateOptions, Mailbox, MailboxName, StorageError};

use super::{message::Message, reply};
use crate::{
    client::{Client, SessionId},
    config::LmtpSection,
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

/// Stores `message` (with Return-Path, Delivered-To and Received before it) in INBOX or the detail's mailbox; 250 only once it is durable and the lease is still ours.
pub async fn store(
    held: &Held,
    client: &Client,
    envelope: &Envelope,
    to: &Addressee,
    message: &Message,
    settings: &LmtpSection,
) -> Outcome {
    let job = Job {
        session: client.session,
        sender: envelope.sender.clone(),
        trace: trace_fields(client, envelope, to, &now()),
        to: to.clone(),
        message: message.clone(),
        create_mailbox: settings.detail_creates_mailbox,
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

/// One delivery, with all it needs on the blocking pool.
struct Job {
    session: SessionId,
    sender: String,
    trace: String,
    to: Addressee,
    message: Message,
    create_mailbox: bool,
}

impl Job {
    /// Stores the message. Blocking.
    fn run(&self, account: &Arc<Account>) -> Result<Outcome, StorageError> {
        let mailbox = target(account, self.to.detail.as_deref(), self.create_mailbox)?;
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
                Ok(0) => return Ok(self.spool_failed(&"the file is shorter than what was received")),
                Err(error) => return Ok(self.spool_failed(&error)),
            }
        }
        let bytes = staged.len();
        let appended = mailbox.append(staged, FlagSet::EMPTY, None)?;
        let Job { session, sender, to, .. } = self;
        tracing::info!(%session, sender, user = %to.user, mailbox = %mailbox.name(), uid = %appended.uid, bytes, "stored");
        Ok(Outcome { code: 250, enhanced: "2.0.0".into(), text: format!("<{}> Saved", to.address) })
    }

    fn spool_failed(&self, error: &dyn std::fmt::Display) -> Outcome {
        tracing::error!(session = %self.session, user = %self.to.user, %error, "a spooled message can't be read back");
        Outcome::temporary("The message could not be read back, try again")
    }
}

/// The mailbox of a detail, or INBOX.
fn target(account: &Arc<Account>, detail: Option<&str>, create: bool) -> Result<Arc<Mailbox>, StorageError> {
    let inbox = || account.mailbox(&MailboxName::inbox());
    let Some(name) = detail.and_then(|detail| MailboxName::parse(detail).ok()) else {
        return inbox();
    };
    match account.mailbox(&name) {
        Err(StorageError::NoMailbox(_)) if create => {}
        Err(error) if names_no_mailbox(&error) => return inbox(),
        found => return found,
    }
    match account.create(&name, CreateOptions::default()) {
        // Another delivery may have made it at the same time.
        Ok(_) | Err(StorageError::MailboxExists(_)) => match account.mailbox(&name) {
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

/// The fields that final delivery adds (RFC 5321 §4.4).
fn trace_fields(client: &Client, envelope: &Envelope, to: &Addressee, date: &str) -> String {
    let ip = client.address.ip().to_canonical();
    let literal = if ip.is_ipv4() { format!("[{ip}]") } else { format!("[IPv6:{ip}]") };
    let using = client.tls.as_ref().map(|facts| format!("\t(using {facts})\r\n")).unwrap_or_default();
    // RFC 8098 §2.3: final delivery keeps what ORCPT said.
    let original = to.original.as_ref().map(|(kind, address)| format!("Original-Recipient: {kind};{address}\r\n")).unwrap_or_default();
    format!(
        "Return-Path: <{sender}>\r\n\
         {original}\
         Delivered-To: {address}\r\n\
         Received: from {lhlo} ({literal})\r\n\
         {using}\
         \tby {ingress} with {with} id {session}\r\n\
         \tfor <{address}>; {date}\r\n",
        sender = envelope.sender,
        address = to.address,
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
