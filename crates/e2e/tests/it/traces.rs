//! One trace for each request, from its visitor to its service and back, over both binaries. F37.
//!
//! Needs the interpreter that `ADIT_PYTHON` names, or `target/python/bin/python`, which `ci/test` creates.

use std::{net::SocketAddr, time::Duration};

use adit_e2e::{
    Client, ClientOptions, Collector, Raw, Scripted, Server, ServerOptions, Trace, Visitor,
    eventually, full, python::PythonService,
};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

const SOON: Duration = Duration::from_secs(20);

/// A trace that the visitor began, and the visitor's span.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// The header of a visitor whose trace is recorded.
fn traceparent() -> HeaderValue {
    HeaderValue::try_from(format!("00-{TRACE}-{SPAN}-01")).unwrap()
}

/// A service that responds to each request with the request's head.
async fn mirror() -> Scripted {
    Scripted::start(|mut stream| async move {
        let mut head = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(count) => head.extend_from_slice(&piece[..count]),
            }
            if head.ends_with(b"\r\n\r\n") {
                let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.len());
                let _ = stream.write_all(response.as_bytes()).await;
                let _ = stream.write_all(&head).await;
                head.clear();
            }
        }
    })
    .await
}

struct World {
    collector: Collector,
    server: Server,
    client: Client,
}

impl World {
    /// A tunnel, or an entry and its upstream. `sample_ratio` is the share of the traces beginning here that is
    /// recorded.
    async fn start(server: &str, client: &str, sample_ratio: f64) -> Self {
        let collector = Collector::start().await;
        let section = collector.section(sample_ratio);
        let server = Server::with(&format!("server:\n{section}{server}")).await;
        let config = format!("client:\n{section}{client}");
        let client = Client::start(ClientOptions::file(&server, "client-1", &config)).await;
        Self {
            collector,
            server,
            client,
        }
    }

    async fn tunnel(kind: &str, service: SocketAddr, sample_ratio: f64) -> Self {
        let tunnel = format!(
            "  tunnels:\n    - {{ name: it, type: {kind}, local_port: {} }}\n",
            service.port()
        );
        Self::start("", &tunnel, sample_ratio).await
    }

    /// The visitor's trace, once both sides have exported their hops.
    async fn trace(&self, id: &str) -> Trace {
        let both = |trace: &Trace| {
            let from = |service: &str| trace.0.iter().any(|one| one.service == service);
            from("adit-server") && from("adit-client")
        };
        self.collector.trace(id, both).await
    }

    /// The port of the tunnel, or of the entry.
    async fn port(&self) -> SocketAddr {
        let status = self.server.status().await;
        let port = status["tunnels"][0]["port"].as_u64().unwrap();
        SocketAddr::new(self.server.http.ip(), u16::try_from(port).unwrap())
    }
}

/// Checks the spans of the first hop, from the visitor, and of the second one, and their parents.
fn assert_tree(trace: &Trace, hops: [&str; 2], name: &str, above: &str, more: &[&str]) {
    let [first, second] = hops;
    let paths = trace.paths(above);
    let root = if above.is_empty() {
        format!("{first}:{name}")
    } else {
        format!("visitor > {first}:{name}")
    };
    let hop = format!("{root} > {first}:transit > {second}:{name}");
    let mut wanted = vec![
        root.clone(),
        format!("{root} > {first}:accept"),
        format!("{root} > {first}:route"),
        format!("{root} > {first}:transit"),
        format!("{root} > {first}:end"),
        hop.clone(),
        format!("{hop} > {second}:end"),
    ];
    wanted.extend(more.iter().map(|phase| format!("{hop} > {second}:{phase}")));
    for path in &wanted {
        assert!(paths.contains(path), "no {path:?} in {paths:#?}");
    }
    // No span has another root.
    for path in &paths {
        assert!(path.starts_with(&root), "{path:?} beside {root:?}");
    }
}

const TO_CLIENT: [&str; 2] = ["adit-server", "adit-client"];
const TO_SERVER: [&str; 2] = ["adit-client", "adit-server"];

