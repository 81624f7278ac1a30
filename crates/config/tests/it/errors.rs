//! Every kind of error, as it is printed.

use std::fmt::Write as _;

use adit_client::TunnelKind;
use adit_config::{ClientOverrides, ServerOverrides, TunnelOverrides, load_client, load_server};

const HOME: (&str, &str) = ("HOME", "/nonexistent");

/// The printed error for a file with this text; `side` selects the program.
fn message(side: &str, extension: &str, text: &str, environment: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(format!("{side}.{extension}"));
    std::fs::write(&file, text).unwrap();
    let variables = environment
        .iter()
        .chain([&HOME])
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let error = if side == "server" {
        load_server(Some(&file), variables, &ServerOverrides::default()).map(|_| ())
    } else {
        load_client(Some(&file), variables, &ClientOverrides::default()).map(|_| ())
    };
    let error = error.expect_err(text).to_string();
    let dir = format!("{}/", dir.path().display());
    error.replace(&dir, "")
}

fn all(side: &str, extension: &str, texts: &[&str]) -> String {
    let mut out = String::new();
    for text in texts {
        let error = message(side, extension, text, &[]);
        writeln!(out, "{}\n=> {error}\n", text.trim_end()).unwrap();
    }
    out
}

#[test]
fn yaml_of_a_server() {
    insta::assert_snapshot!(all(
        "server",
        "yaml",
        &[
            // Unknown keys.
            "server:\n  bind_prot: 7000\n",
            "server:\n  colour: blue\n",
            "server:\n  http: { bind_port: 80, bind_addr: 0.0.0.0 }\n",
            "servers: {}\n",
            "bind_port: 7000\n",
            // Wrong types.
            "server:\n  bind_port: eighty\n",
            "server:\n  bind_port: \"7000\"\n",
            "server:\n  bind_addr: localhost\n",
            "server: [1, 2]\n",
            "server:\n  http: 80\n",
            "server:\n  auth: secret-that-is-not-shown\n",
            "server:\n  auth: { method: token, token: 12345 }\n",
            "server:\n  domain: 5\n",
            "server:\n  domain: http://a.example\n",
            "server:\n  domain: a.example:80\n",
            "server:\n  timeouts:\n    drain: 30\n",
            "server:\n  timeouts:\n    drain: soon\n",
            "server:\n  limits: { max_window: 4 fathoms }\n",
            "server:\n  rules: { host: a }\n",
            "server:\n  max_clients:\n",
            // Values out of range.
            "server:\n  bind_port: 70000\n",
            "server:\n  bind_port: -1\n",
            "server:\n  threads: 0\n",
            "server:\n  timeouts: { head: 0s }\n",
            "server:\n  timeouts: { drain: 9000h }\n",
            "server:\n  limits: { initial_window: 4095 }\n",
            "server:\n  limits: { allow_ports: [0] }\n",
            "server:\n  limits: { allow_ports: [\"80-22\"] }\n",
            "server:\n  limits: { allow_ports: \"22, ssh\" }\n",
            "server:\n  limits: { max_udp_flows: 0 }\n",
            "server:\n  allowPorts: []\n",
            "server:\n  timeouts: { session_stall: 0s }\n",
            // Values that exclude each other.
            "server:\n  limits: { initial_window: 64KiB, max_window: 32KiB }\n",
            "server:\n  timeouts:\n    heartbeat: 10s\n",
            "server:\n  bind_port: 7080\n",
            "server:\n  admin: { bind: \"127.0.0.1:7000\" }\n",
            "server:\n  rules:\n    - { host: a.example, to: { tunnel: a } }\n    - { host: A.example., to: { tunnel: b } }\n",
            // Keys of frp and ngrok.
            "server:\n  bindPort: 7000\n",
            "server:\n  vhostHTTPPort: 80\n",
            "server:\n  subDomainHost: example.com\n",
            "server:\n  dashboard_port: 7500\n",
            "server:\n  token: x\n",
            "common:\n  bind_port: 7000\n",
            // Keys of planned capabilities.
            "server:\n  https: { bind_port: 7080 }\n",
            "server:\n  https: { default: true }\n",
            "server:\n  https: { certificates: [{}] }\n",
            "server:\n  https: { tls: { crt_path: a } }\n",
            "server:\n  tls: { cert_file: server.crt }\n",
            "server:\n  database: { url: \"sqlite://adit.db\" }\n",
            // Limits of clients, tunnels and users.
            "server:\n  limits: { max_bandwidth: 100 MBit }\n",
            "server:\n  limits: { max_bandwidth: -1 }\n",
            "server:\n  limits: { max_bandwidth: 0 }\n",
            "server:\n  limits: { max_bandwidth: 9999 }\n",
            "server:\n  limits: { per_client: { max_bandwidth: 1MB } }\n",
            "server:\n  limits: { per_client: { max_running_requests: 1 } }\n",
            "server:\n  limits: { per_tunnel: { max_tunnels: 1 } }\n",
            "server:\n  limits: { per_tunnel: { max_requests_per_second: 0 } }\n",
            "server:\n  limits: { per_user: { quota: { bytes_per_week: 1GB } } }\n",
            "server:\n  limits: { per_user: { quota: { bytes_per_day: 0 } } }\n",
            "server:\n  limits: { users: [{ max_bandwidth: 1MB }] }\n",
            "server:\n  limits: { users: [{ name: alice }, { name: alice }] }\n",
            "server:\n  limits: { time_zone: Mars/Base }\n",
            "server:\n  auth:\n    method: jwt\n",
            "server:\n  auth: [{ method: token, token: not-shown }, { method: mtls }]\n",
            // Rules.
            "server:\n  rules:\n    - { host: \"a.example:80\", to: { tunnel: web } }\n",
            "server:\n  rules:\n    - { host: \"a.*\", to: { tunnel: web } }\n",
            "server:\n  rules:\n    - { path: api, to: { tunnel: web } }\n",
            "server:\n  rules:\n    - { grpc: \"a/b/c\", to: { tunnel: web } }\n",
            "server:\n  rules:\n    - { header: { \"x y\": z }, to: { tunnel: web } }\n",
            "server:\n  rules:\n    - { host: a.example }\n",
            "server:\n  rules:\n    - { host: a.example, to: { tunnel: \"a b\" } }\n",
            // Tokens.
            "server:\n  auth: { token: \"not\\tshown\" }\n",
            "server:\n  auth: { token: short }\n",
            "server:\n  auth: { token: \"\" }\n",
            "server:\n  auth: [{ token: the-same, user: a }, { token: the-same, user: b }]\n",
            "server:\n  auth: { token: a, token_file: b }\n",
            "server:\n  auth: { token_file: /nonexistent }\n",
            // Errors of the file itself.
            "server:\n  bind_port: [7000\n",
            "server:\n\tbind_port: 7000\n",
            "server:\n  bind_port: 1\n  bind_port: 2\n",
            "server: {}\n---\nserver: {}\n",
            "server:\n  ~: 1\n",
            "server: !!binary a\n",
            "server: *unknown\n",
            "client: {}\n",
            "just a text\n",
            &format!("{}{}", "[".repeat(17), "]".repeat(17)),
        ]
    ));
}

