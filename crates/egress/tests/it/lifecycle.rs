//! Connections and time: reuse, loss, bounds, timeouts, visitors that leave.

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
use adit_testlink::{
    EgressLink, TUNNEL, TunnelRequest, ends, http_service,
    http1::{fixed, read_head, send},
    next_part, pass, read,
    tcp::serve,
    until, within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc},
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

#[tokio::test]
async fn an_idle_connection_that_ends_or_sends_is_dropped() {
    for sent in [&b""[..], b"HTTP/1.1 408 Request Timeout\r\n\r\n"] {
        let end = Arc::new(Notify::new());
        let ended = end.clone();
        let port = serve(move |mut socket, _| {
            let ended = ended.clone();
            async move {
                read_head(&mut socket).await.unwrap();
                send(&mut socket, OK).await;
                ended.notified().await;
                send(&mut socket, sent).await;
                if !sent.is_empty() {
                    let _ = socket.read_u8().await;
                }
            }
        })
        .await;
        let link = EgressLink::to(http_service(port), Config::default());
        for _ in 0..2 {
            assert_eq!(link.get("/").await.unwrap().text(), "ok");
            link.settled().await;
            assert_eq!(link.egress.stats().idle, 1);
            end.notify_one();
            until("the connection is dropped", || {
                link.egress.stats().connections == 0
            })
            .await;
        }
        let stats = link.egress.stats();
        assert_eq!((stats.dialled, stats.reused, stats.retried), (2, 0, 0));
    }
}

#[tokio::test]
async fn an_idle_connection_grows_old() {
    let port = fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let link = EgressLink::to(http_service(port), short());
    link.get("/").await.unwrap();
    link.settled().await;
    pass(Duration::from_millis(60)).await;
    assert_eq!(link.egress.stats().idle, 1);
    link.get("/").await.unwrap();
    link.settled().await;
    assert_eq!(link.egress.stats().reused, 1);
    pass(Duration::from_millis(60)).await;
    assert_eq!(link.egress.stats().idle, 1, "a request restarts its time");
    pass(Duration::from_millis(40)).await;
    until("the connection is closed", || {
        link.egress.stats().connections == 0
    })
    .await;
}

/// Responds to the first request of its first connection. Later requests are read and the connection is closed, except
/// on connection `heals` and later ones.
async fn dies_on_reuse(heals: usize) -> (u16, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let port = serve(move |mut socket, connection| {
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
                send(&mut socket, OK).await;
            }
        }
    })
    .await;
    (port, seen)
}

#[tokio::test]
async fn safe_requests_are_repeated_once_after_a_dead_connection() {
    let (port, seen) = dies_on_reuse(1).await;
    let link = EgressLink::to(http_service(port), Config::default());
    link.get("/").await.unwrap();
    link.settled().await;
    assert_eq!(link.get("/").await.unwrap().text(), "ok");
    let stats = link.egress.stats();
    assert_eq!((stats.dialled, stats.reused, stats.retried), (2, 1, 1));
    assert_eq!(seen.load(Ordering::Relaxed), 3);

    let (port, seen) = dies_on_reuse(9).await;
    let link = EgressLink::to(http_service(port), Config::default());
    link.get("/").await.unwrap();
    link.settled().await;
    assert_eq!(
        link.get("/").await.unwrap_err().reason,
        Reason::ServiceAborted
    );
    assert_eq!(seen.load(Ordering::Relaxed), 3, "once");
    assert_eq!(
        link.get("/").await.unwrap_err().reason,
        Reason::ServiceAborted
    );
    assert_eq!(
        seen.load(Ordering::Relaxed),
        4,
        "a new connection is not retried"
    );

    for request in [
        TunnelRequest::new("POST", "/", &[]),
        TunnelRequest::new("PATCH", "/", &[]),
    ] {
        let (port, seen) = dies_on_reuse(1).await;
        let link = EgressLink::to(http_service(port), Config::default());
        link.get("/").await.unwrap();
        link.settled().await;
        assert_eq!(
            link.request(&request, b"").await.unwrap_err().reason,
            Reason::ServiceAborted
        );
        assert_eq!(seen.load(Ordering::Relaxed), 2, "not repeated");
    }
    // A body that has been taken cannot be sent again, whatever the method.
    let (port, seen) = dies_on_reuse(1).await;
    let link = EgressLink::to(http_service(port), Config::default());
    link.get("/").await.unwrap();
    link.settled().await;
    let failure = link
        .request(&TunnelRequest::new("PUT", "/", &[]), b"x")
        .await
        .unwrap_err();
    assert_eq!(
        (failure.reason, seen.load(Ordering::Relaxed)),
        (Reason::ServiceAborted, 2)
    );
}

