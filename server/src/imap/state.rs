//! The states of a logged-in session (RFC 3501 §3): each holds what its commands work on, so that a command in the wrong state has
//! nothing to be called with. Before login is `login.rs`; after LOGOUT the session is over.

use std::sync::Arc;

use index::{FlagSet, Uid};
use storage::{Copied, Mailbox, Rights, StorageError, StoreOperation, Stored};
use tokio::sync::watch;

use crate::imap::{
    command::{contexts::Contexts, notify::Heard},
    reply::Reply,
    sets::SavedUids,
    view::View,
    wire::{command::FlagArgument, response::Code},
};

/// Where a session is.
pub enum State {
    /// No mailbox is selected.
    Authenticated,
    /// One is.
    Selected(Selected),
    /// One of another user is, in the session that `foreign/` has with its holder.
    Elsewhere,
}

/// An open mailbox as one session sees it.
pub struct Selected {
    /// The mailbox, shared with all sessions of the user.
    pub mailbox: Arc<Mailbox>,
    /// SELECT or EXAMINE.
    pub access: Access,
    /// What the client believes it holds.
    pub view: View,
    /// Moves when the mailbox changes.
    pub changes: watch::Receiver<u64>,
    /// How many keywords the client knows by name.
    pub keywords_told: usize,
    /// With QRESYNC: the client was told a lower HIGHESTMODSEQ, because expunges are told later.
    pub expunges_owed: bool,
    /// What the session may do here: everything, but for guests.
    pub rights: Rights,
    /// What `$` names (RFC 5182): what the last SEARCH with SAVE found, at first nothing.
    pub saved: SavedUids,
    /// Searches whose results are kept up to date.
    pub contexts: Box<Contexts>,
    /// What the client wants to hear of the mailbox.
    pub heard: Box<Heard>,
    /// A command that removes messages must tell which went, whatever is heard.
    pub must_tell: bool,
    /// Of messages below this UID, what is heard of new ones was sent.
    pub announced: u32,
    /// Messages that the client itself put here, not announced so far.
    pub own: Vec<Uid>,
}

/// More than the keywords a mailbox can have: FLAGS is told at once.
pub const NOTHING_TOLD: usize = usize::MAX;

/// What the client asked to do with a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// EXAMINE.
    ReadOnly,
    /// SELECT.
    ReadWrite,
}

impl State {
    /// The selected mailbox, or the reply for commands that need one.
    pub fn selected(&mut self) -> Result<&mut Selected, Reply> {
        match self {
            State::Selected(selected) => Ok(selected),
            State::Authenticated | State::Elsewhere => Err(Reply::bad("No mailbox is selected")),
        }
    }

    /// The selected mailbox, if there is one.
    pub fn opened(&self) -> Option<&Selected> {
        match self {
            State::Selected(selected) => Some(selected),
            State::Authenticated | State::Elsewhere => None,
        }
    }
}

impl Selected {
    /// The rights are these now; FLAGS is told again if they were others.
    pub fn learn_rights(&mut self, rights: Rights) {
        if self.rights != rights {
            self.rights = rights;
            self.keywords_told = NOTHING_TOLD;
        }
    }

    /// A mailbox to look into while another is selected, or none.
    pub fn aside(mailbox: Arc<Mailbox>) -> Selected {
        let view = View::open(&*mailbox.read());
        let changes = mailbox.changes();
        let (announced, saved, contexts) = (view.uid_next(), SavedUids::default(), Box::default());
        Selected {
            mailbox,
            access: Access::ReadOnly,
            view,
            changes,
            keywords_told: NOTHING_TOLD,
            expunges_owed: false,
            rights: Rights::ALL,
            saved,
            contexts,
            heard: Box::new(Heard::ALWAYS),
            must_tell: false,
            announced,
            own: Vec::new(),
        }
    }

    /// The mailbox for changing it; EXAMINE has none.
    pub fn writable(&self) -> Result<Writable, Reply> {
        match self.access {
            Access::ReadWrite => Ok(Writable(Arc::clone(&self.mailbox))),
            Access::ReadOnly => Err(Reply::no(Code::ReadOnly, "The mailbox is open read-only, use SELECT to change it")),
        }
    }
}

/// A mailbox that this session may change. Only [`Selected::writable`] makes one.
pub struct Writable(Arc<Mailbox>);

impl Writable {
    /// Changes flags. Blocking.
    pub fn store(&self, uids: &[Uid], operation: StoreOperation, unchanged_since: Option<u64>) -> Result<Stored, StorageError> {
        self.0.store(uids, operation, unchanged_since)
    }
    /// Removes what has \Deleted, of `uids` or of all. Blocking.
    pub fn expunge(&self, uids: Option<&[Uid]>) -> Result<Vec<Uid>, StorageError> {
        self.0.expunge(uids)
    }
    /// Removes messages whatever their flags. Blocking.
    pub fn remove(&self, uids: &[Uid]) -> Result<Vec<Uid>, StorageError> {
        self.0.remove(uids)
    }
    /// Moves messages away. Blocking.
    pub fn move_keeping(&self, uids: &[Uid], target: &Mailbox, kept: FlagSet) -> Result<Copied, StorageError> {
        self.0.move_keeping(uids, target, kept)
    }
    /// The flags a client names, new keywords made on the way. Blocking.
    pub fn make_flags(&self, flags: &[FlagArgument]) -> Result<FlagSet, StorageError> {
        make_flags(&self.0, flags)
    }
}

/// The flags a client names for a message in `mailbox`, new keywords made on the way. Blocking.
pub fn make_flags(mailbox: &Mailbox, flags: &[FlagArgument]) -> Result<FlagSet, StorageError> {
    flags.iter().try_fold(FlagSet::EMPTY, |set, flag| {
        Ok(set.with(match flag {
            FlagArgument::System(flag) => *flag,
            FlagArgument::Keyword(name) => index::Flag::Keyword(mailbox.keyword(name)?),
        }))
    })
}

/// The flags a client names, as far as `keywords` has them: what isn't there can't be taken away either.
pub fn known_flags(keywords: &[String], flags: &[FlagArgument]) -> FlagSet {
    flags.iter().fold(FlagSet::EMPTY, |set, flag| match flag {
        FlagArgument::System(flag) => set.with(*flag),
        FlagArgument::Keyword(name) => {
            let position = keywords.iter().position(|keyword| keyword.eq_ignore_ascii_case(name));
            position.and_then(index::KeywordId::new).map_or(set, |id| set.with(index::Flag::Keyword(id)))
        }
    })
}

#[cfg(test)]
mod tests {
    use index::{Flag, KeywordId};

    use super::*;

    #[test]
    fn commands_for_a_mailbox_have_none_before_select() {
        let reply = State::Authenticated.selected().err().unwrap();
        assert_eq!(reply, Reply::bad("No mailbox is selected"));
    }

    #[test]
    fn a_keyword_that_no_message_can_have_is_not_taken_away() {
        let keywords = ["$Junk".to_owned()];
        let named = [FlagArgument::System(Flag::Seen), FlagArgument::Keyword("$junk".into()), FlagArgument::Keyword("other".into())];
        let expected = FlagSet::of(&[Flag::Seen, Flag::Keyword(KeywordId::new(0).unwrap())]);
        assert_eq!(known_flags(&keywords, &named), expected);
    }
}
