//! TCP: a public port for each tunnel, an exchange for each connection (section 10 of the protocol).
//!
//! A connection is admitted and routed by its local port. Its exchange is opened with the bytes that the visitor has
//! sent by then, and the two are spliced until both directions have ended. A failure of one hop resets the other; a
//! visitor without a service is reset as well (P-10.3, P-10.4), because TCP has no error response.
//!
//! One future for each connection, no task; a waiting connection holds no buffer.

mod stats;

use adit_net::Stream;
use std::{
    fmt,
    future::poll_fn,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Instant,
};

use adit_auth::Grant;
use adit_codec::{EncodedHead, Pool, ProtocolType, ResetCode, TcpOpenHead};
use adit_flow::MESSAGE_COST;
use adit_link::{BoxFuture, Failure, Reason, Retry};
use adit_splice::tcp::{BufferPools, Progress, Socket, Splice, SpliceError, is_transient};
use adit_trace::Phase;
use bytes::Bytes;

pub use self::stats::SessionStats;
use self::stats::{Counters, Gateway};
use crate::{
    config::TcpConfig,
    forward::{
        admission::Admission,
        demand::Demand,
        director::{Destination, Direction, Director},
        layer::{Held, Layers},
        limits::{Limits, admit_session, limit_exchange, wait_for_head},
        phases::Phases,
        receive::of_peer,
        record::Outcome,
        request_head::open_session,
        retry::{Attempts, forward_with_retries},
        session::{DELIVERY_AFTER_DEPARTURE, Session},
        session_record::SessionRecord,
    },
};

/// Size of the buffer for the first read, and while few bytes arrive.
const SMALL_BUFFER_BYTES: usize = 16 * 1024;
/// Unused buffers kept of each size: more than one turn of a thread reads into.
const MAX_FREE_BUFFERS: usize = 64;

/// The entry for TCP visitors.
pub struct Tcp {
    config: TcpConfig,
    admission: Arc<Admission>,
    counters: Arc<Counters>,
    buffers: BufferPools,
}

impl Tcp {
    /// An entry whose connections pass `admission`.
    pub fn new(config: TcpConfig, admission: Arc<Admission>) -> Arc<Self> {
        Self::counting(config, admission, Arc::default())
    }

    /// An entry with another configuration and the same counters. Connections of this one keep its configuration.
    pub fn reconfigured(&self, config: TcpConfig, admission: Arc<Admission>) -> Arc<Self> {
        Self::counting(config, admission, self.counters.clone())
    }

    fn counting(
        config: TcpConfig,
        admission: Arc<Admission>,
        counters: Arc<Counters>,
    ) -> Arc<Self> {
        let large = config.read_buffer_bytes.max(1);
        let small = large.min(SMALL_BUFFER_BYTES);
        Arc::new(Self {
            config,
            admission,
            counters,
            buffers: BufferPools {
                small: Pool::new(small, MAX_FREE_BUFFERS),
                large: Pool::new(large, MAX_FREE_BUFFERS),
            },
        })
    }

    /// Counters and gauges.
    pub fn stats(&self) -> SessionStats {
        self.counters.stats()
    }

    /// Serves one connection, whose local address is `local`, to its end.
    ///
    /// # Cancel safety
    /// Dropping it resets both hops.
    pub fn serve(
        self: Arc<Self>,
        stream: impl Into<Stream>,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> BoxFuture<'static, ()> {
        self.serve_stream(stream.into(), peer, local, None)
    }

    /// [`Tcp::serve`] for a connection over TLS that is passed through: the host that its visitor asks for selects the tunnel
    /// (P-14.8), which has the name `tunnel` now.
    ///
    /// # Cancel safety
    /// As [`Tcp::serve`].
    pub fn serve_host(
        self: Arc<Self>,
        stream: Stream,
        peer: SocketAddr,
        local: SocketAddr,
        (host, tunnel): (&str, Arc<str>),
    ) -> BoxFuture<'static, ()> {
        self.serve_stream(stream, peer, local, Some((host.into(), tunnel)))
    }

    fn serve_stream(
        self: Arc<Self>,
        stream: Stream,
        peer: SocketAddr,
        local: SocketAddr,
        asked_for: Option<(Box<str>, Arc<str>)>,
    ) -> BoxFuture<'static, ()> {
        let (host, gateway) = match asked_for {
            Some((host, tunnel)) => (Some(host), Gateway::Tls(tunnel)),
            None => (None, Gateway::Port(local.port())),
        };
        Box::pin(async move {
            let socket = Socket::new(stream);
            let mut connection = Connection {
                tcp: &self,
                socket: &socket,
                record: self.begin_record(peer, local, host),
                holds: Vec::new(),
                first: None,
                is_untouched: false,
                is_aborted: false,
            };
            let opened = self.counters.open(&self.config, peer.ip(), gateway);
            let _open = match opened {
                Ok(open) => open,
                Err(many) => {
                    tracing::debug!(%peer, "connection refused: {many}");
                    let many = Failure::new(Reason::Limit, many);
                    // `connections_refused` counts this connection.
                    connection.record.finish(Outcome::Failed(&many));
                    return;
                }
            };
            if let Some(silence) = self.config.keepalive {
                socket.set_keepalive(silence);
            }
            let forwarded = connection.forward().await;
            match &forwarded {
                Ok(()) => connection.finish(Outcome::Completed),
                Err(failure) => {
                    connection.finish(Outcome::Failed(failure));
                }
            }
            let is_aborted = connection.is_aborted;
            drop(connection);
            if forwarded.is_ok() {
                socket.close();
            } else if is_aborted {
                socket.reset_after_delivery(self.config.stall).await;
            }
        })
    }

    /// The record of a connection that has just been accepted.
    fn begin_record(
        &self,
        peer: SocketAddr,
        local: SocketAddr,
        host: Option<Box<str>>,
    ) -> SessionRecord {
        let accepted = Instant::now();
        let mut session = Session::new(ProtocolType::Tcp, peer, local, accepted);
        session.host = host;
        let mut record = SessionRecord::new(session, self.admission.observer());
        record.phases.add(Phase::Accept, accepted);
        record
    }
}

