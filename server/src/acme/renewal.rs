//! Gets and renews the certificate of `[tls.acme]`: looks at the shared directory, and orders when it is this node's turn.

use std::{path::Path, sync::Arc, time::Duration};

use affinity::{HolderId, NodeState, Root, swap::Swapped};
use anyhow::{Context, bail};
use tokio::{sync::Mutex, time::timeout};

use super::{
    Answers, Folder,
    claim::{Claim, Decision, Situation, decide},
    folder::Seen,
    order::{Orderer, blocking},
};
use crate::{
    config::AcmeSection,
    node::Node,
    tls::certificate::{Facts, seconds},
};

/// How often the shared directory is looked at: one listing, as for the users file.
const LOOK: Duration = Duration::from_secs(15);
/// How long an order may take in all; its claim is given back then.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// What orders of this node share.
#[derive(Debug)]
pub struct Renewal {
    root: Root,
    /// One look at a time: the loop's, or an operator's.
    turn: Mutex<()>,
    /// Answers to challenges.
    pub answers: Answers,
}

/// What became of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A new certificate is here and served.
    Renewed,
    /// Nothing was to do; why.
    Nothing(String),
}

impl Renewal {
    /// For a cluster.
    pub fn new(root: &Root) -> Renewal {
        Renewal { root: root.clone(), turn: Mutex::new(()), answers: Answers::new(root.path().to_owned()) }
    }
}

/// Until the node stops.
pub async fn follow(node: Arc<Node>) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut said = String::new();
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = node.stop_listening.cancelled() => return,
        }
        match look(&node, false).await {
            Ok(outcome) => {
                tracing::debug!(?outcome, "the certificate by ACME was looked at");
                said.clear();
            }
            Err(error) => {
                // What lasts is said once.
                let error = format!("{error:#}");
                if error != said {
                    tracing::error!(error, "the certificate by ACME ([tls.acme]) can't be looked after");
                }
                said = error;
            }
        }
    }
}

/// Serves what is newest, and orders where that is due, or `asked` for. An order that fails is said in the log, and is an error.
pub async fn look(node: &Arc<Node>, asked: bool) -> anyhow::Result<Outcome> {
    let renewal = &node.renewal;
    let _turn = renewal.turn.lock().await;
    let Some(section) = node.config().tls.acme.clone() else { return Ok(Outcome::Nothing("there is no [tls.acme]".to_owned())) };
    if node.tls.is_none() {
        return Ok(Outcome::Nothing("the first certificate takes effect at the next start of this node".to_owned()));
    }
    if node.keeper.state() != NodeState::Up {
        return Ok(Outcome::Nothing("this node has no contact with the shared directory".to_owned()));
    }
    let tenure = node.keeper.tenure();
    let me = tenure.holder().clone();
    let (folder, seen, live) = look_at(&renewal.root, &section, &me).await?;
    let certificate = serve(node, &folder, &seen).await?;
    let situation = Situation { claim: &seen.claim, live: &live, me: &me, certificate: certificate.as_ref(), now: now(), asked };
    let taken = match decide(&situation) {
        Decision::Good(until) => return Ok(Outcome::Nothing(format!("it is renewed from {} on", date(until)))),
        Decision::Held(by) => return Ok(Outcome::Nothing(format!("{} orders one at present", by.node))),
        Decision::Wait(until) => return Ok(Outcome::Nothing(format!("the last order failed, the next is made at {}", date(until)))),
        Decision::Take(taken) => taken,
    };
    let (claims, old, new) = (folder.clone(), seen.claim.clone(), taken.clone());
    if blocking(move || claims.swap(&old, &new)).await.context("can't take the claim")? == Swapped::Lost {
        return Ok(Outcome::Nothing("another node was faster".to_owned()));
    }
    tracing::info!(names = section.names.join(" "), directory = section.directory, "ordering a certificate by ACME");
    let orderer = Orderer { section: section.clone(), folder: folder.clone(), seen, n: taken.n, tenure };
    let ordered = async {
        let pem = match timeout(ORDER_TIMEOUT, orderer.order()).await {
            Ok(ordered) => ordered.with_context(|| format!("no certificate from {}", section.directory))?,
            Err(_) => bail!("{} took longer than {}", section.directory, humantime::format_duration(ORDER_TIMEOUT)),
        };
        check(&pem)?;
        let (certificates, n) = (folder.clone(), taken.n);
        blocking(move || certificates.keep_certificate(n, pem.as_bytes())).await.context("can't keep the new certificate")
    };
    let ordered = ordered.await;
    let given_back = taken.released(ordered.is_ok(), now());
    give_back(&folder, &taken, &given_back).await;
    match ordered {
        Ok(()) => {
            let (_, seen, _) = look_at(&renewal.root, &section, &me).await?;
            serve(node, &folder, &seen).await?;
            let tidied = folder.clone();
            if let Err(error) = blocking(move || tidied.tidy()).await {
                tracing::warn!(error = format!("{error:#}"), "old certificates stay");
            }
            Ok(Outcome::Renewed)
        }
        Err(error) => {
            let (failures, next) = (given_back.failures, date(given_back.retry_at));
            tracing::error!(
                names = section.names.join(" "),
                failures,
                next,
                error = format!("{error:#}"),
                "no certificate by ACME; it is tried again by itself, or by `berth tls renew` once the reason is gone"
            );
            Err(error)
        }
    }
}

