//! The reading end of a lane: delivers each message to its request.

use std::sync::{Arc, atomic::Ordering};

use adit_codec::{Compressed, RequestHead, RequestId, ResetCode};
use adit_mux::{Attachment, Event, ReceiveError, Receiver};
use adit_pending::Settled;
use bytes::Bytes;

use super::state::LaneState;
use crate::{
    dispatch::{Dispatch, IncomingRequest},
    exchange::Exchange,
    failure::Failure,
    inbox::{Arrived, DATAGRAM_OVERHEAD, Inbox, Packed},
    pinned::{hold, pin},
    turn::Turn,
};

/// Bytes of datagrams that are read before their tasks run: much less than may wait for one flow.
const DATAGRAMS_A_TURN_BYTES: usize = 32 * 1024;

/// One turn of the reader is as long as this many turns of another task. The reader works for all requests of the lane:
/// a hundred flooding connections have a hundred turns, and with shorter turns a request after them in the lane would
/// wait for as many turns of the reader. Messages that belong to no request count as in any other task.
const READER_TURNS: usize = 64;

/// Messages that are handled under one lock.
const MESSAGES_PER_STEP: usize = 64;

/// The reading end of a lane: owned by the one task that drives it.
pub(crate) struct LaneReader {
    lane: Arc<LaneState>,
    connection: Attachment,
    dispatch: Arc<dyn Dispatch>,
    receiver: Receiver,
    events: Vec<Event>,
    /// Size of the transport's frame that is being handled.
    frame_bytes: usize,
    /// Bytes of datagrams delivered since their tasks last ran.
    datagram_bytes: usize,
    turn: Turn,
}

impl LaneReader {
    pub(super) fn new(
        lane: Arc<LaneState>,
        connection: Attachment,
        dispatch: Arc<dyn Dispatch>,
    ) -> Self {
        Self {
            receiver: Receiver::new(lane.mux.clone(), connection),
            connection,
            turn: Turn::new(lane.config.turn_bytes.saturating_mul(READER_TURNS)),
            lane,
            dispatch,
            events: Vec::new(),
            frame_bytes: 0,
            datagram_bytes: 0,
        }
    }

    /// Adds one frame, whose messages [`LaneReader::handle_some`] delivers.
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

