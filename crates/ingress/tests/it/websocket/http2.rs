//! Extended CONNECT over HTTP/2 (RFC 8441), with hyper as the visitor.

use std::time::Duration;

use adit_link::{Exchange, Reason};
use adit_testlink::{
    HttpEntry, Incoming,
    exchanges::websocket_head,
    http1, http2,
    websocket::{Frame, Visitor, accept, expect, frame, send},
    within,
};
use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming as Body, client::conn::http2::SendRequest, ext::Protocol, upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;

use crate::websocket::short;

type Stream = Visitor<TokioIo<Upgraded>>;

struct Connection(SendRequest<Empty<Bytes>>);

impl Connection {
    async fn new(entry: &HttpEntry, incoming: &mut Incoming) -> Self {
        let mut requests = http2::connect(entry.connect().await).await;
        // RFC 8441, 3: the settings that allow extended CONNECT precede the first response.
        let request = Request::get("http://a/").body(Empty::new()).unwrap();
        let response = requests.send_request(request);
        let opening = async { drop(incoming.next().await) };
        let (response, ()) = tokio::join!(within(response), opening);
        drop(response.unwrap());
        Self(requests)
    }

    async fn request(&mut self, request: Request<Empty<Bytes>>) -> Response<Body> {
        within(self.0.send_request(request)).await.unwrap()
    }

    async fn open(&mut self, incoming: &mut Incoming) -> (Stream, Exchange) {
        let response = self.0.send_request(connect("websocket"));
        let accepting = async {
            let (_, exchange) = incoming.websocket().await;
            accept(&exchange, &[]);
            exchange
        };
        let (response, exchange) = tokio::join!(within(response), accepting);
        let response = response.unwrap();
        assert_eq!(response.status(), 200);
        (upgraded(response).await, exchange)
    }
}

async fn upgraded(response: Response<Body>) -> Stream {
    let stream = within(hyper::upgrade::on(response)).await.unwrap();
    Visitor(TokioIo::new(stream))
}

fn connect(protocol: &'static str) -> Request<Empty<Bytes>> {
    Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_2)
        .uri("http://a/chat?room=1")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .extension(Protocol::from_static(protocol))
        .body(Empty::new())
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn p_9_1_an_extended_connect_is_the_same_as_an_upgrade() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let mut connection = Connection::new(&entry, &mut incoming).await;
    let requesting = connection.0.send_request(connect("websocket"));
    let opening = async {
        let (head, exchange) = incoming.websocket().await;
        assert_eq!(&head.path[..], b"/chat?room=1");
        assert_eq!(
            head.headers.first(b"sec-websocket-protocol"),
            Some(&b"chat"[..])
        );
        for gone in [
            &b"sec-websocket-version"[..],
            b"sec-websocket-key",
            b"upgrade",
        ] {
            assert_eq!(head.headers.first(gone), None);
        }
        accept(
            &exchange,
            &[("sec-websocket-protocol", "chat"), ("x-a", "1")],
        );
        exchange
    };
    let (response, mut exchange) = tokio::join!(within(requesting), opening);
    let response = response.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.version()),
        (200, Version::HTTP_2)
    );
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    // RFC 8441, 5: these lines are not used over HTTP/2.
    for gone in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!response.headers().contains_key(gone), "{gone}");
    }
    let mut stream = upgraded(response).await;
    let frames = [
        Frame::of(false, 0, 1, "one"),
        Frame::new(9, "ping"),
        Frame::new(0, "two"),
        Frame::of(true, 4, 2, vec![9; 70_000]),
    ];
    tokio::join!(stream.send(&frames), expect(&mut exchange, &frames));
    tokio::join!(send(&exchange, &frames), stream.expect(&frames));
    // Both sides send close frames, and then END_STREAM.
    stream.send(&[Frame::close(1000)]).await;
    expect(&mut exchange, &[Frame::close(1000)]).await;
    send(&exchange, &[Frame::close(1000)]).await;
    stream.expect(&[Frame::close(1000)]).await;
    assert_eq!(frame(&mut exchange.recv).await.unwrap(), None);
    exchange.send.finish().unwrap();
    assert_eq!(within(stream.0.read(&mut [0; 8])).await.unwrap(), 0);
    drop((stream, exchange));
    entry.settled().await;
    assert_eq!(entry.stats().connections, 1);
    assert_eq!(
        entry.stats().failures.of(Reason::ServiceAborted),
        1,
        "the first GET alone"
    );
    assert_eq!(entry.stats().failures.of(Reason::Cancelled), 0);
}

