//! The timers of a lane, on paused time.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use crate::support::{Drops, Inbound, Pipe, config, pair, pair_of, read, response, until, write};
use adit_codec::Side;
use adit_flow::Budget;
use adit_link::{Exchange, Lane, Part, Reason, TransportError, TransportReader, drive};
use adit_proto::{Control, Heartbeat, control::Kind};
use bytes::{Bytes, BytesMut};
use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

const SECOND: Duration = Duration::from_secs(1);

/// A network that drops everything.
struct BlackHole;

impl TransportReader for BlackHole {
    fn poll_bytes(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        Poll::Pending
    }
}

fn lane() -> Arc<Lane> {
    let inbound = Arc::new(Inbound(mpsc::unbounded_channel().0));
    Lane::new(config(Side::Server), Budget::new(0), inbound)
}

/// The heartbeats in the bytes that a lane wrote: their sequence, and whether each is a reply.
fn heartbeats(written: &[u8]) -> Vec<(u64, bool)> {
    let mut decoder = adit_codec::Decoder::new();
    decoder.feed(Bytes::copy_from_slice(written));
    let mut found = Vec::new();
    while let Some(envelope) = decoder.next().unwrap() {
        if let adit_codec::Payload::Control(control) = envelope.payload
            && let Some(Kind::Heartbeat(beat)) = Control::decode(&control[..]).unwrap().kind
        {
            found.push((beat.sequence, beat.reply));
        }
    }
    found
}

/// P-6.5, F19: detected within 15 seconds, after a probe.
#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_probed_then_declared_dead() {
    let lane = lane();
    let (into, mut written) = mpsc::channel(64);
    tokio::spawn(write(lane.outbound(), into));
    let mut request = crate::support::open_on(&lane, true, None).unwrap();
    let start = Instant::now();
    let failure = drive(&lane, BlackHole).await;
    let took = start.elapsed();
    assert!(took >= 10 * SECOND && took <= 15 * SECOND, "{took:?}");
    assert_eq!(failure.reason, Reason::LinkLost);
    assert_eq!(request.recv.part().await.unwrap().unwrap_err(), failure);
    let mut all = BytesMut::new();
    while let Some(bytes) = written.recv().await {
        all.extend_from_slice(&bytes);
    }
    assert_eq!(heartbeats(&all), [(1, false), (2, false), (3, false)]);
}

/// P-6.5: heartbeats keep an idle link alive, and its requests wait for as long as it lives.
#[tokio::test(start_paused = true)]
async fn an_idle_pair_lives_and_its_requests_wait() {
    let pair = pair();
    let (mut visitor, service) = pair.open(true).await;
    sleep(3600 * SECOND).await;
    assert!(!pair.server.lane.is_closed() && !pair.client.lane.is_closed());
    response(&service, b"late", true).unwrap();
    assert_eq!(read(&mut visitor.recv).await.unwrap().1, "late");
    drop((visitor, service));
    pair.settled().await;
}

/// P-6.5: the reply has the same sequence and is sent once; a reply is not replied to.
#[tokio::test(start_paused = true)]
async fn a_heartbeat_reply_carries_the_same_number() {
    let lane = lane();
    let (into, mut written) = mpsc::channel(64);
    tokio::spawn(write(lane.outbound(), into));
    let (network, source) = mpsc::channel(8);
    let driven = lane.clone();
    tokio::spawn(async move { drive(&driven, Pipe(source)).await });
    for (sequence, reply) in [(77, false), (5, true), (78, false)] {
        let control = Control {
            kind: Some(Kind::Heartbeat(Heartbeat { sequence, reply })),
        };
        let mut out = BytesMut::new();
        adit_codec::write_control(&mut out, &control.encode_to_vec());
        network.send(out.freeze()).await.unwrap();
        sleep(SECOND).await;
    }
    let mut all = BytesMut::new();
    while let Ok(bytes) = written.try_recv() {
        all.extend_from_slice(&bytes);
    }
    assert_eq!(heartbeats(&all), [(77, true), (78, true)]);
}

