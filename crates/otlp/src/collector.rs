//! The connection to a collector: OTLP over gRPC or HTTP, with or without TLS, by the exporter of `opentelemetry-otlp`.

use std::sync::Arc;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::{Bytes, HttpClient, HttpError, hyper::HyperClient};
use opentelemetry_otlp::{
    Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::{Resource, trace::SpanExporter as _};
use parking_lot::Mutex;
use tonic::{
    metadata::MetadataMap,
    transport::{Endpoint, Uri},
};
use tower::{Service, ServiceExt, service_fn};

use super::settings::{Target, TracesProtocol, TracesSettings};

/// A client of one collector. Connects when the first batch is sent, and again when a connection is lost.
pub(super) struct Collector {
    exporter: SpanExporter,
    network: LastError,
}

/// The last error of the HTTP client, which the exporter does not report.
type LastError = Arc<Mutex<Option<String>>>;

impl Collector {
    /// Makes the client of a collector. Must be called within a runtime.
    ///
    /// # Errors
    /// A variable of the environment that the exporter cannot use.
    pub(super) fn new(
        target: &Target,
        settings: &TracesSettings,
        resource: &Resource,
    ) -> Result<Self, String> {
        let network = LastError::default();
        let built = match settings.protocol {
            TracesProtocol::Grpc => grpc(target, settings),
            TracesProtocol::HttpProtobuf => http(target, settings, Arc::clone(&network)),
        };
        let mut exporter = built.map_err(|error| error.to_string())?;
        exporter.set_resource(resource);
        Ok(Self { exporter, network })
    }

    pub(super) const fn exporter(&self) -> &SpanExporter {
        &self.exporter
    }

    /// The cause of a failed request over HTTP.
    pub(super) fn take_network_error(&self) -> Option<String> {
        self.network.lock().take()
    }
}

type Built = Result<SpanExporter, opentelemetry_otlp::ExporterBuildError>;

/// The retries of the exporter are turned off: the thread retries, counts the tries and stops at the end of the process.
fn grpc(target: &Target, settings: &TracesSettings) -> Built {
    let endpoint = Endpoint::from(target.uri.clone()).connect_timeout(settings.timeout);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(target.tls.clone())
        .https_or_http()
        .enable_http2()
        .wrap_connector(tcp(settings));
    // The connection is encrypted here; the transport must not add its own TLS.
    let channel = if target.uri.scheme_str() == Some("https") {
        let to = target.uri.clone();
        let connector = service_fn(move |_| connect(connector.clone(), to.clone()));
        Endpoint::from(without_tls(&target.uri))
            .connect_timeout(settings.timeout)
            .origin(target.uri.clone())
            .connect_with_connector_lazy(connector)
    } else {
        endpoint.connect_with_connector_lazy(connector)
    };
    let headers = MetadataMap::from_headers(target.headers.to_map());
    SpanExporter::builder()
        .with_tonic()
        .with_channel(channel)
        .with_timeout(settings.timeout)
        .with_retry_policy(RetryPolicy::disabled())
        .with_interceptor(move |mut request: tonic::Request<()>| {
            // The headers of the settings are added after those of the environment, which they replace.
            let mut all = std::mem::take(request.metadata_mut()).into_headers();
            all.extend(headers.clone().into_headers());
            *request.metadata_mut() = MetadataMap::from_headers(all);
            Ok(request)
        })
        .build()
}

async fn connect(
    connector: HttpsConnector<HttpConnector>,
    to: Uri,
) -> Result<<HttpsConnector<HttpConnector> as Service<Uri>>::Response, HttpError> {
    connector.oneshot(to).await
}

/// The address `uri` with the scheme `http`.
fn without_tls(uri: &Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

fn http(target: &Target, settings: &TracesSettings, network: LastError) -> Built {
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(target.tls.clone())
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp(settings));
    let client = Client {
        http: HyperClient::new(connector, settings.timeout, None),
        headers: target.headers.to_map(),
        network,
    };
    SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(target.uri.to_string())
        .with_timeout(settings.timeout)
        .with_retry_policy(RetryPolicy::disabled())
        .build()
}

fn tcp(settings: &TracesSettings) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(settings.timeout));
    tcp
}

/// Adds the headers of the settings and keeps the last error.
#[derive(Debug)]
struct Client {
    http: HyperClient<HttpsConnector<HttpConnector>>,
    headers: http::HeaderMap,
    network: LastError,
}

#[tonic::async_trait]
impl HttpClient for Client {
    async fn send_bytes(
        &self,
        mut request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        // The headers of the settings are added after those of the environment, which they replace.
        request.headers_mut().extend(self.headers.clone());
        self.http.send_bytes(request).await.inspect_err(|error| {
            *self.network.lock() = Some(with_causes(&**error));
        })
    }
}

/// An error and its causes in one line: `client error (Connect)` alone does not show the cause.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
