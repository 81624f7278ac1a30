//! State that the ports and the flows of the UDP entry share.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{net::UdpSocket, time::Instant};

use super::{stats::Counters, waiting::Room};
use crate::{config::UdpConfig, forward::admission::Admission};

/// State that all ports share.
pub(super) struct UdpContext {
    pub(super) config: ArcSwap<UdpConfig>,
    pub(super) admission: Arc<Admission>,
    /// The memory for datagrams that wait for a destination.
    pub(super) room: Arc<Room>,
    pub(super) counters: Counters,
}

impl UdpContext {
    pub(super) fn new(config: UdpConfig, admission: Arc<Admission>) -> Self {
        let room = Room::new(config.max_waiting_bytes_per_flow, config.max_waiting_bytes);
        Self {
            config: ArcSwap::from_pointee(config),
            admission,
            room: Arc::new(room),
            counters: Counters::default(),
        }
    }
}

/// State that the flows of one port share.
pub(super) struct PortContext {
    pub(super) udp: Arc<UdpContext>,
    pub(super) socket: UdpSocket,
    pub(super) local: SocketAddr,
    pub(super) local_text: String,
    pub(super) opened: Instant,
}

impl PortContext {
    /// Time since the port was opened, by the runtime's clock.
    pub(super) fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.udp.counters
    }

    pub(super) fn admission(&self) -> &Admission {
        &self.udp.admission
    }
}
