//! TLS on the tunnel: `server.tls` and `client.tls`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use adit_client::ClientTls;
use adit_config::{
    ClientOverrides, ConfigError, Loaded, RunningServer, ServerOverrides, StateDir, load_client,
    load_server,
};
use adit_server::{OwnCaSettings, ServerTls, TunnelTls};
use adit_tls::{Identity, Roots, TlsName, Trust};
use tempfile::TempDir;

use crate::private_files::{write, write_certificate};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn variables() -> impl Iterator<Item = (String, String)> {
    [
        ("HOME", "/nonexistent"),
        ("HOSTNAME", "box"),
        ("ADIT__TOKEN", "a-token"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

/// A directory with a certificate, which is its own CA, and its key; and a certificate of another key.
fn files() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["server", "other"] {
        write_certificate(&dir, name, "a.example");
    }
    dir
}

fn read(dir: &TempDir, name: &str) -> Vec<u8> {
    fs::read(dir.path().join(name)).unwrap()
}

fn identity(dir: &TempDir) -> Identity {
    Identity::from_pem(&read(dir, "server.crt"), &read(dir, "server.key")).unwrap()
}

fn roots(dir: &TempDir) -> Roots {
    Roots::from_pem(&read(dir, "server.crt")).unwrap()
}

fn server(dir: &TempDir, tls: &str) -> Result<Loaded<adit_server::Settings>, ConfigError> {
    let text = format!("server:\n  tls: {tls}\n");
    load_server(
        Some(&file(dir, &text)),
        variables(),
        &ServerOverrides::default(),
    )
}

fn client(dir: &TempDir, tls: &str) -> Result<Loaded<adit_client::Settings>, ConfigError> {
    let text = format!("client:\n  tls: {tls}\n");
    load_client(
        Some(&file(dir, &text)),
        variables(),
        &ClientOverrides::default(),
    )
}

fn file(dir: &TempDir, text: &str) -> PathBuf {
    write(dir, "adit.yaml", text);
    dir.path().join("adit.yaml")
}

#[test]
fn a_server_has_a_certificate_or_clear_text() {
    let dir = files();
    let tls = |client_ca: Option<Roots>| {
        TunnelTls::Certificate(ServerTls::new(identity(&dir), client_ca.into()).unwrap())
    };
    let own = TunnelTls::OwnCa;
    let pair = "cert_file: server.crt, key_file: server.key";
    for (text, expected) in [
        ("off".to_owned(), TunnelTls::Off),
        ("false".to_owned(), TunnelTls::Off),
        ("auto".to_owned(), TunnelTls::Auto),
        ("true".to_owned(), own(OwnCaSettings::default())),
        ("{}".to_owned(), own(OwnCaSettings::default())),
        (
            "{ names: [a.example, 192.0.2.1], certificate_lifetime: 30d, ca_lifetime: 12000h }"
                .to_owned(),
            own(OwnCaSettings {
                names: ["a.example", "192.0.2.1"]
                    .map(|name| TlsName::parse(name).unwrap())
                    .to_vec(),
                certificate_lifetime: 30 * DAY,
                ca_lifetime: 500 * DAY,
            }),
        ),
        (format!("{{ {pair} }}"), tls(None)),
        (
            format!("{{ {pair}, client_ca_file: server.crt }}"),
            tls(Some(roots(&dir))),
        ),
    ] {
        let loaded = server(&dir, &text).unwrap();
        assert_eq!(loaded.settings.tls, expected, "{text}");
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
    // The files are watched with the configuration.
    let loaded = server(&dir, &format!("{{ {pair} }}")).unwrap();
    let names = ["adit.yaml", "server.crt", "server.key"];
    assert_eq!(loaded.files, names.map(|name| dir.path().join(name)));
}

#[test]
fn a_client_states_which_server_it_trusts() {
    let dir = files();
    let tls = |trust, name: Option<&str>, identity| {
        let name = name.map(|name| TlsName::parse(name).unwrap());
        Some(ClientTls::new(trust, name, identity).unwrap())
    };
    let digits = "ab".repeat(32);
    for (text, expected) in [
        ("off", None),
        ("false", None),
        // The server is on loopback.
        ("auto", None),
        ("true", tls(Trust::System, None, None)),
        ("{}", tls(Trust::System, None, None)),
        (
            "{ ca_file: server.crt, server_name: b.example }",
            tls(Trust::Roots(roots(&dir)), Some("b.example"), None),
        ),
        (
            &format!("{{ ca_fingerprint: {digits} }}"),
            tls(Trust::Pinned(digits.parse().unwrap()), None, None),
        ),
        (
            "{ cert_file: server.crt, key_file: server.key }",
            tls(Trust::System, None, Some(identity(&dir))),
        ),
    ] {
        let loaded = client(&dir, text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.settings.tls, expected, "{text}");
    }
}

#[test]
fn without_the_key_a_connection_beyond_loopback_is_encrypted() {
    let server = load_server(None, variables(), &ServerOverrides::default()).unwrap();
    assert_eq!(server.settings.tls, TunnelTls::Auto);
    let by_system = ClientTls::new(Trust::System, None, None).unwrap();
    for (host, expected) in [
        ("127.0.0.1", None),
        ("127.8.0.1", None),
        ("\"::1\"", None),
        ("localhost", None),
        ("192.0.2.1", Some(&by_system)),
        ("localhost.example", Some(&by_system)),
    ] {
        let dir = files();
        let file = file(&dir, &format!("client: {{ server_addr: {host} }}\n"));
        let client = load_client(Some(&file), variables(), &ClientOverrides::default());
        let tls = client.unwrap().settings.tls;
        assert_eq!(tls.as_ref(), expected, "{host}");
    }
}

/// A server on this machine with its own CA, which listens on every address.
#[test]
fn a_client_trusts_the_server_of_its_state_directory() {
    let dir = files();
    let state = StateDir::new(dir.path());
    let addr = |port| ([0, 0, 0, 0], port).into();
    let server = RunningServer {
        pid: 1,
        tunnel_addr: addr(7777),
        http_addr: addr(7080),
        https_addr: None,
        admin_addr: None,
        own_ca: true,
    };
    fs::write(state.server_file(), serde_json::to_vec(&server).unwrap()).unwrap();
    let load = |text: &str| {
        let text = format!(
            "client: {{ state_dir: {}, {text} }}\n",
            dir.path().display()
        );
        let file = file(&dir, &text);
        load_client(Some(&file), variables(), &ClientOverrides::default())
    };
    let missing = load("").unwrap_err();
    assert!(missing.to_string().contains("ca.crt"), "{missing}");
    fs::create_dir(dir.path().join("tls")).unwrap();
    fs::copy(dir.path().join("server.crt"), state.ca_file()).unwrap();
    let name = TlsName::parse("server.adit.internal").unwrap();
    let own = ClientTls::new(Trust::Roots(roots(&dir)), Some(name), None).unwrap();
    for (text, expected) in [
        ("", Some(&own)),
        ("server_addr: 127.0.0.1, server_port: 7777", Some(&own)),
        ("server_addr: localhost, server_port: 7777", Some(&own)),
        ("server_addr: \"::1\", server_port: 7777", Some(&own)),
        ("server_port: 7778", None),
        ("tls: off", None),
    ] {
        let loaded = load(text).unwrap();
        assert_eq!(loaded.settings.tls.as_ref(), expected, "{text}");
        let is_watched = loaded.files.contains(&state.ca_file());
        assert_eq!(is_watched, expected.is_some(), "{text}");
    }
    // A server that listens on one address of this machine.
    let announce = |server: &RunningServer| {
        fs::write(state.server_file(), serde_json::to_vec(server).unwrap()).unwrap();
    };
    let at = RunningServer {
        tunnel_addr: ([192, 0, 2, 1], 7777).into(),
        ..server
    };
    announce(&at);
    assert_eq!(load("").unwrap().settings.tls, Some(own.clone()));
    let loopback = load("server_addr: 127.0.0.1, server_port: 7777").unwrap();
    assert_eq!(loopback.settings.tls, None, "another server");
    // A server that does not run yet.
    fs::remove_file(state.server_file()).unwrap();
    let later = load("server_addr: 127.0.0.1").unwrap();
    assert_eq!(later.settings.tls, Some(own));
    // A damaged file does not matter to a client that names its server.
    fs::write(state.server_file(), "{").unwrap();
    assert!(load("server_addr: 127.0.0.1, server_port: 1").is_ok());
    assert!(load("").is_err());
}

/// In clear text, a proxy of the environment could read everything.
#[test]
fn a_proxy_of_the_environment_is_for_tls_only() {
    let dir = files();
    let load = |keys: &str| {
        let text = format!("client: {{ {keys} }}\n");
        let environment =
            variables().chain([("ALL_PROXY".to_owned(), "http://proxy:3128".to_owned())]);
        let loaded = load_client(
            Some(&file(&dir, &text)),
            environment,
            &ClientOverrides::default(),
        );
        let proxy = loaded.unwrap().settings.proxy;
        proxy.map(|proxy| proxy.to_string())
    };
    let proxy = || Some("http://proxy:3128".to_owned());
    assert_eq!(load("server_addr: a.example"), proxy());
    assert_eq!(load("server_addr: a.example, proxy: auto"), proxy());
    assert_eq!(load("server_addr: a.example, proxy: off"), None);
    assert_eq!(load("server_addr: a.example, tls: off"), None);
    assert_eq!(load("server_addr: 127.0.0.1"), None);
    let other = "server_addr: a.example, tls: off, proxy: \"socks5://other:1080\"";
    assert_eq!(load(other), Some("socks5://other:1080".to_owned()));
}

/// The key that an error names, its line and column, and a part of its text.
fn is_refused(error: &ConfigError, key: &str, column: usize, text: &str) {
    let found = (error.key(), error.line(), error.column());
    assert_eq!(found, (key, Some(2), Some(column)), "{error}");
    assert!(error.message().contains(text), "{error}");
    assert!(!error.to_string().contains("PRIVATE KEY-----\n"), "{error}");
}

#[test]
fn bad_files_are_refused_at_their_place() {
    let dir = files();
    write(&dir, "large.pem", &"-".repeat((4 << 20) + 1));
    let both = |cert: &str, key: &str| format!("{{ cert_file: {cert}, key_file: {key} }}");
    let key_at = 37;
    for (tls, key, column, text) in [
        (
            both("missing.crt", "server.key"),
            "cert_file",
            21,
            "cannot be read",
        ),
        (
            both("server.key", "server.key"),
            "cert_file",
            21,
            "no certificate in PEM found",
        ),
        (
            both("large.pem", "server.key"),
            "cert_file",
            21,
            "larger than 4 MiB",
        ),
        (
            both("server.crt", "missing"),
            "key_file",
            key_at + 6,
            "cannot be read",
        ),
        (
            both("server.crt", "server.crt"),
            "key_file",
            key_at + 6,
            "no private key in PEM found",
        ),
        (
            both("server.crt", "other.key"),
            "key_file",
            key_at + 6,
            "does not belong to the first certificate",
        ),
        (
            both("server.crt", "large.pem"),
            "key_file",
            key_at + 6,
            "larger than 65536 bytes",
        ),
    ] {
        let error = server(&dir, &tls).unwrap_err();
        is_refused(&error, &format!("server.tls.{key}"), column, text);
        let error = client(&dir, &tls).unwrap_err();
        is_refused(&error, &format!("client.tls.{key}"), column, text);
    }
}

#[test]
fn keys_that_lack_or_contradict_each_other_are_refused() {
    let dir = files();
    let digits = "ab".repeat(32);
    for (tls, text) in [
        (
            "perhaps".to_owned(),
            "expected `auto`, `off`, `true`, or a section",
        ),
        (
            "{ cert_file: server.crt, key_file: server.key, names: a.example }".to_owned(),
            "`names` is for certificates of the server's own CA",
        ),
        (
            "{ names: [\"a b\"] }".to_owned(),
            "expected a host name or an address",
        ),
        (
            "{ certificate_lifetime: 1s }".to_owned(),
            "expected a lifetime from 3s to 36500d",
        ),
        (
            "{ ca_lifetime: 36501d }".to_owned(),
            "expected a lifetime from 3s to 36500d",
        ),
        (
            "{ ca_lifetime: 99999999999999999999d }".to_owned(),
            "expected a lifetime from 3s to 36500d",
        ),
        (
            "{ ca_lifetime: 10d }".to_owned(),
            "a CA cannot expire before the certificates",
        ),
        (
            "{ client_ca_file: server.crt }".to_owned(),
            "the key `cert_file` is missing",
        ),
        (
            "{ cert_file: server.crt }".to_owned(),
            "the key `key_file` is missing",
        ),
        (
            "{ cert_file: server.crt, key_file: server.key, ca_file: server.crt }".to_owned(),
            "unknown key `ca_file`",
        ),
    ] {
        let error = server(&dir, &tls).unwrap_err();
        assert!(error.message().contains(text), "{tls}: {error}");
    }
    for (tls, text) in [
        (
            "yes please".to_owned(),
            "expected `auto`, `off`, `true`, or a section",
        ),
        (
            format!("{{ ca_file: server.crt, ca_fingerprint: {digits} }}"),
            "expected either `ca_file` or `ca_fingerprint`",
        ),
        (
            "{ ca_fingerprint: abc }".to_owned(),
            "64 hexadecimal digits",
        ),
        (
            "{ key_file: server.key }".to_owned(),
            "the key `cert_file` is missing",
        ),
        (
            "{ server_name: \"a b\" }".to_owned(),
            "expected a host name or an address",
        ),
        ("{ insecure: true }".to_owned(), "unknown key `insecure`"),
    ] {
        let error = client(&dir, &tls).unwrap_err();
        assert!(error.message().contains(text), "{tls}: {error}");
    }
}

#[test]
fn a_key_that_others_can_read_is_a_warning_and_one_that_they_can_write_an_error() {
    let dir = files();
    let pair = "{ cert_file: server.crt, key_file: server.key }";
    let key = dir.path().join("server.key");
    let with_mode = |mode| {
        fs::set_permissions(Path::new(&key), fs::Permissions::from_mode(mode)).unwrap();
        server(&dir, pair)
    };
    let warnings = with_mode(0o644).unwrap().warnings;
    assert!(warnings[0].contains("chmod 600"), "{warnings:?}");
    let error = with_mode(0o666).unwrap_err();
    assert_eq!(error.key(), "server.tls.key_file");
}

/// The example of a complete server; the one key of it that this version lacks is the one error.
#[test]
fn the_example_with_tls_is_read() {
    let dir = files();
    let text = |limits: &str| {
        format!(
            "server:
  bind_port: 7000
  bind_addr: 0.0.0.0
  max_clients: 1000

  tls:
    cert_file: server.crt
    key_file: server.key

  auth:
    method: token
    token: \"your-auth-token\"

  limits:
    max_tunnels_per_client: 10
{limits}"
        )
    };
    let load = |text: &str| {
        let file = file(&dir, text);
        load_server(Some(&file), variables(), &ServerOverrides::default())
    };
    let settings = load(&text("")).unwrap().settings;
    let expected = ServerTls::new(identity(&dir), None.into()).unwrap();
    assert_eq!(settings.tls, TunnelTls::Certificate(expected));
    let settings = load(&text("    max_bandwidth: \"100MB\"\n"))
        .unwrap()
        .settings;
    let bandwidth = settings.limits.traffic.per_client.max_bandwidth;
    assert_eq!(bandwidth.map(std::num::NonZeroU64::get), Some(100_000_000));
}
