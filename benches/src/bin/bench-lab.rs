//! `cargo bench-lab`: Berth and Dovecot on two hosts of the lab with real NFS, latency added to every answer of the file server.

use std::{collections::BTreeMap, fs, sync::Mutex, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use benches::{
    client::Client,
    corpus,
    table::{Measure, Row, Sample, markdown},
};
use clap::Parser;
use tests::{
    lab::{self, Cluster, Lab, Node, PASSWORD, Plan},
    wait,
};

/// Deliveries and logins at the same time.
const CLIENTS: usize = 16;
/// Users who log in together.
const STORM: usize = 50;
/// A server that starts, or ends, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Bulk work over NFS, Berth beside Dovecot. The lab must be up (`cargo lab up`).
#[derive(Debug, Parser)]
struct Arguments {
    /// Added to every answer of the file server.
    #[arg(long, default_value = "1ms")]
    delay: String,
    /// Messages delivered, fetched and copied.
    #[arg(long, default_value_t = 1_000)]
    messages: usize,
    /// Messages of the second mailbox, half of which are expunged.
    #[arg(long, default_value_t = 10_000)]
    many: usize,
    /// Messages of the largest mailbox; 0 leaves it out.
    #[arg(long, default_value_t = 100_000)]
    large: usize,
    /// Prints which requests each step made of the file server.
    #[arg(long)]
    requests: bool,
    /// Runs Berth only.
    #[arg(long)]
    no_dovecot: bool,
}

const fn bulk(name: &'static str) -> Measure {
    Measure { name, unit: "ms", more_is_better: false, goal: Some(5.0) }
}
const fn single(name: &'static str) -> Measure {
    Measure { name, unit: "ms", more_is_better: false, goal: Some(1.0) }
}

const DELIVER: Measure = bulk("LMTP, 16 connections, all messages to one user");
const DELIVER_MANY: Measure = bulk("LMTP, 16 connections, all messages to 50 users");
const FETCH: Measure = bulk("FETCH of all bodies, host's cache empty");
const COPY: Measure = bulk("COPY of all messages");
const SELECT_NEW: Measure = single("SELECT of the second mailbox, never seen before");
const STORE: Measure = bulk("STORE on all of it");
const EXPUNGE: Measure = bulk("EXPUNGE of half of it");
const SELECT_WARM: Measure = single("SELECT of the rest, new session");
const SELECT_COLD: Measure = single("login and SELECT of the rest, server and host's cache new");
const LARGE_NEW: Measure = single("SELECT of the largest mailbox, never seen before");
const LARGE_WARM: Measure = single("SELECT of it, new session");
const LARGE_COLD: Measure = single("login and SELECT of it, server and host's cache new");
const LOGINS: Measure = single("50 users log in together, SELECT and LOGOUT, server and host's cache new");

/// A server under test.
struct Server<'a> {
    name: &'static str,
    lab: &'a Lab,
    node: Node,
    /// Below the export.
    mail: String,
    kind: Kind,
}

enum Kind {
    Berth,
    /// With the name of its configuration.
    Dovecot(String),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    lab::enter()?;
    let lab = Lab::attach()?;
    let name = format!("bench-{:08x}", rand::random::<u32>());
    lab.verb(&["delay", "off"])?;
    let cluster = lab.start(&name, &Plan { nodes: 1, users: STORM + 3, ..Plan::default() })?;
    let mut servers = vec![berth(&lab, &cluster, &name)?];
    if !arguments.no_dovecot {
        servers.push(dovecot(&lab, &name)?);
    }
    let mut rows: Vec<Row> = Vec::new();
    for (column, server) in servers.iter().enumerate() {
        let measured = server.measure(&arguments);
        lab.verb(&["delay", "off"])?;
        for (measure, milliseconds) in measured.with_context(|| server.name)? {
            eprintln!("{:<80} {:<8} {milliseconds:.0} ms", measure.name, server.name);
            let at = rows.iter().position(|row| row.measure.name == measure.name).unwrap_or_else(|| {
                rows.push(Row { measure, samples: vec![Vec::new(); servers.len()] });
                rows.len() - 1
            });
            rows[at].samples[column].push(Sample { value: milliseconds, cpu_us: None });
        }
        server.stop()?;
    }
    println!(
        "{} messages, {} in the second mailbox, {} in the largest; {} added to every answer of the file server:\n",
        arguments.messages, arguments.many, arguments.large, arguments.delay
    );
    print!("{}", markdown(&servers.iter().map(|server| server.name).collect::<Vec<_>>(), &rows));
    Ok(())
}

fn berth<'a>(lab: &'a Lab, cluster: &Cluster, name: &str) -> Result<Server<'a>> {
    let node = cluster.nodes.first().context("no node")?.clone();
    Ok(Server { name: "Berth", lab, node, mail: format!("{name}/mail/_"), kind: Kind::Berth })
}

