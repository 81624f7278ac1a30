//! How WebSockets end: with close frames, without them, and when a side goes away (P-9.6).

use std::time::Duration;

use adit_codec::ResetCode;
use adit_ingress::HttpConfig;
use adit_link::{Failure, Part, Reason};
use adit_splice::tcp::Socket;
use adit_testlink::{
    HttpEntry, http1, next_part,
    tcp::{read, reset},
    websocket::{Frame, UPGRADE, Visitor, accept, expect, frame, send},
    within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::websocket::short;

#[tokio::test(start_paused = true)]
async fn p_9_6_both_close_frames_cross_and_then_all_is_over() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    for (code, back) in [(1000, 1000), (1001, 1000), (4999, 3000)] {
        for visitor_first in [true, false] {
            let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
            let (there, and_back) = ([Frame::close(code)], [Frame::close(back)]);
            if visitor_first {
                visitor.send(&there).await;
                expect(&mut exchange, &there).await;
                // Frames before the close frame of the other side come first.
                send(&exchange, &[Frame::text("last words")]).await;
                send(&exchange, &and_back).await;
                visitor.expect(&[Frame::text("last words")]).await;
                visitor.expect(&and_back).await;
            } else {
                send(&exchange, &there).await;
                visitor.expect(&there).await;
                visitor.send(&[Frame::text("last words")]).await;
                visitor.send(&and_back).await;
                expect(&mut exchange, &[Frame::text("last words")]).await;
                expect(&mut exchange, &and_back).await;
            }
            assert_eq!(
                frame(&mut exchange.recv).await.unwrap(),
                None,
                "a clean end"
            );
            exchange.send.finish().unwrap();
            assert_eq!(visitor.frame().await, None);
            drop((visitor, exchange));
            entry.settled().await;
        }
    }
    let failed = entry.stats().failures.total();
    assert_eq!(failed, 0);
    let pending = entry.links[0].near.stats().pending;
    assert_eq!((pending.cancelled, pending.failed), (0, 0), "{pending:?}");
}

#[tokio::test(start_paused = true)]
async fn p_9_6_a_close_frame_with_a_reason_crosses_with_it() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    let close = Frame::new(8, b"\x03\xe9going away, for reasons");
    visitor.send(std::slice::from_ref(&close)).await;
    expect(&mut exchange, std::slice::from_ref(&close)).await;
    send(&exchange, std::slice::from_ref(&close)).await;
    visitor.expect(&[close]).await;
}

#[tokio::test(start_paused = true)]
async fn no_frame_of_the_service_follows_its_close_frame() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    send(&exchange, &[Frame::close(1000), Frame::text("too late")]).await;
    visitor.expect(&[Frame::close(1000)]).await;
    visitor.send(&[Frame::close(1000)]).await;
    expect(&mut exchange, &[Frame::close(1000)]).await;
    exchange.send.finish().unwrap();
    assert_eq!(visitor.frame().await, None);
}

/// RFC 6455, 7.1.1: no close frame is sent. Earlier frames arrive.
#[tokio::test(start_paused = true)]
async fn p_9_6_a_visitor_that_leaves_ends_without_a_close_frame() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    let frames: Vec<_> = (0..100).map(|n| Frame::text(&n.to_string())).collect();
    visitor.send(&frames).await;
    drop(visitor);
    expect(&mut exchange, &frames).await;
    assert_eq!(frame(&mut exchange.recv).await.unwrap(), None);
    exchange.send.finish().unwrap();
    drop(exchange);
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::Cancelled), 1);
}

#[tokio::test(start_paused = true)]
async fn p_9_6_a_visitor_that_leaves_within_a_frame_resets() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    http1::send(&mut visitor.0, &[0x82, 0x85, 0, 0, 0, 0, b'h']).await;
    let part = next_part(&mut exchange.recv).await;
    assert!(matches!(part, Some(Ok(Part::Frame(..)))));
    drop((visitor, part));
    let part = next_part(&mut exchange.recv).await;
    assert!(
        matches!(
            part,
            Some(Err(Failure {
                reason: Reason::Cancelled,
                ..
            }))
        ),
        "{part:?}"
    );
    drop(exchange);

    let (visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    reset(visitor.0);
    let failure = frame(&mut exchange.recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Cancelled);
    drop(exchange);
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::Cancelled), 2);
}

