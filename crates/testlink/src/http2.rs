//! Visitors of HTTP/2 with a library's client.

use bytes::Bytes;
use hyper::{body::Body, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::within;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The preface of a connection and its empty settings.
pub const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// hyper's client. The windows of its streams are small, so that one can stall without its connection.
pub async fn connect<B>(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> SendRequest<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(64 * 1024);
    builder.initial_connection_window_size(16 << 20);
    let (send, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    send
}

/// h2's client, frame by frame. Streams have windows of `window` bytes until the client enlarges them.
pub async fn frames(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    window: u32,
) -> h2::client::SendRequest<Bytes> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window);
    builder.initial_connection_window_size(16 << 20);
    let (send, connection) = within(builder.handshake(stream)).await.unwrap();
    tokio::spawn(connection);
    within(send.ready()).await.unwrap()
}