#[tokio::test]
async fn a_service_has_its_time_and_no_more() {
    let port = serve(|mut socket, _| async move {
        read_head(&mut socket).await;
        std::future::pending::<()>().await;
    })
    .await;
    let link = EgressLink::to(http_service(port), short());
    let failure = link.get("/").await.unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceTimeout);
    assert_eq!(failure.detail, "the service did not respond within 80ms");

    // The service reads nothing of an endless upload.
    let Exchange { send, mut recv } =
        link.open(TunnelRequest::new("POST", "/", &[]).http(b""), false);
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

    // A slow upload does not count as a delay of the service.
    let exchange = link.open(TunnelRequest::new("POST", "/", &[]).http(b""), false);
    until("the request is taken", || link.egress.stats().requests == 3).await;
    pass(Duration::from_millis(250)).await;
    assert_eq!(exchange.send.failure(), None);
    exchange.send.send("x".into(), false).unwrap();
    drop(exchange);
    link.settled().await;
    until("the counters agree", || {
        link.egress.stats().connections == 0
    })
    .await;
}

/// After a change of the times, new connections are opened; running requests keep theirs, and counters continue.
#[tokio::test]
async fn changed_times_hold_for_the_next_request() {
    let (release, accepted) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (held, counted) = (release.clone(), accepted.clone());
    let port = serve(move |mut socket, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        let held = held.clone();
        async move {
            while let Some(head) = read_head(&mut socket).await {
                if head.starts_with("GET /held ") {
                    held.notified().await;
                }
                send(&mut socket, OK).await;
            }
        }
    })
    .await;
    let link = EgressLink::to(http_service(port), Config::default());
    assert_eq!(link.get("/").await.unwrap().text(), "ok");
    let running = link.clone();
    let running = tokio::spawn(async move { running.get("/held").await });
    until("a request runs", || link.egress.stats().requests == 2).await;
    link.egress.set_config(Config::default());
    link.egress.set_config(short());
    let late = link.get("/held").await.unwrap_err();
    assert_eq!(late.reason, Reason::ServiceTimeout);
    release.notify_waiters();
    assert_eq!(running.await.unwrap().unwrap().text(), "ok");
    assert_eq!(link.get("/").await.unwrap().text(), "ok");
    assert_eq!(link.egress.stats().requests, 4);
    assert!(accepted.load(Ordering::Relaxed) >= 2);
    link.settled().await;
}

#[tokio::test]
async fn connections_and_waiting_requests_are_bounded() {
    let (go, gone) = mpsc::channel::<()>(1);
    let gone = Arc::new(tokio::sync::Mutex::new(gone));
    let port = serve(move |mut socket, _| {
        let gone = gone.clone();
        async move {
            while read_head(&mut socket).await.is_some() {
                gone.lock().await.recv().await;
                send(&mut socket, OK).await;
            }
        }
    })
    .await;
    let config = Config {
        max_connections: 1,
        max_waiting: 1,
        ..Config::default()
    };
    let link = EgressLink::to(http_service(port), config);
    let mut first = link.open(TunnelRequest::get("/1").http(b""), true);
    let second = link.open(TunnelRequest::get("/2").http(b""), true);
    until("the counters agree", || link.egress.stats().waiting == 1).await;
    let failure = link.get("/3").await.unwrap_err();
    assert_eq!(failure.reason, Reason::Limit);
    // A request that leaves the queue makes room for another one.
    drop(second);
    until("the counters agree", || {
        link.near.mux().stats().open == 1 && link.far.mux().stats().open == 1
    })
    .await;
    let mut fourth = link.open(TunnelRequest::get("/4").http(b""), true);
    until("the request is taken", || link.egress.stats().requests == 4).await;
    go.send(()).await.unwrap();
    assert_eq!(read(&mut first.recv).await.unwrap().text(), "ok");
    go.send(()).await.unwrap();
    assert_eq!(read(&mut fourth.recv).await.unwrap().text(), "ok");
    let stats = link.egress.stats();
    assert_eq!((stats.dialled, stats.connections, stats.waiting), (1, 1, 0));
}

