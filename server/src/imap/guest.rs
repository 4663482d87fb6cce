//! A session on the holder of somebody's mail that serves not them but another user (RFC 4314): it may do what the ACL of each mailbox allows, now.
//!
//! Where a session meets a name that is in another's namespace, its node opens such a session with the owner's holder, here or elsewhere (`foreign/`).
//! Mailboxes are called as that user knows them: `Other Users/ada/Work`.
//!
//! Invariants, each with the test that guards it:
//! - no command is run without the rights it needs (`every_command_needs_its_rights`)
//! - what may not be looked up is answered as what is not there (`a_mailbox_without_lookup_is_as_good_as_missing`)
//! - a change of an ACL counts from the next command on (`a_withdrawn_right_ends_what_it_allowed`)

use index::{Flag, FlagSet};
use serde::{Deserialize, Serialize};
use storage::{MailboxName, Right, Rights, StorageError, Who};

use crate::imap::{
    holding::Holding,
    reply::{Reply, Stop},
    session::Session,
    state::{Selected, State},
    updates,
    wire::{
        command::{AppendStart, Command, FlagArgument, MailboxArgument},
        response::Code,
    },
};

/// Whoever has one of these may know that a mailbox is there (RFC 4314 §4, MYRIGHTS).
const ANY: Rights =
    Rights::of(&[Right::Lookup, Right::Read, Right::Insert, Right::CreateMailboxes, Right::DeleteMailbox, Right::Administer]);
/// With one of these, SELECT is READ-WRITE (RFC 4314 §5.2; all flags are shared here).
const WRITING: Rights = Rights::of(&[Right::Insert, Right::Expunge, Right::Seen, Right::Write, Right::DeleteMessages]);
/// Most messages of one APPEND of a guest: what COPY between users takes at once.
pub const APPEND_MAX: usize = 500;
/// What MOVE and REPLACE do to their source.
pub const TAKE_AWAY: Rights = Rights::of(&[Right::DeleteMessages, Right::Expunge]);

/// Who comes, as the node that they are on says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Who.
    pub user: affinity::UserName,
    /// Their groups.
    pub groups: Vec<String>,
    /// Came without a name (SASL ANONYMOUS).
    pub anonymous: bool,
    /// What their names of the owner's mailboxes begin with, as in `Other Users/ada/`.
    pub prefix: String,
}

impl Guest {
    /// For the ACL.
    pub fn who(&self) -> Who {
        Who { user: self.user.clone(), groups: self.groups.clone(), anonymous: self.anonymous }
    }
    /// The owner's name of what the guest calls so.
    pub fn local(&self, name: &MailboxName) -> Option<MailboxName> {
        name.as_str().strip_prefix(&self.prefix).and_then(|rest| MailboxName::parse(rest).ok())
    }
    fn localised(&self, mailbox: MailboxArgument) -> MailboxArgument {
        let elsewhere = || MailboxArgument::Impossible("The mailbox is not in this namespace".to_owned());
        match mailbox {
            MailboxArgument::Valid(name) => self.local(&name).map_or_else(elsewhere, MailboxArgument::Valid),
            MailboxArgument::Renamed { name, written } => {
                self.local(&name).map_or_else(elsewhere, |name| MailboxArgument::Renamed { name, written })
            }
            impossible @ MailboxArgument::Impossible(_) => impossible,
        }
    }
    /// The command with the owner's names of mailboxes.
    pub fn localise(&self, mut command: Command) -> Command {
        for mailbox in command.mailboxes_mut() {
            let taken = std::mem::replace(mailbox, MailboxArgument::Impossible(String::new()));
            *mailbox = self.localised(taken);
        }
        command
    }
    /// The same of an APPEND that is streamed.
    pub fn localise_append(&self, start: AppendStart) -> AppendStart {
        AppendStart { mailbox: self.localised(start.mailbox), ..start }
    }
}

/// What a command asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// All of these.
    All(Rights),
    /// One of these.
    One(Rights),
    /// `k` on the nearest mailbox above.
    Above,
}

fn all(rights: &[Right]) -> Need {
    Need::All(Rights::of(rights))
}

