//! Decides about one login, whatever proves it: a password, a SCRAM proof, a token, a certificate.
//!
//! Invariants, each with the test that guards it:
//! - an answer of "no" comes at a multiple of [`FAILURE_STEP`] after its question, so that its time doesn't say what was looked at
//!   (`a_refusal_takes_the_same_time_for_every_reason`)
//! - a master user's login is in the log with both names (`a_master_user_is_logged_with_both_names`)

use std::{net::IpAddr, sync::Arc, time::Duration};

use affinity::clock::wall_clock;
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{
    Account, AuthError, Authenticator, Identity, Login, PASSWORD_BYTES_MAX, State,
    edit::edit,
    identify,
    penalty::{Delays, Turn},
    sasl,
    scheme::{Scheme, SchemeError, StoredPassword},
    source::{Asker, Credential, Down},
};
use crate::{
    client::{Client, Protocol},
    config::network::contains,
};

/// Answers of "no" come at multiples of this: longer than what sources and hashes differ by.
const FAILURE_STEP: Duration = Duration::from_millis(250);
/// Names in log lines are cut here.
const LOGGED_NAME_CHARS_MAX: usize = 128;

/// A login that is not accepted, and what only the log may know.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: AuthError,
    pub(super) reason: String,
}

impl Refusal {
    pub(super) fn wrong(reason: impl Into<String>) -> Refusal {
        Refusal { error: AuthError::WrongCredentials, reason: reason.into() }
    }
    pub(super) fn not_allowed(reason: impl Into<String>) -> Refusal {
        let reason = reason.into();
        Refusal { error: AuthError::NotAllowed(reason.clone()), reason }
    }
    fn crowded() -> Refusal {
        Refusal {
            error: AuthError::Crowded,
            reason: "not checked: too many attempts from this address wait behind wrong passwords".to_owned(),
        }
    }
    pub(super) fn unavailable(reason: impl Into<String>) -> Refusal {
        Refusal { error: AuthError::Unavailable("try again".to_owned()), reason: reason.into() }
    }
}

impl From<Down> for Refusal {
    fn from(down: Down) -> Refusal {
        Refusal::unavailable(down.to_string())
    }
}

/// Whose login it is, as far as that is known before it is proved.
pub(super) struct Claim {
    pub(super) identity: Result<Identity, String>,
    pub(super) account: Option<Account>,
}

impl Claim {
    /// Whom a failure counts against.
    pub(super) fn counted(&self) -> Option<&str> {
        self.identity.as_ref().ok().map(|identity| identity.authenticates.as_str())
    }
    pub(super) fn stored(&self) -> Option<&StoredPassword> {
        match &self.account.as_ref()?.credential {
            Credential::Stored(stored) => Some(stored),
            Credential::None | Credential::Asked(_) => None,
        }
    }
}

impl Authenticator {
    /// Checks a password, after the delay that earlier failures of this address and user earned. Hashing runs off the async threads.
    pub async fn verify(&self, login: &str, password: &[u8], client: &Client, protocol: Protocol) -> Result<Login, AuthError> {
        let started = Instant::now();
        let outcome = self.check(login, password, client, protocol).await;
        self.conclude(started, login, client, protocol, outcome).await
    }

    /// Logs how a login ended, and lets a refusal take its time.
    pub(super) async fn conclude(
        &self,
        started: Instant,
        login: &str,
        client: &Client,
        protocol: Protocol,
        outcome: Result<Login, Refusal>,
    ) -> Result<Login, AuthError> {
        let address = client.address.ip().to_canonical();
        let refusal = match outcome {
            Ok(login) => {
                if let Some(master) = &login.master {
                    info!(%address, user = %login.user, %master, %protocol, session = %client.session, "master user logs in for a user");
                }
                return Ok(login);
            }
            Err(refusal) => refusal,
        };
        let user: String = login.replace(sasl::AUTHZID_SEPARATOR, " by ").chars().take(LOGGED_NAME_CHARS_MAX).collect();
        match refusal.error {
            // Never in the words that get an address banned.
            AuthError::Unavailable(_) => error!(%address, user, %protocol, reason = refusal.reason, "a login can't be checked now"),
            _ => warn!(%address, user, %protocol, reason = refusal.reason, "auth failure"),
        }
        let steps = started.elapsed().as_micros().div_ceil(FAILURE_STEP.as_micros()).max(1);
        tokio::time::sleep_until(started + FAILURE_STEP * u32::try_from(steps).unwrap_or(u32::MAX)).await;
        Err(refusal.error)
    }

    async fn check(&self, login: &str, password: &[u8], client: &Client, protocol: Protocol) -> Result<Login, Refusal> {
        if !self.allows_password(client) {
            return Err(Refusal::not_allowed("passwords are only accepted over TLS"));
        }
        let state = self.inner.state.load_full();
        let address = client.address.ip();
        admit(&state, address)?;
        let claim = self.claim(&state, login, client, protocol, false).await?;
        self.check_password(&state, claim, login, password, client, protocol).await
    }

