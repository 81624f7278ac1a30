//! `adit-server`: parses the command line, builds a server, runs it and drains it.

use std::{path::PathBuf, sync::Arc};

use adit_admin::{Admin, Control, ControlError, MetricsPage, Operator, StatusSource};
use adit_auth::{RecordStore, Scopes};
use adit_config::{Loaded, RunningServer, StateDir};
use adit_identity::RecordFile;
use adit_net::HostNetwork;
use adit_server::{Server, ServerHandle, Settings, StaticToken, names::Name};
use adit_telemetry::Telemetry;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    ban, ca, cli, credentials,
    ending::finish,
    errln,
    file_source::FileSource,
    invite,
    load::{load, warn},
    outln, release,
    reload::{ReloadFailures, Reloader},
    report::Failed,
    runtime::background,
    signals::{SignalEvent, Signals},
    state::{self, StateDirLock, StateFile},
    telemetry::{self, ObservabilityGuard},
};

/// The user of the generated token.
const LOCAL_USER: &str = "default";

/// Runs a server until a signal ends it.
///
/// # Errors
/// The reason why the server cannot start.
pub fn run(command: &cli::Server) -> Result<(), Failed> {
    match &command.command {
        Some(cli::ServerCommand::Release(name)) => return release::run(command, name),
        Some(cli::ServerCommand::Credentials(change)) => {
            let state = StateDir::new(load(command)?.settings.state_dir);
            return credentials::run(&state, change, command.json);
        }
        Some(cli::ServerCommand::Join(invite)) => {
            let settings = load(command)?.settings;
            let state = StateDir::new(&settings.state_dir);
            return invite::run(&settings, &state, invite);
        }
        Some(cli::ServerCommand::Ca(ca)) => {
            let settings = load(command)?.settings;
            let state = StateDir::new(&settings.state_dir);
            return ca::run(&settings, &state, ca, command.json);
        }
        Some(cli::ServerCommand::Ban(ban)) => return ban::run(command, ban),
        None => {}
    }
    let loaded = load(command)?;
    if command.check {
        loaded
            .warnings
            .iter()
            .for_each(|text| errln!("warning: {text}"));
        outln!("the configuration is valid");
        return Ok(());
    }
    let logging =
        adit_telemetry::init(command.log_format, command.log_filter()).map_err(Failed::config)?;
    let runtime = background()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        warn(&loaded.warnings);
        let observability = ObservabilityGuard::start(loaded.telemetry.clone(), &logging)?;
        signals.reopen_logs(observability.reopeners());
        let mut reloader = {
            let command = command.clone();
            Reloader::new(move || load(&command), &loaded)
        };
        let running = Running::start(loaded, reloader.failures(), &observability).await?;
        running.print_addresses();
        loop {
            tokio::select! {
                event = signals.next() => match event {
                    SignalEvent::Shutdown => break,
                    SignalEvent::Reload => tracing::info!("SIGHUP: the configuration is loaded again"),
                },
                () = reloader.changed() => {
                    tracing::info!("the configuration file has changed and is loaded again");
                }
            }
            if let Some(loaded) = reloader.load() {
                running.reload(loaded);
            }
        }
        running.end(&mut signals).await;
        observability.end(&mut signals).await;
        Ok(())
    })
}

/// A running server, with its telemetry, admin port and files.
struct Running {
    server: Server,
    handle: ServerHandle,
    source: Arc<FileSource>,
    /// The telemetry settings at the start.
    telemetry: adit_config::Telemetry,
    admin_hosts: Vec<String>,
    admin: Option<JoinHandle<()>>,
    control: Option<JoinHandle<()>>,
    addresses: RunningServer,
    _state_file: Option<StateFile>,
    state: StateDir,
    lock: StateDirLock,
}

impl Running {
    /// Starts a server and its admin port, and writes its addresses to the state directory.
    ///
    /// # Errors
    /// The reason why the server cannot start.
    async fn start(
        loaded: Loaded<Settings>,
        failures: ReloadFailures,
        observability: &ObservabilityGuard,
    ) -> Result<Self, Failed> {
        let state = StateDir::new(&loaded.settings.state_dir);
        let lock = state::hold(&state);
        let settings = complete(loaded.settings, &state, &lock)?;
        let admin = match settings.admin_addr {
            Some(addr) => Some(Admin::bind(addr).await.map_err(Failed::other)?),
            None => None,
        };
        // It is read also where it cannot be written, or where another server writes it: its users are restricted by it.
        let store: Arc<dyn RecordStore> = Arc::new(RecordFile::in_dir(state.path()));
        let source = Arc::new(FileSource::new(settings, failures));
        let server = Server::start_from(source.clone(), store, &observability.observer())
            .map_err(Failed::other)?;
        let handle = server.handle();
        let addresses = RunningServer {
            pid: std::process::id(),
            tunnel_addr: server.tunnel_addr(),
            http_addr: server.http_addr(),
            https_addr: server.https_addr(),
            admin_addr: admin.as_ref().map(Admin::addr),
            own_ca: server.own_ca().is_some(),
        };
        let admin = admin.map(|admin| {
            let reader = StatusReader {
                server: handle.clone(),
                telemetry: observability.telemetry().clone(),
            };
            let hosts = loaded.admin_hosts.clone();
            serve_admin(admin.allow_hosts(hosts), Arc::new(reader))
        });
        let state_file = state::announce_server(&state, &lock, &addresses);
        let control = match lock {
            StateDirLock::Held(_) => serve_control(&state, &handle),
            StateDirLock::HeldByOther | StateDirLock::Unusable => None,
        };
        Ok(Self {
            server,
            handle,
            source,
            telemetry: loaded.telemetry,
            admin_hosts: loaded.admin_hosts,
            admin,
            control,
            addresses,
            _state_file: state_file,
            state,
            lock,
        })
    }

