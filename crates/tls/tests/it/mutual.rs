//! Mutual TLS: clients with a certificate, without one, and with that of another CA.

use std::time::{Duration, SystemTime};

use adit_net::Stream;
use adit_tls::{
    Acceptor, Authority, AuthorityError, Cause, ClientCertificates, ClientKey, ClientTls,
    Connector, Identity, ProvedCertificate, Roots, SERVER_NAME, ServerTls, TlsName, Trust,
};
use rcgen::{DnType, ExtendedKeyUsagePurpose, SanType, date_time_ymd};

use crate::support::{Ca, HOST, WITHIN, carries, connected, named, refused};

fn server(ca: &Ca, clients: &Ca) -> ServerTls {
    ServerTls::new(ca.identity(&named(HOST)), Some(clients.roots()).into()).unwrap()
}

fn client(ca: &Ca, clients: &Ca) -> ClientTls {
    let mut params = named("office");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    ClientTls::new(ca.trust(), None, Some(clients.identity(&params))).unwrap()
}

#[tokio::test]
async fn a_client_with_a_certificate_is_accepted() {
    let (ca, clients) = (Ca::new("ca"), Ca::new("clients"));
    let connector = Connector::new(Some(client(&ca, &clients)), WITHIN);
    let acceptor = Acceptor::new(Some(server(&ca, &clients)));
    carries(&mut connected(&connector, &acceptor).await).await;
}

#[tokio::test]
async fn p_1_17_a_client_without_a_certificate_learns_to_set_one() {
    let (ca, clients) = (Ca::new("ca"), Ca::new("clients"));
    let (near, far) = refused(ca.client(), server(&ca, &clients)).await;
    assert!(
        matches!(near.cause(), Cause::CertificateRequired(_)),
        "{near:?}"
    );
    let text =
        "the server requires a client certificate; set `cert_file` and `key_file` of `client.tls`";
    assert_eq!(near.to_string(), text);
    let far = far.unwrap();
    assert!(
        matches!(far.cause(), Cause::NoClientCertificate(_)),
        "{far:?}"
    );
    assert!(
        far.to_string().contains("`server.tls.client_ca_file`"),
        "{far}"
    );
}

#[tokio::test]
async fn a_client_of_another_ca_is_refused() {
    let (ca, clients, others) = (Ca::new("ca"), Ca::new("clients"), Ca::new("others"));
    let (near, far) = refused(client(&ca, &others), server(&ca, &clients)).await;
    assert!(
        matches!(near.cause(), Cause::CertificateRejected(_)),
        "{near:?}"
    );
    let text = near.to_string();
    assert!(text.contains("rejected the client's certificate"), "{text}");
    assert!(
        text.contains("not one of `server.tls.client_ca_file`"),
        "{text}"
    );
    assert!(
        text.contains("`cert_file` and `key_file` of `client.tls`"),
        "{text}"
    );
    let far = far.unwrap();
    assert!(matches!(far.cause(), Cause::UnknownIssuer(_)), "{far:?}");
    assert!(
        far.to_string().contains("`server.tls.client_ca_file`"),
        "{far}"
    );
}

