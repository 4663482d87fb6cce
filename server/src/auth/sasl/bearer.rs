//! Tokens in SASL: OAUTHBEARER (RFC 7628) and XOAUTH2, which Google made and others took over. No I/O.

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// Whom it wants to log in as, if it said so.
    pub user: Option<String>,
    /// The token.
    pub token: String,
}

/// Separates the parts.
const SEPARATOR: char = '\u{1}';

/// `n,a=user@example.com,^Ahost=…^Aport=…^Aauth=Bearer token^A^A`, RFC 7628 §3.1.
pub fn oauthbearer(message: &[u8]) -> Result<Bearer, &'static str> {
    let message = std::str::from_utf8(message).map_err(|_| "the message is not UTF-8")?;
    let (header, pairs) = message.split_once(SEPARATOR).ok_or("the message has no parts")?;
    let mut parts = header.split(',');
    let (Some("n" | "y"), Some(authzid), Some(""), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err("the GS2 header is malformed");
    };
    let user = match authzid.strip_prefix("a=") {
        Some(name) => Some(name.replace("=2C", ",").replace("=3D", "=")),
        None if authzid.is_empty() => None,
        None => return Err("the authorization identity is malformed"),
    };
    Ok(Bearer { user: user.filter(|user| !user.is_empty()), token: token(pairs)? })
}

/// `user=name^Aauth=Bearer token^A^A`.
pub fn xoauth2(message: &[u8]) -> Result<Bearer, &'static str> {
    let message = std::str::from_utf8(message).map_err(|_| "the message is not UTF-8")?;
    let (user, pairs) = message.split_once(SEPARATOR).ok_or("the message has no parts")?;
    let user = user.strip_prefix("user=").ok_or("the user is missing")?;
    Ok(Bearer { user: (!user.is_empty()).then(|| user.to_owned()), token: token(pairs)? })
}

fn token(pairs: &str) -> Result<String, &'static str> {
    let pairs = pairs.strip_suffix("\u{1}\u{1}").ok_or("the message does not end as it should")?;
    let auth = pairs.split(SEPARATOR).find_map(|pair| pair.strip_prefix("auth=")).ok_or("the token is missing")?;
    let (kind, token) = auth.split_once(' ').ok_or("the token is missing")?;
    // RFC 6750 §2.1, b64token.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    if !kind.eq_ignore_ascii_case("bearer") || token.is_empty() || !token.bytes().all(plain) {
        return Err("the token is not a bearer token");
    }
    Ok(token.to_owned())
}

/// What a client is told whose token was refused (RFC 7628 §3.2.2).
pub fn refusal(scope: &str, configuration: &str) -> Vec<u8> {
    let mut object = serde_json::json!({ "status": "invalid_token" });
    for (key, value) in [("scope", scope), ("openid-configuration", configuration)] {
        if !value.is_empty() {
            object[key] = value.into();
        }
    }
    object.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7628_is_read() {
        // RFC 7628 §4.1.
        let message =
            b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01";
        let bearer = Bearer { user: Some("user@example.com".into()), token: "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==".into() };
        assert_eq!(oauthbearer(message), Ok(bearer.clone()));
        assert_eq!(xoauth2(b"user=user@example.com\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01"), Ok(bearer));
        let nameless = Bearer { user: None, token: "abc".into() };
        assert_eq!(oauthbearer(b"n,,\x01auth=bearer abc\x01\x01"), Ok(nameless));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for message in [
            "",
            "n,,",
            "n,,\x01\x01",
            "p=x,,\x01auth=Bearer a\x01\x01",
            "n,,\x01auth=Basic a\x01\x01",
            "n,,\x01auth=Bearer a",
            "n,,\x01auth=Bearer a b\x01\x01",
        ] {
            assert!(oauthbearer(message.as_bytes()).is_err(), "{message:?}");
        }
        for message in ["", "user=a", "auth=Bearer a\x01\x01", "user=a\x01auth=Bearer \x01\x01", "user=a\x01auth=Bearer \u{e9}\x01\x01"] {
            assert!(xoauth2(message.as_bytes()).is_err(), "{message:?}");
        }
    }

    #[test]
    fn a_refusal_says_where_to_get_a_token() {
        // RFC 7628 §4.3.
        let said = refusal("example_scope", "https://example.com/.well-known/openid-configuration");
        let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
        assert_eq!(said["status"], "invalid_token");
        assert_eq!(said["openid-configuration"], "https://example.com/.well-known/openid-configuration");
    }
}
