//! Services on hyper, over HTTP/1.1 and HTTP/2: the visitor receives the same from both.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use adit_codec::ResetCode;
use adit_egress::{Config, Protocol};
use adit_link::{Exchange, Part, Reason};
use adit_testlink::{
    EgressLink, TunnelRequest, block, http_service, http1::send, next_part, pass, read, tcp::serve,
    until, within,
};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::mpsc};

/// A body that is fed through a channel; its sender is closed when it is not read any more.
struct Fed(mpsc::Receiver<Result<Frame<Bytes>, io::Error>>);

type Feed = mpsc::Sender<Result<Frame<Bytes>, io::Error>>;

impl Body for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx)
    }
}

async fn put(feed: &Feed, data: impl Into<Bytes>) -> bool {
    feed.send(Ok(Frame::data(data.into()))).await.is_ok()
}

/// The response of the service for each path.
async fn response(
    request: Request<Incoming>,
    ended: mpsc::Sender<&'static str>,
) -> Result<Response<Fed>, Infallible> {
    let (feed, fed) = mpsc::channel(1);
    let mut response = Response::new(Fed(fed));
    let path = request.uri().path().to_owned();
    match &path[..] {
        "/what" => {
            let mut text = format!(
                "{} {}",
                request.method(),
                request.uri().path_and_query().unwrap()
            );
            let host = request
                .uri()
                .host()
                .map(str::to_owned)
                .or_else(|| Some(request.headers().get("host")?.to_str().unwrap().to_owned()));
            text.push_str(&format!(" {}", host.unwrap()));
            for name in ["x-a", "te", "connection-named", "keep-alive", "upgrade"] {
                for value in request.headers().get_all(name) {
                    text.push_str(&format!(" {name}={}", value.to_str().unwrap()));
                }
            }
            response
                .headers_mut()
                .append("set-cookie", "a".parse().unwrap());
            response
                .headers_mut()
                .append("set-cookie", "b".parse().unwrap());
            tokio::spawn(async move { put(&feed, text).await });
        }
        "/echo" => {
            let mut body = request.into_body();
            tokio::spawn(async move {
                while let Some(frame) = body.frame().await {
                    let Ok(frame) = frame else {
                        ended.send("request broken").await.unwrap();
                        return;
                    };
                    if feed.send(Ok(frame)).await.is_err() {
                        return;
                    }
                }
            });
        }
        "/endless" => {
            tokio::spawn(async move {
                while put(&feed, vec![0; 16 * 1024]).await {}
                ended.send("response unread").await.unwrap();
            });
        }
        "/broken" => {
            tokio::spawn(async move {
                put(&feed, "some").await;
                let _ = feed.send(Err(io::Error::other("broken"))).await;
            });
        }
        "/early" => {
            *response.status_mut() = hyper::StatusCode::PAYLOAD_TOO_LARGE;
            tokio::spawn(async move { put(&feed, "no").await });
        }
        "/early-unread" => {
            tokio::spawn(async move {
                put(&feed, "no").await;
                drop(feed);
                ended.closed().await;
                drop(request);
            });
        }
        "/never" => {
            struct Guard(mpsc::Sender<&'static str>);
            impl Drop for Guard {
                fn drop(&mut self) {
                    let _ = self.0.try_send("handler dropped");
                }
            }
            ended.try_send("handler runs").unwrap();
            let _guard = Guard(ended);
            std::future::pending::<()>().await;
        }
        "/empty" => drop(feed),
        _ => {
            *response.status_mut() = hyper::StatusCode::NOT_FOUND;
        }
    }
    Ok(response)
}

async fn start(protocol: Protocol, config: Config) -> (EgressLink, mpsc::Receiver<&'static str>) {
    let (sender, events) = mpsc::channel(64);
    let port = serve(move |socket, _| {
        let sender = sender.clone();
        let io = TokioIo::new(socket);
        let handler = service_fn(move |request| response(request, sender.clone()));
        async move {
            match protocol {
                Protocol::Http1 | Protocol::Either => {
                    let _ = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(io, handler)
                        .await;
                }
                Protocol::Http2 => {
                    let _ = http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, handler)
                        .await;
                }
                Protocol::Tcp | Protocol::Udp => unreachable!("not of HTTP"),
            }
        }
    })
    .await;
    let mut to = http_service(port);
    to.protocol = protocol;
    (EgressLink::to(to, config), events)
}

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