#[tokio::test]
async fn an_expired_client_certificate_is_refused() {
    let ca = Ca::new("ca");
    let mut params = named("office");
    params.not_after = date_time_ymd(2001, 1, 1);
    let client = ClientTls::new(ca.trust(), None, Some(ca.identity(&params))).unwrap();
    let (near, far) = refused(client, server(&ca, &ca)).await;
    assert!(
        matches!(near.cause(), Cause::CertificateRejected(_)),
        "{near:?}"
    );
    let text = near.to_string();
    assert!(text.contains("it has expired"), "{text}");
    assert!(
        text.contains("`cert_file` and `key_file` of `client.tls`"),
        "{text}"
    );
    let far = far.unwrap();
    assert_eq!(
        far.to_string(),
        "the client's certificate has expired; renew it"
    );
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A server with its own CA.
fn with_own_ca(authority: &Authority) -> ServerTls {
    let now = SystemTime::now();
    let issued = authority.issue_server(&[], DAY, now).unwrap();
    let roots = Roots::from_pem(authority.roots_pem(now).as_bytes()).unwrap();
    ServerTls::new(issued.identity, ClientCertificates::OfOwnCa(roots)).unwrap()
}

/// A client that trusts `authority`, with a certificate of `issuer` for credential `id`.
fn certified(authority: &Authority, issuer: &Authority, id: &str) -> ClientTls {
    let now = SystemTime::now();
    let key = ClientKey::generate().unwrap();
    let (certificate, _) = issuer.issue_client(id, key.public(), DAY, now).unwrap();
    let pem = key.to_pem();
    let key = secrecy::ExposeSecret::expose_secret(&pem).as_bytes();
    let identity = Identity::from_pem(certificate.as_bytes(), key).unwrap();
    ClientTls::new(trust(authority), name(), Some(identity)).unwrap()
}

fn trust(authority: &Authority) -> Trust {
    let pem = authority.roots_pem(SystemTime::now());
    Trust::Roots(Roots::from_pem(pem.as_bytes()).unwrap())
}

fn name() -> Option<TlsName> {
    Some(TlsName::parse(SERVER_NAME).unwrap())
}

/// The certificate of the client that the server has verified.
async fn found(client: ClientTls, server: ServerTls) -> Option<ProvedCertificate> {
    let peer = ([192, 0, 2, 1], 1).into();
    let (near, far) = Stream::in_memory(1 << 16, peer, peer);
    let (connector, acceptor) = (
        Connector::new(Some(client), WITHIN),
        Acceptor::new(Some(server)),
    );
    let connecting = tokio::spawn(async move { connector.connect(near, HOST).await.is_ok() });
    let (_stream, found) = acceptor.accept(far, WITHIN).await.unwrap();
    connecting.abort();
    found
}

#[tokio::test]
async fn a_certificate_of_a_client_ca_has_its_names_and_its_ca() {
    let (ca, one, two) = (Ca::new("ca"), Ca::new("one"), Ca::new("two"));
    let both = Roots::from_pem((one.pem() + &two.pem()).as_bytes()).unwrap();
    let required = ClientCertificates::Required(both.clone());
    let optional = ClientCertificates::Optional(both);
    let server = |clients: &ClientCertificates| {
        ServerTls::new(ca.identity(&named(HOST)), clients.clone()).unwrap()
    };
    let cas: Vec<_> = server(&required).client_cas().collect();
    assert_eq!(cas, [one.fingerprint(), two.fingerprint()]);
    for clients in [&required, &optional] {
        for issuer in [&one, &two] {
            let mut params = named("laptop.example.com");
            params.distinguished_name.push(DnType::CommonName, "alice");
            let uri = "spiffe://example.com/client/alice";
            let alternatives = &mut params.subject_alt_names;
            alternatives.push(SanType::URI(uri.try_into().unwrap()));
            params.not_after = date_time_ymd(2100, 1, 1);
            let identity = issuer.identity(&params);
            let client = ClientTls::new(ca.trust(), None, Some(identity)).unwrap();
            let Some(ProvedCertificate::ClientCa(found)) = found(client, server(clients)).await
            else {
                panic!("no certificate")
            };
            assert_eq!(found.ca, issuer.fingerprint());
            assert_eq!(found.common_names, ["alice"]);
            assert_eq!(found.dns_names, ["laptop.example.com"]);
            assert_eq!(found.uris, [uri]);
            let expires = SystemTime::from(date_time_ymd(2100, 1, 1));
            assert_eq!(found.expires, expires);
        }
    }
    assert_eq!(found(ca.client(), server(&optional)).await, None);
    assert!(server(&optional).has_optional_client_certificates());
    assert!(!server(&optional).requires_client_certificates());
}

#[tokio::test]
async fn a_certificate_of_the_own_ca_is_optional_and_names_the_credential() {
    let first = Authority::generate(10 * DAY, SystemTime::now()).unwrap();
    let second = first.rotate(10 * DAY, SystemTime::now()).unwrap();
    let of = |issuer| certified(&second, issuer, "0a1b2c3d4e5f");
    for issuer in [&first, &second] {
        let found = found(of(issuer), with_own_ca(&second)).await;
        let id = ProvedCertificate::OwnCa("0a1b2c3d4e5f".to_owned());
        assert_eq!(found, Some(id));
    }
    let without = ClientTls::new(trust(&second), name(), None).unwrap();
    assert_eq!(found(without, with_own_ca(&second)).await, None);
}

#[tokio::test]
async fn a_certificate_of_another_own_ca_is_refused() {
    let (ours, theirs) = (
        Authority::generate(10 * DAY, SystemTime::now()).unwrap(),
        Authority::generate(10 * DAY, SystemTime::now()).unwrap(),
    );
    let (near, _) = refused(
        certified(&ours, &theirs, "0a1b2c3d4e5f"),
        with_own_ca(&ours),
    )
    .await;
    assert!(near.to_string().contains("`adit join`"), "{near}");
}

#[tokio::test]
async fn the_own_ca_issues_nothing_for_an_invalid_key() {
    // The fourth is not on the curve.
    let authority = Authority::generate(10 * DAY, SystemTime::now()).unwrap();
    for key in [&[4; 64][..], &[4; 66], &[3; 65], &[4; 65], &[]] {
        let refused = authority.issue_client("a", key, DAY, SystemTime::now());
        assert_eq!(refused, Err(AuthorityError::PublicKey));
    }
}
