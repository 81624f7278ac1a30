//! Invalid requests, byte by byte, and failures before the head of the response.

use std::{sync::atomic::Ordering, time::Duration};

use adit_codec::ResetCode;
use adit_flow::Gate;
use adit_ingress::{Direction, Layer, RequestMeta, Verdict, layers};
use adit_link::{Failure, Reason};
use adit_testlink::{
    HttpEntry, Link, Route,
    exchanges::{begin, echo, failure_of, hello, respond},
    http_config,
    http1::{read_to_end, read_until, send},
    http2,
    tcp::reset,
    until, within,
};

/// The status code, and the reason header if there is one.
fn verdict(response: &str) -> (&str, Option<&str>) {
    let status = response.get(9..12).unwrap_or("");
    let reason = response
        .lines()
        .find_map(|line| line.strip_prefix("adit-reason: "));
    (status, reason)
}

#[tokio::test(start_paused = true)]
async fn ambiguous_requests_never_reach_a_client() {
    let entry = HttpEntry::serving(http_config(), echo);
    let long = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(300_000)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "x: y\r\n".repeat(300)
    );
    let path = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(65_535));
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let zeros = format!("{chunked}00000000000000001\r\nx\r\n0\r\n\r\n");
    let blanks = format!("{chunked}1{}\r\nx\r\n0\r\n\r\n", " ".repeat(5_000));
    let bad = Some("bad_request");
    let large = Some("header_too_large");
    let table: &[(&str, &str, Option<&str>)] = &[
        // Two lengths, or a length and a coding.
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: chunked\r\nX: y\r\ncontent-LENGTH:5\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "400",
            bad,
        ),
        // Invalid transfer codings.
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        // Invalid header lines.
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
            "400",
            bad,
        ),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\nX y: a\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\rHost: a\r\r", "400", bad),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "400", bad),
        ("GET / a HTTP/1.1\r\nHost: a\r\n\r\n", "400", bad),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", "400", bad),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "400", bad),
        ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", "400", bad),
        ("nonsense\r\n\r\n", "400", bad),
        ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "400", bad),
        // Invalid hosts and targets.
        ("GET / HTTP/1.1\r\n\r\n", "400", bad),
        ("GET / HTTP/1.0\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", "400", bad),
        ("GET / HTTP/1.1\r\nHost: :80\r\n\r\n", "400", bad),
        ("GET http://a/ HTTP/1.1\r\n\r\n", "400", bad),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400", bad),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400", bad),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "400", bad),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", "400", bad),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "400", bad),
        // Invalid bodies.
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            "400",
            bad,
        ),
        // P-3.9: zeros before the size of a chunk, blanks after it.
        (&zeros, "400", bad),
        (&blanks, "400", bad),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
            "400",
            bad,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            "400",
            bad,
        ),
        // Heads above the bounds.
        (&long, "431", large),
        (&many, "431", large),
        (&path, "414", large),
    ];
    for (request, status, reason) in table {
        let shown: String = request.chars().take(120).collect();
        let more = format!("{request}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = entry.raw(&more).await;
        let response =
            response.unwrap_or_else(|broken| panic!("reset after {broken:?}: {shown:?}"));
        assert_eq!(
            verdict(&response),
            (*status, *reason),
            "{shown:?}: {response}"
        );
        assert_eq!(
            response.matches("HTTP/1.").count(),
            1,
            "{shown:?}: {response}"
        );
        assert!(
            response.contains("connection: close\r\n") || response.starts_with("HTTP/1.0"),
            "{response}"
        );
    }
    entry.settled().await;
    // An invalid body is detected only while it is forwarded: the exchange is then reset. No other request reached the
    // client.
    let seen = entry.seen();
    assert!(seen.iter().all(|r| &r.method[..] == b"POST"), "{seen:?}");
    assert_eq!(seen.len(), 8);
}