/// P-6.5: replies are not queued.
#[tokio::test(start_paused = true)]
async fn of_many_heartbeats_at_once_the_newest_gets_a_reply() {
    let lane = lane();
    let (into, mut written) = mpsc::channel(64);
    tokio::spawn(write(lane.outbound(), into));
    let (network, source) = mpsc::channel(8);
    let driven = lane.clone();
    tokio::spawn(async move { drive(&driven, Pipe(source)).await });
    let mut out = BytesMut::new();
    // As many heartbeats as are handled in one turn.
    for sequence in 1..=64 {
        let control = Control {
            kind: Some(Kind::Heartbeat(Heartbeat {
                sequence,
                reply: false,
            })),
        };
        adit_codec::write_control(&mut out, &control.encode_to_vec());
    }
    network.send(out.freeze()).await.unwrap();
    sleep(SECOND).await;
    let mut all = BytesMut::new();
    while let Ok(bytes) = written.try_recv() {
        all.extend_from_slice(&bytes);
    }
    assert_eq!(heartbeats(&all), [(64, true)]);
}

/// P-1.8. Regression: a reply was not detected when other bytes had arrived since the last tick, and a client that
/// responded lost its name to another machine.
#[tokio::test(start_paused = true)]
async fn a_probe_succeeds_right_after_other_traffic() {
    let pair = pair();
    for _ in 0..50 {
        // Traffic right before the probe, at every distance from the ticks.
        let (mut visitor, service) = pair.open(true).await;
        response(&service, b"", true).unwrap();
        read(&mut visitor.recv).await.unwrap();
        drop((visitor, service));
        let start = Instant::now();
        assert!(pair.server.lane.probe(2 * SECOND).await);
        assert!(start.elapsed() < SECOND / 10, "{:?}", start.elapsed());
        sleep(Duration::from_millis(137)).await;
    }
    let (one, other) = tokio::join!(
        pair.server.lane.probe(2 * SECOND),
        pair.server.lane.probe(2 * SECOND)
    );
    assert!(one && other);
}

/// P-1.8.
#[tokio::test(start_paused = true)]
async fn a_probe_of_a_silent_peer_fails_in_time() {
    let silent = lane();
    let start = Instant::now();
    assert!(!silent.probe(2 * SECOND).await, "it is not driven");
    assert_eq!(start.elapsed(), 2 * SECOND);
    let driven = silent.clone();
    tokio::spawn(async move { drive(&driven, BlackHole).await });
    assert!(!silent.probe(2 * SECOND).await);
    silent.close(&adit_link::Failure::new(Reason::LinkLost, ""));
    let start = Instant::now();
    assert!(!silent.probe(2 * SECOND).await);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

/// Regression: each probe on request restarted the wait for a reply.
#[tokio::test(start_paused = true)]
async fn repeated_probes_do_not_keep_a_dead_link_alive() {
    let lane = lane();
    let driven = lane.clone();
    let driver = tokio::spawn(async move { drive(&driven, BlackHole).await });
    let start = Instant::now();
    while !lane.is_closed() {
        assert!(start.elapsed() <= 15 * SECOND);
        lane.probe(SECOND).await;
    }
    driver.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_late_response_fails_the_request_on_both_ends() {
    let pair = pair();
    let drops = Drops::default();
    let deadline = (Instant::now() + 5 * SECOND).into_std();
    let mut visitor = pair.server.open(true, Some(deadline)).unwrap();
    visitor.hold(drops.held());
    let service = pair.client.accept().await;
    // An interim response does not count.
    let interim = adit_codec::HttpResponseHead { status: 100 };
    let interim = interim.encode(std::iter::empty(), b"").unwrap();
    service.send.respond(interim, false).unwrap();
    assert!(matches!(
        visitor.recv.part().await,
        Some(Ok(Part::Response(_)))
    ));
    let start = Instant::now();
    let failure = visitor.recv.part().await.unwrap().unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceTimeout);
    assert!(start.elapsed() <= 6 * SECOND);
    assert_eq!(drops.count(), 1);
    until(|| service.send.stopped().is_some() || service.send.finish().is_err()).await;
    let failure = service.send.ready().await.unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceTimeout);
    drop((visitor, service));
    pair.settled().await;
    assert_eq!(pair.server.lane.stats().pending.expired, 1);
}

