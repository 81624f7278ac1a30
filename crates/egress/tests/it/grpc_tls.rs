//! Services over TLS: trust, and the errors of handshakes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_egress::{Config, Protocol, ServiceConfig, Tls};
use adit_link::{Exchange, Failure, Reason, RecvHalf};
use adit_testlink::{EgressLink, TunnelRequest, grpc::send_all, http_service, read, tcp};
use adit_tls::{Roots, RootsError, TlsName, Trust};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{ServerConfig, SupportedProtocolVersion, crypto::aws_lc_rs, version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};
use tokio_rustls::TlsAcceptor;

/// A certificate authority.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn trust(&self) -> Trust {
        Trust::Roots(Roots::from_pem(self.0.pem().as_bytes()).unwrap())
    }

    /// The TLS configuration of a service with a certificate of this authority.
    fn sign(&self, params: &CertificateParams) -> ServerConfig {
        self.sign_for(params, &version::TLS13)
    }

    fn sign_for(
        &self,
        params: &CertificateParams,
        of: &'static SupportedProtocolVersion,
    ) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_protocol_versions(&[of])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                key.serialize_der().try_into().unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

fn names(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

fn local() -> CertificateParams {
    names(&["127.0.0.1"])
}

/// Responds to each call with its own messages and then `grpc-status: 0`, and reports the scheme of the request.
async fn echo(mut request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let scheme = request.uri().scheme_str().unwrap().to_owned();
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .header("x-scheme", scheme)
        .body(())
        .unwrap();
    let mut response = respond.send_response(head, false).unwrap();
    while let Some(data) = request.body_mut().data().await {
        let data = data.unwrap();
        let flow = request.body_mut().flow_control();
        flow.release_capacity(data.len()).unwrap();
        send_all(&mut response, data, false).await;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    response.send_trailers(trailers).unwrap();
}

/// A service over TLS. Returns its port, and the number of handshakes that it has finished.
async fn serve(config: ServerConfig) -> (u16, Arc<AtomicUsize>) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let handshakes = Arc::new(AtomicUsize::new(0));
    let count = handshakes.clone();
    let port = tcp::serve(move |socket, _| {
        let (acceptor, count) = (acceptor.clone(), count.clone());
        async move {
            let Ok(socket) = acceptor.accept(socket).await else {
                return;
            };
            count.fetch_add(1, Ordering::Relaxed);
            let Ok(mut connection) = h2::server::handshake(socket).await else {
                return;
            };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(echo(request, respond));
            }
        }
    })
    .await;
    (port, handshakes)
}

fn to(port: u16, trust: Trust, server_name: Option<&str>) -> ServiceConfig {
    let mut to = http_service(port);
    to.protocol = Protocol::Http2;
    to.tls = Some(Tls {
        trust,
        server_name: server_name.map(|name| TlsName::parse(name).unwrap()),
    });
    to
}

fn link(to: ServiceConfig) -> EgressLink {
    link_with(to, Config::default())
}

fn link_with(to: ServiceConfig, config: Config) -> EgressLink {
    EgressLink::to(to, config)
}

fn call(link: &EgressLink, body: &[u8], end: bool) -> Exchange {
    let request = TunnelRequest::new(
        "POST",
        "/pkg.Echo/Say",
        &[("content-type", "application/grpc")],
    );
    link.open(request.grpc(None, body), end)
}

/// Body, scheme and status of a response.
async fn response(recv: &mut RecvHalf) -> Result<(Vec<u8>, String, String), Failure> {
    let response = read(recv).await?;
    let scheme = response.header("x-scheme").unwrap().to_owned();
    let status = response.trailer("grpc-status").unwrap().to_owned();
    Ok((response.body, scheme, status))
}

/// One unary call that succeeds.
async fn assert_served(link: &EgressLink) {
    let Exchange { send, mut recv } = call(link, b"unary", true);
    let (body, scheme, status) = response(&mut recv).await.unwrap();
    assert_eq!(body, b"unary");
    assert_eq!((&scheme[..], &status[..]), ("https", "0"));
    drop((send, recv));
    link.settled().await;
}

/// The error of a call that does not reach a service.
async fn refusal(link: &EgressLink) -> String {
    let Exchange { send, mut recv } = call(link, b"unary", true);
    let failure = response(&mut recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DialFailed, "{failure:?}");
    drop((send, recv));
    link.settled().await;
    failure.detail.to_string()
}

