//! REFERENCES (RFC 5256 §3, its six steps) and REFS (draft-ietf-morg-inthread: without subjects, the newest thread last).
//!
//! Nothing here is quadratic: whether a link would make a loop is asked of `forest.rs`, everything else is one pass or one sort. Numbers of
//! nodes are positions, given by the forest; they never come from mail.

use std::collections::{HashMap, hash_map::Entry};

use super::{Facts, Node, Threads, forest::Forest};

/// What makes a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grouping {
    /// References, then base subjects (REFERENCES).
    AndSubjects,
    /// References alone (REFS).
    Alone,
}

/// `messages` are in the order of the mailbox.
pub(super) fn threads(messages: &[Facts], grouping: Grouping) -> Threads {
    let mut threads = pruned(linked(messages));
    match grouping {
        Grouping::AndSubjects => {
            threads.sort_roots_by_sent(messages);
            threads.merge_subjects(messages);
            threads.sort_children(messages);
            threads.sort_roots_by_sent(messages);
        }
        Grouping::Alone => {
            threads.sort_children(messages);
            threads.sort_roots_by_newest(messages);
        }
    }
    threads
}

/// Parents and children as the references tell them.
struct Linked {
    forest: Forest,
    /// By node: the message with that ID; `None`: nobody has it.
    message: Vec<Option<usize>>,
}

/// Step 1.
fn linked(messages: &[Facts]) -> Linked {
    let mut ids = Ids { linked: Linked { forest: Forest::default(), message: Vec::new() }, nodes: HashMap::new() };
    for (position, facts) in messages.iter().enumerate() {
        let node = ids.node_of_message(position, facts);
        let mut last = None;
        for reference in &facts.references {
            let reference = ids.node(reference);
            if let Some(parent) = last.replace(reference) {
                let forest = &mut ids.linked.forest;
                if forest.parent(reference).is_none() {
                    forest.link(reference, parent); // (1.A); a loop is refused there
                }
            }
        }
        // (1.B)
        let forest = &mut ids.linked.forest;
        if forest.parent(node) != last {
            forest.cut(node);
            if let Some(parent) = last {
                forest.link(node, parent);
            }
        }
    }
    ids.linked
}

struct Ids<'m> {
    linked: Linked,
    nodes: HashMap<&'m [u8], usize>,
}

impl<'m> Ids<'m> {
    fn add(&mut self, message: Option<usize>) -> usize {
        self.linked.message.push(message);
        self.linked.forest.add()
    }
    /// The node of an ID, new if need be.
    fn node(&mut self, id: &'m [u8]) -> usize {
        if let Some(node) = self.nodes.get(id) {
            return *node;
        }
        let node = self.add(None);
        self.nodes.insert(id, node);
        node
    }
    /// The node of a message: that of its ID, unless it has none or an earlier message has it.
    fn node_of_message(&mut self, position: usize, facts: &'m Facts) -> usize {
        let node = facts.id.as_deref().map(|id| self.node(id)).filter(|node| self.linked.message[*node].is_none());
        match node {
            Some(node) => {
                self.linked.message[node] = Some(position);
                node
            }
            None => self.add(Some(position)),
        }
    }
}

/// Steps 2 and 3: children move up to the nearest message above them; what then has none stays below a dummy with its siblings.
fn pruned(linked: Linked) -> Threads {
    let Linked { forest, message } = linked;
    let mut threads =
        Threads { roots: Vec::new(), nodes: message.iter().map(|message| Node { message: *message, ..Node::default() }).collect() };
    let (mut tops, mut below) = (Vec::new(), vec![Vec::new(); forest.len()]);
    for node in 0..forest.len() {
        match forest.parent(node) {
            Some(parent) => below[parent].push(node),
            None => tops.push(node),
        }
    }
    let mut open: Vec<(usize, usize)> = Vec::new();
    for top in tops {
        open.extend(below[top].iter().map(|child| (*child, top)));
        while let Some((node, holder)) = open.pop() {
            let is_dummy = threads.nodes[node].message.is_none();
            if !is_dummy {
                threads.nodes[holder].children.push(node);
            }
            open.extend(below[node].iter().map(|child| (*child, if is_dummy { holder } else { node })));
        }
        let node = &mut threads.nodes[top];
        match (node.message, node.children.len()) {
            (None, 0) => {}
            (None, 1) => threads.roots.append(&mut node.children),
            _ => threads.roots.push(top),
        }
    }
    threads
}

