//! `berth user test`: which source knows a user, and what it says.

use std::io::{self, Write};

use anyhow::bail;
use serde_json::json;

use crate::{
    auth::{Authenticator, source::Credential},
    client::{Client, Protocol, SessionId},
    command::{place::normalise, runtime},
    config::Config,
};

pub(super) fn run(config: &Config, name: &str, password: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let auth = Authenticator::open(&config.auth, config.passwd_file())?.with_app_passwords(config.app_password_file());
    let runtime = runtime()?;
    let user = normalise(name, &config.auth.names)?;
    let mut out = io::stdout().lock();
    let Some((source, account)) = runtime.block_on(auth.explain(&user))? else {
        bail!("no source knows {user}; asked were: {}", auth.describe().join(", "));
    };
    let record = &account.record;
    let checked_by = match &account.credential {
        Credential::None => "nothing: no password that can be used".to_owned(),
        Credential::Stored(stored) => format!("a stored {} hash", stored.scheme()),
        Credential::Asked(at) => format!("the source itself, as {at}"),
    };
    let verdict = password.map(|password| {
        // As over TLS from this host.
        let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let client =
            Client { session: SessionId::random(), address: loopback, local: loopback, ingress: config.node.name.clone(), tls: None };
        runtime.block_on(auth.verify(name, password.as_bytes(), &client, Protocol::Imap))
    });
    let location = config.account_paths(&record.user, Some(record)).map(|paths| paths.maildir.display().to_string());
    if as_json {
        let line = json!({
            "name": name,
            "user": record.user,
            "source": source,
            "password": checked_by,
            "fields": record.fields(),
            "maildir": location.as_ref().ok(),
            "accepted": verdict.as_ref().map(Result::is_ok),
        });
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "user      {}", record.user)?;
        writeln!(out, "source    {source}")?;
        writeln!(out, "password  checked by {checked_by}")?;
        writeln!(out, "maildir   {}", location.as_ref().unwrap_or_else(|why| why))?;
        for (field, value) in record.fields() {
            writeln!(out, "field     {field} = {value}")?;
        }
    }
    match verdict {
        None => Ok(()),
        Some(Ok(_)) => {
            eprintln!("the password is accepted");
            Ok(())
        }
        Some(Err(error)) => Err(error.into()),
    }
}
