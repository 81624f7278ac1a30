//! WebSockets: one record for each, when both ends have closed.

use adit_codec::{RequestHead, ResetCode, WebSocketRequest, WebSocketResponseHead};
use adit_link::{Exchange, Failure, Reason};
use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;

use crate::{
    rig::{CARRIED, PARENT, Rig, crossed},
    websocket_setting::{Frame, UPGRADE, Visitor, accept, frame, gets, read_frame, send},
    world::{read_until, within},
};

async fn asked(rig: &mut Rig) -> (WebSocketRequest, Exchange) {
    match rig.opened().await {
        (RequestHead::WebSocket(head), exchange) => (*head, exchange),
        (other, _) => panic!("no WebSocket: {other:?}"),
    }
}

/// A visitor with its WebSocket, and the far end of it.
async fn open(rig: &mut Rig) -> (Visitor, WebSocketRequest, Exchange) {
    let mut stream = rig.world.connect().await;
    let lines = format!("\r\ntraceparent: {PARENT}\r\n\r\n");
    let upgrade = UPGRADE.replace("\r\n\r\n", &lines);
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let (head, exchange) = asked(rig).await;
    accept(&exchange, &[]);
    read_until(&mut stream, "\r\n\r\n").await;
    (Visitor(stream), head, exchange)
}

#[tokio::test]
async fn a_websocket_is_told_of_at_its_end() {
    let mut rig = Rig::new().await;
    let (mut visitor, head, mut exchange) = open(&mut rig).await;
    visitor.send(&[Frame::text("hello")]).await;
    gets(&mut exchange, &[Frame::text("hello")]).await;
    send(&exchange, &[Frame::text("hi"), Frame::close(1000)]).await;
    visitor.gets(&[Frame::text("hi"), Frame::close(1000)]).await;
    let stats = rig.world.http.stats();
    assert_eq!((stats.requests_open, stats.websockets_open), (1, 1));
    assert_eq!(stats.grpc_open, 0);
    visitor.send(&[Frame::close(1000)]).await;
    gets(&mut exchange, &[Frame::close(1000)]).await;
    assert_eq!(frame(&mut exchange.recv).await.unwrap(), None);
    exchange.send.finish().unwrap();
    drop(exchange);
    visitor.is_over().await;
    let told = rig.told().await;
    assert_eq!((told.protocol, told.asked.4), ("websocket", "HTTP/1.1"));
    assert_eq!((&told.asked.1[..], &told.asked.3[..]), ("GET", "/chat"));
    // Frames with their heads and masks: 6 + 5 and 6 + 2; 2 + 2 and 2 + 2.
    assert_eq!(told.outcome(), (101, None, 19, 8));
    assert_eq!(told.phases(), CARRIED);
    told.led_to("web");
    crossed(&told, 0, &head.open.traceparent);
    let timeline = told.timeline.unwrap();
    assert_eq!(timeline.parent().unwrap().to_string(), PARENT[36..52]);
    rig.is_over().await;
}

#[tokio::test]
async fn a_websocket_that_is_lost_says_who_left() {
    for (lost, reason) in [
        ("visitor", "cancelled"),
        ("service", "service_aborted"),
        ("link", "link_lost"),
    ] {
        let mut rig = Rig::new().await;
        let (mut visitor, _, mut exchange) = open(&mut rig).await;
        visitor.send(&[Frame::text("hello")]).await;
        gets(&mut exchange, &[Frame::text("hello")]).await;
        match lost {
            "visitor" => {
                let linger = Some(std::time::Duration::ZERO);
                socket2::SockRef::from(&visitor.0)
                    .set_linger(linger)
                    .unwrap();
                drop(visitor);
            }
            "service" => exchange.send.reset(ResetCode::ServiceAborted, "left"),
            _ => {
                let lane = &rig.world.links[0].lane;
                lane.close(&Failure::new(Reason::LinkLost, "cut"));
            }
        }
        let told = rig.told().await;
        assert_eq!((told.status, told.reason), (101, Some(reason)));
        assert_eq!(told.received, 11);
        assert_eq!(told.phases(), CARRIED);
    }
}

#[tokio::test]
async fn a_handshake_that_the_service_refuses_is_a_request_as_any() {
    let mut rig = Rig::new().await;
    let mut stream = rig.world.connect().await;
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    let (_, exchange) = asked(&mut rig).await;
    let head = WebSocketResponseHead { status: 403 };
    let head = head.encode([].into_iter()).unwrap();
    exchange.send.respond(head, true).unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    let told = rig.told().await;
    assert_eq!(told.outcome(), (403, None, 0, 0));
    assert_eq!(told.protocol, "websocket");
    assert_eq!(told.phases(), CARRIED);
}

#[tokio::test]
async fn a_websocket_of_http2_is_told_of_at_its_end() {
    let mut rig = Rig::new().await;
    let io = TokioIo::new(rig.world.connect().await);
    let (mut requests, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .unwrap();
    tokio::spawn(connection);
    // RFC 8441, 3: not before the server has said that it takes it, which an answer comes behind.
    let first = Request::get("http://a/")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let asking = requests.send_request(first);
    let (answer, ()) = tokio::join!(within(asking), async { drop(rig.opened().await) });
    drop(answer.unwrap());
    assert_eq!(rig.told().await.protocol, "http");
    let request = Request::builder()
        .method(Method::CONNECT)
        .version(Version::HTTP_2)
        .uri("http://a/chat")
        .header("sec-websocket-version", "13")
        .extension(Protocol::from_static("websocket"))
        .body(Empty::new())
        .unwrap();
    let asking = requests.send_request(request);
    let opening = async {
        let (head, exchange) = asked(&mut rig).await;
        accept(&exchange, &[]);
        (head, exchange)
    };
    let (answer, (head, mut exchange)) = tokio::join!(within(asking), opening);
    let upgraded = within(hyper::upgrade::on(answer.unwrap())).await.unwrap();
    let mut stream = TokioIo::new(upgraded);
    let hello = Frame::text("hello");
    stream.write_all(&hello.masked()).await.unwrap();
    stream.flush().await.unwrap();
    gets(&mut exchange, &[hello]).await;
    send(&exchange, &[Frame::close(1000)]).await;
    let close = within(read_frame(&mut stream)).await;
    assert_eq!(close, Some(Frame::close(1000)));
    stream
        .write_all(&Frame::close(1000).masked())
        .await
        .unwrap();
    stream.flush().await.unwrap();
    gets(&mut exchange, &[Frame::close(1000)]).await;
    assert_eq!(frame(&mut exchange.recv).await.unwrap(), None);
    exchange.send.finish().unwrap();
    let told = rig.told().await;
    assert_eq!((told.protocol, told.asked.4), ("websocket", "HTTP/2.0"));
    // That is how it is accepted there (RFC 8441, 5).
    assert_eq!(told.outcome(), (200, None, 19, 4));
    assert_eq!(told.phases(), CARRIED);
    crossed(&told, 0, &head.open.traceparent);
}
