//! TCP: a public port for each tunnel, an exchange for each connection (section 10 of the protocol).
//!
//! A connection is admitted and routed by its local port, opened with the bytes that the visitor has sent by then, and
//! spliced with its exchange until both directions have ended. A failure of one hop resets the other; a visitor without a
//! service is reset as well (P-10.3, P-10.4), because TCP has no error response.
//!
//! One future for each connection, no task; a waiting connection holds no buffer.

mod stats;

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

use adit_codec::{EncodedHead, Pool, ProtocolType, ResetCode, TcpOpenHead};
use adit_flow::MESSAGE_COST;
use adit_link::{Failure, Reason, Retry};
use adit_splice::tcp::{BufferPools, Progress, Socket, Splice, SpliceError, is_transient};
use adit_trace::Phase;
use bytes::Bytes;
use tokio::net::TcpStream;

use self::stats::Counters;
pub use self::stats::SessionStats;
use crate::{
    config::TcpConfig,
    forward::{
        admission::Admission,
        demand::Demand,
        director::{Destination, failed_on},
        dispatch::may_wait,
        receive::of_peer,
        request_head::open_session,
        session::{DELIVERY_AFTER_DEPARTURE, Session},
        session_record::SessionRecord,
    },
};

/// Attempts on other clients after the first.
const MAX_RETRIES: usize = 2;
/// Size of the buffer for the first read, and while little arrives.
const SMALL_BUFFER_BYTES: usize = 16 * 1024;
/// Unused buffers kept of each size: more than one turn of a thread reads into.
const MAX_FREE_BUFFERS: usize = 64;

/// The entry for TCP visitors.
pub struct Tcp {
    config: TcpConfig,
    admission: Arc<Admission>,
    counters: Counters,
    buffers: BufferPools,
}