#[tokio::test]
async fn a_request_over_http_is_one_trace() {
    let service = mirror().await;
    let world = World::tunnel("http", service.addr, 0.0).await;
    let mut visitor = Visitor::http1(world.server.http, "it.localhost").await;
    let mut request = visitor.request(&Method::GET, "/some/path?secret=1", adit_e2e::empty());
    let headers = request.headers_mut();
    headers.insert("traceparent", traceparent());
    headers.insert("tracestate", HeaderValue::from_static("vendor=1"));
    headers.insert("baggage", HeaderValue::from_static("colour=blue"));
    let response = visitor.send(request).await.unwrap();
    let seen = response.into_body().collect().await.unwrap().to_bytes();
    let seen = String::from_utf8(seen.to_vec()).unwrap().to_lowercase();
    assert!(seen.contains("tracestate: vendor=1"), "{seen}");
    assert!(seen.contains("baggage: colour=blue"), "{seen}");

    let trace = world.trace(TRACE).await;
    assert_tree(&trace, TO_CLIENT, "GET", SPAN, &["dial", "first byte"]);
    let first = trace.named("adit-server", "GET")[0];
    assert_eq!(first.attribute("http.request.method"), "GET");
    assert_eq!(first.attribute("http.response.status_code"), "200");
    assert_eq!(first.attribute("url.path"), "/some/path");
    assert_eq!(first.attribute("server.address"), "it.localhost");
    assert_eq!(first.attribute("adit.tunnel"), "it");
    assert_eq!(first.attribute("adit.opener"), "server");
    let second = trace.named("adit-client", "GET")[0];
    assert_eq!(second.attribute("adit.opener"), "server");
    let uuid = |one: &adit_e2e::Collected| one.attribute("adit.request.uuid");
    assert_eq!(uuid(first), uuid(second));
    // The span of the service is a child of the client's span.
    let span: String = second
        .span
        .span_id
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let header = format!("traceparent: 00-{TRACE}-{span}-01");
    assert_eq!(seen.matches("traceparent").count(), 1, "{seen}");
    assert!(seen.contains(&header), "{header} in {seen}");
}

/// The standard variables of OpenTelemetry turn tracing on in both programs, without a key of their own.
#[tokio::test]
async fn standard_variables_turn_tracing_on() {
    let collector = Collector::start().await;
    let endpoint = format!("http://{}", collector.addr);
    let variables = |name: &str| {
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_SERVICE_NAME", name),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let server = Server::start(ServerOptions {
        env: variables("edge").into(),
        ..ServerOptions::default()
    })
    .await;
    let service = mirror().await;
    let mut options = ClientOptions::http(&server, "client-1", "it", service.addr);
    options.env.extend(variables("office"));
    let _client = Client::start(options).await;

    let mut visitor = Visitor::http1(server.http, "it.localhost").await;
    let mut request = visitor.request(&Method::GET, "/", adit_e2e::empty());
    request.headers_mut().insert("traceparent", traceparent());
    assert_eq!(visitor.send(request).await.unwrap().status(), 200);
    let both = |trace: &Trace| {
        let from = |service: &str| trace.0.iter().any(|one| one.service == service);
        from("edge") && from("office")
    };
    let trace = collector.trace(TRACE, both).await;
    assert_eq!(trace.named("edge", "GET").len(), 1);
    assert_eq!(trace.named("office", "GET").len(), 1);
}

#[tokio::test]
async fn a_failed_request_is_marked() {
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let world = World::tunnel("http", closed, 0.0).await;
    let mut visitor = Visitor::http1(world.server.http, "it.localhost").await;
    let mut request = visitor.request(&Method::GET, "/", adit_e2e::empty());
    request.headers_mut().insert("traceparent", traceparent());
    assert_eq!(visitor.send(request).await.unwrap().status(), 502);
    let trace = world.trace(TRACE).await;
    for service in TO_CLIENT {
        let one = trace.named(service, "GET")[0];
        assert_eq!(one.attribute("adit.reason"), "dial_failed", "{service}");
        assert_eq!(one.span.status.clone().unwrap().code, 2, "{service}: error");
    }
}

