//! The report as one HTML page (`templates/report.html`) that includes its plots and loads no other resource.

use askama::Template;

use super::plots::{self, Axis, Line, Plot, PlotError};
use super::{LoadReport, Report, table};

/// Why the page could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    /// A plot could not be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// The page could not be rendered.
    #[error("the page cannot be written: {0}")]
    Template(#[from] askama::Error),
}

/// The values of the template. The template escapes texts; plots are SVG.
#[derive(Template)]
#[template(path = "report.html")]
struct Page<'r> {
    report: &'r Report,
    setup: Vec<(&'static str, String)>,
    header: &'r [&'r str],
    rows: Vec<[String; table::HEADER.len()]>,
    error_details: Vec<String>,
    events: Vec<String>,
    percentiles: String,
    loads: Vec<Plots<'r>>,
}

/// The plots of one load.
struct Plots<'r> {
    name: &'r str,
    latency_is: &'r str,
    throughput: String,
    latency: String,
}

/// Renders the page.
///
/// # Errors
/// Returns a [`PageError`].
pub(crate) fn page(report: &Report) -> Result<String, PageError> {
    let percentiles = report.loads.iter().map(|load| Line {
        name: load.name.clone(),
        points: milliseconds(load),
    });
    let percentiles = plots::draw(&Plot {
        title: "Latency by percentile, all loads",
        x: Axis::Percentile,
        y: Axis::Milliseconds,
        lines: percentiles.collect(),
        marks: Vec::new(),
    })?;
    let loads = report.loads.iter().map(|load| {
        Ok(Plots {
            name: &load.name,
            latency_is: load.latency_is,
            throughput: throughput(report, load)?,
            latency: latency(report, load)?,
        })
    });
    let page = Page {
        report,
        setup: setup(report),
        header: &table::HEADER,
        rows: report.loads.iter().map(table::row).collect(),
        error_details: error_details(report),
        events: report.events.iter().map(event).collect(),
        percentiles,
        loads: loads.collect::<Result<_, PlotError>>()?,
    };
    Ok(page.render()?)
}

fn setup(report: &Report) -> Vec<(&'static str, String)> {
    let setup = &report.setup;
    let machine = &setup.machine;
    vec![
        ("Target", setup.target.clone()),
        ("Commit", setup.commit.clone()),
        ("Date", setup.date.clone()),
        ("Kernel", report.kernel.text()),
        (
            "Machine",
            format!(
                "{}, {} cores, Linux {}, load before the run {}",
                machine.cpu, machine.cores, machine.kernel, machine.load_before
            ),
        ),
        (
            "Window",
            format!(
                "{:.1} s after {:.1} s of warm-up",
                report.window_s, report.warm_up_s
            ),
        ),
    ]
}

fn error_details(report: &Report) -> Vec<String> {
    let details = report.loads.iter().flat_map(|load| {
        let details = load.error_details.iter();
        details.map(move |(detail, count)| format!("{}: {count} × {detail}", load.name))
    });
    details.collect()
}

fn event(event: &super::EventReport) -> String {
    format!(
        "{:.1} s: {}; {}; first good response after the first failure, counted from its beginning: {}",
        event.at_s,
        event.what,
        table::back(event),
        table::recovered(event)
    )
}

fn milliseconds(load: &LoadReport) -> Vec<(f64, f64)> {
    let points = load.percentiles.iter();
    points
        .map(|(percent, micros)| (*percent, *micros as f64 / 1e3))
        .collect()
}

fn marks(report: &Report) -> Vec<f64> {
    report.events.iter().map(|event| event.at_s).collect()
}

/// Points over time, each in the middle of its second.
fn over_time<T>(values: &[T], value: impl Fn(&T) -> f64) -> Vec<(f64, f64)> {
    let values = values.iter().enumerate();
    values
        .map(|(second, it)| (second as f64 + 0.5, value(it)))
        .collect()
}

fn throughput(report: &Report, load: &LoadReport) -> Result<String, PlotError> {
    let line = |name: &str, points| Line {
        name: name.to_owned(),
        points,
    };
    let (axis, mut lines) = if load.is_bulk {
        let rate = over_time(&load.seconds, |second| second.bytes as f64 / 1e6);
        (Axis::Amount("MB/s"), vec![line("MB/s, checked", rate)])
    } else {
        let done = over_time(&load.seconds, |second| second.completed as f64);
        let due = over_time(&load.offered_per_s, |rate| *rate);
        let lines = vec![line("done", done), line("due", due)];
        (Axis::Amount("per second"), lines)
    };
    if load.errors.total() > 0 {
        let errors = over_time(&load.seconds, |second| second.errors as f64);
        lines.push(line("errors", errors));
    }
    plots::draw(&Plot {
        title: &format!("{}: throughput", load.name),
        x: Axis::Seconds,
        y: axis,
        lines,
        marks: marks(report),
    })
}

fn latency(report: &Report, load: &LoadReport) -> Result<String, PlotError> {
    let line = |name: &str, value: fn(&crate::series::Second) -> u64| {
        let points = load.seconds.iter().enumerate();
        Line {
            name: name.to_owned(),
            // A second without responses has no latency.
            points: points
                .filter(|(_, second)| second.completed > 0)
                .map(|(at, second)| (at as f64 + 0.5, value(second) as f64 / 1e3))
                .collect(),
        }
    };
    plots::draw(&Plot {
        title: &format!("{}: latency", load.name),
        x: Axis::Seconds,
        y: Axis::Milliseconds,
        lines: vec![
            line("p50", |second| second.p50_us),
            line("p99", |second| second.p99_us),
            line("max", |second| second.max_us),
        ],
        marks: marks(report),
    })
}
