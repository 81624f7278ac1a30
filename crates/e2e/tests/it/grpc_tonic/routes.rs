//! The service that a call reaches.

use crate::grpc_tonic::{message, service::Service, visitor, world};

/// The services that respond to the calls `Unary` and `Collect` with this host.
async fn responders(server: &adit_e2e::Server, host: &str) -> [String; 2] {
    let mut visitor = visitor(server, host).await;
    let name = |metadata: &tonic::metadata::MetadataMap| {
        let name = metadata.get("x-service").unwrap();
        name.to_str().unwrap().to_owned()
    };
    let unary = visitor.unary(message("m", 0)).await.unwrap();
    let collect = visitor
        .collect(tokio_stream::iter([message("m", 0)]))
        .await
        .unwrap();
    [name(unary.metadata()), name(collect.metadata())]
}

#[tokio::test]
async fn f04_f25_calls_are_led_by_host_service_and_method() {
    let (one, two) = (Service::start("one").await, Service::start("two").await);
    let tunnel = |name: &str, service: &Service| {
        format!(
            "name: {name}, type: grpc, local_port: {}",
            service.addr.port()
        )
    };
    let rules = "server:
  rules:
    - { host: service.example, grpc: adit.e2e.v1.Echo, to: { tunnel: two } }
    - { host: method.example, grpc: adit.e2e.v1.Echo, to: { tunnel: one } }
    - { host: method.example, grpc: adit.e2e.v1.Echo/Collect, to: { tunnel: two } }
    - { host: other.example, grpc: adit.e2e.v1.Other, to: { tunnel: two } }
    - { host: other.example, to: { tunnel: one } }
";
    let (_client, server) = world(rules, &[tunnel("one", &one), tunnel("two", &two)]).await;
    for (host, expected) in [
        ("one.localhost", ["one", "one"]),
        ("two.localhost", ["two", "two"]),
        ("service.example", ["two", "two"]),
        ("method.example", ["one", "two"]),
        ("other.example", ["one", "one"]),
    ] {
        assert_eq!(responders(&server, host).await, expected, "{host}");
    }
}
