//! `adit status`: what runs on this machine, and how it stands.

use std::{net::SocketAddr, time::Duration};

use adit_config::{StateDir, environment};
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use crate::{cli, report::Failed, serve::background, state};

/// A process of this machine answers within this, or it is not there.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Shows the server and the clients of this machine.
///
/// # Errors
/// When none runs.
pub fn run(command: &cli::Adit) -> Result<(), Failed> {
    background()?.block_on(async {
        let state = StateDir::find(command.state_dir.as_deref(), environment());
        let server = state.running_server().map_err(Failed::config)?;
        let server = match server.and_then(|server| server.admin_addr) {
            Some(addr) => ask(addr, "/api/status").await.ok(),
            None => None,
        };
        let mut clients = Vec::new();
        for client in state::running_clients(&state) {
            if let Some(addr) = client.admin_addr
                && let Ok(status) = ask(addr, "/api/status").await
            {
                clients.push(status);
            }
        }
        if command.json {
            anstream::println!("{}", json!({ "server": server, "clients": clients }));
        } else {
            if let Some(server) = &server {
                show_server(server);
            }
            for client in &clients {
                show_client(client);
            }
        }
        if server.is_none() && clients.is_empty() {
            return Err(Failed::other(format!(
                "nothing of adit runs here (looked in {}); start `adit-server`, or `adit http PORT`",
                state.path().display()
            )));
        }
        Ok(())
    })
}

/// Asks an admin port.
///
/// # Errors
/// When it does not answer, or not with JSON.
pub async fn ask(addr: SocketAddr, path: &str) -> Result<Value, Failed> {
    let asked = timeout(ANSWER_WITHIN, ask_unbounded(addr, path)).await;
    asked.unwrap_or_else(|_| Err(Failed::other(format!("{addr} does not answer"))))
}

async fn ask_unbounded(addr: SocketAddr, path: &str) -> Result<Value, Failed> {
    let fail = |error: &dyn std::fmt::Display| Failed::other(format!("cannot ask {addr}: {error}"));
    let stream = TcpStream::connect(addr)
        .await
        .map_err(|error| fail(&error))?;
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| fail(&error))?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get(path)
        .header(http::header::HOST, addr.to_string())
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| fail(&error))?;
    let response = send
        .send_request(request)
        .await
        .map_err(|error| fail(&error))?;
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|error| fail(&error))?;
    connection.abort();
    serde_json::from_slice(&body.to_bytes()).map_err(|error| fail(&error))
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

fn show_server(server: &Value) {
    anstream::println!(
        "server {}, {}: visitors on {}, clients on {}",
        text(server, "version"),
        text(server, "phase"),
        text(server, "http_addr"),
        text(server, "tunnel_addr")
    );
    let mut tunnels = Table::new();
    tunnels.load_style(UTF8_HORIZONTAL_ONLY);
    tunnels.set_header(["tunnel", "type", "public url", "policy", "clients"]);
    for tunnel in list(server, "tunnels") {
        let clients: Vec<_> = list(tunnel, "clients").filter_map(Value::as_str).collect();
        tunnels.add_row([
            text(tunnel, "name"),
            text(tunnel, "type"),
            text(tunnel, "public_url"),
            text(tunnel, "load_balance"),
            clients.join(", "),
        ]);
    }
    anstream::println!("{tunnels}");
    show_upstreams(server);
    show_sessions(server);
    let mut clients = Table::new();
    clients.load_style(UTF8_HORIZONTAL_ONLY);
    clients.set_header([
        "client",
        "group",
        "epoch",
        "lanes",
        "requests",
        "served",
        "waiting bytes",
    ]);
    for client in list(server, "clients") {
        clients.add_row(
            [
                "client_id",
                "group_id",
                "epoch",
                "lanes",
                "requests",
                "opened",
                "waiting_bytes",
            ]
            .map(|key| text(client, key)),
        );
    }
    anstream::println!("{clients}");
}

/// What clients' entries and rules may lead to, if there is any.
fn show_upstreams(server: &Value) {
    let mut upstreams = Table::new();
    upstreams.load_style(UTF8_HORIZONTAL_ONLY);
    upstreams.set_header(["upstream", "protocol", "policy", "servers", "requests"]);
    for upstream in list(server, "upstreams") {
        let servers = list(upstream, "servers").map(|server| text(server, "address"));
        upstreams.add_row([
            text(upstream, "name"),
            text(upstream, "protocol"),
            text(upstream, "policy"),
            servers.collect::<Vec<_>>().join(", "),
            text(upstream, "requests"),
        ]);
    }
    if !upstreams.is_empty() {
        anstream::println!("{upstreams}");
    }
}

/// TCP and UDP, once there was any.
fn show_sessions(server: &Value) {
    let (tcp, udp) = (&server["tcp"], &server["udp"]);
    if tcp["total"].as_u64() > Some(0) {
        anstream::println!(
            "tcp connections: {} open, {} so far",
            text(tcp, "open"),
            text(tcp, "total")
        );
    }
    if udp["total"].as_u64() > Some(0) {
        anstream::println!(
            "udp flows: {} open, {} so far; datagrams dropped: {} from visitors, {} to visitors, {} on the way",
            text(udp, "open"),
            text(udp, "total"),
            text(udp, "dropped_in"),
            text(udp, "dropped_out"),
            text(udp, "dropped_on_links")
        );
    }
}

fn show_client(client: &Value) {
    anstream::println!(
        "client {} of group {}, {} to {}",
        text(client, "client_id"),
        text(client, "group_id"),
        text(client, "connection"),
        text(client, "server")
    );
    for tunnel in list(client, "tunnels") {
        let error = text(tunnel, "error");
        let outcome = if error.is_empty() {
            text(tunnel, "public_url")
        } else {
            format!("refused: {error}")
        };
        anstream::println!("  {}: {outcome}", text(tunnel, "name"));
    }
    for entry in list(client, "entries") {
        let error = text(entry, "error");
        anstream::println!(
            "  {}: {}://{} leads to upstream {}{}",
            text(entry, "name"),
            text(entry, "type"),
            text(entry, "listen"),
            text(entry, "upstream"),
            if error.is_empty() {
                String::new()
            } else {
                format!(", but {error}")
            }
        );
    }
    if client["datagrams_dropped"].as_u64() > Some(0) {
        anstream::println!("  datagrams dropped: {}", text(client, "datagrams_dropped"));
    }
    let error = text(client, "last_error");
    if !error.is_empty() && text(client, "connection") != "connected" {
        anstream::println!("  last error: {error}");
    }
}
