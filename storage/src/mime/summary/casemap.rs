//! The collation `i;unicode-casemap` (RFC 5051): what is equal after it is equal, and its bytes give the order.
//!
//! Each character becomes its simple titlecase, then its compatibility decomposition. Rust's tables have full capitals: where they are one
//! character that is the simple titlecase too, but for those that [`titlecase`] names.

use unicode_normalization::UnicodeNormalization;

/// The form of `text` that is compared.
pub fn casemap(text: &str) -> String {
    if text.is_ascii() { text.to_ascii_uppercase() } else { text.chars().map(titlecase).nfkd().collect() }
}

/// The simple titlecase mapping.
fn titlecase(c: char) -> char {
    match c {
        'a'..='z' => c.to_ascii_uppercase(),
        // Letters that are two in one have a form with only the first one large.
        'Ǆ'..='ǆ' => 'ǅ',
        'Ǉ'..='ǉ' => 'ǈ',
        'Ǌ'..='ǌ' => 'ǋ',
        'Ǳ'..='ǳ' => 'ǲ',
        // Georgian is all capitals or none: words have no large first letter.
        'ა'..='ჿ' => c,
        // Greek with the iota below: the full capital is two characters, the titlecase is one.
        '\u{1f80}'..='\u{1faf}' => char::from_u32(u32::from(c) | 8).unwrap_or(c),
        '\u{1fb3}' => '\u{1fbc}',
        '\u{1fc3}' => '\u{1fcc}',
        '\u{1ff3}' => '\u{1ffc}',
        _ => {
            let mut capitals = c.to_uppercase();
            match (capitals.next(), capitals.next()) {
                (Some(capital), None) => capital,
                _ => c, // such as ß: no single capital
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_is_mapped_in_every_script_and_composition_makes_no_difference() {
        for (one, other) in [
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("ПРИВЕТ", "привет"),
            ("É", "e\u{301}"),
            ("\u{212a}", "k"),
            ("ǆ", "Ǆ"),
            ("ᾳ", "ᾼ"),
            ("ᾀ", "ᾈ"),
            ("ÿ", "Ÿ"),
        ] {
            assert_eq!(casemap(one), casemap(other), "{one} {other}");
        }
        assert_eq!(casemap("Grüße"), "GRU\u{308}ßE");
        assert_ne!(casemap("ß"), casemap("SS"), "one character for one");
    }

    #[test]
    fn text_in_ascii_is_as_the_general_way_makes_it() {
        let ascii: String = (0_u8..128).map(char::from).collect();
        assert_eq!(casemap(&ascii), ascii.chars().map(titlecase).nfkd().collect::<String>());
    }
}
