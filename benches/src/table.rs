//! Results as a table for people: one row per measure, one column per server, and the ratio to the last one.

/// What was measured, for each server.
#[derive(Debug, Clone)]
pub struct Row {
    /// What and in which unit.
    pub measure: &'static str,
    /// One value per server.
    pub values: Vec<f64>,
    /// Whether more is better.
    pub more_is_better: bool,
}

/// The table in Markdown. With two servers or more, the first is compared with the last.
pub fn markdown(servers: &[String], rows: &[Row]) -> String {
    let compared = servers.len() > 1;
    let mut text = format!("| | {}{} |\n", servers.join(" | "), if compared { " | ratio" } else { "" });
    text += &format!("| --- |{}\n", " ---: |".repeat(servers.len() + usize::from(compared)));
    for row in rows {
        let values: Vec<String> = row.values.iter().map(|value| format!("{value:.1}")).collect();
        let ratio = match row.values.as_slice() {
            [first, .., last] => format!(" | {:.2}× {}", first / last, judge(first / last, row.more_is_better)),
            _ => String::new(),
        };
        text += &format!("| {} | {}{ratio} |\n", row.measure, values.join(" | "));
    }
    text
}

fn judge(ratio: f64, more_is_better: bool) -> &'static str {
    if (ratio >= 1.0) == more_is_better { "(better)" } else { "(worse)" }
}

#[cfg(test)]
mod tests_of_table {
    use super::*;

    #[test]
    fn the_first_server_is_compared_with_the_last() {
        let row = Row { measure: "memory", values: vec![10.0, 15.0, 40.0], more_is_better: false };
        let text = markdown(&["a".to_owned(), "b".to_owned(), "c".to_owned()], &[row]);
        assert!(text.contains("| memory | 10.0 | 15.0 | 40.0 | 0.25× (better) |"), "{text}");
    }
}
