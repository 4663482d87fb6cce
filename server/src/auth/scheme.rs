//! Password schemes: the hashes that existing servers store, verified; good ones, made.
//!
//! Invariants, each with the test that guards it:
//! - every scheme agrees with Dovecot's own tool (`every_scheme_verifies_what_dovecot_made`)
//! - what is made here verifies here (`what_is_hashed_verifies`)
//! - a password is the same however a keyboard composes it (`a_password_may_be_composed_in_any_way`)
//! - a stored hash can't make a login take minutes or gigabytes (`absurd_costs_are_refused`)
//! - nothing in a stored hash panics (`damaged_hashes_are_errors`)
//!
//! Comparisons take the same time whatever the difference.

mod dummy;

use std::fmt;

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use md5::Md5;
use sha_crypt::ShaCrypt;
use sha1::{Digest, Sha1};
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::{
    md5_crypt::md5_crypt,
    sasl::scram::{self, Hash, Verifier},
};

/// Memory of one Argon2 verification, KiB: four times Dovecot's default; as many run at once as there are hashing permits.
const ARGON2_MEMORY_KIB_MAX: u32 = 256 * 1024;
/// Memory times passes of one Argon2 verification, KiB: some seconds of one core.
const ARGON2_WORK_KIB_MAX: u64 = 2 * 1024 * 1024;
/// bcrypt's cost is a power of two: 16 takes about four seconds.
const BCRYPT_COST_MAX: u32 = 16;
/// SHA-crypt's rounds: some seconds.
const SHA_CRYPT_ROUNDS_MAX: u32 = 5_000_000;
/// PBKDF2's and SCRAM's rounds: some seconds.
const PBKDF2_ROUNDS_MAX: u32 = 5_000_000;

/// Argon2 of new passwords: OWASP's first recommendation, about 30 ms and 19 MiB.
const ARGON2_MEMORY_KIB: u32 = 19 * 1024;
const ARGON2_PASSES: u32 = 2;
/// bcrypt of new passwords: about 60 ms.
const BCRYPT_COST: u32 = 10;
/// SHA-crypt of new passwords: about 30 ms.
const SHA_CRYPT_ROUNDS: u32 = 50_000;
/// PBKDF2 (with SHA-1, as Dovecot does) of new passwords.
const PBKDF2_ROUNDS: u32 = 200_000;

const BASE64: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// How a password is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of algorithms")]
pub enum Scheme {
    Plain,
    Md5,
    Smd5,
    Sha1,
    Ssha1,
    Sha256,
    Ssha256,
    Sha512,
    Ssha512,
    Crypt,
    Md5Crypt,
    Sha256Crypt,
    Sha512Crypt,
    Bcrypt,
    Argon2i,
    Argon2id,
    Pbkdf2,
    ScramSha1,
    ScramSha256,
}

/// Why a stored password can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemeError {
    /// Unknown scheme.
    #[error("password scheme {0} is not supported")]
    Unsupported(String),
    /// The hash is damaged.
    #[error("the stored {0} hash is damaged")]
    Malformed(Scheme),
    /// The hash asks for more work than this server does for one login.
    #[error("the stored {scheme} hash asks for {what}, more than is allowed for one login")]
    TooExpensive {
        /// Which.
        scheme: Scheme,
        /// What it asks for.
        what: String,
    },
    /// Only for existing hashes.
    #[error("{0} is not for new passwords: use ARGON2ID, SCRAM-SHA-256, BLF-CRYPT or SHA512-CRYPT")]
    NotForNew(Scheme),
}

