//! `dovecot-keywords`: which letter of a mailbox's file names means which keyword, in lines of `<number> <keyword>`, as existing servers write it.

use super::filename::KEYWORD_LETTERS;

/// The file in the mailbox folder.
pub(crate) const KEYWORDS_FILE: &str = "dovecot-keywords";
/// Longest file that is read: 26 keywords of any sensible length.
pub(crate) const KEYWORDS_BYTES_MAX: usize = 64 * 1024;

/// Keyword names by position, without gaps: a letter without a line gets a name of its own, so that it is never taken for a later keyword.
pub(crate) fn parse(file: &[u8]) -> Vec<String> {
    let mut names: Vec<Option<String>> = Vec::new();
    for line in String::from_utf8_lossy(file).lines() {
        let Some((position, name)) = line.split_once(' ') else { continue };
        let Some(position) = position.parse::<usize>().ok().filter(|position| *position < usize::from(KEYWORD_LETTERS)) else { continue };
        if names.len() <= position {
            names.resize(position + 1, None);
        }
        names[position] = Some(name.to_owned());
    }
    names.into_iter().enumerate().map(|(position, name)| name.unwrap_or_else(|| nameless(position))).collect()
}

/// Makes `names` reach beyond `position`: a file name has a letter that the file does not explain.
pub(crate) fn extend_to(names: &mut Vec<String>, position: usize) {
    while names.len() <= position && names.len() < usize::from(KEYWORD_LETTERS) {
        names.push(nameless(names.len()));
    }
}

fn nameless(position: usize) -> String {
    let letter = u8::try_from(position).map_or('?', |position| char::from(b'a'.saturating_add(position)));
    format!("unknown-{letter}")
}

/// The file's content.
pub(crate) fn print(names: &[String]) -> String {
    names.iter().enumerate().map(|(position, name)| format!("{position} {name}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyword_files_are_read_back() {
        let names = vec!["$Junk".to_owned(), "todo".to_owned()];
        assert_eq!(parse(print(&names).as_bytes()), names);
        assert_eq!(parse(b"2 late\nx y\n99 far\n0 first\n"), ["first", "unknown-b", "late"]);
        let mut names = names;
        extend_to(&mut names, 3);
        assert_eq!(names, ["$Junk", "todo", "unknown-c", "unknown-d"]);
    }
}
