//! ACL (RFC 4314), other users' mailboxes (RFC 2342), LIST-MYRIGHTS (RFC 8440).

mod limits;
mod town;
mod transfer;

use town::Town;

use super::*;

const WORK: &str = "\"Other Users/ada/Work\"";
const EVERYTHING: &str = "lrswipkxtea";

/// Ada has a mailbox Work with two messages, and one below.
async fn town() -> Town {
    let town = Town::new(&["ada", "bob", "eve"]);
    let mut ada = town.session("ada").await;
    ada.ok("CREATE Work/Sub").await;
    for subject in ["one", "two"] {
        let answer = ada.append("Work", &message(subject, "x")).await;
        assert!(answer.contains("T OK"), "{answer}");
    }
    town
}

#[tokio::test]
async fn the_owner_gives_and_takes_rights() {
    let town = town().await;
    let mut ada = town.session("ada").await;
    assert!(ada.ok("CAPABILITY").await.contains(" ACL RIGHTS=texk LIST-MYRIGHTS\r\n"));
    ada.ok("SETACL Work David lrswida").await;
    assert_eq!(ada.ok("GETACL Work").await, "* ACL Work ada lrswipkxtecda david lrswiteda\r\nT OK Getacl completed\r\n");
    ada.ok("SETACL Work David lrswi").await;
    ada.ok("SETACL Work David +cda").await;
    ada.ok("SETACL Work David -p").await;
    ada.ok("SETACL Work -fred wetd").await;
    ada.ok("SETACL Work \"$the team\" w").await;
    ada.ok("SETACL Work anyone \"\"").await;
    let all = "* ACL Work ada lrswipkxtecda anyone \"\" \"$the team\" w david lrswikxtecda -fred wted\r\n";
    assert_eq!(ada.ok("GETACL Work").await, format!("{all}T OK Getacl completed\r\n"));
    ada.ok("DELETEACL Work -fred").await;
    ada.ok("DELETEACL Work nobody").await;
    assert_eq!(ada.ok("GETACL INBOX").await, "* ACL INBOX ada lrswipkxtecda\r\nT OK Getacl completed\r\n");
    assert_eq!(
        ada.ok("LISTRIGHTS Work Smith").await,
        "* LISTRIGHTS Work Smith \"\" l r s w i p k x t e c d a\r\nT OK Listrights completed\r\n"
    );
    assert_eq!(ada.ok("LISTRIGHTS Work ada").await, "* LISTRIGHTS Work ada lrswipkxtecda\r\nT OK Listrights completed\r\n");
    assert_eq!(ada.ok("MYRIGHTS Work").await, "* MYRIGHTS Work lrswipkxtecda\r\nT OK Myrights completed\r\n");
    assert_eq!(ada.ask("SETACL Work John lrQswicda").await, "T BAD Uppercase rights are not allowed\r\n");
    assert_eq!(ada.ask("SETACL Work John lrqswicda").await, "T BAD The q right is not supported\r\n");
    assert!(ada.ask("SETACL Work \"a b\" lr").await.starts_with("T BAD "));
    for verb in ["GETACL", "MYRIGHTS", "LISTRIGHTS"] {
        let identifier = if verb == "LISTRIGHTS" { " bob" } else { "" };
        assert!(ada.ask(&format!("{verb} None{identifier}")).await.starts_with("T NO [NONEXISTENT]"), "{verb}");
    }
    assert!(ada.ask("SETACL None bob lr").await.starts_with("T NO [NONEXISTENT]"));
    // The owner is never locked out.
    for command in ["SETACL Work ada lr", "SETACL Work owner lr", "SETACL Work -ada a", "DELETEACL Work ada"] {
        assert!(ada.ask(command).await.starts_with("T NO [NOPERM]"), "{command}");
    }
    ada.ok(&format!("SETACL Work ada {EVERYTHING}")).await;
}

