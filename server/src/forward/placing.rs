//! Where a user belongs, as seen from this node: by pins, tags, weights, and who takes users at all.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use affinity::{HolderId, Keeper, Peer, UserName, Wish, placement};

/// What a user's record wishes.
type WishOf = dyn Fn(&UserName) -> Wish + Send + Sync;

/// What it takes to place users.
pub struct Placing {
    keeper: Keeper,
    wish_of: Box<WishOf>,
    /// The node leaves.
    leaving: AtomicBool,
    /// An operator drains it.
    draining: AtomicBool,
    /// It can't serve as it should.
    unfit: AtomicBool,
    /// Users stay here whom no other node takes.
    keeping: AtomicBool,
}

impl fmt::Debug for Placing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Placing").field("keeper", &self.keeper).finish_non_exhaustive()
    }
}

impl Placing {
    /// `wish_of` gives what a user's record says.
    pub fn new(keeper: Keeper, wish_of: impl Fn(&UserName) -> Wish + Send + Sync + 'static) -> Placing {
        let [leaving, draining, unfit, keeping] = std::array::from_fn(|_| AtomicBool::new(false));
        Placing { keeper, wish_of: Box::new(wish_of), leaving, draining, unfit, keeping }
    }

    /// This node takes nobody from now on: it ends.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }
    /// Whether it ends.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }
    /// Takes no new users from now on, or takes them again; what it was before.
    pub fn set_draining(&self, draining: bool) -> bool {
        self.draining.swap(draining, Ordering::SeqCst)
    }
    /// Whether an operator drains this node.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst) || self.is_leaving()
    }
    /// This node can't serve as it should, or can again.
    pub fn set_unfit(&self, unfit: bool) {
        self.unfit.store(unfit, Ordering::SeqCst);
    }
    /// Users stay here whom no other node takes, or none does any more; what it was before.
    pub fn set_keeping(&self, keeping: bool) -> bool {
        self.keeping.swap(keeping, Ordering::SeqCst)
    }
    /// Whether new users go elsewhere, if there is another node for them.
    pub fn takes_nobody(&self) -> bool {
        self.is_draining() || self.unfit.load(Ordering::SeqCst)
    }

    /// What operators wish for a user: `berth pin` comes before the record.
    pub fn wish(&self, user: &UserName) -> Wish {
        let recorded = (self.wish_of)(user);
        Wish { pin: self.keeper.pin_of(user).or(recorded.pin), tags: recorded.tags }
    }

    /// The node that a user without a holder is to go to; `None`: none that may have them is up.
    pub fn place(&self, user: &UserName) -> Option<HolderId> {
        self.keeper.place(user, &self.wish(user))
    }

    /// Another node that takes new users, if there is one: where `user` goes when this node may not have them.
    pub fn elsewhere(&self, user: &UserName) -> Option<HolderId> {
        let me = self.keeper.me();
        let others: Vec<Peer> = self.keeper.peers().into_iter().filter(|peer| peer.holder.node != me.node && peer.takes_users()).collect();
        placement::place(user, &self.wish(user), others.iter()).map(|placed| placed.on.clone())
    }

    /// Whether this node may have the user: it has every tag that they need.
    pub fn permits(&self, user: &UserName) -> bool {
        let tags = (self.wish_of)(user).tags;
        tags.is_empty() || {
            let me = self.keeper.me();
            tags.is_subset(&self.keeper.settings(&me.node).tags())
        }
    }

    /// Whether an operator wants the user on another node that is up: by a pin or by tags, not by weights.
    pub fn wished_elsewhere(&self, user: &UserName) -> bool {
        let wish = self.wish(user);
        let is_wish = wish.pin.is_some() || !wish.tags.is_empty();
        is_wish && self.keeper.place(user, &wish).is_some_and(|holder| holder.node != self.keeper.me().node)
    }

    /// For people: which nodes may have the user.
    pub fn needs(&self, user: &UserName) -> String {
        let tags: Vec<String> = (self.wish_of)(user).tags.into_iter().map(String::from).collect();
        format!("no node with the tags of {user} ({}) is up", tags.join(", "))
    }
}
