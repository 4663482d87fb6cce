//! mbox, read in its variants and written as mboxrd.
//!
//! Invariants, each with the test that guards it:
//! - what is written is read back byte for byte, whatever lines a message has (`what_is_written_is_read_back`)
//! - each variant is read as its writers mean it (`each_variant_is_read_as_it_is_meant`)
//!
//! Fields that only say how a message lay in its mbox (Status, X-Status, X-Keywords, X-UID, X-IMAP, X-IMAPbase, Content-Length, and Lines after it) become flags or
//! are left out.

use std::{
    io::{self, BufRead, Read, Write},
    path::Path,
};

use clap::ValueEnum;

use super::message::{Collector, Found, is_keyword};

/// Bytes of a line that are looked at together; what is longer is taken in pieces.
const PIECE_BYTES: u64 = 256 * 1024;

/// How lines that begin with "From " were kept from being taken for the next message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Variant {
    /// mboxrd: `>` before `From `, `>From `, `>>From ` …; right for most mboxo files too
    #[default]
    Rd,
    /// mboxo: `>` before `From ` alone
    O,
    /// mboxcl: as mboxo, and Content-Length says where a message ends
    Cl,
    /// mboxcl2: Content-Length says where a message ends, and no line is changed
    Cl2,
}

impl Variant {
    fn has_length(self) -> bool {
        matches!(self, Variant::Cl | Variant::Cl2)
    }
    /// A line as it was before.
    fn unquote(self, line: &[u8]) -> &[u8] {
        let quotes = line.iter().take_while(|byte| **byte == b'>').count();
        let is_from = line.get(quotes..).is_some_and(|rest| rest.starts_with(b"From "));
        match self {
            Variant::Rd if is_from && quotes > 0 => &line[1..],
            Variant::O | Variant::Cl if is_from && quotes == 1 => &line[1..],
            _ => line,
        }
    }
}

/// What is known of a message while its header is read.
#[derive(Default)]
struct Header {
    flags: Vec<String>,
    length: Option<u64>,
    lines_follow: bool,
    /// The field that the present line goes on with is left out.
    dropped: bool,
    is_pseudo: bool,
}

impl Header {
    /// Whether a line belongs to the message.
    fn take(&mut self, line: &[u8]) -> bool {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return !self.dropped;
        }
        let text = String::from_utf8_lossy(line);
        let (name, value) = text.split_once(':').unwrap_or_default();
        let value = value.trim();
        self.dropped = true;
        match name.to_ascii_lowercase().as_str() {
            "status" => self.letters(value, &[('R', "\\Seen")]),
            "x-status" => self.letters(value, &[('A', "\\Answered"), ('F', "\\Flagged"), ('T', "\\Draft"), ('D', "\\Deleted")]),
            "x-keywords" => {
                let keywords = value.split([' ', ',']).filter(|name| is_keyword(name)).map(str::to_owned);
                self.flags.extend(keywords);
            }
            "content-length" => {
                self.length = value.parse().ok();
                self.lines_follow = true;
            }
            "lines" if self.lines_follow => {}
            "x-uid" | "x-imapbase" => {}
            "x-imap" => self.is_pseudo = true,
            _ => self.dropped = false,
        }
        !self.dropped
    }
    fn letters(&mut self, value: &str, known: &[(char, &str)]) {
        let flags = known.iter().filter(|(letter, _)| value.contains(*letter)).map(|(_, flag)| (*flag).to_owned());
        self.flags.extend(flags);
    }
}

/// Whether a file begins as an mbox does.
pub fn is_mbox(beginning: &[u8]) -> bool {
    beginning.starts_with(b"From ")
}

/// Reads every message; `each` gets them in their order.
pub fn read(
    source: &mut dyn BufRead,
    variant: Variant,
    mailbox: &str,
    scratch: &Path,
    each: &mut dyn FnMut(Found) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut message: Option<(Collector, Header, Option<i64>)> = None;
    let (mut in_header, mut at_start, mut blank) = (false, true, None::<Vec<u8>>);
    let mut after_header = false;
    let mut line = Vec::new();
    let mut done = |message: Option<(Collector, Header, Option<i64>)>| match message {
        // The first message of some servers holds only their own notes.
        Some((collector, header, date)) if !collector.is_empty() && !header.is_pseudo => {
            each(collector.finish(mailbox.to_owned(), header.flags, date))
        }
        _ => Ok(()),
    };
    loop {
        line.clear();
        if (&mut *source).take(PIECE_BYTES).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let starts_line = std::mem::replace(&mut at_start, line.ends_with(b"\n"));
        let may_begin = starts_line && (message.is_none() || blank.is_some() || after_header) && !in_header;
        after_header = false;
        if may_begin && let Some(date) = from_line(&line) {
            done(message.take())?;
            message = Some((Collector::new(scratch), Header::default(), date));
            (in_header, blank) = (true, None);
            continue;
        }
        let Some((collector, header, _)) = &mut message else {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            anyhow::bail!("{mailbox}: this is no mbox: it does not begin with a line \"From sender date\"");
        };
        if in_header {
            if matches!(&line[..], b"\n" | b"\r\n") {
                // A message without a body is followed at once by the next.
                (in_header, after_header) = (false, true);
                collector.write(&line)?;
                if let Some(length) = header.length.filter(|_| variant.has_length()) {
                    copy_lines(&mut (&mut *source).take(length), variant, collector)?;
                }
            } else if !starts_line || header.take(&line) {
                collector.write(&line)?;
            }
            continue;
        }
        // The blank line before the next message is the mbox's.
        if let Some(blank) = blank.take() {
            collector.write(&blank)?;
        }
        if starts_line && matches!(&line[..], b"\n" | b"\r\n") {
            blank = Some(line.clone());
        } else {
            collector.write(if starts_line { variant.unquote(&line) } else { &line })?;
        }
    }
    done(message)
}

