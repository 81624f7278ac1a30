//! A request as it is written to a service.

use std::io::Write as _;

use adit_codec::HttpRequest;

use crate::{
    fields::{allows_trailers, content_length, has_element, is_hop_by_hop},
    request::account::TRACEPARENT,
    service::Service,
};

/// What is known of a request's body when its head is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// There is none.
    None,
    /// This much, and it is all there.
    Whole(u64),
    /// It comes.
    Streamed,
}

/// How a request's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// This many bytes are still to come.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// Why a request cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadLength;

/// Appends a request's head to `out`.
///
/// Names and values were checked when the message was decoded: what could end a line is not in them. `trace` stands in
/// place of the visitor's `traceparent`.
pub(crate) fn write_head(
    out: &mut Vec<u8>,
    request: &HttpRequest,
    service: &Service,
    body: Body,
    trace: Option<&str>,
) -> Result<Framing, BadLength> {
    let start = out.len();
    let (written, has_options) = write(out, request, service, (body, trace), &|_| false)?;
    if !has_options {
        return Ok(written);
    }
    // `Connection` names headers that stay behind (P-3.3). The server has dropped it already, so this is rare.
    out.truncate(start);
    let is_named = |name: &[u8]| {
        name != b"content-length"
            && request
                .headers
                .lines()
                .any(|(n, value)| n == b"connection" && has_element(value, name))
    };
    write(out, request, service, (body, trace), &is_named).map(|(written, _)| written)
}

fn write(
    out: &mut Vec<u8>,
    request: &HttpRequest,
    service: &Service,
    (body, trace): (Body, Option<&str>),
    is_named: &dyn Fn(&[u8]) -> bool,
) -> Result<(Framing, bool), BadLength> {
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
                let value = content_length(value).ok_or(BadLength)?;
                match length.replace(value) {
                    Some(before) if before == value => continue,
                    Some(_) => return Err(BadLength),
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
                trailers |= allows_trailers(value);
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
        // Into memory: it cannot fail.
        let _ = write!(out, "traceparent: {context}\r\n");
    }
    if trailers {
        // RFC 9110, 10.1.4: who sends TE names it, so that it stays on this hop.
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
        (Some(length), Body::None) if length != 0 => return Err(BadLength),
        (Some(length), Body::Whole(bytes)) if length != bytes => return Err(BadLength),
        (Some(length), _) => Framing::Length(length),
        (None, Body::None) => {
            // RFC 9110, 8.6: for methods that have content a service wants to hear that there is none.
            if matches!(&request.method[..], b"POST" | b"PUT" | b"PATCH") {
                put_length(out, 0);
            }
            Framing::Length(0)
        }
        (None, Body::Whole(bytes)) => {
            put_length(out, bytes);
            Framing::Length(bytes)
        }
        (None, Body::Streamed) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Framing::Chunked
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

pub(crate) fn put_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whether repeating a request does no harm (RFC 9110, 9.2.2).
pub(crate) fn is_idempotent(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE"
    )
}
