//! Certificates from a CA, here Pebble, for the hosts of tunnels (F36).

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use adit_e2e::{
    Client, ClientOptions, Process, Server, Service, Visitor, eventually, own_address,
    programs::program,
};
use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{shown, tunnel};

/// The time for an order on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A CA that resolves every name to the server, and validates at the ports of the server.
struct Pebble {
    dir: TempDir,
    ip: Ipv4Addr,
    processes: Vec<Process>,
}

impl Pebble {
    /// The address is known before the CA runs: the server's ports are not.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["root.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&root_key).unwrap();
        let issuer = Issuer::new(params, root_key);
        let (ip, key) = (own_address(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::IpAddress(ip.into()));
        let certificate = params.signed_by(&key, &issuer).unwrap();
        for (name, pem) in [
            ("root.pem", root.pem()),
            ("cert.pem", certificate.pem()),
            ("key.pem", key.serialize_pem()),
        ] {
            fs::write(dir.path().join(name), pem).unwrap();
        }
        Self {
            dir,
            ip,
            processes: Vec::new(),
        }
    }

    /// The section of the server.
    fn section(&self, challenge: &str) -> String {
        let root = self.path("root.pem");
        format!(
            "acme: {{ directory: 'https://{}:14000/dir', ca_file: {root}, challenge: {challenge} }}",
            self.ip
        )
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    async fn start(&mut self, server: &Server) {
        let ip = self.ip;
        let config = json!({"pebble": {
            "listenAddress": format!("{ip}:14000"),
            "managementListenAddress": "",
            "certificate": self.path("cert.pem"),
            "privateKey": self.path("key.pem"),
            "httpPort": server.http.port(),
            "tlsPort": server.https.unwrap().port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        }});
        fs::write(self.path("pebble.json"), config.to_string()).unwrap();
        let (dns, management) = (format!("{ip}:8053"), format!("{ip}:8055"));
        let host = server.http.ip().to_string();
        let names = [
            ("-defaultIPv4", &*host),
            ("-defaultIPv6", ""),
            ("-http01", ""),
            ("-https01", ""),
            ("-tlsalpn01", ""),
            ("-dns01", &dns),
            ("-management", &management),
        ];
        let names: Vec<_> = names
            .iter()
            .flat_map(|(key, value)| [*key, value])
            .collect();
        self.spawn("pebble-challtestsrv", &names, 8055).await;
        let config = self.path("pebble.json");
        let args = ["-config", &config, "-dnsserver", &dns];
        self.spawn("pebble", &args, 14000).await;
    }

    async fn spawn(&mut self, name: &str, args: &[&str], port: u16) {
        let env = [
            ("PEBBLE_VA_SLEEPTIME".to_owned(), "1".to_owned()),
            ("PEBBLE_WFE_NONCEREJECT".to_owned(), "20".to_owned()),
        ];
        let dir: &Path = self.dir.path();
        self.processes
            .push(Process::spawn(name, &program(name), args, &env, dir));
        let addr = SocketAddr::from((self.ip, port));
        eventually("a CA", PATIENCE, async || {
            TcpStream::connect(addr).await.ok().map(drop)
        })
        .await;
    }
}

/// Accepts every certificate: the root of the CA is made when it starts.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = aws_lc_rs::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

async fn connect(addr: SocketAddr, host: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    let stream = TcpStream::connect(addr).await?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await
}

/// The state of a host in the status of the server.
fn state(status: &Value, host: &str) -> Option<String> {
    let all = status.pointer("/https/acme")?.as_array()?;
    let own = all.iter().find(|one| one["name"] == host)?;
    own["state"].as_str().map(str::to_owned)
}

async fn obtains(challenge: &str) {
    let (mut pebble, service) = (Pebble::new(), Service::site("site").await);
    let section = pebble.section(challenge);
    let config = format!("server:\n  https: {{ bind_port: 7443, {section} }}\n");
    let mut server = Server::with(&config).await;
    pebble.start(&server).await;
    let own = tunnel("web", "app.example.com", &service);
    let config = format!("client:\n  tunnels:\n    - {{ {own} }}\n");
    let client = Client::start(ClientOptions::file(&server, "office", &config)).await;
    let valid = async |server: &Server| {
        eventually("a certificate", PATIENCE, async || {
            let status = server.status().await;
            (state(&status, "app.example.com")? == "valid").then_some(())
        })
        .await;
    };
    valid(&server).await;
    let stream = connect(server.https.unwrap(), "app.example.com")
        .await
        .unwrap();
    let first = shown(&stream);
    let mut visitor = Visitor::http1_over(stream, "app.example.com").await;
    assert_eq!(visitor.get("/who").await.status, StatusCode::OK);
    // A host without a tunnel has none.
    connect(server.https.unwrap(), "other.example.com")
        .await
        .unwrap_err();

    // A restart of the server loads it: the CA is away.
    pebble.processes.clear();
    drop(visitor);
    server.terminate();
    server.exit(PATIENCE).await;
    server.restart().await;
    valid(&server).await;
    let again = connect(server.https.unwrap(), "app.example.com")
        .await
        .unwrap();
    assert_eq!(shown(&again), first);
    drop(client);
}

#[tokio::test]
async fn a_host_gets_a_certificate_by_http_01_that_a_restart_keeps() {
    obtains("http-01").await;
}

#[tokio::test]
async fn a_host_gets_a_certificate_by_tls_alpn_01_that_a_restart_keeps() {
    obtains("tls-alpn-01").await;
}

/// The certificate that visitors of the host are shown, as soon as there is one.
async fn first_shown(server: &Server, host: &str) -> CertificateDer<'static> {
    eventually("a certificate", PATIENCE, async || {
        let stream = connect(server.https.unwrap(), host).await.ok()?;
        Some(shown(&stream))
    })
    .await
}

