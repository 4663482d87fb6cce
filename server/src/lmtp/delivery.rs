//! Stores one message for one recipient, on the holder.

use serde::{Deserialize, Serialize};

use super::message::Message;
use crate::{client::Client, forward::Held};

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
    settings: &crate::config::LmtpSection,
) -> Outcome {
    let _ = (held, client, envelope, to, message, settings);
    todo!()
}
