//! How many messages one command works on: MESSAGELIMIT and SAVELIMIT (RFC 9738).
//!
//! - FETCH, STORE, MOVE, SEARCH and UID EXPUNGE do the messages with the highest UIDs and say which was the last; their answers go from the highest UID down.
//! - COPY and APPEND do all or none, so do SORT, THREAD and FETCH with PARTIAL: of a part they would make something else.
//! - EXPUNGE, CLOSE, STATUS and SELECT with what it resynchronises have no limit (RFC 9738 §3.1).
//!
//! Invariants, each with the test that guards it:
//! - a client that goes on below the UID it was told has done everything once (`going_on_below_the_last_uid_everything_is_done_once`)
//! - a tagged answer keeps a code that it has to have (`a_code_that_has_to_be_tagged_stays_and_the_limit_is_told_before`)

use std::{num::NonZeroU32, ops::Range};

use bytes::BytesMut;
use index::Uid;

use super::{
    reply::Reply,
    view::View,
    wire::{
        response::{Code, Condition},
        sequence_set::Positions,
    },
};

/// The limits of a session, one of them at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MessageLimits {
    /// None.
    #[default]
    None,
    /// `MESSAGELIMIT=`: on every command of the RFC.
    Every(Limit),
    /// `SAVELIMIT=`: on COPY and APPEND.
    Saving(Limit),
}

impl MessageLimits {
    /// As in the settings, where 0 is none.
    pub fn new(message_limit: u32, save_limit: u32) -> MessageLimits {
        match (NonZeroU32::new(message_limit), NonZeroU32::new(save_limit)) {
            (Some(limit), _) => MessageLimits::Every(Limit(limit)),
            (None, Some(limit)) => MessageLimits::Saving(Limit(limit)),
            (None, None) => MessageLimits::None,
        }
    }
    /// On commands that work on messages where they are.
    pub fn working(self) -> Option<Limit> {
        match self {
            MessageLimits::Every(limit) => Some(limit),
            MessageLimits::None | MessageLimits::Saving(_) => None,
        }
    }
    /// On COPY and APPEND.
    pub fn saving(self) -> Option<Limit> {
        match self {
            MessageLimits::Every(limit) | MessageLimits::Saving(limit) => Some(limit),
            MessageLimits::None => None,
        }
    }
    /// What is advertised.
    pub fn capability(self) -> Option<String> {
        match self {
            MessageLimits::None => None,
            MessageLimits::Every(Limit(limit)) => Some(format!("MESSAGELIMIT={limit}")),
            MessageLimits::Saving(Limit(limit)) => Some(format!("SAVELIMIT={limit}")),
        }
    }
}

/// How many messages one command works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(NonZeroU32);

/// Where a command stopped because of its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// The limit.
    pub limit: Limit,
    /// The lowest UID that it got to.
    pub lowest: Uid,
}

impl Limit {
    /// In messages.
    pub fn most(self) -> usize {
        usize::try_from(self.0.get()).unwrap_or(usize::MAX)
    }
    /// Leaves the last of a view's positions, if there are more than that.
    pub fn cut(self, positions: &mut Positions, view: &View) -> Option<Stopped> {
        let mut excess =
            positions.iter().map(ExactSizeIterator::len).sum::<usize>().checked_sub(self.most()).filter(|excess| *excess > 0)?;
        let rest = |part: &Range<usize>| {
            let gone = excess.min(part.len());
            excess -= gone;
            part.start + gone..part.end
        };
        *positions = positions.iter().map(rest).filter(|part| !part.is_empty()).collect();
        let lowest = positions.first().and_then(|part| view.uids().get(part.start))?;
        Some(Stopped { limit: self, lowest: *lowest })
    }
    /// The same of UIDs, ascending.
    pub fn cut_uids(self, uids: &mut Vec<Uid>) -> Option<Stopped> {
        let stopped = self.would_stop(uids)?;
        uids.drain(..uids.len() - self.most());
        Some(stopped)
    }
    /// Where a command on `uids`, ascending, would stop.
    pub fn would_stop(self, uids: &[Uid]) -> Option<Stopped> {
        let excess = uids.len().checked_sub(self.most()).filter(|excess| *excess > 0)?;
        Some(Stopped { limit: self, lowest: *uids.get(excess)? })
    }
    /// For a command that does all or nothing.
    pub fn refuse(self, lowest: Option<Uid>, what: &str) -> Reply {
        Reply::no(self.code(lowest), format!("{what} exceeds the maximum {}-message limit", self.0))
    }
    /// `[MESSAGELIMIT 1000 23221]`.
    pub fn code(self, lowest: Option<Uid>) -> Code<'static> {
        Code::MessageLimit { limit: self.0.get(), lowest }
    }
}

