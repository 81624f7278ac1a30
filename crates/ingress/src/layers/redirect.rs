//! Redirects requests to another scheme or host.

use adit_link::{Failure, Reason};
use http::{HeaderValue, StatusCode, header::LOCATION, uri::Authority};

use crate::{
    forward::{
        layer::{Layer, Verdict},
        local_response::LocalResponse,
        request_meta::{RequestMeta, Scheme},
    },
    layers::{
        layer_error::{LayerError, start_of},
        status::status,
    },
};

/// Redirects requests to a scheme, a host or both; path and query stay. A request that has them already passes, so that no
/// redirection leads to itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    scheme: Option<Scheme>,
    host: Option<Authority>,
    status: StatusCode,
}

impl Redirect {
    /// The status of a redirection without a configured status: permanent, and the method stays.
    pub const STATUS: u16 = 308;

    /// Redirects to a scheme, to a host with or without a port, or to both, with status 301, 302, 303, 307 or 308. For
    /// an empty text the value of the request is kept.
    ///
    /// # Errors
    /// Both are empty, or a part is invalid.
    pub fn new(scheme: &str, host: &str, status: u32) -> Result<Self, LayerError> {
        if scheme.is_empty() && host.is_empty() {
            return Err(LayerError::NoTarget);
        }
        let scheme = match scheme {
            "" => None,
            "http" => Some(Scheme::Http),
            "https" => Some(Scheme::Https),
            other => {
                let scheme = start_of(other.as_bytes());
                return Err(LayerError::Scheme { scheme });
            }
        };
        let host = match host {
            "" => None,
            text => Some(authority(text)?),
        };
        let is_allowed = |status| matches!(status, 301 | 302 | 303 | 307 | 308);
        Ok(Self {
            scheme,
            host,
            status: self::status(status, is_allowed, "301, 302, 303, 307 or 308")?,
        })
    }

    /// The scheme; `None` is that of the request.
    pub const fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    /// The host; `None` is that of the request.
    pub fn host(&self) -> Option<&str> {
        self.host.as_ref().map(Authority::as_str)
    }

    /// The status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// Where a request is redirected to; `None` if it has that location already, or cannot be redirected.
    fn location(&self, request: &RequestMeta) -> Option<Vec<u8>> {
        let scheme = self.scheme.unwrap_or(request.scheme);
        let given = request.authority.as_ref();
        let is_there = |host: &Authority| given.is_some_and(|given| given == host);
        let host = match &self.host {
            Some(host) if scheme == request.scheme && is_there(host) => return None,
            Some(host) => host.as_str(),
            None if scheme == request.scheme => return None,
            // The port belongs to the scheme of the request.
            None => given?.host(),
        };
        // `OPTIONS *` has no location.
        let path = request.path.as_bytes();
        path.starts_with(b"/")
            .then(|| [scheme.as_str().as_bytes(), b"://", host.as_bytes(), path].concat())
    }
}

/// A host with or without a port, without user information.
fn authority(text: &str) -> Result<Authority, LayerError> {
    let parsed = text.parse::<Authority>().ok();
    let is_valid = |authority: &Authority| {
        let rest = authority.as_str().strip_prefix(authority.host());
        let port = rest.and_then(|rest| rest.strip_prefix(':'));
        let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0);
        !authority.host().is_empty() && (rest == Some("") || port.is_some_and(is_port))
    };
    parsed.filter(is_valid).ok_or_else(|| LayerError::Host {
        host: start_of(text.as_bytes()),
    })
}

impl Layer for Redirect {
    fn on_request<'r>(&'r self, request: &'r mut RequestMeta) -> Verdict<'r> {
        let Some(location) = self.location(request) else {
            return Verdict::Continue;
        };
        match HeaderValue::from_bytes(&location) {
            Ok(location) => {
                Verdict::respond(LocalResponse::new(self.status).with_header(LOCATION, location))
            }
            Err(_) => Verdict::Reject(Failure::new(
                Reason::BadRequest,
                "the target of the request cannot be redirected",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_status_and_scheme_are_checked() {
        let new = |scheme, host, status| Redirect::new(scheme, host, status).map(|_| ());
        assert_eq!(new("", "", 308), Err(LayerError::NoTarget));
        for scheme in ["ftp", "HTTPS"] {
            assert!(matches!(
                new(scheme, "", 308),
                Err(LayerError::Scheme { .. })
            ));
        }
        for host in ["a b", "http://a", "a/b", "user@a", "a:0", "a:b", ":80"] {
            let error = new("", host, 308);
            assert!(matches!(error, Err(LayerError::Host { .. })), "{host}");
        }
        for status in [200, 300, 304, 309] {
            let error = new("https", "", status);
            assert!(matches!(error, Err(LayerError::Status { .. })), "{status}");
        }
        for host in ["a.example", "a.example:8443", "[::1]:80", "10.0.0.1"] {
            assert_eq!(new("https", host, 301), Ok(()), "{host}");
        }
    }
}
