//! The status of a running server, collected from its parts.

use adit_link::{Compression, compress::CompressionStats};

use super::inner::Inner;
use crate::status::{
    AccessStatus, ClientStatus, CoreCounters, ProcessStatus, RefusalStatus, Status, TunnelStatus,
    UdpStatus, VisitorStatus,
};

impl Inner {
    pub(super) fn status(&self) -> Status {
        let tasks = self
            .runtimes
            .iter()
            .map(|runtime| runtime.metrics().num_alive_tasks())
            .sum();
        let mut cores = CoreCounters {
            router_revision: self.directory.revision(),
            auth_accepted: self.registry.stats().registered,
            ..CoreCounters::default()
        };
        let (mut pending, mut lane_datagrams_dropped) = (0, 0);
        let mut clients = Vec::new();
        for link in self.registry.links() {
            let stats = link.stats();
            let mut client = ClientStatus {
                client_id: link.grant().client().to_string(),
                group_id: link.grant().group().to_string(),
                user: link.grant().user().to_string(),
                epoch: link.epoch(),
                lanes: stats.lanes.len(),
                control: stats.control,
                draining: link.is_draining(),
                requests: link.permits().in_use(),
                waiting_bytes: 0,
                pinned_bytes: 0,
                queued_bytes: 0,
                opened: 0,
                accepted: 0,
                messages_per_batch: 0.0,
                compression: CompressionStats::default().into(),
            };
            let mut compression = CompressionStats::default();
            let (mut messages, mut batches) = (0, 0);
            for lane in &stats.lanes {
                compression.add(&lane.compression);
                client.waiting_bytes += lane.waiting_bytes;
                client.pinned_bytes += lane.pinned_bytes;
                client.queued_bytes += lane.mux.queued;
                client.opened += lane.mux.opened;
                client.accepted += lane.mux.accepted;
                lane_datagrams_dropped += lane.datagrams_dropped + lane.mux.datagrams_dropped;
                messages += lane.mux.messages_sent;
                batches += lane.mux.batches_sent;
                cores.codec_messages += lane.mux.messages_sent + lane.mux.messages_received;
                cores.mux_batches += lane.mux.batches_sent;
                cores.flow_windows += lane.mux.windows_sent;
                let settled = &lane.pending;
                cores.pending_settled +=
                    settled.completed + settled.failed + settled.cancelled + settled.expired;
                pending += usize::try_from(settled.waiting).unwrap_or(usize::MAX);
            }
            #[allow(clippy::cast_precision_loss)] // a ratio for display
            if batches > 0 {
                client.messages_per_batch = messages as f64 / batches as f64;
            }
            client.compression = compression.into();
            clients.push(client);
        }
        let mut tunnels = Vec::new();
        for (tunnel, public_url) in self.directory.tunnels() {
            let requests = tunnel.choices().chosen;
            cores.balance_choices += requests;
            tunnels.push(TunnelStatus {
                name: tunnel.name.to_string(),
                group_id: tunnel.key.group.to_string(),
                kind: if tunnel.definition.passes_through() {
                    "tls"
                } else {
                    tunnel.definition.protocol.as_str()
                },
                port: tunnel.port.map(|port| port.number),
                compression: tunnel
                    .definition
                    .compression
                    .map_or("none", Compression::as_str),
                public_url,
                load_balance: tunnel.definition.policy.name(),
                requests,
                clients: tunnel.clients().iter().map(ToString::to_string).collect(),
                has_been_left: tunnel.has_been_left(),
            });
        }
        let upstreams = self.upstreams.list();
        let chosen = upstreams.iter().map(|upstream| upstream.chosen());
        cores.balance_choices += chosen.sum::<u64>();
        let upstreams = upstreams.iter().map(|upstream| upstream.status()).collect();
        let visitors = self.entries.http().stats();
        let registry = self.registry.stats();
        let floods = self.floods.stats();
        let access = self.access.counts();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime_millis: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            tunnel_addr: self.tunnel_addr.to_string(),
            tls: self.tls.status(),
            http_addr: self.http_addr.to_string(),
            https: { self.https.as_ref() }.map(|https| https.status(self.issued.as_ref())),
            phase: if *self.drain.borrow() {
                "draining"
            } else {
                "running"
            },
            config: self.in_force.status(),
            clients,
            tunnels,
            upstreams,
            visitors: VisitorStatus {
                connections_open: visitors.connections_open,
                connections: visitors.connections,
                connections_refused: visitors.connections_refused,
                requests_open: visitors.requests_open,
                grpc_open: visitors.grpc_open,
                websockets_open: visitors.websockets_open,
                requests: visitors.requests,
                retries: visitors.retries,
                failures: visitors.failures.by_name(),
            },
            tcp: self.entries.tcp().stats().into(),
            udp: UdpStatus::new(&self.entries.udp().stats(), lane_datagrams_dropped),
            access: AccessStatus {
                denied: access.denied,
                would_deny: access.would_deny,
                password_checks: self.access.password_checks(),
                bans: self.access.bans().into_iter().map(Into::into).collect(),
            },
            traffic: self.traffic.status(),
            refusals: RefusalStatus {
                denied: floods.denied,
                unregistered: floods.unregistered,
                broken_streams: floods.broken,
                accept_failed: floods.accept,
            },
            process: ProcessStatus {
                tasks,
                sessions: registry.links,
                channels: registry.channels,
                unauthenticated: self.newcomers.count(),
                client_connections: self.lanes.client_connections(),
                pending,
                public_ports: self.ports.count(),
                permits_in_use: self.permits.in_use(),
                upstream_connections: self.upstreams.connections(),
                budget_used_bytes: self.lanes.budget_used(),
            },
            cores,
        }
    }
}
