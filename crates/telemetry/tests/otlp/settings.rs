//! Settings that cannot be used say what to write instead.

use std::time::Duration;

use adit_telemetry::{Traces, TracesSettings};

fn good() -> TracesSettings {
    TracesSettings::new("http://127.0.0.1:4317", "adit-server")
}

fn refusal(change: impl FnOnce(&mut TracesSettings)) -> String {
    let mut settings = good();
    change(&mut settings);
    let refusal = settings.check().unwrap_err().to_string();
    let start = Traces::start(settings).unwrap_err().to_string();
    assert_eq!(start, refusal);
    refusal
}

#[test]
fn the_defaults_are_good() {
    assert_eq!(good().check(), Ok(()));
    for endpoint in [
        "http://collector:4317",
        "http://collector.example:4317/",
        "http://[::1]:4317",
        "HTTP://127.0.0.1:65535",
    ] {
        let settings = TracesSettings {
            endpoint: endpoint.to_owned(),
            ..good()
        };
        assert_eq!(settings.check(), Ok(()), "{endpoint}");
    }
}

#[test]
fn an_endpoint_that_cannot_be_used_is_told() {
    for (endpoint, reason) in [
        ("", "it is no URL"),
        ("http://", "it is no URL"),
        ("http://a b:4317", "it is no URL"),
        ("localhost:4317", "it does not begin with http://"),
        ("/run/collector", "it does not begin with http://"),
        ("grpc://localhost:4317", "it does not begin with http://"),
        (
            "https://localhost:4317",
            "TLS to the collector is not supported",
        ),
        (
            "http://ann:secret@localhost:4317",
            "a user name has no place in it",
        ),
        ("http://localhost", "it names no port"),
        ("http://localhost:0", "it names no port"),
        ("http://:4317", "it names no host"),
        (
            "http://localhost:4318/v1/traces",
            "a path belongs to OTLP over HTTP",
        ),
        (
            "http://localhost:4317/?a=b",
            "a path belongs to OTLP over HTTP",
        ),
    ] {
        let refusal = refusal(|settings| endpoint.clone_into(&mut settings.endpoint));
        assert!(refusal.contains(reason), "{endpoint}: {refusal}");
        assert!(
            refusal.ends_with("write it like http://127.0.0.1:4317"),
            "{refusal}"
        );
    }
}

#[test]
fn numbers_and_times_have_bounds() {
    for ratio in [-0.1, 1.1, f64::NAN] {
        let refusal = refusal(|settings| settings.sample_ratio = ratio);
        assert!(
            refusal.starts_with("sample_ratio: a share of requests"),
            "{refusal}"
        );
    }
    for name in ["", " "] {
        let refusal = refusal(|settings| name.clone_into(&mut settings.service_name));
        assert_eq!(
            refusal,
            "service_name is empty; name this process, as in adit-server"
        );
    }
    for timeout in [Duration::ZERO, Duration::from_secs(301)] {
        let refusal = refusal(|settings| settings.timeout = timeout);
        assert!(
            refusal.ends_with("write a time from 1ms to 5m, such as 5s"),
            "{refusal}"
        );
    }
    for interval in [Duration::ZERO, Duration::from_secs(3_601)] {
        let refusal = refusal(|settings| settings.interval = interval);
        assert!(
            refusal.ends_with("write a time from 1ms to 1h, such as 1s"),
            "{refusal}"
        );
    }
    for max_queue in [0, 65_537] {
        let refusal = refusal(|settings| settings.max_queue = max_queue);
        assert!(
            refusal.contains("write a number from 1 to 65536"),
            "{refusal}"
        );
    }
    for max_batch in [0, 2_049] {
        let refusal = refusal(|settings| settings.max_batch = max_batch);
        assert!(
            refusal.ends_with("from 1 to max_queue, which is 2048"),
            "{refusal}"
        );
    }
}
