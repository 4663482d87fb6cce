//! imap-codec as the judge: every line that it accepts, we accept with the same meaning, as far as both know the command.

use imap_codec::{CommandCodec, decode::Decoder};
use imap_types::{
    command::{Command as Theirs, CommandBody, FetchModifier, SelectParameter, StoreModifier},
    core::AString,
    datetime::NaiveDate,
    extensions::binary::LiteralOrLiteral8,
    fetch::{Macro, MacroOrMessageDataItemNames, MessageDataItemName, Part, Section as TheirSection},
    flag::{Flag as TheirFlag, StoreResponse, StoreType},
    mailbox::{ListMailbox, Mailbox},
    search::SearchKey as TheirKey,
    sequence::{SeqOrUid, Sequence, SequenceSet as TheirSet},
    status::StatusDataItemName,
};

use super::*;
use crate::imap::wire::parse::mailbox_argument;

/// Fails when imap-codec accepts `line` (without its end) and we do not, or otherwise. `false`: it has nothing to say.
pub(super) fn compare(line: &[u8]) -> bool {
    let whole = [line, b"\r\n"].concat();
    let Ok((b"", theirs)) = CommandCodec::default().decode(&whole) else { return false };
    if line.ends_with(b" ") && matches!(theirs.body, CommandBody::Authenticate { .. }) {
        return false; // they take a trailing space for an empty initial response, which is `=` (RFC 4959 §3)
    }
    let Some(expected) = meaning(theirs) else { return false };
    let shown = String::from_utf8_lossy(line);
    match parse(line, OPTIONS) {
        Ok(ours) => assert_eq!(comparable(ours), comparable(expected), "{shown}"),
        Err(error) => panic!("imap-codec accepts {shown}; we: {}", error.reason),
    }
    true
}

#[test]
fn the_corpus_means_the_same_to_imap_codec() {
    let judged = corpus::COMMANDS.iter().filter(|line| compare(line.as_bytes())).count();
    assert!(judged > 60, "imap-codec judged only {judged} lines");
}

#[test]
fn append_means_the_same_to_imap_codec() {
    for line in [
        "A003 APPEND saved-messages (\\Seen) {5}\r\nhello",
        "a append \"Sent Items\" (\\Seen $Forwarded) \"17-Jul-1996 02:44:25 -0700\" {5+}\r\nhello",
        "a APPEND {5}\r\nINBOX \" 1-Jan-2026 00:00:00 +0530\" {5}\r\nhello",
        "a APPEND inbox () {5+}\r\nhello",
        "a APPEND {3+}\r\na]b ~{5+}\r\nhello",
    ] {
        let whole = format!("{line}\r\n");
        let Ok((_, Theirs { tag, body: CommandBody::Append { mailbox, flags, date, message } })) =
            CommandCodec::default().decode(whole.as_bytes())
        else {
            panic!("{line}")
        };
        let mut framer = Framer::new(Limits { line_bytes: 1000, literal_bytes: 100, command_bytes: 2000 });
        let mut input = BytesMut::from(whole.as_str());
        let start = loop {
            match framer.next(&mut input) {
                Step::Continue { .. } => {}
                Step::Append(start) => break start,
                other => panic!("{line}: {other:?}"),
            }
        };
        assert_eq!(start.tag, tag.as_ref());
        assert_eq!(start.mailbox, argument(&mailbox));
        let AppendLine { pieces, literal } = start.line;
        let ([AppendPiece::Message { flags: ours, date: when }], Some(literal)) = (&pieces[..], literal) else { panic!("{line}") };
        assert_eq!(*ours, flags.iter().map(|flag| flag_of(flag).unwrap()).collect::<Vec<_>>());
        assert_eq!(*when, date.map(|date| date.as_ref().timestamp()));
        assert_eq!(literal.binary, matches!(message, LiteralOrLiteral8::Literal8(_)));
        assert_eq!(framer.accept_literal(), !literal.non_sync);
        assert_eq!(framer.literal_chunk(&mut input).unwrap(), &b"hello"[..]);
        assert_eq!(framer.next(&mut input), Step::AppendMore(AppendLine { pieces: vec![], literal: None }));
    }
}

