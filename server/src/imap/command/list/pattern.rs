//! LIST patterns: `*` is anything, `%` anything within one level, INBOX in any case.
//!
//! All places of the pattern are followed at once, a bit each, so a name takes its length squared by 64 steps at most, whatever the pattern
//! (`hostile_patterns_take_milliseconds`).

use std::collections::HashMap;

use storage::MailboxName;

/// Between levels of the hierarchy.
const SEPARATOR: u8 = b'/';

/// A pattern, ready to be compared with many names.
///
/// Bit `i` of a set stands for: the first `i` plain bytes of the pattern, with the wildcards among them, can stand for what was read of the name.
#[derive(Debug)]
pub struct Pattern {
    /// Bytes that are no wildcards.
    plain: usize,
    /// Where each byte is the next one.
    next: HashMap<u8, Bits>,
    /// Where `*` is next.
    stars: Bits,
    /// Where `%` is next.
    percents: Bits,
}

#[derive(Debug, Clone)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(plain: usize) -> Bits {
        Bits(vec![0; plain / 64 + 1])
    }
    fn set(&mut self, at: usize) {
        if let Some(word) = self.0.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }
    fn has(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
    fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or(0)
    }
}

impl Pattern {
    /// Reference and pattern put together (RFC 3501 §6.3.8); UTF-8.
    pub fn new(reference: &str, pattern: &str) -> Pattern {
        let bytes = || reference.bytes().chain(pattern.bytes());
        let plain = bytes().filter(|byte| !matches!(byte, b'*' | b'%')).count();
        let mut new = Pattern { plain, next: HashMap::new(), stars: Bits::new(plain), percents: Bits::new(plain) };
        let mut at = 0;
        for byte in bytes() {
            match byte {
                // `**`, `*%` and `%*` are `*`.
                b'*' => new.stars.set(at),
                b'%' => new.percents.set(at),
                byte => {
                    new.next.entry(byte).or_insert_with(|| Bits::new(plain)).set(at);
                    at += 1;
                }
            }
        }
        new
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
        if self.plain > name.len() {
            return false;
        }
        let inbox_bytes = if name == "INBOX" || name.starts_with("INBOX/") { "INBOX".len() } else { 0 };
        let mut reached = Bits::new(self.plain);
        reached.set(0);
        for (position, byte) in name.bytes().enumerate() {
            let exact = self.next.get(&byte);
            let other_case = (position < inbox_bytes).then(|| self.next.get(&byte.to_ascii_lowercase())).flatten();
            let (mut carried, mut any) = (0, 0);
            for (at, word) in reached.0.iter_mut().enumerate() {
                let fits = exact.map_or(0, |bits| bits.word(at)) | other_case.map_or(0, |bits| bits.word(at));
                let stays = self.stars.word(at) | if byte == SEPARATOR { 0 } else { self.percents.word(at) };
                let goes = *word & fits;
                *word = goes << 1 | carried | *word & stays;
                carried = goes >> 63;
                any |= *word;
            }
            if any == 0 {
                return false;
            }
        }
        reached.has(self.plain)
    }
}

#[cfg(test)]
mod tests {
    use affinity::clock::wall_clock;
    use proptest::prelude::*;

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
    fn hostile_patterns_take_milliseconds() {
        let name = "a".repeat(2_000);
        let begun = wall_clock();
        for pattern in ["*a".repeat(1_999) + "b", "%a".repeat(30_000), "*".repeat(60_000) + "b", "a".repeat(60_000)] {
            assert!(!fits(&pattern, &name));
        }
        assert!(fits(&"*a".repeat(1_999), &name));
        // A byte at each of 2,000 places for each of 2,000 bytes took hundreds of them in a debug build.
        let took = wall_clock().duration_since(begun).unwrap_or_default();
        assert!(took.as_millis() < 200, "{took:?}");
    }

    proptest! {
        #[test]
        fn names_fit_as_the_definition_says(pattern in "[a-b/*%]{0,12}", name in "[a-b/]{0,12}") {
            fn by_definition(pattern: &[u8], name: &[u8]) -> bool {
                match pattern.split_first() {
                    None => name.is_empty(),
                    Some((b'*', rest)) => (0..=name.len()).any(|at| by_definition(rest, &name[at..])),
                    Some((b'%', rest)) => {
                        let level = name.iter().position(|byte| *byte == SEPARATOR).unwrap_or(name.len());
                        (0..=level).any(|at| by_definition(rest, &name[at..]))
                    }
                    Some((plain, rest)) => name.split_first().is_some_and(|(first, others)| first == plain && by_definition(rest, others)),
                }
            }
            prop_assert_eq!(fits(&pattern, &name), by_definition(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
