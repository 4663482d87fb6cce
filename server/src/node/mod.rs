//! One running node: what all its sessions share, and its life from join to leave.
//!
//! - `socket.rs` listens, `listener.rs` accepts clients, `admission.rs` counts them, `proxy.rs` reads who is behind a load balancer, `probe.rs` tells balancers how this node is
//! - `sessions.rs` lists who is served here, `control.rs` answers `berth nodes` and `berth who`
//! - `expiry.rs` removes old messages, `certificates.rs` warns of certificates that end
//! - `operate.rs` does what operators ask of nodes, `health.rs` looks for what keeps this one from serving
//! - `cache.rs` opens the local cache and says what it is good for
//! - `quota.rs` knows users' quotas and tells when one fills up
//! - `vital.rs` ends the node where a task ends that it can't do without
//! - `reload.rs` follows changes of configuration, users and certificates

pub mod admission;
pub mod at_holder;
pub mod cache;
pub mod certificates;
pub mod control;
pub mod expiry;
pub mod health;
pub mod index;
pub mod listener;
pub mod operate;
pub mod probe;
pub mod proxy;
pub mod quota;
pub mod reload;
pub mod sessions;
pub mod socket;
pub mod traffic;
pub mod vital;

use std::{
    collections::HashMap,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use affinity::{
    Ending, Event, HolderId, Keeper, KeeperConfig, NodeInfo, NodeName, Root, SystemClock, UserName, ending::STOOD_STILL_ADVICE,
};
use anyhow::Context;
use arc_swap::ArcSwap;
use futures::FutureExt;
use parking_lot::Mutex;
use storage::{AccountPaths, Cache, MailboxName, SpecialUse, StorageSettings, shares::SharesFolder};
use tokio::{sync::broadcast::error::RecvError, time::MissedTickBehavior};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    acme::{Renewal, renewal},
    auth::Authenticator,
    client::Protocol,
    config::{Address, Config},
    forward::{
        RouteError,
        accounts::{self, Accounts},
        goodbyes::{ENDED, Goodbyes},
        identity::Published,
        link,
        link::Links,
        placing::Placing,
        waiting::Waiting,
    },
    lmtp::{Deliveries, Profile},
    node::{
        admission::Admission,
        health::Health,
        listener::{Door, Security},
        probe::Speaks,
        sessions::Sessions,
        socket::{Activated, Socket},
        vital::Vital,
    },
    pop3::MaildropLocks,
    pressure, sandbox,
    tls::Tls,
};

/// How often accounts are asked for due background work.
const WORK_INTERVAL: Duration = Duration::from_millis(200);
/// How often nodes tell each other of failed logins: guesses come faster, but each waits for its delay.
const SHARE_INTERVAL: Duration = Duration::from_secs(1);
/// How often idle accounts are looked for.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// How often nodes ask each other over the relay how many users they hold, for the log line of the one that dies: no request to the shared directory.
const ASK_INTERVAL: Duration = Duration::from_secs(10);
/// How long a leaving node may take to close its accounts: service managers kill after 90 s.
const LEAVE_LIMIT: Duration = Duration::from_secs(60);
/// Two requests per open mailbox, for two minutes after an unclean takeover.
const LATE_LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// How long a finished change waits to be acknowledged during an outage of the file server: clients wait longer than a server needs to restart.
pub const SUSPENDED_WAIT: Duration = Duration::from_secs(300);
/// What a message may grow by on its way to the store, which doors have let in by its size: trace fields and repaired line ends.
const TRACE_BYTES: u64 = 64 * 1024;
/// How long sessions may take to say goodbye.
const GOODBYE_LIMIT: Duration = Duration::from_secs(3);

/// What all sessions of this process share.
pub struct Node {
    /// The present settings; take one snapshot per command, a reload may change it.
    pub config: ArcSwap<Config>,
    /// Where the settings came from.
    pub config_file: PathBuf,
    /// Logins and recipients.
    pub auth: Authenticator,
    /// `None`: no certificate is configured, STARTTLS is not offered.
    pub tls: Option<Tls>,
    /// The certificate that nodes get themselves.
    pub renewal: Renewal,
    /// Membership and leases.
    pub keeper: Keeper,
    /// Accounts open here.
    pub accounts: Arc<Accounts>,
    /// Mail on a disk of this host.
    pub cache: Option<Arc<Cache>>,
    /// Links to other nodes.
    pub links: Links,
    /// How many users each node held when it last said so; what its log line says when it dies.
    pub last_held: Mutex<HashMap<HolderId, usize>>,
    /// Why holders ended sessions that are relayed here.
    pub goodbyes: Goodbyes,
    /// Who waits for holders that give no sign of life.
    pub waiting: Waiting,
    /// What users share with each other.
    pub shares: SharesFolder,
    /// Sessions served here.
    pub sessions: Sessions,
    /// POP3's exclusive access.
    pub maildrop_locks: MaildropLocks,
    /// Deliveries that are under way, and those of late.
    pub deliveries: Arc<Deliveries>,
    /// Connections, counted.
    pub admission: Admission,
    /// What keeps this node from serving.
    pub health: Health,
    /// Tasks without which it is no node.
    pub vital: Vital,
    /// Connection tasks.
    pub tasks: TaskTracker,
    /// Cancelled: no new connections.
    pub stop_listening: CancellationToken,
    /// Cancelled: relayed sessions end too.
    pub stop_sessions: CancellationToken,
}