    /// Looks up who is meant.
    pub(super) async fn claim(
        &self,
        state: &State,
        login: &str,
        client: &Client,
        protocol: Protocol,
        fresh: bool,
    ) -> Result<Claim, Refusal> {
        let identity = identify(login, &state.section.names);
        let account = match &identity {
            Ok(identity) => state.resolve(&Asker::login(&identity.authenticates, client, protocol), fresh).await?,
            Err(_) => None,
        };
        Ok(Claim { identity, account })
    }

    /// Costs the same for users that exist and others.
    async fn check_password(
        &self,
        state: &Arc<State>,
        claim: Claim,
        login: &str,
        password: &[u8],
        client: &Client,
        protocol: Protocol,
    ) -> Result<Login, Refusal> {
        // Guessers can't keep users out of where they got in before; elsewhere the right guess waits like the wrong ones
        // (`a_remembered_password_is_guessed_no_faster`).
        let address = client.address.ip();
        let mut is_right = self.inner.penalty.knows(address, claim.counted()) && self.is_remembered(state, &claim, password);
        if !is_right {
            self.wait_turn(state, &claim, address).await?;
            is_right = self.is_remembered(state, &claim, password);
        }
        if is_right {
            self.succeeded(&claim, client);
            return self.permit(state, &claim, client, protocol).await;
        }
        let unsure = match self.by_app_password(state, &claim, password, client, protocol).await {
            Ok(Some(login)) => return login,
            Ok(None) => None,
            Err(why) => Some(why),
        };
        let mut proved = self.prove(state, &claim, password, client, protocol).await?;
        let mut claim = claim;
        if proved.is_err() && matches!(&claim.account, Some(account) if !matches!(account.credential, Credential::Asked(_))) {
            // What is remembered of a remote source may be older than a change of the password.
            let fresh = self.claim(state, login, client, protocol, true).await?;
            if fresh.account.as_ref().map(|account| &account.credential) != claim.account.as_ref().map(|account| &account.credential) {
                claim = fresh;
                proved = self.prove(state, &claim, password, client, protocol).await?;
            }
        }
        match proved {
            Ok(()) => {
                self.succeeded(&claim, client);
                if let (Ok(identity), Some(field)) = (&claim.identity, field(&claim)) {
                    state.cache.remember(&identity.authenticates, &field, password);
                }
                self.store_anew(state, &claim, password);
                self.permit(state, &claim, client, protocol).await
            }
            // It may be an app password that can't be known now: that is nobody's mistake.
            Err(_) if unsure.is_some() => Err(Refusal::unavailable(unsure.unwrap_or_default())),
            Err(reason) => Err(self.failed(&claim, client, reason)),
        }
    }

    /// `None`: it is no app password of this user. Master users have none. `Err`: that can't be told now.
    async fn by_app_password(
        &self,
        state: &State,
        claim: &Claim,
        password: &[u8],
        client: &Client,
        protocol: Protocol,
    ) -> Result<Option<Result<Login, Refusal>>, String> {
        let account = claim.account.as_ref().filter(|_| claim.identity.as_ref().is_ok_and(|identity| !identity.is_master()));
        let (Some(account), Some(app_passwords)) = (account, self.inner.app_passwords.get()) else { return Ok(None) };
        let Some(id) = app_passwords.find(&account.record.user, protocol, password).await? else { return Ok(None) };
        self.succeeded(claim, client);
        info!(user = %account.record.user, app_password = id, %protocol, session = %client.session, "an app password is used");
        Ok(Some(self.permit(state, claim, client, protocol).await))
    }

