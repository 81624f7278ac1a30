//! The state behind the lock: the requests, and the messages that wait to be sent.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, Hasher, RandomState},
};

use adit_codec::{BatchBuilder, EncodedHead, RequestId, ResetCode, Side};
use adit_flow::{Budget, FairSender};
use bytes::Bytes;

use crate::{
    config::Config,
    request::{Item, RecvState, Request, SendState},
};

/// Entries of ended requests are removed from a list that is longer than twice the open requests and this number.
const SLACK: usize = 32;

/// The capacity that a list keeps once it is empty after a burst.
const KEPT: usize = 64;

/// A hash of the id and a secret: one multiplication, folded, as in wyhash (Wang Yi, 2019). The secret is needed
/// because the peer chooses its ids freely as long as they grow, and could choose ids that collide.
#[derive(Clone)]
pub(crate) struct IdHash {
    secret: u64,
}

impl Default for IdHash {
    fn default() -> Self {
        Self {
            secret: RandomState::new().hash_one(0_u64),
        }
    }
}

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher(self.secret)
    }
}

pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[allow(clippy::cast_possible_truncation)] // both halves are taken
    fn write_u64(&mut self, id: u64) {
        let product = u128::from(self.0 ^ id) * 0x9e37_79b9_7f4a_7c15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

pub(crate) type Requests = HashMap<RequestId, Request, IdHash>;

/// Counters since the stream began, and gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests opened by this end.
    pub opened: u64,
    /// Requests opened by the peer.
    pub accepted: u64,
    /// Requests of the peer refused here.
    pub refused: u64,
    /// Messages for requests that are over (P-2.5).
    pub late: u64,
    /// Rules that the peer violated.
    pub violations: u64,
    /// Messages sent.
    pub messages_sent: u64,
    /// Batches passed to the transport; more messages per batch make the hop cheaper.
    pub batches_sent: u64,
    /// Bytes passed to the transport.
    pub bytes_sent: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Windows granted to the peer.
    pub windows_sent: u64,
    /// Datagrams dropped because too many waited to be sent.
    pub datagrams_dropped: u64,
    /// Requests open now.
    pub open: usize,
    /// Cost of the messages that wait to be sent.
    pub queued: u64,
}

pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) budget: Budget,
    pub(crate) requests: Requests,
    /// The next id of this end; `None` when all are used.
    pub(crate) next_id: Option<RequestId>,
    /// The highest id the peer has opened.
    pub(crate) peer_highest: RequestId,
    /// Requests that the peer has opened and reset without a response since the last tick.
    pub(crate) given_up: u32,
    /// The number of `requests` that the peer opened.
    pub(crate) peer_open: usize,
    /// The number of `requests` that wait until their abort is sent.
    pub(crate) aborting: usize,
    pub(crate) control: VecDeque<Bytes>,
    /// The newest reply to a control message of the peer.
    pub(crate) control_reply: Option<Bytes>,
    pub(crate) refusals: VecDeque<(RequestId, ResetCode)>,
    /// Requests with owed messages; each at most once.
    pub(crate) owing: VecDeque<RequestId>,
    pub(crate) heads: VecDeque<(RequestId, EncodedHead, bool)>,
    /// The number of `heads` of requests that are over.
    pub(crate) stale_heads: usize,
    pub(crate) data: FairSender<RequestId, Item>,
    /// The cost of the messages that requests hold until their heads have been sent.
    pub(crate) held_cost: u64,
    /// The cost of the datagrams that wait to be sent. They have a bound of their own: a flood of them must not take
    /// the room of payload (P-11.2).
    pub(crate) datagram_cost: u64,
    /// Requests that wait because all requests together have queued too much, in order of arrival.
    pub(crate) blocked: VecDeque<RequestId>,
    pub(crate) builder: BatchBuilder,
    pub(crate) stats: Stats,
    /// The number of the connection, which is also that of its writer.
    pub(crate) connection: u32,
    /// Nothing can be opened: the stream is over, or has no connection.
    pub(crate) closed: bool,
}

