// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Plots of results, as SVG.

use std::path::Path;

use plotters::prelude::*;
use serde_json::Value;

use crate::error::{Error, Result};

const SIZE: (u32, u32) = (900, 420);
const COLOURS: [RGBColor; 4] = [
    RGBColor(96, 125, 139),
    RGBColor(66, 133, 180),
    RGBColor(214, 110, 56),
    RGBColor(90, 160, 90),
];

fn number(row: &Value, field: &str) -> f64 {
    row[field].as_f64().unwrap_or(0.0)
}

/// The end of an axis that holds `top`: a little more, so that labels above bars have room.
fn axis_end(top: f64) -> f64 {
    if top > 0.0 {
        top * 1.18
    } else {
        1.0
    }
}

/// Goodput and overhead of each transfer, side by side.
pub fn transfers(rows: &[Value], path: &Path) -> Result<()> {
    let overhead = |row: &Value| number(row, "overhead_octets");
    beside_goodput(rows, path, "Overhead, octets a full segment", &overhead)
}

/// Goodput over the lossy link, and how long it took.
pub fn repairs(rows: &[Value], path: &Path) -> Result<()> {
    let seconds = |row: &Value| number(row, "seconds");
    beside_goodput(rows, path, "Time, seconds", &seconds)
}

/// Goodput on the left, something else on the right.
fn beside_goodput(
    rows: &[Value],
    path: &Path,
    title: &str,
    value: &dyn Fn(&Value) -> f64,
) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::check(format!("plotting {}: {error}", path.display()))
    };
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|e| failed(&e))?;
    let (left, right) = area.split_horizontally(SIZE.0 / 2);
    bars(&left, "Goodput, Mb/s", rows, &|row| {
        number(row, "goodput_kbps") / 1000.0
    })
    .map_err(|e| failed(&e))?;
    bars(&right, title, rows, value).map_err(|e| failed(&e))?;
    area.present().map_err(|e| failed(&e))
}

fn bars<'a>(
    area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    title: &str,
    rows: &[Value],
    value: &dyn Fn(&Value) -> f64,
) -> std::result::Result<(), Box<dyn std::error::Error + 'a>> {
    let top = rows.iter().map(value).fold(0.0, f64::max);
    let count = rows.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(title, ("sans-serif", 18))
        .x_label_area_size(34)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..count, 0.0..axis_end(top))?;
    let name = |x: &f64| {
        let row = rows.get(x.floor() as usize);
        // The mesh asks for labels at its own points; a bar's name belongs to its middle.
        let middle = (x.fract() - 0.5).abs() < 0.01;
        row.filter(|_| middle)
            .map(|row| row["config"].as_str().unwrap_or("?").to_owned())
            .unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(0)
        .x_labels(rows.len() * 2 + 1)
        .x_label_formatter(&name)
        .x_label_style(("sans-serif", 14))
        .y_label_style(("sans-serif", 13))
        .draw()?;
    for (index, row) in rows.iter().enumerate() {
        let (x, y) = (index as f64, value(row));
        let colour = COLOURS[index % COLOURS.len()];
        chart.draw_series(std::iter::once(Rectangle::new(
            [(x + 0.18, 0.0), (x + 0.82, y)],
            colour.filled(),
        )))?;
        let label = if y >= 100.0 || y.fract() == 0.0 {
            format!("{y:.0}")
        } else {
            format!("{y:.2}")
        };
        let style = ("sans-serif", 14).into_font().color(&BLACK);
        let style = style.pos(plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Center,
            plotters::style::text_anchor::VPos::Bottom,
        ));
        chart.draw_series(std::iter::once(Text::new(label, (x + 0.5, y), style)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_plot_names_every_transfer_and_its_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.svg");
        let rows = [
            json!({"config": "plain", "goodput_kbps": 1843.2, "overhead_octets": 0}),
            json!({"config": "kernel-esp", "goodput_kbps": 1790, "overhead_octets": 56}),
            json!({"config": "two-zone", "goodput_kbps": 1770, "overhead_octets": 78}),
        ];
        transfers(&rows, &path).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        for text in ["plain", "kernel-esp", "two-zone", "1.84", "78"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn the_plot_of_repairs_shows_rate_and_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.svg");
        let rows = [
            json!({"config": "two-zone-esp", "goodput_kbps": 160, "seconds": 100.0}),
            json!({"config": "two-zone-esp+snoop", "goodput_kbps": 1520, "seconds": 10.5}),
        ];
        repairs(&rows, &path).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        for text in ["two-zone-esp+snoop", "1.52", "100", "10.50"] {
            assert!(svg.contains(text), "{text}");
        }
    }
}
