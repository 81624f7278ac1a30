//! Bounded waits.

use std::{future::Future, time::Duration};

use adit_link::{Failure, Part, RecvHalf};

/// The time limit of a wait: longer than every wait of a passing test, on the clock of the test.
const BOUND: Duration = Duration::from_secs(120);

/// The output of `work`. Panics if it takes too long.
pub async fn within<T>(work: impl Future<Output = T>) -> T {
    let bounded = tokio::time::timeout(BOUND, work).await;
    bounded.expect("the test hangs")
}

/// Waits until a condition holds; `what` names it if it never does.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(BOUND, waiting).await;
    waited.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// Moves the clock forward by `time` without waiting: timers that are due by then fire, and tasks run. For tests in
/// which nothing may happen meanwhile; needs a current-thread runtime.
pub async fn pass(time: Duration) {
    /// Turns for the tasks that a timer wakes, and for the tasks that they wake.
    const TURNS: usize = 16;
    tokio::time::pause();
    tokio::time::advance(time).await;
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
    tokio::time::resume();
}

/// The next part of an exchange; `None` at the end of its direction.
pub async fn next_part(recv: &mut RecvHalf) -> Option<Result<Part, Failure>> {
    within(recv.part()).await
}
