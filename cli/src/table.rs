//! Tables as calicoctl prints them: plain columns for resources, boxes for reports.

use std::fmt::Write;

/// Gap between plain columns.
const GAP: usize = 3;
/// Plain columns are never narrower.
const NARROWEST: usize = 5;

/// Where a cell's text stands in a boxed column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    /// Whole numbers right, everything else left.
    Auto,
}

/// Headings and rows in columns wide enough for their widest cell.
pub(crate) fn plain(headings: &[&str], rows: &[Vec<String>]) -> String {
    let widths = widths(headings, rows);
    let mut out = String::new();
    line(&mut out, &widths, headings.iter().copied());
    for row in rows {
        line(&mut out, &widths, row.iter().map(String::as_str));
    }
    out
}

fn line<'a>(out: &mut String, widths: &[usize], cells: impl Iterator<Item = &'a str>) {
    let mut text = String::new();
    for (cell, width) in cells.zip(widths) {
        let width = (width + GAP).max(NARROWEST);
        let _ = write!(text, "{cell:width$}");
    }
    // Not trimmed: Go's tabwriter pads the last column as well.
    out.push_str(&text);
    out.push('\n');
}

/// The same in a box; headings are centred.
pub(crate) fn boxed(headings: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let names: Vec<&str> = headings.iter().map(|(name, _)| *name).collect();
    let widths = widths(&names, rows);
    let rule: String = widths
        .iter()
        .map(|w| format!("+{}", "-".repeat(w + 2)))
        .collect::<String>()
        + "+\n";
    let mut out = rule.clone();
    for (name, width) in names.iter().zip(&widths) {
        let _ = write!(out, "| {name:^width$} ");
    }
    out.push_str("|\n");
    out.push_str(&rule);
    for row in rows {
        for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(headings) {
            let right = match align {
                Align::Left => false,

                Align::Auto => is_number(cell),
            };
            let _ = if right {
                write!(out, "| {cell:>width$} ")
            } else {
                write!(out, "| {cell:<width$} ")
            };
        }
        out.push_str("|\n");
    }
    out + &rule
}

fn is_number(cell: &str) -> bool {
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn widths(headings: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    let width = |column: usize, heading: &str| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells.chain([heading.chars().count()]).max().unwrap_or(0)
    };
    headings
        .iter()
        .enumerate()
        .map(|(column, heading)| width(column, heading))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_columns_stand_three_apart() {
        let rows = vec![
            vec!["pool-one".into(), "10.0.0.0/8".into()],
            vec!["p".into(), String::new()],
        ];
        assert_eq!(
            plain(&["NAME", "CIDR"], &rows),
            "NAME       CIDR         \npool-one   10.0.0.0/8   \np                       \n"
        );
    }

    #[test]
    fn a_box_surrounds_its_cells() {
        let rows = vec![vec!["a".into(), "1".into()]];
        let drawn = boxed(&[("NAME", Align::Left), ("IPS", Align::Auto)], &rows);
        let expected = "+------+-----+\n| NAME | IPS |\n+------+-----+\n| a    |   1 |\n+------+-----+\n";
        assert_eq!(drawn, expected);
    }
}
