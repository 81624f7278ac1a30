//! Peers that read nothing, send nothing, or send too much at once.

use std::time::Duration;

use adit_ingress::HttpConfig;
use adit_link::{Part, Reason};
use adit_testlink::{
    HttpEntry, http1, next_part,
    tcp::reset,
    websocket::{Frame, expect, frame, send},
    within,
};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::websocket::short;

/// A longer bound, for tests that transfer many megabytes.
async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), work)
        .await
        .expect("it hangs")
}

#[tokio::test(start_paused = true)]
async fn p_9_5_a_visitor_that_reads_nothing_stops_its_own_frames() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (stalled, exchange) = entry.open_websocket(&mut incoming).await;
    let (mut other, mut other_exchange) = entry.open_websocket(&mut incoming).await;
    let length = 64 << 20;
    let head = Frame::new(2, "").head;
    let head = adit_codec::WebSocketFrame { length, ..head };
    exchange.send.send_frame(head, Bytes::new()).unwrap();
    // Send until no more bytes are accepted.
    let chunk = Bytes::from(vec![7; 64 * 1024]);
    let mut sent = 0;
    while let Ok(allowed) =
        tokio::time::timeout(Duration::from_millis(500), exchange.send.ready()).await
    {
        let part = chunk.slice(..allowed.unwrap().min(chunk.len()));
        sent += part.len() as u64;
        exchange.send.send(part, false).unwrap();
    }
    assert!(sent < length, "it was stopped");
    let stats = entry.links[0].near.stats();
    assert!(
        stats.waiting_bytes <= 4 << 20,
        "within its window: {stats:?}"
    );
    for _ in 0..100 {
        other.send(&[Frame::text("ping")]).await;
        expect(&mut other_exchange, &[Frame::text("ping")]).await;
        send(&other_exchange, &[Frame::text("pong")]).await;
        other.expect(&[Frame::text("pong")]).await;
    }
    // The stalled visitor continues to read, and no byte is lost.
    let (mut read, _write) = tokio::io::split(stalled.0);
    let reading = tokio::spawn(async move {
        let mut left = length + 10;
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            left -= read.read(&mut buffer).await.unwrap() as u64;
        }
    });
    let rest = async {
        while sent < length {
            let allowed = exchange.send.ready().await.unwrap() as u64;
            let part = allowed.min(length - sent).min(chunk.len() as u64);
            sent += part;
            exchange
                .send
                .send(chunk.slice(..usize::try_from(part).unwrap()), false)
                .unwrap();
        }
    };
    patiently(rest).await;
    patiently(reading).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn p_9_5_a_service_that_reads_nothing_stops_its_own_visitor() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (stalled, mut exchange) = entry.open_websocket(&mut incoming).await;
    let (mut other, mut other_exchange) = entry.open_websocket(&mut incoming).await;
    let frame = Frame::new(2, vec![7; 32 << 20]);
    let (_read, mut write) = tokio::io::split(stalled.0);
    let bytes = frame.masked();
    let mut sending = tokio::spawn(async move {
        write.write_all(&bytes).await.unwrap();
        write
    });
    let stuck = tokio::time::timeout(Duration::from_millis(500), &mut sending).await;
    assert!(stuck.is_err(), "it was stopped");
    let waiting = entry.links[0].far.stats().waiting_bytes;
    assert!(waiting <= 40 * 1024, "within its first window: {waiting}");
    for _ in 0..100 {
        other.send(&[Frame::text("ping")]).await;
        expect(&mut other_exchange, &[Frame::text("ping")]).await;
    }
    expect(&mut exchange, &[frame]).await;
    drop(sending.await.unwrap());
}

/// A WebSocket may be silent for days: no timeout of HTTP applies to it.
#[tokio::test(start_paused = true)]
async fn a_silent_websocket_stays_open() {
    let moment = Duration::from_millis(40);
    let (entry, mut incoming) = HttpEntry::scripted(HttpConfig {
        head_timeout: moment,
        idle_timeout: moment,
        stall_timeout: moment,
        service_timeout: moment,
        half_close_timeout: moment,
        close_timeout: moment,
        ..short()
    });
    let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    for _ in 0..3 {
        tokio::time::sleep(moment * 4).await;
        visitor.send(&[Frame::text("still here")]).await;
        expect(&mut exchange, &[Frame::text("still here")]).await;
        // The visitor pauses within a frame.
        http1::send(&mut visitor.0, &[0x82, 0x82, 0, 0, 0, 0, b'h']).await;
        tokio::time::sleep(moment * 4).await;
        http1::send(&mut visitor.0, b"i").await;
        expect(&mut exchange, &[Frame::new(2, "hi")]).await;
        send(&exchange, &[Frame::new(9, "")]).await;
        visitor.expect(&[Frame::new(9, "")]).await;
    }
}

