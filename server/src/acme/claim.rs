//! Who may order a certificate, and when: pure decisions over the claim's name, as for leases (ARCHITECTURE.md).

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

use affinity::HolderId;

use crate::tls::certificate::Facts;

/// How long after a first failure the next try comes: public authorities take five failures of a name an hour.
pub const RETRY_FIRST: Duration = Duration::from_secs(5 * 60);
/// The longest wait between tries: four a day still leave about a hundred before a certificate of 90 days is over.
pub const RETRY_MAX: Duration = Duration::from_secs(6 * 60 * 60);
/// Part of its life that is left when a certificate is renewed.
const LIFE_LEFT: i64 = 3;
/// Part of its life by which a renewal may come earlier, so that not all clusters of the world come at once.
const JITTER: i64 = 20;

/// The claim, as its name says it: `<n>,free|held,<node>,<incarnation>,<failures>,<retry>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// One more with every change; the highest counts, and no number is used twice.
    pub n: u64,
    /// Whether `by` orders at present.
    pub held: bool,
    /// Who changed it last; nobody yet in a new folder.
    pub by: Option<HolderId>,
    /// Orders that failed since the last that did not.
    pub failures: u32,
    /// Seconds since 1970: no try before.
    pub retry_at: i64,
}

/// That is no claim's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoClaim;

impl Claim {
    /// What a new folder begins with.
    pub const NEW: Claim = Claim { n: 0, held: false, by: None, failures: 0, retry_at: 0 };

    /// The same, ordered by `me` from now on. A holder that is gone without a word counts as a failure: what ended it may do so again.
    pub fn taken(&self, me: &HolderId) -> Claim {
        let failures = self.failures.saturating_add(u32::from(self.held));
        Claim { n: self.n.saturating_add(1), held: true, by: Some(me.clone()), failures, retry_at: self.retry_at }
    }

    /// After an order that went well, or failed at `now`.
    pub fn released(&self, succeeded: bool, now: i64) -> Claim {
        let failures = if succeeded { 0 } else { self.failures.saturating_add(1) };
        let retry_at = if succeeded { 0 } else { now.saturating_add(seconds(wait_after(failures))) };
        Claim { n: self.n.saturating_add(1), held: false, by: self.by.clone(), failures, retry_at }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.held { "held" } else { "free" };
        let by = self.by.as_ref().map_or_else(|| "-,-".to_owned(), HolderId::to_string);
        write!(f, "{},{state},{by},{},{}", self.n, self.failures, self.retry_at)
    }
}

impl FromStr for Claim {
    type Err = NoClaim;
    fn from_str(name: &str) -> Result<Claim, NoClaim> {
        let parts: Vec<&str> = name.split(',').collect();
        let [n, state, node, incarnation, failures, retry_at] = parts[..] else { return Err(NoClaim) };
        let by = if node == "-" { None } else { Some(format!("{node},{incarnation}").parse().map_err(|_| NoClaim)?) };
        let held = match state {
            "held" => true,
            "free" => false,
            _ => return Err(NoClaim),
        };
        let claim = Claim {
            n: n.parse().map_err(|_| NoClaim)?,
            held,
            by,
            failures: failures.parse().map_err(|_| NoClaim)?,
            retry_at: retry_at.parse().map_err(|_| NoClaim)?,
        };
        // What we print we read back, and nothing else.
        if claim.to_string() == name { Ok(claim) } else { Err(NoClaim) }
    }
}

/// How long after the n-th failure in a row nobody tries.
fn wait_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_MAX)
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// What a node does about a certificate now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is good until then (seconds since 1970).
    Good(i64),
    /// Somebody else orders.
    Held(HolderId),
    /// The last try failed, the next comes then (seconds since 1970).
    Wait(i64),
    /// Swap the claim to this name, and order if that was won.
    Take(Claim),
}

/// Everything that a decision goes by.
#[derive(Debug)]
pub struct Situation<'a> {
    /// The claim that was listed.
    pub claim: &'a Claim,
    /// Who was in `nodes/` in a listing after that.
    pub live: &'a BTreeSet<HolderId>,
    /// This incarnation; it does not order at present.
    pub me: &'a HolderId,
    /// The certificate in use; `None`: none, or none that can be read.
    pub certificate: Option<&'a Facts>,
    /// Seconds since 1970.
    pub now: i64,
    /// An operator wants a new one now.
    pub asked: bool,
}