#[tokio::test(start_paused = true)]
async fn the_check_for_two_lengths_follows_pipelined_requests() {
    let entry = HttpEntry::serving(http_config(), echo);
    // Bodies that look like heads, with each framing, in one piece and byte by byte.
    let fake = "POST /fake HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let size = fake.len();
    let good = format!(
        "\r\nPOST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{fake}\
        POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n\
        {size:X};ext=\"1\"\r\n{fake}\r\n0\r\nContent-Length: 3\r\n\r\n\
        GET /3 HTTP/1.1\nHost: a\n\n\
        POST /4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nX-Content-Length: 5\r\n\r\n\
        1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"
    );
    let bad = "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for step in [usize::MAX, 1, 7] {
        let mut stream = entry.connect().await;
        let all = format!("{good}{bad}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        for part in all.as_bytes().chunks(step.min(all.len())) {
            send(&mut stream, part).await;
            if step == 1 {
                tokio::task::yield_now().await;
            }
        }
        let responses = read_to_end(&mut stream).await.unwrap();
        assert_eq!(
            responses.matches("HTTP/1.1 200 OK").count(),
            4,
            "{responses}"
        );
        assert_eq!(responses.matches("HTTP/1.1 400").count(), 1, "{responses}");
        assert_eq!(responses.matches(fake).count(), 2, "{responses}");
        let seen: Vec<_> = entry.seen().drain(..).collect();
        let paths: Vec<_> = seen.iter().map(|r| &r.path[..]).collect();
        assert_eq!(paths, [&b"/1"[..], b"/2", b"/3", b"/4"]);
    }
}

