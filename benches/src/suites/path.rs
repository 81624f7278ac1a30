//! The path of complete requests between two ends in memory, in the designs that a tunnel can use.
//!
//! - `exchange`: a round of `size` requests of 1 KiB and responses of 1 KiB.
//! - `dispatch`: a round of `size` requests at a service that takes 100 ms for every eighth request and 1 ms for the
//!   others; it receives the requests one after the other, or all at once. The time is virtual and is a figure of
//!   quality; the bench measures the work.
//! - `body`: a response of `size` bytes, which a service produces in pieces of 64 KiB.
//! - `lanes`: a round of `size` requests on a data stream that the threads share, or on one data stream for each
//!   thread.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    hint::black_box,
    sync::{Arc, Mutex},
};

use adit_codec::RequestId;
use adit_mux::{Event, Sendable};
use bytes::{Bytes, BytesMut};

use crate::{
    baseline::mux::Naive,
    case::{BYTES_PER_ENTRY, Case, Figure, Meter, Role, Suite, Worker},
};

mod ends;

use ends::{CLIENT, Ends, SERVER, open, response_head};

/// The suite.
pub const SUITE: Suite = Suite {
    name: "path",
    cases,
    quality,
    memory,
};

const AT_A_TIME: [usize; 2] = [1, 64];
const SLOW_AND_FAST: usize = 64;
const BODIES: [usize; 3] = [64 << 10, 1 << 20, 16 << 20];
const ROUND: usize = 8;
/// The size of the pieces in which a service produces its body.
const PIECE: usize = 64 << 10;

fn small_body() -> Bytes {
    vec![b'x'; 1024].into()
}

fn naive_round(ends: &[Naive; 2], count: usize, body: &Bytes) -> usize {
    for _ in 0..count {
        ends[SERVER].open("/basket", body);
    }
    while let Some(message) = ends[SERVER].next_message() {
        let (name, _, body) = ends[CLIENT].handle(message).unwrap();
        ends[CLIENT].respond(&name, &body);
    }
    let mut responses = 0;
    while let Some(response) = ends[CLIENT].next_message() {
        black_box(ends[SERVER].handle(response).unwrap());
        responses += 1;
    }
    responses
}

fn exchange(size: usize) -> [Case; 2] {
    let naive = Case::alone("exchange", ("naive", Role::Naive), size, move || {
        let (ends, body) = ([Naive::new(), Naive::new()], small_body());
        Box::new(move |times| {
            for _ in 0..times {
                assert_eq!(naive_round(&ends, size, &body), size);
            }
        })
    });
    let ours = Case::alone("exchange", ("ours", Role::Ours), size, move || {
        let (mut ends, body) = (Ends::new(), small_body());
        Box::new(move |times| {
            for _ in 0..times {
                assert_eq!(ends.round(size, &body), size);
            }
        })
    });
    [naive, ours]
}

/// Sends requests to a service; returns after how many virtual milliseconds each response was received, in the order of
/// opening.
fn dispatch(ends: &mut Ends, count: usize, serial: bool) -> Vec<u64> {
    let ids = open(&ends.muxes[SERVER], count, b"");
    ends.carry(SERVER);
    let mut due = BinaryHeap::new();
    let mut free_at = 0;
    for (place, (id, body)) in ends.opened().into_iter().enumerate() {
        let takes = if place.is_multiple_of(8) { 100 } else { 1 };
        let at = if serial { free_at + takes } else { takes };
        free_at = at;
        due.push(Reverse((at, id.value())));
        assert!(body.is_empty());
    }
    let mut took: HashMap<RequestId, u64> = HashMap::with_capacity(count);
    while let Some(Reverse((now, id))) = due.pop() {
        ends.respond(RequestId::new(id), &Bytes::new(), b"done");
        ends.carry(CLIENT);
        took.extend({ ends.responses() }.into_iter().map(|(id, _)| (id, now)));
    }
    ids.iter().map(|id| took[id]).collect()
}

fn dispatches(size: usize) -> [Case; 2] {
    let case = |contender, serial| {
        Case::alone("dispatch", contender, size, move || {
            let mut ends = Ends::new();
            Box::new(move |times| {
                for _ in 0..times {
                    black_box(dispatch(&mut ends, size, serial));
                }
            })
        })
    };
    [
        case(("serial", Role::Naive), true),
        case(("concurrent", Role::Ours), false),
    ]
}

/// How much of its body a service has produced, piece by piece.
struct Made {
    left: usize,
    made: usize,
}

