//! `layers` in each section that allows them.

use std::time::Duration;

use adit_client::{EntryKind, Settings as ClientSettings};
use adit_config::{ClientOverrides, Loaded, ServerOverrides, load_client, load_server};
use adit_server::{
    Network, Settings as ServerSettings,
    layers::{
        AccessConfig, AccessRule, BanRule, BasicAuth, HeaderEdit, HeaderToken, IpRules,
        LayerConfig, PasswordHash, RateLimit, RateOf, Redirect, RequiredHeader, Respond, TokenHash,
    },
};

fn in_file<T>(name: &str, text: &str, load: impl FnOnce(&std::path::Path) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("page.html"), "<p>noon").unwrap();
    let file = dir.path().join(name);
    std::fs::write(&file, text).unwrap();
    load(&file)
}

fn server(text: &str) -> Result<Loaded<ServerSettings>, String> {
    let none = std::iter::empty();
    in_file("server.yaml", text, |file| {
        let loaded = load_server(Some(file), none, &ServerOverrides::default());
        loaded.map_err(|error| error.to_string())
    })
}

fn client(text: &str) -> Result<Loaded<ClientSettings>, String> {
    let none = std::iter::empty();
    let text = format!("client:\n  server_addr: a.example\n  auth_token: secret\n{text}");
    in_file("client.yaml", &text, |file| {
        let loaded = load_client(Some(file), none, &ClientOverrides::default());
        loaded.map_err(|error| error.to_string())
    })
}

#[test]
fn layers_are_read_in_their_order_in_each_place() {
    let layers = r#"[
        { request_headers: { remove: [x-a, X-B], set: { x-c: "1" }, add: { x-d: [a, b] } } },
        { require_header: { name: x-key, values: [one, other], status: 404 } },
        { redirect: { scheme: https, host: "www.example.com:8443", status: 301 } },
        { response_headers: { remove: server } },
        { require_header: { name: x-any } },
        { redirect: { host: b.example } },
        { respond: { status: 204 } },
        { respond: { status: 503, headers: { x-e: [c, d], content-type: text/html }, body_file: page.html } }
      ]"#;
    let mut request = HeaderEdit::default();
    request.remove(b"x-a").unwrap();
    request.remove(b"x-b").unwrap();
    request.set(b"x-c", b"1").unwrap();
    request.add(b"x-d", b"a").unwrap();
    request.add(b"x-d", b"b").unwrap();
    let mut key = RequiredHeader::new(b"x-key", 404).unwrap();
    key.accept(b"one").unwrap();
    key.accept(b"other").unwrap();
    let mut response = HeaderEdit::default();
    response.remove(b"server").unwrap();
    let mut page = Respond::new(503).unwrap();
    for (name, value) in [("x-e", "c"), ("x-e", "d"), ("content-type", "text/html")] {
        page.add_header(name.as_bytes(), value.as_bytes()).unwrap();
    }
    page.set_body("<p>noon").unwrap();
    let expected = [
        LayerConfig::RequestHeaders(request),
        LayerConfig::RequireHeader(key),
        LayerConfig::Redirect(Redirect::new("https", "www.example.com:8443", 301).unwrap()),
        LayerConfig::ResponseHeaders(response),
        LayerConfig::RequireHeader(RequiredHeader::new(b"x-any", 403).unwrap()),
        LayerConfig::Redirect(Redirect::new("", "b.example", 308).unwrap()),
        LayerConfig::Respond(Respond::new(204).unwrap()),
        LayerConfig::Respond(page),
    ];

    let text = format!(
        "server:\n  layers: {layers}\n  rules:\n    - {{ host: a.example, to: {{ tunnel: web }}, layers: {layers} }}\n"
    );
    let loaded = server(&text).unwrap();
    assert_eq!(loaded.settings.layers, expected);
    assert_eq!(loaded.settings.rules[0].layers, expected);
    let watched = |path: &std::path::PathBuf| path.ends_with("page.html");
    assert!(loaded.files.iter().any(watched), "{:?}", loaded.files);

    let text = format!(
        "  tunnels:\n    - {{ name: web, local_port: 80, layers: {layers} }}\n    \
         - {{ name: nested, tunnel_type: grpc, config: {{ local_port: 81, layers: {layers} }} }}\n  \
         entries:\n    - {{ name: erp, listen: 0, upstream: erp, layers: {layers} }}\n"
    );
    let settings = client(&text).unwrap().settings;
    assert_eq!(settings.tunnels[0].layers, expected);
    assert_eq!(settings.tunnels[1].layers, expected);
    assert_eq!(settings.entries[0].kind, EntryKind::Http);
    assert_eq!(settings.entries[0].layers, expected);
}

