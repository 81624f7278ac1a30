//! Applies a changed configuration to a running server.
//!
//! A configuration is applied as a whole or not at all: the steps that can be rejected come first, and are undone when
//! a later one is rejected. Running connections and requests keep the bounds and times that they began with,
//! except the limits of clients, tunnels and users (P-16.8).

use std::{
    path::Path,
    sync::Arc,
    time::{Instant, SystemTime},
};

use adit_flow::{Budget, Gate};
use adit_ingress::layers::Access;
use adit_link::control::ControlMessage;
use adit_proto::{Roots, control::Kind};
use adit_registry::Registry;

use super::{
    error::StartError,
    https::Https,
    part_configs::{directory_limits, registry_config, shares, upstream_limits},
    visitors::Visitors,
};
use crate::{
    authorization::Authorization,
    clients_tls::ClientsTls,
    configuration::{Configuration, InForce},
    directory::Directory,
    forward_auth::providers,
    guesses::Guesses,
    identities::Identities,
    newcomers::Newcomers,
    ports::Ports,
    settings::Settings,
    shortcuts::Shortcuts,
    traffic::Traffic,
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
    pub(super) identities: Arc<Identities>,
    pub(super) authorization: Arc<Authorization>,
    pub(super) guesses: Arc<Guesses>,
    /// The certificates and bounds of the next handshakes of visitors.
    pub(super) https: Option<Arc<Https>>,
    pub(super) newcomers: Arc<Newcomers>,
    pub(super) permits: Arc<Gate>,
    pub(super) access: Arc<Access>,
    pub(super) traffic: Arc<Traffic>,
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

    /// Applies the settings. Returns the number of links that were ended, because their credentials are gone.
    fn try_apply(&self, settings: &Settings) -> Result<usize, StartError> {
        let identities = self.identities.prepare(settings);
        let identities = identities.map_err(StartError::Identities)?;
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
        self.traffic.follow(&limits.traffic);
        self.newcomers.set_bounds(
            limits.max_unauthenticated,
            limits.max_unauthenticated_per_address,
        );
        self.guesses.set_rate(limits.max_denials_per_minute);
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
        if let (Some(https), Some(settings)) = (&self.https, &settings.https) {
            https.follow(settings, limits);
        }
        self.identities.replace(identities);
        Ok(self.authorization.end_lapsed(SystemTime::now()))
    }

    /// Replaces the certificate for clients, and the CA, if it is time, and sends the clients whose certificates are of the
    /// CA what they trust from now on (P-1.20).
    pub(super) fn renew(&self) {
        let Some(certificates) = self.tls.renew(SystemTime::now()) else {
            return;
        };
        for link in self.registry.links() {
            if link.grant().has_certificate() && link.supports("certificates") {
                let roots = Roots {
                    certificates: certificates.clone(),
                };
                link.send_control(ControlMessage::new(0, Kind::Roots(roots)));
            }
        }
    }

    /// Follows the credentials in the store, and ends the links whose credentials are not accepted any more.
    pub(super) fn follow_identities(&self) {
        self.identities.look();
        self.authorization.end_lapsed(SystemTime::now());
    }

    /// Keeps the times at which credentials were last used.
    pub(super) fn keep_uses(&self) {
        self.identities.keep_uses();
    }
}

fn https_port(settings: &Settings) -> Option<u16> {
    { settings.https.as_ref() }.map(|https| https.addr.port())
}

fn acme(settings: &Settings) -> Option<&adit_acme::Settings> {
    settings.https.as_ref()?.acme.as_deref()
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
        (
            "server.https.bind_port",
            https_port(started) != https_port(next),
        ),
        ("server.https.acme", acme(started) != acme(next)),
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
