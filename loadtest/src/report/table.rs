//! The report for a terminal.

use std::fmt::Write as _;

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};

use super::{LoadReport, Report};

/// The complete report as text.
pub(crate) fn terminal(report: &Report) -> String {
    let setup = &report.setup;
    let machine = &setup.machine;
    let mut text = format!(
        "{}: {}\n{}; commit {}; {} ({} cores), Linux {}; {}\n{:.1} s after {:.1} s of warm-up\n\n",
        report.scenario,
        report.about,
        setup.target,
        setup.commit,
        machine.cpu,
        machine.cores,
        machine.kernel,
        setup.date,
        report.window_s,
        report.warm_up_s,
    );
    let _ = writeln!(
        text,
        "{}\nLatencies in milliseconds.\n{}",
        loads(report),
        report.kernel.text()
    );
    for warning in &report.warnings {
        let _ = writeln!(text, "WARNING {warning}");
    }
    for event in &report.events {
        let _ = writeln!(
            text,
            "\n{:.1} s: {}; {}; good responses again after: {}",
            event.at_s,
            event.what,
            back(event),
            recovered(event),
        );
    }
    for load in &report.loads {
        for (detail, count) in &load.error_details {
            let _ = writeln!(text, "{}: {count} x {detail}", load.name);
        }
    }
    for problem in &report.problems {
        let _ = writeln!(text, "FAILED {problem}");
    }
    if report.passed() {
        let _ = writeln!(text, "passed");
    }
    text
}

/// The maximum width of the table in columns of a terminal.
const WIDTH: usize = 100;

/// The columns that are left out of a table that would be wider, in this order. The other reports have all columns.
const LESS: [&str; 3] = ["p99.99", "p90", "kind"];

fn loads(report: &Report) -> Table {
    let mut left_out = 0;
    loop {
        let table = loads_without(report, &LESS[..left_out]);
        let width = table.lines().map(|line| line.chars().count()).max();
        if width.unwrap_or(0) <= WIDTH || left_out == LESS.len() {
            return table;
        }
        left_out += 1;
    }
}

fn loads_without(report: &Report, left_out: &[&str]) -> Table {
    let is_in = |place: &usize| !left_out.contains(&HEADER[*place]);
    let places: Vec<usize> = (0..HEADER.len()).filter(is_in).collect();
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_content_arrangement(ContentArrangement::Disabled);
    let names = places.iter().map(|place| HEADER[*place]);
    table.set_header(names.map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
    for load in &report.loads {
        let row = row(load);
        let cells = places.iter().map(|place| {
            let alignment = if *place < 2 {
                CellAlignment::Left
            } else {
                CellAlignment::Right
            };
            Cell::new(&row[*place]).set_alignment(alignment)
        });
        table.add_row(cells);
    }
    table
}

pub(super) const HEADER: [&str; 13] = [
    "load", "kind", "due/s", "done/s", "MB/s", "p50", "p90", "p99", "p99.9", "p99.99", "max",
    "errors", "lost",
];

/// The cells of a load, in the order of [`HEADER`].
pub(super) fn row(load: &LoadReport) -> [String; 13] {
    let latency = &load.latency;
    let ms = |micros: u64| {
        if latency.count == 0 {
            return "–".to_owned();
        }
        number(micros as f64 / 1e3)
    };
    let seconds = load.offered_per_s.len().max(1) as f64;
    let due = load.offered_per_s.iter().sum::<f64>() / seconds;
    [
        load.name.clone(),
        load.kind.to_owned(),
        if due > 0.0 {
            number(due)
        } else {
            "–".to_owned()
        },
        number(load.completed_per_s),
        number(load.bytes_per_s / 1e6),
        ms(latency.p50_us),
        ms(latency.p90_us),
        ms(latency.p99_us),
        ms(latency.p99_9_us),
        ms(latency.p99_99_us),
        ms(latency.max_us),
        load.errors.to_string(),
        if load.kind == "udp" {
            format!("{} ({:.3} %)", load.lost, load.loss_percent)
        } else {
            "–".to_owned()
        },
    ]
}

/// The loads, each with the time until its first good response.
pub(super) fn recovered(event: &super::EventReport) -> String {
    let loads = event.recovered_ms.iter().map(|(load, after)| match after {
        Some(ms) => format!("{load} {} ms", number(*ms)),
        None => format!("{load} no good response"),
    });
    let undisturbed = event.without_failure.iter();
    loads
        .chain(undisturbed.map(|load| format!("{load} nothing failed")))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Whether and when the side returned.
pub(super) fn back(event: &super::EventReport) -> String {
    match event.took_s {
        Some(took_s) => format!("back after {took_s:.2} s"),
        None => "did not return".to_owned(),
    }
}

/// Three significant digits, or all digits of a whole number.
pub(super) fn number(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}
