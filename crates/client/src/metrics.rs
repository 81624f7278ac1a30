//! The state of a client as samples for Prometheus. `docs/metrics.md` lists the names.

use adit_trace::{Sample, families};

use crate::status::Status;

families! {
    UP = gauge("adit_client_link_up", &[], "1 while the link to the server is up, else 0.");
    EPOCH = gauge("adit_client_epoch", &[], "Epoch of the session, 0 without one.");
    LANES = gauge("adit_client_lanes", &[], "Data streams to the server that are open.");
    REOPENED = counter("adit_client_streams_reopened_total", &[], "Data and control streams that were lost and opened again under their session.");
    CONFIG_REVISION = gauge("adit_config_revision", &[], "Revision of the configuration in force.");
    CONFIG_RELOADS = counter("adit_config_reloads_total", &["result"], "Changes of the configuration since the start, by result: applied or rejected.");
    TASKS = gauge("adit_client_tasks", &[], "Tasks alive on the data thread.");
    TUNNELS = gauge("adit_client_tunnels", &["state"], "Tunnels that the server has accepted and refused.");
    REQUESTS = gauge("adit_client_requests", &[], "Requests open on the link.");
    WAITING = gauge("adit_client_waiting_bytes", &[], "Bytes from the server that wait for services.");
    PINNED = gauge("adit_client_pinned_bytes", &[], "Memory of received frames that is still referenced.");
    QUEUED = gauge("adit_client_queued_bytes", &[], "Bytes that wait to be sent to the server.");
    PENDING = gauge("adit_client_pending_requests", &[], "Entries in all request tables.");
    SERVICES = gauge("adit_client_service_connections", &[], "Connections to services that are open.");
    ENTRY_CONNECTIONS = gauge("adit_client_entry_connections", &["entry", "protocol"], "Connections of an entry's visitors that are open.");
    ENTRY_REQUESTS_OPEN = gauge("adit_client_entry_requests", &["entry", "protocol"], "Requests of an entry's visitors that are open.");
    ENTRY_REQUESTS = counter("adit_client_entry_requests_total", &["entry", "protocol"], "Requests of an entry's visitors.");
    DIALS = counter("adit_reconnect_dials_total", &[], "Attempts to connect to the server.");
}

/// The state of a client as samples.
#[allow(clippy::cast_precision_loss)] // counts and bytes
pub fn samples(status: &Status) -> Vec<Sample> {
    let refused = status
        .tunnels
        .iter()
        .filter(|tunnel| tunnel.outcome.error.is_some());
    let refused = refused.count();
    let accepted = status.tunnels.len() - refused;
    let up = status.connection == "connected";
    let mut all = vec![
        UP.sample(&[], f64::from(u8::from(up))),
        EPOCH.sample(&[], status.epoch as f64),
        LANES.sample(&[], status.lanes as f64),
        REOPENED.sample(&[], status.streams_reopened as f64),
        CONFIG_REVISION.sample(&[], status.config.revision as f64),
        CONFIG_RELOADS.sample(&["applied"], status.config.applied as f64),
        CONFIG_RELOADS.sample(&["rejected"], status.config.rejected as f64),
        TASKS.sample(&[], status.tasks as f64),
        TUNNELS.sample(&["accepted"], accepted as f64),
        TUNNELS.sample(&["refused"], refused as f64),
        REQUESTS.sample(&[], status.requests as f64),
        WAITING.sample(&[], status.waiting_bytes as f64),
        PINNED.sample(&[], status.pinned_bytes as f64),
        QUEUED.sample(&[], status.queued_bytes as f64),
        PENDING.sample(&[], status.pending as f64),
        SERVICES.sample(&[], status.service_connections as f64),
        DIALS.sample(&[], status.cores.reconnect_dials as f64),
    ];
    for entry in &status.entries {
        let labels = [&*entry.name, entry.kind];
        let counts = [
            (&ENTRY_CONNECTIONS, entry.connections_open as f64),
            (&ENTRY_REQUESTS_OPEN, entry.requests_open as f64),
            (&ENTRY_REQUESTS, entry.requests as f64),
        ];
        let counts = counts.into_iter();
        all.extend(counts.map(|(family, value)| family.sample(&labels, value)));
    }
    all
}
