//! `method: mtls`: certificates of a CA of the users, on both sides.

use std::{fs, os::unix::fs::PermissionsExt};

use adit_auth::{CertificateUser, Scopes};
use adit_config::{
    ClientOverrides, ConfigError, Loaded, ServerOverrides, load_client, load_server,
};
use adit_server::{Settings, TunnelTls};
use tempfile::TempDir;

/// A directory with a certificate, which is its own CA, and its key.
fn files() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    for (name, text) in [("a.crt", made.cert.pem()), ("a.key", key)] {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    dir
}

const TLS: &str = "cert_file: a.crt, key_file: a.key, client_ca_file: a.crt";

fn server(tls: &str, auth: &str) -> Result<Loaded<Settings>, ConfigError> {
    let dir = files();
    let file = dir.path().join("adit.yaml");
    let text = format!("server:\n  tls: {{ {tls} }}\n  auth: {auth}\n");
    fs::write(&file, text).unwrap();
    load_server(Some(&file), std::iter::empty(), &ServerOverrides::default())
}

fn error(tls: &str, auth: &str) -> String {
    server(tls, auth).unwrap_err().to_string()
}

#[test]
fn users_have_certificates_and_scopes() {
    let auth = "{ method: mtls, users: [alice, { user: bob, scopes: { max_tunnels: 2 } }] }";
    let loaded = server(TLS, auth).unwrap();
    let rules = loaded.settings.certificates.unwrap();
    assert_eq!(rules.user, CertificateUser::CommonName);
    let users: Vec<_> = { rules.users.iter() }
        .map(|(user, scopes)| (user.as_str(), scopes.max_tunnels))
        .collect();
    assert_eq!(users, [("alice", None), ("bob", Some(2))]);
    assert_eq!(rules.users["alice"], Scopes::default());
    assert!(
        !loaded.settings.makes_token,
        "no token is generated beside it"
    );
    assert_eq!(loaded.settings.tls.client_cas().len(), 1);
    assert!(loaded.files.iter().any(|file| file.ends_with("a.crt")));
}

#[test]
fn a_name_of_the_certificate_is_chosen() {
    let user = |keys: &str| {
        let loaded = server(TLS, &format!("{{ method: mtls, {keys} }}")).unwrap();
        loaded.settings.certificates.unwrap().user
    };
    assert_eq!(user("user_from: cn"), CertificateUser::CommonName);
    assert_eq!(user("user_from: san_dns"), CertificateUser::DnsName);
    let prefix = "spiffe://example.com/client/".to_owned();
    assert_eq!(
        user(&format!("user_from: san_uri, uri_prefix: '{prefix}'")),
        CertificateUser::Uri { prefix }
    );
    for (keys, expected) in [
        ("user_from: san_uri", "`uri_prefix`"),
        ("user_from: san_uri, uri_prefix: ''", "`uri_prefix`"),
        ("user_from: email", "expected `cn`, `san_dns` or `san_uri`"),
        ("uri_prefix: 'spiffe://a/'", "`user_from: san_uri` only"),
        ("users: [alice, alice]", "listed twice"),
        ("users: ['a b']", "user"),
        ("users: [{ scopes: {} }]", "`user`"),
        ("user: alice", "`users`"),
        ("ca_file: a.crt", "server.tls.client_ca_file"),
    ] {
        let error = error(TLS, &format!("{{ method: mtls, {keys} }}"));
        assert!(error.contains(expected), "{keys}: {error}");
    }
}

#[test]
fn certificates_need_a_ca_and_may_be_optional_only_as_credentials() {
    let without = "cert_file: a.crt, key_file: a.key";
    for tls in [without, "names: [a.example]"] {
        let error = error(tls, "{ method: mtls }");
        assert!(error.contains("server.tls.client_ca_file"), "{error}");
    }
    let twice = error(TLS, "[{ method: mtls }, { method: mtls }]");
    assert!(twice.contains("listed twice"), "{twice}");
    let optional = format!("{TLS}, require_client_certificate: false");
    let both = "[{ method: mtls }, { user: bob, token: a-token-of-bob }]";
    for (tls, is_optional) in [(TLS, false), (&*optional, true)] {
        let settings = server(tls, both).unwrap().settings;
        let TunnelTls::Certificate(tls) = settings.tls else {
            panic!("{:?}", settings.tls)
        };
        assert_eq!(tls.has_optional_client_certificates(), is_optional);
    }
    let error_of_token = error(&optional, "{ token: a-token-of-bob }");
    assert!(
        error_of_token.contains("`method: mtls`"),
        "{error_of_token}"
    );
    let no_ca = error(
        &format!("{without}, require_client_certificate: false"),
        "{ token: a-token-of-bob }",
    );
    assert!(no_ca.contains("client_ca_file"), "{no_ca}");
}

#[test]
fn a_client_with_a_certificate_needs_no_token() {
    let dir = files();
    let file = dir.path().join("adit.yaml");
    let load = |keys: &str| {
        let at = dir.path().display();
        let text = format!(
            "client: {{ state_dir: {at}, server_addr: a.example, tunnels: [{{ name: web, local_port: 80 }}], {keys} }}\n"
        );
        fs::write(&file, text).unwrap();
        load_client(Some(&file), std::iter::empty(), &ClientOverrides::default())
    };
    // The token of an earlier server on this machine is not for the one with certificates.
    let token = dir.path().join("token");
    fs::write(&token, "a-token-of-this-machine").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let own = "tls: { cert_file: a.crt, key_file: a.key }";
    let loaded = load(own).unwrap();
    assert!(loaded.settings.token.is_none());
    for name in ["a.crt", "a.key"] {
        assert!(
            loaded.files.contains(&dir.path().join(name)),
            "it is watched"
        );
    }
    let given = load(&format!("{own}, auth_token: a-token")).unwrap();
    assert!(given.settings.token.is_some());
    assert!(load("tls: true").unwrap().settings.token.is_some());
}
