//! Applies a changed configuration to a running server.
//!
//! A configuration is applied as a whole or not at all: the steps that can be rejected come first, and are undone when
//! a later one is rejected. Running connections and requests keep the bounds and times that they began with.

use std::{
    path::Path,
    sync::Arc,
    time::{Instant, SystemTime},
};

use adit_auth::Authenticator;
use adit_flow::{Budget, Gate};
use adit_ingress::layers::Access;
use adit_registry::Registry;

use super::{
    error::StartError,
    part_configs::{directory_limits, registry_config, shares, upstream_limits},
    visitors::Visitors,
};
use crate::{
    clients_tls::ClientsTls,
    configuration::{Configuration, InForce},
    directory::Directory,
    forward_auth::providers,
    newcomers::Newcomers,
    ports::Ports,
    service::revoked,
    settings::Settings,
    shortcuts::Shortcuts,
    tokens::{Tokens, authenticator},
    upstreams::Upstreams,
};

/// The parts of a server that follow its configuration.
pub(super) struct Reconfigure {
    pub(super) in_force: Arc<InForce>,
    /// The configuration at the start, part of which stays in force.
    pub(super) started: Arc<Configuration>,
    pub(super) registry: Arc<Registry>,
    pub(super) directory: Arc<Directory>,
    pub(super) entries: Arc<Visitors>,
    pub(super) shortcuts: Arc<Shortcuts>,
    pub(super) upstreams: Arc<Upstreams>,
    /// TLS of the next connection of a client.
    pub(super) tls: Arc<ClientsTls>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) newcomers: Arc<Newcomers>,
    pub(super) permits: Arc<Gate>,
    pub(super) access: Arc<Access>,
    /// The budget of all windows.
    pub(super) budget: Budget,
    /// Descriptors that connections of visitors may have; connections to upstreams may have as many.
    pub(super) visitors_share: usize,
    pub(super) ports: Arc<Ports>,
}

impl Reconfigure {
    /// Applies a configuration, or logs why it is rejected.
    ///
    /// # Cost
    /// Proportional to the rules and upstreams that differ; called by the directory's thread.
    pub(super) fn apply(&self, next: &Arc<Configuration>) {
        let revision = next.revision;
        match self.try_apply(&next.settings) {
            Ok(ended) => {
                let needs_restart = needs_restart(&self.started.settings, &next.settings);
                tracing::info!(revision, links_ended = ended, "configuration applied");
                if !needs_restart.is_empty() {
                    tracing::warn!(
                        revision,
                        settings = needs_restart.join(", "),
                        "changed settings need a restart of the server"
                    );
                }
                self.in_force.applied(next.clone(), needs_restart);
            }
            Err(error) => {
                tracing::error!(
                    revision,
                    "the configuration is rejected and nothing has changed: {error}"
                );
                self.in_force.rejected(error.to_string());
            }
        }
    }

    /// Applies the settings. Returns the number of links of revoked tokens that were ended.
    fn try_apply(&self, settings: &Settings) -> Result<usize, StartError> {
        let tokens = authenticator(&settings.tokens).map_err(StartError::Tokens)?;
        let tls = self.tls.prepare(&settings.tls)?;
        let providers = providers(&settings.forward_auth)?;
        let upstreams = self.upstreams.prepare(&settings.upstreams)?;
        let previous = self.upstreams.replace(upstreams.clone());
        let targets = (&self.shortcuts, &*upstreams);
        if let Err(error) = self
            .directory
            .set_rules(&settings.rules, targets, Instant::now())
        {
            self.upstreams.replace(previous);
            return Err(error.into());
        }
        // After this point nothing is rejected.
        self.access.set_providers(providers);
        let (limits, timeouts) = (&settings.limits, &settings.timeouts);
        self.permits
            .reconfigure(limits.max_requests, limits.max_waiting, shares(limits));
        self.newcomers.set_bounds(
            limits.max_unauthenticated,
            limits.max_unauthenticated_per_address,
        );
        self.ports.set_allowed(limits.allow_ports.clone());
        self.directory
            .set_config(|config| directory_limits(config, settings));
        self.entries.follow(settings);
        self.upstreams
            .follow(&upstream_limits(limits, self.visitors_share), timeouts);
        self.budget.set_capacity(limits.process_budget_bytes);
        let first_epoch = 0; // the registry continues from its own
        self.registry
            .set_config(registry_config(settings, first_epoch));
        self.tls.apply(tls);
        self.tokens.replace(tokens);
        Ok(self.end_revoked())
    }

    /// Replaces the certificate for clients if it is time.
    pub(super) fn renew(&self) {
        self.tls.renew(SystemTime::now());
    }

    /// Ends the links whose credentials have become invalid.
    fn end_revoked(&self) -> usize {
        let links = self.registry.links().into_iter();
        let revoked_links = links.filter(|link| !self.tokens.is_valid(link.grant()));
        let mut ended = 0;
        for link in revoked_links {
            self.registry.end(&link, &revoked());
            ended += 1;
        }
        ended
    }
}

/// The keys of the settings that differ and take effect only at the next start.
fn needs_restart(started: &Settings, next: &Settings) -> Vec<&'static str> {
    let (was, is) = (&started.limits, &next.limits);
    let ip = started.tunnel_addr.ip() != next.tunnel_addr.ip();
    let differs = [
        ("server.bind_addr", ip),
        (
            "server.bind_port",
            started.tunnel_addr.port() != next.tunnel_addr.port(),
        ),
        (
            "server.http.bind_port",
            started.http_addr.port() != next.http_addr.port(),
        ),
        ("server.admin.bind", started.admin_addr != next.admin_addr),
        ("server.threads", started.threads != next.threads),
        ("server.domain", started.domain != next.domain),
        (
            "server.state_dir",
            // The directory is empty at the start if another server uses it.
            started.state_dir != next.state_dir && started.state_dir != Path::new(""),
        ),
        (
            "server.limits.max_password_checks",
            was.max_password_checks != is.max_password_checks,
        ),
        (
            "server.limits.max_waiting_password_checks",
            was.max_waiting_password_checks != is.max_waiting_password_checks,
        ),
        (
            "server.limits.max_rate_addresses",
            was.max_rate_addresses != is.max_rate_addresses,
        ),
        ("server.limits.max_bans", was.max_bans != is.max_bans),
        ("server.public_url", started.public_url != next.public_url),
    ];
    let differs = differs.into_iter().filter(|(_, differs)| *differs);
    differs.map(|(key, _)| key).collect()
}
