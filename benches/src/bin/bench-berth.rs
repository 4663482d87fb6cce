//! `cargo bench-berth`: measures this build, and a private Dovecot beside it where there is one.

use std::sync::Arc;

use anyhow::{Context, Result};
use benches::{
    accounts, large, scaling,
    servers::{self, Server},
    steps::{self, STEPS, Turn},
    table::{Row, Sample, markdown},
};
use clap::Parser;
use tests::{packages, peers::dovecot::Dovecot};

/// Speed, CPU time and memory of Berth (two nodes: the holder's own door, and the other's, which relays) and of Dovecot.
#[derive(Debug, Parser)]
struct Arguments {
    /// Messages in the mailbox.
    #[arg(long, default_value_t = 10_000)]
    messages: usize,
    /// Rounds, each with a fresh user; the table has medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Single STOREs; twice as many APPENDs and logins.
    #[arg(long, default_value_t = 500)]
    singles: usize,
    /// Idle connections.
    #[arg(long, default_value_t = 100)]
    idle: usize,
    /// Messages of the large mailbox; 0 leaves large mailboxes out.
    #[arg(long, default_value_t = 100_000)]
    large: usize,
    /// Mailboxes of the user with many.
    #[arg(long, default_value_t = 1_000)]
    mailboxes: usize,
    /// Leave Dovecot out.
    #[arg(long)]
    no_dovecot: bool,
    /// Only rows whose names have this; earlier steps that it builds on are run as well.
    #[arg(long)]
    only: Option<String>,
    /// Only this: what a message costs in mailboxes of these sizes.
    #[arg(long, value_delimiter = ',', num_args = 0.., default_missing_value = "1000,10000,100000")]
    scaling: Option<Vec<usize>>,
    /// Only this: the memory of so many open accounts with 1,000 messages each.
    #[arg(long)]
    accounts: Option<usize>,
    /// Leave out the relayed column.
    #[arg(long)]
    no_relay: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(sizes) = &arguments.scaling {
        print!("{}", scaling::table(sizes)?);
        return Ok(());
    }
    if let Some(count) = arguments.accounts {
        print!("{}", accounts::table(count, 1_000)?);
        return Ok(());
    }
    let mut with_dovecot = !arguments.no_dovecot;
    let names: Vec<&str> = packages::DOVECOT.iter().map(|program| program.name).collect();
    if let Some(why) = packages::missing(&names).filter(|_| with_dovecot) {
        eprintln!("Dovecot is left out: {why}");
        with_dovecot = false;
    }
    if arguments.messages > 0 {
        mailbox_of_thousands(&arguments, with_dovecot)?;
    }
    if arguments.large > 0 {
        let amounts = large::Amounts { messages: arguments.large, mailboxes: arguments.mailboxes };
        println!("\n{} messages in one mailbox; {} mailboxes:\n", amounts.messages, amounts.mailboxes);
        let names: &[&str] = if with_dovecot { &["Berth", "Dovecot"] } else { &["Berth"] };
        print!("{}", markdown(names, &large::measure_all(amounts, with_dovecot)?));
    }
    Ok(())
}

fn mailbox_of_thousands(arguments: &Arguments, with_dovecot: bool) -> Result<()> {
    // Users fall on one node or the other: with so many, too few on one side is next to impossible.
    let cluster = servers::cluster(2, arguments.rounds * 4 + 8)?;
    let mut columns = servers::berth_direct_and_relayed(&cluster, arguments.rounds)?;
    if arguments.no_relay {
        columns.truncate(1);
    }
    let users = servers::dovecot_users(arguments.rounds);
    let dovecot = with_dovecot.then(|| Dovecot::start_with(&users, servers::DOVECOT_SETTINGS)).transpose()?;
    if let Some(dovecot) = &dovecot {
        columns.push(servers::dovecot_server(dovecot, users)?);
    }
    let columns: Vec<Arc<Server>> = columns.into_iter().map(Arc::new).collect();
    let rows = measure(arguments, &columns)?;
    let names: Vec<&str> = columns.iter().map(|server| server.name).collect();
    println!(
        "{} messages, medians of {} rounds, in brackets CPU time of one operation (bodies: of one MB):\n",
        arguments.messages, arguments.rounds
    );
    print!("{}", markdown(&names, &rows));
    Ok(())
}

fn measure(arguments: &Arguments, columns: &[Arc<Server>]) -> Result<Vec<Row>> {
    let amounts = steps::Amounts { messages: arguments.messages, singles: arguments.singles, idle: arguments.idle };
    let mut rows: Vec<Row> =
        STEPS.iter().map(|step| Row { measure: step.measure, samples: vec![Vec::<Sample>::new(); columns.len()] }).collect();
    for round in 0..arguments.rounds {
        let mut turns = columns.iter().map(|server| Turn::new(server, round, amounts)).collect::<Result<Vec<_>>>()?;
        for (at, step) in STEPS.iter().enumerate() {
            let asked = arguments.only.as_ref().is_none_or(|only| step.measure.name.contains(only.as_str()));
            if !asked
                && !step.measure.name.contains("LMTP")
                && !step.measure.name.contains("SELECT after")
                && !step.measure.name.contains("1 MiB")
            {
                continue;
            }
            for (column, turn) in turns.iter_mut().enumerate() {
                let sample = (step.run)(turn).with_context(|| format!("{}: {}", columns[column].name, step.measure.name))?;
                eprintln!(
                    "{:<50} {:<16} {}",
                    step.measure.name,
                    columns[column].name,
                    sample.map_or("-".into(), |s| format!("{:.2} {}", s.value, step.measure.unit))
                );
                rows[at].samples[column].extend(sample);
            }
        }
    }
    Ok(rows)
}
