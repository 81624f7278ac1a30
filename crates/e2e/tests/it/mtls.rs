//! Clients whose certificates of a CA of the users are their credentials: F33.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use adit_e2e::{Client, ClientOptions, Raw, Server, Service, eventually, get, run, stays};
use http::StatusCode;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};

const SOON: Duration = Duration::from_secs(30);

/// The name in the certificate of the server.
const NAME: &str = "tunnel.example.com";

/// A certificate authority.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Writes a certificate and its key to files of this name.
    fn issue(&self, dir: &Path, file: &str, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        // The key first: a client that reads one of each rejects the pair, and reads it again.
        replace(&dir.join(format!("{file}.key")), &key.serialize_pem());
        replace(&dir.join(format!("{file}.crt")), &certificate.pem());
    }

    /// A certificate of a client for this user.
    fn user(&self, dir: &Path, file: &str, user: &str, until: SystemTime) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = until.into();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(dir, file, &params);
    }
}

fn replace(file: &Path, text: &str) {
    let aside = file.with_extension("new");
    fs::write(&aside, text).unwrap();
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&aside, file).unwrap();
}

fn in_an_hour() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

/// A server, the CA of its users, and a directory of certificates.
struct World {
    ca: Ca,
    dir: tempfile::TempDir,
    server: Server,
}

impl World {
    async fn new(auth: &str, tls: &str) -> Self {
        let (ca, dir) = (Ca::new("users"), tempfile::tempdir().unwrap());
        let of_server = Ca::new("server");
        let params = CertificateParams::new([NAME.to_owned()]).unwrap();
        of_server.issue(dir.path(), "server", &params);
        replace(&dir.path().join("server-ca.crt"), &of_server.0.pem());
        replace(&dir.path().join("users-ca.crt"), &ca.0.pem());
        let at = dir.path().display();
        let config = format!(
            "server:\n  tls: {{ cert_file: {at}/server.crt, key_file: {at}/server.key, client_ca_file: {at}/users-ca.crt{tls} }}\n  auth: {auth}\n"
        );
        let server = Server::with(&config).await;
        Self { ca, dir, server }
    }

    /// A client with the certificate of these files, if there are any, and these settings.
    fn client(&self, id: &str, file: Option<&str>, service: &Service, more: &str) -> ClientOptions {
        let at = self.dir.path().display();
        let own = file.map_or_else(String::new, |file| {
            format!(", cert_file: {at}/{file}.crt, key_file: {at}/{file}.key")
        });
        let config = format!(
            "client:\n  client_id: {id}\n  group_id: {id}\n  server_addr: {}\n  server_port: {}\n  tls: {{ ca_file: {at}/server-ca.crt, \
             server_name: {NAME}{own} }}\n  reconnect: {{ initial_delay: 50ms, max_delay: 200ms }}\n  tunnels: [{{ name: {id}, \
             local_port: {}, custom_domains: [{id}.localhost] }}]\n{more}",
            self.server.tunnel.ip(),
            self.server.tunnel.port(),
            service.addr.port(),
        );
        let mut options = ClientOptions::file(&self.server, id, &config);
        options.state = self.server.state().join(format!("of-{id}"));
        fs::create_dir_all(&options.state).unwrap();
        options
    }

    async fn admin(&self, args: &[&str]) {
        let dir = self.server.state().display().to_string();
        let logs = tempfile::tempdir().unwrap();
        let done = run(
            "adit-server",
            args,
            &[("ADIT__STATE_DIR", &dir)],
            logs.path(),
        )
        .await;
        assert_eq!(done.code, Some(0), "{args:?}: {}", done.stderr);
    }

    /// The epoch of the client with this id, which is of this user.
    async fn epoch(&self, id: &str, user: &str) -> u64 {
        eventually("the client in the status", SOON, async || {
            let status = self.server.status().await;
            let clients = status["clients"].as_array()?;
            let client = clients.iter().find(|one| one["client_id"] == id)?;
            assert_eq!(client["user"], user, "{status}");
            client["epoch"].as_u64()
        })
        .await
    }
}

async fn responds(http: SocketAddr, host: &str) {
    eventually("a response", SOON, async || {
        let response = get(http, host, "/who").await;
        (response.status == StatusCode::OK).then_some(())
    })
    .await;
}

async fn logs(client: &mut Client, text: &str) {
    eventually(text, SOON, async || {
        client.process().stderr().contains(text).then_some(())
    })
    .await;
}

