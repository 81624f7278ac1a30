//! Plots as SVG text: lines over time or over percentiles.

use plotters::prelude::*;

/// Width and height of a plot in pixels.
const SIZE: (u32, u32) = (860, 300);

/// The width of the legend beside the plot; it does not cover a line.
const LEGEND_WIDTH: u32 = 150;

/// The number of characters of a name that fit into the legend.
const LEGEND_CHARS: usize = 20;

/// Colours that colour-blind readers can distinguish (Okabe, Ito 2008).
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];

/// The maximum number of points: more points than pixels are not visible.
const MOST_POINTS: usize = 600;

/// A plot could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("plot \"{title}\": {problem}")]
pub(crate) struct PlotError {
    title: String,
    problem: String,
}

/// A line of a plot.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// What a plot shows.
#[derive(Debug, Clone)]
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
    /// The places of vertical lines on the x axis.
    pub(super) marks: Vec<f64>,
}

/// The scale and unit of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    /// Seconds of the window.
    Seconds,
    /// A linear axis from 0.
    Amount(&'static str),
    /// Milliseconds on a logarithmic axis.
    Milliseconds,
    /// Percentiles on a logarithmic axis, where each additional nine has the same length.
    Percentile,
}

impl Axis {
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Seconds | Self::Amount(_) => value,
            // A microsecond is the smallest measured value.
            Self::Milliseconds => value.max(0.001).log10(),
            Self::Percentile => -(1.0 - value.min(99.9999) / 100.0).log10(),
        }
    }

    fn label(self, place: f64) -> String {
        match self {
            Self::Seconds => format!("{}", (place * 10.0).round() / 10.0),
            Self::Amount(_) if place >= 1e6 => format!("{:.1}M", place / 1e6),
            Self::Amount(_) if place >= 1e4 => format!("{:.0}k", place / 1e3),
            Self::Amount(_) => format!("{}", (place * 100.0).round() / 100.0),
            Self::Milliseconds => {
                let value = 10_f64.powf(place);
                if value >= 1.0 {
                    format!("{value:.0}")
                } else {
                    format!("{value:.3}")
                }
            }
            Self::Percentile => {
                let value = 100.0 * (1.0 - 10_f64.powf(-place));
                format!("{} %", (value * 1e4).round() / 1e4)
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Amount(name) => name,
            Self::Milliseconds => "ms",
            Self::Percentile => "percentile",
        }
    }

    /// Whether one unit of the axis is a factor of ten.
    fn is_log(self) -> bool {
        matches!(self, Self::Milliseconds | Self::Percentile)
    }

    fn range(self, places: impl Iterator<Item = f64>) -> (f64, f64) {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for place in places.filter(|place| place.is_finite()) {
            least = least.min(place);
            most = most.max(place);
        }
        if least > most {
            (least, most) = (0.0, 1.0);
        }
        match self {
            Self::Milliseconds => (least.floor(), most.ceil().max(least.floor() + 1.0)),
            Self::Percentile => (0.0, most.ceil().max(2.0)),
            Self::Seconds => (0.0, most.ceil().max(1.0)),
            Self::Amount(_) => (0.0, (most * 1.1).max(1e-6)),
        }
    }
}

/// Draws a plot.
///
/// # Errors
/// Returns a [`PlotError`].
pub(super) fn draw(plot: &Plot<'_>) -> Result<String, PlotError> {
    let mut svg = String::new();
    let drawn = draw_on(plot, &mut svg);
    drawn.map_err(|problem| PlotError {
        title: plot.title.to_owned(),
        problem,
    })?;
    Ok(svg)
}

