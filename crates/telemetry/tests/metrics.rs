//! The metrics of requests as Prometheus reads them: counts, labels, bounds.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

mod support;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_telemetry::{
    DEFAULT_KEEP_IDLE, Metrics, MetricsSettings, PROCESS_FAMILIES, Telemetry, request_families,
};
use adit_testkit::{MetricFamily, documented_metrics, parse_exposition};
use adit_trace::{Edge, Family, Observer, Record};
use support::record;

fn metrics(max: usize) -> Metrics {
    let settings = MetricsSettings::try_new(max, DEFAULT_KEEP_IDLE).unwrap();
    Metrics::new(settings, "1.2.3")
}

fn read(metrics: &Metrics) -> BTreeMap<String, MetricFamily> {
    let text = metrics.render(&[]);
    parse_exposition(&text).unwrap_or_else(|complaints| panic!("{complaints:#?}\n{text}"))
}

/// The only sample with this name and these labels; 0 if there is none.
fn value(families: &BTreeMap<String, MetricFamily>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let all = families.values().flat_map(|family| &family.samples);
    let fits = all.filter(|sample| {
        sample.name == name
            && labels
                .iter()
                .all(|(label, value)| sample.label(label) == *value)
    });
    let fits: Vec<_> = fits.collect();
    assert!(fits.len() <= 1, "{name} {labels:?}: {fits:?}");
    fits.first()
        .map_or(0.0, |sample| sample.value.parse().unwrap())
}

#[test]
fn each_edge_and_opener_is_counted_apart() {
    let metrics = metrics(100);
    let now = Instant::now();
    for (edge, opener, times) in [
        (Edge::Ingress, "server", 1),
        (Edge::Egress, "server", 2),
        (Edge::Ingress, "client", 3),
        (Edge::Egress, "client", 4),
        (Edge::Ingress, "", 5),
    ] {
        for _ in 0..times {
            metrics.on_end(&Record {
                opener,
                ..record(edge, now)
            });
        }
    }
    let families = read(&metrics);
    for (name, opener, times) in [
        ("adit_ingress", "server", 1.0),
        ("adit_egress", "server", 2.0),
        ("adit_ingress", "client", 3.0),
        ("adit_egress", "client", 4.0),
        ("adit_ingress", "", 5.0),
        ("adit_egress", "", 0.0),
    ] {
        let labels = [
            ("opener", opener),
            ("protocol", "http"),
            ("tunnel", "web"),
            ("user", "ann"),
        ];
        let count = |what: &str| value(&families, &format!("{name}_{what}"), &labels);
        assert_eq!(count("requests_total"), times, "{name} {opener}");
        assert_eq!(count("received_bytes_total"), times * 5.0);
        assert_eq!(count("sent_bytes_total"), times * 700.0);
        assert_eq!(count("request_duration_seconds_count"), times);
        assert_eq!(count("first_byte_seconds_count"), times);
        assert!((count("request_duration_seconds_sum") - times * 0.03).abs() < 1e-9);
    }
}

#[test]
fn tunnels_of_one_name_are_counted_by_group() {
    let metrics = metrics(100);
    let of_office = record(Edge::Ingress, Instant::now());
    for (group, times) in [("office", 1), ("home", 2), ("", 3)] {
        for _ in 0..times {
            metrics.on_end(&Record { group, ..of_office });
        }
    }
    let families = read(&metrics);
    for (group, times) in [("office", 1.0), ("home", 2.0), ("", 3.0)] {
        let labels = [("tunnel", "web"), ("user", "ann"), ("group", group)];
        let count = value(&families, "adit_ingress_requests_total", &labels);
        assert_eq!(count, times, "{group}");
    }
    assert_eq!(value(&families, "adit_telemetry_label_sets", &[]), 3.0);
}

#[test]
fn an_end_is_counted_by_outcome_status_and_reason() {
    let metrics = metrics(100);
    let good = record(Edge::Ingress, Instant::now());
    let ends = [
        (200, None, None),
        (404, None, None),
        (502, None, Some("dial_failed")),
        (502, None, Some("dial_failed")),
        (0, None, Some("cancelled")),
        (200, Some(0), None),
        (200, Some(14), Some("link_lost")),
        (200, Some(999), None),
    ];
    for (status, grpc_status, reason) in ends {
        metrics.on_end(&Record {
            protocol: if grpc_status.is_some() {
                "grpc"
            } else {
                "http"
            },
            status,
            grpc_status,
            reason,
            retries: 1,
            responded: None,
            ..good
        });
    }
    let families = read(&metrics);
    let requests = |protocol, outcome, status| {
        let labels = [
            ("protocol", protocol),
            ("outcome", outcome),
            ("status", status),
        ];
        value(&families, "adit_ingress_requests_total", &labels)
    };
    assert_eq!(requests("http", "completed", "2xx"), 1.0);
    assert_eq!(requests("http", "completed", "4xx"), 1.0);
    assert_eq!(requests("http", "failed", "5xx"), 2.0);
    assert_eq!(requests("http", "cancelled", ""), 1.0);
    assert_eq!(requests("grpc", "completed", "2xx"), 2.0);
    assert_eq!(requests("grpc", "failed", "2xx"), 1.0);
    let one = |name, label, value_| value(&families, name, &[(label, value_)]);
    let failures = "adit_ingress_failures_total";
    assert_eq!(one(failures, "reason", "dial_failed"), 2.0);
    assert_eq!(one(failures, "reason", "cancelled"), 1.0);
    assert_eq!(one(failures, "reason", "link_lost"), 1.0);
    let grpc = "adit_ingress_grpc_requests_total";
    for status in ["OK", "UNAVAILABLE", "other"] {
        assert_eq!(one(grpc, "grpc_status", status), 1.0, "{status}");
    }
    assert_eq!(one("adit_ingress_retries_total", "protocol", "http"), 5.0);
    let first = "adit_ingress_first_byte_seconds_count";
    assert_eq!(one(first, "protocol", "http"), 0.0);
}

