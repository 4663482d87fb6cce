//! METADATA (RFC 5464) and LIST-METADATA (RFC 9590).

use super::*;

#[tokio::test]
async fn annotations_are_set_told_and_removed() {
    let house = House::new();
    let mut talk = house.session().await;
    talk.ok("SETMETADATA \"\" (/private/comment \"account\")").await;
    talk.ok("SETMETADATA INBOX (/private/comment {33+}\r\nMy new comment across\r\ntwo lines. /shared/comment \"This one is for you!\")")
        .await;
    assert_eq!(
        talk.ok("GETMETADATA \"INBOX\" (/shared/comment /PRIVATE/comment /private/none)").await,
        "* METADATA INBOX (/shared/comment \"This one is for you!\" /PRIVATE/comment {33}\r\nMy new comment across\r\ntwo lines. /private/none NIL)\r\n\
         T OK Getmetadata completed\r\n"
    );
    assert_eq!(
        talk.ok("GETMETADATA \"\" /private/comment").await,
        "* METADATA \"\" (/private/comment \"account\")\r\nT OK Getmetadata completed\r\n"
    );
    assert!(talk.ok("GETMETADATA INBOX /private/comment /shared/comment").await.contains("two lines. /shared/comment \"This"));
    talk.ok("SETMETADATA INBOX (/private/comment NIL /shared/binary ~{3+}\r\na\0b)").await;
    let answer = talk.ok("GETMETADATA INBOX (/private/comment /shared/binary)").await;
    assert!(answer.starts_with("* METADATA INBOX (/private/comment NIL /shared/binary ~{3}\r\na\0b)\r\n"), "{answer:?}");
    // Another session, another name.
    talk.ok("CREATE foo").await;
    talk.ok("SETMETADATA foo (/private/comment {0+}\r\n)").await;
    let mut other = house.session().await;
    other.ok("RENAME foo bar").await;
    assert!(other.ok("GETMETADATA bar /private/comment").await.starts_with("* METADATA bar (/private/comment \"\")\r\n"));
    assert!(other.ask("GETMETADATA foo /private/comment").await.starts_with("T NO [NONEXISTENT]"));
    assert!(other.ask("SETMETADATA foo (/private/comment \"x\")").await.starts_with("T NO [NONEXISTENT]"));
}

#[tokio::test]
async fn depth_and_maxsize_choose_what_is_told() {
    let house = House::new();
    let mut talk = house.session().await;
    let filters = "/private/filters/values/small \"SMALLER 5000\" /private/filters/values/boss \"FROM \\\"boss@example.com\\\"\"";
    talk.ok(&format!("SETMETADATA INBOX ({filters} /private/filters/values/a/b \"deep\" /private/filtersx \"beside\")")).await;
    for place in ["(DEPTH 1) \"INBOX\" (/private/filters/values)", "\"INBOX\" (DEPTH 1) (/private/filters/values)"] {
        assert_eq!(
            talk.ok(&format!("GETMETADATA {place}")).await,
            "* METADATA INBOX (/private/filters/values/boss \"FROM \\\"boss@example.com\\\"\" /private/filters/values/small \"SMALLER 5000\")\r\n\
             T OK Getmetadata completed\r\n"
        );
    }
    let all = talk.ok("GETMETADATA (DEPTH infinity) INBOX /private/filters").await;
    assert!(all.contains("/private/filters/values/a/b \"deep\"") && !all.contains("filtersx"), "{all}");
    assert_eq!(talk.ok("GETMETADATA (DEPTH infinity) INBOX /private/none").await, "T OK Getmetadata completed\r\n");
    talk.ok(&format!("SETMETADATA INBOX (/shared/comment {{2199+}}\r\n{})", "x".repeat(2199))).await;
    talk.ok("SETMETADATA INBOX (/private/comment \"My own comment\")").await;
    assert_eq!(
        talk.ok("GETMETADATA \"INBOX\" (MAXSIZE 1024) (/shared/comment /private/comment)").await,
        "* METADATA INBOX (/private/comment \"My own comment\")\r\nT OK [METADATA LONGENTRIES 2199] Getmetadata completed\r\n"
    );
    assert!(talk.ok("GETMETADATA (MAXSIZE 2199) INBOX /shared/comment").await.contains("/shared/comment {2199}\r\n"));
}

