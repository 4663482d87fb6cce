//! Identifiers that stay (OBJECTID, RFC 8474): of a message over COPY and MOVE, of a mailbox over RENAME, of both over the loss of the index.
//!
//! A message's EMAILID is made from what no rename of ours changes: the unique part of its file's name, and its size. A copy has a unique part of its
//! own, so its name says whose content it has (`,G=`); so does a name whose unique part had to be replaced. A mailbox's MAILBOXID is made from its
//! UIDVALIDITY, which no two mailboxes of a user share; one that was taken over has the id in the header of the list that came with it.
//!
//! Invariants, each with the test that guards it:
//! - a copy of a copy, and what was moved, has the id of its original, also without the index (`a_message_keeps_its_id_wherever_it_goes`)
//! - no two messages with different content have one (`a_message_keeps_its_id_wherever_it_goes`)
//! - a mailbox keeps its id over a rename and without the index; one made anew has another (`a_mailbox_keeps_its_id_and_leaves_it_to_no_other`)

use std::{fmt, str::FromStr, sync::Arc};

use index::UidValidity;
use sha2::{Digest, Sha256};

use crate::{
    Mailbox, StorageError,
    filesystem::read_small,
    maildir::{
        filename::FileName,
        uidlist::{OwnList, read_guid},
    },
};

/// Longest header of a list: the rest of the file is not needed.
const HEADER_BYTES_MAX: usize = 1024;

/// A message's EMAILID: `M` and 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EmailId(u128);

impl EmailId {
    /// The id of the message in `file`; `size`: RFC822.SIZE.
    pub(crate) fn of(file: &str, size: u64) -> EmailId {
        let base = FileName::of(file).base;
        base.email_id.unwrap_or_else(|| EmailId::made_from(&base.unique, size))
    }
    fn made_from(unique: &str, size: u64) -> EmailId {
        let digest = Sha256::new().chain_update(unique).chain_update([0]).chain_update(size.to_be_bytes()).finalize();
        EmailId(first_128_bits(&digest))
    }
    /// As it stands in a file's name.
    pub(crate) fn print_bare(self) -> String {
        format!("{:032x}", self.0)
    }
    /// Reads what [`EmailId::print_bare`] gives.
    pub(crate) fn parse_bare(text: &str) -> Option<EmailId> {
        let id = EmailId(u128::from_str_radix(text, 16).ok()?);
        (id.print_bare() == text).then_some(id)
    }
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> EmailId {
        EmailId(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for EmailId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "M{:032x}", self.0)
    }
}

/// Not an id that any message here can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoEmailId;

impl FromStr for EmailId {
    type Err = NoEmailId;
    fn from_str(text: &str) -> Result<EmailId, NoEmailId> {
        text.strip_prefix('M').and_then(EmailId::parse_bare).ok_or(NoEmailId)
    }
}

/// The MAILBOXID of a mailbox that was made here.
pub fn mailbox_object_id(validity: UidValidity) -> String {
    format!("F{validity}")
}

/// A new one for a mailbox that comes with a list but without an id.
pub(crate) fn new_guid() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// The MAILBOXID of a mailbox whose list has this id; `None`: it has characters that no id may have (RFC 8474 §7).
fn from_guid(guid: &str) -> Option<String> {
    let fits = !guid.is_empty() && guid.len() < 255 && guid.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    fits.then(|| format!("F{guid}"))
}

impl Mailbox {
    /// Its MAILBOXID. From memory, but for the first look at a mailbox that was taken over. Blocking.
    pub fn object_id(&self) -> Result<Arc<str>, StorageError> {
        if let Some(id) = self.object_id.get() {
            return Ok(Arc::clone(id));
        }
        let _inside = self.store.enter()?;
        let guid = self.guid_in_list()?;
        let id = guid.as_deref().and_then(from_guid).unwrap_or_else(|| mailbox_object_id(self.uid_validity()));
        Ok(Arc::clone(self.object_id.get_or_init(|| id.into())))
    }

    /// The list that was just read, or written, says this.
    pub(crate) fn list_has_guid(&self, guid: Option<&str>) {
        let id = guid.and_then(from_guid).unwrap_or_else(|| mailbox_object_id(self.uid_validity()));
        self.object_id.get_or_init(|| id.into());
    }

    fn guid_in_list(&self) -> Result<Option<String>, StorageError> {
        if self.adopted_below().is_none() {
            return Ok(None);
        }
        let folder = self.folder();
        let entries = self.store.filesystem.list(&folder).map_err(self.store.io("can't list", folder.as_path()))?;
        let Some(own) = OwnList::find(&entries) else { return Ok(None) };
        let path = folder.join(own.print());
        let header = read_small(self.store.filesystem.as_ref(), &path, HEADER_BYTES_MAX).map_err(self.store.io("can't read", &path))?;
        Ok(header.as_deref().and_then(read_guid))
    }
}

/// A digest that is cut to what an id has room for.
pub(crate) fn first_128_bits(digest: &[u8]) -> u128 {
    digest.iter().take(16).fold(0, |id, byte| id << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back_and_nothing_else_is_one() {
        let id = EmailId::of("cur/1763748000.M52P9.host,S=3:2,S", 4);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(EmailId::parse_bare(&id.print_bare()), Some(id));
        assert_eq!(EmailId::from_bytes(id.to_bytes()), id);
        for other in
            ["", "M", "M1", "m00000000000000000000000000000000", "M0000000000000000000000000000000G", "M+0000000000000000000000000000000"]
        {
            assert_eq!(other.parse::<EmailId>(), Err(NoEmailId), "{other}");
        }
    }

    #[test]
    fn flags_folder_and_fields_make_no_difference_content_does() {
        let id = EmailId::of("new/1763748000.M52P9.host", 4);
        assert_eq!(id, EmailId::of("cur/1763748000.M52P9.host,S=3,W=4,U=7:2,S", 4));
        assert_ne!(id, EmailId::of("cur/1763748000.M52P9.host,S=3,W=4,U=7:2,S", 5), "names of some programs are used twice");
        let copy = format!("cur/1763748999.M1N2E3.a,S=3,W=4,U=1,G={}:2,", id.print_bare());
        assert_eq!(EmailId::of(&copy, 4), id);
    }

    #[test]
    fn an_id_of_another_server_is_kept_where_the_grammar_has_room_for_it() {
        assert_eq!(from_guid("0123456789abcdef").as_deref(), Some("F0123456789abcdef"));
        for bad in ["", "a b", "a)", "\u{e9}", &"x".repeat(255)] {
            assert_eq!(from_guid(bad), None, "{bad}");
        }
    }
}
