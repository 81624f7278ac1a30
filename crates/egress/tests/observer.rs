//! What an observer is told of requests of HTTP, and what their services get of its traces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "support/observed.rs"]
mod observed;
mod support;

use std::time::Duration;

use adit_codec::{HttpRequestHead, Open, ResetCode};
use adit_egress::{Config, Protocol};
use adit_link::{Exchange, Part, Reason};
use adit_trace::Phase;
use bytes::Bytes;
use observed::{Observed, Roots, SAMPLED, UNSAMPLED};
use support::{Ask, TUNNEL, fixed, read, read_head, scripted, service, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

/// Opens a request whose trace is this.
fn open(observed: &Observed, ask: &Ask<'_>, trace: &str, body: &[u8], end: bool) -> Exchange {
    let open: Open<&str> = Open {
        tunnel: ask.tunnel,
        request_uuid: [9; 16],
        revision: 4,
        visitor: "192.0.2.1:4000",
        traceparent: trace,
        ..Open::default()
    };
    let head = HttpRequestHead {
        open: &open,
        method: ask.method,
        scheme: "https",
        authority: b"visitor.example:8443",
        path: ask.path.as_bytes(),
    };
    let lines = ask.headers.iter();
    let lines = lines.map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    let head = head.encode(lines, body).unwrap();
    observed.pair.server.open(head, end, None).unwrap()
}

/// A service that gives the test the heads it gets.
async fn heads() -> (u16, mpsc::UnboundedReceiver<String>) {
    let (send, heads) = mpsc::unbounded_channel();
    let port = scripted(move |mut socket, _| {
        let send = send.clone();
        async move {
            while let Some(head) = read_head(&mut socket).await {
                send.send(head).unwrap();
                socket.write_all(OK.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    (port, heads)
}

/// The values of a header.
fn values<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
    lines.filter(|(n, _)| *n == name).map(|(_, v)| v).collect()
}

#[tokio::test]
async fn a_request_is_told_with_all_that_is_known_of_it() {
    let port = scripted(|mut socket, _| async move {
        while let Some(head) = read_head(&mut socket).await {
            let length = values(&head, "content-length")[0].parse().unwrap();
            let mut body = vec![0; length];
            socket.read_exact(&mut body).await.unwrap();
            socket.write_all(OK.as_bytes()).await.unwrap();
        }
    })
    .await;
    let mut observed = Observed::to(service(port), Config::default());
    for (traced, first) in [(true, true), (true, false), (false, false)] {
        let ask = Ask::new("POST", "/a/b?key=secret", &[]);
        let trace = if traced { SAMPLED } else { UNSAMPLED };
        let mut exchange = open(&observed, &ask, trace, b"12345", true);
        assert_eq!(read(&mut exchange.recv).await.unwrap().text(), "hi");
        drop(exchange);
        let record = observed.only_record().await;
        assert_eq!((record.protocol, record.opener), ("http", "server"));
        assert_eq!(record.request_uuid, [9; 16]);
        assert_eq!((&record.tunnel[..], record.revision), (TUNNEL, 4));
        assert_eq!(record.visitor, "192.0.2.1:4000");
        assert_eq!((record.scheme, &record.method[..]), ("https", "POST"));
        let host = (&record.host[..], record.port, &record.path[..]);
        assert_eq!(host, ("visitor.example", 8443, "/a/b"));
        assert_eq!((record.status, record.grpc_status), (200, None));
        assert_eq!(record.service, format!("127.0.0.1:{port}"));
        assert_eq!(record.reason, None);
        assert_eq!((record.received_bytes, record.sent_bytes), (5, 2));
        assert!(record.answered.is_some());
        let mut phases = vec![Phase::Queue, Phase::Dial, Phase::FirstByte, Phase::End];
        if !first {
            phases.remove(1);
        }
        if !traced {
            phases.clear();
        }
        assert_eq!(record.phases(), phases);
        if traced {
            let (asked, end) = (record.span(Phase::FirstByte), record.span(Phase::End));
            assert_eq!(asked.end, Some(end.start));
            assert_eq!(record.answered, Some(end.start));
        }
    }
}

/// Whoever only counts gets what it counts by. What is traced is told of in full.
#[tokio::test]
async fn who_only_counts_is_not_told_of_hosts_and_paths() {
    let (port, _heads) = heads().await;
    let mut observed = Observed::new(Config::default(), Roots::Counted);
    observed.pair.serve(service(port));
    for (trace, told) in [
        ("", ("", 0, "")),
        (UNSAMPLED, ("", 0, "")),
        (SAMPLED, ("visitor.example", 8443, "/a/b")),
    ] {
        let ask = Ask::new("GET", "/a/b?key=secret", &[]);
        let mut exchange = open(&observed, &ask, trace, b"", true);
        assert_eq!(read(&mut exchange.recv).await.unwrap().text(), "hi");
        drop(exchange);
        let record = observed.only_record().await;
        let host = (&record.host[..], record.port, &record.path[..]);
        assert_eq!(host, told, "{trace}");
        assert_eq!((&record.tunnel[..], record.revision), (TUNNEL, 4));
        assert_eq!((record.status, record.sent_bytes), (200, 2));
    }
}

#[tokio::test]
async fn the_service_gets_the_trace_that_is_recorded_here() {
    let (port, mut heads) = heads().await;
    let mut observed = Observed::to(service(port), Config::default());
    let context: adit_trace::TraceContext = SAMPLED.parse().unwrap();
    // The line is the visitor's, and the trace is that of the other end, below it.
    let lines = [
        ("traceparent", UNSAMPLED),
        ("x-a", "1"),
        ("traceparent", "twice"),
        ("tracestate", "a=1"),
        ("baggage", "b=2"),
    ];
    for lines in [&lines[..], &lines[1..2]] {
        let ask = Ask::new("GET", "/", lines);
        let mut exchange = open(&observed, &ask, SAMPLED, b"", true);
        read(&mut exchange.recv).await.unwrap();
        drop(exchange);
        let (head, record) = (heads.recv().await.unwrap(), observed.only_record().await);
        assert_eq!(values(&head, "traceparent"), [record.traceparent()]);
        let ours = record.context.unwrap();
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
async fn what_is_not_traced_passes_as_it_came() {
    let (port, mut heads) = heads().await;
    let mut observed = Observed::to(service(port), Config::default());
    let lines = [
        ("traceparent", SAMPLED),
        ("tracestate", "a=1"),
        ("baggage", "b=2"),
    ];
    for trace in [UNSAMPLED, "", "nonsense"] {
        for lines in [&lines[..], &[]] {
            let ask = Ask::new("GET", "/", lines);
            let mut exchange = open(&observed, &ask, trace, b"", true);
            read(&mut exchange.recv).await.unwrap();
            drop(exchange);
            let head = heads.recv().await.unwrap();
            let found = values(&head, "traceparent");
            // The context of the other side stands for the visitor's line, which it was made of.
            let line = lines.first().map(|(_, value)| *value);
            let sent = Some(trace).filter(|trace| *trace == UNSAMPLED);
            assert_eq!(found, Vec::from_iter(sent.or(line)), "{trace}");
            assert_eq!(values(&head, "tracestate").len(), lines.len().min(1));
            assert_eq!(values(&head, "baggage").len(), lines.len().min(1));
            assert!(observed.only_record().await.context.is_none());
        }
    }
}

#[tokio::test]
async fn no_trace_begins_here_and_the_settings_stand_above_one() {
    let (port, mut heads) = heads().await;
    let mut observed = Observed::new(Config::default(), Roots::Traced);
    observed.pair.serve(service(port));
    observed.pair.get("/").await.unwrap();
    // The hop before this one has decided.
    assert!(observed.only_record().await.context.is_none());
    let head = heads.recv().await.unwrap();
    assert_eq!(values(&head, "traceparent"), Vec::<&str>::new());
    let mut to = service(port);
    to.custom_headers = vec![("traceparent".into(), UNSAMPLED.into())];
    observed.pair.serve(to);
    let mut exchange = open(&observed, &Ask::get("/"), SAMPLED, b"", true);
    read(&mut exchange.recv).await.unwrap();
    drop(exchange);
    let head = heads.recv().await.unwrap();
    assert_eq!(values(&head, "traceparent"), [UNSAMPLED]);
    assert!(observed.only_record().await.context.is_some());
}

#[tokio::test]
async fn who_does_not_listen_is_told_nothing_and_may_trace() {
    let (port, mut heads) = heads().await;
    let mut observed = Observed::new(Config::default(), Roots::Unheard);
    observed.pair.serve(service(port));
    let mut exchange = open(&observed, &Ask::get("/"), SAMPLED, b"", true);
    read(&mut exchange.recv).await.unwrap();
    drop(exchange);
    let head = heads.recv().await.unwrap();
    let found = values(&head, "traceparent");
    assert_eq!(found.len(), 1);
    assert!(
        found[0] != SAMPLED && found[0].ends_with("-01"),
        "{found:?}"
    );
    observed.no_more().await;
}

#[tokio::test]
async fn refusals_are_told_with_their_reason() {
    let port = fixed(OK).await;
    let mut observed = Observed::to(service(port), Config::default());
    let mut ask = Ask::get("/");
    ask.tunnel = "other";
    let connect = Ask::new("CONNECT", "/", &[]);
    let at = format!("127.0.0.1:{port}");
    for (ask, reason, service) in [
        (&ask, Reason::NoTunnel, ""),
        (&connect, Reason::ProtocolError, &at),
    ] {
        let mut exchange = open(&observed, ask, SAMPLED, b"", true);
        let failure = read(&mut exchange.recv).await.unwrap_err();
        assert_eq!(failure.reason, reason);
        drop(exchange);
        let record = observed.only_record().await;
        assert_eq!(record.reason, Some(reason.as_str()));
        assert_eq!((&record.tunnel[..], record.status), (ask.tunnel, 0));
        assert_eq!(record.service, service);
        assert_eq!((record.phases(), record.answered), (vec![], None));
        assert!(record.context.is_some());
    }
    observed.pair.egress.set_draining(true);
    observed.pair.get("/").await.unwrap_err();
    assert_eq!(observed.only_record().await.reason, Some("draining"));
}

#[tokio::test]
async fn a_dial_that_fails_is_a_phase_and_a_reason() {
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut to = service(port);
        to.protocol = protocol;
        let mut observed = Observed::to(to, Config::default());
        let mut exchange = open(&observed, &Ask::get("/"), SAMPLED, b"", true);
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
async fn who_waits_for_a_connection_waits_in_a_queue_or_is_refused() {
    let (go, mut wait) = mpsc::unbounded_channel::<()>();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        while read_head(&mut socket).await.is_some() {
            wait.recv().await.unwrap();
            socket.write_all(OK.as_bytes()).await.unwrap();
        }
    });
    let narrow = Config {
        max_connections: 1,
        max_waiting: 1,
        ..Config::default()
    };
    let mut observed = Observed::to(service(port), narrow);
    let mut first = open(&observed, &Ask::get("/1"), SAMPLED, b"", true);
    let mut second = open(&observed, &Ask::get("/2"), SAMPLED, b"", true);
    let mut third = open(&observed, &Ask::get("/3"), SAMPLED, b"", true);
    let failure = read(&mut third.recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Limit);
    let record = observed.record().await;
    assert_eq!((&record.path[..], record.reason), ("/3", Some("limit")));
    go.send(()).unwrap();
    read(&mut first.recv).await.unwrap();
    let before = observed.record().await;
    assert_eq!(before.path, "/1");
    go.send(()).unwrap();
    read(&mut second.recv).await.unwrap();
    drop((first, second, third));
    let record = observed.only_record().await;
    assert_eq!((&record.path[..], record.reason), ("/2", None));
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
    let port = scripted(|mut socket, number| async move {
        read_head(&mut socket).await.unwrap();
        socket.write_all(OK.as_bytes()).await.unwrap();
        // The first connection dies when it is asked again.
        read_head(&mut socket).await;
        assert_eq!(number, 0);
    })
    .await;
    let mut observed = Observed::to(service(port), Config::default());
    observed.pair.get("/").await.unwrap();
    observed.record().await;
    let mut exchange = open(&observed, &Ask::get("/again"), SAMPLED, b"", true);
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
    assert!(record.spans[1].end.unwrap() <= record.spans[2].start);
    assert_eq!((record.reason, record.status), (None, 200));
    assert_eq!(observed.pair.egress.stats().retried, 1);
}

#[tokio::test]
async fn failures_of_a_service_are_told_with_what_had_come() {
    let impatient = Config {
        response_timeout: Duration::from_millis(20),
        ..Config::default()
    };
    let silent = scripted(|mut socket, _| async move {
        read_head(&mut socket).await;
        let _ = read_head(&mut socket).await;
    })
    .await;
    let mut observed = Observed::to(service(silent), impatient);
    let mut exchange = open(&observed, &Ask::get("/"), SAMPLED, b"", true);
    read(&mut exchange.recv).await.unwrap_err();
    drop(exchange);
    let record = observed.only_record().await;
    assert_eq!(record.reason, Some("service_timeout"));
    assert_eq!((record.status, record.answered), (0, None));
    assert_eq!(
        record.phases(),
        [Phase::Queue, Phase::Dial, Phase::FirstByte]
    );
    assert_eq!(record.span(Phase::FirstByte).end, None, "it never came");

    let breaks = scripted(|mut socket, _| async move {
        read_head(&mut socket).await;
        let part = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
        socket.write_all(part).await.unwrap();
    })
    .await;
    let mut observed = Observed::to(service(breaks), Config::default());
    let mut exchange = open(&observed, &Ask::get("/"), SAMPLED, b"", true);
    read(&mut exchange.recv).await.unwrap_err();
    drop(exchange);
    let record = observed.only_record().await;
    assert_eq!(record.reason, Some("service_aborted"));
    assert_eq!((record.status, record.sent_bytes), (200, 4));
    assert!(record.answered.is_some());
}

#[tokio::test]
async fn a_visitor_who_leaves_is_told_with_what_its_exchange_says() {
    let (send, mut asked) = mpsc::unbounded_channel();
    let port = scripted(move |mut socket, _| {
        let send = send.clone();
        async move {
            let head = read_head(&mut socket).await;
            send.send(head).unwrap();
            let _ = read_head(&mut socket).await;
        }
    })
    .await;
    let mut observed = Observed::to(service(port), Config::default());
    for (code, reason) in [
        (ResetCode::Cancelled, "cancelled"),
        (ResetCode::ServiceTimeout, "service_timeout"),
    ] {
        let Exchange { send, recv } = open(&observed, &Ask::get("/"), SAMPLED, b"", true);
        asked.recv().await.unwrap();
        send.reset(code, "test");
        drop(recv);
        let record = observed.only_record().await;
        assert_eq!(record.reason, Some(reason));
    }
    let exchange = open(&observed, &Ask::get("/"), SAMPLED, b"", true);
    asked.recv().await.unwrap();
    let lost = adit_link::Failure::new(Reason::LinkLost, "test");
    observed.pair.client.close(&lost);
    assert_eq!(observed.record().await.reason, Some("link_lost"));
    drop(exchange);
}

#[tokio::test]
async fn payload_that_waits_for_credit_is_a_phase() {
    const BYTES: usize = 200_000;
    let port = scripted(|mut socket, _| async move {
        read_head(&mut socket).await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&vec![7; BYTES]).await.unwrap();
        let _ = read_head(&mut socket).await;
    })
    .await;
    let mut observed = Observed::to(service(port), Config::default());
    let mut exchange = open(&observed, &Ask::get("/"), SAMPLED, b"", true);
    // Until the window is used up, but for what one more message would cost.
    let window = u64::from(observed.pair.client.initial_window());
    within(async {
        while observed.pair.server.stats().waiting_bytes + adit_flow::MESSAGE_COST < window {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let answer = read(&mut exchange.recv).await.unwrap();
    assert_eq!(answer.body.len(), BYTES);
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
    let port = scripted(|mut socket, _| async move {
        read_head(&mut socket).await;
        let mut all = Vec::new();
        while !all.ends_with(b"0\r\n\r\n") {
            all.push(socket.read_u8().await.unwrap());
        }
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        socket.write_all(answer.as_bytes()).await.unwrap();
        socket.write_all(b"3\r\nabc\r\n").await.unwrap();
        socket.write_all(b"4\r\ndefg\r\n0\r\n\r\n").await.unwrap();
        let _ = read_head(&mut socket).await;
    })
    .await;
    let mut observed = Observed::to(service(port), Config::default());
    let ask = Ask::new("POST", "/", &[]);
    let Exchange { send, mut recv } = open(&observed, &ask, "", b"", false);
    for _ in 0..3 {
        let piece = Bytes::from(vec![b'x'; 10_000]);
        send.send_all(piece, false).await.unwrap();
    }
    send.finish().unwrap();
    let mut body = 0;
    while let Some(part) = within(recv.part()).await {
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