/// What decided that imap-codec reads no command outside the tests.
#[test]
fn why_imap_codec_is_only_the_oracle() {
    let accepts = |line: &[u8]| CommandCodec::default().decode(line).is_ok();
    assert!(accepts(b"a NOOP\r\n") && !accepts(b"a NOOP \r\n") && !accepts(b"a NOOP\n"));
    assert!(!accepts("a DELETE \"Entwürfe\"\r\n".as_bytes())); // or always: it is a feature of the build
    let error = CommandCodec::default().decode(b"a DELETE\r\n").unwrap_err();
    assert_eq!(format!("{error:?}"), "Failed");
}

/// Differences that mean nothing: INBOX in any case, and the text that repeats a section's name.
fn comparable(mut tagged: Tagged) -> Tagged {
    let capitals = |name: &mut String| {
        if name.eq_ignore_ascii_case("INBOX") {
            name.make_ascii_uppercase();
        }
    };
    match &mut tagged.command {
        Command::Fetch { items, .. } => {
            for item in items {
                if let FetchItem::Section { name, .. } = item {
                    name.clear();
                }
            }
        }
        Command::List(List { reference, .. }) | Command::Lsub { reference, .. } => capitals(reference),
        _ => {}
    }
    tagged
}

/// Our value for theirs; `None`: a command or argument that we do not offer, or that they accept and no server can carry out.
fn meaning(theirs: Theirs<'_>) -> Option<Tagged> {
    let command = match theirs.body {
        CommandBody::Capability => Command::Capability,
        CommandBody::Noop => Command::Noop,
        CommandBody::Logout => Command::Logout,
        CommandBody::StartTLS => Command::StartTls,
        CommandBody::Unselect => Command::Unselect,
        CommandBody::Check => Command::Check,
        CommandBody::Close => Command::Close,
        CommandBody::Expunge => Command::Expunge,
        CommandBody::Idle => Command::Idle,
        CommandBody::Namespace => Command::Namespace,
        CommandBody::Authenticate { mechanism, initial_response } => Command::Authenticate {
            mechanism: mechanism.as_ref().to_ascii_uppercase(),
            initial: initial_response.map(|initial| initial.declassify().to_vec()),
        },
        CommandBody::Login { username, password } => {
            Command::Login { user: username.as_ref().to_vec(), password: password.declassify().as_ref().to_vec() }
        }
        CommandBody::Id { parameters } => Command::Id(match parameters {
            None => None,
            Some(fields) if fields.len() > 30 => return None,
            Some(fields) => Some(
                fields.into_iter().map(|(name, value)| (name.as_ref().to_vec(), value.0.map(|value| value.as_ref().to_vec()))).collect(),
            ),
        }),
        CommandBody::Enable { capabilities } => {
            Command::Enable(capabilities.into_iter().map(|capability| capability.to_string().to_ascii_uppercase()).collect())
        }
        CommandBody::Select { mailbox, parameters } => select(&mailbox, false, &parameters)?,
        CommandBody::Examine { mailbox, parameters } => select(&mailbox, true, &parameters)?,
        CommandBody::Create { mailbox } => {
            let name = name_of(&mailbox);
            let name = name.strip_suffix(b"/").filter(|name| !name.is_empty()).unwrap_or(&name);
            Command::Create { mailbox: mailbox_argument(name, Enabled::NOTHING), special_use: vec![] }
        }
        CommandBody::Delete { mailbox } => Command::Delete(argument(&mailbox)),
        CommandBody::Subscribe { mailbox } => Command::Subscribe(argument(&mailbox)),
        CommandBody::Unsubscribe { mailbox } => Command::Unsubscribe(argument(&mailbox)),
        CommandBody::Rename { from, to } => Command::Rename { from: argument(&from), to: argument(&to) },
        CommandBody::Lsub { reference, mailbox_wildcard } => {
            Command::Lsub { reference: plain(&name_of(&reference))?, pattern: plain(&pattern_of(&mailbox_wildcard))? }
        }
        CommandBody::List { reference, mailbox_wildcard } => Command::List(List {
            reference: plain(&name_of(&reference))?,
            patterns: vec![plain(&pattern_of(&mailbox_wildcard))?],
            ..List::default()
        }),
        CommandBody::Status { mailbox, item_names } => {
            let mut items = Vec::new();
            for item in item_names.iter() {
                let item = status_item(item)?;
                if !items.contains(&item) {
                    items.push(item);
                }
            }
            (!items.is_empty()).then_some(Command::Status { mailbox: argument(&mailbox), items })?
        }
        CommandBody::ExpungeUid { sequence_set } => Command::UidExpunge(set_of(&sequence_set)),
        CommandBody::Copy { sequence_set, mailbox, uid } => Command::Copy { uid, set: set_of(&sequence_set), mailbox: argument(&mailbox) },
        CommandBody::Move { sequence_set, mailbox, uid } => Command::Move { uid, set: set_of(&sequence_set), mailbox: argument(&mailbox) },
        CommandBody::Search { charset, criteria, uid } => {
            let charset = charset.map(|charset| charset.as_ref().to_owned());
            if charset.as_ref().is_some_and(|name| !name.eq_ignore_ascii_case("UTF-8") && !name.eq_ignore_ascii_case("US-ASCII")) {
                return None;
            }
            let key = all_of(criteria.into_iter().map(key_of).collect::<Option<Vec<_>>>()?);
            Command::Search { uid, search: Search { return_options: None, charset, key, update_items: Vec::new() } }
        }
        CommandBody::Fetch { sequence_set, macro_or_item_names, uid, modifiers } => {
            fetch(&sequence_set, macro_or_item_names, uid, &modifiers)?
        }
        CommandBody::Store { sequence_set, kind, response, flags, uid, modifiers } => Command::Store {
            uid,
            set: set_of(&sequence_set),
            unchanged_since: match modifiers.as_slice() {
                [] => None,
                [StoreModifier::UnchangedSince(since)] => Some(*since),
                _ => return None,
            },
            how: match kind {
                StoreType::Replace => StoreHow::Replace,
                StoreType::Add => StoreHow::Add,
                StoreType::Remove => StoreHow::Remove,
            },
            silent: response == StoreResponse::Silent,
            flags: flags.iter().map(flag_of).collect::<Option<Vec<_>>>()?,
        },
        _ => return None,
    };
    Some(Tagged { tag: theirs.tag.as_ref().to_owned(), command })
}

