//! The status that a visitor receives when the tunnel cannot carry a call.

use adit_e2e::{Server, within};
use tonic::{Code, Status};

use crate::grpc_tonic::{
    SOON, message,
    service::{Service, listen},
    visitor, world,
};

/// The status, and the reason from the tunnel.
fn code_and_reason(status: &Status) -> (Code, &str) {
    let reason = status.metadata().get("adit-reason");
    let reason = reason.unwrap_or_else(|| panic!("not the tunnel's: {status:?}"));
    assert!(status.metadata().get("adit-request-id").is_some());
    (status.code(), reason.to_str().unwrap())
}

async fn refused(server: &Server, host: &str) -> Status {
    let mut visitor = visitor(server, host).await;
    let call = visitor.unary(message("m", 0));
    within("a response", SOON, call).await.unwrap_err()
}

#[tokio::test]
async fn p_8_4_a_client_that_is_gone_is_unavailable() {
    let service = Service::start("one").await;
    let config = "server:\n  timeouts: { client_wait: 100ms }\n";
    let tunnel = format!("name: rpc, type: grpc, local_port: {}", service.addr.port());
    let (mut client, server) = world(config, &[tunnel]).await;
    let mut visitor = visitor(&server, "rpc.localhost").await;
    // One call that runs, and one that begins later.
    let mut running = visitor.hang(message("m", 0)).await.unwrap().into_inner();
    assert!(running.message().await.unwrap().is_some());
    client.kill();
    let status = within("an end", SOON, running.message()).await.unwrap_err();
    assert_eq!(code_and_reason(&status), (Code::Unavailable, "link_lost"));
    let status = refused(&server, "rpc.localhost").await;
    assert_eq!(code_and_reason(&status), (Code::Unavailable, "no_client"));
}

#[tokio::test]
async fn p_8_4_a_service_that_is_not_there_is_unavailable() {
    let (listener, addr) = listen().await;
    drop(listener);
    let tunnel = format!("name: rpc, type: grpc, local_port: {}", addr.port());
    let (_client, server) = world("", &[tunnel]).await;
    let status = refused(&server, "rpc.localhost").await;
    assert_eq!(code_and_reason(&status), (Code::Unavailable, "dial_failed"));
    // Only the logs of the two sides contain the address of the service.
    let address = addr.to_string();
    assert!(!status.message().contains(&address), "{status:?}");
}

#[tokio::test]
async fn p_8_4_an_unknown_host_is_unimplemented() {
    let service = Service::start("one").await;
    let config = "server:\n  timeouts: { startup_grace: 0s }\n";
    let tunnel = format!("name: rpc, type: grpc, local_port: {}", service.addr.port());
    let (_client, server) = world(config, &[tunnel]).await;
    let status = refused(&server, "unknown.localhost").await;
    assert_eq!(code_and_reason(&status), (Code::Unimplemented, "no_tunnel"));
}
