//! Admits data streams to their links.

use std::sync::Arc;

use adit_auth::{LinkKey, SessionToken};
use adit_codec::{ResetCode, Side};
use adit_flow::Budget;
use adit_link::{
    Dispatch, Lane, LaneConfig, Opened,
    grpc::{AcceptLane, AcceptedLane, ChannelId, with_reason},
};
use adit_proto::{LANE_METADATA, SESSION_METADATA};
use adit_registry::{Registry, StreamError};
use http::HeaderMap;
use tonic::Status;

use crate::{
    channels::Channels,
    settings::{Limits, Timeouts},
};

/// Makes the lanes of all links.
pub(crate) struct Lanes {
    registry: Arc<Registry>,
    channels: Arc<Channels>,
    config: LaneConfig,
    link_budget_bytes: u64,
    budget: Budget,
}

impl Lanes {
    pub(crate) fn new(
        registry: Arc<Registry>,
        channels: Arc<Channels>,
        limits: &Limits,
        timeouts: &Timeouts,
    ) -> Self {
        let mut mux = adit_mux::Config::new(Side::Server);
        mux.initial_window = limits.initial_window_bytes;
        mux.max_window = limits.max_window_bytes;
        mux.max_requests = limits.max_requests_per_client;
        Self {
            registry,
            channels,
            config: LaneConfig {
                mux,
                max_entries: limits.max_requests,
                heartbeat: timeouts.heartbeat,
                dead_after: timeouts.dead_after,
                stall: timeouts.stall,
                stall_code: ResetCode::Stalled,
            },
            link_budget_bytes: limits.link_budget_bytes,
            budget: Budget::new(limits.process_budget_bytes),
        }
    }

    /// Bytes that windows have grown by, over all links.
    pub(crate) fn budget_used(&self) -> u64 {
        self.budget.used()
    }
}

impl AcceptLane for Lanes {
    fn accept_lane(
        &self,
        metadata: &HeaderMap,
        channel: ChannelId,
    ) -> Result<AcceptedLane, Status> {
        let session = session_of(
            metadata
                .get(SESSION_METADATA)
                .map(http::HeaderValue::as_bytes),
        )?;
        let number = match metadata.get(LANE_METADATA) {
            None => 0,
            Some(number) => number
                .to_str()
                .ok()
                .and_then(|number| number.parse().ok())
                .ok_or_else(|| Status::invalid_argument("adit-lane is no number"))?,
        };
        let opened = self.registry.open_lane(session, number, |_| {
            let budget = self.budget.child(self.link_budget_bytes);
            Lane::new(self.config.clone(), budget, Arc::new(NoEntries))
        });
        let (lane, guard) = opened.map_err(|error| stream_status(&error))?;
        Ok(AcceptedLane {
            lane,
            guard: Box::new((guard, self.channels.carry(channel))),
        })
    }
}

/// The session that call metadata names.
#[allow(clippy::result_large_err)]
pub(crate) fn session_of(value: Option<&[u8]>) -> Result<LinkKey, Status> {
    value
        .and_then(|value| std::str::from_utf8(value).ok())
        .and_then(|value| SessionToken::parse(value).ok())
        .map(|token| token.key())
        .ok_or_else(|| stream_status(&StreamError::StaleSession))
}

pub(crate) fn stream_status(error: &StreamError) -> Status {
    match error {
        StreamError::StaleSession => {
            with_reason(Status::unauthenticated(error.to_string()), "stale_session")
        }
        StreamError::NoSuchLane { .. } => {
            with_reason(Status::invalid_argument(error.to_string()), "bad_request")
        }
    }
}

/// Clients open nothing on this server: it has no upstreams.
struct NoEntries;

impl Dispatch for NoEntries {
    fn dispatch(&self, opened: Opened) {
        let text = "this server defines no upstreams";
        opened.exchange.send.reset(ResetCode::NoTunnel, text);
    }
}
