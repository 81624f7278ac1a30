//! A running client: dials, serves, dials again.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use adit_egress::{Egress, Owner, Protocol, ServiceConfig, Trust};
use adit_ingress::descriptors;
use adit_link::{Failure, Lane, Reason};
use adit_proto::{Drain, TunnelMessage, control::Kind};
use adit_reconnect::{Action, Event, Reconnect, StatusCell, StopReason};
use adit_trace::{Observer, Printable, Unobserved};
use thiserror::Error;
use tokio::{
    runtime::{self, Handle},
    sync::{mpsc, watch},
};

use crate::{
    entries::{Entries, EntryError},
    instance::{self, Instance, InstanceError},
    links::Up,
    session::{self, DialError, Session, control_message},
    settings::{ServiceProtocol, Settings},
    status::{CoreCounters, Status, TunnelOutcome, TunnelStatus},
};

/// A server that is away is worth a line of the log this often.
const REMIND_AFTER: Duration = Duration::from_secs(60);

/// How often a drain looks whether everything has finished.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Nothing must have been running for this long: what the server sent before it heard of the drain may be on its way.
const DRAIN_QUIET: Duration = Duration::from_millis(250);

/// Why a client did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The instance secret cannot be kept.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// An entry cannot be listened on.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// No thread.
    #[error("cannot start the data thread: {0}")]
    Thread(io::Error),
}

/// What the last registration gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its epoch.
    pub epoch: u64,
    /// One outcome for each tunnel.
    pub tunnels: Vec<TunnelOutcome>,
}

/// Why a client ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// In short.
    pub reason: StopReason,
    /// The last error, if there was one.
    pub error: Option<String>,
}

/// Asks a running client; cheap to clone, and of no use to its end.
#[derive(Clone)]
pub struct ClientHandle {
    shared: Arc<Shared>,
    runtime: Handle,
}

/// A running client.
pub struct Client {
    shared: Arc<Shared>,
    runtime: Handle,
    thread: Option<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    registration: watch::Receiver<Option<Registration>>,
    ended: watch::Receiver<Option<Ended>>,
}

struct Shared {
    settings: Settings,
    egress: Arc<Egress>,
    entries: Entries,
    cell: StatusCell,
    live: Mutex<Live>,
    /// A link that is lost now is not dialled again: a new one would be sent new requests.
    draining: AtomicBool,
}

#[derive(Default)]
struct Live {
    lanes: Vec<Arc<Lane>>,
    control: Option<mpsc::Sender<TunnelMessage>>,
    epoch: u64,
    tunnels: Vec<TunnelOutcome>,
    last_error: Option<String>,
    dials: u64,
    /// The failure of a dial that was logged last, and when.
    reported: Option<(String, Instant)>,
}

impl Live {
    /// Keeps the error, and logs it: once for all dials that fail alike, and then once in a while.
    fn dial_failed(&mut self, error: DialError, now: Instant) -> adit_reconnect::Failure {
        let DialError { kind, text } = error;
        let is_news = self.reported.as_ref().is_none_or(|(last, at)| {
            *last != text || now.saturating_duration_since(*at) >= REMIND_AFTER
        });
        match kind {
            adit_reconnect::Failure::Transient if is_news => {
                tracing::warn!("{text}; trying again until it succeeds");
            }
            _ if is_news => tracing::warn!("{text}"),
            _ => tracing::debug!("{text}"),
        }
        if is_news {
            self.reported = Some((text.clone(), now));
        }
        self.last_error = Some(text);
        kind
    }
}

