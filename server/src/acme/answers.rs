//! Answers an authority's challenges over HTTP (RFC 8555 §8.3) and in handshakes (RFC 8737), whichever node ordered.
//!
//! Anybody may ask, so the shared directory is listed once a second at most, whatever is asked for.

use std::{path::PathBuf, time::Duration};

use hyper::{Method, StatusCode};
use sha2::{Digest, Sha256};
use tokio::{sync::Mutex, time::Instant};

use super::{folder, order::blocking};

/// Where authorities ask (RFC 8555 §8.3).
const PATH: &str = "/.well-known/acme-challenge/";
/// Longest token: authorities send some 43 letters.
const TOKEN_BYTES_MAX: usize = 128;
/// At most one listing in this time.
const LISTING_INTERVAL: Duration = Duration::from_secs(1);

/// The answers that are shown at present, as listed last.
#[derive(Debug)]
pub struct Answers {
    root: PathBuf,
    listed: Mutex<Option<Listed>>,
}

#[derive(Debug)]
struct Listed {
    at: Instant,
    answers: Vec<String>,
}

impl Answers {
    /// Those of a cluster.
    pub fn new(root: PathBuf) -> Answers {
        Answers { root, listed: Mutex::new(None) }
    }

    /// Status and text for one request.
    pub async fn respond(&self, method: &Method, path: &str) -> (StatusCode, String) {
        let Some(token) = path.strip_prefix(PATH).filter(|token| is_token(token)) else {
            return (StatusCode::NOT_FOUND, "there are only answers to ACME challenges\n".to_owned());
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            return (StatusCode::METHOD_NOT_ALLOWED, "ask with GET\n".to_owned());
        }
        match self.answer_to(token).await {
            Ok(Some(answer)) => (StatusCode::OK, answer),
            Ok(None) => (StatusCode::NOT_FOUND, "no such challenge\n".to_owned()),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "can't look for the answer to an ACME challenge");
                (StatusCode::SERVICE_UNAVAILABLE, "try again later\n".to_owned())
            }
        }
    }

    async fn answer_to(&self, token: &str) -> anyhow::Result<Option<String>> {
        self.find(|answer| answer.split_once('.').is_some_and(|(of, _)| of == token)).await
    }

    /// The key authorization that proves `name` in a handshake.
    pub async fn answer_of(&self, name: &str) -> anyhow::Result<Option<String>> {
        let start = of_name(name);
        let found = self.find(|answer| answer.starts_with(&start)).await?;
        Ok(found.and_then(|answer| answer.strip_prefix(&start).map(str::to_owned)))
    }

    async fn find(&self, is_it: impl Fn(&str) -> bool) -> anyhow::Result<Option<String>> {
        let asked = Instant::now();
        let mut listed = self.listed.lock().await;
        let find = |listed: &Listed| listed.answers.iter().find(|answer| is_it(answer)).cloned();
        if let Some(last) = &*listed {
            let found = find(last);
            if found.is_some() || last.at > asked {
                return Ok(found);
            }
            tokio::time::sleep_until(last.at + LISTING_INTERVAL).await;
        }
        let (at, root) = (Instant::now(), self.root.clone());
        let answers = blocking(move || folder::answers(&root)).await?;
        let now = listed.insert(Listed { at, answers });
        Ok(find(now))
    }
}

/// What the answers for a name in handshakes begin with. No token has a comma, and names may be too long for a file's name.
pub(super) fn of_name(name: &str) -> String {
    let hash = Sha256::digest(name.to_ascii_lowercase());
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>() + ","
}

/// base64url without padding: what can't leave its folder.
fn is_token(token: &str) -> bool {
    let plain = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    plain && !token.is_empty() && token.len() <= TOKEN_BYTES_MAX
}

/// Whether a key authorization is one: a token, a dot and a thumbprint, both base64url.
pub(super) fn is_answer(answer: &str) -> bool {
    answer.split_once('.').is_some_and(|(token, thumbprint)| is_token(token) && is_token(thumbprint))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_found_by_its_token_and_listings_are_bounded() {
        let root = tempfile::tempdir().unwrap();
        let challenges = root.path().join("acme/challenges");
        fs::create_dir_all(&challenges).unwrap();
        fs::write(challenges.join("token-1.thumbprint"), "").unwrap();
        let answers = Answers::new(root.path().to_owned());
        let get = async |path: &str| answers.respond(&Method::GET, path).await;
        assert_eq!(get("/.well-known/acme-challenge/token-1").await, (StatusCode::OK, "token-1.thumbprint".to_owned()));
        assert_eq!(answers.respond(&Method::POST, "/.well-known/acme-challenge/token-1").await.0, StatusCode::METHOD_NOT_ALLOWED);
        fs::write(challenges.join("token-2.thumbprint"), "").unwrap();
        let began = Instant::now();
        assert_eq!(get("/.well-known/acme-challenge/token-2").await.0, StatusCode::OK);
        assert!(began.elapsed() >= Duration::from_millis(900), "one listing a second: {:?}", began.elapsed());
        fs::remove_file(challenges.join("token-1.thumbprint")).unwrap();
        let many = futures::future::join_all((0..50).map(|n| {
            let answers = &answers;
            async move { answers.respond(&Method::GET, &format!("/.well-known/acme-challenge/no-{n}")).await.0 }
        }));
        let began = Instant::now();
        assert!(many.await.iter().all(|status| *status == StatusCode::NOT_FOUND));
        assert!(began.elapsed() < Duration::from_secs(3), "all by the same listing: {:?}", began.elapsed());
        assert_eq!(get("/.well-known/acme-challenge/token-1").await.0, StatusCode::NOT_FOUND);
        fs::write(challenges.join(format!("{}token-3.thumbprint", of_name("mail.example.org"))), "").unwrap();
        assert_eq!(answers.answer_of("Mail.example.org").await.unwrap().as_deref(), Some("token-3.thumbprint"));
        assert_eq!(answers.answer_of("example.org").await.unwrap(), None);
        assert_eq!(get("/.well-known/acme-challenge/token-3").await.0, StatusCode::NOT_FOUND, "it is for handshakes");
    }

    #[tokio::test]
    async fn a_token_that_is_none_is_looked_up_nowhere() {
        let root = tempfile::tempdir().unwrap();
        // There is no challenge folder to be listed: a look would find nothing, but it is not even made.
        let answers = Answers::new(root.path().join("absent"));
        let long = "a".repeat(TOKEN_BYTES_MAX + 1);
        for token in ["", "..", "../x", "a/b", "a.b", "a%2fb", "a\0b", "\u{e9}", &long] {
            let (status, _) = answers.respond(&Method::GET, &format!("{PATH}{token}")).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{token:?}");
        }
        assert_eq!(answers.respond(&Method::GET, "/").await.0, StatusCode::NOT_FOUND);
        assert_eq!(
            answers.respond(&Method::GET, &format!("{PATH}good")).await.0,
            StatusCode::SERVICE_UNAVAILABLE,
            "this one was looked up"
        );
        assert!(is_answer("token.thumb-print_1"));
        for answer in ["token", ".thumb", "token.", "a/b.c", "a.b.c", "a.b/c"] {
            assert!(!is_answer(answer), "{answer}");
        }
    }
}