#[tokio::test(start_paused = true)]
async fn targets_of_every_form_are_understood() {
    let entry = HttpEntry::serving(http_config(), hello);
    let table: &[(&str, &str, &str)] = &[
        ("GET /a?b HTTP/1.1\r\nHost: a\r\n", "a", "/a?b"),
        (
            "GET http://b:8080/c HTTP/1.1\r\nHost: a\r\n",
            "b:8080",
            "/c",
        ),
        ("GET http://b HTTP/1.1\r\nHost: b\r\n", "b", "/"),
        ("GET http://b/ HTTP/1.0\r\n", "b", "/"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n", "a", "*"),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n", "[::1]:80", "/"),
        (
            "GET /%00/%2e%2e/ HTTP/1.1\r\nHost: A.Example\r\n",
            "A.Example",
            "/%00/%2e%2e/",
        ),
    ];
    for (request, authority, path) in table {
        let request = format!("{request}Connection: close\r\n\r\n");
        let response = entry.raw(&request).await.unwrap();
        assert_eq!(verdict(&response), ("200", None), "{request}");
        let seen = entry.seen().pop_back().unwrap();
        assert_eq!(
            (&seen.authority[..], &seen.path[..]),
            (authority.as_bytes(), path.as_bytes())
        );
        assert_eq!(seen.headers.first(b"host"), None);
        assert_eq!(
            seen.headers.first(b"x-forwarded-host"),
            Some(authority.as_bytes())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn failures_have_a_status_a_reason_and_advice() {
    for reason in Reason::ALL {
        if reason == Reason::Cancelled {
            continue;
        }
        let route = Route::director(&[], move |_, _| {
            Direction::Fail(Failure::new(reason, "it \"broke\""))
        });
        let entry = route.http(http_config());
        let response = entry
            .raw(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let status = reason.http_status().to_string();
        assert_eq!(verdict(&response), (&status[..], Some(reason.as_str())));
        assert!(response.contains("content-type: text/plain; charset=utf-8\r\n"));
        assert_eq!(
            response.contains("retry-after: 1\r\n"),
            status == "503",
            "{response}"
        );
        let id = response
            .lines()
            .find_map(|l| l.strip_prefix("adit-request-id: "))
            .unwrap();
        assert!(uuid::Uuid::parse_str(id).is_ok());
        let (_, text) = response.split_once("\r\n\r\n").unwrap();
        assert!(
            text.contains(id) && text.contains("it \"broke\"") && text.contains(reason.as_str())
        );
        let response = entry
            .raw(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let (_, json) = response.split_once("\r\n\r\n").unwrap();
        let start = format!(
            r#"{{"status":{status},"reason":"{reason}","detail":"it \"broke\"","advice":""#
        );
        assert!(json.starts_with(&start), "{json}");
        assert_eq!(entry.stats().failures.of(reason), 2);
        // The response to a request of HTTP/1.0 has that version.
        let response = entry
            .raw(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        assert!(
            response.starts_with(&format!("HTTP/1.0 {status} ")),
            "{response}"
        );
        // A response to HEAD has only a head, and the connection stays usable.
        let closes = matches!(
            reason,
            Reason::BadRequest | Reason::HeaderTooLarge | Reason::Stalled
        );
        let response = entry
            .raw(
                b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n\
                HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            )
            .await
            .unwrap();
        let responses = if closes { 1 } else { 2 };
        assert_eq!(
            response.matches("adit-reason").count(),
            responses,
            "{response}"
        );
        assert!(response.ends_with("\r\n\r\n"), "{response}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_before_the_head_becomes_an_error_response() {
    let table = [
        (ResetCode::DialFailed, "502", "dial_failed"),
        (ResetCode::ServiceTimeout, "504", "service_timeout"),
        (ResetCode::ServiceAborted, "502", "service_aborted"),
        (ResetCode::Limit, "503", "limit"),
        (ResetCode::NoTunnel, "404", "no_tunnel"),
        (ResetCode::Cancelled, "502", "service_aborted"),
    ];
    for (code, status, reason) in table {
        let entry = HttpEntry::serving(http_config(), move |_, exchange| async move {
            exchange.send.reset(code, "for a reason");
        });
        for request in [
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
            2\r\nhi\r\n0\r\n\r\n",
        ] {
            let response = entry.raw(request).await.unwrap();
            assert_eq!(verdict(&response), (status, Some(reason)), "{response}");
        }
        entry.settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_service_times_out() {
    let mut config = http_config();
    config.service_timeout = Duration::from_millis(300);
    let entry = HttpEntry::serving(config, |_, mut exchange| async move {
        // The service reads everything and sends nothing.
        while let Some(Ok(_)) = exchange.recv.part().await {}
        std::future::pending::<()>().await;
        drop(exchange);
    });
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
    ] {
        let response = entry.raw(request).await.unwrap();
        assert_eq!(
            verdict(&response),
            ("504", Some("service_timeout")),
            "{response}"
        );
    }
    // While the body is arriving, the timeout of the response does not run.
    let mut stream = entry.connect().await;
    let start = tokio::time::Instant::now();
    send(
        &mut stream,
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .await;
    for _ in 0..6 {
        send(&mut stream, b"1\r\nx\r\n").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let response = read_to_end(&mut stream).await.unwrap();
    assert_eq!(
        verdict(&response),
        ("504", Some("service_timeout")),
        "{response}"
    );
    assert!(start.elapsed() >= Duration::from_millis(750));
}

#[tokio::test(start_paused = true)]
async fn a_request_over_the_limit_waits_and_is_refused() {
    let gate = Gate::new(1, 10);
    let link = Link::serving(hello);
    let permits = layers::Permits::new(gate.clone(), Duration::from_millis(200));
    let mut route = Route::to(&link);
    route.layers.push(Box::new(permits));
    let entry = route.http(http_config());
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(verdict(&entry.raw(request).await.unwrap()).0, "200");
    let permit = gate.try_acquire().unwrap();
    let response = entry.raw(request).await.unwrap();
    assert_eq!(verdict(&response), ("503", Some("limit")));
    assert!(response.contains("retry-after: 1\r\n"));
    // A permit that is returned in time is given to the waiting request.
    let waiting = entry.raw(request);
    let freeing = async {
        while gate.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        drop(permit);
    };
    let (response, ()) = within(async { tokio::join!(waiting, freeing) }).await;
    assert_eq!(verdict(&response.unwrap()).0, "200");
    until("the permit is returned", || gate.in_use() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_held_as_long_as_the_response_lasts() {
    let gate = Gate::new(5, 10);
    let link = Link::serving(|_, exchange| async move {
        begin(&exchange, 200, &[], b"");
        exchange.send.send_all("first".into(), false).await.unwrap();
        // The exchange stays open until the visitor leaves.
        let left = failure_of(&exchange.send).await;
        assert_eq!(left.reason, Reason::Cancelled);
    });
    let permits = layers::Permits::new(gate.clone(), Duration::ZERO);
    let entry = Route::to(&link).layer(permits).http(http_config());
    let mut stream = entry.connect().await;
    send(&mut stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut stream, "first\r\n").await;
    assert_eq!(gate.in_use(), 1);
    reset(stream);
    entry.settled().await;
    assert_eq!(gate.in_use(), 0);
    assert_eq!(entry.stats().failures.of(Reason::Cancelled), 1);
}

struct Door;

impl Layer for Door {
    fn on_request<'r>(&'r self, visit: &'r mut RequestMeta) -> Verdict<'r> {
        match visit.path.path() {
            "/closed" => Verdict::Reject(Failure::new(Reason::NoTunnel, "closed")),
            "/later" => Verdict::Wait(Box::pin(async {
                tokio::task::yield_now().await;
                Verdict::Reject(Failure::new(Reason::Limit, "later"))
            })),
            _ => {
                visit
                    .headers
                    .insert("x-door", http::HeaderValue::from_static("1"));
                Verdict::Continue
            }
        }
    }

    fn on_response(&self, visit: &RequestMeta, response: &mut http::response::Parts) {
        assert!(visit.headers.contains_key("x-door"));
        response
            .headers
            .append("x-order", http::HeaderValue::from_static("door"));
    }
}

struct Hall;

impl Layer for Hall {
    fn on_response(&self, _: &RequestMeta, response: &mut http::response::Parts) {
        response
            .headers
            .append("x-order", http::HeaderValue::from_static("hall"));
    }
}

#[tokio::test(start_paused = true)]
async fn layers_change_stop_and_are_passed_in_order() {
    let link = Link::serving(|request: adit_codec::HttpRequest, exchange| async move {
        assert_eq!(request.headers.first(b"x-door"), Some(&b"1"[..]));
        respond(&exchange, 200, &[], b"");
    });
    let layers: Vec<Box<dyn Layer>> = vec![Box::new(Door), Box::new(Hall)];
    let entry = Route::to(&link).layers(layers).http(http_config());
    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let response = entry.raw(get("/")).await.unwrap();
    assert!(
        response.contains("x-order: hall\r\nx-order: door\r\n"),
        "{response}"
    );
    let closed = entry.raw(get("/closed")).await.unwrap();
    assert_eq!(verdict(&closed), ("404", Some("no_tunnel")));
    let later = entry.raw(get("/later")).await.unwrap();
    assert_eq!(verdict(&later), ("503", Some("limit")));
    assert_eq!(entry.director.calls(), 1);
}

/// Links that fail with `code` before any service receives the request; the last one succeeds.
fn failing(code: Option<ResetCode>, links: u64) -> HttpEntry {
    let all: Vec<Link> = (0..links)
        .map(|number| {
            let last = number == links - 1;
            Link::serving(move |request, mut exchange| async move {
                if last {
                    return echo(request, exchange).await;
                }
                match code {
                    Some(code) => exchange.send.reset(code, "not here"),
                    None => {
                        let _ = exchange.recv.part().await;
                        exchange.send.reset(ResetCode::Refused, "after the body");
                    }
                }
            })
        })
        .collect();
    Route::through(&all).http(http_config())
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const INLINE: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
    Connection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn refused_requests_are_retried_on_other_clients() {
    for code in [ResetCode::Refused, ResetCode::Draining] {
        for request in [GET, INLINE] {
            let entry = failing(Some(code), 3);
            let response = entry.raw(request).await.unwrap();
            assert_eq!(verdict(&response), ("200", None), "{request} {response}");
            assert_eq!(response.ends_with("hello"), request == INLINE);
            let avoided = entry.director.avoided.lock().unwrap().clone();
            assert_eq!(avoided, [vec![], vec![0], vec![0, 1]]);
            assert_eq!(entry.stats().retries, 2);
            entry.settled().await;
        }
        // There are at most two retries.
        let entry = failing(Some(code), 4);
        let response = entry.raw(GET).await.unwrap();
        assert_eq!(verdict(&response).0, "502");
        assert_eq!(entry.stats().retries, 2);
        // If no other link exists, the failure of the first attempt is the reason.
        let entry = failing(Some(code), 2);
        entry.director.avoided.lock().unwrap().clear();
        entry.director.retries_left.store(0, Ordering::Relaxed);
        let response = entry.raw(GET).await.unwrap();
        let reason = if code == ResetCode::Refused {
            "refused"
        } else {
            "draining"
        };
        assert_eq!(
            verdict(&response),
            ("502", Some(reason)),
            "the budget is spent"
        );
        assert_eq!(entry.director.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_has_been_begun_is_not_tried_again() {
    let entry = failing(None, 2);
    let response = entry.raw(CHUNKED).await.unwrap();
    assert_eq!(verdict(&response), ("502", Some("refused")), "{response}");
    assert_eq!(entry.stats().retries, 0);
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_has_not_been_begun_goes_elsewhere() {
    let entry = failing(Some(ResetCode::Refused), 2);
    let mut stream = entry.connect().await;
    send(
        &mut stream,
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
    )
    .await;
    until("the request is retried", || entry.stats().retries > 0).await;
    send(&mut stream, b"5\r\nhello\r\n0\r\n\r\n").await;
    let response = read_to_end(&mut stream).await.unwrap();
    assert_eq!(verdict(&response), ("200", None), "{response}");
    assert!(response.ends_with("hello"), "{response}");
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_lost_link_are_repeated_only_when_safe() {
    for (request, status) in [
        (GET, "200"),
        (
            "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "200",
        ),
        (
            "OPTIONS / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "200",
        ),
        (
            "DELETE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "502",
        ),
        (INLINE, "502"),
    ] {
        let lost = Link::serving(|_, exchange| async move {
            std::future::pending::<()>().await;
            drop(exchange);
        });
        let good = Link::serving(echo);
        let lane = lost.near.clone();
        let entry = Route::through(&[lost, good]).http(http_config());
        let losing = async {
            while lane.open_requests() == 0 {
                tokio::task::yield_now().await;
            }
            lane.close(&Failure::new(Reason::LinkLost, "cut"));
        };
        let (response, ()) = within(async { tokio::join!(entry.raw(request), losing) }).await;
        let response = response.unwrap();
        let reason = (status == "502").then_some("link_lost");
        assert_eq!(verdict(&response), (status, reason), "{request}");
        // A closed lane refuses at once, and any request is sent to another client.
        let response = entry.raw(INLINE).await.unwrap();
        assert_eq!(verdict(&response), ("200", None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_client() {
    let link = Link::serving(hello);
    let route = Route::director(&[], move |visit, _| {
        let link = link.clone();
        let comes = visit.unwrap().path.path() == "/comes";
        Direction::Wait(Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if comes {
                Ok(link.destination(1))
            } else {
                Err(Failure::new(Reason::NoClient, "none came"))
            }
        }))
    });
    let entry = route.http(http_config());
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let response = entry.raw(get("/comes").as_bytes()).await.unwrap();
    assert_eq!(verdict(&response), ("200", None));
    let response = entry.raw(get("/comes-not").as_bytes()).await.unwrap();
    assert_eq!(verdict(&response), ("503", Some("no_client")));
}

/// Regression: hyper ended the connection, and every request on it.
#[tokio::test(start_paused = true)]
async fn a_connect_with_content_ends_its_own_stream_alone() {
    let entry = HttpEntry::serving(http_config(), hello);
    let mut requests = http2::frames(entry.connect().await, 65_535).await;
    let connect = http::Request::connect("a:443").header("content-length", "5");
    let connect = connect.body(()).unwrap();
    let (response, mut send) = requests.send_request(connect, false).unwrap();
    let response = within(response).await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["adit-reason"], "bad_request");
    let _ = send.send_data(bytes::Bytes::from_static(b"hello"), true);
    let get = http::Request::get("http://a/").body(()).unwrap();
    let (response, _) = requests.send_request(get, true).unwrap();
    assert_eq!(within(response).await.unwrap().status(), 200);
    assert_eq!(entry.stats().connections, 1);
}
