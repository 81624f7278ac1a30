//! Where a visitor's request goes: rule, tunnel, client, permit. At once where it can, else after a bounded wait.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_balance::{Draw, InFlight, Policy, hash_bytes};
use adit_flow::Permit;
use adit_ingress::{Destination, Direction, Director, Visit};
use adit_link::{Failure, Reason};
use adit_registry::Link;
use adit_router::Query;
use tokio::time::timeout;

use crate::{
    directory::{Directory, Target},
    retry_budget::RetryBudget,
    settings::Timeouts,
    tunnel::{HashOn, Tunnel},
};

/// Directs visitors by the directory's snapshot.
pub(crate) struct Steering {
    shared: Arc<Shared>,
}

struct Shared {
    directory: Arc<Directory>,
    retries: RetryBudget,
    client_wait: Duration,
    permit_wait: Duration,
    /// Until then unknown names wait: their clients may be on their way back.
    grace_until: Instant,
}

/// What a choice depends on; made once, kept over waits.
struct Choice {
    draw: Draw,
    avoid: Vec<u64>,
}

/// What one request holds of its client.
struct Held {
    _permit: Permit,
    _load: InFlight,
}

impl Steering {
    pub(crate) fn new(directory: Arc<Directory>, timeouts: &Timeouts, now: Instant) -> Self {
        Self {
            shared: Arc::new(Shared {
                directory,
                retries: RetryBudget::new(now),
                client_wait: timeouts.client_wait,
                permit_wait: timeouts.permit_wait,
                grace_until: now + timeouts.startup_grace,
            }),
        }
    }
}

impl Director for Steering {
    fn direct(&self, visit: &Visit, avoid: &[u64]) -> Direction {
        let now = Instant::now();
        if avoid.is_empty() {
            self.shared.retries.on_request(now);
        }
        let shared = self.shared.clone();
        match shared.route(visit) {
            Some((tunnel, revision)) => {
                let choice = Choice::new(&tunnel, visit, avoid);
                if let Some(direction) = try_choose(&tunnel, revision, &choice) {
                    return direction;
                }
                if !avoid.is_empty() {
                    let text = "no other client of the group is there to try";
                    return Direction::Fail(Failure::new(Reason::NoClient, text));
                }
                Direction::Wait(Box::pin(async move {
                    shared.wait_for_client(&tunnel, revision, choice).await
                }))
            }
            None if now < shared.grace_until => {
                let visit = Waiting::of(visit);
                Direction::Wait(Box::pin(async move { shared.wait_for_name(visit).await }))
            }
            None => Direction::Fail(no_tunnel(visit.authority.as_str())),
        }
    }

    fn may_retry(&self) -> bool {
        self.shared.retries.try_retry(Instant::now())
    }
}

/// The parts of a visit that a wait keeps.
struct Waiting {
    authority: String,
    path: String,
    headers: http::HeaderMap,
    visitor: IpAddr,
}

impl Waiting {
    fn of(visit: &Visit) -> Self {
        Self {
            authority: visit.authority.to_string(),
            path: visit.path.to_string(),
            headers: visit.headers.clone(),
            visitor: visit.visitor.ip(),
        }
    }
}

impl Shared {
    fn route(&self, visit: &Visit) -> Option<(Arc<Tunnel>, u64)> {
        self.route_by(
            visit.authority.as_str(),
            visit.path.as_str(),
            &visit.headers,
        )
    }

    /// The tunnel that the rules select. A rule to a tunnel that nobody has announced selects nothing yet.
    fn route_by(
        &self,
        authority: &str,
        path: &str,
        headers: &http::HeaderMap,
    ) -> Option<(Arc<Tunnel>, u64)> {
        let snapshot = self.directory.snapshot();
        let header = |name: &str| headers.get(name).map(http::HeaderValue::as_bytes);
        let query = Query::new(Some(authority), path).with_headers(&header);
        match snapshot.routes.route(&query)?.target() {
            Target::Tunnel(tunnel) => Some((tunnel.clone(), snapshot.revision)),
            Target::Unannounced(_) => None,
        }
    }

    async fn wait_for_client(
        &self,
        tunnel: &Arc<Tunnel>,
        revision: u64,
        choice: Choice,
    ) -> Result<Destination, Failure> {
        let deadline = tokio::time::Instant::now() + self.client_wait;
        loop {
            // Registered before looking, so that a change in between is not missed.
            let changed = tunnel.changed.notified();
            match try_choose(tunnel, revision, &choice) {
                Some(Direction::Go(destination)) => return Ok(destination),
                Some(Direction::Fail(failure)) => return Err(failure),
                Some(Direction::Wait(wait)) => return wait.await,
                None => {}
            }
            if let Some(busy) = least_busy(tunnel, &choice) {
                return self.wait_for_permit(tunnel, revision, busy).await;
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Err(Failure::new(
                    Reason::NoClient,
                    format!("no client of tunnel `{}` is connected", tunnel.name),
                ));
            }
        }
    }

