//! Either side is killed, hung, drained and started again. F16 to F21, P-1.8, P-6.4 to P-6.6, P-7.2.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_e2e::{
    Client, ClientOptions, FullResponse, HOST, Raw, Server, Service, Visitor, World, count, empty,
    eventually, full, full_response, get, stays, within,
};
use http::Method;
use serde_json::Value;
use tokio::task::{JoinHandle, JoinSet};

const SOON: Duration = Duration::from_secs(20);

/// A server and two clients of one group, each with a service of its own.
struct Pair {
    clients: [Client; 2],
    server: Server,
    services: [Service; 2],
}

async fn pair(config: &str) -> Pair {
    let services = [Service::site("a").await, Service::site("b").await];
    let server = Server::with(config).await;
    let start = async |id: &str, service: &Service| {
        let options = ClientOptions::http(&server, id, "web", service.addr).arg("--group", "shop");
        Client::start(options).await
    };
    let clients = [
        start("a", &services[0]).await,
        start("b", &services[1]).await,
    ];
    server.wait_for_clients(2).await;
    Pair {
        clients,
        server,
        services,
    }
}

impl Pair {
    fn begun(&self) -> usize {
        self.services
            .iter()
            .map(|service| service.stats.begun())
            .sum()
    }

    /// Holds `number` requests, shared among both.
    async fn hold(&self, method: &Method, number: usize) -> JoinSet<hyper::Result<FullResponse>> {
        let before = self.begun();
        let mut held = JoinSet::new();
        for _ in 0..number {
            let mut visitor = Visitor::http1(self.server.http, HOST).await;
            let body = if *method == Method::POST {
                full("x")
            } else {
                empty()
            };
            let request = visitor.request(method, "/held", body);
            held.spawn(async move { visitor.whole(request).await });
        }
        eventually("held requests", SOON, async || {
            (self.begun() == before + number).then_some(())
        })
        .await;
        held
    }
}

/// F18: a client that was killed and started again serves as before.
#[tokio::test]
async fn a_killed_client_returns() {
    let mut world = World::site().await;
    assert_eq!(world.get("/who").await.text(), "site");
    for _ in 0..3 {
        let epoch = count(&world.client.status().await, "/epoch");
        world.client.kill();
        world.client.restart().await;
        assert_eq!(world.get("/who").await.text(), "site");
        assert!(
            count(&world.client.status().await, "/epoch") > epoch,
            "P-1.4: epochs grow"
        );
        assert_eq!(count(&world.server.status().await, "/process/sessions"), 1);
    }
}

/// F18: a client reconnects by itself to a server that was killed and started again; P-1.4: epochs grow across restarts
/// of the server.
#[tokio::test]
async fn a_killed_server_is_found_again() {
    let mut world = World::site().await;
    assert_eq!(world.get("/who").await.text(), "site");
    for _ in 0..3 {
        let epoch = count(&world.client.status().await, "/epoch");
        world.server.kill();
        world.server.restart().await;
        // F17: a visitor that arrives before the client waits for it.
        let response = world.get("/who").await;
        assert_eq!(
            (response.status.as_u16(), response.text().as_str()),
            (200, "site")
        );
        assert!(count(&world.client.status().await, "/epoch") > epoch);
    }
}

/// F17: visitors that arrive while the client is down wait for it instead of getting 502.
#[tokio::test]
async fn visitors_wait_for_a_client_that_is_on_its_way() {
    let mut world = World::site().await;
    world.client.kill();
    world.server.wait_for_clients(0).await;
    let mut waiting = JoinSet::new();
    for _ in 0..20 {
        let http = world.server.http;
        waiting.spawn(async move { get(http, HOST, "/who").await });
    }
    eventually("visitors who wait", SOON, async || {
        (count(&world.server.status().await, "/visitors/requests_open") == 20).then_some(())
    })
    .await;
    world.client.restart().await;
    for response in waiting.join_all().await {
        assert_eq!(
            (response.status.as_u16(), response.text().as_str()),
            (200, "site")
        );
    }
}

