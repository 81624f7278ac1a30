//! The targets of a scenario: the entries for visitors, and the restart of a side.

mod address;
mod binaries;
mod config;
mod in_process;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use self::address::Address;
pub(crate) use self::address::Commands;
use self::binaries::Binaries;
use self::in_process::InProcess;
use crate::drivers;
use crate::events::Event;
use crate::process::ProcessError;
use crate::scenario::{Kind, Scenario};

/// The time within which every load must get a response after a start.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Attempts to start on free ports: another program may take a free port before this program binds it.
const PORT_ATTEMPTS: usize = 3;

/// An entry of HTTP: its address, and the host of its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Web {
    pub(crate) addr: SocketAddr,
    /// The `Host` field, or `:authority`.
    pub(crate) host: String,
}

/// The entries for visitors of each protocol; `None` if the target has no entry for a protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    pub(crate) http: Option<Web>,
    pub(crate) websocket: Option<Web>,
    pub(crate) grpc: Option<Web>,
    pub(crate) tcp: Option<SocketAddr>,
    pub(crate) udp: Option<SocketAddr>,
}

/// Hosts of the tunnels of the targets that this program starts, and of the compose stack.
pub(crate) const HTTP_HOST: &str = "web.localhost";
pub(crate) const WEBSOCKET_HOST: &str = "ws.localhost";
pub(crate) const GRPC_HOST: &str = "grpc.localhost";

impl Entries {
    /// The flag of the entry that a kind of load needs, if the entry is missing.
    fn missing(&self, kind: Kind) -> Option<&'static str> {
        let (there, flag) = match kind {
            Kind::Http | Kind::Upload | Kind::Sse | Kind::SlowReaders { .. } => {
                (self.http.is_some(), "--http")
            }
            Kind::WebSocket => (self.websocket.is_some(), "--websocket"),
            Kind::GrpcUnary | Kind::GrpcStream => (self.grpc.is_some(), "--grpc"),
            Kind::TcpEcho | Kind::TcpDownload | Kind::TcpUpload => (self.tcp.is_some(), "--tcp"),
            Kind::Udp { .. } => (self.udp.is_some(), "--udp"),
        };
        (!there).then_some(flag)
    }
}

/// The selected target.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one of it in a run")]
pub(crate) enum Wanted {
    /// Server, clients and services are threads of this process.
    InProcess,
    /// The programs of adit in this directory, and the services as a separate process.
    Binaries { dir: PathBuf },
    /// A target at these addresses: the compose stack, or any other tunnel.
    Address {
        name: &'static str,
        entries: Entries,
        commands: Commands,
    },
}

/// A running target.
#[allow(clippy::large_enum_variant, reason = "there is one of it in a run")]
pub(crate) enum Target {
    InProcess(InProcess),
    Binaries(Binaries),
    Address(Address),
}

/// A target could not be started, or does not respond.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    /// A program did not start, or ended.
    #[error(transparent)]
    Program(#[from] ProcessError),
    /// A server or client on a thread of this process did not start.
    #[error("{what}: {problem}")]
    Start {
        /// The part that did not start.
        what: &'static str,
        /// The cause.
        problem: String,
    },
    /// The scenario needs an entry that was not given.
    #[error("load \"{load}\" needs an entry of its protocol: pass {flag}")]
    NoEntry {
        /// The name of the load.
        load: String,
        /// The flag that sets the entry.
        flag: &'static str,
    },
    /// The scenario restarts a side for which there is no command.
    #[error(
        "the scenario restarts the {side} of a target that this program did not start: pass {flag}, or --without-events"
    )]
    NoCommand {
        /// `client` or `server`.
        side: &'static str,
        /// The flag that sets the command.
        flag: &'static str,
    },
    /// A command that restarts a side failed.
    #[error("`{command}` failed: {problem}")]
    Command {
        /// The command as given by the user.
        command: String,
        /// The cause.
        problem: String,
    },
    /// The target runs, but does not respond.
    #[error("no right response to {what} through the target within {READY_WITHIN:?}: {problem}")]
    NoResponse {
        /// The kind of load.
        what: &'static str,
        /// The last failure.
        problem: String,
    },
}

