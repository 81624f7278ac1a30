//! Streams in memory, and TLS over any stream with a generated certificate.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use adit_net::{
    Stream, TlsAcceptor,
    tokio_rustls::{
        TlsConnector,
        rustls::{
            ClientConfig, RootCertStore, ServerConfig,
            crypto::aws_lc_rs,
            pki_types::{CertificateDer, PrivateKeyDer, ServerName},
        },
    },
};

const NAME: &str = "a.test";

/// Both ends of a connection in memory; the end of the connecting peer is first.
pub fn in_memory() -> (Stream, Stream) {
    let addr = |port| SocketAddr::from(([192, 0, 2, 1], port));
    Stream::in_memory(64 * 1024, addr(4000), addr(80))
}

/// The configurations of both ends.
pub struct Tls {
    pub connector: TlsConnector,
    pub acceptor: TlsAcceptor,
}

impl Tls {
    /// Configurations of two ends that both offer these protocols (ALPN).
    pub fn new(alpn: &[&[u8]]) -> Self {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let certificate = CertificateDer::from(made.cert.der().to_vec());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let alpn: Vec<_> = alpn.iter().map(|name| name.to_vec()).collect();
        let server = ServerConfig::builder_with_provider(provider.clone());
        let server = server.with_safe_default_protocol_versions().unwrap();
        let mut server = server
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        server.alpn_protocols.clone_from(&alpn);
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(provider);
        let client = client.with_safe_default_protocol_versions().unwrap();
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = alpn;
        Self {
            connector: Arc::new(client).into(),
            acceptor: TlsAcceptor::new(Arc::new(server), Duration::from_secs(60), 1),
        }
    }

    /// Handshakes over both ends of a connection.
    pub async fn over(&self, (near, far): (Stream, Stream)) -> (Stream, Stream) {
        let name = ServerName::try_from(NAME).unwrap();
        let connecting = self.connector.connect(name, near);
        let (near, far) = tokio::join!(connecting, self.acceptor.accept(far));
        (near.unwrap().into(), far.unwrap())
    }
}
