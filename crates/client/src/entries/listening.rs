//! A listening socket, and the loop that accepts on it.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::{Arc, Mutex},
};

use adit_link::LogLimit;
use adit_net::{
    AcceptLoop, AcceptReport, Accepted, Descriptors, Listener, descriptors_for_visitors,
};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::visitors::Visitors;
use crate::sync::{lock, signalled};

/// A bound address. It stays bound while successive entries of a changing configuration use it.
pub(super) struct Listening {
    /// The address in the settings, whose port may be 0 for any free one.
    pub(super) configured: SocketAddr,
    /// The address that is bound.
    pub(super) addr: SocketAddr,
    /// Identifies the listener where descriptors are shared.
    number: u32,
    /// The socket, until the accept loop takes it.
    socket: Mutex<Option<StdListener>>,
    /// The service for the next visitors.
    service: Mutex<Service>,
    stop: watch::Sender<bool>,
}

/// Serves the visitors that are accepted after it was set; `drain` becomes true when another service replaces it.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) visitors: Visitors,
    pub(super) drain: watch::Receiver<bool>,
}

impl Listening {
    pub(super) fn new(
        socket: StdListener,
        configured: SocketAddr,
        number: u32,
        service: Service,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            configured,
            addr: socket.local_addr()?,
            number,
            socket: Mutex::new(Some(socket)),
            service: Mutex::new(service),
            stop: watch::Sender::new(false),
        }))
    }

    /// Lets `service` serve the visitors that are accepted after this call.
    pub(super) fn hand_to(&self, service: Service) {
        *lock(&self.service) = service;
    }

    /// Ends the loop and closes the socket. Accepted visitors are served to their end.
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
        lock(&self.socket).take();
    }

    /// Accepts until [`Listening::stop`].
    pub(super) async fn accept(self: Arc<Self>, tracker: TaskTracker, limits: AcceptLimits) {
        let Some(socket) = lock(&self.socket).take() else {
            return;
        };
        let listener = match Listener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(addr = %self.addr, %error, "cannot accept visitors");
                return;
            }
        };
        let accepting =
            AcceptLoop::new(listener, limits.report).bounded(limits.descriptors, self.number);
        let serve = |accepted: Accepted| {
            let Service { visitors, drain } = lock(&self.service).clone();
            tracker.spawn(async move {
                visitors.serve(accepted.stream, accepted.peer, drain).await;
                drop(accepted.descriptor);
            });
        };
        let stopped = signalled(self.stop.subscribe());
        accepting.run(stopped, serve).await;
    }
}

/// File descriptors of all entries together, and the log of their shortage.
#[derive(Clone)]
pub(super) struct AcceptLimits {
    descriptors: Arc<Descriptors>,
    report: EntryReport,
}

impl AcceptLimits {
    pub(super) fn new() -> Self {
        Self {
            // The other half is for services.
            descriptors: Descriptors::new(descriptors_for_visitors() / 2),
            report: EntryReport::new(),
        }
    }
}

/// Logs failures of the accept loops of all entries.
#[derive(Clone)]
struct EntryReport {
    full: Arc<LogLimit<usize>>,
    failed: Arc<LogLimit<String>>,
}

impl EntryReport {
    fn new() -> Self {
        Self {
            full: LogLimit::new(|limit, _| {
                tracing::warn!(
                    limit,
                    "visitors of entries wait: the process has no free file descriptors; raise `ulimit -n`"
                );
            }),
            failed: LogLimit::new(|error, count| tracing::warn!(count, "accept failed: {error}")),
        }
    }
}

impl AcceptReport for EntryReport {
    fn on_full(&self, limit: usize) {
        self.full.note(limit);
    }

    fn on_failed(&self, error: &io::Error) {
        self.failed.note(error.to_string());
    }
}