#[tokio::test(start_paused = true)]
async fn p_9_6_a_lost_service_ends_without_a_close_frame() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    // The end is between two frames: the earlier ones arrive.
    let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    send(&exchange, &[Frame::text("last words")]).await;
    exchange.send.finish().unwrap();
    visitor.expect(&[Frame::text("last words")]).await;
    assert_eq!(visitor.frame().await, None);
    assert_eq!(frame(&mut exchange.recv).await.unwrap(), None);
    drop(exchange);
    // The end is a reset, between frames and within one.
    for within_a_frame in [false, true] {
        let (mut visitor, exchange) = entry.open_websocket(&mut incoming).await;
        if within_a_frame {
            let head = Frame::new(2, [7; 100]).head;
            exchange.send.send_frame(head, vec![7; 10].into()).unwrap();
            read(&mut visitor.0, 12).await;
        }
        exchange.send.reset(ResetCode::ServiceAborted, "gone");
        assert_eq!(visitor.frame().await, None);
    }
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::ServiceAborted), 3);
}

#[tokio::test(start_paused = true)]
async fn p_6_4_a_lost_link_ends_without_a_close_frame() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (mut visitor, _exchange) = entry.open_websocket(&mut incoming).await;
    let (mut other, _other) = entry.open_websocket(&mut incoming).await;
    entry.links[0]
        .near
        .close(&Failure::new(Reason::LinkLost, "cut"));
    assert_eq!(visitor.frame().await, None);
    assert_eq!(other.frame().await, None);
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::LinkLost), 2);
}

#[tokio::test(start_paused = true)]
async fn p_9_6_a_draining_entry_sends_1001_to_both_sides() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    // A frame is being sent in each direction: a close frame follows after it.
    let long = Frame::new(2, [7; 1000]);
    http1::send(&mut visitor.0, &long.masked()[..100]).await;
    let part = next_part(&mut exchange.recv).await;
    assert!(matches!(part, Some(Ok(Part::Frame(..)))));
    drop(part);
    exchange
        .send
        .send_frame(long.head, vec![7; 10].into())
        .unwrap();
    read(&mut visitor.0, 14).await;

    entry.drain.send_replace(true);
    http1::send(&mut visitor.0, &long.masked()[100..]).await;
    exchange.send.send(vec![7; 990].into(), false).unwrap();
    read(&mut visitor.0, 990).await;
    visitor.expect(&[Frame::close(1001)]).await;
    let mut bytes = 0;
    while bytes < 1000 - 92 {
        match next_part(&mut exchange.recv).await {
            Some(Ok(Part::Data(data))) => bytes += data.bytes().len(),
            other => panic!("{other:?}"),
        }
    }
    expect(&mut exchange, &[Frame::close(1001)]).await;
    // No frame is forwarded any more: the entry handles the close frames of both sides.
    visitor
        .send(&[Frame::text("too late"), Frame::close(1001)])
        .await;
    send(&exchange, &[Frame::text("too late"), Frame::close(1001)]).await;
    assert_eq!(frame(&mut exchange.recv).await.unwrap(), None);
    exchange.send.finish().unwrap();
    assert_eq!(visitor.frame().await, None);
    drop((visitor, exchange));
    entry.settled().await;
    let failed = entry.stats().failures.total();
    assert_eq!(failed, 0);
}

