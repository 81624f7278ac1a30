//! The records of HTTP requests, and the trace contexts that their services receive.

use std::{sync::atomic::Ordering, time::Duration};

use adit_codec::{Open, ResetCode};
use adit_egress::{Config, Protocol};
use adit_link::{Exchange, Part, Reason};
use adit_testlink::{
    ObservedEgress, SAMPLED, TUNNEL, TunnelRequest, UNSAMPLED, http_service,
    http1::{fixed, read_head, send, values},
    next_part, read,
    tcp::serve,
    until,
};
use adit_trace::Phase;
use bytes::Bytes;
use tokio::{io::AsyncReadExt, net::TcpListener, sync::mpsc};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

/// Opens a request with this trace.
fn open(
    observed: &ObservedEgress,
    request: &TunnelRequest<'_>,
    trace: &str,
    body: &[u8],
    end: bool,
) -> Exchange {
    let request = TunnelRequest {
        open: Open {
            request_uuid: [9; 16],
            revision: 4,
            traceparent: trace,
            ..request.open.clone()
        },
        scheme: "https",
        authority: "visitor.example:8443",
        ..request.clone()
    };
    observed.link.open(request.http(body), end)
}

/// A service that passes the heads of its requests to the test.
async fn heads() -> (u16, mpsc::UnboundedReceiver<String>) {
    let (sender, heads) = mpsc::unbounded_channel();
    let port = serve(move |mut socket, _| {
        let sender = sender.clone();
        async move {
            while let Some(head) = read_head(&mut socket).await {
                sender.send(head).unwrap();
                send(&mut socket, OK).await;
            }
        }
    })
    .await;
    (port, heads)
}

#[tokio::test]
async fn a_record_has_all_fields_of_its_request() {
    let port = serve(|mut socket, _| async move {
        while let Some(head) = read_head(&mut socket).await {
            let length = values(&head, "content-length")[0].parse().unwrap();
            let mut body = vec![0; length];
            socket.read_exact(&mut body).await.unwrap();
            send(&mut socket, &OK).await;
        }
    })
    .await;
    let mut observed = ObservedEgress::to(http_service(port), Config::default());
    for (traced, first) in [(true, true), (true, false), (false, false)] {
        let request = TunnelRequest::new("POST", "/a/b?key=secret", &[]);
        let trace = if traced { SAMPLED } else { UNSAMPLED };
        let mut exchange = open(&observed, &request, trace, b"12345", true);
        assert_eq!(read(&mut exchange.recv).await.unwrap().text(), "hi");
        drop(exchange);
        let record = observed.only_record().await;
        assert_eq!((record.protocol, record.opener), ("http", "server"));
        assert_eq!(record.request_uuid, [9; 16]);
        assert_eq!((record.tunnel, record.revision), (TUNNEL, 4));
        assert_eq!(record.visitor, "192.0.2.1:4000");
        assert_eq!((record.scheme, record.method), ("https", "POST"));
        let host = (record.host, record.port, record.path);
        assert_eq!(host, ("visitor.example", 8443, "/a/b"));
        assert_eq!((record.status, record.grpc_status), (200, None));
        assert_eq!(record.service, format!("127.0.0.1:{port}"));
        assert_eq!(record.reason, None);
        assert_eq!((record.received_bytes, record.sent_bytes), (5, 2));
        assert!(record.responded.is_some());
        let mut phases = vec![Phase::Queue, Phase::Dial, Phase::FirstByte, Phase::End];
        if !first {
            phases.remove(1);
        }
        if !traced {
            phases.clear();
        }
        assert_eq!(record.phases(), phases);
        if traced {
            let (first_byte, end) = (record.span(Phase::FirstByte), record.span(Phase::End));
            assert_eq!(first_byte.end, Some(end.start));
            assert_eq!(record.responded, Some(end.start));
        }
    }
}

