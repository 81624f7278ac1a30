//! The HTTP entry: serves a connection from its first byte to its end.

use std::{
    fmt::{self, Display},
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use adit_codec::MAX_HEADER_LINES;
use adit_link::{BoxFuture, Failure};
use adit_net::{HostNetwork, HttpVersion, Stream};
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    accept::{http2, socket::VisitorSocket, tls_by_mistake, upgraded::AfterHttp1},
    config::HttpConfig,
    connection_shares::Counted,
    forward::{
        admission::Admission,
        connection::Connection,
        context::HttpContext,
        inbound::Inbound,
        response_body::ResponseBody,
        served_hosts::{Admitted, ServedHosts},
    },
    protocol::{http as http_protocol, served::Served},
    stats::{Counters, Stats},
};

/// The bound of the head of a request, and of the bytes that wait to be written.
const BUFFER_BYTES: usize = 64 * 1024;

/// How often a draining connection is checked: two checks in a row without a request close it.
const DRAIN_CHECK: Duration = Duration::from_millis(250);

/// The entry for visitors of HTTP/1.1 and HTTP/2, gRPC and WebSocket.
pub struct Http {
    context: Arc<HttpContext>,
    http1: http1::Builder,
}

impl Http {
    /// An entry whose requests pass `admission`.
    pub fn new(config: HttpConfig, admission: Arc<Admission>) -> Arc<Self> {
        Self::counting(config, admission, Arc::default())
    }

    /// An entry with another configuration and the same counters. Connections of this one keep its configuration.
    pub fn reconfigured(&self, config: HttpConfig, admission: Arc<Admission>) -> Arc<Self> {
        Self::counting(config, admission, self.context.counters.clone())
    }

    fn counting(
        config: HttpConfig,
        admission: Arc<Admission>,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        let mut http1 = http1::Builder::new();
        http1
            // P-3.8: also for responses of services that do not send a date.
            .auto_date_header(true)
            .max_headers(MAX_HEADER_LINES)
            // The socket has the timeout of heads: it can distinguish an idle connection from a slow one.
            .header_read_timeout(None)
            .half_close(true)
            .max_buf_size(BUFFER_BYTES);
        Arc::new(Self {
            context: Arc::new(HttpContext::new(config, admission, counters)),
            http1,
        })
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        self.context.counters.stats()
    }

    /// Serves one connection to its end. When `drain` is ready, no further requests are accepted; open ones finish.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection and cancels its requests.
    pub fn serve(
        self: Arc<Self>,
        stream: impl Into<Stream>,
        peer: SocketAddr,
        drain: impl Future<Output = ()> + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        self.serve_stream(stream.into(), peer, Admitted::All, Box::pin(drain))
    }

    /// [`Http::serve`] for requests to these hosts; others get 421.
    ///
    /// # Cancel safety
    /// As [`Http::serve`].
    pub fn serve_hosts(
        self: Arc<Self>,
        stream: Stream,
        peer: SocketAddr,
        hosts: Arc<dyn ServedHosts>,
        drain: impl Future<Output = ()> + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        self.serve_stream(stream, peer, Admitted::Hosts(hosts), Box::pin(drain))
    }

    /// Responds with 400 to a visitor that speaks HTTP in clear text on a port for TLS.
    ///
    /// # Cancel safety
    /// As [`Http::serve`].
    pub fn refuse_clear_text(
        self: Arc<Self>,
        stream: Stream,
        peer: SocketAddr,
        drain: impl Future<Output = ()> + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        self.serve_stream(stream, peer, Admitted::None, Box::pin(drain))
    }

    fn serve_stream(
        self: Arc<Self>,
        mut stream: Stream,
        peer: SocketAddr,
        admitted: Admitted,
        mut drain: BoxFuture<'static, ()>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let config = &self.context.config;
            let Some(_open) = OpenConnection::new(&self.context, peer) else {
                tracing::debug!(%peer, "connection refused: too many are open, in all or of its address");
                return;
            };
            let version = tokio::select! {
                biased;
                version = timeout(config.head_timeout, HttpVersion::detect(&mut stream)) => version,
                () = drain.as_mut() => return,
            };
            let Ok(Ok(Some(version))) = version else {
                return;
            };
            let local_port = stream.local_addr().map_or(0, |local| local.port());
            let connection = Connection::new(peer, local_port, stream.scheme());
            let connection = Arc::new(connection.admitting(admitted));
            if tls_by_mistake::is_tls(stream.read_ahead()) {
                tls_by_mistake::report(&self.context, &connection);
                return;
            }
            let drain = async {
                drain.await;
                connection.drain();
            };
            let served = self.serve_version(stream, version, &connection);
            // `served` itself waits for `Connection::draining`.
            let mut served = pin!(served);
            tokio::select! {
                biased;
                () = served.as_mut() => return,
                () = drain => {}
            }
            served.await;
        })
    }

    async fn serve_version(
        &self,
        stream: Stream,
        version: HttpVersion,
        connection: &Arc<Connection>,
    ) {
        let context = &self.context;
        let socket = VisitorSocket::new(stream, version, connection.clone(), context.clone());
        let release = context.config.release_timeout;
        match version {
            HttpVersion::Http1 => {
                let after = AfterHttp1::default();
                let service =
                    service_fn(|request| serve_http1(context, connection, &after, request));
                let io = TokioIo::new(socket);
                let serving = self.http1.serve_connection(io, service).with_upgrades();
                let stop =
                    |serving: Pin<&mut _>| http1::UpgradeableConnection::graceful_shutdown(serving);
                drive(serving, stop, connection, release).await;
                after.run(&context.config).await;
            }
            HttpVersion::Http2 => {
                let serving = http2::Serving::new(socket, context.clone(), connection.clone());
                let stop = |serving: Pin<&mut _>| http2::Serving::graceful_shutdown(serving);
                // Boxed: unboxed, it would enlarge the future of every connection.
                Box::pin(drive(serving, stop, connection, release)).await;
            }
        }
    }
}

