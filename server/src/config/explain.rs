//! Errors of the configuration file as an operator needs them: file, line, column, the line itself, and what may have been meant.

use std::{collections::HashMap, ops::Range, path::Path};

use toml::de::{DeTable, DeValue};

use super::Problem;

/// Names further apart than this are not the same name misspelt.
const SIMILARITY_MIN: f64 = 0.7;

/// Where each key stands in the file.
#[derive(Debug, Default)]
pub struct Written<'a> {
    text: &'a str,
    /// Dotted key → where it is written.
    keys: HashMap<String, Range<usize>>,
}

impl<'a> Written<'a> {
    /// Finds the keys of a file that parses.
    pub fn read(text: &'a str) -> Written<'a> {
        let mut written = Written { text, keys: HashMap::new() };
        if let Ok(table) = DeTable::parse(text) {
            written.collect("", table.get_ref());
        }
        written
    }

    fn collect(&mut self, above: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let dotted = if above.is_empty() { key.get_ref().to_string() } else { format!("{above}.{}", key.get_ref()) };
            if let DeValue::Table(below) = value.get_ref() {
                self.collect(&dotted, below);
            }
            self.keys.insert(dotted, key.span());
        }
    }

    /// Whether the file sets `key`.
    pub fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }
}

/// The parser's or serde's error with its place and, for an unknown setting, the likely one.
pub fn toml_error(error: &toml::de::Error, text: &str, file: &Path) -> anyhow::Error {
    let message = plainer(error.message());
    anyhow::anyhow!("{}", at(&message, error.span(), text, file))
}

/// Every problem with the place of its setting.
pub fn problems(problems: &[Problem], written: &Written<'_>, file: &Path) -> anyhow::Error {
    let parts: Vec<String> = problems
        .iter()
        .map(|problem| {
            let message = format!("`{}`: {}", problem.key, problem.text);
            at(&message, written.keys.get(problem.key).cloned(), written.text, file)
        })
        .collect();
    anyhow::anyhow!("{}", parts.join("\n"))
}

/// serde's words in an operator's.
fn plainer(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((unknown, known)) if message.starts_with("unknown field `") => {
            let nearest = known
                .iter()
                .map(|key| (strsim::jaro_winkler(unknown, key), *key))
                .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            match nearest {
                Some((_, key)) => format!("unknown setting `{unknown}`, did you mean `{key}`?"),
                None => format!("unknown setting `{unknown}`, known here are `{}`", known.join("`, `")),
            }
        }
        Some((missing, _)) if message.starts_with("missing field `") => format!("the setting `{missing}` is missing"),
        _ => message.trim_end().replace('\n', ", "),
    }
}

fn at(message: &str, span: Option<Range<usize>>, text: &str, file: &Path) -> String {
    let Some(span) = span.filter(|span| text.is_char_boundary(span.start) && span.start < text.len()) else {
        return format!("{}: {message}", file.display());
    };
    let before = &text[..span.start];
    let number = before.matches('\n').count() + 1;
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before[line_start..].chars().count();
    let line = text[line_start..].lines().next().unwrap_or_default();
    let marked = text.get(span).map_or(1, |part| part.lines().next().unwrap_or_default().chars().count().max(1));
    let gutter = " ".repeat(number.to_string().len());
    let heading = format!("{}, line {number}, column {}: {message}", file.display(), column + 1);
    let marker = " ".repeat(column) + &"^".repeat(marked);
    format!("{heading}\n{gutter} |\n{number} | {line}\n{gutter} | {marker}")
}