#[test]
fn yaml_of_a_client() {
    let tunnel = |keys: &str| {
        format!("client:\n  auth_token: t\n  tunnels:\n    - {{ name: web, {keys} }}\n")
    };
    let texts = [
        "client:\n  server_host: a\n".to_owned(),
        "client:\n  serverAddr: a\n".to_owned(),
        "client:\n  authtoken: a\n".to_owned(),
        "client:\n  proxies: []\n".to_owned(),
        "client:\n  tls: { insecure: true }\n".to_owned(),
        "client:\n  auth_token: t\n  tunnels: { web: { proto: http, addr: 80 } }\n".to_owned(),
        tunnel("type: http"),
        tunnel("localPort: 80"),
        tunnel("local_port: 80, customDomains: [a.example]"),
        tunnel("local_port: 80, subdomain: a"),
        tunnel("proto: http, local_port: 80"),
        tunnel("addr: 80"),
        tunnel("type: ftp"),
        tunnel("type: https"),
        tunnel("type: h2c"),
        tunnel("type: 5"),
        tunnel("local_port: 80, remotePort: 8080"),
        tunnel("local_port: 80, remote_port: 65536"),
        tunnel("local_port: 80, compression: brotli"),
        tunnel("local_port: 80, useCompression: true"),
        tunnel("local_port: 80, proxy_protocol: v2"),
        tunnel("local_port: 80, session_timeout: 30s"),
        tunnel("type: tcp"),
        tunnel("type: tcp, local_port: 22, domain: a.example"),
        tunnel("type: tcp, local_port: 22, hash_on: host"),
        tunnel("type: tcp, local_port: 22, custom_headers: { x-a: b }"),
        tunnel("type: tcp, local_port: 22, local_protocol: h2c"),
        tunnel("type: tcp, local_port: 22, proxy_protocol: v3"),
        tunnel("type: tcp, local_port: 22, proxyProtocolVersion: v2"),
        tunnel("type: tcp, local_port: 22, session_timeout: 30s"),
        tunnel("type: udp, local_port: 53, session_timeout: 30"),
        tunnel("type: udp, local_port: 53, session_timeout: 1ms"),
        tunnel("type: udp, local_port: 53, proxy_protocol: v2"),
        tunnel("type: udp, local_port: 53, compression: zstd"),
        tunnel("type: grpc, local_port: 80, local_protocol: http1"),
        tunnel("type: grpc, local_port: 80, local_tls: maybe"),
        tunnel("type: grpc, local_port: 80, local_tls: { ca_file: /nonexistent.pem }"),
        tunnel("type: grpc, local_port: 80, local_tls: { ca_file: \"\" }"),
        tunnel("type: grpc, local_port: 80, local_tls: { server_name: \"a b\" }"),
        tunnel("type: grpc, local_port: 80, local_tls: { insecure: perhaps }"),
        tunnel("type: grpc, local_port: 80, local_tls: { caCert: a.pem }"),
        tunnel("type: grpc, local_port: 80, local_tls: { skip_verify: true }"),
        tunnel("type: grpc, local_port: 80, tls: true"),
        tunnel("type: tcp, local_port: 80, local_tls: true"),
        tunnel("type: tls, local_port: 80, remote_port: 443"),
        tunnel("type: tls, local_port: 80, local_tls: true"),
        tunnel("type: tcp, local_port: 80, tls: on"),
        tunnel("type: tcp, local_port: 80, domain: a.example"),
        tunnel("type: http, local_port: 80, tls: terminate"),
        tunnel("type: udp, local_port: 80, redirect_https: true"),
        tunnel("local_port: 80, hsts: { max_age: soon }"),
        tunnel("local_port: 80, hsts: always"),
        tunnel("local_port: 80, local_protocol: h2c, local_tls: true"),
        tunnel("local_port: 80, local_protocol: h2, local_tls: false"),
        tunnel("type: h2, local_port: 80"),
        tunnel("type: websocket, local_port: 80, local_protocol: h2c"),
        tunnel("local_port: 80, ssl_cert: cert.pem"),
        tunnel("local_port: 80, crt: cert.pem"),
        tunnel("type: tcp, local_port: 80, ssl_cert: auto"),
        tunnel("type: tls, local_port: 80, ssl_cert: auto"),
        tunnel("type: udp, local_port: 80, ssl_cert: auto"),
        tunnel("local_port: 0"),
        tunnel("local_port: 80, local_addr: \"10.0.0.1:80\""),
        tunnel("local_port: 80, local_addr: \"http://10.0.0.1\""),
        tunnel("local_port: 80, local_protocol: http3"),
        tunnel("local_port: 80, domain: \"*\""),
        tunnel("local_port: 80, domain: \"http://a.example\""),
        tunnel("local_port: 80, domain: \"https://a.example:8443/b?c\""),
        tunnel("local_port: 80, domain: \"a.example:80\""),
        tunnel("local_port: 80, domain: \"*.a.example:80\""),
        tunnel("local_port: 80, domain: \"[::1]:80\""),
        tunnel("local_port: 80, domain: \"::1\""),
        tunnel("local_port: 80, domain: a.example/b"),
        tunnel("local_port: 80, domain: a.example, domains: [b.example]"),
        tunnel("local_port: 80, domains: [a.example, A.example]"),
        tunnel("local_port: 80, locations: [api]"),
        tunnel("local_port: 80, load_balance: random"),
        tunnel("local_port: 80, hash_on: \"query:a\""),
        tunnel("local_port: 80, weight: 0"),
        tunnel("local_port: 80, custom_headers: { Host: a }"),
        tunnel("local_port: 80, custom_headers: { Content-Length: \"5\" }"),
        tunnel("local_port: 80, custom_headers: { x-key: \"not-shown\\n\" }"),
        tunnel("local_port: 80, custom_headers: { x-env: 1 }"),
        tunnel("local_port: 80, host_rewrite: a, host_header_rewrite: b"),
        tunnel("tunnel_type: http, config: { localPort: 80 }"),
        tunnel("tunnel_type: tcp, config: { local_port: 80, locations: [/a] }"),
        tunnel("tunnel_type: tcp, remote_port: 80, config: { local_port: 80 }"),
        tunnel("tunnel_type: http, type: http, local_port: 80"),
        tunnel("tunnel_type: http, local_port: 80, config: {}"),
        "client:\n  tunnels:\n    - { local_port: 80 }\n".to_owned(),
        "client:\n  tunnels:\n    - { name: \"-a\", local_port: 80 }\n".to_owned(),
        "client:\n  tunnels:\n    - { name: a, local_port: 80 }\n    - { name: a, local_port: 81 }\n".to_owned(),
        "client:\n  tunnels:\n    - { name: a, local_port: 80, domain: x.example }\n    - { name: b, local_port: 81, domain: x.example }\n".to_owned(),
        "client:\n  tunnels:\n    - { name: a, type: tcp, local_port: 80, remote_port: 22 }\n    - { name: b, local_port: 81, remote_port: 22 }\n".to_owned(),
        "client:\n  client_id: \"a b\"\n".to_owned(),
        "client:\n  server_addr: \"a.example:7000\"\n".to_owned(),
        "client:\n  server_addr: 0.0.0.0\n".to_owned(),
        "client:\n  server_port: 0\n".to_owned(),
        "client:\n  admin: { bind: \"0.0.0.0:7501\" }\n".to_owned(),
        "client:\n  lanes: 65\n".to_owned(),
        "client:\n  reconnect: { backoff_factor: 0.5 }\n".to_owned(),
        "client:\n  reconnect: { initial_delay: 0ms }\n".to_owned(),
        "client:\n  reconnect: { initial_delay: 10s, max_delay: 1s }\n".to_owned(),
        "client:\n  reconnect: { enable_jitter: maybe }\n".to_owned(),
        "client:\n  reconnect: { jitter: true }\n".to_owned(),
        "client:\n  auth_token: \"\"\n".to_owned(),
        "client:\n  auth_token: \"not\\nshown\"\n".to_owned(),
        "client:\n  auth_token: 123456789\n".to_owned(),
        "client:\n  auth_token: [not-shown]\n".to_owned(),
        "client:\n  auth_token:\n".to_owned(),
        "client:\n  auth_token_file: /nonexistent\n".to_owned(),
        "client: {}\n".to_owned(),
        "server: {}\n".to_owned(),
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    insta::assert_snapshot!(all("client", "yml", &texts));
}

#[test]
fn toml() {
    insta::assert_snapshot!(all(
        "server",
        "toml",
        &[
            "[server]\nbind_prot = 7000\n",
            "[server]\nbind_port = \"eighty\"\n",
            "[server]\nbind_port = 0x1_0000\n",
            "[server]\nbindPort = 7000\n",
            "[server.tls]\ncert_file = \"a\"\n",
            "[server.http]\nport = 80\n",
            "server.timeouts.drain = 30\n",
            "server.timeouts.drain = 1979-05-27\n",
            "[server]\nbind_port = \n",
            "[server]\nbind_port = 1\nbind_port = 2\n",
        ]
    ));
}

#[test]
fn json() {
    insta::assert_snapshot!(all(
        "server",
        "json",
        &[
            "{\"server\": {\"bind_prot\": 7000}}",
            "{\n\t\"server\": {\n\t\t\"bind_port\": \"eighty\"\n\t}\n}",
            "{\"server\": {\"domain\": \"é\\\"\\\\\", \"bind_port\": 70000}}",
            "{\"server\": {\"bindPort\": 7000}}",
            "{\"server\": {\"tls\": \"perhaps\"}}",
            "{\"server\": {\"rules\": [{\"to\": {\"tunnel\": \"a\"}}, {\"tunnel\": null}]}}",
            "{\"server\": {\"bind_port\": 1, \"bind_port\": 2}}",
            "{\"server\": {\"timeouts\": {\"drain\": 1.5}}}",
            "{\"server\": {\"bind_port\": 1,}}",
            "{\"server\": ",
            "",
        ]
    ));
}

#[test]
fn environment() {
    let tell = |name: &str, value: &str| {
        message(
            "server",
            "yaml",
            "server: { http: {}, threads: 1 }\n",
            &[(name, value)],
        )
    };
    let cases = [
        tell("ADIT__SERVER__BIND_PORT", "eighty"),
        tell("ADIT__SERVER__BIND_PROT", "7000"),
        tell("ADIT__SERVER__HTTP__BIND_PORT", "70000"),
        tell("ADIT__SERVER__THREADS__COUNT", "2"),
        tell("ADIT__SERVER__TLS__CERT_FILE", "a"),
        tell("ADIT__SERVER__RULES", "[{ host: a"),
        tell("ADIT__SERVER__RULES", "[{ hots: a }]"),
        tell("ADIT__SERVER__RULES", "a.example"),
        tell("ADIT__SERVER__AUTH", "not-shown"),
        tell("ADIT__SERVER", "{}"),
        tell("ADIT__SEVRER__BIND_PORT", "7000"),
        tell("ADIT__TOKENS", "not-shown"),
        tell("ADIT__TOKEN", "not\nshown"),
        tell("ADIT__TOKEN", "short"),
        message(
            "client",
            "yaml",
            "client: {}\n",
            &[("ADIT__TOKEN", "not\nshown")],
        ),
        message(
            "client",
            "yaml",
            "client: {}\n",
            &[("ADIT__CLIENT__AUTH_TOKEN", " \n")],
        ),
        message(
            "server",
            "yaml",
            "server: { colour: blue }\n",
            &[
                ("ADIT__SERVER__BIND_PROT", "1"),
                ("ADIT__TOKENS", "not-shown"),
            ],
        ),
    ];
    insta::assert_snapshot!(cases.join("\n\n"));
}

#[test]
fn flags() {
    let variables = || [(HOME.0.to_owned(), HOME.1.to_owned())].into_iter();
    let server = |overrides: ServerOverrides| {
        load_server(None, variables(), &overrides)
            .unwrap_err()
            .to_string()
    };
    let client = |overrides: ClientOverrides| {
        load_client(None, variables(), &overrides)
            .unwrap_err()
            .to_string()
    };
    let tunnel = |tunnel: TunnelOverrides| {
        client(ClientOverrides {
            tunnel: Some(tunnel),
            ..ClientOverrides::default()
        })
    };
    let service = |service: &str| TunnelOverrides {
        service: service.to_owned(),
        ..TunnelOverrides::default()
    };
    let cases = [
        server(ServerOverrides {
            admin: Some("everywhere".to_owned()),
            ..ServerOverrides::default()
        }),
        server(ServerOverrides {
            threads: Some(0),
            ..ServerOverrides::default()
        }),
        server(ServerOverrides {
            http_port: Some(7000),
            ..ServerOverrides::default()
        }),
        client(ClientOverrides {
            server: Some("a:b".to_owned()),
            ..ClientOverrides::default()
        }),
        client(ClientOverrides {
            token_file: Some("/nonexistent".into()),
            ..ClientOverrides::default()
        }),
        tunnel(service("eighty")),
        tunnel(service("0")),
        tunnel(service("70000")),
        tunnel(service("http://localhost:3000")),
        tunnel(TunnelOverrides {
            local_protocol: Some("h2c".to_owned()),
            ..service("https://localhost:3000")
        }),
        tunnel(TunnelOverrides {
            kind: TunnelKind::Grpc,
            tls_ca: Some("/nonexistent.pem".into()),
            ..service("https://localhost:3000")
        }),
        tunnel(TunnelOverrides {
            kind: TunnelKind::Grpc,
            tls_name: Some("a b".to_owned()),
            ..service("3000")
        }),
        tunnel(TunnelOverrides {
            domains: vec!["a.example".to_owned(), "b_*.example".to_owned()],
            ..service("80")
        }),
        tunnel(TunnelOverrides {
            load_balance: Some("random".to_owned()),
            ..service("80")
        }),
        tunnel(TunnelOverrides {
            name: Some("a b".to_owned()),
            ..service("80")
        }),
        client(ClientOverrides::default()),
    ];
    insta::assert_snapshot!(cases.join("\n\n"));
}

#[test]
fn files_that_are_none() {
    let load = |path: &std::path::Path| {
        load_server(Some(path), std::iter::empty(), &ServerOverrides::default()).unwrap_err()
    };
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let file = dir.path().join(name);
        std::fs::write(&file, content).unwrap();
        file
    };
    let missing = load(&dir.path().join("missing.yaml"));
    assert!(missing.message().starts_with("cannot read the file: "));
    assert_eq!((missing.line(), missing.column()), (None, None));
    assert!(missing.help().unwrap().contains("--config"));

    let error = load(&file("server.ini", b""));
    assert!(
        error
            .message()
            .contains("expected .yaml, .yml, .toml or .json")
    );

    let error = load(&file("a.yaml", b"server:\n  domain: a\xff\n"));
    assert_eq!((error.line(), error.column()), (Some(2), Some(12)));
    assert_eq!(error.message(), "expected text in UTF-8");

    let mut text = b"server: {}\n".to_vec();
    text.resize(1 << 20, b'#');
    load_server(
        Some(&file("b.yaml", &text)),
        std::iter::empty(),
        &ServerOverrides::default(),
    )
    .unwrap();
    text.push(b'#');
    assert!(load(&file("c.yaml", &text)).message().contains("1 MiB"));
}

