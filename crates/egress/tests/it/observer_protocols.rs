//! The records of all protocols but HTTP/1.1, and the trace contexts that their services receive.

use std::time::Duration;

use adit_codec::{EncodedHead, Open, ResetCode, ResponseHead, WebSocketFrame};
use adit_egress::{Config, Protocol, ProxyProtocol, ServiceConfig};
use adit_link::{Exchange, Part, RecvHalf};
use adit_testlink::{
    ObservedEgress, Recorded, SAMPLED, TUNNEL, TunnelRequest, UNSAMPLED, http_service,
    http1::{read_head, send, values},
    next_part,
    tcp::{serve, service},
    websocket::accept_upgrade,
    within,
};
use adit_trace::Phase;
use bytes::Bytes;
use h2::{Reason as Code, RecvStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
};

/// A request with this trace.
fn request<'a>(
    trace: &'a str,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
) -> TunnelRequest<'a> {
    let request = TunnelRequest::new("GET", path, headers);
    TunnelRequest {
        open: Open {
            request_uuid: [3; 16],
            revision: 5,
            traceparent: trace,
            ..request.open
        },
        ..request
    }
}

fn open(observed: &ObservedEgress, head: EncodedHead, end: bool) -> Exchange {
    observed.link.open(head, end)
}

/// Reads payload and datagrams to the end; returns their size, and how the direction ended.
async fn drain(recv: &mut RecvHalf) -> (usize, Option<adit_link::Failure>) {
    let mut bytes = 0;
    while let Some(part) = next_part(recv).await {
        match part {
            Ok(Part::Data(data)) => bytes += data.as_ref().len(),
            Ok(Part::Datagram(data)) => bytes += data.len(),
            Ok(_) => {}
            Err(failure) => return (bytes, Some(failure)),
        }
    }
    (bytes, None)
}

async fn part(exchange: &mut Exchange) -> Part {
    next_part(&mut exchange.recv).await.unwrap().unwrap()
}

fn is_of(record: &Recorded, protocol: &str, port: u16) {
    assert_eq!((record.protocol, record.opener), (protocol, "server"));
    assert_eq!(record.request_uuid, [3; 16]);
    assert_eq!((record.tunnel, record.revision), (TUNNEL, 5));
    assert_eq!(record.visitor, "192.0.2.1:4000");
    assert_eq!(record.service, format!("127.0.0.1:{port}"));
}

// Over HTTP/2.

type Called = (Request<RecvStream>, SendResponse<Bytes>);

/// A service over HTTP/2 that passes its requests to the test.
async fn h2_service() -> (ServiceConfig, mpsc::UnboundedReceiver<Called>) {
    let (sender, calls) = mpsc::unbounded_channel();
    let port = serve(move |socket: TcpStream, _| {
        let sender = sender.clone();
        async move {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok(called)) = connection.accept().await {
                let _ = sender.send(called);
            }
        }
    })
    .await;
    let mut to = http_service(port);
    to.protocol = Protocol::Http2;
    (to, calls)
}

fn call(trace: &str, lines: &[(&str, &str)], body: &[u8]) -> EncodedHead {
    let request = TunnelRequest {
        authority: "calls.example:81",
        ..request(trace, "/pkg.Echo/Say", lines)
    };
    request.grpc(None, body)
}

fn status(code: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().unwrap());
    trailers
}

fn all<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
    let values = headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn a_call_is_recorded_with_its_status() {
    let (to, mut calls) = h2_service().await;
    let port = to.port;
    let mut observed = ObservedEgress::to(to, Config::default());
    for (trace, is_first) in [(SAMPLED, true), (SAMPLED, false), (UNSAMPLED, false)] {
        let mut exchange = open(&observed, call(trace, &[], b"12345"), true);
        let (request, mut respond) = within(calls.recv()).await.unwrap();
        drop(request);
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from_static(b"reply!!"), false)
            .unwrap();
        body.send_trailers(status("5")).unwrap();
        assert_eq!(drain(&mut exchange.recv).await, (7, None));
        drop(exchange);
        let record = observed.only_record().await;
        is_of(&record, "grpc", port);
        assert_eq!((record.method, record.scheme), ("POST", ""));
        assert_eq!((record.host, record.port), ("calls.example", 81));
        assert_eq!(record.path, "/pkg.Echo/Say");
        assert_eq!((record.status, record.grpc_status), (200, Some(5)));
        assert_eq!(record.reason, None);
        assert_eq!((record.received_bytes, record.sent_bytes), (5, 7));
        assert!(record.responded.is_some());
        let phases: &[_] = match (trace == SAMPLED, is_first) {
            (true, true) => &[Phase::Queue, Phase::Dial, Phase::FirstByte, Phase::End],
            (true, false) => &[Phase::Queue, Phase::FirstByte, Phase::End],
            (false, _) => &[],
        };
        assert_eq!(record.phases(), phases);
    }
}

