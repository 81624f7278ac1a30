//! The HTTP entry: one connection at a time.

use std::{
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use adit_codec::MAX_HEADER_LINES;
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    admission::Admission,
    call,
    config::HttpConfig,
    connection::Connection,
    sniff::{Speaks, sniff},
    socket::VisitorSocket,
    stats::{Counters, Stats},
    upgrade,
    visit::Scheme,
    websocket,
};

/// Bounds the head of a request, and what waits to be written.
const BUFFER_BYTES: usize = 64 * 1024;

/// Header lines of a visitor of HTTP/2, by the count of RFC 9113, 6.5.2: more than cross (P-2.10), so that a request with
/// too many gets an answer that names its size. h2 refuses what is above without a reason.
const MAX_HEADER_LIST_BYTES: u32 = 128 * 1024;

/// Credit of one upload on an HTTP/2 connection.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// Pings that keep middle boxes from forgetting an HTTP/2 connection, and find visitors that are gone.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How often a connection that drains is looked at: twice without a request, and it is closed.
const DRAIN_LOOK: Duration = Duration::from_millis(250);

/// Takes HTTP visitors in.
pub struct Http {
    pub(crate) config: HttpConfig,
    pub(crate) admission: Arc<Admission>,
    pub(crate) counters: Counters,
    pub(crate) websockets: adit_splice::websocket::Buffers,
    pub(crate) upgraded: adit_splice::tcp::Buffers,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

impl Http {
    /// An entry whose requests pass `admission`.
    pub fn new(config: HttpConfig, admission: Arc<Admission>) -> Arc<Self> {
        let mut http1 = http1::Builder::new();
        http1
            // P-3.8: also to answers of services that have none.
            .auto_date_header(true)
            .max_headers(MAX_HEADER_LINES)
            // The socket times heads, and knows a connection that is idle from one that is slow.
            .header_read_timeout(None)
            .half_close(true)
            .max_buf_size(BUFFER_BYTES);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .auto_date_header(true)
            .timer(TokioTimer::new())
            .max_concurrent_streams(config.max_streams)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            // All uploads together: one that stalls must not take the others' credit.
            .initial_connection_window_size(STREAM_WINDOW_BYTES.saturating_mul(config.max_streams))
            .max_send_buf_size(BUFFER_BYTES)
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            // For WebSockets (RFC 8441, 3); other protocols are refused.
            .enable_connect_protocol()
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE);
        Arc::new(Self {
            config,
            admission,
            counters: Counters::default(),
            websockets: adit_splice::websocket::Buffers::default(),
            upgraded: upgrade::buffers(),
            http1,
            http2,
        })
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        self.counters.stats()
    }

    /// Serves one connection to its end. When `drain` is ready, it takes no further requests; those that run finish.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection and cancels its requests.
    pub async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        drain: impl Future<Output = ()>,
    ) {
        let Some(_open) = OpenConnection::new(&self) else {
            tracing::debug!(%peer, "connection refused: too many are open");
            return;
        };
        let mut drain = pin!(drain);
        let speaks = tokio::select! {
            biased;
            speaks = timeout(self.config.head_timeout, sniff(&stream)) => speaks,
            () = drain.as_mut() => return,
        };
        let Ok(Ok(Some(speaks))) = speaks else {
            return;
        };
        let local_port = stream.local_addr().map_or(0, |local| local.port());
        let connection = Arc::new(Connection::new(peer, local_port, Scheme::Http));
        let drain = async {
            drain.await;
            connection.drain();
        };
        let served = self.serve_on(stream, speaks, &connection);
        // The drain is heard of inside.
        let mut served = pin!(served);
        tokio::select! {
            biased;
            () = served.as_mut() => return,
            () = drain => {}
        }
        served.await;
    }

    /// Serves a connection, and what it turns into.
    async fn serve_on(
        self: &Arc<Self>,
        stream: TcpStream,
        speaks: Speaks,
        connection: &Arc<Connection>,
    ) {
        let after = websocket::on_end(connection);
        let socket = VisitorSocket::new(stream, speaks, connection.clone(), self.clone());
        let io = TokioIo::new(socket);
        let service = service_fn(|request| call::serve(self.clone(), connection.clone(), request));
        let release = self.config.release_timeout;
        match speaks {
            Speaks::Http1 => {
                let serving = self.http1.serve_connection(io, service).with_upgrades();
                let stop =
                    |serving: Pin<&mut _>| http1::UpgradeableConnection::graceful_shutdown(serving);
                drive(serving, stop, connection, release).await;
            }
            Speaks::Http2 => {
                let serving = self.http2.serve_connection(io, service);
                let stop = |serving: Pin<&mut _>| http2::Connection::graceful_shutdown(serving);
                // The future of every connection is as large as the largest that is in it: this one is not most's.
                Box::pin(drive(serving, stop, connection, release)).await;
            }
        }
        let config = &self.config;
        after
            .run(config.session_stall, config.session_keepalive)
            .await;
    }
}

/// Drives hyper's connection to its end; `stop` has it take no more requests. One that does not end by itself when it has
/// been idle, or holds on to what has failed, is ended `release` after it has been told. When it drains, it is ended as soon
/// as it runs no request: whether a head ever comes to its end, or a ping is answered, is up to the visitor.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    serving: C,
    stop: impl Fn(Pin<&mut C>),
    connection: &Connection,
    release: Duration,
) {
    let mut serving = pin!(serving);
    let mut draining = pin!(connection.draining());
    let mut left_over = pin!(connection.left_over().lasts(release));
    let (mut is_draining, mut is_told) = (false, false);
    let mut end_at = None;
    let mut drain_look = None;
    let mut was_unused = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = serving.as_mut() => break ended,
            () = draining.as_mut(), if !is_draining => {
                is_draining = true;
                stop(serving.as_mut());
                drain_look = Some(Instant::now() + DRAIN_LOOK);
            }
            () = sleep_until(drain_look.unwrap_or_else(Instant::now)), if drain_look.is_some() => {
                let is_unused = connection.is_unused();
                if is_unused && was_unused {
                    return;
                }
                was_unused = is_unused;
                drain_look = Some(Instant::now() + DRAIN_LOOK);
            }
            // HTTP/1 just ends; here the visitor is told which of its requests were taken.
            () = connection.idle.notified() => {
                stop(serving.as_mut());
                end_at.get_or_insert_with(|| Instant::now() + release);
            }
            () = left_over.as_mut(), if !is_told => {
                is_told = true;
                stop(serving.as_mut());
                end_at.get_or_insert_with(|| Instant::now() + release);
            }
            () = sleep_until(end_at.unwrap_or_else(Instant::now)), if end_at.is_some() => {
                let is_idle = connection.open.load(Ordering::Relaxed) == 0;
                if is_idle || !connection.left_over().is_empty() {
                    tracing::debug!(peer = connection.visitor.as_str(), "connection ended: it did not let go");
                    return;
                }
                // It takes no more requests, and those that run may finish.
                end_at = None;
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = connection.visitor.as_str(), %error, "connection ended");
    }
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http")
            .field("config", &self.config)
            .field("admission", &self.admission)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Counts a connection as long as it is open.
struct OpenConnection<'a>(&'a Counters);

impl<'a> OpenConnection<'a> {
    fn new(http: &'a Http) -> Option<Self> {
        let counters = &http.counters;
        counters.connections.fetch_add(1, Ordering::Relaxed);
        let open = counters.connections_open.fetch_add(1, Ordering::Relaxed);
        let counted = Self(counters);
        if open >= http.config.max_connections {
            counters.connections_refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(counted)
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}
