//! How calls cross, as the other end of the lane sees it.

use std::time::Duration;

use adit_codec::{GrpcRequest, GrpcResponseHead, HeaderBlock, RequestHead};
use adit_link::{Exchange, IncomingRequest, Part, SendHalf};
use bytes::Bytes;
use http::Request;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    setting::{Visitor, framed, rest, scripted, send_all, to_service_with},
    world::{body_of, config, within},
};

pub async fn grpc(opened: &mut UnboundedReceiver<IncomingRequest>) -> (GrpcRequest, Exchange) {
    let IncomingRequest { head, exchange } = within(opened.recv()).await.unwrap();
    let RequestHead::Grpc(head) = head else {
        panic!("no call: {head:?}");
    };
    (*head, exchange)
}

pub fn answer(send: &SendHalf, metadata: &[(&str, &str)], body: &[u8], end: bool) {
    let lines = metadata.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    let head = GrpcResponseHead { status: 200 }.encode(lines, body);
    send.respond(head.unwrap(), end).unwrap();
}

pub fn block(lines: &[(&str, &str)]) -> HeaderBlock {
    let lines = lines.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    lines.collect()
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");
const OK: (&str, &str) = ("grpc-status", "0");

#[tokio::test]
async fn p_8_2_a_call_crosses_with_its_metadata_and_without_what_is_its_hops() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
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
    let (head, exchange) = grpc(&mut opened).await;
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
    // An answer of trailers only.
    let trailers = [GRPC, ("grpc-status", "5"), ("x-blob-bin", "AP8")];
    answer(&exchange.send, &trailers, b"", true);
    let told = call.told().await.unwrap();
    assert_eq!((told.status, &told.body[..]), (200, &b""[..]));
    assert!(told.trailers.is_none());
    for (name, value) in trailers {
        assert_eq!(told.trailer(name), Some(value), "{name}");
    }
    drop(exchange);
    world.settle().await;
}

#[tokio::test]
async fn p_8_2_a_call_without_a_timeout_has_none() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    let _call = visitor.open("/pkg.Echo/Say", &[], true).await;
    let (head, _exchange) = grpc(&mut opened).await;
    assert_eq!(head.timeout, None);
}

/// A call of one message each way is one message each way: the answer's trailers are the one beside.
#[tokio::test]
async fn p_3_2_a_small_call_is_one_message_each_way() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    let message = framed(b"hello");
    let link = world.links[0].clone();
    for turn in 1..10 {
        let mut call = visitor.open("/pkg.Echo/Say", &[], false).await;
        call.send.send_data(message.clone(), true).unwrap();
        let (_, mut exchange) = grpc(&mut opened).await;
        assert!(exchange.recv.is_complete(), "with its end");
        let (body, _) = body_of(&mut exchange).await.unwrap();
        assert_eq!(body, message);
        answer(&exchange.send, &[GRPC], &body, false);
        exchange.send.finish_with(block(&[OK])).unwrap();
        let told = call.told().await.unwrap();
        assert_eq!(told.body, message);
        assert_eq!(told.trailers.unwrap().get("grpc-status").unwrap(), "0");
        drop(exchange);
        world.settle().await;
        assert_eq!(link.lane.mux().stats().messages_sent, turn);
        assert_eq!(link.far.mux().stats().messages_sent, 2 * turn);
    }
}

#[tokio::test]
async fn p_8_1_a_stream_opens_before_its_first_message_and_may_be_silent() {
    let mut config = config();
    config.service_timeout = Duration::from_millis(50);
    config.stall_timeout = Duration::from_millis(50);
    config.continue_wait = Duration::from_millis(50);
    let (port, _events) = crate::service::start().await;
    // A service that speaks first, and only to who is silent.
    let world = to_service_with(port, config).await;
    let mut visitor = Visitor::connect(&world).await;
    let call = visitor.open("/test.Echo/Chat", &[], false).await;
    let (parts, body, mut send) = call.head().await;
    assert_eq!(parts.status, 200);
    tokio::time::sleep(Duration::from_millis(200)).await;
    send_all(&mut send, framed(b"after long"), true).await;
    let told = rest(parts, body).await.unwrap();
    assert_eq!(told.body, framed(b"after long"));
    assert_eq!(told.verdict(), ("0", ""));
}

