//! Orders at Pebble, which refuses nonces, reuses authorizations, validates late and forgets everything at a restart.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use adit_acme::{
    AlpnAnswer, Ca, Challenges, Dns01, DnsCommand, DnsProvider, Propagation, Settings, State,
    Validation,
};
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    ca::ListenerCa,
    programs::{Program, free_port, installed, program},
    support::{Run, quick},
};

const BINDING_ID: &str = "kid-1";
const BINDING_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

/// Pebble with its name server, and this machine's listeners for validations.
struct World {
    dir: TempDir,
    listener: ListenerCa,
    challenges: Challenges,
    pebble_port: u16,
    dns_port: u16,
    management_port: u16,
    /// While it is set, HTTP responds with something else.
    wrong: Arc<AtomicBool>,
    _dns: Program,
    listeners: [AbortHandle; 2],
}

impl World {
    /// `None` if Pebble is not installed.
    async fn new(binding: bool) -> Option<Self> {
        if !installed(&["pebble", "pebble-challtestsrv"]) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let challenges = Challenges::new();
        let wrong = Arc::new(AtomicBool::new(false));
        let (http_port, http) = serve_http(challenges.clone(), wrong.clone()).await;
        let (tls_port, tls) = serve_tls(challenges.clone()).await;
        let (dns_port, management_port) = (free_port(), free_port());
        let dns = Program::start(
            Command::new(program("pebble-challtestsrv")?).args([
                "-defaultIPv6",
                "",
                "-http01",
                "",
                "-https01",
                "",
                "-tlsalpn01",
                "",
                "-dns01",
                &format!("127.0.0.1:{dns_port}"),
                "-management",
                &format!("127.0.0.1:{management_port}"),
            ]),
            management_port,
        );
        let listener = ListenerCa::new();
        let pebble_port = free_port();
        let file = |name: &str, content: &str| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            path
        };
        let certificate = file("cert.pem", &listener.certificate_pem);
        let key = file("key.pem", &listener.key_pem);
        let mut keys = serde_json::Map::new();
        keys.insert(BINDING_ID.to_owned(), BINDING_KEY.into());
        let config = serde_json::json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{pebble_port}"),
            "managementListenAddress": "",
            "certificate": certificate,
            "privateKey": key,
            "httpPort": http_port,
            "tlsPort": tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": binding,
            "externalAccountMACKeys": keys,
        }});
        file("pebble.json", &config.to_string());
        Some(Self {
            dir,
            listener,
            challenges,
            pebble_port,
            dns_port,
            management_port,
            wrong,
            _dns: dns,
            listeners: [http, tls],
        })
    }

    /// Pebble refuses four of ten nonces, reuses half of the authorizations, and validates after up to a second.
    fn pebble(&self) -> Program {
        Program::start(
            Command::new(program("pebble").unwrap())
                .arg("-strict")
                .arg("-config")
                .arg(self.dir.path().join("pebble.json"))
                .arg("-dnsserver")
                .arg(format!("127.0.0.1:{}", self.dns_port))
                .env("PEBBLE_WFE_NONCEREJECT", "40")
                .env("PEBBLE_VA_SLEEPTIME", "1"),
            self.pebble_port,
        )
    }

    fn ca(&self) -> Ca {
        let directory = format!("https://127.0.0.1:{}/dir", self.pebble_port);
        let ca = Ca::new(&directory)
            .unwrap()
            .with_roots(self.listener.roots());
        ca.with_email("admin@example.com").unwrap()
    }

    fn settings(&self, validation: Validation) -> Settings {
        Settings {
            policy: quick(),
            ..Settings::new(self.ca(), validation)
        }
    }

    fn run(&self, validation: Validation) -> Run {
        Run::start(self.settings(validation), &self.store(), &self.challenges)
    }

    fn store(&self) -> std::path::PathBuf {
        self.dir.path().join("acme")
    }

    /// dns-01 by a program that changes the records of Pebble's name server, and writes down each call.
    fn dns_command(&self) -> Validation {
        let script = r#"
            echo "$ACME_ACTION $ACME_RECORD $ACME_DOMAIN" >> "$2"
            case $ACME_ACTION in
                add) path=set-txt; body="{\"host\":\"$ACME_RECORD.\",\"value\":\"$ACME_VALUE\"}" ;;
                remove) path=clear-txt; body="{\"host\":\"$ACME_RECORD.\"}" ;;
            esac
            exec 3<>"/dev/tcp/127.0.0.1/$1"
            printf 'POST /%s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s' "$path" "${#body}" "$body" >&3
            grep -q 200 <&3
        "#;
        let port = self.management_port.to_string();
        let calls = self.calls().display().to_string();
        Validation::Dns01(Box::new(Dns01 {
            provider: DnsProvider::Command(DnsCommand {
                program: "/bin/bash".to_owned(),
                args: ["-euc", script, "hook", &port, &calls]
                    .map(str::to_owned)
                    .to_vec(),
                timeout: Duration::from_secs(60),
            }),
            propagation: Propagation {
                interval: Duration::from_millis(50),
                servers: vec![([127, 0, 0, 1], self.dns_port).into()],
                ..Propagation::default()
            },
        }))
    }

    fn calls(&self) -> std::path::PathBuf {
        self.dir.path().join("calls")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for listener in &self.listeners {
            listener.abort();
        }
    }
}

