//! Valid requests and responses of both HTTP versions.

use std::convert::Infallible;

use adit_testlink::{
    HttpEntry, block,
    exchanges::{begin, body_of, echo, hello, respond},
    http_config,
    http1::{read_until, send},
    http2, within,
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

type Sent = BoxBody<Bytes, Infallible>;

fn full(body: impl Into<Bytes>) -> Sent {
    Full::new(body.into()).boxed()
}

fn empty() -> Sent {
    Empty::new().boxed()
}

/// Pieces of `x`, each of which is sent in a chunk of its own.
fn pieces(count: usize, bytes: usize) -> impl Iterator<Item = Bytes> {
    (0..count).map(move |_| Bytes::from(vec![b'x'; bytes]))
}

/// A body without a known length.
fn frames(frames: Vec<Frame<Bytes>>) -> Sent {
    BoxBody::new(StreamBody::new(stream::iter(
        frames.into_iter().map(Ok::<_, Infallible>),
    )))
}

/// A visitor's connection of either version.
enum Visitor {
    One(hyper::client::conn::http1::SendRequest<Sent>),
    Two(hyper::client::conn::http2::SendRequest<Sent>),
}

impl Visitor {
    async fn one(entry: &HttpEntry) -> Self {
        let io = TokioIo::new(entry.connect().await);
        let (send, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        Self::One(send)
    }

    async fn two(entry: &HttpEntry) -> Self {
        Self::Two(http2::connect(entry.connect().await).await)
    }

    async fn both(entry: &HttpEntry) -> [Self; 2] {
        [Self::one(entry).await, Self::two(entry).await]
    }

    async fn send(&mut self, mut request: Request<Sent>) -> Response<Incoming> {
        let sent = async {
            match self {
                Self::One(send) => {
                    let host = HeaderValue::from_static("web.localhost:7080");
                    request.headers_mut().insert("host", host);
                    send.ready().await.unwrap();
                    send.send_request(request).await
                }
                Self::Two(send) => {
                    let uri = format!("http://web.localhost:7080{}", request.uri());
                    *request.uri_mut() = uri.parse().unwrap();
                    send.ready().await.unwrap();
                    send.send_request(request).await
                }
            }
        };
        within(sent).await.unwrap()
    }

    async fn get(&mut self, path: &str) -> Response<Incoming> {
        self.send(Request::get(path).body(empty()).unwrap()).await
    }
}

async fn whole(response: Response<Incoming>) -> (StatusCode, HeaderMap, Bytes, Option<HeaderMap>) {
    let (parts, body) = response.into_parts();
    let body = within(body.collect()).await.unwrap();
    let trailers = body.trailers().cloned();
    (parts.status, parts.headers, body.to_bytes(), trailers)
}

#[tokio::test(start_paused = true)]
async fn a_get_crosses_and_its_response_comes_back() {
    let entry = HttpEntry::serving(http_config(), hello);
    for mut visitor in Visitor::both(&entry).await {
        for _ in 0..3 {
            let (status, headers, body, _) = whole(visitor.get("/a?b=c").await).await;
            assert_eq!((status.as_u16(), &body[..]), (200, &b"hello"[..]));
            assert_eq!(headers["content-type"], "text/plain");
            assert_eq!(headers["content-length"], "5");
            assert!(headers.contains_key("date"), "the service sent none");
        }
    }
    entry.settled().await;
    let seen = entry.seen();
    assert_eq!(seen.len(), 6);
    for request in seen.iter() {
        assert_eq!(&request.method[..], b"GET");
        assert_eq!(&request.scheme[..], b"http");
        assert_eq!(&request.path[..], b"/a?b=c");
        assert_eq!(&request.authority[..], b"web.localhost:7080");
        assert_eq!(request.headers.first(b"host"), None);
        assert_eq!(&*request.open.tunnel, "web");
        assert_eq!(request.open.revision, 7);
        assert!(request.open.visitor.starts_with("127.0.0.1:"));
        assert_eq!(request.open.request_uuid[6] >> 4, 7, "a UUIDv7");
    }
    let stats = entry.stats();
    assert_eq!((stats.requests, stats.requests_open), (6, 0));
    assert_eq!((stats.connections, stats.failures.total()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn bodies_of_every_size_and_framing_come_back() {
    let entry = HttpEntry::serving(http_config(), echo);
    for mut visitor in Visitor::both(&entry).await {
        for size in [0, 1, 8 * 1024, 8 * 1024 + 1, 100_000, 1_000_000] {
            let sent = vec![b'y'; size];
            let request = Request::post("/echo").body(full(sent.clone())).unwrap();
            let (_, headers, body, _) = whole(visitor.send(request).await).await;
            assert_eq!(body.len(), size);
            assert!(body == sent, "{size}");
            assert_eq!(headers["content-length"], size.to_string());
        }
        for (count, bytes) in [(1, 10), (50, 7), (30, 50_000)] {
            let sent = pieces(count, bytes).map(Frame::data).collect();
            let request = Request::put("/echo").body(frames(sent)).unwrap();
            let (_, _, body, _) = whole(visitor.send(request).await).await;
            assert_eq!(body.len(), count * bytes);
        }
    }
    entry.settled().await;
    // A small body is sent with the head (P-3.2), a larger one is not.
    let seen = entry.seen();
    let lengths: Vec<_> = seen
        .iter()
        .map(|r| r.headers.first(b"content-length").map(<[u8]>::to_vec))
        .collect();
    assert_eq!(lengths[2].as_deref(), Some(&b"8192"[..]));
}

#[tokio::test(start_paused = true)]
async fn responses_are_streamed_as_they_come() {
    let entry = HttpEntry::serving(http_config(), |_, exchange| async move {
        begin(&exchange, 200, &[], b"");
        for piece in pieces(40, 50_000) {
            exchange.send.send_all(piece, false).await.unwrap();
        }
        exchange.send.finish().unwrap();
    });
    for mut visitor in Visitor::both(&entry).await {
        let (_, headers, body, _) = whole(visitor.get("/").await).await;
        assert_eq!(body.len(), 40 * 50_000);
        assert!(!headers.contains_key("content-length"));
    }
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn events_are_flushed_one_by_one() {
    let (next, again) = tokio::sync::mpsc::channel::<()>(1);
    let again = std::sync::Arc::new(tokio::sync::Mutex::new(again));
    let entry = HttpEntry::serving(http_config(), move |_, exchange| {
        let again = again.clone();
        async move {
            let events = [("content-type", "text/event-stream")];
            begin(&exchange, 200, &events, b"");
            for _ in 0..3 {
                again.lock().await.recv().await.unwrap();
                let event = Bytes::from_static(b"data: x\n\n");
                exchange.send.send_all(event, false).await.unwrap();
            }
            exchange.send.finish().unwrap();
        }
    });
    for mut visitor in Visitor::both(&entry).await {
        let mut events = visitor.get("/events").await.into_body();
        for _ in 0..3 {
            next.send(()).await.unwrap();
            let event = within(events.frame()).await.unwrap().unwrap();
            assert_eq!(event.into_data().unwrap(), "data: x\n\n");
        }
        assert!(within(events.frame()).await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_cross_both_ways() {
    let entry = HttpEntry::serving(http_config(), |_, mut exchange| async move {
        let (body, trailers) = body_of(&mut exchange).await.unwrap();
        let headers = [("x-trailers", &trailers[..]), ("trailer", "grpc-status")];
        begin(&exchange, 200, &headers, &body);
        exchange
            .send
            .finish_with(block(&[("grpc-status", "0")]))
            .unwrap();
    });
    for mut visitor in Visitor::both(&entry).await {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("42"));
        let body = vec![Frame::data("abc".into()), Frame::trailers(trailers)];
        let request = Request::post("/")
            .header("te", "trailers")
            .header("trailer", "x-sum")
            .body(frames(body))
            .unwrap();
        let (_, headers, body, trailers) = whole(visitor.send(request).await).await;
        assert_eq!(headers["x-trailers"], "x-sum=42;");
        assert_eq!(&body[..], b"abc");
        assert_eq!(trailers.unwrap()["grpc-status"], "0");
    }
    // A visitor that does not accept trailers receives the body without them.
    let response = entry
        .raw(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(response.ends_with("\r\n\r\n0\r\n\r\n"), "{response}");
    entry.settled().await;
}

/// A service that takes trailers for header lines must not learn from a visitor who it is.
#[tokio::test(start_paused = true)]
async fn p_15_5_identities_do_not_cross_in_trailers() {
    const NAMES: [&str; 5] = [
        "adit-user",
        "adit_user",
        "x-forwarded-for",
        "authorization",
        "x-sum",
    ];
    let entry = HttpEntry::serving(http_config(), |_, mut exchange| async move {
        let (_, trailers) = body_of(&mut exchange).await.unwrap();
        respond(&exchange, 200, &[("x-trailers", &trailers)], b"");
    });
    for mut visitor in Visitor::both(&entry).await {
        // The first one is sent with its length, and crosses with its head.
        for length in [Some("3"), None] {
            let mut trailers = HeaderMap::new();
            for name in NAMES {
                trailers.insert(name, HeaderValue::from_static("42"));
            }
            let body = vec![Frame::data("abc".into()), Frame::trailers(trailers)];
            let mut request = Request::post("/").header("trailer", NAMES.join(","));
            if let Some(length) = length
                && matches!(visitor, Visitor::Two(_))
            {
                request = request.header("content-length", length);
            }
            let request = request.body(frames(body)).unwrap();
            let (_, headers, ..) = whole(visitor.send(request).await).await;
            assert_eq!(headers["x-trailers"], "x-sum=42;");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn responses_without_a_body_have_none() {
    let entry = HttpEntry::serving(http_config(), |request, exchange| async move {
        match &request.path[..] {
            b"/204" => respond(&exchange, 204, &[], b""),
            b"/304" => respond(
                &exchange,
                304,
                &[("etag", "\"1\""), ("content-length", "12")],
                b"",
            ),
            _ => respond(&exchange, 200, &[("content-length", "1234")], b""),
        }
    });
    for mut visitor in Visitor::both(&entry).await {
        let (status, headers, body, _) = whole(visitor.get("/204").await).await;
        assert_eq!((status.as_u16(), body.len()), (204, 0));
        assert!(!headers.contains_key("content-length"));
        let (status, headers, body, _) = whole(visitor.get("/304").await).await;
        assert_eq!((status.as_u16(), body.len()), (304, 0));
        assert_eq!(headers["etag"], "\"1\"");
        let request = Request::head("/").body(empty()).unwrap();
        let (status, headers, body, _) = whole(visitor.send(request).await).await;
        assert_eq!((status.as_u16(), body.len()), (200, 0));
        assert_eq!(headers["content-length"], "1234");
    }
    entry.settled().await;
    assert_eq!(entry.stats().failures.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn headers_keep_their_order_and_repetition() {
    let entry = HttpEntry::serving(http_config(), |request, exchange| async move {
        let cookies: Vec<_> = request
            .headers
            .lines()
            .filter(|(name, _)| *name == b"cookie")
            .map(|(_, value)| String::from_utf8(value.to_vec()).unwrap())
            .collect();
        let range = request.headers.first(b"range").unwrap().to_vec();
        let range = String::from_utf8(range).unwrap();
        let headers = [
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("content-range", "bytes 0-1/9"),
            ("x-cookies", &cookies.join("|")),
            ("x-range", &range),
            ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ];
        respond(&exchange, 206, &headers, b"he");
    });
    for mut visitor in Visitor::both(&entry).await {
        let two = matches!(visitor, Visitor::Two(_));
        let mut request = Request::get("/").header("range", "bytes=0-1");
        if two {
            request = request.header("cookie", "x=1").header("cookie", "y=2");
        } else {
            request = request.header("cookie", "x=1; y=2");
        }
        let response = visitor.send(request.body(empty()).unwrap()).await;
        let (status, headers, body, _) = whole(response).await;
        assert_eq!((status.as_u16(), &body[..]), (206, &b"he"[..]));
        let set: Vec<_> = headers.get_all("set-cookie").iter().collect();
        assert_eq!(set, ["a=1", "b=2"]);
        assert_eq!(headers["content-range"], "bytes 0-1/9");
        assert_eq!(headers["x-range"], "bytes=0-1");
        assert_eq!(headers["x-cookies"], "x=1; y=2");
        assert_eq!(headers["date"], "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}

#[tokio::test(start_paused = true)]
async fn hop_by_hop_headers_are_removed_and_forwarded_headers_added() {
    let entry = HttpEntry::serving(http_config(), |_, exchange| async move {
        let headers = [
            ("connection", "x-mine, close"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("x-kept", "1"),
        ];
        respond(&exchange, 200, &headers, b"ok");
    });
    let response = entry
        .raw(
            b"GET / HTTP/1.1\r\nHost: Web.Localhost\r\nConnection: x-secret, X-Forwarded-For, keep-alive\r\n\
            Keep-Alive: 5\r\nProxy-Connection: x\r\nTE: trailers, deflate\r\nUpgrade: foo\r\nX-Secret: 1\r\n\
            X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\nX-Forwarded-Host: evil\r\n\
            X-Forwarded-Proto: https\r\nX-Request-Id: mine\r\nX-Kept: 1\r\nConnection: close\r\n\r\n",
        )
        .await
        .unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    for gone in ["x-mine", "keep-alive", "upgrade", "transfer-encoding"] {
        assert!(!response.contains(gone), "{gone} in {response}");
    }
    assert!(response.contains("x-kept: 1\r\n") && response.contains("content-length: 2\r\n"));
    let seen = entry.seen().pop_back().unwrap();
    let headers: Vec<_> = seen
        .headers
        .lines()
        .map(|(n, v)| format!("{}: {}", n.escape_ascii(), v.escape_ascii()))
        .collect();
    let uuid = uuid::Uuid::from_bytes(seen.open.request_uuid).to_string();
    let mut expected = [
        "te: trailers".to_owned(),
        "x-forwarded-for: 127.0.0.1".to_owned(),
        "x-forwarded-host: Web.Localhost".to_owned(),
        "x-forwarded-proto: http".to_owned(),
        format!("x-request-id: {uuid}"),
        "x-kept: 1".to_owned(),
    ];
    let mut headers = headers;
    headers.sort();
    expected.sort();
    assert_eq!(headers, expected);
    // Values of `x-forwarded-*` that a visitor sends are ignored, whether `connection` names them or not.
    entry
        .raw(
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\n\
            Connection: close\r\n\r\n",
        )
        .await
        .unwrap();
    let seen = entry.seen().pop_back().unwrap();
    assert_eq!(
        seen.headers.first(b"x-forwarded-for"),
        Some(&b"127.0.0.1"[..])
    );
}

#[tokio::test(start_paused = true)]
async fn http_1_0_visitors_get_http_1_0_responses() {
    let entry = HttpEntry::serving(http_config(), |request, exchange| async move {
        if &request.path[..] == b"/known" {
            return respond(&exchange, 200, &[], b"hello");
        }
        begin(&exchange, 200, &[], b"");
        exchange.send.send_all("hello".into(), false).await.unwrap();
        tokio::task::yield_now().await;
        exchange.send.finish().unwrap();
    });
    // A response of unknown length ends with the connection.
    let response = entry
        .raw(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        .await
        .unwrap();
    assert!(response.starts_with("HTTP/1.0 200 OK\r\n"), "{response}");
    assert!(!response.contains("chunked"), "{response}");
    assert!(response.ends_with("\r\n\r\nhello"), "{response}");
    // Without keep-alive the connection is closed.
    let response = entry
        .raw(b"GET /known HTTP/1.0\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert!(response.ends_with("\r\n\r\nhello"), "{response}");
    // With keep-alive the connection serves further requests.
    let mut stream = entry.connect().await;
    for _ in 0..2 {
        let request = b"GET /known HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
        send(&mut stream, request).await;
        let response = read_until(&mut stream, "hello").await;
        assert!(response.starts_with("HTTP/1.0 200 OK\r\n"), "{response}");
        assert!(
            response.contains("connection: keep-alive\r\n"),
            "{response}"
        );
        assert!(response.contains("content-length: 5\r\n"), "{response}");
    }
}

#[tokio::test(start_paused = true)]
async fn http_2_requests_name_one_host() {
    let entry = HttpEntry::serving(http_config(), hello);
    let Visitor::Two(mut send) = Visitor::two(&entry).await else {
        panic!("expected HTTP/2");
    };
    for (host, status) in [("a:80", 200), ("b", 400), ("a", 400)] {
        let request = Request::get("http://a:80/").header("host", host);
        let request = request.body(empty()).unwrap();
        let (got, headers, ..) = whole(within(send.send_request(request)).await.unwrap()).await;
        assert_eq!(got.as_u16(), status, "{host}");
        assert!(!headers.contains_key("connection"));
    }
    let request = Request::connect("a:443").body(empty()).unwrap();
    let (status, headers, ..) = whole(within(send.send_request(request)).await.unwrap()).await;
    assert_eq!(status.as_u16(), 400);
    assert_eq!(headers["adit-reason"], "bad_request");
    // One connection has served all requests.
    assert_eq!(entry.stats().connections, 1);
    assert_eq!(entry.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn trace_context_is_carried_in_the_opening_message() {
    let entry = HttpEntry::serving(http_config(), hello);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut visitor = Visitor::one(&entry).await;
    let request = Request::get("/")
        .header("traceparent", parent)
        .header("baggage", "user=1")
        .body(empty())
        .unwrap();
    whole(visitor.send(request).await).await;
    let seen = entry.seen().pop_back().unwrap();
    assert_eq!(&*seen.open.traceparent, parent);
    assert_eq!(&*seen.open.baggage, "user=1");
    assert_eq!(seen.headers.first(b"traceparent"), Some(parent.as_bytes()));
}
