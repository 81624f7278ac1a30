//! A client and a server in one process: registration, takeover, loss, drain.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use adit_client::{Client, Limits, Settings, Timeouts, TunnelKind, TunnelSettings};
use adit_server::{Server, StaticToken};
use adit_testlink::{http1, tcp, until};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpStream};

const TOKEN: &str = "a-token-of-some-length-0123456789";
const SECOND: Duration = Duration::from_secs(1);

fn server(addr: SocketAddr) -> Server {
    let timeouts = adit_server::Timeouts {
        startup_grace: Duration::ZERO,
        client_wait: 5 * SECOND,
        takeover_probe: SECOND,
        tunnel_retention: SECOND / 2,
        ..adit_server::Timeouts::default()
    };
    Server::start(&adit_server::Settings {
        threads: 2,
        tokens: vec![StaticToken {
            user: "ann".parse().unwrap(),
            token: TOKEN.into(),
            scopes: adit_auth::Scopes::default(),
        }],
        timeouts,
        ..adit_server::Settings::new(addr, any())
    })
    .unwrap()
}

fn any() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn settings(server: SocketAddr, service: u16, state: &Path) -> Settings {
    Settings {
        client_id: "office".into(),
        client_id_chosen: true,
        group_id: "office".into(),
        server_host: server.ip().to_string(),
        server_port: server.port(),
        proxy: None,
        tls: None,
        token: Some(TOKEN.into()),
        joined: None,
        reconnect: adit_reconnect::Config::default(),
        lanes: 2,
        state_dir: state.to_owned(),
        admin_addr: None,
        tunnels: vec![TunnelSettings {
            domains: vec!["shop.test".into()],
            ..TunnelSettings::new("shop", TunnelKind::Http, "127.0.0.1", service)
        }],
        entries: Vec::new(),
        limits: Limits::default(),
        timeouts: Timeouts {
            drain: 5 * SECOND,
            ..Timeouts::default()
        },
    }
}

/// A service that responds to every request after `delay`.
async fn service(delay: Duration) -> u16 {
    tcp::serve(move |mut socket, _| async move {
        while http1::read_head(&mut socket).await.is_some() {
            tokio::time::sleep(delay).await;
            let response = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            http1::send(&mut socket, response).await;
        }
    })
    .await
}

/// The response as a visitor reads it.
async fn get(server: SocketAddr) -> String {
    let mut socket = TcpStream::connect(server).await.unwrap();
    let request = "GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n";
    http1::send(&mut socket, request).await;
    http1::read_to_end(&mut socket).await.unwrap()
}

async fn connected(client: &Client) {
    let handle = client.handle();
    until("connected", || handle.status().connection == "connected").await;
}

/// P-1.1, P-1.4, P-1.6: a complete link, and a request over it.
#[tokio::test]
async fn a_client_registers_and_serves() {
    let (server, state) = (server(any()), TempDir::new().unwrap());
    let port = service(Duration::ZERO).await;
    let client = Client::start(settings(server.tunnel_addr(), port, state.path())).unwrap();
    connected(&client).await;
    let registration = client.registrations().borrow().clone().unwrap();
    assert_eq!(registration.tunnels[0].error, None);
    let status = server.handle().status();
    assert_eq!(status.clients[0].epoch, registration.epoch);
    assert_eq!(status.clients[0].lanes, 2);
    for _ in 0..4 {
        let response = get(server.http_addr()).await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        assert!(response.ends_with("ok"), "{response}");
    }
    let handle = server.handle();
    until("the control stream", || handle.status().clients[0].control).await;
    client.stop();
    until("gone", || handle.status().clients.is_empty()).await;
    assert_eq!(handle.status().process.sessions, 0);
    server.stop().await;
}

/// P-1.3: every cause has the same text, and the client cannot serve.
#[tokio::test]
async fn a_wrong_token_is_refused() {
    let (server, state) = (server(any()), TempDir::new().unwrap());
    let mut settings = settings(server.tunnel_addr(), 1, state.path());
    settings.token = Some("another-token-of-some-length-01234".into());
    let client = Client::start(settings).unwrap();
    let handle = client.handle();
    until("refused", || {
        let error = handle.status().last_error;
        error.is_some_and(|error| error.contains("did not accept these credentials"))
    })
    .await;
    let ended = handle.status().connection;
    assert!(ended == "waiting" || ended == "stopped", "{ended}");
    assert!(server.handle().status().clients.is_empty());
    client.stop();
    server.stop().await;
}

/// P-1.8, F18: the server ends and starts again; the same machine has its name again at once.
#[tokio::test]
async fn a_client_returns_after_the_server_did() {
    let (first, state) = (server(any()), TempDir::new().unwrap());
    let addr = first.tunnel_addr();
    let port = service(Duration::ZERO).await;
    let client = Client::start(settings(addr, port, state.path())).unwrap();
    connected(&client).await;
    let before = client.registrations().borrow().clone().unwrap().epoch;
    first.stop().await;
    let handle = client.handle();
    until("lost", || handle.status().connection != "connected").await;
    assert_eq!(handle.status().epoch, 0);
    // Epochs are derived from seconds: the next server must start in a later one.
    tokio::time::sleep(SECOND).await;
    let second = server(addr);
    connected(&client).await;
    let after = client.registrations().borrow().clone().unwrap().epoch;
    assert!(after > before, "{after} {before}");
    let response = get(second.http_addr()).await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    client.stop();
    second.stop().await;
}

