//! Finds who serves a user: the open account here, the holder, or the node that is to become it.
//!
//! While a holder is suspect or this node is suspended, callers wait (bounded by `limits.route_wait`): a failover is a pause, not an error.

use std::{fmt, sync::Arc, time::Duration};

use affinity::{AffinityError, HolderId, UserName};
use serde::{Deserialize, Serialize};
use storage::StorageError;
use tokio::time::Instant;

use super::{Held, frames::Redirect};
use super::{
    accounts::{Claim, Opened},
    held::Use,
};
use crate::node::Node;

/// "Not mine" answers that are followed before giving up: the first answer of a live node is nearly always right.
pub const HOPS_MAX: u8 = 3;
/// Between two looks at a lease while it is not clear where to go; it doubles while its holder can't be reached although it is up.
const RETRY: Duration = Duration::from_millis(150);
/// The same at most.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Why no node can serve a user now. The client gets a temporary error (`NO [UNAVAILABLE]`, `-ERR [SYS/TEMP]`, 451 4.3.0).
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Waited for a failover that did not end in time.
    #[error("no node could serve {user} within {}: {reason}", humantime::format_duration(*.waited))]
    Unavailable {
        /// Whose mail.
        user: UserName,
        /// The limit.
        waited: Duration,
        /// What the last try met.
        reason: String,
    },
    /// Forwarded too often.
    #[error("{user} was forwarded {hops} times without finding a holder")]
    TooManyHops {
        /// Whose mail.
        user: UserName,
        /// How often.
        hops: u8,
    },
    /// The user has as many sessions as allowed.
    #[error("{user} has {limit} sessions{of}, the most allowed")]
    TooManySessions {
        /// Whose.
        user: UserName,
        /// The limit.
        limit: usize,
        /// Which sessions it is about.
        of: SessionsOf,
    },
    /// The holder said no.
    #[error("the holder refused the session: {0}")]
    Refused(String),
    /// This node takes nobody any more.
    #[error("this node is shutting down")]
    Leaving,
    /// The store could not be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Where the user's mail is can't be told now.
    #[error("where the mail of {user} is can't be told: {reason}")]
    Users {
        /// Whose mail.
        user: UserName,
        /// For the log.
        reason: String,
    },
    /// The lease could not be had.
    #[error(transparent)]
    Affinity(#[from] AffinityError),
}

/// Which sessions a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionsOf {
    /// All of a user (`limits.sessions_per_user`).
    User,
    /// A user's from one address (`limits.sessions_per_user_and_address`).
    UserAndAddress,
}

impl fmt::Display for SessionsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionsOf::User => Ok(()),
            SessionsOf::UserAndAddress => f.write_str(" from this address"),
        }
    }
}

/// Where a user is served.
#[derive(Debug)]
pub enum Route {
    /// Here.
    Here(Held),
    /// Ask that node; it says whether it is right.
    There {
        /// Which.
        node: HolderId,
        /// Whether it is only the place for a user that nobody holds: if it can't be reached, the account is opened here.
        placement: bool,
    },
}

/// One attempt to find a user's holder, with what earlier answers said.
pub struct Router<'a> {
    node: &'a Arc<Node>,
    user: UserName,
    what_for: Use,
    hops: u8,
    deadline: Instant,
    waited: Duration,
    hint: Option<HolderId>,
    /// A placement that can't be reached or takes nobody: serve here instead.
    here: bool,
    /// Whom the caller was sent to last, and whether that is only a placement.
    asked: Option<(HolderId, bool)>,
    /// It gives no sign of life: waited for before the next look, and how often that was.
    lost: Option<HolderId>,
    waits: u32,
    /// The last answer was no help: wait before the next look, so that nobody asks a thousand times a second.
    pause: bool,
    last: String,
}

