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

/// Takes out `connection` and what it names, `keep-alive`, `proxy-connection`, `te` except `trailers`,
/// `transfer-encoding` and `upgrade`, from requests and answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct HopByHop;

impl Layer for HopByHop {
    fn on_request(&self, visit: &mut Visit) -> Verdict {
        let trailers = visit.headers.contains_key(TE) && accepts_trailers(&visit.headers);
        strip(&mut visit.headers);
        if trailers {
            let trailers = HeaderValue::from_static("trailers");
            visit.headers.insert(TE, trailers);
        }
        Verdict::Continue
    }

    fn on_response(&self, _: &Visit, response: &mut http::response::Parts) {
        strip(&mut response.headers);
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

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        // These two say where a message ends and for whom it is. Nobody may take them out on the way.
        .filter(|name| *name != CONTENT_LENGTH && *name != HOST)
        .collect();
    retain(headers, |name| {
        !is_hop_by_hop(name.as_str().as_bytes()) && !named.contains(name)
    });
}