/// An observer that only counts receives the fields that counters need. A traced request is recorded in full.
#[tokio::test]
async fn an_observer_that_only_counts_gets_no_hosts_or_paths() {
    let (port, _heads) = heads().await;
    let mut observed = ObservedEgress::to(http_service(port), Config::default());
    observed.recorder.detailed.store(false, Ordering::Relaxed);
    for (trace, expected) in [
        ("", ("", 0, "")),
        (UNSAMPLED, ("", 0, "")),
        (SAMPLED, ("visitor.example", 8443, "/a/b")),
    ] {
        let request = TunnelRequest::new("GET", "/a/b?key=secret", &[]);
        let mut exchange = open(&observed, &request, trace, b"", true);
        assert_eq!(read(&mut exchange.recv).await.unwrap().text(), "hi");
        drop(exchange);
        let record = observed.only_record().await;
        let host = (record.host, record.port, record.path);
        assert_eq!(host, expected, "{trace}");
        assert_eq!((record.tunnel, record.revision), (TUNNEL, 4));
        assert_eq!((record.status, record.sent_bytes), (200, 2));
    }
}

#[tokio::test]
async fn the_service_gets_the_trace_that_is_recorded_here() {
    let (port, mut heads) = heads().await;
    let mut observed = ObservedEgress::to(http_service(port), Config::default());
    let context: adit_trace::TraceContext = SAMPLED.parse().unwrap();
    // The header is from the visitor; the trace context is that of the other end, and the new span is its child.
    let lines = [
        ("traceparent", UNSAMPLED),
        ("x-a", "1"),
        ("traceparent", "twice"),
        ("tracestate", "a=1"),
        ("baggage", "b=2"),
    ];
    for lines in [&lines[..], &lines[1..2]] {
        let request = TunnelRequest::new("GET", "/", lines);
        let mut exchange = open(&observed, &request, SAMPLED, b"", true);
        read(&mut exchange.recv).await.unwrap();
        drop(exchange);
        let (head, record) = (heads.recv().await.unwrap(), observed.only_record().await);
        assert_eq!(values(&head, "traceparent"), [record.traceparent()]);
        let ours = record.timeline.as_ref().unwrap().context();
        assert_eq!(ours.trace_id, context.trace_id);
        assert_ne!(ours.span_id, context.span_id);
        assert!(ours.sampled);
        let passed = usize::from(lines.len() > 1);
        assert_eq!(values(&head, "tracestate").len(), passed);
        assert_eq!(values(&head, "baggage").len(), passed);
        assert_eq!(values(&head, "x-a"), ["1"]);
    }
}

#[tokio::test]
async fn an_unsampled_context_passes_unchanged() {
    let (port, mut heads) = heads().await;
    let mut observed = ObservedEgress::to(http_service(port), Config::default());
    let lines = [
        ("traceparent", SAMPLED),
        ("tracestate", "a=1"),
        ("baggage", "b=2"),
    ];
    for trace in [UNSAMPLED, "", "nonsense"] {
        for lines in [&lines[..], &[]] {
            let request = TunnelRequest::new("GET", "/", lines);
            let mut exchange = open(&observed, &request, trace, b"", true);
            read(&mut exchange.recv).await.unwrap();
            drop(exchange);
            let head = heads.recv().await.unwrap();
            let found = values(&head, "traceparent");
            // The service receives the context of the other side, which was derived from the visitor's header.
            let line = lines.first().map(|(_, value)| *value);
            let sent = Some(trace).filter(|trace| *trace == UNSAMPLED);
            assert_eq!(found, Vec::from_iter(sent.or(line)), "{trace}");
            assert_eq!(values(&head, "tracestate").len(), lines.len().min(1));
            assert_eq!(values(&head, "baggage").len(), lines.len().min(1));
            assert!(observed.only_record().await.timeline.is_none());
        }
    }
}

