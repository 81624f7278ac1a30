//! Requests of HTTP/1 and HTTP/2.

use std::{sync::atomic::Ordering, time::Instant};

use adit_codec::Side;
use adit_link::Part;
use adit_testlink::{
    FORWARDED,
    exchanges::{body_of, respond},
    http_config,
    http1::{read_to_end, read_until, send},
    http2, lane_config, next_part, within,
};
use adit_trace::Phase;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};

use crate::observer::Observed;

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: Web.Localhost:80\r\nConnection: close\r\n\r\n")
}

#[tokio::test(start_paused = true)]
async fn a_record_has_visitor_target_outcome_and_phases() {
    let mut observed = Observed::new();
    let before = Instant::now();
    let mut visitor = observed.entry.connect().await;
    let addr = visitor.local_addr().unwrap();
    let request = get("/a?secret=1");
    send(&mut visitor, &request).await;
    let (head, exchange) = observed.incoming.http().await;
    respond(&exchange, 201, &[], b"hello");
    read_to_end(&mut visitor).await.unwrap();
    let record = observed.record().await;
    assert_eq!(record.protocol, "http");
    assert_eq!(record.request_uuid, head.open.request_uuid);
    record.expect_forwarded();
    assert_eq!(record.visitor, addr.to_string());
    assert_eq!(record.port, observed.entry.addr.port());
    assert_eq!((record.scheme, record.method), ("http", "GET"));
    assert_eq!((record.host, record.path), ("Web.Localhost", "/a"));
    assert_eq!(record.version, "HTTP/1.1");
    assert_eq!(record.outcome(), (201, None, 0, 5));
    assert_eq!((record.grpc_status, record.retries), (None, 0));
    assert!(before <= record.started && record.responded.is_some());
    assert_eq!(record.phases(), FORWARDED);
    assert_eq!(record.spans()[0].start, record.started);
    record.expect_context(0, &head.open.traceparent);
    assert_eq!(record.timeline.unwrap().parent(), None);
    drop(exchange);
    observed.settled().await;
}

/// An observer that only counts receives the fields that counters need. A traced request is recorded in full.
#[tokio::test(start_paused = true)]
async fn an_observer_that_only_counts_gets_no_hosts_or_paths() {
    for (ratio, host, path) in [(0.0, "", ""), (1.0, "Web.Localhost", "/a")] {
        let mut observed = Observed::with(http_config(), ratio);
        observed.recorder.detailed.store(false, Ordering::Relaxed);
        let mut visitor = observed.entry.connect().await;
        send(&mut visitor, get("/a")).await;
        let (_, exchange) = observed.incoming.http().await;
        respond(&exchange, 201, &[], b"hello");
        read_to_end(&mut visitor).await.unwrap();
        let record = observed.record().await;
        assert_eq!(record.protocol, "http");
        record.expect_forwarded();
        assert_eq!(record.outcome(), (201, None, 0, 5));
        assert_eq!((record.host, record.path), (host, path));
    }
}

#[tokio::test(start_paused = true)]
async fn each_request_of_a_connection_has_its_own_record() {
    let mut observed = Observed::new();
    let mut visitor = observed.entry.connect().await;
    let mut ended = None;
    for path in ["/1", "/2", "/3"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        send(&mut visitor, &request).await;
        let (_, exchange) = observed.incoming.http().await;
        respond(&exchange, 200, &[], path.as_bytes());
        read_until(&mut visitor, path).await;
        let record = observed.record().await;
        assert_eq!((record.path, record.sent_bytes), (path, 2));
        // The second request begins with its own head.
        assert!(ended.is_none_or(|ended| ended <= record.started));
        ended = Some(record.ended);
    }
    observed.settled().await;
}

#[tokio::test(start_paused = true)]
async fn p_12_3_requests_of_a_client_entry_are_opened_by_it() {
    let ends = [Side::Client, Side::Server].map(lane_config);
    let mut observed = Observed::on(ends, http_config(), 1.0);
    let mut visitor = observed.entry.connect().await;
    send(&mut visitor, get("/")).await;
    let (head, exchange) = observed.incoming.http().await;
    respond(&exchange, 200, &[], b"hello");
    read_to_end(&mut visitor).await.unwrap();
    let record = observed.record().await;
    assert_eq!(
        (record.opener, record.request_uuid),
        ("client", head.open.request_uuid)
    );
    assert_eq!(record.phases(), FORWARDED);
    record.expect_context(0, &head.open.traceparent);
}

