//! Flows of datagrams beside other requests, from one mux to another (section 11 of the protocol).
//!
//! Checked for random traffic over a transport that takes random amounts at random times:
//! - datagrams of a flow arrive whole, each at most once and in their order (P-11.1);
//! - datagrams that do not arrive are counted: sent = arrived + dropped (P-11.3);
//! - waiting datagrams are bounded, for each flow and for all flows, however long nothing is sent;
//! - the payload of another request is complete, and datagrams never delay its sender (P-11.2).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod support;

use std::collections::{HashMap, VecDeque};

use adit_codec::{
    Open, ProtocolType, RequestHead, RequestId, ResetCode, Side, UdpOpenHead, accepted,
};
use adit_flow::{Budget, MESSAGE_COST};
use adit_mux::{Config, Event, Sendable};
use bytes::Bytes;
use proptest::prelude::*;
use support::*;

const FLOWS: usize = 4;

fn open_flow(end: &End) -> RequestId {
    let open: Open = Open {
        request_uuid: [9; 16],
        tunnel: "dns".into(),
        ..Open::default()
    };
    let local = "0.0.0.0:53";
    let head = UdpOpenHead { open: &open, local }.encode().unwrap();
    end.mux.open(head, false, |_| true).unwrap().unwrap()
}

fn open_http(end: &End) -> RequestId {
    let head = request_head(b"");
    end.mux.open(head, false, |_| true).unwrap().unwrap()
}

/// The content of the n-th datagram of a flow: its number, and bytes that follow from it.
fn datagram(flow: usize, n: u32, length: usize) -> Bytes {
    let mut data = vec![flow as u8];
    data.extend(n.to_be_bytes());
    data.extend((0..length).map(|at| (at as u32 ^ n.wrapping_mul(31)) as u8));
    data.into()
}

fn number(data: &[u8]) -> u32 {
    u32::from_be_bytes(data[1..5].try_into().unwrap())
}

#[derive(Debug, Clone)]
enum Op {
    /// Sent by the flow's opener, or by the other end.
    Datagram {
        flow: usize,
        back: bool,
        length: usize,
    },
    Payload {
        most: usize,
    },
    /// Bytes that the transport takes in both directions, in frames with at most this many.
    Carry {
        bytes: usize,
        frame: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let length = prop_oneof![Just(0usize), 1..100usize, 500..3000usize];
    prop_oneof![
        8 => (0..FLOWS, any::<bool>(), length)
            .prop_map(|(flow, back, length)| Op::Datagram { flow, back, length }),
        2 => (1..3000usize).prop_map(|most| Op::Payload { most }),
        2 => (0..6000usize, 1..700usize).prop_map(|(bytes, frame)| Op::Carry { bytes, frame }),
    ]
}

/// One direction of the transport: takes a batch only after the last one has been carried.
#[derive(Default)]
struct Way(VecDeque<u8>);

impl Way {
    /// The next frame, with at most this many bytes.
    fn frame(&mut self, from: &End, most: usize) -> Option<Bytes> {
        while self.0.is_empty() {
            let transmit = from.transmit()?;
            for segment in transmit.batch.into_iter().flat_map(|b| b.into_segments()) {
                self.0.extend(segment);
            }
        }
        Some(self.0.drain(..most.min(self.0.len())).collect())
    }
}

/// The datagrams that were sent in one direction of a flow, and those that arrived.
#[derive(Default)]
struct Counts {
    sent: Vec<Bytes>,
    arrived: usize,
    next: u32,
}

struct Play {
    ends: [End; 2],
    ways: [Way; 2],
    config: Config,
    flows: Vec<RequestId>,
    http: RequestId,
    /// The counts by direction and flow.
    counts: [[Counts; FLOWS]; 2],
    payload_sent: Vec<u8>,
    payload_arrived: Vec<u8>,
    /// Flows that the accepting end has accepted.
    accepted: HashMap<RequestId, bool>,
}

impl Play {
    fn new(max_queued_datagrams: u64, max_queued: u64, max_batch: usize) -> Self {
        let config = |side| {
            let mut config = Config::new(side);
            config.max_queued_datagrams = max_queued_datagrams;
            config.max_queued = max_queued;
            config.max_batch = max_batch;
            config.initial_window = 1 << 20;
            config
        };
        let ends =
            [Side::Server, Side::Client].map(|side| End::with_budget(config(side), Budget::new(0)));
        let flows = (0..FLOWS).map(|_| open_flow(&ends[0])).collect();
        let http = open_http(&ends[0]);
        Self {
            ends,
            ways: Default::default(),
            config: config(Side::Server),
            flows,
            http,
            counts: Default::default(),
            payload_sent: Vec::new(),
            payload_arrived: Vec::new(),
            accepted: HashMap::new(),
        }
    }

