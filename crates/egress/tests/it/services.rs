//! Services scripted byte by byte: what they send, where they close the connection, and what the peer receives.

use std::time::Duration;

use adit_codec::{HeaderBlock, ResetCode};
use adit_egress::Config;
use adit_link::{Exchange, Part, Reason};
use adit_testlink::{
    EgressLink, TunnelRequest, http_service,
    http1::{fixed, read_head, send},
    next_part, read,
    tcp::serve,
    within,
};
use tokio::io::AsyncReadExt;

#[tokio::test]
async fn a_small_exchange_is_one_message_and_reuses_its_connection() {
    let port = fixed("HTTP/1.1 200 OK\r\nX-Name: a\r\nContent-Length: 5\r\n\r\nhello").await;
    let link = EgressLink::to(http_service(port), Config::default());
    for _ in 0..10 {
        let response = link.get("/").await.unwrap();
        assert_eq!((response.status, response.text()), (200, "hello"));
        assert_eq!(response.header("x-name"), Some("a"));
        assert_eq!(response.header("content-length"), Some("5"));
        link.settled().await;
    }
    let stats = link.egress.stats();
    assert_eq!((stats.dialled, stats.reused, stats.requests), (1, 9, 10));
    assert_eq!((stats.connections, stats.idle, stats.waiting), (1, 1, 0));
}

#[tokio::test]
async fn a_request_is_written_as_a_service_expects_it() {
    let port = serve(|mut socket, _| async move {
        while let Some(head) = read_head(&mut socket).await {
            let response = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}",
                head.len()
            );
            send(&mut socket, &response).await;
        }
    })
    .await;
    let link = EgressLink::to(http_service(port), Config::default());
    let headers = [
        ("host", "other.example"),
        ("x-a", "1"),
        ("x-a", "2"),
        ("connection", "x-hop, close"),
        ("x-hop", "1"),
        ("te", "gzip, trailers"),
        ("upgrade", "h2c"),
        ("keep-alive", "5"),
        ("transfer-encoding", "chunked"),
    ];
    let response = link
        .request(&TunnelRequest::new("GET", "/p?q=1", &headers), b"")
        .await
        .unwrap();
    assert_eq!(
        response.text(),
        "GET /p?q=1 HTTP/1.1\r\nhost: visitor.example\r\nx-a: 1\r\nx-a: 2\r\nte: trailers\r\nconnection: te\r\n\r\n"
    );
    let response = link
        .request(&TunnelRequest::new("POST", "/", &[]), b"")
        .await
        .unwrap();
    assert_eq!(
        response.text(),
        "POST / HTTP/1.1\r\nhost: visitor.example\r\ncontent-length: 0\r\n\r\n"
    );
    let mut service = http_service(port);
    service.host_rewrite = Some("inner".into());
    service.custom_headers = vec![
        ("X-A".into(), "mine".into()),
        ("connection".into(), "x".into()),
    ];
    link.serve(service);
    let response = link
        .request(&TunnelRequest::new("OPTIONS", "*", &headers[1..3]), b"")
        .await
        .unwrap();
    assert_eq!(
        response.text(),
        "OPTIONS * HTTP/1.1\r\nhost: inner\r\nx-a: mine\r\n\r\n"
    );
    assert_eq!(
        link.egress.stats().dialled,
        1,
        "the change kept the connection"
    );
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    // The service returns each chunk that it reads.
    let port = serve(|mut socket, _| async move {
        let head = read_head(&mut socket).await.unwrap();
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        send(
            &mut socket,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .await;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = socket.read(&mut buffer).await.unwrap();
            if count == 0 {
                return;
            }
            send(&mut socket, &buffer[..count]).await;
        }
    })
    .await;
    let link = EgressLink::to(http_service(port), Config::default());
    let mut exchange = link.open(TunnelRequest::new("POST", "/", &[]).http(b""), false);
    let mut expected = Vec::new();
    for turn in 0..50_usize {
        let piece = vec![u8::try_from(turn).unwrap(); 1 + turn * 997 % 30_000];
        exchange
            .send
            .send_all(piece.clone().into(), false)
            .await
            .unwrap();
        expected.extend(piece);
    }
    let (mut recv, send) = (exchange.recv, exchange.send);
    let reader = tokio::spawn(async move { read(&mut recv).await });
    for _ in 0..64 {
        let piece = vec![7; 16 * 1024];
        within(send.send_all(piece.clone().into(), false))
            .await
            .unwrap();
        expected.extend(piece);
    }
    send.finish().unwrap();
    let response = reader.await.unwrap().unwrap();
    assert_eq!(response.status, 200);
    assert!(
        response.body == expected,
        "{} of {}",
        response.body.len(),
        expected.len()
    );
    drop(send);
    link.settled().await;
    assert_eq!(link.egress.stats().idle, 1);
    exchange = link.open(TunnelRequest::new("POST", "/", &[]).http(b""), false);
    drop(exchange);
    link.settled().await;
}

