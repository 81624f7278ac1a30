//! Reports to the service who the visitor is, and how it came (P-3.4).

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};

use crate::{
    layer::{Layer, Verdict},
    ordered::retain,
    trusted_proxies::TrustedProxies,
    visit::{Scheme, Visit},
};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Sets `x-forwarded-for`, `x-forwarded-host`, `x-forwarded-proto` and `x-request-id`. What a trusted proxy reports of its
/// visitor is kept and extended; what anybody else reports is removed. Belongs behind [`crate::layers::HopByHop`],
/// through which a visitor could have these taken out again.
#[derive(Debug, Clone, Default)]
pub struct Forwarded {
    trusted: TrustedProxies,
}

impl Forwarded {
    /// With proxies whose reports are believed.
    pub const fn new(trusted: TrustedProxies) -> Self {
        Self { trusted }
    }

    /// A request of a trusted proxy at `peer`.
    fn extend(&self, visit: &mut Visit, peer: IpAddr) {
        let headers = &mut visit.headers;
        let mut hops: Vec<Hop> = list(headers, &FOR).map(Hop::of_address).collect();
        if hops.is_empty() {
            hops = list(headers, &FORWARDED).map(Hop::of_element).collect();
        }
        let proto = headers.get(&PROTO).map(HeaderValue::as_bytes);
        let proto = proto.or_else(|| parameter(list(headers, &FORWARDED).last()?, b"proto"));
        match proto {
            Some(proto) if proto.eq_ignore_ascii_case(b"https") => visit.scheme = Scheme::Https,
            Some(proto) if proto.eq_ignore_ascii_case(b"http") => visit.scheme = Scheme::Http,
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
            // The next one is reported by this one: as long as it is a trusted proxy, it is believed.
            let Some(addr) = hop.0 else { break };
            visitor = Some(addr);
            if !self.trusted.contains(addr.ip()) {
                break;
            }
        }
        if let Some(addr) = visitor {
            visit.visitor = visit.visitor.behind_proxy(addr);
        }
    }
}

impl Layer for Forwarded {
    fn on_request(&self, visit: &mut Visit) -> Verdict {
        let peer = visit.visitor.addr().ip().to_canonical();
        if self.trusted.contains(peer) {
            self.extend(visit, peer);
        } else {
            remove_reports(&mut visit.headers);
            let address = visit.visitor.ip_value().clone();
            visit.headers.insert(FOR, address);
        }
        let headers = &mut visit.headers;
        if !headers.contains_key(HOST)
            && let Some(authority) = &visit.authority
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            headers.insert(HOST, host);
        }
        if !headers.contains_key(PROTO) {
            let proto = HeaderValue::from_static(visit.scheme.as_str());
            headers.insert(PROTO, proto);
        }
        headers.insert(REQUEST_ID, request_id(&visit.uuid));
        Verdict::Continue
    }
}

/// One address that a proxy has reported; `None` if it cannot be read, or is hidden.
struct Hop(Option<SocketAddr>);

impl Hop {
    /// Of `x-forwarded-for`: an address, some proxies add a port.
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

    /// Of `forwarded` (RFC 7239, 4).
    fn of_element(element: &[u8]) -> Self {
        parameter(element, b"for").map_or(Self(None), Self::of_address)
    }
}

/// The elements of a list, over all lines of this name. None of the lists that are read here has commas in quotes: an
/// element that has is no address, and ends what is believed.
fn list<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
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
    // Parts of header values, and addresses, make one.
    if let Ok(line) = HeaderValue::from_maybe_shared(bytes::Bytes::from(line)) {
        headers.insert(name, line);
    }
}

/// Removes what a visitor reports of itself.
fn remove_reports(headers: &mut HeaderMap) {
    retain(headers, |name| {
        let name = name.as_str();
        !(name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip")
    });
}

/// A request's UUID as a header value.
pub(crate) fn request_id(uuid: &uuid::Uuid) -> HeaderValue {
    let mut text = uuid::Uuid::encode_buffer();
    let text = uuid.hyphenated().encode_lower(&mut text);
    // Hexadecimal digits and hyphens are always a value.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
