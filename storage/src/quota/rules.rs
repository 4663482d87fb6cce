//! What a user may use: quota roots with their rules, in Dovecot's words (`*:bytes=1G`, `Trash:bytes=+10%`, `Junk:ignore`).
//!
//! Invariants, each with the test that guards it:
//! - Dovecot's forms mean what they mean there (`rules_are_read_as_dovecot_means_them`)
//! - a rule that can't be read changes nothing but is named (`a_rule_that_can_not_be_read_is_named`)
//!
//! A root counts every mailbox below its subtree, but those that a rule says to ignore. Limits of a mailbox (`Trash:bytes=+10%`) are limits for what the
//! whole root may hold when something is put into that mailbox.

use std::collections::BTreeMap;

use crate::MailboxName;

/// Name of the root that every user has.
pub const MAIN_ROOT: &str = "User quota";
/// Quota roots of one user: each is a few additions for every message.
const ROOTS_MAX: usize = 16;

/// Largest use; `None`: any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// In bytes.
    pub bytes: Option<u64>,
    /// In messages.
    pub messages: Option<u64>,
}

impl Limits {
    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.bytes.is_some() || self.messages.is_some()
    }
}

/// Who says what a root may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitSource {
    /// An operator, for this user ([`crate::Account::set_limits`]).
    Set,
    /// The user's own fields.
    User,
    /// The configuration.
    Config,
    /// `maildirsize`.
    Maildirsize,
}

impl LimitSource {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            LimitSource::Set => "set",
            LimitSource::User => "user",
            LimitSource::Config => "config",
            LimitSource::Maildirsize => "maildirsize",
        }
    }
}

/// A user's quota roots, the main one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaRules {
    pub(super) roots: Vec<RootRules>,
}

/// One root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RootRules {
    pub name: String,
    /// `None`: all mailboxes; else this one and those below.
    pub below: Option<MailboxName>,
    /// `false`: counted and warned of, but never refused.
    pub enforced: bool,
    /// Takes the place of what the rule for `*` says.
    set: Option<Limits>,
    rules: Vec<Rule>,
}

/// A mailbox mask with what holds there; `*` is the default.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    mask: String,
    holds: Holds,
    source: LimitSource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Ignored,
    Limited { bytes: Amount, messages: Amount },
}

/// A limit, perhaps relative to the default rule's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Amount {
    /// The default rule's.
    Same,
    /// 0 means any.
    Absolute(u64),
    Percent(u64),
    More(i64),
    MorePercent(i64),
}

impl Amount {
    fn of(self, default: Option<u64>) -> Option<u64> {
        let percent = |percent: u64| default.map(|of| u64::try_from(u128::from(of) * u128::from(percent) / 100).unwrap_or(u64::MAX));
        match self {
            Amount::Same => default,
            Amount::Absolute(0) => None,
            Amount::Absolute(limit) => Some(limit),
            Amount::Percent(part) => percent(part),
            Amount::More(more) => default.map(|default| default.saturating_add_signed(more)),
            Amount::MorePercent(more) => percent(100u64.saturating_add_signed(more)),
        }
    }
}

impl Default for QuotaRules {
    fn default() -> QuotaRules {
        QuotaRules { roots: vec![RootRules::new(MAIN_ROOT.to_owned(), None)] }
    }
}

