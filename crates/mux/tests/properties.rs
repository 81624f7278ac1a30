//! One mux between a peer that follows no rule and tasks that call in any order.
//!
//! Promises, checked against a simple model of the messages and results:
//! - nothing panics, and the stream ends only with one of its errors;
//! - the cost of sent messages, as P-4.1 defines it, never exceeds the granted credit (P-4.2), frames included;
//! - datagrams cost no credit, and the waiting ones are bounded (P-11.2, P-11.3);
//! - own ids are sent in ascending order, each first with its head; nothing but `Window`, `StopSending` and `Reset`
//!   follows an end, nothing at all follows a reset, and no request is reset twice;
//! - an owed message is sent at most once between two calls (P-4.8);
//! - the messages that wait to be sent are bounded by the config;
//! - waiting senders are woken: when the writer has nothing left to write, no sender waits that could send;
//! - when every request has been reset nothing is left, and all bytes of the budget are returned.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use adit_codec::{
    Compressed, Compression, ProtocolType, RequestId, ResetCode, Side, WebSocketFrame,
};
use adit_flow::{Budget, MESSAGE_COST, MIN_WINDOW};
use adit_mux::{Config, Event, SendError, Sendable};
use adit_proto::{TunnelMessage, tunnel_message::Payload};
use bytes::Bytes;
use proptest::prelude::*;
use support::{heads::*, *};

const COST: usize = MESSAGE_COST as usize;

#[derive(Debug, Clone)]
enum Op {
    Open {
        protocol: usize,
        body: usize,
        end: bool,
    },
    /// A frame with as much payload as is allowed, at most this.
    Frame {
        of: usize,
        most: usize,
        end: bool,
    },
    Datagram {
        of: usize,
        length: usize,
    },
    /// Compressed payload: its inflated size is what is allowed, at most this, and its own size a tenth of that.
    Compressed {
        of: usize,
        most: usize,
        end: bool,
    },
    Response {
        of: usize,
        body: usize,
        end: bool,
    },
    /// Payload: as much as is allowed, at most this.
    Send {
        of: usize,
        most: usize,
        end: bool,
    },
    /// Payload of this length, whether it is allowed or not.
    Push {
        of: usize,
        length: usize,
    },
    Sendable {
        of: usize,
    },
    Trailers {
        of: usize,
    },
    Consume {
        of: usize,
        cost: u64,
    },
    Stop {
        of: usize,
    },
    Reset {
        of: usize,
    },
    Abort {
        of: usize,
    },
    Feed(Vec<Feed>),
    Transmit {
        batches: usize,
    },
    Tick,
}

