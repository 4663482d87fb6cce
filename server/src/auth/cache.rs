//! Passwords that were verified a short while ago, so that a client with ten connections pays for one hash.
//!
//! Invariants, each with the test that guards it:
//! - no password is kept, only a hash under a key that dies with the process
//! - a changed password in the users file is never accepted by memory (`a_changed_password_is_forgotten`)

use std::time::Duration;

use affinity::UserName;
use hmac::{Hmac, KeyInit, Mac};
use moka::sync::Cache;
use sha2::Sha256;
use subtle::ConstantTimeEq;

type Digest = [u8; 32];

/// Remembers verified passwords.
pub struct PasswordCache {
    key: Digest,
    /// `None`: switched off.
    verified: Option<Cache<UserName, Digest>>,
}

impl PasswordCache {
    /// Remembers so many users (some 100 bytes each) for `lifetime`; zero switches it off.
    pub fn new(lifetime: Duration, users_max: u64) -> PasswordCache {
        let cache = || Cache::builder().max_capacity(users_max).time_to_live(lifetime).build();
        PasswordCache { key: rand::random(), verified: (!lifetime.is_zero()).then(cache) }
    }

    /// Whether `password` was verified against `line`, the user's present password field.
    pub fn knows(&self, user: &UserName, field: &str, password: &[u8]) -> bool {
        let remembered = self.verified.as_ref().and_then(|verified| verified.get(user));
        remembered.is_some_and(|remembered| remembered.ct_eq(&self.digest(user, field, password)).into())
    }

    /// `password` was verified against `field`.
    pub fn remember(&self, user: &UserName, field: &str, password: &[u8]) {
        if let Some(verified) = &self.verified {
            verified.insert(user.clone(), self.digest(user, field, password));
        }
    }

    fn digest(&self, user: &UserName, field: &str, password: &[u8]) -> Digest {
        // HMAC takes keys of any length, so the `Err` can't occur; a digest that nothing equals would only cost a hash.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return rand::random() };
        for part in [user.as_str().as_bytes(), field.as_bytes()] {
            mac.update(&part.len().to_le_bytes());
            mac.update(part);
        }
        mac.update(password);
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ada() -> UserName {
        UserName::normalise("ada").unwrap()
    }

    #[test]
    fn only_the_verified_password_is_known() {
        let cache = PasswordCache::new(Duration::from_secs(60), 10);
        assert!(!cache.knows(&ada(), "{X}1", b"right"));
        cache.remember(&ada(), "{X}1", b"right");
        assert!(cache.knows(&ada(), "{X}1", b"right"));
        assert!(!cache.knows(&ada(), "{X}1", b"wrong"));
        assert!(!cache.knows(&UserName::normalise("bob").unwrap(), "{X}1", b"right"));
    }

    #[test]
    fn a_changed_password_is_forgotten() {
        let cache = PasswordCache::new(Duration::from_secs(60), 10);
        cache.remember(&ada(), "{X}1", b"right");
        assert!(!cache.knows(&ada(), "{X}2", b"right"));
    }

    #[test]
    fn a_lifetime_of_zero_remembers_nothing() {
        let cache = PasswordCache::new(Duration::ZERO, 10);
        cache.remember(&ada(), "{X}1", b"right");
        assert!(!cache.knows(&ada(), "{X}1", b"right"));
    }
}
