//! Chooses the destination of a visitor's request: rule, tunnel, client, permit; immediately if possible, otherwise after
//! a bounded wait.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_balance::{Draw, InFlight, Policy, hash_bytes};
use adit_codec::ProtocolType;
use adit_flow::{Claim, Permit};
use adit_ingress::{
    Destination, Direction, Director, Layers, RequestMeta, RetryBudget, Session,
    layers::visitor_key,
};
use adit_link::{Failure, Reason};
use adit_proto::REGISTER_PATH;
use adit_registry::Link;
use adit_router::{PathPrefix, Query, UnclearPath};
use parking_lot::Mutex;
use tokio::time::{timeout, timeout_at};

use crate::{
    authorization::Authorization,
    cookie::cookie,
    definition::HashOn,
    directory::{Directory, Target},
    port::{PortKey, Transport},
    settings::Timeouts,
    shortcuts::ToUpstream,
    traffic::Traffic,
    tunnel::{RunningRequest, Tunnel},
};

/// Directs visitors by the current snapshot of the directory.
pub(crate) struct ServerDirector {
    shared: Arc<Routing>,
}

struct Routing {
    directory: Arc<Directory>,
    authorization: Arc<Authorization>,
    traffic: Arc<Traffic>,
    retries: RetryBudget,
    /// The wait, which is read when a request begins to wait.
    waits: Mutex<Waits>,
    /// Until this time requests for unknown names wait: their clients may be reconnecting.
    grace_until: Instant,
}

/// The longest waits of a request.
#[derive(Clone, Copy)]
struct Waits {
    client: Duration,
    permit: Duration,
}

impl Waits {
    const fn new(timeouts: &Timeouts) -> Self {
        Self {
            client: timeouts.client_wait,
            permit: timeouts.permit_wait,
        }
    }
}

/// The destination that a port or a rule selects.
enum Selected {
    /// A tunnel, with the layers that its requests pass: those of the rule, then those of the tunnel.
    Tunnel(Arc<Tunnel>, Layers),
    Upstream(ToUpstream),
}

/// The inputs of a choice; computed once, kept over waits.
struct Choice {
    draw: Draw,
    avoid: Vec<u64>,
    protocol: ProtocolType,
    claim: Claim,
}

/// The values that one request holds until it ends.
struct RequestHold {
    _load: InFlight,
    _running: RunningRequest,
}

impl ServerDirector {
    /// The startup grace is counted from `now`.
    pub(crate) fn new(
        directory: Arc<Directory>,
        authorization: Arc<Authorization>,
        traffic: Arc<Traffic>,
        timeouts: &Timeouts,
        now: Instant,
    ) -> Self {
        Self {
            shared: Arc::new(Routing {
                directory,
                authorization,
                traffic,
                retries: RetryBudget::new(now),
                waits: Mutex::new(Waits::new(timeouts)),
                grace_until: now + timeouts.startup_grace,
            }),
        }
    }
}

impl ServerDirector {
    /// Changes the longest waits of later requests.
    pub(crate) fn set_timeouts(&self, timeouts: &Timeouts) {
        *self.shared.waits.lock() = Waits::new(timeouts);
    }

    pub(crate) fn direct_request(&self, input: RouteInput<'_>, avoid: &[u64]) -> Direction {
        let now = Instant::now();
        if avoid.is_empty() {
            self.shared.retries.on_request(now);
        }
        let shared = self.shared.clone();
        let selected = match shared.route(input) {
            Ok(selected) => selected,
            Err(unclear) => return Direction::Fail(bad_path(unclear)),
        };
        match selected {
            Some((Selected::Upstream(to), revision)) if avoid.is_empty() => {
                return Direction::Go(to.destination(revision));
            }
            Some((Selected::Upstream(_), _)) => {
                let text = "the upstream has no other route";
                return Direction::Fail(Failure::new(Reason::NoClient, text));
            }
            Some((Selected::Tunnel(tunnel, layers), revision)) => {
                let choice = Choice::new(&tunnel, input, avoid);
                let chosen = shared.try_choose((&tunnel, &layers), revision, &choice);
                if let Some(destination) = chosen {
                    return Direction::Go(destination);
                }
                if let Some(failure) = not_carried(&tunnel, input.protocol) {
                    return Direction::Fail(failure);
                }
            }
            None if input.path == REGISTER_PATH => return Direction::Fail(shared.wrong_port()),
            None if now < shared.grace_until => {}
            None => return Direction::Fail(no_tunnel(input)),
        }
        let waiting = WaitingRequest::of(input, avoid);
        Direction::Wait(Box::pin(async move { shared.wait(waiting).await }))
    }
}

