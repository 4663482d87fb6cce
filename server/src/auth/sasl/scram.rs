//! SCRAM's server side (RFC 5802, RFC 7677): SCRAM-SHA-1 and SCRAM-SHA-256, with channel binding as -PLUS (RFC 5929, RFC 9266). No I/O.
//!
//! Invariants, each with the test that guards it:
//! - the RFCs' own exchanges come out byte for byte (`the_exchanges_of_the_rfcs_come_out_byte_for_byte`)
//! - a client that could have bound the channel and was told that we can't is refused (`a_downgrade_is_noticed`)
//! - the channel bound is this connection's (`another_channel_is_refused`)
//! - no message makes it panic (`no_message_makes_it_panic`)

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Rounds of PBKDF2 in new verifiers: a client computes them at each login, a thief of the file for each guess. RFC 7677 asks for 4096 at least.
pub const ROUNDS: u32 = 20_000;
/// Bytes of a client's nonce at most: clients send some dozen.
const NONCE_BYTES_MAX: usize = 512;

/// The hash of a mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of algorithms")]
pub enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    fn of(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha1 => Sha1::digest(bytes).to_vec(),
            Hash::Sha256 => Sha256::digest(bytes).to_vec(),
        }
    }

    fn mac(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        // HMAC takes keys of any length, so the `Err` can't occur; an empty signature would match nothing.
        match self {
            Hash::Sha1 => Hmac::<Sha1>::new_from_slice(key).map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec()),
            Hash::Sha256 => Hmac::<Sha256>::new_from_slice(key).map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec()),
        }
        .unwrap_or_default()
    }

    fn salted(self, password: &[u8], salt: &[u8], rounds: u32) -> Vec<u8> {
        match self {
            Hash::Sha1 => {
                let mut salted = vec![0; 20];
                pbkdf2::pbkdf2_hmac::<Sha1>(password, salt, rounds, &mut salted);
                salted
            }
            Hash::Sha256 => {
                let mut salted = vec![0; 32];
                pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, rounds, &mut salted);
                salted
            }
        }
    }
}

/// What a server stores of a password: enough to check a proof, not enough to make one.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// The salt.
    pub salt: Vec<u8>,
    /// Rounds of PBKDF2.
    pub rounds: u32,
    /// H(ClientKey).
    pub stored_key: Vec<u8>,
    /// Proves to the client that we know the verifier.
    pub server_key: Vec<u8>,
}

// Not derived: whoever has a verifier can guess the password at leisure.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl Verifier {
    /// From a password, which takes as long as `rounds` say. The password is prepared by SASLprep (RFC 4013) where that is possible.
    pub fn derive(hash: Hash, password: &[u8], salt: &[u8], rounds: u32) -> Verifier {
        let prepared = std::str::from_utf8(password).ok().and_then(|text| stringprep::saslprep(text).ok());
        let salted = hash.salted(prepared.as_deref().map_or(password, str::as_bytes), salt, rounds);
        let stored_key = hash.of(&hash.mac(&salted, b"Client Key"));
        Verifier { salt: salt.to_vec(), rounds, stored_key, server_key: hash.mac(&salted, b"Server Key") }
    }

    /// For a user who has none: looks like one, and no proof fits it. The salt depends on `name` alone, so that asking twice tells nothing.
    pub fn fake(hash: Hash, name: &str, key: &[u8]) -> Verifier {
        let mut salt = Hash::Sha256.mac(key, name.as_bytes());
        salt.truncate(16);
        let secret: [u8; 32] = rand::random();
        Verifier { salt, rounds: ROUNDS, stored_key: hash.of(&secret), server_key: hash.of(&secret) }
    }

    /// As users files have it: rounds, salt, stored key, server key.
    pub fn to_field(&self) -> String {
        let encode = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        format!("{},{},{},{}", self.rounds, encode(&self.salt), encode(&self.stored_key), encode(&self.server_key))
    }
}

/// What binds an exchange to the TLS connection that it runs in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChannelBindings {
    /// `tls-exporter` (RFC 9266), for TLS 1.3.
    pub exporter: Option<Vec<u8>>,
    /// `tls-server-end-point` (RFC 5929 §4).
    pub end_point: Option<Vec<u8>>,
}