fn select(mailbox: &Mailbox<'_>, read_only: bool, parameters: &[SelectParameter]) -> Option<Command> {
    let only_condstore = parameters.iter().all(|parameter| *parameter == SelectParameter::CondStore);
    only_condstore
        .then(|| Command::Select(Select { mailbox: argument(mailbox), read_only, condstore: !parameters.is_empty(), resync: None }))
}

fn fetch(set: &TheirSet, items: MacroOrMessageDataItemNames<'_>, uid: bool, modifiers: &[FetchModifier]) -> Option<Command> {
    let names = match items {
        MacroOrMessageDataItemNames::Macro(Macro::Fast) => vec![FetchItem::Flags, FetchItem::InternalDate, FetchItem::Rfc822Size],
        MacroOrMessageDataItemNames::Macro(wider) => {
            let mut all = vec![FetchItem::Flags, FetchItem::InternalDate, FetchItem::Rfc822Size, FetchItem::Envelope];
            all.extend((wider == Macro::Full).then_some(FetchItem::Body));
            all
        }
        MacroOrMessageDataItemNames::MessageDataItemNames(names) => names.into_iter().map(item_of).collect::<Option<Vec<_>>>()?,
    };
    let mut items = Vec::new();
    for name in names {
        if !items.contains(&name) {
            items.push(name);
        }
    }
    let (mut changed_since, mut vanished) = (None, false);
    for modifier in modifiers {
        match modifier {
            FetchModifier::ChangedSince(since) => changed_since = Some(since.get()),
            FetchModifier::Vanished => vanished = true,
        }
    }
    let possible = !items.is_empty() && modifiers.len() < 3 && (!vanished || uid && changed_since.is_some());
    possible.then(|| Command::Fetch { uid, set: set_of(set), items, changed_since, vanished, partial: None })
}

