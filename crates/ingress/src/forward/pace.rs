//! The lowest rate at which a visitor must send or receive (F12).

use std::time::Duration;

use tokio::time::Instant;

/// Measures a visitor's rate over the time that is spent waiting for it. Within each `within` it must move `rate` times
/// `within` bytes; one byte if the lowest rate is 0.
#[derive(Debug)]
pub(crate) struct Pace {
    within: Duration,
    rate_bytes_per_sec: u64,
    /// Start of the current wait.
    since: Option<Instant>,
    /// The sum of the earlier waits.
    spent: Duration,
    /// Bytes transferred during all waits.
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

    /// Starts a wait for the visitor, unless one is running. Returns its deadline.
    pub(crate) fn wait(&mut self) -> Instant {
        let since = *self.since.get_or_insert_with(Instant::now);
        since + self.within.saturating_sub(self.spent)
    }

    /// Pauses the wait. Its time continues with the next one.
    pub(crate) fn pause(&mut self) {
        if let Some(since) = self.since.take() {
            self.spent += since.elapsed();
        }
    }

    /// Notes that the visitor has transferred bytes. Enough of them restart the time.
    pub(crate) fn moved(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= self.least_bytes(self.within) {
            self.clear();
        }
    }

    /// Restarts the time.
    pub(crate) const fn clear(&mut self) {
        self.since = None;
        self.spent = Duration::ZERO;
        self.bytes = 0;
    }

    /// Whether the visitor has been slower than the lowest rate for at least `grace`.
    pub(crate) fn is_slow(&self, grace: Duration) -> bool {
        let waited = self.spent + self.since.map_or(Duration::ZERO, |since| since.elapsed());
        waited >= grace && self.bytes < self.least_bytes(waited)
    }

    fn least_bytes(&self, within: Duration) -> u64 {
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
    async fn trickle_does_not_extend_the_deadline() {
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
    async fn visitor_of_a_kilobyte_a_second_continues() {
        let mut pace = Pace::new(60 * SECOND, 64);
        for _ in 0..600 {
            let until = pace.wait();
            sleep(SECOND).await;
            assert!(Instant::now() < until && !pace.is_slow(SECOND / 2) || pace.bytes == 0);
            pace.moved(1024);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_waiting_time_counts() {
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
    async fn one_byte_is_enough_without_a_lowest_rate() {
        let mut pace = Pace::new(5 * SECOND, 0);
        let until = pace.wait();
        sleep(SECOND).await;
        pace.moved(1);
        assert_eq!(pace.wait(), until + SECOND);
    }
}
