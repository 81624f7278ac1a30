//! One test for each cause of a failed handshake: its variant at both ends, and its text.

use std::{sync::Arc, time::Duration};

use adit_net::{HandshakeError, TlsAcceptor};
use adit_tls::{Acceptor, Cause, ClientTls, Connector, Peer, ServerTls, TlsError, Trust};
use rcgen::date_time_ymd;
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::ServerName, version};
use rustls::{
    crypto::SupportedKxGroup,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tokio_rustls::TlsConnector;

use crate::support::{
    Ca, HOST, WITHIN, carries, client, client_named, connect, connected, in_memory, named, refused,
};

#[tokio::test]
async fn a_connection_carries_bytes_by_ca_and_by_fingerprint() {
    let ca = Ca::new("ca");
    for trust in [ca.trust(), Trust::Pinned(ca.fingerprint()), Trust::Anyone] {
        let connector = Connector::new(Some(client(trust)), WITHIN);
        let acceptor = Acceptor::new(Some(ca.server()));
        let mut ends = connected(&connector, &acceptor).await;
        assert_eq!(
            (ends.0.alpn(), ends.1.alpn()),
            (Some(&b"h2"[..]), Some(&b"h2"[..]))
        );
        carries(&mut ends).await;
    }
}

#[tokio::test]
async fn clear_text_passes_unchanged() {
    let (connector, acceptor) = (Connector::off(), Acceptor::new(None));
    let mut ends = connected(&connector, &acceptor).await;
    assert_eq!(ends.0.alpn(), None);
    carries(&mut ends).await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let ca = Ca::new("ca");
    let server = || ServerTls::new(ca.identity(&named("other.example")), None.into()).unwrap();
    for trust in [ca.trust(), Trust::Pinned(ca.fingerprint())] {
        let (near, far) = refused(client(trust), server()).await;
        assert!(matches!(near.cause(), Cause::WrongName { .. }), "{near:?}");
        let text = "the server's certificate is not valid for tunnel.example.com; give a name that it is valid for as `server_name`: server.adit.internal, if the server has its own CA";
        assert_eq!(near.to_string(), text);
        let far = far.unwrap();
        assert!(
            matches!(far.cause(), Cause::CertificateRejected(_)),
            "{far:?}"
        );
        assert!(far.to_string().contains("the log of the client"), "{far}");
    }
    let connector = Connector::new(Some(client_named(ca.trust(), "other.example")), WITHIN);
    connected(&connector, &Acceptor::new(Some(server()))).await;
}

#[tokio::test]
async fn a_certificate_is_valid_in_its_time_only() {
    let ca = Ca::new("ca");
    let (mut past, mut future) = (named(HOST), named(HOST));
    past.not_after = date_time_ymd(2001, 1, 1);
    future.not_before = date_time_ymd(3000, 1, 1);
    future.not_after = date_time_ymd(3001, 1, 1);
    let of = |params| ServerTls::new(ca.identity(params), None.into()).unwrap();
    let (near, _) = refused(ca.client(), of(&past)).await;
    assert!(matches!(near.cause(), Cause::Expired(_)), "{near:?}");
    assert_eq!(
        near.to_string(),
        "the server's certificate has expired; renew it"
    );
    let (near, _) = refused(ca.client(), of(&future)).await;
    assert!(matches!(near.cause(), Cause::NotValidYet(_)), "{near:?}");
    assert!(near.to_string().contains("is the clock right?"), "{near}");
}

#[tokio::test]
async fn a_certificate_of_an_unknown_ca_is_refused() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    for trust in [other.trust(), Trust::System] {
        let (near, far) = refused(client(trust), ca.server()).await;
        assert!(matches!(near.cause(), Cause::UnknownIssuer(_)), "{near:?}");
        assert!(near.to_string().contains("`client.tls.ca_file`"), "{near}");
        let far = far.unwrap();
        assert!(
            matches!(far.cause(), Cause::CertificateRejected(_)),
            "{far:?}"
        );
    }
}

#[tokio::test]
async fn another_fingerprint_is_refused_and_both_are_named() {
    let (ca, other) = (Ca::new("ca"), Ca::new("ca"));
    let expected = other.fingerprint();
    let (near, _) = refused(client(Trust::Pinned(expected)), ca.server()).await;
    let Cause::WrongFingerprint(wrong) = near.cause() else {
        panic!("{near:?}");
    };
    assert_eq!((wrong.expected, wrong.found), (expected, ca.fingerprint()));
    let text = near.to_string();
    assert!(text.contains(&expected.to_string()), "{text}");
    assert!(text.contains(&ca.fingerprint().to_string()), "{text}");
    assert!(text.contains("`ca_fingerprint`"), "{text}");
}

/// A certificate of the pinned CA alone does not count: the chain must lead to it.
#[tokio::test]
async fn the_pinned_certificate_beside_a_foreign_chain_is_refused() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let (certificate, key) = other.issue(&named(HOST));
    let chain = certificate + &ca.pem();
    let identity = adit_tls::Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    let server = ServerTls::new(identity, None.into()).unwrap();
    let (near, _) = refused(client(Trust::Pinned(ca.fingerprint())), server).await;
    assert!(matches!(near.cause(), Cause::UnknownIssuer(_)), "{near:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_without_tls_is_reported_as_such() {
    let acceptor = Acceptor::new(Some(Ca::new("ca").server()));
    for first in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let (mut near, far) = in_memory();
        near.write_all(first).await.unwrap();
        let error = acceptor.accept(far, WITHIN).await.unwrap_err();
        assert!(matches!(error.cause(), Cause::NotTls(_)), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the client does not speak TLS; set `client.tls` on the client"
        );
        // The client can tell that the server uses TLS: it gets an alert.
        let mut alert = [0; 2];
        near.read_exact(&mut alert).await.unwrap();
        assert_eq!(alert, [0x15, 3]);
    }
}

