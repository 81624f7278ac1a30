//! One trace from the visitor to the service, and the contents of its spans.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use adit_otlp::Traces;
use adit_trace::{Edge, Phase, Record, TraceContext};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};

use super::{
    collector::{Collector, assert_unset, spans, texts},
    record::{hop, http, record_with, settings},
};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn named<'s>(spans: &'s [Span], name: &str) -> &'s Span {
    let mut named = spans.iter().filter(|span| span.name == name);
    let span = named
        .next()
        .unwrap_or_else(|| panic!("no span is called {name}: {spans:?}"));
    assert!(named.next().is_none(), "two spans are called {name}");
    span
}

#[test]
fn one_trace_leads_from_the_visitor_to_the_service() {
    let collector = Collector::start();
    let server = Traces::start(settings(&collector.endpoint)).unwrap();
    let client = Traces::start(settings(&collector.endpoint)).unwrap();
    let visitor = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let start = Instant::now();
    let at = |millis| start + MS(millis);

    let mut ingress = server.begin(visitor).unwrap();
    ingress.add(Phase::Accept, at(0), at(1));
    ingress.add(Phase::Route, at(1), at(2));
    ingress.add(Phase::Queue, at(2), at(5));
    let onward = ingress.begin_onward(Phase::Transit, at(5), 0x77);
    ingress.end(Phase::Transit, at(80));
    ingress.begin(Phase::End, at(80));

    let mut egress = client.begin(&onward.to_string()).unwrap();
    egress.add(Phase::Queue, at(10), at(11));
    egress.add(Phase::Dial, at(11), at(20));
    egress.add(Phase::FirstByte, at(20), at(70));
    egress.add_wait(Phase::CreditWait, at(70), at(78), MS(4));
    let to_service = egress.context();

    record_with(&server, &ingress, http(Edge::Ingress, start));
    let at_ingress = spans(&collector.export());
    let of_service = Record {
        service: "127.0.0.1:8080",
        version: "",
        ..http(Edge::Egress, at(10))
    };
    record_with(&client, &egress, of_service);
    let at_egress = spans(&collector.export());

    let parent: TraceContext = visitor.parse().unwrap();
    let trace = parent.trace_id.0.get().to_be_bytes();
    for span in at_ingress.iter().chain(&at_egress) {
        assert_eq!(span.trace_id, trace, "{}", span.name);
        assert_eq!(span.span_id.len(), 8, "{}", span.name);
        assert_ne!(span.span_id, [0; 8], "{}", span.name);
    }
    assert_eq!(at_ingress.len(), 6);
    assert_eq!(at_egress.len(), 5);

    let (server_span, client_span) = (named(&at_ingress, "GET"), named(&at_egress, "GET"));
    let transit = named(&at_ingress, "transit");
    assert_eq!(
        server_span.parent_span_id,
        0xb7ad_6b71_6920_3331_u64.to_be_bytes()
    );
    assert_eq!(transit.span_id, 0x77_u64.to_be_bytes());
    assert_eq!(client_span.parent_span_id, transit.span_id);
    assert_eq!(
        client_span.span_id,
        to_service.span_id.0.get().to_be_bytes()
    );

    // Name, kind, start and duration of each span.
    let table = |spans: &[Span], hop: &Span, start: u64| -> Vec<(String, SpanKind, u64, u64)> {
        let below = spans.iter().filter(|span| span.span_id != hop.span_id);
        below
            .map(|span| {
                assert_eq!(span.parent_span_id, hop.span_id, "{}", span.name);
                let began = span.start_time_unix_nano - hop.start_time_unix_nano;
                let took = span.end_time_unix_nano - span.start_time_unix_nano;
                let millis = |nanos: u64| {
                    assert_eq!(nanos % 1_000_000, 0, "{}", span.name);
                    nanos / 1_000_000
                };
                (
                    span.name.clone(),
                    span.kind(),
                    start + millis(began),
                    millis(took),
                )
            })
            .collect()
    };
    let row = |name: &str, kind, start, took| (name.to_owned(), kind, start, took);
    assert_eq!(
        table(&at_ingress, server_span, 0),
        [
            row("accept", SpanKind::Internal, 0, 1),
            row("route", SpanKind::Internal, 1, 1),
            row("queue", SpanKind::Internal, 2, 3),
            row("transit", SpanKind::Client, 5, 75),
            // This phase lasted until the end of the request.
            row("end", SpanKind::Internal, 80, 20),
        ]
    );
    assert_eq!(
        table(&at_egress, client_span, 10),
        [
            row("queue", SpanKind::Internal, 10, 1),
            row("dial", SpanKind::Internal, 11, 9),
            row("first byte", SpanKind::Client, 20, 50),
            row("credit wait", SpanKind::Internal, 70, 8),
        ]
    );
    for hop in [server_span, client_span] {
        assert_eq!(hop.kind(), SpanKind::Server);
        assert_eq!(
            hop.end_time_unix_nano - hop.start_time_unix_nano,
            100_000_000
        );
        // The trace is sampled, and the parent is known to be in another process.
        assert_eq!(hop.flags, 0x301);
    }
    assert_eq!(transit.flags, 0x101);

    let service = BTreeMap::from([
        ("server.address", "127.0.0.1".to_owned()),
        ("server.port", "8080".to_owned()),
    ]);
    assert_eq!(texts(&named(&at_egress, "dial").attributes), service);
    assert_eq!(texts(&named(&at_egress, "first byte").attributes), service);
    let wait = texts(&named(&at_egress, "credit wait").attributes);
    assert_eq!(
        wait,
        BTreeMap::from([("adit.wait.seconds", "0.004".to_owned())])
    );
    assert!(transit.attributes.is_empty());
}

