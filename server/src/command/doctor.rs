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
use storage::CacheFigures;

use super::{
    ConfigFile,
    control::{NodesReply, Request},
    many,
    place::Place,
    table,
};
use crate::node::{
    cache::in_words,
    health::{
        check, mount,
        trial::{Finding, Grade, finding, try_out},
    },
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
    findings.extend(owned("owners (shared directory)", owners::of_cluster(&root)));
    let mut wants_cache = false;
    if let Ok(config) = ConfigFile::or_default(args.place.config.as_ref()).load()
        && args.place.root.is_none()
    {
        findings.extend(space("local folder", &config.node.local_dir));
        findings.push(descriptors(config.limits.connections));
        wants_cache = config.cache.dir.is_some();
        findings.extend(owned("owners (users files)", owners::of_users(&config)));
    }
    findings.extend(this_node(found.ask::<NodesReply>(&Request::Nodes), wants_cache));

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
    if bad > 0 { bail!("{} failed", many(bad, "check")) } else { Ok(()) }
}

fn space(what: &'static str, path: &Path) -> Vec<Finding> {
    let troubles = check::space(what, path);
    if troubles.is_empty() {
        return vec![finding(Grade::Good, what, format!("{} has room and can be written", path.display()))];
    }
    troubles.into_iter().map(|trouble| finding(Grade::Bad, what, trouble)).collect()
}

fn owned(what: &'static str, wrong: anyhow::Result<Vec<String>>) -> Vec<Finding> {
    match wrong {
        Ok(wrong) if wrong.is_empty() => vec![finding(Grade::Good, what, "the account of the nodes may use what it needs".to_owned())],
        Ok(wrong) => wrong.into_iter().map(|one| finding(Grade::Bad, what, one)).collect(),
        Err(error) => vec![finding(Grade::Bad, what, format!("{error:#}"))],
    }
}

fn descriptors(connections: usize) -> Finding {
    let limit = getrlimit(Resource::Nofile).maximum;
    match check::descriptors_are_few(limit, connections) {
        Some(few) => finding(Grade::Note, "open files", format!("{few}; this is the limit of this shell, the service's may differ")),
        None => finding(Grade::Good, "open files", limit.map_or_else(|| "no limit".to_owned(), |limit| format!("up to {limit}"))),
    }
}

fn this_node<S>(asked: anyhow::Result<Option<(S, NodesReply)>>, wants_cache: bool) -> Vec<Finding> {
    match asked {
        Ok(None) => vec![finding(Grade::Note, "node", "no node runs on this host (or none was asked)")],
        Err(error) => vec![finding(Grade::Bad, "node", format!("{error:#}: look at its log"))],
        Ok(Some((_, reply))) => {
            let troubles = reply.nodes.iter().flat_map(|node| node.trouble.iter().map(|trouble| format!("{}: {trouble}", node.name)));
            let silent = reply.nodes.iter().filter(|node| node.sessions.is_none()).map(|node| {
                format!("{} does not answer over the relay at {}: is its port open to this host?", node.name, node.relay.join(" "))
            });
            let mut found: Vec<Finding> = troubles.chain(silent).map(|what| finding(Grade::Bad, "nodes", what)).collect();
            if found.is_empty() {
                found.push(finding(Grade::Good, "nodes", format!("all {} answer over the relay", reply.nodes.len())));
            }
            found.extend(local_cache(reply.cache.as_ref(), wants_cache));
            found
        }
    }
}

fn local_cache(figures: Option<&CacheFigures>, wanted: bool) -> Option<Finding> {
    match figures {
        Some(figures) => {
            let grade = if figures.off { Grade::Note } else { Grade::Good };
            Some(finding(grade, "local cache", in_words(figures)))
        }
        None if wanted => {
            Some(finding(Grade::Note, "local cache", "the node goes without it since its start: its log says why".to_owned()))
        }
        None => None,
    }
}
