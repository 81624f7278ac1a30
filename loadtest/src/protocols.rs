//! Compares all protocols: bulk transfer, messages and datagrams of each, without a tunnel and with a peer of adit; and
//! measures whether peers that stall or flood delay the others.

mod case;
mod client;
mod flood;
mod isolation;
mod target;
mod visitor;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

pub(crate) use self::isolation::Isolation;
use self::{
    case::{Case, Outcome},
    isolation::Pace,
    target::Running,
};
use crate::compare::targets::{Programs, Target};
use crate::process::ProcessError;
use crate::services::Hosted;

/// The measurement could not be finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtocolsError {
    /// A program did not start, or ended.
    #[error(transparent)]
    Program(#[from] ProcessError),
    /// A visitor failed.
    #[error("{case}, {target}: {source}")]
    Visitor {
        /// The name of the case.
        case: String,
        /// The target.
        target: &'static str,
        /// The I/O error.
        source: io::Error,
    },
}

/// The settings of a measurement.
#[derive(Debug, Clone)]
pub(crate) struct Measurement {
    pub(crate) targets: Vec<Target>,
    pub(crate) only: Option<String>,
    pub(crate) rounds: usize,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    /// The rate of isolation: messages of each protocol per second.
    pub(crate) rate: u32,
    pub(crate) programs: Programs,
}

/// One case with the result of each target in each round.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) is_bulk: bool,
    pub(crate) outcomes: Vec<(&'static str, Vec<Outcome>)>,
}

/// Runs all cases against all targets in turns; in each round a case is run against the targets in direct succession.
///
/// # Errors
/// Returns a [`ProtocolsError`].
///
/// # Cancel safety
/// Dropping the future ends every process it started.
pub(crate) async fn measure(
    measurement: &Measurement,
    dir: &Path,
) -> Result<Vec<Row>, ProtocolsError> {
    let cases = Case::ALL.into_iter().filter(|case| {
        let only = measurement.only.as_deref().unwrap_or_default();
        case.name().contains(only)
    });
    let cases: Vec<_> = cases.collect();
    let mut rows: Vec<_> = cases
        .iter()
        .map(|case| Row {
            case: case.name(),
            is_bulk: case.is_bulk(),
            outcomes: measurement
                .targets
                .iter()
                .map(|target| (target.name(), Vec::new()))
                .collect(),
        })
        .collect();
    for round in 0..measurement.rounds {
        let services = Hosted::start(dir).await?;
        let mut running = Vec::new();
        for target in &measurement.targets {
            let programs = &measurement.programs;
            let services = &services.addresses;
            running.push(Running::start(*target, programs, services, services, dir).await?);
        }
        for (case, row) in cases.iter().zip(&mut rows) {
            // Each round begins with another target.
            let count = running.len();
            for place in (0..count).map(|step| (round + step) % count) {
                let target = &running[place];
                let (warm_up, duration) = (measurement.warm_up, measurement.duration);
                let outcome = case::run(*case, &target.entries, &target.pids(), warm_up, duration)
                    .await
                    .map_err(|source| ProtocolsError::Visitor {
                        case: case.name(),
                        target: target.target.name(),
                        source,
                    })?;
                anstream::eprintln!(
                    "round {}  {:<26} {:<8} {:>14.0}/s  lost {}",
                    round + 1,
                    case.name(),
                    target.target.name(),
                    outcome.count as f64 / outcome.elapsed_s,
                    outcome.lost,
                );
                row.outcomes[place].1.push(outcome);
            }
        }
        for target in running {
            target.stop().await;
        }
        services.process.stop().await;
    }
    Ok(rows)
}

