//! How often a CA is asked about the progress of an order.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The time before the first question; each one waits one and a half times as long.
const FIRST: Duration = Duration::from_millis(250);

/// The longest time between two questions.
const LONGEST: Duration = Duration::from_secs(5);

/// Questions until a time.
pub(super) struct Poll {
    wait: Duration,
    deadline: Instant,
}

impl Poll {
    pub(super) fn new(timeout: Duration) -> Self {
        Self {
            wait: FIRST,
            deadline: Instant::now() + timeout,
        }
    }

    /// Waits until the next question; returns whether there is one.
    pub(super) async fn next(&mut self) -> bool {
        if Instant::now() + self.wait > self.deadline {
            return false;
        }
        sleep(self.wait).await;
        self.wait = { self.wait * 3 / 2 }.min(LONGEST);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn questions_end_in_time_and_are_few() {
        let began = Instant::now();
        let mut poll = Poll::new(Duration::from_secs(60));
        let mut questions = 0;
        while poll.next().await {
            questions += 1;
        }
        assert!(began.elapsed() <= Duration::from_secs(60));
        assert!((10..25).contains(&questions), "{questions}");
    }
}
