//! `adit http` and `adit start`: a client until a signal, or the server, ends it.

use std::{path::Path, sync::Arc, time::Duration};

use adit_admin::{Admin, Source};
use adit_client::{Client, ClientHandle, Registration, Settings};
use adit_config::{Loaded, StateDir, environment, load_client};
use adit_telemetry::Telemetry;
use serde_json::{Value, json};

use crate::{
    cli,
    report::Failed,
    serve::{background, serve_admin},
    signals::Signals,
    state::{self, RunningClient},
    telemetry::{self, Telling},
};

/// How often a client that was started first looks whether a server has come up on this machine.
const LOOK_FOR_SERVER: Duration = Duration::from_millis(200);

/// Runs a client.
///
/// # Errors
/// What keeps it from starting, or why it gave up.
pub fn run(command: &cli::Adit) -> Result<(), Failed> {
    let logging =
        adit_telemetry::init(command.log_format, command.log_filter()).map_err(Failed::config)?;
    background()?.block_on(async {
        let mut signals = Signals::new()?;
        let Loaded {
            settings,
            telemetry,
        } = tokio::select! {
            loaded = settings(command) => loaded?,
            () = signals.end() => return Ok(()),
        };
        if settings.tunnels.is_empty() && settings.entries.is_empty() {
            return Err(Failed::config(
                "there is no tunnel to serve; add `tunnels` or `entries` to the file, or expose one with `adit http PORT`",
            ));
        }
        let telling = Telling::start(telemetry, &logging)?;
        let served = serve(settings, &telling, &mut signals, command.json).await;
        telling.end(&mut signals).await;
        served
    })
}

/// The settings. A client that knows neither server nor token waits for a server on this machine: either may be
/// started first.
async fn settings(command: &cli::Adit) -> Result<Loaded<Settings>, Failed> {
    let overrides = command.overrides();
    let mut told = false;
    loop {
        let error = match load_client(command.config.as_deref(), environment(), &overrides) {
            Ok(loaded) => return Ok(loaded),
            Err(error) => error,
        };
        let waits = error.key() == "client.auth_token" && knows_no_server(command, &overrides);
        if !waits {
            return Err(Failed::config(error));
        }
        if !told {
            told = true;
            let state = StateDir::find(command.state_dir.as_deref(), environment());
            anstream::eprintln!(
                "waiting for an adit-server on this machine ({}); name another one with --server",
                state.path().display()
            );
        }
        tokio::time::sleep(LOOK_FOR_SERVER).await;
    }
}

fn knows_no_server(command: &cli::Adit, overrides: &adit_config::ClientOverrides) -> bool {
    let state = StateDir::find(command.state_dir.as_deref(), environment());
    let named = overrides.server.is_some()
        || environment().any(|(name, _)| name == "ADIT__CLIENT__SERVER_ADDR");
    !named && command.config.as_deref().is_none_or(Path::exists) && !state.token_file().exists()
}

async fn serve(
    settings: Settings,
    telling: &Telling,
    signals: &mut Signals,
    json: bool,
) -> Result<(), Failed> {
    let state = StateDir::new(&settings.state_dir);
    let services: Vec<_> = settings
        .tunnels
        .iter()
        .map(|tunnel| {
            let service = format!("{}:{}", tunnel.service.host, tunnel.service.port);
            (tunnel.name.clone(), service)
        })
        .collect();
    let admin = match settings.admin_addr {
        Some(addr) => Some(Admin::bind(addr).await.map_err(Failed::other)?),
        None => None,
    };
    let client = Client::start_observed(settings, &telling.observer()).map_err(Failed::other)?;
    let running = RunningClient {
        pid: std::process::id(),
        client_id: client.client_id().to_owned(),
        admin_addr: admin.as_ref().map(Admin::addr),
    };
    let _presence = state::announce_client(&state, &running)?;
    say_entries(&client.handle().status(), services.is_empty(), json);
    let admin = admin.map(|admin| {
        let asking = Asking {
            client: client.handle(),
            telemetry: telling.telemetry().clone(),
        };
        serve_admin(admin, Arc::new(asking))
    });
    let mut registrations = client.registrations();
    let mut said = None;
    let ended = loop {
        tokio::select! {
            Ok(()) = registrations.changed() => {
                let registration = registrations.borrow_and_update().clone();
                if let Some(registration) = registration {
                    say(&registration, &services, &mut said, json);
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
            tokio::select! {
                () = client.drain() => {}
                () = signals.end() => {}
            }
            Ok(())
        }
    };
    client.stop();
    if let Some(admin) = admin {
        admin.abort();
    }
    result
}

/// Where entries listen: from the start, with or without a link. Without tunnels they are what there is to go to.
fn say_entries(status: &adit_client::Status, alone: bool, json: bool) {
    if json && !status.entries.is_empty() {
        anstream::println!("{}", json!({ "entries": status.entries }));
        return;
    }
    for entry in &status.entries {
        let url = format!("{}://{}", entry.kind, entry.listen);
        if alone {
            anstream::println!("{url}");
        }
        let (name, upstream) = (&entry.name, &entry.upstream);
        anstream::eprintln!("{name}: {url} leads to upstream {upstream} of the server");
    }
}

/// The public URLs, each on a line of its own and nothing else on it: the first line of the output is where to go.
fn say(
    registration: &Registration,
    services: &[(String, String)],
    said: &mut Option<Vec<adit_client::TunnelOutcome>>,
    json: bool,
) {
    if said.as_ref() == Some(&registration.tunnels) {
        return;
    }
    if json {
        let value = json!({ "epoch": registration.epoch, "tunnels": registration.tunnels });
        anstream::println!("{value}");
    } else {
        for tunnel in &registration.tunnels {
            let service = services.iter().find(|(name, _)| *name == tunnel.name);
            let service = service.map_or("", |(_, service)| service);
            match &tunnel.error {
                None => {
                    anstream::println!("{}", tunnel.public_url);
                    anstream::eprintln!("{} leads to {service}", tunnel.name);
                }
                Some(error) => anstream::eprintln!("{} was refused: {error}", tunnel.name),
            }
        }
    }
    *said = Some(registration.tunnels.clone());
}

/// What the admin port may ask.
struct Asking {
    client: ClientHandle,
    telemetry: Arc<Telemetry>,
}

impl Source for Asking {
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