impl State {
    pub(crate) fn new(config: Config, budget: Budget) -> Self {
        Self {
            next_id: Some(config.side.first_id()),
            data: FairSender::new(config.quantum),
            config,
            budget,
            requests: Requests::default(),
            peer_highest: RequestId::STREAM,
            given_up: 0,
            peer_open: 0,
            aborting: 0,
            control: VecDeque::new(),
            control_reply: None,
            refusals: VecDeque::new(),
            owing: VecDeque::new(),
            heads: VecDeque::new(),
            stale_heads: 0,
            held_cost: 0,
            datagram_cost: 0,
            blocked: VecDeque::new(),
            builder: BatchBuilder::new(),
            stats: Stats::default(),
            connection: 0,
            closed: false,
        }
    }

    pub(crate) fn side(&self) -> Side {
        self.config.side
    }

    /// Adds a request to the list of those with owed messages, once its opening has been sent.
    pub(crate) fn list_owing(
        owing: &mut VecDeque<RequestId>,
        id: RequestId,
        request: &mut Request,
    ) {
        if request.announced && !request.owed.listed && request.owed.is_any() {
            request.owed.listed = true;
            owing.push_back(id);
        }
    }

    /// Queues a message after a request's head.
    pub(crate) fn enqueue(
        data: &mut FairSender<RequestId, Item>,
        held_cost: &mut u64,
        id: RequestId,
        request: &mut Request,
        (item, cost): (Item, u64),
    ) {
        if request.heads > 0 {
            request.held.push_back((item, cost));
            request.held_cost += cost;
            *held_cost += cost;
        } else {
            data.push(id, item, cost);
        }
    }

    /// Drops the messages that one request has queued after its heads.
    pub(crate) fn drop_queued(&mut self, id: RequestId) {
        let held = self.requests.get_mut(&id).map(|request| {
            self.held_cost -= std::mem::take(&mut request.held_cost);
            std::mem::take(&mut request.held)
        });
        self.drop_items(id, held.unwrap_or_default());
    }

    /// Drops the queued items of a request, and those it `held`, which are not counted as held any more.
    fn drop_items(&mut self, id: RequestId, mut held: VecDeque<(Item, u64)>) {
        // Usually a request has nothing queued when it ends.
        if self.data.is_empty() && held.is_empty() {
            return;
        }
        let mut dropped = self.data.remove(id);
        dropped.append(&mut held);
        let datagrams = dropped.iter().map(|(item, cost)| item.datagram_cost(*cost));
        self.datagram_cost -= datagrams.sum::<u64>();
    }

    /// The cost of the messages of all requests that wait to be sent, without heads.
    pub(crate) fn queued(&self) -> u64 {
        self.data.total_cost() + self.held_cost
    }

    /// The cost of [`Self::queued`] without datagrams: the amount that senders who wait for room depend on.
    pub(crate) fn queued_payload(&self) -> u64 {
        self.queued() - self.datagram_cost
    }

    pub(crate) fn remove(&mut self, id: RequestId) {
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        self.held_cost -= request.held_cost;
        self.drop_items(id, request.held);
        if id.opener() != self.side() {
            self.peer_open -= 1;
        }
        self.aborting -= usize::from(request.abort.is_some());
        self.stale_heads += request.heads;
        self.prune();
        // A burst of requests must not stay in memory.
        if self.requests.is_empty() && self.requests.capacity() > 1024 {
            self.requests.shrink_to(KEPT);
        }
    }

    /// Keeps the lists in proportion to the open requests while nothing can be sent: a peer that opens and ends
    /// requests in a loop must not fill them with stale entries. Each pass removes at least half of the entries, so
    /// that its cost per entry is constant.
    pub(crate) fn prune(&mut self) {
        let requests = &self.requests;
        let bound = 2 * requests.len() + SLACK;
        if self.owing.len() > bound {
            self.owing
                .retain(|id| requests.get(id).is_some_and(|request| request.owed.listed));
        }
        if self.blocked.len() > bound {
            self.blocked
                .retain(|id| requests.get(id).is_some_and(|request| request.blocked));
        }
        if self.stale_heads > self.heads.len() / 2 + SLACK {
            self.heads
                .retain(|(id, ..)| requests.get(id).is_some_and(|request| request.heads > 0));
            self.stale_heads = 0;
        }
    }