impl fmt::Debug for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tcp")
            .field("config", &self.config)
            .field("admission", &self.admission)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// A visitor's connection and its record.
struct Connection<'t> {
    tcp: &'t Tcp,
    socket: &'t Socket,
    record: SessionRecord,
    /// Values that are held until the end, on any client.
    holds: Vec<Held>,
    /// The bytes that are sent with the head, once they have been read: the same for each attempt.
    first: Option<Bytes>,
    /// The last attempt has sent nothing but `first`, and was not accepted: another may follow.
    is_untouched: bool,
    /// The visitor must receive all that was written before it is reset.
    is_aborted: bool,
}

impl Connection<'_> {
    /// Passes the connection through the layers, and forwards it to a client, or to another one if that is allowed,
    /// until it ends.
    async fn forward(&mut self) -> Result<(), Failure> {
        let admission = &self.tcp.admission;
        self.record.phases.begin(Phase::Queue);
        let layers = admission.layers();
        let before = Layers::default();
        let passing = layers.pass_session(&before, &self.record.session, &mut self.holds);
        while_alive(self.socket, passing).await??;
        self.record.phases.end(Phase::Queue);
        forward_with_retries(admission.director(), self).await
    }

    /// Called when the connection is over: counts its failure, and emits its record.
    fn finish(&mut self, outcome: Outcome<'_>) {
        if let Some(reason) = self.record.finish(outcome) {
            self.tcp.counters.count_failure(reason);
        }
    }

    /// Reads the bytes that have arrived by now: they are sent with the head (P-10.1), and are kept for another
    /// attempt. It does not wait for more, because the service may send first. An end of the stream is read again
    /// later.
    async fn read_first(&mut self, window: u32) -> Result<Bytes, Failure> {
        let socket = self.socket;
        let readable = || poll_fn(|cx| Poll::Ready(socket.poll_readable(cx).is_ready()));
        if !readable().await {
            // The runtime polls a new socket between two turns of the thread.
            tokio::task::yield_now().await;
            if !readable().await {
                return Ok(Bytes::new());
            }
        }
        // This is at most half of the window, so that the visitor need not wait for credit before the service is
        // connected.
        let credit = u64::from(window / 2).min(u64::from(window).saturating_sub(MESSAGE_COST));
        let credit = usize::try_from(credit).unwrap_or(0);
        let mut buffer = self.tcp.buffers.small.take();
        let room = buffer.unfilled();
        let limit = self.tcp.config.first_bytes.min(credit).min(room.len());
        if limit == 0 {
            return Ok(Bytes::new());
        }
        match socket.try_read(&mut room[..limit]) {
            Ok(count) => {
                self.on_moved(Progress {
                    read: count as u64,
                    ..Progress::default()
                });
                Ok(Bytes::copy_from_slice(&room[..count]))
            }
            Err(error) if is_transient(&error) => Ok(Bytes::new()),
            Err(error) => Err(left(error)),
        }
    }

    /// One attempt on one client, to the end of the connection.
    async fn try_client(&mut self, destination: Destination, first: &[u8]) -> Result<(), Failure> {
        self.is_untouched = true;
        let demand = Demand::of(&self.holds, destination.permit.as_ref());
        let socket = self.socket;
        let config = &self.tcp.config;
        let grace = config.shortage_grace;
        let head = self.head(&destination, first)?;
        let Destination {
            lane,
            grant,
            hold,
            permit,
            compression,
            limits,
            ..
        } = destination;
        if let Some(limits) = &limits {
            while_alive(socket, wait_for_head(&**limits, first.len())).await?;
        }
        self.record.on_route(grant, lane.mux().side());
        let due = Instant::now() + config.accept_timeout;
        let mut exchange = lane.open(head, false, Some(due))?;
        if let Some(limits) = &limits {
            limit_exchange(&mut exchange, &**limits, first.len());
        }
        self.record.phases.watch(&exchange);
        exchange.hold((hold, permit));
        exchange.set_stall(config.stall);
        exchange.send.set_compression(compression);

        let buffers = &self.tcp.buffers;
        let mut splice = Splice::new(
            socket,
            exchange,
            buffers,
            Bytes::new(),
            DELIVERY_AFTER_DEPARTURE,
        );
        let has_moved = AtomicBool::new(!first.is_empty());
        let moved = |moved: Progress| {
            if moved.read + moved.written > 0 {
                has_moved.store(true, Ordering::Relaxed);
            }
            self.on_moved(moved);
        };
        let ended = tokio::select! {
            biased;
            ended = splice.run(moved) => Some(ended),
            () = demand.arises(grace, &has_moved) => None,
        };
        self.is_untouched = false;
        let broken = match ended {
            Some(Ok(())) => return Ok(()),
            Some(Err(broken)) => broken,
            None => {
                let failure = Failure::new(
                    Reason::Stalled,
                    "no bytes in either direction while other requests wait for its permit",
                );
                if let Some(send) = splice.into_send() {
                    send.reset(ResetCode::Stalled, &failure.detail);
                }
                return Err(failure);
            }
        };
        match broken {
            SpliceError::Socket(error) => {
                if let Some(send) = splice.into_send() {
                    send.abort(ResetCode::Cancelled, "the visitor left");
                }
                Err(left(error))
            }
            SpliceError::Exchange(failure) => {
                self.is_aborted = splice.is_aborted();
                // Only bytes that are kept have been sent, and the client has not accepted the connection.
                self.is_untouched = !splice.is_accepted() && !splice.has_sent();
                Err(of_peer(failure))
            }
        }
    }

    /// The opening message of an attempt.
    fn head(&mut self, destination: &Destination, first: &[u8]) -> Result<EncodedHead, Failure> {
        let context = self
            .record
            .begin_attempt()
            .map(|context| context.to_string());
        let session = &self.record.session;
        let open = open_session(session, destination, context.as_deref().unwrap_or_default());
        let head = TcpOpenHead {
            open: &open,
            local: &session.local.to_string(),
        };
        let head = head.encode(first);
        head.map_err(|error| Failure::new(Reason::Internal, error.to_string()))
    }

    fn on_moved(&mut self, moved: Progress) {
        let counters = &self.tcp.counters;
        let record = &mut self.record;
        if moved.accepted {
            record.on_accepted();
        }
        record.received_bytes += moved.read;
        if moved.written > 0 {
            record.on_sent(moved.written);
        }
        counters
            .received_bytes
            .fetch_add(moved.read, Ordering::Relaxed);
        counters
            .sent_bytes
            .fetch_add(moved.written, Ordering::Relaxed);
    }
}

