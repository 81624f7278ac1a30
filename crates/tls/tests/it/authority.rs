//! A server's own CA.

use std::time::{Duration, SystemTime};

use adit_tls::{
    Acceptor, Authority, AuthorityError, Cause, ClientTls, Connector, Fingerprint,
    MAX_AUTHORITY_BYTES, Roots, SERVER_NAME, ServerTls, TlsName, Trust,
};
use secrecy::ExposeSecret;

use crate::support::{Ca, HOST, WITHIN, carries, client, client_named, connected, named, refused};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn now() -> SystemTime {
    SystemTime::now()
}

fn authority() -> Authority {
    Authority::generate(10 * YEAR, now()).unwrap()
}

/// A server with a certificate for the name of all servers alone.
fn server(authority: &Authority) -> ServerTls {
    let issued = authority.issue_server(&[], 90 * DAY, now()).unwrap();
    ServerTls::new(issued.identity, None.into()).unwrap()
}

/// A client that trusts what a file of the CA contains now, and expects the name of all servers.
fn knows(authority: &Authority) -> ClientTls {
    let roots = Roots::from_pem(authority.roots_pem(now()).as_bytes()).unwrap();
    client_named(Trust::Roots(roots), SERVER_NAME)
}

async fn connects(client: ClientTls, server: ServerTls) {
    let connector = Connector::new(Some(client), WITHIN);
    let acceptor = Acceptor::new(Some(server));
    carries(&mut connected(&connector, &acceptor).await).await;
}

#[tokio::test]
async fn a_client_that_knows_the_ca_needs_no_name_of_the_host() {
    let authority = authority();
    connects(knows(&authority), server(&authority)).await;
    let pinned = Trust::Pinned(authority.fingerprint().unwrap());
    connects(client(pinned), server(&authority)).await;
}

#[tokio::test]
async fn a_certificate_is_for_the_names_given() {
    let authority = authority();
    let names = [HOST, "192.0.2.1", "2001:db8::1"].map(|name| TlsName::parse(name).unwrap());
    let issued = authority.issue_server(&names, 90 * DAY, now()).unwrap();
    let roots = Roots::from_pem(authority.roots_pem(now()).as_bytes()).unwrap();
    for name in [HOST, "192.0.2.1", "2001:db8::1"] {
        let client = client_named(Trust::Roots(roots.clone()), name);
        connects(
            client,
            ServerTls::new(issued.identity.clone(), None.into()).unwrap(),
        )
        .await;
    }
    let other = client_named(Trust::Roots(roots), "other.example.com");
    let (near, _) = refused(other, ServerTls::new(issued.identity, None.into()).unwrap()).await;
    assert!(matches!(near.cause(), Cause::WrongName { .. }), "{near:?}");
}

/// Each generation of a CA is trusted by the clients that know an earlier one alone, or a later one alone.
#[tokio::test]
async fn a_client_of_an_earlier_generation_trusts_the_newest_certificate() {
    let first = authority();
    let second = first.rotate(10 * YEAR, now()).unwrap();
    let third = second.rotate(10 * YEAR, now()).unwrap();
    for known in [&first, &second, &third] {
        connects(knows(known), server(&third)).await;
        let pinned = Trust::Pinned(known.fingerprint().unwrap());
        connects(client(pinned), server(&third)).await;
    }
    // A client that has learned the newest one before the server uses it.
    connects(knows(&third), server(&first)).await;
}

#[test]
fn expired_generations_are_dropped() {
    let first = Authority::generate(YEAR, now()).unwrap();
    let second = first.rotate(10 * YEAR, now()).unwrap();
    let count = |authority: &Authority, at| {
        let pem = authority.roots_pem(at);
        pem.matches("BEGIN CERTIFICATE").count()
    };
    assert_eq!(count(&second, now()), 2);
    let later = now() + 2 * YEAR;
    assert_eq!(count(&second, later), 1);
    let third = second.rotate(10 * YEAR, later).unwrap();
    assert_eq!(count(&third, now()), 2, "the first one is gone for good");
}

#[test]
fn a_certificate_does_not_outlive_its_ca() {
    let authority = Authority::generate(YEAR, now()).unwrap();
    let issued = authority.issue_server(&[], 2 * YEAR, now()).unwrap();
    assert_eq!(issued.expires, authority.expires());
    let issued = authority.issue_server(&[], 90 * DAY, now()).unwrap();
    assert!(issued.expires < now() + 91 * DAY);
}

#[tokio::test]
async fn an_expired_certificate_of_the_ca_is_named() {
    let then = now() - 100 * DAY;
    let authority = Authority::generate(10 * YEAR, then).unwrap();
    let issued = authority.issue_server(&[], 90 * DAY, then).unwrap();
    let server = ServerTls::new(issued.identity, None.into()).unwrap();
    let (near, _) = refused(knows(&authority), server).await;
    assert!(matches!(near.cause(), Cause::Expired(_)), "{near:?}");
}

