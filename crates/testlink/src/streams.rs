//! Streams in memory, and TLS over any stream with a generated certificate.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use adit_net::{
    Stream, TlsAcceptor,
    tokio_rustls::{
        TlsConnector,
        rustls::{ClientConfig, RootCertStore, ServerConfig},
    },
};

const NAME: &str = "a.test";

/// Both ends of a connection in memory to an address; the end of the connecting peer, which has an address of its own,
/// is first.
pub fn in_memory(addr: SocketAddr) -> (Stream, Stream) {
    static PORT: AtomicU16 = AtomicU16::new(1);
    let peer = ([127, 0, 0, 1], PORT.fetch_add(1, Ordering::Relaxed));
    Stream::in_memory(128 * 1024, peer.into(), addr)
}

/// TLS over both ends of a connection, which offer these protocols (ALPN).
pub async fn tls((near, far): (Stream, Stream), alpn: &[&[u8]]) -> (Stream, Stream) {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let mut server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    server.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots);
    let mut client = client.with_no_client_auth();
    client.alpn_protocols.clone_from(&server.alpn_protocols);
    let connector = TlsConnector::from(Arc::new(client));
    let acceptor = TlsAcceptor::new(Arc::new(server), Duration::from_secs(60), 1);
    let name = NAME.try_into().unwrap();
    let (near, far) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    (near.unwrap().into(), far.unwrap())
}