#[test]
fn layers_are_optional_and_may_be_empty() {
    for layers in ["", "layers: [],"] {
        let text = format!("  tunnels: [{{ {layers} name: web, local_port: 80 }}]\n");
        assert_eq!(client(&text).unwrap().settings.tunnels[0].layers, []);
    }
    assert_eq!(server("server: {}\n").unwrap().settings.layers, []);
}

/// The printed error for one list of layers of a server.
fn message(layers: &str) -> String {
    let text = format!("server:\n  layers:\n    {layers}\n");
    let error = server(&text).expect_err(layers);
    // The directory is removed from the text.
    let lines = error.lines().map(|line| match line.find("server.yaml") {
        Some(start) => &line[start..],
        None => line,
    });
    lines.collect::<Vec<_>>().join("\n   ")
}

#[test]
fn invalid_layers_are_refused_with_their_place() {
    let lists = [
        "{ respond: { status: 503 } }",
        "- respond",
        "- {}",
        "- { repsond: { status: 503 } }",
        "- { basic_auth: {} }",
        "- { respond: { status: 503 }, enforce: false }",
        "- { set_request_headers: { x-a: b } }",
        "- { headers: { x-a: b } }",
        "- { respond: { status: 503 }, redirect: { scheme: https } }",
        "- request_headers:",
        "- { request_headers: { x-a: b } }",
        "- { request_headers: { set: [x-a] } }",
        "- { request_headers: { set: { x-a: 5 } } }",
        "- { request_headers: { set: { x-a: [a, b] } } }",
        "- { request_headers: { set: { \"x a\": b } } }",
        "- { request_headers: { set: { Host: b } } }",
        "- { request_headers: { set: { x-key: \"not-shown\\n\" } } }",
        "- { response_headers: { remove: [Content-Length] } }",
        "- { response_headers: { add: { grpc-status: \"0\" } } }",
        "- { require_header: { values: [a] } }",
        "- { require_header: { name: x-key, values: [] } }",
        "- { require_header: { name: x-key, values: [5] } }",
        "- { require_header: { name: x-key, value: not-shown } }",
        "- { require_header: { name: x-key, status: 401 } }",
        "- { redirect: {} }",
        "- { redirect: { scheme: ftp } }",
        "- { redirect: { host: \"http://a.example\" } }",
        "- { redirect: { scheme: https, status: 200 } }",
        "- { redirect: { to: \"https://a.example\" } }",
        "- { respond: {} }",
        "- { respond: { status: 101 } }",
        "- { respond: { status: often } }",
        "- { respond: { status: 204, body: a } }",
        "- { respond: { status: 503, body: a, body_file: b } }",
        "- { respond: { status: 503, body_file: /nonexistent } }",
        "- { respond: { status: 503, content_type: text/html } }",
        "- { ip: {} }",
        "- { ip: { allow: [] } }",
        "- { ip: { allow: [10.0.0.0/33] } }",
        "- { ip: { block: [10.0.0.0/8] } }",
        "- { ip: { deny: [10.0.0.0/8] }, sufficient: true }",
        "- { ip: { deny: [10.0.0.0/8] }, enforce: maybe }",
        "- { ip_rules: { deny: [10.0.0.0/8] } }",
        "- { basic_auth: { users: [] } }",
        "- { basic_auth: { users: [{ name: a }] } }",
        "- { basic_auth: { users: [{ password: not-shown }] } }",
        "- { basic_auth: { users: [{ name: a, password: hidden }] } }",
        "- { basic_auth: { users: [{ name: a, hash: not-shown }] } }",
        "- { basic_auth: { users: [{ name: a, password: not-shown, hash: b }] } }",
        "- { basic_auth: { users: [{ name: \"a:b\", password: not-shown }] } }",
        "- { basic_auth: { users: [{ name: a, password: not-shown }], realm: \"\\\"\" } }",
        "- { header_token: { tokens: [hidden] } }",
        "- { header_token: { token: not-shown } }",
        "- { rate_limit: {} }",
        "- { rate_limit: { requests: 10 } }",
        "- { rate_limit: { requests: 10/y } }",
        "- { rate_limit: { burst: 10 } }",
        "- { ban: { after: 0 } }",
        "- { ban: { duration: 1h }, sufficient: true }",
    ];
    let mut out = String::new();
    for list in lists {
        out.push_str(&format!("{list}\n=> {}\n\n", message(list)));
    }
    insta::assert_snapshot!(out);
}

