//! Few addresses with many connections leave room for the others: P-1.12, P-10.6, P-14.11.

use std::{net::SocketAddr, time::Duration};

use adit_e2e::{
    Client, ClientOptions, HOST, Raw, Scripted, Server, Service, World, count, eventually,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

const SOON: Duration = Duration::from_secs(30);

/// A connection from this address of this machine; `None` if it was reset.
async fn connect(source: [u8; 4], addr: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    socket.connect(addr).await.ok()
}

/// Connections from one address on which nothing is sent. Those that were refused have ended.
async fn crowd(number: usize, source: [u8; 4], addr: SocketAddr) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..number {
        crowd.extend(connect(source, addr).await);
    }
    crowd
}

#[tokio::test]
async fn p_14_11_one_address_leaves_http_connections_to_the_others() {
    let service = Service::site("site").await;
    let limits = "server:\n  limits: { max_connections: 40 }\n";
    let world = World::configured(limits, service.addr).await;
    let crowd = crowd(60, [127, 9, 9, 1], world.server.http).await;
    let open = eventually("the refusal of most connections", SOON, async || {
        let status = world.server.status().await;
        let refused = count(&status, "/visitors/connections_refused");
        (refused == 50).then(|| count(&status, "/visitors/connections_open"))
    })
    .await;
    assert_eq!(open, 10);
    let mut visitor = Raw::connect(world.server.http).await;
    visitor
        .send(format!("GET /who HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .await;
    assert_eq!(visitor.read_text("site").await.status(), 200);
    drop(crowd);
}

#[tokio::test]
async fn p_10_6_one_address_leaves_tcp_connections_to_the_others() {
    let service = Scripted::start(|stream| async move {
        let mut raw = Raw { stream };
        raw.send("hello").await;
        raw.read_to_end().await;
    })
    .await;
    let server = Server::with("server:\n  limits: { max_tcp_connections: 40 }\n").await;
    let options = ClientOptions {
        id: "client-1".to_owned(),
        args: vec!["tcp".to_owned(), service.addr.to_string()],
        env: Vec::new(),
        state: server.state().to_path_buf(),
    };
    let mut client = Client::start(options).await;
    let line = client.process().first_line().await;
    let addr: SocketAddr = line.strip_prefix("tcp://").unwrap().parse().unwrap();
    let mut crowd = crowd(60, [127, 9, 9, 1], addr).await;
    let open = eventually("the reset of most connections", SOON, async || {
        let status = server.status().await;
        (count(&status, "/tcp/refused") == 50).then(|| count(&status, "/tcp/open"))
    })
    .await;
    assert_eq!(open, 10);
    // Those whose connect reported the reset are not among the crowd.
    if crowd.len() == 60
        && let Some(last) = crowd.last_mut()
    {
        assert!(last.read(&mut [0]).await.is_err());
    }
    let mut visitor = Raw::connect(addr).await;
    assert_eq!(visitor.read_text("hello").await.text(), "hello");
}

/// The connections of the crowd are always young: each is replaced soon.
#[tokio::test]
async fn p_1_12_addresses_that_connect_again_and_again_lock_out_no_client() {
    let service = Service::site("site").await;
    let limits =
        "server:\n  limits: { max_unauthenticated: 40, max_unauthenticated_per_address: 8 }\n";
    let server = Server::with(limits).await;
    let mut crowd = JoinSet::new();
    for address in 1..=8 {
        let addr = server.tunnel;
        crowd.spawn(async move {
            let mut held = std::collections::VecDeque::new();
            loop {
                held.extend(connect([127, 9, 9, address], addr).await);
                if held.len() > 8 {
                    held.pop_front();
                }
                tokio::task::yield_now().await;
            }
        });
    }
    eventually("a crowd", SOON, async || {
        let status = server.status().await;
        (count(&status, "/process/unauthenticated") >= 32).then_some(())
    })
    .await;
    let client = Client::http(&server, "client-1", "web", service.addr).await;
    server.wait_for_clients(1).await;
    drop((crowd, client));
}
