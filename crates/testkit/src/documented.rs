//! The documented names of metrics: the tables of `docs/metrics.md`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "for tests only: a panic is how a test fails"
)]

/// Rows of the tables under `## {section}`: name, kind, labels; sorted.
///
/// # Panics
/// Panics when the section is missing, or a row has fewer cells.
#[must_use]
pub fn documented_metrics(section: &str) -> Vec<(String, String, String)> {
    let text = include_str!("../../../docs/metrics.md");
    let (_, text) = text
        .split_once(&format!("## {section}\n"))
        .expect("a section");
    let text = text.split("\n## ").next().unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let mut cells = line
            .split('|')
            .skip(1)
            .map(|cell| cell.trim().replace('`', ""));
        let mut next = || cells.next().unwrap();
        (next(), next(), next())
    };
    let mut rows: Vec<_> = rows.map(row).collect();
    rows.sort();
    rows
}
