//! ENABLE (RFC 5161).

use crate::imap::{
    holding::Holding,
    reply::Reply,
    session::Session,
    state::State,
    wire::{enabled::Awareness, response},
};

/// ENABLE: what isn't known or can't be enabled is left out.
pub fn enable<H: Holding>(session: &mut Session<H>, state: &mut State, names: &[String]) -> Reply {
    let asked = |name: &str| names.iter().any(|asked| asked.eq_ignore_ascii_case(name));
    let known: Vec<(&str, Switch)> = ENABLED_BY_NAME.into_iter().filter(|(name, _)| asked(name)).collect();
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    response::enabled(session.connection.output(), &names);
    for (_, switch) in known {
        switch_on(session, state, switch);
    }
    Reply::ok("Enabled")
}

const ENABLED_BY_NAME: [(&str, Switch); 5] = [
    ("CONDSTORE", Switch::CondStore),
    ("QRESYNC", Switch::QResync),
    ("IMAP4rev2", Switch::Rev2),
    ("UTF8=ACCEPT", Switch::Utf8Accept),
    ("UIDONLY", Switch::UidOnly),
];

#[derive(Debug, Clone, Copy)]
enum Switch {
    CondStore,
    QResync,
    Rev2,
    Utf8Accept,
    UidOnly,
}

fn switch_on<H: Holding>(session: &mut Session<H>, state: &mut State, switch: Switch) {
    match switch {
        Switch::CondStore => session.enable_condstore(state.opened()),
        Switch::QResync => {
            session.enable_condstore(state.opened());
            session.enabled.awareness = Awareness::QResync;
        }
        Switch::Rev2 => {
            session.enabled.rev2 = true;
            if let State::Selected(selected) = state {
                selected.view.forget_recent();
            }
        }
        Switch::Utf8Accept => session.enabled.utf8_accept = true,
        Switch::UidOnly => session.enabled.uid_only = true,
    }
    session.framer.set_enabled(session.enabled);
}
