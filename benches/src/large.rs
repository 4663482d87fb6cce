//! What is measured with a very large mailbox and with very many mailboxes, made beforehand as another program would have left them.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result};
use tests::{
    cluster::{Cluster, Demo},
    peers::dovecot::Dovecot,
    process::Process,
    site::{Doors, User},
    wait,
};

use crate::{
    client::Client,
    servers::{self, berth_maildir, plant},
    table::{Measure, Row, Sample},
    usage,
};

/// How much.
#[derive(Debug, Clone, Copy)]
pub struct Amounts {
    /// Messages in one mailbox.
    pub messages: usize,
    /// Mailboxes with one message each.
    pub mailboxes: usize,
}

const ROWS: &[Measure] = &[
    measure("SELECT of a mailbox that no server saw before", "ms", 0.0),
    measure("SELECT again, new session", "ms", 2.0),
    measure("memory of that open mailbox", "MiB", 0.0),
    measure("first FETCH of FLAGS", "ms", 0.0),
    measure("STORE 1:*", "ms", 5.0),
    measure("LIST with STATUS of never-opened mailboxes", "ms", 49.0),
    measure("LIST with STATUS, again", "ms", 0.0),
    measure("login and SELECT after a restart", "ms", 2.0),
    measure("memory of that mailbox after a restart", "MiB", 0.0),
];

const fn measure(name: &'static str, unit: &'static str, goal: f64) -> Measure {
    Measure { name, unit, more_is_better: false, goal: if goal > 0.0 { Some(goal) } else { None } }
}

/// What one server did, by the names of `ROWS`.
type Figures = BTreeMap<&'static str, f64>;

/// Berth, then Dovecot.
pub fn measure_all(amounts: Amounts, with_dovecot: bool) -> Result<Vec<Row>> {
    let mut measured = vec![berth(amounts)?];
    if with_dovecot {
        measured.push(dovecot(amounts)?);
    }
    let sample = |figures: &Figures, name| figures.get(name).map(|value| Sample { value: *value, cpu_us: None }).into_iter().collect();
    let row = |measure: &Measure| Row { measure: *measure, samples: measured.iter().map(|figures| sample(figures, measure.name)).collect() };
    Ok(ROWS.iter().map(row).collect())
}

fn berth(amounts: Amounts) -> Result<Figures> {
    let mut cluster = servers::cluster(1, 2)?;
    for (number, user) in cluster.users.iter().enumerate() {
        plant_for(number, berth_maildir(&cluster.root, &user.name), amounts)?;
    }
    let mut figures = Figures::new();
    let users = cluster.users.clone();
    first(&mut figures, &cluster.nodes[0].doors, &users, &[cluster.nodes[0].process])?;
    let dir = cluster.stop()?;
    let again = Cluster::start(&Demo { nodes: 1, users: 2, dir: Some(dir) })?;
    after_restart(&mut figures, &again.nodes[0].doors, &users, &[again.nodes[0].process])?;
    Ok(figures)
}

fn dovecot(amounts: Amounts) -> Result<Figures> {
    let users = servers::dovecot_users(2);
    let dovecot = Dovecot::start(&users)?;
    for (number, user) in users.iter().enumerate() {
        plant_for(number, dovecot.mail().join(&user.name), amounts)?;
    }
    let mut figures = Figures::new();
    let processes = [dovecot.process()?];
    first(&mut figures, dovecot.doors(), &users, &processes)?;
    // Every session of Dovecot is a process of its own: a new one is all that a restart is.
    after_restart(&mut figures, dovecot.doors(), &users, &processes)?;
    Ok(figures)
}

/// The first user has the large mailbox, the second the many.
fn plant_for(number: usize, maildir: PathBuf, amounts: Amounts) -> Result<()> {
    if number == 0 {
        return plant(&maildir, amounts.messages);
    }
    plant(&maildir, 1)?;
    for mailbox in 0..amounts.mailboxes {
        let folder = maildir.join(format!(".m{mailbox:05}"));
        plant(&folder, 1)?;
        fs::write(folder.join("maildirfolder"), "")?;
    }
    Ok(())
}

fn first(figures: &mut Figures, doors: &Doors, users: &[User], processes: &[Process]) -> Result<()> {
    let before = usage::settled_bytes(processes)?;
    let large = users.first().context("no user")?;
    let mut session = Client::login(&doors.imap, None, &large.name, &large.password)?;
    figures.insert("SELECT of a mailbox that no server saw before", command(&mut session, "SELECT INBOX")?);
    let mut second = Client::login(&doors.imap, None, &large.name, &large.password)?;
    figures.insert("SELECT again, new session", command(&mut second, "SELECT INBOX")?);
    drop(second);
    figures.insert("memory of that open mailbox", mebibytes(usage::settled_bytes(processes)?, before));
    figures.insert("first FETCH of FLAGS", command(&mut session, "FETCH 1:* (FLAGS)")?);
    figures.insert("STORE 1:*", command(&mut session, "STORE 1:* +FLAGS.SILENT (\\Flagged)")?);
    drop(session);

    let many = users.get(1).context("no second user")?;
    let mut session = Client::login(&doors.imap, None, &many.name, &many.password)?;
    for name in ["LIST with STATUS of never-opened mailboxes", "LIST with STATUS, again"] {
        figures.insert(name, command(&mut session, "LIST \"\" * RETURN (STATUS (MESSAGES UNSEEN UIDNEXT))")?);
    }
    Ok(())
}

fn after_restart(figures: &mut Figures, doors: &Doors, users: &[User], processes: &[Process]) -> Result<()> {
    let before = usage::settled_bytes(processes)?;
    let large = users.first().context("no user")?;
    let start = wait::now();
    let mut session = Client::login(&doors.imap, None, &large.name, &large.password)?;
    session.command("SELECT INBOX")?;
    figures.insert("login and SELECT after a restart", start.elapsed().as_secs_f64() * 1000.0);
    figures.insert("memory of that mailbox after a restart", mebibytes(usage::settled_bytes(processes)?, before));
    Ok(())
}

/// Milliseconds.
fn command(session: &mut Client, command: &str) -> Result<f64> {
    let start = wait::now();
    session.command(command)?;
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

fn mebibytes(after: u64, before: u64) -> f64 {
    after.saturating_sub(before) as f64 / 1024.0 / 1024.0
}