    /// Releases the memory of lists that a burst has left empty.
    pub(crate) fn shrink(&mut self) {
        fn shrink<T>(list: &mut VecDeque<T>) {
            if list.is_empty() && list.capacity() > 16 * KEPT {
                list.shrink_to(KEPT);
            }
        }
        shrink(&mut self.heads);
        shrink(&mut self.owing);
        shrink(&mut self.blocked);
    }

    pub(crate) fn remove_if_over(&mut self, id: RequestId) {
        if self.requests.get(&id).is_some_and(Request::is_over) {
            self.remove(id);
        }
    }

    /// Ends both directions and owes the peer a reset, unless the opening head has never been sent.
    pub(crate) fn reset(&mut self, id: RequestId, code: ResetCode, reason: &str) -> bool {
        let Some(request) = self.requests.get_mut(&id) else {
            return false;
        };
        if !request.announced {
            self.remove(id);
            return true;
        }
        if request.owed.reset.is_some() {
            return false;
        }
        let over_on_the_wire = request.send == SendState::Done && request.recv == RecvState::Done;
        if over_on_the_wire {
            // The request is over at the peer as well: no reset is owed.
            self.remove(id);
            return true;
        }
        if request.abort.take().is_some() {
            self.aborting -= 1;
        }
        request.owed.reset = Some((code, reason.into()));
        request.owed.window = false;
        request.owed.stop = None;
        request.wants_to_send = false;
        self.stale_heads += std::mem::take(&mut request.heads);
        Self::list_owing(&mut self.owing, id, request);
        self.drop_queued(id);
        self.prune();
        true
    }

    /// Drops the requests and all messages that wait to be sent. Ids continue: none is used twice in the life of a
    /// stream, so that a late handle never reaches a newer request.
    pub(crate) fn detach(&mut self) {
        self.closed = true;
        self.requests.clear();
        self.requests.shrink_to(KEPT);
        self.data = FairSender::new(self.config.quantum);
        self.control.clear();
        self.control_reply = None;
        self.refusals.clear();
        self.owing.clear();
        self.heads.clear();
        self.blocked.clear();
        self.shrink();
        (self.peer_open, self.aborting, self.stale_heads) = (0, 0, 0);
        (self.held_cost, self.datagram_cost, self.given_up) = (0, 0, 0);
    }

    /// Opens the stream for another connection.
    pub(crate) const fn attach(&mut self) -> u32 {
        self.closed = false;
        self.connection = self.connection.wrapping_add(1);
        self.connection
    }

    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            open: self.requests.len(),
            queued: self.queued(),
            ..self.stats
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_codec::{
        Envelope, HttpRequest, HttpRequestHead, Open, Payload, Queue, RequestHead, WebSocketFrame,
    };
    use adit_flow::MESSAGE_COST;

    use super::*;
    use crate::Sendable;

    fn state() -> State {
        let mut config = Config::new(Side::Server);
        config.max_queued = 100;
        State::new(config, Budget::new(0))
    }

    fn open(state: &mut State) -> RequestId {
        let open: Open = Open::default();
        let head = HttpRequestHead {
            open: &open,
            method: "GET",
            scheme: "http",
            authority: b"",
            path: b"/",
        };
        let head = head.encode(std::iter::empty(), b"").unwrap();
        state.open(head, false, |_| true).unwrap().unwrap()
    }

    fn feed(state: &mut State, id: RequestId, payload: Payload) {
        let envelope = Envelope {
            id,
            end_stream: false,
            payload,
        };
        state.handle(envelope, &mut Vec::new()).unwrap();
    }

    fn opening() -> Payload {
        Payload::Request(RequestHead::Http(Box::new(HttpRequest {
            open: Open::default(),
            method: "GET".into(),
            scheme: Bytes::new(),
            authority: Bytes::new(),
            path: "/".into(),
            headers: Default::default(),
            body: Bytes::new(),
            upgrade: Bytes::new(),
        })))
    }

    const RESET: Payload = Payload::Reset {
        code: ResetCode::Cancelled,
        reason: Bytes::new(),
        in_order: false,
    };

