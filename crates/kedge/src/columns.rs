//! Tables for a terminal: columns as wide as what is in them.

/// A line per row, its cells aligned to the left and two spaces apart.
pub(crate) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<_> = rows.iter().map(<[String; N]>::as_slice).collect();
    lines(&rows)
}

/// The same of rows of any length, once for all of them.
fn lines(rows: &[&[String]]) -> String {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(row.len(), 0);
        for (width, cell) in widths.iter_mut().zip(*row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &&[String]| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<_> = cells.map(|(cell, &width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// A row of borrowed texts.
pub(crate) fn row<const N: usize>(cells: [&str; N]) -> [String; N] {
    cells.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [row(["a", "bb", "c"]), row(["aaa", "b", ""])];
        assert_eq!(aligned(&rows), "a    bb  c\naaa  b\n");
        assert_eq!(aligned::<2>(&[]), "");
    }
}