/// Regression: a response that was complete with its head did not lift the deadline, which then ended the rest of the
/// exchange.
#[tokio::test(start_paused = true)]
async fn a_response_in_time_lifts_the_deadline() {
    for whole in [false, true] {
        let pair = pair();
        let deadline = (Instant::now() + 5 * SECOND).into_std();
        let visitor = pair.server.open(false, Some(deadline)).unwrap();
        let service = pair.client.accept().await;
        response(&service, b"body", whole).unwrap();
        let Exchange { send, mut recv } = visitor;
        assert!(matches!(recv.part().await, Some(Ok(Part::Response(_)))));
        sleep(30 * SECOND).await;
        // Neither the upload nor the reading of the slow visitor is aborted.
        send.send_all(Bytes::from_static(b"upload"), true)
            .await
            .unwrap();
        let mut service = service;
        assert_eq!(read(&mut service.recv).await.unwrap().1, "upload");
        if !whole {
            service.send.finish().unwrap();
        }
        assert_eq!(read(&mut recv).await.unwrap().1, "body");
        drop((send, recv, service));
        pair.settled().await;
        assert_eq!(pair.server.lane.stats().pending.completed, 1);
    }
}

/// F12.
#[tokio::test(start_paused = true)]
async fn a_stalled_request_is_reset_and_holds_no_memory() {
    let pair = pair();
    let drops = Drops::default();
    let (visitor, service) = pair.open(true).await;
    visitor.hold(drops.held());
    response(&service, b"unread", false).unwrap();
    let start = Instant::now();
    until_hours(|| drops.count() == 1).await;
    let took = start.elapsed();
    assert!(took >= 60 * SECOND && took <= 65 * SECOND, "{took:?}");
    let Exchange { send, mut recv } = visitor;
    let failure = recv.part().await.unwrap().unwrap_err();
    assert_eq!(failure.reason, Reason::Stalled);
    assert_eq!(
        service.send.ready().await.unwrap_err().reason,
        Reason::Stalled
    );
    drop((send, recv, service));
    pair.settled().await;
}

#[tokio::test(start_paused = true)]
async fn slow_is_not_stalled() {
    let pair = pair();
    let (mut visitor, service) = pair.open(true).await;
    response(&service, b"", false).unwrap();
    let send = service.send;
    let download = tokio::spawn(async move {
        for _ in 0..20 {
            send.send_all(Bytes::from(vec![0; 1000]), false)
                .await
                .unwrap();
        }
        send.finish().unwrap();
    });
    while let Some(part) = visitor.recv.part().await {
        part.unwrap();
        sleep(50 * SECOND).await;
    }
    download.await.unwrap();
    drop((visitor, service.recv));
    pair.settled().await;
}

/// Regression: parts that arrived while a direction was being stopped counted as waiting forever, and the other
/// direction was reset as stalled.
#[tokio::test(start_paused = true)]
async fn a_stopped_direction_does_not_stall_the_other() {
    let mut impatient = config(Side::Client);
    impatient.stall = 5 * SECOND;
    let pair = pair_of(config(Side::Server), impatient);
    let (visitor, service) = pair.open(false).await;
    let Exchange { send, mut recv } = visitor;
    let upload = tokio::spawn(async move {
        drop(send.send_all(Bytes::from(vec![0; 1 << 20]), true).await);
    });
    until(|| pair.client.lane.stats().waiting_bytes > 0).await;
    response(&service, b"", false).unwrap();
    service.recv.stop(adit_codec::ResetCode::Cancelled);
    upload.await.unwrap();
    sleep(60 * SECOND).await;
    assert_eq!(pair.client.lane.stats().waiting_bytes, 0);
    service
        .send
        .send_all(Bytes::from_static(b"done"), true)
        .await
        .unwrap();
    assert_eq!(read(&mut recv).await.unwrap().1, "done");
    drop((service.send, recv));
    pair.settled().await;
}

async fn until_hours(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        sleep(Duration::from_millis(100)).await;
    }
}
