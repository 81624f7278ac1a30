//! Connections to a server through an outbound proxy: HTTP CONNECT (RFC 9110, 9.3.6) or SOCKS5 (RFC 1928, RFC 1929).
//!
//! The proxy resolves the name of the server: a machine behind a proxy often cannot.

use std::{fmt, future::poll_fn, io, str::FromStr};

use adit_net::{HostPort, Stream};
use http::{Uri, uri::Authority};
use httparse::{EMPTY_HEADER, Response, Status};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_socks::tcp::Socks5Stream;

/// The bounds of a proxy's response to CONNECT.
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADER_LINES: usize = 64;

/// An outbound proxy. Its `Debug` and `Display` are without the password.
#[derive(Clone)]
pub struct Proxy {
    kind: Kind,
    addr: HostPort,
    credentials: Option<Credentials>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Socks5,
}

#[derive(Clone)]
struct Credentials {
    user: String,
    password: SecretString,
}

/// A text that is not the URL of a proxy. It does not contain the text, which may have a password.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProxyUrlError {
    /// The text is not a URL.
    #[error(
        "expected the URL of a proxy, such as `http://proxy.example:3128` or `socks5://proxy.example:1080`"
    )]
    Form,
    /// The proxy has another protocol.
    #[error("expected a proxy with `http://` or `socks5://`, found `{0}://`")]
    Scheme(String),
    /// User or password cannot be sent.
    #[error(
        "expected `USER:PASSWORD@` before the host, each of at most 255 bytes of UTF-8, encoded with `%` where needed"
    )]
    Credentials,
}

/// Why a proxy has not connected to the server.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// There is no connection to the proxy.
    #[error("cannot reach the proxy {proxy}: {error}")]
    Unreachable {
        /// The proxy.
        proxy: Proxy,
        /// The error of the system.
        error: io::Error,
    },
    /// The proxy requires credentials, or other ones.
    #[error(
        "the proxy {proxy} {}: set `client.proxy` to a URL with `USER:PASSWORD@` before the host",
        if proxy.credentials.is_some() { "does not accept the credentials" } else { "requires credentials" }
    )]
    Credentials {
        /// The proxy.
        proxy: Proxy,
    },
    /// The proxy has responded with another status than 200.
    #[error("the proxy {proxy} does not connect to {server}: HTTP status {status}")]
    Status {
        /// The proxy.
        proxy: Proxy,
        /// The server.
        server: HostPort,
        /// The status of the response.
        status: u16,
    },
    /// The peer does not respond as a proxy does.
    #[error("{proxy} does not respond as an HTTP proxy: is it one of `socks5://`?")]
    NotHttp {
        /// The proxy.
        proxy: Proxy,
    },
    /// The SOCKS proxy has refused, or does not speak the protocol.
    #[error("the proxy {proxy} does not connect to {server}: {error}")]
    Socks {
        /// The proxy.
        proxy: Proxy,
        /// The server.
        server: HostPort,
        /// The error of the protocol.
        error: tokio_socks::Error,
    },
    /// The connection to the proxy has failed before the proxy has responded.
    #[error("the proxy {proxy} has closed the connection: {error}")]
    Closed {
        /// The proxy.
        proxy: Proxy,
        /// The error of the connection.
        error: io::Error,
    },
}

impl Proxy {
    /// Connects to `server` through the proxy. Bytes that the server sends first are not lost.
    ///
    /// # Errors
    /// [`ProxyError`].
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub async fn connect(&self, server: &HostPort) -> Result<Stream, ProxyError> {
        let proxy = || self.clone();
        let stream = adit_net::connect(&self.addr).await;
        let stream = stream.map_err(|error| ProxyError::Unreachable {
            proxy: proxy(),
            error,
        })?;
        match self.kind {
            Kind::Http => self.connect_http(stream, server).await,
            Kind::Socks5 => self.connect_socks(stream, server).await,
        }
    }