#[tokio::test]
async fn a_visitor_that_reads_nothing_for_session_stall_is_reset() {
    let (entry, mut incoming) = HttpEntry::scripted(HttpConfig {
        session_stall: Duration::from_millis(300),
        ..short()
    });
    let (_visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    let chunk = Bytes::from(vec![7; 64 * 1024]);
    let head = adit_codec::WebSocketFrame {
        length: 1 << 40,
        ..Frame::new(2, "").head
    };
    exchange.send.send_frame(head, Bytes::new()).unwrap();
    let failure = loop {
        match within(exchange.send.ready()).await {
            Ok(allowed) => {
                let part = chunk.slice(..allowed.min(chunk.len()));
                if let Err(failure) = exchange.send.send(part, false) {
                    break failure;
                }
            }
            Err(failure) => break failure,
        }
    };
    assert!(
        matches!(failure.reason, Reason::Cancelled | Reason::Stalled),
        "{failure}"
    );
    assert!(frame(&mut exchange.recv).await.is_err());
    drop(exchange);
    entry.settled().await;
    let stats = entry.stats();
    assert_eq!(stats.failures.of(Reason::Stalled), 1, "{stats:?}");
}

/// 64 MiB in each direction, in one frame, through buffers that are much smaller.
#[tokio::test(start_paused = true)]
async fn a_large_message_is_streamed() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    let length: usize = 64 << 20;
    let head = adit_codec::WebSocketFrame {
        length: length as u64,
        ..Frame::new(2, "").head
    };
    let (mut read, mut write) = tokio::io::split(visitor.0);
    let sending = tokio::spawn(async move {
        let wire = [&[0x82, 0xff][..], &(length as u64).to_be_bytes(), &[0; 4]].concat();
        write.write_all(&wire).await.unwrap();
        let piece = vec![3; 1 << 20];
        for _ in 0..64 {
            write.write_all(&piece).await.unwrap();
        }
        write
    });
    let lane = entry.links[0].near.clone();
    let far = entry.links[0].far.clone();
    let mut got = 0;
    let mut highest = 0;
    while got < length {
        match next_part(&mut exchange.recv).await {
            Some(Ok(Part::Frame(frame, payload))) => {
                assert_eq!(frame, head);
                got += payload.bytes().len();
            }
            Some(Ok(Part::Data(payload))) => got += payload.bytes().len(),
            other => panic!("{other:?}"),
        }
        highest = highest
            .max(far.stats().waiting_bytes)
            .max(lane.stats().mux.queued);
    }
    assert!(highest <= 5 << 20, "{highest}");
    let _write = sending.await.unwrap();

    let reading = tokio::spawn(async move {
        let mut left = length + 10;
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            left -= read.read(&mut buffer).await.unwrap();
        }
    });
    exchange.send.send_frame(head, Bytes::new()).unwrap();
    let piece = Bytes::from(vec![4; 1 << 20]);
    for _ in 0..64 {
        within(exchange.send.send_all(piece.clone(), false))
            .await
            .unwrap();
        assert!(lane.stats().waiting_bytes <= 4 << 20);
    }
    patiently(reading).await.unwrap();
}

/// More than the credit, and less than the socket can hold, so that a FIN arrives after the bytes.
fn unread() -> Vec<u8> {
    Frame::new(2, vec![7; 90 * 1024]).masked()
}

#[tokio::test(start_paused = true)]
async fn visitor_gone_is_released_while_service_reads_nothing() {
    for is_reset in [false, true] {
        let (entry, mut incoming) = HttpEntry::scripted(short());
        let (mut visitor, exchange) = entry.open_websocket(&mut incoming).await;
        http1::send(&mut visitor.0, &unread()).await;
        if is_reset {
            reset(visitor.0);
        } else {
            drop(visitor);
        }
        within(exchange.send.closed()).await;
        drop(exchange);
        entry.settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_before_a_fin_reach_a_slow_service() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let (mut visitor, mut exchange) = entry.open_websocket(&mut incoming).await;
    http1::send(&mut visitor.0, &unread()).await;
    drop(visitor);
    let mut left = 90 * 1024;
    while left > 0 {
        match next_part(&mut exchange.recv).await {
            Some(Ok(Part::Frame(_, payload) | Part::Data(payload))) => {
                left -= payload.bytes().len();
            }
            other => panic!("{left} bytes are missing: {other:?}"),
        }
        // The socket is checked several times before all of it has been read.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
