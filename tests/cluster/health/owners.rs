//! Operators work as root, nodes as an account of their own: what the one makes the other can use, and where not, that is said.

use std::{
    fs::{self, File},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use tests::{
    Context, Result, berth,
    clients::imap::Imap,
    ensure, packages,
    peers::{free_port, write},
    process::{self, Guarded},
    wait,
};

/// The account of the nodes: nobody's on any host.
const ACCOUNT: u32 = 4242;
const START_LIMIT: Duration = Duration::from_secs(60);

struct Site {
    folder: PathBuf,
    binary: PathBuf,
}

impl Site {
    fn config(&self, node: &str) -> String {
        self.folder.join(format!("{node}.toml")).display().to_string()
    }

    /// A command line of root.
    fn as_root(&self, arguments: &[&str]) -> Result<String> {
        let config = self.config("a");
        let mut all = arguments.to_vec();
        all.extend(["--config", &config]);
        berth::run_ok(&all)
    }

    fn refused(&self, arguments: &[&str]) -> Result<String> {
        Ok(format!("{:#}", self.as_root(arguments).err().with_context(|| format!("{arguments:?} worked"))?))
    }

    fn as_nodes(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).uid(ACCOUNT).gid(ACCOUNT).current_dir("/").env_remove("BERTH_CONFIG");
        command
    }

    /// A node of its own account; where it takes IMAP.
    fn start(&self, node: &str) -> Result<(Guarded, String)> {
        let [imap, relay] = [free_port()?, free_port()?];
        let local = self.folder.join(format!("local-{node}"));
        fs::create_dir(&local)?;
        chown(&local, Some(ACCOUNT), Some(ACCOUNT))?;
        write(
            Path::new(&self.config(node)),
            &format!(
                "[node]\nname = \"{node}\"\nroot = \"{}\"\nlocal_dir = \"{}\"\n[listen]\nimap = [\"127.0.0.1:{imap}\"]\nimaps = []\n\
                 pop3 = []\npop3s = []\nlmtp = []\nrelay = \"127.0.0.1:{relay}\"\n",
                self.folder.join("shared").display(),
                local.display()
            ),
        )?;
        fs::set_permissions(self.config(node), fs::Permissions::from_mode(0o644))?;
        let log = File::create(self.folder.join(format!("{node}.log")))?;
        let config = self.config(node);
        let mut command = self.as_nodes(&["serve", "--config", &config]);
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = Guarded::start(node, &mut command)?;
        Ok((started, format!("127.0.0.1:{imap}")))
    }
}

#[test]
fn what_root_sets_is_followed_by_nodes_of_another_account() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        packages::say_skipped("what_root_sets_is_followed_by_nodes_of_another_account", "only root can start nodes as another account");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let binary = folder.path().join("berth");
    // The folder of the build may be closed to others.
    fs::hard_link(berth::binary()?, &binary).or_else(|_| fs::copy(berth::binary()?, &binary).map(drop).map_err(tests::Report::from))?;
    let site = Site { folder: folder.path().to_owned(), binary };
    let root = folder.path().join("shared");
    fs::create_dir(&root)?;
    chown(&root, Some(ACCOUNT), Some(ACCOUNT))?;
    berth::run_ok(&["init", root.to_str().context("path")?])?;
    let users = root.join("users");
    let mut add =
        berth::command(&["user", "add", "ada", "--password-stdin", "--scheme", "SHA512-CRYPT", "--file", users.to_str().context("path")?])?;
    let secret = folder.path().join("secret");
    write(&secret, "secret\n")?;
    ensure!(add.stdin(File::open(&secret)?).status()?.success());
    ensure!(fs::metadata(&users)?.uid() == ACCOUNT, "the users file is not the nodes'");

    let (_a, imap) = site.start("a")?;
    let (_b, _) = site.start("b")?;
    let logs = || ["a", "b"].map(|node| process::tail(&folder.path().join(format!("{node}.log")), 20)).join("\n");
    wait::until("both nodes", START_LIMIT, || {
        let said: Value = serde_json::from_str(&site.as_root(&["nodes", "--json"])?)?;
        ensure!(
            said["nodes"].as_array().is_some_and(|nodes| nodes.len() == 2 && nodes.iter().all(|node| node["state"] == "up")),
            "{said}\n{}",
            logs()
        );
        Ok(())
    })?;
    site.as_root(&["weight", "b", "50"])?;
    site.as_root(&["pin", "ada", "a"])?;
    site.as_root(&["drain", "b"]).with_context(logs)?;
    site.as_root(&["undrain", "b"])?;
    for name in ["settings/b", "settings/users"] {
        ensure!(fs::metadata(root.join(name))?.uid() == ACCOUNT, "{name} is not the nodes'");
    }
    let config = site.config("a");
    process::run_ok(&mut site.as_nodes(&["nodes", "--config", &config]), START_LIMIT)?;
    let made: Value = serde_json::from_str(&site.as_root(&["user", "app-password", "add", "ada", "--json"])?)?;
    let password = made["password"].as_str().with_context(|| made.to_string())?.to_owned();
    Imap::login(&imap, "ada", &password).with_context(logs)?.logout()?;
    ensure!(site.as_root(&["doctor", "--json"])?.contains("\"owners (shared directory)\""));

    // As an older build, or a restored backup, may have left it.
    chown(root.join("settings/b"), Some(0), Some(0))?;
    fs::set_permissions(root.join("settings/b"), fs::Permissions::from_mode(0o750))?;
    let said = site.refused(&["drain", "b"])?;
    ensure!(said.contains("no node could read it"), "{said}");
    let said = site.refused(&["doctor"])?;
    ensure!(said.contains("settings/b belongs to uid 0") && said.contains("chown"), "{said}");
    wait::until("the log", START_LIMIT, || {
        ensure!(logs().contains("settings/b: Permission denied"), "{}", logs());
        Ok(())
    })?;

    // A good password is never called wrong because a file can't be read.
    chown(root.join("app-passwords"), Some(0), Some(0))?;
    fs::set_permissions(root.join("app-passwords"), fs::Permissions::from_mode(0o600))?;
    let other: Value = serde_json::from_str(&site.as_root(&["user", "app-password", "add", "ada", "--json"])?)?;
    let other = other["password"].as_str().context("no password")?.to_owned();
    wait::until("UNAVAILABLE", START_LIMIT, || {
        let mut client = Imap::connect(&imap)?;
        let reply = format!("{:?}", client.command(&format!("LOGIN ada {other}"))?);
        ensure!(reply.contains("UNAVAILABLE"), "{reply}\n{}", logs());
        Ok(())
    })
}
