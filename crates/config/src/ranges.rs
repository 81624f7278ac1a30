//! Ranges of numbers and lower bounds of times that several sections use.

use std::{ops::RangeInclusive, time::Duration};

/// Counts: at least one, and few enough that a table of them fits into memory.
pub(crate) const COUNT: RangeInclusive<u64> = 1..=1_000_000;
/// A window must hold a chunk and its cost; a larger one than 1 GiB is a mistake.
pub(crate) const WINDOW: RangeInclusive<u64> = 4 << 10..=1 << 30;
/// Percent of all permits.
pub(crate) const SHARE: RangeInclusive<u64> = 1..=100;
/// The lowest rate of a visitor, in bytes per second; 0: no lowest rate. Few visitors would reach more than 1 MiB/s.
pub(crate) const RATE: RangeInclusive<u64> = 0..=1 << 20;
/// At least some messages, at most a few milliseconds of work.
pub(crate) const TURN: RangeInclusive<u64> = 4 << 10..=4 << 20;
/// A budget may be zero: then windows do not grow.
pub(crate) const BUDGET: RangeInclusive<u64> = 0..=1 << 40;
/// More threads than any machine has.
pub(crate) const THREADS: RangeInclusive<u64> = 1..=1_024;
/// More data streams do not help.
pub(crate) const LANES: RangeInclusive<u64> = 1..=64;
/// The longest path of the router.
pub(crate) const LOCATION: RangeInclusive<u64> = 1..=2_048;
/// Layers of a tunnel; one message announces those of all tunnels of a client.
pub(crate) const LAYERS: RangeInclusive<u64> = 0..=512 << 10;
/// A larger ratio between two clients is a mistake.
pub(crate) const WEIGHT: RangeInclusive<u64> = 1..=1_000;
/// Ports; 0 is any free one.
pub(crate) const PORT: RangeInclusive<u64> = 0..=65_535;
/// A wait of zero would always have expired.
pub(crate) const SHORTEST: Duration = Duration::from_millis(1);
/// A shorter wait would poll without a pause.
pub(crate) const PROGRESS: Duration = Duration::from_millis(100);
