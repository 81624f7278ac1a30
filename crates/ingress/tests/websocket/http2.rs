//! Extended CONNECT over HTTP/2 (RFC 8441), with hyper before the entry.

use std::time::Duration;

use adit_codec::WebSocketResponseHead;
use adit_link::Reason;
use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http2::SendRequest, ext::Protocol, upgrade::Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    setting::{Frame, Setting, accept, frame, gets, read_frame, send, short},
    world::within,
};

type Stream = TokioIo<Upgraded>;

struct Connection(SendRequest<Empty<Bytes>>);

impl Connection {
    async fn new(setting: &mut Setting) -> Self {
        let io = TokioIo::new(setting.world.connect().await);
        let (mut requests, connection) =
            hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(64 * 1024)
                .initial_connection_window_size(1 << 20)
                .handshake(io)
                .await
                .unwrap();
        tokio::spawn(connection);
        // RFC 8441, 3: not before the server has said that it takes it, which an answer comes behind.
        let request = Request::get("http://a/").body(Empty::new()).unwrap();
        let asking = requests.send_request(request);
        let opening = async { drop(setting.opened().await) };
        let (answer, ()) = tokio::join!(within(asking), opening);
        drop(answer.unwrap());
        Self(requests)
    }

    async fn ask(&mut self, request: Request<Empty<Bytes>>) -> Response<Incoming> {
        within(self.0.send_request(request)).await.unwrap()
    }

    async fn open(&mut self, setting: &mut Setting) -> (Stream, adit_link::Exchange) {
        let asking = self.0.send_request(connect("websocket"));
        let (answer, exchange) = tokio::join!(within(asking), setting.accepted());
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        let stream = within(hyper::upgrade::on(answer)).await.unwrap();
        (TokioIo::new(stream), exchange)
    }
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

async fn say(stream: &mut Stream, frames: &[Frame]) {
    for frame in frames {
        stream.write_all(&frame.masked()).await.unwrap();
    }
    stream.flush().await.unwrap();
}

async fn hears(stream: &mut Stream, frames: &[Frame]) {
    for expected in frames {
        assert_eq!(within(read_frame(stream)).await.as_ref(), Some(expected));
    }
}

#[tokio::test]
async fn p_9_1_an_extended_connect_is_the_same_as_an_upgrade() {
    let mut setting = Setting::new().await;
    let mut connection = Connection::new(&mut setting).await;
    let asking = connection.0.send_request(connect("websocket"));
    let opening = async {
        let (head, exchange) = setting.asked().await;
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
    let (answer, mut exchange) = tokio::join!(within(asking), opening);
    let answer = answer.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.version()),
        (200, Version::HTTP_2)
    );
    assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
    // RFC 8441, 5: not used there.
    for gone in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!answer.headers().contains_key(gone), "{gone}");
    }
    let mut stream = TokioIo::new(within(hyper::upgrade::on(answer)).await.unwrap());
    let frames = [
        Frame::fragment(1, "one"),
        Frame::new(9, "ping"),
        Frame::new(0, "two"),
        Frame {
            rsv: 4,
            ..Frame::new(2, vec![9; 70_000])
        },
    ];
    tokio::join!(say(&mut stream, &frames), gets(&mut exchange, &frames));
    tokio::join!(send(&exchange, &frames), hears(&mut stream, &frames));
    // Close frames, and then END_STREAM in both directions.
    say(&mut stream, &[Frame::close(1000)]).await;
    gets(&mut exchange, &[Frame::close(1000)]).await;
    send(&exchange, &[Frame::close(1000)]).await;
    hears(&mut stream, &[Frame::close(1000)]).await;
    assert_eq!(frame(&mut exchange.recv).await.unwrap(), None);
    exchange.send.finish().unwrap();
    assert_eq!(within(stream.read(&mut [0; 8])).await.unwrap(), 0);
    drop((stream, exchange));
    setting.world.settle().await;
    assert_eq!(setting.world.http.stats().connections, 1);
    assert_eq!(
        setting.world.http.stats().failed(Reason::ServiceAborted),
        1,
        "the first GET alone"
    );
    assert_eq!(setting.world.http.stats().failed(Reason::Cancelled), 0);
}