#[test]
fn access_layers_are_read_with_their_flags() {
    let layers = r#"[
        { ip: { allow: [10.0.0.0/8, "::1"], deny: 10.0.0.1 }, sufficient: true },
        { enforce: false, ip: { deny: [192.0.2.0/24] } }
      ]"#;
    let networks = |texts: &[&str]| -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    };
    let both = IpRules::new(networks(&["10.0.0.0/8", "::1"]), networks(&["10.0.0.1"])).unwrap();
    let denied = IpRules::new(Vec::new(), networks(&["192.0.2.0/24"])).unwrap();
    let access = |rule, enforce, sufficient| {
        LayerConfig::Access(AccessConfig::new(rule, enforce, sufficient).unwrap())
    };
    let expected = [
        access(AccessRule::Ip(both), true, true),
        access(AccessRule::Ip(denied), false, false),
    ];
    let loaded = server(&format!("server:\n  layers: {layers}\n")).unwrap();
    assert_eq!(loaded.settings.layers, expected);
    let text = format!(
        "  tunnels: [{{ name: a, type: udp, local_port: 1, layers: {layers} }}]\n  \
         entries: [{{ name: a, type: tcp, listen: 0, upstream: a, layers: {layers} }}]\n"
    );
    let settings = client(&text).unwrap().settings;
    assert_eq!(settings.tunnels[0].layers, expected);
    assert_eq!(settings.entries[0].layers, expected);
}

#[test]
fn credentials_and_rates_of_visitors_are_read() {
    let hash = PasswordHash::random("correct horse").unwrap();
    let layers = format!(
        r#"[
        {{ ban: {{ after: 3, within: 1m, duration: 2h }} }},
        {{ rate_limit: {{ requests: 10/s, burst: 20, total_requests: 500/m, connections: 5/s }}, enforce: false }},
        {{ basic_auth: {{ users: [{{ name: alice, password: correct horse }}, {{ name: bob, hash: "{hash}" }}], realm: office }}, sufficient: true }},
        {{ header_token: {{ tokens: a token of the test, keep: true }} }},
        {{ ban: {{}} }}
      ]"#
    );
    let access = |rule, enforce, sufficient| {
        LayerConfig::Access(AccessConfig::new(rule, enforce, sufficient).unwrap())
    };
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3_600));
    let rate = |text: &str| text.parse::<RateOf>().unwrap();
    let limit = RateLimit {
        requests: Some(rate("10/s").with_burst(20.try_into().unwrap())),
        total_requests: Some(RateOf::new(500, minute, 0).unwrap()),
        connections: Some(rate("5/s")),
    };
    let of_alice = PasswordHash::of_user("alice", "correct horse").unwrap();
    let users = vec![("alice".to_owned(), of_alice), ("bob".to_owned(), hash)];
    let basic = BasicAuth::new(users, "office", false).unwrap();
    let token = HeaderToken::new(vec![TokenHash::of("a token of the test").unwrap()], true);
    let expected = [
        access(
            AccessRule::Ban(BanRule::new(3, minute, 2 * hour).unwrap()),
            true,
            false,
        ),
        access(AccessRule::RateLimit(limit), false, false),
        access(AccessRule::BasicAuth(basic), true, true),
        access(AccessRule::HeaderToken(token.unwrap()), true, false),
        access(
            AccessRule::Ban(BanRule::new(10, 10 * minute, hour).unwrap()),
            true,
            false,
        ),
    ];
    let loaded = server(&format!("server:\n  layers: {layers}\n")).unwrap();
    assert_eq!(loaded.settings.layers, expected);
    let shown = format!("{:?}", loaded.settings.layers);
    assert!(
        !shown.contains("argon2") && !shown.contains("horse"),
        "{shown}"
    );
    for layer in [
        "basic_auth: { users: { name: a, password: password } }",
        "header_token: { tokens: a token of the test }",
    ] {
        let text = format!(
            "  tunnels: [{{ name: a, type: udp, local_port: 1, layers: [{{ {layer} }}] }}]\n"
        );
        let error = client(&text).unwrap_err();
        assert!(error.contains("is not for `type: udp`"), "{error}");
    }
}