#[tokio::test]
async fn no_trace_begins_here_and_the_settings_stand_above_one() {
    let (port, mut heads) = heads().await;
    let mut observed = ObservedEgress::with_ratio(http_service(port), Config::default(), 1.0);
    observed.link.get("/").await.unwrap();
    // The other end has decided that the request is not traced.
    assert!(observed.only_record().await.timeline.is_none());
    let head = heads.recv().await.unwrap();
    assert_eq!(values(&head, "traceparent"), Vec::<&str>::new());
    let mut to = http_service(port);
    to.custom_headers = vec![("traceparent".into(), UNSAMPLED.into())];
    observed.link.serve(to);
    let mut exchange = open(&observed, &TunnelRequest::get("/"), SAMPLED, b"", true);
    read(&mut exchange.recv).await.unwrap();
    drop(exchange);
    let head = heads.recv().await.unwrap();
    assert_eq!(values(&head, "traceparent"), [UNSAMPLED]);
    assert!(observed.only_record().await.timeline.is_some());
}

#[tokio::test]
async fn a_disabled_observer_gets_no_records_and_may_trace() {
    let (port, mut heads) = heads().await;
    let mut observed = ObservedEgress::to(http_service(port), Config::default());
    observed.recorder.enabled.store(false, Ordering::Relaxed);
    let mut exchange = open(&observed, &TunnelRequest::get("/"), SAMPLED, b"", true);
    read(&mut exchange.recv).await.unwrap();
    drop(exchange);
    let head = heads.recv().await.unwrap();
    let found = values(&head, "traceparent");
    assert_eq!(found.len(), 1);
    assert!(
        found[0] != SAMPLED && found[0].ends_with("-01"),
        "{found:?}"
    );
    observed.settled().await;
}

#[tokio::test]
async fn refusals_are_recorded_with_their_reason() {
    let port = fixed(OK).await;
    let mut observed = ObservedEgress::to(http_service(port), Config::default());
    let other = TunnelRequest::get("/").tunnel("other");
    let connect = TunnelRequest::new("CONNECT", "/", &[]);
    let at = format!("127.0.0.1:{port}");
    for (request, reason, service) in [
        (&other, Reason::NoTunnel, ""),
        (&connect, Reason::ProtocolError, &at),
    ] {
        let mut exchange = open(&observed, request, SAMPLED, b"", true);
        let failure = read(&mut exchange.recv).await.unwrap_err();
        assert_eq!(failure.reason, reason);
        drop(exchange);
        let record = observed.only_record().await;
        assert_eq!(record.reason, Some(reason.as_str()));
        assert_eq!((record.tunnel, record.status), (request.open.tunnel, 0));
        assert_eq!(record.service, service);
        assert_eq!((record.phases(), record.responded), (vec![], None));
        assert!(record.timeline.is_some());
    }
    observed.link.egress.set_draining(true);
    observed.link.get("/").await.unwrap_err();
    assert_eq!(observed.only_record().await.reason, Some("draining"));
}

#[tokio::test]
async fn a_dial_that_fails_is_a_phase_and_a_reason() {
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut to = http_service(port);
        to.protocol = protocol;
        let mut observed = ObservedEgress::to(to, Config::default());
        let mut exchange = open(&observed, &TunnelRequest::get("/"), SAMPLED, b"", true);
        let failure = read(&mut exchange.recv).await.unwrap_err();
        assert_eq!(failure.reason, Reason::DialFailed);
        drop(exchange);
        let record = observed.only_record().await;
        assert_eq!(record.reason, Some("dial_failed"));
        assert_eq!(record.phases(), [Phase::Queue, Phase::Dial]);
        assert!(record.span(Phase::Dial).end.is_some());
        assert_eq!(record.service, format!("127.0.0.1:{port}"));
    }
}

