//! The state of a server as samples for Prometheus. `docs/metrics.md` lists the names.
//!
//! Counters of links are not among them: their sums shrink when a link ends, which looks like a restart to Prometheus.
//! `/api/status` contains them.

use std::{collections::BTreeSet, time::SystemTime};

use adit_trace::{Sample, families};

use crate::status::{ClientStatus, HttpsStatus, Status};

/// The labels of a client.
const CLIENT: &[&str] = &["client", "group", "user"];

/// The labels of a limited client, tunnel or user. At most a thousand of each kind are shown.
const ACCOUNT: &[&str] = &["of", "group", "name"];
const QUOTA: &[&str] = &["of", "group", "name", "quota"];

families! {
    UPTIME = gauge("adit_server_uptime_seconds", &[], "Since the server started.");
    DRAINING = gauge("adit_server_draining", &[], "1 while the server drains, else 0.");
    TASKS = gauge("adit_server_tasks", &[], "Tasks alive on the data threads.");
    CONFIG_REVISION = gauge("adit_config_revision", &[], "Revision of the configuration in force.");
    CONFIG_RELOADS = counter("adit_config_reloads_total", &["result"], "Changes of the configuration since the start, by result: applied or rejected.");
    CLIENTS = gauge("adit_registry_clients", &[], "Connected clients.");
    HEALTHY = gauge("adit_registry_healthy_clients", &[], "Connected clients that accept new requests.");
    USERS = gauge("adit_registry_users", &[], "Users with a connected client.");
    SESSIONS = gauge("adit_registry_sessions", &[], "Known sessions.");
    CHANNELS = gauge("adit_registry_channels", &[], "Known connections of clients.");
    UNAUTHENTICATED = gauge("adit_registry_unauthenticated_connections", &[], "Connections of clients that carry no session yet.");
    TURNED_AWAY = counter("adit_registry_refusals_total", &["cause"], "Registrations, connections and data streams of clients that were rejected.");
    EPOCH = gauge("adit_registry_client_epoch", CLIENT, "Epoch of a client; grows with each registration.");
    CLIENT_DRAINING = gauge("adit_registry_client_draining", CLIENT, "1 while a client drains, else 0.");
    LANES = gauge("adit_link_lanes", CLIENT, "Open data streams of a client.");
    CONTROL = gauge("adit_link_control", CLIENT, "1 when the control stream of a client is open, else 0.");
    REQUESTS = gauge("adit_link_requests", CLIENT, "Requests open on a client.");
    WAITING = gauge("adit_link_waiting_bytes", CLIENT, "Bytes from a client that wait for visitors.");
    PINNED = gauge("adit_link_pinned_bytes", CLIENT, "Memory of received frames that is still referenced.");
    QUEUED = gauge("adit_link_queued_bytes", CLIENT, "Bytes that wait to be sent to a client.");
    DATAGRAMS_LOST = gauge("adit_link_datagrams_dropped", &[], "Datagrams that the current links have dropped.");
    TUNNELS = gauge("adit_router_tunnels", &["protocol"], "Known tunnels.");
    TUNNEL_CLIENTS = gauge("adit_router_tunnel_clients", &["tunnel", "group", "protocol"], "Clients that serve a tunnel; 0 when it is down. Absent when its last client has drained, which is not an incident.");
    REVISION = gauge("adit_router_revision", &[], "Revision of the routes.");
    CONNECTIONS_OPEN = gauge("adit_ingress_connections", &["protocol"], "Connections of visitors that are open; flows for udp.");
    CONNECTIONS = counter("adit_ingress_connections_total", &["protocol"], "Connections of visitors; flows for udp.");
    REQUESTS_OPEN = gauge("adit_ingress_requests", &["protocol"], "Requests of visitors that are open.");
    REFUSED = counter("adit_ingress_connections_refused_total", &["protocol"], "Connections of visitors that were closed because too many were open.");
    HANDSHAKES = gauge("adit_ingress_handshakes", &[], "TLS handshakes of visitors that are running.");
    HANDSHAKES_FAILED = counter("adit_ingress_handshakes_failed_total", &[], "Connections of visitors that ended in their TLS handshakes, except those that the visitor closed.");
    CERTIFICATE_EXPIRES = gauge("adit_tls_certificate_expires_seconds", &["host"], "Seconds since 1970 at which a certificate for visitors expires, by its first host.");
    ACME_ORDERS = counter("adit_acme_orders_total", &["outcome"], "Orders of certificates that have ended, by outcome: issued, staging_passed, validation, refused, unreachable, rate_limited or local.");
    ACME_NAMES = gauge("adit_acme_names", &["state"], "Hosts for which certificates are obtained, by state: pending, valid, expired, unsupported, or left_out because there are too many.");
    ACME_NEXT_EXPIRY = gauge("adit_acme_next_expiry_seconds", &[], "Seconds until the first certificate over ACME expires; negative when it has. Absent without certificates.");
    TCP_RECEIVED = counter("adit_ingress_tcp_received_bytes_total", &[], "Bytes from visitors of TCP, counted when they are received.");
    TCP_SENT = counter("adit_ingress_tcp_sent_bytes_total", &[], "Bytes to visitors of TCP, counted when they are sent.");
    FLOWS_ENDED = counter("adit_ingress_flows_ended_total", &["cause"], "Flows that ended: replaced by new flows (evicted), or without datagrams for too long (silent).");
    DATAGRAMS = counter("adit_ingress_datagrams_total", &["direction"], "Datagrams from visitors (in) and to visitors (out).");
    DATAGRAMS_DROPPED = counter("adit_ingress_datagrams_dropped_total", &["direction"], "Datagrams that were dropped at the public port.");
    DENIED = counter("adit_ingress_access_denied_total", &["layer", "enforced"], "Requests, connections and flows that access layers did not admit (enforced true), or would not have admitted (false).");
    BANS = gauge("adit_ingress_bans", &[], "Addresses of visitors that are banned.");
    PASSWORD_CHECKS = counter("adit_ingress_password_checks_total", &[], "Passwords of visitors that were checked.");
    LIMIT_REFUSALS = counter("adit_limits_refusals_total", &["of", "limit"], "Requests, connections, flows and tunnels that a limit of a client, a tunnel or a user (of) has refused, by limit.");
    LIMIT_ACCOUNTS = gauge("adit_limits_accounts", &[], "Limited clients, tunnels and users that are known.");
    LIMIT_BANDWIDTH = gauge("adit_limits_bandwidth_bytes", ACCOUNT, "Bytes per second in each direction that a client, a tunnel or a user may have.");
    LIMIT_WAITED = gauge("adit_limits_waited_seconds", ACCOUNT, "How long payload has waited for the bandwidth, the sum of all requests since the account is known.");
    LIMIT_RUNNING = gauge("adit_limits_running_requests", ACCOUNT, "Running requests of a limited client, tunnel or user.");
    LIMIT_CONNECTIONS = gauge("adit_limits_connections", ACCOUNT, "TCP connections, WebSockets and UDP flows of a limited client, tunnel or user.");
    QUOTA_MOST = gauge("adit_limits_quota", QUOTA, "What a client, a tunnel or a user may use in the current day or month.");
    QUOTA_USED = gauge("adit_limits_quota_used", QUOTA, "What it has used.");
    PUBLIC_PORTS = gauge("adit_ingress_public_ports", &[], "Public ports of tunnels that are bound.");
    UPSTREAM_REQUESTS = counter("adit_egress_upstream_requests_total", &["upstream"], "Requests sent to an upstream.");
    UPSTREAM_OPEN = gauge("adit_egress_upstream_requests", &["upstream", "server"], "Requests that a server of an upstream works on.");
    EGRESS_CONNECTIONS = gauge("adit_egress_connections", &[], "Connections to servers of upstreams that are open.");
    PENDING = gauge("adit_pending_requests", &[], "Entries in all request tables.");
    PERMITS = gauge("adit_flow_permits", &[], "Permits in use, over all clients.");
    BUDGET = gauge("adit_flow_budget_used_bytes", &[], "Bytes by which windows have grown.");
    ACCEPTED = counter("adit_auth_accepted_total", &[], "Registrations that were accepted.");
}

