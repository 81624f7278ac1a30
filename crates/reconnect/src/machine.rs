//! The machine: one event in, one action out.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{
    Config, Status, StopReason,
    backoff::{Backoff, full_jitter},
};

/// An event of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Connect.
    Start,
    /// The dial resulted in a registered link with this epoch.
    Established {
        /// The epoch issued by the server.
        epoch: u64,
    },
    /// The dial failed.
    DialFailed(Failure),
    /// The established link was lost.
    Lost,
    /// The time of the last [`Action::Wait`] has been reached. An early event is allowed and returns the same wait
    /// again.
    TimerDue,
    /// Disconnect for good.
    Stop,
}

/// Why a dial failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Unreachable, timed out or overloaded: another try may succeed.
    Transient,
    /// The server refused the client.
    Refused {
        /// The server forbids a retry (`retry: false`).
        fatal: bool,
    },
    /// The server did not accept the credentials.
    Unauthenticated,
}

/// The next step of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Dial once, with a timeout, and report the result.
    Dial,
    /// Use the link, and report its loss.
    Serve,
    /// Report [`Event::TimerDue`] at this time.
    Wait {
        /// The time before which the client must not dial.
        until: Instant,
    },
    /// Do nothing more; the machine has stopped.
    Stop(StopReason),
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("stopped on request"),
            Self::RetriesExhausted { retries } => {
                write!(f, "gave up after {retries} retries (reconnect.max_retries)")
            }
            Self::Refused => {
                f.write_str("the server refused this client and does not accept a retry")
            }
            Self::Unauthenticated => {
                f.write_str("the server did not accept the credentials: check the token")
            }
        }
    }
}

/// The state of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The machine has not been started.
    Idle,
    /// A dial runs.
    Dialling,
    /// A link lives.
    Established {
        /// When the link was established. At its loss this decides whether it was stable.
        since: Instant,
        /// The epoch issued by the server.
        epoch: u64,
    },
    /// The client waits between two dials.
    Waiting {
        /// The time before which the client must not dial.
        until: Instant,
    },
    /// Stopped for ever.
    Stopped(StopReason),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Dialling => "dialling",
            Self::Established { .. } => "established",
            Self::Waiting { .. } => "waiting",
            Self::Stopped(_) => "stopped",
        })
    }
}

/// An event that cannot occur in this state. The state is unchanged; the caller has not followed the last action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the reconnect machine is {state} and cannot process {event:?}: report only the outcome of its last action"
)]
pub struct InvalidTransition {
    /// The state of the machine.
    pub state: State,
    /// The rejected event.
    pub event: Event,
}

/// Counts since the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// How often [`Action::Dial`] was returned.
    pub dials: u64,
    /// How many established links were lost.
    pub losses: u64,
    /// How often the state changed.
    pub transitions: u64,
}

/// Decides when to dial. A client has one for each server.
#[derive(Debug, Clone)]
pub struct Reconnect {
    config: Config,
    state: State,
    backoff: Backoff,
    stats: Stats,
}

impl Reconnect {
    /// A machine that waits for [`Event::Start`].
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            backoff: Backoff::new(),
            config,
            state: State::Idle,
            stats: Stats::default(),
        }
    }

    /// Processes an event at `now` and returns the next action. `random` is 64 random bits, used when a wait begins.
    ///
    /// # Errors
    /// [`InvalidTransition`] when the event does not follow from the last action; the machine stays as it was.
    pub fn on_event(
        &mut self,
        event: Event,
        now: Instant,
        random: u64,
    ) -> Result<Action, InvalidTransition> {
        match (self.state, event) {
            (State::Stopped(reason), Event::Stop) => Ok(Action::Stop(reason)),
            (_, Event::Stop) => Ok(self.stop(StopReason::Requested)),
            (State::Idle, Event::Start) => Ok(self.dial()),
            (State::Dialling, Event::Established { epoch }) => {
                self.enter(State::Established { since: now, epoch });
                Ok(Action::Serve)
            }
            (State::Dialling, Event::DialFailed(failure)) => Ok(match failure {
                Failure::Transient | Failure::Refused { fatal: false } => self.retry(now, random),
                Failure::Refused { fatal: true } => self.stop(StopReason::Refused),
                Failure::Unauthenticated => self.retry_unauthenticated(now, random),
            }),
            (State::Established { since, .. }, Event::Lost) => {
                self.stats.losses += 1;
                if now.saturating_duration_since(since) >= self.config.stable_after() {
                    self.backoff = Backoff::new();
                }
                Ok(self.retry(now, random))
            }
            (State::Waiting { until }, Event::TimerDue) if now < until => {
                Ok(Action::Wait { until })
            }
            (State::Waiting { .. }, Event::TimerDue) => Ok(self.dial()),
            (state, event) => Err(InvalidTransition { state, event }),
        }
    }

    /// The state of the machine.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The status of the link, for a [`StatusCell`](crate::StatusCell) after each event.
    #[must_use]
    pub fn status(&self) -> Status {
        let attempt = self.attempt();
        match self.state {
            State::Idle => Status::Idle,
            State::Dialling => Status::Connecting { attempt },
            State::Established { epoch, .. } => Status::Connected { epoch },
            State::Waiting { until } => Status::Waiting { attempt, until },
            State::Stopped(reason) => Status::Stopped { reason },
        }
    }

    /// Retries since the last stable link (or since the start), including the one that is waited for.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.backoff.retries()
    }

    /// Counts since the beginning.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn dial(&mut self) -> Action {
        self.stats.dials += 1;
        self.enter(State::Dialling);
        Action::Dial
    }

    fn retry(&mut self, now: Instant, random: u64) -> Action {
        if let Some(stop) = self.exhausted() {
            return stop;
        }
        let delay = self.backoff.advance(&self.config, random);
        self.wait(now + delay)
    }

    /// A retry with wrong credentials rarely succeeds: wait the longest delay at least, and up to half of it more, so
    /// that a thousand clients with a revoked token do not retry together.
    fn retry_unauthenticated(&mut self, now: Instant, random: u64) -> Action {
        if self.config.stop_when_unauthenticated() {
            return self.stop(StopReason::Unauthenticated);
        }
        if let Some(stop) = self.exhausted() {
            return stop;
        }
        self.backoff.count();
        let longest = self.config.max_delay();
        let extra = if self.config.enable_jitter() {
            full_jitter(longest / 2, random)
        } else {
            Duration::ZERO
        };
        self.wait(now + longest + extra)
    }

    fn exhausted(&mut self) -> Option<Action> {
        let (retries, allowed) = (self.backoff.retries(), self.config.max_retries());
        (allowed != 0 && retries >= allowed)
            .then(|| self.stop(StopReason::RetriesExhausted { retries }))
    }

    fn wait(&mut self, until: Instant) -> Action {
        self.enter(State::Waiting { until });
        Action::Wait { until }
    }

    fn stop(&mut self, reason: StopReason) -> Action {
        self.enter(State::Stopped(reason));
        Action::Stop(reason)
    }

    fn enter(&mut self, state: State) {
        self.stats.transitions += 1;
        self.state = state;
    }
}
