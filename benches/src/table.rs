//! Results as a table: one row per measure, per server the median and the CPU time of one operation, and the ratio to the last server.

/// What a measure is about.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// What is measured.
    pub name: &'static str,
    /// In which unit.
    pub unit: &'static str,
    /// Whether more is better.
    pub more_is_better: bool,
    /// How many times better than Dovecot it is meant to be, where that is a goal.
    pub goal: Option<f64>,
}

/// One value, with the CPU time of one operation in microseconds where that has a meaning.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// In the measure's unit.
    pub value: f64,
    /// Of all the server's processes.
    pub cpu_us: Option<f64>,
}

/// What was measured, for each server (none: it can't).
#[derive(Debug, Clone)]
pub struct Row {
    /// What.
    pub measure: Measure,
    /// Every round of every server.
    pub samples: Vec<Vec<Sample>>,
}

/// The table in Markdown. The last server is what the others are compared with.
pub fn markdown(servers: &[&str], rows: &[Row]) -> String {
    let compared = servers.len() > 1;
    let mut text = format!("| measure | unit | {} |", servers.join(" | "));
    if compared {
        text += &format!(" {} : {} | goal |", servers[0], servers[servers.len() - 1]);
    }
    text += &format!("\n| --- | --- |{}{}\n", " ---: |".repeat(servers.len()), if compared { " ---: | ---: |" } else { "" });
    for row in rows {
        let values: Vec<String> = row.samples.iter().map(|samples| cell(samples)).collect();
        text += &format!("| {} | {} | {} |", row.measure.name, row.measure.unit, values.join(" | "));
        if compared {
            let ratio = row.ratio();
            let met = match (ratio, row.measure.goal) {
                (Some(ratio), Some(goal)) if ratio >= goal => " ✓",
                (Some(_), Some(_)) => " ✗",
                _ => "",
            };
            text += &format!(" {}{met} |", ratio.map_or(String::new(), |ratio| format!("{}×", short(ratio))));
            text += &format!(" {} |", row.measure.goal.map_or(String::new(), |goal| format!("{}×", short(goal))));
        }
        text += "\n";
    }
    text
}

impl Row {
    /// How many times better the first is than the last.
    fn ratio(&self) -> Option<f64> {
        let (first, last) = (median(self.samples.first()?)?, median(self.samples.last()?)?);
        Some(if self.measure.more_is_better { first / last } else { last / first })
    }
}

fn cell(samples: &[Sample]) -> String {
    let Some(value) = median(samples) else { return "—".to_owned() };
    let mut cpu: Vec<f64> = samples.iter().filter_map(|sample| sample.cpu_us).collect();
    cpu.sort_by(f64::total_cmp);
    match cpu.get(cpu.len() / 2) {
        Some(cpu) => format!("{} ({} µs)", short(value), short(*cpu)),
        None => short(value),
    }
}

fn median(samples: &[Sample]) -> Option<f64> {
    let mut values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Three significant digits or all before the point.
fn short(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 100.0 => format!("{value:.0}"),
        magnitude if magnitude >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests_of_table {
    use super::*;

    #[test]
    fn medians_are_compared_with_the_last_server() {
        let sample = |value| Sample { value, cpu_us: Some(2.0) };
        let measure = Measure { name: "memory", unit: "KiB", more_is_better: false, goal: Some(3.0) };
        let row = Row { measure, samples: vec![vec![sample(9.0), sample(10.0), sample(90.0)], vec![], vec![sample(40.0)]] };
        let text = markdown(&["a", "b", "c"], &[row]);
        assert!(text.contains("| memory | KiB | 10.0 (2.00 µs) | — | 40.0 (2.00 µs) | 4.00× ✓ | 3.00× |"), "{text}");
    }
}
