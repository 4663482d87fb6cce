//! Whole conversations before the login over an in-memory stream, with users made up.

use affinity::UserName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::{
    auth::Authenticator,
    config::auth::{AuthSection, SourceSection, StaticSection},
    lmtp::session::tests::{tls, upgrade},
};

/// Users as a source gives them.
fn auth() -> Authenticator {
    let source = |name: &str, password: &str| {
        SourceSection::Static(StaticSection {
            users: vec![name.to_owned()],
            password: Some(format!("{{PLAIN}}{password}")),
            ..StaticSection::default()
        })
    };
    let section = AuthSection { source: vec![source("mrose", "secret phrase")], failure_delay: Duration::ZERO, ..AuthSection::default() };
    Authenticator::open(&section, "unused".into()).unwrap()
}

/// Knows `mrose`, whose password is `secret phrase`.
struct FakeGate {
    passwords: bool,
    tls: Option<TlsAcceptor>,
}

impl Gate for FakeGate {
    fn settings(&self) -> Settings {
        Settings { login_timeout: Duration::from_secs(60), bad_commands_max: 3, login_delay_s: 0, expire_days: None }
    }
    fn tls(&self) -> Option<TlsAcceptor> {
        self.tls.clone()
    }
    fn allows_password(&self, client: &Client) -> bool {
        self.passwords || client.tls.is_some()
    }
    fn mechanisms(&self, client: &Client, _: Option<&TlsFacts>) -> Vec<Mechanism> {
        if self.allows_password(client) { vec![Mechanism::Plain, Mechanism::Login] } else { Vec::new() }
    }
    fn begin(&self, mechanism: &str, client: &Client, tls: Option<&TlsFacts>) -> Option<Conversation> {
        // A client in TLS or on this host, as the authenticator sees it.
        let client = Client { tls: Some("TLS".to_owned()), ..client.clone() };
        auth().begin(mechanism, &client, tls, crate::client::Protocol::Pop3)
    }
    async fn verify(&self, login: &str, password: &[u8], client: &Client) -> Result<Login, AuthError> {
        assert!(self.allows_password(client), "a password was looked at that must not be sent");
        match (login, password) {
            ("mrose", b"secret phrase") => Ok(Login { user: UserName::normalise(login).unwrap(), master: None }),
            ("disabled", _) => Err(AuthError::NotAllowed("the account is closed".into())),
            ("away", _) => Err(AuthError::Unavailable("the directory is away".into())),
            _ => Err(AuthError::WrongCredentials),
        }
    }
}

fn connection() -> (DuplexStream, Connection) {
    let (theirs, ours) = duplex(1 << 16);
    let client = Client {
        session: crate::client::SessionId::random(),
        address: "192.0.2.7:9".parse().unwrap(),
        local: "192.0.2.1:110".parse().unwrap(),
        ingress: "node-a".parse().unwrap(),
        tls: None,
    };
    (theirs, Connection::new(Box::new(ours), client, bytes::BytesMut::new(), Duration::from_secs(10)))
}

/// All that is said to a client that sends `script` in one piece, after the greeting, and how it ended.
async fn talk(gate: &FakeGate, script: &str) -> (Vec<String>, Outcome) {
    let (mut client, mut connection) = connection();
    client.write_all(script.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let mut authorization = Authorization::greet(gate, &mut connection);
    let mut outcome = authorization.run(connection).await;
    if let Outcome::Login(connection, _) = &mut outcome {
        reply::ok(connection.output(), "(the holder's)");
        connection.flush().await.unwrap();
    }
    let mut said = vec![0; 1 << 16];
    let count = client.read(&mut said).await.unwrap();
    let said = String::from_utf8(said[..count].to_vec()).unwrap();
    let mut lines: Vec<String> = said.split_terminator("\r\n").map(str::to_owned).collect();
    assert_eq!(lines.remove(0), "+OK Berth ready.");
    (lines, outcome)
}

const OPEN: FakeGate = FakeGate { passwords: true, tls: None };

fn user(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Login(_, login) => login.user.as_str(),
        Outcome::End(end) => panic!("{end:?}"),
    }
}

#[tokio::test]
async fn user_and_pass_log_in() {
    let (said, outcome) = talk(&OPEN, "USER mrose\r\nPASS secret phrase\r\n").await;
    assert_eq!(said, ["+OK Send PASS", "+OK (the holder's)"]);
    assert_eq!(user(&outcome), "mrose");
}

