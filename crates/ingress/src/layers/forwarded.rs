//! Reports the visitor's address, host and scheme to the service (P-3.4).

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};

use crate::{
    forward::{
        headers::{elements, request_id, retain},
        layer::{Layer, Verdict},
        request_meta::{RequestMeta, Scheme},
        reserved::{USER, could_be, reports_visitor},
    },
    layers::trusted_proxies::TrustedProxies,
};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Sets `x-forwarded-for`, `x-forwarded-host`, `x-forwarded-proto` and `x-request-id`. The values of a trusted proxy are
/// kept and extended; those of any other visitor are removed. `adit-user` is removed in any case (P-15.5). Place it after [`crate::layers::HopByHop`]: otherwise a
/// visitor could have these fields removed by naming them in `connection`.
#[derive(Debug, Clone, Default)]
pub struct Forwarded {
    trusted: TrustedProxies,
}

impl Forwarded {
    /// Creates the layer with the proxies whose values are trusted.
    pub const fn new(trusted: TrustedProxies) -> Self {
        Self { trusted }
    }

    /// Adds to the values of a trusted proxy at `peer`.
    fn extend(&self, request: &mut RequestMeta, peer: IpAddr) {
        let headers = &mut request.headers;
        let mut hops: Vec<Hop> = list(headers, &FOR).map(Hop::of_address).collect();
        if hops.is_empty() {
            hops = list(headers, &FORWARDED).map(Hop::of_element).collect();
        }
        let proto = headers.get(&PROTO).map(HeaderValue::as_bytes);
        let proto = proto.or_else(|| parameter(list(headers, &FORWARDED).last()?, b"proto"));
        match proto {
            Some(proto) if proto.eq_ignore_ascii_case(b"https") => request.scheme = Scheme::Https,
            Some(proto) if proto.eq_ignore_ascii_case(b"http") => request.scheme = Scheme::Http,
            _ => {}
        }
        append(headers, FOR, &peer.to_string());
        if headers.contains_key(FORWARDED) {
            let own = match peer {
                IpAddr::V4(ip) => format!("for={ip}"),
                IpAddr::V6(ip) => format!("for=\"[{ip}]\""),
            };
            append(headers, FORWARDED, &own);
        }
        let mut visitor = None;
        for hop in hops.into_iter().rev() {
            // Each hop reports the one before it: the report of a trusted proxy is accepted.
            let Some(addr) = hop.0 else { break };
            visitor = Some(addr);
            if !self.trusted.contains(addr.ip()) {
                break;
            }
        }
        if let Some(addr) = visitor {
            request.visitor = request.visitor.behind_proxy(addr);
        }
    }
}

impl Layer for Forwarded {
    fn on_request<'r>(&'r self, request: &'r mut RequestMeta) -> Verdict<'r> {
        let peer = request.visitor.addr().ip().to_canonical();
        if self.trusted.contains(peer) {
            self.extend(request, peer);
            // A trusted proxy writes hyphens: a name with underscores is one of its visitor.
            retain(&mut request.headers, |name| {
                let is_variant = name.as_str().contains('_') && reports_visitor(name);
                !is_variant && !could_be(name, &USER)
            });
        } else {
            remove_reports(&mut request.headers);
            let address = request.visitor.ip_value().clone();
            request.headers.insert(FOR, address);
        }
        let headers = &mut request.headers;
        if !headers.contains_key(HOST)
            && let Some(authority) = &request.authority
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            headers.insert(HOST, host);
        }
        if !headers.contains_key(PROTO) {
            let proto = HeaderValue::from_static(request.scheme.as_str());
            headers.insert(PROTO, proto);
        }
        headers.insert(REQUEST_ID, request_id(&request.uuid));
        Verdict::Continue
    }
}

/// One address that a proxy has reported; `None` if it is malformed or hidden.
struct Hop(Option<SocketAddr>);

impl Hop {
    /// Parses an address of `x-forwarded-for`; some proxies add a port.
    fn of_address(text: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(text) else {
            return Self(None);
        };
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        let ip = bare.unwrap_or(text).parse::<IpAddr>();
        let addr = ip.map(|ip| SocketAddr::new(ip, 0));
        Self(addr.or_else(|_| text.parse()).ok())
    }

    /// Parses an element of `forwarded` (RFC 7239, 4).
    fn of_element(element: &[u8]) -> Self {
        parameter(element, b"for").map_or(Self(None), Self::of_address)
    }
}

/// The elements of a list, over all lines of this name. A comma in quotes splits its element: the parts are not addresses,
/// and end the trusted chain.
fn list<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    elements(headers, name)
}

/// The value of a parameter of an element of `forwarded`, without quotes.
fn parameter<'h>(element: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    let mut pairs = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    pairs.find_map(|pair| {
        let (key, value) = pair.split_at_checked(name.len())?;
        let value = value.strip_prefix(b"=")?;
        let unquoted = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""));
        key.eq_ignore_ascii_case(name)
            .then_some(unquoted.unwrap_or(value))
    })
}

/// Adds an element to a list, in one line.
fn append(headers: &mut HeaderMap, name: HeaderName, element: &str) {
    let mut line = Vec::new();
    for before in list(headers, &name) {
        line.extend_from_slice(before);
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(element.as_bytes());
    // Parts of header values and addresses are always a valid value.
    if let Ok(line) = HeaderValue::from_maybe_shared(bytes::Bytes::from(line)) {
        headers.insert(name, line);
    }
}

/// Removes the values that a visitor has set itself.
fn remove_reports(headers: &mut HeaderMap) {
    retain(headers, |name| {
        !reports_visitor(name) && !could_be(name, &USER)
    });
}
