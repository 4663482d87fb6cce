//! IDLE (RFC 2177): changes are told at once, until DONE.

use std::{future::pending, pin::Pin, time::Duration};

use tokio::time::{Sleep, interval, sleep};

use super::{contexts, notify};
use crate::imap::{
    holding::Holding,
    reply::{Reply, Stop},
    session::Session,
    state::State,
    updates,
    view::Expunges,
    wire::{
        framing::LineStep,
        response::{self, Condition},
    },
};

/// How often something is sent although nothing happened: home routers forget a silent connection after five minutes or so.
const STILL_HERE: Duration = Duration::from_secs(120);
/// The only line that may come is DONE; a longer one need not be kept.
const DONE_BYTES_MAX: usize = 64;

/// Other programs do several things in a row, and ours are known from memory a moment after they happened.
const SETTLE: Duration = Duration::from_millis(100);

enum Event {
    Input,
    Changed,
    StillHere,
    Rescan,
    Noticed,
    Settled,
}

/// IDLE, with or without a selected mailbox.
pub async fn idle<H: Holding>(session: &mut Session<H>, state: &mut State) -> Result<Reply, Stop> {
    response::continuation(session.connection.output(), "idling");
    let mut still_here = interval(STILL_HERE);
    let mut rescan = interval(session.settings.rescan_interval.max(Duration::from_secs(1)));
    still_here.reset();
    rescan.reset();
    let mut watching = match state {
        State::Selected(selected) => {
            let mailbox = selected.mailbox.clone();
            session.held.run(move |_| Ok(mailbox.watch())).await?
        }
        _ => None,
    };
    // An ACL that changes is told so.
    let mut lists = session.held.account().list_changes();
    let silence = sleep(session.settings.idle_timeout);
    tokio::pin!(silence);
    // Of the selected mailbox, `changed` tells.
    let mut nowhere = State::Authenticated;
    // Since something was noticed. Meanwhile the session goes on: what is known from memory is told at once.
    let mut settling: Option<Pin<Box<Sleep>>> = None;
    loop {
        if let State::Selected(selected) = state {
            session.look_at_rights(selected).await?;
            // Marked first: what changes while it is told wakes us again.
            selected.changes.mark_unchanged();
            updates::tell(&mut session.connection, selected, session.enabled, Expunges::Tell, &[]).await?;
            contexts::follow(session, selected).await?;
            notify::announce(session, selected).await?;
        }
        notify::tell_others(session, state).await?;
        // Before waiting: a client may send DONE together with IDLE.
        match session.framer.next_line(session.connection.input(), DONE_BYTES_MAX) {
            LineStep::NeedInput => {}
            LineStep::Line(line) if line.eq_ignore_ascii_case(b"DONE") => {
                if settling.is_some() {
                    look_at(session, state, watching.as_ref()).await?;
                }
                return Ok(Reply::ok("Idle completed"));
            }
            LineStep::Line(_) | LineStep::TooLong => return Err(Reply::bad("Expected DONE").into()),
        }
        session.connection.flush().await?;
        let event = tokio::select! {
            biased;
            text = session.held.taken_away() => return Err(updates::farewell(&text)),
            filled = session.connection.fill(session.settings.idle_timeout) => { filled?; Event::Input }
            () = changed(state) => Event::Changed,
            () = notify::woken(&mut session.following, &mut nowhere) => Event::Changed,
            Ok(()) = lists.changed(), if session.guest.is_some() => Event::Changed,
            _ = still_here.tick() => Event::StillHere,
            _ = rescan.tick() => Event::Rescan,
            () = noticed(&mut watching), if settling.is_none() => Event::Noticed,
            () = settled(&mut settling), if settling.is_some() => Event::Settled,
            () = &mut silence => return Err(Stop::Bye("Disconnected for inactivity".into())),
        };
        match event {
            Event::Input | Event::Changed => {}
            Event::StillHere => response::untagged(session.connection.output(), Condition::Ok, None, "Still here"),
            Event::Noticed => settling = Some(Box::pin(sleep(SETTLE))),
            Event::Settled => {
                settling = None;
                look_at(session, state, watching.as_ref()).await?;
            }
            Event::Rescan => {
                if let State::Selected(selected) = state {
                    let mailbox = selected.mailbox.clone();
                    session.held.run(move |_| mailbox.refresh(false)).await?;
                }
            }
        }
    }
}

/// Looks at what was noticed in the selected mailbox's folder.
async fn look_at<H: Holding>(session: &Session<H>, state: &State, watching: Option<&storage::watch::Watching>) -> Result<(), Stop> {
    if let (State::Selected(selected), Some(watching)) = (state, watching) {
        let (mailbox, happened) = (selected.mailbox.clone(), watching.take());
        session.held.run(move |_| mailbox.look_at(&happened)).await?;
    }
    Ok(())
}

/// Resolves when it is time to look at what was noticed. Safe to cancel.
async fn settled(settling: &mut Option<Pin<Box<Sleep>>>) {
    match settling {
        Some(settling) => settling.await,
        None => pending().await,
    }
}

/// Resolves when the folder changes, by whomever; never where it is not watched. Safe to cancel.
async fn noticed(watching: &mut Option<storage::watch::Watching>) {
    match watching {
        Some(watching) => watching.changed().await,
        None => pending().await,
    }
}

/// Resolves when the selected mailbox changes; never without one. Safe to cancel.
async fn changed(state: &mut State) {
    if let State::Selected(selected) = state
        && selected.changes.changed().await.is_ok()
    {
        return;
    }
    // A sender that is gone means an account that is gone: `taken_away` says so.
    pending().await
}
