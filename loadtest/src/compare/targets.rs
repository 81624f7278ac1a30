//! The measured targets: no tunnel, adit, and its peers.
//!
//! Each tunnel is started with its shipped binaries and its own defaults, without TLS, on loopback, and is ready when a
//! visitor has received a correct response through it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::download;
use crate::process::{Process, ProcessError};
use crate::services::http::SMALL_BYTES;

/// The `Host` of every visitor's requests; adit's tunnel has this host.
const HOST: &str = "web.localhost";

/// The shared secret. Both ends belong to this program and are on loopback.
const TOKEN: &str = "a-token-of-load-tests";

/// Attempts to start on free ports: another program may take a free port before this program binds it.
const PORT_ATTEMPTS: usize = 3;

/// One of the ways a visitor can reach the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    /// Directly to the service: the bound for all targets.
    Direct,
    /// rathole: it copies bytes, with one tunnel connection for each visitor connection.
    Rathole,
    /// adit.
    Adit,
}

impl Target {
    /// The name in tables and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Rathole => "rathole",
            Self::Adit => "adit",
        }
    }
}

/// The paths of the programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) rathole: PathBuf,
    pub(crate) adit_server: PathBuf,
    pub(crate) adit: PathBuf,
}

/// A target that is ready for visitors.
#[derive(Debug)]
pub(crate) struct Running {
    /// The target.
    pub(crate) target: Target,
    /// The address to which visitors connect.
    pub(crate) entry: SocketAddr,
    /// The `Host` of the visitors' requests.
    pub(crate) host: String,
    /// The tunnel's own processes, with the server first; empty for `direct`.
    pub(crate) processes: Vec<Process>,
}

