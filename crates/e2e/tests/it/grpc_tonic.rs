//! gRPC through the tunnel, with tonic as visitor and as service. F04, F09, P-8.1 to P-8.4.

mod calls;
mod compression;
// As tonic's generator writes it; `tests/it/grpc_generated.rs` keeps it so.
#[allow(clippy::all, clippy::pedantic, unused_qualifications, unreachable_pub)]
#[rustfmt::skip]
mod echo;
mod refusals;
mod routes;
mod service;
mod tls;

use std::{path::Path, time::Duration};

use adit_e2e::{Client, ClientOptions, Server};
use echo::{Message, echo_client::EchoClient};
use service::Service;
use tonic::transport::{Channel, Endpoint};

/// A bound for what must not hang.
const SOON: Duration = Duration::from_secs(30);

/// The proto file, and what it is made of.
fn descriptors() -> prost_types::FileDescriptorSet {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    protox::compile([dir.join("echo.proto")], [dir]).unwrap()
}

/// A server and a client with these tunnels, as YAML writes them on one line each.
async fn world(server: &str, tunnels: &[String]) -> (Client, Server) {
    let server = Server::with(server).await;
    let lines = tunnels
        .iter()
        .map(|tunnel| format!("    - {{ {tunnel} }}\n"));
    let config = format!("client:\n  tunnels:\n{}", lines.collect::<String>());
    let client = Client::start(ClientOptions::file(&server, "office", &config)).await;
    (client, server)
}

/// What asks for this host.
async fn channel(server: &Server, host: &str) -> Channel {
    Endpoint::from_shared(format!("http://{}", server.http))
        .unwrap()
        .origin(format!("http://{host}").parse().unwrap())
        .connect()
        .await
        .unwrap()
}

async fn visitor(server: &Server, host: &str) -> EchoClient<Channel> {
    EchoClient::new(channel(server, host).await)
}

/// A service, and the tunnel `rpc` to it.
async fn world_of(service: &Service) -> (Client, Server) {
    let tunnel = format!("name: rpc, type: grpc, local_port: {}", service.addr.port());
    world("", &[tunnel]).await
}

fn message(text: &str, count: u32) -> Message {
    Message {
        text: text.to_owned(),
        count,
        ..Message::default()
    }
}
