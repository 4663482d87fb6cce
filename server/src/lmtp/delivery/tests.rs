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
        auto_subscribe: false,
        message_bytes_max: 10_000_000.into(),
        mailboxes_max: 3,
        write_back_after: Duration::from_secs(1),
        rescan_interval: Duration::from_secs(1),
        parallel_operations: 4,
        settle_after: Duration::from_secs(8),
        late_look_interval: Duration::from_secs(10),
        suspended_wait: Duration::ZERO,
        cache: None,
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
    job(detail, bytes, create).run(account)
}

fn job(detail: Option<&str>, bytes: &[u8], create: bool) -> Job {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::new(dir.path());
    spool.write(bytes).unwrap();
    let to = addressee(detail);
    let client = client("192.0.2.7:999");
    Job {
        session: client.session,
        sender: envelope().sender,
        trace: trace_fields(&client, &envelope(), &to, true, "Fri, 21 Nov 2026 09:55:06 -0600"),
        to,
        message: spool.finish(),
        create_mailbox: create,
        sent: None,
        window: None,
        duplicates: Arc::default(),
        copies: None,
    }
}

const HOUR: Duration = Duration::from_secs(60 * 60);

#[test]
fn a_message_that_comes_again_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let (account, _tenure) = open_account(dir.path());
    let duplicates: Arc<Duplicates> = Arc::default();
    let again = |detail: Option<&str>, sender: &str, bytes: &[u8]| {
        let job = Job { window: Some(HOUR), duplicates: duplicates.clone(), sender: sender.to_owned(), ..job(detail, bytes, true) };
        job.run(&account).unwrap().text
    };
    let message = b"Message-ID: <1@example.com>\r\n\r\nfirst\r\n";
    assert_eq!(again(None, "grace@example.com", message), "<Ada@example.org> Saved");
    assert_eq!(again(None, "grace@example.com", b"Message-id:\r\n <1@example.com>\r\n\r\nresent\r\n"), "<Ada@example.org> Saved before");
    // Another sender, another mailbox, another message.
    assert_eq!(again(None, "", message), "<Ada@example.org> Saved");
    assert_eq!(again(Some("lists"), "grace@example.com", message), "<Ada@example.org> Saved");
    assert_eq!(again(None, "grace@example.com", b"Message-ID: <2@example.com>\r\n\r\n"), "<Ada@example.org> Saved");
    assert_eq!((messages(&account, "INBOX").len(), messages(&account, "lists").len()), (3, 1));
}

#[test]
fn a_new_holder_knows_what_is_in_the_mailbox() {
    let dir = tempfile::tempdir().unwrap();
    let (account, _tenure) = open_account(dir.path());
    let message = b"Message-ID: <1@example.com>\r\n\r\nfirst\r\n";
    let on_a_new_node = || Job { window: Some(HOUR), ..job(None, message, true) }.run(&account).unwrap().text;
    assert_eq!(on_a_new_node(), "<Ada@example.org> Saved");
    assert_eq!(on_a_new_node(), "<Ada@example.org> Saved before");
    assert_eq!(messages(&account, "INBOX").len(), 1);
}

#[test]
fn a_message_without_an_id_is_always_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (account, _tenure) = open_account(dir.path());
    for message in [b"Subject: x\r\n\r\n".as_slice(), b"Message-ID: \r\n\r\n", b"\r\nMessage-ID: <in the body>\r\n", b""] {
        for _ in 0..2 {
            let job = Job { window: Some(HOUR), ..job(None, message, true) };
            assert_eq!(job.run(&account).unwrap().text, "<Ada@example.org> Saved");
        }
    }
    assert_eq!(messages(&account, "INBOX").len(), 8);
}

#[test]
fn of_two_at_once_one_is_stored_and_one_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (account, tenure) = open_account(dir.path());
    let duplicates: Arc<Duplicates> = Arc::default();
    let message = b"Message-ID: <1@example.com>\r\n\r\n";
    let job = |message: &[u8]| Job { window: Some(HOUR), duplicates: duplicates.clone(), ..job(None, message, true) };
    let (first, second) = (job(message), job(message));
    let said = std::thread::scope(|scope| {
        let both = [&first, &second].map(|job| scope.spawn(|| job.run(&account).unwrap().text));
        both.map(|one| one.join().unwrap())
    });
    assert_ne!(said[0], said[1], "{said:?}");
    assert_eq!(messages(&account, "INBOX").len(), 1);
    // What failed is no reason to call the next try a duplicate, and nothing is said in a lease's name that is lost.
    tenure.end();
    assert!(job(b"Message-ID: <2@example.com>\r\n\r\n").run(&account).is_err());
    assert!(job(message).run(&account).is_err());
}