#[tokio::test]
async fn p_8_1_nobody_needs_to_say_anything_for_a_long_time() {
    let mut times = config();
    times.service_timeout = Duration::from_millis(50);
    times.stall_timeout = Duration::from_millis(50);
    let (world, mut opened) = crate::setting::scripted_with(times).await;
    let mut visitor = Visitor::connect(&world).await;
    // One whose messages have ended, and one whose messages have not begun.
    for end in [true, false] {
        let mut call = visitor.open("/pkg.Echo/Watch", &[], end).await;
        let (_, mut exchange) = grpc(&mut opened).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        answer(&exchange.send, &[GRPC], b"", false);
        if !end {
            call.send.send_data(framed(b"x"), true).unwrap();
        }
        body_of(&mut exchange).await.unwrap();
        exchange.send.finish_with(block(&[OK])).unwrap();
        assert_eq!(call.told().await.unwrap().verdict(), ("0", ""));
    }
}

#[tokio::test]
async fn p_8_1_the_first_metadata_arrive_before_any_message() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    let call = visitor.open("/pkg.Echo/Say", &[], true).await;
    let (_, exchange) = grpc(&mut opened).await;
    answer(&exchange.send, &[GRPC, ("x-first", "1")], b"", false);
    let (parts, body, _send) = call.head().await;
    assert_eq!(parts.headers.get("x-first").unwrap(), "1");
    let message = framed(b"later");
    exchange
        .send
        .send_all(message.clone(), false)
        .await
        .unwrap();
    exchange.send.finish_with(block(&[OK])).unwrap();
    let told = rest(parts, body).await.unwrap();
    assert_eq!(told.body, message);
    assert_eq!(told.verdict(), ("0", ""));
}

#[tokio::test]
async fn p_8_1_messages_may_be_cut_anywhere() {
    let (port, _events) = crate::service::start().await;
    let world = to_service_with(port, config()).await;
    let mut visitor = Visitor::connect(&world).await;
    let messages = [framed(b""), framed(b"hello"), framed(&[9; 40])].concat();
    let messages = Bytes::from(messages);
    for at in 0..=messages.len() {
        let mut call = visitor.open("/test.Echo/Chat", &[], false).await;
        let (one, two) = (messages.slice(..at), messages.slice(at..));
        call.send.send_data(one, false).unwrap();
        // So that the cut is one on the lane too.
        let (parts, body, mut send) = call.head().await;
        send.send_data(two, true).unwrap();
        let told = rest(parts, body).await.unwrap();
        assert_eq!(told.body, messages, "{at}");
    }
    // Byte by byte.
    let mut call = visitor.open("/test.Echo/Chat", &[], false).await;
    for at in 0..messages.len() {
        let last = at + 1 == messages.len();
        call.send.send_data(messages.slice(at..=at), last).unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(call.told().await.unwrap().body, messages);
}

#[tokio::test]
async fn p_8_1_what_is_not_grpc_crosses_as_http() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    let ask = |method: &str, kind: &str| {
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
        let _call = visitor.ask(ask(method, kind), true).await;
        let head = within(opened.recv()).await.unwrap().head;
        assert_eq!(matches!(head, RequestHead::Grpc(_)), is_grpc, "{kind}");
    }
    // No HTTP/1.1, which has no trailers that gRPC could rely on.
    let request = "POST /pkg.Echo/Say HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\n\
                   content-length: 0\r\n\r\n";
    let mut stream = world.connect().await;
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes())
        .await
        .unwrap();
    let head = within(opened.recv()).await.unwrap().head;
    assert!(matches!(head, RequestHead::Http(_)));
}

/// What answers may be no service of gRPC: its visitor's library knows what that means.
#[tokio::test]
async fn p_8_1_an_answer_of_something_else_is_passed_on() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    let call = visitor.open("/pkg.Echo/Say", &[], true).await;
    let (_, exchange) = grpc(&mut opened).await;
    let lines = [(&b"content-type"[..], &b"text/html"[..])];
    let head = GrpcResponseHead { status: 502 }.encode(lines.into_iter(), b"<p>");
    exchange.send.respond(head.unwrap(), true).unwrap();
    let told = call.told().await.unwrap();
    assert_eq!((told.status, &told.body[..]), (502, &b"<p>"[..]));
}

