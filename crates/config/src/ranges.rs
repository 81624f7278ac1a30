//! Ranges of numbers and lower bounds of times that several sections use.

use std::{ops::RangeInclusive, time::Duration};

/// Counts: at least one, and few enough that a table of this size fits into memory.
pub(crate) const COUNT: RangeInclusive<u64> = 1..=1_000_000;
/// A window must hold a chunk and its cost; a larger one than 1 GiB is a mistake.
pub(crate) const WINDOW: RangeInclusive<u64> = 4 << 10..=1 << 30;
/// Percent of all permits.
pub(crate) const SHARE: RangeInclusive<u64> = 1..=100;
/// The lowest rate of a visitor, in bytes per second; 0: no lowest rate. Few visitors would reach more than 1 MiB/s.
pub(crate) const RATE: RangeInclusive<u64> = 0..=1 << 20;
/// Work of one turn: at least some messages, at most a few milliseconds.
pub(crate) const TURN: RangeInclusive<u64> = 4 << 10..=4 << 20;
/// A budget may be zero: then windows do not grow.
pub(crate) const BUDGET: RangeInclusive<u64> = 0..=1 << 40;
/// Threads: the upper bound is more than any machine has.
pub(crate) const THREADS: RangeInclusive<u64> = 1..=1_024;
/// Data streams: more than the upper bound do not help.
pub(crate) const LANES: RangeInclusive<u64> = 1..=64;
/// Length of a path: the upper bound is that of the router.
pub(crate) const LOCATION: RangeInclusive<u64> = 1..=2_048;
/// Size of the layers of a tunnel: one message announces those of all tunnels of a client.
pub(crate) const LAYERS: RangeInclusive<u64> = 0..=512 << 10;
/// Weight: a larger ratio between two clients is a mistake.
pub(crate) const WEIGHT: RangeInclusive<u64> = 1..=1_000;
/// Ports; 0 is any free one.
pub(crate) const PORT: RangeInclusive<u64> = 0..=65_535;
/// The shortest wait: a wait of zero would expire at once.
pub(crate) const SHORTEST: Duration = Duration::from_millis(1);
/// The shortest timeout of progress: a shorter one would poll without a pause.
pub(crate) const PROGRESS: Duration = Duration::from_millis(100);
/// Checks of passwords at a time: each takes up to 64 MiB and a thread.
pub(crate) const CHECKS: RangeInclusive<u64> = 1..=64;
