//! ORDEREDSUBJECT (RFC 5256 §3): messages of one base subject are a thread, two levels deep.

use super::{Facts, Node, Threads};

pub(super) fn threads(messages: &[Facts]) -> Threads {
    let mut order: Vec<usize> = (0..messages.len()).collect();
    order.sort_unstable_by_key(|at| (&messages[*at].subject, messages[*at].by_date()));
    let mut threads =
        Threads { roots: Vec::new(), nodes: (0..messages.len()).map(|at| Node { message: Some(at), ..Node::default() }).collect() };
    for thread in order.chunk_by(|one, other| messages[*one].subject == messages[*other].subject) {
        if let Some((first, others)) = thread.split_first() {
            threads.nodes[*first].children = others.to_vec();
            threads.roots.push(*first);
        }
    }
    threads.roots.sort_unstable_by_key(|root| messages[*root].by_date());
    threads
}
