//! Two ends in virtual time, for tests only.
//!
//! Holds: a [`Clock`] that the test moves, a queue of [`Timeline`] entries that fall due on it, a [`Pipe`] that
//! carries bytes from one end to the other with delay, bandwidth, random fragmentation and a cut at any byte, and the
//! [`Rng`] that all of it is seeded from.
//!
//! Promises: this crate reads no clock and draws random numbers only from [`Rng`], so a run depends on its seed alone;
//! bytes arrive in order and complete up to the cut, and never before their time.
//!
//! Also here: [`parse_exposition`], a strict parser of the Prometheus text format, and [`documented_metrics`], the
//! documented names of metrics.
//!
//! Leaves to the test: what the bytes mean and when to stop. The pattern is quinn-proto's `tests/util.rs`.

mod clock;
mod documented;
mod exposition;
mod pipe;
mod rng;
mod timeline;

pub use clock::Clock;
pub use documented::documented_metrics;
pub use exposition::{MetricFamily, MetricSample, parse_exposition};
pub use pipe::{Pipe, PipeConfig, Received};
pub use rng::Rng;
pub use timeline::Timeline;
