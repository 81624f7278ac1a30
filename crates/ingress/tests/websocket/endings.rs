//! How WebSockets end: with close frames, without, and by going away (P-9.6).

use std::time::{Duration, Instant};

use adit_codec::ResetCode;
use adit_ingress::HttpConfig;
use adit_link::{Failure, Reason};
use adit_splice::tcp::Socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    setting::{Frame, Setting, frame, gets, send, short},
    world::within,
};

#[tokio::test]
async fn p_9_6_both_close_frames_cross_and_then_all_is_over() {
    let mut setting = Setting::new().await;
    for (code, back) in [(1000, 1000), (1001, 1000), (4999, 3000)] {
        for visitor_first in [true, false] {
            let (mut visitor, mut exchange) = setting.open().await;
            let (there, and_back) = ([Frame::close(code)], [Frame::close(back)]);
            if visitor_first {
                visitor.send(&there).await;
                gets(&mut exchange, &there).await;
                // What the other has to say comes first.
                send(&exchange, &[Frame::text("last words")]).await;
                send(&exchange, &and_back).await;
                visitor.gets(&[Frame::text("last words")]).await;
                visitor.gets(&and_back).await;
            } else {
                send(&exchange, &there).await;
                visitor.gets(&there).await;
                visitor.send(&[Frame::text("last words")]).await;
                visitor.send(&and_back).await;
                gets(&mut exchange, &[Frame::text("last words")]).await;
                gets(&mut exchange, &and_back).await;
            }
            assert_eq!(
                frame(&mut exchange.recv).await.unwrap(),
                None,
                "a clean end"
            );
            exchange.send.finish().unwrap();
            visitor.is_over().await;
            drop((visitor, exchange));
            setting.world.settle().await;
        }
    }
    let failed: u64 = setting.world.http.stats().failures.iter().sum();
    assert_eq!(failed, 0);
    let pending = setting.world.links[0].lane.stats().pending;
    assert_eq!((pending.cancelled, pending.failed), (0, 0), "{pending:?}");
}

#[tokio::test]
async fn p_9_6_a_close_frame_with_a_reason_crosses_with_it() {
    let mut setting = Setting::new().await;
    let (mut visitor, mut exchange) = setting.open().await;
    let close = Frame::new(8, b"\x03\xe9going away, for reasons");
    visitor.send(std::slice::from_ref(&close)).await;
    gets(&mut exchange, std::slice::from_ref(&close)).await;
    send(&exchange, std::slice::from_ref(&close)).await;
    visitor.gets(&[close]).await;
}

#[tokio::test]
async fn nothing_of_the_service_follows_its_close_frame() {
    let mut setting = Setting::new().await;
    let (mut visitor, mut exchange) = setting.open().await;
    send(&exchange, &[Frame::close(1000), Frame::text("too late")]).await;
    visitor.gets(&[Frame::close(1000)]).await;
    visitor.send(&[Frame::close(1000)]).await;
    gets(&mut exchange, &[Frame::close(1000)]).await;
    exchange.send.finish().unwrap();
    visitor.is_over().await;
}

/// RFC 6455, 7.1.1. What was said before is heard.
#[tokio::test]
async fn p_9_6_a_visitor_that_leaves_without_a_word_is_an_end_without_a_close_frame() {
    let mut setting = Setting::new().await;
    let (mut visitor, mut exchange) = setting.open().await;
    let said: Vec<_> = (0..100).map(|n| Frame::text(&n.to_string())).collect();
    visitor.send(&said).await;
    drop(visitor);
    gets(&mut exchange, &said).await;
    assert_eq!(frame(&mut exchange.recv).await.unwrap(), None);
    exchange.send.finish().unwrap();
    drop(exchange);
    setting.world.settle().await;
    assert_eq!(setting.world.http.stats().failed(Reason::Cancelled), 1);
}

