//! Errors of the configuration file as an operator needs them: file, line, column, the line itself, and what may have been meant.

use std::{collections::HashMap, ops::Range, path::Path};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use super::Problem;

/// Names further apart than this are not the same name misspelt.
const SIMILARITY_MIN: f64 = 0.7;
/// Most mistakes that are told at once.
const MISTAKES_MAX: usize = 20;
/// Longer values are not repeated in what is said of them: the line is shown anyway.
const VALUE_CHARS_MAX: usize = 40;

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

/// What is wrong with a file as it is written.
#[derive(Debug, Default)]
pub struct Mistakes {
    /// Each with its place.
    pub said: Vec<String>,
    /// Settings that were left out to read the rest.
    pub left_out: Vec<String>,
}

/// Reads all that can be read: a setting that can't is told and left out, and the rest is read again. `None`: nothing can be said of the rest.
pub fn read<T: DeserializeOwned>(text: &str, file: &Path) -> (Option<T>, Mistakes) {
    let (mut mistakes, mut rest) = (Mistakes::default(), text.to_owned());
    while mistakes.said.len() < MISTAKES_MAX {
        let error = match toml::from_str(&rest) {
            Ok(read) => return (Some(read), mistakes),
            Err(error) => error,
        };
        // It may be what was left out.
        if !mistakes.left_out.is_empty() && error.message().starts_with("missing field `") {
            break;
        }
        let span = error.span();
        let value = span.clone().and_then(|span| text.get(span)).map(|value| value.lines().next().unwrap_or_default());
        let place = span.clone().map(|span| unknown_below(error.message(), &span, text).unwrap_or(span));
        mistakes.said.push(at(&plainer(error.message(), value), place, text, file));
        let Some((key, place)) = span.and_then(|span| setting_at(&rest, &span)) else { break };
        // Blanks, so that places stay what they are.
        let blanked = rest.bytes().enumerate().map(|(at, byte)| if place.contains(&at) && byte != b'\n' { b' ' } else { byte });
        let blanked = String::from_utf8(blanked.collect()).ok().filter(|blanked| DeTable::parse(blanked).is_ok());
        let Some(blanked) = blanked else { break };
        rest = blanked;
        mistakes.left_out.push(key);
    }
    (None, mistakes)
}

/// Where an unknown setting stands below a heading like `[[auth.source]]`, which is all that the parser knows of its place. `None`: it is not clear.
fn unknown_below(message: &str, heading: &Range<usize>, text: &str) -> Option<Range<usize>> {
    let (unknown, _) = message.strip_prefix("unknown field `")?.split_once('`')?;
    let title = text.get(heading.clone()).filter(|title| title.starts_with("[["))?;
    let mut found = None;
    let mut start = heading.start;
    for line in text.get(start..)?.split_inclusive('\n') {
        if line.starts_with('[') && !line.starts_with(title) {
            break;
        }
        let indent = line.len() - line.trim_start().len();
        if line.split_once('=').is_some_and(|(key, _)| key.trim() == unknown)
            && found.replace(start + indent..start + indent + unknown.len()).is_some()
        {
            return None;
        }
        start += line.len();
    }
    found
}

/// The setting whose key or value lies at `span`, with all that it takes in the text.
fn setting_at(text: &str, span: &Range<usize>) -> Option<(String, Range<usize>)> {
    fn look(above: &str, table: &DeTable<'_>, span: &Range<usize>) -> Option<(String, Range<usize>)> {
        table.iter().find_map(|(key, value)| {
            let dotted = if above.is_empty() { key.get_ref().to_string() } else { format!("{above}.{}", key.get_ref()) };
            match value.get_ref() {
                DeValue::Table(below) => look(&dotted, below, span),
                // Tables with a heading each lie anywhere.
                DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => None,
                _ => {
                    let place = key.span().start..value.span().end;
                    (place.start <= span.start && span.end <= place.end).then_some((dotted, place))
                }
            }
        })
    }
    look("", DeTable::parse(text).ok()?.get_ref(), span)
}

/// Every problem with the place of its setting.
pub fn problems(problems: &[Problem], written: &Written<'_>, file: &Path) -> Vec<String> {
    let problems = problems.iter().map(|problem| {
        let message = format!("`{}`: {}", problem.key, problem.text);
        at(&message, written.keys.get(problem.key).cloned(), written.text, file)
    });
    problems.collect()
}

/// serde's words in an operator's; `value` is what is written there.
fn plainer(message: &str, value: Option<&str>) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let value = value.filter(|value| !value.is_empty() && value.chars().count() <= VALUE_CHARS_MAX).unwrap_or("this");
    let expects = |what: &str| message.contains(&format!("expected {what}"));
    if expects("a sequence") && value.starts_with("[[") {
        return format!("{value} is no list of tables: write the heading with single brackets, once");
    }
    if expects("a sequence") {
        let example = if value.starts_with('"') { value } else { "\"…\"" };
        return format!("{value} is no list: write [{example}]");
    }
    if expects("a duration") {
        return format!("{value} is no time: write a number with its unit, in quotes, as in \"30s\" or \"15m\"");
    }
    if message.contains("invalid socket address syntax") {
        return format!(
            "{value} is no address: write an IP address and a port, as in \"127.0.0.1:143\" or \"[::]:143\" (names are not looked up)"
        );
    }
    if expects("a boolean") {
        return format!("{value} is neither true nor false: write one of them, without quotes");
    }
    if expects("a string") || expects("path string") {
        return format!("{value} is no text: write it in quotes");
    }
    if ["usize", "u16", "u32", "u64"].iter().any(|what| expects(what)) {
        return format!("{value} is no whole number: write one without quotes, 0 or more");
    }
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
        Some((unknown, known)) if message.starts_with("unknown variant `") => {
            format!("\"{unknown}\" is not known here: write \"{}\"", known.join("\" or \""))
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
