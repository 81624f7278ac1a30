//! HTTPS for visitors: `server.https`.

use std::{fs, path::Path};

use adit_config::{ConfigError, ServerOverrides, load_server};
use adit_server::{AcmeHosts, HttpsSettings};
use tempfile::TempDir;

use crate::private_files::{write, write_certificate};

/// A directory with a certificate and its key for each of these hosts; the file of the last one has the name `ip`.
fn files() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (file, name) in [
        ("a", "a.example"),
        ("b", "*.b.example"),
        ("ip", "192.0.2.1"),
    ] {
        write_certificate(&dir, file, name);
    }
    dir
}

fn load(dir: &TempDir, https: &str) -> Result<Option<HttpsSettings>, ConfigError> {
    let path = dir.path().join("server.yaml");
    fs::write(
        &path,
        format!("server: {{ bind_addr: 192.0.2.7, {https} }}\n"),
    )
    .unwrap();
    let home = [("HOME".to_owned(), "/nonexistent".to_owned())];
    let loaded = load_server(Some(&path), home.into_iter(), &ServerOverrides::default())?;
    let watched = |name: &str| {
        loaded
            .files
            .iter()
            .any(|file| file.ends_with(Path::new(name)))
    };
    assert_eq!(
        watched("a.crt") && watched("a.key"),
        https.contains("a.crt")
    );
    Ok(loaded.settings.https)
}

fn names(https: &HttpsSettings) -> Vec<String> {
    let certificates = https.certificates.iter();
    certificates
        .flat_map(|certificate| certificate.names())
        .collect()
}

#[test]
fn one_certificate_or_a_list_is_read() {
    let dir = files();
    assert_eq!(load(&dir, "").unwrap(), None);
    let https = load(
        &dir,
        "https: { bind_port: 443, cert_file: a.crt, key_file: a.key }",
    );
    let https = https.unwrap().unwrap();
    assert_eq!(https.addr.to_string(), "192.0.2.7:443");
    assert_eq!(
        (names(&https), https.default),
        (vec!["a.example".to_owned()], None)
    );
    let https = load(
        &dir,
        "https: { certificates: [{ cert_file: a.crt, key_file: a.key }, { cert_file: b.crt, key_file: b.key }, \
         { cert_file: ip.crt, key_file: ip.key, default: true }] }",
    );
    let https = https.unwrap().unwrap();
    assert_eq!(https.addr.port(), 7443);
    assert_eq!(names(&https), ["a.example", "*.b.example"]);
    assert_eq!(https.default.as_ref(), https.certificates.last());
    // Tunnels whose visitors' TLS is not opened need no certificate.
    let https = load(&dir, "https: { bind_port: 0 }").unwrap().unwrap();
    assert!(https.certificates.is_empty());
}

#[test]
fn certificates_that_cannot_serve_are_refused() {
    let dir = files();
    for (https, expected) in [
        (
            "cert_file: ip.crt, key_file: ip.key",
            "server.https.cert_file: the certificate is for no host",
        ),
        ("cert_file: a.crt, key_file: b.key", "server.https.key_file"),
        (
            "cert_file: a.crt, key_file: a.key, certificates: [{ cert_file: b.crt, key_file: b.key }]",
            "expected either `cert_file` or a list `certificates`",
        ),
        (
            "certificates: [{ cert_file: a.crt, key_file: a.key, default: true }, { cert_file: b.crt, key_file: b.key, default: true }]",
            "more than one certificate is the default",
        ),
        (
            "certificates: [{ key_file: a.key }]",
            "server.https.certificates[0]: the key `cert_file` is missing",
        ),
    ] {
        let error = load(&dir, &format!("https: {{ {https} }}")).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn certificates_of_a_ca_have_their_settings() {
    use adit_server::acme::{DnsProvider, LETS_ENCRYPT, Validation};
    let dir = files();
    write(&dir, "key", "c2VjcmV0LXNlY3JldA==\n");
    let acme = |section: &str| {
        let https = load(&dir, &format!("https: {{ acme: {{ {section} }} }}"));
        https.map(|https| https.unwrap().acme.unwrap())
    };
    let least = acme("email: admin@example.com").unwrap();
    assert_eq!(least.production.directory(), LETS_ENCRYPT);
    assert_eq!(least.validation, Validation::Http01);
    assert!(least.staging.is_some());
    let bounds =
        acme("max_new_names_per_user: 7, max_new_names_per_domain: 8, keep_unused: 3d").unwrap();
    let names = (
        bounds.policy.owner_names.most,
        bounds.policy.domain_names.most,
    );
    assert_eq!(names, (7, 8));
    assert_eq!(bounds.keep_unused.as_secs(), 3 * 86_400);
    for (section, hosts) in [
        ("hosts: all", AcmeHosts::All),
        ("hosts: asked", AcmeHosts::Asked),
        ("email: a@b.example", AcmeHosts::All),
    ] {
        let https = load(&dir, &format!("https: {{ acme: {{ {section} }} }}"));
        assert_eq!(https.unwrap().unwrap().acme_hosts, hosts, "{section}");
    }
    let other =
        acme("directory: 'https://ca.example/dir', challenge: tls-alpn-01, max_orders: 7").unwrap();
    assert_eq!(
        (other.validation.name(), other.max_orders),
        ("tls-alpn-01", 7)
    );
    assert!(other.staging.is_none());
    let command = acme("dns_command: [/usr/bin/hook, --fast], dns_command_timeout: 5s").unwrap();
    let Validation::Dns01(dns) = &command.validation else {
        panic!("{command:?}");
    };
    let DnsProvider::Command(hook) = &dns.provider else {
        panic!("{dns:?}");
    };
    assert_eq!((&*hook.program, hook.args.len()), ("/usr/bin/hook", 1));
    let update = "dns_update: { server: ns.example, key_name: acme, key_file: key }";
    let update = acme(update).unwrap();
    let Validation::Dns01(dns) = &update.validation else {
        panic!("{update:?}");
    };
    let DnsProvider::Update(update) = &dns.provider else {
        panic!("{dns:?}");
    };
    assert_eq!(update.server, "ns.example:53");
    assert!(!format!("{update:?}").contains("c2Vj"));
    for (section, expected) in [
        ("directory: 'http://ca.example'", "https://"),
        ("email: admin", "admin@example.com"),
        ("challenge: dns-02", "`http-01`, `tls-alpn-01` or `dns-01`"),
        ("challenge: dns-01", "dns_command"),
        ("challenge: http-01, dns_command: [x]", "challenge: dns-01"),
        ("eab_key_id: kid", "eab_key_file"),
        ("dns_update: { server: ns.example }", "key_name"),
        ("dns_command: []", "found nothing"),
        ("hosts: some", "`all` or `asked`"),
        ("max_new_names_per_user: 0", "1 to"),
        ("keep_unused: soon", "90d"),
        ("mail: x", "unknown"),
    ] {
        let error = acme(section).unwrap_err().to_string();
        assert!(error.contains(expected), "{section}: {error}");
    }
}
