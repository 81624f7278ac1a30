//! The generated part of `TunnelService`: registration, control stream, config.

use std::{
    error::Error as _,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use adit_auth::{
    Authenticator, ClientClaim, ClientId, Credential, GroupId, InstanceSecret, SessionToken,
};
use adit_link::{
    Failure, Reason, Turn,
    grpc::{Allowance, ChannelId, with_reason},
};
use adit_proto::{
    ConfigSyncRequest, ConfigSyncResponse, Control, Error as ProtoError, Heartbeat, LinkSettings,
    MessageType, PROTOCOL_VERSION, ProtocolType, RegisterRequest, RegisterResponse,
    SESSION_METADATA, TunnelMessage, TunnelResult, TunnelResults, TunnelsAnnounce, TunnelsFreed,
    Upstream, control::Kind, credential, tunnel_message::Payload,
    tunnel_service_server::TunnelService,
};
use adit_registry::{ControlGuard, Link, RegisterError, Registry};
use secrecy::ExposeSecret;
use tokio::task::JoinHandle;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    channels::{ChannelUse, Channels},
    directory::{Directory, EnterError},
    floods::Floods,
    lanes::{session_of, stream_status},
    settings::{Limits, Timeouts},
    upstreams::Upstreams,
    worker::Announcer,
};

/// What this build knows beyond the protocol's version (P-1.2).
const CAPABILITIES: &[&str] = &[
    "http",
    "trailers",
    "expect-continue",
    "grpc",
    "websocket",
    "tcp",
    "udp",
    "upgrade",
    "gzip",
    "zstd",
];

/// The generated service's implementation, shared by all connections.
#[derive(Clone)]
pub(crate) struct Service {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Arc<Registry>,
    channels: Arc<Channels>,
    floods: Arc<Floods>,
    directory: Arc<Directory>,
    announcer: Announcer,
    upstreams: Arc<Upstreams>,
    authenticator: Arc<dyn Authenticator>,
    limits: Limits,
    timeouts: Timeouts,
}

impl Service {
    pub(crate) fn new(
        registry: Arc<Registry>,
        (channels, floods): (Arc<Channels>, Arc<Floods>),
        (directory, announcer): (Arc<Directory>, Announcer),
        upstreams: Arc<Upstreams>,
        authenticator: Arc<dyn Authenticator>,
        limits: Limits,
        timeouts: Timeouts,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                registry,
                channels,
                floods,
                directory,
                announcer,
                upstreams,
                authenticator,
                limits,
                timeouts,
            }),
        }
    }
}