impl Node {
    /// The present settings.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Where a user's mail is, by the settings and by what the sources say of them. Whom this node's sources do not know (any more, or not yet) it opens nothing
    /// for: what the settings alone say may be another place (`a_node_that_does_not_know_a_user_takes_no_mail_for_them`).
    pub async fn account_paths(&self, user: &UserName) -> Result<AccountPaths, RouteError> {
        let unclear = |reason: String| RouteError::Users { user: user.clone(), reason };
        let record = self.auth.record(user).await.map_err(|error| unclear(error.to_string()))?;
        let Some(record) = record else { return Err(unclear("no source of this node knows them".to_owned())) };
        let paths = self.config().account_paths(user, Some(&record)).map_err(unclear)?;
        for path in [Some(&paths.maildir), Some(&paths.index), paths.inbox.as_ref()].into_iter().flatten() {
            if !sandbox::permits(path) {
                return Err(unclear(format!("{} is outside of this node's sandbox: add it to node.sandbox_paths", path.display())));
            }
        }
        Ok(paths)
    }
}

/// Runs a node until SIGTERM or SIGINT (`Ok`), or until it can't go on (`Err`); with `stop_at_end_of_input` also until standard input ends.
pub async fn run(config: Config, config_file: &Path, stop_at_end_of_input: bool) -> anyhow::Result<()> {
    let node = start(config, config_file).await?;
    let outcome = live(&node, stop_at_end_of_input).await;
    leave(&node).await;
    outcome
}

