//! Isolation of requests: stalled readers, stalled uploads, shared connections. F11, F12, F13, P-4.1 to P-4.7.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

use std::{net::SocketAddr, time::Duration};

use adit_e2e::{
    Client, ClientOptions, HOST, Raw, Server, Service, Visitor, World, checked, count, empty,
    eventually, feed, pattern, procfs, within,
};
use http::Method;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

const SOON: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;

/// F13: a thousand visitors that request 16 MiB each and read nothing cost a bounded amount of memory in both
/// processes, and delay no other request.
#[tokio::test]
async fn a_thousand_stalled_readers_delay_no_other_request() {
    stalled_readers(Arrival::AtOnce).await;
}

/// Each response arrives in separate frames and pins buffers that a burst would have shared: 66 MiB before these slices
/// were copied.
#[tokio::test]
async fn a_thousand_stalled_readers_one_after_another() {
    stalled_readers(Arrival::OneByOne).await;
}

#[derive(Clone, Copy)]
enum Arrival {
    AtOnce,
    OneByOne,
}

async fn stalled_readers(arrival: Arrival) {
    const READERS: usize = 1_000;
    const FAST: usize = 500;
    procfs::allow_descriptors(8_000);
    let service = Service::site("site").await;
    let server = Server::with(
        "server:\n  limits: { max_requests: 4000, max_requests_per_client: 2000, max_waiting: 4000 }\n",
    )
    .await;
    let client = Client::http(&server, "client-1", "web", service.addr).await;
    let mut visitor = Visitor::http1(server.http, HOST).await;
    for _ in 0..50 {
        assert_eq!(visitor.get("/who").await.text(), "site");
        assert_eq!(visitor.get("/bytes/100000").await.body.len(), 100_000);
    }
    let idle = [server.pid(), client.pid()].map(procfs::resident_bytes);

    let mut stalled = Vec::new();
    for _ in 0..READERS {
        let mut reader = Raw::narrow(server.http, 4 * 1024).await;
        reader
            .send(format!(
                "GET /bytes/{} HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
                16 * MIB
            ))
            .await;
        if let Arrival::OneByOne = arrival {
            reader.read_text("\r\n\r\n").await;
        }
        stalled.push(reader);
    }
    let stats = service.stats.clone();
    within("all of them asked for", Duration::from_secs(60), async {
        eventually("all of them", Duration::from_secs(60), async || {
            (stats.begun() >= 100 + READERS).then_some(())
        })
        .await;
    })
    .await;

    let mut fast = JoinSet::new();
    for worker in 0..10 {
        let mut visitor = Visitor::http1(server.http, HOST).await;
        fast.spawn(async move {
            for index in 0..FAST / 10 {
                let length = (worker * 1000 + index * 100) as u64;
                let request = visitor.request(&Method::GET, &format!("/bytes/{length}"), empty());
                let response = visitor.send(request).await.unwrap();
                assert_eq!(response.status(), 200);
                assert_eq!(checked(response.into_body()).await, Ok(length));
            }
        });
    }
    within(
        "fast requests beside the stalled ones",
        Duration::from_secs(60),
        async {
            while let Some(done) = fast.join_next().await {
                done.unwrap();
            }
        },
    )
    .await;

    let status = server.status().await;
    let waiting: u64 = status["clients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|client| count(client, "/waiting_bytes"))
        .sum();
    assert!(waiting > 0, "the server holds unread bytes: {status}");
    assert_eq!(
        count(&status, "/clients/0/requests"),
        READERS as u64,
        "{status}"
    );
    let full = [server.pid(), client.pid()].map(procfs::resident_bytes);
    for (name, full, idle) in [("server", full[0], idle[0]), ("client", full[1], idle[1])] {
        let more = full.saturating_sub(idle);
        println!("{name}: {} KiB above idle", more / 1024);
        assert!(
            more <= 64 * MIB,
            "the {name} took {} KiB more than idle; {status}",
            more / 1024
        );
    }

    // When the readers leave, everything is released.
    for reader in stalled {
        reader.reset();
    }
    eventually("no request left", SOON, async || {
        let status = server.status().await;
        let left = count(&status, "/process/pending") + count(&status, "/process/permits_in_use");
        (left == 0).then_some(())
    })
    .await;
    assert_eq!(visitor.get("/who").await.text(), "site");
}

/// Sends a byte of a body every half second until the connection ends; returns the bytes that the server sent before
/// that.
async fn trickle(http: SocketAddr) -> String {
    let mut stream = TcpStream::connect(http).await.unwrap();
    let head = format!("POST /unread HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\n");
    let mut read = Vec::new();
    let mut ticks = interval(Duration::from_millis(500));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = stream.write_all(head.as_bytes()).await;
    while sent.is_ok() {
        tokio::select! {
            length = stream.read_buf(&mut read) => match length {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            },
            _ = ticks.tick() => sent = stream.write_all(b".").await,
        }
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// A thousand uploads of single bytes and a thousand silent TCP connections, all from one address, to a client with
/// 1,000 permits, which is the default. Visitors from another address are served all the time, and one from the same
/// address once silent connections have been reset. The timeouts of the server are short, with a byte every half second
/// instead of every three seconds, so that the test takes no longer than `stall` and the waits for permits.
#[tokio::test]
async fn a_thousand_tricklers_do_not_switch_a_client_off() {
    const EACH: usize = 1_000;
    procfs::allow_descriptors(16_000);
    let service = Service::site("site").await;
    let server = Server::with("server: { timeouts: { stall: 3s, shortage_grace: 1s } }").await;
    let config = format!(
        "client:\n  tunnels:\n    - {{ name: web, type: http, local_port: {port} }}\n    \
         - {{ name: raw, type: tcp, local_port: {port}, remote_port: 4005 }}\n",
        port = service.addr.port()
    );
    let _client = Client::start(ClientOptions::file(&server, "client-1", &config)).await;
    let (http, raw) = (server.http, SocketAddr::new(server.http.ip(), 4005));

    let (over, mut is_over) = watch::channel(false);
    let honest = tokio::spawn(async move {
        let mut served = 0;
        while timeout(Duration::from_millis(50), is_over.changed())
            .await
            .is_err()
        {
            let mut visitor = Visitor::http1_from([127, 0, 0, 2].into(), http, HOST).await;
            let response = within("an honest visitor's response", SOON, visitor.get("/who")).await;
            assert_eq!(response.status, 200, "after {served}: {}", response.text());
            served += 1;
        }
        served
    });

    let mut silent = JoinSet::new();
    for _ in 0..EACH {
        silent.spawn(async move {
            let mut stream = TcpStream::connect(raw).await.unwrap();
            let _ = stream.read(&mut [0]).await;
        });
    }
    let mut uploads = JoinSet::new();
    for _ in 0..EACH {
        uploads.spawn(trickle(http));
    }
    eventually("permits that run short", SOON, async || {
        let status = server.status().await;
        (count(&status, "/process/permits_in_use") >= 600).then_some(())
    })
    .await;
    let mut responses = std::collections::BTreeMap::<String, usize>::new();
    let ended = within("the end of all uploads", 3 * SOON, uploads.join_all()).await;
    for response in ended {
        let line = response.lines().next().unwrap_or("reset").to_owned();
        *responses.entry(line).or_default() += 1;
    }
    println!("uploads: {responses:?}");
    assert!(
        !responses.keys().any(|line| line.contains("200")),
        "{responses:?}"
    );
    // A visitor from the same address waits until a silent connection has been reset.
    let mut same = Visitor::http1(http, HOST).await;
    let response = within("a response to the same address", SOON, same.get("/who")).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let mut resets = 0;
    while silent.try_join_next().is_some() {
        resets += 1;
    }
    println!("silent connections that were reset: {resets}");
    // The other connections are within the share of their address.
    assert!(resets >= EACH - 700, "{resets}");
    over.send_replace(true);
    let served = honest.await.unwrap();
    println!("honest visitors: {served}");
    assert!(served >= 20, "{served}");
}

/// Stalls one download on a visitor's HTTP/2 connection and requests others on the same connection.
async fn stalled_download_beside_others(world: &World) {
    let visitor = world.http2().await;
    let mut slow = visitor.share();
    let request = slow.request(&Method::GET, "/bytes/16777216", empty());
    let stalled = slow.send(request).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let mut visitor = visitor.share();
        tasks.spawn(async move {
            let request = visitor.request(&Method::GET, "/bytes/1000000", empty());
            let response = visitor.send(request).await.unwrap();
            assert_eq!(checked(response.into_body()).await, Ok(1_000_000));
        });
    }
    within("the others' responses", SOON, async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    })
    .await;
    // The stalled download completes, only more slowly.
    let rest = within("the stalled one's body", SOON, checked(stalled.into_body())).await;
    assert_eq!(rest, Ok(16 * MIB));
}

/// Stalls one upload, which the service does not read, and sends others on the same connection.
async fn stalled_upload_beside_others(world: &World) {
    let visitor = world.http2().await;
    let (feeder, body) = feed();
    let mut slow = visitor.share();
    let request = slow.request(&Method::POST, "/unread", body);
    let sending = tokio::spawn(async move {
        let mut sent = 0_u64;
        while sent < 16 * MIB {
            let piece = adit_e2e::piece(sent, 32 * 1024);
            sent += piece.len() as u64;
            if !feeder.send(piece).await {
                return;
            }
        }
    });
    let held = tokio::spawn(async move { slow.send(request).await });
    let stats = world.service().stats.clone();
    eventually("an upload that is not read", SOON, async || {
        (stats.begun() == 1).then_some(())
    })
    .await;
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let mut visitor = visitor.share();
        tasks.spawn(async move {
            let sum = visitor.post("/sum", pattern(1_000_000, true)).await;
            assert_eq!(sum.text(), "1000000 bytes, as sent");
        });
    }
    within("the others' uploads", SOON, async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    })
    .await;
    world.service().release();
    let response = within("the stalled one's response", SOON, held)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "site"
    );
    drop(visitor);
    within("an end of the stalled upload", SOON, sending)
        .await
        .unwrap();
}

