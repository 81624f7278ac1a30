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

/// In which the server says whose fault a failure is.
const REASON: HeaderName = HeaderName::from_static("adit-reason");

/// What a small answer may have at most.
const SMALL: usize = 64 * 1024;

/// Where visitors go.
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

    /// The same place under the name of the tunnel that speaks HTTP/2 to the service.
    pub(super) fn over_h2c(&self) -> Self {
        self.under(&format!("{TUNNEL_H2C}.localhost"))
    }

    /// The same place under another name.
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

    /// A connection that speaks HTTP/1.1.
    pub(super) async fn http1(&self) -> Result<Visitor, String> {
        let (send, connection) = http1::handshake(self.dial().await?)
            .await
            .map_err(|error| told(&error))?;
        Ok(Visitor {
            site: self.clone(),
            send: Send::Http1(send),
            _connection: AbortOnDropHandle::new(tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "demo: a connection of the visitor broke off");
                }
            })),
        })
    }

    /// A connection that speaks HTTP/2 from its first byte.
    pub(super) async fn http2(&self) -> Result<Visitor, String> {
        let (send, connection) = http2::handshake(TokioExecutor::new(), self.dial().await?)
            .await
            .map_err(|error| told(&error))?;
        Ok(Visitor {
            site: self.clone(),
            send: Send::Http2(send),
            _connection: AbortOnDropHandle::new(tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "demo: a connection of the visitor broke off");
                }
            })),
        })
    }
}

/// One connection. Answers whose body is still to be read end with it.
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
    /// Asks, and waits for the head of the answer.
    pub(super) async fn ask(
        &mut self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, String> {
        let answer = match &mut self.send {
            Send::Http1(send) => {
                let host = HeaderValue::from_str(&self.site.host);
                let host = host.map_err(|error| error.to_string())?;
                request.headers_mut().insert(HOST, host);
                send.ready().await.map_err(|error| told(&error))?;
                send.send_request(request).await
            }
            Send::Http2(send) => {
                let uri = format!("http://{}{}", self.site.host, request.uri());
                *request.uri_mut() = uri
                    .parse::<Uri>()
                    .map_err(|error| format!("`{uri}`: {error}"))?;
                send.ready().await.map_err(|error| told(&error))?;
                send.send_request(request).await
            }
        };
        answer.map_err(|error| told(&error))
    }

    /// Asks for a page.
    pub(super) async fn visit(&mut self, path: &str) -> Result<Response<Incoming>, String> {
        self.ask(request(Method::GET, path, Body::empty())?).await
    }

    /// Asks for a page that has to be there, and reads it.
    pub(super) async fn text(&mut self, path: &str) -> Result<String, String> {
        text(found(self.visit(path).await?)?).await
    }
}

/// A request; the host comes from the visitor.
pub(super) fn request(method: Method, path: &str, body: Body) -> Result<Request<Body>, String> {
    let request = Request::builder().method(method).uri(path).body(body);
    request.map_err(|error| format!("`{path}`: {error}"))
}

/// The answer, if it says 200.
pub(super) fn found(answer: Response<Incoming>) -> Result<Response<Incoming>, String> {
    if answer.status() == StatusCode::OK {
        return Ok(answer);
    }
    Err(match reason(&answer) {
        Some(reason) => format!("answered {} (adit-reason: {reason})", answer.status()),
        None => format!("answered {}", answer.status()),
    })
}

/// What the server says it was.
pub(super) fn reason(answer: &Response<Incoming>) -> Option<&str> {
    answer.headers().get(REASON)?.to_str().ok()
}

/// A small answer as text.
pub(super) async fn text(answer: Response<Incoming>) -> Result<String, String> {
    let body = http_body_util::Limited::new(answer.into_body(), SMALL);
    let body = body.collect().await.map_err(|error| told(&*error))?;
    String::from_utf8(body.to_bytes().to_vec()).map_err(|_| "the answer is no text".into())
}

/// Length and checksum of an answer.
pub(super) async fn digest(answer: Response<Incoming>) -> Result<Digest, String> {
    let mut body = answer.into_body();
    let mut digest = Digest::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            format!(
                "broke off after {} bytes: {}",
                digest.length(),
                told(&error)
            )
        })?;
        if let Some(data) = frame.data_ref() {
            digest.update(data);
        }
    }
    Ok(digest)
}

/// An error with its causes.
pub(super) fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
