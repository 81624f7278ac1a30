//! The HTTP entry: one connection at a time.

use std::{
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    call,
    config::HttpConfig,
    connection::Connection,
    director::Director,
    layer::Layer,
    sniff::{Speaks, sniff},
    socket::VisitorSocket,
    stats::{Counters, Stats},
    visit::Scheme,
};

/// Bounds the head of a request, and what waits to be written.
const BUFFER_BYTES: usize = 64 * 1024;

/// Credit of one upload on an HTTP/2 connection.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// Pings that keep middle boxes from forgetting an HTTP/2 connection, and find visitors that are gone.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Takes HTTP visitors in.
pub struct Http {
    pub(crate) config: HttpConfig,
    pub(crate) layers: Vec<Box<dyn Layer>>,
    pub(crate) director: Arc<dyn Director>,
    pub(crate) counters: Counters,
    http1: auto::Builder<TokioExecutor>,
    http2: auto::Builder<TokioExecutor>,
}

impl Http {
    /// An entry whose requests pass `layers` in this order and then go where `director` says.
    pub fn new(
        config: HttpConfig,
        layers: Vec<Box<dyn Layer>>,
        director: Arc<dyn Director>,
    ) -> Arc<Self> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .auto_date_header(false)
            // The socket times heads, and knows a connection that is idle from one that is slow.
            .header_read_timeout(None)
            .half_close(true)
            .max_buf_size(BUFFER_BYTES);
        builder
            .http2()
            .auto_date_header(false)
            .timer(TokioTimer::new())
            .max_concurrent_streams(config.max_streams)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            // All uploads together: one that stalls must not take the others' credit.
            .initial_connection_window_size(STREAM_WINDOW_BYTES.saturating_mul(config.max_streams))
            .max_send_buf_size(BUFFER_BYTES)
            .max_header_list_size(64 * 1024)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE);
        Arc::new(Self {
            config,
            layers,
            director,
            counters: Counters::default(),
            http1: builder.clone().http1_only(),
            http2: builder.http2_only(),
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
        let builder = match speaks {
            Speaks::Http1 => &self.http1,
            Speaks::Http2 => &self.http2,
        };
        let connection = Arc::new(Connection::new(peer, Scheme::Http));
        let socket = VisitorSocket::new(stream, speaks, connection.clone(), &self.config);
        let service = service_fn(|request| call::serve(self.clone(), connection.clone(), request));
        let mut serving = pin!(builder.serve_connection(TokioIo::new(socket), service));
        let mut draining = false;
        let ended = loop {
            tokio::select! {
                biased;
                ended = serving.as_mut() => break ended,
                () = drain.as_mut(), if !draining => {
                    draining = true;
                    serving.as_mut().graceful_shutdown();
                }
                // HTTP/1 just ends; here the visitor is told which of its requests were taken.
                () = connection.idle.notified() => serving.as_mut().graceful_shutdown(),
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, error, "connection ended");
        }
    }
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http")
            .field("config", &self.config)
            .field("layers", &self.layers.len())
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
