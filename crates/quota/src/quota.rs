//! How much may be used.

use std::fmt;

use jiff::Timestamp;

use crate::{calendar::Periods, usage::Usage};

/// How much may be used in a day and in a month. `None`: any amount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of both directions in a day.
    pub bytes_per_day: Option<u64>,
    /// Bytes of both directions in a month.
    pub bytes_per_month: Option<u64>,
    /// Requests in a day.
    pub requests_per_day: Option<u64>,
    /// Requests in a month.
    pub requests_per_month: Option<u64>,
}

/// A number of a [`Quota`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaKind {
    /// [`Quota::bytes_per_day`].
    BytesPerDay,
    /// [`Quota::bytes_per_month`].
    BytesPerMonth,
    /// [`Quota::requests_per_day`].
    RequestsPerDay,
    /// [`Quota::requests_per_month`].
    RequestsPerMonth,
}

/// A quota that does not allow more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Which one.
    pub kind: QuotaKind,
    /// When it counts from zero.
    pub resets: Timestamp,
}

impl QuotaKind {
    /// All numbers of a quota.
    pub const ALL: [Self; 4] = [
        Self::BytesPerDay,
        Self::BytesPerMonth,
        Self::RequestsPerDay,
        Self::RequestsPerMonth,
    ];

    /// The name in settings, in the status and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BytesPerDay => "bytes_per_day",
            Self::BytesPerMonth => "bytes_per_month",
            Self::RequestsPerDay => "requests_per_day",
            Self::RequestsPerMonth => "requests_per_month",
        }
    }

    /// What has been used of it.
    #[must_use]
    pub const fn used(self, usage: &Usage) -> u64 {
        match self {
            Self::BytesPerDay => usage.day_bytes,
            Self::BytesPerMonth => usage.month_bytes,
            Self::RequestsPerDay => usage.day_requests,
            Self::RequestsPerMonth => usage.month_requests,
        }
    }

    const fn resets(self, periods: &Periods) -> Timestamp {
        match self {
            Self::BytesPerDay | Self::RequestsPerDay => periods.day_ends,
            Self::BytesPerMonth | Self::RequestsPerMonth => periods.month_ends,
        }
    }
}

impl fmt::Display for QuotaKind {
    /// The words for a visitor: `bytes per day`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BytesPerDay => "bytes per day",
            Self::BytesPerMonth => "bytes per month",
            Self::RequestsPerDay => "requests per day",
            Self::RequestsPerMonth => "requests per month",
        })
    }
}

impl Quota {
    /// Whether there is no bound.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The amount of one of its numbers.
    #[must_use]
    pub const fn amount(&self, kind: QuotaKind) -> Option<u64> {
        match kind {
            QuotaKind::BytesPerDay => self.bytes_per_day,
            QuotaKind::BytesPerMonth => self.bytes_per_month,
            QuotaKind::RequestsPerDay => self.requests_per_day,
            QuotaKind::RequestsPerMonth => self.requests_per_month,
        }
    }

    /// The number that allows no more; of several ones that which is reset last.
    #[must_use]
    pub fn exceeded(&self, usage: &Usage, periods: &Periods) -> Option<Exceeded> {
        let mut current = *usage;
        current.advance(periods);
        let exceeded = QuotaKind::ALL.into_iter().filter(|kind| {
            let amount = self.amount(*kind);
            amount.is_some_and(|amount| kind.used(&current) >= amount)
        });
        let exceeded = exceeded.map(|kind| Exceeded {
            kind,
            resets: kind.resets(periods),
        });
        exceeded.max_by_key(|exceeded| exceeded.resets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Calendar;

    fn periods(text: &str) -> Periods {
        Calendar::default().at(text.parse().unwrap())
    }

    #[test]
    fn a_quota_is_exceeded_until_its_reset() {
        let quota = Quota {
            bytes_per_day: Some(100),
            requests_per_month: Some(3),
            ..Quota::default()
        };
        let day = periods("2026-11-10T12:00:00Z");
        let mut usage = Usage::default();
        usage.add(&day, 99, 1);
        assert_eq!(quota.exceeded(&usage, &day), None);
        usage.add(&day, 1, 1);
        let exceeded = quota.exceeded(&usage, &day).unwrap();
        assert_eq!(exceeded.kind, QuotaKind::BytesPerDay);
        assert_eq!(exceeded.resets.to_string(), "2026-11-11T00:00:00Z");
        let next = periods("2026-11-11T00:00:00Z");
        assert_eq!(quota.exceeded(&usage, &next), None);
        usage.add(&next, 200, 1);
        let exceeded = quota.exceeded(&usage, &next).unwrap();
        assert_eq!(
            exceeded.kind,
            QuotaKind::RequestsPerMonth,
            "it is reset later"
        );
        assert_eq!(exceeded.resets.to_string(), "2026-12-01T00:00:00Z");
    }

    #[test]
    fn no_quota_allows_everything() {
        let mut usage = Usage::default();
        let day = periods("2026-11-10T12:00:00Z");
        usage.add(&day, u64::MAX, u64::MAX);
        assert!(Quota::default().is_none());
        assert_eq!(Quota::default().exceeded(&usage, &day), None);
    }
}
