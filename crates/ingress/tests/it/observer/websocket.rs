//! WebSockets: one record for each, when both ends have closed.

use adit_codec::{ResetCode, WebSocketRequest};
use adit_link::{Exchange, Failure, Reason};
use adit_net::Stream;
use adit_testlink::{
    FORWARDED, SAMPLED,
    exchanges::websocket_head,
    http1::{self, read_until},
    http2,
    tcp::reset,
    websocket::{Frame, UPGRADE, Visitor, accept, expect, frame, send},
    within,
};
use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;

use crate::observer::Observed;

/// A visitor with its WebSocket, and the far end of it.
async fn open(observed: &mut Observed) -> (Visitor<Stream>, WebSocketRequest, Exchange) {
    let mut stream = observed.entry.connect().await;
    let lines = format!("\r\ntraceparent: {SAMPLED}\r\n\r\n");
    let upgrade = UPGRADE.replace("\r\n\r\n", &lines);
    http1::send(&mut stream, &upgrade).await;
    let (head, exchange) = observed.incoming.websocket().await;
    accept(&exchange, &[]);
    read_until(&mut stream, "\r\n\r\n").await;
    (Visitor(stream), head, exchange)
}

#[tokio::test(start_paused = true)]
async fn a_websocket_is_recorded_at_its_end() {
    let mut observed = Observed::new();
    let (mut visitor, head, mut exchange) = open(&mut observed).await;
    visitor.send(&[Frame::text("hello")]).await;
    expect(&mut exchange, &[Frame::text("hello")]).await;
    send(&exchange, &[Frame::text("hi"), Frame::close(1000)]).await;
    visitor
        .expect(&[Frame::text("hi"), Frame::close(1000)])
        .await;
    let stats = observed.entry.stats();
    assert_eq!((stats.requests_open, stats.websockets_open), (1, 1));
    assert_eq!(stats.grpc_open, 0);
    visitor.send(&[Frame::close(1000)]).await;
    expect(&mut exchange, &[Frame::close(1000)]).await;
    assert_eq!(frame(&mut exchange.recv).await.unwrap(), None);
    exchange.send.finish().unwrap();
    drop(exchange);
    assert_eq!(visitor.frame().await, None);
    let record = observed.record().await;
    assert_eq!((record.protocol, record.version), ("websocket", "HTTP/1.1"));
    assert_eq!((record.method, record.path), ("GET", "/chat"));
    // The bytes of two frames in each direction, with heads and masks: 6 + 5 and 6 + 2; 2 + 2 and 2 + 2.
    assert_eq!(record.outcome(), (101, None, 19, 8));
    assert_eq!(record.phases(), FORWARDED);
    record.expect_forwarded();
    record.expect_context(0, &head.open.traceparent);
    let timeline = record.timeline.unwrap();
    assert_eq!(timeline.parent().unwrap().to_string(), SAMPLED[36..52]);
    observed.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_websocket_records_which_side_failed() {
    for (lost, reason) in [
        ("visitor", "cancelled"),
        ("service", "service_aborted"),
        ("link", "link_lost"),
    ] {
        let mut observed = Observed::new();
        let (mut visitor, _, mut exchange) = open(&mut observed).await;
        visitor.send(&[Frame::text("hello")]).await;
        expect(&mut exchange, &[Frame::text("hello")]).await;
        match lost {
            "visitor" => reset(visitor.0),
            "service" => exchange.send.reset(ResetCode::ServiceAborted, "left"),
            _ => {
                let lane = &observed.entry.links[0].near;
                lane.close(&Failure::new(Reason::LinkLost, "cut"));
            }
        }
        let record = observed.record().await;
        assert_eq!((record.status, record.reason), (101, Some(reason)));
        assert_eq!(record.received_bytes, 11);
        assert_eq!(record.phases(), FORWARDED);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_handshake_is_recorded_as_a_request() {
    let mut observed = Observed::new();
    let mut stream = observed.entry.connect().await;
    http1::send(&mut stream, UPGRADE).await;
    let (_, exchange) = observed.incoming.websocket().await;
    let head = websocket_head(403, &[]);
    exchange.send.respond(head, true).unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    let record = observed.record().await;
    assert_eq!(record.outcome(), (403, None, 0, 0));
    assert_eq!(record.protocol, "websocket");
    assert_eq!(record.phases(), FORWARDED);
}

#[tokio::test(start_paused = true)]
async fn a_websocket_of_http2_is_recorded_at_its_end() {
    let mut observed = Observed::new();
    let mut requests = http2::connect(observed.entry.connect().await).await;
    // RFC 8441, 3: the settings that allow extended CONNECT precede the first response.
    let first = Request::get("http://a/")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let requesting = requests.send_request(first);
    let (response, ()) = tokio::join!(within(requesting), async {
        drop(observed.incoming.next().await);
    });
    drop(response.unwrap());
    assert_eq!(observed.record().await.protocol, "http");
    let request = Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_2)
        .uri("http://a/chat")
        .header("sec-websocket-version", "13")
        .extension(Protocol::from_static("websocket"))
        .body(Empty::new())
        .unwrap();
    let requesting = requests.send_request(request);
    let opening = async {
        let (head, exchange) = observed.incoming.websocket().await;
        accept(&exchange, &[]);
        (head, exchange)
    };
    let (response, (head, mut exchange)) = tokio::join!(within(requesting), opening);
    let upgraded = within(hyper::upgrade::on(response.unwrap())).await.unwrap();
    let mut visitor = Visitor(TokioIo::new(upgraded));
    visitor.send(&[Frame::text("hello")]).await;
    expect(&mut exchange, &[Frame::text("hello")]).await;
    send(&exchange, &[Frame::close(1000)]).await;
    visitor.expect(&[Frame::close(1000)]).await;
    visitor.send(&[Frame::close(1000)]).await;
    expect(&mut exchange, &[Frame::close(1000)]).await;
    assert_eq!(frame(&mut exchange.recv).await.unwrap(), None);
    exchange.send.finish().unwrap();
    let record = observed.record().await;
    assert_eq!((record.protocol, record.version), ("websocket", "HTTP/2.0"));
    // Over HTTP/2 this status accepts the WebSocket (RFC 8441, 5).
    assert_eq!(record.outcome(), (200, None, 19, 4));
    assert_eq!(record.phases(), FORWARDED);
    record.expect_context(0, &head.open.traceparent);
}
