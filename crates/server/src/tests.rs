//! Tunnels, and the routing of requests to them, with real links whose lanes have no transport.

mod certificates;
mod owners;
mod ports;
mod rules;
mod scopes;
mod tls_hosts;
mod transport;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use adit_auth::{
    Attempt, Authenticator, ClientClaim, ClientId, Denied, Grant, GroupId, InstanceSecret, Lapsed,
    SessionToken, UserName,
};
use adit_codec::Side;
use adit_ingress::{Destination, Direction};
use adit_link::{Failure, Lane, Reason, control::ChannelId};
use adit_proto::{ProtocolType, Tunnel as Announced, TunnelResult};
use adit_registry::{LaneGuard, Link, MembershipObserver, Registry};
use adit_testlink::lane_of;
use parking_lot::Mutex;

use crate::{
    authorization::Authorization,
    channels::Channels,
    director::{RouteInput, ServerDirector},
    directory::{Directory, DirectoryConfig, EnterError},
    ports::Ports,
    settings::{Limits, PortRanges, PublicUrl, RuleSettings, SharedGroup, Timeouts},
    shortcuts::Shortcuts,
    traffic::Traffic,
    upstreams::Upstreams,
};

const SECOND: Duration = Duration::from_secs(1);
const RETENTION: Duration = Duration::from_secs(600);

struct World {
    directory: Arc<Directory>,
    ports: Arc<Ports>,
    registry: Arc<Registry>,
    director: ServerDirector,
    /// The channel of each link, by the number of the link.
    channels: Mutex<HashMap<u64, ChannelId>>,
}

/// A loopback address for each test, so that tests do not compete for ports.
fn own_address() -> IpAddr {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mixed = std::process::id().wrapping_mul(0x9E37_79B1) ^ number.wrapping_mul(0x85EB_CA6B);
    let [a, b, c, _] = mixed.to_be_bytes();
    Ipv4Addr::new(127, a | 1, b, c.clamp(1, 254)).into()
}

fn world() -> World {
    world_with(Some("example.com"), own_address(), PortRanges::default())
}

fn world_with(domain: Option<&str>, ip: IpAddr, allowed: PortRanges) -> World {
    world_of(domain, ip, allowed, &[])
}

fn world_of(
    domain: Option<&str>,
    ip: IpAddr,
    allowed: PortRanges,
    rules: &[RuleSettings],
) -> World {
    let shared = SharedGroup {
        group: GroupId::parse("both").unwrap(),
        users: ["ann", "bob"]
            .map(|user| UserName::parse(user).unwrap())
            .into(),
    };
    let config = DirectoryConfig {
        domain: domain.map(Into::into),
        limits: Limits {
            max_tunnels_per_client: 3,
            ..Limits::default()
        },
        shared_groups: vec![shared],
        retention: RETENTION,
        max_orphans: 5,
        bind_ip: ip,
        public_port: 80,
        public_url: PublicUrl::default(),
        https: None,
        clients_port: 7000,
    };
    let ports = Ports::new(ip, allowed);
    let shortcuts = Shortcuts::none();
    let upstreams = Upstreams::none().current();
    let directory = Directory::new(
        config,
        rules,
        (&shortcuts, &upstreams),
        ports.clone(),
        adit_ingress::layers::Access::new(adit_ingress::layers::AccessBounds::default()),
    )
    .unwrap();
    let directory = Arc::new(directory);
    let config = adit_registry::Config {
        max_clients: 100,
        max_clients_per_user: 100,
        max_requests_per_client: 2,
        max_waiting: 10,
        shares: adit_flow::Shares::NONE,
        takeover_probe: 2 * SECOND,
        setup: 10 * SECOND,
        first_epoch: 1,
    };
    let timeouts = Timeouts {
        startup_grace: Duration::ZERO,
        client_wait: 5 * SECOND,
        permit_wait: SECOND,
        ..Timeouts::default()
    };
    let registry = Registry::new(config, directory.clone());
    let director = ServerDirector::new(
        directory.clone(),
        anyone(&registry),
        Traffic::none(),
        &timeouts,
        Instant::now(),
    );
    World {
        registry,
        director,
        directory,
        ports,
        channels: Mutex::default(),
    }
}