/// No trust on first use: the client reports the fingerprint, which a person compares.
#[tokio::test]
async fn a_client_reports_the_fingerprint_of_a_ca_that_it_does_not_know() {
    let (known, other) = (authority(), authority());
    let newest = other.rotate(10 * YEAR, now()).unwrap();
    let fingerprint = newest.fingerprint().unwrap();
    let foreign = Ca::new("a company");
    for trust in [Trust::System, foreign.trust(), knows_roots(&known)] {
        let (near, _) = refused(client_named(trust, SERVER_NAME), server(&newest)).await;
        let Cause::OwnCa(own_ca) = near.cause() else {
            panic!("{near:?}");
        };
        assert_eq!(own_ca.fingerprint, fingerprint);
        assert!(
            near.to_string().contains(&fingerprint.to_string()),
            "{near}"
        );
    }
    let pinned = Trust::Pinned(known.fingerprint().unwrap());
    let (near, _) = refused(client(pinned), server(&newest)).await;
    let Cause::WrongFingerprint(wrong) = near.cause() else {
        panic!("{near:?}");
    };
    assert_eq!(wrong.found, fingerprint);
}

fn knows_roots(authority: &Authority) -> Trust {
    Trust::Roots(Roots::from_pem(authority.roots_pem(now()).as_bytes()).unwrap())
}

/// Whoever pins a company's CA does not trust that company with the name of a server's own CA.
#[tokio::test]
async fn a_pinned_ca_of_others_cannot_certify_the_name_of_all_servers() {
    let foreign = Ca::new("a company");
    let server = ServerTls::new(foreign.identity(&named(SERVER_NAME)), None.into()).unwrap();
    let (near, _) = refused(client(Trust::Pinned(foreign.fingerprint())), server).await;
    assert!(matches!(near.cause(), Cause::WrongName { .. }), "{near:?}");
}

#[tokio::test]
async fn a_ca_is_stored_and_read() {
    let first = authority();
    let second = first.rotate(10 * YEAR, now()).unwrap();
    let stored = second.to_json().unwrap();
    let read = Authority::from_json(stored.expose_secret().as_bytes()).unwrap();
    assert_eq!(read.fingerprint(), second.fingerprint());
    assert_eq!(read.expires(), second.expires());
    connects(knows(&first), server(&read)).await;
    let debug = format!("{second:?}");
    assert!(!debug.contains("PRIVATE"), "{debug}");
}

#[test]
fn another_form_is_refused() {
    let (one, other) = (authority(), authority());
    let stored = |authority: &Authority| {
        let json = authority.to_json().unwrap();
        serde_json::from_str::<serde_json::Value>(json.expose_secret()).unwrap()
    };
    let read = |json: &serde_json::Value| {
        Authority::from_json(&serde_json::to_vec(json).unwrap()).unwrap_err()
    };
    let mut swapped = stored(&one);
    swapped["key"] = stored(&other)["key"].clone();
    assert_eq!(read(&swapped), AuthorityError::OtherKey);
    let mut renamed = swapped;
    renamed["generations"][0]["name"] = stored(&other)["generations"][0]["name"].clone();
    assert_eq!(read(&renamed), AuthorityError::OtherKey);
    let mut damaged = stored(&one);
    damaged["generations"][0]["certificate"] = "text".into();
    assert!(matches!(read(&damaged), AuthorityError::Form(_)));
    let mut empty = stored(&one);
    empty["generations"] = serde_json::json!([]);
    assert!(matches!(read(&empty), AuthorityError::Form(_)));
    for key in ["begins", "expires"] {
        let mut endless = stored(&one);
        endless["generations"][0][key] = u64::MAX.into();
        assert!(matches!(read(&endless), AuthorityError::Form(_)));
    }
    let key = stored(&one)["key"].clone();
    let error = read(&key).to_string();
    assert!(!error.contains("PRIVATE"), "{error}");
    let mut keyless = stored(&one);
    keyless["key"] = "text".into();
    let error = read(&keyless);
    assert!(matches!(error, AuthorityError::Form(_)));
    for text in ["", "{", "[]", "null"] {
        let error = Authority::from_json(text.as_bytes()).unwrap_err();
        assert!(matches!(error, AuthorityError::Form(_)), "{text}: {error}");
    }
    let long = vec![b' '; MAX_AUTHORITY_BYTES + 1];
    assert_eq!(
        Authority::from_json(&long).unwrap_err(),
        AuthorityError::TooLong
    );
}

/// The name of a generation is its own: a verifier finds an issuer by its name.
#[test]
fn generations_have_fingerprints_of_their_own() {
    let first = authority();
    let second = first.rotate(10 * YEAR, now()).unwrap();
    let all: std::collections::HashSet<Fingerprint> = [&first, &second]
        .map(|one| one.fingerprint().unwrap())
        .into();
    assert_eq!(all.len(), 2);
}
