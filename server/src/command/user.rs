//! `berth user`: the users file, and what sources say of users.

mod app_password;
pub mod index;
mod probe;

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
};

use affinity::{NameRules, Root, UserName};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::{ConfigFile, table};
use crate::{
    auth::{
        PASSWORD_BYTES_MAX,
        edit::{contains, edit},
        passwd_file::{Users, ensure_reachable, user_of},
        scheme::Scheme,
    },
    config::{AuthSection, Config},
};

/// Add, list and remove users, change passwords
///
/// Running nodes see a change within some seconds. Mail is not touched.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    berth user add ada@example.org\n  \
    echo secret | berth user add bob@example.org --password-stdin\n  \
    berth user list\n  \
    berth user passwd ada@example.org --scheme SHA512-CRYPT\n  \
    berth user remove bob@example.org --file /etc/dovecot/users")]
pub struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user; asks for the password
    #[command(
        after_help = "Examples:\n  berth user add ada@example.org\n  echo secret | berth user add bob@example.org --password-stdin --scheme BLF-CRYPT"
    )]
    Add {
        /// The name, as in ada@example.org
        name: String,
        #[command(flatten)]
        password: PasswordArgs,
        #[command(flatten)]
        place: Place,
    },
    /// List the users
    #[command(after_help = "Examples:\n  berth user list\n  berth user list --json | jq -r .user")]
    List {
        #[command(flatten)]
        place: Place,
        /// One JSON object per user
        #[arg(long)]
        json: bool,
    },
    /// Change a password; asks for the new one
    #[command(
        after_help = "Examples:\n  berth user passwd ada@example.org\n  echo secret | berth user passwd ada@example.org --password-stdin"
    )]
    Passwd {
        /// The name
        name: String,
        #[command(flatten)]
        password: PasswordArgs,
        #[command(flatten)]
        place: Place,
    },
    /// Show which source knows a user, and what it says
    ///
    /// Asks the sources of the configuration in their order, as a node does at a login. With --password-stdin it also says whether that is the password.
    #[command(
        after_help = "Examples:\n  berth user test ada@example.org\n  echo secret | berth user test ada@example.org --password-stdin"
    )]
    Test {
        /// The name, as at a login
        name: String,
        /// Read a password from the first line of standard input, and check it
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        config: ConfigFile,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Passwords for single programs: several per user, each revoked by itself
    #[command(subcommand)]
    AppPassword(app_password::AppPasswordCommand),
    /// Remove a user; the mail stays
    #[command(
        after_help = "Examples:\n  berth user remove bob@example.org && berth kick bob@example.org\n  berth user remove bob@example.org --file /etc/dovecot/users"
    )]
    Remove {
        /// The name
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
struct PasswordArgs {
    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
    /// How to store it: ARGON2ID, BLF-CRYPT, SHA512-CRYPT, … [default: `auth.default_scheme`]
    #[arg(long, value_parser = scheme)]
    scheme: Option<Scheme>,
}

fn scheme(name: &str) -> Result<Scheme, String> {
    Scheme::parse(name).ok_or_else(|| format!("known are {}", Scheme::NAMES.join(", ")))
}

/// Which users file.
#[derive(Debug, Args)]
struct Place {
    /// The configuration that names the users file [env: BERTH_CONFIG] [default: /etc/berth/berth.toml]
    #[arg(long, short = 'c', value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// The users file itself
    #[arg(long, short = 'f', value_name = "FILE")]
    file: Option<PathBuf>,
}

/// A users file and how to read it.
struct Found {
    file: PathBuf,
    rules: NameRules,
    scheme: Scheme,
}

impl Place {
    fn find(&self) -> anyhow::Result<Found> {
        let (file, auth) = match &self.file {
            Some(file) => (file.clone(), AuthSection::default()),
            None => {
                let config = ConfigFile::or_default(self.config.as_ref()).load()?;
                let file = config.passwd_file();
                ensure_mounted(&config)?;
                (file, config.auth)
            }
        };
        let scheme = Scheme::parse(&auth.default_scheme).context("`auth.default_scheme` is not supported")?;
        Ok(Found { file, rules: auth.names, scheme })
    }
}

/// A users file in the shared directory must not be made in an empty mount point.
fn ensure_mounted(config: &Config) -> anyhow::Result<()> {
    if config.passwd_file().starts_with(&config.node.root) {
        Root::open(&config.node.root, config.node.cluster_id.as_deref())?;
    }
    Ok(())
}

pub(super) fn run(args: &UserArgs) -> anyhow::Result<()> {
    match &args.command {
        UserCommand::Add { name, password, place } => {
            let found = place.find()?;
            let user = named(name, &found.rules)?;
            ensure_reachable(&user, &found.rules).map_err(anyhow::Error::msg)?;
            if contains(&found.file, &found.rules, &user)? {
                bail!("{user} is there already: `berth user passwd {user}` changes the password");
            }
            let stored = password.hash(&found)?;
            edit(&found.file, &found.rules, |lines| lines.add(&user, &stored))?;
            tell(format_args!("{user} added to {}", found.file.display()))
        }
        UserCommand::Passwd { name, password, place } => {
            let found = place.find()?;
            let user = named(name, &found.rules)?;
            if !contains(&found.file, &found.rules, &user)? {
                bail!("no user {user}: `berth user list` shows all, `berth user add {user}` makes it");
            }
            let stored = password.hash(&found)?;
            edit(&found.file, &found.rules, |lines| lines.set_password(&user, &stored))?;
            tell(format_args!("password of {user} changed in {}", found.file.display()))
        }
        UserCommand::Remove { name, place } => {
            let found = place.find()?;
            let user = named(name, &found.rules)?;
            edit(&found.file, &found.rules, |lines| lines.remove(&user))?;
            tell(format_args!("{user} removed from {}; the mail stays", found.file.display()))
        }
        UserCommand::List { place, json } => list(&place.find()?, *json),
        UserCommand::Test { name, password_stdin, config, json } => {
            let password = if *password_stdin { Some(first_line(io::stdin().lock())?) } else { None };
            probe::run(&config.load()?, name, password.as_deref(), *json)
        }
        UserCommand::AppPassword(command) => app_password::run(command),
    }
}

fn named(name: &str, rules: &NameRules) -> anyhow::Result<UserName> {
    if let Some(c) = name.chars().find(|c| [':', '#'].contains(c)) {
        // In a users file a name ends at `:`: what is before it is another user.
        bail!("{name:?} can't be in a users file: it holds `{c}`; nothing was changed");
    }
    user_of(name, rules).map_err(anyhow::Error::msg)
}

fn tell(line: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout().lock(), "{line}")?)
}

