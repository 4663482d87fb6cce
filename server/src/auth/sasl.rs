//! SASL mechanisms without I/O: PLAIN (RFC 4616) and LOGIN.
//!
//! Invariants, each with the test that guards it:
//! - only a whole exchange gives a name and a password (`a_broken_exchange_gives_nothing`)
//! - after its end an exchange takes nothing more (`an_exchange_happens_once`)

/// The mechanisms that are offered, in the order of preference.
pub const MECHANISMS: &[&str] = &["PLAIN", "LOGIN"];

/// Stands between authorization and authentication identity in [`Step::Verify`]'s `login`: no name can hold it, so no name can pretend.
pub const AUTHZID_SEPARATOR: char = '\0';

/// Longest response: RFC 4616 asks for 255 bytes per part; tokens in place of passwords may be longer.
const RESPONSE_BYTES_MAX: usize = 4096;

/// One exchange.
#[derive(Debug)]
pub struct Exchange {
    state: State,
}

#[derive(Debug)]
enum State {
    Plain,
    LoginUser,
    LoginPassword { user: String },
    Over,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this challenge (not yet base64).
    Challenge(Vec<u8>),
    /// The client said who it is: ask [`super::Authenticator::verify`].
    Verify {
        /// The name to log in as: the authentication identity; with an authorization identity that differs (master users), `authzid NUL authcid`.
        login: String,
        /// The password.
        password: Vec<u8>,
    },
    /// Not a valid exchange.
    Malformed(&'static str),
}

impl Exchange {
    /// Starts `mechanism` (ASCII case-insensitive); `None`: not offered.
    pub fn start(mechanism: &str) -> Option<Exchange> {
        let state = match mechanism.to_ascii_uppercase().as_str() {
            "PLAIN" => State::Plain,
            "LOGIN" => State::LoginUser,
            _ => return None,
        };
        Some(Exchange { state })
    }

    /// Takes the client's next response, already decoded from base64; `None` at the start without an initial response.
    pub fn respond(&mut self, response: Option<&[u8]>) -> Step {
        if response.is_some_and(|response| response.len() > RESPONSE_BYTES_MAX) {
            self.state = State::Over;
            return Step::Malformed("the response is too long");
        }
        match (std::mem::replace(&mut self.state, State::Over), response) {
            (State::Plain, None) => {
                self.state = State::Plain;
                Step::Challenge(Vec::new())
            }
            (State::Plain, Some(message)) => plain(message),
            (State::LoginUser, None) => {
                self.state = State::LoginUser;
                Step::Challenge(b"Username:".to_vec())
            }
            (State::LoginUser, Some(user)) => match name(user) {
                Ok(user) => {
                    self.state = State::LoginPassword { user };
                    Step::Challenge(b"Password:".to_vec())
                }
                Err(why) => Step::Malformed(why),
            },
            (State::LoginPassword { user }, Some(secret)) => match password(secret) {
                Ok(password) => Step::Verify { login: user, password },
                Err(why) => Step::Malformed(why),
            },
            (State::LoginPassword { .. }, None) => Step::Malformed("the password is missing"),
            (State::Over, _) => Step::Malformed("the exchange is over"),
        }
    }
}

/// `[authzid] NUL authcid NUL passwd`, RFC 4616 §2.
fn plain(message: &[u8]) -> Step {
    let mut parts = message.split(|byte| *byte == 0);
    let (Some(authzid), Some(authcid), Some(secret), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Step::Malformed("PLAIN takes three parts separated by NUL");
    };
    let read = || {
        let authcid = name(authcid)?;
        let login = if authzid.is_empty() || authzid == authcid.as_bytes() {
            authcid
        } else {
            format!("{}{AUTHZID_SEPARATOR}{authcid}", name(authzid)?)
        };
        Ok((login, password(secret)?))
    };
    match read() {
        Ok((login, password)) => Step::Verify { login, password },
        Err(why) => Step::Malformed(why),
    }
}

fn name(raw: &[u8]) -> Result<String, &'static str> {
    match std::str::from_utf8(raw) {
        Ok("") => Err("the user name is empty"),
        Ok(name) if name.contains('\0') => Err("the user name holds NUL"),
        Ok(name) => Ok(name.to_owned()),
        Err(_) => Err("the user name is not UTF-8"),
    }
}