#[tokio::test]
async fn whoever_was_given_nothing_sees_nothing() {
    let town = town().await;
    town.give("ada", "Work", "bob", "lr").await;
    let mut eve = town.session("eve").await;
    assert_eq!(eve.ok("NAMESPACE").await, "* NAMESPACE ((\"\" \"/\")) ((\"Other Users/\" \"/\")) NIL\r\nT OK Namespace completed\r\n");
    assert!(!eve.ok("LIST \"\" *").await.contains("Other"));
    assert_eq!(eve.ok("LIST \"\" \"Other Users/*\"").await, "T OK List completed\r\n");
    let missing = "T NO [NONEXISTENT] There is no such mailbox\r\n";
    for name in [WORK, "\"Other Users/ada/None\"", "\"Other Users/nobody/INBOX\"", "\"Other Users/eve/INBOX\"", "\"Other Users\""] {
        for verb in ["SELECT", "DELETE", "GETACL", "MYRIGHTS"] {
            assert_eq!(eve.ask(&format!("{verb} {name}")).await, missing, "{verb} {name}");
        }
    }
    assert!(eve.ask("CREATE \"Other Users/eve\"").await.starts_with("T NO [NOPERM]"));
    assert!(eve.append(WORK, &message("x", "y")).await.contains("T NO [NONEXISTENT]"));
    // What follows is understood.
    eve.ok("NOOP").await;
}

#[tokio::test]
async fn a_mailbox_without_lookup_is_as_good_as_missing() {
    let town = town().await;
    town.give("ada", "INBOX", "bob", "lr").await;
    let mut bob = town.session("bob").await;
    for rights in ["", "s", "w", "p", "t", "e"] {
        town.give("ada", "Work", "bob", rights).await;
        for verb in ["SELECT", "STATUS", "DELETE", "GETACL", "MYRIGHTS"] {
            let rest = if verb == "STATUS" { " (MESSAGES)" } else { "" };
            let there = bob.ask(&format!("{verb} {WORK}{rest}")).await;
            let missing = bob.ask(&format!("{verb} \"Other Users/ada/None\"{rest}")).await;
            assert!(there.starts_with("T NO [NONEXISTENT]"), "{rights} {verb}: {there}");
            assert_eq!(there.replace("/Work", "/None"), missing);
        }
        assert!(!bob.ok("LIST \"\" *").await.contains("Work"), "{rights}");
    }
    town.give("ada", "Work", "bob", "l").await;
    assert!(bob.ask(&format!("SELECT {WORK}")).await.starts_with("T NO [NOPERM]"));
    assert!(bob.ok(&format!("MYRIGHTS {WORK}")).await.starts_with(&format!("* MYRIGHTS {WORK} l\r\n")));
}

#[tokio::test]
async fn every_command_needs_its_rights() {
    let town = town().await;
    town.session("ada").await.ok("CREATE Other").await;
    town.give("ada", "Other", "bob", "lrik").await;
    let other = "\"Other Users/ada/Other\"";
    let text = message("x", "y");
    let append = format!("APPEND {WORK} {{{}+}}\r\n{text}", text.len());
    let replace = format!("REPLACE 1 {other} {{{}+}}\r\n{text}", text.len());
    let cases: Vec<(bool, String, &str)> = vec![
        (false, format!("SELECT {WORK}"), "r"),
        (false, format!("EXAMINE {WORK}"), "r"),
        (false, format!("STATUS {WORK} (MESSAGES)"), "r"),
        (false, format!("GETQUOTAROOT {WORK}"), "r"),
        (false, format!("GETMETADATA {WORK} /shared/comment"), "r"),
        (false, format!("SETMETADATA {WORK} (/shared/comment \"x\")"), "w"),
        (false, append, "i"),
        (false, format!("CREATE {}/new\"", WORK.trim_end_matches('"')), "k"),
        (false, format!("SETACL {WORK} eve lr"), "a"),
        (false, format!("DELETEACL {WORK} eve"), "a"),
        (false, format!("GETACL {WORK}"), "a"),
        (false, format!("LISTRIGHTS {WORK} eve"), "a"),
        (true, "STORE 1 +FLAGS (\\Seen)".into(), "s"),
        (true, "STORE 1 FLAGS (\\Flagged $X)".into(), "w"),
        (true, "STORE 1 -FLAGS (\\Deleted)".into(), "t"),
        (true, "EXPUNGE".into(), "e"),
        (true, "UID EXPUNGE 1".into(), "e"),
        (true, format!("COPY 1 {WORK}"), "i"),
        (true, format!("MOVE 1 {other}"), "te"),
        (true, replace, "te"),
        (false, format!("RENAME {WORK} {}/moved\"", other.trim_end_matches('"')), "x"),
        (false, "DELETE \"Other Users/ada/Other/moved\"".into(), "x"),
    ];
    for (selected, command, needed) in cases {
        let mut bob = town.session("bob").await;
        let mailbox = if command.starts_with("DELETE \"") { "Other/moved" } else { "Work" };
        for missing in needed.chars() {
            let without: String = EVERYTHING.chars().filter(|letter| *letter != missing).collect();
            town.give("ada", mailbox, "bob", &without).await;
            if selected {
                bob.ok(&format!("SELECT {WORK}")).await;
            }
            let answer = bob.ask(&command).await;
            assert!(answer.contains("T NO [NOPERM]"), "{command} without {missing}: {answer}");
        }
        town.give("ada", mailbox, "bob", &format!("lr{needed}")).await;
        if selected {
            bob.ok(&format!("SELECT {WORK}")).await;
        }
        bob.ok(&command).await;
        bob.ok("NOOP").await;
    }
}