    /// Delivers the next messages of the frame; returns whether there may be more.
    pub(crate) fn handle_some(&mut self) -> Result<bool, ReceiveError> {
        let handled = self
            .receiver
            .handle_some(MESSAGES_PER_STEP, &mut self.events);
        let mut of_requests = 0;
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            of_requests += usize::from(!matches!(event, Event::Control(_)));
            if let Event::Datagram { data, .. } = &event {
                self.datagram_bytes += data.len() + DATAGRAM_OVERHEAD;
            }
            self.on_event(event);
        }
        self.events = events;
        let count = handled?;
        let without_effect = count.saturating_sub(of_requests);
        self.turn.steps(of_requests);
        self.turn.steps(without_effect.saturating_mul(READER_TURNS));
        Ok(count == MESSAGES_PER_STEP)
    }

    /// Lets other tasks of the thread run when the turn is over: every message costs work, with or without payload.
    /// Credit bounds payload; datagrams have no credit, and are dropped when they are read faster than their tasks
    /// receive them (P-11.3).
    pub(crate) async fn yield_if_over(&mut self) {
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

    fn on_event(&self, event: Event) {
        match event {
            Event::Opened { id, head, end } => self.on_opened(id, head, end),
            Event::Control(control) => self.lane.on_control(&control),
            Event::Response { id, mut head, end } => {
                let Some(inbox) = self.lane.table.lookup(id.value()) else {
                    return;
                };
                if !head.is_final() && !inbox.take_interim() {
                    self.lane.fault(id, &inbox, "too many interim responses");
                    return;
                }
                let body = head.take_body();
                // This is also done when the response is complete: the request may continue, and its reader may be
                // slow.
                if head.is_final() {
                    self.lane.table.set_deadline(id.value(), None);
                }
                inbox.deliver(Arrived::Response(head), 0, end && body.is_empty());
                if !body.is_empty() {
                    let cost = body.len() as u64 + adit_flow::MESSAGE_COST;
                    self.deliver(&inbox, body, cost, end);
                }
            }
            Event::Data {
                id,
                data,
                cost,
                end,
            } => {
                let Some(inbox) = self.lane.table.lookup(id.value()) else {
                    return;
                };
                self.deliver(&inbox, data, cost, end);
            }
            Event::Frame {
                id,
                frame,
                data,
                cost,
                end,
            } => {
                let Some(inbox) = self.lane.table.lookup(id.value()) else {
                    return;
                };
                let payload = self.hold(&inbox, data, None, cost);
                inbox.deliver(Arrived::Frame(frame, payload), cost, end);
            }
            Event::Compressed {
                id,
                frame,
                compressed,
                data,
                cost,
                end,
            } => {
                let Some(inbox) = self.lane.table.lookup(id.value()) else {
                    return;
                };
                let payload = self.hold(&inbox, data, Some(compressed), cost);
                let part = match frame {
                    Some(frame) => Arrived::Frame(frame, payload),
                    None => Arrived::Data(payload),
                };
                inbox.deliver(part, cost, end);
            }
            Event::Datagram { id, data, end } => {
                let Some(inbox) = self.lane.table.lookup(id.value()) else {
                    return;
                };
                // A datagram has no credit: a waiting one must not keep its whole frame in memory.
                let data = hold(data, self.frame_bytes, true, &self.lane.pinned);
                if !inbox.try_deliver_datagram(data, end) {
                    self.lane.datagrams_dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Event::Trailers { id, trailers } => {
                if let Some(inbox) = self.lane.table.lookup(id.value()) {
                    inbox.deliver(Arrived::Trailers(trailers), 0, true);
                }
            }
            Event::End { id } => {
                if let Some(inbox) = self.lane.table.lookup(id.value()) {
                    inbox.end();
                }
            }
            Event::Writable { id } => self.lane.writable(id),
            Event::Stopped { id, code } => {
                if let Some(inbox) = self.lane.table.lookup(id.value()) {
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
                if let Some(inbox) = self.lane.table.lookup(id.value()) {
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

    fn on_opened(&self, id: RequestId, mut head: RequestHead, end: bool) {
        let inbox = Arc::new(Inbox::default());
        let body = head.take_body();
        if self
            .lane
            .table
            .insert(id.value(), None, inbox.clone())
            .is_err()
        {
            self.lane
                .mux
                .reset(id, ResetCode::Refused, "the lane is full");
            return;
        }
        // The connection was detached in between: the requests in the table have failed then, and this one was not in
        // the table yet.
        if let Some(failure) = self.lane.lost(self.connection) {
            self.lane.table.settle(id.value(), Settled::Failed);
            inbox.fail(failure);
            return;
        }
        let exchange = Exchange::new(self.lane.clone(), id, inbox.clone(), false);
        if body.is_empty() {
            inbox.lock().ended = end;
        } else {
            let cost = body.len() as u64 + adit_flow::MESSAGE_COST;
            self.deliver(&inbox, body, cost, end);
        }
        self.dispatch.dispatch(IncomingRequest { head, exchange });
    }

    fn deliver(&self, inbox: &Inbox, data: Bytes, cost: u64, end: bool) {
        let payload = self.hold(inbox, data, None, cost);
        inbox.deliver(Arrived::Data(payload), cost, end);
    }

    fn hold(
        &self,
        inbox: &Inbox,
        data: Bytes,
        compressed: Option<Compressed>,
        cost: u64,
    ) -> Packed {
        let backlogged = inbox.lock().waiting > 0;
        let data = hold(data, self.frame_bytes, backlogged, &self.lane.pinned);
        Packed {
            bytes: data,
            compressed,
            cost,
        }
    }
}
