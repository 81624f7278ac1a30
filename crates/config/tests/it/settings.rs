//! Valid files, the order of layers, and how a client finds its server and token.

use std::{net::SocketAddr, path::Path, time::Duration};

use adit_balance::Policy;
use adit_client::{
    Compression, ProxyProtocol, ServiceProtocol, ServiceSettings, TunnelKind, TunnelSettings,
};
use adit_config::{
    ClientOverrides, ConfigError, FLAG_VARIABLES, ServerOverrides, StateDir, TunnelOverrides,
    load_client, load_server,
};
use adit_server::{
    EdgeTimeouts, HostRules, PortRanges, PublicUrl, Quota, RuleSettings, RuleTarget, Scheme,
    TrafficLimits, TrafficSettings, TrustedProxies,
};
use secrecy::ExposeSecret;

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn variables(pairs: Pairs<'_>) -> impl Iterator<Item = (String, String)> {
    let mut all = vec![
        ("HOME".to_owned(), "/nonexistent".to_owned()),
        ("HOSTNAME".to_owned(), "box".to_owned()),
    ];
    all.extend(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())));
    all.into_iter()
}

struct Written {
    _dir: tempfile::TempDir,
    file: std::path::PathBuf,
}

fn written(name: &str, text: &str) -> Written {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(name);
    std::fs::write(&file, text).unwrap();
    Written { _dir: dir, file }
}

fn server(name: &str, text: &str) -> Result<adit_server::Settings, ConfigError> {
    let written = written(name, text);
    load_server(
        Some(&written.file),
        variables(&[]),
        &ServerOverrides::default(),
    )
    .map(|loaded| loaded.settings)
}

fn client(text: &str) -> Result<adit_client::Settings, ConfigError> {
    let written = written("client.yaml", text);
    load_client(
        Some(&written.file),
        variables(&[]),
        &ClientOverrides::default(),
    )
    .map(|loaded| loaded.settings)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

#[test]
fn without_a_file_a_server_is_on_loopback() {
    let settings = load_server(None, variables(&[]), &ServerOverrides::default())
        .unwrap()
        .settings;
    assert_eq!(settings.tunnel_addr, addr("127.0.0.1:7000"));
    assert_eq!(settings.http_addr, addr("127.0.0.1:7080"));
    assert_eq!(settings.admin_addr, Some(addr("127.0.0.1:7500")));
    assert_eq!(settings.max_clients, 1_000);
    assert_eq!(settings.domain, None);
    assert!(settings.tokens.is_empty());
    assert!(settings.rules.is_empty());
    assert_eq!(settings.limits, adit_server::Limits::default());
    assert_eq!(settings.timeouts, adit_server::Timeouts::default());
    assert_eq!(
        settings.state_dir,
        Path::new("/nonexistent/.local/state/adit")
    );
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(settings.threads, if cores > 2 { cores - 1 } else { 1 });
}

#[test]
fn without_a_file_a_client_needs_only_a_token() {
    let environment = variables(&[("ADIT__TOKEN", "t\n")]);
    let settings = load_client(None, environment, &ClientOverrides::default())
        .unwrap()
        .settings;
    assert_eq!((&*settings.client_id, &*settings.group_id), ("box", "box"));
    assert_eq!(
        (&*settings.server_host, settings.server_port),
        ("127.0.0.1", 7000)
    );
    assert_eq!(settings.token.as_ref().unwrap().expose_secret(), "t");
    assert_eq!(settings.reconnect, adit_reconnect::Config::default());
    assert_eq!(settings.lanes, 1);
    assert_eq!(settings.admin_addr, Some(addr("127.0.0.1:0")));
    assert_eq!(settings.limits, adit_client::Limits::default());
    assert_eq!(settings.timeouts, adit_client::Timeouts::default());
    assert!(settings.tunnels.is_empty());
}

/// The example of the documentation, with the keys that this version supports.
const SERVER_YAML: &str = r#"
server:
  bind_addr: 0.0.0.0
  bind_port: 7001
  max_clients: 500
  http: { bind_port: 80 }
  auth: { method: token, token: "secret" }
  limits: { max_tunnels_per_client: 12 }
  admin: { bind: "127.0.0.1:7501" }
  rules:
    - { host: "*.example.com", path: /api, header: { x-env: test }, grpc: "pkg.Service/Method", to: { tunnel: web } }
"#;

const SERVER_TOML: &str = r#"
[server]
bind_addr = "0.0.0.0"
bind_port = 7001
max_clients = 500
http.bind_port = 80
auth = { method = "token", token = "secret" }
limits.max_tunnels_per_client = 12

[server.admin]
bind = "127.0.0.1:7501"

[[server.rules]]
host = "*.example.com"
path = "/api"
header = { x-env = "test" }
grpc = "pkg.Service/Method"
to = { tunnel = "web" }
"#;

const SERVER_JSON: &str = r#"{
	"server": {
		"bind_addr": "0.0.0.0", "bind_port": 7001, "max_clients": 500,
		"http": { "bind_port": 80 },
		"auth": { "method": "token", "token": "sec\u0072et" },
		"limits": { "max_tunnels_per_client": 12 },
		"admin": { "bind": "127.0.0.1:7501" },
		"rules": [ {
			"host": "*.example.com", "path": "/api", "header": { "x-env": "test" },
			"grpc": "pkg.Service/Method", "to": { "tunnel": "web" }
		} ]
	}
}"#;

