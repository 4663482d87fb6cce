//! What a node may touch of the file system and ask of the kernel, enforced by the kernel (Landlock, Linux 5.13 and later; seccomp): what a hole in
//! this program could be used for. `calls.rs` has the system calls that are refused.
//!
//! - `node.sandbox` says whether; it is entered by the first thread, before all others, and can't be left
//! - reading: the host's configuration and libraries, and the folders of the files that the settings name
//! - writing: the shared directory, `node.local_dir`, `cache.dir`, the folders of socket files, what comes before the first `{` of the settings of `[mail]`, and `node.sandbox_paths`
//! - programs: none, which is why `quota.warning_command` doesn't go with it
//!
//! Invariants, each with the test that guards it:
//! - a path outside can't be opened, and no program be run (`a_node_in_its_sandbox_can_open_nothing_outside`)
//! - a node in it serves (`a_node_in_its_sandbox_serves_mail_and_reloads`)
//! - system calls that no mail server makes fail (`a_refused_call_fails_and_others_go_on`)
//!
//! Network connections are not restricted: users may be asked for in databases anywhere.
//! Landlock holds for the first thread and those that it starts, not for the threads that the allocator started before; those run its code only. What
//! seccomp refuses, it refuses to all.

mod calls;

use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, path_beneath_rules,
};
use serde::{Deserialize, Serialize};

use crate::{
    config::{Address, Config},
    tls,
};

/// What the kernel is asked for: with this, also cutting files short and device calls are covered. An older kernel gives what it has.
const WANTED: ABI = ABI::V5;
/// What any program on the host needs to read: libraries, names of hosts and users, time zones, certificate authorities, facts about the machine.
const HOST: [&str; 8] = ["/etc", "/usr", "/lib", "/lib64", "/nix/store", "/proc", "/sys", "/run"];
/// Devices without effect.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];

/// `node.sandbox`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sandbox {
    /// None.
    #[default]
    Off,
    /// As much as the kernel offers; the log says how much.
    Auto,
    /// Refuse to start where the kernel does not offer all of it.
    Required,
}

/// What may be touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Files and folders below these are made, changed and removed.
    pub write: Vec<PathBuf>,
    /// Those below these are read.
    pub read: Vec<PathBuf>,
}

/// Set once the process is inside.
static INSIDE: OnceLock<Places> = OnceLock::new();

impl Places {
    /// What the settings need.
    pub fn of(config: &Config, config_file: &Path) -> Places {
        let mut write = vec![config.node.root.clone(), config.node.local_dir.clone()];
        write.extend(config.cache.dir.clone());
        let mail = &config.mail;
        let templates = [Some(&mail.maildir), Some(&mail.index), mail.inbox.as_ref()];
        write.extend(templates.into_iter().flatten().map(|template| config.node.root.join(before_the_user(template))));
        write.extend(config.node.sandbox_paths.clone());
        // Socket files come and go with the node.
        let sockets = config.listen.lmtp.iter().chain(&config.listen.sent).filter_map(Address::folder);
        write.extend(sockets.map(Path::to_owned));
        // A weak password is stored anew by a new file beside the old one.
        if config.auth.upgrade_weak {
            write.extend(config.users_files().iter().filter_map(|file| file.parent().map(Path::to_owned)));
        }
        let mut read: Vec<PathBuf> = HOST.map(PathBuf::from).to_vec();
        read.extend(mail.control.iter().map(|template| config.node.root.join(before_the_user(template))));
        let files =
            tls::files(&config.tls).into_iter().chain(config.auth.files()).chain(config.users_files()).chain([config_file.to_owned()]);
        for file in files {
            // Tools replace files, and certificate tools link to them: the folders of both.
            let really = file.canonicalize().ok();
            read.extend([Some(file), really].into_iter().flatten().filter_map(|file| file.parent().map(Path::to_owned)));
        }
        Places { write, read }
    }

    /// Whether a path is below one that may be written.
    fn has(&self, path: &Path) -> bool {
        self.write.iter().any(|place| path.starts_with(place))
    }
}

/// Whether mail may lie at `path`: everything may where there is no sandbox.
pub fn permits(path: &Path) -> bool {
    INSIDE.get().is_none_or(|places| places.has(path))
}