fn item_of(name: MessageDataItemName<'_>) -> Option<FetchItem> {
    Some(match name {
        MessageDataItemName::Body => FetchItem::Body,
        MessageDataItemName::BodyStructure => FetchItem::BodyStructure,
        MessageDataItemName::Envelope => FetchItem::Envelope,
        MessageDataItemName::Flags => FetchItem::Flags,
        MessageDataItemName::InternalDate => FetchItem::InternalDate,
        MessageDataItemName::Rfc822 => FetchItem::Rfc822,
        MessageDataItemName::Rfc822Header => FetchItem::Rfc822Header,
        MessageDataItemName::Rfc822Size => FetchItem::Rfc822Size,
        MessageDataItemName::Rfc822Text => FetchItem::Rfc822Text,
        MessageDataItemName::Uid => FetchItem::Uid,
        MessageDataItemName::ModSeq => FetchItem::ModSeq,
        MessageDataItemName::BodyExt { section, partial, peek } => FetchItem::Section {
            section: match section {
                None => Section::default(),
                Some(section) => section_of(section)?,
            },
            peek,
            partial: partial.map(|(origin, count)| (origin.into(), count.get().into())),
            name: String::new(),
        },
        _ => return None,
    })
}

fn section_of(section: TheirSection<'_>) -> Option<Section> {
    let numbers = |part: Option<Part>| part.map(|part| part.0.into_iter().map(|number| number.get()).collect()).unwrap_or_default();
    let fields = |names: imap_types::core::Vec1<AString<'_>>| {
        let field = |name: AString<'_>| {
            let name = std::str::from_utf8(name.as_ref()).ok()?.to_ascii_uppercase();
            name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ').then_some(name)
        };
        names.into_iter().map(field).collect::<Option<Vec<_>>>()
    };
    Some(match section {
        TheirSection::Part(part) => Section { part: numbers(Some(part)), text: SectionText::Whole },
        TheirSection::Header(part) => Section { part: numbers(part), text: SectionText::Header },
        TheirSection::HeaderFields(part, names) => Section { part: numbers(part), text: SectionText::HeaderFields(fields(names)?) },
        TheirSection::HeaderFieldsNot(part, names) => Section { part: numbers(part), text: SectionText::HeaderFieldsNot(fields(names)?) },
        TheirSection::Text(part) => Section { part: numbers(part), text: SectionText::Text },
        TheirSection::Mime(part) => Section { part: numbers(Some(part)), text: SectionText::Mime },
    })
}

fn key_of(key: TheirKey<'_>) -> Option<SearchKey> {
    let not = |key| SearchKey::Not(Box::new(key));
    let header = |field: &str, value: AString<'_>| Some(SearchKey::Header { field: field.to_owned(), value: text(&value)? });
    let keyword = |atom: imap_types::core::Atom<'_>| SearchKey::Flag(FlagArgument::Keyword(atom.as_ref().to_owned()));
    Some(match key {
        TheirKey::And(keys) => all_of(keys.into_iter().map(key_of).collect::<Option<Vec<_>>>()?),
        TheirKey::SequenceSet(set) => SearchKey::Sequence(set_of(&set)),
        TheirKey::Uid(set) => SearchKey::Uid(set_of(&set)),
        TheirKey::All => SearchKey::All,
        TheirKey::Answered => system(Flag::Answered),
        TheirKey::Deleted => system(Flag::Deleted),
        TheirKey::Draft => system(Flag::Draft),
        TheirKey::Flagged => system(Flag::Flagged),
        TheirKey::Seen => system(Flag::Seen),
        TheirKey::Unanswered => not(system(Flag::Answered)),
        TheirKey::Undeleted => not(system(Flag::Deleted)),
        TheirKey::Undraft => not(system(Flag::Draft)),
        TheirKey::Unflagged => not(system(Flag::Flagged)),
        TheirKey::Unseen => not(system(Flag::Seen)),
        TheirKey::New => SearchKey::New,
        TheirKey::Recent => SearchKey::Recent,
        TheirKey::Old => not(SearchKey::Recent),
        TheirKey::Keyword(atom) => keyword(atom),
        TheirKey::Unkeyword(atom) => not(keyword(atom)),
        TheirKey::Bcc(value) => header("bcc", value)?,
        TheirKey::Cc(value) => header("cc", value)?,
        TheirKey::From(value) => header("from", value)?,
        TheirKey::Subject(value) => header("subject", value)?,
        TheirKey::To(value) => header("to", value)?,
        TheirKey::Header(field, value) => SearchKey::Header { field: text(&field)?, value: text(&value)? },
        TheirKey::Body(value) => SearchKey::Body(text(&value)?),
        TheirKey::Text(value) => SearchKey::Text(text(&value)?),
        TheirKey::Before(day) => SearchKey::Before(date_of(&day)),
        TheirKey::On(day) => SearchKey::On(date_of(&day)),
        TheirKey::Since(day) => SearchKey::Since(date_of(&day)),
        TheirKey::SentBefore(day) => SearchKey::SentBefore(date_of(&day)),
        TheirKey::SentOn(day) => SearchKey::SentOn(date_of(&day)),
        TheirKey::SentSince(day) => SearchKey::SentSince(date_of(&day)),
        TheirKey::Larger(bytes) => SearchKey::Larger(bytes.into()),
        TheirKey::Smaller(bytes) => SearchKey::Smaller(bytes.into()),
        TheirKey::Not(key) => not(key_of(*key)?),
        TheirKey::Or(left, right) => SearchKey::Or(Box::new(key_of(*left)?), Box::new(key_of(*right)?)),
        TheirKey::ModSequence { modseq, .. } => SearchKey::ModSeq(modseq),
        #[expect(unreachable_patterns, reason = "keys of features that are off")]
        _ => return None,
    })
}

