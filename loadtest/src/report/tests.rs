use hdrhistogram::serialization::Deserializer;
use serde_json::Value;

use super::*;
use crate::events::{Event, How, Side};
use crate::failure::Failure;
use crate::runner::EventOutcome;
use crate::scenario::{Kind, Limits, Load, Mix};
use crate::tally::{Recovery, Window, histogram};

fn load(failures: &[(Failure, u64)]) -> LoadOutcome {
    let mut latencies = histogram().unwrap();
    for micros in 1..=10_000 {
        latencies.record(micros).unwrap();
    }
    let counted = Failures::default();
    for (kind, many) in failures {
        counted.add(*kind, *many);
    }
    let second = Second {
        completed: 5_000,
        bytes: 1 << 20,
        errors: 0,
        p50_us: 5_000,
        p99_us: 9_900,
        max_us: 10_000,
    };
    LoadOutcome {
        load: Load {
            name: "<small>".into(),
            kind: Kind::Http,
            rate: 5_000.0,
            connections: 8,
            per_connection: None,
            streams: 1,
            sizes: Mix::new([(1_024, 1)]),
            limits: Limits::default(),
        },
        window: Window {
            elapsed: Duration::from_secs(2),
            requests: 10_000,
            body_bytes: 2 << 20,
        },
        histogram: latencies,
        failures: counted,
        failed: counted_in_all(failures),
        details: [("status: 503 <no_client>".to_owned(), 3)].into(),
        completed: 10_000,
        lost: 0,
        doubled: 0,
        seconds: vec![second; 2],
        offered: vec![5_000.0; 2],
    }
}

fn counted_in_all(failures: &[(Failure, u64)]) -> u64 {
    failures.iter().map(|(_, many)| many).sum()
}

fn outcome() -> Outcome {
    Outcome {
        loads: vec![load(&[])],
        events: vec![EventOutcome {
            event: Event {
                at: Duration::from_secs(1),
                side: Side::Server,
                how: How::Kill,
                down: Duration::ZERO,
            },
            began: Duration::from_secs(1),
            took: Some(Duration::from_millis(250)),
            recovered: vec![Recovery::After(Duration::from_millis(120))],
        }],
        elapsed: Duration::from_secs(2),
        problems: Vec::new(),
    }
}

fn report() -> Report {
    report_of(&outcome())
}

fn report_of(outcome: &Outcome) -> Report {
    Report::new(&scenario(), setup(), outcome, Kernel::default())
}

fn setup() -> Setup {
    Setup {
        date: "2026-01-02 03:04 UTC".into(),
        commit: "abc".into(),
        machine: Machine::here(),
        target: "in-process".into(),
        command: "adit-loadtest run small-http --tcp 'a&b'".into(),
    }
}

fn scenario() -> Scenario {
    let mut scenario = crate::scenario::read("small-http").unwrap();
    scenario.about = "About <it>.".into();
    scenario
}

#[test]
fn the_json_holds_everything_and_histograms_that_can_be_added() {
    let json: Value = serde_json::to_value(report()).unwrap();
    let load = &json["loads"][0];
    assert_eq!(load["completed"], 10_000);
    assert_eq!(load["completed_per_s"], 5_000.0);
    assert_eq!(load["latency"]["count"], 10_000);
    let p99_99 = load["latency"]["p99_99_us"].as_u64().unwrap();
    assert!((9_990..=10_007).contains(&p99_99), "{p99_99}");
    assert_eq!(load["seconds"].as_array().unwrap().len(), 2);
    assert_eq!(load["errors"], serde_json::json!({}));
    assert_eq!(json["events"][0]["recovered_ms"]["<small>"], 120.0);
    assert_eq!(json["problems"], serde_json::json!([]));

    let text = load["histogram_v2"].as_str().unwrap();
    let bytes = STANDARD.decode(text).unwrap();
    let read: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
    let original = &outcome().loads[0].histogram;
    assert_eq!(&read, original);
    let mut sum = read;
    sum.add(original).unwrap();
    assert_eq!(sum.len(), 20_000);
}

#[test]
fn the_page_has_its_plots_and_needs_nothing_from_elsewhere() {
    let page = page(&report()).unwrap();
    assert_eq!(page.matches("<svg").count(), 3);
    assert_eq!(page.matches("</svg>").count(), 3);
    for text in [
        "Latency by percentile",
        ": throughput",
        ": latency",
        "Passed.",
        "server killed",
    ] {
        assert!(page.contains(text), "{text}");
    }
    for outside in ["src=", "href=", "@import", "url(", "<script"] {
        assert!(!page.contains(outside), "{outside}");
    }
    // The text of a scenario must not be interpreted as markup.
    assert!(page.contains("About &#60;it&#62;.") && page.contains("a&#38;b"));
    assert!(!page.contains("<small>") && !page.contains("<no_client>"));
}

