//! Both ends of a connection of each kind.

use std::{net::SocketAddr, sync::Arc};

use adit_net::{
    Listener, Stream, connect_unix,
    tokio_rustls::{
        TlsConnector,
        rustls::{
            ClientConfig, RootCertStore, ServerConfig,
            crypto::aws_lc_rs,
            pki_types::{CertificateDer, PrivateKeyDer, ServerName},
        },
    },
};
use tokio::net::{TcpListener, TcpStream, UnixListener};

pub(crate) fn addr(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}

/// The end of the visitor, and the accepted end.
pub(crate) type Pair = (Stream, Stream);

pub(crate) fn memory() -> Pair {
    Stream::in_memory(64 * 1024, addr(4000), addr(80))
}

pub(crate) async fn tcp() -> Pair {
    let listener = Listener::from(TcpListener::bind(("127.0.0.1", 0)).await.unwrap());
    let visitor = TcpStream::connect(listener.local_addr().unwrap());
    let (visitor, accepted) = tokio::join!(visitor, listener.accept());
    (visitor.unwrap().into(), accepted.unwrap().0)
}

pub(crate) async fn unix() -> Pair {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sock");
    let listener = Listener::from(UnixListener::bind(&path).unwrap());
    let (visitor, accepted) = tokio::join!(connect_unix(&path), listener.accept());
    (visitor.unwrap(), accepted.unwrap().0)
}

/// What a client needs to trust a server, and the server's own configuration.
pub(crate) struct Tls {
    pub(crate) connector: TlsConnector,
    pub(crate) server: Arc<ServerConfig>,
}

pub(crate) fn tls(alpn: &[&[u8]]) -> Tls {
    let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    let certificate = CertificateDer::from(made.cert.der().to_vec());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let alpn: Vec<_> = alpn.iter().map(|name| name.to_vec()).collect();
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    server.alpn_protocols.clone_from(&alpn);
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = alpn;
    Tls {
        connector: Arc::new(client).into(),
        server: Arc::new(server),
    }
}

impl Tls {
    pub(crate) async fn connect(&self, visitor: Stream) -> Stream {
        let name = ServerName::try_from("a.test").unwrap();
        self.connector.connect(name, visitor).await.unwrap().into()
    }
}
