use std::{fs, io, net::SocketAddr, sync::LazyLock};

use tokio::time::{Instant, timeout};

use super::{source::users_file::REFRESH_INTERVAL_UNKNOWN, *};
use crate::{
    client::{Protocol, SessionId},
    config::auth::{SourceSection, StaticSection},
};

struct Fixture {
    folder: tempfile::TempDir,
    section: AuthSection,
}

impl Fixture {
    fn new(users: &str) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let names =
            NameRules { local_domains: vec!["localhost".to_owned()], detail_delimiter: "+".to_owned(), master_separator: "*".to_owned() };
        let section = AuthSection { default_scheme: "PLAIN".to_owned(), names, ..AuthSection::default() };
        let fixture = Fixture { folder, section };
        fixture.write(users);
        fixture
    }
    fn file(&self) -> PathBuf {
        self.folder.path().join("users")
    }
    fn write(&self, users: &str) {
        fs::write(self.file(), users).unwrap();
    }
    fn open(&self) -> Authenticator {
        Authenticator::open(&self.section, self.file()).unwrap()
    }
}

fn client(address: &str, tls: bool) -> Client {
    Client {
        session: SessionId::random(),
        address: SocketAddr::new(address.parse().unwrap(), 40_000),
        local: "192.0.2.99:143".parse().unwrap(),
        ingress: "a".parse().unwrap(),
        tls: tls.then(|| "TLSv1.3".to_owned()),
    }
}
fn user(name: &str) -> UserName {
    UserName::normalise(name).unwrap()
}
async fn verify_from(address: &str, auth: &Authenticator, login: &str, password: &str) -> Result<Login, AuthError> {
    auth.verify(login, password.as_bytes(), &client(address, true), Protocol::Imap).await
}
async fn verify(auth: &Authenticator, login: &str, password: &str) -> Result<Login, AuthError> {
    verify_from("192.0.2.1", auth, login, password).await
}
fn accepted(name: &str) -> Result<Login, AuthError> {
    Ok(Login { user: user(name), master: None })
}

#[tokio::test(start_paused = true)]
async fn every_spelling_logs_in_with_the_password() {
    let auth = Fixture::new("ada:{SHA1.HEX}5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8\n").open();
    for login in ["ada", "ADA", "ada@localhost", "ada+lists"] {
        assert_eq!(verify(&auth, login, "password").await, accepted("ada"), "{login}");
    }
    for (login, password) in [("ada", "Password"), ("ada", ""), ("eve", "password"), ("", "password"), ("a/b", "x")] {
        assert_eq!(verify(&auth, login, password).await, Err(AuthError::WrongCredentials), "{login}");
    }
    assert_eq!(verify(&auth, "ada", &"x".repeat(PASSWORD_BYTES_MAX + 1)).await, Err(AuthError::WrongCredentials));
}

#[tokio::test(start_paused = true)]
async fn only_a_master_user_logs_in_for_others() {
    let auth = Fixture::new("ada:a\nadmin:secret::::::master=yes\nbob:b\nboss:c::::::master=no\n").open();
    let by_admin = Ok(Login { user: user("ada"), master: Some(user("admin")) });
    assert_eq!(verify(&auth, "ada*admin", "secret").await, by_admin);
    assert_eq!(verify(&auth, "ada\0admin", "secret").await, by_admin);
    assert_eq!(verify(&auth, "admin", "secret").await, accepted("admin"));
    assert_eq!(verify(&auth, "ADA\0ada@localhost", "a").await, accepted("ada"), "an authorization identity that is the same user");
    for (login, password) in [("ada*admin", "a"), ("ada*bob", "b"), ("ada\0bob", "b"), ("ada*boss", "c"), ("eve*admin", "secret")] {
        assert_eq!(verify(&auth, login, password).await, Err(AuthError::WrongCredentials), "{login:?}");
    }
    assert_eq!(verify(&auth, "ada*x\0admin", "secret").await, Err(AuthError::WrongCredentials));
}

