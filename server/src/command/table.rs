//! Tables for people.

use std::io::{self, Write};

/// Prints rows under headings, columns two spaces apart, no trailing spaces.
pub fn print(out: &mut impl Write, headings: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(headings.get(column).map(|heading| heading.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let mut print_row = |cells: &mut dyn Iterator<Item = &str>| {
        let line: String = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
        writeln!(out, "{}", line.trim_end())
    };
    print_row(&mut headings.iter().copied())?;
    rows.iter().try_for_each(|row| print_row(&mut row.iter().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut out = Vec::new();
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        print(&mut out, &["USER", "NODE"], &[row("zoë@example.org", "a"), row("bob", "")]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "USER             NODE\nzoë@example.org  a\nbob\n");
    }
}
