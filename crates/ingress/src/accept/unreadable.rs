//! Requests that hyper or h2 cannot read.
//!
//! hyper responds to them itself, with a status and no body, and does not report them. The socket recognizes such a
//! response, because hyper writes it while no request of the connection is open, and sends the response made here
//! instead.

use std::fmt::Display;

use adit_codec::ProtocolType;
use adit_link::{Failure, Reason};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version};

use crate::forward::{
    connection::Connection,
    context::HttpContext,
    error_response::{ErrorContext, error_response},
    record::record_unreadable,
    request_meta::new_uuid,
};

/// The status of a response that hyper has made, from its first bytes.
pub(super) fn status_of(response: &[u8]) -> Option<StatusCode> {
    let version = response.strip_prefix(b"HTTP/1.")?;
    StatusCode::from_bytes(version.get(2..5)?).ok()
}

/// Counts and records a malformed request of HTTP/2, which gets no response: h2 has reset its stream, or the connection is
/// ended. `why` is logged.
pub(super) fn record(context: &HttpContext, connection: &Connection, why: &dyn Display) {
    let (uuid, reason) = (new_uuid(), Reason::BadRequest);
    context.counters.count_refused(reason);
    tracing::debug!(
        request_id = %uuid,
        peer = connection.visitor.as_str(),
        reason = reason.as_str(),
        "{why}"
    );
    let observer = context.admission.observer();
    record_unreadable(&**observer, connection, uuid, reason, None);
}

/// Counts and records the request that hyper rejected with the response `hypers` and its `status`. Returns the response to
/// send instead, in bytes.
pub(super) fn reject(
    context: &HttpContext,
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
            "the request head is longer than 64 KiB, or has too many header lines",
        ),
        _ => Failure::new(
            Reason::BadRequest,
            "the request line or a header line is malformed",
        ),
    };
    let uuid = new_uuid();
    let error_context = ErrorContext {
        uuid,
        protocol: ProtocolType::Http,
        method: &Method::GET,
        headers: &HeaderMap::new(),
        close: true,
        status: Some(status),
        pages: context.admission.error_pages(),
    };
    let response = error_response(&failure, &error_context);
    let mut response = response.render(ProtocolType::Http, &Method::GET, Version::HTTP_11);
    *response.status_mut() = status;
    context.counters.count_refused(failure.reason);
    tracing::debug!(
        request_id = %uuid,
        peer = connection.visitor.as_str(),
        reason = failure.reason.as_str(),
        "{}",
        failure.detail
    );
    let observer = context.admission.observer();
    let sent = Some((status.as_u16(), response.body().len() as u64));
    record_unreadable(&**observer, connection, uuid, failure.reason, sent);
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
