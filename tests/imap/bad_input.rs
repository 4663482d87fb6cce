//! What no client should send is answered clearly, and the node stays up with bounded memory.

use std::time::Duration;

use tests::{
    Context, Result,
    clients::{
        imap::{Imap, Status},
        wire::{Wire, was_closed},
    },
    ensure,
    site::{Own, Site},
    wait::Deadline,
};

use super::{session, session_with_mail};

/// Connections that never finish a command.
const HALF_OPEN: usize = 500;
/// What they may cost a node, all together: the system's own buffers are not in it.
const HALF_OPEN_BYTES_MAX: u64 = 64 << 20;

#[test]
fn a_line_without_end_is_refused_and_does_not_fill_memory() -> Result<()> {
    let site = Site::alone()?;
    let mut imap = Imap::login(&site.nodes[1].imap, &site.user.name, &site.user.password)?;
    let memory = memory(&site)?;
    let answer = flood(imap.wire(), b"a SELECT ", 64 << 20)?;
    ensure!(answer.contains("BAD") || answer.contains("BYE"), "{answer:?}");
    ensure!(memory_growth(&site, &memory)? < 32 << 20, "one line without end took too much memory");
    still_serves(&site)
}

#[test]
fn a_line_without_end_before_login_is_refused() -> Result<()> {
    let site = Site::shared()?;
    let mut imap = Imap::connect(&site.nodes[0].imap)?;
    let answer = flood(imap.wire(), b"a LOGIN ", 8 << 20)?;
    ensure!(answer.contains("BAD") || answer.contains("BYE"), "{answer:?}");
    still_serves(&site)
}

#[test]
fn a_literal_beyond_every_limit_is_refused_before_it_is_sent() -> Result<()> {
    let (site, mut imap) = session()?;
    if Site::is_dovecot() {
        return Ok(()); // It takes messages of any size by default.
    }
    for command in
        ["APPEND INBOX {99999999999999}", "SEARCH SUBJECT {4000000000}", "APPEND INBOX {184467440737095516160}", "LOGIN {999999999} x"]
    {
        let mut imap = Imap::login(&site.nodes[1].imap, &site.user.name, &site.user.password)?;
        imap.select("INBOX")?;
        let tag = imap.send(command)?;
        match imap.finish(&tag) {
            Ok(reply) => ensure!(reply.status != Status::Ok, "{command} was answered {reply:?}"),
            Err(error) => ensure!(was_closed(&error) || format!("{error:#}").contains("BYE"), "{command}: {error:#}"),
        }
    }
    imap.command("NOOP")?.ok()?;
    still_serves(&site)
}

#[test]
fn a_literal_that_never_comes_leaves_no_message() -> Result<()> {
    let (site, mut imap) = session()?;
    imap.wire().send(b"a APPEND INBOX {1000}\r\n")?;
    ensure!(imap.wire().line()?.starts_with(b"+ "));
    imap.wire().send(b"Subject: half\r\n\r\nand then")?;
    drop(imap);
    let mut imap = Imap::login(&site.nodes[0].imap, &site.user.name, &site.user.password)?;
    ensure!(imap.select("INBOX")?.exists() == Some(0));
    imap.logout()
}

#[test]
fn nul_bytes_in_commands_are_refused() -> Result<()> {
    let (site, mut imap) = session()?;
    imap.wire().send(b"a SELECT \"IN\0BOX\"\r\n")?;
    ensure!(imap.finish("a")?.status != Status::Ok);
    imap.wire().send(b"b CREATE {3+}\r\na\0b\r\n")?;
    let reply = imap.finish("b")?;
    ensure!(reply.status != Status::Ok || Site::is_dovecot(), "{reply:?}");
    imap.command("NOOP")?.ok()?;
    still_serves(&site)
}

#[test]
fn unbalanced_and_absurdly_nested_lists_are_answered_bad() -> Result<()> {
    let (site, mut imap, _) = session_with_mail(1)?;
    let deep = format!("SEARCH {}ALL{}", "(".repeat(2_000), ")".repeat(2_000));
    let deep_not = format!("SEARCH {}ALL", "NOT ".repeat(1_900));
    for command in ["FETCH 1 (FLAGS", "FETCH 1 FLAGS)", "SEARCH ((ALL)", "STORE 1 +FLAGS (\\Seen", "STATUS INBOX (MESSAGES", "LIST \"\" (a"]
    {
        let reply = imap.command(command)?;
        ensure!(reply.status == Status::Bad, "{} was answered {reply:?}", &command[..command.len().min(40)]);
    }
    // Deep but balanced: any answer will do, the node must not fall.
    imap.command(&deep)?;
    imap.command(&deep_not)?;
    imap.command("NOOP")?.ok()?;
    still_serves(&site)
}