impl QuotaRules {
    /// Adds a rule, as in `Trash:bytes=+10%`, to the root with this name; it takes the place of one for the same mailboxes. The error says what is wrong.
    pub fn set(&mut self, root: &str, rule: &str) -> Result<(), String> {
        self.set_from(LimitSource::Config, root, rule)
    }
    fn set_from(&mut self, source: LimitSource, root: &str, rule: &str) -> Result<(), String> {
        let (mask, holds) = Rule::parse(rule)?;
        let rule = Rule { mask, holds, source };
        let root = self.roots.iter_mut().find(|known| known.name == root).ok_or_else(|| format!("there is no quota root {root:?}"))?;
        root.rules.retain(|other| other.mask != rule.mask);
        root.rules.push(rule);
        Ok(())
    }
    /// Adds a root for `below` and all mailboxes below it; one with this name is replaced, with its rules.
    pub fn set_root(&mut self, name: &str, below: MailboxName, enforced: bool) -> Result<(), String> {
        self.roots.retain(|root| root.name != name);
        if self.roots.len() >= ROOTS_MAX {
            return Err(format!("a user has {ROOTS_MAX} quota roots at most"));
        }
        self.roots.push(RootRules { enforced, ..RootRules::new(name.to_owned(), Some(below)) });
        Ok(())
    }
    /// Takes a user's own fields (`quota_rule=…`, `quota_rule2=…`, `quota2=maildir:Archive:ns=Archive/`, `quota2_rule=…`, each with or without
    /// `userdb_` before it) over these rules; what can't be read is told.
    pub fn with_fields<'a>(mut self, fields: impl Iterator<Item = (&'a str, &'a str)>) -> (QuotaRules, Vec<String>) {
        let mut complaints = Vec::new();
        let mut own: Vec<(u32, Option<u32>, &str)> = Vec::new();
        for (key, value) in fields {
            let Some(rest) = key.strip_prefix("userdb_").unwrap_or(key).strip_prefix("quota") else { continue };
            match (numbered(rest), rest.split_once("_rule").and_then(|(root, rule)| Some((numbered(root)?, numbered(rule)?)))) {
                (_, Some((root, rule))) => own.push((root, Some(rule), value)),
                (Some(root), None) => own.push((root, None, value)),
                (None, None) => {}
            }
        }
        // Roots before rules, both in the order of their numbers.
        own.sort_by_key(|(root, rule, _)| (*root, rule.is_some(), *rule));
        let mut names = BTreeMap::from([(1, MAIN_ROOT.to_owned())]);
        for (number, rule, value) in own {
            let taken = match rule {
                None => self.take_root(number, value, &mut names),
                Some(_) => match names.get(&number) {
                    Some(root) => self.set_from(LimitSource::User, root, value),
                    None => Err(format!("there is no quota{number} for this rule")),
                },
            };
            complaints.extend(taken.err().map(|why| format!("{value:?}: {why}")));
        }
        (self, complaints)
    }
    /// `maildir:Archive:ns=Archive/`.
    fn take_root(&mut self, number: u32, value: &str, names: &mut BTreeMap<u32, String>) -> Result<(), String> {
        let mut parts = value.split(':').skip(1);
        let name = parts.next().unwrap_or_default().to_owned();
        let (mut below, mut enforced) = (None, true);
        for option in parts {
            match option.split_once('=') {
                Some(("ns", prefix)) => {
                    below = Some(MailboxName::parse(prefix.trim_end_matches('/')).map_err(|error| error.to_string())?);
                }
                None if option == "noenforcing" => enforced = false,
                _ => return Err(format!("the option {option:?} is not known: ns=PREFIX and noenforcing are")),
            }
        }
        match (number, below) {
            (1, None) => {
                self.roots.iter_mut().take(1).for_each(|root| root.enforced = enforced);
                Ok(())
            }
            (_, Some(below)) if !name.is_empty() => {
                self.set_root(&name, below, enforced)?;
                names.insert(number, name);
                Ok(())
            }
            _ => Err("write it as maildir:NAME:ns=MAILBOX/".to_owned()),
        }
    }
    /// The limits of a `maildirsize` file, for users who have no others.
    pub(crate) fn with_maildirsize(mut self, limits: Limits) -> QuotaRules {
        if let Some(main) = self.roots.first_mut().filter(|main| !main.default_limits().any()) {
            let amount = |limit: Option<u64>| limit.map_or(Amount::Same, Amount::Absolute);
            let holds = Holds::Limited { bytes: amount(limits.bytes), messages: amount(limits.messages) };
            main.rules.push(Rule { mask: "*".to_owned(), holds, source: LimitSource::Maildirsize });
        }
        self
    }
    /// With limits that were set, by root, in place of those for `*`; what rules say of single mailboxes holds on.
    pub(crate) fn with_set(mut self, limits: &BTreeMap<String, Limits>) -> QuotaRules {
        for root in &mut self.roots {
            root.set = limits.get(&root.name).copied();
        }
        self
    }
    /// Whether there is a root with this name.
    pub(crate) fn has_root(&self, name: &str) -> bool {
        self.roots.iter().any(|root| root.name == name)
    }
    /// The main root's limits.
    pub fn main_limits(&self) -> Limits {
        self.roots.first().map(RootRules::default_limits).unwrap_or_default()
    }
    /// Whether anything is limited.
    pub fn any(&self) -> bool {
        self.roots.iter().any(|root| root.set.is_some() || root.rules.iter().any(|rule| matches!(rule.holds, Holds::Limited { .. })))
    }
}