#[tokio::test]
async fn commands_after_the_login_are_left_for_the_holder() {
    let (_, outcome) = talk(&OPEN, "USER mrose\r\nPASS secret phrase\r\nSTAT\r\nQUIT\r\n").await;
    let Outcome::Login(mut connection, _) = outcome else { panic!() };
    assert_eq!(&connection.input()[..], b"STAT\r\nQUIT\r\n");
}

#[tokio::test]
async fn refusals_say_whose_problem_it_is() {
    let (said, _) = talk(&OPEN, "PASS x\r\nUSER mrose\r\nPASS wrong\r\nUSER away\r\nPASS x\r\n").await;
    assert_eq!(
        said,
        [
            "-ERR Send USER first",
            "+OK Send PASS",
            "-ERR [AUTH] Wrong user name or password",
            "+OK Send PASS",
            "-ERR [SYS/TEMP] Users can't be looked up now, try again later",
        ]
    );
    let (said, _) = talk(&OPEN, "USER disabled\r\nPASS x\r\n").await;
    assert_eq!(said[1], "-ERR [SYS/PERM] This login is not allowed");
}

#[tokio::test]
async fn a_failed_pass_needs_a_new_user() {
    let (said, _) = talk(&OPEN, "USER mrose\r\nPASS wrong\r\nPASS secret phrase\r\n").await;
    assert_eq!(said[2], "-ERR Send USER first");
}

#[tokio::test]
async fn auth_plain_logs_in_with_and_without_an_initial_response() {
    let response = BASE64_STANDARD.encode("\0mrose\0secret phrase");
    let (said, outcome) = talk(&OPEN, &format!("AUTH PLAIN {response}\r\n")).await;
    assert_eq!((said.len(), user(&outcome)), (1, "mrose"));
    let (said, outcome) = talk(&OPEN, &format!("auth plain\r\n{response}\r\n")).await;
    assert_eq!(said[0], "+ ");
    assert_eq!(user(&outcome), "mrose");
}

#[tokio::test]
async fn auth_can_be_cancelled() {
    let (said, _) = talk(&OPEN, "AUTH PLAIN\r\n*\r\nAUTH PLAIN ??\r\nAUTH CRAM-MD5\r\n").await;
    assert_eq!(said, ["+ ", "-ERR AUTH was cancelled", "-ERR The response is not base64", "-ERR The mechanism is not offered"]);
}

#[tokio::test]
async fn auth_alone_lists_the_mechanisms() {
    let (said, _) = talk(&OPEN, "AUTH\r\n").await;
    assert_eq!(said, ["+OK Mechanisms follow", "PLAIN", "LOGIN", "."]);
}

#[tokio::test]
async fn a_password_in_plain_text_is_refused_unseen() {
    let gate = FakeGate { passwords: false, tls: None };
    let (said, _) = talk(&gate, "USER mrose\r\nPASS secret phrase\r\nAUTH PLAIN AGFkYQB4\r\n").await;
    assert_eq!(said, ["-ERR [AUTH] Passwords are not taken over this connection: it needs TLS"; 3]);
    let (said, _) = talk(&gate, "CAPA\r\n").await;
    assert!(!said.iter().any(|line| line.starts_with("USER") || line.starts_with("SASL")), "{said:?}");
}

#[tokio::test]
async fn capa_tells_what_there_is() {
    let (said, _) = talk(&OPEN, "CAPA\r\nQUIT\r\n").await;
    assert_eq!(
        said,
        [
            "+OK Capabilities follow",
            "TOP",
            "UIDL",
            "RESP-CODES",
            "AUTH-RESP-CODE",
            "PIPELINING",
            "UTF8 USER",
            "LANG",
            "EXPIRE NEVER",
            "USER",
            "SASL PLAIN LOGIN",
            "IMPLEMENTATION Berth",
            ".",
            "+OK Bye",
        ]
    );
}

#[tokio::test]
async fn commands_of_other_states_are_refused_and_counted() {
    let (said, outcome) = talk(&OPEN, "STAT\r\nNOOP\r\nSTLS\r\nLAST\r\nCAPA\r\n").await;
    assert_eq!(
        said,
        [
            "-ERR Log in first",
            "-ERR Log in first",
            "-ERR STLS is not offered",
            "-ERR The command is not known",
            "-ERR Too many wrong commands"
        ]
    );
    assert!(matches!(outcome, Outcome::End(_)));
}

