//! The server's end of a tunnel connection.

use std::{convert::Infallible, future::Future, io, pin::pin, sync::Arc};

use adit_net::Stream;
use adit_proto::{LANE_METADATA, PROXY_PATH, SESSION_METADATA};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use hyper::{body::Incoming, server::conn::http2, service::Service};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tonic::codegen::Service as _;

use super::{
    abort::Abort,
    allowance::Allowed,
    body::{GrpcReader, TunnelBody},
    http2::{CONNECTION_WINDOW_BYTES, KEEPALIVE, MAX_FRAME_BYTES, STREAM_WINDOW_BYTES, prepare},
    methods::Methods,
    status::status_of,
};
use crate::{
    boxed::BoxFuture,
    control::{AcceptLane, AcceptedLane, ClientConnection, LaneRequest, Refusal, RefusalReason},
    drive::drive,
};

/// Concurrent streams on one connection: a data stream, a control stream, a call or two, and streams that are being
/// reopened.
const MAX_STREAMS: u32 = 8;

/// Headers of a call: a path, a session, and those that libraries add.
const MAX_HEADER_LIST_BYTES: u32 = 8 * 1024;

/// Serves the methods of one connection: `Proxy` itself, the others by [`Methods`].
pub struct Endpoint {
    methods: Methods,
    lanes: Arc<dyn AcceptLane>,
    connection: ClientConnection,
    abort: Abort,
}

impl Endpoint {
    /// An endpoint for one connection. An accepted data stream lifts its allowance.
    pub fn new(methods: Methods, lanes: Arc<dyn AcceptLane>, connection: ClientConnection) -> Self {
        Self {
            methods,
            lanes,
            connection,
            abort: Abort::default(),
        }
    }
}

type EndpointFuture = BoxFuture<'static, Result<Response<TunnelBody>, Infallible>>;

impl Service<Request<Incoming>> for Endpoint {
    type Response = Response<TunnelBody>;
    type Error = Infallible;
    type Future = EndpointFuture;

    fn call(&self, mut request: Request<Incoming>) -> EndpointFuture {
        if request.uri().path() == PROXY_PATH {
            let response = self.proxy(request);
            return Box::pin(async move { Ok(response) });
        }
        request.extensions_mut().insert(self.connection.clone());
        let mut methods = self.methods.clone();
        Box::pin(async move {
            let response = methods.call(request.map(tonic::body::Body::new)).await?;
            Ok(response.map(TunnelBody::generated))
        })
    }
}

impl Endpoint {
    fn proxy(&self, request: Request<Incoming>) -> Response<TunnelBody> {
        let channel = self.connection.channel;
        let accepted = lane_request(request.headers())
            .and_then(|request| self.lanes.accept_lane(request, channel));
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(refusal) => return status_of(refusal).into_http().map(TunnelBody::generated),
        };
        let AcceptedLane {
            lane,
            on_end,
            guard,
        } = accepted;
        self.connection.allowance.lift();
        let abort = self.abort.clone();
        let body = TunnelBody::lane(lane.outbound(), true);
        let source = GrpcReader::new(request.into_body());
        tokio::spawn(async move {
            let failure = drive(&lane, source).await;
            if lane.is_silent() {
                abort.abort();
            }
            on_end(&failure, lane.received_bytes());
            drop(guard);
        });
        let mut response = Response::new(body);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
    }
}

/// The lane that the headers of a `Proxy` call name (P-1.5).
fn lane_request(headers: &HeaderMap) -> Result<LaneRequest<'_>, Refusal> {
    let session = headers.get(SESSION_METADATA);
    let session = session.and_then(|session| std::str::from_utf8(session.as_bytes()).ok());
    let lane = match headers.get(LANE_METADATA) {
        None => Some(0),
        Some(number) => number.to_str().ok().and_then(|number| number.parse().ok()),
    };
    Ok(LaneRequest {
        session: session.unwrap_or_default(),
        lane: lane
            .ok_or_else(|| Refusal::new(RefusalReason::BadRequest, "adit-lane is not a number"))?,
    })
}

/// Serves one connection until it ends. When `drain` completes, no new streams are accepted and the connection ends
/// with its last one.
///
/// # Errors
/// Returns the errors of the connection.
pub fn serve_connection<'a>(
    stream: impl Into<Stream>,
    endpoint: Endpoint,
    drain: impl Future<Output = ()> + Send + 'a,
) -> BoxFuture<'a, io::Result<()>> {
    serve(stream.into(), endpoint, Box::pin(drain))
}

fn serve(
    stream: Stream,
    endpoint: Endpoint,
    mut drain: BoxFuture<'_, ()>,
) -> BoxFuture<'_, io::Result<()>> {
    Box::pin(async move {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_frame_size(MAX_FRAME_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(usize::try_from(MAX_FRAME_BYTES).unwrap_or(usize::MAX))
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE);
        let abort = endpoint.abort.clone();
        prepare(&stream);
        let stream = Allowed::new(stream, endpoint.connection.allowance.clone(), abort.clone());
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), endpoint));
        let silent = || io::Error::other("the client is silent");
        tokio::select! {
            result = connection.as_mut() => return result.map_err(io::Error::other),
            () = abort.aborted() => return Err(silent()),
            () = drain.as_mut() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            result = connection => result.map_err(io::Error::other),
            () = abort.aborted() => Err(silent()),
        }
    })
}
