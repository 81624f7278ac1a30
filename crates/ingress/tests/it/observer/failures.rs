//! The records of requests that fail.

use std::time::Duration;

use adit_codec::ResetCode;
use adit_flow::Gate;
use adit_ingress::{Direction, HttpConfig, layers};
use adit_link::{Failure, Reason};
use adit_testlink::{
    FORWARDED, HttpEntry, Incoming, Link, Recorder, Records, Route,
    exchanges::{begin, respond},
    http_config,
    http1::{read_to_end, read_until, send},
    tcp::reset,
    within,
};
use adit_trace::Phase;

use crate::observer::Observed;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// An entry with an observer, whose director makes these decisions.
fn directed(direct: impl Fn() -> Direction + Send + Sync + 'static) -> (HttpEntry, Records) {
    let (recorder, records) = Recorder::new(1.0);
    let route = Route::director(&[], move |_, _| direct()).observer(recorder);
    (route.http(http_config()), records)
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_destination_records_its_reason() {
    for (reason, status) in [(Reason::NoTunnel, 404), (Reason::NoClient, 503)] {
        let failed = move || Failure::new(reason, "nowhere");
        let at_once = directed(move || Direction::Fail(failed()));
        let later = directed(move || Direction::Wait(Box::pin(async move { Err(failed()) })));
        for (entry, mut records) in [at_once, later] {
            let mut visitor = entry.connect().await;
            send(&mut visitor, GET).await;
            read_until(&mut visitor, "\r\n\r\n").await;
            let record = records.next().await;
            record.expect_not_forwarded();
            assert_eq!(
                record.phases(),
                [Phase::Accept, Phase::Queue, Phase::Route, Phase::End]
            );
            assert_eq!(
                (record.status, record.reason),
                (status, Some(reason.as_str()))
            );
            // The error response counts as a response.
            assert!(record.responded.is_some() && record.sent_bytes > 0);
        }
    }
}

#[tokio::test]
async fn a_request_stopped_by_a_layer_records_its_wait() {
    for wait in [Duration::ZERO, Duration::from_millis(20)] {
        let permits = layers::Permits::new(Gate::new(0, 10), wait);
        let unused = Route::director(&[], |_, _| panic!("the layer stops the request"));
        let (recorder, mut records) = Recorder::new(1.0);
        let route = unused.layer(permits).observer(recorder);
        let entry = route.http(http_config());
        let mut visitor = entry.connect().await;
        send(&mut visitor, GET).await;
        read_until(&mut visitor, "\r\n\r\n").await;
        let record = records.next().await;
        assert_eq!(record.phases(), [Phase::Accept, Phase::Queue, Phase::End]);
        let waited = record.spans()[1];
        assert!(waited.end.unwrap() - waited.start >= wait);
        assert_eq!((record.status, record.reason), (503, Some("limit")));
        record.expect_not_forwarded();
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_request_has_a_record() {
    let mut observed = Observed::new();
    let key = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 12\r\n";
    for (lines, protocol, status) in [
        (
            "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "http",
            400,
        ),
        ("Host: a\r\nHost: b\r\n", "http", 400),
        ("", "http", 400),
        (&format!("Host: a\r\n{key}"), "websocket", 426),
    ] {
        let mut visitor = observed.entry.connect().await;
        send(&mut visitor, &format!("GET /a?b HTTP/1.1\r\n{lines}\r\n")).await;
        let response = read_until(&mut visitor, "\r\n\r\n").await;
        assert!(response.contains(&format!(" {status} ")), "{response}");
        let record = observed.record().await;
        assert_eq!(
            (record.protocol, record.status),
            (protocol, status),
            "{lines}"
        );
        assert_eq!(record.reason, Some("bad_request"));
        assert_eq!((record.method, record.path), ("GET", "/a"));
        assert!(record.timeline.is_none() && record.responded.is_some() && record.sent_bytes > 0);
        assert!(record.visitor.starts_with("127.0.0.1:"));
        record.expect_not_forwarded();
    }
    observed.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_hyper_rejects_has_reason_and_record() {
    let mut observed = Observed::new();
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(300_000));
    for (bytes, status, reason) in [
        ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
        ("nonsense\r\n\r\n", 400, "bad_request"),
        (&long, 431, "header_too_large"),
    ] {
        let mut visitor = observed.entry.connect().await;
        send(&mut visitor, bytes).await;
        let response = read_to_end(&mut visitor).await.unwrap();
        let line = format!("HTTP/1.1 {status} ");
        assert!(response.starts_with(&line), "{response}");
        assert!(response.contains(&format!("adit-reason: {reason}\r\n")));
        assert!(response.contains("connection: close\r\n"), "{response}");
        assert!(response.contains("\r\ndate: "), "{response}");
        let record = observed.record().await;
        assert_eq!((record.protocol, record.status), ("http", status));
        assert_eq!(record.reason, Some(reason));
        let id = uuid::Uuid::from_bytes(record.request_uuid);
        assert!(response.contains(&format!("adit-request-id: {id}\r\n")));
        let (_, body) = response.split_once("\r\n\r\n").unwrap();
        assert_eq!(record.sent_bytes, body.len() as u64);
        assert!(record.visitor.starts_with("127.0.0.1:"));
        record.expect_not_forwarded();
    }
    let stats = observed.entry.stats();
    assert_eq!(stats.failures.of(Reason::BadRequest), 2);
    assert_eq!(stats.failures.of(Reason::HeaderTooLarge), 1);
    assert_eq!(stats.requests, 3);
    // A head is invalid after a request that was served.
    let mut visitor = observed.entry.connect().await;
    send(&mut visitor, GET).await;
    let (_, exchange) = observed.incoming.http().await;
    respond(&exchange, 204, &[], b"");
    drop(exchange);
    read_until(&mut visitor, "\r\n\r\n").await;
    observed.record().await;
    send(&mut visitor, "G@T / HTTP/1.1\r\n\r\n").await;
    let refusal = read_to_end(&mut visitor).await.unwrap();
    assert!(
        refusal.contains("adit-reason: bad_request\r\n"),
        "{refusal}"
    );
    assert_eq!(observed.record().await.status, 400);
    observed.settled().await;
}

/// P-3.10: a request that the HTTP/2 library rejects for its target is counted and recorded as `bad_request`.
#[tokio::test(start_paused = true)]
async fn a_request_that_h2_rejects_has_a_record() {
    let mut observed = Observed::new();
    let mut visitor = observed.entry.connect().await;
    // Preface, SETTINGS, and HEADERS of stream 1: GET, http, `:path: /?"` and `:authority: a`, as literals.
    let block = b"\x82\x86\x04\x03/?\"\x01\x01a";
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    bytes.extend_from_slice(block);
    send(&mut visitor, &bytes).await;
    let record = observed.record().await;
    assert_eq!((record.protocol, record.status), ("http", 0));
    assert_eq!(
        (record.reason, record.version),
        (Some("bad_request"), "HTTP/2.0")
    );
    assert!(record.visitor.starts_with("127.0.0.1:"));
    record.expect_not_forwarded();
    assert_eq!(observed.entry.stats().failures.of(Reason::BadRequest), 1);
}

#[tokio::test(start_paused = true)]
async fn a_visitor_that_leaves_is_recorded_with_its_phase() {
    let mut observed = Observed::new();
    // The visitor leaves while it waits for its response, and while it receives it.
    for (responses, status, sent) in [(false, 0, 0), (true, 200, 4)] {
        let mut visitor = observed.entry.connect().await;
        send(&mut visitor, GET).await;
        let (_, exchange) = observed.incoming.http().await;
        if responses {
            begin(&exchange, 200, &[], b"part");
            read_until(&mut visitor, "part\r\n").await;
        }
        reset(visitor);
        let record = observed.record().await;
        assert_eq!(record.outcome(), (status, Some("cancelled"), 0, sent));
        assert_eq!(record.responded.is_some(), responses);
        let seen = if responses { 5 } else { 4 };
        assert_eq!(record.phases(), FORWARDED[..seen]);
        // A phase that was running when the visitor left has no end of its own.
        assert_eq!(record.spans()[3].end.is_some(), responses);
        record.expect_forwarded();
    }
    observed.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_visitor_that_reads_nothing_is_recorded_as_stalled() {
    let times = HttpConfig {
        stall_timeout: Duration::from_millis(100),
        ..http_config()
    };
    let mut observed = Observed::with(times, 1.0);
    let mut visitor = observed.entry.connect().await;
    send(&mut visitor, GET).await;
    let (_, exchange) = observed.incoming.http().await;
    begin(&exchange, 200, &[], b"");
    let much = exchange.send.send_all(vec![b'x'; 64 << 20].into(), true);
    assert!(within(much).await.is_err());
    let record = observed.record().await;
    assert_eq!((record.status, record.reason), (200, Some("stalled")));
    assert!(record.sent_bytes > 0);
    assert_eq!(record.phases(), FORWARDED);
}

#[tokio::test(start_paused = true)]
async fn a_late_body_is_recorded_as_stalled() {
    let times = HttpConfig {
        stall_timeout: Duration::from_millis(100),
        ..http_config()
    };
    for length in [100, 100_000] {
        let mut observed = Observed::with(times.clone(), 1.0);
        let mut visitor = observed.entry.connect().await;
        let post = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\npart");
        send(&mut visitor, &post).await;
        read_until(&mut visitor, "\r\n\r\n").await;
        let record = observed.record().await;
        assert_eq!((record.status, record.reason), (408, Some("stalled")));
        assert_eq!(record.received_bytes, 4, "of {length}");
        let phases: &[_] = match length {
            // A small body is read before the request has a destination.
            100 => &[Phase::Accept, Phase::Queue, Phase::End],
            _ => &FORWARDED,
        };
        assert_eq!(record.phases(), phases);
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_breaks_off_records_which_side_failed() {
    let lost = |observed: &Observed| {
        let lane = &observed.entry.links[0].near;
        lane.close(&Failure::new(Reason::LinkLost, "cut"));
    };
    for (begun, link, status, reason) in [
        (false, false, 502, "service_aborted"),
        (true, false, 200, "service_aborted"),
        (false, true, 502, "link_lost"),
        (true, true, 200, "link_lost"),
    ] {
        let mut observed = Observed::new();
        // This request is not retried.
        let mut visitor = observed.entry.connect().await;
        send(&mut visitor, &GET.replace("GET", "DELETE")).await;
        let (_, exchange) = observed.incoming.http().await;
        if begun {
            begin(&exchange, 200, &[], b"abc");
            read_until(&mut visitor, "abc\r\n").await;
        }
        if link {
            lost(&observed);
            drop(exchange);
        } else {
            exchange.send.reset(ResetCode::ServiceAborted, "broke");
        }
        let record = observed.record().await;
        assert_eq!((record.status, record.reason), (status, Some(reason)));
        assert_eq!(record.phases(), FORWARDED);
        if begun {
            assert_eq!(record.sent_bytes, 3);
        }
        record.expect_forwarded();
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_on_another_client_has_its_own_phases() {
    let (links, mut clients): (Vec<_>, Vec<_>) =
        [(); 3].map(|()| Link::scripted()).into_iter().unzip();
    let (recorder, mut records) = Recorder::new(1.0);
    let entry = Route::through(&links)
        .observer(recorder)
        .http(http_config());
    let mut contexts = Vec::new();
    let mut visitor = entry.connect().await;
    send(&mut visitor, GET).await;
    for (number, client) in clients.iter_mut().enumerate() {
        let (head, exchange) = client.http().await;
        contexts.push(head.open.traceparent.to_string());
        if number < 2 {
            exchange.send.reset(ResetCode::Refused, "not here");
        } else {
            respond(&exchange, 200, &[("content-length", "2")], b"ok");
        }
    }
    read_until(&mut visitor, "ok").await;
    let record = records.next().await;
    assert_eq!((record.outcome(), record.retries), ((200, None, 0, 2), 2));
    assert_eq!(
        record.phases(),
        [
            Phase::Accept,
            Phase::Queue,
            Phase::Route,
            Phase::Transit,
            Phase::Route,
            Phase::Transit,
            Phase::Route,
            Phase::Transit,
            Phase::End
        ]
    );
    assert!(record.spans()[..8].iter().all(|span| span.end.is_some()));
    for (at, context) in contexts.iter().enumerate() {
        record.expect_context(at, context);
    }
    let ids = record.transits();
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
}

#[tokio::test(start_paused = true)]
async fn a_request_refused_by_all_clients_records_its_attempts() {
    let (dispatch, mut incoming) = Incoming::channel();
    let links = [(); 3].map(|()| Link::to(dispatch.clone()));
    let (recorder, mut records) = Recorder::new(1.0);
    let entry = Route::through(&links)
        .observer(recorder)
        .http(http_config());
    let mut visitor = entry.connect().await;
    let get = GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    send(&mut visitor, get).await;
    for _ in 0..3 {
        let (_, exchange) = incoming.http().await;
        exchange.send.reset(ResetCode::Refused, "not here");
    }
    read_to_end(&mut visitor).await.unwrap();
    let record = records.next().await;
    assert_eq!((record.status, record.reason), (502, Some("refused")));
    assert_eq!((record.retries, record.transits().len()), (2, 3));
    assert_eq!(record.phases().last(), Some(&Phase::End));
}
