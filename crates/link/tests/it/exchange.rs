//! One request on two lanes: the effect of each handle, and the state after the last one is dropped.

use std::time::Duration;

use crate::support::{Drops, config, pair, pair_of, read, response, until};
use adit_codec::{HeaderBlock, ResetCode, Side};
use adit_link::{Exchange, Failure, Part, Reason, Retry};
use bytes::Bytes;

/// The numbers of completed, failed, cancelled and expired requests.
fn counts(lane: &adit_link::Lane) -> (u64, u64, u64, u64) {
    let stats = lane.stats().pending;
    (
        stats.completed,
        stats.failed,
        stats.cancelled,
        stats.expired,
    )
}

/// Waits for the failure of a request that has sent nothing.
async fn lost(exchange: &Exchange) -> Failure {
    loop {
        match exchange.send.ready().await {
            Ok(_) => tokio::task::yield_now().await,
            Err(failure) => return failure,
        }
    }
}

#[tokio::test]
async fn an_exchange_goes_both_ways_and_completes_on_both_ends() {
    let pair = pair();
    let (visitor, service) = pair.open(false).await;
    let Exchange { send, mut recv } = visitor;
    let body = Bytes::from(vec![7; 300_000]);
    let sent = body.clone();
    let upload = tokio::spawn(async move {
        send.send_all(sent, false).await.unwrap();
        send.finish_with(HeaderBlock::default()).unwrap();
    });
    response(&service, b"", false).unwrap();
    let Exchange {
        send,
        recv: mut request,
    } = service;
    let (responded, got) = read(&mut request).await.unwrap();
    assert!(!responded && got == body);
    let download = async move {
        send.send_all(got, true).await.unwrap();
        drop((send, request));
    };
    let ((), response) = tokio::join!(download, read(&mut recv));
    let (responded, got) = response.unwrap();
    assert!(responded && got == body);
    assert!(recv.is_ended());
    upload.await.unwrap();
    drop(recv);
    pair.settled().await;
    assert_eq!(counts(&pair.server.lane), (1, 0, 0, 0));
    assert_eq!(counts(&pair.client.lane), (1, 0, 0, 0));
}

#[tokio::test]
async fn either_end_may_open() {
    let pair = pair();
    let mut ours = pair.client.open(true, None).unwrap();
    let mut theirs = pair.server.accept().await;
    assert_eq!(ours.id().opener(), Side::Client);
    assert_eq!(read(&mut theirs.recv).await.unwrap(), (false, Bytes::new()));
    response(&theirs, b"hello", true).unwrap();
    drop(theirs);
    let (responded, body) = read(&mut ours.recv).await.unwrap();
    assert!(responded);
    assert_eq!(body, "hello");
    drop(ours);
    pair.settled().await;
    assert_eq!(counts(&pair.server.lane), (1, 0, 0, 0));
    assert_eq!(counts(&pair.client.lane), (1, 0, 0, 0));
}

/// P-8.3: a canceller neither keeps a request open nor changes one that is over.
#[tokio::test]
async fn a_request_may_be_ended_from_elsewhere() {
    let pair = pair();
    let (mut visitor, service) = pair.open(true).await;
    assert!(service.recv.is_complete() && !visitor.recv.is_complete());
    let canceller = visitor.recv.canceller();
    // Payload that waits to be written keeps the request open; the canceller does not wait for it.
    response(&service, b"part", false).unwrap();
    assert!(matches!(
        visitor.recv.part().await,
        Some(Ok(Part::Response(_)))
    ));
    let kept = visitor.recv.part().await;
    let failed = std::future::poll_fn(|cx| visitor.recv.poll_failure(cx));
    let cancel = async { canceller.reset(ResetCode::Cancelled, "too late") };
    let (failure, ()) = tokio::join!(failed, cancel);
    assert_eq!(failure.reason, Reason::Cancelled);
    assert_eq!(lost(&service).await.detail, "too late");
    drop((visitor, service, kept));
    pair.settled().await;
    canceller.reset(ResetCode::Cancelled, "much too late");
    let (mut visitor, service) = pair.open(true).await;
    let canceller = visitor.recv.canceller();
    response(&service, b"", true).unwrap();
    read(&mut visitor.recv).await.unwrap();
    assert!(visitor.recv.is_complete());
    canceller.reset(ResetCode::Cancelled, "too late");
    drop((visitor, service));
    pair.settled().await;
    assert_eq!(counts(&pair.server.lane), (1, 0, 1, 0));
}

