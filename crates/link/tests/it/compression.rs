//! Compression on the hop (section 13 of the protocol).
//!
//! Checked:
//! - any payloads, split and mixed in any way, with either algorithm: each message decompresses to the sent one;
//! - payload is compressed only if the peer can decompress it, and never twice;
//! - credit and gauges count the size before compression;
//! - a message with a wrong announced size ends only its request, and takes no more memory than it has announced;
//! - requests and directions share no history.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

use std::time::Duration;

use crate::support::{Pair, pair, read, response, until};
use adit_codec::{Compressed, Open, WebSocketFrame, WebSocketRequestHead, WebSocketResponseHead};
use adit_link::{
    Compression, Exchange, Part, Reason,
    compress::{Compressor, Decompressor, HISTORY_BYTES, InflateError},
};
use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

const KINDS: [Compression; 2] = [Compression::Gzip, Compression::Zstd];

/// Lines that have much text in common, different for each `seed`.
fn text(seed: usize, length: usize) -> Bytes {
    let line = |n: usize| {
        let state = ["open", "closed", "waiting"][(n * 7 + seed) % 3];
        format!(
            "{{\"id\":{},\"state\":\"{state}\",\"sum\":{}}}\n",
            n + seed,
            n * seed % 977
        )
    };
    let all: String = (0..).map(line).take(length / 20 + 1).collect();
    Bytes::from(all).slice(..length)
}

/// Incompressible bytes.
fn noise(seed: usize, length: usize) -> Bytes {
    let mut state = seed as u64 + 1;
    let byte = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(byte).collect()
}

/// Compresses as a sender does; returns the message that is sent, compressed or not.
fn compress(compressor: &mut Compressor, payload: &[u8]) -> Option<(Compressed, Bytes)> {
    let packed = compressor.compress(payload);
    if packed.is_some() {
        compressor.sent(payload);
    }
    packed
}

#[derive(Debug, Clone)]
enum Piece {
    Text(usize, usize),
    Noise(usize, usize),
    Same(u8, usize),
}

impl Piece {
    fn bytes(&self) -> Bytes {
        match *self {
            Self::Text(seed, length) => text(seed, length),
            Self::Noise(seed, length) => noise(seed, length),
            Self::Same(byte, length) => vec![byte; length].into(),
        }
    }
}