impl Scheme {
    /// The names that [`Scheme::parse`] knows, apart from synonyms.
    pub const NAMES: [&'static str; 20] = [
        "ARGON2ID",
        "ARGON2I",
        "BLF-CRYPT",
        "SHA512-CRYPT",
        "SHA256-CRYPT",
        "PBKDF2",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1",
        "CRYPT",
        "SSHA512",
        "SSHA256",
        "SSHA",
        "SMD5",
        "SHA512",
        "SHA256",
        "SHA1",
        "LDAP-MD5",
        "PLAIN-MD5",
        "MD5-CRYPT",
        "PLAIN",
    ];

    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Plain => "PLAIN",
            Scheme::Md5 => "PLAIN-MD5",
            Scheme::Smd5 => "SMD5",
            Scheme::Sha1 => "SHA1",
            Scheme::Ssha1 => "SSHA",
            Scheme::Sha256 => "SHA256",
            Scheme::Ssha256 => "SSHA256",
            Scheme::Sha512 => "SHA512",
            Scheme::Ssha512 => "SSHA512",
            Scheme::Crypt => "CRYPT",
            Scheme::Md5Crypt => "MD5-CRYPT",
            Scheme::Sha256Crypt => "SHA256-CRYPT",
            Scheme::Sha512Crypt => "SHA512-CRYPT",
            Scheme::Bcrypt => "BLF-CRYPT",
            Scheme::Argon2i => "ARGON2I",
            Scheme::Argon2id => "ARGON2ID",
            Scheme::Pbkdf2 => "PBKDF2",
            Scheme::ScramSha1 => "SCRAM-SHA-1",
            Scheme::ScramSha256 => "SCRAM-SHA-256",
        }
    }

    /// Dovecot's names, ASCII case-insensitive.
    pub fn parse(name: &str) -> Option<Scheme> {
        Some(match name.to_ascii_uppercase().as_str() {
            "PLAIN" | "CLEAR" | "CLEARTEXT" => Scheme::Plain,
            "PLAIN-MD5" | "LDAP-MD5" => Scheme::Md5,
            "SMD5" => Scheme::Smd5,
            "SHA" | "SHA1" => Scheme::Sha1,
            "SSHA" => Scheme::Ssha1,
            "SHA256" => Scheme::Sha256,
            "SSHA256" => Scheme::Ssha256,
            "SHA512" => Scheme::Sha512,
            "SSHA512" => Scheme::Ssha512,
            "CRYPT" => Scheme::Crypt,
            "MD5" | "MD5-CRYPT" => Scheme::Md5Crypt,
            "SHA256-CRYPT" => Scheme::Sha256Crypt,
            "SHA512-CRYPT" => Scheme::Sha512Crypt,
            "BLF-CRYPT" => Scheme::Bcrypt,
            "ARGON2I" => Scheme::Argon2i,
            "ARGON2ID" => Scheme::Argon2id,
            "PBKDF2" => Scheme::Pbkdf2,
            "SCRAM-SHA-1" => Scheme::ScramSha1,
            "SCRAM-SHA-256" => Scheme::ScramSha256,
            _ => return None,
        })
    }

    /// Whether a thief of the file would find most passwords in it: plain text, unsalted or fast digests.
    pub fn is_weak(self) -> bool {
        match self {
            Scheme::Plain | Scheme::Md5 | Scheme::Smd5 | Scheme::Sha1 | Scheme::Ssha1 | Scheme::Sha256 | Scheme::Ssha256 => true,
            Scheme::Sha512 | Scheme::Ssha512 | Scheme::Md5Crypt => true,
            Scheme::Crypt | Scheme::Sha256Crypt | Scheme::Sha512Crypt | Scheme::Bcrypt | Scheme::Argon2i | Scheme::Argon2id => false,
            Scheme::Pbkdf2 | Scheme::ScramSha1 | Scheme::ScramSha256 => false,
        }
    }

    /// The scheme of a crypt(3) hash.
    fn of_crypt(data: &str) -> Option<Scheme> {
        let id = data.strip_prefix('$')?.split('$').next()?;
        Some(match id {
            "1" => Scheme::Md5Crypt,
            "2a" | "2b" | "2y" => Scheme::Bcrypt,
            "5" => Scheme::Sha256Crypt,
            "6" => Scheme::Sha512Crypt,
            "argon2i" => Scheme::Argon2i,
            "argon2id" => Scheme::Argon2id,
            _ => return None,
        })
    }

    /// Bytes of the digest, for the schemes that are one.
    fn digest_bytes(self) -> usize {
        match self {
            Scheme::Md5 | Scheme::Smd5 => 16,
            Scheme::Sha1 | Scheme::Ssha1 => 20,
            Scheme::Sha256 | Scheme::Ssha256 => 32,
            _ => 64,
        }
    }

    fn digest(self, password: &[u8], salt: &[u8]) -> Vec<u8> {
        fn of<D: Digest>(password: &[u8], salt: &[u8]) -> Vec<u8> {
            D::new().chain_update(password).chain_update(salt).finalize().to_vec()
        }
        match self.digest_bytes() {
            16 => of::<Md5>(password, salt),
            20 => of::<Sha1>(password, salt),
            32 => of::<Sha256>(password, salt),
            _ => of::<Sha512>(password, salt),
        }
    }

    /// Stores a new password, as in `{ARGON2ID}$argon2id$…`. Takes tens of milliseconds. Weak schemes are refused.
    pub fn hash(self, password: &[u8]) -> Result<String, SchemeError> {
        let prepared = prepared(password);
        let password = prepared.as_deref().unwrap_or(password);
        let salt: [u8; 16] = rand::random();
        let failed = || SchemeError::Malformed(self);
        Ok(match self {
            Scheme::Plain => format!("{{PLAIN.B64}}{}", BASE64.encode(password)),
            Scheme::Ssha256 | Scheme::Ssha512 => {
                let mut stored = self.digest(password, &salt);
                stored.extend_from_slice(&salt);
                format!("{{{self}}}{}", BASE64.encode(stored))
            }
            Scheme::Sha256Crypt | Scheme::Sha512Crypt => {
                use sha_crypt::{Algorithm, Params, PasswordHasher};
                let algorithm = if self == Scheme::Sha256Crypt { Algorithm::Sha256Crypt } else { Algorithm::Sha512Crypt };
                let params = Params::new(SHA_CRYPT_ROUNDS).map_err(|_| failed())?;
                let hash = ShaCrypt::new(algorithm, params).hash_password_with_salt(password, &salt[..12]).map_err(|_| failed())?;
                format!("{{{self}}}{}", hash.as_str())
            }
            Scheme::Bcrypt | Scheme::Crypt => {
                let parts = bcrypt::hash_with_salt(password, BCRYPT_COST, salt).map_err(|_| failed())?;
                format!("{{BLF-CRYPT}}{}", parts.format_for_version(bcrypt::Version::TwoY))
            }
            Scheme::Argon2i | Scheme::Argon2id => {
                use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
                let algorithm = if self == Scheme::Argon2i { Algorithm::Argon2i } else { Algorithm::Argon2id };
                let params = Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, 1, None).map_err(|_| failed())?;
                let hasher = Argon2::new(algorithm, Version::V0x13, params);
                let hash = hasher.hash_password_with_salt(password, &salt).map_err(|_| failed())?;
                format!("{{{self}}}{hash}")
            }
            Scheme::Pbkdf2 => {
                let salt = hex(&salt);
                let mut key = [0; 20];
                pbkdf2::pbkdf2_hmac::<Sha1>(password, salt.as_bytes(), PBKDF2_ROUNDS, &mut key);
                format!("{{PBKDF2}}$1${salt}${PBKDF2_ROUNDS}${}", hex(&key))
            }
            Scheme::ScramSha1 | Scheme::ScramSha256 => {
                let hash = if self == Scheme::ScramSha1 { Hash::Sha1 } else { Hash::Sha256 };
                format!("{{{self}}}{}", Verifier::derive(hash, password, &salt, scram::ROUNDS).to_field())
            }
            Scheme::Md5 | Scheme::Smd5 | Scheme::Sha1 | Scheme::Ssha1 | Scheme::Sha256 | Scheme::Sha512 | Scheme::Md5Crypt => {
                return Err(SchemeError::NotForNew(self));
            }
        })
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the bytes of a hash are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    /// As the scheme does by itself.
    Usual,
    Hex,
    Base64,
}

