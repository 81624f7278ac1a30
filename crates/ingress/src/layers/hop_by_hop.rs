//! Removes hop-by-hop fields (P-3.3; RFC 9110, 7.6.1).

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE},
};

use crate::forward::{
    headers::{elements, has_token, is_hop_by_hop, retain},
    layer::{Layer, Verdict},
    request_meta::RequestMeta,
};

/// Removes from requests the fields that `connection` names, and `te` except `trailers`; from responses also `connection`
/// itself, `keep-alive`, `proxy-connection`, `transfer-encoding` and `upgrade`, which are left out of requests as their
/// heads are encoded.
#[derive(Debug, Clone, Copy, Default)]
pub struct HopByHop;

impl Layer for HopByHop {
    fn on_request<'r>(&'r self, request: &'r mut RequestMeta) -> Verdict<'r> {
        let headers = &mut request.headers;
        let trailers = headers.contains_key(TE) && accepts_trailers(headers);
        let mut named = named(headers);
        named.retain(|name| headers.contains_key(name));
        if !named.is_empty() || headers.contains_key(TE) {
            retain(headers, |name| *name != TE && !named.contains(name));
        }
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        Verdict::Continue
    }

    fn on_response(&self, _: &RequestMeta, response: &mut http::response::Parts) {
        let named = named(&response.headers);
        retain(&mut response.headers, |name| {
            !is_hop_by_hop(name.as_str().as_bytes()) && !named.contains(name)
        });
    }

    /// Does nothing: a local response begins on this hop.
    fn on_local_response(&self, _: &RequestMeta, _: &mut http::response::Parts) {}
}

/// Whether `te` lists `trailers`.
fn accepts_trailers(headers: &HeaderMap) -> bool {
    has_token(headers, &TE, b"trailers")
}

/// The fields that `connection` names, except those that are hop-by-hop by their own name.
fn named(headers: &HeaderMap) -> Vec<HeaderName> {
    elements(headers, &CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| !is_hop_by_hop(name.as_str().as_bytes()))
        // The end of a message and its host depend on these two fields, so they always stay.
        .filter(|name| *name != CONTENT_LENGTH && *name != HOST)
        .collect()
}
