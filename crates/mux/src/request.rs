//! One open request: credit and state of both directions, and the messages owed to the peer.

use std::collections::VecDeque;

use adit_codec::{Compressed, HeaderBlock, ProtocolType, ResetCode, WebSocketFrame};
use adit_flow::{RecvCredit, SendCredit};
use bytes::Bytes;

/// A message of one request that waits to be sent, in its order.
#[derive(Debug)]
pub(crate) enum Item {
    Chunk {
        data: Bytes,
        end: bool,
    },
    Frame {
        frame: WebSocketFrame,
        data: Bytes,
        end: bool,
    },
    Compressed {
        frame: Option<WebSocketFrame>,
        compressed: Compressed,
        data: Bytes,
        end: bool,
    },
    Datagram(Bytes),
    Trailers(HeaderBlock),
    End,
    /// This end's direction is aborted; [`Request::abort`] has the reason.
    Abort,
}

impl Item {
    /// The part of a message's cost that counts as that of datagrams.
    pub(crate) const fn datagram_cost(&self, cost: u64) -> u64 {
        match self {
            Self::Datagram(_) => cost,
            _ => 0,
        }
    }
}

/// Messages owed to the peer: each is sent once, with its newest value (P-4.8).
#[derive(Debug, Default)]
pub(crate) struct Owed {
    pub(crate) window: bool,
    pub(crate) stop: Option<ResetCode>,
    pub(crate) reset: Option<(ResetCode, Box<str>)>,
    /// Whether the request is in the list of requests with owed messages.
    pub(crate) listed: bool,
}

impl Owed {
    pub(crate) const fn is_any(&self) -> bool {
        self.window || self.stop.is_some() || self.reset.is_some()
    }
}

/// The state of this end's direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendState {
    /// More messages may be sent.
    Open,
    /// The end is queued.
    Ending,
    /// The end has been sent.
    Done,
}

/// The peer's direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecvState {
    /// More messages may arrive.
    Open,
    /// `StopSending` was sent: later messages are dropped.
    Discarding,
    /// The end has arrived.
    Done,
}

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) protocol: ProtocolType,
    pub(crate) send_credit: SendCredit,
    pub(crate) recv_credit: RecvCredit,
    pub(crate) send: SendState,
    pub(crate) recv: RecvState,
    pub(crate) owed: Owed,
    /// The opening head has been sent, so that the peer knows the id.
    pub(crate) announced: bool,
    /// Our direction is aborted: the reset follows the messages that were sent before it (P-6.2).
    pub(crate) abort: Option<(ResetCode, Box<str>)>,
    /// Heads of this request that wait to be sent.
    pub(crate) heads: usize,
    /// Messages that wait behind the heads in `heads`, with their cost: nothing may overtake heads, wherever batches
    /// end.
    pub(crate) held: VecDeque<(Item, u64)>,
    /// The cost of `held`.
    pub(crate) held_cost: u64,
    /// The peer's final response has arrived.
    pub(crate) responded: bool,
    /// Payload or the end of this end's direction has been queued. The head of a response without a body does not
    /// count: it may be an interim one, which does not show that work was done.
    pub(crate) has_sent: bool,
    /// The peer sent `StopSending` for this end's direction.
    pub(crate) stopped: bool,
    /// A sender waits to be woken.
    pub(crate) wants_to_send: bool,
    /// The request is in the list of requests that wait for room in the queue of all requests.
    pub(crate) blocked: bool,
}

impl Request {
    pub(crate) fn new(protocol: ProtocolType, initial_window: u32, announced: bool) -> Self {
        Self {
            protocol,
            send_credit: SendCredit::new(initial_window),
            recv_credit: RecvCredit::new(initial_window),
            send: SendState::Open,
            recv: RecvState::Open,
            owed: Owed::default(),
            announced,
            abort: None,
            heads: 0,
            held: VecDeque::new(),
            held_cost: 0,
            responded: false,
            has_sent: false,
            stopped: false,
            wants_to_send: false,
            blocked: false,
        }
    }

    /// Whether a sender waits and should be woken now. Clears the wait.
    pub(crate) fn wake(&mut self) -> bool {
        std::mem::take(&mut self.wants_to_send) && self.send == SendState::Open && !self.is_reset()
    }

    /// This end has reset the request: the reset is owed, or waits for its place.
    pub(crate) const fn is_reset(&self) -> bool {
        self.owed.reset.is_some() || self.abort.is_some()
    }

    /// Nothing more can happen to the request: both directions are over and everything received has left. Until then
    /// its window stays charged to the budget.
    pub(crate) fn is_over(&self) -> bool {
        self.send == SendState::Done
            && self.recv == RecvState::Done
            && self.recv_credit.buffered() == 0
            && self.owed.stop.is_none()
            && !self.is_reset()
    }
}
