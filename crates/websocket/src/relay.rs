//! Carries a WebSocket between a socket and a link, at one end of the link.

use bytes::Bytes;

use crate::{
    closing::{Closing, Hop},
    frame::{FrameError, FrameHead},
    inbound::{Inbound, Piece},
    outbound::Outbound,
};

/// The close code of an end that goes away (RFC 6455, 7.4.1).
pub const GOING_AWAY: u16 = 1001;
/// The close code for a peer that violates the protocol (RFC 6455, 7.4.1).
pub const PROTOCOL_ERROR: u16 = 1002;
/// The close code for a peer that violates a policy of the receiver (RFC 6455, 7.4.1).
pub const POLICY_VIOLATION: u16 = 1008;

/// The most pieces that wait for the socket; no more are taken from the link meanwhile.
const MAX_PARTS: usize = 16;
/// The most bytes that wait for the socket; no more are taken from the link meanwhile. Credit bounds memory; this bounds the
/// size of one write.
const MAX_BYTES: usize = 64 * 1024;

/// The next message for the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToLink {
    /// A frame and the start of its payload.
    Frame(FrameHead, Bytes),
    /// More payload of the same frame.
    Data(Bytes),
    /// The end of this direction, between two frames.
    End,
    /// The end of both directions.
    Reset(ResetCause),
}

/// Why a WebSocket is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetCause {
    /// The socket was lost within a frame, or with an error.
    SocketLost,
    /// The socket's peer sent an invalid frame.
    Unreadable(FrameError),
    /// The other end left while a frame was being sent to it.
    LinkEnded,
}

