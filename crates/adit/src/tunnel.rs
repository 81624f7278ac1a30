//! `adit http`, the other commands for one tunnel, and `adit start`: a client that runs until a signal or the server
//! ends it.

mod reload;
mod status;
mod urls;

use std::{sync::Arc, time::Duration};

use adit_admin::Admin;
use adit_client::{Client, Settings};
use adit_config::{ConfigError, Loaded, NO_WORK, StateDir, environment, load_client};
use adit_telemetry::HeldLog;

use self::{
    reload::{Fixed, reload},
    status::StatusReader,
    urls::{Urls, print_entries},
};

use crate::{
    cli,
    ending::finish,
    errln,
    load::warn,
    outln,
    reload::Reloader,
    report::Failed,
    runtime::background,
    serve::serve_admin,
    signals::{SignalEvent, Signals},
    state::{self, RunningClient},
    telemetry::ObservabilityGuard,
};

/// How often a client without a server checks whether one has started on this machine.
const CHECK_FOR_SERVER: Duration = Duration::from_millis(200);

/// The log of the start is held back this long for the public URL, which is the first line that the program prints.
const URL_FIRST: Duration = Duration::from_secs(1);

/// Runs a client.
///
/// # Errors
/// The reason why the client cannot start, or why it has stopped.
pub fn run(command: &cli::Adit) -> Result<(), Failed> {
    if command.check {
        return check(command);
    }
    let logging =
        adit_telemetry::init(command.log_format, command.log_filter()).map_err(Failed::config)?;
    let held = logging.hold(URL_FIRST);
    background()?.block_on(async {
        let mut signals = Signals::new()?;
        let loaded = tokio::select! {
            loaded = settings(command) => loaded?,
            () = signals.end() => return Ok(()),
        };
        let (file, overrides) = (command.config.clone(), command.overrides());
        let again = move || load_client(file.as_deref(), environment(), &overrides);
        let reloader = Reloader::new(again, &loaded);
        let Loaded {
            settings,
            telemetry,
            admin_hosts,
            warnings,
            ..
        } = loaded;
        let fixed = Fixed {
            telemetry: telemetry.clone(),
            admin_hosts,
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
        let served = serve(
            reloader,
            settings,
            fixed,
            &observability,
            &mut signals,
            first,
        )
        .await;
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

/// Checks the configuration and prints its errors.
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
            outln!("the configuration is valid");
        }
        Err(error) if error.waits_for_server() => {
            outln!(
                "the configuration is valid; it names no server, so the client waits for one on this machine"
            );
        }
        Err(error) => return Err(Failed::config(error)),
    }
    Ok(())
}

/// Loads the settings. If they name no server and no token, waits for a server on this machine: either program may be
/// started first.
async fn settings(command: &cli::Adit) -> Result<Loaded<Settings>, Failed> {
    let mut is_printed = false;
    loop {
        match load(command) {
            Ok(loaded) => return Ok(loaded),
            Err(error) if error.waits_for_server() => {}
            Err(error) => return Err(Failed::config(error)),
        }
        if !is_printed {
            is_printed = true;
            let state = StateDir::find(command.state_dir.as_deref(), environment());
            errln!(
                "waiting for an adit-server on this machine ({}); name another one with --server",
                state.path().display()
            );
        }
        tokio::time::sleep(CHECK_FOR_SERVER).await;
    }
}

/// The form of the output, and the log that is held back until its first line.
struct First {
    held: HeldLog,
    json: bool,
}

async fn serve(
    mut reloader: Reloader<Settings>,
    settings: Settings,
    fixed: Fixed,
    observability: &ObservabilityGuard,
    signals: &mut Signals,
    First { held, json }: First,
) -> Result<(), Failed> {
    let state = StateDir::new(&settings.state_dir);
    let mut urls = Urls::new(&settings, json);
    let admin = match settings.admin_addr {
        Some(addr) => Some(Admin::bind(addr).await.map_err(Failed::other)?),
        None => None,
    };
    let client =
        Client::start_observed(settings, &observability.observer()).map_err(Failed::other)?;
    let running = RunningClient {
        pid: std::process::id(),
        client_id: client.client_id(),
        admin_addr: admin.as_ref().map(Admin::addr),
    };
    let _state_file = state::announce_client(&state, &running);
    let mut held = Some(held);
    print_entries(&client.handle().status(), !urls.are_expected(), json);
    if !urls.are_expected() {
        held = None;
    }
    let admin = admin.map(|admin| {
        let status_source = StatusReader {
            client: client.handle(),
            failures: reloader.failures(),
            telemetry: observability.telemetry().clone(),
        };
        serve_admin(
            admin.allow_hosts(fixed.admin_hosts.clone()),
            Arc::new(status_source),
        )
    });
    let mut registrations = client.registrations();
    let mut epoch = None;
    let ended = loop {
        tokio::select! {
            Ok(()) = registrations.changed() => {
                let registration = registrations.borrow_and_update().clone();
                if let Some(registration) = registration {
                    urls.print(&registration);
                    held = None;
                    if epoch.replace(registration.epoch) != Some(registration.epoch) {
                        tracing::info!(epoch = registration.epoch, "connected");
                    }
                }
            }
            ended = client.ended() => break Some(ended),
            event = signals.next() => match event {
                SignalEvent::Shutdown => break None,
                SignalEvent::Reload => {
                    tracing::info!("SIGHUP: the configuration is loaded again");
                    reload(&client, &mut reloader, &mut urls, &fixed);
                }
            },
            () = reloader.changed() => {
                tracing::info!("the configuration file has changed and is loaded again");
                reload(&client, &mut reloader, &mut urls, &fixed);
            }
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
