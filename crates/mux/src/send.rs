//! The methods of sending tasks.

use adit_codec::{
    Compressed, EncodedHead, HeaderBlock, MAX_DATAGRAM_BYTES, MAX_INFLATED_BYTES, RequestId,
    ResetCode, WebSocketFrame,
};
use adit_flow::MESSAGE_COST;
use bytes::Bytes;
use thiserror::Error;

use crate::{
    request::{Item, RecvState, Request, SendState},
    state::State,
};

/// Requests that may wait only until their abort is sent ([`State::abort`]). They are not in the caller's table any
/// more, so this bound limits them on a lane whose transport is stuck.
pub(crate) const MAX_ABORTING: usize = 1024;

/// Why a request could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The stream is over.
    #[error("the data stream is closed")]
    Closed,
    /// All ids have been used; a new data stream is needed.
    #[error("the data stream has no more request ids")]
    Exhausted,
    /// The body in the head costs more than the initial window.
    #[error("the body in the head costs more than the initial window of {window} bytes")]
    BodyTooLong {
        /// The initial window.
        window: u32,
    },
}

/// Why something could not be sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SendError {
    /// The request is over: reset, lost, or unknown.
    #[error("the request is over")]
    Gone,
    /// This direction has ended.
    #[error("this direction of the request has ended")]
    Ended,
    /// More than [`Sendable::Now`] allowed. Returns the payload.
    #[error("more than may be sent now")]
    NoCredit(Bytes),
}

/// How much payload may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sendable {
    /// This many bytes may be sent, at least one.
    Now(usize),
    /// No bytes may be sent now; [`crate::Event::Writable`] will follow.
    Later,
}

impl State {
    pub(crate) fn open(
        &mut self,
        head: EncodedHead,
        end: bool,
        register: impl FnOnce(RequestId) -> bool,
    ) -> Result<Option<RequestId>, OpenError> {
        if self.closed {
            return Err(OpenError::Closed);
        }
        let id = self.next_id.ok_or(OpenError::Exhausted)?;
        let mut request = Request::new(head.protocol(), self.config.initial_window, false);
        if head.body_bytes() > 0 && request.send_credit.take(head.body_bytes()).is_err() {
            return Err(OpenError::BodyTooLong {
                window: self.config.initial_window,
            });
        }
        if !register(id) {
            return Ok(None);
        }
        self.next_id = id.next();
        request.heads = 1;
        if end {
            request.send = SendState::Ending;
        }
        // A window that is too small for any message is enlarged at once.
        request.owed.window = request.recv_credit.consume(0);
        self.requests.insert(id, request);
        self.heads.push_back((id, head, end));
        self.stats.opened += 1;
        Ok(Some(id))
    }

    /// Queues the head of a response. Heads of responses wait with the openings, before all payload: they are small,
    /// and a visitor waits for the first byte.
    pub(crate) fn respond(
        &mut self,
        id: RequestId,
        head: EncodedHead,
        end: bool,
    ) -> Result<(), SendError> {
        let request = open_for_sending(self.requests.get_mut(&id))?;
        if head.body_bytes() > 0 && request.send_credit.take(head.body_bytes()).is_err() {
            return Err(SendError::NoCredit(Bytes::new()));
        }
        if end {
            request.send = SendState::Ending;
        }
        request.heads += 1;
        request.has_sent |= end || head.body_bytes() > 0;
        self.heads.push_back((id, head, end));
        Ok(())
    }

    pub(crate) fn sendable(&mut self, id: RequestId) -> Result<Sendable, SendError> {
        let total = self.queued_payload();
        let queued = self.data.queued_cost(id);
        let request = open_for_sending(self.requests.get_mut(&id))?;
        let queued = queued + request.held_cost;
        let credit = request.send_credit.max_payload(self.config.max_payload);
        let own_room = queued < self.config.max_queued_per_request;
        // A request with nothing queued may always add one message, whatever other requests have queued, up to twice
        // the bound.
        let room = total < self.config.max_queued
            || (queued == 0 && total < self.config.max_queued.saturating_mul(2));
        match credit {
            Some(bytes) if own_room && room => Ok(Sendable::Now(bytes)),
            credit => {
                request.wants_to_send = true;
                if credit.is_some() && own_room && !request.blocked {
                    request.blocked = true;
                    self.blocked.push_back(id);
                }
                Ok(Sendable::Later)
            }
        }
    }

    pub(crate) fn send(&mut self, id: RequestId, data: Bytes, end: bool) -> Result<(), SendError> {
        let request = open_for_sending(self.requests.get_mut(&id))?;
        let length = data.len();
        if length > self.config.max_payload {
            return Err(SendError::NoCredit(data));
        }
        if length == 0 {
            return if end {
                self.finish(id, Item::End)
            } else {
                Ok(())
            };
        }
        if request.send_credit.take(length).is_err() {
            return Err(SendError::NoCredit(data));
        }
        if end {
            request.send = SendState::Ending;
        }
        request.has_sent = true;
        let cost = length as u64 + MESSAGE_COST;
        Self::enqueue(
            &mut self.data,
            &mut self.held_cost,
            id,
            request,
            (Item::Chunk { data, end }, cost),
        );
        Ok(())
    }

    pub(crate) fn send_frame(
        &mut self,
        id: RequestId,
        frame: WebSocketFrame,
        data: Bytes,
        end: bool,
    ) -> Result<(), SendError> {
        let request = open_for_sending(self.requests.get_mut(&id))?;
        let length = data.len();
        // An empty frame has a cost as well: a peer must not be able to send them for free.
        if length > self.config.max_payload || request.send_credit.take(length).is_err() {
            return Err(SendError::NoCredit(data));
        }
        if end {
            request.send = SendState::Ending;
        }
        request.has_sent = true;
        let cost = length as u64 + MESSAGE_COST;
        Self::enqueue(
            &mut self.data,
            &mut self.held_cost,
            id,
            request,
            (Item::Frame { frame, data, end }, cost),
        );
        Ok(())
    }