#[test]
fn a_trace_that_begins_here_has_a_root() {
    let span = hop(http(Edge::Ingress, Instant::now()));
    assert_eq!(span.parent_span_id, [0; 0]);
    assert_eq!(span.flags, 0x101);
    assert_eq!(span.trace_id.len(), 16);
    assert_ne!(span.trace_id, [0; 16]);
}

#[test]
fn a_hop_lasts_as_long_as_its_phases() {
    let collector = Collector::start();
    let traces = Traces::start(settings(&collector.endpoint)).unwrap();
    let start = Instant::now();
    let mut timeline = traces.begin("").unwrap();
    timeline.add(Phase::Accept, start, start + MS(5));
    timeline.add(Phase::End, start + MS(50), start + MS(200));
    // The phase began after the end, because the clocks of two threads can differ.
    timeline.begin(Phase::CreditWait, start + MS(150));
    record_with(&traces, &timeline, http(Edge::Ingress, start + MS(5)));
    let spans = spans(&collector.export());
    let took = |name| {
        let span = named(&spans, name);
        span.end_time_unix_nano - span.start_time_unix_nano
    };
    assert_eq!(took("GET"), 200_000_000);
    assert_eq!(took("credit wait"), 0);
}

#[test]
fn spans_stand_on_the_wall_clock() {
    let span = hop(http(Edge::Ingress, Instant::now()));
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let distance = now.abs_diff(Duration::from_nanos(span.start_time_unix_nano));
    // The wall clock may be set meanwhile.
    assert!(distance < Duration::from_secs(3_600), "{distance:?}");
}

#[test]
fn an_http_request_has_the_attributes_of_the_conventions() {
    let span = hop(http(Edge::Ingress, Instant::now()));
    let expected = [
        ("adit.bytes.received", "11"),
        ("adit.bytes.sent", "222"),
        ("adit.client", "office-1"),
        ("adit.group", "office"),
        ("adit.edge", "ingress"),
        ("adit.opener", "server"),
        ("adit.protocol", "http"),
        ("adit.request.uuid", "5a5a5a5a-5a5a-5a5a-5a5a-5a5a5a5a5a5a"),
        ("adit.retries", "1"),
        ("adit.revision", "7"),
        ("adit.tunnel", "shop"),
        ("adit.user", "ann"),
        ("client.address", "203.0.113.9"),
        ("client.port", "40001"),
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("network.protocol.name", "http"),
        ("network.protocol.version", "2"),
        ("server.address", "shop.example"),
        ("server.port", "443"),
        ("url.path", "/cart"),
        ("url.scheme", "https"),
    ];
    let expected = expected.map(|(key, value)| (key, value.to_owned()));
    assert_eq!(texts(&span.attributes), BTreeMap::from(expected));
    assert_unset(&span);
}

