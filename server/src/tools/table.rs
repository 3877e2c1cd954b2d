//! Tables for people: columns in line, numbers to the right.

use std::fmt;
use std::io::Write;

use crate::exit::Failure;

/// What stands between two columns.
const GAP: &str = "  ";

/// Which side a column keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows of cells. It prints with a line under the header, if there is one, and a newline after each row.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Align>,
    header: bool,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[Align]) -> Self {
        Self { columns: columns.to_vec(), header: false, rows: Vec::new() }
    }

    pub(crate) fn header<const N: usize>(&mut self, cells: [&str; N]) {
        self.header = true;
        self.rows.insert(0, cells.map(str::to_owned).to_vec());
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    fn widths(&self) -> Vec<usize> {
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        (0..self.columns.len()).map(|column| width(column).unwrap_or(0)).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for (index, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&self.columns).zip(&widths).map(|((cell, align), width)| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join(GAP).trim_end())?;
            if self.header && index == 0 {
                let line: usize = widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1);
                writeln!(f, "{}", "─".repeat(line))?;
            }
        }
        Ok(())
    }
}

/// A number of bytes, to four digits.
pub(crate) fn bytes(count: u64) -> String {
    let units = [(1_000_000_000_000u64, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.into_iter().find(|(unit, _)| count >= *unit) {
        None => format!("{count} B"),
        Some((unit, name)) => format!("{:.1} {name}", count as f64 / unit as f64),
    }
}

/// Words in lines of at most `width` characters, each line after the first indented.
pub(crate) fn wrap(text: &str, width: usize, indent: &str) -> String {
    let (mut out, mut line) = (String::new(), 0);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if line > 0 && line + 1 + length > width {
            out.push('\n');
            out.push_str(indent);
            line = indent.chars().count();
        } else if line > 0 {
            out.push(' ');
            line += 1;
        }
        out.push_str(word);
        line += length;
    }
    out
}

/// Prints to standard output; that it is closed is an error, not a panic.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[Align::Left, Align::Right]);
        table.row(["a – b".to_owned(), "1".to_owned()]);
        table.row(["c".to_owned(), "1000".to_owned()]);
        table.header(["x", "n"]);
        assert_eq!(table.to_string(), "x         n\n───────────\na – b     1\nc      1000\n");
    }

    #[test]
    fn bytes_are_short() {
        assert_eq!([0, 999, 1000, 123_456, 7_654_321].map(bytes), ["0 B", "999 B", "1.0 kB", "123.5 kB", "7.7 MB"]);
    }

    #[test]
    fn words_are_wrapped_between_them() {
        assert_eq!(wrap("one two three", 7, "  "), "one two\n  three");
        assert_eq!(wrap("unbreakable", 4, "  "), "unbreakable");
        assert_eq!(wrap("", 4, "  "), "");
    }
}
