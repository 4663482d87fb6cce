//! `.` between levels of mailbox names, by setting.

use super::*;

#[tokio::test]
async fn with_a_dot_between_levels_every_command_reads_and_writes_dots() {
    let house = House::new();
    let mut talk = house.session_with(Settings { separator: Separator::Dot, ..settings() }).await;
    assert!(talk.ok("NAMESPACE").await.starts_with("* NAMESPACE ((\"\" \".\")) NIL NIL\r\n"));
    assert!(talk.ok("LIST \"\" \"\"").await.contains(") \".\" \"\"\r\n"));
    talk.ok("CREATE Archive.2026.").await;
    talk.ok("CREATE Archive.2026.Entw&APw-rfe").await;
    let refused = talk.ask("CREATE a/b").await;
    assert!(refused.contains("T NO ") && refused.contains("\".\""), "{refused}");
    let all = talk.ok("LIST \"\" *").await;
    assert!(all.contains("\".\" Archive.2026.Entw&APw-rfe\r\n") && !all.contains('/'), "{all}");
    let one_level = talk.ok("LIST Archive. %").await;
    assert!(one_level.contains("\".\" Archive.2026\r\n") && !one_level.contains("Entw"), "{one_level}");
    assert!(talk.ok("STATUS Archive.2026 (MESSAGES)").await.starts_with("* STATUS Archive.2026 (MESSAGES 0)\r\n"));
    talk.ok("SUBSCRIBE Archive.2026").await;
    assert!(talk.ok("LSUB \"\" *").await.contains("\".\" Archive.2026\r\n"));
    let text = message("dot", "x");
    talk.ok(&format!("APPEND Archive.2026 {{{}+}}\r\n{text}", text.len())).await;
    talk.ok("SELECT Archive.2026").await;
    talk.ok("APPEND INBOX CATENATE (URL \"/Archive.2026/;UID=1\" TEXT {3+}\r\nx\r\n)").await;
    talk.ok("RENAME Archive.2026 Old").await;
    assert!(talk.ok("LIST \"\" *").await.contains("\".\" Old.Entw&APw-rfe\r\n"));
    talk.ok("ENABLE IMAP4rev2").await;
    assert!(talk.ok("LIST \"\" Old.*").await.contains("\".\" \"Old.Entwürfe\"\r\n"));

    // The same names for who reads slashes.
    let mut other = house.session().await;
    assert!(other.ok("LIST \"\" *").await.contains("\"/\" Old/Entw&APw-rfe\r\n"));
    other.ok("SELECT Old/Entw&APw-rfe").await;
}