/// Measures whether peers that stall or flood delay the others through adit.
///
/// # Errors
/// Returns a [`ProtocolsError`].
pub(crate) async fn isolation(
    measurement: &Measurement,
    dir: &Path,
) -> Result<Isolation, ProtocolsError> {
    let services = Hosted::start(dir).await?;
    let flooded = Hosted::start(dir).await?;
    let target = Running::start(
        Target::Adit,
        &measurement.programs,
        &services.addresses,
        &flooded.addresses,
        dir,
    )
    .await?;
    let only = measurement.only.as_deref().unwrap_or_default();
    let pace = Pace {
        per_second: measurement.rate,
        duration: measurement.duration,
    };
    let isolation = isolation::measure(&target.entries, only, measurement.rounds, pace)
        .await
        .map_err(|source| ProtocolsError::Visitor {
            case: "isolation".into(),
            target: target.target.name(),
            source,
        })?;
    target.stop().await;
    services.process.stop().await;
    flooded.process.stop().await;
    Ok(isolation)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The rows as a table in Markdown: the medians over the rounds, and the medians of the rounds' ratios to `reference`.
pub(crate) fn table(rows: &[Row], reference: Target) -> String {
    let mut text = String::from(
        "| case | target | per second | CPU of the tunnel | lost | speed x | CPU x |\n\
         |---|---|--:|--:|--:|--:|--:|\n",
    );
    for row in rows {
        let beside = row
            .outcomes
            .iter()
            .find(|(name, _)| *name == reference.name());
        for (target, outcomes) in &row.outcomes {
            let rates = outcomes.iter().map(|o| o.count as f64 / o.elapsed_s);
            let rate = median(rates.collect());
            let cost = |o: &Outcome| o.cpu_s / (o.count.max(1)) as f64;
            let cpu = median(outcomes.iter().map(cost).collect());
            let lost = outcomes.iter().map(|o| o.lost).sum::<u64>() as f64;
            let sent = outcomes.iter().map(|o| o.count + o.lost).sum::<u64>();
            let (speed, unit_cost) = if row.is_bulk {
                let gbits = rate * 8.0 / 1e9;
                (
                    format!("{gbits:.2} Gbit/s"),
                    format!("{:.0} ns/KiB", cpu * 1024e9),
                )
            } else {
                (format!("{rate:.0}"), format!("{:.2} µs", cpu * 1e6))
            };
            let ratio = |value: fn(&Outcome) -> f64| {
                let (_, beside) = beside?;
                let ratios = outcomes.iter().zip(beside);
                let ratios = ratios.map(|(ours, theirs)| value(ours) / value(theirs));
                Some(median(ratios.collect()))
            };
            let speed_x = ratio(|o| o.count as f64 / o.elapsed_s);
            let cpu_x = ratio(|o| o.cpu_s / o.count.max(1) as f64);
            let cell = |ratio: Option<f64>| match ratio {
                Some(ratio) if ratio.is_finite() => format!("{ratio:.2}"),
                _ => "–".to_owned(),
            };
            let _ = writeln!(
                text,
                "| {} | {target} | {speed} | {unit_cost} | {:.2} % | {} | {} |",
                row.case,
                100.0 * lost / sent.max(1) as f64,
                cell(speed_x),
                cell(cpu_x),
            );
        }
    }
    text
}

/// The 99th percentiles under each kind of peers, as a table in Markdown.
pub(crate) fn isolation_table(isolation: &Isolation) -> String {
    let protocols: Vec<_> = isolation.alone_us.keys().copied().collect();
    let rule = "--:|".repeat(protocols.len() + 2);
    let mut text = format!(
        "99th percentiles in milliseconds.\n\n| beside | {} | MB/s | ended | holds |\n|---|{rule}---|\n",
        protocols.join(" | "),
    );
    let cell = |p99: Option<&u64>| match p99 {
        None => "–".to_owned(),
        Some(&isolation::FOR_EVER_US) => "failed".to_owned(),
        Some(p99) => format!("{:.2}", *p99 as f64 / 1e3),
    };
    let p99 = |of: &BTreeMap<&str, u64>| -> Vec<String> {
        let of = protocols.iter().map(|protocol| of.get(protocol));
        of.map(cell).collect()
    };
    let alone = p99(&isolation.alone_us).join(" | ");
    let _ = writeln!(text, "| none | {alone} | – | – | – |");
    for verdict in &isolation.verdicts {
        let (rate, ended) = match verdict.flood {
            Some(flood) => (
                format!("{:.1}", flood.sent_mb_per_s),
                flood.ended.to_string(),
            ),
            None => ("–".to_owned(), "–".to_owned()),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {rate} | {ended} | {} |",
            verdict.beside,
            p99(&verdict.p99_us).join(" | "),
            if verdict.holds { "yes" } else { "NO" },
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(count: u64, cpu_s: f64) -> Outcome {
        Outcome {
            count,
            lost: 0,
            elapsed_s: 1.0,
            cpu_s,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let rows = [Row {
            case: "echo".into(),
            is_bulk: false,
            outcomes: vec![
                ("rathole", vec![outcome(100, 1.0), outcome(50, 1.0)]),
                ("adit", vec![outcome(200, 1.0), outcome(100, 1.0)]),
            ],
        }];
        let table = table(&rows, Target::Rathole);
        let adit = table.lines().last().unwrap();
        assert!(adit.ends_with("| 2.00 | 0.50 |"), "{table}");
    }

    #[test]
    fn a_verdict_that_does_not_hold_is_loud() {
        let isolation = Isolation {
            alone_us: BTreeMap::from([("tcp", 1_000), ("udp", 2_000)]),
            verdicts: vec![isolation::Verdict {
                beside: "100 x zeros".into(),
                p99_us: BTreeMap::from([("tcp", 150_000), ("udp", 2_000)]),
                flood: Some(flood::Outcome {
                    sent_mb_per_s: 12.34,
                    ended: 7,
                }),
                holds: false,
            }],
        };
        assert!(!isolation.holds());
        let table = isolation_table(&isolation);
        let row = "| 100 x zeros | 150.00 | 2.00 | 12.3 | 7 | NO |";
        assert_eq!(table.lines().last(), Some(row), "{table}");
    }
}
