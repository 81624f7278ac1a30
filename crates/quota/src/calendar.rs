//! Days and months in a time zone.

use std::{fmt, str::FromStr};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use thiserror::Error;

/// The time zone in which days and months begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    name: Box<str>,
    zone: TimeZone,
}

/// The name of no time zone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown time zone {name:?}: expected `UTC`, or a name such as `Europe/Berlin` (IANA)")]
pub struct UnknownTimeZone {
    name: String,
}

/// The day and the month of a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Periods {
    /// The day.
    pub day: Date,
    /// The first day of the month.
    pub month: Date,
    /// When the day began.
    pub day_began: Timestamp,
    /// When the next day begins.
    pub day_ends: Timestamp,
    /// When the next month begins.
    pub month_ends: Timestamp,
}

impl Calendar {
    /// The periods of a moment.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Periods {
        let day = now.to_zoned(self.zone.clone()).date();
        let month = day.first_of_month();
        let next_day = day.tomorrow().unwrap_or(day);
        let next_month = month.last_of_month().tomorrow().unwrap_or(month);
        Periods {
            day,
            month,
            day_began: self.start_of(day).unwrap_or(Timestamp::MIN),
            day_ends: self.start_of(next_day).unwrap_or(Timestamp::MAX),
            month_ends: self.start_of(next_month).unwrap_or(Timestamp::MAX),
        }
    }

    /// The beginning of a day, which is not midnight where clocks are set forward at midnight.
    fn start_of(&self, day: Date) -> Option<Timestamp> {
        let start = day.to_zoned(self.zone.clone()).ok()?;
        Some(start.start_of_day().ok()?.timestamp())
    }
}

impl Default for Calendar {
    fn default() -> Self {
        Self {
            name: "UTC".into(),
            zone: TimeZone::UTC,
        }
    }
}

impl FromStr for Calendar {
    type Err = UnknownTimeZone;

    fn from_str(name: &str) -> Result<Self, UnknownTimeZone> {
        if name == "UTC" {
            return Ok(Self::default());
        }
        let zone = TimeZone::get(name).map_err(|_| UnknownTimeZone { name: name.into() })?;
        Ok(Self {
            name: zone.iana_name().unwrap_or(name).into(),
            zone,
        })
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Periods {
    /// Whether a moment is in the same day.
    #[must_use]
    pub fn contain(&self, now: Timestamp) -> bool {
        (self.day_began..self.day_ends).contains(&now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn days_and_months_end_at_midnight_of_the_time_zone() {
        let utc = Calendar::default().at(at("2026-11-30T22:15:00Z"));
        assert_eq!(utc.day.to_string(), "2026-11-30");
        assert_eq!(utc.month.to_string(), "2026-11-01");
        assert_eq!(utc.day_ends, at("2026-12-01T00:00:00Z"));
        assert_eq!(utc.month_ends, at("2026-12-01T00:00:00Z"));
        let tokyo: Calendar = "Asia/Tokyo".parse().unwrap();
        let tokyo = tokyo.at(at("2026-11-30T22:15:00Z"));
        assert_eq!(tokyo.day.to_string(), "2026-12-01");
        assert_eq!(tokyo.month_ends, at("2026-12-31T15:00:00Z"));
    }

    #[test]
    fn a_day_is_as_long_as_its_clocks_make_it() {
        let berlin: Calendar = "Europe/Berlin".parse().unwrap();
        let hours = |text| {
            let day = berlin.at(at(text));
            (day.day_ends - day.day_began)
                .total(jiff::Unit::Hour)
                .unwrap()
        };
        assert!((hours("2026-03-29T10:00:00Z") - 23.0).abs() < 1e-9);
        assert!((hours("2026-10-25T10:00:00Z") - 25.0).abs() < 1e-9);
        // Here the clocks were set forward at midnight: the day began at one.
        let beirut: Calendar = "Asia/Beirut".parse().unwrap();
        let day = beirut.at(at("2026-03-29T10:00:00Z"));
        assert_eq!(day.day_began, at("2026-03-28T22:00:00Z"));
    }

    #[test]
    fn an_unknown_time_zone_is_an_error_with_an_example() {
        for name in ["", "Mars/Base", "+25:00", "CEST2"] {
            let error = name.parse::<Calendar>().unwrap_err().to_string();
            assert!(
                error.contains("Europe/Berlin") && error.contains(name),
                "{error}"
            );
        }
        assert_eq!("UTC".parse::<Calendar>().unwrap().to_string(), "UTC");
    }

    proptest! {
        #[test]
        fn a_moment_is_in_its_day(seconds in -2_000_000_000_i64..9_000_000_000, zone in 0_usize..4) {
            let zone = ["UTC", "Asia/Tokyo", "America/New_York", "Pacific/Apia"][zone];
            let calendar: Calendar = zone.parse().unwrap();
            let now = Timestamp::from_second(seconds).unwrap();
            let periods = calendar.at(now);
            prop_assert!(periods.contain(now), "{periods:?}");
            prop_assert!(!periods.contain(periods.day_ends));
            prop_assert!(periods.day_ends <= periods.month_ends);
            prop_assert!(calendar.at(periods.day_ends).day > periods.day);
            prop_assert!(calendar.at(periods.month_ends).month > periods.month);
        }
    }
}