#[test]
fn sent_mail_is_filed_as_seen_in_a_mailbox_that_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let (account, _tenure) = open_account(dir.path());
    for _ in 0..2 {
        let outcome =
            Job { sent: Some("Out/Sent".to_owned()), ..job(Some("detail"), b"Subject: out\r\n\r\n", false) }.run(&account).unwrap();
        assert_eq!(outcome.code, 250);
    }
    let mailbox = account.mailbox(&MailboxName::parse("Out/Sent").unwrap()).unwrap();
    let columns = mailbox.read();
    let flags: Vec<bool> = columns.uids().iter().map(|uid| columns.get(*uid).unwrap().flags.contains(Flag::Seen)).collect();
    assert_eq!(flags, [true, true]);
    assert!(messages(&account, "INBOX").is_empty());
}

#[test]
fn recipients_of_one_holder_share_one_file_where_that_is_set() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let (account, _tenure) = open_account(dir.path());
    let copies = Some(Arc::default());
    for _ in 0..3 {
        // Their trace fields are the same: only the first one's are written.
        let job = Job { copies: copies.clone(), ..job(None, b"Subject: x\r\n\r\n", true) };
        assert_eq!(job.run(&account).unwrap().code, 250);
    }
    drop(copies);
    let files = std::fs::read_dir(dir.path().join("Maildir/cur")).unwrap().map(|file| file.unwrap().metadata().unwrap());
    let inodes: std::collections::BTreeSet<(u64, u64)> = files.map(|file| (file.ino(), file.nlink())).collect();
    assert_eq!(inodes.iter().map(|(_, links)| *links).collect::<Vec<_>>(), [3]);
    assert_eq!(messages(&account, "INBOX").len(), 3);
    let shared = trace_fields(&client("192.0.2.7:999"), &envelope(), &addressee(None), false, "now");
    assert!(!shared.to_lowercase().contains("ada") && shared.ends_with(" id 00000000000000ff; now\r\n"), "{shared}");
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
    Envelope { sender: "grace@example.com".into(), lhlo: "mx.example.com".into(), with: "LMTP".into(), profile: Profile::Inbox }
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
    let fields = trace_fields(&client("192.0.2.7:999"), &envelope(), &addressee(None), true, "Fri, 21 Nov 2026 09:55:06 -0600");
    assert_eq!(
        fields,
        "Return-Path: <grace@example.com>\r\nDelivered-To: Ada@example.org\r\nReceived: from mx.example.com ([192.0.2.7])\r\n\
         \tby node-a with LMTP id 00000000000000ff\r\n\tfor <Ada@example.org>; Fri, 21 Nov 2026 09:55:06 -0600\r\n"
    );
    let fields = trace_fields(&client("[2001:db8::1]:9"), &Envelope { sender: String::new(), ..envelope() }, &addressee(None), true, "");
    assert!(fields.starts_with("Return-Path: <>\r\n") && fields.contains("([IPv6:2001:db8::1])"), "{fields}");
    let tls = Client { tls: Some("TLSv1.3 with TLS13_AES_256_GCM_SHA384".into()), ..client("192.0.2.7:999") };
    let to = Addressee { original: Some(("rfc822".into(), "lists@example.org".into())), ..addressee(None) };
    let fields = trace_fields(&tls, &envelope(), &to, true, "");
    assert!(fields.contains("\r\nOriginal-Recipient: rfc822;lists@example.org\r\nDelivered-To: "), "{fields}");
    assert!(fields.contains("([192.0.2.7])\r\n\t(using TLSv1.3 with TLS13_AES_256_GCM_SHA384)\r\n\tby node-a"), "{fields}");
    assert!(trace_fields(&client("[::ffff:10.0.0.1]:9"), &envelope(), &addressee(None), true, "").contains("([10.0.0.1])"));
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