    fn send(&mut self, flow: usize, back: bool, length: usize) {
        let (from, id) = (usize::from(back), self.flows[flow]);
        if back && !self.accepted.contains_key(&id) {
            return;
        }
        let counts = &mut self.counts[from][flow];
        let data = datagram(flow, counts.sent.len() as u32, length);
        counts.sent.push(data.clone());
        self.ends[from].mux.send_datagram(id, data).unwrap();
    }

    fn pay(&mut self, most: usize) {
        let mux = &self.ends[0].mux;
        let queued = mux.stats().queued;
        match mux.sendable(self.http).unwrap() {
            Sendable::Now(bytes) => {
                let length = bytes.min(most);
                let start = self.payload_sent.len();
                let data: Vec<u8> = (start..start + length).map(|at| (at / 7) as u8).collect();
                self.payload_sent.extend(&data);
                mux.send(self.http, data.into(), false).unwrap();
            }
            // The sender may only be blocked by payload of its own.
            Sendable::Later => {
                let own = (self.payload_sent.len() - self.payload_arrived.len()) as u64;
                let bound = self
                    .config
                    .max_queued
                    .min(self.config.max_queued_per_request);
                let overhead = MESSAGE_COST * 4_000;
                assert!(
                    own + overhead >= bound.min(1 << 19),
                    "{own} of {queued} wait"
                );
            }
        }
    }

    fn carry(&mut self, way: usize, most: usize) -> Option<usize> {
        let frame = self.ways[way].frame(&self.ends[way], most)?;
        let length = frame.len();
        let to = 1 - way;
        let mut events = Vec::new();
        self.ends[to]
            .receiver
            .handle_frame(frame, &mut events)
            .unwrap();
        for event in events {
            self.on_event(way, event);
        }
        Some(length)
    }

    fn on_event(&mut self, way: usize, event: Event) {
        match event {
            Event::Opened { id, head, .. } => {
                if matches!(head, RequestHead::Udp(_)) {
                    let response = accepted(ProtocolType::Udp);
                    self.ends[1].mux.respond(id, response, false).unwrap();
                    self.accepted.insert(id, true);
                }
            }
            Event::Response { .. } | Event::Writable { .. } => {}
            Event::Datagram { id, data, .. } => {
                let flow = self.flows.iter().position(|flow| *flow == id).unwrap();
                let counts = &mut self.counts[way][flow];
                let n = number(&data);
                assert!(n >= counts.next, "{n} after {}", counts.next);
                assert_eq!(data, counts.sent[n as usize]);
                counts.next = n + 1;
                counts.arrived += 1;
            }
            Event::Data { id, data, cost, .. } => {
                assert_eq!(id, self.http);
                self.payload_arrived.extend(&data);
                self.ends[1].mux.consume(id, cost);
            }
            other => panic!("{other:?}"),
        }
    }

