//! SASL mechanisms without I/O: PLAIN (RFC 4616) and LOGIN.

/// The mechanisms that are offered, in the order of preference.
pub const MECHANISMS: &[&str] = &["PLAIN", "LOGIN"];

/// One exchange.
#[derive(Debug)]
pub struct Exchange {}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this challenge (not yet base64).
    Challenge(Vec<u8>),
    /// The client said who it is: ask [`super::Authenticator::verify`].
    Verify {
        /// The name to log in as (authentication identity; with an authorization identity `authzid` that differs: `authzid<separator>authcid` is for master users).
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
        let _ = mechanism;
        todo!()
    }
    /// Takes the client's next response, already decoded from base64; `None` at the start without an initial response.
    pub fn respond(&mut self, response: Option<&[u8]>) -> Step {
        let _ = response;
        todo!()
    }
}
