//! `adit-server`: parse, build, run, drain.

use std::sync::Arc;

use adit_admin::{Admin, Control, ControlError, MetricsPage, Operator, StatusSource};
use adit_config::{RunningServer, StateDir};
use adit_server::{NamedToken, Server, ServerHandle, Settings, names::Name};
use adit_telemetry::Telemetry;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    cli,
    ending::finish,
    errln,
    load::{load, warn},
    outln, release,
    report::Failed,
    runtime::background,
    signals::{SignalEvent, Signals},
    state::{self, StateDirLock, StateFile},
    telemetry::{self, ObservabilityGuard},
};

/// Whose the generated token is.
const LOCAL_USER: &str = "default";

/// Runs a server until a signal ends it.
///
/// # Errors
/// What keeps it from starting.
pub fn run(command: &cli::Server) -> Result<(), Failed> {
    if let Some(cli::ServerCommand::Release(asked)) = &command.command {
        return release::run(command, asked);
    }
    let loaded = load(command)?;
    if command.check {
        loaded
            .warnings
            .iter()
            .for_each(|text| errln!("warning: {text}"));
        outln!("the configuration is good");
        return Ok(());
    }
    let logging =
        adit_telemetry::init(command.log_format, command.log_filter()).map_err(Failed::config)?;
    let runtime = background()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        warn(&loaded.warnings);
        let observability = ObservabilityGuard::start(loaded.telemetry, &logging)?;
        signals.reopen_logs(observability.reopeners());
        let running = Running::start(loaded.settings, loaded.admin_hosts, &observability).await?;
        running.say();
        loop {
            match signals.next().await {
                SignalEvent::Shutdown => break,
                SignalEvent::Reload => match load(command) {
                    Ok(loaded) => {
                        warn(&loaded.warnings);
                        tracing::info!("the configuration is good; restart the server to use it");
                    }
                    Err(error) => {
                        tracing::error!("the configuration is bad, nothing has changed: {error}");
                    }
                },
            }
        }
        running.end(&mut signals).await;
        observability.end(&mut signals).await;
        Ok(())
    })
}

/// A server with everything that belongs to its process.
pub struct Running {
    server: Server,
    handle: ServerHandle,
    admin: Option<JoinHandle<()>>,
    control: Option<JoinHandle<()>>,
    addresses: RunningServer,
    _state_file: Option<StateFile>,
    _hold: StateDirLock,
}

impl Running {
    /// Starts a server, its admin port, and says where it is in the state directory.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn start(
        mut settings: Settings,
        admin_hosts: Vec<String>,
        observability: &ObservabilityGuard,
    ) -> Result<Self, Failed> {
        let state = StateDir::new(&settings.state_dir);
        let hold = state::hold(&state);
        if settings.tokens.is_empty() {
            settings.tokens.push(NamedToken {
                user: LOCAL_USER.into(),
                token: state::token(&state, &hold, rand::random())?,
            });
        }
        let admin = match settings.admin_addr {
            Some(addr) => Some(Admin::bind(addr).await.map_err(Failed::other)?),
            None => None,
        };
        if let StateDirLock::HeldByOther = hold {
            // Owners of names are the other server's to keep.
            settings.state_dir = std::path::PathBuf::new();
        }
        let server =
            Server::start_observed(&settings, &observability.observer()).map_err(Failed::other)?;
        let handle = server.handle();
        let addresses = RunningServer {
            pid: std::process::id(),
            tunnel_addr: server.tunnel_addr(),
            http_addr: server.http_addr(),
            admin_addr: admin.as_ref().map(Admin::addr),
        };
        let admin = admin.map(|admin| {
            let status_source = StatusReader {
                server: handle.clone(),
                telemetry: observability.telemetry().clone(),
            };
            serve_admin(admin.allow_hosts(admin_hosts), Arc::new(status_source))
        });
        let state_file = state::announce_server(&state, &hold, &addresses);
        let control = match hold {
            StateDirLock::Held(_) => serve_control(&state, &handle),
            StateDirLock::HeldByOther | StateDirLock::Unusable => None,
        };
        Ok(Self {
            server,
            handle,
            admin,
            control,
            addresses,
            _state_file: state_file,
            _hold: hold,
        })
    }

    /// Where it listens.
    pub const fn addresses(&self) -> &RunningServer {
        &self.addresses
    }

    /// Asks it.
    pub const fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    fn say(&self) {
        outln!("visitors  http://{}", self.addresses.http_addr);
        outln!("clients   {}", self.addresses.tunnel_addr);
        if let Some(admin) = self.addresses.admin_addr {
            outln!("status    http://{admin}/api/status");
        }
    }

    /// Lets running requests finish, unless another signal asks for the end.
    pub async fn end(self, signals: &mut Signals) {
        let (server, handle) = (&self.server, &self.handle);
        finish(
            server.drain(),
            server.drain_within(),
            || handle.running(),
            signals,
        )
        .await;
        self.stop().await;
    }

    /// Ends at once.
    pub async fn stop(self) {
        self.server.stop().await;
        for task in self.admin.into_iter().chain(self.control) {
            task.abort();
            let _ = task.await;
        }
    }
}

