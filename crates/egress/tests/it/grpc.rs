//! Calls of gRPC to services over HTTP/2 (section 8 of the protocol), frame by frame.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_codec::{ResetCode, ResponseHead};
use adit_egress::{Config, Protocol, ServiceConfig};
use adit_link::{Exchange, Part, Reason};
use adit_testlink::{
    EgressLink, TunnelRequest,
    grpc::body_of,
    http_service,
    http1::{fixed, send},
    next_part, pass, read,
    tcp::serve,
    until, within,
};
use bytes::Bytes;
use h2::{
    Reason as Code, RecvStream,
    server::{Builder, SendResponse},
};
use http::{HeaderMap, Request, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

/// A call as a service receives it.
type Called = (Request<RecvStream>, SendResponse<Bytes>, usize);

/// A service: its port, the calls that it receives with the numbers of their connections, and its number of
/// connections.
struct Service {
    port: u16,
    calls: mpsc::UnboundedReceiver<Called>,
    connections: Arc<AtomicUsize>,
}

impl Service {
    async fn start() -> Self {
        Self::with(Builder::new()).await
    }

    async fn with(builder: Builder) -> Self {
        let (sender, calls) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let port = serve(move |socket, number| {
            count.fetch_add(1, Ordering::Relaxed);
            serve_http2(socket, builder.clone(), number, sender.clone())
        })
        .await;
        Self {
            port,
            calls,
            connections,
        }
    }

    fn link(&self, config: Config) -> EgressLink {
        EgressLink::to(self.config(), config)
    }

    fn config(&self) -> ServiceConfig {
        let mut to = http_service(self.port);
        to.protocol = Protocol::Http2;
        to
    }

    async fn call(&mut self) -> (Request<RecvStream>, SendResponse<Bytes>) {
        let (request, respond, _) = within(self.calls.recv()).await.unwrap();
        (request, respond)
    }
}

async fn serve_http2(
    socket: TcpStream,
    builder: Builder,
    number: usize,
    calls: mpsc::UnboundedSender<Called>,
) {
    let Ok(mut connection) = builder.handshake(socket).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let _ = calls.send((request, respond, number));
    }
}

fn open(link: &EgressLink, metadata: &[(&str, &str)], body: &[u8], end: bool) -> Exchange {
    open_within(link, None, metadata, body, end)
}

fn open_within(
    link: &EgressLink,
    timeout: Option<Duration>,
    metadata: &[(&str, &str)],
    body: &[u8],
    end: bool,
) -> Exchange {
    let request = TunnelRequest {
        authority: "calls.example:81",
        ..TunnelRequest::new("POST", "/pkg.Echo/Say", metadata)
    };
    link.open(request.grpc(timeout, body), end)
}

const GRPC: (&str, &str) = ("content-type", "application/grpc+proto");

fn trailers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let lines = lines.iter();
    lines
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect()
}

fn ok() -> Response<()> {
    Response::builder().header(GRPC.0, GRPC.1).body(()).unwrap()
}

/// The code with which a stream was reset.
async fn reset_code(body: &mut RecvStream) -> Option<Code> {
    body_of(body).await.unwrap_err()
}

