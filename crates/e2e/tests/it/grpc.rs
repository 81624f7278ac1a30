//! gRPC through the tunnel, with Python's grpcio as visitor and as service. F04, P-8.1 to P-8.4.
//!
//! Needs the interpreter that `ADIT_PYTHON` names, or `target/python/bin/python`, which `ci/test` creates.

use adit_e2e::{
    Client, ClientOptions, Server,
    python::{PythonService, visit},
};

const HOST: &str = "rpc.localhost";

async fn world(service: &PythonService) -> (Server, Client) {
    let server = Server::plain().await;
    let service = service.addr;
    let options = ClientOptions::http(&server, "client-1", "rpc", service);
    let options = ClientOptions {
        args: ["grpc", &service.to_string(), "--name", "rpc"]
            .map(String::from)
            .to_vec(),
        ..options
    };
    let client = Client::start(options).await;
    (server, client)
}

#[tokio::test]
async fn p_8_1_every_kind_of_call_of_grpcio_crosses() {
    let service = PythonService::start("grpc_service.py").await;
    let (server, _client) = world(&service).await;
    let held = visit("grpc_visitor.py", server.http, HOST, &[]).await;
    // Unary calls, streams, chats, details, deadline, cancellation, 64 MiB, 200 at once, health, reflection.
    assert_eq!(held.len(), 11, "{held:?}");
}