#[tokio::test]
async fn p_9_6_a_visitor_that_leaves_within_a_frame_or_breaks_off_is_a_reset() {
    let mut setting = Setting::new().await;
    let (mut visitor, mut exchange) = setting.open().await;
    visitor.send_bytes(&[0x82, 0x85, 0, 0, 0, 0, b'h']).await;
    let part = within(exchange.recv.part()).await;
    assert!(matches!(part, Some(Ok(adit_link::Part::Frame(..)))));
    drop((visitor, part));
    let part = within(exchange.recv.part()).await;
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

    let (visitor, mut exchange) = setting.open().await;
    socket2::SockRef::from(&visitor.0)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(visitor);
    let failure = frame(&mut exchange.recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Cancelled);
    drop(exchange);
    setting.world.settle().await;
    assert_eq!(setting.world.http.stats().failed(Reason::Cancelled), 2);
}

#[tokio::test]
async fn p_9_6_a_service_that_is_lost_ends_the_connection_without_a_close_frame() {
    let mut setting = Setting::new().await;
    // Between two frames: all that it had said is heard.
    let (mut visitor, mut exchange) = setting.open().await;
    send(&exchange, &[Frame::text("last words")]).await;
    exchange.send.finish().unwrap();
    visitor.gets(&[Frame::text("last words")]).await;
    visitor.is_over().await;
    assert_eq!(frame(&mut exchange.recv).await.unwrap(), None);
    drop(exchange);
    // By a reset, between frames and within one.
    for within_a_frame in [false, true] {
        let (mut visitor, exchange) = setting.open().await;
        if within_a_frame {
            let head = Frame::new(2, [7; 100]).head();
            exchange.send.send_frame(head, vec![7; 10].into()).unwrap();
            let mut start = [0; 12];
            within(visitor.0.read_exact(&mut start)).await.unwrap();
        }
        exchange.send.reset(ResetCode::ServiceAborted, "gone");
        visitor.is_over().await;
    }
    setting.world.settle().await;
    assert_eq!(setting.world.http.stats().failed(Reason::ServiceAborted), 3);
}

#[tokio::test]
async fn p_6_4_a_lost_link_ends_the_connection_without_a_close_frame() {
    let mut setting = Setting::new().await;
    let (mut visitor, _exchange) = setting.open().await;
    let (mut other, _other) = setting.open().await;
    setting.world.links[0]
        .lane
        .close(&Failure::new(Reason::LinkLost, "cut"));
    visitor.is_over().await;
    other.is_over().await;
    setting.world.settle().await;
    assert_eq!(setting.world.http.stats().failed(Reason::LinkLost), 2);
}

#[tokio::test]
async fn p_9_6_an_entry_that_drains_says_1001_to_both() {
    let mut setting = Setting::new().await;
    let (mut visitor, mut exchange) = setting.open().await;
    // A frame is on its way in each direction: a close frame stands between two.
    let long = Frame::new(2, [7; 1000]);
    visitor.send_bytes(&long.masked()[..100]).await;
    let part = within(exchange.recv.part()).await;
    assert!(matches!(part, Some(Ok(adit_link::Part::Frame(..)))));
    drop(part);
    exchange
        .send
        .send_frame(long.head(), vec![7; 10].into())
        .unwrap();
    let mut start = [0; 14];
    within(visitor.0.read_exact(&mut start)).await.unwrap();

    setting.world.drain.send_replace(true);
    visitor.send_bytes(&long.masked()[100..]).await;
    exchange.send.send(vec![7; 990].into(), false).unwrap();
    let mut rest = [0; 990];
    within(visitor.0.read_exact(&mut rest)).await.unwrap();
    visitor.gets(&[Frame::close(1001)]).await;
    let mut bytes = 0;
    while bytes < 1000 - 92 {
        match within(exchange.recv.part()).await {
            Some(Ok(adit_link::Part::Data(data))) => bytes += data.bytes().len(),
            other => panic!("{other:?}"),
        }
    }
    gets(&mut exchange, &[Frame::close(1001)]).await;
    // Nothing crosses any more but the answers, which are for us.
    visitor
        .send(&[Frame::text("too late"), Frame::close(1001)])
        .await;
    send(&exchange, &[Frame::text("too late"), Frame::close(1001)]).await;
    assert_eq!(frame(&mut exchange.recv).await.unwrap(), None);
    exchange.send.finish().unwrap();
    visitor.is_over().await;
    drop((visitor, exchange));
    setting.world.settle().await;
    let failed: u64 = setting.world.http.stats().failures.iter().sum();
    assert_eq!(failed, 0);
}