impl Made {
    fn piece(&mut self, at_most: usize) -> Bytes {
        let length = self.left.min(at_most).min(PIECE);
        self.left -= length;
        self.made += length;
        vec![7; length].into()
    }

    fn whole(&mut self) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.left);
        while self.left > 0 {
            whole.extend_from_slice(&self.piece(PIECE));
        }
        whole.freeze()
    }
}

/// The result of one body.
#[derive(Default)]
struct Came {
    bytes: usize,
    /// How much the service had produced when the first byte reached the visitor.
    made_before_first: usize,
}

/// Whole bodies in one message each: produced, encoded, decoded and forwarded as one.
fn whole_body(ends: &[Naive; 2], size: usize) -> Came {
    ends[SERVER].open("/basket", &Bytes::new());
    let opened = ends[SERVER].next_message().unwrap();
    let (name, ..) = ends[CLIENT].handle(opened).unwrap();
    let mut service = Made {
        left: size,
        made: 0,
    };
    ends[CLIENT].respond(&name, &service.whole());
    let response = ends[CLIENT].next_message().unwrap();
    let (.., body) = ends[SERVER].handle(response).unwrap();
    Came {
        bytes: black_box(body).len(),
        made_before_first: service.made,
    }
}

/// A body through two `Mux`es: forwarded as it is received, or `collected` at both ends first.
fn chunked_body(ends: &mut Ends, size: usize, collected: bool) -> Came {
    let opened = open(&ends.muxes[SERVER], 1, b"");
    ends.carry(SERVER);
    let id = opened[0];
    assert_eq!(ends.opened().len(), 1);
    ends.muxes[CLIENT]
        .respond(id, response_head(b""), false)
        .unwrap();
    let mut service = Made {
        left: size,
        made: 0,
    };
    let mut ready = if collected {
        service.whole()
    } else {
        Bytes::new()
    };
    let mut visitor = BytesMut::new();
    let (mut came, mut received, mut left) = (Came::default(), 0, size);
    while received < size {
        while left > 0
            && let Sendable::Now(allowed) = ends.muxes[CLIENT].sendable(id).unwrap()
        {
            let piece = if collected {
                ready.split_to(allowed.min(ready.len()))
            } else {
                service.piece(allowed)
            };
            left -= piece.len();
            ends.muxes[CLIENT].send(id, piece, left == 0).unwrap();
        }
        ends.carry(CLIENT);
        for event in std::mem::take(&mut ends.events) {
            let Event::Data { data, cost, .. } = event else {
                continue;
            };
            received += data.len();
            if collected {
                visitor.extend_from_slice(&data);
            } else {
                came.bytes += black_box(&data).len();
                if came.made_before_first == 0 {
                    came.made_before_first = service.made;
                }
            }
            drop(data);
            ends.muxes[SERVER].consume(id, cost);
        }
        ends.carry(SERVER);
        ends.events.clear();
    }
    if collected {
        came.bytes = black_box(visitor.freeze()).len();
        came.made_before_first = service.made;
    }
    came
}

/// Transfers one body of the given number of bytes.
type Carry = Box<dyn FnMut(usize) -> Came + Send>;

