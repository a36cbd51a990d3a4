// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Curves and marks on two axes, as SVG.

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::coord::Shift;
use plotters::prelude::*;

/// What drawing fails with.
pub type Result<'a> = std::result::Result<(), Box<dyn std::error::Error + 'a>>;

/// An area to draw on.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// How a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// With a dot at each point.
    Dotted,
    /// Without.
    Bare,
    /// Dashed, for what isn't measured.
    Dashed,
    /// Dots alone.
    None,
}

/// A curve with its name in the legend.
pub struct Curve {
    /// Its name.
    pub name: String,
    /// Its colour.
    pub colour: RGBColor,
    /// How it is drawn.
    pub line: Line,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// A claim of the paper's: a hollow mark and what it says.
pub struct Mark {
    /// Where.
    pub at: (f64, f64),
    /// What.
    pub text: String,
    /// The colour of the curve it belongs to.
    pub colour: RGBColor,
}

/// The chart around the curves.
pub struct Axes<'a> {
    /// Above it.
    pub title: &'a str,
    /// The horizontal axis.
    pub x: &'a str,
    /// The vertical axis.
    pub y: &'a str,
    /// The right end of the horizontal axis; it begins at nothing.
    pub right: f64,
    /// The vertical axis' ends.
    pub height: (f64, f64),
    /// Whether the vertical axis is logarithmic.
    pub logarithmic: bool,
    /// Names of the whole numbers on the horizontal axis; numbers otherwise.
    pub names: Vec<String>,
}

/// Draws a chart.
pub fn draw<'a>(area: &Area<'a>, axes: &Axes<'_>, curves: &[Curve], marks: &[Mark]) -> Result<'a> {
    let height = axes.height.0..axes.height.1;
    if axes.logarithmic {
        on(area, axes, height.log_scale(), curves, marks)
    } else {
        on(area, axes, height, curves, marks)
    }
}

fn on<'a, Y>(
    area: &Area<'a>,
    axes: &Axes<'_>,
    height: Y,
    curves: &[Curve],
    marks: &[Mark],
) -> Result<'a>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let left = if axes.names.is_empty() { 0.0 } else { -0.3 };
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .caption(axes.title, ("sans-serif", 18))
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(left..axes.right, height)?;
    let name = |x: &f64| {
        if axes.names.is_empty() {
            return number(*x);
        }
        let whole = (x - x.round()).abs() < 0.01;
        let name = axes.names.get(x.round().max(0.0) as usize);
        name.filter(|_| whole).cloned().unwrap_or_default()
    };
    let labels = if axes.names.is_empty() {
        10
    } else {
        axes.names.len() * 2
    };
    chart
        .configure_mesh()
        .max_light_lines(0)
        .bold_line_style(BLACK.mix(0.08))
        .x_labels(labels)
        .x_label_formatter(&name)
        .y_label_formatter(&|y| number(*y))
        .x_desc(axes.x)
        .y_desc(axes.y)
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .draw()?;
    for curve in curves {
        let colour = curve.colour;
        let points = || curve.points.iter().copied();
        let drawn = match curve.line {
            Line::Dashed => chart.draw_series(DashedLineSeries::new(
                points(),
                6,
                5,
                colour.stroke_width(1),
            ))?,
            Line::None => {
                chart.draw_series(points().map(|at| Circle::new(at, 3, colour.filled())))?
            }
            Line::Bare | Line::Dotted => {
                chart.draw_series(LineSeries::new(points(), colour.stroke_width(2)))?
            }
        };
        if !curve.name.is_empty() {
            let dashed = curve.line == Line::Dashed;
            drawn.label(&curve.name).legend(move |(x, y)| {
                PathElement::new(
                    [(x, y), (x + if dashed { 8 } else { 18 }, y)],
                    colour.stroke_width(if dashed { 1 } else { 2 }),
                )
            });
        }
        if curve.line == Line::Dotted {
            chart.draw_series(points().map(|at| Circle::new(at, 3, colour.filled())))?;
        }
    }
    for mark in marks {
        chart.draw_series(std::iter::once(
            EmptyElement::at(mark.at)
                + Circle::new((0, 0), 6, mark.colour.stroke_width(2))
                + Text::new(mark.text.clone(), (9, -6), ("sans-serif", 12)),
        ))?;
    }
    if curves.iter().any(|curve| !curve.name.is_empty()) {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .label_font(("sans-serif", 13))
            .draw()?;
    }
    Ok(())
}

/// A number as short as it can be.
fn number(value: f64) -> String {
    if value.abs() >= 10.0 || value.fract().abs() < 1e-9 {
        format!("{value:.0}")
    } else {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_on_axes_are_short() {
        assert_eq!(number(0.0), "0");
        assert_eq!(number(1200.0), "1200");
        assert_eq!(number(0.5), "0.5");
        assert_eq!(number(2.25), "2.25");
    }
}