impl Director for ServerDirector {
    fn direct(&self, visit: &RequestMeta, avoid: &[u64]) -> Direction {
        let port = visit.visitor.local_port();
        let input = RouteInput {
            protocol: visit.protocol,
            port: (!self.needs_host(port)).then_some(port),
            authority: visit.authority_str(),
            path: visit.path.as_str(),
            headers: &visit.headers,
            visitor: visit.visitor.addr().ip(),
        };
        self.direct_request(input, avoid)
    }

    fn direct_session(&self, session: &Session, avoid: &[u64]) -> Direction {
        let input = RouteInput {
            protocol: session.protocol,
            // The host of TLS that is passed through selects the tunnel, on a port that tunnels share.
            port: session.host.is_none().then(|| session.local.port()),
            authority: session.host.as_deref().unwrap_or_default(),
            path: "",
            headers: &http::HeaderMap::new(),
            visitor: session.visitor.addr().ip(),
        };
        self.direct_request(input, avoid)
    }

    /// Tunnels share the common ports; every other port belongs to one tunnel.
    fn needs_host(&self, local_port: u16) -> bool {
        local_port == 0 || self.shared.directory.is_shared(local_port)
    }

    fn may_retry(&self) -> bool {
        self.shared.retries.try_retry(Instant::now())
    }
}

/// The properties of a request or a session that determine its destination.
#[derive(Clone, Copy)]
pub(crate) struct RouteInput<'v> {
    pub(crate) protocol: ProtocolType,
    /// The public port at which the request arrived, if that port belongs to one tunnel; `None` where the host
    /// selects the tunnel.
    pub(crate) port: Option<u16>,
    pub(crate) authority: &'v str,
    pub(crate) path: &'v str,
    pub(crate) headers: &'v http::HeaderMap,
    pub(crate) visitor: IpAddr,
}

/// The values of a [`RouteInput`], owned by a request that waits.
struct WaitingRequest {
    protocol: ProtocolType,
    port: Option<u16>,
    authority: String,
    path: String,
    headers: http::HeaderMap,
    visitor: IpAddr,
    /// Links that were tried: a client that reconnects has another one.
    avoid: Vec<u64>,
}

impl WaitingRequest {
    fn of(input: RouteInput<'_>, avoid: &[u64]) -> Self {
        Self {
            avoid: avoid.to_vec(),
            protocol: input.protocol,
            port: input.port,
            authority: input.authority.to_owned(),
            path: input.path.to_owned(),
            headers: input.headers.clone(),
            visitor: input.visitor,
        }
    }

    fn input(&self) -> RouteInput<'_> {
        RouteInput {
            protocol: self.protocol,
            port: self.port,
            authority: &self.authority,
            path: &self.path,
            headers: &self.headers,
            visitor: self.visitor,
        }
    }
}

impl RouteInput<'_> {
    /// Whether the input has no head: the port alone selects the tunnel.
    const fn is_session(&self) -> bool {
        matches!(self.protocol, ProtocolType::Tcp | ProtocolType::Udp)
    }

    fn port(&self) -> Option<PortKey> {
        let transport = match self.protocol {
            ProtocolType::Udp => Transport::Udp,
            _ => Transport::Tcp,
        };
        self.port.map(|number| PortKey { transport, number })
    }
}

impl Routing {
    /// The failure when a client of adit has connected to the visitors' port by mistake.
    fn wrong_port(&self) -> Failure {
        let port = self.directory.clients_port();
        let text = format!(
            "this is the visitors' port of an adit-server; clients connect to port {port} (`server.bind_port`)"
        );
        Failure::new(Reason::NoTunnel, text)
    }

    /// The tunnel or upstream that the port or the rules select. A rule to a tunnel that is not announced selects
    /// nothing.
    ///
    /// # Errors
    /// The service could read the path as one to which another rule applies (P-3.14).
    fn route(&self, input: RouteInput<'_>) -> Result<Option<(Selected, u64)>, UnclearPath> {
        let snapshot = self.directory.snapshot();
        if let Some(port) = input.port() {
            let Some(tunnel) = snapshot.ports.get(&port) else {
                return Ok(None);
            };
            let definition = &tunnel.definition;
            let fits = if input.is_session() {
                definition.protocol == input.protocol
            } else {
                definition.is_http() && PathPrefix::any_matches(&definition.paths, input.path)?
            };
            let selected = || Selected::Tunnel(tunnel.clone(), tunnel.layers.clone());
            return Ok(fits.then(|| (selected(), snapshot.revision)));
        }
        if input.is_session() {
            let query = Query::new(Some(input.authority), "/");
            let found = snapshot.tls_routes.route(&query)?;
            return Ok(match found.map(|found| found.target()) {
                Some(Target::Tunnel(tunnel, layers)) => {
                    let selected = Selected::Tunnel(tunnel.clone(), layers.clone());
                    Some((selected, snapshot.revision))
                }
                Some(Target::Upstream(_) | Target::Unannounced(_)) | None => None,
            });
        }
        let header = |name: &str| {
            let value = input.headers.get(name)?.as_bytes();
            // The content type alone does not make a request a call of gRPC (P-8.1).
            let poses = input.protocol != ProtocolType::Grpc
                && name == "content-type"
                && adit_router::is_grpc(value);
            (!poses).then_some(value)
        };
        let query = Query::new(Some(input.authority), input.path).with_headers(&header);
        let found = snapshot.routes.route(&query)?;
        Ok(match found.map(|found| found.target()) {
            Some(Target::Tunnel(tunnel, layers)) => {
                let selected = Selected::Tunnel(tunnel.clone(), layers.clone());
                Some((selected, snapshot.revision))
            }
            Some(Target::Upstream(to)) => Some((Selected::Upstream(to.clone()), snapshot.revision)),
            Some(Target::Unannounced(_)) | None => None,
        })
    }

