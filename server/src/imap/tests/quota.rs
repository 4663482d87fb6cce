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
}

#[tokio::test]
async fn an_operator_sets_limits_and_nobody_else_does() {
    let house = House::new();
    let mut user = inbox_of(&house, 2).await;
    let mut operator = house.session_with(Settings { may_set_quota: true, ..settings() }).await;
    limit(&house, &[("quota_rule", "*:bytes=10k:messages=30")]);
    assert!(operator.ok("CAPABILITY").await.contains(" QUOTASET"));
    assert!(!user.ok("CAPABILITY").await.contains(" QUOTASET"));
    assert!(user.ask("SETQUOTA \"User quota\" (STORAGE 512)").await.starts_with("T NO [NOPERM]"));

    let set = operator.ok("SETQUOTA \"User quota\" (STORAGE 512)").await;
    assert_eq!(set, "* QUOTA \"User quota\" (STORAGE 1 512 MAILBOX 2 1000)\r\nT OK Setquota completed\r\n", "MESSAGE is limited no more");
    assert!(user.ok("GETQUOTA \"User quota\"").await.starts_with("* QUOTA \"User quota\" (STORAGE 1 512 MAILBOX 2 1000)\r\n"));
    let unchanged = [
        ("SETQUOTA \"User quota\" (STORAGE 1 X-THINGS 3)", "T NO [CANNOT]"),
        ("SETQUOTA \"User quota\" (MAILBOX 5)", "T NO [CANNOT]"),
        ("SETQUOTA \"User quota\" (STORAGE 9007199254740992)", "T NO [CANNOT]"),
        ("SETQUOTA \"User quota\" (MESSAGE 9223372036854775808)", "T BAD "),
        ("SETQUOTA \"User quota\" (STORAGE 1 storage 2)", "T BAD "),
        ("SETQUOTA \"User quota\" STORAGE", "T BAD "),
        ("SETQUOTA \"#user/alice\" (STORAGE 510)", "T NO [NONEXISTENT]"),
    ];
    for (command, answer) in unchanged {
        let said = operator.ask(command).await;
        assert!(said.starts_with(answer), "{command}: {said}");
    }
    assert!(operator.ok("GETQUOTA \"User quota\"").await.contains("(STORAGE 1 512 MAILBOX 2 1000)"), "none of them changed anything");
    let largest = operator.ok("SETQUOTA \"User quota\" (storage 9007199254740991 MESSAGE 9223372036854775807)").await;
    assert!(largest.contains("(STORAGE 1 9007199254740991 MESSAGE 2 9223372036854775807 MAILBOX 2 1000)"), "{largest}");

    operator.ok("SETQUOTA \"User quota\" (MESSAGE 2)").await;
    assert!(user.append("INBOX", &message("a", "x")).await.starts_with("T NO [OVERQUOTA]"));
    let back = operator.ok("SETQUOTA \"User quota\" ()").await;
    assert!(back.starts_with("* QUOTA \"User quota\" (STORAGE 1 10 MESSAGE 2 30 MAILBOX 2 1000)\r\n"), "{back}");
    assert!(user.append("INBOX", &message("a", "x")).await.contains("[APPENDUID "));
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
