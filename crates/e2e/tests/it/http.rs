//! HTTP of visitors and services through both binaries. F03, F12, F13, F20, F45, P-3.1 to P-3.6, P-7.1, and the
//! responses to invalid input.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_e2e::{
    End, HOST, Raw, Scripted, Server, Service, Visitor, World, checked, empty, eventually, feed,
    full, full_response, get, pattern, within,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

const SOON: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;

/// Reads a request's head and the bytes that arrived with it.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(length) => head.extend_from_slice(&piece[..length]),
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A service that responds to every request with the same bytes, keeping its connections open.
async fn canned(response: &'static str) -> Scripted {
    Scripted::start(move |mut stream| async move {
        loop {
            let head = read_head(&mut stream).await;
            if head.is_empty() || stream.write_all(response.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// The values of a header that the service received.
fn seen<'v>(echoed: &'v Value, name: &str) -> Vec<&'v str> {
    let headers = echoed["headers"].as_array().unwrap();
    headers
        .iter()
        .filter(|header| header[0] == name)
        .map(|header| header[1].as_str().unwrap())
        .collect()
}

async fn plain_methods(visitor: &mut Visitor) {
    let got = visitor.get("/bytes/1000").await;
    assert_eq!((got.status.as_u16(), got.body.len()), (200, 1000));
    assert_eq!(got.header("content-length"), "1000");

    let posted = visitor.post("/echo", full("hello")).await;
    assert_eq!(
        (posted.status.as_u16(), posted.text().as_str()),
        (200, "hello")
    );

    let head = visitor.request(&Method::HEAD, "/bytes/1000", empty());
    let head = visitor.whole(head).await.unwrap();
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), "1000");

    for status in [204, 304, 404, 500, 599] {
        let response = visitor.get(&format!("/status/{status}")).await;
        assert_eq!((response.status.as_u16(), response.body.len()), (status, 0));
        assert_eq!(response.header("x-service"), "adit");
        assert_eq!(
            response.reason(),
            "",
            "the service's own failures are no reasons of ours"
        );
    }
    // The connection remains usable.
    assert_eq!(visitor.get("/who").await.text(), "site");
}

/// F03: methods and statuses cross the tunnel unchanged for a visitor over HTTP/1.1.
#[tokio::test]
async fn methods_and_statuses_over_http1() {
    let world = World::site().await;
    plain_methods(&mut world.http1().await).await;
}

/// F03: methods and statuses cross the tunnel unchanged for a visitor over HTTP/2.
#[tokio::test]
async fn methods_and_statuses_over_http2() {
    let world = World::site().await;
    let mut visitor = world.http2().await;
    plain_methods(&mut visitor).await;
    assert_eq!(visitor.get("/who").await.version, Version::HTTP_2);
}

/// F03: methods and statuses cross the tunnel unchanged from a service over HTTP/2 in clear text.
#[tokio::test]
async fn methods_and_statuses_of_an_h2c_service() {
    let world = World::h2c().await;
    plain_methods(&mut world.http1().await).await;
    plain_methods(&mut world.http2().await).await;
    let echoed: Value = serde_json::from_slice(&world.get("/request").await.body).unwrap();
    assert_eq!(echoed["version"], "HTTP/2.0");
}

/// F03: the service handles a range; the headers cross in both directions.
#[tokio::test]
async fn ranges_pass_through() {
    let service = canned(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/10\r\nContent-Length: 3\r\n\r\ncde",
    )
    .await;
    let world = World::before(service.addr).await;
    let mut visitor = world.http1().await;
    let mut request = visitor.request(&Method::GET, "/file", empty());
    request
        .headers_mut()
        .insert("range", HeaderValue::from_static("bytes=2-4"));
    let response = visitor.whole(request).await.unwrap();
    assert_eq!(response.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(
        (response.header("content-range"), response.text().as_str()),
        ("bytes 2-4/10", "cde")
    );
}

async fn bodies_both_ways(visitor: &mut Visitor) {
    for length in [0, 1, 100, 8 * 1024, 32 * 1024, 100_000, 3 * MIB] {
        for sized in [true, false] {
            let sum = visitor.post("/sum", pattern(length, sized)).await;
            assert_eq!(
                sum.text(),
                format!("{length} bytes, as sent"),
                "sized: {sized}"
            );
            let path = if sized { "bytes" } else { "chunked" };
            let request = visitor.request(&Method::GET, &format!("/{path}/{length}"), empty());
            let response = visitor.send(request).await.unwrap();
            assert_eq!(
                checked(response.into_body()).await,
                Ok(length),
                "sized: {sized}"
            );
        }
    }
}

/// F03, P-3.2: bodies of every size, with and without a length, cross in both directions, with an HTTP/1.1 visitor.
#[tokio::test]
async fn bodies_with_and_without_length_over_http1() {
    let world = World::site().await;
    bodies_both_ways(&mut world.http1().await).await;
}

/// F03, P-3.2: bodies of every size, with and without a length, cross in both directions, with an HTTP/2 visitor.
#[tokio::test]
async fn bodies_with_and_without_length_over_http2() {
    let world = World::site().await;
    bodies_both_ways(&mut world.http2().await).await;
}

/// F03, P-3.2: bodies of every size, with and without a length, cross to and from a service over HTTP/2.
#[tokio::test]
async fn bodies_with_and_without_length_to_an_h2c_service() {
    let world = World::h2c().await;
    bodies_both_ways(&mut world.http1().await).await;
    bodies_both_ways(&mut world.http2().await).await;
}

async fn trailers_both_ways(world: &World, visitor: &mut Visitor) {
    let (feeder, body) = feed();
    let mut request = visitor.request(&Method::POST, "/echo", body);
    request
        .headers_mut()
        .insert("trailer", HeaderValue::from_static("x-sum"));
    request
        .headers_mut()
        .insert("te", HeaderValue::from_static("trailers"));
    let fed = tokio::spawn(async move {
        feeder.send("with trailers").await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("42"));
        feeder.trailers(trailers).await;
    });
    let response = visitor.whole(request).await.unwrap();
    fed.await.unwrap();
    assert_eq!(response.text(), "with trailers");
    let trailers = response.trailers.expect("trailers");
    assert_eq!(trailers.get("x-sum").unwrap(), "42");
    assert_eq!(world.get("/who").await.text(), "site");
}

/// F03: trailers cross in both directions, whatever protocol each end uses.
#[tokio::test]
async fn trailers_cross_in_both_directions() {
    let world = World::site().await;
    trailers_both_ways(&world, &mut world.http1().await).await;
    trailers_both_ways(&world, &mut world.http2().await).await;
    let world = World::h2c().await;
    trailers_both_ways(&world, &mut world.http1().await).await;
    trailers_both_ways(&world, &mut world.http2().await).await;
}

const EXPECTING: &str = "POST /sum HTTP/1.1\r\nHost: web.localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n";

/// P-3.5: the body is read when the service requests it.
#[tokio::test]
async fn expect_continue_waits_for_the_service() {
    let world = World::site().await;
    let mut visitor = world.raw().await;
    visitor.send(EXPECTING).await;
    let echoed = visitor.read_text("\r\n\r\n").await;
    assert_eq!(echoed.status(), 100);
    visitor.send(adit_e2e::piece(0, 10)).await;
    let response = visitor.read_text("as sent").await;
    assert_eq!(response.status(), 200);
    assert!(
        response.text().ends_with("10 bytes, as sent"),
        "{}",
        response.text()
    );
}

/// P-3.5: a service that rejects the request responds before the body is read.
#[tokio::test]
async fn expect_continue_refused_by_the_service() {
    let service = canned("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await;
    let world = World::before(service.addr).await;
    let mut visitor = world.raw().await;
    visitor.send(EXPECTING).await;
    let response = visitor.read_text("no").await;
    assert_eq!(response.status(), 417);
}

/// P-3.5: a service that does not know `Expect` stays silent; after a second the body is read nevertheless.
#[tokio::test]
async fn expect_continue_with_a_silent_service() {
    let service = Scripted::start(|mut stream| async move {
        let head = read_head(&mut stream).await;
        let mut body = head.split("\r\n\r\n").nth(1).unwrap_or_default().len();
        let mut piece = [0; 64];
        while body < 10 {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(length) => body += length,
            }
        }
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nread")
            .await;
    })
    .await;
    let world = World::before(service.addr).await;
    let mut visitor = world.raw().await;
    visitor.send(EXPECTING).await;
    assert_eq!(visitor.read_text("\r\n\r\n").await.status(), 100);
    visitor.send("0123456789").await;
    assert_eq!(visitor.read_text("read").await.status(), 200);
}

/// F03: events of a stream are flushed at once.
#[tokio::test]
async fn events_come_when_they_are_sent() {
    let (sender, mut feeders) = tokio::sync::mpsc::channel(1);
    let service = Service::start(move |_| {
        let sender = sender.clone();
        async move {
            let (feeder, body) = feed();
            sender.send(feeder).await.expect("a test that runs");
            let mut response = Response::new(body);
            let kind = HeaderValue::from_static("text/event-stream");
            response.headers_mut().insert("content-type", kind);
            Ok(response)
        }
    })
    .await;
    let world = World::of(service).await;
    for mut visitor in [world.http1().await, world.http2().await] {
        let request = visitor.request(&Method::GET, "/events", empty());
        let response = within("a head before the first event", SOON, visitor.send(request)).await;
        let mut body = response.unwrap().into_body();
        let feeder = feeders.recv().await.unwrap();
        for number in 0..5 {
            let event = format!("data: {number}\n\n");
            assert!(feeder.send(event.clone()).await);
            let frame = within("an event at once", SOON, body.frame()).await;
            assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), event);
        }
        drop((visitor, body));
        // A visitor that has only shut its sending side looks the same as one that has left, until something is sent to
        // it.
        within("a service that learns of it", SOON, async {
            while feeder.send("data: more\n\n").await {}
        })
        .await;
    }
}

