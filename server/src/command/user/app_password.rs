//! `berth user app-password`: passwords for single programs.

use std::io::{self, Write};

use affinity::{Root, UserName};
use clap::Subcommand;
use serde_json::json;

use crate::{
    auth::{Authenticator, app_passwords},
    client::Protocol,
    command::{ConfigFile, place::normalise, runtime, table},
    config::Config,
};

#[derive(Debug, Subcommand)]
pub(super) enum AppPasswordCommand {
    /// Make one; it is shown once and can't be shown again
    #[command(after_help = "Example:\n  berth user app-password add ada@example.org --protocols imap --label 'phone'")]
    Add {
        /// The user, of any source
        name: String,
        /// What it opens: imap, pop3 [default: every protocol]
        #[arg(long, value_delimiter = ',', value_parser = protocol)]
        protocols: Vec<Protocol>,
        /// What the user calls it
        #[arg(long, default_value = "")]
        label: String,
        #[command(flatten)]
        config: ConfigFile,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// List a user's
    #[command(after_help = "Example:\n  berth user app-password list ada@example.org")]
    List {
        /// The user
        name: String,
        #[command(flatten)]
        config: ConfigFile,
        /// One JSON object per app password
        #[arg(long)]
        json: bool,
    },
    /// End one
    ///
    /// Nodes notice within seconds; sessions that it opened go on until they end (`berth kick`).
    #[command(after_help = "Example:\n  berth user app-password revoke ada@example.org 2")]
    Revoke {
        /// The user
        name: String,
        /// Its number, as `list` shows it
        id: u32,
        #[command(flatten)]
        config: ConfigFile,
    },
}

fn protocol(name: &str) -> Result<Protocol, String> {
    match name {
        "imap" => Ok(Protocol::Imap),
        "pop3" => Ok(Protocol::Pop3),
        _ => Err("known are imap, pop3".to_owned()),
    }
}

/// The file must not be made in an empty mount point.
fn open(config: &ConfigFile, name: &str) -> anyhow::Result<(Config, UserName)> {
    let config = config.load()?;
    Root::open(&config.node.root, config.node.cluster_id.as_deref())?;
    let user = normalise(name, &config.auth.names)?;
    Ok((config, user))
}

pub(super) fn run(command: &AppPasswordCommand) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match command {
        AppPasswordCommand::Add { name, protocols, label, config, json } => {
            let (config, user) = open(config, name)?;
            let auth = Authenticator::open(&config.auth, config.passwd_file())?;
            let Some(record) = runtime()?.block_on(auth.record(&user))? else {
                anyhow::bail!("no source knows {user}: `berth user test {user}` asks them");
            };
            let (id, password) = app_passwords::add(&config.app_password_file(), &record.user, protocols, label)?;
            if *json {
                writeln!(out, "{}", json!({ "user": record.user, "id": id, "password": password }))?;
            } else {
                writeln!(out, "{password}")?;
                eprintln!("app password {id} of {}: it is not shown again", record.user);
            }
        }
        AppPasswordCommand::List { name, config, json } => {
            let (config, user) = open(config, name)?;
            let file = config.app_password_file();
            let own = app_passwords::list(&file, &user)?;
            let names = |protocols: &[Protocol]| protocols.iter().map(ToString::to_string).collect::<Vec<_>>();
            if *json {
                for app in &own {
                    let line = json!({ "user": user, "id": app.id, "protocols": names(&app.protocols), "created": app.created, "used": app_passwords::last_used(&file, app).map(|used| used.to_string()), "label": app.label });
                    writeln!(out, "{line}")?;
                }
            } else {
                let row = |app: &app_passwords::AppPassword| {
                    let protocols = if app.protocols.is_empty() { "all".to_owned() } else { names(&app.protocols).join(",") };
                    let used = app_passwords::last_used(&file, app)
                        .map_or_else(|| "never".to_owned(), |used| used.strftime("%Y-%m-%d").to_string());
                    vec![app.id.to_string(), protocols, app.created.clone(), used, app.label.clone()]
                };
                table::print(&mut out, &["ID", "PROTOCOLS", "CREATED", "USED", "LABEL"], &own.iter().map(row).collect::<Vec<_>>())?;
            }
        }
        AppPasswordCommand::Revoke { name, id, config } => {
            let (config, user) = open(config, name)?;
            app_passwords::revoke(&config.app_password_file(), &user, *id)?;
            writeln!(out, "app password {id} of {user} is revoked")?;
        }
    }
    Ok(())
}
