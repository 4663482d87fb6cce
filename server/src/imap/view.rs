//! What one session believes the mailbox holds: sequence number → UID.
//!
//! The mailbox itself changes under every session's feet; the view moves only when IMAP allows it. No I/O, no storage:
//! a view is compared with the mailbox's rows and says what to tell the client.
//!
//! Invariants, each with the test that guards it:
//! - a sequence number means the same message until the client was told otherwise (`expunges_are_kept_back_while_sequence_numbers_are_in_use`)
//! - replaying what was told onto the old view gives the new one (`a_client_that_replays_the_updates_sees_what_the_mailbox_holds`)
//! - every change is told once (`a_change_is_told_once`), this session's own silent ones not at all (`a_change_the_client_knows_is_not_told`)
//! - a UID never comes back into a view (`uids_below_the_next_one_never_come_back`)

use index::{ModSeq, Uid};
use smallvec::SmallVec;
use storage::{Columns, Row};

/// Rows of a mailbox, ascending by UID.
pub trait Messages {
    /// The UIDs, ascending.
    fn uids(&self) -> &[Uid];
    /// The message at a 0-based position below `uids().len()`.
    fn row(&self, position: usize) -> Row;
    /// The highest MODSEQ that any change took.
    fn highest_modseq(&self) -> u64;
    /// The next UID to be given.
    fn uid_next(&self) -> u32;
}

impl Messages for Columns {
    fn uids(&self) -> &[Uid] {
        Columns::uids(self)
    }
    fn row(&self, position: usize) -> Row {
        Columns::row(self, position)
    }
    fn highest_modseq(&self) -> u64 {
        Columns::highest_modseq(self).get()
    }
    fn uid_next(&self) -> u32 {
        Columns::uid_next(self)
    }
}

/// Whether messages may leave the view now (RFC 3501 §7.4.1: not during FETCH, STORE and SEARCH).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expunges {
    /// Tell them.
    Tell,
    /// Keep the messages in the view, they are told later.
    KeepBack,
}

/// What to tell the client, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Updates {
    /// Sequence numbers for `EXPUNGE`, descending, so that each is right when it is read.
    pub expunged: Vec<u32>,
    /// The same messages' UIDs for `VANISHED`, ascending.
    pub vanished: Vec<Uid>,
    /// The new number of messages, if messages came.
    pub exists: Option<u32>,
    /// Sequence numbers and rows of messages whose metadata changed, ascending.
    pub changed: Vec<(u32, Row)>,
}

/// Sequence number → UID, and up to which change the client was told.
#[derive(Debug)]
pub struct View {
    /// By sequence number less one; ascending.
    uids: Vec<Uid>,
    /// UIDs below this were in the view or never will be.
    uid_next: u32,
    /// Changes up to this MODSEQ were told.
    told: u64,
    /// Up to this MODSEQ also expunges were told.
    told_with_expunges: u64,
    /// Messages of the view that are gone from the mailbox, untold.
    kept_back: usize,
    /// UIDs that are \Recent in this session: half-open, ascending, disjoint.
    recent: SmallVec<[(u32, u32); 2]>,
}

impl View {
    /// What SELECT shows.
    pub fn open(messages: &impl Messages) -> View {
        View {
            uids: messages.uids().to_vec(),
            uid_next: messages.uid_next(),
            told: messages.highest_modseq(),
            told_with_expunges: messages.highest_modseq(),
            kept_back: 0,
            recent: SmallVec::new(),
        }
    }

    /// A view of these messages.
    #[cfg(test)]
    pub fn of(uids: Vec<Uid>) -> View {
        let uid_next = uids.last().map_or(1, |uid| uid.get().saturating_add(1));
        View { uids, uid_next, told: 1, told_with_expunges: 1, kept_back: 0, recent: SmallVec::new() }
    }

    /// How many messages the client counts.
    pub fn len(&self) -> usize {
        self.uids.len()
    }

    /// The UIDs by position (sequence number less one), ascending.
    pub fn uids(&self) -> &[Uid] {
        &self.uids
    }

    /// The sequence number of a message.
    pub fn sequence_of(&self, uid: Uid) -> Option<u32> {
        self.uids.binary_search(&uid).ok().map(sequence)
    }

    /// Changes up to this MODSEQ are known to the client.
    pub fn highest_modseq(&self) -> u64 {
        self.told
    }

    /// Changes up to this MODSEQ, expunges among them, are known to the client.
    pub fn told_with_expunges(&self) -> u64 {
        self.told_with_expunges
    }

    /// Whether messages are gone of which the client was not told.
    pub fn keeps_back(&self) -> bool {
        self.kept_back > 0
    }

    /// UIDs below this were in the view or never will be.
    pub fn uid_next(&self) -> u32 {
        self.uid_next
    }

    /// The messages from `first` up to but not with `end` are \Recent in this session.
    pub fn claim_recent(&mut self, first: u32, end: u32) {
        if first >= end {
            return;
        }
        match self.recent.last_mut() {
            Some(last) if first <= last.1 => last.1 = last.1.max(end),
            _ => self.recent.push((first, end)),
        }
    }