impl Client {
    /// Starts the data thread, which dials at once.
    ///
    /// # Errors
    /// [`StartError`], which says what to change.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        Self::start_observed(settings, &(Arc::new(Unobserved) as _))
    }

    /// [`Client::start`]; `observer` is told of every request, at the services' side and at that of the entries.
    ///
    /// # Errors
    /// Those of [`Client::start`].
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
        let mut services_share = descriptors::for_visitors();
        if !settings.entries.is_empty() {
            // The other half is for visitors of the entries.
            services_share /= 2;
        }
        let egress_config = adit_egress::Config {
            dial_timeout: settings.timeouts.dial,
            answer_timeout: settings.timeouts.service,
            idle_timeout: settings.timeouts.idle,
            stall_timeout: settings.timeouts.stall,
            tcp_stall_timeout: settings.timeouts.session_stall,
            tcp_keepalive: Some(settings.timeouts.session_keepalive)
                .filter(|silence| !silence.is_zero()),
            close_timeout: settings.timeouts.session_close,
            early_answer_timeout: settings.timeouts.early_answer,
            max_connections: settings.limits.max_service_connections.min(services_share),
            max_idle: settings.limits.max_idle_connections,
            turn_bytes: settings.limits.turn_bytes,
            ..adit_egress::Config::default()
        };
        for tunnel in settings.tunnels.iter().filter(|one| {
            let tls = one.service.tls.as_ref();
            tls.is_some_and(|tls| tls.trust == Trust::Anyone)
        }) {
            tracing::warn!(
                tunnel = tunnel.name,
                "local_tls.insecure: any certificate of the service is believed; whoever gets in between can read and \
                 change everything"
            );
        }
        // Whose credential it has, only the server knows.
        let owner = Owner {
            user: Box::default(),
            group: settings.group_id.as_str().into(),
            client: settings.client_id.as_str().into(),
        };
        let egress = Egress::observed_of(egress_config, observer.clone(), owner);
        egress.set_services(services(&settings));
        let entries = Entries::bind(&settings, observer)?;
        let shared = Arc::new(Shared {
            settings,
            egress,
            entries,
            cell: StatusCell::default(),
            live: Mutex::default(),
            draining: AtomicBool::new(false),
        });
        let stop = watch::Sender::new(false);
        let (registrations, registration) = watch::channel(None);
        let (ends, ended) = watch::channel(None);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let handle = runtime.handle().clone();
        let run = Run {
            shared: shared.clone(),
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
            shared,
            runtime: handle,
            thread: Some(thread),
            stop,
            registration,
            ended,
        })
    }

    /// The name it goes by: the one in the settings, or the next free one.
    pub fn client_id(&self) -> &str {
        &self.shared.settings.client_id
    }

    /// What each registration gave, the newest only.
    pub fn registrations(&self) -> watch::Receiver<Option<Registration>> {
        self.registration.clone()
    }

    /// Waits until the client has ended by itself or was stopped.
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
            reason: StopReason::Asked,
            error: None,
        })
    }

    /// For those who ask.
    pub fn handle(&self) -> ClientHandle {
        ClientHandle {
            shared: self.shared.clone(),
            runtime: self.runtime.clone(),
        }
    }

    /// Tells the server to send nothing new and lets running requests finish, at most for the time in the settings.
    pub async fn drain(&self) {
        let within = self.shared.settings.timeouts.drain;
        let (control, lanes) = {
            let live = self.shared.lock();
            (live.control.clone(), live.lanes.clone())
        };
        self.shared.draining.store(true, Ordering::Relaxed);
        self.shared.cell.set(adit_reconnect::Status::Draining);
        let entries = &self.shared.entries;
        entries.drain();
        if let Some(control) = control {
            let drain = Kind::Drain(Drain {
                reason: "the client is stopping".into(),
                grace_millis: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            });
            // Without a control stream the server learns it from the refusals.
            drop(control.try_send(control_message(drain)));
        }
        // They would never finish; whoever is at their ends comes back by another way.
        self.shared.egress.close_websockets();
        let finished = async {
            let mut idle_since = Instant::now();
            // On a lane that is over nothing is on its way.
            while lanes.iter().any(|lane| !lane.is_closed()) && idle_since.elapsed() < DRAIN_QUIET {
                tokio::time::sleep(DRAIN_LOOK).await;
                // Those too that the server sent before it heard.
                self.shared.egress.close_websockets();
                let open: usize = lanes.iter().map(|lane| lane.open_requests()).sum();
                // Flows of UDP have no end to wait for.
                if open > self.shared.egress.stats().udp.flows_open {
                    idle_since = Instant::now();
                }
            }
            // Their answers have come, and may still be on their way to them.
            while !entries.is_idle() {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        if tokio::time::timeout(within, finished).await.is_err() {
            tracing::warn!("broken off: the time to finish is over");
        }
        self.shared.egress.set_draining(true);
    }

    /// Ends everything at once and waits for the thread.
    pub fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the data thread panicked");
        }
    }
}

