//! Batches, and collectors that refuse, hang, return or are slow. The calls of the data path are made outside of a
//! runtime.

use std::{
    io::{self, Write},
    net::TcpListener,
    sync::mpsc,
    time::{Duration, Instant},
};

use adit_otlp::{Traces, TracesSettings, TracesStats};
use adit_trace::{Edge, Phase};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tonic::Status;
use tracing_subscriber::fmt::MakeWriter;

use super::{
    collector::{Collector, Reply, endpoint, refusing, spans},
    record::{AMPLE, http, record_any, record_with, settings},
};

const NEVER: Duration = Duration::from_secs(3_600);

/// The log, line by line.
#[derive(Clone)]
struct Lines(mpsc::Sender<String>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).into_owned();
        self.0.send(line).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

pub(super) fn logged(settings: TracesSettings) -> (Traces, mpsc::Receiver<String>) {
    let (sender, lines) = mpsc::channel();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(Lines(sender))
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .finish();
    let traces = tracing::subscriber::with_default(subscriber, || Traces::start(settings));
    (traces.unwrap(), lines)
}

/// A collector that sends these responses in this order, and then accepts everything.
fn scripted(responses: Vec<Reply>) -> Collector {
    let mut responses = responses.into_iter();
    Collector::responding(move || {
        let fine = || Ok(ExportTraceServiceResponse::default());
        responses.next().unwrap_or_else(fine)
    })
}

pub(super) fn ids(export: &ExportTraceServiceRequest) -> Vec<Vec<u8>> {
    spans(export).into_iter().map(|span| span.span_id).collect()
}

/// Records a request. Returns the id of its span.
pub(super) fn record_one(traces: &Traces) -> Vec<u8> {
    let timeline = traces.begin("").unwrap();
    record_with(traces, &timeline, http(Edge::Ingress, Instant::now()));
    timeline.context().span_id.0.get().to_be_bytes().to_vec()
}

const fn total(stats: TracesStats) -> u64 {
    stats.exported + stats.dropped + stats.failed
}

#[test]
fn a_shutdown_exports_the_queue() {
    let collector = Collector::start();
    let traces = Traces::start(TracesSettings {
        interval: NEVER,
        ..settings(&collector.endpoint)
    })
    .unwrap();
    let recorded: Vec<_> = (0..5).map(|_| record_one(&traces)).collect();
    let stats = traces.shutdown(AMPLE);
    let sent: Vec<_> = collector.exports().iter().flat_map(ids).collect();
    assert_eq!(sent, recorded);
    let all = TracesStats {
        exported: 5,
        ..TracesStats::default()
    };
    assert_eq!(stats, all);

    // Later requests are counted, and a second shutdown has no effect.
    record_any(&traces);
    assert_eq!(traces.shutdown(NEVER), TracesStats { dropped: 1, ..all });
    assert!(collector.exports().is_empty());
}

#[test]
fn dropping_without_a_shutdown_exports_the_queue() {
    let collector = Collector::start();
    let traces = Traces::start(TracesSettings {
        interval: NEVER,
        ..settings(&collector.endpoint)
    })
    .unwrap();
    let recorded = record_one(&traces);
    drop(traces);
    assert_eq!(ids(&collector.export()), [recorded]);
}

#[test]
fn a_batch_is_bounded_and_sent_when_full() {
    let collector = Collector::start();
    let traces = Traces::start(TracesSettings {
        max_batch: 2,
        interval: NEVER,
        ..settings(&collector.endpoint)
    })
    .unwrap();
    let mut recorded: Vec<_> = (0..7).map(|_| record_one(&traces)).collect();
    let mut sent = Vec::new();
    while sent.len() < 6 {
        let export = collector.export();
        assert!((1..=2).contains(&ids(&export).len()));
        sent.append(&mut ids(&export));
    }
    traces.shutdown(AMPLE);
    sent.extend(collector.exports().iter().flat_map(ids));
    recorded.sort();
    sent.sort();
    assert_eq!(sent, recorded);
}

