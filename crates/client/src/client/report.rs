//! The status of a running client.

use super::state::State;
use crate::status::{CoreCounters, Status, TunnelOutcome, TunnelStatus};

impl State {
    pub(super) fn status(&self, tasks: usize) -> Status {
        let services = self.egress.stats();
        let (lanes, mut status) = {
            let live = self.lock();
            let status = Status {
                version: env!("CARGO_PKG_VERSION"),
                client_id: self.settings.client_id.clone(),
                group_id: self.settings.group_id.clone(),
                server: self.settings.server_addr(),
                connection: connection(&self.cell.status()),
                epoch: if live.lanes.is_empty() { 0 } else { live.epoch },
                last_error: live.last_error.clone(),
                tunnels: self.tunnels(&live.tunnels),
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
                cores: CoreCounters {
                    reconnect_dials: live.dials,
                    ..CoreCounters::default()
                },
            };
            (live.lanes.clone(), status)
        };
        for lane in &lanes {
            let stats = lane.stats();
            status.requests += lane.open_requests();
            status.opened += stats.mux.opened;
            status.accepted += stats.mux.accepted;
            status.waiting_bytes += stats.waiting_bytes;
            status.pinned_bytes += stats.pinned_bytes;
            status.queued_bytes += stats.mux.queued;
            status.pending += usize::try_from(stats.pending.waiting).unwrap_or(usize::MAX);
            status.datagrams_dropped += stats.datagrams_dropped + stats.mux.datagrams_dropped;
            let cores = &mut status.cores;
            cores.codec_messages += stats.mux.messages_sent + stats.mux.messages_received;
            cores.mux_batches += stats.mux.batches_sent;
            cores.flow_windows += stats.mux.windows_sent;
            cores.pending_settled += stats.pending.completed
                + stats.pending.failed
                + stats.pending.cancelled
                + stats.pending.expired;
        }
        status
    }

    fn tunnels(&self, outcomes: &[TunnelOutcome]) -> Vec<TunnelStatus> {
        let with_service = |outcome: &TunnelOutcome| {
            let mut tunnels = self.settings.tunnels.iter();
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
