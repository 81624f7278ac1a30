//! Carries the frames of one WebSocket between a socket and an exchange.
//!
//! One future serves both directions. `adit-websocket` decides what happens to each frame and how a WebSocket ends; this
//! module reads and writes.
//!
//! Bytes are read only within credit, into a buffer that is taken when there is something to read. Many frames are written
//! with one call; the credit of their payload is returned when it has been written.

mod buffers;
mod frame_debt;

use std::{
    future::Future,
    io::IoSlice,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use adit_codec::{ResetCode, WebSocketFrame};
use adit_link::{
    Exchange, Failure, Part, Payload, Reason,
    turn::{Turn, wake_behind_others},
};
use adit_websocket::{FrameHead, Outcome, Relay, ResetCause, ToLink};
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

pub use self::buffers::BufferPools;
use self::{buffers::SMALL_BUFFER_BYTES, frame_debt::FrameDebt};

/// The cost of a frame in steps of a turn: it is parsed, sent as a message and wakes a task at the other end, which is more
/// than reading a chunk or skipping a frame.
const FRAME_STEPS: usize = 4;

/// Bytes are copied if their buffer is more than this many times as large: they would keep the whole buffer alive (P-4.7).
const PIN_RATIO: usize = 4;
/// The least bytes read, however little credit there is: heads of frames cost none.
const MIN_READ_BYTES: usize = 512;
/// The most slices in one write.
const MAX_SLICES: usize = 32;

/// How often a socket that is not read is checked: the WebSocket ends within a second after its peer has left.
const CHECK_INTERVAL: Duration = Duration::from_millis(400);

/// The code and reason of the reset of a WebSocket that cannot end by a close frame. They differ at the two ends.
pub type ResetMapping = fn(ResetCause) -> (ResetCode, String);

/// How a WebSocket ended.
#[derive(Debug)]
pub struct CarrierEnd<S> {
    /// The cause of the end.
    pub outcome: Outcome,
    /// The failure of the exchange.
    pub failure: Option<Failure>,
    /// The code with which this end has reset the exchange, if it has.
    pub reset: Option<ResetCode>,
    /// Some bytes for the socket have not been written.
    pub is_cut: bool,
    /// Bytes read from the socket.
    pub read: u64,
    /// Bytes written to the socket.
    pub written: u64,
    /// The socket, if it has not been shut down.
    pub socket: Option<S>,
}

/// Carries the frames of one WebSocket. Dropped before its end, it resets the exchange.
pub struct Carrier<'b, S> {
    socket: S,
    /// The exchange; `None` once it has ended.
    exchange: Option<Exchange>,
    relay: Relay<Payload>,
    buffers: &'b BufferPools,
    close_timeout: Duration,
    reset_of: ResetMapping,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Bytes of payload that may be sent, as of the last poll.
    credit: usize,
    /// This end's direction of the exchange has not ended.
    sends: bool,
    /// The last read filled its buffer: there is more to read.
    full: bool,
    is_going_away: bool,
    /// A read is pending, which detects the end of the socket.
    reads: bool,
    check: Option<Pin<Box<Sleep>>>,
    /// Bytes read at the last check.
    read_at_check: u64,
    /// A check has found that the peer has left.
    is_lost: bool,
    is_shut: bool,
    /// The socket may hold back bytes that were written.
    unflushed: bool,
    /// Frames without content from the socket's peer.
    debt: FrameDebt,
    /// The turns of the two directions: neither uses up the other's.
    to_link: Turn,
    to_socket: Turn,
    failure: Option<Failure>,
    reset: Option<ResetCode>,
    read: u64,
    written: u64,
}

impl<'b, S: AsyncRead + AsyncWrite + Unpin> Carrier<'b, S> {
    /// Nothing is read or written yet. Closing takes at most `close_timeout`; each direction has turns of `turn_bytes`.
    pub fn new(
        socket: S,
        exchange: Exchange,
        relay: Relay<Payload>,
        buffers: &'b BufferPools,
        close_timeout: Duration,
        turn_bytes: usize,
        reset_of: ResetMapping,
    ) -> Self {
        Self {
            socket,
            exchange: Some(exchange),
            relay,
            buffers,
            close_timeout,
            reset_of,
            deadline: None,
            credit: 0,
            sends: true,
            full: false,
            is_going_away: false,
            reads: false,
            check: None,
            read_at_check: 0,
            is_lost: false,
            is_shut: false,
            unflushed: false,
            debt: FrameDebt::new(),
            to_link: Turn::new(turn_bytes),
            to_socket: Turn::new(turn_bytes),
            failure: None,
            reset: None,
            read: 0,
            written: 0,
        }
    }