#[derive(Debug, Clone)]
struct Feed {
    of: usize,
    kind: Kind,
    end: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    /// Opens a request: its id is the peer's next one plus `skip`.
    Open {
        protocol: usize,
        skip: u64,
        body: usize,
    },
    Reopen,
    Response {
        status: u32,
        body: usize,
    },
    Chunk {
        length: usize,
    },
    End,
    Trailers,
    Window {
        limit: u64,
        consumed: u64,
    },
    /// A window with the cost that this end has sent, and more credit.
    HonestWindow {
        more: u64,
    },
    Stop,
    Reset,
    Abort,
    Datagram {
        length: usize,
    },
    Frame {
        payload: usize,
        more: u64,
    },
    /// Compressed payload, sometimes longer than its inflated size.
    Compressed {
        length: usize,
        before: u32,
        in_frame: bool,
    },
    Contradiction,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => (0..5usize, 0..3u64, 0..40usize)
            .prop_map(|(protocol, skip, body)| Kind::Open { protocol, skip: skip * 2, body }),
        1 => Just(Kind::Reopen),
        2 => (prop_oneof![Just(100u32), Just(200)], 0..40usize)
            .prop_map(|(status, body)| Kind::Response { status, body }),
        4 => (0..600usize).prop_map(|length| Kind::Chunk { length }),
        1 => Just(Kind::End),
        1 => Just(Kind::Trailers),
        1 => (0..5000u64, 0..200u64).prop_map(|(limit, consumed)| Kind::Window { limit, consumed }),
        4 => (0..3000u64).prop_map(|more| Kind::HonestWindow { more }),
        1 => Just(Kind::Stop),
        1 => Just(Kind::Reset),
        1 => Just(Kind::Abort),
        2 => (0..1100usize).prop_map(|length| Kind::Datagram { length }),
        2 => (0..600usize, 0..3u64).prop_map(|(payload, more)| Kind::Frame { payload, more }),
        2 => (0..60usize, 10..700u32, any::<bool>())
            .prop_map(|(length, before, in_frame)| Kind::Compressed { length, before, in_frame }),
        1 => Just(Kind::Contradiction),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let of = 0..12usize;
    let feed = (of.clone(), kind(), prop::bool::weighted(0.2)).prop_map(|(of, kind, end)| Feed {
        of,
        kind,
        end,
    });
    prop_oneof![
        4 => (0..5usize, 0..60usize, prop::bool::weighted(0.3))
            .prop_map(|(protocol, body, end)| Op::Open { protocol, body, end }),
        3 => (of.clone(), 0..1500usize, prop::bool::weighted(0.1))
            .prop_map(|(of, most, end)| Op::Frame { of, most, end }),
        3 => (of.clone(), 0..1100usize).prop_map(|(of, length)| Op::Datagram { of, length }),
        3 => (of.clone(), 2..1500usize, prop::bool::weighted(0.1))
            .prop_map(|(of, most, end)| Op::Compressed { of, most, end }),
        3 => (of.clone(), 0..60usize, prop::bool::weighted(0.3))
            .prop_map(|(of, body, end)| Op::Response { of, body, end }),
        8 => (of.clone(), 1..2000usize, prop::bool::weighted(0.1))
            .prop_map(|(of, most, end)| Op::Send { of, most, end }),
        1 => (of.clone(), 0..2000usize).prop_map(|(of, length)| Op::Push { of, length }),
        4 => of.clone().prop_map(|of| Op::Sendable { of }),
        1 => of.clone().prop_map(|of| Op::Trailers { of }),
        3 => (of.clone(), 0..600u64).prop_map(|(of, cost)| Op::Consume { of, cost }),
        1 => of.clone().prop_map(|of| Op::Stop { of }),
        1 => of.clone().prop_map(|of| Op::Reset { of }),
        1 => of.prop_map(|of| Op::Abort { of }),
        8 => prop::collection::vec(feed, 1..5).prop_map(Op::Feed),
        4 => (0..3usize).prop_map(|batches| Op::Transmit { batches }),
        1 => Just(Op::Tick),
    ]
}

/// The messages of one request that this end has sent.
#[derive(Debug, Default)]
struct Wire {
    cost: u64,
    ended: bool,
    reset: bool,
}

struct Model {
    end: End,
    config: Config,
    budget: Budget,
    /// All opened requests, in the order in which either side opened them.
    known: Vec<RequestId>,
    protocols: HashMap<RequestId, ProtocolType>,
    peer_next: u64,
    own_highest: u64,
    wire: HashMap<u64, Wire>,
    limits: BTreeMap<u64, u64>,
    waiting: BTreeSet<RequestId>,
    has_sent: BTreeSet<RequestId>,
    /// Bytes pushed beyond what was allowed; they do not count against the bound.
    pushed: u64,
    dead: bool,
}

impl Model {
    fn new(side: Side, max_queued: u64, per_request: u64, max_batch: usize) -> Self {
        let mut config = Config::new(side);
        config.initial_window = 600;
        config.max_window = 5000;
        config.max_requests = 8;
        config.max_payload = 1000;
        config.max_queued = max_queued;
        config.max_queued_datagrams = max_queued / 2;
        config.max_queued_per_request = per_request;
        config.max_batch = max_batch;
        config.quantum = 500;
        let budget = Budget::new(4000);
        Self {
            end: End::with_budget(config.clone(), budget.clone()),
            config,
            budget,
            known: Vec::new(),
            protocols: HashMap::new(),
            peer_next: side.peer().first_id().value(),
            own_highest: 0,
            wire: HashMap::new(),
            limits: BTreeMap::new(),
            waiting: BTreeSet::new(),
            has_sent: BTreeSet::new(),
            pushed: 0,
            dead: false,
        }
    }