    /// Regression: visitors that connect and leave while the client does not read filled the memory with heads.
    #[test]
    fn heads_of_ended_requests_are_removed() {
        let mut state = state();
        let kept = open(&mut state);
        for _ in 0..10_000 {
            let id = open(&mut state);
            state.reset(id, ResetCode::Cancelled, "");
            assert!(
                state.heads.len() <= 2 * (SLACK + 2),
                "{}",
                state.heads.len()
            );
            assert!(state.stale_heads <= state.heads.len());
        }
        assert_eq!((state.requests.len(), state.heads[0].0), (1, kept));
        // One more request, so that the list ends with a stale entry.
        let id = open(&mut state);
        state.reset(id, ResetCode::Cancelled, "");
        state.next_batch().unwrap();
        assert_eq!(
            (
                state.heads.len(),
                state.stale_heads,
                state.stats.messages_sent
            ),
            (0, 0, 1)
        );
    }

    /// Regression: the heads of responses filled the memory, with a peer that does not read them.
    #[test]
    fn response_heads_of_ended_requests_are_removed() {
        let mut state = state();
        for n in 0..10_000 {
            let id = RequestId::new(2 * n + 1);
            feed(&mut state, id, opening());
            let head = adit_codec::HttpResponseHead { status: 200 };
            let head = head.encode(std::iter::empty(), b"").unwrap();
            state.respond(id, head, false).unwrap();
            if n % 2 == 0 {
                feed(&mut state, id, RESET);
            } else {
                state.reset(id, ResetCode::Cancelled, "");
                feed(&mut state, id, RESET);
            }
            assert!(
                state.heads.len() <= 2 * (SLACK + 2),
                "{}",
                state.heads.len()
            );
            assert!(state.owing.len() <= SLACK + 3, "{}", state.owing.len());
        }
        assert_eq!(state.requests.len(), 0);
        // Only stale entries are left: nothing is sent, and the lists are empty.
        assert!(state.next_batch().is_none());
        assert!(state.heads.is_empty() && state.owing.is_empty() && !state.is_ready());
        assert_eq!((state.stale_heads, state.stats.messages_sent), (0, 0));
    }

    /// Regression: ended requests filled the memory with the list of requests that wait for room.
    #[test]
    fn ended_requests_leave_the_list_of_blocked() {
        let mut state = state();
        let full = open(&mut state);
        state.send(full, Bytes::from(vec![0; 500]), false).unwrap();
        for _ in 0..10_000 {
            let id = open(&mut state);
            assert_eq!(state.sendable(id), Ok(Sendable::Later));
            assert_eq!(state.sendable(id), Ok(Sendable::Later));
            state.reset(id, ResetCode::Cancelled, "");
            assert!(state.blocked.len() <= SLACK + 5, "{}", state.blocked.len());
        }
    }

    /// A queue has at most twice the room that it needs, and a small payload has an allocation of its own.
    #[test]
    fn p_4_1_a_waiting_item_occupies_at_most_its_cost() {
        let smallest_allocation = 32;
        let occupied = 2 * size_of::<(Item, u64)>() + smallest_allocation;
        assert!(occupied as u64 <= MESSAGE_COST, "{occupied}");
    }

    /// Waiting messages are counted by their cost: empty frames have no bytes.
    #[test]
    fn waiting_empty_frames_are_bounded_by_cost() {
        let mut config = Config::new(Side::Server);
        config.initial_window = 4 << 20;
        let (own, all) = (config.max_queued_per_request, config.max_queued);
        let mut state = State::new(config, Budget::new(0));
        let frame = WebSocketFrame {
            fin: true,
            rsv: 0,
            opcode: 1,
            length: 0,
        };
        let fill = |state: &mut State, id: RequestId| {
            let mut count = 0;
            while let Ok(Sendable::Now(_)) = state.sendable(id) {
                state.send_frame(id, frame, Bytes::new(), false).unwrap();
                count += 1;
            }
            count
        };
        // Once while heads wait to be sent, and once after they have been sent.
        for has_left in [false, true] {
            let first = open(&mut state);
            let ids: Vec<_> = (0..100).map(|_| open(&mut state)).collect();
            if has_left {
                while state.next_batch().is_some() {}
            }
            assert_eq!(fill(&mut state, first), own / MESSAGE_COST);
            let more: u64 = ids.iter().map(|id| fill(&mut state, *id)).sum();
            let quiet = ids.len() as u64;
            assert!(state.queued() <= all + quiet * MESSAGE_COST);
            assert!(own / MESSAGE_COST + more <= all / MESSAGE_COST + quiet);
            for id in std::iter::once(first).chain(ids) {
                state.remove(id);
            }
            assert_eq!(state.queued(), 0);
        }
    }

