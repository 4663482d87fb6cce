//! One order, from account to certificate (RFC 8555 §7). The caller holds the claim.

use std::{path::Path, sync::Arc, time::Duration};

use affinity::Tenure;
use anyhow::{Context, bail, ensure};
use base64::{Engine, engine::general_purpose::GeneralPurpose};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, ExternalAccountKey, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::{
    Folder,
    answers::{is_answer, of_name},
    folder::Seen,
    http::Requests,
};
use crate::config::{AcmeSection, Challenge};

/// How long the authority may take to look at all names, and to make the certificate.
const POLL: RetryPolicy = RetryPolicy::new().initial_delay(Duration::from_millis(500)).backoff(1.5).timeout(Duration::from_secs(120));
/// What it says of an account that it does not know (any more).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// What one order is made with.
pub struct Orderer {
    /// Names and authority.
    pub section: AcmeSection,
    /// Where account, answers and certificate are kept.
    pub folder: Folder,
    /// What was there when the claim was taken.
    pub seen: Seen,
    /// The claim's number.
    pub n: u64,
    /// Whoever is fenced or suspended goes no further.
    pub tenure: Arc<Tenure>,
}

impl Orderer {
    /// Gives the chain and its new key, as PEM.
    pub async fn order(&self) -> anyhow::Result<String> {
        let account = match self.known_account().await? {
            Some(account) => account,
            None => self.new_account().await?,
        };
        let names: Vec<Identifier> = self.section.names.iter().cloned().map(Identifier::Dns).collect();
        let (account, order) = match account.new_order(&NewOrder::new(&names)).await {
            Err(instant_acme::Error::Api(problem)) if problem.r#type.as_deref() == Some(NO_ACCOUNT) => {
                tracing::warn!(directory = self.section.directory, "the ACME authority does not know our account: a new one is made");
                let account = self.new_account().await?;
                let order = account.new_order(&NewOrder::new(&names)).await;
                (account, order)
            }
            order => (account, order),
        };
        let mut order = order.context("it takes no order")?;
        let thumbprint = account.key_thumbprint().to_owned();
        let outcome = self.fulfil(&mut order).await;
        let folder = self.folder.clone();
        if let Err(error) = blocking(move || folder.take_back(&thumbprint)).await {
            tracing::warn!(error = format!("{error:#}"), "answers to ACME challenges stay on the shared directory until the next order");
        }
        outcome
    }

    async fn known_account(&self) -> anyhow::Result<Option<Account>> {
        let (folder, seen) = (self.folder.clone(), self.seen.clone());
        let Some(stored) = blocking(move || folder.account(&seen)).await.context("can't read the account")? else { return Ok(None) };
        let credentials: AccountCredentials = serde_json::from_slice(&stored).context("the account is damaged: remove its file")?;
        let requests = Box::new(Requests::new(self.section.ca_file.as_deref())?);
        Ok(Some(Account::builder_with_http(requests).from_credentials(credentials).await.context("it can't be asked")?))
    }

    async fn new_account(&self) -> anyhow::Result<Account> {
        self.ensure_ours()?;
        let requests = Box::new(Requests::new(self.section.ca_file.as_deref())?);
        let contact: Vec<String> = self.section.contact.iter().map(|address| format!("mailto:{address}")).collect();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let wanted = NewAccount { contact: &contact, terms_of_service_agreed: self.section.agree_to_terms, only_return_existing: false };
        let binding = match (&self.section.account_id, &self.section.account_key_file) {
            (Some(id), Some(file)) => Some(read_binding(id, file)?),
            _ => None,
        };
        let made = Account::builder_with_http(requests).create(&wanted, self.section.directory.clone(), binding.as_ref()).await;
        let (account, credentials) = made.context("it gives no account")?;
        let (folder, n, stored) = (self.folder.clone(), self.n, serde_json::to_vec(&credentials)?);
        blocking(move || folder.keep_account(n, &stored)).await.context("can't keep the account")?;
        Ok(account)
    }

    async fn fulfil(&self, order: &mut Order) -> anyhow::Result<String> {
        self.show_answers(order).await?;
        match order.poll_ready(&POLL).await {
            Ok(OrderStatus::Ready) => {}
            Ok(status) => bail!("{}", self.reasons(order).await.unwrap_or_else(|| format!("the order is {status:?}"))),
            Err(error) => bail!("{}", self.reasons(order).await.unwrap_or_else(|| error.to_string())),
        }
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(self.section.names.clone())?;
        params.distinguished_name = DistinguishedName::new();
        self.ensure_ours()?;
        order.finalize_csr(params.serialize_request(&key)?.der()).await.context("it takes no certificate request")?;
        let chain = order.poll_certificate(&POLL).await.context("it gives no certificate")?;
        Ok(format!("{}\n{}", chain.trim_end(), key.serialize_pem()))
    }

    async fn show_answers(&self, order: &mut Order) -> anyhow::Result<()> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.context("it does not say what to prove")?;
            let name = authorization.identifier().to_string();
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => bail!("the authorization of {name} is {status:?}"),
            }
            let kind = match self.section.challenge {
                Challenge::Http01 => ChallengeType::Http01,
                Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            };
            let Some(mut challenge) = authorization.challenge(kind.clone()) else {
                bail!("it offers no {kind:?} for {name}: see tls.acme.challenge");
            };
            let answer = challenge.key_authorization().as_str().to_owned();
            ensure!(is_answer(&answer), "it sent a token for {name} that RFC 8555 §8.3 forbids");
            let answer = match self.section.challenge {
                Challenge::Http01 => answer,
                // A handshake says a name and no token.
                Challenge::TlsAlpn01 => format!("{}{answer}", of_name(&name)),
            };
            let folder = self.folder.clone();
            blocking(move || folder.show(&answer)).await.context("can't write the answer to a challenge")?;
            self.ensure_ours()?;
            challenge.set_ready().await.with_context(|| format!("it does not look at {name}"))?;
        }
        Ok(())
    }

    /// Why the authority does not believe that the names are ours, in its words.
    async fn reasons(&self, order: &mut Order) -> Option<String> {
        let mut reasons = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let name = authorization.identifier().to_string();
            let Ok(state) = authorization.refresh().await else { continue };
            for problem in state.challenges.iter().filter_map(|challenge| challenge.error.as_ref()) {
                reasons.push(format!("{name}: {problem}"));
            }
        }
        let advice = match self.section.challenge {
            Challenge::Http01 => "; port 80 of each name must reach `listen.acme` of some node",
            Challenge::TlsAlpn01 => "; port 443 of each name must reach `listen.imaps` or `listen.pop3s` of some node",
        };
        (!reasons.is_empty()).then(|| reasons.join("; ").replace(char::is_control, "?") + advice)
    }

    fn ensure_ours(&self) -> anyhow::Result<()> {
        ensure!(self.tenure.is_valid(), "this node lost contact with the shared directory meanwhile");
        Ok(())
    }
}

/// The key of an account with the authority.
fn read_binding(id: &str, file: &Path) -> anyhow::Result<ExternalAccountKey> {
    let any_padding = base64::engine::GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
    let coding = GeneralPurpose::new(&base64::alphabet::URL_SAFE, any_padding);
    let wrong = || format!("can't use the key of the account {id:?} in {} (tls.acme.account_key_file)", file.display());
    let key = affinity::swap::read_small(file).with_context(wrong)?;
    Ok(ExternalAccountKey::new(id.to_owned(), &coding.decode(key.trim_ascii()).with_context(wrong)?))
}

/// Runs what waits for the file server.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> anyhow::Result<T> {
    Ok(tokio::task::spawn_blocking(work).await??)
}
