//! Large transfers and random schedules: no byte is lost, repeated or sent to another visitor.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use adit_flow::MAX_WINDOW;
use adit_ingress::TcpConfig;
use adit_testlink::{
    tcp::{Pattern, read_all, read_pattern, reset, service, write_pattern},
    until, within,
};
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::tcp::ToService;

#[tokio::test]
async fn p_10_2_64_mib_cross_each_way_at_once() {
    const BYTES: usize = 64 << 20;
    let (port, mut results) = service(|mut stream, _| async move {
        let (mut from, mut to) = stream.split();
        let mut down = Pattern::new(2);
        let (received, written) = tokio::join!(read_pattern(&mut from, Pattern::new(1)), async {
            write_pattern(&mut to, &mut down, BYTES).await?;
            to.shutdown().await
        });
        written.unwrap();
        received
    })
    .await;
    let entry = ToService::new(port);
    let mut visitor = entry.connect().await;
    let (mut from, mut to) = visitor.split();
    let mut up = Pattern::new(1);
    let (received, written) = within(async {
        tokio::join!(read_pattern(&mut from, Pattern::new(2)), async {
            write_pattern(&mut to, &mut up, BYTES).await?;
            to.shutdown().await
        })
    })
    .await;
    written.unwrap();
    assert_eq!(received, (BYTES, None));
    assert_eq!(within(results.recv()).await.unwrap(), (BYTES, None));
    entry.settled().await;
    let stats = entry.stats();
    let moved = (stats.received_bytes, stats.sent_bytes);
    assert_eq!(moved, (BYTES as u64, BYTES as u64));
    assert_eq!(stats.failures.total(), 0);
}

/// A service that sends as many bytes as the visitor requests, of the pattern with the requested number.
async fn source() -> u16 {
    let (port, _) = service(|mut stream, _| async move {
        let (Ok(seed), Ok(bytes)) = (stream.read_u64().await, stream.read_u64().await) else {
            return;
        };
        let bytes = usize::try_from(bytes).unwrap();
        if write_pattern(&mut stream, &mut Pattern::new(seed), bytes)
            .await
            .is_ok()
        {
            let _ = stream.shutdown().await;
            read_all(&mut stream).await;
        }
    })
    .await;
    port
}

async fn request(entry: &ToService, seed: u64, bytes: usize) -> TcpStream {
    let mut visitor = entry.connect().await;
    visitor.write_u64(seed).await.unwrap();
    visitor.write_u64(bytes as u64).await.unwrap();
    visitor
}

#[tokio::test]
async fn eight_stalled_visitors_hold_only_their_own_windows() {
    const BYTES: usize = 24 << 20;
    let entry = ToService::new(source().await);
    let near = entry.links[0].near.clone();
    let mut stalled = Vec::new();
    for seed in 0..8 {
        stalled.push(request(&entry, seed, BYTES).await);
    }
    until("all of them to be stalled", || {
        near.stats().waiting_bytes > 8 * 16 * 1024
    })
    .await;
    let fast = (8..16).map(|seed| {
        let entry = &entry;
        async move {
            let mut visitor = request(entry, seed, 4 << 20).await;
            let read = read_pattern(&mut visitor, Pattern::new(seed)).await;
            assert_eq!(read, (4 << 20, None));
        }
    });
    within(futures_util::future::join_all(fast)).await;
    let waiting = near.stats().waiting_bytes;
    assert!((1..=8 * MAX_WINDOW).contains(&waiting), "{waiting}");
    // The stalled connections have lost no bytes.
    let rest = stalled
        .iter_mut()
        .zip(0..)
        .map(|(visitor, seed)| async move {
            let read = read_pattern(visitor, Pattern::new(seed)).await;
            assert_eq!(read, (BYTES, None));
        });
    within(futures_util::future::join_all(rest)).await;
    drop(stalled);
    entry.settled().await;
}

