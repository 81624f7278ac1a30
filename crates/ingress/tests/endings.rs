//! How exchanges end when one side stops, stalls, leaves or says less than it promised.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    task::Poll,
    time::{Duration, Instant},
};

use adit_codec::ResetCode;
use adit_link::{Failure, Part, Reason, SendHalf};
use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody, combinators::BoxBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

mod world;

use world::{World, answer, body_of, config, echo, head, hello, read_to_end, read_until, within};

type Sent = BoxBody<Bytes, Infallible>;

/// Waits until the exchange is over for this direction.
async fn over(send: &SendHalf) -> Failure {
    std::future::poll_fn(|cx| match send.poll_ready(cx) {
        Poll::Ready(Err(failure)) => Poll::Ready(failure),
        _ => Poll::Pending,
    })
    .await
}

async fn send(stream: &mut TcpStream, bytes: &str) {
    stream.write_all(bytes.as_bytes()).await.unwrap();
}

/// Closes with a reset.
fn abort(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

async fn http2(world: &World) -> hyper::client::conn::http2::SendRequest<Sent> {
    let io = TokioIo::new(world.connect().await);
    let (send, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(16 << 20)
        .handshake(io)
        .await
        .unwrap();
    tokio::spawn(connection);
    send
}

fn get(path: &str) -> Request<Sent> {
    Request::get(format!("http://a{path}"))
        .body(Empty::new().boxed())
        .unwrap()
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_reset_and_never_looks_whole() {
    for headers in [&[("content-length", "100")][..], &[]] {
        let world = World::new(move |_, exchange| async move {
            exchange
                .send
                .respond(head(200, headers, b""), false)
                .unwrap();
            exchange.send.send_all("part".into(), false).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            exchange.send.reset(ResetCode::ServiceAborted, "broke");
        })
        .await;
        for version in ["1.1", "1.0"] {
            let request = format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n");
            let broken = world.raw(request.as_bytes()).await.unwrap_err();
            assert!(
                broken.contains("part") && !broken.ends_with("0\r\n\r\n"),
                "{broken}"
            );
        }
        // On HTTP/2 the stream is reset, and the connection serves on.
        let mut visitor = http2(&world).await;
        for _ in 0..2 {
            let answer = within(visitor.send_request(get("/"))).await.unwrap();
            assert!(within(answer.into_body().collect()).await.is_err());
        }
        world.settle().await;
        let stats = world.http.stats();
        assert_eq!(stats.failed(Reason::ServiceAborted), 4);
        assert_eq!(stats.connections, 3);
    }
}

#[tokio::test]
async fn a_lost_link_breaks_running_answers_off() {
    let world = World::new(|_, exchange| async move {
        exchange.send.respond(head(200, &[], b""), false).unwrap();
        exchange.send.send_all("part".into(), false).await.unwrap();
        over(&exchange.send).await;
    })
    .await;
    let mut stream = world.connect().await;
    send(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut stream, "part\r\n").await;
    let lane = &world.links[0].lane;
    lane.close(&Failure::new(Reason::LinkLost, "cut"));
    assert_eq!(read_to_end(&mut stream).await.unwrap_err(), "");
    assert_eq!(world.http.stats().failed(Reason::LinkLost), 1);
}

#[tokio::test]
async fn a_body_of_another_length_than_promised_is_broken_off() {
    for body in ["short", "much longer than ten"] {
        for in_head in [true, false] {
            let world = World::new(move |_, exchange| async move {
                let headers = [("content-length", "10")];
                if in_head {
                    return answer(&exchange, 200, &headers, body.as_bytes());
                }
                exchange
                    .send
                    .respond(head(200, &headers, b""), false)
                    .unwrap();
                let _ = exchange.send.send_all(body.into(), true).await;
            })
            .await;
            let broken = world
                .raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                .await
                .unwrap_err();
            assert!(!broken.contains("much longer than ten"), "{broken}");
            let mut visitor = http2(&world).await;
            // hyper may find the answer broken before it has sent its head.
            if let Ok(answer) = within(visitor.send_request(get("/"))).await {
                assert!(within(answer.into_body().collect()).await.is_err());
            }
            world.settle().await;
            assert_eq!(world.http.stats().failed(Reason::ServiceAborted), 2);
        }
    }
}

#[tokio::test]
async fn answers_that_cannot_be_told_apart_are_not_passed_on() {
    for headers in [
        &[("content-length", "1"), ("content-length", "2")][..],
        &[("content-length", "+1")],
        &[("content-length", "1, 1")],
        &[("content-length", "")],
    ] {
        let world = World::new(move |_, exchange| async move {
            answer(&exchange, 200, headers, b"x");
        })
        .await;
        let answer = world
            .raw(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        assert!(
            answer.contains("adit-reason: service_aborted\r\n"),
            "{answer}"
        );
    }
    // Twice the same is once.
    let world = World::new(|_, exchange| async move {
        let headers = [("content-length", "1"), ("content-length", "1")];
        answer(&exchange, 200, &headers, b"x");
    })
    .await;
    let answer = world
        .raw(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(
        answer.matches("content-length: 1\r\n").count(),
        1,
        "{answer}"
    );
}

#[tokio::test]
async fn an_early_answer_arrives_whole_though_the_body_keeps_coming() {
    let world = World::new(|_, exchange| async move {
        exchange.recv.stop(ResetCode::Cancelled);
        exchange
            .send
            .respond(head(413, &[], b"too large"), true)
            .unwrap();
    })
    .await;
    for framing in ["Content-Length: 3000000", "Transfer-Encoding: chunked"] {
        let mut stream = world.connect().await;
        send(
            &mut stream,
            &format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"),
        )
        .await;
        let (mut read, mut write) = stream.split();
        // A simple visitor writes all of it before it reads.
        let writing = async {
            let part = [b'x'; 16 * 1024];
            for _ in 0..180 {
                let chunk = format!("{:x}\r\n", part.len());
                let chunked = framing.starts_with('T');
                let ok = !chunked || write.write_all(chunk.as_bytes()).await.is_ok();
                if !ok || write.write_all(&part).await.is_err() {
                    return false;
                }
                if chunked && write.write_all(b"\r\n").await.is_err() {
                    return false;
                }
            }
            true
        };
        assert!(within(writing).await, "the visitor could write on");
        let mut answer = String::new();
        within(read.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.ends_with("too large"), "{answer}");
    }
    world.settle().await;
    assert_eq!(world.http.stats().failures, [0; Reason::ALL.len()]);
}

#[tokio::test]
async fn a_body_that_is_waited_for_is_read_when_the_service_wants_it() {
    let world = World::new(|_, mut exchange| async move {
        exchange.send.respond(head(100, &[], b""), false).unwrap();
        let (body, _) = body_of(&mut exchange).await.unwrap();
        answer(&exchange, 200, &[], &body);
    })
    .await;
    let mut stream = world.connect().await;
    for _ in 0..2 {
        send(
            &mut stream,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        )
        .await;
        let interim = read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
        send(&mut stream, "hello").await;
        let answer = read_until(&mut stream, "hello").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    let seen = world.seen.lock().unwrap();
    assert!(seen.iter().all(|r| r.body.is_empty()));
}

#[tokio::test]
async fn a_body_that_is_waited_for_is_read_after_a_silence() {
    let mut config = config();
    config.continue_wait = Duration::from_millis(200);
    let world = World::with(config, echo).await;
    let mut stream = world.connect().await;
    let start = Instant::now();
    send(
        &mut stream,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    )
    .await;
    let interim = read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(start.elapsed() >= Duration::from_millis(200));
    send(&mut stream, "hello").await;
    read_until(&mut stream, "hello").await;
}

#[tokio::test]
async fn a_body_that_is_not_wanted_is_never_read() {
    let world = World::new(|_, mut exchange| async move {
        exchange.send.respond(head(417, &[], b"no"), true).unwrap();
        // Nothing comes, not even an end that would look like an empty body.
        let end = exchange.recv.part().await;
        assert!(
            matches!(&end, Some(Err(f)) if f.reason == Reason::Cancelled),
            "{end:?}"
        );
    })
    .await;
    let mut stream = world.connect().await;
    send(
        &mut stream,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    )
    .await;
    let answer = read_to_end(&mut stream).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 417 "), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(!answer.contains("100"), "{answer}");
    world.settle().await;
}

#[tokio::test]
async fn a_visitor_that_leaves_takes_its_exchange_along() {
    let ends: Arc<Mutex<Vec<Reason>>> = Arc::default();
    let told = ends.clone();
    let world = World::new(move |request, mut exchange| {
        let told = told.clone();
        async move {
            if &request.path[..] == b"/answering" {
                exchange
                    .send
                    .respond(head(200, &[], b"part"), false)
                    .unwrap();
            }
            let failure = loop {
                match exchange.recv.part().await {
                    Some(Ok(_)) => {}
                    Some(Err(failure)) => break failure,
                    None => break over(&exchange.send).await,
                }
            };
            told.lock().unwrap().push(failure.reason);
        }
    })
    .await;
    let requests = [
        // While it is waited for an answer, the connection is reset.
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /answering HTTP/1.1\r\nHost: a\r\n\r\n",
        // In the middle of a body.
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "POST /answering HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ];
    for (number, request) in requests.into_iter().enumerate() {
        let mut stream = world.connect().await;
        send(&mut stream, request).await;
        within(async {
            while world.links[0].far.open_requests() == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // A body that is cut off need not be a reset to be known.
        if request.starts_with("POST") {
            drop(stream);
        } else {
            abort(stream);
        }
        world.settle().await;
        assert_eq!(ends.lock().unwrap().len(), number + 1, "{request}");
    }
    assert!(ends.lock().unwrap().iter().all(|r| *r == Reason::Cancelled));
    let cancelled = world.http.stats().failed(Reason::Cancelled);
    assert_eq!(cancelled, requests.len() as u64);
    // One stream of HTTP/2, and the others go on.
    let mut visitor = http2(&world).await;
    let answer = within(visitor.send_request(get("/answering")))
        .await
        .unwrap();
    drop(answer);
    world.settle().await;
    assert_eq!(ends.lock().unwrap().len(), requests.len() + 1);
}

#[tokio::test]
async fn a_visitor_that_shuts_its_side_gets_its_answer() {
    let world = World::new(|_, exchange| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        answer(&exchange, 200, &[], b"hello");
    })
    .await;
    let mut stream = world.connect().await;
    send(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    stream.shutdown().await.unwrap();
    let answer = read_to_end(&mut stream).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_visitor_that_shut_its_side_is_not_waited_for_for_ever() {
    let mut config = config();
    config.half_close_timeout = Duration::from_millis(200);
    let world = World::with(config, |_, exchange| async move {
        assert_eq!(over(&exchange.send).await.reason, Reason::Cancelled);
    })
    .await;
    let mut stream = world.connect().await;
    let start = Instant::now();
    send(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    stream.shutdown().await.unwrap();
    let _ = read_to_end(&mut stream).await;
    assert!(start.elapsed() >= Duration::from_millis(200));
    world.settle().await;
}

/// Sends `start`, then `drop` every 50 ms until the other side has had enough; how long that took.
async fn drip(stream: &mut TcpStream, start: &str, drop: &[u8]) -> Duration {
    let begun = Instant::now();
    send(stream, start).await;
    let (mut read, mut write) = stream.split();
    let dripping = async {
        while begun.elapsed() < Duration::from_secs(10) && write.write_all(drop).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut byte = [0];
    tokio::select! {
        () = dripping => {}
        _ = read.read(&mut byte) => {}
    }
    begun.elapsed()
}

/// Regression: the connection was closed in good order, and the visitor of a body that ends with its connection could
/// not tell that it was cut (P-7.1).
#[tokio::test]
async fn an_answer_cut_after_a_half_close_does_not_look_whole() {
    let mut config = config();
    config.half_close_timeout = Duration::from_millis(200);
    let world = World::with(config, |_, exchange| async move {
        exchange.send.respond(head(200, &[], b""), false).unwrap();
        let piece = Bytes::from_static(b"the first half");
        exchange.send.send_all(piece, false).await.unwrap();
        over(&exchange.send).await;
    })
    .await;
    let mut stream = world.connect().await;
    send(&mut stream, "GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    stream.shutdown().await.unwrap();
    let broken = read_to_end(&mut stream).await.unwrap_err();
    assert!(broken.ends_with("the first half"), "{broken}");
    world.settle().await;
}

/// Regression: each byte of a small body gave it the whole time anew, and it held its permit meanwhile (F12).
#[tokio::test]
async fn a_small_body_does_not_gain_time_byte_by_byte() {
    let mut config = config();
    config.stall_timeout = Duration::from_millis(300);
    let world = World::with(config, hello).await;
    let mut stream = world.connect().await;
    let start = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000\r\n\r\n";
    let took = drip(&mut stream, start, b"x").await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    world.settle().await;
}

#[tokio::test]
async fn whoever_stalls_is_reset() {
    let mut config = config();
    config.stall_timeout = Duration::from_millis(300);
    let world = World::with(config, |request, mut exchange| async move {
        if &request.path[..] == b"/download" {
            exchange.send.respond(head(200, &[], b""), false).unwrap();
            let piece = Bytes::from(vec![b'x'; 32 * 1024]);
            while exchange.send.send_all(piece.clone(), false).await.is_ok() {}
            return;
        }
        let _ = body_of(&mut exchange).await;
        over(&exchange.send).await;
    })
    .await;
    for request in [
        // A body that rides in the head, and one that does not.
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let answer = world.raw(request.as_bytes()).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("adit-reason: stalled\r\n"), "{answer}");
    }
    // A visitor that does not read.
    let mut stream = world.connect().await;
    send(&mut stream, "GET /download HTTP/1.1\r\nHost: a\r\n\r\n").await;
    within(async {
        while world.http.stats().requests_open == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    world.settle().await;
    read_to_end(&mut stream).await.unwrap_err();
    assert_eq!(world.http.stats().connections_open, 0);
}

#[tokio::test]
async fn heads_that_do_not_come_and_idle_connections_are_closed() {
    let mut config = config();
    config.head_timeout = Duration::from_millis(200);
    config.idle_timeout = Duration::from_millis(600);
    let world = World::with(config, hello).await;
    // (what is sent, how long it takes at least)
    let table = [
        ("", 200, 0),
        ("GET", 200, 0),
        ("GET / HTTP/1.1\r\nHost: a\r\nX", 200, 0),
        ("PRI * HT", 200, 0),
        // Looks like HTTP/2 and is not: it once stood outside of every timer.
        ("PRI /", 200, 0),
        ("PRI x", 200, 0),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 600, 1),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT", 200, 1),
    ];
    for (sent, millis, answers) in table {
        let mut stream = world.connect().await;
        let start = Instant::now();
        send(&mut stream, sent).await;
        let answer = read_to_end(&mut stream)
            .await
            .unwrap_or_else(|broken| broken);
        assert_eq!(
            answer.matches("HTTP/1.1 200 OK").count(),
            answers,
            "{sent:?}"
        );
        let (took, millis) = (start.elapsed(), Duration::from_millis(millis));
        assert!(
            took >= millis && took < millis * 3 + Duration::from_secs(2),
            "{sent:?}: {took:?}"
        );
    }
    // A head that comes byte by byte does not gain time by it, nor do empty lines before it.
    for drop in [&b"X"[..], b"\r\n"] {
        let mut stream = world.connect().await;
        let took = drip(&mut stream, "", drop).await;
        assert!(took < Duration::from_secs(5), "{drop:?}: {took:?}");
    }
    // HTTP/2: requests count, pings do not.
    let io = TokioIo::new(world.connect().await);
    let (mut visitor, connection) =
        hyper::client::conn::http2::handshake::<_, _, Sent>(TokioExecutor::new(), io)
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    within(visitor.send_request(get("/"))).await.unwrap();
    let start = Instant::now();
    within(connection).await.unwrap().unwrap();
    assert!(
        start.elapsed() >= Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_running_answer_is_not_idle() {
    let mut config = config();
    config.head_timeout = Duration::from_millis(100);
    config.idle_timeout = Duration::from_millis(100);
    let world = World::with(config, |_, exchange| async move {
        exchange
            .send
            .respond(head(200, &[], b"begin"), false)
            .unwrap();
        tokio::time::sleep(Duration::from_millis(600)).await;
        exchange.send.send_all("end".into(), true).await.unwrap();
    })
    .await;
    let answer = world
        .raw(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(
        answer.contains("begin") && answer.ends_with("end\r\n0\r\n\r\n"),
        "{answer}"
    );
    let mut visitor = http2(&world).await;
    let answer = within(visitor.send_request(get("/"))).await.unwrap();
    let body = within(answer.into_body().collect()).await.unwrap();
    assert_eq!(body.to_bytes(), "beginend");
}

#[tokio::test]
async fn a_stalled_stream_stops_no_other_on_its_connection() {
    let world = World::new(|request, mut exchange| async move {
        match &request.path[..] {
            b"/never-read" => {
                let Some(Ok(Part::Data(_first))) = exchange.recv.part().await else {
                    panic!("a body was expected");
                };
                over(&exchange.send).await;
            }
            b"/endless" => {
                exchange.send.respond(head(200, &[], b""), false).unwrap();
                let piece = Bytes::from(vec![b'x'; 32 * 1024]);
                while exchange.send.send_all(piece.clone(), false).await.is_ok() {}
            }
            b"/big" => {
                exchange.send.respond(head(200, &[], b""), false).unwrap();
                let big = Bytes::from(vec![b'x'; 2 << 20]);
                exchange.send.send_all(big, true).await.unwrap();
            }
            _ => echo(request, exchange).await,
        }
    })
    .await;
    let mut visitor = http2(&world).await;
    let mut stalled = Vec::new();
    for _ in 0..10 {
        // Answers that nobody reads.
        let answer = within(visitor.send_request(get("/endless"))).await.unwrap();
        stalled.push(answer);
    }
    let mut uploads = Vec::new();
    for _ in 0..10 {
        // Bodies that nobody takes.
        let piece = Bytes::from(vec![b'x'; 16 * 1024]);
        let pieces = stream::repeat_with(move || Ok::<_, Infallible>(Frame::data(piece.clone())));
        let body = BoxBody::new(StreamBody::new(pieces));
        let request = Request::post("http://a/never-read").body(body).unwrap();
        uploads.push(tokio::spawn(visitor.send_request(request)));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..3 {
        let answer = within(visitor.send_request(get("/big"))).await.unwrap();
        let body = within(answer.into_body().collect()).await.unwrap();
        assert_eq!(body.to_bytes().len(), 2 << 20);
        let sent = Bytes::from(vec![b'y'; 1 << 20]);
        let body = http_body_util::Full::new(sent.clone()).boxed();
        let request = Request::post("http://a/echo").body(body).unwrap();
        let answer = within(visitor.send_request(request)).await.unwrap();
        let body = within(answer.into_body().collect()).await.unwrap();
        assert!(body.to_bytes() == sent);
    }
    // What the stalled ones may hold is bounded by credit (P-4.1).
    for link in &world.links {
        let waiting = link.far.stats().waiting_bytes;
        assert!(
            waiting <= 10 * 128 * 1024,
            "{waiting} bytes wait for services"
        );
    }
    uploads.iter().for_each(|upload| upload.abort());
    drop((stalled, uploads, visitor));
    world.settle().await;
}

#[tokio::test]
async fn a_body_is_taken_from_the_visitor_only_as_fast_as_the_service_reads() {
    let mut config = config();
    config.service_timeout = Duration::from_secs(2);
    let world = World::with(config, |_, exchange| async move {
        over(&exchange.send).await;
    })
    .await;
    let mut stream = world.connect().await;
    send(
        &mut stream,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n",
    )
    .await;
    let mut written = 0;
    let part = vec![b'x'; 64 * 1024];
    while let Ok(result) =
        tokio::time::timeout(Duration::from_millis(300), stream.write(&part)).await
    {
        written += result.unwrap();
    }
    let waiting = world.links[0].far.stats().waiting_bytes;
    assert!(waiting <= 32 * 1024, "{waiting} bytes wait for the service");
    // The rest is in the kernel's buffers.
    assert!(written < 16 << 20, "{written}");
    abort(stream);
    world.settle().await;
}

#[tokio::test]
async fn a_drain_lets_running_requests_finish_and_takes_no_more() {
    let world = World::new(|_, exchange| async move {
        exchange
            .send
            .respond(head(200, &[], b"begin"), false)
            .unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        exchange.send.send_all("end".into(), true).await.unwrap();
    })
    .await;
    let mut idle = world.connect().await;
    send(&mut idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut idle, "0\r\n\r\n").await;
    let mut busy = world.connect().await;
    send(&mut busy, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut busy, "begin\r\n").await;
    let mut visitor = http2(&world).await;
    let answer = within(visitor.send_request(get("/"))).await.unwrap();
    world.drain.send(true).unwrap();
    assert_eq!(read_to_end(&mut idle).await.unwrap(), "");
    let rest = read_to_end(&mut busy).await.unwrap();
    assert_eq!(rest, "3\r\nend\r\n0\r\n\r\n");
    let body = within(answer.into_body().collect()).await.unwrap();
    assert_eq!(body.to_bytes(), "beginend");
    within(async {
        while world.http.stats().connections_open > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_are_bounded() {
    let mut config = config();
    config.max_connections = 1;
    let world = World::with(config, hello).await;
    let mut first = world.connect().await;
    send(&mut first, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut first, "hello").await;
    let mut second = world.connect().await;
    assert_eq!(read_to_end(&mut second).await.unwrap_or_default(), "");
    send(&mut first, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut first, "hello").await;
    let stats = world.http.stats();
    assert_eq!((stats.connections, stats.connections_refused), (2, 1));
    assert_eq!(stats.connections_open, 1);
}

/// Regression: one byte within each stall time was progress.
#[tokio::test]
async fn trickled_body_slower_than_the_lowest_rate_is_reset() {
    let mut config = config();
    config.stall_timeout = Duration::from_millis(300);
    config.min_rate_bytes_per_sec = 1_000;
    let world = World::with(config, |_, mut exchange| async move {
        let _ = body_of(&mut exchange).await;
        over(&exchange.send).await;
    })
    .await;
    let mut stream = world.connect().await;
    let start = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let took = drip(&mut stream, start, b"1\r\nx\r\n").await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    world.settle().await;
    assert_eq!(world.http.stats().failed(Reason::Stalled), 1);
}

/// The waiting request gets the permit of the trickled one, long before the stall time.
#[tokio::test]
async fn trickled_body_gives_its_permit_to_one_that_waits() {
    for framing in ["Transfer-Encoding: chunked", "Content-Length: 8000"] {
        let mut config = config();
        config.stall_timeout = Duration::from_secs(3600);
        config.shortage_grace = Duration::from_millis(100);
        let gate = adit_flow::Gate::new(1, 10);
        let permits = adit_ingress::layers::Permits::new(gate, Duration::from_secs(20));
        let link = world::Link::new(world::service(|request, mut exchange| async move {
            if &request.method[..] == b"GET" {
                return answer(&exchange, 200, &[], b"hello");
            }
            let _ = body_of(&mut exchange).await;
            over(&exchange.send).await;
        }));
        let there = link.clone();
        let director =
            world::director(move |_, _| adit_ingress::Direction::Go(world::destination(&there, 1)));
        let mut world = World::assemble(config, vec![Box::new(permits)], director).await;
        world.links = vec![link];
        let mut slow = world.connect().await;
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        send(&mut slow, &head).await;
        within(async {
            while world.http.stats().requests_open == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let answer = world.raw(get.as_bytes()).await.unwrap();
        assert!(answer.ends_with("hello"), "{answer}");
        assert_eq!(world.http.stats().failed(Reason::Stalled), 1, "{framing}");
    }
}