#[test]
fn unknown_attributes_are_left_out() {
    let started = Instant::now();
    let span = hop(Record {
        edge: Edge::Egress,
        opener: "",
        request_uuid: [0; 16],
        user: "",
        group: "",
        client: "",
        tunnel: "",
        revision: 0,
        visitor: "",
        scheme: "",
        host: "",
        port: 0,
        path: "",
        version: "",
        status: 0,
        service: "127.0.0.1:80",
        ..http(Edge::Egress, started)
    });
    let keys: Vec<_> = texts(&span.attributes).into_keys().collect();
    assert_eq!(
        keys,
        [
            "adit.bytes.received",
            "adit.bytes.sent",
            "adit.edge",
            "adit.protocol",
            "adit.service",
            "http.request.method",
            "network.protocol.name",
        ]
    );
}

#[test]
fn a_query_is_never_exported() {
    let span = hop(Record {
        path: "/login?token=hunter2",
        ..http(Edge::Ingress, Instant::now())
    });
    assert_eq!(texts(&span.attributes)["url.path"], "/login");
    assert!(!format!("{span:?}").contains("hunter2"));
}

#[test]
fn unknown_methods_share_one_name() {
    let span = hop(Record {
        method: "BREW",
        ..http(Edge::Ingress, Instant::now())
    });
    assert_eq!(span.name, "HTTP");
    let texts = texts(&span.attributes);
    assert_eq!(texts["http.request.method"], "_OTHER");
    assert_eq!(texts["http.request.method_original"], "BREW");
}

#[test]
fn a_call_is_named_by_its_method() {
    let call = |path| Record {
        protocol: "grpc",
        method: "POST",
        path,
        grpc_status: Some(5),
        ..http(Edge::Ingress, Instant::now())
    };
    let span = hop(call("/shop.v1.Cart/Add"));
    assert_eq!(span.name, "shop.v1.Cart/Add");
    // NOT_FOUND is a valid response.
    assert_unset(&span);
    let texts_found = texts(&span.attributes);
    for (key, value) in [
        ("rpc.system", "grpc"),
        ("rpc.service", "shop.v1.Cart"),
        ("rpc.method", "Add"),
        ("rpc.grpc.status_code", "5"),
        ("http.request.method", "POST"),
        ("url.path", "/shop.v1.Cart/Add"),
    ] {
        assert_eq!(texts_found[key], value, "{key}");
    }
    for path in ["/", "//", "/Add", "/a/", "//b", "/a/b/c", "*"] {
        let span = hop(call(path));
        assert_eq!(span.name, "grpc", "{path}");
        assert!(
            !texts(&span.attributes).contains_key("rpc.method"),
            "{path}"
        );
    }
}

#[test]
fn sessions_have_no_attributes_of_http() {
    for protocol in ["tcp", "udp"] {
        let span = hop(Record {
            protocol,
            scheme: "",
            method: "",
            host: "",
            port: 5_432,
            path: "",
            version: "",
            status: 0,
            ..http(Edge::Ingress, Instant::now())
        });
        assert_eq!(span.name, protocol);
        let texts_found = texts(&span.attributes);
        assert_eq!(texts_found["network.transport"], protocol);
        assert_eq!(texts_found["server.port"], "5432");
        assert_eq!(texts_found["client.address"], "203.0.113.9");
        let of_http = |key: &&str| key.starts_with("http.") || key.starts_with("url.");
        assert_eq!(texts_found.keys().copied().find(of_http), None);
    }
    let span = hop(Record {
        protocol: "websocket",
        status: 101,
        ..http(Edge::Ingress, Instant::now())
    });
    assert_eq!(span.name, "websocket");
    assert_eq!(texts(&span.attributes)["http.response.status_code"], "101");
    assert_unset(&span);
}

#[test]
fn the_resource_describes_the_process() {
    let collector = Collector::start();
    let instance = || {
        let traces = Traces::start(settings(&collector.endpoint)).unwrap();
        super::record::record_any(&traces);
        let export = collector.export();
        let resource = export.resource_spans[0].resource.clone().unwrap();
        let texts_found = texts(&resource.attributes);
        assert_eq!(texts_found["service.name"], "adit-test");
        assert_eq!(texts_found["service.version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(texts_found["process.pid"], std::process::id().to_string());
        for key in [
            "host.name",
            "host.arch",
            "os.type",
            "process.executable.name",
        ] {
            assert!(!texts_found[key].is_empty(), "{key}");
        }
        let scope = export.resource_spans[0].scope_spans[0]
            .scope
            .clone()
            .unwrap();
        assert_eq!(scope.name, "adit");
        texts_found["service.instance.id"].clone()
    };
    assert_ne!(instance(), instance());
}
