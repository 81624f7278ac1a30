//! Waiting for a condition.

use std::time::{Duration, Instant};

/// The pause between two checks: short compared with every deadline, long compared with a check.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Repeats `look` until it returns a value.
///
/// # Panics
/// Panics when `look` returns no value within `within`; `what` names the expected condition.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// The output of `future`.
///
/// # Panics
/// Panics when `future` takes longer than `limit`; `what` names the expected result.
pub async fn within<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {limit:?}: {what}"),
    }
}

/// Checks repeatedly for `length` that `holds` stays true.
///
/// # Panics
/// Panics when `holds` returns false; `what` names the condition.
pub async fn stays(what: &str, length: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < length {
        assert!(
            holds().await,
            "after {:?} no longer: {what}",
            begun.elapsed()
        );
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}
