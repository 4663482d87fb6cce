//! Programs that read mail get every message once and unchanged, through whichever node they come in.

use tests::{
    Context, Result,
    clients::lmtp::Lmtp,
    mail, need,
    peers::readers::{READERS, Reader},
    site::Site,
};

/// Enough for several of each kind of message, and one large one.
const MESSAGES: usize = 30;

fn reads_every_message_once_and_unchanged(name: &str) -> Result<()> {
    let reader: &Reader = READERS.iter().find(|reader| reader.name == name).context("no such reader")?;
    let site = Site::start(3, 1)?;
    let user = &site.users[0];
    let sent = mail::messages("readers", MESSAGES);
    // The first delivery makes a node the holder; the others come in through all nodes.
    let mut lmtp = site.nodes.iter().map(|node| Lmtp::connect(&node.lmtp)).collect::<Result<Vec<_>>>()?;
    for (number, message) in sent.values().enumerate() {
        let node = number % lmtp.len();
        lmtp[node].deliver_ok("ada@tests.example", &[&user.address()], message)?;
    }
    // Through every node: two of the three are not the holder.
    for node in &site.nodes {
        let received =
            (reader.read)(node, user).with_context(|| format!("{name} through {}; the server's log:\n{}", node.name, site.log()))?;
        mail::check_exactly_once(&sent, received.iter().map(Vec::as_slice)).with_context(|| format!("{name} through {}", node.name))?;
        if Site::is_dovecot() {
            break;
        }
    }
    Ok(())
}

macro_rules! readers {
    ($($test:ident: $name:literal needs $($program:literal),+;)+) => { $(
        #[test]
        fn $test() -> Result<()> {
            need!($($program),+);
            reads_every_message_once_and_unchanged($name)
        }
    )+ };
}

readers! {
    python_imaplib_reads_every_message_through_every_node: "Python imaplib" needs "python3";
    python_imaplib_over_tls_reads_every_message_through_every_node: "Python imaplib over TLS" needs "python3";
    python_poplib_reads_every_message_through_every_node: "Python poplib" needs "python3";
    curl_reads_every_message_over_imap_through_every_node: "curl imap://" needs "curl";
    curl_reads_every_message_over_pop3_through_every_node: "curl pop3://" needs "curl";
    mbsync_copies_every_message_through_every_node: "mbsync" needs "mbsync";
    fetchmail_takes_every_message_over_imap_through_every_node: "fetchmail over IMAP" needs "fetchmail";
    fetchmail_takes_every_message_over_pop3_through_every_node: "fetchmail over POP3" needs "fetchmail";
    neomutt_copies_every_message_through_every_node: "NeoMutt" needs "neomutt", "script";
}
