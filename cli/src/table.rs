//! Columns of text.

use std::fmt::Write as _;

/// Rows under headings, columns as wide as their longest cell, two spaces between.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    /// Adds a row; an empty cell is shown as `-`, so that columns can be cut by tools.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(
            cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell }).collect(),
        );
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:width$}  ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Names and values one below the other.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    facts: Vec<(String, String)>,
}

impl Facts {
    /// Adds a line; nothing where the value is empty.
    pub(crate) fn fact(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.facts.push((name.to_owned(), value));
        }
    }
}

impl std::fmt::Display for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.facts.iter().map(|(name, _)| name.len() + 1).max().unwrap_or(0);
        for (name, value) in &self.facts {
            writeln!(f, "{:width$}  {value}", format!("{name}:"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Facts, Table};

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["ID", "NAME"]);
        table.row(["1".into(), "a".into()]);
        table.row(["12345".into(), String::new()]);
        assert_eq!(table.to_string(), "ID     NAME\n1      a\n12345  -\n");
    }

    #[test]
    fn facts_line_up_and_empty_ones_are_left_out() {
        let mut facts = Facts::default();
        facts.fact("A", "1");
        facts.fact("Long", "2");
        facts.fact("None", "");
        assert_eq!(facts.to_string(), "A:     1\nLong:  2\n");
    }
}
