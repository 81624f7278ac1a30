//! How exchanges end when one side stops, stalls, leaves or sends less than it announced.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use adit_codec::ResetCode;
use adit_link::{Failure, Part, Reason};
use adit_testlink::{
    HttpEntry, Link, Route,
    exchanges::{begin, body_of, echo, failure_of, head, hello, respond},
    http_config,
    http1::{read_to_end, read_until, send},
    http2,
    tcp::reset,
    until, within,
};
use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody, combinators::BoxBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

type Sent = BoxBody<Bytes, Infallible>;

fn get(path: &str) -> Request<Sent> {
    Request::get(format!("http://a{path}"))
        .body(Empty::new().boxed())
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_response_that_breaks_off_resets_its_connection_or_stream() {
    for headers in [&[("content-length", "100")][..], &[]] {
        let entry = HttpEntry::serving(http_config(), move |_, exchange| async move {
            begin(&exchange, 200, headers, b"");
            exchange.send.send_all("part".into(), false).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            exchange.send.reset(ResetCode::ServiceAborted, "broke");
        });
        for version in ["1.1", "1.0"] {
            let request = format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n");
            let broken = entry.raw(&request).await.unwrap_err();
            assert!(
                broken.contains("part") && !broken.ends_with("0\r\n\r\n"),
                "{broken}"
            );
        }
        // On HTTP/2 the stream is reset, and the connection remains usable.
        let mut visitor = http2::connect(entry.connect().await).await;
        for _ in 0..2 {
            let response = within(visitor.send_request(get("/"))).await.unwrap();
            assert!(within(response.into_body().collect()).await.is_err());
        }
        entry.settled().await;
        let stats = entry.stats();
        assert_eq!(stats.failures.of(Reason::ServiceAborted), 4);
        assert_eq!(stats.connections, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_breaks_running_responses_off() {
    let entry = HttpEntry::serving(http_config(), |_, exchange| async move {
        begin(&exchange, 200, &[], b"");
        exchange.send.send_all("part".into(), false).await.unwrap();
        failure_of(&exchange.send).await;
    });
    let mut stream = entry.connect().await;
    send(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut stream, "part\r\n").await;
    let lane = &entry.links[0].near;
    lane.close(&Failure::new(Reason::LinkLost, "cut"));
    assert_eq!(read_to_end(&mut stream).await.unwrap_err(), "");
    assert_eq!(entry.stats().failures.of(Reason::LinkLost), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_of_another_length_than_promised_is_broken_off() {
    for body in ["short", "much longer than ten"] {
        for in_head in [true, false] {
            let entry = HttpEntry::serving(http_config(), move |_, exchange| async move {
                let headers = [("content-length", "10")];
                if in_head {
                    return respond(&exchange, 200, &headers, body.as_bytes());
                }
                begin(&exchange, 200, &headers, b"");
                let _ = exchange.send.send_all(body.into(), true).await;
            });
            let broken = entry
                .raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                .await
                .unwrap_err();
            assert!(!broken.contains("much longer than ten"), "{broken}");
            let mut visitor = http2::connect(entry.connect().await).await;
            // hyper may detect the incomplete response before it has sent its head.
            if let Ok(response) = within(visitor.send_request(get("/"))).await {
                assert!(within(response.into_body().collect()).await.is_err());
            }
            entry.settled().await;
            assert_eq!(entry.stats().failures.of(Reason::ServiceAborted), 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn responses_with_ambiguous_content_length_are_rejected() {
    for headers in [
        &[("content-length", "1"), ("content-length", "2")][..],
        &[("content-length", "+1")],
        &[("content-length", "1, 1")],
        &[("content-length", "")],
    ] {
        let entry = HttpEntry::serving(http_config(), move |_, exchange| async move {
            respond(&exchange, 200, headers, b"x");
        });
        let response = entry
            .raw(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
        assert!(
            response.contains("adit-reason: service_aborted\r\n"),
            "{response}"
        );
    }
    // The same length in two lines counts as one.
    let entry = HttpEntry::serving(http_config(), |_, exchange| async move {
        let headers = [("content-length", "1"), ("content-length", "1")];
        respond(&exchange, 200, &headers, b"x");
    });
    let response = entry
        .raw(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(
        response.matches("content-length: 1\r\n").count(),
        1,
        "{response}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_early_response_arrives_whole_though_the_body_keeps_coming() {
    let entry = HttpEntry::serving(http_config(), |_, exchange| async move {
        let response = head(413, &[], b"too large");
        exchange.recv.stop(ResetCode::Cancelled);
        exchange.send.respond(response, true).unwrap();
    });
    for framing in ["Content-Length: 3000000", "Transfer-Encoding: chunked"] {
        let mut stream = entry.connect().await;
        send(
            &mut stream,
            &format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"),
        )
        .await;
        let (mut read, mut write) = tokio::io::split(&mut stream);
        // A simple visitor writes the whole request before it reads.
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
        let mut response = String::new();
        within(read.read_to_string(&mut response)).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
        assert!(response.ends_with("too large"), "{response}");
    }
    entry.settled().await;
    assert_eq!(entry.stats().failures.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_expected_body_is_read_after_the_services_100() {
    let entry = HttpEntry::serving(http_config(), |_, mut exchange| async move {
        begin(&exchange, 100, &[], b"");
        let (body, _) = body_of(&mut exchange).await.unwrap();
        respond(&exchange, 200, &[], &body);
    });
    let mut stream = entry.connect().await;
    for _ in 0..2 {
        send(
            &mut stream,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        )
        .await;
        let interim = read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
        send(&mut stream, "hello").await;
        let response = read_until(&mut stream, "hello").await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    }
    let seen = entry.seen();
    assert!(seen.iter().all(|r| r.body.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn an_expected_body_is_read_after_the_continue_wait() {
    let mut config = http_config();
    config.continue_wait = Duration::from_millis(200);
    let entry = HttpEntry::serving(config, echo);
    let mut stream = entry.connect().await;
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

#[tokio::test(start_paused = true)]
async fn a_rejected_body_is_never_read() {
    let entry = HttpEntry::serving(http_config(), |_, mut exchange| async move {
        respond(&exchange, 417, &[], b"no");
        // No payload arrives, and no end that would look like an empty body.
        let end = exchange.recv.part().await;
        assert!(
            matches!(&end, Some(Err(f)) if f.reason == Reason::Cancelled),
            "{end:?}"
        );
    });
    let mut stream = entry.connect().await;
    send(
        &mut stream,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    )
    .await;
    let response = read_to_end(&mut stream).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 417 "), "{response}");
    assert!(response.contains("connection: close\r\n"), "{response}");
    assert!(!response.contains("100"), "{response}");
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_visitor_that_leaves_cancels_its_request() {
    let ends: Arc<Mutex<Vec<Reason>>> = Arc::default();
    let reasons = ends.clone();
    let entry = HttpEntry::serving(http_config(), move |request, mut exchange| {
        let reasons = reasons.clone();
        async move {
            if &request.path[..] == b"/responding" {
                begin(&exchange, 200, &[], b"part");
            }
            let failure = loop {
                match exchange.recv.part().await {
                    Some(Ok(_)) => {}
                    Some(Err(failure)) => break failure,
                    None => break failure_of(&exchange.send).await,
                }
            };
            reasons.lock().unwrap().push(failure.reason);
        }
    });
    let requests = [
        // The visitor waits for its response when the connection is reset.
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /responding HTTP/1.1\r\nHost: a\r\n\r\n",
        // The visitor leaves in the middle of a body.
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "POST /responding HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ];
    for (number, request) in requests.into_iter().enumerate() {
        let mut stream = entry.connect().await;
        send(&mut stream, request).await;
        entry.opened().await;
        // A truncated body is detected without a reset.
        if request.starts_with("POST") {
            drop(stream);
        } else {
            reset(stream);
        }
        entry.settled().await;
        assert_eq!(ends.lock().unwrap().len(), number + 1, "{request}");
    }
    assert!(ends.lock().unwrap().iter().all(|r| *r == Reason::Cancelled));
    let cancelled = entry.stats().failures.of(Reason::Cancelled);
    assert_eq!(cancelled, requests.len() as u64);
    // One stream of HTTP/2 is reset, and the others continue.
    let mut visitor = http2::connect(entry.connect().await).await;
    let response = within(visitor.send_request(get("/responding")))
        .await
        .unwrap();
    drop(response);
    entry.settled().await;
    assert_eq!(ends.lock().unwrap().len(), requests.len() + 1);
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_visitor_gets_its_response() {
    let entry = HttpEntry::serving(http_config(), |_, exchange| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        respond(&exchange, 200, &[], b"hello");
    });
    let mut stream = entry.connect().await;
    send(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    stream.shutdown().await.unwrap();
    let response = read_to_end(&mut stream).await.unwrap();
    assert!(response.ends_with("hello"), "{response}");
}

#[tokio::test(start_paused = true)]
async fn half_closed_visitor_is_reset_after_the_half_close_timeout() {
    let mut config = http_config();
    config.half_close_timeout = Duration::from_millis(200);
    let entry = HttpEntry::serving(config, |_, exchange| async move {
        assert_eq!(failure_of(&exchange.send).await.reason, Reason::Cancelled);
    });
    let mut stream = entry.connect().await;
    let start = Instant::now();
    send(&mut stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    stream.shutdown().await.unwrap();
    let _ = read_to_end(&mut stream).await;
    assert!(start.elapsed() >= Duration::from_millis(200));
    entry.settled().await;
}

/// Sends `start`, then `drop` every 50 ms until the other side ends the connection; returns how long that took.
async fn drip(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    start: &str,
    drop: &[u8],
) -> Duration {
    let begun = Instant::now();
    send(stream, start).await;
    let (mut read, mut write) = tokio::io::split(stream);
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

/// Regression: the connection was closed in order, and the visitor could not detect that a body which ends with its
/// connection was truncated (P-7.1).
#[tokio::test(start_paused = true)]
async fn a_response_cut_after_a_half_close_is_reset() {
    let mut config = http_config();
    config.half_close_timeout = Duration::from_millis(200);
    let entry = HttpEntry::serving(config, |_, exchange| async move {
        begin(&exchange, 200, &[], b"");
        let piece = Bytes::from_static(b"the first half");
        exchange.send.send_all(piece, false).await.unwrap();
        failure_of(&exchange.send).await;
    });
    let mut stream = entry.connect().await;
    send(&mut stream, "GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    stream.shutdown().await.unwrap();
    let broken = read_to_end(&mut stream).await.unwrap_err();
    assert!(broken.ends_with("the first half"), "{broken}");
    entry.settled().await;
}

/// Regression: each byte of a small body restarted its whole timeout, and the request held its permit meanwhile (F12).
#[tokio::test(start_paused = true)]
async fn a_small_body_does_not_gain_time_byte_by_byte() {
    let mut config = http_config();
    config.stall_timeout = Duration::from_millis(300);
    let entry = HttpEntry::serving(config, hello);
    let mut stream = entry.connect().await;
    let start = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000\r\n\r\n";
    let took = drip(&mut stream, start, b"x").await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_visitor_is_reset() {
    let mut config = http_config();
    config.stall_timeout = Duration::from_millis(300);
    let entry = HttpEntry::serving(config, |request, mut exchange| async move {
        if &request.path[..] == b"/download" {
            begin(&exchange, 200, &[], b"");
            let piece = Bytes::from(vec![b'x'; 32 * 1024]);
            while exchange.send.send_all(piece.clone(), false).await.is_ok() {}
            return;
        }
        let _ = body_of(&mut exchange).await;
        failure_of(&exchange.send).await;
    });
    for request in [
        // A body that is sent with the head, and one that is not.
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let response = entry.raw(&request).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
        assert!(response.contains("adit-reason: stalled\r\n"), "{response}");
    }
    // A visitor that does not read.
    let mut stream = entry.connect().await;
    send(&mut stream, "GET /download HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("a request is open", || entry.stats().requests_open > 0).await;
    entry.settled().await;
    read_to_end(&mut stream).await.unwrap_err();
    assert_eq!(entry.stats().connections_open, 0);
}

#[tokio::test(start_paused = true)]
async fn late_heads_and_idle_connections_time_out() {
    let mut config = http_config();
    config.head_timeout = Duration::from_millis(200);
    config.idle_timeout = Duration::from_millis(600);
    let entry = HttpEntry::serving(config, hello);
    // (the sent bytes, the shortest time until the end)
    let table = [
        ("", 200, 0),
        ("GET", 200, 0),
        ("GET / HTTP/1.1\r\nHost: a\r\nX", 200, 0),
        ("PRI * HT", 200, 0),
        // This looks like HTTP/2 but is not. Regression: no timeout applied to it.
        ("PRI /", 200, 0),
        ("PRI x", 200, 0),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 600, 1),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT", 200, 1),
    ];
    for (sent, millis, responses) in table {
        let mut stream = entry.connect().await;
        let start = Instant::now();
        send(&mut stream, sent).await;
        let response = read_to_end(&mut stream)
            .await
            .unwrap_or_else(|broken| broken);
        assert_eq!(
            response.matches("HTTP/1.1 200 OK").count(),
            responses,
            "{sent:?}"
        );
        let (took, millis) = (start.elapsed(), Duration::from_millis(millis));
        assert!(
            took >= millis && took < millis * 3 + Duration::from_secs(2),
            "{sent:?}: {took:?}"
        );
    }
    // A head that arrives byte by byte does not get more time, nor do empty lines before it.
    for drop in [&b"X"[..], b"\r\n"] {
        let mut stream = entry.connect().await;
        let took = drip(&mut stream, "", drop).await;
        assert!(took < Duration::from_secs(5), "{drop:?}: {took:?}");
    }
    // HTTP/2: requests count as activity, pings do not.
    let io = TokioIo::new(entry.connect().await);
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

#[tokio::test(start_paused = true)]
async fn a_running_response_is_not_idle() {
    let mut config = http_config();
    config.head_timeout = Duration::from_millis(100);
    config.idle_timeout = Duration::from_millis(100);
    let entry = HttpEntry::serving(config, |_, exchange| async move {
        begin(&exchange, 200, &[], b"begin");
        tokio::time::sleep(Duration::from_millis(600)).await;
        exchange.send.send_all("end".into(), true).await.unwrap();
    });
    let response = entry
        .raw(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(
        response.contains("begin") && response.ends_with("end\r\n0\r\n\r\n"),
        "{response}"
    );
    let mut visitor = http2::connect(entry.connect().await).await;
    let response = within(visitor.send_request(get("/"))).await.unwrap();
    let body = within(response.into_body().collect()).await.unwrap();
    assert_eq!(body.to_bytes(), "beginend");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_stream_stops_no_other_on_its_connection() {
    let entry = HttpEntry::serving(http_config(), |request, mut exchange| async move {
        match &request.path[..] {
            b"/never-read" => {
                let Some(Ok(Part::Data(_first))) = exchange.recv.part().await else {
                    panic!("a body was expected");
                };
                failure_of(&exchange.send).await;
            }
            b"/endless" => {
                begin(&exchange, 200, &[], b"");
                let piece = Bytes::from(vec![b'x'; 32 * 1024]);
                while exchange.send.send_all(piece.clone(), false).await.is_ok() {}
            }
            b"/big" => {
                begin(&exchange, 200, &[], b"");
                let big = Bytes::from(vec![b'x'; 2 << 20]);
                exchange.send.send_all(big, true).await.unwrap();
            }
            _ => echo(request, exchange).await,
        }
    });
    let mut visitor = http2::connect(entry.connect().await).await;
    let mut stalled = Vec::new();
    for _ in 0..10 {
        // Responses that the visitor does not read.
        let response = within(visitor.send_request(get("/endless"))).await.unwrap();
        stalled.push(response);
    }
    let mut uploads = Vec::new();
    for _ in 0..10 {
        // Bodies that the service does not read.
        let piece = Bytes::from(vec![b'x'; 16 * 1024]);
        let pieces = stream::repeat_with(move || Ok::<_, Infallible>(Frame::data(piece.clone())));
        let body = BoxBody::new(StreamBody::new(pieces));
        let request = Request::post("http://a/never-read").body(body).unwrap();
        uploads.push(tokio::spawn(visitor.send_request(request)));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..3 {
        let response = within(visitor.send_request(get("/big"))).await.unwrap();
        let body = within(response.into_body().collect()).await.unwrap();
        assert_eq!(body.to_bytes().len(), 2 << 20);
        let sent = Bytes::from(vec![b'y'; 1 << 20]);
        let body = http_body_util::Full::new(sent.clone()).boxed();
        let request = Request::post("http://a/echo").body(body).unwrap();
        let response = within(visitor.send_request(request)).await.unwrap();
        let body = within(response.into_body().collect()).await.unwrap();
        assert!(body.to_bytes() == sent);
    }
    // The memory of the stalled exchanges is bounded by credit (P-4.1).
    for link in &entry.links {
        let waiting = link.far.stats().waiting_bytes;
        assert!(
            waiting <= 10 * 128 * 1024,
            "{waiting} bytes wait for services"
        );
    }
    uploads.iter().for_each(|upload| upload.abort());
    drop((stalled, uploads, visitor));
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_is_read_no_faster_than_the_service_reads() {
    let mut config = http_config();
    config.service_timeout = Duration::from_secs(2);
    let entry = HttpEntry::serving(config, |_, exchange| async move {
        failure_of(&exchange.send).await;
    });
    let mut stream = entry.connect().await;
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
    let waiting = entry.links[0].far.stats().waiting_bytes;
    assert!(waiting <= 32 * 1024, "{waiting} bytes wait for the service");
    // The rest waits in the kernel's buffers.
    assert!(written < 16 << 20, "{written}");
    reset(stream);
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_running_requests_finish_and_takes_no_more() {
    let entry = HttpEntry::serving(http_config(), |_, exchange| async move {
        begin(&exchange, 200, &[], b"begin");
        tokio::time::sleep(Duration::from_millis(300)).await;
        exchange.send.send_all("end".into(), true).await.unwrap();
    });
    let mut idle = entry.connect().await;
    send(&mut idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut idle, "0\r\n\r\n").await;
    let mut busy = entry.connect().await;
    send(&mut busy, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut busy, "begin\r\n").await;
    let mut visitor = http2::connect(entry.connect().await).await;
    let response = within(visitor.send_request(get("/"))).await.unwrap();
    entry.drain.send_replace(true);
    assert_eq!(read_to_end(&mut idle).await.unwrap(), "");
    let rest = read_to_end(&mut busy).await.unwrap();
    assert_eq!(rest, "3\r\nend\r\n0\r\n\r\n");
    let body = within(response.into_body().collect()).await.unwrap();
    assert_eq!(body.to_bytes(), "beginend");
    entry.closed().await;
}

#[tokio::test(start_paused = true)]
async fn connections_are_bounded() {
    let mut config = http_config();
    config.max_connections = 1;
    let entry = HttpEntry::serving(config, hello);
    let mut first = entry.connect().await;
    send(&mut first, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut first, "hello").await;
    let mut second = entry.connect().await;
    assert_eq!(read_to_end(&mut second).await.unwrap_or_default(), "");
    send(&mut first, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    read_until(&mut first, "hello").await;
    let stats = entry.stats();
    assert_eq!((stats.connections, stats.connections_refused), (2, 1));
    assert_eq!(stats.connections_open, 1);
}

#[tokio::test(start_paused = true)]
async fn p_14_11_an_address_leaves_connections_to_the_others() {
    let mut config = http_config();
    config.max_connections = 10;
    config.max_connections_per_address = 2;
    let entry = HttpEntry::serving(config, hello);
    let first = entry.connect().await;
    let mut second = entry.connect().await;
    until("both connections", || entry.stats().connections_open == 2).await;
    let mut third = entry.connect().await;
    assert_eq!(read_to_end(&mut third).await.unwrap_or_default(), "");
    let stats = entry.stats();
    assert_eq!((stats.connections_open, stats.connections_refused), (2, 1));
    // A connection that has ended makes room for another one.
    drop(first);
    until("the end of the first", || {
        entry.stats().connections_open == 1
    })
    .await;
    let mut fourth = entry.connect().await;
    for stream in [&mut second, &mut fourth] {
        send(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        read_until(stream, "hello").await;
    }
}

#[tokio::test(start_paused = true)]
async fn p_14_11_a_trusted_proxy_has_no_bound_of_its_own() {
    let mut config = http_config();
    config.max_connections_per_address = 1;
    let everybody = ["0.0.0.0/0", "::/0"].map(|network| network.parse().unwrap());
    config.trusted_proxies = everybody.into_iter().collect();
    let entry = HttpEntry::serving(config, hello);
    let mut streams = [entry.connect().await, entry.connect().await];
    for stream in &mut streams {
        send(stream, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        read_until(stream, "hello").await;
    }
}

/// Regression: one byte within each stall time counted as progress.
#[tokio::test(start_paused = true)]
async fn trickled_body_slower_than_the_lowest_rate_is_reset() {
    let mut config = http_config();
    config.stall_timeout = Duration::from_millis(300);
    config.min_rate_bytes_per_sec = 1_000;
    let entry = HttpEntry::serving(config, |_, mut exchange| async move {
        let _ = body_of(&mut exchange).await;
        failure_of(&exchange.send).await;
    });
    let mut stream = entry.connect().await;
    let start = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let took = drip(&mut stream, start, b"1\r\nx\r\n").await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::Stalled), 1);
}

/// The waiting request receives the permit of the trickled one, long before the stall time.
#[tokio::test(start_paused = true)]
async fn a_trickled_body_loses_its_permit_to_a_waiting_request() {
    for framing in ["Transfer-Encoding: chunked", "Content-Length: 8000"] {
        let mut config = http_config();
        config.stall_timeout = Duration::from_secs(3600);
        config.shortage_grace = Duration::from_millis(100);
        let gate = adit_flow::Gate::new(1, 10);
        let permits = adit_ingress::layers::Permits::new(gate, Duration::from_secs(20));
        let link = Link::serving(|request, mut exchange| async move {
            if &request.method[..] == b"GET" {
                return respond(&exchange, 200, &[], b"hello");
            }
            let _ = body_of(&mut exchange).await;
            failure_of(&exchange.send).await;
        });
        let entry = Route::to(&link).layer(permits).http(config);
        let mut slow = entry.connect().await;
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        send(&mut slow, &head).await;
        until("a request is open", || entry.stats().requests_open > 0).await;
        let get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let response = entry.raw(&get).await.unwrap();
        assert!(response.ends_with("hello"), "{response}");
        assert_eq!(entry.stats().failures.of(Reason::Stalled), 1, "{framing}");
    }
}
