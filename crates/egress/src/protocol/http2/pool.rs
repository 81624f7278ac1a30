//! The connections to one service, and the requests that wait for a stream.
//!
//! Requests that have been received completely share a connection. A request whose body has not arrived yet has a
//! connection of its own, up to a bound: unread bytes of one stream count against the service's window for the
//! connection (RFC 9113, 5.2.1), and most services let one stream use all of it, which stalls all other streams. When a
//! service allows no more requests on a connection (RFC 9113, 5.1.2), another one is opened, up to the same bound; then
//! requests wait in order of arrival.

use adit_net::{HostPort, Stream, Tapped};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_codec::ResetCode;
use adit_link::FramePacer;
use h2::client::{Builder, SendRequest};
use thiserror::Error;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{request_writer::Piece, settings_watch::SettingsWatch};
use crate::{
    connect::{
        chosen_protocol::ChosenProtocol,
        tls::{ConnectError, Dialer},
    },
    forward::{error::ForwardError, gauge::GaugeGuard, resources::Resources, timeline::DialSpan},
    stats::Stats,
};

type Sender = SendRequest<Piece>;
type Http2Connection =
    h2::client::Connection<Tapped<Tapped<Stream, FramePacer>, SettingsWatch>, Piece>;

/// The largest window of HTTP/2 (RFC 9113, 6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// The largest frame that is accepted: as large as a message of the tunnel (P-2.1).
const MAX_FRAME_BYTES: u32 = 64 * 1024;
/// The most header lines of a response, counted as in RFC 9113, 6.5.2. More than may be forwarded (P-2.10), so that the
/// error for a response above that bound states its size.
const MAX_HEADER_LIST_BYTES: u32 = 128 * 1024;
/// The most bytes that h2 buffers of one stream before they are written.
const MAX_UNSENT_BYTES: usize = 64 * 1024;
/// The most reset streams that h2 keeps for a second: frames of their responses may still arrive.
const MAX_RESET_STREAMS: usize = 1_024;
/// The most connections that are opened at a time, once there is one.
const MAX_DIALS: usize = 16;

/// The connections to one service.
pub(super) struct Pool {
    dialer: Arc<Dialer>,
    chosen: Option<Arc<ChosenProtocol>>,
    resources: Arc<Resources>,
    state: Mutex<State>,
    /// Open connections, idle ones included.
    connected: Arc<AtomicUsize>,
}

/// How much of a request has been received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestKind {
    Whole,
    /// The body has not arrived yet.
    Streamed,
}

#[derive(Default)]
struct State {
    connections: Vec<Connection>,
    /// The number of the next connection.
    next: u64,
    /// Connections that are being opened. Without any connection, one attempt is made at a time, which all requests
    /// share, so that a service that does not respond delays each request by one attempt only.
    dialling: usize,
    /// Requests that wait for a permit; bounded by the number of running requests.
    whole: VecDeque<Waiter>,
    streamed: VecDeque<Waiter>,
    /// The address is not served any more: idle connections are closed.
    retired: bool,
}

type Waiter = oneshot::Sender<Result<StreamPermit, Arc<Http2ConnectError>>>;

/// Why no connection of HTTP/2 was opened. Its text is reported to the opener of the request, and logged.
#[derive(Debug, Error)]
enum Http2ConnectError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("connect {address}: {error}; {hint}")]
    Handshake {
        address: HostPort,
        #[source]
        error: Http2HandshakeError,
        hint: &'static str,
    },
}

