//! What calls of gRPC have beside what every request over HTTP/2 has (section 8 of the protocol).

use std::time::Duration;

use adit_codec::{EncodedHead, GrpcResponseHead, HeadError, HeaderBlock, ResetCode};
use adit_link::SendHalf;
use h2::Reason;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use uuid::Uuid;

use super::head::Head;
use crate::request::account::Account;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Of metadata that are more than cross.
pub(crate) const RESOURCE_EXHAUSTED: u8 = 8;

/// The largest number that `grpc-timeout` can say: eight digits.
const MAX_TIMEOUT: u128 = 99_999_999;

/// Puts in what belongs to this hop (P-8.2).
pub(crate) fn put_own(headers: &mut HeaderMap, timeout: Option<Duration>) {
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.remove(TIMEOUT);
    if let Some(timeout) = timeout
        && let Ok(timeout) = HeaderValue::try_from(timeout_text(timeout))
    {
        headers.insert(TIMEOUT, timeout);
    }
}

/// The finest unit in which it can be said, rounded up: a service must not give up before its visitor does (as in
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

/// The head of an answer as it crosses, with the part of the messages that rides along.
pub(crate) fn answer<'h>(
    status: u16,
    metadata: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    body: &[u8],
) -> Result<EncodedHead, HeadError> {
    GrpcResponseHead { status }.encode(metadata, body)
}

/// What a stream that was reset means for its call (grpc/grpc, doc/PROTOCOL-HTTP2.md, "Errors").
pub(crate) const fn status_of(reason: Reason) -> u8 {
    match reason {
        Reason::REFUSED_STREAM => 14,
        Reason::CANCEL => 1,
        Reason::ENHANCE_YOUR_CALM => 8,
        Reason::INADEQUATE_SECURITY => 7,
        _ => 13,
    }
}

/// The status that a call ends with, where these lines say it.
pub(crate) fn status_in(lines: &HeaderMap) -> Option<u16> {
    lines.get(STATUS)?.to_str().ok()?.parse().ok()
}

/// Ends a call whose answer cannot be passed on, with a status as libraries of gRPC would: where the service has reset the
/// stream, the visitor sees what it would see without a tunnel. `answered` says whether the head of the answer has gone
/// out.
pub(crate) fn end_with(
    send: &SendHalf,
    account: &mut Account<Head>,
    status: u8,
    why: &str,
    answered: bool,
) {
    let course = &mut account.course;
    course.on_reset(ResetCode::ServiceAborted);
    course.on_gone(send);
    course.on_grpc_status(Some(status.into()));
    if !answered {
        course.on_answer(200, true);
    }
    let status = status.to_string();
    let uuid = Uuid::from_bytes(account.head.open().request_uuid);
    tracing::debug!(
        target: "adit::egress",
        request_id = %uuid,
        reason = ResetCode::ServiceAborted.reason(),
        grpc_status = status,
        why,
        "the answer of a call ended early"
    );
    // The text is ours and the name of a code: nothing in it needs an encoding.
    let uuid = uuid.to_string();
    let lines = [
        ("grpc-status", &status[..]),
        ("grpc-message", why),
        ("adit-reason", ResetCode::ServiceAborted.reason()),
        ("adit-request-id", &uuid),
    ];
    let lines = lines.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    // Fails only for a visitor who has left.
    let _ = if answered {
        send.finish_with(HeaderBlock::from_iter(lines))
    } else {
        let kind = (&b"content-type"[..], &b"application/grpc"[..]);
        match answer(200, std::iter::once(kind).chain(lines), b"") {
            Ok(head) => send.respond(head, true),
            Err(_) => Ok(()),
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_8_2_timeouts_are_said_in_the_finest_unit_and_rounded_up() {
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
    fn p_8_2_what_belongs_to_the_hop_is_made_here() {
        let mut headers = HeaderMap::new();
        headers.append(TIMEOUT, HeaderValue::from_static("1H"));
        put_own(&mut headers, Some(Duration::from_millis(5)));
        assert_eq!(headers.get("grpc-timeout").unwrap(), "5000000n");
        assert_eq!(headers.get("te").unwrap(), "trailers");
        put_own(&mut headers, None);
        assert!(headers.get("grpc-timeout").is_none());
    }
}
