//! Whole conversations over an in-memory stream, with users and deliveries made up.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use affinity::UserName;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::{
    client::Protocol,
    config::OverQuota,
    tls::{Tls, section},
};

struct Delivered {
    client: SocketAddr,
    envelope: Envelope,
    to: Vec<Addressee>,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct FakeNode {
    message_bytes_max: Option<u64>,
    spool_dir: Option<PathBuf>,
    tls: Option<TlsAcceptor>,
    /// Who may deliver, in TLS or without; default: everybody.
    access: Option<fn(bool) -> Access>,
    delivered: Mutex<Vec<Delivered>>,
}

impl Backend for FakeNode {
    fn settings(&self) -> Settings {
        Settings {
            node: "node-a".parse().unwrap(),
            message_bytes_max: self.message_bytes_max.unwrap_or(1000),
            recipients_max: 3,
            bad_commands_max: 3,
            spool_dir: self.spool_dir.clone().unwrap_or_default(),
            profile: Profile::default(),
        }
    }
    fn access(&self, tls: Option<&TlsFacts>) -> Access {
        self.access.map_or(Access::Granted, |access| access(tls.is_some()))
    }
    fn trusts(&self, peer: IpAddr) -> bool {
        peer == "127.0.0.9".parse::<IpAddr>().unwrap()
    }
    fn tls(&self) -> Option<TlsAcceptor> {
        self.tls.clone()
    }
    async fn recipient(&self, address: &str) -> Result<Option<Recipient>, AuthError> {
        let (local, detail) = match address.split('@').next().unwrap_or_default().split_once('+') {
            Some((local, detail)) => (local, Some(detail.to_owned())),
            None => (address.split('@').next().unwrap_or_default(), None),
        };
        match local {
            "nobody" => Ok(None),
            "unsure" => Err(AuthError::Unavailable("the directory is away".into())),
            local => Ok(Some(Recipient { user: UserName::normalise(local).unwrap(), detail })),
        }
    }
    fn over_quota(&self, recipient: &Recipient, bytes: u64) -> Option<Reply> {
        (recipient.user.as_str() == "brimful" || (recipient.user.as_str() == "nearly" && bytes > 100))
            .then(|| reply::over_quota(OverQuota::Refuse))
    }
    async fn deliver(&self, client: &Client, envelope: &Envelope, to: &[Addressee], message: &Message) -> Vec<Outcome> {
        let mut bytes = vec![0; usize::try_from(message.len()).unwrap()];
        assert_eq!(message.read_at(0, &mut bytes).unwrap(), bytes.len());
        self.delivered.lock().unwrap().push(Delivered { client: client.address, envelope: envelope.clone(), to: to.to_vec(), bytes });
        to.iter()
            .map(|to| match to.user.as_str() {
                "full" => Outcome { code: 452, enhanced: "4.2.2".into(), text: format!("<{}> Mailbox is full", to.address) },
                _ => Outcome { code: 250, enhanced: "2.0.0".into(), text: format!("<{}> Saved", to.address) },
            })
            .collect()
    }
}

fn connection(address: &str) -> (DuplexStream, Connection) {
    let (theirs, ours) = duplex(1 << 20);
    let client = Client {
        session: crate::client::SessionId::random(),
        address: address.parse().unwrap(),
        local: "127.0.0.1:24".parse().unwrap(),
        ingress: "node-a".parse().unwrap(),
        tls: None,
    };
    (theirs, Connection::new(Box::new(ours), client, bytes::BytesMut::new(), Duration::from_secs(10)))
}

/// All that is said to a client that sends `script` in one piece, without the greeting.
async fn talk(node: &FakeNode, script: &str) -> Vec<String> {
    let (mut client, connection) = connection("127.0.0.1:9");
    client.write_all(script.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    run(node, connection).await;
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    let mut lines: Vec<String> = said.split_terminator("\r\n").map(str::to_owned).collect();
    assert!(lines.remove(0).starts_with("220 node-a "));
    lines
}

fn codes(lines: &[String]) -> Vec<&str> {
    lines.iter().map(|line| &line[..3]).collect()
}

const LHLO: [&str; 8] = [
    "250-node-a",
    "250-PIPELINING",
    "250-8BITMIME",
    "250-SMTPUTF8",
    "250-CHUNKING",
    "250-BINARYMIME",
    "250-SIZE 1000",
    "250 ENHANCEDSTATUSCODES",
];

#[tokio::test]
async fn the_example_of_rfc_2033_goes_as_the_rfc_says() {
    let node = FakeNode::default();
    let said = talk(
        &node,
        "LHLO foo.edu\r\nMAIL FROM:<chris@bar.com>\r\nRCPT TO:<pat@foo.edu>\r\nRCPT TO:<nobody@foo.edu>\r\nRCPT TO:<full@foo.edu>\r\n\
         DATA\r\nBlah blah blah...\r\n..etc. etc. etc.\r\n.\r\nQUIT\r\n",
    )
    .await;
    assert_eq!(said[..8], LHLO);
    assert_eq!(
        said[8..],
        [
            "250 2.1.0 OK",
            "250 2.1.5 OK",
            "550 5.1.1 <nobody@foo.edu> No such user here",
            "250 2.1.5 OK",
            "354 End the message with a dot on a line",
            "250 2.0.0 <pat@foo.edu> Saved",
            "452 4.2.2 <full@foo.edu> Mailbox is full",
            "221 2.0.0 Bye",
        ]
    );
    let delivered = node.delivered.lock().unwrap();
    let Delivered { envelope, to, bytes, .. } = &delivered[0];
    assert_eq!(
        *envelope,
        Envelope { sender: "chris@bar.com".into(), lhlo: "foo.edu".into(), with: "LMTP".into(), profile: Profile::Inbox }
    );
    assert_eq!(to.iter().map(|to| to.user.as_str()).collect::<Vec<_>>(), ["pat", "full"]);
    assert_eq!(String::from_utf8_lossy(bytes), "Blah blah blah...\r\n.etc. etc. etc.\r\n");
}

#[tokio::test]
async fn what_is_known_to_be_full_is_refused_before_the_message() {
    let node = FakeNode::default();
    let said = talk(
        &node,
        "LHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<brimful@a>\r\nRCPT TO:<nearly@a>\r\nRSET\r\nMAIL FROM:<> SIZE=101\r\nRCPT TO:<nearly@a>\r\n",
    )
    .await;
    assert_eq!(
        said[said.len() - 5..],
        ["552 5.2.2 The mailbox is full", "250 2.1.5 OK", "250 2.0.0 OK", "250 2.1.0 OK", "552 5.2.2 The mailbox is full"]
    );
}

#[tokio::test]
async fn each_accepted_recipient_has_its_own_reply_in_order() {
    let node = FakeNode::default();
    let said = talk(
        &node,
        "LHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<ada+x@a>\r\nRCPT TO:<full@a>\r\nRCPT TO:<ada>\r\nRCPT TO:<more@a>\r\nDATA\r\n.\r\n",
    )
    .await;
    assert_eq!(codes(&said[9..]), ["250", "250", "250", "452", "354", "250", "452", "250"]);
    assert!(said[12].starts_with("452 4.5.3 "), "{}", said[12]);
    let delivered = node.delivered.lock().unwrap();
    assert_eq!(delivered[0].envelope.sender, "");
    assert_eq!(delivered[0].to[0].detail.as_deref(), Some("x"));
    assert_eq!(delivered[0].bytes, b"");
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_order() {
    let node = FakeNode::default();
    let one = "MAIL FROM:<g@b> SIZE=5 BODY=8BITMIME\r\nRCPT TO:<ada@a>\r\nDATA\r\nhi\r\n.\r\n";
    let said = talk(&node, &format!("LHLO a\r\n{one}NOOP\r\n{one}RSET\r\nVRFY ada\r\nQUIT\r\nNOOP\r\n")).await;
    assert_eq!(codes(&said[8..]), ["250", "250", "354", "250", "250", "250", "250", "354", "250", "250", "252", "221"]);
    assert_eq!(node.delivered.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_message_is_the_same_byte_by_byte() {
    let node = FakeNode::default();
    let (mut client, connection) = connection("127.0.0.1:9");
    let script = "LHLO a\r\nMAIL FROM:<g@b>\r\nRCPT TO:<ada@a>\r\nDATA\r\n..a\n.\r\nb\r\n.\r\nQUIT\r\n";
    let feed = async {
        for byte in script.bytes() {
            client.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(feed, run(&node, connection));
    assert_eq!(node.delivered.lock().unwrap()[0].bytes, b".a\n.\r\nb\r\n");
}

#[tokio::test]
async fn commands_out_of_order_are_refused_with_503() {
    let node = FakeNode::default();
    let said = talk(
        &node,
        "MAIL FROM:<a@b>\r\nRCPT TO:<ada@a>\r\nDATA\r\nLHLO a\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\nRCPT TO:<nobody@a>\r\nDATA\r\nRSET\r\nRCPT TO:<ada@a>\r\n",
    )
    .await;
    assert_eq!(codes(&said[..3]), ["503", "503", "503"]);
    assert_eq!(codes(&said[11..]), ["250", "503", "550", "503", "250", "503"]);
    assert!(node.delivered.lock().unwrap().is_empty());
}

#[tokio::test]
async fn lhlo_starts_over() {
    let node = FakeNode::default();
    let said = talk(&node, "LHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ada@a>\r\nLHLO a\r\nDATA\r\n").await;
    assert_eq!(said.last().unwrap(), "503 5.5.1 Say MAIL and RCPT first");
}

#[tokio::test]
async fn smtp_greetings_are_refused() {
    let said = talk(&FakeNode::default(), "EHLO a\r\nHELO a\r\nSTARTTLS\r\n").await;
    assert_eq!(codes(&said), ["500", "500", "502"]);
}

#[tokio::test]
async fn a_message_comes_in_chunks_as_in_the_example_of_rfc_3030() {
    let node = FakeNode::default();
    let head = "LHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ada@a>\r\nRCPT TO:<full@a>\r\n";
    let said = talk(&node, &format!("{head}BDAT 11\r\nSubject: x\rBDAT 6 LAST\r\n\n.\r\nQUNOOP\r\n")).await;
    assert_eq!(
        said[11..],
        ["250 2.0.0 11 octets received", "250 2.0.0 <ada@a> Saved", "452 4.2.2 <full@a> Mailbox is full", "250 2.0.0 OK"]
    );
    assert_eq!(node.delivered.lock().unwrap()[0].bytes, b"Subject: x\r\n.\r\nQU", "a dot alone ends nothing");
}

#[tokio::test]
async fn the_bytes_of_a_refused_chunk_are_no_commands() {
    let node = FakeNode::default();
    let head = "LHLO a\r\nMAIL FROM:<a@b>\r\n";
    let said = talk(&node, &format!("{head}BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")).await;
    assert_eq!(codes(&said[8..]), ["250", "503", "250"], "no recipient yet");
    let said = talk(
        &node,
        &format!("{head}RCPT TO:<ada@a>\r\nBDAT 1001\r\n{}BDAT 1\r\nxBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", "Q\r\n".repeat(333) + "QU"),
    )
    .await;
    assert_eq!(codes(&said[8..]), ["250", "250", "552", "552", "552", "250"], "too large once is too large for good");
    assert!(node.delivered.lock().unwrap().is_empty());
}

#[tokio::test]
async fn chunks_and_data_do_not_mix() {
    let node = FakeNode::default();
    let head = "MAIL FROM:<a@b>\r\nRCPT TO:<ada@a>\r\n";
    let said =
        talk(&node, &format!("LHLO a\r\n{head}BDAT 1\r\nxDATA\r\nRCPT TO:<ada@a>\r\nMAIL FROM:<a@b>\r\nRSET\r\n{head}DATA\r\n.\r\n")).await;
    assert_eq!(codes(&said[8..]), ["250", "250", "250", "503", "503", "503", "250", "250", "250", "354", "250"]);
    let delivered = node.delivered.lock().unwrap();
    assert_eq!(delivered.iter().map(|one| one.bytes.as_slice()).collect::<Vec<_>>(), [b""], "RSET forgets what came");
}

#[tokio::test]
async fn binary_content_comes_by_chunks_only_and_is_stored_as_lines() {
    let node = FakeNode::default();
    let head = "LHLO a\r\nMAIL FROM:<a@b> BODY=BINARYMIME\r\nRCPT TO:<ada@a>\r\nDATA\r\n";
    let message = "Content-Type: application/x\r\nContent-Transfer-Encoding: binary\r\n\r\na\0\nb\r";
    let said = talk(&node, &format!("{head}BDAT {} LAST\r\n{message}", message.len())).await;
    assert_eq!(codes(&said[8..]), ["250", "250", "503", "250"]);
    let delivered = node.delivered.lock().unwrap();
    assert_eq!(delivered[0].bytes, b"Content-Type: application/x\r\nContent-Transfer-Encoding: base64\r\n\r\nYQAKYg0=\r\n");
}

#[tokio::test]
async fn only_trusted_networks_speak_for_others() {
    let node = FakeNode::default();
    let said = talk(&node, "LHLO a\r\nXCLIENT ADDR=192.0.2.9\r\nXFORWARD ADDR=192.0.2.9\r\n").await;
    assert_eq!(codes(&said[8..]), ["550", "550"]);

    let (mut client, connection) = connection("127.0.0.9:9");
    let script = "LHLO a\r\nXCLIENT ADDR=192.0.2.9 NAME=x HELO=y\r\nMAIL FROM:<a@b>\r\nLHLO b\r\nXFORWARD LOGIN=x\r\nXFORWARD IDENT=4F\r\n\
                  MAIL FROM:<a@b>\r\nXCLIENT NAME=x\r\nRCPT TO:<ada@a>\r\nDATA\r\n.\r\n";
    client.write_all(script.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    run(&node, connection).await;
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    let lines: Vec<String> = said.split_terminator("\r\n").map(str::to_owned).collect();
    assert!(lines.iter().any(|line| line.starts_with("250-XFORWARD NAME ")), "{said}");
    assert_eq!(codes(&lines[11..13]), ["220", "503"], "XCLIENT starts over");
    assert_eq!(codes(&lines[23..]), ["501", "250", "250", "503", "250", "354", "250"]);
    assert_eq!(node.delivered.lock().unwrap()[0].client.to_string(), "192.0.2.9:9");
}

#[tokio::test]
async fn users_that_cannot_be_looked_up_are_asked_again_later() {
    let said = talk(&FakeNode::default(), "LHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<unsure@a>\r\n").await;
    assert!(said.last().unwrap().starts_with("454 4.7.0 "));
}

#[tokio::test]
async fn an_address_beyond_ascii_needs_smtputf8() {
    let said = talk(
        &FakeNode::default(),
        "LHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<zoë@a>\r\nRSET\r\nMAIL FROM:<é@b> SMTPUTF8\r\nRCPT TO:<zoë@a>\r\n",
    )
    .await;
    assert_eq!(codes(&said[8..]), ["250", "553", "250", "250", "250"]);
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_for_every_recipient() {
    let node = FakeNode::default();
    let head = "MAIL FROM:<a@b>\r\nRCPT TO:<ada@a>\r\nRCPT TO:<full@a>\r\nDATA\r\n";
    let said = talk(&node, &format!("LHLO a\r\nMAIL FROM:<a@b> SIZE=1001\r\n{head}{}\r\n.\r\nNOOP\r\n", "x".repeat(999))).await;
    assert_eq!(codes(&said[8..]), ["552", "250", "250", "250", "354", "552", "552", "250"]);
    assert!(said[8].starts_with("552 5.3.4 "));
    assert!(node.delivered.lock().unwrap().is_empty());
    let said = talk(&node, &format!("LHLO a\r\n{head}{}\r\n.\r\nNOOP\r\n", "x".repeat(998))).await;
    assert_eq!(codes(&said[11..]), ["354", "250", "452", "250"], "exactly the limit is taken");
}

#[tokio::test]
async fn a_large_message_passes_through_the_spool_folder() {
    let dir = tempfile::tempdir().unwrap();
    let node = FakeNode { message_bytes_max: Some(10_000_000), spool_dir: Some(dir.path().to_owned()), ..FakeNode::default() };
    let message = "0123456789abcdef\r\n".repeat(40_000);
    let script = format!("LHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ada@a>\r\nDATA\r\n{message}.\r\nQUIT\r\n");
    assert_eq!(talk(&node, &script).await.last().unwrap(), "221 2.0.0 Bye");
    assert!(node.delivered.lock().unwrap()[0].bytes == message.as_bytes());
}

#[tokio::test]
async fn without_room_for_a_large_message_the_sender_tries_again() {
    let node = FakeNode { message_bytes_max: Some(10_000_000), spool_dir: Some("/nonexistent".into()), ..FakeNode::default() };
    let message = "0123456789abcdef\r\n".repeat(40_000);
    let said = talk(&node, &format!("LHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ada@a>\r\nDATA\r\n{message}.\r\nNOOP\r\n")).await;
    assert!(said[said.len() - 2].starts_with("452 4.3.1 "));
    assert_eq!(said.last().unwrap(), "250 2.0.0 OK");
}

#[tokio::test]
async fn too_many_wrong_commands_end_the_connection() {
    let said = talk(&FakeNode::default(), &format!("A\r\n{}\r\nC\r\nD\r\nE\r\n", "x".repeat(5000))).await;
    assert_eq!(codes(&said), ["500", "500", "500", "500", "421"]);
    assert_eq!(said[1], "500 5.5.2 The line is too long");
}

#[tokio::test]
async fn recipients_after_a_refused_mail_do_not_count_as_wrong() {
    let said =
        talk(&FakeNode::default(), &format!("LHLO a\r\nMAIL FROM:<a@b> AUTH=<>\r\n{}DATA\r\nNOOP\r\n", "RCPT TO:<ada@a>\r\n".repeat(20)))
            .await;
    assert_eq!(said[8], "555 5.5.4 The parameter AUTH is not supported");
    assert_eq!(said.last().unwrap(), "250 2.0.0 OK");
}

#[tokio::test]
async fn networks_that_may_not_deliver_are_told_so() {
    let (mut client, connection) = connection("192.0.2.7:9");
    run(&FakeNode { access: Some(|_| Access::Refused), ..FakeNode::default() }, connection).await;
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "554 5.7.1 node-a does not take mail from 192.0.2.7\r\n");
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_told_goodbye() {
    let (mut client, connection) = connection("127.0.0.1:9");
    client.write_all(b"LHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ada@a>\r\nDATA\r\nhalf a mess").await.unwrap();
    let node = FakeNode::default();
    run(&node, connection).await;
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert!(said.ends_with("\r\n421 4.4.2 node-a waited too long for you\r\n"), "{said}");
    assert!(node.delivered.lock().unwrap().is_empty());
}

/// A server's TLS, and a client that trusts exactly it.
pub(crate) fn tls() -> (TlsAcceptor, TlsConnector) {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let (chain, private) = crate::tls::self_signed(&["mail.example.org".to_owned()]).unwrap();
    std::fs::write(&certificate, chain).unwrap();
    std::fs::write(&key, private).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = Tls::load(&section(&certificate, &key), Path::new("/")).unwrap().unwrap();
    (tls.acceptor(Protocol::Lmtp), TlsConnector::from(Arc::new(config)))
}

/// Says `plain` in one piece, reads replies up to `begin`, then goes on in TLS.
pub(crate) async fn upgrade(mut client: DuplexStream, connector: TlsConnector, plain: &str, begin: &str) -> TlsStream<DuplexStream> {
    client.write_all(plain.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(begin.as_bytes()) {
        said.push(client.read_u8().await.unwrap());
    }
    connector.connect(ServerName::try_from("mail.example.org").unwrap(), client).await.unwrap()
}

#[tokio::test]
async fn without_a_certificate_nothing_is_delivered_where_one_is_needed() {
    for (granted, expected) in [(false, "554 5.7.1 node-a does not take mail from 127.0.0.1 with this certificate"), (true, "250 2.1.0 OK")]
    {
        let (acceptor, connector) = tls();
        let access: fn(bool) -> Access = match granted {
            true => |in_tls| if in_tls { Access::Granted } else { Access::NeedsCertificate },
            false => |in_tls| if in_tls { Access::Refused } else { Access::NeedsCertificate },
        };
        let node = FakeNode { tls: Some(acceptor), access: Some(access), ..FakeNode::default() };
        let (client, connection) = connection("127.0.0.1:9");
        let talk = async {
            let plain = "LHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ada@a>\r\nSTARTTLS\r\n";
            let mut client = upgrade(client, connector, plain, "220 2.0.0 Begin TLS\r\n").await;
            client.write_all(b"LHLO a\r\nMAIL FROM:<a@b>\r\nQUIT\r\n").await.unwrap();
            let mut said = String::new();
            client.read_to_string(&mut said).await.unwrap();
            said
        };
        let (_, said) = tokio::join!(run(&node, connection), talk);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[lines.len() - 2], expected, "{said}");
    }
    let node = FakeNode { access: Some(|_| Access::NeedsCertificate), ..FakeNode::default() };
    let said = talk(&node, "LHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<ada@a>\r\n").await;
    assert!(said.contains(&"530 5.7.0 Say STARTTLS first, and show a certificate that may deliver here".to_owned()), "{said:?}");
}

#[tokio::test]
async fn starttls_forgets_what_was_said_in_plain_text() {
    let (acceptor, connector) = tls();
    let node = FakeNode { tls: Some(acceptor), ..FakeNode::default() };
    let (client, connection) = connection("127.0.0.1:9");
    let talk = async {
        // An attacker on the way adds commands behind STARTTLS, in the hope that they are obeyed inside TLS.
        let plain = "LHLO a\r\nMAIL FROM:<a@b>\r\nSTARTTLS\r\nLHLO evil\r\nMAIL FROM:<evil@b>\r\n";
        let mut client = upgrade(client, connector, plain, "220 2.0.0 Begin TLS\r\n").await;
        client.write_all(b"RCPT TO:<ada@a>\r\nMAIL FROM:<a@b>\r\nLHLO a\r\nSTARTTLS\r\n").await.unwrap();
        client.write_all(b"MAIL FROM:<a@b>\r\nRCPT TO:<ada@a>\r\nDATA\r\n.\r\nQUIT\r\n").await.unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        said
    };
    let (end, said) = tokio::join!(run(&node, connection), talk);
    assert_eq!(end, End::logout());
    let lines: Vec<String> = said.split_terminator("\r\n").map(str::to_owned).collect();
    assert_eq!(lines[0], "503 5.5.1 Say MAIL first");
    assert_eq!(lines[1], "503 5.5.1 Say LHLO first");
    assert_eq!(lines[2..10], LHLO, "STARTTLS is not offered again");
    assert_eq!(lines[10], "503 5.5.1 TLS is active already");
    assert_eq!(node.delivered.lock().unwrap()[0].envelope.with, "LMTPS");
}
