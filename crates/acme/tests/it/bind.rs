//! Updates of BIND, signed with a key.

use std::{fs, process::Command, time::Duration};

use adit_acme::{Algorithm, Change, DnsProvider, DnsUpdate, Propagation, Record, TsigKey};
use tempfile::TempDir;

use crate::programs::{Program, free_port, installed, program};

const SECRET: &str = "m3DZeHb3A5dVQ3kpGkvEN3ObvNnBGRhUJ8t0DoOQq8c=";
const OTHER: &str = "AAAAeHb3A5dVQ3kpGkvEN3ObvNnBGRhUJ8t0DoOQq8c=";

struct Bind {
    port: u16,
    _dir: TempDir,
    _program: Program,
}

impl Bind {
    /// BIND with the zones `example.test` and `other.test`; the key may change TXT records of `example.test`.
    fn start() -> Option<Self> {
        if !installed(&["named"]) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (port, path) = (free_port(), dir.path());
        let zone = "$TTL 60\n@ SOA ns.example.test. admin.example.test. 1 60 60 60 60\n@ NS ns.example.test.\nns A 127.0.0.1\n\
            _acme-challenge.alias CNAME delegated.sub\n_acme-challenge.elsewhere CNAME a.other.test.\n";
        let other = "$TTL 60\n@ SOA ns.example.test. admin.example.test. 1 60 60 60 60\n@ NS ns.example.test.\n";
        fs::write(path.join("zone"), zone).unwrap();
        fs::write(path.join("other"), other).unwrap();
        let config = format!(
            r#"options {{ directory "{dir}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
                pid-file none; session-keyfile "{dir}/session.key"; recursion no; dnssec-validation no; }};
            controls {{ }};
            key "acme.key" {{ algorithm hmac-sha256; secret "{SECRET}"; }};
            key "long.key" {{ algorithm hmac-sha512; secret "{SECRET}"; }};
            zone "example.test" {{ type primary; file "{dir}/zone"; update-policy {{
                grant acme.key zonesub TXT; grant long.key zonesub TXT; }}; }};
            zone "other.test" {{ type primary; file "{dir}/other"; }};"#,
            dir = path.display(),
        );
        fs::write(path.join("named.conf"), config).unwrap();
        let mut command = Command::new(program("named")?);
        command.arg("-g").arg("-c").arg(path.join("named.conf"));
        Some(Self {
            port,
            _program: Program::start_until(&mut command, port, "all zones loaded"),
            _dir: dir,
        })
    }

    fn provider(&self, key: &str, algorithm: Algorithm, secret: &str) -> DnsProvider {
        DnsProvider::Update(DnsUpdate {
            server: format!("127.0.0.1:{}", self.port),
            zone: None,
            key: TsigKey::new(key, algorithm, secret).unwrap(),
            ttl: Duration::from_secs(60),
            timeout: Duration::from_secs(30),
        })
    }

    async fn has(&self, name: &str, value: &str) -> bool {
        let waited = Propagation {
            delay: Duration::ZERO,
            timeout: Duration::from_millis(1),
            interval: Duration::from_secs(1),
            exchange_timeout: Duration::from_secs(30),
            servers: vec![([127, 0, 0, 1], self.port).into()],
            resolvers: Vec::new(),
        };
        waited.wait(&record(name, value)).await.is_ok()
    }
}

fn record(name: &str, value: &str) -> Record {
    Record {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

#[tokio::test]
async fn an_update_adds_and_removes_one_value_of_a_record() {
    let Some(bind) = Bind::start() else { return };
    let name = "_acme-challenge.app.example.test";
    for (key, algorithm) in [
        ("acme.key", Algorithm::Sha256),
        ("long.key", Algorithm::Sha512),
    ] {
        let provider = bind.provider(key, algorithm, SECRET);
        for value in ["one", "two"] {
            let added = provider
                .change(Change::Add, "app.example.test", &record(name, value))
                .await;
            added.unwrap();
        }
        assert!(bind.has(name, "one").await && bind.has(name, "two").await);
        let removed = provider
            .change(Change::Remove, "app.example.test", &record(name, "one"))
            .await;
        removed.unwrap();
        assert!(!bind.has(name, "one").await && bind.has(name, "two").await);
        let removed = provider
            .change(Change::Remove, "app.example.test", &record(name, "two"))
            .await;
        removed.unwrap();
    }
}

#[tokio::test]
async fn an_update_follows_an_alias_of_the_record() {
    let Some(bind) = Bind::start() else { return };
    let provider = bind.provider("acme.key", Algorithm::Sha256, SECRET);
    let added = provider
        .change(
            Change::Add,
            "alias.example.test",
            &record("_acme-challenge.alias.example.test", "v"),
        )
        .await;
    added.unwrap();
    assert!(bind.has("delegated.sub.example.test", "v").await);
}

#[tokio::test]
async fn the_name_servers_of_a_record_are_found_behind_its_aliases() {
    let Some(bind) = Bind::start() else { return };
    let propagation = Propagation {
        resolvers: vec![([127, 0, 0, 1], bind.port).into()],
        ..Propagation::default()
    };
    for (host, target) in [
        ("app.example.test", "_acme-challenge.app.example.test"),
        ("alias.example.test", "delegated.sub.example.test"),
        ("elsewhere.example.test", "a.other.test"),
    ] {
        let record = record(&format!("_acme-challenge.{host}"), "v");
        let found = propagation.name_servers(&record).await.unwrap();
        assert_eq!(
            found,
            (target.to_owned(), vec!["ns.example.test".to_owned()])
        );
    }
    let unknown = record("_acme-challenge.a.unknown", "v");
    propagation.name_servers(&unknown).await.unwrap_err();
}

#[tokio::test]
async fn an_update_that_is_refused_says_why() {
    let Some(bind) = Bind::start() else { return };
    let cases = [
        (
            "acme.key",
            Algorithm::Sha256,
            OTHER,
            "app.example.test",
            "BADSIG",
        ),
        (
            "none.key",
            Algorithm::Sha256,
            SECRET,
            "app.example.test",
            "BADKEY",
        ),
        (
            "acme.key",
            Algorithm::Sha512,
            SECRET,
            "app.example.test",
            "BADKEY",
        ),
        (
            "acme.key",
            Algorithm::Sha256,
            SECRET,
            "elsewhere.example.test",
            "REFUSED",
        ),
        (
            "acme.key",
            Algorithm::Sha256,
            SECRET,
            "app.unknown.test",
            "no zone",
        ),
    ];
    for (key, algorithm, secret, host, expected) in cases {
        let provider = bind.provider(key, algorithm, secret);
        let record = record(&format!("_acme-challenge.{host}"), "v");
        let error = provider
            .change(Change::Add, host, &record)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{key} {host}: {error}");
        assert!(!error.contains(SECRET), "{error}");
    }
}

#[tokio::test]
async fn a_name_server_that_is_away_is_named() {
    let port = free_port();
    let update = DnsUpdate {
        server: format!("127.0.0.1:{port}"),
        zone: Some("example.test".to_owned()),
        key: TsigKey::new("acme.key", Algorithm::Sha256, SECRET).unwrap(),
        ttl: Duration::from_secs(60),
        timeout: Duration::from_secs(30),
    };
    let provider = DnsProvider::Update(update);
    let changed = provider
        .change(
            Change::Add,
            "a.example.test",
            &record("_acme-challenge.a.example.test", "v"),
        )
        .await;
    let error = changed.unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
}
