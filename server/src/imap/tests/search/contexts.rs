//! CONTEXT=SEARCH and CONTEXT=SORT (RFC 5267).

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

/// The numbers of a set, in its order.
fn numbers(set: &str) -> Vec<u32> {
    let run = |run: &str| {
        let (low, high) = run.split_once(':').unwrap_or((run, run));
        low.parse::<u32>().unwrap()..=high.parse().unwrap()
    };
    set.split(',').flat_map(run).collect()
}

/// Results as a client keeps them.
#[derive(Debug)]
struct Kept {
    tag: &'static str,
    uid: bool,
    command: &'static str,
    results: Vec<u32>,
}

impl Kept {
    fn hear(&mut self, answer: &str) {
        for line in answer.lines() {
            if let Some(number) = line.strip_prefix("* ").and_then(|line| line.strip_suffix(" EXPUNGE")).filter(|_| !self.uid) {
                let gone: u32 = number.parse().unwrap();
                assert!(!self.results.contains(&gone), "{} was told to be expunged first", gone);
                self.results.iter_mut().filter(|number| **number > gone).for_each(|number| *number -= 1);
            }
            let start = format!("* ESEARCH (TAG \"{}\"){} ", self.tag, if self.uid { " UID" } else { "" });
            let Some(mut rest) = line.strip_prefix(&start) else { continue };
            while !rest.is_empty() {
                let (name, after) = rest.split_once(" (").unwrap_or((rest, ""));
                if !["ADDTO", "REMOVEFROM"].contains(&name) {
                    break;
                }
                let (pairs, after) = after.split_once(')').unwrap();
                let words: Vec<&str> = pairs.split(' ').collect();
                for pair in words.chunks(2) {
                    self.take(name == "ADDTO", pair[0].parse().unwrap(), &numbers(pair[1]));
                }
                rest = after.trim_start();
            }
        }
    }
    fn take(&mut self, adds: bool, position: usize, numbers: &[u32]) {
        match (adds, position.checked_sub(1)) {
            (true, None) => {
                assert!(numbers.iter().all(|number| !self.results.contains(number)), "{self:?} {numbers:?}");
                self.results.extend(numbers);
                self.results.sort_unstable();
            }
            (true, Some(at)) => drop(self.results.splice(at..at, numbers.iter().copied())),
            (false, None) => {
                assert!(numbers.iter().all(|number| self.results.contains(number)), "{self:?} {numbers:?}");
                self.results.retain(|number| !numbers.contains(number));
            }
            (false, Some(at)) => assert_eq!(self.results.drain(at..at + numbers.len()).collect::<Vec<_>>(), numbers),
        }
    }
}

async fn found(talk: &mut Talk, command: &str) -> Vec<u32> {
    let answer = talk.ok(&command.replace("(UPDATE ALL)", "(ALL)")).await;
    let line = answer.lines().find(|line| line.starts_with("* ESEARCH") && !line.contains("ADDTO") && !line.contains("REMOVEFROM"));
    line.unwrap_or_else(|| panic!("{answer}")).split_once(" ALL ").map(|(_, set)| numbers(set)).unwrap_or_default()
}