impl<'a> Router<'a> {
    /// Starts the search for `user`'s holder.
    pub fn new(node: &'a Arc<Node>, user: UserName, what_for: Use) -> Router<'a> {
        let waited = node.config().limits.route_wait;
        Router {
            node,
            user,
            what_for,
            hops: 0,
            deadline: Instant::now() + waited,
            waited,
            hint: None,
            here: false,
            asked: None,
            lost: None,
            waits: 0,
            pause: false,
            last: "no answer yet".into(),
        }
    }

    /// Where to go next. Waits while that is unclear; an error only when the time is up or waiting can't help.
    pub async fn next(&mut self) -> Result<Route, RouteError> {
        loop {
            if Instant::now() >= self.deadline {
                return Err(RouteError::Unavailable { user: self.user.clone(), waited: self.waited, reason: self.last.clone() });
            }
            let pause = std::mem::take(&mut self.pause);
            if let Some(lost) = self.lost.take() {
                let alive = (RETRY * 2_u32.pow(self.waits.min(8))).min(RETRY_MAX);
                self.waits += 1;
                self.node.waiting.for_holder(&self.node.keeper, &lost, alive, self.deadline - Instant::now()).await;
            } else if pause {
                tokio::time::sleep(RETRY).await;
            }
            if !self.node.keeper.wait_until_up(self.deadline - Instant::now()).await {
                "this node has no contact with the shared directory".clone_into(&mut self.last);
                continue;
            }
            let attempt = tokio::time::timeout_at(self.deadline, self.attempt()).await;
            match attempt {
                Ok(Ok(Some(route))) => {
                    self.asked = match &route {
                        Route::There { node, placement } => Some((node.clone(), *placement)),
                        Route::Here(_) => None,
                    };
                    return Ok(route);
                }
                Ok(Ok(None)) => self.pause = self.hint.is_none(),
                // Also a fence that the beat has not noticed yet.
                Ok(Err(RouteError::Affinity(AffinityError::Suspended))) => {
                    "this node has no contact with the shared directory".clone_into(&mut self.last);
                    self.pause = true;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => "the shared directory does not answer".clone_into(&mut self.last),
            }
        }
    }

    async fn attempt(&mut self) -> Result<Option<Route>, RouteError> {
        if self.node.accounts.is_open(&self.user) {
            return self.open_here(Claim::Asked).await;
        }
        if std::mem::take(&mut self.here) {
            return self.open_here(Claim::Anyway).await;
        }
        let me = self.node.keeper.me();
        let holder = match self.hint.take() {
            Some(hint) => Some(hint),
            None => self.node.keeper.look(&self.user).await?.holder,
        };
        match holder {
            Some(holder) if holder == me => self.open_here(Claim::Asked).await,
            Some(holder) => match self.node.keeper.peer(&holder) {
                Some(peer) if !peer.suspect => Ok(Some(Route::There { node: holder, placement: false })),
                Some(_) => Ok(self.no_sign_of(holder)),
                // Dead, or so new that the watch has not seen it: whoever acquires finds out by a fresh listing.
                None => self.place().await,
            },
            None => self.place().await,
        }
    }

    async fn place(&mut self) -> Result<Option<Route>, RouteError> {
        match self.node.accounts.placing.place(&self.user) {
            Some(node) if node != self.node.keeper.me() => Ok(Some(Route::There { node, placement: true })),
            Some(_) => self.open_here(Claim::Asked).await,
            None => self.nowhere(self.node.accounts.placing.needs(&self.user)),
        }
    }

    /// Tags hold: waiting may help, another node would not.
    fn nowhere(&mut self, why: String) -> Result<Option<Route>, RouteError> {
        self.last = why;
        self.pause = true;
        Ok(None)
    }

    fn no_sign_of(&mut self, holder: HolderId) -> Option<Route> {
        self.last = format!("its holder {holder} gives no sign of life");
        self.lost = Some(holder);
        None
    }

    async fn open_here(&mut self, claim: Claim) -> Result<Option<Route>, RouteError> {
        let paths = self.node.account_paths(&self.user).await?;
        match self.node.accounts.open(&self.user, paths, self.what_for, claim).await? {
            Opened::Here(held) => Ok(Some(Route::Here(held))),
            Opened::HeldBy(holder) => {
                self.not_mine(Redirect { holder: Some(holder) })?;
                Ok(None)
            }
            Opened::Suspect(holder) => Ok(self.no_sign_of(holder)),
            Opened::Nowhere(why) => self.nowhere(why),
        }
    }

    /// The node that was asked is not the holder.
    pub fn not_mine(&mut self, redirect: Redirect) -> Result<(), RouteError> {
        match redirect.holder {
            Some(holder) if self.node.keeper.peer(&holder).is_some() => {
                self.hops += 1;
                if self.hops > HOPS_MAX {
                    return Err(RouteError::TooManyHops { user: self.user.clone(), hops: self.hops });
                }
                self.last = format!("sent on to {holder}");
                self.hint = Some(holder);
            }
            // It joined so lately that our watch has not listed it: nobody was asked, the next look finds it.
            Some(holder) => {
                self.last = format!("its holder {holder} has only just joined");
                self.node.keeper.look_soon();
                self.pause = true;
            }
            None => {
                "the node that was asked could not tell yet".clone_into(&mut self.last);
                self.here = self.was_placed();
                self.pause = true;
            }
        }
        Ok(())
    }

    /// The node that was asked can't be reached.
    pub fn unreachable(&mut self, placement: bool, reason: String) {
        self.last = reason;
        // A mailbox that can be served is served.
        self.here = placement;
        if !placement {
            // The holder may be dying: the watch decides.
            self.lost = self.asked.take().map(|(holder, _)| holder);
        }
    }

    fn was_placed(&self) -> bool {
        self.asked.as_ref().is_some_and(|(_, placement)| *placement)
    }
}