/// The state of a server as samples.
#[allow(clippy::cast_precision_loss)] // counts and bytes
pub fn samples(status: &Status) -> Vec<Sample> {
    let flag = |set: bool| f64::from(u8::from(set));
    let process = &status.process;
    let healthy = status.clients.iter().filter(|client| is_healthy(client));
    let users: BTreeSet<_> = status.clients.iter().map(|client| &client.user).collect();
    let mut all: Vec<_> = [
        (&UPTIME, status.uptime_millis as f64 / 1e3),
        (&DRAINING, flag(status.phase != "running")),
        (&TASKS, process.tasks as f64),
        (&CONFIG_REVISION, status.config.revision as f64),
        (&CLIENTS, status.clients.len() as f64),
        (&HEALTHY, healthy.count() as f64),
        (&USERS, users.len() as f64),
        (&SESSIONS, process.sessions as f64),
        (&CHANNELS, process.channels as f64),
        (&UNAUTHENTICATED, process.unauthenticated as f64),
        (&DATAGRAMS_LOST, status.udp.dropped_on_links as f64),
        (&REVISION, status.cores.router_revision as f64),
        (&TCP_RECEIVED, status.tcp.received_bytes as f64),
        (&TCP_SENT, status.tcp.sent_bytes as f64),
        (&BANS, status.access.bans.len() as f64),
        (&PASSWORD_CHECKS, status.access.password_checks as f64),
        (&PUBLIC_PORTS, process.public_ports as f64),
        (&EGRESS_CONNECTIONS, process.upstream_connections as f64),
        (&PENDING, process.pending as f64),
        (&PERMITS, process.permits_in_use as f64),
        (&BUDGET, process.budget_used_bytes as f64),
        (&ACCEPTED, status.cores.auth_accepted as f64),
    ]
    .into_iter()
    .map(|(family, value)| family.sample(&[], value))
    .collect();
    for (result, count) in [
        ("applied", status.config.applied),
        ("rejected", status.config.rejected),
    ] {
        all.push(CONFIG_RELOADS.sample(&[result], count as f64));
    }
    let refusals = &status.refusals;
    for (cause, count) in [
        ("denied", refusals.denied),
        ("unregistered", refusals.unregistered),
        ("protocol_error", refusals.broken_streams),
        ("accept_failed", refusals.accept_failed),
    ] {
        all.push(TURNED_AWAY.sample(&[cause], count as f64));
    }
    for client in &status.clients {
        let labels = [&*client.client_id, &client.group_id, &client.user];
        let gauges = [
            (&EPOCH, client.epoch as f64),
            (&CLIENT_DRAINING, flag(client.draining)),
            (&LANES, client.lanes as f64),
            (&CONTROL, flag(client.control)),
            (&REQUESTS, client.requests as f64),
            (&WAITING, client.waiting_bytes as f64),
            (&PINNED, client.pinned_bytes as f64),
            (&QUEUED, client.queued_bytes as f64),
        ];
        all.extend(
            gauges
                .into_iter()
                .map(|(family, value)| family.sample(&labels, value)),
        );
    }
    for protocol in ["http", "grpc", "websocket", "tcp", "udp"] {
        let tunnels = status.tunnels.iter();
        let count = tunnels.filter(|tunnel| tunnel.kind == protocol).count();
        all.push(TUNNELS.sample(&[protocol], count as f64));
    }
    // A tunnel whose last client has drained is left out: that is not an incident.
    for tunnel in status.tunnels.iter().filter(|tunnel| !tunnel.has_been_left) {
        let labels = [&*tunnel.name, &tunnel.group_id, tunnel.kind];
        all.push(TUNNEL_CLIENTS.sample(&labels, tunnel.clients.len() as f64));
    }
    for upstream in &status.upstreams {
        all.push(UPSTREAM_REQUESTS.sample(&[&upstream.name], upstream.requests as f64));
        for server in &upstream.servers {
            let labels = [&*upstream.name, &server.address];
            all.push(UPSTREAM_OPEN.sample(&labels, server.requests_open as f64));
        }
    }
    for (counts, enforced) in [
        (&status.access.denied, "true"),
        (&status.access.would_deny, "false"),
    ] {
        all.extend(
            counts
                .iter()
                .map(|(layer, count)| DENIED.sample(&[layer, enforced], *count as f64)),
        );
    }
    all.extend(visitors(status));
    all.extend(limits(status));
    if let Some(https) = &status.https {
        all.push(HANDSHAKES.sample(&[], https.handshakes as f64));
        all.push(HANDSHAKES_FAILED.sample(&[], https.handshakes_failed as f64));
        for certificate in &https.certificates {
            let host = certificate.names.first().map_or("", String::as_str);
            all.push(CERTIFICATE_EXPIRES.sample(&[host], certificate.expires as f64));
        }
        all.extend(acme(https, SystemTime::now()));
    }
    all
}