#[tokio::test]
async fn p_14_10_only_tunnels_that_request_a_certificate_get_one() {
    let (mut pebble, service) = (Pebble::new(), Service::site("site").await);
    let section = pebble
        .section("http-01")
        .replace("acme: {", "acme: { hosts: asked,");
    let config = format!("server:\n  https: {{ bind_port: 7443, {section} }}\n");
    let mut server = Server::with(&config).await;
    pebble.start(&server).await;
    let tunnels = [
        tunnel("web", "app.example.com", &service) + ", ssl_cert: auto",
        tunnel("plain", "plain.example.com", &service),
        tunnel("vain", "vain.localhost", &service) + ", ssl_cert: auto",
    ];
    let tunnels = tunnels
        .map(|tunnel| format!("    - {{ {tunnel} }}\n"))
        .concat();
    let config = format!("client:\n  tunnels:\n{tunnels}");
    let mut client = Client::start(ClientOptions::file(&server, "office", &config)).await;
    let first = first_shown(&server, "app.example.com").await;
    let status = server.status().await;
    assert_eq!(state(&status, "plain.example.com"), None, "{status}");
    let status = client.status().await;
    let note = |name: &str| {
        let tunnels = status["tunnels"].as_array().unwrap();
        let own = tunnels.iter().find(|tunnel| tunnel["name"] == name);
        own.unwrap()["note"].as_str().map(str::to_owned)
    };
    assert_eq!((note("web"), note("plain")), (None, None));
    let vain = note("vain").unwrap();
    assert!(vain.contains("no CA issues a certificate"), "{vain}");
    let log = client.process().stderr();
    assert!(log.contains("no CA issues a certificate"), "{log}");

    // A restart serves it before the tunnel is back, so that its URL is `https` at once.
    pebble.processes.clear();
    client.kill();
    server.terminate();
    server.exit(PATIENCE).await;
    server.restart().await;
    let again = connect(server.https.unwrap(), "app.example.com")
        .await
        .unwrap();
    assert_eq!(shown(&again), first);
    client.restart().await;
    let out = eventually("the URL of the tunnel", PATIENCE, async || {
        let out = client.process().stdout();
        out.contains("app.example.com").then_some(out)
    })
    .await;
    assert!(out.contains("https://app.example.com"), "{out}");
}
