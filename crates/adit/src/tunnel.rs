//! `adit http` and `adit start`: a client until a signal, or the server, ends it.

use std::{sync::Arc, time::Duration};

use adit_admin::{Admin, StatusSource};
use adit_client::{Client, ClientHandle, Registration, Settings, TunnelSettings};
use adit_config::{ConfigError, Loaded, NO_WORK, StateDir, environment, load_client};
use adit_telemetry::{HeldLog, Telemetry};
use serde_json::{Value, json};

use crate::{
    cli,
    ending::finish,
    errln,
    load::warn,
    outln,
    report::Failed,
    runtime::background,
    serve::serve_admin,
    signals::Signals,
    state::{self, RunningClient},
    telemetry::{self, ObservabilityGuard},
};

/// How often a client that was started first looks whether a server has come up on this machine.
const LOOK_FOR_SERVER: Duration = Duration::from_millis(200);

/// What is logged at the start waits this long for the public URL, which is the first line that the program prints. Who
/// waits for a server longer than that wants to know it.
const URL_FIRST: Duration = Duration::from_secs(1);

/// Runs a client.
///
/// # Errors
/// What keeps it from starting, or why it gave up.
pub fn run(command: &cli::Adit) -> Result<(), Failed> {
    if command.check {
        return check(command);
    }
    let logging =
        adit_telemetry::init(command.log_format, command.log_filter()).map_err(Failed::config)?;
    let held = logging.hold(URL_FIRST);
    background()?.block_on(async {
        let mut signals = Signals::new()?;
        let Loaded {
            settings,
            telemetry,
            admin_hosts,
            warnings,
            ..
        } = tokio::select! {
            loaded = settings(command) => loaded?,
            () = signals.end() => return Ok(()),
        };
        if has_no_work(&settings) {
            return Err(Failed::config(NO_WORK));
        }
        warn(&warnings);
        let observability = ObservabilityGuard::start(telemetry, &logging)?;
        signals.reopen_logs(observability.reopeners());
        let first = First {
            held,
            json: command.json,
        };
        let served = serve(settings, admin_hosts, &observability, &mut signals, first).await;
        observability.end(&mut signals).await;
        served
    })
}

fn has_no_work(settings: &Settings) -> bool {
    settings.tunnels.is_empty() && settings.entries.is_empty()
}

fn load(command: &cli::Adit) -> Result<Loaded<Settings>, ConfigError> {
    load_client(
        command.config.as_deref(),
        environment(),
        &command.overrides(),
    )
}

/// Only says whether the configuration is good.
fn check(command: &cli::Adit) -> Result<(), Failed> {
    match load(command) {
        Ok(loaded) => {
            loaded
                .warnings
                .iter()
                .for_each(|text| errln!("warning: {text}"));
            if has_no_work(&loaded.settings) {
                return Err(Failed::config(NO_WORK));
            }
            outln!("the configuration is good");
        }
        Err(error) if error.waits_for_server() => {
            outln!(
                "the configuration is good; it names no server, so that the client waits for one on this machine"
            );
        }
        Err(error) => return Err(Failed::config(error)),
    }
    Ok(())
}

/// The settings. A client that knows neither server nor token waits for a server on this machine: either may be
/// started first.
async fn settings(command: &cli::Adit) -> Result<Loaded<Settings>, Failed> {
    let mut is_said = false;
    loop {
        match load(command) {
            Ok(loaded) => return Ok(loaded),
            Err(error) if error.waits_for_server() => {}
            Err(error) => return Err(Failed::config(error)),
        }
        if !is_said {
            is_said = true;
            let state = StateDir::find(command.state_dir.as_deref(), environment());
            errln!(
                "waiting for an adit-server on this machine ({}); name another one with --server",
                state.path().display()
            );
        }
        tokio::time::sleep(LOOK_FOR_SERVER).await;
    }
}

/// What people are told of a tunnel beside its URL.
struct Service {
    tunnel: String,
    addr: String,
    /// The names below which every host is the tunnel's.
    wildcards: Vec<String>,
}

impl Service {
    fn of(tunnel: &TunnelSettings) -> Self {
        let below = |domain: &String| domain.strip_prefix("*.").map(str::to_owned);
        Self {
            tunnel: tunnel.name.clone(),
            addr: format!("{}:{}", tunnel.service.host, tunnel.service.port),
            wildcards: tunnel.domains.iter().filter_map(below).collect(),
        }
    }
}

/// How the first output looks, and what waits for it.
struct First {
    held: HeldLog,
    json: bool,
}