    /// The `of`-th request from the end of `known`, or an unknown id.
    fn pick(&self, of: usize) -> RequestId {
        let index = self.known.len().checked_sub(1 + of);
        index.map_or(RequestId::new(of as u64), |index| self.known[index])
    }

    /// The protocol of a request, if this end knows it: a caller sends only what its protocol allows.
    fn protocol(&self, id: RequestId) -> ProtocolType {
        *self.protocols.get(&id).unwrap_or(&ProtocolType::Http)
    }

    fn sendable(&mut self, id: RequestId) -> Option<usize> {
        match self.end.mux.sendable(id) {
            Ok(Sendable::Now(bytes)) => {
                assert!((1..=self.config.max_payload).contains(&bytes));
                Some(bytes)
            }
            Ok(Sendable::Later) => {
                self.waiting.insert(id);
                None
            }
            Err(SendError::NoCredit(_)) => panic!("nothing was offered"),
            Err(_) => None,
        }
    }

    fn play(&mut self, op: Op) {
        let mux = self.end.mux.clone();
        match op {
            Op::Open {
                protocol,
                body,
                end,
            } => {
                let protocol = ALL[protocol];
                let head = own_opening(protocol, &vec![1; body]);
                let id = mux.open(head, end, |_| true).unwrap().unwrap();
                self.known.push(id);
                self.protocols.insert(id, protocol);
            }
            Op::Frame { of, most, end } => {
                let id = self.pick(of);
                if self.protocol(id) == ProtocolType::WebSocket
                    && let Some(bytes) = self.sendable(id)
                {
                    let data = Bytes::from(vec![4; bytes.min(most)]);
                    let frame = WebSocketFrame {
                        fin: true,
                        rsv: 0,
                        opcode: 1,
                        length: most as u64,
                    };
                    mux.send_frame(id, frame, data, end).unwrap();
                    self.has_sent.insert(id);
                }
            }
            Op::Compressed { of, most, end } => {
                let id = self.pick(of);
                if self.protocol(id) != ProtocolType::Udp
                    && let Some(bytes) = self.sendable(id)
                {
                    let before = bytes.min(most);
                    let data = Bytes::from(vec![7; before / 10]);
                    let compressed = Compressed {
                        by: Compression::Gzip,
                        inflated_bytes: before as u32,
                    };
                    let frame =
                        (self.protocol(id) == ProtocolType::WebSocket).then_some(WebSocketFrame {
                            fin: false,
                            rsv: 0,
                            opcode: 2,
                            length: before as u64 + 1,
                        });
                    mux.send_compressed(id, frame, compressed, data, end)
                        .unwrap();
                    self.has_sent.insert(id);
                }
            }
            Op::Datagram { of, length } => {
                let id = self.pick(of);
                if self.protocol(id) == ProtocolType::Udp {
                    self.has_sent.insert(id);
                    let data = Bytes::from(vec![5; length]);
                    match mux.send_datagram(id, data.clone()) {
                        Err(SendError::NoCredit(back)) => {
                            assert_eq!(back, data);
                            assert!(length > self.config.max_payload);
                        }
                        Ok(()) => assert!(length <= self.config.max_payload),
                        Err(_) => {}
                    }
                }
            }
            Op::Response { of, body, end } => {
                let id = self.pick(of);
                // The caller's duty: only the accepting side responds, and before the payload.
                if id.opener() != self.config.side && !self.has_sent.contains(&id) {
                    let head = own_response(self.protocol(id), &vec![1; body]);
                    let _ = mux.respond(id, head, end);
                }
            }
            Op::Send { of, most, end } => {
                let id = self.pick(of);
                if self.protocol(id) != ProtocolType::Udp
                    && let Some(bytes) = self.sendable(id)
                {
                    let data = vec![2; bytes.min(most)];
                    mux.send(id, data.into(), end).unwrap();
                    self.has_sent.insert(id);
                }
            }
            Op::Push { of, .. } if self.protocol(self.pick(of)) == ProtocolType::Udp => {}
            Op::Push { of, length } => {
                let data = Bytes::from(vec![3; length]);
                self.has_sent.insert(self.pick(of));
                match mux.send(self.pick(of), data.clone(), false) {
                    Ok(()) => self.pushed += length as u64 + MESSAGE_COST,
                    Err(SendError::NoCredit(back)) => assert_eq!(back, data),
                    Err(_) => {}
                }
            }
            Op::Sendable { of } => {
                self.sendable(self.pick(of));
            }
            Op::Trailers { of } => {
                let protocol = self.protocol(self.pick(of));
                if !matches!(protocol, ProtocolType::Http | ProtocolType::Grpc) {
                    return;
                }
                let _ = mux.send_trailers(self.pick(of), Default::default());
            }
            Op::Consume { of, cost } => mux.consume(self.pick(of), cost),
            Op::Stop { of } => mux.stop_sending(self.pick(of), ResetCode::Cancelled),
            Op::Reset { of } => {
                mux.reset(self.pick(of), ResetCode::Cancelled, "test");
            }
            Op::Abort { of } => {
                mux.abort(self.pick(of), ResetCode::ServiceAborted, "test");
            }
            Op::Feed(feeds) => self.feed(feeds),
            Op::Transmit { batches } => {
                for _ in 0..batches {
                    let Some(transmit) = self.end.transmit() else {
                        break;
                    };
                    self.on_writable(&transmit.writable);
                    let segments = transmit
                        .batch
                        .into_iter()
                        .flat_map(adit_codec::Batch::into_segments);
                    let bytes: Vec<u8> = segments.flatten().collect();
                    self.check_sent(&messages(bytes.into()));
                }
            }
            Op::Tick => mux.tick(),
        }
        self.check_bounds();
    }

