//! `berth import`: messages that are not there yet are appended, many with one command, all of a command or none.

use std::{
    collections::{BTreeSet, HashMap},
    io::{self, IsTerminal, Write},
};

use anyhow::bail;

use super::{
    message::{Found, TELLING_FIELDS, identity},
    session::{Refused, Session, quoted},
    source::Taker,
};

/// Messages of one APPEND, and their bytes.
const BATCH_MESSAGES: usize = 50;
const BATCH_BYTES: u64 = 4 * 1024 * 1024;
/// How often progress is shown.
const PROGRESS_EVERY: u64 = 200;

/// What an import did, or would do.
#[derive(Debug, Default, serde::Serialize)]
pub struct Counts {
    /// Messages that were stored.
    pub imported: u64,
    /// Messages that were there already.
    pub skipped: u64,
    /// Messages that the server would not take; each was named.
    pub failed: u64,
    /// Bytes of those that were stored.
    pub bytes: u64,
    /// Mailboxes that were made.
    pub made: u64,
}

/// Takes what a source gives.
pub struct Importer<'a> {
    session: &'a mut Session,
    dry_run: bool,
    there: BTreeSet<String>,
    refused: BTreeSet<String>,
    /// By mailbox: how many messages there are like this, and not met in the source yet.
    known: HashMap<String, HashMap<u64, u32>>,
    batch: Vec<Found>,
    /// What was done.
    pub counts: Counts,
}

impl<'a> Importer<'a> {
    /// Imports into this session's user.
    pub fn new(session: &'a mut Session, dry_run: bool) -> anyhow::Result<Importer<'a>> {
        let there = session.mailboxes()?.into_iter().collect();
        Ok(Importer {
            session,
            dry_run,
            there,
            refused: BTreeSet::new(),
            known: HashMap::new(),
            batch: Vec::new(),
            counts: Counts::default(),
        })
    }

    /// Stores what is collected.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        match self.append(&batch) {
            Err(error) if error.is::<Refused>() && batch.len() > 1 => batch.iter().try_for_each(|one| self.append_one(one)),
            Err(error) if error.is::<Refused>() => batch.iter().try_for_each(|one| self.not_taken(one, &error.to_string())),
            result => result,
        }
    }
    fn append_one(&mut self, one: &Found) -> anyhow::Result<()> {
        match self.append(std::slice::from_ref(one)) {
            Err(error) if error.is::<Refused>() => self.not_taken(one, &error.to_string()),
            result => result,
        }
    }
    fn not_taken(&mut self, one: &Found, why: &str) -> anyhow::Result<()> {
        if why.contains("[OVERQUOTA]") {
            bail!(
                "the user's quota is full ({why}); {} messages are imported: with more room, the same command goes on",
                self.counts.imported
            );
        }
        self.counts.failed += 1;
        eprintln!("a message of {} bytes for {} was not taken: {why}", one.message.len(), one.mailbox);
        Ok(())
    }

    fn append(&mut self, batch: &[Found]) -> anyhow::Result<()> {
        let Some(first) = batch.first() else { return Ok(()) };
        let tag = self.session.begin(&format!("APPEND {}", quoted(&first.mailbox)))?;
        let mut buffer = vec![0; 64 * 1024];
        for Found { flags, date, message, .. } in batch {
            let date = date.and_then(|date| jiff::Timestamp::from_second(date).ok()).map(|date| {
                let zoned = date.to_zoned(jiff::tz::TimeZone::UTC);
                format!(" \"{}\"", zoned.strftime("%d-%b-%Y %H:%M:%S +0000"))
            });
            let announced = format!(" ({}){} {{{}+}}\r\n", flags.join(" "), date.unwrap_or_default(), message.len());
            self.session.writer().write_all(announced.as_bytes())?;
            let mut offset = 0;
            while offset < message.len() {
                let read = message.read_at(offset, &mut buffer)?;
                if read == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                self.session.writer().write_all(buffer.get(..read).unwrap_or_default())?;
                offset += read as u64;
            }
        }
        self.session.writer().write_all(b"\r\n")?;
        self.session.answer(&tag, &mut |_, _| Ok(()))?;
        self.counts.imported += batch.len() as u64;
        self.counts.bytes += batch.iter().map(|found| found.message.len()).sum::<u64>();
        self.progress();
        Ok(())
    }

    fn progress(&self) {
        let seen = self.counts.imported + self.counts.skipped;
        if io::stderr().is_terminal() && (seen.is_multiple_of(PROGRESS_EVERY) || self.counts.imported.is_multiple_of(BATCH_MESSAGES as u64))
        {
            eprint!("\r\x1b[K{} imported, {} there already", self.counts.imported, self.counts.skipped);
        }
    }

    /// Makes the mailbox if need be, and learns what is in it; whether messages can go there.
    fn prepare(&mut self, mailbox: &str) -> anyhow::Result<bool> {
        if self.refused.contains(mailbox) {
            return Ok(false);
        }
        if self.known.contains_key(mailbox) {
            return Ok(true);
        }
        if !self.there.contains(mailbox) {
            self.counts.made += 1;
            if !self.dry_run {
                match self.session.ask(&format!("CREATE {}", quoted(mailbox)), &mut |_, _| Ok(())) {
                    Err(error) if error.is::<Refused>() && !error.to_string().contains("[ALREADYEXISTS]") => {
                        eprintln!("the mailbox {mailbox} can't be made, its messages are left out: {error}");
                        self.refused.insert(mailbox.to_owned());
                        return Ok(false);
                    }
                    result => result.map(drop).or_else(|error| if error.is::<Refused>() { Ok(()) } else { Err(error) })?,
                }
                self.there.insert(mailbox.to_owned());
            }
            self.known.insert(mailbox.to_owned(), HashMap::new());
            return Ok(true);
        }
        let mut found: HashMap<u64, u32> = HashMap::new();
        self.session.ask(&format!("EXAMINE {}", quoted(mailbox)), &mut |_, _| Ok(()))?;
        let fields = TELLING_FIELDS.join(" ").to_ascii_uppercase();
        self.session.ask(&format!("UID FETCH 1:* (RFC822.SIZE BODY.PEEK[HEADER.FIELDS ({fields})])"), &mut |line, literal| {
            let (Some(size), Some((_, bytes))) = (number_after(line, "RFC822.SIZE "), literal) else { return Ok(()) };
            let mut header = Vec::new();
            bytes.read_to_end(&mut header)?;
            *found.entry(identity(&header, size)).or_default() += 1;
            Ok(())
        })?;
        self.session.ask("UNSELECT", &mut |_, _| Ok(()))?;
        self.known.insert(mailbox.to_owned(), found);
        Ok(true)
    }
}