/// Decides.
pub fn decide(situation: &Situation<'_>) -> Decision {
    let Situation { claim, live, me, certificate, now, asked } = *situation;
    if let Some(facts) = certificate.filter(|facts| !asked && now < renewal_at(facts)) {
        return Decision::Good(renewal_at(facts));
    }
    match &claim.by {
        Some(by) if claim.held && by != me && live.contains(by) => return Decision::Held(by.clone()),
        _ => {}
    }
    // A time further away than any wait is no time that we set: a clock was wrong.
    let waits = now < claim.retry_at && claim.retry_at <= now.saturating_add(seconds(RETRY_MAX));
    if waits && !asked { Decision::Wait(claim.retry_at) } else { Decision::Take(claim.taken(me)) }
}

/// When a certificate is to be renewed: seconds since 1970. The same on every node.
pub fn renewal_at(facts: &Facts) -> i64 {
    let life = facts.not_after.saturating_sub(facts.not_before).max(0);
    let drawn = facts.fingerprint.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0);
    let jitter = i128::from(life / JITTER) * i128::from(drawn) / i128::from(u32::MAX);
    facts.not_after.saturating_sub(life / LIFE_LEFT).saturating_sub(i64::try_from(jitter).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(node: &str) -> HolderId {
        format!("{node},00000000000000aa").parse().unwrap()
    }

    fn facts(not_before: i64, not_after: i64, fingerprint: &str) -> Facts {
        Facts { names: Vec::new(), issuer: String::new(), not_before, not_after, fingerprint: fingerprint.to_owned() }
    }

    fn decided(claim: &Claim, live: &[HolderId], certificate: Option<&Facts>, now: i64, asked: bool) -> Decision {
        let (live, me) = (live.iter().cloned().collect(), holder("a"));
        decide(&Situation { claim, live: &live, me: &me, certificate, now, asked })
    }

    #[test]
    fn a_claims_name_is_read_back_and_no_other_name_is() {
        let held = Claim::NEW.taken(&holder("mail1"));
        for claim in [Claim::NEW, held.clone(), held.released(true, 1_000), held.released(false, 1_000)] {
            assert_eq!(claim.to_string().parse(), Ok(claim));
        }
        assert_eq!(held.to_string(), "1,held,mail1,00000000000000aa,0,0");
        for name in
            ["", "1", "1.pem", "01,free,-,-,0,0", "1,open,-,-,0,0", "1,free,-,-,0", "1,free,-,x,0,0", "1,free,A!,00000000000000aa,0,0"]
        {
            assert_eq!(name.parse::<Claim>(), Err(NoClaim), "{name}");
        }
    }

    #[test]
    fn the_claim_of_a_node_that_is_gone_is_taken_over() {
        let (me, other) = (holder("a"), holder("b"));
        let held = Claim::NEW.taken(&other);
        assert_eq!(decided(&held, &[me.clone(), other.clone()], None, 0, false), Decision::Held(other.clone()));
        assert_eq!(decided(&held, &[me.clone(), other.clone()], None, 0, true), Decision::Held(other), "not even who is asked to");
        let Decision::Take(taken) = decided(&held, std::slice::from_ref(&me), None, 0, false) else { panic!("nobody goes on") };
        assert_eq!((taken.n, taken.held, taken.by, taken.failures), (2, true, Some(me.clone()), 1));
        // What this very incarnation could not give back.
        assert!(matches!(decided(&Claim::NEW.taken(&me), std::slice::from_ref(&me), None, 0, false), Decision::Take(_)));
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_a_limit() {
        let mut claim = Claim::NEW;
        let mut waits = Vec::new();
        for _ in 0..9 {
            claim = claim.taken(&holder("a")).released(false, 1_000);
            waits.push((claim.retry_at - 1_000) / 60);
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 360, 360]);
        assert_eq!(decided(&claim, &[], None, 2_000, false), Decision::Wait(claim.retry_at));
        assert!(matches!(decided(&claim, &[], None, 2_000, true), Decision::Take(_)), "an operator need not wait");
        assert!(matches!(decided(&claim, &[], None, claim.retry_at, false), Decision::Take(_)));
        assert!(matches!(decided(&claim, &[], None, -1_000_000, false), Decision::Take(_)), "a clock was wrong");
        assert_eq!(claim.released(true, 0).failures, 0);
    }

    #[test]
    fn a_certificate_is_renewed_with_a_third_of_its_life_left() {
        let day = 24 * 60 * 60;
        let no_jitter = facts(0, 90 * day, "00000000ff");
        assert_eq!(renewal_at(&no_jitter), 60 * day);
        assert_eq!(renewal_at(&facts(0, 90 * day, "ffffffff00")), 60 * day - 90 * day / 20);
        let free = Claim::NEW;
        assert_eq!(decided(&free, &[], Some(&no_jitter), 60 * day - 1, false), Decision::Good(60 * day));
        assert!(matches!(decided(&free, &[], Some(&no_jitter), 60 * day, false), Decision::Take(_)));
        assert!(matches!(decided(&free, &[], Some(&no_jitter), 0, true), Decision::Take(_)));
    }
}