impl RootRules {
    fn new(name: String, below: Option<MailboxName>) -> RootRules {
        RootRules { name, below, enforced: true, set: None, rules: Vec::new() }
    }
    /// Those that were set, else those of the rule for `*`.
    pub fn default_limits(&self) -> Limits {
        self.set.unwrap_or_else(|| self.limits_by_rule())
    }
    /// Who says so; `None`: nobody does.
    pub fn source(&self) -> Option<LimitSource> {
        let by_rule = || self.rules.iter().find(|rule| rule.mask == "*").filter(|_| self.limits_by_rule().any()).map(|rule| rule.source);
        if self.set.is_some() { Some(LimitSource::Set) } else { by_rule() }
    }
    fn limits_by_rule(&self) -> Limits {
        match self.rules.iter().find(|rule| rule.mask == "*").map(|rule| rule.holds) {
            Some(Holds::Limited { bytes, messages }) => Limits { bytes: bytes.of(None), messages: messages.of(None) },
            Some(Holds::Ignored) | None => Limits::default(),
        }
    }
    /// What the root may hold when something is put into `mailbox`; `None`: the mailbox does not count.
    pub fn limits_in(&self, mailbox: &MailboxName) -> Option<Limits> {
        if self.below.as_ref().is_some_and(|below| mailbox != below && !mailbox.is_below(below)) {
            return None;
        }
        let default = self.default_limits();
        let own = self.rules.iter().find(|rule| rule.mask != "*" && matches_mask(rule.mask.as_bytes(), mailbox.as_str().as_bytes()));
        match own.map(|rule| rule.holds) {
            None => Some(default),
            Some(Holds::Ignored) => None,
            Some(Holds::Limited { bytes, messages }) => {
                Some(Limits { bytes: bytes.of(default.bytes), messages: messages.of(default.messages) })
            }
        }
    }
}

impl Rule {
    fn parse(text: &str) -> Result<(String, Holds), String> {
        let (mask, limits) = text.split_once(':').ok_or("write it as MAILBOX:bytes=1G, with * for every mailbox")?;
        let mask = if mask == "*" || mask.is_empty() {
            "*".to_owned()
        } else {
            MailboxName::parse(mask).map_err(|error| format!("{mask:?}: {error}"))?.as_str().to_owned()
        };
        if limits == "ignore" {
            return if mask == "*" { Err("not every mailbox can be ignored".to_owned()) } else { Ok((mask, Holds::Ignored)) };
        }
        let (mut bytes, mut messages) = (Amount::Same, Amount::Same);
        for limit in limits.split(':') {
            let (resource, amount) = limit.split_once('=').ok_or_else(|| format!("{limit:?} is no limit, as in bytes=1G"))?;
            match resource {
                "bytes" => bytes = Amount::parse(amount, 1)?,
                // Dovecot's unit for it is KiB.
                "storage" => bytes = Amount::parse(amount, 1024)?,
                "messages" => messages = Amount::parse(amount, 1)?,
                _ => return Err(format!("{resource:?} is not limited: bytes, storage (in KiB) and messages are")),
            }
        }
        let relative = |amount: Amount| matches!(amount, Amount::Percent(_) | Amount::More(_) | Amount::MorePercent(_));
        if mask == "*" && (relative(bytes) || relative(messages)) {
            return Err("the rule for * can't be relative to itself".to_owned());
        }
        Ok((mask, Holds::Limited { bytes, messages }))
    }
}

