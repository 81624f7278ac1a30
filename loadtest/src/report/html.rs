//! The report as one page that needs nothing else: the plots are in it, and it loads nothing.

use std::fmt::Write as _;

use super::plots::{self, Axis, Line, Plot, PlotError};
use super::{LoadReport, Report, table};

/// The page could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    /// See there.
    #[error(transparent)]
    Plot(#[from] PlotError),
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;\
background:#fff}h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}table{border-collapse:collapse;\
font-size:.85rem}td,th{padding:.25rem .55rem;border-bottom:1px solid #ddd;text-align:right}td:nth-child(-n+2),\
th:nth-child(-n+2){text-align:left}.wide{overflow-x:auto}.passed{color:#00704a}.failed{color:#b3261e}\
svg{max-width:100%;height:auto}dt{font-weight:600}dd{margin:0 0 .4rem}code{background:#f3f3f3;padding:.1rem .25rem}";

/// The page.
///
/// # Errors
/// [`PageError`].
pub(crate) fn page(report: &Report) -> Result<String, PageError> {
    let title = format!("Load test {}", escaped(&report.scenario));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n\
         <p>{}</p>\n",
        escaped(&report.about)
    );
    verdict(report, &mut page);
    warnings(report, &mut page);
    setup(report, &mut page);
    loads(report, &mut page);
    events(report, &mut page);
    let percentiles = report.loads.iter().map(|load| Line {
        name: load.name.clone(),
        points: milliseconds(load),
    });
    let _ = writeln!(page, "<h2>Latency by percentile</h2>");
    page.push_str(&plots::draw(&Plot {
        title: "Latency by percentile, all loads",
        x: Axis::Percentile,
        y: Axis::Milliseconds,
        lines: percentiles.collect(),
        marks: Vec::new(),
    })?);
    for load in &report.loads {
        let _ = writeln!(
            page,
            "<h2>{}</h2>\n<p>Latency counts {}.</p>",
            escaped(&load.name),
            escaped(load.latency_is)
        );
        page.push_str(&throughput(report, load)?);
        page.push_str(&latency(report, load)?);
    }
    page.push_str("</body></html>\n");
    Ok(page)
}

fn verdict(report: &Report, page: &mut String) {
    if report.passed() {
        page.push_str("<p class=\"passed\"><strong>Passed.</strong></p>\n");
        return;
    }
    page.push_str("<p class=\"failed\"><strong>Failed.</strong></p><ul class=\"failed\">\n");
    for problem in &report.problems {
        let _ = writeln!(page, "<li>{}</li>", escaped(problem));
    }
    page.push_str("</ul>\n");
}

fn warnings(report: &Report, page: &mut String) {
    for warning in &report.warnings {
        let _ = writeln!(
            page,
            "<p class=\"failed\">Warning: {}.</p>",
            escaped(warning)
        );
    }
}

fn setup(report: &Report, page: &mut String) {
    let setup = &report.setup;
    let machine = &setup.machine;
    let rows = [
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
    ];
    page.push_str("<dl>\n");
    for (name, text) in rows {
        let _ = writeln!(page, "<dt>{name}</dt><dd>{}</dd>", escaped(&text));
    }
    let _ = writeln!(
        page,
        "<dt>Command</dt><dd><code>{}</code></dd>\n</dl>",
        escaped(&setup.command)
    );
}

fn loads(report: &Report, page: &mut String) {
    page.push_str("<h2>Loads</h2>\n<div class=\"wide\"><table><tr>");
    for name in table::HEADER {
        let _ = write!(page, "<th>{name}</th>");
    }
    page.push_str("</tr>\n");
    for load in &report.loads {
        page.push_str("<tr>");
        for cell in table::row(load) {
            let _ = write!(page, "<td>{}</td>", escaped(&cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n<p>Latencies in milliseconds; open loop: a request that is sent late because others \
                   stall is timed from when it was due.</p>\n");
    let details = report.loads.iter().flat_map(|load| {
        let details = load.error_details.iter();
        details.map(move |(detail, count)| format!("{}: {count} × {detail}", load.name))
    });
    let details: Vec<String> = details.collect();
    if !details.is_empty() {
        page.push_str("<p>Errors in detail:</p><ul>\n");
        for detail in details {
            let _ = writeln!(page, "<li>{}</li>", escaped(&detail));
        }
        page.push_str("</ul>\n");
    }
}

fn events(report: &Report, page: &mut String) {
    if report.events.is_empty() {
        return;
    }
    page.push_str("<h2>Events</h2>\n<ul>\n");
    for event in &report.events {
        let _ = writeln!(
            page,
            "<li>{:.1} s: {}; {}; first good answer behind the first failure, counted from its beginning: {}</li>",
            event.at_s,
            escaped(&event.what),
            table::back(event),
            escaped(&table::recovered(event))
        );
    }
    page.push_str("</ul>\n<p>Red lines in the plots are these events.</p>\n");
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

/// A point stands in the middle of its second.
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
        let done = over_time(&load.seconds, |second| second.answered as f64);
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
            // A second without an answer has no latency.
            points: points
                .filter(|(_, second)| second.answered > 0)
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

/// As HTML wants a text that may hold anything.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}
