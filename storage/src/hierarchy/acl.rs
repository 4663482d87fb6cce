//! Who may do what with a mailbox (RFC 4314): rights, identifiers, and the file that Dovecot calls `dovecot-acl`.
//!
//! Rules:
//! - the owner has every right, always: no entry takes one away (`the_owner_gives_and_takes_rights`)
//! - of the others, the most specific kind of entry that names a user counts, as in Dovecot: `group-override=`, `user=`, `group=`, `authenticated`,
//!   `anyone`; several groups add up; then what any negative entry names is taken away (`the_most_specific_entry_counts_and_negative_ones_take_away`)
//! - a file that can't be understood gives nobody anything (`a_line_that_cannot_be_read_spoils_the_file`)

use std::{collections::BTreeMap, fmt, str::FromStr};

use affinity::UserName;

/// Most entries of one mailbox: each is looked at by every command of others.
pub const ENTRIES_MAX: usize = 200;
/// Longest name of a group.
const GROUP_BYTES_MAX: usize = 255;

/// The rights of RFC 4314 §2.1, in the order in which they are written.
const LETTERS: &str = "lrswipkxtea";
/// What the obsolete `c` stands for (RFC 4314 §2.1.1).
const CREATE: Rights = Rights::of(&[Right::CreateMailboxes, Right::DeleteMailbox]);
/// What the obsolete `d` stands for.
const DELETE: Rights = Rights::of(&[Right::DeleteMessages, Right::Expunge]);

/// One right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Right {
    /// `l`
    Lookup = 1,
    /// `r`
    Read = 1 << 1,
    /// `s`: \Seen.
    Seen = 1 << 2,
    /// `w`: flags other than \Seen and \Deleted.
    Write = 1 << 3,
    /// `i`
    Insert = 1 << 4,
    /// `p`: not looked at by IMAP.
    Post = 1 << 5,
    /// `k`: mailboxes below.
    CreateMailboxes = 1 << 6,
    /// `x`
    DeleteMailbox = 1 << 7,
    /// `t`: \Deleted.
    DeleteMessages = 1 << 8,
    /// `e`
    Expunge = 1 << 9,
    /// `a`
    Administer = 1 << 10,
}

/// A set of rights.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Rights(u16);

impl Rights {
    /// None.
    pub const NONE: Rights = Rights(0);
    /// Every one.
    pub const ALL: Rights = Rights((1 << LETTERS.len()) - 1);

    /// These.
    pub const fn of(rights: &[Right]) -> Rights {
        let (mut bits, mut at) = (0, 0);
        while at < rights.len() {
            let right = rights[at];
            bits |= right as u16;
            at += 1;
        }
        Rights(bits)
    }
    /// Reads letters, `c` and `d` among them; the error is the first that is no right.
    pub fn parse(letters: &str) -> Result<Rights, char> {
        letters.chars().try_fold(Rights::NONE, |rights, letter| {
            let more = match letter {
                'c' => CREATE,
                'd' => DELETE,
                _ => Rights(1 << LETTERS.find(letter).ok_or(letter)?),
            };
            Ok(rights.union(more))
        })
    }
    /// Whether `right` is one of them.
    pub fn has(self, right: Right) -> bool {
        self.0 & right as u16 != 0
    }
    /// Whether any of `others` is one of them.
    pub fn any(self, others: Rights) -> bool {
        self.0 & others.0 != 0
    }
    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// These and those.
    #[must_use]
    pub fn union(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }
    /// These without those.
    #[must_use]
    pub fn difference(self, other: Rights) -> Rights {
        Rights(self.0 & !other.0)
    }
    /// As clients read them: with the obsolete `c` and `d` where a part of them is there (RFC 4314 §2.1.1).
    pub fn with_obsolete(self) -> String {
        let mut letters = self.to_string();
        let administer = letters.ends_with('a').then(|| letters.pop()).flatten();
        letters.extend(self.any(CREATE).then_some('c'));
        letters.extend(self.any(DELETE).then_some('d'));
        letters.extend(administer);
        letters
    }
}
impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut letters = LETTERS.chars().enumerate().filter(|(position, _)| self.0 & (1 << position) != 0);
        letters.try_for_each(|(_, letter)| write!(f, "{letter}"))
    }
}
impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rights({self})")
    }
}

/// Whom an entry is about, the least specific first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identifier {
    /// Everybody who can log in (RFC 4314 §2: also anonymous ones).
    Anyone,
    /// Everybody who logged in by name.
    Authenticated,
    /// `$name` in IMAP.
    Group(String),
    /// Whose mailbox it is.
    Owner,
    /// A user.
    User(UserName),
    /// `!name` in IMAP: counts before what is said of the user.
    GroupOverride(String),
}

