//! MD5-crypt (`$1$`), for hashes that exist: Poul-Henning Kamp's algorithm of 1994, verified against Dovecot's (`scheme`'s tests).

use md5::{Digest, Md5};

/// Longest salt the algorithm uses.
const SALT_BYTES_MAX: usize = 8;
const ROUNDS: usize = 1000;
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The hash of `password` as text, without `$1$salt$`.
pub fn md5_crypt(password: &[u8], salt: &[u8]) -> String {
    let salt = &salt[..salt.len().min(SALT_BYTES_MAX)];
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();

    let mut first = Md5::new().chain_update(password).chain_update(b"$1$").chain_update(salt);
    for chunk in password.chunks(inner.len()) {
        first.update(&inner[..chunk.len()]);
    }
    // The bits of the length choose between a zero byte and the first byte of the password.
    let mut bits = password.len();
    while bits > 0 {
        let byte = if bits & 1 == 1 { 0 } else { password.first().copied().unwrap_or(0) };
        first.update([byte]);
        bits >>= 1;
    }

    let mut digest = first.finalize();
    for round in 0..ROUNDS {
        let mut next = Md5::new();
        let odd = round % 2 == 1;
        next.update(if odd { password } else { &digest[..] });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if odd { &digest[..] } else { password });
        digest = next.finalize();
    }
    encode(&digest.into())
}

fn encode(digest: &[u8; 16]) -> String {
    const ORDER: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];
    let mut text = String::with_capacity(22);
    let mut put = |mut value: usize, digits: usize| {
        for _ in 0..digits {
            text.push(char::from(ALPHABET[value % 64]));
            value /= 64;
        }
    };
    for [a, b, c] in ORDER {
        put(usize::from(digest[a]) << 16 | usize::from(digest[b]) << 8 | usize::from(digest[c]), 4);
    }
    put(usize::from(digest[11]), 2);
    text
}
