//! The operator's command line: each subcommand is one file, which reads its arguments, does one thing and prints it.
//!
//! Exit codes: 0 done, 1 an error (said on standard error as `berth: …`, each cause on a line of its own), 2 wrong usage, 78 where another host has the node's name.
//! What a program may want to read goes to standard output, as text or with `--json`; everything else to standard error.

mod adopt;
pub mod cluster;
mod config;
pub mod control;
pub mod demo;
mod directory;
pub mod doctor;
mod init;
pub mod leases;
mod manual;
pub mod moves;
pub mod operate;
pub mod place;
mod quota;
pub mod serve;
mod table;
mod transfer;
mod user;
pub mod users;
pub mod wishes;

use std::{ffi::OsString, io, path::PathBuf, process::ExitCode, time::Duration};

use affinity::AffinityError;
use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};

use crate::config::{Config, DEFAULT_FILE, LogSection};

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "berth",
    version,
    about = "Mail server for IMAP, POP3 and LMTP whose identical nodes share one mail store",
    long_about = "Mail server for IMAP, POP3 and LMTP. Identical nodes keep Maildirs and indexes on one shared file system; \
                  every node takes every connection and forwards it to the node that works on the user's mail.",
    after_help = "Examples:\n  \
        berth demo                              try it: three nodes on this host, nothing to set up\n  \
        berth init /srv/berth                   make the shared directory a cluster, once\n  \
        berth config show --default > /etc/berth/berth.toml\n  \
        berth user add ada@example.org\n  \
        berth serve                             run a node; the same on every host\n  \
        berth who                               who is served where\n\n\
        `berth help COMMAND` tells more about each.",
    propagate_version = true,
    disable_help_subcommand = false,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Init(init::InitArgs),
    Serve(serve::ServeArgs),
    User(user::UserArgs),
    Adopt(adopt::AdoptArgs),
    ReleaseTo(adopt::ReleaseArgs),
    Nodes(cluster::NodesArgs),
    Who(cluster::WhoArgs),
    Where(users::WhereArgs),
    Move(users::MoveArgs),
    Kick(users::KickArgs),
    Quota(quota::QuotaArgs),
    Import(transfer::ImportArgs),
    Export(transfer::ExportArgs),
    Drain(operate::DrainArgs),
    Undrain(operate::UndrainArgs),
    Weight(operate::WeightArgs),
    Pin(wishes::PinArgs),
    Unpin(wishes::UnpinArgs),
    Tag(wishes::TagArgs),
    Fence(operate::FenceArgs),
    Rebalance(moves::rebalance::RebalanceArgs),
    Leases(leases::LeasesArgs),
    Doctor(doctor::DoctorArgs),
    Tls(config::tls::TlsArgs),
    Index(user::index::IndexArgs),
    Config(config::ConfigArgs),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
}

/// `--config FILE`
#[derive(Debug, Clone, Args)]
pub struct ConfigFile {
    /// The configuration file
    #[arg(long = "config", short = 'c', value_name = "FILE", env = "BERTH_CONFIG", default_value = DEFAULT_FILE)]
    pub config: PathBuf,
}

impl ConfigFile {
    /// What `--config` gave where it may be left out; clap's own `env` would count as given, and then exclude other options.
    fn or_default(given: Option<&PathBuf>) -> ConfigFile {
        let from_environment = || std::env::var_os("BERTH_CONFIG").map(PathBuf::from);
        let config = given.cloned().or_else(from_environment).unwrap_or_else(|| DEFAULT_FILE.into());
        ConfigFile { config }
    }

    /// Reads and checks it.
    pub fn load(&self) -> anyhow::Result<Config> {
        Config::load(&self.config)
    }
}

/// Runs what `arguments` (the program's name first) ask for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(usage) => {
            // Help goes to standard output with code 0, wrong usage to standard error with code 2; a closed pipe is nobody's error.
            drop(usage.print());
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<clap::Error>() {
            Some(usage) => {
                drop(usage.print());
                ExitCode::from(2)
            }
            None => {
                eprint!("{}", said(&error));
                exit_code(&error)
            }
        },
    }
}