#[tokio::test]
async fn p_9_4_what_cannot_be_read_ends_its_stream_alone() {
    let mut setting = Setting::new().await;
    let mut connection = Connection::new(&mut setting).await;
    let (mut good, mut good_exchange) = connection.open(&mut setting).await;
    let (mut bad, mut bad_exchange) = connection.open(&mut setting).await;
    bad.write_all(&Frame::text("no mask").bytes(None))
        .await
        .unwrap();
    hears(&mut bad, &[Frame::close(1002)]).await;
    assert_eq!(within(bad.read(&mut [0; 8])).await.unwrap(), 0);
    assert!(frame(&mut bad_exchange.recv).await.is_err());
    say(&mut good, &[Frame::text("fine")]).await;
    gets(&mut good_exchange, &[Frame::text("fine")]).await;
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_with_a_reason() {
    let mut setting = Setting::new().await;
    let mut connection = Connection::new(&mut setting).await;
    let mut asked = Vec::new();
    for (protocol, version) in [("connect-udp", "13"), ("websocket", "8"), ("websocket", "")] {
        let mut request = connect(protocol);
        request
            .headers_mut()
            .insert("sec-websocket-version", version.parse().unwrap());
        if version.is_empty() {
            request.headers_mut().remove("sec-websocket-version");
        }
        let answer = connection.ask(request).await;
        assert_eq!(answer.headers()["adit-reason"], "bad_request");
        asked.push((
            answer.status().as_u16(),
            answer.headers().contains_key("sec-websocket-version"),
        ));
    }
    assert_eq!(asked, [(400, false), (426, true), (400, false)]);
    assert!(setting.is_untouched());
}

#[tokio::test]
async fn p_9_2_a_refusal_is_an_answer_and_never_looks_like_a_websocket() {
    let mut setting = Setting::new().await;
    let mut connection = Connection::new(&mut setting).await;
    for (status, expected) in [(403, 403), (302, 302), (200, 502), (204, 502)] {
        let asking = connection.0.send_request(connect("websocket"));
        let refusing = async {
            let (_, exchange) = setting.asked().await;
            let head = WebSocketResponseHead { status }
                .encode(std::iter::empty())
                .unwrap();
            exchange.send.respond(head, false).unwrap();
            let _ = exchange.send.send_all("not here".into(), true).await;
            exchange
        };
        let (answer, exchange) = tokio::join!(within(asking), refusing);
        let answer = answer.unwrap();
        assert_eq!(answer.status(), expected);
        let reason = answer.headers().get("adit-reason").cloned();
        let body = within(answer.into_body().collect())
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

#[tokio::test]
async fn p_9_5_a_stalled_stream_delays_no_other_of_its_connection() {
    let mut setting = Setting::new().await;
    let mut connection = Connection::new(&mut setting).await;
    let (stalled, stalled_exchange) = connection.open(&mut setting).await;
    let (mut other, mut exchange) = connection.open(&mut setting).await;
    let head = adit_codec::WebSocketFrame {
        length: 1 << 30,
        ..Frame::new(2, "").head()
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
        say(&mut other, &[Frame::text("ping")]).await;
        gets(&mut exchange, &[Frame::text("ping")]).await;
        send(&exchange, &[Frame::text("pong")]).await;
        hears(&mut other, &[Frame::text("pong")]).await;
    }
    drop(stalled);
}

#[tokio::test]
async fn p_9_6_losses_are_the_ends_of_streams() {
    let mut setting = Setting::new().await;
    let mut connection = Connection::new(&mut setting).await;
    // The visitor's.
    let (mut stream, mut exchange) = connection.open(&mut setting).await;
    say(&mut stream, &[Frame::text("last words")]).await;
    gets(&mut exchange, &[Frame::text("last words")]).await;
    drop(stream);
    // Without a close frame, as an end or as a reset.
    assert!(!matches!(frame(&mut exchange.recv).await, Ok(Some(_))));
    drop(exchange);
    // The service's.
    let (mut stream, exchange) = connection.open(&mut setting).await;
    send(&exchange, &[Frame::text("last words")]).await;
    exchange.send.finish().unwrap();
    hears(&mut stream, &[Frame::text("last words")]).await;
    assert!(!matches!(within(stream.read(&mut [0; 8])).await, Ok(1..)));
    drop(exchange);
    // The whole connection's.
    let (stream, mut exchange) = connection.open(&mut setting).await;
    drop((stream, connection));
    assert!(!matches!(frame(&mut exchange.recv).await, Ok(Some(_))));
    drop(exchange);
    setting.world.settle().await;
}

#[tokio::test]
async fn p_9_6_a_drain_says_1001_on_every_stream() {
    let mut setting = Setting::with(short()).await;
    let mut connection = Connection::new(&mut setting).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(connection.open(&mut setting).await);
    }
    setting.world.drain.send_replace(true);
    for (stream, exchange) in &mut open {
        hears(stream, &[Frame::close(1001)]).await;
        gets(exchange, &[Frame::close(1001)]).await;
        say(stream, &[Frame::close(1001)]).await;
        send(exchange, &[Frame::close(1001)]).await;
        assert_eq!(frame(&mut exchange.recv).await.unwrap(), None);
        exchange.send.finish().unwrap();
        assert_eq!(within(stream.read(&mut [0; 8])).await.unwrap(), 0);
    }
    drop(open);
    setting.world.settle().await;
    within(async {
        while setting.world.http.stats().connections_open > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// An idle connection of HTTP/2 is closed; one with a WebSocket on it is not idle.
#[tokio::test]
async fn a_silent_websocket_keeps_its_connection() {
    let mut setting = Setting::with(adit_ingress::HttpConfig {
        idle_timeout: Duration::from_millis(50),
        ..short()
    })
    .await;
    let mut connection = Connection::new(&mut setting).await;
    let (mut stream, mut exchange) = connection.open(&mut setting).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    say(&mut stream, &[Frame::text("still here")]).await;
    gets(&mut exchange, &[Frame::text("still here")]).await;
}

#[tokio::test]
async fn reset_stream_is_released_while_service_reads_nothing() {
    let mut setting = Setting::new().await;
    let mut connection = Connection::new(&mut setting).await;
    let (mut stream, exchange) = connection.open(&mut setting).await;
    // More than the credit of the hop, less than the window of the stream.
    say(&mut stream, &[Frame::new(2, vec![7; 60 * 1024])]).await;
    drop(stream);
    within(exchange.send.closed()).await;
    drop(exchange);
    setting.world.settle().await;
}