#[tokio::test]
async fn the_conversation_of_rfc_5267_goes_as_written() {
    let house = House::new();
    let mut talk = inbox_of(&house, 3).await;
    let mut other = house.session().await;
    other.ok("SELECT INBOX").await;
    talk.ok("UID STORE 1 +FLAGS (\\Deleted $Junk)").await;
    talk.send("A01 SEARCH RETURN (CONTEXT COUNT) UNDELETED UNKEYWORD $Junk\r\n").await;
    assert!(talk.until("A01 ").await.ends_with("* ESEARCH (TAG \"A01\") COUNT 2\r\nA01 OK Search completed\r\n"));
    talk.send("B01 UID SEARCH RETURN (UPDATE COUNT) DELETED KEYWORD $Junk\r\n").await;
    assert_eq!(talk.until("B01 ").await, "* ESEARCH (TAG \"B01\") UID COUNT 1\r\nB01 OK Search completed\r\n");
    talk.send("B01 SORT RETURN (UPDATE) (DATE) UTF-8 FLAGGED\r\n").await;
    assert!(talk.until("B01 ").await.starts_with("B01 BAD Tag reuse"));
    // Its own silent change, then another's; the FETCH comes first.
    let own = talk.ok("UID STORE 2 +FLAGS.SILENT (\\Deleted $Junk)").await;
    assert!(own.contains("* ESEARCH (TAG \"B01\") UID ADDTO (0 2)\r\n"), "{own}");
    other.ok("UID STORE 3 +FLAGS (\\Deleted $Junk)").await;
    let told = talk.ok("NOOP").await;
    let fetch = told.find("* 3 FETCH (FLAGS (\\Deleted $Junk").unwrap();
    assert!(fetch < told.find("* ESEARCH (TAG \"B01\") UID ADDTO (0 3)\r\n").unwrap(), "{told}");
    other.ok("UID STORE 1 -FLAGS ($Junk)").await;
    other.ok("UID EXPUNGE 2:3").await;
    let told = talk.ok("NOOP").await;
    assert!(told.starts_with("* ESEARCH (TAG \"B01\") UID REMOVEFROM (0 2:3)\r\n* 3 EXPUNGE\r\n* 2 EXPUNGE\r\n"), "{told}");
    assert!(told.ends_with("* ESEARCH (TAG \"B01\") UID REMOVEFROM (0 1)\r\nT OK Completed\r\n"), "{told}");
    assert_eq!(talk.ask("CANCELUPDATE \"B01\"").await, "T OK No further updates\r\n");
    other.ok("UID STORE 1 +FLAGS ($Junk)").await;
    assert!(!talk.ok("NOOP").await.contains("ESEARCH"));
    assert!(talk.ask("CANCELUPDATE").await.starts_with("T BAD "));
}

#[tokio::test]
async fn what_comes_is_found_by_its_content_and_sent_as_was_asked() {
    let house = House::new();
    let mut talk = inbox_of(&house, 1).await;
    talk.send("a00 SEARCH RETURN (COUNT UPDATE (UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])) SUBJECT boss\r\n").await;
    assert_eq!(talk.until("a00 ").await, "* ESEARCH (TAG \"a00\") COUNT 0\r\na00 OK Search completed\r\n");
    talk.send("b00 UID SEARCH RETURN (UPDATE) BODY \"of interest\"\r\nc00 IDLE\r\n").await;
    talk.until("+ ").await;
    let mut other = house.session().await;
    other.append("INBOX", &message("boss", "of interest")).await;
    let told = talk.until("* ESEARCH (TAG \"b00\")").await;
    let places: Vec<usize> = [
        "* 2 EXISTS\r\n",
        "* 2 FETCH (UID 2 BODY[HEADER.FIELDS (SUBJECT)] {17}\r\nSubject: boss\r\n",
        "* ESEARCH (TAG \"a00\") ADDTO (0 2)\r\n",
    ]
    .iter()
    .map(|part| told.find(part).unwrap_or_else(|| panic!("{part}: {told}")))
    .collect();
    assert!(places.is_sorted() && told.ends_with("* ESEARCH (TAG \"b00\") UID ADDTO (0 2)\r\n"), "{told}");
    talk.send("DONE\r\n").await;
    talk.until("c00 ").await;
    // A message that is found by its flags was there before: nothing of it is sent.
    let mut by_flag = house.session().await;
    by_flag.ok("SELECT INBOX").await;
    by_flag.ok("SEARCH RETURN (UPDATE (UID)) FLAGGED").await;
    other.ok("SELECT INBOX").await;
    other.ok("STORE 1 +FLAGS (\\Flagged)").await;
    let told = by_flag.ok("NOOP").await;
    assert!(told.contains("ADDTO (0 1)") && !told.contains("(UID 1)"), "{told}");
}

