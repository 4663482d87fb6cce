//! FILTERS, RFC 5466.

use super::*;

#[tokio::test]
async fn a_filter_stands_for_the_keys_that_are_kept_under_its_name() {
    let house = House::new();
    let mut talk = inbox_of(&house, 4).await;
    talk.ok("SETMETADATA \"\" (\"/private/filters/values/on-the-road\" \"OR SUBJECT \\\"s1\\\" SUBJECT s3\" /private/filters/values/two \"UNSEEN UNDELETED\")").await;
    talk.ok("SETMETADATA \"\" (/private/filters/values/deep \"FILTER on-the-road FILTER two\")").await;
    talk.ok("STORE 3 +FLAGS (\\Deleted)").await;
    for (keys, found) in [
        ("FILTER on-the-road", " 1 3"),
        ("FILTER ON-THE-ROAD NOT FILTER two", " 3"),
        ("UID 2:4 FILTER on-the-road SINCE 3-Dec-1994", " 3"),
        ("CHARSET UTF-8 OR FILTER deep SUBJECT s4", " 1 4"),
        ("NOT FILTER two", " 3"),
    ] {
        let answer = talk.ok(&format!("SEARCH {keys}")).await;
        assert!(answer.starts_with(&format!("* SEARCH{found}\r\n")), "{keys}: {answer}");
    }
    assert!(talk.ok("SORT (REVERSE SUBJECT) UTF-8 FILTER on-the-road").await.starts_with("* SORT 3 1\r\n"));
    assert!(talk.ok("THREAD ORDEREDSUBJECT UTF-8 FILTER deep").await.starts_with("* THREAD (1)\r\n"));
}

#[tokio::test]
async fn a_filter_that_can_not_be_used_counts_as_undefined() {
    let house = House::new();
    let mut talk = inbox_of(&house, 1).await;
    let values = "/private/filters/values";
    talk.ok(&format!("SETMETADATA \"\" ({values}/a \"FILTER b\" {values}/b \"FILTER c\" {values}/c \"FILTER d\" {values}/d \"ALL\")"))
        .await;
    talk.ok(&format!("SETMETADATA \"\" ({values}/loop \"FILTER loop\" {values}/numbers \"1:5\")")).await;
    talk.ok("SEARCH FILTER b").await;
    for (keys, name) in [("FILTER none", "none"), ("SUBJECT x FILTER a", "d"), ("FILTER loop", "loop"), ("NOT FILTER numbers", "numbers")] {
        let answer = talk.ask(&format!("SEARCH {keys}")).await;
        assert!(answer.starts_with(&format!("T NO [UNDEFINED-FILTER {name}] ")), "{keys}: {answer}");
    }
    let many = "FILTER m ".repeat(100);
    talk.ok(&format!("SETMETADATA \"\" ({values}/m \"{}\" {values}/n \"{}\")", "ALL ".repeat(200), many.trim_end())).await;
    assert!(talk.ask("SEARCH FILTER n").await.starts_with("T NO [UNDEFINED-FILTER m] "), "filters do not multiply without end");
    assert!(talk.ask("SEARCH CHARSET ISO-8859-1 FILTER d").await.starts_with("T BAD [BADCHARSET (US-ASCII UTF-8)] "));
    assert!(talk.ask("SEARCH FILTER a/b").await.starts_with("T BAD "));
    assert!(talk.ask(&format!("SETMETADATA \"\" ({values}/x \"OR SMALLER\")")).await.starts_with("T NO [CANNOT] "));
    assert!(talk.ok(&format!("GETMETADATA \"\" {values}/x")).await.contains("/x NIL)"));
}
