//! Leads one SASL exchange: what the mechanisms ask for is looked up, and what they prove is decided.

use affinity::Address;
use tokio::time::Instant;

use super::{
    AuthError, Authenticator, Login, UserRecord,
    login::{Claim, Refusal, admit, now},
    oauth::Trouble,
    sasl::{
        self, Exchange, Mechanism, Setting, Step,
        bearer::{self, Bearer},
        scram::{self, Hash, Verifier},
    },
    scheme::Scheme,
};
use crate::{
    client::{Client, Protocol},
    tls::TlsFacts,
};

/// One exchange of one client.
pub struct Conversation {
    auth: Authenticator,
    client: Client,
    protocol: Protocol,
    exchange: Exchange,
    waiting: Waiting,
    /// What the client's certificate says, where one was shown.
    certificate_name: Option<String>,
}

enum Waiting {
    /// The mechanism goes on.
    Nothing,
    /// For the proof of this claim.
    Proof(String, Box<Claim>),
    /// Proved; the client is to acknowledge our last message.
    Acknowledgement(Login),
    /// Refused; the client is to take note of why.
    Note(AuthError),
}

/// What to tell the client.
#[derive(Debug)]
pub enum Turn {
    /// Send this challenge (not yet base64), and give the response to [`Conversation::respond`].
    Challenge(Vec<u8>),
    /// It is decided. What a refusal is due to is in the log.
    Done(Result<Login, AuthError>),
    /// Not a valid exchange.
    Malformed(&'static str),
}

impl Authenticator {
    /// The mechanisms that a client may use on its connection.
    pub fn mechanisms(&self, client: &Client, tls: Option<&TlsFacts>) -> Vec<Mechanism> {
        if !self.allows_password(client) {
            return Vec::new();
        }
        let state = self.inner.state.load();
        let binds = tls.is_some_and(|tls| tls.bindings.is_available());
        let has_certificate = tls.is_some_and(|tls| tls.certificate_name.is_some());
        let configured = |mechanism: &Mechanism| state.section.mechanisms.iter().any(|name| mechanism.name().eq_ignore_ascii_case(name));
        let usable = |mechanism: &Mechanism| match mechanism {
            Mechanism::External => has_certificate,
            plus => binds || !plus.is_plus(),
        };
        Mechanism::ALL.into_iter().filter(configured).filter(usable).collect()
    }

