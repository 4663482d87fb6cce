//! Whose token it is: JSON Web Tokens checked by the provider's keys (RFC 7519, RFC 7517), others by asking the provider (RFC 7662).
//!
//! Invariants, each with the test that guards it:
//! - only algorithms of the list are believed, none of which is a shared secret (`a_token_is_believed_only_if_everything_fits`)
//! - a new key of the provider is found without a restart, and made-up key names can't make us ask all the time (`a_new_key_is_found_when_it_is_named`)
//! - a provider that is down is never "wrong token" (`a_provider_that_is_down_is_no_wrong_token`)

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use arc_swap::ArcSwapOption;
use base64::{Engine, prelude::BASE64_STANDARD};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use moka::sync::Cache;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::{sync::Mutex, time::Instant};

use super::{
    login::now,
    record::Fields,
    source::{bounded::Bounded, tls},
};
use crate::config::auth::OAuthSection;

/// Between two looks for keys that a token names and nobody knows.
const KEYS_AGAIN: Duration = Duration::from_secs(30);
/// Between two looks while there are no keys at all: those who wait for one another get the same error.
const DOWN_FOR: Duration = Duration::from_secs(5);
/// A provider's answer at most.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How long what a provider said of a token counts: a revoked one is out after this.
const INTROSPECTED: Duration = Duration::from_secs(60);
/// Tokens remembered at most.
const INTROSPECTED_MAX: u64 = 10_000;
/// Questions to the provider that wait for their turn at most.
const WAITING_MAX: usize = 1_000;
/// What clocks of provider and host may differ by.
const LEEWAY: u64 = 30;

/// What a token says that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose it is: the claim that the settings name.
    pub user: String,
    /// Fields of the record that it gives.
    pub fields: Fields,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It is not good.
    Refused(String),
    /// The provider can't be asked.
    Down(String),
}

/// One provider.
pub struct OAuth {
    section: OAuthSection,
    algorithms: Vec<Algorithm>,
    http: reqwest::Client,
    secret: Option<String>,
    keys: ArcSwapOption<JwkSet>,
    looked: Mutex<Looked>,
    introspected: Cache<[u8; 32], Arc<Map<String, Value>>>,
    turns: Bounded,
}

/// The last look for keys.
#[derive(Debug, Default)]
struct Looked {
    at: Option<Instant>,
    /// Why there are none.
    failure: Option<String>,
}

/// An algorithm of the list by its name; only those with a public key.
pub fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}

impl OAuth {
    /// Reads the settings; nothing is asked yet.
    pub fn new(section: &OAuthSection) -> anyhow::Result<OAuth> {
        let http = reqwest::Client::builder()
            .use_preconfigured_tls(Arc::unwrap_or_clone(tls::client(section.ca_file.as_deref())?))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(section.timeout)
            .build()
            .context("auth.oauth: no HTTP client")?;
        let algorithms = section.algorithms.iter().filter_map(|name| algorithm(name)).collect();
        if section.keys.is_none() && section.introspection.is_none() {
            bail!("auth.oauth: name `keys` (a JWKS) or `introspection`");
        }
        Ok(OAuth {
            secret: tls::secret(section.client_secret_file.as_deref())?,
            section: section.clone(),
            algorithms,
            http,
            keys: ArcSwapOption::empty(),
            looked: Mutex::default(),
            introspected: Cache::builder().max_capacity(INTROSPECTED_MAX).time_to_live(INTROSPECTED).build(),
            turns: Bounded::new(section.connections.max(1), WAITING_MAX, section.timeout),
        })
    }

    /// What a refused client is told of where tokens come from.
    pub fn configuration(&self) -> (String, &str) {
        (self.section.scopes.join(" "), &self.section.openid_configuration)
    }

    /// Checks a token.
    pub async fn verify(&self, token: &str) -> Result<Verified, Trouble> {
        let is_jwt = token.split('.').count() == 3;
        let claims = if self.section.keys.is_some() && is_jwt {
            Arc::new(self.read_jwt(token).await?)
        } else if let Some(url) = &self.section.introspection {
            self.introspect(url, token).await?
        } else {
            return Err(Trouble::Refused("the token is no JWT, and auth.oauth.introspection is not set".to_owned()));
        };
        self.decide(&claims)
    }