#[tokio::test]
async fn flags_are_changed_as_far_as_rights_go() {
    let town = town().await;
    let mut bob = town.session("bob").await;
    // The example of RFC 4314 §4: what is copied loses the flags that may not be set.
    bob.ok("CREATE From").await;
    for flags in ["(\\Draft \\Deleted)", "(\\Answered)", "($Forwarded \\Seen)"] {
        assert!(bob.append(&format!("From {flags}"), &message("x", "y")).await.contains("T OK"));
    }
    bob.ok("SELECT From").await;
    for (rights, expected) in
        [("lrwis", ["(\\Draft)", "(\\Answered)", "(\\Seen $Forwarded)"]), ("lrsti", ["(\\Deleted)", "()", "(\\Seen)"])]
    {
        town.session("ada").await.ok(&format!("CREATE T{rights}")).await;
        town.give("ada", &format!("T{rights}"), "bob", rights).await;
        let copied = bob.ok(&format!("COPY 1:3 \"Other Users/ada/T{rights}\"")).await;
        assert!(copied.contains("[COPYUID ") && copied.contains(" 1:3 1:3] Copy completed"), "{copied}");
        let mut ada = town.session("ada").await;
        ada.ok(&format!("EXAMINE T{rights}")).await;
        let fetched = ada.ok("FETCH 1:* FLAGS").await.replace(" \\Recent", "").replace("\\Recent", "");
        for (number, flags) in expected.iter().enumerate() {
            assert!(fetched.contains(&format!("* {} FETCH (FLAGS {flags})", number + 1)), "{rights}: {fetched}");
        }
    }
    // What SELECT says goes with the rights, and so does what reading does.
    town.give("ada", "Work", "bob", "lrs").await;
    let selected = bob.ok(&format!("SELECT {WORK}")).await;
    assert!(selected.contains("[PERMANENTFLAGS (\\Seen)]") && selected.contains("T OK [READ-WRITE]"), "{selected}");
    assert!(bob.ok("STORE 1 FLAGS (\\Seen \\Flagged)").await.contains("FETCH (FLAGS (\\Seen"));
    town.give("ada", "Work", "bob", "lrw").await;
    let changed = bob.ok("STORE 1 FLAGS (\\Flagged \\Deleted)").await;
    assert!(changed.contains("[PERMANENTFLAGS (\\Answered \\Flagged \\Draft \\*)]"), "{changed}");
    assert!(changed.contains("* 1 FETCH (FLAGS (\\Flagged \\Seen"), "{changed}");
    let read = bob.ok("FETCH 2 (FLAGS BODY[])").await;
    assert!(!read.contains("\\Seen"), "{read}");
    town.give("ada", "Work", "bob", "lr").await;
    assert!(bob.ok(&format!("SELECT {WORK}")).await.contains("T OK [READ-ONLY]"));
    town.give("ada", "Work", "bob", "lrst").await;
    bob.ok(&format!("SELECT {WORK}")).await;
    bob.ok("STORE 1:* +FLAGS.SILENT (\\Deleted)").await;
    bob.ok("CLOSE").await;
    assert!(town.session("ada").await.ok("STATUS Work (MESSAGES DELETED)").await.contains("(MESSAGES 2 DELETED 2)"));
    assert!(bob.ask("FETCH 1 FLAGS").await.starts_with("T BAD"), "nothing is selected after CLOSE");
}