async fn start(config: Config, config_file: &Path) -> anyhow::Result<Arc<Node>> {
    let local_dir = config.node.local_dir.clone();
    std::fs::create_dir_all(&local_dir).with_context(|| format!("can't make the local folder {} (node.local_dir)", local_dir.display()))?;
    health::check::raise_descriptor_limit(config.limits.connections);
    let root = Root::open(&config.node.root, config.node.cluster_id.as_deref())?;
    let tls = Tls::load(&config.tls, root.path())?;
    let renewal = Renewal::new(&root);
    if let Some(missing) = config.auth.missing_databases().into_iter().next() {
        anyhow::bail!(missing);
    }
    let auth = Authenticator::open(&config.auth, config.passwd_file())?
        .of_cluster(&root.cluster().cluster_id)
        .with_app_passwords(config.app_password_file());

    // Bind everything before joining: a node that can't listen must not take leases.
    let relay = listener::bind(config.listen.relay)?;
    let relay_address = relay.local_addr()?;
    let mut listeners = Vec::new();
    for (addresses, protocol, security) in [
        (&config.listen.imap, Protocol::Imap, Security::Plain),
        (&config.listen.imaps, Protocol::Imap, Security::ImplicitTls),
        (&config.listen.pop3, Protocol::Pop3, Security::Plain),
        (&config.listen.pop3s, Protocol::Pop3, Security::ImplicitTls),
    ] {
        for address in addresses {
            if security == Security::ImplicitTls && tls.is_none() {
                tracing::warn!(%address, %protocol, "not listening: TLS needs [tls] certificate and key");
                continue;
            }
            let door = Door { protocol, security, proxied: config.listen.takes_proxies(*address), profile: Profile::Inbox };
            listeners.push((Socket::Tcp(listener::bind(*address)?), door));
        }
    }
    let mut activated = Activated::from_environment();
    for (addresses, profile) in [(&config.listen.lmtp, Profile::Inbox), (&config.listen.sent, Profile::Sent)] {
        for address in addresses {
            let proxied = matches!(address, Address::Tcp(address) if config.listen.takes_proxies(*address));
            let door = Door { protocol: Protocol::Lmtp, security: Security::Plain, proxied, profile };
            listeners.extend(socket::open(address, &config.lmtp, &mut activated)?.into_iter().map(|socket| (socket, door)));
        }
    }
    let mut probes = Vec::new();
    for (addresses, speaks) in
        [(&config.listen.health, Speaks::Http), (&config.listen.health_agent, Speaks::Agent), (&config.listen.acme, Speaks::Acme)]
    {
        for address in addresses {
            probes.push((listener::bind(*address)?, speaks));
        }
    }

    let advertise = if config.node.advertise.is_empty() { vec![relay_address.to_string()] } else { config.node.advertise.clone() };
    let info = NodeInfo {
        relay: advertise,
        // That of each incarnation.
        certificate_pin: String::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: vec!["relay/1".to_owned(), ENDED.to_owned()],
        started: affinity::clock::wall_clock().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    };
    let published = Arc::new(Published::new(info)?);
    let timings = root.cluster().timings.clone();
    let cache = tokio::task::spawn_blocking({
        let (section, cluster) = (config.cache.clone(), root.cluster().cluster_id.clone());
        move || cache::open(&section, &cluster)
    })
    .await?;
    let storage = storage_settings(&config, timings.dead_after(), cache.clone())?;
    let (node, clock) = (config.node.name.clone(), Arc::new(SystemClock::new()));
    let keeper_config = KeeperConfig { root, node, lock_dir: local_dir.clone(), info: published.clone(), clock };
    let keeper = tokio::task::spawn_blocking(move || Keeper::join(keeper_config)).await??;
    tracing::info!(node = %keeper.me(), root = %config.node.root.display(), "joined the cluster");

    let root_path = config.node.root.clone();
    let health = Health::default();
    let placing = Placing::new(keeper.clone(), {
        let auth = auth.clone();
        move |user| auth.wish(user)
    });
    let node = Arc::new(Node {
        accounts: Arc::new(Accounts::new(keeper.clone(), placing, health.evidence(), Arc::new(storage), config.limits.parallel_moves)),
        cache,
        config: ArcSwap::from_pointee(config),
        config_file: config_file.to_owned(),
        auth,
        tls,
        renewal,
        keeper,
        links: Links::new(published),
        last_held: Mutex::default(),
        goodbyes: Goodbyes::default(),
        waiting: Waiting::default(),
        shares: SharesFolder::new(&root_path),
        sessions: Sessions::default(),
        maildrop_locks: MaildropLocks::default(),
        deliveries: Arc::default(),
        admission: Admission::default(),
        health,
        vital: Vital::default(),
        tasks: TaskTracker::new(),
        stop_listening: CancellationToken::new(),
        stop_sessions: CancellationToken::new(),
    });
    node.accounts.set_quotas(Box::new(quota::UserQuotas::new(&node)));
    // Events first: a fence between here and the first session must not be missed.
    let events = node.keeper.events();
    node.vital.run("the keeper's events", node.stop_listening.clone(), watch_events(node.clone(), events).map(Ok));
    node.vital.run("the shared directory's threads", node.stop_listening.clone(), {
        let keeper = node.keeper.clone();
        async move { anyhow::bail!(keeper.broken().await) }
    });
    node.vital.run("the relay", node.stop_sessions.clone(), link::listen(node.clone(), relay, node.stop_sessions.clone()));
    tokio::spawn(operate::greet(node.clone()));
    control::listen(node.clone(), local_dir.join("control.sock")).await?;
    for (listener, door) in listeners {
        let address = listener.name();
        tracing::info!(protocol = %door.protocol, address, tls = door.security == Security::ImplicitTls, "listening");
        tokio::spawn(listener::run(node.clone(), listener, door));
    }
    for (listener, speaks) in probes {
        tracing::info!(address = %listener.local_addr()?, ?speaks, "answering health checks");
        tokio::spawn(probe::run(node.clone(), listener, speaks));
    }
    tokio::spawn(pressure::measure());
    node.vital.run("housekeeping", node.stop_listening.clone(), housekeeping(node.clone()));
    tokio::spawn(health::trial::at_start(node.clone()));
    tokio::spawn(expiry::run(node.clone()));
    tokio::spawn(certificates::follow(node.clone()));
    tokio::spawn(renewal::follow(node.clone()));
    Ok(node)
}

/// The largest message that the store takes.
fn stored_bytes_max(config: &Config) -> u64 {
    config.limits.message_bytes.as_u64().saturating_add(TRACE_BYTES)
}

