//! - Whatever a file, a variable or a flag contains, the result is settings or an error, never a panic.
//! - Settings that are written with known keys and values in their ranges are read back, in every format.
//! - The place of an error about a file is within the file.

use adit_config::{ClientOverrides, ServerOverrides, TunnelOverrides, load_client, load_server};
use proptest::prelude::*;

/// Pieces of files, most of which the parser accepts.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "server",
            "client",
            "http",
            "bind_port",
            "bind_addr",
            "auth",
            "token",
            "method",
            "rules",
            "tunnels",
            "name",
            "local_port",
            "config",
            "tunnel_type",
            "domain",
            "limits",
            "max_window",
            "timeouts",
            "drain",
            "reconnect",
            "backoff_factor",
            "custom_headers",
            "admin",
            "bind",
            "to",
            "tunnel",
            "header",
            ": ",
            ":\n  ",
            ":\n    - ",
            "{",
            "}",
            "[",
            "]",
            ",",
            "\n",
            "\"",
            "'",
            "&a ",
            "*a",
            "<<: ",
            "!!int ",
            "|\n",
            "---\n",
            "= ",
            "[server]\n",
            "[[client.tunnels]]\n",
            "7000",
            "-1",
            "1e400",
            ".nan",
            "0x10",
            "5s",
            "64KiB",
            "null",
            "true",
            "*.example.com",
            "127.0.0.1:1",
            "\t",
            "é",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..24).prop_map(|pieces| pieces.concat())
}

fn load(extension: &str, content: &[u8], variable: &(String, String), flag: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(format!("adit.{extension}"));
    std::fs::write(&file, content).unwrap();
    let variables = || {
        [
            ("HOME".to_owned(), "/nonexistent".to_owned()),
            variable.clone(),
        ]
        .into_iter()
    };
    let server = ServerOverrides {
        admin: Some(flag.to_owned()),
        domain: Some(flag.to_owned()),
        ..ServerOverrides::default()
    };
    let client = ClientOverrides {
        server: Some(flag.to_owned()),
        tunnel: Some(TunnelOverrides {
            service: flag.to_owned(),
            domains: vec![flag.to_owned()],
            ..TunnelOverrides::default()
        }),
        ..ClientOverrides::default()
    };
    let lines = content.split(|&byte| byte == b'\n').count();
    let errors = [
        load_server(Some(&file), variables(), &ServerOverrides::default()).err(),
        load_server(Some(&file), variables(), &server).err(),
        load_client(Some(&file), variables(), &ClientOverrides::default()).err(),
        load_client(Some(&file), variables(), &client).err(),
    ];
    for error in errors.into_iter().flatten() {
        assert!(!error.message().is_empty());
        // One more line: the error about a file that ends too early is reported after its end.
        assert!(error.line().is_none_or(|line| line <= lines + 1), "{error}");
        assert_eq!(error.line().is_some(), error.column().is_some(), "{error}");
    }
}

