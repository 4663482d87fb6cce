//! The fields that are added, and deliveries into a real account in a temporary folder.

use std::{num::NonZeroU64, path::Path, time::Duration};

use affinity::{Epoch, Handover, HolderId, Incarnation, Lease, Tenure, TestClock, UserName};
use storage::{AccountPaths, StorageSettings};

use super::*;
use crate::lmtp::message::{MEMORY_BYTES_MAX, Spool};

/// Ada's account under `dir`, held until the tenure ends.
pub(crate) fn open_account(dir: &Path) -> (Arc<Account>, Arc<Tenure>) {
    let holder = HolderId { node: "node-a".parse().unwrap(), incarnation: Incarnation::from_number(NonZeroU64::MIN) };
    let tenure = Tenure::new(holder, Arc::new(TestClock::default()));
    tenure.extend(Duration::from_secs(3600));
    let user = UserName::normalise("ada").unwrap();
    let settings = StorageSettings {
        node: "node-a".parse().unwrap(),
        auto_create: Vec::new(),
        message_bytes_max: 10_000_000,
        mailboxes_max: 3,
        write_back_after: Duration::from_secs(1),
        rescan_interval: Duration::from_secs(1),
        parallel_operations: 4,
        settle_after: Duration::from_secs(8),
        suspended_wait: Duration::ZERO,
    };
    let paths = AccountPaths::new(dir.join("Maildir"), dir.join("index"));
    let lease = Lease::for_test(user, Epoch(1), Arc::clone(&tenure));
    (Account::open(paths, lease, Handover::Clean, Arc::new(settings)).unwrap(), tenure)
}

/// The messages of a mailbox, oldest first.
pub(crate) fn messages(account: &Arc<Account>, name: &str) -> Vec<String> {
    let mailbox = account.mailbox(&MailboxName::parse(name).unwrap()).unwrap();
    let uids = mailbox.read().uids().to_vec();
    uids.iter().map(|uid| String::from_utf8(mailbox.open_message(*uid).unwrap().read_all().unwrap()).unwrap()).collect()
}

/// Delivers `bytes` as LMTP does.
pub(crate) fn deliver(account: &Arc<Account>, detail: Option<&str>, bytes: &[u8], create: bool) -> Result<Outcome, StorageError> {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::new(dir.path());
    spool.write(bytes).unwrap();
    let to = addressee(detail);
    let client = client("192.0.2.7:999");
    let job = Job {
        session: client.session,
        sender: envelope().sender,
        trace: trace_fields(&client, &envelope(), &to, "Fri, 21 Nov 2026 09:55:06 -0600"),
        to,
        message: spool.finish(),
        create_mailbox: create,
    };
    job.run(account)
}

fn client(address: &str) -> Client {
    Client {
        session: "00000000000000ff".parse().unwrap(),
        address: address.parse().unwrap(),
        local: "192.0.2.1:24".parse().unwrap(),
        ingress: "node-a".parse().unwrap(),
        tls: None,
    }
}

fn envelope() -> Envelope {
    Envelope { sender: "grace@example.com".into(), lhlo: "mx.example.com".into(), with: "LMTP".into() }
}

fn addressee(detail: Option<&str>) -> Addressee {
    Addressee {
        address: "Ada@example.org".into(),
        user: UserName::normalise("ada").unwrap(),
        original: None,
        detail: detail.map(str::to_owned),
    }
}

