//! One visitor's flow of datagrams.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use adit_codec::{ProtocolType, ResetCode, UdpOpenHead};
use adit_link::{Exchange, Failure, Part, Reason, RecvHalf, SendHalf};
use adit_trace::Phase;
use bytes::Bytes;

use super::{
    flows::Heard,
    port::Shared,
    stats::count,
    waiting::{Room, Waiting},
};
use crate::{
    listener::visitor_addr,
    session::{Session, SessionAccess},
};

/// Answers sent to the visitor in one turn; then the thread's other tasks have theirs. At least as many as a lane hands
/// on in its turn.
const BATCH: usize = 512;

/// One visitor's flow, shared by the task that reads the port and the flow's own.
pub(super) struct Flow {
    visitor: SocketAddr,
    /// When a datagram last went either way, in nanoseconds since the port was opened.
    heard: AtomicU64,
    received_bytes: AtomicU64,
    state: Mutex<State>,
}

enum State {
    /// Where it goes is being found out.
    Waiting(Waiting),
    /// Datagrams go to the lane at once.
    Open(SendHalf),
    /// Nothing of the visitor's is taken any more; why, when it is not for the other side to say.
    Over(Option<Failure>),
}

/// A flow that takes no more: the next datagram begins a new one.
#[derive(Debug)]
pub(super) struct Over;

impl Flow {
    pub(super) fn new(visitor: SocketAddr, room: Arc<Room>) -> Arc<Self> {
        Arc::new(Self {
            visitor,
            heard: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            state: Mutex::new(State::Waiting(Waiting::new(room))),
        })
    }

    pub(super) const fn visitor(&self) -> SocketAddr {
        self.visitor
    }

    /// Takes a datagram of the visitor's. Never waits.
    pub(super) fn take(&self, data: &[u8], now: Duration) -> Result<(), Over> {
        match &mut *self.lock() {
            State::Waiting(waiting) => waiting.push(data),
            State::Open(send) => send
                .send_datagram(Bytes::copy_from_slice(data))
                .map_err(|_| Over)?,
            State::Over(_) => return Err(Over),
        }
        self.hear(now);
        self.received_bytes
            .fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Makes room for another: ends both directions at once (P-11.2).
    pub(super) fn evict(&self) {
        const WHY: &str = "the flow was silent longest and made room for another";
        let why = Failure::new(Reason::Limit, WHY);
        if let State::Open(send) = self.replace(State::Over(Some(why))) {
            send.reset(ResetCode::Limit, WHY);
        }
    }

    /// Ends our direction, if it has not ended (P-11.4). Whether the other side is to answer with its own end.
    pub(super) fn finish(&self) -> bool {
        match self.replace(State::Over(None)) {
            State::Open(send) => send.finish().is_ok(),
            State::Waiting(_) | State::Over(_) => false,
        }
    }

    /// Sends what has waited, in order, and from here on what comes.
    fn open(&self, send: SendHalf) -> Result<(), Failure> {
        let mut state = self.lock();
        let State::Waiting(waiting) = &mut *state else {
            return Err(Failure::new(Reason::Cancelled, "nobody waits for it"));
        };
        while let Some(data) = waiting.pop() {
            if let Err(failure) = send.send_datagram(data) {
                waiting.lose_popped();
                return Err(failure);
            }
        }
        *state = State::Open(send);
        Ok(())
    }

    fn hear(&self, now: Duration) {
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        // Two tasks tell it, and each reads the clock by itself.
        self.heard.fetch_max(nanos, Ordering::Relaxed);
    }

    /// Puts the flow into another state. What it was in is the caller's to drop, outside of the lock.
    fn replace(&self, state: State) -> State {
        let mut now = self.lock();
        // The first word on how it ended stands.
        match &*now {
            State::Over(_) => state,
            _ => std::mem::replace(&mut *now, state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard for Arc<Flow> {
    fn heard(&self) -> Duration {
        Duration::from_nanos(self.heard.load(Ordering::Relaxed))
    }
}

/// What a flow's task holds. Dropping it, wherever the task has come to, accounts for the flow.
pub(super) struct Run {
    flow: Arc<Flow>,
    port: Arc<Shared>,
    access: SessionAccess,
}

impl Run {
    pub(super) fn new(flow: Arc<Flow>, port: Arc<Shared>) -> Self {
        let counters = port.counters();
        count(&counters.flows);
        counters.flows_open.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let visitor = visitor_addr(flow.visitor);
        let session = Session::new(ProtocolType::Udp, visitor, port.local, now);
        let observer = port.admission().observer();
        Self {
            access: SessionAccess::new(session, observer),
            flow,
            port,
        }
    }

    /// Leads the flow to its service and brings back what the service sends. Gives the flow back when it is over.
    pub(super) async fn run(mut self) -> Arc<Flow> {
        if let Err(failure) = self.carry().await {
            let request_id = self.access.session.uuid;
            tracing::debug!(%request_id, %failure, "a UDP flow ended");
            self.access.on_failure(&failure);
        }
        self.flow.finish();
        self.flow.clone()
    }

    async fn carry(&mut self) -> Result<(), Failure> {
        let mut recv = self.open().await?;
        let mut left = BATCH;
        let mut is_accepted = false;
        while let Some(part) = recv.part().await {
            let part = part?;
            if !is_accepted {
                is_accepted = true;
                self.access.on_accepted();
            }
            if let Part::Datagram(data) = part {
                self.answer(&data);
            }
            left -= 1;
            if left == 0 {
                tokio::task::yield_now().await;
                left = BATCH;
            }
        }
        self.flow.finish();
        self.access.on_end();
        Ok(())
    }

    /// Finds out where the flow goes, and opens it there (P-11.1).
    async fn open(&mut self) -> Result<RecvHalf, Failure> {
        let access = &mut self.access;
        access.phases.add(Phase::Accept, access.session.started);
        let admission = self.port.admission();
        access.phases.begin(Phase::Queue);
        let holds = admission.admit_session(&access.session).await?;
        access.phases.end(Phase::Queue);
        access.phases.begin(Phase::Route);
        let directed = admission.direct_session(&access.session, &[], true).await;
        access.phases.end(Phase::Route);
        let destination = directed?;
        let context = access.transit().map(|context| context.to_string());
        let traceparent = context.as_deref().unwrap_or_default();
        let head = UdpOpenHead {
            open: &access.session.open(&destination, traceparent),
            local: &self.port.local_text,
        };
        let head = head
            .encode()
            .map_err(|error| Failure::new(Reason::Internal, error.to_string()))?;
        let opener = destination.lane.mux().side();
        access.on_route(destination.grant, opener);
        let exchange = destination.lane.open(head, false, None)?;
        exchange.hold((holds, destination.hold));
        let Exchange { send, recv } = exchange;
        self.flow.open(send)?;
        Ok(recv)
    }

    /// Sends a datagram to the visitor, now or not at all.
    fn answer(&mut self, data: &[u8]) {
        self.flow.hear(self.port.now());
        let counters = self.port.counters();
        match self.port.socket.try_send_to(data, self.flow.visitor) {
            Ok(_) => {
                self.access.on_sent(data.len() as u64);
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

impl Drop for Run {
    fn drop(&mut self) {
        self.access.received_bytes = self.flow.received_bytes.load(Ordering::Relaxed);
        if let State::Over(Some(why)) = &*self.flow.lock() {
            self.access.on_failure(why);
        }
        let counters = self.port.counters();
        counters.flows_open.fetch_sub(1, Ordering::Relaxed);
        if let Some(reason) = self.access.reason() {
            counters.count_failure(reason);
        }
    }
}