#[tokio::test]
async fn p_9_6_who_does_not_answer_a_drain_is_not_waited_for() {
    let mut setting = Setting::with(HttpConfig {
        close_timeout: Duration::from_millis(200),
        ..short()
    })
    .await;
    let (mut visitor, mut exchange) = setting.open().await;
    // One that is silent, one that does not stop, one whose handshake comes too late.
    let (mut busy, _busy_exchange) = setting.open().await;
    let mut late = setting.world.connect().await;
    late.write_all(crate::setting::UPGRADE.as_bytes())
        .await
        .unwrap();
    let (_, late_exchange) = setting.asked().await;
    let began = Instant::now();
    setting.world.drain.send_replace(true);
    crate::setting::accept(&late_exchange, &[]);
    crate::world::read_until(&mut late, "\r\n\r\n").await;
    let mut late = crate::setting::Visitor(late);
    late.gets(&[Frame::close(1001)]).await;
    visitor.gets(&[Frame::close(1001)]).await;
    gets(&mut exchange, &[Frame::close(1001)]).await;
    busy.gets(&[Frame::close(1001)]).await;
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
        "it was waited"
    );
    visitor.is_over().await;
    assert!(frame(&mut exchange.recv).await.is_err());
    drop((exchange, late_exchange, _busy_exchange));
    setting.world.settle().await;
}

#[tokio::test]
async fn a_close_frame_that_nobody_answers_is_waited_for_while_both_are_there() {
    let mut setting = Setting::with(HttpConfig {
        close_timeout: Duration::from_millis(100),
        ..short()
    })
    .await;
    let (mut visitor, mut exchange) = setting.open().await;
    visitor.send(&[Frame::close(1000)]).await;
    gets(&mut exchange, &[Frame::close(1000)]).await;
    // RFC 6455, 5.5.1: an end may finish its message first.
    tokio::time::sleep(Duration::from_millis(300)).await;
    send(&exchange, &[Frame::text("still here")]).await;
    visitor.gets(&[Frame::text("still here")]).await;
    // When the visitor has gone the answer is not waited for without end.
    drop(visitor);
    assert!(frame(&mut exchange.recv).await.is_err());
    drop(exchange);
    setting.world.settle().await;
}

/// All of it that could be read has been acknowledged: no reset eats the last frame.
#[tokio::test]
async fn the_last_frame_is_not_eaten_by_what_the_visitor_sends_on() {
    let mut setting = Setting::new().await;
    for _ in 0..20 {
        let (visitor, mut exchange) = setting.open().await;
        let (mut read, mut write) = visitor.0.into_split();
        send(
            &exchange,
            &[Frame::new(2, vec![1; 10_000]), Frame::close(1000)],
        )
        .await;
        write.write_all(&Frame::close(1000).masked()).await.unwrap();
        gets(&mut exchange, &[Frame::close(1000)]).await;
        exchange.send.finish().unwrap();
        let _ = write.write_all(&[0; 100_000]).await;
        let mut all = Vec::new();
        within(read.read_to_end(&mut all)).await.unwrap();
        assert_eq!(all.len(), 10_004 + 4);
    }
}

#[tokio::test]
async fn p_6_2_frames_before_a_service_breaks_off_reach_the_visitor() {
    let mut setting = Setting::new().await;
    let said: Vec<_> = (0..200)
        .map(|n| Frame::text(&n.to_string().repeat(20)))
        .collect();
    for _ in 0..10 {
        let (mut visitor, exchange) = setting.open().await;
        send(&exchange, &said).await;
        exchange
            .send
            .abort(ResetCode::ServiceAborted, "the service left within a frame");
        drop(exchange.recv);
        visitor.gets(&said).await;
        visitor.is_over().await;
    }
    setting.world.settle().await;
}

#[tokio::test]
async fn p_6_2_frames_before_a_visitor_resets_reach_the_service() {
    let mut setting = Setting::new().await;
    let said: Vec<_> = (0..200)
        .map(|n| Frame::text(&n.to_string().repeat(20)))
        .collect();
    let (mut visitor, mut exchange) = setting.open().await;
    visitor.send(&said).await;
    within(Socket::new(visitor.0).reset_after_delivery(Duration::from_secs(15))).await;
    gets(&mut exchange, &said).await;
    let failure = frame(&mut exchange.recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Cancelled);
    drop(exchange);
    setting.world.settle().await;
}