fn draw_on(plot: &Plot<'_>, svg: &mut String) -> Result<(), String> {
    fn text(error: impl std::fmt::Display) -> String {
        error.to_string()
    }
    let lines: Vec<(&str, Vec<(f64, f64)>)> = plot
        .lines
        .iter()
        .map(|line| {
            let every = line.points.len().div_ceil(MOST_POINTS).max(1);
            let points = line.points.iter().step_by(every);
            let placed = points.map(|(x, y)| (plot.x.place(*x), plot.y.place(*y)));
            (line.name.as_str(), placed.collect())
        })
        .collect();
    let all = || lines.iter().flat_map(|(_, points)| points.iter());
    let (left, right) = plot.x.range(all().map(|(x, _)| *x));
    let (bottom, top) = plot.y.range(all().map(|(_, y)| *y));

    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(text)?;
    let (plotted, legend) = area.split_horizontally(SIZE.0 - LEGEND_WIDTH);
    let mut chart = ChartBuilder::on(&plotted)
        .caption(plot.title, ("sans-serif", 16))
        .margin(8)
        .margin_right(24)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(left..right, bottom..top)
        .map_err(text)?;
    let labels = |axis: Axis, from: f64, to: f64, usual: usize| {
        if axis.is_log() {
            // There is one label for each decade: `as` saturates, and there are few decades.
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "few decades"
            )]
            let decades = (to - from).round() as usize;
            decades + 1
        } else {
            usual
        }
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_labels(labels(plot.x, left, right, 12))
        .y_labels(labels(plot.y, bottom, top, 6))
        .x_label_formatter(&|place| plot.x.label(*place))
        .y_label_formatter(&|place| plot.y.label(*place))
        .x_desc(plot.x.name())
        .y_desc(plot.y.name())
        .draw()
        .map_err(text)?;
    for mark in &plot.marks {
        let line = [(plot.x.place(*mark), bottom), (plot.x.place(*mark), top)];
        let series = LineSeries::new(line, RED.mix(0.5).stroke_width(2));
        chart.draw_series(series).map_err(text)?;
    }
    for (number, (name, points)) in lines.into_iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        // A line needs two points.
        let points: Vec<_> = match points[..] {
            [(x, y)] => vec![(x, y), (x + (right - left) / 50.0, y)],
            _ => points,
        };
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))
            .map_err(text)?;
        let y = 34 + 18 * i32::try_from(number).unwrap_or(0);
        let sample = PathElement::new([(0, y), (16, y)], color.stroke_width(2));
        legend.draw(&sample).map_err(text)?;
        let name: String = name.chars().take(LEGEND_CHARS).collect();
        let label = Text::new(name, (22, y - 6), ("sans-serif", 12));
        legend.draw(&label).map_err(text)?;
    }
    area.present().map_err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(lines: Vec<Line>) -> String {
        draw(&Plot {
            title: "a < b",
            x: Axis::Percentile,
            y: Axis::Milliseconds,
            lines,
            marks: vec![50.0],
        })
        .unwrap()
    }

    #[test]
    fn a_plot_is_self_contained_svg() {
        let line = |name: &str| Line {
            name: name.into(),
            points: vec![(0.0, 0.1), (50.0, 1.0), (99.0, 12.0)],
        };
        let svg = plot(vec![line("one"), line("two")]);
        assert!(
            svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"),
            "{svg}"
        );
        assert!(svg.matches("<polyline").count() >= 2, "{svg}");
        assert!(svg.contains("one") && svg.contains("a &lt; b"), "{svg}");
        assert!(!svg.contains("href") && !svg.contains("<image"), "{svg}");
    }

    #[test]
    fn the_legend_stands_beside_the_lines() {
        let line = Line {
            name: "named".into(),
            points: vec![(0.0, 0.1), (99.9, 12.0)],
        };
        let svg = plot(vec![line]);
        let (before, _) = svg.split_once("named").unwrap();
        let text = &before[before.rfind("<text").unwrap()..];
        let x = text.split_once("x=\"").unwrap().1;
        let x: u32 = x.split_once('"').unwrap().0.parse().unwrap();
        assert!(x > SIZE.0 - LEGEND_WIDTH, "{text}");
    }

    #[test]
    fn little_or_nothing_to_show_is_no_error() {
        assert!(plot(Vec::new()).contains("</svg>"));
        let point = Line {
            name: "x".into(),
            points: vec![(50.0, 0.0)],
        };
        assert!(plot(vec![point]).contains("<polyline"));
    }

    #[test]
    fn axes_have_labels() {
        assert_eq!(
            Axis::Percentile.label(Axis::Percentile.place(99.9)),
            "99.9 %"
        );
        assert_eq!(
            Axis::Milliseconds.label(Axis::Milliseconds.place(10.0)),
            "10"
        );
        assert_eq!(Axis::Amount("x").label(25_000.0), "25k");
    }
}
