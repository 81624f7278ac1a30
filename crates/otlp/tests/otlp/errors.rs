//! The requests that count as failures of the server.

use std::time::Instant;

use adit_trace::{Edge, Record};
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};

use super::{
    collector::{assert_unset, texts},
    record::{hop, http},
};

fn ended(reason: Option<&'static str>, status: u16, grpc_status: Option<u16>) -> Span {
    hop(Record {
        protocol: if grpc_status.is_some() {
            "grpc"
        } else {
            "http"
        },
        reason,
        status,
        grpc_status,
        ..http(Edge::Ingress, Instant::now())
    })
}

fn assert_error(span: &Span, error_type: &str, message: &str) {
    let status = span
        .status
        .as_ref()
        .unwrap_or_else(|| panic!("{error_type}: no status"));
    assert_eq!(status.code(), StatusCode::Error, "{error_type}");
    assert_eq!(status.message, message, "{error_type}");
    assert_eq!(texts(&span.attributes)["error.type"], error_type);
}

fn assert_fine(span: &Span) {
    assert_unset(span);
    assert!(!texts(&span.attributes).contains_key("error.type"));
}

#[test]
fn a_failure_has_its_reason() {
    for (reason, status) in [
        ("no_client", 503),
        ("limit", 503),
        ("dial_failed", 502),
        ("service_timeout", 504),
        // The head had been sent before the failure.
        ("service_aborted", 200),
        ("refused", 502),
        ("draining", 502),
        ("link_lost", 502),
        ("protocol_error", 502),
        ("flow_control", 502),
        ("internal", 500),
        // A session has no status.
        ("dial_failed", 0),
    ] {
        let span = ended(Some(reason), status, None);
        assert_error(&span, reason, reason);
        assert_eq!(texts(&span.attributes)["adit.reason"], reason);
    }
}

#[test]
fn failures_by_the_visitor_have_no_status() {
    for (reason, status) in [
        ("no_tunnel", 404),
        ("bad_request", 400),
        ("header_too_large", 431),
        ("misdirected", 421),
        ("loop", 508),
        ("stalled", 408),
        ("cancelled", 499),
        ("cancelled", 0),
    ] {
        let span = ended(Some(reason), status, None);
        assert_fine(&span);
        assert_eq!(texts(&span.attributes)["adit.reason"], reason);
    }
}

#[test]
fn the_services_own_5xx_is_a_failure() {
    for status in [200, 302, 404, 499] {
        assert_fine(&ended(None, status, None));
    }
    for status in [500, 503, 599] {
        assert_error(&ended(None, status, None), &status.to_string(), "");
    }
}

#[test]
fn statuses_of_grpc_by_the_server_are_failures() {
    for (status, name) in [
        (2, "UNKNOWN"),
        (4, "DEADLINE_EXCEEDED"),
        (12, "UNIMPLEMENTED"),
        (13, "INTERNAL"),
        (14, "UNAVAILABLE"),
        (15, "DATA_LOSS"),
    ] {
        assert_error(&ended(None, 200, Some(status)), name, "");
    }
    for status in [0, 1, 3, 5, 6, 7, 8, 9, 10, 11, 16, 17, u16::MAX] {
        assert_fine(&ended(None, 200, Some(status)));
    }
    assert_error(
        &ended(Some("link_lost"), 200, Some(14)),
        "link_lost",
        "link_lost",
    );
}