#[tonic::async_trait]
impl TunnelService for Service {
    /// The first call of a client (P-1.1).
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let shared = &self.shared;
        let connection = Connection::of(&request)?;
        let request = request.into_inner();
        if request.protocol_version != PROTOCOL_VERSION {
            return Err(with_reason(
                Status::failed_precondition(format!(
                    "this server speaks protocol version {PROTOCOL_VERSION}, the client {}; install the same version of adit on both sides",
                    request.protocol_version
                )),
                "version",
            ));
        }
        let claim = ClientClaim {
            client_id: ClientId::parse(&request.client_id).map_err(bad_request)?,
            group_id: if request.group_id.is_empty() {
                GroupId::parse(&request.client_id).map_err(bad_request)?
            } else {
                GroupId::parse(&request.group_id).map_err(bad_request)?
            },
        };
        let instance: [u8; 32] = request.instance_secret[..].try_into().map_err(|_| {
            bad_request("instance_secret must be 32 random bytes that the client keeps")
        })?;
        let credential = match request.credential.and_then(|credential| credential.kind) {
            Some(credential::Kind::Token(token)) => Credential::Token(token.into()),
            None => Credential::None,
        };
        let grant = shared
            .authenticator
            .authenticate(&credential, &claim)
            .map_err(|denied| {
                // One text for every cause (P-1.3).
                let floods = &shared.floods;
                floods.denied(&claim.client_id, connection.peer, denied.reason());
                with_reason(
                    Status::unauthenticated(denied.to_string()),
                    "unauthenticated",
                )
            })?;
        connection.allowance.lift();
        let entered = shared
            .directory
            .enter(&grant)
            .map_err(|error| enter_status(&error))?;
        let lanes = request.lanes.clamp(1, shared.limits.max_lanes.max(1));
        let session = SessionToken::from_random(rand::random());
        let registered = shared
            .registry
            .register(
                grant,
                InstanceSecret::from_random(instance).key(),
                session.key(),
                (connection.channel, connection.peer),
                lanes,
            )
            .await
            .map_err(|error| {
                let floods = &shared.floods;
                floods.refused(&claim.client_id, connection.peer, error.to_string());
                register_status(&error)
            })?;
        entered.keep();
        let link = registered.link;
        let capabilities: Vec<String> = CAPABILITIES
            .iter()
            .filter(|name| request.capabilities.iter().any(|theirs| theirs == *name))
            .map(|name| (*name).to_owned())
            .collect();
        link.set_capabilities(capabilities.clone());
        tracing::info!(
            client = %claim.client_id,
            group = %claim.group_id,
            epoch = link.epoch(),
            peer = %connection.peer,
            "client registered"
        );
        Ok(Response::new(RegisterResponse {
            protocol_version: PROTOCOL_VERSION,
            capabilities,
            session: session.to_text().expose_secret().to_owned(),
            epoch: link.epoch(),
            settings: Some(LinkSettings {
                initial_window_bytes: shared.limits.initial_window_bytes,
                max_message_bytes: u32::try_from(adit_codec::MAX_MESSAGE_BYTES).unwrap_or(u32::MAX),
                max_requests: u32::try_from(shared.limits.max_requests_per_client)
                    .unwrap_or(u32::MAX),
                heartbeat_millis: millis(shared.timeouts.heartbeat),
                dead_after_millis: millis(shared.timeouts.dead_after),
                lanes,
            }),
            revision: shared.directory.revision(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    type ControlStreamStream = Pin<Box<dyn Stream<Item = Result<TunnelMessage, Status>> + Send>>;

    async fn control_stream(
        &self,
        request: Request<Streaming<TunnelMessage>>,
    ) -> Result<Response<Self::ControlStreamStream>, Status> {
        let session = request.metadata().get(SESSION_METADATA);
        let session = session_of(session.map(tonic::metadata::MetadataValue::as_bytes))?;
        let opened = self.shared.registry.open_control(session);
        let (control, receiver) = opened.map_err(|error| stream_status(&error))?;
        let connection = Connection::of(&request)?;
        connection.allowance.lift();
        let channel_use = self.shared.channels.track(connection.channel);
        let mut inbound = request.into_inner();
        let shared = self.shared.clone();
        let link = control.link().clone();
        let reader = tokio::spawn(async move {
            let mut turn = Turn::new(shared.limits.turn_bytes);
            let mut freed = shared.directory.freed();
            // Some tunnels of the client were refused, and it has not been told of anything free since.
            let mut waits = false;
            loop {
                let message = tokio::select! {
                    message = inbound.next() => message,
                    Ok(()) = freed.changed(), if waits => {
                        waits = false;
                        let told = Kind::TunnelsFreed(TunnelsFreed {});
                        link.send_control(control_message(0, told));
                        continue;
                    }
                };
                let message = match message {
                    Some(Ok(message)) => message,
                    // The connection is over, or the call: the link reports that.
                    Some(Err(status)) if status.source().is_some() => return None,
                    None => return None,
                    Some(Err(status)) => return Some(shared.unreadable_control(&link, &status)),
                };
                turn.step(0);
                turn.yield_if_over().await;
                let Some(Payload::Control(control)) = message.payload else {
                    continue;
                };
                if let Some(Kind::TunnelsAnnounce(announce)) = control.kind {
                    freed.mark_unchanged();
                    waits = shared.announce(&link, message.request_id, announce).await;
                } else {
                    shared.on_control(&link, message.request_id, control).await;
                }
            }
        });
        let outbound = ControlOutbound {
            messages: ReceiverStream::new(receiver),
            reader: Some(reader),
            _control: control,
            _channel_use: channel_use,
        };
        Ok(Response::new(Box::pin(outbound)))
    }

    async fn config_sync(
        &self,
        request: Request<ConfigSyncRequest>,
    ) -> Result<Response<ConfigSyncResponse>, Status> {
        let session = request.metadata().get(SESSION_METADATA);
        let session = session_of(session.map(tonic::metadata::MetadataValue::as_bytes))?;
        let known = self.shared.registry.session(session);
        known.map_err(|error| stream_status(&error))?;
        // Names and policies, and no address: a client has no use for one (P-12.1).
        let upstreams = self.shared.upstreams.list().into_iter();
        let upstreams = upstreams.map(|upstream| Upstream {
            name: upstream.name().to_string(),
            policy: upstream.policy().name().to_owned(),
        });
        Ok(Response::new(ConfigSyncResponse {
            revision: self.shared.directory.revision(),
            upstreams: upstreams.collect(),
            rules: Vec::new(),
        }))
    }
}

/// What the server says on a control stream. Ends with its link, and takes the reading half along when dropped.
struct ControlOutbound {
    messages: ReceiverStream<TunnelMessage>,
    /// Until the client has ended its direction. Gives the status that the call ends with when a message cannot be read.
    reader: Option<JoinHandle<Option<Status>>>,
    _control: ControlGuard,
    _channel_use: ChannelUse,
}

impl Stream for ControlOutbound {
    type Item = Result<TunnelMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(reader) = &mut self.reader
            && let Poll::Ready(read) = Pin::new(reader).poll(cx)
        {
            self.reader = None;
            if let Ok(Some(status)) = read {
                return Poll::Ready(Some(Err(status)));
            }
        }
        Pin::new(&mut self.messages)
            .poll_next(cx)
            .map(|message| message.map(Ok))
    }
}

impl Drop for ControlOutbound {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

impl Shared {
    async fn on_control(&self, link: &Arc<Link>, request_id: u64, control: Control) {
        match control.kind {
            Some(Kind::Heartbeat(Heartbeat {
                sequence,
                reply: false,
            })) => {
                let reply = Kind::Heartbeat(Heartbeat {
                    sequence,
                    reply: true,
                });
                link.send_control(control_message(request_id, reply));
            }
            Some(Kind::Drain(_)) => {
                tracing::info!(client = %link.grant().client(), "client drains");
                self.registry.drain(link);
            }
            Some(Kind::TunnelDestroy(destroy)) => {
                let found = self.announcer.withdraw(link, destroy.name.clone()).await;
                let result = TunnelResult {
                    error: (!found).then(|| ProtoError {
                        code: "no_tunnel".into(),
                        message: format!("this client has no tunnel `{}`", destroy.name),
                        detail: String::new(),
                    }),
                    name: destroy.name,
                    public_url: String::new(),
                };
                self.answer(link, request_id, destroy.sequence, vec![result]);
            }
            // Others are answers, or a newer client's (P-1.2).
            _ => {}
        }
    }

    /// Takes note of bytes that are no message (P-1.13).
    fn unreadable_control(&self, link: &Link, status: &Status) -> Status {
        let failure = Failure::new(Reason::ProtocolError, status.message().to_owned());
        let text = format!("the control stream cannot be read: {}", failure.detail);
        let (client, peer) = (link.grant().client(), link.peer());
        self.floods.broken_control(client, peer, failure);
        with_reason(Status::internal(text), "protocol_error")
    }

    /// Whether some of the tunnels were refused.
    async fn announce(&self, link: &Arc<Link>, request_id: u64, announce: TunnelsAnnounce) -> bool {
        let results = self.announcer.announce(link, announce.tunnels).await;
        let some_refused = results.iter().any(|result| result.error.is_some());
        self.log_results(link, &results);
        self.answer(link, request_id, announce.sequence, results);
        some_refused
    }

    fn answer(&self, link: &Arc<Link>, request_id: u64, sequence: u64, results: Vec<TunnelResult>) {
        let results = TunnelResults {
            sequence,
            results,
            revision: self.directory.revision(),
        };
        // Lost when the client does not read its control stream: it announces again.
        link.send_control(control_message(request_id, Kind::TunnelResults(results)));
    }

    fn log_results(&self, link: &Arc<Link>, results: &[TunnelResult]) {
        let (client, peer) = (link.grant().client(), link.peer());
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        for result in results {
            // A name that was refused may be any text.
            let name = result.name.escape_debug();
            match &result.error {
                None => accepted.push(name.to_string()),
                Some(error) => refused.push(format!("{name} ({})", error.code)),
            }
        }
        if !accepted.is_empty() {
            let tunnels = accepted.join(", ");
            tracing::info!(%client, %peer, tunnels, "tunnels accepted");
        }
        if let Some(first) = refused.first() {
            // All of them are in the client's log, with their causes.
            let others = refused.len() - 1;
            let text = match others {
                0 => format!("tunnel {first}"),
                _ => format!("tunnel {first} and {others} more"),
            };
            self.floods.refused(client, peer, text);
        }
    }
}

/// What a call knows of its connection.
struct Connection {
    channel: ChannelId,
    peer: SocketAddr,
    allowance: Allowance,
}

impl Connection {
    fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let extensions = request.extensions();
        let found = (|| {
            Some(Self {
                channel: *extensions.get()?,
                peer: *extensions.get()?,
                allowance: extensions.get::<Allowance>()?.clone(),
            })
        })();
        found.ok_or_else(|| Status::internal("the connection is not known"))
    }
}

/// A control message, answering the one with `request_id`.
pub(crate) fn control_message(request_id: u64, kind: Kind) -> TunnelMessage {
    TunnelMessage {
        request_id,
        protocol_type: ProtocolType::Control.into(),
        message_type: MessageType::Control.into(),
        payload: Some(Payload::Control(Control { kind: Some(kind) })),
        ..TunnelMessage::default()
    }
}

fn millis(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn bad_request(error: impl ToString) -> Status {
    with_reason(Status::invalid_argument(error.to_string()), "bad_request")
}

/// Somebody else owns the names of a client (P-1.9).
fn enter_status(error: &EnterError) -> Status {
    let reason = match error {
        EnterError::NotShared { .. } | EnterError::Group { .. } => "group_taken",
        EnterError::Client { .. } => "client_id_taken",
    };
    with_reason(Status::already_exists(error.to_string()), reason)
}

fn register_status(error: &RegisterError) -> Status {
    let text = error.to_string();
    match error {
        RegisterError::ClientIdTaken { .. } => {
            with_reason(Status::already_exists(text), "client_id_taken")
        }
        RegisterError::OtherUser { .. } => {
            with_reason(Status::already_exists(text), "client_id_taken")
        }
        RegisterError::TooManyClients { .. } => {
            with_reason(Status::resource_exhausted(text), "limit")
        }
    }
}
