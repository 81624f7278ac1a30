//! Serves the requests to upstreams: name, permits, choice of a server. Refused requests are recorded like served
//! requests.

use std::sync::{Arc, Weak};

use adit_auth::{Grant, Wanted};
use adit_balance::InFlight;
use adit_codec::ResetCode;
use adit_egress::{Egress, RequestOrigin, RequestOwner};
use adit_flow::{Acquire, Gate, GateError, Permit};
use adit_ingress::{Denial, Held, limit_exchange};
use adit_link::{Dispatch, IncomingRequest};
use adit_registry::Link;
use tokio::time::{Instant, timeout};

use crate::{
    authorization::Authorization, traffic::Traffic, upstream::Upstream, upstreams::Upstreams,
};

/// Serves the requests that one client opens on one lane, for visitors of its entries.
#[derive(Clone)]
pub(crate) struct Entries {
    upstreams: Arc<Upstreams>,
    egress: Arc<Egress>,
    /// The owner of the requests.
    owner: Arc<RequestOwner>,
    grant: Grant,
    /// The link of the client, and whether it may still be used; `None` for visitors of the server.
    client: Option<(Weak<Link>, Arc<Authorization>)>,
    /// The limits of the client and its user; `None` for visitors of the server.
    traffic: Option<Arc<Traffic>>,
    /// Permits of the client; `None` for visitors of the server, whose requests hold their permits already.
    permits: Option<Arc<Gate>>,
}

/// The values that a request holds until it ends.
struct UpstreamHold {
    _permits: Option<(Permit, Permit)>,
    _limits: Option<Held>,
    _load: InFlight,
}

impl Entries {
    /// Serves the requests of the client of this link, on a lane of this thread.
    pub(crate) fn of_client(
        upstreams: &Arc<Upstreams>,
        link: &Arc<Link>,
        authorization: &Arc<Authorization>,
        traffic: &Arc<Traffic>,
    ) -> Arc<Self> {
        let mut entries = Self::new(upstreams, link.grant(), Some(link.permits().clone()));
        // The link owns the lane, which owns this.
        entries.traffic = Some(traffic.clone());
        entries.client = Some((Arc::downgrade(link), authorization.clone()));
        Arc::new(entries)
    }

    /// Serves the requests of the server's own visitors, which hold their permits already.
    pub(crate) fn of_this_side(upstreams: &Arc<Upstreams>, grant: &Grant) -> Self {
        Self::new(upstreams, grant, None)
    }

    fn new(upstreams: &Arc<Upstreams>, grant: &Grant, permits: Option<Arc<Gate>>) -> Self {
        Self {
            upstreams: upstreams.clone(),
            egress: upstreams.egress(),
            owner: Arc::new(RequestOwner {
                user: grant.user().as_str().into(),
                group: grant.group().as_str().into(),
                client: grant.client().as_str().into(),
            }),
            grant: grant.clone(),
            client: None,
            traffic: None,
            permits,
        }
    }
}

impl Dispatch for Entries {
    fn dispatch(&self, mut opened: IncomingRequest) {
        let origin = RequestOrigin {
            owner: self.owner.clone(),
            waited_since: None,
        };
        let Some(upstream) = self.find(&opened.head.open().tunnel) else {
            // The name is text from the client, and records are counted by name: only names of the settings are
            // counted.
            let named = std::mem::take(&mut opened.head.open_mut().tunnel);
            let named: String = named.chars().take(LONGEST_NAME).collect();
            let why = format!("this server defines no upstream {named:?}");
            return self.refuse(origin, opened, ResetCode::NoTunnel, &why);
        };
        if !self.is_authorized() {
            let why = "the link of the client has ended";
            return self.refuse(origin, opened, ResetCode::Cancelled, why);
        }
        let wanted = Wanted::Upstream(upstream.name().as_str());
        if let Err(outside) = self.grant.allows(wanted) {
            return self.refuse(origin, opened, ResetCode::NoTunnel, &outside.to_string());
        }
        if let Err((code, why)) = upstream.check(&opened.head) {
            return self.refuse(origin, opened, code, why);
        }
        let Some(permits) = &self.permits else {
            return self.serve(&upstream, origin, opened, None);
        };
        if self.upstreams.is_draining() {
            let why = "the server is stopping";
            return self.refuse(origin, opened, ResetCode::Draining, why);
        }
        // Permits are taken in the same order as for visitors: the permit of the server, then that of the client.
        let shared = self.upstreams.permits().try_acquire();
        let own = shared.as_ref().and_then(|_| permits.try_acquire());
        match (shared, own) {
            (Some(shared), Some(own)) => {
                self.serve(&upstream, origin, opened, Some((shared, own)));
            }
            (shared, _) => self.wait(&upstream, origin, opened, permits.acquire(), shared),
        }
    }
}

