//! Bounds and times of the parts of a server, from its settings.

use adit_flow::Shares;
use adit_ingress::layers::{AccessBounds, PasswordBounds};

use crate::{
    directory::DirectoryConfig,
    settings::{Limits, Settings},
};

/// How permits are shared when they are short.
pub(super) const fn shares(limits: &Limits) -> Shares {
    Shares {
        tunnel_percent: limits.tunnel_share_percent,
        visitor_percent: limits.visitor_share_percent,
    }
}

/// The bounds of the state of access layers, which stay as they are until the next start.
pub(super) const fn access_bounds(settings: &Settings) -> AccessBounds {
    let limits = &settings.limits;
    AccessBounds {
        passwords: PasswordBounds {
            running: limits.max_password_checks,
            waiting: limits.max_waiting_password_checks,
            wait: settings.timeouts.permit_wait,
        },
        waits: waits(limits),
        addresses: limits.max_rate_addresses,
        bans: limits.max_bans,
    }
}

/// Requests that wait at access layers while they hold permits: most permits of the server, and of a client, are left for
/// others.
const fn waits(limits: &Limits) -> usize {
    let (all, of_client) = (limits.max_requests / 4, limits.max_requests_per_client / 2);
    if all < of_client { all } else { of_client }
}

/// The bounds of upstreams: their connections have as many descriptors as those of visitors.
pub(super) fn upstream_limits(limits: &Limits, visitors_share: usize) -> Limits {
    Limits {
        max_requests: limits.max_requests.min(visitors_share),
        ..limits.clone()
    }
}

/// The part of the directory's configuration that can change while the server runs.
pub(super) fn directory_limits(config: &mut DirectoryConfig, settings: &Settings) {
    config.limits.clone_from(&settings.limits);
    config.shared_groups.clone_from(&settings.shared_groups);
    config.retention = settings.timeouts.tunnel_retention;
    // All clients may lose their links at the same moment, and reconnect.
    config.max_orphans = settings
        .max_clients
        .saturating_mul(settings.limits.max_tunnels_per_client);
}

/// Bounds and times of the registry, which uses `first_epoch` once.
pub(super) fn registry_config(settings: &Settings, first_epoch: u64) -> adit_registry::Config {
    let (limits, timeouts) = (&settings.limits, &settings.timeouts);
    adit_registry::Config {
        max_clients: settings.max_clients,
        max_clients_per_user: settings.clients_per_user(),
        max_requests_per_client: limits.max_requests_per_client,
        max_waiting: limits.max_waiting,
        shares: shares(limits),
        takeover_probe: timeouts.takeover_probe,
        setup: timeouts.setup,
        first_epoch,
    }
}