    fn feed(&mut self, feeds: Vec<Feed>) {
        let mut messages = Vec::new();
        for Feed { of, kind, end } in feeds {
            let id = self.pick(of).value();
            messages.push(match kind {
                Kind::Open {
                    protocol,
                    skip,
                    body,
                } => {
                    let id = self.peer_next + skip;
                    self.peer_next = id + 2;
                    peer_opening(ALL[protocol], id, &vec![1; body], end)
                }
                Kind::Reopen => opening(id, b"", end),
                Kind::Response { status, body } => {
                    // Sometimes the response has another protocol.
                    let protocol = match body {
                        0 => ALL[id as usize % ALL.len()],
                        _ => self.protocol(RequestId::new(id)),
                    };
                    peer_response(protocol, id, status, &vec![1; body], end)
                }
                Kind::Chunk { length } => chunk(id, length, end),
                Kind::End => plain_end(id),
                Kind::Trailers => trailers(id),
                Kind::Window { limit, consumed } => {
                    self.grant(id, limit);
                    window(id, limit, consumed)
                }
                Kind::HonestWindow { more } => {
                    let limit = self.limit(id) + more;
                    self.grant(id, limit);
                    let consumed = self.wire.get(&id).map_or(0, |wire| wire.cost);
                    window(id, limit, consumed)
                }
                Kind::Stop => stop(id),
                Kind::Reset => reset(id),
                Kind::Abort => abort(id),
                Kind::Datagram { length } => {
                    message(id, end, Payload::Datagram(vec![6; length].into()))
                }
                Kind::Frame { payload, more } => {
                    peer_frame(id, payload, payload as u64 + more, end)
                }
                Kind::Compressed {
                    length,
                    before,
                    in_frame,
                } => {
                    let plain = if in_frame {
                        peer_frame(id, length, 700, end)
                    } else {
                        chunk(id, length, end)
                    };
                    TunnelMessage {
                        inflated_bytes: before,
                        compression: adit_proto::Compression::Zstd.into(),
                        ..plain
                    }
                }
                Kind::Contradiction => {
                    let mut message = chunk(id, 3, end);
                    message.message_type = adit_proto::MessageType::Reset.into();
                    message
                }
            });
        }
        let (events, result) = self.end.try_feed(messages);
        self.dead = result.is_err();
        for event in events {
            match event {
                Event::Opened { id, head, .. } => {
                    self.known.push(id);
                    self.protocols.insert(id, head.protocol());
                }
                Event::Frame { id, cost, data, .. } => {
                    assert_eq!(self.protocol(id), ProtocolType::WebSocket);
                    assert_eq!(cost, data.len() as u64 + MESSAGE_COST);
                }
                Event::Compressed {
                    id,
                    frame,
                    compressed,
                    data,
                    cost,
                    ..
                } => {
                    assert!(self.protocol(id) != ProtocolType::Udp);
                    assert!(frame.is_none() || self.protocol(id) == ProtocolType::WebSocket);
                    assert!(data.len() < compressed.inflated_len());
                    assert_eq!(cost, compressed.inflated_len() as u64 + MESSAGE_COST);
                }
                Event::Datagram { id, .. } => assert_eq!(self.protocol(id), ProtocolType::Udp),
                Event::Response { id, head, .. } => assert!(head.responds_to(self.protocol(id))),
                Event::Writable { id } => self.on_writable(&[id]),
                _ => {}
            }
        }
    }

