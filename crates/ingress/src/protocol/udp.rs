//! UDP: one flow for each address that sends to a public port (section 11 of the protocol).
//!
//! One task reads the port and passes each datagram to its visitor's flow; it never waits for a flow. Each flow has a task
//! that routes it, opens the exchange, and sends the service's datagrams back. No task waits for a socket: a datagram that
//! the socket does not accept is dropped and counted (P-11.3).
//!
//! Bounds: flows by [`UdpConfig::max_flows`], where the one that has been silent longest is evicted (P-11.2); datagrams that
//! wait for a destination by their bytes, for each flow and for all; datagrams that wait for the lane by the lane.
//!
//! Datagrams are read and sent one by one. Batches in one system call would need `unsafe` or a crate with it: quinn-udp
//! has it, but forbids fragmentation on every socket, so that datagrams above the path's MTU would be lost, which
//! violates P-11.1.

mod context;
mod flow;
mod flows;
mod port;
mod stats;
mod waiting;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use adit_link::BoxFuture;
use tokio::net::UdpSocket;

pub use self::stats::{UdpDropped, UdpStats};
use self::{context::UdpContext, port::Port};
use crate::{config::UdpConfig, forward::admission::Admission};

/// The entry for UDP visitors.
pub struct Udp {
    context: Arc<UdpContext>,
}

impl Udp {
    /// An entry whose flows pass `admission`, each when it begins.
    pub fn new(config: UdpConfig, admission: Arc<Admission>) -> Arc<Self> {
        let context = Arc::new(UdpContext::new(config, admission));
        Arc::new(Self { context })
    }

    /// Uses these bounds and times for new flows and for the ends of flows. The bounds of waiting datagrams do not
    /// change.
    pub fn set_config(&self, config: UdpConfig) {
        self.context.config.store(Arc::new(config));
    }

    /// Serves one public port to its end. A flow ends after `session_timeout` without a datagram in either direction
    /// (P-11.4). Once `drain` is ready no new flow begins, and this returns when the open flows are over.
    ///
    /// # Cancel safety
    /// Dropping it cancels all flows.
    pub fn serve(
        self: Arc<Self>,
        socket: UdpSocket,
        session_timeout: Duration,
        drain: impl Future<Output = ()> + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        self.serve_socket(socket, session_timeout, Box::pin(drain))
    }

    fn serve_socket(
        self: Arc<Self>,
        socket: UdpSocket,
        session_timeout: Duration,
        drain: BoxFuture<'static, ()>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            match Port::new(self.context.clone(), socket, session_timeout) {
                Ok(port) => port.serve(drain).await,
                Err(error) => tracing::error!(%error, "cannot serve the UDP port"),
            }
        })
    }

    /// Counters and gauges, over all ports.
    pub fn stats(&self) -> UdpStats {
        let mut stats = self.context.counters.stats();
        stats.dropped.undirected = self.context.room.lost();
        stats
    }
}

impl fmt::Debug for Udp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Udp")
            .field("config", &self.context.config.load())
            .finish_non_exhaustive()
    }
}
