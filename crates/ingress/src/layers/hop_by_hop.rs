//! Takes out what concerns one connection only (P-3.3; RFC 9110, 7.6.1).

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE},
};

use crate::{
    layer::{Layer, Verdict},
    ordered::retain,
    visit::Visit,
};

/// Takes out what `connection` names and `te` except `trailers` from requests; from responses also `connection` itself,
/// `keep-alive`, `proxy-connection`, `transfer-encoding` and `upgrade`, which are left out of requests as these are
/// encoded ([`crosses`]).
#[derive(Debug, Clone, Copy, Default)]
pub struct HopByHop;

impl Layer for HopByHop {
    fn on_request(&self, visit: &mut Visit) -> Verdict {
        let headers = &mut visit.headers;
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

    fn on_response(&self, _: &Visit, response: &mut http::response::Parts) {
        let named = named(&response.headers);
        retain(&mut response.headers, |name| {
            !is_hop_by_hop(name.as_str().as_bytes()) && !named.contains(name)
        });
    }
}

/// Whether a field concerns one connection only, whatever `connection` names. `name` is in lower case.
pub(crate) fn is_hop_by_hop(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection"
            | b"keep-alive"
            | b"proxy-connection"
            | b"te"
            | b"transfer-encoding"
            | b"upgrade"
    )
}

/// Whether a line of a request goes to the service, by its name in lower case. `host` crosses as the authority. Taking
/// these out of the map would build it anew, to keep the order of the others.
pub(crate) fn crosses(name: &[u8]) -> bool {
    name != b"host" && (name == b"te" || !is_hop_by_hop(name))
}

/// Whether `te` lists `trailers`.
pub(crate) fn accepts_trailers(headers: &HeaderMap) -> bool {
    tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case(b"trailers"))
}

fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// What `connection` names, and is not left out by its own name.
fn named(headers: &HeaderMap) -> Vec<HeaderName> {
    tokens(headers, &CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| !is_hop_by_hop(name.as_str().as_bytes()))
        // These two say where a message ends and for whom it is: they are never taken out on the way.
        .filter(|name| *name != CONTENT_LENGTH && *name != HOST)
        .collect()
}