#[tokio::test]
async fn a_large_response_comes_whole() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let whole = body.clone();
    let port = serve(move |mut socket, _| {
        let body = body.clone();
        async move {
            while read_head(&mut socket).await.is_some() {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                send(&mut socket, &head).await;
                send(&mut socket, &body).await;
            }
        }
    })
    .await;
    let link = EgressLink::to(http_service(port), Config::default());
    for _ in 0..3 {
        let response = link.get("/").await.unwrap();
        assert!(response.body == whole);
    }
    link.settled().await;
    assert_eq!(link.egress.stats().dialled, 1);
}

/// P-3.10: a request whose target is neither a path nor, for `OPTIONS`, `*` is reset, and no service is dialled.
#[tokio::test]
async fn a_target_of_another_form_than_a_path_is_reset() {
    let port = fixed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let link = EgressLink::to(http_service(port), Config::default());
    for (method, target) in [
        ("GET", "http://169.254.169.254/"),
        ("GET", "169.254.169.254:80"),
        ("GET", "x"),
        ("GET", "?x"),
        ("GET", "*"),
        ("GET", "/ HTTP/1.1"),
        ("GET", "/\u{1}"),
        ("GET", "/\u{7f}"),
        ("OPTIONS", "*/"),
        ("OPTIONS", "http://a/"),
    ] {
        let failure = link
            .request(&TunnelRequest::new(method, target, &[]), b"")
            .await;
        let failure = failure.unwrap_err();
        assert_eq!(failure.reason, Reason::ProtocolError, "{target:?}");
        link.settled().await;
    }
    assert_eq!(link.egress.stats().dialled, 0);
    for (method, target) in [("OPTIONS", "*"), ("GET", "/\"<>`{}|^\\#?é")] {
        let response = link
            .request(&TunnelRequest::new(method, target, &[]), b"")
            .await
            .unwrap();
        assert_eq!(response.status, 200, "{target:?}");
    }
}

#[tokio::test]
async fn an_absent_service_is_a_failed_dial() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let link = EgressLink::to(http_service(port), Config::default());
    let failure = link.get("/").await.unwrap_err();
    assert_eq!(failure.reason, Reason::DialFailed);
    assert_eq!(
        failure.detail,
        format!("nothing listens on 127.0.0.1:{port} (connection refused)")
    );
    link.settled().await;
    assert_eq!(link.egress.stats().connections, 0);
}

/// A response with all parts in which it may be cut.
const RICH: &str = "HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA: 1\r\n\
    Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 9\r\n\r\n";

