//! TLS that is passed through, and TLS that ends at the port of a TCP tunnel.

use std::{net::SocketAddr, sync::Arc};

use adit_e2e::{Client, ClientOptions, Server, Service, Visitor, eventually};
use http::StatusCode;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::{Ca, SOON, shown, tunnel, world};

/// A service that reads a PROXY header if it is to, then speaks TLS with this certificate: it sends its name and the header,
/// and returns what it reads.
async fn secure_echo(ca: &Ca, file: &'static str, proxy: bool) -> SocketAddr {
    let certificate = CertificateDer::from_pem_file(ca.path(file, "crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(ca.path(file, "key")).unwrap();
    let config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut header = Vec::new();
                while proxy && !header.ends_with(b"\r\n") {
                    header.push(stream.read_u8().await.unwrap());
                }
                let mut stream = acceptor.accept(stream).await.unwrap();
                stream.write_all(file.as_bytes()).await.unwrap();
                stream.write_all(b" ").await.unwrap();
                stream.write_all(&header).await.unwrap();
                let (mut read, mut write) = tokio::io::split(stream);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
    });
    addr
}

/// Sends bytes to the service that answers for this host, and returns all that it sends.
async fn exchange(ca: &Ca, addr: SocketAddr, host: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = ca.connect(addr, host, &[]).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.unwrap();
    read
}

#[tokio::test]
async fn p_14_8_tls_is_passed_through_by_host_unopened() {
    let ca = Ca::new();
    ca.issue("www", &["*.example.com"]);
    ca.issue("vault", &["vault.example.com"]);
    ca.issue("deep", &["*.deep.example.com"]);
    let vault = secure_echo(&ca, "vault", true).await;
    let deep = secure_echo(&ca, "deep", false).await;
    let site = Service::site("site").await;
    let tunnels = [
        tunnel("web", "www.example.com, vault.example.com", &site),
        format!(
            "name: vault, type: tls, domain: vault.example.com, proxy_protocol: v1, local_port: {}",
            vault.port()
        ),
        format!(
            "name: deep, type: tls, domain: \"*.deep.example.com\", local_port: {}",
            deep.port()
        ),
    ];
    let (_client, server, https) =
        super::world_with(&ca.keys("www"), "  domain: example.com\n", &tunnels).await;
    // The certificate is that of the service.
    let stream = ca.connect(https, "vault.example.com", &[]).await.unwrap();
    let visitor = stream.get_ref().0.local_addr().unwrap();
    let own = CertificateDer::from_pem_file(ca.path("vault", "crt")).unwrap();
    assert_eq!(shown(&stream), own);
    drop(stream);
    let sent = vec![b'x'; 300_000];
    let read = exchange(&ca, https, "vault.example.com", &sent).await;
    let text = String::from_utf8_lossy(&read);
    let start = format!("vault PROXY TCP4 {} {} ", visitor.ip(), https.ip());
    assert!(text.starts_with(&start), "{}", &text[..80]);
    assert!(read.ends_with(&sent));
    let read = exchange(&ca, https, "a.deep.example.com", b"hello").await;
    assert_eq!(read, b"deep hello");
    // The commands show the tunnel as it is served.
    let (state, logs) = (
        server.state().display().to_string(),
        tempfile::tempdir().unwrap(),
    );
    let args = ["route", "test", "https://vault.example.com/"];
    let route = adit_e2e::run("adit", &args, &[("ADIT__STATE_DIR", &state)], logs.path()).await;
    assert_eq!(route.code, Some(0), "{} {}", route.stdout, route.stderr);
    assert!(route.stdout.contains("passed through"), "{}", route.stdout);
    let status = server.status().await;
    let kind = { status["tunnels"].as_array().unwrap().iter() }
        .find(|tunnel| tunnel["name"] == "vault")
        .map(|tunnel| tunnel["type"].clone());
    assert_eq!(kind, Some("tls".into()), "{status}");
    // The port serves other hosts as before, and the host keeps its tunnel for HTTP.
    let response = ca.http2(https, "www.example.com").await.get("/who").await;
    assert_eq!(response.text(), "site");
    let response = adit_e2e::get(server.http, "vault.example.com", "/who").await;
    assert_eq!(response.text(), "site");
    // A browser that takes the connection of the wildcard for it opens another one.
    let stream = ca.connect(https, "www.example.com", &["h2"]).await.unwrap();
    let mut visitor = Visitor::http2_over(stream, "vault.example.com").await;
    assert_eq!(
        visitor.get("/who").await.status,
        StatusCode::MISDIRECTED_REQUEST
    );
    let status = server.status().await;
    let mut tunnels = status["tunnels"].as_array().unwrap().iter();
    let vault = tunnels.find(|tunnel| tunnel["name"] == "vault").unwrap();
    let url = format!("tls://vault.example.com:{}", https.port());
    assert_eq!(vault["public_url"], url);
}

