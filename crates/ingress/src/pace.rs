//! The lowest rate at which a visitor has to go on (F12).

use std::time::Duration;

use tokio::time::Instant;

/// How fast a visitor goes on, over the time in which it is waited for. It has to move `rate` within each `within`; one
/// byte where there is no lowest rate.
#[derive(Debug)]
pub(crate) struct Pace {
    within: Duration,
    rate_bytes_per_sec: u64,
    /// Since when it is waited for.
    since: Option<Instant>,
    /// How long it has been waited for before that.
    spent: Duration,
    /// Moved meanwhile.
    bytes: u64,
}

impl Pace {
    pub(crate) const fn new(within: Duration, rate_bytes_per_sec: u64) -> Self {
        Self {
            within,
            rate_bytes_per_sec,
            since: None,
            spent: Duration::ZERO,
            bytes: 0,
        }
    }

    /// The visitor is waited for; until when it has time.
    pub(crate) fn wait(&mut self) -> Instant {
        let since = *self.since.get_or_insert_with(Instant::now);
        since + self.within.saturating_sub(self.spent)
    }

    /// It is not waited for. Its time goes on with the next wait.
    pub(crate) fn pause(&mut self) {
        if let Some(since) = self.since.take() {
            self.spent += since.elapsed();
        }
    }

    /// It has moved bytes. Enough of them give it the whole time anew.
    pub(crate) fn moved(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= self.least(self.within) {
            self.clear();
        }
    }

    /// It owes nothing.
    pub(crate) const fn clear(&mut self) {
        self.since = None;
        self.spent = Duration::ZERO;
        self.bytes = 0;
    }

    /// Whether it has been slower than the lowest rate for this long already.
    pub(crate) fn is_slow(&self, grace: Duration) -> bool {
        let waited = self.spent + self.since.map_or(Duration::ZERO, |since| since.elapsed());
        waited >= grace && self.bytes < self.least(waited)
    }

    fn least(&self, within: Duration) -> u64 {
        let bytes = u128::from(self.rate_bytes_per_sec) * within.as_millis() / 1000;
        u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_trickle_gains_no_time() {
        let mut pace = Pace::new(60 * SECOND, 64);
        let until = pace.wait();
        for _ in 0..20 {
            sleep(3 * SECOND).await;
            pace.moved(1);
            assert_eq!(pace.wait(), until);
        }
        assert_eq!(until, Instant::now());
        assert!(pace.is_slow(3 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_visitor_of_a_kilobyte_a_second_goes_on() {
        let mut pace = Pace::new(60 * SECOND, 64);
        for _ in 0..600 {
            let until = pace.wait();
            sleep(SECOND).await;
            assert!(Instant::now() < until && !pace.is_slow(SECOND / 2) || pace.bytes == 0);
            pace.moved(1024);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_time_in_which_it_is_waited_for_counts() {
        let mut pace = Pace::new(60 * SECOND, 64);
        for _ in 0..10 {
            pace.wait();
            sleep(SECOND).await;
            pace.pause();
            pace.moved(20);
            sleep(1000 * SECOND).await;
        }
        assert_eq!(pace.wait(), Instant::now() + 50 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_lowest_rate_one_byte_is_enough() {
        let mut pace = Pace::new(5 * SECOND, 0);
        let until = pace.wait();
        sleep(SECOND).await;
        pace.moved(1);
        assert_eq!(pace.wait(), until + SECOND);
    }
}