    /// Carries frames to the end of the WebSocket. When `going_away` is ready, both ends receive a close frame with 1001.
    ///
    /// While nothing is read for lack of credit, `is_gone` checks whether the peer has left. Frames that it sent before are
    /// carried as long as they make progress; then the exchange is reset.
    ///
    /// # Cancel safety
    /// Dropping the future resets the exchange.
    pub async fn run(
        mut self,
        going_away: impl Future<Output = ()>,
        mut is_gone: impl FnMut(&mut S, &mut Context<'_>) -> bool,
    ) -> CarrierEnd<S> {
        let mut going_away = pin!(going_away);
        std::future::poll_fn(|cx| {
            if !self.is_going_away && going_away.as_mut().poll(cx).is_ready() {
                self.is_going_away = true;
                self.deadline = None;
                self.relay.go_away();
            }
            loop {
                let ended = self.poll(cx);
                if ended.is_ready() || !self.poll_lost(cx, &mut is_gone) {
                    return ended;
                }
            }
        })
        .await;
        CarrierEnd {
            outcome: self.relay.outcome(),
            failure: self.failure,
            // An exchange that has not ended is reset by its drop.
            reset: self.reset.or(self.exchange.map(|_| ResetCode::Cancelled)),
            is_cut: self.relay.is_aborted() || !self.relay.outbound().is_empty(),
            read: self.read,
            written: self.written,
            socket: (!self.is_shut).then_some(self.socket),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.to_link.is_over() && !self.to_socket.is_over() {
            let moved = self.poll_to_link(cx)
                | self.poll_read(cx)
                | self.poll_from_link(cx)
                | self.poll_write(cx);
            if self.relay.is_settled() {
                self.exchange = None;
            }
            if !moved {
                if self.unflushed {
                    // An error here is also an error of the next write.
                    self.unflushed = Pin::new(&mut self.socket).poll_flush(cx).is_pending();
                }
                self.end_turns();
                return self.poll_end(cx);
            }
            // Each iteration counts, so that a turn ends even when few bytes are forwarded.
            self.to_link.step(0);
        }
        self.end_turns();
        wake_behind_others(cx);
        Poll::Pending
    }

    /// Checks a socket that is not read. Returns whether its peer has left.
    fn poll_lost(
        &mut self,
        cx: &mut Context<'_>,
        is_gone: &mut impl FnMut(&mut S, &mut Context<'_>) -> bool,
    ) -> bool {
        if self.reads || self.relay.is_ending() {
            return false;
        }
        loop {
            let check = self.check.get_or_insert_with(|| {
                self.read_at_check = self.read;
                Box::pin(sleep_until(Instant::now() + CHECK_INTERVAL))
            });
            if check.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.check = None;
            if self.read == self.read_at_check && is_gone(&mut self.socket, cx) {
                self.is_lost = true;
                self.relay.on_socket_lost();
                return true;
            }
        }
    }

    const fn end_turns(&mut self) {
        self.to_link.end();
        self.to_socket.end();
    }

    /// Sends frames that have been read, as far as credit allows (P-9.5).
    fn poll_to_link(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while self.sends
            && !self.to_link.is_over()
            && let Some(Exchange { send, .. }) = &self.exchange
        {
            self.credit = match send.poll_ready(cx) {
                Poll::Ready(Ok(credit)) => match self.relay.unsent() {
                    0 => credit,
                    // Bytes that have been read wait for the pace as they do for credit.
                    unsent => match send.poll_pace(cx, credit.min(unsent)) {
                        Poll::Ready(allowed) => allowed,
                        Poll::Pending => 0,
                    },
                },
                Poll::Ready(Err(failure)) => {
                    self.on_send_failed(cx, failure);
                    return true;
                }
                Poll::Pending => 0,
            };
            let Some(out) = self.relay.to_link(self.credit) else {
                break;
            };
            moved = true;
            // The bytes of the frame were counted when they were read.
            self.to_link.steps(FRAME_STEPS);
            let sent = match out {
                ToLink::Frame(head, data) => {
                    let counted = self.debt.on_frame(&head, data.len());
                    let is_whole = head.length == data.len() as u64;
                    let sent = send.send_frame(frame_of(&head), data);
                    if counted.is_err() && is_whole {
                        self.relay.on_flood();
                    }
                    sent
                }
                ToLink::Data(data) => {
                    self.debt.on_content(data.len());
                    send.send(data, false)
                }
                ToLink::End => {
                    self.sends = false;
                    send.finish()
                }
                ToLink::Reset(why) => {
                    self.sends = false;
                    let (code, why) = (self.reset_of)(why);
                    self.reset = Some(code);
                    if let Some(Exchange { send, .. }) = self.exchange.take() {
                        // An abort would arrive after frames that a peer without credit does not receive.
                        if self.is_lost {
                            send.reset(code, &why);
                        } else {
                            send.abort(code, &why);
                        }
                    }
                    Ok(())
                }
            };
            if let Err(failure) = sent {
                self.on_send_failed(cx, failure);
            }
        }
        if moved && self.relay.has_lost_socket() && !self.is_going_away {
            // The frames that the peer sent before are finite in number and are being forwarded.
            self.deadline = None;
        }
        moved
    }

    /// The other end accepts nothing more. What it sent before that is still delivered (P-6.2).
    fn on_send_failed(&mut self, cx: &mut Context<'_>, failure: Failure) {
        let Some(Exchange { recv, .. }) = &self.exchange else {
            return;
        };
        if recv.poll_failure(cx).is_ready() {
            self.fail(failure);
        } else {
            self.sends = false;
            self.relay.on_link_send_closed();
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
        self.relay.on_link_failed();
        self.exchange = None;
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        self.reads = false;
        let freely = self.relay.reads_freely();
        if !self.relay.wants_bytes() || (self.credit == 0 && !freely) {
            return false;
        }
        let pool = if self.full {
            &self.buffers.large
        } else {
            &self.buffers.small
        };
        let mut buffer = pool.take();
        let room = buffer.unfilled();
        let capacity = room.len();
        let limit = if freely {
            capacity
        } else {
            self.credit.max(MIN_READ_BYTES).min(capacity)
        };
        let mut read = ReadBuf::new(&mut room[..limit]);
        match Pin::new(&mut self.socket).poll_read(cx, &mut read) {
            Poll::Pending => {
                self.reads = true;
                return false;
            }
            Poll::Ready(Err(error)) => {
                tracing::trace!(%error, "socket of a WebSocket lost");
                self.to_link.step(0);
                self.relay.on_socket_lost();
                return true;
            }
            Poll::Ready(Ok(())) => {}
        }
        let count = read.filled().len();
        self.to_link.step(count);
        if count == 0 {
            self.relay.on_socket_end();
            return true;
        }
        self.read += count as u64;
        self.full = count == limit;
        self.relay.unmask(&mut buffer.unfilled()[..count]);
        let bytes = if count < capacity / PIN_RATIO {
            Bytes::copy_from_slice(&buffer.unfilled()[..count])
        } else {
            buffer.advance(count);
            buffer.freeze()
        };
        self.relay.on_bytes(bytes);
        true
    }

    fn poll_from_link(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while self.relay.wants_link()
            && !self.to_socket.is_over()
            && let Some(Exchange { recv, .. }) = &mut self.exchange
        {
            let Poll::Ready(part) = recv.poll_part(cx) else {
                break;
            };
            moved = true;
            self.to_socket.steps(FRAME_STEPS);
            match part {
                Some(Ok(Part::Frame(frame, payload))) => {
                    self.debt.on_content(payload.as_ref().len());
                    self.relay.on_frame(&head_of(frame), payload);
                }
                Some(Ok(Part::Data(payload))) => {
                    self.debt.on_content(payload.as_ref().len());
                    self.relay.on_data(payload);
                }
                None => self.relay.on_link_end(),
                Some(Err(failure)) => self.fail(failure),
                // The mux rejects other payloads; trailers are not allowed here.
                Some(Ok(_)) => {
                    let why = "unexpected message in a WebSocket";
                    if let Some(Exchange { send, .. }) = self.exchange.take() {
                        send.reset(ResetCode::ProtocolError, why);
                    }
                    self.fail(Failure::new(Reason::ProtocolError, why));
                }
            }
        }
        moved
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.relay.outbound().is_empty() && !self.to_socket.is_over() {
            let socket = Pin::new(&mut self.socket);
            let outbound = self.relay.outbound();
            let is_vectored = socket.is_write_vectored();
            let written = if is_vectored && !self.relay.masks() {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let count = outbound.slices(&mut slices);
                socket.poll_write_vectored(cx, &slices[..count])
            } else {
                let large = is_vectored && outbound.bytes() > SMALL_BUFFER_BYTES;
                let pool = if large {
                    &self.buffers.large
                } else {
                    &self.buffers.small
                };
                let mut buffer = pool.take();
                let count = outbound.copy_to(buffer.unfilled());
                socket.poll_write(cx, &buffer.unfilled()[..count])
            };
            match written {
                Poll::Pending => break,
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.written += count as u64;
                    self.unflushed = true;
                    self.to_socket.step(count);
                    self.relay.on_written(count);
                    if !self.is_going_away {
                        // Writing to a slow peer is progress.
                        self.deadline = None;
                    }
                }
                Poll::Ready(_) => {
                    self.to_socket.step(0);
                    self.relay.on_socket_write_failed();
                }
            }
            moved = true;
        }
        moved
    }

    /// Called when nothing can be forwarded: ready if the WebSocket has ended.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.relay.is_aborted() {
            return Poll::Ready(());
        }
        if !self.is_shut && self.relay.may_shut_down() {
            self.is_shut = Pin::new(&mut self.socket).poll_shutdown(cx).is_ready();
        }
        if self.is_shut && self.relay.is_settled() {
            return Poll::Ready(());
        }
        if !self.relay.is_ending() {
            return Poll::Pending;
        }
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + self.close_timeout)));
        deadline.as_mut().poll(cx)
    }
}