#[tokio::test]
async fn p_8_2_a_service_gets_the_call_as_the_visitor_made_it() {
    let mut service = Service::start().await;
    let link = service.link(Config::default());
    let metadata = [
        GRPC,
        ("x-twice", "b"),
        ("x-blob-bin", "AP8,Cg"),
        ("x-twice", "a"),
        ("grpc-encoding", "gzip"),
        ("user-agent", "test"),
        // These lines are not forwarded, even if the other side sends them.
        ("grpc-timeout", "1n"),
        ("te", "gzip"),
        ("keep-alive", "x"),
    ];
    let timeout = Some(Duration::from_millis(1_500));
    let Exchange { send, mut recv } = open_within(&link, timeout, &metadata, b"first", false);
    send.send_all("second".into(), true).await.unwrap();
    let (request, mut respond) = service.call().await;
    assert_eq!(request.method(), "POST");
    assert_eq!(
        request.uri().to_string(),
        "http://calls.example:81/pkg.Echo/Say"
    );
    let of = |name: &str| {
        let values = request.headers().get_all(name).iter();
        let values: Vec<_> = values.map(|value| value.to_str().unwrap()).collect();
        values.join("|")
    };
    for (name, values) in [
        ("content-type", GRPC.1),
        ("te", "trailers"),
        ("grpc-timeout", "1500000u"),
        ("grpc-encoding", "gzip"),
        ("x-twice", "b|a"),
        ("x-blob-bin", "AP8,Cg"),
        ("user-agent", "test"),
        ("keep-alive", ""),
        ("content-length", ""),
    ] {
        assert_eq!(of(name), values, "{name}");
    }
    let mut body = request.into_body();
    assert_eq!(body_of(&mut body).await.unwrap(), b"firstsecond");
    let mut response = respond.send_response(ok(), false).unwrap();
    response.send_data("response".into(), false).unwrap();
    let lines = [("grpc-status", "0"), ("x-a-bin", "AP8"), ("x-a-bin", "Cg")];
    response.send_trailers(trailers(&lines)).unwrap();
    let response = read(&mut recv).await.unwrap();
    assert_eq!(
        (response.status, &response.body[..]),
        (200, &b"response"[..])
    );
    let of = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    assert!(response.headers.contains(&of(GRPC)));
    assert_eq!(response.trailers, lines.map(of));
    drop((send, recv));
    link.settled().await;
}

#[tokio::test]
async fn p_8_2_a_call_without_a_timeout_has_none() {
    let mut service = Service::start().await;
    let link = service.link(Config::default());
    let _exchange = open(&link, &[GRPC], b"", true);
    let (request, _respond) = service.call().await;
    assert!(request.headers().get("grpc-timeout").is_none());
    assert_eq!(request.headers().get("te").unwrap(), "trailers");
    assert!(request.body().is_end_stream());
}

#[tokio::test]
async fn p_8_1_first_metadata_cross_before_messages_and_trailers_alone() {
    let mut service = Service::start().await;
    let link = service.link(Config::default());
    // The service may be silent for any time.
    let Exchange { send, mut recv } = open(&link, &[GRPC], b"", false);
    let (request, mut respond) = service.call().await;
    let mut response = respond.send_response(ok(), false).unwrap();
    let Some(Ok(Part::Response(ResponseHead::Grpc(head)))) = next_part(&mut recv).await else {
        panic!("no response of gRPC");
    };
    assert_eq!(head.status, 200);
    send.send_all("message".into(), true).await.unwrap();
    assert_eq!(body_of(&mut request.into_body()).await.unwrap(), b"message");
    response
        .send_trailers(trailers(&[("grpc-status", "0")]))
        .unwrap();
    let rest = read(&mut recv).await.unwrap();
    assert_eq!(rest.trailer("grpc-status"), Some("0"));
    drop((send, recv));
    // A response with trailers only: one message with the end.
    let Exchange { send: _, mut recv } = open(&link, &[GRPC], b"", true);
    let (_, mut respond) = service.call().await;
    let mut response = ok();
    *response.headers_mut() = trailers(&[("grpc-status", "5"), ("x-a", "b")]);
    respond.send_response(response, true).unwrap();
    let alone = read(&mut recv).await.unwrap();
    assert!(alone.trailers.is_empty() && alone.body.is_empty());
    assert_eq!(alone.trailer("grpc-status"), Some("5"));
    assert_eq!(alone.trailer("x-a"), Some("b"));
    drop(recv);
    link.settled().await;
}

