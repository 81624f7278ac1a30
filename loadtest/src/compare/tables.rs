//! Formats a report for a terminal and as Markdown: the same cells in both formats.

use std::fmt::Write as _;

use comfy_table::{Attribute, Cell, ContentArrangement, Table, presets};

use crate::compare::report::{Report, Row};
use crate::compare::scenario::Judge;

const NOTHING: &str = "–";

/// The report for a terminal.
pub(crate) fn terminal(report: &Report) -> String {
    let mut text = preface(report);
    for (judge, heading) in KINDS {
        let rows = cells(report, judge);
        if rows.is_empty() {
            continue;
        }
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(
            header(report, judge)
                .into_iter()
                .map(|name| Cell::new(name).add_attribute(Attribute::Bold)),
        );
        for row in rows {
            table.add_row(row);
        }
        let _ = write!(text, "\n{heading}\n{table}\n");
    }
    text.push_str(LEGEND);
    text
}

/// The report as Markdown, for a file.
pub(crate) fn markdown(report: &Report) -> String {
    let mut text = format!(
        "# Load test `{}`\n\n{}",
        report.setup.scenarios,
        preface(report)
    );
    for (judge, heading) in KINDS {
        let rows = cells(report, judge);
        if rows.is_empty() {
            continue;
        }
        let header = header(report, judge);
        let rule: Vec<&str> = header
            .iter()
            .enumerate()
            .map(|(at, _)| if at < 2 { "---" } else { "--:" })
            .collect();
        let _ = write!(
            text,
            "\n## {heading}\n\n| {} |\n| {} |\n",
            header.join(" | ").replace('\n', " "),
            rule.join(" | ")
        );
        for row in rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
    }
    text.push_str(LEGEND);
    text
}

const KINDS: [(Judge, &str); 2] = [
    (Judge::Requests, "Small requests"),
    (Judge::Bytes, "Large bodies"),
];

const LEGEND: &str = "\nEach figure is the median of the rounds, each ratio (×) the median of the ratios taken within a round. \
Tunnel CPU is that of the tunnel's own processes (server + client); all CPU adds the service and the load generator. \
Memory is that of the tunnel's processes together, before any load and at the peak of the scenario.\n";

fn preface(report: &Report) -> String {
    let setup = &report.setup;
    let machine = &setup.machine;
    let mut text = format!(
        "{}\n\n- machine: {}, {} cores, Linux {}, load before the run {}\n- commit: {}\n- date: {}\n\
         - {} rounds, {} s each after {} s of warm-up; everything on one machine, over loopback\n\
         - kernel: {}\n",
        setup.about,
        machine.cpu,
        machine.cores,
        machine.kernel,
        machine.load_before,
        setup.commit,
        setup.date,
        setup.rounds,
        setup.duration_s,
        setup.warm_up_s,
        report.kernel.text(),
    );
    for warning in &report.warnings {
        let _ = writeln!(text, "- WARNING: {warning}");
    }
    text
}

fn header(report: &Report, judge: Judge) -> Vec<String> {
    let reference = report.setup.reference.name();
    let (rate, cost) = match judge {
        Judge::Requests => ("requests/s", "µs/request"),
        Judge::Bytes => ("Gbit/s", "ms/GiB"),
    };
    let mut header = vec![
        "scenario".to_owned(),
        "target".to_owned(),
        rate.to_owned(),
        format!("×\n{reference}"),
        format!("tunnel CPU\n{cost}\n(server + client)"),
        format!("×\n{reference}"),
        format!("all CPU\n{cost}"),
        format!("×\n{reference}"),
    ];
    if judge == Judge::Requests {
        header.extend([
            "p50\nµs".to_owned(),
            "p99\nµs".to_owned(),
            "calls per\nrequest".to_owned(),
        ]);
    }
    header.extend(["MiB\nidle / peak".to_owned(), "failed".to_owned()]);
    header
}

fn cells(report: &Report, judge: Judge) -> Vec<Vec<String>> {
    let sections = report
        .sections
        .iter()
        .filter(|section| section.scenario.judge == judge);
    sections
        .flat_map(|section| {
            let name = &section.scenario.name;
            section
                .rows
                .iter()
                .map(move |row| row_cells(name, row, judge))
        })
        .collect()
}

fn row_cells(scenario: &str, row: &Row, judge: Judge) -> Vec<String> {
    let figures = &row.median;
    // Direct has no tunnel, so its row has no cost and no memory of a tunnel.
    let tunnel = !row.tunnel_cpu_by_process.is_empty();
    let ratio = |field: fn(&crate::compare::report::Figures) -> f64| {
        row.ratio
            .as_ref()
            .map(field)
            .filter(|it| it.is_finite())
            .map_or(NOTHING.to_owned(), |it| format!("{it:.2}"))
    };
    let parts = |parts: &[(String, f64)]| {
        parts
            .iter()
            .map(|(_, value)| number(*value))
            .collect::<Vec<_>>()
            .join(" + ")
    };
    let or_nothing = |there: bool, text: String| if there { text } else { NOTHING.to_owned() };
    let mut cells = vec![
        scenario.to_owned(),
        row.target.name().to_owned(),
        number(figures.rate),
        ratio(|it| it.rate),
        or_nothing(
            tunnel,
            format!(
                "{} ({})",
                number(figures.tunnel_cpu),
                parts(&row.tunnel_cpu_by_process)
            ),
        ),
        or_nothing(tunnel, ratio(|it| it.tunnel_cpu)),
        number(figures.all_cpu),
        ratio(|it| it.all_cpu),
    ];
    if judge == Judge::Requests {
        cells.push(number(figures.p50_us));
        cells.push(number(figures.p99_us));
        cells.push(row.calls.as_deref().map_or(NOTHING.to_owned(), parts));
    }
    let mib = |kib: f64| number(kib / 1024.0);
    cells.push(or_nothing(
        tunnel,
        format!("{} / {}", mib(row.idle_kib), mib(figures.peak_kib)),
    ));
    cells.push(row.failures.to_string());
    cells
}

/// Three significant digits, or all digits of a whole number.
fn number(value: f64) -> String {
    if !value.is_finite() {
        NOTHING.to_owned()
    } else if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown: Vec<String> = [0.1234, 9.994, 12.34, 123.4, 45_678.9, f64::NAN]
            .map(number)
            .into();
        assert_eq!(shown, ["0.12", "9.99", "12.3", "123", "45679", "–"]);
    }
}