    pub(crate) fn send_compressed(
        &mut self,
        id: RequestId,
        (frame, compressed): (Option<WebSocketFrame>, Compressed),
        data: Bytes,
        end: bool,
    ) -> Result<(), SendError> {
        let request = open_for_sending(self.requests.get_mut(&id))?;
        let length = compressed.inflated_len();
        debug_assert!(data.len() < length);
        if length > self.config.max_payload.min(MAX_INFLATED_BYTES)
            || request.send_credit.take(length).is_err()
        {
            return Err(SendError::NoCredit(data));
        }
        if end {
            request.send = SendState::Ending;
        }
        request.has_sent = true;
        // In the request's turn, the inflated size counts, as it does for credit.
        let cost = length as u64 + MESSAGE_COST;
        let item = Item::Compressed {
            frame,
            compressed,
            data,
            end,
        };
        Self::enqueue(
            &mut self.data,
            &mut self.held_cost,
            id,
            request,
            (item, cost),
        );
        Ok(())
    }

    /// Queues a datagram after those of its request. If there are too many, of its own or of all flows together, the
    /// oldest are dropped (P-11.3). A flow with nothing queued may add one whatever other flows have queued, up to
    /// twice the bound, so that a quiet flow can send while others flood.
    pub(crate) fn send_datagram(&mut self, id: RequestId, data: Bytes) -> Result<(), SendError> {
        let request = open_for_sending(self.requests.get_mut(&id))?;
        if data.len() > self.config.max_payload.min(MAX_DATAGRAM_BYTES) {
            return Err(SendError::NoCredit(data));
        }
        request.has_sent = true;
        let cost = data.len() as u64 + MESSAGE_COST;
        loop {
            let own = self.data.queued_cost(id) + request.held_cost;
            let all = self.datagram_cost;
            let fits = own + cost <= self.config.max_queued_datagrams
                && all + cost <= self.config.max_queued;
            if fits || (own == 0 && all < self.config.max_queued.saturating_mul(2)) {
                break;
            }
            self.stats.datagrams_dropped += 1;
            // The held messages are newer than the queued ones.
            let oldest = self.data.drop_oldest(id).or_else(|| {
                let (item, cost) = request.held.pop_front()?;
                request.held_cost -= cost;
                self.held_cost -= cost;
                Some((item, cost))
            });
            let Some((item, cost)) = oldest else {
                return Ok(());
            };
            self.datagram_cost -= item.datagram_cost(cost);
        }
        self.datagram_cost += cost;
        Self::enqueue(
            &mut self.data,
            &mut self.held_cost,
            id,
            request,
            (Item::Datagram(data), cost),
        );
        Ok(())
    }

    pub(crate) fn trailers(
        &mut self,
        id: RequestId,
        trailers: HeaderBlock,
    ) -> Result<(), SendError> {
        self.finish(id, Item::Trailers(trailers))
    }

    fn finish(&mut self, id: RequestId, item: Item) -> Result<(), SendError> {
        let request = open_for_sending(self.requests.get_mut(&id))?;
        request.send = SendState::Ending;
        request.has_sent = true;
        Self::enqueue(
            &mut self.data,
            &mut self.held_cost,
            id,
            request,
            (item, MESSAGE_COST),
        );
        Ok(())
    }

    pub(crate) fn consume(&mut self, id: RequestId, cost: u64) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let due = request.recv_credit.consume(cost);
        if due && request.recv == RecvState::Open && !request.is_reset() {
            request.owed.window = true;
            Self::list_owing(&mut self.owing, id, request);
        }
        self.remove_if_over(id);
    }

    /// Sends `StopSending`; later messages of that direction are dropped.
    pub(crate) fn stop_sending(&mut self, id: RequestId, code: ResetCode) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        request.recv_credit.consume(u64::MAX);
        if request.recv == RecvState::Open {
            request.recv = RecvState::Discarding;
            if !request.is_reset() {
                request.owed.window = false;
                request.owed.stop = Some(code);
                Self::list_owing(&mut self.owing, id, request);
            }
        }
        self.remove_if_over(id);
    }

    /// Aborts this end's direction after everything that it has sent, and stops the peer's at once. If too many
    /// requests wait for their abort already, it is reset instead.
    pub(crate) fn abort(&mut self, id: RequestId, code: ResetCode, reason: &str) -> bool {
        let Some(request) = self.requests.get_mut(&id) else {
            return false;
        };
        if request.is_reset() {
            return false;
        }
        let is_over = request.send == SendState::Done && request.recv == RecvState::Done;
        if is_over || self.aborting >= MAX_ABORTING {
            return self.reset(id, code, reason);
        }
        self.aborting += 1;
        request.recv_credit.consume(u64::MAX);
        request.owed.window = false;
        if request.recv == RecvState::Open {
            request.recv = RecvState::Discarding;
            request.owed.stop = Some(code);
            Self::list_owing(&mut self.owing, id, request);
        }
        request.send = SendState::Ending;
        request.wants_to_send = false;
        request.abort = Some((code, reason.into()));
        let item = (Item::Abort, MESSAGE_COST);
        Self::enqueue(&mut self.data, &mut self.held_cost, id, request, item);
        true
    }
}

fn open_for_sending(request: Option<&mut Request>) -> Result<&mut Request, SendError> {
    match request {
        Some(request) if request.is_reset() => Err(SendError::Gone),
        Some(request) if request.send == SendState::Open => Ok(request),
        Some(_) => Err(SendError::Ended),
        None => Err(SendError::Gone),
    }
}