/// The number that follows `word` in a line.
pub fn number_after(line: &str, word: &str) -> Option<u64> {
    let rest = line.split_once(word)?.1;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl Taker for Importer<'_> {
    fn message(&mut self, found: Found) -> anyhow::Result<()> {
        if self.batch.first().is_some_and(|first| first.mailbox != found.mailbox) {
            self.flush()?;
        }
        if !self.prepare(&found.mailbox)? {
            self.counts.failed += 1;
            return Ok(());
        }
        let known = self.known.get_mut(&found.mailbox).and_then(|known| known.get_mut(&found.identity)).filter(|left| **left > 0);
        if let Some(left) = known {
            *left -= 1;
            self.counts.skipped += 1;
            self.progress();
            return Ok(());
        }
        if found.message.is_empty() {
            return self.not_taken(&found, "it is empty");
        }
        if self.dry_run {
            self.counts.imported += 1;
            self.counts.bytes += found.message.len();
            return Ok(());
        }
        self.batch.push(found);
        let bytes: u64 = self.batch.iter().map(|found| found.message.len()).sum();
        if self.batch.len() >= BATCH_MESSAGES || bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }
    fn subscribed(&mut self, mailbox: String) -> anyhow::Result<()> {
        if self.dry_run {
            return Ok(());
        }
        match self.session.ask(&format!("SUBSCRIBE {}", quoted(&mailbox)), &mut |_, _| Ok(())) {
            Err(error) if error.is::<Refused>() => {
                eprintln!("{mailbox} can't be subscribed: {error}");
                Ok(())
            }
            result => result.map(drop),
        }
    }
    fn mailbox(&mut self, mailbox: String) -> anyhow::Result<()> {
        self.flush()?;
        self.prepare(&mailbox).map(drop)
    }
}
