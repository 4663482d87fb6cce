//! `berth export`: a Maildir++ tree, a tar archive of one, or a folder of mbox files.
//!
//! A Maildir tree that is there already is added to: message files have names that never change, so the same command goes on where it was interrupted.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use anyhow::Context;
use storage::MailboxName;

use super::{
    import::number_after,
    mbox,
    session::{Session, quoted},
};

/// Keywords that have a letter in Maildir names.
const LETTERS: usize = 26;
/// How often progress is shown.
const PROGRESS_EVERY: u64 = 100;

/// Where messages go.
pub enum Target {
    /// A tree of folders.
    Maildir(PathBuf),
    /// An archive of one.
    Tar(Box<tar::Builder<Box<dyn Write>>>),
    /// A folder with a file for each mailbox.
    Mbox(PathBuf),
}

/// What an export did.
#[derive(Debug, Default, serde::Serialize)]
pub struct Counts {
    /// Mailboxes.
    pub mailboxes: u64,
    /// Messages that were written.
    pub exported: u64,
    /// Messages that an earlier export wrote.
    pub skipped: u64,
    /// Their bytes, with CRLF line ends.
    pub bytes: u64,
}

/// What a mailbox says when it is opened.
#[derive(Default)]
struct Opened {
    validity: u64,
    keywords: Vec<String>,
}

/// A message as it is announced.
struct Announced {
    uid: u64,
    flags: Vec<String>,
    date: i64,
}

/// Exports mailboxes.
pub fn run(session: &mut Session, names: &[String], target: &mut Target) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    if let Target::Maildir(root) | Target::Mbox(root) = &*target {
        fs::create_dir_all(root).with_context(|| format!("can't make {}", root.display()))?;
    }
    let mut subscribed = Vec::new();
    session.ask("LIST (SUBSCRIBED) \"\" \"*\"", &mut |line, _| {
        let name = line.strip_prefix("* LIST (").and_then(|rest| rest.split_once(") ")).and_then(|(_, rest)| rest.split_once(' '));
        subscribed.extend(name.map(|(_, name)| name.trim_matches('"').to_owned()));
        Ok(())
    })?;
    let subscriptions: String = subscribed.iter().map(|name| storage::names::encode_utf7(name) + "\n").collect();
    match target {
        Target::Maildir(root) => fs::write(root.join("subscriptions"), subscriptions)?,
        Target::Tar(archive) => add(archive, Path::new("subscriptions"), subscriptions.as_bytes())?,
        Target::Mbox(_) => {}
    }
    for name in names {
        mailbox(session, name, target, &mut counts).with_context(|| format!("can't export {name}"))?;
        counts.mailboxes += 1;
    }
    if let Target::Tar(archive) = target {
        archive.finish()?;
        archive.get_mut().flush()?;
    }
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    Ok(counts)
}

fn mailbox(session: &mut Session, name: &str, target: &mut Target, counts: &mut Counts) -> anyhow::Result<()> {
    let mut opened = Opened::default();
    session.ask(&format!("EXAMINE {}", quoted(name)), &mut |line, _| {
        if let Some(flags) = line.strip_prefix("* FLAGS (").and_then(|rest| rest.strip_suffix(')')) {
            opened.keywords = flags.split(' ').filter(|flag| !flag.starts_with('\\') && !flag.is_empty()).map(str::to_owned).collect();
        }
        if let Some(validity) = number_after(line, "[UIDVALIDITY ") {
            opened.validity = validity;
        }
        Ok(())
    })?;
    if opened.keywords.len() > LETTERS {
        let left: Vec<&str> = opened.keywords.iter().skip(LETTERS).map(String::as_str).collect();
        if !matches!(target, Target::Mbox(_)) {
            eprintln!("{name}: a Maildir has {LETTERS} keywords at most, these are left out: {}", left.join(" "));
        }
    }
    let mut out = Out::begin(target, name, &opened)?;
    session.ask("UID FETCH 1:* (UID FLAGS INTERNALDATE BODY.PEEK[])", &mut |line, literal| {
        let (Some(announced), Some((size, bytes))) = (announced(line), literal) else { return Ok(()) };
        if out.take(&announced, size, bytes)? {
            counts.exported += 1;
            counts.bytes += size;
        } else {
            counts.skipped += 1;
        }
        if io::stderr().is_terminal() && (counts.exported + counts.skipped).is_multiple_of(PROGRESS_EVERY) {
            eprint!("\r\x1b[K{} messages, {name}", counts.exported + counts.skipped);
        }
        Ok(())
    })?;
    out.finish()
}

fn announced(line: &str) -> Option<Announced> {
    let flags = line.split_once("FLAGS (")?.1.split_once(')')?.0;
    let date = line.split_once("INTERNALDATE \"")?.1.split_once('"')?.0;
    let date = jiff::fmt::strtime::parse("%d-%b-%Y %H:%M:%S %z", date.trim_start()).and_then(|parsed| parsed.to_timestamp()).ok()?;
    Some(Announced {
        uid: number_after(line, "UID ")?,
        flags: flags.split(' ').filter(|flag| !flag.is_empty() && !flag.eq_ignore_ascii_case("\\Recent")).map(str::to_owned).collect(),
        date: date.as_second(),
    })
}

/// One mailbox's place in the target.
enum Out<'a> {
    Maildir { folder: PathBuf, there: BTreeSet<String>, opened: &'a Opened },
    Tar { archive: &'a mut tar::Builder<Box<dyn Write>>, folder: PathBuf, opened: &'a Opened },
    Mbox { file: BufWriter<File>, partial: PathBuf, path: PathBuf },
}

