// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Tables that fit the terminal: side by side where they do, a block a row where they don't.

use std::fmt::Write;

/// Columns with a name each, and rows.
pub struct Table {
    names: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(names: &[&'static str]) -> Self {
        Table {
            names: names.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row: a cell for each name.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text of at most `columns`, if it can be.
    pub fn render(&self, columns: Option<usize>) -> String {
        let widths: Vec<usize> = self
            .names
            .iter()
            .enumerate()
            .map(|(column, name)| self.width(column, name))
            .collect();
        let whole = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
        if columns.is_some_and(|columns| whole > columns) {
            self.blocks()
        } else {
            self.lines(&widths)
        }
    }

    fn width(&self, column: usize, name: &str) -> usize {
        let cells = self
            .rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(name.chars().count())
    }

    fn lines(&self, widths: &[usize]) -> String {
        let mut text = String::new();
        let names: Vec<String> = self.names.iter().map(|name| name.to_uppercase()).collect();
        for row in std::iter::once(&names).chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn blocks(&self) -> String {
        let mut text = String::new();
        let width = self
            .names
            .iter()
            .map(|name| name.chars().count())
            .max()
            .unwrap_or(0);
        for (index, row) in self.rows.iter().enumerate() {
            if index > 0 {
                text.push('\n');
            }
            for (name, cell) in self
                .names
                .iter()
                .zip(row)
                .filter(|(_, cell)| !cell.is_empty())
            {
                let _ = writeln!(text, "{name:width$}  {cell}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["spi", "outer"]);
        table.row(vec!["0x00000100".into(), "198.51.100.1 → 10.1.1.7".into()]);
        table.row(vec!["0x00000200".into(), String::new()]);
        table
    }

    #[test]
    fn what_fits_stands_side_by_side() {
        let text = "SPI         OUTER\n0x00000100  198.51.100.1 → 10.1.1.7\n0x00000200\n";
        assert_eq!(table().render(None), text);
        assert_eq!(table().render(Some(35)), text);
    }

    #[test]
    fn what_doesnt_fit_is_a_block_a_row_and_loses_nothing() {
        let text = "spi    0x00000100\nouter  198.51.100.1 → 10.1.1.7\n\nspi    0x00000200\n";
        assert_eq!(table().render(Some(34)), text);
    }
}