impl Entries {
    /// Whether the credential of the client is still accepted (P-1.18).
    fn is_authorized(&self) -> bool {
        let Some((link, authorization)) = &self.client else {
            return true;
        };
        link.upgrade()
            .is_some_and(|link| authorization.holds(&link))
    }

    /// Finds an upstream. A rule may have sent the server's own visitors to one that has been removed since.
    fn find(&self, name: &str) -> Option<Arc<Upstream>> {
        let found = self.upstreams.find(name);
        match &self.permits {
            Some(_) => found,
            None => found.or_else(|| self.upstreams.find_retired(name)),
        }
    }

    /// Waits for the missing permits in a task of its own, so that the lane's reader does not wait. The mux bounds the
    /// number of waiting requests, because they are open requests of the client.
    fn wait(
        &self,
        upstream: &Arc<Upstream>,
        mut origin: RequestOrigin,
        opened: IncomingRequest,
        own: Acquire,
        shared: Option<Permit>,
    ) {
        let wait = self.upstreams.permit_wait();
        if wait.is_zero() {
            return self.refuse(origin, opened, ResetCode::Limit, FULL);
        }
        origin.waited_since = Some(Instant::now());
        let (this, upstream) = (self.clone(), upstream.clone());
        tokio::spawn(async move {
            let permits = async {
                let shared = match shared {
                    Some(shared) => shared,
                    None => this.upstreams.permits().acquire().await?,
                };
                Ok::<_, GateError>((shared, own.await?))
            };
            let waited = tokio::select! {
                biased;
                () = opened.exchange.send.closed() => {
                    // The visitor has left or the link is lost: only the record is still needed.
                    return this.refuse(origin, opened, ResetCode::Cancelled, "the request was cancelled while it waited");
                }
                waited = timeout(wait, permits) => waited,
            };
            match waited {
                Ok(Ok(permits)) => this.serve(&upstream, origin, opened, Some(permits)),
                Ok(Err(_)) | Err(_) => this.refuse(origin, opened, ResetCode::Limit, FULL),
            }
        });
    }

    fn serve(
        &self,
        upstream: &Upstream,
        origin: RequestOrigin,
        mut opened: IncomingRequest,
        permits: Option<(Permit, Permit)>,
    ) {
        let limits = match self.admit(&mut opened) {
            Ok(limits) => limits,
            Err(denial) => {
                let why = &denial.failure().detail;
                return self.refuse(origin, opened, ResetCode::Limit, why);
            }
        };
        let Some((server, load)) = upstream.choose(&opened.head) else {
            let why = "the upstream has no servers";
            return self.refuse(origin, opened, ResetCode::Internal, why);
        };
        opened.exchange.hold(UpstreamHold {
            _permits: permits,
            _limits: limits,
            _load: load,
        });
        self.egress.dispatch_to(&server.service, origin, opened);
    }

    /// Admits a request by the limits of its client and user, and limits its payload.
    fn admit(&self, opened: &mut IncomingRequest) -> Result<Option<Held>, Box<Denial>> {
        let traffic = self.traffic.as_ref();
        let Some(limits) = traffic.and_then(|traffic| traffic.of_request(&self.grant, None)) else {
            return Ok(None);
        };
        let held = limits.admit(opened.head.protocol(), false)?;
        limit_exchange(&mut opened.exchange, &*limits, 0);
        Ok(Some(held))
    }

    fn refuse(&self, origin: RequestOrigin, opened: IncomingRequest, code: ResetCode, why: &str) {
        self.egress.refuse(origin, opened, code, why);
    }
}

const FULL: &str = "too many requests are open";

/// Characters of an unknown name in a message; a valid name has no more.
const LONGEST_NAME: usize = 64;
