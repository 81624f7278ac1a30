//! A suite's plot: a bar for each contender, with its instructions and its processor time on two threads relative to
//! the design of this project.

use plotters::{
    backend::SVGBackend,
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea},
    element::{PathElement, Rectangle, Text},
    style::{Color, IntoFont, RGBColor, TextStyle, WHITE},
};

use crate::{
    case::Role,
    compare::{Compared, Group, Row},
    verdict::Spread,
};

type Failed = DrawingAreaErrorKind<std::io::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

const LINE: i32 = 15;
const HEAD: i32 = 64;
const LABELS: i32 = 290;
const PANEL: i32 = 380;
const GAP: i32 = 30;
const FOOT: i32 = 10;
/// The distance from one colour of the key to the next.
const KEY: i32 = 62;

const INK: RGBColor = RGBColor(40, 40, 40);
const PALE: RGBColor = RGBColor(215, 215, 215);

const fn colour(role: Role) -> RGBColor {
    match role {
        Role::Ours => RGBColor(0, 114, 178),
        Role::Naive => RGBColor(213, 94, 0),
        Role::Rival => RGBColor(120, 120, 120),
        Role::Limit => RGBColor(180, 200, 180),
    }
}

/// A logarithmic axis of ratios.
struct Axis {
    left: i32,
    low: f64,
    high: f64,
}

impl Axis {
    /// Creates an axis wide enough for all ratios, and for 1.
    fn of(left: i32, ratios: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (0.5_f64, 2.0_f64);
        for ratio in ratios.filter(|ratio| ratio.is_finite() && *ratio > 0.0) {
            low = low.min(ratio);
            high = high.max(ratio);
        }
        Self { left, low, high }
    }

    #[allow(clippy::cast_possible_truncation)] // a position on the page
    fn at(&self, ratio: f64) -> i32 {
        let ratio = ratio.clamp(self.low, self.high);
        let part = (ratio / self.low).ln() / (self.high / self.low).ln();
        self.left + (part * f64::from(PANEL)) as i32
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        let (low, high) = (self.low, self.high);
        let powers = (-4..=6).map(|power| 10_f64.powi(power));
        let all = powers.flat_map(|power| [power, power * 2.0, power * 5.0]);
        // When there are many powers, the ticks at two and five are left out to avoid crowding.
        let wide = high / low > 200.0;
        all.filter(move |mark| {
            let is_power = (mark.log10() - mark.log10().round()).abs() < 1e-9;
            *mark >= low && *mark <= high && (is_power || !wide)
        })
    }
}

fn ratios_of(group: &Group, panel: usize) -> Vec<(f64, Option<Spread>)> {
    let ours = { group.rows.iter() }.find(|row| row.role == Role::Ours);
    let instructions = ours.map_or(1.0, |row| row.instructions);
    let ratio = |row: &Row| {
        if panel == 0 {
            return (row.instructions / instructions, None);
        }
        let spread = Spread::of(&row.ratios[1]);
        (spread.median, (!row.ratios[1].is_empty()).then_some(spread))
    };
    group.rows.iter().map(ratio).collect()
}

fn write(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: i32,
    ink: &RGBColor,
) -> Result<(), Failed> {
    let style = TextStyle::from(("sans-serif", size).into_font()).color(ink);
    area.draw(&Text::new(text.to_owned(), at, style))
}

