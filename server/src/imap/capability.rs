//! What is advertised: exactly what is whole, in each state.

use crate::{auth::sasl::MECHANISMS, client::Client};

/// Extensions of a logged-in session.
const EXTENSIONS: &str = "IMAP4rev1 SASL-IR LITERAL+ ID ENABLE IDLE NAMESPACE UIDPLUS MOVE UNSELECT CHILDREN SPECIAL-USE \
                          CREATE-SPECIAL-USE CONDSTORE ESEARCH LIST-EXTENDED LIST-STATUS STATUS=SIZE WITHIN";

/// Before login. `start_tls`: a certificate is there; `password`: this connection may send one.
pub fn before_login(client: &Client, start_tls: bool, password: bool) -> String {
    let mut capabilities = String::from("IMAP4rev1 SASL-IR LITERAL+ ID ENABLE");
    if start_tls && client.tls.is_none() {
        capabilities.push_str(" STARTTLS");
    }
    if password {
        for mechanism in MECHANISMS {
            capabilities.push_str(" AUTH=");
            capabilities.push_str(mechanism);
        }
    } else {
        capabilities.push_str(" LOGINDISABLED");
    }
    capabilities
}

/// After login.
pub fn after_login() -> &'static str {
    EXTENSIONS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::SessionId;

    fn client(tls: Option<&str>) -> Client {
        Client {
            session: SessionId::random(),
            address: "192.0.2.1:1234".parse().unwrap(),
            local: "192.0.2.2:143".parse().unwrap(),
            ingress: "a".parse().unwrap(),
            tls: tls.map(str::to_owned),
        }
    }

    #[test]
    fn a_plain_connection_is_told_to_use_tls_first() {
        let plain = before_login(&client(None), true, false);
        assert!(plain.contains(" STARTTLS") && plain.contains(" LOGINDISABLED") && !plain.contains("AUTH="), "{plain}");
        let inside = before_login(&client(Some("TLSv1.3")), true, true);
        assert!(!inside.contains("STARTTLS") && inside.contains(" AUTH=PLAIN") && !inside.contains("LOGINDISABLED"), "{inside}");
    }
}
