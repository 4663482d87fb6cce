//! Where imported mail comes from: Maildir trees, mbox files and folders of them, and tar archives of either.
//!
//! What is beside messages (keywords, subscriptions) is read first where the source can be read twice; in an archive on standard input it counts from
//! where it stands, which is at the beginning in archives that Berth wrote.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anyhow::{Context, bail};
use storage::names::decode_utf7;

use super::{
    mbox::{self, Variant},
    message::{Collector, Found, flags_of},
};

/// Longest list of keywords or subscriptions that is read.
const LIST_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// What a file's first bytes are looked at for.
const BEGINNING_BYTES: usize = 512;

/// How to read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Of mbox files.
    pub variant: Variant,
    /// Everything goes here, or below.
    pub below: Option<String>,
    /// For large messages.
    pub scratch: PathBuf,
}

/// What a source gives.
pub trait Taker {
    /// A message.
    fn message(&mut self, found: Found) -> anyhow::Result<()>;
    /// A subscribed mailbox.
    fn subscribed(&mut self, mailbox: String) -> anyhow::Result<()>;
    /// A mailbox, perhaps empty.
    fn mailbox(&mut self, mailbox: String) -> anyhow::Result<()>;
}

/// Reads all of `path`; `-` is a tar archive or an mbox on standard input.
pub fn read(path: &Path, reading: &Reading, taker: &mut dyn Taker) -> anyhow::Result<()> {
    if path == Path::new("-") {
        let mut input = BufReader::with_capacity(64 * 1024, io::stdin().lock());
        return match input.fill_buf()? {
            beginning if is_tar(beginning) => archive(input, reading, BTreeMap::new(), taker),
            beginning if mbox::is_mbox(beginning) => one_mbox(&mut input, "", reading, taker),
            _ => bail!("standard input is no tar archive and no mbox"),
        };
    }
    let metadata = fs::metadata(path).with_context(|| format!("can't read {}", path.display()))?;
    if metadata.is_dir() {
        let found = tree(path, &mut PathBuf::new(), reading, taker)?;
        return if found { Ok(()) } else { bail!("{} holds no Maildir and no mbox", path.display()) };
    }
    let open = || File::open(path).map(|file| BufReader::with_capacity(64 * 1024, file));
    let mut file = open()?;
    match file.fill_buf()? {
        beginning if is_tar(beginning) => {
            let keywords = keywords_in(file)?;
            archive(open()?, reading, keywords, taker)
        }
        beginning if mbox::is_mbox(beginning) => one_mbox(&mut file, "", reading, taker),
        [] => Ok(()),
        _ => bail!("{} is no Maildir, no mbox and no tar archive", path.display()),
    }
}

fn is_tar(beginning: &[u8]) -> bool {
    beginning.get(257..262) == Some(b"ustar")
}

/// Where mail of the source's mailbox `name` (empty: its INBOX) goes.
fn placed(name: &str, reading: &Reading) -> String {
    match (&reading.below, name) {
        (None, "") => "INBOX".to_owned(),
        (None, name) => name.to_owned(),
        (Some(below), "") => below.clone(),
        (Some(below), name) => format!("{below}/{name}"),
    }
}

fn one_mbox(source: &mut dyn BufRead, name: &str, reading: &Reading, taker: &mut dyn Taker) -> anyhow::Result<()> {
    mbox::read(source, reading.variant, &placed(name, reading), &reading.scratch, &mut |found| taker.message(found))
}

/// Reads a folder and what lies below; whether there was mail.
fn tree(root: &Path, below: &mut PathBuf, reading: &Reading, taker: &mut dyn Taker) -> anyhow::Result<bool> {
    let folder = root.join(&*below);
    let mut found = false;
    if folder.join("cur").is_dir() {
        maildir(&folder, &mailbox_of(below), reading, taker)?;
        found = true;
    }
    let mut entries = fs::read_dir(&folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let kind = entry.file_type()?;
        below.push(&name);
        if kind.is_dir() && !["cur", "new", "tmp"].iter().any(|own| name == *own) && !name.to_string_lossy().starts_with("berth-") {
            found |= tree(root, below, reading, taker)?;
        } else if kind.is_file() && !found_in_maildir(&folder) {
            let mut file = BufReader::with_capacity(64 * 1024, File::open(entry.path())?);
            if mbox::is_mbox(file.fill_buf()?) {
                one_mbox(&mut file, &mailbox_of(below), reading, taker)?;
                found = true;
            }
        }
        below.pop();
    }
    Ok(found)
}

fn found_in_maildir(folder: &Path) -> bool {
    folder.join("cur").is_dir()
}

