//! The base subject (RFC 5256 §2.1): a subject without `Re:`, `[list]`, `(fwd)` and the like.
//!
//! Invariants, each with the test that guards it:
//! - time is linear in the subject, however it is built (`hostile_subjects_take_linear_time`)
//! - what is a base subject is its own base subject (`a_base_subject_is_its_own`)

/// A subject taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The base subject, before any collation.
    pub base: String,
    /// Whether it says that the message is a reply or was forwarded.
    pub is_reply: bool,
}

/// The base of a subject whose encoded-words are decoded.
pub fn base_subject(decoded: &str) -> Subject {
    let spaced = single_spaces(decoded);
    let mut is_reply = false;
    let mut rest = spaced.as_str();
    loop {
        rest = without_trailers(rest, &mut is_reply);
        rest = without_leaders(rest, &mut is_reply);
        // (6)
        match take(rest, "[fwd:").and_then(|inner| inner.strip_suffix(']')) {
            Some(inner) => {
                is_reply = true;
                rest = inner;
            }
            None => return Subject { base: rest.to_owned(), is_reply },
        }
    }
}

/// (1): line ends and tabs are spaces, and one space is as good as many.
fn single_spaces(text: &str) -> String {
    let is_space = |c| matches!(c, ' ' | '\t' | '\r' | '\n');
    let mut spaced = String::with_capacity(text.len());
    for c in text.chars() {
        match is_space(c) {
            true if spaced.ends_with(' ') => {}
            true => spaced.push(' '),
            false => spaced.push(c),
        }
    }
    spaced
}

/// (2)
fn without_trailers<'t>(mut rest: &'t str, is_reply: &mut bool) -> &'t str {
    loop {
        rest = rest.trim_end_matches(' ');
        let before = rest.len().checked_sub("(fwd)".len()).and_then(|at| rest.split_at_checked(at));
        match before {
            Some((before, trailer)) if trailer.eq_ignore_ascii_case("(fwd)") => {
                *is_reply = true;
                rest = before;
            }
            _ => return rest,
        }
    }
}

/// (3) to (5)
fn without_leaders<'t>(mut rest: &'t str, is_reply: &mut bool) -> &'t str {
    loop {
        rest = rest.trim_start_matches(' ');
        // All blobs at once: whether a `Re:` follows them is the same question before each of them.
        let (mut after_blobs, mut last_blob) = (rest, None);
        while let Some(after) = without_blob(after_blobs) {
            last_blob = Some(after_blobs);
            after_blobs = after;
        }
        match (without_reply_mark(after_blobs), last_blob) {
            (Some(after), _) => {
                *is_reply = true;
                rest = after;
            }
            // A last blob with nothing after it is the subject itself.
            (None, Some(last)) if after_blobs.is_empty() => return last,
            (None, _) => return after_blobs,
        }
    }
}

/// `[list] `; `None`: there is none.
fn without_blob(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('[')?;
    let end = inside.find(['[', ']'])?;
    inside.get(end..)?.strip_prefix(']').map(|after| after.trim_start_matches(' '))
}

/// `Re [list]:`, `Fwd:`; `None`: there is none.
fn without_reply_mark(text: &str) -> Option<&str> {
    let after = take(text, "re").or_else(|| take(text, "fwd")).or_else(|| take(text, "fw"))?.trim_start_matches(' ');
    without_blob(after).unwrap_or(after).strip_prefix(':')
}

/// What follows `start`, in any case.
fn take<'t>(text: &'t str, start: &str) -> Option<&'t str> {
    let (head, after) = text.split_at_checked(start.len())?;
    head.eq_ignore_ascii_case(start).then_some(after)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn replies_forwards_and_lists_are_taken_off() {
        for (subject, base, is_reply) in [
            ("hello", "hello", false),
            ("Re: hello", "hello", true),
            ("RE:hello", "hello", true),
            ("Fw: fwd: re: hello", "hello", true),
            ("re [list] : hello", "hello", true),
            ("[list] hello", "hello", false),
            ("[list] Re: [list] Re: hello", "hello", true),
            ("[list]", "[list]", false),
            ("[one] [two]", "[two]", false),
            ("Re: [list]", "[list]", true),
            ("hello (fwd)", "hello", true),
            ("hello (FWD) (fwd)  ", "hello", true),
            ("[Fwd: hello]", "hello", true),
            ("[fwd: [fwd: Re: hello (fwd)]]", "hello", true),
            ("Re: [Fwd: hello]", "hello", true),
            ("hello [fwd: there]", "hello [fwd: there]", false),
            ("Re: ", "", true),
            ("Re", "Re", false),
            ("Regarding: hello", "Regarding: hello", false),
            ("re:re", "re", true),
            ("a \t\r\n b", "a b", false),
            ("  hello  ", "hello", false),
            ("", "", false),
            ("Ré: é", "Ré: é", false),
            ("[é] Re[é]: é", "é", true),
            ("[a[b] hello", "[a[b] hello", false),
        ] {
            let expected = Subject { base: base.to_owned(), is_reply };
            assert_eq!(base_subject(subject), expected, "{subject:?}");
        }
    }

    #[test]
    fn hostile_subjects_take_linear_time() {
        #[expect(clippy::disallowed_methods, reason = "measures what the processor does; nothing waits")]
        let start = Instant::now();
        for piece in ["[a]", "[fwd:", "re:", "re[a]", "[a] re: ", "(fwd)", "[", " ", "[fwd: ]"] {
            let subject = piece.repeat(300_000 / piece.len());
            assert!(base_subject(&subject).base.len() <= subject.len());
            assert!(base_subject(&format!("{subject}x{}", "]".repeat(100_000))).base.len() <= subject.len() + 100_001);
        }
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    proptest! {
        #[test]
        fn a_base_subject_is_its_own(pieces in prop::collection::vec("re|fw|fwd|:|\\[|\\]|\\(fwd\\)|\\[fwd:| |x|é", 0..12)) {
            let once = base_subject(&pieces.concat());
            let again = base_subject(&once.base);
            prop_assert_eq!(again, Subject { base: once.base.clone(), is_reply: false });
        }
    }
}