#[test]
fn messages_stay_below_the_bound_of_grpc() {
    const REQUESTS: usize = 1_000;
    let collector = Collector::start();
    let traces = Traces::start(TracesSettings {
        max_queue: REQUESTS,
        max_batch: REQUESTS,
        interval: NEVER,
        ..settings(&collector.endpoint)
    })
    .unwrap();
    let long = "x".repeat(8_192);
    let now = Instant::now();
    for _ in 0..REQUESTS {
        let mut timeline = traces.begin("").unwrap();
        for _ in 0..100 {
            timeline.add(Phase::Queue, now, now);
        }
        let record = adit_trace::Record {
            path: &long,
            host: &long,
            ..http(Edge::Ingress, now)
        };
        record_with(&traces, &timeline, record);
    }
    let stats = traces.shutdown(AMPLE);
    assert_eq!(stats.exported, 33 * REQUESTS as u64);
    let sizes: Vec<_> = collector
        .exports()
        .iter()
        .map(Message::encoded_len)
        .collect();
    assert!(sizes.len() > 1, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size < 3 << 20), "{sizes:?}");
}

#[test]
fn a_batch_is_sent_again_until_it_is_accepted() {
    let unavailable = || Err(Status::unavailable("later"));
    let collector = scripted(vec![unavailable(), unavailable()]);
    let (traces, lines) = logged(settings(&collector.endpoint));
    let recorded = record_one(&traces);
    for _ in 0..3 {
        assert_eq!(ids(&collector.export()), [recorded.as_slice()]);
    }
    // One line for each collector, however often the export failed.
    let next = || lines.recv_timeout(AMPLE).unwrap();
    let line = next();
    assert!(
        line.contains(" WARN ") && line.contains("Unavailable"),
        "{line}"
    );
    let line = next();
    assert!(
        line.contains(" INFO ") && line.contains("spans are exported again lost=0"),
        "{line}"
    );
    let stats = traces.shutdown(AMPLE);
    assert_eq!((stats.exported, total(stats)), (1, 1));
    drop(traces);
    assert_eq!(lines.iter().next(), None);
}

#[test]
fn a_permanent_refusal_ends_the_tries() {
    let collector = scripted(vec![Err(Status::invalid_argument("no"))]);
    let traces = Traces::start(settings(&collector.endpoint)).unwrap();
    let first = record_one(&traces);
    assert_eq!(ids(&collector.export()), [first]);
    let second = record_one(&traces);
    assert_eq!(ids(&collector.export()), [second]);
    let stats = traces.shutdown(AMPLE);
    assert_eq!((stats.exported, stats.failed, stats.dropped), (1, 1, 0));
}

#[test]
fn the_tries_of_a_batch_are_bounded() {
    let unavailable = || Err(Status::unavailable("later"));
    let collector = scripted((0..5).map(|_| unavailable()).collect());
    let traces = Traces::start(settings(&collector.endpoint)).unwrap();
    let first = record_one(&traces);
    for _ in 0..5 {
        assert_eq!(ids(&collector.export()), [first.as_slice()]);
    }
    let second = record_one(&traces);
    assert_eq!(ids(&collector.export()), [second]);
    let stats = traces.shutdown(AMPLE);
    assert_eq!((stats.exported, stats.failed, stats.dropped), (1, 1, 0));
}

#[test]
fn rejected_spans_count_as_failed() {
    let partial = |rejected_spans| {
        Ok(ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans,
                error_message: "too old".to_owned(),
            }),
        })
    };
    let collector = scripted(vec![partial(2), partial(i64::MAX), partial(-1), partial(0)]);
    let (traces, lines) = logged(TracesSettings {
        interval: NEVER,
        max_batch: 3,
        ..settings(&collector.endpoint)
    });
    for _ in 0..12 {
        record_any(&traces);
    }
    let stats = traces.shutdown(AMPLE);
    let sizes: Vec<_> = collector
        .exports()
        .iter()
        .map(|export| ids(export).len())
        .collect();
    assert_eq!(sizes.iter().sum::<usize>(), 12);
    let failed = 2.min(sizes[0]) + sizes[1];
    assert_eq!(stats.failed, failed as u64);
    assert_eq!(stats.exported, 12 - failed as u64);
    let line = lines.recv_timeout(AMPLE).unwrap();
    assert!(line.contains("spans were rejected: too old"), "{line}");
}