fn copy_lines(source: &mut dyn BufRead, variant: Variant, collector: &mut Collector) -> io::Result<()> {
    let mut line = Vec::new();
    let mut at_start = true;
    while (&mut *source).take(PIECE_BYTES).read_until(b'\n', &mut line)? > 0 {
        let starts_line = std::mem::replace(&mut at_start, line.ends_with(b"\n"));
        collector.write(if starts_line { variant.unquote(&line) } else { &line })?;
        line.clear();
    }
    Ok(())
}

/// The date of a line that begins a message (`Some(None)`: one that can't be read); `None`: it is another line.
fn from_line(line: &[u8]) -> Option<Option<i64>> {
    let text = String::from_utf8_lossy(line.strip_prefix(b"From ")?).into_owned();
    // Senders may have spaces; the date has five words, and some write a zone into it.
    let words: Vec<&str> = text.split_whitespace().collect();
    let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let at = words.iter().rposition(|word| days.contains(word))?;
    let date = words.get(at..)?;
    let time = date.get(3)?;
    let year = date.iter().skip(4).find(|word| word.len() == 4 && word.bytes().all(|byte| byte.is_ascii_digit()))?;
    let zone = date.iter().find(|word| word.starts_with(['+', '-']) && word.len() == 5).copied().unwrap_or("+0000");
    let time = if time.matches(':').count() == 1 { format!("{time}:00") } else { (*time).to_owned() };
    let written = format!("{} {} {} {time} {zone}", date.get(2)?, date.get(1)?, year);
    Some(jiff::fmt::strtime::parse("%d %b %Y %H:%M:%S %z", &written).and_then(|parsed| parsed.to_timestamp()).ok().map(|at| at.as_second()))
}

