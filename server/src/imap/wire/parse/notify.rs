//! NOTIFY (RFC 5465 §8).

use super::{
    cursor::{Cursor, Fail, Parsed},
    fetch,
};
use crate::imap::wire::command::{EventGroup, Events, Filter, MailboxArgument, Notify};

/// Most event groups of one NOTIFY: each is held against every mailbox.
const GROUPS_MAX: usize = 64;
/// Most mailboxes that one group names.
const MAILBOXES_MAX: usize = 1_000;

pub(super) fn notify(cursor: &mut Cursor<'_>) -> Parsed<Notify> {
    if cursor.take_word("NONE") {
        return Ok(Notify::None);
    }
    if !cursor.take_word("SET") {
        return Err(cursor.expected("SET or NONE"));
    }
    cursor.space()?;
    let status = cursor.take_word("STATUS");
    if status {
        cursor.space()?;
    }
    let (mut groups, mut unsupported) = (Vec::new(), false);
    loop {
        groups.push(group(cursor, &mut unsupported)?);
        if groups.len() > GROUPS_MAX {
            return Err(Fail::new(format!("there are more than {GROUPS_MAX} groups of events")));
        }
        if !cursor.more() {
            break;
        }
    }
    if groups.iter().filter(|group| is_selected(&group.filter)).count() > 1 {
        return Err(Fail::new("SELECTED or SELECTED-DELAYED may be named once (RFC 5465, 6.1)"));
    }
    Ok(if unsupported { Notify::Unsupported } else { Notify::Set { status, groups } })
}

fn is_selected(filter: &Filter) -> bool {
    matches!(filter, Filter::Selected | Filter::SelectedDelayed)
}

fn group(cursor: &mut Cursor<'_>, unsupported: &mut bool) -> Parsed<EventGroup> {
    cursor.require(b'(', "a group of events")?;
    cursor.skip_spaces();
    let start = cursor.position();
    let filter = match cursor.word().as_str() {
        "SELECTED" => Filter::Selected,
        "SELECTED-DELAYED" => Filter::SelectedDelayed,
        "INBOXES" => Filter::Inboxes,
        "PERSONAL" => Filter::Personal,
        "SUBSCRIBED" => Filter::Subscribed,
        "SUBTREE" => Filter::Subtree(names(cursor)?),
        "MAILBOXES" => Filter::Mailboxes(names(cursor)?),
        _ => {
            return Err(cursor
                .expected_at(start, "which mailboxes: SELECTED, SELECTED-DELAYED, INBOXES, PERSONAL, SUBSCRIBED, SUBTREE or MAILBOXES"));
        }
    };
    cursor.space()?;
    let mut named = Named::default();
    if cursor.peek() == Some(b'(') {
        cursor.parenthesised("a list of events", |cursor| event(cursor, &mut named))?;
        cursor.skip_spaces();
        cursor.require(b')', "\")\"")?;
    } else if cursor.take_word("NONE") {
        cursor.skip_spaces();
        cursor.require(b')', "\")\"")?;
        return Ok(EventGroup { filter, events: Events::default() });
    } else {
        // The examples have events without parentheses.
        loop {
            event(cursor, &mut named)?;
            if cursor.take(b')') {
                break;
            }
            cursor.space()?;
        }
    }
    *unsupported |= named.unsupported;
    named.check(is_selected(&filter)).map(|events| EventGroup { filter, events })
}

pub(super) fn names(cursor: &mut Cursor<'_>) -> Parsed<Vec<MailboxArgument>> {
    cursor.space()?;
    let mut names = Vec::new();
    if cursor.peek() == Some(b'(') {
        cursor.parenthesised("a list of mailboxes", |cursor| {
            names.push(cursor.mailbox()?);
            if names.len() > MAILBOXES_MAX { Err(Fail::new(format!("there are more than {MAILBOXES_MAX} mailboxes"))) } else { Ok(()) }
        })?;
    } else {
        names.push(cursor.mailbox()?);
    }
    if names.is_empty() { Err(Fail::new("the list of mailboxes is empty")) } else { Ok(names) }
}

/// The events of a group as they were named.
#[derive(Default)]
struct Named {
    events: Events,
    new: bool,
    expunge: bool,
    unsupported: bool,
    any: bool,
}

