//! `[quota]`: how much users may hold.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use storage::{MAIN_ROOT, MailboxName, QuotaRules, QuotaSettings};

/// `[quota]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaSection {
    /// For users without rules of their own, as in `*:bytes=1G`.
    pub rules: Vec<String>,
    /// Roots beside that of all mailboxes, by name.
    pub roots: BTreeMap<String, QuotaRootSection>,
    /// Take limits from `maildirsize` where no rule has any.
    pub limits_from_maildirsize: bool,
    /// Percentages that are told when they are crossed.
    pub warn_at: Vec<u64>,
    /// What is run then; empty: nothing.
    pub warning_command: Vec<String>,
    /// How long it may take.
    #[serde(with = "humantime_serde")]
    pub warning_timeout: Duration,
}

/// One of `quota.roots`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaRootSection {
    /// Counts this mailbox and those below.
    pub mailbox: String,
    /// What it may hold.
    #[serde(default)]
    pub rules: Vec<String>,
    /// Whether mail is refused when it is full.
    #[serde(default = "yes")]
    pub enforced: bool,
}

fn yes() -> bool {
    true
}

impl Default for QuotaSection {
    fn default() -> Self {
        QuotaSection {
            rules: Vec::new(),
            roots: BTreeMap::new(),
            limits_from_maildirsize: false,
            warn_at: vec![80, 95],
            warning_command: Vec::new(),
            warning_timeout: Duration::from_secs(60),
        }
    }
}

impl QuotaSection {
    /// What is wrong with it.
    pub(super) fn check(&self, say: &mut impl FnMut(&'static str, String)) {
        let mut wrong = Vec::new();
        self.read(&mut |key, text| wrong.push((key, text)));
        for (key, text) in wrong {
            say(key, text);
        }
        if self.warn_at.contains(&0) {
            say("quota.warn_at", "0 % is always reached: write percentages from 1".to_owned());
        }
        if self.warning_timeout.is_zero() {
            say("quota.warning_timeout", "must be longer than zero".to_owned());
        }
    }

    /// What holds for a user with these fields of the users file; and what of them can't be read.
    pub fn for_user<'a>(&self, fields: impl Iterator<Item = (&'a str, &'a str)>) -> (QuotaSettings, Vec<String>) {
        // What is wrong with the settings was said when they were read.
        let (rules, complaints) = self.read(&mut |_, _| {}).with_fields(fields);
        let mut thresholds = self.warn_at.clone();
        thresholds.sort_unstable();
        thresholds.dedup();
        (QuotaSettings { rules, thresholds: thresholds.into(), limits_from_maildirsize: self.limits_from_maildirsize }, complaints)
    }

    fn read(&self, say: &mut impl FnMut(&'static str, String)) -> QuotaRules {
        let mut rules = QuotaRules::default();
        for rule in &self.rules {
            if let Err(why) = rules.set(MAIN_ROOT, rule) {
                say("quota.rules", format!("{rule:?}: {why}"));
            }
        }
        for (name, root) in &self.roots {
            let made = MailboxName::parse(&root.mailbox).map_err(|error| error.to_string()).and_then(|below| {
                if name == MAIN_ROOT {
                    Err(format!("{name:?} is the root of all mailboxes"))
                } else {
                    rules.set_root(name, below, root.enforced)
                }
            });
            if let Err(why) = made {
                say("quota.roots", format!("{name}: {why}"));
                continue;
            }
            for rule in &root.rules {
                if let Err(why) = rules.set(name, rule) {
                    say("quota.roots", format!("{name}, {rule:?}: {why}"));
                }
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_can_not_be_read_are_told() {
        let root = |mailbox: &str, rule: &str| QuotaRootSection { mailbox: mailbox.into(), rules: vec![rule.into()], enforced: true };
        let section = QuotaSection {
            rules: vec!["*:bytes=1G".into(), "Trash=+10%".into()],
            roots: [("a".into(), root("x//y", "*:bytes=1")), ("b".into(), root("x", "*:bytes=soon")), ("c".into(), root("x", "*:bytes=1"))]
                .into(),
            warn_at: vec![0],
            warning_timeout: Duration::ZERO,
            ..QuotaSection::default()
        };
        let mut said = Vec::new();
        section.check(&mut |key, _| said.push(key));
        assert_eq!(said, ["quota.rules", "quota.roots", "quota.roots", "quota.warn_at", "quota.warning_timeout"]);
    }
}
