//! SASL with clients that we did not write: GNU SASL and curl.

use std::{io::Write, process::Command, process::Stdio, time::Duration};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use tests::{
    Context, Result, berth,
    clients::{imap::Imap, pop3::Pop3},
    cluster::{Cluster, Demo},
    ensure, need, process,
    site::host_port,
};

use super::{certificate, ensure_login};

const LIMIT: Duration = Duration::from_secs(60);
const ALL: &str = "[auth]\nmechanisms = [\"PLAIN\", \"LOGIN\", \"SCRAM-SHA-256-PLUS\", \"SCRAM-SHA-256\", \"SCRAM-SHA-1-PLUS\", \"SCRAM-SHA-1\", \"CRAM-MD5\"]\n";

fn add_user(cluster: &Cluster, name: &str, password: &str, scheme: &str) -> Result<()> {
    let config = cluster.nodes[0].config.to_str().context("path")?;
    let mut command = berth::command(&["user", "add", name, "--password-stdin", "--scheme", scheme, "--config", config])?;
    let mut adding = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    adding.stdin.take().context("no pipe")?.write_all(format!("{password}\n").as_bytes())?;
    ensure!(adding.wait()?.success(), "berth user add failed");
    Ok(())
}

/// Logs in with GNU SASL; whether that worked, and what it said.
fn gsasl(protocol: &str, door: &str, user: &str, password: &str, mechanism: &str, more: &[&str]) -> Result<(bool, String)> {
    let (host, port) = host_port(door)?;
    let mut command = Command::new("gsasl");
    command.args([protocol, "--verbose", "--mechanism", mechanism, "--authentication-id", user, "--password", password]).args(more);
    command.args(["--connect", &format!("{host}:{port}")]).stdin(Stdio::null());
    let output = process::run(&mut command, LIMIT)?;
    Ok((output.status.success(), process::said(&output)))
}

#[test]
fn gnu_sasl_logs_in_by_every_mechanism_and_not_with_a_wrong_password() -> Result<()> {
    need!("gsasl");
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 1, ..Demo::default() })?;
    add_user(&cluster, "ada", "ada pass", "SCRAM-SHA-256")?;
    add_user(&cluster, "bob", "bob pass", "SCRAM-SHA-1")?;
    add_user(&cluster, "carol", "carol pass", "PLAIN")?;
    cluster.configure(ALL)?;
    let (certificate, _) = certificate(&cluster)?;
    let certificate = certificate.to_str().context("path")?;
    let doors = &cluster.nodes[0].doors;
    let plain = ["--no-starttls"];
    let tls = ["--starttls", "--x509-ca-file", certificate];
    for (user, mechanism, more) in [
        ("ada", "SCRAM-SHA-256", &plain[..]),
        ("ada", "SCRAM-SHA-256-PLUS", &tls),
        ("bob", "SCRAM-SHA-1", &plain),
        ("bob", "SCRAM-SHA-1-PLUS", &tls),
        ("carol", "SCRAM-SHA-256", &plain),
        ("carol", "SCRAM-SHA-1-PLUS", &tls),
        ("carol", "CRAM-MD5", &plain),
        ("ada", "PLAIN", &plain),
    ] {
        let (accepted, said) = gsasl("--imap", &doors.imap, user, &format!("{user} pass"), mechanism, more)?;
        ensure!(accepted, "{user} by {mechanism}: {said}");
        let (accepted, said) = gsasl("--imap", &doors.imap, user, "wrong", mechanism, more)?;
        ensure!(!accepted, "{user} by {mechanism} with a wrong password: {said}");
    }
    let (accepted, said) = gsasl("--imap", &doors.imap, "nobody", "x", "SCRAM-SHA-256", &plain)?;
    let challenges = said.lines().filter_map(|line| BASE64_STANDARD.decode(line.strip_prefix("+ ")?).ok());
    let salted = challenges.map(|challenge| String::from_utf8_lossy(&challenge).into_owned()).any(|challenge| challenge.contains(",s="));
    ensure!(!accepted && salted, "an unknown user gets a salt as others do: {said}");
    // PLAIN works with passwords that are stored for SCRAM.
    ensure_login(&doors.imap, "ada", "ada pass")
}

#[test]
fn pop3_and_imap_list_the_mechanisms_of_the_settings() -> Result<()> {
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 1, ..Demo::default() })?;
    cluster.configure(ALL)?;
    let doors = &cluster.nodes[0].doors;
    let listed = |lines: Vec<Vec<u8>>| lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect::<Vec<_>>();
    let capabilities = listed(Pop3::connect(&doors.pop3)?.lines("CAPA")?);
    ensure!(capabilities.contains(&"SASL SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN CRAM-MD5".to_owned()), "{capabilities:?}");
    let capabilities = listed(Pop3::connect_tls(&doors.pop3s)?.lines("CAPA")?);
    let bound = "SASL SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1-PLUS SCRAM-SHA-1 PLAIN LOGIN CRAM-MD5".to_owned();
    ensure!(capabilities.contains(&bound), "{capabilities:?}");
    let mut imap = Imap::connect(&doors.imap)?;
    let offered = format!("{:?}", imap.command("CAPABILITY")?.ok()?.untagged);
    ensure!(offered.contains("AUTH=SCRAM-SHA-256") && !offered.contains("PLUS"), "{offered}");
    Ok(())
}

#[test]
fn curl_logs_in_with_a_token_of_a_provider() -> Result<()> {
    need!("curl");
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 2, ..Demo::default() })?;
    let keys = cluster.nodes[0].config.with_file_name("jwks.json");
    let point = pair.public_key_raw();
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let key = serde_json::json!({ "kty": "EC", "crv": "P-256", "kid": "k1", "alg": "ES256", "x": part(&point[1..33]), "y": part(&point[33..65]) });
    std::fs::write(&keys, serde_json::json!({ "keys": [key] }).to_string())?;
    cluster.configure(&format!(
        "[auth]\nmechanisms = [\"PLAIN\", \"OAUTHBEARER\", \"XOAUTH2\"]\n[auth.oauth]\nissuer = \"https://id.example.org\"\naudience = [\"berth\"]\nkeys = {keys:?}\n"
    ))?;
    let doors = &cluster.nodes[0].doors;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs();
    let token = |user: &str, expires: u64| -> Result<String> {
        let claims = serde_json::json!({ "iss": "https://id.example.org", "aud": "berth", "exp": expires, "email": user });
        let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::ES256) };
        Ok(encode(&header, &claims, &EncodingKey::from_ec_der(&pair.serialize_der()))?)
    };
    let curl = |mechanism: &str, user: &str, token: &str| {
        let url = format!("imap://{}/INBOX", doors.imap);
        let mut command = Command::new("curl");
        command.args(["--disable", "--silent", "--show-error", "--oauth2-bearer", token, "--user", user]);
        command.args(["--login-options", &format!("AUTH={mechanism}"), "--request", "NOOP", &url]);
        process::run(&mut command, LIMIT)
    };
    for mechanism in ["OAUTHBEARER", "XOAUTH2"] {
        let output = curl(mechanism, "user1", &token("user1", now + 300)?)?;
        ensure!(output.status.success(), "{mechanism}: {}", process::said(&output));
        for (user, token) in
            [("user1", token("user1", now - 300)?), ("user2", token("user1", now + 300)?), ("user1", "nonsense".to_owned())]
        {
            let output = curl(mechanism, user, &token)?;
            ensure!(!output.status.success(), "{mechanism} let {user} in: {}", process::said(&output));
        }
    }
    Ok(())
}
