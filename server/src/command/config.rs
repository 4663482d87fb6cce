//! `berth config`: is it right, and what is it?

mod surroundings;
pub mod tls;

use std::io::{self, Write};

use affinity::Root;
use anyhow::bail;
use clap::{Args, Subcommand};

use super::{
    ConfigFile,
    doctor::owners::{self, Account},
};
use crate::{
    auth::Authenticator,
    config::{Config, EXAMPLE},
    tls::Tls,
};

/// Check the configuration, or show it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  berth config show --default > /etc/berth/berth.toml\n  berth config check && systemctl reload berth")]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say what is wrong with the configuration and with the files it names
    Check(ConfigFile),
    /// Print the settings in effect
    Show {
        #[command(flatten)]
        config: ConfigFile,
        /// Print every setting with its explanation and default instead
        #[arg(long)]
        default: bool,
    },
}

pub(super) fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match &args.command {
        ConfigCommand::Check(file) => {
            let config = file.load()?;
            writeln!(out, "{}: no mistakes", file.config.display())?;
            check_files(&config, &mut out)
        }
        ConfigCommand::Show { default: true, .. } => Ok(out.write_all(EXAMPLE.as_bytes())?),
        ConfigCommand::Show { config, .. } => Ok(out.write_all(toml::to_string(&config.load()?)?.as_bytes())?),
    }
}

/// Opens what a node would open at its start.
fn check_files(config: &Config, out: &mut impl Write) -> anyhow::Result<()> {
    let mut wrong = 0;
    let mut tell = |what: &str, outcome: anyhow::Result<String>| {
        let line = outcome.unwrap_or_else(|error| {
            wrong += 1;
            format!("{error:#}")
        });
        writeln!(out, "{what}: {line}")
    };
    let root = Root::open(&config.node.root, config.node.cluster_id.as_deref());
    tell(
        "shared directory",
        root.map(|root| format!("{}, cluster {}", root.path().display(), root.cluster().cluster_id)).map_err(Into::into),
    )?;
    let users = Authenticator::open(&config.auth, config.passwd_file());
    tell("users", users.map(|auth| auth.describe().join(", ")))?;
    for what in config.auth.missing_databases() {
        tell("users", Err(anyhow::anyhow!(what)))?;
    }
    if let Ok(account) = Account::of(&config.node.root)
        && !account.is_this()
    {
        let (own, name) = (rustix::process::geteuid().as_raw(), account.name());
        let root = config.node.root.display();
        let note = format!(
            "note: this is uid {own}, and {root} belongs to {name}: try as the account that nodes run as, `runuser -u {name} -- berth config check`"
        );
        tell("account", Ok(note))?;
        for what in owners::of_users(config)? {
            tell("users", Err(anyhow::anyhow!(what)))?;
        }
    }
    for what in surroundings::lacking(config) {
        tell("host", Err(anyhow::anyhow!(what)))?;
    }
    match Tls::load(&config.tls, &config.node.root) {
        Ok(None) => tell("certificate", Ok("none: clients can't use TLS".to_owned()))?,
        Ok(Some(tls)) => {
            if tls.certificates().is_empty() {
                tell("certificate", Ok("none yet: the first node that runs gets one by ACME".to_owned()))?;
            }
            for certificate in tls.certificates() {
                tell("certificate", Ok(format!("{} and its key", certificate.files.certificate.display())))?;
            }
        }
        Err(error) => tell("certificate", Err(error))?,
    }
    if wrong > 0 { bail!("a node with this configuration would not start") } else { Ok(()) }
}
