//! A collector of traces for both binaries: OTLP over gRPC.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::eventually;

/// One received span.
#[derive(Debug, Clone)]
pub struct Collected {
    /// The name of the service that sent the span.
    pub service: String,
    /// The span.
    pub span: Span,
}

impl Collected {
    /// An attribute of the span, as text; empty if it is missing.
    pub fn attribute(&self, key: &str) -> String {
        text_of(&self.span.attributes, key)
    }
}

fn text_of(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    let value = found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref());
    match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        other => other.map_or_else(String::new, |other| format!("{other:?}")),
    }
}

#[derive(Debug, Clone, Default)]
struct Taken(Arc<Mutex<Vec<Collected>>>);

#[tonic::async_trait]
impl TraceService for Taken {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut taken = self.0.lock().expect("an intact lock");
        for spans in request.into_inner().resource_spans {
            let resource = spans.resource.unwrap_or_default();
            let service = text_of(&resource.attributes, "service.name");
            for span in spans.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let service = service.clone();
                taken.push(Collected { service, span });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Receives traces until it is dropped.
#[derive(Debug)]
pub struct Collector {
    /// The address of the collector.
    pub addr: SocketAddr,
    taken: Taken,
    serving: tokio::task::JoinHandle<()>,
}

impl Collector {
    /// Starts a collector on a free port of loopback.
    ///
    /// # Panics
    /// Panics when no port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let taken = Taken::default();
        let service = TraceServiceServer::new(taken.clone());
        let serving = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(service);
            server
                .serve_with_incoming(incoming)
                .await
                .expect("it serves");
        });
        Self {
            addr,
            taken,
            serving,
        }
    }

    /// The section of a configuration file, for `server:` or `client:`, that exports all spans to this collector.
    pub fn section(&self, sample_ratio: f64) -> String {
        format!(
            "  telemetry: {{ tracing: {{ endpoint: \"http://{}\", sample_ratio: {sample_ratio}, interval: 20ms }} }}\n",
            self.addr
        )
    }

    /// The received spans of a trace, as soon as `is_whole` accepts them.
    ///
    /// # Panics
    /// Panics when the trace does not become complete in time.
    pub async fn trace(&self, id: &str, is_whole: impl Fn(&Trace) -> bool) -> Trace {
        eventually("a whole trace", Duration::from_secs(20), async || {
            let trace = self.so_far(id);
            is_whole(&trace).then_some(trace)
        })
        .await
    }

    /// The spans of a trace received so far.
    ///
    /// # Panics
    /// Never panics.
    pub fn so_far(&self, id: &str) -> Trace {
        let taken = self.taken.0.lock().expect("an intact lock");
        let of_it = |collected: &&Collected| hex(&collected.span.trace_id) == id;
        Trace(taken.iter().filter(of_it).cloned().collect())
    }

    /// The ids of the traces received so far, each once, in order of arrival.
    ///
    /// # Panics
    /// Never panics.
    pub fn ids(&self) -> Vec<String> {
        let taken = self.taken.0.lock().expect("an intact lock");
        let mut ids: Vec<String> = Vec::new();
        for one in taken.iter() {
            let id = hex(&one.span.trace_id);
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The spans of one trace, in order of arrival.
#[derive(Debug, Clone)]
pub struct Trace(pub Vec<Collected>);

impl Trace {
    /// The spans of this name that one of the services sent.
    pub fn named(&self, service: &str, name: &str) -> Vec<&Collected> {
        let named = |one: &&Collected| one.service == service && one.span.name == name;
        self.0.iter().filter(named).collect()
    }

    /// Each span as the path of names from its root, `service:name` each. The paths of spans below `above`, the id of a
    /// span that was not exported to this collector, begin with `visitor`.
    ///
    /// # Panics
    /// Panics when the parent of a span is missing, or two spans have the same id.
    pub fn paths(&self, above: &str) -> Vec<String> {
        let mut by_id = BTreeMap::new();
        for one in &self.0 {
            let before = by_id.insert(hex(&one.span.span_id), one);
            assert!(before.is_none(), "two spans of one id: {one:?}");
        }
        let mut paths: Vec<String> = self
            .0
            .iter()
            .map(|one| {
                let mut path = vec![format!("{}:{}", one.service, one.span.name)];
                let mut parent = hex(&one.span.parent_span_id);
                while !parent.is_empty() && parent != above {
                    let next = by_id.get(&parent);
                    let next = next.unwrap_or_else(|| panic!("{path:?} hangs below nothing"));
                    path.push(format!("{}:{}", next.service, next.span.name));
                    assert!(path.len() < 100, "a circle: {path:?}");
                    parent = hex(&next.span.parent_span_id);
                }
                if parent == above && !above.is_empty() {
                    path.push("visitor".to_owned());
                }
                path.reverse();
                path.join(" > ")
            })
            .collect();
        paths.sort();
        paths.dedup();
        paths
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