/// P-6.2: a visitor that leaves cancels its request at both ends. Regression: such requests were counted as failures.
#[tokio::test]
async fn a_visitor_that_leaves_cancels_on_both_ends() {
    let pair = pair();
    let (visitor, mut service) = pair.open(true).await;
    drop(visitor);
    assert_eq!(
        read(&mut service.recv).await.unwrap(),
        (false, Bytes::new())
    );
    assert_eq!(lost(&service).await.reason, Reason::Cancelled);
    drop(service);
    // The visitor drops only its sending half.
    let (visitor, service) = pair.open(false).await;
    drop(visitor.send);
    let mut service = service;
    assert_eq!(
        service.recv.part().await.unwrap().unwrap_err().reason,
        Reason::Cancelled
    );
    drop((visitor.recv, service));
    pair.settled().await;
    assert_eq!(counts(&pair.server.lane), (0, 0, 2, 0));
    assert_eq!(counts(&pair.client.lane), (0, 0, 2, 0));
}

#[tokio::test]
async fn a_dropped_request_is_cancelled_at_its_opener() {
    let pair = pair();
    let (mut visitor, service) = pair.open(true).await;
    drop(service);
    let failure = visitor.recv.part().await.unwrap().unwrap_err();
    assert_eq!(failure.reason, Reason::Cancelled);
    drop(visitor);
    pair.settled().await;
}

#[tokio::test]
async fn a_reset_has_its_reason_at_the_other_end() {
    let pair = pair();
    let (mut visitor, service) = pair.open(true).await;
    service.send.reset(ResetCode::DialFailed, "no\nway");
    let failure = visitor.recv.part().await.unwrap().unwrap_err();
    let reported = (failure.reason, &failure.detail[..]);
    assert_eq!(reported, (Reason::DialFailed, "no\\nway"), "escaped");
    assert_eq!(visitor.send.ready().await.unwrap_err(), failure);
    drop((visitor, service.recv));
    pair.settled().await;
    assert_eq!(counts(&pair.server.lane), (0, 1, 0, 0));
    assert_eq!(counts(&pair.client.lane), (0, 0, 1, 0));
}

/// P-3.6. Regression: the response was complete and its service had left; the reset that cancelled the request dropped
/// the part of the response that had not been sent yet.
#[tokio::test]
async fn a_response_complete_before_its_request_is_delivered() {
    let pair = pair();
    let (visitor, service) = pair.open(false).await;
    let body = Bytes::from(vec![3; 30_000]);
    response(&service, b"", false).unwrap();
    service.send.send_all(body.clone(), true).await.unwrap();
    drop(service);
    let Exchange { send, mut recv } = visitor;
    let (responded, got) = read(&mut recv).await.unwrap();
    assert!(responded && got == body);
    // The service receives a `StopSending`, and nothing else.
    until(|| send.stopped().is_some()).await;
    assert_eq!(send.ready().await.unwrap_err().reason, Reason::Cancelled);
    drop((send, recv));
    pair.settled().await;
    assert_eq!(counts(&pair.server.lane), (1, 0, 0, 0));
    assert_eq!(counts(&pair.client.lane), (1, 0, 0, 0));
}

