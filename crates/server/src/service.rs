//! Registration, control streams and the configuration of clients.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use adit_auth::{
    CertificateNames, ClientClaim, ClientId, Credential, Grant, GroupId, InstanceSecret,
    SessionToken, Wanted,
};
use adit_link::{
    BoxFuture, Failure, Reason, Turn,
    control::{
        CAPABILITIES, ChannelId, ClientConnection, ControlInbound, ControlMessage, ControlOutbound,
        ControlReadError, ControlServer, Refusal, RefusalReason,
    },
};
use adit_proto::{
    ConfigSyncRequest, ConfigSyncResponse, CredentialRenewal, CredentialRenewalResult,
    EnrolRequest, EnrolResponse, Error as ProtoError, Heartbeat, LinkSettings, PROTOCOL_VERSION,
    RegisterRequest, RegisterResponse, Roots, TunnelResult, TunnelResults, TunnelsAnnounce,
    TunnelsFreed, Upstream, control::Kind, credential,
};
use adit_registry::{ControlGuard, Link, RegisterError, Registry};
use adit_tls::ProvedCertificate;
use secrecy::ExposeSecret;
use tokio::{task::JoinHandle, time::Instant};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};

use crate::{
    authentication::Authentication,
    authorization::Authorization,
    channels::{ChannelUse, Channels},
    configuration::InForce,
    connections::{Bounds, Counted},
    directory::{Directory, EnterError},
    enrolment::{Enrolment, NotEnrolled},
    floods::Floods,
    lanes::{session_of, stream_refusal},
    renewals::Renewals,
    settings::Limits,
    upstreams::Upstreams,
    worker::Announcer,
};

/// Serves the calls of clients, over any transport; shared by all connections.
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
    authorization: Arc<Authorization>,
    authentication: Authentication,
    enrolment: Enrolment,
    config: Arc<InForce>,
}

impl Service {
    pub(crate) fn new(
        registry: Arc<Registry>,
        (channels, floods): (Arc<Channels>, Arc<Floods>),
        (directory, announcer): (Arc<Directory>, Announcer),
        upstreams: Arc<Upstreams>,
        (authorization, authentication, enrolment): (Arc<Authorization>, Authentication, Enrolment),
        config: Arc<InForce>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                registry,
                channels,
                floods,
                directory,
                announcer,
                upstreams,
                authorization,
                authentication,
                enrolment,
                config,
            }),
        }
    }
}

