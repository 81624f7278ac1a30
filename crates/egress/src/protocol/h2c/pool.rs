//! The connections to one service, and the requests that wait for one.
//!
//! Requests that are here whole share a connection. One whose body is still to come has a connection of its own as long
//! as they last: what a service leaves unread of one stream counts against its window for the whole connection (RFC
//! 9113, 5.2.1), most services let one stream take all of it, and then nobody else on the connection could say a word.
//! When the service takes no more requests on a connection (RFC 9113, 5.1.2), there is another one, up to a bound; then
//! requests wait in the order in which they came.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_codec::ResetCode;
use adit_link::PacedStream;
use h2::client::{Builder, SendRequest};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{settled::Settled, upload::Piece};
use crate::{
    connect::{
        dial::Address,
        tls::{Dialer, Socket},
    },
    request::{broken::Broken, course::Made},
    resources::Resources,
    stats::Stats,
};

type Sender = SendRequest<Piece>;
type Driver = h2::client::Connection<Settled<PacedStream<Socket>>, Piece>;

/// The largest window of HTTP/2 (RFC 9113, 6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Frames as large as a message of the tunnel (P-2.1).
const MAX_FRAME_BYTES: u32 = 64 * 1024;
/// Header lines of an answer, by the count of RFC 9113, 6.5.2: more than cross (P-2.10), so that an answer with too many gets a
/// failure that names its size.
const MAX_HEADER_LIST_BYTES: u32 = 128 * 1024;
/// What h2 holds of one stream before it has been written.
const MAX_UNSENT_BYTES: usize = 64 * 1024;
/// Requests that have been given up and are remembered for a second, because more of their answers may be on its way.
const MAX_RESET_STREAMS: usize = 1_024;
/// Connections that are made at a time, once there is one.
const MAX_DIALS: usize = 16;

/// The connections to one service.
pub(super) struct Pool {
    dialer: Dialer,
    shared: Arc<Resources>,
    state: Mutex<State>,
    /// Connections that are open, idle ones too.
    connected: Arc<AtomicUsize>,
}

/// How much of a request there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// All of it.
    Whole,
    /// Its body is still to come.
    Streamed,
}

#[derive(Default)]
struct State {
    connections: Vec<Connection>,
    /// Numbers connections.
    next: u64,
    /// Connections that are being made. Until there is one there is one attempt at a time, which all share: what does
    /// not answer holds nobody longer than one attempt takes.
    dialling: usize,
    /// Each bounded by the requests that run.
    whole: VecDeque<Waiting>,
    streamed: VecDeque<Waiting>,
    /// The address is not served any more: what is idle goes.
    retired: bool,
}

type Waiting = oneshot::Sender<Result<Place, Arc<str>>>;

struct Connection {
    number: u64,
    sender: Sender,
    /// Requests on it.
    running: usize,
    /// Of these, those whose bodies were still to come.
    streamed: usize,
    /// From when to when it was made; nothing once it has served.
    made: Option<Made>,
    idle_since: Instant,
}

impl Connection {
    fn has_room(&self) -> bool {
        // The service may change its mind.
        self.running < self.sender.current_max_send_streams()
    }
}

/// The right to one request on one connection. Dropping it lets the next one on.
pub(super) struct Place {
    pool: Arc<Pool>,
    /// Of the connection.
    number: u64,
    kind: Kind,
    pub(super) sender: Sender,
    /// When its connection was made, from when to when, where this is the first request on it.
    pub(super) made: Option<Made>,
    /// Whether it has to be given back.
    held: bool,
}

impl Place {
    /// The connection takes no more requests.
    pub(super) fn forget_connection(&self) {
        self.pool.lock().remove(self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.held {
            let mut state = self.pool.lock();
            state.give_back(self.number, self.kind);
            self.pool.let_on(&mut state);
        }
    }
}

impl State {
    fn remove(&mut self, number: u64) {
        self.connections.retain(|one| one.number != number);
    }

    fn give_back(&mut self, number: u64, kind: Kind) {
        let mut connections = self.connections.iter_mut();
        let Some(connection) = connections.find(|one| one.number == number) else {
            return;
        };
        connection.running -= 1;
        connection.streamed -= usize::from(kind == Kind::Streamed);
        connection.idle_since = Instant::now();
        if self.retired && connection.running == 0 {
            self.remove(number);
        }
    }

