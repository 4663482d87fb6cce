//! Quotas of users: where they come from, and who is told when one fills up.
//!
//! Invariants, each with the test that guards it:
//! - mail never waits for a warning command, and few run at once (`a_warning_command_is_bounded_in_time_and_number`)

use std::{
    collections::BTreeSet,
    process::Stdio,
    sync::{Arc, Weak},
    time::Duration,
};

use affinity::UserName;
use parking_lot::Mutex;
use storage::{Crossing, QuotaSettings, RootUsage};
use tokio::{
    process::Command,
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{
    Node,
    at_holder::{self, Answer},
};
use crate::{
    command::control::{self, QuotaReply, QuotaRow},
    config::Config,
    forward::{Held, accounts::Quotas, frames::Request},
};

/// How long a holder may take to open an account that nobody has, and to count what its index lost.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Warning commands that run at once: each is a process.
const RUNNING_MAX: usize = 4;
/// Wrong rules that are remembered as told.
const TOLD_MAX: usize = 10_000;
/// How often open accounts take over what the sources of users say now; a change of the settings at once.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(10);
/// Warnings that run or wait to; what is beyond is only logged.
const WAITING_MAX: usize = 256;

/// The quotas of a node's users.
#[derive(Debug)]
pub struct UserQuotas {
    node: Weak<Node>,
    commands: Commands,
    /// Complaints that are in the log already.
    told: Mutex<BTreeSet<(UserName, String)>>,
}

impl UserQuotas {
    /// Of this node.
    pub fn new(node: &Arc<Node>) -> UserQuotas {
        UserQuotas { node: Arc::downgrade(node), commands: Commands::default(), told: Mutex::default() }
    }
}

impl Quotas for UserQuotas {
    fn settings(&self, user: &UserName) -> Option<QuotaSettings> {
        let node = self.node.upgrade()?;
        let record = node.auth.known(user)?;
        let fields = record.fields().iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let (settings, complaints) = node.config().quota.for_user(fields);
        for complaint in complaints {
            // Rules are read again and again.
            let mut told = self.told.lock();
            if told.len() < TOLD_MAX && told.insert((user.clone(), complaint.clone())) {
                tracing::warn!(%user, complaint, "a quota rule of the user is left out");
            }
        }
        Some(settings)
    }

    fn default_settings(&self) -> QuotaSettings {
        self.node.upgrade().map(|node| node.config().quota.for_user(std::iter::empty()).0).unwrap_or_default()
    }

    fn crossed(&self, user: &UserName, crossing: Crossing) {
        let Crossing { root, percent, up, usage, limits } = &crossing;
        match up {
            true => tracing::warn!(%user, root, percent, bytes = usage.bytes, messages = usage.messages, ?limits, "quota fills up"),
            false => {
                tracing::info!(%user, root, percent, bytes = usage.bytes, messages = usage.messages, ?limits, "quota is below a threshold again")
            }
        }
        if let Some(node) = self.node.upgrade() {
            let config = node.config();
            self.commands.start(&config.quota.warning_command, arguments(user, &crossing), config.quota.warning_timeout);
        }
    }
}

/// What `quota.warning_command` is told.
fn arguments(user: &UserName, crossing: &Crossing) -> Vec<String> {
    let limit = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
    vec![
        user.to_string(),
        crossing.root.clone(),
        crossing.percent.to_string(),
        if crossing.up { "up" } else { "down" }.to_owned(),
        crossing.usage.bytes.to_string(),
        limit(crossing.limits.bytes),
        crossing.usage.messages.to_string(),
        limit(crossing.limits.messages),
    ]
}

/// What a user holds, as the holder says; whom nobody holds is opened by whoever is to have them.
pub async fn of(node: &Arc<Node>, user: &UserName, recount: bool) -> Result<QuotaReply, String> {
    let request = || Request::Quota { user: user.clone(), recount };
    let limit = if recount { control::RECOUNT_WAIT } else { ANSWER_LIMIT };
    match at_holder::ask(node, user, request, limit).await? {
        Answer::Here(held) => report(node, &held, recount).await,
        Answer::There(reply) => Ok(reply),
    }
}

/// The same on the holder.
pub async fn report(node: &Arc<Node>, held: &Held, recount: bool) -> Result<QuotaReply, String> {
    let counted = held.run(move |account| {
        let corrected = if recount { account.recount()? } else { Vec::new() };
        Ok((account.quota(None)?, corrected))
    });
    let (roots, corrected) = counted.await.map_err(|error| error.to_string())?;
    let row = |root: RootUsage| QuotaRow {
        root: root.name,
        bytes: root.usage.bytes,
        bytes_limit: root.limits.bytes,
        messages: root.usage.messages,
        messages_limit: root.limits.messages,
        mailboxes: root.mailboxes,
        enforced: root.enforced,
        source: root.source.map(|source| source.as_str().to_owned()),
    };
    Ok(QuotaReply {
        holder: node.keeper.me().node.to_string(),
        roots: roots.into_iter().map(row).collect(),
        corrected: corrected.iter().map(ToString::to_string).collect(),
    })
}

/// Commands on their way.
#[derive(Debug)]
struct Commands {
    waiting: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Default for Commands {
    fn default() -> Commands {
        Commands { waiting: Arc::new(Semaphore::new(WAITING_MAX)), running: Arc::new(Semaphore::new(RUNNING_MAX)) }
    }
}

impl Commands {
    fn start(&self, command: &[String], arguments: Vec<String>, limit: Duration) {
        let Some((program, first)) = command.split_first() else { return };
        let (program, first) = (program.clone(), first.to_vec());
        let Ok(waiting) = self.waiting.clone().try_acquire_owned() else {
            tracing::warn!(program, "too many warnings wait: this one is only logged");
            return;
        };
        let running = self.running.clone();
        tokio::spawn(async move {
            let _waiting = waiting;
            let Ok(_running) = running.acquire_owned().await else { return };
            let mut command = Command::new(&program);
            command.args(&first).args(&arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
            let finished = match command.spawn() {
                Ok(mut child) => timeout(limit, child.wait()).await,
                Err(error) => Ok(Err(error)),
            };
            match finished {
                Ok(Ok(status)) if status.success() => {}
                Ok(Ok(status)) => tracing::warn!(program, ?arguments, %status, "the warning command failed"),
                Ok(Err(error)) => tracing::warn!(program, ?arguments, %error, "the warning command can't be run"),
                Err(_) => {
                    tracing::warn!(program, ?arguments, limit = %humantime::format_duration(limit), "the warning command took too long and was killed")
                }
            }
        });
    }
}

/// Follows changes of users and settings; called every second.
#[derive(Debug, Default)]
pub struct Follower {
    seen: Option<(Instant, Arc<Config>)>,
}

impl Follower {
    /// Has open accounts follow what may have changed since the last call.
    pub fn follow(&mut self, node: &Arc<Node>) {
        let config = node.config();
        let fresh = |(at, seen): &(Instant, Arc<Config>)| at.elapsed() < FOLLOW_INTERVAL && Arc::ptr_eq(seen, &config);
        if !self.seen.as_ref().is_some_and(fresh) {
            self.seen = Some((Instant::now(), config));
            node.accounts.refresh_quotas();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_warning_command_is_bounded_in_time_and_number() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let script = format!("echo \"$@\" >> {}; sleep 100", log.display());
        let command: Vec<String> = ["/bin/sh", "-c", &script, "sh"].map(str::to_owned).into();
        let commands = Commands::default();
        let began = Instant::now();
        for number in 0..WAITING_MAX + 10 {
            commands.start(&command, vec![number.to_string(), "up".to_owned()], Duration::from_millis(300));
        }
        assert!(began.elapsed() < Duration::from_millis(300), "who starts them does not wait");
        let lines = || std::fs::read_to_string(&log).unwrap_or_default().lines().count();
        while lines() < RUNNING_MAX {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(commands.running.available_permits(), 0);
        assert_eq!(commands.waiting.available_permits(), 0);
        while lines() <= RUNNING_MAX {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(began.elapsed() >= Duration::from_millis(300), "the next ones ran only once those before were killed");
    }
}
