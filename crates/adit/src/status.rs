//! `adit status`: the processes of this machine and their state.

mod text;

use std::{net::SocketAddr, time::Duration};

use adit_config::{StateDir, environment};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{admin_request, cli, outln, output, report::Failed, runtime::background, state};

/// Time limit for the response of a running process of this machine.
const RESPONSE_WITHIN: Duration = Duration::from_secs(2);

/// Shows the server and the clients of this machine.
///
/// # Errors
/// No server or client runs.
pub fn run(command: &cli::Adit) -> Result<(), Failed> {
    background()?.block_on(async {
        let state = StateDir::find(command.state_dir.as_deref(), environment());
        let server = state.running_server().map_err(Failed::config)?;
        let server = match server.and_then(|server| server.admin_addr) {
            Some(addr) => query(addr, "/api/status").await.ok(),
            None => None,
        };
        let mut clients = Vec::new();
        for client in state::running_clients(&state) {
            if let Some(addr) = client.admin_addr
                && let Ok(status) = query(addr, "/api/status").await
            {
                clients.push(status);
            }
        }
        if command.json {
            outln!("{}", json!({ "server": server, "clients": clients }));
        } else {
            output::write_whole(text::render(server.as_ref(), &clients).as_bytes());
        }
        if server.is_none() && clients.is_empty() {
            return Err(Failed::other(format!(
                "no process of adit runs on this machine (state directory {}); start `adit-server`, or `adit http PORT`",
                state.path().display()
            )));
        }
        output::check_written()
    })
}

/// Queries an admin port.
///
/// # Errors
/// The port does not respond, or its response is not valid JSON.
pub async fn query(addr: SocketAddr, path: &str) -> Result<Value, Failed> {
    let response = timeout(RESPONSE_WITHIN, query_unbounded(addr, path)).await;
    response.unwrap_or_else(|_| Err(Failed::other(format!("no response from {addr}"))))
}

async fn query_unbounded(addr: SocketAddr, path: &str) -> Result<Value, Failed> {
    let fail =
        |error: &dyn std::fmt::Display| Failed::other(format!("cannot query {addr}: {error}"));
    let stream = adit_net::connect(&addr.into())
        .await
        .map_err(|error| fail(&error))?;
    let request = http::Request::get(path)
        .header(http::header::HOST, addr.to_string())
        .body(Full::default())
        .map_err(|error| fail(&error))?;
    admin_request::send(stream, request)
        .await
        .map_err(|error| fail(&error))
}