/// Accepts every credential.
struct Anyone;

impl Authenticator for Anyone {
    fn authenticate(&self, attempt: &Attempt<'_>) -> Result<Grant, Denied> {
        let user = UserName::parse("ann").unwrap();
        Ok(Grant::for_link(user, attempt.claim.clone()))
    }

    fn check(&self, _: &Grant, _: SystemTime) -> Result<(), Lapsed> {
        Ok(())
    }

    fn revision(&self) -> u64 {
        1
    }
}

/// Authorizes every link.
fn anyone(registry: &Arc<Registry>) -> Arc<Authorization> {
    Authorization::new(Arc::new(Anyone), registry.clone())
}

/// The capabilities of this build.
const ALL: [&str; 5] = ["http", "grpc", "websocket", "tcp", "udp"];

fn tunnel(name: &str, domains: &[&str]) -> Announced {
    Announced {
        name: name.into(),
        protocol_type: ProtocolType::Http.into(),
        domains: domains.iter().map(ToString::to_string).collect(),
        ..Announced::default()
    }
}

fn code(result: &TunnelResult) -> &str {
    result.error.as_ref().map_or("", |error| &error.code)
}

impl World {
    async fn register(&self, client: &str, group: &str) -> (Arc<Link>, SessionToken) {
        self.register_knowing(client, group, &ALL).await
    }

    async fn register_knowing(
        &self,
        client: &str,
        group: &str,
        capabilities: &[&str],
    ) -> (Arc<Link>, SessionToken) {
        let registered = self.enter("ann", client, group).await;
        let (link, session) = registered.unwrap_or_else(|error| panic!("{error}"));
        let known = capabilities.iter().map(ToString::to_string);
        link.set_capabilities(known.collect());
        (link, session)
    }

    /// Registers a client of a user, as the service does.
    async fn enter(
        &self,
        user: &str,
        client: &str,
        group: &str,
    ) -> Result<(Arc<Link>, SessionToken), EnterError> {
        let claim = ClientClaim {
            client_id: ClientId::parse(client).unwrap(),
            group_id: GroupId::parse(group).unwrap(),
        };
        let grant = Grant::for_link(UserName::parse(user).unwrap(), claim);
        self.enter_with(grant).await
    }

    /// Registers a client with this grant, as the service does.
    async fn enter_with(&self, grant: Grant) -> Result<(Arc<Link>, SessionToken), EnterError> {
        let entered = self.directory.enter(&grant)?;
        let session = SessionToken::from_random(rand::random());
        let channel = ChannelId::next();
        let registered = self
            .registry
            .register(
                grant,
                InstanceSecret::from_random([1; 32]).key(),
                session.key(),
                (channel, ([192, 0, 2, 1], 4000).into()),
                1,
            )
            .await
            .unwrap();
        entered.keep();
        let link = registered.link;
        self.channels.lock().insert(link.id().value(), channel);
        Ok((link, session))
    }

    /// Ends the client, as after the loss of its connection. Its lane must be closed.
    fn lose(&self, link: &Arc<Link>) {
        let channel = self.channels.lock()[&link.id().value()];
        self.registry.channel_closed(channel);
        assert!(link.is_ended());
    }

    fn open(&self, session: &SessionToken) -> (Arc<Lane>, LaneGuard) {
        let lane = |_: &_| lane_of(Side::Server);
        self.registry.open_lane(session.key(), 0, lane).unwrap()
    }

    /// A client that serves `tunnels`, with its lane open.
    async fn serve(
        &self,
        client: &str,
        group: &str,
        tunnels: &[Announced],
    ) -> (Arc<Link>, LaneGuard) {
        let (link, session) = self.register(client, group).await;
        for result in self.announce(&link, tunnels) {
            assert_eq!(result.error, None);
        }
        let (_, guard) = self.open(&session);
        (link, guard)
    }

