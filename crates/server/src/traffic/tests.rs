//! Accounts, admission and bandwidth, on a clock that the tests control.

use std::{
    num::{NonZeroU32, NonZeroU64},
    sync::Arc,
    time::Duration,
};

use adit_auth::{ClientClaim, Grant};
use adit_codec::ProtocolType;
use adit_ingress::Limits;
use adit_quota::Quota;

use super::Traffic;
use crate::{
    settings::{TrafficLimits, TrafficSettings},
    tunnel::TunnelKey,
};

fn grant(user: &str, client: &str) -> Grant {
    let claim = ClientClaim {
        client_id: client.parse().unwrap(),
        group_id: "office".parse().unwrap(),
    };
    Grant::for_link(user.parse().unwrap(), claim)
}

fn tunnel(name: &str) -> TunnelKey {
    TunnelKey {
        group: "office".parse().unwrap(),
        name: name.parse().unwrap(),
    }
}

fn of(traffic: &Arc<Traffic>, user: &str, client: &str, name: &str) -> Arc<dyn Limits> {
    let limits = traffic.of_request(&grant(user, client), Some(&tunnel(name)));
    limits.expect("limits")
}

fn settings(change: impl FnOnce(&mut TrafficSettings)) -> TrafficSettings {
    let mut settings = TrafficSettings::default();
    change(&mut settings);
    settings
}

fn bandwidth(bytes: u64) -> TrafficLimits {
    TrafficLimits {
        max_bandwidth: NonZeroU64::new(bytes),
        ..TrafficLimits::default()
    }
}

fn text(limits: &Arc<dyn Limits>, protocol: ProtocolType) -> Option<String> {
    let denial = limits.admit(protocol, false).err()?;
    Some(denial.failure().detail.clone().into_owned())
}

#[tokio::test(start_paused = true)]
async fn without_limits_a_request_has_none() {
    let traffic = Traffic::new(&TrafficSettings::default(), Vec::new());
    let of = |user| traffic.of_request(&grant(user, "a"), Some(&tunnel("web")));
    assert!(of("alice").is_none());
    // Those of one user do not affect another one.
    traffic.follow(&settings(|settings| {
        let alice = "alice".parse().unwrap();
        settings.users.insert(alice, bandwidth(20_000));
    }));
    assert!(of("alice").is_some() && of("bob").is_none());
}

