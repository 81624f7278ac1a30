//! The text of `adit status`.
//!
//! Each entry has a short line of facts and, below it, lines that may be long: URLs and addresses. Lines are neither
//! cut nor framed, so that a URL can be copied at any width of the terminal, and the facts fit into 80 columns with
//! usual names.

use std::fmt::Write;

use serde_json::Value;

/// The processes of this machine, as text that ends with a line feed.
pub(super) fn render(server: Option<&Value>, clients: &[Value]) -> String {
    let mut out = String::new();
    if let Some(server) = server {
        render_server(&mut out, server);
    }
    for client in clients {
        if !out.is_empty() {
            out.push('\n');
        }
        render_client(&mut out, client);
    }
    out
}

fn line(out: &mut String, indent: usize, facts: &[String]) {
    let facts: Vec<_> = facts
        .iter()
        .filter(|fact| !fact.is_empty())
        .map(String::as_str)
        .collect();
    // Writing to a string does not fail.
    let _ = writeln!(out, "{:indent$}{}", "", facts.join(", "));
}

fn render_server(out: &mut String, server: &Value) {
    line(
        out,
        0,
        &[
            format!("server {}", text(server, "version")),
            text(server, "phase"),
            format!("up {}", duration(number(server, "uptime_millis"))),
        ],
    );
    line(
        out,
        2,
        &[format!(
            "visitors on {}, clients on {}",
            text(server, "http_addr"),
            text(server, "tunnel_addr")
        )],
    );
    if let https @ Value::Object(_) = &server["https"] {
        let certificates = list(https, "certificates").count();
        let certificates = counted(certificates as u64, "certificate");
        let on = format!("HTTPS on {}, {certificates}", text(https, "addr"));
        line(out, 2, &[on]);
    }
    let visitors = &server["visitors"];
    line(
        out,
        2,
        &[
            counted(number(visitors, "requests"), "request"),
            format!("{} open", number(visitors, "requests_open")),
            failures(visitors),
        ],
    );
    heading(out, "tunnels", list(server, "tunnels").count());
    for tunnel in list(server, "tunnels") {
        let clients: Vec<_> = list(tunnel, "clients").filter_map(Value::as_str).collect();
        line(
            out,
            2,
            &[
                format!("{} ({})", text(tunnel, "name"), text(tunnel, "type")),
                format!("group {}", text(tunnel, "group_id")),
            ],
        );
        line(out, 4, &[text(tunnel, "public_url")]);
        let served = match clients.as_slice() {
            [] => "no client serves it now".to_owned(),
            [client] => format!("served by {client}"),
            clients => {
                let policy = text(tunnel, "load_balance");
                format!("served by {} ({policy})", clients.join(", "))
            }
        };
        line(
            out,
            4,
            &[counted(number(tunnel, "requests"), "request"), served],
        );
    }
    render_upstreams(out, server);
    render_sessions(out, server);
    render_limits(out, server);
    heading(out, "clients", list(server, "clients").count());
    for client in list(server, "clients") {
        line(
            out,
            2,
            &[
                text(client, "client_id"),
                format!("group {}", text(client, "group_id")),
                format!("epoch {}", text(client, "epoch")),
                counted(number(client, "lanes"), "lane"),
                if client["draining"] == Value::Bool(true) {
                    "draining".to_owned()
                } else {
                    String::new()
                },
            ],
        );
        line(
            out,
            4,
            &[
                counted(number(client, "opened"), "request"),
                format!("{} open", number(client, "requests")),
                match number(client, "waiting_bytes") {
                    0 => String::new(),
                    bytes => format!("{bytes} bytes waiting for visitors"),
                },
            ],
        );
    }
}

/// Upstreams of client entries and rules, if there are any.
fn render_upstreams(out: &mut String, server: &Value) {
    let count = list(server, "upstreams").count();
    if count == 0 {
        return;
    }
    heading(out, "upstreams", count);
    for upstream in list(server, "upstreams") {
        let servers: Vec<_> = list(upstream, "servers")
            .map(|server| text(server, "address"))
            .collect();
        line(
            out,
            2,
            &[
                format!(
                    "{} ({})",
                    text(upstream, "name"),
                    text(upstream, "protocol")
                ),
                counted(number(upstream, "requests"), "request"),
                text(upstream, "policy"),
            ],
        );
        line(out, 4, &[servers.join(", ")]);
    }
}