#[tokio::test(start_paused = true)]
async fn disabled_users_and_foreign_networks_are_refused_after_the_password() {
    let auth = Fixture::new("ada:a::::::nologin reason=moved\nbob:b::::::allow_nets=10.0.0.0/8\n").open();
    assert_eq!(verify(&auth, "ada", "a").await, Err(AuthError::NotAllowed("moved".to_owned())));
    assert_eq!(verify(&auth, "ada", "x").await, Err(AuthError::WrongCredentials));
    assert_eq!(verify(&auth, "bob", "b").await, Err(AuthError::NotAllowed("not from this network".to_owned())));
    assert_eq!(verify_from("10.1.2.3", &auth, "bob", "b").await, accepted("bob"));
}

#[tokio::test(start_paused = true)]
async fn passwords_need_tls_or_loopback() {
    let mut fixture = Fixture::new("ada:a\n");
    let auth = fixture.open();
    let plain = client("192.0.2.1", false);
    let refused = auth.verify("ada", b"a", &plain, Protocol::Pop3).await;
    assert_eq!(refused, Err(AuthError::NotAllowed("passwords are only accepted over TLS".to_owned())));
    assert!(auth.allows_password(&client("127.0.0.1", false)));
    assert!(auth.allows_password(&client("192.0.2.1", true)));
    fixture.section.allow_plaintext = true;
    auth.reload(&fixture.section).unwrap();
    assert_eq!(auth.verify("ada", b"a", &plain, Protocol::Pop3).await, accepted("ada"));
}

#[tokio::test(start_paused = true)]
async fn failures_delay_the_next_attempt_and_a_success_ends_that() {
    let auth = Fixture::new("ada:a\n").open();
    let timed = async |password: &str| {
        let start = Instant::now();
        let outcome = verify(&auth, "ada", password).await;
        (outcome.is_ok(), start.elapsed().as_millis())
    };
    assert_eq!(timed("x").await, (false, 250));
    assert_eq!(timed("y").await, (false, 750), "a second from the first failure");
    assert_eq!(timed("z").await, (false, 2000));
    assert_eq!(timed("a").await, (true, 4000));
    assert_eq!(timed("x").await, (false, 250));
    // The right password is remembered, so a guesser can't keep the user out.
    assert_eq!(timed("a").await, (true, 0));
}

/// That it is remembered here helps its user where they got in before, and nobody else.
#[tokio::test(start_paused = true)]
async fn a_remembered_password_is_guessed_no_faster() {
    let auth = Fixture::new("ada:a\n").open();
    assert_eq!(verify_from("192.0.2.2", &auth, "ada", "a").await, accepted("ada"));
    for _ in 0..3 {
        assert_eq!(verify(&auth, "ada", "guess").await, Err(AuthError::WrongCredentials));
    }
    let started = Instant::now();
    assert_eq!(verify_from("192.0.2.2", &auth, "ada", "a").await, accepted("ada"));
    assert_eq!(started.elapsed().as_millis(), 0);
    for _ in 0..3 {
        assert_eq!(verify(&auth, "ada", "guess").await, Err(AuthError::WrongCredentials));
    }
    let started = Instant::now();
    assert_eq!(verify(&auth, "ada", "a").await, accepted("ada"));
    assert!(started.elapsed() >= Duration::from_secs(4), "{:?}", started.elapsed());
}

