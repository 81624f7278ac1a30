//! One data stream with everything that belongs to it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use adit_codec::{Compressed, Compression, EncodedHead, RequestHead, RequestId, ResetCode};
use adit_flow::Budget;
use adit_mux::{Event, Mux, OpenError, ReceiveError, Receiver};
use adit_pending::{Settled, Table};
use adit_proto::{Control, Heartbeat, control::Kind};
use bytes::Bytes;
use prost::Message as _;
use tokio::sync::{Notify, watch};

use crate::{
    compress::{self, CompressionStats},
    exchange::Exchange,
    failure::{Failure, Reason},
    inbox::{DATAGRAM_OVERHEAD, Inbox, Part},
    liveness::{Liveness, Verdict},
    payload::Payload,
    pinned::{hold, pin},
    transport::Outbound,
    turn::Turn,
};

/// What is read of datagrams before their tasks have a turn: less than a flow may have waiting by far.
const DATAGRAMS_A_TURN_BYTES: usize = 32 * 1024;

/// Turns of other tasks that are one of the reader's. It works for all requests of the lane: a hundred connections that
/// flood have a hundred turns, and whoever stands behind them in the lane would wait for as many of the reader's. Messages
/// that mean nothing to any request count as in any other task.
const READER_TURNS: usize = 64;

/// Messages that are handled under one lock.
const MESSAGES_PER_STEP: usize = 64;

/// The bounds and times of one lane.
#[derive(Debug, Clone)]
pub struct LaneConfig {
    /// Bounds of its mux.
    pub mux: adit_mux::Config,
    /// Requests at a time in both directions together.
    pub max_entries: usize,
    /// Probes are sent after this much silence (P-6.5).
    pub heartbeat: Duration,
    /// The link is given up after this much silence (P-6.5).
    pub dead_after: Duration,
    /// Who takes nothing of what waits for them for this long is reset.
    pub stall: Duration,
    /// Work of one task in one turn ([`crate::turn`]); the reader has 64 times as much for messages of requests, each one step.
    pub turn_bytes: usize,
}

/// A request that the peer opened.
#[derive(Debug)]
pub struct Opened {
    /// Its head, without the body that rode along: that is the first part.
    pub head: RequestHead,
    /// The handle on it.
    pub exchange: Exchange,
}

/// Takes the requests that the peer opens. Called by the lane's reader: it must not block, only hand on.
pub trait Dispatch: Send + Sync {
    /// Takes one request. Dropping it cancels it; a refusal is `exchange.send.reset(ResetCode::Refused, …)`.
    fn dispatch(&self, opened: Opened);
}

/// Counters and gauges of one lane.
#[derive(Debug, Clone, Copy, Default)]
pub struct LaneStats {
    /// Of the mux.
    pub mux: adit_mux::Stats,
    /// Of the request table.
    pub pending: adit_pending::Stats,
    /// Cost of what has been received and has not left yet.
    pub waiting_bytes: u64,
    /// Memory of received frames that something still points into.
    pub pinned_bytes: usize,
    /// Datagrams dropped because nobody took them in time; those dropped before they left are in `mux`.
    pub datagrams_dropped: u64,
    /// What compression saved and cost.
    pub compression: CompressionStats,
}

/// Where a request stood when the sweep last looked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sweep {
    consumed: u64,
    since: Instant,
}

/// One data stream: the mux, the table of its requests, and whether the peer is there.
pub struct Lane {
    mux: Arc<Mux>,
    table: Table<Arc<Inbox>>,
    dispatch: Arc<dyn Dispatch>,
    config: LaneConfig,
    pinned: Arc<AtomicUsize>,
    liveness: Mutex<Liveness>,
    /// Bytes have come since the last tick.
    received: AtomicBool,
    /// Bytes that have come, for the log; written by the reader alone.
    received_bytes: AtomicU64,
    /// The peer gave no sign of life.
    silent: AtomicBool,
    /// Wakes whoever probes.
    alive: Notify,
    /// Datagrams that nobody took in time.
    datagrams_dropped: AtomicU64,
    /// What the peer can inflate, a bit for each number on the wire.
    peer_inflates: AtomicU8,
    /// The peer takes offers to change to another protocol.
    peer_upgrades: AtomicBool,
    compression: compress::Gauge,
    closed: watch::Sender<Option<Failure>>,
}

