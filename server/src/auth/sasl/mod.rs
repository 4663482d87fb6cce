//! SASL mechanisms without I/O: PLAIN (RFC 4616), LOGIN, SCRAM (`scram.rs`), bearer tokens (`bearer.rs`), EXTERNAL (RFC 4422), CRAM-MD5 (RFC 2195)
//! and ANONYMOUS (RFC 4505).
//!
//! Invariants, each with the test that guards it:
//! - only a whole exchange gives a name and a password (`a_broken_exchange_gives_nothing`)
//! - after its end an exchange takes nothing more (`an_exchange_happens_once`)

pub mod bearer;
pub mod scram;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use subtle::ConstantTimeEq;

use self::{
    bearer::Bearer,
    scram::{ChannelBindings, Final, Hash, Verifier},
};

/// Stands between authorization and authentication identity in a `login`: no name can hold it, so no name can pretend.
pub const AUTHZID_SEPARATOR: char = '\0';

/// Longest response: RFC 4616 asks for 255 bytes per part; tokens are longer.
const RESPONSE_BYTES_MAX: usize = 12 * 1024;

/// The mechanisms that this server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of mechanisms")]
pub enum Mechanism {
    ScramSha256Plus,
    ScramSha256,
    ScramSha1Plus,
    ScramSha1,
    OAuthBearer,
    XOAuth2,
    External,
    Plain,
    Login,
    CramMd5,
    Anonymous,
}

impl Mechanism {
    /// All, strongest first, as they are listed to clients.
    pub const ALL: [Mechanism; 11] = [
        Mechanism::ScramSha256Plus,
        Mechanism::ScramSha256,
        Mechanism::ScramSha1Plus,
        Mechanism::ScramSha1,
        Mechanism::OAuthBearer,
        Mechanism::XOAuth2,
        Mechanism::External,
        Mechanism::Plain,
        Mechanism::Login,
        Mechanism::CramMd5,
        Mechanism::Anonymous,
    ];

    /// As clients write it.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Mechanism::ScramSha1 => "SCRAM-SHA-1",
            Mechanism::OAuthBearer => "OAUTHBEARER",
            Mechanism::XOAuth2 => "XOAUTH2",
            Mechanism::External => "EXTERNAL",
            Mechanism::Plain => "PLAIN",
            Mechanism::Login => "LOGIN",
            Mechanism::CramMd5 => "CRAM-MD5",
            Mechanism::Anonymous => "ANONYMOUS",
        }
    }

    /// By name, ASCII case-insensitive.
    pub fn parse(name: &str) -> Option<Mechanism> {
        Mechanism::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }

    /// Whether it binds the TLS channel.
    pub fn is_plus(self) -> bool {
        matches!(self, Mechanism::ScramSha256Plus | Mechanism::ScramSha1Plus)
    }
}

/// One exchange.
#[derive(Debug)]
pub struct Exchange {
    state: State,
}

#[derive(Debug)]
enum State {
    Start(Mechanism, Setting),
    LoginPassword { user: String },
    ScramLookup(scram::ClientFirst),
    ScramFinal(scram::ServerFirst, Verifier),
    Cram { challenge: String },
    Over,
}

/// What an exchange must know of its connection.
#[derive(Debug, Clone, Default)]
pub struct Setting {
    /// What can be bound.
    pub bindings: ChannelBindings,
    /// Whether -PLUS mechanisms are offered.
    pub plus_is_offered: bool,
    /// Unique to this exchange and unguessable: our part of nonces, the challenge of CRAM-MD5.
    pub nonce: String,
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
    /// Look up this login's verifier and give it to [`Exchange::supply`].
    LookUp {
        /// As in `Verify`.
        login: String,
        /// Which hash.
        hash: Hash,
    },
    /// The client proved that it knows the password; it still takes this message, and answers with nothing.
    Proved(Vec<u8>),
    /// The client does not know the password.
    NotProved,
    /// A token.
    Token(Bearer),
    /// CRAM-MD5's answer: compare with [`cram_md5`].
    Cram {
        /// As in `Verify`.
        login: String,
        /// What was asked.
        challenge: String,
        /// What was answered, in hexadecimal.
        digest: String,
    },
    /// What the TLS layer knows is to count; for whom, if that was said.
    External(Option<String>),
    /// Nobody in particular.
    Anonymous,
    /// Not a valid exchange.
    Malformed(&'static str),
}

impl Exchange {
    /// Starts a mechanism.
    pub fn start(mechanism: Mechanism, setting: Setting) -> Exchange {
        Exchange { state: State::Start(mechanism, setting) }
    }

