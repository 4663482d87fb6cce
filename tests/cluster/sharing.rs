//! Mailboxes shared between users whom different nodes hold.

use std::time::Duration;

use tests::{
    Context, Result,
    clients::{
        imap::{Imap, quoted},
        python,
    },
    cluster::{Cluster, Demo},
    ensure,
    site::User,
    wait,
};

use super::{FAILOVER_LIMIT, open_when_possible};

/// How long a client may take to hear of something.
const HEARD: Duration = Duration::from_secs(30);
const MESSAGE: &[u8] = b"Subject: shared\r\n\r\nwords\r\n";

/// Two nodes; the first user is held by the first, the second by the second.
fn two_nodes() -> Result<(Cluster, User, User)> {
    let mut cluster = Cluster::start(&Demo { nodes: 2, users: 2, ..Demo::default() })?;
    cluster.configure("[mail]\nsharing = true\n")?;
    let (ada, bob) = (cluster.users[0].clone(), cluster.users[1].clone());
    for (index, user) in [&ada, &bob].into_iter().enumerate() {
        login(&cluster, index, user)?.logout()?;
        if cluster.holder(&user.name)? != index {
            cluster.command(&["move", &user.name, &cluster.nodes[index].doors.name])?;
        }
        wait::until("the user's new holder", HEARD, || {
            ensure!(cluster.holder(&user.name)? == index, "not yet");
            Ok(())
        })?;
    }
    Ok((cluster, ada, bob))
}

fn login(cluster: &Cluster, node: usize, user: &User) -> Result<Imap> {
    Imap::login(&cluster.nodes[node].doors.imap, &user.name, &user.password)
}

/// The number of messages that the owner sees.
fn count(imap: &mut Imap, mailbox: &str) -> Result<u32> {
    imap.command(&format!("EXAMINE {}", quoted(mailbox)))?.ok()?.exists().context("no EXISTS")
}

#[test]
fn a_shared_mailbox_is_served_by_its_owners_holder_to_users_of_other_nodes() -> Result<()> {
    let (cluster, ada, bob) = two_nodes()?;
    let theirs = format!("Other Users/{}/Sent", ada.name);
    // Each client is at the node that does not hold its user.
    let (mut owner, mut guest) = (login(&cluster, 1, &ada)?, login(&cluster, 0, &bob)?);
    owner.append("Sent", "", MESSAGE)?;
    ensure!(guest.select(&theirs).is_err(), "not shared yet");
    owner.command(&format!("SETACL Sent {} lrswi", bob.name))?.ok()?;

    guest.select(&theirs)?;
    ensure!(guest.bodies()?.values().map(Vec::as_slice).eq([MESSAGE]), "read by the guest");
    guest.command("STORE 1 +FLAGS (\\Flagged)")?.ok()?;
    guest.append(&theirs, "\\Seen", MESSAGE)?;
    ensure!(count(&mut owner, "Sent")? == 2, "appended by the guest");
    ensure!(owner.flags()?.values().next().is_some_and(|flags| flags.iter().any(|flag| flag == "\\Flagged")), "stored by the guest");
    for refused in ["STORE 1 +FLAGS (\\Deleted)", "EXPUNGE", "MOVE 1 INBOX"] {
        let answer = guest.command(refused)?.ok();
        ensure!(answer.as_ref().is_err_and(|error| format!("{error:#}").contains("NOPERM")), "{refused}: {answer:?}");
    }
    guest.command("COPY 1:2 INBOX")?.ok()?;
    ensure!(cluster.holder(&ada.name)? == 0 && cluster.holder(&bob.name)? == 1, "nobody's lease has moved");

    // The owner's change is told at once; what is withdrawn ends.
    let idle = guest.idle()?;
    owner.append("Sent", "", MESSAGE)?;
    guest.wait_for("EXISTS", HEARD)?;
    owner.command(&format!("DELETEACL Sent {}", bob.name))?.ok()?;
    guest.wait_for("BYE", HEARD)?;
    drop(idle);
    let mut again = login(&cluster, 0, &bob)?;
    ensure!(count(&mut again, "INBOX")? == 2, "copied by the guest");
    ensure!(again.select(&theirs).is_err(), "not shared any more");
    Ok(())
}

#[test]
fn when_the_owners_holder_is_killed_the_guest_is_told_and_nothing_acknowledged_is_missing() -> Result<()> {
    let (cluster, ada, bob) = two_nodes()?;
    let theirs = format!("Other Users/{}/INBOX", ada.name);
    login(&cluster, 0, &ada)?.command(&format!("SETACL INBOX {} lrswite", bob.name))?.ok()?;
    let (mut selected, mut writer) = (login(&cluster, 1, &bob)?, login(&cluster, 1, &bob)?);
    selected.select(&theirs)?;
    writer.append("INBOX", "", MESSAGE)?;
    writer.select("INBOX")?;
    for _ in 0..5 {
        writer.append(&theirs, "", MESSAGE)?;
    }
    writer.command(&format!("MOVE 1 {}", quoted(&theirs)))?.ok()?;

    cluster.nodes[0].process.kill()?;
    // Whoever has the mailbox selected hears it; whoever has not goes on.
    selected.wait_for("BYE", HEARD)?;
    writer.command("NOOP")?.ok()?;
    let mut owner = open_when_possible(&cluster.nodes[1].doors, &ada, FAILOVER_LIMIT)?;
    ensure!(count(&mut owner, "INBOX")? == 6, "five were appended and one was moved");
    ensure!(count(&mut writer, &theirs)? == 6, "the guest reaches the new holder");
    Ok(())
}

#[test]
fn pythons_imaplib_shares_a_mailbox_and_reads_it() -> Result<()> {
    let (cluster, ada, bob) = two_nodes()?;
    let script = r#"
import imaplib, sys
def login(address, user, password):
    host, port = address.rsplit(":", 1)
    imap = imaplib.IMAP4(host, int(port))
    imap.login(user, password)
    return imap
owner = login(sys.argv[1], sys.argv[3], sys.argv[4])
guest = login(sys.argv[2], sys.argv[5], sys.argv[6])
assert "ACL" in owner.capabilities or b"ACL" in owner.capability()[1][0]
assert owner.append("Sent", None, None, b"Subject: hello\r\n\r\nx\r\n")[0] == "OK"
assert owner.setacl("Sent", sys.argv[5], "lr")[0] == "OK"
assert sys.argv[5].encode() in owner.getacl("Sent")[1][0]
name = '"Other Users/%s/Sent"' % sys.argv[3]
assert guest.myrights(name)[1][0].endswith(b" lr"), guest.myrights(name)
assert any(b"Other Users" in line for line in guest.list()[1])
assert guest.select(name, readonly=True)[0] == "OK"
assert b"Subject: hello" in guest.fetch("1", "(BODY.PEEK[HEADER])")[1][0][1]
assert owner.deleteacl("Sent", sys.argv[5])[0] == "OK"
"#;
    let arguments = [&cluster.nodes[1].doors.imap, &cluster.nodes[0].doors.imap, &ada.name, &ada.password, &bob.name, &bob.password];
    python::run(script, &arguments.map(String::as_str)).map(drop)
}
