//! How calls are sent over the lane, as its other end receives them.

use std::time::Duration;

use adit_codec::{GrpcResponseHead, RequestHead};
use adit_testlink::{
    HttpEntry, block,
    exchanges::{body_of, head, payload, respond_grpc},
    grpc::{Visitor, framed, rest, send_all},
    http_config, http1, pass, until,
};
use bytes::Bytes;
use http::Request;

use crate::grpc::{GRPC, service, to_service};

const OK: (&str, &str) = ("grpc-status", "0");

#[tokio::test(start_paused = true)]
async fn p_8_2_metadata_cross_and_hop_by_hop_headers_do_not() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let headers = [
        ("content-type", "application/grpc+proto; x=y"),
        ("grpc-timeout", "90S"),
        ("grpc-encoding", "gzip"),
        ("x-blob-bin", "AP8,Cg"),
        ("x-twice", "b"),
        ("x-twice", "a"),
        ("connection-like", "stays"),
        ("user-agent", "test"),
    ];
    let call = visitor.open("/pkg.Echo/Say?q", &headers, true).await;
    let (head, exchange) = incoming.grpc().await;
    assert_eq!(head.authority, "calls.example");
    assert_eq!(head.path, "/pkg.Echo/Say?q");
    assert_eq!(&*head.open.tunnel, "web");
    assert!(head.open.visitor.starts_with("127.0.0.1:"));
    let timeout = head.timeout.unwrap();
    let (most, least) = (Duration::from_secs(90), Duration::from_secs(60));
    assert!(timeout <= most && timeout > least, "{timeout:?}");
    let lines: Vec<_> = head.metadata.lines().collect();
    for (name, value) in headers {
        let crossed = lines.contains(&(name.as_bytes(), value.as_bytes()));
        assert_eq!(crossed, name != "grpc-timeout", "{name}");
    }
    assert!(head.metadata.first(b"te").is_none());
    assert!(head.metadata.first(b"grpc-timeout").is_none());
    assert!(head.metadata.first(b"x-forwarded-for").is_some());
    let twice = lines.iter().filter(|(name, _)| *name == b"x-twice");
    let twice: Vec<_> = twice.map(|(_, value)| *value).collect();
    assert_eq!(twice, [b"b", b"a"]);
    // A response with trailers only.
    let trailers = [GRPC, ("grpc-status", "5"), ("x-blob-bin", "AP8")];
    respond_grpc(&exchange.send, &trailers, b"", true);
    let response = call.whole().await.unwrap();
    assert_eq!((response.status, &response.body[..]), (200, &b""[..]));
    assert!(response.trailers.is_empty());
    for (name, value) in trailers {
        assert_eq!(response.trailer(name), Some(value), "{name}");
    }
    drop(exchange);
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn p_8_2_a_call_without_a_timeout_has_none() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let _call = visitor.open("/pkg.Echo/Say", &[], true).await;
    let (head, _exchange) = incoming.grpc().await;
    assert_eq!(head.timeout, None);
}

/// A call with one message in each direction is one message in each direction on the lane; the trailers of the response
/// are another message.
#[tokio::test(start_paused = true)]
async fn p_3_2_a_small_call_is_one_message_each_way() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let message = framed(b"hello");
    let link = entry.links[0].clone();
    for turn in 1..10 {
        let mut call = visitor.open("/pkg.Echo/Say", &[], false).await;
        call.send.send_data(message.clone(), true).unwrap();
        let (_, mut exchange) = incoming.grpc().await;
        assert!(exchange.recv.is_complete(), "with its end");
        let (body, _) = body_of(&mut exchange).await.unwrap();
        assert_eq!(body, message);
        respond_grpc(&exchange.send, &[GRPC], &body, false);
        exchange.send.finish_with(block(&[OK])).unwrap();
        let response = call.whole().await.unwrap();
        assert_eq!(response.body, message);
        assert_eq!(response.trailers, [("grpc-status".into(), "0".into())]);
        drop(exchange);
        entry.settled().await;
        assert_eq!(link.near.mux().stats().messages_sent, turn);
        assert_eq!(link.far.mux().stats().messages_sent, 2 * turn);
    }
}