#[tokio::test]
async fn a_call_of_trailers_or_a_reset_has_a_status() {
    let (to, mut calls) = h2_service().await;
    let mut observed = ObservedEgress::to(to, Config::default());
    // A response with trailers only.
    let mut exchange = open(&observed, call(SAMPLED, &[], b""), true);
    let (_, mut respond) = within(calls.recv()).await.unwrap();
    let mut response = Response::new(());
    *response.headers_mut() = status("12");
    respond.send_response(response, true).unwrap();
    assert_eq!(drain(&mut exchange.recv).await, (0, None));
    drop(exchange);
    let record = observed.only_record().await;
    assert_eq!((record.status, record.grpc_status), (200, Some(12)));
    assert_eq!(record.reason, None);
    // The service resets the stream before and after the head of the response.
    for has_responded in [false, true] {
        let mut exchange = open(&observed, call(SAMPLED, &[], b""), true);
        let (_, mut respond) = within(calls.recv()).await.unwrap();
        if has_responded {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            assert!(matches!(part(&mut exchange).await, Part::Response(_)));
            body.send_reset(Code::ENHANCE_YOUR_CALM);
        } else {
            respond.send_reset(Code::ENHANCE_YOUR_CALM);
        }
        assert_eq!(drain(&mut exchange.recv).await, (0, None));
        drop(exchange);
        let record = observed.only_record().await;
        assert_eq!(record.reason, Some("service_aborted"));
        assert_eq!((record.status, record.grpc_status), (200, Some(8)));
    }
    // No service has received the call.
    let mut exchange = open(&observed, call(SAMPLED, &[], b""), true);
    let (_, mut respond) = within(calls.recv()).await.unwrap();
    respond.send_reset(Code::REFUSED_STREAM);
    drain(&mut exchange.recv).await.1.unwrap();
    drop(exchange);
    let record = observed.only_record().await;
    assert_eq!(record.reason, Some("refused"));
    assert_eq!((record.status, record.grpc_status), (0, None));
    // The visitor leaves.
    let Exchange { send, recv } = open(&observed, call(SAMPLED, &[], b""), false);
    let called = within(calls.recv()).await.unwrap();
    send.reset(ResetCode::Cancelled, "gone");
    drop(recv);
    let record = observed.only_record().await;
    assert_eq!(record.reason, Some("cancelled"));
    drop(called);
}

#[tokio::test]
async fn http2_services_get_the_recorded_trace() {
    let (to, mut calls) = h2_service().await;
    let mut observed = ObservedEgress::to(to.clone(), Config::default());
    let theirs = [
        ("traceparent", SAMPLED),
        ("tracestate", "a=1"),
        ("baggage", "b=2"),
    ];
    let http = |trace, lines| request(trace, "/a?b=c", lines).http(b"");
    for (trace, lines) in [
        (SAMPLED, &theirs[..]),
        (SAMPLED, &[]),
        (UNSAMPLED, &theirs[..]),
        (UNSAMPLED, &[]),
    ] {
        for is_call in [false, true] {
            let head = if is_call {
                call(trace, lines, b"")
            } else {
                http(trace, lines)
            };
            let mut exchange = open(&observed, head, true);
            let (request, mut respond) = within(calls.recv()).await.unwrap();
            respond.send_response(Response::new(()), true).unwrap();
            assert_eq!(drain(&mut exchange.recv).await, (0, None));
            drop(exchange);
            let record = observed.only_record().await;
            is_of(&record, if is_call { "grpc" } else { "http" }, to.port);
            assert_eq!((record.reason, record.grpc_status), (None, None));
            let ours = record.timeline.is_some().then(|| record.traceparent());
            assert_eq!(ours.is_some(), trace == SAMPLED);
            let line = lines.first().map(|(_, theirs)| *theirs);
            let passed = Some(trace).filter(|trace| *trace == UNSAMPLED).or(line);
            let headers = request.headers();
            let found = all(headers, "traceparent");
            assert_eq!(found, Vec::from_iter(ours.as_deref().or(passed)));
            assert_eq!(headers.contains_key("tracestate"), !lines.is_empty());
            assert_eq!(headers.contains_key("baggage"), !lines.is_empty());
        }
    }
    let mut custom = to;
    custom.custom_headers = vec![("traceparent".into(), UNSAMPLED.into())];
    observed.link.serve(custom);
    let exchange = open(&observed, call(SAMPLED, &theirs, b""), true);
    let (request, _respond) = within(calls.recv()).await.unwrap();
    assert_eq!(all(request.headers(), "traceparent"), [UNSAMPLED]);
    drop(exchange);
}