#[test]
fn the_terminal_shows_rates_latencies_errors_and_events() {
    let text = terminal(&report());
    for wanted in [
        "5000",
        "p99.9",
        "good responses again after: <small> 120 ms",
        "passed",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[test]
fn a_table_fits_a_hundred_columns() {
    let widest = |report: &Report| {
        let text = terminal(report);
        let table = text.lines().filter(|line| line.starts_with('|'));
        let widths: Vec<_> = table.map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 3, "{text}");
        widths.into_iter().max().unwrap()
    };
    let mut outcome = outcome();
    for length in [5, 15, 20] {
        outcome.loads[0].load.name = "x".repeat(length);
        let report = report_of(&outcome);
        assert!(widest(&report) <= 100, "{length}");
        assert!(terminal(&report).contains("p99.9"), "{length}");
    }
}

#[test]
fn kernel_figures_are_reported_and_warned_of() {
    let kernel = Kernel {
        tcp_retransmits: Some(40),
        tcp_retransmits_percent: Some(2.0),
        memory_pressure_percent: Some(0.0),
        steal_percent: None,
    };
    let report = Report::new(&scenario(), setup(), &outcome(), kernel);
    let text = terminal(&report);
    assert!(text.contains("TCP retransmits 40 (2.00 %)"), "{text}");
    assert!(
        text.contains("WARNING 2.00 % of all TCP segments"),
        "{text}"
    );
    assert!(report.passed(), "a warning is not a failure");
    let page = page(&report).unwrap();
    assert!(page.contains("Warning: 2.00 % of all"), "{page}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["kernel"]["tcp_retransmits"], 40);
}

#[test]
fn errors_are_a_problem_unless_they_are_allowed_and_few() {
    let found = |failures: &[(Failure, u64)], percent, kinds: &[Failure]| {
        let allowed = Allowed {
            percent,
            kinds: kinds.to_vec(),
            loss_percent: 0.0,
        };
        problems(&load(failures), &allowed).join("; ")
    };
    assert_eq!(found(&[], 0.0, &[]), "");
    assert_eq!(
        found(&[(Failure::Cut, 1)], 5.0, &[]),
        "<small>: 1 errors: 1 cut"
    );
    assert_eq!(found(&[(Failure::Cut, 500)], 5.0, &[Failure::Cut]), "");
    let many = found(&[(Failure::Cut, 600)], 5.0, &[Failure::Cut]);
    assert!(
        many.contains("5.660 % of errors, 5 % are allowed"),
        "{many}"
    );
    let other = found(
        &[(Failure::Cut, 1), (Failure::WrongBytes, 2)],
        5.0,
        &[Failure::Cut],
    );
    assert_eq!(other, "<small>: 2 errors: 2 wrong_bytes");
}

#[test]
fn loss_silence_and_limits_are_problems() {
    let mut outcome = load(&[]);
    outcome.lost = 200;
    outcome.load.limits.p99 = Some(Duration::from_millis(5));
    outcome.load.limits.max = Some(Duration::from_millis(50));
    let found = problems(&outcome, &Allowed::default());
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains("1.961 % of the datagrams lost"),
        "{found:?}"
    );
    assert!(
        found[1].contains("p99 is 9.9") && found[1].contains("limit is 5ms"),
        "{found:?}"
    );
    let mut silent = load(&[]);
    silent.completed = 0;
    assert!(problems(&silent, &Allowed::default())[0].contains("nothing was completed"));
}

#[test]
fn a_silenced_load_with_due_requests_is_a_problem() {
    let found = |recovery| {
        let mut outcome = outcome();
        outcome.events[0].recovered = vec![recovery];
        report_of(&outcome)
    };
    let missing = found(Recovery::Missing);
    assert_eq!(
        missing.problems,
        [
            "<small>: no good response after the event at 1.0 s (server killed, started again 0 s later)"
        ]
    );
    assert_eq!(missing.events[0].recovered_ms["<small>"], None);
    assert!(found(Recovery::NothingDue).passed());
    let through = found(Recovery::WithoutFailure);
    assert!(through.passed() && through.events[0].recovered_ms.is_empty());
    assert_eq!(through.events[0].without_failure, ["<small>"]);
    assert!(terminal(&through).contains("after: <small> nothing failed"));
}

#[test]
fn a_side_that_stays_away_is_a_problem() {
    let mut outcome = outcome();
    outcome.events[0].took = None;
    outcome.problems = vec!["server killed: did not return: port taken".into()];
    let report = report_of(&outcome);
    assert!(!report.passed());
    let text = terminal(&report);
    assert!(
        text.contains("FAILED server killed: did not return: port taken"),
        "{text}"
    );
    assert!(page(&report).unwrap().contains("did not return"));
}

#[test]
fn a_failure_is_later_than_any_limit() {
    let found = |timeouts, quantile: &str| {
        let mut outcome = load(&[(Failure::Timeout, timeouts)]);
        let limit = Some(Duration::from_secs(3_600));
        match quantile {
            "p99" => outcome.load.limits.p99 = limit,
            _ => outcome.load.limits.max = limit,
        }
        let allowed = Allowed {
            percent: 50.0,
            kinds: vec![Failure::Timeout],
            loss_percent: 0.0,
        };
        problems(&outcome, &allowed).join("; ")
    };
    assert_eq!(found(0, "max"), "");
    assert_eq!(
        found(1, "max"),
        "<small>: max is a failure, the limit is 3600s"
    );
    assert_eq!(found(100, "p99"), "");
    assert_eq!(
        found(204, "p99"),
        "<small>: p99 is a failure, the limit is 3600s"
    );
    // Failures count as the slowest: the median of all exchanges is at a higher percentile of the completed ones.
    let latencies = load(&[]).histogram;
    let median = quantile_with_failures(&latencies, 2_000, 0.5).unwrap();
    assert!((5_990..=6_010).contains(&median.as_micros()), "{median:?}");
}