#[tokio::test]
async fn p_8_1_a_silent_stream_opens_before_its_first_message() {
    let mut config = http_config();
    config.service_timeout = Duration::from_millis(50);
    config.stall_timeout = Duration::from_millis(50);
    config.continue_wait = Duration::from_millis(50);
    let (port, _events) = service::start().await;
    // The service sends its head before it has a message.
    let entry = to_service(port, config);
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let call = visitor.open("/test.Echo/Chat", &[], false).await;
    let (begun, mut send) = call.head().await;
    assert_eq!(begun.status(), 200);
    pass(Duration::from_millis(200)).await;
    send_all(&mut send, framed(b"after long"), true).await;
    let response = rest(begun).await.unwrap();
    assert_eq!(response.body, framed(b"after long"));
    assert_eq!(response.verdict(), ("0", ""));
}

#[tokio::test(start_paused = true)]
async fn p_8_1_no_timeout_of_http_applies_to_silent_calls() {
    let mut times = http_config();
    times.service_timeout = Duration::from_millis(50);
    times.stall_timeout = Duration::from_millis(50);
    let (entry, mut incoming) = HttpEntry::scripted(times);
    let mut visitor = Visitor::connect(entry.connect().await).await;
    // One call whose messages have ended, and one whose messages have not begun.
    for end in [true, false] {
        let mut call = visitor.open("/pkg.Echo/Watch", &[], end).await;
        let (_, mut exchange) = incoming.grpc().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        respond_grpc(&exchange.send, &[GRPC], b"", false);
        if !end {
            call.send.send_data(framed(b"x"), true).unwrap();
        }
        body_of(&mut exchange).await.unwrap();
        exchange.send.finish_with(block(&[OK])).unwrap();
        assert_eq!(call.whole().await.unwrap().verdict(), ("0", ""));
    }
}

#[tokio::test(start_paused = true)]
async fn p_8_1_the_first_metadata_arrive_before_any_message() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let call = visitor.open("/pkg.Echo/Say", &[], true).await;
    let (_, exchange) = incoming.grpc().await;
    respond_grpc(&exchange.send, &[GRPC, ("x-first", "1")], b"", false);
    let (begun, _send) = call.head().await;
    assert_eq!(begun.headers().get("x-first").unwrap(), "1");
    let message = framed(b"later");
    exchange
        .send
        .send_all(message.clone(), false)
        .await
        .unwrap();
    exchange.send.finish_with(block(&[OK])).unwrap();
    let response = rest(begun).await.unwrap();
    assert_eq!(response.body, message);
    assert_eq!(response.verdict(), ("0", ""));
}

#[tokio::test]
async fn p_8_1_messages_may_be_cut_anywhere() {
    let (port, _events) = service::start().await;
    let entry = to_service(port, http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let messages = [framed(b""), framed(b"hello"), framed(&[9; 40])].concat();
    let messages = Bytes::from(messages);
    for at in 0..=messages.len() {
        let mut call = visitor.open("/test.Echo/Chat", &[], false).await;
        let (one, two) = (messages.slice(..at), messages.slice(at..));
        call.send.send_data(one, false).unwrap();
        // The second part is sent after the head of the response, so that the messages are split at this place on the
        // lane too.
        let (begun, mut send) = call.head().await;
        send.send_data(two, true).unwrap();
        let response = rest(begun).await.unwrap();
        assert_eq!(response.body, messages, "{at}");
    }
    // The messages are sent byte by byte.
    let mut call = visitor.open("/test.Echo/Chat", &[], false).await;
    for at in 0..messages.len() {
        let last = at + 1 == messages.len();
        call.send.send_data(messages.slice(at..=at), last).unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(call.whole().await.unwrap().body, messages);
}

#[tokio::test(start_paused = true)]
async fn p_8_1_other_content_types_cross_as_http() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let request = |method: &str, kind: &str| {
        let request = Request::builder()
            .method(method)
            .uri("http://a/pkg.Echo/Say");
        request.header("content-type", kind).body(()).unwrap()
    };
    for (method, kind, is_grpc) in [
        ("POST", "application/grpc", true),
        ("POST", "application/grpc+json", true),
        ("POST", "application/grpc;charset=utf-8", true),
        ("POST", "application/grpc-web", false),
        ("POST", "application/grpc-web+proto", false),
        ("POST", "application/grpcx", false),
        ("POST", "application/json", false),
        ("GET", "application/grpc", false),
    ] {
        let _call = visitor.request(request(method, kind), true).await;
        let head = incoming.next().await.head;
        assert_eq!(matches!(head, RequestHead::Grpc(_)), is_grpc, "{kind}");
    }
    // HTTP/1.1 has no trailers that gRPC could rely on.
    let request = "POST /pkg.Echo/Say HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\n\
                   content-length: 0\r\n\r\n";
    let mut stream = entry.connect().await;
    http1::send(&mut stream, request).await;
    let head = incoming.next().await.head;
    assert!(matches!(head, RequestHead::Http(_)));
}

/// The service need not use gRPC: the library of the visitor handles its response.
#[tokio::test(start_paused = true)]
async fn p_8_1_a_response_without_grpc_is_passed_on() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let call = visitor.open("/pkg.Echo/Say", &[], true).await;
    let (_, exchange) = incoming.grpc().await;
    let lines = [(&b"content-type"[..], &b"text/html"[..])];
    let head = GrpcResponseHead { status: 502 }.encode(lines.into_iter(), b"<p>");
    exchange.send.respond(head.unwrap(), true).unwrap();
    let response = call.whole().await.unwrap();
    assert_eq!((response.status, &response.body[..]), (502, &b"<p>"[..]));
}