#[test]
fn the_trace_fields_say_who_sent_it_from_where_to_whom() {
    let fields = trace_fields(&client("192.0.2.7:999"), &envelope(), &addressee(None), "Fri, 21 Nov 2026 09:55:06 -0600");
    assert_eq!(
        fields,
        "Return-Path: <grace@example.com>\r\nDelivered-To: Ada@example.org\r\nReceived: from mx.example.com ([192.0.2.7])\r\n\
         \tby node-a with LMTP id 00000000000000ff\r\n\tfor <Ada@example.org>; Fri, 21 Nov 2026 09:55:06 -0600\r\n"
    );
    let fields = trace_fields(&client("[2001:db8::1]:9"), &Envelope { sender: String::new(), ..envelope() }, &addressee(None), "");
    assert!(fields.starts_with("Return-Path: <>\r\n") && fields.contains("([IPv6:2001:db8::1])"), "{fields}");
    let tls = Client { tls: Some("TLSv1.3 with TLS13_AES_256_GCM_SHA384".into()), ..client("192.0.2.7:999") };
    let to = Addressee { original: Some(("rfc822".into(), "lists@example.org".into())), ..addressee(None) };
    let fields = trace_fields(&tls, &envelope(), &to, "");
    assert!(fields.contains("\r\nOriginal-Recipient: rfc822;lists@example.org\r\nDelivered-To: "), "{fields}");
    assert!(fields.contains("([192.0.2.7])\r\n\t(using TLSv1.3 with TLS13_AES_256_GCM_SHA384)\r\n\tby node-a"), "{fields}");
    assert!(trace_fields(&client("[::ffff:10.0.0.1]:9"), &envelope(), &addressee(None), "").contains("([10.0.0.1])"));
}

#[test]
fn dates_are_as_rfc_5322_writes_them() {
    assert!(jiff::fmt::rfc2822::parse(&now()).is_ok(), "{}", now());
}

#[test]
fn a_message_is_stored_with_its_trace_fields() {
    let dir = tempfile::tempdir().unwrap();
    let (account, _tenure) = open_account(dir.path());
    let outcome = deliver(&account, None, b"Subject: hi\r\n\r\nbare\nend\r\n", false).unwrap();
    assert_eq!(outcome, Outcome { code: 250, enhanced: "2.0.0".into(), text: "<Ada@example.org> Saved".into() });
    let stored = messages(&account, "INBOX");
    assert_eq!(stored.len(), 1);
    assert!(stored[0].starts_with("Return-Path: <grace@example.com>\r\nDelivered-To: Ada@example.org\r\nReceived: from "), "{}", stored[0]);
    assert!(stored[0].ends_with("-0600\r\nSubject: hi\r\n\r\nbare\r\nend\r\n"), "{}", stored[0]);
}

#[test]
fn a_large_message_is_stored_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (account, _tenure) = open_account(dir.path());
    let body = "0123456789abcdef\r\n".repeat(MEMORY_BYTES_MAX / 6);
    deliver(&account, None, body.as_bytes(), false).unwrap();
    assert!(messages(&account, "INBOX")[0].ends_with(&format!("-0600\r\n{body}")));
}

#[test]
fn a_detail_names_a_mailbox() {
    let dir = tempfile::tempdir().unwrap();
    let (account, _tenure) = open_account(dir.path());
    account.create(&MailboxName::parse("lists").unwrap(), CreateOptions::default()).unwrap();
    deliver(&account, Some("lists"), b"to lists\r\n", false).unwrap();
    deliver(&account, Some("news"), b"to news\r\n", true).unwrap();
    assert!(messages(&account, "lists")[0].ends_with("to lists\r\n"));
    assert!(messages(&account, "news")[0].ends_with("to news\r\n"));
    assert!(messages(&account, "INBOX").is_empty());
}

#[test]
fn a_detail_without_a_mailbox_goes_to_inbox() {
    let dir = tempfile::tempdir().unwrap();
    let (account, _tenure) = open_account(dir.path());
    let details = [("lists", false), ("..", true), ("a//b", true), ("\u{7f}", true), ("", true), ("inbox", true)];
    for (detail, create) in details {
        assert_eq!(deliver(&account, Some(detail), b"x\r\n", create).unwrap().code, 250, "{detail:?}");
    }
    assert_eq!(messages(&account, "INBOX").len(), details.len());
    for n in 0..5 {
        deliver(&account, Some(&format!("made-by-senders-{n}")), b"x\r\n", true).unwrap();
    }
    assert!(messages(&account, "INBOX").len() > details.len(), "beyond the limit of mailboxes mail goes to INBOX");
}

#[test]
fn nothing_is_acknowledged_after_the_lease_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (account, tenure) = open_account(dir.path());
    tenure.end();
    let error = deliver(&account, None, b"x\r\n", false).unwrap_err();
    assert_eq!(reply::storage_error(&error).code, 451, "{error}");
}
