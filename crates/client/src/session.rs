//! One registration and the streams that ride on it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use adit_codec::Side;
use adit_egress::Egress;
use adit_flow::Budget;
use adit_link::{
    Compression as OnHop, Failure, Lane, LaneConfig, Reason,
    control::{
        CAPABILITIES, CallError, Channel, ConnectError, ControlChannel, ControlMessage,
        LaneRequest, RefusalReason, Transport,
    },
    drive,
};
use adit_proto::{
    ConfigSyncRequest, Credential, LinkSettings, PROTOCOL_VERSION, ProtocolType, RegisterRequest,
    RegisterResponse, Tunnel, control::Kind, credential,
};
use adit_trace::Printable;
use bytes::Bytes;
use secrecy::ExposeSecret;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_stream::StreamExt;

use crate::{
    announcements::Announcements,
    settings::{Compression, Settings, TunnelKind, TunnelSettings},
    status::TunnelOutcome,
};

/// A control stream that was lost is opened again after this; twice as long after each try that fails.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);
const MAX_REOPEN_PAUSE: Duration = Duration::from_secs(5);

/// Control messages that are kept while the first announcement is waited for.
const MOST_EARLY: usize = 16;

/// Why a session could not be set up.
#[derive(Debug)]
pub(crate) struct DialError {
    pub(crate) kind: adit_reconnect::Failure,
    pub(crate) text: String,
}

/// A session with its first data stream open.
pub(crate) struct Session<C: Channel> {
    pub(crate) epoch: u64,
    /// Of the server's configuration.
    pub(crate) revision: u64,
    /// Requests that the client may open at a time (P-2.9); 0 when the server does not say.
    pub(crate) max_requests: u32,
    pub(crate) announcements: Announcements,
    pub(crate) lanes: Vec<Arc<Lane>>,
    pub(crate) control: mpsc::Sender<ControlMessage>,
    session: String,
    first: (C, C::Reader),
    others: Vec<(C, C::Reader)>,
    outbound_control: mpsc::Receiver<ControlMessage>,
    control_stream: ControlStream,
    /// Connections and streams; all end with the session.
    tasks: JoinSet<()>,
}

/// Connects, registers, opens the data streams.
pub(crate) async fn dial<T: Transport>(
    transport: &T,
    settings: &Settings,
    instance: [u8; 32],
    egress: &Arc<Egress>,
) -> Result<Session<T::Channel>, DialError> {
    let within = settings.timeouts.connect;
    match timeout(
        within,
        dial_unbounded(transport, settings, instance, egress),
    )
    .await
    {
        Ok(result) => result,
        Err(_) => Err(transient(format!(
            "{} did not answer within {within:?}",
            settings.server_addr()
        ))),
    }
}

async fn dial_unbounded<T: Transport>(
    transport: &T,
    settings: &Settings,
    instance: [u8; 32],
    egress: &Arc<Egress>,
) -> Result<Session<T::Channel>, DialError> {
    let mut tasks = JoinSet::new();
    let channel = open_channel(transport, settings, &mut tasks).await?;
    let error = |error| dial_error(settings, &channel, &error);
    let response = register(settings, instance, &channel).await?;
    let link = response.settings.unwrap_or_default();
    let config = lane_config(settings, &link);
    let budget = Budget::new(settings.limits.budget_bytes);
    let mut lanes = Vec::new();
    let mut sources = Vec::new();
    for index in 0..link.lanes.clamp(1, settings.lanes.max(1)) {
        // The first lane rides the channel of the registration; more lanes are there to use more cores and paths.
        let channel = if index == 0 {
            channel.clone()
        } else {
            open_channel(transport, settings, &mut tasks).await?
        };
        let lane = Lane::new(config.clone(), budget.clone(), egress.clone());
        if response.capabilities.iter().any(|name| name == "upgrade") {
            lane.allow_upgrades();
        }
        for by in [OnHop::Gzip, OnHop::Zstd] {
            if response.capabilities.iter().any(|name| name == by.as_str()) {
                lane.allow_compression(by);
            }
        }
        let request = LaneRequest {
            session: &response.session,
            lane: index,
        };
        let source = channel.open_lane(&lane, request).await.map_err(error)?;
        lanes.push(lane);
        sources.push((channel, source));
    }
    let mut sources = sources.into_iter();
    let first = sources
        .next()
        .ok_or_else(|| transient("no data stream".into()))?;
    let mut control_stream = ControlStream::open(&channel, &response.session)
        .await
        .map_err(error)?;
    let tunnels = settings.tunnels.iter().map(announcement).collect();
    let mut announcements = Announcements::new(tunnels, &settings.server_host);
    let mut revision = response.revision;
    if let Some(answered) = control_stream
        .announce(&mut announcements)
        .await
        .map_err(error)?
    {
        revision = answered;
    }
    let (control, outbound_control) = mpsc::channel(16);
    Ok(Session {
        epoch: response.epoch,
        revision,
        max_requests: link.max_requests,
        announcements,
        lanes,
        control,
        session: response.session,
        first,
        others: sources.collect(),
        outbound_control,
        control_stream,
        tasks,
    })
}