async fn serve(
    settings: Settings,
    admin_hosts: Vec<String>,
    observability: &ObservabilityGuard,
    signals: &mut Signals,
    First { held, json }: First,
) -> Result<(), Failed> {
    let state = StateDir::new(&settings.state_dir);
    let services: Vec<_> = settings.tunnels.iter().map(Service::of).collect();
    let admin = match settings.admin_addr {
        Some(addr) => Some(Admin::bind(addr).await.map_err(Failed::other)?),
        None => None,
    };
    let client =
        Client::start_observed(settings, &observability.observer()).map_err(Failed::other)?;
    let running = RunningClient {
        pid: std::process::id(),
        client_id: client.client_id().to_owned(),
        admin_addr: admin.as_ref().map(Admin::addr),
    };
    let _state_file = state::announce_client(&state, &running);
    let mut held = Some(held);
    say_entries(&client.handle().status(), services.is_empty(), json);
    if services.is_empty() {
        held = None;
    }
    let admin = admin.map(|admin| {
        let status_source = StatusReader {
            client: client.handle(),
            telemetry: observability.telemetry().clone(),
        };
        serve_admin(admin.allow_hosts(admin_hosts), Arc::new(status_source))
    });
    let mut registrations = client.registrations();
    let mut said = None;
    let ended = loop {
        tokio::select! {
            Ok(()) = registrations.changed() => {
                let registration = registrations.borrow_and_update().clone();
                if let Some(registration) = registration {
                    say(&registration, &services, &mut said, json);
                    held = None;
                    tracing::info!(epoch = registration.epoch, "connected");
                }
            }
            ended = client.ended() => break Some(ended),
            () = signals.end() => break None,
        }
    };
    let result = match ended {
        Some(ended) => Err(Failed::other(match ended.error {
            Some(error) => error,
            None => ended.reason.to_string(),
        })),
        None => {
            let handle = client.handle();
            let within = handle.drain_within();
            finish(client.drain(), within, || handle.running(), signals).await;
            Ok(())
        }
    };
    client.stop();
    drop(held);
    if let Some(admin) = admin {
        admin.abort();
    }
    result
}

/// Where entries listen: from the start, with or without a link. Without tunnels they are what there is to go to.
fn say_entries(status: &adit_client::Status, alone: bool, json: bool) {
    if json && !status.entries.is_empty() {
        outln!("{}", json!({ "entries": status.entries }));
        return;
    }
    for entry in &status.entries {
        let url = format!("{}://{}", entry.kind, entry.listen);
        if alone {
            outln!("{url}");
        }
        let (name, upstream) = (&entry.name, &entry.upstream);
        errln!("{name}: {url} leads to upstream {upstream} of the server");
    }
}

/// The public URLs, each on a line of its own and nothing else on it: the first line of the output is where to go.
fn say(
    registration: &Registration,
    services: &[Service],
    said: &mut Option<Vec<adit_client::TunnelOutcome>>,
    json: bool,
) {
    if said.as_ref() == Some(&registration.tunnels) {
        return;
    }
    if json {
        let value = json!({ "epoch": registration.epoch, "tunnels": registration.tunnels });
        outln!("{value}");
    } else {
        let before = said.as_deref().unwrap_or_default();
        let changed = registration.tunnels.iter();
        for tunnel in changed.filter(|tunnel| !before.contains(tunnel)) {
            let name = &tunnel.name;
            if let Some(error) = &tunnel.error {
                if tunnel.waiting {
                    errln!("{name} waits: {error}; it is announced again until it is free");
                } else {
                    errln!("{name} was refused: {error}");
                }
                continue;
            }
            outln!("{}", tunnel.public_url);
            if let Some(service) = services.iter().find(|service| service.tunnel == *name) {
                errln!("{name} leads to {}", service.addr);
                for below in &service.wildcards {
                    errln!("{name} has every name below {below}");
                }
            }
        }
    }
    *said = Some(registration.tunnels.clone());
}

/// What the admin port may ask.
struct StatusReader {
    client: ClientHandle,
    telemetry: Arc<Telemetry>,
}

impl StatusSource for StatusReader {
    fn ready(&self) -> Result<Value, String> {
        let status = self.client.status();
        if status.connection != "connected" {
            return Err(format!("the link is {}", status.connection));
        }
        let accepted = status.tunnels.iter();
        let accepted = accepted
            .filter(|tunnel| tunnel.outcome.error.is_none())
            .count();
        if let (0, Some(first)) = (accepted, status.tunnels.first()) {
            let error = first.outcome.error.as_deref().unwrap_or_default();
            return Err(format!("the server has refused every tunnel: {error}"));
        }
        Ok(json!({ "ready": true, "epoch": status.epoch, "tunnels_accepted": accepted }))
    }

    fn status(&self) -> Value {
        let mut status = serde_json::to_value(self.client.status()).unwrap_or_default();
        status["telemetry"] = telemetry::status(&self.telemetry);
        status
    }

    fn phase(&self) -> &'static str {
        self.client.status().connection
    }

    fn metrics(&self) -> Option<String> {
        let samples = adit_client::metrics::samples(&self.client.status());
        self.telemetry.render(&samples)
    }

    fn route(&self, _: &str) -> Option<Value> {
        None
    }
}