impl Stopped {
    /// The answer to a command that did what it may of what it was asked for. Another code has to be in the tagged answer (EXPUNGEISSUED, MODIFIED,
    /// HIGHESTMODSEQ): then the limit is told before it, untagged (RFC 9738 §3.1).
    pub fn answer(self, reply: Reply, out: &mut BytesMut) -> Reply {
        let code = self.limit.code(Some(self.lowest));
        let text = format!("Done with {} messages, the last of those that were asked for", self.limit.0);
        match reply {
            Reply { condition: Condition::Ok, code: None, .. } => Reply::ok(text).with(code.into()),
            reply => {
                Reply::no(code, text).write_untagged(out);
                reply
            }
        }
    }
    /// The same, where there is something to say of a limit.
    pub fn told(stopped: Option<Stopped>, reply: Reply, out: &mut BytesMut) -> Reply {
        match stopped {
            Some(stopped) => stopped.answer(reply, out),
            None => reply,
        }
    }
}

#[cfg(test)]
mod tests {
    use index::ModSeq;
    use proptest::prelude::*;

    use super::*;

    fn limit(most: u32) -> Limit {
        Limit(NonZeroU32::new(most).unwrap())
    }
    fn uids(numbers: impl IntoIterator<Item = u32>) -> Vec<Uid> {
        numbers.into_iter().filter_map(Uid::new).collect()
    }

    #[test]
    fn one_limit_is_advertised_and_the_wider_one_counts_for_saving_too() {
        assert_eq!(MessageLimits::new(0, 0), MessageLimits::None);
        let (every, saving) = (MessageLimits::new(1000, 0), MessageLimits::new(0, 2000));
        assert_eq!(every.capability().as_deref(), Some("MESSAGELIMIT=1000"));
        assert_eq!((every.working(), every.saving()), (Some(limit(1000)), Some(limit(1000))));
        assert_eq!(saving.capability().as_deref(), Some("SAVELIMIT=2000"));
        assert_eq!((saving.working(), saving.saving()), (None, Some(limit(2000))));
        assert_eq!(MessageLimits::None.capability(), None);
    }

    #[test]
    fn a_code_that_has_to_be_tagged_stays_and_the_limit_is_told_before() {
        let stopped = Stopped { limit: limit(1000), lowest: Uid::new(23221).unwrap() };
        let said = |reply| {
            let mut out = BytesMut::new();
            stopped.answer(reply, &mut out).write(&mut out, "11");
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert!(said(Reply::ok("Done")).starts_with("11 OK [MESSAGELIMIT 1000 23221] "));
        // RFC 9738 §3.1, the last example.
        let both = said(Reply::ok("Some messages were also expunged").with(Code::ExpungeIssued.into()));
        assert!(both.starts_with("* NO [MESSAGELIMIT 1000 23221] "), "{both}");
        assert!(both.ends_with("\r\n11 OK [EXPUNGEISSUED] Some messages were also expunged\r\n"), "{both}");
        let modseq = said(Reply::ok("Done").with(Code::HighestModSeq(ModSeq::new(7).unwrap()).into()));
        assert!(
            modseq.starts_with("* NO [MESSAGELIMIT 1000 23221] ") && modseq.ends_with("\r\n11 OK [HIGHESTMODSEQ 7] Done\r\n"),
            "{modseq}"
        );
        let failed = said(Reply::no(Code::ServerBug, "A message can't be read"));
        assert!(failed.starts_with("* NO [MESSAGELIMIT ") && failed.contains("\r\n11 NO [SERVERBUG]"), "{failed}");
    }

    proptest! {
        #[test]
        fn going_on_below_the_last_uid_everything_is_done_once(
            lengths in proptest::collection::vec((1_usize..4, 1_usize..6), 0..6),
            most in 1_u32..8,
        ) {
            let mut at = 0;
            let mut rest: Positions = lengths.into_iter().map(|(gap, length)| {
                let start = at + gap;
                at = start + length;
                start..at
            }).collect();
            let view = View::of(uids((1..=u32::try_from(at).unwrap()).map(|number| number * 3)));
            let all: Vec<usize> = rest.iter().cloned().flatten().collect();
            let mut done: Vec<usize> = Vec::new();
            loop {
                let mut part = rest.clone();
                let stopped = limit(most).cut(&mut part, &view);
                let mut named: Vec<Uid> = rest.iter().cloned().flatten().map(|at| view.uids()[at]).collect();
                prop_assert_eq!(limit(most).cut_uids(&mut named), stopped);
                let part: Vec<usize> = part.into_iter().flatten().collect();
                prop_assert_eq!(&named, &part.iter().map(|at| view.uids()[*at]).collect::<Vec<_>>());
                prop_assert!(part.len() <= limit(most).most());
                done.extend(&part);
                let Some(Stopped { lowest, .. }) = stopped else { break };
                prop_assert_eq!(part.len(), limit(most).most());
                rest = rest.iter().map(|range| {
                    let end = range.clone().find(|at| view.uids()[*at] >= lowest).unwrap_or(range.end);
                    range.start..end
                }).filter(|range| !range.is_empty()).collect();
            }
            done.sort_unstable();
            prop_assert_eq!(done, all);
        }
    }
}