#[tokio::test(start_paused = true)]
async fn p_9_4_an_invalid_frame_ends_its_stream_alone() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let mut connection = Connection::new(&entry, &mut incoming).await;
    let (mut good, mut good_exchange) = connection.open(&mut incoming).await;
    let (mut bad, mut bad_exchange) = connection.open(&mut incoming).await;
    http1::send(&mut bad.0, &Frame::text("no mask").bytes(None)).await;
    bad.expect(&[Frame::close(1002)]).await;
    assert_eq!(within(bad.0.read(&mut [0; 8])).await.unwrap(), 0);
    assert!(frame(&mut bad_exchange.recv).await.is_err());
    good.send(&[Frame::text("fine")]).await;
    expect(&mut good_exchange, &[Frame::text("fine")]).await;
}

#[tokio::test(start_paused = true)]
async fn an_invalid_handshake_is_refused_with_a_reason() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let mut connection = Connection::new(&entry, &mut incoming).await;
    let mut responses = Vec::new();
    for (protocol, version) in [("connect-udp", "13"), ("websocket", "8"), ("websocket", "")] {
        let mut request = connect(protocol);
        request
            .headers_mut()
            .insert("sec-websocket-version", version.parse().unwrap());
        if version.is_empty() {
            request.headers_mut().remove("sec-websocket-version");
        }
        let response = connection.request(request).await;
        assert_eq!(response.headers()["adit-reason"], "bad_request");
        responses.push((
            response.status().as_u16(),
            response.headers().contains_key("sec-websocket-version"),
        ));
    }
    assert_eq!(responses, [(400, false), (426, true), (400, false)]);
    assert!(incoming.try_next().is_none());
}

#[tokio::test(start_paused = true)]
async fn p_9_2_a_refusal_does_not_look_like_a_websocket() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let mut connection = Connection::new(&entry, &mut incoming).await;
    for (status, expected) in [(403, 403), (302, 302), (200, 502), (204, 502)] {
        let requesting = connection.0.send_request(connect("websocket"));
        let refusing = async {
            let (_, exchange) = incoming.websocket().await;
            let head = websocket_head(status, &[]);
            exchange.send.respond(head, false).unwrap();
            let _ = exchange.send.send_all("not here".into(), true).await;
            exchange
        };
        let (response, exchange) = tokio::join!(within(requesting), refusing);
        let response = response.unwrap();
        assert_eq!(response.status(), expected);
        let reason = response.headers().get("adit-reason").cloned();
        let body = within(response.into_body().collect())
            .await
            .unwrap()
            .to_bytes();
        match reason {
            Some(reason) => assert_eq!(reason, "service_aborted"),
            None => assert_eq!(body, "not here"),
        }
        drop(exchange);
    }
}