/// P-2.10: headers keep their order and their repetitions.
#[tokio::test]
async fn repeated_set_cookie_survives() {
    let service = canned(
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nX-Between: 1\r\nSet-Cookie: b=2, c\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let world = World::before(service.addr).await;
    for mut visitor in [world.http1().await, world.http2().await] {
        let response = visitor.get("/").await;
        let cookies: Vec<_> = response.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1; Path=/", "b=2, c"]);
    }
}

/// P-3.3: hop-by-hop headers do not cross, in either direction.
#[tokio::test]
async fn hop_by_hop_headers_stay_on_their_hop() {
    let world = World::site().await;
    let mut visitor = world.raw().await;
    visitor
        .send(
            "GET /request HTTP/1.1\r\nHost: web.localhost\r\nConnection: x-mine, keep-alive\r\nX-Mine: 1\r\n\
             Keep-Alive: timeout=9\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: nonsense\r\nX-Kept: 1\r\n\r\n",
        )
        .await;
    let response = visitor.read_text("}").await;
    assert_eq!(response.status(), 200);
    let text = response.text();
    let echoed: Value = serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    for name in ["x-mine", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(seen(&echoed, name).is_empty(), "{name}: {echoed}");
    }
    assert!(
        seen(&echoed, "te").iter().all(|te| *te == "trailers"),
        "{echoed}"
    );
    assert_eq!(seen(&echoed, "x-kept"), ["1"]);

    let service = canned(
        "HTTP/1.1 200 OK\r\nConnection: x-inner, keep-alive\r\nX-Inner: 1\r\nKeep-Alive: timeout=9\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let world = World::before(service.addr).await;
    let response = world.get("/").await;
    assert_eq!(
        (response.header("x-inner"), response.header("keep-alive")),
        ("", "")
    );
    assert_eq!(response.header("x-kept"), "1");
}

/// P-3.4, F45: the headers with the visitor's address, the host, and the request id.
#[tokio::test]
async fn the_service_gets_the_visitors_address() {
    let world = World::site().await;
    let mut visitor = world.http1().await;
    let mut request = visitor.request(&Method::GET, "/request", empty());
    request
        .headers_mut()
        .insert("x-forwarded-proto", HeaderValue::from_static("gopher"));
    let response = visitor.whole(request).await.unwrap();
    let echoed: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(seen(&echoed, "host"), [HOST]);
    assert_eq!(seen(&echoed, "x-forwarded-host"), [HOST]);
    assert_eq!(seen(&echoed, "x-forwarded-proto"), ["http"]);
    let source = seen(&echoed, "x-forwarded-for");
    assert!(
        source.len() == 1 && source[0].ends_with("127.0.0.1"),
        "{source:?}"
    );
    let id = seen(&echoed, "x-request-id");
    assert_eq!(id.len(), 1);
    assert!(
        id[0].len() == 36 && id[0].as_bytes()[14] == b'7',
        "a UUIDv7: {id:?}"
    );
}

/// F03: an HTTP/1.0 visitor gets a body that ends with its connection, never chunks.
#[tokio::test]
async fn an_http10_visitor_is_served() {
    let world = World::site().await;
    for path in ["/bytes/70000", "/chunked/70000"] {
        let mut visitor = world.raw().await;
        visitor
            .send(format!("GET {path} HTTP/1.0\r\nHost: {HOST}\r\n\r\n"))
            .await;
        let response = visitor.read_to_end().await;
        assert_eq!((response.status(), response.end), (200, End::Closed));
        assert_eq!(response.header("transfer-encoding"), None);
        let split = response
            .bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap();
        let body = bytes::Bytes::copy_from_slice(&response.bytes[split + 4..]);
        assert_eq!(checked(full(body)).await, Ok(70_000));
    }
}

/// F03: several requests at a time on one HTTP/2 connection.
#[tokio::test]
async fn an_http2_connection_carries_many_at_a_time() {
    let world = World::site().await;
    let visitor = world.http2().await;
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..100_u64 {
        let mut visitor = visitor.share();
        tasks.spawn(async move {
            let length = index * 1000;
            let request = visitor.request(&Method::GET, &format!("/chunked/{length}"), empty());
            let response = visitor.send(request).await.unwrap();
            assert_eq!(checked(response.into_body()).await, Ok(length));
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

async fn large_bodies(world: &World, mut visitor: Visitor, sized: bool) {
    let length = 64 * MIB;
    let path = if sized { "bytes" } else { "chunked" };
    let request = visitor.request(&Method::GET, &format!("/{path}/{length}"), empty());
    let response = visitor.send(request).await.unwrap();
    assert_eq!(checked(response.into_body()).await, Ok(length));
    let sum = visitor.post("/sum", pattern(length, sized)).await;
    assert_eq!(sum.text(), format!("{length} bytes, as sent"));
    assert_eq!(world.get("/who").await.text(), "site");
}

/// F13: bodies far larger than any buffer arrive as they were sent.
#[tokio::test]
async fn large_bodies_arrive_unharmed_over_http1() {
    let world = World::site().await;
    tokio::join!(
        large_bodies(&world, world.http1().await, true),
        large_bodies(&world, world.http1().await, false),
    );
}

/// F13.
#[tokio::test]
async fn large_bodies_arrive_unharmed_over_http2() {
    let world = World::h2c().await;
    large_bodies(&world, world.http2().await, true).await;
}

/// P-3.6, P-6.1: the early rejection of an upload by a service reaches the visitor, which is still sending.
#[tokio::test]
async fn an_early_413_reaches_a_visitor_that_still_sends() {
    let service = Scripted::start(|mut stream| async move {
        read_head(&mut stream).await;
        let response = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 7\r\nConnection: close\r\n\r\ntoo big";
        let _ = stream.write_all(response).await;
        // The connection is closed in order: further bytes are read and dropped until the other side has ended.
        let _ = stream.shutdown().await;
        let mut piece = vec![0; 16 * 1024];
        while matches!(stream.read(&mut piece).await, Ok(length) if length > 0) {}
    })
    .await;
    let world = World::before(service.addr).await;
    for mut visitor in [world.http1().await, world.http2().await] {
        let (feeder, body) = feed();
        let request = visitor.request(&Method::POST, "/upload", body);
        let sending =
            tokio::spawn(async move { while feeder.send(adit_e2e::piece(0, 32 * 1024)).await {} });
        let response = within(
            "a response before the upload's end",
            SOON,
            visitor.send(request),
        )
        .await;
        let response = response.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let response = full_response(response).await.unwrap();
        assert_eq!(response.text(), "too big");
        drop(visitor);
        within("an end of the upload", SOON, sending).await.unwrap();
    }
}

/// F20, P-6.2: when the visitor leaves, the request to the service is cancelled.
#[tokio::test]
async fn a_visitor_that_leaves_cancels_the_request() {
    let world = World::site().await;
    let stats = world.service().stats.clone();
    let cancelled = async |number: usize| {
        let what = format!("cancelled request {number}");
        eventually(&what, SOON, async || {
            (stats.cancelled() == number).then_some(())
        })
        .await;
    };
    // The visitor leaves while the response is awaited.
    let mut raw = world.raw().await;
    raw.send(format!("GET /held HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .await;
    eventually("a held request", SOON, async || {
        (stats.begun() == 1).then_some(())
    })
    .await;
    raw.reset();
    cancelled(1).await;
    // The visitor leaves in the middle of the response.
    let mut raw = world.raw().await;
    raw.send(format!("GET /begun HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .await;
    raw.read_text("first,").await;
    raw.reset();
    cancelled(2).await;
    // The visitor closes its connection in the middle of a download that is being sent.
    let mut raw = world.raw().await;
    raw.send(format!(
        "GET /chunked/10000000000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
    ))
    .await;
    raw.read_text("200 OK").await;
    drop(raw);
    cancelled(3).await;
    // The visitor resets one of several streams of an HTTP/2 connection.
    let mut visitor = world.http2().await;
    let request = visitor.request(&Method::GET, "/begun", empty());
    let mut response = visitor.send(request).await.unwrap();
    assert!(response.frame().await.unwrap().is_ok());
    drop(response);
    cancelled(4).await;
    assert_eq!(visitor.get("/who").await.text(), "site");
    let counts = world.server.status().await;
    assert_eq!(counts["clients"][0]["requests"], 0, "{counts}");
}

/// A service that breaks off: the bytes that it sends, and whether it resets the connection.
async fn broken_off(response: &'static str, reset: bool) -> (Scripted, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let echoed = go.clone();
    let service = Scripted::start(move |mut stream| {
        let go = echoed.clone();
        async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(response.as_bytes()).await;
            go.notified().await;
            if reset {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
        }
    })
    .await;
    (service, go)
}

/// P-7.1: a response that breaks off never looks complete.
#[tokio::test]
async fn a_service_that_breaks_off_is_seen_to() {
    for (response, reset) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart", true),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
            true,
        ),
        ("HTTP/1.1 200 OK\r\n\r\npart", true),
    ] {
        for version in ["1.1", "1.0"] {
            let (service, go) = broken_off(response, reset).await;
            let world = World::before(service.addr).await;
            let mut visitor = world.raw().await;
            visitor
                .send(format!("GET / HTTP/{version}\r\nHost: {HOST}\r\n\r\n"))
                .await;
            visitor.read_text("part").await;
            go.notify_one();
            let rest = visitor.read_to_end().await;
            assert!(
                !rest.text().contains("0\r\n\r\n"),
                "{response:?}: {:?}",
                rest.text()
            );
            if version == "1.0" && !response.contains("Content-Length") {
                assert_eq!(rest.end, End::Reset, "{response:?}");
            }
        }
        let (service, go) = broken_off(response, reset).await;
        let world = World::before(service.addr).await;
        let mut visitor = world.http2().await;
        let request = visitor.request(&Method::GET, "/", empty());
        let mut response = visitor.send(request).await.unwrap();
        assert_eq!(
            response
                .frame()
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap(),
            "part"
        );
        go.notify_one();
        assert!(response.frame().await.is_some_and(|frame| frame.is_err()));
    }
}

/// A body that ends with its connection, closed in order, is complete.
#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_whole() {
    let (service, go) = broken_off("HTTP/1.1 200 OK\r\n\r\npart", false).await;
    go.notify_one();
    let world = World::before(service.addr).await;
    let response = world.get("/").await;
    assert_eq!(response.text(), "part");
}

/// F20: a service that aborts before it responds, that cannot be reached, or that uses another protocol.
#[tokio::test]
async fn failures_before_the_response_have_a_reason_and_an_id() {
    let silent = Scripted::start(|mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    let world = World::before(silent.addr).await;
    let response = world.post("/", full("x")).await;
    assert_eq!(
        (response.status.as_u16(), response.reason()),
        (502, "service_aborted")
    );
    assert_eq!(response.header("adit-request-id").len(), 36);

    let nonsense = canned("220 mail.example.com ESMTP\r\n\r\n").await;
    let world = World::before(nonsense.addr).await;
    let response = world.get("/").await;
    assert_eq!(
        (response.status.as_u16(), response.reason()),
        (502, "service_aborted")
    );

    let gone = Scripted::start(|_| async {}).await;
    let addr = gone.addr;
    drop(gone);
    let world = World::before(addr).await;
    let response = world.get("/").await;
    assert_eq!(
        (response.status.as_u16(), response.reason()),
        (502, "dial_failed")
    );
}

/// Invalid input gets error responses, and none of it reaches the service.
#[tokio::test]
async fn bad_input_is_refused_at_the_door() {
    let service = Service::site("site").await;
    let world =
        World::configured("server:\n  timeouts: { startup_grace: 0s }\n", service.addr).await;
    let long = "a".repeat(80 * 1024);
    let many = "x: y\r\n".repeat(300);
    let host = format!("Host: {HOST}");
    let table: &[(&str, String, u16)] = &[
        ("nonsense", "nonsense\r\n\r\n".into(), 400),
        (
            "an unknown version",
            format!("GET / HTTP/9.9\r\n{host}\r\n\r\n"),
            400,
        ),
        ("no host", "GET / HTTP/1.1\r\n\r\n".into(), 400),
        (
            "two hosts",
            format!("GET / HTTP/1.1\r\n{host}\r\n{host}\r\n\r\n"),
            400,
        ),
        (
            "an empty host",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n".into(),
            400,
        ),
        (
            "an invalid host",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(),
            400,
        ),
        (
            "user information",
            format!("GET / HTTP/1.1\r\nHost: me@{HOST}\r\n\r\n"),
            400,
        ),
        (
            "a blank before the colon",
            "GET / HTTP/1.1\r\nHost : web.localhost\r\n\r\n".into(),
            400,
        ),
        (
            "a null byte",
            format!("GET / HTTP/1.1\r\n{host}\r\nX: a\0b\r\n\r\n"),
            400,
        ),
        (
            "a folded line",
            format!("GET / HTTP/1.1\r\n{host}\r\nX: a\r\n b\r\n\r\n"),
            400,
        ),
        (
            "length and chunks",
            format!(
                "POST / HTTP/1.1\r\n{host}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            400,
        ),
        (
            "chunks and length",
            format!(
                "POST / HTTP/1.1\r\n{host}\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"
            ),
            400,
        ),
        (
            "two lengths",
            format!(
                "POST / HTTP/1.1\r\n{host}\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"
            ),
            400,
        ),
        (
            "a negative length",
            format!("POST / HTTP/1.1\r\n{host}\r\nContent-Length: -1\r\n\r\n"),
            400,
        ),
        (
            "a length with a sign",
            format!("POST / HTTP/1.1\r\n{host}\r\nContent-Length: +1\r\n\r\na"),
            400,
        ),
        (
            "a length in words",
            format!("POST / HTTP/1.1\r\n{host}\r\nContent-Length: one\r\n\r\n"),
            400,
        ),
        (
            "another coding",
            format!(
                "POST / HTTP/1.1\r\n{host}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
            ),
            400,
        ),
        (
            "chunked twice",
            format!(
                "POST / HTTP/1.1\r\n{host}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            400,
        ),
        (
            "a proxy's request",
            format!("CONNECT {HOST}:80 HTTP/1.1\r\n{host}\r\n\r\n"),
            400,
        ),
        (
            "a head too long",
            format!("GET / HTTP/1.1\r\n{host}\r\nX: {long}\r\n\r\n"),
            431,
        ),
        (
            "too many lines",
            format!("GET / HTTP/1.1\r\n{host}\r\n{many}\r\n"),
            431,
        ),
    ];
    for (what, bytes, status) in table {
        let mut visitor = world.raw().await;
        visitor.send(bytes).await;
        let response = visitor.read_to_end().await;
        assert_eq!(response.status(), *status, "{what}: {}", response.text());
    }
    // P-7: responses that adit itself makes contain the reason.
    let mut visitor = world.raw().await;
    visitor.send(&table[10].1).await;
    let response = visitor.read_to_end().await;
    assert_eq!(
        response.header("adit-reason").as_deref(),
        Some("bad_request")
    );
    let unknown = get(world.server.http, "unknown.test", "/").await;
    assert_eq!(
        (unknown.status.as_u16(), unknown.reason()),
        (404, "no_tunnel")
    );
    assert_eq!(
        service.stats.begun(),
        0,
        "nothing of it reached the service"
    );
    assert_eq!(world.get("/who").await.text(), "site");
}

/// A request that is smuggled after a body with a disputed length is never served.
#[tokio::test]
async fn a_smuggled_request_is_never_served() {
    let paths = Arc::new(AtomicUsize::new(0));
    let counted = paths.clone();
    let service = Service::start(move |request| {
        if request.uri().path() == "/secret" {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        async { Ok(Response::new(empty())) }
    })
    .await;
    let world = World::of(service).await;
    let hidden = format!("GET /secret HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    for lines in [
        format!(
            "Content-Length: {}\r\nTransfer-Encoding: chunked",
            hidden.len() + 5
        ),
        "Transfer-Encoding: chunked\r\nContent-Length: 5".to_owned(),
        "Transfer-Encoding: xchunked".to_owned(),
        "Transfer-Encoding:\x0bchunked".to_owned(),
    ] {
        let mut visitor = world.raw().await;
        visitor
            .send(format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n\r\n0\r\n\r\n{hidden}"
            ))
            .await;
        let response = visitor.read_to_end().await;
        assert_eq!(response.status(), 400, "{lines:?}: {}", response.text());
    }
    assert_eq!(paths.load(Ordering::SeqCst), 0);
}

/// A tunnel whose client has left: a bounded wait, then 503 with a reason and `retry-after`.
#[tokio::test]
async fn a_tunnel_without_a_client_responds_after_a_bounded_wait() {
    let service = Service::site("site").await;
    let config = "server:\n  timeouts: { client_wait: 300ms, startup_grace: 0s }\n";
    let mut world = World::configured(config, service.addr).await;
    assert_eq!(world.get("/who").await.text(), "site");
    world.client.kill();
    world.server.wait_for_clients(0).await;
    let response = world.get("/who").await;
    assert_eq!(
        (response.status.as_u16(), response.reason()),
        (503, "no_client")
    );
    assert!(!response.header("retry-after").is_empty());
}

/// F12: a visitor that makes no progress is reset, and its permit is returned.
#[tokio::test]
async fn a_stalled_visitor_is_reset() {
    let service = Service::site("site").await;
    let server = Server::with("server:\n  timeouts: { stall: 500ms }\n").await;
    let client = adit_e2e::Client::http(&server, "client-1", "web", service.addr).await;
    let mut upload = Raw::connect(server.http).await;
    upload
        .send(format!(
            "POST /sum HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100000\r\n\r\n"
        ))
        .await;
    upload.send(adit_e2e::piece(0, 9)).await;
    let response = upload.read_to_end().await;
    assert_eq!(response.status(), 408, "{}", response.text());
    assert_eq!(response.header("adit-reason").as_deref(), Some("stalled"));

    let before = service.stats.begun();
    let mut download = Raw::narrow(server.http, 4096).await;
    download
        .send(format!(
            "GET /chunked/100000000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
        ))
        .await;
    eventually("a download that has begun", SOON, async || {
        (service.stats.begun() > before).then_some(())
    })
    .await;
    eventually("a permit that came back", SOON, async || {
        let status = server.status().await;
        (status["process"]["permits_in_use"] == 0).then_some(())
    })
    .await;
    eventually("a service that learns of it", SOON, async || {
        (service.stats.cancelled() >= 1).then_some(())
    })
    .await;
    let status = server.status().await;
    assert_eq!(status["visitors"]["failures"]["stalled"], 2, "{status}");
    drop(download);
    drop(client);
}

/// F12: above the limit a visitor waits a bounded time, then gets 503 with the reason and `retry-after`.
#[tokio::test]
async fn over_the_limit_visitors_wait_and_then_get_503() {
    let service = Service::site("site").await;
    let config = "server:\n  limits: { max_requests: 2 }\n  timeouts: { permit_wait: 300ms }\n";
    let world = World::configured(config, service.addr).await;
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let mut visitor = world.http1().await;
        held.spawn(async move { visitor.get("/held").await });
    }
    let stats = service.stats.clone();
    eventually("two held requests", SOON, async || {
        (stats.begun() == 2).then_some(())
    })
    .await;
    let response = world.get("/who").await;
    assert_eq!(
        (response.status.as_u16(), response.reason()),
        (503, "limit")
    );
    assert!(!response.header("retry-after").is_empty());
    service.release();
    while let Some(response) = held.join_next().await {
        assert_eq!(response.unwrap().text(), "site");
    }
    assert_eq!(world.get("/who").await.text(), "site");
}
