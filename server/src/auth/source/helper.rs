//! Passwords that a program checks: PAM by way of one, or whatever an operator has.
//!
//! The program is run for each check and reads `name NUL password NUL address NUL protocol NUL` on its standard input. It ends with 0 (right), 1 (wrong), or
//! anything else: then it can't tell, and its first line on standard error is logged. The node goes on meanwhile; what PAM modules do to a process (fork,
//! signals, memory) stays with the program.
//!
//! Invariants, each with the test that guards it:
//! - only an ending with 0 lets anybody in, only one with 1 is a wrong password (`only_zero_is_right_and_only_one_is_wrong`)
//! - a program that hangs is ended, and so many run at once (`a_program_that_hangs_is_ended`)

use std::{process::Stdio, sync::Arc, time::Duration};

use affinity::{NameRules, UserName};
use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use super::{Asker, Credential, bounded::Bounded, fixed::Fixed};
use crate::{
    auth::{record::UserRecord, scheme::Scheme},
    config::auth::{CommandSection, StaticSection},
};

/// Logins that wait for a turn, at most: each holds a connection.
const WAITING_MAX: usize = 1024;
/// How much of its complaint is kept.
const COMPLAINT_BYTES_MAX: u64 = 512;

/// A source whose passwords a program checks.
pub struct Helper {
    program: Vec<String>,
    users: Fixed,
    turns: Bounded,
    limit: Duration,
}

impl Helper {
    /// Reads the settings; nothing is run yet.
    pub fn new(section: &CommandSection, rules: &NameRules, scheme: Scheme) -> anyhow::Result<Helper> {
        if section.program.first().is_none_or(|program| !program.starts_with('/')) {
            bail!("a command source (auth.source, program): name it by its path from /, as in [\"/usr/local/lib/berth/pam\"]");
        }
        let users = StaticSection { users: section.users.clone(), password: None, fields: section.fields.clone() };
        Ok(Helper {
            program: section.program.clone(),
            users: Fixed::new(&users, rules, scheme).context("a command source")?,
            turns: Bounded::new(section.at_once.max(1), WAITING_MAX, section.timeout),
            limit: section.timeout,
        })
    }

    /// The record of `user`, if the settings name them.
    pub fn find(&self, user: &UserName) -> Option<(Arc<UserRecord>, Credential)> {
        self.users.find(user).map(|(record, _)| (record, Credential::Asked(user.as_str().to_owned())))
    }

    /// Whether this is the user's password.
    pub async fn check(&self, user: &str, password: &[u8], asker: &Asker) -> Result<bool, String> {
        if password.is_empty() || password.contains(&0) || user.contains('\0') {
            return Ok(false);
        }
        let (address, protocol) =
            asker.client.map_or_else(Default::default, |(address, protocol)| (address.to_string(), protocol.to_string()));
        let mut question = Vec::new();
        for part in [user.as_bytes(), password, address.as_bytes(), protocol.as_bytes()] {
            question.extend_from_slice(part);
            question.push(0);
        }
        let _turn = self.turns.enter().await.map_err(|busy| busy.to_string())?;
        timeout(self.limit, self.ask(&question)).await.map_err(|_| "the program took too long".to_owned())?
    }

    async fn ask(&self, question: &[u8]) -> Result<bool, String> {
        let Some((program, arguments)) = self.program.split_first() else { return Err("no program".to_owned()) };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{program} can't be run: {error}"))?;
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let tell = async {
            if let Some(mut stdin) = stdin {
                // It may end without reading all: its status says what that means.
                stdin.write_all(question).await.ok();
            }
        };
        let hear = async {
            let mut complaint = Vec::new();
            if let Some(stderr) = stderr {
                stderr.take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint).await.ok();
            }
            complaint
        };
        let (_, complaint, status) = tokio::join!(tell, hear, child.wait());
        match status.map_err(|error| format!("{program}: {error}"))?.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            code => {
                let complaint = String::from_utf8_lossy(&complaint).lines().next().unwrap_or_default().replace(char::is_control, " ");
                let how = code.map_or_else(|| "by a signal".to_owned(), |code| format!("with {code}"));
                Err(format!("{program} ended {how}: {complaint}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn helper(script: &str, timeout: Duration) -> Helper {
        let program = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let section = CommandSection { program, users: vec!["*@example.org".to_owned()], timeout, ..CommandSection::default() };
        Helper::new(&section, &NameRules::default(), Scheme::Plain).unwrap()
    }
    fn asker() -> Asker {
        let user = UserName::normalise("ada@example.org").unwrap();
        Asker { user, client: Some(("192.0.2.7".parse().unwrap(), crate::client::Protocol::Imap)) }
    }
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn only_zero_is_right_and_only_one_is_wrong() {
        let check = async |script: &str| helper(script, PATIENCE).check("ada@example.org", b"x", &asker()).await;
        assert_eq!(check("exit 0").await, Ok(true));
        assert_eq!(check("exit 1").await, Ok(false));
        assert_eq!(check("echo the database is away >&2; exit 2").await, Err("/bin/sh ended with 2: the database is away".to_owned()));
        assert!(check("kill -9 $$").await.unwrap_err().contains("by a signal"));
        let nowhere = CommandSection { program: vec!["/nowhere/x".to_owned()], users: vec!["*".to_owned()], ..CommandSection::default() };
        let nowhere = Helper::new(&nowhere, &NameRules::default(), Scheme::Plain).unwrap();
        assert!(nowhere.check("ada", b"x", &asker()).await.unwrap_err().contains("can't be run"));
    }

    #[tokio::test]
    async fn it_is_told_who_logs_in_with_what_from_where() {
        let script = "[ \"$(tr '\\000' '|')\" = 'ada@example.org|secret phrase|192.0.2.7|imap|' ] && exit 0; exit 1";
        let helper = helper(script, PATIENCE);
        assert_eq!(helper.check("ada@example.org", b"secret phrase", &asker()).await, Ok(true));
        assert_eq!(helper.check("ada@example.org", b"secret", &asker()).await, Ok(false));
        // What could be taken for another question is not asked at all.
        assert_eq!(helper.check("ada@example.org", b"a\0b", &asker()).await, Ok(false));
        assert_eq!(helper.check("ada@example.org", b"", &asker()).await, Ok(false));
        assert!(helper.find(&UserName::normalise("bob@example.org").unwrap()).is_some());
        assert!(helper.find(&UserName::normalise("bob@example.net").unwrap()).is_none());
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_ended() {
        let helper = helper("exec sleep 600", Duration::from_millis(100));
        let error = helper.check("ada@example.org", b"x", &asker()).await.unwrap_err();
        assert_eq!(error, "the program took too long");
        assert_eq!(helper.turns.free(), 4, "its turn is free again");
    }

    #[test]
    fn a_program_is_named_by_its_path() {
        for program in [vec![], vec!["pam".to_owned()]] {
            let section = CommandSection { program, ..CommandSection::default() };
            assert!(Helper::new(&section, &NameRules::default(), Scheme::Plain).is_err());
        }
    }
}
