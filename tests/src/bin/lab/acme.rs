//! `cargo lab acme`: certificates that the nodes get and renew themselves, with account, keys and claim on a real NFS mount.
//!
//! A real authority (Pebble) stands still while a node orders, so that the fault strikes in the middle of the order. Afterwards all nodes show the
//! same certificate, and there is one account and one claim.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tests::{
    clients::imap::Imap,
    lab::{self, Cluster, Lab, Node, PASSWORD, Plan},
    packages,
    peers::pebble::{Pebble, Ports},
    tls, wait,
};

use crate::fresh;

const NAME: &str = "mail.berth.test";
/// A look every 15 s, an order, a look of the other nodes; and a fence, or a boot of the file server with its grace period.
const LIMIT: Duration = Duration::from_secs(300);
/// None of these is renewed by itself.
const VALIDITY: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// What happens while a node orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    Kill,
    Power,
    CutFromNfs,
    Pause,
    ServerReboot,
}

const FAULTS: [(Fault, &str); 6] = [
    (Fault::Nothing, "nothing else happens"),
    (Fault::Kill, "the process is killed, and started again later"),
    (Fault::Power, "its host loses power"),
    (Fault::CutFromNfs, "its host is cut from the file server"),
    (Fault::Pause, "its host hangs"),
    (Fault::ServerReboot, "the file server crashes and boots again"),
];

struct Run {
    lab: Lab,
    cluster: Cluster,
    pebble: Pebble,
}

/// Goes through all faults and prints a table.
pub fn run() -> Result<bool> {
    if let Some(why) = packages::missing(&["pebble", "pebble-challtestsrv"]) {
        bail!("{why}");
    }
    lab::enter()?;
    let lab = Lab::attach()?;
    let ports = Ports {
        directory: "10.77.0.1:14000".into(),
        // Whoever orders, the first node is asked for the proof: what it answers was written by another.
        names_are_at: "10.77.0.11".into(),
        names: "10.77.0.1:8053".into(),
        management: "10.77.0.1:8055".into(),
        http: 80,
        tls: 993,
    };
    let pebble = Pebble::start(&lab.share().join("pebble"), Path::new("/lab/pebble"), &ports, VALIDITY)?;
    let plan = Plan {
        users: 1,
        listen: "imaps = [\"{address}:993\"]\nacme = [\"{address}:80\"]".into(),
        sections: pebble.settings(NAME),
        ..Plan::default()
    };
    let start = wait::now();
    let cluster = lab.start(&fresh("acme"), &plan)?;
    let run = Run { lab, cluster, pebble };
    let mut shown = run.shown_by_all(&[])?;
    let orders = run.orders()?;
    println!("| while a node orders | all that run show the new certificate after | orders |\n| --- | ---: | ---: |");
    println!("| three nodes start without a certificate | {:.0?} | {orders} |", start.elapsed());
    ensure!(orders == 1, "{orders} orders for one certificate");
    for (round, (fault, what)) in FAULTS.into_iter().enumerate() {
        let before = run.orders()?;
        // The one that is asked for proofs is not struck: that would only show that nobody answers.
        let orderer = run.cluster.nodes.get(1 + round % 2).context("three nodes are needed")?;
        let (new, took) = run.renew(orderer, fault, &shown).with_context(|| what.to_owned())?;
        println!("| {what} | {took:.0?} | {} |", run.orders()? - before);
        shown = new;
    }
    run.look_at_files()?;
    for node in &run.cluster.nodes {
        run.lab.berth(node, &["tls", "show"])?;
    }
    run.lab.kill_all(run.cluster.nodes.len())?;
    Ok(true)
}

impl Run {
    fn renew(&self, orderer: &Node, fault: Fault, old: &[u8]) -> Result<(Vec<u8>, Duration)> {
        self.lab.wait_acquainted(&self.cluster)?;
        let others: Vec<&Node> = self.cluster.nodes.iter().filter(|node| node.name != orderer.name).collect();
        let other = others.first().context("three nodes are needed")?;
        let mut session = Imap::login(&other.imap(), "user1", PASSWORD)?;
        self.pebble.pause()?;
        let ordered = self.lab.berth_detached(orderer, &["tls", "renew"]);
        let held = ordered.and_then(|()| self.wait_for_claim(&format!(",held,{},", orderer.name)));
        let struck = held.and_then(|()| self.strike(orderer, fault));
        let start = wait::now();
        self.pebble.resume()?;
        struck?;
        let shown = match fault {
            Fault::Nothing | Fault::ServerReboot => self.shown_by_all(old)?,
            // The others can order once it is fenced, and it follows when it is back.
            Fault::Kill | Fault::Power | Fault::CutFromNfs | Fault::Pause => {
                self.renew_instead(other, orderer)?;
                self.shown_by(&others, old)?
            }
        };
        let took = start.elapsed();
        self.mend(orderer, fault)?;
        self.lab.wait_acquainted(&self.cluster)?;
        let all = self.shown_by_all(old)?;
        ensure!(all == shown, "another one came after the newest");
        if fault == Fault::Nothing || fault == Fault::ServerReboot {
            session.command("NOOP")?.ok().context("a new certificate ends no session")?;
        }
        Ok((all, took))
    }