#[tokio::test]
async fn a_service_sees_the_visitors_request() {
    for protocol in BOTH {
        let (link, _events) = start(protocol, Config::default()).await;
        let headers = [
            ("x-a", "1"),
            ("x-a", "2"),
            ("te", "trailers, gzip"),
            ("connection", "connection-named"),
            ("connection-named", "x"),
            ("keep-alive", "1"),
            ("upgrade", "x"),
        ];
        for _ in 0..3 {
            let response = link
                .request(&TunnelRequest::new("DELETE", "/what?q=%20", &headers), b"")
                .await
                .unwrap();
            assert_eq!(
                response.text(),
                "DELETE /what?q=%20 visitor.example x-a=1 x-a=2 te=trailers"
            );
            let cookies: Vec<_> = response
                .headers
                .iter()
                .filter(|(n, _)| n == "set-cookie")
                .collect();
            assert_eq!(cookies.len(), 2);
            link.settled().await;
        }
        let empty = link.get("/empty").await.unwrap();
        assert_eq!((empty.status, empty.text()), (200, ""));
        assert_eq!(
            link.request(&TunnelRequest::new("HEAD", "/what", &[]), b"")
                .await
                .unwrap()
                .body
                .len(),
            0
        );
        link.settled().await;
        let stats = link.egress.stats();
        assert_eq!(
            (stats.dialled, stats.reused, stats.connections),
            (1, 4, 1),
            "{protocol:?}"
        );
    }
}

