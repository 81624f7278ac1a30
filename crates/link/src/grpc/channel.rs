//! The client's end of a tunnel connection.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use adit_proto::{LANE_METADATA, PROXY_PATH, SESSION_METADATA};
use http::{HeaderValue, Request, Response, Uri, header::CONTENT_TYPE, uri::PathAndQuery};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::TcpStream;
use tonic::Status;

use super::{
    body::{GrpcReader, TunnelBody},
    greeting::{Greeting, Heard, Listening},
    http2::{
        CONNECTION_WINDOW_BYTES, KEEPALIVE, MAX_FRAME_BYTES, STREAM_WINDOW_BYTES, TURN_BYTES,
        buffered,
    },
};
use crate::{PacedStream, lane::Lane};

/// The connection is over.
#[derive(Debug, Error)]
#[error("the connection to the server was lost: {0}")]
pub struct ChannelClosed(#[from] hyper::Error);

/// One connection to the server. Cheap to clone; a generated client can be built on it.
#[derive(Clone)]
pub struct Channel {
    send: SendRequest<TunnelBody>,
    origin: Uri,
    heard: Heard,
}

/// Sets up HTTP/2 on a connected socket. The second value runs the connection and must be polled, usually as a task;
/// it ends when the connection does.
///
/// # Errors
/// [`ChannelClosed`] when the handshake fails.
pub async fn connect(
    stream: TcpStream,
    origin: Uri,
) -> Result<
    (
        Channel,
        impl Future<Output = Result<(), hyper::Error>> + Send,
    ),
    ChannelClosed,
> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_frame_size(MAX_FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(usize::try_from(MAX_FRAME_BYTES).unwrap_or(usize::MAX))
        .max_header_list_size(16 * 1024)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    let heard = Heard::default();
    let stream = Listening::new(stream, heard.clone());
    let stream = PacedStream::of_server(stream, TURN_BYTES);
    let (send, connection) = builder.handshake(TokioIo::new(buffered(stream))).await?;
    let channel = Channel {
        send,
        origin,
        heard,
    };
    Ok((channel, connection))
}

impl Channel {
    /// Scheme and authority of the server, for generated clients.
    pub const fn origin(&self) -> &Uri {
        &self.origin
    }

    /// What answers at the other end, when it does not speak HTTP/2.
    pub fn greeting(&self) -> Option<&Greeting> {
        self.heard.greeting()
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.send.is_closed()
    }
}

impl tower::Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = ChannelClosed;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, ChannelClosed>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelClosed>> {
        self.send.poll_ready(cx).map_err(ChannelClosed)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let response = self.send.send_request(request.map(TunnelBody::generated));
        Box::pin(async move { Ok(response.await?) })
    }
}

/// Opens the data stream of `lane`, which is number `index` of `session`. What it returns is for
/// [`crate::drive`].
///
/// # Errors
/// The status with which the server refused, or `UNAVAILABLE` when the connection was lost.
#[allow(clippy::result_large_err)] // tonic's own type, on a path that runs once per stream
pub async fn open_lane(
    channel: &mut Channel,
    lane: &Arc<Lane>,
    session: &str,
    index: u32,
) -> Result<GrpcReader, Status> {
    let mut parts = channel.origin.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static(PROXY_PATH));
    let uri = Uri::from_parts(parts).map_err(|error| Status::internal(error.to_string()))?;
    let request = Request::post(uri)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header("te", HeaderValue::from_static("trailers"))
        .header(SESSION_METADATA, session)
        .header(LANE_METADATA, index)
        .body(TunnelBody::lane(lane.outbound(), false))
        .map_err(|error| Status::internal(error.to_string()))?;
    let lost = |error: hyper::Error| Status::unavailable(error.to_string());
    channel.send.ready().await.map_err(lost)?;
    let response = channel.send.send_request(request).await.map_err(lost)?;
    if let Some(status) = Status::from_header_map(response.headers()) {
        return Err(status);
    }
    if response.status() != http::StatusCode::OK {
        return Err(Status::unavailable(format!(
            "the server answered the data stream with HTTP status {}",
            response.status()
        )));
    }
    Ok(GrpcReader::new(response.into_body()))
}