/// F11: a stalled stream of a visitor's HTTP/2 connection does not delay the others of the same connection.
#[tokio::test]
async fn one_stalled_download_does_not_hold_its_http2_connection() {
    stalled_download_beside_others(&World::site().await).await;
}

/// F11: a stalled upload delays no other request on the visitor's HTTP/2 connection.
#[tokio::test]
async fn one_stalled_upload_does_not_hold_its_http2_connection() {
    stalled_upload_beside_others(&World::site().await).await;
}

/// F11: all visitors share the connections to an h2c service, and a stalled one delays no other.
#[tokio::test]
async fn one_stalled_download_does_not_hold_a_shared_h2c_service() {
    stalled_download_beside_others(&World::h2c().await).await;
}

/// F11: a stalled upload delays no other request on the shared connections to an h2c service.
#[tokio::test]
async fn one_stalled_upload_does_not_hold_a_shared_h2c_service() {
    stalled_upload_beside_others(&World::h2c().await).await;
}

/// F11: a held request delays no other on the same lane.
#[tokio::test]
async fn a_slow_request_delays_no_other() {
    let world = World::site().await;
    let mut held = JoinSet::new();
    for _ in 0..20 {
        let mut visitor = world.http1().await;
        held.spawn(async move { visitor.get("/held").await });
    }
    let stats = world.service().stats.clone();
    eventually("held requests", SOON, async || {
        (stats.begun() == 20).then_some(())
    })
    .await;
    let mut visitor = world.http1().await;
    within("two hundred others", SOON, async {
        for _ in 0..200 {
            assert_eq!(visitor.get("/who").await.text(), "site");
        }
    })
    .await;
    world.service().release();
    while let Some(response) = held.join_next().await {
        assert_eq!(response.unwrap().text(), "site");
    }
}