/// P-6.1: one direction ends, the other is not affected.
#[tokio::test]
async fn stopping_one_direction_leaves_the_other() {
    let pair = pair();
    let (visitor, service) = pair.open(false).await;
    let Exchange { send, mut recv } = visitor;
    let upload = tokio::spawn(async move {
        let failure = send
            .send_all(Bytes::from(vec![0; 1 << 20]), true)
            .await
            .unwrap_err();
        (failure.reason, send.stopped())
    });
    service.recv.stop(ResetCode::Limit);
    let (reason, code) = upload.await.unwrap();
    assert_eq!((reason, code), (Reason::Cancelled, Some(ResetCode::Limit)));
    let head = adit_codec::HttpResponseHead { status: 413 };
    let head = head.encode(std::iter::empty(), b"too long").unwrap();
    service.send.respond(head, true).unwrap();
    assert_eq!(read(&mut recv).await.unwrap().1, "too long");
    drop((service.send, recv));
    pair.settled().await;
    assert_eq!(counts(&pair.server.lane), (1, 0, 0, 0));
}

/// Regression: when an opener had stopped the response, the request stayed in its mux until the peer ended it; a peer
/// that never does could fill the memory.
#[tokio::test]
async fn an_opener_that_gives_up_the_response_leaves_no_request() {
    let pair = pair();
    let (visitor, service) = pair.open(false).await;
    drop(visitor.recv);
    visitor.send.finish().unwrap();
    drop(visitor.send);
    // The other end does nothing.
    pair.server.settled().await;
    assert_eq!(counts(&pair.server.lane), (0, 0, 1, 0));
    drop(service);
    pair.settled().await;
}

/// P-4.5: payload that is dropped unread counts as consumed.
#[tokio::test]
async fn credit_returns_for_payload_dropped_unread() {
    let pair = pair();
    let (visitor, mut service) = pair.open(false).await;
    let send = visitor.send;
    let upload = tokio::spawn(async move {
        // Empty messages cost credit, which returns as well.
        for _ in 0..5000 {
            send.send_all(Bytes::from_static(b"x"), false)
                .await
                .unwrap();
        }
        send.send_all(Bytes::from(vec![0; 1 << 20]), true).await
    });
    while let Some(part) = service.recv.part().await {
        drop(part.unwrap());
    }
    upload.await.unwrap().unwrap();
    response(&service, b"", true).unwrap();
    drop(service);
    let mut recv = visitor.recv;
    read(&mut recv).await.unwrap();
    drop(recv);
    pair.settled().await;
}

/// P-4.2, P-4.5: a receiver that consumes nothing receives one window and no more.
#[tokio::test(start_paused = true)]
async fn a_sender_waits_while_payload_is_not_consumed() {
    let pair = pair();
    let (visitor, mut service) = pair.open(false).await;
    let send = visitor.send;
    let upload = tokio::spawn(async move {
        send.send_all(Bytes::from(vec![0; 100_000]), true)
            .await
            .unwrap();
    });
    until(|| pair.client.lane.stats().waiting_bytes > 0).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let waiting = pair.client.lane.stats().waiting_bytes;
    assert!(waiting <= 32 * 1024, "{waiting}");
    assert!(!upload.is_finished());
    // The payload is taken but not written yet: the sender still waits.
    let part = service.recv.part().await.unwrap().unwrap();
    assert_eq!(pair.client.lane.stats().waiting_bytes, waiting);
    drop(part);
    assert!(pair.client.lane.stats().waiting_bytes < waiting);
    read(&mut service.recv).await.unwrap();
    upload.await.unwrap();
    drop((service, visitor.recv));
    pair.settled().await;
}

#[tokio::test]
async fn a_payload_keeps_held_resources_beyond_its_handles() {
    let pair = pair();
    let drops = Drops::default();
    let (visitor, service) = pair.open(true).await;
    visitor.hold(drops.held());
    response(&service, b"body", true).unwrap();
    drop(service.send);
    let Exchange { send, mut recv } = visitor;
    assert!(matches!(recv.part().await, Some(Ok(Part::Response(_)))));
    let Some(Ok(Part::Data(payload))) = recv.part().await else {
        panic!("no body");
    };
    drop((send, recv));
    assert_eq!(drops.count(), 0, "it is still being written");
    assert_eq!(pair.server.lane.open_requests(), 1);
    assert_eq!(payload.bytes(), "body");
    drop(payload);
    assert_eq!(drops.count(), 1);
    drop(service.recv);
    pair.settled().await;
    assert_eq!(counts(&pair.server.lane), (1, 0, 0, 0));
}

