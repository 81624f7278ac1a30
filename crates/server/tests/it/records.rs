//! The records of requests that clients open: one for each, whatever its outcome.

use std::{sync::Arc, time::Duration};

use crate::support::{Site, TestClient, settings, until, upstream, who};
use adit_link::Reason;
use adit_server::{Limits, Server, Settings, Timeouts};
use adit_testlink::{Recorded, Recorder, Records};
use adit_trace::{Edge, Observer};

/// A server with an observer.
fn start(settings: &Settings) -> (Server, Records) {
    let (recorder, records) = Recorder::new(0.0);
    let observer: Arc<dyn Observer> = recorder;
    (
        Server::start_observed(settings, &observer).unwrap(),
        records,
    )
}

/// The next record, of a request that a client opened.
async fn record(records: &mut Records) -> Recorded {
    let record = records.next().await;
    assert_eq!((record.edge, record.opener), (Edge::Egress, "client"));
    record
}

/// The reason and the tunnel of the next record.
async fn reason(records: &mut Records) -> (Option<&'static str>, &'static str) {
    let record = record(records).await;
    (record.reason, record.tunnel)
}

/// Settings for one request at a time; another one waits for `permit_wait`.
fn one_at_a_time(site: &Site, permit_wait: Duration) -> Settings {
    Settings {
        limits: Limits {
            max_requests: 1,
            ..Limits::default()
        },
        timeouts: Timeouts {
            startup_grace: Duration::ZERO,
            permit_wait,
            ..Timeouts::default()
        },
        ..settings(vec![upstream("erp", &[site])])
    }
}

#[tokio::test]
async fn refused_requests_are_recorded_with_their_owner() {
    let site = Site::start("erp").await;
    let (server, mut records) = start(&settings(vec![upstream("erp", &[&site])]));
    let client = TestClient::connect(&server, "one").await;
    client.get("erp").await.unwrap();
    client.open(who("erp").tcp(b"")).await.unwrap_err();
    client.open(who("erp").udp()).await.unwrap_err();
    let no_tunnel = Some("no_tunnel");
    for ended in [("http", None), ("tcp", no_tunnel), ("udp", no_tunnel)] {
        let record = record(&mut records).await;
        assert_eq!((record.protocol, record.reason), ended);
        let owner = [record.user, record.group, record.client];
        assert_eq!(owner, ["ann", "one", "one"]);
        assert_eq!(record.tunnel, "erp");
    }
    server.stop().await;
}

/// Records are counted by these names, so an unknown name must not be one of them.
#[tokio::test]
async fn unknown_tunnel_names_are_not_recorded() {
    let (server, mut records) = start(&settings(Vec::new()));
    let client = TestClient::connect(&server, "one").await;
    for name in ["made-up", &"n".repeat(5_000)] {
        for failure in client.failures(name).await {
            assert_eq!(failure.reason, Reason::NoTunnel, "{failure}");
            let shown = &name[..name.len().min(64)];
            assert!(failure.to_string().contains(shown), "{failure}");
        }
    }
    for _ in 0..10 {
        let no_tunnel = (Some("no_tunnel"), "");
        assert_eq!(reason(&mut records).await, no_tunnel);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_request_refused_after_a_wait_records_the_wait() {
    let site = Site::start("erp").await;
    let wait = Duration::from_millis(50);
    let (server, mut records) = start(&one_at_a_time(&site, wait));
    let client = TestClient::connect(&server, "one").await;
    let held = client.hold("erp");
    until("the service has the requests", || site.requests() == 1).await;
    client.get("erp").await.unwrap_err();
    let record = record(&mut records).await;
    assert_eq!((record.reason, record.tunnel), (Some("limit"), "erp"));
    assert!(record.ended - record.started >= wait, "{record:?}");
    drop(held);
    reason(&mut records).await;
    server.stop().await;
}

/// A request that is refused at the limit without a wait is recorded.
#[tokio::test]
async fn a_request_without_a_wait_is_recorded() {
    let site = Site::start("erp").await;
    let (server, mut records) = start(&one_at_a_time(&site, Duration::ZERO));
    let client = TestClient::connect(&server, "one").await;
    let held = client.hold("erp");
    until("the service has the requests", || site.requests() == 1).await;
    client.get("erp").await.unwrap_err();
    let limit = (Some("limit"), "erp");
    assert_eq!(reason(&mut records).await, limit);
    drop(held);
    server.stop().await;
}

/// The request that stops waiting, the one that holds the permit and the next one are recorded once each.
#[tokio::test]
async fn a_request_that_leaves_the_queue_is_recorded() {
    let site = Site::start("erp").await;
    let (server, mut records) = start(&one_at_a_time(&site, Duration::from_secs(60)));
    let client = TestClient::connect(&server, "one").await;
    let held = client.hold("erp");
    until("the service has the requests", || site.requests() == 1).await;
    let left = client.hold("erp");
    let handle = server.handle();
    until("the server has the requests", || {
        handle.status().clients[0].accepted == 2
    })
    .await;
    let cancelled = (Some("cancelled"), "erp");
    drop(left);
    assert_eq!(reason(&mut records).await, cancelled);
    drop(held);
    assert_eq!(reason(&mut records).await, cancelled);
    assert_eq!(client.get("erp").await.unwrap(), "erp");
    assert_eq!(reason(&mut records).await, (None, "erp"));
    server.stop().await;
}

#[tokio::test]
async fn requests_refused_by_a_draining_server_are_recorded() {
    let site = Site::start("erp").await;
    let (server, mut records) = start(&settings(vec![upstream("erp", &[&site])]));
    let client = TestClient::connect(&server, "one").await;
    let held = client.hold("erp");
    until("the service has the requests", || site.requests() == 1).await;
    let handle = server.handle();
    let draining = tokio::spawn(async move {
        server.drain().await;
        server
    });
    until("the server drains", || handle.status().phase == "draining").await;
    client.get("erp").await.unwrap_err();
    let draining_server = (Some("draining"), "erp");
    assert_eq!(reason(&mut records).await, draining_server);
    drop(held);
    draining.await.unwrap().stop().await;
}
