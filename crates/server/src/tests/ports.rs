//! Public ports: which tunnel gets which port, when ports are open, and where their visitors are routed.

use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket as StdSocket};

use adit_codec::ProtocolType as Speaks;
use adit_ingress::{Admission, Udp, UdpConfig};
use adit_net::{Descriptors, Stream};
use tokio::{net::TcpStream, runtime::Handle, sync::watch};

use super::*;
use crate::{
    floods::Floods,
    port::Port,
    ports::PortContext,
    settings::{PortRanges, RuleSettings, RuleTarget},
    threads::{Acceptor, Guard},
};

fn session(name: &str, protocol: ProtocolType, remote_port: u16) -> Announced {
    Announced {
        name: name.into(),
        protocol_type: protocol.into(),
        remote_port: remote_port.into(),
        ..Announced::default()
    }
}

fn tcp(name: &str, remote_port: u16) -> Announced {
    session(name, ProtocolType::Tcp, remote_port)
}

fn udp(name: &str, remote_port: u16) -> Announced {
    session(name, ProtocolType::Udp, remote_port)
}

fn text(result: &TunnelResult) -> &str {
    result.error.as_ref().map_or("", |error| &error.message)
}

/// The port in a public URL.
fn port(result: &TunnelResult) -> u16 {
    assert_eq!(result.error, None);
    result
        .public_url
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

/// A world on loopback, and its address.
fn local() -> (World, IpAddr) {
    let ip = own_address();
    (world_with(None, ip, PortRanges::default()), ip)
}

/// A world on loopback with rules in the configuration, and its address.
fn with_rules(rules: &[RuleSettings]) -> (World, IpAddr) {
    let ip = own_address();
    (world_of(None, ip, PortRanges::default(), rules), ip)
}

/// A port that is free on the address.
fn free(ip: IpAddr) -> u16 {
    let listener = StdListener::bind((ip, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn is_free(ip: IpAddr, port: u16) -> bool {
    StdListener::bind((ip, port)).is_ok()
}

impl World {
    fn announce_one(&self, link: &Arc<Link>, tunnel: Announced) -> TunnelResult {
        self.announce(link, &[tunnel]).remove(0)
    }

    /// Accepts connections after this call, and reports the port of each.
    fn open_for_visitors(&self) -> (Arc<PortContext>, Arc<Mutex<Vec<Port>>>) {
        let seen: Arc<Mutex<Vec<Port>>> = Arc::default();
        let serve = {
            let seen = seen.clone();
            Arc::new(move |stream: Stream, _: SocketAddr, port: Port| {
                seen.lock().push(port);
                Box::pin(async move { drop(stream) }) as _
            })
        };
        let director = ServerDirector::new(
            self.directory.clone(),
            anyone(&self.registry),
            Traffic::none(),
            &Timeouts::default(),
            Instant::now(),
        );
        let guard = Guard {
            descriptors: Descriptors::new(1_000),
            floods: Floods::new(),
        };
        let admission = Admission::new(Vec::new(), Arc::new(director));
        let context = Arc::new(PortContext {
            accepting: Handle::current(),
            acceptor: Acceptor::alone(serve, guard),
            udp: Udp::new(UdpConfig::default(), admission),
            drain: watch::Sender::new(false).subscribe(),
        });
        self.ports.start(&context);
        (context, seen)
    }
}

/// P-1.4: the result names the holder, other tunnels are accepted.
#[tokio::test]
async fn a_port_of_another_tunnel_is_refused_with_its_holder() {
    let (world, ip) = local();
    let taken = free(ip);
    let (one, _guard) = world.serve("one", "red", &[tcp("db", taken)]).await;
    let (other, _) = world.register("two", "blue").await;
    let results = world.announce(&other, &[tcp("mine", taken), udp("dns", taken)]);
    assert_eq!([code(&results[0]), code(&results[1])], ["port_taken", ""]);
    assert!(text(&results[0]).contains("client `one`"), "{results:?}");
    assert_eq!(results[1].public_url, format!("udp://{ip}:{taken}"));
    // The port is not free for another tunnel of the same client either, of any type.
    let mut web = tunnel("web", &["a.test"]);
    web.remote_port = taken.into();
    assert_eq!(code(&world.announce_one(&one, web)), "port_taken");
}

#[tokio::test]
async fn an_unavailable_port_is_rejected_with_the_cause() {
    let ip = own_address();
    let listener = StdListener::bind((ip, 0)).unwrap();
    let busy = listener.local_addr().unwrap().port();
    let world = world_with(None, ip, PortRanges::new([busy..=busy]));
    let (link, _) = world.register("one", "web").await;
    let refused = world.announce_one(&link, tcp("a", busy));
    assert_eq!(code(&refused), "port_taken");
    let refused = world.announce_one(&link, tcp("a", 22));
    assert_eq!(code(&refused), "bad_request");
    let named = text(&refused).contains("server.limits.allow_ports");
    assert!(named, "{refused:?}");
    // This is the port for clients.
    let refused = world.announce_one(&link, tcp("a", 7000));
    assert_eq!(code(&refused), "port_taken");
    // No free port is left.
    let refused = world.announce_one(&link, tcp("a", 0));
    assert_eq!(code(&refused), "limit");
    assert_eq!((world.names().len(), world.ports.count()), (0, 0));
}

/// P-1.2: a tunnel whose protocol is not among the client's capabilities is refused.
#[tokio::test]
async fn a_client_announces_only_types_that_it_supports() {
    let (world, _) = local();
    let (link, _) = world.register_knowing("one", "web", &["http"]).await;
    let results = world.announce(&link, &[tcp("a", 0), udp("b", 0), tunnel("c", &[])]);
    let codes: Vec<_> = results.iter().map(code).collect();
    assert_eq!(codes, ["bad_request", "bad_request", ""]);
    assert!(text(&results[0]).contains("tcp"), "{results:?}");
}

#[tokio::test]
async fn clients_of_a_group_share_a_port() {
    let (world, _) = local();
    let (one, _one) = world
        .serve("one", "db", &[tcp("pg", 0), udp("dns", 0)])
        .await;
    let (two, _two) = world.serve("two", "db", &[tcp("pg", 0)]).await;
    assert_eq!(world.clients("pg"), ["one", "two"]);
    let picked = port(&world.announce_one(&one, tcp("pg", 0)));
    assert!(picked >= 61_000, "{picked}");
    assert_eq!(port(&world.announce_one(&two, tcp("pg", 0))), picked);
    let flows = port(&world.announce_one(&one, udp("dns", 0)));
    assert_eq!(world.ports.count(), 2);
    // Both leave and return: their names and ports have been kept.
    world.directory.link_gone(&one);
    world.directory.link_gone(&two);
    let (again, _again) = world.serve("two", "db", &[]).await;
    assert_eq!(port(&world.announce_one(&again, tcp("pg", 0))), picked);
    assert_eq!(port(&world.announce_one(&again, udp("dns", 0))), flows);
    // With changed settings a tunnel keeps the port that the server chose.
    let mut other = tcp("pg", 0);
    other.load_balance = "ip_hash".into();
    assert_eq!(port(&world.announce_one(&again, other)), picked);
}

#[tokio::test]
async fn a_tunnel_keeps_its_port_after_a_server_restart() {
    let ip = own_address();
    let mut picked = Vec::new();
    for _ in 0..2 {
        let world = world_with(None, ip, PortRanges::default());
        let (link, _) = world.register("one", "db").await;
        picked.push(port(&world.announce_one(&link, tcp("pg", 0))));
        picked.push(port(&world.announce_one(&link, tcp("mysql", 0))));
    }
    assert_eq!(picked[..2], picked[2..]);
    assert_ne!(picked[0], picked[1]);
}

#[tokio::test]
async fn the_server_picks_among_all_that_are_allowed() {
    let ip = own_address();
    let first = free(ip).min(60_000);
    let world = world_with(
        None,
        ip,
        PortRanges::new([first..=first + 2, 61_000..=61_000]),
    );
    let (link, _) = world.register("one", "db").await;
    let mut picked: Vec<_> = ["a", "b", "c"]
        .map(|name| port(&world.announce_one(&link, udp(name, 0))))
        .to_vec();
    assert_eq!(picked[0], 61_000, "what is meant for it comes first");
    picked.sort_unstable();
    picked.dedup();
    assert_eq!(picked.len(), 3, "{picked:?}");
}

#[tokio::test]
async fn a_port_is_closed_when_its_tunnel_goes() {
    let (world, ip) = local();
    let (first, second) = (free(ip), free(ip));
    let (link, guard) = world.serve("one", "web", &[tcp("a", first)]).await;
    assert!(!is_free(ip, first));
    // The tunnel moves to another port, and the first port is closed.
    assert_eq!(port(&world.announce_one(&link, tcp("a", second))), second);
    assert!(is_free(ip, first) && !is_free(ip, second));
    assert!(world.directory.withdraw(&link, "a", Instant::now()));
    assert!(is_free(ip, second));
    // The port is kept for a client that returns, but only for the retention.
    assert_eq!(port(&world.announce_one(&link, tcp("a", second))), second);
    let now = Instant::now();
    world.directory.link_gone(&link);
    drop(guard);
    world.directory.forget(now + RETENTION / 2);
    assert!(!is_free(ip, second));
    world.directory.forget(now + RETENTION * 2);
    assert!(is_free(ip, second));
    assert_eq!((world.names().len(), world.ports.count()), (0, 0));
}

/// Regression: a tunnel that its own group had renamed blocked its port for ten minutes.
#[tokio::test]
async fn an_unserved_tunnel_yields_its_port_to_its_group() {
    let (world, ip) = local();
    let taken = free(ip);
    let before = [tcp("old", taken), tunnel("web", &["a.test"])];
    let (link, guard) = world.serve("one", "red", &before).await;
    // The port is not taken while the tunnel is served.
    assert_eq!(
        code(&world.announce_one(&link, tcp("new", taken))),
        "port_taken"
    );
    world.directory.link_gone(&link);
    drop(guard);
    // The port is not given to other groups: the clients may be reconnecting.
    let (other, _) = world.register("two", "blue").await;
    let results = world.announce(&other, &[tcp("mine", taken), tunnel("shop", &["a.test"])]);
    assert_eq!(
        [code(&results[0]), code(&results[1])],
        ["port_taken", "name_taken"]
    );
    assert!(text(&results[0]).contains("group `red`"), "{results:?}");
    let (again, _) = world.register("one", "red").await;
    let results = world.announce(&again, &[tcp("new", taken), tunnel("shop", &["a.test"])]);
    assert_eq!([code(&results[0]), code(&results[1])], ["", ""]);
    assert_eq!(world.names(), ["new", "shop"]);
    assert!(!is_free(ip, taken));
}

/// In any order of changes, each port has at most one tunnel, each tunnel of TCP or UDP has a port, and exactly the
/// ports of the snapshot are bound. The random numbers are the same each time.
#[tokio::test]
async fn open_ports_always_match_the_snapshot() {
    let (world, ip) = local();
    let mut dice = 7_u64;
    let mut roll = |bound: u64| {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((dice >> 33) % bound).unwrap()
    };
    let ports = [free(ip), free(ip), free(ip), 0];
    let mut now = Instant::now();
    let mut links = Vec::new();
    let clients = [("one", "red"), ("two", "red"), ("three", "blue")];
    for (client, group) in clients {
        links.push(world.register(client, group).await.0);
    }
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..1_000 {
        let client = roll(3);
        let name = ["a", "b", "c"][roll(3)];
        match roll(8) {
            0 => drop(world.directory.withdraw(&links[client], name, now)),
            1 => {
                world.directory.link_gone(&links[client]);
                let (name, group) = clients[client];
                links[client] = world.register(name, group).await.0;
            }
            2 => {
                now += RETENTION / 3;
                world.directory.forget(now);
            }
            kind => {
                let mut tunnel = match kind {
                    3 => udp(name, ports[roll(4)]),
                    4 => session(name, ProtocolType::Http, ports[roll(4)]),
                    _ => tcp(name, ports[roll(4)]),
                };
                tunnel.load_balance = ["", "ip_hash"][roll(2)].into();
                let results = world.directory.announce(&links[client], &[tunnel], now);
                match code(&results[0]) {
                    "" => accepted += 1,
                    "name_taken" | "port_taken" => refused += 1,
                    other => panic!("{other}: {results:?}"),
                }
            }
        }
        let snapshot = world.directory.snapshot();
        assert_eq!(world.ports.count(), snapshot.ports.len());
        for (key, tunnel) in &snapshot.ports {
            assert_eq!(tunnel.port, Some(*key));
        }
        let tunnels = world.directory.tunnels();
        let holding = tunnels.iter().filter(|(tunnel, _)| {
            assert_eq!(
                tunnel.port.map(|port| port.transport),
                tunnel.definition.transport()
            );
            tunnel.port.is_some()
        });
        // No two tunnels share a port, otherwise the snapshot would have fewer ports.
        assert_eq!(holding.count(), snapshot.ports.len());
    }
    assert!(accepted > 200 && refused > 50, "{accepted}, {refused}");
    for link in &links {
        world.directory.link_gone(link);
    }
    world.directory.forget(now + RETENTION * 2);
    assert_eq!(world.ports.count(), 0);
    assert!(ports[..3].iter().all(|port| is_free(ip, *port)));
}

#[tokio::test]
async fn connections_of_a_port_belong_to_its_tunnel() {
    let (world, ip) = local();
    let (context, seen) = world.open_for_visitors();
    let (link, _guard) = world.serve("one", "web", &[tcp("a", 0)]).await;
    let first = port(&world.announce_one(&link, tcp("a", 0)));
    // The stream is read to its end: the connection has been served.
    let mut stream = TcpStream::connect((ip, first)).await.unwrap();
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
    assert_eq!(read.unwrap(), 0);
    assert_eq!(*seen.lock(), [Port::Tunnel(first)]);
    drop(context);
}

/// A port that moves from one tunnel to another stays open: no visitor is refused during the change.
#[tokio::test]
async fn a_port_that_goes_over_is_not_closed_in_between() {
    let (world, ip) = local();
    let (_ground, _) = world.open_for_visitors();
    let taken = free(ip);
    let (link, _guard) = world.serve("one", "web", &[tcp("a", taken)]).await;
    for turn in 0..100 {
        let mut next = tcp("a", taken);
        next.load_balance = ["ip_hash", "round_robin"][turn % 2].into();
        let connecting = tokio::spawn(TcpStream::connect((ip, taken)));
        if turn % 3 == 0 {
            // The tunnel is removed, and added again before the listener detects it.
            assert!(world.directory.withdraw(&link, "a", Instant::now()));
        }
        assert_eq!(port(&world.announce_one(&link, next)), taken);
        connecting.await.unwrap().unwrap();
    }
    assert_eq!(world.ports.count(), 1);
    assert!(world.directory.withdraw(&link, "a", Instant::now()));
    while world.ports.count() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(is_free(ip, taken));
}

#[tokio::test]
async fn a_released_udp_port_is_available_at_once() {
    let (world, ip) = local();
    let (_ground, _) = world.open_for_visitors();
    let taken = free(ip);
    let (link, _guard) = world.serve("one", "web", &[udp("a", taken)]).await;
    for turn in 1..20 {
        // A visitor is being served or waits while the port moves.
        let visitor = StdSocket::bind((ip, 0)).unwrap();
        visitor.send_to(b"hello", (ip, taken)).unwrap();
        tokio::task::yield_now().await;
        let mut next = udp("b", taken);
        next.session_timeout_millis = turn * 1_000;
        assert!(world.directory.withdraw(&link, "a", Instant::now()));
        assert_eq!(port(&world.announce_one(&link, next)), taken);
        assert!(world.directory.withdraw(&link, "b", Instant::now()));
        assert_eq!(port(&world.announce_one(&link, udp("a", taken))), taken);
    }
    assert!(world.directory.withdraw(&link, "a", Instant::now()));
    while world.ports.count() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    StdSocket::bind((ip, taken)).unwrap();
}

#[tokio::test]
async fn after_a_drain_no_port_is_open() {
    let (world, ip) = local();
    let (_ground, _) = world.open_for_visitors();
    let taken = free(ip);
    let (link, _guard) = world.serve("one", "web", &[tcp("a", taken)]).await;
    world.ports.close();
    while world.ports.count() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(is_free(ip, taken));
    let refused = world.announce_one(&link, tcp("b", 0));
    assert_eq!(code(&refused), "draining");
}

#[tokio::test]
async fn a_public_url_names_the_address_to_connect_to() {
    let everywhere = IpAddr::from([0, 0, 0, 0]);
    let v6 = "::1".parse().unwrap();
    let local = IpAddr::from([127, 0, 0, 1]);
    for (domain, ip, host) in [
        (Some("example.com"), everywhere, "example.com"),
        (None, everywhere, "0.0.0.0"),
        (None, local, "127.0.0.1"),
        (None, v6, "[::1]"),
    ] {
        let world = world_with(domain, ip, PortRanges::default());
        let (link, _) = world.register("one", "web").await;
        let url = |tunnel: Announced| {
            let result = world.announce_one(&link, tunnel);
            assert_eq!(result.error, None);
            let (url, number) = result.public_url.rsplit_once(':').unwrap();
            assert!(number.parse::<u16>().is_ok(), "{result:?}");
            url.to_owned()
        };
        assert_eq!(url(tcp("a", 0)), format!("tcp://{host}"));
        assert_eq!(url(udp("b", 0)), format!("udp://{host}"));
        let picked = free(local);
        assert_eq!(
            url(session("c", ProtocolType::Grpc, picked)),
            format!("http://{host}")
        );
    }
    let world = world();
    let (link, _) = world.register("one", "web").await;
    let url = |protocol| {
        world
            .announce_one(&link, session("a", protocol, 0))
            .public_url
    };
    assert_eq!(url(ProtocolType::Grpc), "http://a.example.com");
    assert_eq!(url(ProtocolType::Websocket), "ws://a.example.com");
}

/// P-10.4: a connection that cannot be forwarded to a service fails, and `ingress` resets it.
#[tokio::test(start_paused = true)]
async fn a_session_goes_where_its_port_leads() {
    let (world, _) = local();
    let (link, guard) = world.serve("one", "web", &[tcp("a", 0), udp("b", 0)]).await;
    let stream = port(&world.announce_one(&link, tcp("a", 0)));
    let flow = port(&world.announce_one(&link, udp("b", 0)));
    let direct = |protocol, port| world.direct_as(protocol, Some(port), "", &[]);
    let destination = direct(Speaks::Tcp, stream).await.unwrap();
    assert_eq!(
        (&*destination.tunnel, destination.link),
        ("a", link.id().value())
    );
    assert_eq!(destination.grant.tunnel().unwrap().as_str(), "a");
    assert_eq!(&*direct(Speaks::Udp, flow).await.unwrap().tunnel, "b");
    for (protocol, port) in [
        (Speaks::Tcp, flow),
        (Speaks::Udp, stream),
        (Speaks::Http, stream),
    ] {
        let failure = direct(protocol, port).await.unwrap_err();
        assert_eq!(failure.reason, Reason::NoTunnel, "{protocol:?}");
    }
    // F17: while no client is connected a visitor waits, and is sent to the client that connects.
    drop((destination, guard));
    let start = tokio::time::Instant::now();
    let failure = direct(Speaks::Tcp, stream).await.unwrap_err();
    assert_eq!(
        (failure.reason, start.elapsed()),
        (Reason::NoClient, 5 * SECOND)
    );
    let (visit, (back, _guard)) = tokio::join!(direct(Speaks::Udp, flow), async {
        tokio::time::sleep(SECOND).await;
        world.serve("one", "web", &[udp("b", 0)]).await
    });
    assert_eq!(visit.unwrap().link, back.id().value());
}

/// P-11.2: connections take permits, flows do not.
#[tokio::test(start_paused = true)]
async fn p_11_2_flows_take_no_permits() {
    let (world, _) = local();
    let (link, _guard) = world.serve("one", "web", &[tcp("a", 0), udp("b", 0)]).await;
    let stream = port(&world.announce_one(&link, tcp("a", 0)));
    let flow = port(&world.announce_one(&link, udp("b", 0)));
    let direct = |protocol, port| world.direct_as(protocol, Some(port), "", &[]);
    let held = [
        direct(Speaks::Tcp, stream).await.unwrap(),
        direct(Speaks::Tcp, stream).await.unwrap(),
    ];
    assert_eq!(link.permits().in_use(), 2);
    let failure = direct(Speaks::Tcp, stream).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Limit);
    let flows = [
        direct(Speaks::Udp, flow).await.unwrap(),
        direct(Speaks::Udp, flow).await.unwrap(),
    ];
    assert_eq!((link.permits().in_use(), link.load().in_flight()), (2, 4));
    drop((held, flows));
    assert_eq!((link.permits().in_use(), link.load().in_flight()), (0, 0));
}

#[tokio::test]
async fn sessions_are_shared_by_the_visitors_address_whatever_is_hashed() {
    let (world, _) = local();
    for policy in ["consistent_hash", "ip_hash"] {
        let mut tunnel = tcp(policy.split('_').next().unwrap(), 0);
        tunnel.load_balance = policy.into();
        let mut guards = Vec::new();
        for client in ["one", "two", "three"] {
            let served = world
                .serve(client, "web", std::slice::from_ref(&tunnel))
                .await;
            guards.push(served);
        }
        let public = port(&world.announce_one(&guards[2].0, tunnel));
        let mut chosen = std::collections::HashSet::new();
        for last in 1..=40 {
            let visitor = IpAddr::from([192, 0, 2, last]);
            let direct = || world.direct_from(visitor, Speaks::Tcp, Some(public), "", &[]);
            let first = direct().await.unwrap().link;
            assert_eq!(direct().await.unwrap().link, first);
            chosen.insert(first);
        }
        assert_eq!(chosen.len(), 3, "{policy}");
    }
}

#[tokio::test]
async fn an_http_port_serves_its_tunnel_for_every_host() {
    let (world, ip) = local();
    let mut web = tunnel("web", &[]);
    web.remote_port = free(ip).into();
    let (link, _guard) = world.serve("one", "web", &[web.clone()]).await;
    let public = port(&world.announce_one(&link, web.clone()));
    let direct = |port, host| world.direct_as(Speaks::Http, port, host, &[]);
    for host in ["a.test", "web.localhost", "127.0.0.1:1"] {
        assert_eq!(&*direct(Some(public), host).await.unwrap().tunnel, "web");
    }
    // The tunnel has no host of its own.
    let failure = direct(None, "web.localhost").await.unwrap_err();
    assert_eq!(failure.reason, Reason::NoTunnel);
    let failure = world.direct_as(Speaks::Tcp, Some(public), "", &[]).await;
    assert_eq!(failure.unwrap_err().reason, Reason::NoTunnel);
    assert!(world.directory.is_http_port(public));
    // The locations of a tunnel restrict its port as they restrict a host: the request is for `/a`.
    for (location, found) in [("/a", true), ("/b", false)] {
        web.locations = vec![location.into()];
        assert_eq!(code(&world.announce_one(&link, web.clone())), "");
        assert_eq!(direct(Some(public), "a.test").await.is_ok(), found);
    }
}

/// P-1.2: a client receives no request of a protocol that it does not support.
#[tokio::test]
async fn a_websocket_needs_a_client_that_supports_it() {
    let world = world();
    let (old, session) = world.register_knowing("one", "web", &["http"]).await;
    assert_eq!(code(&world.announce_one(&old, tunnel("shop", &[]))), "");
    let (_, _old) = world.open(&session);
    let direct = |protocol| world.direct_as(protocol, None, "shop.localhost", &[]);
    assert_eq!(direct(Speaks::Http).await.unwrap().link, old.id().value());
    for protocol in [Speaks::WebSocket, Speaks::Grpc] {
        let failure = direct(protocol).await.unwrap_err();
        assert_eq!(
            (failure.reason, failure.reason.http_status()),
            (Reason::Refused, 502)
        );
        assert!(failure.detail.contains(protocol.as_str()), "{failure:?}");
    }
    let (new, _new) = world.serve("two", "web", &[tunnel("shop", &[])]).await;
    for protocol in [Speaks::WebSocket, Speaks::Grpc] {
        for _ in 0..3 {
            assert_eq!(direct(protocol).await.unwrap().link, new.id().value());
        }
    }
}

/// Regression: a rule of the server could send HTTP requests to a tunnel of TCP.
#[tokio::test]
async fn a_rule_leads_to_no_tunnel_of_bytes() {
    let rule = RuleSettings {
        host: Some("shop.test".into()),
        path: None,
        headers: Vec::new(),
        grpc: None,
        to: RuleTarget::Tunnel("shop".into()),
        layers: Vec::new(),
    };
    let (world, _) = with_rules(&[rule]);
    let (_, _tcp) = world.serve("one", "red", &[tcp("shop", 0)]).await;
    let failure = world.direct("shop.test", &[]).await.unwrap_err();
    assert_eq!(failure.reason, Reason::NoTunnel);
    let (link, _http) = world
        .serve("two", "web", &[tunnel("shop", &["other.test"])])
        .await;
    let destination = world.direct("shop.test", &[]).await.unwrap();
    assert_eq!(destination.link, link.id().value());
}

/// Port 0 lets the server choose.
#[tokio::test]
async fn p_16_9_the_public_ports_of_a_user_are_bounded() {
    let (world, ip) = local();
    world
        .directory
        .set_config(|config| config.limits.max_ports_per_user = Some(2));
    let (ann, _) = world.register("one", "red").await;
    let first = world.announce_one(&ann, tcp("a", 0));
    assert_eq!(code(&first), "");
    let other_port = free(ip);
    assert_eq!(code(&world.announce_one(&ann, tcp("b", other_port))), "");
    for refused in [tcp("c", 0), tcp("c", free(ip)), udp("c", 0)] {
        let refused = world.announce_one(&ann, refused);
        assert_eq!(code(&refused), "limit");
        let setting = "`server.limits.max_ports_per_user`";
        assert!(text(&refused).contains(setting), "{refused:?}");
    }
    assert_eq!(world.ports.count(), 2);
    // A tunnel without a port, one that changes its own port, and another user are not affected.
    assert_eq!(
        code(&world.announce_one(&ann, tunnel("web", &["w.test"]))),
        ""
    );
    assert_eq!(code(&world.announce_one(&ann, tcp("a", free(ip)))), "");
    let (bob, _) = world.enter("bob", "two", "blue").await.ok().unwrap();
    bob.set_capabilities(ALL.map(str::to_owned).to_vec());
    assert_eq!(code(&world.announce_one(&bob, tcp("d", 0))), "");
    // A tunnel that its client ends closes its port.
    world.directory.withdraw(&ann, "b", Instant::now());
    assert!(is_free(ip, other_port));
    assert_eq!(code(&world.announce_one(&ann, tcp("c", 0))), "");
}
