//! Tunnels for every protocol in front of one service.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;

use super::visitor::{Entries, Protocol, converse};
use crate::compare::targets::{Programs, Target};
use crate::process::{Process, ProcessError};
use crate::services::Addresses;

pub(super) const TOKEN: &str = "a token of load tests";

/// A running target that accepts visitors of every protocol.
pub(crate) struct Running {
    pub(crate) target: Target,
    pub(crate) entries: Entries,
    processes: Vec<Process>,
}

/// The addresses for visitors without a tunnel.
fn direct(service: &Addresses) -> Entries {
    Entries {
        http: service.http,
        tcp: service.tcp,
        udp: service.udp,
        websocket: service.websocket,
        grpc: service.grpc,
        flood_http: service.http,
        flood_websocket: service.websocket,
        tunnel: None,
    }
}

impl Running {
    /// Starts `target` in front of `service` and waits until every protocol gets a response. Floods reach `flooded`
    /// through separate tunnels, because a service that is busy with a flood would delay its own visitors.
    ///
    /// # Errors
    /// Returns a [`ProcessError`].
    pub(crate) async fn start(
        target: Target,
        programs: &Programs,
        service: &Addresses,
        flooded: &Addresses,
        dir: &Path,
    ) -> Result<Self, ProcessError> {
        let to = Entries {
            flood_http: flooded.http,
            flood_websocket: flooded.websocket,
            ..direct(service)
        };
        let (entries, mut processes) = match target {
            Target::Direct => (to, Vec::new()),
            Target::Rathole => rathole(&programs.rathole, &to, dir).await?,
            Target::Adit => adit(programs, &to, dir).await?,
        };
        if let Some(last) = processes.last_mut() {
            for protocol in Protocol::ALL {
                let response = async |_: &Process| responds(protocol, &entries).await;
                last.until("response of every protocol", response).await?;
            }
        }
        Ok(Self {
            target,
            entries,
            processes,
        })
    }

    /// The process ids of the tunnel.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    /// Stops the target, the client before the server.
    pub(crate) async fn stop(self) {
        for process in self.processes.into_iter().rev() {
            process.stop().await;
        }
    }
}

/// Whether one message is echoed.
async fn responds(protocol: Protocol, entries: &Entries) -> Option<()> {
    let exchange = async {
        let (mut sender, mut receiver) = converse(protocol, entries, 5).await.ok()?;
        sender.send(b"hello").await.ok()?;
        let same = receiver.receive(b"hello").await.ok()?;
        same.then_some(())
    };
    timeout(Duration::from_secs(1), exchange).await.ok()?
}

type Started = Result<(Entries, Vec<Process>), ProcessError>;

async fn rathole(program: &Path, service: &Entries, dir: &Path) -> Started {
    let [
        tunnel,
        http,
        tcp,
        udp,
        websocket,
        grpc,
        flood_http,
        flood_websocket,
    ] = free()?;
    let services = [
        ("http", "tcp", http, service.http),
        ("tcp", "tcp", tcp, service.tcp),
        ("udp", "udp", udp, service.udp),
        ("websocket", "tcp", websocket, service.websocket),
        ("grpc", "tcp", grpc, service.grpc),
        ("flood-http", "tcp", flood_http, service.flood_http),
        (
            "flood-websocket",
            "tcp",
            flood_websocket,
            service.flood_websocket,
        ),
    ];
    let mut server = format!("[server]\nbind_addr = \"{tunnel}\"\ndefault_token = \"{TOKEN}\"\n");
    let mut client = format!("[client]\nremote_addr = \"{tunnel}\"\ndefault_token = \"{TOKEN}\"\n");
    for (name, kind, entry, local) in services {
        server +=
            &format!("[server.services.{name}]\ntype = \"{kind}\"\nbind_addr = \"{entry}\"\n");
        client +=
            &format!("[client.services.{name}]\ntype = \"{kind}\"\nlocal_addr = \"{local}\"\n");
    }
    let server = write(dir, "rathole-protocols-server.toml", &server)?;
    let client = write(dir, "rathole-protocols-client.toml", &client)?;
    let start = |name, mode, config: &Path| {
        Process::start(name, program, &[mode, &config.to_string_lossy()], &[], dir)
    };
    let mut server = start("rathole-server", "--server", &server)?;
    let listening = async |_: &Process| tokio::net::TcpStream::connect(tunnel).await.ok();
    server.until("tunnel port", listening).await?;
    let client = start("rathole-client", "--client", &client)?;
    let entries = Entries {
        http,
        tcp,
        udp,
        websocket,
        grpc,
        flood_http,
        flood_websocket,
        tunnel: None,
    };
    Ok((entries, vec![server, client]))
}

