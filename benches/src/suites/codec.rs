//! Encodes and decodes messages of chunks with `size` bytes of payload each. `encode` and `decode` have one message in
//! each frame, as under low load; `encode_batch` and `decode_batch` have thirty-two messages in each frame, as the
//! outbox joins them when many are ready.
//!
//! The threads share only the allocator, as two lanes do.

use std::hint::black_box;

use adit_codec::{Batch, BatchBuilder, Decoder, Payload, RequestId, write_chunk_prefix};
use adit_proto::{TunnelMessage, tunnel_message};
use bytes::Bytes;

use crate::{
    baseline::codec::{Memcpy, ProstDecoder, ProstEncoder, TonicDecoder, TonicEncoder},
    case::{BYTES_PER_ENTRY, Case, Figure, Meter, Role, Suite},
};

/// The suite.
pub const SUITE: Suite = Suite {
    name: "codec",
    cases,
    quality,
    memory,
};

const SIZES: [usize; 3] = [64, 1024, 65_536];
/// Payload sizes of which many fit into a batch of the outbox.
const SMALL: [usize; 2] = [64, 1024];
const BATCH: usize = 32;
const ID: u64 = 2_000;

/// Messages that are ready to be written.
enum Ready {
    Frame(Bytes),
    Frames(Vec<Bytes>),
    Segments(Batch),
}

impl Ready {
    fn into_segments(self) -> Vec<Bytes> {
        match self {
            Self::Frame(frame) => vec![frame],
            Self::Frames(frames) => frames,
            Self::Segments(batch) => batch.into_segments().collect(),
        }
    }
}

/// A way to make messages and to read them.
trait Codec: Default + Send + 'static {
    const CONTENDER: (&'static str, Role);

    /// Encodes `messages` messages of a payload at once.
    fn encode(&mut self, payload: &Bytes, messages: usize) -> Ready;
    /// Passes on the payloads of a frame's messages; returns their number.
    fn decode(&mut self, frame: &Bytes, use_payload: impl FnMut(Bytes)) -> usize;
}

fn payload_of(message: TunnelMessage) -> Bytes {
    match message.payload {
        Some(tunnel_message::Payload::Chunk(data)) => data,
        _ => panic!("another payload"),
    }
}

#[derive(Default)]
struct Tonic(TonicEncoder, TonicDecoder);