#[tokio::test]
async fn a_call_of_grpc_is_one_trace() {
    let service = PythonService::start("grpc_service.py").await;
    let world = World::tunnel("grpc", service.addr, 0.0).await;
    let mut visitor = Visitor::http2(world.server.http, "it.localhost").await;
    let path = "/adit.e2e.v1.Echo/Unary";
    let mut request = visitor.request(&Method::POST, path, full(vec![0; 5]));
    let headers = request.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    headers.insert("traceparent", traceparent());
    let response = visitor.send(request).await.unwrap();
    let response = response.into_body().collect().await.unwrap();
    let status = response
        .trailers()
        .and_then(|trailers| trailers.get("grpc-status"));
    assert_eq!(status.unwrap(), "0");
    let trace = world.trace(TRACE).await;
    let name = "adit.e2e.v1.Echo/Unary";
    assert_tree(&trace, TO_CLIENT, name, SPAN, &["dial", "first byte"]);
    let first = trace.named("adit-server", name)[0];
    assert_eq!(first.attribute("rpc.system"), "grpc");
    assert_eq!(first.attribute("rpc.service"), "adit.e2e.v1.Echo");
    assert_eq!(first.attribute("rpc.method"), "Unary");
    assert_eq!(first.attribute("rpc.grpc.status_code"), "0");
}

#[tokio::test]
async fn a_websocket_is_one_trace() {
    let service = PythonService::start("ws_service.py").await;
    let world = World::tunnel("websocket", service.addr, 0.0).await;
    let stream = TcpStream::connect(world.server.http).await.unwrap();
    let mut request = "ws://it.localhost/".into_client_request().unwrap();
    request.headers_mut().insert("traceparent", traceparent());
    let (mut socket, _) = client_async(request, stream).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        Message::text("hello")
    );
    socket.close(None).await.unwrap();
    while socket.next().await.is_some() {}
    let trace = world.trace(TRACE).await;
    assert_tree(
        &trace,
        TO_CLIENT,
        "websocket",
        SPAN,
        &["dial", "first byte"],
    );
}

