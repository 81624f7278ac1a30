//! Connections and time: reuse, loss, bounds, timeouts, visitors who leave.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_codec::ResetCode;
use adit_egress::Config;
use adit_link::{Exchange, Reason};
use support::{Ask, Pair, TUNNEL, fixed, read, read_head, scripted, service, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn short() -> Config {
    Config {
        response_timeout: Duration::from_millis(80),
        stall_timeout: Duration::from_millis(150),
        idle_timeout: Duration::from_millis(100),
        ..Config::default()
    }
}

async fn until(mut is_so: impl FnMut() -> bool) {
    within(async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_that_ends_or_speaks_is_dropped() {
    for says in [&b""[..], b"HTTP/1.1 408 Request Timeout\r\n\r\n"] {
        let port = scripted(move |mut socket, _| async move {
            read_head(&mut socket).await.unwrap();
            socket.write_all(OK).await.unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
            socket.write_all(says).await.unwrap();
            if !says.is_empty() {
                let _ = socket.read_u8().await;
            }
        })
        .await;
        let pair = Pair::to(port, Config::default());
        for _ in 0..2 {
            assert_eq!(pair.get("/").await.unwrap().text(), "ok");
            pair.settled().await;
            assert_eq!(pair.egress.stats().idle, 1);
            until(|| pair.egress.stats().connections == 0).await;
        }
        let stats = pair.egress.stats();
        assert_eq!((stats.dialled, stats.reused, stats.retried), (2, 0, 0));
    }
}

#[tokio::test]
async fn an_idle_connection_grows_old() {
    let port = fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let pair = Pair::to(port, short());
    pair.get("/").await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(pair.egress.stats().idle, 1);
    pair.get("/").await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(pair.egress.stats().idle, 1, "its time began anew");
    until(|| pair.egress.stats().connections == 0).await;
}

/// Answers the first request of its first connection; everything after is read and answered by closing, but for the
/// connections from `heals` on.
async fn dies_on_reuse(heals: usize) -> (u16, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let port = scripted(move |mut socket, connection| {
        let count = count.clone();
        async move {
            for turn in 0.. {
                if read_head(&mut socket).await.is_none() {
                    return;
                }
                count.fetch_add(1, Ordering::Relaxed);
                if connection < heals && (connection, turn) != (0, 0) {
                    return;
                }
                socket.write_all(OK).await.unwrap();
            }
        }
    })
    .await;
    (port, seen)
}

#[tokio::test]
async fn what_is_safe_is_begun_anew_once_when_a_kept_connection_dies() {
    let (port, seen) = dies_on_reuse(1).await;
    let pair = Pair::to(port, Config::default());
    pair.get("/").await.unwrap();
    pair.settled().await;
    assert_eq!(pair.get("/").await.unwrap().text(), "ok");
    let stats = pair.egress.stats();
    assert_eq!((stats.dialled, stats.reused, stats.retried), (2, 1, 1));
    assert_eq!(seen.load(Ordering::Relaxed), 3);

    let (port, seen) = dies_on_reuse(9).await;
    let pair = Pair::to(port, Config::default());
    pair.get("/").await.unwrap();
    pair.settled().await;
    assert_eq!(
        pair.get("/").await.unwrap_err().reason,
        Reason::ServiceAborted
    );
    assert_eq!(seen.load(Ordering::Relaxed), 3, "once");
    assert_eq!(
        pair.get("/").await.unwrap_err().reason,
        Reason::ServiceAborted
    );
    assert_eq!(
        seen.load(Ordering::Relaxed),
        4,
        "a new connection is not retried"
    );

    for ask in [Ask::new("POST", "/", &[]), Ask::new("PATCH", "/", &[])] {
        let (port, seen) = dies_on_reuse(1).await;
        let pair = Pair::to(port, Config::default());
        pair.get("/").await.unwrap();
        pair.settled().await;
        assert_eq!(
            pair.ask(&ask, b"").await.unwrap_err().reason,
            Reason::ServiceAborted
        );
        assert_eq!(seen.load(Ordering::Relaxed), 2, "not repeated");
    }
    // A body that has been taken is gone, whatever the method.
    let (port, seen) = dies_on_reuse(1).await;
    let pair = Pair::to(port, Config::default());
    pair.get("/").await.unwrap();
    pair.settled().await;
    let failure = pair
        .ask(&Ask::new("PUT", "/", &[]), b"x")
        .await
        .unwrap_err();
    assert_eq!(
        (failure.reason, seen.load(Ordering::Relaxed)),
        (Reason::ServiceAborted, 2)
    );
}

#[tokio::test]
async fn a_service_has_its_time_and_no_more() {
    let port = scripted(|mut socket, _| async move {
        read_head(&mut socket).await;
        std::future::pending::<()>().await;
    })
    .await;
    let pair = Pair::to(port, short());
    let failure = pair.get("/").await.unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceTimeout);
    assert_eq!(failure.detail, "the service did not respond within 80ms");

    // Reads nothing of an endless upload.
    let Exchange { send, mut recv } = pair.open(&Ask::new("POST", "/", &[]), b"", false);
    let sender =
        tokio::spawn(
            async move { while send.send_all(vec![0; 32_000].into(), false).await.is_ok() {} },
        );
    let failure = read(&mut recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceTimeout);
    assert_eq!(
        failure.detail,
        "the service read none of the request within 150ms"
    );
    within(sender).await.unwrap();
    drop(recv);

    // A visitor who takes his time with the body is not the service's fault.
    let exchange = pair.open(&Ask::new("POST", "/", &[]), b"", false);
    tokio::time::sleep(Duration::from_millis(250)).await;
    exchange.send.send("x".into(), false).unwrap();
    drop(exchange);
    pair.settled().await;
    until(|| pair.egress.stats().connections == 0).await;
}

#[tokio::test]
async fn connections_and_waiting_requests_are_bounded() {
    let (go, gone) = mpsc::channel::<()>(1);
    let gone = Arc::new(tokio::sync::Mutex::new(gone));
    let port = scripted(move |mut socket, _| {
        let gone = gone.clone();
        async move {
            while read_head(&mut socket).await.is_some() {
                gone.lock().await.recv().await;
                socket.write_all(OK).await.unwrap();
            }
        }
    })
    .await;
    let config = Config {
        max_connections: 1,
        max_waiting: 1,
        ..Config::default()
    };
    let pair = Pair::to(port, config);
    let mut first = pair.open(&Ask::get("/1"), b"", true);
    let second = pair.open(&Ask::get("/2"), b"", true);
    until(|| pair.egress.stats().waiting == 1).await;
    let failure = pair.get("/3").await.unwrap_err();
    assert_eq!(failure.reason, Reason::Limit);
    // One who has left makes room.
    drop(second);
    until(|| pair.server.mux().stats().open == 1 && pair.client.mux().stats().open == 1).await;
    let mut fourth = pair.open(&Ask::get("/4"), b"", true);
    tokio::time::sleep(Duration::from_millis(10)).await;
    go.send(()).await.unwrap();
    assert_eq!(read(&mut first.recv).await.unwrap().text(), "ok");
    go.send(()).await.unwrap();
    assert_eq!(read(&mut fourth.recv).await.unwrap().text(), "ok");
    let stats = pair.egress.stats();
    assert_eq!((stats.dialled, stats.connections, stats.waiting), (1, 1, 0));
}

#[tokio::test]
async fn those_who_wait_are_served_when_a_connection_fails() {
    let port = scripted(|mut socket, _| async move {
        read_head(&mut socket).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        socket
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbroken")
            .await
            .unwrap();
    })
    .await;
    let config = Config {
        max_connections: 2,
        ..Config::default()
    };
    let pair = Pair::to(port, config);
    let all: Vec<_> = (0..20)
        .map(|_| pair.open(&Ask::get("/"), b"", true))
        .collect();
    for mut exchange in all {
        assert_eq!(
            read(&mut exchange.recv).await.unwrap_err().reason,
            Reason::ServiceAborted
        );
    }
    pair.settled().await;
    let stats = pair.egress.stats();
    assert_eq!(
        (stats.dialled, stats.connections, stats.waiting),
        (20, 0, 0)
    );
}

#[tokio::test]
async fn no_more_than_the_bound_stay_idle() {
    let port = scripted(|mut socket, _| async move {
        while read_head(&mut socket).await.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            socket.write_all(OK).await.unwrap();
        }
    })
    .await;
    let config = Config {
        max_idle: 2,
        ..Config::default()
    };
    let pair = Pair::to(port, config);
    let all: Vec<_> = (0..5)
        .map(|_| pair.open(&Ask::get("/"), b"", true))
        .collect();
    for mut exchange in all {
        read(&mut exchange.recv).await.unwrap();
    }
    pair.settled().await;
    let stats = pair.egress.stats();
    assert_eq!((stats.dialled, stats.connections, stats.idle), (5, 2, 2));
}

/// Says when the other side has closed.
async fn watched(start: &'static [u8]) -> (u16, mpsc::Receiver<&'static str>) {
    let (tell, told) = mpsc::channel(8);
    let port = scripted(move |mut socket: TcpStream, _| {
        let tell = tell.clone();
        async move {
            read_head(&mut socket).await;
            tell.send("asked").await.unwrap();
            socket.write_all(start).await.unwrap();
            let mut buffer = [0; 4096];
            let mut filler = start.len() > 60;
            loop {
                if filler
                    && tokio::time::timeout(Duration::from_millis(300), socket.write_all(&buffer))
                        .await
                        .is_err()
                {
                    filler = false;
                    tell.send("full").await.unwrap();
                }
                if filler {
                    continue;
                }
                if !matches!(socket.read(&mut buffer).await, Ok(1..)) {
                    break;
                }
            }
            tell.send("closed").await.unwrap();
        }
    })
    .await;
    (port, told)
}

#[tokio::test]
async fn a_visitor_who_leaves_closes_the_connection_to_the_service() {
    // While it is silent; in the middle of an upload; in the middle of an answer that nobody reads.
    for (method, start, ended) in [
        ("GET", &b""[..], true),
        ("POST", b"", false),
        (
            "GET",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhello",
            true,
        ),
        (
            "GET",
            b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\nX-Padding: padding\r\n\r\nhello",
            true,
        ),
    ] {
        let (port, mut told) = watched(start).await;
        let pair = Pair::to(port, Config::default());
        let exchange = pair.open(&Ask::new(method, "/", &[]), b"", ended);
        assert_eq!(within(told.recv()).await, Some("asked"));
        if start.len() > 60 {
            assert_eq!(
                within(told.recv()).await,
                Some("full"),
                "credit holds the service"
            );
        }
        drop(exchange);
        assert_eq!(within(told.recv()).await, Some("closed"));
        pair.settled().await;
        until(|| pair.egress.stats().connections == 0).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_wanted_no_more_closes_the_connection() {
    let (port, mut told) = watched(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhello").await;
    let pair = Pair::to(port, Config::default());
    let Exchange { send, mut recv } = pair.open(&Ask::new("POST", "/", &[]), b"", false);
    assert_eq!(within(told.recv()).await, Some("asked"));
    within(recv.part()).await.unwrap().unwrap();
    // What the visitor sends still goes to the service, up to where it breaks off (P-6.2).
    drop(recv);
    send.abort(ResetCode::Cancelled, "left");
    assert_eq!(within(told.recv()).await, Some("closed"));
    pair.settled().await;
}

#[tokio::test]
async fn stalled_visitors_hold_up_nobody() {
    let body = "x".repeat(200_000);
    let answer: &str = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .leak();
    let port = fixed(answer).await;
    let pair = Pair::to(port, Config::default());
    let stalled: Vec<_> = (0..100)
        .map(|_| pair.open(&Ask::get("/"), b"", true))
        .collect();
    until(|| pair.egress.stats().connections == 100).await;
    for _ in 0..5 {
        assert_eq!(pair.get("/").await.unwrap().body.len(), body.len());
    }
    let waiting = pair.server.stats().waiting_bytes;
    assert!(waiting <= 100 * 32 * 1024, "{waiting}");
    for mut exchange in stalled {
        assert_eq!(
            read(&mut exchange.recv).await.unwrap().body.len(),
            body.len()
        );
    }
    pair.settled().await;
}

#[tokio::test]
async fn only_what_is_served_is_served() {
    let port = fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let pair = Pair::new(Config::default());
    assert_eq!(pair.get("/").await.unwrap_err().reason, Reason::NoTunnel);
    pair.serve(service(port));
    pair.get("/").await.unwrap();
    let ask = Ask {
        tunnel: "other",
        ..Ask::get("/")
    };
    assert_eq!(
        pair.ask(&ask, b"").await.unwrap_err().reason,
        Reason::NoTunnel
    );
    let connect = Ask::new("CONNECT", "/", &[]);
    assert_eq!(
        pair.ask(&connect, b"").await.unwrap_err().reason,
        Reason::ProtocolError
    );
    pair.egress.set_draining(true);
    assert_eq!(pair.get("/").await.unwrap_err().reason, Reason::Draining);
    pair.egress.set_draining(false);
    // Two tunnels to one address share its connections.
    let both = [TUNNEL, "other"].map(|name| (Box::from(name), service(port)));
    let requests = pair.egress.requests_of(TUNNEL);
    assert!(requests > 0);
    pair.egress.set_services(HashMap::from(both));
    assert_eq!(pair.egress.requests_of(TUNNEL), requests, "unchanged");
    assert_eq!(pair.ask(&ask, b"").await.unwrap().text(), "ok");
    pair.settled().await;
    assert_eq!(
        (pair.egress.stats().dialled, pair.egress.stats().idle),
        (1, 1)
    );
    let tasks = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    pair.egress.set_services(HashMap::new());
    assert_eq!(pair.egress.stats().connections, 0);
    until(|| {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
            < tasks
    })
    .await;
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

#[test]
fn nothing_is_left_behind() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (ports, services) = std::sync::mpsc::channel();
    let thread = runtime();
    std::thread::spawn(move || {
        thread.block_on(async move {
            ports
                .send(fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await)
                .unwrap();
            ports
                .send(fixed("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok").await)
                .unwrap();
            std::future::pending::<()>().await;
        });
    });
    let (good, slow) = (services.recv().unwrap(), services.recv().unwrap());
    runtime().block_on(async move {
        let metrics = tokio::runtime::Handle::current().metrics();
        let before = metrics.num_alive_tasks();
        for round in 0..20 {
            let pair = Pair::to(if round % 2 == 0 { good } else { slow }, short());
            let exchanges: Vec<_> = (0..20)
                .map(|_| pair.open(&Ask::get("/"), b"", true))
                .collect();
            if round % 4 == 0 {
                for mut exchange in exchanges {
                    read(&mut exchange.recv).await.unwrap();
                }
            } else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                drop(exchanges);
            }
            pair.settled().await;
        }
        until(|| metrics.num_alive_tasks() == before).await;
        // The services' ends are in this process too: they see that ours have closed.
        until(|| open_files() < 60).await;
    });
}

#[test]
fn connections_of_a_runtime_that_ends_are_not_waited_for() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (services, first, second) = (runtime(), runtime(), runtime());
    let port = services.block_on(fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    std::thread::spawn(move || services.block_on(std::future::pending::<()>()));
    let egress = adit_egress::Egress::new(Config::default());
    for runtime in [first, second] {
        let shared = egress.clone();
        runtime.block_on(async move {
            let pair = Pair::with(shared);
            pair.serve(service(port));
            for _ in 0..3 {
                assert_eq!(pair.get("/").await.unwrap().text(), "ok");
                pair.settled().await;
            }
        });
        assert_eq!(egress.stats().idle, 1);
        drop(runtime);
        assert_eq!((egress.stats().connections, egress.stats().idle), (0, 0));
    }
    assert_eq!((egress.stats().dialled, egress.stats().reused), (2, 4));
}
