//! The table of requests that wait to be settled, the same on both sides of a data stream.
//!
//! Holds: for one data stream, the compact id of each running request, its deadline, and the value
//! (a cheap handle such as an `Arc` of the request's inbox) through which the reader delivers to it.
//!
//! Promises
//! - A request is settled once (F15). The visitor (cancel), the lane (complete or fail), the timer
//!   (expire) and the loss of the epoch ([`Table::close`]) may race; one of them receives the value.
//! - An insert during the close is either refused, or its request is settled by the close as failed; no request
//!   remains.
//! - A late id never reaches another request: the full id is compared, never a slot number.
//! - The limit is exact: never more than [`Config::max_entries`], and [`InsertError::Full`] only
//!   when that many are really waiting.
//! - [`Stats`] always adds up, even when taken during concurrent calls.
//! - No value is dropped, and no caller's code but `T::clone` runs, while the lock is held.
//! - Memory is released after a burst, when fewer requests wait.
//!
//! Leaves to the caller: time (`now` is an argument), assigning ids that grow and are not reused,
//! waking waiting tasks, limits per tenant, and closing the table before it is dropped (in builds
//! with debug assertions, dropping a table that still holds requests panics).
//!
//! Cost: insert, lookup and settle take one short lock and look at one slot, as long as the ids of each side are dense.
//! A request that stays while the ids of later requests go once around the ring is moved to a tree and from then on
//! found in logarithmic time, and so are all requests of a peer that leaves gaps on purpose. [`Table::expire`] takes
//! one short lock when nothing is due. Numbers are kept in `docs/bench/`, group `pending/round_trip`.
//!
//! Proof: `tests/properties.rs` against a map, `tests/loom.rs` for each pair of concurrent calls, and `tests/stress.rs`
//! for the same scenarios on real threads.

mod config;
mod error;
mod requests;
mod slots;
mod stats;
mod sync;
mod table;

pub use config::Config;
pub use error::InsertError;
pub use stats::{Settled, Stats};
pub use table::Table;