impl Amount {
    /// `unit`: of a number without a letter.
    fn parse(text: &str, unit: u64) -> Result<Amount, String> {
        let wrong = || format!("{text:?} is no amount, as in 500M, +10% or 1000");
        let (sign, digits) = match text.as_bytes().first() {
            Some(b'+') => (Some(1), &text[1..]),
            Some(b'-') => (Some(-1), &text[1..]),
            _ => (None, text),
        };
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let number: u64 = digits[..end].parse().map_err(|_| wrong())?;
        let unit = match digits[end..].to_ascii_uppercase().as_str() {
            "" => unit,
            "%" => 0,
            "B" => 1,
            "K" | "KB" | "KIB" => 1 << 10,
            "M" | "MB" | "MIB" => 1 << 20,
            "G" | "GB" | "GIB" => 1 << 30,
            "T" | "TB" | "TIB" => 1 << 40,
            _ => return Err(wrong()),
        };
        let amount = if unit == 0 { number } else { number.checked_mul(unit).ok_or_else(wrong)? };
        let signed = |sign: i64| i64::try_from(amount).map(|amount| amount * sign).map_err(|_| wrong());
        Ok(match (sign, unit) {
            (None, 0) => Amount::Percent(amount),
            (None, _) => Amount::Absolute(amount),
            (Some(sign), 0) => Amount::MorePercent(signed(sign)?),
            (Some(sign), _) => Amount::More(signed(sign)?),
        })
    }
}

/// The number at the end of a field's name; none is the first.
fn numbered(text: &str) -> Option<u32> {
    match text {
        "" => Some(1),
        number => number.parse().ok().filter(|number| *number > 0),
    }
}