    fn check(&self) {
        let dearest = 3_005 + MESSAGE_COST;
        for (from, end) in self.ends.iter().enumerate() {
            let stats = end.mux.stats();
            let payload = if from == 0 {
                (self.payload_sent.len() as u64 + MESSAGE_COST * 4_000).min(2 << 20)
            } else {
                0
            };
            let each = (self.config.max_queued_datagrams + dearest) * FLOWS as u64;
            let all = 2 * self.config.max_queued + dearest;
            assert!(stats.queued <= each.min(all) + payload, "{stats:?}");
        }
    }
}

proptest! {
    #[test]
    fn p_11_3_datagrams_arrive_in_order_or_are_counted(
        ops in prop::collection::vec(op(), 1..150),
        max_queued_datagrams in prop_oneof![Just(0u64), Just(500), Just(5_000), Just(256 * 1024)],
        max_queued in prop_oneof![Just(3_000u64), Just(20_000), Just(2 << 20)],
        max_batch in prop_oneof![Just(1usize), Just(3000), Just(256 * 1024)],
    ) {
        let mut play = Play::new(max_queued_datagrams, max_queued, max_batch);
        for op in ops {
            match op {
                Op::Datagram { flow, back, length } => play.send(flow, back, length),
                Op::Payload { most } => play.pay(most),
                Op::Carry { bytes, frame } => {
                    for way in 0..2 {
                        let mut left = bytes;
                        while left > 0 && let Some(taken) = play.carry(way, frame.min(left)) {
                            left -= taken;
                        }
                    }
                }
            }
            play.check();
        }
        // At the end everything that waits is sent.
        while (0..2).any(|way| play.carry(way, 1000).is_some()) {}
        for (from, end) in play.ends.iter().enumerate() {
            let sum = |of: fn(&Counts) -> usize| play.counts[from].iter().map(of).sum::<usize>();
            let (sent, arrived) = (sum(|c| c.sent.len()), sum(|c| c.arrived));
            let stats = end.mux.stats();
            prop_assert_eq!(sent as u64, arrived as u64 + stats.datagrams_dropped);
            prop_assert_eq!(stats.queued, 0);
            prop_assert_eq!(stats.violations, 0);
            // The last datagram of a flow is never dropped for its age.
            for counts in &play.counts[from] {
                let total_fits = 2 * max_queued > (max_queued_datagrams + 4_000) * FLOWS as u64;
                if total_fits && !counts.sent.is_empty() {
                    prop_assert_eq!(counts.next as usize, counts.sent.len());
                }
            }
        }
        prop_assert_eq!(play.payload_arrived, play.payload_sent);
    }
}

/// A hundred flows flood while nothing is sent: another request is opened, gets its response and sends as if they were
/// not there. When the transport continues, that request has its turn among the flows although they never stop.
#[test]
fn p_11_2_a_flood_does_not_delay_payload() {
    let mut config = Config::new(Side::Server);
    config.max_batch = 64 * 1024;
    let end = End::new(config.clone());
    let flows: Vec<_> = (0..100).map(|_| open_flow(&end)).collect();
    while end.transmit().is_some() {}
    let flood = |end: &End| {
        for flow in &flows[..99] {
            for _ in 0..300 {
                let data = Bytes::from_static(&[7; 1200]);
                end.mux.send_datagram(*flow, data).unwrap();
            }
        }
    };
    flood(&end);
    end.mux.send_datagram(flows[99], Bytes::new()).unwrap();
    let stats = end.mux.stats();
    assert!(stats.datagrams_dropped > 0);
    assert!(
        stats.queued <= 2 * config.max_queued + 1200 + MESSAGE_COST,
        "{stats:?}"
    );
    // A datagram of a flow with nothing queued is not dropped.
    let quiet = open_flow(&end);
    let dropped = stats.datagrams_dropped;
    end.mux.send_datagram(quiet, vec![1; 1200].into()).unwrap();
    assert_eq!(end.mux.stats().datagrams_dropped, dropped);
    // A head and owed messages are sent before all datagrams.
    let http = open_http(&end);
    end.mux.reset(flows[99], ResetCode::Cancelled, "gone");
    assert!(matches!(end.mux.sendable(http), Ok(Sendable::Now(_))));
    end.mux.send(http, vec![1; 30_000].into(), false).unwrap();
    let mut messages = Vec::new();
    for batch in 1.. {
        let transmit = end.transmit().unwrap().batch.unwrap();
        let bytes: Vec<u8> = transmit.into_segments().flatten().collect();
        messages.extend(decode(&bytes));
        if batch == 1 {
            let first = outline(&messages[..3]);
            assert_eq!(first, ["200 reset Cancelled", "202 other", "204 open"]);
        }
        let is_ours = |m: &adit_proto::TunnelMessage| m.request_id == http.value();
        if messages.iter().filter(|m| is_ours(m)).count() == 2 {
            break;
        }
        // At most one turn of each other request.
        assert!(batch <= 100 * 32 / 64 + 2, "{batch} batches");
        flood(&end);
    }
    let arrived = messages.iter().filter(|m| m.request_id == quiet.value());
    assert_eq!(arrived.count(), 2);
}

/// Decodes the messages of a batch.
fn decode(mut bytes: &[u8]) -> Vec<adit_proto::TunnelMessage> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_be_bytes(bytes[1..HEADER].try_into().unwrap()) as usize;
        let message = &bytes[HEADER..HEADER + length];
        messages.push(prost::Message::decode(message).unwrap());
        bytes = &bytes[HEADER + length..];
    }
    messages
}