impl Lane {
    /// A lane at its start. Windows beyond the initial ones are charged to `budget`.
    pub fn new(config: LaneConfig, budget: Budget, dispatch: Arc<dyn Dispatch>) -> Arc<Self> {
        Arc::new(Self {
            mux: Mux::new(config.mux.clone(), budget),
            table: Table::new(adit_pending::Config {
                max_entries: config.max_entries,
            }),
            dispatch,
            pinned: Arc::default(),
            liveness: Mutex::new(Liveness::new(config.heartbeat, config.dead_after, now())),
            received: AtomicBool::new(false),
            received_bytes: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            alive: Notify::new(),
            datagrams_dropped: AtomicU64::new(0),
            peer_inflates: AtomicU8::new(0),
            peer_upgrades: AtomicBool::new(false),
            compression: compress::Gauge::default(),
            closed: watch::Sender::new(None),
            config,
        })
    }

    /// Opens a request on the peer's side. It fails by itself at `deadline` unless its answer has begun.
    ///
    /// # Errors
    /// A [`Failure`] that allows a retry elsewhere when the lane is over or full.
    pub fn open(
        self: &Arc<Self>,
        head: EncodedHead,
        end: bool,
        deadline: Option<Instant>,
    ) -> Result<Exchange, Failure> {
        let inbox = Arc::new(Inbox::default());
        let opened = self.mux.open(head, end, |id| {
            self.table
                .insert(id.value(), deadline, inbox.clone())
                .is_ok()
        });
        match opened {
            Ok(Some(id)) => Ok(Exchange::new(self.clone(), id, inbox, end)),
            Ok(None) => Err(Failure::new(Reason::Refused, "the lane is full or closed")),
            Err(OpenError::BodyTooLong { .. }) => {
                Err(Failure::new(Reason::Internal, "body in head too long"))
            }
            Err(error) => Err(Failure::new(Reason::Refused, error.to_string())),
        }
    }

    /// The mux.
    pub fn mux(&self) -> &Arc<Mux> {
        &self.mux
    }

    /// The peer can inflate this (P-13.1): until it is said, nothing is compressed.
    pub fn allow_compression(&self, by: Compression) {
        self.peer_inflates
            .fetch_or(1 << by.to_wire(), Ordering::Relaxed);
    }

    pub(crate) fn may_compress(&self, by: Compression) -> bool {
        self.peer_inflates.load(Ordering::Relaxed) & (1 << by.to_wire()) != 0
    }

    /// The peer has the capability `upgrade`: until this is called, no request offers to change to another protocol (P-3.7).
    pub fn allow_upgrades(&self) {
        self.peer_upgrades.store(true, Ordering::Relaxed);
    }

    /// Whether a request may offer to change to another protocol.
    pub fn may_upgrade(&self) -> bool {
        self.peer_upgrades.load(Ordering::Relaxed)
    }

    pub(crate) const fn compression(&self) -> &compress::Gauge {
        &self.compression
    }

    /// Credit of each direction of each request at its start.
    pub fn initial_window(&self) -> u32 {
        self.config.mux.initial_window
    }

    /// What the transport is to write. One writer only.
    pub fn outbound(self: &Arc<Self>) -> Outbound {
        Outbound::new(self.clone())
    }

