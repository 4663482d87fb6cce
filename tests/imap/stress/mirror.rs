//! What one client believes, from nothing but the responses it got; a response that no server may send then is an error.

use std::collections::BTreeMap;

use tests::{
    Context, Result, bail,
    clients::{
        imap::{Reply, fetch_items},
        value::{Untagged, Value},
    },
    ensure,
};

/// Whether sequence numbers may move while a command runs (RFC 3501 §7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// FETCH, STORE, SEARCH by sequence number: no EXPUNGE.
    Stand,
    /// Any other command.
    Move,
}

/// Flags of one message, sorted, without \Recent.
pub type Flags = Vec<String>;

/// The mailbox as the client believes it to be.
#[derive(Debug, Clone, Default)]
pub struct Mirror {
    /// By sequence number less one; `None`: told by EXISTS only.
    slots: Vec<Option<u32>>,
    /// By UID, as far as told.
    pub flags: BTreeMap<u32, Flags>,
    /// By UID, as far as told.
    pub modseqs: BTreeMap<u32, u64>,
    /// What a client with QRESYNC would ask with.
    pub highest_modseq: u64,
    /// Of the mailbox.
    pub uid_validity: u32,
    /// UIDs that went.
    pub gone: Vec<u32>,
    /// Whether expunges are told by UID.
    pub qresync: bool,
}

impl Mirror {
    /// After SELECT: `earlier` is what was believed when the mailbox was left, for who resynchronises.
    pub fn selected(reply: &Reply, qresync: bool, earlier: Option<&Mirror>) -> Result<Mirror> {
        // What happened while the mailbox was opened follows what it was.
        let is_news = |(position, response): (usize, &Untagged)| match response.name.as_str() {
            "EXISTS" => reply.untagged.iter().take(position).any(|before| before.name == "EXISTS"),
            "VANISHED" => !matches!(response.values.first(), Some(Value::List(_))),
            name => name == "EXPUNGE",
        };
        let opened = reply.untagged.iter().enumerate().position(is_news).unwrap_or(reply.untagged.len());
        let (opened, news) = reply.untagged.split_at(opened);
        // What was there when it was opened and went before its UID was told.
        let mut went = Vec::new();
        for response in news.iter().filter(|response| response.name == "VANISHED") {
            went.extend(vanished(response)?.1.into_iter().flat_map(|(low, high)| low..=high));
        }
        let next = reply.code_number("UIDNEXT")?;
        went.retain(|uid| u64::from(*uid) < next);
        let mut mirror = Mirror::opened(&Reply { untagged: opened.to_vec(), ..reply.clone() }, qresync, earlier, &went)?;
        mirror.take(news, Numbers::Move)?;
        Ok(mirror)
    }

    fn opened(reply: &Reply, qresync: bool, earlier: Option<&Mirror>, went: &[u32]) -> Result<Mirror> {
        let uid_validity = u32::try_from(reply.code_number("UIDVALIDITY")?)?;
        let mut mirror = Mirror { uid_validity, qresync, ..Mirror::default() };
        mirror.slots = vec![None; usize::try_from(reply.exists().context("SELECT without EXISTS")?)?];
        mirror.highest_modseq = reply.code_number("HIGHESTMODSEQ")?;
        let Some(earlier) = earlier else { return Ok(mirror) };
        ensure!(earlier.uid_validity == uid_validity, "UIDVALIDITY changed");
        // RFC 7162 §3.2.5: what went, what changed, and what is new is told; all else is as it was.
        let mut uids: Vec<u32> = earlier.slots.iter().copied().map(|uid| uid.context("a message of unknown UID")).collect::<Result<_>>()?;
        (mirror.flags, mirror.modseqs) = (earlier.flags.clone(), earlier.modseqs.clone());
        for response in &reply.untagged {
            match response.name.as_str() {
                "VANISHED" => {
                    let (is_earlier, went) = vanished(response)?;
                    ensure!(is_earlier, "VANISHED without EARLIER during SELECT");
                    uids.retain(|uid| !went.iter().any(|(low, high)| (low..=high).contains(&uid)));
                }
                "FETCH" => {
                    let uid = u32::try_from(fetch_items(response)?.get("UID").context("FETCH without UID during SELECT")?.number()?)?;
                    if !uids.contains(&uid) {
                        uids.push(uid);
                    }
                }
                _ => {}
            }
        }
        uids.extend(went.iter().filter(|uid| !uids.contains(uid)).copied().collect::<Vec<_>>());
        uids.sort_unstable();
        ensure!(uids.len() == mirror.slots.len(), "resynchronised to {} messages, EXISTS says {}", uids.len(), mirror.slots.len());
        mirror.flags.retain(|uid, _| uids.binary_search(uid).is_ok());
        mirror.modseqs.retain(|uid, _| uids.binary_search(uid).is_ok());
        mirror.slots = uids.into_iter().map(Some).collect();
        for response in reply.all("FETCH") {
            mirror.fetched(response)?;
        }
        Ok(mirror)
    }