impl ClientHandle {
    /// The requests that run, by tunnel, where there are any; connections of visitors of entries under `entries`.
    pub fn running(&self) -> Vec<(String, usize)> {
        let running = self.shared.egress.running().into_iter();
        let mut running: Vec<_> = running
            .map(|(name, running)| (name.into_string(), running))
            .collect();
        running.push(("entries".to_owned(), self.shared.entries.visitors()));
        running.retain(|(name, running)| *running > 0 && !self.is_udp(name));
        running
    }

    fn is_udp(&self, name: &str) -> bool {
        let mut tunnels = self.shared.settings.tunnels.iter();
        tunnels.any(|tunnel| tunnel.name == name && tunnel.service.protocol == ServiceProtocol::Udp)
    }

    /// How long [`Client::drain`] takes at most.
    pub fn drain_within(&self) -> Duration {
        self.shared.settings.timeouts.drain
    }

    /// What the client is doing. Walks open requests.
    pub fn status(&self) -> Status {
        self.shared.status(self.runtime.metrics().num_alive_tasks())
    }
}

struct Run {
    shared: Arc<Shared>,
    instance: Instance,
    stop: watch::Receiver<bool>,
    registrations: watch::Sender<Option<Registration>>,
}

impl Run {
    async fn until_stopped(self) -> Ended {
        let mut stop = self.stop.clone();
        let shared = self.shared.clone();
        tokio::spawn(async move { shared.entries.accept().await });
        tokio::select! {
            ended = self.dial_and_serve() => ended,
            // A dropped sender means that nobody is left to say stop.
            _ = stop.wait_for(|stop| *stop) => {
                let failure = Failure::new(Reason::Draining, "the client is stopping");
                self.shared.close(&failure);
                Ended { reason: StopReason::Asked, error: None }
            }
        }
    }

    /// Does what the reconnect machine says, until it says stop.
    async fn dial_and_serve(&self) -> Ended {
        let shared = &self.shared;
        let mut machine = Reconnect::new(shared.settings.reconnect.clone());
        let mut event = Event::Start;
        let mut dialled = None;
        loop {
            let action = match machine.on_event(event, Instant::now(), rand::random()) {
                Ok(action) => action,
                Err(wrong) => {
                    // A fault of this file, not of the network: begin anew rather than hang.
                    tracing::error!(%wrong, "reconnect");
                    machine = Reconnect::new(shared.settings.reconnect.clone());
                    event = Event::Start;
                    continue;
                }
            };
            shared.cell.set(machine.status());
            shared.lock().dials = machine.stats().dials;
            event = match action {
                Action::Dial => match self.dial().await {
                    Ok(session) => {
                        let epoch = session.epoch;
                        dialled = Some(session);
                        Event::Established { epoch }
                    }
                    Err(kind) => Event::DialFailed(kind),
                },
                Action::Serve => match dialled.take() {
                    Some(session) => {
                        self.serve(session).await;
                        if shared.draining.load(Ordering::Relaxed) {
                            Event::Stop
                        } else {
                            Event::Lost
                        }
                    }
                    None => Event::Lost,
                },
                Action::Wait { until } => {
                    tokio::time::sleep_until(until.into()).await;
                    Event::TimerDue
                }
                Action::Stop(reason) => {
                    let error = shared.lock().last_error.clone();
                    return Ended { reason, error };
                }
            };
        }
    }

    async fn dial(&self) -> Result<Session, adit_reconnect::Failure> {
        let shared = &self.shared;
        let session = session::dial(&shared.settings, self.instance.secret, &shared.egress).await;
        let session = session.map_err(|error| shared.lock().dial_failed(error, Instant::now()))?;
        let tunnels = session.announcements.outcomes();
        let refused = |tunnel: &TunnelOutcome| tunnel.error.is_some() && !tunnel.waiting;
        // Nothing to serve, and nothing was ever served: the user has to change something.
        if !tunnels.is_empty()
            && tunnels.iter().all(refused)
            && shared.settings.entries.is_empty()
            && self.registrations.borrow().is_none()
        {
            let texts: Vec<_> = tunnels
                .iter()
                .filter_map(|tunnel| tunnel.error.clone())
                .collect();
            shared.lock().last_error = Some(texts.join("; "));
            let failure = Failure::new(Reason::Cancelled, "every tunnel was refused");
            for lane in &session.lanes {
                lane.close(&failure);
            }
            return Err(adit_reconnect::Failure::Refused { fatal: true });
        }
        log_refused(&[], &tunnels);
        {
            let mut live = shared.lock();
            live.lanes.clone_from(&session.lanes);
            live.control = Some(session.control.clone());
            live.epoch = session.epoch;
            live.tunnels.clone_from(&tunnels);
            live.reported = None;
        }
        let up = Up::new(session.epoch, session.revision, session.lanes.clone());
        shared.entries.link_up(up, session.max_requests);
        self.registrations.send_replace(Some(Registration {
            epoch: session.epoch,
            tunnels,
        }));
        Ok(session)
    }