/// Visitors that send requests in a loop until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    /// The number of responses of each visitor.
    responded: Vec<Arc<AtomicUsize>>,
    visitors: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(server: &Server, visitors: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let responded: Vec<Arc<AtomicUsize>> = (0..visitors).map(|_| Arc::default()).collect();
        let visitors = responded
            .iter()
            .map(|responded| {
                let (stop, responded, http) = (stop.clone(), responded.clone(), server.http);
                tokio::spawn(async move {
                    let mut wrong = Vec::new();
                    let mut visitor = Visitor::http1(http, HOST).await;
                    while !stop.load(Ordering::SeqCst) {
                        let request = visitor.request(&Method::GET, "/chunked/20000", empty());
                        match visitor.send(request).await {
                            Ok(response) if response.status() == 200 => {
                                // A response that had begun may break off: it cannot be taken back (P-7.1).
                                if full_response(response).await.is_err() {
                                    visitor = Visitor::http1(http, HOST).await;
                                }
                            }
                            Ok(response) => {
                                let reason = response.headers().get("adit-reason").cloned();
                                wrong.push(format!("{} {reason:?}", response.status()));
                            }
                            Err(error) => {
                                wrong.push(error.to_string());
                                visitor = Visitor::http1(http, HOST).await;
                            }
                        }
                        responded.fetch_add(1, Ordering::SeqCst);
                    }
                    wrong
                })
            })
            .collect();
        Self {
            stop,
            responded,
            visitors,
        }
    }

    fn counts(&self) -> Vec<usize> {
        let responded = self.responded.iter();
        responded
            .map(|count| count.load(Ordering::SeqCst))
            .collect()
    }

    /// Waits for this many more responses.
    async fn more(&self, number: usize) {
        let before: usize = self.counts().iter().sum();
        eventually("more responses", SOON, async || {
            (self.counts().iter().sum::<usize>() >= before + number).then_some(())
        })
        .await;
    }

    /// Waits until every visitor has received the response to its running request: all later responses are to requests
    /// that began after this call.
    async fn turn(&self) {
        let before = self.counts();
        eventually("a response for each visitor", SOON, async || {
            let now = self.counts();
            before
                .iter()
                .zip(now)
                .all(|(before, now)| now > *before)
                .then_some(())
        })
        .await;
    }

    /// Stops the visitors, and returns the failures.
    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        let mut wrong = Vec::new();
        for visitor in self.visitors {
            wrong.extend(visitor.await.unwrap());
        }
        wrong
    }
}

/// F20: while one of two clients is killed under load, every GET whose response had not begun succeeds.
#[tokio::test]
async fn gets_are_tried_on_the_other_client() {
    let mut pair = pair("").await;
    let load = Load::start(&pair.server, 8);
    load.more(200).await;
    pair.clients[0].kill();
    load.more(200).await;
    pair.clients[0].restart().await;
    pair.server.wait_for_clients(2).await;
    load.more(200).await;
    pair.clients[1].kill();
    load.more(200).await;
    assert_eq!(load.end().await, Vec::<String>::new());
}

/// F20: GETs that a killed client holds are served by the other one.
#[tokio::test]
async fn held_gets_move_to_the_other_client() {
    let mut pair = pair("").await;
    let held = pair.hold(&Method::GET, 6).await;
    let moved = pair.services[0].stats.begun();
    assert!(moved > 0);
    pair.clients[0].kill();
    eventually("all at the other client", SOON, async || {
        (pair.services[1].stats.begun() == 6).then_some(())
    })
    .await;
    pair.services[1].release();
    for response in held.join_all().await {
        assert_eq!(response.unwrap().text(), "b");
    }
    assert_eq!(
        count(&pair.server.status().await, "/visitors/retries"),
        moved as u64
    );
}

