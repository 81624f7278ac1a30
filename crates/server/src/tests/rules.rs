//! Rules of the configuration that change, and rules to tunnels that no client has announced.

use super::*;
use crate::{
    directory::{Owner, RuleError},
    names::Claimant,
    settings::{
        RuleTarget,
        layers::{HeaderEdit, LayerConfig},
    },
};

fn rule(host: &str, name: &str) -> RuleSettings {
    RuleSettings {
        host: Some(host.into()),
        path: None,
        headers: Vec::new(),
        grpc: None,
        to: RuleTarget::Tunnel(name.into()),
        layers: Vec::new(),
    }
}

impl World {
    fn set_rules(&self, rules: &[RuleSettings]) -> Result<(), RuleError> {
        let (shortcuts, upstreams) = (Shortcuts::none(), Upstreams::none().current());
        let targets = (&shortcuts, &*upstreams);
        self.directory.set_rules(rules, targets, Instant::now())
    }

    /// The group of the tunnel that a host selects.
    async fn group_of(&self, host: &str) -> Option<String> {
        let directed = self.direct(host, &[]).await.ok()?;
        Some(directed.grant.group().to_string())
    }
}

#[tokio::test(start_paused = true)]
async fn changed_rules_lead_to_tunnels_that_are_there() {
    let world = world();
    let (_link, _guard) = world
        .serve_as("ann", "alice", &[tunnel("web", &["a.test"])])
        .await;
    assert_eq!(world.group_of("rule.test").await, None);
    // More rules than at the start: the additional ones have higher numbers than those of the tunnel.
    world
        .set_rules(&[
            rule("rule.test", "web"),
            rule("*.rule.test", "web"),
            rule("b.test", "gone"),
        ])
        .unwrap();
    assert_eq!(world.group_of("rule.test").await.as_deref(), Some("alice"));
    assert_eq!(
        world.group_of("x.rule.test").await.as_deref(),
        Some("alice")
    );
    world.set_rules(&[rule("b.test", "web")]).unwrap();
    assert_eq!(world.group_of("rule.test").await, None);
    assert_eq!(world.group_of("b.test").await.as_deref(), Some("alice"));
    assert_eq!(world.group_of("a.test").await.as_deref(), Some("alice"));
    let rules = world.directory.snapshot().routes.len();
    world.set_rules(&[]).unwrap();
    assert_eq!(world.directory.snapshot().routes.len(), rules - 1);
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_contradicts_a_tunnel_changes_nothing() {
    let world = world();
    let (_link, _guard) = world
        .serve_as("ann", "alice", &[tunnel("web", &["a.test"])])
        .await;
    world.set_rules(&[rule("rule.test", "web")]).unwrap();
    let revision = world.directory.revision();
    let rejected = world.set_rules(&[rule("b.test", "web"), rule("a.test", "other")]);
    let rejected = rejected.unwrap_err();
    assert_eq!(rejected.index, 2);
    assert!(
        rejected.problem.contains("tunnel `web` of group `alice`"),
        "{rejected}"
    );
    assert_eq!(world.directory.revision(), revision);
    assert_eq!(world.group_of("rule.test").await.as_deref(), Some("alice"));
    assert_eq!(world.group_of("b.test").await, None);
    let twice = world.set_rules(&[rule("c.test", "web"), rule("c.test", "other")]);
    assert_eq!(twice.unwrap_err().index, 2);
}

fn marks(name: &str) -> adit_proto::Layer {
    let line = adit_proto::Header {
        name: "x-mark".into(),
        value: name.to_owned().into(),
    };
    let edit = adit_proto::HeaderEdit {
        add: vec![line],
        ..Default::default()
    };
    adit_proto::Layer {
        kind: Some(adit_proto::layer::Kind::RequestHeaders(edit)),
        ..adit_proto::Layer::default()
    }
}

fn with_layers(announced: Announced, names: &[&str]) -> Announced {
    Announced {
        layers: names.iter().map(|name| marks(name)).collect(),
        ..announced
    }
}

#[tokio::test(start_paused = true)]
async fn p_1_16_requests_pass_the_layers_of_rule_and_tunnel() {
    let world = world();
    let web = with_layers(tunnel("web", &["a.test"]), &["one", "two"]);
    let (link, _guard) = world.serve_as("ann", "alice", &[web]).await;
    let mut edit = HeaderEdit::default();
    edit.remove(b"x-a").unwrap();
    let by_rule = RuleSettings {
        layers: vec![LayerConfig::RequestHeaders(edit)],
        ..rule("rule.test", "web")
    };
    let rules = [by_rule, rule("plain.test", "web")];
    world.set_rules(&rules).unwrap();
    let layers = async |host: &str| world.direct(host, &[]).await.unwrap().layers.len();
    assert_eq!(layers("a.test").await, 2);
    assert_eq!(layers("plain.test").await, 2);
    assert_eq!(layers("rule.test").await, 3);
    // The next request passes the layers of the tunnel as it is announced then.
    let changed = with_layers(tunnel("web", &["a.test"]), &["one"]);
    assert_eq!(code(&world.announce(&link, &[changed])[0]), "");
    assert_eq!(layers("a.test").await, 1);
    assert_eq!(layers("rule.test").await, 2);
    let plain = tunnel("web", &["a.test"]);
    assert_eq!(code(&world.announce(&link, &[plain])[0]), "");
    assert_eq!(layers("a.test").await, 0);
    assert_eq!(layers("rule.test").await, 1);
}

#[tokio::test(start_paused = true)]
async fn p_1_16_a_tunnel_with_an_unknown_layer_is_refused() {
    let world = world();
    let (link, _guard) = world.serve_as("ann", "alice", &[]).await;
    let mut web = with_layers(tunnel("web", &["a.test"]), &["one"]);
    web.layers.push(adit_proto::Layer::default());
    let results = world.announce(&link, &[web, tunnel("other", &["b.test"])]);
    assert_eq!((code(&results[0]), code(&results[1])), ("bad_request", ""));
}

/// P-1.9: as at a start of the server with these rules, one user owns the name.
#[tokio::test(start_paused = true)]
async fn p_1_9_a_name_that_a_new_rule_gives_has_one_owner() {
    let world = world();
    let (alice, guard) = world
        .serve_as("ann", "alice", &[tunnel("web", &["a.test"])])
        .await;
    let (bob, _guard) = world
        .serve_as("bob", "bob", &[tunnel("web", &["b.test"])])
        .await;
    world.set_rules(&[rule("rule.test", "web")]).unwrap();
    assert_eq!(world.group_of("rule.test").await.as_deref(), Some("alice"));
    let refused = world.announce(&bob, &[tunnel("web", &["b.test"])]);
    assert_eq!(code(&refused[0]), "name_taken");
    assert_eq!(world.group_of("b.test").await.as_deref(), Some("bob"));
    // Bob's tunnel with that name does not end Alice's use of it, and its removal does not change the target of the
    // rule.
    assert!(world.directory.withdraw(&bob, "web", Instant::now()));
    assert_eq!(world.group_of("rule.test").await.as_deref(), Some("alice"));
    drop(guard);
    world.lose(&alice);
    let refused = world.announce(&bob, &[tunnel("web", &["b.test"])]);
    assert_eq!(code(&refused[0]), "name_taken");
    // Without the rule the name has no owner again, once the retention is over.
    world.set_rules(&[]).unwrap();
    world.directory.forget(Instant::now() + RETENTION + SECOND);
    let accepted = world.announce(&bob, &[tunnel("web", &["b.test"])]);
    assert_eq!(code(&accepted[0]), "");
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_without_link_waits_for_its_group() {
    let world = world();
    let owner = Owner {
        claimant: Claimant {
            user: UserName::parse("ann").unwrap(),
            group: GroupId::parse("office").unwrap(),
        },
        link: None,
    };
    let announced = tunnel("web", &["a.test"]);
    let created = world
        .directory
        .create_one(&owner, &announced, Instant::now());
    assert_eq!(created.as_deref(), Ok("http://a.test"));
    let refused = world
        .serve_as_refused("bob", &tunnel("web", &["a.test"]))
        .await;
    assert_eq!(refused, "name_taken");
    let (_link, _guard) = world.serve("alice", "office", &[announced]).await;
    assert_eq!(world.group_of("a.test").await.as_deref(), Some("office"));
}

impl World {
    async fn serve_as_refused(&self, user: &str, announced: &Announced) -> String {
        let (link, _) = self.enter(user, user, user).await.unwrap();
        let results = self.announce(&link, std::slice::from_ref(announced));
        code(&results[0]).to_owned()
    }
}

impl World {
    /// The number of layers that a request for a path passes.
    async fn layers_at(&self, host: &str, path: &str) -> Result<usize, Failure> {
        let input = RouteInput {
            protocol: adit_codec::ProtocolType::Http,
            port: None,
            authority: host,
            path,
            headers: &http::HeaderMap::new(),
            visitor: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        };
        let destination = match self.director.direct_request(input, &[]) {
            Direction::Go(destination) => destination,
            Direction::Wait(wait) => wait.await?,
            Direction::Fail(failure) => return Err(failure),
        };
        Ok(destination.layers.len())
    }
}

fn guarding(rule: RuleSettings) -> RuleSettings {
    let mut edit = HeaderEdit::default();
    edit.remove(b"x-a").unwrap();
    RuleSettings {
        layers: vec![LayerConfig::RequestHeaders(edit)],
        ..rule
    }
}

#[tokio::test(start_paused = true)]
async fn p_3_14_another_spelling_of_a_path_does_not_avoid_the_layers_of_a_rule() {
    let world = world();
    let (_link, _guard) = world
        .serve_as("ann", "alice", &[tunnel("web", &["a.test", "b.test"])])
        .await;
    let admin = RuleSettings {
        path: Some("/admin".into()),
        ..rule("a.test", "web")
    };
    world.set_rules(&[guarding(admin)]).unwrap();
    assert_eq!(world.layers_at("a.test", "/admin/x").await.unwrap(), 1);
    assert_eq!(world.layers_at("a.test", "/x%2fy;z").await.unwrap(), 0);
    for path in [
        "/x/../admin",
        "/./admin",
        "//admin",
        "/%61dmin",
        "/x/%2e%2e/admin",
        "/admin;x",
        "/admin%2fx",
    ] {
        let failure = world.layers_at("a.test", path).await.unwrap_err();
        assert_eq!(failure.reason, Reason::BadRequest, "{path}");
        assert_eq!(world.layers_at("b.test", path).await.unwrap(), 0, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn p_3_14_layers_of_a_grpc_rule_apply_whatever_the_content_type() {
    let world = world();
    let (_link, _guard) = world
        .serve_as("ann", "alice", &[tunnel("web", &["a.test", "b.test"])])
        .await;
    let call = |host| RuleSettings {
        grpc: Some("p.S/M".into()),
        ..rule(host, "web")
    };
    let rules = [guarding(call("a.test")), call("b.test")];
    world.set_rules(&rules).unwrap();
    assert_eq!(world.layers_at("a.test", "/p.S/M").await.unwrap(), 1);
    assert_eq!(world.layers_at("a.test", "/p.S/N").await.unwrap(), 0);
    assert_eq!(world.layers_at("b.test", "/p.S/M").await.unwrap(), 0);
}