    async fn serve(&self, session: Session) {
        // People are told by the program, after the public URL.
        tracing::debug!(epoch = session.epoch, "session set up");
        if !self.shared.settings.entries.is_empty() {
            let (asked, shared) = (session.upstreams(), self.shared.clone());
            tokio::spawn(async move { shared.ask_upstreams(asked).await });
        }
        let shared = self.shared.clone();
        let on_control = move |kind| {
            if matches!(kind, Kind::Drain(_)) {
                shared.entries.links.leaving();
            }
            on_control(kind);
        };
        let (shared, registrations) = (self.shared.clone(), self.registrations.clone());
        let epoch = session.epoch;
        let on_tunnels = move |tunnels: Vec<TunnelOutcome>| {
            {
                let mut live = shared.lock();
                log_refused(&live.tunnels, &tunnels);
                live.tunnels.clone_from(&tunnels);
            }
            registrations.send_replace(Some(Registration { epoch, tunnels }));
        };
        let failure = session.serve(on_control, on_tunnels).await;
        tracing::warn!(%failure, "the link was lost");
        if self.shared.draining.load(Ordering::Relaxed) {
            self.shared.entries.links.over();
        } else {
            self.shared.entries.links.down();
        }
        let mut live = self.shared.lock();
        live.last_error = Some(failure.to_string());
        live.lanes.clear();
        live.control = None;
    }
}

fn on_control(kind: Kind) {
    match kind {
        Kind::Drain(drain) => {
            tracing::info!(reason = %Printable(&drain.reason), "the server is leaving");
        }
        Kind::Error(error) => {
            tracing::warn!(code = %Printable(&error.code), "{}", Printable(&error.message));
        }
        _ => {}
    }
}

/// One line for each tunnel that is not served, unless it was not served for the same reason before.
fn log_refused(before: &[TunnelOutcome], now: &[TunnelOutcome]) {
    for tunnel in now.iter().filter(|tunnel| !before.contains(tunnel)) {
        let name = &tunnel.name;
        match &tunnel.error {
            Some(error) if tunnel.waiting => {
                tracing::warn!(
                    tunnel = name,
                    "tunnel waits and is announced again: {error}"
                );
            }
            Some(error) => tracing::warn!(tunnel = name, "tunnel refused: {error}"),
            None if before.is_empty() => {}
            None => tracing::info!(tunnel = name, "tunnel accepted"),
        }
    }
}

fn services(settings: &Settings) -> HashMap<Box<str>, ServiceConfig> {
    settings
        .tunnels
        .iter()
        .map(|tunnel| {
            let service = &tunnel.service;
            let protocol = match service.protocol {
                ServiceProtocol::Http1 => Protocol::Http1,
                ServiceProtocol::H2c => Protocol::H2c,
                ServiceProtocol::Tcp => Protocol::Tcp,
                ServiceProtocol::Udp => Protocol::Udp,
            };
            let mut config = ServiceConfig::new(&service.host, service.port, protocol);
            config.tls.clone_from(&service.tls);
            config.host_rewrite.clone_from(&service.host_rewrite);
            config.custom_headers.clone_from(&service.custom_headers);
            config.proxy_protocol = service.proxy_protocol;
            config.session_timeout = service.session_timeout;
            config.compression = tunnel.compression.on_hop();
            (tunnel.name.as_str().into(), config)
        })
        .collect()
}

