//! Writes a report: tables as Markdown, plots as SVG, all data as JSON.

use std::{fs, io, path::Path};

use crate::compare::Report;

pub mod plot;
pub mod sentences;
pub mod table;

use sentences::Sentences;

/// Writes `<name>.md`, `<name>.json` and a plot of each suite to a directory.
///
/// # Errors
/// Returns the errors of writing files, and of drawing.
pub fn write(report: &Report, sentences: &Sentences, into: &Path, name: &str) -> io::Result<()> {
    fs::create_dir_all(into)?;
    let json = serde_json::to_string_pretty(report).map_err(io::Error::other)?;
    fs::write(into.join(format!("{name}.json")), json + "\n")?;
    for suite in &report.suites {
        let drawn = plot::draw(suite).map_err(io::Error::other)?;
        fs::write(into.join(format!("{name}-{}.svg", suite.suite)), drawn)?;
    }
    let tables = table::markdown(report, sentences, name);
    fs::write(into.join(format!("{name}.md")), tables)
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::{
        case::{Figure, Role},
        compare::{Compared, Group, Report, Row},
        verdict::{Spread, Verdict},
    };

    use super::*;

    fn row(contender: &str, role: Role, instructions: f64, ratio: f64) -> Row {
        let ratios = vec![ratio * 0.9, ratio, ratio * 1.1];
        Row {
            contender: contender.to_owned(),
            role,
            instructions,
            nanos: [20.0, 40.0].map(|nanos| Some(Spread::of(&[nanos * ratio]))),
            ratios: [ratios.clone(), ratios],
            bytes_per_entry: (role == Role::Ours).then_some(48.0),
        }
    }

    /// A report of one suite with one group: the design of this project at 100 instructions, a map at 250, a limit at
    /// 10.
    pub(crate) fn report() -> Report {
        let rows = vec![
            row("map", Role::Naive, 250.0, 2.5),
            row("memcpy", Role::Limit, 10.0, 0.1),
            row("ours", Role::Ours, 100.0, 1.0),
        ];
        let group = Group {
            operation: "trip".to_owned(),
            size: 64,
            rows,
            one_thread: Verdict::Ours,
            two_threads: Some(Verdict::Undecided),
        };
        let what = "wake-ups";
        Report {
            machine: "a processor".to_owned(),
            commit: "abc1234".to_owned(),
            date: "2026-01-02 03:04 UTC".to_owned(),
            rounds: 3,
            suites: vec![Compared {
                suite: "table".to_owned(),
                groups: vec![group],
                figures: vec![
                    Figure::new("trip", "map", 64, what, 12.0).near(1.0),
                    Figure::new("trip", "ours", 64, what, 1.0).near(1.0),
                ],
            }],
        }
    }

    #[test]
    fn everything_is_written_and_the_json_reads_back() {
        let into = std::env::temp_dir().join(format!("adit-record-{}", std::process::id()));
        write(&report(), &Sentences::default(), &into, "day-commit").unwrap();
        let read = |name: &str| fs::read_to_string(into.join(name)).unwrap();
        let back: Report = serde_json::from_str(&read("day-commit.json")).unwrap();
        assert_eq!(back.suites[0].groups[0].rows[0].contender, "map");
        assert!(read("day-commit-table.svg").contains("</svg>"));
        assert!(read("day-commit.md").contains("day-commit-table.svg"));
        fs::remove_dir_all(&into).unwrap();
    }
}
