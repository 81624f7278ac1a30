//! Services on hyper, over HTTP/1.1 and HTTP/2: the same visitor sees the same.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use adit_codec::{HeaderBlock, ResetCode};
use adit_egress::{Config, Protocol};
use adit_link::{Exchange, Part, Reason};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use support::{Ask, Pair, read, service, within};
use tokio::{net::TcpListener, sync::mpsc};

/// A body that is fed through a channel; the sender sees when nobody reads any more.
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

/// What is behind the paths.
async fn answer(
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
                ended.send("answer unread").await.unwrap();
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

async fn start(protocol: Protocol, config: Config) -> (Pair, mpsc::Receiver<&'static str>) {
    let (tell, told) = mpsc::channel(64);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut to = service(listener.local_addr().unwrap().port());
    to.protocol = protocol;
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let tell = tell.clone();
            let io = TokioIo::new(socket);
            let handler = service_fn(move |request| answer(request, tell.clone()));
            tokio::spawn(async move {
                match protocol {
                    Protocol::Http1 => {
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
            });
        }
    });
    let pair = Pair::new(config);
    pair.serve(to);
    (pair, told)
}

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

#[tokio::test]
async fn a_service_sees_the_visitors_request() {
    for protocol in BOTH {
        let (pair, _told) = start(protocol, Config::default()).await;
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
            let answer = pair
                .ask(&Ask::new("DELETE", "/what?q=%20", &headers), b"")
                .await
                .unwrap();
            assert_eq!(
                answer.text(),
                "DELETE /what?q=%20 visitor.example x-a=1 x-a=2 te=trailers"
            );
            let cookies: Vec<_> = answer
                .headers
                .iter()
                .filter(|(n, _)| n == "set-cookie")
                .collect();
            assert_eq!(cookies.len(), 2);
            pair.settled().await;
        }
        let empty = pair.get("/empty").await.unwrap();
        assert_eq!((empty.status, empty.text()), (200, ""));
        assert_eq!(
            pair.ask(&Ask::new("HEAD", "/what", &[]), b"")
                .await
                .unwrap()
                .body
                .len(),
            0
        );
        pair.settled().await;
        let stats = pair.egress.stats();
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
        let (pair, _told) = start(protocol, Config::default()).await;
        let ask = Ask::new("POST", "/echo", &[("te", "trailers"), ("trailer", "x-sum")]);
        let answer = pair.ask(&ask, b"small").await.unwrap();
        assert_eq!(answer.text(), "small");
        let Exchange { send, mut recv } = pair.open(&ask, b"", false);
        let reader = tokio::spawn(async move { (read(&mut recv).await, recv) });
        let mut expected = Vec::new();
        for turn in 0..100_usize {
            let piece = vec![u8::try_from(turn).unwrap(); turn * 331 % 40_000];
            expected.extend_from_slice(&piece);
            within(send.send_all(piece.into(), false)).await.unwrap();
        }
        let trailers: HeaderBlock = [(&b"x-sum"[..], &b"42"[..])].into_iter().collect();
        send.finish_with(trailers).unwrap();
        let (answer, recv) = within(reader).await.unwrap();
        let answer = answer.unwrap();
        assert!(answer.body == expected, "{protocol:?}");
        if protocol == Protocol::Http2 {
            assert_eq!(answer.trailers, [("x-sum".into(), "42".into())]);
        }
        drop((send, recv));
        pair.settled().await;
        assert_eq!(pair.egress.stats().dialled, 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn answers_of_many_at_once_are_not_mixed_up() {
    for protocol in BOTH {
        let config = Config {
            max_connections: 60,
            max_idle: 7,
            ..Config::default()
        };
        let (pair, _told) = start(protocol, config).await;
        let pair = std::sync::Arc::new(pair);
        let visitors: Vec<_> = (0..50)
            .map(|visitor| {
                let pair = pair.clone();
                tokio::spawn(async move {
                    for turn in 0..20 {
                        let path = format!("/what?q={visitor}.{turn}");
                        let expected = format!("GET {path} visitor.example");
                        assert_eq!(pair.get(&path).await.unwrap().text(), expected);
                        let body = vec![visitor; 10 * turn];
                        let echo = pair.ask(&Ask::new("POST", "/echo", &[]), &body).await;
                        assert!(echo.unwrap().body == body);
                    }
                })
            })
            .collect();
        for visitor in visitors {
            visitor.await.unwrap();
        }
        pair.settled().await;
        let stats = pair.egress.stats();
        assert_eq!(stats.requests, 2_000);
        assert!(stats.connections <= 7, "{stats:?}");
        assert_eq!(stats.connections, stats.idle);
    }
}

#[tokio::test]
async fn a_broken_answer_is_reset() {
    for protocol in BOTH {
        let (pair, _told) = start(protocol, Config::default()).await;
        for _ in 0..3 {
            let failure = pair.get("/broken").await.unwrap_err();
            assert_eq!(failure.reason, Reason::ServiceAborted, "{protocol:?}");
        }
        assert_eq!(pair.get("/empty").await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_wrong_length_is_reset() {
    for protocol in BOTH {
        let (pair, _told) = start(protocol, Config::default()).await;
        let ask = Ask::new("POST", "/echo", &[("content-length", "5")]);
        for body in [&b"123"[..], b"1234567", b""] {
            let failure = pair.ask(&ask, body).await.unwrap_err();
            assert_eq!(failure.reason, Reason::ProtocolError, "{protocol:?}");
        }
        assert_eq!(pair.ask(&ask, b"12345").await.unwrap().text(), "12345");
        pair.settled().await;
    }
}

#[tokio::test]
async fn an_early_answer_is_whole_and_stops_the_upload() {
    for protocol in BOTH {
        let config = Config {
            early_response_timeout: Duration::from_millis(50),
            ..Config::default()
        };
        let (pair, _told) = start(protocol, config).await;
        let Exchange { send, mut recv } = pair.open(&Ask::new("PUT", "/early", &[]), b"", false);
        let sender = tokio::spawn(async move {
            while send.send_all(vec![0; 32_000].into(), false).await.is_ok() {}
            send.stopped()
        });
        let answer = read(&mut recv).await.unwrap();
        assert_eq!((answer.status, answer.text()), (413, "no"), "{protocol:?}");
        assert!(within(sender).await.unwrap().is_some());
        drop(recv);
        pair.settled().await;
    }
}

#[tokio::test]
async fn a_visitor_who_leaves_ends_the_services_work() {
    for protocol in BOTH {
        let (pair, mut told) = start(protocol, Config::default()).await;
        let exchange = pair.open(&Ask::get("/never"), b"", true);
        tokio::time::sleep(Duration::from_millis(30)).await;
        drop(exchange);
        assert_eq!(
            within(told.recv()).await,
            Some("handler dropped"),
            "{protocol:?}"
        );

        let mut exchange = pair.open(&Ask::get("/endless"), b"", true);
        within(exchange.recv.part()).await.unwrap().unwrap();
        drop(exchange);
        assert_eq!(
            within(told.recv()).await,
            Some("answer unread"),
            "{protocol:?}"
        );

        let mut exchange = pair.open(&Ask::new("POST", "/echo", &[]), b"x", false);
        while !matches!(
            within(exchange.recv.part()).await.unwrap().unwrap(),
            Part::Data(_)
        ) {}
        drop(exchange);
        assert_eq!(
            within(told.recv()).await,
            Some("request broken"),
            "{protocol:?}"
        );
        pair.settled().await;
    }
}

#[tokio::test]
async fn stalled_visitors_hold_up_nobody() {
    for protocol in BOTH {
        let (pair, _told) = start(protocol, Config::default()).await;
        let stalled: Vec<_> = (0..50)
            .map(|_| pair.open(&Ask::get("/endless"), b"", true))
            .collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        for _ in 0..5 {
            let body = vec![1; 20_000];
            let answer = pair
                .ask(&Ask::new("POST", "/echo", &[]), &body)
                .await
                .unwrap();
            assert!(answer.body == body, "{protocol:?}");
        }
        drop(stalled);
        pair.settled().await;
    }
}

#[tokio::test]
async fn an_http2_service_that_does_not_answer_or_is_not_there() {
    let config = Config {
        response_timeout: Duration::from_millis(50),
        max_connections: 2,
        ..Config::default()
    };
    let (pair, mut told) = start(Protocol::Http2, config).await;
    let failure = pair.get("/never").await.unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceTimeout);
    assert_eq!(within(told.recv()).await, Some("handler dropped"));
    let running = [0; 2].map(|_| pair.open(&Ask::new("POST", "/echo", &[]), b"", false));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(pair.get("/empty").await.unwrap_err().reason, Reason::Limit);
    drop(running);
    pair.settled().await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut to = service(listener.local_addr().unwrap().port());
    to.protocol = Protocol::Http2;
    drop(listener);
    pair.serve(to);
    for _ in 0..2 {
        let failure = pair.get("/").await.unwrap_err();
        assert_eq!(failure.reason, Reason::DialFailed);
        assert!(
            failure.detail.ends_with("(connection refused)"),
            "{}",
            failure.detail
        );
    }
    pair.settled().await;
}

#[tokio::test]
async fn p_3_6_an_http2_service_that_has_answered_and_reads_no_more_stops_the_request() {
    let config = Config {
        early_response_timeout: Duration::from_millis(50),
        ..Config::default()
    };
    let (pair, _told) = start(Protocol::Http2, config).await;
    let ask = Ask::new("POST", "/early-unread", &[]);
    let Exchange { send, mut recv } = pair.open(&ask, b"", false);
    assert_eq!(read(&mut recv).await.unwrap().text(), "no");
    // What is slow is not stopped: it is the visitor's turn.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(send.stopped(), None);
    let much = vec![0; 4 << 20].into();
    within(send.send_all(much, false)).await.unwrap_err();
    assert_eq!(send.stopped(), Some(ResetCode::Cancelled));
    drop((send, recv));
    pair.settled().await;
}

#[tokio::test]
async fn an_http2_connection_that_is_lost_is_made_anew() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut to = service(listener.local_addr().unwrap().port());
    to.protocol = Protocol::Http2;
    let (close, mut closing) = mpsc::channel::<()>(1);
    tokio::spawn(async move {
        let (tell, _told) = mpsc::channel(64);
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let tell = tell.clone();
            let handler = service_fn(move |request| answer(request, tell.clone()));
            let connection = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), handler);
            tokio::select! {
                _ = connection => {}
                _ = closing.recv() => {}
            }
        }
    });
    let pair = Pair::new(Config::default());
    pair.serve(to);
    for turn in 1..4 {
        assert_eq!(pair.get("/empty").await.unwrap().status, 200);
        pair.settled().await;
        assert_eq!(pair.egress.stats().dialled, turn);
        close.send(()).await.unwrap();
        within(async {
            while pair.egress.stats().connections > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
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
        // Whole, and then the upload is stopped.
        (END_STREAM, NO_ERROR, false),
    ] {
        let port = support::scripted(move |mut socket, _| async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let mut preface = [0; 24];
            socket.read_exact(&mut preface).await.unwrap();
            socket.write_all(&frame(4, 0, 0, b"")).await.unwrap();
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
            socket.write_all(&frame(4, 1, 0, b"")).await.unwrap();
            socket.write_all(&frame(1, 4, 1, b"\x88")).await.unwrap();
            socket
                .write_all(&frame(0, flags, 1, b"some"))
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            socket
                .write_all(&frame(3, 0, 1, &[0, 0, 0, code]))
                .await
                .unwrap();
            let _ = socket.read_to_end(&mut Vec::new()).await;
        })
        .await;
        let mut to = service(port);
        to.protocol = Protocol::Http2;
        let pair = Pair::new(Config::default());
        pair.serve(to);
        let Exchange { send, mut recv } = pair.open(&Ask::new("POST", "/", &[]), b"", ended);
        let answer = read(&mut recv).await;
        if flags == 0 {
            assert_eq!(
                answer.unwrap_err().reason,
                Reason::ServiceAborted,
                "{code} {ended}"
            );
        } else {
            assert_eq!(answer.unwrap().text(), "some");
        }
        drop((send, recv));
        pair.settled().await;
    }
}