fn carriers() -> [(&'static str, Role, Carry); 3] {
    let naive = [Naive::new(), Naive::new()];
    let [mut collecting, mut streaming] = [Ends::new(), Ends::new()];
    [
        (
            "whole_message",
            Role::Naive,
            Box::new(move |size| whole_body(&naive, size)),
        ),
        (
            "collected",
            Role::Rival,
            Box::new(move |size| chunked_body(&mut collecting, size, true)),
        ),
        (
            "streamed",
            Role::Ours,
            Box::new(move |size| chunked_body(&mut streaming, size, false)),
        ),
    ]
}

fn body(size: usize) -> [Case; 3] {
    [0, 1, 2].map(|place| {
        let (contender, role, _) = &carriers()[place];
        Case::alone("body", (*contender, *role), size, move || {
            let [first, second, third] = carriers();
            let (.., mut carry) = [first, second, third].into_iter().nth(place).unwrap();
            Box::new(move |times| {
                for _ in 0..times {
                    assert_eq!(carry(size).bytes, size);
                }
            })
        })
    })
}

fn lanes(size: usize) -> [Case; 2] {
    let one = Case::new("lanes", ("one_stream", Role::Naive), size, move |threads| {
        let ends = Arc::new(Mutex::new(Ends::new()));
        let server = Arc::clone(&ends.lock().unwrap().muxes[SERVER]);
        let worker = |_| -> Worker {
            let (ends, server, body) = (Arc::clone(&ends), Arc::clone(&server), small_body());
            Box::new(move |times| {
                for _ in 0..times {
                    // Each thread may open requests; one thread at a time writes and reads, and does so for all
                    // threads.
                    open(&server, size, &body);
                    ends.lock().unwrap().round(0, &body);
                }
            })
        };
        (0..threads).map(worker).collect()
    });
    let several = Case::alone("lanes", ("several_lanes", Role::Ours), size, move || {
        let (mut ends, body) = (Ends::new(), small_body());
        Box::new(move |times| {
            for _ in 0..times {
                assert_eq!(ends.round(size, &body), size);
            }
        })
    });
    [one, several]
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(AT_A_TIME.into_iter().flat_map(exchange));
    cases.extend(dispatches(SLOW_AND_FAST));
    cases.extend(BODIES.into_iter().flat_map(body));
    cases.extend(lanes(ROUND));
    cases
}

/// How many of 64 requests are lost with one of `lanes` data streams.
fn lost_with_one(lanes: usize) -> usize {
    let lanes: Vec<Ends> = (0..lanes).map(|_| Ends::new()).collect();
    for turn in 0..SLOW_AND_FAST {
        open(&lanes[turn % lanes.len()].muxes[SERVER], 1, b"");
    }
    let all_open = |lanes: &[Ends]| -> usize {
        let open = |ends: &Ends| ends.muxes[SERVER].stats();
        let alive = lanes.iter().filter(|ends| !ends.muxes[SERVER].is_closed());
        alive.map(|ends| open(ends).open).sum()
    };
    let before = all_open(&lanes);
    lanes[0].muxes[SERVER].close();
    before - all_open(&lanes)
}

fn quality() -> Vec<Figure> {
    let mut figures = Vec::new();
    for (name, serial) in [("serial", true), ("concurrent", false)] {
        let took = dispatch(&mut Ends::new(), SLOW_AND_FAST, serial);
        let mut fast: Vec<u64> = (0..took.len())
            .filter(|place| !place.is_multiple_of(8))
            .map(|place| took[place])
            .collect();
        fast.sort_unstable();
        let last = took.iter().max().copied().unwrap_or_default();
        let mut add = |what, value: u64| {
            figures.push(Figure::new(
                "dispatch",
                name,
                SLOW_AND_FAST,
                what,
                value as f64,
            ));
        };
        add("virtual ms to the last response", last);
        add(
            "virtual ms to the median response of the fast ones",
            fast[fast.len() / 2],
        );
    }
    for size in BODIES {
        for (name, _, mut carry) in carriers() {
            let share = carry(size).made_before_first as f64 / size as f64;
            let what = "share of the body made before its first byte arrives";
            figures.push(Figure::new("body", name, size, what, share));
        }
    }
    for (name, lanes) in [("one_stream", 1), ("several_lanes", 4)] {
        let lost = lost_with_one(lanes) as f64;
        let what = "requests of 64 lost with one of 1 or 4 streams";
        figures.push(Figure::new("lanes", name, ROUND, what, lost));
    }
    figures
}

fn memory(meter: &Meter) -> Vec<Figure> {
    let mut figures = Vec::new();
    for size in AT_A_TIME {
        // Both ends of requests that wait for their responses; their bodies have been consumed.
        let naive = meter.per_entry(size, || {
            let ends = [Naive::new(), Naive::new()];
            let body = small_body();
            for _ in 0..size {
                ends[SERVER].open("/basket", &body);
            }
            while let Some(message) = ends[SERVER].next_message() {
                drop(ends[CLIENT].handle(message));
            }
            ends
        });
        let ours = meter.per_entry(size, || {
            let mut ends = Ends::new();
            open(&ends.muxes[SERVER], size, &small_body());
            ends.carry(SERVER);
            drop(ends.opened());
            ends
        });
        for (name, bytes) in [("naive", naive), ("ours", ours)] {
            figures.push(Figure::new("exchange", name, size, BYTES_PER_ENTRY, bytes));
        }
    }
    for size in BODIES {
        for (name, _, mut carry) in carriers() {
            let peak = meter.peak_of(|| assert_eq!(carry(size).bytes, size));
            let what = "most bytes held for one body";
            figures.push(Figure::new("body", name, size, what, peak));
        }
    }
    figures
}