/// The mailbox of a path below the source: `.Archive.2026` (Maildir++) and `Archive/2026.mbox` are `Archive/2026`.
fn mailbox_of(path: &Path) -> String {
    let mut levels: Vec<String> = Vec::new();
    for part in path.components() {
        let part = part.as_os_str().to_string_lossy();
        let part = part.strip_suffix(".mbox").unwrap_or(&part);
        let read = |level: &str| decode_utf7(level).unwrap_or_else(|| level.to_owned());
        match part.strip_prefix('.') {
            Some("") => {}
            Some(folders) => levels.extend(folders.split('.').map(read)),
            None => levels.push(read(part)),
        }
    }
    if levels.first().is_some_and(|first| first.eq_ignore_ascii_case("INBOX")) {
        levels.remove(0);
        if levels.is_empty() {
            return String::new();
        }
        levels.insert(0, "INBOX".to_owned());
    }
    levels.join("/")
}

fn maildir(folder: &Path, mailbox: &str, reading: &Reading, taker: &mut dyn Taker) -> anyhow::Result<()> {
    let mailbox = placed(mailbox, reading);
    taker.mailbox(mailbox.clone())?;
    let keywords = match File::open(folder.join("dovecot-keywords")) {
        Ok(file) => keywords(file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    if let Ok(file) = File::open(folder.join("subscriptions")) {
        subscriptions(file, reading, taker)?;
    }
    let mut files = Vec::new();
    for sub in ["cur", "new"] {
        let listed = match fs::read_dir(folder.join(sub)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            listed => listed?,
        };
        for entry in listed {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                files.push((order(&name), name, entry.path()));
            }
        }
    }
    files.sort();
    for (_, name, path) in files {
        // Another program may have renamed or removed it meanwhile: the next import finds it.
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file.with_context(|| format!("can't read {}", path.display()))?,
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            continue;
        }
        let modified = metadata
            .modified()
            .ok()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
            .and_then(|since| i64::try_from(since.as_secs()).ok());
        let date = own_date(&name).or(modified);
        taker.message(collect(&mut file, mailbox.clone(), flags_of(letters(&name), &keywords), date, &reading.scratch)?)?;
    }
    Ok(())
}

fn collect(source: &mut dyn Read, mailbox: String, flags: Vec<String>, date: Option<i64>, scratch: &Path) -> anyhow::Result<Found> {
    let mut collector = Collector::new(scratch);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(collector.finish(mailbox, flags, date)),
            read => collector.write(buffer.get(..read).unwrap_or_default())?,
        }
    }
}

/// UIDs where names have them, else the time that begins the name.
fn order(name: &str) -> (u64, u64) {
    let field = name.split([',', ':']).find_map(|field| field.strip_prefix("U=")).and_then(|uid| uid.parse().ok());
    let seconds = name.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
    (field.unwrap_or(0), seconds)
}

fn letters(name: &str) -> &str {
    name.rsplit_once(":2,").map_or("", |(_, letters)| letters)
}

/// The INTERNALDATE in a name that Berth wrote: `<seconds>.M<µs>N<counter>E<epoch>.<node>`; others' is the time of the file.
fn own_date(name: &str) -> Option<i64> {
    let mut parts = name.splitn(3, '.');
    let (seconds, middle) = (parts.next()?, parts.next()?);
    parts.next()?;
    let (micros, rest) = middle.strip_prefix('M')?.split_once('N')?;
    let (counter, epoch) = rest.split_once('E')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if [micros, counter, epoch].into_iter().all(is_number) { seconds.parse().ok() } else { None }
}

fn keywords(source: impl Read) -> anyhow::Result<Vec<String>> {
    let mut text = String::new();
    source.take(LIST_BYTES_MAX).read_to_string(&mut text)?;
    let mut names = Vec::new();
    for line in text.lines() {
        let Some((position, name)) = line.split_once(' ') else { continue };
        let Some(position) = position.parse::<usize>().ok().filter(|position| *position < 26) else { continue };
        if names.len() <= position {
            names.resize(position + 1, String::new());
        }
        name.clone_into(&mut names[position]);
    }
    Ok(names)
}

fn subscriptions(source: impl Read, reading: &Reading, taker: &mut dyn Taker) -> anyhow::Result<()> {
    let mut text = String::new();
    source.take(LIST_BYTES_MAX).read_to_string(&mut text)?;
    let tabs = text.starts_with("V\t2");
    for line in text.lines().skip(usize::from(tabs)).filter(|line| !line.is_empty()) {
        let separator = if tabs {
            '\t'
        } else if line.contains('/') {
            '/'
        } else {
            '.'
        };
        let levels: Vec<String> = line.split(separator).map(|level| decode_utf7(level).unwrap_or_else(|| level.to_owned())).collect();
        let name = levels.join("/");
        taker.subscribed(placed(if name.eq_ignore_ascii_case("INBOX") { "" } else { &name }, reading))?;
    }
    Ok(())
}

/// Keywords by folder in an archive.
type Keywords = BTreeMap<PathBuf, Vec<String>>;