#[tokio::test(start_paused = true)]
async fn p_9_5_a_stalled_stream_delays_no_other_of_its_connection() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let mut connection = Connection::new(&entry, &mut incoming).await;
    let (stalled, stalled_exchange) = connection.open(&mut incoming).await;
    let (mut other, mut exchange) = connection.open(&mut incoming).await;
    let head = adit_codec::WebSocketFrame {
        length: 1 << 30,
        ..Frame::new(2, "").head
    };
    stalled_exchange
        .send
        .send_frame(head, Bytes::new())
        .unwrap();
    let chunk = Bytes::from(vec![7; 64 * 1024]);
    let mut sent = 0;
    while let Ok(allowed) =
        tokio::time::timeout(Duration::from_millis(300), stalled_exchange.send.ready()).await
    {
        let part = chunk.slice(..allowed.unwrap().min(chunk.len()));
        sent += part.len();
        stalled_exchange.send.send(part, false).unwrap();
    }
    assert!(sent < 2 << 20, "{sent}");
    for _ in 0..100 {
        other.send(&[Frame::text("ping")]).await;
        expect(&mut exchange, &[Frame::text("ping")]).await;
        send(&exchange, &[Frame::text("pong")]).await;
        other.expect(&[Frame::text("pong")]).await;
    }
    drop(stalled);
}

#[tokio::test(start_paused = true)]
async fn p_9_6_losses_are_the_ends_of_streams() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let mut connection = Connection::new(&entry, &mut incoming).await;
    // The visitor's end is lost.
    let (mut stream, mut exchange) = connection.open(&mut incoming).await;
    stream.send(&[Frame::text("last words")]).await;
    expect(&mut exchange, &[Frame::text("last words")]).await;
    drop(stream);
    // The loss arrives without a close frame, as an end or as a reset.
    assert!(!matches!(frame(&mut exchange.recv).await, Ok(Some(_))));
    drop(exchange);
    // The service's end is lost.
    let (mut stream, exchange) = connection.open(&mut incoming).await;
    send(&exchange, &[Frame::text("last words")]).await;
    exchange.send.finish().unwrap();
    stream.expect(&[Frame::text("last words")]).await;
    assert!(!matches!(within(stream.0.read(&mut [0; 8])).await, Ok(1..)));
    drop(exchange);
    // The whole connection is lost.
    let (stream, mut exchange) = connection.open(&mut incoming).await;
    drop((stream, connection));
    assert!(!matches!(frame(&mut exchange.recv).await, Ok(Some(_))));
    drop(exchange);
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn p_9_6_a_drain_sends_1001_on_every_stream() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let mut connection = Connection::new(&entry, &mut incoming).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(connection.open(&mut incoming).await);
    }
    entry.drain.send_replace(true);
    for (stream, exchange) in &mut open {
        stream.expect(&[Frame::close(1001)]).await;
        expect(exchange, &[Frame::close(1001)]).await;
        stream.send(&[Frame::close(1001)]).await;
        send(exchange, &[Frame::close(1001)]).await;
        assert_eq!(frame(&mut exchange.recv).await.unwrap(), None);
        exchange.send.finish().unwrap();
        assert_eq!(within(stream.0.read(&mut [0; 8])).await.unwrap(), 0);
    }
    drop(open);
    entry.settled().await;
    entry.closed().await;
}

/// An idle connection of HTTP/2 is closed; one with a WebSocket on it is not idle.
#[tokio::test(start_paused = true)]
async fn a_silent_websocket_keeps_its_connection() {
    let (entry, mut incoming) = HttpEntry::scripted(adit_ingress::HttpConfig {
        idle_timeout: Duration::from_millis(50),
        ..short()
    });
    let mut connection = Connection::new(&entry, &mut incoming).await;
    let (mut stream, mut exchange) = connection.open(&mut incoming).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    stream.send(&[Frame::text("still here")]).await;
    expect(&mut exchange, &[Frame::text("still here")]).await;
}

#[tokio::test(start_paused = true)]
async fn reset_stream_is_released_while_service_reads_nothing() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let mut connection = Connection::new(&entry, &mut incoming).await;
    let (mut stream, exchange) = connection.open(&mut incoming).await;
    // The frame has more bytes than the credit of the tunnel hop, and fewer than the window of the stream.
    stream.send(&[Frame::new(2, vec![7; 60 * 1024])]).await;
    drop(stream);
    within(exchange.send.closed()).await;
    drop(exchange);
    entry.settled().await;
}