/// Why the handshake of HTTP/2 failed.
#[derive(Debug, Error)]
enum Http2HandshakeError {
    #[error(transparent)]
    Http2(#[from] h2::Error),
    #[error("the connection was closed")]
    Closed,
    #[error("no settings of HTTP/2 within {0:?}")]
    TimedOut(Duration),
}

struct Connection {
    number: u64,
    sender: Sender,
    /// Running requests.
    running: usize,
    /// Running requests whose bodies had not arrived completely.
    streamed: usize,
    /// The dial of the connection; `None` once it has served a request.
    dial: Option<DialSpan>,
    idle_since: Instant,
}

impl Connection {
    fn has_capacity(&self) -> bool {
        // The service may change its limit at any time.
        self.running < self.sender.current_max_send_streams()
    }
}

/// Permission to open one stream on one connection. Dropping it returns it to the pool.
pub(super) struct StreamPermit {
    pool: Arc<Pool>,
    /// The number of the connection.
    number: u64,
    kind: RequestKind,
    pub(super) sender: Sender,
    /// The dial of the connection, if this is its first request.
    pub(super) dial: Option<DialSpan>,
    /// Whether dropping the permit returns it.
    held: bool,
}

impl StreamPermit {
    /// Removes the connection, which accepts no more requests, from the pool.
    pub(super) fn remove_connection(&self) {
        self.pool.lock().remove(self.number);
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        if self.held {
            let mut state = self.pool.lock();
            state.release(self.number, self.kind);
            self.pool.serve_waiters(&mut state);
        }
    }
}

impl State {
    fn remove(&mut self, number: u64) {
        self.connections.retain(|one| one.number != number);
    }

    fn release(&mut self, number: u64, kind: RequestKind) {
        let mut connections = self.connections.iter_mut();
        let Some(connection) = connections.find(|one| one.number == number) else {
            return;
        };
        connection.running -= 1;
        connection.streamed -= usize::from(kind == RequestKind::Streamed);
        connection.idle_since = Instant::now();
        if self.retired && connection.running == 0 {
            self.remove(number);
        }
    }

    fn waiters(&mut self, kind: RequestKind) -> &mut VecDeque<Waiter> {
        match kind {
            RequestKind::Whole => &mut self.whole,
            RequestKind::Streamed => &mut self.streamed,
        }
    }

    /// The connection for a request: the first suitable one, so that the others become idle when the load falls. With
    /// `share`, any connection that has capacity, if none is suitable.
    fn choose(&mut self, kind: RequestKind, share: bool) -> Option<&mut Connection> {
        let suits = |one: &Connection| match kind {
            RequestKind::Whole => one.streamed == 0,
            RequestKind::Streamed => one.running == 0,
        };
        let open = self.connections.iter().enumerate();
        let open = open.filter(|(_, one)| one.has_capacity());
        let mut chosen = open.clone().find(|(_, one)| suits(one));
        if chosen.is_none() && share {
            chosen = open.min_by_key(|(_, one)| one.running);
        }
        let at = chosen?.0;
        self.connections.get_mut(at)
    }

    /// Whether requests wait. Removes those that have been abandoned.
    fn has_waiters(&mut self) -> bool {
        for kind in [RequestKind::Whole, RequestKind::Streamed] {
            self.waiters(kind).retain(|waiter| !waiter.is_closed());
        }
        !self.whole.is_empty() || !self.streamed.is_empty()
    }
}

impl Pool {
    pub(super) fn new(
        dialer: Arc<Dialer>,
        chosen: Option<Arc<ChosenProtocol>>,
        resources: Arc<Resources>,
    ) -> Arc<Self> {
        Arc::new(Self {
            dialer,
            chosen,
            resources,
            state: Mutex::default(),
            connected: Arc::default(),
        })
    }

    pub(super) fn address(&self) -> &HostPort {
        self.dialer.address()
    }