/// What the store wants to know of the configuration.
fn storage_settings(config: &Config, settle_after: Duration, cache: Option<Arc<Cache>>) -> anyhow::Result<StorageSettings> {
    storage::watch::limit(config.mail.watches);
    let mut auto_create = Vec::new();
    for (name, special_use) in &config.mail.auto_create {
        let name = MailboxName::parse(name).with_context(|| format!("mail.auto_create: {name:?} can't be a mailbox"))?;
        auto_create.push((name, SpecialUse::parse(special_use)));
    }
    Ok(StorageSettings {
        node: config.node.name.clone(),
        auto_create,
        auto_subscribe: config.mail.auto_subscribe,
        message_bytes_max: stored_bytes_max(config).into(),
        mailboxes_max: config.limits.mailboxes,
        write_back_after: config.mail.write_back_after,
        rescan_interval: config.mail.rescan_interval,
        parallel_operations: 32,
        settle_after,
        late_look_interval: LATE_LOOK_INTERVAL,
        suspended_wait: SUSPENDED_WAIT,
        cache,
    })
}

/// Until a signal, or until another host has taken our name.
async fn live(node: &Arc<Node>, stop_at_end_of_input: bool) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut events = node.keeper.events();
    let reloads = tokio::spawn(reload::follow(node.clone()));
    let input_end = CancellationToken::new();
    if stop_at_end_of_input {
        let input_end = input_end.clone();
        // A thread of its own: a read of standard input can't be cancelled.
        std::thread::spawn(move || {
            while std::io::stdin().read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
            input_end.cancel();
        });
    }
    let outcome = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            () = input_end.cancelled() => break Ok(()),
            why = node.vital.ended() => break Err(anyhow::anyhow!("this node can't go on without a task that has ended ({why}): start it again, and report this")),
            event = events.recv() => match event {
                Ok(Event::NameTaken { theirs, at }) => break Err(affinity::AffinityError::NameTaken { ours: node.keeper.me(), theirs, at }.into()),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break Err(anyhow::anyhow!("the node's beat has ended")),
            },
        }
    };
    reloads.abort();
    outcome
}

/// Closes and releases everything, then leaves the cluster.
async fn leave(node: &Arc<Node>) {
    tracing::info!(accounts = node.accounts.count(), sessions = node.sessions.count(), "leaving: accounts are closed and handed on");
    node.stop_listening.cancel();
    let why = "this server is shutting down, please connect again";
    // Sessions that other nodes serve end as well: whoever serves them says why.
    tokio::join!(node.accounts.close_all(why, LEAVE_LIMIT), operate::end_relayed(node, why));
    node.stop_sessions.cancel();
    cache::say_figures(node.cache.as_deref());
    node.tasks.close();
    if tokio::time::timeout(GOODBYE_LIMIT, node.tasks.wait()).await.is_err() {
        tracing::info!(connections = node.tasks.len(), "connections that did not end in time are cut");
    }
    let is_out = node.keeper.tenure().is_over();
    match tokio::time::timeout(LEAVE_LIMIT, node.keeper.leave()).await {
        // As where another host has its name.
        Ok(_) if is_out => tracing::info!(node = %node.keeper.me(), "this node was out of the cluster already"),
        Ok(Ok(())) => tracing::info!(node = %node.keeper.me(), "left the cluster"),
        Ok(Err(error)) => tracing::warn!(%error, "could not leave the cluster cleanly: the other nodes fence this one"),
        Err(_) => tracing::warn!("the shared directory does not answer: the other nodes fence this one"),
    }
}

async fn housekeeping(node: Arc<Node>) -> anyhow::Result<()> {
    let mut work = tokio::time::interval(WORK_INTERVAL);
    let mut idle = tokio::time::interval(IDLE_INTERVAL);
    let mut quotas = quota::Follower::default();
    let mut looks = tokio::spawn(health::follow(node.clone()));
    let mut shares = tokio::spawn({
        let node = node.clone();
        let mut share = tokio::time::interval(SHARE_INTERVAL);
        share.set_missed_tick_behavior(MissedTickBehavior::Delay);
        async move {
            loop {
                share.tick().await;
                operate::share_failures(&node).await;
            }
        }
    });
    let mut asks = tokio::spawn({
        let node = node.clone();
        let mut ask = tokio::time::interval(ASK_INTERVAL);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        async move {
            loop {
                ask.tick().await;
                operate::status_everywhere(&node).await;
            }
        }
    });
    loop {
        tokio::select! {
            _ = work.tick() => node.accounts.work(),
            _ = idle.tick() => {
                let config = node.config();
                node.links.retain(&node.keeper.peers());
                operate::follow(&node);
                quotas.follow(&node);
                node.accounts.close_idle(config.mail.linger, |user| {
                    let node = node.clone();
                    async move { node.account_paths(&user).await }.boxed()
                });
            }
            ended = &mut looks => anyhow::bail!("looking after health ended: {ended:?}"),
            ended = &mut asks => anyhow::bail!("asking other nodes ended: {ended:?}"),
            ended = &mut shares => anyhow::bail!("sharing failed logins ended: {ended:?}"),
            () = node.stop_listening.cancelled() => {
                looks.abort();
                shares.abort();
                asks.abort();
                return Ok(());
            }
        }
    }
}

