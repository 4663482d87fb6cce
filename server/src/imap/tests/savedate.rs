//! SAVEDATE, RFC 8514.

use super::*;

#[tokio::test]
async fn a_message_is_saved_when_it_came_into_its_mailbox() {
    let house = House::new();
    let mut talk = house.session().await;
    let text = message("old", "x");
    talk.ok(&format!("APPEND INBOX \"17-Jul-1996 02:44:25 -0700\" {{{}+}}\r\n{text}", text.len())).await;
    talk.ok("SELECT INBOX").await;
    let answer = talk.ok("FETCH 1 (INTERNALDATE SAVEDATE)").await;
    let saved = answer.split("SAVEDATE \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    assert!(answer.contains("INTERNALDATE \"17-Jul-1996 ") && !saved.contains("1996"), "{answer}");
    let day = saved.split(' ').next().unwrap();
    for (keys, found) in [
        (format!("SAVEDON {day}"), true),
        (format!("SAVEDSINCE {day}"), true),
        (format!("SAVEDBEFORE {day}"), false),
        ("SAVEDATESUPPORTED".to_owned(), true),
        ("SAVEDSINCE 1-Jan-2020 BEFORE 1-Jan-1997".to_owned(), true),
        ("SAVEDBEFORE 1-Jan-2020".to_owned(), false),
    ] {
        let expected = if found { "* SEARCH 1\r\n" } else { "* SEARCH\r\n" };
        assert!(talk.ok(&format!("SEARCH {keys}")).await.starts_with(expected), "{keys}");
    }
    // A copy was saved later or in the same second; the original's date stays.
    talk.ok("COPY 1 Sent").await;
    assert!(talk.ok("FETCH 1 SAVEDATE").await.contains(&saved));
    talk.ok("SELECT Sent").await;
    let copied = talk.ok("FETCH 1 (INTERNALDATE SAVEDATE)").await;
    assert!(copied.contains("INTERNALDATE \"17-Jul-1996 ") && !copied.contains("SAVEDATE \"17-Jul-1996"), "{copied}");
}