    fn announce(&self, link: &Arc<Link>, tunnels: &[Announced]) -> Vec<TunnelResult> {
        self.directory.announce(link, tunnels, Instant::now())
    }

    fn names(&self) -> Vec<String> {
        let tunnels = self.directory.tunnels();
        tunnels
            .iter()
            .map(|(tunnel, _)| tunnel.name.to_string())
            .collect()
    }

    fn clients(&self, name: &str) -> Vec<String> {
        let tunnels = self.directory.tunnels();
        let tunnel = tunnels.iter().find(|(tunnel, _)| &*tunnel.name == name);
        let clients = tunnel.unwrap().0.clients();
        clients.iter().map(ToString::to_string).collect()
    }

    async fn direct(&self, host: &str, avoid: &[u64]) -> Result<Destination, Failure> {
        self.direct_as(adit_codec::ProtocolType::Http, None, host, avoid)
            .await
    }

    async fn direct_as(
        &self,
        protocol: adit_codec::ProtocolType,
        port: Option<u16>,
        host: &str,
        avoid: &[u64],
    ) -> Result<Destination, Failure> {
        let visitor = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        self.direct_from(visitor, protocol, port, host, avoid).await
    }

    async fn direct_from(
        &self,
        visitor: IpAddr,
        protocol: adit_codec::ProtocolType,
        port: Option<u16>,
        host: &str,
        avoid: &[u64],
    ) -> Result<Destination, Failure> {
        let input = RouteInput {
            protocol,
            port,
            authority: host,
            path: "/a?b=c",
            headers: &http::HeaderMap::new(),
            visitor,
        };
        match self.director.direct_request(input, avoid) {
            Direction::Go(destination) => Ok(destination),
            Direction::Wait(wait) => wait.await,
            Direction::Fail(failure) => Err(failure),
        }
    }
}

/// P-1.4: the result names the holder; other tunnels are accepted.
#[tokio::test]
async fn a_host_of_another_group_is_refused_with_its_holder() {
    let world = world();
    let (_, _guard) = world
        .serve("one", "red", &[tunnel("shop", &["shop.test"])])
        .await;
    let (other, _) = world.register("two", "blue").await;
    let mut rooted = tunnel("rooted", &["shop.test"]);
    rooted.locations = vec!["/".into()];
    let mut below = tunnel("below", &["shop.test"]);
    below.locations = vec!["/below".into()];
    let results = world.announce(&other, &[tunnel("shop", &["shop.test"]), rooted, below]);
    let codes: Vec<_> = results.iter().map(code).collect();
    assert_eq!(codes, ["name_taken"; 3]);
    for refused in &results {
        let message = &refused.error.as_ref().unwrap().message;
        assert!(message.contains("client `one`"), "{message}");
        assert!(
            message.contains("tunnel `shop` of group `red`"),
            "{message}"
        );
    }
    assert_eq!(world.names(), ["shop"]);
}

#[tokio::test]
async fn clients_of_a_group_share_a_tunnel_of_one_definition() {
    let world = world();
    let (one, _guard) = world.serve("one", "web", &[tunnel("shop", &[])]).await;
    let (_, _other) = world.serve("two", "web", &[tunnel("shop", &[])]).await;
    assert_eq!(world.clients("shop"), ["one", "two"]);
    // Another definition is refused while another client serves the first.
    let results = world.announce(&one, &[tunnel("shop", &["other.test"])]);
    assert_eq!(code(&results[0]), "name_taken");
    assert!(results[0].error.as_ref().unwrap().message.contains("`two`"));
    assert_eq!(world.clients("shop"), ["one", "two"]);
}

