//! WebSocket through the tunnel, with Python's websockets as visitor and as service. F05, P-9.1 to P-9.6.
//!
//! Needs the interpreter that `ADIT_PYTHON` names, or `target/python/bin/python` as `ci/test` makes it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use adit_e2e::{
    Client, Server,
    python::{PythonService, visit},
};

const HOST: &str = "ws.localhost";

#[tokio::test]
async fn p_9_1_another_librarys_client_and_service_meet_through_the_tunnel() {
    let service = PythonService::start("ws_service.py").await;
    let server = Server::plain().await;
    let _client = Client::http(&server, "client-1", "ws", service.addr).await;
    let held = visit("ws_visitor.py", server.http, HOST, &[]).await;
    // echo, deflate, fragments, ping, subprotocols, closes both ways, an abort, a refusal, fifty beside a stalled one.
    assert_eq!(held.len(), 12, "{held:?}");
}
