//! WebSocket frames on two lanes: their order relative to other payload, and their credit.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

use std::time::Duration;

use crate::support::{Pair, config, pair, pair_of, until};
use adit_codec::{
    Open, RequestHead, Side, TcpOpenHead, WebSocketFrame, WebSocketRequestHead,
    WebSocketResponseHead,
};
use adit_link::{Exchange, Part, Reason, ResponseHead};
use bytes::Bytes;
use tokio::time::Instant;

fn frame(length: u64) -> WebSocketFrame {
    WebSocketFrame {
        fin: true,
        rsv: 4,
        opcode: 2,
        length,
    }
}

/// An open connection: the handles of visitor and service, after the response.
async fn connected(pair: &Pair) -> (Exchange, Exchange) {
    let open: &Open = &Open {
        tunnel: "chat".into(),
        ..Open::default()
    };
    let (authority, path) = (&b"a.example"[..], &b"/"[..]);
    let head = WebSocketRequestHead {
        open,
        authority,
        path,
    };
    let head = head.encode(std::iter::empty()).unwrap();
    let mut visitor = pair.server.lane.open(head, false, None).unwrap();
    let opened = pair.client.opened.lock().await.recv().await.unwrap();
    assert!(matches!(opened.head, RequestHead::WebSocket(_)));
    let switching = WebSocketResponseHead { status: 101 };
    let switching = switching.encode(std::iter::empty()).unwrap();
    opened.exchange.send.respond(switching, false).unwrap();
    let part = visitor.recv.part().await;
    assert!(matches!(
        part,
        Some(Ok(Part::Response(ResponseHead::WebSocket(_))))
    ));
    (visitor, opened.exchange)
}

async fn close(pair: &Pair, visitor: Exchange, service: Exchange) {
    let both = [visitor, service];
    for exchange in &both {
        exchange.send.finish().unwrap();
    }
    for exchange in both {
        let mut recv = exchange.recv;
        while let Some(part) = recv.part().await {
            drop(part.unwrap());
        }
    }
    pair.settled().await;
}

/// P-9.3: frames, and the chunks with the rest of their payloads, arrive in the order in which they were sent.
#[tokio::test]
async fn frames_and_the_rest_of_their_payloads_keep_their_order() {
    let pair = pair();
    let (visitor, mut service) = connected(&pair).await;
    let send = visitor.send;
    let sends = tokio::spawn(async move {
        for n in 0..500_u64 {
            let size = (n * 7919 % 9000) as usize;
            let all = Bytes::from(vec![n as u8; size]);
            let first = send.ready().await.unwrap().min(size / 2);
            send.send_frame(frame(size as u64), all.slice(..first))
                .unwrap();
            send.send_all(all.slice(first..), false).await.unwrap();
        }
        send
    });
    for n in 0..500_u64 {
        let size = n * 7919 % 9000;
        let Some(Ok(Part::Frame(head, payload))) = service.recv.part().await else {
            panic!("no frame where one begins");
        };
        assert_eq!(head, frame(size));
        let mut got = payload.bytes().to_vec();
        while (got.len() as u64) < size {
            match service.recv.part().await {
                Some(Ok(Part::Data(payload))) => got.extend_from_slice(payload.bytes()),
                other => panic!("{other:?} inside frame {n}"),
            }
        }
        assert_eq!(got, vec![n as u8; size as usize]);
    }
    let send = sends.await.unwrap();
    let recv = visitor.recv;
    close(&pair, Exchange { send, recv }, service).await;
}

/// P-4.5, P-9.5: the credit of frames, also of empty ones, is returned when they are dropped and not before.
#[tokio::test(start_paused = true)]
async fn credit_of_frames_comes_back_when_they_are_dropped() {
    let pair = pair();
    let (visitor, mut service) = connected(&pair).await;
    // Empty frames fill the window: 32 KiB with 256 bytes for each. Before the last one there is no credit for payload,
    // so `ready` would wait.
    for n in 0..128 {
        if n < 127 {
            visitor.send.ready().await.unwrap();
        }
        visitor.send.send_frame(frame(0), Bytes::new()).unwrap();
    }
    let mut held = Vec::new();
    while held.len() < 128 {
        held.push(service.recv.part().await.unwrap().unwrap());
    }
    assert_eq!(pair.client.lane.stats().waiting_bytes, 32 * 1024);
    let full = tokio::time::timeout(Duration::from_millis(50), visitor.send.ready()).await;
    assert!(full.is_err(), "the window is full");
    drop(held);
    visitor.send.ready().await.unwrap();
    assert_eq!(pair.client.lane.stats().waiting_bytes, 0);
    // Frames can be sent without limit while they are consumed.
    for _ in 0..5000 {
        visitor.send.ready().await.unwrap();
        visitor.send.send_frame(frame(1), "x".into()).unwrap();
        let part = service.recv.part().await.unwrap().unwrap();
        assert!(matches!(part, Part::Frame(_, payload) if payload.bytes() == "x"));
    }
    close(&pair, visitor, service).await;
}

#[tokio::test]
async fn unread_frames_are_dropped_with_the_request() {
    let pair = pair();
    let (visitor, service) = connected(&pair).await;
    for _ in 0..100 {
        visitor.send.ready().await.unwrap();
        visitor.send.send_frame(frame(3), "abc".into()).unwrap();
    }
    until(|| pair.client.lane.stats().waiting_bytes == 25_900).await;
    drop(service);
    drop(visitor);
    pair.settled().await;
}

/// F12: a request may have another stall timeout than its lane.
#[tokio::test(start_paused = true)]
async fn a_request_can_set_its_own_stall_timeout() {
    let second = Duration::from_secs(1);
    let mut lane = config(Side::Client);
    lane.stall = 60 * second;
    let pair = pair_of(config(Side::Server), lane);
    let mut lasted = Vec::new();
    for stall in [None, Some(10 * second), Some(600 * second)] {
        let (mut visitor, service) = connected(&pair).await;
        if let Some(stall) = stall {
            service.set_stall(stall);
        }
        visitor.send.send_frame(frame(1), "x".into()).unwrap();
        let start = Instant::now();
        let failure = visitor.recv.part().await.unwrap().unwrap_err();
        assert_eq!(failure.reason, Reason::ServiceTimeout);
        lasted.push(start.elapsed().as_secs());
        drop((visitor, service));
    }
    // A reset may be at most three ticks late.
    for (lasted, stall) in lasted.iter().zip([60, 10, 600]) {
        assert!((stall..=stall + 4).contains(lasted), "{lasted} for {stall}");
    }
    pair.settled().await;
}

/// P-2.4: other requests continue.
#[tokio::test]
async fn a_websocket_frame_ends_only_its_tcp_request() {
    let pair = pair();
    let (visitor, service) = connected(&pair).await;
    let open: &Open = &Open::default();
    let head = TcpOpenHead { open, local: "" }.encode(b"").unwrap();
    let mut tcp = pair.server.lane.open(head, false, None).unwrap();
    let accepted = pair.client.accept().await;
    tcp.send.send_frame(frame(1), "x".into()).unwrap();
    let failure = tcp.recv.part().await.unwrap().unwrap_err();
    assert_eq!(failure.reason, Reason::ProtocolError);
    drop((tcp, accepted));
    close(&pair, visitor, service).await;
}
