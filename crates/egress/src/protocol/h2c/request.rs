//! The heads of requests over HTTP/2.

use std::borrow::Cow;

use adit_codec::{HeaderBlock, Open, ResetCode};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};

use super::{grpc, head::Head};
use crate::{
    fields::{allows_trailers, content_length, elements, is_hop_by_hop},
    request::{
        account::{Account, TRACEPARENT},
        broken::Broken,
    },
};

impl Head {
    pub(crate) fn open(&self) -> &Open {
        match self {
            Self::Http(head) => &head.open,
            Self::Grpc(head) => &head.open,
        }
    }

    pub(super) fn is_to_head(&self) -> bool {
        matches!(self, Self::Http(head) if head.method == "HEAD")
    }

    fn method(&self) -> Result<Method, Broken> {
        match self {
            Self::Http(head) => {
                Method::from_bytes(&head.method).map_err(|_| bad("the method cannot be sent"))
            }
            Self::Grpc(_) => Ok(Method::POST),
        }
    }

    fn headers(&self) -> &HeaderBlock {
        match self {
            Self::Http(head) => &head.headers,
            Self::Grpc(head) => &head.metadata,
        }
    }
}

/// The request, and the length of its body if it says it.
pub(super) fn request(account: &Account<Head>) -> Result<(Request<()>, Option<u64>), Broken> {
    let Account { head, service, .. } = account;
    let (authority, path) = match head {
        Head::Http(head) => (&head.authority, &head.path),
        Head::Grpc(head) => (&head.authority, &head.path),
    };
    let authority = match &service.host_rewrite {
        Some(host) => host.as_bytes(),
        None if authority.is_empty() => head.headers().first(b"host").unwrap_or(b""),
        None => authority,
    };
    let authority = match authority {
        // The visitor named no host, and a request of HTTP/2 has one.
        b"" => service.endpoint.as_bytes(),
        authority => authority,
    };
    let uri = Uri::builder()
        .scheme(if service.is_tls { "https" } else { "http" })
        .authority(authority)
        .path_and_query(&*encoded(path))
        .build()
        .map_err(|_| bad("host and path cannot be sent over HTTP/2"))?;
    let (headers, length) = headers(account)?;
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = head.method()?;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok((request, length))
}

/// The header lines, and the length of the body if they say it.
fn headers(account: &Account<Head>) -> Result<(HeaderMap, Option<u64>), Broken> {
    let Account { head, service, .. } = account;
    let trace = account.traceparent();
    let block = head.headers();
    let mut length = None;
    let mut headers = HeaderMap::with_capacity(block.len() + 2);
    let options: Vec<&[u8]> = block
        .lines()
        .filter(|(name, _)| *name == b"connection")
        .flat_map(|(_, value)| elements(value))
        .collect();
    for (name, value) in block.lines() {
        if name == b"te" && allows_trailers(value) {
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
            let value = content_length(value).ok_or_else(|| bad("bad content-length"))?;
            if length.replace(value).is_some_and(|before| before != value) {
                return Err(bad("two content-lengths"));
            }
            headers.insert(header::CONTENT_LENGTH, value.into());
            continue;
        }
        match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) => {
                headers.append(name, value);
            }
            _ => return Err(bad("a header cannot be sent over HTTP/2")),
        }
    }
    if let Head::Grpc(head) = head {
        grpc::put_own(&mut headers, head.timeout);
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

/// The target with those bytes percent-encoded that the library does not take, or cuts off (P-3.10).
fn encoded(path: &[u8]) -> Cow<'_, [u8]> {
    let is_taken =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'`');
    if path.iter().copied().all(is_taken) {
        return Cow::Borrowed(path);
    }
    let mut out = Vec::with_capacity(path.len() + 16);
    for &byte in path {
        if is_taken(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    Cow::Owned(out)
}

fn bad(what: &'static str) -> Broken {
    Broken::Reset(ResetCode::ProtocolError, Cow::Borrowed(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_can_be_sent_over_http2() {
        let all: Vec<u8> = (0x21..=0xff).filter(|byte| *byte != 0x7f).collect();
        for target in [&[b"/", &all[..]].concat()[..], b"/caf\xe9?\"<>#`"] {
            let path = http::uri::PathAndQuery::try_from(&*encoded(target)).unwrap();
            assert!(!path.as_str().contains('#'));
        }
        assert_eq!(&*encoded(b"/a?b={c}|^"), b"/a?b={c}|^");
        assert_eq!(&*encoded(b"/\"\xe9"), b"/%22%E9");
    }
}