#[tokio::test]
async fn the_first_call_of_a_connection_records_the_dial() {
    let (to, mut calls) = h2_service().await;
    let mut observed = ObservedEgress::to(to, Config::default());
    let exchanges = [(); 2].map(|()| open(&observed, call(SAMPLED, &[], b""), true));
    let mut dials = Vec::new();
    for mut exchange in exchanges {
        let (_, mut respond) = within(calls.recv()).await.unwrap();
        respond.send_response(Response::new(()), true).unwrap();
        assert_eq!(drain(&mut exchange.recv).await, (0, None));
        let record = observed.record().await;
        dials.push(record.phases().contains(&Phase::Dial));
        if dials[dials.len() - 1] {
            let (queue, dial) = (record.span(Phase::Queue), record.span(Phase::Dial));
            assert!(queue.start <= dial.start && dial.end <= queue.end);
        }
    }
    observed.settled().await;
    assert_eq!(dials, [true, false]);
    assert_eq!(observed.link.egress.stats().dialled, 1);
}

#[tokio::test]
async fn http2_requests_over_the_limit_are_recorded() {
    let (to, mut calls) = h2_service().await;
    let narrow = Config {
        max_connections: 1,
        ..Config::default()
    };
    let mut observed = ObservedEgress::to(to, narrow);
    let first = open(&observed, call(SAMPLED, &[], b""), true);
    let called = within(calls.recv()).await.unwrap();
    let mut second = open(&observed, call(SAMPLED, &[], b""), true);
    drain(&mut second.recv).await.1.unwrap();
    assert_eq!(observed.record().await.reason, Some("limit"));
    drop((first, second, called));
    assert_eq!(observed.only_record().await.reason, Some("cancelled"));
}

// WebSockets.

fn web_socket(observed: &ObservedEgress, trace: &str, lines: &[(&str, &str)]) -> Exchange {
    open(
        observed,
        request(trace, "/chat?room=1", lines).websocket(),
        false,
    )
}

/// A service that accepts WebSockets and passes them to the test, with the heads of their requests.
async fn web_sockets() -> (u16, mpsc::UnboundedReceiver<(String, TcpStream)>) {
    service(|mut socket, _| async move {
        let head = accept_upgrade(&mut socket, "").await;
        (head, socket)
    })
    .await
}

fn frame(opcode: u8, length: u64) -> WebSocketFrame {
    WebSocketFrame {
        fin: true,
        rsv: 0,
        opcode,
        length,
    }
}

