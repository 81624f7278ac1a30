//! The requests that clients open at a server: upstreams, limits, policies.

use std::time::Duration;

use crate::support::{Site, TestClient, server, server_at, settings, until, upstream, who};
use adit_balance::Policy;
use adit_link::{
    Reason,
    control::{Channel as _, RefusalReason},
};
use adit_proto::ConfigSyncRequest;
use adit_server::{Limits, Server, Settings, Timeouts, UpstreamProtocol};
use adit_testlink::{TunnelRequest, tcp::unused_port};

/// P-12.1: a name selects the upstream, and the host is forwarded as the visitor sent it.
#[tokio::test]
async fn p_12_1_a_request_reaches_the_upstream_that_it_names() {
    let site = Site::start("erp").await;
    let server = server(vec![upstream("erp", &[&site])]);
    let client = TestClient::connect(&server, "one").await;
    let response = client.get("erp").await.unwrap();
    assert_eq!(response, "erp");
    let head = site.last_head();
    assert!(head.starts_with("GET /who HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nhost: visitor.example\r\n"), "{head}");
    server.stop().await;
}

/// P-12.1: addresses, names of other objects and similar names do not select an upstream.
#[tokio::test]
async fn p_12_1_no_other_name_leads_anywhere() {
    let (site, secret) = (Site::start("erp").await, Site::start("secret").await);
    let server = server(vec![upstream("erp", &[&site])]);
    let client = TestClient::connect(&server, "one").await;
    let secret_addr = secret.addr.to_string();
    let names = [
        String::new(),
        "ERP".to_owned(),
        " erp".to_owned(),
        "erp/".to_owned(),
        "../erp".to_owned(),
        "unknown".to_owned(),
        "localhost".to_owned(),
        secret_addr.clone(),
        format!("http://{secret_addr}/"),
        // The name by which `egress` identifies the server of the upstream, and that of another one.
        format!("erp/{}", site.addr),
        format!("erp/{secret_addr}"),
        server.http_addr().to_string(),
        "n".repeat(5_000),
    ];
    for name in &names {
        for failure in client.failures(name).await {
            assert_eq!(failure.reason, Reason::NoTunnel, "{name}: {failure}");
        }
    }
    // A name with a NUL byte is rejected earlier.
    let failure = client.get("erp\0").await.unwrap_err();
    assert_eq!(failure.reason, Reason::ProtocolError, "{failure}");
    assert_eq!((site.seen().connections, secret.seen().connections), (0, 0));
    assert_eq!(client.get("erp").await.unwrap(), "erp", "the link lives on");
    server.stop().await;
}

/// P-12.1: neither the host nor the path of a request selects its destination.
#[tokio::test]
async fn p_12_1_host_and_path_choose_no_address() {
    let (site, secret) = (Site::start("erp").await, Site::start("secret").await);
    let server = server(vec![upstream("erp", &[&site])]);
    let client = TestClient::connect(&server, "one").await;
    let secret_addr = secret.addr.to_string();
    let request = TunnelRequest {
        authority: &secret_addr,
        ..who("erp")
    };
    assert_eq!(client.open(request.http(b"")).await.unwrap(), "erp");
    assert!(
        site.last_head()
            .contains(&format!("\r\nhost: {secret_addr}\r\n"))
    );
    // RFC 9112, 3.2.2: an absolute target would override the host.
    for path in [format!("http://{secret_addr}/who"), secret_addr.clone()] {
        let request = TunnelRequest {
            path: &path,
            ..who("erp")
        };
        let failure = client.open(request.http(b"")).await.unwrap_err();
        assert_eq!(failure.reason, Reason::ProtocolError, "{path}");
    }
    let request = TunnelRequest {
        method: "CONNECT",
        authority: &secret_addr,
        ..who("erp")
    };
    let failure = client.open(request.http(b"")).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ProtocolError);
    assert_eq!(secret.seen().connections, 0);
    server.stop().await;
}

#[tokio::test]
async fn the_host_rewrite_of_an_upstream_replaces_the_host() {
    let site = Site::start("erp").await;
    let mut erp = upstream("erp", &[&site]);
    erp.host_rewrite = Some("erp.internal".into());
    let server = server(vec![erp]);
    let client = TestClient::connect(&server, "one").await;
    client.get("erp").await.unwrap();
    let head = site.last_head();
    assert!(head.contains("\r\nhost: erp.internal\r\n"), "{head}");
    assert!(!head.contains("visitor.example"), "{head}");
    server.stop().await;
}

