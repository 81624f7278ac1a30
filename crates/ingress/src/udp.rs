//! UDP visitors: one flow for each address that sends to a public port (section 11 of the protocol).
//!
//! One task reads the port and hands each datagram to its visitor's flow, never waiting for anything. Each flow has a
//! task of its own that finds out where it goes, opens the exchange, and sends the service's answers back. Nothing here
//! ever waits for a socket: what it does not take is dropped and counted (P-11.3).
//!
//! Bounded, whoever sends: flows by [`UdpConfig::max_flows`], of which the one that has been silent longest makes room
//! (P-11.2); datagrams that wait for a destination by their bytes, of each flow and of all; what waits to leave by the
//! lane.
//!
//! Datagrams are read and sent one by one. Batches in one call of the system would need `unsafe` or a crate that has
//! it: quinn-udp does, and forbids fragmentation on every socket that it is given, so that what is larger than the path
//! takes would be lost and P-11.1 with it.

mod flow;
mod flows;
mod port;
mod stats;
mod waiting;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::net::UdpSocket;

pub use self::stats::{UdpDropped, UdpStats};
use self::{port::Port, stats::Counters, waiting::Room};
use crate::{admission::Admission, config::UdpConfig};

/// Serves public UDP ports.
pub struct Udp {
    config: UdpConfig,
    admission: Arc<Admission>,
    /// For what waits for a destination, on all ports.
    room: Arc<Room>,
    counters: Counters,
}

impl Udp {
    /// Flows pass `admission`, each when it begins.
    pub fn new(config: UdpConfig, admission: Arc<Admission>) -> Arc<Self> {
        let room = Room::new(config.max_waiting_bytes_per_flow, config.max_waiting_bytes);
        Arc::new(Self {
            config,
            admission,
            room: Arc::new(room),
            counters: Counters::default(),
        })
    }

    /// Serves one public port to its end. A flow ends after `session_timeout` without a datagram in either direction
    /// (P-11.4). Once `drain` is ready no new flow begins, and this returns when those that run are over.
    ///
    /// # Cancel safety
    /// Dropping it cancels all flows.
    pub async fn serve(
        self: Arc<Self>,
        socket: UdpSocket,
        session_timeout: Duration,
        drain: impl Future<Output = ()>,
    ) {
        match Port::new(self, socket, session_timeout) {
            Ok(port) => port.serve(drain).await,
            Err(error) => tracing::error!(%error, "a UDP port could not be served"),
        }
    }

    /// Counters and gauges, over all ports.
    pub fn stats(&self) -> UdpStats {
        let mut stats = self.counters.stats();
        stats.dropped.undirected = self.room.lost();
        stats
    }
}

impl fmt::Debug for Udp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Udp")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
