//! Leads visitors from HTTP to HTTPS (P-14.6, P-14.7).

use std::time::Duration;

use adit_link::{Failure, Reason};
use http::{
    HeaderValue, StatusCode,
    header::{LOCATION, STRICT_TRANSPORT_SECURITY},
    response::Parts,
};

use crate::{
    forward::{
        layer::{Layer, Verdict},
        local_response::LocalResponse,
        request_meta::{RequestMeta, Scheme},
    },
    layers::http_challenges::is_challenge,
};

/// Redirects requests over HTTP to HTTPS, except those by which a certificate authority validates the host.
#[derive(Debug, Clone, Copy)]
pub struct RedirectToHttps {
    /// The port for HTTPS.
    port: u16,
}

/// Makes browsers use HTTPS only: `Strict-Transport-Security` (RFC 6797) in responses over HTTPS, instead of that of the
/// service.
#[derive(Debug, Clone)]
pub struct Hsts(HeaderValue);

impl RedirectToHttps {
    /// Redirects to the same host and path on this port.
    pub const fn new(port: u16) -> Self {
        Self { port }
    }

    /// Where a request is redirected to; `None` if it stays: `OPTIONS *` has no location, nor has a request without a host.
    fn location(self, request: &RequestMeta) -> Option<Vec<u8>> {
        let path = request.path.as_bytes();
        let stays =
            request.scheme == Scheme::Https || is_challenge(path) || !path.starts_with(b"/");
        let host = request.authority.as_ref().filter(|_| !stays)?.host();
        let port = match self.port {
            443 => String::new(),
            port => format!(":{port}"),
        };
        Some([b"https://", host.as_bytes(), port.as_bytes(), path].concat())
    }
}

impl Layer for RedirectToHttps {
    fn on_request<'r>(&'r self, request: &'r mut RequestMeta) -> Verdict<'r> {
        let Some(location) = self.location(request) else {
            return Verdict::Continue;
        };
        match HeaderValue::from_bytes(&location) {
            Ok(location) => Verdict::respond(
                LocalResponse::new(StatusCode::PERMANENT_REDIRECT).with_header(LOCATION, location),
            ),
            Err(_) => Verdict::Reject(Failure::new(
                Reason::BadRequest,
                "the target of the request cannot be redirected",
            )),
        }
    }
}

impl Hsts {
    /// For this long, in whole seconds, and for hosts below that of the request as well if `include_subdomains` is set.
    pub fn new(max_age: Duration, include_subdomains: bool) -> Self {
        let below = if include_subdomains {
            "; includeSubDomains"
        } else {
            ""
        };
        let value = format!("max-age={}{below}", max_age.as_secs());
        // Digits and these texts are always a valid value.
        Self(HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static("max-age=0")))
    }
}

impl Layer for Hsts {
    fn on_response(&self, request: &RequestMeta, response: &mut Parts) {
        // Over HTTP browsers ignore it (RFC 6797, 8.1).
        if request.scheme == Scheme::Https {
            let headers = &mut response.headers;
            headers.insert(STRICT_TRANSPORT_SECURITY, self.0.clone());
        }
    }
}
