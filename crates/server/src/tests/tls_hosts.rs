//! Hosts whose TLS a tunnel has, beside those of other tunnels and of the rules.

use adit_proto::VisitorTls;
use adit_tls::Certificates;

use super::*;
use crate::{
    directory::HttpsUrls,
    settings::{RuleSettings, RuleTarget},
};

fn tls(name: &str, host: &str, kind: VisitorTls) -> Announced {
    Announced {
        name: name.into(),
        protocol_type: ProtocolType::Tcp.into(),
        domains: vec![host.into()],
        visitor_tls: kind.into(),
        ..Announced::default()
    }
}

fn rule(host: &str) -> RuleSettings {
    RuleSettings {
        host: Some(host.into()),
        path: None,
        headers: Vec::new(),
        grpc: None,
        to: RuleTarget::Tunnel("any".into()),
        layers: Vec::new(),
    }
}

/// A server with HTTPS and these rules.
fn https_world(rules: &[RuleSettings]) -> World {
    let world = world_of(None, own_address(), PortRanges::default(), rules);
    world.directory.set_config(|config| {
        config.https = Some(HttpsUrls {
            port: 443,
            certificates: Certificates::new(),
            acme: None,
        });
    });
    world
}

#[tokio::test]
async fn p_14_8_the_most_specific_host_decides() {
    let world = https_world(&[]);
    let tunnels = [
        tls("closed", "*.web.localhost", VisitorTls::PassThrough),
        tunnel("open", &["*.dev.web.localhost", "www.web.localhost"]),
        tls("exact", "a.dev.web.localhost", VisitorTls::PassThrough),
    ];
    let (_, _guard) = world.serve("one", "web", &tunnels).await;
    for host in [
        "a.web.localhost",
        "A.WEB.localhost",
        "a.dev.web.localhost",
        "dev.web.localhost",
    ] {
        assert!(world.directory.passes_through(host), "{host}");
    }
    for host in [
        "b.dev.web.localhost",
        "www.web.localhost",
        "web.localhost",
        "a.test",
        "::",
    ] {
        assert!(!world.directory.passes_through(host), "{host}");
    }
}

/// Regression: tunnels passed through or terminated the TLS of hosts that rules of the server have.
#[tokio::test]
async fn p_1_9_tunnels_do_not_have_the_tls_of_a_rules_host() {
    let world = https_world(&[rule("admin.web.localhost")]);
    let (link, _) = world.register("one", "web").await;
    for kind in [VisitorTls::PassThrough, VisitorTls::Terminate] {
        for host in ["admin.web.localhost", "*.web.localhost"] {
            let results = world.announce(&link, &[tls("one", host, kind)]);
            assert_eq!(code(&results[0]), "name_taken", "{host}");
            let error = results[0].error.as_ref().unwrap();
            let says = "host `admin.web.localhost` belongs to a rule of the server";
            assert!(error.message.contains(says), "{error:?}");
        }
    }
    let results = world.announce(
        &link,
        &[tls("one", "b.web.localhost", VisitorTls::PassThrough)],
    );
    assert_eq!(code(&results[0]), "");
    assert!(world.directory.passes_through("b.web.localhost"));
    assert!(!world.directory.passes_through("admin.web.localhost"));
}

/// Regression: any user could take `/login` of a host that a rule of the server has whole.
#[tokio::test]
async fn p_1_9_tunnels_get_no_path_below_that_of_a_rule() {
    let world = https_world(&[rule("admin.localhost")]);
    let (link, _) = world.register("one", "web").await;
    let login = Announced {
        locations: vec!["/login".into()],
        ..tunnel("login", &["admin.localhost"])
    };
    let results = world.announce(&link, &[login]);
    assert_eq!(code(&results[0]), "name_taken");
}

#[tokio::test]
async fn a_new_rule_does_not_take_the_host_of_a_tunnel() {
    let world = https_world(&[]);
    let tunnels = [tls("closed", "*.web.localhost", VisitorTls::PassThrough)];
    let (_, _guard) = world.serve("one", "web", &tunnels).await;
    let (shortcuts, upstreams) = (Shortcuts::none(), Upstreams::none().current());
    let rules = [rule("x.test"), rule("admin.web.localhost")];
    let set = |rules: &[RuleSettings]| {
        let targets = (&shortcuts, &*upstreams);
        world.directory.set_rules(rules, targets, Instant::now())
    };
    let error = set(&rules).unwrap_err().to_string();
    assert!(
        error.starts_with("rule 2: tunnel `closed` of group `web`"),
        "{error}"
    );
    set(&rules[..1]).unwrap();
}
