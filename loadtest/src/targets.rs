//! What a scenario is run against: where visitors go in, and how a side of it is restarted.

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

/// Everything must respond within this after a start.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A free port may be taken by another program between finding and using it.
const PORT_ATTEMPTS: usize = 3;

/// An entry of HTTP: its address, and what its visitors request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Web {
    pub(crate) addr: SocketAddr,
    /// The `Host` field, or `:authority`.
    pub(crate) host: String,
}

/// Where visitors of each protocol go; `None` where the target has no entry for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    pub(crate) http: Option<Web>,
    pub(crate) websocket: Option<Web>,
    pub(crate) grpc: Option<Web>,
    pub(crate) tcp: Option<SocketAddr>,
    pub(crate) udp: Option<SocketAddr>,
}

/// Hosts that lead to the tunnels of our own targets, and to those of the compose stack.
pub(crate) const HTTP_HOST: &str = "web.localhost";
pub(crate) const WEBSOCKET_HOST: &str = "ws.localhost";
pub(crate) const GRPC_HOST: &str = "grpc.localhost";

impl Entries {
    /// The entry that a kind of load needs, if it is missing.
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

/// Which target is wanted.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one of it in a run")]
pub(crate) enum Wanted {
    /// Server, clients and services are threads of this process.
    InProcess,
    /// Programs of adit in this directory, and services as a process of their own.
    Binaries { dir: PathBuf },
    /// Whatever is behind these addresses: the compose stack, or any other tunnel.
    Address {
        name: &'static str,
        entries: Entries,
        commands: Commands,
    },
}

/// A target that takes visitors in.
#[allow(clippy::large_enum_variant, reason = "there is one of it in a run")]
pub(crate) enum Target {
    InProcess(InProcess),
    Binaries(Binaries),
    Address(Address),
}

/// A target does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    /// A program did not start, or ended.
    #[error(transparent)]
    Program(#[from] ProcessError),
    /// Our own server or client, on a thread, did not start.
    #[error("{what}: {problem}")]
    Start {
        /// Which part.
        what: &'static str,
        /// Why.
        problem: String,
    },
    /// The scenario needs an entry that was not given.
    #[error("load \"{load}\" needs an entry of its protocol: give {flag}")]
    NoEntry {
        /// Which load.
        load: String,
        /// How to give it.
        flag: &'static str,
    },
    /// The scenario restarts a side without a command for it.
    #[error(
        "the scenario restarts the {side} of a target that is not ours: give {flag}, or --without-events"
    )]
    NoCommand {
        /// `client` or `server`.
        side: &'static str,
        /// How to give it.
        flag: &'static str,
    },
    /// A command that restarts a side failed.
    #[error("`{command}` failed: {problem}")]
    Command {
        /// As given.
        command: String,
        /// Why.
        problem: String,
    },
    /// It runs, but does not respond.
    #[error("no right response to {what} through the target within {READY_WITHIN:?}: {problem}")]
    NoResponse {
        /// To what kind of load.
        what: &'static str,
        /// What came last.
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
    /// Starts what is wanted, and waits until each kind of load of the scenario gets a response.
    ///
    /// # Errors
    /// [`TargetError`].
    ///
    /// # Cancel safety
    /// What was started ends when the future is dropped.
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

    /// Where visitors go.
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

    /// Ends a side, waits, and starts it again; done when it is there again.
    ///
    /// # Errors
    /// [`TargetError`]: it did not come back.
    pub(crate) async fn restart(&mut self, event: &Event) -> Result<(), TargetError> {
        match self {
            Self::InProcess(target) => target.restart(event).await,
            Self::Binaries(target) => target.restart(event).await,
            Self::Address(target) => target.restart(event).await,
        }
    }

    /// # Errors
    /// A program of ours ended by itself.
    pub(crate) fn check_running(&mut self) -> Result<(), TargetError> {
        match self {
            Self::Binaries(target) => Ok(target.check_running()?),
            Self::InProcess(_) | Self::Address(_) => Ok(()),
        }
    }

    /// Ends what was started: the clients before the server.
    pub(crate) async fn stop(self) {
        match self {
            Self::InProcess(target) => target.stop().await,
            Self::Binaries(target) => target.stop().await,
            Self::Address(_) => {}
        }
    }
}

/// Tries a start again: most likely another program took a port meanwhile.
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

/// Whatever is wanted of a target that is ours, as its entries.
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
