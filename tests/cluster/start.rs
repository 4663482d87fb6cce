//! A node refuses to start where its shared directory is not the one it is meant for, and says what to do.

use std::{path::Path, process::Output};

use tests::{
    Context, Result, berth, ensure,
    peers::{free_port, write},
    process::said,
};

#[test]
fn a_directory_that_is_no_cluster_is_refused_and_stays_as_it_was() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("mount-point");
    std::fs::create_dir(&root)?;
    let output = serve(folder.path(), &root, "")?;
    let said = said(&output);
    ensure!(!output.status.success(), "it started on an empty directory: {said}");
    ensure!(
        said.contains("berth.toml") && said.contains("berth init") && said.contains("mount"),
        "the error does not say what to do: {said}"
    );
    ensure!(said.contains(root.to_str().context("path")?), "the error does not name the directory: {said}");
    ensure!(std::fs::read_dir(&root)?.count() == 0, "something was written into a directory that is no cluster");
    Ok(())
}

#[test]
fn a_directory_that_does_not_exist_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("nowhere");
    let output = serve(folder.path(), &root, "")?;
    ensure!(!output.status.success() && said(&output).contains("nowhere"), "{}", said(&output));
    ensure!(!root.exists());
    Ok(())
}

#[test]
fn another_clusters_directory_is_refused_with_both_ids() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("shared");
    berth::run_ok(&["init", root.to_str().context("path")?])?;
    let cluster_file = std::fs::read_to_string(root.join("berth.toml"))?;
    let id =
        cluster_file.lines().find_map(|line| line.strip_prefix("cluster_id = ")).context("no cluster_id in berth.toml")?.trim_matches('"');
    let output = serve(folder.path(), &root, "cluster_id = \"some-other-cluster\"\n")?;
    let said = said(&output);
    ensure!(!output.status.success(), "it started on another cluster's directory: {said}");
    ensure!(said.contains("some-other-cluster") && said.contains(id), "the error does not name both clusters: {said}");
    Ok(())
}

#[test]
fn a_misspelt_setting_is_refused_with_its_line_and_a_suggestion() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("shared");
    berth::run_ok(&["init", root.to_str().context("path")?])?;
    let output = serve(folder.path(), &root, "clusterid = \"x\"\n")?;
    let said = said(&output);
    ensure!(!output.status.success(), "it started: {said}");
    ensure!(said.contains("clusterid") && said.contains("cluster_id") && said.contains("node.toml"), "no suggestion: {said}");
    Ok(())
}

/// `berth serve` with a configuration of its own; `more` goes into `[node]`.
fn serve(folder: &Path, root: &Path, more: &str) -> Result<Output> {
    let config = folder.join("node.toml");
    let [imap, lmtp, relay] = [free_port()?, free_port()?, free_port()?];
    write(
        &config,
        &format!(
            "[node]\nname = \"alone\"\nroot = \"{}\"\nlocal_dir = \"{}\"\n{more}\n[listen]\nimap = [\"127.0.0.1:{imap}\"]\nimaps = []\n\
             pop3 = []\npop3s = []\nlmtp = [\"127.0.0.1:{lmtp}\"]\nrelay = \"127.0.0.1:{relay}\"\n",
            root.display(),
            folder.join("local").display()
        ),
    )?;
    berth::run(&["serve", "--config", config.to_str().context("path")?])
}
