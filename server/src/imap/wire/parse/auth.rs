//! LOGIN, AUTHENTICATE, ID, ENABLE.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::cursor::{Cursor, Fail, Parsed};
use crate::imap::wire::command::Command;

/// RFC 2971 §3.3: more are never sent.
const ID_FIELDS_MAX: usize = 30;

/// Base64 as clients write it: some leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true),
);

/// A line of the client within AUTHENTICATE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SaslLine {
    /// `*`: given up (answer BAD).
    Cancel,
    /// The decoded response.
    Response(Vec<u8>),
    /// Not base64 (answer BAD).
    Malformed,
}

/// Reads a line of the client within AUTHENTICATE.
pub fn sasl_line(line: &[u8]) -> SaslLine {
    match line.trim_ascii() {
        b"*" => SaslLine::Cancel,
        base64 => BASE64.decode(base64).map_or(SaslLine::Malformed, SaslLine::Response),
    }
}

pub(super) fn command(cursor: &mut Cursor<'_>, verb: &str) -> Parsed<Command> {
    match verb {
        "LOGIN" => {
            let user = cursor.astring("a user name")?.into_owned();
            cursor.space()?;
            Ok(Command::Login { user, password: cursor.astring("a password")?.into_owned() })
        }
        "AUTHENTICATE" => authenticate(cursor),
        "ENABLE" => {
            let mut capabilities = vec![cursor.atom("a capability")?.to_ascii_uppercase()];
            while cursor.more() {
                capabilities.push(cursor.atom("a capability")?.to_ascii_uppercase());
            }
            Ok(Command::Enable(capabilities))
        }
        _ => id(cursor),
    }
}

fn authenticate(cursor: &mut Cursor<'_>) -> Parsed<Command> {
    let mechanism = cursor.atom("a SASL mechanism")?.to_ascii_uppercase();
    if !cursor.more() {
        return Ok(Command::Authenticate { mechanism, initial: None });
    }
    let initial = match cursor.take_while(|byte| byte != b' ') {
        b"=" => Vec::new(), // RFC 4959 §3: an empty response
        base64 => BASE64.decode(base64).map_err(|_| Fail::new("the initial response is not valid base64"))?,
    };
    Ok(Command::Authenticate { mechanism, initial: Some(initial) })
}

fn id(cursor: &mut Cursor<'_>) -> Parsed<Command> {
    if cursor.take_nil() {
        return Ok(Command::Id(None));
    }
    let mut fields = Vec::new();
    cursor.parenthesised("NIL or a list of fields", |cursor| {
        if fields.len() == ID_FIELDS_MAX {
            return Err(Fail::new(format!("ID has more than {ID_FIELDS_MAX} fields")));
        }
        let field = cursor.string("a field name in quotes")?.into_owned();
        cursor.space()?;
        fields.push((field, cursor.nstring("a value in quotes, or NIL")?.map(Vec::from)));
        Ok(())
    })?;
    Ok(Command::Id(Some(fields)))
}