impl<'a> Out<'a> {
    fn begin(target: &'a mut Target, name: &str, opened: &'a Opened) -> anyhow::Result<Out<'a>> {
        let parsed = MailboxName::parse(name)?;
        let keywords: String = opened.keywords.iter().take(LETTERS).enumerate().map(|(at, name)| format!("{at} {name}\n")).collect();
        match target {
            Target::Maildir(root) => {
                let folder = root.join(parsed.to_folder());
                for sub in ["cur", "new", "tmp"] {
                    fs::create_dir_all(folder.join(sub))?;
                }
                if !parsed.is_inbox() {
                    fs::write(folder.join("maildirfolder"), "")?;
                }
                if !keywords.is_empty() {
                    fs::write(folder.join("dovecot-keywords"), keywords)?;
                }
                let mut there = BTreeSet::new();
                for entry in fs::read_dir(folder.join("cur"))? {
                    let name = entry?.file_name().to_string_lossy().into_owned();
                    there.insert(name.split(":2,").next().unwrap_or_default().to_owned());
                }
                Ok(Out::Maildir { folder, there, opened })
            }
            Target::Tar(archive) => {
                let folder = PathBuf::from(parsed.to_folder());
                for sub in ["cur", "new", "tmp"] {
                    let mut header = tar::Header::new_gnu();
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(0o700);
                    header.set_size(0);
                    archive.append_data(&mut header, folder.join(sub), io::empty())?;
                }
                if !parsed.is_inbox() {
                    add(archive, &folder.join("maildirfolder"), b"")?;
                }
                if !keywords.is_empty() {
                    add(archive, &folder.join("dovecot-keywords"), keywords.as_bytes())?;
                }
                Ok(Out::Tar { archive, folder, opened })
            }
            Target::Mbox(root) => {
                let path = root.join(format!("{name}.mbox"));
                if let Some(above) = path.parent() {
                    fs::create_dir_all(above)?;
                }
                let partial = path.with_extension("mbox.partial");
                let file = BufWriter::new(File::create(&partial).with_context(|| format!("can't make {}", partial.display()))?);
                Ok(Out::Mbox { file, partial, path })
            }
        }
    }

    /// Writes a message; `false`: it was there.
    fn take(&mut self, announced: &Announced, size: u64, bytes: &mut dyn Read) -> anyhow::Result<bool> {
        match self {
            Out::Maildir { folder, there, opened } => {
                let (base, letters) = file_name(announced, size, opened);
                if there.contains(&base) {
                    return Ok(false);
                }
                let scratch = folder.join("tmp").join(&base);
                let mut file = File::create(&scratch).with_context(|| format!("can't make {}", scratch.display()))?;
                io::copy(bytes, &mut file)?;
                if let Ok(date) = u64::try_from(announced.date) {
                    file.set_modified(UNIX_EPOCH + Duration::from_secs(date))?;
                }
                put_in_place(&scratch, &folder.join("cur").join(format!("{base}:2,{letters}")))?;
            }
            Out::Tar { archive, folder, opened } => {
                let (base, letters) = file_name(announced, size, opened);
                let mut header = tar::Header::new_gnu();
                header.set_size(size);
                header.set_mode(0o600);
                header.set_mtime(u64::try_from(announced.date).unwrap_or(0));
                archive.append_data(&mut header, folder.join("cur").join(format!("{base}:2,{letters}")), bytes)?;
            }
            Out::Mbox { file, .. } => mbox::write(file, announced.date, &announced.flags, bytes)?,
        }
        Ok(true)
    }

    fn finish(self) -> anyhow::Result<()> {
        if let Out::Mbox { mut file, partial, path } = self {
            file.flush()?;
            file.get_ref().sync_all()?;
            put_in_place(&partial, &path)?;
        }
        Ok(())
    }
}

/// A name that a message keeps in every export, and the letters of its flags.
fn file_name(announced: &Announced, size: u64, opened: &Opened) -> (String, String) {
    let Announced { uid, flags, date } = announced;
    let base = format!("{date}.V{}U{uid}.berth,S={size},W={size},U={uid}", opened.validity);
    let letter = |flag: &String| match flag.to_ascii_lowercase().as_str() {
        "\\draft" => Some('D'),
        "\\flagged" => Some('F'),
        "\\answered" => Some('R'),
        "\\seen" => Some('S'),
        "\\deleted" => Some('T'),
        keyword => {
            let at = opened.keywords.iter().take(LETTERS).position(|known| known.eq_ignore_ascii_case(keyword))?;
            Some(char::from(b'a' + u8::try_from(at).ok()?))
        }
    };
    let letters: BTreeSet<char> = flags.iter().filter_map(letter).collect();
    (base, letters.into_iter().collect())
}

fn add(archive: &mut tar::Builder<Box<dyn Write>>, path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o600);
    Ok(archive.append_data(&mut header, path, content)?)
}

#[expect(clippy::disallowed_methods, reason = "a copy for somebody else, on whatever file system: no state of ours")]
fn put_in_place(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_announced_with_what_its_file_name_says() {
        let line = "* 3 FETCH (UID 7 FLAGS (\\Seen \\Recent todo $Junk) INTERNALDATE \" 7-Jul-1996 02:44:25 -0700\" BODY[] {5}";
        let announced = announced(line).unwrap();
        assert_eq!((announced.uid, announced.date), (7, 836_732_665));
        let opened = Opened { validity: 9, keywords: vec!["$Junk".to_owned(), "todo".to_owned()] };
        let expected = ("836732665.V9U7.berth,S=5,W=5,U=7".to_owned(), "Sab".to_owned());
        assert_eq!(file_name(&announced, 5, &opened), expected);
    }
}
