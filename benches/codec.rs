//! One chunk's message out and in: ours, the way of a generated service (prost, which copies the payload), and a plain
//! copy of the payload as the limit of any way that copies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{hint::black_box, time::Duration};

use adit_benches::codec::{Memcpy, ProstDecoder, ProstEncoder};
use adit_codec::{BatchBuilder, Decoder, Payload, RequestId, write_chunk_prefix};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const SIZES: [usize; 3] = [64, 1024, 65_536];
const ID: u64 = 2_000;

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec/encode");
    for size in SIZES {
        let payload = Bytes::from(vec![7; size]);
        group.throughput(Throughput::Bytes(size as u64));
        let mut builder = BatchBuilder::new();
        group.bench_function(BenchmarkId::new("ours", size), |b| {
            b.iter(|| {
                let payload = black_box(&payload).clone();
                builder.put(|out| {
                    write_chunk_prefix(out, RequestId::new(ID), payload.len(), false);
                });
                builder.put_payload(payload);
                builder.finish()
            });
        });
        let mut encoder = ProstEncoder::default();
        group.bench_function(BenchmarkId::new("prost", size), |b| {
            b.iter(|| encoder.chunk(ID, black_box(&payload).clone()));
        });
        let mut memcpy = Memcpy::default();
        group.bench_function(BenchmarkId::new("memcpy", size), |b| {
            b.iter(|| black_box(memcpy.copy(black_box(&payload))).len());
        });
    }
    group.finish();
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec/decode");
    for size in SIZES {
        let frame = ProstEncoder::default().chunk(ID, vec![7; size].into());
        group.throughput(Throughput::Bytes(size as u64));
        let mut decoder = Decoder::new();
        group.bench_function(BenchmarkId::new("ours", size), |b| {
            b.iter(|| {
                decoder.feed(black_box(&frame).clone());
                let envelope = decoder.next().unwrap().unwrap();
                let Payload::Chunk { data, .. } = envelope.payload else {
                    panic!("another payload");
                };
                assert_eq!(data.len(), size);
                data
            });
        });
        let mut decoder = ProstDecoder::default();
        group.bench_function(BenchmarkId::new("prost", size), |b| {
            b.iter(|| decoder.feed(black_box(&frame)).unwrap());
        });
        let mut memcpy = Memcpy::default();
        group.bench_function(BenchmarkId::new("memcpy", size), |b| {
            b.iter(|| black_box(memcpy.copy(black_box(&frame))).len());
        });
    }
    group.finish();
}

criterion_group! {
    name = codec;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        // The analysis would take longer than the measurement.
        .nresamples(5_000);
    targets = encode, decode
}
criterion_main!(codec);
