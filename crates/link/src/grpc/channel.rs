//! The client's end of a tunnel connection.

use std::{
    future::Future,
    task::{Context, Poll},
};

use adit_net::{Stream, Tapped};
use http::{Request, Response, Uri};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use thiserror::Error;

use super::{
    body::TunnelBody,
    greeting::{DetectedPeer, Greeting, GreetingTap},
    http2::{
        CONNECTION_WINDOW_BYTES, KEEPALIVE, MAX_FRAME_BYTES, STREAM_WINDOW_BYTES, TURN_BYTES,
        buffered, prepare,
    },
};
use crate::{FramePacer, boxed::BoxFuture};

/// The connection has ended.
#[derive(Debug, Error)]
#[error("the connection to the server was lost: {0}")]
pub struct ChannelClosed(#[from] hyper::Error);

/// A connection to the server. Cheap to clone; a generated client can use it.
#[derive(Clone)]
pub struct GrpcChannel {
    send: SendRequest<TunnelBody>,
    origin: Uri,
    detected: DetectedPeer,
}

/// Sets up HTTP/2 on a connected stream. The second value runs the connection and must be polled, usually as a task;
/// it ends when the connection does.
///
/// # Errors
/// [`ChannelClosed`] when the handshake fails.
pub async fn connect(
    stream: impl Into<Stream>,
    origin: Uri,
) -> Result<
    (
        GrpcChannel,
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
    let detected = DetectedPeer::default();
    let stream = stream.into();
    prepare(&stream);
    let stream = Tapped::new(stream, GreetingTap::new(detected.clone()));
    let stream = Tapped::new(stream, FramePacer::of_server(TURN_BYTES));
    let (send, connection) = builder.handshake(TokioIo::new(buffered(stream))).await?;
    let channel = GrpcChannel {
        send,
        origin,
        detected,
    };
    Ok((channel, connection))
}

impl GrpcChannel {
    /// Scheme and authority of the server, for generated clients.
    pub const fn origin(&self) -> &Uri {
        &self.origin
    }

    /// The protocol of the peer, if it does not use HTTP/2.
    pub fn greeting(&self) -> Option<&Greeting> {
        self.detected.greeting()
    }

    /// Sends one request of a lane.
    pub(super) async fn send(
        &self,
        request: Request<TunnelBody>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let mut send = self.send.clone();
        send.ready().await?;
        send.send_request(request).await
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.send.is_closed()
    }
}

impl tower::Service<Request<tonic::body::Body>> for GrpcChannel {
    type Response = Response<Incoming>;
    type Error = ChannelClosed;
    type Future = BoxFuture<'static, Result<Response<Incoming>, ChannelClosed>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ChannelClosed>> {
        self.send.poll_ready(cx).map_err(ChannelClosed)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let response = self.send.send_request(request.map(TunnelBody::generated));
        Box::pin(async move { Ok(response.await?) })
    }
}