/// How a WebSocket ended: the first cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Both ends closed the WebSocket.
    Closed,
    /// This side is going away, and has sent its own close frame.
    WentAway,
    /// The socket was lost without a close frame.
    SocketLost,
    /// The other end ended the link without a close frame.
    LinkEnded,
    /// The link failed.
    LinkFailed,
    /// The socket's peer sent an invalid frame.
    Unreadable(FrameError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SocketState {
    Open,
    /// The peer at the socket sends no more.
    Ended,
    /// Writing has failed. What the peer sent before is still read.
    WriteFailed,
    /// The socket is neither read nor written any more.
    Lost,
    Unreadable(FrameError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Open,
    /// The other end of the link has ended its direction.
    Ended,
    /// Neither direction is usable.
    Failed,
}

/// The state of this end's direction of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Open,
    End,
    Reset,
}

/// The frame that is being forwarded in one direction.
#[derive(Debug, Clone, Copy, Default)]
struct Passage {
    passes: bool,
    is_close: bool,
    left: u64,
}

/// One end of a WebSocket that is carried over a link.
///
/// Its caller repeats these steps until nothing changes:
/// 1. [`Relay::to_link`] with the available credit, until it returns nothing;
/// 2. if [`Relay::wants_bytes`], read from the socket: [`Relay::unmask`] and [`Relay::on_bytes`], or
///    [`Relay::on_socket_end`], [`Relay::on_socket_lost`];
/// 3. while [`Relay::wants_link`], take from the link: [`Relay::on_frame`] and the others;
/// 4. write [`Relay::outbound`] to the socket.
///
/// Then, if [`Relay::is_settled`], it drops the exchange; if [`Relay::may_shut_down`], it shuts the socket down. It
/// drops the relay, the socket and the exchange after both of these, if [`Relay::is_aborted`], or if
/// [`Relay::is_ending`] for too long.
#[derive(Debug)]
pub struct Relay<P> {
    inbound: Inbound,
    outbound: Outbound<P>,
    /// Generates the mask key of each frame to a service.
    keys: Option<fn() -> [u8; 4]>,
    closing: Closing,
    to_link_frame: Passage,
    to_socket_frame: Passage,
    /// The code of this side's own close frame, once there is a reason to send one.
    close_code: Option<u16>,
    /// The part of this end's own frame that is still to be sent to the link.
    own: Bytes,
    socket: SocketState,
    link: LinkState,
    sent: Sent,
    cause: Option<Outcome>,
}

impl<P: AsRef<[u8]>> Relay<P> {
    /// The end of the visitor: frames from it must be masked, frames to it are not.
    pub const fn to_visitor() -> Self {
        Self::new(true, None)
    }

    /// The end of the service: frames to it are masked with `keys`, which must be unpredictable (RFC 6455, 10.3); frames from
    /// it must not be masked.
    pub const fn to_service(keys: fn() -> [u8; 4]) -> Self {
        Self::new(false, Some(keys))
    }

    const fn new(masked: bool, keys: Option<fn() -> [u8; 4]>) -> Self {
        let passage = Passage {
            passes: false,
            is_close: false,
            left: 0,
        };
        Self {
            inbound: Inbound::new(masked),
            outbound: Outbound::new(),
            keys,
            closing: Closing::new(),
            to_link_frame: passage,
            to_socket_frame: passage,
            close_code: None,
            own: Bytes::new(),
            socket: SocketState::Open,
            link: LinkState::Open,
            sent: Sent::Open,
            cause: None,
        }
    }

    /// Whether to read from the socket. Without credit, only if [`Relay::reads_freely`].
    pub fn wants_bytes(&self) -> bool {
        matches!(self.socket, SocketState::Open | SocketState::WriteFailed)
            && self.link != LinkState::Failed
            && self.inbound.is_empty()
            && !self.closing.is_complete()
            && self.sent == Sent::Open
    }

    /// Whether frames from the socket are discarded, so that reading them takes no credit. They are read all the same, up to
    /// the peer's close frame or its loss.
    pub const fn reads_freely(&self) -> bool {
        if self.to_link_frame.left > 0 {
            !self.to_link_frame.passes
        } else {
            !self.closing.passes(Hop::Socket)
        }
    }

    /// Unmasks bytes that have just been read.
    pub fn unmask(&mut self, bytes: &mut [u8]) {
        if !self.closing.close_received(Hop::Socket) {
            self.inbound.unmask(bytes);
        }
    }

    /// Bytes have been read from the socket and passed through [`Relay::unmask`].
    pub fn on_bytes(&mut self, bytes: Bytes) {
        // RFC 6455, 5.5.1: bytes after a close frame are discarded.
        if !self.closing.close_received(Hop::Socket) {
            self.inbound.on_bytes(bytes);
        }
    }

    /// The socket has been read to its end.
    pub fn on_socket_end(&mut self) {
        match self.socket {
            SocketState::Open => {
                self.socket = SocketState::Ended;
                self.on_socket_gone();
            }
            // The socket was lost before it ended: a write has consumed the error.
            SocketState::WriteFailed => self.on_socket_lost(),
            SocketState::Ended | SocketState::Lost | SocketState::Unreadable(_) => {}
        }
    }

    /// The socket's peer exceeds the allowed frames without content: it receives a close frame, and is not read any more.
    pub fn on_flood(&mut self) {
        if matches!(self.socket, SocketState::Open | SocketState::WriteFailed) {
            self.on_unreadable(FrameError::WithoutContent);
        }
    }

    /// The socket cannot be read or written any more. What has been read is still sent to the link.
    pub fn on_socket_lost(&mut self) {
        if !matches!(self.socket, SocketState::Lost) {
            self.socket = SocketState::Lost;
            self.outbound.clear();
            self.on_socket_gone();
        }
    }

    /// The socket cannot be written any more. What its peer sent before is still read.
    pub fn on_socket_write_failed(&mut self) {
        if self.socket == SocketState::Open {
            self.socket = SocketState::WriteFailed;
            self.outbound.clear();
            self.on_socket_gone();
        } else {
            self.on_socket_lost();
        }
    }

    /// Whether the socket has failed. What was read before is still to be sent.
    pub const fn has_lost_socket(&self) -> bool {
        matches!(self.socket, SocketState::Lost | SocketState::WriteFailed)
    }

    fn on_socket_gone(&mut self) {
        if !self.closing.close_received(Hop::Socket) && !self.closing.close_sent(Hop::Socket) {
            self.cause.get_or_insert(Outcome::SocketLost);
        }
    }

    /// Sends a close frame with 1001 to both ends, each between two frames, unless an end has begun already (P-9.6).
    pub fn go_away(&mut self) {
        if self.close_code.is_none()
            && self.socket == SocketState::Open
            && self.link == LinkState::Open
        {
            self.close_code = Some(GOING_AWAY);
            self.cause.get_or_insert(Outcome::WentAway);
            self.queue_close();
        }
    }

    /// Bytes from the socket that have not been sent, with the heads of their frames.
    pub fn unsent(&self) -> usize {
        self.own.len() + self.inbound.len()
    }

    /// The next message for the link, with credit for `allowed` bytes of payload; 0: none.
    pub fn to_link(&mut self, allowed: usize) -> Option<ToLink> {
        if self.sent != Sent::Open || self.link == LinkState::Failed {
            return None;
        }
        if !self.own.is_empty() {
            return (allowed > 0).then(|| {
                let count = allowed.min(self.own.len());
                ToLink::Data(self.own.split_to(count))
            });
        }
        loop {
            if let Some(output) = self.next_own(allowed) {
                return output;
            }
            if self.closing.close_received(Hop::Socket) {
                self.inbound.clear();
                return self.after_input();
            }
            let most = if self.reads_freely() {
                usize::MAX
            } else {
                allowed
            };
            if most == 0 {
                // A head takes no credit, but is sent together with payload, which does.
                return if self.inbound.is_empty() {
                    self.after_input()
                } else {
                    None
                };
            }
            match self.inbound.next(most) {
                Ok(Some(piece)) => {
                    if let Some(out) = self.on_piece(piece) {
                        return Some(out);
                    }
                }
                Ok(None) => return self.after_input(),
                Err(error) => self.on_unreadable(error),
            }
        }
    }

    /// The message that this end sends by itself between two frames. `None`: there is none; `Some(None)`: it has to
    /// wait.
    #[allow(clippy::option_option)]
    fn next_own(&mut self, allowed: usize) -> Option<Option<ToLink>> {
        let in_frame = self.is_in_frame();
        // The other end has left: its frames are written to the socket before this end's direction ends.
        if self.link == LinkState::Ended
            && !self.closing.close_received(Hop::Link)
            && self.outbound.is_empty()
        {
            return Some(Some(if in_frame {
                self.reset(ResetCause::LinkEnded)
            } else {
                self.end()
            }));
        }
        if in_frame {
            return None;
        }
        if self.closing.is_complete() {
            return Some(Some(self.end()));
        }
        if let SocketState::Unreadable(error) = self.socket {
            // The peer of the socket receives the close frame first, after a frame that is being written to it.
            let is_closed = self.closing.close_sent(Hop::Socket);
            return Some(is_closed.then(|| self.reset(ResetCause::Unreadable(error))));
        }
        // After an invalid frame only its sender receives a close frame.
        let code = self
            .close_code
            .filter(|code| *code == GOING_AWAY && !self.closing.close_sent(Hop::Link))?
            .to_be_bytes();
        if allowed == 0 {
            return Some(None);
        }
        self.closing.claim_close(Hop::Link);
        self.own = Bytes::copy_from_slice(&code);
        let start = self.own.split_to(allowed.min(code.len()));
        Some(Some(ToLink::Frame(FrameHead::CLOSE, start)))
    }

    /// P-9.3: every frame is forwarded unchanged.
    fn on_piece(&mut self, piece: Piece) -> Option<ToLink> {
        let out = match piece {
            Piece::Frame(head, data) => {
                self.to_link_frame = Passage {
                    passes: self.closing.passes(Hop::Socket),
                    is_close: head.is_close(),
                    left: head.length - data.len() as u64,
                };
                ToLink::Frame(head, data)
            }
            Piece::Data(data) => {
                self.to_link_frame.left -= data.len() as u64;
                ToLink::Data(data)
            }
        };
        if self.to_link_frame.left == 0 && self.to_link_frame.is_close {
            self.closing
                .on_close(Hop::Socket, self.to_link_frame.passes);
        }
        self.to_link_frame.passes.then_some(out)
    }

    /// P-9.4: the sender of an invalid frame receives a close frame, the other end a reset.
    fn on_unreadable(&mut self, error: FrameError) {
        self.socket = SocketState::Unreadable(error);
        self.inbound.clear();
        self.cause.get_or_insert(Outcome::Unreadable(error));
        if self.close_code.is_none() {
            self.close_code = Some(match error {
                FrameError::WithoutContent => POLICY_VIOLATION,
                _ => PROTOCOL_ERROR,
            });
        }
        self.queue_close();
    }

    /// All bytes from the socket have been sent: ends or resets this end's direction if no more will follow.
    fn after_input(&mut self) -> Option<ToLink> {
        let closed = self.closing.close_received(Hop::Socket);
        match self.socket {
            // The other end has left after its close frame, and waits for nothing.
            _ if closed => (self.link == LinkState::Ended).then(|| self.end()),
            SocketState::Ended if !self.is_in_frame() => Some(self.end()),
            SocketState::Ended | SocketState::Lost => Some(self.reset(ResetCause::SocketLost)),
            SocketState::Open | SocketState::WriteFailed | SocketState::Unreadable(_) => None,
        }
    }

    /// Whether a part of a frame has been sent to the link.
    const fn is_in_frame(&self) -> bool {
        self.to_link_frame.passes && self.to_link_frame.left > 0
    }

    fn end(&mut self) -> ToLink {
        self.sent = Sent::End;
        ToLink::End
    }

    fn reset(&mut self, why: ResetCause) -> ToLink {
        self.sent = Sent::Reset;
        ToLink::Reset(why)
    }

    /// Whether to take more from the link.
    pub fn wants_link(&self) -> bool {
        self.link == LinkState::Open
            && self.sent != Sent::Reset
            && self.outbound.parts() < MAX_PARTS
            && self.outbound.bytes() < MAX_BYTES
    }

    /// A frame and the start of its payload have been received from the link.
    pub fn on_frame(&mut self, head: &FrameHead, payload: P) {
        self.to_socket_frame = Passage {
            // The sender of an invalid frame receives only the close frame.
            passes: self.closing.passes(Hop::Link)
                && self.peer_may_read()
                && !matches!(self.socket, SocketState::Unreadable(_)),
            is_close: head.is_close(),
            left: head.length.saturating_sub(payload.as_ref().len() as u64),
        };
        if self.to_socket_frame.passes {
            self.outbound
                .frame(head, payload, self.keys.map(|key| key()));
        }
        self.after_link_frame();
    }

    /// More payload of the same frame has been received from the link.
    pub fn on_data(&mut self, payload: P) {
        let length = payload.as_ref().len() as u64;
        self.to_socket_frame.left = self.to_socket_frame.left.saturating_sub(length);
        if self.to_socket_frame.passes && self.peer_may_read() {
            self.outbound.data(payload);
        }
        self.after_link_frame();
    }

    /// The other end has ended its direction of the link.
    pub fn on_link_end(&mut self) {
        self.link = LinkState::Ended;
        if !self.closing.close_received(Hop::Link) {
            self.cause.get_or_insert(Outcome::LinkEnded);
        }
    }

    /// The other end accepts nothing more; it may still send.
    pub fn on_link_send_closed(&mut self) {
        self.inbound.clear();
        self.own = Bytes::new();
        self.sent = Sent::End;
    }

    /// The link has failed: reset by its other end, or lost.
    pub fn on_link_failed(&mut self) {
        self.link = LinkState::Failed;
        self.inbound.clear();
        if !self.closing.close_received(Hop::Link) {
            self.cause.get_or_insert(Outcome::LinkFailed);
        }
    }

    /// Whether the socket's peer may still read. One that left without a close frame does not.
    fn peer_may_read(&self) -> bool {
        match self.socket {
            SocketState::Open | SocketState::Unreadable(_) => true,
            SocketState::Ended => self.closing.close_received(Hop::Socket),
            SocketState::WriteFailed | SocketState::Lost => false,
        }
    }

    fn after_link_frame(&mut self) {
        if self.to_socket_frame.left == 0 && self.to_socket_frame.is_close {
            self.closing
                .on_close(Hop::Link, self.to_socket_frame.passes);
        }
        self.queue_close();
    }

    /// Queues this side's own close frame for the socket, between two frames.
    fn queue_close(&mut self) {
        let between = self.to_socket_frame.left == 0 || !self.to_socket_frame.passes;
        if let Some(code) = self.close_code
            && between
            && self.peer_may_read()
            && self.closing.claim_close(Hop::Socket)
        {
            self.outbound.close(code, self.keys.map(|key| key()));
        }
    }

    /// Whether frames to the socket are masked, and therefore copied.
    pub const fn masks(&self) -> bool {
        self.keys.is_some()
    }

    /// The bytes to write to the socket.
    pub const fn outbound(&self) -> &Outbound<P> {
        &self.outbound
    }

    /// The next `count` bytes of [`Relay::outbound`] have been written.
    pub fn on_written(&mut self, count: usize) {
        self.outbound.advance(count);
    }

    /// Whether the WebSocket has begun to end. The rest is up to the peers; the caller bounds the wait.
    pub fn is_ending(&self) -> bool {
        self.close_code.is_some()
            || self.closing.is_complete()
            || self.socket != SocketState::Open
            || self.link != LinkState::Open
    }

    /// Whether the exchange can be dropped: both of its directions have ended, or it was reset.
    pub fn is_settled(&self) -> bool {
        match (self.sent, self.link) {
            (Sent::Reset, _) | (_, LinkState::Failed) | (Sent::End, LinkState::Ended) => true,
            (Sent::Open | Sent::End, _) => false,
        }
    }

    /// Whether the socket can be shut down: everything has been written, and nothing more is expected from its peer.
    pub fn may_shut_down(&self) -> bool {
        let far_is_gone = match self.link {
            LinkState::Open => false,
            // The peer of the socket may still respond to its close frame.
            LinkState::Ended => {
                !self.closing.close_received(Hop::Link) || self.socket != SocketState::Open
            }
            LinkState::Failed => true,
        };
        let peer_is_gone =
            self.socket == SocketState::Ended && !self.closing.close_received(Hop::Socket);
        let is_over = self.closing.is_complete()
            || self.sent == Sent::Reset
            || far_is_gone
            || peer_is_gone
            || self.socket == SocketState::Lost;
        is_over && self.outbound.is_empty()
    }

    /// Whether to drop the socket without a shutdown: the link has failed, everything from it has been written, and the peer
    /// has received no close frame.
    pub fn is_aborted(&self) -> bool {
        let cut = self.to_socket_frame.passes && self.to_socket_frame.left > 0;
        let is_incomplete = !self.closing.close_sent(Hop::Socket) || cut;
        (self.link == LinkState::Failed && is_incomplete && self.outbound.is_empty())
            || (self.socket == SocketState::Lost && self.is_settled())
    }

    /// The cause of the end; [`Outcome::Closed`] if both ends have closed.
    pub fn outcome(&self) -> Outcome {
        self.cause.unwrap_or(Outcome::Closed)
    }

    /// Whether both ends have closed.
    pub const fn is_closed(&self) -> bool {
        self.closing.is_complete()
    }
}
