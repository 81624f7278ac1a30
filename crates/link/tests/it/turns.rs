//! The messages of the peer carry no payload: the reader of its lane works in turns.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use crate::support::{Inbound, config};
use adit_codec::{RequestId, Side, write_control, write_window};
use adit_flow::Budget;
use adit_link::{
    Lane, TransportError, TransportReader, drive,
    turn::{STEP_BYTES, TURN_BYTES},
};
use adit_proto::{Control, Heartbeat, control::Kind};
use bytes::{Bytes, BytesMut};
use prost::Message as _;
use tokio::sync::mpsc;

/// A transport that returns the same frame at every poll.
struct Flood(Bytes);

impl TransportReader for Flood {
    fn poll_bytes(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        Poll::Ready(Some(Ok(self.0.clone())))
    }
}

fn lane() -> Arc<Lane> {
    let inbound = Arc::new(Inbound(mpsc::unbounded_channel().0));
    Lane::new(config(Side::Server), Budget::new(0), inbound)
}

fn received(lane: &Lane) -> usize {
    usize::try_from(lane.stats().mux.messages_received).unwrap()
}

/// Messages that are handled before the reader checks whether its turn is over.
const STEP: usize = 64;

#[tokio::test]
async fn a_flood_of_messages_does_not_starve_other_tasks() {
    let heartbeat = {
        let kind = Some(Kind::Heartbeat(Heartbeat {
            sequence: 1,
            reply: false,
        }));
        let mut out = BytesMut::new();
        write_control(&mut out, &Control { kind }.encode_to_vec());
        out
    };
    let window = {
        let mut out = BytesMut::new();
        write_window(&mut out, RequestId::new(1), 1 << 20, 0);
        out
    };
    for (what, message) in [
        ("no-ops", &[0; 5][..]),
        ("heartbeats", &heartbeat),
        ("late windows", &window),
    ] {
        for messages in [1, 10_000] {
            let lane = lane();
            let frame = Bytes::from(message.repeat(messages));
            let driven = lane.clone();
            let reader = tokio::spawn(async move { drive(&driven, Flood(frame)).await });
            tokio::task::yield_now().await;
            let begun = received(&lane);
            for _ in 0..50 {
                let before = received(&lane);
                tokio::task::yield_now().await;
                let handled = received(&lane) - before;
                assert!(handled > 0, "{what}: the reader is not starved");
                let most = TURN_BYTES / STEP_BYTES + STEP;
                assert!(handled <= most, "{what}: {handled} in one turn");
            }
            assert!(received(&lane) - begun >= 50 * STEP, "{what}");
            assert!(!lane.is_closed());
            reader.abort();
        }
    }
}
