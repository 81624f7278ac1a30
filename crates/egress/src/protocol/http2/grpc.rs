//! The parts of gRPC in addition to HTTP/2 (section 8 of the protocol).

use std::time::Duration;

use adit_codec::{EncodedHead, GrpcResponseHead, HeadError, ResetCode};
use adit_link::{GRPC_CONTENT_TYPE, GrpcStatus, Reason, SendHalf, parse_grpc_status};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use uuid::Uuid;

use super::request::Http2Record;
use crate::forward::record::Outcome;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The status for metadata that are too large to be forwarded.
pub(super) const RESOURCE_EXHAUSTED: u8 = 8;

/// The largest number of `grpc-timeout`: eight digits.
const MAX_TIMEOUT: u128 = 99_999_999;

/// Sets the headers that each hop generates itself (P-8.2).
pub(super) fn set_hop_headers(headers: &mut HeaderMap, timeout: Option<Duration>) {
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.remove(TIMEOUT);
    if let Some(timeout) = timeout
        && let Ok(timeout) = HeaderValue::try_from(timeout_text(timeout))
    {
        headers.insert(TIMEOUT, timeout);
    }
}

/// The timeout in the finest unit whose number fits, rounded up: a service must not give up before its visitor does (as in
/// grpc-go, `internal/grpcutil/encode_duration.go`).
fn timeout_text(timeout: Duration) -> String {
    let nanos = timeout.as_nanos();
    let units = [
        ('n', 1),
        ('u', 1_000),
        ('m', 1_000_000),
        ('S', 1_000_000_000),
        ('M', 60_000_000_000),
    ];
    for (unit, size) in units {
        let amount = nanos.div_ceil(size);
        if amount <= MAX_TIMEOUT {
            return format!("{amount}{unit}");
        }
    }
    let hours = nanos.div_ceil(3_600_000_000_000).min(MAX_TIMEOUT);
    format!("{hours}H")
}

/// The head of a response for the tunnel, with the first part of its messages.
pub(super) fn encode_response<'h>(
    status: u16,
    metadata: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    body: &[u8],
) -> Result<EncodedHead, HeadError> {
    GrpcResponseHead { status }.encode(metadata, body)
}

/// The status of a call whose stream was reset (grpc/grpc, doc/PROTOCOL-HTTP2.md, "Errors").
pub(super) const fn status_of_reset(code: h2::Reason) -> u8 {
    match code {
        h2::Reason::REFUSED_STREAM => 14,
        h2::Reason::CANCEL => 1,
        h2::Reason::ENHANCE_YOUR_CALM => 8,
        h2::Reason::INADEQUATE_SECURITY => 7,
        _ => 13,
    }
}

/// The status in these trailers, or in a head that contains them.
pub(super) fn status_in(lines: &HeaderMap) -> Option<u16> {
    parse_grpc_status(lines.get(STATUS)?.as_bytes())
}

/// Ends a call whose response cannot be forwarded with a status, as libraries of gRPC do: if the service has reset the
/// stream, the visitor receives what it would receive without a tunnel. `has_responded`: the head of the response has been
/// forwarded.
pub(super) fn end_with_status(
    send: &SendHalf,
    mut record: Http2Record,
    status: u8,
    reason: &str,
    has_responded: bool,
) {
    let outcome = send.failure().map_or_else(
        || Outcome::of_reset(ResetCode::ServiceAborted),
        |failure| Outcome::of_failure(&failure),
    );
    record.timeline.on_grpc_status(Some(status.into()));
    if !has_responded {
        record.timeline.on_response(200, true);
    }
    let uuid = Uuid::from_bytes(record.head.open().request_uuid);
    tracing::debug!(
        target: "adit::egress",
        request_id = %uuid,
        reason = Reason::ServiceAborted.as_str(),
        grpc_status = status,
        why = reason,
        "response of a gRPC call ended early"
    );
    let status = GrpcStatus::new(status, reason, Reason::ServiceAborted, &uuid);
    let lines = status.lines();
    let lines = lines.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    // This fails only if the visitor has left.
    let _ = if has_responded {
        send.finish_with(lines.collect())
    } else {
        let kind = (&b"content-type"[..], GRPC_CONTENT_TYPE.as_bytes());
        match encode_response(200, std::iter::once(kind).chain(lines), b"") {
            Ok(head) => send.respond(head, true),
            Err(_) => Ok(()),
        }
    };
    record.finish(outcome);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_8_2_timeouts_use_the_finest_unit_rounded_up() {
        let nanos = Duration::from_nanos;
        let hour = Duration::from_secs(3_600);
        for (timeout, text) in [
            (nanos(1), "1n"),
            (nanos(99_999_999), "99999999n"),
            (nanos(100_000_000), "100000u"),
            (nanos(100_000_001), "100001u"),
            (Duration::from_secs(99), "99000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(99_999_999), "99999999S"),
            (Duration::from_secs(100_000_000), "1666667M"),
            (10_000_000 * hour, "10000000H"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(timeout_text(timeout), text, "{timeout:?}");
        }
    }

    #[test]
    fn p_8_2_hop_headers_are_made_anew() {
        let mut headers = HeaderMap::new();
        headers.append(TIMEOUT, HeaderValue::from_static("1H"));
        set_hop_headers(&mut headers, Some(Duration::from_millis(5)));
        assert_eq!(headers.get("grpc-timeout").unwrap(), "5000000n");
        assert_eq!(headers.get("te").unwrap(), "trailers");
        set_hop_headers(&mut headers, None);
        assert!(headers.get("grpc-timeout").is_none());
    }
}
