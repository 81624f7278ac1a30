//! When to dial again: a state machine without a clock.
//!
//! Holds [`Reconnect`], which is told what happened to a link (an [`Event`], the time and a random word) and answers what
//! to do next (an [`Action`]), and [`StatusCell`], which tells anybody who waits how the link stands.
//!
//! Promises:
//! - the first retry after a link that had settled is due within `initial_delay` of the loss;
//! - the longest delay follows the time that has been waited in this outage, however many retries fell into it: a client
//!   dials within `initial_delay` and (`backoff_factor` − 1) times as long as the server was away, once a dial that was
//!   under way at its return has failed;
//! - no delay exceeds `max_delay`, or one and a half times that after refused credentials;
//! - `Dial` is never answered before the `until` of the wait that came before it;
//! - a link that is made and lost at once does not reset the backoff: only one that lived `stable_after` does;
//! - a refused event changes nothing;
//! - a watcher of the cell misses no change for ever: it may skip a status that was replaced at once, never the newest.
//!
//! Leaves to the caller: the time, the randomness, the timer, dialling with a timeout, handing on what is decided.
//!
//! Cost: constant time and no memory per event; the cell keeps one waker for each watcher that waits.
//!
//! Proof: `tests/machine.rs` draws every pair of state and event, `tests/properties.rs` plays random outages against the
//! promises and measures the herd, `tests/loom.rs` races the cell.

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