/// Regression: the limit applied to one announcement, so that a client could announce any number of tunnels on the
/// control stream.
#[tokio::test]
async fn the_bound_on_tunnels_holds_over_all_announcements() {
    let world = world();
    let (link, _guard) = world.serve("one", "web", &[]).await;
    let mut refused = 0;
    for number in 0..10 {
        let results = world.announce(&link, &[tunnel(&format!("t{number}"), &[])]);
        refused += usize::from(code(&results[0]) == "limit");
    }
    assert_eq!((world.names().len(), refused), (3, 7));
    // Tunnels of the client may be announced again, and a removed one makes room.
    assert_eq!(code(&world.announce(&link, &[tunnel("t0", &[])])[0]), "");
    assert!(world.directory.withdraw(&link, "t0", Instant::now()));
    assert_eq!(code(&world.announce(&link, &[tunnel("t9", &[])])[0]), "");
    assert_eq!(world.names(), ["t1", "t2", "t9"]);
}

/// Regression: a client could withdraw a tunnel that only other clients served, and a withdrawn tunnel was kept as if
/// its client would return.
#[tokio::test]
async fn a_withdrawn_tunnel_is_removed_at_once() {
    let world = world();
    let (one, _guard) = world.serve("one", "web", &[tunnel("shop", &[])]).await;
    let (two, _other) = world.serve("two", "web", &[]).await;
    let now = Instant::now();
    assert!(!world.directory.withdraw(&two, "shop", now));
    assert!(!world.directory.withdraw(&one, "none", now));
    assert_eq!(world.clients("shop"), ["one"]);
    let revision = world.directory.revision();
    assert!(world.directory.withdraw(&one, "shop", now));
    assert_eq!(world.names(), [""; 0]);
    assert_eq!(world.directory.revision(), revision + 1);
    let failure = world.direct("shop.localhost", &[]).await.unwrap_err();
    assert_eq!(failure.reason, Reason::NoTunnel);
}

#[tokio::test]
async fn orphans_are_kept_for_a_while_and_are_bounded() {
    let world = world();
    let now = Instant::now();
    let (link, guard) = world.serve("one", "web", &[tunnel("shop", &[])]).await;
    world.directory.link_gone(&link);
    drop(guard);
    let (other, _) = world.register("other", "other").await;
    world.directory.announce(&other, &[], now + RETENTION / 2);
    assert_eq!(world.names(), ["shop"], "its client may be on its way back");
    world.directory.announce(&other, &[], now + RETENTION * 2);
    assert_eq!(world.names(), [""; 0]);
    // Regression: a client that registered again and again under new names filled the table.
    for number in 0..20 {
        let (link, _) = world.register("one", &format!("g{number}")).await;
        let name = format!("t{number}");
        world.announce(&link, &[tunnel(&name, &[])]);
    }
    // Five tunnels without clients, the tunnel that is served, and the one before it.
    assert!(
        (5..=7).contains(&world.names().len()),
        "{:?}",
        world.names()
    );
}

/// Regression: the announcement of a registration that was already taken over removed the new link from the tunnel
/// permanently.
#[tokio::test]
async fn a_link_that_was_taken_over_joins_nothing() {
    let world = world();
    let (old, _) = world.register("one", "web").await;
    let (new, session) = world.register("one", "web").await;
    world.announce(&new, &[tunnel("shop", &[])]);
    world.announce(&old, &[tunnel("shop", &[]), tunnel("more", &[])]);
    let (_, guard) = world.open(&session);
    assert_eq!(world.clients("shop"), ["one"]);
    assert!(world.clients("more").is_empty());
    drop(guard);
    // A tunnel that was never served is removed as well.
    let later = Instant::now() + RETENTION * 2;
    world.directory.announce(&new, &[], later);
    assert_eq!(world.names(), ["shop"]);
}

/// Regression: two reports of two threads in the wrong order excluded a live client permanently.
#[tokio::test]
async fn the_state_of_the_link_overrides_late_reports() {
    let world = world();
    let (link, guard) = world.serve("one", "web", &[tunnel("shop", &[])]).await;
    world.directory.link_down(&link);
    assert_eq!(world.clients("shop"), ["one"]);
    drop(guard);
    world.directory.link_up(&link);
    assert!(world.clients("shop").is_empty());
}

