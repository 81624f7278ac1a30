//! WebSocket through the tunnel, with Python's websockets as visitor and as service. F05, P-9.1 to P-9.6.
//!
//! Needs the interpreter that `ADIT_PYTHON` names, or `target/python/bin/python`, which `ci/test` creates.

use std::time::Duration;

use adit_e2e::{
    Client, ClientOptions, Server, Service, Visitor, eventually,
    python::{PythonService, visit},
    within,
};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, protocol::frame::coding::CloseCode},
};

const HOST: &str = "ws.localhost";
const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn p_9_1_another_librarys_client_and_service_meet_through_the_tunnel() {
    let service = PythonService::start("ws_service.py").await;
    let server = Server::plain().await;
    let _client = Client::http(&server, "client-1", "ws", service.addr).await;
    let held = visit("ws_visitor.py", server.http, HOST, &[]).await;
    // Echo, deflate, fragments, ping, subprotocols, closes in both directions, an abort, a refusal, fifty beside a
    // stalled one.
    assert_eq!(held.len(), 12, "{held:?}");
}

/// The program that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Client,
    Server,
}

#[tokio::test]
async fn p_9_6_a_draining_client_closes_with_1001_at_once() {
    closes_at_once(Leaves::Client).await;
}

#[tokio::test]
async fn p_9_6_a_draining_server_closes_with_1001_at_once() {
    closes_at_once(Leaves::Server).await;
}

/// Code 1001 arrives while another request still runs, which then gets its response: the drain does not wait for an
/// open WebSocket.
async fn closes_at_once(leaves: Leaves) {
    let sockets = PythonService::start("ws_service.py").await;
    let site = Service::site("site").await;
    let mut server = Server::plain().await;
    let config = format!(
        "client:\n  tunnels:\n    - {{ name: ws, type: websocket, local_port: {} }}\n    - {{ name: site, type: http, local_port: {} }}\n",
        sockets.addr.port(),
        site.addr.port()
    );
    let mut client = Client::start(ClientOptions::file(&server, "client-1", &config)).await;
    let http = server.http;
    let held = tokio::spawn(async move {
        let mut visitor = Visitor::http1(http, "site.localhost").await;
        visitor.get("/held").await.text()
    });
    let stream = TcpStream::connect(server.http).await.unwrap();
    let url = format!("ws://{HOST}/");
    let (mut socket, _) = client_async(&url, stream).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    let echo = socket.next().await.unwrap().unwrap();
    assert_eq!(echo, Message::text("hello"));
    eventually("a held request", SOON, async || {
        (site.stats.begun() == 1).then_some(())
    })
    .await;

    match leaves {
        Leaves::Client => client.terminate(),
        Leaves::Server => server.terminate(),
    }
    let last = within("a close frame", SOON, socket.next()).await;
    let Some(Ok(Message::Close(Some(close)))) = last else {
        panic!("no close frame: {last:?}");
    };
    assert_eq!(close.code, CloseCode::Away);
    // The reply to the close frame is sent, and then the connection ends.
    assert!(within("the end", SOON, socket.next()).await.is_none());
    assert!(!held.is_finished());
    site.release();
    assert_eq!(held.await.unwrap(), "site");
    let exit = match leaves {
        Leaves::Client => client.exit(SOON).await,
        Leaves::Server => server.exit(SOON).await,
    };
    assert!(exit.success());
}