/// What supervisors go by: a node whose name another host has is not to be started again (docs/install.md); `EX_CONFIG` of sysexits.h.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let name_is_taken = matches!(error.downcast_ref::<AffinityError>(), Some(AffinityError::NameTaken { .. }));
    if name_is_taken { ExitCode::from(78) } else { ExitCode::FAILURE }
}

/// Wrong usage of a command that clap can't tell.
fn usage(command: &str, why: &str) -> anyhow::Error {
    let mut cli = Cli::command();
    cli.build();
    let mut fallback = cli.clone();
    cli.find_subcommand_mut(command).unwrap_or(&mut fallback).error(ErrorKind::MissingRequiredArgument, why).into()
}

impl Command {
    fn run(self) -> anyhow::Result<()> {
        if !matches!(self, Command::Serve(_) | Command::Demo(_)) {
            // What a short command warns of, such as a bad line in the users file; nodes log as they are configured.
            crate::log::init(&LogSection { level: "warn".to_owned(), json: false })?;
        }
        match self {
            Command::Demo(args) => demo::run(args),
            Command::Init(args) => init::run(&args),
            Command::Serve(args) => serve::run(&args),
            Command::User(args) => user::run(&args),
            Command::Adopt(args) => adopt::adopt(&args),
            Command::ReleaseTo(args) => adopt::release(&args),
            Command::Nodes(args) => cluster::nodes(&args),
            Command::Who(args) => cluster::who(&args),
            Command::Where(args) => users::whereabouts(&args),
            Command::Move(args) => users::move_users(&args),
            Command::Kick(args) => users::kick(&args),
            Command::Quota(args) => quota::run(&args),
            Command::Import(args) => transfer::import(&args),
            Command::Export(args) => transfer::export(&args),
            Command::Drain(args) => operate::drain(&args),
            Command::Undrain(args) => operate::undrain(&args),
            Command::Weight(args) => operate::weight(&args),
            Command::Pin(args) => wishes::pin(&args),
            Command::Unpin(args) => wishes::unpin(&args),
            Command::Tag(args) => wishes::tag(&args),
            Command::Fence(args) => operate::fence(&args),
            Command::Rebalance(args) => moves::rebalance::run(&args),
            Command::Leases(args) => leases::run(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Tls(args) => config::tls::run(&args),
            Command::Index(args) => user::index::run(&args),
            Command::Config(args) => config::run(&args),
            Command::Completions(args) => manual::completions(&args),
            Command::Man(args) => manual::man(&args),
        }
    }
}

/// The asynchronous runtime of a long-running command.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("berth").build()
}

/// A duration as `--json` has it: seconds, to the millisecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// How many of something, as in "1 user", "2 users" and "2 mailboxes".
fn many(count: usize, one: &str) -> String {
    let ending = if one.ends_with('x') { "es" } else { "s" };
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}{ending}") }
}

