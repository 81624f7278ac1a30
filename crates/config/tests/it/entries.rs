//! Upstreams of a server and entries of a client, valid and invalid. F08.

use std::time::Duration;

use adit_auth::TunnelName;
use adit_balance::Policy;
use adit_client::{Compression, EntryKind, EntrySettings, TrustedProxies};
use adit_config::{ClientOverrides, ConfigError, ServerOverrides, load_client, load_server};
use adit_server::{RuleTarget, UpstreamProtocol, UpstreamServer, UpstreamSettings};

fn variables(extra: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> + use<> {
    let mut all = vec![
        ("HOME".to_owned(), "/nonexistent".to_owned()),
        ("HOSTNAME".to_owned(), "box".to_owned()),
        ("ADIT__TOKEN".to_owned(), "a-token".to_owned()),
    ];
    all.extend(extra.iter().map(|(n, v)| ((*n).into(), (*v).into())));
    all.into_iter()
}

fn server(text: &str) -> Result<adit_server::Settings, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.yaml");
    std::fs::write(&file, text).unwrap();
    load_server(Some(&file), variables(&[]), &ServerOverrides::default())
        .map(|loaded| loaded.settings)
}

fn client(text: &str) -> Result<adit_client::Settings, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("client.yaml");
    std::fs::write(&file, text).unwrap();
    load_client(Some(&file), variables(&[]), &ClientOverrides::default())
        .map(|loaded| loaded.settings)
}

fn name(name: &str) -> TunnelName {
    TunnelName::parse(name).unwrap()
}

fn at(host: &str, port: u16, weight: u32) -> UpstreamServer {
    UpstreamServer {
        host: host.into(),
        port,
        weight,
    }
}

/// The example of the documentation, and an upstream with every key.
#[test]
fn upstreams_are_read() {
    let settings = server(
        r#"
server:
  upstreams:
    - { name: erp, policy: round_robin, compression: zstd, servers: [{ address: "127.0.0.1:9001", weight: 1 }] }
    - name: mail
      protocol: tcp
      policy: weighted
      servers:
        - { address: "Mail.Example.:25", weight: 3 }
        - { address: "[::1]:2525" }
    - name: app
      protocol: h2c
      policy: consistent_hash
      hash_on: "cookie:user"
      host_rewrite: app.internal
      servers: [{ address: app-1:80 }]
"#,
    )
    .unwrap();
    assert_eq!(
        settings.upstreams,
        [
            UpstreamSettings {
                name: name("erp"),
                policy: Policy::RoundRobin,
                hash_on: "host".into(),
                protocol: UpstreamProtocol::Http1,
                tls: None,
                host_rewrite: None,
                compression: Some(Compression::Zstd),
                servers: vec![at("127.0.0.1", 9001, 1)],
            },
            UpstreamSettings {
                name: name("mail"),
                policy: Policy::WeightedRoundRobin,
                hash_on: "host".into(),
                protocol: UpstreamProtocol::Tcp,
                tls: None,
                host_rewrite: None,
                compression: None,
                servers: vec![at("mail.example", 25, 3), at("::1", 2525, 1)],
            },
            UpstreamSettings {
                name: name("app"),
                policy: Policy::ConsistentHash,
                hash_on: "cookie:user".into(),
                protocol: UpstreamProtocol::Http2,
                tls: None,
                host_rewrite: Some("app.internal".into()),
                compression: None,
                servers: vec![at("app-1", 80, 1)],
            },
        ]
    );
    assert!(
        server("server:\n  upstreams: []\n")
            .unwrap()
            .upstreams
            .is_empty()
    );
}

