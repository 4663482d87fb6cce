//! What a client enabled: how it writes, and what it wants to be told in which form.

use std::borrow::Cow;

use super::response::Names;

/// What separates the levels of mailbox names for clients. Everywhere else, on disk and in memory, it is `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Separator {
    /// `/`
    #[default]
    Slash,
    /// `.`, as Courier's clients know it, and those of many Dovecots.
    Dot,
}

impl Separator {
    /// Reads the setting.
    pub fn parse(text: &str) -> Option<Separator> {
        [Separator::Slash, Separator::Dot].into_iter().find(|separator| separator.as_str() == text)
    }
    /// The character.
    pub fn as_str(self) -> &'static str {
        match self {
            Separator::Slash => "/",
            Separator::Dot => ".",
        }
    }
    /// A name of ours as a client reads it.
    pub fn written(self, name: &str) -> Cow<'_, str> {
        match self {
            Separator::Slash => name.into(),
            Separator::Dot => name.replace('/', ".").into(),
        }
    }
    /// What a client wrote, with `/` between levels.
    pub fn read(self, name: &str) -> Result<Cow<'_, str>, &'static str> {
        match self {
            Separator::Slash => Ok(name.into()),
            Separator::Dot if name.contains('/') => Err("levels are separated by \".\" here, and a name can't have \"/\""),
            Separator::Dot => Ok(name.replace('.', "/").into()),
        }
    }
}

/// What ENABLE (RFC 5161) and the CONDSTORE enabling commands (RFC 7162 §3.1) switched on in one session. It only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enabled {
    /// CONDSTORE and QRESYNC.
    pub awareness: Awareness,
    /// IMAP4rev2 (RFC 9051).
    pub rev2: bool,
    /// UTF8=ACCEPT (RFC 6855).
    pub utf8_accept: bool,
    /// UIDONLY (RFC 9586): sequence numbers are neither told nor taken.
    pub uid_only: bool,
    /// By the settings: how names are written all along.
    pub separator: Separator,
}

/// Which items unasked FETCH responses have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awareness {
    /// FLAGS.
    Plain,
    /// UID and MODSEQ too (RFC 7162 §3.1: after a CONDSTORE enabling command; §3.2.4 wants the UID).
    CondStore,
    /// The same, and VANISHED instead of EXPUNGE (RFC 7162 §3.2.3: after ENABLE QRESYNC).
    QResync,
}

impl Enabled {
    /// A session at its start.
    pub const NOTHING: Enabled =
        Enabled { awareness: Awareness::Plain, rev2: false, utf8_accept: false, uid_only: false, separator: Separator::Slash };

    /// Whether FETCH responses that tell of a change have MODSEQ.
    pub fn modseq(self) -> bool {
        self.awareness != Awareness::Plain
    }
    /// Whether FETCH responses that nobody asked for have the UID (RFC 7162 §3.2.4; RFC 9051 §7.5.2 wants it always).
    pub fn uid(self) -> bool {
        !self.uid_only && (self.modseq() || self.rev2) // UIDFETCH has it in front
    }
    /// Whether ENABLE QRESYNC was given.
    pub fn qresync(self) -> bool {
        self.awareness == Awareness::QResync
    }
    /// Whether expunged messages are told by UID.
    pub fn vanished(self) -> bool {
        self.qresync() || self.uid_only
    }
    /// Whether there are RECENT and \Recent: IMAP4rev2 has neither.
    pub fn recent(self) -> bool {
        !self.rev2
    }
    /// Whether strings may be UTF-8, mailbox names among them.
    pub fn utf8(self) -> bool {
        self.rev2 || self.utf8_accept
    }
    /// How mailbox names are written.
    pub fn names(self) -> Names {
        Names { utf8: self.utf8(), separator: self.separator }
    }
}