    async fn connect_http(
        &self,
        mut stream: Stream,
        server: &HostPort,
    ) -> Result<Stream, ProxyError> {
        let closed = |error| ProxyError::Closed {
            proxy: self.clone(),
            error,
        };
        let mut request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
        if let Some(credentials) = &self.credentials {
            request += "Proxy-Authorization: Basic ";
            request += &credentials.basic();
            request += "\r\n";
        }
        request += "\r\n";
        stream.write_all(request.as_bytes()).await.map_err(closed)?;
        stream.flush().await.map_err(closed)?;
        let (length, status) = loop {
            let read = poll_fn(|cx| stream.poll_read_ahead(cx))
                .await
                .map_err(closed)?;
            match head_of(stream.read_ahead()) {
                Head::Complete { length, status } => break (length, status),
                Head::Partial if read > 0 => {}
                Head::Partial => return Err(closed(io::ErrorKind::UnexpectedEof.into())),
                Head::Invalid => {
                    return Err(ProxyError::NotHttp {
                        proxy: self.clone(),
                    });
                }
            }
        };
        match status {
            200..=299 => {}
            407 => {
                return Err(ProxyError::Credentials {
                    proxy: self.clone(),
                });
            }
            status => {
                return Err(ProxyError::Status {
                    proxy: self.clone(),
                    server: server.clone(),
                    status,
                });
            }
        }
        // What follows the head is from the server.
        let mut head = vec![0; length];
        stream.read_exact(&mut head).await.map_err(closed)?;
        Ok(stream)
    }

    async fn connect_socks(&self, stream: Stream, server: &HostPort) -> Result<Stream, ProxyError> {
        let target = (server.host(), server.port());
        let connected = match &self.credentials {
            Some(Credentials { user, password }) => {
                let password = password.expose_secret();
                Socks5Stream::connect_with_password_and_socket(stream, target, user, password).await
            }
            None => Socks5Stream::connect_with_socket(stream, target).await,
        };
        let connected = connected.map_err(|error| match error {
            tokio_socks::Error::PasswordAuthFailure(_)
            | tokio_socks::Error::NoAcceptableAuthMethods
            | tokio_socks::Error::AuthorizationRequired => ProxyError::Credentials {
                proxy: self.clone(),
            },
            tokio_socks::Error::Io(error) => ProxyError::Closed {
                proxy: self.clone(),
                error,
            },
            error => ProxyError::Socks {
                proxy: self.clone(),
                server: server.clone(),
                error,
            },
        })?;
        Ok(connected.into_inner())
    }
}

enum Head {
    Partial,
    Complete { length: usize, status: u16 },
    Invalid,
}

fn head_of(bytes: &[u8]) -> Head {
    let mut lines = [EMPTY_HEADER; MAX_HEADER_LINES];
    let mut response = Response::new(&mut lines);
    match response.parse(bytes) {
        Ok(Status::Complete(length)) => Head::Complete {
            length,
            status: response.code.unwrap_or_default(),
        },
        Ok(Status::Partial) if bytes.len() < MAX_HEAD_BYTES => Head::Partial,
        Ok(Status::Partial) | Err(_) => Head::Invalid,
    }
}

impl Credentials {
    /// The credentials of Basic authentication (RFC 7617).
    fn basic(&self) -> String {
        let text = format!("{}:{}", self.user, self.password.expose_secret());
        data_encoding::BASE64.encode(text.as_bytes())
    }

    /// `USER:PASSWORD` or `USER`, which is an empty password.
    fn parse(text: &str) -> Result<Self, ProxyUrlError> {
        let decode = |part: &str| -> Result<String, ProxyUrlError> {
            let part = percent_decode_str(part).decode_utf8();
            let part = part.map_err(|_| ProxyUrlError::Credentials)?;
            // The bound of SOCKS5 (RFC 1929, 2).
            let is_short = part.len() <= 255;
            is_short
                .then(|| part.into_owned())
                .ok_or(ProxyUrlError::Credentials)
        };
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        if user.is_empty() {
            return Err(ProxyUrlError::Credentials);
        }
        Ok(Self {
            user: decode(user)?,
            password: decode(password)?.into(),
        })
    }
}

impl FromStr for Proxy {
    type Err = ProxyUrlError;

