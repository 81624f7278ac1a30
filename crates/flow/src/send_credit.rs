//! The credit that a sender has left.

use thiserror::Error;

use crate::MESSAGE_COST;

/// The credit left in one direction of one request (P-4.2).
///
/// Offsets are absolute from the start of the direction, as in QUIC's MAX_STREAM_DATA (RFC 9000, section 4.1): a window
/// that is skipped for a newer one, is repeated or is late has no effect.
#[derive(Debug, Clone)]
pub struct SendCredit {
    /// The highest limit received; the sum of costs stays at or below it.
    limit: u64,
    /// The sum of costs so far, never above `limit`.
    sent: u64,
    /// The cost that has left the receiver, never above `sent`. A resumption would have to send the difference again.
    peer_consumed: u64,
}

/// The message costs more than the available credit: wait for a window, or send a shorter payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the message costs {needed}, but only {available} may be sent: wait for a window")]
pub struct InsufficientCredit {
    /// The cost of the rejected message.
    pub needed: u64,
    /// The available credit.
    pub available: u64,
}

/// The peer reports more consumed than was sent (P-4.5): reset the request as a protocol error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the window reports {consumed} consumed, but only {sent} was sent: reset the request")]
pub struct WindowError {
    /// The invalid `Window.consumed`.
    pub consumed: u64,
    /// The cost that was sent.
    pub sent: u64,
}

impl SendCredit {
    /// The credit at the start of a direction: `settings.initial_window_bytes` (P-4.2).
    #[must_use]
    pub const fn new(initial_window: u32) -> Self {
        Self {
            limit: initial_window as u64,
            sent: 0,
            peer_consumed: 0,
        }
    }

    /// The available credit.
    #[must_use]
    #[inline]
    pub fn available(&self) -> u64 {
        self.limit - self.sent
    }

    /// The largest payload that one message may carry now, at most `max_payload`; `None` if not even one byte fits.
    #[must_use]
    #[inline]
    pub fn max_payload(&self, max_payload: usize) -> Option<usize> {
        let room = self.available().saturating_sub(MESSAGE_COST);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        match room.min(max_payload) {
            0 => None,
            payload => Some(payload),
        }
    }

    /// Charges one message: its payload and [`MESSAGE_COST`] (P-4.1).
    ///
    /// # Errors
    ///
    /// [`InsufficientCredit`] when the message would exceed the limit; nothing is charged.
    #[inline]
    pub fn take(&mut self, payload: usize) -> Result<(), InsufficientCredit> {
        let needed = (payload as u64).saturating_add(MESSAGE_COST);
        let available = self.available();
        if needed > available {
            return Err(InsufficientCredit { needed, available });
        }
        self.sent += needed;
        Ok(())
    }

    /// Processes a `Window`. Returns whether more may be sent than before; a limit or a `consumed` lower than one
    /// received before is ignored (P-4.3).
    ///
    /// # Errors
    ///
    /// [`WindowError`] when `consumed` exceeds what was sent (P-4.5); nothing changes.
    #[inline]
    pub fn on_window(&mut self, limit: u64, consumed: u64) -> Result<bool, WindowError> {
        if consumed > self.sent {
            return Err(WindowError {
                consumed,
                sent: self.sent,
            });
        }
        self.peer_consumed = self.peer_consumed.max(consumed);
        let more = limit > self.limit;
        self.limit = self.limit.max(limit);
        Ok(more)
    }

    /// The sum of the costs sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The highest limit received.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The sent cost that has left the receiver, by its last report.
    #[must_use]
    pub fn peer_consumed(&self) -> u64 {
        self.peer_consumed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_costs_its_payload_and_a_constant() {
        // P-4.1
        let mut credit = SendCredit::new(1000);
        assert_eq!(credit.available(), 1000);
        credit.take(10).unwrap();
        assert_eq!((credit.sent(), credit.available()), (266, 734));
        credit.take(0).unwrap();
        assert_eq!((credit.sent(), credit.available()), (522, 478));
        assert_eq!(credit.limit(), 1000);
    }

    #[test]
    fn exactly_the_limit_may_be_sent() {
        // P-4.2
        let mut credit = SendCredit::new(1000);
        let refused = InsufficientCredit {
            needed: 1001,
            available: 1000,
        };
        assert_eq!(credit.take(745), Err(refused));
        assert_eq!(credit.sent(), 0);
        credit.take(744).unwrap();
        assert_eq!(credit.available(), 0);
        assert_eq!(
            credit.take(0),
            Err(InsufficientCredit {
                needed: 256,
                available: 0
            })
        );
        assert!(credit.take(usize::MAX).is_err());
    }

    #[test]
    fn the_largest_payload_leaves_room_for_the_message() {
        for (window, max, expected) in [
            (0, 64, None),
            (255, 64, None),
            (256, 64, None),
            (257, 64, Some(1)),
            (319, 64, Some(63)),
            (320, 64, Some(64)),
            (321, 64, Some(64)),
            (321, 0, None),
        ] {
            assert_eq!(
                SendCredit::new(window).max_payload(max),
                expected,
                "window {window}, max {max}"
            );
        }
    }

    #[test]
    fn a_lower_window_is_ignored() {
        // P-4.3
        let mut credit = SendCredit::new(300);
        credit.take(44).unwrap();
        assert_eq!(credit.on_window(350, 60), Ok(true));
        assert_eq!(credit.on_window(350, 80), Ok(false));
        assert_eq!(credit.on_window(320, 10), Ok(false));
        assert_eq!(
            (credit.limit(), credit.peer_consumed(), credit.available()),
            (350, 80, 50)
        );
    }

    #[test]
    fn consumed_may_not_pass_the_sent_cost() {
        // P-4.5
        let mut credit = SendCredit::new(300);
        credit.take(8).unwrap();
        assert_eq!(
            credit.on_window(500, 265),
            Err(WindowError {
                consumed: 265,
                sent: 264
            })
        );
        assert_eq!((credit.limit(), credit.peer_consumed()), (300, 0));
        assert_eq!(credit.on_window(500, 264), Ok(true));
        assert_eq!((credit.limit(), credit.peer_consumed()), (500, 264));
    }
}