/// Enters the sandbox that the settings ask for. To be called while there is one thread: the others inherit it.
pub fn enter(config: &Config, config_file: &Path) -> anyhow::Result<()> {
    let required = match config.node.sandbox {
        Sandbox::Off => return Ok(()),
        Sandbox::Auto => false,
        Sandbox::Required => true,
    };
    let places = Places::of(config, config_file);
    std::fs::create_dir_all(&config.node.local_dir).ok();
    // What does not exist can't be permitted. Whoever needs it says why it could not be made.
    if let Some(dir) = &config.cache.dir {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).ok();
    }
    // First: it takes no rights to change what a thread may call, but Landlock sets the flag that this needs as well.
    match calls::refuse() {
        Ok(()) => tracing::info!("in its sandbox: system calls that no mail server makes are refused"),
        Err(error) if required => anyhow::bail!("node.sandbox is \"required\": {error:#}; \"auto\" takes what there is"),
        Err(error) => tracing::warn!(error = format!("{error:#}"), "in a sandbox with holes: no system call is refused"),
    }
    match restrict(&places)? {
        RulesetStatus::FullyEnforced => {
            tracing::info!(write = ?places.write, "in its sandbox: nothing else can be written, no program run")
        }
        status if required => anyhow::bail!(
            "node.sandbox is \"required\", but this kernel's Landlock gives no full one ({status:?}): it takes Linux 6.10 with `landlock` among its \
             security modules (/sys/kernel/security/lsm); \"auto\" takes what there is"
        ),
        RulesetStatus::PartiallyEnforced => {
            tracing::warn!("in a sandbox with holes: this kernel's Landlock is older than that of Linux 6.10");
        }
        RulesetStatus::NotEnforced => {
            tracing::warn!("no sandbox: this kernel has no Landlock, or it is not among its security modules");
            return Ok(());
        }
    }
    INSIDE.set(places).ok();
    Ok(())
}

fn restrict(places: &Places) -> Result<RulesetStatus, landlock::RulesetError> {
    let all = AccessFs::from_all(WANTED);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write: BitFlags<AccessFs> = all & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    // Paths that don't exist are left out: whoever needs them says so.
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .create()?
        .add_rules(path_beneath_rules(&places.write, write))?
        .add_rules(path_beneath_rules(&places.read, read))?
        .add_rules(path_beneath_rules(DEVICES, AccessFs::ReadFile | AccessFs::WriteFile))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// The folder that a template names before it depends on the user.
fn before_the_user(template: &str) -> &Path {
    let (before, _) = template.split_once('{').unwrap_or((template, ""));
    let whole = Path::new(before);
    if before.ends_with('/') || before.len() == template.len() { whole } else { whole.parent().unwrap_or(whole) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_names_the_folder_above_all_users() {
        for (template, folder) in [
            ("mail/{domain}/{local}/Maildir", "mail/"),
            ("/var/mail/{user}", "/var/mail"),
            ("/var/vmail-{domain}/{user}", "/var"),
            ("/srv/mail", "/srv/mail"),
            ("{user}", ""),
        ] {
            assert_eq!(before_the_user(template), Path::new(folder), "{template}");
        }
    }

    #[test]
    fn the_places_are_what_the_settings_name() {
        let text = "[node]\nroot = \"/srv/berth\"\nlocal_dir = \"/var/lib/berth\"\nname = \"a\"\nsandbox = \"required\"\nsandbox_paths = [\"/more\"]\n\
                    [mail]\nindex = \"/fast/{user}\"\n[tls]\ncertificate = \"/certificates/a.pem\"\nkey = \"/keys/a.pem\"\n\
                    [[tls.sni]]\ncertificate = \"/more-certificates/b.pem\"\nkey = \"/keys/b.pem\"\n\
                    [listen]\nlmtp = [\"unix:/sockets/lmtp\"]\n[cache]\ndir = \"/fast-disk/berth\"\n";
        let config = Config::parse(text, Path::new("berth.toml")).unwrap();
        let places = Places::of(&config, Path::new("/settings/berth.toml"));
        for path in
            ["/srv/berth/mail/x", "/var/lib/berth/control.sock", "/fast/ada/index.db", "/more/x", "/sockets/lmtp", "/fast-disk/berth/lock"]
        {
            assert!(places.has(Path::new(path)), "{path}");
        }
        for path in ["/srv/other", "/home/ada/Maildir", "/certificates/a.pem"] {
            assert!(!places.has(Path::new(path)), "{path}");
        }
        for folder in ["/certificates", "/more-certificates", "/keys", "/settings", "/srv/berth"] {
            assert!(places.read.contains(&PathBuf::from(folder)), "{folder} in {:?}", places.read);
        }
    }
}
