//! CHANGELOG.md: what an operator or a client notices.

use tests::{Result, ensure};

use super::read;

#[test]
fn the_changelog_has_an_unreleased_section_with_entries() -> Result<()> {
    let changelog = read("CHANGELOG.md")?;
    let unreleased = changelog.split("\n## ").find(|section| section.starts_with("Unreleased")).unwrap_or_default();
    ensure!(unreleased.lines().any(|line| line.starts_with("- ")), "no entry under Unreleased");
    Ok(())
}
