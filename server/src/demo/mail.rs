//! Sample mail, delivered as a mail transfer agent would: LMTP to any node.

use std::time::Duration;

use anyhow::bail;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    time::timeout,
};

use super::{
    Options,
    layout::{Layout, user},
};

/// Recipients of one transaction.
const RECIPIENTS: usize = 50;

/// Delivers `options.sample_mail` messages to each user, through all nodes in turn.
pub async fn deliver_samples(layout: &Layout, options: &Options) -> anyhow::Result<()> {
    let users: Vec<u32> = (1..=options.users).collect();
    for n in 1..=options.sample_mail {
        for (batch, recipients) in users.chunks(RECIPIENTS).enumerate() {
            let Some(node) = layout.nodes.get((usize::try_from(n)? + batch) % layout.nodes.len()) else { continue };
            timeout(Duration::from_secs(60), deliver(&node.lmtp(), recipients, n, &node.name)).await??;
        }
    }
    Ok(())
}

async fn deliver(lmtp: &str, users: &[u32], n: u32, node: &str) -> anyhow::Result<()> {
    let mut session = Session { stream: BufStream::new(TcpStream::connect(lmtp).await?) };
    session.expect("220").await?;
    session.say("LHLO localhost", "250").await?;
    session.say("MAIL FROM:<harbour@localhost>", "250").await?;
    for u in users {
        session.say(&format!("RCPT TO:<{}@localhost>", user(*u)), "250").await?;
    }
    session.say("DATA", "354").await?;
    session.stream.write_all(message(n, node).as_bytes()).await?;
    session.stream.write_all(b".\r\n").await?;
    session.stream.flush().await?;
    for _ in users {
        session.expect("250").await?;
    }
    session.say("QUIT", "221").await
}

struct Session {
    stream: BufStream<TcpStream>,
}

impl Session {
    async fn say(&mut self, line: &str, code: &str) -> anyhow::Result<()> {
        self.stream.write_all(line.as_bytes()).await?;
        self.stream.write_all(b"\r\n").await?;
        self.stream.flush().await?;
        self.expect(code).await
    }

    async fn expect(&mut self, code: &str) -> anyhow::Result<()> {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await?;
            if !line.starts_with(code) {
                bail!("the node answered {:?} where {code} was expected", line.trim_end());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(());
            }
        }
    }
}

fn message(n: u32, node: &str) -> String {
    let date = jiff::fmt::rfc2822::to_string(&jiff::Zoned::now()).unwrap_or_else(|_| "Sat, 1 Jan 2000 00:00:00 +0000".to_owned());
    let subject = match n {
        1 => "Welcome to Berth",
        2 => "Where this message is",
        _ => "=?utf-8?q?Gr=C3=BC=C3=9Fe_aus_dem_Hafen?=",
    };
    format!(
        "From: The harbour master <harbour@localhost>\r\nTo: you\r\nSubject: {subject}\r\nDate: {date}\r\nMessage-ID: <sample-{n}-{}@localhost>\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
         This message came over LMTP to {node} and was stored by the node that holds your lease.\r\n\
         Whichever node your mail program connects to, that one serves you: ask `berth who`.\r\n",
        rand::random::<u32>(),
    )
}