#[tokio::test]
async fn p_2_4_an_answer_of_another_protocol_is_none() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    let call = visitor.open("/pkg.Echo/Say", &[], true).await;
    let (_, exchange) = grpc(&mut opened).await;
    let _ = exchange
        .send
        .respond(crate::world::head(200, &[], b""), true);
    let told = call.told().await.unwrap();
    assert_eq!(told.verdict(), ("13", "protocol_error"));
    // Neither here nor there.
    let request = Request::post("http://a/").body(()).unwrap();
    let call = visitor.ask(request, true).await;
    let IncomingRequest { exchange, .. } = within(opened.recv()).await.unwrap();
    let head = GrpcResponseHead { status: 200 }.encode(std::iter::empty(), b"");
    let _ = exchange.send.respond(head.unwrap(), true);
    assert_eq!(call.told().await.unwrap().status, 502);
}

/// What waits for a visitor who reads nothing is bounded, and nobody beside it waits.
#[tokio::test]
async fn p_4_1_a_stalled_stream_stops_no_other_on_its_connection() {
    let (port, _events) = crate::service::start().await;
    let world = to_service_with(port, config()).await;
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(16 << 20);
    let mut visitor = Visitor::with(&world, &builder).await;
    let mut stalled = Vec::new();
    for _ in 0..5 {
        // An answer that nobody reads, and messages that nobody takes.
        let mut endless = visitor.open("/test.Echo/Endless", &[], false).await;
        endless.send.send_data(framed(b"go"), true).unwrap();
        stalled.push(endless.head().await);
        let unread = visitor.open("/test.Echo/Unread", &[], false).await;
        let (parts, body, mut send) = unread.head().await;
        send.reserve_capacity(1 << 20);
        send.send_data(framed(&vec![3; 1 << 20]), false).unwrap();
        stalled.push((parts, body, send));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let big = framed(&vec![5; 2 << 20]);
    for _ in 0..3 {
        let call = visitor.open("/test.Echo/Chat", &[], false).await;
        let (parts, body, mut send) = call.head().await;
        let sent = big.clone();
        let sending = tokio::spawn(async move { send_all(&mut send, sent, true).await });
        let told = rest(parts, body).await.unwrap();
        assert!(told.body == big);
        sending.await.unwrap();
    }
    let link = &world.links[0];
    for lane in [&link.lane, &link.far] {
        let waiting = lane.stats().waiting_bytes;
        assert!(waiting <= 10 * 128 * 1024, "{waiting} bytes wait");
    }
    drop((stalled, visitor));
    world.settle().await;
}

/// The head's message has room for what has come with it; what follows goes in chunks.
#[tokio::test]
async fn p_8_5_the_first_part_rides_with_the_head() {
    let (world, mut opened) = scripted().await;
    let mut visitor = Visitor::connect(&world).await;
    let mut call = visitor.open("/pkg.Echo/Say", &[], false).await;
    let message = framed(b"first");
    call.send.send_data(message.clone(), false).unwrap();
    let (_, mut exchange) = grpc(&mut opened).await;
    assert!(!exchange.recv.is_complete());
    let Some(Ok(Part::Data(first))) = within(exchange.recv.part()).await else {
        panic!("no payload");
    };
    assert_eq!(first.bytes(), &message);
    call.send.send_data(framed(b"second"), true).unwrap();
    let (body, _) = body_of(&mut exchange).await.unwrap();
    assert_eq!(body, framed(b"second"));
    answer(&exchange.send, &[GRPC, OK], b"", true);
    assert_eq!(call.told().await.unwrap().verdict(), ("0", ""));
    drop((first, exchange));
    world.settle().await;
    // Head, and the rest with its end; windows come beside.
    let sent = world.links[0].lane.mux().stats().messages_sent;
    assert_eq!(sent, 2);
}