impl<C: Channel> Session<C> {
    /// Fetches the names of the upstreams that the server defines. Borrows nothing of the session.
    pub(crate) fn upstreams(
        &self,
    ) -> impl Future<Output = Result<Vec<String>, CallError>> + Send + use<C> {
        let (channel, session) = (self.first.0.clone(), self.session.clone());
        async move {
            let request = ConfigSyncRequest { known_revision: 0 };
            let response = channel.sync_config(&session, request).await?;
            let names = response.upstreams.into_iter();
            Ok(names.map(|upstream| upstream.name).collect())
        }
    }

    /// Runs until the session is lost; says why. `on_control` gets the control messages of the server, `on_tunnels` what
    /// has become of the tunnels each time that the server has answered.
    pub(crate) async fn serve(
        mut self,
        on_control: impl Fn(Kind) + Send + 'static,
        on_tunnels: impl Fn(Vec<TunnelOutcome>) + Send + 'static,
    ) -> Failure {
        let (channel, source) = self.first;
        let control = ControlTask {
            channel,
            session: self.session,
            outbound: self.outbound_control,
            announcements: self.announcements,
            on_control,
            on_tunnels,
        };
        self.tasks.spawn(control.run(self.control_stream));
        for (lane, (_, source)) in self.lanes.iter().skip(1).zip(self.others) {
            let lane = lane.clone();
            self.tasks.spawn(async move {
                let failure = drive(&lane, source).await;
                tracing::warn!(%failure, "a further lane was lost");
            });
        }
        let Some(lane) = self.lanes.first().cloned() else {
            return Failure::new(Reason::Internal, "no lane");
        };
        // A task of its own, though it is waited for here: woken inside the runtime's root future, each batch would cost
        // one more look at the sockets.
        let mut driven = JoinSet::new();
        driven.spawn(async move { drive(&lane, source).await });
        let failure = match driven.join_next().await {
            Some(Ok(failure)) => failure,
            _ => Failure::new(Reason::Internal, "the lane's task broke off"),
        };
        for lane in &self.lanes {
            lane.close(&failure);
        }
        failure
    }
}

/// A control stream that is open.
struct ControlStream {
    channel: ControlChannel,
    /// Messages that came while the first announcement was waited for.
    early: Vec<Kind>,
}

impl ControlStream {
    async fn open(channel: &impl Channel, session: &str) -> Result<Self, CallError> {
        Ok(Self {
            channel: channel.open_control(session).await?,
            early: Vec::new(),
        })
    }

    /// Announces the tunnels for the first time and waits for the results. The revision that holds them.
    async fn announce(
        &mut self,
        announcements: &mut Announcements,
    ) -> Result<Option<u64>, CallError> {
        let Some(announce) = announcements.announce(Instant::now()) else {
            return Ok(None);
        };
        self.send(ControlMessage::new(0, Kind::TunnelsAnnounce(announce)));
        loop {
            match self.next().await? {
                Kind::TunnelResults(results) => {
                    let now = Instant::now();
                    if announcements.on_results(&results, now, rand::random()) {
                        return Ok(Some(results.revision));
                    }
                }
                kind if self.early.len() < MOST_EARLY => self.early.push(kind),
                _ => {}
            }
        }
    }

    /// Sends a message, unless the server does not read its control stream: the next stream repeats what matters.
    fn send(&self, message: ControlMessage) {
        drop(self.channel.outbound.try_send(message));
    }

