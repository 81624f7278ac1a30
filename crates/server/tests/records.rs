//! What is told of the requests that clients open: of each once, whatever became of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use adit_link::Reason;
use adit_server::{Limits, Server, Settings, Timeouts};
use adit_trace::{Edge, Observer, Record, Timeline};
use support::{Rogue, Site, settings, until, upstream};

/// Keeps what it is told.
#[derive(Debug, Default)]
struct Keeper(Mutex<Vec<Told>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    protocol: &'static str,
    tunnel: String,
    owner: [String; 3],
    reason: Option<&'static str>,
    lasted: Duration,
}

impl Observer for Keeper {
    fn begin(&self, _: &str) -> Option<Box<Timeline>> {
        None
    }

    fn random(&self) -> u64 {
        1
    }

    fn is_enabled(&self) -> bool {
        true
    }

    fn on_end(&self, record: &Record<'_>) {
        assert_eq!((record.edge, record.opener), (Edge::Egress, "client"));
        self.0.lock().unwrap().push(Told {
            protocol: record.protocol,
            tunnel: record.tunnel.into(),
            owner: [record.user, record.group, record.client].map(Into::into),
            reason: record.reason,
            lasted: record.ended - record.started,
        });
    }
}

impl Keeper {
    fn told(&self) -> Vec<Told> {
        self.0.lock().unwrap().clone()
    }

    /// Reasons and tunnels, in the order in which they were told.
    fn reasons(&self) -> Vec<(Option<&'static str>, String)> {
        let told = self.told().into_iter();
        told.map(|told| (told.reason, told.tunnel)).collect()
    }
}

fn start(settings: &Settings) -> (Server, Arc<Keeper>) {
    let keeper = Arc::new(Keeper::default());
    let observer: Arc<dyn Observer> = keeper.clone();
    (Server::start_observed(settings, &observer).unwrap(), keeper)
}

/// One request at a time; the next one waits for `permit_wait`.
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
async fn what_is_refused_is_told_with_its_owner() {
    let site = Site::start("erp").await;
    let (server, keeper) = start(&settings(vec![upstream("erp", &[&site])]));
    let client = Rogue::connect(&server, "one").await;
    client.get("erp").await.unwrap();
    client.open_tcp("erp").await.unwrap_err();
    client.open_udp("erp").await.unwrap_err();
    until(|| keeper.told().len() == 3).await;
    let told = keeper.told();
    for told in &told {
        assert_eq!(told.owner, ["ann", "one", "one"], "{told:?}");
        assert_eq!(told.tunnel, "erp", "{told:?}");
    }
    let ended: Vec<_> = told.iter().map(|one| (one.protocol, one.reason)).collect();
    let no_tunnel = Some("no_tunnel");
    assert_eq!(
        ended,
        [("http", None), ("tcp", no_tunnel), ("udp", no_tunnel)]
    );
    server.stop().await;
}

/// Label sets are counted by these names.
#[tokio::test]
async fn names_that_clients_make_up_are_not_told() {
    let (server, keeper) = start(&settings(Vec::new()));
    let client = Rogue::connect(&server, "one").await;
    for name in ["made-up", &"n".repeat(5_000)] {
        let failures = [
            client.get(name).await.unwrap_err(),
            client.open_tcp(name).await.unwrap_err(),
            client.open_udp(name).await.unwrap_err(),
            client.open_grpc(name).await.unwrap_err(),
            client.open_websocket(name).await.unwrap_err(),
        ];
        for failure in failures {
            assert_eq!(failure.reason, Reason::NoTunnel, "{failure}");
            let shown = &name[..name.len().min(64)];
            assert!(failure.to_string().contains(shown), "{failure}");
        }
    }
    until(|| keeper.told().len() == 10).await;
    for told in keeper.told() {
        assert_eq!((told.reason, &*told.tunnel), (Some("no_tunnel"), ""));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_request_that_waited_in_vain_is_told_with_its_wait() {
    let site = Site::start("erp").await;
    let wait = Duration::from_millis(50);
    let (server, keeper) = start(&one_at_a_time(&site, wait));
    let client = Rogue::connect(&server, "one").await;
    let held = client.hold("erp");
    until(|| site.held() == 1).await;
    client.get("erp").await.unwrap_err();
    until(|| keeper.told().len() == 1).await;
    let [told] = &keeper.told()[..] else {
        panic!("{keeper:?}");
    };
    assert_eq!((told.reason, &*told.tunnel), (Some("limit"), "erp"));
    assert!(told.lasted >= wait, "{told:?}");
    drop(held);
    until(|| keeper.told().len() == 2).await;
    server.stop().await;
}

/// Without a wait at all too.
#[tokio::test]
async fn a_request_that_may_not_wait_is_told() {
    let site = Site::start("erp").await;
    let (server, keeper) = start(&one_at_a_time(&site, Duration::ZERO));
    let client = Rogue::connect(&server, "one").await;
    let held = client.hold("erp");
    until(|| site.held() == 1).await;
    client.get("erp").await.unwrap_err();
    until(|| keeper.told().len() == 1).await;
    assert_eq!(keeper.reasons(), [(Some("limit"), "erp".to_owned())]);
    drop(held);
    server.stop().await;
}

/// Who leaves, who waits for it, and who has it: each is told of once.
#[tokio::test]
async fn a_request_that_left_while_it_waited_is_told() {
    let site = Site::start("erp").await;
    let (server, keeper) = start(&one_at_a_time(&site, Duration::from_secs(60)));
    let client = Rogue::connect(&server, "one").await;
    let held = client.hold("erp");
    until(|| site.held() == 1).await;
    let left = client.hold("erp");
    let handle = server.handle();
    until(|| handle.status().clients[0].accepted == 2).await;
    drop(left);
    until(|| keeper.told().len() == 1).await;
    drop(held);
    until(|| keeper.told().len() == 2).await;
    let cancelled = (Some("cancelled"), "erp".to_owned());
    assert_eq!(keeper.reasons(), [cancelled.clone(), cancelled]);
    assert_eq!(client.get("erp").await.unwrap(), "erp");
    until(|| keeper.told().len() == 3).await;
    assert_eq!(keeper.told()[2].reason, None);
    server.stop().await;
}

#[tokio::test]
async fn what_a_draining_server_refuses_is_told() {
    let site = Site::start("erp").await;
    let (server, keeper) = start(&settings(vec![upstream("erp", &[&site])]));
    let client = Rogue::connect(&server, "one").await;
    let held = client.hold("erp");
    until(|| site.held() == 1).await;
    let handle = server.handle();
    let draining = tokio::spawn(async move {
        server.drain().await;
        server
    });
    until(|| handle.status().phase == "draining").await;
    client.get("erp").await.unwrap_err();
    until(|| keeper.told().len() == 1).await;
    assert_eq!(keeper.reasons(), [(Some("draining"), "erp".to_owned())]);
    drop(held);
    draining.await.unwrap().stop().await;
}