fn piece() -> impl Strategy<Value = Piece> {
    let length = || prop_oneof![1..600usize, 200..9000usize, Just(65_536), 0..70_000usize];
    prop_oneof![
        5 => (0..1000usize, length()).prop_map(|(seed, length)| Piece::Text(seed, length)),
        1 => (0..1000usize, length()).prop_map(|(seed, length)| Piece::Noise(seed, length)),
        1 => (any::<u8>(), length()).prop_map(|(byte, length)| Piece::Same(byte, length)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn p_13_3_each_message_decompresses_to_itself(
        pieces in vec(piece(), 1..20),
        zstd in any::<bool>(),
        lies in any::<u32>(),
    ) {
        let by = KINDS[usize::from(zstd)];
        let (mut compressor, mut decompressor) = (Compressor::new(by), Decompressor::default());
        for piece in &pieces {
            let payload = piece.bytes();
            let Some((compressed, packed)) = compress(&mut compressor, &payload) else {
                continue;
            };
            prop_assert_eq!(compressed.inflated_len(), payload.len());
            prop_assert!(packed.len() <= payload.len() - payload.len() / 10);
            // Any other announced size or algorithm is an error.
            let inflated_bytes = lies % 65_537;
            if inflated_bytes as usize != payload.len() {
                let lie = Compressed { inflated_bytes, ..compressed };
                prop_assert_eq!(Decompressor::default().decompress(lie, &packed), Err(InflateError));
            }
            prop_assert_eq!(decompressor.decompress(compressed, &packed), Ok(payload));
        }
    }

    #[test]
    fn p_13_5_arbitrary_bytes_inflate_to_the_announced_size_or_fail(
        bytes in vec(any::<u8>(), 0..300),
        change in any::<(usize, u8)>(),
        inflated_bytes in 0..70_000u32,
        zstd in any::<bool>(),
    ) {
        let by = KINDS[usize::from(zstd)];
        let announced = Compressed { by, inflated_bytes };
        if let Ok(payload) = Decompressor::default().decompress(announced, &bytes) {
            prop_assert_eq!(payload.len(), inflated_bytes as usize);
        }
        // Bytes that are nearly valid.
        let (mut compressor, mut decompressor) = (Compressor::new(by), Decompressor::default());
        for n in 0..3 {
            let (announced, packed) = compress(&mut compressor, &text(n, 3000)).unwrap();
            let mut packed = packed.to_vec();
            if n == 2 {
                let at = change.0 % packed.len();
                packed[at] ^= change.1;
            }
            match decompressor.decompress(announced, &packed) {
                Ok(payload) => prop_assert_eq!(payload.len(), 3000),
                Err(InflateError) => prop_assert_eq!(n, 2),
            }
        }
    }
}

#[test]
fn p_13_3_the_dictionary_is_the_history_behind_a_zero() {
    for by in KINDS {
        let mut compressor = Compressor::new(by);
        let mut history = Vec::new();
        for n in 0..6 {
            let payload = text(n, 3000 + n);
            let (_, packed) = compress(&mut compressor, &payload).unwrap();
            // Another implementation that follows the protocol produces the same.
            let kept = &history[history.len() - history.len().min(HISTORY_BYTES)..];
            let dictionary = if n == 0 {
                vec![]
            } else {
                [&[0], kept].concat()
            };
            let mut plain = vec![0; payload.len()];
            let length = match by {
                Compression::Gzip => {
                    let mut context = flate2::Decompress::new(false);
                    if n > 0 {
                        context.set_dictionary(&dictionary).unwrap();
                    }
                    let finish = flate2::FlushDecompress::Finish;
                    context.decompress(&packed, &mut plain, finish).unwrap();
                    context.total_out() as usize
                }
                Compression::Zstd => zstd_safe::DCtx::create()
                    .decompress_using_dict(&mut plain[..], &packed, &dictionary)
                    .unwrap(),
            };
            assert_eq!(plain[..length], payload);
            history.extend_from_slice(&payload);
        }
    }
}

/// Payload that begins with the magic number of zstd's dictionaries is not read as a dictionary.
#[test]
fn p_13_3_payload_is_never_taken_for_a_dictionary_of_zstd() {
    let (mut compressor, mut decompressor) =
        (Compressor::new(Compression::Zstd), Decompressor::default());
    for n in 0..5 {
        let magic = [&[0x37, 0xa4, 0x30, 0xec], &text(n, 4092)[..]].concat();
        let (announced, packed) = compress(&mut compressor, &magic).unwrap();
        assert_eq!(decompressor.decompress(announced, &packed).unwrap(), magic);
    }
}

#[test]
fn p_13_3_small_messages_shrink_by_what_they_have_in_common() {
    for by in KINDS {
        let mut compressor = Compressor::new(by);
        let event = |n: usize| {
            format!(
                "event: price\ndata: {{\"symbol\":\"ADIT\",\"exchange\":\"Zurich\",\"bid\":{n}.25,\"ask\":{n}.75,\
                 \"volume\":{},\"currency\":\"CHF\",\"opened\":\"2026-11-21T09:00:00Z\",\"venue\":\"main board\",\
                 \"flags\":[\"continuous\",\"auction\"],\"source\":\"https://quotes.example/feed/7\",\"note\":\"prices of the exchange are those of the last auction and of the venue that opened it\"}}\n\n",
                n * 31
            )
        };
        let length = |n| {
            compress(&mut compressor, event(n).as_bytes())
                .unwrap()
                .1
                .len()
        };
        let lengths: Vec<usize> = (100..110).map(length).collect();
        assert!(lengths[9] * 3 < lengths[0], "{lengths:?}");
    }
}

#[test]
fn p_13_3_requests_and_directions_share_nothing() {
    for by in KINDS {
        let secret = text(1, 2000);
        let mut used = Compressor::new(by);
        let first = compress(&mut used, &secret).unwrap();
        let again = compress(&mut used, &secret).unwrap();
        assert!(again.1.len() < first.1.len() / 2, "it refers to the first");
        // Another compressor has no part of this history, whichever thread's context it uses.
        assert_eq!(compress(&mut Compressor::new(by), &secret).unwrap(), first);
        let unpacked = Decompressor::default().decompress(again.0, &again.1);
        assert_ne!(unpacked, Ok(secret.clone()));
        // A message that was not sent is not part of the history.
        let mut compressor = Compressor::new(by);
        compressor.compress(&secret).unwrap();
        assert_eq!(compressor.compress(&secret).unwrap(), first);
    }
}

#[test]
fn incompressible_payload_is_sent_raw_and_soon_not_tried() {
    for by in KINDS {
        let mut compressor = Compressor::new(by);
        assert_eq!(compressor.compress(&text(0, 255)), None, "too short");
        assert_eq!(compressor.compress(&text(0, 65_537)), None, "too long");
        for n in 0..7 {
            assert_eq!(compressor.compress(&noise(n, 1000)), None);
        }
        assert!(
            compressor.compress(&text(0, 1000)).is_some(),
            "seven are no habit"
        );
        for n in 0..8 {
            assert_eq!(compressor.compress(&noise(n, 1000)), None);
        }
        let mebibyte = (0..16).map(|_| compressor.compress(&text(0, 65_536)));
        assert!(mebibyte.into_iter().all(|packed| packed.is_none()));
        // After the pause one message is tried, and its result decides whether compression continues.
        assert_eq!(compressor.compress(&noise(0, 1000)), None);
        assert_eq!(compressor.compress(&text(0, 1000)), None);
        for _ in 0..16 {
            compressor.compress(&text(0, 65_536));
        }
        assert!(compressor.compress(&text(0, 1000)).is_some());
    }
}

#[test]
fn p_13_6_websocket_messages_with_rsv1_are_not_compressed() {
    let frame = |opcode, rsv, fin| WebSocketFrame {
        fin,
        rsv,
        opcode,
        length: 1000,
    };
    let mut compressor = Compressor::new(Compression::Zstd);
    let mut packs = |frame| {
        compressor.on_frame(frame);
        compressor.compress(&text(0, 1000)).is_some()
    };
    assert!(packs(frame(1, 0, true)));
    // Its continuations count as compressed as well, and a ping in between changes nothing.
    assert!(!packs(frame(2, 4, false)));
    assert!(!packs(frame(0, 0, false)));
    assert!(!packs(frame(9, 0, true)));
    assert!(!packs(frame(0, 0, true)));
    assert!(
        packs(frame(1, 3, false)),
        "the other bits are no business of ours"
    );
    assert!(packs(frame(0, 0, true)));
}

/// Two lanes whose ends support both algorithms.
fn able() -> Pair {
    let pair = pair();
    for by in KINDS {
        pair.server.lane.allow_compression(by);
        pair.client.lane.allow_compression(by);
    }
    pair
}

async fn next_data(exchange: &mut Exchange) -> Bytes {
    let part = tokio::time::timeout(Duration::from_secs(20), exchange.recv.part());
    match part.await.expect("nothing comes") {
        Some(Ok(Part::Data(payload))) => payload.bytes().clone(),
        part => panic!("no payload: {part:?}"),
    }
}

#[tokio::test]
async fn p_13_1_nothing_is_compressed_that_the_peer_cannot_inflate() {
    let pair = pair();
    pair.server.lane.allow_compression(Compression::Gzip);
    for (by, packed) in [(Compression::Zstd, 0), (Compression::Gzip, 1)] {
        let (visitor, mut service) = pair.open(false).await;
        visitor.send.set_compression(Some(by));
        visitor.send.set_compression(None);
        visitor.send.send(text(1, 5000), false).unwrap();
        assert_eq!(next_data(&mut service).await, text(1, 5000));
        let stats = pair.server.lane.stats().compression;
        assert_eq!(stats.sent_messages, packed, "{by:?}");
        drop((visitor, service));
    }
    let stats = pair.client.lane.stats().compression;
    assert_eq!(
        (stats.received_messages, stats.received_plain_bytes),
        (1, 5000)
    );
    assert!(stats.received_packed_bytes < 2000, "{stats:?}");
    pair.settled().await;
}

/// SSE and streams of gRPC: each message arrives before the next one is sent.
#[tokio::test]
async fn p_13_3_each_message_arrives_without_waiting_for_the_next() {
    for by in KINDS {
        let pair = able();
        let (visitor, mut service) = pair.open(false).await;
        visitor.send.set_compression(Some(by));
        for n in 0..50 {
            let payload = text(n, 300 + n);
            visitor.send.ready().await.unwrap();
            visitor.send.send(payload.clone(), false).unwrap();
            assert_eq!(next_data(&mut service).await, payload);
        }
        assert_eq!(pair.server.lane.stats().compression.sent_messages, 50);
        drop((visitor, service));
        pair.settled().await;
    }
}

#[tokio::test]
async fn p_13_1_compressed_and_raw_messages_mix_in_both_directions() {
    for by in KINDS {
        let pair = able();
        let (visitor, service) = pair.open(false).await;
        visitor.send.set_compression(Some(by));
        service
            .send
            .set_compression(Some(KINDS[usize::from(by == KINDS[0])]));
        response(&service, b"small, in the head", false).unwrap();
        let all: Vec<Bytes> = (0..60)
            .map(|n| match n % 3 {
                0 => text(n, 20_000),
                1 => noise(n, 5000),
                _ => text(n, 100),
            })
            .collect();
        let whole: Bytes = all.concat().into();
        let (up, down) = (all.clone(), whole.clone());
        let Exchange { send, mut recv } = visitor;
        let upload = tokio::spawn(async move {
            for part in up {
                send.send_all(part, false).await.unwrap();
            }
            send.finish().unwrap();
        });
        let Exchange {
            send: back,
            recv: mut request,
        } = service;
        let download = tokio::spawn(async move { back.send_all(down, true).await.unwrap() });
        let (came, went) = tokio::join!(read(&mut request), read(&mut recv));
        assert_eq!(came.unwrap().1, whole);
        let response = went.unwrap().1;
        assert_eq!(response[..18], *b"small, in the head");
        assert_eq!(response[18..], whole);
        upload.await.unwrap();
        download.await.unwrap();
        let stats = pair.server.lane.stats().compression;
        assert!(stats.sent_messages >= 20 && stats.sent_raw_messages >= 20);
        assert!(stats.received_messages >= 10, "{stats:?}");
        let plain = stats.sent_plain_bytes + stats.received_plain_bytes;
        let packed = stats.sent_packed_bytes + stats.received_packed_bytes;
        assert!(packed + 300_000 < plain, "{stats:?}");
        assert!(!stats.compressing.is_zero() && !stats.inflating.is_zero());
        drop((recv, request));
        pair.settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn p_13_4_credit_counts_the_decompressed_size() {
    let pair = able();
    let (visitor, mut service) = pair.open(false).await;
    visitor.send.set_compression(Some(Compression::Zstd));
    let window = 32 * 1024;
    let cost = adit_flow::MESSAGE_COST as usize;
    for _ in 0..2 {
        visitor.send.ready().await.unwrap();
        let half = text(0, window / 2 - cost);
        visitor.send.send(half, false).unwrap();
    }
    until(|| pair.client.lane.stats().waiting_bytes == window as u64).await;
    let full = tokio::time::timeout(Duration::from_millis(50), visitor.send.ready()).await;
    assert!(
        full.is_err(),
        "the window is full, though some hundred bytes have crossed"
    );
    let stats = pair.server.lane.stats().compression;
    assert_eq!(stats.sent_plain_bytes, (window - 2 * cost) as u64);
    assert!(stats.sent_packed_bytes < window as u64 / 4, "{stats:?}");
    let part = service.recv.part().await.unwrap().unwrap();
    assert_eq!(pair.client.lane.stats().waiting_bytes, window as u64);
    drop(part);
    assert_eq!(pair.client.lane.stats().waiting_bytes, window as u64 / 2);
    visitor.send.ready().await.unwrap();
    drop((visitor, service));
    pair.settled().await;
}

/// A message that inflates to 16 MiB.
fn bomb(by: Compression) -> Bytes {
    let zeros = vec![0; 16 << 20];
    let mut out = vec![0; 1 << 20];
    let length = match by {
        Compression::Gzip => {
            let mut context = flate2::Compress::new(flate2::Compression::new(6), false);
            let finish = flate2::FlushCompress::Finish;
            context.compress(&zeros, &mut out, finish).unwrap();
            context.total_out() as usize
        }
        Compression::Zstd => zstd_safe::compress(&mut out[..], &zeros, 1).unwrap(),
    };
    assert!(length < 20_000);
    out[..length].to_vec().into()
}

/// P-13.5, F13: bombs, and any payload with a wrong announced size, end their request; the others continue.
#[tokio::test]
async fn p_13_5_a_wrong_announced_size_ends_that_request_only() {
    let pair = able();
    let (other, mut other_service) = pair.open(false).await;
    other.send.set_compression(Some(Compression::Zstd));
    for by in KINDS {
        let zeros = Bytes::from(vec![0; 20_000]);
        let (_, whole) = Compressor::new(by).compress(&zeros).unwrap();
        let (_, short) = Compressor::new(by).compress(&zeros.slice(..1000)).unwrap();
        let behind = Bytes::from([&whole[..], b"x"].concat());
        let half = whole.slice(..whole.len() / 2);
        for (packed, inflated_bytes) in [
            (bomb(by), 32_000),
            (whole.clone(), 1000),
            (whole, 19_999),
            (short, 1001),
            (behind, 20_000),
            (half, 20_000),
            (noise(1, 200), 1000),
        ] {
            let (mut visitor, mut service) = pair.open(false).await;
            let announced = Compressed { by, inflated_bytes };
            let mux = pair.server.lane.mux();
            mux.send_compressed(visitor.id(), None, announced, packed, false)
                .unwrap();
            let failure = service.recv.part().await.unwrap().unwrap_err();
            assert_eq!(failure.reason, Reason::ProtocolError, "{announced:?}");
            let again = service.recv.part().await.unwrap().unwrap_err();
            assert_eq!(again, failure);
            let failure = visitor.recv.part().await.unwrap().unwrap_err();
            assert_eq!(failure.reason, Reason::ProtocolError);
            drop((visitor, service));
            // The link and the other requests continue.
            other.send.ready().await.unwrap();
            other.send.send(text(3, 2000), false).unwrap();
            assert_eq!(next_data(&mut other_service).await, text(3, 2000));
        }
    }
    drop((other, other_service));
    pair.settled().await;
}

#[tokio::test]
async fn p_9_3_compressed_frames_arrive_unchanged() {
    let pair = able();
    let open: &Open = &Open::default();
    let (authority, path) = (&b"a"[..], &b"/"[..]);
    let head = WebSocketRequestHead {
        open,
        authority,
        path,
    };
    let head = head.encode(std::iter::empty()).unwrap();
    let visitor = pair.server.lane.open(head, false, None).unwrap();
    let mut service = pair.client.accept().await;
    let head = WebSocketResponseHead { status: 101 };
    let head = head.encode(std::iter::empty()).unwrap();
    service.send.respond(head, false).unwrap();
    visitor.send.set_compression(Some(Compression::Gzip));
    for n in 0..30_u8 {
        // Every third message has been compressed by its sender: it is not compressed again.
        let rsv = if n % 3 == 0 { 4 } else { 0 };
        let payload = text(usize::from(n), 1000);
        let frame = WebSocketFrame {
            fin: true,
            rsv,
            opcode: 1,
            length: 2000,
        };
        visitor.send.ready().await.unwrap();
        visitor.send.send_frame(frame, payload.clone()).unwrap();
        visitor.send.ready().await.unwrap();
        visitor.send.send(payload.clone(), false).unwrap();
        match service.recv.part().await {
            Some(Ok(Part::Frame(came, data))) => {
                assert_eq!((came, data.bytes()), (frame, &payload));
            }
            part => panic!("no frame: {part:?}"),
        }
        assert_eq!(next_data(&mut service).await, payload);
    }
    let stats = pair.server.lane.stats().compression;
    assert_eq!((stats.sent_messages, stats.sent_raw_messages), (40, 20));
    drop((visitor, service));
    pair.settled().await;
}