#[tokio::test]
async fn p_8_3_a_call_without_a_deadline_has_no_timeout() {
    let mut service = Service::start().await;
    let link = service.link(Config {
        response_timeout: Duration::from_millis(20),
        ..Config::default()
    });
    let Exchange { send: _, mut recv } = open(&link, &[GRPC], b"", true);
    let (_request, mut respond) = service.call().await;
    pass(Duration::from_secs(1)).await;
    respond.send_response(ok(), true).unwrap();
    assert_eq!(read(&mut recv).await.unwrap().status, 200);
}

#[tokio::test]
async fn p_8_3_a_call_that_is_cancelled_resets_the_stream_with_cancel() {
    let mut service = Service::start().await;
    let link = service.link(Config::default());
    for has_responded in [false, true] {
        for end in [false, true] {
            let mut exchange = open(&link, &[GRPC], b"one", end);
            let (request, mut respond) = service.call().await;
            let mut body = request.into_body();
            let mut response = None;
            if has_responded {
                response = Some(respond.send_response(ok(), false).unwrap());
                next_part(&mut exchange.recv).await.unwrap().unwrap();
            }
            exchange
                .send
                .reset(ResetCode::Cancelled, "the visitor left");
            let case = (has_responded, end);
            let code = match &mut response {
                Some(response) => std::future::poll_fn(|cx| response.poll_reset(cx)),
                None => {
                    let code = within(std::future::poll_fn(|cx| respond.poll_reset(cx))).await;
                    assert_eq!(code.unwrap(), Code::CANCEL, "{case:?}");
                    if !end {
                        assert_eq!(reset_code(&mut body).await, Some(Code::CANCEL));
                    }
                    continue;
                }
            };
            assert_eq!(within(code).await.unwrap(), Code::CANCEL, "{case:?}");
        }
    }
    link.settled().await;
    // The visitor leaves while messages are in transit in both directions and neither side reads.
    let exchange = open(&link, &[GRPC], b"", false);
    let (request, mut respond) = service.call().await;
    let mut body = request.into_body();
    let mut response = respond.send_response(ok(), false).unwrap();
    response.reserve_capacity(1 << 20);
    response.send_data(vec![1; 1 << 20].into(), false).unwrap();
    let much = Bytes::from(vec![2; 1 << 20]);
    let sending = exchange.send.send_all(much, false);
    let full = tokio::time::timeout(Duration::from_millis(100), sending).await;
    full.unwrap_err();
    drop(exchange);
    let code = within(std::future::poll_fn(|cx| response.poll_reset(cx))).await;
    assert_eq!(code.unwrap(), Code::CANCEL);
    assert_eq!(reset_code(&mut body).await, Some(Code::CANCEL));
    link.settled().await;
}

#[tokio::test]
async fn p_8_4_a_stream_that_the_service_resets_is_a_status() {
    let mut service = Service::start().await;
    let link = service.link(Config::default());
    for (code, status) in [
        (Code::NO_ERROR, "13"),
        (Code::PROTOCOL_ERROR, "13"),
        (Code::INTERNAL_ERROR, "13"),
        (Code::CANCEL, "1"),
        (Code::ENHANCE_YOUR_CALM, "8"),
        (Code::INADEQUATE_SECURITY, "7"),
    ] {
        for has_responded in [false, true] {
            for end in [false, true] {
                let Exchange { send, mut recv } = open(&link, &[GRPC], b"one", end);
                let (request, mut respond) = service.call().await;
                if has_responded {
                    let mut response = respond.send_response(ok(), false).unwrap();
                    next_part(&mut recv).await.unwrap().unwrap();
                    response.send_reset(code);
                } else {
                    respond.send_reset(code);
                }
                let response = read(&mut recv).await.unwrap();
                let case = (code, has_responded, end);
                assert_eq!(response.trailer("grpc-status"), Some(status), "{case:?}");
                let reason = response.trailer("adit-reason");
                assert_eq!(reason, Some("service_aborted"), "{case:?}");
                let uuid = "07070707-0707-0707-0707-070707070707";
                assert_eq!(response.trailer("adit-request-id"), Some(uuid));
                if !has_responded {
                    assert!(response.trailers.is_empty());
                    let kind = Some("application/grpc");
                    assert_eq!(response.trailer("content-type"), kind);
                }
                drop((send, recv, request));
            }
        }
    }
    link.settled().await;
}

