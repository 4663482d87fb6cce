//! What a guest may not do whatever the rights, and what is left when a command fails half-way.

use super::{EVERYTHING, WORK, town, *};

#[tokio::test]
async fn what_is_the_owners_own_affair_is_refused_whatever_the_rights() {
    let town = town().await;
    town.give("ada", "INBOX", "bob", EVERYTHING).await;
    town.give("ada", "Work", "bob", EVERYTHING).await;
    let mut ada = town.session("ada").await;
    ada.append("INBOX", &message("secret", "x")).await;
    let mut bob = town.session("bob").await;
    // The messages would come under the rights of Work.
    assert!(bob.ask("RENAME \"Other Users/ada/INBOX\" \"Other Users/ada/Work/q\"").await.starts_with("T NO [CANNOT]"));
    assert!(ada.ok("STATUS INBOX (MESSAGES)").await.contains("MESSAGES 1"));
    // The owner's programs would file what is sent there.
    assert!(bob.ask("CREATE \"Other Users/ada/Work/s\" (USE (\\Sent))").await.starts_with("T NO [USEATTR]"));
    bob.ok("CREATE \"Other Users/ada/Work/s\"").await;
}

#[tokio::test]
async fn a_command_that_ends_half_way_leaves_nothing_selected_and_says_so() {
    let town = town().await;
    town.give("ada", "Work", "bob", EVERYTHING).await;
    let mut bob = town.session("bob").await;
    bob.ok(&format!("SELECT {WORK}")).await;
    bob.send(&format!("T APPEND {WORK} {{3+}}\r\nabcgarbage\r\n")).await;
    let answer = bob.until("T ").await;
    assert!(answer.contains("* OK [CLOSED]") && answer.contains("T BAD"), "{answer}");
    assert!(bob.ask("FETCH 1 FLAGS").await.starts_with("T BAD"));
    bob.ok(&format!("SELECT {WORK}")).await;
    // RFC 3501 §6.3.1: a SELECT that fails has closed what was selected.
    let answer = bob.ask("SELECT \"Other Users/nobody\"").await;
    assert!(answer.contains("* OK [CLOSED]") && answer.contains("T NO"), "{answer}");
    assert!(bob.ask("FETCH 1 FLAGS").await.starts_with("T BAD"));
}

#[tokio::test]
async fn a_copy_swallows_no_flags_that_others_changed() {
    let town = town().await;
    town.give("ada", "Work", "bob", EVERYTHING).await;
    let mut bob = town.session("bob").await;
    bob.ok("CREATE Mine").await;
    bob.ok(&format!("SELECT {WORK}")).await;
    let mut ada = town.session("ada").await;
    ada.ok("SELECT Work").await;
    ada.ok("STORE 2 +FLAGS (\\Flagged)").await;
    let told = [bob.ok("COPY 2 Mine").await, bob.ok("NOOP").await].concat();
    assert!(told.contains("* 2 FETCH (") && told.contains("\\Flagged"), "{told}");
}

/// Where nothing is shared, nothing of it is there.
#[tokio::test]
async fn without_sharing_there_is_no_acl() {
    let house = House::new();
    let mut talk = house.session().await;
    assert!(!talk.ok("CAPABILITY").await.contains("ACL"));
    for command in [
        "SETACL INBOX bob lr",
        "DELETEACL INBOX bob",
        "GETACL INBOX",
        "LISTRIGHTS INBOX bob",
        "MYRIGHTS INBOX",
        "LIST \"\" * RETURN (MYRIGHTS)",
    ] {
        assert!(talk.ask(command).await.starts_with("T BAD"), "{command}");
    }
}
