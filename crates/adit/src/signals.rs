//! The signals of a process: end, end now, reload, reopen the logs.

use adit_telemetry::LogReopener;
use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::report::Failed;

/// Waits for signals. Every signal that ends a process by default, and that a person or a supervisor may send, is
/// either received here or ignored, so that none ends a process without a drain.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    /// The signal that the system sends when a file has reached its size limit. The write then fails as on a full disk,
    /// which is handled there.
    _file_size: Signal,
    logs: Vec<LogReopener>,
}

/// An event that a signal requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalEvent {
    /// SIGTERM or SIGINT: drain and end; the second one ends at once.
    Shutdown,
    /// SIGHUP: read the configuration again.
    Reload,
}

impl Signals {
    /// Registers for the signals. Needs a runtime.
    ///
    /// # Errors
    /// The system does not allow it.
    pub fn new() -> Result<Self, Failed> {
        let take = |kind| signal(kind).map_err(|error| Failed::other(format!("signals: {error}")));
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hangup: take(SignalKind::hangup())?,
            user1: take(SignalKind::user_defined1())?,
            user2: take(SignalKind::user_defined2())?,
            _file_size: take(SignalKind::from_raw(Number::XFSZ.as_raw()))?,
            logs: Vec::new(),
        })
    }

    /// Sets the logs whose files SIGUSR1 opens again.
    pub fn reopen_logs(&mut self, logs: Vec<LogReopener>) {
        self.logs = logs;
    }

    /// The next event for the caller.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn next(&mut self) -> SignalEvent {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return SignalEvent::Shutdown,
                _ = self.interrupt.recv() => return SignalEvent::Shutdown,
                _ = self.hangup.recv() => return SignalEvent::Reload,
                _ = self.user1.recv() => {
                    self.logs.iter().for_each(LogReopener::reopen);
                    tracing::info!(files = self.logs.len(), "SIGUSR1: the log files are opened again");
                }
                _ = self.user2.recv() => tracing::info!("SIGUSR2 is ignored"),
            }
        }
    }

    /// Completes at the next signal that ends the process.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn end(&mut self) {
        while self.next().await != SignalEvent::Shutdown {}
    }
}
