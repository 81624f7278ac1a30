//! A visitor of the public port.

use std::{error::Error, net::SocketAddr};

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{HOST, HeaderName},
};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::{
    body::Body,
    pattern::Digest,
    tunnels::{TUNNEL, TUNNEL_H2C},
};

/// The header with the reason code of a failure.
const REASON: HeaderName = HeaderName::from_static("adit-reason");

/// The bound of a small response, in bytes.
const SMALL: usize = 64 * 1024;

/// An address and a host.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) addr: SocketAddr,
    host: String,
}

impl Site {
    pub(super) fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            host: format!("{TUNNEL}.localhost"),
        }
    }

    /// This address with the host of the tunnel whose service is reached over HTTP/2.
    pub(super) fn over_h2c(&self) -> Self {
        self.under(&format!("{TUNNEL_H2C}.localhost"))
    }

    /// This address with another host.
    pub(super) fn under(&self, host: &str) -> Self {
        Self {
            addr: self.addr,
            host: host.to_owned(),
        }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    async fn dial(&self) -> Result<TokioIo<TcpStream>, String> {
        let stream = TcpStream::connect(self.addr)
            .await
            .map_err(|error| format!("cannot connect to {}: {error}", self.addr))?;
        stream
            .set_nodelay(true)
            .map_err(|error| format!("TCP_NODELAY: {error}"))?;
        Ok(TokioIo::new(stream))
    }

    /// A connection of HTTP/1.1.
    pub(super) async fn http1(&self) -> Result<Visitor, String> {
        let (send, connection) = http1::handshake(self.dial().await?)
            .await
            .map_err(|error| with_causes(&error))?;
        Ok(Visitor {
            site: self.clone(),
            send: Send::Http1(send),
            _connection: AbortOnDropHandle::new(tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "demo: a connection of the visitor ended");
                }
            })),
        })
    }

    /// A connection of HTTP/2 with prior knowledge.
    pub(super) async fn http2(&self) -> Result<Visitor, String> {
        let (send, connection) = http2::handshake(TokioExecutor::new(), self.dial().await?)
            .await
            .map_err(|error| with_causes(&error))?;
        Ok(Visitor {
            site: self.clone(),
            send: Send::Http2(send),
            _connection: AbortOnDropHandle::new(tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "demo: a connection of the visitor ended");
                }
            })),
        })
    }
}

/// A connection of a visitor. Dropping it also ends the responses whose bodies have not been read.
#[derive(Debug)]
pub(super) struct Visitor {
    site: Site,
    send: Send,
    _connection: AbortOnDropHandle<()>,
}

#[derive(Debug)]
enum Send {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Visitor {
    /// Sends a request and waits for the head of the response.
    pub(super) async fn send(
        &mut self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, String> {
        let response = match &mut self.send {
            Send::Http1(send) => {
                let host = HeaderValue::from_str(&self.site.host);
                let host = host.map_err(|error| error.to_string())?;
                request.headers_mut().insert(HOST, host);
                send.ready().await.map_err(|error| with_causes(&error))?;
                send.send_request(request).await
            }
            Send::Http2(send) => {
                let uri = format!("http://{}{}", self.site.host, request.uri());
                *request.uri_mut() = uri
                    .parse::<Uri>()
                    .map_err(|error| format!("`{uri}`: {error}"))?;
                send.ready().await.map_err(|error| with_causes(&error))?;
                send.send_request(request).await
            }
        };
        response.map_err(|error| with_causes(&error))
    }

    /// Requests a page.
    pub(super) async fn visit(&mut self, path: &str) -> Result<Response<Incoming>, String> {
        self.send(request(Method::GET, path, Body::empty())?).await
    }

    /// Requests a page that must exist, and reads it.
    pub(super) async fn text(&mut self, path: &str) -> Result<String, String> {
        text(found(self.visit(path).await?)?).await
    }
}

/// A request without a host, which the visitor adds.
pub(super) fn request(method: Method, path: &str, body: Body) -> Result<Request<Body>, String> {
    let request = Request::builder().method(method).uri(path).body(body);
    request.map_err(|error| format!("`{path}`: {error}"))
}

/// The response, if its status is 200.
pub(super) fn found(response: Response<Incoming>) -> Result<Response<Incoming>, String> {
    if response.status() == StatusCode::OK {
        return Ok(response);
    }
    Err(match reason(&response) {
        Some(reason) => format!("status {} (adit-reason: {reason})", response.status()),
        None => format!("status {}", response.status()),
    })
}

/// The reason code of a response.
pub(super) fn reason(response: &Response<Incoming>) -> Option<&str> {
    response.headers().get(REASON)?.to_str().ok()
}

/// A small response as text.
pub(super) async fn text(response: Response<Incoming>) -> Result<String, String> {
    let body = http_body_util::Limited::new(response.into_body(), SMALL);
    let body = body.collect().await.map_err(|error| with_causes(&*error))?;
    String::from_utf8(body.to_bytes().to_vec()).map_err(|_| "the response is not UTF-8".into())
}

/// Length and checksum of a response.
pub(super) async fn digest(response: Response<Incoming>) -> Result<Digest, String> {
    let mut body = response.into_body();
    let mut digest = Digest::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            format!(
                "aborted after {} bytes: {}",
                digest.length(),
                with_causes(&error)
            )
        })?;
        if let Some(data) = frame.data_ref() {
            digest.update(data);
        }
    }
    Ok(digest)
}

/// An error with its causes.
pub(super) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