    /// A request that only waits until its abort is sent is in no table, so that this is the only bound on such
    /// requests.
    #[test]
    fn aborting_requests_are_bounded_while_nothing_leaves() {
        let mut state = state();
        for _ in 0..10_000 {
            let id = open(&mut state);
            state.abort(id, ResetCode::Cancelled, "left");
            assert!(state.requests.len() <= crate::send::MAX_ABORTING);
            assert!(state.heads.len() <= 2 * (crate::send::MAX_ABORTING + SLACK));
            assert_eq!(state.aborting, state.requests.len());
        }
        assert_eq!(state.requests.len(), crate::send::MAX_ABORTING);
        while state.next_batch().is_some() {}
        assert_eq!((state.requests.len(), state.aborting), (0, 0));
        assert_eq!(state.queued(), 0);
    }

    #[test]
    fn a_burst_does_not_stay_in_memory() {
        let mut state = state();
        let ids: Vec<_> = (0..5000).map(|_| open(&mut state)).collect();
        assert!(state.heads.capacity() >= 5000 && state.requests.capacity() >= 5000);
        while state.next_batch().is_some() {}
        for id in ids {
            state.reset(id, ResetCode::Cancelled, "");
        }
        assert!(state.owing.capacity() >= 5000);
        while state.next_batch().is_some() {}
        assert!(
            state.heads.capacity() <= 16 * KEPT,
            "{}",
            state.heads.capacity()
        );
        assert!(
            state.owing.capacity() <= 16 * KEPT,
            "{}",
            state.owing.capacity()
        );
        assert!(
            state.requests.capacity() <= 1024,
            "{}",
            state.requests.capacity()
        );
    }

    #[test]
    fn lists_keep_the_memory_of_the_usual_load() {
        let mut state = state();
        let ids: Vec<_> = (0..500).map(|_| open(&mut state)).collect();
        while state.next_batch().is_some() {}
        for id in ids {
            state.reset(id, ResetCode::Cancelled, "");
        }
        while state.next_batch().is_some() {}
        assert!(state.heads.is_empty() && state.owing.is_empty());
        assert!(state.heads.capacity() >= 500 && state.owing.capacity() >= 500);
    }

    /// Regression: with a hash that the peer knows, it could choose ids that collide.
    #[test]
    fn ids_chosen_to_collide_are_spread() {
        // The inverse of the multiplier of a hash without a secret, by Newton's iteration.
        let multiplier = 0x9e37_79b9_7f4a_7c15_u64;
        let mut inverse = 1_u64;
        for _ in 0..6 {
            inverse = inverse.wrapping_mul(2_u64.wrapping_sub(multiplier.wrapping_mul(inverse)));
        }
        assert_eq!(inverse.wrapping_mul(multiplier), 1);
        let hash = IdHash::default();
        let spread = |ids: &mut dyn Iterator<Item = u64>| {
            let buckets: std::collections::HashSet<u64> = ids
                .map(|id| hash.hash_one(RequestId::new(id)) & 0xfff)
                .collect();
            buckets.len()
        };
        // 4096 ids in 4096 places use about 2590 of them if they are distributed evenly.
        let chosen = spread(&mut (0..4096).map(|n| inverse.wrapping_mul(2 * n + 1)));
        assert!(chosen > 1500, "{chosen}");
        let dense = spread(&mut (0..4096).map(|n| 2 * n + 1));
        assert!(dense > 1500, "{dense}");
        let high = spread(&mut (0..4096).map(|n| (n << 40) | 1));
        assert!(high > 1500, "{high}");
        assert_ne!(IdHash::default().secret, IdHash::default().secret);
    }
}
