//! The session as a whole: order, limits, ends.

mod limits;
mod notify;

use super::*;

#[tokio::test]
async fn pipelined_commands_are_answered_in_order() {
    let house = House::new();
    let mut talk = house.session().await;
    talk.send("a NOOP\r\nb SELECT INBOX\r\nc UID FETCH 1:* FLAGS\r\nd CLOSE\r\n").await;
    let answer = talk.until("d ").await;
    let order: Vec<usize> = ["a OK", "b OK [READ-WRITE]", "c OK", "d OK"].iter().map(|part| answer.find(part).expect(part)).collect();
    assert!(order.is_sorted(), "{answer}");
}

#[tokio::test]
async fn a_command_in_the_wrong_state_is_bad_and_says_why() {
    let house = House::new();
    let mut talk = house.session().await;
    assert_eq!(talk.ask("FETCH 1 FLAGS").await, "T BAD No mailbox is selected\r\n");
    assert_eq!(talk.ask("LOGIN ada secret").await, "T BAD Already logged in\r\n");
    assert!(talk.ask("NONSENSE").await.starts_with("T BAD "));
    talk.ok("NOOP").await;
}

#[tokio::test]
async fn too_many_bad_commands_in_a_row_end_the_session() {
    let house = House::new();
    let mut talk = house.session().await;
    for _ in 0..5 {
        talk.ask("NONSENSE").await;
    }
    talk.ok("NOOP").await;
    talk.send(&"x NONSENSE\r\n".repeat(6)).await;
    let (rest, end) = talk.rest().await;
    assert!(rest.ends_with("* BYE Too many commands that could not be understood\r\n"), "{rest}");
    assert_eq!(end, End::because("too many bad commands"));
}

#[tokio::test]
async fn logout_says_bye_and_then_ok() {
    let house = House::new();
    let mut talk = house.session().await;
    talk.send("z LOGOUT\r\n").await;
    let (rest, end) = talk.rest().await;
    assert_eq!(rest, "* BYE Logging out\r\nz OK Logout completed\r\n");
    assert_eq!(end, End::logout());
}

#[tokio::test]
async fn an_account_that_is_taken_away_says_bye() {
    let house = House::new();
    let mut idle = house.session().await;
    idle.send("i IDLE\r\n").await;
    idle.until("+ ").await;
    let waiting = house.session().await;
    house.take_away("The server is restarting, please connect again");
    for talk in [idle, waiting] {
        let (rest, _) = talk.rest().await;
        assert_eq!(rest, "* BYE [UNAVAILABLE] The server is restarting, please connect again\r\n");
    }
}

#[tokio::test]
async fn a_change_under_a_lost_lease_is_not_acknowledged() {
    let house = House::new();
    let mut talk = inbox_of(&house, 1).await;
    house.lose_lease();
    talk.send("x STORE 1 +FLAGS (\\Deleted)\r\n").await;
    let (rest, _) = talk.rest().await;
    assert!(rest.contains("* BYE [UNAVAILABLE]") && !rest.contains("x OK"), "{rest}");
}

#[tokio::test]
async fn a_silent_client_is_told_goodbye() {
    let house = House::new();
    let settings = Settings { idle_timeout: Duration::from_millis(50), ..settings() };
    let talk = house.session_with(settings).await;
    let (rest, _) = talk.rest().await;
    assert_eq!(rest, "* BYE Disconnected for inactivity\r\n");
}

#[tokio::test]
async fn idle_pushes_what_another_session_does() {
    let house = House::new();
    let mut idle = inbox_of(&house, 2).await;
    let mut other = house.session().await;
    other.ok("SELECT INBOX").await;
    idle.send("i IDLE\r\n").await;
    assert_eq!(idle.until("+ ").await, "+ idling\r\n");

    other.append("INBOX", &message("new", "x")).await;
    assert!(idle.until("* 3 EXISTS").await.ends_with("* 3 EXISTS\r\n"));
    other.ok("STORE 1 +FLAGS (\\Flagged)").await;
    assert!(idle.until("* 1 FETCH").await.contains("* 1 FETCH (FLAGS (\\Flagged"));
    other.ok("STORE 2 +FLAGS (\\Deleted)").await;
    other.ok("EXPUNGE").await;
    idle.until("* 2 EXPUNGE").await;

    idle.send("DONE\r\n").await;
    assert!(idle.until("i ").await.ends_with("i OK Idle completed\r\n"));
    idle.ok("NOOP").await;
}

#[tokio::test]
async fn idle_takes_nothing_but_done() {
    let house = House::new();
    let mut talk = house.session().await;
    talk.send("i IDLE\r\nNOOP\r\n").await;
    assert!(talk.until("i ").await.ends_with("i BAD Expected DONE\r\n"));
    talk.send("j IDLE\r\ndone\r\n").await;
    assert!(talk.until("j ").await.ends_with("j OK Idle completed\r\n"));
}

#[tokio::test]
async fn id_namespace_and_capability_are_answered() {
    let house = House::new();
    let mut talk = house.session().await;
    assert!(talk.ok("ID (\"name\" \"mutt\")").await.starts_with("* ID (\"name\" \"Berth\""));
    assert_eq!(talk.ok("NAMESPACE").await, "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\nT OK Namespace completed\r\n");
    assert!(talk.ok("CAPABILITY").await.contains(" CONDSTORE "));
    assert!(talk.ok("ENABLE CONDSTORE X-UNKNOWN").await.starts_with("* ENABLED CONDSTORE\r\n"));
}

/// Sessions run on any thread of the runtime: this need only compile.
#[expect(dead_code, reason = "the compiler checks it")]
fn connections_can_be_served_on_any_thread(node: Arc<crate::node::Node>, connection: Connection) -> impl Future + Send {
    crate::imap::accept(node, connection)
}

#[tokio::test]
async fn empty_lines_are_no_commands() {
    let house = House::new();
    let mut talk = house.session().await;
    talk.send("\r\n\r\n\na NOOP\r\n\r\n").await;
    assert_eq!(talk.until("a ").await, "a OK Completed\r\n");
    talk.ok("NOOP").await;
}

#[tokio::test]
async fn selecting_another_mailbox_says_that_the_first_is_closed() {
    let house = House::new();
    let mut talk = house.session().await;
    assert!(!talk.ok("SELECT INBOX").await.contains("CLOSED"));
    assert!(talk.ok("EXAMINE Sent").await.starts_with("* OK [CLOSED] "));
    assert!(talk.ask("SELECT Missing").await.starts_with("* OK [CLOSED] "));
    assert!(!talk.ok("SELECT INBOX").await.contains("CLOSED"));
}

#[tokio::test]
async fn sequence_numbers_stay_during_a_uid_search_that_names_them() {
    let house = House::new();
    let mut mine = inbox_of(&house, 3).await;
    let mut other = house.session().await;
    other.ok("SELECT INBOX").await;
    other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    other.ok("EXPUNGE").await;
    assert_eq!(mine.ok("UID SEARCH OR NOT 1:2 UID 1").await, "* SEARCH 3\r\nT OK Search completed\r\n");
    assert!(mine.ok("UID SEARCH ALL").await.ends_with("* 1 EXPUNGE\r\nT OK Search completed\r\n"));
}