#[tokio::test]
async fn a_response_is_the_same_wherever_it_is_cut() {
    let port = serve(move |mut socket, _| async move {
        let mut cut = 0;
        while read_head(&mut socket).await.is_some() {
            cut += 1;
            let (first, rest) = RICH.as_bytes().split_at(cut.min(RICH.len()));
            send(&mut socket, first).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            send(&mut socket, rest).await;
        }
    })
    .await;
    let link = EgressLink::to(http_service(port), Config::default());
    for cut in 1..=RICH.len() {
        let request = TunnelRequest::new("GET", "/", &[("expect", "100-continue")]);
        let response = link.request(&request, b"").await.unwrap();
        assert_eq!(
            (response.status, response.text()),
            (200, "abc0123456789"),
            "cut at {cut}"
        );
        assert_eq!(response.interim, [103, 100]);
        assert_eq!(response.headers, [("a".into(), "1".into())]);
        assert_eq!(response.trailers, [("x-sum".into(), "9".into())]);
    }
    link.settled().await;
    assert_eq!(link.egress.stats().dialled, 1);
}

#[tokio::test]
async fn a_response_may_come_byte_by_byte() {
    let port = serve(move |mut socket, _| async move {
        read_head(&mut socket).await.unwrap();
        for byte in RICH.as_bytes() {
            send(&mut socket, &[*byte]).await;
            tokio::task::yield_now().await;
        }
    })
    .await;
    let link = EgressLink::to(http_service(port), Config::default());
    let response = link.get("/").await.unwrap();
    assert_eq!(
        (response.status, response.text(), response.interim.len()),
        (200, "abc0123456789", 1)
    );
}

#[tokio::test]
async fn a_service_that_breaks_off_never_looks_whole() {
    for whole in [
        "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello, world",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n",
    ] {
        for end in 0..whole.len() {
            let port = serve(move |mut socket, _| async move {
                read_head(&mut socket).await.unwrap();
                send(&mut socket, &whole.as_bytes()[..end]).await;
            })
            .await;
            let link = EgressLink::to(http_service(port), Config::default());
            let failure = link.get("/").await.unwrap_err();
            assert_eq!(failure.reason, Reason::ServiceAborted, "{end} of {whole:?}");
            link.settled().await;
            assert_eq!(link.egress.stats().connections, 0);
        }
    }
}

#[tokio::test]
async fn a_body_may_end_with_its_connection_but_not_break() {
    for lost in [false, true] {
        let port = serve(move |mut socket, _| async move {
            read_head(&mut socket).await.unwrap();
            send(&mut socket, b"HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            if lost {
                socket.set_zero_linger().unwrap();
            }
        })
        .await;
        let link = EgressLink::to(http_service(port), Config::default());
        let response = link.get("/").await;
        if lost {
            assert_eq!(response.unwrap_err().reason, Reason::ServiceAborted);
        } else {
            assert_eq!(response.unwrap().text(), "until the end");
        }
        link.settled().await;
        assert_eq!(link.egress.stats().connections, 0);
    }
}

#[tokio::test]
async fn responses_without_a_body_end_with_their_head() {
    let with_length = fixed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
    let link = EgressLink::to(http_service(with_length), Config::default());
    for _ in 0..2 {
        let response = link
            .request(&TunnelRequest::new("HEAD", "/", &[]), b"")
            .await
            .unwrap();
        assert_eq!(
            (response.header("content-length"), response.text()),
            (Some("5"), "")
        );
    }
    link.settled().await;
    assert_eq!(link.egress.stats().dialled, 1);
    for status in ["204 No Content", "304 Not Modified"] {
        let text: &str = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n").leak();
        let link = EgressLink::to(http_service(fixed(text).await), Config::default());
        for _ in 0..2 {
            assert_eq!(link.get("/").await.unwrap().status.to_string(), status[..3]);
        }
        link.settled().await;
        assert_eq!(link.egress.stats().dialled, 1, "{status}");
    }
}

#[tokio::test]
async fn invalid_responses_are_not_passed_on() {
    for bad in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\na: b\r\n c: d\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        // P-3.9: the size of the chunk has too many digits.
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000001\r\nx\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ] {
        let link = EgressLink::to(http_service(fixed(bad).await), Config::default());
        let failure = link.get("/").await.unwrap_err();
        assert_eq!(failure.reason, Reason::ServiceAborted, "{bad:?}");
        assert!(!failure.detail.is_empty());
        link.settled().await;
        assert_eq!(link.egress.stats().connections, 0);
    }
    let endless: &str = "HTTP/1.1 102 Processing\r\n\r\n".repeat(2_000).leak();
    let link = EgressLink::to(http_service(fixed(endless).await), Config::default());
    assert_eq!(
        link.get("/").await.unwrap_err().reason,
        Reason::ServiceAborted
    );
}