    async fn wait_for_permit(
        &self,
        tunnel: &Arc<Tunnel>,
        revision: u64,
        (link, load): (Arc<Link>, InFlight),
    ) -> Result<Destination, Failure> {
        let waited = timeout(self.permit_wait, link.permits().acquire()).await;
        match waited {
            Ok(Ok(permit)) => destination(tunnel, revision, &link, permit, load)
                .ok_or_else(|| Failure::new(Reason::NoClient, "the client has just left")),
            Ok(Err(_)) | Err(_) => Err(Failure::new(
                Reason::Limit,
                format!(
                    "every client of tunnel `{}` serves as many requests as it may",
                    tunnel.name
                ),
            )),
        }
    }

    /// For a while after a start, names that are not known yet may belong to clients that are on their way back.
    async fn wait_for_name(&self, visit: Waiting) -> Result<Destination, Failure> {
        let until = self.grace_until.min(Instant::now() + self.client_wait);
        loop {
            let changed = self.directory.changed.notified();
            if let Some((tunnel, revision)) =
                self.route_by(&visit.authority, &visit.path, &visit.headers)
            {
                let choice = Choice {
                    draw: draw(&tunnel, &visit.authority, &visit.headers, visit.visitor),
                    avoid: Vec::new(),
                };
                return self.wait_for_client(&tunnel, revision, choice).await;
            }
            if tokio::time::timeout_at(until.into(), changed)
                .await
                .is_err()
            {
                return Err(no_tunnel(&visit.authority));
            }
        }
    }
}

impl Choice {
    fn new(tunnel: &Tunnel, visit: &Visit, avoid: &[u64]) -> Self {
        Self {
            draw: draw(
                tunnel,
                visit.authority.as_str(),
                &visit.headers,
                visit.visitor.ip(),
            ),
            avoid: avoid.to_vec(),
        }
    }

    fn allows(&self, link: &Link) -> bool {
        link.is_routable() && !self.avoid.contains(&link.id().value())
    }
}

fn draw(tunnel: &Tunnel, authority: &str, headers: &http::HeaderMap, visitor: IpAddr) -> Draw {
    let policy = tunnel.definition.policy;
    let mut draw = Draw::default();
    if policy.uses_random() {
        draw.random = rand::random();
    }
    if policy == Policy::IpHash {
        draw.hash = match visitor.to_canonical() {
            IpAddr::V4(ip) => hash_bytes(&ip.octets()),
            IpAddr::V6(ip) => hash_bytes(&ip.octets()),
        };
    } else if policy.uses_hash() {
        draw.hash = hash_bytes(match &tunnel.definition.hash_on {
            HashOn::Host => authority.as_bytes(),
            HashOn::Header(name) => headers
                .get(name)
                .map_or(&[][..], http::HeaderValue::as_bytes),
            HashOn::Cookie(name) => cookie(headers, name),
        });
    }
    draw
}

/// The value of a cookie, or nothing.
fn cookie<'h>(headers: &'h http::HeaderMap, name: &str) -> &'h [u8] {
    headers
        .get_all(http::header::COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .map(<[u8]>::trim_ascii)
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
        .unwrap_or_default()
}

/// A client with a permit to spare; `None` when none is there or all are busy.
fn try_choose(tunnel: &Arc<Tunnel>, revision: u64, choice: &Choice) -> Option<Direction> {
    let free = |link: &Arc<Link>| choice.allows(link) && link.permits().available() > 0;
    let (link, load) = tunnel.choose(choice.draw, free)?;
    let permit = link.permits().try_acquire()?;
    destination(tunnel, revision, &link, permit, load).map(Direction::Go)
}

/// A client to wait for when all are busy.
fn least_busy(tunnel: &Tunnel, choice: &Choice) -> Option<(Arc<Link>, InFlight)> {
    tunnel.choose(choice.draw, |link| choice.allows(link))
}

fn destination(
    tunnel: &Tunnel,
    revision: u64,
    link: &Arc<Link>,
    permit: Permit,
    load: InFlight,
) -> Option<Destination> {
    Some(Destination {
        lane: link.lane()?,
        grant: link.grant().for_tunnel(tunnel.key.name.clone(), revision),
        tunnel: tunnel.name.clone(),
        revision,
        link: link.id().value(),
        hold: Box::new(Held {
            _permit: permit,
            _load: load,
        }),
    })
}

fn no_tunnel(authority: &str) -> Failure {
    Failure::new(
        Reason::NoTunnel,
        format!("no tunnel answers to `{authority}` under this path"),
    )
}
