//! Waiting for a condition.

use std::time::{Duration, Instant};

/// Between two looks. Short against every deadline, long against a look.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Looks until `look` finds something.
///
/// # Panics
/// When it has found nothing within `within`: `what` says what was waited for.
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

/// What `future` gives.
///
/// # Panics
/// When that takes longer than `limit`: `what` says what was waited for.
pub async fn within<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {limit:?}: {what}"),
    }
}

/// Looks again and again for as long as `length`.
///
/// # Panics
/// When `holds` ever says no: `what` says what was to stay.
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
