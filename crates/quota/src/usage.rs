//! What has been used in a day and in a month.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::calendar::Periods;

/// What has been used in the current day and in the current month, in the form in which it is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The day; `None`: nothing has been used.
    pub day: Option<Date>,
    /// Bytes in the day.
    pub day_bytes: u64,
    /// Requests in the day.
    pub day_requests: u64,
    /// The first day of the month.
    pub month: Option<Date>,
    /// Bytes in the month.
    pub month_bytes: u64,
    /// Requests in the month.
    pub month_requests: u64,
}

impl Usage {
    /// Begins a new day and a new month if it is time. After the clock has been set back, the later period goes on.
    pub fn advance(&mut self, periods: &Periods) {
        if self.day.is_none_or(|day| day < periods.day) {
            self.day = Some(periods.day);
            (self.day_bytes, self.day_requests) = (0, 0);
        }
        if self.month.is_none_or(|month| month < periods.month) {
            self.month = Some(periods.month);
            (self.month_bytes, self.month_requests) = (0, 0);
        }
    }

    /// Counts bytes and requests in the current periods.
    pub fn add(&mut self, periods: &Periods, bytes: u64, requests: u64) {
        self.advance(periods);
        for (count, more) in [
            (&mut self.day_bytes, bytes),
            (&mut self.day_requests, requests),
            (&mut self.month_bytes, bytes),
            (&mut self.month_requests, requests),
        ] {
            *count = count.saturating_add(more);
        }
    }

    /// Whether nothing has been used in the current periods.
    #[must_use]
    pub fn is_unused(&self, periods: &Periods) -> bool {
        let mut current = *self;
        current.advance(periods);
        // A day is a part of the month, except after a change of the time zone.
        [
            current.day_bytes,
            current.day_requests,
            current.month_bytes,
            current.month_requests,
        ] == [0; 4]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Calendar;

    fn periods(text: &str) -> Periods {
        Calendar::default().at(text.parse().unwrap())
    }

    #[test]
    fn a_new_day_and_a_new_month_count_from_zero() {
        let mut usage = Usage::default();
        usage.add(&periods("2026-11-29T23:59:59Z"), 100, 1);
        usage.add(&periods("2026-11-30T00:00:00Z"), 10, 2);
        assert_eq!((usage.day_bytes, usage.month_bytes), (10, 110));
        assert_eq!((usage.day_requests, usage.month_requests), (2, 3));
        usage.advance(&periods("2026-12-01T00:00:00Z"));
        assert!(usage.is_unused(&periods("2026-12-01T00:00:00Z")));
    }

    #[test]
    fn a_clock_that_is_set_back_resets_nothing() {
        let mut usage = Usage::default();
        usage.add(&periods("2026-12-01T00:00:01Z"), 100, 1);
        usage.add(&periods("2026-11-30T23:59:59Z"), 10, 1);
        assert_eq!((usage.day_bytes, usage.month_bytes), (110, 110));
        usage.add(&periods("2026-12-01T00:00:01Z"), 1, 0);
        assert_eq!((usage.day_bytes, usage.month_bytes), (111, 111));
    }

    #[test]
    fn the_stored_form_reads_back() {
        let mut usage = Usage::default();
        usage.add(&periods("2026-12-01T00:00:01Z"), u64::MAX, 1);
        usage.add(&periods("2026-12-01T00:00:01Z"), u64::MAX, 1);
        let text = serde_json::to_string(&usage).unwrap();
        assert!(
            text.starts_with(r#"{"day":"2026-12-01","day_bytes":18446744073709551615,"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Usage>(&text).unwrap(), usage);
    }

    proptest! {
        /// The counts are those of the uses in the last day and the last month, by a list of all uses.
        #[test]
        fn counts_are_those_of_the_periods(uses in prop::collection::vec((0_i64..8_000_000, 0_u64..1_000), 1..100)) {
            let start = 1_790_000_000;
            let mut uses: Vec<_> = uses;
            uses.sort_unstable();
            let calendar = Calendar::default();
            let at = |second: i64| calendar.at(jiff::Timestamp::from_second(start + second).unwrap());
            let mut usage = Usage::default();
            for (second, bytes) in &uses {
                usage.add(&at(*second), *bytes, 1);
            }
            let now = at(uses.last().unwrap().0);
            let of = |is_in: &dyn Fn(&Periods) -> bool| {
                let within = uses.iter().filter(|(second, _)| is_in(&at(*second)));
                within.fold((0, 0), |(bytes, count), (_, more)| (bytes + more, count + 1))
            };
            prop_assert_eq!((usage.day_bytes, usage.day_requests), of(&|one| one.day == now.day));
            prop_assert_eq!((usage.month_bytes, usage.month_requests), of(&|one| one.month == now.month));
        }
    }
}
