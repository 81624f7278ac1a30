//! Takes what is opened for upstreams: name, permits, choice of a server.

use std::{sync::Arc, time::Instant};

use adit_auth::{Grant, TunnelName};
use adit_balance::InFlight;
use adit_codec::{ProtocolType, ResetCode, Side};
use adit_egress::Egress;
use adit_flow::{Acquire, Gate, GateError, Permit};
use adit_link::{Dispatch, Opened};
use tokio::time::timeout;
use uuid::Uuid;

use crate::upstreams::{Upstream, Upstreams};

/// Takes what one client opens on one lane: that client's entries.
#[derive(Clone)]
pub(crate) struct Entries {
    upstreams: Arc<Upstreams>,
    egress: Arc<Egress>,
    grant: Grant,
    /// Of the client; none where visitors of this side come, who hold theirs already.
    permits: Option<Arc<Gate>>,
}

/// What a request holds while it lasts.
struct Held {
    _permits: Option<(Permit, Permit)>,
    _load: InFlight,
    _line: Option<Line>,
}

impl Entries {
    pub(crate) const fn new(
        upstreams: Arc<Upstreams>,
        egress: Arc<Egress>,
        grant: Grant,
        permits: Option<Arc<Gate>>,
    ) -> Self {
        Self {
            upstreams,
            egress,
            grant,
            permits,
        }
    }
}

impl Dispatch for Entries {
    fn dispatch(&self, opened: Opened) {
        let open = opened.head.open();
        let Some(upstream) = self.upstreams.find(&open.tunnel) else {
            let why = "this server defines no upstream of that name";
            return self.refuse(opened, ResetCode::NoTunnel, why);
        };
        if let Err((code, why)) = upstream.check(&opened.head) {
            return self.refuse(opened, code, why);
        }
        let Some(permits) = &self.permits else {
            return self.serve(upstream, opened, None);
        };
        if self.upstreams.is_draining() {
            return self.refuse(opened, ResetCode::Draining, "the server is stopping");
        }
        // In the order of visitors: the permit of the server, then that of the client.
        let shared = self.upstreams.permits().try_acquire();
        let own = shared.as_ref().and_then(|_| permits.try_acquire());
        match (shared, own) {
            (Some(shared), Some(own)) => self.serve(upstream, opened, Some((shared, own))),
            (shared, _) => self.wait(upstream, opened, permits.acquire(), shared),
        }
    }
}

impl Entries {
    /// Waits for what is missing of the permits, off the lane's reader. The mux bounds how many wait: they are open
    /// requests of the client.
    fn wait(&self, upstream: &Arc<Upstream>, opened: Opened, own: Acquire, shared: Option<Permit>) {
        let wait = self.upstreams.permit_wait();
        if wait.is_zero() {
            return self.refuse(opened, ResetCode::Limit, FULL);
        }
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
                // The visitor has left or the link is lost: nobody is to be told.
                () = opened.exchange.send.gone() => return,
                waited = timeout(wait, permits) => waited,
            };
            match waited {
                Ok(Ok(permits)) => this.serve(&upstream, opened, Some(permits)),
                Ok(Err(_)) | Err(_) => this.refuse(opened, ResetCode::Limit, FULL),
            }
        });
    }

    fn serve(&self, upstream: &Upstream, opened: Opened, permits: Option<(Permit, Permit)>) {
        let Some((server, load)) = upstream.choose(&opened.head) else {
            return self.refuse(opened, ResetCode::Internal, "the upstream has no servers");
        };
        opened.exchange.hold(Held {
            _permits: permits,
            _load: load,
            _line: Line::begin(&opened, &self.grant, upstream.name(), &server.address),
        });
        self.egress.dispatch_to(&server.service, opened);
    }

    fn refuse(&self, opened: Opened, code: ResetCode, why: &str) {
        let open = opened.head.open();
        tracing::debug!(
            target: "adit::access",
            request_id = %Uuid::from_bytes(open.request_uuid),
            protocol = opened.head.protocol().as_str(),
            opener = match opened.exchange.id().opener() {
                Side::Server => "server",
                Side::Client => "client",
            },
            user = self.grant.user().as_str(),
            client = self.grant.client().as_str(),
            // Whatever the client wrote there.
            upstream = ?open.tunnel.chars().take(64).collect::<String>(),
            reason = code.reason(),
            why,
        );
        opened.exchange.send.reset(code, why);
    }
}

const FULL: &str = "too many requests at this moment";

/// The access line of a request that a client opened, written when it is over.
struct Line(Box<LineParts>);

struct LineParts {
    uuid: Uuid,
    protocol: ProtocolType,
    visitor: Box<str>,
    grant: Grant,
    server: Box<str>,
    started: Instant,
}

impl Line {
    /// Nothing is gathered when nobody reads it.
    fn begin(opened: &Opened, grant: &Grant, upstream: &TunnelName, server: &str) -> Option<Self> {
        let opener = opened.exchange.id().opener();
        // What visitors of this side ask has its line where they came in.
        if opener == Side::Server
            || !tracing::enabled!(target: "adit::access", tracing::Level::DEBUG)
        {
            return None;
        }
        let open = opened.head.open();
        Some(Self(Box::new(LineParts {
            uuid: Uuid::from_bytes(open.request_uuid),
            protocol: opened.head.protocol(),
            visitor: open.visitor.clone(),
            grant: grant.for_tunnel(upstream.clone(), open.revision),
            server: server.into(),
            started: Instant::now(),
        })))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = &*self.0;
        tracing::debug!(
            target: "adit::access",
            request_id = %line.uuid,
            protocol = line.protocol.as_str(),
            opener = "client",
            user = line.grant.user().as_str(),
            client = line.grant.client().as_str(),
            upstream = line.grant.tunnel().map_or("", |name| name.as_str()),
            revision = line.grant.revision(),
            server = &*line.server,
            visitor = ?line.visitor,
            duration = ?line.started.elapsed(),
        );
    }
}