#[test]
fn a_missing_collector_costs_spans_and_one_line() {
    let (_socket, endpoint) = refusing();
    let (traces, lines) = logged(settings(&endpoint));
    for _ in 0..3 {
        record_any(&traces);
    }
    let line = lines.recv_timeout(AMPLE).unwrap();
    assert!(
        line.contains(" WARN ") && line.contains("spans cannot be exported"),
        "{line}"
    );
    assert!(line.contains("refused"), "{line}");
    let stats = traces.shutdown(AMPLE);
    assert_eq!((stats.exported, total(stats)), (0, 3));
    drop(traces);
    assert_eq!(lines.iter().next(), None);
}

#[test]
fn a_collector_that_comes_back_is_used_again() {
    let (socket, endpoint) = refusing();
    let (traces, lines) = logged(settings(&endpoint));
    record_any(&traces);
    assert!(lines.recv_timeout(AMPLE).unwrap().contains(" WARN "));
    socket.listen(128).unwrap();
    let collector = Collector::on(socket.into(), || Ok(ExportTraceServiceResponse::default()));
    let recorded = record_one(&traces);
    // The first request may have been dropped by then.
    while !ids(&collector.export()).contains(&recorded) {}
    let line = lines.recv_timeout(AMPLE).unwrap();
    assert!(
        line.contains(" INFO ") && line.contains("spans are exported again"),
        "{line}"
    );
    let stats = traces.shutdown(AMPLE);
    assert!((1..=2).contains(&stats.exported), "{stats:?}");
    assert_eq!(total(stats), 2);
}

#[test]
fn a_hanging_connection_is_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let traces = Traces::start(TracesSettings {
        timeout: Duration::from_millis(500),
        ..settings(&endpoint(listener.local_addr().unwrap()))
    })
    .unwrap();
    let recorded = record_one(&traces);
    let (_silent, _) = listener.accept().unwrap();
    let collector = Collector::on(listener, || Ok(ExportTraceServiceResponse::default()));
    assert_eq!(ids(&collector.export()), [recorded]);
}

#[test]
fn a_broken_connection_is_tried_again() {
    // The second peer speaks HTTP/1, as the port of another service would.
    for response in ["", "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"] {
        breaks(response.as_bytes());
    }
}

fn breaks(response: &[u8]) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (traces, lines) = logged(settings(&endpoint(addr)));
    let recorded = record_one(&traces);
    let (mut connection, _) = listener.accept().unwrap();
    connection.write_all(response).unwrap();
    drop(connection);
    let line = lines.recv_timeout(AMPLE).unwrap();
    assert!(line.contains(" WARN "), "{line}");
    let collector = Collector::on(listener, || Ok(ExportTraceServiceResponse::default()));
    assert_eq!(ids(&collector.export()), [recorded]);
    let stats = traces.shutdown(AMPLE);
    assert_eq!((stats.exported, total(stats)), (1, 1));
}

#[test]
fn a_full_batch_of_one_is_sent_at_once() {
    let collector = Collector::start();
    let traces = Traces::start(TracesSettings {
        max_batch: 1,
        interval: NEVER,
        ..settings(&collector.endpoint)
    })
    .unwrap();
    for _ in 0..3 {
        let recorded = record_one(&traces);
        assert_eq!(ids(&collector.export()), [recorded]);
    }
}

#[test]
fn a_full_queue_drops_and_counts() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let traces = Traces::start(TracesSettings {
        max_queue: 10,
        max_batch: 2,
        ..settings(&endpoint(silent.local_addr().unwrap()))
    })
    .unwrap();
    for _ in 0..1_000 {
        record_any(&traces);
    }
    // Ten requests wait, and the thread has taken one batch; the others were dropped.
    let stats = traces.stats();
    assert!((988..=990).contains(&stats.dropped), "{stats:?}");
    assert_eq!((stats.exported, stats.failed), (0, 0));

    // The collector does not respond, so only the deadline ends this.
    let stats = traces.shutdown(Duration::from_millis(200));
    assert_eq!((stats.exported, total(stats)), (0, 1_000));
}

#[test]
fn a_shutdown_without_time_ends_at_once() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let traces = Traces::start(TracesSettings {
        interval: NEVER,
        ..settings(&endpoint(silent.local_addr().unwrap()))
    })
    .unwrap();
    record_any(&traces);
    assert_eq!(traces.shutdown(Duration::ZERO).exported, 0);
    // The thread still counts the spans; this call waits for it.
    let stats = traces.shutdown(AMPLE);
    assert_eq!((stats.exported, stats.failed, stats.dropped), (0, 0, 1));
}