#[tokio::test]
async fn calls_and_streams_cross_to_a_trusted_service() {
    let ca = Ca::new();
    let (port, handshakes) = serve(ca.sign(&local())).await;
    let link = link(to(port, ca.trust(), None));
    assert_served(&link).await;
    // The messages are longer than every window and than one record of TLS.
    let Exchange { send, mut recv } = call(&link, b"", false);
    let body: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_be_bytes).collect();
    let sent = Bytes::from(body.clone());
    let sending = async {
        send.send_all(sent, true).await.unwrap();
    };
    let (got, ()) = tokio::join!(response(&mut recv), sending);
    let (got, _, status) = got.unwrap();
    assert!(got == body, "{} of {} bytes", got.len(), body.len());
    assert_eq!(status, "0");
    assert_eq!(
        handshakes.load(Ordering::Relaxed),
        1,
        "connections are kept"
    );
    drop((send, recv));
    link.settled().await;
}

#[tokio::test]
async fn requests_of_http_cross_as_well() {
    let ca = Ca::new();
    let (port, _) = serve(ca.sign(&local())).await;
    let link = link(to(port, ca.trust(), None));
    let response = link
        .request(&TunnelRequest::new("POST", "/", &[]), b"page")
        .await
        .unwrap();
    assert_eq!(response.text(), "page");
    assert_eq!(response.header("x-scheme"), Some("https"));
    link.settled().await;
}

#[tokio::test]
async fn tls_1_2_will_do() {
    let ca = Ca::new();
    let (port, _) = serve(ca.sign_for(&local(), &version::TLS12)).await;
    assert_served(&link(to(port, ca.trust(), None))).await;
}

#[tokio::test]
async fn a_certificate_for_another_name_wants_that_name() {
    let ca = Ca::new();
    let (port, handshakes) = serve(ca.sign(&names(&["calls.internal"]))).await;
    let why = refusal(&link(to(port, ca.trust(), None))).await;
    assert!(why.contains("not valid for 127.0.0.1"), "{why}");
    assert!(why.contains("`server_name`"), "{why}");
    let named = link(to(port, ca.trust(), Some("calls.internal")));
    assert_served(&named).await;
    assert!(handshakes.load(Ordering::Relaxed) >= 1);
}

#[tokio::test]
async fn certificates_of_an_unknown_ca_are_refused() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (port, _) = serve(ca.sign(&local())).await;
    for trust in [other.trust(), Trust::System] {
        let why = refusal(&link(to(port, trust, None))).await;
        assert!(why.contains("not signed by a trusted CA"), "{why}");
        assert!(why.contains("`ca_file`"), "{why}");
    }
}

#[tokio::test]
async fn a_certificate_is_good_in_its_time_only() {
    let ca = Ca::new();
    let (mut past, mut future) = (local(), local());
    past.not_after = date_time_ymd(2001, 1, 1);
    future.not_before = date_time_ymd(3000, 1, 1);
    future.not_after = date_time_ymd(3001, 1, 1);
    for (params, what) in [(past, "has expired; renew"), (future, "not valid yet")] {
        let (port, _) = serve(ca.sign(&params)).await;
        let why = refusal(&link(to(port, ca.trust(), None))).await;
        assert!(why.contains(what), "{why}");
    }
}

#[tokio::test]
async fn any_certificate_is_accepted_where_verification_is_off() {
    let ca = Ca::new();
    let mut params = names(&["elsewhere.example"]);
    params.not_after = date_time_ymd(2001, 1, 1);
    for of in [&version::TLS12, &version::TLS13] {
        let (port, _) = serve(ca.sign_for(&params, of)).await;
        assert_served(&link(to(port, Trust::Anyone, None))).await;
    }
}

#[tokio::test]
async fn a_service_has_to_choose_http_2() {
    let ca = Ca::new();
    // The service selects no protocol, or another one.
    for protocols in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut config = ca.sign(&local());
        config.alpn_protocols = protocols;
        let (port, _) = serve(config).await;
        let why = refusal(&link(to(port, ca.trust(), None))).await;
        assert!(why.contains("ALPN `h2`"), "{why}");
    }
}