#[tokio::test]
async fn a_withdrawn_right_ends_what_it_allowed() {
    let town = town().await;
    town.give("ada", "Work", "bob", "lrsw").await;
    let mut bob = town.session("bob").await;
    bob.ok(&format!("SELECT {WORK}")).await;
    bob.ok("STORE 1 +FLAGS (\\Seen)").await;
    town.give("ada", "Work", "bob", "lr").await;
    let answer = bob.ask("STORE 1 +FLAGS (\\Seen)").await;
    assert!(answer.contains("T NO [NOPERM]"), "{answer}");
    bob.send("i IDLE\r\n").await;
    bob.until("+ ").await;
    town.session("ada").await.ok("DELETEACL Work bob").await;
    let (rest, end) = bob.rest().await;
    assert!(rest.contains("* BYE [UNAVAILABLE] You may not read the selected mailbox any more\r\n"), "{rest} {end:?}");
    assert!(!rest.contains("FETCH"), "{rest}");
}

#[tokio::test]
async fn when_the_other_session_ends_the_client_is_told() {
    let town = town().await;
    town.give("ada", "Work", "bob", EVERYTHING).await;
    let (mut selected, mut other) = (town.session("bob").await, town.session("bob").await);
    selected.ok(&format!("SELECT {WORK}")).await;
    town.house("ada").take_away("it moves");
    // A command by the way fails, and the session goes on.
    let answer = other.ask(&format!("STATUS {WORK} (MESSAGES)")).await;
    assert!(answer.starts_with("T NO [UNAVAILABLE]"), "{answer}");
    other.ok("SELECT INBOX").await;
    // Nobody need ask.
    let (rest, _) = selected.rest().await;
    assert!(rest.contains("* BYE [UNAVAILABLE] it moves\r\n"), "{rest}");
}

#[tokio::test]
async fn own_mailboxes_hide_a_namespace() {
    let town = Town::new(&["ada", "bob", "public"]).with_shared_account("public");
    town.give("public", "INBOX", "anyone", "lr").await;
    town.give("ada", "INBOX", "bob", "lr").await;
    let mut bob = town.session("bob").await;
    let namespaces = "* NAMESPACE ((\"\" \"/\")) ((\"Other Users/\" \"/\")) ((\"Shared/\" \"/\"))\r\n";
    assert!(bob.ok("NAMESPACE").await.starts_with(namespaces));
    assert!(bob.ok("LIST \"\" *").await.contains("Shared/INBOX"));
    bob.ok("SELECT Shared/INBOX").await;
    assert!(bob.ask("SELECT \"Other Users/public/INBOX\"").await.contains("T NO [NONEXISTENT]"));
    // As a tree that was taken over has it.
    town.house("bob").account().create(&MailboxName::parse("Shared/INBOX").unwrap(), storage::CreateOptions::default()).unwrap();
    let mut bob = town.session("bob").await;
    assert!(bob.ok("NAMESPACE").await.contains("((\"Other Users/\" \"/\")) NIL\r\n"));
    assert!(bob.append("Shared/INBOX", &message("own", "x")).await.contains("T OK"));
    assert_eq!(
        town.session("public").await.ok("STATUS INBOX (MESSAGES)").await,
        "* STATUS INBOX (MESSAGES 0)\r\nT OK Status completed\r\n"
    );
    let mut public = town.session("public").await;
    assert!(public.ok("NAMESPACE").await.ends_with("NIL\r\nT OK Namespace completed\r\n"));
}