/// Dovecot on the second host, as its documentation says for NFS behind a director: other hosts never work on the same user at a time.
fn dovecot<'a>(lab: &'a Lab, name: &str) -> Result<Server<'a>> {
    let mail = format!("{name}-dovecot");
    lab.exec("srv", &["sh", "-c", &format!("mkdir /export/{mail} && chown 8:8 /export/{mail}")])?;
    let configuration = format!(
        "base_dir = /run/dovecot-{name}\nstate_dir = /run/dovecot-{name}-state\nlog_path = /lab/{mail}.log\nprotocols = imap lmtp\nlisten = *\nssl = no\n\
         disable_plaintext_auth = no\nmail_location = maildir:/mnt/mail/{mail}/%n/Maildir\nmail_uid = 8\nmail_gid = 8\nfirst_valid_uid = 1\nfirst_valid_gid = 1\n\
         mmap_disable = yes\nmail_fsync = always\nmail_nfs_storage = no\nmail_nfs_index = no\n\
         auth_username_format = %n\nmail_max_userip_connections = 0\ndefault_process_limit = 2000\ndefault_client_limit = 20000\n\
         passdb {{\n  driver = static\n  args = password={PASSWORD}\n}}\nuserdb {{\n  driver = static\n  args = uid=8 gid=8 home=/mnt/mail/{mail}/%n allow_all_users=yes\n}}\n\
         namespace inbox {{\n  inbox = yes\n}}\nservice anvil {{\n  chroot =\n}}\nservice stats {{\n  chroot =\n}}\n\
         service imap-login {{\n  chroot =\n  inet_listener imaps {{\n    port = 0\n  }}\n}}\n\
         service lmtp {{\n  inet_listener lmtp {{\n    address = *\n    port = 24\n  }}\n}}\n"
    );
    let file = format!("{mail}.conf");
    fs::write(lab.share().join(&file), configuration)?;
    let server = Server { name: "Dovecot", lab, node: Node::at("n2", "10.77.0.12"), mail, kind: Kind::Dovecot(file) };
    server.start()?;
    Ok(server)
}

