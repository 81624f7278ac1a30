//! When one certificate is renewed.

use std::time::{Duration, SystemTime};

use super::{next_order::Reason, policy::part};

/// The lifetime of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// The start of the validity.
    pub begins: SystemTime,
    /// The end of the validity.
    pub expires: SystemTime,
    /// When this machine obtained the certificate. CAs let the validity start earlier, for clocks that are slow.
    pub obtained: SystemTime,
}

/// A renewal window that the CA suggests for a certificate (RFC 9773, 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its start.
    pub start: SystemTime,
    /// Its end.
    pub end: SystemTime,
}

/// The shortest time between two renewals that the number of allowed orders takes into account.
const SHORTEST_USE: Duration = Duration::from_secs(60);

/// The most orders in a period that a short lifetime allows.
const MOST_NEEDED: u128 = 1000;

/// The renewal of one certificate.
#[derive(Debug, Clone)]
pub(super) struct Renewal {
    lifetime: Lifetime,
    /// After two thirds of the lifetime, and some random time earlier.
    two_thirds: SystemTime,
    /// The window and the time in it that was drawn.
    window: Option<(Window, SystemTime)>,
    /// A window does not apply before this time.
    youngest: SystemTime,
    /// When the CA is asked for the window; at once at first.
    ask_at: SystemTime,
}

impl Renewal {
    pub(super) fn new(lifetime: Lifetime, youngest: Duration, random: u64) -> Self {
        let Lifetime {
            begins,
            expires,
            obtained,
        } = lifetime;
        // What is left when it is obtained: a certificate that was two thirds old by then would be renewed for ever.
        let start = begins.max(obtained.min(expires));
        let left = expires.duration_since(start).unwrap_or_default();
        let jitter = part(left / 30, random);
        Self {
            lifetime,
            two_thirds: start + left / 3 * 2 - jitter,
            window: None,
            youngest: start + youngest.min(left / 24),
            ask_at: start,
        }
    }

    pub(super) fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    pub(super) fn ask_at(&self) -> Option<SystemTime> {
        Some(self.ask_at)
    }

    pub(super) fn at(&self) -> (SystemTime, Reason) {
        let drawn = self.window.map(|(_, drawn)| drawn.max(self.youngest));
        match drawn {
            Some(drawn) if drawn < self.two_thirds => (drawn, Reason::Window),
            _ => (self.two_thirds, Reason::Lifetime),
        }
    }

    pub(super) fn on_window(&mut self, window: Option<Window>, ask_at: SystemTime, random: u64) {
        self.ask_at = ask_at;
        let Some(window) = window else {
            // What the CA suggested before remains the best that is known.
            return;
        };
        let Ok(length) = window.end.duration_since(window.start) else {
            return;
        };
        // The window of an earlier certificate, which the CA repeats.
        let stale = window.end <= self.lifetime.begins;
        let known = self.window.is_some_and(|(known, _)| known == window);
        if stale {
            self.window = None;
        } else if !known {
            self.window = Some((window, window.start + part(length, random)));
        }
    }

    /// How many certificates are needed in a period if each is used for two thirds of the lifetime, and one more.
    pub(super) fn needed_in(&self, period: Duration) -> usize {
        let Lifetime {
            begins, expires, ..
        } = self.lifetime;
        let whole = expires.duration_since(begins).unwrap_or_default();
        let used = { whole / 3 * 2 }.max(SHORTEST_USE);
        let needed = period.as_nanos().div_ceil(used.as_nanos()) + 1;
        usize::try_from(needed.min(MOST_NEEDED)).unwrap_or(usize::MAX)
    }
}
