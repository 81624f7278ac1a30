//! A visitor that implements HTTP properly.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header::HOST};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};

use crate::{Body, empty, full, within};

/// The time limit of a response: none that a test waits for takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A complete response.
#[derive(Debug, Clone)]
pub struct FullResponse {
    /// The status code.
    pub status: StatusCode,
    /// The version of the protocol.
    pub version: Version,
    /// The header lines.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The trailers.
    pub trailers: Option<HeaderMap>,
}

impl FullResponse {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a header line; empty when it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }

    /// The reason of a failure; empty for a response of the service.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.header("adit-reason")
    }
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// A connection to a server's public port, which is closed when this is dropped.
pub struct Visitor {
    sender: Sender,
    host: String,
    connection: JoinHandle<()>,
}

impl std::fmt::Debug for Visitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Visitor")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Visitor {
    /// Connects over HTTP/1.1.
    ///
    /// # Panics
    /// Panics when the connection is refused.
    pub async fn http1(addr: SocketAddr, host: &str) -> Self {
        let stream = TcpStream::connect(addr).await.expect("a connection");
        Self::http1_on(stream, host).await
    }

    /// Connects over HTTP/1.1, from an address of this machine.
    ///
    /// # Panics
    /// Panics when the connection is refused, or the address does not belong to this machine.
    pub async fn http1_from(source: IpAddr, addr: SocketAddr, host: &str) -> Self {
        Self::http1_on(connect_from(source, addr).await, host).await
    }

    async fn http1_on(stream: TcpStream, host: &str) -> Self {
        stream.set_nodelay(true).expect("a socket option");
        Self::http1_over(stream, host).await
    }

    /// Uses HTTP/1.1 on a connection, such as one over TLS.
    ///
    /// # Panics
    /// Panics when the connection ends.
    pub async fn http1_over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        host: &str,
    ) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .expect("a connection");
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self {
            sender: Sender::Http1(sender),
            host: host.to_owned(),
            connection,
        }
    }

    /// Connects over HTTP/2 in clear text, with windows of 64 KiB for each stream, and a sufficient window for the
    /// connection.
    ///
    /// # Panics
    /// Panics when the connection is refused.
    pub async fn http2(addr: SocketAddr, host: &str) -> Self {
        Self::http2_on(TcpStream::connect(addr).await.expect("a connection"), host).await
    }

    /// Connects over HTTP/2, from an address of this machine.
    ///
    /// # Panics
    /// Panics when the connection is refused, or the address does not belong to this machine.
    pub async fn http2_from(source: IpAddr, addr: SocketAddr, host: &str) -> Self {
        Self::http2_on(connect_from(source, addr).await, host).await
    }

    async fn http2_on(stream: TcpStream, host: &str) -> Self {
        stream.set_nodelay(true).expect("a socket option");
        Self::http2_over(stream, host).await
    }

    /// Uses HTTP/2 on a connection, such as one over TLS.
    ///
    /// # Panics
    /// Panics when the connection ends.
    pub async fn http2_over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        host: &str,
    ) -> Self {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(16 << 20)
            .handshake(TokioIo::new(stream))
            .await
            .expect("a connection");
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self {
            sender: Sender::Http2(sender),
            host: host.to_owned(),
            connection,
        }
    }

    /// A request for this connection's host.
    ///
    /// # Panics
    /// Panics when the path is invalid.
    #[must_use]
    pub fn request(&self, method: &Method, path: &str, body: Body) -> Request<Body> {
        let builder = Request::builder().method(method.clone());
        let builder = match self.sender {
            Sender::Http1(_) => builder.uri(path).header(HOST, &self.host),
            Sender::Http2(_) => builder.uri(format!("http://{}{path}", self.host)),
        };
        builder.body(body).expect("a request")
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// The connection has ended before the head arrived.
    pub async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// Another visitor on the same HTTP/2 connection; it must not outlive this one.
    ///
    /// # Panics
    /// Panics over HTTP/1.1.
    #[must_use]
    pub fn share(&self) -> Self {
        match &self.sender {
            Sender::Http2(sender) => Self {
                sender: Sender::Http2(sender.clone()),
                host: self.host.clone(),
                connection: tokio::spawn(async {}),
            },
            Sender::Http1(_) => panic!("HTTP/1.1 carries one request at a time"),
        }
    }

    /// Sends a request and reads the complete response.
    ///
    /// # Errors
    /// The connection has ended before the response was complete.
    pub async fn whole(&mut self, request: Request<Body>) -> hyper::Result<FullResponse> {
        full_response(self.send(request).await?).await
    }

    /// Sends a GET request and reads the response.
    ///
    /// # Panics
    /// Panics when the connection ends before the response does, or the response does not arrive.
    pub async fn get(&mut self, path: &str) -> FullResponse {
        let request = self.request(&Method::GET, path, empty());
        let response = within(path, PATIENCE, self.whole(request)).await;
        response.expect("a response")
    }

    /// Sends a POST request and reads the response.
    ///
    /// # Panics
    /// Panics when the connection ends before the response does, or the response does not arrive.
    pub async fn post(&mut self, path: &str, body: Body) -> FullResponse {
        let request = self.request(&Method::POST, path, body);
        let response = within(path, PATIENCE, self.whole(request)).await;
        response.expect("a response")
    }
}

/// Connects from an address of this machine, of IPv4.
///
/// # Panics
/// Panics when the connection is refused, or the address does not belong to this machine.
pub async fn connect_from(source: IpAddr, addr: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("an address of ours");
    socket.connect(addr).await.expect("a connection")
}

/// Reads a response to its end.
///
/// # Errors
/// The response was aborted.
pub async fn full_response(response: Response<Incoming>) -> hyper::Result<FullResponse> {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    Ok(FullResponse {
        status: parts.status,
        version: parts.version,
        headers: parts.headers,
        body: collected.to_bytes(),
        trailers,
    })
}

/// Sends a GET request on a connection of its own.
///
/// # Panics
/// Panics when the connection ends before the response does.
pub async fn get(addr: SocketAddr, host: &str, path: &str) -> FullResponse {
    Visitor::http1(addr, host).await.get(path).await
}

/// Sends a POST request on a connection of its own.
///
/// # Panics
/// Panics when the connection ends before the response does.
pub async fn post(
    addr: SocketAddr,
    host: &str,
    path: &str,
    body: impl Into<Bytes>,
) -> FullResponse {
    let mut visitor = Visitor::http1(addr, host).await;
    visitor.post(path, full(body)).await
}