#[tokio::test]
async fn a_tcp_connection_is_one_trace() {
    let service = Scripted::start(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await;
    // TCP carries no trace context, so a trace begins here.
    let world = World::tunnel("tcp", service.addr, 1.0).await;
    let mut visitor = Raw::connect(world.port().await).await;
    visitor.send("hello").await;
    visitor.stream.shutdown().await.unwrap();
    assert_eq!(visitor.read_to_end().await.text(), "hello");
    let id = begun_here(&world.collector).await;
    let trace = world.trace(&id).await;
    assert_tree(&trace, TO_CLIENT, "tcp", "", &["dial"]);
    let first = trace.named("adit-server", "tcp")[0];
    assert_eq!(first.attribute("adit.bytes.received"), "5");
    assert_eq!(first.attribute("adit.bytes.sent"), "5");
}

#[tokio::test]
async fn a_request_to_a_clients_entry_is_one_trace() {
    let service = mirror().await;
    let upstream = format!(
        "  upstreams: [{{ name: erp, servers: [{{ address: \"{}\" }}] }}]\n",
        service.addr
    );
    let entries =
        "  entries: [{ name: erp, type: http, listen: \"127.0.0.1:0\", upstream: erp }]\n";
    let world = World::start(&upstream, entries, 0.0).await;
    let status = world.client.status().await;
    let listen = status["entries"][0]["listen"].as_str().unwrap();
    let mut visitor = Visitor::http1(listen.parse().unwrap(), "erp.internal").await;
    let mut request = visitor.request(&Method::GET, "/", adit_e2e::empty());
    request.headers_mut().insert("traceparent", traceparent());
    assert_eq!(visitor.send(request).await.unwrap().status(), 200);
    let trace = world.trace(TRACE).await;
    assert_tree(&trace, TO_SERVER, "GET", SPAN, &["dial", "first byte"]);
    for service in TO_SERVER {
        let one = trace.named(service, "GET")[0];
        assert_eq!(one.attribute("adit.opener"), "client", "{service}");
    }
}

/// A context that is not sampled is not exported, and is forwarded unchanged.
#[tokio::test]
async fn an_unsampled_request_leaves_no_spans_and_keeps_its_context() {
    let service = mirror().await;
    let world = World::tunnel("http", service.addr, 1.0).await;
    let mut visitor = Visitor::http1(world.server.http, "it.localhost").await;
    let unsampled = format!("00-{TRACE}-{SPAN}-00");
    let mut request = visitor.request(&Method::GET, "/", adit_e2e::empty());
    let value = HeaderValue::try_from(&unsampled).unwrap();
    request.headers_mut().insert("traceparent", value);
    let response = visitor.send(request).await.unwrap();
    let seen = response.into_body().collect().await.unwrap().to_bytes();
    let seen = String::from_utf8(seen.to_vec()).unwrap();
    assert!(seen.contains(&unsampled), "{seen}");
    // A request without a context is traced here: when its trace has arrived, the other one would have arrived too.
    assert_eq!(visitor.get("/").await.status, 200);
    let id = begun_here(&world.collector).await;
    let trace = world.trace(&id).await;
    // The traced request was sent on the same connection after the other request.
    assert_tree(&trace, TO_CLIENT, "GET", "", &["first byte"]);
    assert_eq!(world.collector.so_far(TRACE).0.len(), 0);
}

/// The id of the one trace that began at the tunnel.
async fn begun_here(collector: &Collector) -> String {
    eventually("a trace", SOON, async || collector.ids().first().cloned()).await
}

/// A dead collector delays no request, and the lost spans are counted.
#[tokio::test]
async fn a_dead_collector_costs_only_the_spans() {
    let service = mirror().await;
    let dead = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let section = format!(
        "  telemetry: {{ tracing: {{ endpoint: \"http://{dead}\", sample_ratio: 1.0, interval: 20ms }} }}\n"
    );
    let server = Server::with(&format!("server:\n{section}")).await;
    let tunnel = format!(
        "client:\n{section}  tunnels:\n    - {{ name: it, type: http, local_port: {} }}\n",
        service.addr.port()
    );
    let mut client = Client::start(ClientOptions::file(&server, "client-1", &tunnel)).await;
    let mut visitor = Visitor::http1(server.http, "it.localhost").await;
    for _ in 0..200 {
        assert_eq!(visitor.get("/").await.status, 200);
    }
    eventually("spans that were lost", SOON, async || {
        let status: Value = server.status().await;
        let failed = status["telemetry"]["traces"]["failed"].as_u64()?;
        let dropped = status["telemetry"]["traces"]["dropped"].as_u64()?;
        (failed + dropped > 0).then_some(())
    })
    .await;
    // The processes also end in time.
    client.terminate();
    assert!(client.exit(SOON).await.success());
    let mut server = server;
    server.terminate();
    assert!(server.exit(SOON).await.success());
}

/// A client that traces nothing forwards the server's context: the span of the service is a child of the server's span.
#[tokio::test]
async fn a_hop_without_tracing_hands_the_context_on() {
    let service = mirror().await;
    let collector = Collector::start().await;
    let server = Server::with(&format!("server:\n{}", collector.section(1.0))).await;
    let _client = Client::http(&server, "client-1", "it", service.addr).await;
    let mut visitor = Visitor::http1(server.http, "it.localhost").await;
    let seen = visitor.get("/").await.text().to_lowercase();
    let id = begun_here(&collector).await;
    let transit = |trace: &Trace| !trace.named("adit-server", "transit").is_empty();
    let trace = collector.trace(&id, transit).await;
    let transit = trace.named("adit-server", "transit")[0];
    let span: String = transit
        .span
        .span_id
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let header = format!("traceparent: 00-{id}-{span}-01");
    assert!(seen.contains(&header), "{header} in {seen}");
}

/// Whether a request is traced is decided once, on the visitors' side.
#[tokio::test]
async fn the_other_hop_begins_no_trace_of_its_own() {
    let service = mirror().await;
    let collector = Collector::start().await;
    let server = Server::with(&format!("server:\n{}", collector.section(0.0))).await;
    let tunnel = format!(
        "client:\n{}  tunnels:\n    - {{ name: it, type: http, local_port: {} }}\n",
        collector.section(1.0),
        service.addr.port()
    );
    let mut client = Client::start(ClientOptions::file(&server, "client-1", &tunnel)).await;
    let mut visitor = Visitor::http1(server.http, "it.localhost").await;
    for _ in 0..20 {
        assert_eq!(visitor.get("/").await.status, 200);
    }
    // At its end the client would send any spans that it has.
    client.terminate();
    assert!(client.exit(SOON).await.success());
    assert_eq!(collector.ids(), Vec::<String>::new());
}
