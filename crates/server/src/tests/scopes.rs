//! What the scopes of a client allow it to announce, and the end of its link with its credential.

use adit_auth::{Credential, NoRecords, Scopes, StaticToken};

use super::*;
use crate::{identities::Identities, settings::Settings};

const TOKEN: &str = "a-token-of-some-length";

fn tokens(scopes: &str) -> Settings {
    let any = ([127, 0, 0, 1], 0).into();
    let mut settings = Settings::new(any, any);
    settings.tokens = vec![StaticToken {
        user: UserName::parse("ann").unwrap(),
        token: TOKEN.into(),
        scopes: serde_json::from_str::<Scopes>(scopes).unwrap(),
    }];
    settings
}

fn replace(identities: &Identities, settings: &Settings) {
    identities.replace(identities.prepare(settings).unwrap());
}

/// The grant of a client of `ann`.
fn grant(authenticator: &dyn Authenticator) -> Grant {
    grant_of("office-1", authenticator)
}

fn grant_of(client: &str, authenticator: &dyn Authenticator) -> Grant {
    grant_by(TOKEN, client, authenticator)
}

fn grant_by(token: &str, client: &str, authenticator: &dyn Authenticator) -> Grant {
    let claim = ClientClaim {
        client_id: ClientId::parse(client).unwrap(),
        group_id: GroupId::parse("office").unwrap(),
    };
    let attempt = Attempt {
        credential: &Credential::Token(token.into()),
        claim: &claim,
        address: [127, 0, 0, 1].into(),
        now: SystemTime::now(),
    };
    authenticator.authenticate(&attempt).unwrap()
}

async fn link(world: &World, scopes: &str) -> Arc<Link> {
    let principals = Identities::start(&tokens(scopes), Arc::new(NoRecords)).unwrap();
    let (link, _) = world.enter_with(grant(&*principals)).await.ok().unwrap();
    link.set_capabilities(ALL.iter().map(ToString::to_string).collect());
    link
}

fn port(name: &str, protocol: ProtocolType, remote_port: u32) -> Announced {
    Announced {
        name: name.into(),
        protocol_type: protocol.into(),
        remote_port,
        ..Announced::default()
    }
}

#[tokio::test]
async fn p_1_18_a_tunnel_outside_the_scopes_is_refused_with_the_scope() {
    let world = world();
    let scopes = r#"{"tunnels": ["web*"], "hosts": ["*.example.com"], "ports": ["40000-40001"],
        "protocols": ["http", "tcp"]}"#;
    let link = link(&world, scopes).await;
    for (announced, scope) in [
        (tunnel("shop", &["a.example.com"]), "`tunnels` allows web*"),
        (
            tunnel("web", &["example.com"]),
            "`hosts` allows *.example.com",
        ),
        (
            tunnel("web", &["a.b.example.com"]),
            "`hosts` allows *.example.com",
        ),
        (
            port("web", ProtocolType::Tcp, 40_002),
            "`ports` allows 40000-40001",
        ),
        (
            port("web", ProtocolType::Udp, 40_000),
            "`protocols` allows http, tcp",
        ),
    ] {
        let result = world.announce(&link, &[announced]).remove(0);
        assert_eq!(code(&result), "forbidden");
        let text = result.error.unwrap().message;
        assert!(text.contains(scope), "{text}");
        assert!(text.contains("user `ann`"), "{text}");
    }
    let inside = tunnel("web-1", &["a.example.com", "b.example.com"]);
    assert_eq!(code(&world.announce(&link, &[inside]).remove(0)), "");
}

