//! The results of the checks, as a table and as JSON.

use std::time::Duration;

use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use serde_json::{Value, json};

const MIB: f64 = (1 << 20) as f64;

/// A check and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: &'static str,
    /// The duration of the check.
    pub(super) took: Duration,
    /// The measurement, or the failure.
    pub(super) outcome: Result<Measured, String>,
}

/// The measurement of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Measured {
    /// A description for the table.
    pub(super) what: String,
    /// The bytes that crossed and the time that they took, if the check measures that.
    pub(super) moved: Option<(u64, Duration)>,
}

impl Measured {
    pub(super) fn words(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            moved: None,
        }
    }

    pub(super) fn moved(bytes: u64, within: Duration) -> Self {
        Self {
            what: String::new(),
            moved: Some((bytes, within)),
        }
    }

    fn text(&self) -> String {
        let Some((bytes, within)) = self.moved else {
            return self.what.clone();
        };
        let rate = per_second(bytes, within) / MIB;
        format!("{} in {}, {rate:.0} MiB/s", size(bytes), duration(within))
    }
}

#[allow(clippy::cast_precision_loss)] // for display
fn per_second(bytes: u64, within: Duration) -> f64 {
    bytes as f64 / within.as_secs_f64().max(f64::EPSILON)
}

/// A size, for display.
pub(super) fn size(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match bytes {
        MIB.. => format!("{} MiB", bytes / MIB),
        KIB.. => format!("{} KiB", bytes / KIB),
        _ => format!("{bytes} bytes"),
    }
}

/// A duration, for display.
pub(super) fn duration(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    match millis {
        10_000.0.. => format!("{:.1} s", millis / 1e3),
        10.0.. => format!("{millis:.0} ms"),
        _ => format!("{millis:.2} ms"),
    }
}

/// The table that `--once` prints.
pub(super) fn as_text(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header(["check", "result", "time", "measured"]);
    for row in rows {
        let (result, measured) = match &row.outcome {
            Ok(measured) => ("ok", measured.text()),
            Err(error) => ("FAILED", error.clone()),
        };
        table.add_row([row.name, result, &duration(row.took), &measured]);
    }
    table.to_string()
}

/// The table as JSON.
pub(super) fn as_json(public_url: &str, rows: &[Row]) -> Value {
    let checks: Vec<_> = rows
        .iter()
        .map(|row| {
            let measured = row.outcome.as_ref().ok();
            let moved = measured.and_then(|measured| measured.moved);
            json!({
                "name": row.name,
                "ok": row.outcome.is_ok(),
                "millis": millis(row.took),
                "measured": measured.map(Measured::text),
                "bytes": moved.map(|(bytes, _)| bytes),
                "bytes_per_sec": moved.map(|(bytes, within)| per_second(bytes, within).round()),
                "error": row.outcome.as_ref().err(),
            })
        })
        .collect();
    json!({
        "public_url": public_url,
        "ok": rows.iter().all(|row| row.outcome.is_ok()),
        "checks": checks,
    })
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::{Measured, Row, as_json, as_text, duration, size};

    fn rows() -> Vec<Row> {
        vec![
            Row {
                name: "download",
                took: Duration::from_millis(700),
                outcome: Ok(Measured::moved(256 << 20, Duration::from_millis(500))),
            },
            Row {
                name: "trailers",
                took: Duration::from_micros(1_500),
                outcome: Err("no trailers arrived".into()),
            },
        ]
    }

    #[test]
    fn sizes_and_durations_are_rounded() {
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(1024), "1 KiB");
        assert_eq!(size((1 << 20) - 1), "1023 KiB");
        assert_eq!(size(1 << 20), "1 MiB");
        assert_eq!(duration(Duration::from_micros(1_234)), "1.23 ms");
        assert_eq!(duration(Duration::from_millis(10)), "10 ms");
        assert_eq!(duration(Duration::from_millis(10_000)), "10.0 s");
    }

    #[test]
    fn the_table_has_a_row_for_each_check() {
        let table = as_text(&rows());
        assert!(table.contains("256 MiB in 500 ms, 512 MiB/s"), "{table}");
        let failed = table.lines().find(|line| line.contains("FAILED"));
        assert!(
            failed.is_some_and(
                |line| line.contains("trailers") && line.contains("no trailers arrived")
            ),
            "{table}"
        );
        assert_eq!(
            table.lines().filter(|line| line.contains(" ok ")).count(),
            1
        );
    }

    #[test]
    fn json_holds_the_same_results() {
        let value = as_json("http://demo.localhost:1", &rows());
        assert_eq!(
            value,
            json!({
                "public_url": "http://demo.localhost:1",
                "ok": false,
                "checks": [
                    {
                        "name": "download",
                        "ok": true,
                        "millis": 700.0,
                        "measured": "256 MiB in 500 ms, 512 MiB/s",
                        "bytes": 256 << 20,
                        "bytes_per_sec": 536_870_912.0,
                        "error": null,
                    },
                    {
                        "name": "trailers",
                        "ok": false,
                        "millis": 1.5,
                        "measured": null,
                        "bytes": null,
                        "bytes_per_sec": null,
                        "error": "no trailers arrived",
                    },
                ],
            })
        );
        assert_eq!(as_json("", &rows()[..1])["ok"], true);
    }
}
