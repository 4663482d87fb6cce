//! Quotas of the accounts that are open here: they follow what the sources of users say, and crossings are told.
//!
//! Invariants, each with the test that guards it:
//! - what is not known changes no quota (`a_quota_stays_while_nothing_is_known_of_its_user`)
//! - they are followed by one thread at a time, however long that takes (`quotas_are_followed_by_one_thread_at_a_time`)

use std::sync::{Arc, atomic::Ordering};

use affinity::UserName;
use storage::{Crossing, MailboxName, QuotaSettings, StorageError};

use super::Accounts;
use crate::forward::held::OpenAccount;

/// What the node knows of its users' quotas.
pub trait Quotas: std::fmt::Debug + Send + Sync {
    /// What holds for `user` as far as their source said; `None`: nothing is known of them now, so what was known holds.
    fn settings(&self, user: &UserName) -> Option<QuotaSettings>;
    /// What holds for users of whom nothing is known.
    fn default_settings(&self) -> QuotaSettings;
    /// A threshold was crossed. Does not wait.
    fn crossed(&self, user: &UserName, crossing: Crossing);
}

impl Accounts {
    pub(super) fn tell_crossings(&self, account: &OpenAccount) {
        let Some(quotas) = self.quotas.get() else { return };
        for crossing in account.account.quota_crossings() {
            quotas.crossed(account.account.user(), crossing);
        }
    }

    /// Where quotas come from; once.
    pub fn set_quotas(&self, quotas: Box<dyn Quotas>) {
        if self.quotas.set(quotas).is_err() {
            tracing::error!("the source of quotas was set already");
        }
    }

    /// What holds for an account that is being opened.
    pub(super) fn quota_at_opening(&self, user: &UserName) -> QuotaSettings {
        self.quotas.get().map(|quotas| quotas.settings(user).unwrap_or_else(|| quotas.default_settings())).unwrap_or_default()
    }

    /// Has every open account follow quotas that may have changed, unless the last time still waits for a file server; whether it began.
    pub fn refresh_quotas(self: &Arc<Self>) -> bool {
        if self.quotas_refreshing.swap(true, Ordering::SeqCst) {
            return false;
        }
        let open: Vec<Arc<OpenAccount>> = self.open.lock().values().cloned().collect();
        let accounts = self.clone();
        let following = tokio::task::spawn_blocking({
            let accounts = accounts.clone();
            move || {
                let Some(quotas) = accounts.quotas.get() else { return };
                for open in open.into_iter().filter(|open| open.is_usable()) {
                    let Some(settings) = quotas.settings(open.account.user()) else { continue };
                    if let Err(error) = open.account.set_quota(&settings) {
                        tracing::debug!(user = %open.account.user(), %error, "keeps its quota for now");
                    }
                }
            }
        });
        tokio::spawn(async move {
            if let Err(panic) = following.await {
                tracing::error!(%panic, "following quotas failed unexpectedly");
            }
            accounts.quotas_refreshing.store(false, Ordering::SeqCst);
        });
        true
    }

    /// Whether a message for the user would fit nowhere of `targets`; `false` where that is not known, as for users that are open elsewhere.
    pub fn is_full(&self, user: &UserName, targets: &[MailboxName], bytes: u64) -> bool {
        let open = self.open.lock().get(user).filter(|open| open.is_usable()).cloned();
        let is_full = |open: &OpenAccount, target| matches!(open.account.has_room(target, bytes), Err(StorageError::OverQuota { .. }));
        open.is_some_and(|open| targets.iter().all(|target| is_full(&open, target)))
    }
}
