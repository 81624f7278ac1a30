//! What a schedule keeps over a restart.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{next_order::Environment, policy::Quota};

/// Times are kept up to this number: far more than any quota needs.
const MOST_TIMES: usize = 1000;

/// What is known of earlier orders of a name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Orders at the production CA that have, or may have, led to a certificate, oldest first.
    #[serde(serialize_with = "write_times", deserialize_with = "read_times")]
    pub orders: Vec<SystemTime>,
    /// Failed validations at the production CA, oldest first.
    #[serde(serialize_with = "write_times", deserialize_with = "read_times")]
    pub failed_validations: Vec<SystemTime>,
    /// Failures since the last certificate.
    pub failures: u32,
    /// The end of the wait after the last failure.
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub not_before: Option<SystemTime>,
    /// Where the next order goes.
    pub environment: Environment,
}

/// The times within a period that ends now. Times in the future were recorded by a wrong clock; they count until the
/// clock has passed them by a period, unless they are further away than that.
pub(super) fn within(
    times: &[SystemTime],
    period: Duration,
    now: SystemTime,
) -> impl Iterator<Item = SystemTime> {
    let times = times.iter().copied();
    times.filter(move |at| *at + period > now && *at <= now + period)
}

/// When one more event fits into the quota; `None` if one fits now.
pub(super) fn free_at(times: &[SystemTime], quota: Quota, now: SystemTime) -> Option<SystemTime> {
    let mut counted: Vec<_> = within(times, quota.period, now).collect();
    counted.sort_unstable();
    let first = counted.len().checked_sub(quota.most)?;
    match counted.get(first) {
        Some(oldest) => Some(*oldest + quota.period),
        // No event is allowed at all.
        None => Some(now + quota.period),
    }
}

/// Drops the times before the period.
pub(super) fn prune(times: &mut Vec<SystemTime>, period: Duration, now: SystemTime) {
    *times = within(times, period, now).collect();
}

/// Adds a time, and drops the oldest one beyond the bound.
pub(super) fn add(times: &mut Vec<SystemTime>, now: SystemTime) {
    if times.len() >= MOST_TIMES {
        times.remove(0);
    }
    times.push(now);
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The time of these milliseconds since 1970; one after the year 9999 is that of a damaged file.
fn from_millis(millis: u64) -> Option<SystemTime> {
    const LATEST_MILLIS: u64 = 253_402_300_799_000;
    (millis <= LATEST_MILLIS).then(|| UNIX_EPOCH + Duration::from_millis(millis))
}

fn write_time<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(millis).serialize(serializer)
}

fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
    Ok(Option::deserialize(deserializer)?.and_then(from_millis))
}

fn write_times<S: Serializer>(times: &[SystemTime], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(times.iter().copied().map(millis))
}

fn read_times<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SystemTime>, D::Error> {
    let times = Vec::<u64>::deserialize(deserializer)?;
    let times = times.into_iter().filter_map(from_millis);
    Ok(times.take(MOST_TIMES).collect())
}
