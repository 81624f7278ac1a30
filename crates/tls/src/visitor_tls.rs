//! TLS at the port of visitors.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use adit_net::{HandshakeError, Stream, TlsAcceptor, reject};
use rustls::{
    AlertDescription, ServerConfig,
    crypto::aws_lc_rs::{self, Ticketer},
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use tokio::{
    sync::Semaphore,
    task::yield_now,
    time::{Instant, timeout_at},
};

use crate::{
    certificates::{Certificates, Choice},
    client_hello::{ClientHello, Opening, OpeningError},
    error::{Cause, TlsError},
    host_certificate::HostCertificate,
    identity::Identity,
    peer::Peer,
    setup::SetupError,
};

/// Handshakes with visitors: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN, sessions that can be resumed, and the certificate
/// that the visitor's host selects. Clones share the certificates and the bound.
///
/// The first step of a handshake costs a key exchange and a signature, a thousand times the cost of a request. Few of these
/// steps run at a time, and other tasks of the thread run after each: a flood of handshakes delays a running connection by
/// one of them.
#[derive(Clone)]
pub struct VisitorTls {
    certificates: Certificates,
    config: Arc<ServerConfig>,
    challenge: Arc<ServerConfig>,
    /// For bytes of any protocol.
    bytes: Arc<ServerConfig>,
    turns: Arc<Semaphore>,
}

/// A connection over TLS.
#[derive(Debug)]
pub struct Secured {
    /// The connection.
    pub stream: Stream,
    /// The certificate that the visitor has been shown.
    pub certificate: Arc<HostCertificate>,
}

/// The time of one handshake, from its first byte to its end.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimit {
    within: Duration,
    due: Instant,
}

impl TimeLimit {
    /// This long from now.
    #[must_use]
    pub fn of(within: Duration) -> Self {
        Self {
            within,
            due: Instant::now() + within,
        }
    }

    fn exceeded(self) -> TlsError {
        TlsError::new(Peer::Visitor, Cause::TimedOut(self.within))
    }
}

