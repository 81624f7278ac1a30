//! TLS on the tunnel: `server.tls` and `client.tls`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use adit_client::ClientTls;
use adit_config::{
    ClientOverrides, ConfigError, Loaded, ServerOverrides, load_client, load_server,
};
use adit_server::ServerTls;
use adit_tls::{Identity, Roots, TlsName, Trust};
use tempfile::TempDir;

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
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        write(&dir, &format!("{name}.crt"), &made.cert.pem());
        write(
            &dir,
            &format!("{name}.key"),
            &made.signing_key.serialize_pem(),
        );
    }
    dir
}

fn write(dir: &TempDir, name: &str, text: &str) {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
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
    let tls = |client_ca| Some(ServerTls::new(identity(&dir), client_ca).unwrap());
    let pair = "cert_file: server.crt, key_file: server.key";
    for (text, expected) in [
        ("off".to_owned(), None),
        ("false".to_owned(), None),
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
fn without_the_key_both_are_clear_text() {
    let server = load_server(None, variables(), &ServerOverrides::default()).unwrap();
    let client = load_client(None, variables(), &ClientOverrides::default()).unwrap();
    assert_eq!((server.settings.tls, client.settings.tls), (None, None));
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
        ("true".to_owned(), "expected `off`, or a section"),
        ("{}".to_owned(), "the key `cert_file` is missing"),
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
            "expected `true`, `off`, or a section",
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
    let expected = ServerTls::new(identity(&dir), None).unwrap();
    assert_eq!(settings.tls, Some(expected));
    let error = load(&text("    max_bandwidth: \"100MB\"\n")).unwrap_err();
    assert_eq!(error.key(), "server.limits.max_bandwidth");
    assert!(!error.to_string().contains("tls"), "{error}");
}
