//! Memory of requests whose receivers do not read, counted by the allocator. The only test of its program.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

#[path = "it/support.rs"]
mod support;

use std::sync::Arc;

use adit_codec::{
    EncodedHead, Open, RequestId, Side, TcpOpenHead, WebSocketFrame, WebSocketRequestHead,
    write_chunk_prefix, write_frame_prefix, write_head,
};
use adit_flow::{Budget, MESSAGE_COST};
use adit_link::{IncomingRequest, Lane, drive};
use bytes::{BufMut, Bytes, BytesMut};
use peak_alloc::PeakAlloc;
use support::{Inbound, Pipe, config, until};
use tokio::sync::mpsc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const REQUESTS: usize = 300;
/// A DATA frame of HTTP/2.
const FRAME_BYTES: usize = 16 * 1024;

/// Bytes that slices of frames may pin (P-4.7): 4 MiB, and the frame that crosses that bound.
const PINNED_BYTES: usize = (4 << 20) + FRAME_BYTES;

/// The messages that fill a window.
#[derive(Debug, Clone, Copy)]
enum Filling {
    /// WebSocket frames with this many bytes of payload.
    Frames(usize),
    /// Chunks of this many bytes.
    Chunks(usize),
    /// One chunk, in transport frames of this many bytes.
    Trickle(usize),
}

impl Filling {
    fn head(self) -> EncodedHead {
        let open: &Open = &Open::default();
        let (authority, path) = (&b"a.example"[..], &b"/"[..]);
        if let Self::Frames(_) = self {
            let head = WebSocketRequestHead {
                open,
                authority,
                path,
            };
            head.encode(std::iter::empty()).unwrap()
        } else {
            TcpOpenHead { open, local: "" }.encode(b"").unwrap()
        }
    }

    /// As many messages as fit into a window of this many bytes, with their cost.
    fn write(self, id: RequestId, window: u64, out: &mut BytesMut) -> u64 {
        let length = match self {
            Self::Frames(length) | Self::Chunks(length) => length,
            Self::Trickle(_) => (window - MESSAGE_COST) as usize,
        };
        let cost = length as u64 + MESSAGE_COST;
        for _ in 0..window / cost {
            if let Self::Frames(length) = self {
                let frame = WebSocketFrame {
                    fin: true,
                    rsv: 0,
                    opcode: 1,
                    length: length as u64,
                };
                write_frame_prefix(out, id, frame, length, false);
            } else {
                write_chunk_prefix(out, id, length, false);
            }
            out.put_bytes(b'x', length);
        }
        window / cost * cost
    }

    const fn step(self) -> usize {
        match self {
            Self::Trickle(step) => step,
            _ => FRAME_BYTES,
        }
    }

    const fn requests(self) -> usize {
        match self {
            // Each small frame is read separately, which is slow.
            Self::Trickle(_) => REQUESTS / 10,
            _ => REQUESTS,
        }
    }
}

struct Stalled {
    lane: Arc<Lane>,
    opened: Vec<IncomingRequest>,
    /// Memory of the waiting payload.
    occupied: usize,
}

/// A lane whose peer opens requests and fills their windows while their tasks do not read.
async fn stalled(filling: Filling) -> Stalled {
    let (to, at) = mpsc::channel(4);
    let (sender, mut requests) = mpsc::unbounded_channel();
    let lane = Lane::new(
        config(Side::Client),
        Budget::new(0),
        Arc::new(Inbound(sender)),
    );
    let driven = lane.clone();
    tokio::spawn(async move { drive(&driven, Pipe(at)).await });
    let (mut opened, mut bytes) = (Vec::new(), BytesMut::new());
    let mut next = Some(Side::Server.first_id());
    while opened.len() < filling.requests() {
        let id = next.unwrap();
        next = id.next();
        write_head(&mut bytes, id, &filling.head(), false);
        to.send(bytes.split().freeze()).await.unwrap();
        opened.push(requests.recv().await.unwrap());
    }
    drop(bytes);
    let before = ALLOCATOR.current_usage();
    let mut cost = 0;
    for request in &opened {
        let mut bytes = BytesMut::new();
        let window = lane.initial_window().into();
        cost += filling.write(request.exchange.id(), window, &mut bytes);
        for frame in bytes.chunks(filling.step()) {
            to.send(Bytes::copy_from_slice(frame)).await.unwrap();
        }
    }
    until(|| to.capacity() == to.max_capacity()).await;
    until(|| lane.stats().waiting_bytes == cost).await;
    Stalled {
        lane,
        opened,
        occupied: ALLOCATOR.current_usage().saturating_sub(before),
    }
}

#[tokio::test]
async fn p_4_1_the_cheapest_messages_occupy_no_more_than_their_windows() {
    for filling in [
        Filling::Frames(0),
        Filling::Frames(1),
        Filling::Chunks(0),
        Filling::Chunks(1),
        Filling::Chunks(2000),
        Filling::Trickle(32),
    ] {
        let stalled = stalled(filling).await;
        let windows = stalled.opened.len() * stalled.lane.initial_window() as usize;
        let pinned = stalled.lane.stats().pinned_bytes;
        assert!(pinned <= PINNED_BYTES, "{filling:?}: {pinned} are pinned");
        // A chunk in parts is charged for one message, and has at most one part more than its length in KiB.
        let parts = match filling {
            Filling::Trickle(_) => windows / 4,
            _ => 0,
        };
        let promised = windows + parts + pinned;
        let occupied = stalled.occupied;
        assert!(
            occupied <= promised,
            "{filling:?}: {occupied} of {promised}"
        );
    }
}
