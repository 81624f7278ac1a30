//! The configuration files of the targets that this program starts: the same for threads and for processes.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use super::TargetError;
use crate::services::Addresses;

/// The timeout of a drain; a load test does not wait for the default of half a minute.
const DRAIN: &str = "10s";

/// The token; both ends are started by this program and are on loopback.
const TOKEN: &str = "load-test-token";

/// Ports that stay the same over restarts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    /// The address to which clients connect.
    pub(super) tunnel: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) tcp: SocketAddr,
    pub(super) udp: SocketAddr,
}

impl Ports {
    /// Returns free ports.
    ///
    /// # Errors
    /// Returns an error when there are no free ports.
    pub(super) fn free() -> Result<Self, TargetError> {
        let found = || -> io::Result<Self> {
            // All are bound at once; otherwise two could be the same.
            let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
            let (tunnel, http, tcp) = (listen()?, listen()?, listen()?);
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            Ok(Self {
                tunnel: tunnel.local_addr()?,
                http: http.local_addr()?,
                tcp: tcp.local_addr()?,
                udp: udp.local_addr()?,
            })
        };
        found().map_err(|error| TargetError::start("free ports", error))
    }
}

/// Writes the server's configuration file; the state directory is next to it.
///
/// # Errors
/// Returns an error when the file cannot be written.
pub(super) fn server(dir: &Path, ports: &Ports) -> Result<PathBuf, TargetError> {
    let (bind, http) = (ports.tunnel.port(), ports.http.port());
    let state = state_dir(dir, "server-state")?;
    let text = format!(
        "server:\n  bind_addr: 127.0.0.1\n  bind_port: {bind}\n  http: {{ bind_port: {http} }}\n  \
         admin: {{ bind: off }}\n  auth: {{ method: token, token: {TOKEN} }}\n  \
         timeouts: {{ drain: {DRAIN} }}\n  state_dir: {}\n",
        quoted(&state)
    );
    write(dir.join("server.yaml"), &text)
}

/// The file in which the server of [`server`] reports that it is ready.
pub(super) fn server_json(dir: &Path) -> PathBuf {
    dir.join("server-state").join("server.json")
}

/// Writes a client's configuration file; the state directory is next to it. All clients are in one group.
///
/// # Errors
/// Returns an error when the file cannot be written.
pub(super) fn client(
    dir: &Path,
    number: usize,
    ports: &Ports,
    services: &Addresses,
) -> Result<PathBuf, TargetError> {
    let state = state_dir(dir, &format!("client-{number}-state"))?;
    let port = ports.tunnel.port();
    let tunnels = [
        ("web", "http", services.http, None),
        ("ws", "websocket", services.websocket, None),
        ("grpc", "grpc", services.grpc, None),
        ("tcp", "tcp", services.tcp, Some(ports.tcp.port())),
        ("udp", "udp", services.udp, Some(ports.udp.port())),
    ];
    let tunnels: String = tunnels
        .into_iter()
        .map(|(name, kind, service, public)| {
            let (host, port) = (service.ip(), service.port());
            let public = public.map_or(String::new(), |port| format!(", remote_port: {port}"));
            format!(
                "    - {{ name: {name}, type: {kind}, local_addr: {host}, local_port: {port}{public} }}\n"
            )
        })
        .collect();
    let text = format!(
        "client:\n  client_id: load-{number}\n  group_id: load\n  server_addr: 127.0.0.1\n  server_port: {port}\n  \
         auth_token: {TOKEN}\n  admin: {{ bind: off }}\n  \
         timeouts: {{ drain: {DRAIN} }}\n  state_dir: {}\n  tunnels:\n{tunnels}",
        quoted(&state)
    );
    write(dir.join(format!("client-{number}.yaml")), &text)
}

/// The path as a quoted YAML string.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Creates a directory; an earlier start may already have created it.
fn state_dir(dir: &Path, name: &str) -> Result<PathBuf, TargetError> {
    let path = dir.join(name);
    fs::create_dir_all(&path)
        .map(|()| path)
        .map_err(|error| TargetError::start("state directory", error))
}

fn write(path: PathBuf, text: &str) -> Result<PathBuf, TargetError> {
    match fs::write(&path, text) {
        Ok(()) => Ok(path),
        Err(error) => Err(TargetError::start("configuration", error)),
    }
}