#[tokio::test(start_paused = true)]
async fn p_2_4_a_response_of_another_protocol_is_an_error() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let call = visitor.open("/pkg.Echo/Say", &[], true).await;
    let (_, exchange) = incoming.grpc().await;
    let _ = exchange.send.respond(head(200, &[], b""), true);
    let response = call.whole().await.unwrap();
    assert_eq!(response.verdict(), ("13", "protocol_error"));
    // A response of gRPC to a plain request is refused as well.
    let request = Request::post("http://a/").body(()).unwrap();
    let call = visitor.request(request, true).await;
    let exchange = incoming.next().await.exchange;
    let head = GrpcResponseHead { status: 200 }.encode(std::iter::empty(), b"");
    let _ = exchange.send.respond(head.unwrap(), true);
    assert_eq!(call.whole().await.unwrap().status, 502);
}

/// The waiting payload for a visitor that reads nothing is bounded, and delays no other call.
#[tokio::test]
async fn p_4_1_a_stalled_stream_stops_no_other_on_its_connection() {
    let (port, _events) = service::start().await;
    let entry = to_service(port, http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let mut stalled = Vec::new();
    for _ in 0..5 {
        // Responses that are not read by the visitor, and messages that are not read by the service.
        let mut endless = visitor.open("/test.Echo/Endless", &[], false).await;
        endless.send.send_data(framed(b"go"), true).unwrap();
        stalled.push(endless.head().await);
        let unread = visitor.open("/test.Echo/Unread", &[], false).await;
        let (begun, mut send) = unread.head().await;
        send.reserve_capacity(1 << 20);
        send.send_data(framed(&vec![3; 1 << 20]), false).unwrap();
        stalled.push((begun, send));
    }
    let link = &entry.links[0];
    until("payload waits for the visitor and for the service", || {
        [&link.near, &link.far].map(|lane| lane.stats().waiting_bytes > 0) == [true; 2]
    })
    .await;
    let big = framed(&vec![5; 2 << 20]);
    for _ in 0..3 {
        let call = visitor.open("/test.Echo/Chat", &[], false).await;
        let (begun, mut send) = call.head().await;
        let sent = big.clone();
        let sending = tokio::spawn(async move { send_all(&mut send, sent, true).await });
        let response = rest(begun).await.unwrap();
        assert!(response.body == big);
        sending.await.unwrap();
    }
    for lane in [&link.near, &link.far] {
        let waiting = lane.stats().waiting_bytes;
        assert!(waiting <= 10 * 128 * 1024, "{waiting} bytes wait");
    }
    drop((stalled, visitor));
    entry.settled().await;
}

/// The first messages are sent with the head, later ones in chunks.
#[tokio::test(start_paused = true)]
async fn p_8_5_the_first_part_is_sent_with_the_head() {
    let (entry, mut incoming) = HttpEntry::scripted(http_config());
    let mut visitor = Visitor::connect(entry.connect().await).await;
    let mut call = visitor.open("/pkg.Echo/Say", &[], false).await;
    let message = framed(b"first");
    call.send.send_data(message.clone(), false).unwrap();
    let (_, mut exchange) = incoming.grpc().await;
    assert!(!exchange.recv.is_complete());
    let first = payload(&mut exchange.recv).await;
    assert_eq!(first, message);
    call.send.send_data(framed(b"second"), true).unwrap();
    let (body, _) = body_of(&mut exchange).await.unwrap();
    assert_eq!(body, framed(b"second"));
    respond_grpc(&exchange.send, &[GRPC, OK], b"", true);
    assert_eq!(call.whole().await.unwrap().verdict(), ("0", ""));
    drop((first, exchange));
    entry.settled().await;
    // The head, and the rest of the messages with their end; windows are not counted.
    let sent = entry.links[0].near.mux().stats().messages_sent;
    assert_eq!(sent, 2);
}
