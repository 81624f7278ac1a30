//! TLS on the tunnel: F32, with certificate files.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use adit_e2e::{Client, ClientOptions, HOST, Load, Server, Service, count, eventually, get};
use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(30);

/// The name in the certificates of the server.
const NAME: &str = "tunnel.example.com";

/// A certificate authority.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Replaces the certificate and the key of a server, one after the other, as tools that renew certificates do.
    fn issue(&self, dir: &Path) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([NAME.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        replace(&dir.join("server.crt"), &certificate.pem());
        replace(&dir.join("server.key"), &key.serialize_pem());
    }

    /// Replaces the certificate that clients trust.
    fn trust(&self, dir: &Path) {
        replace(&dir.join("ca.crt"), &self.0.pem());
    }
}

fn replace(file: &Path, text: &str) {
    let aside = file.with_extension("new");
    fs::write(&aside, text).unwrap();
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&aside, file).unwrap();
}

/// A server with a certificate of `ca`, in this directory.
async fn server(ca: &Ca, dir: &TempDir) -> Server {
    ca.issue(dir.path());
    let dir = dir.path().display();
    let tls = format!("cert_file: {dir}/server.crt, key_file: {dir}/server.key");
    Server::with(&format!("server: {{ tls: {{ {tls} }} }}\n")).await
}

/// A client with this value of `client.tls`.
fn client(server: &Server, service: &Service, tls: &str) -> ClientOptions {
    let port = service.addr.port();
    let config = format!(
        "client:\n  tls: {tls}\n  reconnect: {{ initial_delay: 50ms, max_delay: 50ms }}\n  tunnels: [{{ name: web, local_port: {port} }}]\n"
    );
    ClientOptions::file(server, "client-1", &config)
}

/// The value of `client.tls` that trusts the CA in this directory.
fn trusting(dir: &TempDir) -> String {
    let dir = dir.path().display();
    format!("{{ ca_file: {dir}/ca.crt, server_name: {NAME} }}")
}

#[tokio::test]
async fn requests_go_on_while_certificates_are_replaced() {
    let (ca, next, dir) = (Ca::new(), Ca::new(), tempfile::tempdir().unwrap());
    ca.trust(dir.path());
    let mut server = server(&ca, &dir).await;
    let service = Service::site("site").await;
    let mut client = Client::start(client(&server, &service, &trusting(&dir))).await;
    server.wait_for_clients(1).await;
    let load = Load::start(server.http, HOST, "site").await;
    for _ in 0..3 {
        ca.issue(dir.path());
        server.reload().await;
        load.goes_on().await;
    }
    // A bad file changes nothing, and is reported with the place of its key.
    let key = dir.path().join("server.key");
    let good = fs::read_to_string(&key).unwrap();
    replace(&key, "no key");
    server.process().signal("HUP");
    let error = eventually("a rejected file", SOON, async || {
        let status = server.status().await;
        status["config"]["last_error"].as_str().map(str::to_owned)
    })
    .await;
    assert!(error.contains("server.tls.key_file"), "{error}");
    assert!(error.contains("no private key in PEM found"), "{error}");
    load.goes_on().await;
    replace(&key, &good);
    eventually("the good file", SOON, async || {
        let status = server.status().await;
        status["config"]["last_error"].is_null().then_some(())
    })
    .await;
    // Another CA at both ends: the running connection goes on.
    next.trust(dir.path());
    client.process().signal("HUP");
    eventually("the client's other CA", SOON, async || {
        let log = client.process().stderr();
        log.contains("uses the changed `client.tls`").then_some(())
    })
    .await;
    next.issue(dir.path());
    server.reload().await;
    load.goes_on().await;
    load.stop().await;
    let status = server.status().await;
    assert_eq!(status["visitors"]["failures"], serde_json::json!({}));
    // The next connection uses both.
    server.restart().await;
    eventually("a response over the next connection", SOON, async || {
        let response = get(server.http, HOST, "/who").await;
        (response.status == StatusCode::OK).then_some(())
    })
    .await;
    let log = client.process().stderr();
    assert!(!log.contains("certificate"), "{log}");
}

#[tokio::test]
async fn each_end_logs_why_a_handshake_failed() {
    let (ca, other, dir) = (Ca::new(), Ca::new(), tempfile::tempdir().unwrap());
    other.trust(dir.path());
    let mut encrypted = server(&ca, &dir).await;
    let plain = Server::plain().await;
    let service = Service::site("site").await;
    let trusting = trusting(&dir);
    for (server, tls, expected) in [
        (
            &encrypted,
            &*trusting,
            "the server's certificate is not signed by a trusted CA; set `client.tls.ca_file` to the file with the certificate of its CA",
        ),
        (
            &encrypted,
            "off",
            "uses TLS, and this client does not: set `client.tls` to `true`",
        ),
        (
            &plain,
            &*trusting,
            "the server does not speak TLS; is the port right? Set `server.tls` on the server",
        ),
    ] {
        let mut client = Client::spawn(client(server, &service, tls));
        let dials = eventually("several dials", SOON, async || {
            client.process().assert_running();
            client.admin()?;
            let dials = count(&client.status().await, "/cores/reconnect_dials");
            // The log is written by a thread of its own.
            (dials >= 3 && client.process().stderr().contains(expected)).then_some(dials)
        })
        .await;
        let log = client.process().stderr();
        let lines = log.lines().filter(|line| line.contains(expected));
        assert_eq!(lines.count(), 1, "after {dials} dials: {log}");
    }
    for expected in [
        "the client rejected the server's certificate",
        "the client does not speak TLS; set `client.tls` on the client",
    ] {
        // Lines that peers can cause at will appear once a second.
        eventually(expected, SOON, async || {
            encrypted
                .process()
                .stderr()
                .contains(expected)
                .then_some(())
        })
        .await;
    }
}