/// How an identifier can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no identifier: give a user, $group, anyone or authenticated")]
pub struct NoIdentifier(String);

impl Identifier {
    fn in_file(&self) -> String {
        match self {
            Identifier::Anyone => "anyone".to_owned(),
            Identifier::Authenticated => "authenticated".to_owned(),
            Identifier::Owner => "owner".to_owned(),
            Identifier::Group(name) => format!("group={name}"),
            Identifier::GroupOverride(name) => format!("group-override={name}"),
            Identifier::User(user) => format!("user={user}"),
        }
    }
    fn from_file(text: &str) -> Option<Identifier> {
        match text.split_once('=') {
            None if text == "anyone" => Some(Identifier::Anyone),
            None if text == "authenticated" => Some(Identifier::Authenticated),
            None if text == "owner" => Some(Identifier::Owner),
            None => None,
            Some(("user", name)) => UserName::normalise(name).ok().map(Identifier::User),
            Some(("group", name)) => group(name).map(Identifier::Group),
            Some(("group-override", name)) => group(name).map(Identifier::GroupOverride),
            Some(_) => None,
        }
    }
    fn is_about(&self, who: &Who) -> bool {
        match self {
            Identifier::Anyone => true,
            Identifier::Authenticated => !who.anonymous,
            Identifier::Owner => false,
            Identifier::Group(name) | Identifier::GroupOverride(name) => who.groups.contains(name),
            Identifier::User(user) => *user == who.user,
        }
    }
    fn is_as_specific_as(&self, other: &Identifier) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}
/// As IMAP writes it (RFC 4314 leaves the signs of groups to servers; these are Dovecot's).
impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identifier::Anyone => f.write_str("anyone"),
            Identifier::Authenticated => f.write_str("authenticated"),
            Identifier::Owner => f.write_str("owner"),
            Identifier::Group(name) => write!(f, "${name}"),
            Identifier::GroupOverride(name) => write!(f, "!{name}"),
            Identifier::User(user) => write!(f, "{user}"),
        }
    }
}
impl FromStr for Identifier {
    type Err = NoIdentifier;
    fn from_str(text: &str) -> Result<Identifier, NoIdentifier> {
        let read = match (text, text.chars().next()) {
            ("anyone", _) => Some(Identifier::Anyone),
            ("authenticated", _) => Some(Identifier::Authenticated),
            ("owner", _) => Some(Identifier::Owner),
            (_, Some('$')) => group(&text[1..]).map(Identifier::Group),
            (_, Some('!')) => group(&text[1..]).map(Identifier::GroupOverride),
            (_, Some('-')) => None,
            _ => UserName::normalise(text).ok().map(Identifier::User),
        };
        read.ok_or_else(|| NoIdentifier(text.to_owned()))
    }
}

fn group(name: &str) -> Option<String> {
    let fits = !name.is_empty() && name.len() <= GROUP_BYTES_MAX && !name.contains(char::is_control);
    fits.then(|| name.to_owned())
}

/// One entry's left side; `-` in front: rights are taken away.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// Whether rights are taken away.
    pub negative: bool,
    /// Whose.
    pub identifier: Identifier,
}
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.negative { "-" } else { "" }, self.identifier)
    }
}
impl FromStr for Subject {
    type Err = NoIdentifier;
    fn from_str(text: &str) -> Result<Subject, NoIdentifier> {
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        Ok(Subject { negative, identifier: rest.parse()? })
    }
}

/// Somebody who comes for another's mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Who.
    pub user: UserName,
    /// Their groups.
    pub groups: Vec<String>,
    /// Without a password (SASL ANONYMOUS).
    pub anonymous: bool,
}

/// How SETACL changes an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AclChange {
    /// These instead of those.
    Replace(Rights),
    /// These too.
    Add(Rights),
    /// Not these.
    Remove(Rights),
    /// The entry goes.
    Delete,
}

/// The entries of one mailbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acl(BTreeMap<Subject, Rights>);

