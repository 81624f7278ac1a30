//! A collector over gRPC or HTTP, with or without TLS, that keeps each export with its headers.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, http::HeaderMap, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};

/// A test that waits this long for an export has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// An export as the collector received it.
pub(super) struct Export {
    pub(super) headers: HeaderMap,
    /// The path of an HTTP request; empty over gRPC.
    pub(super) path: String,
    pub(super) request: ExportTraceServiceRequest,
}

/// Status and body of responses over HTTP.
type Respond = Box<dyn FnMut() -> (u16, ExportTraceServiceResponse) + Send>;

/// A collector that runs until it is dropped.
pub(super) struct Sink {
    pub(super) endpoint: String,
    exports: mpsc::Receiver<Export>,
    _end: oneshot::Sender<()>,
}

#[derive(Clone)]
struct Handler {
    exports: mpsc::Sender<Export>,
    respond: Arc<Mutex<Respond>>,
}

impl Sink {
    /// Starts a collector that accepts everything, over gRPC and HTTP.
    pub(super) fn start(tls: Option<ServerConfig>) -> Self {
        Self::responding(tls, || (200, ExportTraceServiceResponse::default()))
    }

    pub(super) fn responding(
        tls: Option<ServerConfig>,
        respond: impl FnMut() -> (u16, ExportTraceServiceResponse) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let port = listener.local_addr().unwrap().port();
        let (sender, exports) = mpsc::channel();
        let (end, ends) = oneshot::channel::<()>();
        let handler = Handler {
            exports: sender,
            respond: Arc::new(Mutex::new(Box::new(respond))),
        };
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(listener, tls, handler) => {}
                    _ = ends => {}
                }
            });
        });
        Self {
            endpoint: format!("{scheme}://localhost:{port}"),
            exports,
            _end: end,
        }
    }

    /// The next export.
    pub(super) fn export(&self) -> Export {
        self.exports.recv_timeout(PATIENCE).unwrap()
    }

    /// Number of exports that have not been read.
    pub(super) fn unread(&self) -> usize {
        self.exports.try_iter().count()
    }
}

async fn accept(listener: tokio::net::TcpListener, tls: Option<TlsAcceptor>, handler: Handler) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (tls, handler) = (tls.clone(), handler.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(socket, handler).await,
                // A client that does not trust the certificate closes the connection.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(socket).await {
                        serve(stream, handler).await;
                    }
                }
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, handler: Handler) {
    let grpc = TowerToHyperService::new(TraceServiceServer::new(handler.clone()));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (handler, grpc) = (handler.clone(), grpc.clone());
        async move {
            if request.version() == hyper::Version::HTTP_2 {
                let response = hyper::service::Service::call(&grpc, request).await;
                return Ok::<_, std::convert::Infallible>(response.unwrap());
            }
            Ok(handler.http(request).await)
        }
    });
    // The client may leave while its connection is idle.
    let _ended = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Handler {
    async fn http(&self, request: hyper::Request<Incoming>) -> hyper::Response<tonic::body::Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let export = Export {
            headers: parts.headers,
            path: parts.uri.path().to_owned(),
            request: ExportTraceServiceRequest::decode(body).unwrap(),
        };
        let (status, response) = self.respond.lock().unwrap()();
        // The test may have ended.
        let _ = self.exports.send(export);
        let body = Full::new(Bytes::from(response.encode_to_vec()));
        let body = body.map_err(|never| match never {});
        hyper::Response::builder()
            .status(status)
            .header("content-type", "application/x-protobuf")
            .body(tonic::body::Body::new(body))
            .unwrap()
    }
}

#[tonic::async_trait]
impl TraceService for Handler {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (_, response) = self.respond.lock().unwrap()();
        let export = Export {
            headers: metadata.into_headers(),
            path: String::new(),
            request,
        };
        // The test may have ended.
        let _ = self.exports.send(export);
        Ok(Response::new(response))
    }
}

/// A certificate authority, and certificates that it has signed.
pub(super) struct Certificates {
    authority: CertifiedIssuer<'static, KeyPair>,
    /// The authority's certificate.
    pub(super) ca_file: PathBuf,
    /// A client's certificate and key.
    pub(super) client: (PathBuf, PathBuf),
    _dir: tempfile::TempDir,
}

impl Certificates {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, pem: String| {
            let path = dir.path().join(name);
            fs::write(&path, pem).unwrap();
            path
        };
        let ca_file = write("ca.pem", authority.pem());
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let client = (
            write("client.pem", certificate.pem()),
            write("client.key", key.serialize_pem()),
        );
        Self {
            authority,
            ca_file,
            client,
            _dir: dir,
        }
    }

    /// TLS of a collector named `localhost`.
    pub(super) fn server(&self, requires_client: bool) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if requires_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = builder
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}