    /// Begins an exchange; `None`: the mechanism is not offered here.
    pub fn begin(&self, mechanism: &str, client: &Client, tls: Option<&TlsFacts>, protocol: Protocol) -> Option<Conversation> {
        let offered = self.mechanisms(client, tls);
        let mechanism = Mechanism::parse(mechanism).filter(|mechanism| offered.contains(mechanism))?;
        let setting = Setting {
            bindings: tls.map(|tls| tls.bindings.clone()).unwrap_or_default(),
            plus_is_offered: offered.iter().any(|mechanism| mechanism.is_plus()),
            nonce: nonce(),
        };
        Some(Conversation {
            auth: self.clone(),
            client: client.clone(),
            protocol,
            exchange: Exchange::start(mechanism, setting),
            waiting: Waiting::Nothing,
            certificate_name: tls.and_then(|tls| tls.certificate_name.clone()),
        })
    }
}

/// 128 bits in letters and digits.
fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

impl Conversation {
    /// Takes the client's next response, already decoded; `None` at the start without an initial response.
    pub async fn respond(&mut self, response: Option<&[u8]>) -> Turn {
        let started = Instant::now();
        match std::mem::replace(&mut self.waiting, Waiting::Nothing) {
            Waiting::Acknowledgement(login) => {
                return match response {
                    Some([]) => Turn::Done(Ok(login)),
                    _ => Turn::Malformed("nothing was left to say"),
                };
            }
            Waiting::Note(error) => return Turn::Done(Err(error)),
            claimed @ Waiting::Proof(..) => self.waiting = claimed,
            Waiting::Nothing => {}
        }
        match self.exchange.respond(response) {
            Step::Challenge(challenge) => Turn::Challenge(challenge),
            Step::Malformed(why) => Turn::Malformed(why),
            Step::Verify { login, password } => Turn::Done(self.auth.verify(&login, &password, &self.client, self.protocol).await),
            Step::LookUp { login, hash } => match self.look_up(&login, hash).await {
                Ok((claim, verifier)) => {
                    self.waiting = Waiting::Proof(login, Box::new(claim));
                    match self.exchange.supply(verifier, &nonce()) {
                        Step::Challenge(challenge) => Turn::Challenge(challenge),
                        _ => Turn::Malformed("the exchange is over"),
                    }
                }
                Err(refusal) => self.done(started, &login, Err(refusal)).await,
            },
            Step::Proved(last) => {
                let Waiting::Proof(login, claim) = std::mem::replace(&mut self.waiting, Waiting::Nothing) else {
                    return Turn::Malformed("the exchange is over");
                };
                match self.admit_claim(&claim).await {
                    Ok(login) => {
                        self.waiting = Waiting::Acknowledgement(login);
                        Turn::Challenge(last)
                    }
                    Err(refusal) => self.done(started, &login, Err(refusal)).await,
                }
            }
            Step::NotProved => {
                let Waiting::Proof(login, claim) = std::mem::replace(&mut self.waiting, Waiting::Nothing) else {
                    return Turn::Malformed("the exchange is over");
                };
                let reason = match &claim.account {
                    None => "unknown user",
                    Some(_) if verifiable(&claim) => "wrong password",
                    Some(_) => "the user's password is not stored as SCRAM needs it",
                };
                let refusal = self.auth.failed(&claim, &self.client, reason);
                self.done(started, &login, Err(refusal)).await
            }
            Step::Cram { login, challenge, digest } => {
                let outcome = self.cram(&login, &challenge, &digest).await;
                self.done(started, &login, outcome).await
            }
            Step::Token(bearer) => {
                let mut said = bearer.user.clone().unwrap_or_default();
                let outcome = self.token(&bearer, &mut said).await;
                match self.auth.conclude(started, &said, &self.client, self.protocol, outcome).await {
                    Err(error @ AuthError::WrongCredentials) => {
                        self.waiting = Waiting::Note(error);
                        let state = self.auth.inner.state.load_full();
                        let (scope, configuration) = state.oauth.as_ref().map(|oauth| oauth.configuration()).unwrap_or_default();
                        Turn::Challenge(bearer::refusal(&scope, configuration))
                    }
                    decided => Turn::Done(decided),
                }
            }
            Step::External(authzid) => {
                let name = self.certificate_name.clone().unwrap_or_default();
                let login = match &authzid {
                    Some(authzid) if *authzid != name => format!("{authzid}{}{name}", sasl::AUTHZID_SEPARATOR),
                    _ => name,
                };
                let outcome = self.without_password(&login).await;
                self.done(started, &login, outcome).await
            }
            Step::Anonymous => {
                let login = self.auth.inner.state.load().section.anonymous_user.clone().unwrap_or_default();
                let outcome = self.without_password(&login).await;
                self.done(started, &login, outcome).await
            }
        }
    }

    async fn done(&self, started: Instant, login: &str, outcome: Result<Login, Refusal>) -> Turn {
        Turn::Done(self.auth.conclude(started, login, &self.client, self.protocol, outcome).await)
    }

    /// The verifier of whoever it is; a made-up one where there is none. One that is made of a password in plain text has as many rounds as that, so that they
    /// don't tell who exists.
    async fn look_up(&self, login: &str, hash: Hash) -> Result<(Claim, Verifier), Refusal> {
        let state = self.auth.inner.state.load_full();
        let address = self.client.address.ip();
        admit(&state, address)?;
        let claim = self.auth.claim(&state, login, &self.client, self.protocol, false).await?;
        self.auth.wait_turn(&state, &claim, address).await?;
        let key = *self.auth.inner.fake_salts.get_or_init(rand::random);
        let fake = Verifier::fake(hash, claim.counted().unwrap_or(login), &key);
        let verifier = match claim.stored() {
            Some(stored) if stored.scheme() == Scheme::Plain => {
                let (stored, salt) = (stored.clone(), fake.salt.clone());
                self.auth
                    .compute(address, move || stored.plain_text().map(|text| Verifier::derive(hash, &text, &salt, scram::ROUNDS)))
                    .await?
            }
            Some(stored) => stored.verifier(hash),
            None => None,
        };
        Ok((claim, verifier.unwrap_or(fake)))
    }