#[tokio::test]
async fn more_than_the_response_ends_the_connection() {
    for extra in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n!",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    ] {
        let link = EgressLink::to(http_service(fixed(extra).await), Config::default());
        for _ in 0..2 {
            assert_eq!(link.get("/").await.unwrap().text(), "hi", "{extra:?}");
            link.settled().await;
        }
        assert_eq!(link.egress.stats().dialled, 2, "{extra:?}");
    }
}

#[tokio::test]
async fn whatever_a_service_writes_is_there_at_once() {
    let port = serve(|mut socket, _| async move {
        read_head(&mut socket).await.unwrap();
        send(
            &mut socket,
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
        )
        .await;
        for count in 0..20 {
            // The next part is sent only when the test has read this one, so that no part may wait for more.
            send(&mut socket, format!("data: {count}\n\n").as_bytes()).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        std::future::pending::<()>().await;
    })
    .await;
    let link = EgressLink::to(http_service(port), Config::default());
    let Exchange { send, mut recv } = link.open(TunnelRequest::get("/").http(b""), true);
    let mut seen = String::new();
    while !seen.ends_with("data: 19\n\n") {
        if let Part::Data(data) = next_part(&mut recv).await.unwrap().unwrap() {
            seen.push_str(std::str::from_utf8(data.as_ref()).unwrap());
        }
    }
    drop((send, recv));
    link.settled().await;
}

/// A service that reads a whole request and returns it in its response.
async fn echo() -> u16 {
    serve(|mut socket, _| async move {
        while let Some(head) = read_head(&mut socket).await {
            let mut body = Vec::new();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if let Some(length) = length {
                body = vec![0; length.parse().unwrap()];
                if socket.read_exact(&mut body).await.is_err() {
                    return;
                }
            } else if head.contains("transfer-encoding: chunked") {
                while !body.ends_with(b"\r\n\r\n") || !body.windows(5).any(|w| w == b"\r\n0\r\n") {
                    match socket.read_u8().await {
                        Ok(byte) => body.push(byte),
                        Err(_) => return,
                    }
                }
            }
            let response = [head.as_bytes(), &body].concat();
            let start = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                response.len()
            );
            send(&mut socket, &start).await;
            send(&mut socket, &response).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_body_is_framed_by_its_known_length() {
    let link = EgressLink::to(http_service(echo().await), Config::default());
    let post = TunnelRequest::new("POST", "/", &[]);
    let response = link.request(&post, b"small").await.unwrap();
    assert!(
        response.text().ends_with("content-length: 5\r\n\r\nsmall"),
        "{}",
        response.text()
    );

    let with_length = TunnelRequest::new("POST", "/", &[("content-length", "9")]);
    let Exchange { send, mut recv } = link.open(with_length.http(b"abc"), false);
    send.send("def".into(), false).unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    send.send("ghi".into(), true).unwrap();
    let response = read(&mut recv).await.unwrap();
    drop((send, recv));
    link.settled().await;
    assert!(
        response
            .text()
            .ends_with("content-length: 9\r\n\r\nabcdefghi"),
        "{}",
        response.text()
    );

    let exchange = link.open(post.http(b""), false);
    exchange.send.send("abc".into(), false).unwrap();
    exchange
        .send
        .send_all(vec![b'x'; 20_000].into(), false)
        .await
        .unwrap();
    let trailers: HeaderBlock = [(&b"x-sum"[..], &b"1"[..]), (b"content-length", b"7")]
        .into_iter()
        .collect();
    exchange.send.finish_with(trailers).unwrap();
    let mut recv = exchange.recv;
    let response = read(&mut recv).await.unwrap();
    let coded = format!(
        "3\r\nabc\r\n4e20\r\n{}\r\n0\r\nx-sum: 1\r\n\r\n",
        "x".repeat(20_000)
    );
    assert!(
        response
            .text()
            .ends_with(&format!("transfer-encoding: chunked\r\n\r\n{coded}"))
    );
    assert_eq!(link.egress.stats().dialled, 1);
}

#[tokio::test]
async fn a_body_of_another_length_than_announced_is_reset() {
    let link = EgressLink::to(http_service(echo().await), Config::default());
    let request = TunnelRequest::new("POST", "/", &[("content-length", "4")]);
    for (body, end) in [(&b"longer"[..], true), (b"abc", true), (b"", true)] {
        let failure = link.request(&request, body).await.unwrap_err();
        assert_eq!(
            (failure.reason, end),
            (Reason::ProtocolError, true),
            "{body:?}"
        );
    }
    for rest in ["c", "cde"] {
        let Exchange { send, mut recv } = link.open(request.http(b"ab"), false);
        tokio::time::sleep(Duration::from_millis(5)).await;
        send.send(rest.into(), true).unwrap();
        assert_eq!(
            read(&mut recv).await.unwrap_err().reason,
            Reason::ProtocolError,
            "{rest}"
        );
    }
    let two = TunnelRequest::new(
        "POST",
        "/",
        &[("content-length", "1"), ("content-length", "2")],
    );
    assert_eq!(
        link.request(&two, b"a").await.unwrap_err().reason,
        Reason::ProtocolError
    );
    link.settled().await;
    assert_eq!(
        link.egress.stats().connections,
        0,
        "none of them is used again"
    );
}

#[tokio::test]
async fn an_early_response_stops_the_upload() {
    // Once with `connection: close`, and once without it, where the service does not continue to read.
    for close in [true, false] {
        let port = serve(move |mut socket, _| async move {
            read_head(&mut socket).await.unwrap();
            let option = if close { "Connection: close\r\n" } else { "" };
            let response =
                format!("HTTP/1.1 413 Too Large\r\n{option}Content-Length: 3\r\n\r\nno!");
            send(&mut socket, &response).await;
            tokio::time::sleep(Duration::from_secs(600)).await;
        })
        .await;
        let config = Config {
            early_response_timeout: Duration::from_millis(100),
            ..Config::default()
        };
        let link = EgressLink::to(http_service(port), config);
        let Exchange { send, mut recv } =
            link.open(TunnelRequest::new("PUT", "/", &[]).http(b""), false);
        let sender = tokio::spawn(async move {
            while send.send_all(vec![0; 32_000].into(), false).await.is_ok() {}
            send.stopped()
        });
        let response = read(&mut recv).await.unwrap();
        assert_eq!((response.status, response.text()), (413, "no!"));
        assert_eq!(within(sender).await.unwrap(), Some(ResetCode::Cancelled));
        drop(recv);
        link.settled().await;
        assert_eq!(link.egress.stats().connections, 0);
    }
}

#[tokio::test]
async fn a_service_that_responses_early_may_read_on() {
    let port = serve(|mut socket, _| async move {
        while read_head(&mut socket).await.is_some() {
            send(
                &mut socket,
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            )
            .await;
            let mut body = vec![0; 1_000_000];
            socket.read_exact(&mut body).await.unwrap();
        }
    })
    .await;
    let link = EgressLink::to(http_service(port), Config::default());
    for _ in 0..2 {
        let request = TunnelRequest::new("POST", "/", &[("content-length", "1000000")]);
        let Exchange { send, mut recv } = link.open(request.http(b""), false);
        assert_eq!(read(&mut recv).await.unwrap().text(), "ok");
        within(send.send_all(vec![1; 1_000_000].into(), true))
            .await
            .unwrap();
        drop((send, recv));
        link.settled().await;
    }
    assert_eq!(link.egress.stats().dialled, 1);
}