impl Threads {
    /// The message that stands for a root: its own, or its first child's.
    fn first<'m>(&self, root: usize, messages: &'m [Facts]) -> Option<&'m Facts> {
        let node = &self.nodes[root];
        match node.message {
            Some(message) => messages.get(message),
            None => node.children.iter().filter_map(|child| messages.get(self.nodes[*child].message?)).min_by_key(|facts| facts.by_date()),
        }
    }
    /// Step 4.
    fn sort_roots_by_sent(&mut self, messages: &[Facts]) {
        let mut keyed: Vec<_> = self.roots.iter().map(|root| (self.first(*root, messages).map(Facts::by_date), *root)).collect();
        keyed.sort_unstable();
        self.roots = keyed.into_iter().map(|(_, root)| root).collect();
    }
    /// Step 5.
    fn merge_subjects(&mut self, messages: &[Facts]) {
        let roots = std::mem::take(&mut self.roots);
        let subject =
            |threads: &Threads, root| threads.first(root, messages).map(|facts| &*facts.subject).filter(|subject| !subject.is_empty());
        let is_dummy = |threads: &Threads, root: usize| threads.nodes[root].message.is_none();
        let is_reply = |threads: &Threads, root: usize| {
            threads.nodes[root].message.and_then(|at| messages.get(at)).is_some_and(|facts| facts.is_reply)
        };
        // (B)
        let subjects: Vec<Option<&str>> = roots.iter().map(|root| subject(self, *root)).collect();
        let mut table: HashMap<&str, usize> = HashMap::new();
        for (root, subject) in roots.iter().zip(&subjects) {
            let Some(subject) = subject else { continue };
            match table.entry(subject) {
                Entry::Vacant(entry) => drop(entry.insert(*root)),
                Entry::Occupied(mut entry) => {
                    let listed = *entry.get();
                    let replaces = is_dummy(self, *root) || (is_reply(self, listed) && !is_reply(self, *root));
                    if !is_dummy(self, listed) && replaces {
                        entry.insert(*root);
                    }
                }
            }
        }
        // (C)
        let mut keep: Vec<usize> = Vec::with_capacity(roots.len());
        for (root, subject) in roots.iter().zip(&subjects) {
            let Some(listed) = subject.and_then(|subject| table.get_mut(subject)) else {
                keep.push(*root);
                continue;
            };
            if *listed == *root {
                keep.push(*root);
            } else if is_dummy(self, *listed) {
                if is_dummy(self, *root) {
                    let children = std::mem::take(&mut self.nodes[*root].children);
                    self.nodes[*listed].children.extend(children);
                } else {
                    self.nodes[*listed].children.push(*root);
                }
            } else if is_reply(self, *root) && !is_reply(self, *listed) {
                self.nodes[*listed].children.push(*root);
            } else {
                self.nodes.push(Node { message: None, children: vec![*listed, *root] });
                *listed = self.nodes.len() - 1;
                keep.push(*listed);
            }
        }
        // What stood in the table when its dummy was made is below that now.
        let mut is_below = vec![false; self.nodes.len()];
        keep.iter().flat_map(|root| &self.nodes[*root].children).for_each(|child| is_below[*child] = true);
        keep.retain(|root| !is_below[*root]);
        self.roots = keep;
    }
    /// Step 6. Each set of siblings depends on its own messages alone: below the roots there are no dummies.
    fn sort_children(&mut self, messages: &[Facts]) {
        let mut all: Vec<Vec<usize>> = self.nodes.iter_mut().map(|node| std::mem::take(&mut node.children)).collect();
        for children in &mut all {
            children.sort_by_cached_key(|child| self.nodes[*child].message.and_then(|at| messages.get(at)).map(Facts::by_date));
        }
        for (node, children) in self.nodes.iter_mut().zip(all) {
            node.children = children;
        }
    }
    /// REFS: by the newest message of each thread as it arrived, so that what is new comes last.
    fn sort_roots_by_newest(&mut self, messages: &[Facts]) {
        let mut keyed = Vec::with_capacity(self.roots.len());
        let mut open = Vec::new();
        for root in &self.roots {
            open.push(*root);
            let mut newest = None;
            while let Some(node) = open.pop() {
                let node = &self.nodes[node];
                newest = newest.max(node.message.and_then(|at| messages.get(at)).map(|facts| (facts.arrived, facts.sequence)));
                open.extend(&node.children);
            }
            keyed.push((newest, *root));
        }
        keyed.sort_unstable();
        self.roots = keyed.into_iter().map(|(_, root)| root).collect();
    }
}