#[tokio::test]
async fn requests_without_a_connection_queue_or_are_refused() {
    let (go, mut wait) = mpsc::unbounded_channel::<()>();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        while read_head(&mut socket).await.is_some() {
            wait.recv().await.unwrap();
            send(&mut socket, &OK).await;
        }
    });
    let narrow = Config {
        max_connections: 1,
        max_waiting: 1,
        ..Config::default()
    };
    let mut observed = ObservedEgress::to(http_service(port), narrow);
    let mut first = open(&observed, &TunnelRequest::get("/1"), SAMPLED, b"", true);
    let mut second = open(&observed, &TunnelRequest::get("/2"), SAMPLED, b"", true);
    let mut third = open(&observed, &TunnelRequest::get("/3"), SAMPLED, b"", true);
    let failure = read(&mut third.recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Limit);
    let record = observed.record().await;
    assert_eq!((record.path, record.reason), ("/3", Some("limit")));
    go.send(()).unwrap();
    read(&mut first.recv).await.unwrap();
    let before = observed.record().await;
    assert_eq!(before.path, "/1");
    go.send(()).unwrap();
    read(&mut second.recv).await.unwrap();
    drop((first, second, third));
    let record = observed.only_record().await;
    assert_eq!((record.path, record.reason), ("/2", None));
    assert_eq!(
        record.phases(),
        [Phase::Queue, Phase::FirstByte, Phase::End]
    );
    let queue = record.span(Phase::Queue);
    assert!(queue.start <= before.span(Phase::End).start);
    assert!(queue.end.unwrap() >= before.span(Phase::End).start);
}

#[tokio::test]
async fn a_request_that_begins_anew_keeps_its_timeline() {
    let port = serve(|mut socket, number| async move {
        read_head(&mut socket).await.unwrap();
        send(&mut socket, &OK).await;
        // The first connection breaks off at its second request.
        read_head(&mut socket).await;
        assert_eq!(number, 0);
    })
    .await;
    let mut observed = ObservedEgress::to(http_service(port), Config::default());
    observed.link.get("/").await.unwrap();
    observed.record().await;
    let mut exchange = open(&observed, &TunnelRequest::get("/again"), SAMPLED, b"", true);
    read(&mut exchange.recv).await.unwrap();
    drop(exchange);
    let record = observed.only_record().await;
    let phases = [
        Phase::Queue,
        Phase::FirstByte,
        Phase::Dial,
        Phase::FirstByte,
        Phase::End,
    ];
    assert_eq!(record.phases(), phases);
    assert!(record.spans()[1].end.unwrap() <= record.spans()[2].start);
    assert_eq!((record.reason, record.status), (None, 200));
    assert_eq!(observed.link.egress.stats().retried, 1);
}

#[tokio::test]
async fn failures_are_recorded_with_the_bytes_before_them() {
    let impatient = Config {
        response_timeout: Duration::from_millis(20),
        ..Config::default()
    };
    let silent = serve(|mut socket, _| async move {
        read_head(&mut socket).await;
        let _ = read_head(&mut socket).await;
    })
    .await;
    let mut observed = ObservedEgress::to(http_service(silent), impatient);
    let mut exchange = open(&observed, &TunnelRequest::get("/"), SAMPLED, b"", true);
    read(&mut exchange.recv).await.unwrap_err();
    drop(exchange);
    let record = observed.only_record().await;
    assert_eq!(record.reason, Some("service_timeout"));
    assert_eq!((record.status, record.responded), (0, None));
    assert_eq!(
        record.phases(),
        [Phase::Queue, Phase::Dial, Phase::FirstByte]
    );
    assert_eq!(record.span(Phase::FirstByte).end, None, "it never came");

    let breaks = serve(|mut socket, _| async move {
        read_head(&mut socket).await;
        let part = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
        send(&mut socket, part).await;
    })
    .await;
    let mut observed = ObservedEgress::to(http_service(breaks), Config::default());
    let mut exchange = open(&observed, &TunnelRequest::get("/"), SAMPLED, b"", true);
    read(&mut exchange.recv).await.unwrap_err();
    drop(exchange);
    let record = observed.only_record().await;
    assert_eq!(record.reason, Some("service_aborted"));
    assert_eq!((record.status, record.sent_bytes), (200, 4));
    assert!(record.responded.is_some());
}

