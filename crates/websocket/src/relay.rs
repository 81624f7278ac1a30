//! One end of a WebSocket that is carried over a link: a socket on one side, the link on the other.

use bytes::Bytes;

use crate::{
    closing::{Closing, Hop},
    frame::{FrameError, FrameHead},
    inbound::{Inbound, Piece},
    outbound::Outbound,
};

/// The code of an end that goes away (RFC 6455, 7.4.1).
pub const GOING_AWAY: u16 = 1001;
/// The code for a peer that breaks the protocol (RFC 6455, 7.4.1).
pub const PROTOCOL_ERROR: u16 = 1002;
/// The code for a peer that does what the receiver does not allow (RFC 6455, 7.4.1).
pub const POLICY_VIOLATION: u16 = 1008;

/// Pieces that wait for the socket before no more are taken from the link.
const MAX_PARTS: usize = 16;
/// Bytes that wait for the socket before no more are taken from the link. What is taken is bounded by credit; this
/// bounds what one write is made of.
const MAX_BYTES: usize = 64 * 1024;

/// What goes into the link next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToLink {
    /// A frame and the start of its payload.
    Frame(FrameHead, Bytes),
    /// More of the payload of the frame before.
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
    /// The socket's peer sent what cannot be read.
    Unreadable(FrameError),
    /// The other end left while a frame was on its way to it.
    LinkEnded,
}

