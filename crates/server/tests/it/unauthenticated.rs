//! What a client may do before it has a session, and what happens when a client violates the protocol.

use crate::support::{TOKEN, TestClient, registration, server, settings, until};
use adit_proto::{LANE_METADATA, PROXY_PATH, REGISTER_PATH, RegisterRequest, SESSION_METADATA};
use adit_server::Server;
use adit_testlink::{
    Response,
    grpc::{Visitor, framed},
};
use bytes::Bytes;
use http::Request;
use prost::Message as _;
use tokio::{io::AsyncReadExt, net::TcpStream};

const CONTROL_PATH: &str = "/adit.tunnel.v1.TunnelService/ControlStream";

/// A connection to the clients' port, without a client of adit on it.
async fn connect(server: &Server) -> Visitor {
    Visitor::connect(TcpStream::connect(server.tunnel_addr()).await.unwrap()).await
}

fn request(path: &str, session: &str) -> Request<()> {
    Request::post(format!("http://server{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header(SESSION_METADATA, session)
        .header(LANE_METADATA, "0")
        .body(())
        .unwrap()
}

/// Sends one body and returns the response.
async fn call(visitor: &mut Visitor, path: &str, session: &str, body: Bytes) -> Response {
    let mut call = visitor.request(request(path, session), false).await;
    // A data stream stays open; a registration is one message.
    call.send.send_data(body, path == REGISTER_PATH).unwrap();
    call.whole().await.unwrap()
}

/// A registration of the client `office`.
fn registers(token: &str, version: String) -> Bytes {
    let request = RegisterRequest {
        client_version: version,
        ..registration(token, "office")
    };
    framed(&request.encode_to_vec())
}

#[tokio::test]
async fn p_1_1_a_registration_of_more_than_4_kib_is_refused() {
    let server = server(Vec::new());
    let mut send = connect(&server).await;
    let long = registers(TOKEN, "v".repeat(4 * 1024));
    let status = call(&mut send, REGISTER_PATH, "", long).await;
    assert_eq!(status.verdict().0, "11", "{status:?}");
    assert!(server.handle().status().clients.is_empty());
    // A message that fits is accepted on the same connection.
    let short = registers(TOKEN, "v".repeat(3 * 1024));
    let status = call(&mut send, REGISTER_PATH, "", short).await;
    assert_eq!(status.verdict().0, "0", "{status:?}");
    server.stop().await;
}

#[tokio::test]
async fn p_1_12_connections_over_the_limit_of_an_address_are_closed() {
    let mut settings = settings(Vec::new());
    settings.limits.max_unauthenticated_per_address = 3;
    let server = Server::start(&settings).unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(server.tunnel_addr()).await.unwrap());
    }
    let handle = server.handle();
    until("the connections are counted", || {
        handle.status().process.unauthenticated == 3
    })
    .await;
    let mut crowded = TcpStream::connect(server.tunnel_addr()).await.unwrap();
    assert_eq!(crowded.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(handle.status().refusals.unregistered, 1);
    // A connection with a session does not count.
    drop(held);
    until("the connections are counted", || {
        handle.status().process.unauthenticated == 0
    })
    .await;
    let first = TestClient::connect(&server, "first").await;
    let second = TestClient::connect(&server, "second").await;
    assert_eq!(handle.status().process.unauthenticated, 0);
    drop((first, second));
    server.stop().await;
}

#[tokio::test]
async fn p_1_24_a_connection_whose_session_is_fenced_is_closed_at_once() {
    let mut settings = settings(Vec::new());
    // The slow way, which looks for unused connections, is out of reach.
    settings.timeouts.setup = std::time::Duration::from_secs(3_600);
    let server = Server::start(&settings).unwrap();
    let handle = server.handle();
    let mut held = Vec::new();
    for round in 1..40 {
        let mut send = connect(&server).await;
        let registers = registers(TOKEN, String::new());
        let status = call(&mut send, REGISTER_PATH, "", registers).await;
        assert_eq!(status.verdict().0, "0", "{round}: {status:?}");
        held.push(send);
        until("the older connection is closed", || {
            handle.status().process.client_connections == 1
        })
        .await;
    }
    server.stop().await;
}

#[tokio::test]
async fn p_1_24_the_connections_of_a_user_are_bounded() {
    let mut settings = settings(Vec::new());
    settings.limits.max_client_connections_per_user = Some(2);
    let server = Server::start(&settings).unwrap();
    let first = TestClient::connect(&server, "first").await;
    let second = TestClient::connect(&server, "second").await;
    let mut third = connect(&server).await;
    let status = call(
        &mut third,
        REGISTER_PATH,
        "",
        registers(TOKEN, String::new()),
    )
    .await;
    assert_eq!(status.verdict(), ("8", "limit"));
    let text = status.trailer("grpc-message").unwrap();
    assert!(text.contains("max_client_connections_per_user"), "{text}");
    // The connection is still one without a session, and a stream of a session on it is refused as well.
    assert_eq!(server.handle().status().process.unauthenticated, 1);
    let status = call(&mut third, PROXY_PATH, &first.session, Bytes::new()).await;
    assert_eq!(status.verdict(), ("8", "limit"));
    drop(second);
    let handle = server.handle();
    until("the second connection is closed", || {
        handle.status().process.client_connections == 1
    })
    .await;
    let status = call(
        &mut third,
        REGISTER_PATH,
        "",
        registers(TOKEN, String::new()),
    )
    .await;
    assert_eq!(status.verdict().0, "0");
    drop(first);
    server.stop().await;
}

#[tokio::test]
async fn p_1_12_a_refused_registration_keeps_the_connection_among_those_without_a_session() {
    let mut settings = settings(Vec::new());
    settings.max_clients = 1;
    let server = Server::start(&settings).unwrap();
    let first = TestClient::connect(&server, "first").await;
    let mut second = connect(&server).await;
    let status = call(
        &mut second,
        REGISTER_PATH,
        "",
        registers(TOKEN, String::new()),
    )
    .await;
    assert_eq!(status.verdict(), ("8", "limit"));
    assert_eq!(server.handle().status().process.unauthenticated, 1);
    drop((first, second));
    server.stop().await;
}

#[tokio::test]
async fn p_1_12_a_connection_without_a_session_ends_after_setup() {
    let mut settings = settings(Vec::new());
    settings.timeouts.setup = std::time::Duration::from_millis(200);
    let server = Server::start(&settings).unwrap();
    let mut silent = TcpStream::connect(server.tunnel_addr()).await.unwrap();
    let mut read = Vec::new();
    // SETTINGS of the server may arrive before the end.
    silent.read_to_end(&mut read).await.unwrap();
    let handle = server.handle();
    until("the state is reached", || {
        handle.status().refusals.unregistered == 1
    })
    .await;
    assert_eq!(handle.status().process.unauthenticated, 0);
    server.stop().await;
}

#[tokio::test]
async fn p_1_3_wrong_tokens_are_counted_and_bounded() {
    let mut settings = settings(Vec::new());
    settings.timeouts.denial = std::time::Duration::ZERO;
    settings.limits.max_denials_per_minute = 5;
    let server = Server::start(&settings).unwrap();
    let mut send = connect(&server).await;
    let wrong = || registers("a-wrong-token-of-some-length-0123", String::new());
    for _ in 0..5 {
        let status = call(&mut send, REGISTER_PATH, "", wrong()).await;
        assert_eq!(status.verdict(), ("16", "unauthenticated"));
    }
    // Neither a wrong nor a right one is looked at.
    for token in ["a-wrong-token-of-some-length-0123", TOKEN] {
        let status = call(
            &mut send,
            REGISTER_PATH,
            "",
            registers(token, String::new()),
        )
        .await;
        assert_eq!(status.verdict(), ("8", "limit"));
    }
    assert_eq!(server.handle().status().refusals.denied, 5);
    server.stop().await;
}

#[tokio::test]
async fn p_1_3_a_denial_takes_its_time() {
    let mut settings = settings(Vec::new());
    settings.timeouts.denial = std::time::Duration::from_millis(300);
    let server = Server::start(&settings).unwrap();
    let mut send = connect(&server).await;
    let began = std::time::Instant::now();
    let wrong = registers("a-wrong-token-of-some-length-0123", String::new());
    let status = call(&mut send, REGISTER_PATH, "", wrong).await;
    assert_eq!(status.verdict(), ("16", "unauthenticated"));
    assert!(began.elapsed() >= settings.timeouts.denial);
    server.stop().await;
}

#[tokio::test]
async fn p_1_13_a_data_stream_of_junk_ends_with_its_status() {
    let server = server(Vec::new());
    let rogue = TestClient::connect(&server, "office").await;
    let mut send = connect(&server).await;
    // The prefix of a message of 4 GiB.
    let junk = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
    let status = call(&mut send, PROXY_PATH, &rogue.session, junk).await;
    assert_eq!(status.verdict(), ("13", "protocol_error"));
    let text = status.trailer("grpc-message").unwrap();
    assert!(text.contains("offset"), "{text}");
    let handle = server.handle();
    until("the state is reached", || {
        handle.status().refusals.broken_streams == 1
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn p_1_13_junk_on_the_control_stream_is_counted_and_refused() {
    let server = server(Vec::new());
    let rogue = TestClient::connect(&server, "office").await;
    let mut send = connect(&server).await;
    let handle = server.handle();
    let junk: [&[u8]; 3] = [
        &[0, 0xff, 0xff, 0xff, 0xff],
        &[7, 0, 0, 0, 0],
        &[0, 0, 0, 0, 2, 0xff, 0xff],
    ];
    for (before, junk) in junk.into_iter().enumerate() {
        let junk = Bytes::from_static(junk);
        let status = call(&mut send, CONTROL_PATH, &rogue.session, junk).await;
        assert_eq!(status.verdict(), ("13", "protocol_error"));
        assert_eq!(handle.status().refusals.broken_streams, before as u64 + 1);
    }
    // A control stream that is lost with its connection is not counted.
    let request = request(CONTROL_PATH, &rogue.session);
    let running = send.request(request, false).await.head().await;
    until("the state is reached", || {
        handle.status().clients[0].control
    })
    .await;
    drop((running, send));
    until("the state is reached", || {
        !handle.status().clients[0].control
    })
    .await;
    assert_eq!(handle.status().refusals.broken_streams, 3);
    server.stop().await;
}
