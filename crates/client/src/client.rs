//! A running client.

mod apply;
mod drain;
mod handle;
mod report;
mod run;
mod services;
mod state;
mod totals;

use std::{
    io,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use adit_egress::{Egress, RequestOwner};
use adit_link::grpc::GrpcTransport;
use adit_net::descriptors_for_visitors;
use adit_reconnect::StopReason;
use adit_tls::Connector;
use adit_trace::{NoObserver, Observer};
use thiserror::Error;
use tokio::{
    runtime::{self, Handle},
    sync::watch,
};

pub use self::{
    apply::{Applied, Changes},
    handle::ClientHandle,
    run::{Ended, Registration},
};
use self::{
    run::Run,
    services::{egress_config, services, warn_of_clear_text, warn_of_insecure},
    state::State,
};
use crate::{
    entries::{Entries, EntryError},
    instance::{self, InstanceError},
    settings::Settings,
};

/// Why a client did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The client id is in use on this machine.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// An entry cannot be listened on.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The system could not start a thread.
    #[error("cannot start the data thread: {0}")]
    Thread(io::Error),
}

/// A running client.
pub struct Client {
    state: Arc<State>,
    runtime: Handle,
    applying: Mutex<()>,
    /// TLS of the next connection to the server.
    tls: Connector,
    thread: Option<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    registration: watch::Receiver<Option<Registration>>,
    ended: watch::Receiver<Option<Ended>>,
}

impl Client {
    /// Starts the data thread, which connects at once.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        Self::start_observed(settings, &(Arc::new(NoObserver) as _))
    }

    /// [`Client::start`]; `observer` records every request, of tunnels and of entries.
    ///
    /// # Errors
    /// Returns the errors of [`Client::start`].
    pub fn start_observed(
        mut settings: Settings,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        let instance = instance::take(
            &settings.state_dir,
            &settings.client_id,
            settings.client_id_chosen,
            rand::random(),
        )?;
        if settings.group_id == settings.client_id {
            settings.group_id.clone_from(&instance.client_id);
        }
        settings.client_id.clone_from(&instance.client_id);
        let mut services_share = descriptors_for_visitors();
        if !settings.entries.is_empty() {
            // The other half of the descriptors is for visitors of the entries.
            services_share /= 2;
        }
        warn_of_insecure(&settings);
        warn_of_clear_text(&settings);
        // Only the server knows the user of the credential.
        let owner = RequestOwner {
            user: Box::default(),
            group: settings.group_id.as_str().into(),
            client: settings.client_id.as_str().into(),
        };
        let config = egress_config(&settings, services_share);
        let egress = Egress::with_owner(config, observer.clone(), owner);
        egress.set_services(services(&settings));
        let entries = Entries::bind(&settings, observer)?;
        let tls = Connector::new(settings.tls.clone(), settings.timeouts.handshake);
        let transport = GrpcTransport {
            host: settings.server_host.clone(),
            port: settings.server_port,
            proxy: settings.proxy.clone(),
            tls: tls.clone(),
        };
        let state = Arc::new(State::new(settings, egress, entries));
        let stop = watch::Sender::new(false);
        let (registrations, registration) = watch::channel(None);
        let (ends, ended) = watch::channel(None);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let handle = runtime.handle().clone();
        let run = Run {
            transport: Arc::new(transport),
            state: state.clone(),
            instance,
            stop: stop.subscribe(),
            registrations,
        };
        let thread = thread::Builder::new()
            .name("data-0".into())
            .spawn(move || {
                let ended = runtime.block_on(run.until_stopped());
                ends.send_replace(Some(ended));
            })
            .map_err(StartError::Thread)?;
        Ok(Self {
            state,
            runtime: handle,
            applying: Mutex::new(()),
            tls,
            thread: Some(thread),
            stop,
            registration,
            ended,
        })
    }

    /// The client id: the one of the settings, or the next free one on this machine.
    pub fn client_id(&self) -> String {
        self.state.settings().client_id.clone()
    }

    /// The result of the newest registration, as it changes.
    pub fn registrations(&self) -> watch::Receiver<Option<Registration>> {
        self.registration.clone()
    }

    /// Waits until the client has ended by itself or by [`Client::stop`].
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        let found = ended
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|ended| ended.clone());
        found.unwrap_or(Ended {
            reason: StopReason::Requested,
            error: None,
        })
    }

    /// A handle for status.
    pub fn handle(&self) -> ClientHandle {
        ClientHandle {
            state: self.state.clone(),
            runtime: self.runtime.clone(),
        }
    }
}