/// The limits of clients, tunnels and users, if there are any: what has been used of quotas, and what was refused.
fn render_limits(out: &mut String, server: &Value) {
    let traffic = &server["traffic"];
    let (accounts, refusals) = (list(traffic, "accounts"), list(traffic, "refusals"));
    let refusals: Vec<_> = refusals.collect();
    if accounts.count() == 0 && refusals.is_empty() {
        return;
    }
    heading(out, "limited", list(traffic, "accounts").count());
    for account in list(traffic, "accounts") {
        let name = match text(account, "group").as_str() {
            "" => text(account, "name"),
            group => format!("{} of group {group}", text(account, "name")),
        };
        let mut facts = vec![format!("{} {name}", text(account, "of"))];
        if let Some(bandwidth) = account["max_bandwidth"].as_u64() {
            facts.push(format!("{} a second", bytes(bandwidth)));
        }
        line(out, 2, &facts);
        for quota in list(account, "quotas") {
            let (kind, used, most) = (
                text(quota, "quota"),
                number(quota, "used"),
                number(quota, "most"),
            );
            let amounts = if kind.starts_with("bytes") {
                format!("{} of {}", bytes(used), bytes(most))
            } else {
                format!("{used} of {most}")
            };
            line(out, 4, &[format!("{kind}: {amounts}")]);
        }
    }
    for refused in refusals {
        let (of, limit) = (text(refused, "of"), text(refused, "limit"));
        line(
            out,
            2,
            &[format!(
                "refused: {} by {limit} of a {of}",
                number(refused, "count")
            )],
        );
    }
}

fn bytes(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().si().to_string()
}

/// TCP connections and UDP flows, if there were any.
fn render_sessions(out: &mut String, server: &Value) {
    let (tcp, udp) = (&server["tcp"], &server["udp"]);
    if number(tcp, "total") > 0 {
        let (open, total) = (number(tcp, "open"), number(tcp, "total"));
        line(
            out,
            0,
            &[format!("tcp connections: {open} open, {total} so far")],
        );
    }
    if number(udp, "total") > 0 {
        let (open, total) = (number(udp, "open"), number(udp, "total"));
        line(out, 0, &[format!("udp flows: {open} open, {total} so far")]);
        line(
            out,
            2,
            &[format!(
                "datagrams dropped: {} from visitors, {} to visitors, {} in the tunnel",
                number(udp, "dropped_in"),
                number(udp, "dropped_out"),
                number(udp, "dropped_on_links")
            )],
        );
    }
}

fn render_client(out: &mut String, client: &Value) {
    let connected = text(client, "connection") == "connected";
    line(
        out,
        0,
        &[
            format!("client {}", text(client, "client_id")),
            format!("group {}", text(client, "group_id")),
            format!(
                "{} to {}",
                text(client, "connection"),
                text(client, "server")
            ),
        ],
    );
    if connected {
        let reopened = match number(client, "streams_reopened") {
            0 => String::new(),
            count => counted(count, "stream") + " opened again",
        };
        line(
            out,
            2,
            &[
                format!("epoch {}", text(client, "epoch")),
                counted(number(client, "lanes"), "lane"),
                reopened,
            ],
        );
    }
    let error = text(client, "last_error");
    if !error.is_empty() && !connected {
        line(out, 2, &[format!("last error: {error}")]);
    }
    for tunnel in list(client, "tunnels") {
        line(
            out,
            2,
            &[
                text(tunnel, "name"),
                counted(number(tunnel, "requests"), "request"),
            ],
        );
        let url = text(tunnel, "public_url");
        let refused = text(tunnel, "error");
        if !refused.is_empty() {
            let outcome = match tunnel["waiting"] == true {
                true => "waits",
                false => "refused",
            };
            line(out, 4, &[format!("{outcome}: {refused}")]);
        } else if connected {
            line(out, 4, &[url]);
        } else {
            line(out, 4, &[format!("{url} (not served: no connection)")]);
        }
        let target = text(tunnel, "target");
        if !target.is_empty() {
            line(out, 4, &[format!("to {target}")]);
        }
        let note = text(tunnel, "note");
        if !note.is_empty() {
            line(out, 4, &[note]);
        }
    }
    for entry in list(client, "entries") {
        line(
            out,
            2,
            &[
                format!("entry {} ({})", text(entry, "name"), text(entry, "type")),
                counted(number(entry, "requests"), "request"),
                format!("{} open", number(entry, "requests_open")),
            ],
        );
        let (listen, upstream) = (text(entry, "listen"), text(entry, "upstream"));
        line(out, 4, &[format!("{listen} to upstream {upstream}")]);
        let error = text(entry, "error");
        if !error.is_empty() {
            line(out, 4, &[error]);
        }
    }
    if number(client, "datagrams_dropped") > 0 {
        let dropped = number(client, "datagrams_dropped");
        line(out, 2, &[counted(dropped, "datagram") + " dropped"]);
    }
}

fn heading(out: &mut String, what: &str, count: usize) {
    let none = if count == 0 { "none" } else { "" };
    let _ = writeln!(out, "{}", format!("{what}: {none}").trim_end());
}

fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// Failed requests with their reasons.
fn failures(visitors: &Value) -> String {
    let reasons = visitors["failures"].as_object().into_iter().flatten();
    let reasons: Vec<_> = reasons
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    match reasons.as_slice() {
        [] => String::new(),
        reasons => format!("failed: {}", reasons.join(" ")),
    }
}