/// Writes one message with CRLF line ends: its line "From ", its flags, then its lines with LF.
pub fn write(out: &mut dyn Write, date: i64, flags: &[String], message: &mut dyn Read) -> io::Result<()> {
    let moment = jiff::Timestamp::from_second(date).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_zoned(jiff::tz::TimeZone::UTC);
    writeln!(out, "From MAILER-DAEMON {}", moment.strftime("%a %b %e %H:%M:%S %Y"))?;
    let has = |flag: &str| flags.iter().any(|own| own.eq_ignore_ascii_case(flag));
    let letters: String = [("\\Answered", 'A'), ("\\Flagged", 'F'), ("\\Draft", 'T'), ("\\Deleted", 'D')]
        .into_iter()
        .filter_map(|(flag, letter)| has(flag).then_some(letter))
        .collect();
    writeln!(out, "Status: {}", if has("\\Seen") { "RO" } else { "O" })?;
    if !letters.is_empty() {
        writeln!(out, "X-Status: {letters}")?;
    }
    let keywords: Vec<&str> = flags.iter().map(String::as_str).filter(|flag| !flag.starts_with('\\')).collect();
    if !keywords.is_empty() {
        writeln!(out, "X-Keywords: {}", keywords.join(" "))?;
    }
    let mut source = io::BufReader::new(message);
    let mut line = Vec::new();
    let mut at_start = true;
    while (&mut source).take(PIECE_BYTES).read_until(b'\n', &mut line)? > 0 {
        let quotes = line.iter().take_while(|byte| **byte == b'>').count();
        if at_start && line.get(quotes..).is_some_and(|rest| rest.starts_with(b"From ")) {
            out.write_all(b">")?;
        }
        at_start = line.ends_with(b"\n");
        match line.strip_suffix(b"\r\n") {
            Some(line) => {
                out.write_all(line)?;
                out.write_all(b"\n")?;
            }
            None => out.write_all(&line)?,
        }
        line.clear();
    }
    // A line end that the message lacks, and the blank line between messages.
    out.write_all(if at_start { b"\n" } else { b"\n\n" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn messages(mbox: &[u8], variant: Variant) -> Vec<(String, Vec<String>, Option<i64>)> {
        let mut found = Vec::new();
        read(&mut io::BufReader::with_capacity(7, mbox), variant, "INBOX", Path::new("/tmp"), &mut |message| {
            let mut bytes = vec![0; usize::try_from(message.message.len())?];
            message.message.read_at(0, &mut bytes)?;
            found.push((String::from_utf8(bytes)?, message.flags, message.date));
            Ok(())
        })
        .unwrap();
        found
    }
    fn texts(mbox: &str, variant: Variant) -> Vec<String> {
        messages(mbox.as_bytes(), variant).into_iter().map(|(text, ..)| text).collect()
    }

    #[test]
    fn each_variant_is_read_as_it_is_meant() {
        let body = ">From a\n>>From b\nFromage\n";
        let mbox = format!("From a@b Thu Jan  1 00:00:10 1970\nA: 1\n\n{body}\nFrom c Thu Jan  1 00:00:20 1970 +0100\nB: 2\n\n\n\n");
        assert_eq!(texts(&mbox, Variant::Rd), ["A: 1\n\nFrom a\n>From b\nFromage\n", "B: 2\n\n\n"]);
        assert_eq!(texts(&mbox, Variant::O), ["A: 1\n\nFrom a\n>>From b\nFromage\n", "B: 2\n\n\n"]);
        assert_eq!(messages(mbox.as_bytes(), Variant::Rd)[1].2, Some(20 - 3600));
        let length = "A: 1\n\n\nFrom a Thu Jan  1 00:00:00 1970\n>From b\n";
        let body_length = length.len() - "A: 1\n\n".len();
        let mbox = format!(
            "From x Thu Jan  1 00:00:10 1970\nContent-Length: {body_length}\nLines: 3\n{length}\nFrom y Thu Jan  1 00:00:10 1970\nB: 2\n\nb\n"
        );
        assert_eq!(texts(&mbox, Variant::Cl2), [length, "B: 2\n\nb\n"]);
        assert_eq!(texts(&mbox, Variant::Cl), [length.replace(">From", "From"), "B: 2\n\nb\n".to_owned()]);
        assert_eq!(texts(&mbox, Variant::Rd).len(), 3, "without its length a message ends where the next seems to begin");
    }

    #[test]
    fn what_only_the_mbox_says_becomes_flags() {
        let mbox = "From a Thu Jan  1 00:00:10 1970\nStatus: RO\nX-IMAPbase: 1 2\nSubject: s\n folded\nX-Status: AF\nX-Keywords: $Junk todo,x\n  \nX-UID: 7\n\nb\n";
        let flags = ["\\Seen", "\\Answered", "\\Flagged", "$Junk", "todo", "x"].map(str::to_owned);
        assert_eq!(messages(mbox.as_bytes(), Variant::Rd), [("Subject: s\n folded\n\nb\n".to_owned(), flags.into(), Some(10))]);
        let pseudo = format!("From MAILER-DAEMON Thu Jan  1 00:00:10 1970\nSubject: DON'T DELETE\nX-IMAP: 1 2\n\nnotes\n\n{mbox}");
        assert_eq!(messages(pseudo.as_bytes(), Variant::Rd).len(), 1);
    }

    #[test]
    fn what_is_no_mbox_is_refused() {
        let refused = read(&mut &b"Subject: x\n\nbody\n"[..], Variant::Rd, "m", Path::new("/tmp"), &mut |_| Ok(()));
        assert!(refused.unwrap_err().to_string().contains("no mbox"));
        assert!(texts("\n\n", Variant::Rd).is_empty());
        assert!(from_line(b"From the start, it was clear\n").is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            bodies in proptest::collection::vec(proptest::collection::vec("(>{0,2}From .{0,5}|[ -~]{0,9}|)", 0..6), 1..4),
            date in 0i64..4_000_000_000,
            seen in any::<bool>(),
        ) {
            let mut mbox = Vec::new();
            let flags: Vec<String> = ["\\Seen", "\\Flagged", "todo"].iter().skip(usize::from(!seen)).map(|flag| (*flag).to_owned()).collect();
            let messages_in: Vec<String> = bodies.iter().map(|lines| format!("Subject: x\r\n\r\n{}", lines.iter().map(|line| format!("{line}\r\n")).collect::<String>())).collect();
            for message in &messages_in {
                write(&mut mbox, date, &flags, &mut message.as_bytes()).unwrap();
            }
            let read = messages(&mbox, Variant::Rd);
            prop_assert_eq!(read.len(), messages_in.len());
            for ((text, read_flags, read_date), message) in read.into_iter().zip(messages_in) {
                prop_assert_eq!(text.replace('\n', "\r\n"), message);
                prop_assert_eq!(&read_flags, &flags);
                prop_assert_eq!(read_date, Some(date));
            }
        }
    }
}