    /// The next control message.
    ///
    /// # Cancel safety
    /// Yes.
    async fn next(&mut self) -> Result<Kind, CallError> {
        loop {
            let Some(message) = self.channel.inbound.next().await else {
                let ended = "the server ended the control stream";
                return Err(CallError::Lost(ended.into()));
            };
            if let Some(kind) = message?.kind {
                return Ok(kind);
            }
        }
    }
}

/// Keeps the control stream open as long as its channel is; it and the data stream recover without each other (P-1.7).
struct ControlTask<H, C, T> {
    channel: H,
    session: String,
    outbound: mpsc::Receiver<ControlMessage>,
    announcements: Announcements,
    on_control: C,
    on_tunnels: T,
}

impl<H: Channel, C: Fn(Kind), T: Fn(Vec<TunnelOutcome>)> ControlTask<H, C, T> {
    async fn run(mut self, first: ControlStream) {
        let mut stream = Some(first);
        let mut pause = REOPEN_PAUSE;
        while !self.channel.is_closed() {
            let opened = match stream.take() {
                Some(first) => Ok(first),
                None => ControlStream::open(&self.channel, &self.session).await,
            };
            match opened {
                Ok(stream) => {
                    pause = REOPEN_PAUSE;
                    if !self.talk(stream).await {
                        return;
                    }
                    self.announcements.on_stream_lost(Instant::now());
                }
                Err(error) => {
                    tracing::debug!(%error, "control stream refused");
                    if error.reason() == Some(RefusalReason::StaleSession) {
                        return;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_REOPEN_PAUSE);
        }
    }

    /// Until the stream is lost; false when nobody needs another one.
    async fn talk(&mut self, mut stream: ControlStream) -> bool {
        for kind in std::mem::take(&mut stream.early) {
            self.on_kind(kind);
        }
        loop {
            let due = self.announcements.due();
            let announce = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                kind = stream.next() => match kind {
                    Ok(kind) => self.on_kind(kind),
                    Err(_) => return true,
                },
                message = self.outbound.recv() => match message {
                    Some(message) => stream.send(message),
                    None => return false,
                },
                () = announce => {
                    if let Some(announce) = self.announcements.announce(Instant::now()) {
                        stream.send(ControlMessage::new(0, Kind::TunnelsAnnounce(announce)));
                    }
                }
            }
        }
    }

    fn on_kind(&mut self, kind: Kind) {
        let now = Instant::now();
        match kind {
            Kind::TunnelResults(results) => {
                if self.announcements.on_results(&results, now, rand::random()) {
                    (self.on_tunnels)(self.announcements.outcomes());
                }
            }
            Kind::TunnelsFreed(_) => self.announcements.on_freed(now),
            kind => (self.on_control)(kind),
        }
    }
}

async fn open_channel<T: Transport>(
    transport: &T,
    settings: &Settings,
    tasks: &mut JoinSet<()>,
) -> Result<T::Channel, DialError> {
    let addr = settings.server_addr();
    let (channel, driver) = transport.connect().await.map_err(|error| match error {
        ConnectError::Unreachable(error) => {
            transient(format!("cannot reach the server at {addr}: {error}"))
        }
        ConnectError::InvalidHost(error) => DialError {
            kind: adit_reconnect::Failure::Refused { fatal: true },
            text: format!("invalid host name `{}`: {error}", settings.server_host),
        },
        ConnectError::Handshake(error) => transient(format!("{addr}: {error}")),
    })?;
    tasks.spawn(driver);
    Ok(channel)
}

async fn register(
    settings: &Settings,
    instance: [u8; 32],
    channel: &impl Channel,
) -> Result<RegisterResponse, DialError> {
    let request = RegisterRequest {
        protocol_version: PROTOCOL_VERSION,
        capabilities: CAPABILITIES.iter().map(ToString::to_string).collect(),
        client_id: settings.client_id.clone(),
        group_id: settings.group_id.clone(),
        instance_secret: Bytes::copy_from_slice(&instance),
        credential: Some(Credential {
            kind: Some(credential::Kind::Token(
                settings.token.expose_secret().to_owned(),
            )),
        }),
        lanes: settings.lanes,
        client_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let response = channel
        .register(request)
        .await
        .map_err(|error| dial_error(settings, channel, &error))?;
    if response.protocol_version == PROTOCOL_VERSION {
        Ok(response)
    } else {
        Err(DialError {
            kind: adit_reconnect::Failure::Refused { fatal: true },
            text: format!(
                "the server speaks protocol version {}, this client {PROTOCOL_VERSION}",
                response.protocol_version
            ),
        })
    }
}

fn announcement(tunnel: &TunnelSettings) -> Tunnel {
    Tunnel {
        name: tunnel.name.clone(),
        protocol_type: match tunnel.kind {
            TunnelKind::Http => ProtocolType::Http,
            TunnelKind::Grpc => ProtocolType::Grpc,
            TunnelKind::WebSocket => ProtocolType::Websocket,
            TunnelKind::Tcp => ProtocolType::Tcp,
            TunnelKind::Udp => ProtocolType::Udp,
        }
        .into(),
        domains: tunnel.domains.clone(),
        locations: tunnel.locations.clone(),
        remote_port: tunnel.remote_port.into(),
        load_balance: tunnel.load_balance.name().to_owned(),
        weight: tunnel.weight,
        hash_on: tunnel.hash_on.clone(),
        compression: match tunnel.compression {
            Compression::None => String::new(),
            compression => compression.as_str().to_owned(),
        },
        session_timeout_millis: match tunnel.kind {
            TunnelKind::Udp => {
                u32::try_from(tunnel.service.session_timeout.as_millis()).unwrap_or(u32::MAX)
            }
            _ => 0,
        },
    }
}

fn lane_config(settings: &Settings, link: &LinkSettings) -> LaneConfig {
    let mut mux = adit_mux::Config::new(Side::Client);
    if link.initial_window_bytes > 0 {
        mux.initial_window = link.initial_window_bytes;
    }
    mux.max_window = settings.limits.max_window_bytes;
    mux.max_requests = settings.limits.max_requests;
    // Visitors that come and go reach this end as resets; the server bounds visitors.
    mux.max_resets_per_tick = u32::MAX;
    let millis = |value: u32, default: u64| match value {
        0 => Duration::from_millis(default),
        value => Duration::from_millis(u64::from(value)),
    };
    LaneConfig {
        mux,
        max_entries: settings.limits.max_requests.saturating_mul(2),
        heartbeat: millis(link.heartbeat_millis, 3_000),
        dead_after: millis(link.dead_after_millis, 10_000),
        stall: settings.timeouts.stall,
        turn_bytes: settings.limits.turn_bytes,
    }
}

fn transient(text: String) -> DialError {
    DialError {
        kind: adit_reconnect::Failure::Transient,
        text,
    }
}

/// The failure of a call, with the address; names the program at the address when that is not an adit-server.
fn dial_error(settings: &Settings, channel: &impl Channel, error: &CallError) -> DialError {
    let addr = settings.server_addr();
    if let Some(peer) = channel.foreign_peer() {
        return transient(format!(
            "{addr} is not the port for clients of an adit-server: {peer}; name the port that is `server.bind_port` \
             on the server, 7000 unless it is set"
        ));
    }
    match error {
        CallError::NotAdit(detail) => DialError {
            kind: adit_reconnect::Failure::Refused { fatal: true },
            text: format!(
                "{addr} is a gRPC server, but not an adit-server: {}",
                Printable(detail)
            ),
        },
        CallError::Lost(detail) => transient(format!("{addr}: {}", Printable(detail))),
        CallError::Refused(refusal) => DialError {
            kind: match refusal.reason {
                // Another instance holds the name and responds: an early retry changes nothing (P-1.8).
                RefusalReason::Unauthenticated
                | RefusalReason::ClientIdTaken
                | RefusalReason::GroupTaken => adit_reconnect::Failure::Unauthenticated,
                RefusalReason::Version | RefusalReason::BadRequest => {
                    adit_reconnect::Failure::Refused { fatal: true }
                }
                RefusalReason::StaleSession
                | RefusalReason::Limit
                | RefusalReason::ProtocolError
                | RefusalReason::Internal => adit_reconnect::Failure::Transient,
            },
            text: format!("{addr}: {}", Printable(&refusal.detail)),
        },
    }
}
