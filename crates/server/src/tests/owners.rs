//! The owners of names (P-1.4, P-1.9, P-1.10).

use adit_router::Query;

use super::*;
use crate::{
    names::{Name, NamesFile},
    settings::RuleTarget,
};

fn text(result: &TunnelResult) -> &str {
    result.error.as_ref().map_or("", |error| &error.message)
}

fn below(name: &str, host: &str, location: &str) -> Announced {
    let mut tunnel = tunnel(name, &[host]);
    tunnel.locations = vec![location.into()];
    tunnel
}

fn name(kind: &str, text: &str) -> Name {
    Name::parse(kind, text).unwrap()
}

impl World {
    /// A client of a user with its lane open.
    pub(super) async fn serve_as(
        &self,
        user: &str,
        client: &str,
        tunnels: &[Announced],
    ) -> (Arc<Link>, LaneGuard) {
        let (link, session) = self.enter(user, client, client).await.unwrap();
        link.set_capabilities(ALL.map(String::from).into());
        for result in self.announce(&link, tunnels) {
            assert_eq!(result.error, None);
        }
        let (_, guard) = self.open(&session);
        (link, guard)
    }

    async fn refusal(&self, user: &str, client: &str, group: &str) -> String {
        let refused = self.enter(user, client, group).await.map(|_| ());
        refused.unwrap_err().to_string()
    }
}

/// P-1.9. Regression: with a token of his own and the names of Alice's group and tunnel, Bob received half of her
/// visitors.
#[tokio::test]
async fn p_1_9_another_users_group_is_refused() {
    let world = world();
    let (alice, guard) = world.serve_as("ann", "alice", &[tunnel("web", &[])]).await;
    let refused = world.refusal("bob", "bob2", "alice").await;
    assert!(
        refused.contains("group `alice` belongs to another user"),
        "{refused}"
    );
    let refused = world.refusal("bob", "alice", "mine").await;
    assert!(refused.contains("client id `alice`"), "{refused}");
    assert_eq!(world.clients("web"), ["alice"]);
    // Alice's group is also refused during the retention after her client has left.
    drop(guard);
    world.lose(&alice);
    let refused = world.refusal("bob", "bob2", "alice").await;
    assert!(
        refused.contains("kept for that user for another 10 min"),
        "{refused}"
    );
    let now = Instant::now();
    world.directory.forget(now + RETENTION - SECOND);
    world.refusal("bob", "bob2", "alice").await;
    world.directory.forget(now + RETENTION + SECOND);
    let (_, _guard) = world.serve_as("bob", "alice", &[tunnel("web", &[])]).await;
}