impl Running {
    /// Starts `target` in front of `service` and waits until the target responds.
    ///
    /// # Errors
    /// Returns a [`ProcessError`] when a process does not start.
    pub(crate) async fn start(
        target: Target,
        programs: &Programs,
        service: SocketAddr,
        dir: &Path,
    ) -> Result<Self, ProcessError> {
        let mut attempt = 1;
        loop {
            let started = match target {
                Target::Direct => Ok((service, Vec::new())),
                Target::Rathole => rathole(&programs.rathole, service, dir).await,
                Target::Adit => adit(programs, service, dir).await,
            };
            match started {
                Ok((entry, processes)) => {
                    return Ok(Self {
                        target,
                        entry,
                        host: HOST.to_owned(),
                        processes,
                    });
                }
                // Another program has probably taken the port.
                Err(ProcessError::Ended { .. })
                    if target == Target::Rathole && attempt < PORT_ATTEMPTS =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The process ids of the tunnel.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    /// # Errors
    ///
    /// Returns [`ProcessError::Ended`] if one of its processes has ended.
    pub(crate) fn check_running(&mut self) -> Result<(), ProcessError> {
        self.processes
            .iter_mut()
            .try_for_each(Process::check_running)
    }

    /// Stops the target, the client before the server.
    pub(crate) async fn stop(self) {
        for process in self.processes.into_iter().rev() {
            process.stop().await;
        }
    }
}

type Started = Result<(SocketAddr, Vec<Process>), ProcessError>;

async fn rathole(program: &Path, service: SocketAddr, dir: &Path) -> Started {
    let (tunnel, entry) = free_addresses()?;
    let server_config = write(
        dir,
        "rathole-server.toml",
        &format!(
            "[server]\nbind_addr = \"{tunnel}\"\ndefault_token = \"{TOKEN}\"\n\n\
             [server.services.web]\nbind_addr = \"{entry}\"\n"
        ),
    )?;
    let client_config = write(
        dir,
        "rathole-client.toml",
        &format!(
            "[client]\nremote_addr = \"{tunnel}\"\ndefault_token = \"{TOKEN}\"\n\n\
             [client.services.web]\nlocal_addr = \"{service}\"\n"
        ),
    )?;
    let start = |name, mode, config: &Path| {
        Process::start(name, program, &[mode, &config.to_string_lossy()], &[], dir)
    };
    let mut server = start("rathole-server", "--server", &server_config)?;
    // A client that connects too early waits a second before the next attempt.
    let listening = async |_: &Process| tokio::net::TcpStream::connect(tunnel).await.ok();
    server.until("tunnel port", listening).await?;
    let mut client = start("rathole-client", "--client", &client_config)?;
    client
        .until("response through the tunnel", async |_| {
            responds(entry).await
        })
        .await?;
    server.check_running()?;
    Ok((entry, vec![server, client]))
}

/// The fields of the file that `adit-server` writes to its state directory when it is ready; fields that are not needed
/// here are left out.
#[derive(Debug, Deserialize)]
struct ServerState {
    tunnel_addr: SocketAddr,
    http_addr: SocketAddr,
}

async fn adit(programs: &Programs, service: SocketAddr, dir: &Path) -> Started {
    let config = write(
        dir,
        "adit-server.yaml",
        &format!(
            "server:\n  bind_addr: 127.0.0.1\n  bind_port: 0\n  http: {{ bind_port: 0 }}\n  \
             admin: {{ bind: \"127.0.0.1:0\" }}\n  auth: {{ method: token, token: \"{TOKEN}\" }}\n"
        ),
    )?;
    let token = write(dir, "adit-token", TOKEN)?;
    let server_state = state_dir(dir, "adit-server-state")?;
    let client_state = state_dir(dir, "adit-client-state")?;

    let mut server = Process::start(
        "adit-server",
        &programs.adit_server,
        &["--config", &config.to_string_lossy()],
        &[("ADIT__STATE_DIR", &server_state)],
        dir,
    )?;
    let ready_file = server_state.join("server.json");
    let ready = async |_: &Process| {
        let text = fs::read_to_string(&ready_file).ok()?;
        serde_json::from_str::<ServerState>(&text).ok()
    };
    let addresses = server
        .until("server.json in its state directory", ready)
        .await?;

    let mut client = Process::start(
        "adit",
        &programs.adit,
        &[
            "http",
            &service.port().to_string(),
            "--server",
            &addresses.tunnel_addr.to_string(),
            "--name",
            "web",
            "--token-file",
            &token.to_string_lossy(),
        ],
        &[("ADIT__STATE_DIR", &client_state)],
        dir,
    )?;
    let url = async |process: &Process| process.first_line();
    client.until("public URL on the first line", url).await?;
    client
        .until("response through the tunnel", async |_| {
            responds(addresses.http_addr).await
        })
        .await?;
    server.check_running()?;
    Ok((addresses.http_addr, vec![server, client]))
}

/// Whether a visitor receives the right bytes.
async fn responds(entry: SocketAddr) -> Option<()> {
    let fetch = download::fetch(entry, HOST, "/small", SMALL_BYTES);
    timeout(Duration::from_secs(2), fetch)
        .await
        .ok()?
        .ok()
        .map(|_| ())
}

/// Returns two free addresses.
fn free_addresses() -> Result<(SocketAddr, SocketAddr), ProcessError> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    // Both are bound at once; otherwise they could be the same.
    let both = || {
        let (one, other) = (bind()?, bind()?);
        Ok((one.local_addr()?, other.local_addr()?))
    };
    both().map_err(|source| ProcessError::File {
        path: "a free port".into(),
        source,
    })
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf, ProcessError> {
    let path = dir.join(name);
    match fs::write(&path, text) {
        Ok(()) => Ok(path),
        Err(source) => Err(ProcessError::File { path, source }),
    }
}

/// Creates an empty directory: the state of an earlier run would look like readiness.
fn state_dir(dir: &Path, name: &str) -> Result<PathBuf, ProcessError> {
    let path = dir.join(name);
    let made = match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(&path),
    };
    made.map(|()| path.clone())
        .map_err(|source| ProcessError::File { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_an_earlier_run_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let state = state_dir(dir.path(), "state").unwrap();
        fs::write(state.join("server.json"), "{}").unwrap();
        assert!(
            !state_dir(dir.path(), "state")
                .unwrap()
                .join("server.json")
                .exists()
        );
        assert!(state.exists());
    }

    #[test]
    fn unknown_fields_of_the_server_state_are_ignored() {
        let text = r#"{"pid":1,"tunnel_addr":"127.0.0.1:7","http_addr":"127.0.0.1:8","admin_addr":"127.0.0.1:9"}"#;
        let state: ServerState = serde_json::from_str(text).unwrap();
        assert_eq!((state.tunnel_addr.port(), state.http_addr.port()), (7, 8));
    }
}