impl Codec for Tonic {
    const CONTENDER: (&'static str, Role) = ("tonic_prost", Role::Naive);

    fn encode(&mut self, payload: &Bytes, messages: usize) -> Ready {
        for _ in 0..messages {
            self.0.put(ID, payload.clone());
        }
        let first = self.0.next_frame().unwrap();
        if self.0.is_drained() {
            return Ready::Frame(first);
        }
        let rest = std::iter::from_fn(|| self.0.next_frame());
        Ready::Frames(std::iter::once(first).chain(rest).collect())
    }

    fn decode(&mut self, frame: &Bytes, mut use_payload: impl FnMut(Bytes)) -> usize {
        self.1.feed(frame.clone());
        let mut messages = 0;
        while let Some(message) = self.1.next_message() {
            use_payload(payload_of(message));
            messages += 1;
        }
        messages
    }
}

#[derive(Default)]
struct PayloadCopy(ProstEncoder, ProstDecoder);

impl Codec for PayloadCopy {
    const CONTENDER: (&'static str, Role) = ("payload_copy", Role::Rival);

    fn encode(&mut self, payload: &Bytes, messages: usize) -> Ready {
        for _ in 0..messages {
            self.0.put(ID, payload.clone());
        }
        Ready::Frame(self.0.finish())
    }

    fn decode(&mut self, frame: &Bytes, mut use_payload: impl FnMut(Bytes)) -> usize {
        self.1.feed(frame);
        let mut messages = 0;
        while let Some(message) = self.1.next_message() {
            use_payload(payload_of(message));
            messages += 1;
        }
        messages
    }
}

struct Ours(BatchBuilder, Decoder);

impl Default for Ours {
    fn default() -> Self {
        Self(BatchBuilder::new(), Decoder::new())
    }
}

impl Codec for Ours {
    const CONTENDER: (&'static str, Role) = ("ours", Role::Ours);

    fn encode(&mut self, payload: &Bytes, messages: usize) -> Ready {
        for _ in 0..messages {
            let id = RequestId::new(ID);
            self.0
                .put(|out| write_chunk_prefix(out, id, payload.len(), false));
            self.0.put_payload(payload.clone());
        }
        Ready::Segments(self.0.finish().unwrap())
    }

    fn decode(&mut self, frame: &Bytes, mut use_payload: impl FnMut(Bytes)) -> usize {
        self.1.feed(frame.clone());
        let mut messages = 0;
        while let Some(message) = self.1.next().unwrap() {
            match message.payload {
                Payload::Chunk { data, .. } => use_payload(data),
                _ => panic!("another payload"),
            }
            messages += 1;
        }
        messages
    }
}

fn frame(size: usize, messages: usize) -> Bytes {
    let mut encoder = ProstEncoder::default();
    for _ in 0..messages {
        encoder.put(ID, vec![7; size].into());
    }
    encoder.finish()
}

fn encode<C: Codec>(operation: &'static str, size: usize, messages: usize) -> Case {
    Case::alone(operation, C::CONTENDER, size, move || {
        let (mut codec, payload) = (C::default(), Bytes::from(vec![7; size]));
        Box::new(move |times| {
            for _ in 0..times {
                black_box(codec.encode(black_box(&payload), messages));
            }
        })
    })
}

fn decode<C: Codec>(operation: &'static str, size: usize, messages: usize) -> Case {
    Case::alone(operation, C::CONTENDER, size, move || {
        let (mut codec, frame) = (C::default(), frame(size, messages));
        Box::new(move |times| {
            for _ in 0..times {
                let came = codec.decode(black_box(&frame), |payload| drop(black_box(payload)));
                assert_eq!(came, messages);
            }
        })
    })
}

/// The least that any copy costs.
fn memcpy(operation: &'static str, size: usize, messages: usize) -> Case {
    Case::alone(operation, ("memcpy", Role::Limit), size, move || {
        let (mut memcpy, payload) = (Memcpy::default(), vec![7; size]);
        Box::new(move |times| {
            for _ in 0..times {
                for _ in 0..messages {
                    black_box(memcpy.copy(black_box(&payload)));
                }
            }
        })
    })
}

fn group(encodes: bool, operation: &'static str, size: usize, messages: usize) -> [Case; 4] {
    if encodes {
        [
            encode::<Tonic>(operation, size, messages),
            encode::<PayloadCopy>(operation, size, messages),
            encode::<Ours>(operation, size, messages),
            memcpy(operation, size, messages),
        ]
    } else {
        [
            decode::<Tonic>(operation, size, messages),
            decode::<PayloadCopy>(operation, size, messages),
            decode::<Ours>(operation, size, messages),
            memcpy(operation, size, messages),
        ]
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for encodes in [true, false] {
        let (one, batch) = if encodes {
            ("encode", "encode_batch")
        } else {
            ("decode", "decode_batch")
        };
        cases.extend({ SIZES.into_iter() }.flat_map(|size| group(encodes, one, size, 1)));
        cases.extend({ SMALL.into_iter() }.flat_map(|size| group(encodes, batch, size, BATCH)));
    }
    cases
}

fn copied<C: Codec>(figures: &mut Vec<Figure>) {
    let what = "share of the payload that is copied";
    for size in SIZES {
        let mut add = |operation, share| {
            figures.push(Figure::new(operation, C::CONTENDER.0, size, what, share));
        };
        let (mut codec, payload) = (C::default(), Bytes::from(vec![7; size]));
        let lies = payload.as_ptr_range();
        let segments = codec.encode(&payload, 1).into_segments();
        let kept = segments
            .iter()
            .filter(|segment| lies.contains(&segment.as_ptr()));
        let kept: usize = kept.map(Bytes::len).sum();
        add("encode", 1.0 - kept as f64 / size as f64);
        let frame = frame(size, 1);
        let lies = frame.as_ptr_range();
        let mut share = 0.0;
        codec.decode(&frame, |data| {
            share = f64::from(u8::from(!lies.contains(&data.as_ptr())));
        });
        add("decode", share);
    }
}

/// The share of the payload bytes that are copied between their source and their destination.
fn quality() -> Vec<Figure> {
    let mut figures = Vec::new();
    copied::<Tonic>(&mut figures);
    copied::<PayloadCopy>(&mut figures);
    copied::<Ours>(&mut figures);
    figures
}

fn held<C: Codec>(meter: &Meter, figures: &mut Vec<Figure>) {
    const WAITING: usize = 256;
    for size in SIZES {
        let mut add = |operation, bytes| {
            let figure = Figure::new(operation, C::CONTENDER.0, size, BYTES_PER_ENTRY, bytes);
            figures.push(figure);
        };
        let (mut codec, payload) = (C::default(), Bytes::from(vec![7; size]));
        // One message is encoded before: memory that is kept for the next message is not part of this one.
        drop(codec.encode(&payload, 1));
        let mut ready = Vec::with_capacity(WAITING);
        let bytes = meter.per_entry(WAITING, || {
            ready.extend((0..WAITING).map(|_| codec.encode(&payload, 1)));
            std::mem::take(&mut ready)
        });
        add("encode", bytes);
        let frame = frame(size, 1);
        codec.decode(&frame, drop);
        let mut payloads = Vec::with_capacity(WAITING);
        let bytes = meter.per_entry(WAITING, || {
            for _ in 0..WAITING {
                codec.decode(&frame, |payload| payloads.push(payload));
            }
            std::mem::take(&mut payloads)
        });
        add("decode", bytes);
    }
}

/// The memory of a message that waits to be written, or whose payload waits to be used; the payload itself, which is
/// needed in any design, is not counted.
fn memory(meter: &Meter) -> Vec<Figure> {
    let mut figures = Vec::new();
    held::<Tonic>(meter, &mut figures);
    held::<PayloadCopy>(meter, &mut figures);
    held::<Ours>(meter, &mut figures);
    figures
}
