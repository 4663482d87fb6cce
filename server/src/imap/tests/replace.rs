//! REPLACE, RFC 8508.

use super::*;

fn command(verb: &str, rest: &str) -> String {
    let text = message("new", "text");
    format!("{verb} {rest} {{{}+}}\r\n{text}", text.len())
}

#[tokio::test]
async fn the_new_message_is_there_and_the_old_one_gone() {
    let house = House::new();
    let mut talk = inbox_of(&house, 3).await;
    let answer = talk.ok(&command("REPLACE", "2 INBOX (\\Seen \\Draft)")).await;
    let (appended, expunge) = (answer.find("* OK [APPENDUID ").unwrap(), answer.find("* 2 EXPUNGE\r\n").unwrap());
    assert!(appended < expunge && answer.contains(" 4] ") && answer.contains("* 3 EXISTS\r\n"), "{answer}");
    let answer = talk.ok("FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])").await;
    assert!(answer.contains("UID 4 FLAGS (\\Seen \\Draft") && answer.contains("Subject: new") && !answer.contains("UID 2 "), "{answer}");
    let answer = talk.ok(&command("UID REPLACE", "4 Sent")).await;
    assert!(answer.contains(" 1] ") && answer.contains("* 3 EXPUNGE\r\n") && !answer.contains("EXISTS"), "{answer}");
    talk.ok("ENABLE QRESYNC").await;
    let answer = talk.ok(&command("REPLACE", "* INBOX")).await;
    assert!(answer.contains("* VANISHED 3\r\n") && answer.contains("T OK [HIGHESTMODSEQ "), "{answer}");
}

#[tokio::test]
async fn what_can_not_be_replaced_is_left_alone() {
    let house = House::new();
    let mut talk = house.session().await;
    assert!(talk.ask(&command("REPLACE", "1 INBOX")).await.starts_with("T BAD "), "nothing is selected");
    let mut talk = inbox_of(&house, 2).await;
    for (verb, rest, answer) in
        [("REPLACE", "3 INBOX", "T BAD "), ("UID REPLACE", "9 INBOX", "T NO [EXPUNGEISSUED]"), ("REPLACE", "1 Missing", "T NO [TRYCREATE]")]
    {
        let refused = talk.ask(&command(verb, rest)).await;
        assert!(refused.starts_with(answer), "{rest}: {refused}");
    }
    let two = command("REPLACE", "1 INBOX") + " {3+}\r\nabc";
    assert!(talk.ask(&two).await.starts_with("T BAD "));
    assert!(talk.ask("REPLACE 1 INBOX").await.starts_with("T BAD "));
    assert!(talk.ok("STATUS INBOX (MESSAGES)").await.contains("(MESSAGES 2)"));
    talk.ok("EXAMINE INBOX").await;
    assert!(talk.ask(&command("REPLACE", "1 INBOX")).await.starts_with("T NO [READ-ONLY]"));
}