#[test]
fn a_wrong_password_and_an_unknown_user_get_the_same_answer() -> Result<()> {
    let site = Site::shared()?;
    let mut answers = Vec::new();
    for login in [format!("LOGIN {} wrong", site.user.name), "LOGIN nobody-of-that-name wrong".to_owned()] {
        let mut imap = Imap::connect(&site.nodes[0].imap)?;
        let reply = imap.command(&login)?;
        ensure!(reply.status == Status::No && reply.text.code.as_deref() == Some("AUTHENTICATIONFAILED"), "{reply:?}");
        answers.push(reply.text);
    }
    ensure!(answers[0] == answers[1], "the answers tell which users exist: {answers:?}");
    Ok(())
}

#[test]
fn commands_in_the_wrong_state_are_answered_bad_or_no() -> Result<()> {
    let site = Site::shared()?;
    for command in ["SELECT INBOX", "FETCH 1 FLAGS", "LIST \"\" *", "APPEND INBOX {3+}\r\nabc", "IDLE", "EXPUNGE", "DONE"] {
        // A connection each: a server may close one that sends too many wrong commands.
        let mut imap = Imap::connect(&site.nodes[0].imap)?;
        let reply = imap.command(command)?;
        ensure!(reply.status == Status::Bad, "{command} before login was answered {reply:?}");
    }
    for command in ["FETCH 1 FLAGS", "EXPUNGE", "CLOSE", "UNSELECT", "LOGIN a b", "STARTTLS", "XYZZY", "FETCH"] {
        let mut imap = Imap::login(&site.nodes[0].imap, &site.user.name, &site.user.password)?;
        let reply = imap.command(command)?;
        ensure!(reply.status != Status::Ok, "{command} with nothing selected was answered {reply:?}");
    }
    Ok(())
}

#[test]
fn rubbish_bytes_end_in_an_answer_or_a_close() -> Result<()> {
    let site = Site::shared()?;
    for seed in 0_u32..20 {
        let mut wire = Wire::connect(&site.nodes[0].imap)?;
        wire.line()?;
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .take(4_096)
        .collect();
        // The server may close before all is sent.
        if wire.send(&bytes).is_ok() && wire.send(b"\r\nz NOOP\r\n").is_ok() {
            wire.set_patience(Duration::from_secs(10));
            while let Ok(line) = wire.line() {
                if line.starts_with(b"z ") || line.starts_with(b"* BYE") {
                    break;
                }
            }
        }
    }
    still_serves(&site)
}

#[test]
fn five_hundred_half_open_connections_leave_the_node_responsive_and_small() -> Result<()> {
    let site = Site::start(1, 1)?;
    let user = site.users[0].clone();
    let node = &site.nodes[0];
    let before = site.cluster().map(|cluster| cluster.nodes[0].process.resident_bytes()).transpose()?;
    let mut open = Vec::with_capacity(HALF_OPEN);
    for number in 0..HALF_OPEN {
        let mut wire = Wire::connect(&node.imap).with_context(|| format!("connection {number}"))?;
        wire.line().with_context(|| format!("greeting {number}"))?;
        wire.send(if number % 2 == 0 { b"a LOGIN {5}\r\nus" } else { b"a LOG" })?;
        open.push(wire);
    }
    let deadline = Deadline::seconds(10);
    let mut imap = Imap::login(&node.imap, &user.name, &user.password)?;
    imap.select("INBOX")?;
    ensure!(!deadline.passed(), "a login took {:?} beside {HALF_OPEN} half-open connections", deadline.elapsed());
    if let (Some(cluster), Some(before)) = (site.cluster(), before) {
        let grown = cluster.nodes[0].process.resident_bytes()?.saturating_sub(before);
        ensure!(grown < HALF_OPEN_BYTES_MAX, "{HALF_OPEN} half-open connections took {grown} bytes");
    }
    imap.logout()
}

/// Sends `count` bytes without a line end, or until the server has had enough; what it said.
fn flood(wire: &mut Wire, start: &[u8], count: usize) -> Result<String> {
    let chunk = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    let mut going = wire.send(start).is_ok();
    while going && sent < count {
        going = wire.send(&chunk).is_ok();
        sent += chunk.len();
    }
    if going {
        wire.send(b"\r\n")?;
    }
    // A reset after the answer may take the answer with it: then only the close is seen.
    match wire.line() {
        Ok(line) => Ok(String::from_utf8_lossy(&line).into_owned()),
        Err(error) if was_closed(&error) => Ok("BYE (closed)".to_owned()),
        Err(error) => Err(error),
    }
}

fn still_serves(site: &Own) -> Result<()> {
    for node in &site.nodes {
        let mut imap = Imap::login(&node.imap, &site.user.name, &site.user.password)?;
        imap.select("INBOX")?;
        imap.logout()?;
    }
    Ok(())
}

fn memory(site: &Own) -> Result<Vec<u64>> {
    site.cluster().map_or_else(|| Ok(Vec::new()), |cluster| cluster.nodes.iter().map(|node| node.process.resident_bytes()).collect())
}

fn memory_growth(site: &Own, before: &[u64]) -> Result<u64> {
    Ok(memory(site)?.iter().zip(before).map(|(now, before)| now.saturating_sub(*before)).max().unwrap_or(0))
}