/// Serves one request of HTTP/1. A session takes the connection over when hyper has sent the response.
async fn serve_http1(
    context: &Arc<HttpContext>,
    connection: &Arc<Connection>,
    after: &AfterHttp1,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Failure> {
    // This is for any protocol that the request offers: hyper releases such a connection in the same way.
    if let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() {
        after.set_upgrade(upgrade);
    }
    let request = request.map(Inbound::Http1);
    match http_protocol::serve(context.clone(), connection.clone(), request, None).await? {
        Served::Response(response) => Ok(response),
        Served::Session(head, session) => {
            after.set_session(session);
            Ok(head.map(|()| ResponseBody::empty()))
        }
    }
}

/// Drives a connection to its end; `stop` makes it accept no more requests. A connection that has been idle, or holds
/// responses of failed exchanges, and does not end by itself is ended `release` after it has been stopped. A draining
/// connection is ended as soon as it has no open request: the visitor might never complete a head, or reply to a ping.
async fn drive<C: Future<Output = Result<(), E>>, E: Display>(
    serving: C,
    stop: impl Fn(Pin<&mut C>),
    connection: &Connection,
    release: Duration,
) {
    let mut serving = pin!(serving);
    let mut draining = pin!(connection.draining());
    let mut stuck = pin!(connection.stuck_responses().persist(release));
    let (mut is_draining, mut is_stuck) = (false, false);
    let mut end_at = None;
    let mut drain_check = None;
    let mut was_unused = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = serving.as_mut() => break ended,
            () = draining.as_mut(), if !is_draining => {
                is_draining = true;
                stop(serving.as_mut());
                drain_check = Some(Instant::now() + DRAIN_CHECK);
            }
            () = sleep_until(drain_check.unwrap_or_else(Instant::now)), if drain_check.is_some() => {
                let is_unused = connection.is_unused();
                if is_unused && was_unused {
                    return;
                }
                was_unused = is_unused;
                drain_check = Some(Instant::now() + DRAIN_CHECK);
            }
            // This happens only with HTTP/2: GOAWAY reports which requests were accepted.
            () = connection.idle.notified() => {
                stop(serving.as_mut());
                end_at.get_or_insert_with(|| Instant::now() + release);
            }
            () = stuck.as_mut(), if !is_stuck => {
                is_stuck = true;
                stop(serving.as_mut());
                end_at.get_or_insert_with(|| Instant::now() + release);
            }
            () = sleep_until(end_at.unwrap_or_else(Instant::now)), if end_at.is_some() => {
                let is_idle = connection.open.load(Ordering::Relaxed) == 0;
                if is_idle || !connection.stuck_responses().is_empty() {
                    tracing::debug!(
                        peer = connection.visitor.as_str(),
                        "connection ended: the visitor did not close it within release_timeout"
                    );
                    return;
                }
                // The connection accepts no more requests, and the open ones may finish.
                end_at = None;
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = connection.visitor.as_str(), %error, "connection ended");
    }
}

/// Counts a connection while it is open (P-14.11).
struct OpenConnection<'a> {
    counters: &'a Counters,
    /// `None` for a trusted proxy.
    of_address: Option<Counted<'a, HostNetwork>>,
}

impl<'a> OpenConnection<'a> {
    fn new(context: &'a HttpContext, peer: SocketAddr) -> Option<Self> {
        let (counters, config) = (&context.counters, &context.config);
        counters.connections.fetch_add(1, Ordering::Relaxed);
        let open = counters.connections_open.fetch_add(1, Ordering::Relaxed);
        let mut counted = Self {
            counters,
            of_address: None,
        };
        if open < config.max_connections {
            let max = config.max_connections_per_address;
            let shares = &counters.connections_by_address;
            if let Ok(of_address) = shares.enter_from(peer.ip(), max, &config.trusted_proxies) {
                counted.of_address = of_address;
                return Some(counted);
            }
        }
        counters.connections_refused.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.counters
            .connections_open
            .fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}