    fn limit(&self, id: u64) -> u64 {
        let initial = u64::from(self.config.initial_window);
        self.limits.get(&id).copied().unwrap_or(initial)
    }

    fn grant(&mut self, id: u64, limit: u64) {
        let limit = limit.max(self.limit(id));
        self.limits.insert(id, limit);
    }

    fn on_writable(&mut self, ids: &[RequestId]) {
        for id in ids {
            assert!(self.waiting.remove(id), "{id} did not wait");
        }
    }

    fn check_sent(&mut self, messages: &[TunnelMessage]) {
        for message in messages {
            let id = message.request_id;
            let own = RequestId::new(id).opener() == self.config.side;
            let what = outline(std::slice::from_ref(message));
            if opens(message) {
                assert!(own && id > self.own_highest, "ids ascend: {what:?}");
                self.own_highest = id;
            }
            assert!(
                !own || id <= self.own_highest,
                "the head goes first: {what:?}"
            );
            let wire = self.wire.entry(id).or_default();
            assert!(!wire.reset, "after a reset: {what:?}");
            wire.cost += cost_of(message);
            let in_order = match &message.payload {
                Some(Payload::Chunk(data)) => {
                    assert!(!data.is_empty() || message.inflated_bytes > 0);
                    true
                }
                Some(Payload::Window(_) | Payload::StopSending(_)) => false,
                Some(Payload::Reset(_)) => {
                    wire.reset = true;
                    false
                }
                _ => true,
            };
            assert!(!(in_order && wire.ended), "after the end: {what:?}");
            wire.ended |= message.end_stream;
            let (cost, limit) = (wire.cost, self.limit(id));
            assert!(cost <= limit, "{cost} of {limit}: {what:?}");
        }
    }

    fn check_bounds(&self) {
        let stats = self.end.mux.stats();
        // Payload has twice the bound, with one message above it: a request with nothing queued may exceed the bound
        // once. Ends and aborts need no permission.
        let message = self.config.max_payload as u64 + MESSAGE_COST;
        let ends = 2 * stats.open as u64 * MESSAGE_COST;
        // Datagrams, which need no permission, have the same bound again.
        let bound = 2 * (2 * self.config.max_queued + message) + ends + self.pushed;
        assert!(stats.queued <= bound, "{} of {bound}", stats.queued);
    }

    /// Lets the mux send everything that it can.
    fn drain(&mut self) {
        let sent = self.end.sent();
        let writable = std::mem::take(&mut self.end.writable);
        self.on_writable(&writable);
        self.check_sent(&sent);
        let mut owed = BTreeSet::new();
        for message in &sent {
            let kind = match &message.payload {
                Some(Payload::Window(_)) => 0,
                Some(Payload::StopSending(_)) => 1,
                _ => continue,
            };
            assert!(
                owed.insert((message.request_id, kind)),
                "owed once: {message:?}"
            );
        }
        assert_eq!(self.end.mux.stats().queued, 0);
        // Senders that still wait have no credit.
        for &id in &self.waiting {
            let response = self.end.mux.sendable(id);
            assert!(
                !matches!(response, Ok(Sendable::Now(_))),
                "{id} sleeps: {response:?}"
            );
        }
        // The writer sleeps as well, until there is something to send.
        assert!(self.end.transmit().is_none());
        let rung = self.end.bell.rung();
        assert!(self.end.mux.send_control(Bytes::new()));
        assert_eq!(self.end.bell.rung(), rung + 1);
        assert_eq!(self.end.sent().len(), 1);
    }