    /// Another node is asked until it may: what was asked of the first one ended with it, and no certificate is old.
    fn renew_instead(&self, other: &Node, orderer: &Node) -> Result<()> {
        wait::until("another node to order", LIMIT, || {
            self.lab.berth(other, &["tls", "renew"])?;
            let files = self.files()?;
            ensure!(!files.iter().any(|name| name.contains(&format!(",held,{},", orderer.name))), "{files:?}");
            Ok(())
        })
    }

    fn strike(&self, node: &Node, fault: Fault) -> Result<()> {
        match fault {
            Fault::Nothing => Ok(()),
            Fault::Kill => self.lab.exec(&node.name, &["pkill", "-9", "-x", "berth"]).map(drop),
            Fault::Power => self.lab.verb(&["kill", &node.name]).map(drop),
            Fault::CutFromNfs => self.lab.verb(&["cut", &node.name, "nfs"]).map(drop),
            Fault::Pause => self.lab.verb(&["pause", &node.name]).map(drop),
            Fault::ServerReboot => {
                self.lab.verb(&["kill", "srv"])?;
                self.lab.verb(&["start", "srv"]).map(drop)
            }
        }
    }

    fn mend(&self, node: &Node, fault: Fault) -> Result<()> {
        match fault {
            Fault::Nothing | Fault::ServerReboot => Ok(()),
            Fault::Kill => self.lab.serve(node),
            Fault::Power => self.lab.revive(node),
            // A node that stood still or was cut off ends when it sees that it was fenced, and its supervisor starts it again.
            Fault::CutFromNfs => self.lab.verb(&["heal"]).and_then(|_| self.back(node)),
            Fault::Pause => self.lab.verb(&["resume", &node.name]).and_then(|_| self.back(node)),
        }
    }

    fn back(&self, node: &Node) -> Result<()> {
        wait::until("the node to end or to be back", LIMIT, || {
            let ended = self.lab.exec(&node.name, &["sh", "-c", "pgrep -x berth || true"])?.trim().is_empty();
            if ended {
                self.lab.serve(node)?;
            }
            Imap::connect(&node.imap()).map(drop)
        })
    }

    /// The names below `acme/`, on the file server: the nodes' hosts do not notice.
    fn files(&self) -> Result<Vec<String>> {
        let list = format!("cd {}/acme && ls -d {NAME}*/*", self.cluster.on_server());
        let said = self.lab.exec("srv", &["sh", "-c", &list])?;
        Ok(said.lines().filter_map(|line| Some(line.rsplit_once('/')?.1.to_owned())).collect())
    }

    fn wait_for_claim(&self, part: &str) -> Result<()> {
        wait::until(&format!("the claim to be {part}"), LIMIT, || {
            let files = self.files()?;
            ensure!(files.iter().any(|name| name.contains(part)), "{files:?}");
            Ok(())
        })
    }

    fn look_at_files(&self) -> Result<()> {
        let files = self.files()?;
        let with = |ending: &str| files.iter().filter(|name| name.ends_with(ending)).count();
        ensure!(with(".account") == 1 && with(".pem") <= 2, "{files:?}");
        ensure!(files.iter().filter(|name| name.contains(',')).count() == 1, "one claim: {files:?}");
        let issued = self.pebble.log()?.matches("Issued certificate").count();
        println!("\n{issued} certificates were issued; on the file server are {}", files.join(" "));
        Ok(())
    }

    fn shown_by_all(&self, old: &[u8]) -> Result<Vec<u8>> {
        self.shown_by(&self.cluster.nodes.iter().collect::<Vec<_>>(), old)
    }

    /// What these nodes show, once that is the same and not `old`.
    fn shown_by(&self, nodes: &[&Node], old: &[u8]) -> Result<Vec<u8>> {
        wait::until("the nodes to show the same new certificate", LIMIT, || {
            let mut all = nodes.iter().map(|node| tls::certificate_for(&format!("{}:993", node.address), NAME, &[]));
            let first = all.next().context("no nodes")??;
            ensure!(first != old, "the old one is still shown");
            for other in all {
                ensure!(other? == first, "another node shows another one");
            }
            Ok(first)
        })
    }

    fn orders(&self) -> Result<usize> {
        let logs = self.cluster.nodes.iter().map(|node| Ok(fs::read_to_string(node.log_file())?)).collect::<Result<Vec<_>>>()?;
        Ok(logs.iter().map(|log| log.matches("ordering a certificate by ACME").count()).sum())
    }
}
