//! Handles the peer's messages.

use adit_codec::{DecodeError, Envelope, Payload, RequestHead, RequestId, ResetCode};
use adit_flow::MESSAGE_COST;
use bytes::Bytes;
use thiserror::Error;

use crate::{
    event::Event,
    request::{Item, RecvState, Request, SendState},
    state::State,
};

/// Refusals that may wait to be sent (P-2.9).
pub(crate) const MAX_REFUSALS: usize = 1024;

/// Why the data stream cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReceiveError {
    /// The framing is lost.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The peer opens requests faster than refusals can be sent (P-2.9).
    #[error(
        "the peer opens requests faster than they can be refused ({owed} refusals wait to be sent)"
    )]
    TooManyRefusals {
        /// Refusals that wait to be sent.
        owed: usize,
    },
    /// The peer opens and resets requests in a loop ([`crate::Config::max_resets_per_tick`]).
    #[error(
        "{given_up} requests of the peer were reset within one tick before their responses had payload"
    )]
    RapidReset {
        /// Requests opened and reset since the last tick.
        given_up: u32,
    },
    /// The connection that the bytes are from is lost, or the stream has another one.
    #[error("this connection no longer belongs to the data stream")]
    Detached,
}

fn chunk_cost(data: &Bytes, first: bool) -> u64 {
    data.len() as u64 + if first { MESSAGE_COST } else { 0 }
}

fn body_cost(bytes: usize) -> u64 {
    if bytes == 0 {
        0
    } else {
        bytes as u64 + MESSAGE_COST
    }
}

impl State {
    pub(crate) fn handle(
        &mut self,
        envelope: Envelope,
        events: &mut Vec<Event>,
    ) -> Result<(), ReceiveError> {
        let id = envelope.id;
        self.stats.messages_received += 1;
        if id == RequestId::STREAM {
            match envelope.payload {
                Payload::Control(control) => events.push(Event::Control(control)),
                _ => self.stats.violations += 1,
            }
            return Ok(());
        }
        match self.requests.get(&id) {
            Some(request) if request.announced => self.handle_open(envelope, events),
            // The head of this request has not been sent: the peer cannot know the id (P-2.6).
            Some(_) => self.stats.violations += 1,
            None => return self.handle_unknown(envelope, events),
        }
        if self.given_up > self.config.max_resets_per_tick {
            return Err(ReceiveError::RapidReset {
                given_up: self.given_up,
            });
        }
        Ok(())
    }

    /// A message for an id that is not open: it opens a request, is late, or violates a rule.
    fn handle_unknown(
        &mut self,
        envelope: Envelope,
        events: &mut Vec<Event>,
    ) -> Result<(), ReceiveError> {
        let id = envelope.id;
        if id.opener() == self.side() {
            match self.next_id {
                Some(next) if id >= next => self.stats.violations += 1,
                _ => self.stats.late += 1,
            }
            return Ok(());
        }
        if id <= self.peer_highest {
            self.stats.late += 1;
            return Ok(());
        }
        self.peer_highest = id;
        match envelope.payload {
            Payload::Request(head) => self.accept(id, head, envelope.end_stream, events),
            // No message responds to a reset (P-2.5).
            Payload::Reset { .. } => {
                self.stats.violations += 1;
                Ok(())
            }
            _ => {
                self.stats.violations += 1;
                self.refuse(id, ResetCode::ProtocolError)
            }
        }
    }

    fn accept(
        &mut self,
        id: RequestId,
        head: RequestHead,
        end: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), ReceiveError> {
        if self.peer_open >= self.config.max_requests {
            return self.refuse(id, ResetCode::Refused);
        }
        let mut request = Request::new(head.protocol(), self.config.initial_window, true);
        if request
            .recv_credit
            .on_received(body_cost(head.body_bytes()))
            .is_err()
        {
            self.stats.violations += 1;
            return self.refuse(id, ResetCode::FlowControl);
        }
        if end {
            request.recv = RecvState::Done;
        } else {
            // A window that is too small for any message is enlarged at once.
            request.owed.window = request.recv_credit.consume(0);
            Self::list_owing(&mut self.owing, id, &mut request);
        }
        self.requests.insert(id, request);
        self.peer_open += 1;
        self.stats.accepted += 1;
        events.push(Event::Opened { id, head, end });
        Ok(())
    }

