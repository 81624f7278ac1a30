//! Services over TLS: whom egress believes, and what it says when there is no handshake.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_codec::{GrpcRequestHead, Open, ResponseHead};
use adit_egress::{Config, Protocol, Roots, RootsError, ServiceConfig, Tls, TlsName, Trust};
use adit_link::{Exchange, Failure, Part, Reason, RecvHalf};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{ServerConfig, SupportedProtocolVersion, crypto::aws_lc_rs, version};
use support::{Ask, Pair, TUNNEL, service, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};
use tokio_rustls::TlsAcceptor;

/// One that signs certificates.
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

    /// With the certificate of a service.
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

/// Answers each call with its own messages and then `grpc-status: 0`, and says what scheme it was asked by.
async fn echo(mut request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let scheme = request.uri().scheme_str().unwrap().to_owned();
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .header("x-scheme", scheme)
        .body(())
        .unwrap();
    let mut answer = respond.send_response(head, false).unwrap();
    while let Some(data) = request.body_mut().data().await {
        let data = data.unwrap();
        let flow = request.body_mut().flow_control();
        flow.release_capacity(data.len()).unwrap();
        let mut rest = data;
        while !rest.is_empty() {
            answer.reserve_capacity(rest.len());
            let room = std::future::poll_fn(|cx| answer.poll_capacity(cx)).await;
            let room = room.unwrap().unwrap().min(rest.len());
            answer.send_data(rest.split_to(room), false).unwrap();
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    answer.send_trailers(trailers).unwrap();
}

/// A service over TLS: its port, and how many handshakes it has finished.
async fn serve(config: ServerConfig) -> (u16, Arc<AtomicUsize>) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let handshakes = Arc::new(AtomicUsize::new(0));
    let count = handshakes.clone();
    let port = support::scripted(move |socket, _| {
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
    let mut to = service(port);
    to.protocol = Protocol::Http2;
    to.tls = Some(Tls {
        trust,
        server_name: server_name.map(|name| TlsName::parse(name).unwrap()),
    });
    to
}

fn pair(to: ServiceConfig) -> Pair {
    pair_with(to, Config::default())
}

fn pair_with(to: ServiceConfig, config: Config) -> Pair {
    let pair = Pair::new(config);
    pair.serve(to);
    pair
}

fn call(pair: &Pair, body: &[u8], end: bool) -> Exchange {
    let open: Open = Open {
        tunnel: TUNNEL.into(),
        ..Open::default()
    };
    let head = GrpcRequestHead {
        open: &open,
        authority: b"calls.example",
        path: b"/pkg.Echo/Say",
        timeout: None,
    };
    let metadata = [(&b"content-type"[..], &b"application/grpc"[..])];
    let head = head.encode(metadata.into_iter(), body).unwrap();
    pair.server.open(head, end, None).unwrap()
}

/// Body, scheme and status of an answer.
async fn told(recv: &mut RecvHalf) -> Result<(Vec<u8>, String, String), Failure> {
    let (mut body, mut scheme, mut status) = (Vec::new(), String::new(), String::new());
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    while let Some(part) = within(recv.part()).await {
        match part? {
            Part::Response(ResponseHead::Grpc(head)) => {
                scheme = text(head.metadata.first(b"x-scheme"))
            }
            Part::Data(data) => body.extend_from_slice(data.as_ref()),
            Part::Trailers(block) => status = text(block.first(b"grpc-status")),
            other => panic!("no part of an answer of gRPC: {other:?}"),
        }
    }
    Ok((body, scheme, status))
}

/// One unary call that succeeds.
async fn assert_served(pair: &Pair) {
    let Exchange { send, mut recv } = call(pair, b"unary", true);
    let (body, scheme, status) = told(&mut recv).await.unwrap();
    assert_eq!(body, b"unary");
    assert_eq!((&scheme[..], &status[..]), ("https", "0"));
    drop((send, recv));
    pair.settled().await;
}

/// What is said about a call that cannot be made.
async fn refusal(pair: &Pair) -> String {
    let Exchange { send, mut recv } = call(pair, b"unary", true);
    let failure = told(&mut recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DialFailed, "{failure:?}");
    drop((send, recv));
    pair.settled().await;
    failure.detail.to_string()
}

#[tokio::test]
async fn calls_and_streams_cross_to_a_service_whose_ca_is_known() {
    let ca = Ca::new();
    let (port, handshakes) = serve(ca.sign(&local())).await;
    let pair = pair(to(port, ca.trust(), None));
    assert_served(&pair).await;
    // Longer than every window, and more of it than one record of TLS.
    let Exchange { send, mut recv } = call(&pair, b"", false);
    let body: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_be_bytes).collect();
    let sent = Bytes::from(body.clone());
    let sending = async {
        send.send_all(sent, true).await.unwrap();
    };
    let (got, ()) = tokio::join!(told(&mut recv), sending);
    let (got, _, status) = got.unwrap();
    assert!(got == body, "{} of {} bytes", got.len(), body.len());
    assert_eq!(status, "0");
    assert_eq!(
        handshakes.load(Ordering::Relaxed),
        1,
        "connections are kept"
    );
    drop((send, recv));
    pair.settled().await;
}

#[tokio::test]
async fn requests_of_http_cross_as_well() {
    let ca = Ca::new();
    let (port, _) = serve(ca.sign(&local())).await;
    let pair = pair(to(port, ca.trust(), None));
    let answer = pair
        .ask(&Ask::new("POST", "/", &[]), b"page")
        .await
        .unwrap();
    assert_eq!(answer.text(), "page");
    assert_eq!(answer.header("x-scheme"), Some("https"));
    pair.settled().await;
}

#[tokio::test]
async fn tls_1_2_will_do() {
    let ca = Ca::new();
    let (port, _) = serve(ca.sign_for(&local(), &version::TLS12)).await;
    assert_served(&pair(to(port, ca.trust(), None))).await;
}

#[tokio::test]
async fn a_certificate_for_another_name_wants_that_name() {
    let ca = Ca::new();
    let (port, handshakes) = serve(ca.sign(&names(&["calls.internal"]))).await;
    let why = refusal(&pair(to(port, ca.trust(), None))).await;
    assert!(why.contains("not valid for 127.0.0.1"), "{why}");
    assert!(why.contains("`server_name`"), "{why}");
    let named = pair(to(port, ca.trust(), Some("calls.internal")));
    assert_served(&named).await;
    assert!(handshakes.load(Ordering::Relaxed) >= 1);
}

#[tokio::test]
async fn what_an_unknown_ca_has_signed_is_refused() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (port, _) = serve(ca.sign(&local())).await;
    for trust in [other.trust(), Trust::System] {
        let why = refusal(&pair(to(port, trust, None))).await;
        assert!(why.contains("issuer"), "{why}");
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
        let why = refusal(&pair(to(port, ca.trust(), None))).await;
        assert!(why.contains(what), "{why}");
    }
}

#[tokio::test]
async fn anyone_is_believed_where_it_is_said_so() {
    let ca = Ca::new();
    let mut params = names(&["elsewhere.example"]);
    params.not_after = date_time_ymd(2001, 1, 1);
    for of in [&version::TLS12, &version::TLS13] {
        let (port, _) = serve(ca.sign_for(&params, of)).await;
        assert_served(&pair(to(port, Trust::Anyone, None))).await;
    }
}

#[tokio::test]
async fn a_service_has_to_choose_http_2() {
    let ca = Ca::new();
    // Nothing is chosen; nothing of it suits.
    for protocols in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut config = ca.sign(&local());
        config.alpn_protocols = protocols;
        let (port, _) = serve(config).await;
        let why = refusal(&pair(to(port, ca.trust(), None))).await;
        assert!(why.contains("ALPN `h2`"), "{why}");
    }
}

