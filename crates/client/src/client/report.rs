//! The status of a running client.

use super::state::State;
use crate::{
    settings::Settings,
    status::{ConfigStatus, CoreCounters, Status, TunnelOutcome, TunnelStatus},
};

impl State {
    pub(super) fn status(&self, tasks: usize) -> Status {
        let (settings, services) = (self.settings(), self.egress.stats());
        let (lanes, mut totals, mut status) = {
            let live = self.lock();
            let status = Status {
                version: env!("CARGO_PKG_VERSION"),
                client_id: settings.client_id.clone(),
                group_id: settings.group_id.clone(),
                server: settings.server_addr(),
                connection: connection(&self.cell.status()),
                epoch: if live.lanes.is_empty() { 0 } else { live.epoch },
                last_error: live.last_error.clone(),
                lanes: live.lanes.iter().filter(|lane| !lane.is_closed()).count(),
                streams_reopened: live.streams_reopened,
                config: ConfigStatus {
                    revision: live.applied + 1,
                    applied: live.applied,
                    needs_restart: live.needs_restart.clone(),
                    ..ConfigStatus::default()
                },
                tunnels: self.tunnels(&settings, &live.tunnels),
                entries: self.entries.status(),
                requests: 0,
                opened: 0,
                accepted: 0,
                waiting_bytes: 0,
                pinned_bytes: 0,
                queued_bytes: 0,
                pending: 0,
                tasks,
                service_connections: services.connections,
                datagrams_dropped: services.udp.dropped_socket_full
                    + services.udp.dropped_unsendable
                    + services.udp.dropped_too_long,
                cores: CoreCounters::default(),
            };
            let mut totals = live.lost_lanes.clone();
            totals.cores.reconnect_dials = live.dials;
            (live.lanes.clone(), totals, status)
        };
        for lane in &lanes {
            let stats = lane.stats();
            totals.add(&stats);
            status.requests += lane.open_requests();
            status.waiting_bytes += stats.waiting_bytes;
            status.pinned_bytes += stats.pinned_bytes;
            status.queued_bytes += stats.mux.queued;
            status.pending += usize::try_from(stats.pending.waiting).unwrap_or(usize::MAX);
        }
        status.opened = totals.opened;
        status.accepted = totals.accepted;
        status.datagrams_dropped += totals.datagrams_dropped;
        status.cores = totals.cores;
        status
    }

    fn tunnels(&self, settings: &Settings, outcomes: &[TunnelOutcome]) -> Vec<TunnelStatus> {
        let with_service = |outcome: &TunnelOutcome| {
            let mut tunnels = settings.tunnels.iter();
            let tunnel = tunnels.find(|tunnel| tunnel.name == outcome.name);
            TunnelStatus {
                outcome: outcome.clone(),
                target: tunnel.map_or_else(String::new, |tunnel| {
                    let service = &tunnel.service;
                    match service.host.contains(':') {
                        true => format!("[{}]:{}", service.host, service.port),
                        false => format!("{}:{}", service.host, service.port),
                    }
                }),
                requests: self.egress.requests_of(&outcome.name),
            }
        };
        outcomes.iter().map(with_service).collect()
    }
}

const fn connection(status: &adit_reconnect::Status) -> &'static str {
    match status {
        adit_reconnect::Status::Idle => "idle",
        adit_reconnect::Status::Connecting { .. } => "connecting",
        adit_reconnect::Status::Connected { .. } => "connected",
        adit_reconnect::Status::Waiting { .. } => "waiting",
        adit_reconnect::Status::Draining => "draining",
        adit_reconnect::Status::Stopped { .. } => "stopped",
    }
}