#[test]
fn entries_are_read() {
    let settings = client(
        r#"
client:
  limits: { max_waiting: 7, max_entry_connections: 8, tunnel_share: 70, visitor_share: 30 }
  timeouts:
    { link_wait: 0s, permit_wait: 2s, head: 3s, session_stall: 4s,
      session_setup: 5s, session_keepalive: 0s, session_close: 6s, early_response: 7s, continue_wait: 8s, half_close: 9s, release: 10s }
  entries:
    - { name: erp, type: http, listen: "127.0.0.1:9000", upstream: erp }
    - { name: mail, type: tcp, listen: "[::]:2525", upstream: mail }
    - { name: short, listen: 9001, upstream: erp }
    - { name: any, listen: 0, upstream: erp }
    - { name: other, listen: 0, upstream: erp }
"#,
    )
    .unwrap();
    let entry = |title: &str, kind, listen: &str, upstream: &str| EntrySettings {
        name: title.into(),
        kind,
        listen: listen.parse().unwrap(),
        upstream: name(upstream),
        compression: None,
        trusted_proxies: TrustedProxies::default(),
        layers: Vec::new(),
    };
    assert_eq!(
        settings.entries,
        [
            entry("erp", EntryKind::Http, "127.0.0.1:9000", "erp"),
            entry("mail", EntryKind::Tcp, "[::]:2525", "mail"),
            entry("short", EntryKind::Http, "127.0.0.1:9001", "erp"),
            entry("any", EntryKind::Http, "127.0.0.1:0", "erp"),
            entry("other", EntryKind::Http, "127.0.0.1:0", "erp"),
        ]
    );
    let (limits, times) = (&settings.limits, &settings.timeouts);
    assert_eq!((limits.max_waiting, limits.max_entry_connections), (7, 8));
    let shares = (limits.tunnel_share_percent, limits.visitor_share_percent);
    assert_eq!(shares, (70, 30));
    let limits = adit_client::Limits::default();
    let shares = (limits.tunnel_share_percent, limits.visitor_share_percent);
    let of_server = adit_server::Limits::default();
    assert_eq!(
        shares,
        (
            of_server.tunnel_share_percent,
            of_server.visitor_share_percent
        )
    );
    assert_eq!(times.link_wait, Duration::ZERO);
    assert_eq!(times.permit_wait, Duration::from_secs(2));
    assert_eq!(times.edge.head, Duration::from_secs(3));
    assert_eq!(times.edge.session_stall, Duration::from_secs(4));
    assert_eq!(times.edge.session_setup, Duration::from_secs(5));
    assert_eq!(times.edge.session_keepalive, Duration::ZERO);
    assert_eq!(times.edge.session_close, Duration::from_secs(6));
    assert_eq!(times.edge.early_response, Duration::from_secs(7));
    assert_eq!(times.edge.continue_wait, Duration::from_secs(8));
    assert_eq!(times.edge.half_close, Duration::from_secs(9));
    assert_eq!(times.edge.release, Duration::from_secs(10));
}

#[test]
fn a_variable_may_hold_all_of_them() {
    let entries = r#"[{ name: erp, listen: "127.0.0.1:9000", upstream: erp }]"#;
    let environment = variables(&[("ADIT__CLIENT__ENTRIES", entries)]);
    let settings = load_client(None, environment, &ClientOverrides::default())
        .unwrap()
        .settings;
    assert_eq!(settings.entries.len(), 1);
    let upstreams = r#"[{ name: erp, servers: [{ address: "127.0.0.1:9001" }] }]"#;
    let environment = variables(&[("ADIT__SERVER__UPSTREAMS", upstreams)]);
    let settings = load_server(None, environment, &ServerOverrides::default())
        .unwrap()
        .settings;
    assert_eq!(settings.upstreams.len(), 1);
}