    fn refuse(&mut self, id: RequestId, code: ResetCode) -> Result<(), ReceiveError> {
        if self.refusals.len() >= MAX_REFUSALS {
            return Err(ReceiveError::TooManyRefusals {
                owed: self.refusals.len(),
            });
        }
        self.stats.refused += 1;
        self.refusals.push_back((id, code));
        Ok(())
    }

    fn handle_open(&mut self, envelope: Envelope, events: &mut Vec<Event>) {
        let Envelope {
            id,
            end_stream: end,
            payload,
        } = envelope;
        match payload {
            Payload::Window { limit, consumed } => self.on_window(id, limit, consumed, events),
            Payload::StopSending(code) => self.on_stop_sending(id, code, events),
            Payload::Reset {
                code,
                reason,
                in_order,
            } => {
                self.on_reset(id, code, reason, in_order, events);
                return;
            }
            payload => {
                self.on_stream(id, payload, end, events);
                return;
            }
        }
        // `end_stream` is valid on any message (P-2.7); these messages may follow the end, and have no effect then.
        let is_new = |request: &Request| request.recv != RecvState::Done;
        if end && self.requests.get(&id).is_some_and(is_new) {
            self.on_stream(id, Payload::None, true, events);
        }
    }

    fn on_reset(
        &mut self,
        id: RequestId,
        code: ResetCode,
        reason: Bytes,
        in_order: bool,
        events: &mut Vec<Event>,
    ) {
        self.count_given_up(id);
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let known = !request.is_reset();
        let in_order = in_order && known && request.recv != RecvState::Discarding;
        if in_order {
            // The messages before the abort are still being delivered: their window stays charged until that has been
            // done.
            request.send = SendState::Done;
            request.recv = RecvState::Done;
            request.owed.window = false;
            request.owed.stop = None;
            request.wants_to_send = false;
            self.stale_heads += std::mem::take(&mut request.heads);
            self.drop_queued(id);
            self.prune();
            self.remove_if_over(id);
        } else {
            self.remove(id);
        }
        if known {
            events.push(Event::Reset {
                id,
                code,
                by_peer: true,
                reason,
                in_order,
            });
        }
    }

