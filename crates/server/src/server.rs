//! A running server.

mod accept;
mod drain;
mod error;
mod handle;
mod https;
mod inner;
mod part_configs;
mod reconfigure;
mod report;
mod start;
mod visitors;

use std::{net::SocketAddr, sync::Arc, thread::JoinHandle, time::Duration};

use adit_ingress::layers::HttpChallenges;
use adit_tls::Certificates;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use self::inner::Inner;
pub use self::{error::StartError, handle::ServerHandle};
use crate::{clients_tls::OwnCaStatus, threads::Threads};

/// A running server.
pub struct Server {
    inner: Arc<Inner>,
    threads: Threads,
    worker: JoinHandle<()>,
    drain: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    visitors: TaskTracker,
    clients: TaskTracker,
}

impl Server {
    /// Address for clients.
    pub fn tunnel_addr(&self) -> SocketAddr {
        self.inner.tunnel_addr
    }

    /// The server's own CA, if clients connect over TLS with it.
    pub fn own_ca(&self) -> Option<OwnCaStatus> {
        self.inner.tls.own_ca()
    }

    /// Address for visitors.
    pub fn http_addr(&self) -> SocketAddr {
        self.inner.http_addr
    }

    /// Address for HTTPS visitors, if there is one.
    pub fn https_addr(&self) -> Option<SocketAddr> {
        self.inner.https.as_ref().map(|https| https.addr())
    }

    /// The certificates for HTTPS visitors, if there is a port for them: others than those of the configuration can be added
    /// and replaced at any time.
    pub fn certificates(&self) -> Option<Certificates> {
        let https = self.inner.https.as_ref();
        https.map(|https| https.certificates().clone())
    }

    /// The challenges of certificate authorities that the port for HTTP answers, if there is a port for HTTPS.
    pub fn http_challenges(&self) -> Option<HttpChallenges> {
        self.inner.entries.challenges().cloned()
    }

    /// The upper bound of the time that [`Server::drain`] takes.
    pub fn drain_within(&self) -> Duration {
        self.inner.in_force.load().settings.timeouts.drain
    }

    /// A handle for status and routes.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle {
            inner: self.inner.clone(),
        }
    }
}