#[tokio::test]
async fn a_failed_request_releases_held_resources_at_once() {
    let pair = pair();
    let drops = Drops::default();
    let (visitor, service) = pair.open(true).await;
    visitor.hold(drops.held());
    visitor.hold(drops.held());
    assert_eq!(drops.count(), 1, "the second takes the place of the first");
    service.send.reset(ResetCode::Internal, "");
    until(|| drops.count() == 2).await;
    visitor.hold(drops.held());
    assert_eq!(drops.count(), 3, "it is over: nothing is held any more");
    drop((visitor, service.recv));
    assert_eq!(drops.count(), 3);
    pair.settled().await;
}

/// P-6.4: losing a lane fails each of its requests once, with the first failure.
#[tokio::test]
async fn losing_a_lane_fails_each_of_its_requests_once() {
    let pair = pair();
    let drops = Drops::default();
    let mut open = Vec::new();
    for _ in 0..3 {
        let (visitor, service) = pair.open(false).await;
        visitor.hold(drops.held());
        open.push((visitor, service));
    }
    let lost = Failure::new(Reason::LinkLost, "cut");
    pair.server.lane.close(&lost);
    pair.server
        .lane
        .close(&Failure::new(Reason::Internal, "too late"));
    assert_eq!(drops.count(), 3);
    assert_eq!(pair.server.lane.closed(), Some(lost.clone()));
    assert!(pair.server.lane.is_closed());
    assert_eq!(pair.server.lane.wait_closed().await, lost);
    let refused = pair.server.open(true, None).unwrap_err();
    assert_eq!(refused.retry(), Retry::Always);
    for (visitor, service) in &mut open {
        assert_eq!(visitor.recv.part().await.unwrap().unwrap_err(), lost);
        assert_eq!(visitor.send.ready().await.unwrap_err(), lost);
        // The other end detects the end of the stream.
        let failure = service.recv.part().await.unwrap().unwrap_err();
        assert_eq!(failure.reason, Reason::LinkLost);
    }
    drop(open);
    assert_eq!(counts(&pair.server.lane), (0, 3, 0, 0));
    assert_eq!(counts(&pair.client.lane), (0, 3, 0, 0));
    assert_eq!(drops.count(), 3);
}

/// Regression: a lane without a reader continued to accept requests whose responses could not have been read.
#[tokio::test]
async fn a_lane_ends_with_its_reader_or_its_writer() {
    let pair = pair();
    drop(pair.open(true).await);
    pair.server.reads.abort();
    assert_eq!(
        pair.server.lane.wait_closed().await.reason,
        Reason::LinkLost
    );
    assert_eq!(
        pair.client.lane.wait_closed().await.reason,
        Reason::LinkLost
    );

    let pair = crate::support::pair();
    pair.server.writes.abort();
    assert_eq!(
        pair.server.lane.wait_closed().await.reason,
        Reason::LinkLost
    );
    assert_eq!(
        pair.client.lane.wait_closed().await.reason,
        Reason::LinkLost
    );
    assert!(pair.server.open(true, None).is_err());
}

/// P-6.3: another client may have a free slot.
#[tokio::test]
async fn a_full_lane_refuses_with_a_retryable_failure() {
    let mut full = config(Side::Server);
    full.max_entries = 1;
    let pair = pair_of(full, config(Side::Client));
    let (visitor, service) = pair.open(true).await;
    let refused = pair.server.open(true, None).unwrap_err();
    assert_eq!(
        (refused.reason, refused.retry()),
        (Reason::Refused, Retry::Always)
    );
    drop((visitor, service));
    pair.settled().await;
    assert!(pair.server.open(true, None).is_ok());

    let mut full = config(Side::Client);
    full.max_entries = 1;
    let pair = pair_of(config(Side::Server), full);
    let (visitor, service) = pair.open(true).await;
    let mut second = pair.server.open(true, None).unwrap();
    let failure = second.recv.part().await.unwrap().unwrap_err();
    assert_eq!(
        (failure.reason, failure.retry()),
        (Reason::Refused, Retry::Always)
    );
    drop((visitor, service, second));
    pair.settled().await;
}