    fn waiting(&mut self, kind: Kind) -> &mut VecDeque<Waiting> {
        match kind {
            Kind::Whole => &mut self.whole,
            Kind::Streamed => &mut self.streamed,
        }
    }

    /// Where a request goes: the first connection that suits, so that the others run dry when there is less to do. When
    /// there can be no more connections, or `crowded` says so, any that has room.
    fn choose(&mut self, kind: Kind, crowded: bool) -> Option<&mut Connection> {
        let suits = |one: &Connection| match kind {
            Kind::Whole => one.streamed == 0,
            Kind::Streamed => one.running == 0,
        };
        let open = self.connections.iter().enumerate();
        let open = open.filter(|(_, one)| one.has_room());
        let mut chosen = open.clone().find(|(_, one)| suits(one));
        if chosen.is_none() && crowded {
            chosen = open.min_by_key(|(_, one)| one.running);
        }
        let at = chosen?.0;
        self.connections.get_mut(at)
    }

    /// Whether somebody waits; forgets those who have left.
    fn is_wanted(&mut self) -> bool {
        for kind in [Kind::Whole, Kind::Streamed] {
            self.waiting(kind).retain(|waiting| !waiting.is_closed());
        }
        !self.whole.is_empty() || !self.streamed.is_empty()
    }
}

impl Pool {
    pub(super) fn new(dialer: Dialer, shared: Arc<Resources>) -> Arc<Self> {
        Arc::new(Self {
            dialer,
            shared,
            state: Mutex::default(),
            connected: Arc::default(),
        })
    }

    pub(super) const fn address(&self) -> &Address {
        self.dialer.address()
    }