#[test]
fn the_server_example_reads_the_same_in_all_formats() {
    for (name, text) in [
        ("server.yaml", SERVER_YAML),
        ("server.YML", SERVER_YAML),
        ("server.toml", SERVER_TOML),
        ("server.json", SERVER_JSON),
    ] {
        let settings = server(name, text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(settings.tunnel_addr, addr("0.0.0.0:7001"), "{name}");
        assert_eq!(settings.http_addr, addr("0.0.0.0:80"));
        assert_eq!(settings.admin_addr, Some(addr("127.0.0.1:7501")));
        assert_eq!(settings.max_clients, 500);
        assert_eq!(settings.limits.max_tunnels_per_client, 12);
        let [token] = settings.tokens.as_slice() else {
            panic!("{name}: {:?}", settings.tokens)
        };
        assert_eq!(
            (token.user.as_str(), token.token.expose_secret()),
            ("default", "secret")
        );
        assert_eq!(
            settings.rules,
            [RuleSettings {
                host: Some("*.example.com".to_owned()),
                path: Some("/api".to_owned()),
                headers: vec![("x-env".to_owned(), "test".to_owned())],
                grpc: Some("pkg.Service/Method".to_owned()),
                to: RuleTarget::Tunnel("web".to_owned()),
                layers: Vec::new(),
            }],
            "{name}"
        );
    }
}

#[test]
fn every_bound_and_time_of_a_server_can_be_set() {
    let settings = server(
        "server.yaml",
        "server:
  threads: 3
  domain: Tunnel.example.com.
  state_dir: state
  admin: { bind: off }
  limits:
    max_requests: 1
    max_requests_per_client: 2
    max_waiting: 0
    tunnel_share: 70
    visitor_share: 30
    min_rate: 1KiB
    max_connections: 4
    max_connections_per_address: 2
    max_tcp_connections: 7
    max_tcp_connections_per_address: 3
    max_tcp_connections_per_tunnel: 5
    max_udp_flows: 8
    allow_ports: [2222, \"5000-5100\", \"80, 443\"]
    allow_hosts: [\"*\", \"*.apps.test, shop.test\"]
    max_unauthenticated: 6
    max_unauthenticated_per_address: 3
    max_client_connections_per_user: 40
    max_clients_per_user: 41
    max_ports_per_user: 42
    max_denials_per_minute: 15
    max_handshakes: 14
    max_handshakes_per_address: 15
    max_password_checks: 4
    max_waiting_password_checks: 33
    max_rate_addresses: 1000
    max_bans: 99
    max_tunnels_per_client: 5
    max_domains_per_tunnel: 9
    max_locations_per_tunnel: 10
    max_routes_per_tunnel: 11
    max_location_bytes: 1KiB
    max_layers_per_tunnel: 7
    max_layer_bytes_per_tunnel: 9KiB
    max_routes: 12
    max_kept_names_per_user: 13
    max_lanes: 6
    initial_window: 4KiB
    max_window: 4096
    link_budget: 1MB
    process_budget: 2 MiB
    turn: 16KiB
  timeouts:
    startup_grace: 0s
    client_wait: 2s
    permit_wait: 3s
    dial: 13s
    service: 1m 30s
    stall: 5s
    shortage_grace: 19s
    head: 6s
    idle: 7s
    session_stall: 2h
    session_setup: 20s
    session_keepalive: 0s
    session_close: 14s
    early_response: 18s
    continue_wait: 15s
    half_close: 16s
    release: 17s
    setup: 8s
    handshake: 4s
    denial: 21s
    visitor_handshake: 21s
    takeover_probe: 9s
    heartbeat: 100ms
    dead_after: 101ms
    drain: 12s
    tunnel_retention: 24h
",
    )
    .unwrap();
    assert_eq!(settings.threads, 3);
    assert_eq!(settings.domain.as_deref(), Some("tunnel.example.com"));
    assert!(settings.state_dir.is_absolute(), "beside the file");
    assert!(settings.state_dir.ends_with("state"));
    assert_eq!(settings.admin_addr, None);
    assert_eq!(
        settings.limits,
        adit_server::Limits {
            max_requests: 1,
            max_requests_per_client: 2,
            max_waiting: 0,
            tunnel_share_percent: 70,
            visitor_share_percent: 30,
            min_rate_bytes_per_sec: 1024,
            max_connections: 4,
            max_connections_per_address: Some(2),
            max_tcp_connections: 7,
            max_tcp_connections_per_address: Some(3),
            max_tcp_connections_per_tunnel: Some(5),
            max_udp_flows: 8,
            allow_ports: PortRanges::new([80..=80, 443..=443, 2222..=2222, 5000..=5100]),
            allow_hosts: HostRules {
                any_name: true,
                patterns: ["*.apps.test", "shop.test"]
                    .map(|host| host.parse().unwrap())
                    .into(),
            },
            max_unauthenticated: 6,
            max_unauthenticated_per_address: 3,
            max_client_connections_per_user: Some(40),
            max_clients_per_user: Some(41),
            max_ports_per_user: Some(42),
            max_denials_per_minute: 15,
            max_handshakes: 14,
            max_handshakes_per_address: 15,
            max_password_checks: 4,
            max_waiting_password_checks: 33,
            max_rate_addresses: 1_000,
            traffic: TrafficSettings::default(),
            max_bans: 99,
            max_tunnels_per_client: 5,
            max_domains_per_tunnel: 9,
            max_locations_per_tunnel: 10,
            max_routes_per_tunnel: 11,
            max_location_bytes: 1_024,
            max_layers_per_tunnel: 7,
            max_layer_bytes_per_tunnel: 9 << 10,
            max_routes: 12,
            max_kept_names_per_user: 13,
            max_lanes: 6,
            initial_window_bytes: 4096,
            max_window_bytes: 4096,
            link_budget_bytes: 1_000_000,
            process_budget_bytes: 2 << 20,
            turn_bytes: 16 * 1024,
        }
    );
    assert_eq!(
        settings.timeouts,
        adit_server::Timeouts {
            startup_grace: Duration::ZERO,
            client_wait: SECONDS(2),
            permit_wait: SECONDS(3),
            edge: EdgeTimeouts {
                dial: SECONDS(13),
                service: SECONDS(90),
                stall: SECONDS(5),
                shortage_grace: SECONDS(19),
                head: SECONDS(6),
                idle: SECONDS(7),
                session_stall: SECONDS(7_200),
                session_setup: SECONDS(20),
                session_keepalive: Duration::ZERO,
                session_close: SECONDS(14),
                early_response: SECONDS(18),
                continue_wait: SECONDS(15),
                half_close: SECONDS(16),
                release: SECONDS(17),
            },
            setup: SECONDS(8),
            handshake: SECONDS(4),
            denial: SECONDS(21),
            visitor_handshake: SECONDS(21),
            takeover_probe: SECONDS(9),
            heartbeat: Duration::from_millis(100),
            dead_after: Duration::from_millis(101),
            drain: SECONDS(12),
            tunnel_retention: SECONDS(86_400),
        }
    );
}

#[test]
fn shared_groups_list_a_group_once() {
    let load = |groups: &str| {
        let auth = "auth: [{ token: token-of-alice-0123456789, user: alice }, { token: token-of-bob-0123456789, user: bob }]";
        server(
            "server.yaml",
            &format!("server: {{ {auth}, shared_groups: {groups} }}"),
        )
    };
    let settings =
        load("[{ group: web, users: [alice, bob] }, { group: db, users: bob }]").unwrap();
    let groups = settings.shared_groups.iter().map(|shared| {
        let users: Vec<_> = shared.users.iter().map(ToString::to_string).collect();
        (shared.group.to_string(), users.join(" "))
    });
    assert_eq!(
        groups.collect::<Vec<_>>(),
        [("web", "alice bob"), ("db", "bob")].map(|(group, users)| (group.into(), users.into()))
    );
    // A user of the store.
    assert!(load("[{ group: web, users: [eve] }]").is_ok());
    for (groups, text) in [
        (
            "[{ group: web, users: [bob] }, { group: web, users: [bob] }]",
            "listed twice",
        ),
        ("[{ group: web }]", "`users` is missing"),
        ("[{ users: [bob] }]", "`group` is missing"),
        ("[{ group: web, user: bob }]", "did you mean `users`"),
    ] {
        let error = load(groups).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    // `default` is the user of the token that the server generates.
    let text = "server: { shared_groups: [{ group: web, users: [default] }] }";
    assert!(server("server.yaml", text).is_ok());
}

#[test]
fn admin_may_be_a_port_of_loopback() {
    let admin = |text: &str| {
        server(
            "s.yaml",
            &format!("server: {{ admin: {{ bind: {text} }} }}"),
        )
    };
    assert_eq!(
        admin("7600").unwrap().admin_addr,
        Some(addr("127.0.0.1:7600"))
    );
    assert_eq!(
        admin("\"[::1]:1\"").unwrap().admin_addr,
        Some(addr("[::1]:1"))
    );
    assert_eq!(admin("\"off\"").unwrap().admin_addr, None);
    assert_eq!(admin("false").unwrap().admin_addr, None);
    assert!(admin("true").is_err());
}

#[test]
fn any_free_port_may_be_requested_twice() {
    let settings = server(
        "s.yaml",
        "server: { bind_addr: \"[::1]\", bind_port: 0, http: { bind_port: 0 }, admin: { bind: \"[::1]:0\" } }",
    )
    .unwrap();
    assert_eq!(settings.tunnel_addr, addr("[::1]:0"));
    assert_eq!(settings.http_addr, addr("[::1]:0"));
}

#[test]
fn files_without_content_are_defaults() {
    for text in ["", "# nothing\n\n", "server:\n", "server: {}\n", "---\n"] {
        let settings = server("server.yaml", text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert_eq!(settings.tunnel_addr, addr("127.0.0.1:7000"));
    }
    assert!(server("server.toml", "").is_ok());
    assert!(server("server.json", "{}").is_ok());
    assert!(server("server.yaml", "\u{feff}server: {}\nclient: {}\n").is_ok());
}

const CLIENT_YAML: &str = r#"
client:
  client_id: office-1
  group_id: office
  server_addr: tunnel.example.com
  server_port: 7001
  auth_token: "secret"
  reconnect: { max_retries: 3, initial_delay: 200ms, max_delay: 10s, backoff_factor: 3, enable_jitter: false, stable_after: 1s, stop_when_unauthenticated: true }
  lanes: 2
  admin: { bind: 7502 }
  limits: { max_requests: 1, max_service_connections: 2, max_idle_connections: 0, max_window: 1MiB, budget: 0, min_rate: 0, turn: 128KiB }
  timeouts: { connect: 1s, handshake: 8s, dial: 2s, service: 3s, idle: 4s, stall: 5s, shortage_grace: 7s, drain: 6s }
  tunnels:
    - { name: web, type: http, local_port: 8080, domain: app.example.com }
    - name: api
      local_port: 9090
      local_addr: "[::1]"
      local_protocol: h2c
      domains: [API.example.com, "*.api.example.com"]
      locations: [/v1/, /v2]
      load_balance: consistent_hash
      hash_on: "header:x-user"
      weight: 7
      host_header_rewrite: backend.internal:9090
      custom_headers: { X-Env: test, x-many: [a, b] }
    - name: old
      tunnel_type: http
      config: { local_port: 1, custom_domains: old.example.com }
"#;

#[test]
fn the_client_example_is_read_as_documented() {
    let settings = client(CLIENT_YAML).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        (&*settings.client_id, &*settings.group_id),
        ("office-1", "office")
    );
    assert_eq!(settings.server_host, "tunnel.example.com");
    assert_eq!(settings.server_port, 7001);
    assert_eq!(settings.token.as_ref().unwrap().expose_secret(), "secret");
    let reconnect =
        adit_reconnect::Config::try_new(3, Duration::from_millis(200), SECONDS(10), 3.0, false);
    assert_eq!(
        settings.reconnect,
        reconnect
            .unwrap()
            .with_stable_after(SECONDS(1))
            .with_stop_when_unauthenticated(true)
    );
    assert_eq!(settings.lanes, 2);
    assert_eq!(settings.admin_addr, Some(addr("127.0.0.1:7502")));
    assert_eq!(
        settings.limits,
        adit_client::Limits {
            max_requests: 1,
            max_service_connections: 2,
            max_idle_connections: 0,
            max_window_bytes: 1 << 20,
            budget_bytes: 0,
            min_rate_bytes_per_sec: 0,
            turn_bytes: 128 << 10,
            ..adit_client::Limits::default()
        }
    );
    assert_eq!(
        settings.timeouts,
        adit_client::Timeouts {
            connect: SECONDS(1),
            handshake: SECONDS(8),
            edge: EdgeTimeouts {
                dial: SECONDS(2),
                service: SECONDS(3),
                idle: SECONDS(4),
                stall: SECONDS(5),
                shortage_grace: SECONDS(7),
                ..EdgeTimeouts::default()
            },
            drain: SECONDS(6),
            ..adit_client::Timeouts::default()
        }
    );
    let web = TunnelSettings {
        domains: vec!["app.example.com".to_owned()],
        ..TunnelSettings::new("web", TunnelKind::Http, "127.0.0.1", 8080)
    };
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let plain = TunnelSettings::new("api", TunnelKind::Http, "::1", 9090);
    let api = TunnelSettings {
        service: ServiceSettings {
            protocol: ServiceProtocol::Http2,
            host_rewrite: Some("backend.internal:9090".to_owned()),
            custom_headers: vec![
                header("X-Env", "test"),
                header("x-many", "a"),
                header("x-many", "b"),
            ],
            ..plain.service.clone()
        },
        domains: vec!["api.example.com".to_owned(), "*.api.example.com".to_owned()],
        locations: vec!["/v1".to_owned(), "/v2".to_owned()],
        load_balance: Policy::ConsistentHash,
        hash_on: "header:x-user".to_owned(),
        weight: 7,
        ..plain
    };
    let mut old = web.clone();
    old.name = "old".to_owned();
    old.service.port = 1;
    old.domains = vec!["old.example.com".to_owned()];
    assert_eq!(settings.tunnels, [web, api, old]);
}

#[test]
fn one_domain_may_be_shared_by_locations() {
    let text = |second: &str| {
        format!(
            "client: {{ auth_token: t, tunnels: [\
             {{ name: a, local_port: 1, domain: x.example, locations: /a }},\
             {{ name: b, local_port: 2, domain: x.example{second} }}] }}"
        )
    };
    assert!(client(&text("")).is_ok());
    assert!(client(&text(", locations: [/b]")).is_ok());
    assert!(client(&text(", locations: [/a/]")).is_err());
}

#[test]
fn later_layers_win_key_by_key() {
    let written = written(
        "server.yaml",
        "server: { bind_addr: 127.0.0.2, bind_port: 1, http: { bind_port: 2 }, max_clients: 3, threads: 4 }",
    );
    let environment = [
        ("ADIT__SERVER__BIND_PORT", "11"),
        ("ADIT__SERVER__HTTP__BIND_PORT", " 12 "),
        ("ADIT__SERVER__THREADS", "14"),
        ("ADIT__SERVER__TIMEOUTS__DRAIN", "15s"),
        ("ADIT__SERVER__LIMITS__MAX_WINDOW", "1MiB"),
        (
            "ADIT__SERVER__RULES",
            "[{ host: a.example, to: { tunnel: a } }]",
        ),
        ("ADIT__SERVER__MAX_CLIENTS", ""),
        ("ADIT__CLIENT__WHATEVER", "is not ours"),
        ("ADIT_SERVER_PORT", "tcp://10.0.0.1:7000"),
    ];
    let overrides = ServerOverrides {
        bind_port: Some(21),
        domain: Some("flag.example".to_owned()),
        admin: Some("off".to_owned()),
        state_dir: Some("/flag".into()),
        ..ServerOverrides::default()
    };
    let settings = load_server(Some(&written.file), variables(&environment), &overrides)
        .unwrap()
        .settings;
    assert_eq!(settings.tunnel_addr, addr("127.0.0.2:21"));
    assert_eq!(settings.http_addr, addr("127.0.0.2:12"));
    assert_eq!(settings.max_clients, 3);
    assert_eq!(settings.threads, 14);
    assert_eq!(settings.timeouts.drain, SECONDS(15));
    assert_eq!(settings.limits.max_window_bytes, 1 << 20);
    assert_eq!(settings.rules.len(), 1);
    assert_eq!(settings.domain.as_deref(), Some("flag.example"));
    assert_eq!(settings.admin_addr, None);
    assert_eq!(settings.state_dir, Path::new("/flag"));
}

#[test]
fn a_variable_for_the_state_directory_overrides_the_file() {
    let written = written("server.yaml", "server: { state_dir: /file }");
    let dir = |pairs: Pairs<'_>| {
        load_server(
            Some(&written.file),
            variables(pairs),
            &ServerOverrides::default(),
        )
        .unwrap()
        .settings
        .state_dir
    };
    assert_eq!(dir(&[]), Path::new("/file"));
    assert_eq!(dir(&[("ADIT__STATE_DIR", "/env")]), Path::new("/env"));
    assert_eq!(
        dir(&[("ADIT__SERVER__STATE_DIR", "/env")]),
        Path::new("/env")
    );
}

#[test]
fn variables_of_flags_mean_nothing_here() {
    let pairs: Vec<_> = FLAG_VARIABLES
        .iter()
        .map(|name| (*name, "111111"))
        .collect();
    load_server(None, variables(&pairs), &ServerOverrides::default()).unwrap();
    load_client(None, variables(&pairs), &ClientOverrides::default()).unwrap();
}

#[test]
fn a_client_is_set_by_variables_alone() {
    let settings = load_client(
        None,
        variables(&[
            ("ADIT__TOKEN", "t"),
            ("ADIT__CLIENT__GROUP_ID", "g"),
            ("ADIT__CLIENT__RECONNECT__ENABLE_JITTER", "off"),
            ("ADIT__CLIENT__RECONNECT__BACKOFF_FACTOR", "1.5"),
            (
                "ADIT__CLIENT__TUNNELS",
                "[{ name: a, local_port: 1, domains: [a.example] }]",
            ),
        ]),
        &ClientOverrides::default(),
    )
    .unwrap()
    .settings;
    assert_eq!((&*settings.client_id, &*settings.group_id), ("box", "g"));
    assert!(!settings.reconnect.enable_jitter());
    assert!((settings.reconnect.backoff_factor() - 1.5).abs() < f64::EPSILON);
    assert_eq!(settings.tunnels[0].domains, ["a.example"]);
}

#[test]
fn a_tunnel_flag_replaces_the_tunnels_of_the_file() {
    let written = written("client.yaml", CLIENT_YAML);
    let overrides = ClientOverrides {
        server: Some("other:7009".to_owned()),
        client_id: Some("flag".to_owned()),
        group_id: Some("flags".to_owned()),
        lanes: Some(3),
        tunnel: Some(TunnelOverrides {
            service: "192.0.2.1:3000".to_owned(),
            domains: vec!["a.example".to_owned(), "b.example".to_owned()],
            weight: Some(2),
            load_balance: Some("p2c".to_owned()),
            host_rewrite: Some("c.example".to_owned()),
            local_protocol: Some("h2c".to_owned()),
            ..TunnelOverrides::default()
        }),
        ..ClientOverrides::default()
    };
    let settings = load_client(Some(&written.file), variables(&[]), &overrides)
        .unwrap()
        .settings;
    assert_eq!(
        (&*settings.server_host, settings.server_port),
        ("other", 7009)
    );
    assert_eq!(
        (&*settings.client_id, &*settings.group_id),
        ("flag", "flags")
    );
    assert_eq!(settings.lanes, 3);
    let plain = TunnelSettings::new("http-3000", TunnelKind::Http, "192.0.2.1", 3000);
    assert_eq!(
        settings.tunnels,
        [TunnelSettings {
            service: ServiceSettings {
                protocol: ServiceProtocol::Http2,
                host_rewrite: Some("c.example".to_owned()),
                ..plain.service.clone()
            },
            domains: vec!["a.example".to_owned(), "b.example".to_owned()],
            load_balance: Policy::PowerOfTwo,
            weight: 2,
            ..plain
        }]
    );
    // A port alone is one of this machine; a server without a port has the port of the file.
    let overrides = ClientOverrides {
        server: Some("[::1]".to_owned()),
        tunnel: Some(TunnelOverrides {
            service: "8080".to_owned(),
            name: Some("web".to_owned()),
            ..TunnelOverrides::default()
        }),
        ..ClientOverrides::default()
    };
    let settings = load_client(Some(&written.file), variables(&[]), &overrides)
        .unwrap()
        .settings;
    assert_eq!(
        (&*settings.server_host, settings.server_port),
        ("::1", 7001)
    );
    let service = &settings.tunnels[0].service;
    assert_eq!((&*service.host, service.port), ("127.0.0.1", 8080));
    assert_eq!(settings.tunnels[0].name, "web");
}

/// The keys of section "Commands and keys" of the documentation, in both forms.
#[test]
fn certificates_are_requested_in_both_forms() {
    let requests = |tunnel: &str| {
        let text =
            format!("client:\n  auth_token: a-token\n  tunnels:\n    - {{ name: a, {tunnel} }}\n");
        client(&text).unwrap().tunnels[0].obtains_certificates
    };
    assert!(requests("local_port: 8080, ssl_cert: auto"));
    assert!(requests(
        "tunnel_type: http, config: { local_port: 8080, ssl_cert: auto }"
    ));
    assert!(requests(
        "type: tcp, local_port: 1, tls: terminate, ssl_cert: auto"
    ));
    assert!(!requests("local_port: 8080, ssl_cert: off"));
    assert!(!requests("local_port: 8080"));
}

#[test]
fn every_type_of_tunnel_is_read() {
    let settings = client(
        "client:
  auth_token: t
  tunnels:
    - { name: ssh, type: tcp, local_port: 22, remote_port: 2222, load_balance: least_connections, proxy_protocol: v2 }
    - { name: dns, type: udp, local_port: 53, remote_port: 2222, session_timeout: 30s }
    - { name: calls, type: grpc, local_port: 50051, domain: api.example.com, compression: zstd }
    - { name: chat, type: websocket, local_port: 9001, locations: /ws }
    - { name: page, type: http, local_port: 8080, remote_port: 8081, compression: none }
    - name: db
      tunnel_type: tcp
      config: { local_addr: db.internal, local_port: 5432, proxy_protocol: 1, weight: 3, compression: gzip }
",
    )
    .unwrap_or_else(|error| panic!("{error}"));
    let plain = TunnelSettings::new;
    let mut ssh = plain("ssh", TunnelKind::Tcp, "127.0.0.1", 22);
    ssh.remote_port = 2222;
    ssh.load_balance = Policy::LeastConnections;
    ssh.service.proxy_protocol = Some(ProxyProtocol::V2);
    let mut dns = plain("dns", TunnelKind::Udp, "127.0.0.1", 53);
    dns.remote_port = 2222;
    dns.service.session_timeout = SECONDS(30);
    let mut calls = plain("calls", TunnelKind::Grpc, "127.0.0.1", 50051);
    calls.domains = vec!["api.example.com".to_owned()];
    calls.compression = Some(Compression::Zstd);
    let mut chat = plain("chat", TunnelKind::WebSocket, "127.0.0.1", 9001);
    chat.locations = vec!["/ws".to_owned()];
    let mut page = plain("page", TunnelKind::Http, "127.0.0.1", 8080);
    page.remote_port = 8081;
    let mut db = plain("db", TunnelKind::Tcp, "db.internal", 5432);
    db.service.proxy_protocol = Some(ProxyProtocol::V1);
    db.weight = 3;
    db.compression = Some(Compression::Gzip);
    assert_eq!(settings.tunnels, [ssh, dns, calls, chat, page, db]);
    let spoken = |kind: TunnelKind| kind.service_protocol();
    assert_eq!(
        TunnelKind::ALL.map(spoken),
        [
            ServiceProtocol::Http1,
            ServiceProtocol::Http2,
            ServiceProtocol::Http1,
            ServiceProtocol::Tcp,
            ServiceProtocol::Udp,
            ServiceProtocol::Tcp,
        ]
    );
}

#[test]
fn the_command_line_accepts_tunnels_of_any_type() {
    let read = |tunnel: TunnelOverrides| {
        let overrides = ClientOverrides {
            tunnel: Some(tunnel),
            ..ClientOverrides::default()
        };
        let token = variables(&[("ADIT__TOKEN", "t")]);
        let settings = load_client(None, token, &overrides);
        settings.unwrap().settings.tunnels.remove(0)
    };
    let tcp = read(TunnelOverrides {
        kind: TunnelKind::Tcp,
        service: "22".to_owned(),
        remote_port: Some(2222),
        proxy_protocol: Some("v1".to_owned()),
        ..TunnelOverrides::default()
    });
    assert_eq!((&*tcp.name, tcp.kind), ("tcp-22", TunnelKind::Tcp));
    assert_eq!((tcp.service.port, tcp.remote_port), (22, 2222));
    assert_eq!(tcp.service.proxy_protocol, Some(ProxyProtocol::V1));
    let udp = read(TunnelOverrides {
        kind: TunnelKind::Udp,
        service: "10.0.0.1:53".to_owned(),
        session_timeout: Some("30s".to_owned()),
        ..TunnelOverrides::default()
    });
    assert_eq!((&*udp.name, udp.remote_port), ("udp-53", 0));
    assert_eq!(udp.service.session_timeout, SECONDS(30));
    let grpc = read(TunnelOverrides {
        kind: TunnelKind::Grpc,
        service: "50051".to_owned(),
        ..TunnelOverrides::default()
    });
    assert_eq!(&*grpc.name, "grpc-50051");
    assert_eq!(grpc.service.protocol, ServiceProtocol::Http2);
}

#[test]
fn allowed_ports_are_written_in_many_ways() {
    let allowed = |text: &str| {
        let text = format!("server: {{ limits: {{ allow_ports: {text} }} }}");
        server("s.yaml", &text)
            .unwrap()
            .limits
            .allow_ports
            .to_string()
    };
    assert_eq!(
        allowed("[2222, \"5000-5100\", 2223]"),
        "2222-2223, 5000-5100"
    );
    assert_eq!(allowed("\"1-10, 20\""), "1-10, 20");
    assert_eq!(allowed("22"), "22");
    assert_eq!(allowed("[]"), "none");
    let ports = [("ADIT__SERVER__LIMITS__ALLOW_PORTS", "2222,5000-5100")];
    let settings = load_server(None, variables(&ports), &ServerOverrides::default())
        .unwrap()
        .settings;
    assert_eq!(settings.limits.allow_ports.to_string(), "2222, 5000-5100");
}

#[test]
fn a_server_on_this_machine_is_found() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "t").unwrap();
    let state = StateDir::new(dir.path());
    assert_eq!(state.running_server().unwrap(), None);
    let running = "{\"pid\":1,\"tunnel_addr\":\"0.0.0.0:7123\",\"http_addr\":\"0.0.0.0:80\",\"admin_addr\":null}";
    std::fs::write(state.server_file(), running).unwrap();
    let found = state.running_server().unwrap().unwrap();
    assert_eq!((found.pid, found.admin_addr), (1, None));

    let load = |overrides: ClientOverrides, text: &str| {
        let written = written("client.yaml", text);
        let overrides = ClientOverrides {
            state_dir: Some(dir.path().to_path_buf()),
            ..overrides
        };
        let settings = load_client(Some(&written.file), variables(&[]), &overrides)?.settings;
        Ok::<_, ConfigError>((settings.server_host, settings.server_port))
    };
    let at = |host: &str, port| (host.to_owned(), port);
    let none = ClientOverrides::default;
    assert_eq!(load(none(), "client: {}").unwrap(), at("127.0.0.1", 7123));
    assert_eq!(
        load(none(), "client: { server_addr: a }").unwrap(),
        at("a", 7000)
    );
    assert_eq!(
        load(none(), "client: { server_port: 5 }").unwrap(),
        at("127.0.0.1", 5)
    );
    let server = ClientOverrides {
        server: Some("b:6".to_owned()),
        ..none()
    };
    assert_eq!(load(server, "client: {}").unwrap(), at("b", 6));

    std::fs::write(state.server_file(), "{").unwrap();
    let error = load(none(), "client: {}").unwrap_err();
    assert_eq!(
        error.message(),
        "expected the addresses of a running server"
    );
    assert!(error.to_string().contains("server.json:1:1: "), "{error}");
}

#[test]
fn a_type_has_two_names_and_a_default() {
    for keys in [
        "local_port: 1",
        "type: http, local_port: 1",
        "tunnel_type: http, local_port: 1",
        "type: http, config: { local_port: 1 }",
    ] {
        let settings = client(&format!(
            "client: {{ auth_token: t, tunnels: [{{ name: a, {keys} }}] }}"
        ));
        assert_eq!(settings.unwrap().tunnels[0].service.port, 1, "{keys}");
    }
}

#[test]
fn bounds_themselves_are_allowed() {
    let drain = |text: &str| {
        server(
            "s.yaml",
            &format!("server: {{ timeouts: {{ drain: {text} }} }}"),
        )
    };
    assert_eq!(drain("8760h").unwrap().timeouts.drain, SECONDS(31_536_000));
    assert!(drain("8760h 1ms").is_err());
}

#[test]
fn a_variable_accepts_the_booleans_of_the_shell() {
    let jitter = |value: &str| {
        let environment = [
            ("ADIT__TOKEN", "t"),
            ("ADIT__CLIENT__RECONNECT__ENABLE_JITTER", value),
        ];
        load_client(None, variables(&environment), &ClientOverrides::default())
            .map(|loaded| loaded.settings.reconnect.enable_jitter())
    };
    for yes in ["true", "1", "yes", "ON"] {
        assert!(jitter(yes).unwrap(), "{yes}");
    }
    for no in ["false", "0", "No", "off"] {
        assert!(!jitter(no).unwrap(), "{no}");
    }
    assert!(jitter("2").is_err());
}

#[test]
fn an_unreadable_file_in_the_state_directory_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let overrides = ClientOverrides {
        state_dir: Some(dir.path().to_path_buf()),
        ..ClientOverrides::default()
    };
    let load = || load_client(None, variables(&[]), &overrides).unwrap_err();
    // A directory in place of a file fails for every user, including root.
    std::fs::create_dir(dir.path().join("token")).unwrap();
    let error = load();
    assert!(error.message().contains("cannot be read: "), "{error}");
    assert!(error.help().unwrap().contains("--token-file"), "{error}");
    std::fs::create_dir(dir.path().join("server.json")).unwrap();
    let error = load();
    assert!(
        error
            .to_string()
            .contains("server.json: the file cannot be read: "),
        "{error}"
    );
    assert!(error.help().unwrap().contains("--state-dir"), "{error}");
}

