//! Mutual TLS: clients with a certificate, without one, and with that of another CA.

use adit_tls::{Acceptor, Cause, ClientTls, Connector, ServerTls};
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};

use crate::support::{Ca, HOST, WITHIN, carries, connected, named, refused};

fn server(ca: &Ca, clients: &Ca) -> ServerTls {
    ServerTls::new(ca.identity(&named(HOST)), Some(clients.roots())).unwrap()
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
    assert!(
        near.to_string()
            .contains("rejected the client's certificate"),
        "{near}"
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
    let far = far.unwrap();
    assert_eq!(
        far.to_string(),
        "the client's certificate has expired; renew it"
    );
}
