//! A request of 1 KiB and its answer of 1 KiB through two ends in memory, with `size` of them at a time. What is
//! measured is one round of all of them: open, write, read, answer, write, read, consume.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use adit_benches::mux::Naive;
use adit_codec::{Batch, HttpRequestHead, HttpResponseHead, Open, RequestHead, Side};
use adit_flow::{Budget, MESSAGE_COST};
use adit_mux::{Config, Event, Mux, Receiver};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const BODY: usize = 1024;
const COST: u64 = BODY as u64 + MESSAGE_COST;
const AT_A_TIME: [usize; 2] = [1, 64];

struct Ours {
    muxes: [Arc<Mux>; 2],
    receivers: [Receiver; 2],
    events: Vec<Event>,
}

impl Ours {
    fn new() -> Self {
        let end = |side| Mux::new(Config::new(side), Budget::new(64 << 20));
        let muxes = [end(Side::Server), end(Side::Client)];
        let receivers = muxes.clone().map(Receiver::new);
        Self {
            muxes,
            receivers,
            events: Vec::new(),
        }
    }

    /// Moves all that one end has to write to the other one, segment by segment.
    fn carry(&mut self, from: usize) {
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(transmit)) = self.muxes[from].poll_transmit(&mut cx) {
            for segment in transmit.batch.into_iter().flat_map(Batch::into_segments) {
                self.receivers[1 - from]
                    .handle_frame(segment, &mut self.events)
                    .unwrap();
            }
        }
    }

    fn round(&mut self, count: usize, body: &[u8]) {
        let open: Open = Open {
            request_uuid: [7; 16],
            tunnel: "shop".into(),
            ..Open::default()
        };
        for _ in 0..count {
            let head = HttpRequestHead {
                open: &open,
                method: "POST",
                scheme: "http",
                authority: b"shop.localhost",
                path: b"/basket",
            };
            let head = head.encode(std::iter::empty(), body).unwrap();
            self.muxes[0].open(head, true, |_| true).unwrap();
        }
        self.carry(0);
        for event in std::mem::take(&mut self.events) {
            let Event::Opened {
                id,
                head: RequestHead::Http(head),
                ..
            } = event
            else {
                panic!("{event:?}");
            };
            self.muxes[1].consume(id, COST);
            let answer = HttpResponseHead { status: 200 };
            let answer = answer.encode(std::iter::empty(), &head.body).unwrap();
            self.muxes[1].answer(id, answer, true).unwrap();
        }
        self.carry(1);
        let mut answered = 0;
        for event in self.events.drain(..) {
            let Event::Answer { id, head, .. } = event else {
                panic!("{event:?}");
            };
            self.muxes[0].consume(id, COST);
            black_box(head.body_bytes());
            answered += 1;
        }
        assert_eq!(answered, count);
    }
}

fn naive_round(ends: &[Naive; 2], count: usize, body: &Bytes) {
    for _ in 0..count {
        ends[0].open("/basket", body);
    }
    while let Some(message) = ends[0].next_message() {
        let (name, _, body) = ends[1].handle(message).unwrap();
        ends[1].answer(&name, &body);
    }
    let mut answered = 0;
    while let Some(message) = ends[1].next_message() {
        black_box(ends[0].handle(message).unwrap());
        answered += 1;
    }
    assert_eq!(answered, count);
}

fn exchange(c: &mut Criterion) {
    let mut group = c.benchmark_group("mux/exchange");
    group.warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(2));
    let body = Bytes::from(vec![b'x'; BODY]);
    for count in AT_A_TIME {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("ours", count), |b| {
            let mut ours = Ours::new();
            b.iter(|| ours.round(count, &body));
            for mux in &ours.muxes {
                assert_eq!((mux.stats().open, mux.stats().queued), (0, 0));
            }
        });
        group.bench_function(BenchmarkId::new("naive", count), |b| {
            let ends = [Naive::new(), Naive::new()];
            b.iter(|| naive_round(&ends, count, &body));
        });
    }
    group.finish();
}

criterion_group!(benches, exchange);
criterion_main!(benches);
