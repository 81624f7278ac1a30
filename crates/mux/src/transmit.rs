//! What is sent next (P-5.1): control messages, owed messages, heads, then the requests in turn.

use adit_codec::{
    Batch, Queue, RequestId, write_chunk_prefix, write_compressed_prefix, write_control,
    write_datagram_prefix, write_end, write_frame_prefix, write_head, write_reset,
    write_stop_sending, write_trailers, write_window,
};
use adit_flow::MESSAGE_COST;

use crate::{
    request::{Item, SendState},
    state::State,
};

/// Bytes for the transport, and the requests that may send again now that the bytes have left the queue.
#[derive(Debug)]
pub struct Transmit {
    /// The bytes; `None` if only room has become free.
    pub batch: Option<Batch>,
    /// Requests whose senders wait and may try again.
    pub writable: Vec<RequestId>,
}

impl Queue for State {
    type Batch = Transmit;

    fn writer(&self) -> u32 {
        self.connection
    }

    fn is_ready(&self) -> bool {
        !(self.control.is_empty()
            && self.control_reply.is_none()
            && self.refusals.is_empty()
            && self.owing.is_empty()
            && self.heads.is_empty()
            && self.data.is_empty())
            || self.can_unblock()
    }

    fn next_batch(&mut self) -> Option<Transmit> {
        if !self.is_ready() {
            return None;
        }
        let limit = self.config.max_batch.max(1);
        while self.builder.len() < limit && self.put_urgent() {}
        // Heads precede payload, but leave half of the batch to it: a flood of small responses must not starve a body.
        let heads_limit = if self.data.is_empty() {
            limit
        } else {
            limit.min(self.builder.len() + limit.div_ceil(2))
        };
        while self.builder.len() < heads_limit && self.put_head() {}
        let mut writable = Vec::new();
        while self.builder.len() < limit && self.put_item(&mut writable) {}
        self.unblock(&mut writable);
        self.shrink();
        let bytes = self.builder.len();
        let batch = self.builder.finish();
        if batch.is_none() && writable.is_empty() {
            return None;
        }
        self.stats.batches_sent += u64::from(batch.is_some());
        self.stats.bytes_sent += bytes as u64;
        Some(Transmit { batch, writable })
    }
}

impl State {
    /// Puts one control message, refusal or owed message. False when none waits.
    fn put_urgent(&mut self) -> bool {
        let control = self.control.pop_front();
        if let Some(control) = control.or_else(|| self.control_reply.take()) {
            self.builder.put(|out| write_control(out, &control));
            self.stats.messages_sent += 1;
            return true;
        }
        if let Some((id, code)) = self.refusals.pop_front() {
            self.builder
                .put(|out| write_reset(out, id, code, code.reason(), false));
            self.stats.messages_sent += 1;
            return true;
        }
        let Some(id) = self.owing.pop_front() else {
            return false;
        };
        let Some(request) = self.requests.get_mut(&id) else {
            return true;
        };
        request.owed.listed = false;
        if let Some((code, reason)) = request.owed.reset.take() {
            self.builder
                .put(|out| write_reset(out, id, code, &reason, false));
            self.stats.messages_sent += 1;
            self.remove(id);
            return true;
        }
        if let Some(code) = request.owed.stop.take() {
            self.builder.put(|out| write_stop_sending(out, id, code));
            self.stats.messages_sent += 1;
        }
        if std::mem::take(&mut request.owed.window)
            && let Some(grant) = request
                .recv_credit
                .grant(&self.budget, self.config.max_window)
        {
            self.stats.windows_sent += 1;
            self.stats.messages_sent += 1;
            self.builder
                .put(|out| write_window(out, id, grant.limit, grant.consumed));
        }
        self.remove_if_over(id);
        true
    }

    /// Puts one head. False when none waits.
    fn put_head(&mut self) -> bool {
        let Some((id, head, end)) = self.heads.pop_front() else {
            return false;
        };
        let Some(request) = self.requests.get_mut(&id).filter(|r| r.heads > 0) else {
            // The request was reset before its head was sent: the peer never receives it.
            self.stale_heads -= 1;
            return true;
        };
        // The peer stopped the direction in the meantime: the end after the head is queued already (P-6.1).
        let end = end && !request.stopped;
        self.builder.put(|out| write_head(out, id, &head, end));
        self.stats.messages_sent += 1;
        request.heads -= 1;
        request.announced = true;
        if request.heads == 0 && !request.held.is_empty() {
            self.held_cost -= std::mem::take(&mut request.held_cost);
            for (item, cost) in std::mem::take(&mut request.held) {
                self.data.push(id, item, cost);
            }
        }
        if end {
            request.send = SendState::Done;
        }
        Self::list_owing(&mut self.owing, id, request);
        self.remove_if_over(id);
        true
    }

    /// Puts one message of the request whose turn it is. False when none waits.
    fn put_item(&mut self, writable: &mut Vec<RequestId>) -> bool {
        let Some((id, item)) = self.data.pop() else {
            return false;
        };
        let end = match item {
            Item::Chunk { data, end } => {
                let length = data.len();
                self.builder
                    .put(|out| write_chunk_prefix(out, id, length, end));
                self.builder.put_payload(data);
                end
            }
            Item::Frame { frame, data, end } => {
                let length = data.len();
                self.builder
                    .put(|out| write_frame_prefix(out, id, frame, length, end));
                self.builder.put_payload(data);
                end
            }
            Item::Compressed {
                frame,
                compressed,
                data,
                end,
            } => {
                let length = data.len();
                self.builder.put(|out| {
                    write_compressed_prefix(out, id, compressed, frame, length, end);
                });
                self.builder.put_payload(data);
                end
            }
            Item::Datagram(data) => {
                let length = data.len();
                self.datagram_cost -= length as u64 + MESSAGE_COST;
                self.builder
                    .put(|out| write_datagram_prefix(out, id, length));
                self.builder.put_payload(data);
                false
            }
            Item::Trailers(trailers) => {
                self.builder.put(|out| write_trailers(out, id, &trailers));
                true
            }
            Item::End => {
                self.builder.put(|out| write_end(out, id));
                true
            }
            Item::Abort => {
                let request = self.requests.get(&id);
                if let Some((code, reason)) = request.and_then(|r| r.abort.as_ref()) {
                    self.builder
                        .put(|out| write_reset(out, id, *code, reason, true));
                    self.stats.messages_sent += 1;
                    self.remove(id);
                }
                return true;
            }
        };
        self.stats.messages_sent += 1;
        let Some(request) = self.requests.get_mut(&id) else {
            return true;
        };
        if end {
            request.send = SendState::Done;
            self.remove_if_over(id);
        } else if request
            .send_credit
            .max_payload(self.config.max_payload)
            .is_some()
            && self.data.queued_cost(id) < self.config.max_queued_per_request
            && request.wake()
        {
            writable.push(id);
        }
        true
    }

    fn can_unblock(&self) -> bool {
        !self.blocked.is_empty() && self.queued_payload() < self.config.max_queued
    }

    /// Lets the requests continue that waited for room in the queue of all.
    fn unblock(&mut self, writable: &mut Vec<RequestId>) {
        let mut room = self.config.max_queued.saturating_sub(self.queued_payload());
        while room > 0
            && let Some(id) = self.blocked.pop_front()
        {
            let Some(request) = self.requests.get_mut(&id) else {
                continue;
            };
            request.blocked = false;
            if request.wake() {
                room = room.saturating_sub(self.config.max_payload as u64);
                writable.push(id);
            }
        }
    }
}