/// The kind of a request must fit the protocol of its upstream.
#[tokio::test]
async fn an_upstream_of_another_protocol_is_an_error() {
    let site = Site::start("site").await;
    let mut tcp = upstream("tcp", &[&site]);
    tcp.protocol = UpstreamProtocol::Tcp;
    let server = server(vec![upstream("http", &[&site]), tcp]);
    let client = TestClient::connect(&server, "one").await;
    let failure = client.get("tcp").await.unwrap_err();
    assert_eq!(failure.reason, Reason::NoTunnel);
    assert!(failure.detail.contains("type: tcp"), "{failure}");
    let failure = client.open(who("http").tcp(b"")).await.unwrap_err();
    assert_eq!(failure.reason, Reason::NoTunnel);
    assert!(failure.detail.contains("type: http"), "{failure}");
    let failure = client.open(who("tcp").udp()).await.unwrap_err();
    assert_eq!(failure.reason, Reason::NoTunnel);
    assert_eq!(site.seen().connections, 0);
    server.stop().await;
}

/// P-12.2, F23: the server chooses by the upstream's policy.
#[tokio::test]
async fn p_12_2_policies_choose_among_the_servers() {
    let sites = [
        Site::start("a").await,
        Site::start("b").await,
        Site::start("c").await,
    ];
    let all: Vec<_> = sites.iter().collect();
    let mut even = upstream("even", &all);
    even.policy = Policy::RoundRobin;
    let mut weighted = upstream("weighted", &all);
    weighted.policy = Policy::WeightedRoundRobin;
    for (server, weight) in weighted.servers.iter_mut().zip([1, 2, 3]) {
        server.weight = weight;
    }
    let mut by_ip = upstream("by-ip", &all);
    by_ip.policy = Policy::IpHash;
    let mut by_header = upstream("by-header", &all);
    by_header.policy = Policy::ConsistentHash;
    by_header.hash_on = "header:x-key".into();
    let mut by_cookie = upstream("by-cookie", &all);
    by_cookie.policy = Policy::ConsistentHash;
    by_cookie.hash_on = "cookie:key".into();
    let mut by_host = upstream("by-host", &all);
    by_host.policy = Policy::ConsistentHash;
    let server = server(vec![even, weighted, by_ip, by_header, by_cookie, by_host]);
    let client = TestClient::connect(&server, "one").await;
    let spread = |upstream: &'static str, count: usize| {
        let client = &client;
        async move {
            let mut names = Vec::new();
            for _ in 0..count {
                names.push(client.get(upstream).await.unwrap());
            }
            ["a", "b", "c"].map(|name| names.iter().filter(|found| *found == name).count())
        }
    };
    assert_eq!(spread("even", 30).await, [10, 10, 10]);
    assert_eq!(spread("weighted", 30).await, [5, 10, 15]);

    // Equal keys select the same server; different keys select more than one server.
    let mut chosen = std::collections::BTreeMap::<&str, Vec<String>>::new();
    for key in 0..24 {
        let (ip, text) = (format!("192.0.2.{key}"), format!("key-{key}"));
        let cookie = format!("a=b; key={text}; c=d");
        for port in [1_000, 2_000] {
            let visitor = format!("{ip}:{port}");
            let port = port.to_string();
            let headers = [
                ("x-key", &text[..]),
                ("x-other", &port),
                ("cookie", &cookie),
            ];
            for upstream in ["by-ip", "by-header", "by-cookie", "by-host"] {
                let mut request = TunnelRequest {
                    authority: &text,
                    headers: &headers,
                    ..who(upstream)
                };
                request.open.visitor = &visitor;
                let name = client.open(request.http(b"")).await.unwrap();
                chosen.entry(upstream).or_default().push(name);
            }
        }
    }
    for (upstream, names) in &chosen {
        for pair in names.chunks(2) {
            assert_eq!(pair[0], pair[1], "{upstream}");
        }
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert!(different.len() > 1, "{upstream}: {names:?}");
    }
    let status = server.handle().status();
    let even = status.upstreams.iter().find(|one| one.name == "even");
    let even = even.unwrap();
    assert_eq!((even.requests, even.policy), (30, "round_robin"));
    assert!(even.servers.iter().all(|server| server.requests_open == 0));
    server.stop().await;
}

