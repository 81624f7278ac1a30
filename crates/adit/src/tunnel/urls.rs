//! The output of a client: public URLs on standard output, and their targets on standard error.

use adit_client::{Registration, Settings, Status, TunnelOutcome, TunnelSettings};
use serde_json::json;

use crate::{errln, outln};

/// Prints the URLs of tunnels whenever an outcome changes.
pub(super) struct Urls {
    services: Vec<Service>,
    printed: Option<Vec<TunnelOutcome>>,
    json: bool,
}

/// The service of a tunnel, which is printed beside its URL.
struct Service {
    tunnel: String,
    addr: String,
    /// Names below which every host belongs to the tunnel.
    wildcards: Vec<String>,
}

impl Service {
    fn of(tunnel: &TunnelSettings) -> Self {
        let below = |domain: &String| domain.strip_prefix("*.").map(str::to_owned);
        Self {
            tunnel: tunnel.name.clone(),
            addr: format!("{}:{}", tunnel.service.host, tunnel.service.port),
            wildcards: tunnel.domains.iter().filter_map(below).collect(),
        }
    }
}

impl Urls {
    pub(super) fn new(settings: &Settings, json: bool) -> Self {
        let mut urls = Self {
            services: Vec::new(),
            printed: None,
            json,
        };
        urls.follow(&settings.tunnels);
        urls
    }

    /// Replaces the tunnels after a change of the settings.
    pub(super) fn follow(&mut self, tunnels: &[TunnelSettings]) {
        self.services = tunnels.iter().map(Service::of).collect();
    }

    /// Whether URLs will be printed.
    pub(super) fn are_expected(&self) -> bool {
        !self.services.is_empty()
    }

    /// Prints each public URL alone on a line, so that the first line of the output is a URL.
    pub(super) fn print(&mut self, registration: &Registration) {
        if self.printed.as_ref() == Some(&registration.tunnels) {
            return;
        }
        let before = self.printed.replace(registration.tunnels.clone());
        if self.json {
            let value = json!({ "epoch": registration.epoch, "tunnels": registration.tunnels });
            outln!("{value}");
            return;
        }
        let before = before.unwrap_or_default();
        let changed = registration.tunnels.iter();
        for tunnel in changed.filter(|tunnel| !before.contains(tunnel)) {
            self.print_outcome(tunnel);
        }
    }

    fn print_outcome(&self, tunnel: &TunnelOutcome) {
        let name = &tunnel.name;
        match &tunnel.error {
            Some(error) if tunnel.waiting => {
                errln!("{name} waits: {error}; the tunnel is announced again until it is accepted");
                return;
            }
            Some(error) => {
                errln!("{name} was refused: {error}");
                return;
            }
            None => outln!("{}", tunnel.public_url),
        }
        let mut services = self.services.iter();
        if let Some(service) = services.find(|service| service.tunnel == *name) {
            errln!("{name} forwards to {}", service.addr);
            for below in &service.wildcards {
                errln!("{name} also gets every host below {below}");
            }
        }
        if let Some(note) = &tunnel.note {
            errln!("{name}: {note}");
        }
    }
}

/// Prints the addresses of entries; `alone`, without tunnels, they begin the output.
pub(super) fn print_entries(status: &Status, alone: bool, json: bool) {
    if json && !status.entries.is_empty() {
        outln!("{}", json!({ "entries": status.entries }));
        return;
    }
    for entry in &status.entries {
        let url = format!("{}://{}", entry.kind, entry.listen);
        if alone {
            outln!("{url}");
        }
        let (name, upstream) = (&entry.name, &entry.upstream);
        errln!("{name}: {url} forwards to upstream {upstream} of the server");
    }
}
