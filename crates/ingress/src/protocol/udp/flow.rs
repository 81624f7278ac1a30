//! The flow of datagrams of one visitor.

use adit_net::canonical_addr;
use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use adit_auth::Grant;
use adit_codec::{ProtocolType, ResetCode, UdpOpenHead};
use adit_link::{BoxFuture, Exchange, Failure, Part, Reason, RecvHalf, SendHalf};
use adit_trace::Phase;
use bytes::Bytes;

use super::{
    context::PortContext,
    flows::LastSeen,
    stats::count,
    waiting::{Room, Waiting},
};
use crate::forward::{
    director::{Destination, Direction, Director},
    layer::{Held, Layers},
    limits::{Limits, admit_session, limit_exchange},
    phases::Phases,
    record::Outcome,
    request_head::open_session,
    retry::{Attempts, forward_with_retries},
    session::Session,
    session_record::SessionRecord,
};

/// Datagrams sent to the visitor in one turn, before the thread's other tasks run. At least as many as a lane delivers in
/// its turn.
const BATCH: usize = 512;

/// How long the datagrams of a flow that was not admitted are dropped before the next one is checked again: a visitor
/// that sends without a pause would otherwise begin a flow with each datagram.
const DENIED_FOR: Duration = Duration::from_secs(1);

/// The flow of one visitor, shared by the task that reads the port and the flow's own task.
pub(super) struct Flow {
    visitor: SocketAddr,
    /// When a datagram was last sent in either direction, in nanoseconds since the port was opened.
    last_seen: AtomicU64,
    received_bytes: AtomicU64,
    state: Mutex<State>,
}

enum State {
    /// The flow is being routed, and its datagrams wait.
    Waiting(Waiting),
    /// Datagrams are sent to the lane at once.
    Open(SendHalf),
    /// Datagrams wait until the limits of the flow allow them (P-16.7); the flow's task sends them.
    Paced {
        waiting: Waiting,
        send: SendHalf,
        task: Option<Waker>,
    },
    /// The flow was not admitted: its datagrams are dropped for [`DENIED_FOR`].
    Denied,
    /// The flow has ended; with the failure, if this side caused it.
    Over(Option<Failure>),
}

/// Why a flow does not take a datagram.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// The flow has ended: the next datagram begins a new one.
    Ended,
    /// The flow was not admitted.
    Denied,
}

impl Flow {
    pub(super) fn new(visitor: SocketAddr, room: Arc<Room>) -> Arc<Self> {
        Arc::new(Self {
            visitor,
            last_seen: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            state: Mutex::new(State::Waiting(Waiting::new(room))),
        })
    }

    pub(super) const fn visitor(&self) -> SocketAddr {
        self.visitor
    }

    /// Whether the flow has passed all layers, and has not ended.
    pub(super) fn is_open(&self) -> bool {
        matches!(&*self.lock(), State::Open(_))
    }

