//! A table of left-aligned columns, as Go's tabwriter lays it out for runc: at least 12 wide, at least 3 apart.

const LEAST_WIDTH: usize = 12;
const PADDING: usize = 3;

/// Lays `rows` out; every row has as many cells as the first. The last column is not padded.
pub(super) fn lay_out(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let widest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
            (widest + PADDING).max(LEAST_WIDTH)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < columns {
                let gap = widths[column] - cell.chars().count();
                text.extend(std::iter::repeat_n(' ', gap));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_runcs() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = lay_out(&[row(["ID", "PID", "OWNER"]), row(["a-long-container", "1", "root"])]);
        assert_eq!(text, "ID                 PID         OWNER\na-long-container   1           root\n");
    }
}