/// P-2.7: invalid bytes end the stream, and its requests with it; nothing panics.
#[tokio::test]
async fn lost_framing_ends_the_lane() {
    let lane = adit_link::Lane::new(
        config(Side::Server),
        adit_flow::Budget::new(0),
        std::sync::Arc::new(crate::support::Inbound(
            tokio::sync::mpsc::unbounded_channel().0,
        )),
    );
    let (sender, source) = tokio::sync::mpsc::channel(1);
    let mut request = crate::support::open_on(&lane, true, None).unwrap();
    sender.send(Bytes::from_static(&[0xff; 64])).await.unwrap();
    let failure = adit_link::drive(&lane, crate::support::Pipe(source)).await;
    assert_eq!(failure.reason, Reason::ProtocolError);
    assert_eq!(request.recv.part().await.unwrap().unwrap_err(), failure);
}

/// Many requests end in every possible way, in random order: no state of them remains.
#[tokio::test]
async fn nothing_is_left_however_requests_end() {
    let pair = pair();
    let mut dice = 0x2545_f491_4f6c_dd1d_u64;
    let mut roll = move |sides: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % sides
    };
    let mut tasks = Vec::new();
    for _ in 0..400 {
        let (visitor, service) = pair.open(false).await;
        let (ours, theirs) = (roll(6), roll(7));
        let size = usize::try_from(roll(100_000)).unwrap();
        tasks.push(tokio::spawn(async move {
            let Exchange { send, mut recv } = visitor;
            match ours {
                0 => drop((recv, send)),
                1 => drop((send, recv)),
                2 => {
                    drop(recv);
                    let _ = send.send_all(Bytes::from(vec![1; size]), true).await;
                }
                3 => {
                    let _ = send.send_all(Bytes::from(vec![1; size]), true).await;
                    drop(recv.part().await);
                }
                4 => {
                    let _ = send.finish();
                    let _ = read(&mut recv).await;
                    send.reset(ResetCode::Cancelled, "");
                }
                _ => {
                    let reads = async { drop(read(&mut recv).await) };
                    let sends =
                        async { drop(send.send_all(Bytes::from(vec![1; size]), true).await) };
                    tokio::join!(reads, sends);
                }
            }
        }));
        tasks.push(tokio::spawn(async move {
            let mut service = service;
            match theirs {
                0 => drop(service),
                1 => service.send.reset(ResetCode::ServiceAborted, ""),
                2 => {
                    let _ = response(&service, b"early", true);
                }
                3 => {
                    let _ = response(&service, b"", false);
                    service.recv.stop(ResetCode::Cancelled);
                    let _ = service
                        .send
                        .send_all(Bytes::from(vec![2; size]), true)
                        .await;
                }
                4 => {
                    let kept = service.recv.part().await;
                    let _ = response(&service, b"", true);
                    drop(service);
                    tokio::task::yield_now().await;
                    drop(kept);
                }
                _ => {
                    let _ = read(&mut service.recv).await;
                    let _ = response(&service, b"", false);
                    let _ = service
                        .send
                        .send_all(Bytes::from(vec![2; size]), true)
                        .await;
                }
            }
        }));
    }
    let all = async {
        for task in tasks {
            task.await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all)
        .await
        .expect("somebody waits for ever");
    pair.settled().await;
    for lane in [&pair.server.lane, &pair.client.lane] {
        let stats = lane.stats().pending;
        assert_eq!(stats.inserted, 400);
        assert_eq!(stats.completed + stats.failed + stats.cancelled, 400);
        assert!(!lane.is_closed());
    }
}

