//! The systemd unit of docs/install.md: whole, and closed up.

use std::{fs, process::Command, time::Duration};

use tests::{Context, Result, ensure, need, process};

use super::read;

/// In tenths: what docs/install.md promises, and a little for other versions of systemd.
const EXPOSURE_MAX: u32 = 20;

#[test]
fn the_systemd_unit_is_closed_up() -> Result<()> {
    need!("systemd-analyze");
    let document = read("docs/install.md")?;
    let (_, after) = document.split_once("```ini\n[Unit]").context("no unit in docs/install.md")?;
    let (unit, _) = after.split_once("```").context("the unit has no end")?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("berth.service");
    let analyze = |unit: &str, of: &[&str]| -> Result<bool> {
        fs::write(&path, format!("[Unit]{unit}"))?;
        let output = process::run(Command::new("systemd-analyze").args(of).arg(&path), Duration::from_secs(60))?;
        let said = process::said(&output);
        // It warns of what it does not know or can't use, and goes on.
        ensure!(!said.contains("Unknown key") && !said.contains("Failed to parse"), "{said}");
        eprintln!("{said}");
        Ok(output.status.success())
    };
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let security = ["security", "--offline=true", "--no-pager", &threshold];
    ensure!(analyze(unit, &security)?, "the unit is more exposed than {EXPOSURE_MAX} tenths");
    // And this would notice: without one of its settings the score is over it.
    let open = unit.replace("SystemCallFilter=", "#SystemCallFilter=");
    ensure!(!analyze(&open, &security)?, "nothing is wrong with a unit that permits every system call");
    for needed in ["AmbientCapabilities=CAP_NET_BIND_SERVICE", "Restart=always", "LimitNOFILE=", "landlock_restrict_self", "@chown"] {
        ensure!(unit.contains(needed), "the unit lacks {needed}");
    }
    Ok(())
}
