use super::*;

const PASSWORD: &[u8] = "sesamö 7".as_bytes();
/// One line per scheme.
const DOVECOT: &str = include_str!("../testdata/doveadm.passwd");

fn stored() -> impl Iterator<Item = (&'static str, &'static str)> {
    DOVECOT.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (user, rest) = line.split_once(':').unwrap();
        (user, rest.trim_end_matches(':'))
    })
}

#[test]
fn every_scheme_verifies_what_dovecot_made() {
    for (user, field) in stored() {
        let password = StoredPassword::parse(field, Scheme::Plain).unwrap();
        assert_eq!(password.verify(PASSWORD), Ok(true), "{user}");
        assert_eq!(password.verify("sesamö 8".as_bytes()), Ok(false), "{user}");
        assert_eq!(password.verify(b""), Ok(false), "{user}");
    }
    for name in Scheme::NAMES {
        let prefix = format!("{{{name}}}");
        assert!(stored().any(|(_, field)| field.starts_with(&prefix)), "no known answer for {name}");
    }
}

#[test]
fn a_password_may_be_composed_in_any_way() {
    let (composed, apart) = ("p\u{e4}ss word", "pa\u{308}ss\u{a0}word");
    for set in [composed, apart] {
        let stored = StoredPassword::parse(&Scheme::Ssha512.hash(set.as_bytes()).unwrap(), Scheme::Plain).unwrap();
        for sent in [composed, apart] {
            assert_eq!(stored.verify(sent.as_bytes()), Ok(true), "{set:?} {sent:?}");
        }
        assert_eq!(stored.verify(b"pass word"), Ok(false));
    }
    // What another server stored as it was sent is found as it was sent.
    let stored = StoredPassword::parse(&format!("{{PLAIN}}{apart}"), Scheme::Plain).unwrap();
    assert_eq!((stored.verify(apart.as_bytes()), stored.verify(composed.as_bytes())), (Ok(true), Ok(false)));
    assert_eq!(prepared(b"caf\xe9"), None);
}

#[test]
fn what_is_hashed_verifies() {
    for name in Scheme::NAMES {
        match Scheme::parse(name).unwrap().hash(PASSWORD) {
            Ok(field) => {
                let password = StoredPassword::parse(&field, Scheme::Md5).unwrap();
                assert_eq!(password.verify(PASSWORD), Ok(true), "{field}");
                assert_eq!(password.verify(b"sesam"), Ok(false), "{field}");
                assert!(!field.contains([':', '\n']), "{field}");
            }
            Err(error) => assert_eq!(error, SchemeError::NotForNew(Scheme::parse(name).unwrap())),
        }
    }
}

#[test]
fn a_crypt_hash_without_a_scheme_speaks_for_itself() {
    let (_, field) = stored().find(|(user, _)| *user == "sha512-crypt-rounds").unwrap();
    let hash = field.strip_prefix("{SHA512-CRYPT}").unwrap();
    assert_eq!(StoredPassword::parse(hash, Scheme::Argon2id).unwrap().verify(PASSWORD), Ok(true));
    // Where passwords are plain text, `$6$…` is one.
    assert_eq!(StoredPassword::parse("$6$a$b", Scheme::Plain).unwrap().verify(b"$6$a$b"), Ok(true));
}

#[test]
fn absurd_costs_are_refused() {
    for field in [
        "{ARGON2ID}$argon2id$v=19$m=4194304,t=3,p=1$wREPug9u9+qFtguHHG8+Rg$RGHKah47Zc3dnRx7RhBRvrSdtSJjQ9awJqN4lG7bOTQ",
        "{ARGON2ID}$argon2id$v=19$m=65536,t=100000,p=1$wREPug9u9+qFtguHHG8+Rg$RGHKah47Zc3dnRx7RhBRvrSdtSJjQ9awJqN4lG7bOTQ",
        "{BLF-CRYPT}$2y$31$9ojIt7dV0gPSvO35GX0/QeDB7QUGsn8ReP3TxAGJqJznk5eys8r2u",
        "{SHA512-CRYPT}$6$rounds=999999999$e38A8NcZsYaAhtiX$vtH9w4YzMRi8z4zwcVCosMSFL7cC4qYIiGOWgM/LQmsezvSQ2qD/w/.ufsocFQcRqTNe6DUwz2aL6cdWT1gu50",
        "{PBKDF2}$1$NCj0ujObw0zs/348$4000000000$e9785ab21a319ac7b125c2639f32c75690764aa8",
        "{SCRAM-SHA-256}4000000000,F+CHYgsXKp61jSjiMZmYHw==,fXWOGXguc3A46d97OAG4lYB8AXE1S5f2mdzILTjBQbk=,eLN9",
    ] {
        let error = StoredPassword::parse(field, Scheme::Plain).unwrap().verify(PASSWORD).unwrap_err();
        assert!(matches!(error, SchemeError::TooExpensive { .. }), "{field}: {error}");
    }
}

#[test]
fn damaged_hashes_are_errors() {
    for (_, field) in stored() {
        let start = field.find('}').unwrap() + 1;
        for end in (start..field.len()).filter(|end| field.is_char_boundary(*end)) {
            let cut = StoredPassword::parse(&field[..end], Scheme::Plain).unwrap();
            // Argon2 is slow, and what is behind its parameters is the library's business.
            if field.contains("ARGON2") && end > start + 20 {
                continue;
            }
            // The end may be padding, or SCRAM's second key, which isn't needed here.
            let verified = cut.verify(PASSWORD);
            assert!(verified != Ok(true) || end > start + (field.len() - start) / 2, "{}", &field[..end]);
        }
    }
    for field in
        ["{SHA256}ä", "{SSHA.HEX}ää", "{CRYPT}", "{CRYPT}ab", "{CRYPT}$ä", "{MD5-CRYPT}$6$a$b", "{SHA512-CRYPT}$1$a$b", "{ARGON2I}$"]
    {
        assert!(StoredPassword::parse(field, Scheme::Plain).unwrap().verify(PASSWORD).is_err(), "{field}");
    }
    assert_eq!(StoredPassword::parse("{ROT13}x", Scheme::Plain), Err(SchemeError::Unsupported("ROT13".to_owned())));
}
