//! The server's end of a tunnel connection.

use std::{
    any::Any,
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use adit_proto::PROXY_PATH;
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use hyper::{body::Incoming, server::conn::http2, service::Service};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tonic::Status;

use super::{
    allowance::{Allowance, Allowed, UNAUTHENTICATED_BYTES},
    body::{GrpcReader, TunnelBody},
    http2::{CONNECTION_WINDOW_BYTES, KEEPALIVE, MAX_FRAME_BYTES, STREAM_WINDOW_BYTES},
    resettable::{Abort, Resettable},
};
use crate::{drive::drive, failure::Failure, lane::Lane};

/// Streams at a time on one connection: a data stream, a control stream, a call or two, and those that are opened anew.
const MAX_STREAMS: u32 = 8;

/// Headers of a call: a path, a session, and what libraries add.
const MAX_HEADER_LIST_BYTES: u32 = 8 * 1024;

/// One connection of a client. Calls find it in their extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChannelId(u64);

impl ChannelId {
    /// One that no other connection of this process has.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The number, for logs.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// Receives the reason for which a data stream ended, and the bytes received by then.
pub type OnEnd = Box<dyn FnOnce(&Failure, u64) + Send>;

/// A lane that a data stream was admitted to.
pub struct AcceptedLane {
    /// The lane.
    pub lane: Arc<Lane>,
    /// Called at the end of the data stream.
    pub on_end: OnEnd,
    /// Dropped when the lane is over.
    pub guard: Box<dyn Any + Send>,
}

/// Admits data streams.
pub trait AcceptLane: Send + Sync + 'static {
    /// The lane for a stream with this call metadata.
    ///
    /// # Errors
    /// The status that the caller gets.
    #[allow(clippy::result_large_err)] // tonic's own type, on a path that runs once per stream
    fn accept_lane(&self, metadata: &HeaderMap, channel: ChannelId)
    -> Result<AcceptedLane, Status>;
}

/// The methods of one connection: `Proxy` here, the rest in the generated service `G`.
pub struct Endpoint<G, A> {
    generated: G,
    lanes: Arc<A>,
    channel: ChannelId,
    peer: SocketAddr,
    allowance: Allowance,
    abort: Abort,
}

impl<G, A> Endpoint<G, A> {
    /// For one connection.
    pub fn new(generated: G, lanes: Arc<A>, channel: ChannelId, peer: SocketAddr) -> Self {
        Self {
            generated,
            lanes,
            channel,
            peer,
            allowance: Allowance::new(UNAUTHENTICATED_BYTES),
            abort: Abort::default(),
        }
    }

    /// What the connection may send until it carries a session. A data stream that is admitted lifts it; the generated
    /// service finds it in the extensions of its calls.
    pub const fn allowance(&self) -> &Allowance {
        &self.allowance
    }
}

type EndpointFuture =
    Pin<Box<dyn Future<Output = Result<Response<TunnelBody>, Infallible>> + Send>>;

impl<G, A> Service<Request<Incoming>> for Endpoint<G, A>
where
    G: tower::Service<
            Request<tonic::body::Body>,
            Response = Response<tonic::body::Body>,
            Error = Infallible,
        > + Clone
        + Send
        + 'static,
    G::Future: Send,
    A: AcceptLane,
{
    type Response = Response<TunnelBody>;
    type Error = Infallible;
    type Future = EndpointFuture;

    fn call(&self, mut request: Request<Incoming>) -> EndpointFuture {
        if request.uri().path() == PROXY_PATH {
            let response = self.proxy(request);
            return Box::pin(async move { Ok(response) });
        }
        request.extensions_mut().insert(self.channel);
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(self.allowance.clone());
        let mut generated = self.generated.clone();
        Box::pin(async move {
            let response = generated.call(request.map(tonic::body::Body::new)).await?;
            Ok(response.map(TunnelBody::generated))
        })
    }
}

impl<G, A: AcceptLane> Endpoint<G, A> {
    fn proxy(&self, request: Request<Incoming>) -> Response<TunnelBody> {
        let accepted = match self.lanes.accept_lane(request.headers(), self.channel) {
            Ok(accepted) => accepted,
            Err(status) => return status.into_http().map(TunnelBody::generated),
        };
        let AcceptedLane {
            lane,
            on_end,
            guard,
        } = accepted;
        self.allowance.lift();
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

/// Serves one connection until it ends. When `drain` completes, no new streams are taken and the connection ends with
/// its last one.
///
/// # Errors
/// Those of the connection.
pub async fn serve_connection<G, A>(
    stream: TcpStream,
    endpoint: Endpoint<G, A>,
    drain: impl Future<Output = ()>,
) -> io::Result<()>
where
    Endpoint<G, A>: Service<
            Request<Incoming>,
            Response = Response<TunnelBody>,
            Error = Infallible,
            Future = EndpointFuture,
        >,
{
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
    let stream = Resettable::new(stream, abort.clone());
    let stream = Allowed::new(stream, endpoint.allowance.clone());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), endpoint));
    let mut drain = pin!(drain);
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
}
