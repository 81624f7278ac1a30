//! HTTPS for visitors: F03, F36, section 14 of the protocol.

mod acme;
mod certificates;
mod floods;
mod passage;
mod protocols;
mod redirects;
mod services;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use adit_e2e::{Client, ClientOptions, Server, Service, Visitor};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

const SOON: Duration = Duration::from_secs(30);

/// A certificate authority, and a directory with certificates of it.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        // Another name than that of the certificates, which would look self-signed.
        let name = rcgen::DnType::CommonName;
        params
            .distinguished_name
            .push(name, "a certificate authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        replace(&dir.path().join("ca.crt"), &issuer.pem());
        Self { issuer, dir }
    }

    /// Writes a certificate for these hosts, or replaces it: `FILE.crt` and `FILE.key`, one after the other, as tools that
    /// renew certificates do.
    pub(crate) fn issue(&self, file: &str, hosts: &[&str]) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(hosts).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        replace(&self.path(file, "crt"), &certificate.pem());
        replace(&self.path(file, "key"), &key.serialize_pem());
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, file: &str, kind: &str) -> PathBuf {
        self.dir.path().join(format!("{file}.{kind}"))
    }

    /// The keys of a certificate in a configuration.
    pub(crate) fn keys(&self, file: &str) -> String {
        let path = |kind| self.path(file, kind).display().to_string();
        format!("cert_file: {}, key_file: {}", path("crt"), path("key"))
    }

    /// A visitor's configuration that trusts this authority, and offers these protocols.
    pub(crate) fn config(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// A connection to a host, with these protocols.
    pub(crate) async fn connect(
        &self,
        addr: SocketAddr,
        host: &str,
        alpn: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connector = TlsConnector::from(self.config(alpn));
        connector.connect(name, stream).await
    }

    /// A visitor of a host over HTTP/1.1.
    pub(crate) async fn http1(&self, addr: SocketAddr, host: &str) -> Visitor {
        let stream = self.connect(addr, host, &["http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        Visitor::http1_over(stream, host).await
    }

    /// A visitor of a host over HTTP/2.
    pub(crate) async fn http2(&self, addr: SocketAddr, host: &str) -> Visitor {
        let stream = self.connect(addr, host, &["h2", "http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Visitor::http2_over(stream, host).await
    }
}

fn replace(file: &Path, text: &str) {
    let aside = file.with_extension("new");
    fs::write(&aside, text).unwrap();
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&aside, file).unwrap();
}

/// The certificate that a visitor was shown.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

/// A server with HTTPS by this section, and a client with these tunnels, each on one line of YAML.
pub(crate) async fn world(https: &str, tunnels: &[String]) -> (Client, Server, SocketAddr) {
    world_with(https, "", tunnels).await
}

/// The same with further keys of the server.
pub(crate) async fn world_with(
    https: &str,
    server: &str,
    tunnels: &[String],
) -> (Client, Server, SocketAddr) {
    let config = format!("server:\n  https: {{ bind_port: 0, {https} }}\n{server}");
    let server = Server::with(&config).await;
    let lines = tunnels
        .iter()
        .map(|tunnel| format!("    - {{ {tunnel} }}\n"));
    let config = format!("client:\n  tunnels:\n{}", lines.collect::<String>());
    let client = Client::start(ClientOptions::file(&server, "office", &config)).await;
    let https = server.https.unwrap();
    (client, server, https)
}

/// The keys of a tunnel of HTTP to this service.
pub(crate) fn tunnel(name: &str, domains: &str, service: &Service) -> String {
    let port = service.addr.port();
    format!("name: {name}, domains: [{domains}], local_port: {port}")
}