#[test]
fn label_sets_are_bounded_and_idle_ones_make_room() {
    let idle = Duration::from_secs(100);
    let metrics = Metrics::new(MetricsSettings::try_new(2, idle).unwrap(), "1");
    let start = Instant::now();
    let ask = |tunnel: &str, at: u64| {
        let started = start + Duration::from_secs(at);
        metrics.on_end(&Record {
            tunnel,
            ..record(Edge::Ingress, started)
        });
    };
    let count = |tunnel: &str| {
        let labels = [("tunnel", tunnel)];
        value(&read(&metrics), "adit_ingress_requests_total", &labels)
    };
    for tunnel in ["a", "b", "c", "d", "a"] {
        ask(tunnel, 0);
    }
    let counts = ["a", "b", "c", "d", "_other"].map(count);
    assert_eq!(counts, [2.0, 1.0, 0.0, 0.0, 2.0]);
    let other = [
        ("tunnel", "_other"),
        ("group", "_other"),
        ("user", "_other"),
        ("opener", "server"),
    ];
    assert_eq!(
        value(&read(&metrics), "adit_ingress_requests_total", &other),
        2.0
    );
    assert_eq!(
        value(&read(&metrics), "adit_telemetry_label_sets", &[]),
        2.0
    );
    ask("b", 150);
    ask("c", 200);
    let counts = ["a", "b", "c", "_other"].map(count);
    assert_eq!(counts, [0.0, 2.0, 1.0, 2.0]);
}

#[test]
fn a_bound_holds_for_many_at_once() {
    let metrics = metrics(10);
    let now = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let metrics = &metrics;
            scope.spawn(move || {
                for number in 0..500 {
                    let tunnel = format!("t{}", (number * 7 + thread) % 50);
                    metrics.on_end(&Record {
                        tunnel: &tunnel,
                        ..record(Edge::Ingress, now)
                    });
                }
            });
        }
    });
    let families = read(&metrics);
    let requests = &families["adit_ingress_requests_total"].samples;
    assert_eq!(requests.len(), 11);
    let all = requests
        .iter()
        .map(|sample| sample.value.parse::<u64>().unwrap());
    assert_eq!(all.sum::<u64>(), 2_000);
    assert_eq!(value(&families, "adit_telemetry_label_sets", &[]), 10.0);
}

#[test]
fn hostile_values_are_escaped_and_long_ones_replaced() {
    let metrics = metrics(100);
    let hostile = "x\"} 1\nadit_up{a=\"\\";
    let long = "l".repeat(10_000);
    for tunnel in [hostile, long.as_str()] {
        metrics.on_end(&Record {
            tunnel,
            ..record(Edge::Ingress, Instant::now())
        });
    }
    let families = read(&metrics);
    let count = |tunnel| {
        let labels = [("tunnel", tunnel)];
        value(&families, "adit_ingress_requests_total", &labels)
    };
    assert_eq!(count(hostile), 1.0);
    assert_eq!(count("_other"), 1.0);
    assert!(!metrics.render(&[]).contains(&long));
    assert!(!metrics.render(&[]).contains("192.0.2.7"));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for number in [0, 1_000_001] {
        let refused = MetricsSettings::try_new(number, DEFAULT_KEEP_IDLE).unwrap_err();
        let text = format!("invalid number of label sets {number}, expected 1 to 1000000");
        assert_eq!(refused.to_string(), text);
    }
}

#[test]
fn an_observer_without_parts_listens_to_nothing() {
    assert!(!Telemetry::default().is_enabled());
    assert_eq!(Telemetry::default().render(&[]), None);
    let telemetry = Telemetry {
        metrics: Some(Arc::new(metrics(10))),
        ..Telemetry::default()
    };
    assert!(telemetry.is_enabled() && !telemetry.needs_details());
    assert!(telemetry.begin("").is_none());
    telemetry.on_end(&record(Edge::Egress, Instant::now()));
    static EXTRA: Family = Family::gauge("adit_x_clients", &[], "Clients.");
    let text = telemetry.render(&[EXTRA.sample(&[], 4.0)]).unwrap();
    let families = parse_exposition(&text).unwrap();
    assert_eq!(value(&families, "adit_x_clients", &[]), 4.0);
    assert_eq!(value(&families, "adit_egress_requests_total", &[]), 1.0);
}

#[test]
fn the_names_of_requests_are_those_that_are_documented_metrics() {
    let mut names: Vec<_> = [Edge::Ingress, Edge::Egress]
        .into_iter()
        .flat_map(request_families)
        .map(|family| {
            let labels = family.labels.join(", ");
            (family.name.to_owned(), family.kind.to_owned(), labels)
        })
        .collect();
    names.sort();
    assert_eq!(documented_metrics("Requests"), names);
}

#[test]
fn the_metrics_of_the_process_are_documented() {
    let mut names: Vec<_> = PROCESS_FAMILIES
        .iter()
        .map(|family| {
            let kind = family.kind.as_str().to_owned();
            (family.name.to_owned(), kind, family.labels.join(", "))
        })
        .collect();
    names.sort();
    assert_eq!(documented_metrics("Process"), names);
}