impl Service {
    /// Handles the first call of a client (P-1.1).
    async fn register_client(
        &self,
        connection: &ClientConnection,
        request: RegisterRequest,
    ) -> Result<RegisterResponse, Refusal> {
        let shared = &self.shared;
        check_version(request.protocol_version)?;
        let claim = ClientClaim {
            client_id: ClientId::parse(&request.client_id).map_err(bad_request)?,
            group_id: if request.group_id.is_empty() {
                GroupId::parse(&request.client_id).map_err(bad_request)?
            } else {
                GroupId::parse(&request.group_id).map_err(bad_request)?
            },
        };
        let instance: [u8; 32] = request.instance_secret[..].try_into().map_err(|_| {
            bad_request("instance_secret must be 32 random bytes that the client stores")
        })?;
        let credential = match request.credential.and_then(|credential| credential.kind) {
            Some(credential::Kind::Token(token)) => Credential::Token(token.into()),
            None => { connection.certificate.as_deref() }
                .map_or(Credential::None, credential_of_certificate),
        };
        let authentication = &shared.authentication;
        let grant = authentication
            .authenticate(connection.peer, &credential, &claim)
            .await?;
        self.check_names(connection, &grant)?;
        let config = shared.config.load_full();
        let (limits, timeouts) = (&config.settings.limits, &config.settings.timeouts);
        let counted = self.count(connection.channel, &grant, limits)?;
        let entered = shared
            .directory
            .enter(&grant)
            .map_err(|error| enter_refusal(&error))?;
        let lanes = request.lanes.clamp(1, limits.max_lanes.max(1));
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
                register_refusal(&error)
            })?;
        entered.keep();
        let link = registered.link;
        counted.keep(&link);
        // Not before this point: a refused connection stays among those without a session.
        connection.allowance.lift();
        // The credential may have been revoked after it was checked, and after the links of revoked ones were ended.
        shared.authorization.holds(&link);
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
        Ok(RegisterResponse {
            protocol_version: PROTOCOL_VERSION,
            capabilities,
            session: session.to_text().expose_secret().to_owned(),
            epoch: link.epoch(),
            settings: Some(LinkSettings {
                initial_window_bytes: limits.initial_window_bytes,
                max_message_bytes: u32::try_from(adit_codec::MAX_MESSAGE_BYTES).unwrap_or(u32::MAX),
                max_requests: u32::try_from(limits.max_requests_per_client).unwrap_or(u32::MAX),
                heartbeat_millis: millis(timeouts.heartbeat),
                dead_after_millis: millis(timeouts.dead_after),
                lanes,
            }),
            revision: shared.directory.revision(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}

impl Service {
    /// Counts the connection for the user of the grant (P-1.24).
    fn count(
        &self,
        channel: ChannelId,
        grant: &Grant,
        limits: &Limits,
    ) -> Result<Counted<'_>, Refusal> {
        let connections = &self.shared.channels.connections;
        let counted = connections.count(channel, grant, Bounds::of(limits));
        counted.map_err(|crowded| Refusal::new(RefusalReason::Limit, crowded.to_string()))
    }

    /// Makes the first credential of a client (P-1.19).
    async fn enrol_client(
        &self,
        connection: &ClientConnection,
        request: EnrolRequest,
    ) -> Result<EnrolResponse, Refusal> {
        check_version(request.protocol_version)?;
        let client = ClientId::parse(&request.client_id).map_err(bad_request)?;
        let shared = &self.shared;
        let began = Instant::now();
        let address = connection.peer.ip();
        shared.authentication.may_guess(address, began)?;
        match shared.enrolment.enrol(&client, request, address).await {
            Ok(enrolled) => Ok(enrolled),
            Err(NotEnrolled::Refused(refusal)) => Err(refusal),
            Err(NotEnrolled::Denied(denied)) => {
                let floods = &shared.floods;
                floods.denied(&client, connection.peer, denied.reason());
                let authentication = &shared.authentication;
                Err(authentication.denied(address, began, denied, true).await)
            }
        }
    }

    /// Refuses names that the scopes of the client do not allow (P-1.18).
    fn check_names(&self, connection: &ClientConnection, grant: &Grant) -> Result<(), Refusal> {
        let shared = &self.shared;
        let refused = |text: String| {
            let floods = &shared.floods;
            floods.refused(grant.client(), connection.peer, text.clone());
            Err(Refusal::new(RefusalReason::Forbidden, text))
        };
        for wanted in [Wanted::Client(grant.client()), Wanted::Group(grant.group())] {
            if let Err(outside) = grant.allows(wanted) {
                return refused(outside.to_string());
            }
        }
        Ok(())
    }
}

impl ControlServer for Service {
    fn register<'a>(
        &'a self,
        connection: &'a ClientConnection,
        request: RegisterRequest,
    ) -> BoxFuture<'a, Result<RegisterResponse, Refusal>> {
        Box::pin(self.register_client(connection, request))
    }

    fn enrol<'a>(
        &'a self,
        connection: &'a ClientConnection,
        request: EnrolRequest,
    ) -> BoxFuture<'a, Result<EnrolResponse, Refusal>> {
        Box::pin(self.enrol_client(connection, request))
    }

    fn open_control(
        &self,
        connection: &ClientConnection,
        session: &str,
        mut inbound: ControlInbound,
    ) -> Result<ControlOutbound, Refusal> {
        let session = session_of(session)?;
        let registry = &self.shared.registry;
        let link = registry.session(session).map_err(stream_refusal)?;
        let limits = &self.shared.config.load().settings.limits;
        let counted = self.count(connection.channel, link.grant(), limits)?;
        let opened = registry.open_control(session);
        let (control, receiver) = opened.map_err(stream_refusal)?;
        counted.keep(control.link());
        connection.allowance.lift();
        let channel_use = self.shared.channels.track(connection.channel);
        let shared = self.shared.clone();
        let link = control.link().clone();
        if link.grant().has_certificate() && link.supports("certificates") {
            // The CA may have been replaced while the client was away.
            let certificates = shared.enrolment.roots();
            let roots = Kind::Roots(Roots { certificates });
            link.send_control(ControlMessage::new(0, roots));
        }
        let reader = tokio::spawn(async move {
            let mut turn = Turn::new(shared.config.load().settings.limits.turn_bytes);
            let mut freed = shared.directory.freed();
            // Whether tunnels of the client were refused, and no free name has been reported to it since.
            let mut waits = false;
            let mut renewals = Renewals::default();
            loop {
                let message = tokio::select! {
                    message = inbound.next() => message,
                    () = renewals.run(), if renewals.is_running() => continue,
                    Ok(()) = freed.changed(), if waits => {
                        waits = false;
                        let freed = Kind::TunnelsFreed(TunnelsFreed {});
                        link.send_control(ControlMessage::new(0, freed));
                        continue;
                    }
                };
                let message = match message {
                    Some(Ok(message)) => message,
                    // The connection or the call has ended; the link reports that.
                    Some(Err(ControlReadError::Lost(_))) | None => return None,
                    Some(Err(ControlReadError::Unreadable(detail))) => {
                        return Some(shared.unreadable_control(&link, detail));
                    }
                };
                turn.step(0);
                turn.yield_if_over().await;
                match message.kind {
                    Some(Kind::TunnelsAnnounce(announce)) => {
                        freed.mark_unchanged();
                        waits = shared.announce(&link, message.request_id, announce).await;
                    }
                    Some(Kind::CredentialRenewal(renewal)) => {
                        let (shared, link) = (shared.clone(), link.clone());
                        renewals.begin(renewal.sequence, async move {
                            shared.on_renewal(&link, message.request_id, renewal).await;
                        });
                    }
                    Some(kind) => shared.on_control(&link, message.request_id, kind).await,
                    None => {}
                }
            }
        });
        let outbound = Outbound {
            messages: ReceiverStream::new(receiver),
            reader: Some(reader),
            _control: control,
            _channel_use: channel_use,
        };
        Ok(Box::pin(outbound))
    }

    fn sync_config(
        &self,
        session: &str,
        _: ConfigSyncRequest,
    ) -> Result<ConfigSyncResponse, Refusal> {
        let known = self.shared.registry.session(session_of(session)?);
        let link = known.map_err(stream_refusal)?;
        // The list has names and policies without addresses, which a client does not need (P-12.1).
        let upstreams = self.shared.upstreams.list().into_iter();
        let upstreams = upstreams.filter(|upstream| {
            let wanted = Wanted::Upstream(upstream.name().as_str());
            link.grant().allows(wanted).is_ok()
        });
        let upstreams = upstreams.map(|upstream| Upstream {
            name: upstream.name().to_string(),
            policy: upstream.policy().name().to_owned(),
        });
        Ok(ConfigSyncResponse {
            revision: self.shared.directory.revision(),
            upstreams: upstreams.collect(),
            rules: Vec::new(),
        })
    }
}