    /// Permission for one request, on an existing or a new connection. While the service allows no more requests, this
    /// waits without a bound; the caller bounds the wait.
    ///
    /// # Errors
    /// [`ForwardError::Reset`]: no connection can be opened.
    ///
    /// # Cancel safety
    /// If it is dropped, the request leaves the queue; a permit that was granted meanwhile is returned.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        kind: RequestKind,
    ) -> Result<StreamPermit, ForwardError> {
        let granted = {
            let mut state = self.lock();
            // Requests are served in order of arrival, so this request must not precede waiting requests.
            if state.waiters(kind).is_empty()
                && let Some(permit) = self.try_acquire(&mut state, kind, false)
            {
                return Ok(permit);
            }
            let (waiter, granted) = oneshot::channel();
            state.waiters(kind).push_back(waiter);
            self.serve_waiters(&mut state);
            granted
        };
        let failed = |reason: String| ForwardError::Reset(ResetCode::DialFailed, reason.into());
        match granted.await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(error)) => Err(failed(error.to_string())),
            // The runtime is shutting down.
            Err(_) => Err(failed("the connection was not made".to_owned())),
        }
    }

    /// Closes idle connections now, and the others as they become idle.
    pub(super) fn retire(&self) {
        let mut state = self.lock();
        state.retired = true;
        state
            .connections
            .retain(|connection| connection.running > 0);
    }

    /// Adds the connections to `stats`.
    pub(super) fn count(&self, stats: &mut Stats) {
        let state = self.lock();
        stats.connections += self.connected.load(Ordering::Relaxed) + state.dialling;
        let idle = state.connections.iter().filter(|one| one.running == 0);
        stats.idle += idle.count();
        let waiting = state.whole.iter().chain(&state.streamed);
        stats.waiting += waiting.filter(|one| !one.is_closed()).count();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_acquire(
        self: &Arc<Self>,
        state: &mut State,
        kind: RequestKind,
        share: bool,
    ) -> Option<StreamPermit> {
        let full = state.connections.len() >= self.resources.config.max_http2_connections.max(1);
        let connection = state.choose(kind, share || full)?;
        connection.running += 1;
        connection.streamed += usize::from(kind == RequestKind::Streamed);
        let dial = connection.dial.take();
        if dial.is_none() {
            self.resources
                .counters
                .reused
                .fetch_add(1, Ordering::Relaxed);
        }
        Some(StreamPermit {
            pool: self.clone(),
            number: connection.number,
            kind,
            sender: connection.sender.clone(),
            dial,
            held: true,
        })
    }

    /// Grants permits to waiting requests in order of arrival, and opens connections for the rest.
    fn serve_waiters(self: &Arc<Self>, state: &mut State) {
        self.grant(state, false);
        self.dial_if_needed(state);
    }

    fn grant(self: &Arc<Self>, state: &mut State, share: bool) {
        for kind in [RequestKind::Whole, RequestKind::Streamed] {
            while let Some(waiter) = state.waiters(kind).pop_front() {
                if waiter.is_closed() {
                    continue;
                }
                let Some(permit) = self.try_acquire(state, kind, share) else {
                    state.waiters(kind).push_front(waiter);
                    break;
                };
                if let Err(Ok(mut permit)) = waiter.send(Ok(permit)) {
                    // The request has just been abandoned. To drop the permit would lock the state again.
                    permit.held = false;
                    state.release(permit.number, kind);
                }
            }
        }
    }

    fn dial_if_needed(self: &Arc<Self>, state: &mut State) {
        if !state.has_waiters() {
            return;
        }
        let limit = self.resources.config.max_http2_connections.max(1);
        let at_a_time = if state.connections.is_empty() {
            1
        } else {
            // One connection serves all requests that have been received completely.
            MAX_DIALS.min(state.streamed.len() + usize::from(!state.whole.is_empty()))
        };
        while state.dialling < at_a_time && state.connections.len() + state.dialling < limit {
            state.dialling += 1;
            // The dial runs in its own task, because the request that needs the connection may be abandoned.
            tokio::spawn(self.clone().dial());
        }
    }

    async fn dial(self: Arc<Self>) {
        let start = Instant::now();
        let connected = self.connect().await;
        let mut state = self.lock();
        state.dialling -= 1;
        match connected {
            Ok((sender, driver)) => {
                self.resources
                    .counters
                    .dialled
                    .fetch_add(1, Ordering::Relaxed);
                let number = state.next;
                state.next += 1;
                state.connections.push(Connection {
                    number,
                    sender,
                    running: 0,
                    streamed: 0,
                    dial: Some((start, Instant::now())),
                    idle_since: Instant::now(),
                });
                tokio::spawn(self.clone().drive(number, driver));
                self.serve_waiters(&mut state);
            }
            Err(error) => {
                if !state.connections.is_empty() {
                    // The existing connections are shared. The next request that arrives or ends triggers another attempt.
                    self.grant(&mut state, true);
                } else if state.dialling == 0 {
                    let error = Arc::new(error);
                    let State {
                        whole, streamed, ..
                    } = &mut *state;
                    for waiter in whole.drain(..).chain(streamed.drain(..)) {
                        let _ = waiter.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Opens a connection and waits for the settings of the service.
    async fn connect(&self) -> Result<(Sender, Driver), Http2ConnectError> {
        let config = &self.resources.config;
        let dialled = self.dialer.dial(config.dial_timeout).await;
        let socket = dialled.inspect_err(|error| {
            if let Some(chosen) = &self.chosen {
                chosen.on_failed(error);
            }
        })?;
        // Frames that h2 ignores or replies to at once have no other bound.
        let socket = Tapped::new(socket, FramePacer::of_server(config.turn_bytes));
        let (watch, settings) = SettingsWatch::new();
        let socket = Tapped::new(socket, watch);
        let window = config.http2_stream_window_bytes;
        // The sum of the windows of all streams: a visitor that does not read must not stall the others.
        let all = u64::from(window) * (config.max_connections as u64).max(1);
        let all = u32::try_from(all).unwrap_or(MAX_WINDOW).min(MAX_WINDOW);
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(window)
            .initial_connection_window_size(all)
            .max_frame_size(MAX_FRAME_BYTES)
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            .max_send_buffer_size(MAX_UNSENT_BYTES)
            .max_concurrent_reset_streams(MAX_RESET_STREAMS)
            // h2 resets the stream again for each later frame, and would count these resets as an attack.
            .max_local_error_reset_streams(None);
        let handshake = async {
            let (sender, connection) = builder.handshake(socket).await?;
            let connected = GaugeGuard::new(self.connected.clone(), |gauge| gauge).0;
            let mut driver = Driver {
                connection,
                _connected: connected,
            };
            tokio::select! {
                biased;
                settings = settings => match settings {
                    Ok(()) => Ok((sender, driver)),
                    Err(_) => Err(Http2HandshakeError::Closed),
                },
                ended = &mut driver.connection => match ended {
                    Ok(()) => Err(Http2HandshakeError::Closed),
                    Err(error) => Err(error.into()),
                },
            }
        };
        let done = timeout(config.dial_timeout, handshake).await;
        let done = done.unwrap_or(Err(Http2HandshakeError::TimedOut(config.dial_timeout)));
        done.map_err(|error| Http2ConnectError::Handshake {
            address: self.address().clone(),
            error,
            hint: self.dialer.hint(),
        })
    }

    /// Drives a connection to its end, and closes it when it has been idle for too long.
    async fn drive(self: Arc<Self>, number: u64, mut driver: Driver) {
        let idle = self.resources.config.idle_timeout;
        loop {
            match timeout(idle.max(Duration::from_millis(1)), &mut driver.connection).await {
                Err(_) => self.close_idle(number, idle),
                Ok(ended) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection to an HTTP/2 service lost");
                    }
                    break;
                }
            }
        }
        drop(driver);
        let mut state = self.lock();
        state.remove(number);
        self.serve_waiters(&mut state);
    }

    fn close_idle(&self, number: u64, idle: Duration) {
        self.lock().connections.retain(|one| {
            one.number != number || one.running > 0 || one.idle_since.elapsed() < idle
        });
    }
}

/// An open connection, which reads and writes when it is polled.
struct Driver {
    connection: Http2Connection,
    _connected: GaugeGuard<AtomicUsize>,
}