/// Whoever chooses their own name at a provider or an authority becomes nobody else by it.
#[tokio::test(start_paused = true)]
async fn a_name_in_a_certificate_is_a_whole_name() {
    let mut fixture = Fixture::new("ada:a\nadmin:secret::::::master=yes\n");
    fixture.section.mechanisms = vec!["EXTERNAL".to_owned()];
    let auth = fixture.open();
    let external = async |name: &str, authzid: &str| {
        let facts = crate::tls::TlsFacts { certificate_name: Some(name.to_owned()), ..crate::tls::TlsFacts::default() };
        let mut exchange = auth.begin("EXTERNAL", &client("192.0.2.1", true), Some(&facts), Protocol::Imap).unwrap();
        match exchange.respond(Some(authzid.as_bytes())).await {
            Turn::Done(decided) => decided,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(external("ada", "").await, accepted("ada"));
    assert_eq!(external("admin", "ada").await, Ok(Login { user: user("ada"), master: Some(user("admin")) }));
    for name in ["ada*admin", "ada+x", "+x", "nobody"] {
        assert_eq!(external(name, "").await, Err(AuthError::WrongCredentials), "{name}");
    }
}

/// Many connections of one address guess no faster than a few, and what they keep waiting is never called a wrong password.
#[tokio::test(start_paused = true)]
async fn guesses_on_many_connections_are_no_more_than_on_a_few() {
    let auth = Fixture::new("ada:a\nbob:b\n").open();
    let guesses = futures::future::join_all((0..200).map(async |_| {
        let first = verify(&auth, "ada", "guess").await;
        (first, verify(&auth, "ada", "guess").await)
    }));
    let honest = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let started = Instant::now();
        (verify_from("192.0.2.2", &auth, "bob", "b").await, started.elapsed())
    };
    let (guesses, (elsewhere, took)) = futures::join!(guesses, honest);
    let checked = guesses.iter().filter(|(_, second)| *second == Err(AuthError::WrongCredentials)).count();
    assert!(guesses.iter().all(|(_, second)| matches!(second, Err(AuthError::WrongCredentials | AuthError::Crowded))), "{guesses:?}");
    // Within the half minute that anybody waits; without turns it would be all 200.
    assert!((1..40).contains(&checked), "{checked} were checked");
    assert_eq!(elsewhere, accepted("bob"));
    assert!(took < Duration::from_millis(100), "{took:?}");
    let started = Instant::now();
    assert_eq!(
        (verify_from("192.0.2.2", &auth, "bob", "b").await, started.elapsed().as_millis()),
        (accepted("bob"), 0),
        "who got in there of late waits for nobody"
    );
}

/// Before a proof, the salt and the rounds are all that a guesser sees.
#[tokio::test]
async fn scram_tells_nobody_who_has_a_password() {
    let mut fixture = Fixture::new("ada:{PLAIN}a\n");
    fixture.section.mechanisms = vec!["SCRAM-SHA-256".to_owned()];
    let auth = fixture.open();
    let asked = async |name: &str| {
        let mut exchange = auth.begin("SCRAM-SHA-256", &client("192.0.2.1", true), None, Protocol::Imap).unwrap();
        match exchange.respond(Some(format!("n,,n={name},r=nonce").as_bytes())).await {
            Turn::Challenge(challenge) => {
                let challenge = String::from_utf8(challenge).unwrap();
                challenge.split(',').skip(1).map(str::to_owned).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    let (ada, eve) = (asked("ada").await, asked("eve").await);
    assert_eq!((&ada, &eve), (&asked("ada").await, &asked("eve").await), "asking twice tells nothing");
    assert_eq!((ada[0].len(), &ada[1]), (eve[0].len(), &eve[1]));
}

#[tokio::test]
async fn an_unknown_user_costs_a_hash_too() {
    let mut fixture = Fixture::new("ada:{PLAIN}a\n");
    fixture.section.default_scheme = "ARGON2ID".to_owned();
    let auth = fixture.open();
    let state = auth.inner.state.load_full();
    assert!(format!("{:?}", state.dummy).contains("ARGON2ID"));
    // While every permit is taken, an unknown user waits for one as a known user does.
    let mut all = Vec::new();
    while auth.inner.hashing.free() > 0 {
        all.push(auth.inner.hashing.enter([192, 0, 2, 99].into()).await.unwrap());
    }
    for login in ["ada", "eve", "a/b"] {
        assert!(timeout(Duration::from_millis(50), verify(&auth, login, "x")).await.is_err(), "{login}");
    }
    drop(all);
    assert_eq!(verify(&auth, "eve", "x").await, Err(AuthError::WrongCredentials));
}

#[tokio::test(start_paused = true)]
async fn recipients_are_found_by_address() {
    let auth = Fixture::new("user1@localhost:x\nada@example.org:x::::::nologin\n").open();
    let found = async |address: &str| auth.recipient(address).await.unwrap();
    let recipient = |name: &str, detail: Option<&str>| Some(Recipient { user: user(name), detail: detail.map(str::to_owned) });
    assert_eq!(found("user1@localhost").await, recipient("user1", None));
    assert_eq!(found("user1").await, recipient("user1", None));
    assert_eq!(found("User1+Lists@LOCALHOST").await, recipient("user1", Some("Lists")));
    assert_eq!(found("\"user1\"@localhost").await, recipient("user1", None));
    assert_eq!(found("ada@example.org").await, recipient("ada@example.org", None), "who may not log in still gets mail");
    for unknown in
        ["user2@localhost", "user1@example.org", "user1*admin@localhost", "", "@", "\"user1", "\"a\"b@localhost", "a b@localhost"]
    {
        assert_eq!(found(unknown).await, None, "{unknown}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_who_was_just_added_is_found_without_a_reload() {
    let fixture = Fixture::new("ada:a\n");
    let auth = fixture.open();
    assert_eq!(auth.recipient("bob").await, Ok(None));
    fixture.write("ada:a\nbob:b\n");
    tokio::time::advance(REFRESH_INTERVAL_UNKNOWN).await;
    assert_eq!(verify(&auth, "bob", "b").await, accepted("bob"));
    assert_eq!(auth.record(&user("bob")).await.unwrap().unwrap().user, user("bob"));
}

#[tokio::test(start_paused = true)]
async fn a_changed_password_counts_at_once_after_a_reload() {
    let fixture = Fixture::new("ada:old\n");
    let auth = fixture.open();
    assert_eq!(verify(&auth, "ada", "old").await, accepted("ada"));
    fixture.write("ada:new!\n");
    auth.reload(&fixture.section).unwrap();
    assert_eq!(verify(&auth, "ada", "old").await, Err(AuthError::WrongCredentials));
    assert_eq!(verify(&auth, "ada", "new!").await, accepted("ada"));
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_fails_keeps_the_users() {
    let fixture = Fixture::new("ada:a\n");
    let auth = fixture.open();
    fs::remove_file(fixture.file()).unwrap();
    assert!(auth.reload(&fixture.section).is_err());
    assert_eq!(verify(&auth, "ada", "a").await, accepted("ada"));
}

#[tokio::test]
async fn a_failure_is_one_line_without_the_password() {
    let auth = Fixture::new("ada:a\n").open();
    let (log, guard) = captured();
    verify(&auth, "ada", "hunter2").await.unwrap_err();
    verify(&auth, "eve\n\" reason=none\0ada", "hunter2").await.unwrap_err();
    drop(guard);
    let log = String::from_utf8(log.lock().clone()).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let wrong = r#" WARN server::auth::login: auth failure address=192.0.2.1 user="ada" protocol=imap reason="wrong password""#;
    assert_eq!((lines.len(), lines[0]), (2, wrong), "{log}");
    assert!(lines[1].contains(r#"user="eve\n\" reason=none by ada""#), "{log}");
    assert!(!log.contains("hunter2"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_takes_the_same_time_for_every_reason() {
    let auth = Fixture::new("ada:{PLAIN}a\nbob\ncarol:x::::::nologin\n").open();
    for (login, password) in [("ada", "wrong"), ("bob", "x"), ("nobody", "x"), ("a/b", "x"), ("carol", "x"), ("ada", "")] {
        let started = Instant::now();
        assert!(verify(&auth, login, password).await.is_err());
        assert_eq!(started.elapsed().as_millis() % 250, 0, "{login}");
        tokio::time::advance(Duration::from_secs(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_alias_stands_for_one_user_and_for_no_alias() {
    let auth = Fixture::new(
        "ada:a::::::allow_nets=192.0.2.0/24\ninfo:::::::user=ada\noffice:o::::::user=ada\nloop:::::::user=info\nself:s::::::user=self\n",
    )
    .open();
    assert_eq!(verify(&auth, "info", "a").await, accepted("ada"));
    assert_eq!(verify(&auth, "office", "o").await, accepted("ada"), "an alias may have a password of its own");
    assert!(verify(&auth, "office", "a").await.is_err());
    assert!(verify(&auth, "loop", "a").await.is_err());
    assert_eq!(verify(&auth, "self", "s").await, accepted("self"));
    assert!(verify_from("198.51.100.1", &auth, "info", "a").await.is_err(), "the user's restrictions hold for the alias");
    assert_eq!(auth.recipient("info@localhost").await.unwrap().unwrap().user, user("ada"));
    assert_eq!(auth.recipient("loop").await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn sources_are_tried_in_order() {
    let mut fixture = Fixture::new("ada:a\n");
    let fixed = |names: &str, password: &str| {
        let password = Some(format!("{{PLAIN}}{password}"));
        SourceSection::Static(StaticSection { users: vec![names.to_owned()], password, ..StaticSection::default() })
    };
    fixture.section.source =
        vec![SourceSection::PasswdFile(Default::default()), fixed("ada", "b"), fixed("bob", "c"), fixed("*@example.org", "d")];
    let auth = fixture.open();
    assert_eq!(verify(&auth, "ada", "a").await, accepted("ada"));
    assert!(verify(&auth, "ada", "b").await.is_err(), "who is known to one source is nobody else's");
    assert_eq!(verify(&auth, "bob", "c").await, accepted("bob"));
    assert_eq!(verify(&auth, "eve@example.org", "d").await, accepted("eve@example.org"));
    assert_eq!(auth.describe(), [format!("1 in {}", fixture.file().display()), "static".into(), "static".into(), "static".into()]);
}

#[tokio::test(start_paused = true)]
async fn networks_are_let_in_or_kept_out_before_anything_is_looked_up() {
    let mut fixture = Fixture::new("ada:a\n");
    fixture.section.deny_nets = vec!["192.0.2.0/28".parse().unwrap()];
    fixture.section.allow_nets = vec!["192.0.2.0/24".parse().unwrap()];
    let auth = fixture.open();
    for (address, let_in) in [("192.0.2.1", false), ("192.0.2.77", true), ("198.51.100.1", false)] {
        assert_eq!(verify_from(address, &auth, "ada", "a").await.is_ok(), let_in, "{address}");
    }
}

#[tokio::test]
async fn a_master_user_is_logged_with_both_names() {
    let auth = Fixture::new("ada:a\nadmin:secret::::::master=yes\n").open();
    let (log, guard) = captured();
    verify(&auth, "ada*admin", "secret").await.unwrap();
    drop(guard);
    let log = String::from_utf8(log.lock().clone()).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("master")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("user=ada master=admin protocol=imap"), "{log}");
}

fn captured() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&log);
    let subscriber =
        tracing_subscriber::fmt().compact().with_ansi(false).without_time().with_writer(move || Log(Arc::clone(&writer))).finish();
    // With one subscriber in all, an event that another thread tells first would be switched off for every thread.
    static SECOND: LazyLock<tracing::Dispatch> = LazyLock::new(|| tracing::Dispatch::new(tracing_subscriber::registry()));
    LazyLock::force(&SECOND);
    (log, tracing::subscriber::set_default(subscriber))
}

struct Log(Arc<Mutex<Vec<u8>>>);
impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_missing_users_file_says_how_to_make_one() {
    let fixture = Fixture::new("");
    let missing = fixture.folder.path().join("none");
    let error = Authenticator::open(&fixture.section, missing.clone()).err().unwrap().to_string();
    let expected = format!("there is no users file {}: make it with `berth user add NAME`, or set `auth.passwd_file`", missing.display());
    assert_eq!(error, expected);
}
