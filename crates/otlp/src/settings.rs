//! Settings of the export of spans.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use adit_trace::{RatioError, Sampler};
use http::{HeaderMap, HeaderName, HeaderValue, uri::PathAndQuery};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use rustls_platform_verifier::BuilderVerifierExt;
use tonic::transport::Uri;

/// The collector, the sampling and the bounds of the export.
#[derive(Debug, Clone, PartialEq)]
pub struct TracesSettings {
    /// The collector: `http://HOST:PORT`, or `https://HOST` for TLS. Over HTTP a path may follow; without one it is
    /// `/v1/traces`.
    pub endpoint: String,
    /// The protocol of the export.
    pub protocol: TracesProtocol,
    /// Headers of every request to the collector.
    pub headers: TracesHeaders,
    /// Certificates of an `https` endpoint.
    pub tls: TracesTls,
    /// The share of the traces beginning here that is recorded, from 0.0 to 1.0.
    pub sample_ratio: f64,
    /// Whether the trace context of a request, if it has one, decides whether the request is traced. Otherwise
    /// `sample_ratio` applies to these requests as well.
    pub follow_parent: bool,
    /// Name of this process in traces: `service.name`.
    pub service_name: String,
    /// Time for one export, connecting included.
    pub timeout: Duration,
    /// Requests whose spans may wait to be sent; the spans of further requests are dropped.
    pub max_queue: usize,
    /// The most requests whose spans are sent in one export.
    pub max_batch: usize,
    /// How long the first request of a batch waits for others. After a failure this is also the first pause, which
    /// doubles up to sixteen times of it.
    pub interval: Duration,
}

/// How spans are sent to the collector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TracesProtocol {
    /// OTLP over gRPC, usually on port 4317.
    #[default]
    Grpc,
    /// OTLP over HTTP with messages in protobuf, usually on port 4318.
    HttpProtobuf,
}

/// A text that names no protocol of OTLP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown protocol {0:?}; write `grpc` or `http/protobuf`")]
pub struct ParseTracesProtocolError(String);

impl FromStr for TracesProtocol {
    type Err = ParseTracesProtocolError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "grpc" => Ok(Self::Grpc),
            "http/protobuf" => Ok(Self::HttpProtobuf),
            _ => Err(ParseTracesProtocolError(text.to_owned())),
        }
    }
}

/// Headers of the requests to a collector. They may hold a token, so `Debug` shows their names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TracesHeaders(Vec<(HeaderName, HeaderValue)>);

impl TracesHeaders {
    /// Adds a header.
    ///
    /// # Errors
    /// A name or a value that HTTP does not allow.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), TracesSettingsError> {
        let refuse = |problem| TracesSettingsError::Header {
            name: name.to_owned(),
            problem,
        };
        let parsed = name
            .parse::<HeaderName>()
            .map_err(|_| refuse("invalid header name"))?;
        let mut value: HeaderValue = value
            .parse()
            .map_err(|_| refuse("the value has characters that a header cannot have"))?;
        value.set_sensitive(true);
        self.0.push((parsed, value));
        Ok(())
    }

    pub(super) fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in &self.0 {
            map.append(name.clone(), value.clone());
        }
        map
    }
}

impl fmt::Debug for TracesHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

/// Certificates of the connection to an `https` endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TracesTls {
    /// A file of certificates in PEM that sign the collector's; by default those of the platform's trust store.
    pub ca_file: Option<PathBuf>,
    /// Files of a certificate and its key in PEM, for a collector that authenticates its clients.
    pub client_identity: Option<(PathBuf, PathBuf)>,
}

/// The checked address of the collector.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) uri: Uri,
    /// The TLS configuration, used for `https`.
    pub(super) tls: ClientConfig,
    pub(super) headers: TracesHeaders,
}

impl TracesSettings {
    /// All traces to this collector, with the defaults of `docs/tracing.md`.
    pub fn new(endpoint: impl Into<String>, service_name: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            protocol: TracesProtocol::default(),
            headers: TracesHeaders::default(),
            tls: TracesTls::default(),
            sample_ratio: 1.0,
            follow_parent: true,
            service_name: service_name.into(),
            timeout: Duration::from_secs(5),
            max_queue: 2_048,
            max_batch: 256,
            interval: Duration::from_secs(1),
        }
    }

    /// Checks the settings as [`Traces::start`](crate::Traces::start) does. Reads the files of [`TracesSettings::tls`].
    ///
    /// # Errors
    /// The first setting that is invalid, and the valid values.
    pub fn check(&self) -> Result<(), TracesSettingsError> {
        self.parse().map(drop)
    }

    /// The collector, and the sampler.
    pub(super) fn parse(&self) -> Result<(Target, Sampler), TracesSettingsError> {
        let uri = self.uri()?;
        let sampler = Sampler::ratio(self.sample_ratio)?;
        if self.service_name.trim().is_empty() {
            return Err(TracesSettingsError::ServiceName);
        }
        if !TIMEOUTS.contains(&self.timeout) {
            return Err(TracesSettingsError::Timeout(self.timeout));
        }
        if !INTERVALS.contains(&self.interval) {
            return Err(TracesSettingsError::Interval(self.interval));
        }
        if !(1..=MAX_QUEUE).contains(&self.max_queue) {
            return Err(TracesSettingsError::MaxQueue(self.max_queue));
        }
        if !(1..=self.max_queue).contains(&self.max_batch) {
            return Err(TracesSettingsError::MaxBatch {
                max_batch: self.max_batch,
                max_queue: self.max_queue,
            });
        }
        let target = Target {
            tls: self.tls.config(uri.scheme_str() == Some("https"))?,
            uri,
            headers: self.headers.clone(),
        };
        let sampler = if self.follow_parent {
            sampler
        } else {
            sampler.without_parent()
        };
        Ok((target, sampler))
    }

    fn uri(&self) -> Result<Uri, TracesSettingsError> {
        let refuse = |reason| TracesSettingsError::Endpoint {
            endpoint: self.endpoint.clone(),
            reason,
        };
        let uri: Uri = self.endpoint.parse().map_err(|_| refuse("invalid URL"))?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refuse("it does not begin with http:// or https://")),
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err(refuse(
                "it contains a user name; set the header `authorization` instead",
            ));
        }
        let host = uri.host().unwrap_or_default();
        if host.is_empty() {
            return Err(refuse("the host is missing"));
        }
        match uri.port_u16() {
            Some(0) => return Err(refuse("invalid port 0")),
            None if authority != host => return Err(refuse("invalid port")),
            None if !is_https => return Err(refuse("the port is missing")),
            _ => {}
        }
        match self.protocol {
            TracesProtocol::Grpc if uri.path() != "/" || uri.query().is_some() => Err(refuse(
                "it has a path, which only the protocol http/protobuf supports",
            )),
            TracesProtocol::HttpProtobuf if uri.path() == "/" && uri.query().is_none() => {
                let mut parts = uri.into_parts();
                parts.path_and_query = Some(PathAndQuery::from_static("/v1/traces"));
                Uri::from_parts(parts).map_err(|_| refuse("invalid URL"))
            }
            _ => Ok(uri),
        }
    }
}