/// The server's messages on a control stream. Ends with its link, and stops the reading task when dropped.
struct Outbound {
    messages: ReceiverStream<ControlMessage>,
    /// The task that reads, until the client has ended its direction. Returns the refusal that ends the stream when a
    /// message cannot be read.
    reader: Option<JoinHandle<Option<Refusal>>>,
    _control: ControlGuard,
    _channel_use: ChannelUse,
}

impl Stream for Outbound {
    type Item = Result<ControlMessage, Refusal>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(reader) = &mut self.reader
            && let Poll::Ready(read) = Pin::new(reader).poll(cx)
        {
            self.reader = None;
            if let Ok(Some(refusal)) = read {
                return Poll::Ready(Some(Err(refusal)));
            }
        }
        Pin::new(&mut self.messages)
            .poll_next(cx)
            .map(|message| message.map(Ok))
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

impl Shared {
    async fn on_control(&self, link: &Arc<Link>, request_id: u64, kind: Kind) {
        match kind {
            Kind::Heartbeat(Heartbeat {
                sequence,
                reply: false,
            }) => {
                let reply = Kind::Heartbeat(Heartbeat {
                    sequence,
                    reply: true,
                });
                link.send_control(ControlMessage::new(request_id, reply));
            }
            Kind::Drain(_) => {
                tracing::info!(client = %link.grant().client(), "client drains");
                self.registry.drain(link);
            }
            Kind::TunnelDestroy(destroy) => {
                let found = self.announcer.withdraw(link, destroy.name.clone()).await;
                let result = TunnelResult {
                    error: (!found).then(|| ProtoError {
                        code: "no_tunnel".into(),
                        message: format!("this client has no tunnel `{}`", destroy.name),
                        detail: String::new(),
                    }),
                    name: destroy.name,
                    public_url: String::new(),
                    note: String::new(),
                };
                self.send_results(link, request_id, destroy.sequence, vec![result]);
            }
            Kind::CertificateRequest(request) => {
                let result = self.enrolment.renew(link.grant(), &request.public_key);
                let result = Kind::CertificateResult(result);
                link.send_control(ControlMessage::new(request_id, result));
            }
            // Other messages are responses, or are from a newer version of the client (P-1.2).
            _ => {}
        }
    }

    async fn on_renewal(&self, link: &Arc<Link>, request_id: u64, renewal: CredentialRenewal) {
        let result = Kind::CredentialRenewalResult(self.renew(link, renewal).await);
        link.send_control(ControlMessage::new(request_id, result));
    }

    /// Continues the session with another credential (P-1.22).
    async fn renew(&self, link: &Arc<Link>, renewal: CredentialRenewal) -> CredentialRenewalResult {
        let credential = match renewal.credential.and_then(|credential| credential.kind) {
            Some(credential::Kind::Token(token)) => Credential::Token(token.into()),
            None => Credential::None,
        };
        let renewed = self.authentication.renew(link, &credential).await;
        CredentialRenewalResult {
            sequence: renewal.sequence,
            error: renewed.err().map(|refusal| ProtoError {
                code: refusal.reason.to_string(),
                message: refusal.detail,
                detail: String::new(),
            }),
        }
    }

