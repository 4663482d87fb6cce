//! Trees that grow and are cut, and still tell quickly which tree a node is in: a link-cut tree (Sleator and Tarjan, 1983).
//!
//! Invariants, each with the test that guards it:
//! - no node is its own ancestor, whatever is linked (`links_that_would_make_a_loop_are_refused`)
//! - a call takes logarithmic time (amortised), however deep the trees are (`deep_chains_are_cheap`)
//!
//! Each node is in one splay tree of nodes that lie on one path, ordered from the root down; a splay tree's `up` leads to the path it hangs
//! from. Numbers of nodes come from [`Forest::add`] only, which is why they can be trusted as positions.

/// No node.
const NONE: usize = usize::MAX;

/// Nodes by number, each with a parent or none.
#[derive(Debug, Default)]
pub struct Forest {
    parent: Vec<usize>,
    left: Vec<usize>,
    right: Vec<usize>,
    up: Vec<usize>,
}

impl Forest {
    /// A new node without a parent.
    pub fn add(&mut self) -> usize {
        for column in [&mut self.parent, &mut self.left, &mut self.right, &mut self.up] {
            column.push(NONE);
        }
        self.parent.len() - 1
    }
    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.parent.len()
    }
    /// The parent of a node.
    pub fn parent(&self, node: usize) -> Option<usize> {
        Some(self.parent[node]).filter(|parent| *parent != NONE)
    }
    /// Makes `parent` the parent of `child`, which has none; `false`: that would be a loop, nothing was done.
    pub fn link(&mut self, child: usize, parent: usize) -> bool {
        debug_assert!(self.parent(child).is_none(), "a node with a parent is cut off first");
        if self.parent[child] != NONE || self.root(parent) == child {
            return false;
        }
        self.expose(child);
        self.expose(parent);
        self.up[child] = parent;
        self.parent[child] = parent;
        true
    }
    /// Takes a node, with what hangs below it, from its parent.
    pub fn cut(&mut self, node: usize) {
        if self.parent[node] == NONE {
            return;
        }
        self.expose(node);
        let above = self.left[node];
        if above != NONE {
            self.up[above] = NONE;
            self.left[node] = NONE;
        }
        self.parent[node] = NONE;
    }

    /// The root of the tree that `node` is in.
    fn root(&mut self, node: usize) -> usize {
        self.expose(node);
        let mut first = node;
        while self.left[first] != NONE {
            first = self.left[first];
        }
        self.splay(first);
        first
    }
    /// Makes the path from the root down to `node` one splay tree with `node` at its top.
    fn expose(&mut self, node: usize) {
        self.splay(node);
        self.right[node] = NONE; // what was below hangs from here now: its `up` stays
        while self.up[node] != NONE {
            let above = self.up[node];
            self.splay(above);
            self.right[above] = node;
            self.splay(node);
        }
    }
    fn is_top(&self, node: usize) -> bool {
        let above = self.up[node];
        above == NONE || (self.left[above] != node && self.right[above] != node)
    }
    fn splay(&mut self, node: usize) {
        while !self.is_top(node) {
            let above = self.up[node];
            if !self.is_top(above) {
                let straight = (self.left[above] == node) == (self.left[self.up[above]] == above);
                self.rotate(if straight { above } else { node });
            }
            self.rotate(node);
        }
    }
    /// Lifts `node` above the node above it.
    fn rotate(&mut self, node: usize) {
        let above = self.up[node];
        let top = self.up[above];
        if !self.is_top(above) {
            if self.left[top] == above {
                self.left[top] = node;
            } else {
                self.right[top] = node;
            }
        }
        let moved = if self.left[above] == node {
            let moved = std::mem::replace(&mut self.right[node], above);
            self.left[above] = moved;
            moved
        } else {
            let moved = std::mem::replace(&mut self.left[node], above);
            self.right[above] = moved;
            moved
        };
        if moved != NONE {
            self.up[moved] = above;
        }
        self.up[above] = node;
        self.up[node] = top;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn forest(nodes: usize) -> Forest {
        let mut forest = Forest::default();
        for _ in 0..nodes {
            forest.add();
        }
        forest
    }

    #[test]
    fn links_that_would_make_a_loop_are_refused() {
        let mut forest = forest(4);
        assert!(forest.link(1, 0) && forest.link(2, 1));
        assert!(!forest.link(0, 0) && !forest.link(0, 1) && !forest.link(0, 2));
        forest.cut(1);
        assert!(forest.link(0, 2));
        assert_eq!((forest.parent(0), forest.parent(1), forest.parent(2)), (Some(2), None, Some(1)));
    }

    #[test]
    fn deep_chains_are_cheap() {
        const NODES: usize = 200_000;
        let mut forest = forest(NODES);
        #[expect(clippy::disallowed_methods, reason = "measures what the processor does; nothing waits")]
        let start = Instant::now();
        for node in 1..NODES {
            assert!(forest.link(node, node - 1));
        }
        for _ in 0..NODES {
            assert!(!forest.link(0, NODES - 1), "the whole chain lies between them");
        }
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    proptest! {
        #[test]
        fn it_does_what_walking_up_does(steps in prop::collection::vec((0_usize..12, 0_usize..12, any::<bool>()), 0..120)) {
            let mut forest = forest(12);
            let mut parents = [None; 12];
            for (child, parent, cut) in steps {
                if cut || parents[child].is_some() {
                    forest.cut(child);
                    parents[child] = None;
                } else {
                    let is_below = std::iter::successors(Some(parent), |node| parents[*node]).any(|node| node == child);
                    prop_assert_eq!(forest.link(child, parent), !is_below);
                    if !is_below {
                        parents[child] = Some(parent);
                    }
                }
                for node in 0..12 {
                    prop_assert_eq!(forest.parent(node), parents[node]);
                }
            }
        }
    }
}
