//! The signals that a process of adit knows: end, end now, reload.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::report::Failed;

/// Waits for signals.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM or SIGINT: finish and end; the second time, end.
    End,
    /// SIGHUP: read the configuration again.
    Reload,
}

impl Signals {
    /// Takes the signals over. Needs a runtime.
    ///
    /// # Errors
    /// When the process may not.
    pub fn new() -> Result<Self, Failed> {
        let take = |kind| signal(kind).map_err(|error| Failed::other(format!("signals: {error}")));
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hangup: take(SignalKind::hangup())?,
        })
    }

    /// The next one.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// The next one that asks for an end.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn end(&mut self) {
        while self.next().await != Asked::End {}
    }
}