const fn frame_of(head: &FrameHead) -> WebSocketFrame {
    WebSocketFrame {
        fin: head.fin,
        rsv: head.rsv,
        opcode: head.opcode,
        length: head.length,
    }
}

const fn head_of(frame: WebSocketFrame) -> FrameHead {
    FrameHead {
        fin: frame.fin,
        rsv: frame.rsv,
        opcode: frame.opcode,
        length: frame.length,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{io, sync::Arc};

    use adit_codec::{
        EncodedHead, Open, RequestId, Side, WebSocketRequestHead, WebSocketResponseHead,
        write_frame_prefix, write_head,
    };
    use adit_flow::Budget;
    use adit_link::{
        Dispatch, IncomingRequest, Lane, LaneConfig, TransportError, TransportReader, drive,
        turn::{STEP_BYTES, TURN_BYTES},
    };
    use bytes::BytesMut;

    use super::*;

    /// A visitor that sends empty frames without a pause, and reads everything.
    #[derive(Default)]
    struct Flood {
        sent: usize,
        got: Vec<u8>,
    }

    impl AsyncRead for Flood {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let this = self.get_mut();
            while buffer.remaining() > 0 {
                buffer.put_slice(&[[0x82, 0x80, 0, 0, 0, 0][this.sent % 6]]);
                this.sent += 1;
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Flood {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.get_mut().got.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    struct DropRequests;

    impl Dispatch for DropRequests {
        fn dispatch(&self, opened: IncomingRequest) {
            drop(opened);
        }
    }

    /// Yields these bytes once.
    struct Once(Option<Bytes>);

    impl TransportReader for Once {
        fn poll_bytes(
            &mut self,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Bytes, TransportError>>> {
            match self.0.take() {
                Some(bytes) => Poll::Ready(Some(Ok(bytes))),
                None => Poll::Pending,
            }
        }
    }

    fn lane(window: u32) -> Arc<Lane> {
        let mut mux = adit_mux::Config::new(Side::Server);
        // The window is enough for the frames of all rounds: no credit is returned.
        mux.initial_window = window;
        let config = LaneConfig {
            mux,
            max_entries: 1,
            heartbeat: Duration::from_secs(60),
            dead_after: Duration::from_secs(600),
            stall: Duration::from_secs(600),
            turn_bytes: TURN_BYTES,
        };
        Lane::new(config, Budget::new(0), Arc::new(DropRequests))
    }

    fn request() -> EncodedHead {
        let head = WebSocketRequestHead {
            open: &Open::<&str>::default(),
            authority: b"a",
            path: b"/",
        };
        head.encode(std::iter::empty()).unwrap()
    }

    /// A response, and a frame with "hi".
    fn response_and_frame(id: RequestId) -> Bytes {
        let mut out = BytesMut::new();
        let head = WebSocketResponseHead { status: 101 };
        write_head(
            &mut out,
            id,
            &head.encode(std::iter::empty()).unwrap(),
            false,
        );
        let frame = WebSocketFrame {
            fin: true,
            rsv: 0,
            opcode: 1,
            length: 2,
        };
        write_frame_prefix(&mut out, id, frame, 2, false);
        out.extend_from_slice(b"hi");
        out.freeze()
    }

    async fn turn<S: AsyncRead + AsyncWrite + Unpin>(carrier: &mut Carrier<'_, S>) -> Poll<()> {
        std::future::poll_fn(|cx| Poll::Ready(carrier.poll(cx))).await
    }

    #[tokio::test]
    async fn p_9_7_flood_of_empty_frames_is_closed_with_1008() {
        let lane = lane(1 << 22);
        let mut outbound = lane.outbound();
        let mut send_batch = async || {
            drop(std::future::poll_fn(|cx| Poll::Ready(outbound.poll_batch(cx))).await);
        };
        let mut exchange = lane.open(request(), false, None).unwrap();
        // The head is sent, and a response arrives.
        send_batch().await;
        let driven = lane.clone();
        let response = response_and_frame(Side::Server.first_id());
        let reader = tokio::spawn(async move { drive(&driven, Once(Some(response))).await });
        let part = exchange.recv.part().await;
        assert!(matches!(part, Some(Ok(Part::Response(_)))), "{part:?}");
        let buffers = BufferPools::default();
        let reset_of: ResetMapping = |_| (ResetCode::Cancelled, String::new());
        let wait = Duration::from_secs(5);
        let relay = Relay::to_visitor();
        let mut carrier = Carrier::new(
            Flood::default(),
            exchange,
            relay,
            &buffers,
            wait,
            TURN_BYTES,
            reset_of,
        );
        let mut turns = 0;
        while turn(&mut carrier).await.is_pending() {
            send_batch().await;
            turns += 1;
            assert!(turns < 10_000, "the WebSocket does not end");
        }
        // 64 KiB of debt, plus the debt that was reduced over time; the reset discards frames that were not sent yet.
        let sent = lane.stats().mux.messages_sent;
        assert!((900..2_000).contains(&sent), "{sent}");
        assert_eq!(carrier.reset, Some(ResetCode::Cancelled));
        assert_eq!(carrier.socket.got, b"\x81\x02hi\x88\x02\x03\xf0");
        reader.abort();
    }

    #[tokio::test]
    async fn empty_frames_without_a_pause_are_carried_in_turns() {
        const TURN: usize = 2 * SMALL_BUFFER_BYTES;
        let lane = lane(1 << 20);
        let mut outbound = lane.outbound();
        let mut send_batch = async || {
            let batch = std::future::poll_fn(|cx| Poll::Ready(outbound.poll_batch(cx))).await;
            drop(batch);
            lane.stats().mux.messages_sent
        };
        let mut exchange = lane.open(request(), false, None).unwrap();
        // The head is sent, and a response arrives.
        let mut sent = send_batch().await;
        let driven = lane.clone();
        let response = response_and_frame(Side::Server.first_id());
        let reader = tokio::spawn(async move { drive(&driven, Once(Some(response))).await });
        let part = exchange.recv.part().await;
        assert!(matches!(part, Some(Ok(Part::Response(_)))), "{part:?}");
        let buffers = BufferPools::default();
        let reset_of: ResetMapping = |_| (ResetCode::Cancelled, String::new());
        let flood = Flood::default();
        let wait = Duration::from_secs(5);
        let relay = Relay::to_visitor();
        let mut carrier = Carrier::new(flood, exchange, relay, &buffers, wait, TURN, reset_of);
        for round in 0..6 {
            assert_eq!(turn(&mut carrier).await, Poll::Pending);
            // The other direction has its turn, however many bytes arrive.
            assert_eq!(carrier.socket.got, b"\x81\x02hi", "{round}");
            let now = send_batch().await;
            let frames = usize::try_from(now - sent).unwrap();
            assert!(frames > 0, "{round}: the flood makes progress");
            assert!(frames <= TURN / STEP_BYTES, "{round}: {frames} in one turn");
            sent = now;
        }
        reader.abort();
    }
}
