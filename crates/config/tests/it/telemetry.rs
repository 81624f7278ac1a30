//! `telemetry` of a file: what it enables, and which values are refused with their place.

use std::time::Duration;

use adit_config::{
    ClientOverrides, ConfigError, ServerOverrides, Telemetry, load_client, load_server,
};
use adit_otlp::{TracesHeaders, TracesProtocol};
use adit_telemetry::{LogTarget, MetricsSettings, Rotate};

fn server_with(pairs: &[(&str, &str)], text: &str) -> Result<Telemetry, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.yaml");
    std::fs::write(&file, text).unwrap();
    let mut variables = vec![("HOME".to_owned(), "/home".to_owned())];
    variables.extend(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())));
    load_server(
        Some(&file),
        variables.into_iter(),
        &ServerOverrides::default(),
    )
    .map(|loaded| loaded.telemetry)
}

fn server(telemetry: &str) -> Result<Telemetry, ConfigError> {
    server_with(&[], &format!("server: {{ telemetry: {telemetry} }}"))
}

#[test]
fn without_settings_there_are_only_metrics() {
    let telemetry = server_with(&[], "server: {}").unwrap();
    assert_eq!(telemetry, Telemetry::default());
    assert!(telemetry.metrics.is_some());
    assert!(telemetry.tracing.is_none() && telemetry.access_log.is_none());
    assert!(telemetry.error_log.is_none());
}

#[test]
fn every_setting_can_be_set() {
    let telemetry = server(
        "{ metrics: { max_label_sets: 10, keep_idle: 2m },
           access_log: { path: logs/access.log, rotate: hourly, keep: 3 },
           error_log: { path: /var/log/adit-error.log, rotate: never },
           tracing: { endpoint: \"http://otel:4317\", sample_ratio: 0.01, service_name: edge,
                      timeout: 2s, interval: 100ms, max_queue: 50, max_batch: 20 } }",
    )
    .unwrap();
    let metrics = MetricsSettings::try_new(10, Duration::from_secs(120)).unwrap();
    assert_eq!(telemetry.metrics, Some(metrics));
    let LogTarget::File(access) = telemetry.access_log.unwrap().target else {
        panic!("no file");
    };
    assert!(access.path().is_absolute(), "beside the file: {access:?}");
    assert!(access.path().ends_with("logs/access.log"), "{access:?}");
    assert_eq!((access.rotate(), access.keep()), (Rotate::Hourly, 3));
    let error = telemetry.error_log.unwrap();
    assert_eq!(error.path().to_str(), Some("/var/log/adit-error.log"));
    assert_eq!(error.rotate(), Rotate::Never);
    let tracing = telemetry.tracing.unwrap();
    assert_eq!(tracing.endpoint, "http://otel:4317");
    assert!((tracing.sample_ratio - 0.01).abs() < 1e-9);
    assert_eq!(tracing.service_name, "edge");
    assert_eq!(tracing.timeout, Duration::from_secs(2));
    assert_eq!(tracing.interval, Duration::from_millis(100));
    assert_eq!((tracing.max_queue, tracing.max_batch), (50, 20));
}

#[test]
fn a_collector_over_http_has_headers_and_certificates() {
    let tracing =
        "{ endpoint: \"http://c:4318\", protocol: http/protobuf, headers: { authorization: t0ken },
          ca_file: ca.pem, cert_file: c.pem, key_file: /etc/k.pem }";
    let settings = server(&format!("{{ tracing: {tracing} }}"))
        .unwrap()
        .tracing
        .unwrap();
    assert_eq!(settings.protocol, TracesProtocol::HttpProtobuf);
    let mut headers = TracesHeaders::default();
    headers.add("authorization", "t0ken").unwrap();
    assert_eq!(settings.headers, headers);
    let ca_file = settings.tls.ca_file.unwrap();
    assert!(ca_file.is_absolute() && ca_file.ends_with("ca.pem"));
    let (certificate, key) = settings.tls.client_identity.unwrap();
    assert!(certificate.ends_with("c.pem"));
    assert_eq!(key.to_str(), Some("/etc/k.pem"));
}

#[test]
fn variables_of_opentelemetry_turn_tracing_on() {
    let pairs = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
        ("OTEL_SERVICE_NAME", "edge"),
    ];
    let tracing = server_with(&pairs, "server: {}").unwrap().tracing.unwrap();
    assert_eq!(tracing.endpoint, "http://c:4317");
    assert_eq!(tracing.service_name, "edge");
    let off = server_with(&pairs, "server: { telemetry: { tracing: off } }").unwrap();
    assert_eq!(off.tracing, None);
}

