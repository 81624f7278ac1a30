//! Invalid settings are rejected with an error that states the valid values.

use std::time::Duration;

use adit_otlp::{
    Traces, TracesHeaders, TracesProtocol, TracesSettings, TracesSettingsError, TracesTls,
};

fn good() -> TracesSettings {
    TracesSettings::new("http://127.0.0.1:4317", "adit-server")
}

fn refusal(change: impl FnOnce(&mut TracesSettings)) -> TracesSettingsError {
    let mut settings = good();
    change(&mut settings);
    let refusal = settings.check().unwrap_err();
    let start = Traces::start(settings).unwrap_err().to_string();
    assert_eq!(start, refusal.to_string());
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
        "https://collector.example",
        "https://collector.example:4317",
    ] {
        let settings = TracesSettings {
            endpoint: endpoint.to_owned(),
            ..good()
        };
        assert_eq!(settings.check(), Ok(()), "{endpoint}");
    }
}

#[test]
fn an_invalid_endpoint_is_rejected_with_the_reason() {
    for (endpoint, reason) in [
        ("", "invalid URL"),
        ("http://", "invalid URL"),
        ("http://a b:4317", "invalid URL"),
        ("localhost:4317", "it does not begin with http://"),
        ("/run/collector", "it does not begin with http://"),
        ("grpc://localhost:4317", "it does not begin with http://"),
        (
            "http://ann:secret@localhost:4317",
            "it contains a user name",
        ),
        ("http://localhost", "the port is missing"),
        ("http://localhost:0", "invalid port 0"),
        ("https://localhost:x", "invalid port"),
        ("https://[::1]:", "invalid port"),
        ("http://:4317", "the host is missing"),
        ("http://localhost:4318/v1/traces", "it has a path"),
        ("http://localhost:4317/?a=b", "it has a path"),
    ] {
        let refusal = refusal(|settings| endpoint.clone_into(&mut settings.endpoint));
        let TracesSettingsError::Endpoint {
            endpoint: named,
            reason: found,
        } = refusal
        else {
            panic!("{endpoint}: {refusal}");
        };
        assert_eq!(named, endpoint);
        assert!(found.starts_with(reason), "{endpoint}: {found}");
    }
}

#[test]
fn numbers_and_times_have_bounds() {
    for ratio in [-0.1, 1.1, f64::NAN] {
        let refusal = refusal(|settings| settings.sample_ratio = ratio);
        assert!(matches!(refusal, TracesSettingsError::SampleRatio(_)));
    }
    for name in ["", " "] {
        let refusal = refusal(|settings| name.clone_into(&mut settings.service_name));
        assert_eq!(refusal, TracesSettingsError::ServiceName);
    }
    for timeout in [Duration::ZERO, Duration::from_secs(301)] {
        let refusal = refusal(|settings| settings.timeout = timeout);
        assert_eq!(refusal, TracesSettingsError::Timeout(timeout));
    }
    for interval in [Duration::ZERO, Duration::from_secs(3_601)] {
        let refusal = refusal(|settings| settings.interval = interval);
        assert_eq!(refusal, TracesSettingsError::Interval(interval));
    }
    for max_queue in [0, 65_537] {
        let refusal = refusal(|settings| settings.max_queue = max_queue);
        assert_eq!(refusal, TracesSettingsError::MaxQueue(max_queue));
    }
    for max_batch in [0, 2_049] {
        let refusal = refusal(|settings| settings.max_batch = max_batch);
        let max_queue = 2_048;
        assert_eq!(
            refusal,
            TracesSettingsError::MaxBatch {
                max_batch,
                max_queue
            }
        );
    }
}

#[test]
fn over_http_a_path_is_allowed() {
    for endpoint in [
        "http://c:4318",
        "http://c:4318/v1/traces",
        "http://c:1/?a=b",
    ] {
        let settings = TracesSettings {
            endpoint: endpoint.to_owned(),
            protocol: TracesProtocol::HttpProtobuf,
            ..good()
        };
        assert_eq!(settings.check(), Ok(()), "{endpoint}");
    }
}

#[test]
fn files_of_tls_are_read_for_https() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let https = |settings: &mut TracesSettings| {
        settings.endpoint = "https://c:4317".to_owned();
        settings.tls.ca_file = Some(file.clone());
    };
    let missing = refusal(https);
    assert_eq!(
        missing,
        TracesSettingsError::File {
            path: file.clone(),
            kind: std::io::ErrorKind::NotFound
        }
    );
    std::fs::write(&file, "nonsense").unwrap();
    let wrong = refusal(https);
    assert!(matches!(wrong, TracesSettingsError::Pem { path, .. } if path == file));
    let settings = TracesSettings {
        tls: TracesTls {
            ca_file: Some(file),
            client_identity: None,
        },
        ..good()
    };
    assert_eq!(settings.check(), Ok(()));
}

#[test]
fn headers_are_checked_and_hidden() {
    let mut headers = TracesHeaders::default();
    headers.add("authorization", "Bearer t0ken").unwrap();
    assert_eq!(format!("{headers:?}"), r#"["authorization"]"#);
    for (name, value) in [("a b", "c"), ("", "c"), ("a", "b\nc")] {
        let error = headers.add(name, value).unwrap_err();
        assert!(
            matches!(error, TracesSettingsError::Header { .. }),
            "{error}"
        );
    }
}