/// The least busy server is the one that holds no request.
#[tokio::test]
async fn p_12_2_requests_in_flight_are_load() {
    let sites = [Site::start("a").await, Site::start("b").await];
    let mut least = upstream("least", &[&sites[0], &sites[1]]);
    least.policy = Policy::LeastConnections;
    let server = server(vec![least]);
    let client = TestClient::connect(&server, "one").await;
    let held = client.hold("least");
    until("the service has the requests", || {
        sites[0].requests() + sites[1].requests() == 1
    })
    .await;
    let (busy, free) = if sites[0].requests() == 1 {
        ("a", "b")
    } else {
        ("b", "a")
    };
    for _ in 0..5 {
        assert_eq!(client.get("least").await.unwrap(), free);
    }
    drop(held);
    let handle = server.handle();
    until("all permits are returned", || {
        handle.status().process.permits_in_use == 0
    })
    .await;
    let names = [
        client.get("least").await.unwrap(),
        client.get("least").await.unwrap(),
    ];
    assert!(names.iter().any(|name| name == busy), "{names:?}");
    server.stop().await;
}

/// P-7, P-12.2: the reasons are those of requests in the other direction.
#[tokio::test]
async fn p_12_2_a_server_that_is_down_is_a_failed_dial() {
    let site = Site::start("up").await;
    let mut erp = upstream("erp", &[&site]);
    erp.servers.push(server_at(unused_port().await));
    let server = server(vec![erp]);
    let client = TestClient::connect(&server, "one").await;
    let (mut up, mut down) = (0, 0);
    for _ in 0..10 {
        match client.get("erp").await {
            Ok(name) => {
                assert_eq!(name, "up");
                up += 1;
            }
            Err(failure) => {
                assert_eq!(failure.reason, Reason::DialFailed, "{failure}");
                down += 1;
            }
        }
    }
    assert_eq!((up, down), (5, 5));
    assert_eq!(server.handle().status().process.permits_in_use, 0);
    server.stop().await;
}

fn bounded(requests: usize, per_client: usize, wait: Duration, site: &Site) -> Settings {
    Settings {
        limits: Limits {
            max_requests: requests,
            max_requests_per_client: per_client,
            ..Limits::default()
        },
        timeouts: Timeouts {
            permit_wait: wait,
            ..settings(Vec::new()).timeouts
        },
        ..settings(vec![upstream("erp", &[site])])
    }
}

/// P-12.2, F12: a request above the limit waits, and is then refused.
#[tokio::test]
async fn p_12_2_without_a_permit_a_request_waits_a_bounded_time() {
    let site = Site::start("erp").await;
    let wait = Duration::from_millis(200);
    let server = Server::start(&bounded(1, 10, wait, &site)).unwrap();
    let client = TestClient::connect(&server, "one").await;
    let held = client.hold("erp");
    until("the service has the requests", || site.requests() == 1).await;
    let failure = client.get("erp").await.unwrap_err();
    assert_eq!(failure.reason, Reason::Limit, "{failure}");
    drop(held);
    let handle = server.handle();
    until("all permits are returned", || {
        handle.status().process.permits_in_use == 0
    })
    .await;
    assert_eq!(client.get("erp").await.unwrap(), "erp");
    server.stop().await;
}

/// A returned permit is given to the next waiting request, in order; a request that stops waiting takes none.
#[tokio::test]
async fn p_12_2_a_waiting_request_gets_the_returned_permit() {
    let site = Site::start("erp").await;
    let server = Server::start(&bounded(1, 10, Duration::from_secs(60), &site)).unwrap();
    let client = TestClient::connect(&server, "one").await;
    let held = client.hold("erp");
    until("the service has the requests", || site.requests() == 1).await;
    let left = client.hold("erp");
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { client.get("erp").await })
    };
    let handle = server.handle();
    until("the server has the requests", || {
        handle.status().clients[0].accepted == 3
    })
    .await;
    drop(left);
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap(), "erp");
    until("all permits are returned", || {
        handle.status().process.permits_in_use == 0
    })
    .await;
    assert_eq!(site.requests(), 2, "the one that left was not served");
    server.stop().await;
}