fn all_of(mut keys: Vec<SearchKey>) -> SearchKey {
    if keys.len() == 1 { keys.remove(0) } else { SearchKey::And(keys) }
}

fn date_of(date: &NaiveDate) -> Date {
    let text = date.as_ref().to_string();
    let mut numbers = text.split('-').map(|number| number.parse::<i16>().unwrap());
    let mut next = || numbers.next().unwrap();
    Date { year: next(), month: u8::try_from(next()).unwrap(), day: u8::try_from(next()).unwrap() }
}

fn text(value: &AString<'_>) -> Option<String> {
    String::from_utf8(value.as_ref().to_vec()).ok()
}

/// Names whose spelling is not imap-codec's affair are left out.
fn plain(name: &[u8]) -> Option<String> {
    (name.is_ascii() && !name.contains(&b'&')).then(|| String::from_utf8(name.to_vec()).unwrap())
}

fn name_of(mailbox: &Mailbox<'_>) -> Vec<u8> {
    match mailbox {
        Mailbox::Inbox => b"INBOX".to_vec(),
        Mailbox::Other(other) => other.as_ref().to_vec(),
    }
}

fn argument(mailbox: &Mailbox<'_>) -> MailboxArgument {
    mailbox_argument(&name_of(mailbox), Enabled::NOTHING)
}

fn pattern_of(pattern: &ListMailbox<'_>) -> Vec<u8> {
    match pattern {
        ListMailbox::Token(token) => token.as_ref().to_vec(),
        ListMailbox::String(string) => string.as_ref().to_vec(),
    }
}

fn set_of(set: &TheirSet) -> SequenceSet {
    let bound = |bound: &SeqOrUid| match bound {
        SeqOrUid::Value(number) => SequenceBound::Number(number.get()),
        SeqOrUid::Asterisk => SequenceBound::Star,
    };
    let range = |sequence: &Sequence| match sequence {
        Sequence::Single(single) => SequenceRange { low: bound(single), high: bound(single) },
        Sequence::Range(low, high) => SequenceRange { low: bound(low), high: bound(high) },
    };
    SequenceSet::Ranges(set.0.as_ref().iter().map(range).collect())
}

fn flag_of(flag: &TheirFlag<'_>) -> Option<FlagArgument> {
    Some(match flag {
        TheirFlag::Answered => FlagArgument::System(Flag::Answered),
        TheirFlag::Deleted => FlagArgument::System(Flag::Deleted),
        TheirFlag::Draft => FlagArgument::System(Flag::Draft),
        TheirFlag::Flagged => FlagArgument::System(Flag::Flagged),
        TheirFlag::Seen => FlagArgument::System(Flag::Seen),
        TheirFlag::Extension(_) => return None,
        TheirFlag::Keyword(atom) => FlagArgument::Keyword(atom.as_ref().to_owned()),
    })
}

fn status_item(item: &StatusDataItemName) -> Option<StatusItem> {
    Some(match item {
        StatusDataItemName::Messages => StatusItem::Messages,
        StatusDataItemName::Recent => StatusItem::Recent,
        StatusDataItemName::UidNext => StatusItem::UidNext,
        StatusDataItemName::UidValidity => StatusItem::UidValidity,
        StatusDataItemName::Unseen => StatusItem::Unseen,
        StatusDataItemName::Deleted => StatusItem::Deleted,
        StatusDataItemName::HighestModSeq => StatusItem::HighestModSeq,
        _ => return None,
    })
}
