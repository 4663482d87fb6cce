//! server/PROTOCOLS.md: the rows marked full are what the server offers, and each names tests that show it.

use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_STANDARD};
use tests::{
    Context, Result,
    clients::imap::Imap,
    cluster::{Cluster, Demo},
    ensure,
};

use super::{is_test, read, rust_files};

/// `| RFC | what | state | capability | shown by, or why not |`
struct Row {
    rfc: String,
    state: String,
    capabilities: Vec<String>,
    shown_by: String,
}

fn rows() -> Result<Vec<Row>> {
    let text = read("server/PROTOCOLS.md")?;
    let specified = |line: &&str| (line.starts_with("| RFC ") && !line.starts_with("| RFC |")) || line.starts_with("| draft-");
    let lines = text.lines().filter(specified);
    lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [rfc, _, state, capabilities, shown_by] = cells.as_slice() else { tests::bail!("not five cells: {line}") };
            let capabilities = capabilities.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            Ok(Row { rfc: (*rfc).to_owned(), state: (*state).to_owned(), capabilities, shown_by: (*shown_by).to_owned() })
        })
        .collect()
}

#[test]
fn every_row_has_a_known_state_and_a_reason_or_a_test() -> Result<()> {
    let sources: String = rust_files()?.into_iter().map(|(_, text)| text).collect();
    for row in rows()? {
        ensure!(["full", "partial", "no"].contains(&row.state.as_str()), "{} is {:?}", row.rfc, row.state);
        ensure!(!row.shown_by.is_empty(), "{} has neither a test nor a reason", row.rfc);
        if row.state != "no" {
            let tests: Vec<&str> = row.shown_by.split('`').skip(1).step_by(2).collect();
            ensure!(tests.iter().any(|name| is_test(&sources, name)), "no test of {} exists: {tests:?}", row.rfc);
        }
    }
    Ok(())
}

#[test]
fn the_imap_capabilities_are_those_of_the_rows_marked_full() -> Result<()> {
    let documented: BTreeSet<String> = rows()?
        .into_iter()
        .filter(|row| row.state == "full")
        .flat_map(|row| row.capabilities)
        .map(|name| name.to_ascii_uppercase())
        .collect();
    // With everything that is offered by setting, and to master users.
    let mut cluster = Cluster::start(&Demo { nodes: 1, users: 2, ..Demo::default() })?;
    let master = format!("{}:", cluster.users[1].name);
    let users = std::fs::read_to_string(cluster.root.join("users"))?;
    let with_master = users.lines().map(|line| if line.starts_with(&master) { format!("{line}master=yes\n") } else { format!("{line}\n") });
    std::fs::write(cluster.root.join("users"), with_master.collect::<String>())?;
    let mut offered = BTreeSet::new();
    // One of the two limits at a time.
    for (with, limits) in [("[mail]\nsharing = true\n[imap]\nmessage_limit = 1000\n", None), ("save_limit = 2000\n", Some("message_limit"))]
    {
        if let Some(replaced) = limits {
            let config = &cluster.nodes[0].config;
            let text = std::fs::read_to_string(config)?;
            std::fs::write(
                config,
                text.lines().filter(|line| !line.starts_with(replaced)).map(|line| format!("{line}\n")).collect::<String>(),
            )?;
        }
        cluster.configure(with)?;
        let (user, master) = (&cluster.users[0], &cluster.users[1]);
        let mut imap = Imap::connect(&cluster.nodes[0].doors.imap)?;
        offered.extend(capabilities(&mut imap)?);
        let secret = BASE64_STANDARD.encode(format!("{}\0{}\0{}", user.name, master.name, master.password));
        imap.command(&format!("AUTHENTICATE PLAIN {secret}"))?.ok()?;
        offered.extend(capabilities(&mut imap)?);
    }
    let undocumented: Vec<_> = offered.difference(&documented).collect();
    let missing: Vec<_> = documented.difference(&offered).collect();
    ensure!(
        undocumented.is_empty() && missing.is_empty(),
        "offered but not marked full: {undocumented:?}; marked full but not offered: {missing:?}"
    );
    Ok(())
}

fn capabilities(imap: &mut Imap) -> Result<BTreeSet<String>> {
    let reply = imap.command("CAPABILITY")?.ok()?;
    let response = reply.all("CAPABILITY").next().context("no CAPABILITY")?;
    // Limits are the administrator's numbers.
    let name = |name: &str| match name.split_once("LIMIT=") {
        Some((limit, _)) => format!("{limit}LIMIT="),
        None => name.to_owned(),
    };
    response.values.iter().map(|value| Ok(name(&value.text()?.to_ascii_uppercase()))).collect()
}