    async fn admit_claim(&self, claim: &Claim) -> Result<Login, Refusal> {
        let state = self.auth.inner.state.load_full();
        self.auth.succeeded(claim, &self.client);
        self.auth.permit(&state, claim, &self.client, self.protocol).await
    }

    async fn cram(&self, login: &str, challenge: &str, digest: &str) -> Result<Login, Refusal> {
        let state = self.auth.inner.state.load_full();
        let address = self.client.address.ip();
        admit(&state, address)?;
        let claim = self.auth.claim(&state, login, &self.client, self.protocol, false).await?;
        self.auth.wait_turn(&state, &claim, address).await?;
        // An unknown user costs the same digest.
        let known = claim.stored().filter(|stored| stored.scheme() == Scheme::Plain).and_then(|stored| stored.plain_text());
        let right = sasl::cram_md5(known.as_deref().unwrap_or_default(), challenge, digest);
        match (&claim.account, known, right) {
            (_, Some(_), true) => self.admit_claim(&claim).await,
            (_, Some(_), false) => Err(self.auth.failed(&claim, &self.client, "wrong password")),
            (Some(_), None, _) => Err(self.auth.failed(&claim, &self.client, "the user's password is not stored as CRAM-MD5 needs it")),
            (None, None, _) => Err(self.auth.failed(&claim, &self.client, "unknown user")),
        }
    }

    /// For whom a token speaks; `said` becomes the name for the log.
    async fn token(&self, bearer: &Bearer, said: &mut String) -> Result<Login, Refusal> {
        let state = self.auth.inner.state.load_full();
        let address = self.client.address.ip();
        admit(&state, address)?;
        let Some(oauth) = &state.oauth else { return Err(Refusal::wrong("tokens are not set up (auth.oauth)")) };
        let nobody = Claim { identity: Err(String::new()), account: None };
        self.auth.wait_turn(&state, &nobody, address).await?;
        let verified = match oauth.verify(&bearer.token).await {
            Ok(verified) => verified,
            Err(Trouble::Down(why)) => return Err(Refusal::unavailable(why)),
            Err(Trouble::Refused(why)) => return Err(self.auth.failed(&nobody, &self.client, why)),
        };
        *said = match &bearer.user {
            Some(user) if *user != verified.user => format!("{user}{}{}", sasl::AUTHZID_SEPARATOR, verified.user),
            _ => verified.user.clone(),
        };
        let login = self.without_password(said).await?;
        let (narrower, wrong) = UserRecord::new(login.user.clone(), verified.fields, &state.section.names);
        if let Some(wrong) = wrong.first() {
            return Err(Refusal::not_allowed(format!("a claim can't be read: {wrong}")));
        }
        match narrower.refuses(self.protocol, address, now()) {
            Some(reason) => Err(Refusal::not_allowed(reason)),
            None => Ok(login),
        }
    }

    /// For whom something else than a password has spoken.
    async fn without_password(&self, login: &str) -> Result<Login, Refusal> {
        let state = self.auth.inner.state.load_full();
        admit(&state, self.client.address.ip())?;
        let vouched = login.rsplit_once(sasl::AUTHZID_SEPARATOR).map_or(login, |(_, name)| name);
        let whole = Address::parse(vouched, &state.section.names).is_ok_and(|name| name.master.is_none() && name.detail.is_none());
        if !whole {
            return Err(Refusal::wrong("a name in a token or a certificate can't name a master user or a detail"));
        }
        let claim = self.auth.claim(&state, login, &self.client, self.protocol, false).await?;
        if claim.account.is_none() {
            return Err(self.auth.failed(&claim, &self.client, "unknown user"));
        }
        self.admit_claim(&claim).await
    }
}

fn verifiable(claim: &Claim) -> bool {
    matches!(claim.stored().map(|stored| stored.scheme()), Some(Scheme::Plain | Scheme::ScramSha1 | Scheme::ScramSha256))
}
