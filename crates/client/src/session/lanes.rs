//! The data streams of a session: each is opened again when it is lost (P-1.7).

use std::{sync::Arc, time::Duration};

use adit_codec::Side;
use adit_egress::Egress;
use adit_flow::Budget;
use adit_link::{
    Compression, Failure, Lane, LaneConfig, Reason,
    control::{Channel, LaneRequest, Transport},
    drive,
};
use adit_proto::{LinkSettings, RegisterResponse};
use tokio::{sync::watch, time::timeout};

use super::{
    connection::{Connection, DialError, dial_error, no_response, transient},
    events::{Event, Streams, stale},
    retry::Retry,
};
use crate::settings::Settings;

/// Opens the lanes of one session.
pub(super) struct LaneFactory<T> {
    pub(super) transport: Arc<T>,
    settings: Arc<Settings>,
    config: LaneConfig,
    budget: Budget,
    egress: Arc<Egress>,
    capabilities: Vec<String>,
    session: String,
}

/// A lane whose data stream is open.
pub(super) struct OpenLane<C: Channel> {
    pub(super) lane: Arc<Lane>,
    reader: C::Reader,
    pub(super) connection: Connection<C>,
}

impl<T: Transport> LaneFactory<T> {
    pub(super) fn new(
        transport: &Arc<T>,
        settings: &Arc<Settings>,
        response: &RegisterResponse,
        link: &LinkSettings,
        egress: &Arc<Egress>,
    ) -> Self {
        Self {
            transport: transport.clone(),
            settings: settings.clone(),
            config: lane_config(settings, link),
            budget: Budget::new(settings.limits.budget_bytes),
            egress: egress.clone(),
            capabilities: response.capabilities.clone(),
            session: response.session.clone(),
        }
    }

    /// Opens the data stream of lane `index`, on `connection` or on a new one.
    pub(super) async fn open(
        &self,
        index: u32,
        connection: Option<Connection<T::Channel>>,
    ) -> Result<OpenLane<T::Channel>, DialError> {
        let connection = match connection {
            Some(connection) => connection,
            None => Connection::open(&*self.transport, &self.settings).await?,
        };
        let lane = Lane::new(
            self.config.clone(),
            self.budget.clone(),
            self.egress.clone(),
        );
        if self.supports("upgrade") {
            lane.allow_upgrades();
        }
        for by in Compression::ALL {
            if self.supports(by.as_str()) {
                lane.allow_compression(by);
            }
        }
        let request = LaneRequest {
            session: &self.session,
            lane: index,
        };
        let reader = connection.channel.open_lane(&lane, request).await;
        let reader =
            reader.map_err(|error| dial_error(&self.settings, &connection.channel, &error))?;
        Ok(OpenLane {
            lane,
            reader,
            connection,
        })
    }

    fn supports(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|name| name == capability)
    }
}

/// Keeps one lane of a session open until the session ends.
pub(super) struct LaneKeeper<T: Transport> {
    pub(super) index: u32,
    pub(super) factory: Arc<LaneFactory<T>>,
    pub(super) retry: Retry,
    pub(super) streams: Streams,
    /// Publishes the connection, for the control stream.
    pub(super) channel: watch::Sender<Option<T::Channel>>,
}

impl<T: Transport> LaneKeeper<T> {
    pub(super) async fn run(mut self, mut open: OpenLane<T::Channel>) {
        loop {
            let OpenLane {
                lane,
                reader,
                connection,
            } = open;
            let failure = drive(&lane, reader).await;
            // When the peer is silent, the connection is dead: the control stream on it is lost as well.
            let is_dead = lane.is_silent() || connection.channel.is_closed();
            let connection = (!is_dead).then_some(connection);
            if connection.is_none() {
                self.unpublish();
            }
            tracing::warn!(lane = self.index, %failure, "data stream lost");
            let index = self.index;
            self.streams
                .report(Event::LaneLost { index, failure })
                .await;
            match self.reopen(connection).await {
                Ok(opened) => open = opened,
                Err(failure) => return self.streams.report(Event::Over(failure)).await,
            }
            tracing::info!(lane = self.index, "data stream opened again");
            let channel = &open.connection.channel;
            // The control stream stays on the connection if that is the same.
            self.channel.send_if_modified(|published| {
                let is_new = published.is_none();
                published.get_or_insert_with(|| channel.clone());
                is_new
            });
            let lane = open.lane.clone();
            self.streams.report(Event::LaneUp { index, lane }).await;
        }
    }

    /// Reports that the connection is gone: the control stream on it is lost as well.
    fn unpublish(&self) {
        self.channel
            .send_if_modified(|published| published.take().is_some());
    }

    async fn reopen(
        &mut self,
        mut connection: Option<Connection<T::Channel>>,
    ) -> Result<OpenLane<T::Channel>, Failure> {
        let within = self.factory.settings.timeouts.connect;
        let mut ready = self.retry.lost().await;
        loop {
            ready.map_err(|reason| Failure::new(Reason::LinkLost, reason.to_string()))?;
            let alive = connection
                .take()
                .filter(|connection| !connection.channel.is_closed());
            if alive.is_none() {
                self.unpublish();
            }
            let error = match timeout(within, self.factory.open(self.index, alive)).await {
                Ok(Ok(open)) => {
                    self.retry.opened();
                    return Ok(open);
                }
                Ok(Err(error)) if error.is_stale => return Err(stale()),
                Ok(Err(error)) => error,
                Err(_) => transient(no_response(within)),
            };
            tracing::debug!(lane = self.index, "data stream not opened: {}", error.text);
            ready = self.retry.failed(error.kind).await;
        }
    }
}

fn lane_config(settings: &Settings, link: &LinkSettings) -> LaneConfig {
    let mut mux = adit_mux::Config::new(Side::Client);
    if link.initial_window_bytes > 0 {
        mux.initial_window = link.initial_window_bytes;
    }
    mux.max_window = settings.limits.max_window_bytes;
    mux.max_requests = settings.limits.max_requests;
    // A visitor that disconnects causes a reset here; the server bounds the number of visitors.
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
        stall: settings.timeouts.edge.stall,
        turn_bytes: settings.limits.turn_bytes,
    }
}
