//! `berth tls show`: the certificates that clients are shown, from the files and from the node that runs here; `berth tls renew`.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{
    acme::{
        Folder,
        claim::{Claim, renewal_at},
        renewal::date as time,
    },
    command::{
        ConfigFile,
        control::{self, RenewReply, Request, TlsReply},
        many, table,
    },
    config::{Config, MinVersion},
    tls::{self, certificate::Facts},
};

/// Show certificates for clients
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  berth tls show\n  berth tls show --json\n  berth tls renew")]
pub struct TlsArgs {
    #[command(subcommand)]
    command: TlsCommand,
}

#[derive(Debug, Subcommand)]
enum TlsCommand {
    /// Show each certificate: its names, how long it is valid, who signed it, and whether the node on this host serves it
    ///
    /// The first one is for clients that ask for no other's name. Exit code 1 where one can't be used, is over, or ends within `tls.warn_before`.
    Show {
        #[command(flatten)]
        config: ConfigFile,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Get a new certificate by ACME now, with a new key: once the reason of a failure is gone, or after a key was seen by others
    ///
    /// The node on this host orders it; all nodes serve it within seconds. Without this, nodes renew by themselves.
    Renew {
        #[command(flatten)]
        config: ConfigFile,
    },
}

/// All that is shown.
#[derive(Debug, PartialEq, Serialize)]
struct Shown {
    min_version: MinVersion,
    /// As in `imaps [::]:993`; every certificate is served on all of them.
    listeners: Vec<String>,
    /// Whether a node runs on this host.
    running: bool,
    certificates: Vec<Row>,
    /// What nodes get themselves; `None` without [tls.acme].
    acme: Option<Acme>,
}

/// `[tls.acme]`
#[derive(Debug, Default, PartialEq, Serialize)]
struct Acme {
    directory: String,
    names: Vec<String>,
    /// When the certificate is renewed: seconds since 1970.
    renewal: Option<i64>,
    /// The node that orders one at present.
    ordering: Option<String>,
    /// Orders that failed since the last that did not.
    failures: u32,
    /// The node whose order failed last: its log says why.
    failed_on: Option<String>,
    /// When the next is made: seconds since 1970.
    next_try: Option<i64>,
    /// What is to be done about it.
    problem: Option<String>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Row {
    certificate: PathBuf,
    key: PathBuf,
    #[serde(flatten)]
    facts: Option<Facts>,
    /// Whole days until its end.
    days_left: Option<i64>,
    /// Whether the node on this host serves exactly this one; `None` where none runs.
    served: Option<bool>,
    /// What is to be done about it.
    problem: Option<String>,
}

pub(in crate::command) fn run(args: &TlsArgs) -> anyhow::Result<()> {
    let (config, json) = match &args.command {
        TlsCommand::Show { config, json } => (config.load()?, json),
        TlsCommand::Renew { config } => return renew(&config.load()?),
    };
    let running: Option<TlsReply> = control::ask(&config.control_socket(), &Request::Tls)?;
    let shown = shown(&config, running.as_ref())?;
    let mut out = io::stdout().lock();
    if *json {
        writeln!(out, "{}", serde_json::to_string(&shown)?)?;
    } else {
        print(&mut out, &shown)?;
    }
    let wrong = shown.certificates.iter().filter(|row| row.problem.is_some()).count();
    anyhow::ensure!(wrong == 0, "{wrong} of {} need attention", many(shown.certificates.len(), "certificate"));
    anyhow::ensure!(shown.acme.is_none_or(|acme| acme.problem.is_none()), "the certificate by ACME needs attention");
    Ok(())
}

fn renew(config: &Config) -> anyhow::Result<()> {
    anyhow::ensure!(config.tls.acme.is_some(), "there is no [tls.acme] in the configuration: new files of [tls] are read by themselves");
    let reply: Option<RenewReply> = control::ask(&config.control_socket(), &Request::Renew)?;
    let reply = reply.context("no node runs on this host: ask on one where a node runs")?;
    if let Some(why) = reply.nothing {
        anyhow::bail!("no certificate was ordered: {why}");
    }
    writeln!(io::stdout(), "a new certificate is here; every node serves it within seconds (berth tls show)")?;
    Ok(())
}

/// What the claim on the shared directory says.
fn acme(config: &Config, certificate: Option<&Facts>) -> anyhow::Result<Option<Acme>> {
    let Some(section) = &config.tls.acme else { return Ok(None) };
    let folder = Folder::of(&config.node.root, section);
    let seen = folder.and_then(|folder| folder.look()).context("can't look at acme/ on the shared directory")?;
    let claim = seen.map_or(Claim::NEW, |seen| seen.claim);
    let node = claim.by.as_ref().map(|by| by.node.to_string());
    let failed = !claim.held && claim.failures > 0;
    let problem = (certificate.is_none() || failed).then(|| match (&node, failed) {
        (Some(node), true) => format!("{} orders in a row failed, the last one on {node}: its log says why", claim.failures),
        _ => "there is no certificate yet".to_owned(),
    });
    Ok(Some(Acme {
        directory: section.directory.clone(),
        names: section.names.clone(),
        renewal: certificate.map(renewal_at),
        ordering: node.clone().filter(|_| claim.held),
        failures: claim.failures,
        failed_on: node.filter(|_| failed),
        next_try: failed.then_some(claim.retry_at),
        problem,
    }))
}

fn shown(config: &Config, running: Option<&TlsReply>) -> anyhow::Result<Shown> {
    let listen = &config.listen;
    let doors = [("imap (STARTTLS)", &listen.imap), ("imaps", &listen.imaps), ("pop3 (STLS)", &listen.pop3), ("pop3s", &listen.pop3s)];
    let lmtp = [("lmtp (STARTTLS)", &listen.lmtp), ("sent (STARTTLS)", &listen.sent)];
    let doors = doors.into_iter().flat_map(|(name, addresses)| addresses.iter().map(move |address| format!("{name} {address}")));
    let lmtp = lmtp.into_iter().flat_map(|(name, addresses)| addresses.iter().map(move |address| format!("{name} {address}")));
    let listeners = doors.chain(lmtp);
    let mut renewed = None;
    let rows = tls::read(&config.tls, &config.node.root)?.into_iter().map(|tls::Read { files, acme, certificate }| {
        let now = affinity::clock::wall_clock();
        let (facts, mut problem) = match certificate {
            Ok(certificate) => {
                let warning = certificate.warning(now, config.tls.warn_before);
                if acme {
                    renewed = Some(certificate.facts.clone());
                }
                (Some(certificate.facts), warning)
            }
            Err(error) => (None, Some(format!("{error:#}"))),
        };
        let served = running.map(|running| facts.as_ref().is_some_and(|facts| running.fingerprints.contains(&facts.fingerprint)));
        if served == Some(false) && problem.is_none() {
            problem = Some("is not what the node serves: reload it, and see its log".to_owned());
        }
        let days_left = facts.as_ref().map(|facts| facts.days_left(now));
        Row { certificate: files.certificate, key: files.key, facts, days_left, served, problem }
    });
    let certificates = rows.collect();
    let acme = acme(config, renewed.as_ref())?;
    Ok(Shown { min_version: config.tls.min_version, listeners: listeners.collect(), running: running.is_some(), certificates, acme })
}

fn print(out: &mut impl Write, shown: &Shown) -> io::Result<()> {
    if shown.certificates.is_empty() && shown.acme.is_none() {
        return writeln!(out, "no certificate is configured ([tls] certificate and key): clients can't use TLS");
    }
    let rows = shown.certificates.iter().map(|row| {
        let facts = row.facts.as_ref();
        vec![
            facts.map_or_else(|| "-".to_owned(), |facts| facts.names.join(" ")),
            facts.map_or_else(|| "-".to_owned(), |facts| date(facts.not_before)),
            facts.map_or_else(|| "-".to_owned(), |facts| date(facts.not_after)),
            row.days_left.map_or_else(|| "-".to_owned(), |days| days.to_string()),
            row.served.map_or("-", |served| if served { "yes" } else { "no" }).to_owned(),
            facts.map_or_else(|| "-".to_owned(), |facts| facts.issuer.clone()),
            row.certificate.display().to_string(),
        ]
    });
    table::print(out, &["NAMES", "FROM", "UNTIL", "DAYS", "SERVED", "ISSUER", "FILE"], &rows.collect::<Vec<_>>())?;
    let version = match shown.min_version {
        MinVersion::Tls12 => "1.2",
        MinVersion::Tls13 => "1.3",
    };
    writeln!(out, "TLS {version} and newer on: {}", shown.listeners.join(", "))?;
    if !shown.running {
        writeln!(out, "no node runs on this host: these are the files")?;
    }
    if let Some(acme) = &shown.acme {
        let state = match (&acme.ordering, acme.next_try, acme.renewal) {
            (Some(node), _, _) => format!("{node} orders one at present"),
            (None, Some(next), _) => format!("the next order is made at {}", time(next)),
            (None, None, Some(renewal)) => format!("renewed from {} on", time(renewal)),
            (None, None, None) => "the first is ordered when a node runs".to_owned(),
        };
        writeln!(out, "{} by ACME from {}: {state}", acme.names.join(" "), acme.directory)?;
        if let Some(problem) = &acme.problem {
            writeln!(out, "{problem}")?;
        }
    }
    for row in &shown.certificates {
        if let Some(problem) = &row.problem {
            writeln!(out, "{}: {problem}", row.certificate.display())?;
        }
    }
    Ok(())
}

fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "-".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::config::CertificateFiles;

