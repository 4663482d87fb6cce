//! How POP3 identifies messages that no earlier server named: a format in Dovecot's words.
//!
//! Invariants, each with the test that guards it:
//! - two messages of a mailbox never have one identifier: a format that can't tell them apart is refused (`a_format_that_can_not_tell_messages_apart_is_refused`)
//! - what RFC 1939 does not allow is never sent (`what_pop3_does_not_allow_is_replaced`)

use std::{fmt::Write as _, str::FromStr};

use index::{Uid, UidValidity};

use crate::maildir::filename::{Base, identity};

/// RFC 1939 §7: one to 70 characters.
const LENGTH_MAX: usize = 70;
/// Widest field: wider ones would never fit.
const WIDTH_MAX: usize = 64;

/// A format, as in `%08Xu%08Xv`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UidlFormat(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable { variable: Variable, hexadecimal: bool, case: Option<Case>, width: usize, zeros: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    Uid,
    UidValidity,
    File,
    Unique,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Lower,
    Upper,
}

impl Default for UidlFormat {
    /// Dovecot's.
    fn default() -> UidlFormat {
        "%08Xu%08Xv".parse().unwrap_or_else(|_| UidlFormat(Vec::new()))
    }
}

impl FromStr for UidlFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<UidlFormat, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (before, after) = rest.split_once('%').unwrap_or((rest, ""));
            if !before.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err("only visible ASCII characters are allowed (RFC 1939)".to_owned());
            }
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            if before.len() == rest.len() {
                break;
            }
            if let Some(after) = after.strip_prefix('%') {
                pieces.push(Piece::Text("%".to_owned()));
                rest = after;
                continue;
            }
            let (piece, after) = variable(after)?;
            pieces.push(piece);
            rest = after;
        }
        let has = |wanted| pieces.iter().any(|piece| matches!(piece, Piece::Variable { variable, .. } if *variable == wanted));
        if !(has(Variable::Uid) && has(Variable::UidValidity) || has(Variable::File) || has(Variable::Unique)) {
            return Err("it must have %u and %v, or %f, or %g: else two messages could have one identifier".to_owned());
        }
        Ok(UidlFormat(pieces))
    }
}

/// One variable with what stands before its letter.
fn variable(text: &str) -> Result<(Piece, &str), String> {
    let zeros = text.starts_with('0');
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (width, mut rest) = text.split_at(digits);
    let width = if width.is_empty() { 0 } else { width.parse().ok().filter(|width| *width <= WIDTH_MAX).ok_or("a field is too wide")? };
    let (mut hexadecimal, mut case) = (false, None);
    loop {
        let mut letters = rest.chars();
        let letter = letters.next();
        rest = letters.as_str();
        let variable = match letter {
            Some('X') => {
                hexadecimal = true;
                continue;
            }
            Some('L') => {
                case = Some(Case::Lower);
                continue;
            }
            Some('U') => {
                case = Some(Case::Upper);
                continue;
            }
            Some('u') => Variable::Uid,
            Some('v') => Variable::UidValidity,
            Some('f') => Variable::File,
            Some('g') => Variable::Unique,
            Some('m') => return Err("%m is for mbox files: use %u and %v, %f or %g".to_owned()),
            other => {
                let found = other.map_or_else(|| "the end".to_owned(), |letter| format!("{letter:?}"));
                return Err(format!(
                    "after % comes {found}: known are %u, %v, %f and %g, with a width and X (hexadecimal), L or U before the letter"
                ));
            }
        };
        return Ok((Piece::Variable { variable, hexadecimal, case, width, zeros }, rest));
    }
}

impl UidlFormat {
    /// The identifier of a message whose file is `file` (with `cur/` or without).
    pub(crate) fn identifier(&self, uid: Uid, validity: UidValidity, file: &str) -> String {
        let mut made = String::new();
        for piece in &self.0 {
            let Piece::Variable { variable, hexadecimal, case, width, zeros } = piece else {
                if let Piece::Text(text) = piece {
                    made.push_str(text);
                }
                continue;
            };
            let number = |number: u32| if *hexadecimal { format!("{number:x}") } else { number.to_string() };
            let value = match variable {
                Variable::Uid => number(uid.get()),
                Variable::UidValidity => number(validity.get()),
                // Without our own fields: adopted files have them, and an earlier server did not know of them.
                Variable::File => Base { uid: None, email_id: None, ..Base::parse(identity(file)) }.print(),
                Variable::Unique => Base::parse(identity(file)).unique,
            };
            let value = match case {
                Some(Case::Lower) => value.to_ascii_lowercase(),
                Some(Case::Upper) => value.to_ascii_uppercase(),
                None => value,
            };
            let fill = if *zeros { '0' } else { '_' };
            made.extend(std::iter::repeat_n(fill, width.saturating_sub(value.chars().count())));
            made.push_str(&value);
        }
        if !made.is_empty() && made.len() <= LENGTH_MAX && made.bytes().all(|byte| byte.is_ascii_graphic()) {
            return made;
        }
        made.clear();
        // Writing to a String can't fail.
        write!(made, "{:08x}{:08x}", uid.get(), validity.get()).unwrap_or_default();
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(format: &str, file: &str) -> String {
        let format: UidlFormat = format.parse().unwrap();
        format.identifier(Uid::new(26).unwrap(), UidValidity::new(1_763_748_000).unwrap(), file)
    }

    #[test]
    fn the_formats_of_dovecot_and_courier_come_out() {
        let file = "cur/1763748000.M52P9.node-A,S=123,W=130,U=26:2,FS";
        for (format, expected) in [
            ("%08Xu%08Xv", "0000001a6920a8a0"),
            ("%v.%u", "1763748000.26"),
            ("UID%u-%v", "UID26-1763748000"),
            ("%f", "1763748000.M52P9.node-A,S=123,W=130"),
            ("%g", "1763748000.M52P9.node-A"),
            ("%v-%u%%", "1763748000-26%"),
            ("%Lg", "1763748000.m52p9.node-a"),
            ("%08UXu%%%v", "0000001A%1763748000"),
        ] {
            assert_eq!(made(format, file), expected, "{format}");
        }
        assert_eq!(
            made("%08Xu%08Xv", ""),
            UidlFormat::default().identifier(Uid::new(26).unwrap(), UidValidity::new(1_763_748_000).unwrap(), "")
        );
    }

    #[test]
    fn what_is_added_to_an_adopted_file_does_not_change_its_identifier() {
        let before = made("%f", "cur/1763748000.M52P9.node-A,S=123,W=130:2,");
        assert_eq!(before, "1763748000.M52P9.node-A,S=123,W=130");
        let added = "cur/1763748000.M52P9.node-A,S=123,W=130,U=26,G=6311c02917d8ccc6309955dc3a758bbc:2,S";
        assert_eq!(made("%f", added), before);
    }

    #[test]
    fn a_format_that_can_not_tell_messages_apart_is_refused() {
        for wrong in ["", "%u", "%v", "x", "%m", "%", "%08X", "%q", "%u %v", "%99u%v", "\u{e9}%g", "%u%v\r\n"] {
            assert!(wrong.parse::<UidlFormat>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_pop3_does_not_allow_is_replaced() {
        let plain = "0000001a6920a8a0";
        assert_eq!(made("%f", &format!("cur/{}:2,", "x".repeat(71))), plain);
        assert_eq!(made("%f", "cur/with space:2,"), plain);
        assert_eq!(made("%g", "cur/\u{e9}:2,"), plain);
        assert_eq!(made("%g", ""), plain);
    }
}