impl Server<'_> {
    fn measure(&self, arguments: &Arguments) -> Result<Vec<(Measure, f64)>> {
        let mut measured = Vec::new();
        self.plant("user2", arguments.many)?;
        self.plant("user3", arguments.large)?;
        let mut delayed = |measure: Measure, work: &mut dyn FnMut() -> Result<()>| -> Result<()> {
            let before = if arguments.requests { self.lab.requests(&self.node.name, lab::MAIL)? } else { BTreeMap::new() };
            self.lab.verb(&["delay", &arguments.delay])?;
            let start = wait::now();
            work().with_context(|| measure.name)?;
            let took = start.elapsed().as_secs_f64() * 1000.0;
            self.lab.verb(&["delay", "off"])?;
            if arguments.requests {
                let mut made = self.lab.requests(&self.node.name, lab::MAIL)?;
                made.retain(|name, count| {
                    *count -= before.get(name).copied().unwrap_or_default();
                    *count > 0
                });
                eprintln!("{}, {took:.0} ms: {made:?}", measure.name);
            }
            measured.push((measure, took));
            Ok(())
        };

        // The mailboxes are there, as they usually are.
        self.login("user1")?.command("CREATE Copies")?;
        self.storm()?;
        delayed(DELIVER_MANY, &mut || self.deliver(arguments.messages, |number| format!("user{}", number % STORM + 4)))?;
        delayed(DELIVER, &mut || self.deliver(arguments.messages, |_| "user1".to_owned()))?;
        let mut session = self.select("user1")?;
        self.forget()?;
        delayed(FETCH, &mut || session.command("FETCH 1:* (BODY.PEEK[])").map(drop))?;
        delayed(COPY, &mut || session.command("COPY 1:* Copies").map(drop))?;
        drop(session);

        let mut session = self.login("user2")?;
        delayed(SELECT_NEW, &mut || session.command("SELECT INBOX").map(drop))?;
        delayed(STORE, &mut || session.command("STORE 1:* +FLAGS.SILENT (\\Flagged)").map(drop))?;
        session.command(&format!("STORE 1:{} +FLAGS.SILENT (\\Deleted)", arguments.many / 2))?;
        delayed(EXPUNGE, &mut || session.command("EXPUNGE").map(drop))?;
        let mut second = self.login("user2")?;
        delayed(SELECT_WARM, &mut || second.command("SELECT INBOX").map(drop))?;
        drop((session, second));
        if arguments.large > 0 {
            let mut session = self.login("user3")?;
            delayed(LARGE_NEW, &mut || session.command("SELECT INBOX").map(drop))?;
            let mut second = self.login("user3")?;
            delayed(LARGE_WARM, &mut || second.command("SELECT INBOX").map(drop))?;
        }
        self.restart()?;
        delayed(SELECT_COLD, &mut || self.select("user2").map(drop))?;
        if arguments.large > 0 {
            delayed(LARGE_COLD, &mut || self.select("user3").map(drop))?;
        }
        // Everybody was here before.
        self.storm()?;
        self.restart()?;
        delayed(LOGINS, &mut || self.storm())?;
        Ok(measured)
    }

    fn login(&self, user: &str) -> Result<Client> {
        Client::login(&self.node.imap(), None, user, PASSWORD)
    }
    fn select(&self, user: &str) -> Result<Client> {
        let mut session = self.login(user)?;
        session.command("SELECT INBOX")?;
        Ok(session)
    }
    fn deliver(&self, messages: usize, to: impl Fn(usize) -> String + Sync) -> Result<()> {
        together(messages, |numbers| {
            let mut lmtp = Client::lmtp(&self.node.lmtp())?;
            while let Some(number) = numbers() {
                lmtp.deliver(&format!("{}@localhost", to(number)), &corpus::data(corpus::message(number)))?;
            }
            Ok(())
        })
    }
    fn storm(&self) -> Result<()> {
        together(STORM, |numbers| {
            while let Some(number) = numbers() {
                self.select(&format!("user{}", number + 4))?.command("LOGOUT")?;
            }
            Ok(())
        })
    }

    /// Messages as another program would have left them, with their sizes in their names; made on the file server.
    fn plant(&self, user: &str, count: usize) -> Result<()> {
        let script = format!(
            r#"import os
base = "/export/{}/{user}/Maildir"
for sub in ("cur", "new", "tmp"): os.makedirs(base + "/" + sub)
text = open("/lab/planted", "rb").read()
for number in range({count}):
    if number % 10000 == 0:
        original = base + "/tmp/original"
        if os.path.exists(original): os.remove(original)
        open(original, "wb").write(text)
        os.chown(original, {owner}, {owner})
    os.link(original, base + "/cur/%d.M%dP1.bench,S=%d,W=%d:2,S" % (1763700000 + number // 100, number, len(text), len(text)))
os.remove(original)
for folder in (base + "/..", base, base + "/cur", base + "/new", base + "/tmp"): os.chown(folder, {owner}, {owner})
"#,
            self.mail,
            owner = match self.kind {
                Kind::Berth => 0,
                Kind::Dovecot(_) => 8,
            }
        );
        if count > 0 {
            fs::write(self.lab.share().join("planted"), corpus::message(1))?;
            self.lab.exec("srv", &["python3", "-c", &script])?;
        }
        Ok(())
    }

    /// What the host has in its caches is forgotten.
    fn forget(&self) -> Result<()> {
        self.lab.exec(&self.node.name, &["sh", "-c", "sync; echo 3 >/proc/sys/vm/drop_caches"]).map(drop)
    }
    fn restart(&self) -> Result<()> {
        self.stop()?;
        self.forget()?;
        self.start()
    }
    fn process(&self) -> &'static str {
        match self.kind {
            Kind::Berth => "berth",
            Kind::Dovecot(_) => "dovecot",
        }
    }
    fn stop(&self) -> Result<()> {
        let process = self.process();
        let line = format!("pkill -TERM -x {process}; while pgrep -x {process} >/dev/null; do sleep 0.05; done");
        self.lab.exec(&self.node.name, &["sh", "-c", &line]).map(drop)
    }
    fn start(&self) -> Result<()> {
        match &self.kind {
            Kind::Berth => self.lab.serve(&self.node)?,
            Kind::Dovecot(file) => {
                let line = format!("exec dovecot -F -c /lab/{file} >>/lab/{file}.out 2>&1");
                self.lab.verb(&["exec", "-d", &self.node.name, "--", "sh", "-c", &line])?;
            }
        }
        wait::until("the server to take logins", LIMIT, || {
            let mut session = self.login("user1")?;
            session.command("LOGOUT").map(drop)
        })
    }
}

/// Runs `work` by several clients at once; each takes numbers until all are taken.
fn together(count: usize, work: impl Fn(&dyn Fn() -> Option<usize>) -> Result<()> + Sync) -> Result<()> {
    let next = Mutex::new(0..count);
    let numbers = || next.lock().ok().and_then(|mut next| next.next());
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS.min(count)).map(|_| scope.spawn(|| work(&numbers))).collect();
        clients.into_iter().map(|client| client.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))).collect()
    });
    results.into_iter().collect::<Result<()>>()?;
    ensure!(numbers().is_none(), "not all was done");
    Ok(())
}
