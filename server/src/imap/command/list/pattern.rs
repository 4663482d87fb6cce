//! LIST patterns: `*` is anything, `%` anything within one level, INBOX in any case.
//!
//! Time is the product of the lengths at most, whatever the pattern (`hostile_patterns_take_linear_time_per_name`).

use storage::MailboxName;

/// Between levels of the hierarchy.
const SEPARATOR: u8 = b'/';

/// A pattern, ready to be compared with many names.
#[derive(Debug)]
pub struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    /// Reference and pattern put together (RFC 3501 §6.3.8); UTF-8.
    pub fn new(reference: &str, pattern: &str) -> Pattern {
        let mut bytes = Vec::with_capacity(reference.len() + pattern.len());
        for byte in reference.bytes().chain(pattern.bytes()) {
            // `**` and `*%` are `*`.
            match (bytes.last(), byte) {
                (Some(b'*'), b'*' | b'%') | (Some(b'%'), b'%') => {}
                (Some(b'%'), b'*') => {
                    bytes.pop();
                    bytes.push(b'*');
                }
                _ => bytes.push(byte),
            }
        }
        Pattern { bytes }
    }

    /// Whether a name fits.
    pub fn matches(&self, name: &MailboxName) -> bool {
        self.matches_str(name.as_str())
    }

    /// The levels above `name` that fit, topmost first, without `name` itself.
    pub fn matching_parents<'a>(&self, name: &'a MailboxName) -> impl Iterator<Item = &'a str> {
        let name = name.as_str();
        name.match_indices('/').filter_map(move |(at, _)| name.get(..at)).filter(|parent| self.matches_str(parent))
    }

    fn matches_str(&self, name: &str) -> bool {
        let inbox_bytes = if name == "INBOX" || name.starts_with("INBOX/") { "INBOX".len() } else { 0 };
        // `states[i]`: the first `i` bytes of the pattern can stand for what was read of the name.
        let mut states = vec![false; self.bytes.len() + 1];
        let mut next = states.clone();
        self.enter(&mut states, 0);
        for (position, byte) in name.bytes().enumerate() {
            next.fill(false);
            for (at, wanted) in self.bytes.iter().enumerate().filter(|(at, _)| states.get(*at) == Some(&true)) {
                match wanted {
                    b'*' => self.enter(&mut next, at),
                    b'%' if byte != SEPARATOR => self.enter(&mut next, at),
                    b'%' => {}
                    plain if *plain == byte || (position < inbox_bytes && plain.eq_ignore_ascii_case(&byte)) => {
                        self.enter(&mut next, at + 1)
                    }
                    _ => {}
                }
            }
            std::mem::swap(&mut states, &mut next);
        }
        states.last() == Some(&true)
    }

    /// Marks a state, and those behind wildcards, which may stand for nothing.
    fn enter(&self, states: &mut [bool], mut at: usize) {
        loop {
            if let Some(state) = states.get_mut(at) {
                *state = true;
            }
            if !matches!(self.bytes.get(at), Some(b'*' | b'%')) {
                return;
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, name: &str) -> bool {
        Pattern::new("", pattern).matches_str(name)
    }

    #[test]
    fn a_star_crosses_levels_and_a_percent_sign_does_not() {
        assert!(fits("*", "a/b/c") && fits("a*", "a/b/c") && fits("*c", "a/b/c") && fits("a*c", "a/b/c"));
        assert!(fits("%", "a") && !fits("%", "a/b") && fits("%/%", "a/b") && fits("a/%", "a/bc") && !fits("a/%", "a/b/c"));
        assert!(fits("%/*", "a/b/c") && fits("*%", "a/b") && fits("%*", "a/b") && fits("**", "a"));
        assert!(!fits("", "a") && !fits("a", "ab") && !fits("ab", "a") && fits("a%", "a"));
    }

    #[test]
    fn inbox_is_the_same_in_any_case_and_nothing_else_is() {
        assert!(fits("inbox", "INBOX") && fits("InB%", "INBOX") && fits("inbox/sub", "INBOX/sub") && fits("i*", "INBOX"));
        assert!(!fits("INBOX/SUB", "INBOX/sub") && !fits("ARCHIVE", "Archive") && !fits("inboxes", "INBOXES"));
    }

    #[test]
    fn the_reference_comes_first() {
        assert!(Pattern::new("Archive/", "%").matches_str("Archive/2026"));
        assert!(!Pattern::new("Archive/", "%").matches_str("2026"));
    }

    #[test]
    fn names_in_any_script_are_compared_whole() {
        assert!(fits("Entwürfe", "Entwürfe") && fits("Entw%", "Entwürfe") && fits("*ürfe", "Entwürfe"));
    }

    #[test]
    fn hostile_patterns_take_linear_time_per_name() {
        let pattern = "*a".repeat(500) + "b";
        assert!(!fits(&pattern, &"a".repeat(2_000)));
    }
}