/// The fields of the file that `adit-server` writes when it is ready.
#[derive(Debug, Deserialize)]
struct ServerState {
    tunnel_addr: SocketAddr,
    http_addr: SocketAddr,
}

async fn adit(programs: &Programs, service: &Entries, dir: &Path) -> Started {
    let config = write(
        dir,
        "adit-protocols-server.yaml",
        &format!(
            "server:\n  bind_addr: 127.0.0.1\n  bind_port: 0\n  http: {{ bind_port: 0 }}\n  \
             admin: {{ bind: \"127.0.0.1:0\" }}\n  auth: {{ method: token, token: \"{TOKEN}\" }}\n"
        ),
    )?;
    let state = dir.join("adit-protocols-server");
    let client_state = dir.join("adit-protocols-client");
    for dir in [&state, &client_state] {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir).map_err(|source| ProcessError::File {
            path: dir.clone(),
            source,
        })?;
    }
    let arguments = ["--config", &config.to_string_lossy()];
    let environment = [("ADIT__STATE_DIR", state.as_path())];
    let server = &programs.adit_server;
    let mut server = Process::start("adit-server", server, &arguments, &environment, dir)?;
    let ready = async |_: &Process| {
        let text = fs::read_to_string(state.join("server.json")).ok()?;
        serde_json::from_str::<ServerState>(&text).ok()
    };
    let running = server
        .until("server.json in its state directory", ready)
        .await?;
    let [tcp, udp, ..] = free()?;
    let tunnel = |name: &str, kind: &str, local: SocketAddr, more: String| {
        let port = local.port();
        format!("    - {{ name: {name}, type: {kind}, local_port: {port}{more} }}\n")
    };
    let tunnels = [
        tunnel("web", "http", service.http, String::new()),
        tunnel(
            "tcp",
            "tcp",
            service.tcp,
            format!(", remote_port: {}", tcp.port()),
        ),
        tunnel(
            "udp",
            "udp",
            service.udp,
            format!(", remote_port: {}", udp.port()),
        ),
        tunnel("ws", "websocket", service.websocket, String::new()),
        tunnel("rpc", "grpc", service.grpc, String::new()),
        tunnel("flood", "http", service.flood_http, String::new()),
        tunnel(
            "floodws",
            "websocket",
            service.flood_websocket,
            String::new(),
        ),
    ];
    let (host, port) = (running.tunnel_addr.ip(), running.tunnel_addr.port());
    let config = write(
        dir,
        "adit-protocols-client.yaml",
        &format!(
            "client:\n  server_addr: {host}\n  server_port: {port}\n  auth_token: \"{TOKEN}\"\n  tunnels:\n{}",
            tunnels.concat()
        ),
    )?;
    let arguments = ["start", "--config", &config.to_string_lossy()];
    let environment = [("ADIT__STATE_DIR", client_state.as_path())];
    let client = Process::start("adit", &programs.adit, &arguments, &environment, dir)?;
    let entries = Entries {
        http: running.http_addr,
        tcp,
        udp,
        websocket: running.http_addr,
        grpc: running.http_addr,
        flood_http: running.http_addr,
        flood_websocket: running.http_addr,
        tunnel: Some(running.tunnel_addr),
    };
    Ok((entries, vec![server, client]))
}

/// Returns free addresses.
fn free() -> Result<[SocketAddr; 8], ProcessError> {
    let fail = |source| ProcessError::File {
        path: "a free port".into(),
        source,
    };
    // All are bound at once; otherwise two could be the same.
    let held = std::iter::repeat_with(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .take(8)
        .collect::<Result<Vec<_>, _>>()
        .map_err(fail)?;
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); 8];
    for (address, listener) in addresses.iter_mut().zip(&held) {
        *address = listener.local_addr().map_err(fail)?;
    }
    Ok(addresses)
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf, ProcessError> {
    let path = dir.join(name);
    match fs::write(&path, text) {
        Ok(()) => Ok(path),
        Err(source) => Err(ProcessError::File { path, source }),
    }
}