    /// A place for one request, on a connection that is made if need be. It may be long in coming when the service takes
    /// no more: whoever asks bounds its patience.
    ///
    /// # Cancel safety
    /// Yes.
    pub(super) async fn place(self: &Arc<Self>, kind: Kind) -> Result<Place, Broken> {
        let told = {
            let mut state = self.lock();
            // Whoever waits comes first.
            if state.waiting(kind).is_empty()
                && let Some(place) = self.try_place(&mut state, kind, false)
            {
                return Ok(place);
            }
            let (tell, told) = oneshot::channel();
            state.waiting(kind).push_back(tell);
            self.let_on(&mut state);
            told
        };
        let refused = |why: &str| Broken::Reset(ResetCode::DialFailed, why.to_owned().into());
        match told.await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(why)) => Err(refused(&why)),
            // The runtime is going down.
            Err(_) => Err(refused("the connection was not made")),
        }
    }

    /// No more requests will come; connections go as soon as they are idle.
    pub(super) fn retire(&self) {
        let mut state = self.lock();
        state.retired = true;
        state
            .connections
            .retain(|connection| connection.running > 0);
    }

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

    fn try_place(self: &Arc<Self>, state: &mut State, kind: Kind, crowded: bool) -> Option<Place> {
        let full = state.connections.len() >= self.shared.config.max_http2_connections.max(1);
        let connection = state.choose(kind, crowded || full)?;
        connection.running += 1;
        connection.streamed += usize::from(kind == Kind::Streamed);
        let made = connection.made.take();
        if made.is_none() {
            self.shared.counters.reused.fetch_add(1, Ordering::Relaxed);
        }
        Some(Place {
            pool: self.clone(),
            number: connection.number,
            kind,
            sender: connection.sender.clone(),
            made,
            held: true,
        })
    }

    /// Gives the places that are free to those who wait, in their order.
    fn let_on(self: &Arc<Self>, state: &mut State) {
        self.give_places(state, false);
        self.dial_if_wanted(state);
    }

    fn give_places(self: &Arc<Self>, state: &mut State, crowded: bool) {
        for kind in [Kind::Whole, Kind::Streamed] {
            while let Some(tell) = state.waiting(kind).pop_front() {
                if tell.is_closed() {
                    continue;
                }
                let Some(place) = self.try_place(state, kind, crowded) else {
                    state.waiting(kind).push_front(tell);
                    break;
                };
                if let Err(Ok(mut place)) = tell.send(Ok(place)) {
                    // It left in this moment. The lock is ours already.
                    place.held = false;
                    state.give_back(place.number, kind);
                }
            }
        }
    }

    fn dial_if_wanted(self: &Arc<Self>, state: &mut State) {
        if !state.is_wanted() {
            return;
        }
        let limit = self.shared.config.max_http2_connections.max(1);
        let at_a_time = if state.connections.is_empty() {
            1
        } else {
            // One serves all that are whole.
            MAX_DIALS.min(state.streamed.len() + usize::from(!state.whole.is_empty()))
        };
        while state.dialling < at_a_time && state.connections.len() + state.dialling < limit {
            state.dialling += 1;
            // In a task of its own: whoever asked for it may leave.
            tokio::spawn(self.clone().dial());
        }
    }

    async fn dial(self: Arc<Self>) {
        let start = Instant::now();
        let connected = self.connect().await;
        let mut state = self.lock();
        state.dialling -= 1;
        match connected {
            Ok((sender, driving)) => {
                self.shared.counters.dialled.fetch_add(1, Ordering::Relaxed);
                let number = state.next;
                state.next += 1;
                state.connections.push(Connection {
                    number,
                    sender,
                    running: 0,
                    streamed: 0,
                    made: Some((start, Instant::now())),
                    idle_since: Instant::now(),
                });
                tokio::spawn(self.clone().look_after(number, driving));
                self.let_on(&mut state);
            }
            Err(why) => {
                if !state.connections.is_empty() {
                    // Then the others have to do. Another attempt is made when the next request comes or ends.
                    self.give_places(&mut state, true);
                } else if state.dialling == 0 {
                    let why: Arc<str> = why.into();
                    let State {
                        whole, streamed, ..
                    } = &mut *state;
                    for waiting in whole.drain(..).chain(streamed.drain(..)) {
                        let _ = waiting.send(Err(why.clone()));
                    }
                }
            }
        }
    }

    /// A connection whose service has shown its settings, and what drives it.
    async fn connect(&self) -> Result<(Sender, Driving), String> {
        let config = &self.shared.config;
        let socket = self.dialer.dial(config.dial_timeout).await?;
        // Frames that h2 ignores, or answers at once, have no other bound.
        let socket = PacedStream::of_server(socket, config.turn_bytes);
        let (socket, settled) = Settled::new(socket);
        let window = config.http2_stream_window_bytes;
        // Room for every stream's window: what one visitor does not take must not hold up the others.
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
            // What comes later than that is answered with a reset of its own, which h2 takes for an attack.
            .max_local_error_reset_streams(None);
        let ready = async {
            let handshake = builder.handshake(socket).await;
            let (sender, driver) = handshake.map_err(|error| error.to_string())?;
            let mut driving = Driving::new(driver, &self.connected);
            let closed = || Err("the connection was closed".to_owned());
            tokio::select! {
                biased;
                settled = settled => match settled {
                    Ok(()) => Ok((sender, driving)),
                    Err(_) => closed(),
                },
                ended = &mut driving.driver => match ended {
                    Ok(()) => closed(),
                    Err(error) => Err(error.to_string()),
                },
            }
        };
        let ready = timeout(config.dial_timeout, ready).await;
        let ready = ready.unwrap_or_else(|_| Err("no HTTP/2 in time".to_owned()));
        ready.map_err(|why| {
            let (address, hint) = (self.address(), self.dialer.hint());
            format!("connect {address}: {why}; {hint}")
        })
    }

    /// Drives a connection to its end, and lets go of it when nobody has used it for long.
    async fn look_after(self: Arc<Self>, number: u64, mut driving: Driving) {
        let idle = self.shared.config.idle_timeout;
        loop {
            match timeout(idle.max(Duration::from_millis(1)), &mut driving.driver).await {
                Err(_) => self.forget_idle(number, idle),
                Ok(ended) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection to an HTTP/2 service lost");
                    }
                    break;
                }
            }
        }
        drop(driving);
        let mut state = self.lock();
        state.remove(number);
        self.let_on(&mut state);
    }

    fn forget_idle(&self, number: u64, idle: Duration) {
        self.lock().connections.retain(|one| {
            one.number != number || one.running > 0 || one.idle_since.elapsed() < idle
        });
    }
}

/// One open connection of the count, and what moves its bytes.
struct Driving {
    driver: Driver,
    connected: Arc<AtomicUsize>,
}

impl Driving {
    fn new(driver: Driver, connected: &Arc<AtomicUsize>) -> Self {
        connected.fetch_add(1, Ordering::Relaxed);
        Self {
            driver,
            connected: connected.clone(),
        }
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }
}
