//! Encodes the heads of requests over HTTP/2.

use std::borrow::Cow;

use adit_codec::{
    ResetCode,
    fields::{is_hop_by_hop, list_contains, list_elements, parse_content_length},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};

use super::{
    grpc,
    request::{Http2Head, Http2Record},
};
use crate::forward::{error::ForwardError, record::TRACEPARENT};

/// Encodes the head of a request; also returns the length of its body, if the head states it.
///
/// # Errors
/// [`ForwardError::Reset`]: the head cannot be sent over HTTP/2.
pub(super) fn encode(
    record: &Http2Record,
) -> Result<(http::Request<()>, Option<u64>), ForwardError> {
    let Http2Record { head, service, .. } = record;
    let (authority, path) = match head {
        Http2Head::Http(head) => (&head.authority, &head.path),
        Http2Head::Grpc(head) => (&head.authority, &head.path),
    };
    let authority = match &service.host_rewrite {
        Some(host) => host.as_bytes(),
        None if authority.is_empty() => head.headers().first(b"host").unwrap_or(b""),
        None => authority,
    };
    let authority = match authority {
        // The visitor named no host, but HTTP/2 requires one.
        b"" => service.endpoint.as_bytes(),
        authority => authority,
    };
    let uri = Uri::builder()
        .scheme(if service.is_tls { "https" } else { "http" })
        .authority(authority)
        .path_and_query(&*encoded(path))
        .build()
        .map_err(|_| invalid("the host or path cannot be sent over HTTP/2"))?;
    let (headers, length) = headers(record)?;
    let mut request = http::Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = method(head)?;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok((request, length))
}

fn method(head: &Http2Head) -> Result<Method, ForwardError> {
    match head {
        Http2Head::Http(head) => {
            let method = Method::from_bytes(&head.method);
            method.map_err(|_| invalid("the method cannot be sent over HTTP/2"))
        }
        Http2Head::Grpc(_) => Ok(Method::POST),
    }
}

/// The header lines, and the length of the body if they state it.
fn headers(record: &Http2Record) -> Result<(HeaderMap, Option<u64>), ForwardError> {
    let Http2Record { head, service, .. } = record;
    let trace = record.traceparent();
    let block = head.headers();
    let mut length = None;
    let mut headers = HeaderMap::with_capacity(block.len() + 2);
    let options: Vec<&[u8]> = block
        .lines()
        .filter(|(name, _)| *name == b"connection")
        .flat_map(|(_, value)| list_elements(value))
        .collect();
    for (name, value) in block.lines() {
        if name == b"te" && list_contains(value, b"trailers") {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        let stays = name == b"host"
            || is_hop_by_hop(name)
            || service.replaces(name)
            || (trace.is_some() && name == TRACEPARENT)
            || options
                .iter()
                .any(|option| option.eq_ignore_ascii_case(name));
        if stays {
            continue;
        }
        if name == b"content-length" {
            let value =
                parse_content_length(value).ok_or_else(|| invalid("invalid Content-Length"))?;
            if length.replace(value).is_some_and(|before| before != value) {
                return Err(invalid("more than one Content-Length"));
            }
            headers.insert(header::CONTENT_LENGTH, value.into());
            continue;
        }
        match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) => {
                headers.append(name, value);
            }
            _ => return Err(invalid("a header cannot be sent over HTTP/2")),
        }
    }
    if let Http2Head::Grpc(head) = head {
        grpc::set_hop_headers(&mut headers, head.timeout);
    }
    for (name, value) in &service.custom {
        headers.append(name, value.clone());
    }
    if let Some(context) = trace
        && let Ok(context) = HeaderValue::try_from(context)
    {
        headers.insert("traceparent", context);
    }
    Ok((headers, length))
}

/// The target, with those bytes percent-encoded that the library rejects or truncates at (P-3.10).
fn encoded(path: &[u8]) -> Cow<'_, [u8]> {
    let is_accepted =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'`');
    if path.iter().copied().all(is_accepted) {
        return Cow::Borrowed(path);
    }
    let mut out = Vec::with_capacity(path.len() + 16);
    for &byte in path {
        if is_accepted(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    Cow::Owned(out)
}

fn invalid(reason: &'static str) -> ForwardError {
    ForwardError::Reset(ResetCode::ProtocolError, Cow::Borrowed(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_3_10_every_target_can_be_sent_over_http2() {
        let all: Vec<u8> = (0x21..=0xff).filter(|byte| *byte != 0x7f).collect();
        for target in [&[b"/", &all[..]].concat()[..], b"/caf\xe9?\"<>#`"] {
            let path = http::uri::PathAndQuery::try_from(&*encoded(target)).unwrap();
            assert!(!path.as_str().contains('#'));
        }
        assert_eq!(&*encoded(b"/a?b={c}|^"), b"/a?b={c}|^");
        assert_eq!(&*encoded(b"/\"\xe9"), b"/%22%E9");
    }
}