impl Attempts for Connection<'_> {
    type Done = ();
    type Rejected = Failure;

    fn direct(&self, director: &dyn Director, avoid: &[u64]) -> Direction {
        director.direct_session(&self.record.session, avoid)
    }

    async fn wait(
        &mut self,
        routing: BoxFuture<'static, Result<Destination, Failure>>,
    ) -> Result<Result<Destination, Failure>, Failure> {
        while_alive(self.socket, routing).await
    }

    async fn pass_layers(&mut self, layers: &Layers) -> Result<(), Failure> {
        let before = self.tcp.admission.layers();
        let passing = layers.pass_session(&before, &self.record.session, &mut self.holds);
        while_alive(self.socket, passing).await?
    }

    async fn pass_limits(
        &mut self,
        limits: Arc<dyn Limits>,
        is_retry: bool,
        _: u32,
    ) -> Result<(), Failure> {
        let held = admit_session(&*limits, ProtocolType::Tcp, is_retry)?;
        self.holds.push(held);
        Ok(())
    }

    async fn attempt(&mut self, destination: Destination) -> Result<(), Failure> {
        let first = match &self.first {
            Some(first) => first.clone(),
            None => {
                let window = destination.lane.initial_window();
                let read = self.read_first(window).await?;
                self.first.insert(read).clone()
            }
        };
        self.try_client(destination, &first).await
    }

    fn may_repeat(&self, failure: &Failure) -> bool {
        self.is_untouched && failure.retry() == Retry::Always
    }

    fn last_attempt_was_on(&self, grant: &Grant) -> bool {
        self.record.last_attempt_was_on(grant)
    }

    fn on_retry(&mut self) {
        self.tcp.counters.retries.fetch_add(1, Ordering::Relaxed);
        self.record.retries += 1;
    }

    fn phases(&mut self) -> &mut Phases {
        &mut self.record.phases
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        // This has an effect only for a connection whose future was dropped early. Every other path has finished the
        // record.
        self.finish(Outcome::Cancelled);
    }
}

/// Waits for `work`, unless the visitor leaves before. A visitor that has only shut its direction has not left.
async fn while_alive<T>(socket: &Socket, work: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        error = socket.failure() => Err(left(error)),
    }
}

/// The failure of the visitor's connection.
// The error is passed by value, because `map_err` passes it by value.
#[allow(clippy::needless_pass_by_value)]
fn left(error: std::io::Error) -> Failure {
    Failure::new(Reason::Cancelled, format!("the visitor left: {error}"))
}