/// Whoever read our output has enough, as in `berth who | head`.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// `berth: …`, then each cause that says something new on its own line.
fn said(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let this = cause.to_string();
        // Some errors quote their cause in their own text.
        if !text.contains(this.trim_end()) {
            text.push_str(if text.is_empty() { "berth: " } else { "  because: " });
            text.push_str(this.trim_end());
            text.push('\n');
        }
    }
    let is_denied = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    if error.chain().any(is_denied) {
        let uid = rustix::process::geteuid().as_raw();
        text.push_str(&format!(
            "  this runs as uid {uid}: what belongs to the nodes takes their account, as in `runuser -u berth -- berth …`\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_in_the_help_is_understood() {
        for line in [
            "berth demo",
            "berth demo --nodes 2 --users 3",
            "berth init /srv/berth",
            "berth init /srv/berth --beat 500ms --self-limit 3s --dead-after 5s",
            "berth serve",
            "berth serve --config /tmp/berth.toml",
            "berth user add ada@example.org",
            "berth user add ada --file /tmp/users --password-stdin --scheme SHA512-CRYPT",
            "berth user list --config /tmp/berth.toml",
            "berth user passwd ada",
            "berth user test ada@example.org --json",
            "berth user test ada --password-stdin",
            "berth user app-password add ada --protocols imap,pop3 --label phone",
            "berth user app-password list ada --json",
            "berth user app-password revoke ada 1",
            "berth user remove ada --file /tmp/users",
            "berth nodes --json",
            "berth nodes --root /srv/berth",
            "berth who",
            "berth who ada --root /srv/berth --json",
            "berth adopt --all --dry-run",
            "berth adopt --all --dry-run --json",
            "berth adopt ada@example.org --config /tmp/berth.toml",
            "berth release-to dovecot ada",
            "berth who --node mail2 --protocol imap",
            "berth where ada@example.org",
            "berth move ada@example.org mail2",
            "berth kick ada@example.org",
            "berth kick --ip 192.0.2.7 --why maintenance",
            "berth kick --node mail2",
            "berth quota ada@example.org",
            "berth import ada@example.org --from /home/ada/Maildir --dry-run",
            "berth import ada --from old.mbox --mailbox Archive/Old --mbox cl2",
            "berth export ada@example.org --to /backup/ada",
            "berth export ada --to - --mailbox Archive/*",
            "berth quota --all --json",
            "berth quota recalc ada@example.org",
            "berth drain mail2",
            "berth drain mail2 --no-wait",
            "berth undrain mail2",
            "berth weight mail2 50",
            "berth weight mail2 50 --force",
            "berth fence mail2 --yes",
            "berth rebalance --dry-run",
            "berth rebalance --idle --limit 10 --parallel 4 --json",
            "berth move ada bob carol mail2",
            "berth move --from mail1 mail2",
            "berth pin",
            "berth pin ada mail2 --now",
            "berth unpin ada",
            "berth tag --json",
            "berth tag mail2",
            "berth tag mail2 add eu fast",
            "berth tag mail2 remove eu",
            "berth leases check",
            "berth doctor --root /srv/berth --json",
            "berth tls show --json",
            "berth tls show --config /tmp/berth.toml",
            "berth index check ada@example.org",
            "berth index rebuild ada --json",
            "berth config check",
            "berth config show --default",
            "berth completions bash",
            "berth man /tmp",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn wrong_usage_has_code_2_and_help_has_code_0() {
        for (line, code) in [
            ("berth", 2),
            ("berth serv", 2),
            ("berth user add", 2),
            ("berth adopt", 2),
            ("berth adopt ada --all", 2),
            ("berth release-to cyrus ada", 2),
            ("berth user add ada --file a --config b", 2),
            ("berth who --root /a --config /b", 2),
            ("berth index check", 2),
            ("berth quota", 2),
            ("berth import ada", 2),
            ("berth export ada", 2),
            ("berth export ada --to x --format eml", 2),
            ("berth quota ada --all", 2),
            ("berth quota recalc", 2),
            ("berth rebalance --parallel 0", 2),
            ("berth move", 2),
            ("berth pin ada", 2),
            ("berth pin --now", 2),
            ("berth tag mail2 add", 2),
            ("berth tag mail2 add e,u", 2),
            ("berth tag mail2 rename eu", 2),
            ("berth move ada mail2 --root /srv/berth", 2),
            ("berth kick ada --root /srv/berth", 2),
            ("berth quota --all --root /srv/berth", 2),
            ("berth import ada --from x --root /srv/berth", 2),
            ("berth export ada --to x --root /srv/berth", 2),
            ("berth index check ada --root /srv/berth", 2),
            ("berth weight mail2 10001", 2),
            ("berth who --protocol lmtp", 2),
            ("berth demo --nodes 0", 2),
            ("berth init /srv --beat soon", 2),
            ("berth user add ada --scheme ROT13", 2),
            ("berth --help", 0),
            ("berth --version", 0),
            ("berth help user add", 0),
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), code, "{line}");
        }
        assert!(usage("move", "users are needed").to_string().contains("berth move"));
        assert!(parse("berth serv").unwrap_err().to_string().contains("'serve'"));
    }

    #[test]
    fn a_configuration_from_the_environment_excludes_no_option() {
        // clap counts a value from the environment as given, so these options don't have one (the variable itself is read in `or_default`).
        let cli = Cli::command();
        for command in [&["who"][..], &["nodes"], &["user", "add"]] {
            let found = command.iter().fold(&cli, |cli, name| cli.find_subcommand(name).unwrap());
            let option = found.get_arguments().find(|option| option.get_id() == "config").unwrap();
            assert_eq!(option.get_env(), None, "{command:?}");
        }
    }

    #[test]
    fn every_command_shows_an_example() {
        /// `above`: the examples of the commands that this is one of.
        fn look(command: &clap::Command, path: &str, above: &str, without: &mut Vec<String>) {
            let own = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            if !command.is_hide_set() && !command.has_subcommands() && !own.contains("berth ") && !above.contains(path) {
                without.push(path.to_owned());
            }
            for below in command.get_subcommands() {
                look(below, &format!("{path} {}", below.get_name()), &format!("{above}{own}"), without);
            }
        }
        let mut without = Vec::new();
        look(&Cli::command(), "berth", "", &mut without);
        assert_eq!(without, Vec::<String>::new());
    }

    #[test]
    fn a_node_whose_name_is_taken_is_not_to_be_started_again() {
        let holder = |incarnation: &str| format!("mail1,{incarnation}").parse().unwrap();
        let (ours, theirs) = (holder("00000000000000aa"), holder("00000000000000bb"));
        let taken: anyhow::Error = AffinityError::NameTaken { ours, theirs, at: "10.0.0.7:8143".to_owned() }.into();
        assert_eq!(exit_code(&taken), ExitCode::from(78));
        let said = said(&taken);
        assert!(said.contains("10.0.0.7:8143") && said.contains("node.name"), "{said}");
        assert_eq!(exit_code(&anyhow!("another")), ExitCode::FAILURE);
    }

    #[test]
    fn causes_have_a_line_each_and_are_not_repeated() {
        let error =
            Err::<(), _>(anyhow!("no such file")).context("can't read /etc/x").context("can't read /etc/x: no such file").unwrap_err();
        assert_eq!(said(&error), "berth: can't read /etc/x: no such file\n");
        let error = Err::<(), _>(anyhow!("no such file")).context("can't read /etc/x").unwrap_err();
        assert_eq!(said(&error), "berth: can't read /etc/x\n  because: no such file\n");
    }

    #[test]
    fn whoever_may_not_is_told_as_whom_the_nodes_run() {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let error = |kind: io::ErrorKind| said(&anyhow::Error::from(io::Error::from(kind)).context("can't reach the socket"));
        let denied = error(io::ErrorKind::PermissionDenied);
        assert!(denied.contains(&format!("as uid {uid}")) && denied.contains("runuser -u berth"), "{denied}");
        assert!(!error(io::ErrorKind::NotFound).contains("uid"));
        let path = "/srv/berth/berth.toml".into();
        let denied = AffinityError::Io { doing: "can't read", path, cause: io::ErrorKind::PermissionDenied.into() };
        assert!(said(&denied.into()).contains("runuser -u berth"));
    }

    #[test]
    fn kick_wants_to_know_whose_sessions() {
        let error = parse("berth kick").unwrap().command.run().unwrap_err();
        let said = error.downcast_ref::<clap::Error>().unwrap().to_string();
        assert!(said.contains("--ip or --node"), "{said}");
    }
}
