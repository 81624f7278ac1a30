//! Finds requests that come back to where they have been (P-3.12; RFC 9110, 7.6.3).

use adit_link::{Failure, Reason};
use http::{HeaderMap, HeaderValue, Version, header::VIA};

use crate::{
    layer::{Layer, Verdict},
    visit::Visit,
};

/// Adds its pseudonym to `via` in requests and answers, and stops requests that have it already.
#[derive(Debug, Clone)]
pub struct Via {
    pseudonym: Box<str>,
    /// The element for a message of this version of HTTP, made once.
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
}

impl Via {
    /// With a pseudonym that follows from `random`, which is another one for each process.
    pub fn new(random: u64) -> Self {
        let pseudonym = format!("adit-{random:016x}");
        let element = |version: &str| {
            // Letters, digits and a hyphen are always a value.
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

    /// Whether a list has this pseudonym. Comments, which may have commas, do not look like it.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let lines = headers.get_all(VIA).into_iter();
        lines
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .any(|element| {
                let mut words = element
                    .split(u8::is_ascii_whitespace)
                    .filter(|word| !word.is_empty());
                words.nth(1) == Some(self.pseudonym.as_bytes())
            })
    }
}

impl Layer for Via {
    fn on_request(&self, visit: &mut Visit) -> Verdict {
        if self.is_in(&visit.headers) {
            return Verdict::Stop(Failure::new(
                Reason::Loop,
                "the request has come back to the server that forwarded it",
            ));
        }
        let element = match visit.version {
            Version::HTTP_10 => &self.http10,
            Version::HTTP_2 => &self.http2,
            _ => &self.http11,
        };
        visit.headers.append(VIA, element.clone());
        Verdict::Continue
    }

    fn on_response(&self, _: &Visit, response: &mut http::response::Parts) {
        response.headers.append(VIA, self.http11.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_pseudonym_is_found() {
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