    /// Records bytes that are not a message (P-1.13).
    fn unreadable_control(&self, link: &Link, detail: String) -> Refusal {
        let text = format!("the control stream cannot be read: {detail}");
        let failure = Failure::new(Reason::ProtocolError, detail);
        let (client, peer) = (link.grant().client(), link.peer());
        self.floods.broken_control(client, peer, failure);
        Refusal::new(RefusalReason::ProtocolError, text)
    }

    /// Announces the tunnels. Returns whether some of them were refused.
    async fn announce(&self, link: &Arc<Link>, request_id: u64, announce: TunnelsAnnounce) -> bool {
        let results = self.announcer.announce(link, announce.tunnels).await;
        let some_refused = results.iter().any(|result| result.error.is_some());
        self.log_results(link, &results);
        self.send_results(link, request_id, announce.sequence, results);
        some_refused
    }

    fn send_results(
        &self,
        link: &Arc<Link>,
        request_id: u64,
        sequence: u64,
        results: Vec<TunnelResult>,
    ) {
        let results = TunnelResults {
            sequence,
            results,
            revision: self.directory.revision(),
        };
        // The response is lost when the client does not read its control stream: it announces again.
        link.send_control(ControlMessage::new(
            request_id,
            Kind::TunnelResults(results),
        ));
    }

    fn log_results(&self, link: &Arc<Link>, results: &[TunnelResult]) {
        let (client, peer) = (link.grant().client(), link.peer());
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        for result in results {
            // The name of a refused tunnel may be any text.
            let name = result.name.escape_debug();
            match &result.error {
                None => accepted.push(name.to_string()),
                Some(error) => {
                    // The text before the time for which a name is kept: equal refusals are counted together.
                    let cause = error.message.split(';').next().unwrap_or_default();
                    refused.push(format!("{name} ({}: {})", error.code, cause.escape_debug()));
                }
            }
        }
        if !accepted.is_empty() {
            let tunnels = accepted.join(", ");
            tracing::info!(%client, %peer, tunnels, "tunnels accepted");
        }
        if let Some(first) = refused.first() {
            // The client's log has all refusals, with their causes.
            let others = refused.len() - 1;
            let text = match others {
                0 => format!("tunnel {first}"),
                _ => format!("tunnel {first} and {others} more"),
            };
            self.floods.refused(client, peer, text);
        }
    }
}

/// The credential that a certificate is.
fn credential_of_certificate(certificate: &ProvedCertificate) -> Credential {
    match certificate {
        ProvedCertificate::OwnCa(id) => {
            id.parse().map_or(Credential::None, Credential::Certificate)
        }
        ProvedCertificate::ClientCa(one) => {
            let expires = one.expires.duration_since(SystemTime::UNIX_EPOCH);
            Credential::ClientCertificate(CertificateNames {
                ca: *one.ca.bytes(),
                common_names: one.common_names.clone(),
                dns_names: one.dns_names.clone(),
                uris: one.uris.clone(),
                expires_at: expires.map_or(0, |since| since.as_secs()),
            })
        }
    }
}

fn check_version(theirs: u32) -> Result<(), Refusal> {
    if theirs == PROTOCOL_VERSION {
        return Ok(());
    }
    Err(Refusal::new(
        RefusalReason::Version,
        format!(
            "this server has protocol version {PROTOCOL_VERSION}, the client {theirs}; install the same version of adit on both sides"
        ),
    ))
}

fn millis(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn bad_request(error: impl ToString) -> Refusal {
    Refusal::new(RefusalReason::BadRequest, error)
}

/// The refusal because another user owns the names of the client (P-1.9).
fn enter_refusal(error: &EnterError) -> Refusal {
    let reason = match error {
        EnterError::NotShared { .. } | EnterError::Group { .. } => RefusalReason::GroupTaken,
        EnterError::Client { .. } => RefusalReason::ClientIdTaken,
    };
    Refusal::new(reason, error)
}

fn register_refusal(error: &RegisterError) -> Refusal {
    let reason = match error {
        RegisterError::ClientIdTaken { .. } | RegisterError::OtherUser { .. } => {
            RefusalReason::ClientIdTaken
        }
        RegisterError::TooManyClients { .. } | RegisterError::ShareOfUser { .. } => {
            RefusalReason::Limit
        }
        RegisterError::TooManyClientsOfUser { .. } => RefusalReason::Forbidden,
    };
    Refusal::new(reason, error)
}