#[tokio::test]
async fn p_1_18_a_tunnel_without_a_domain_gets_the_hosts_that_its_scopes_allow() {
    let world = world_with(Some("example.com"), own_address(), PortRanges::default());
    let link = link(&world, r#"{"hosts": ["*.example.com"]}"#).await;
    let result = world.announce(&link, &[tunnel("web", &[])]).remove(0);
    assert_eq!(code(&result), "", "{result:?}");
    assert!(result.public_url.contains("web.example.com"), "{result:?}");
    assert!(world.direct("web.localhost", &[]).await.is_err());
}

#[tokio::test]
async fn p_1_18_the_refusal_names_the_host_of_the_servers_domain() {
    let world = world_with(Some("example.com"), own_address(), PortRanges::default());
    let link = link(&world, r#"{"hosts": ["*.example.net"]}"#).await;
    let result = world.announce(&link, &[tunnel("web", &[])]).remove(0);
    let text = result.error.unwrap().message;
    assert!(text.contains("host `web.example.com`"), "{text}");
}

#[tokio::test]
async fn p_1_18_the_server_picks_a_port_that_the_scopes_allow() {
    let world = world();
    let link = link(&world, r#"{"ports": ["40123-40150"]}"#).await;
    let result = world
        .announce(&link, &[port("ssh", ProtocolType::Tcp, 0)])
        .remove(0);
    assert_eq!(code(&result), "", "{result:?}");
    let picked = result.public_url.rsplit(':').next().unwrap();
    let picked: u16 = picked.parse().unwrap();
    assert!((40_123..=40_150).contains(&picked), "{picked}");
}

#[tokio::test]
async fn p_1_18_a_picked_port_outside_narrower_scopes_is_given_up() {
    let world = world();
    let ssh = || port("ssh", ProtocolType::Tcp, 0);
    let wide = link(&world, r#"{"ports": ["40200-40210"]}"#).await;
    let first = world.announce(&wide, &[ssh()]).remove(0).public_url;
    // The same client registers again, with narrower scopes.
    let narrow = link(&world, r#"{"ports": ["40220-40230"]}"#).await;
    let result = world.announce(&narrow, &[ssh()]).remove(0);
    assert_eq!(code(&result), "", "{result:?}");
    let picked = result.public_url.rsplit(':').next().unwrap();
    let picked: u16 = picked.parse().unwrap();
    assert!((40_220..=40_230).contains(&picked), "{first} {picked}");
}

#[tokio::test]
async fn p_1_18_the_scopes_bound_the_clients_of_a_user() {
    let world = world();
    let scopes = r#"{"max_clients": 1}"#;
    let first = link(&world, scopes).await;
    // A client that drains has its place until it has ended.
    world.registry.drain(&first);
    let principals = Identities::start(&tokens(scopes), Arc::new(NoRecords)).unwrap();
    let grant = grant_of("office-2", &*principals);
    let channel = (ChannelId::next(), ([127, 0, 0, 1], 1).into());
    let instance = InstanceSecret::from_random([1; 32]).key();
    let session = SessionToken::from_random(rand::random()).key();
    let refused = world
        .registry
        .register(grant, instance, session, channel, 1)
        .await;
    let text = refused.err().unwrap().to_string();
    assert!(text.contains("`max_clients`"), "{text}");
}

#[tokio::test]
async fn p_1_18_the_scopes_bound_the_number_of_tunnels() {
    let world = world();
    let link = link(&world, r#"{"max_tunnels": 1}"#).await;
    let two = [tunnel("web", &[]), tunnel("shop", &[])];
    let results = world.announce(&link, &two);
    assert_eq!(results.iter().map(code).collect::<Vec<_>>(), ["", "limit"]);
    let text = &results[1].error.as_ref().unwrap().message;
    assert!(text.contains("`max_tunnels` of its scopes"), "{text}");
}

#[tokio::test]
async fn a_link_ends_with_its_credential_at_the_next_open() {
    let world = world();
    let identities = Identities::start(&tokens("{}"), Arc::new(NoRecords)).unwrap();
    let authorization = Authorization::new(identities.clone(), world.registry.clone());
    let (link, _) = world.enter_with(grant(&*identities)).await.ok().unwrap();
    assert!(authorization.holds(&link));
    replace(&identities, &tokens("{}"));
    assert!(authorization.holds(&link));
    // Changed scopes end the link too: the client registers again with the new ones.
    replace(&identities, &tokens(r#"{"max_tunnels": 1}"#));
    assert!(!authorization.holds(&link));
    assert!(link.is_ended());
    assert!(world.registry.links().is_empty());
}

#[tokio::test]
async fn p_1_22_a_renewed_credential_is_checked_whenever_the_link_was_checked_last() {
    let world = world();
    let identities = Identities::start(&tokens("{}"), Arc::new(NoRecords)).unwrap();
    let authorization = Authorization::new(identities.clone(), world.registry.clone());
    let (link, _) = world.enter_with(grant(&*identities)).await.ok().unwrap();
    assert!(authorization.holds(&link));
    // A credential that was revoked between its check and the renewal.
    let mut before = tokens("{}");
    before.tokens[0].token = "another-token-of-ann".into();
    let before = Identities::start(&before, Arc::new(NoRecords)).unwrap();
    let revoked = grant_by("another-token-of-ann", "office-1", &*before);
    link.grant().renew(&revoked).unwrap();
    assert!(!authorization.look(&link));
    assert!(link.is_ended());
}

#[tokio::test]
async fn all_links_of_a_revoked_token_end() {
    let world = world();
    let identities = Identities::start(&tokens("{}"), Arc::new(NoRecords)).unwrap();
    let authorization = Authorization::new(identities.clone(), world.registry.clone());
    let (link, _) = world.enter_with(grant(&*identities)).await.ok().unwrap();
    assert_eq!(authorization.end_lapsed(SystemTime::now()), 0);
    let mut none = tokens("{}");
    none.tokens.clear();
    replace(&identities, &none);
    assert_eq!(authorization.end_lapsed(SystemTime::now()), 1);
    assert!(link.is_ended());
}
