//! Both protocols of OTLP, with TLS and with headers.

use std::time::Duration;

use adit_otlp::{Traces, TracesHeaders, TracesProtocol, TracesSettings, TracesTls};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};

use super::{
    delivery::{ids, logged, record_one},
    record::{AMPLE, settings},
    sink::{Certificates, Sink},
};

const BOTH: [TracesProtocol; 2] = [TracesProtocol::Grpc, TracesProtocol::HttpProtobuf];

fn to(sink: &Sink, protocol: TracesProtocol) -> TracesSettings {
    TracesSettings {
        protocol,
        ..settings(&sink.endpoint)
    }
}

fn headers(pairs: &[(&str, &str)]) -> TracesHeaders {
    let mut headers = TracesHeaders::default();
    for (name, value) in pairs {
        headers.add(name, value).unwrap();
    }
    headers
}

#[test]
fn spans_arrive_with_headers_over_both_protocols() {
    for protocol in BOTH {
        let sink = Sink::start(None);
        let traces = Traces::start(TracesSettings {
            headers: headers(&[("authorization", "Bearer t0ken"), ("x-tenant", "ann")]),
            ..to(&sink, protocol)
        })
        .unwrap();
        let recorded = record_one(&traces);
        let export = sink.export();
        assert_eq!(ids(&export.request), [recorded], "{protocol:?}");
        assert_eq!(export.headers["authorization"], "Bearer t0ken");
        assert_eq!(export.headers["x-tenant"], "ann");
        let user_agent = export.headers["user-agent"].to_str().unwrap();
        assert!(
            user_agent.contains("OTel-OTLP-Exporter-Rust"),
            "{user_agent}"
        );
        if protocol == TracesProtocol::HttpProtobuf {
            assert_eq!(export.path, "/v1/traces");
            assert_eq!(export.headers["content-type"], "application/x-protobuf");
        }
        assert_eq!(traces.shutdown(AMPLE).exported, 1);
    }
}

#[test]
fn a_path_over_http_is_used_as_written() {
    let sink = Sink::start(None);
    let mut settings = to(&sink, TracesProtocol::HttpProtobuf);
    settings.endpoint.push_str("/otlp/spans");
    let traces = Traces::start(settings).unwrap();
    record_one(&traces);
    assert_eq!(sink.export().path, "/otlp/spans");
}

#[test]
fn a_connection_is_used_for_many_exports() {
    for protocol in BOTH {
        let sink = Sink::start(None);
        let traces = Traces::start(to(&sink, protocol)).unwrap();
        for _ in 0..5 {
            let recorded = record_one(&traces);
            assert_eq!(ids(&sink.export().request), [recorded]);
        }
    }
}

#[test]
fn spans_arrive_over_tls() {
    let certificates = Certificates::new();
    for protocol in BOTH {
        let sink = Sink::start(Some(certificates.server(false)));
        let traces = Traces::start(TracesSettings {
            tls: TracesTls {
                ca_file: Some(certificates.ca_file.clone()),
                client_identity: None,
            },
            ..to(&sink, protocol)
        })
        .unwrap();
        let recorded = record_one(&traces);
        assert_eq!(ids(&sink.export().request), [recorded], "{protocol:?}");
    }
}

#[test]
fn an_untrusted_certificate_is_rejected() {
    let certificates = Certificates::new();
    let other = Certificates::new();
    for protocol in BOTH {
        let sink = Sink::start(Some(certificates.server(false)));
        let (traces, lines) = logged(TracesSettings {
            tls: TracesTls {
                ca_file: Some(other.ca_file.clone()),
                client_identity: None,
            },
            ..to(&sink, protocol)
        });
        record_one(&traces);
        let line = lines.recv_timeout(AMPLE).unwrap();
        assert!(
            line.contains("spans cannot be exported") && line.contains("certificate"),
            "{line}"
        );
        assert_eq!(traces.shutdown(AMPLE).exported, 0);
        assert_eq!(sink.unread(), 0);
    }
}

#[test]
fn a_client_certificate_authenticates_the_exporter() {
    let certificates = Certificates::new();
    for protocol in BOTH {
        let sink = Sink::start(Some(certificates.server(true)));
        let with = |client_identity| TracesSettings {
            tls: TracesTls {
                ca_file: Some(certificates.ca_file.clone()),
                client_identity,
            },
            ..to(&sink, protocol)
        };
        let anonymous = Traces::start(with(None)).unwrap();
        record_one(&anonymous);
        assert_eq!(anonymous.shutdown(AMPLE).exported, 0, "{protocol:?}");
        assert_eq!(sink.unread(), 0);
        let known = Traces::start(with(Some(certificates.client.clone()))).unwrap();
        let recorded = record_one(&known);
        assert_eq!(ids(&sink.export().request), [recorded], "{protocol:?}");
    }
}

#[test]
fn statuses_of_http_decide_about_another_try() {
    for (status, tries) in [(503, 2), (429, 2), (400, 1), (401, 1)] {
        let mut responses = vec![200, status];
        let sink = Sink::responding(None, move || {
            let status = responses.pop().unwrap_or(200);
            (status, ExportTraceServiceResponse::default())
        });
        let (traces, lines) = logged(to(&sink, TracesProtocol::HttpProtobuf));
        let first = record_one(&traces);
        for _ in 0..tries {
            assert_eq!(
                ids(&sink.export().request),
                std::slice::from_ref(&first),
                "{status}"
            );
        }
        let line = lines.recv_timeout(AMPLE).unwrap();
        assert!(line.contains(&status.to_string()), "{line}");
        let stats = traces.shutdown(AMPLE);
        let exported = u64::from(tries == 2);
        assert_eq!((stats.exported, stats.failed), (exported, 1 - exported));
    }
}

#[test]
fn spans_rejected_over_http_count_as_failed() {
    let sink = Sink::responding(None, || {
        let partial_success = Some(ExportTracePartialSuccess {
            rejected_spans: 1,
            error_message: "too old".to_owned(),
        });
        (200, ExportTraceServiceResponse { partial_success })
    });
    let (traces, lines) = logged(to(&sink, TracesProtocol::HttpProtobuf));
    record_one(&traces);
    let line = lines.recv_timeout(AMPLE).unwrap();
    assert!(
        line.contains("1 of 1 spans were rejected: too old"),
        "{line}"
    );
    let stats = traces.shutdown(AMPLE);
    assert_eq!((stats.exported, stats.failed), (0, 1));
}

#[test]
fn a_network_error_over_http_is_logged_with_its_cause() {
    let (_socket, endpoint) = super::collector::refusing();
    let (traces, lines) = logged(TracesSettings {
        protocol: TracesProtocol::HttpProtobuf,
        interval: Duration::from_millis(1),
        ..settings(&endpoint)
    });
    record_one(&traces);
    let line = lines.recv_timeout(AMPLE).unwrap();
    assert!(line.contains("refused"), "{line}");
    assert_eq!(traces.shutdown(AMPLE).exported, 0);
}
