//! The limits of clients, tunnels and users in the section `limits` of a server.

use std::{
    num::{NonZeroU32, NonZeroU64},
    ops::RangeInclusive,
};

use adit_auth::UserName;
use adit_server::{Calendar, Quota, TrafficLimits, TrafficSettings};

use crate::{
    error::ConfigError,
    key_names::{self, KeyNames},
    ranges::COUNT,
    read::{Item, Section},
};

/// Bytes per second. Below 10 kB/s a chunk of 64 KiB takes longer than the waits for progress; above a terabyte per second no
/// limit is needed.
const BANDWIDTH: RangeInclusive<u64> = 10_000..=1_000_000_000_000;

/// Bytes in a day or a month.
const BYTES: RangeInclusive<u64> = 1..=1 << 60;

/// Requests in a day or a month.
const REQUESTS: RangeInclusive<u64> = 1..=1 << 50;

/// Reads the keys of `limits` that limit clients, tunnels and users.
pub(super) fn read(limits: &mut Section<'_>) -> Result<TrafficSettings, ConfigError> {
    let mut traffic = TrafficSettings::default();
    if let Some(item) = limits.item("time_zone") {
        traffic.calendar = item.parse::<Calendar>("a time zone such as Europe/Berlin")?;
    }
    if let Some(item) = limits.item("max_bandwidth") {
        traffic.per_client.max_bandwidth = Some(bandwidth(&item)?);
    }
    let mut per_client = limits.section("per_client")?;
    rates(&mut per_client, &mut traffic.per_client)?;
    per_client.finish(&key_names::CLIENT_TRAFFIC)?;
    let mut per_tunnel = limits.section("per_tunnel")?;
    of_tunnel(&mut per_tunnel, &mut traffic.per_tunnel)?;
    per_tunnel.finish(&key_names::TUNNEL_TRAFFIC)?;
    let mut per_user = limits.section("per_user")?;
    of_user(&mut per_user, &mut traffic.per_user)?;
    per_user.finish(&key_names::TRAFFIC)?;
    if let Some(item) = limits.item("users") {
        for user in item.list("users")? {
            let mut section = user.section()?;
            let Some(name) = section.item("name") else {
                return Err(section.missing("name", "the name of a user"));
            };
            let parsed = name.parse::<UserName>("the name of a user")?;
            let mut own = traffic.per_user.clone();
            of_user(&mut section, &mut own)?;
            section.finish(&key_names::TRAFFIC)?;
            if traffic.users.insert(parsed, own).is_some() {
                return Err(name.conflict("this user has limits already"));
            }
        }
    }
    Ok(traffic)
}

fn of_user(section: &mut Section<'_>, limits: &mut TrafficLimits) -> Result<(), ConfigError> {
    of_tunnel(section, limits)?;
    if let Some(item) = section.item("max_tunnels") {
        limits.max_tunnels = Some(item.number(COUNT)?);
    }
    Ok(())
}

fn of_tunnel(section: &mut Section<'_>, limits: &mut TrafficLimits) -> Result<(), ConfigError> {
    if let Some(item) = section.item("max_bandwidth") {
        limits.max_bandwidth = Some(bandwidth(&item)?);
    }
    if let Some(item) = section.item("max_running_requests") {
        limits.max_running_requests = Some(item.number(COUNT)?);
    }
    rates(section, limits)
}

fn rates(section: &mut Section<'_>, limits: &mut TrafficLimits) -> Result<(), ConfigError> {
    if let Some(item) = section.item("max_requests_per_second") {
        let rate: u32 = item.number(COUNT)?;
        limits.max_requests_per_second = NonZeroU32::new(rate);
    }
    if let Some(item) = section.item("max_connections") {
        limits.max_connections = Some(item.number(COUNT)?);
    }
    if let Some(item) = section.item("quota") {
        quota(&item, &mut limits.quota)?;
    }
    Ok(())
}

fn quota(item: &Item<'_>, quota: &mut Quota) -> Result<(), ConfigError> {
    let mut section = item.section()?;
    for (key, slot) in [
        ("bytes_per_day", &mut quota.bytes_per_day),
        ("bytes_per_month", &mut quota.bytes_per_month),
    ] {
        if let Some(item) = section.item(key) {
            *slot = Some(item.size(BYTES)?);
        }
    }
    for (key, slot) in [
        ("requests_per_day", &mut quota.requests_per_day),
        ("requests_per_month", &mut quota.requests_per_month),
    ] {
        if let Some(item) = section.item(key) {
            *slot = Some(item.number(REQUESTS)?);
        }
    }
    section.finish(&QUOTA)
}

const QUOTA: KeyNames = KeyNames {
    unsupported: &[],
    foreign_keys: &[],
};

/// Bytes per second: `100MB` is 100,000,000.
fn bandwidth(item: &Item<'_>) -> Result<NonZeroU64, ConfigError> {
    let bytes: u64 = item.size(BANDWIDTH).map_err(|error| {
        error.with_help(
            "bytes per second in each direction, for example `100MB` or `10MiB`; 1 MB is 8 Mbit",
        )
    })?;
    NonZeroU64::new(bytes).ok_or_else(|| item.error("expected more than zero"))
}