/// Serves an admin port on the current runtime until the task is aborted.
pub fn serve_admin(admin: Admin, source: Arc<dyn StatusSource>) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = admin.serve(source).await {
            tracing::error!(%error, "the admin port ended");
        }
    })
}

/// Takes commands over the socket in the state directory. Without one the server runs all the same.
fn serve_control(state: &StateDir, server: &ServerHandle) -> Option<JoinHandle<()>> {
    let path = state.admin_socket();
    match Control::bind(&path) {
        Ok(control) => {
            let operator = Arc::new(ServerOperator(server.clone()));
            Some(tokio::spawn(async move {
                if let Err(error) = control.serve(operator).await {
                    tracing::error!(%error, "the control socket ended");
                }
            }))
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no control socket: `adit-server release` cannot reach this server");
            None
        }
    }
}

/// What the control socket may do.
struct ServerOperator(ServerHandle);

impl Operator for ServerOperator {
    fn release(
        &self,
        kind: String,
        name: String,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<usize, ControlError>> + Send + '_>> {
        Box::pin(async move {
            let name = Name::parse(&kind, &name).map_err(ControlError::Invalid)?;
            let released = self.0.release(name.clone()).await;
            let released = released.map_err(ControlError::Conflict)?;
            tracing::info!(name = %name, released, "names released by an administrator");
            Ok(released)
        })
    }
}

/// What the admin port may ask.
struct StatusReader {
    server: ServerHandle,
    telemetry: Arc<Telemetry>,
}

impl StatusSource for StatusReader {
    fn ready(&self) -> Result<Value, String> {
        let status = self.server.status();
        if status.phase != "running" {
            return Err(format!("the server is {}", status.phase));
        }
        let clients = status
            .clients
            .iter()
            .filter(|client| client.lanes > 0 && !client.draining);
        Ok(json!({
            "ready": true,
            "healthy_clients": clients.count(),
            "uptime_millis": status.uptime_millis,
        }))
    }

    fn status(&self) -> Value {
        let mut status = serde_json::to_value(self.server.status()).unwrap_or_default();
        status["telemetry"] = telemetry::status(&self.telemetry);
        status
    }

    fn phase(&self) -> &'static str {
        self.server.status().phase
    }

    fn metrics(&self) -> Option<MetricsPage> {
        let samples = adit_server::metrics::samples(&self.server.status());
        telemetry::metrics_page(&self.telemetry, &samples)
    }

    fn route(&self, url: &str) -> Option<Value> {
        Some(match self.server.explain(url) {
            Ok(route) => serde_json::to_value(route).unwrap_or_default(),
            Err(error) => json!({ "error": error }),
        })
    }
}
