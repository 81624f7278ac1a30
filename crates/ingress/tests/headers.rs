//! Header lines: how many cross, in which order, and `Date` (P-2.10, P-3.8).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};

mod world;

use world::{World, answer, hello, within};

fn names(request: &adit_codec::HttpRequest) -> Vec<String> {
    let names = request.headers.lines().map(|(name, _)| name.to_vec());
    names.map(|name| String::from_utf8(name).unwrap()).collect()
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or_default()
}

async fn http2(world: &World) -> hyper::client::conn::http2::SendRequest<Empty<Bytes>> {
    let io = TokioIo::new(world.connect().await);
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (send, connection) = builder.handshake(io).await.unwrap();
    tokio::spawn(connection);
    send
}

#[tokio::test]
async fn p_2_10_lines_of_a_request_keep_their_order() {
    let world = World::new(hello).await;
    for connection in ["", "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\n"] {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\n{connection}B: 2\r\nA: 3\r\nKeep-Alive: 1\r\nC: 4\r\n\
             D: 5\r\nE: 6\r\nConnection: close\r\n\r\n"
        );
        world.raw(request.as_bytes()).await.unwrap();
        let seen = world.seen.lock().unwrap().pop_front().unwrap();
        assert_eq!(names(&seen)[..6], ["a", "a", "b", "c", "d", "e"]);
    }
}

#[tokio::test]
async fn p_2_10_lines_of_an_answer_keep_their_order() {
    let world = World::new(|_, exchange| async move {
        let lines = [
            ("transfer-encoding", "chunked"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("x-a", "1"),
            ("upgrade", "foo"),
            ("x-b", "2"),
            ("x-c", "3"),
        ];
        answer(&exchange, 200, &lines, b"");
    })
    .await;
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = world.raw(request).await.unwrap();
    let kept = "HTTP/1.1 200 OK\r\nx-a: 1\r\nx-b: 2\r\nx-c: 3\r\n";
    assert!(answer.starts_with(kept), "{answer}");
}

#[tokio::test]
async fn p_2_10_both_versions_take_256_lines_and_no_more() {
    let world = World::new(hello).await;
    for (lines, expected) in [(256, "200"), (257, "431")] {
        // `Host` and `Connection` are lines as well.
        let many = "x: y\r\n".repeat(lines - 2);
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{many}\r\n");
        let answer = world.raw(request.as_bytes()).await.unwrap();
        assert_eq!(status(&answer), expected, "{lines} lines: {answer}");

        let mut request = Request::get("http://a/").body(Empty::new()).unwrap();
        for number in 0..lines {
            let name: http::HeaderName = format!("x-{number}").parse().unwrap();
            let value = http::HeaderValue::from_static("y");
            request.headers_mut().append(name, value);
        }
        let sent = http2(&world).await.send_request(request);
        let answer = within(sent).await.unwrap();
        assert_eq!(answer.status().as_str(), expected, "{lines} lines");
        if expected == "431" {
            assert_eq!(answer.headers()["adit-reason"], "header_too_large");
        }
    }
    let seen = world.seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|request| request.headers.len() >= 254));
}

#[tokio::test]
async fn p_3_8_every_answer_has_a_date() {
    const OWN: &str = "Thu, 01 Jan 1970 00:00:00 GMT";
    let world = World::new(|request, exchange| async move {
        let lines: &[_] = if &request.path[..] == b"/dated" {
            &[("date", OWN)]
        } else {
            &[]
        };
        answer(&exchange, 200, lines, b"ok");
    })
    .await;
    let dates = |answer: &str| {
        let lines = answer
            .lines()
            .filter_map(|line| line.strip_prefix("date: "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    // The service's, a service's without one, adit's own, and the HTTP library's own.
    for (request, expected) in [
        (
            "GET /dated HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "200",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "200",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"),
    ] {
        let answer = world.raw(request.as_bytes()).await.unwrap();
        assert_eq!(status(&answer), expected, "{answer}");
        let dates = dates(&answer);
        assert_eq!(dates.len(), 1, "{answer}");
        assert_eq!(dates[0] == OWN, request.contains("/dated"), "{answer}");
        assert!(dates[0].ends_with(" GMT"), "{answer}");
    }
    let mut visitor = http2(&world).await;
    for (path, own) in [("dated", true), ("", false)] {
        let request = Request::get(format!("http://a/{path}"));
        let sent = visitor.send_request(request.body(Empty::new()).unwrap());
        let answer = within(sent).await.unwrap();
        assert_eq!(answer.headers()["date"] == OWN, own);
    }
}
