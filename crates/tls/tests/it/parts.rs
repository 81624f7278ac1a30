//! What certificates and keys are made of, and the errors of their files.

use adit_tls::{ClientTls, Identity, IdentityError, Roots, ServerTls, Trust};
use rcgen::KeyPair;

use crate::support::{Ca, HOST, named};

#[test]
fn a_key_belongs_to_its_certificate() {
    let ca = Ca::new("ca");
    let (certificate, key) = ca.issue(&named(HOST));
    let read = |certificate: &str, key: &str| {
        Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap_err()
    };
    let (_, other) = ca.issue(&named(HOST));
    assert_eq!(read(&certificate, &other), IdentityError::OtherKey);
    assert_eq!(read(&key, &key), IdentityError::NoCertificate);
    assert_eq!(read(&certificate, &certificate), IdentityError::NoKey);
    let broken = key.replacen("\nM", "\nA", 1);
    assert_eq!(read(&certificate, &broken), IdentityError::Key);
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    assert_eq!(read(&certificate, &encrypted), IdentityError::NoKey);
    let damaged = certificate.replacen("\nM", "\nA", 1);
    let error = read(&damaged, &key);
    assert!(
        matches!(error, IdentityError::Certificate { number: 1, .. }),
        "{error}"
    );
    assert!(!error.is_of_key() && IdentityError::OtherKey.is_of_key());
    // Both may be in one file.
    let both = certificate + &key;
    Identity::from_pem(both.as_bytes(), both.as_bytes()).unwrap();
}

#[test]
fn no_text_contains_the_key() {
    let ca = Ca::new("ca");
    let (certificate, key) = ca.issue(&named(HOST));
    let identity = || Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
    let server = ServerTls::new(identity(), Some(ca.roots()).into()).unwrap();
    let client = ClientTls::new(Trust::System, None, Some(identity())).unwrap();
    let other = KeyPair::generate().unwrap().serialize_pem();
    let errors = [
        other,
        key.replacen("\nM", "\nA", 1),
        key.replacen("\nM", "\n\u{1}", 1),
    ]
    .map(|bad| Identity::from_pem(certificate.as_bytes(), bad.as_bytes()).unwrap_err());
    let shown = format!("{server:?} {client:?} {:?} {errors:?}", identity());
    let lines = key.lines().filter(|line| !line.starts_with('-'));
    for line in lines {
        let middle = &line[line.len() / 4..line.len() / 2];
        assert!(!shown.contains(middle), "{shown}");
    }
}

#[test]
fn values_are_equal_by_their_certificates() {
    let ca = Ca::new("ca");
    let (certificate, key) = ca.issue(&named(HOST));
    let identity = || Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
    let server = |ca: Option<Roots>| ServerTls::new(identity(), ca.into()).unwrap();
    assert_eq!(server(None), server(None));
    assert_ne!(server(None), server(Some(ca.roots())));
    assert_ne!(server(None), ca.server());
    let client = |trust| ClientTls::new(trust, None, None).unwrap();
    assert_eq!(client(ca.trust()), client(ca.trust()));
    assert_ne!(client(ca.trust()), client(Trust::Pinned(ca.fingerprint())));
}