/// The plot of a suite as SVG.
///
/// # Errors
/// Returns the errors of drawing.
pub fn draw(suite: &Compared) -> Result<String, Failed> {
    let lines: usize = suite.groups.iter().map(|group| group.rows.len() + 1).sum();
    let bottom = HEAD + LINE * i32::try_from(lines).unwrap_or(i32::MAX / LINE);
    let width = LABELS + 2 * PANEL + 2 * GAP + 60;
    let size = (width.unsigned_abs(), (bottom + FOOT).unsigned_abs());
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        write(
            &area,
            &format!("{}: each contender beside ours", suite.suite),
            (10, 6),
            16,
            &INK,
        )?;
        key(&area)?;
        for (panel, title) in [
            (0, "instructions, 1 thread (× ours)"),
            (
                1,
                "processor time, 2 threads (× ours: median, least to most)",
            ),
        ] {
            let left = LABELS + (PANEL + GAP) * i32::try_from(panel).unwrap_or(0);
            let reach = |(median, spread): (f64, Option<Spread>)| match spread {
                Some(spread) => [spread.min, spread.max],
                None => [median, median],
            };
            let all = { suite.groups.iter() }.flat_map(|group| ratios_of(group, panel));
            let axis = Axis::of(left, all.flat_map(reach));
            write(&area, title, (left, 28), 12, &INK)?;
            for mark in axis.marks() {
                let x = axis.at(mark);
                area.draw(&PathElement::new([(x, HEAD - 4), (x, bottom)], PALE))?;
                write(&area, &mark.to_string(), (x - 6, HEAD - 18), 11, &INK)?;
            }
            bars(&area, suite, panel, &axis)?;
            let one = axis.at(1.0);
            area.draw(&PathElement::new([(one, HEAD - 4), (one, bottom)], INK))?;
        }
        area.present()?;
    }
    Ok(svg)
}

/// Draws the key, which explains the colours.
fn key(area: &Area<'_>) -> Result<(), Failed> {
    let mut x = 10;
    for (role, name) in [
        (Role::Ours, "ours"),
        (Role::Naive, "naive"),
        (Role::Rival, "rival"),
        (Role::Limit, "limit"),
    ] {
        let square = [(x, 33), (x + 9, 42)];
        area.draw(&Rectangle::new(square, colour(role).filled()))?;
        write(area, name, (x + 13, 31), 12, &INK)?;
        x += KEY;
    }
    Ok(())
}

fn bars(area: &Area<'_>, suite: &Compared, panel: usize, axis: &Axis) -> Result<(), Failed> {
    let mut y = HEAD;
    for group in &suite.groups {
        if panel == 0 {
            write(
                area,
                &format!("{}/{}", group.operation, group.size),
                (10, y + 2),
                12,
                &INK,
            )?;
        }
        y += LINE;
        for (row, (median, spread)) in group.rows.iter().zip(ratios_of(group, panel)) {
            if panel == 0 {
                write(area, &row.contender, (120, y + 1), 12, &colour(row.role))?;
            }
            if panel == 0 || spread.is_some() {
                let (from, to) = (axis.at(1.0), axis.at(median));
                let bar = [(from.min(to) - 1, y + 2), (from.max(to) + 1, y + LINE - 3)];
                area.draw(&Rectangle::new(bar, colour(row.role).filled()))?;
                let mut end = from.max(to);
                if let Some(spread) = spread {
                    let middle = y + LINE / 2;
                    let reach = [(axis.at(spread.min), middle), (axis.at(spread.max), middle)];
                    area.draw(&PathElement::new(reach, INK))?;
                    end = end.max(axis.at(spread.max));
                }
                if row.role != Role::Ours {
                    write(area, &format!("{median:.2}"), (end + 4, y + 2), 10, &INK)?;
                }
            }
            y += LINE;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::report;

    #[test]
    fn a_plot_has_labels_and_bars_in_order() {
        let svg = draw(&report().suites[0]).unwrap();
        for label in ["trip/64", "map", "memcpy", "ours", "2.50", "0.10"] {
            assert!(svg.contains(label), "{label}");
        }
        // The background, the key, and a bar for each of three contenders in each of two panels.
        assert_eq!(svg.matches("<rect").count(), 1 + 4 + 6);
        for name in ["naive", "rival", "limit"] {
            assert!(svg.contains(name), "the key has {name}");
        }
        let axis = Axis::of(100, [0.1, 2.5].into_iter());
        assert!(axis.at(0.1) < axis.at(1.0) && axis.at(1.0) < axis.at(2.5));
        assert_eq!((axis.at(0.1), axis.at(2.5)), (100, 100 + PANEL));
        assert_eq!(axis.at(99.0), axis.at(2.5), "nothing leaves the page");
    }
}