async fn give_back(folder: &Folder, held: &Claim, free: &Claim) {
    let (claims, old, new) = (folder.clone(), held.clone(), free.clone());
    match blocking(move || claims.swap(&old, &new)).await {
        Ok(Swapped::Won) => {}
        Ok(Swapped::Lost) => tracing::warn!("another node took over the claim to order a certificate: this one was thought to be gone"),
        Err(error) => tracing::warn!(error = format!("{error:#}"), "the claim to order a certificate is given back later"),
    }
}

/// The folder, made where it is missing, what is in it, and afterwards who is alive.
async fn look_at(
    root: &Root,
    section: &AcmeSection,
    me: &HolderId,
) -> anyhow::Result<(Folder, Seen, std::collections::BTreeSet<HolderId>)> {
    let (root, section, me) = (root.clone(), section.clone(), me.clone());
    let looked = tokio::task::spawn_blocking(move || {
        let folder = Folder::of(root.path(), &section)?;
        let seen = match folder.look()? {
            Some(seen) => seen,
            None => {
                folder.make(&me)?;
                folder.look()?.context("the folder acme/ can't be made")?
            }
        };
        // After the claim: a holder that is missing here had ended when, or after, it was seen there.
        let live = root.holders()?;
        anyhow::Ok((folder, seen, live))
    });
    looked.await?.context("can't look at acme/ on the shared directory")
}

/// Has the newest certificate served, unless it is already; gives what it says.
async fn serve(node: &Arc<Node>, folder: &Folder, seen: &Seen) -> anyhow::Result<Option<Facts>> {
    let (Some(tls), Some(newest)) = (node.tls.clone(), folder.certificate(seen)) else { return Ok(None) };
    let served = |newest: &Path| {
        let of_acme = tls.certificates().into_iter().find(|certificate| certificate.files.certificate == newest);
        of_acme.map(|certificate| certificate.facts.clone())
    };
    if let Some(facts) = served(&newest) {
        return Ok(Some(facts));
    }
    let (reloaded, config, root) = (tls.clone(), node.config(), node.renewal.root.path().to_owned());
    let done = tokio::task::spawn_blocking(move || reloaded.reload(&config.tls, &root)).await?;
    if let Err(error) = done {
        tracing::error!(error = format!("{error:#}"), "the certificate by ACME can't be served: another one is ordered");
        return Ok(None);
    }
    let facts = served(&newest);
    if let Some(facts) = &facts {
        tracing::info!(file = %newest.display(), names = facts.names.join(" "), until = date(facts.not_after), "serving a new certificate by ACME");
    }
    Ok(facts)
}

/// Whether what an authority sent can be served at all.
fn check(pem: &str) -> anyhow::Result<()> {
    crate::tls::certificate::check_pem(pem.as_bytes()).context("what the authority sent is no certificate for our key")
}

fn now() -> i64 {
    seconds(affinity::clock::wall_clock())
}

/// As in 2026-12-24T18:00:00Z.
pub fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "-".to_owned(), |time| time.to_string())
}