/// P-7.2: not all requests of a lost client are moved to the other one: ten of these few are retried, the others fail.
#[tokio::test]
async fn retries_are_bounded() {
    const HELD: usize = 40;
    let mut pair = pair("").await;
    let held = pair.hold(&Method::GET, HELD).await;
    let lost = pair.services[0].stats.begun();
    assert_eq!(lost, HELD / 2);
    pair.clients[0].kill();
    eventually("ten at the other client", SOON, async || {
        (pair.begun() == HELD + 10).then_some(())
    })
    .await;
    pair.services[1].release();
    let mut failed = 0;
    for response in held.join_all().await {
        let response = response.unwrap();
        if response.status != 200 {
            assert_eq!(
                (response.status.as_u16(), response.reason()),
                (502, "link_lost")
            );
            failed += 1;
        }
    }
    assert_eq!(failed, lost - 10);
    assert_eq!(count(&pair.server.status().await, "/visitors/retries"), 10);
}

/// F17, P-7.2: safe requests of a lost link wait for the next link of their only client, whatever their number.
#[tokio::test]
async fn safe_requests_of_a_killed_client_wait_for_its_return() {
    const HELD: usize = 40;
    let mut world = World::site().await;
    let mut held = JoinSet::new();
    for _ in 0..HELD {
        let mut visitor = world.http1().await;
        let request = visitor.request(&Method::GET, "/held", empty());
        held.spawn(async move { visitor.whole(request).await });
    }
    let begun = world.service().stats.clone();
    eventually("held requests", SOON, async || {
        (begun.begun() == HELD).then_some(())
    })
    .await;
    world.client.kill();
    world.client.restart().await;
    eventually("all of them again", SOON, async || {
        (begun.begun() == 2 * HELD).then_some(())
    })
    .await;
    world.service().release();
    for response in held.join_all().await {
        assert_eq!(response.unwrap().text(), "site");
    }
}

/// F20, P-6.4: POSTs in flight on a killed client are not sent twice; they fail with a reason and an id.
#[tokio::test]
async fn posts_of_a_killed_client_fail_with_a_reason() {
    let mut pair = pair("").await;
    let held = pair.hold(&Method::POST, 6).await;
    let lost = pair.services[0].stats.begun();
    assert!(lost > 0 && lost < 6, "{lost}");
    pair.clients[0].kill();
    pair.server.wait_for_clients(1).await;
    pair.services[1].release();
    let (mut failed, mut served) = (0, 0);
    for response in held.join_all().await {
        let response = response.unwrap();
        match response.status.as_u16() {
            200 => {
                assert_eq!(response.text(), "b");
                served += 1;
            }
            status => {
                assert_eq!((status, response.reason()), (502, "link_lost"));
                assert_eq!(response.header("adit-request-id").len(), 36);
                failed += 1;
            }
        }
    }
    assert_eq!((failed, served), (lost, 6 - lost));
    assert_eq!(pair.begun(), 6, "no POST was sent twice");
}

/// P-1.8: two installations with the same name do not evict each other: the first one stays, and the second one is
/// refused by name until the first one is gone.
#[tokio::test]
async fn two_installations_with_one_name_do_not_flap() {
    let mut world = World::site().await;
    let epoch = count(&world.client.status().await, "/epoch");
    let state = tempfile::tempdir().unwrap();
    let addr = world.service().addr;
    let options = ClientOptions::http(&world.server, "client-1", "web", addr)
        .elsewhere(&world.server, state.path())
        .env("ADIT__CLIENT__RECONNECT__MAX_DELAY", "500ms");
    let mut second = Client::spawn(options);
    eventually("a refusal by name", SOON, async || {
        second.process().assert_running();
        second.admin()?;
        let status = second.status().await;
        status["last_error"]
            .as_str()?
            .contains("client-1")
            .then_some(())
    })
    .await;
    stays(
        "the first one's epoch",
        Duration::from_secs(2),
        async || count(&world.client.status().await, "/epoch") == epoch,
    )
    .await;
    assert_eq!(world.client.status().await["last_error"], Value::Null);
    assert_eq!(world.get("/who").await.text(), "site");
    // The name is free when the first installation is gone.
    world.client.kill();
    second.connected().await;
    assert_eq!(world.get("/who").await.text(), "site");
}