/// How a WebSocket came to its end: what began it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Both ends closed it.
    Closed,
    /// We said that we go away.
    WentAway,
    /// The socket was lost without a close frame.
    SocketLost,
    /// The other end was lost without a close frame.
    LinkEnded,
    /// The link failed.
    LinkFailed,
    /// The socket's peer sent what cannot be read.
    Unreadable(FrameError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SocketState {
    Open,
    /// Its peer sends no more.
    Ended,
    /// It takes nothing any more. What its peer sent before is still read.
    Deaf,
    /// Of no use any more.
    Lost,
    Unreadable(FrameError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Open,
    /// Nothing more comes from it.
    Ended,
    /// Nothing goes into it any more either.
    Failed,
}

/// What we have said last in our direction of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    End,
    Reset,
}

/// The frame that is on its way in one direction.
#[derive(Debug, Clone, Copy, Default)]
struct Passage {
    passes: bool,
    is_close: bool,
    left: u64,
}

/// One end of a WebSocket that is carried over a link.
///
/// The order for whoever drives it, again and again until nothing moves:
/// 1. [`Relay::to_link`] with the credit there is, until it gives nothing;
/// 2. where [`Relay::wants_bytes`], read from the socket: [`Relay::unmask`] and [`Relay::on_bytes`], or
///    [`Relay::on_socket_end`], [`Relay::on_socket_lost`];
/// 3. while [`Relay::wants_link`], take from the link: [`Relay::on_frame`] and the others;
/// 4. write [`Relay::outbound`] to the socket.
///
/// Then, when [`Relay::is_settled`], let the link go; when [`Relay::may_shut_down`], shut the socket down; when both,
/// or when it [`Relay::is_aborted`], or when it has been [`Relay::is_ending`] for too long, let go of all.
#[derive(Debug)]
pub struct Relay<P> {
    inbound: Inbound,
    outbound: Outbound<P>,
    /// Gives a mask's key for each frame that goes to a service.
    keys: Option<fn() -> [u8; 4]>,
    closing: Closing,
    up: Passage,
    down: Passage,
    /// The code of a close frame of our own.
    leaving: Option<u16>,
    /// The rest of its payload, on its way into the link.
    own: Bytes,
    socket: SocketState,
    link: LinkState,
    said: Said,
    cause: Option<Outcome>,
}

impl<P: AsRef<[u8]>> Relay<P> {
    /// The end where visitors are: their frames must be masked, what they get is not.
    pub const fn to_visitor() -> Self {
        Self::new(true, None)
    }

    /// The end where the service is: what it gets is masked with `keys`, which nobody may guess (RFC 6455, 10.3); its
    /// frames must not be.
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
            up: passage,
            down: passage,
            leaving: None,
            own: Bytes::new(),
            socket: SocketState::Open,
            link: LinkState::Open,
            said: Said::Nothing,
            cause: None,
        }
    }

    /// Whether the socket is to be read from. Without credit only where [`Relay::reads_freely`].
    pub fn wants_bytes(&self) -> bool {
        matches!(self.socket, SocketState::Open | SocketState::Deaf)
            && self.link != LinkState::Failed
            && self.inbound.is_empty()
            && !self.closing.is_complete()
            && self.said == Said::Nothing
    }

    /// Whether what the socket's peer sends goes nowhere, so that reading it takes no credit. It is read all the same:
    /// its close frame, or its loss, is waited for.
    pub const fn reads_freely(&self) -> bool {
        if self.up.left > 0 {
            !self.up.passes
        } else {
            !self.closing.passes(Hop::Socket)
        }
    }

    /// Takes the masks off bytes that have just been read.
    pub fn unmask(&mut self, bytes: &mut [u8]) {
        if !self.closing.has_closed(Hop::Socket) {
            self.inbound.unmask(bytes);
        }
    }

    /// Takes bytes from the socket that have been through [`Relay::unmask`].
    pub fn on_bytes(&mut self, bytes: Bytes) {
        // RFC 6455, 5.5.1: what comes after a close frame is discarded.
        if !self.closing.has_closed(Hop::Socket) {
            self.inbound.on_bytes(bytes);
        }
    }

    /// The socket's peer sends no more.
    pub fn on_socket_end(&mut self) {
        match self.socket {
            SocketState::Open => {
                self.socket = SocketState::Ended;
                self.on_socket_gone();
            }
            // Lost before it ended: the error has been taken by a write.
            SocketState::Deaf => self.on_socket_lost(),
            SocketState::Ended | SocketState::Lost | SocketState::Unreadable(_) => {}
        }
    }

    /// The socket's peer sends more frames without content than it may: it gets a close frame, and is not read on.
    pub fn on_flood(&mut self) {
        if matches!(self.socket, SocketState::Open | SocketState::Deaf) {
            self.on_unreadable(FrameError::WithoutContent);
        }
    }

    /// The socket cannot be read from or written to any more. What has been read goes on into the link.
    pub fn on_socket_lost(&mut self) {
        if !matches!(self.socket, SocketState::Lost) {
            self.socket = SocketState::Lost;
            self.outbound.clear();
            self.on_socket_gone();
        }
    }

    /// The socket cannot be written to any more. What its peer sent before is still read.
    pub fn on_socket_deaf(&mut self) {
        if self.socket == SocketState::Open {
            self.socket = SocketState::Deaf;
            self.outbound.clear();
            self.on_socket_gone();
        } else {
            self.on_socket_lost();
        }
    }

    /// Whether the socket has failed. What is left to do is to send on what came from it.
    pub const fn has_lost_socket(&self) -> bool {
        matches!(self.socket, SocketState::Lost | SocketState::Deaf)
    }

    fn on_socket_gone(&mut self) {
        if !self.closing.has_closed(Hop::Socket) && !self.closing.was_told(Hop::Socket) {
            self.cause.get_or_insert(Outcome::SocketLost);
        }
    }

    /// Says to both ends, each between two frames, that we go away, if nobody has closed yet (P-9.6).
    pub fn leave(&mut self) {
        if self.leaving.is_none()
            && self.socket == SocketState::Open
            && self.link == LinkState::Open
        {
            self.leaving = Some(GOING_AWAY);
            self.cause.get_or_insert(Outcome::WentAway);
            self.tell_socket();
        }
    }

    /// What goes into the link next, where this many bytes of payload may go at once; 0: none.
    pub fn to_link(&mut self, allowed: usize) -> Option<ToLink> {
        if self.said != Said::Nothing || self.link == LinkState::Failed {
            return None;
        }
        if !self.own.is_empty() {
            return (allowed > 0).then(|| {
                let count = allowed.min(self.own.len());
                ToLink::Data(self.own.split_to(count))
            });
        }
        loop {
            if let Some(word) = self.own_word(allowed) {
                return word;
            }
            if self.closing.has_closed(Hop::Socket) {
                self.inbound.clear();
                return self.after_input();
            }
            let most = if self.reads_freely() {
                usize::MAX
            } else {
                allowed
            };
            if most == 0 {
                // A head alone takes no credit, but goes on with what does.
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

    /// What is ours to say between two frames. None: nothing; Some(None): something that has to wait.
    #[allow(clippy::option_option)]
    fn own_word(&mut self, allowed: usize) -> Option<Option<ToLink>> {
        let in_frame = self.is_in_frame();
        // The far end was lost: ours hears all that it had said, and then of that.
        if self.link == LinkState::Ended
            && !self.closing.has_closed(Hop::Link)
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
            // Its peer hears of it first: where a frame is on its way to it, the rest of that is waited for.
            let told = self.closing.was_told(Hop::Socket);
            return Some(told.then(|| self.reset(ResetCause::Unreadable(error))));
        }
        // Of what cannot be read only its sender is told.
        let code = self
            .leaving
            .filter(|code| *code == GOING_AWAY && !self.closing.was_told(Hop::Link))?
            .to_be_bytes();
        if allowed == 0 {
            return Some(None);
        }
        self.closing.tell(Hop::Link);
        self.own = Bytes::copy_from_slice(&code);
        let start = self.own.split_to(allowed.min(code.len()));
        Some(Some(ToLink::Frame(FrameHead::CLOSE, start)))
    }

    /// P-9.3: whatever it means, it goes on as it came.
    fn on_piece(&mut self, piece: Piece) -> Option<ToLink> {
        let out = match piece {
            Piece::Frame(head, data) => {
                self.up = Passage {
                    passes: self.closing.passes(Hop::Socket),
                    is_close: head.is_close(),
                    left: head.length - data.len() as u64,
                };
                ToLink::Frame(head, data)
            }
            Piece::Data(data) => {
                self.up.left -= data.len() as u64;
                ToLink::Data(data)
            }
        };
        if self.up.left == 0 && self.up.is_close {
            self.closing.on_close(Hop::Socket, self.up.passes);
        }
        self.up.passes.then_some(out)
    }

    /// P-9.4: its sender is told, the other end broken off.
    fn on_unreadable(&mut self, error: FrameError) {
        self.socket = SocketState::Unreadable(error);
        self.inbound.clear();
        self.cause.get_or_insert(Outcome::Unreadable(error));
        if self.leaving.is_none() {
            self.leaving = Some(match error {
                FrameError::WithoutContent => POLICY_VIOLATION,
                _ => PROTOCOL_ERROR,
            });
        }
        self.tell_socket();
    }

    /// All that has come from the socket has gone on: whether that was all there is.
    fn after_input(&mut self) -> Option<ToLink> {
        let closed = self.closing.has_closed(Hop::Socket);
        match self.socket {
            // The far end has gone after its close frame, and waits for nothing.
            _ if closed => (self.link == LinkState::Ended).then(|| self.end()),
            SocketState::Ended if !self.is_in_frame() => Some(self.end()),
            SocketState::Ended | SocketState::Lost => Some(self.reset(ResetCause::SocketLost)),
            SocketState::Open | SocketState::Deaf | SocketState::Unreadable(_) => None,
        }
    }

    /// Whether part of a frame has gone into the link.
    const fn is_in_frame(&self) -> bool {
        self.up.passes && self.up.left > 0
    }

    fn end(&mut self) -> ToLink {
        self.said = Said::End;
        ToLink::End
    }

    fn reset(&mut self, why: ResetCause) -> ToLink {
        self.said = Said::Reset;
        ToLink::Reset(why)
    }

    /// Whether there is room for more from the link.
    pub fn wants_link(&self) -> bool {
        self.link == LinkState::Open
            && self.said != Said::Reset
            && self.outbound.parts() < MAX_PARTS
            && self.outbound.bytes() < MAX_BYTES
    }

    /// A frame and the start of its payload have come from the link.
    pub fn on_frame(&mut self, head: &FrameHead, payload: P) {
        self.down = Passage {
            // To one whose frames cannot be read there is only one thing to say.
            passes: self.closing.passes(Hop::Link)
                && self.hears()
                && !matches!(self.socket, SocketState::Unreadable(_)),
            is_close: head.is_close(),
            left: head.length.saturating_sub(payload.as_ref().len() as u64),
        };
        if self.down.passes {
            self.outbound
                .frame(head, payload, self.keys.map(|key| key()));
        }
        self.after_down();
    }

    /// More of the payload of the frame before has come from the link.
    pub fn on_data(&mut self, payload: P) {
        let length = payload.as_ref().len() as u64;
        self.down.left = self.down.left.saturating_sub(length);
        if self.down.passes && self.hears() {
            self.outbound.data(payload);
        }
        self.after_down();
    }

    /// Nothing more comes from the link.
    pub fn on_link_end(&mut self) {
        self.link = LinkState::Ended;
        if !self.closing.has_closed(Hop::Link) {
            self.cause.get_or_insert(Outcome::LinkEnded);
        }
    }

    /// The link takes nothing any more, and may still have something to give.
    pub fn on_link_deaf(&mut self) {
        self.inbound.clear();
        self.own = Bytes::new();
        self.said = Said::End;
    }

    /// The link is of no use any more: reset by its other end, or lost.
    pub fn on_link_failed(&mut self) {
        self.link = LinkState::Failed;
        self.inbound.clear();
        if !self.closing.has_closed(Hop::Link) {
            self.cause.get_or_insert(Outcome::LinkFailed);
        }
    }

    /// Whether the socket's peer may be there yet. One that left without a word is not.
    fn hears(&self) -> bool {
        match self.socket {
            SocketState::Open | SocketState::Unreadable(_) => true,
            SocketState::Ended => self.closing.has_closed(Hop::Socket),
            SocketState::Deaf | SocketState::Lost => false,
        }
    }

    fn after_down(&mut self) {
        if self.down.left == 0 && self.down.is_close {
            self.closing.on_close(Hop::Link, self.down.passes);
        }
        self.tell_socket();
    }

    /// Queues a close frame of our own for the socket, when it is time.
    fn tell_socket(&mut self) {
        let between = self.down.left == 0 || !self.down.passes;
        if let Some(code) = self.leaving
            && between
            && self.hears()
            && self.closing.tell(Hop::Socket)
        {
            self.outbound.close(code, self.keys.map(|key| key()));
        }
    }

    /// Whether what is written to the socket is masked, so that it has to be copied.
    pub const fn masks(&self) -> bool {
        self.keys.is_some()
    }

    /// What is to be written to the socket.
    pub const fn outbound(&self) -> &Outbound<P> {
        &self.outbound
    }

    /// Says that the next `count` bytes of [`Relay::outbound`] have been written.
    pub fn on_written(&mut self, count: usize) {
        self.outbound.advance(count);
    }

    /// Whether the end has begun in any way. What is missing is up to others then: it is not waited for without a
    /// bound.
    pub fn is_ending(&self) -> bool {
        self.leaving.is_some()
            || self.closing.is_complete()
            || self.socket != SocketState::Open
            || self.link != LinkState::Open
    }

    /// Whether the link can be let go: both of its directions are over, or it was reset.
    pub fn is_settled(&self) -> bool {
        match (self.said, self.link) {
            (Said::Reset, _) | (_, LinkState::Failed) | (Said::End, LinkState::Ended) => true,
            (Said::Nothing | Said::End, _) => false,
        }
    }

    /// Whether the socket can be shut down: all has been written that is going to be, and nothing is waited for.
    pub fn may_shut_down(&self) -> bool {
        let far_is_gone = match self.link {
            LinkState::Open => false,
            // Its close frame is answered, if it is.
            LinkState::Ended => {
                !self.closing.has_closed(Hop::Link) || self.socket != SocketState::Open
            }
            LinkState::Failed => true,
        };
        let peer_is_gone =
            self.socket == SocketState::Ended && !self.closing.has_closed(Hop::Socket);
        let is_over = self.closing.is_complete()
            || self.said == Said::Reset
            || far_is_gone
            || peer_is_gone
            || self.socket == SocketState::Lost;
        is_over && self.outbound.is_empty()
    }

    /// Whether the socket is to be closed as it stands: the link failed, all that came from it before has been written, and
    /// nobody has told the peer that it is over.
    pub fn is_aborted(&self) -> bool {
        let cut = self.down.passes && self.down.left > 0;
        let unheard = !self.closing.was_told(Hop::Socket) || cut;
        (self.link == LinkState::Failed && unheard && self.outbound.is_empty())
            || (self.socket == SocketState::Lost && self.is_settled())
    }

    /// What began the end; [`Outcome::Closed`] as long as nothing else did.
    pub fn outcome(&self) -> Outcome {
        self.cause.unwrap_or(Outcome::Closed)
    }

    /// Whether both ends have closed.
    pub const fn is_closed(&self) -> bool {
        self.closing.is_complete()
    }
}
