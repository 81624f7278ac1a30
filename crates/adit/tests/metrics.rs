//! `docs/metrics.md` lists exactly the names of each program.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use adit_testkit::documented_metrics;
use adit_trace::Family;

fn named(families: &[&Family]) -> Vec<(String, String, String)> {
    let row = |family: &&Family| {
        let kind = family.kind.as_str().to_owned();
        (family.name.to_owned(), kind, family.labels.join(", "))
    };
    let mut rows: Vec<_> = families.iter().map(row).collect();
    rows.sort();
    rows
}

#[test]
fn the_servers_metrics_are_the_documented_ones() {
    assert_eq!(
        documented_metrics("Server"),
        named(adit_server::metrics::FAMILIES)
    );
}

#[test]
fn the_clients_metrics_are_the_documented_ones() {
    assert_eq!(
        documented_metrics("Client"),
        named(adit_client::metrics::FAMILIES)
    );
}

/// The page that `ci/metrics` passes to promtool also fulfils the stricter rules of the parser here.
#[test]
fn what_prometheus_reads_keeps_the_rules() {
    for families in [
        adit_server::metrics::FAMILIES,
        adit_client::metrics::FAMILIES,
    ] {
        let samples: Vec<_> = families
            .iter()
            .map(|family| family.sample(&vec!["x"; family.labels.len()], 1.0))
            .collect();
        let settings = adit_telemetry::MetricsSettings::default();
        let text = adit_telemetry::Metrics::new(settings, "1").render(&samples);
        let read = adit_testkit::parse_exposition(&text);
        let read = read.unwrap_or_else(|complaints| panic!("{complaints:#?}"));
        for family in families {
            assert_eq!(read[family.name].samples.len(), 1, "{}", family.name);
        }
    }
}