proptest! {
    #[test]
    fn no_file_panics(
        content in text(),
        extension in prop::sample::select(vec!["yaml", "toml", "json"]),
        name in "ADIT__(SERVER|CLIENT)__(HTTP__BIND_PORT|RULES|TUNNELS|AUTH|LANES|[A-Z_]{0,8})",
        value in text(),
        flag in "[a-z0-9.:\\[\\]*]{0,12}|\\PC{0,8}",
    ) {
        load(extension, content.as_bytes(), &(name, value), &flag);
    }

    #[test]
    fn no_bytes_panic(
        content in prop::collection::vec(any::<u8>(), 0..256),
        extension in prop::sample::select(vec!["yaml", "toml", "json"]),
    ) {
        load(extension, &content, &("ADIT__LOG".into(), "info".into()), "80");
    }

    #[test]
    fn what_is_written_is_read(
        (tunnel, http) in (1..=u16::MAX, 1..=u16::MAX).prop_filter("two ports", |(a, b)| a != b),
        clients in 1..=1_000_000_usize,
        drain_ms in 0..=31_536_000_000_u64,
        window in 4_096..=1_u64 << 30,
    ) {
        let files = [
            ("yaml", format!("server:\n  bind_addr: 192.0.2.1\n  bind_port: {tunnel}\n  http:\n    bind_port: {http}\n  \
                max_clients: {clients}\n  timeouts: {{ drain: {drain_ms}ms }}\n  limits: {{ initial_window: 4KiB, max_window: {window} }}\n")),
            ("toml", format!("[server]\nbind_addr = '192.0.2.1'\nbind_port = {tunnel}\nhttp.bind_port = {http}\n\
                max_clients = {clients}\ntimeouts.drain = '{drain_ms}ms'\nlimits = {{ initial_window = '4KiB', max_window = {window} }}\n")),
            ("json", format!("{{\"server\":{{\"bind_addr\":\"192.0.2.1\",\"bind_port\":{tunnel},\"http\":{{\"bind_port\":{http}}},\
                \"max_clients\":{clients},\"timeouts\":{{\"drain\":\"{drain_ms}ms\"}},\
                \"limits\":{{\"initial_window\":\"4KiB\",\"max_window\":{window}}}}}}}")),
        ];
        for (extension, content) in files {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join(format!("server.{extension}"));
            std::fs::write(&file, content).unwrap();
            let settings = load_server(Some(&file), std::iter::empty(), &ServerOverrides::default()).unwrap().settings;
            prop_assert_eq!(settings.tunnel_addr.port(), tunnel);
            prop_assert_eq!(settings.http_addr.port(), http);
            prop_assert_eq!(settings.max_clients, clients);
            prop_assert_eq!(settings.timeouts.drain, std::time::Duration::from_millis(drain_ms));
            prop_assert_eq!(settings.limits.max_window_bytes, window);
            prop_assert_eq!(settings.limits.initial_window_bytes, 4_096);
        }
    }
}

#[test]
fn deep_and_growing_files_are_refused() {
    let nested =
        |open: &str, close: &str| format!("{}{}", open.repeat(50_000), close.repeat(50_000));
    let mut laughs = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (from, to) in ('a'..='y').zip('b'..='z') {
        let aliases = vec![format!("*{from}"); 9].join(", ");
        laughs.push_str(&format!("{to}: &{to} [{aliases}]\n"));
    }
    for (extension, content) in [
        ("yaml", nested("[", "]")),
        ("yaml", nested("{a: ", "}")),
        ("yaml", format!("{}{}", "[".repeat(64), "]".repeat(64))),
        ("yaml", format!("{}{}", "{a: ".repeat(64), "}".repeat(64))),
        (
            "yaml",
            (0..64)
                .map(|depth| format!("{}a:\n", " ".repeat(depth)))
                .collect(),
        ),
        ("yaml", "- ".repeat(50_000)),
        ("yaml", "? ".repeat(50_000)),
        ("yaml", format!("a:\n  {}", "-\t".repeat(50_000))),
        ("yaml", laughs),
        ("json", nested("[", "]")),
        ("json", nested("{\"a\": ", "}")),
        ("toml", format!("a = {}", nested("[", "]"))),
        ("toml", format!("a = {}", nested("{a = ", "}"))),
        ("toml", format!("{}a = 1", "a.".repeat(50_000))),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(format!("server.{extension}"));
        std::fs::write(&file, &content).unwrap();
        let error = load_server(Some(&file), std::iter::empty(), &ServerOverrides::default());
        assert!(error.is_err(), "{extension}: {}", &content[..20]);
    }
}

#[test]
fn many_values_on_one_line_are_read_in_time() {
    let rule = |i: usize| format!("{{\"host\":\"h{i}.example\",\"to\":{{\"tunnel\":\"t\"}}}}");
    let rules: Vec<String> = (0..10_000).map(rule).collect();
    let content = format!("{{\"server\":{{\"rules\":[{}]}}}}", rules.join(","));
    let dir = tempfile::tempdir().unwrap();
    for extension in ["json", "yaml"] {
        let file = dir.path().join(format!("server.{extension}"));
        std::fs::write(&file, &content).unwrap();
        let settings = load_server(Some(&file), std::iter::empty(), &ServerOverrides::default());
        assert_eq!(settings.unwrap().settings.rules.len(), 10_000);
    }
}