    /// Takes the client's next response, already decoded from base64; `None` at the start without an initial response.
    pub fn respond(&mut self, response: Option<&[u8]>) -> Step {
        if response.is_some_and(|response| response.len() > RESPONSE_BYTES_MAX) {
            self.state = State::Over;
            return Step::Malformed("the response is too long");
        }
        let response = match (std::mem::replace(&mut self.state, State::Over), response) {
            (State::Start(Mechanism::CramMd5, setting), None) => {
                let challenge = format!("<{}@berth>", setting.nonce);
                self.state = State::Cram { challenge: challenge.clone() };
                Ok(Step::Challenge(challenge.into_bytes()))
            }
            (State::Start(Mechanism::CramMd5, _), Some(_)) => Err("CRAM-MD5 has no initial response"),
            (State::Start(mechanism, setting), None) => {
                self.state = State::Start(mechanism, setting);
                Ok(Step::Challenge(if mechanism == Mechanism::Login { b"Username:".to_vec() } else { Vec::new() }))
            }
            (State::Start(mechanism, setting), Some(message)) => self.begin(mechanism, setting, message),
            (State::LoginPassword { user }, Some(secret)) => password(secret).map(|password| Step::Verify { login: user, password }),
            (State::LoginPassword { .. }, None) => Err("the password is missing"),
            (State::ScramFinal(waiting, verifier), Some(message)) => match waiting.finish(&verifier, message) {
                Final::Proved(last) => Ok(Step::Proved(last)),
                Final::NotProved => Ok(Step::NotProved),
                Final::Malformed(why) => Err(why),
            },
            (State::Cram { challenge }, Some(answer)) => cram_answer(answer).map(|(login, digest)| Step::Cram { login, challenge, digest }),
            (State::ScramFinal(..) | State::Cram { .. }, None) => Err("the response is missing"),
            (State::ScramLookup(_) | State::Over, _) => Err("the exchange is over"),
        };
        response.unwrap_or_else(Step::Malformed)
    }

    fn begin(&mut self, mechanism: Mechanism, setting: Setting, message: &[u8]) -> Result<Step, &'static str> {
        let hash = match mechanism {
            Mechanism::Plain => return plain(message),
            Mechanism::Login => {
                self.state = State::LoginPassword { user: name(message)? };
                return Ok(Step::Challenge(b"Password:".to_vec()));
            }
            Mechanism::OAuthBearer => return bearer::oauthbearer(message).map(Step::Token),
            Mechanism::XOAuth2 => return bearer::xoauth2(message).map(Step::Token),
            Mechanism::External if message.is_empty() => return Ok(Step::External(None)),
            Mechanism::External => return name(message).map(|authzid| Step::External(Some(authzid))),
            // A trace for people, which nobody can check.
            Mechanism::Anonymous => return Ok(Step::Anonymous),
            Mechanism::CramMd5 => return Err("CRAM-MD5 has no initial response"),
            Mechanism::ScramSha1 | Mechanism::ScramSha1Plus => Hash::Sha1,
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => Hash::Sha256,
        };
        let Setting { bindings, plus_is_offered, nonce: _ } = setting;
        let first = scram::client_first(scram::Offer { hash, plus: mechanism.is_plus(), plus_is_offered, bindings }, message)?;
        let login = with_authzid(&first.user, first.authzid.as_deref());
        self.state = State::ScramLookup(first);
        Ok(Step::LookUp { login, hash })
    }

    /// Goes on with the verifier that [`Step::LookUp`] asked for; `nonce` is unguessable.
    pub fn supply(&mut self, verifier: Verifier, nonce: &str) -> Step {
        match std::mem::replace(&mut self.state, State::Over) {
            State::ScramLookup(first) => {
                let (challenge, waiting) = first.answer(&verifier, nonce);
                self.state = State::ScramFinal(waiting, verifier);
                Step::Challenge(challenge)
            }
            _ => Step::Malformed("the exchange is over"),
        }
    }
}

/// Whether `digest` is what CRAM-MD5 makes of the challenge and the password.
pub fn cram_md5(password: &[u8], challenge: &str, digest: &str) -> bool {
    let Ok(mac) = Hmac::<Md5>::new_from_slice(password) else { return false };
    let made: String = mac.chain_update(challenge.as_bytes()).finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    made.as_bytes().ct_eq(digest.to_ascii_lowercase().as_bytes()).into()
}

fn cram_answer(answer: &[u8]) -> Result<(String, String), &'static str> {
    let text = std::str::from_utf8(answer).map_err(|_| "the answer is not UTF-8")?;
    let (user, digest) = text.rsplit_once(' ').ok_or("the answer is a name and a digest")?;
    Ok((name(user.as_bytes())?, digest.to_owned()))
}