#[tokio::test]
async fn a_websocket_is_recorded_when_it_is_closed() {
    let (port, mut sockets) = web_sockets().await;
    let mut observed = ObservedEgress::to(http_service(port), Config::default());
    let theirs = [("traceparent", SAMPLED), ("tracestate", "a=1")];
    for (trace, lines) in [
        (SAMPLED, &theirs[..]),
        (SAMPLED, &[]),
        (UNSAMPLED, &theirs[..]),
        (UNSAMPLED, &[]),
    ] {
        let mut exchange = web_socket(&observed, trace, lines);
        assert!(matches!(
            part(&mut exchange).await,
            Part::Response(ResponseHead::WebSocket(_))
        ));
        let (head, mut socket) = within(sockets.recv()).await.unwrap();
        // A frame of 5 bytes to the visitor, one of 3 to the service, and both close.
        send(&mut socket, b"\x81\x05hello\x88\x00").await;
        let text = Bytes::from_static(b"abc");
        exchange.send.send_frame(frame(1, 3), text).unwrap();
        let close = Bytes::new();
        exchange.send.send_frame(frame(8, 0), close).unwrap();
        exchange.send.finish().unwrap();
        assert_eq!(drain(&mut exchange.recv).await.1, None);
        let mut all = Vec::new();
        within(socket.read_to_end(&mut all)).await.unwrap();
        drop(exchange);
        let record = observed.only_record().await;
        is_of(&record, "websocket", port);
        assert_eq!((record.method, record.path), ("GET", "/chat"));
        assert_eq!((record.host, record.status), ("visitor.example", 101));
        assert_eq!(record.reason, None);
        // Frames count with their heads and masks.
        assert_eq!(record.received_bytes, all.len() as u64);
        assert_eq!((all.len(), record.sent_bytes), (6 + 3 + 6, 2 + 5 + 2));
        let phases: &[_] = if trace == SAMPLED {
            &[Phase::Dial, Phase::FirstByte, Phase::End]
        } else {
            &[]
        };
        assert_eq!(record.phases(), phases);
        let ours = record.timeline.is_some().then(|| record.traceparent());
        let line = lines.first().map(|(_, theirs)| *theirs);
        let passed = Some(trace).filter(|trace| *trace == UNSAMPLED).or(line);
        let found = values(&head, "traceparent");
        assert_eq!(found, Vec::from_iter(ours.as_deref().or(passed)));
        assert_eq!(values(&head, "tracestate").len(), lines.len().min(1));
    }
}

#[tokio::test]
async fn a_refused_or_broken_websocket_is_recorded() {
    let port = serve(|mut socket, _| async move {
        read_head(&mut socket).await;
        let response = b"HTTP/1.1 403 No\r\ncontent-length: 6\r\n\r\nnot me";
        send(&mut socket, response).await;
    })
    .await;
    let mut observed = ObservedEgress::to(http_service(port), Config::default());
    let mut exchange = web_socket(&observed, SAMPLED, &[]);
    exchange.send.finish().unwrap();
    assert_eq!(drain(&mut exchange.recv).await, (6, None));
    drop(exchange);
    let record = observed.only_record().await;
    assert_eq!((record.status, record.reason), (403, None));
    assert_eq!(record.sent_bytes, 6);

    let (port, mut sockets) = web_sockets().await;
    let mut observed = ObservedEgress::to(http_service(port), Config::default());
    // The service breaks off in the middle of a frame.
    let mut exchange = web_socket(&observed, SAMPLED, &[]);
    let (_, mut socket) = within(sockets.recv()).await.unwrap();
    send(&mut socket, b"\x81\x05he").await;
    drop(socket);
    drain(&mut exchange.recv).await.1.unwrap();
    drop(exchange);
    let record = observed.only_record().await;
    assert_eq!(record.reason, Some("service_aborted"));
    assert_eq!((record.status, record.sent_bytes), (101, 4));
    // The visitor leaves.
    let mut exchange = web_socket(&observed, SAMPLED, &[]);
    let held = within(sockets.recv()).await.unwrap();
    part(&mut exchange).await;
    exchange.send.reset(ResetCode::Cancelled, "gone");
    let record = observed.record().await;
    assert_eq!((record.status, record.reason), (101, Some("cancelled")));
    drop((held, exchange.recv));
    observed.settled().await;
}

// Sessions.

fn tcp(observed: &ObservedEgress, body: &[u8]) -> Exchange {
    open(observed, request(SAMPLED, "", &[]).tcp(body), false)
}

#[tokio::test]
async fn a_tcp_connection_is_recorded_without_its_proxy_header() {
    let port = serve(|mut socket, _| async move {
        let mut all = Vec::new();
        socket.read_to_end(&mut all).await.unwrap();
        assert!(all.starts_with(b"PROXY TCP4 ") && all.ends_with(b"\r\nabcdef"));
        send(&mut socket, b"bye!").await;
    })
    .await;
    let mut to = ServiceConfig::new("127.0.0.1", port, Protocol::Tcp);
    to.proxy_protocol = Some(ProxyProtocol::V1);
    let mut observed = ObservedEgress::to(to, Config::default());
    let mut exchange = tcp(&observed, b"abc");
    let more = Bytes::from_static(b"def");
    exchange.send.send_all(more, true).await.unwrap();
    assert_eq!(drain(&mut exchange.recv).await, (4, None));
    drop(exchange);
    let record = observed.only_record().await;
    is_of(&record, "tcp", port);
    assert_eq!((record.host, record.port), ("", 2222));
    assert_eq!((record.method, record.path), ("", ""));
    assert_eq!((record.status, record.reason), (0, None));
    assert_eq!((record.received_bytes, record.sent_bytes), (6, 4));
    assert_eq!(record.phases(), [Phase::Dial, Phase::End]);
    assert!(record.responded.is_some());
}