#[tokio::test]
async fn p_14_8_a_host_has_one_tunnel_for_its_tls() {
    let site = Service::site("site").await;
    let port = site.addr.port();
    let one = format!("name: one, type: tls, domain: a.example.com, local_port: {port}");
    let (_client, server, _) = world("", &[one]).await;
    for (id, tunnel) in [
        ("second", "name: two, type: tls, domain: a.example.com"),
        ("third", "name: three, type: http, domain: a.example.com"),
    ] {
        let config =
            format!("client:\n  group_id: {id}\n  tunnels: [{{ {tunnel}, local_port: {port} }}]\n");
        let mut client = Client::spawn(ClientOptions::file(&server, id, &config));
        eventually("a refusal", SOON, async || {
            let log = client.process().stderr();
            log.contains("host `a.example.com` is held by tunnel `one`")
                .then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn p_14_9_tls_ends_at_the_port_of_a_tcp_tunnel() {
    let ca = Ca::new();
    ca.issue("db", &["db.example.com"]);
    ca.issue("www", &["www.example.com"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                stream.write_all(b"clear ").await.unwrap();
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
            });
        }
    });
    let certificates = format!(
        "certificates: [{{ {} }}, {{ {} }}]",
        ca.keys("www"),
        ca.keys("db")
    );
    let tunnel =
        format!("name: db, type: tcp, tls: terminate, domain: db.example.com, local_port: {port}");
    let (_client, server, _) = world(&certificates, &[tunnel]).await;
    let status = server.status().await;
    let public = status["tunnels"][0]["port"].as_u64().unwrap();
    assert_eq!(
        status["tunnels"][0]["public_url"],
        format!("tls://db.example.com:{public}")
    );
    let addr = SocketAddr::new(server.tunnel.ip(), u16::try_from(public).unwrap());
    let sent = vec![b'y'; 200_000];
    let read = exchange(&ca, addr, "db.example.com", &sent).await;
    assert_eq!((&read[..6], read.len()), (&b"clear "[..], 6 + sent.len()));
    // A certificate for another host is not shown on this port: the host belongs to somebody else.
    let error = ca.connect(addr, "www.example.com", &[]).await.unwrap_err();
    assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    // A visitor that asks for no host gets the certificate of the tunnel's own.
    let error = ca.connect(addr, "127.0.0.1", &[]).await.unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
    let mut raw = adit_e2e::Raw::connect(addr).await;
    raw.send("clear text\r\n").await;
    assert!(raw.read_to_end().await.bytes.is_empty());
}

#[tokio::test]
async fn a_server_without_https_refuses_both() {
    let (server, site) = (Server::plain().await, Service::site("site").await);
    let port = site.addr.port();
    let config = format!(
        "client:\n  tunnels: [{{ name: a, type: tls, domain: a.example.com, local_port: {port} }}]\n"
    );
    let mut client = Client::spawn(ClientOptions::file(&server, "office", &config));
    eventually("a refusal", SOON, async || {
        let log = client.process().stderr();
        log.contains("it neither passes through nor terminates the TLS of visitors")
            .then_some(())
    })
    .await;
}
