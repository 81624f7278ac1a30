//! The handle on a running client.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;

use super::state::State;
use crate::{settings::ServiceProtocol, status::Status};

/// Cheaply cloneable handle for status; does not keep the client running.
#[derive(Clone)]
pub struct ClientHandle {
    pub(super) state: Arc<State>,
    pub(super) runtime: Handle,
}

impl ClientHandle {
    /// The number of running requests by tunnel, without zeros; connections of the entries' visitors under `entries`.
    pub fn running(&self) -> Vec<(String, usize)> {
        let running = self.state.egress.running().into_iter();
        let mut running: Vec<_> = running
            .map(|(name, running)| (name.into_string(), running))
            .collect();
        running.push(("entries".to_owned(), self.state.entries.visitors()));
        running.retain(|(name, running)| *running > 0 && !self.is_udp(name));
        running
    }

    fn is_udp(&self, name: &str) -> bool {
        let settings = self.state.settings();
        let mut tunnels = settings.tunnels.iter();
        tunnels.any(|tunnel| tunnel.name == name && tunnel.service.protocol == ServiceProtocol::Udp)
    }

    /// The longest time that [`Client::drain`](crate::Client::drain) takes.
    pub fn drain_within(&self) -> Duration {
        self.state.settings().timeouts.drain
    }

    /// The state of the client. Cost: proportional to its lanes and tunnels.
    pub fn status(&self) -> Status {
        self.state.status(self.runtime.metrics().num_alive_tasks())
    }
}