#[tokio::test]
async fn a_stalled_visitor_holds_one_window() {
    let entry = ToService::new(source().await);
    let near = entry.links[0].near.clone();
    let visitor = request(&entry, 1, 64 << 20).await;
    // The number of waiting bytes grows until the window is full, and then stops.
    let mut most = 0;
    for _ in 0..200 {
        most = near.stats().waiting_bytes.max(most);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!((1..=MAX_WINDOW).contains(&most), "{most}");
    assert!(near.stats().pinned_bytes as u64 <= 2 * MAX_WINDOW);
    reset(visitor);
    entry.settled().await;
}

#[tokio::test]
async fn aborted_connections_leave_nothing_open() {
    let entry = ToService::new(source().await);
    for round in 0..30 {
        let mut visitor = request(&entry, round, 16 << 20).await;
        let mut some = vec![0; usize::try_from(round).unwrap() * 10_000];
        within(visitor.read_exact(&mut some)).await.unwrap();
        match round % 3 {
            0 => reset(visitor),
            // To drop a connection with unread bytes resets it as well.
            1 => drop(visitor),
            _ => {
                let task = entry.serving.lock().unwrap().pop().unwrap();
                task.abort();
            }
        }
    }
    entry.settled().await;
    let link = &entry.links[0];
    assert_eq!(
        (link.near.open_requests(), link.far.open_requests()),
        (0, 0)
    );
    for lane in [&link.near, &link.far] {
        let stats = lane.stats();
        assert_eq!((stats.waiting_bytes, stats.mux.violations), (0, 0));
    }
}

/// A step of one end of a connection.
#[derive(Debug, Clone)]
enum Step {
    Write(usize),
    /// Lets other tasks run for a while.
    Rest(usize),
    /// Waits until this many bytes of the other end have arrived, or its direction has ended.
    Await(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1_usize..200).prop_map(Step::Write),
        2 => (1_usize..300_000).prop_map(Step::Write),
        1 => (1_usize..20).prop_map(Step::Rest),
        1 => (1_u64..200_000).prop_map(Step::Await),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 0..12)
}

fn total(steps: &[Step]) -> usize {
    let written = steps.iter().map(|step| match step {
        Step::Write(bytes) => *bytes,
        _ => 0,
    });
    written.sum()
}

/// Plays one end: writes and ends its direction by the script, and reads the other direction to its end, slowly if
/// `slow`.
async fn play(mut stream: TcpStream, steps: Vec<Step>, seeds: (u64, u64), slow: bool) -> usize {
    let (mut from, mut to) = stream.split();
    let come = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicU64::new(0));
    let reading = async {
        let mut pattern = Pattern::new(seeds.1);
        let mut buffer = vec![0; if slow { 777 } else { 65_536 }];
        let mut total = 0;
        loop {
            let count = from.read(&mut buffer).await.unwrap();
            if count == 0 {
                over.store(1, Ordering::Relaxed);
                return total;
            }
            pattern.check(&buffer[..count]);
            total += count;
            come.store(total as u64, Ordering::Relaxed);
            if slow {
                tokio::task::yield_now().await;
            }
        }
    };
    let writing = async {
        let mut pattern = Pattern::new(seeds.0);
        for step in steps {
            match step {
                Step::Write(bytes) => write_pattern(&mut to, &mut pattern, bytes).await.unwrap(),
                Step::Rest(turns) => {
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                }
                Step::Await(bytes) => {
                    for _ in 0..1000 {
                        if come.load(Ordering::Relaxed) >= bytes || over.load(Ordering::Relaxed) > 0
                        {
                            break;
                        }
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
        to.shutdown().await.unwrap();
    };
    tokio::join!(reading, writing).0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever both ends write, and whenever they end their directions, each receives exactly what the other wrote,
    /// and then its end.
    #[test]
    fn p_10_2_any_schedule_of_writes_and_ends_delivers_all_bytes(
        visitor in steps(),
        server in steps(),
        slow in (any::<bool>(), any::<bool>()),
        first_bytes in prop_oneof![Just(0_usize), 1_usize..20_000],
        read_buffer_bytes in prop_oneof![Just(1_usize), 2_usize..100, Just(65_536)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            // With buffers of one byte, many bytes would take minutes.
            let bytes = total(&visitor).max(total(&server));
            let read_buffer_bytes = read_buffer_bytes.max(bytes / 2000).max(1);
            let config = TcpConfig { first_bytes, read_buffer_bytes, ..TcpConfig::default() };
            let (up, down) = (total(&visitor), total(&server));
            let (port, mut results) = service(move |stream, _| play(stream, server.clone(), (2, 1), slow.0)).await;
            let entry = ToService::with(config, port);
            let stream = entry.connect().await;
            let read = within(play(stream, visitor, (1, 2), slow.1)).await;
            assert_eq!(read, down);
            assert_eq!(within(results.recv()).await.unwrap(), up);
            entry.settled().await;
            let stats = entry.stats();
            assert_eq!((stats.received_bytes, stats.sent_bytes), (up as u64, down as u64));
            assert_eq!(stats.failures.total(), 0);
        });
    }
}
