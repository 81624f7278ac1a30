//! Payload that is limited to a rate. The test controls the clock.

use std::{
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::{config, pair, pair_of, read, response};
use adit_codec::{ResetCode, Side};
use adit_flow::Bandwidth;
use adit_link::{Exchange, Pace, Part, Reason, SendHalf};
use bytes::Bytes;
use tokio::{task::JoinHandle, time::Instant};

struct Limit {
    origin: Instant,
    bandwidth: Bandwidth,
    moved: AtomicUsize,
}

impl Limit {
    fn new(rate: u64) -> Arc<Self> {
        Arc::new(Self {
            origin: Instant::now() - Duration::from_secs(60),
            bandwidth: Bandwidth::new(NonZeroU64::new(rate)),
            moved: AtomicUsize::new(0),
        })
    }

    fn moved(&self) -> usize {
        self.moved.load(Ordering::Relaxed)
    }
}

impl Pace for Limit {
    fn chunk_bytes(&self) -> usize {
        self.bandwidth.chunk_bytes()
    }

    fn reserve(&self, bytes: usize) -> Duration {
        self.bandwidth.reserve(bytes, self.origin.elapsed())
    }

    fn give_back(&self, bytes: usize) {
        self.bandwidth.give_back(bytes);
    }

    fn on_moved(&self, bytes: usize) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }
}

fn send(send: SendHalf, bytes: usize, chunk: usize) -> JoinHandle<()> {
    tokio::spawn(async move {
        for _ in 0..bytes / chunk {
            send.send_all(vec![0; chunk].into(), false).await.unwrap();
        }
        send.finish().unwrap();
    })
}

fn assert_near(seconds: f64, expected: f64) {
    let near = (seconds - expected).abs() <= expected * 0.05 + 0.05;
    assert!(near, "{seconds} s instead of {expected} s");
}

#[tokio::test(start_paused = true)]
async fn p_16_1_both_directions_have_their_rates() {
    let pair = pair();
    let (visitor, service) = pair.open(false).await;
    let (up, down) = (Limit::new(1_000_000), Limit::new(2_000_000));
    let Exchange {
        send: upload,
        mut recv,
    } = visitor;
    upload.set_pace(up.clone());
    recv.set_pace(down.clone());
    response(&service, b"", false).unwrap();
    let start = Instant::now();
    let Exchange {
        send: download,
        recv: mut at_service,
    } = service;
    let upload = send(upload, 10_000_000, 40_000);
    let download = send(download, 10_000_000, 40_000);
    let at_service = tokio::spawn(async move {
        let (_, all) = read(&mut at_service).await.unwrap();
        (all.len(), start.elapsed())
    });
    let (_, all) = read(&mut recv).await.unwrap();
    assert_near(start.elapsed().as_secs_f64(), 5.0);
    assert_eq!((all.len(), down.moved()), (10_000_000, 10_000_000));
    let (received, took) = at_service.await.unwrap();
    assert_near(took.as_secs_f64(), 10.0);
    assert_eq!((received, up.moved()), (10_000_000, 10_000_000));
    upload.await.unwrap();
    download.await.unwrap();
    drop(recv);
    pair.settled().await;
}

#[tokio::test(start_paused = true)]
async fn p_16_2_requests_share_a_rate_whatever_the_size_of_their_messages() {
    let pair = pair();
    let limit = Limit::new(1_000_000);
    let mut readers = Vec::new();
    for request in 0..8 {
        let (mut visitor, service) = pair.open(true).await;
        visitor.recv.set_pace(limit.clone());
        response(&service, b"", false).unwrap();
        let chunk = if request % 2 == 0 { 500 } else { 64_000 };
        let _sends = send(service.send, 64_000_000, chunk);
        readers.push(tokio::spawn(async move {
            let (end, mut bytes) = (Instant::now() + Duration::from_secs(20), 0);
            let reads = async {
                while let Some(part) = visitor.recv.part().await {
                    if let Part::Data(payload) = part.unwrap() {
                        bytes += payload.bytes().len();
                    }
                }
            };
            let _ = tokio::time::timeout_at(end, reads).await;
            bytes
        }));
    }
    let mut all = Vec::new();
    for reader in readers {
        all.push(reader.await.unwrap());
    }
    let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
    assert!(least * 100 >= most * 75, "{all:?}");
    let sum: usize = all.iter().sum();
    assert!((19_000_000..=21_000_000).contains(&sum), "{all:?}");
}

/// A request that waits for its rate is not stalled, however long it waits; one whose visitor does not read is.
#[tokio::test(start_paused = true)]
async fn p_16_3_a_request_that_waits_for_its_rate_is_not_stalled() {
    let mut short = config(Side::Server);
    short.stall = Duration::from_secs(2);
    let pair = pair_of(short, config(Side::Client));
    let (mut visitor, service) = pair.open(true).await;
    let limit = Limit::new(10_000);
    visitor.recv.set_pace(limit);
    response(&service, b"", false).unwrap();
    // Each message takes five seconds.
    let _sends = send(service.send, 1_000_000, 50_000);
    let mut bytes = 0;
    while bytes < 200_000 {
        if let Part::Data(payload) = visitor.recv.part().await.unwrap().unwrap() {
            bytes += payload.bytes().len();
        }
    }
    let failure = visitor.recv.failed().await;
    assert_eq!(failure.reason, Reason::Stalled);
}

#[tokio::test(start_paused = true)]
async fn a_failure_does_not_wait_for_the_rate() {
    let pair = pair();
    let (mut visitor, service) = pair.open(true).await;
    visitor.recv.set_pace(Limit::new(1_000));
    response(&service, &[0; 20_000], false).unwrap();
    service
        .send
        .send_all(Bytes::from(vec![0; 5_000]), false)
        .await
        .unwrap();
    let start = Instant::now();
    let failed = async {
        loop {
            if let Err(failure) = visitor.recv.part().await.unwrap() {
                return failure;
            }
        }
    };
    let (failure, ()) = tokio::join!(failed, async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        service.send.reset(ResetCode::Internal, "over");
    });
    assert_eq!(failure.reason, Reason::Internal);
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

/// The slot that a request has reserved, and does not use, is for others.
#[tokio::test(start_paused = true)]
async fn a_request_that_ends_gives_its_slot_back() {
    let pair = pair();
    let limit = Limit::new(10_000);
    let mut left = Vec::new();
    for _ in 0..5 {
        let (mut visitor, service) = pair.open(true).await;
        visitor.recv.set_pace(limit.clone());
        response(&service, &[0; 10_000], true).unwrap();
        left.push((visitor, service));
    }
    let start = Instant::now();
    for (visitor, _) in &mut left {
        // Waits for its slot, and leaves.
        let first =
            async { while !matches!(visitor.recv.part().await, Some(Ok(Part::Data(_)))) {} };
        let _ = tokio::time::timeout(Duration::from_millis(10), first).await;
    }
    drop(left);
    let (mut visitor, service) = pair.open(true).await;
    visitor.recv.set_pace(limit.clone());
    response(&service, &[0; 10_000], true).unwrap();
    let (_, all) = read(&mut visitor.recv).await.unwrap();
    assert_eq!(all.len(), 10_000);
    assert!(
        start.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        start.elapsed()
    );
}
