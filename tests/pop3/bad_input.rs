//! What no client should send is answered -ERR, and the node stays up.

use tests::{
    Result,
    clients::{pop3::Pop3, wire::was_closed},
    ensure,
    site::{Own, Site},
};

use super::session_with_mail;

#[test]
fn a_line_without_end_is_refused() -> Result<()> {
    let site = Site::shared()?;
    let mut pop3 = Pop3::connect(&site.nodes[0].pop3)?;
    let chunk = vec![b'x'; 64 * 1024];
    let mut going = true;
    for _ in 0..128 {
        going = going && pop3.wire().send(&chunk).is_ok();
    }
    if going {
        pop3.wire().send(b"\r\n")?;
    }
    match pop3.reply() {
        Ok(answer) => ensure!(answer.is_err(), "{answer:?}"),
        Err(error) => ensure!(was_closed(&error), "{error:#}"),
    }
    still_serves(&site)
}

#[test]
fn a_wrong_password_and_an_unknown_user_get_the_same_answer() -> Result<()> {
    let site = Site::shared()?;
    let mut answers = Vec::new();
    for user in [site.user.name.as_str(), "nobody-of-that-name"] {
        let mut pop3 = Pop3::connect(&site.nodes[0].pop3)?;
        pop3.ok(&format!("USER {user}"))?;
        let answer = pop3.err("PASS wrong")?;
        ensure!(answer.starts_with("[AUTH]"), "{answer}");
        answers.push(answer);
    }
    ensure!(answers[0] == answers[1], "the answers tell which users exist: {answers:?}");
    Ok(())
}

#[test]
fn commands_in_the_wrong_state_are_refused() -> Result<()> {
    let site = Site::shared()?;
    for command in ["STAT", "RETR 1", "PASS x", "DELE 1", "XYZZY"] {
        let mut pop3 = Pop3::connect(&site.nodes[0].pop3)?;
        pop3.err(command)?;
    }
    let mut pop3 = Pop3::login(&site.nodes[0].pop3, &site.user.name, &site.user.password)?;
    for command in ["USER x", "STLS", "AUTH PLAIN"] {
        pop3.err(command)?;
    }
    pop3.quit()
}

#[test]
fn numbers_that_name_no_message_are_refused() -> Result<()> {
    let (site, mut pop3, _) = session_with_mail(1)?;
    for number in ["0", "2", "-1", "4294967297", "99999999999999999999", "a", "1 x", ""] {
        pop3.err(&format!("DELE {number}"))?;
    }
    for arguments in ["1", "1 -1", "1 99999999999999999999", "2 1", ""] {
        pop3.err(&format!("TOP {arguments}"))?;
    }
    ensure!(pop3.ok("STAT")?.starts_with("1 "));
    pop3.quit()?;
    still_serves(&site)
}

#[test]
fn nul_bytes_are_refused() -> Result<()> {
    let site = Site::shared()?;
    let mut pop3 = Pop3::connect(&site.nodes[0].pop3)?;
    match pop3.command("US\0ER x") {
        Ok(answer) => ensure!(answer.is_err(), "{answer:?}"),
        Err(error) => ensure!(was_closed(&error), "{error:#}"),
    }
    still_serves(&site)
}

fn still_serves(site: &Own) -> Result<()> {
    for node in &site.nodes {
        Pop3::login(&node.pop3, &site.user.name, &site.user.password)?.quit()?;
    }
    Ok(())
}