#[tokio::test]
async fn a_service_in_clear_text_is_told_from_one_over_tls() {
    let ca = Ca::new();
    // One that answers with HTTP, and one that leaves.
    let talks = support::scripted(|mut socket: TcpStream, _| async move {
        let _ = socket.read_u8().await;
        let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        let _ = socket.write_all(answer).await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    });
    let why = refusal(&pair(to(talks.await, ca.trust(), None))).await;
    assert!(why.contains("does not speak TLS"), "{why}");
    let leaves = support::scripted(|socket: TcpStream, _| async move { drop(socket) });
    let why = refusal(&pair(to(leaves.await, ca.trust(), None))).await;
    assert!(why.contains("does it speak TLS?"), "{why}");
    // And the other way round.
    let (port, _) = serve(ca.sign(&local())).await;
    let mut plain = service(port);
    plain.protocol = Protocol::Http2;
    let why = refusal(&pair(plain)).await;
    assert!(why.contains("without TLS?"), "{why}");
}

#[tokio::test]
async fn a_handshake_that_hangs_costs_the_time_of_a_dial_and_holds_nobody_else() {
    let ca = Ca::new();
    let asked = Arc::new(Notify::new());
    let (is_asked, hold) = (asked.clone(), Duration::from_millis(300));
    let hangs = support::scripted(move |mut socket: TcpStream, _| {
        let is_asked = is_asked.clone();
        async move {
            let _ = socket.read_u8().await;
            is_asked.notify_one();
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let (port, _) = serve(ca.sign(&local())).await;
    let config = Config {
        dial_timeout: hold,
        ..Config::default()
    };
    let silent = pair_with(to(hangs, ca.trust(), None), config.clone());
    let other = pair_with(to(port, ca.trust(), None), Config::default());
    let others = async {
        asked.notified().await;
        assert_served(&other).await;
    };
    let (why, ()) = tokio::join!(refusal(&silent), others);
    assert!(why.contains("TLS handshake within 300ms"), "{why}");
}

#[tokio::test]
async fn nothing_leaves_in_clear_text_for_a_service_over_tls() {
    let ca = Ca::new();
    let (port, handshakes) = serve(ca.sign(&local())).await;
    let mut http1 = to(port, ca.trust(), None);
    http1.protocol = Protocol::Http1;
    let pair = pair(http1);
    let failure = pair.get("/").await.unwrap_err();
    assert!(
        failure.detail.contains("not reached by http over TLS"),
        "{failure:?}"
    );
    assert_eq!(pair.egress.stats().dialled, 0);
    assert_eq!(handshakes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn other_settings_of_tls_are_another_connection() {
    let ca = Ca::new();
    let (port, handshakes) = serve(ca.sign(&local())).await;
    let pair = pair(to(port, ca.trust(), None));
    assert_served(&pair).await;
    pair.serve(to(port, ca.trust(), None));
    assert_served(&pair).await;
    assert_eq!(handshakes.load(Ordering::Relaxed), 1);
    pair.serve(to(port, Ca::new().trust(), None));
    let why = refusal(&pair).await;
    assert!(why.contains("issuer"), "{why}");
}

#[test]
fn roots_are_read_or_it_is_said_why_not() {
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