    /// No message is \Recent in this session: IMAP4rev2 has no such thing.
    pub fn forget_recent(&mut self) {
        self.recent.clear();
    }

    /// Whether a message is \Recent in this session.
    pub fn is_recent(&self, uid: Uid) -> bool {
        self.recent.iter().any(|(first, end)| (*first..*end).contains(&uid.get()))
    }

    /// How many messages are \Recent in this session.
    pub fn recent_count(&self) -> u32 {
        let below = |bound: u32| self.uids.partition_point(|uid| uid.get() < bound);
        count(self.recent.iter().map(|(first, end)| below(*end).saturating_sub(below(*first))).sum())
    }

    /// EXISTS: [`View::len`] as the protocol counts.
    pub fn exists(&self) -> u32 {
        count(self.uids.len())
    }

    /// Whether [`View::update`] may have something to tell.
    pub fn is_behind(&self, messages: &impl Messages, expunges: Expunges) -> bool {
        self.told != messages.highest_modseq() || self.uid_next != messages.uid_next() || (expunges == Expunges::Tell && self.kept_back > 0)
    }

    /// Moves the view to what the mailbox holds, as far as `expunges` lets it, and says what to tell.
    ///
    /// `known`, ascending: the client knows these messages' metadata as of that MODSEQ already.
    pub fn update(&mut self, messages: &impl Messages, expunges: Expunges, known: &[(Uid, ModSeq)]) -> Updates {
        let mut updates = Updates::default();
        if !self.is_behind(messages, expunges) {
            return updates;
        }
        let now = messages.uids();
        match expunges {
            Expunges::Tell => (updates.expunged, updates.vanished) = self.leave_out_missing(now),
            Expunges::KeepBack => self.kept_back = count_missing(&self.uids, now),
        }
        let old = self.uids.len();
        let first_new = now.partition_point(|uid| uid.get() < self.uid_next);
        let came = now.get(first_new..).unwrap_or_default();
        if !came.is_empty() {
            self.uids.extend_from_slice(came);
            updates.exists = Some(count(self.uids.len()));
        }
        updates.changed = self.changed(messages, old, known);
        self.uid_next = self.uid_next.max(messages.uid_next()).max(came.last().map_or(0, |uid| uid.get().saturating_add(1)));
        self.told = self.told.max(messages.highest_modseq());
        if self.kept_back == 0 {
            self.told_with_expunges = self.told;
        }
        updates
    }

    /// Takes out what is not in `now`; their sequence numbers, descending, and UIDs, ascending.
    fn leave_out_missing(&mut self, now: &[Uid]) -> (Vec<u32>, Vec<Uid>) {
        self.kept_back = 0;
        let mut rest = now;
        let (mut expunged, mut vanished) = (Vec::new(), Vec::new());
        let mut position = 0;
        self.uids.retain(|uid| {
            let here = take_up_to(&mut rest, *uid);
            if !here {
                expunged.push(sequence(position));
                vanished.push(*uid);
            }
            position += 1;
            here
        });
        expunged.reverse();
        (expunged, vanished)
    }

    /// The first `old` messages of the view that changed since the client was told.
    fn changed(&self, messages: &impl Messages, old: usize, mut known: &[(Uid, ModSeq)]) -> Vec<(u32, Row)> {
        let mut changed = Vec::new();
        if messages.highest_modseq() == self.told {
            return changed;
        }
        let now = messages.uids();
        let mut at = 0;
        for (position, uid) in self.uids.iter().take(old).enumerate() {
            while now.get(at).is_some_and(|candidate| candidate < uid) {
                at += 1;
            }
            if now.get(at) != Some(uid) {
                continue; // kept back: gone from the mailbox
            }
            let row = messages.row(at);
            if row.modseq.get() > self.told {
                while known.first().is_some_and(|(other, _)| other < uid) {
                    known = known.get(1..).unwrap_or_default();
                }
                if known.first() != Some(&(*uid, row.modseq)) {
                    changed.push((sequence(position), row));
                }
            }
        }
        changed
    }
}

/// The sequence number of a 0-based position.
pub fn sequence(position: usize) -> u32 {
    count(position).saturating_add(1)
}

/// A number of messages: UIDs are 32-bit, so there are never more.
fn count(messages: usize) -> u32 {
    u32::try_from(messages).unwrap_or(u32::MAX)
}

fn count_missing(view: &[Uid], now: &[Uid]) -> usize {
    let mut rest = now;
    view.iter().filter(|uid| !take_up_to(&mut rest, **uid)).count()
}

/// Advances `rest` past everything below `uid`; whether `uid` is there.
fn take_up_to(rest: &mut &[Uid], uid: Uid) -> bool {
    while let Some((first, others)) = rest.split_first() {
        if *first > uid {
            return false;
        }
        *rest = others;
        if *first == uid {
            return true;
        }
    }
    false
}

#[cfg(test)]
pub mod tests;