    /// Waits for a client with a free permit. Applies the rules again at each change: the client that returns may have
    /// announced its tunnel with other settings. For a while after a start, requests for unknown names wait as well:
    /// their clients may be reconnecting.
    async fn wait(&self, visit: WaitingRequest) -> Result<Destination, Failure> {
        let now = tokio::time::Instant::now;
        let deadline = now() + self.waits.lock().client;
        loop {
            // The waker is registered before the check, so that a change in between is not missed.
            let renamed = self.directory.changed.notified();
            let Some((way, revision)) = self.route(visit.input()).map_err(bad_path)? else {
                let until = deadline.min(self.grace_until.into());
                if timeout_at(until, renamed).await.is_err() {
                    return Err(no_tunnel(visit.input()));
                }
                continue;
            };
            let (tunnel, layers) = match way {
                Selected::Tunnel(tunnel, layers) => (tunnel, layers),
                Selected::Upstream(to) => return Ok(to.destination(revision)),
            };
            let changed = tunnel.changed.notified();
            let choice = Choice::new(&tunnel, visit.input(), &visit.avoid);
            let chosen = self.try_choose((&tunnel, &layers), revision, &choice);
            if let Some(destination) = chosen {
                return Ok(destination);
            }
            if let Some(failure) = not_carried(&tunnel, visit.protocol) {
                return Err(failure);
            }
            if let Some(busy) = self.least_busy(&tunnel, &choice) {
                let permit = self.wait_for_permit((&tunnel, &layers), revision, busy, choice.claim);
                match permit.await? {
                    Some(destination) => return Ok(destination),
                    // The client has left in the meantime.
                    None if now() < deadline => continue,
                    None => return Err(no_client(&tunnel)),
                }
            }
            let either = async {
                tokio::select! {
                    () = changed => {}
                    () = renamed => {}
                }
            };
            if timeout_at(deadline, either).await.is_err() {
                return Err(no_client(&tunnel));
            }
        }
    }

    /// A client with a free permit; `None` when no client is connected or all are busy.
    fn try_choose(
        &self,
        selected: (&Arc<Tunnel>, &Layers),
        revision: u64,
        choice: &Choice,
    ) -> Option<Destination> {
        let (tunnel, _) = selected;
        let allowed = |link: &Arc<Link>| choice.allows(link) && self.authorization.holds(link);
        if !choice.takes_permit() {
            let (link, load) = tunnel.choose(choice.draw, allowed)?;
            return destination(&self.traffic, selected, revision, &link, None, load);
        }
        let free = |link: &Arc<Link>| link.permits().has_room_for(choice.claim) && allowed(link);
        let (link, load) = tunnel.choose(choice.draw, free)?;
        let permit = link.permits().try_acquire_for(choice.claim)?;
        destination(&self.traffic, selected, revision, &link, Some(permit), load)
    }

    /// The client to wait for when all are busy.
    fn least_busy(&self, tunnel: &Tunnel, choice: &Choice) -> Option<(Arc<Link>, InFlight)> {
        if !choice.takes_permit() {
            return None;
        }
        tunnel.choose(choice.draw, |link| {
            choice.allows(link) && self.authorization.holds(link)
        })
    }

    /// Waits for a permit of a client; `None` when the client left before it had a free permit.
    async fn wait_for_permit(
        &self,
        selected: (&Arc<Tunnel>, &Layers),
        revision: u64,
        (link, load): (Arc<Link>, InFlight),
        claim: Claim,
    ) -> Result<Option<Destination>, Failure> {
        let permit_wait = self.waits.lock().permit;
        let waited = timeout(permit_wait, link.permits().acquire_for(claim)).await;
        match waited {
            Ok(Ok(permit)) => Ok(destination(
                &self.traffic,
                selected,
                revision,
                &link,
                Some(permit),
                load,
            )),
            Ok(Err(_)) | Err(_) => Err(Failure::new(
                Reason::Limit,
                format!(
                    "all clients of tunnel `{}` are at their limit of running requests (`limits.max_requests_per_client`)",
                    selected.0.name
                ),
            )),
        }
    }
}

