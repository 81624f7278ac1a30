//! Serves the connections of the HTTP entry: one at a time, from its first byte to its end.

use std::{
    fmt::Display,
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    call,
    connection::Connection,
    http::Http,
    http2,
    inbound::Inbound,
    sniff::{Speaks, sniff},
    socket::VisitorSocket,
    stats::Counters,
    visit::Scheme,
    websocket,
};

/// How often a connection that drains is looked at: twice without a request, and it is closed.
const DRAIN_LOOK: Duration = Duration::from_millis(250);

impl Http {
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
        let release = self.config.release_timeout;
        match speaks {
            Speaks::Http1 => {
                let service = service_fn(|request: hyper::Request<_>| {
                    let request = request.map(Inbound::Http1);
                    call::serve(self.clone(), connection.clone(), request, None)
                });
                let io = TokioIo::new(socket);
                let serving = self.http1.serve_connection(io, service).with_upgrades();
                let stop =
                    |serving: Pin<&mut _>| http1::UpgradeableConnection::graceful_shutdown(serving);
                drive(serving, stop, connection, release).await;
            }
            Speaks::Http2 => {
                let serving = http2::Serving::new(socket, self.clone(), connection.clone());
                let stop = |serving: Pin<&mut _>| http2::Serving::graceful_shutdown(serving);
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

/// Drives a connection to its end; `stop` has it take no more requests. One that does not end by itself when it has
/// been idle, or holds on to what has failed, is ended `release` after it has been told. When it drains, it is ended as soon
/// as it runs no request: whether a head ever comes to its end, or a ping is answered, is up to the visitor.
async fn drive<C: Future<Output = Result<(), E>>, E: Display>(
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