#[test]
fn an_error_has_its_parts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.yaml");
    std::fs::write(&file, "server:\n  http: { port: 80 }\n").unwrap();
    let error =
        load_server(Some(&file), std::iter::empty(), &ServerOverrides::default()).unwrap_err();
    assert_eq!(error.line(), Some(2));
    assert_eq!(error.column(), Some(11));
    assert_eq!(error.key(), "server.http.port");
    assert_eq!(error.message(), "unknown key `port`");
    assert_eq!(error.help(), Some("adit calls it `bind_port`"));
}

#[test]
fn all_errors_of_a_file_are_shown() {
    insta::assert_snapshot!(all(
        "client",
        "yaml",
        &[
            // One error of each kind, in several sections.
            "client:\n  auth_token: 12345678\n  lanes: many\n  colour: blue\n  timeouts: { drain: 30, dial: soon }\n  \
             tunnels:\n    - { name: web, local_port: 80, domain: a.example, wieght: 2 }\n    - { name: \"-\", type: ftp, local_port: 0 }\n    \
             - { name: last, local_port: 81 }\n    - { name: last, local_port: 82 }\n",
            // Errors that are only caused by the first one are not reported.
            "client:\n  auth_token: t\n  tunnels:\n    - { name: web, local_prot: 80 }\n    - { name: dns, type: upd, local_port: 53, session_timeout: 30s }\n",
            "client:\n  auth_token: t\n  reconnect: { initial_delay: soon, max_delay: 1ms }\n",
        ]
    ));
}

#[test]
fn no_more_than_twenty_errors_are_shown() {
    let keys: String = (0..30).map(|key| format!("  k{key}: 1\n")).collect();
    let errors = message("server", "yaml", &format!("server:\n{keys}"), &[]);
    assert_eq!(errors.matches("unknown key").count(), 20, "{errors}");
    assert!(
        errors.ends_with("only 20 errors are shown, there may be more"),
        "{errors}"
    );
}
