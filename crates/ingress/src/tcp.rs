//! TCP visitors: a public port for each tunnel, a request for each connection (section 10 of the protocol).
//!
//! A connection is admitted and directed by the port that it came to, opened with whatever the visitor has said by then,
//! and spliced with its exchange until both directions have come to their ends. What breaks on one hop is reset on the
//! other, and a visitor that cannot be led to a service is reset as well (P-10.3, P-10.4): there is no page to show it.
//!
//! One future for each connection, no task; a connection that waits holds no buffer.

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
    time::{Duration, Instant},
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
    admission::Admission,
    answer::of_peer,
    call::may_wait,
    config::TcpConfig,
    demand::Demand,
    director::Destination,
    session::{Session, SessionAccess},
};

/// Tries on other clients after the first.
const MAX_RETRIES: usize = 2;
/// What a visitor sent before it left goes on to the service, unless that takes none of it for this long: a visitor who
/// is gone must not keep its permits.
pub(crate) const DEPARTED: Duration = Duration::from_secs(1);
/// Read first, and when little comes.
const SMALL_BUFFER_BYTES: usize = 16 * 1024;
/// Buffers that wait for use, of each size: more than are read into in one turn of a thread.
const MAX_FREE_BUFFERS: usize = 64;

/// Takes TCP visitors in.
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

    /// Serves one connection, which came to `local`, to its end.
    ///
    /// # Cancel safety
    /// Dropping it resets both hops.
    pub async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, local: SocketAddr) {
        let socket = Socket::new(stream);
        let Some(_open) = self.counters.open(self.config.max_connections) else {
            tracing::debug!(%peer, "connection refused: too many are open");
            let many = Failure::new(Reason::Limit, "too many connections are open");
            self.account(peer, local).on_failure(&many);
            return;
        };
        if let Some(silence) = self.config.keepalive {
            socket.set_keepalive(silence);
        }
        let mut connection = Connection {
            tcp: &self,
            access: self.account(peer, local),
            is_aborted: false,
        };
        match connection.carry(&socket).await {
            Ok(()) => {
                connection.access.on_end();
                socket.close();
                return;
            }
            Err(failure) => {
                tracing::debug!(
                    request_id = %connection.access.session.uuid,
                    reason = failure.reason.as_str(),
                    "{}",
                    failure.detail
                );
                connection.access.on_failure(&failure);
            }
        }
        if connection.is_aborted {
            drop(connection);
            socket.reset_after_delivery(self.config.stall).await;
        }
    }
}

impl Tcp {
    /// Of a connection that has come now.
    fn account(&self, peer: SocketAddr, local: SocketAddr) -> SessionAccess {
        let accepted = Instant::now();
        let session = Session::new(ProtocolType::Tcp, peer, local, accepted);
        let mut access = SessionAccess::new(session, self.admission.observer());
        access.phases.add(Phase::Accept, accepted);
        access
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

/// One connection, and its account.
struct Connection<'t> {
    tcp: &'t Tcp,
    access: SessionAccess,
    /// The visitor is to have all that was written to it before it is reset.
    is_aborted: bool,
}

/// Why one try failed.
struct Failed {
    failure: Failure,
    /// Nothing but what is kept has been sent, and the client has not taken it.
    untouched: bool,
}

impl Connection<'_> {
    /// Leads a connection through the layers and to a client, to another one if that is allowed, and carries it to its
    /// end.
    async fn carry(&mut self, socket: &Socket) -> Result<(), Failure> {
        let admission = &self.tcp.admission;
        self.access.phases.begin(Phase::Queue);
        // Held until the end, whichever client carries it.
        let admitting = admission.admit_session(&self.access.session);
        let holds = while_alive(socket, admitting).await??;
        self.access.phases.end(Phase::Queue);
        let mut avoid = Vec::new();
        let mut first = None;
        let mut first_failure = None;
        let mut waits = true;
        loop {
            self.access.phases.begin(Phase::Route);
            let directing = admission.direct_session(&self.access.session, &avoid, waits);
            let directed = while_alive(socket, directing).await?;
            self.access.phases.end(Phase::Route);
            let destination = match (directed, first_failure.take()) {
                (Ok(destination), _) => destination,
                // There is nobody else: what the first one said is the reason.
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
            self.access.phases.end(Phase::Transit);
            let again = failed.untouched
                && avoid.len() < MAX_RETRIES
                && failed.failure.retry() == Retry::Always;
            if !again || !admission.director().may_retry() {
                return Err(failed.failure);
            }
            self.tcp.counters.retries.fetch_add(1, Ordering::Relaxed);
            self.access.retries += 1;
            waits = may_wait(&failed.failure, &lane);
            avoid.push(link);
            first_failure = Some(failed.failure);
        }
    }

    /// What has come by now: it rides in the head (P-10.1), and is kept for another try. Nobody waits for it, the service
    /// may be the one to speak first. An end is read again, behind it.
    async fn read_first(&mut self, socket: &Socket, window: u32) -> Result<Bytes, Failure> {
        let readable = || poll_fn(|cx| Poll::Ready(socket.poll_readable(cx).is_ready()));
        if !readable().await {
            // A connection that has just come has not been looked at: that is done between two turns of the thread.
            tokio::task::yield_now().await;
            if !readable().await {
                return Ok(Bytes::new());
            }
        }
        // Half of the window: the visitor is not to wait for credit before the service has been reached.
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

    /// One try on one client, to the end of the connection.
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
        self.access.on_route(grant, lane.mux().side());
        let due = Instant::now() + config.accept_timeout;
        let exchange = lane.open(head, false, Some(due)).map_err(untouched)?;
        self.access.phases.watch(&exchange);
        exchange.hold((hold, permit));
        exchange.set_stall(config.stall);
        exchange.send.set_compression(compression);

        let buffers = &self.tcp.buffers;
        let mut splice = Splice::new(socket, exchange, buffers, Bytes::new(), DEPARTED);
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
            () = demand.comes(grace, &has_moved) => None,
        };
        let broken = match ended {
            Some(Ok(())) => return Ok(()),
            Some(Err(broken)) => broken,
            None => {
                let failure =
                    Failure::new(Reason::Stalled, "silent, and others wait for its permit");
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

    /// What opens a try.
    fn head(&mut self, destination: &Destination, first: &[u8]) -> Result<EncodedHead, Failure> {
        let context = self.access.transit().map(|context| context.to_string());
        let session = &self.access.session;
        let open = session.open(destination, context.as_deref().unwrap_or_default());
        let head = TcpOpenHead {
            open: &open,
            local: &session.local.to_string(),
        };
        let head = head.encode(first);
        head.map_err(|error| Failure::new(Reason::Internal, error.to_string()))
    }

    fn on_moved(&mut self, moved: Progress) {
        let counters = &self.tcp.counters;
        let access = &mut self.access;
        if moved.accepted {
            access.on_accepted();
        }
        access.received_bytes += moved.read;
        if moved.written > 0 {
            access.on_sent(moved.written);
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
        if let Some(reason) = self.access.reason() {
            self.tcp.counters.count_failure(reason);
        }
    }
}

/// `work`, unless the visitor leaves before. Whoever has only shut its direction has not left.
async fn while_alive<T>(socket: &Socket, work: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        error = socket.failure() => Err(left(error)),
    }
}

/// The visitor's connection has failed.
// By value: that is how it is mapped.
#[allow(clippy::needless_pass_by_value)]
fn left(error: std::io::Error) -> Failure {
    Failure::new(Reason::Cancelled, format!("the visitor left: {error}"))
}