/// Certificates over ACME, if the server obtains any.
#[allow(clippy::cast_precision_loss)] // counts and seconds
fn acme(https: &HttpsStatus, now: SystemTime) -> Vec<Sample> {
    let Some(orders) = &https.acme_orders else {
        return Vec::new();
    };
    let mut all: Vec<_> = [
        ("issued", orders.issued),
        ("staging_passed", orders.staging_passed),
        ("validation", orders.validation),
        ("refused", orders.refused),
        ("unreachable", orders.unreachable),
        ("rate_limited", orders.rate_limited),
        ("local", orders.local),
    ]
    .map(|(outcome, count)| ACME_ORDERS.sample(&[outcome], count as f64))
    .into();
    for state in ["pending", "valid", "expired", "unsupported"] {
        let count = { https.acme.iter() }.filter(|name| name.state == state);
        all.push(ACME_NAMES.sample(&[state], count.count() as f64));
    }
    all.push(ACME_NAMES.sample(&["left_out"], orders.names_left_out as f64));
    if let Some(first) = https.acme.iter().filter_map(|name| name.expires).min() {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        all.push(ACME_NEXT_EXPIRY.sample(&[], first as f64 - now.as_secs() as f64));
    }
    all
}

/// Limits of clients, tunnels and users, and their use.
#[allow(clippy::cast_precision_loss)] // counts and bytes
fn limits(status: &Status) -> Vec<Sample> {
    let traffic = &status.traffic;
    let mut all = vec![LIMIT_ACCOUNTS.sample(&[], traffic.known as f64)];
    for refusals in &traffic.refusals {
        let labels = [refusals.of, refusals.limit];
        all.push(LIMIT_REFUSALS.sample(&labels, refusals.count as f64));
    }
    for account in &traffic.accounts {
        let labels = [
            account.of,
            account.group.as_deref().unwrap_or_default(),
            &account.name,
        ];
        if let Some(bandwidth) = account.max_bandwidth {
            all.push(LIMIT_BANDWIDTH.sample(&labels, bandwidth as f64));
            all.push(LIMIT_WAITED.sample(&labels, account.waited_millis as f64 / 1e3));
        }
        all.push(LIMIT_RUNNING.sample(&labels, account.running_requests as f64));
        all.push(LIMIT_CONNECTIONS.sample(&labels, account.connections as f64));
        let [of, group, name] = labels;
        for quota in &account.quotas {
            let labels = [of, group, name, quota.quota];
            all.push(QUOTA_MOST.sample(&labels, quota.most as f64));
            all.push(QUOTA_USED.sample(&labels, quota.used as f64));
        }
    }
    all
}

