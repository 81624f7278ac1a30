//! Certificates made here, and both ends of a connection in memory.

use std::{net::SocketAddr, time::Duration};

use adit_net::Stream;
use adit_tls::{
    Acceptor, ClientTls, Connector, Fingerprint, Identity, Roots, ServerTls, TlsError, TlsName,
    Trust,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The name of the server.
pub(crate) const HOST: &str = "tunnel.example.com";

/// Longer than any handshake takes; a test that waits for this long fails.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);

/// A certificate authority.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_pem(self.pem().as_bytes()).unwrap()
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::Roots(self.roots())
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.0.der())
    }

    /// A certificate of this authority and its key, in PEM.
    pub(crate) fn issue(&self, params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// An identity of this authority; its certificate is sent with that of the authority.
    pub(crate) fn identity(&self, params: &CertificateParams) -> Identity {
        let (certificate, key) = self.issue(params);
        let chain = certificate + &self.pem();
        Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    }

    /// A server with the usual name.
    pub(crate) fn server(&self) -> ServerTls {
        ServerTls::new(self.identity(&named(HOST)), None.into()).unwrap()
    }

    /// A client that trusts this authority.
    pub(crate) fn client(&self) -> ClientTls {
        client(self.trust())
    }
}

pub(crate) fn named(name: &str) -> CertificateParams {
    CertificateParams::new([name.to_owned()]).unwrap()
}

pub(crate) fn client(trust: Trust) -> ClientTls {
    ClientTls::new(trust, None, None).unwrap()
}

pub(crate) fn client_named(trust: Trust, name: &str) -> ClientTls {
    ClientTls::new(trust, Some(TlsName::parse(name).unwrap()), None).unwrap()
}

pub(crate) fn in_memory() -> (Stream, Stream) {
    let addr = |port| SocketAddr::from(([192, 0, 2, 1], port));
    Stream::in_memory(64 * 1024, addr(4000), addr(7000))
}

/// Connects both ends. The server sends `settings` as soon as it has accepted, as a server of HTTP/2 does.
pub(crate) async fn connect(
    connector: &Connector,
    acceptor: &Acceptor,
) -> (Result<Stream, TlsError>, Result<Stream, TlsError>) {
    let (near, far) = in_memory();
    let accepting = async {
        let (mut accepted, _) = acceptor.accept(far, WITHIN).await?;
        let _ = accepted.write_all(b"settings").await;
        let _ = accepted.flush().await;
        Ok(accepted)
    };
    tokio::join!(connector.connect(near, HOST), accepting)
}

/// Both ends of a connection that has to succeed.
pub(crate) async fn connected(connector: &Connector, acceptor: &Acceptor) -> (Stream, Stream) {
    let (near, far) = connect(connector, acceptor).await;
    let (mut near, far) = (near.unwrap(), far.unwrap());
    let mut settings = [0; 8];
    near.read_exact(&mut settings).await.unwrap();
    assert_eq!(&settings, b"settings");
    (near, far)
}

/// The errors of both ends.
pub(crate) async fn refused(client: ClientTls, server: ServerTls) -> (TlsError, Option<TlsError>) {
    let connector = Connector::new(Some(client), WITHIN);
    let (near, far) = connect(&connector, &Acceptor::new(Some(server))).await;
    (near.unwrap_err(), far.err())
}

/// Asserts that a connection carries bytes in both directions.
pub(crate) async fn carries((near, far): &mut (Stream, Stream)) {
    carry(near, far).await;
    carry(far, near).await;
}

async fn carry(from: &mut Stream, to: &mut Stream) {
    from.write_all(b"ping").await.unwrap();
    from.flush().await.unwrap();
    let mut read = [0; 4];
    to.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"ping");
}