    /// How many messages the client counts.
    pub fn len(&self) -> usize {
        self.slots.len()
    }
    /// The UID of the message with this sequence number, as far as known.
    pub fn uid(&self, sequence: usize) -> Option<u32> {
        self.slots.get(sequence.checked_sub(1)?).copied().flatten()
    }
    /// The UIDs, where all are known.
    pub fn uids(&self) -> Option<Vec<u32>> {
        self.slots.iter().copied().collect()
    }
    /// The first sequence number whose UID is not known.
    pub fn first_unknown(&self) -> Option<usize> {
        self.slots.iter().position(Option::is_none).map(|position| position + 1)
    }

    /// Takes in all that a command brought.
    pub fn take(&mut self, untagged: &[Untagged], numbers: Numbers) -> Result<()> {
        untagged.iter().try_for_each(|response| self.take_one(response, numbers))
    }

    /// Takes in one response.
    pub fn take_one(&mut self, response: &Untagged, numbers: Numbers) -> Result<()> {
        match response.name.as_str() {
            "EXISTS" => {
                let count = usize::try_from(response.number.context("EXISTS without a number")?)?;
                ensure!(count >= self.slots.len(), "EXISTS {count} after {} messages, without EXPUNGE", self.slots.len());
                self.slots.resize(count, None);
            }
            "EXPUNGE" => {
                ensure!(numbers == Numbers::Move, "EXPUNGE while sequence numbers are in use");
                ensure!(!self.qresync, "EXPUNGE after ENABLE QRESYNC");
                let sequence = usize::try_from(response.number.context("EXPUNGE without a number")?)?;
                ensure!((1..=self.slots.len()).contains(&sequence), "EXPUNGE {sequence} of {}", self.slots.len());
                if let Some(uid) = self.slots.remove(sequence - 1) {
                    self.forget(uid);
                }
            }
            "VANISHED" => self.vanish(response, numbers)?,
            "FETCH" => self.fetched(response)?,
            "OK" => {
                let text = response.text.as_ref().context("OK without text")?;
                if text.code.as_deref() == Some("HIGHESTMODSEQ") {
                    self.highest_modseq = text.arguments.parse()?;
                }
            }
            "BYE" => bail!("the server said BYE: {response:?}"),
            _ => {}
        }
        Ok(())
    }

    fn vanish(&mut self, response: &Untagged, numbers: Numbers) -> Result<()> {
        let (earlier, went) = vanished(response)?;
        if earlier {
            return Ok(());
        }
        ensure!(numbers == Numbers::Move, "VANISHED while sequence numbers are in use");
        ensure!(self.qresync, "VANISHED without ENABLE QRESYNC");
        for uid in went.into_iter().flat_map(|(low, high)| low..=high) {
            match self.slots.iter().position(|slot| *slot == Some(uid)) {
                Some(position) => drop(self.slots.remove(position)),
                None => {
                    // One of those that were only counted, between those with lower and with higher UIDs.
                    let after = self.slots.iter().rposition(|slot| slot.is_some_and(|known| known < uid)).map_or(0, |below| below + 1);
                    ensure!(self.slots.get(after) == Some(&None), "VANISHED {uid}, which is not in the view");
                    self.slots.remove(after);
                }
            }
            self.forget(uid);
        }
        Ok(())
    }

    fn forget(&mut self, uid: u32) {
        self.flags.remove(&uid);
        self.modseqs.remove(&uid);
        self.gone.push(uid);
    }

    fn fetched(&mut self, response: &Untagged) -> Result<()> {
        let sequence = usize::try_from(response.number.context("FETCH without a number")?)?;
        ensure!((1..=self.slots.len()).contains(&sequence), "FETCH {sequence} of {}", self.slots.len());
        let items = fetch_items(response)?;
        if let Some(uid) = items.get("UID") {
            let uid = u32::try_from(uid.number()?)?;
            match self.slots[sequence - 1] {
                Some(known) => ensure!(known == uid, "message {sequence} has UID {uid}, it had {known}"),
                None => self.slots[sequence - 1] = Some(uid),
            }
            let rising = |slots: &[Option<u32>]| slots.iter().flatten().is_sorted_by(|a, b| a < b);
            ensure!(rising(&self.slots), "UIDs do not rise: {:?}", self.slots);
        }
        let Some(uid) = self.slots[sequence - 1] else { return Ok(()) };
        if let Some(modseq) = items.get("MODSEQ") {
            let [modseq] = modseq.list()? else { bail!("MODSEQ is no list of one: {response:?}") };
            let modseq = modseq.number()?;
            let before = self.modseqs.insert(uid, modseq).unwrap_or(0);
            ensure!(modseq >= before, "MODSEQ of {uid} went back from {before} to {modseq}");
            self.highest_modseq = self.highest_modseq.max(modseq);
        }
        if let Some(flags) = items.get("FLAGS") {
            self.flags.insert(uid, flags_of(flags)?);
        }
        Ok(())
    }
}

