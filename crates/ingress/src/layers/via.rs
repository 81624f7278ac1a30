//! Detects forwarding loops (P-3.12; RFC 9110, 7.6.3).

use adit_link::{Failure, Reason};
use http::{HeaderMap, HeaderValue, Version, header::VIA};

use crate::forward::{
    headers::elements,
    layer::{Layer, Verdict},
    request_meta::RequestMeta,
};

/// Adds the pseudonym to `via` in requests and responses, and rejects requests that have it already.
#[derive(Debug, Clone)]
pub struct Via {
    pseudonym: Box<str>,
    /// The element of `via` for messages of HTTP/1.0, made once.
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
}

impl Via {
    /// A layer with a pseudonym made from `random`, which differs for each process.
    pub fn new(random: u64) -> Self {
        let pseudonym = format!("adit-{random:016x}");
        let element = |version: &str| {
            // Letters, digits and a hyphen are always a valid value.
            HeaderValue::try_from(format!("{version} {pseudonym}"))
                .unwrap_or_else(|_| HeaderValue::from_static(""))
        };
        Self {
            http10: element("1.0"),
            http11: element("1.1"),
            http2: element("2.0"),
            pseudonym: pseudonym.into(),
        }
    }

    /// Whether `via` has this pseudonym. Comments may contain commas, but no part of a comment is equal to the
    /// pseudonym.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        elements(headers, &VIA).any(|element| {
            let mut words = element
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty());
            words.nth(1) == Some(self.pseudonym.as_bytes())
        })
    }
}

impl Layer for Via {
    fn on_request<'r>(&'r self, request: &'r mut RequestMeta) -> Verdict<'r> {
        if self.is_in(&request.headers) {
            return Verdict::Reject(Failure::new(
                Reason::Loop,
                "forwarding loop: the request has passed this server before",
            ));
        }
        let element = match request.version {
            Version::HTTP_10 => &self.http10,
            Version::HTTP_2 => &self.http2,
            _ => &self.http11,
        };
        request.headers.append(VIA, element.clone());
        Verdict::Continue
    }

    fn on_response(&self, _: &RequestMeta, response: &mut http::response::Parts) {
        response.headers.append(VIA, self.http11.clone());
    }

    /// Does nothing: a local response is not forwarded (RFC 9110, 7.6.3).
    fn on_local_response(&self, _: &RequestMeta, _: &mut http::response::Parts) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_its_own_pseudonym_only() {
        let via = Via::new(0x2a);
        for (line, found) in [
            ("1.1 adit-000000000000002a", true),
            ("1.0 a, 2.0  adit-000000000000002a (x), 1.1 b", true),
            ("HTTP/1.1 adit-000000000000002a", true),
            ("1.1 adit-000000000000002b", false),
            ("1.1 adit-000000000000002aa", false),
            ("1.1 a (adit-000000000000002a)", false),
            ("adit-000000000000002a", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(VIA, HeaderValue::from_static("1.1 other"));
            headers.append(VIA, HeaderValue::from_static(line));
            assert_eq!(via.is_in(&headers), found, "{line}");
        }
        let mut headers = HeaderMap::new();
        headers.append(VIA, via.http11.clone());
        assert!(via.is_in(&headers));
    }
}