/// P-6.6: a client that drains receives no new requests.
#[tokio::test]
async fn a_client_that_drains_gets_nothing_new() {
    let world = world();
    let (one, _guard) = world.serve("one", "web", &[tunnel("shop", &[])]).await;
    let (two, _other) = world.serve("two", "web", &[tunnel("shop", &[])]).await;
    world.registry.drain(&one);
    for _ in 0..2 {
        let destination = world.direct("shop.localhost", &[]).await.unwrap();
        assert_eq!(destination.link, two.id().value());
    }
    assert_eq!(two.load().in_flight(), 0, "they have been dropped");
}

/// The alert for a tunnel without clients is for tunnels whose clients were lost.
#[tokio::test]
async fn a_drain_leaves_the_tunnel_and_a_loss_closes_it() {
    let world = world();
    let left = || world.directory.tunnels()[0].0.has_been_left();
    for drains in [true, false] {
        let (link, guard) = world.serve("one", "office", &[tunnel("web", &[])]).await;
        assert!(!left());
        if drains {
            world.registry.drain(&link);
            assert!(left(), "as long as it drains");
        }
        drop(guard);
        world.directory.link_gone(&link);
        assert_eq!(left(), drains);
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_and_a_load_are_held_and_given_back() {
    let world = world();
    let (link, _guard) = world.serve("one", "web", &[tunnel("shop", &[])]).await;
    let first = world.direct("shop.example.com", &[]).await.unwrap();
    let second = world.direct("shop.example.com:80", &[]).await.unwrap();
    assert_eq!(&*first.tunnel, "shop");
    assert_eq!(first.grant.tunnel().unwrap().as_str(), "shop");
    assert_eq!((link.permits().in_use(), link.load().in_flight()), (2, 2));
    // No permit becomes free within the wait.
    let start = tokio::time::Instant::now();
    let failure = world.direct("shop.example.com", &[]).await.unwrap_err();
    assert_eq!((failure.reason, start.elapsed()), (Reason::Limit, SECOND));
    assert_eq!((link.permits().in_use(), link.load().in_flight()), (2, 2));
    // A permit that is released in time is taken.
    let third = async { world.direct("shop.example.com", &[]).await };
    let (third, ()) = tokio::join!(third, async {
        tokio::time::sleep(SECOND / 2).await;
        drop(first);
    });
    drop((second, third.unwrap()));
    assert_eq!((link.permits().in_use(), link.load().in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_another_client_or_waits_for_one() {
    let world = world();
    let (one, _guard) = world.serve("one", "web", &[tunnel("shop", &[])]).await;
    let (two, _other) = world.serve("two", "web", &[tunnel("shop", &[])]).await;
    for _ in 0..3 {
        let destination = world.direct("shop.localhost", &[one.id().value()]).await;
        assert_eq!(destination.unwrap().link, two.id().value());
    }
    let both = [one.id().value(), two.id().value()];
    let start = tokio::time::Instant::now();
    let failure = world.direct("shop.localhost", &both).await.unwrap_err();
    assert_eq!(
        (failure.reason, start.elapsed()),
        (Reason::NoClient, 5 * SECOND)
    );
}

/// The client whose link was lost returns with another one.
#[tokio::test(start_paused = true)]
async fn retry_waits_for_the_next_link_of_its_client() {
    let world = world();
    let (lost, guard) = world.serve("one", "web", &[tunnel("shop", &[])]).await;
    drop(guard);
    let avoid = [lost.id().value()];
    let (visit, (link, _guard)) = tokio::join!(world.direct("shop.localhost", &avoid), async {
        tokio::time::sleep(SECOND).await;
        world.serve("one", "web", &[tunnel("shop", &[])]).await
    });
    assert_eq!(visit.unwrap().link, link.id().value());
}

#[tokio::test]
async fn running_requests_of_a_tunnel_are_counted() {
    let world = world();
    let (_, _guard) = world.serve("one", "web", &[tunnel("shop", &[])]).await;
    let running = || world.directory.tunnels()[0].0.running();
    let first = world.direct("shop.localhost", &[]).await.unwrap();
    let second = world.direct("shop.localhost", &[]).await.unwrap();
    assert_eq!(running(), 2);
    drop((first, second));
    assert_eq!(running(), 0);
}

/// F17: a visitor waits for the return of a client, for at most the wait for a client.
#[tokio::test(start_paused = true)]
async fn a_visitor_waits_for_a_client_that_comes_back() {
    let world = world();
    let (_, guard) = world.serve("one", "web", &[tunnel("shop", &[])]).await;
    drop(guard);
    let start = tokio::time::Instant::now();
    let failure = world.direct("shop.localhost", &[]).await.unwrap_err();
    assert_eq!(
        (failure.reason, start.elapsed()),
        (Reason::NoClient, 5 * SECOND)
    );
    let (visit, (link, _guard)) = tokio::join!(world.direct("shop.localhost", &[]), async {
        tokio::time::sleep(SECOND).await;
        world.serve("one", "web", &[tunnel("shop", &[])]).await
    });
    assert_eq!(visit.unwrap().link, link.id().value());
}

/// F17. Regression: a visitor that waited on the old definition of a tunnel was not forwarded.
#[tokio::test(start_paused = true)]
async fn a_visitor_waits_for_a_client_with_changed_settings() {
    let world = world();
    let (_, guard) = world
        .serve("one", "web", &[tunnel("shop", &["a.test"])])
        .await;
    drop(guard);
    let other = tunnel("shop", &["a.test", "b.test"]);
    let (visit, (link, _guard)) = tokio::join!(world.direct("a.test", &[]), async {
        tokio::time::sleep(SECOND).await;
        world.serve("one", "web", &[other]).await
    });
    assert_eq!(visit.unwrap().link, link.id().value());
}

/// Regression: a visitor that waited for a permit of a client that left was rejected instead of waiting for its return.
#[tokio::test(start_paused = true)]
async fn a_visitor_that_waits_for_a_permit_outlives_the_client() {
    let world = world();
    let (_, guard) = world.serve("one", "web", &[tunnel("shop", &[])]).await;
    let held = [
        world.direct("shop.localhost", &[]).await.unwrap(),
        world.direct("shop.localhost", &[]).await.unwrap(),
    ];
    let (visit, (link, _guard)) = tokio::join!(world.direct("shop.localhost", &[]), async {
        tokio::time::sleep(SECOND / 4).await;
        drop(guard);
        drop(held);
        tokio::time::sleep(SECOND / 4).await;
        world.serve("one", "web", &[tunnel("shop", &[])]).await
    });
    assert_eq!(visit.unwrap().link, link.id().value());
}

/// Regression: a connection on the clients' port without a registration was kept forever.
#[tokio::test(start_paused = true)]
async fn a_connection_of_no_use_is_noticed() {
    let world = world();
    let channels = Channels::new(world.registry.clone());
    let channel = ChannelId::next();
    let start = tokio::time::Instant::now();
    channels.wait_until_unused(channel, SECOND).await;
    assert_eq!(start.elapsed(), 2 * SECOND);
    let streams = [channels.track(channel), channels.track(channel)];
    assert!(channels.is_used(channel));
    let unused = channels.wait_until_unused(channel, SECOND);
    let waited = async {
        tokio::time::sleep(100 * SECOND).await;
        drop(streams);
        tokio::time::sleep(3 * SECOND).await;
    };
    let ((), ()) = tokio::join!(unused, waited);
    assert!(!channels.is_used(channel));
    let (link, session) = world.register("one", "web").await;
    drop((link, session));
    assert_eq!(world.registry.stats().channels, 1);
}
