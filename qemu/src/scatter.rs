// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Points on the screen: a chart of characters.

/// Columns and rows of the chart.
const SIZE: (usize, usize) = (64, 14);

/// Draws points over time, from a time on, with a line where something happens; both axes begin at the least point.
/// Nothing, where all points are one.
pub fn render(points: &[(f64, f64)], marked: f64, y: &str, x: &str) -> Option<String> {
    let (columns, rows) = SIZE;
    let ends = |of: fn(&(f64, f64)) -> f64| {
        let values = || points.iter().map(of);
        let (low, high) = (values().reduce(f64::min)?, values().reduce(f64::max)?);
        (high > low).then_some((low, high))
    };
    let (left, right) = ends(|point| point.0)?;
    let (bottom, top) = ends(|point| point.1)?;
    let place = |value: f64, low: f64, high: f64, count: usize| {
        let share = ((value - low) / (high - low)).clamp(0.0, 1.0);
        (share * (count - 1) as f64).round() as usize
    };
    let mut grid = vec![vec![' '; columns]; rows];
    let mark = place(marked, left, right, columns);
    for row in &mut grid {
        row[mark] = ':';
    }
    for (at, value) in points {
        let column = place(*at, left, right, columns);
        let row = rows - 1 - place(*value, bottom, top, rows);
        grid[row][column] = '*';
    }
    let mut text = format!("  {y}\n");
    for (number, row) in grid.iter().enumerate() {
        let label = match number {
            0 => format!("{top:.0}"),
            _ if number + 1 == rows => format!("{bottom:.0}"),
            _ => String::new(),
        };
        let row: String = row.iter().collect();
        text.push_str(&format!("  {label:>8} |{}\n", row.trim_end()));
    }
    text.push_str(&format!("  {:>8} +{}\n", "", "-".repeat(columns)));
    let (begin, end) = (format!("{left:.0}"), format!("{right:.0} {x}"));
    let fill = columns.saturating_sub(begin.len() + end.len());
    text.push_str(&format!("  {:>8}  {begin}{}{end}\n", "", " ".repeat(fill)));
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_point_is_at_the_bottom_left_and_the_most_at_the_top_right() {
        let drawn = render(
            &[(0.0, 10.0), (500.0, 20.0), (1000.0, 30.0)],
            250.0,
            "kB",
            "ms",
        );
        let drawn = drawn.unwrap();
        let lines: Vec<&str> = drawn.lines().collect();
        assert_eq!(lines.len(), 1 + 14 + 2);
        let stars = |line: &str| {
            line.match_indices('*')
                .map(|(at, _)| at)
                .collect::<Vec<_>>()
        };
        let first = "        30 |".len();
        assert_eq!(stars(lines[1]), [first + 63]);
        assert_eq!(stars(lines[14]), [first]);
        assert!(lines[1..15].iter().all(|line| line.contains(':')));
        assert!(lines[16].ends_with("1000 ms"));
    }

    #[test]
    fn one_point_is_no_chart() {
        assert_eq!(render(&[(1.0, 2.0)], 1.0, "", ""), None);
        assert_eq!(render(&[], 1.0, "", ""), None);
    }
}