impl ChannelBindings {
    /// Whether any is there.
    pub fn is_available(&self) -> bool {
        self.exporter.is_some() || self.end_point.is_some()
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        match name {
            "tls-exporter" => self.exporter.as_deref(),
            "tls-server-end-point" => self.end_point.as_deref(),
            _ => None,
        }
    }
}

/// How a mechanism is offered on this connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Which hash.
    pub hash: Hash,
    /// Whether the client chose the -PLUS form.
    pub plus: bool,
    /// Whether that form was offered to it.
    pub plus_is_offered: bool,
    /// What can be bound.
    pub bindings: ChannelBindings,
}

/// After the client's first message.
#[derive(Debug)]
pub struct ClientFirst {
    offer: Offer,
    /// The authentication identity.
    pub user: String,
    /// The authorization identity.
    pub authzid: Option<String>,
    gs2_header: String,
    bare: String,
    nonce: String,
    bound: Vec<u8>,
}

/// After the server's first message.
#[derive(Debug)]
pub struct ServerFirst {
    hash: Hash,
    /// What `c=` must hold.
    channel: Vec<u8>,
    nonce: String,
    /// Both first messages, as they go into the signature.
    messages: String,
}

/// What is wrong with a message.
pub type Wrong = &'static str;

/// Reads the client's first message (RFC 5802 §7, client-first-message).
pub fn client_first(offer: Offer, message: &[u8]) -> Result<ClientFirst, Wrong> {
    let message = std::str::from_utf8(message).map_err(|_| "the message is not UTF-8")?;
    let mut parts = message.splitn(3, ',');
    let (Some(flag), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("the message has no GS2 header");
    };
    let bound = match (flag.strip_prefix("p="), flag, offer.plus) {
        (Some(name), _, true) => offer.bindings.get(name).ok_or("this kind of channel binding is not available")?.to_vec(),
        (Some(_), _, false) => return Err("channel binding needs the -PLUS mechanism"),
        (None, _, true) => return Err("the -PLUS mechanism needs channel binding"),
        (None, "n", false) => Vec::new(),
        // It could bind and thinks that we can't: somebody in the middle took -PLUS out of our list.
        (None, "y", false) if offer.plus_is_offered => return Err("the -PLUS mechanism was offered: somebody changed the list on the way"),
        (None, "y", false) => Vec::new(),
        (None, _, false) => return Err("the channel binding flag is unknown"),
    };
    let authzid = match authzid {
        "" => None,
        given => Some(name(given.strip_prefix("a=").ok_or("the authorization identity is malformed")?)?),
    };
    let gs2_header = message.get(..message.len() - bare.len()).unwrap_or_default().to_owned();
    let mut attributes = bare.split(',');
    let user = match attributes.next().and_then(|attribute| attribute.split_once('=')) {
        Some(("n", user)) => name(user)?,
        Some(("m", _)) => return Err("mandatory extensions are not supported"),
        _ => return Err("the user name is missing"),
    };
    let nonce = attributes.next().and_then(|attribute| attribute.strip_prefix("r=")).ok_or("the nonce is missing")?;
    let printable = nonce.bytes().all(|byte| byte.is_ascii_graphic());
    if nonce.is_empty() || nonce.len() > NONCE_BYTES_MAX || !printable {
        return Err("the nonce is malformed");
    }
    Ok(ClientFirst { nonce: nonce.to_owned(), bare: bare.to_owned(), offer, user, authzid, gs2_header, bound })
}

/// `=2C` is a comma, `=3D` is `=` (saslname).
fn name(raw: &str) -> Result<String, Wrong> {
    let mut pieces = raw.split('=');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (sign, rest) = match piece.split_at_checked(2) {
            Some(("2C", rest)) => (',', rest),
            Some(("3D", rest)) => ('=', rest),
            _ => return Err("the user name is malformed"),
        };
        name.push(sign);
        name.push_str(rest);
    }
    if name.is_empty() || name.contains('\0') { Err("the user name is malformed") } else { Ok(name) }
}

impl ClientFirst {
    /// The server's first message, with a nonce of ours behind the client's.
    pub fn answer(self, verifier: &Verifier, our_nonce: &str) -> (Vec<u8>, ServerFirst) {
        let nonce = format!("{}{our_nonce}", self.nonce);
        let first = format!("r={nonce},s={},i={}", BASE64_STANDARD.encode(&verifier.salt), verifier.rounds);
        let channel = [self.gs2_header.as_bytes(), &self.bound].concat();
        let messages = format!("{},{first}", self.bare);
        (first.into_bytes(), ServerFirst { hash: self.offer.hash, channel, nonce, messages })
    }

