//! The stream, as its tasks use it.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use adit_codec::{
    Compressed, Decoder, EncodedHead, Envelope, HeaderBlock, Outbox, RequestId, ResetCode, Side,
    WebSocketFrame,
};
use adit_flow::Budget;
use bytes::Bytes;

use crate::{
    config::Config,
    event::Event,
    receive::ReceiveError,
    send::{OpenError, SendError, Sendable},
    state::{State, Stats},
    transmit::Transmit,
};

/// Control messages that may wait to be sent; further ones are not queued.
const MAX_CONTROL: usize = 64;

/// Identifies one connection of a stream: the first one, or the result of [`Mux::attach`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment(u32);

impl Attachment {
    /// The connection that a new stream begins with.
    pub const FIRST: Self = Self(0);
}

/// A data stream, shared by all its tasks. Every call takes one short lock and none waits.
pub struct Mux {
    outbox: Outbox<State>,
    side: Side,
}

impl Mux {
    /// A stream at its start. Windows beyond the initial ones are charged to `budget`.
    pub fn new(config: Config, budget: Budget) -> Arc<Self> {
        let side = config.side;
        Arc::new(Self {
            outbox: Outbox::new(State::new(config, budget)),
            side,
        })
    }

    /// The end of the link that this mux belongs to.
    pub const fn side(&self) -> Side {
        self.side
    }

    /// Opens a request. `register` receives the id before the head can be sent, so that the caller's table has the
    /// request when the response arrives; if it returns false, nothing is opened and the result is `None`. It runs
    /// under the lock and must not touch this stream.
    ///
    /// # Errors
    /// [`OpenError`] when the stream is over or the body in the head is too long.
    pub fn open(
        &self,
        head: EncodedHead,
        end: bool,
        register: impl FnOnce(RequestId) -> bool,
    ) -> Result<Option<RequestId>, OpenError> {
        self.outbox.with(|state| state.open(head, end, register))
    }

    /// Responds to a request that the peer opened; interim responses first, then one final response, before any payload.
    ///
    /// # Errors
    /// [`SendError`] when this direction is over, or credit does not cover the body in the head (which the caller can
    /// check with [`Mux::sendable`]).
    pub fn respond(&self, id: RequestId, head: EncodedHead, end: bool) -> Result<(), SendError> {
        self.outbox.with(|state| state.respond(id, head, end))
    }

    /// How much payload may be sent now. After [`Sendable::Later`], [`Event::Writable`] or [`Transmit::writable`] names the
    /// request when it may try again.
    ///
    /// # Errors
    /// [`SendError`] when this direction is over.
    pub fn sendable(&self, id: RequestId) -> Result<Sendable, SendError> {
        self.outbox.with(|state| state.sendable(id))
    }

    /// Sends payload, at most what [`Mux::sendable`] allowed; with `end`, ends this direction.
    ///
    /// # Errors
    /// [`SendError`], with the payload when it is more than may be sent.
    pub fn send(&self, id: RequestId, data: Bytes, end: bool) -> Result<(), SendError> {
        self.outbox.with(|state| state.send(id, data, end))
    }

    /// Sends a WebSocket frame with the start of its payload, no more than [`Mux::sendable`] allowed; the rest follows
    /// with [`Mux::send`]. With `end`, ends this direction.
    ///
    /// # Errors
    /// [`SendError`], with the payload when it is more than may be sent.
    pub fn send_frame(
        &self,
        id: RequestId,
        frame: WebSocketFrame,
        data: Bytes,
        end: bool,
    ) -> Result<(), SendError> {
        self.outbox
            .with(|state| state.send_frame(id, frame, data, end))
    }

    /// Sends compressed payload as [`Mux::send`] does, or with a frame as [`Mux::send_frame`] does. Its inflated size
    /// may be at most what [`Mux::sendable`] allowed (P-13.4).
    ///
    /// # Errors
    /// [`SendError`], with the payload when it is more than may be sent.
    pub fn send_compressed(
        &self,
        id: RequestId,
        frame: Option<WebSocketFrame>,
        compressed: Compressed,
        data: Bytes,
        end: bool,
    ) -> Result<(), SendError> {
        self.outbox
            .with(|state| state.send_compressed(id, (frame, compressed), data, end))
    }

    /// Sends a datagram. Drops the oldest waiting ones of the request if they are too many (P-11.3). Never waits.
    ///
    /// # Errors
    /// [`SendError`] when this direction is over, or the datagram is longer than [`adit_codec::MAX_DATAGRAM_BYTES`].
    pub fn send_datagram(&self, id: RequestId, data: Bytes) -> Result<(), SendError> {
        self.outbox.with(|state| state.send_datagram(id, data))
    }

    /// Sends trailers, which end this direction.
    ///
    /// # Errors
    /// [`SendError`] when this direction is over.
    pub fn send_trailers(&self, id: RequestId, trailers: HeaderBlock) -> Result<(), SendError> {
        self.outbox.with(|state| state.trailers(id, trailers))
    }

    /// Records that received messages of this cost have left the process; grants new credit when it is due. Late calls
    /// have no effect.
    pub fn consume(&self, id: RequestId, cost: u64) {
        self.outbox.with(|state| state.consume(id, cost));
    }

    /// Sends `StopSending` and drops later messages of the peer's direction (P-6.1).
    pub fn stop_sending(&self, id: RequestId, code: ResetCode) {
        self.outbox.with(|state| state.stop_sending(id, code));
    }