/// P-1.8: the same installation takes over at once, even from a process that hangs.
#[tokio::test]
async fn the_same_installation_takes_over_at_once() {
    let service = Service::site("site").await;
    // The probe takes longer than this test, which must not wait for it.
    let server = Server::with("server:\n  timeouts: { takeover_probe: 10m }\n").await;
    let mut first = Client::http(&server, "client-1", "web", service.addr).await;
    let epoch = count(&first.status().await, "/epoch");
    first.process().signal("STOP");
    // With one state directory only one process may use a name at a time; a copy of the directory is the same
    // installation.
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("instances")).unwrap();
    let secret = server.state().join("instances/client-1");
    fs::copy(secret, copy.path().join("instances/client-1")).unwrap();
    let options = ClientOptions::http(&server, "client-1", "web", service.addr)
        .elsewhere(&server, copy.path());
    let second = Client::start(options).await;
    assert!(count(&second.status().await, "/epoch") > epoch);
    assert_eq!(get(server.http, HOST, "/who").await.text(), "site");
    eventually("one session", SOON, async || {
        (count(&server.status().await, "/process/sessions") == 1).then_some(())
    })
    .await;
    first.kill();
    assert_eq!(get(server.http, HOST, "/who").await.text(), "site");
    assert_eq!(
        server.status().await["clients"].as_array().map(Vec::len),
        Some(1)
    );
}

/// F19, P-6.5: a client that hangs is detected, its requests move, and it returns when it continues.
#[tokio::test]
async fn a_hung_client_is_found_and_replaced() {
    let mut pair = pair("server:\n  timeouts: { heartbeat: 200ms, dead_after: 1s }\n").await;
    let held = pair.hold(&Method::GET, 4).await;
    pair.clients[0].process().signal("STOP");
    eventually("all at the other client", SOON, async || {
        (pair.services[1].stats.begun() == 4).then_some(())
    })
    .await;
    pair.services[1].release();
    for response in held.join_all().await {
        assert_eq!(response.unwrap().text(), "b");
    }
    pair.server.wait_for_clients(1).await;
    pair.clients[0].process().signal("CONT");
    pair.server.wait_for_clients(2).await;
    pair.services[0].release();
    let load = Load::start(&pair.server, 2);
    load.more(20).await;
    assert_eq!(load.end().await, Vec::<String>::new());
}

/// F21: a client that receives SIGTERM accepts nothing new, completes running requests, and ends.
#[tokio::test]
async fn a_client_drains_on_sigterm() {
    let mut pair = pair("").await;
    let held = pair.hold(&Method::POST, 4).await;
    let load = Load::start(&pair.server, 4);
    load.more(50).await;
    pair.clients[0].terminate();
    eventually("a client that drains", SOON, async || {
        let status = pair.server.status().await;
        let clients = status["clients"].as_array()?;
        clients
            .iter()
            .any(|client| client["client_id"] == "a" && client["draining"] == true)
            .then_some(())
    })
    .await;
    // Requests that were sent before the client's drain may still be in transit.
    load.turn().await;
    let begun = pair.services[0].stats.begun();
    load.more(100).await;
    assert_eq!(
        pair.services[0].stats.begun(),
        begun,
        "nothing new for the one that leaves"
    );
    assert!(
        !pair.clients[0].process().has_ended(),
        "it waits for what runs"
    );
    pair.services.iter().for_each(Service::release);
    for response in held.join_all().await {
        assert_eq!(response.unwrap().status, 200);
    }
    let status = pair.clients[0].exit(SOON).await;
    assert_eq!(status.code(), Some(0));
    load.more(50).await;
    assert_eq!(load.end().await, Vec::<String>::new());
}