    /// Counts a request of the peer that the peer ends, or makes this end reset, before anything was sent for it. Such
    /// a request costs the peer nothing, frees its place among the open requests, and costs this end the work of
    /// starting it (rapid reset, CVE-2023-44487; made-you-reset, CVE-2025-8671).
    fn count_given_up(&mut self, id: RequestId) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        let counted = request.stopped || request.is_reset();
        if id.opener() != self.side() && !request.has_sent && !counted {
            self.given_up = self.given_up.saturating_add(1);
        }
    }

    fn on_window(&mut self, id: RequestId, limit: u64, consumed: u64, events: &mut Vec<Event>) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        match request.send_credit.on_window(limit, consumed) {
            Ok(more) => {
                if more && request.wake() {
                    events.push(Event::Writable { id });
                }
            }
            Err(_) => self.violate(
                id,
                ResetCode::ProtocolError,
                "the window exceeds what was sent",
                events,
            ),
        }
    }

    fn on_stop_sending(&mut self, id: RequestId, code: ResetCode, events: &mut Vec<Event>) {
        // A repeated request has no effect.
        let is_new = |request: &Request| {
            request.send != SendState::Done && request.owed.reset.is_none() && !request.stopped
        };
        if !self.requests.get(&id).is_some_and(is_new) {
            return;
        }
        self.count_given_up(id);
        self.drop_queued(id);
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        request.stopped = true;
        request.send = SendState::Ending;
        request.wants_to_send = false;
        // A head that has not been sent keeps its place; the end follows it (P-6.1), or the reset that was queued
        // there.
        let is_aborted = request.abort.is_some();
        let end = if is_aborted { Item::Abort } else { Item::End };
        let end = (end, MESSAGE_COST);
        Self::enqueue(&mut self.data, &mut self.held_cost, id, request, end);
        if !is_aborted {
            events.push(Event::Stopped { id, code });
        }
    }

    /// Handles the messages that have a place in the order of the peer's direction.
    fn on_stream(&mut self, id: RequestId, payload: Payload, end: bool, events: &mut Vec<Event>) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        if request.owed.reset.is_some()
            || (request.abort.is_some() && request.recv == RecvState::Done)
        {
            return;
        }
        if request.recv == RecvState::Done {
            self.violate(
                id,
                ResetCode::ProtocolError,
                "message after the end of the direction",
                events,
            );
            return;
        }
        let cost = match &payload {
            Payload::Chunk { data, first, .. } => chunk_cost(data, *first),
            Payload::Frame { data, .. } => data.len() as u64 + MESSAGE_COST,
            Payload::Compressed { compressed, .. } => {
                u64::from(compressed.inflated_bytes) + MESSAGE_COST
            }
            Payload::Response(head) => body_cost(head.body_bytes()),
            _ => 0,
        };
        if request.recv_credit.on_received(cost).is_err() {
            self.violate(
                id,
                ResetCode::FlowControl,
                "payload exceeds the limit of the window",
                events,
            );
            return;
        }
        let discarding = request.recv == RecvState::Discarding;
        if discarding {
            request.recv_credit.consume(cost);
        }
        let is_end = end || matches!(payload, Payload::Trailers(_));
        if is_end && !matches!(payload, Payload::Bad(_) | Payload::Control(_)) {
            request.recv = RecvState::Done;
            request.owed.window = false;
        }
        if let Payload::Bad(what) = payload {
            self.violate(id, ResetCode::ProtocolError, what.to_string(), events);
            return;
        }
        let is_own = id.opener() == self.config.side;
        let is_response = matches!(payload, Payload::Response(_));
        if !payload.fits(request.protocol) || (is_response && !is_own) {
            self.violate(
                id,
                ResetCode::ProtocolError,
                "message not valid at this point of the request",
                events,
            );
            return;
        }
        if is_own && !discarding {
            let in_place = if let Payload::Response(head) = &payload {
                let had_responded = request.responded;
                request.responded |= head.is_final();
                // One final head, and no end before it (P-3.1).
                !had_responded && (request.responded || !end)
            } else {
                // Datagrams never wait, not even for the response (P-11.1).
                request.responded || (matches!(payload, Payload::Datagram(_)) && !end)
            };
            if !in_place {
                let reason = "response out of order";
                self.violate(id, ResetCode::ProtocolError, reason, events);
                return;
            }
        }
        let event = match payload {
            Payload::Response(head) => Event::Response { id, head, end },
            Payload::Chunk { data, .. } => Event::Data {
                id,
                data,
                cost,
                end,
            },
            Payload::Frame { frame, data } => Event::Frame {
                id,
                frame,
                data,
                cost,
                end,
            },
            Payload::Compressed {
                compressed,
                frame,
                data,
            } => Event::Compressed {
                id,
                frame,
                compressed,
                data,
                cost,
                end,
            },
            Payload::Datagram(data) => Event::Datagram { id, data, end },
            Payload::Trailers(trailers) => Event::Trailers { id, trailers },
            _ => Event::End { id },
        };
        if !discarding {
            events.push(event);
        }
        if is_end {
            self.remove_if_over(id);
        }
    }

    fn violate(
        &mut self,
        id: RequestId,
        code: ResetCode,
        reason: impl Into<String>,
        events: &mut Vec<Event>,
    ) {
        self.stats.violations += 1;
        self.count_given_up(id);
        let reason = reason.into();
        if self.reset(id, code, &reason) {
            events.push(Event::Reset {
                id,
                code,
                by_peer: false,
                reason: Bytes::from(reason),
                in_order: false,
            });
        }
    }
}