    fn decide(&self, claims: &Map<String, Value>) -> Result<Verified, Trouble> {
        let refused = |why: String| Err(Trouble::Refused(why));
        let given: Vec<&str> = match claims.get("scope").or_else(|| claims.get("scp")) {
            Some(Value::String(scopes)) => scopes.split(' ').collect(),
            Some(Value::Array(scopes)) => scopes.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if let Some(missing) = self.section.scopes.iter().find(|scope| !given.contains(&scope.as_str())) {
            return refused(format!("the token lacks the scope {missing:?}"));
        }
        let claim = &self.section.username_claim;
        let Some(user) = claims.get(claim).and_then(Value::as_str).filter(|user| !user.is_empty() && !user.contains('\0')) else {
            return refused(format!("the token has no claim {claim:?} with a name"));
        };
        // An address that its owner never proved is not its owner's.
        let is_verified = match claims.get("email_verified") {
            None => true,
            // Some providers write it as a string.
            Some(Value::String(said)) => said == "true",
            Some(said) => *said == Value::Bool(true),
        };
        if claim == "email" && !is_verified {
            return refused("the address in the token is not verified".to_owned());
        }
        let fields = self.section.claims.iter().filter_map(|(field, claim)| Some((field.clone(), text(claims.get(claim)?)))).collect();
        Ok(Verified { user: user.to_owned(), fields })
    }

    async fn read_jwt(&self, token: &str) -> Result<Map<String, Value>, Trouble> {
        let header = decode_header(token).map_err(|error| Trouble::Refused(format!("the token can't be read: {error}")))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(Trouble::Refused(format!("{:?} is not in auth.oauth.algorithms", header.alg)));
        }
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_audience(&self.section.audience);
        validation.set_issuer(&[&self.section.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let keys = self.keys_for(header.kid.as_deref()).await?;
        let mut why = match &header.kid {
            Some(kid) => format!("the provider has no key {kid:?}"),
            None => "no key of the provider fits".to_owned(),
        };
        for key in candidates(&keys, header.kid.as_deref(), header.alg) {
            let Ok(decoding) = DecodingKey::from_jwk(key) else { continue };
            match decode::<Map<String, Value>>(token, &decoding, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) => why = format!("the token is not good: {error}"),
            }
        }
        Err(Trouble::Refused(why))
    }

    /// The keys, read again where they are old or lack the one that is named.
    async fn keys_for(&self, kid: Option<&str>) -> Result<Arc<JwkSet>, Trouble> {
        let lacks = |keys: &JwkSet| kid.is_some_and(|kid| keys.find(kid).is_none());
        let down = |why: &str| Trouble::Down(format!("the provider's keys can't be read: {why}"));
        // Old keys do while somebody looks for new ones.
        let mut looked = match (self.looked.try_lock(), self.keys.load_full()) {
            (Ok(looked), _) => looked,
            (Err(_), Some(keys)) if !lacks(&keys) => return Ok(keys),
            (Err(_), _) => self.looked.lock().await,
        };
        let present = self.keys.load_full();
        let age = looked.at.map(|at| at.elapsed());
        if let (None, Some(why)) = (&present, &looked.failure)
            && age.is_some_and(|age| age < DOWN_FOR)
        {
            return Err(down(why));
        }
        let due = match (&present, age) {
            (None, _) | (_, None) => true,
            (Some(keys), Some(age)) => age >= self.section.refresh || (lacks(keys) && age >= KEYS_AGAIN),
        };
        if let Some(keys) = &present
            && !due
        {
            return Ok(Arc::clone(keys));
        }
        // Others with tokens wait here for the same answer.
        let read = match &self.section.keys {
            Some(from) if from.starts_with("https://") || from.starts_with("http://") => self.fetch(self.http.get(from)).await,
            Some(file) => read_file(PathBuf::from(file)).await,
            None => Err("auth.oauth.keys is not set".to_owned()),
        };
        let keys = read.and_then(|bytes| serde_json::from_slice::<JwkSet>(&bytes).map_err(|error| format!("no JWKS: {error}")));
        *looked = Looked { at: Some(Instant::now()), failure: None };
        match (keys, present) {
            (Ok(keys), _) => {
                let keys = Arc::new(keys);
                self.keys.store(Some(Arc::clone(&keys)));
                Ok(keys)
            }
            (Err(why), Some(old)) => {
                tracing::warn!(why, "the provider's keys can't be read again: the old ones stay");
                Ok(old)
            }
            (Err(why), None) => {
                looked.failure = Some(why.clone());
                Err(down(&why))
            }
        }
    }

    /// RFC 7662.
    async fn introspect(&self, url: &str, token: &str) -> Result<Arc<Map<String, Value>>, Trouble> {
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(claims) = self.introspected.get(&key) {
            return self.in_time(&claims).map(|()| claims);
        }
        let mut request = self
            .http
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(format!("token={}&token_type_hint=access_token", form(token)));
        if let Some(client) = &self.section.client_id {
            let secret = self.secret.as_deref().unwrap_or_default();
            request =
                request.header("authorization", format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", form(client), form(secret)))));
        }
        let answer = self.fetch(request).await.map_err(|why| Trouble::Down(format!("introspection: {why}")))?;
        let claims: Map<String, Value> =
            serde_json::from_slice(&answer).map_err(|error| Trouble::Down(format!("introspection: no JSON object: {error}")))?;
        if claims.get("active") != Some(&Value::Bool(true)) {
            return Err(Trouble::Refused("the provider says that the token is not active".to_owned()));
        }
        if claims.get("iss").is_some_and(|issuer| issuer.as_str() != Some(&self.section.issuer)) {
            return Err(Trouble::Refused("the token is of another issuer".to_owned()));
        }
        let for_us = |audience: &Value| match audience {
            Value::String(one) => self.section.audience.contains(one),
            Value::Array(many) => many.iter().filter_map(Value::as_str).any(|one| self.section.audience.iter().any(|ours| ours == one)),
            _ => false,
        };
        if claims.get("aud").is_some_and(|audience| !for_us(audience)) {
            return Err(Trouble::Refused("the token is for another audience".to_owned()));
        }
        self.in_time(&claims)?;
        let claims = Arc::new(claims);
        self.introspected.insert(key, Arc::clone(&claims));
        Ok(claims)
    }

    fn in_time(&self, claims: &Map<String, Value>) -> Result<(), Trouble> {
        let now = now().as_second();
        match claims.get("exp").map(Value::as_i64) {
            None => Ok(()),
            Some(Some(expires)) if expires.saturating_add_unsigned(LEEWAY) > now => Ok(()),
            Some(_) => Err(Trouble::Refused("the token has expired".to_owned())),
        }
    }

    async fn fetch(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, String> {
        let _turn = self.turns.enter().await.map_err(|busy| busy.to_string())?;
        // The error's text has the address; a token is in the body alone.
        let mut response = request.send().await.map_err(|error| causes(&error))?;
        if !response.status().is_success() {
            return Err(format!("{} answered {}", response.url(), response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| causes(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(format!("{} answered with more than {ANSWER_BYTES_MAX} bytes", response.url()));
            }
        }
        Ok(bytes)
    }
}

/// The keys that may have signed: by name, or all of the right kind where none is named.
fn candidates<'a>(keys: &'a JwkSet, kid: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &'a Jwk> {
    let kid = kid.map(str::to_owned);
    keys.keys.iter().filter(move |key| {
        let named = kid.as_ref().is_none_or(|kid| key.common.key_id.as_ref() == Some(kid));
        let signs = key.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
        let fits = key.common.key_algorithm.as_ref().is_none_or(|own| format!("{own:?}") == format!("{algorithm:?}"));
        named && signs && fits
    })
}

async fn read_file(file: PathBuf) -> Result<Vec<u8>, String> {
    let read = move |file: &Path| fs::read(file).map_err(|error| format!("{}: {error}", file.display()));
    tokio::task::spawn_blocking(move || read(&file)).await.map_err(|error| error.to_string())?
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

fn text(claim: &Value) -> String {
    match claim {
        Value::String(text) => text.clone(),
        Value::Bool(on) => if *on { "yes" } else { "no" }.to_owned(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// `application/x-www-form-urlencoded`.
fn form(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests;