/// Whether the client accepts requests.
fn is_healthy(client: &ClientStatus) -> bool {
    client.lanes > 0 && !client.draining
}

#[allow(clippy::cast_precision_loss)] // counts
fn visitors(status: &Status) -> Vec<Sample> {
    let (http, tcp, udp) = (&status.visitors, &status.tcp, &status.udp);
    let apart = http.grpc_open + http.websockets_open;
    let samples = [
        (&CONNECTIONS_OPEN, "http", http.connections_open as f64),
        (&CONNECTIONS_OPEN, "tcp", tcp.open as f64),
        (&CONNECTIONS_OPEN, "udp", udp.open as f64),
        (&CONNECTIONS, "http", http.connections as f64),
        (&CONNECTIONS, "tcp", tcp.total as f64),
        (&CONNECTIONS, "udp", udp.total as f64),
        (
            &REQUESTS_OPEN,
            "http",
            http.requests_open.saturating_sub(apart) as f64,
        ),
        (&REQUESTS_OPEN, "grpc", http.grpc_open as f64),
        (&REQUESTS_OPEN, "websocket", http.websockets_open as f64),
        // A connection of TCP and a flow are one request each.
        (&REQUESTS_OPEN, "tcp", tcp.open as f64),
        (&REQUESTS_OPEN, "udp", udp.open as f64),
        (&REFUSED, "http", http.connections_refused as f64),
        (&REFUSED, "tcp", tcp.refused as f64),
        (&FLOWS_ENDED, "evicted", udp.evicted as f64),
        (&FLOWS_ENDED, "silent", udp.silent as f64),
        (&DATAGRAMS, "in", udp.datagrams_in as f64),
        (&DATAGRAMS, "out", udp.datagrams_out as f64),
        (&DATAGRAMS_DROPPED, "in", udp.dropped_in as f64),
        (&DATAGRAMS_DROPPED, "out", udp.dropped_out as f64),
    ];
    samples
        .into_iter()
        .map(|(family, label, value)| family.sample(&[label], value))
        .collect()
}