#[tokio::test]
async fn a_server_without_tls_is_reported_as_such() {
    let connector = Connector::new(Some(Ca::new("ca").client()), WITHIN);
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    for first in [
        &settings[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-x\r\n",
    ] {
        let (near, mut far) = in_memory();
        far.write_all(first).await.unwrap();
        let error = connector.connect(near, HOST).await.unwrap_err();
        assert!(matches!(error.cause(), Cause::NotTls(_)), "{error:?}");
        assert!(error.to_string().contains("`client.tls: off`"), "{error}");
    }
}

#[tokio::test]
async fn a_peer_that_leaves_is_no_peer_without_tls() {
    let ca = Ca::new("ca");
    let (near, far) = in_memory();
    drop(far);
    let connector = Connector::new(Some(ca.client()), WITHIN);
    let error = connector.connect(near, HOST).await.unwrap_err();
    assert!(matches!(error.cause(), Cause::Closed(_)), "{error:?}");
    let (near, far) = in_memory();
    drop(near);
    let accepted = Acceptor::new(Some(ca.server())).accept(far, WITHIN).await;
    let error = accepted.unwrap_err();
    assert!(matches!(error.cause(), Cause::Closed(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_has_no_more_than_its_time() {
    let ca = Ca::new("ca");
    let within = Duration::from_secs(5);
    let began = Instant::now();
    let (_near, far) = in_memory();
    let accepted = Acceptor::new(Some(ca.server())).accept(far, within).await;
    let error = accepted.unwrap_err();
    assert!(
        matches!(error.cause(), Cause::TimedOut(at) if *at == within),
        "{error:?}"
    );
    let (near, _far) = in_memory();
    let connector = Connector::new(Some(ca.client()), within);
    let error = connector.connect(near, HOST).await.unwrap_err();
    assert!(
        matches!(error.cause(), Cause::TimedOut(at) if *at == within),
        "{error:?}"
    );
    assert_eq!(began.elapsed(), 2 * within);
}

#[tokio::test]
async fn tls_1_2_is_refused_by_both_ends() {
    let ca = Ca::new("ca");
    // A client of TLS 1.2 at this server.
    let config = adit_tls::client_config(&ca.trust(), None, &[&version::TLS12]).unwrap();
    let (near, far) = in_memory();
    let connector = TlsConnector::from(Arc::new(config));
    let connecting = connector.connect(ServerName::try_from(HOST).unwrap(), near);
    let acceptor = Acceptor::new(Some(ca.server()));
    let (connected, accepted) = tokio::join!(connecting, acceptor.accept(far, WITHIN));
    assert!(connected.is_err());
    let error = accepted.unwrap_err();
    assert!(matches!(error.cause(), Cause::Version(_)), "{error:?}");
    assert!(
        error.to_string().contains("does not support TLS 1.3"),
        "{error}"
    );
    // This client at a server of TLS 1.2.
    let (near, far) = in_memory();
    let acceptor = TlsAcceptor::new(old_server(&ca), WITHIN, 1);
    let connector = Connector::new(Some(ca.client()), WITHIN);
    let (connected, accepted) = tokio::join!(connector.connect(near, HOST), acceptor.accept(far));
    assert!(matches!(accepted, Err(HandshakeError::Failed(_))));
    let error = connected.unwrap_err();
    assert!(matches!(error.cause(), Cause::Version(_)), "{error:?}");
    assert!(
        error.to_string().contains("does not support TLS 1.3"),
        "{error}"
    );
}

fn old_server(ca: &Ca) -> Arc<ServerConfig> {
    let (certificate, key) = ca.issue(&named(HOST));
    let (certificate, key) = der(&certificate, &key);
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Arc::new(config)
}

fn der(certificate: &str, key: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    use rustls::pki_types::pem::PemObject;
    (
        CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap(),
        PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
    )
}

#[tokio::test]
async fn a_host_that_is_no_name_needs_a_server_name() {
    let ca = Ca::new("ca");
    let (near, _far) = in_memory();
    let connector = Connector::new(Some(ca.client()), WITHIN);
    let error = connector.connect(near, "no name").await.unwrap_err();
    assert!(matches!(error.cause(), Cause::Setup(_)), "{error:?}");
    assert!(error.to_string().contains("`server_name`"), "{error}");
}

/// The key exchange that resists quantum computers is the first that this end offers.
#[test]
fn the_preferred_key_exchange_is_post_quantum() {
    let config = adit_tls::client_config(&Trust::Anyone, None, &[&version::TLS13]).unwrap();
    let first: Vec<_> = { config.crypto_provider().kx_groups.iter() }
        .map(|group: &&dyn SupportedKxGroup| group.name())
        .collect();
    assert_eq!(first.first(), Some(&rustls::NamedGroup::X25519MLKEM768));
}

#[tokio::test]
async fn the_peer_of_an_error_is_named_in_its_text() {
    let text = |peer| TlsError::new(peer, Cause::TimedOut(WITHIN)).to_string();
    assert!(text(Peer::Service).contains("does the service speak TLS?"));
    assert!(text(Peer::Server).contains("does the server speak TLS?"));
    assert!(text(Peer::Client).contains("does the client speak TLS?"));
    let ca = Ca::new("ca");
    let connector = Connector::new(
        Some(ClientTls::new(ca.trust(), None, None).unwrap()),
        WITHIN,
    );
    let (near, _far) = connect(&connector, &Acceptor::new(Some(ca.server()))).await;
    near.unwrap();
}