impl VisitorTls {
    /// Shows these certificates. The first steps of at most `at_once` handshakes run at a time: one for each thread.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(certificates: Certificates, at_once: usize) -> Result<Self, SetupError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(NoCertificate));
        let mut challenge = config.clone();
        challenge.alpn_protocols = vec![b"acme-tls/1".to_vec()];
        challenge.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = Ticketer::new()?;
        let mut bytes = config.clone();
        bytes.alpn_protocols = Vec::new();
        Ok(Self {
            certificates,
            config: config.into(),
            challenge: challenge.into(),
            bytes: bytes.into(),
            turns: Arc::new(Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS))),
        })
    }

    /// The certificates, which can be replaced.
    #[must_use]
    pub const fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Waits for the first message of a visitor ([`Opening::read`]). If it is invalid, the visitor receives an
    /// alert.
    ///
    /// # Errors
    /// [`TlsError`]. The connection is closed then.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub async fn open(
        &self,
        mut stream: Stream,
        limit: TimeLimit,
    ) -> Result<(Opening, Stream), TlsError> {
        match timeout_at(limit.due, Opening::read(&mut stream)).await {
            Ok(Ok(opening)) => Ok((opening, stream)),
            Ok(Err(error)) => {
                if let OpeningError::Invalid(invalid) = &error {
                    reject(stream, &invalid.alert, limit.due).await;
                }
                Err(error.into_tls())
            }
            Err(_) => Err(limit.exceeded()),
        }
    }

    /// Handshakes with a visitor that has sent this first message. Returns `None` when the connection was that of a
    /// certificate authority that validates the host, and is over.
    ///
    /// # Errors
    /// [`TlsError`]. The connection is closed then. A visitor without a certificate for its host receives the alert
    /// `unrecognized_name`.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub async fn accept(
        &self,
        stream: Stream,
        hello: &ClientHello,
        limit: TimeLimit,
    ) -> Result<Option<Secured>, TlsError> {
        match self.certificates.choose(hello) {
            Choice::Certificate(certificate) => {
                let identity = certificate.identity();
                let stream = self
                    .handshake(&self.config, identity, stream, limit)
                    .await?;
                Ok(Some(Secured {
                    stream,
                    certificate,
                }))
            }
            Choice::Challenge(answer) => {
                let stream = self
                    .handshake(&self.challenge, &answer, stream, limit)
                    .await?;
                // The authority has seen the certificate, and closes the connection (RFC 8737, 3).
                reject(stream, &[], limit.due).await;
                Ok(None)
            }
            Choice::Nothing => Err(self.refuse(stream, hello, limit).await),
        }
    }

    /// Handshakes with a visitor of a port that belongs to these hosts, each as a pattern, with the certificate of the first
    /// one that has any, and with no other certificate. The protocol of the bytes is left to the visitor.
    ///
    /// # Errors
    /// As [`VisitorTls::accept`].
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub async fn accept_for(
        &self,
        hosts: impl Iterator<Item = String>,
        stream: Stream,
        hello: &ClientHello,
        limit: TimeLimit,
    ) -> Result<Stream, TlsError> {
        let certificates = &self.certificates;
        let fits = |one: &HostCertificate| one.can_sign(hello);
        let found = { hosts }.find_map(|host| certificates.of_pattern(&host, fits));
        match found {
            // The authority asks on the port for HTTPS.
            Some(certificate) if !hello.is_challenge() => {
                let identity = certificate.identity();
                self.handshake(&self.bytes, identity, stream, limit).await
            }
            _ => Err(self.refuse(stream, hello, limit).await),
        }
    }

    /// Refuses a visitor for whose host no certificate was found.
    async fn refuse(&self, stream: Stream, hello: &ClientHello, limit: TimeLimit) -> TlsError {
        reject(
            stream,
            &fatal(AlertDescription::UnrecognisedName),
            limit.due,
        )
        .await;
        let name = hello.server_name().map(ToOwned::to_owned);
        TlsError::new(Peer::Visitor, Cause::NoCertificate(name))
    }

    async fn handshake(
        &self,
        config: &ServerConfig,
        identity: &Identity,
        stream: Stream,
        limit: TimeLimit,
    ) -> Result<Stream, TlsError> {
        // The certificate is fixed here, so that the one that is shown is the one that was chosen. Tickets and sessions stay
        // shared.
        let mut config = config.clone();
        config.cert_resolver = Arc::new(SingleCertAndKey::from(identity.certified()));
        // The last segment of the server's first messages would otherwise wait for an acknowledgement. A connection on which
        // this fails has ended, which the handshake reports.
        let _ = stream.set_nodelay();
        let left = limit.due.saturating_duration_since(Instant::now());
        let acceptor = TlsAcceptor::new(Arc::new(config), left, usize::MAX);
        let mut accepting = pin!(acceptor.accept(stream));
        let first_step = async {
            // The semaphore is never closed.
            let _turn = self.turns.acquire().await;
            let polled = poll_fn(|cx| Poll::Ready(accepting.as_mut().poll(cx))).await;
            yield_now().await;
            polled
        };
        let accepted = match timeout_at(limit.due, first_step).await {
            Ok(Poll::Ready(accepted)) => accepted,
            Ok(Poll::Pending) => accepting.await,
            Err(_) => return Err(limit.exceeded()),
        };
        accepted.map_err(|error| match error {
            HandshakeError::TimedOut(_) => limit.exceeded(),
            error => TlsError::of_server(Peer::Visitor, error),
        })
    }
}

/// The record of a fatal alert in clear text (RFC 8446, 5.1 and 6).
fn fatal(alert: AlertDescription) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    [ALERT, 3, 3, 0, 2, FATAL, u8::from(alert)]
}

/// Resolves nothing: each handshake has a certificate of its own.
#[derive(Debug)]
struct NoCertificate;

impl rustls::server::ResolvesServerCert for NoCertificate {
    fn resolve(
        &self,
        _: rustls::server::ClientHello<'_>,
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
}

impl fmt::Debug for VisitorTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VisitorTls")
            .field("certificates", &self.certificates)
            .finish_non_exhaustive()
    }
}