    /// Ends the lane: every request fails once with `failure`, nothing is opened any more (P-6.4). Only the first call
    /// counts.
    pub fn close(&self, failure: &Failure) {
        let first = self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            if first {
                *closed = Some(failure.clone());
            }
            first
        });
        if !first {
            return;
        }
        self.mux.close();
        for (_, inbox) in self.table.close() {
            inbox.fail(failure.clone());
        }
    }

    /// Whether the lane is over.
    pub fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }

    /// Why the lane is over, if it is.
    pub fn closed(&self) -> Option<Failure> {
        self.closed.borrow().clone()
    }

    /// Waits until the lane is over.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn wait_closed(&self) -> Failure {
        let mut closed = self.closed.subscribe();
        loop {
            if let Some(failure) = closed.borrow_and_update().clone() {
                return failure;
            }
            if closed.changed().await.is_err() {
                return Failure::new(Reason::LinkLost, "the lane is gone");
            }
        }
    }

    /// Asks the peer for a sign of life and waits for any byte, at most `within`.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn probe(&self, within: Duration) -> bool {
        let alive = self.alive.notified();
        let sequence = {
            let now = now();
            let mut liveness = self.lock_liveness();
            // The reader wakes us at the first byte after this only: what has come since the last tick is no answer.
            if self.received.swap(false, Ordering::Relaxed) {
                liveness.on_received(now);
            }
            liveness.probe(now)
        };
        self.send_probe(sequence);
        tokio::select! {
            () = alive => !self.is_closed(),
            _ = self.wait_closed() => false,
            () = tokio::time::sleep(within) => false,
        }
    }

    /// Counters and gauges. Walks the open requests.
    pub fn stats(&self) -> LaneStats {
        let mut waiting_bytes = 0;
        self.table
            .for_each(|_, inbox| waiting_bytes += inbox.lock().waiting);
        LaneStats {
            mux: self.mux.stats(),
            pending: self.table.stats(),
            waiting_bytes,
            pinned_bytes: self.pinned.load(Ordering::Relaxed),
            datagrams_dropped: self.datagrams_dropped.load(Ordering::Relaxed),
            compression: self.compression.snapshot(),
        }
    }

    /// Whether the lane is over because its peer gave no sign of life (P-6.5).
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// Bytes of the data stream that have come.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Requests open now.
    pub fn open_requests(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn reader(self: &Arc<Self>) -> LaneReader {
        LaneReader {
            receiver: Receiver::new(self.mux.clone()),
            lane: self.clone(),
            events: Vec::new(),
            frame_bytes: 0,
            datagram_bytes: 0,
            turn: Turn::new(self.config.turn_bytes.saturating_mul(READER_TURNS)),
        }
    }

    /// How often [`Lane::tick`] is to be called.
    pub(crate) fn tick_every(&self) -> Duration {
        (self.config.heartbeat / 3).max(Duration::from_millis(10))
    }

    /// Everything that time does: probes, deadlines, stalled requests.
    pub(crate) fn tick(&self, now: Instant) {
        let verdict = {
            let mut liveness = self.lock_liveness();
            if self.received.swap(false, Ordering::Relaxed) {
                liveness.on_received(now);
            }
            liveness.on_tick(now)
        };
        match verdict {
            Verdict::Fine => {}
            Verdict::Probe(sequence) => self.send_probe(sequence),
            Verdict::Dead => {
                let silence = self.config.dead_after;
                self.silent.store(true, Ordering::Relaxed);
                self.close(&Failure::new(
                    Reason::LinkLost,
                    format!("the peer has been silent for {silence:?}"),
                ));
                return;
            }
        }
        self.mux.tick();
        let mut expired = Vec::new();
        self.table.expire(now, &mut expired);
        for (id, inbox) in expired {
            self.mux.reset(
                RequestId::new(id),
                ResetCode::ServiceTimeout,
                "no answer in time",
            );
            inbox.fail(Failure::new(
                Reason::ServiceTimeout,
                "the service did not answer in time",
            ));
        }
        self.sweep(now);
    }

    /// Resets requests for which something waits that nobody has taken for too long (F12).
    fn sweep(&self, now: Instant) {
        let mut stalled = Vec::new();
        self.table.for_each(|id, inbox| {
            let mut state = inbox.lock();
            let consumed = state.consumed;
            match state.swept {
                _ if state.waiting == 0 => state.swept = None,
                Some(swept) if swept.consumed == consumed => {
                    let stall = state.stall.unwrap_or(self.config.stall);
                    if now.saturating_duration_since(swept.since) >= stall {
                        stalled.push(id);
                    }
                }
                _ => {
                    state.swept = Some(Sweep {
                        consumed,
                        since: now,
                    });
                }
            }
        });
        for id in stalled {
            if let Some(inbox) = self.table.settle(id, Settled::Failed) {
                // Behind the end that opened waits a visitor, behind the other one a service.
                let id = RequestId::new(id);
                let code = if id.opener() == self.mux.side() {
                    ResetCode::Stalled
                } else {
                    ResetCode::ServiceTimeout
                };
                self.mux.reset(id, code, "no progress");
                inbox.fail(Failure::of_reset(code, b"nothing was taken for too long"));
            }
        }
    }

    pub(crate) fn settle(&self, id: RequestId, how: Settled, inbox: &Inbox) {
        self.table.settle(id.value(), how);
        inbox.release_held();
    }

    pub(crate) fn consumed(&self, id: RequestId, cost: u64) {
        self.mux.consume(id, cost);
    }

    pub(crate) fn stop_sending(&self, id: RequestId, code: ResetCode) {
        self.mux.stop_sending(id, code);
    }

    pub(crate) fn writable(&self, id: RequestId) {
        if let Some(inbox) = self.table.lookup(id.value()) {
            inbox.writable();
        }
    }

    fn lock_liveness(&self) -> std::sync::MutexGuard<'_, Liveness> {
        self.liveness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_probe(&self, sequence: u64) {
        self.mux.send_control(heartbeat(sequence, false));
    }

    fn on_control(&self, control: &Bytes) {
        // Unknown kinds are a newer peer's; a heartbeat is all that this stream carries today.
        if let Ok(Control {
            kind: Some(Kind::Heartbeat(Heartbeat { sequence, reply })),
        }) = Control::decode(&control[..])
            && !reply
        {
            self.mux.send_control_answer(heartbeat(sequence, true));
        }
    }

    pub(crate) fn fault(&self, id: RequestId, inbox: &Inbox, reason: &'static str) {
        self.mux.reset(id, ResetCode::ProtocolError, reason);
        inbox.fail(Failure::new(Reason::ProtocolError, reason));
    }

    fn on_event(self: &Arc<Self>, event: Event, frame_bytes: usize) {
        match event {
            Event::Opened { id, head, end } => self.on_opened(id, head, end, frame_bytes),
            Event::Control(control) => self.on_control(&control),
            Event::Answer { id, mut head, end } => {
                let Some(inbox) = self.table.lookup(id.value()) else {
                    return;
                };
                if !head.is_final() && !inbox.take_interim() {
                    self.fault(id, &inbox, "too many interim answers");
                    return;
                }
                let body = head.take_body();
                // Even when the answer is whole: the request may go on, and its reader may be slow.
                if head.is_final() {
                    self.table.set_deadline(id.value(), None);
                }
                inbox.deliver(Part::Answer(head), 0, end && body.is_empty());
                if !body.is_empty() {
                    let cost = body.len() as u64 + adit_flow::MESSAGE_COST;
                    self.deliver(&inbox, body, cost, end, frame_bytes);
                }
            }
            Event::Data {
                id,
                data,
                cost,
                end,
            } => {
                let Some(inbox) = self.table.lookup(id.value()) else {
                    return;
                };
                self.deliver(&inbox, data, cost, end, frame_bytes);
            }
            Event::Frame {
                id,
                frame,
                data,
                cost,
                end,
            } => {
                let Some(inbox) = self.table.lookup(id.value()) else {
                    return;
                };
                let payload = self.hold(&inbox, data, None, cost, frame_bytes);
                inbox.deliver(Part::Frame(frame, payload), cost, end);
            }
            Event::Compressed {
                id,
                frame,
                compressed,
                data,
                cost,
                end,
            } => {
                let Some(inbox) = self.table.lookup(id.value()) else {
                    return;
                };
                let payload = self.hold(&inbox, data, Some(compressed), cost, frame_bytes);
                let part = match frame {
                    Some(frame) => Part::Frame(frame, payload),
                    None => Part::Data(payload),
                };
                inbox.deliver(part, cost, end);
            }
            Event::Datagram { id, data, end } => {
                let Some(inbox) = self.table.lookup(id.value()) else {
                    return;
                };
                // They have no credit: one that waits must not keep the frame that it came in.
                let data = hold(data, frame_bytes, true, &self.pinned);
                if !inbox.try_deliver_datagram(data, end) {
                    self.datagrams_dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Event::Trailers { id, trailers } => {
                if let Some(inbox) = self.table.lookup(id.value()) {
                    inbox.deliver(Part::Trailers(trailers), 0, true);
                }
            }
            Event::End { id } => {
                if let Some(inbox) = self.table.lookup(id.value()) {
                    inbox.end();
                }
            }
            Event::Writable { id } => self.writable(id),
            Event::Stopped { id, code } => {
                if let Some(inbox) = self.table.lookup(id.value()) {
                    inbox.stop(code);
                }
            }
            Event::Reset {
                id,
                code,
                reason,
                in_order,
                ..
            } => {
                if let Some(inbox) = self.table.lookup(id.value()) {
                    let failure = Failure::of_reset(code, &reason);
                    if in_order {
                        inbox.abort(failure);
                    } else {
                        inbox.fail(failure);
                    }
                }
            }
        }
    }

    fn deliver(&self, inbox: &Inbox, data: Bytes, cost: u64, end: bool, frame_bytes: usize) {
        let payload = self.hold(inbox, data, None, cost, frame_bytes);
        inbox.deliver(Part::Data(payload), cost, end);
    }

    fn hold(
        &self,
        inbox: &Inbox,
        data: Bytes,
        compressed: Option<Compressed>,
        cost: u64,
        frame_bytes: usize,
    ) -> Payload {
        let backlogged = inbox.lock().waiting > 0;
        let data = hold(data, frame_bytes, backlogged, &self.pinned);
        Payload::new(data, compressed, cost)
    }

    fn on_opened(
        self: &Arc<Self>,
        id: RequestId,
        mut head: RequestHead,
        end: bool,
        frame_bytes: usize,
    ) {
        let inbox = Arc::new(Inbox::default());
        let body = head.take_body();
        if self.table.insert(id.value(), None, inbox.clone()).is_err() {
            self.mux.reset(id, ResetCode::Refused, "the lane is full");
            return;
        }
        let exchange = Exchange::new(self.clone(), id, inbox.clone(), false);
        if body.is_empty() {
            inbox.lock().ended = end;
        } else {
            let cost = body.len() as u64 + adit_flow::MESSAGE_COST;
            self.deliver(&inbox, body, cost, end, frame_bytes);
        }
        self.dispatch.dispatch(Opened { head, exchange });
    }
}

fn heartbeat(sequence: u64, reply: bool) -> Bytes {
    let kind = Some(Kind::Heartbeat(Heartbeat { sequence, reply }));
    Control { kind }.encode_to_vec().into()
}

/// The time by the runtime's clock, which tests may turn.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Drop for Lane {
    /// Whoever still holds a handle keeps the lane: at this point nobody waits, but the table wants to be told.
    fn drop(&mut self) {
        drop(self.table.close());
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("side", &self.mux.side())
            .field("open", &self.table.len())
            .finish_non_exhaustive()
    }
}

/// The reading end of a lane: owned by the one task that drives it.
pub(crate) struct LaneReader {
    lane: Arc<Lane>,
    receiver: Receiver,
    events: Vec<Event>,
    /// Of the transport's frame that is being handled.
    frame_bytes: usize,
    /// Datagrams handed on since their tasks were given a turn.
    datagram_bytes: usize,
    turn: Turn,
}

impl LaneReader {
    /// Takes one frame in, whose messages [`LaneReader::handle_some`] hands on.
    pub(crate) fn feed(&mut self, frame: Bytes) {
        if !self.lane.received.swap(true, Ordering::Relaxed) {
            self.lane.alive.notify_waiters();
        }
        let received = self.lane.received_bytes.load(Ordering::Relaxed);
        let received = received.wrapping_add(frame.len() as u64);
        self.lane.received_bytes.store(received, Ordering::Relaxed);
        self.frame_bytes = frame.len();
        self.turn.step(0);
        self.receiver.feed(pin(frame, &self.lane.pinned));
    }

    /// Hands on the next messages of the frame; whether there may be more.
    pub(crate) fn handle_some(&mut self) -> Result<bool, ReceiveError> {
        let handled = self
            .receiver
            .handle_some(MESSAGES_PER_STEP, &mut self.events);
        let mut of_requests = 0;
        for event in self.events.drain(..) {
            of_requests += usize::from(!matches!(event, Event::Control(_)));
            if let Event::Datagram { data, .. } = &event {
                self.datagram_bytes += data.len() + DATAGRAM_OVERHEAD;
            }
            self.lane.on_event(event, self.frame_bytes);
        }
        let count = handled?;
        let without_effect = count.saturating_sub(of_requests);
        self.turn.steps(of_requests);
        self.turn.steps(without_effect.saturating_mul(READER_TURNS));
        Ok(count == MESSAGES_PER_STEP)
    }

    /// Lets the other tasks of the thread run, when it is time: messages take work whether they carry anything or not.
    /// Payload is bounded by its credit; datagrams have none, and what is read faster than their tasks take it is lost
    /// (P-11.3).
    pub(crate) async fn go_on(&mut self) {
        if self.datagram_bytes >= DATAGRAMS_A_TURN_BYTES || self.turn.is_over() {
            self.datagram_bytes = 0;
            self.turn.end();
            tokio::task::yield_now().await;
        }
    }

    /// Whether the stream may end here.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.receiver.is_between_messages()
    }
}
