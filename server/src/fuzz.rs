//! What fuzzers feed (`tests/fuzz`): every parser of bytes that others send or write, each with what must hold for any bytes.
//!
//! The same entry points run on stable, bounded, over the corpus and over what is made from it (`no_input_breaks_a_parser`).

use std::{mem::discriminant, path::Path};

use affinity::{Address, NameRules};
use bytes::BytesMut;
use futures::FutureExt;
use imap_codec::{CommandCodec, decode::Decoder, encode::Encoder};
pub use storage::fuzz::Target;

use crate::{
    auth::{passwd_file::Users, scheme::Scheme},
    config::Config,
    forward::frames,
    imap::wire::{
        command::Tagged,
        enabled::Enabled,
        framing::{Framer, Limits, Step},
        parse::{self, NESTING_MAX, Options},
        url,
    },
    lmtp,
    node::proxy,
    pop3,
};

/// By name, as in `tests/fuzz/corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("imap", imap),
    ("imap_both_ways", imap_both_ways),
    ("imap_url", imap_url),
    ("pop3", pop3),
    ("lmtp", lmtp),
    ("proxy", proxy),
    ("relay_frame", relay_frame),
    ("passwd_file", passwd_file),
    ("user_name", user_name),
];

/// How much of one command is taken here.
const LIMITS: Limits = Limits { line_bytes: 4096, literal_bytes: 4096, command_bytes: 16_384 };

/// A client's bytes: cut into commands, each parsed. What is taken is never more than what came.
pub fn imap(input: &[u8]) {
    let mut framer = Framer::new(LIMITS);
    let mut bytes = BytesMut::from(input);
    // Each step takes a byte at least, or asks for more.
    for _ in 0..=input.len() {
        if framer.literal_remaining() > 0 {
            if framer.literal_chunk(&mut bytes).is_none() {
                return;
            }
            continue;
        }
        match framer.next(&mut bytes) {
            Step::NeedInput => return,
            Step::Command(command) => {
                for enabled in [Enabled::NOTHING, Enabled { rev2: true, utf8_accept: true, uid_only: true, ..Enabled::NOTHING }] {
                    drop(parse::parse(&command, Options { enabled, nesting: NESTING_MAX }));
                }
            }
            Step::Append(start) => {
                if start.line.literal.is_some() && !framer.accept_literal() {
                    return;
                }
            }
            Step::AppendMore(line) => {
                if line.literal.is_some() && !framer.accept_literal() {
                    return;
                }
            }
            Step::Refused(refusal) if refusal.fatal => return,
            Step::Refused(_) | Step::Continue { .. } => {}
        }
    }
}

/// What we take of a client's bytes, and imap-codec too, we take as the same command when imap-codec has written it anew (its sets are sorted): nothing
/// depends on how a command is spelt.
pub fn imap_both_ways(input: &[u8]) {
    let input = [input, b"\r\n"].concat();
    let Ok((rest, theirs)) = CommandCodec::default().decode(&input) else { return };
    let Some(ours) = first_command(input.get(..input.len() - rest.len()).unwrap_or_default()) else { return };
    let written = CommandCodec::default().encode(&theirs).dump();
    let shown = String::from_utf8_lossy(&written);
    let Some(again) = first_command(&written) else { panic!("{shown} is not taken") };
    assert!(discriminant(&again.command) == discriminant(&ours.command) && again.tag == ours.tag, "{shown} is {again:?}");
}

fn first_command(bytes: &[u8]) -> Option<Tagged> {
    let (mut framer, mut bytes) = (Framer::new(LIMITS), BytesMut::from(bytes));
    for _ in 0..=bytes.len() {
        match framer.next(&mut bytes) {
            Step::Continue { .. } => {}
            Step::Command(command) => return parse::parse(&command, Options { enabled: Enabled::NOTHING, nesting: NESTING_MAX }).ok(),
            Step::NeedInput | Step::Append(_) | Step::AppendMore(_) | Step::Refused(_) => return None,
        }
    }
    None
}

/// URLs in CATENATE.
pub fn imap_url(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    drop(url::parse(text, None));
    drop(url::parse(text, Some("INBOX")));
}

/// One line of a POP3 client.
pub fn pop3(input: &[u8]) {
    drop(pop3::command::parse(input));
}

/// One line of a transfer agent.
pub fn lmtp(input: &[u8]) {
    drop(lmtp::command::parse(input));
}

/// A load balancer's header.
pub fn proxy(mut input: &[u8]) {
    assert!(proxy::read(&mut input).now_or_never().is_some(), "bytes in memory are never waited for");
}

/// What another node asks and answers.
pub fn relay_frame(input: &[u8]) {
    let mut request = input;
    assert!(frames::read::<frames::Request, _>(&mut request).now_or_never().is_some());
    let mut answer = input;
    assert!(frames::read_who(&mut answer).now_or_never().is_some());
    // Without its length, so that fuzzers get past it.
    drop(serde_json::from_slice::<frames::Request>(input));
}

/// A users file: what can't be read is left out, the rest is there.
pub fn passwd_file(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    drop(Users::parse(text, &NameRules::default(), Scheme::Sha512Crypt));
}

/// Login names and envelope addresses: whoever comes out of one has a folder of their own, in the place for it.
pub fn user_name(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let rules = NameRules { detail_delimiter: "+".to_owned(), master_separator: "*".to_owned(), ..NameRules::default() };
    let Ok(address) = Address::parse(text, &rules) else { return };
    let encoded = address.user.encoded();
    assert!(
        !encoded.is_empty() && encoded.len() <= 255 && !encoded.contains(['/', '\0']) && !encoded.starts_with('.'),
        "{text:?}: {encoded:?}"
    );
    let config = Config::new(Path::new("/srv/berth"));
    let paths = config.account_paths(&address.user, None).unwrap_or_else(|why| panic!("{text:?}: {why}"));
    let inside = paths.maildir.strip_prefix("/srv/berth/mail").unwrap_or_else(|_| panic!("{text:?}: {}", paths.maildir.display()));
    let parts: Vec<_> = inside.components().collect();
    let plain = parts.iter().all(|part| matches!(part, std::path::Component::Normal(name) if name.len() <= 255));
    assert!(parts.len() == 3 && plain, "{text:?}: {}", paths.maildir.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_input_breaks_a_parser() {
        storage::fuzz::exercise(TARGETS, &Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus"), 4_000);
    }
}