    /// Ends both directions at once, and drops queued messages (P-6.2). Returns whether the request was open.
    pub fn reset(&self, id: RequestId, code: ResetCode, reason: &str) -> bool {
        self.outbox.with(|state| state.reset(id, code, reason))
    }

    /// Aborts this direction: the peer receives everything that was sent, and then the failure (P-6.2). The peer's
    /// direction is stopped at once. Returns whether the request was open.
    pub fn abort(&self, id: RequestId, code: ResetCode, reason: &str) -> bool {
        self.outbox.with(|state| state.abort(id, code, reason))
    }

    /// Sends a control message, before everything else. Returns false if too many wait already.
    pub fn send_control(&self, control: Bytes) -> bool {
        self.outbox.with(|state| {
            let room = state.control.len() < MAX_CONTROL && !state.closed;
            if room {
                state.control.push_back(control);
            }
            room
        })
    }

    /// Sends the reply to a control message. It replaces a waiting one: a peer that probes faster than replies can be
    /// sent gets only the newest (P-6.5).
    pub fn send_control_reply(&self, reply: Bytes) {
        self.outbox.with(|state| {
            if !state.closed {
                state.control_reply = Some(reply);
            }
        });
    }

    /// Called once a second: the peer may reset another [`Config::max_resets_per_tick`] requests.
    pub fn tick(&self) {
        self.outbox.with(|state| state.given_up = 0);
    }

    /// The next bytes for the transport; `Ready(None)` when the stream is over or has lost this connection. One writer only.
    ///
    /// # Cancel safety
    /// A batch is taken only when it is returned.
    pub fn poll_transmit(
        &self,
        connection: Attachment,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Transmit>> {
        self.outbox.poll_drain(connection.0, cx)
    }

    /// The connection is lost: its requests are removed on this side, and the caller fails them (P-6.4); queued
    /// messages are dropped. Nothing can be opened until [`Mux::attach`].
    pub fn detach(&self) {
        self.outbox.with(State::detach);
        self.outbox.close();
    }

    /// Gives the stream another connection, after [`Mux::detach`], to the same peer: ids continue at both ends (P-2.2).
    /// Reader and writer of the previous connection have no effect any more.
    pub fn attach(&self) -> Attachment {
        Attachment(self.outbox.reopen(State::attach))
    }

    /// Ends the stream: nothing can be opened any more, and the writer ends once it has written the queue. The caller
    /// fails the requests (P-6.4).
    pub fn close(&self) {
        self.outbox.with(|state| state.closed = true);
        self.outbox.close();
    }

    /// Whether the stream is over.
    pub fn is_closed(&self) -> bool {
        self.outbox.is_closed()
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        self.outbox.with(|state| state.snapshot())
    }

    fn handle(
        &self,
        connection: Attachment,
        envelopes: &mut Vec<Envelope>,
        events: &mut Vec<Event>,
    ) -> Result<(), ReceiveError> {
        self.outbox.with(|state| {
            if state.connection != connection.0 {
                return Err(ReceiveError::Detached);
            }
            envelopes
                .drain(..)
                .try_for_each(|envelope| state.handle(envelope, events))
        })
    }
}

impl std::fmt::Debug for Mux {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mux")
            .field("side", &self.side)
            .finish_non_exhaustive()
    }
}

/// The reading end of a stream: owned by the one task that reads.
#[derive(Debug)]
pub struct Receiver {
    mux: Arc<Mux>,
    connection: Attachment,
    decoder: Decoder,
    /// Reused for each frame, for its memory.
    envelopes: Vec<Envelope>,
}

impl Receiver {
    /// Reads for one connection of a stream; one receiver only.
    pub fn new(mux: Arc<Mux>, connection: Attachment) -> Self {
        Self {
            mux,
            connection,
            decoder: Decoder::new(),
            envelopes: Vec::new(),
        }
    }

    /// Processes one frame of the transport and appends the events of all its messages to `events`. Never waits; takes
    /// one lock for all the messages of the frame.
    ///
    /// # Errors
    /// [`ReceiveError`] when the stream cannot go on. Events of messages before the fault are still appended.
    pub fn handle_frame(
        &mut self,
        frame: Bytes,
        events: &mut Vec<Event>,
    ) -> Result<(), ReceiveError> {
        self.feed(frame);
        self.handle_some(usize::MAX, events).map(drop)
    }

    /// Adds one frame of the transport, whose messages [`Receiver::handle_some`] handles. All of them must be handled
    /// before the next frame is added.
    pub fn feed(&mut self, frame: Bytes) {
        self.decoder.feed(frame);
    }

    /// Handles up to `most` messages, and appends their events to `events`. Never waits; takes one lock for all.
    /// Returns their number: fewer than `most` when the frame has been handled.
    ///
    /// # Errors
    /// [`ReceiveError`] when the stream cannot go on. Events of messages before the fault are still appended.
    pub fn handle_some(
        &mut self,
        most: usize,
        events: &mut Vec<Event>,
    ) -> Result<usize, ReceiveError> {
        let decoded = loop {
            if self.envelopes.len() >= most {
                break Ok(());
            }
            match self.decoder.next() {
                Ok(Some(envelope)) => self.envelopes.push(envelope),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let count = self.envelopes.len();
        self.mux
            .handle(self.connection, &mut self.envelopes, events)?;
        decoded?;
        Ok(count)
    }

    /// Whether the transport could end here without truncating a message.
    pub fn is_between_messages(&self) -> bool {
        self.decoder.is_between_messages()
    }
}