/// What a command needs of the mailboxes that it names, in their order, and of the selected one.
fn needs(command: &Command) -> Option<(Vec<Need>, Option<Need>)> {
    use Right::{Administer, DeleteMailbox, Expunge, Insert, Read, Write};
    let nothing = (Vec::new(), None);
    Some(match command {
        Command::Noop | Command::Check | Command::Idle | Command::Close | Command::Unselect | Command::Enable(_) | Command::Logout => {
            nothing
        }
        // What STORE may change is looked at flag by flag.
        Command::CancelUpdate(_)
        | Command::Fetch { .. }
        | Command::Search { .. }
        | Command::Sort { .. }
        | Command::Thread { .. }
        | Command::Store { .. } => nothing,
        Command::Select(_) | Command::Status { .. } | Command::GetQuotaRoot(_) => (vec![all(&[Read])], None),
        Command::GetMetadata(get) if get.mailbox.is_some() => (vec![all(&[Read])], None),
        Command::SetMetadata { mailbox: Some(_), .. } => (vec![all(&[Write])], None),
        Command::Create { .. } => (vec![Need::Above], None),
        Command::Delete(_) => (vec![all(&[DeleteMailbox])], None),
        Command::Rename { .. } => (vec![all(&[DeleteMailbox]), Need::Above], None),
        Command::SetAcl { .. } | Command::DeleteAcl { .. } | Command::GetAcl(_) | Command::ListRights { .. } => {
            (vec![all(&[Administer])], None)
        }
        Command::MyRights(_) => (vec![Need::One(ANY)], None),
        Command::Expunge | Command::UidExpunge(_) => (Vec::new(), Some(all(&[Expunge]))),
        Command::Copy { .. } => (vec![all(&[Insert])], None),
        Command::Move { .. } => (vec![all(&[Insert])], Some(Need::All(TAKE_AWAY))),
        Command::Append(start) => (vec![all(&[Insert])], start.replaces.is_some().then_some(Need::All(TAKE_AWAY))),
        // The owner's own affairs, and what the guest's own session answers.
        _ => return None,
    })
}

/// Flags that `rights` allow to be changed (RFC 4314 §4).
pub fn changeable(rights: Rights) -> FlagSet {
    let single = [(Flag::Seen, Right::Seen), (Flag::Deleted, Right::DeleteMessages)];
    let others = if rights.has(Right::Write) { FlagSet::from_bits(u64::MAX) } else { FlagSet::EMPTY };
    single.into_iter().fold(others, |flags, (flag, right)| if rights.has(right) { flags.with(flag) } else { flags.without(flag) })
}

/// Those of `flags` that `rights` allow to be changed.
pub fn permitted(flags: Vec<FlagArgument>, rights: Rights) -> Vec<FlagArgument> {
    let changeable = changeable(rights);
    let is_permitted = |flag: &FlagArgument| match flag {
        FlagArgument::System(flag) => changeable.contains(*flag),
        FlagArgument::Keyword(_) => rights.has(Right::Write),
    };
    flags.into_iter().filter(is_permitted).collect()
}

/// Whether a mailbox with these rights is open for changes.
pub fn may_write(rights: Rights) -> bool {
    rights.any(WRITING)
}

impl<H: Holding> Session<H> {
    /// What this session may do with a mailbox (by the owner's name of it); none with one that is not there.
    pub async fn rights(&self, name: &MailboxName) -> Result<Rights, Stop> {
        let Some(guest) = &self.guest else { return Ok(Rights::ALL) };
        let (who, name) = (guest.who(), name.clone());
        let looked = self.held.run(move |account| match account.acl(&name) {
            Ok(acl) => Ok(acl.rights_of(&who)),
            Err(StorageError::NoMailbox(_)) => Ok(Rights::NONE),
            Err(error) => Err(error),
        });
        Ok(looked.await?)
    }
    /// A mailbox's name as whoever is served knows it.
    pub fn shown(&self, name: &str) -> String {
        format!("{}{name}", self.guest.as_ref().map_or("", |guest| guest.prefix.as_str()))
    }

    /// Refuses a guest what the ACLs do not allow, and tells them of rights that have changed.
    pub async fn permit(&mut self, state: &mut State, command: &Command) -> Result<(), Stop> {
        if self.guest.is_none() {
            return Ok(());
        }
        let Some((named, of_selected)) = needs(command) else {
            return Err(Reply::bad("This is no command for another user's mailboxes").into());
        };
        if let State::Selected(selected) = state {
            self.look_at_rights(selected).await?;
            updates::tell_keywords(&mut self.connection, selected);
            // CLOSE and UNSELECT are possible all the same; so is another SELECT.
            if let Some(Need::All(rights)) = of_selected
                && !rights.difference(selected.rights).is_empty()
            {
                return Err(no_permission(rights).into());
            }
        }
        for (mailbox, need) in command.mailboxes().into_iter().zip(named) {
            let name = match mailbox {
                MailboxArgument::Valid(name) | MailboxArgument::Renamed { name, .. } => name,
                // Refused by the command itself.
                MailboxArgument::Impossible(_) => continue,
            };
            self.permit_one(name, need, matches!(command, Command::Copy { .. } | Command::Move { .. } | Command::Append(_))).await?;
        }
        Ok(())
    }
    /// The same for an APPEND that is streamed.
    pub async fn permit_append(&mut self, state: &mut State, start: &AppendStart) -> Result<(), Stop> {
        if self.guest.is_none() { Ok(()) } else { self.permit(state, &Command::Append(Box::new(start.clone()))).await }
    }
    async fn permit_one(&self, name: &MailboxName, need: Need, is_target: bool) -> Result<(), Stop> {
        let (wanted, has) = match need {
            Need::Above => {
                let wanted = Rights::of(&[Right::CreateMailboxes]);
                let above = self.nearest_above(name);
                (
                    wanted,
                    match &above {
                        Some(above) => self.rights(above).await?,
                        None => Rights::NONE,
                    },
                )
            }
            Need::All(rights) | Need::One(rights) => (rights, self.rights(name).await?),
        };
        let enough = if matches!(need, Need::One(_)) { has.any(wanted) } else { wanted.difference(has).is_empty() };
        match need {
            _ if enough => Ok(()),
            Need::Above => Err(no_permission(wanted).into()),
            // Whoever may not look a mailbox up is not told that it is there.
            _ if has.any(ANY) => Err(no_permission(wanted).into()),
            _ => {
                let code = if is_target { Code::TryCreate } else { Code::Nonexistent };
                Err(Reply::no(code, format!("There is no mailbox {}", self.shown(name.as_str()))).into())
            }
        }
    }
    fn nearest_above(&self, name: &MailboxName) -> Option<MailboxName> {
        let mut above = name.parent();
        while let Some(level) = above {
            if self.held.account().is_mailbox(&level) {
                return Some(level);
            }
            above = level.parent();
        }
        None
    }
    /// Takes note of rights on the selected mailbox; who may not read it any more is gone (RFC 4314 §5.1.1).
    pub async fn look_at_rights(&self, selected: &mut Selected) -> Result<(), Stop> {
        if self.guest.is_none() {
            return Ok(());
        }
        let rights = self.rights(&selected.mailbox.name()).await?;
        if !rights.has(Right::Read) && !selected.mailbox.is_deleted() {
            return Err(Stop::Bye("You may not read the selected mailbox any more".into()));
        }
        selected.learn_rights(rights);
        Ok(())
    }
}