    fn from_str(text: &str) -> Result<Self, ProxyUrlError> {
        let uri: Uri = text.trim().parse().map_err(|_| ProxyUrlError::Form)?;
        let (kind, default_port) = match uri.scheme_str() {
            Some("http") => (Kind::Http, 80),
            Some("socks5" | "socks5h") => (Kind::Socks5, 1080),
            Some(other) => return Err(ProxyUrlError::Scheme(other.to_owned())),
            None => return Err(ProxyUrlError::Form),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(ProxyUrlError::Form);
        }
        let authority = uri.authority().map(Authority::as_str).unwrap_or_default();
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (Some(Credentials::parse(credentials)?), address),
            None => (None, authority),
        };
        let (host, port) = HostPort::split(address).map_err(|_| ProxyUrlError::Form)?;
        if host.is_empty() {
            return Err(ProxyUrlError::Form);
        }
        Ok(Self {
            kind,
            addr: HostPort::new(host, port.unwrap_or(default_port)),
            credentials,
        })
    }
}

impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        let secret = |proxy: &Self| {
            let credentials = proxy.credentials.as_ref();
            credentials.map(|known| {
                (
                    known.user.clone(),
                    known.password.expose_secret().to_owned(),
                )
            })
        };
        (self.kind, &self.addr, secret(self)) == (other.kind, &other.addr, secret(other))
    }
}

impl Eq for Proxy {}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Http => "http://",
            Kind::Socks5 => "socks5://",
        })?;
        write!(f, "{}", self.addr)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Proxy, ProxyUrlError> {
        text.parse()
    }

    #[test]
    fn the_url_of_a_proxy_has_a_scheme_a_host_and_perhaps_credentials() {
        for (text, shown) in [
            ("http://proxy.example:3128", "http://proxy.example:3128"),
            ("http://proxy.example", "http://proxy.example:80"),
            ("http://192.0.2.1:8080/", "http://192.0.2.1:8080"),
            ("socks5://[2001:db8::1]", "socks5://[2001:db8::1]:1080"),
            ("socks5h://ann:secret@proxy:9", "socks5://proxy:9"),
        ] {
            let proxy = parse(text).unwrap();
            assert_eq!(proxy.to_string(), shown);
            assert!(!format!("{proxy:?}").contains("secret"));
        }
        assert_eq!(parse("http://ann@proxy"), parse("http://ann:@proxy"));
        let proxy = parse("http://a%40b:c%3Ad@proxy:1").unwrap();
        let credentials = proxy.credentials.as_ref().unwrap();
        assert_eq!(credentials.user, "a@b");
        assert_eq!(credentials.password.expose_secret(), "c:d");
        // RFC 7617, 2: the example of the RFC.
        let example = Credentials {
            user: "Aladdin".into(),
            password: "open sesame".into(),
        };
        assert_eq!(example.basic(), "QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn other_texts_are_refused_without_showing_them() {
        use ProxyUrlError::{Credentials, Form, Scheme};
        let long = format!("http://a:{}@proxy", "b".repeat(256));
        for (text, error) in [
            ("", Form),
            ("proxy:3128", Form),
            ("http://", Form),
            ("http://proxy/path", Form),
            ("http://proxy:3128?a=b", Form),
            ("https://proxy:3128", Scheme("https".into())),
            ("socks4://proxy:1", Scheme("socks4".into())),
            ("http://proxy:99999", Form),
            ("http://proxy:", Form),
            ("http://:secret@proxy", Credentials),
            ("http://a:%ff@proxy", Credentials),
            (&long, Credentials),
        ] {
            let refused = parse(text).unwrap_err();
            assert_eq!(refused, error, "{text}");
            assert!(!refused.to_string().contains("secret"));
        }
    }

    #[test]
    fn passwords_distinguish_proxies() {
        assert_eq!(parse("http://a:b@proxy"), parse("http://a:b@proxy:80"));
        assert_ne!(parse("http://a:b@proxy"), parse("http://a:c@proxy"));
        assert_ne!(parse("http://a:b@proxy"), parse("http://proxy"));
        assert_ne!(parse("http://proxy:1"), parse("socks5://proxy:1"));
    }
}