impl TracesTls {
    /// Without `https` the files are not read.
    fn config(&self, is_https: bool) -> Result<ClientConfig, TracesSettingsError> {
        let unusable = |error: rustls::Error| TracesSettingsError::Tls(error.to_string());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        if !is_https {
            let nothing = RootCertStore::empty();
            return Ok(builder
                .with_root_certificates(nothing)
                .with_no_client_auth());
        }
        let builder = match &self.ca_file {
            Some(path) => builder.with_root_certificates(roots(path)?),
            None => builder.with_platform_verifier().map_err(unusable)?,
        };
        let Some((certificate, key)) = &self.client_identity else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates(certificate)?;
        let found = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|error| pem(key, "a private key", &error.to_string()))?;
        builder
            .with_client_auth_cert(chain, found)
            .map_err(|error| pem(key, "the key of the certificate", &error.to_string()))
    }
}

fn roots(path: &Path) -> Result<RootCertStore, TracesSettingsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store
            .add(certificate)
            .map_err(|error| pem(path, "a CA certificate", &error.to_string()))?;
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TracesSettingsError> {
    let bytes = read(path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match read {
        Ok(found) if found.is_empty() => Err(pem(path, "a certificate", "none in the file")),
        Ok(found) => Ok(found),
        Err(error) => Err(pem(path, "a certificate", &error.to_string())),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TracesSettingsError> {
    fs::read(path).map_err(|error| TracesSettingsError::File {
        path: path.to_owned(),
        kind: error.kind(),
    })
}

fn pem(path: &Path, expected: &'static str, problem: &str) -> TracesSettingsError {
    TracesSettingsError::Pem {
        path: path.to_owned(),
        expected,
        problem: problem.to_owned(),
    }
}

/// The bounds of the timeout: no collector responds faster than the lower one; with more than the upper one, a dead
/// collector would not be detected.
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(300);

const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(3_600);

/// The bound of the queue: with some kilobytes for each request, this is some hundred megabytes.
const MAX_QUEUE: usize = 65_536;

/// A setting of the traces is invalid.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TracesSettingsError {
    /// The collector's address is invalid.
    #[error("invalid endpoint {endpoint:?}: {reason}; write it like http://127.0.0.1:4317")]
    Endpoint {
        /// The endpoint as it was given.
        endpoint: String,
        /// What is wrong with the header.
        reason: &'static str,
    },
    /// An invalid header.
    #[error("invalid header {name:?}: {problem}")]
    Header {
        /// The name of the header, as it was given.
        name: String,
        /// The problem.
        problem: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {kind}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        kind: io::ErrorKind,
    },
    /// A file has unexpected contents.
    #[error("{}: expected {expected} in PEM: {problem}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The expected content.
        expected: &'static str,
        /// The problem.
        problem: String,
    },
    /// The TLS configuration is invalid.
    #[error("TLS cannot be set up: {0}; are the system's CA certificates installed?")]
    Tls(String),
    /// The share of traces is invalid.
    #[error("sample_ratio: {0}; 0.01 traces one request of a hundred")]
    SampleRatio(#[from] RatioError),
    /// The name is empty.
    #[error("service_name is empty; name this process, as in adit-server")]
    ServiceName,
    /// The time for one export is invalid.
    #[error("timeout is {0:?}; write a time from 1ms to 5m, such as 5s")]
    Timeout(Duration),
    /// The time between two exports is invalid.
    #[error("interval is {0:?}; write a time from 1ms to 1h, such as 1s")]
    Interval(Duration),
    /// The bound of the queue is invalid.
    #[error("max_queue is {0}; write a number from 1 to 65536, such as 2048")]
    MaxQueue(usize),
    /// The bound of a batch is invalid.
    #[error("max_batch is {max_batch}; write a number from 1 to max_queue, which is {max_queue}")]
    MaxBatch {
        /// The bound as it was given.
        max_batch: usize,
        /// The most that is allowed.
        max_queue: usize,
    },
}
