//! Lifetimes of certificates and credentials.

use std::time::Duration;

use jiff::SignedDuration;

/// One day.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a number of days such as `90d`, or a time such as `12h` or `1h 30m`.
#[must_use]
pub fn parse_lifetime(text: &str) -> Option<Duration> {
    let text = text.trim();
    match text.strip_suffix('d').and_then(|days| days.parse().ok()) {
        Some(days) => DAY.checked_mul(days),
        None => Duration::try_from(text.parse::<SignedDuration>().ok()?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_times_are_lifetimes() {
        assert_eq!(parse_lifetime("90d"), Some(90 * DAY));
        assert_eq!(parse_lifetime(" 12h"), Some(DAY / 2));
        assert_eq!(parse_lifetime("1h 30m"), Some(DAY / 16));
        for wrong in ["", "d", "-1h", "90 days ago", "99999999999d", "1"] {
            assert_eq!(parse_lifetime(wrong), None, "{wrong}");
        }
    }
}
