//! `cargo run -p affinity --example cluster_simulation -- --seed 1 [--nodes 100] [--users 1000000]`: a cluster's life in virtual time, as a table.

mod world;

use std::process::ExitCode;

use world::{Size, World};

fn main() -> ExitCode {
    let mut size = Size { seed: 1, nodes: 100, users: 1_000_000, logins_per_beat: 4000 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse::<usize>().ok());
        match (argument.as_str(), value) {
            ("--seed", Some(seed)) => size.seed = u64::try_from(seed).unwrap_or(u64::MAX),
            ("--nodes", Some(nodes)) if nodes >= 10 => size.nodes = nodes,
            ("--users", Some(users)) if users > 0 => size.users = users,
            _ => {
                eprintln!("usage: cluster_simulation [--seed N] [--nodes N, at least 10] [--users N]");
                return ExitCode::from(2);
            }
        }
    }
    println!("seed {}, {} nodes, {} users, {} logins a beat; a beat is 1 s\n", size.seed, size.nodes, size.users, size.logins_per_beat);
    println!(
        "| what happens | s | requests/s | peak/s | beat+watch per node and s | logins | moved users | fenced | users per node | longest wait, s |"
    );
    println!("| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |");
    for row in World::new(size).run() {
        let per_node =
            f64::from(u32::try_from(row.beat_requests).unwrap_or(u32::MAX)) / f64::from(u32::try_from(row.node_beats).unwrap_or(u32::MAX));
        println!(
            "| {} | {} | {} | {} | {per_node:.2} | {} | {} | {} | {}–{} | {} |",
            row.name,
            row.beats,
            row.requests() / row.beats.max(1),
            row.peak,
            row.logins,
            row.moved,
            row.fenced,
            row.spread.0,
            row.spread.1,
            row.longest_wait,
        );
    }
    ExitCode::SUCCESS
}
