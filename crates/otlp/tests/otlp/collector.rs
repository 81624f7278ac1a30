//! A collector over gRPC that responds as the test requires, and passes the exports to it.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::{Mutex, mpsc},
    thread,
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, Status},
};
use socket2::{Domain, Socket, Type};
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status as GrpcStatus};

pub(super) type Reply = Result<ExportTraceServiceResponse, GrpcStatus>;

/// A test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A collector that runs until it is dropped.
pub(super) struct Collector {
    pub(super) endpoint: String,
    exports: mpsc::Receiver<ExportTraceServiceRequest>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Service<F> {
    exports: mpsc::Sender<ExportTraceServiceRequest>,
    respond: Mutex<F>,
}

#[tonic::async_trait]
impl<F: FnMut() -> Reply + Send + 'static> TraceService for Service<F> {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, GrpcStatus> {
        let respond = self.respond.lock().unwrap()();
        // The test may have ended.
        let _gone = self.exports.send(request.into_inner());
        respond.map(Response::new)
    }
}

impl Collector {
    /// Starts a collector that accepts everything.
    pub(super) fn start() -> Self {
        Self::responding(|| Ok(ExportTraceServiceResponse::default()))
    }

    /// Starts a collector that responds with the results of `respond`.
    pub(super) fn responding(respond: impl FnMut() -> Reply + Send + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), respond)
    }

    pub(super) fn on(
        listener: TcpListener,
        respond: impl FnMut() -> Reply + Send + 'static,
    ) -> Self {
        let endpoint = endpoint(listener.local_addr().unwrap());
        let (sender, exports) = mpsc::channel();
        let (end, ends) = oneshot::channel::<()>();
        let service = Service {
            exports: sender,
            respond: Mutex::new(respond),
        };
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let serving = tonic::transport::Server::builder()
                    .add_service(TraceServiceServer::new(service))
                    .serve_with_incoming(TcpListenerStream::new(listener));
                tokio::select! {
                    served = serving => served.unwrap(),
                    _ = ends => {}
                }
            });
        });
        Self {
            endpoint,
            exports,
            end: Some(end),
            thread: Some(thread),
        }
    }

    /// The next export.
    pub(super) fn export(&self) -> ExportTraceServiceRequest {
        self.exports.recv_timeout(PATIENCE).unwrap()
    }

    /// All exports that have arrived so far.
    pub(super) fn exports(&self) -> Vec<ExportTraceServiceRequest> {
        self.exports.try_iter().collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.end.take());
        let ended = self.thread.take().unwrap().join();
        if !thread::panicking() {
            ended.unwrap();
        }
    }
}

pub(super) fn endpoint(addr: SocketAddr) -> String {
    format!("http://{addr}")
}

/// A reserved port that refuses connections until it is listened on.
pub(super) fn refusing() -> (Socket, String) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, endpoint(addr))
}

/// The span has no status, as the conventions require for requests that did not fail.
pub(super) fn assert_unset(span: &Span) {
    let status = span.status.clone().unwrap_or_default();
    assert_eq!(status, Status::default(), "{}", span.name);
}

/// The spans of an export.
pub(super) fn spans(export: &ExportTraceServiceRequest) -> Vec<Span> {
    let resources = export.resource_spans.iter();
    let scopes = resources.flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| scope.spans.clone()).collect()
}

/// Attributes as text, each once.
pub(super) fn texts(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let mut texts = BTreeMap::new();
    for pair in attributes {
        let text = match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
            Value::StringValue(text) => text.clone(),
            Value::IntValue(number) => number.to_string(),
            Value::DoubleValue(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        let twice = texts.insert(pair.key.as_str(), text);
        assert_eq!(twice, None, "{}", pair.key);
    }
    texts
}
