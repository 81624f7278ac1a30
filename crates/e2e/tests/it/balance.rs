//! Three real clients in one group share the load by the policy of their tunnel. F23, F12.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use adit_e2e::{Client, ClientOptions, HOST, Server, Service, Visitor, count, empty, eventually};
use http::{HeaderValue, Method};
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(20);
const NAMES: [&str; 3] = ["a", "b", "c"];
const REQUESTS: usize = 3_000;

/// A server and three clients of one group, each with a service that responds with its name.
struct Group {
    clients: Vec<Client>,
    server: Server,
    services: Vec<Service>,
}

async fn group(load_balance: &str, hash_on: &str, weights: [u32; 3]) -> Group {
    let server = Server::plain().await;
    let (mut clients, mut services) = (Vec::new(), Vec::new());
    for (name, weight) in NAMES.into_iter().zip(weights) {
        let service = Service::site(name).await;
        let config = format!(
            "client:\n  group_id: shop\n  tunnels:\n    - {{ name: web, type: http, local_port: {}, load_balance: {load_balance}, hash_on: \"{hash_on}\", weight: {weight} }}\n",
            service.port()
        );
        clients.push(Client::start(ClientOptions::file(&server, name, &config)).await);
        services.push(service);
    }
    server.wait_for_clients(3).await;
    Group {
        clients,
        server,
        services,
    }
}

impl Group {
    /// Sends `requests` requests over several connections at once; returns how often each client responded.
    async fn spread(&self, requests: usize) -> BTreeMap<String, usize> {
        const CONNECTIONS: usize = 6;
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let mut visitor = Visitor::http1(self.server.http, HOST).await;
            tasks.spawn(async move {
                let mut names = Vec::new();
                for _ in 0..requests / CONNECTIONS {
                    names.push(visitor.get("/who").await.text());
                }
                names
            });
        }
        let mut spread = BTreeMap::new();
        for name in tasks.join_all().await.into_iter().flatten() {
            *spread.entry(name).or_default() += 1;
        }
        spread
    }

    async fn leave(&mut self, index: usize) {
        self.clients[index].terminate();
        assert!(self.clients[index].exit(SOON).await.success());
        self.server.wait_for_clients(2).await;
    }

    async fn return_of(&mut self, index: usize) {
        self.clients[index].restart().await;
        self.server.wait_for_clients(3).await;
    }
}

fn counts(spread: &BTreeMap<String, usize>) -> Vec<usize> {
    assert_eq!(spread.keys().collect::<Vec<_>>(), NAMES, "{spread:?}");
    spread.values().copied().collect()
}

#[tokio::test]
async fn round_robin_is_even() {
    let group = group("round_robin", "host", [1, 1, 1]).await;
    let spread = group.spread(REQUESTS).await;
    for count in counts(&spread) {
        assert!(count.abs_diff(REQUESTS / 3) <= 1, "{spread:?}");
    }
    let status = group.server.status().await;
    assert_eq!(count(&status, "/cores/balance_choices"), REQUESTS as u64);
}

#[tokio::test]
async fn weighted_round_robin_follows_the_weights() {
    let group = group("weighted_round_robin", "host", [1, 2, 3]).await;
    let spread = group.spread(REQUESTS).await;
    for (count, wanted) in counts(&spread).into_iter().zip([500_usize, 1000, 1500]) {
        assert!(count.abs_diff(wanted) <= 1, "{spread:?}");
    }
}

/// Busy clients receive no requests while another one is idle.
#[tokio::test]
async fn least_connections_goes_to_the_free_one() {
    let group = group("least_connections", "host", [1, 1, 1]).await;
    let mut held = JoinSet::new();
    for number in 1..=2 {
        let mut visitor = Visitor::http1(group.server.http, HOST).await;
        held.spawn(async move { visitor.get("/held").await.text() });
        eventually("a held request", SOON, async || {
            let begun: usize = group
                .services
                .iter()
                .map(|service| service.stats.begun())
                .sum();
            (begun == number).then_some(())
        })
        .await;
    }
    let busy: Vec<_> = group
        .services
        .iter()
        .map(|service| service.stats.begun())
        .collect();
    assert_eq!(
        busy.iter().filter(|begun| **begun == 1).count(),
        2,
        "{busy:?}"
    );
    let free = NAMES[busy.iter().position(|begun| *begun == 0).unwrap()];
    let mut visitor = Visitor::http1(group.server.http, HOST).await;
    for _ in 0..100 {
        assert_eq!(visitor.get("/who").await.text(), free);
    }
    group.services.iter().for_each(Service::release);
    let mut names = held.join_all().await;
    names.push(free.to_owned());
    names.sort();
    assert_eq!(names, NAMES);
}

#[tokio::test]
async fn power_of_two_is_roughly_even() {
    let group = group("power_of_two", "host", [1, 1, 1]).await;
    let spread = group.spread(REQUESTS).await;
    for count in counts(&spread) {
        // With random choices alone the standard deviation would be below 30. The choice also depends on the load, and
        // on a busy machine one client may wait longer than the others. Each client gets between half and twice its
        // even share.
        assert!(
            (REQUESTS / 6..=2 * REQUESTS / 3).contains(&count),
            "{spread:?}"
        );
    }
}

/// The client that serves each key.
async fn by_key(server: &Server, keys: usize) -> HashMap<usize, String> {
    let mut visitor = Visitor::http1(server.http, HOST).await;
    let mut map = HashMap::new();
    for key in 0..keys {
        let mut request = visitor.request(&Method::GET, "/who", empty());
        let value = HeaderValue::from_str(&format!("customer-{key}")).unwrap();
        request.headers_mut().insert("x-customer", value);
        map.insert(key, visitor.whole(request).await.unwrap().text());
    }
    map
}

async fn by_address(server: &Server, keys: usize) -> HashMap<usize, String> {
    let mut map = HashMap::new();
    for key in 0..keys {
        let last = u8::try_from(key + 10).unwrap();
        let source = IpAddr::from(Ipv4Addr::new(127, 0, 0, last));
        let mut visitor = Visitor::http1_from(source, server.http, HOST).await;
        map.insert(key, visitor.get("/who").await.text());
    }
    map
}

/// Each client has a share of the keys. When one leaves, only its keys move; when it returns, they return.
async fn only_its_keys_move(
    mut group: Group,
    keys: usize,
    map: impl AsyncFn(&Server, usize) -> HashMap<usize, String>,
) {
    let before = map(&group.server, keys).await;
    assert_eq!(
        map(&group.server, keys).await,
        before,
        "the same key leads to the same client"
    );
    for name in NAMES {
        let share = before.values().filter(|chosen| *chosen == name).count();
        assert!(share * 8 >= keys, "{name} has {share} of {keys}");
    }
    group.leave(1).await;
    let without = map(&group.server, keys).await;
    for (key, chosen) in &before {
        match chosen.as_str() {
            "b" => assert_ne!(without[key], "b"),
            other => assert_eq!(without[key], other, "key {key} has moved"),
        }
    }
    group.return_of(1).await;
    assert_eq!(map(&group.server, keys).await, before);
}

#[tokio::test]
async fn consistent_hash_moves_only_keys_of_the_lost_client() {
    let group = group("consistent_hash", "header:x-customer", [1, 1, 1]).await;
    only_its_keys_move(group, 300, by_key).await;
}

#[tokio::test]
async fn ip_hash_moves_only_addresses_of_the_lost_client() {
    let group = group("ip_hash", "host", [1, 1, 1]).await;
    only_its_keys_move(group, 90, by_address).await;
}
