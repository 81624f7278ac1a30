//! TLS at the port of visitors.

use std::{sync::Arc, time::Duration};

use adit_net::Stream;
use adit_tls::{
    Cause, Certificates, HostCertificate, Opening, Secured, TimeLimit, TlsError, VisitorAcceptor,
};
use rcgen::CertificateParams;
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{Ca, WITHIN, in_memory};

fn certificate(ca: &Ca, names: &[&str]) -> Arc<HostCertificate> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let identity = ca.identity(&CertificateParams::new(names).unwrap());
    Arc::new(HostCertificate::new(identity).unwrap())
}

fn client(ca: &Ca, alpn: &[&str]) -> ClientConfig {
    client_of(ca, &[&TLS13, &TLS12], alpn)
}

fn client_of(
    ca: &Ca,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
    config
}

fn server(certificates: &[Arc<HostCertificate>]) -> VisitorAcceptor {
    let tls = VisitorAcceptor::new(Certificates::new(), 1).unwrap();
    tls.certificates().give(certificates, None);
    tls
}

/// Handshakes as the server does.
async fn accept(tls: &VisitorAcceptor, stream: Stream) -> Result<Option<Secured>, TlsError> {
    let limit = TimeLimit::of(WITHIN);
    let (opening, stream) = tls.open(stream, limit).await?;
    let Opening::Tls(hello) = opening else {
        panic!("{opening:?}")
    };
    let mut secured = tls.accept(stream, &hello, limit).await?;
    if let Some(secured) = &mut secured {
        secured.stream.write_all(b"hello").await.unwrap();
        secured.stream.flush().await.unwrap();
    }
    Ok(secured)
}

type Ends = (
    Result<TlsStream<Stream>, std::io::Error>,
    Result<Option<Secured>, TlsError>,
);

/// Connects to this name; the client reads what the server sends first, and with it the tickets.
async fn connect(tls: &VisitorAcceptor, config: &Arc<ClientConfig>, name: &str) -> Ends {
    let (near, far) = in_memory();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connecting = async {
        let mut stream = TlsConnector::from(config.clone())
            .connect(name, near)
            .await?;
        let mut first = Vec::new();
        let mut limited = (&mut stream).take(5);
        limited.read_to_end(&mut first).await?;
        Ok(stream)
    };
    tokio::join!(connecting, accept(tls, far))
}

/// The names of the certificate that this host selects.
async fn shown(tls: &VisitorAcceptor, config: &Arc<ClientConfig>, host: &str) -> Vec<String> {
    let (near, far) = connect(tls, config, host).await;
    near.unwrap();
    far.unwrap().unwrap().certificate.names().collect()
}

#[tokio::test]
async fn p_14_1_the_host_selects_the_certificate() {
    let ca = Ca::new("ca");
    let wildcard = certificate(&ca, &["*.example.com", "Example.com"]);
    let exact = certificate(&ca, &["api.example.com"]);
    let tls = server(&[wildcard, exact]);
    let config = Arc::new(client(&ca, &[]));
    let both = ["*.example.com", "example.com"];
    assert_eq!(shown(&tls, &config, "www.example.com").await, both);
    assert_eq!(shown(&tls, &config, "EXAMPLE.COM").await, both);
    assert_eq!(
        shown(&tls, &config, "api.example.com").await,
        ["api.example.com"]
    );
    let certificates = tls.certificates();
    assert!(certificates.is_for("*.example.com") && certificates.is_for("a.EXAMPLE.com."));
    assert!(!certificates.is_for("*.a.example.com") && !certificates.is_for("a.b.example.com"));
}

#[tokio::test]
async fn p_14_1_an_unknown_host_gets_unrecognized_name() {
    let ca = Ca::new("ca");
    let tls = server(&[certificate(&ca, &["*.example.com"])]);
    let config = Arc::new(client(&ca, &[]));
    for name in ["a.b.example.com", "example.com", "192.0.2.1"] {
        let (near, far) = connect(&tls, &config, name).await;
        let error = near.unwrap_err().to_string();
        assert!(error.contains("UnrecognisedName"), "{error}");
        let error = far.unwrap_err();
        assert!(matches!(error.cause(), Cause::NoCertificate(_)), "{error}");
    }
    // A default is for these, too: a client that verifies it finds the wrong name.
    let default = certificate(&ca, &["other.example"]);
    tls.certificates().give(&[], Some(default));
    let (near, _) = connect(&tls, &config, "192.0.2.1").await;
    let error = near.unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn issued_certificates_are_added_and_removed_by_host() {
    let ca = Ca::new("ca");
    let tls = server(&[certificate(&ca, &["given.example"])]);
    let config = Arc::new(client(&ca, &[]));
    let certificates = tls.certificates().clone();
    let issue = |names: &[&str]| HostCertificate::clone(&certificate(&ca, names));
    certificates.insert("new.example", issue(&["new.example"]));
    // Given ones precede.
    certificates.insert("given.example", issue(&["given.example", "more.example"]));
    assert_eq!(shown(&tls, &config, "new.example").await, ["new.example"]);
    assert_eq!(
        shown(&tls, &config, "given.example").await,
        ["given.example"]
    );
    certificates.insert("new.example", issue(&["new.example", "next.example"]));
    let names = ["new.example", "next.example"];
    assert_eq!(shown(&tls, &config, "new.example").await, names);
    assert_eq!(certificates.list().len(), 3);
    assert!(certificates.of_host("next.example").is_none());
    certificates.give(&[], None);
    assert!(certificates.remove("new.example") && !certificates.remove("new.example"));
    assert!(connect(&tls, &config, "new.example").await.0.is_err());
    let names = ["given.example", "more.example"];
    assert_eq!(shown(&tls, &config, "given.example").await, names);
}

#[tokio::test]
async fn p_14_3_challenges_are_answered_for_acme_tls_1_alone() {
    let ca = Ca::new("ca");
    let tls = server(&[certificate(&ca, &["a.example"])]);
    let answer = ca.identity(&CertificateParams::new(["a.example".to_owned()]).unwrap());
    let certificates = tls.certificates();
    certificates.insert_challenge("A.example", answer.clone());
    let challenge = Arc::new(client(&ca, &["acme-tls/1"]));
    let (near, far) = in_memory();
    let name = ServerName::try_from("a.example").unwrap();
    let validating = async {
        let stream = TlsConnector::from(challenge.clone())
            .connect(name, near)
            .await;
        let stream = stream.unwrap();
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"acme-tls/1"[..]));
        HostCertificate::new(answer).unwrap();
        shown
    };
    let (shown_to_authority, over) = tokio::join!(validating, accept(&tls, far));
    assert!(
        over.unwrap().is_none(),
        "the connection carries nothing else"
    );
    let both = Arc::new(client(&ca, &["acme-tls/1", "h2"]));
    let (near, far) = connect(&tls, &both, "a.example").await;
    let shown = near.unwrap().get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_ne!(shown, shown_to_authority);
    assert_eq!(far.unwrap().unwrap().stream.alpn(), Some(&b"h2"[..]));
    tls.certificates().remove_challenge("a.example");
    assert!(connect(&tls, &challenge, "a.example").await.0.is_err());
}