impl Acl {
    /// Whether nobody is given anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&Subject, Rights)> {
        self.0.iter().map(|(subject, rights)| (subject, *rights))
    }
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// What `who`, who is not the owner, may do.
    pub fn rights_of(&self, who: &Who) -> Rights {
        let about =
            |negative: bool| self.iter().filter(move |(subject, _)| subject.negative == negative && subject.identifier.is_about(who));
        let most_specific = about(false).map(|(subject, _)| &subject.identifier).max();
        let counts = |subject: &Subject| most_specific.is_some_and(|most| subject.identifier.is_as_specific_as(most));
        let given = about(false).filter(|(subject, _)| counts(subject)).fold(Rights::NONE, |all, (_, rights)| all.union(rights));
        about(true).fold(given, |left, (_, rights)| left.difference(rights))
    }
    /// Changes one entry; whether anything changed. An entry without rights stays: it hides less specific ones.
    pub fn change(&mut self, subject: Subject, change: AclChange) -> bool {
        let before = self.0.get(&subject).copied();
        let had = before.unwrap_or_default();
        let now = match change {
            AclChange::Replace(rights) => Some(rights),
            AclChange::Add(rights) => Some(had.union(rights)),
            AclChange::Remove(rights) => before.map(|had| had.difference(rights)),
            AclChange::Delete => None,
        };
        match now {
            Some(rights) => self.0.insert(subject, rights),
            None => self.0.remove(&subject),
        };
        before != now
    }
    /// The file: one entry a line, `[-]identifier letters`, the identifier quoted where it has a space.
    pub fn print(&self) -> String {
        self.iter().map(|(subject, rights)| format!("{} {rights}\n", subject_in_file(subject))).collect()
    }
    /// Reads a file; the error is the line that can't be understood.
    pub fn parse(file: &str) -> Result<Acl, String> {
        let mut acl = Acl::default();
        for line in file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (subject, rights) = read_line(line).ok_or_else(|| line.to_owned())?;
            acl.0.insert(subject, rights);
        }
        Ok(acl)
    }
}

fn subject_in_file(subject: &Subject) -> String {
    let text = format!("{}{}", if subject.negative { "-" } else { "" }, subject.identifier.in_file());
    if text.contains([' ', '"', '\\']) { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) } else { text }
}

fn read_line(line: &str) -> Option<(Subject, Rights)> {
    let (text, rest) = match line.strip_prefix('"') {
        None => line.split_once(' ').map_or((line.to_owned(), ""), |(text, rest)| (text.to_owned(), rest)),
        Some(quoted) => unquote(quoted)?,
    };
    let (negative, text) = text.strip_prefix('-').map_or((false, text.as_str()), |rest| (true, rest));
    let identifier = Identifier::from_file(text)?;
    let mut rights = Rights::NONE;
    for word in rest.split_ascii_whitespace() {
        // Dovecot writes rights it has no letter for by name, after a colon: none of them is known here.
        rights = rights.union(Rights::parse(word).ok()?);
    }
    Some((Subject { negative, identifier }, rights))
}