#[tokio::test]
async fn waiting_requests_are_served_when_a_connection_fails() {
    let port = serve(|mut socket, _| async move {
        read_head(&mut socket).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        send(
            &mut socket,
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbroken",
        )
        .await;
    })
    .await;
    let config = Config {
        max_connections: 2,
        ..Config::default()
    };
    let link = EgressLink::to(http_service(port), config);
    let all: Vec<_> = (0..20)
        .map(|_| link.open(TunnelRequest::get("/").http(b""), true))
        .collect();
    for mut exchange in all {
        assert_eq!(
            read(&mut exchange.recv).await.unwrap_err().reason,
            Reason::ServiceAborted
        );
    }
    link.settled().await;
    let stats = link.egress.stats();
    assert_eq!(
        (stats.dialled, stats.connections, stats.waiting),
        (20, 0, 0)
    );
}

#[tokio::test]
async fn no_more_than_the_bound_stay_idle() {
    let port = serve(|mut socket, _| async move {
        while read_head(&mut socket).await.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            send(&mut socket, OK).await;
        }
    })
    .await;
    let config = Config {
        max_idle: 2,
        ..Config::default()
    };
    let link = EgressLink::to(http_service(port), config);
    let all: Vec<_> = (0..5)
        .map(|_| link.open(TunnelRequest::get("/").http(b""), true))
        .collect();
    for mut exchange in all {
        read(&mut exchange.recv).await.unwrap();
    }
    link.settled().await;
    let stats = link.egress.stats();
    assert_eq!((stats.dialled, stats.connections, stats.idle), (5, 2, 2));
}

/// A service that reports its request and the end of the connection.
async fn watched(start: &'static [u8]) -> (u16, mpsc::Receiver<&'static str>) {
    let (sender, events) = mpsc::channel(8);
    let port = serve(move |mut socket: TcpStream, _| {
        let sender = sender.clone();
        async move {
            read_head(&mut socket).await;
            sender.send("requested").await.unwrap();
            send(&mut socket, start).await;
            let mut buffer = [0; 4096];
            let mut filler = start.len() > 60;
            loop {
                if filler
                    && tokio::time::timeout(Duration::from_millis(300), socket.write_all(&buffer))
                        .await
                        .is_err()
                {
                    filler = false;
                    sender.send("full").await.unwrap();
                }
                if filler {
                    continue;
                }
                if !matches!(socket.read(&mut buffer).await, Ok(1..)) {
                    break;
                }
            }
            sender.send("closed").await.unwrap();
        }
    })
    .await;
    (port, events)
}

