//! `berth doctor`: tries on this host what a node needs, and says what to do about what it finds.

use std::{
    io::{self, Write},
    path::Path,
};

pub mod owners;

use anyhow::bail;
use clap::Args;
use rustix::process::{Resource, getrlimit};
use serde_json::json;

use super::{
    ConfigFile,
    control::{NodesReply, Request},
    place::Place,
    table,
};
use crate::node::health::{
    check, mount,
    trial::{Finding, Grade, finding, try_out},
};

/// Check this host: mount, file server, owners, limits, clock
///
/// Tries renames and fresh listings in the shared directory, measures round trips, and looks at mount options, space, owners, limits and clocks. Each finding
/// comes with what to do. Exit code 1 if something would break or stop a node.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  berth doctor\n  berth doctor --root /srv/berth --json")]
pub struct DoctorArgs {
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    let found = args.place.find()?;
    let root = found.open()?;
    let mut findings = mount::check(root.path());
    findings.extend(try_out(&root));
    findings.extend(space("shared directory", root.path()));
    findings.extend(owned(owners::of_cluster(&root)));
    if let Ok(config) = ConfigFile::or_default(args.place.config.as_ref()).load()
        && args.place.root.is_none()
    {
        findings.extend(space("local folder", &config.node.local_dir));
        findings.push(descriptors(config.limits.connections));
        findings.extend(owned(owners::of_users(&config)));
    }
    findings.extend(this_node(found.ask::<NodesReply>(&Request::Nodes)));

    let bad = findings.iter().filter(|finding| finding.grade == Grade::Bad).count();
    let mut out = io::stdout().lock();
    if args.place.json {
        let rows: Vec<_> =
            findings.iter().map(|one| json!({ "grade": one.grade.word(), "check": one.check, "found": one.found })).collect();
        writeln!(out, "{}", json!({ "root": root.path(), "bad": bad, "checks": rows }))?;
    } else {
        let rows: Vec<Vec<String>> =
            findings.iter().map(|one| vec![one.grade.word().to_owned(), one.check.to_owned(), one.found.clone()]).collect();
        table::print(&mut out, &["", "CHECK", "FOUND"], &rows)?;
    }
    if bad > 0 { bail!("{bad} checks failed") } else { Ok(()) }
}

fn space(what: &'static str, path: &Path) -> Vec<Finding> {
    let troubles = check::space(what, path);
    if troubles.is_empty() {
        return vec![finding(Grade::Good, what, format!("{} has room and can be written", path.display()))];
    }
    troubles.into_iter().map(|trouble| finding(Grade::Bad, what, trouble)).collect()
}

fn owned(wrong: anyhow::Result<Vec<String>>) -> Vec<Finding> {
    match wrong {
        Ok(wrong) if wrong.is_empty() => vec![finding(Grade::Good, "owners", "the account of the nodes may use what it needs".to_owned())],
        Ok(wrong) => wrong.into_iter().map(|what| finding(Grade::Bad, "owners", what)).collect(),
        Err(error) => vec![finding(Grade::Bad, "owners", format!("{error:#}"))],
    }
}

fn descriptors(connections: usize) -> Finding {
    let limit = getrlimit(Resource::Nofile).maximum;
    match check::descriptors_are_few(limit, connections) {
        Some(few) => finding(Grade::Note, "open files", format!("{few}; this is the limit of this shell, the service's may differ")),
        None => finding(Grade::Good, "open files", limit.map_or_else(|| "no limit".to_owned(), |limit| format!("up to {limit}"))),
    }
}

fn this_node<S>(asked: anyhow::Result<Option<(S, NodesReply)>>) -> Vec<Finding> {
    match asked {
        Ok(None) => vec![finding(Grade::Note, "node", "no node runs on this host (or none was asked)")],
        Err(error) => vec![finding(Grade::Bad, "node", format!("{error:#}: look at its log"))],
        Ok(Some((_, reply))) => {
            let troubles = reply.nodes.iter().flat_map(|node| node.trouble.iter().map(|trouble| format!("{}: {trouble}", node.name)));
            let silent = reply.nodes.iter().filter(|node| node.sessions.is_none()).map(|node| {
                format!("{} does not answer over the relay at {}: is its port open to this host?", node.name, node.relay.join(" "))
            });
            let bad: Vec<Finding> = troubles.chain(silent).map(|what| finding(Grade::Bad, "nodes", what)).collect();
            if bad.is_empty() {
                return vec![finding(Grade::Good, "nodes", format!("all {} answer over the relay", reply.nodes.len()))];
            }
            bad
        }
    }
}