impl Shared {
    /// Finds out which entries lead nowhere. Only for people: the server decides at each request.
    async fn ask_upstreams(&self, asked: impl Future<Output = Result<Vec<String>, tonic::Status>>) {
        match tokio::time::timeout(self.settings.timeouts.connect, asked).await {
            Ok(Ok(names)) => self.entries.check(&names),
            Ok(Err(status)) => tracing::debug!(%status, "the server does not tell its upstreams"),
            Err(_) => tracing::debug!("the server does not tell its upstreams in time"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, failure: &Failure) {
        let lanes = std::mem::take(&mut self.lock().lanes);
        for lane in lanes {
            lane.close(failure);
        }
    }

    fn tunnels(&self, outcomes: &[TunnelOutcome]) -> Vec<TunnelStatus> {
        let with_service = |outcome: &TunnelOutcome| {
            let mut tunnels = self.settings.tunnels.iter();
            let tunnel = tunnels.find(|tunnel| tunnel.name == outcome.name);
            TunnelStatus {
                outcome: outcome.clone(),
                target: tunnel.map_or_else(String::new, |tunnel| {
                    let service = &tunnel.service;
                    match service.host.contains(':') {
                        true => format!("[{}]:{}", service.host, service.port),
                        false => format!("{}:{}", service.host, service.port),
                    }
                }),
                requests: self.egress.requests_of(&outcome.name),
            }
        };
        outcomes.iter().map(with_service).collect()
    }

    fn status(&self, tasks: usize) -> Status {
        let services = self.egress.stats();
        let (lanes, mut status) = {
            let live = self.lock();
            let status = Status {
                version: env!("CARGO_PKG_VERSION"),
                client_id: self.settings.client_id.clone(),
                group_id: self.settings.group_id.clone(),
                server: self.settings.server_addr(),
                connection: connection(&self.cell.status()),
                epoch: if live.lanes.is_empty() { 0 } else { live.epoch },
                last_error: live.last_error.clone(),
                tunnels: self.tunnels(&live.tunnels),
                entries: self.entries.status(),
                requests: 0,
                opened: 0,
                accepted: 0,
                waiting_bytes: 0,
                pinned_bytes: 0,
                queued_bytes: 0,
                pending: 0,
                tasks,
                service_connections: services.connections,
                datagrams_dropped: services.udp.dropped_socket_full
                    + services.udp.dropped_unsendable
                    + services.udp.dropped_too_long,
                cores: CoreCounters {
                    reconnect_dials: live.dials,
                    ..CoreCounters::default()
                },
            };
            (live.lanes.clone(), status)
        };
        for lane in &lanes {
            let stats = lane.stats();
            status.requests += lane.open_requests();
            status.opened += stats.mux.opened;
            status.accepted += stats.mux.accepted;
            status.waiting_bytes += stats.waiting_bytes;
            status.pinned_bytes += stats.pinned_bytes;
            status.queued_bytes += stats.mux.queued;
            status.pending += usize::try_from(stats.pending.waiting).unwrap_or(usize::MAX);
            status.datagrams_dropped += stats.datagrams_dropped + stats.mux.datagrams_dropped;
            let cores = &mut status.cores;
            cores.codec_messages += stats.mux.messages_sent + stats.mux.messages_received;
            cores.mux_batches += stats.mux.batches_sent;
            cores.flow_windows += stats.mux.windows_sent;
            cores.pending_settled += stats.pending.completed
                + stats.pending.failed
                + stats.pending.cancelled
                + stats.pending.expired;
        }
        status
    }
}

const fn connection(status: &adit_reconnect::Status) -> &'static str {
    match status {
        adit_reconnect::Status::Idle => "idle",
        adit_reconnect::Status::Connecting { .. } => "connecting",
        adit_reconnect::Status::Connected { .. } => "connected",
        adit_reconnect::Status::Waiting { .. } => "waiting",
        adit_reconnect::Status::Draining => "draining",
        adit_reconnect::Status::Stopped { .. } => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_away_is_reported_once_a_minute() {
        let mut live = Live::default();
        let start = Instant::now();
        let mut reported_at = |text: &str, seconds| {
            let error = DialError {
                kind: adit_reconnect::Failure::Transient,
                text: text.to_owned(),
            };
            live.dial_failed(error, start + Duration::from_secs(seconds));
            let (text, at) = live.reported.clone().unwrap();
            (text, (at - start).as_secs())
        };
        let at = |text: &str, seconds| (text.to_owned(), seconds);
        assert_eq!(reported_at("refused", 0), at("refused", 0));
        assert_eq!(reported_at("refused", 1), at("refused", 0));
        assert_eq!(reported_at("refused", 59), at("refused", 0));
        assert_eq!(reported_at("refused", 60), at("refused", 60));
        assert_eq!(reported_at("timed out", 61), at("timed out", 61));
    }
}
