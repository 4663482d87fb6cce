//! Before login.

use std::fs;

use crate::{
    auth::Authenticator,
    config::{AuthSection, Limits},
    imap::login::{Admission, Door},
};

use super::*;

/// What a client says to the door from `address`, all at once, and what it hears; and who was let in under which tag.
async fn converse(address: &str, said: &str) -> (String, Option<(String, String)>) {
    converse_within(address, said, Limits::default()).await
}

async fn converse_within(address: &str, said: &str, limits: Limits) -> (String, Option<(String, String)>) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users");
    fs::write(&file, "ada:{PLAIN}secret\n").unwrap();
    let section = AuthSection { failure_delay: Duration::ZERO, ..AuthSection::default() };
    let auth = Authenticator::open(&section, file).unwrap();

    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let client = Client {
        session: SessionId::random(),
        address: address.parse().unwrap(),
        local: "192.0.2.2:143".parse().unwrap(),
        ingress: "a".parse().unwrap(),
        tls: None,
    };
    let connection = Connection::new(Box::new(theirs), client, BytesMut::new(), DEADLINE);
    let (mut reader, mut writer) = split(ours);
    writer.write_all(said.as_bytes()).await.unwrap();

    let mut door = Door::new(&auth, None, &limits);
    let connection = door.greet(connection);
    let admitted = match within(door.admit(connection)).await {
        Admission::Admitted { connection, login, tag } => {
            connection.close().await;
            Some((tag, login.user.as_str().to_owned()))
        }
        Admission::Left(_) => None,
    };
    let mut heard = String::new();
    within(reader.read_to_string(&mut heard)).await.unwrap();
    (heard, admitted)
}

const NEAR: &str = "127.0.0.1:1234";
const FAR: &str = "192.0.2.1:1234";

fn in_as(tag: &str) -> Option<(String, String)> {
    Some((tag.to_owned(), "ada".to_owned()))
}

#[tokio::test]
async fn the_greeting_says_what_can_be_done() {
    let (heard, _) = converse(NEAR, "a LOGOUT\r\n").await;
    assert!(heard.starts_with("* OK [CAPABILITY IMAP4rev1 IMAP4rev2 SASL-IR "), "{heard}");
    assert!(heard.contains(" AUTH=PLAIN") && heard.ends_with("* BYE Logging out\r\na OK Logout completed\r\n"), "{heard}");
}

#[tokio::test]
async fn a_login_is_left_for_the_holder_to_answer() {
    let (heard, admitted) = converse(NEAR, "a LOGIN ada \"secret\"\r\nb SELECT INBOX\r\n").await;
    assert_eq!(admitted, in_as("a"));
    assert!(!heard.contains("a OK"), "{heard}");
}

#[tokio::test]
async fn sasl_plain_comes_with_or_without_initial_response() {
    let response = "AGFkYQBzZWNyZXQ="; // NUL ada NUL secret
    assert_eq!(converse(NEAR, &format!("a AUTHENTICATE PLAIN {response}\r\n")).await.1, in_as("a"));
    let (heard, admitted) = converse(NEAR, &format!("a AUTHENTICATE plain\r\n{response}\r\n")).await;
    assert_eq!(admitted, in_as("a"));
    assert!(heard.contains("\r\n+ \r\n"), "{heard}");
}

#[tokio::test]
async fn sasl_login_asks_twice() {
    let (heard, admitted) = converse(NEAR, "a AUTHENTICATE LOGIN\r\nYWRh\r\nc2VjcmV0\r\n").await;
    assert_eq!(admitted, in_as("a"));
    assert_eq!(heard.matches("\r\n+ ").count(), 2, "{heard}");
}

#[tokio::test]
async fn a_sasl_exchange_can_be_given_up() {
    let (heard, _) = converse(NEAR, "a AUTHENTICATE PLAIN\r\n*\r\nb AUTHENTICATE PLAIN !\r\nc AUTHENTICATE NTLM\r\nd LOGOUT\r\n").await;
    assert!(heard.contains("\r\na BAD ") && heard.contains("\r\nb BAD ") && heard.contains("\r\nc NO "), "{heard}");
}

#[tokio::test]
async fn a_wrong_password_may_be_corrected() {
    let (heard, admitted) = converse(NEAR, "a LOGIN ada wrong\r\nb LOGIN nobody secret\r\nc LOGIN ada secret\r\n").await;
    assert!(heard.contains("\r\na NO [AUTHENTICATIONFAILED]") && heard.contains("\r\nb NO [AUTHENTICATIONFAILED]"), "{heard}");
    assert_eq!(admitted, in_as("c"));
}

#[tokio::test]
async fn passwords_are_not_taken_where_others_can_read_them() {
    let (heard, admitted) = converse(FAR, "a LOGIN ada secret\r\nb AUTHENTICATE PLAIN AGFkYQBzZWNyZXQ=\r\nc LOGOUT\r\n").await;
    assert_eq!(admitted, None);
    assert!(heard.contains("LOGINDISABLED") && !heard.contains("AUTH="), "{heard}");
    assert!(heard.contains("\r\na NO [PRIVACYREQUIRED]") && heard.contains("\r\nb NO [PRIVACYREQUIRED]"), "{heard}");
}

#[tokio::test]
async fn strangers_get_nothing_else_and_not_for_ever() {
    let (heard, _) = converse(NEAR, "a SELECT INBOX\r\nb APPEND INBOX {3+}\r\nabc\r\nc STARTTLS\r\nd ID NIL\r\ne LOGOUT\r\n").await;
    assert!(heard.contains("\r\na BAD Log in first") && heard.contains("\r\nb BAD Log in first"), "{heard}");
    assert!(heard.contains("\r\nc NO ") && heard.contains("\r\nd OK "), "{heard}");
    let limits = Limits { bad_commands: 3, ..Limits::default() };
    let (heard, _) = converse_within(NEAR, &"x NONSENSE\r\n".repeat(50), limits).await;
    assert!(heard.ends_with("* BYE Too many failed commands\r\n"), "{heard}");
    assert_eq!(heard.matches("x BAD").count(), 4, "{heard}");
}

#[tokio::test]
async fn the_time_to_log_in_is_bounded() {
    let limits = Limits { login_timeout: Duration::from_millis(50), ..Limits::default() };
    let (heard, _) = converse_within(NEAR, "", limits).await;
    assert!(heard.ends_with("* BYE Disconnected: no login in time\r\n"), "{heard}");
}
