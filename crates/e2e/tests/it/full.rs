//! Tests that take too long for every run: `ci/full` runs them with `cargo nextest run --run-ignored only`. F13, F21.

use std::time::{Duration, Instant};

use adit_e2e::{Raw, World, checked, empty, eventually, pattern, procfs};
use http::Method;
use tokio::task::JoinSet;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Watches the memory of both processes while `work` runs; returns the maximum above their memory before.
async fn most_resident(world: &World, work: impl Future<Output = ()>) -> [u64; 2] {
    let pids = [world.server.pid(), world.client.pid()];
    let idle = pids.map(procfs::resident_bytes);
    let mut most = [0; 2];
    let mut work = std::pin::pin!(work);
    loop {
        for ((most, pid), idle) in most.iter_mut().zip(pids).zip(idle) {
            *most = (*most).max(procfs::resident_bytes(pid).saturating_sub(idle));
        }
        if tokio::time::timeout(Duration::from_millis(100), work.as_mut())
            .await
            .is_ok()
        {
            return most;
        }
    }
}

/// F13: ten gigabytes in each direction, in bounded memory.
#[tokio::test]
#[ignore = "ci/full"]
async fn ten_gigabytes_each_way_in_bounded_memory() {
    let world = World::site().await;
    assert_eq!(world.get("/who").await.text(), "site");
    let most = most_resident(&world, async {
        let down = async {
            let mut visitor = world.http1().await;
            let request = visitor.request(&Method::GET, &format!("/bytes/{}", 10 * GIB), empty());
            let response = visitor.send(request).await.unwrap();
            assert_eq!(checked(response.into_body()).await, Ok(10 * GIB));
        };
        let up = async {
            let mut visitor = world.http1().await;
            // `post` is not used, because its time limit is that of a small request.
            let request = visitor.request(&Method::POST, "/sum", pattern(10 * GIB, true));
            let sum = visitor.whole(request).await.unwrap();
            assert_eq!(sum.text(), format!("{} bytes, as sent", 10 * GIB));
        };
        tokio::join!(down, up);
    })
    .await;
    for (name, most) in ["server", "client"].into_iter().zip(most) {
        assert!(
            most <= 64 * MIB,
            "the {name} took {} KiB more than idle",
            most / 1024
        );
    }
}

/// F13, F15: ten minutes of all kinds of requests; memory does not grow from the second minute to the last.
#[tokio::test]
#[ignore = "ci/full"]
async fn ten_minutes_of_everything() {
    let mut world = World::site().await;
    let (http, begun) = (world.server.http, Instant::now());
    let length = Duration::from_secs(600);
    let mut visitors = JoinSet::new();
    for number in 0..8_u64 {
        visitors.spawn(async move {
            let mut visitor = adit_e2e::Visitor::http1(http, adit_e2e::HOST).await;
            let mut rounds = 0_u64;
            while begun.elapsed() < length {
                rounds += 1;
                let size = (number * 7919 + rounds * 104_729) % 300_000;
                let request = visitor.request(&Method::GET, &format!("/chunked/{size}"), empty());
                let responded = match visitor.send(request).await {
                    Ok(response) => checked(response.into_body())
                        .await
                        .is_ok_and(|got| got == size),
                    Err(_) => false,
                };
                if !responded {
                    // The client of the request was killed in the middle of it.
                    visitor = adit_e2e::Visitor::http1(http, adit_e2e::HOST).await;
                }
                if rounds.is_multiple_of(10) {
                    let mut raw = Raw::connect(http).await;
                    let line = format!(
                        "GET /chunked/1000000000 HTTP/1.1\r\nHost: {}\r\n\r\n",
                        adit_e2e::HOST
                    );
                    raw.send(line).await;
                    raw.read_until(|bytes| bytes.len() > 100_000).await;
                    raw.reset();
                }
            }
            rounds
        });
    }
    let mut early = None;
    let mut next_kill = Duration::from_secs(30);
    eventually(
        "the end of the visitors",
        length + Duration::from_secs(60),
        async || {
            if begun.elapsed() > next_kill && begun.elapsed() < length {
                next_kill += Duration::from_secs(30);
                world.client.restart().await;
            }
            if early.is_none() && begun.elapsed() > Duration::from_secs(60) {
                early = Some(procfs::resident_bytes(world.server.pid()));
            }
            while let Some(done) = visitors.try_join_next() {
                assert!(done.unwrap() > 10);
            }
            visitors.is_empty().then_some(())
        },
    )
    .await;
    let grown = procfs::resident_bytes(world.server.pid()).saturating_sub(early.unwrap());
    assert!(grown <= 16 * MIB, "the server grew by {} KiB", grown / 1024);
    assert_eq!(world.get("/who").await.text(), "site");
}
