//! The address of a set of keys.

use std::{fmt, str::FromStr};

use adit_net::HostPort;
use http::Uri;
use thiserror::Error;

/// The address of a set of keys: `https`, or `http` on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksUrl {
    is_https: bool,
    authority: String,
    address: HostPort,
    path: String,
}

/// Why a text is not the address of a set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum JwksUrlError {
    /// The text is not a URL with a host.
    #[error("invalid URL, expected one such as https://issuer.example/.well-known/jwks.json")]
    Form,
    /// Keys would come over the network in clear text.
    #[error(
        "keys are read over https only, and over http from this machine: a response that is changed on its way could make forged tokens valid"
    )]
    ClearText,
    /// The URL has a user name or a password.
    #[error("a URL with a user name or a password is not supported")]
    UserInfo,
}

impl JwksUrl {
    pub(crate) const fn is_https(&self) -> bool {
        self.is_https
    }

    pub(crate) const fn address(&self) -> &HostPort {
        &self.address
    }

    /// Host and port as in the URL, for the header `host`.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Path and query.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for JwksUrl {
    type Err = JwksUrlError;

    fn from_str(text: &str) -> Result<Self, JwksUrlError> {
        let uri: Uri = text.parse().map_err(|_| JwksUrlError::Form)?;
        let authority = uri.authority().ok_or(JwksUrlError::Form)?;
        if authority.as_str().contains('@') {
            return Err(JwksUrlError::UserInfo);
        }
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(JwksUrlError::Form),
        };
        let usual = if is_https { 443 } else { 80 };
        let address = HostPort::new(authority.host(), authority.port_u16().unwrap_or(usual));
        if address.host().is_empty() {
            return Err(JwksUrlError::Form);
        }
        if !is_https && !address.is_loopback() {
            return Err(JwksUrlError::ClearText);
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            is_https,
            authority: authority.as_str().to_owned(),
            address,
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_text_is_for_this_machine_only() {
        for good in [
            "https://issuer.example/keys",
            "https://issuer.example:8443/a/b?c=d",
            "https://[2001:db8::1]/",
            "http://127.0.0.1:9000/keys",
            "http://localhost/keys",
            "http://[::1]:80/keys",
        ] {
            assert_eq!(good.parse::<JwksUrl>().unwrap().to_string(), good);
        }
        for (bad, problem) in [
            ("http://issuer.example/keys", JwksUrlError::ClearText),
            ("http://127.0.0.1.example/keys", JwksUrlError::ClearText),
            ("https://ann:secret@issuer.example/", JwksUrlError::UserInfo),
            ("ftp://issuer.example/keys", JwksUrlError::Form),
            ("/keys", JwksUrlError::Form),
            ("issuer.example", JwksUrlError::Form),
            ("", JwksUrlError::Form),
        ] {
            assert_eq!(bad.parse::<JwksUrl>(), Err(problem), "{bad}");
        }
    }

    #[test]
    fn a_port_is_that_of_the_scheme() {
        let port = |text: &str| text.parse::<JwksUrl>().unwrap().address().port();
        assert_eq!(port("https://issuer.example"), 443);
        assert_eq!(port("http://localhost"), 80);
        assert_eq!(port("http://localhost:81"), 81);
    }
}
