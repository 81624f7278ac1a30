//! The deadline of a call of gRPC (P-8.3).

use std::{future::Future, time::Duration};

use adit_codec::ResetCode;
use adit_link::{Canceller, Failure, Reason};
use http::HeaderMap;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep_until},
};

/// The header with the timeout of a call (grpc/grpc, doc/PROTOCOL-HTTP2.md, "Timeout").
pub(super) const HEADER: &str = "grpc-timeout";

/// The upper bound of a timeout: the timers of the runtime have a limit.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The time at which a visitor stops waiting for its call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    /// The timeout from which the deadline was computed.
    allowed: Duration,
}

impl Deadline {
    /// The deadline of a call that has arrived at `now`, if the call has one.
    ///
    /// # Errors
    /// A malformed `grpc-timeout`: a call without its deadline could run without end.
    pub(crate) fn of(headers: &HeaderMap, now: Instant) -> Result<Option<Self>, Failure> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let bad = || Failure::new(Reason::BadRequest, "malformed grpc-timeout");
        let allowed = match values.next() {
            None => parse(value.as_bytes()).ok_or_else(bad)?,
            Some(_) => return Err(bad()),
        };
        let at = now + allowed.min(LONGEST);
        Ok(Some(Self { at, allowed }))
    }

    /// The time left at `now`.
    pub(crate) fn left(self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.at
    }

    /// Waits for `work` until the deadline, and drops it then.
    pub(crate) async fn bound<T, E: From<Failure>>(
        self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            done = work => done,
            () = sleep_until(self.at) => Err(self.exceeded().into()),
        }
    }

    /// The failure of a call at its deadline.
    pub(crate) fn exceeded(self) -> Failure {
        let text = format!(
            "the call did not end within its deadline of {:?}",
            self.allowed
        );
        Failure::new(Reason::ServiceTimeout, text)
    }
}

/// `TimeoutValue TimeoutUnit`: at most eight digits and a unit.
fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3_600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Resets an exchange at its deadline, even while its task waits. Dropping it cancels that.
pub(crate) struct Watch(AbortHandle);

impl Watch {
    pub(crate) fn start(deadline: Deadline, canceller: Canceller) -> Self {
        let watching = async move {
            sleep_until(deadline.at).await;
            canceller.reset(ResetCode::Cancelled, "deadline exceeded");
        };
        Self(tokio::spawn(watching).abort_handle())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_8_3_timeouts_are_up_to_eight_digits_and_a_unit() {
        let hour = Duration::from_secs(3_600);
        for (text, time) in [
            ("0n", Duration::ZERO),
            ("1n", Duration::from_nanos(1)),
            ("20u", Duration::from_micros(20)),
            ("00000300m", Duration::from_millis(300)),
            ("4S", Duration::from_secs(4)),
            ("5M", Duration::from_secs(300)),
            ("6H", 6 * hour),
            ("99999999H", 99_999_999 * hour),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(time), "{text}");
        }
        for text in [
            "",
            "S",
            "1",
            "1s",
            "1h",
            "123456789n",
            "-1S",
            "+1S",
            "1.5S",
            " 1S",
            "1S ",
            "1SS",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn p_8_3_malformed_timeouts_are_rejected() {
        let now = Instant::now();
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, http::HeaderValue::from_static(value));
            }
            Deadline::of(&headers, now)
        };
        assert!(of(&[]).unwrap().is_none());
        let deadline = of(&["2S"]).unwrap().unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(deadline.left(now), 2 * second);
        assert_eq!(deadline.left(now + 3 * second), Duration::ZERO);
        assert_eq!(of(&["99999999H"]).unwrap().unwrap().left(now), LONGEST);
        for values in [&["soon"][..], &["1S", "1S"]] {
            assert_eq!(of(values).unwrap_err().reason, Reason::BadRequest);
        }
    }
}