#[tokio::test]
async fn what_can_not_be_followed_is_said_and_found_all_the_same() {
    let house = House::new();
    let mut talk = inbox_of(&house, 2).await;
    let told = talk.ok("SEARCH RETURN (UPDATE COUNT) YOUNGER 1000").await;
    assert!(told.contains(" COUNT 2\r\n") && told.contains("* NO [NOUPDATE \"t"), "{told}");
    for _ in 0..8 {
        assert!(!talk.ok("UID SORT RETURN (UPDATE COUNT) (SUBJECT) UTF-8 ALL").await.contains("NOUPDATE"));
    }
    let told = talk.ok("SEARCH RETURN (UPDATE COUNT) ALL").await;
    assert!(told.contains(" COUNT 2\r\n") && told.contains("* NO [NOUPDATE \"t") && told.contains("Too many contexts"), "{told}");
    // Numbers mean what they meant; a mailbox that is left has no contexts.
    let mut talk = inbox_of(&house, 1).await;
    talk.send("n SEARCH RETURN (UPDATE ALL) 2:3 UNSEEN\r\n").await;
    talk.until("n OK").await;
    talk.ok("UID STORE 1 +FLAGS (\\Deleted)").await;
    let told = talk.ok("UID EXPUNGE 1").await;
    assert!(!told.contains("ESEARCH"), "{told}");
    talk.append("INBOX", &message("new", "x")).await;
    assert!(talk.ok("STORE 1 +FLAGS (\\Seen)").await.contains("* ESEARCH (TAG \"n\") REMOVEFROM (0 1)\r\n"));
    talk.ok("SELECT INBOX").await;
    assert!(!talk.ok("STORE 1 -FLAGS (\\Seen)").await.contains("ESEARCH"));
}

#[tokio::test]
async fn replayed_updates_are_what_the_command_would_find() {
    let house = House::new();
    let mut talk = inbox_of(&house, 4).await;
    let mut other = house.session().await;
    other.ok("SELECT INBOX").await;
    let mut kept = [
        ("k0", false, "SEARCH RETURN (UPDATE ALL) UNDELETED OR FLAGGED SUBJECT 1"),
        ("k1", true, "UID SEARCH RETURN (UPDATE ALL) NOT BODY 3"),
        ("k2", true, "UID SORT RETURN (UPDATE ALL) (REVERSE SUBJECT) UTF-8 UNFLAGGED"),
        ("k3", false, "SORT RETURN (UPDATE ALL) (SUBJECT REVERSE ARRIVAL) UTF-8 UNSEEN"),
        ("k4", true, "UID SEARCH RETURN (UPDATE ALL) UID 3:* UNSEEN"),
    ]
    .map(|(tag, uid, command)| Kept { tag, uid, command, results: Vec::new() });
    for context in &mut kept {
        talk.send(&format!("{} {}\r\n", context.tag, context.command)).await;
        let answer = talk.until(&format!("{} OK", context.tag)).await;
        let line = answer.lines().find(|line| line.starts_with("* ESEARCH")).unwrap();
        context.results = line.split_once(" ALL ").map(|(_, set)| numbers(set)).unwrap_or_default();
    }
    let mut rng = StdRng::seed_from_u64(5267);
    for step in 0..150_u32 {
        let answer = {
            let mine = rng.random_bool(0.5);
            let who = if mine { &mut talk } else { &mut other };
            let flag = ["\\Seen", "\\Flagged", "\\Deleted"][rng.random_range(0..3)];
            let sign = if rng.random_bool(0.6) { '+' } else { '-' };
            let low = rng.random_range(1..=step + 4);
            let answer = match rng.random_range(0..10) {
                0..=3 => who.append("INBOX", &message(&format!("s{}", rng.random_range(0..20)), &format!("body {step}"))).await,
                4..=7 => who.ok(&format!("UID STORE {low}:{} {sign}FLAGS.SILENT ({flag})", low + 2)).await,
                8 => who.ok("EXPUNGE").await,
                _ => who.ok("NOOP").await,
            };
            if mine { answer } else { talk.ok("NOOP").await }
        };
        kept.iter_mut().for_each(|context| context.hear(&answer));
        for context in &mut kept {
            assert_eq!(found(&mut talk, context.command).await, context.results, "{} after step {step}: {answer}", context.command);
        }
    }
    assert!(kept.iter().any(|context| !context.results.is_empty()));
}
