//! Events for a target under load: one side is restarted at a time that the scenario sets.

use std::fmt;
use std::time::Duration;

/// A restart of one side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Event {
    /// The time since the beginning of the window.
    pub(crate) at: Duration,
    pub(crate) side: Side,
    pub(crate) how: How,
    /// How long the side is stopped before it is started again.
    pub(crate) down: Duration,
}

/// The side that is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// A client, by its number from 0.
    Client(usize),
    Server,
}

/// How the side is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// At once: by `SIGKILL`, if the side is a process.
    Kill,
    /// With a drain, in which running requests may finish: by `SIGTERM`, if the side is a process.
    Drain,
}

impl How {
    /// The name in scenarios and for commands.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Drain => "drain",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = match self.how {
            How::Kill => "killed",
            How::Drain => "drained",
        };
        match self.side {
            Side::Server => write!(f, "server {ended}")?,
            Side::Client(number) => write!(f, "client {number} {ended}")?,
        }
        write!(f, ", started again {} s later", self.down.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_describes_what_happens() {
        let event = Event {
            at: Duration::from_secs(1),
            side: Side::Client(1),
            how: How::Drain,
            down: Duration::from_millis(500),
        };
        assert_eq!(
            event.to_string(),
            "client 1 drained, started again 0.5 s later"
        );
        let event = Event {
            side: Side::Server,
            how: How::Kill,
            ..event
        };
        assert_eq!(
            event.to_string(),
            "server killed, started again 0.5 s later"
        );
    }
}