/// P-1.9: hosts and ports that belong to another user are refused.
#[tokio::test]
async fn p_1_9_hosts_and_ports_of_another_user_are_refused() {
    let ip = own_address();
    let world = world_with(None, ip, PortRanges::default());
    let listener = std::net::TcpListener::bind((ip, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let tcp = |name: &str| Announced {
        name: name.into(),
        protocol_type: ProtocolType::Tcp.into(),
        remote_port: port.into(),
        ..Announced::default()
    };
    let bank = tunnel("bank", &["www.bank.com"]);
    let (alice, guard) = world.serve_as("ann", "alice", &[bank, tcp("db")]).await;
    let (bob, _) = world.enter("bob", "bob", "bob").await.unwrap();
    bob.set_capabilities(ALL.map(String::from).into());
    let tries = [
        tunnel("mine", &["www.bank.com"]),
        below("ok", "www.bank.com", "/ok"),
        tcp("mine"),
    ];
    let codes = |results: &[TunnelResult]| -> Vec<String> {
        results
            .iter()
            .map(|result| code(result).to_owned())
            .collect()
    };
    let taken = ["name_taken", "name_taken", "port_taken"];
    let results = world.announce(&bob, &tries);
    assert_eq!(codes(&results), taken);
    assert!(
        text(&results[0]).contains("tunnel `bank` of group `alice`"),
        "{results:?}"
    );
    assert!(!text(&results[0]).contains("ann"), "{results:?}");
    // After the loss of her client, the text contains that the tunnel has no client, and how long it is kept.
    drop(guard);
    world.lose(&alice);
    let results = world.announce(&bob, &tries);
    assert_eq!(codes(&results), taken);
    for result in &results {
        assert!(text(result).contains("it has no client now"), "{result:?}");
        assert!(text(result).contains("for another 10 min"), "{result:?}");
    }
    let later = Instant::now() + RETENTION + SECOND;
    let results = world.directory.announce(&bob, &tries[1..], later);
    assert_eq!(codes(&results), ["", ""]);
}

/// P-1.9: a shared group is open to the users listed for it and to no others.
#[tokio::test]
async fn p_1_9_a_shared_group_is_open_to_its_users_alone() {
    let world = world();
    let shared = [tunnel("shop", &["shop.test"])];
    for (user, client) in [("ann", "one"), ("bob", "two")] {
        let (link, _) = world.enter(user, client, "both").await.unwrap();
        assert_eq!(code(&world.announce(&link, &shared)[0]), "", "{user}");
    }
    let refused = world.refusal("eve", "three", "both").await;
    assert!(refused.contains("server.shared_groups"), "{refused}");
    // Names of the shared group do not belong to its users' other groups.
    let (own, _) = world.enter("ann", "four", "own").await.unwrap();
    assert_eq!(code(&world.announce(&own, &shared)[0]), "name_taken");
}

/// P-1.4. Regression: any group could take `/ok` of a host that another group held.
#[tokio::test]
async fn p_1_4_another_group_takes_no_path_of_a_held_host() {
    let world = world();
    let web = tunnel("web", &["web.localhost"]);
    let (_, _guard) = world.serve("ca", "ca", &[web]).await;
    let (evil, _) = world.register("evil", "evil").await;
    let results = world.announce(&evil, &[below("ok", "web.localhost", "/ok")]);
    assert_eq!(code(&results[0]), "name_taken");
    assert!(
        text(&results[0]).contains("tunnel `web` of group `ca`"),
        "{results:?}"
    );
    // A tunnel of the same group may use another path.
    let (own, _) = world.register("cb", "ca").await;
    let results = world.announce(&own, &[below("ok", "web.localhost", "/ok")]);
    assert_eq!(code(&results[0]), "");
    let snapshot = world.directory.snapshot();
    let query = Query::new(Some("web.localhost"), "/ok");
    let found = snapshot.routes.route(&query).unwrap().unwrap();
    assert_eq!(found.target().name(), "ok");
}

/// P-1.10: a wildcard is allowed only below a name of the server's own domain or of `localhost`.
#[tokio::test]
async fn p_1_10_wildcards_above_a_name_of_the_own_domain_are_refused() {
    let world = world();
    let (link, _) = world.register("one", "web").await;
    for host in ["*.localhost", "*.com", "*.example.com", "*.bank.com"] {
        let results = world.announce(&link, &[tunnel("all", &[host])]);
        assert_eq!(code(&results[0]), "bad_request", "{host}");
        assert!(
            text(&results[0]).contains("server.limits.allow_hosts"),
            "{results:?}"
        );
    }
    for host in ["*.web.localhost", "*.web.example.com", "www.bank.com"] {
        let results = world.announce(&link, &[tunnel("all", &[host])]);
        assert_eq!(code(&results[0]), "", "{host}");
    }
    // A wildcard below a name of another user is refused as well.
    let (bob, _) = world.enter("bob", "bob", "bob").await.unwrap();
    let results = world.announce(&bob, &[tunnel("all", &["*.www.bank.com"])]);
    assert_eq!(code(&results[0]), "bad_request");
    let (_, _guard) = world.serve("two", "web", &[tunnel("shop", &[])]).await;
    let results = world.announce(&bob, &[tunnel("all", &["*.shop.localhost"])]);
    assert_eq!(code(&results[0]), "name_taken");
}

/// Regression: a wildcard above a host of another user was accepted.
#[tokio::test]
async fn p_1_9_a_wildcard_above_a_host_of_another_user_is_refused() {
    let world = world();
    let (_, _guard) = world
        .serve("one", "web", &[tunnel("shop", &["a.shop.localhost"])])
        .await;
    let (bob, _) = world.enter("bob", "bob", "bob").await.unwrap();
    let all = [tunnel("all", &["*.shop.localhost"])];
    let results = world.announce(&bob, &all);
    assert_eq!(code(&results[0]), "name_taken");
    assert!(
        text(&results[0]).contains("a.shop.localhost"),
        "{results:?}"
    );
    // The user itself may have both.
    let (own, _) = world.register("two", "web").await;
    assert_eq!(code(&world.announce(&own, &all)[0]), "");
}

/// Regression: a rule of the server selected the group that was first in the alphabet.
#[tokio::test]
async fn p_1_9_a_tunnel_that_a_rule_leads_to_has_one_owner() {
    let rule = RuleSettings {
        host: Some("shop.test".into()),
        path: None,
        headers: Vec::new(),
        grpc: None,
        to: RuleTarget::Tunnel("shop".into()),
        layers: Vec::new(),
    };
    let world = world_of(None, own_address(), PortRanges::default(), &[rule]);
    let (alice, _guard) = world
        .serve_as("ann", "zoe", &[tunnel("shop", &["zoe.test"])])
        .await;
    let (bob, _) = world.enter("bob", "aaa", "aaa").await.unwrap();
    let results = world.announce(&bob, &[tunnel("shop", &["aaa.test"])]);
    assert_eq!(code(&results[0]), "name_taken");
    let destination = world.direct("shop.test", &[]).await.unwrap();
    assert_eq!(destination.link, alice.id().value());
    // A host and path of a rule have no owner.
    let results = world.announce(&bob, &[tunnel("other", &["shop.test"])]);
    assert_eq!(code(&results[0]), "name_taken");
    assert_eq!(world.names(), ["shop"]);
}

/// P-1.11: `--client-id a`, SIGTERM, then `--client-id b` was refused for ten minutes.
#[tokio::test]
async fn p_1_11_a_clean_leave_frees_the_name_for_the_same_user() {
    let world = world();
    let web = [tunnel("web", &[])];
    let mut freed = world.directory.freed();
    let (a, guard) = world.serve("a", "a", &web).await;
    let (b, _) = world.register("b", "b").await;
    assert_eq!(code(&world.announce(&b, &web)[0]), "name_taken");
    freed.mark_unchanged();
    world.registry.drain(&a);
    assert!(freed.has_changed().unwrap());
    let (other, _) = world.enter("bob", "c", "c").await.unwrap();
    assert_eq!(code(&world.announce(&other, &web)[0]), "name_taken");
    // The names are free at once, while the last requests of the client still run.
    assert_eq!(code(&world.announce(&b, &web)[0]), "");
    drop(guard);
    world.lose(&a);
    assert_eq!(world.names(), ["web"]);
    assert_eq!(code(&world.announce(&b, &web)[0]), "");
    // The names are free for another user only after the retention.
    assert_eq!(code(&world.announce(&other, &web)[0]), "name_taken");
}

/// P-1.11: the refusal of a name of a lost client states that no client serves the tunnel, and how long the name is
/// kept.
#[tokio::test]
async fn p_1_11_the_refusal_names_the_retention_of_a_lost_client() {
    let world = world();
    let web = [tunnel("web", &[])];
    let (a, guard) = world.serve("a", "a", &web).await;
    drop(guard);
    world.lose(&a);
    let (b, _) = world.register("b", "b").await;
    let result = &world.announce(&b, &web)[0];
    assert_eq!(code(result), "name_taken");
    assert!(
        text(result).contains("tunnel `web` of group `a`; it has no client now"),
        "{result:?}"
    );
    assert!(text(result).contains("for another 10 min"), "{result:?}");
}

/// All tunnels of an announcement are added in one snapshot; an announcement without changes creates none.
#[tokio::test]
async fn an_announcement_makes_one_snapshot() {
    let world = world();
    let (link, _) = world.register("one", "web").await;
    let before = world.directory.revision();
    let tunnels = ["a", "b", "c"].map(|name| tunnel(name, &[]));
    world.announce(&link, &tunnels);
    assert_eq!(world.directory.revision(), before + 1);
    world.announce(&link, &tunnels);
    assert_eq!(world.directory.revision(), before + 1);
}

#[tokio::test]
async fn an_endless_announcement_has_a_bounded_response() {
    let world = world();
    let (link, _) = world.register("one", "web").await;
    let tunnels: Vec<_> = (0..10_000).map(|n| tunnel(&format!("t{n}"), &[])).collect();
    let results = world.announce(&link, &tunnels);
    let accepted = results.iter().filter(|result| result.error.is_none());
    assert_eq!((accepted.count(), results.len()), (3, 103));
}

/// Owners are kept across a restart; names that were in use are kept for the retention from the start on.
#[tokio::test]
async fn p_1_9_a_restart_of_the_server_hands_no_name_over() {
    let dir = tempfile::tempdir().unwrap();
    let file = NamesFile::in_dir(dir.path());
    {
        let world = world();
        let (_, _guard) = world
            .serve_as("ann", "alice", &[tunnel("web", &["shop.test"])])
            .await;
        file.write(world.directory.owners()).unwrap();
    }
    let users = ["ann", "bob"].map(|user| UserName::parse(user).unwrap());
    // Names of a removed user are released.
    let other = world();
    assert_eq!(
        other
            .directory
            .restore(file.read().unwrap(), &users[1..].iter().cloned().collect()),
        0
    );
    assert!(other.directory.owners().is_empty());
    let world = world();
    assert_eq!(
        world
            .directory
            .restore(file.read().unwrap(), &users.iter().cloned().collect()),
        0
    );
    world.refusal("bob", "bob2", "alice").await;
    let (bob, _) = world.enter("bob", "bob", "bob").await.unwrap();
    let result = &world.announce(&bob, &[tunnel("mine", &["shop.test"])])[0];
    assert_eq!(code(result), "name_taken");
    assert!(
        text(result).contains("tunnel `web` of group `alice`"),
        "{result:?}"
    );
    let (_, _guard) = world
        .serve_as("ann", "alice", &[tunnel("web", &["shop.test"])])
        .await;
}

#[tokio::test]
async fn a_release_frees_unused_names() {
    let world = world();
    let now = Instant::now();
    let shop = [tunnel("web", &["shop.test"])];
    let (alice, guard) = world.serve_as("ann", "alice", &shop).await;
    let host = name("host", "shop.test");
    let refused = world.directory.release(&host, now).unwrap_err();
    assert!(refused.contains("client `alice`"), "{refused}");
    assert!(
        world
            .directory
            .release(&name("group", "alice"), now)
            .is_err()
    );
    drop(guard);
    world.lose(&alice);
    let mut freed = world.directory.freed();
    freed.mark_unchanged();
    assert_eq!(world.directory.release(&host, now), Ok(1));
    assert!(freed.has_changed().unwrap());
    assert_eq!(world.directory.release(&host, now), Ok(0));
    // Two names: the group, and the client id in it.
    assert_eq!(world.directory.release(&name("group", "alice"), now), Ok(2));
    let (_, _guard) = world.serve_as("bob", "alice", &shop).await;
}

/// In any order of changes, a host has one group, the user of a tunnel is that of its group, and the routes are those
/// of the tunnels. The random numbers are the same each time.
#[tokio::test]
async fn names_have_one_owner_whatever_happens() {
    let world = world();
    let mut dice = 11_u64;
    let mut roll = |bound: u64| {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((dice >> 33) % bound).unwrap()
    };
    let hosts = ["a.test", "b.test", "*.a.localhost"];
    let users = ["ann", "bob", "eve"];
    let mut links: Vec<Option<(Arc<Link>, usize)>> = vec![None; 6];
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..2_000 {
        let client = roll(6);
        match (roll(6), &links[client]) {
            (0, Some((link, _))) => {
                if roll(2) == 0 {
                    world.registry.drain(link);
                }
                world.lose(&link.clone());
                links[client] = None;
            }
            (1, Some((link, _))) => {
                let name = ["x", "y"][roll(2)];
                world.directory.withdraw(link, name, Instant::now());
            }
            (_, None) => {
                let user = roll(3);
                let group = ["g", "h", "i"][roll(3)];
                let id = format!("{}{client}", users[user]);
                if let Ok((link, _)) = world.enter(users[user], &id, group).await {
                    links[client] = Some((link, user));
                }
            }
            (_, Some((link, _))) => {
                let location = ["/", "/p"][roll(2)];
                let tunnel = below(["x", "y"][roll(2)], hosts[roll(3)], location);
                match code(&world.announce(link, &[tunnel])[0]) {
                    "" => accepted += 1,
                    "name_taken" => refused += 1,
                    other => panic!("{other}"),
                }
            }
        }
        if roll(40) == 0 {
            for host in hosts {
                let _ = world.directory.release(&name("host", host), Instant::now());
            }
            for group in ["g", "h", "i"] {
                let _ = world
                    .directory
                    .release(&name("group", group), Instant::now());
            }
        }
        let tunnels = world.directory.tunnels();
        let mut groups: HashMap<String, &GroupId> = HashMap::new();
        for (tunnel, _) in &tunnels {
            for host in &tunnel.definition.hosts {
                let group = groups.entry(host.to_string()).or_insert(&tunnel.key.group);
                assert_eq!(**group, tunnel.key.group, "{host}");
            }
        }
        let routes: usize = tunnels
            .iter()
            .map(|(tunnel, _)| tunnel.definition.routes())
            .sum();
        assert_eq!(world.directory.snapshot().routes.len(), routes);
        for (link, user) in links.iter().flatten() {
            for (other, other_user) in links.iter().flatten() {
                if link.grant().group() == other.grant().group() {
                    assert_eq!(user, other_user);
                }
            }
        }
    }
    assert!(accepted > 100 && refused > 100, "{accepted}, {refused}");
    for (link, _) in links.iter().flatten() {
        world.lose(link);
    }
    world.directory.forget(Instant::now() + RETENTION * 2);
    assert_eq!(
        (world.names().len(), world.directory.owners().len()),
        (0, 0)
    );
    assert_eq!(world.directory.snapshot().routes.len(), 0);
}
