// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Tables on the screen.

use serde_json::Value;

/// Lays rows out under their heading, numbers to the right.
pub fn render(heading: &[&str], rows: &[Vec<String>]) -> String {
    let count = heading.len();
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let numeric = |column: usize| {
        !rows.is_empty()
            && rows.iter().all(|row| {
                row.get(column).is_none_or(|cell| {
                    cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit() || c == '-')
                })
            })
    };
    let right: Vec<bool> = (0..count).map(numeric).collect();
    let line = |cells: &[String]| {
        let mut text = String::from(" ");
        for column in 0..count {
            let cell = cells.get(column).map_or("", String::as_str);
            let fill = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            text.push(' ');
            text.push_str(&if right[column] {
                fill + cell
            } else {
                cell.to_owned() + &fill
            });
            text.push(' ');
        }
        text.trim_end().to_owned() + "\n"
    };
    let heading: Vec<String> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut text = line(&heading) + &line(&rules);
    for row in rows {
        text.push_str(&line(row));
    }
    text
}

/// A JSON value as a cell: thousands apart, at most three digits after the point, `-` for nothing.
pub fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(yes)) => if *yes { "yes" } else { "NO" }.to_owned(),
        Some(Value::Number(number)) => {
            let value = number.as_f64().unwrap_or(0.0);
            if value.fract() == 0.0 || value.abs() >= 1000.0 {
                thousands(value.round() as i64)
            } else if value.abs() >= 100.0 {
                format!("{value:.1}")
            } else {
                format!("{value:.2}")
            }
        }
        Some(other) => other.to_string(),
    }
}

fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 {
        text.insert(0, '-');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_stand_right_and_words_left() {
        let rows = vec![
            vec!["plain".to_owned(), "12".to_owned()],
            vec!["x".to_owned(), "1,234".to_owned()],
        ];
        assert_eq!(
            render(&["name", "kb/s"], &rows),
            "  name    kb/s\n  -----  -----\n  plain     12\n  x      1,234\n"
        );
    }

    #[test]
    fn cells_are_short() {
        assert_eq!(cell(Some(&json!(1234567))), "1,234,567");
        assert_eq!(cell(Some(&json!(0.8153))), "0.82");
        assert_eq!(cell(Some(&json!(239.26))), "239.3");
        assert_eq!(cell(Some(&json!(-12))), "-12");
        assert_eq!(cell(Some(&json!(true))), "yes");
        assert_eq!(cell(None), "-");
    }
}
