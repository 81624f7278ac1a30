//! Accepts data streams for their links.

use std::sync::Arc;

use adit_auth::{LinkKey, SessionToken};
use adit_flow::Budget;
use adit_link::{
    Compression, Failure, Lane, Reason,
    control::{AcceptLane, AcceptedLane, ChannelId, LaneRequest, Refusal, RefusalReason},
};
use adit_registry::{Link, Registry, StreamError};

use crate::{
    authorization::Authorization, channels::Channels, configuration::InForce, connections::Bounds,
    entries::Entries, floods::Floods, lane_config::lane_config, traffic::Traffic,
    upstreams::Upstreams,
};

/// Creates the lanes of all links.
pub(crate) struct Lanes {
    pub(crate) registry: Arc<Registry>,
    pub(crate) channels: Arc<Channels>,
    pub(crate) floods: Arc<Floods>,
    pub(crate) config: Arc<InForce>,
    pub(crate) budget: Budget,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) authorization: Arc<Authorization>,
    pub(crate) traffic: Arc<Traffic>,
}

impl Lanes {
    /// Connections of clients that count for a user.
    pub(crate) fn client_connections(&self) -> usize {
        self.channels.connections.counted()
    }

    /// Bytes by which windows have grown, over all links.
    pub(crate) fn budget_used(&self) -> u64 {
        self.budget.used()
    }
}

impl AcceptLane for Lanes {
    fn accept_lane(
        &self,
        request: LaneRequest<'_>,
        channel: ChannelId,
    ) -> Result<AcceptedLane, Refusal> {
        let session = session_of(request.session)?;
        let number = request.lane;
        let link = self.registry.session(session).map_err(stream_refusal)?;
        let bounds = Bounds::of(&self.config.load().settings.limits);
        let counted = self
            .channels
            .connections
            .count(channel, link.grant(), bounds);
        let counted =
            counted.map_err(|crowded| Refusal::new(RefusalReason::Limit, crowded.to_string()))?;
        let mut of = None;
        let opened = self.registry.open_lane(session, number, |link| {
            of = Some(link.clone());
            let (config, link_budget_bytes) = {
                let in_force = self.config.load();
                let (limits, timeouts) = (&in_force.settings.limits, &in_force.settings.timeouts);
                (lane_config(limits, timeouts), limits.link_budget_bytes)
            };
            let budget = self.budget.child(link_budget_bytes);
            let entries =
                Entries::of_client(&self.upstreams, link, &self.authorization, &self.traffic);
            let lane = Lane::new(config, budget, entries);
            if link.supports("upgrade") {
                lane.allow_upgrades();
            }
            for by in Compression::ALL {
                if link.supports(by.as_str()) {
                    lane.allow_compression(by);
                }
            }
            lane
        });
        let (lane, guard) = opened.map_err(stream_refusal)?;
        counted.keep(&link);
        let floods = self.floods.clone();
        let on_end = move |failure: &Failure, bytes| {
            if let Some(link) = of {
                log_end(&floods, &link, number, failure, bytes);
            }
        };
        Ok(AcceptedLane {
            lane,
            on_end: Box::new(on_end),
            guard: Box::new((guard, self.channels.track(channel))),
        })
    }
}

/// Logs one line for each data stream that ends. A client that violates the protocol can end any number, so such ends
/// are limited.
fn log_end(floods: &Floods, link: &Link, lane: u32, failure: &Failure, bytes: u64) {
    let (client, peer) = (link.grant().client(), link.peer());
    let reason = match failure.reason {
        Reason::ProtocolError | Reason::FlowControl => {
            return floods.broken(client, peer, failure, bytes);
        }
        // The client has announced before that it drains.
        Reason::LinkLost if link.is_draining() => Reason::Draining,
        reason => reason,
    };
    let reason = reason.as_str();
    tracing::info!(%client, %peer, lane, reason, bytes, "data stream ended: {}", failure.detail);
}

/// The session in the metadata of a call.
pub(crate) fn session_of(session: &str) -> Result<LinkKey, Refusal> {
    let token = SessionToken::parse(session);
    let token = token.map_err(|_| stream_refusal(StreamError::StaleSession))?;
    Ok(token.key())
}

pub(crate) fn stream_refusal(error: StreamError) -> Refusal {
    let reason = match error {
        StreamError::StaleSession => RefusalReason::StaleSession,
        StreamError::NoSuchLane { .. } => RefusalReason::BadRequest,
    };
    Refusal::new(reason, error)
}
