//! The reference of settings, `docs/settings.md`: a test generates it from the keys that the loader reads, with their
//! bounds and defaults, and from the descriptions below. A key without a description, or a description without a key,
//! fails the test.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt::{Display, Write},
    fs,
    ops::RangeInclusive,
    path::Path,
};

use bytesize::ByteSize;

use crate::{ClientOverrides, ServerOverrides, load_client, load_server};

mod descriptions;

use descriptions::{CLIENT, Description, LAYERS, SERVER};

/// A key that the loader has read.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    path: String,
    /// The form and the default of the key, if the loader's own bounds determine them.
    bounds: Option<(String, String)>,
}

thread_local! {
    static KEYS: RefCell<Vec<Key>> = const { RefCell::new(Vec::new()) };
}

fn record(path: &str, bounds: Option<(String, String)>) {
    // Items of a list share one description.
    let mut plain = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        plain.push_str("[]");
        rest = after.split_once(']').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    // Scopes have the same keys for every method, and are described once.
    plain = plain.replace("auth[].users[].scopes", "auth[].scopes");
    // Lists of layers have the same keys everywhere, and are described once.
    if let Some(at) = plain.find("layers[]") {
        plain.replace_range(..at, "");
    }
    KEYS.with_borrow_mut(|keys| match keys.iter_mut().find(|key| key.path == plain) {
        Some(key) if key.bounds.is_none() => key.bounds = bounds,
        Some(_) => {}
        None => keys.push(Key {
            path: plain,
            bounds,
        }),
    });
}

pub(crate) fn key(path: &str) {
    record(path, None);
}

pub(crate) fn number(path: &str, range: &RangeInclusive<u64>, default: impl Display) {
    let kind = format!("{} to {}", range.start(), range.end());
    record(path, Some((kind, default.to_string())));
}

pub(crate) fn size(path: &str, range: &RangeInclusive<u64>, default: impl Display) {
    let kind = format!(
        "size, {} to {}",
        ByteSize(*range.start()),
        ByteSize(*range.end())
    );
    let default = default.to_string();
    let default = default
        .parse()
        .map_or(default, |bytes| ByteSize(bytes).to_string());
    record(path, Some((kind, default)));
}

pub(crate) fn wait(path: &str, least: std::time::Duration, default: std::time::Duration) {
    let kind = if least.is_zero() {
        "time".to_owned()
    } else {
        format!("time, at least {}", time(least))
    };
    record(path, Some((kind, time(default))));
}

fn time(time: std::time::Duration) -> String {
    let (millis, seconds) = (time.as_millis(), time.as_secs());
    match (millis % 1_000, seconds % 60, seconds % 3_600) {
        (0, 0, 0) if seconds > 0 => format!("{}h", seconds / 3_600),
        (0, 0, _) if seconds > 0 => format!("{}m", seconds / 60),
        (0, _, _) => format!("{seconds}s"),
        _ => format!("{millis}ms"),
    }
}

/// Files with every section and list, so that each key is read.
const SAMPLE_SERVER: &str = r#"
server:
  tls: { cert_file: tls.crt, key_file: tls.key, client_ca_file: tls.crt }
  auth:
    - { method: mtls, users: [{ user: alice }] }
    - { user: alice, token: "a token of the sample", scopes: { max_clients: 1, max_tunnels: 1 } }
    - { method: jwt, audience: adit, jwks_url: "http://127.0.0.1/keys" }
  https: { certificates: [{ cert_file: tls.crt, key_file: tls.key }] }
  limits: { per_client: { quota: {} }, per_tunnel: { quota: {} }, per_user: { quota: {} }, users: [{ name: alice, quota: {} }] }
  shared_groups: [{ group: office, users: [alice] }]
  upstreams: [{ name: erp, protocol: h2, tls: { server_name: erp.internal }, servers: [{ address: "127.0.0.1:1" }] }]
  rules: [{ host: a.example, header: { x-env: test }, to: { upstream: erp } }]
  layers:
    - { ip: { allow: [10.0.0.0/8], deny: [10.1.0.0/16] }, enforce: false, sufficient: true }
    - basic_auth: { users: [{ name: alice, password: correct horse }] }
    - header_token: { tokens: [a token of the sample] }
    - rate_limit: { requests: 10/s }
    - ban: { after: 3 }
    - forward_auth: sso
    - request_headers: { remove: [x-a] }
    - response_headers: { set: { x-a: b } }
    - require_header: { name: x-a }
    - redirect: { scheme: https }
    - respond: { status: 503 }
  error_pages: [{ status: 404, reason: no_tunnel, html_file: tls.crt }]
  forward_auth: [{ name: sso, url: "https://sso.example/verify", tls: { insecure: true } }]
  telemetry: { metrics: {}, access_log: { path: a.log }, error_log: { path: e.log }, tracing: { endpoint: "http://127.0.0.1:4317" } }
"#;

const SAMPLE_CLIENT: &str = r#"
client:
  server_addr: 127.0.0.1
  auth_token: "a token of the sample"
  tls: { cert_file: tls.crt, key_file: tls.key }
  tunnels:
    - { name: web, local_port: 1, hsts: { max_age: 1d } }
    - { name: tls, type: grpc, local_port: 1, local_tls: { server_name: rpc.internal } }
    - { name: tcp, type: tcp, local_port: 1 }
    - { name: udp, type: udp, local_port: 1 }
  entries: [{ name: erp, listen: 0, upstream: erp }]
  telemetry: { metrics: {}, access_log: { path: a.log }, error_log: { path: e.log }, tracing: { endpoint: "http://127.0.0.1:4317" } }