#[tokio::test]
async fn a_failed_tcp_connection_is_recorded_with_its_reason() {
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let to = |port| ServiceConfig::new("127.0.0.1", port, Protocol::Tcp);
    let mut observed = ObservedEgress::to(to(port), Config::default());
    let mut exchange = tcp(&observed, b"");
    drain(&mut exchange.recv).await.1.unwrap();
    drop(exchange);
    let record = observed.only_record().await;
    assert_eq!(record.reason, Some("dial_failed"));
    assert_eq!(record.phases(), [Phase::Dial]);
    assert_eq!(record.responded, None);

    let (send, mut sockets) = mpsc::unbounded_channel();
    let port = serve(move |socket, _| {
        let send = send.clone();
        async move { send.send(socket).unwrap() }
    })
    .await;
    let narrow = Config {
        max_connections: 1,
        ..Config::default()
    };
    let mut observed = ObservedEgress::to(to(port), narrow);
    let mut exchange = tcp(&observed, b"");
    let socket: TcpStream = within(sockets.recv()).await.unwrap();
    let mut second = tcp(&observed, b"");
    drain(&mut second.recv).await.1.unwrap();
    drop(second);
    assert_eq!(observed.record().await.reason, Some("limit"));
    // The service resets the connection.
    socket2::SockRef::from(&socket)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(socket);
    drain(&mut exchange.recv).await.1.unwrap();
    drop(exchange);
    let record = observed.only_record().await;
    assert_eq!(record.reason, Some("service_aborted"));
    // The visitor leaves.
    let Exchange { send, recv } = tcp(&observed, b"");
    let socket = within(sockets.recv()).await.unwrap();
    send.reset(ResetCode::Cancelled, "gone");
    drop(recv);
    assert_eq!(observed.only_record().await.reason, Some("cancelled"));
    drop(socket);
}

fn udp(observed: &ObservedEgress) -> Exchange {
    let request = TunnelRequest {
        local: "[::]:53",
        ..request(SAMPLED, "", &[])
    };
    open(observed, request.udp(), false)
}

#[tokio::test]
async fn a_flow_is_recorded_with_its_bytes() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let to = ServiceConfig::new("127.0.0.1", port, Protocol::Udp);
    let mut observed = ObservedEgress::to(to, Config::default());
    let mut exchange = udp(&observed);
    let mut buffer = [0; 64];
    for length in [3, 4] {
        let data = Bytes::from(vec![1; length]);
        exchange.send.send_datagram(data).unwrap();
        let (count, from) = within(socket.recv_from(&mut buffer)).await.unwrap();
        assert_eq!(count, length);
        socket.send_to(&[2; 10], from).await.unwrap();
    }
    let mut got = 0;
    while got < 20 {
        if let Part::Datagram(data) = part(&mut exchange).await {
            got += data.len();
        }
    }
    exchange.send.finish().unwrap();
    assert_eq!(drain(&mut exchange.recv).await, (0, None));
    drop(exchange);
    let record = observed.only_record().await;
    is_of(&record, "udp", port);
    assert_eq!((record.host, record.port), ("", 53));
    assert_eq!((record.received_bytes, record.sent_bytes), (7, 20));
    assert_eq!((record.status, record.reason), (0, None));
    assert_eq!(record.phases(), [Phase::Dial, Phase::End]);

    // The service has ended: the network reports it.
    drop(socket);
    let mut exchange = udp(&observed);
    part(&mut exchange).await;
    let failure = loop {
        let _ = exchange.send.send_datagram(Bytes::from_static(b"?"));
        if let Some(Err(failure)) = next_part(&mut exchange.recv).await {
            break failure;
        }
    };
    drop(exchange);
    let record = observed.only_record().await;
    assert_eq!(record.reason, Some("dial_failed"));
    assert_eq!(record.reason, Some(failure.reason.as_str()));
    // The visitor leaves.
    let Exchange { send, mut recv } = udp(&observed);
    next_part(&mut recv).await.unwrap().unwrap();
    send.reset(ResetCode::Cancelled, "gone");
    drop(recv);
    assert_eq!(observed.only_record().await.reason, Some("cancelled"));
}