#[tokio::test]
async fn a_visitor_that_leaves_is_recorded_with_its_reset_code() {
    let (sender, mut heads) = mpsc::unbounded_channel();
    let port = serve(move |mut socket, _| {
        let sender = sender.clone();
        async move {
            let head = read_head(&mut socket).await;
            sender.send(head).unwrap();
            let _ = read_head(&mut socket).await;
        }
    })
    .await;
    let mut observed = ObservedEgress::to(http_service(port), Config::default());
    for (code, reason) in [
        (ResetCode::Cancelled, "cancelled"),
        (ResetCode::ServiceTimeout, "service_timeout"),
    ] {
        let Exchange { send, recv } = open(&observed, &TunnelRequest::get("/"), SAMPLED, b"", true);
        heads.recv().await.unwrap();
        send.reset(code, "test");
        drop(recv);
        let record = observed.only_record().await;
        assert_eq!(record.reason, Some(reason));
    }
    let exchange = open(&observed, &TunnelRequest::get("/"), SAMPLED, b"", true);
    heads.recv().await.unwrap();
    let lost = adit_link::Failure::new(Reason::LinkLost, "test");
    observed.link.far.close(&lost);
    assert_eq!(observed.record().await.reason, Some("link_lost"));
    drop(exchange);
}

#[tokio::test]
async fn payload_that_waits_for_credit_is_a_phase() {
    const BYTES: usize = 200_000;
    let port = serve(|mut socket, _| async move {
        read_head(&mut socket).await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n");
        send(&mut socket, &head).await;
        send(&mut socket, &vec![7; BYTES]).await;
        let _ = read_head(&mut socket).await;
    })
    .await;
    let mut observed = ObservedEgress::to(http_service(port), Config::default());
    let mut exchange = open(&observed, &TunnelRequest::get("/"), SAMPLED, b"", true);
    // Wait until the rest of the window is less than the cost of one more message.
    let window = u64::from(observed.link.far.initial_window());
    until("the window is used up", || {
        observed.link.near.stats().waiting_bytes + adit_flow::MESSAGE_COST >= window
    })
    .await;
    let response = read(&mut exchange.recv).await.unwrap();
    assert_eq!(response.body.len(), BYTES);
    drop(exchange);
    let record = observed.only_record().await;
    assert_eq!(record.sent_bytes, BYTES as u64);
    let wait = record.span(Phase::CreditWait);
    let (busy, end) = (wait.busy.unwrap(), wait.end.unwrap());
    assert!(busy > Duration::ZERO && busy <= end - wait.start);
    assert!(wait.start >= record.span(Phase::End).start);
}

#[tokio::test]
async fn a_body_that_comes_in_pieces_is_counted() {
    let port = serve(|mut socket, _| async move {
        read_head(&mut socket).await;
        let mut all = Vec::new();
        while !all.ends_with(b"0\r\n\r\n") {
            all.push(socket.read_u8().await.unwrap());
        }
        let response = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        send(&mut socket, &response).await;
        send(&mut socket, b"3\r\nabc\r\n").await;
        send(&mut socket, b"4\r\ndefg\r\n0\r\n\r\n").await;
        let _ = read_head(&mut socket).await;
    })
    .await;
    let mut observed = ObservedEgress::to(http_service(port), Config::default());
    let request = TunnelRequest::new("POST", "/", &[]);
    let Exchange { send, mut recv } = open(&observed, &request, "", b"", false);
    for _ in 0..3 {
        let piece = Bytes::from(vec![b'x'; 10_000]);
        send.send_all(piece, false).await.unwrap();
    }
    send.finish().unwrap();
    let mut body = 0;
    while let Some(part) = next_part(&mut recv).await {
        if let Part::Data(data) = part.unwrap() {
            body += data.as_ref().len();
        }
    }
    assert_eq!(body, 7);
    drop((send, recv));
    let record = observed.only_record().await;
    assert_eq!((record.received_bytes, record.sent_bytes), (30_000, 7));
    assert_eq!(record.reason, None);
}
