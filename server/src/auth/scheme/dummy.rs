//! A stored password that nobody has, for users who don't exist: checking one against it takes as long as the scheme takes.
//!
//! It is drawn and not computed: a hash would cost a node that starts again the time of a login, and its users wait meanwhile.

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};

use super::{
    super::sasl::scram, ARGON2_MEMORY_KIB, ARGON2_PASSES, BASE64, BCRYPT_COST, Encoding, PBKDF2_ROUNDS, SHA_CRYPT_ROUNDS, Scheme,
    StoredPassword, hex,
};

/// The digits of crypt(3)'s hashes.
const CRYPT_DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl StoredPassword {
    /// One that looks as if [`Scheme::hash`] had made it; for schemes that are not for new passwords, as if Argon2id had.
    pub fn dummy(scheme: Scheme) -> StoredPassword {
        let salt: [u8; 16] = rand::random();
        let key: [u8; 64] = rand::random();
        let (short, long) = (&key[..20], &key[..32]);
        let (scheme, data) = match scheme {
            Scheme::Plain => (scheme, hex(&key)),
            Scheme::Ssha256 => (scheme, BASE64.encode([long, &salt[..]].concat())),
            Scheme::Ssha512 => (scheme, BASE64.encode([&key[..], &salt[..]].concat())),
            Scheme::Sha256Crypt => (scheme, format!("$5$rounds={SHA_CRYPT_ROUNDS}${}${}", crypt_text(16), crypt_text(43))),
            Scheme::Sha512Crypt => (scheme, format!("$6$rounds={SHA_CRYPT_ROUNDS}${}${}", crypt_text(16), crypt_text(86))),
            Scheme::Bcrypt | Scheme::Crypt => (Scheme::Bcrypt, format!("$2y${BCRYPT_COST}${}{}", crypt_text(22), crypt_text(31))),
            Scheme::Pbkdf2 => (scheme, format!("$1${}${PBKDF2_ROUNDS}${}", hex(&salt), hex(short))),
            Scheme::ScramSha1 => (scheme, scram_field(&salt, short)),
            Scheme::ScramSha256 => (scheme, scram_field(&salt, long)),
            Scheme::Argon2i => (scheme, argon2("argon2i", &salt, long)),
            Scheme::Argon2id | Scheme::Md5 | Scheme::Smd5 | Scheme::Sha1 | Scheme::Ssha1 => {
                (Scheme::Argon2id, argon2("argon2id", &salt, long))
            }
            Scheme::Sha256 | Scheme::Sha512 | Scheme::Md5Crypt => (Scheme::Argon2id, argon2("argon2id", &salt, long)),
        };
        StoredPassword { scheme, encoding: Encoding::Usual, data }
    }
}

fn argon2(id: &str, salt: &[u8], key: &[u8]) -> String {
    let encode = |bytes: &[u8]| BASE64_STANDARD_NO_PAD.encode(bytes);
    format!("${id}$v=19$m={ARGON2_MEMORY_KIB},t={ARGON2_PASSES},p=1${}${}", encode(salt), encode(key))
}

fn scram_field(salt: &[u8], key: &[u8]) -> String {
    scram::Verifier { salt: salt.to_vec(), rounds: scram::ROUNDS, stored_key: key.to_vec(), server_key: key.to_vec() }.to_field()
}

/// So many digits; the last one is zero, since it stands for fewer bits than the others.
fn crypt_text(length: usize) -> String {
    let digit = |_| char::from(CRYPT_DIGITS[usize::from(rand::random::<u8>() % 64)]);
    (1..length).map(digit).chain(['.']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dummy_is_checked_as_a_real_hash_is_and_never_right() {
        for name in Scheme::NAMES {
            let scheme = Scheme::parse(name).unwrap();
            let dummy = StoredPassword::dummy(scheme);
            assert_eq!(dummy.verify(b"secret"), Ok(false), "{name}: {}", dummy.data);
            // It asks for the same work, by the same parameters.
            let real = scheme.hash(b"secret").or_else(|_| Scheme::Argon2id.hash(b"secret")).unwrap();
            let real = StoredPassword::parse(&real, scheme).unwrap();
            if scheme != Scheme::Plain {
                assert_eq!((dummy.scheme, dummy.encoding, dummy.data.len()), (real.scheme, real.encoding, real.data.len()), "{name}");
                assert_eq!(parameters(&dummy.data), parameters(&real.data), "{name}");
            }
        }
    }

    /// What is the same in all hashes of a scheme.
    fn parameters(field: &str) -> Vec<&str> {
        let costs = |part: &&str| part.contains('=') && !part.ends_with('=') || part.len() < 8;
        field.split(['$', ',']).filter(costs).collect()
    }
}
