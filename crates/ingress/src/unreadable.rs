//! Requests that hyper cannot read.
//!
//! hyper answers them by itself: a bare status, without reason, known to nobody else. The socket recognizes such an
//! answer, as hyper writes it while no request of the connection waits for one, and sends the one made here instead.

use std::fmt::Display;

use adit_codec::ProtocolType;
use adit_link::{Failure, Reason};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version};

use crate::{
    access::tell_unreadable,
    connection::Connection,
    http::Http,
    reply::{To, reply},
    visit::new_uuid,
};

/// The status of an answer that hyper has made, by its first bytes.
pub(crate) fn status_of(answer: &[u8]) -> Option<StatusCode> {
    let version = answer.strip_prefix(b"HTTP/1.")?;
    StatusCode::from_bytes(version.get(2..5)?).ok()
}

/// Counts and records what a visitor of HTTP/2 sent and cannot be answered: h2 has reset the stream of a malformed request,
/// or the connection is ended. `why` goes into the log.
pub(crate) fn record(http: &Http, connection: &Connection, why: &dyn Display) {
    let (uuid, reason) = (new_uuid(), Reason::BadRequest);
    http.counters.count_refused(reason);
    tracing::debug!(
        request_id = %uuid,
        peer = connection.visitor.as_str(),
        reason = reason.as_str(),
        "{why}"
    );
    let observer = http.admission.observer();
    tell_unreadable(&**observer, connection, uuid, reason, None);
}

/// Counts and records the request that got `hypers` from hyper, with this `status`. Gives the answer to it, in bytes.
pub(crate) fn refuse(
    http: &Http,
    connection: &Connection,
    status: StatusCode,
    hypers: &[u8],
) -> Bytes {
    let failure = match status {
        StatusCode::URI_TOO_LONG => Failure::new(
            Reason::HeaderTooLarge,
            "the request target is longer than 65,534 bytes",
        ),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Failure::new(
            Reason::HeaderTooLarge,
            "the request head is longer than 64 KiB, or has too many lines",
        ),
        _ => Failure::new(
            Reason::BadRequest,
            "the request line or a header line is malformed",
        ),
    };
    let uuid = new_uuid();
    let to = To {
        uuid,
        protocol: ProtocolType::Http,
        method: &Method::GET,
        version: Version::HTTP_11,
        headers: &HeaderMap::new(),
        close: true,
    };
    let mut response = reply(&failure, &to);
    *response.status_mut() = status;
    http.counters.count_refused(failure.reason);
    tracing::debug!(
        request_id = %uuid,
        peer = connection.visitor.as_str(),
        reason = failure.reason.as_str(),
        "{}",
        failure.detail
    );
    let observer = http.admission.observer();
    let answer = Some((status.as_u16(), response.body().len() as u64));
    tell_unreadable(&**observer, connection, uuid, failure.reason, answer);
    let (parts, body) = response.into_parts();
    let mut lines = hypers.split_inclusive(|byte| *byte == b'\n');
    let date = lines.find(|line| line.starts_with(b"date: "));
    let title = status.canonical_reason().unwrap_or_default();
    let mut out = format!("HTTP/1.1 {} {title}\r\n", status.as_str()).into_bytes();
    for (name, value) in &parts.headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(date.unwrap_or_default());
    out.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    out.extend_from_slice(&body);
    out.into()
}