#[tokio::test]
async fn p_9_6_a_drain_waits_only_for_the_close_timeout() {
    let (entry, mut incoming) = HttpEntry::scripted(HttpConfig {
        close_timeout: Duration::from_millis(200),
        ..short()
    });
    let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    // One visitor is silent, one does not stop sending, and one has its handshake too late.
    let (mut busy, _busy_exchange) = entry.open_websocket(&mut incoming).await;
    let mut late = entry.connect().await;
    http1::send(&mut late, UPGRADE).await;
    let (_, late_exchange) = incoming.websocket().await;
    let began = Instant::now();
    entry.drain.send_replace(true);
    accept(&late_exchange, &[]);
    http1::read_until(&mut late, "\r\n\r\n").await;
    let mut late = Visitor(late);
    late.expect(&[Frame::close(1001)]).await;
    visitor.expect(&[Frame::close(1001)]).await;
    expect(&mut exchange, &[Frame::close(1001)]).await;
    busy.expect(&[Frame::close(1001)]).await;
    while busy
        .0
        .write_all(&Frame::text("on and on").masked())
        .await
        .is_ok()
    {
        tokio::task::yield_now().await;
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    assert!(
        began.elapsed() >= Duration::from_millis(190),
        "the close timeout passed"
    );
    assert_eq!(visitor.frame().await, None);
    assert!(frame(&mut exchange.recv).await.is_err());
    drop((exchange, late_exchange, _busy_exchange));
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_close_frame_without_reply_waits_while_both_sides_stay() {
    let (entry, mut incoming) = HttpEntry::scripted(HttpConfig {
        close_timeout: Duration::from_millis(100),
        ..short()
    });
    let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    visitor.send(&[Frame::close(1000)]).await;
    expect(&mut exchange, &[Frame::close(1000)]).await;
    // RFC 6455, 5.5.1: an end may finish its message first.
    tokio::time::sleep(Duration::from_millis(300)).await;
    send(&exchange, &[Frame::text("still here")]).await;
    visitor.expect(&[Frame::text("still here")]).await;
    // When the visitor has left, the close timeout applies.
    drop(visitor);
    assert!(frame(&mut exchange.recv).await.is_err());
    drop(exchange);
    entry.settled().await;
}

/// The entry continues to read after the close frames, so that no reset discards the last frame.
#[tokio::test(start_paused = true)]
async fn the_last_frame_survives_later_bytes_of_the_visitor() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    for _ in 0..20 {
        let (visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
        let (mut read, mut write) = tokio::io::split(visitor.0);
        send(
            &exchange,
            &[Frame::new(2, vec![1; 10_000]), Frame::close(1000)],
        )
        .await;
        write.write_all(&Frame::close(1000).masked()).await.unwrap();
        expect(&mut exchange, &[Frame::close(1000)]).await;
        exchange.send.finish().unwrap();
        let _ = write.write_all(&[0; 100_000]).await;
        let mut all = Vec::new();
        within(read.read_to_end(&mut all)).await.unwrap();
        assert_eq!(all.len(), 10_004 + 4);
    }
}

#[tokio::test(start_paused = true)]
async fn p_6_2_frames_before_a_service_breaks_off_reach_the_visitor() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let frames: Vec<_> = (0..200)
        .map(|n| Frame::text(&n.to_string().repeat(20)))
        .collect();
    for _ in 0..10 {
        let (mut visitor, exchange) = entry.open_websocket(&mut incoming).await;
        send(&exchange, &frames).await;
        exchange
            .send
            .abort(ResetCode::ServiceAborted, "the service left within a frame");
        drop(exchange.recv);
        visitor.expect(&frames).await;
        assert_eq!(visitor.frame().await, None);
    }
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn p_6_2_frames_before_a_visitor_resets_reach_the_service() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let frames: Vec<_> = (0..200)
        .map(|n| Frame::text(&n.to_string().repeat(20)))
        .collect();
    let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    visitor.send(&frames).await;
    within(Socket::new(visitor.0).reset_after_delivery(Duration::from_secs(15))).await;
    expect(&mut exchange, &frames).await;
    let failure = frame(&mut exchange.recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Cancelled);
    drop(exchange);
    entry.settled().await;
}
