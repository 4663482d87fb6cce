//! How an incarnation ended, as the name in `fenced/` says: `<node>,<incarnation>,<beat>[,<how>]`.
//!
//! Nothing is decided by it, so that it may be missing. A rename names the very beat that it moves away, and of all that want to move it one wins: a request that
//! lands late finds nothing, whatever its target says.
//!
//! Invariants, each with the test that guards it:
//! - what is printed is read back, and nothing else is read (`what_is_said_of_an_end_is_read_back`)
//! - the longest name fits into what a file system gives (`the_longest_end_fits`)

use std::{fmt, str::FromStr, time::Duration};

use crate::{
    NameError, NodeName,
    names::{FENCED, NodeFile},
};

/// What is added to a beat to take the name from its node: no node beats so often.
pub const TAKEN: u64 = 1 << 40;

/// A beat as it was before somebody took its node's name.
pub fn last_beat(beat: u64) -> u64 {
    if beat >= TAKEN { beat - TAKEN } else { beat }
}

/// How an incarnation ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ending {
    /// It was stopped, handed its users on, and left.
    Left,
    /// It gave its leases up, since it could not close its accounts, and joined anew.
    Resigned,
    /// The same host started its node again.
    Restarted,
    /// An operator declared it dead.
    Operator,
    /// It gave no sign of life.
    Fenced {
        /// Who saw that, and fenced it.
        by: NodeName,
    },
    /// A newer start of the same node name, on another host, took its name.
    NameTaken,
    /// The name does not say it.
    Unknown,
}

/// A name in `fenced/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndedFile {
    /// Who, and the beat as it stood there (more than [`TAKEN`] where the name was taken).
    pub file: NodeFile,
    /// What is said of its end; [`EndedFile::ending`] is what it means.
    said: Ending,
}

impl Ending {
    /// Those that a name says by their word alone.
    const BY_WORD: [Ending; 4] = [Ending::Left, Ending::Resigned, Ending::Restarted, Ending::Operator];

    /// One word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Ending::Left => "left",
            Ending::Resigned => "resigned",
            Ending::Restarted => "restarted",
            Ending::Operator => "operator",
            Ending::Fenced { .. } => "fenced",
            Ending::NameTaken => "name-taken",
            Ending::Unknown => "unknown",
        }
    }
}

impl NodeFile {
    /// Its name once it has ended so.
    pub fn ended(&self, how: Ending) -> EndedFile {
        EndedFile { file: self.clone(), said: if how == Ending::NameTaken { Ending::Unknown } else { how } }
    }
    /// The number of its last sign of life.
    pub fn last_beat(&self) -> u64 {
        last_beat(self.beat)
    }
}

impl EndedFile {
    /// Its path.
    pub fn path(&self) -> String {
        format!("{FENCED}/{self}")
    }
    /// How it ended.
    pub fn ending(&self) -> Ending {
        // Whoever fenced what is left of it did not end it.
        if self.file.beat >= TAKEN { Ending::NameTaken } else { self.said.clone() }
    }
}

impl fmt::Display for EndedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = &self.file;
        match &self.said {
            Ending::Fenced { by } => write!(f, "{file},by={by}"),
            Ending::NameTaken | Ending::Unknown => write!(f, "{file}"),
            said => write!(f, "{file},{}", said.word()),
        }
    }
}

impl FromStr for EndedFile {
    type Err = NameError;
    fn from_str(raw: &str) -> Result<EndedFile, NameError> {
        if let Ok(file) = raw.parse() {
            return Ok(EndedFile { file, said: Ending::Unknown });
        }
        let malformed = || NameError::Malformed(raw.to_owned());
        let (file, how) = raw.rsplit_once(',').ok_or_else(malformed)?;
        let said = match Ending::BY_WORD.into_iter().find(|said| said.word() == how) {
            Some(said) => said,
            None => Ending::Fenced { by: how.strip_prefix("by=").ok_or_else(malformed)?.parse()? },
        };
        Ok(EndedFile { file: file.parse()?, said })
    }
}

