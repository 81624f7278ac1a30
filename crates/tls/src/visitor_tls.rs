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
/// A step of a handshake costs a key exchange and a signature, a thousand times the cost of a request: the first step, or the
/// second one after a request for another key. Few steps run at a time, and other tasks of the thread run before each: a flood
/// of handshakes delays a running connection by one of them.
#[derive(Clone)]
pub struct VisitorAcceptor {
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

impl VisitorAcceptor {
    /// Shows these certificates. Steps of at most `at_once` handshakes run at a time: one for each thread.
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
    /// As [`VisitorAcceptor::accept`].
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
        let steps = async {
            loop {
                // The semaphore is never closed.
                let mut turn = Some(self.turns.acquire().await);
                // The other tasks of the thread are first, and none takes this turn meanwhile.
                yield_now().await;
                let mut is_done = false;
                let step = poll_fn(|cx| {
                    if is_done {
                        // Something has woken the task: the next step may be there.
                        return Poll::Ready(None);
                    }
                    is_done = true;
                    let polled = accepting.as_mut().poll(cx).map(Some);
                    turn = None;
                    polled
                });
                if let Some(accepted) = step.await {
                    return accepted;
                }
            }
        };
        match timeout_at(limit.due, steps).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(HandshakeError::TimedOut(_))) | Err(_) => Err(limit.exceeded()),
            Ok(Err(error)) => Err(TlsError::of_server(Peer::Visitor, error)),
        }
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

impl fmt::Debug for VisitorAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VisitorAcceptor")
            .field("certificates", &self.certificates)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::{
        ClientConfig, RootCertStore,
        crypto::{CryptoProvider, aws_lc_rs::kx_group},
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    };
    use tokio_rustls::TlsConnector;

    use super::*;

    const HOST: &str = "a.example.com";
    const LIMIT: Duration = Duration::from_secs(60);

    /// The acceptor of a server with a certificate, and a client that trusts it and sends a key of this group first.
    fn ends(
        first: &'static dyn rustls::crypto::SupportedKxGroup,
    ) -> (VisitorAcceptor, TlsConnector) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([HOST.to_owned()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let identity = Identity::from_pem(pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let certificates = Certificates::new();
        certificates.insert(HOST, HostCertificate::new(identity).unwrap());
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        roots.add(certificate).unwrap();
        let provider = CryptoProvider {
            kx_groups: vec![first, kx_group::X25519],
            ..aws_lc_rs::default_provider()
        };
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = VisitorAcceptor::new(certificates, 1).unwrap();
        (tls, TlsConnector::from(Arc::new(config)))
    }

    /// The server asks for another key than the one that the visitor has sent: the second step is the one that costs.
    #[tokio::test(start_paused = true)]
    async fn every_step_of_a_handshake_waits_for_its_turn() {
        // A group that the server does not have.
        let (tls, connector) = ends(kx_group::MLKEM768);
        let addr = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let (near, far) = Stream::in_memory(64 * 1024, addr(4000), addr(7000));
        let turns = tls.turns.clone();
        let serving = tokio::spawn(async move {
            let limit = TimeLimit::of(LIMIT);
            let (opening, stream) = tls.open(far, limit).await.unwrap();
            let Opening::Tls(hello) = opening else {
                panic!("{opening:?}");
            };
            tls.accept(stream, &hello, limit).await
        });
        let name = ServerName::try_from(HOST).unwrap();
        let mut connecting = pin!(connector.connect(name, near));
        // The visitor sends its first message, and the server takes the turn for its first step.
        let first = poll_fn(|cx| Poll::Ready(connecting.as_mut().poll(cx))).await;
        assert!(first.is_pending());
        while turns.available_permits() == 1 {
            yield_now().await;
        }
        let held = turns.clone().acquire_owned().await.unwrap();
        let waiting = tokio::time::timeout(LIMIT / 2, connecting.as_mut()).await;
        assert!(waiting.is_err(), "the second step has no turn");
        drop(held);
        // It stays open until the server has sent its tickets.
        let _stream = connecting.await.unwrap();
        assert!(serving.await.unwrap().unwrap().is_some());
    }
}
