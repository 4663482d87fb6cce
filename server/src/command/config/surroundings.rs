//! What a configuration takes for granted on its host: a local folder, programs.

use std::{
    env, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

use crate::config::{Config, auth::SourceSection};

/// What is not there, or can't be used by whoever runs this, each with what to do.
pub fn lacking(config: &Config) -> Vec<String> {
    let mut wrong: Vec<String> = folder("node.local_dir", &config.node.local_dir).into_iter().collect();
    wrong.extend(config.quota.warning_command.first().and_then(|name| program("quota.warning_command", name)));
    for source in &config.auth.source {
        if let SourceSection::Command(command) = source {
            wrong.extend(command.program.first().and_then(|name| program("program of a command source", name)));
        }
    }
    wrong
}

/// A folder that is made where it is missing.
fn folder(setting: &str, path: &Path) -> Option<String> {
    let there = path.ancestors().find(|path| path.symlink_metadata().is_ok())?;
    match fs::metadata(there) {
        Ok(metadata) if !metadata.is_dir() => {
            return Some(format!("{setting}: {} can't be made, since {} is no folder", path.display(), there.display()));
        }
        Ok(_) => {}
        Err(error) => return Some(format!("{setting}: can't look at {}: {error}", there.display())),
    }
    let error = access(there, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from).err()?;
    Some(if there == path {
        format!("{setting}: {} can't be written: {error}", path.display())
    } else {
        format!(
            "{setting}: {} can't be made in {}: {error}; make it as root: `install -d -o ACCOUNT -m 700 {}`",
            path.display(),
            there.display(),
            path.display()
        )
    })
}

/// A program, by its path or by its name.
fn program(setting: &str, name: &str) -> Option<String> {
    let candidates: Vec<PathBuf> = if name.contains('/') {
        vec![PathBuf::from(name)]
    } else {
        env::var_os("PATH").iter().flat_map(env::split_paths).map(|folder| folder.join(name)).collect()
    };
    let is_program = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    if candidates.iter().any(is_program) {
        return None;
    }
    let found = if candidates.iter().any(|path| path.exists()) { "can't be run: is it executable?" } else { "is not there" };
    Some(format!("{setting}: {name} {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_on_the_host_is_named() {
        let place = tempfile::tempdir().unwrap();
        let mut config = Config::new(Path::new("/srv/berth"));
        config.node.local_dir = place.path().join("var/lib/berth");
        config.quota.warning_command = vec!["sh".to_owned()];
        assert_eq!(lacking(&config), Vec::<String>::new());
        fs::write(place.path().join("var"), "").unwrap();
        for missing in ["/nonexistent/warn", "no-such-program-anywhere"] {
            config.quota.warning_command = vec![missing.to_owned()];
            let said = lacking(&config);
            assert!(said[0].contains("node.local_dir") && said[0].contains("is no folder"), "{said:?}");
            assert_eq!(said[1], format!("quota.warning_command: {missing} is not there"));
        }
        let script = place.path().join("var");
        assert!(program("x", &script.display().to_string()).unwrap().contains("executable"));
    }
}
