//! Certificates that are replaced while connections run.

use adit_tls::{Acceptor, Connector};

use crate::support::{Ca, HOST, WITHIN, carries, client, connect, connected};

#[tokio::test]
async fn a_replaced_certificate_applies_to_new_connections_only() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let acceptor = Acceptor::new(Some(old.server()));
    let connector = Connector::new(Some(client(old.trust())), WITHIN);
    let mut running = connected(&connector, &acceptor).await;
    acceptor.replace(Some(new.server()));
    carries(&mut running).await;
    let (near, _) = connect(&connector, &acceptor).await;
    assert!(
        near.is_err(),
        "the old CA has not signed the new certificate"
    );
    // A clone shares the configuration.
    connector.clone().replace(Some(client(new.trust())));
    let mut next = connected(&connector, &acceptor).await;
    carries(&mut next).await;
    carries(&mut running).await;
    // Turned off, the next connection is clear text and the others stay encrypted.
    acceptor.replace(None);
    connector.replace(None);
    let mut plain = connected(&connector, &acceptor).await;
    assert_eq!(plain.0.alpn(), None);
    carries(&mut plain).await;
    carries(&mut running).await;
}

#[tokio::test]
async fn a_handshake_that_runs_keeps_its_certificate() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let acceptor = Acceptor::new(Some(old.server()));
    let connector = Connector::new(Some(client(old.trust())), WITHIN);
    let (near, far) = crate::support::in_memory();
    let accepting = tokio::spawn({
        let acceptor = acceptor.clone();
        async move { acceptor.accept(far, WITHIN).await }
    });
    // The handshake of the server waits for the first bytes of the client.
    tokio::task::yield_now().await;
    acceptor.replace(Some(new.server()));
    let connecting = tokio::spawn(async move { connector.connect(near, HOST).await });
    accepting.await.unwrap().unwrap();
    connecting.abort();
}