    /// Sends a datagram of the visitor, or keeps it until the flow is routed. Never waits.
    pub(super) fn take(&self, data: &[u8], now: Duration) -> Result<(), NotTaken> {
        match &mut *self.lock() {
            State::Waiting(waiting) => waiting.push(data),
            State::Open(send) => send
                .send_datagram(Bytes::copy_from_slice(data))
                .map_err(|_| NotTaken::Ended)?,
            State::Paced { waiting, task, .. } => {
                waiting.push(data);
                if let Some(task) = task.take() {
                    task.wake();
                }
            }
            State::Denied => return Err(NotTaken::Denied),
            State::Over(_) => return Err(NotTaken::Ended),
        }
        self.on_datagram(now);
        self.received_bytes
            .fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Ends both directions at once, to make room for another flow (P-11.2). Returns whether it was a flow: one that was
    /// not admitted is only forgotten.
    pub(super) fn evict(&self) -> bool {
        const WHY: &str =
            "evicted: the flow had been silent longest, and the port has too many flows";
        let why = Failure::new(Reason::Limit, WHY);
        match self.replace(State::Over(Some(why))) {
            State::Open(send) | State::Paced { send, .. } => send.reset(ResetCode::Limit, WHY),
            State::Denied => return false,
            State::Waiting(_) | State::Over(_) => {}
        }
        true
    }

    /// Ends the visitor's direction, if it has not ended (P-11.4). Returns whether the other side must end its own.
    pub(super) fn finish(&self) -> bool {
        match self.replace(State::Over(None)) {
            State::Open(send) | State::Paced { send, .. } => send.finish().is_ok(),
            State::Waiting(_) | State::Denied | State::Over(_) => false,
        }
    }

    /// Sends the datagrams that have waited, in order. Later ones are sent at once.
    fn open(&self, send: SendHalf) -> Result<(), Failure> {
        let mut state = self.lock();
        let State::Waiting(waiting) = &mut *state else {
            return Err(Failure::new(
                Reason::Cancelled,
                "the flow ended while it was routed",
            ));
        };
        if send.is_paced() {
            let waiting = waiting.take();
            *state = State::Paced {
                waiting,
                send,
                task: None,
            };
            return Ok(());
        }
        while let Some(data) = waiting.pop() {
            if let Err(failure) = send.send_datagram(data) {
                waiting.lose_popped();
                return Err(failure);
            }
        }
        *state = State::Open(send);
        Ok(())
    }

    /// Sends the datagrams that the limits of the flow allow now. Wakes the task when there may be more to send.
    fn poll_paced(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let State::Paced {
            waiting,
            send,
            task,
        } = &mut *self.lock()
        else {
            return Ok(());
        };
        while let Some(bytes) = waiting.first_bytes() {
            // A slot of an empty datagram would be free of cost.
            if send.poll_pace(cx, bytes.max(1)).is_pending() {
                return Ok(());
            }
            if let Some(data) = waiting.pop()
                && let Err(failure) = send.send_datagram(data)
            {
                waiting.lose_popped();
                return Err(failure);
            }
        }
        *task = Some(cx.waker().clone());
        Ok(())
    }

    fn on_datagram(&self, now: Duration) {
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        // Two tasks set the time, each with its own reading of the clock.
        self.last_seen.fetch_max(nanos, Ordering::Relaxed);
    }

    /// Changes the state. Returns the old one, for the caller to drop outside of the lock.
    fn replace(&self, state: State) -> State {
        let mut now = self.lock();
        // The first failure stays.
        match &*now {
            State::Over(_) => state,
            _ => std::mem::replace(&mut *now, state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LastSeen for Arc<Flow> {
    fn last_seen(&self) -> Duration {
        Duration::from_nanos(self.last_seen.load(Ordering::Relaxed))
    }
}

/// The state of a flow's task.
pub(super) struct Run {
    flow: Arc<Flow>,
    port: Arc<PortContext>,
    record: SessionRecord,
    /// Values that the exchange must hold.
    holds: Vec<Held>,
}

impl Run {
    pub(super) fn new(flow: Arc<Flow>, port: Arc<PortContext>) -> Self {
        let counters = port.counters();
        count(&counters.flows);
        counters.flows_open.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let visitor = canonical_addr(flow.visitor);
        let session = Session::new(ProtocolType::Udp, visitor, port.local, now);
        let observer = port.admission().observer();
        Self {
            record: SessionRecord::new(session, observer),
            flow,
            port,
            holds: Vec::new(),
        }
    }

    /// Forwards the flow to its service and sends the service's datagrams to the visitor. Returns the flow when it is over.
    pub(super) async fn run(mut self) -> Arc<Flow> {
        match self.forward().await {
            Ok(()) => {
                self.flow.finish();
                self.finish(Outcome::Completed);
            }
            Err(failure) => {
                let request_id = self.record.session.uuid;
                tracing::debug!(%request_id, %failure, "a UDP flow ended");
                if is_denial(&failure) {
                    drop(self.flow.replace(State::Denied));
                    self.finish(Outcome::Failed(&failure));
                    tokio::time::sleep(DENIED_FOR).await;
                }
                self.flow.finish();
                self.finish(Outcome::Failed(&failure));
            }
        }
        self.flow.clone()
    }

    async fn forward(&mut self) -> Result<(), Failure> {
        let mut recv = self.open().await?;
        let mut left = BATCH;
        let mut is_accepted = false;
        loop {
            let part = poll_fn(|cx| match self.flow.poll_paced(cx) {
                Ok(()) => recv.poll_part(cx),
                Err(failure) => Poll::Ready(Some(Err(failure))),
            });
            let Some(part) = part.await else {
                return Ok(());
            };
            let part = part?;
            if !is_accepted {
                is_accepted = true;
                self.record.on_accepted();
            }
            if let Part::Datagram(data) = part {
                self.send_to_visitor(&data);
            }
            left -= 1;
            if left == 0 {
                tokio::task::yield_now().await;
                left = BATCH;
            }
        }
    }

    /// Routes the flow, and opens its exchange (P-11.1).
    async fn open(&mut self) -> Result<RecvHalf, Failure> {
        let record = &mut self.record;
        record.phases.add(Phase::Accept, record.session.started);
        let port = self.port.clone();
        let admission = port.admission();
        record.phases.begin(Phase::Queue);
        let layers = admission.layers();
        layers
            .pass_session(&Layers::default(), &record.session, &mut self.holds)
            .await?;
        record.phases.end(Phase::Queue);
        forward_with_retries(admission.director(), self).await
    }

    /// Opens the exchange with one client.
    fn open_on(&mut self, destination: Destination) -> Result<RecvHalf, Failure> {
        let record = &mut self.record;
        let context = record.begin_attempt().map(|context| context.to_string());
        let traceparent = context.as_deref().unwrap_or_default();
        let head = UdpOpenHead {
            open: &open_session(&record.session, &destination, traceparent),
            local: &self.port.local_text,
        };
        let head = head
            .encode()
            .map_err(|error| Failure::new(Reason::Internal, error.to_string()))?;
        let opener = destination.lane.mux().side();
        record.on_route(destination.grant, opener);
        let mut exchange = destination.lane.open(head, false, None)?;
        if let Some(limits) = &destination.limits {
            limit_exchange(&mut exchange, &**limits, 0);
        }
        exchange.hold((std::mem::take(&mut self.holds), destination.hold));
        let Exchange { send, recv } = exchange;
        self.flow.open(send)?;
        self.port.on_admitted(self.flow.visitor);
        Ok(recv)
    }

    /// Sends a datagram to the visitor, or drops it.
    fn send_to_visitor(&mut self, data: &[u8]) {
        self.flow.on_datagram(self.port.now());
        let counters = self.port.counters();
        match self.port.socket.try_send_to(data, self.flow.visitor) {
            Ok(_) => {
                self.record.on_sent(data.len() as u64);
                count(&counters.datagrams_out);
                let bytes = data.len() as u64;
                counters.bytes_out.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                count(&counters.socket_full);
            }
            Err(_) => count(&counters.unsendable),
        }
    }
}

impl Run {
    /// Called when the flow is over: counts its failure, and emits its record. An eviction is the reason, if it
    /// happened first.
    fn finish(&mut self, outcome: Outcome<'_>) {
        self.record.received_bytes = self.flow.received_bytes.load(Ordering::Relaxed);
        let reason = match &*self.flow.lock() {
            State::Over(Some(eviction)) => self.record.finish(Outcome::Failed(eviction)),
            _ => self.record.finish(outcome),
        };
        if let Some(reason) = reason {
            self.port.counters().count_failure(reason);
        }
    }
}

/// Whether the flow ended because it was not admitted.
const fn is_denial(failure: &Failure) -> bool {
    matches!(
        failure.reason,
        Reason::AccessDenied | Reason::Banned | Reason::Limit
    )
}

/// A flow is tried on one client only: the next datagram begins a new flow.
impl Attempts for Run {
    type Done = RecvHalf;
    type Rejected = Failure;

    fn direct(&self, director: &dyn Director, avoid: &[u64]) -> Direction {
        director.direct_session(&self.record.session, avoid)
    }

    async fn wait(
        &mut self,
        routing: BoxFuture<'static, Result<Destination, Failure>>,
    ) -> Result<Result<Destination, Failure>, Failure> {
        Ok(routing.await)
    }

    async fn pass_layers(&mut self, layers: &Layers) -> Result<(), Failure> {
        let before = self.port.admission().layers();
        layers
            .pass_session(&before, &self.record.session, &mut self.holds)
            .await
    }

    async fn pass_limits(
        &mut self,
        limits: Arc<dyn Limits>,
        is_retry: bool,
        _: u32,
    ) -> Result<(), Failure> {
        let held = admit_session(&*limits, ProtocolType::Udp, is_retry)?;
        self.holds.push(held);
        Ok(())
    }

    async fn attempt(&mut self, destination: Destination) -> Result<RecvHalf, Failure> {
        self.open_on(destination)
    }

    fn may_repeat(&self, _: &Failure) -> bool {
        false
    }

    fn last_attempt_was_on(&self, grant: &Grant) -> bool {
        self.record.last_attempt_was_on(grant)
    }

    fn on_retry(&mut self) {}

    fn phases(&mut self) -> &mut Phases {
        &mut self.record.phases
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // This has an effect only for a flow whose task was aborted: because of an eviction, of silence, or with its
        // port. Every other path has finished the record.
        self.finish(Outcome::Cancelled);
        let counters = self.port.counters();
        counters.flows_open.fetch_sub(1, Ordering::Relaxed);
    }
}
