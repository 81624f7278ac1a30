//! Sends the server's own visitors to upstreams: each data thread has a lane with both ends on that thread.

use std::{
    collections::HashMap,
    sync::Arc,
    thread::{self, ThreadId},
};

use adit_auth::{ClientClaim, ClientId, Grant, GroupId, NameError, TunnelName, UserName};
use adit_flow::Budget;
use adit_ingress::{Destination, Layers};
use adit_link::{Lane, LaneConfig};
use parking_lot::Mutex;

use crate::{
    entries::Entries,
    lane_config::lane_config,
    settings::{Limits, Timeouts},
    shortcut::Shortcut,
    upstream::{Upstream, UpstreamError},
    upstreams::Upstreams,
};

/// The link number of destinations without a link.
const NO_LINK: u64 = u64::MAX;

/// The owner of requests that the server's own visitors open.
const SELF: &str = "server";

/// The lanes of all data threads to the upstreams.
pub(crate) struct Shortcuts {
    upstreams: Arc<Upstreams>,
    lanes: Mutex<HashMap<ThreadId, Shortcut>>,
    config: LaneConfig,
    budget: Budget,
    /// The grant of the server's own visitors.
    grant: Grant,
}

impl Shortcuts {
    pub(crate) fn new(
        upstreams: Arc<Upstreams>,
        limits: &Limits,
        timeouts: &Timeouts,
        budget: &Budget,
    ) -> Result<Arc<Self>, UpstreamError> {
        let mut config = lane_config(limits, timeouts);
        config.mux.max_requests = limits.max_requests;
        Ok(Arc::new(Self {
            upstreams,
            lanes: Mutex::default(),
            config,
            budget: budget.child(limits.link_budget_bytes),
            grant: own_grant()?,
        }))
    }

    /// No shortcuts, for tests without upstreams.
    #[cfg(test)]
    pub(crate) fn none() -> Arc<Self> {
        let (limits, timeouts) = (Limits::default(), Timeouts::default());
        Self::new(Upstreams::none(), &limits, &timeouts, &Budget::new(0)).unwrap()
    }

    /// The target of visitors of this side: through `layers` to the upstream of a name.
    pub(crate) fn route_to(self: &Arc<Self>, upstream: &Upstream, layers: Layers) -> ToUpstream {
        ToUpstream {
            shortcuts: self.clone(),
            name: upstream.name().clone(),
            layers,
        }
    }

    /// The lane to the upstreams on this thread.
    fn lane(&self) -> Arc<Lane> {
        let mut lanes = self.lanes.lock();
        let id = thread::current().id();
        if let Some(lane) = lanes.get(&id).and_then(Shortcut::lane) {
            return lane.clone();
        }
        let entries = Entries::of_this_side(&self.upstreams, &self.grant);
        let (config, budget) = (&self.config, &self.budget);
        let shortcut = Shortcut::new(config, budget, Arc::new(entries));
        let lane = shortcut.near().clone();
        lanes.insert(id, shortcut);
        lane
    }
}

/// Sends the server's own visitors, which hold their permits already, to an upstream.
#[derive(Clone)]
pub(crate) struct ToUpstream {
    shortcuts: Arc<Shortcuts>,
    name: TunnelName,
    layers: Layers,
}

impl ToUpstream {
    pub(crate) const fn name(&self) -> &TunnelName {
        &self.name
    }

    /// The destination of one request, on the data thread that accepted it.
    pub(crate) fn destination(&self, revision: u64) -> Destination {
        Destination {
            lane: self.shortcuts.lane(),
            grant: self.shortcuts.grant.for_tunnel(self.name.clone(), revision),
            tunnel: self.name.clone().into(),
            revision,
            link: NO_LINK,
            layers: self.layers.clone(),
            limits: None,
            compression: None,
            permit: None,
            hold: Box::new(()),
        }
    }
}

fn own_grant() -> Result<Grant, NameError> {
    let claim = ClientClaim {
        client_id: ClientId::parse(SELF)?,
        group_id: GroupId::parse(SELF)?,
    };
    Ok(Grant::for_link(UserName::parse(SELF)?, claim))
}