/// P-1.8: another machine with the same name is refused by name while the first one responds.
#[tokio::test]
async fn two_machines_do_not_evict_each_other() {
    let server = server(any());
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let port = service(Duration::ZERO).await;
    let first = Client::start(settings(server.tunnel_addr(), port, one.path())).unwrap();
    connected(&first).await;
    let epoch = server.handle().status().clients[0].epoch;
    let second = Client::start(settings(server.tunnel_addr(), port, two.path())).unwrap();
    let handle = second.handle();
    until("refused", || {
        let error = handle.status().last_error;
        error.is_some_and(|error| error.contains("in use by another instance"))
    })
    .await;
    let status = server.handle().status();
    assert_eq!((status.clients.len(), status.clients[0].epoch), (1, epoch));
    second.stop();
    first.stop();
    server.stop().await;
}

/// P-6.6. Regression: a client that lost its link while it drained connected again and received new requests.
#[tokio::test]
async fn a_client_that_drains_finishes_and_does_not_come_back() {
    let (server, state) = (server(any()), TempDir::new().unwrap());
    let port = service(SECOND / 2).await;
    let client = Client::start(settings(server.tunnel_addr(), port, state.path())).unwrap();
    connected(&client).await;
    let handle = server.handle();
    until("the control stream", || handle.status().clients[0].control).await;
    let visitors = server.http_addr();
    let visitor = tokio::spawn(async move { get(visitors).await });
    until("on its way", || handle.status().clients[0].requests == 1).await;
    client.drain().await;
    assert!(handle.status().clients[0].draining);
    let response = visitor.await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    server.stop().await;
    let ended = tokio::time::timeout(10 * SECOND, client.ended()).await;
    assert_eq!(ended.unwrap().reason, adit_reconnect::StopReason::Requested);
    client.stop();
}

async fn last_error(client: &Client, text: &str) -> String {
    let handle = client.handle();
    until(text, || {
        let error = handle.status().last_error;
        error.is_some_and(|error| error.contains(text))
    })
    .await;
    handle.status().last_error.unwrap()
}

/// P-1.4: a tunnel whose host another group holds is announced again, and served once the host is free.
#[tokio::test]
async fn p_1_4_a_waiting_client_serves_a_host_that_becomes_free() {
    let (server, first_state, second_state) = (
        server(any()),
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
    );
    let port = service(Duration::ZERO).await;
    let first = Client::start(settings(server.tunnel_addr(), port, first_state.path())).unwrap();
    connected(&first).await;
    let mut other = settings(server.tunnel_addr(), port, second_state.path());
    other.client_id = "home".into();
    other.group_id = "home".into();
    let second = Client::start(other).unwrap();
    connected(&second).await;
    let waits = second.handle().status().tunnels.remove(0).outcome;
    assert!(waits.waiting, "{waits:?}");
    assert!(waits.error.unwrap().contains("shop.test"));
    assert_eq!(waits.public_url, "");
    first.drain().await;
    first.stop();
    let handle = second.handle();
    until("accepted", || {
        handle.status().tunnels[0].outcome.error.is_none()
    })
    .await;
    let registration = second.registrations().borrow().clone().unwrap();
    assert!(registration.tunnels[0].public_url.contains("shop.test"));
    let response = get(server.http_addr()).await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    second.stop();
    server.stop().await;
}

/// The error for a wrong port names the right one.
#[tokio::test]
async fn the_http_port_names_the_port_for_clients() {
    let (server, state) = (server(any()), TempDir::new().unwrap());
    let client = Client::start(settings(server.http_addr(), 1, state.path())).unwrap();
    let ended = tokio::time::timeout(10 * SECOND, client.ended()).await;
    let error = ended.unwrap().error.unwrap();
    let right = format!("port {} (`server.bind_port`)", server.tunnel_addr().port());
    let wrong = server.http_addr().to_string();
    assert!(error.contains(&right) && error.contains(&wrong), "{error}");
    client.stop();
    server.stop().await;
}

#[tokio::test]
async fn an_http1_server_is_named_with_its_address() {
    let port = tcp::serve(|mut socket, _| async move {
        let _ = socket.read_exact(&mut [0; 24]).await;
        http1::send(
            &mut socket,
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n",
        )
        .await;
    });
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port.await));
    let state = TempDir::new().unwrap();
    let client = Client::start(settings(addr, 1, state.path())).unwrap();
    let error = last_error(&client, "an HTTP/1 server responds there").await;
    assert!(error.contains(&addr.to_string()), "{error}");
    assert!(error.contains("server.bind_port"), "{error}");
    client.stop();
}