    /// Publishes settings that were loaded again; the server follows.
    fn reload(&self, loaded: Loaded<Settings>) {
        let settings = match complete(loaded.settings, &self.state, &self.lock) {
            Ok(settings) => settings,
            Err(error) => {
                tracing::error!(
                    "the configuration cannot be used and nothing has changed: {error}"
                );
                return;
            }
        };
        if self.source.publish(settings).is_none() {
            tracing::info!("the settings of the server are unchanged");
        }
        let others = [
            ("server.telemetry", loaded.telemetry != self.telemetry),
            ("server.admin.hosts", loaded.admin_hosts != self.admin_hosts),
        ];
        for (settings, differs) in others {
            if differs {
                tracing::warn!(settings, "changed settings need a restart of the server");
            }
        }
    }

    fn print_addresses(&self) {
        outln!("visitors  http://{}", self.addresses.http_addr);
        if let Some(https) = self.addresses.https_addr {
            outln!("visitors  https://{https}");
        }
        outln!("clients   {}", self.addresses.tunnel_addr);
        if let Some(own_ca) = self.server.own_ca() {
            outln!("tls       CA fingerprint {}", own_ca.fingerprint);
        }
        if let Some(admin) = self.addresses.admin_addr {
            outln!("status    http://{admin}/api/status");
        }
    }

    /// Waits until running requests have finished, or for another signal that ends the process.
    async fn end(self, signals: &mut Signals) {
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

    /// Ends the server at once.
    async fn stop(self) {
        self.server.stop().await;
        for task in self.admin.into_iter().chain(self.control) {
            task.abort();
            let _ = task.await;
        }
    }
}

/// Adds the values of the state directory: the token of this machine, unless the settings have tokens. Removes values
/// that belong to another running server.
fn complete(
    mut settings: Settings,
    state: &StateDir,
    lock: &StateDirLock,
) -> Result<Settings, Failed> {
    if settings.tokens.is_empty() && settings.makes_token {
        settings.tokens.push(StaticToken {
            user: LOCAL_USER.parse().map_err(Failed::other)?,
            token: state::token(state, lock, rand::random())?,
            scopes: Scopes::default(),
        });
    }
    if let StateDirLock::HeldByOther = lock {
        // The other server stores the owners of names.
        settings.state_dir = PathBuf::new();
    }
    Ok(settings)
}

/// Serves an admin port on the current runtime until the task is aborted.
pub fn serve_admin(admin: Admin, source: Arc<dyn StatusSource>) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = admin.serve(source).await {
            tracing::error!(%error, "the admin port stopped");
        }
    })
}

/// Accepts commands over the socket in the state directory. Without a socket the server runs as well.
fn serve_control(state: &StateDir, server: &ServerHandle) -> Option<JoinHandle<()>> {
    let path = state.admin_socket();
    match Control::bind(&path) {
        Ok(control) => {
            let operator = Arc::new(ServerOperator(server.clone()));
            Some(tokio::spawn(async move {
                if let Err(error) = control.serve(operator).await {
                    tracing::error!(%error, "the control socket stopped");
                }
            }))
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no control socket: `adit-server release` and `adit-server ban` cannot reach this server");
            None
        }
    }
}

/// The commands of the control socket.
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

    fn bans(&self) -> Value {
        // Texts and numbers can always be serialized.
        serde_json::to_value(self.0.bans()).unwrap_or_default()
    }

    fn clear_bans(&self, address: Option<String>) -> Result<usize, ControlError> {
        let network = address.map(|address| address.parse::<HostNetwork>());
        let network = network.transpose();
        let network = network.map_err(|error| ControlError::Invalid(error.to_string()))?;
        let cleared = self.0.clear_bans(network);
        tracing::info!(cleared, "bans ended by an administrator");
        Ok(cleared)
    }

    fn read_identities(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.0.read_identities())
    }
}

/// The responses of the admin port.
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