fn password(raw: &[u8]) -> Result<Vec<u8>, &'static str> {
    if raw.is_empty() {
        Err("the password is empty")
    } else if raw.contains(&0) {
        Err("the password holds NUL")
    } else {
        Ok(raw.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(mechanism: &str) -> Exchange {
        Exchange::start(mechanism).unwrap()
    }
    fn verify(login: &str, password: &str) -> Step {
        Step::Verify { login: login.to_owned(), password: password.as_bytes().to_vec() }
    }

    #[test]
    fn plain_takes_its_message_at_once_or_after_an_empty_challenge() {
        // RFC 4616 §4.
        assert_eq!(exchange("PLAIN").respond(Some(b"\0tim\0tanstaaftanstaaf")), verify("tim", "tanstaaftanstaaf"));
        let mut later = exchange("plain");
        assert_eq!(later.respond(None), Step::Challenge(Vec::new()));
        assert_eq!(later.respond(Some("\0tim\0pässword".as_bytes())), verify("tim", "pässword"));
    }

    #[test]
    fn an_authorization_identity_that_differs_is_kept() {
        assert_eq!(exchange("PLAIN").respond(Some(b"Ursel\0Kurt\0xipj3plmq")), verify("Ursel\0Kurt", "xipj3plmq"));
        assert_eq!(exchange("PLAIN").respond(Some(b"Kurt\0Kurt\0xipj3plmq")), verify("Kurt", "xipj3plmq"));
    }

    #[test]
    fn login_asks_for_name_and_password() {
        let mut login = exchange("Login");
        assert_eq!(login.respond(None), Step::Challenge(b"Username:".to_vec()));
        assert_eq!(login.respond(Some(b"ada")), Step::Challenge(b"Password:".to_vec()));
        assert_eq!(login.respond(Some(b"secret")), verify("ada", "secret"));
        let mut initial = exchange("LOGIN");
        assert_eq!(initial.respond(Some(b"ada")), Step::Challenge(b"Password:".to_vec()));
        assert_eq!(initial.respond(Some(b"secret")), verify("ada", "secret"));
    }

    #[test]
    fn a_broken_exchange_gives_nothing() {
        for message in [&b""[..], b"\0", b"\0a", b"a\0b", b"\0\0p", b"\0a\0", b"\0a\0p\0", b"\0a\0p\0q", b"\0\xff\0p", b"\xff\0a\0p"] {
            assert!(matches!(exchange("PLAIN").respond(Some(message)), Step::Malformed(_)), "{message:?}");
        }
        let long = [b"\0a\0".as_slice(), &[b'p'; 5000]].concat();
        assert!(matches!(exchange("PLAIN").respond(Some(&long)), Step::Malformed(_)));
        for user in [&b""[..], b"a\0b", b"\xff"] {
            assert!(matches!(exchange("LOGIN").respond(Some(user)), Step::Malformed(_)), "{user:?}");
        }
        for password in [None, Some(&b""[..]), Some(b"a\0b")] {
            let mut login = exchange("LOGIN");
            login.respond(Some(b"ada"));
            assert!(matches!(login.respond(password), Step::Malformed(_)), "{password:?}");
        }
        assert!(Exchange::start("CRAM-MD5").is_none());
        assert!(MECHANISMS.iter().all(|mechanism| Exchange::start(mechanism).is_some()));
    }

    #[test]
    fn an_exchange_happens_once() {
        let mut plain = exchange("PLAIN");
        assert_eq!(plain.respond(Some(b"\0a\0p")), verify("a", "p"));
        assert!(matches!(plain.respond(Some(b"\0a\0p")), Step::Malformed(_)));
        assert!(matches!(plain.respond(None), Step::Malformed(_)));
    }
}
