//! `[expiry]`: how long messages stay.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use storage::ExpiryRule;

/// `[expiry]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExpirySection {
    /// As in `Trash 30d`.
    pub rules: Vec<String>,
    /// Each user is visited once in this time.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
}

impl Default for ExpirySection {
    fn default() -> Self {
        ExpirySection { rules: Vec::new(), interval: Duration::from_secs(24 * 60 * 60) }
    }
}

impl ExpirySection {
    /// What is wrong with it.
    pub(super) fn check(&self, say: &mut impl FnMut(&'static str, String)) {
        for rule in &self.rules {
            if let Err(why) = ExpiryRule::parse(rule) {
                say("expiry.rules", format!("{rule:?}: {why}"));
            }
        }
        if self.interval < Duration::from_secs(1) {
            say("expiry.interval", "must be 1s at least".to_owned());
        }
    }

    /// The rules, which were checked when they were read.
    pub fn parsed(&self) -> Arc<[ExpiryRule]> {
        self.rules.iter().filter_map(|rule| ExpiryRule::parse(rule).ok()).collect()
    }
}