fn event(cursor: &mut Cursor<'_>, named: &mut Named) -> Parsed<()> {
    named.any = true;
    match cursor.atom("an event such as MessageNew")?.to_ascii_uppercase().as_str() {
        "MESSAGENEW" => {
            named.new = true;
            if cursor.rest().starts_with(b" (") {
                cursor.space()?;
                named.events.items = fetch::items(cursor)?;
            }
        }
        "MESSAGEEXPUNGE" => named.expunge = true,
        "FLAGCHANGE" => named.events.flags = true,
        "MAILBOXNAME" => named.events.names = true,
        "SUBSCRIPTIONCHANGE" => named.events.subscriptions = true,
        "MAILBOXMETADATACHANGE" => named.events.mailbox_metadata = true,
        "SERVERMETADATACHANGE" => named.events.server_metadata = true,
        _ => named.unsupported = true,
    }
    Ok(())
}

impl Named {
    /// What RFC 5465 wants to be refused: §5, §6.1, §8.
    fn check(self, selected: bool) -> Parsed<Events> {
        let Named { mut events, new, expunge, unsupported, any } = self;
        if !any {
            return Err(Fail::new("no event is named: NONE stands for that"));
        }
        if new != expunge {
            return Err(Fail::new("MessageNew and MessageExpunge go together (RFC 5465, 5)"));
        }
        if events.flags && !new {
            return Err(Fail::new("FlagChange needs MessageNew and MessageExpunge beside it (RFC 5465, 5)"));
        }
        let others = events.names || events.subscriptions || events.mailbox_metadata || events.server_metadata;
        if selected && others && !unsupported {
            return Err(Fail::new("of the selected mailbox only events of messages are told (RFC 5465, 6.1)"));
        }
        if !selected && !events.items.is_empty() {
            return Err(Fail::new("what to send of new messages can be said of the selected mailbox only (RFC 5465, 8)"));
        }
        events.messages = new;
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imap::wire::{
        command::Command,
        enabled::Enabled,
        parse::{Options, parse},
    };

    fn read(command: &str) -> Result<Notify, String> {
        let tagged = parse(format!("a NOTIFY {command}").as_bytes(), Options { enabled: Enabled::NOTHING, nesting: 50 });
        match tagged.map_err(|error| error.reason)?.command {
            Command::Notify(notify) => Ok(notify),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_examples_of_rfc_5465_are_read() {
        let first = "set status (selected MessageNew (uid body.peek[header.fields (from to subject)]) MessageExpunge) (subtree Lists (MessageNew MessageExpunge))";
        let Ok(Notify::Set { status: true, groups }) = read(first) else { panic!() };
        assert_eq!((&groups[0].filter, groups[0].events.items.len(), groups[0].events.messages), (&Filter::Selected, 2, true));
        assert!(matches!(&groups[1].filter, Filter::Subtree(names) if names.len() == 1));
        let Ok(Notify::Set { status: false, groups }) =
            read("set (mailboxes INBOX (Messagenew messageExpunge)) (personal (SubscriptionChange))")
        else {
            panic!()
        };
        assert!(groups[0].events.messages && groups[1].events.subscriptions && groups[1].filter == Filter::Personal);
        let Ok(Notify::Set { groups, .. }) =
            read("set (selected (Messagenew (uid flags) messageExpunge)) (personal (MessageNew FlagChange MessageExpunge))")
        else {
            panic!()
        };
        assert!(groups[1].events.flags && !groups[0].events.flags);
        assert_eq!(read("NONE"), Ok(Notify::None));
        let Ok(Notify::Set { groups, .. }) = read("SET (SELECTED-DELAYED NONE) (mailboxes (a \"b c\") NONE)") else { panic!() };
        assert_eq!((&groups[0].filter, &groups[0].events), (&Filter::SelectedDelayed, &Events::default()));
    }

    #[test]
    fn what_the_rfc_wants_refused_is_refused() {
        for (command, reason) in [
            ("", "SET or NONE"),
            ("SET", "a space"),
            ("SET (subtree Lists MessageNew)", "go together"),
            ("SET (personal (MessageExpunge))", "go together"),
            ("SET (personal (FlagChange))", "FlagChange needs"),
            ("SET (selected (MailboxName))", "only events of messages"),
            ("SET (personal (MessageNew (uid) MessageExpunge))", "selected mailbox only"),
            ("SET (selected NONE) (selected-delayed NONE)", "named once"),
            ("SET (personal ())", "NONE stands for that"),
            ("SET (mailboxes () NONE)", "list of mailboxes is empty"),
            ("SET (everything NONE)", "which mailboxes"),
            ("SET (personal NONE", "\")\""),
        ] {
            let complaint = read(command).unwrap_err();
            assert!(complaint.contains(reason), "{command}: {complaint}");
        }
        for command in ["SET (personal (MessageNew MessageExpunge FlagChange AnnotationChange))", "SET (personal (Weather))"] {
            assert_eq!(read(command), Ok(Notify::Unsupported), "{command}");
        }
        assert!(read(&format!("SET{}", " (personal NONE)".repeat(65))).unwrap_err().contains("more than 64"));
    }
}
