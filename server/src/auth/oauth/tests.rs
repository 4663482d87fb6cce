use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// A key pair of the provider.
struct Signer {
    kid: String,
    pair: KeyPair,
}

impl Signer {
    fn new(kid: &str) -> Signer {
        Signer { kid: kid.to_owned(), pair: KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap() }
    }
    fn jwk(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let point = self.pair.public_key_raw();
        let encode = |part: &[u8]| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(part);
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid, "x": encode(&point[1..33]), "y": encode(&point[33..65]) })
    }
    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, &EncodingKey::from_ec_der(&self.pair.serialize_der())).unwrap()
    }
}

fn seconds() -> i64 {
    now().as_second()
}
fn claims() -> Value {
    json!({ "iss": "https://id.example.org", "aud": "berth", "exp": seconds() + 300, "email": "ada@example.org", "scope": "imap openid", "nets": ["10.0.0.0/8"] })
}
fn section(keys: Option<String>) -> OAuthSection {
    OAuthSection {
        issuer: "https://id.example.org".to_owned(),
        audience: vec!["berth".to_owned()],
        keys,
        username_claim: "email".to_owned(),
        scopes: vec!["imap".to_owned()],
        claims: [("allow_nets".to_owned(), "nets".to_owned())].into(),
        timeout: Duration::from_secs(5),
        ..OAuthSection::default()
    }
}
fn jwks(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string()
}

#[tokio::test]
async fn a_token_is_believed_only_if_everything_fits() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    let (signer, stranger) = (Signer::new("one"), Signer::new("one"));
    fs::write(&file, jwks(&[&signer])).unwrap();
    let oauth = OAuth::new(&section(Some(file.display().to_string()))).unwrap();
    let good = oauth.verify(&signer.sign(&claims())).await.unwrap();
    assert_eq!(good, Verified { user: "ada@example.org".into(), fields: [("allow_nets".to_owned(), "10.0.0.0/8".to_owned())].into() });
    let changed = |key: &str, value: Value| {
        let mut claims = claims();
        claims[key] = value;
        signer.sign(&claims)
    };
    let mut without_exp = claims();
    without_exp.as_object_mut().unwrap().remove("exp");
    let secret = encode(&Header::new(Algorithm::HS256), &claims(), &EncodingKey::from_secret(b"x")).unwrap();
    for (token, why) in [
        (stranger.sign(&claims()), "InvalidSignature"),
        (changed("exp", json!(seconds() - 300)), "ExpiredSignature"),
        (changed("nbf", json!(seconds() + 300)), "ImmatureSignature"),
        (changed("iss", json!("https://evil.example")), "InvalidIssuer"),
        (changed("aud", json!("another")), "InvalidAudience"),
        (changed("scope", json!("openid")), "lacks the scope"),
        (changed("email", json!("")), "no claim"),
        (changed("email_verified", json!(false)), "not verified"),
        (changed("email_verified", json!("false")), "not verified"),
        (signer.sign(&without_exp), "exp"),
        (secret, "HS256 is not in auth.oauth.algorithms"),
        ("a.b.c".to_owned(), "can't be read"),
        ("opaque".to_owned(), "no JWT"),
    ] {
        match oauth.verify(&token).await {
            Err(Trouble::Refused(said)) => assert!(said.contains(why), "{why}: {said}"),
            other => panic!("{why}: {other:?}"),
        }
    }
}

/// A provider that answers every request with what `answer` gives, and counts.
async fn provider(answer: impl Fn(String) -> String + Send + 'static) -> (String, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut request = vec![0; 8192];
            let read = stream.read(&mut request).await.unwrap();
            let body = answer(String::from_utf8_lossy(&request[..read]).into_owned());
            let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
    });
    (format!("http://{address}/"), asked)
}