    /// Replaces a weak hash in a users file by one in the default scheme, in the background.
    fn store_anew(&self, state: &State, claim: &Claim, password: &[u8]) {
        let (true, Some(account), Some(stored)) = (state.section.upgrade_weak, &claim.account, claim.stored()) else { return };
        let (Some(file), Some(scheme)) = (state.sources.users_file(account), Scheme::parse(&state.section.default_scheme)) else { return };
        let Ok(identity) = &claim.identity else { return };
        if !stored.scheme().is_weak() || scheme.is_weak() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.inner.upgrading).try_acquire_owned() else { return };
        let (path, rules) = (file.path().to_owned(), state.section.names.clone());
        let (user, stored, password) = (identity.authenticates.clone(), stored.clone(), password.to_vec());
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let stored_anew = scheme.hash(&password).map_err(anyhow::Error::from).and_then(|new| {
                edit(&path, &rules, |lines| match lines.password_of(&user) {
                    Some(field) if stored.is_in(field) => lines.set_password(&user, &new),
                    // Somebody changed it meanwhile: that one counts.
                    _ => Ok(()),
                })
            });
            match stored_anew {
                Ok(()) => info!(%user, from = %stored.scheme(), to = %scheme, "a password is stored anew"),
                Err(error) => warn!(%user, "a password can't be stored anew: {error:#}"),
            }
        });
    }

    fn is_remembered(&self, state: &State, claim: &Claim, password: &[u8]) -> bool {
        match (&claim.identity, field(claim)) {
            (Ok(identity), Some(field)) => state.cache.knows(&identity.authenticates, &field, password),
            _ => false,
        }
    }

    /// The delay that earlier failures earned. `Err`: too many guesses from this address wait.
    pub(super) async fn wait_turn(&self, state: &State, claim: &Claim, address: IpAddr) -> Result<(), Refusal> {
        let delays = Delays { first: state.section.failure_delay, longest: state.section.failure_delay_max };
        let trusted = contains(&state.section.trusted_nets, address);
        match self.inner.penalty.turn((!trusted).then_some(address), claim.counted(), delays) {
            Turn::After(wait) => {
                tokio::time::sleep(wait).await;
                Ok(())
            }
            Turn::Never(wait) => {
                tokio::time::sleep(wait).await;
                Err(Refusal::crowded())
            }
        }
    }

    pub(super) fn succeeded(&self, claim: &Claim, client: &Client) {
        self.inner.penalty.succeeded(client.address.ip(), claim.counted());
    }

    pub(super) fn failed(&self, claim: &Claim, client: &Client, reason: impl Into<String>) -> Refusal {
        self.inner.penalty.failed(client.address.ip(), claim.counted());
        Refusal::wrong(reason)
    }

    /// `Err`: why not, for the log.
    async fn prove(
        &self,
        state: &State,
        claim: &Claim,
        password: &[u8],
        client: &Client,
        protocol: Protocol,
    ) -> Result<Result<(), String>, Refusal> {
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            return Ok(Err("no password has that length".to_owned()));
        }
        if let (Ok(identity), Some(account)) = (&claim.identity, &claim.account)
            && let Credential::Asked(at) = &account.credential
        {
            let asker = Asker::login(&identity.authenticates, client, protocol);
            let right = state.sources.check(account, at, password, &asker).await?;
            return Ok(if right { Ok(()) } else { Err("wrong password".to_owned()) });
        }
        let outcome = self.hash(client.address.ip(), claim.stored().unwrap_or(&state.dummy).clone(), password.to_vec()).await?;
        Ok(match (&claim.account, claim.stored(), outcome) {
            (None, ..) => Err("unknown user".to_owned()),
            (_, None, _) => Err("the user has no password that can be used".to_owned()),
            (_, _, Err(error)) => Err(error.to_string()),
            (_, _, Ok(false)) => Err("wrong password".to_owned()),
            (_, _, Ok(true)) => Ok(()),
        })
    }

    /// Verifies on the blocking pool, a bounded number at once.
    async fn hash(&self, address: IpAddr, stored: StoredPassword, password: Vec<u8>) -> Result<Result<bool, SchemeError>, Refusal> {
        self.compute(address, move || stored.verify(&password)).await
    }

    /// Runs what takes a core for a while on the blocking pool, a bounded number at once; addresses take turns.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        address: IpAddr,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let permit = self.inner.hashing.enter(address).await.map_err(|busy| Refusal::unavailable(busy.to_string()))?;
        let done = tokio::task::spawn_blocking(move || {
            // Kept until the work is done, also if the client is gone by then: or hanging up early would start ever more of it.
            let _permit = permit;
            work()
        });
        done.await.map_err(|error| Refusal::unavailable(error.to_string()))
    }

    /// What the record allows somebody who has proved to be who they say.
    pub(super) async fn permit(&self, state: &State, claim: &Claim, client: &Client, protocol: Protocol) -> Result<Login, Refusal> {
        let (Ok(identity), Some(account)) = (&claim.identity, &claim.account) else { return Err(Refusal::wrong("unknown user")) };
        let record = &account.record;
        if let Some(reason) = record.refuses(protocol, client.address.ip(), now()) {
            return Err(Refusal::not_allowed(reason));
        }
        if !identity.is_master() {
            return Ok(Login { user: record.user.clone(), master: None });
        }
        if !record.is_master {
            return Err(Refusal::wrong(format!("{} is not a master user", identity.authenticates)));
        }
        let Some(meant) = state.resolve(&Asker::lookup(&identity.user), false).await? else {
            return Err(Refusal::wrong("the master user named an unknown user"));
        };
        Ok(Login { user: meant.record.user.clone(), master: Some(record.user.clone()) })
    }
}

/// The time, for dates on which accounts end.
pub(super) fn now() -> Timestamp {
    Timestamp::try_from(wall_clock()).unwrap_or(Timestamp::MAX)
}

/// Refuses networks before anything is looked up.
pub(super) fn admit(state: &State, address: IpAddr) -> Result<(), Refusal> {
    let section = &state.section;
    if contains(&section.deny_nets, address) {
        return Err(Refusal::wrong("its network is in auth.deny_nets"));
    }
    if !section.allow_nets.is_empty() && !contains(&section.allow_nets, address) {
        return Err(Refusal::wrong("its network is not in auth.allow_nets"));
    }
    Ok(())
}

/// What tells one stored password of a user from the next.
fn field(claim: &Claim) -> Option<String> {
    let account = claim.account.as_ref()?;
    match &account.credential {
        Credential::None => None,
        Credential::Stored(stored) => Some(stored.field().to_owned()),
        Credential::Asked(at) => Some(format!("{} {at}", account.source)),
    }
}
