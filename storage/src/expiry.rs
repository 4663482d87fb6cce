//! Expiry: old messages of some mailboxes are removed, as an EXPUNGE removes them.
//!
//! Invariants, each with the test that guards it:
//! - a message goes when its age is reached and not before, by the date that its rule names (`messages_go_when_their_age_is_reached`)

use std::{sync::Arc, time::Duration};

use index::Uid;

use crate::{Account, MailboxName, StorageError, quota::matches_mask};

/// Which date of a message counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiryDate {
    /// When it came into the mailbox (SAVEDATE, RFC 8514): mail that is moved to Trash stays there for the whole time.
    Saved,
    /// INTERNALDATE.
    Received,
}

/// How long messages stay in some mailboxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiryRule {
    /// Mailboxes: a name, `*` and `?` stand for any.
    mask: String,
    age: Duration,
    date: ExpiryDate,
}

impl ExpiryRule {
    /// Reads `Trash 30d` or `Lists/* 1y received`; the error says what is wrong.
    pub fn parse(text: &str) -> Result<ExpiryRule, String> {
        let how = "write it as \"Trash 30d\" or \"Lists/* 1y received\"";
        let text = text.trim();
        let (text, date) = match (text.strip_suffix(" received"), text.strip_suffix(" saved")) {
            (Some(rest), _) => (rest.trim_end(), ExpiryDate::Received),
            (None, rest) => (rest.unwrap_or(text).trim_end(), ExpiryDate::Saved),
        };
        let (mask, age) = text.rsplit_once(' ').ok_or(how)?;
        let mask = MailboxName::parse(mask.trim_end()).map_err(|error| format!("{mask:?}: {error}"))?.as_str().to_owned();
        let age = humantime::parse_duration(age).map_err(|error| format!("{age:?} is no age: {error}; {how}"))?;
        if age.is_zero() {
            return Err("an age of zero would empty the mailbox all the time".to_owned());
        }
        Ok(ExpiryRule { mask, age, date })
    }
    /// Whether it is for this mailbox; the first such rule counts.
    pub fn names(&self, mailbox: &MailboxName) -> bool {
        matches_mask(self.mask.as_bytes(), mailbox.as_str().as_bytes())
    }
    /// How long messages stay.
    pub fn age(&self) -> Duration {
        self.age
    }
}

impl Account {
    /// Removes up to `limit` messages that `rules` say are too old at `now` (Unix seconds); how many from each mailbox. Fewer than `limit`: that was all.
    /// The first rule that names a mailbox counts. Blocking, durable.
    pub fn expire(self: &Arc<Self>, rules: &[ExpiryRule], now: i64, limit: usize) -> Result<Vec<(MailboxName, usize)>, StorageError> {
        let named: Vec<(MailboxName, ExpiryRule)> = {
            let catalog = self.catalog.read();
            let rule_for = |name: &MailboxName| rules.iter().find(|rule| rule.names(name)).cloned();
            catalog.mailboxes.keys().filter_map(|name| Some((name.clone(), rule_for(name)?))).collect()
        };
        let mut removed = Vec::new();
        let mut left = limit;
        for (name, rule) in named {
            if left == 0 {
                break;
            }
            let mailbox = match self.mailbox(&name) {
                Err(StorageError::NoMailbox(_)) => continue,
                mailbox => mailbox?,
            };
            mailbox.learn()?;
            let before = now.saturating_sub(i64::try_from(rule.age.as_secs()).unwrap_or(i64::MAX));
            let old: Vec<Uid> = {
                let messages = mailbox.read();
                let date = |row: &crate::Row| if rule.date == ExpiryDate::Saved { row.save_date } else { row.internal_date };
                (0..messages.len())
                    .map(|at| messages.row(at))
                    .filter(|row| row.is_known() && date(row) <= before)
                    .map(|row| row.uid)
                    .take(left)
                    .collect()
            };
            if !old.is_empty() {
                let gone = mailbox.remove(&old)?.len();
                left = left.saturating_sub(gone);
                removed.push((name, gone));
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use affinity::Handover;
    use index::FlagSet;

    use super::*;
    use crate::{
        CreateOptions,
        tests::{User, message, name},
    };

    const DAY: i64 = 24 * 60 * 60;

    #[test]
    fn rules_are_read() {
        let day = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
        let rule = |mask: &str, age, date| Ok(ExpiryRule { mask: mask.to_owned(), age, date });
        assert_eq!(ExpiryRule::parse("Trash 30d"), rule("Trash", day(30), ExpiryDate::Saved));
        assert_eq!(ExpiryRule::parse(" My Lists/* 2weeks received "), rule("My Lists/*", day(14), ExpiryDate::Received));
        assert_eq!(ExpiryRule::parse("inbox 1day saved"), rule("INBOX", day(1), ExpiryDate::Saved));
        for wrong in ["", "Trash", "Trash 30", "Trash soon", "Trash 0s", "a//b 1d", "30d"] {
            assert!(ExpiryRule::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn messages_go_when_their_age_is_reached() {
        let mut user = User::new();
        let held = user.open(Handover::Clean);
        for mailbox in ["Trash", "Lists/a"] {
            held.create(&name(mailbox), CreateOptions::default()).unwrap();
        }
        let put = |mailbox: &str, received: i64| {
            let mailbox = held.open(mailbox);
            let mut staged = mailbox.stage(0).unwrap();
            staged.write(&message("old")).unwrap();
            mailbox.append(staged, FlagSet::EMPTY, Some(received)).unwrap();
        };
        let now = crate::store::unix_micros().div_euclid(1_000_000);
        for mailbox in ["INBOX", "Trash", "Lists/a"] {
            put(mailbox, now - 10 * DAY);
            put(mailbox, now);
        }
        let rules: Vec<ExpiryRule> = ["Trash 3d", "Lists/* 5d received", "* 1000d"].map(|rule| ExpiryRule::parse(rule).unwrap()).into();
        let expire = |days: i64, limit| held.expire(&rules, now + days * DAY, limit).unwrap();
        assert_eq!(expire(0, 100), [(name("Lists/a"), 1)], "what was received long ago was saved now");
        assert_eq!(expire(2, 100), []);
        assert_eq!(expire(4, 1), [(name("Trash"), 1)], "no more than asked for");
        assert_eq!(expire(4, 100), [(name("Trash"), 1)]);
        assert_eq!(expire(6, 100), [(name("Lists/a"), 1)]);
        assert_eq!(held.inbox().read().len(), 2);
    }
}