fn with_authzid(authcid: &str, authzid: Option<&str>) -> String {
    match authzid {
        Some(authzid) if authzid != authcid => format!("{authzid}{AUTHZID_SEPARATOR}{authcid}"),
        _ => authcid.to_owned(),
    }
}

/// `[authzid] NUL authcid NUL passwd`, RFC 4616 §2.
fn plain(message: &[u8]) -> Result<Step, &'static str> {
    let mut parts = message.split(|byte| *byte == 0);
    let (Some(authzid), Some(authcid), Some(secret), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err("PLAIN takes three parts separated by NUL");
    };
    let authcid = name(authcid)?;
    let authzid = if authzid.is_empty() { None } else { Some(name(authzid)?) };
    Ok(Step::Verify { login: with_authzid(&authcid, authzid.as_deref()), password: password(secret)? })
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
        let setting = Setting { nonce: "1896.697170952".to_owned(), ..Setting::default() };
        Exchange::start(Mechanism::parse(mechanism).unwrap(), setting)
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
        let login = "Ursel\0Kurt".to_owned();
        assert_eq!(exchange("SCRAM-SHA-256").respond(Some(b"n,a=Ursel,n=Kurt,r=x")), Step::LookUp { login, hash: Hash::Sha256 });
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
    fn the_digest_of_rfc_2195_comes_out() {
        // RFC 2195 §2, with its challenge.
        let challenge = "<1896.697170952@postoffice.reston.mci.net>";
        assert!(cram_md5(b"tanstaaftanstaaf", challenge, "b913a602c7eda7a495b4e6e7334d3890"));
        assert!(!cram_md5(b"tanstaaftanstaa", challenge, "b913a602c7eda7a495b4e6e7334d3890"));
        let mut cram = exchange("CRAM-MD5");
        let challenge = "<1896.697170952@berth>".to_owned();
        assert_eq!(cram.respond(None), Step::Challenge(challenge.clone().into_bytes()));
        let answered = Step::Cram { login: "tim b".into(), challenge, digest: "b913".into() };
        assert_eq!(cram.respond(Some(b"tim b b913")), answered);
        assert!(matches!(exchange("CRAM-MD5").respond(Some(b"tim x")), Step::Malformed(_)));
    }

    #[test]
    fn external_and_anonymous_have_nothing_to_prove() {
        assert_eq!(exchange("EXTERNAL").respond(Some(b"")), Step::External(None));
        assert_eq!(exchange("EXTERNAL").respond(Some(b"ada")), Step::External(Some("ada".into())));
        assert_eq!(exchange("ANONYMOUS").respond(Some(b"sirhc")), Step::Anonymous);
    }

    #[test]
    fn a_broken_exchange_gives_nothing() {
        for message in [&b""[..], b"\0", b"\0a", b"a\0b", b"\0\0p", b"\0a\0", b"\0a\0p\0", b"\0a\0p\0q", b"\0\xff\0p", b"\xff\0a\0p"] {
            assert!(matches!(exchange("PLAIN").respond(Some(message)), Step::Malformed(_)), "{message:?}");
        }
        let long = [b"\0a\0".as_slice(), &[b'p'; 20_000]].concat();
        assert!(matches!(exchange("PLAIN").respond(Some(&long)), Step::Malformed(_)));
        for user in [&b""[..], b"a\0b", b"\xff"] {
            assert!(matches!(exchange("LOGIN").respond(Some(user)), Step::Malformed(_)), "{user:?}");
        }
        for password in [None, Some(&b""[..]), Some(b"a\0b")] {
            let mut login = exchange("LOGIN");
            login.respond(Some(b"ada"));
            assert!(matches!(login.respond(password), Step::Malformed(_)), "{password:?}");
        }
        assert!(Mechanism::parse("GSSAPI").is_none());
    }

    #[test]
    fn an_exchange_happens_once() {
        let mut plain = exchange("PLAIN");
        assert_eq!(plain.respond(Some(b"\0a\0p")), verify("a", "p"));
        assert!(matches!(plain.respond(Some(b"\0a\0p")), Step::Malformed(_)));
        assert!(matches!(plain.respond(None), Step::Malformed(_)));
        let mut scram = exchange("SCRAM-SHA-1");
        assert!(matches!(scram.respond(Some(b"n,,n=a,r=x")), Step::LookUp { .. }));
        assert!(matches!(scram.respond(Some(b"c=biws,r=x,p=aaaa")), Step::Malformed(_)), "no answer before the verifier");
    }
}
