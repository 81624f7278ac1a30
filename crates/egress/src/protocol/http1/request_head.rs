//! Writes the head of a request for a service.

use std::io::Write as _;

use adit_codec::{
    HttpRequest,
    fields::{is_hop_by_hop, list_contains, parse_content_length},
};

use super::header_line::put_line;
use crate::forward::{record::TRACEPARENT, service::Service};

/// The body of a request, as far as it is known when the head is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestBody {
    None,
    /// A complete body with this many bytes.
    Whole(u64),
    /// A body that has not arrived yet.
    Streamed,
}

/// How a request's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestFraming {
    /// A body with a length: this many bytes have not been written yet.
    Length(u64),
    Chunked,
}

/// The `content-length` of a request is invalid, or differs from the length of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LengthMismatch;

/// Appends a request's head to `out`. `trace` replaces the visitor's `traceparent`.
///
/// Names and values were checked when the message was decoded: they contain no byte that ends a line.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    request: &HttpRequest,
    service: &Service,
    body: RequestBody,
    trace: Option<&str>,
) -> Result<RequestFraming, LengthMismatch> {
    let start = out.len();
    let (written, has_options) = write(out, request, service, (body, trace), &|_| false)?;
    if !has_options {
        return Ok(written);
    }
    // `Connection` names further headers that are not forwarded (P-3.3). The server has removed them already, so this
    // is rare.
    out.truncate(start);
    let is_named = |name: &[u8]| {
        name != b"content-length"
            && request
                .headers
                .lines()
                .any(|(n, value)| n == b"connection" && list_contains(value, name))
    };
    write(out, request, service, (body, trace), &is_named).map(|(written, _)| written)
}

fn write(
    out: &mut Vec<u8>,
    request: &HttpRequest,
    service: &Service,
    (body, trace): (RequestBody, Option<&str>),
    is_named: &dyn Fn(&[u8]) -> bool,
) -> Result<(RequestFraming, bool), LengthMismatch> {
    for part in [
        &request.method[..],
        b" ",
        &request.path,
        b" HTTP/1.1\r\nhost: ",
    ] {
        out.extend_from_slice(part);
    }
    let host = match &service.host_rewrite {
        Some(host) => host.as_bytes(),
        None if request.authority.is_empty() => request.headers.first(b"host").unwrap_or(b""),
        None => &request.authority,
    };
    out.extend_from_slice(host);
    out.extend_from_slice(b"\r\n");
    let (mut length, mut trailers, mut has_options) = (None, false, false);
    for (name, value) in request.headers.lines() {
        match name {
            b"host" => continue,
            b"content-length" => {
                let value = parse_content_length(value).ok_or(LengthMismatch)?;
                match length.replace(value) {
                    Some(before) if before == value => continue,
                    Some(_) => return Err(LengthMismatch),
                    None => {
                        put_length(out, value);
                        continue;
                    }
                }
            }
            b"connection" => {
                has_options = true;
                continue;
            }
            b"te" => {
                trailers |= list_contains(value, b"trailers");
                continue;
            }
            TRACEPARENT if trace.is_some() => continue,
            name if is_hop_by_hop(name) || service.replaces(name) || is_named(name) => continue,
            _ => {}
        }
        put_line(out, name, value);
    }
    for (name, value) in &service.custom {
        put_line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    if let Some(context) = trace {
        // Writing to memory cannot fail.
        let _ = write!(out, "traceparent: {context}\r\n");
    }
    if trailers {
        // RFC 9110, 10.1.4: a sender of `TE` names it in `Connection`, so that it stays on this hop.
        out.extend_from_slice(b"te: trailers\r\n");
    }
    if !request.upgrade.is_empty() {
        put_line(out, b"upgrade", &request.upgrade);
    }
    let options: &[u8] = match (trailers, request.upgrade.is_empty()) {
        (true, true) => b"te",
        (true, false) => b"te, Upgrade",
        (false, false) => b"Upgrade",
        (false, true) => b"",
    };
    if !options.is_empty() {
        put_line(out, b"connection", options);
    }
    let framing = match (length, body) {
        (Some(length), RequestBody::None) if length != 0 => return Err(LengthMismatch),
        (Some(length), RequestBody::Whole(bytes)) if length != bytes => return Err(LengthMismatch),
        (Some(length), _) => RequestFraming::Length(length),
        (None, RequestBody::None) => {
            // RFC 9110, 8.6: for methods that expect content, a length of 0 states its absence.
            if matches!(&request.method[..], b"POST" | b"PUT" | b"PATCH") {
                put_length(out, 0);
            }
            RequestFraming::Length(0)
        }
        (None, RequestBody::Whole(bytes)) => {
            put_length(out, bytes);
            RequestFraming::Length(bytes)
        }
        (None, RequestBody::Streamed) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            RequestFraming::Chunked
        }
    };
    out.extend_from_slice(b"\r\n");
    Ok((framing, has_options))
}

fn put_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(length.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Whether a request with this method may be repeated (RFC 9110, 9.2.2).
pub(super) fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    )
}
