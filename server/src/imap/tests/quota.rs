//! Quotas as a client sees them.

use storage::{QuotaRules, QuotaSettings};

use super::*;

fn limit(house: &House, fields: &[(&str, &str)]) {
    let (rules, complaints) = QuotaRules::default().with_fields(fields.iter().copied());
    assert_eq!(complaints, Vec::<String>::new());
    house.account().set_quota(&QuotaSettings { rules, ..QuotaSettings::default() }).unwrap();
}

#[tokio::test]
async fn usage_and_limits_are_told_for_roots_and_mailboxes() {
    let house = House::new();
    let mut talk = inbox_of(&house, 2).await;
    let fields = [("quota_rule", "*:bytes=10k:messages=3"), ("quota2", "maildir:Archive:ns=Archive/"), ("quota2_rule", "*:messages=7")];
    assert_eq!(
        talk.ok("GETQUOTAROOT INBOX").await,
        "* QUOTAROOT INBOX \"User quota\"\r\n* QUOTA \"User quota\" (MAILBOX 2 1000)\r\nT OK Getquotaroot completed\r\n"
    );
    limit(&house, &fields);
    assert_eq!(
        talk.ok("GETQUOTA \"User quota\"").await,
        "* QUOTA \"User quota\" (STORAGE 1 10 MESSAGE 2 3 MAILBOX 2 1000)\r\nT OK Getquota completed\r\n"
    );
    let not_there_yet = talk.ok("GETQUOTAROOT Archive/2026").await;
    assert!(not_there_yet.starts_with("* QUOTAROOT Archive/2026 \"User quota\" \"Archive\"\r\n"), "{not_there_yet}");
    assert!(not_there_yet.contains("* QUOTA \"Archive\" (MESSAGE 0 7)\r\n"), "{not_there_yet}");
    assert!(talk.ask("GETQUOTA nonsense").await.starts_with("T NO [NONEXISTENT]"));
    assert!(talk.ask("GETQUOTA").await.starts_with("T BAD "));
    assert!(talk.ask("SETQUOTA \"User quota\" (STORAGE 512)").await.starts_with("T NO [NOPERM]"));
    assert!(talk.ask("SETQUOTA \"User quota\" STORAGE").await.starts_with("T BAD "));
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_overquota() {
    let house = House::new();
    let mut talk = inbox_of(&house, 2).await;
    limit(&house, &[("quota_rule", "*:messages=2"), ("quota2", "maildir:Small:ns=Small/"), ("quota2_rule", "*:bytes=1")]);
    let started = talk.ask("APPEND INBOX {10}").await;
    assert!(started.starts_with("T NO [OVERQUOTA]"), "refused before the message is sent: {started}");
    assert!(talk.append("INBOX", &message("a", "x")).await.starts_with("T NO [OVERQUOTA]"));
    assert!(talk.ask("COPY 1 Sent").await.starts_with("T NO [OVERQUOTA]"));
    talk.ok("CREATE Small").await;
    assert!(talk.ask("MOVE 1 Small").await.starts_with("T NO [OVERQUOTA]"));
    assert!(talk.ok("MOVE 1 Sent").await.contains("[COPYUID "));
    let new = message("b", "y");
    let replaced = talk.ask(&format!("REPLACE 1 INBOX {{{}+}}\r\n{new}", new.len())).await;
    assert!(replaced.contains("T OK Replace completed"), "the old message makes room for the new one: {replaced}");
    let answer = talk.ask(&format!("REPLACE 1 Small {{{}+}}\r\n{new}", new.len())).await;
    assert!(answer.starts_with("T NO [OVERQUOTA]"), "not in another root: {answer}");
    talk.ok("STORE 1 +FLAGS (\\Deleted)").await;
    talk.ok("EXPUNGE").await;
    assert!(talk.append("INBOX", &message("a", "x")).await.contains("[APPENDUID "));
}

#[tokio::test]
async fn status_tells_what_an_expunge_would_free() {
    let house = House::new();
    let mut talk = inbox_of(&house, 3).await;
    let size = message("s2", "body 2").len();
    talk.ok("STORE 2 +FLAGS (\\Deleted)").await;
    let answer = talk.ok("STATUS INBOX (MESSAGES DELETED DELETED-STORAGE)").await;
    assert!(answer.starts_with(&format!("* STATUS INBOX (MESSAGES 3 DELETED 1 DELETED-STORAGE {size})\r\n")), "{answer}");
}