/// P-2.9: a client cannot have more requests open than its limit.
#[tokio::test]
async fn p_2_9_a_client_opens_no_more_than_it_may() {
    let site = Site::start("erp").await;
    let server = Server::start(&bounded(100, 3, Duration::from_secs(60), &site)).unwrap();
    let (client, other) = (
        TestClient::connect(&server, "one").await,
        TestClient::connect(&server, "two").await,
    );
    let held: Vec<_> = (0..3).map(|_| client.hold("erp")).collect();
    until("the service has the requests", || site.requests() == 3).await;
    let failure = client.get("erp").await.unwrap_err();
    assert_eq!(failure.reason, Reason::Refused, "{failure}");
    assert_eq!(
        other.get("erp").await.unwrap(),
        "erp",
        "others have their own"
    );
    drop(held);
    let handle = server.handle();
    until("all permits are returned", || {
        handle.status().process.permits_in_use == 0
    })
    .await;
    assert_eq!(client.get("erp").await.unwrap(), "erp");
    server.stop().await;
}

#[tokio::test]
async fn a_draining_server_finishes_running_requests_only() {
    let site = Site::start("erp").await;
    let server = server(vec![upstream("erp", &[&site])]);
    let client = TestClient::connect(&server, "one").await;
    let running = {
        let client = client.clone();
        let held = TunnelRequest::get("/held").tunnel("erp");
        tokio::spawn(async move { client.open(held.http(b"")).await })
    };
    until("the service has the requests", || site.requests() == 1).await;
    let handle = server.handle();
    let draining = tokio::spawn(async move {
        server.drain().await;
        server
    });
    until("the server drains", || handle.status().phase == "draining").await;
    let failure = client.get("erp").await.unwrap_err();
    assert_eq!(failure.reason, Reason::Draining, "{failure}");
    assert!(!draining.is_finished(), "one request is running");
    site.release();
    assert_eq!(running.await.unwrap().unwrap(), "erp");
    draining.await.unwrap().stop().await;
}

/// P-6.4: the permits of the requests of a lost client are returned.
#[tokio::test]
async fn p_6_4_a_lost_link_leaves_nothing_behind() {
    let site = Site::start("erp").await;
    let server = server(vec![upstream("erp", &[&site])]);
    let client = TestClient::connect(&server, "one").await;
    let _held: Vec<_> = (0..20).map(|_| client.hold("erp")).collect();
    until("the service has the requests", || site.requests() == 20).await;
    drop(client);
    let handle = server.handle();
    until("nothing is left behind", || {
        let status = handle.status();
        let process = &status.process;
        (process.permits_in_use, process.pending, process.sessions) == (0, 0, 0)
            && status.upstreams[0].servers[0].requests_open == 0
    })
    .await;
    until("the connections are closed", || site.seen().open == 0).await;
    server.stop().await;
}

/// The list of upstreams has names and policies, but no addresses.
#[tokio::test]
async fn config_sync_lists_names_and_policies() {
    let site = Site::start("erp").await;
    let mut least = upstream("least", &[&site]);
    least.policy = Policy::LeastConnections;
    let server = server(vec![upstream("erp", &[&site]), least]);
    let client = TestClient::connect(&server, "one").await;
    let request = ConfigSyncRequest { known_revision: 0 };
    let response = client.channel.sync_config(&client.session, request);
    let response = response.await.unwrap();
    assert!(response.revision > 0);
    let listed: Vec<_> = response
        .upstreams
        .iter()
        .map(|upstream| (&*upstream.name, &*upstream.policy))
        .collect();
    assert_eq!(
        listed,
        [("erp", "round_robin"), ("least", "least_connections")]
    );
    let refused = client.channel.sync_config("", request).await.unwrap_err();
    assert_eq!(refused.reason(), Some(RefusalReason::StaleSession));
    server.stop().await;
}

#[test]
fn invalid_upstreams_are_refused() {
    let refused = |upstreams| match Server::start(&settings(upstreams)) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("started"),
    };
    let mut erp = upstream("erp", &[]);
    let server = server_at(9);
    assert_eq!(refused(vec![erp.clone()]), "upstream `erp`: has no servers");
    erp.servers = vec![server.clone(), server.clone()];
    assert_eq!(
        refused(vec![erp.clone()]),
        "upstream `erp`: lists one address twice"
    );
    erp.servers = vec![server];
    assert_eq!(
        refused(vec![erp.clone(), erp]),
        "upstream `erp`: is defined twice"
    );
}