#[test]
fn trusted_proxies_and_the_public_url_are_read() {
    let settings = server(
        "server.yaml",
        "server: { trusted_proxies: [10.0.0.0/8, \"::1\"], public_url: { scheme: https, port: 8443 } }",
    )
    .unwrap();
    let is_trusted = |ip: &str| settings.trusted_proxies.contains(ip.parse().unwrap());
    assert!(is_trusted("10.1.2.3") && is_trusted("::1"));
    assert!(!is_trusted("192.0.2.1"));
    assert_eq!(settings.public_url.scheme, Some(Scheme::Https));
    assert_eq!(settings.public_url.port, Some(8443));
    // The value may be one text, as in a variable.
    let one = server(
        "server.yaml",
        "server: { trusted_proxies: \"10.0.0.0/8, ::1\" }",
    )
    .unwrap();
    assert_eq!(one.trusted_proxies, settings.trusted_proxies);
    let none = server("server.yaml", "server: {}").unwrap();
    assert_eq!(none.trusted_proxies, TrustedProxies::default());
    assert_eq!(none.public_url, PublicUrl::default());
    let entry = client(
        "client: { server_addr: a, auth_token: longenough-token, entries: [{ name: e, listen: 0, \
         upstream: u, trusted_proxies: [127.0.0.0/8] }] }",
    )
    .unwrap();
    assert!(
        entry.entries[0]
            .trusted_proxies
            .contains("127.0.0.1".parse().unwrap())
    );
    for (text, expected) in [
        ("server: { trusted_proxies: [10.0.0.0/40] }", "10.0.0.0/40"),
        (
            "server: { trusted_proxies: [proxy.example] }",
            "proxy.example",
        ),
        ("server: { public_url: { scheme: ftp } }", "ftp"),
        ("server: { public_url: { port: 0 } }", "port"),
        ("server: { public_url: { prot: 1 } }", "prot"),
    ] {
        let error = server("server.yaml", text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn limits_of_clients_tunnels_and_users_are_read() {
    let settings = server(
        "server.yaml",
        "server:
  limits:
    max_bandwidth: 100MB
    time_zone: Europe/Berlin
    per_client: { max_requests_per_second: 10, max_connections: 11, quota: { requests_per_day: 12 } }
    per_tunnel: { max_bandwidth: 1MiB, max_running_requests: 13 }
    per_user:
      max_tunnels: 14
      quota: { bytes_per_day: 10GB, bytes_per_month: 100GB, requests_per_month: 15 }
    users:
      - { name: alice, max_bandwidth: 20MB, quota: { bytes_per_day: 20GB } }
",
    )
    .unwrap();
    let traffic = settings.limits.traffic;
    let bandwidth = |bytes| std::num::NonZeroU64::new(bytes);
    assert_eq!(traffic.calendar.to_string(), "Europe/Berlin");
    assert_eq!(
        traffic.per_client,
        TrafficLimits {
            max_bandwidth: bandwidth(100_000_000),
            max_requests_per_second: std::num::NonZeroU32::new(10),
            max_connections: Some(11),
            quota: Quota {
                requests_per_day: Some(12),
                ..Quota::default()
            },
            ..TrafficLimits::default()
        }
    );
    assert_eq!(
        traffic.per_tunnel,
        TrafficLimits {
            max_bandwidth: bandwidth(1 << 20),
            max_running_requests: Some(13),
            ..TrafficLimits::default()
        }
    );
    let per_user = TrafficLimits {
        max_tunnels: Some(14),
        quota: Quota {
            bytes_per_day: Some(10_000_000_000),
            bytes_per_month: Some(100_000_000_000),
            requests_per_month: Some(15),
            ..Quota::default()
        },
        ..TrafficLimits::default()
    };
    assert_eq!(traffic.per_user, per_user);
    let alice = traffic.of_user(&"alice".parse().unwrap());
    assert_eq!(alice.max_bandwidth, bandwidth(20_000_000));
    assert_eq!(alice.quota.bytes_per_day, Some(20_000_000_000));
    assert_eq!(alice.max_tunnels, Some(14), "that of all users");
    assert_eq!(traffic.of_user(&"bob".parse().unwrap()), &per_user);
}