/// Acts on what the keeper reports, and says it in the log.
async fn watch_events(node: Arc<Node>, mut events: tokio::sync::broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(Event::TenureOver { tenure, stood_still }) => {
                let (sessions, accounts) = (node.sessions.count(), node.accounts.count());
                node.accounts.abandon(&tenure, if stood_still.is_some() { accounts::STOOD_STILL } else { accounts::LOST });
                tracing::error!(was = %tenure.holder(), accounts, sessions, "this node's leases are gone: its sessions end, nothing more is written under that tenure");
            }
            // Told with the address, once it is known.
            Ok(Event::Ended(end)) if end.ending == Ending::NameTaken => {}
            Ok(Event::Ended(end)) => tracing::error!("{end}"),
            Ok(Event::Rejoined(me)) => {
                node.links.end_earlier(node.keeper.stood_still());
                tracing::warn!(%me, "joined again as a new incarnation");
            }
            Ok(Event::Suspended { stood_still: Some(time) }) => tracing::error!(
                "this process stood still for {:.1} s: nothing is acknowledged until it has given a sign of life. The others fence it if they did not see one \
                 in time; {STOOD_STILL_ADVICE}",
                time.as_secs_f64()
            ),
            Ok(Event::Suspended { stood_still: None }) => {
                tracing::error!("no contact with the shared directory: nothing is acknowledged until it is back");
            }
            Ok(Event::Resumed) => {
                tracing::warn!("signs of life reach the shared directory again, nobody fenced this node: all sessions go on")
            }
            Ok(Event::NodeUp(peer)) => tracing::info!(%peer, "node up"),
            // What became of an earlier start of this node was told.
            Ok(Event::NodeDown { holder, .. }) if holder.node == node.keeper.me().node => {}
            Ok(Event::NodeDown { holder, ending, silent_for }) => {
                let held = node.last_held.lock().remove(&holder);
                say_gone(&holder, &ending, silent_for, held);
            }
            // What becomes of it is told when it is known: one death is one line.
            Ok(Event::NodeSuspect(_) | Event::Fenced(_)) => {}
            Ok(Event::Acquired { user, epoch, handover }) => tracing::info!(%user, %epoch, ?handover, "lease acquired"),
            Ok(Event::Released { user, epoch }) => tracing::info!(%user, %epoch, "lease released"),
            Ok(Event::NameTaken { theirs, at }) => tracing::error!(%theirs, at, "another host runs under this node's name"),
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "events were missed; what is over is abandoned all the same");
                node.accounts.abandon_ended();
                node.links.end_earlier(node.keeper.stood_still());
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// One line for the end of another node: what was meant is no warning.
fn say_gone(holder: &HolderId, ending: &Ending, silent_for: Duration, held: Option<usize>) {
    let node = &holder.node;
    let told = gone(node, ending, silent_for);
    match (ending, held) {
        (Ending::Left, _) => tracing::info!(peer = %holder, "{told}"),
        (_, None) => tracing::warn!(peer = %holder, "{told}"),
        (_, Some(held)) => tracing::warn!(peer = %holder, "{told}; it held about {held} user{}", if held == 1 { "" } else { "s" }),
    }
}

fn gone(node: &NodeName, ending: &Ending, silent_for: Duration) -> String {
    let seconds = silent_for.as_secs();
    match ending {
        Ending::Left => format!("{node} left (stopped)"),
        Ending::Restarted => format!("{node} ended without leaving (crashed or killed) and was started again"),
        Ending::Fenced { by } => {
            format!("{node} gave no sign of life for {seconds} s and was fenced by {by}: its users can be served elsewhere now")
        }
        Ending::Operator => format!("{node} was fenced by an operator"),
        Ending::Resigned => format!("{node} gave its users up, since it could not hand them over, and joins anew: its log says why"),
        Ending::NameTaken => {
            format!("{node} runs on another host now, or was started after that host had booted: the start before it is over")
        }
        Ending::Unknown => format!("{node} is gone; how it ended is not known"),
    }
}