impl Tcp {
    /// An entry whose connections pass `admission`.
    pub fn new(config: TcpConfig, admission: Arc<Admission>) -> Arc<Self> {
        let large = config.read_buffer_bytes.max(1);
        let small = large.min(SMALL_BUFFER_BYTES);
        Arc::new(Self {
            config,
            admission,
            counters: Counters::default(),
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
    pub async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, local: SocketAddr) {
        let socket = Socket::new(stream);
        let Some(_open) = self.counters.open(self.config.max_connections) else {
            tracing::debug!(%peer, "connection refused: too many are open");
            let many = Failure::new(Reason::Limit, "too many connections are open");
            self.begin(peer, local).on_failure(&many);
            return;
        };
        if let Some(silence) = self.config.keepalive {
            socket.set_keepalive(silence);
        }
        let mut connection = Connection {
            tcp: &self,
            record: self.begin(peer, local),
            is_aborted: false,
        };
        match connection.carry(&socket).await {
            Ok(()) => {
                connection.record.on_end();
                socket.close();
                return;
            }
            Err(failure) => {
                tracing::debug!(
                    request_id = %connection.record.session.uuid,
                    reason = failure.reason.as_str(),
                    "{}",
                    failure.detail
                );
                connection.record.on_failure(&failure);
            }
        }
        if connection.is_aborted {
            drop(connection);
            socket.reset_after_delivery(self.config.stall).await;
        }
    }
}

impl Tcp {
    /// The record of a connection that has been accepted now.
    fn begin(&self, peer: SocketAddr, local: SocketAddr) -> SessionRecord {
        let accepted = Instant::now();
        let session = Session::new(ProtocolType::Tcp, peer, local, accepted);
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

/// One connection and its record.
struct Connection<'t> {
    tcp: &'t Tcp,
    record: SessionRecord,
    /// The visitor must receive all that was written before it is reset.
    is_aborted: bool,
}

/// The failure of one attempt.
struct Failed {
    failure: Failure,
    /// Only bytes that are kept have been sent, and the client has not accepted the connection.
    untouched: bool,
}

impl Connection<'_> {
    /// Passes a connection through the layers, forwards it to a client, and to another one if that is allowed, and carries
    /// it to its end.
    async fn carry(&mut self, socket: &Socket) -> Result<(), Failure> {
        let admission = &self.tcp.admission;
        self.record.phases.begin(Phase::Queue);
        // Held until the end, on any client.
        let admitting = admission.admit_session(&self.record.session);
        let holds = while_alive(socket, admitting).await??;
        self.record.phases.end(Phase::Queue);
        let mut avoid = Vec::new();
        let mut first = None;
        let mut first_failure = None;
        let mut waits = true;
        loop {
            self.record.phases.begin(Phase::Route);
            let directing = admission.direct_session(&self.record.session, &avoid, waits);
            let directed = while_alive(socket, directing).await?;
            self.record.phases.end(Phase::Route);
            let destination = match (directed, first_failure.take()) {
                (Ok(destination), _) => destination,
                // No other client: the failure of the first attempt is the reason.
                (Err(_), Some(first)) | (Err(first), None) => return Err(first),
            };
            let (link, lane) = (destination.link, destination.lane.clone());
            let first = match &mut first {
                Some(first) => first,
                none => {
                    let window = destination.lane.initial_window();
                    none.insert(self.read_first(socket, window).await?)
                }
            };
            let demand = Demand::of(&holds, destination.permit.as_ref());
            let tried = self.attempt(socket, destination, first, &demand);
            let Err(failed) = tried.await else {
                return Ok(());
            };
            self.record.phases.end(Phase::Transit);
            let again = failed.untouched
                && avoid.len() < MAX_RETRIES
                && failed.failure.retry() == Retry::Always;
            if !again || !admission.director().may_retry() {
                return Err(failed.failure);
            }
            self.tcp.counters.retries.fetch_add(1, Ordering::Relaxed);
            self.record.retries += 1;
            waits = may_wait(&failed.failure, &lane);
            avoid.push(failed_on(link, &lane));
            first_failure = Some(failed.failure);
        }
    }

    /// Reads the bytes that have arrived by now: they cross with the head (P-10.1), and are kept for another attempt. This
    /// does not wait, because the service may send first. An end of the stream is read again later.
    async fn read_first(&mut self, socket: &Socket, window: u32) -> Result<Bytes, Failure> {
        let readable = || poll_fn(|cx| Poll::Ready(socket.poll_readable(cx).is_ready()));
        if !readable().await {
            // The runtime polls a new socket between two turns of the thread.
            tokio::task::yield_now().await;
            if !readable().await {
                return Ok(Bytes::new());
            }
        }
        // Half of the window: the visitor should not wait for credit before the service is connected.
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
    async fn attempt(
        &mut self,
        socket: &Socket,
        destination: Destination,
        first: &[u8],
        demand: &Demand,
    ) -> Result<(), Failed> {
        let config = &self.tcp.config;
        let grace = config.shortage_grace;
        let untouched = |failure| Failed {
            failure,
            untouched: true,
        };
        let head = self.head(&destination, first).map_err(untouched)?;
        let Destination {
            lane,
            grant,
            hold,
            permit,
            compression,
            ..
        } = destination;
        self.record.on_route(grant, lane.mux().side());
        let due = Instant::now() + config.accept_timeout;
        let exchange = lane.open(head, false, Some(due)).map_err(untouched)?;
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
                return Err(Failed {
                    failure,
                    untouched: false,
                });
            }
        };
        match broken {
            SpliceError::Socket(error) => {
                if let Some(send) = splice.into_send() {
                    send.abort(ResetCode::Cancelled, "the visitor left");
                }
                Err(Failed {
                    failure: left(error),
                    untouched: false,
                })
            }
            SpliceError::Exchange(failure) => {
                self.is_aborted = splice.is_aborted();
                Err(Failed {
                    untouched: !splice.is_accepted() && !splice.has_sent(),
                    failure: of_peer(failure),
                })
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

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        if let Some(reason) = self.record.reason() {
            self.tcp.counters.count_failure(reason);
        }
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

/// The visitor's connection has failed.
// By value: `map_err` passes it so.
#[allow(clippy::needless_pass_by_value)]
fn left(error: std::io::Error) -> Failure {
    Failure::new(Reason::Cancelled, format!("the visitor left: {error}"))
}