#[tokio::test]
async fn versions_protocols_and_resumption_are_those_of_the_web() {
    let ca = Ca::new("ca");
    let tls = server(&[certificate(&ca, &["a.example"])]);
    for version in [&TLS12, &TLS13] {
        let config = Arc::new(client_of(&ca, &[version], &["h2", "http/1.1"]));
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (near, far) = connect(&tls, &config, "a.example").await;
            let (near, far) = (near.unwrap(), far.unwrap().unwrap());
            assert_eq!(near.get_ref().1.handshake_kind(), Some(kind), "{version:?}");
            assert_eq!(far.stream.alpn(), Some(&b"h2"[..]));
        }
    }
    let foreign = Arc::new(client(&ca, &["spdy/3"]));
    let (near, far) = connect(&tls, &foreign, "a.example").await;
    assert!(near.is_err());
    let error = far.unwrap_err().to_string();
    assert!(error.contains("neither HTTP/2 nor HTTP/1.1"), "{error}");
}

#[tokio::test]
async fn the_first_message_is_read_in_pieces_and_replayed() {
    let ca = Ca::new("ca");
    let mut hello = Vec::new();
    let name = ServerName::try_from("a.example").unwrap();
    let config = Arc::new(client(&ca, &["h2"]));
    let mut connection = rustls::ClientConnection::new(config, name).unwrap();
    connection.write_tls(&mut hello).unwrap();
    let (mut near, mut far) = in_memory();
    let sent = hello.clone();
    let sending = async move {
        for byte in sent {
            near.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        near
    };
    let (opening, near) = tokio::join!(Opening::read(&mut far), sending);
    let Opening::Tls(read) = opening.unwrap() else {
        panic!("not TLS")
    };
    assert_eq!(read.server_name(), Some("a.example"));
    assert!(!read.is_challenge());
    assert_eq!(far.read_ahead(), hello);
    drop(near);
}

#[tokio::test]
async fn what_is_not_tls_is_told_from_tls() {
    let opening = async |bytes: &'static [u8]| {
        let (mut near, mut far) = in_memory();
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        Opening::read(&mut far).await
    };
    assert!(matches!(
        opening(b"GET / HTTP/1.1\r\n").await,
        Ok(Opening::ClearText)
    ));
    assert!(matches!(
        opening(b"\x80\x2e\x01").await,
        Ok(Opening::ClearText)
    ));
    assert!(matches!(opening(b"").await, Ok(Opening::Nothing)));
    assert!(matches!(
        opening(b"\x16\x03\x01\0").await,
        Ok(Opening::Nothing)
    ));
    assert!(opening(b"\x16\x03\x01\0\x04\x02\0\0\0").await.is_err());
    assert!(opening(b"\x16GET / HTTP/1.1\r\n").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_silent_or_endless_visitor_is_closed() {
    let tls = server(&[]);
    let within = Duration::from_secs(10);
    let (mut near, far) = in_memory();
    near.write_all(b"\x16\x03\x01").await.unwrap();
    let error = tls.open(far, TimeLimit::of(within)).await.unwrap_err();
    assert!(
        matches!(error.cause(), Cause::TimedOut(time) if *time == within),
        "{error}"
    );
    // A message of 60 KiB, in records of 16 KiB.
    let (mut near, far) = in_memory();
    let sending = tokio::spawn(async move {
        let mut record = vec![0x16, 3, 1, 0x40, 0];
        record.extend([1, 0, 0xf0, 0]);
        record.resize(5 + 0x4000, 0);
        while near.write_all(&record).await.is_ok() {
            record.splice(5..9, [0; 4]);
        }
    });
    let error = tls.open(far, TimeLimit::of(within)).await.unwrap_err();
    assert!(
        error.to_string().contains("more than 16384 bytes"),
        "{error}"
    );
    sending.abort();
}
