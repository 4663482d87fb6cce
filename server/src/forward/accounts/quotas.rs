//! Quotas of the accounts that are open here: they follow what the sources of users say, and crossings are told.

use std::sync::Arc;

use affinity::UserName;
use storage::{Crossing, MailboxName, QuotaSettings, StorageError};

use super::Accounts;
use crate::forward::held::OpenAccount;

/// What the node knows of its users' quotas.
pub trait Quotas: std::fmt::Debug + Send + Sync {
    /// What holds for `user` now.
    fn settings(&self, user: &UserName) -> QuotaSettings;
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

    /// Has every open account follow quotas that may have changed.
    pub fn refresh_quotas(self: &Arc<Self>) {
        let open: Vec<Arc<OpenAccount>> = self.open.lock().values().cloned().collect();
        let accounts = self.clone();
        tokio::task::spawn_blocking(move || {
            let Some(quotas) = accounts.quotas.get() else { return };
            for open in open.into_iter().filter(|open| open.is_usable()) {
                if let Err(error) = open.account.set_quota(&quotas.settings(open.account.user())) {
                    tracing::debug!(user = %open.account.user(), %error, "keeps its quota for now");
                }
            }
        });
    }

    /// Whether a message for the user would fit nowhere of `targets`; `false` where that is not known, as for users that are open elsewhere.
    pub fn is_full(&self, user: &UserName, targets: &[MailboxName], bytes: u64) -> bool {
        let open = self.open.lock().get(user).filter(|open| open.is_usable()).cloned();
        let is_full = |open: &OpenAccount, target| matches!(open.account.has_room(target, bytes), Err(StorageError::OverQuota { .. }));
        open.is_some_and(|open| targets.iter().all(|target| is_full(&open, target)))
    }
}