"#;

fn keys_of(file: &str, load: impl FnOnce(&Path)) -> Vec<Key> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sample.yaml");
    fs::write(&path, file).unwrap();
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    fs::write(dir.path().join("tls.crt"), made.cert.pem()).unwrap();
    fs::write(dir.path().join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    KEYS.with_borrow_mut(Vec::clear);
    load(&path);
    KEYS.take()
}

/// The keys with their descriptions, and the errors in the descriptions.
fn described(
    keys: &[Key],
    descriptions: &'static [Description],
    problems: &mut Vec<String>,
) -> Vec<(Key, &'static Description)> {
    let by_key: BTreeMap<_, _> = descriptions.iter().map(|one| (one.key, one)).collect();
    let is_section = |path: &str| {
        let below = [format!("{path}."), format!("{path}[]")];
        let mut keys = keys.iter();
        keys.any(|key| below.iter().any(|below| key.path.starts_with(below)))
    };
    let mut rows = Vec::new();
    for key in keys {
        match by_key.get(key.path.as_str()) {
            Some(description) => rows.push((key.clone(), *description)),
            None if is_section(&key.path) || !key.path.contains('.') => {}
            None => problems.push(format!("`{}` has no description", key.path)),
        }
    }
    for description in descriptions {
        if !keys.iter().any(|key| key.path == description.key) {
            problems.push(format!(
                "`{}` has a description, but is not a key",
                description.key
            ));
        }
    }
    for (key, description) in &rows {
        let kind_is_described = description.value.is_some_and(|(kind, _)| !kind.is_empty());
        if key.bounds.is_some() == kind_is_described {
            problems.push(format!(
                "`{}`: either the loader or the description must state the form of the value",
                key.path
            ));
        }
    }
    rows
}

fn render(out: &mut String, rows: &[(Key, &Description)]) {
    let parent = |key: &Key| match key.path.rsplit_once('.') {
        Some((parent, _)) => parent.to_owned(),
        None => String::new(),
    };
    let mut sections: Vec<String> = Vec::new();
    for (key, _) in rows {
        if !sections.contains(&parent(key)) {
            sections.push(parent(key));
        }
    }
    for section in sections {
        let _ = write!(
            out,
            "\n### `{section}`\n\n| key | value | default | meaning |\n|---|---|---|---|\n"
        );
        for (key, description) in rows.iter().filter(|(key, _)| parent(key) == section) {
            let name = key.path.rsplit('.').next().unwrap_or_default();
            let (value, default) = match (&key.bounds, description.value) {
                (Some((kind, _)), Some((_, default))) => (kind.as_str(), default.to_owned()),
                (Some((kind, default)), None) => (kind.as_str(), format!("`{default}`")),
                (None, Some((kind, default))) => (kind, default.to_owned()),
                (None, None) => ("", String::new()),
            };
            let _ = writeln!(
                out,
                "| `{name}` | {value} | {default} | {} |",
                description.meaning
            );
        }
    }
}

#[test]
fn every_key_stands_in_the_reference_of_settings() {
    let none = std::iter::empty;
    let server = keys_of(SAMPLE_SERVER, |file| {
        load_server(Some(file), none(), &ServerOverrides::default()).unwrap();
    });
    let client = keys_of(SAMPLE_CLIENT, |file| {
        load_client(Some(file), none(), &ClientOverrides::default()).unwrap();
    });
    let mut problems = Vec::new();
    let (layers, server): (Vec<_>, Vec<_>) =
        { server.into_iter() }.partition(|key| key.path.starts_with("layers[]"));
    let (server, client, layers) = (
        described(&server, SERVER, &mut problems),
        described(&client, CLIENT, &mut problems),
        described(&layers, LAYERS, &mut problems),
    );
    assert!(problems.is_empty(), "{}", problems.join("\n"));

    let mut page = String::from(HEAD);
    page.push_str("\n## Server\n");
    render(&mut page, &server);
    page.push_str("\n## Client\n");
    render(&mut page, &client);
    page.push_str("\n## Layers\n\nOne kind in each item of a list `layers`, with `enforce` and `sufficient` beside it; how they are used is in [configuration.md](configuration.md#layers).\n");
    render(&mut page, &layers);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/settings.md differs from the loader; generate it with UPDATE=1 cargo test -p adit-config reference"
    );
}

const HEAD: &str = "# Settings

Every key of both sides, with its bounds and its default. This page is generated from the code that reads the settings \
(`UPDATE=1 cargo test -p adit-config reference`); how to use them together is in [configuration.md](configuration.md).

The value of a key is its default, that of the file (`--config`, YAML, TOML or JSON), that of the environment or that of a flag; the last of these that exists is used. The variable of a key is its path in capitals with two underscores between sections: \
`ADIT__SERVER__HTTP__BIND_PORT=80` is `server.http.bind_port: 80`. An unknown key is an error.

Times have a unit: `100ms`, `5s`, `1m 30s`. Sizes are bytes, or have a unit: `64KiB`, `100MB`. `[]` stands for each item of \
a list.
";