/// F21: a server that receives SIGTERM completes running responses, and then ends.
#[tokio::test]
async fn a_server_drains_on_sigterm() {
    let mut world = World::site().await;
    let mut slow = Vec::new();
    for mut visitor in [world.http1().await, world.http2().await] {
        let request = visitor.request(&Method::GET, "/begun", empty());
        let response = visitor.send(request).await.unwrap();
        slow.push((visitor, response));
    }
    world.server.terminate();
    eventually("a closed port", SOON, async || {
        let refused = tokio::net::TcpStream::connect(world.server.http)
            .await
            .is_err();
        refused.then_some(())
    })
    .await;
    assert!(
        !world.server.process().has_ended(),
        "it waits for what runs"
    );
    world.service().release();
    for (visitor, response) in slow {
        let response = within(
            "the rest of a running response",
            SOON,
            full_response(response),
        )
        .await;
        assert_eq!(response.unwrap().text(), "first,second");
        drop(visitor);
    }
    let status = world.server.exit(SOON).await;
    assert_eq!(status.code(), Some(0));
    // F18: the client remains for the next server.
    world.client.process().assert_running();
    world.server.restart().await;
    assert_eq!(world.get("/who").await.text(), "site");
}

/// F21: connections without requests are closed at once: otherwise only the end of the drain, after ten minutes, would
/// close them.
#[tokio::test]
async fn a_drain_closes_connections_without_a_request() {
    let service = Service::site("site").await;
    let config = "server:\n  timeouts: { drain: 10m, head: 10m, idle: 10m }\n";
    let mut world = World::configured(config, service.addr).await;
    let mut visitors = Vec::new();
    for sent in [
        "",
        "GET / HTTP/1.1\r\nHo",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ] {
        let mut visitor = Raw::connect(world.server.http).await;
        visitor.send(sent).await;
        visitors.push(visitor);
    }
    eventually("all of them", SOON, async || {
        let open = count(&world.server.status().await, "/visitors/connections_open");
        (open == visitors.len() as u64).then_some(())
    })
    .await;
    world.server.terminate();
    let status = world.server.exit(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0));
}

/// F21: both programs print the requests that they wait for, and how to end at once.
#[tokio::test]
async fn a_drain_shows_the_requests_that_it_waits_for() {
    let mut world = World::site().await;
    let mut visitor = world.http1().await;
    let request = visitor.request(&Method::GET, "/begun", empty());
    let response = visitor.send(request).await.unwrap();
    let line = "waiting for 1 request (web 1), for ";
    world.client.process().signal("INT");
    eventually("the client's line", SOON, async || {
        world.client.process().stderr().contains(line).then_some(())
    })
    .await;
    world.server.process().signal("INT");
    eventually("the server's line", SOON, async || {
        let shown = world.server.process().stderr();
        let ends = "press Ctrl-C again to end at once";
        (shown.contains(line) && shown.contains(ends)).then_some(())
    })
    .await;
    world.service().release();
    drop(response);
}

/// F21: the second signal ends the program at once.
#[tokio::test]
async fn a_second_sigterm_ends_at_once() {
    let mut world = World::site().await;
    let mut visitor = world.http1().await;
    let request = visitor.request(&Method::GET, "/begun", empty());
    let response = visitor.send(request).await.unwrap();
    world.server.terminate();
    eventually("a closed port", SOON, async || {
        let refused = tokio::net::TcpStream::connect(world.server.http)
            .await
            .is_err();
        refused.then_some(())
    })
    .await;
    world.server.terminate();
    let status = world.server.exit(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0));
    assert!(
        full_response(response).await.is_err(),
        "P-7.1: it was broken off"
    );
}