/// The printed error, without the directory.
fn message(error: &ConfigError) -> String {
    let text = error.to_string();
    let lines = text.lines().map(|line| {
        let start = line.find("server.yaml").or(line.find("client.yaml"));
        &line[start.unwrap_or(0)..]
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn bad_upstreams_are_refused_with_their_place() {
    let mut printed = String::new();
    for upstream in [
        "{ servers: [{ address: \"a:1\" }] }",
        "{ name: \"a b\", servers: [{ address: \"a:1\" }] }",
        "{ name: erp }",
        "{ name: erp, servers: [] }",
        "{ name: erp, servers: { address: \"a:1\" } }",
        "{ name: erp, servers: [\"a:1\"] }",
        "{ name: erp, servers: [{ weight: 1 }] }",
        "{ name: erp, servers: [{ address: a }] }",
        "{ name: erp, servers: [{ address: \"a:0\" }] }",
        "{ name: erp, servers: [{ address: \"a:99999\" }] }",
        "{ name: erp, servers: [{ address: \"::1:80\" }] }",
        "{ name: erp, servers: [{ address: \"http://a:80\" }] }",
        "{ name: erp, servers: [{ address: \"a_b c:80\" }] }",
        "{ name: erp, servers: [{ address: \"a:1\", weight: 0 }] }",
        "{ name: erp, servers: [{ address: \"a:1\" }, { address: \"A:1\" }] }",
        "{ name: erp, servers: [{ host: a, port: 1 }] }",
        "{ name: erp, policy: fair, servers: [{ address: \"a:1\" }] }",
        "{ name: erp, load_balance: p2c, servers: [{ address: \"a:1\" }] }",
        "{ name: erp, hash_on: colour, servers: [{ address: \"a:1\" }] }",
        "{ name: erp, protocol: udp, servers: [{ address: \"a:1\" }] }",
        "{ name: erp, protocol: tcp, host_rewrite: b, servers: [{ address: \"a:1\" }] }",
        "{ name: erp, protocol: h2c, tls: true, servers: [{ address: \"a:1\" }] }",
        "{ name: erp, protocol: h2, tls: { ca_file: \"\" }, servers: [{ address: \"a:1\" }] }",
        "{ name: erp, compression: lz4, servers: [{ address: \"a:1\" }] }",
        "{ name: erp, servers: [{ address: \"a:1\" }] }, { name: erp, servers: [{ address: \"b:1\" }] }",
    ] {
        let error = server(&format!("server:\n  upstreams: [{upstream}]\n")).unwrap_err();
        printed += &format!("{upstream}\n=> {}\n\n", message(&error));
    }
    insta::assert_snapshot!(printed);
}

/// F09, F08: each side configures the compression of the payload that it sends.
#[test]
fn entries_are_compressed_where_configured() {
    for (written, compression) in [
        ("none", None),
        ("gzip", Some(Compression::Gzip)),
        ("zstd", Some(Compression::Zstd)),
    ] {
        let entry = format!("{{ name: erp, listen: 1, upstream: erp, compression: {written} }}");
        let settings = client(&format!("client:\n  entries: [{entry}]\n")).unwrap();
        assert_eq!(settings.entries[0].compression, compression);
    }
}

#[test]
fn bad_entries_are_refused_with_their_place() {
    let mut printed = String::new();
    for entry in [
        "{ listen: 1, upstream: erp }",
        "{ name: erp, upstream: erp }",
        "{ name: erp, listen: 1 }",
        "{ name: erp, listen: \"localhost:1\", upstream: erp }",
        "{ name: erp, listen: 70000, upstream: erp }",
        "{ name: erp, listen: 1, upstream: \"127.0.0.1:9001\" }",
        "{ name: erp, listen: 1, upstream: \"erp/a\" }",
        "{ name: erp, type: udp, listen: 1, upstream: erp }",
        "{ name: erp, type: grpc, listen: 1, upstream: erp }",
        "{ name: erp, type: carrier-pigeon, listen: 1, upstream: erp }",
        "{ name: erp, bind_port: 1, upstream: erp }",
        "{ name: erp, listen: 1, upstream: erp, compression: lz4 }",
        "{ name: erp, listen: 1, to: erp }",
        "{ name: erp, listen: 1, upstream: erp }, { name: erp, listen: 2, upstream: erp }",
        "{ name: a, listen: 1, upstream: erp }, { name: b, listen: \"127.0.0.1:1\", upstream: erp }",
    ] {
        let error = client(&format!("client:\n  entries: [{entry}]\n")).unwrap_err();
        printed += &format!("{entry}\n=> {}\n\n", message(&error));
    }
    let error = client("client:\n  upstreams: []\n").unwrap_err();
    printed += &format!("upstreams\n=> {}\n", message(&error));
    insta::assert_snapshot!(printed);
}

/// F25: the target of a rule may be a defined upstream of HTTP.
#[test]
fn rules_lead_to_upstreams() {
    let text = |to: &str| {
        format!(
            "server:
  upstreams:
    - {{ name: erp, servers: [{{ address: a:1 }}] }}
    - {{ name: mail, protocol: tcp, servers: [{{ address: a:2 }}] }}
  rules: [{{ host: erp.internal, to: {to} }}]
"
        )
    };
    let settings = server(&text("{ upstream: erp }")).unwrap();
    let [rule] = settings.rules.as_slice() else {
        panic!("{:?}", settings.rules)
    };
    assert_eq!(rule.to, RuleTarget::Upstream("erp".into()));
    let mut printed = String::new();
    for to in [
        "{ upstream: nope }",
        "{ upstream: mail }",
        "{ upstream: \"a:1\" }",
        "{ upstream: erp, tunnel: erp }",
        "{}",
        "{ upstreams: erp }",
    ] {
        let error = server(&text(to)).unwrap_err();
        printed += &format!("to: {to}\n=> {}\n\n", message(&error));
    }
    insta::assert_snapshot!(printed);
}