#[test]
fn a_key_wins_over_a_variable_of_opentelemetry() {
    let pairs = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
        ("OTEL_SERVICE_NAME", "edge"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
        ("OTEL_BSP_SCHEDULE_DELAY", "250"),
    ];
    let file = "server: { telemetry: { tracing: { service_name: shop, sample_ratio: 0.5 } } }";
    let tracing = server_with(&pairs, file).unwrap().tracing.unwrap();
    assert_eq!(tracing.endpoint, "http://c:4317");
    assert_eq!(tracing.service_name, "shop");
    assert!((tracing.sample_ratio - 0.5).abs() < 1e-9 && tracing.follow_parent);
    assert_eq!(tracing.interval, Duration::from_millis(250));
}

#[test]
fn invalid_variables_of_opentelemetry_are_ignored_with_a_warning() {
    let load = |pairs: &[(&str, &str)]| {
        let variables = pairs.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        load_server(None, variables, &ServerOverrides::default()).unwrap()
    };
    let loaded = load(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense:x")]);
    assert_eq!(loaded.telemetry.tracing, None);
    assert!(
        loaded.warnings[0].contains("OTEL_*"),
        "{:?}",
        loaded.warnings
    );
    let loaded = load(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
        ("OTEL_TRACES_SAMPLER", "xray"),
    ]);
    assert!(loaded.telemetry.tracing.is_some());
    assert!(loaded.warnings[0].contains("xray"), "{:?}", loaded.warnings);
    let unused = load(&[("OTEL_TRACES_SAMPLER", "xray")]);
    assert_eq!(unused.warnings, Vec::<String>::new());
}

#[test]
fn a_word_is_enough() {
    let telemetry = server(
        "{ metrics: off, access_log: stdout, error_log: e.log, tracing: \"http://c:4317\" }",
    )
    .unwrap();
    assert_eq!(telemetry.metrics, None);
    assert_eq!(telemetry.access_log.unwrap().target, LogTarget::Stdout);
    assert!(telemetry.error_log.unwrap().path().ends_with("e.log"));
    assert_eq!(telemetry.tracing.unwrap().service_name, "adit-server");
    let off = server("{ metrics: true, access_log: off, error_log: off, tracing: off }").unwrap();
    assert_eq!(off, Telemetry::default());
}

#[test]
fn a_variable_is_enough() {
    let pairs = [("ADIT__SERVER__TELEMETRY__TRACING", "http://c:4317")];
    let telemetry = server_with(&pairs, "server: {}").unwrap();
    assert_eq!(telemetry.tracing.unwrap().endpoint, "http://c:4317");
}

#[test]
fn a_client_has_the_same_keys_and_another_name() {
    let variables = [
        ("HOME", "/home"),
        ("ADIT__TOKEN", "t"),
        ("ADIT__CLIENT__TELEMETRY__TRACING", "http://c:4317"),
    ];
    let variables = variables.map(|(n, v)| (n.to_owned(), v.to_owned()));
    let loaded = load_client(None, variables.into_iter(), &ClientOverrides::default()).unwrap();
    assert_eq!(
        loaded.telemetry.tracing.unwrap().service_name,
        "adit-client"
    );
}

#[test]
fn what_cannot_be_is_refused_with_its_key() {
    for (telemetry, key, says) in [
        ("{ metrics: { max_label_sets: 0 } }", "metrics", "from 1"),
        ("{ metrics: 7 }", "metrics", "section"),
        ("{ access_log: logs/ }", "access_log", "has no file name"),
        ("{ access_log: { rotate: daily } }", "access_log", "`path`"),
        (
            "{ access_log: { path: a, rotate: weekly } }",
            "access_log.rotate",
            "daily, hourly or never",
        ),
        ("{ error_log: { path: e, keep: 0 } }", "error_log", "from 1"),
        ("{ tracing: \"otel:4317\" }", "tracing", "http://"),
        ("{ tracing: { sample_ratio: 1 } }", "tracing", "4317"),
        (
            "{ tracing: { endpoint: \"http://c:4317\", sample_ratio: 2 } }",
            "tracing",
            "from 0 to 1",
        ),
        (
            "{ tracing: { endpoint: \"http://c:4318\", protocol: http/json } }",
            "tracing.protocol",
            "http/protobuf",
        ),
        (
            "{ tracing: { endpoint: \"https://c\", cert_file: c.pem } }",
            "tracing",
            "`key_file`",
        ),
        ("{ otlp: \"http://c:4317\" }", "telemetry.otlp", ""),
        ("{ alerts: [] }", "telemetry.alerts", ""),
    ] {
        let error = server(telemetry).expect_err(telemetry);
        let text = format!("{error} {:?}", error.help());
        assert!(
            error.key().contains(key),
            "{telemetry}: {} in {text}",
            error.key()
        );
        assert!(text.contains(says), "{telemetry}: {text}");
        assert!(text.contains("server.yaml"), "{telemetry}: {text}");
    }
}