impl Choice {
    fn new(tunnel: &Tunnel, input: RouteInput<'_>, avoid: &[u64]) -> Self {
        Self {
            draw: draw(tunnel, input),
            avoid: avoid.to_vec(),
            protocol: input.protocol,
            claim: Claim {
                tunnel: tunnel.number,
                visitor: visitor_key(input.visitor),
            },
        }
    }

    fn allows(&self, link: &Link) -> bool {
        link.is_routable()
            && !self.avoid.contains(&link.id().value())
            && carries(link, self.protocol)
    }

    /// UDP flows take no permits (P-11.2).
    fn takes_permit(&self) -> bool {
        self.protocol != ProtocolType::Udp
    }
}

/// Every client supports HTTP, and a client that can announce a tunnel of TCP or UDP supports that protocol.
fn carries(link: &Link, protocol: ProtocolType) -> bool {
    match protocol {
        ProtocolType::Grpc | ProtocolType::WebSocket => link.supports(protocol.as_str()),
        _ => true,
    }
}

fn draw(tunnel: &Tunnel, input: RouteInput<'_>) -> Draw {
    let headers = input.headers;
    let policy = tunnel.definition.policy;
    let mut draw = Draw::default();
    if policy.uses_random() {
        draw.random = rand::random();
    }
    // For a session only the visitor's address can be hashed, whatever `hash_on` is for requests.
    if policy == Policy::IpHash || (policy.uses_hash() && input.is_session()) {
        draw.hash = match input.visitor.to_canonical() {
            IpAddr::V4(ip) => hash_bytes(&ip.octets()),
            IpAddr::V6(ip) => hash_bytes(&ip.octets()),
        };
    } else if policy.uses_hash() {
        draw.hash = hash_bytes(match &tunnel.definition.hash_on {
            HashOn::Host => input.authority.as_bytes(),
            HashOn::Header(name) => headers
                .get(name)
                .map_or(&[][..], http::HeaderValue::as_bytes),
            HashOn::Cookie(name) => {
                let lines = headers.get_all(http::header::COOKIE).iter();
                cookie(lines.map(http::HeaderValue::as_bytes), name)
            }
        });
    }
    draw
}

fn destination(
    traffic: &Arc<Traffic>,
    (tunnel, layers): (&Arc<Tunnel>, &Layers),
    revision: u64,
    link: &Arc<Link>,
    permit: Option<Permit>,
    load: InFlight,
) -> Option<Destination> {
    Some(Destination {
        lane: link.lane()?,
        grant: link.grant().for_tunnel(tunnel.key.name.clone(), revision),
        tunnel: tunnel.name.clone(),
        revision,
        link: link.id().value(),
        layers: layers.clone(),
        limits: traffic.of_request(link.grant(), Some(&tunnel.key)),
        compression: tunnel.definition.compression,
        permit,
        hold: Box::new(RequestHold {
            _load: load,
            _running: tunnel.begin_request(),
        }),
    })
}

fn no_client(tunnel: &Tunnel) -> Failure {
    Failure::new(
        Reason::NoClient,
        format!("no client of tunnel `{}` is connected", tunnel.name),
    )
}

fn bad_path(unclear: UnclearPath) -> Failure {
    Failure::new(Reason::BadRequest, unclear.to_string())
}

fn no_tunnel(input: RouteInput<'_>) -> Failure {
    let text = match input.port() {
        Some(port) if input.is_session() => format!("no tunnel holds {port}"),
        Some(port) => format!("no tunnel serves this path on {port}"),
        None if input.is_session() => format!("no tunnel holds the TLS of `{}`", input.authority),
        None => format!("no tunnel serves this host and path: `{}`", input.authority),
    };
    Failure::new(Reason::NoTunnel, text)
}

/// The failure when the connected clients do not support the protocol: waiting would not help.
fn not_carried(tunnel: &Tunnel, protocol: ProtocolType) -> Option<Failure> {
    let needs_support = matches!(protocol, ProtocolType::Grpc | ProtocolType::WebSocket);
    (needs_support && tunnel.lacks(protocol)).then(|| {
        Failure::new(
            Reason::Refused,
            format!(
                "no client of tunnel `{}` supports {}; install the version of the server on a client",
                tunnel.name,
                protocol.as_str()
            ),
        )
    })
}