/// The two largest units: enough to distinguish a restart from a long run.
fn duration(millis: u64) -> String {
    let seconds = millis / 1_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

fn text(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn list<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    value[key].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn server() -> Value {
        json!({
            "version": "0.1.0", "phase": "running", "uptime_millis": 3_725_000,
            "http_addr": "0.0.0.0:80", "tunnel_addr": "0.0.0.0:7000",
            "visitors": { "requests": 1_204, "requests_open": 3, "failures": { "no_client": 2 } },
            "tunnels": [
                { "name": "customer-portal-staging", "type": "http", "group_id": "frankfurt-office-production",
                  "requests": 1_200, "load_balance": "least_connections",
                  "public_url": "https://customer-portal-staging.tunnel.example.com/a/long/path/of/the/portal",
                  "clients": ["frankfurt-office-1", "frankfurt-office-2"] },
                { "name": "ssh", "type": "tcp", "group_id": "home", "requests": 1,
                  "public_url": "tcp://tunnel.example.com:2222", "clients": [] },
            ],
            "clients": [
                { "client_id": "frankfurt-office-1", "group_id": "frankfurt-office-production", "epoch": 12,
                  "lanes": 1, "opened": 600, "requests": 2, "waiting_bytes": 0, "draining": false },
            ],
        })
    }

    fn client(connection: &str) -> Value {
        json!({
            "client_id": "laptop", "group_id": "laptop", "connection": connection, "server": "tunnel.example.com:7000",
            "last_error": "connection refused", "epoch": 12, "lanes": 2, "streams_reopened": 1,
            "tunnels": [
                { "name": "web", "public_url": "http://web.localhost:7080", "target": "127.0.0.1:8080", "requests": 2 },
                { "name": "api", "error": "host `api.example.com` is held by group `office`" },
                { "name": "ssh", "error": "tcp port 2222 is held by group `home`", "waiting": true },
            ],
        })
    }

    #[test]
    fn lines_of_facts_fit_eighty_columns() {
        let text = render(Some(&server()), &[]);
        let is_address = |line: &&str| line.starts_with("    ");
        for line in text.lines().filter(|line| !is_address(line)) {
            assert!(line.len() <= 80, "{} columns: {line}", line.len());
        }
    }

    #[test]
    fn status_shows_group_requests_and_whole_urls() {
        let text = render(Some(&server()), &[]);
        for expected in [
            "server 0.1.0, running, up 1h 2m\n",
            "  1204 requests, 3 open, failed: 2 no_client\n",
            "  customer-portal-staging (http), group frankfurt-office-production\n",
            "    https://customer-portal-staging.tunnel.example.com/a/long/path/of/the/portal\n",
            "    1200 requests, served by frankfurt-office-1, frankfurt-office-2 (least_connections)\n",
            "    1 request, no client serves it now\n",
        ] {
            assert!(
                text.contains(expected),
                "{expected:?} is missing in\n{text}"
            );
        }
    }

    #[test]
    fn limits_are_shown_with_their_use() {
        let mut server = server();
        assert!(!render(Some(&server), &[]).contains("limited"));
        server["traffic"] = json!({
            "accounts": [
                { "of": "client", "name": "laptop", "max_bandwidth": 100_000_000, "quotas": [] },
                { "of": "tunnel", "name": "web", "group": "office", "max_bandwidth": null, "quotas": [
                    { "quota": "bytes_per_day", "used": 1_500_000, "most": 10_000_000_000_u64 },
                    { "quota": "requests_per_month", "used": 3, "most": 100 },
                ] },
            ],
            "refusals": [{ "of": "tunnel", "limit": "requests_per_second", "count": 7 }],
        });
        let text = render(Some(&server), &[]);
        for expected in [
            "  client laptop, 100.0 MB a second\n",
            "  tunnel web of group office\n    bytes_per_day: 1.5 MB of 10.0 GB\n    requests_per_month: 3 of 100\n",
            "  refused: 7 by requests_per_second of a tunnel\n",
        ] {
            assert!(
                text.contains(expected),
                "{expected:?} is missing in\n{text}"
            );
        }
    }

    #[test]
    fn url_is_not_live_without_a_connection() {
        let connected = render(None, &[client("connected")]);
        assert!(connected.contains("    http://web.localhost:7080\n    to 127.0.0.1:8080\n"));
        assert!(connected.contains("  epoch 12, 2 lanes, 1 stream opened again\n"));
        assert!(!connected.contains("last error"));
        let waiting = render(None, &[client("waiting")]);
        assert!(waiting.contains("    http://web.localhost:7080 (not served: no connection)\n"));
        assert!(waiting.contains("  last error: connection refused\n"));
    }

    #[test]
    fn refusal_stands_in_place_of_the_url() {
        let text = render(None, &[client("connected")]);
        assert!(text.contains("    refused: host `api.example.com` is held by group `office`\n"));
        assert!(text.contains("    waits: tcp port 2222 is held by group `home`\n"));
    }
}