#[tokio::test]
async fn p_6_3_calls_refused_by_the_service_are_reset_as_refused() {
    let mut service = Service::start().await;
    let link = service.link(Config::default());
    let Exchange { send: _, mut recv } = open(&link, &[GRPC], b"one", true);
    let (_request, mut respond) = service.call().await;
    respond.send_reset(Code::REFUSED_STREAM);
    let failure = read(&mut recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Refused);
    drop(recv);
    // The request is not continued after its response.
    let Exchange { send: _, mut recv } = open(&link, &[GRPC], b"one", true);
    let (_request, mut respond) = service.call().await;
    let mut response = respond.send_response(ok(), false).unwrap();
    next_part(&mut recv).await.unwrap().unwrap();
    response.send_reset(Code::REFUSED_STREAM);
    let failure = read(&mut recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceAborted);
    drop(recv);
    link.settled().await;
}

/// A service that leaves and has not processed the calls (RFC 9113, 6.8).
#[tokio::test]
async fn p_6_3_calls_beyond_a_goaway_are_reset_as_refused() {
    use tokio::io::AsyncReadExt as _;
    const HEADERS: u8 = 1;
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let port = serve(|mut socket, _| async move {
        let mut preface = [0; 24];
        socket.read_exact(&mut preface).await.unwrap();
        send(&mut socket, &SETTINGS).await;
        loop {
            let mut start = [0; 9];
            socket.read_exact(&mut start).await.unwrap();
            let length = u32::from_be_bytes([0, start[0], start[1], start[2]]);
            let mut payload = vec![0; length as usize];
            socket.read_exact(&mut payload).await.unwrap();
            if start[3] == HEADERS {
                break;
            }
        }
        send(&mut socket, &GOAWAY).await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let link = EgressLink::new(Config::default());
    let mut to = http_service(port);
    to.protocol = Protocol::Http2;
    link.serve(to);
    for end in [true, false] {
        let mut exchange = open(&link, &[GRPC], b"", end);
        let failure = read(&mut exchange.recv).await.unwrap_err();
        assert_eq!(failure.reason, Reason::Refused, "{failure}");
    }
    link.settled().await;
}

#[tokio::test]
async fn p_8_4_a_connection_that_is_lost_aborts_its_calls() {
    let port = serve(|socket, _| async move {
        let mut connection = h2::server::handshake(socket).await.unwrap();
        let mut calls = Vec::new();
        while calls.len() < 2 {
            calls.push(connection.accept().await.unwrap().unwrap());
        }
        let (_, respond) = &mut calls[0];
        let response = respond.send_response(ok(), false).unwrap();
        let flushed = std::future::poll_fn(|cx| connection.poll_closed(cx));
        let _ = tokio::time::timeout(Duration::from_millis(50), flushed).await;
        drop((response, calls));
    })
    .await;
    let link = EgressLink::new(Config::default());
    let mut to = http_service(port);
    to.protocol = Protocol::Http2;
    link.serve(to);
    let mut calls = [0; 2].map(|_| open(&link, &[GRPC], b"", true));
    for call in &mut calls {
        let failure = read(&mut call.recv).await.unwrap_err();
        assert_eq!(failure.reason, Reason::ServiceAborted);
    }
    drop(calls);
    link.settled().await;
}

#[tokio::test]
async fn an_http1_service_is_reported_with_the_right_tunnel_type() {
    let port = fixed("HTTP/1.1 200 OK\r\n\r\n").await;
    let link = EgressLink::to(http_service(port), Config::default());
    let Exchange { send: _, mut recv } = open(&link, &[GRPC], b"", true);
    let failure = read(&mut recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::NoTunnel);
    assert!(failure.detail.contains("type: grpc"), "{}", failure.detail);
}

#[tokio::test]
async fn a_service_without_http2_is_a_failed_dial() {
    // One service responds with another protocol, one closes, and one is silent.
    for manner in 0..3 {
        let port = serve(move |mut socket, _| async move {
            use tokio::io::AsyncReadExt as _;
            if manner == 1 {
                return;
            }
            if manner == 0 {
                let refusal = b"HTTP/1.1 400 Bad Request\r\n\r\n";
                send(&mut socket, refusal).await;
            }
            while socket.read_u8().await.is_ok() {}
        })
        .await;
        let link = EgressLink::new(Config {
            dial_timeout: Duration::from_millis(300),
            ..Config::default()
        });
        let mut to = http_service(port);
        to.protocol = Protocol::Http2;
        link.serve(to);
        let Exchange { send: _, mut recv } = open(&link, &[GRPC], b"", true);
        let failure = read(&mut recv).await.unwrap_err();
        assert_eq!(failure.reason, Reason::DialFailed, "{manner}");
        let detail = failure.detail;
        assert!(detail.contains("without TLS?"), "{detail}");
        drop(recv);
        link.settled().await;
    }
}

/// Regression: each request waited for the attempts of all requests before it.
#[tokio::test]
async fn all_waiting_calls_share_one_dial() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut to = http_service(listener.local_addr().unwrap().port());
    to.protocol = Protocol::Http2;
    let link = EgressLink::new(Config {
        dial_timeout: Duration::from_millis(200),
        ..Config::default()
    });
    link.serve(to);
    let mut calls: Vec<_> = (0..50).map(|_| open(&link, &[GRPC], b"", true)).collect();
    let (_held, _) = within(listener.accept()).await.unwrap();
    let another = listener.accept();
    tokio::pin!(another);
    for call in &mut calls {
        let failure = tokio::select! {
            failure = read(&mut call.recv) => failure.unwrap_err(),
            _ = &mut another => panic!("a second attempt"),
        };
        assert_eq!(failure.reason, Reason::DialFailed);
    }
    drop(calls);
    link.settled().await;
}

#[tokio::test]
async fn a_service_that_takes_no_more_gets_another_connection() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(2);
    let mut service = Service::with(builder).await;
    let link = service.link(Config {
        max_http2_connections: 2,
        idle_timeout: Duration::from_millis(50),
        ..Config::default()
    });
    let mut calls = Vec::new();
    let mut on = [0, 0];
    for _ in 0..4 {
        let exchange = open(&link, &[GRPC], b"", true);
        let (request, respond, number) = within(service.calls.recv()).await.unwrap();
        on[number] += 1;
        calls.push((exchange, request, respond));
    }
    assert_eq!(on, [2, 2]);
    // A fifth and a sixth call wait until another ends; they keep their order, and a cancelled one leaves the queue.
    let mut fifth = open(&link, &[GRPC], b"", true);
    let left = open(&link, &[GRPC], b"", true);
    let mut sixth = open(&link, &[GRPC], b"", true);
    within(async {
        while link.egress.stats().waiting < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(service.calls.try_recv().is_err());
    drop(left);
    for waiting in [&mut fifth, &mut sixth] {
        let (mut exchange, _, mut respond) = calls.remove(0);
        respond.send_response(ok(), true).unwrap();
        assert_eq!(read(&mut exchange.recv).await.unwrap().status, 200);
        let (_, mut respond) = service.call().await;
        respond.send_response(ok(), true).unwrap();
        assert_eq!(read(&mut waiting.recv).await.unwrap().status, 200);
    }
    drop((calls, fifth, sixth));
    link.settled().await;
    assert_eq!(service.connections.load(Ordering::Relaxed), 2);
    assert_eq!(link.egress.stats().dialled, 2);
    // Unused connections are closed.
    until("the connections are closed", || {
        link.egress.stats().connections == 0
    })
    .await;
}

/// Unread bytes of one stream must not stop the other streams of a service: most services let one stream use the window
/// of the whole connection (RFC 9113, 5.2.1).
#[tokio::test]
async fn f11_an_unread_stream_stops_no_other() {
    let mut service = Service::start().await;
    let link = service.link(Config {
        max_http2_connections: 4,
        ..Config::default()
    });
    let mut stuck = Vec::new();
    for _ in 0..3 {
        let exchange = open(&link, &[GRPC], b"", false);
        let (request, respond) = service.call().await;
        let sending = exchange.send.send_all(vec![1; 1 << 20].into(), false);
        let full = tokio::time::timeout(Duration::from_millis(50), sending).await;
        full.unwrap_err();
        stuck.push((exchange, request, respond));
    }
    for turn in 0..20 {
        // A body that has been received completely, and one that has not.
        let mut exchange = open(&link, &[GRPC], b"short", turn % 2 == 0);
        if turn % 2 == 1 {
            let more = exchange.send.send_all(vec![2; 20_000].into(), true);
            within(more).await.unwrap();
        }
        let (request, mut respond) = service.call().await;
        let body = body_of(&mut request.into_body()).await.unwrap();
        assert_eq!(body.len(), if turn % 2 == 0 { 5 } else { 20_005 });
        respond.send_response(ok(), true).unwrap();
        assert_eq!(read(&mut exchange.recv).await.unwrap().status, 200);
    }
    assert_eq!(service.connections.load(Ordering::Relaxed), 4);
    drop(stuck);
    link.settled().await;
}

#[tokio::test]
async fn requests_that_are_whole_share_a_connection() {
    let mut service = Service::start().await;
    let link = service.link(Config::default());
    let mut calls: Vec<_> = (0..20).map(|_| open(&link, &[GRPC], b"x", true)).collect();
    for _ in 0..20 {
        let (_, mut respond) = service.call().await;
        respond.send_response(ok(), true).unwrap();
    }
    for call in &mut calls {
        assert_eq!(read(&mut call.recv).await.unwrap().status, 200);
    }
    assert_eq!(service.connections.load(Ordering::Relaxed), 1);
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let mut frame = vec![0, 0, length, kind, flags];
    frame.extend(stream);
    frame.extend_from_slice(payload);
    frame
}

/// Frames in transit when a call is cancelled must not count against the connection that other calls use, even when
/// they arrive late.
#[tokio::test]
async fn calls_that_are_cancelled_cost_no_connection() {
    use tokio::io::AsyncReadExt as _;
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    const SETTINGS: u8 = 4;
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    let port = serve(move |mut socket, _| {
        count.fetch_add(1, Ordering::Relaxed);
        async move {
            let mut preface = [0; 24];
            socket.read_exact(&mut preface).await.unwrap();
            let settings = frame(SETTINGS, 0, [0; 4], b"");
            send(&mut socket, &settings).await;
            let mut cancelled = std::collections::VecDeque::new();
            loop {
                let mut start = [0; 9];
                if socket.read_exact(&mut start).await.is_err() {
                    return;
                }
                let [_, _, length, kind, _, stream @ ..] = start;
                let mut payload = vec![0; usize::from(length)];
                socket.read_exact(&mut payload).await.unwrap();
                if kind == HEADERS {
                    // `:status: 200` (RFC 7541, appendix A).
                    let response = frame(HEADERS, 4, stream, b"\x88");
                    send(&mut socket, &response).await;
                } else if kind == RESET {
                    cancelled.push_back(stream);
                    if cancelled.len() > 200 {
                        let long_ago = cancelled.pop_front().unwrap();
                        let late = frame(DATA, 0, long_ago, b"late");
                        send(&mut socket, &late).await;
                    }
                }
            }
        }
    })
    .await;
    let link = EgressLink::new(Config::default());
    let mut to = http_service(port);
    to.protocol = Protocol::Http2;
    link.serve(to);
    for _ in 0..3_000 {
        let mut call = open(&link, &[GRPC], b"", true);
        let part = next_part(&mut call.recv).await.unwrap();
        assert!(matches!(part, Ok(Part::Response(_))), "{part:?}");
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn there_are_no_more_connections_than_allowed() {
    let mut service = Service::start().await;
    let link = service.link(Config {
        max_http2_connections: 3,
        ..Config::default()
    });
    let calls: Vec<_> = (0..30).map(|_| open(&link, &[GRPC], b"", false)).collect();
    let mut on = [0; 3];
    for _ in 0..30 {
        let (_, _, number) = within(service.calls.recv()).await.unwrap();
        on[number] += 1;
    }
    assert_eq!(on.iter().sum::<usize>(), 30);
    assert!(on.iter().all(|running| *running >= 9), "{on:?}");
    drop(calls);
    link.settled().await;
}

#[tokio::test]
async fn calls_that_wait_for_a_lost_connection_get_another() {
    let (sender, mut calls) = mpsc::unbounded_channel();
    let (close, closed) = tokio::sync::watch::channel(false);
    let port = serve(move |socket, number| {
        let mut builder = Builder::new();
        builder.max_concurrent_streams(1);
        let (sender, mut closed) = (sender.clone(), closed.clone());
        async move {
            let serving = serve_http2(socket, builder, number, sender);
            if number > 0 {
                serving.await;
                return;
            }
            tokio::select! {
                () = serving => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
        }
    })
    .await;
    let link = EgressLink::new(Config {
        max_http2_connections: 1,
        ..Config::default()
    });
    let mut to = http_service(port);
    to.protocol = Protocol::Http2;
    link.serve(to);
    let mut first = open(&link, &[GRPC], b"", true);
    let (_request, _respond, number) = within(calls.recv()).await.unwrap();
    assert_eq!(number, 0);
    let mut second = open(&link, &[GRPC], b"", true);
    within(async {
        while link.egress.stats().waiting < 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    close.send(true).unwrap();
    let failure = read(&mut first.recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceAborted);
    let (_request, mut respond, number) = within(calls.recv()).await.unwrap();
    assert_eq!(number, 1);
    respond.send_response(ok(), true).unwrap();
    assert_eq!(read(&mut second.recv).await.unwrap().status, 200);
}

#[tokio::test]
async fn connections_of_a_removed_service_are_closed() {
    let mut service = Service::start().await;
    let link = service.link(Config::default());
    let mut exchange = open(&link, &[GRPC], b"", true);
    let (_request, mut respond) = service.call().await;
    link.egress.set_services(std::collections::HashMap::new());
    respond.send_response(ok(), true).unwrap();
    assert_eq!(read(&mut exchange.recv).await.unwrap().status, 200);
    drop(exchange);
    link.settled().await;
    let mut late = open(&link, &[GRPC], b"", true);
    let failure = read(&mut late.recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::NoTunnel);
}

#[tokio::test]
async fn too_large_metadata_are_reported_with_their_size() {
    let mut service = Service::start().await;
    let link = service.link(Config::default());
    for early in [true, false] {
        let Exchange { send, mut recv } = open(&link, &[GRPC], b"", true);
        let (_, mut respond) = service.call().await;
        let large = "x".repeat(70_000);
        let body = if early {
            let head = ok();
            let (mut parts, ()) = head.into_parts();
            parts.headers.insert("x-large", large.parse().unwrap());
            let head = Response::from_parts(parts, ());
            respond.send_response(head, false).unwrap()
        } else {
            let mut body = respond.send_response(ok(), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-large", large.parse().unwrap());
            body.send_trailers(trailers).unwrap();
            body
        };
        let response = read(&mut recv).await.unwrap();
        assert_eq!(response.trailer("grpc-status"), Some("8"), "{response:?}");
        let text = response.trailer("grpc-message").unwrap();
        assert!(text.contains(" 70") && text.contains(" 65536 "), "{text}");
        drop((send, recv, body));
        link.settled().await;
    }
}