fn list(found: &Found, json: bool) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&found.file).with_context(|| format!("can't read the users file {}", found.file.display()))?;
    let (users, bad) = Users::parse(&text, &found.rules, found.scheme);
    let mut entries: Vec<_> = users.iter().collect();
    entries.sort_by(|a, b| a.user.cmp(&b.user));

    let mut out = io::stdout().lock();
    if json {
        for entry in entries {
            let login = entry.password.is_some() && entry.record.disabled.is_none();
            writeln!(out, "{}", serde_json::json!({ "user": entry.user, "login": login, "master": entry.record.is_master }))?;
        }
    } else {
        let note = |entry: &crate::auth::passwd_file::Entry| match (&entry.record.disabled, &entry.password) {
            (Some(reason), _) => format!("can't log in: {reason}"),
            (None, None) => "can't log in: no password that can be used".to_owned(),
            (None, Some(_)) if entry.record.is_master => "master user".to_owned(),
            (None, Some(_)) => String::new(),
        };
        let rows: Vec<Vec<String>> = entries.iter().map(|entry| vec![entry.user.to_string(), note(entry)]).collect();
        table::print(&mut out, &["USER", "NOTE"], &rows)?;
    }
    for line in bad {
        eprintln!("{}, line {}: {}", found.file.display(), line.number, line.why);
    }
    Ok(())
}

impl PasswordArgs {
    fn hash(&self, found: &Found) -> anyhow::Result<String> {
        let scheme = self.scheme.unwrap_or(found.scheme);
        let password = if self.password_stdin { first_line(io::stdin().lock())? } else { ask()? };
        check(&password)?;
        Ok(scheme.hash(password.as_bytes())?)
    }
}

fn ask() -> anyhow::Result<String> {
    if !io::stdin().is_terminal() {
        bail!("no terminal to ask for the password: use --password-stdin");
    }
    let password = rpassword::prompt_password("Password: ")?;
    if rpassword::prompt_password("Again: ")? != password {
        bail!("the passwords differ: nothing was changed");
    }
    Ok(password)
}

fn first_line(input: impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    // One byte more than allowed is enough to refuse it.
    let limit = u64::try_from(PASSWORD_BYTES_MAX + 2).unwrap_or(u64::MAX);
    io::Read::take(input, limit).read_line(&mut line).context("can't read the password from standard input")?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

fn check(password: &str) -> anyhow::Result<()> {
    if password.is_empty() {
        bail!("the password is empty: nothing was changed");
    }
    if password.len() > PASSWORD_BYTES_MAX {
        bail!("the password is longer than {PASSWORD_BYTES_MAX} bytes: nothing was changed");
    }
    if password.contains('\0') {
        bail!("the password holds NUL: nothing was changed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::scheme::StoredPassword;

    #[test]
    fn the_password_is_the_first_line_of_standard_input() {
        assert_eq!(first_line(&b"sec ret\nmore\n"[..]).unwrap(), "sec ret");
        assert_eq!(first_line(&b"secret\r\n"[..]).unwrap(), "secret");
        assert_eq!(first_line(&b"secret"[..]).unwrap(), "secret");
        assert!(first_line(&[0xff, 0xfe][..]).is_err());
    }

    #[test]
    fn passwords_nobody_could_log_in_with_are_refused() {
        assert!(check("").is_err());
        assert!(check("a\0b").is_err());
        assert!(check(&"x".repeat(PASSWORD_BYTES_MAX + 1)).is_err());
        let long = first_line("x".repeat(PASSWORD_BYTES_MAX * 2).as_bytes()).unwrap();
        assert!(check(&long).is_err());
        check(&"x".repeat(PASSWORD_BYTES_MAX)).unwrap();
    }

    #[test]
    fn a_name_with_a_colon_is_not_the_user_before_it() {
        for name in ["bob@example.org:x", "carl:", ":x", "a#b"] {
            assert!(named(name, &NameRules::default()).unwrap_err().to_string().contains("can't be in a users file"), "{name}");
        }
    }

    #[test]
    fn an_added_user_can_log_in() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { config: None, file: Some(folder.path().join("users")) };
        let found = place.find().unwrap();
        let user = named("Ada@Example.org", &found.rules).unwrap();
        let stored = found.scheme.hash(b"secret").unwrap();
        edit(&found.file, &found.rules, |lines| lines.add(&user, &stored)).unwrap();
        let text = std::fs::read_to_string(&found.file).unwrap();
        let (users, bad) = Users::parse(&text, &found.rules, found.scheme);
        assert_eq!(bad, []);
        let entry = users.get(&user).unwrap();
        assert_eq!(entry.password.as_ref().map(|stored| stored.verify(b"secret")), Some(Ok(true)));
        assert!(StoredPassword::parse(&stored, Scheme::Plain).is_ok());
    }
}