/// The HTTP port: ACME's answers, and a service behind it.
async fn serve_http(challenges: Challenges, wrong: Arc<AtomicBool>) -> (u16, AbortHandle) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (challenges, wrong) = (challenges.clone(), wrong.clone());
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                let _ = stream.read_line(&mut line).await;
                let path = line.split(' ').nth(1).unwrap_or_default();
                let answer = challenges.http01(path);
                let answer = answer.filter(|_| !wrong.load(Ordering::SeqCst));
                let (status, body) =
                    answer.map_or((404, "another service".into()), |body| (200, body));
                let length = body.len();
                let response = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                // The rest of the head is read first: unread bytes would reset the connection.
                while line != "\r\n" && !line.is_empty() {
                    line.clear();
                    let _ = stream.read_line(&mut line).await;
                }
                let _ = stream.write_all(response.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (port, task.abort_handle())
}

/// A resolver as the HTTPS port has one.
#[derive(Debug)]
struct Resolver(Challenges);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match self.0.tls_alpn01(&hello) {
            AlpnAnswer::Challenge(key) => Some(key),
            AlpnAnswer::Visitor | AlpnAnswer::NoChallenge => None,
        }
    }
}

async fn serve_tls(challenges: Challenges) -> (u16, AbortHandle) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider);
    let config = config
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth();
    let mut config = config.with_cert_resolver(Arc::new(Resolver(challenges)));
    config.alpn_protocols = vec![b"h2".to_vec(), adit_acme::ACME_TLS_ALPN.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    (port, task.abort_handle())
}

fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for ca in fs::read_dir(dir).unwrap() {
        for file in fs::read_dir(ca.unwrap().path()).unwrap() {
            found.push(file.unwrap().file_name().into_string().unwrap());
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn http_01_obtains_certificates_that_a_restart_keeps() {
    let Some(world) = World::new(false).await else {
        return;
    };
    let _pebble = world.pebble();
    let run = world.run(Validation::Http01);
    let names = [
        "a.example.com",
        "b.example.com",
        "c.example.com",
        "d.example.com",
        "e.example.com",
    ];
    run.want(&names);
    for name in names {
        run.certificate(name).await;
        assert_eq!(run.state(name), Some(State::Valid));
    }
    assert_eq!(run.stats().issued, 5);
    assert_eq!(run.stats().orders, 5, "refused nonces are no failures");
    let first = run.served("a.example.com").unwrap();
    run.shutdown().await;
    assert_eq!(
        files(&world.store()).len(),
        11,
        "an account, five certificates, five records"
    );

    let again = world.run(Validation::Http01);
    again.want(&["a.example.com"]);
    let loaded = again.certificate("a.example.com").await;
    assert_eq!(loaded.lifetime().expires, first.lifetime().expires);
    assert_eq!(again.stats().orders, 0);
    again
        .until("wanted", |run| run.status("a.example.com").is_some())
        .await;
    again.want(&[]);
    again
        .until("withdrawn", |run| run.served("a.example.com").is_none())
        .await;
    assert!(again.status("a.example.com").is_none());
}

#[tokio::test]
async fn a_wrong_answer_is_explained_and_tried_again() {
    let Some(world) = World::new(false).await else {
        return;
    };
    let _pebble = world.pebble();
    world.wrong.store(true, Ordering::SeqCst);
    let run = world.run(Validation::Http01);
    run.want(&["a.example.com"]);
    let error = run
        .error("a.example.com", "something else than this server")
        .await;
    assert!(
        error.contains("http://a.example.com/.well-known/acme-challenge/"),
        "{error}"
    );
    assert!(run.stats().failed_validation >= 1);
    world.wrong.store(false, Ordering::SeqCst);
    run.certificate("a.example.com").await;
    run.until("without an error", |run| {
        run.status("a.example.com").unwrap().last_error.is_none()
    })
    .await;
}

#[tokio::test]
async fn tls_alpn_01_obtains_a_certificate() {
    let Some(world) = World::new(false).await else {
        return;
    };
    let _pebble = world.pebble();
    let run = world.run(Validation::TlsAlpn01);
    run.want(&["a.example.com", "b.example.com"]);
    run.certificate("a.example.com").await;
    run.certificate("b.example.com").await;
}

#[tokio::test]
async fn dns_01_by_a_program_obtains_a_wildcard_and_its_base() {
    let Some(world) = World::new(false).await else {
        return;
    };
    let _pebble = world.pebble();
    let run = world.run(world.dns_command());
    run.want(&["*.example.com", "example.com"]);
    run.certificate("*.example.com").await;
    run.certificate("example.com").await;
    run.shutdown().await;
    let calls = fs::read_to_string(world.calls()).unwrap();
    let lines: Vec<_> = calls.lines().collect();
    let call = |action: &str| format!("{action} _acme-challenge.example.com example.com");
    // One after the other, because the program replaces records of the same name. Pebble may reuse an authorization.
    for pair in lines.chunks(2) {
        assert_eq!(pair, [call("add"), call("remove")], "{calls}");
    }
}

#[tokio::test]
async fn a_shutdown_in_a_validation_removes_its_record() {
    let Some(world) = World::new(false).await else {
        return;
    };
    let _pebble = world.pebble();
    let Validation::Dns01(mut dns) = world.dns_command() else {
        panic!("not dns-01");
    };
    // A name server that never has the record: the order waits for it.
    let elsewhere = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    dns.propagation.servers = vec![elsewhere.local_addr().unwrap()];
    dns.propagation.timeout = Duration::from_secs(3600);
    let run = world.run(Validation::Dns01(dns));
    run.want(&["a.example.com"]);
    let calls = || fs::read_to_string(world.calls()).unwrap_or_default();
    run.until("added", |_| calls().contains("add ")).await;
    run.shutdown().await;
    assert!(
        calls().contains("remove _acme-challenge.a.example.com"),
        "{}",
        calls()
    );
}

#[tokio::test]
async fn a_ca_that_is_away_is_tried_until_it_comes_back() {
    let Some(world) = World::new(false).await else {
        return;
    };
    let run = world.run(Validation::Http01);
    run.want(&["a.example.com"]);
    let error = run.error("a.example.com", "cannot be reached").await;
    assert!(error.contains("127.0.0.1"), "{error}");
    let pebble = world.pebble();
    run.certificate("a.example.com").await;

    // After a restart the CA knows neither the account nor its nonces.
    drop(pebble);
    let _pebble = world.pebble();
    run.want(&["a.example.com", "b.example.com"]);
    run.certificate("b.example.com").await;
    assert!(run.served("a.example.com").is_some());
    assert_eq!(run.stats().failed_refused, 0);
}

#[tokio::test]
async fn a_ca_that_requires_an_external_account_gets_one() {
    let Some(world) = World::new(true).await else {
        return;
    };
    let _pebble = world.pebble();
    let run = world.run(Validation::Http01);
    run.want(&["a.example.com"]);
    run.error("a.example.com", "external account").await;
    run.shutdown().await;

    let ca = world
        .ca()
        .with_external_account(BINDING_ID, BINDING_KEY)
        .unwrap();
    let settings = Settings {
        production: ca,
        ..world.settings(Validation::Http01)
    };
    let run = Run::start(settings, &world.dir.path().join("bound"), &world.challenges);
    run.want(&["a.example.com"]);
    run.certificate("a.example.com").await;
}

#[tokio::test]
async fn a_ca_with_an_unknown_certificate_is_refused() {
    let Some(world) = World::new(false).await else {
        return;
    };
    let _pebble = world.pebble();
    let directory = format!("https://127.0.0.1:{}/dir", world.pebble_port);
    let other = Ca::new(&directory)
        .unwrap()
        .with_roots(ListenerCa::new().roots());
    let settings = Settings {
        production: other,
        ..world.settings(Validation::Http01)
    };
    let run = Run::start(settings, &world.store(), &world.challenges);
    run.want(&["a.example.com"]);
    run.error("a.example.com", "certificate").await;
}