/// A password as a users file has it.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredPassword {
    scheme: Scheme,
    encoding: Encoding,
    data: String,
}

// Not derived: a plain-text password must not reach a log.

impl fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredPassword({})", self.scheme)
    }
}

impl StoredPassword {
    /// Reads `{SCHEME}data` or, in `default`, `data`. A `$…$` of crypt(3) without a scheme speaks for itself unless `default` is plain text.
    pub fn parse(field: &str, default: Scheme) -> Result<StoredPassword, SchemeError> {
        let Some((name, data)) = field.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
            let scheme = if default == Scheme::Plain { default } else { Scheme::of_crypt(field).unwrap_or(default) };
            return Ok(StoredPassword { scheme, encoding: Encoding::Usual, data: field.to_owned() });
        };
        let (plain_name, encoding) = match name.rsplit_once('.') {
            Some((scheme, suffix)) if suffix.eq_ignore_ascii_case("HEX") => (scheme, Encoding::Hex),
            Some((scheme, suffix)) if suffix.eq_ignore_ascii_case("B64") || suffix.eq_ignore_ascii_case("BASE64") => {
                (scheme, Encoding::Base64)
            }
            _ => (name, Encoding::Usual),
        };
        let scheme = Scheme::parse(plain_name).ok_or_else(|| SchemeError::Unsupported(name.to_owned()))?;
        Ok(StoredPassword { scheme, encoding, data: data.to_owned() })
    }

    /// How it is stored.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether `field` of a users file is this.
    pub(super) fn is_in(&self, field: &str) -> bool {
        field == self.data || field.split_once('}').is_some_and(|(_, data)| data == self.data)
    }

    /// The password, where it is stored as it is.
    pub(super) fn plain_text(&self) -> Option<Vec<u8>> {
        match (self.scheme, self.encoding) {
            (Scheme::Plain, Encoding::Usual) => Some(self.data.clone().into_bytes()),
            (Scheme::Plain, _) => self.bytes().ok(),
            _ => None,
        }
    }

    /// What SCRAM checks a proof with, where that is stored and for this hash.
    pub(super) fn verifier(&self, hash: Hash) -> Option<Verifier> {
        let stored = match self.scheme {
            Scheme::ScramSha1 => Hash::Sha1,
            Scheme::ScramSha256 => Hash::Sha256,
            _ => return None,
        };
        let text = self.text().ok()?;
        (stored == hash).then(|| self.read_verifier(&text).ok()).flatten()
    }

    /// What is stored, without the scheme's name: tells one stored password of a user from the next.
    pub(super) fn field(&self) -> &str {
        &self.data
    }

    /// Whether `password` is it, as it was sent or prepared as in RFC 8265. Takes as long as the scheme wants: not for async threads.
    pub fn verify(&self, password: &[u8]) -> Result<bool, SchemeError> {
        match (self.verify_as_sent(password)?, prepared(password)) {
            (false, Some(prepared)) => self.verify_as_sent(&prepared),
            (is_it, _) => Ok(is_it),
        }
    }

    fn verify_as_sent(&self, password: &[u8]) -> Result<bool, SchemeError> {
        let malformed = || SchemeError::Malformed(self.scheme);
        match self.scheme {
            Scheme::Plain => {
                let stored = if self.encoding == Encoding::Usual { self.data.clone().into_bytes() } else { self.bytes()? };
                // Compared as digests, so that not even the length shows.
                Ok(Sha256::digest(&stored).ct_eq(&Sha256::digest(password)).into())
            }
            Scheme::Md5 | Scheme::Sha1 | Scheme::Sha256 | Scheme::Sha512 => {
                let stored = self.bytes()?;
                if stored.len() != self.scheme.digest_bytes() {
                    return Err(malformed());
                }
                Ok(stored.ct_eq(&self.scheme.digest(password, b"")).into())
            }
            Scheme::Smd5 | Scheme::Ssha1 | Scheme::Ssha256 | Scheme::Ssha512 => {
                let stored = self.bytes()?;
                let (digest, salt) = stored.split_at_checked(self.scheme.digest_bytes()).ok_or_else(malformed)?;
                Ok(digest.ct_eq(&self.scheme.digest(password, salt)).into())
            }
            _ => {
                let text = self.text()?;
                self.verify_text(&text, password)
            }
        }
    }

    /// The schemes that are no digests are texts; `.B64` and `.HEX` wrap the whole text.
    fn text(&self) -> Result<String, SchemeError> {
        match self.encoding {
            Encoding::Usual => Ok(self.data.clone()),
            Encoding::Hex | Encoding::Base64 => String::from_utf8(self.bytes()?).map_err(|_| SchemeError::Malformed(self.scheme)),
        }
    }

    /// Rounds, salt, stored key, server key.
    fn read_verifier(&self, text: &str) -> Result<Verifier, SchemeError> {
        let malformed = || SchemeError::Malformed(self.scheme);
        let mut fields = text.split(',');
        let (Some(rounds), Some(salt), Some(stored_key), Some(server_key), None) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(malformed());
        };
        let decode = |field: &str| BASE64.decode(field).map_err(|_| malformed());
        Ok(Verifier { rounds: self.rounds(rounds)?, salt: decode(salt)?, stored_key: decode(stored_key)?, server_key: decode(server_key)? })
    }

    fn verify_text(&self, text: &str, password: &[u8]) -> Result<bool, SchemeError> {
        let malformed = || SchemeError::Malformed(self.scheme);
        let in_crypt = Scheme::of_crypt(text);
        if self.scheme == Scheme::Crypt && in_crypt.is_none() {
            return Err(SchemeError::Unsupported(format!("CRYPT with {:?}", text.get(..3).unwrap_or("DES"))));
        }
        let scheme = if self.scheme == Scheme::Crypt { in_crypt.unwrap_or(Scheme::Crypt) } else { self.scheme };
        match scheme {
            Scheme::Md5Crypt => verify_md5_crypt(text, password).ok_or_else(malformed),
            Scheme::Sha256Crypt | Scheme::Sha512Crypt => {
                use sha_crypt::PasswordVerifier;
                if in_crypt != Some(scheme) {
                    return Err(malformed());
                }
                let rounds = text.split('$').nth(2).and_then(|field| field.strip_prefix("rounds="));
                if let Some(rounds) = rounds {
                    let rounds: u32 = rounds.parse().map_err(|_| malformed())?;
                    self.ensure(rounds <= SHA_CRYPT_ROUNDS_MAX, || format!("{rounds} rounds"))?;
                }
                match ShaCrypt::SHA512.verify_password(password, text) {
                    Ok(()) => Ok(true),
                    Err(sha_crypt::password_hash::Error::PasswordInvalid) => Ok(false),
                    Err(_) => Err(malformed()),
                }
            }
            Scheme::Bcrypt => {
                let parts: bcrypt::HashParts = text.parse().map_err(|_| malformed())?;
                self.ensure(parts.get_cost() <= BCRYPT_COST_MAX, || format!("cost {}", parts.get_cost()))?;
                bcrypt::verify(password, text).map_err(|_| malformed())
            }
            Scheme::Argon2i | Scheme::Argon2id => {
                use argon2::{Argon2, Params, PasswordHash, PasswordVerifier};
                if in_crypt != Some(scheme) {
                    return Err(malformed());
                }
                let hash = PasswordHash::new(text).map_err(|_| malformed())?;
                let params = Params::try_from(&hash).map_err(|_| malformed())?;
                let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
                let affordable = params.m_cost() <= ARGON2_MEMORY_KIB_MAX && work <= ARGON2_WORK_KIB_MAX;
                self.ensure(affordable, || format!("{} KiB and {} passes", params.m_cost(), params.t_cost()))?;
                match Argon2::default().verify_password(password, &hash) {
                    Ok(()) => Ok(true),
                    Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
                    Err(_) => Err(malformed()),
                }
            }
            Scheme::Pbkdf2 => {
                let mut fields = text.split('$').skip(1);
                let (Some("1"), Some(salt), Some(rounds), Some(key), None) =
                    (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
                else {
                    return Err(malformed());
                };
                let stored = unhex(key).filter(|key| key.len() == 20).ok_or_else(malformed)?;
                let mut made = [0; 20];
                pbkdf2::pbkdf2_hmac::<Sha1>(password, salt.as_bytes(), self.rounds(rounds)?, &mut made);
                Ok(stored.ct_eq(&made).into())
            }
            Scheme::ScramSha1 | Scheme::ScramSha256 => {
                let hash = if scheme == Scheme::ScramSha1 { Hash::Sha1 } else { Hash::Sha256 };
                let stored = self.read_verifier(text)?;
                let made = Verifier::derive(hash, password, &stored.salt, stored.rounds);
                Ok(stored.stored_key.ct_eq(&made.stored_key).into())
            }
            _ => Err(malformed()),
        }
    }

    fn ensure(&self, affordable: bool, what: impl FnOnce() -> String) -> Result<(), SchemeError> {
        if affordable { Ok(()) } else { Err(SchemeError::TooExpensive { scheme: self.scheme, what: what() }) }
    }

    fn rounds(&self, field: &str) -> Result<u32, SchemeError> {
        let rounds: u32 = field.parse().map_err(|_| SchemeError::Malformed(self.scheme))?;
        self.ensure((1..=PBKDF2_ROUNDS_MAX).contains(&rounds), || format!("{rounds} rounds"))?;
        Ok(rounds)
    }

    /// The stored bytes. Without a suffix, an unsalted digest may be written either way: its length tells.
    fn bytes(&self) -> Result<Vec<u8>, SchemeError> {
        let looks_hex = self.data.len() == 2 * self.scheme.digest_bytes()
            && matches!(self.scheme, Scheme::Md5 | Scheme::Sha1 | Scheme::Sha256 | Scheme::Sha512);
        let bytes = match self.encoding {
            Encoding::Hex => unhex(&self.data),
            Encoding::Usual if looks_hex => unhex(&self.data),
            Encoding::Usual | Encoding::Base64 => BASE64.decode(&self.data).ok(),
        };
        bytes.ok_or(SchemeError::Malformed(self.scheme))
    }
}

/// A password in the form in which all keyboards mean the same (RFC 8265 §4.2.1, which followed SASLprep): composed, each space the usual one.
/// `None`: it has that form, or is no text.
fn prepared(password: &[u8]) -> Option<Vec<u8>> {
    use unicode_normalization::UnicodeNormalization;
    let text = std::str::from_utf8(password).ok().filter(|text| !text.is_ascii())?;
    // The Unicode category Zs.
    let is_space = |c: char| matches!(c, '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}');
    let prepared: String = text.chars().map(|c| if is_space(c) { ' ' } else { c }).nfc().collect();
    (prepared != text).then(|| prepared.into_bytes())
}

/// `$1$salt$hash`.
fn verify_md5_crypt(text: &str, password: &[u8]) -> Option<bool> {
    let (salt, hash) = text.strip_prefix("$1$")?.split_once('$')?;
    Some(md5_crypt(password, salt.as_bytes()).as_bytes().ct_eq(hash.as_bytes()).into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests;
