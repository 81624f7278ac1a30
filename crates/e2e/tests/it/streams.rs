//! Data and control streams that are lost one at a time: each is opened again under its session. F01, P-1.7, P-6.4.

use std::{net::SocketAddr, time::Duration};

use adit_e2e::{
    Client, ClientOptions, Load, Relay, Server, Service, count, eventually, get, post, within,
};
use http::StatusCode;

const SOON: Duration = Duration::from_secs(30);

/// The streams of a client's first connection, in the order in which it opens them: 1 is `Register`.
const DATA_STREAM: u32 = 3;
const CONTROL_STREAM: u32 = 5;

/// A client whose connections to the server pass through a relay.
struct World {
    client: Client,
    server: Server,
    relay: Relay,
    service: Service,
    epoch: u64,
}

impl World {
    async fn start(lanes: u32) -> Self {
        Self::with("", lanes, "").await
    }

    async fn with(server: &str, lanes: u32, entries: &str) -> Self {
        let service = Service::site("one").await;
        let server = Server::with(&server.replace("SERVICE", &service.addr.to_string())).await;
        let relay = Relay::start(server.tunnel).await;
        let config = format!(
            "client:\n  server_addr: {}\n  server_port: {}\n  lanes: {lanes}\n  tunnels:\n    - {{ name: web, local_port: {} }}\n{entries}",
            relay.addr.ip(),
            relay.addr.port(),
            service.port(),
        );
        let client = Client::start(ClientOptions::file(&server, "office", &config)).await;
        let epoch = count(&client.status().await, "/epoch");
        let world = Self {
            client,
            server,
            relay,
            service,
            epoch,
        };
        world.has_streams(u64::from(lanes), 0).await;
        world
    }

    /// Waits until every stream is open on both sides, and `reopened` of them have been opened again.
    async fn has_streams(&self, lanes: u64, reopened: u64) {
        eventually("all streams", SOON, async || {
            let client = self.client.status().await;
            let server = self.server.status().await;
            let link = &server["clients"][0];
            (count(&client, "/lanes") == lanes
                && count(&client, "/streams_reopened") == reopened
                && count(link, "/lanes") == lanes
                && link["control"] == true)
                .then_some(())
        })
        .await;
    }

    async fn is_the_same_session(&self) {
        let (client, server) = (self.client.status().await, self.server.status().await);
        assert_eq!(count(&client, "/epoch"), self.epoch);
        assert_eq!(count(&server, "/clients/0/epoch"), self.epoch);
        assert_eq!(client["connection"], "connected");
        assert_eq!(count(&client, "/cores/reconnect_dials"), 1);
    }

    async fn load(&self) -> Load {
        Load::start(self.server.http, "web.localhost", "one").await
    }
}

#[tokio::test]
async fn p_1_7_one_lane_of_two_is_opened_again() {
    let world = World::start(2).await;
    assert_eq!(world.relay.connections(), 2);
    let loads = [world.load().await, world.load().await];
    world.relay.cut(1);
    world.has_streams(2, 1).await;
    assert_eq!(world.relay.connections(), 3);
    for load in loads {
        load.goes_on().await;
        load.stop().await;
    }
    world.is_the_same_session().await;
}

#[tokio::test]
async fn p_1_7_control_and_first_lane_are_opened_again_together() {
    let world = World::start(2).await;
    let load = world.load().await;
    world.relay.cut(0);
    world.has_streams(2, 2).await;
    load.goes_on().await;
    load.stop().await;
    world.is_the_same_session().await;
}

#[tokio::test]
async fn p_1_7_the_only_data_stream_is_opened_again() {
    let world = World::start(1).await;
    let load = world.load().await;
    world.relay.reset_stream(0, DATA_STREAM);
    world.has_streams(1, 1).await;
    load.goes_on().await;
    load.stop().await;
    world.is_the_same_session().await;
    assert_eq!(world.relay.connections(), 1, "on the same connection");
}

#[tokio::test]
async fn p_1_7_the_control_stream_is_opened_again() {
    let world = World::start(1).await;
    let load = world.load().await;
    world.relay.reset_stream(0, CONTROL_STREAM);
    world.has_streams(1, 1).await;
    load.goes_on().await;
    load.stop().await;
    world.is_the_same_session().await;
}

#[tokio::test]
async fn p_6_4_unsafe_requests_of_a_lost_lane_fail_once() {
    let world = World::start(1).await;
    let (addr, host) = (world.server.http, "web.localhost");
    let running = tokio::spawn(async move { post(addr, host, "/held", "body").await });
    eventually("a running request", SOON, async || {
        (world.service.stats.begun() == 1).then_some(())
    })
    .await;
    world.relay.reset_stream(0, DATA_STREAM);
    let response = within("its failure", SOON, running).await.unwrap();
    assert_eq!(
        (response.status, response.reason()),
        (StatusCode::BAD_GATEWAY, "link_lost")
    );
    world.has_streams(1, 1).await;
    assert_eq!(world.service.stats.begun(), 1, "it was not sent again");
    let response = get(addr, host, "/who").await;
    assert_eq!(response.text(), "one");
    world.is_the_same_session().await;
}

#[tokio::test]
async fn requests_of_entries_wait_for_the_reopened_lane() {
    let server = "server:\n  upstreams:\n    - { name: erp, protocol: http1, servers: [{ address: \"SERVICE\" }] }\n";
    let entries =
        "  entries:\n    - { name: erp, type: http, listen: \"127.0.0.1:0\", upstream: erp }\n";
    let world = World::with(server, 1, entries).await;
    let status = world.client.status().await;
    let entry: SocketAddr = status["entries"][0]["listen"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let load = Load::start(entry, "erp.internal", "one").await;
    world.relay.reset_stream(0, DATA_STREAM);
    world.has_streams(1, 1).await;
    load.goes_on().await;
    load.stop().await;
    world.is_the_same_session().await;
}

/// When the last stream is lost, the session ends on both sides: the client registers again.
#[tokio::test]
async fn p_1_7_without_any_stream_the_client_registers_anew() {
    let world = World::start(1).await;
    world.relay.cut(0);
    eventually("a new session", SOON, async || {
        let status = world.client.status().await;
        let epoch = count(&status, "/epoch");
        (status["connection"] == "connected" && epoch > world.epoch).then_some(())
    })
    .await;
    world.has_streams(1, 0).await;
    let response = get(world.server.http, "web.localhost", "/who").await;
    assert_eq!(response.text(), "one");
}
