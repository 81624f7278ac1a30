//! Decides when to dial again: a state machine without a clock.
//!
//! Holds [`Reconnect`], which receives an [`Event`] of a link, the time and random bits, and returns the next [`Action`];
//! and [`StatusCell`], which publishes the status of the link to watchers.
//!
//! Promises:
//! - the first retry after a link that had settled is due within `initial_delay` of the loss;
//! - the longest delay depends on the time that has been waited in this outage, not on the number of retries: a client
//!   dials within `initial_delay` plus (`backoff_factor` − 1) times as long as the server was unreachable, once a dial
//!   that was running at its return has failed;
//! - no delay exceeds `max_delay`, or one and a half times that after refused credentials;
//! - `Dial` is never returned before the `until` of the wait before it;
//! - a link that is lost at once does not reset the backoff: only one that lived for `stable_after` does;
//! - a rejected event changes nothing;
//! - a watcher of the cell always receives the newest status; it may skip one that was replaced at once.
//!
//! Leaves to the caller: time, randomness, the timer, dialling with a timeout, and performing the actions.
//!
//! Cost: constant time and no memory per event; the cell keeps one waker for each watcher that waits.
//!
//! Proof: `tests/machine.rs` tests every pair of state and event, `tests/properties.rs` checks the promises in random
//! outages and measures how many clients dial at once, `tests/loom.rs` runs concurrent calls of the cell.

mod backoff;
mod config;
mod machine;
mod status;
mod stop_reason;
mod sync;

pub use config::{Config, ConfigError};
pub use machine::{Action, Event, Failure, InvalidTransition, Reconnect, State, Stats};
pub use status::{Status, StatusCell, Version, Watcher};
pub use stop_reason::StopReason;