/// Whether a mask names a mailbox: `*` is any text, `?` any byte. Never looks back further than to the last `*`, so that no mask takes exponential time.
pub fn matches_mask(mask: &[u8], name: &[u8]) -> bool {
    let (mut at, mut from, mut retry) = (0, 0, None);
    while from < name.len() {
        match mask.get(at) {
            Some(b'*') => {
                retry = Some((at, from));
                at += 1;
            }
            Some(c) if *c == b'?' || Some(c) == name.get(from) => {
                at += 1;
                from += 1;
            }
            _ => match retry {
                Some((star, start)) => {
                    retry = Some((star, start + 1));
                    at = star + 1;
                    from = start + 1;
                }
                None => return false,
            },
        }
    }
    mask.get(at..).is_none_or(|rest| rest.iter().all(|c| *c == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(fields: &[(&str, &str)]) -> (QuotaRules, Vec<String>) {
        QuotaRules::default().with_fields(fields.iter().copied())
    }
    fn limits(rules: &QuotaRules, root: usize, mailbox: &str) -> Option<(Option<u64>, Option<u64>)> {
        rules.roots[root].limits_in(&MailboxName::parse(mailbox).unwrap()).map(|limits| (limits.bytes, limits.messages))
    }

    #[test]
    fn rules_are_read_as_dovecot_means_them() {
        let (rules, complaints) = rules(&[
            ("userdb_quota_rule", "*:storage=1000:messages=500"),
            ("userdb_quota_rule2", "Trash:storage=+10%"),
            ("userdb_quota_rule3", "Sent:bytes=+1M:messages=50%"),
            ("userdb_quota_rule4", "Junk:ignore"),
            ("userdb_quota_rule5", "Lists/*:messages=0"),
            ("userdb_quota2", "maildir:Archive:ns=Archive/"),
            ("userdb_quota2_rule", "*:bytes=2G"),
            ("userdb_mail", "maildir:~/Maildir"),
        ]);
        assert_eq!(complaints, Vec::<String>::new());
        assert_eq!(limits(&rules, 0, "INBOX"), Some((Some(1_024_000), Some(500))));
        assert_eq!(limits(&rules, 0, "Trash"), Some((Some(1_126_400), Some(500))));
        assert_eq!(limits(&rules, 0, "Sent"), Some((Some(1_024_000 + (1 << 20)), Some(250))));
        assert_eq!(limits(&rules, 0, "Junk"), None);
        assert_eq!(limits(&rules, 0, "Lists/a/b"), Some((Some(1_024_000), None)));
        assert_eq!(limits(&rules, 1, "INBOX"), None);
        assert_eq!(limits(&rules, 1, "Archive"), Some((Some(2 << 30), None)));
        assert_eq!(limits(&rules, 1, "Archive/2026"), Some((Some(2 << 30), None)));
        assert_eq!(limits(&rules, 1, "Archives"), None);
    }

    #[test]
    fn a_users_rule_takes_the_place_of_the_default_for_the_same_mailboxes() {
        let mut defaults = QuotaRules::default();
        defaults.set(MAIN_ROOT, "*:bytes=1G").unwrap();
        defaults.set(MAIN_ROOT, "Trash:bytes=+10%").unwrap();
        let (own, complaints) = defaults.with_fields([("quota_rule", "*:bytes=2000")].into_iter());
        assert_eq!(complaints, Vec::<String>::new());
        assert_eq!(limits(&own, 0, "INBOX"), Some((Some(2000), None)));
        assert_eq!(limits(&own, 0, "Trash"), Some((Some(2200), None)));
        let (unlimited, _) = own.with_fields([("quota_rule", "*:bytes=0")].into_iter());
        assert_eq!(limits(&unlimited, 0, "Trash"), Some((None, None)));
    }

    #[test]
    fn a_rule_that_can_not_be_read_is_named() {
        for wrong in [
            "",
            "*",
            "*:",
            "*:bytes",
            "*:bytes=",
            "*:bytes=x",
            "*:bytes=1Q",
            "*:bytes=10%",
            "*:ignore",
            "a//b:ignore",
            "*:mailboxes=3",
            "*:bytes=99999999999999999999",
            "*:bytes=18446744073709551615T",
        ] {
            let (read, complaints) = rules(&[("quota_rule", wrong)]);
            assert_eq!(complaints.len(), 1, "{wrong}");
            assert_eq!(read, QuotaRules::default(), "{wrong}");
        }
        assert_eq!(rules(&[("quota2_rule", "*:bytes=1")]).1.len(), 1, "a rule without its root");
        assert_eq!(rules(&[("quota2", "maildir:x")]).1.len(), 1, "a root without its subtree");
    }

    #[test]
    fn masks_have_stars_and_question_marks() {
        for (mask, name, expected) in [
            ("Trash", "Trash", true),
            ("Trash", "Trash/x", false),
            ("Trash/*", "Trash/x/y", true),
            ("*/x", "a/b/x", true),
            ("a?c*e", "abcde", true),
            ("a?c*e", "abcdef", false),
            ("**", "", true),
            ("?", "", false),
        ] {
            assert_eq!(matches_mask(mask.as_bytes(), name.as_bytes()), expected, "{mask} {name}");
        }
        let hostile = "*a".repeat(60) + "b";
        assert!(!matches_mask(hostile.as_bytes(), "a".repeat(2_000).as_bytes()));
    }
}