#[test]
fn providers_of_forward_auth_are_defined_by_the_server_alone() {
    let text = r#"
server:
  forward_auth:
    - { name: sso, url: "https://sso.example:8443/verify?a=b", copy_headers: [Remote-User], send_headers: x-tenant, timeout: 1s, max_body: 1KiB, tls: { insecure: true } }
    - { name: plain, url: "http://[::1]" }
  layers: [{ forward_auth: sso }]
"#;
    let settings = server(text).unwrap().settings;
    let [sso, plain] = &settings.forward_auth[..] else {
        panic!("{:?}", settings.forward_auth)
    };
    assert_eq!(
        (sso.address.to_string(), &*sso.host),
        ("sso.example:8443".to_owned(), "sso.example:8443")
    );
    assert_eq!(
        (&*sso.target, sso.timeout, sso.max_body_bytes),
        ("/verify?a=b", Duration::from_secs(1), 1024)
    );
    assert_eq!(
        (sso.copied[0].as_str(), sso.sent[0].as_str()),
        ("remote-user", "x-tenant")
    );
    assert!(sso.tls.is_some() && plain.tls.is_none());
    assert_eq!(
        (plain.address.to_string(), &*plain.target),
        ("[::1]:80".to_owned(), "/")
    );
    assert_eq!(settings.layers[0].provider(), Some("sso"));
    for (text, problem) in [
        ("layers: [{ forward_auth: sso }]", "unknown provider"),
        (
            "rules: [{ host: a.example, to: { tunnel: a }, layers: [{ forward_auth: sso }] }]",
            "unknown provider",
        ),
        (
            "forward_auth: [{ name: a, url: /verify }]",
            "expected a URL",
        ),
        (
            "forward_auth: [{ name: a, url: \"ftp://a.example\" }]",
            "expected a URL",
        ),
        (
            "forward_auth: [{ name: a, url: \"http://u:p@a.example\" }]",
            "without a user",
        ),
        (
            "forward_auth: [{ name: a, url: \"http://a.example\", tls: true }]",
            "begins with https",
        ),
        (
            "forward_auth: [{ name: a, url: \"http://a.example\", copy_headers: [host] }]",
            "cannot be changed",
        ),
        ("forward_auth: [{ name: a }]", "`url` is missing"),
        (
            "forward_auth: [{ name: a, url: \"http://a\" }, { name: a, url: \"http://b\" }]",
            "another provider",
        ),
    ] {
        let error = server(&format!("server:\n  {text}\n")).unwrap_err();
        assert!(error.contains(problem), "{text}: {error}");
    }
    // A client names a provider, and only for its tunnels.
    let layers = "layers: [{ forward_auth: sso }]";
    client(&format!(
        "  tunnels: [{{ name: a, local_port: 1, {layers} }}]\n"
    ))
    .unwrap();
    let entry = format!("  entries: [{{ name: a, listen: 0, upstream: a, {layers} }}]\n");
    let error = client(&entry).unwrap_err();
    assert!(error.contains("not for an entry"), "{error}");
    let url = "  tunnels: [{ name: a, local_port: 1, layers: [{ forward_auth: { url: \"http://10.0.0.1\" } }] }]\n";
    client(url).unwrap_err();
}

#[test]
fn proxy_protocol_needs_trusted_proxies() {
    let read = |text: &str| server(&format!("server:\n  {text}\n"));
    let settings = read("trusted_proxies: 10.0.0.1\n  proxy_protocol: required")
        .unwrap()
        .settings;
    assert!(settings.proxy_protocol);
    assert!(!read("proxy_protocol: off").unwrap().settings.proxy_protocol);
    for (text, problem) in [
        ("proxy_protocol: required", "there are none"),
        ("proxy_protocol: v2", "expected `required` or `off`"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn layers_with_heads_do_not_fit_connections_and_flows() {
    let layers = "layers: [{ respond: { status: 503 } }]";
    for text in [
        format!("  tunnels: [{{ name: a, type: tcp, local_port: 1, {layers} }}]\n"),
        format!("  tunnels: [{{ name: a, type: udp, local_port: 1, {layers} }}]\n"),
        format!("  entries: [{{ name: a, type: tcp, listen: 0, upstream: a, {layers} }}]\n"),
    ] {
        let error = client(&text).unwrap_err();
        assert!(
            error.contains("a layer `respond` is not for `type: "),
            "{error}"
        );
    }
}

#[test]
fn layers_of_all_tunnels_fit_into_one_message() {
    let page = "a".repeat(200 << 10);
    let tunnels = |count: usize| {
        let tunnels = (0..count).map(|number| {
            format!(
                "    - {{ name: t{number}, local_port: 80, layers: [{{ respond: {{ status: 503, body: {page} }} }}] }}\n"
            )
        });
        format!("  tunnels:\n{}", tunnels.collect::<String>())
    };
    assert_eq!(client(&tunnels(2)).unwrap().settings.tunnels.len(), 2);
    let error = client(&tunnels(3)).unwrap_err();
    assert!(error.contains("client.tunnels"), "{error}");
}