#[tokio::test]
async fn a_service_without_tls_is_reported_as_such() {
    let ca = Ca::new();
    // One service responds with HTTP, and one closes.
    let talks = tcp::serve(|mut socket: TcpStream, _| async move {
        let _ = socket.read_u8().await;
        let response = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        let _ = socket.write_all(response).await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    });
    let why = refusal(&link(to(talks.await, ca.trust(), None))).await;
    assert!(why.contains("does not speak TLS"), "{why}");
    let leaves = tcp::serve(|socket: TcpStream, _| async move { drop(socket) });
    let why = refusal(&link(to(leaves.await, ca.trust(), None))).await;
    assert!(why.contains("does it speak TLS?"), "{why}");
    // A client without TLS reaches a service with TLS.
    let (port, _) = serve(ca.sign(&local())).await;
    let mut plain = http_service(port);
    plain.protocol = Protocol::Http2;
    let why = refusal(&link(plain)).await;
    assert!(why.contains("without TLS?"), "{why}");
}

#[tokio::test]
async fn a_hanging_handshake_times_out_and_delays_no_other() {
    let ca = Ca::new();
    let begun = Arc::new(Notify::new());
    let (has_begun, hold) = (begun.clone(), Duration::from_millis(300));
    let hangs = tcp::serve(move |mut socket: TcpStream, _| {
        let has_begun = has_begun.clone();
        async move {
            let _ = socket.read_u8().await;
            has_begun.notify_one();
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let (port, _) = serve(ca.sign(&local())).await;
    let config = Config {
        dial_timeout: hold,
        ..Config::default()
    };
    let silent = link_with(to(hangs, ca.trust(), None), config.clone());
    let other = link_with(to(port, ca.trust(), None), Config::default());
    let others = async {
        begun.notified().await;
        assert_served(&other).await;
    };
    let (why, ()) = tokio::join!(refusal(&silent), others);
    assert!(
        why.contains("handshake did not finish within 300ms"),
        "{why}"
    );
}

#[tokio::test]
async fn nothing_leaves_in_clear_text_for_a_service_over_tls() {
    let ca = Ca::new();
    let (port, handshakes) = serve(ca.sign(&local())).await;
    let mut bytes = to(port, ca.trust(), None);
    bytes.protocol = Protocol::Tcp;
    let link = link(bytes);
    let failure = link.get("/").await.unwrap_err();
    assert!(
        failure.detail.contains("not reached by http over TLS"),
        "{failure:?}"
    );
    assert_eq!(link.egress.stats().dialled, 0);
    assert_eq!(handshakes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_service_without_http1_over_tls_is_named() {
    let ca = Ca::new();
    let (port, _) = serve(ca.sign(&local())).await;
    let mut http1 = to(port, ca.trust(), None);
    http1.protocol = Protocol::Http1;
    let failure = link(http1).get("/").await.unwrap_err();
    let expected = "does not offer HTTP/1.1 over TLS (ALPN `http/1.1`)";
    assert!(failure.detail.contains(expected), "{failure:?}");
}

#[tokio::test]
async fn other_settings_of_tls_are_another_connection() {
    let ca = Ca::new();
    let (port, handshakes) = serve(ca.sign(&local())).await;
    let link = link(to(port, ca.trust(), None));
    assert_served(&link).await;
    link.serve(to(port, ca.trust(), None));
    assert_served(&link).await;
    assert_eq!(handshakes.load(Ordering::Relaxed), 1);
    link.serve(to(port, Ca::new().trust(), None));
    let why = refusal(&link).await;
    assert!(why.contains("not signed by a trusted CA"), "{why}");
}

#[test]
fn invalid_root_certificates_are_reported() {
    assert_eq!(Roots::from_pem(b"nothing\n"), Err(RootsError::Empty));
    let pem = Ca::new().0.pem();
    let two = format!("{pem}{}", Ca::new().0.pem());
    assert_ne!(
        Roots::from_pem(pem.as_bytes()),
        Roots::from_pem(two.as_bytes())
    );
    let none = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let refused = Roots::from_pem(format!("{pem}{none}").as_bytes());
    assert!(
        matches!(refused, Err(RootsError::Certificate { number: 2, .. })),
        "{refused:?}"
    );
    let cut = Roots::from_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n");
    assert!(matches!(cut, Err(RootsError::Pem(_))), "{cut:?}");
    let name = TlsName::parse("not a name").unwrap_err();
    assert_eq!(
        name.to_string(),
        "expected a host name or an address, found \"not a name\""
    );
    assert!(TlsName::parse("calls.internal").is_ok() && TlsName::parse("::1").is_ok());
}