fn keywords_in(source: impl Read) -> anyhow::Result<Keywords> {
    let mut found = Keywords::new();
    for entry in tar::Archive::new(source).entries()? {
        let entry = entry?;
        let path = entry.path()?.into_owned();
        if path.file_name().is_some_and(|name| name == "dovecot-keywords") {
            let folder = path.parent().unwrap_or(Path::new("")).to_owned();
            found.insert(folder, keywords(entry)?);
        }
    }
    Ok(found)
}

fn archive(source: impl Read, reading: &Reading, mut known: Keywords, taker: &mut dyn Taker) -> anyhow::Result<()> {
    // The folder that the whole archive lies in, as in `tar c Maildir`, is no mailbox.
    let mut root: Option<PathBuf> = None;
    for entry in tar::Archive::new(source).entries()? {
        let mut entry = entry.context("the archive is damaged or cut short")?;
        let path: PathBuf = entry.path()?.components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect();
        let (Some(name), Some(folder)) = (path.file_name().map(|name| name.to_string_lossy().into_owned()), path.parent()) else {
            continue;
        };
        let root = root.get_or_insert_with(|| outermost(&path, entry.header().entry_type().is_dir()));
        let inside = |folder: &Path| mailbox_of(folder.strip_prefix(&*root).unwrap_or(folder));
        if entry.header().entry_type().is_dir() {
            if name == "cur" {
                taker.mailbox(placed(&inside(folder), reading))?;
            }
            continue;
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let date = entry.header().mtime().ok().and_then(|seconds| i64::try_from(seconds).ok());
        match (name.as_str(), folder.file_name().map(|name| name.to_string_lossy().into_owned()).as_deref()) {
            ("dovecot-keywords", _) => {
                known.insert(folder.to_owned(), keywords(entry)?);
            }
            ("subscriptions", _) => subscriptions(entry, reading, taker)?,
            (_, Some("cur" | "new")) => {
                let folder = folder.parent().unwrap_or(Path::new(""));
                let keywords = known.get(folder).map(Vec::as_slice).unwrap_or_default();
                let flags = flags_of(letters(&name), keywords);
                let date = own_date(&name).or(date);
                taker.message(collect(&mut entry, placed(&inside(folder), reading), flags, date, &reading.scratch)?)?;
            }
            (_, Some("tmp")) => {}
            _ => {
                let mut entry = BufReader::with_capacity(64 * 1024, entry);
                if entry.fill_buf()?.get(..BEGINNING_BYTES.min(5)).is_some_and(mbox::is_mbox) {
                    one_mbox(&mut entry, &inside(&path), reading, taker)?;
                }
            }
        }
    }
    Ok(())
}

/// The folder above the first Maildir of an archive, from its first entry: a tree's own folder comes before what lies in it.
fn outermost(first: &Path, is_folder: bool) -> PathBuf {
    let is_part = |name: &str| ["cur", "new", "tmp", "subscriptions", "dovecot-keywords"].contains(&name) || name.starts_with('.');
    let inner = first.components().position(|part| is_part(&part.as_os_str().to_string_lossy()));
    match inner {
        Some(depth) => first.components().take(depth).collect(),
        None if is_folder => first.to_owned(),
        None => first.parent().unwrap_or(Path::new("")).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_mailboxes() {
        for (path, mailbox) in [
            ("", ""),
            (".Archive.2026", "Archive/2026"),
            (".Entw&APw-rfe", "Entwürfe"),
            ("Archive/2026.mbox", "Archive/2026"),
            ("INBOX.mbox", ""),
            ("INBOX", ""),
            (".INBOX.Work", "INBOX/Work"),
            ("lists/rust", "lists/rust"),
        ] {
            assert_eq!(mailbox_of(Path::new(path)), mailbox, "{path}");
        }
    }

    #[test]
    fn an_archives_own_folder_is_no_mailbox() {
        for (first, is_folder, root) in [
            ("Maildir", true, "Maildir"),
            ("Maildir/cur/1.x", false, "Maildir"),
            (".Sent/cur", true, ""),
            ("subscriptions", false, ""),
            ("a/b/.Sent/cur/x", false, "a/b"),
            ("mail/INBOX.mbox", false, "mail"),
        ] {
            assert_eq!(outermost(Path::new(first), is_folder), Path::new(root), "{first}");
        }
    }

    #[test]
    fn names_say_what_they_say() {
        let ours = "1763748000.M52P9N1E4.node-a,S=1,W=1,U=12:2,FS";
        assert_eq!((order(ours), letters(ours), own_date(ours)), ((12, 1_763_748_000), "FS", None));
        let ours = "1763748000.M52N1E4.node-a,S=1,W=1,U=12:2,FS";
        assert_eq!(own_date(ours), Some(1_763_748_000));
        assert_eq!((order("1763748000.1_2.host"), letters("x:1,S"), own_date("1763748000.M52N1.h")), ((0, 1_763_748_000), "", None));
    }
}