    #[test]
    fn every_certificate_has_a_line_and_what_is_wrong_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::new(Path::new("/srv/berth"));
        for name in ["one.example.org", "two.example.org"] {
            let files =
                CertificateFiles { certificate: folder.path().join(format!("{name}.pem")), key: folder.path().join(format!("{name}.key")) };
            let (chain, key) = tls::self_signed(&[name.to_owned()]).unwrap();
            fs::write(&files.certificate, chain).unwrap();
            fs::write(&files.key, key).unwrap();
            config.tls.sni.push(files);
        }
        let CertificateFiles { certificate, key } = config.tls.sni.remove(0);
        (config.tls.certificate, config.tls.key) = (Some(certificate), Some(key));
        let text = |shown: &Shown| {
            let mut out = Vec::new();
            print(&mut out, shown).unwrap();
            String::from_utf8(out).unwrap()
        };

        let from_files = shown(&config, None).unwrap();
        assert!(from_files.certificates.iter().all(|row| row.problem.is_none() && row.served.is_none()), "{from_files:?}");
        let said = text(&from_files);
        assert!(said.contains("\none.example.org  ") && said.contains("\ntwo.example.org  "), "{said}");
        assert!(said.contains("TLS 1.2 and newer on: imap (STARTTLS) [::]:143, imaps [::]:993, "), "{said}");

        let first = from_files.certificates[0].facts.as_ref().unwrap().fingerprint.clone();
        let running = shown(&config, Some(&TlsReply { fingerprints: vec![first] })).unwrap();
        assert_eq!(running.certificates.iter().map(|row| row.served).collect::<Vec<_>>(), [Some(true), Some(false)]);
        assert!(text(&running).contains("two.example.org.pem: is not what the node serves: reload it"), "{}", text(&running));

        fs::write(&config.tls.sni[0].certificate, "nonsense").unwrap();
        let broken = text(&shown(&config, None).unwrap());
        assert!(broken.contains("two.example.org.pem: can't use the certificate"), "{broken}");
    }
}