/// NO, with what would have been needed.
pub fn no_permission(needed: Rights) -> Reply {
    Reply::no(Code::NoPerm, format!("The owner of the mailbox has not given you the right to do this ({needed})"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::imap::wire::{
        enabled::Enabled,
        parse::{Options, parse},
    };

    fn command(text: &str) -> Command {
        parse(format!("a {text}").as_bytes(), Options { enabled: Enabled::NOTHING, nesting: 5 }).unwrap().command
    }

    #[test]
    fn the_table_of_rfc_4314_is_a_known_answer() {
        let rights = |letters: &str| Rights::parse(letters).unwrap();
        let named = |letters: &[&str]| letters.iter().map(|letters| Need::All(rights(letters))).collect::<Vec<_>>();
        for (text, letters) in [
            ("DELETE x", "x"),
            ("SELECT x", "r"),
            ("EXAMINE x", "r"),
            ("STATUS x (MESSAGES)", "r"),
            ("SETACL x bob lr", "a"),
            ("DELETEACL x bob", "a"),
            ("GETACL x", "a"),
            ("LISTRIGHTS x bob", "a"),
            ("COPY 1 x", "i"),
        ] {
            assert_eq!(needs(&command(text)), Some((named(&[letters]), None)), "{text}");
        }
        assert_eq!(needs(&command("CREATE x")), Some((vec![Need::Above], None)));
        assert_eq!(needs(&command("RENAME x y")), Some((vec![Need::All(rights("x")), Need::Above], None)));
        assert_eq!(needs(&command("MYRIGHTS x")), Some((vec![Need::One(rights("lrikxa"))], None)));
        assert_eq!(needs(&command("EXPUNGE")), Some((vec![], Some(Need::All(rights("e"))))));
        assert_eq!(needs(&command("MOVE 1 x")), Some((named(&["i"]), Some(Need::All(rights("te"))))));
        for text in ["CLOSE", "FETCH 1 FLAGS", "STORE 1 FLAGS ()", "NOOP"] {
            assert_eq!(needs(&command(text)), Some((vec![], None)), "{text}");
        }
        for text in
            ["LIST \"\" *", "LSUB \"\" *", "SUBSCRIBE x", "GETMETADATA \"\" /private/comment", "GETQUOTA x", "SETQUOTA x ()", "NAMESPACE"]
        {
            assert_eq!(needs(&command(text)), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn each_flag_goes_with_one_right(bits in any::<u64>(), with in 0..1_u16 << 11) {
            let letters: String = "lrswipkxtea".chars().enumerate().filter(|(at, _)| with & (1 << at) != 0).map(|(_, letter)| letter).collect();
            let rights = Rights::parse(&letters).unwrap();
            let flags = FlagSet::from_bits(bits);
            let changed = flags.intersection(changeable(rights));
            prop_assert_eq!(changed.contains(Flag::Seen), flags.contains(Flag::Seen) && rights.has(Right::Seen));
            prop_assert_eq!(changed.contains(Flag::Deleted), flags.contains(Flag::Deleted) && rights.has(Right::DeleteMessages));
            let others = |set: FlagSet| set.without(Flag::Seen).without(Flag::Deleted);
            prop_assert_eq!(others(changed), if rights.has(Right::Write) { others(flags) } else { FlagSet::EMPTY });
        }
    }
}
