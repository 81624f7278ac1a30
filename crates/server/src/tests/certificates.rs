//! The hosts for which certificates are obtained, and the notes of tunnels that request them.

use adit_acme::{Ca, Settings as AcmeSettings, Validation};
use adit_tls::Certificates;

use super::*;
use crate::directory::HttpsUrls;

fn acme(validation: Validation) -> Arc<AcmeSettings> {
    let ca = Ca::new("https://ca.example/directory").unwrap();
    Arc::new(AcmeSettings::new(ca, validation))
}

impl World {
    fn set_https(&self, acme: Option<Arc<AcmeSettings>>) {
        self.directory.set_config(|config| {
            config.https = Some(HttpsUrls {
                port: 443,
                certificates: Certificates::new(),
                acme,
            });
        });
    }
}

fn wanting(name: &str, domains: &[&str]) -> Announced {
    Announced {
        obtain_certificates: true,
        ..tunnel(name, domains)
    }
}

fn passing(name: &str, domains: &[&str]) -> Announced {
    Announced {
        protocol_type: ProtocolType::Tcp.into(),
        visitor_tls: adit_proto::VisitorTls::PassThrough.into(),
        ..tunnel(name, domains)
    }
}

#[tokio::test]
async fn p_14_10_a_tunnel_that_gets_no_certificate_is_accepted_with_a_note() {
    let world = world();
    let (link, _) = world.register("office", "office").await;
    let note = |tunnel: Announced| {
        let result = world.announce(&link, &[tunnel]).remove(0);
        assert_eq!(result.error, None);
        world
            .directory
            .withdraw(&link, &result.name, Instant::now());
        result.note
    };
    let own = || wanting("web", &["app.example.com"]);
    assert!(note(own()).contains("`server.https`"), "{}", note(own()));
    world.set_https(None);
    let text = note(own());
    assert!(text.contains("`server.https.acme` is not set"), "{text}");
    world.set_https(Some(acme(Validation::Http01)));
    assert_eq!(note(own()), "");
    assert_eq!(
        note(tunnel("web", &["*.x.example.com"])),
        "",
        "it requests nothing"
    );
    assert_eq!(
        note(wanting("web", &[])),
        "",
        "it has a host of the server's domain"
    );
    for (tunnel, part) in [
        (wanting("web", &["*.x.example.com"]), "dns-01"),
        (wanting("web", &["web.localhost"]), "public name"),
        (
            Announced {
                remote_port: 8081,
                ..wanting("web", &[])
            },
            "no `domain`",
        ),
    ] {
        let text = note(tunnel);
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn a_host_whose_tls_is_passed_through_needs_no_certificate() {
    let world = world();
    world.set_https(Some(acme(Validation::Http01)));
    let tunnels = [
        passing("exact", &["a.example.com"]),
        passing("wild", &["*.wild.example.com"]),
        wanting("web", &["a.example.com"]),
    ];
    let (link, _guard) = world.serve("office", "office", &tunnels).await;
    let obstacle = |host: &str, is_for_port, validation: &Validation| {
        world
            .directory
            .certificate_obstacle(host, is_for_port, validation)
    };
    let http01 = Validation::Http01;
    let text = obstacle("a.example.com", false, &http01).unwrap();
    assert!(text.contains("a.example.com is passed through"), "{text}");
    assert_eq!(obstacle("a.example.com", true, &http01), None);
    assert!(obstacle("a.example.com", true, &Validation::TlsAlpn01).is_some());
    assert_eq!(obstacle("b.example.com", false, &http01), None);
    assert!(obstacle("*.wild.example.com", false, &http01).is_some());
    assert_eq!(obstacle("*.example.com", false, &http01), None);
    // The tunnel for requests is announced again, and knows now.
    let result = world.announce(&link, &[wanting("web", &["a.example.com"])]);
    assert!(
        result[0].note.contains("passed through"),
        "{}",
        result[0].note
    );
}

#[tokio::test]
async fn hosts_have_their_users_and_their_requests() {
    let world = world();
    let terminating = Announced {
        visitor_tls: adit_proto::VisitorTls::Terminate.into(),
        ..passing("db", &["db.example.com"])
    };
    let tunnels = [
        wanting("web", &["a.example.com"]),
        terminating,
        passing("tls", &["tls.example.com"]),
    ];
    world.set_https(None);
    let (_link, _guard) = world.serve("office", "office", &tunnels).await;
    let mut hosts = world.directory.certificate_hosts();
    hosts.sort_by(|a, b| a.host.cmp(&b.host));
    let facts: Vec<_> = hosts
        .iter()
        .map(|host| {
            (
                &*host.host,
                &*host.user,
                host.is_requested,
                host.is_for_port,
            )
        })
        .collect();
    assert_eq!(
        facts,
        [
            ("a.example.com", "ann", true, false),
            ("db.example.com", "ann", false, true)
        ]
    );
}