    fn finish(mut self) {
        self.drain();
        // Credit for all senders wakes all of them.
        if !self.dead {
            let waiting = self.waiting.clone();
            for id in waiting {
                let id = id.value();
                let limit = self.limit(id) + 1000;
                self.grant(id, limit);
                let consumed = self.wire.get(&id).map_or(0, |wire| wire.cost);
                let (events, _) = self.end.try_feed([window(id, limit, consumed)]);
                for event in events {
                    if let Event::Writable { id } = event {
                        self.on_writable(&[id]);
                    }
                }
            }
            for &id in &self.waiting {
                assert!(
                    self.end.mux.sendable(id).is_err(),
                    "{id} sleeps with credit"
                );
            }
        }
        for &id in &self.known {
            self.end.mux.reset(id, ResetCode::Cancelled, "over");
        }
        let sent = self.end.sent();
        self.check_sent(&sent);
        let stats = self.end.mux.stats();
        assert_eq!((stats.open, stats.queued), (0, 0));
        assert_eq!(self.budget.used(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_against_any_peer(
        server in any::<bool>(),
        max_queued in prop_oneof![Just(500u64), Just(3000), Just(50_000)],
        per_request in prop_oneof![Just(1u64), Just(700), Just(5000)],
        max_batch in prop_oneof![Just(1usize), Just(500), Just(256 * 1024)],
        ops in prop::collection::vec(op(), 1..120),
        drain_every in 5..60usize,
    ) {
        let side = if server { Side::Server } else { Side::Client };
        let mut model = Model::new(side, max_queued, per_request, max_batch);
        for (count, op) in ops.into_iter().enumerate() {
            model.play(op);
            if model.dead {
                break;
            }
            if count % drain_every == 0 {
                model.drain();
            }
        }
        model.finish();
    }
}

/// The queue of all requests is full: a sender that waits for room continues when other requests are reset, sent or
/// stopped.
#[test]
fn room_that_others_leave_is_handed_on() {
    for how in 0..4 {
        let mut config = Config::new(Side::Server);
        config.max_queued = 1000;
        config.initial_window = 100_000;
        let mut end = End::new(config);
        let ids: Vec<RequestId> = (0..3).map(|_| end.opened(false)).collect();
        end.mux.send(ids[0], vec![0; 2000].into(), false).unwrap();
        assert_eq!(
            end.mux.sendable(ids[1]),
            Ok(Sendable::Later),
            "twice the bound"
        );
        assert_eq!(end.mux.sendable(ids[2]), Ok(Sendable::Later));
        // The writer has been woken, but has not run yet.
        match how {
            0 => assert!(end.mux.reset(ids[0], ResetCode::Cancelled, "")),
            1 => assert_eq!(end.feed([reset(ids[0].value())]).len(), 1),
            2 => assert_eq!(end.feed([stop(ids[0].value())]).len(), 1),
            _ => {}
        }
        end.sent();
        assert_eq!(
            end.writable,
            ids[1..],
            "in the order in which they came: {how}"
        );
    }
}

#[test]
fn a_reset_that_makes_room_wakes_the_writer() {
    let mut config = Config::new(Side::Server);
    config.max_queued = 1000;
    config.max_batch = 1;
    config.initial_window = 100_000;
    let mut end = End::new(config);
    let (full, waiting) = (end.opened(false), end.opened(false));
    // The writer parks while there is room; then the queue fills, and the message is taken by the writer's next call.
    assert!(end.transmit().is_none());
    let rung = end.bell.rung();
    end.mux.send(full, vec![0; 2000].into(), false).unwrap();
    assert_eq!(end.bell.rung(), rung + 1);
    assert_eq!(end.mux.sendable(waiting), Ok(Sendable::Later));
    let first = end.transmit().unwrap();
    assert!(first.batch.is_some());
    assert_eq!(first.writable, [waiting]);
    assert!(end.transmit().is_none());
}

#[test]
fn one_with_nothing_queued_may_add_a_message_beside_bulk() {
    let mut config = Config::new(Side::Server);
    config.max_queued = 1000;
    config.initial_window = 100_000;
    let mut end = End::new(config);
    let (bulk, small) = (end.opened(false), end.opened(false));
    end.mux
        .send(bulk, vec![0; 1000 - COST - 1].into(), false)
        .unwrap();
    assert!(
        matches!(end.mux.sendable(bulk), Ok(Sendable::Now(_))),
        "below the bound by one"
    );
    end.mux.send(bulk, vec![0; 1].into(), false).unwrap();
    assert_eq!(end.mux.sendable(bulk), Ok(Sendable::Later));
    assert!(matches!(end.mux.sendable(small), Ok(Sendable::Now(_))));
    end.mux
        .send(small, vec![0; 1000 - 2 * COST].into(), false)
        .unwrap();
    let third = end.open(b"", false);
    assert_eq!(
        end.mux.sendable(third),
        Ok(Sendable::Later),
        "at twice the bound"
    );
}

/// Each waiting sender is woken for the room of one message; the next is woken when the writer reaches it.
#[test]
fn room_is_handed_out_by_the_message() {
    let mut config = Config::new(Side::Server);
    config.max_queued = 1000;
    config.max_payload = 600;
    config.initial_window = 100_000;
    let mut end = End::new(config);
    let ids: Vec<RequestId> = (0..5).map(|_| end.opened(false)).collect();
    for _ in 0..4 {
        end.mux.send(ids[0], vec![0; 600].into(), false).unwrap();
    }
    for &id in &ids[1..] {
        assert_eq!(end.mux.sendable(id), Ok(Sendable::Later));
    }
    assert_eq!(end.transmit().unwrap().writable, ids[1..3]);
    // Two messages fill the room: the others continue to wait.
    end.mux.send(ids[1], vec![0; 600].into(), false).unwrap();
    end.mux.send(ids[2], vec![0; 600].into(), false).unwrap();
    assert_eq!(end.transmit().unwrap().writable, ids[3..]);
    assert!(end.transmit().is_none());
}

#[test]
fn a_sender_is_woken_once_when_its_queue_has_room() {
    let mut config = Config::new(Side::Server);
    config.max_queued_per_request = 1000;
    config.initial_window = 100_000;
    let mut end = End::new(config);
    let own = end.opened(false);
    end.mux
        .send(own, vec![0; 999 - COST].into(), false)
        .unwrap();
    assert!(matches!(end.mux.sendable(own), Ok(Sendable::Now(_))));
    end.mux.send(own, vec![0; 1].into(), false).unwrap();
    assert_eq!(end.mux.sendable(own), Ok(Sendable::Later));
    end.sent();
    assert_eq!(end.writable, [own]);
    end.mux.send(own, vec![0; 5].into(), false).unwrap();
    end.sent();
    assert_eq!(end.writable, [own], "woken once");
}

/// Regression: with an initial window below what a message needs nothing could ever be sent.
#[test]
fn a_window_below_one_message_grows_at_once() {
    for side in [Side::Server, Side::Client] {
        let mut config = Config::new(side);
        config.initial_window = 10;
        let mut end = End::new(config);
        let own = end.open(b"", true).value();
        let theirs = side.peer().first_id().value();
        end.feed([opening(theirs, b"", false), opening(theirs + 2, b"", true)]);
        let expected = [
            format!("{theirs} window {MIN_WINDOW} 0"),
            format!("{own} open."),
            format!("{own} window {MIN_WINDOW} 0"),
        ];
        assert_eq!(outline(&end.sent()), expected);
    }
}

#[test]
fn an_exactly_full_queue_takes_no_more() {
    for (all, own) in [(1000, 9999), (9999, 1000)] {
        let mut config = Config::new(Side::Server);
        config.max_queued = all;
        config.max_queued_per_request = own;
        config.initial_window = 100_000;
        let mut end = End::new(config);
        let id = end.opened(false);
        end.mux
            .send(id, vec![0; 1000 - COST].into(), false)
            .unwrap();
        assert_eq!(end.mux.stats().queued, 1000);
        assert_eq!(end.mux.sendable(id), Ok(Sendable::Later));
        // A new sender gets the room while its message waits for its head.
        let id = end.open(b"", false);
        end.mux.reset(RequestId::new(2), ResetCode::Cancelled, "");
        end.mux
            .send(id, vec![0; 1000 - COST].into(), false)
            .unwrap();
        assert_eq!(end.mux.stats().queued, 1000);
        assert_eq!(end.mux.sendable(id), Ok(Sendable::Later));
        end.sent();
        assert_eq!(end.writable, [id]);
    }
}