#[tokio::test]
async fn list_tells_what_may_be_seen_with_rights_and_numbers() {
    let town = town().await;
    town.give("ada", "Work", "$team", "lrs").await;
    town.give("ada", "INBOX", "bob", "l").await;
    let mut bob = town.session_in("bob", &["team"]).await;
    bob.ok(&format!("SUBSCRIBE {WORK}")).await;
    assert!(bob.ok("LSUB \"\" *").await.contains("\"Other Users/ada/Work\""));
    let listed = bob.ok("LIST \"\" \"Other Users/*\" RETURN (SUBSCRIBED MYRIGHTS STATUS (MESSAGES))").await;
    let mut lines: Vec<&str> = listed.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "* LIST (\\HasNoChildren) \"/\" \"Other Users/ada/INBOX\"",
            "* LIST (\\NonExistent \\HasChildren) \"/\" \"Other Users/ada\"",
            "* LIST (\\Subscribed \\HasNoChildren) \"/\" \"Other Users/ada/Work\"",
            "* MYRIGHTS \"Other Users/ada/INBOX\" l",
            "* MYRIGHTS \"Other Users/ada/Work\" lrs",
            "* STATUS \"Other Users/ada/Work\" (MESSAGES 2)",
            "T OK List completed",
        ]
    );
    assert!(bob.ok("LIST \"\" %").await.contains("* LIST (\\NoSelect \\HasChildren) \"/\" \"Other Users\"\r\n"));
    assert!(bob.ok("LIST (SUBSCRIBED) \"\" *").await.contains("Other Users/ada/Work"));
    assert!(bob.ok("LIST \"\" INBOX RETURN (MYRIGHTS)").await.contains("* MYRIGHTS INBOX lrswipkxtecda\r\n"));
    // With the mailbox selected, its own session is asked.
    bob.ok(&format!("SELECT {WORK}")).await;
    assert!(bob.ok("LIST \"\" \"Other Users/ada/%\" RETURN (STATUS (UIDNEXT))").await.contains("(UIDNEXT 3)"));
    assert!(bob.ok("UID FETCH 1:* (UID)").await.contains("* 2 FETCH (UID 2)"));
    // Who is not in the group sees the other one only.
    assert!(!town.session("bob").await.ok("LIST \"\" *").await.contains("Work"));
}

#[tokio::test]
async fn everything_of_a_selected_mailbox_works_for_a_guest() {
    let town = town().await;
    town.give("ada", "Work", "bob", EVERYTHING).await;
    let mut bob = town.session("bob").await;
    bob.ok("ENABLE QRESYNC IMAP4rev2").await;
    let selected = bob.ok(&format!("SELECT {WORK}")).await;
    assert!(
        selected.contains("* LIST (\\HasChildren) \"/\" \"Other Users/ada/Work\"\r\n") && selected.contains("[HIGHESTMODSEQ "),
        "{selected}"
    );
    assert!(bob.ok("UID SEARCH RETURN (ALL) ALL").await.contains("UID ALL 1:2"));
    assert!(bob.ok("FETCH 1 (BODY.PEEK[HEADER.FIELDS (SUBJECT)])").await.contains("Subject: one"));
    assert!(bob.append(WORK, &message("three", "z")).await.contains("* 3 EXISTS"));
    bob.ok("STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    assert!(bob.ok("EXPUNGE").await.contains("* VANISHED 1\r\n"));
    // The owner's change arrives in IDLE.
    bob.send("i IDLE\r\n").await;
    bob.until("+ ").await;
    let mut ada = town.session("ada").await;
    assert!(ada.append("Work", &message("four", "z")).await.contains("T OK"));
    bob.until("* 3 EXISTS").await;
    bob.send("DONE\r\n").await;
    bob.until("i OK").await;
    // Own mailbox, then theirs again.
    let own = bob.ok("SELECT INBOX").await;
    assert!(own.starts_with("* OK [CLOSED]"), "{own}");
    assert!(bob.ok(&format!("EXAMINE {WORK}")).await.starts_with("* OK [CLOSED]"));
    assert!(bob.ask("STORE 1 +FLAGS (\\Seen)").await.contains("T NO [READ-ONLY]"));
    assert!(bob.ok("UNSELECT").await.ends_with("T OK Unselect completed\r\n"));
    assert!(bob.ask("FETCH 1 FLAGS").await.starts_with("T BAD"));
    // Messages that are announced and not yet sent.
    bob.send(&format!("s APPEND {WORK} (\\Seen) {{5}}\r\n")).await;
    bob.until("+ ").await;
    bob.send("a: b\n\r\n").await;
    bob.until("s OK [APPENDUID ").await;
    bob.send(&format!("l APPEND {WORK} {{99999999}}\r\n")).await;
    bob.until("l NO [TOOBIG]").await;
    bob.ok("LOGOUT").await;
}