/// What stands before the closing quote, and what after it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((text, quoted.get(at + 1..)?)),
            '\\' => text.push(characters.next()?.1),
            other => text.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rights(letters: &str) -> Rights {
        Rights::parse(letters).unwrap()
    }
    fn who(user: &str, groups: &[&str]) -> Who {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Who { user: UserName::normalise(user).unwrap(), groups, anonymous: false }
    }
    fn given(file: &str, user: &str, groups: &[&str]) -> String {
        Acl::parse(file).unwrap().rights_of(&who(user, groups)).to_string()
    }

    #[test]
    fn the_letters_of_rfc_4314_are_known_answers() {
        // §2.1.1: what clients see of `lrswida`, and of `lrswikda`.
        assert_eq!(rights("lrswida"), rights("lrswieta"));
        assert_eq!(rights("lrswida").with_obsolete(), "lrswiteda");
        assert_eq!(rights("lrswikda").with_obsolete(), "lrswiktecda");
        // §3.1: `+cda` on top of `lrswi`.
        assert_eq!(rights("lrswi").union(rights("cda")), rights("lrswicdakxet"));
        assert_eq!(Rights::parse("lrQswicda"), Err('Q'));
        assert_eq!(Rights::parse("lrqswicda"), Err('q'));
        assert_eq!(Rights::ALL.with_obsolete(), "lrswipkxtecda");
        assert_eq!(Rights::ALL.to_string(), LETTERS);
    }

    #[test]
    fn dovecots_files_are_read_and_written() {
        let file = "# comment\n\nowner lrwstipekxa\nanyone\nuser=Bob@Example.org lrs\n-user=eve lr\ngroup=team lr\n\"group=the team\" i\n";
        let acl = Acl::parse(file).unwrap();
        let printed = "anyone \ngroup=team lr\n\"group=the team\" i\nowner lrswipkxtea\nuser=bob@example.org lrs\n-user=eve lr\n";
        assert_eq!(acl.print(), printed);
        assert_eq!(Acl::parse(printed).as_ref(), Ok(&acl));
        let shown: Vec<String> = acl.iter().map(|(subject, _)| subject.to_string()).collect();
        assert_eq!(shown, ["anyone", "$team", "$the team", "owner", "bob@example.org", "-eve"]);
    }

    #[test]
    fn a_line_that_cannot_be_read_spoils_the_file() {
        for line in ["user=bob lrz", "bob lr", "user= lr", "\"user=bob lr", "user=bob :expire", "role=x lr"] {
            assert_eq!(Acl::parse(&format!("anyone lr\n{line}\n")), Err(line.to_owned()));
        }
    }

    #[test]
    fn the_most_specific_entry_counts_and_negative_ones_take_away() {
        let file =
            "anyone l\nauthenticated lr\ngroup=a lri\ngroup=b lrw\nuser=bob ls\ngroup-override=boss lrswipkxtea\n-group=b r\n-anyone a\n";
        assert_eq!(given(file, "eve", &[]), "lr");
        assert_eq!(given(file, "eve", &["a"]), "lri");
        assert_eq!(given(file, "eve", &["a", "b"]), "lwi", "groups add up, and the negative entry of one takes away");
        assert_eq!(given(file, "bob", &["a"]), "ls", "what is said of the user hides the group");
        assert_eq!(given(file, "bob", &["boss"]), "lrswipkxte");
        assert_eq!(given("user=bob \nanyone lr\n", "bob", &[]), "", "an entry without rights hides the less specific one");
        let anonymous = Who { anonymous: true, ..who("guest", &[]) };
        assert_eq!(Acl::parse(file).unwrap().rights_of(&anonymous).to_string(), "l");
    }

    #[test]
    fn entries_are_changed_as_setacl_says() {
        let mut acl = Acl::default();
        let bob = || Subject::from_str("Bob").unwrap();
        assert!(acl.change(bob(), AclChange::Replace(rights("lrs"))));
        assert!(acl.change(bob(), AclChange::Add(rights("d"))));
        assert!(acl.change(bob(), AclChange::Remove(rights("se"))));
        assert_eq!(acl.print(), "user=bob lrt\n");
        assert!(!acl.change(bob(), AclChange::Remove(rights("e"))));
        assert!(!acl.change("-bob".parse().unwrap(), AclChange::Remove(rights("e"))), "nothing is made by taking away");
        assert!(acl.change(bob(), AclChange::Delete) && acl.is_empty());
    }

    #[test]
    fn identifiers_that_mean_nothing_are_refused() {
        for text in ["", "-", "--bob", "$", "!", "a b", "a/b", "$a\tb"] {
            assert!(Subject::from_str(text).is_err(), "{text:?}");
        }
    }

    fn subjects() -> impl Strategy<Value = Subject> {
        prop_oneof!["-?(anyone|authenticated|owner)", "-?[$!][ -~]{1,5}", "-?[a-z]{1,3}(@[a-z]{1,3})?"]
            .prop_map(|text| text.parse().unwrap())
    }
    fn acls() -> impl Strategy<Value = Acl> {
        prop::collection::btree_map(subjects(), (0..1_u16 << 11).prop_map(Rights), 0..8).prop_map(Acl)
    }

    proptest! {
        #[test]
        fn files_are_read_back(acl in acls()) {
            prop_assert_eq!(Acl::parse(&acl.print()), Ok(acl));
        }
        #[test]
        fn any_file_is_read_or_refused(file in "([-a-z=\" \\\\$!#\n]|.){0,80}") {
            if let Ok(acl) = Acl::parse(&file) {
                prop_assert_eq!(Acl::parse(&acl.print()), Ok(acl));
            }
        }
        #[test]
        fn letters_are_read_back(bits in 0..1_u16 << 11) {
            let set = Rights(bits);
            prop_assert_eq!(Rights::parse(&set.to_string()), Ok(set));
            // What clients see and send back grants at most the other parts of `c` and `d`.
            let echoed = Rights::parse(&set.with_obsolete()).unwrap();
            prop_assert_eq!(echoed.difference(CREATE).difference(DELETE), set.difference(CREATE).difference(DELETE));
        }
        #[test]
        fn a_negative_entry_only_takes_away(acl in acls(), letters in 0..1_u16 << 11) {
            let eve = who("eve", &["a", "b"]);
            let before = acl.rights_of(&eve);
            let mut with = acl;
            with.change("-eve".parse().unwrap(), AclChange::Add(Rights(letters)));
            prop_assert_eq!(with.rights_of(&eve), before.difference(with.0[&"-eve".parse().unwrap()]));
        }
        #[test]
        fn what_is_said_of_others_changes_nothing(acl in acls(), letters in 0..1_u16 << 11) {
            let eve = who("eve", &["a"]);
            let before = acl.rights_of(&eve);
            let mut with = acl;
            for other in ["zoë", "-zoë", "$c", "owner", "-owner"] {
                with.change(other.parse().unwrap(), AclChange::Replace(Rights(letters)));
            }
            prop_assert_eq!(with.rights_of(&eve), before);
        }
    }
}