/// A request that the service holds.
async fn held(world: &World, host: &str, service: &Service) -> Raw {
    let begun = service.stats.begun();
    let mut running = Raw::connect(world.server.http).await;
    running
        .send(format!(
            "POST /held HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ))
        .await;
    eventually("a running request", SOON, async || {
        (service.stats.begun() > begun).then_some(())
    })
    .await;
    running
}

#[tokio::test]
async fn p_1_23_a_certificate_is_the_user_that_it_names_until_the_user_is_removed() {
    let world = World::new("{ method: mtls, users: [alice] }", "").await;
    let service = Service::site("site").await;
    world.admin(&["user", "add", "bob", "--group", "two"]).await;
    world
        .ca
        .user(world.dir.path(), "alice", "alice", in_an_hour());
    world.ca.user(world.dir.path(), "bob", "bob", in_an_hour());
    let _one = Client::start(world.client("one", Some("alice"), &service, "")).await;
    let mut two = Client::start(world.client("two", Some("bob"), &service, "")).await;
    responds(world.server.http, "one.localhost").await;
    responds(world.server.http, "two.localhost").await;
    let first = world.epoch("one", "alice").await;
    let second = world.epoch("two", "bob").await;
    // Changed scopes: the client registers again, within them.
    world
        .admin(&["user", "set", "bob", "--group", "two", "--max-tunnels", "1"])
        .await;
    eventually("another link", SOON, async || {
        (world.epoch("two", "bob").await > second).then_some(())
    })
    .await;
    responds(world.server.http, "two.localhost").await;
    let mut running = held(&world, "two.localhost", &service).await;
    let removed = Instant::now();
    world.admin(&["user", "revoke", "bob"]).await;
    running.read_to_end().await;
    // The command took a part of it.
    let within = removed.elapsed();
    assert!(within < Duration::from_secs(5), "{within:?}");
    logs(&mut two, "did not accept these credentials").await;
    assert_eq!(world.epoch("one", "alice").await, first);
}

#[tokio::test]
async fn p_1_23_an_expired_certificate_ends_its_link_and_a_new_one_begins_another() {
    let world = World::new("{ method: mtls, users: [alice] }", "").await;
    let service = Service::site("site").await;
    let end = SystemTime::now() + Duration::from_secs(12);
    world.ca.user(world.dir.path(), "alice", "alice", end);
    let mut one = Client::start(world.client("one", Some("alice"), &service, "")).await;
    responds(world.server.http, "one.localhost").await;
    let mut running = held(&world, "one.localhost", &service).await;
    running.read_to_end().await;
    // Times in certificates are whole seconds.
    let late = SystemTime::now().duration_since(end).unwrap_or_default();
    assert!(late < Duration::from_secs(1), "{late:?}");
    logs(&mut one, "it has expired").await;
    world
        .ca
        .user(world.dir.path(), "alice", "alice", in_an_hour());
    logs(&mut one, "uses the changed `client.tls`").await;
    responds(world.server.http, "one.localhost").await;
}

#[tokio::test]
async fn p_1_23_each_refusal_of_a_certificate_says_what_to_do() {
    let mut world = World::new("{ method: mtls, users: [alice] }", "").await;
    let service = Service::site("site").await;
    let others = Ca::new("others");
    others.user(world.dir.path(), "foreign", "alice", in_an_hour());
    let ended = SystemTime::now() - Duration::from_secs(60);
    world.ca.user(world.dir.path(), "expired", "alice", ended);
    world
        .ca
        .user(world.dir.path(), "unknown", "eve", in_an_hour());
    world
        .ca
        .user(world.dir.path(), "nameless", "a b", in_an_hour());
    let token = "  auth_token: an-unknown-token\n";
    let common = "the server did not accept these credentials: check auth_token, auth_token_file or ADIT__TOKEN, or the \
                  certificate of client.tls";
    for (id, file, more, expected) in [
        (
            "foreign",
            Some("foreign"),
            "",
            "its CA is not one of `server.tls.client_ca_file`",
        ),
        (
            "expired",
            Some("expired"),
            "",
            "it has expired, or a clock is wrong",
        ),
        (
            "none",
            None,
            token,
            "the server requires a client certificate; set `cert_file`",
        ),
        ("unknown", Some("unknown"), "", common),
        ("nameless", Some("nameless"), "", common),
        // A text takes the place of the certificate.
        ("text", Some("unknown"), token, common),
    ] {
        let mut client = Client::spawn(world.client(id, file, &service, more));
        logs(&mut client, expected).await;
    }
    for cause in [
        "unknown user of a certificate",
        "certificate without exactly one valid user name",
        "unknown token",
    ] {
        eventually(cause, SOON, async || {
            let log = world.server.process().stderr();
            log.contains(cause).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn p_1_23_a_certificate_may_be_one_of_several_credentials() {
    let auth = "[{ method: mtls, user_from: cn, users: [{ user: alice, scopes: { groups: [one] } }] }, { user: bob, token: a-token-of-bob }]";
    let world = World::new(auth, ", require_client_certificate: false").await;
    let service = Service::site("site").await;
    world
        .ca
        .user(world.dir.path(), "alice", "alice", in_an_hour());
    let _one = Client::start(world.client("one", Some("alice"), &service, "")).await;
    let token = "  auth_token: a-token-of-bob\n";
    let _two = Client::start(world.client("two", None, &service, token)).await;
    let mut three = Client::spawn(world.client("three", Some("alice"), &service, ""));
    responds(world.server.http, "one.localhost").await;
    responds(world.server.http, "two.localhost").await;
    world.epoch("one", "alice").await;
    world.epoch("two", "bob").await;
    logs(&mut three, "groups").await;
    // The CA is replaced: links of its certificates end, others stay.
    let epoch = world.epoch("two", "bob").await;
    replace(
        &world.dir.path().join("users-ca.crt"),
        &Ca::new("next").0.pem(),
    );
    eventually("the end of the link", SOON, async || {
        let status = world.server.status().await;
        let clients = status["clients"].as_array()?;
        clients
            .iter()
            .all(|one| one["client_id"] != "one")
            .then_some(())
    })
    .await;
    stays("the other link", Duration::from_secs(1), async || {
        world.epoch("two", "bob").await == epoch
    })
    .await;
}