#[tokio::test(start_paused = true)]
async fn p_16_4_each_limit_refuses_with_its_name() {
    let traffic = Traffic::new(
        &settings(|settings| {
            settings.per_tunnel.max_running_requests = Some(1);
            settings.per_client.max_requests_per_second = NonZeroU32::new(2);
            settings.per_user.max_connections = Some(1);
        }),
        Vec::new(),
    );
    let web = of(&traffic, "alice", "a", "web");
    let held = web.admit(ProtocolType::Http, false).ok().unwrap();
    let refused = text(&web, ProtocolType::Grpc).unwrap();
    assert!(
        refused.contains("the tunnel is at its limit of 1 running requests"),
        "{refused}"
    );
    // What a tunnel refuses does not count for the client.
    let other = of(&traffic, "alice", "a", "other");
    assert_eq!(text(&other, ProtocolType::Http), None);
    let refused = text(&other, ProtocolType::Http).unwrap();
    assert!(
        refused.contains("the client is over its limit of 2 requests per second"),
        "{refused}"
    );
    assert!(!refused.contains("alice"), "{refused}");
    // The rate of another client of the same user is its own.
    let second = of(&traffic, "alice", "b", "other");
    let websocket = second.admit(ProtocolType::WebSocket, false).ok().unwrap();
    let refused = text(&second, ProtocolType::Tcp).unwrap();
    assert!(
        refused.contains("the user is at its limit of 1 connections"),
        "{refused}"
    );
    drop((held, websocket));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(text(&web, ProtocolType::Http), None);
    assert_eq!(text(&second, ProtocolType::Udp), None);
    // What is refused does not stay counted.
    let status = traffic.status();
    let running = status
        .accounts
        .iter()
        .map(|one| one.running_requests + one.connections);
    assert_eq!(running.sum::<usize>(), 0);
    let refusals: Vec<_> = status
        .refusals
        .iter()
        .map(|one| (one.of, one.limit, one.count))
        .collect();
    assert_eq!(
        refusals,
        [
            ("tunnel", "running_requests", 1),
            ("client", "requests_per_second", 1),
            ("user", "connections", 1)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn p_16_4_a_retry_counts_for_its_client_only() {
    let quota = Quota {
        requests_per_day: Some(100),
        ..Quota::default()
    };
    let limits = TrafficLimits {
        quota,
        ..TrafficLimits::default()
    };
    let traffic = Traffic::new(
        &settings(|settings| {
            settings.per_tunnel = limits.clone();
            settings.per_client = limits.clone();
            settings.per_user = limits;
        }),
        Vec::new(),
    );
    let first = of(&traffic, "alice", "a", "web").admit(ProtocolType::Http, false);
    let second = of(&traffic, "alice", "b", "web").admit(ProtocolType::Http, true);
    assert!(first.is_ok() && second.is_ok());
    let status = traffic.status();
    let used: Vec<_> = { status.accounts.iter() }
        .map(|one| (one.of, &*one.name, one.quotas[0].used))
        .collect();
    assert_eq!(
        used,
        [
            ("client", "a", 1),
            ("client", "b", 1),
            ("tunnel", "web", 1),
            ("user", "alice", 1)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn p_16_2_a_chunk_waits_for_the_slowest_of_its_limits() {
    let traffic = Traffic::new(
        &settings(|settings| {
            settings.per_tunnel = bandwidth(1_000_000);
            settings.per_user = bandwidth(100_000);
        }),
        Vec::new(),
    );
    tokio::time::advance(Duration::from_secs(10)).await;
    let limits = of(&traffic, "alice", "a", "web");
    let (up, down) = (
        limits.pace_to_client().unwrap(),
        limits.pace_from_client().unwrap(),
    );
    assert_eq!(up.reserve(100_000), Duration::ZERO);
    let wait = up.reserve(100_000);
    assert_eq!(wait, Duration::from_millis(950), "less the burst");
    // Each direction is apart.
    assert_eq!(down.reserve(1_000), Duration::ZERO);
    // A changed limit holds for the same request.
    traffic.follow(&settings(|settings| {
        settings.per_tunnel = bandwidth(1_000_000);
    }));
    let wait = up.reserve(1_000);
    assert!(wait <= Duration::from_millis(150), "{wait:?}");
    let user = traffic
        .status()
        .accounts
        .into_iter()
        .find(|one| one.of == "user");
    assert_eq!(user.unwrap().waited_millis, 950);
}

#[tokio::test(start_paused = true)]
async fn p_16_6_usages_are_restored_and_unused_accounts_are_dropped() {
    let quota = settings(|settings| {
        settings.per_user.quota.bytes_per_month = Some(1_000);
        settings.per_client.max_requests_per_second = NonZeroU32::new(5);
    });
    let traffic = Traffic::new(&quota, Vec::new());
    let limits = of(&traffic, "alice", "a", "web");
    let held = limits.admit(ProtocolType::Http, false).ok();
    assert!(held.is_some());
    limits.pace_to_client().unwrap().on_moved(600);
    limits.pace_from_client().unwrap().on_moved(400);
    drop((held, limits));
    let records = traffic.records();
    assert_eq!(records.len(), 2, "the client has a request");
    let again = Traffic::new(&quota, records.clone());
    assert_eq!(again.records(), records);
    let refused = text(&of(&again, "alice", "a", "web"), ProtocolType::Http).unwrap();
    assert!(
        refused.contains("the user is over its quota of bytes per month"),
        "{refused}"
    );
    // Another client, without a use, is dropped after a while.
    assert!(traffic.of_request(&grant("bob", "b"), None).is_some());
    assert_eq!(traffic.status().known, 4);
    tokio::time::advance(Duration::from_secs(120)).await;
    assert_eq!(traffic.records().len(), 2);
    assert_eq!(traffic.status().known, 2);
}

/// Clients choose their names; the table of their accounts is bounded.
#[tokio::test(start_paused = true)]
async fn accounts_of_many_names_are_bounded() {
    let traffic = Traffic::new(
        &settings(|settings| settings.per_client = bandwidth(1_000_000)),
        Vec::new(),
    );
    let kept = of(&traffic, "alice", "kept", "web");
    for number in 0..70_000 {
        let name = format!("client-{number}");
        assert!(traffic.of_request(&grant("alice", &name), None).is_some());
    }
    let known = traffic.status().known;
    assert!((60_000..=65_536).contains(&known), "{known}");
    assert!(traffic.status().accounts.len() <= 1_000);
    // One that a request uses stays.
    kept.pace_to_client().unwrap().reserve(1_000_000);
    tokio::time::advance(Duration::from_millis(1)).await;
    let same = of(&traffic, "alice", "kept", "web");
    assert!(same.pace_to_client().unwrap().reserve(1_000) > Duration::from_millis(100));
}