#[tokio::test]
async fn a_new_key_is_found_when_it_is_named() {
    crate::tls::install_provider();
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let offered = Arc::new(parking_lot::Mutex::new(jwks(&[&old])));
    let shown = Arc::clone(&offered);
    let (url, asked) = provider(move |_| shown.lock().clone()).await;
    let oauth = OAuth::new(&section(Some(url))).unwrap();
    let count = || asked.load(std::sync::atomic::Ordering::SeqCst);
    assert!(oauth.verify(&old.sign(&claims())).await.is_ok());
    assert!(oauth.verify(&old.sign(&claims())).await.is_ok());
    assert_eq!(count(), 1, "keys are remembered");
    for _ in 0..5 {
        assert!(matches!(oauth.verify(&new.sign(&claims())).await, Err(Trouble::Refused(_))));
    }
    assert_eq!(count(), 1, "names that nobody knows don't make us ask at once");
    *offered.lock() = jwks(&[&old, &new]);
    oauth.looked.lock().await.at = Some(Instant::now() - KEYS_AGAIN);
    assert!(oauth.verify(&new.sign(&claims())).await.is_ok());
    assert_eq!(count(), 2);
}

#[tokio::test]
async fn a_token_without_a_form_is_shown_to_the_provider() {
    crate::tls::install_provider();
    let (url, asked) = provider(|request| {
        let active = request.contains("token=good%2Btoken&") && request.contains("authorization: Basic YmVydGg6");
        json!({ "active": active, "email": "ada@example.org", "scope": "imap", "exp": seconds() + 60 }).to_string()
    })
    .await;
    let settings = OAuthSection { introspection: Some(url), client_id: Some("berth".to_owned()), ..section(None) };
    let oauth = OAuth::new(&settings).unwrap();
    assert_eq!(oauth.verify("good+token").await.unwrap().user, "ada@example.org");
    assert_eq!(oauth.verify("good+token").await.unwrap().user, "ada@example.org");
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1, "what the provider said counts for a while");
    assert!(matches!(oauth.verify("bad").await, Err(Trouble::Refused(_))));
}

/// Who waits for the provider is told what the one before was told: logins are no queue of time-outs.
#[tokio::test]
async fn a_provider_that_is_down_is_asked_once_in_a_while() {
    crate::tls::install_provider();
    let (url, asked) = provider(|_| "no keys".to_owned()).await;
    let oauth = OAuth::new(&section(Some(url))).unwrap();
    let token = Signer::new("a").sign(&claims());
    let count = || asked.load(std::sync::atomic::Ordering::SeqCst);
    for verified in futures::future::join_all((0..20).map(|_| oauth.verify(&token))).await {
        assert!(matches!(verified, Err(Trouble::Down(_))));
    }
    assert_eq!(count(), 1);
    oauth.looked.lock().await.at = Some(Instant::now() - DOWN_FOR);
    assert!(oauth.verify(&token).await.is_err());
    assert_eq!(count(), 2);
}

#[tokio::test]
async fn old_keys_do_while_new_ones_are_looked_for() {
    crate::tls::install_provider();
    let signer = Signer::new("a");
    let keys = jwks(&[&signer]);
    let (url, _) = provider(move |_| keys.clone()).await;
    let oauth = OAuth::new(&section(Some(url))).unwrap();
    let token = signer.sign(&claims());
    oauth.verify(&token).await.unwrap();
    let _looking = oauth.looked.lock().await;
    tokio::time::timeout(Duration::from_secs(10), oauth.verify(&token)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_provider_that_is_down_is_no_wrong_token() {
    crate::tls::install_provider();
    let gone = "http://127.0.0.1:1/".to_owned();
    let keys = OAuth::new(&section(Some(gone.clone()))).unwrap();
    assert!(matches!(keys.verify(&Signer::new("a").sign(&claims())).await, Err(Trouble::Down(_))));
    let asking = OAuth::new(&OAuthSection { introspection: Some(gone), ..section(None) }).unwrap();
    assert!(matches!(asking.verify("opaque").await, Err(Trouble::Down(_))));
}
