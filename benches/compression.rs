//! The payload of one direction, compressed message by message in three designs: that of this project (one page of
//! history, contexts of the thread), a rival that keeps a context for each direction, and a plain copy as the cost
//! without compression.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    missing_docs
)]

use std::hint::black_box;

use adit_benches::baseline::compression::Streaming;
use adit_link::{
    Compression,
    compress::{Compressor, Decompressor, HISTORY_BYTES},
};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};

mod speed;

const KINDS: [Compression; 2] = [Compression::Zstd, Compression::Gzip];
const SIZES: [usize; 3] = [300, 4096, 65_536];
const SUITE: usize = 80_000;

/// xorshift (Marsaglia, 2003)
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Records of a service: the field names repeat, the values do not.
fn json() -> Bytes {
    let mut dice = Dice(88_172_645_463_325_252);
    let mut all = String::new();
    for id in 0..8000 {
        let (user, cents) = (dice.roll() % 5000, dice.roll() % 100_000);
        let state = ["open", "closed", "waiting"][usize::from(dice.roll().to_le_bytes()[0] % 3)];
        let (day, minute) = (dice.roll() % 28 + 1, dice.roll() % 60);
        all += &format!(
            "{{\"id\":{id},\"user\":\"user-{user}\",\"cents\":{cents},\"state\":\"{state}\",\
             \"time\":\"2026-11-{day:02}T09:{minute:02}:00Z\"}}\n"
        );
    }
    all.into()
}

/// Prose and source of this project.
fn text() -> Bytes {
    let parts = [
        include_str!("../docs/protocol.md"),
        include_str!("../docs/architecture.md"),
        include_str!("../crates/codec/src/decoder.rs"),
        include_str!("../crates/mux/src/state.rs"),
    ];
    parts.concat().into()
}

fn random() -> Bytes {
    let mut dice = Dice(1);
    (0..500_000).map(|_| dice.roll().to_le_bytes()[3]).collect()
}

fn contents() -> [(&'static str, Bytes); 3] {
    [("json", json()), ("text", text()), ("random", random())]
}

/// Repeats the content in complete messages only.
fn messages(content: &Bytes, size: usize) -> impl Iterator<Item = Bytes> + use<> {
    let content = content.clone();
    let count = content.len() / size;
    (0..count)
        .cycle()
        .map(move |n| content.slice(n * size..(n + 1) * size))
}

fn compress(c: &mut Criterion) {
    for (name, content) in contents() {
        let mut group = c.benchmark_group(format!("compression/pack/{name}"));
        for size in SIZES {
            group.throughput(Throughput::Bytes(size as u64));
            for by in KINDS {
                let mut compressor = Compressor::new(by);
                let mut messages_of = messages(&content, size);
                let id = BenchmarkId::new(format!("ours_{}", by.as_str()), size);
                group.bench_function(id, |b| {
                    b.iter(|| {
                        let payload = messages_of.next().unwrap();
                        let packed = compressor.compress(black_box(&payload));
                        if packed.is_some() {
                            compressor.sent(&payload);
                        }
                        packed
                    });
                });
                let (mut streaming, mut out) = (Streaming::new(by), vec![0; SUITE]);
                let mut messages_of = messages(&content, size);
                let id = BenchmarkId::new(format!("streaming_{}", by.as_str()), size);
                group.bench_function(id, |b| {
                    b.iter(|| {
                        let payload = messages_of.next().unwrap();
                        streaming.compress(black_box(&payload), &mut out)
                    });
                });
            }
            let mut messages_of = messages(&content, size);
            group.bench_function(BenchmarkId::new("copy", size), |b| {
                b.iter(|| Bytes::copy_from_slice(black_box(&messages_of.next().unwrap())));
            });
        }
        group.finish();
    }
}

/// A message that follows others can be decompressed only after them, so compression and decompression are measured
/// together.
fn round_trip(c: &mut Criterion) {
    let content = json();
    let mut group = c.benchmark_group("compression/round_trip/json");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        for by in KINDS {
            let (mut compressor, mut decompressor) = (Compressor::new(by), Decompressor::default());
            let mut messages_of = messages(&content, size);
            let id = BenchmarkId::new(format!("ours_{}", by.as_str()), size);
            group.bench_function(id, |b| {
                b.iter(|| {
                    let payload = messages_of.next().unwrap();
                    match compressor.compress(&payload) {
                        Some((compressed, packed)) => {
                            compressor.sent(&payload);
                            decompressor.decompress(compressed, &packed).unwrap()
                        }
                        None => payload,
                    }
                });
            });
            let mut streaming = Streaming::new(by);
            let (mut out, mut plain) = (vec![0; SUITE], vec![0; SUITE]);
            let mut messages_of = messages(&content, size);
            let id = BenchmarkId::new(format!("streaming_{}", by.as_str()), size);
            group.bench_function(id, |b| {
                b.iter(|| {
                    let length = streaming.compress(&messages_of.next().unwrap(), &mut out);
                    streaming.decompress(&out[..length], &mut plain)
                });
            });
        }
    }
    group.finish();
}

/// The saved bytes, and the memory that the contexts use.
fn quality() {
    eprintln!("bytes before / bytes on the hop");
    for (name, content) in contents() {
        for size in SIZES {
            for by in KINDS {
                let count = content.len() / size;
                let (mut ours, mut theirs) = (0, 0);
                let mut compressor = Compressor::new(by);
                let (mut streaming, mut out) = (Streaming::new(by), vec![0; SUITE]);
                for payload in messages(&content, size).take(count) {
                    ours += match compressor.compress(&payload) {
                        Some((_, packed)) => {
                            compressor.sent(&payload);
                            packed.len()
                        }
                        None => payload.len(),
                    };
                    theirs += streaming.compress(&payload, &mut out);
                }
                let plain = (count * size) as f64;
                let (ours, theirs) = (plain / ours as f64, plain / theirs as f64);
                let by = by.as_str();
                eprintln!("  {name:6} {size:6} {by:4} ours {ours:.2}  streaming {theirs:.2}");
            }
        }
    }
    let mut streaming = Streaming::new(Compression::Zstd);
    let (mut out, mut plain) = (vec![0; SUITE], vec![0; SUITE]);
    for payload in messages(&json(), 4096).take(100) {
        let length = streaming.compress(&payload, &mut out);
        streaming.decompress(&out[..length], &mut plain);
    }
    let theirs = streaming.memory_bytes().unwrap_or_default() / 2;
    let ours = HISTORY_BYTES + 1;
    eprintln!("bytes held for a direction at one end: ours {ours}  streaming zstd {theirs}");
}

fn main() {
    let mut criterion = speed::criterion();
    quality();
    compress(&mut criterion);
    round_trip(&mut criterion);
    criterion.final_summary();
}