impl TargetError {
    #[allow(
        clippy::needless_pass_by_value,
        reason = "errors are handed over by `map_err`"
    )]
    fn start(what: &'static str, problem: impl ToString) -> Self {
        Self::Start {
            what,
            problem: problem.to_string(),
        }
    }
}

impl Target {
    /// Starts the selected target, and waits until each kind of load of the scenario gets a response.
    ///
    /// # Errors
    /// Returns a [`TargetError`].
    ///
    /// # Cancel safety
    /// Dropping the future ends everything that was started.
    pub(crate) async fn start(
        wanted: &Wanted,
        scenario: &Scenario,
        dir: &Path,
    ) -> Result<Self, TargetError> {
        let target = match wanted {
            Wanted::InProcess => Self::InProcess(
                again(async || InProcess::start(scenario.clients, dir).await).await?,
            ),
            Wanted::Binaries { dir: programs } => Self::Binaries(
                again(async || Binaries::start(programs, scenario.clients, dir).await).await?,
            ),
            Wanted::Address {
                entries, commands, ..
            } => {
                commands.cover(&scenario.events)?;
                Self::Address(Address::new(entries.clone(), commands.clone()))
            }
        };
        for load in &scenario.loads {
            if let Some(flag) = target.entries().missing(load.kind) {
                let load = load.name.clone();
                return Err(TargetError::NoEntry { load, flag });
            }
        }
        for load in &scenario.loads {
            target.responds(load.kind).await?;
        }
        Ok(target)
    }

    /// The entries for visitors.
    pub(crate) fn entries(&self) -> &Entries {
        match self {
            Self::InProcess(target) => target.entries(),
            Self::Binaries(target) => target.entries(),
            Self::Address(target) => target.entries(),
        }
    }

    async fn responds(&self, kind: Kind) -> Result<(), TargetError> {
        let mut problem = String::from("nothing came");
        let tried = async {
            while let Err(failed) = drivers::probe(kind, self.entries()).await {
                problem = failed
                    .detail
                    .unwrap_or_else(|| failed.kind.name().to_owned());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match timeout(READY_WITHIN, tried).await {
            Ok(()) => Ok(()),
            Err(_) => Err(TargetError::NoResponse {
                what: kind.name(),
                problem,
            }),
        }
    }

    /// Stops a side, waits, and starts the side again; returns when the side is ready.
    ///
    /// # Errors
    /// Returns a [`TargetError`] when the side did not return.
    pub(crate) async fn restart(&mut self, event: &Event) -> Result<(), TargetError> {
        match self {
            Self::InProcess(target) => target.restart(event).await,
            Self::Binaries(target) => target.restart(event).await,
            Self::Address(target) => target.restart(event).await,
        }
    }

    /// # Errors
    ///
    /// Returns an error when a program that was started here has ended.
    pub(crate) fn check_running(&mut self) -> Result<(), TargetError> {
        match self {
            Self::Binaries(target) => Ok(target.check_running()?),
            Self::InProcess(_) | Self::Address(_) => Ok(()),
        }
    }

    /// Stops everything that was started, the clients before the server.
    pub(crate) async fn stop(self) {
        match self {
            Self::InProcess(target) => target.stop().await,
            Self::Binaries(target) => target.stop().await,
            Self::Address(_) => {}
        }
    }
}

/// Retries a start: the usual cause of a failure is that another program has taken a port.
async fn again<T>(
    mut start: impl AsyncFnMut() -> Result<T, TargetError>,
) -> Result<T, TargetError> {
    let mut attempt = 1;
    loop {
        match start().await {
            Err(_) if attempt < PORT_ATTEMPTS => attempt += 1,
            ended => return ended,
        }
    }
}

/// The entries of a target that this program starts.
fn own_entries(ports: &config::Ports) -> Entries {
    let web = |host: &str| {
        Some(Web {
            addr: ports.http,
            host: host.to_owned(),
        })
    };
    Entries {
        http: web(HTTP_HOST),
        websocket: web(WEBSOCKET_HOST),
        grpc: web(GRPC_HOST),
        tcp: Some(ports.tcp),
        udp: Some(ports.udp),
    }
}