    /// The hash of the mechanism.
    pub fn hash(&self) -> Hash {
        self.offer.hash
    }
}

/// How the client's last message fared.
#[derive(Debug, PartialEq, Eq)]
pub enum Final {
    /// The proof is right: the server's last message.
    Proved(Vec<u8>),
    /// The password is another.
    NotProved,
    /// Not a valid message.
    Malformed(Wrong),
}

impl ServerFirst {
    /// Checks the client's final message.
    pub fn finish(self, verifier: &Verifier, message: &[u8]) -> Final {
        match self.read(message) {
            Ok((without_proof, proof)) => {
                let signed = format!("{},{without_proof}", self.messages);
                let signature = self.hash.mac(&verifier.stored_key, signed.as_bytes());
                if proof.len() != signature.len() {
                    return Final::NotProved;
                }
                let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(proof, signature)| proof ^ signature).collect();
                if bool::from(self.hash.of(&client_key).ct_eq(&verifier.stored_key)) {
                    let ours = self.hash.mac(&verifier.server_key, signed.as_bytes());
                    Final::Proved(format!("v={}", BASE64_STANDARD.encode(ours)).into_bytes())
                } else {
                    Final::NotProved
                }
            }
            Err(wrong) => Final::Malformed(wrong),
        }
    }

    /// The message without its proof, and the proof.
    fn read<'a>(&self, message: &'a [u8]) -> Result<(&'a str, Vec<u8>), Wrong> {
        let message = std::str::from_utf8(message).map_err(|_| "the message is not UTF-8")?;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or("the proof is missing")?;
        let proof = BASE64_STANDARD.decode(proof).map_err(|_| "the proof is not base64")?;
        let mut attributes = without_proof.split(',');
        let channel = attributes.next().and_then(|attribute| attribute.strip_prefix("c=")).ok_or("the channel binding is missing")?;
        let channel = BASE64_STANDARD.decode(channel).map_err(|_| "the channel binding is not base64")?;
        if !bool::from(channel.ct_eq(&self.channel)) {
            return Err("the channel is not the one that was bound");
        }
        match attributes.next().and_then(|attribute| attribute.strip_prefix("r=")) {
            Some(nonce) if nonce == self.nonce => Ok((without_proof, proof)),
            _ => Err("the nonce is another"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer(hash: Hash) -> Offer {
        Offer { hash, plus: false, plus_is_offered: false, bindings: ChannelBindings::default() }
    }
    fn plus() -> Offer {
        let bindings = ChannelBindings { exporter: Some(b"channel".to_vec()), end_point: None };
        Offer { plus: true, plus_is_offered: true, bindings, ..offer(Hash::Sha256) }
    }

    #[test]
    fn the_exchanges_of_the_rfcs_come_out_byte_for_byte() {
        // RFC 5802 §5 and RFC 7677 §3; the password is "pencil".
        for (hash, client_nonce, our_nonce, salt, last, verdict) in [
            (
                Hash::Sha1,
                "fyko+d2lbbFgONRv9qkxdawL",
                "3rfcNHYJY1ZVvWVs7j",
                "QSXCR+Q6sek8bf92",
                "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
                "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ),
            (
                Hash::Sha256,
                "rOprNGfwEbeRWgbNEkqO",
                "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
                "W22ZaJ0SNY7soEsUEjb6gQ==",
                "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ),
        ] {
            let verifier = Verifier::derive(hash, b"pencil", &BASE64_STANDARD.decode(salt).unwrap(), 4096);
            let first = client_first(offer(hash), format!("n,,n=user,r={client_nonce}").as_bytes()).unwrap();
            assert_eq!((first.user.as_str(), first.authzid.as_deref()), ("user", None));
            let (said, waiting) = first.answer(&verifier, our_nonce);
            assert_eq!(String::from_utf8(said).unwrap(), format!("r={client_nonce}{our_nonce},s={salt},i=4096"));
            assert_eq!(waiting.finish(&verifier, last.as_bytes()), Final::Proved(verdict.as_bytes().to_vec()));
        }
    }

    /// A client's final message for a password.
    fn proof(hash: Hash, password: &[u8], verifier: &Verifier, bare: &str, server_first: &str, without_proof: &str) -> String {
        let salted = hash.salted(password, &verifier.salt, verifier.rounds);
        let client_key = hash.mac(&salted, b"Client Key");
        let signature = hash.mac(&hash.of(&client_key), format!("{bare},{server_first},{without_proof}").as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        format!("{without_proof},p={}", BASE64_STANDARD.encode(proof))
    }

    fn run(offer: Offer, header: &str, channel: &[u8], password: &[u8]) -> Result<Final, Wrong> {
        let verifier = Verifier::derive(Hash::Sha256, b"pencil", b"salt", 100);
        let first = client_first(offer, format!("{header}n=user,r=abc").as_bytes())?;
        let (said, waiting) = first.answer(&verifier, "def");
        let without_proof = format!("c={},r=abcdef", BASE64_STANDARD.encode([header.as_bytes(), channel].concat()));
        let last = proof(Hash::Sha256, password, &verifier, "n=user,r=abc", &String::from_utf8(said).unwrap(), &without_proof);
        Ok(waiting.finish(&verifier, last.as_bytes()))
    }

    #[test]
    fn only_the_password_proves() {
        assert!(matches!(run(offer(Hash::Sha256), "n,,", b"", b"pencil"), Ok(Final::Proved(_))));
        assert_eq!(run(offer(Hash::Sha256), "n,,", b"", b"pencils"), Ok(Final::NotProved));
        let fake = Verifier::fake(Hash::Sha256, "eve", b"key");
        assert_eq!(fake.salt, Verifier::fake(Hash::Sha256, "eve", b"key").salt, "asking twice gives the same salt");
        assert_ne!(fake.salt, Verifier::fake(Hash::Sha256, "bob", b"key").salt);
    }

    #[test]
    fn another_channel_is_refused() {
        assert!(matches!(run(plus(), "p=tls-exporter,,", b"channel", b"pencil"), Ok(Final::Proved(_))));
        assert!(matches!(run(plus(), "p=tls-exporter,,", b"another", b"pencil"), Ok(Final::Malformed(_))));
        assert!(run(plus(), "p=tls-server-end-point,,", b"channel", b"pencil").is_err());
        assert!(run(plus(), "p=tls-unique,,", b"channel", b"pencil").is_err());
        assert!(run(offer(Hash::Sha256), "n,,", b"x", b"pencil").is_ok_and(|last| matches!(last, Final::Malformed(_))));
    }

    #[test]
    fn a_downgrade_is_noticed() {
        assert!(matches!(run(offer(Hash::Sha256), "y,,", b"", b"pencil"), Ok(Final::Proved(_))));
        let offered = Offer { plus: false, ..plus() };
        assert!(run(offered.clone(), "y,,", b"", b"pencil").is_err());
        assert!(run(offered, "p=tls-exporter,,", b"channel", b"pencil").is_err());
        assert!(run(plus(), "n,,", b"", b"pencil").is_err());
    }

    #[test]
    fn names_may_hold_commas() {
        let first = client_first(offer(Hash::Sha1), b"n,a=boss=2C1,n=a=3Db=2Cc,r=x").unwrap();
        assert_eq!((first.user.as_str(), first.authzid.as_deref()), ("a=b,c", Some("boss,1")));
        for message in
            ["", "n", "n,", "n,,", "n,,n=a", "n,,n=,r=x", "n,,n=a=2,r=x", "n,,m=x,n=a,r=x", "n,,n=a,r=", "x,,n=a,r=x", "n,b=c,n=a,r=x"]
        {
            assert!(client_first(offer(Hash::Sha1), message.as_bytes()).is_err(), "{message}");
        }
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(first in "[pny]?=?,?a?=?,?[nmr=,a-c0-9é]{0,20}", last in "[crp=,a-zA-Z0-9+/é]{0,40}") {
            drop(client_first(offer(Hash::Sha1), first.as_bytes()));
            let begun = client_first(offer(Hash::Sha1), b"n,,n=a,r=x").unwrap();
            let verifier = Verifier::fake(Hash::Sha1, "a", b"k");
            prop_assert!(!matches!(begun.answer(&verifier, "y").1.finish(&verifier, last.as_bytes()), Final::Proved(_)));
        }
    }
}