/// A FLAGS list, sorted, without \Recent.
pub fn flags_of(value: &Value) -> Result<Flags> {
    let mut flags = value.list()?.iter().map(Value::text).collect::<Result<Flags>>()?;
    flags.retain(|flag| !flag.eq_ignore_ascii_case("\\Recent"));
    flags.sort();
    flags.dedup();
    Ok(flags)
}

/// Whether it is EARLIER, and the UIDs as runs.
fn vanished(response: &Untagged) -> Result<(bool, Vec<(u32, u32)>)> {
    let (earlier, set) = match response.values.as_slice() {
        [Value::List(words), set] if *words == [Value::Atom("EARLIER".to_owned())] => (true, set),
        [set] => (false, set),
        other => bail!("VANISHED with {other:?}"),
    };
    let run = |run: &str| {
        let (low, high) = run.split_once(':').unwrap_or((run, run));
        let (low, high) = (low.parse()?, high.parse()?);
        ensure!(0 < low && low <= high, "a run {run}");
        Ok((low, high))
    };
    Ok((earlier, set.text()?.split(',').map(run).collect::<Result<_>>()?))
}

#[cfg(test)]
mod checks {
    use tests::clients::value::{Piece, Pieces, untagged};

    use super::*;

    fn line(text: &str) -> Untagged {
        untagged(&Pieces(vec![Piece::Line(text.as_bytes().to_vec())])).unwrap()
    }
    fn mirror(uids: &[u32], qresync: bool) -> Mirror {
        Mirror { slots: uids.iter().copied().map(Some).collect(), qresync, ..Mirror::default() }
    }

    #[test]
    fn what_no_server_may_say_is_noticed() {
        let refused = |qresync: bool, numbers: Numbers, lines: &[&str]| {
            let mut mirror = mirror(&[3, 5, 9], qresync);
            let (last, before) = lines.split_last().unwrap();
            before.iter().for_each(|text| mirror.take_one(&line(text), numbers).unwrap());
            assert!(mirror.take_one(&line(last), numbers).is_err(), "{lines:?}");
        };
        refused(false, Numbers::Stand, &["2 EXPUNGE"]);
        refused(true, Numbers::Stand, &["VANISHED 5"]);
        refused(true, Numbers::Move, &["2 EXPUNGE"]);
        refused(false, Numbers::Move, &["VANISHED 5"]);
        refused(false, Numbers::Move, &["4 EXPUNGE"]);
        refused(false, Numbers::Move, &["2 EXPUNGE", "3 FETCH (FLAGS ())"]);
        refused(false, Numbers::Move, &["2 EXISTS"]);
        refused(true, Numbers::Move, &["VANISHED 4"]);
        refused(true, Numbers::Move, &["4 EXISTS", "VANISHED 12", "VANISHED 13"]);
        refused(true, Numbers::Move, &["5 EXISTS", "5 FETCH (UID 12)", "VANISHED 11", "VANISHED 10"]);
        refused(false, Numbers::Stand, &["2 FETCH (UID 6)"]);
        refused(false, Numbers::Stand, &["4 EXISTS", "4 FETCH (UID 9)"]);
        refused(false, Numbers::Stand, &["4 EXISTS", "4 FETCH (UID 8)"]);
        refused(false, Numbers::Stand, &["1 FETCH (MODSEQ (7))", "1 FETCH (MODSEQ (6))"]);
        refused(false, Numbers::Move, &["BYE so long"]);
    }

    #[test]
    fn what_is_told_is_believed() {
        let mut mirror = mirror(&[3, 5, 9], true);
        let lines = ["4 EXISTS", "VANISHED 3,9", "2 FETCH (UID 12 MODSEQ (8) FLAGS (\\Seen \\Recent a))", "OK [HIGHESTMODSEQ 7] x"];
        lines.iter().for_each(|text| mirror.take_one(&line(text), Numbers::Move).unwrap());
        assert_eq!((mirror.uids(), mirror.highest_modseq, mirror.gone.as_slice()), (Some(vec![5, 12]), 7, &[3, 9][..]));
        assert_eq!(mirror.flags[&12], ["\\Seen", "a"]);
    }
}
