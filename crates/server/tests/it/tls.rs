//! Clients over TLS: the handshake, certificates that are replaced, and connections without TLS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use adit_auth::NoRecords;
use adit_link::control::{Channel as _, ConnectError, ForeignPeer, Transport as _};
use adit_proto::RegisterRequest;
use adit_server::{ConfigSource, Configuration, Server, ServerTls, Settings, Timeouts, TunnelTls};
use adit_testlink::within;
use adit_tls::{Cause, ClientTls, Connector, Identity, Roots, Trust};
use adit_trace::NoObserver;
use tokio::{io::AsyncReadExt, net::TcpStream, sync::watch};

use crate::support::{Site, TestClient, settings, transport, until, upstream};

const PATIENCE: Duration = Duration::from_secs(30);

/// A certificate for 127.0.0.1 that is its own CA.
fn certificate() -> (ServerTls, Connector) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
    let trust = Trust::Roots(Roots::from_pem(certificate.as_bytes()).unwrap());
    let client = ClientTls::new(trust, None, None).unwrap();
    (
        ServerTls::new(identity, None.into()).unwrap(),
        Connector::new(Some(client), PATIENCE),
    )
}

/// A source whose configuration the test changes.
struct Source(watch::Sender<Arc<Configuration>>);

impl Source {
    fn new(settings: Settings) -> Arc<Self> {
        let revision = 1;
        Arc::new(Self(watch::Sender::new(Arc::new(Configuration {
            revision,
            settings,
        }))))
    }

    fn change(&self, change: impl FnOnce(&mut Settings)) {
        let mut next = Configuration::clone(&self.0.borrow());
        next.revision += 1;
        change(&mut next.settings);
        self.0.send_replace(Arc::new(next));
    }
}

impl ConfigSource for Source {
    fn watch(&self) -> watch::Receiver<Arc<Configuration>> {
        self.0.subscribe()
    }
}

#[tokio::test]
async fn a_replaced_certificate_applies_to_the_next_connection() {
    let site = Site::start("erp").await;
    let ((old, trusts_old), (new, trusts_new)) = (certificate(), certificate());
    let mut first = settings(vec![upstream("erp", &[&site])]);
    first.tls = TunnelTls::Certificate(old);
    let source = Source::new(first);
    let server = Server::start_from(
        source.clone(),
        Arc::new(NoRecords),
        &(Arc::new(NoObserver) as _),
    )
    .unwrap();
    let before = TestClient::connect_over(&trusts_old, &server, "before").await;
    assert_eq!(before.get("erp").await.unwrap(), "erp");
    source.change(|settings| settings.tls = TunnelTls::Certificate(new));
    let handle = server.handle();
    until("the changed configuration", || {
        handle.status().config.revision == 2
    })
    .await;
    let refused = transport(&server, &trusts_old).connect().await;
    let Some(ConnectError::Tls(error)) = refused.err() else {
        panic!("a handshake that fails");
    };
    assert!(matches!(error.cause(), Cause::UnknownIssuer(_)), "{error}");
    let after = TestClient::connect_over(&trusts_new, &server, "after").await;
    assert_eq!(after.get("erp").await.unwrap(), "erp");
    assert_eq!(before.get("erp").await.unwrap(), "erp");
}

#[tokio::test]
async fn a_client_without_tls_learns_that_the_server_uses_it() {
    let mut encrypted = settings(Vec::new());
    encrypted.tls = TunnelTls::Certificate(certificate().0);
    let server = Server::start(&encrypted).unwrap();
    let (channel, driver) = transport(&server, &Connector::off())
        .connect()
        .await
        .unwrap();
    tokio::spawn(driver);
    assert!(channel.register(RegisterRequest::default()).await.is_err());
    assert_eq!(channel.foreign_peer(), Some(ForeignPeer::Tls));
    let handle = server.handle();
    until("a count of the refusal", || {
        handle.status().refusals.unregistered == 1
    })
    .await;
}

#[tokio::test]
async fn a_client_of_tls_learns_that_the_server_uses_none() {
    let server = Server::start(&settings(Vec::new())).unwrap();
    let refused = transport(&server, &certificate().1).connect().await;
    let Some(ConnectError::Tls(error)) = refused.err() else {
        panic!("a handshake that fails");
    };
    assert!(matches!(error.cause(), Cause::NotTls(_)), "{error}");
}

/// A connection without a byte is closed at the time of the handshake, long before that of the registration, and counts
/// as one without a session until then.
#[tokio::test]
async fn p_1_17_a_silent_connection_has_the_time_of_a_handshake() {
    let mut encrypted = settings(Vec::new());
    encrypted.tls = TunnelTls::Certificate(certificate().0);
    encrypted.timeouts = Timeouts {
        setup: 10 * PATIENCE,
        handshake: Duration::from_millis(200),
        ..Timeouts::default()
    };
    let server = Server::start(&encrypted).unwrap();
    let handle = server.handle();
    let addr: SocketAddr = server.tunnel_addr();
    let mut silent = TcpStream::connect(addr).await.unwrap();
    until("a connection without a session", || {
        handle.status().process.unauthenticated == 1
    })
    .await;
    let closed = within(silent.read_u8()).await;
    assert!(closed.is_err());
    until("no connection without a session", || {
        handle.status().process.unauthenticated == 0
    })
    .await;
    assert_eq!(handle.status().refusals.unregistered, 1);
}