#[tokio::test(start_paused = true)]
async fn uploads_are_counted_in_every_framing() {
    let mut observed = Observed::new();
    let short = "short".to_string();
    let long = "x".repeat(20_000);
    let chunked = format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    for (framing, body, length) in [
        ("Content-Length: 5", &short, 5),
        ("Content-Length: 20000", &long, 20_000),
        ("Transfer-Encoding: chunked", &chunked, 20_000),
    ] {
        let mut visitor = observed.entry.connect().await;
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{framing}\r\n\r\n");
        let request = head + body;
        send(&mut visitor, &request).await;
        let (head, mut exchange) = observed.incoming.http().await;
        let (rest, _) = within(body_of(&mut exchange)).await.unwrap();
        assert_eq!(head.body.len() + rest.len(), length);
        respond(&exchange, 200, &[], b"thanks");
        read_to_end(&mut visitor).await.unwrap();
        let record = observed.record().await;
        assert_eq!(record.outcome(), (200, None, length as u64, 6), "{framing}");
        assert_eq!(record.phases(), FORWARDED);
    }
    observed.settled().await;
}

#[tokio::test]
async fn a_wait_for_credit_is_a_phase() {
    let mut observed = Observed::new();
    let mut visitor = observed.entry.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 60000\r\n\r\n";
    let request = head.to_string() + &"x".repeat(60_000);
    send(&mut visitor, &request).await;
    let (_, mut exchange) = observed.incoming.http().await;
    // Parts that are held return no credit: one window arrives, and the rest waits.
    let mut held = Vec::new();
    let mut window = 32 * 1024_u64;
    while window > adit_flow::MESSAGE_COST {
        let Some(Ok(Part::Data(part))) = next_part(&mut exchange.recv).await else {
            panic!("no payload");
        };
        window -= (part.bytes().len() as u64 + adit_flow::MESSAGE_COST).min(window);
        held.push(part);
    }
    drop(held);
    within(body_of(&mut exchange)).await.unwrap();
    respond(&exchange, 200, &[], b"");
    read_to_end(&mut visitor).await.unwrap();
    let record = observed.record().await;
    assert_eq!(record.outcome(), (200, None, 60_000, 0));
    let phases = [
        Phase::Accept,
        Phase::Queue,
        Phase::Route,
        Phase::Transit,
        Phase::End,
        Phase::CreditWait,
    ];
    assert_eq!(record.phases(), phases);
    let wait = record.spans()[5];
    let busy = wait.busy.unwrap();
    assert!(!busy.is_zero() && busy <= wait.end.unwrap() - wait.start);
}

#[tokio::test(start_paused = true)]
async fn requests_of_http2_have_records() {
    let mut observed = Observed::new();
    let mut visitor = http2::connect(observed.entry.connect().await).await;
    let requests = ["/1", "/2"].map(|path| {
        let body = Full::new(Bytes::from_static(b"hello"));
        Request::post(format!("http://web.localhost{path}"))
            .body(body)
            .unwrap()
    });
    for request in requests {
        let path = request.uri().path().to_string();
        let requesting = visitor.send_request(request);
        let serving = async {
            let (head, exchange) = observed.incoming.http().await;
            respond(&exchange, 200, &[], b"hi");
            head
        };
        let (response, head) = tokio::join!(within(requesting), serving);
        within(response.unwrap().into_body().collect())
            .await
            .unwrap();
        let record = observed.record().await;
        assert_eq!((record.protocol, record.version), ("http", "HTTP/2.0"));
        assert_eq!(record.host, "web.localhost");
        assert_eq!(record.path, path);
        assert_eq!(record.outcome(), (200, None, 5, 2));
        assert_eq!(record.phases(), FORWARDED);
        record.expect_context(0, &head.open.traceparent);
    }
    observed.settled().await;
}

#[tokio::test(start_paused = true)]
async fn responses_without_a_body_are_complete() {
    let mut observed = Observed::new();
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304)] {
        let mut visitor = observed.entry.connect().await;
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        send(&mut visitor, &request).await;
        let (_, exchange) = observed.incoming.http().await;
        respond(&exchange, status, &[], b"");
        read_to_end(&mut visitor).await.unwrap();
        let record = observed.record().await;
        assert_eq!(record.outcome(), (status, None, 0, 0));
        assert_eq!(record.phases(), FORWARDED);
    }
    observed.settled().await;
}