#[tokio::test]
async fn bodies_and_trailers_go_both_ways() {
    for protocol in BOTH {
        let (link, _events) = start(protocol, Config::default()).await;
        let request =
            TunnelRequest::new("POST", "/echo", &[("te", "trailers"), ("trailer", "x-sum")]);
        let response = link.request(&request, b"small").await.unwrap();
        assert_eq!(response.text(), "small");
        let Exchange { send, mut recv } = link.open(request.http(b""), false);
        let reader = tokio::spawn(async move { (read(&mut recv).await, recv) });
        let mut expected = Vec::new();
        for turn in 0..100_usize {
            let piece = vec![u8::try_from(turn).unwrap(); turn * 331 % 40_000];
            expected.extend_from_slice(&piece);
            within(send.send_all(piece.into(), false)).await.unwrap();
        }
        send.finish_with(block(&[("x-sum", "42")])).unwrap();
        let (response, recv) = within(reader).await.unwrap();
        let response = response.unwrap();
        assert!(response.body == expected, "{protocol:?}");
        if protocol == Protocol::Http2 {
            assert_eq!(response.trailers, [("x-sum".into(), "42".into())]);
        }
        drop((send, recv));
        link.settled().await;
        assert_eq!(link.egress.stats().dialled, 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn concurrent_responses_are_not_mixed_up() {
    for protocol in BOTH {
        let config = Config {
            max_connections: 60,
            max_idle: 7,
            ..Config::default()
        };
        let (link, _events) = start(protocol, config).await;
        let link = std::sync::Arc::new(link);
        let visitors: Vec<_> = (0..50)
            .map(|visitor| {
                let link = link.clone();
                tokio::spawn(async move {
                    for turn in 0..20 {
                        let path = format!("/what?q={visitor}.{turn}");
                        let expected = format!("GET {path} visitor.example");
                        assert_eq!(link.get(&path).await.unwrap().text(), expected);
                        let body = vec![visitor; 10 * turn];
                        let echo = link
                            .request(&TunnelRequest::new("POST", "/echo", &[]), &body)
                            .await;
                        assert!(echo.unwrap().body == body);
                    }
                })
            })
            .collect();
        for visitor in visitors {
            visitor.await.unwrap();
        }
        link.settled().await;
        let stats = link.egress.stats();
        assert_eq!(stats.requests, 2_000);
        assert!(stats.connections <= 7, "{stats:?}");
        assert_eq!(stats.connections, stats.idle);
    }
}

#[tokio::test]
async fn a_broken_response_is_reset() {
    for protocol in BOTH {
        let (link, _events) = start(protocol, Config::default()).await;
        for _ in 0..3 {
            let failure = link.get("/broken").await.unwrap_err();
            assert_eq!(failure.reason, Reason::ServiceAborted, "{protocol:?}");
        }
        assert_eq!(link.get("/empty").await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_wrong_length_is_reset() {
    for protocol in BOTH {
        let (link, _events) = start(protocol, Config::default()).await;
        let request = TunnelRequest::new("POST", "/echo", &[("content-length", "5")]);
        for body in [&b"123"[..], b"1234567", b""] {
            let failure = link.request(&request, body).await.unwrap_err();
            assert_eq!(failure.reason, Reason::ProtocolError, "{protocol:?}");
        }
        assert_eq!(
            link.request(&request, b"12345").await.unwrap().text(),
            "12345"
        );
        link.settled().await;
    }
}

#[tokio::test]
async fn an_early_response_is_whole_and_stops_the_upload() {
    for protocol in BOTH {
        let config = Config {
            early_response_timeout: Duration::from_millis(50),
            ..Config::default()
        };
        let (link, _events) = start(protocol, config).await;
        let Exchange { send, mut recv } =
            link.open(TunnelRequest::new("PUT", "/early", &[]).http(b""), false);
        let sender = tokio::spawn(async move {
            while send.send_all(vec![0; 32_000].into(), false).await.is_ok() {}
            send.stopped()
        });
        let response = read(&mut recv).await.unwrap();
        assert_eq!(
            (response.status, response.text()),
            (413, "no"),
            "{protocol:?}"
        );
        assert!(within(sender).await.unwrap().is_some());
        drop(recv);
        link.settled().await;
    }
}

#[tokio::test]
async fn a_visitor_that_leaves_ends_the_work_of_the_service() {
    for protocol in BOTH {
        let (link, mut events) = start(protocol, Config::default()).await;
        let exchange = link.open(TunnelRequest::get("/never").http(b""), true);
        assert_eq!(within(events.recv()).await, Some("handler runs"));
        drop(exchange);
        assert_eq!(
            within(events.recv()).await,
            Some("handler dropped"),
            "{protocol:?}"
        );

        let mut exchange = link.open(TunnelRequest::get("/endless").http(b""), true);
        next_part(&mut exchange.recv).await.unwrap().unwrap();
        drop(exchange);
        assert_eq!(
            within(events.recv()).await,
            Some("response unread"),
            "{protocol:?}"
        );

        let mut exchange = link.open(TunnelRequest::new("POST", "/echo", &[]).http(b"x"), false);
        while !matches!(
            next_part(&mut exchange.recv).await.unwrap().unwrap(),
            Part::Data(_)
        ) {}
        drop(exchange);
        assert_eq!(
            within(events.recv()).await,
            Some("request broken"),
            "{protocol:?}"
        );
        link.settled().await;
    }
}

#[tokio::test]
async fn stalled_visitors_delay_no_other() {
    for protocol in BOTH {
        let (link, _events) = start(protocol, Config::default()).await;
        let stalled: Vec<_> = (0..50)
            .map(|_| link.open(TunnelRequest::get("/endless").http(b""), true))
            .collect();
        // Each request has used up its window.
        let window = u64::from(link.near.initial_window());
        until("all are stalled", || {
            link.near.stats().waiting_bytes + 50 * 1024 >= 50 * window
        })
        .await;
        for _ in 0..5 {
            let body = vec![1; 20_000];
            let response = link
                .request(&TunnelRequest::new("POST", "/echo", &[]), &body)
                .await
                .unwrap();
            assert!(response.body == body, "{protocol:?}");
        }
        drop(stalled);
        link.settled().await;
    }
}

#[tokio::test]
async fn a_silent_or_absent_http2_service_is_reported() {
    let config = Config {
        response_timeout: Duration::from_millis(50),
        max_connections: 2,
        ..Config::default()
    };
    let (link, mut events) = start(Protocol::Http2, config).await;
    let failure = link.get("/never").await.unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceTimeout);
    for event in ["handler runs", "handler dropped"] {
        assert_eq!(within(events.recv()).await, Some(event));
    }
    let running =
        [0; 2].map(|_| link.open(TunnelRequest::new("POST", "/echo", &[]).http(b""), false));
    until("both are taken", || link.egress.stats().requests == 3).await;
    assert_eq!(link.get("/empty").await.unwrap_err().reason, Reason::Limit);
    drop(running);
    link.settled().await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut to = http_service(listener.local_addr().unwrap().port());
    to.protocol = Protocol::Http2;
    drop(listener);
    link.serve(to);
    for _ in 0..2 {
        let failure = link.get("/").await.unwrap_err();
        assert_eq!(failure.reason, Reason::DialFailed);
        assert!(
            failure.detail.ends_with("(connection refused)"),
            "{}",
            failure.detail
        );
    }
    link.settled().await;
}

#[tokio::test]
async fn p_3_6_an_early_http2_response_stops_the_request() {
    let config = Config {
        early_response_timeout: Duration::from_millis(50),
        ..Config::default()
    };
    let (link, _events) = start(Protocol::Http2, config).await;
    let request = TunnelRequest::new("POST", "/early-unread", &[]);
    let Exchange { send, mut recv } = link.open(request.http(b""), false);
    assert_eq!(read(&mut recv).await.unwrap().text(), "no");
    // A slow visitor is not stopped: the service has read everything so far.
    pass(Duration::from_millis(200)).await;
    assert_eq!(send.stopped(), None);
    let much = vec![0; 4 << 20].into();
    within(send.send_all(much, false)).await.unwrap_err();
    assert_eq!(send.stopped(), Some(ResetCode::Cancelled));
    drop((send, recv));
    link.settled().await;
}

#[tokio::test]
async fn an_http2_connection_that_is_lost_is_made_anew() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut to = http_service(listener.local_addr().unwrap().port());
    to.protocol = Protocol::Http2;
    let (close, mut closing) = mpsc::channel::<()>(1);
    tokio::spawn(async move {
        let (sender, _events) = mpsc::channel(64);
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let sender = sender.clone();
            let handler = service_fn(move |request| response(request, sender.clone()));
            let connection = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), handler);
            tokio::select! {
                _ = connection => {}
                _ = closing.recv() => {}
            }
        }
    });
    let link = EgressLink::new(Config::default());
    link.serve(to);
    for turn in 1..4 {
        assert_eq!(link.get("/empty").await.unwrap().status, 200);
        link.settled().await;
        assert_eq!(link.egress.stats().dialled, turn);
        close.send(()).await.unwrap();
        until("the connection is closed", || {
            link.egress.stats().connections == 0
        })
        .await;
    }
}

/// One frame of HTTP/2 on stream 1, or on none.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test]
async fn a_stream_that_is_reset_never_looks_whole() {
    const NO_ERROR: u8 = 0;
    const CANCEL: u8 = 8;
    const END_STREAM: u8 = 1;
    for (flags, code, ended) in [
        (0, CANCEL, true),
        (0, CANCEL, false),
        (0, NO_ERROR, true),
        (0, NO_ERROR, false),
        // The response is complete, and then the upload is stopped.
        (END_STREAM, NO_ERROR, false),
    ] {
        let port = serve(move |mut socket, _| async move {
            use tokio::io::AsyncReadExt as _;
            let mut preface = [0; 24];
            socket.read_exact(&mut preface).await.unwrap();
            send(&mut socket, &frame(4, 0, 0, b"")).await;
            loop {
                let mut start = [0; 9];
                socket.read_exact(&mut start).await.unwrap();
                let length = u32::from_be_bytes([0, start[0], start[1], start[2]]);
                let mut payload = vec![0; length as usize];
                socket.read_exact(&mut payload).await.unwrap();
                if start[3] == 1 {
                    break;
                }
            }
            send(&mut socket, &frame(4, 1, 0, b"")).await;
            send(&mut socket, &frame(1, 4, 1, b"\x88")).await;
            send(&mut socket, &frame(0, flags, 1, b"some")).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            send(&mut socket, &frame(3, 0, 1, &[0, 0, 0, code])).await;
            let _ = socket.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let mut to = http_service(port);
        to.protocol = Protocol::Http2;
        let link = EgressLink::new(Config::default());
        link.serve(to);
        let Exchange { send, mut recv } =
            link.open(TunnelRequest::new("POST", "/", &[]).http(b""), ended);
        let response = read(&mut recv).await;
        if flags == 0 {
            assert_eq!(
                response.unwrap_err().reason,
                Reason::ServiceAborted,
                "{code} {ended}"
            );
        } else {
            assert_eq!(response.unwrap().text(), "some");
        }
        drop((send, recv));
        link.settled().await;
    }
}