#[tokio::test]
async fn a_login_that_no_node_can_serve_may_be_tried_again() {
    let (mut client, mut connection) = connection();
    client.write_all(b"USER mrose\r\nPASS secret phrase\r\nUSER mrose\r\nPASS secret phrase\r\n").await.unwrap();
    let mut authorization = Authorization::greet(&OPEN, &mut connection);
    let Outcome::Login(mut returned, _) = authorization.run(connection).await else { panic!() };
    authorization.refuse(&mut returned, "[SYS/TEMP] not now");
    assert!(matches!(authorization.run(*returned).await, Outcome::Login(..)));
    let mut said = vec![0; 1000];
    let count = client.read(&mut said).await.unwrap();
    let said = String::from_utf8_lossy(&said[..count]);
    assert!(said.ends_with("\r\n-ERR [SYS/TEMP] not now\r\n+OK Send PASS\r\n"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_log_in_in_time_is_disconnected() {
    let (mut client, mut connection) = connection();
    let mut authorization = Authorization::greet(&OPEN, &mut connection);
    let keep_talking = async {
        // Activity alone does not prolong it.
        while client.write_all(b"CAPA\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(7)).await;
        }
    };
    let started = Instant::now();
    let (outcome, ()) = tokio::join!(authorization.run(connection), keep_talking);
    assert!(matches!(outcome, Outcome::End(_)));
    assert!(started.elapsed() <= Duration::from_secs(70));
}

#[tokio::test]
async fn stls_forgets_what_was_said_in_plain_text() {
    let (acceptor, connector) = tls();
    let gate = FakeGate { passwords: false, tls: Some(acceptor) };
    let (client, mut connection) = connection();
    let mut authorization = Authorization::greet(&gate, &mut connection);
    let talk = async {
        // An attacker on the way adds commands behind STLS, in the hope that they are obeyed inside TLS.
        let mut client = upgrade(client, connector, "USER mrose\r\nSTLS\r\nUSER evil\r\n", "+OK Begin TLS\r\n").await;
        client.write_all(b"PASS secret phrase\r\nSTLS\r\nCAPA\r\nUSER mrose\r\nPASS secret phrase\r\nSTAT\r\n").await.unwrap();
        let mut said = String::new();
        while !said.ends_with("Send PASS\r\n") {
            said.push(char::from(client.read_u8().await.unwrap()));
        }
        said
    };
    let (outcome, said) = tokio::join!(authorization.run(connection), talk);
    assert!(said.starts_with("-ERR Send USER first\r\n-ERR TLS is active already\r\n+OK Capabilities follow\r\n"), "{said}");
    assert!(said.contains("\r\nSASL PLAIN LOGIN\r\n") && !said.contains("STLS\r\n"), "{said}");
    let Outcome::Login(mut connection, login) = outcome else { panic!() };
    assert_eq!(login.user.as_str(), "mrose");
    assert!(connection.client.tls.is_some());
    assert_eq!(&connection.input()[..], b"STAT\r\n");
}

#[tokio::test]
async fn passwords_are_refused_with_a_hint_at_stls() {
    let gate = FakeGate { passwords: false, tls: Some(tls().0) };
    let (said, _) = talk(&gate, "USER mrose\r\nCAPA\r\n").await;
    assert_eq!(said[0], "-ERR [AUTH] Passwords are not taken over this connection: use STLS first");
    assert!(said.contains(&"STLS".to_owned()), "{said:?}");
}

#[tokio::test]
async fn utf8_and_languages_are_agreed_before_the_login() {
    let gate = FakeGate { passwords: true, tls: Some(tls().0) };
    let (said, _) = talk(&gate, "UTF8\r\nSTLS\r\nLANG\r\nLANG en\r\nLANG MUL\r\n").await;
    assert_eq!(said[0], "+OK Messages are sent as they are");
    assert_eq!(said[1], "-ERR STLS comes before UTF8");
    assert_eq!(said[2..6], ["+OK Language listing follows:", "en English", "i-default English for everybody", "."]);
    assert!(said[6].starts_with("+OK en ") && said[7].starts_with("-ERR "), "{said:?}");
}