#[tokio::test]
async fn what_can_not_be_annotated_is_said_and_nothing_changes() {
    let house = House::new();
    let mut talk = house.session_with(Settings { bad_commands: 100, ..settings() }).await;
    let large = "x".repeat(32 * 1024 + 1);
    let refused = talk.ask(&format!("SETMETADATA INBOX (/private/a \"x\" /private/b {{{}+}}\r\n{large})", large.len())).await;
    assert!(refused.starts_with("T NO [METADATA MAXSIZE 32768]"), "{refused}");
    let many: Vec<String> =
        (0..128).map(|number| format!("/private/{number} x{number}")).map(|pair| pair.replace(" x", " \"x") + "\"").collect();
    talk.ok(&format!("SETMETADATA INBOX ({})", many.join(" "))).await;
    let refused = talk.ask("SETMETADATA INBOX (/private/0 \"changed\" /private/a \"x\")").await;
    assert!(refused.starts_with("T NO [METADATA TOOMANY]"), "{refused}");
    assert!(talk.ok("GETMETADATA INBOX (/private/0 /private/a)").await.contains("(/private/0 \"x0\" /private/a NIL)"));
    assert!(talk.ask("SETMETADATA \"\" (/shared/admin \"mailto:me\")").await.starts_with("T NO [NOPERM]"));
    assert!(talk.ask("SETMETADATA \"&bad\" (/private/x \"x\")").await.starts_with("T NO [CANNOT]"));
    for bad in [
        "SETMETADATA INBOX ()",
        "SETMETADATA INBOX (/private/comment)",
        "SETMETADATA INBOX /private/comment \"x\"",
        "SETMETADATA INBOX (comment \"x\")",
        "SETMETADATA INBOX (/private \"x\")",
        "SETMETADATA INBOX (/other/comment \"x\")",
        "SETMETADATA INBOX (/private/a//b \"x\")",
        "SETMETADATA INBOX (/private/a/ \"x\")",
        "SETMETADATA INBOX (\"/private/a*\" \"x\")",
        "SETMETADATA INBOX (\"/private/a%\" \"x\")",
        "SETMETADATA INBOX (\"/private/\u{e9}\" \"x\")",
        "SETMETADATA INBOX (/private/vendor/cmu \"x\")",
        "SETMETADATA INBOX (/private/a \"x\" /PRIVATE/A \"y\")",
        "GETMETADATA INBOX",
        "GETMETADATA INBOX ()",
        "GETMETADATA (DEPTH 2) INBOX /private/a",
        "GETMETADATA (MAXSIZE x) INBOX /private/a",
        "GETMETADATA (SIZE 1) INBOX /private/a",
        "GETMETADATA INBOX comment",
        "LIST \"\" * RETURN (METADATA)",
        "LIST \"\" * RETURN (METADATA (x))",
    ] {
        assert!(talk.ask(bad).await.starts_with("T BAD "), "{bad}");
    }
}

#[tokio::test]
async fn list_tells_annotations_of_each_mailbox() {
    let house = House::new();
    let mut talk = house.session().await;
    talk.ok("CREATE foo/bar").await;
    talk.ok("DELETE foo").await;
    talk.ok("SETMETADATA INBOX (/shared/vendor/cmu/cyrus-imapd/color \"#b71c1c\")").await;
    assert_eq!(
        talk.ok("LIST \"\" * RETURN (STATUS (MESSAGES) METADATA (\"/shared/vendor/cmu/cyrus-imapd/color\" /private/specialuse))").await,
        "* LIST (\\HasNoChildren) \"/\" INBOX\r\n\
         * STATUS INBOX (MESSAGES 0)\r\n\
         * METADATA INBOX (/shared/vendor/cmu/cyrus-imapd/color \"#b71c1c\" /private/specialuse NIL)\r\n\
         * LIST (\\HasNoChildren \\Sent) \"/\" Sent\r\n\
         * STATUS Sent (MESSAGES 0)\r\n\
         * METADATA Sent (/shared/vendor/cmu/cyrus-imapd/color NIL /private/specialuse \"\\\\Sent\")\r\n\
         * LIST (\\NonExistent \\HasChildren) \"/\" foo\r\n\
         * LIST (\\HasNoChildren) \"/\" foo/bar\r\n\
         * STATUS foo/bar (MESSAGES 0)\r\n\
         * METADATA foo/bar (/shared/vendor/cmu/cyrus-imapd/color NIL /private/specialuse NIL)\r\n\
         T OK List completed\r\n"
    );
    assert!(talk.ask("SETMETADATA foo/bar (/private/specialuse \"\\\\Drafts\")").await.starts_with("T NO [CANNOT]"));
    assert!(talk.ok("GETMETADATA Sent /private/specialuse").await.starts_with("* METADATA Sent (/private/specialuse \"\\\\Sent\")\r\n"));
}