#[tokio::test]
async fn a_visitor_that_leaves_closes_the_connection_to_the_service() {
    // The visitor leaves while the service is silent, in the middle of an upload, and in the middle of an unread
    // response.
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
        let (port, mut events) = watched(start).await;
        let link = EgressLink::to(http_service(port), Config::default());
        let exchange = link.open(TunnelRequest::new(method, "/", &[]).http(b""), ended);
        assert_eq!(within(events.recv()).await, Some("requested"));
        if start.len() > 60 {
            assert_eq!(
                within(events.recv()).await,
                Some("full"),
                "credit holds the service"
            );
        }
        drop(exchange);
        assert_eq!(within(events.recv()).await, Some("closed"));
        link.settled().await;
        until("the counters agree", || {
            link.egress.stats().connections == 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_response_that_is_wanted_no_more_closes_the_connection() {
    let (port, mut events) = watched(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhello").await;
    let link = EgressLink::to(http_service(port), Config::default());
    let Exchange { send, mut recv } =
        link.open(TunnelRequest::new("POST", "/", &[]).http(b""), false);
    assert_eq!(within(events.recv()).await, Some("requested"));
    next_part(&mut recv).await.unwrap().unwrap();
    // The bytes that the visitor sent still reach the service, up to the abort (P-6.2).
    drop(recv);
    send.abort(ResetCode::Cancelled, "left");
    assert_eq!(within(events.recv()).await, Some("closed"));
    link.settled().await;
}

#[tokio::test]
async fn stalled_visitors_delay_no_other() {
    let body = "x".repeat(200_000);
    let response: &str = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .leak();
    let port = fixed(response).await;
    let link = EgressLink::to(http_service(port), Config::default());
    let stalled: Vec<_> = (0..100)
        .map(|_| link.open(TunnelRequest::get("/").http(b""), true))
        .collect();
    until("the counters agree", || {
        link.egress.stats().connections == 100
    })
    .await;
    for _ in 0..5 {
        assert_eq!(link.get("/").await.unwrap().body.len(), body.len());
    }
    let waiting = link.near.stats().waiting_bytes;
    assert!(waiting <= 100 * 32 * 1024, "{waiting}");
    for mut exchange in stalled {
        assert_eq!(
            read(&mut exchange.recv).await.unwrap().body.len(),
            body.len()
        );
    }
    link.settled().await;
}

#[tokio::test]
async fn only_services_of_configured_tunnels_are_reached() {
    let port = fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let link = EgressLink::new(Config::default());
    assert_eq!(link.get("/").await.unwrap_err().reason, Reason::NoTunnel);
    link.serve(http_service(port));
    link.get("/").await.unwrap();
    let other = TunnelRequest::get("/").tunnel("other");
    assert_eq!(
        link.request(&other, b"").await.unwrap_err().reason,
        Reason::NoTunnel
    );
    let connect = TunnelRequest::new("CONNECT", "/", &[]);
    assert_eq!(
        link.request(&connect, b"").await.unwrap_err().reason,
        Reason::ProtocolError
    );
    link.egress.set_draining(true);
    assert_eq!(link.get("/").await.unwrap_err().reason, Reason::Draining);
    link.egress.set_draining(false);
    // Two tunnels to one address share its connections.
    let both = [TUNNEL, "other"].map(|name| (Box::from(name), http_service(port)));
    let requests = link.egress.requests_of(TUNNEL);
    assert!(requests > 0);
    link.egress.set_services(HashMap::from(both));
    assert_eq!(link.egress.requests_of(TUNNEL), requests, "unchanged");
    assert_eq!(link.request(&other, b"").await.unwrap().text(), "ok");
    link.settled().await;
    assert_eq!(
        (link.egress.stats().dialled, link.egress.stats().idle),
        (1, 1)
    );
    let tasks = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    link.egress.set_services(HashMap::new());
    assert_eq!(link.egress.stats().connections, 0);
    until("the counters agree", || {
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
            let link = EgressLink::to(
                http_service(if round % 2 == 0 { good } else { slow }),
                short(),
            );
            let exchanges: Vec<_> = (0..20)
                .map(|_| link.open(TunnelRequest::get("/").http(b""), true))
                .collect();
            if round % 4 == 0 {
                for mut exchange in exchanges {
                    read(&mut exchange.recv).await.unwrap();
                }
            } else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                drop(exchanges);
            }
            link.settled().await;
        }
        until("the counters agree", || metrics.num_alive_tasks() == before).await;
        // The services' ends are in this process too: when they are closed, the egress has closed its ends.
        until("the counters agree", || open_files() < 60).await;
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
            let link = EgressLink::with(ends(), shared);
            link.serve(http_service(port));
            for _ in 0..3 {
                assert_eq!(link.get("/").await.unwrap().text(), "ok");
                link.settled().await;
            }
        });
        assert_eq!(egress.stats().idle, 1);
        drop(runtime);
        assert_eq!((egress.stats().connections, egress.stats().idle), (0, 0));
    }
    assert_eq!((egress.stats().dialled, egress.stats().reused), (2, 4));
}
