//! Providers of forward auth: services that decide about requests of visitors.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use adit_ingress::layers::AuthProvider;
use adit_link::{BoxFuture, LogLimit};
use adit_net::{HostPort, Stream, connect};
use adit_tls::client_config;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header::HOST};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::{
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;

use crate::settings::ForwardAuthSettings;

/// Sub-requests of one provider at a time.
const MAX_RUNNING: usize = 256;
/// Idle connections that are kept of one provider.
const MAX_IDLE: usize = 32;
/// How long they are kept: less than the time after which firewalls forget them.
const MAX_IDLE_TIME: Duration = Duration::from_secs(60);

/// A connection to a provider.
type Connection = SendRequest<Empty<Bytes>>;

/// A provider of forward auth.
pub(crate) struct Provider {
    name: String,
    address: HostPort,
    host: HeaderValue,
    /// Path and query.
    target: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    copied: Vec<HeaderName>,
    sent: Vec<HeaderName>,
    within: Duration,
    max_body: usize,
    running: Arc<Semaphore>,
    idle: Arc<Idle>,
    failures: Arc<LogLimit<Failed>>,
}

/// A provider of the configuration that cannot be used.
#[derive(Debug, Error)]
#[error("forward_auth `{name}`: {problem}")]
pub struct ForwardAuthError {
    /// The name of the provider.
    pub name: String,
    /// Why it cannot be used.
    pub problem: String,
}

/// The providers of the settings, by name.
///
/// # Errors
/// [`ForwardAuthError`] for the first one that cannot be used.
pub(crate) fn providers(
    settings: &[ForwardAuthSettings],
) -> Result<HashMap<String, Arc<dyn AuthProvider>>, ForwardAuthError> {
    let made = settings.iter().map(|settings| {
        let provider: Arc<dyn AuthProvider> = Arc::new(Provider::new(settings)?);
        Ok((settings.name.clone(), provider))
    });
    made.collect()
}

struct Failed {
    provider: String,
    error: String,
}

impl Provider {
    /// A provider by its settings.
    ///
    /// # Errors
    /// Its TLS cannot be set up.
    pub(crate) fn new(settings: &ForwardAuthSettings) -> Result<Self, ForwardAuthError> {
        let fail = |problem: String| ForwardAuthError {
            name: settings.name.clone(),
            problem,
        };
        let address = settings.address.clone();
        let tls = match &settings.tls {
            None => None,
            Some(tls) => {
                let config = client_config(&tls.trust, None, &[&TLS13, &TLS12]);
                let mut config = config.map_err(|error| fail(error.to_string()))?;
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                let name = match &tls.server_name {
                    Some(name) => name.as_str(),
                    None => address.host(),
                };
                let name = ServerName::try_from(name.to_owned());
                let name = name.map_err(|error| fail(error.to_string()))?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        let host = HeaderValue::try_from(settings.host.as_str());
        Ok(Self {
            name: settings.name.clone(),
            host: host.map_err(|error| fail(error.to_string()))?,
            address,
            target: settings.target.clone(),
            tls,
            copied: settings.copied.clone(),
            sent: settings.sent.clone(),
            within: settings.timeout,
            max_body: settings.max_body_bytes,
            running: Arc::new(Semaphore::new(MAX_RUNNING)),
            idle: Arc::default(),
            failures: LogLimit::new(|failed: &Failed, count| {
                tracing::warn!(
                    provider = failed.provider,
                    count = (count > 1).then_some(count),
                    "forward auth failed: {}",
                    failed.error
                );
            }),
        })
    }

    async fn exchange(&self, lines: HeaderMap) -> Result<Response<Bytes>, String> {
        let running = self.running.clone().acquire_owned().await;
        let running = running.map_err(|error| error.to_string())?;
        if let Some(mut connection) = self.idle.take()
            && connection.ready().await.is_ok()
        {
            let sent = connection.send_request(self.request(lines.clone())).await;
            // A provider may close an idle connection at any time: the request is sent again on a new one.
            if let Ok(response) = sent {
                return self.receive(response, connection, running).await;
            }
        }
        let mut connection = self.connect().await?;
        let sent = connection.send_request(self.request(lines)).await;
        let response = sent.map_err(|error| error.to_string())?;
        self.receive(response, connection, running).await
    }

    fn request(&self, lines: HeaderMap) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        // The target was checked when the settings were read.
        *request.uri_mut() = self.target.parse().unwrap_or_default();
        *request.headers_mut() = lines;
        request.headers_mut().insert(HOST, self.host.clone());
        request
    }

    async fn connect(&self) -> Result<Connection, String> {
        let address = &self.address;
        let stream = connect(address).await;
        let mut stream = stream.map_err(|error| format!("connect {address}: {error}"))?;
        if let Some((connector, name)) = &self.tls {
            let connected = connector.connect(name.clone(), stream).await;
            stream =
                Stream::from(connected.map_err(|error| format!("connect {address}: {error}"))?);
        }
        let (connection, driver) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            // Its errors are those of the requests.
            let _ = driver.await;
        });
        Ok(connection)
    }

    async fn receive(
        &self,
        response: Response<Incoming>,
        mut connection: Connection,
        running: OwnedSemaphorePermit,
    ) -> Result<Response<Bytes>, String> {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, self.max_body);
        let idle = self.idle.clone();
        if parts.status.is_success() {
            // The body is for nobody. It is read to use the connection again, and the visitor does not wait for it.
            let within = self.within;
            tokio::spawn(async move {
                let _running = running;
                let rest = timeout(within, body.collect()).await;
                if matches!(rest, Ok(Ok(_))) && connection.ready().await.is_ok() {
                    idle.keep(connection);
                }
            });
            return Ok(Response::from_parts(parts, Bytes::new()));
        }
        let body = body.collect().await;
        let body = body.map_err(|error| format!("the response cannot be read: {error}"))?;
        if connection.ready().await.is_ok() {
            idle.keep(connection);
        }
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

/// Idle connections of one provider.
#[derive(Default)]
struct Idle(Mutex<Vec<(Connection, Instant)>>);

impl Idle {
    /// The connection that was used last, if it is not too old: a firewall may have forgotten it.
    fn take(&self) -> Option<Connection> {
        let mut idle = self.0.lock();
        let (connection, since) = idle.pop()?;
        if since.elapsed() < MAX_IDLE_TIME {
            return Some(connection);
        }
        // The others are older.
        idle.clear();
        None
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.0.lock();
        idle.retain(|(_, since)| since.elapsed() < MAX_IDLE_TIME);
        if idle.len() < MAX_IDLE {
            idle.push((connection, Instant::now()));
        }
    }
}

impl AuthProvider for Provider {
    fn copied(&self) -> &[HeaderName] {
        &self.copied
    }

    fn sent(&self) -> &[HeaderName] {
        &self.sent
    }

    fn ask(&self, lines: HeaderMap) -> BoxFuture<'_, Result<Response<Bytes>, String>> {
        Box::pin(async move {
            let answer = match timeout(self.within, self.exchange(lines)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no response within {:?}", self.within)),
            };
            if let Err(error) = &answer {
                self.failures.note(Failed {
                    provider: self.name.clone(),
                    error: error.clone(),
                });
            }
            answer
        })
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
