//! A small file system of a node's own, in a mount namespace that only this test has: it can be full, and be read-only.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::process::{self, Guarded};

/// How long mounting may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A file system in memory, mounted where only processes started with [`Mount::around`] see it; it goes with this value.
#[derive(Debug)]
pub struct Mount {
    /// Keeps the namespace.
    keeper: Guarded,
    at: PathBuf,
}

/// Why this host can't have one; `None` when it can.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a mount namespace needs root".to_owned());
    }
    match process::run(Command::new("unshare").args(["--mount", "--", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]), LIMIT) {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("this host allows no mount namespace: {}", process::said(&output))),
        Err(error) => Some(format!("this host allows no mount namespace: {error:#}")),
    }
}

impl Mount {
    /// One of `mebibytes` on the folder `at`.
    pub fn new(at: &Path, mebibytes: u32) -> Result<Mount> {
        let script = format!("mount -t tmpfs -o size={mebibytes}m,mode=0755 tmpfs \"$0\" && echo mounted && exec sleep 3600");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--", "sh", "-c", &script]).arg(at);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut keeper = Guarded::start("the keeper of a mount namespace", &mut command)?;
        let mut said = String::new();
        BufReader::new(keeper.child().stdout.take().context("no pipe")?).read_line(&mut said)?;
        ensure!(said == "mounted\n", "nothing was mounted on {}", at.display());
        Ok(Mount { keeper, at: at.to_owned() })
    }

    /// What a command line begins with whose process is to see it.
    pub fn around(&self) -> Result<Vec<OsString>> {
        Ok(vec!["nsenter".into(), format!("--mount=/proc/{}/ns/mnt", self.keeper.process()?.pid()).into(), "--".into()])
    }

    /// The same folder, for this process.
    pub fn path(&self) -> Result<PathBuf> {
        let inside = self.at.strip_prefix("/")?;
        Ok(Path::new("/proc").join(self.keeper.process()?.pid().to_string()).join("root").join(inside))
    }

    /// `ro` or `rw`. Not to `ro` while anybody has a file of it open for writing.
    pub fn remount(&self, options: &str) -> Result<()> {
        let around = self.around()?;
        let [program, arguments @ ..] = around.as_slice() else { return Ok(()) };
        let mut command = Command::new(program);
        command.args(arguments).args(["mount", "-o", &format!("remount,{options}")]).arg(&self.at);
        process::run_ok(&mut command, LIMIT).map(drop)
    }

    /// Writes until nothing more fits, then leaves `spare` bytes; what was written goes with [`Mount::make_room`].
    pub fn fill(&self, spare: u64) -> Result<()> {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()?)?;
        for size in [1 << 20, 1 << 12] {
            let block = vec![b'x'; size];
            loop {
                match ballast.write_all(&block) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let length = ballast.metadata()?.len();
        ensure!(length > spare, "the file system had {length} bytes of room");
        Ok(ballast.set_len(length - spare)?)
    }

    /// There is room again.
    pub fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.ballast()?)?)
    }

    fn ballast(&self) -> Result<PathBuf> {
        Ok(self.path()?.join("ballast"))
    }
}
