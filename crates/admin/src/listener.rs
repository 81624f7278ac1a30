//! Accepts connections for axum with the accept loop of all listeners.

use std::{
    io,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use adit_net::{AcceptLoop, AcceptReport, Listener, Stream};

/// The interval in which one failure of `accept` is logged.
const LOG_EACH: Duration = Duration::from_secs(1);

/// An accept loop that axum can serve.
#[derive(Debug)]
pub(crate) struct Accepting(AcceptLoop<AcceptLog>);

impl Accepting {
    /// A loop that accepts on `listener`; `what` names the listener in logs.
    pub(crate) const fn new(listener: Listener, what: &'static str) -> Self {
        let log = AcceptLog {
            what,
            last: Mutex::new(None),
        };
        Self(AcceptLoop::new(listener, log))
    }

    /// The next connection.
    ///
    /// # Cancel safety
    /// Yes.
    pub(crate) async fn next(&self) -> (Stream, SocketAddr) {
        let accepted = self.0.next().await;
        (accepted.stream, accepted.peer)
    }
}

impl axum::serve::Listener for Accepting {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.listener().local_addr()
    }
}

/// Logs failures of `accept`.
#[derive(Debug)]
struct AcceptLog {
    what: &'static str,
    last: Mutex<Option<Instant>>,
}

impl AcceptReport for AcceptLog {
    /// Never called: the listener may use all descriptors.
    fn on_full(&self, _: usize) {}

    fn on_failed(&self, error: &io::Error) {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now.duration_since(last) >= LOG_EACH) {
            *last = Some(now);
            tracing::warn!(%error, "accept failed on {}", self.what);
        }
    }
}