#[tokio::test]
async fn the_failure_of_a_direction_has_its_reason() {
    let pair = pair();
    // A completed direction has no failure.
    let (visitor, service) = pair.open(true).await;
    response(&service, b"", true).unwrap();
    assert_eq!(service.send.failure(), None);
    drop((visitor, service));
    // The peer stops the direction.
    let (visitor, service) = pair.open(true).await;
    response(&service, b"", false).unwrap();
    visitor.recv.stop(ResetCode::Cancelled);
    until(|| service.send.failure().is_some()).await;
    let stopped = service.send.failure().unwrap();
    assert_eq!(stopped.reason, Reason::Cancelled);
    drop((visitor.send, service));
    // The peer resets the request.
    let (visitor, service) = pair.open(true).await;
    visitor.send.reset(ResetCode::ServiceTimeout, "late");
    until(|| service.send.failure().is_some()).await;
    let failure = service.send.failure().unwrap();
    assert_eq!(failure, service.send.ready().await.unwrap_err());
    assert_eq!(failure.reason, Reason::ServiceTimeout);
    drop((visitor.recv, service));
    pair.settled().await;
}

/// A service that has sent this many bytes and aborted; returns its visitor.
async fn broken_off(pair: &crate::support::Pair, bytes: usize) -> Exchange {
    let (visitor, service) = pair.open(false).await;
    response(&service, b"", false).unwrap();
    let Exchange { send, recv } = service;
    send.send_all(Bytes::from(vec![7; bytes]), false)
        .await
        .unwrap();
    send.abort(ResetCode::ServiceAborted, "closed early");
    drop(recv);
    visitor
}

#[tokio::test]
async fn p_6_2_an_abort_comes_behind_the_payload_before_it() {
    let pair = pair();
    let mut visitor = broken_off(&pair, 20_000).await;
    // This direction is over, whether the other one has been read or not.
    visitor.send.closed().await;
    let mut got = 0;
    let failure = loop {
        match visitor.recv.part().await.unwrap() {
            Ok(Part::Data(payload)) => got += payload.bytes().len(),
            Ok(_) => {}
            Err(failure) => break failure,
        }
    };
    assert_eq!((got, failure.reason), (20_000, Reason::ServiceAborted));
    assert!(visitor.recv.is_aborted() && !visitor.recv.is_ended());
    assert!(matches!(visitor.recv.part().await, Some(Err(again)) if again == failure));
    std::future::poll_fn(|cx| visitor.recv.poll_delivered(cx)).await;
    drop(visitor);
    pair.settled().await;
    assert_eq!(counts(&pair.server.lane), (0, 1, 0, 0));
    assert_eq!(counts(&pair.client.lane), (0, 0, 1, 0));
}

#[tokio::test]
async fn p_6_2_an_unread_abort_leaves_no_request() {
    let pair = pair();
    for half in 0..3 {
        let Exchange { send, recv } = broken_off(&pair, 20_000).await;
        send.closed().await;
        match half {
            0 => drop((send, recv)),
            1 => {
                drop(recv);
                drop(send);
            }
            _ => recv.stop(ResetCode::Cancelled),
        }
    }
    pair.settled().await;
}

/// The task may never read the failure, for example when a visitor grants its stream no window.
#[tokio::test]
async fn p_6_2_held_resources_are_released_after_delivery_before_an_abort() {
    let pair = pair();
    let (mut visitor, service) = pair.open(false).await;
    let drops = Drops::default();
    visitor.hold(drops.held());
    response(&service, b"part", false).unwrap();
    service.send.abort(ResetCode::ServiceAborted, "");
    drop(service.recv);
    assert!(matches!(
        visitor.recv.part().await,
        Some(Ok(Part::Response(_)))
    ));
    let payload = visitor.recv.part().await;
    visitor.send.closed().await;
    assert_eq!(drops.count(), 0, "it is on its way to the visitor");
    drop(payload);
    assert_eq!(drops.count(), 1);
    drop(visitor);
    pair.settled().await;
}
