//! SETACL, DELETEACL, GETACL, LISTRIGHTS, MYRIGHTS (RFC 4314 §3), of the owner's session or of a guest's with `a`.
//!
//! The owner has every right, whatever an entry says, and is the first entry of GETACL.

use storage::{
    AclChange, MailboxName, Rights,
    acl::{Identifier, Subject},
};

use super::valid;
use crate::imap::{
    holding::Holding,
    reply::{Reply, Stop},
    session::Session,
    wire::{
        command::MailboxArgument,
        response::{self, Code},
    },
};

/// SETACL.
pub async fn set<H: Holding>(session: &mut Session<H>, mailbox: MailboxArgument, whom: &str, rights: &str) -> Result<Reply, Stop> {
    let change = modification(rights)?;
    change_entry(session, mailbox, whom, change, "Setacl completed").await
}

/// DELETEACL.
pub async fn delete<H: Holding>(session: &mut Session<H>, mailbox: MailboxArgument, whom: &str) -> Result<Reply, Stop> {
    change_entry(session, mailbox, whom, AclChange::Delete, "Deleteacl completed").await
}

async fn change_entry<H: Holding>(
    session: &mut Session<H>,
    mailbox: MailboxArgument,
    whom: &str,
    change: AclChange,
    done: &'static str,
) -> Result<Reply, Stop> {
    let (name, subject) = (valid(mailbox)?, subject(whom)?);
    if is_owner(session, &subject.identifier) {
        return match change {
            AclChange::Replace(Rights::ALL) | AclChange::Add(_) if !subject.negative => Ok(Reply::ok(done)),
            _ => Err(Reply::no(Code::NoPerm, "The owner has every right, always").into()),
        };
    }
    session.held.run(move |account| account.change_acl(&name, subject, change)).await?;
    Ok(Reply::ok(done))
}

/// GETACL.
pub async fn get<H: Holding>(session: &mut Session<H>, mailbox: MailboxArgument) -> Result<Reply, Stop> {
    let name = existing(session, mailbox)?;
    let asked = name.clone();
    let acl = session.held.run(move |account| account.acl(&asked)).await?;
    let owner = session.held.account().user().to_string();
    let mut entries = vec![(owner, Rights::ALL.with_obsolete())];
    let others = acl.iter().filter(|(subject, _)| !is_owner(session, &subject.identifier));
    entries.extend(others.map(|(subject, rights)| (subject.to_string(), rights.with_obsolete())));
    let (shown, names) = (session.shown(name.as_str()), session.enabled.names());
    response::acl(session.connection.output(), &shown, &entries, names);
    Ok(Reply::ok("Getacl completed"))
}

/// LISTRIGHTS: nothing is tied, and the owner's rights can't be taken.
pub async fn list_rights<H: Holding>(session: &mut Session<H>, mailbox: MailboxArgument, whom: &str) -> Result<Reply, Stop> {
    let (name, subject) = (existing(session, mailbox)?, subject(whom)?);
    let all = Rights::ALL.with_obsolete();
    let rights = if is_owner(session, &subject.identifier) {
        vec![all]
    } else {
        [String::new()].into_iter().chain(all.chars().map(String::from)).collect()
    };
    let (shown, names) = (session.shown(name.as_str()), session.enabled.names());
    response::list_rights(session.connection.output(), &shown, whom, rights.iter().map(String::as_str), names);
    Ok(Reply::ok("Listrights completed"))
}

/// MYRIGHTS.
pub async fn my_rights<H: Holding>(session: &mut Session<H>, mailbox: MailboxArgument) -> Result<Reply, Stop> {
    let name = existing(session, mailbox)?;
    let rights = session.rights(&name).await?;
    let (shown, names) = (session.shown(name.as_str()), session.enabled.names());
    response::my_rights(session.connection.output(), &shown, &rights.with_obsolete(), names);
    Ok(Reply::ok("Myrights completed"))
}

fn existing<H: Holding>(session: &Session<H>, mailbox: MailboxArgument) -> Result<MailboxName, Stop> {
    let name = valid(mailbox)?;
    if session.held.account().is_mailbox(&name) { Ok(name) } else { Err(storage::StorageError::NoMailbox(name).into()) }
}

fn is_owner<H: Holding>(session: &Session<H>, identifier: &Identifier) -> bool {
    match identifier {
        Identifier::Owner => true,
        Identifier::User(user) => user == session.held.account().user(),
        _ => false,
    }
}

fn subject(whom: &str) -> Result<Subject, Reply> {
    whom.parse().map_err(|error: storage::acl::NoIdentifier| Reply::bad(error.to_string()))
}

fn modification(text: &str) -> Result<AclChange, Reply> {
    let (make, letters): (fn(Rights) -> AclChange, &str) = match text.split_at_checked(1) {
        Some(("+", letters)) => (AclChange::Add, letters),
        Some(("-", letters)) => (AclChange::Remove, letters),
        _ => (AclChange::Replace, text),
    };
    let rights = Rights::parse(letters).map_err(|letter| match letter {
        'A'..='Z' => Reply::bad("Uppercase rights are not allowed"),
        _ => Reply::bad(format!("The {letter} right is not supported")),
    });
    rights.map(make)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modifications_are_read_as_in_rfc_4314() {
        let rights = |letters: &str| Rights::parse(letters).unwrap();
        assert_eq!(modification("+cda"), Ok(AclChange::Add(rights("kxtea"))));
        assert_eq!(modification("-w"), Ok(AclChange::Remove(rights("w"))));
        assert_eq!(modification(""), Ok(AclChange::Replace(Rights::NONE)));
        assert_eq!(modification("lrQswicda"), Err(Reply::bad("Uppercase rights are not allowed")));
        assert_eq!(modification("lrqswicda"), Err(Reply::bad("The q right is not supported")));
        assert!(modification("ü").is_err());
    }
}