/// Why a tenure of ours is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenureEnd {
    /// What `fenced/` says.
    pub ending: Ending,
    /// How long this process did not run since its last beat that counted, where that is why.
    pub stood_still: Option<Duration>,
}

/// What to look at where a process did not run.
pub const STOOD_STILL_ADVICE: &str = "look at CPU and memory of this host, a virtual machine that was paused, and SIGSTOP";

impl fmt::Display for TenureEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        match (&self.ending, self.stood_still) {
            (Ending::Fenced { by }, Some(time)) => {
                write!(f, "this process stood still for {} and was fenced by {by}: {STOOD_STILL_ADVICE}", seconds(time))
            }
            (Ending::Unknown, Some(time)) => {
                write!(f, "this process stood still for {} and was fenced, by whom is not known: {STOOD_STILL_ADVICE}", seconds(time))
            }
            (Ending::Fenced { by }, None) => {
                write!(f, "fenced by {by}: it saw no beat of this node for too long. Did the file server take none from this host?")
            }
            (Ending::Operator, _) => write!(f, "an operator fenced this node (`berth fence`)"),
            (Ending::Resigned, _) => write!(f, "this node gave its leases up"),
            (Ending::NameTaken, _) => write!(f, "another host runs under this node's name"),
            (Ending::Restarted, _) => write!(f, "a newer start of this node on this host replaced it"),
            (Ending::Left, _) => write!(f, "this node left"),
            (Ending::Unknown, None) => write!(f, "this node was fenced, by whom is not known"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::{
        HolderId, Incarnation,
        ids::NODE_NAME_BYTES_MAX,
        names::{FILE_NAME_BYTES_MAX, NUMBER_MAX},
    };

    fn file(node: &str, beat: u64) -> NodeFile {
        let incarnation = Incarnation::from_number(NonZeroU64::MAX);
        NodeFile { holder: HolderId { node: node.parse().unwrap(), incarnation }, beat }
    }

    #[test]
    fn what_is_said_of_an_end_is_read_back() {
        let by = Ending::Fenced { by: "mail2".parse().unwrap() };
        for how in [Ending::Left, Ending::Resigned, Ending::Restarted, Ending::Operator, by.clone(), Ending::Unknown] {
            let ended = file("mail1", 7).ended(how.clone());
            let read: EndedFile = ended.to_string().parse().unwrap();
            assert_eq!((read.ending(), &read), (how, &ended));
        }
        assert_eq!(file("mail1", 7).ended(Ending::Unknown).path(), file("mail1", 7).in_fenced());
        assert_eq!(file("mail1", 7).ended(by.clone()).path(), "fenced/mail1,ffffffffffffffff,7,by=mail2");
        let taken = file("mail1", 7 + TAKEN).ended(by);
        assert_eq!((taken.ending(), taken.file.last_beat()), (Ending::NameTaken, 7));
        for bad in [
            "",
            "left",
            "mail1,ffffffffffffffff,7,",
            "mail1,ffffffffffffffff,7,Left",
            "mail1,ffffffffffffffff,7,by=",
            "mail1,ffffffffffffffff,left",
            "mail1,ffffffffffffffff,7,left,left",
        ] {
            assert!(bad.parse::<EndedFile>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longest_end_fits() {
        let longest = "n".repeat(NODE_NAME_BYTES_MAX);
        let ended = file(&longest, NUMBER_MAX).ended(Ending::Fenced { by: longest.parse().unwrap() });
        assert!(ended.to_string().len() <= FILE_NAME_BYTES_MAX);
    }

    #[test]
    fn a_process_that_stood_still_blames_itself_and_others_do_not() {
        let by = Ending::Fenced { by: "mail2".parse().unwrap() };
        let said = TenureEnd { ending: by.clone(), stood_still: Some(Duration::from_millis(20_040)) }.to_string();
        assert!(said.starts_with("this process stood still for 20.0 s and was fenced by mail2: ") && said.contains("SIGSTOP"), "{said}");
        let said = TenureEnd { ending: by, stood_still: None }.to_string();
        assert!(said.starts_with("fenced by mail2: ") && !said.contains("stood still"), "{said}");
    }
}
