//! The credit that a receiver has granted.

use thiserror::Error;

use crate::{Budget, Loan, MESSAGE_COST};

/// The largest window that P-4.6 allows.
pub const MAX_WINDOW: u64 = 4 * 1024 * 1024;

/// The smallest window that a receiver works with. Half of it holds a message of one byte: a sender with less credit
/// has consumed enough for a grant to be due, so that the two can never wait for each other.
pub const MIN_WINDOW: u64 = 2 * (MESSAGE_COST + 1);

/// A window does not grow before this many initial windows have been consumed. A socket buffers about a hundred KiB for
/// a visitor that reads nothing, and a thousand such visitors would otherwise borrow the whole budget permanently. The
/// rule costs a long path one or two round trips, once.
const GROWS_AFTER: u64 = 4;

/// What one direction of one request may still send to us (P-4.4 to P-4.6).
///
/// **When a grant is due.** When it would move the limit by at least half of the window, which is when half of the window has been consumed since the last one.
///
/// **When the window grows.** When the window limited the request: the sender had used all of it, and the receiver had
/// almost nothing left to consume. Both conditions are needed. A slow sender leaves credit unused; a slow receiver
/// always has something left, and a larger window would only fill with bytes that it cannot write. Without a clock, the
/// sender counts as having used all
/// - when less than an eighth of the window is unused at the moment of the grant, or
/// - when a message ended exactly at a limit that was granted. A sender cuts its last message to what the limit leaves,
///   so it stops exactly there; a sender that has received a higher limit in time sends beyond it. This detects the
///   sender on a long path, whose last bytes are still in transit when the grant becomes due.
///
/// Each doubling requires both conditions again, for the larger window, so that the window follows the path's size and
/// does not exceed it. The first one also requires that four initial windows have been consumed.
///
/// **What is borrowed.** The window beyond the initial one, from the budget, before the limit moves. Under pressure the
/// window halves, down to the initial one, and the difference is returned at once. That is safe although the limit
/// itself never decreases (P-4.3): half of the old window has been consumed by then, so what the limit still allows
/// fits in the new one.
#[derive(Debug)]
pub struct RecvCredit {
    /// Distance of the limit from `consumed` right after a grant.
    window: u64,
    /// The initial and smallest size of the window; not borrowed from a budget.
    initial: u64,
    /// The window does not grow before this much has been consumed.
    grows_after: u64,
    /// A grant is due when this much has been consumed: half of the window since the last one. Never after the end of
    /// the direction.
    due_at: u64,
    /// The highest limit granted: the peer may send up to it.
    limit: u64,
    /// The limit before `limit`, which the peer follows until it receives the newest one; equal to `limit` when the
    /// window grew between the two.
    previous_limit: u64,
    /// The cost received so far; never above `limit`.
    received: u64,
    /// The cost consumed so far; never above `received`.
    consumed: u64,
    /// The sender has used all of its credit since the window last grew.
    used_up: bool,
    /// Little was left here to consume since the window last grew.
    ran_low: bool,
    /// `window - initial`, if that is not zero. A loan, so that it is returned even without a call of
    /// [`release`](Self::release).
    loan: Option<Loan>,
}

/// A `Window` to send; both numbers are absolute (P-4.2, P-4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The new limit of the sum of costs.
    pub limit: u64,
    /// The cost that has left the receiver.
    pub consumed: u64,
}

/// The peer has exceeded its limit (P-4.4): reset the request with `FLOW_CONTROL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the peer exceeded its limit {limit} by sending up to {at}: reset the request")]
pub struct Overrun {
    /// The limit that was granted.
    pub limit: u64,
    /// The end of the rejected bytes.
    pub at: u64,
}

impl RecvCredit {
    /// The credit at the start of a direction: `settings.initial_window_bytes`. If that is below [`MIN_WINDOW`], a
    /// grant that makes up for it is due at once.
    #[must_use]
    pub fn new(initial_window: u32) -> Self {
        let limit = u64::from(initial_window);
        let window = limit.max(MIN_WINDOW);
        Self {
            window,
            initial: window,
            grows_after: window.saturating_mul(GROWS_AFTER),
            due_at: Self::due_at(limit, window),
            limit,
            previous_limit: limit,
            received: 0,
            consumed: 0,
            used_up: false,
            ran_low: false,
            loan: None,
        }
    }

    /// The amount of consumption that moves the desired limit by half of the window, rounded up.
    fn due_at(limit: u64, window: u64) -> u64 {
        limit.saturating_sub(window / 2)
    }

    /// Counts received cost. A payload may arrive in parts: charge [`MESSAGE_COST`](crate::MESSAGE_COST) at the start
    /// of the message and the length of every part as it arrives.
    ///
    /// # Errors
    ///
    /// [`Overrun`] when the peer exceeds its limit (P-4.4); nothing is counted.
    #[inline]
    pub fn on_received(&mut self, cost: u64) -> Result<(), Overrun> {
        let at = self.received.saturating_add(cost);
        if at > self.limit {
            return Err(Overrun {
                limit: self.limit,
                at,
            });
        }
        self.received = at;
        self.used_up |= at == self.previous_limit || at == self.limit;
        Ok(())
    }

    /// Counts cost that has left the receiver, at most what was received (P-4.5). Returns whether a window is now due.
    #[inline]
    pub fn consume(&mut self, cost: u64) -> bool {
        self.consumed = self.consumed.saturating_add(cost).min(self.received);
        self.ran_low |= self.buffered() < self.window / 8;
        self.is_due()
    }

    /// The window to send, when one is due. Its size follows what the sender uses, up to `max_window`, and what the budget allows (P-4.6).
    ///
    /// Under pressure a window that is due may shrink to one that is not due yet; then there is nothing to send either.
    ///
    /// A window that neither should grow nor has borrowed anything does not access the budget, whose counters all
    /// requests share.
    #[inline]
    pub fn grant(&mut self, budget: &Budget, max_window: u64) -> Option<Grant> {
        if !self.is_due() {
            return None;
        }
        self.used_up |= self.limit - self.received < self.window / 8;
        let mut previous_limit = self.limit;
        let grows = self.used_up && self.ran_low && self.consumed >= self.grows_after;
        if grows || self.loan.is_some() {
            let before = self.window;
            self.resize(grows, budget, max_window);
            if !self.is_due() {
                return None;
            }
            if self.window > before {
                // A stop at a limit of the smaller window does not count for the larger one.
                previous_limit = self.consumed.saturating_add(self.window);
            }
        }
        let limit = self.consumed.saturating_add(self.window);
        self.previous_limit = previous_limit;
        self.limit = limit;
        self.due_at = Self::due_at(limit, self.window);
        Some(Grant {
            limit,
            consumed: self.consumed,
        })
    }

    /// Lets the window follow what the sender uses and what the budget allows.
    #[cold]
    fn resize(&mut self, grows: bool, budget: &Budget, max_window: u64) {
        if budget.is_pressed() {
            self.shrink();
        } else if grows {
            self.grow(budget, max_window);
        }
        self.due_at = Self::due_at(self.limit, self.window);
    }

    /// The current window: distance of the limit from the consumed cost right after a grant.
    #[must_use]
    #[inline]
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Cost received and not consumed.
    #[must_use]
    #[inline]
    pub fn buffered(&self) -> u64 {
        self.received - self.consumed
    }

    /// The limit that the peer may send up to.
    #[must_use]
    #[inline]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The sum of the costs received.
    #[must_use]
    #[inline]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The cost that has left the receiver.
    #[must_use]
    #[inline]
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// Ends the direction: returns borrowed bytes, and grants nothing more. A second call does nothing; dropping the
    /// credit returns them as well.
    pub fn release(&mut self) {
        self.due_at = u64::MAX;
        self.loan = None;
    }

    fn is_due(&self) -> bool {
        self.consumed >= self.due_at
    }

    fn grow(&mut self, budget: &Budget, max_window: u64) {
        let grown = self.window.saturating_mul(2).min(max_window);
        let Some(more) = grown.checked_sub(self.window).filter(|more| *more > 0) else {
            return;
        };
        let charged = match &mut self.loan {
            Some(loan) => loan.try_grow(more),
            None => {
                self.loan = budget.borrow(more);
                self.loan.is_some()
            }
        };
        if charged {
            self.window = grown;
            self.used_up = false;
            self.ran_low = false;
        }
    }

    /// Called only when a grant is due: then the limit still allows at most half of the window, and no more than that
    /// may stay borrowed.
    fn shrink(&mut self) {
        self.window = (self.window / 2).max(self.initial);
        let borrowed = self.window - self.initial;
        if borrowed == 0 {
            self.loan = None;
        } else if let Some(loan) = &mut self.loan {
            loan.shrink_to(borrowed);
        }
    }
}

#[cfg(all(test, not(adit_loom)))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const W: u64 = 32 * 1024;

    /// A credit that may grow at once, without the rule of `GROWS_AFTER`.
    fn credit() -> RecvCredit {
        RecvCredit {
            grows_after: 0,
            ..RecvCredit::new(32 * 1024)
        }
    }

    fn take(credit: &mut RecvCredit, cost: u64) -> bool {
        credit.on_received(cost).unwrap();
        credit.consume(cost)
    }

    fn window_after(limit: u64, consumed: u64) -> Option<Grant> {
        Some(Grant { limit, consumed })
    }

    #[test]
    fn the_limit_may_be_reached_and_not_passed() {
        // P-4.4
        let mut credit = credit();
        credit.on_received(W - 1).unwrap();
        assert_eq!(
            credit.on_received(2),
            Err(Overrun {
                limit: W,
                at: W + 1
            })
        );
        credit.on_received(1).unwrap();
        assert_eq!((credit.received(), credit.buffered()), (W, W));
        assert_eq!(
            credit.on_received(u64::MAX),
            Err(Overrun {
                limit: W,
                at: u64::MAX
            })
        );
        assert_eq!(credit.received(), W);
    }

    #[test]
    fn a_window_is_due_when_half_has_been_consumed() {
        // P-4.6
        let budget = Budget::new(0);
        let mut credit = credit();
        credit.on_received(W / 2 + 100).unwrap();
        assert!(!credit.consume(W / 2 - 1));
        assert_eq!(credit.grant(&budget, MAX_WINDOW), None);
        assert!(credit.consume(1));
        assert!(credit.consume(0), "due until it is granted");
        assert_eq!(
            credit.grant(&budget, MAX_WINDOW),
            window_after(W / 2 + W, W / 2)
        );
        assert_eq!((credit.limit(), credit.window()), (W / 2 + W, W));
        assert_eq!((credit.consumed(), credit.buffered()), (W / 2, 100));
        assert!(!credit.consume(100));
        assert_eq!(credit.grant(&budget, MAX_WINDOW), None);
    }

    #[test]
    fn the_half_is_rounded_up() {
        let mut credit = RecvCredit::new(515);
        assert!(!take(&mut credit, 257));
        assert!(take(&mut credit, 1));
    }

    #[test]
    fn no_more_is_consumed_than_was_received() {
        // P-4.5
        let mut credit = credit();
        credit.on_received(100).unwrap();
        assert!(!credit.consume(u64::MAX));
        assert_eq!((credit.consumed(), credit.buffered()), (100, 0));
    }

    #[test]
    fn a_window_below_one_message_grows_at_once() {
        let budget = Budget::new(0);
        let mut credit = RecvCredit::new(10);
        assert_eq!(credit.limit(), 10);
        assert_eq!(
            credit.grant(&budget, MAX_WINDOW),
            window_after(MIN_WINDOW, 0)
        );
        assert_eq!(
            RecvCredit::new(257).grant(&budget, MAX_WINDOW),
            window_after(MIN_WINDOW, 0)
        );
        assert_eq!(RecvCredit::new(258).grant(&budget, MAX_WINDOW), None);
    }

    /// A budget, and a credit after `received` and `consumed`.
    fn after(received: u64, consumed: u64) -> (Budget, RecvCredit) {
        let mut credit = credit();
        credit.on_received(received).unwrap();
        assert!(credit.consume(consumed));
        (Budget::new(MAX_WINDOW), credit)
    }

    #[test]
    fn grows_when_all_was_used_and_little_is_left() {
        // P-4.6
        let (budget, mut credit) = after(W, W);
        assert_eq!(credit.grant(&budget, MAX_WINDOW), window_after(3 * W, W));
        assert_eq!((credit.window(), budget.used()), (2 * W, W));
        // The next doubling requires both conditions again.
        assert!(take(&mut credit, W));
        assert_eq!(
            credit.grant(&budget, MAX_WINDOW),
            window_after(4 * W, 2 * W)
        );
        assert_eq!((credit.window(), budget.used()), (2 * W, W));
    }

    #[test]
    fn does_not_grow_before_four_windows_have_been_consumed() {
        let budget = Budget::new(MAX_WINDOW);
        let mut credit = RecvCredit::new(u32::try_from(W).unwrap());
        let windows: Vec<_> = (0..5)
            .map(|_| {
                let all = credit.limit() - credit.received();
                assert!(take(&mut credit, all));
                assert!(credit.grant(&budget, MAX_WINDOW).is_some());
                credit.window()
            })
            .collect();
        assert_eq!(windows, [W, W, W, 2 * W, 4 * W]);
    }

    #[test]
    fn an_eighth_unused_is_not_all_used() {
        let (budget, mut credit) = after(W - W / 8, W - W / 8);
        assert!(credit.grant(&budget, MAX_WINDOW).is_some());
        assert_eq!(credit.window(), W);
        let (budget, mut credit) = after(W - W / 8 + 1, W - W / 8 + 1);
        assert!(credit.grant(&budget, MAX_WINDOW).is_some());
        assert_eq!(credit.window(), 2 * W);
    }

    #[test]
    fn an_eighth_left_is_not_low() {
        let (budget, mut credit) = after(W, W - W / 8);
        assert!(credit.grant(&budget, MAX_WINDOW).is_some());
        assert_eq!(credit.window(), W);
        let (budget, mut credit) = after(W, W - W / 8 + 1);
        assert!(credit.grant(&budget, MAX_WINDOW).is_some());
        assert_eq!(credit.window(), 2 * W);
    }

    #[test]
    fn a_stop_at_an_earlier_limit_counts_as_used_up() {
        // The receiver consumes at once; the grant crosses the rest of the old window on its way.
        let budget = Budget::new(MAX_WINDOW);
        let mut credit = credit();
        assert!(take(&mut credit, W / 2));
        assert_eq!(
            credit.grant(&budget, MAX_WINDOW),
            window_after(W + W / 2, W / 2)
        );
        assert!(take(&mut credit, W / 2));
        assert_eq!(credit.grant(&budget, MAX_WINDOW), window_after(3 * W, W));
        assert_eq!(credit.window(), 2 * W);
    }

    #[test]
    fn sending_across_the_earlier_limit_does_not_count() {
        let budget = Budget::new(MAX_WINDOW);
        let mut credit = credit();
        assert!(take(&mut credit, W / 2));
        credit.grant(&budget, MAX_WINDOW).unwrap();
        take(&mut credit, W / 2 - 1);
        assert!(take(&mut credit, 2));
        credit.grant(&budget, MAX_WINDOW).unwrap();
        assert_eq!(credit.window(), W);
        // The sender stopped at the newest limit: 3/2 W was granted first, then W + 1 + W.
        take(&mut credit, W);
        credit.grant(&budget, MAX_WINDOW).unwrap();
        assert_eq!(credit.window(), 2 * W);
    }

    #[test]
    fn a_stop_at_the_smaller_window_does_not_count() {
        let budget = Budget::new(MAX_WINDOW);
        let mut credit = credit();
        take(&mut credit, W / 2);
        credit.grant(&budget, MAX_WINDOW).unwrap();
        take(&mut credit, W / 2);
        credit.grant(&budget, MAX_WINDOW).unwrap();
        assert_eq!((credit.limit(), credit.window()), (3 * W, 2 * W));
        // The sender stops at 3/2 W, before it receives 3 W.
        take(&mut credit, W / 2);
        assert!(take(&mut credit, W / 2));
        assert_eq!(
            credit.grant(&budget, MAX_WINDOW),
            window_after(4 * W, 2 * W)
        );
        // The sender stops at 3 W, the limit of the larger window.
        take(&mut credit, W);
        assert_eq!(
            credit.grant(&budget, MAX_WINDOW),
            window_after(7 * W, 3 * W)
        );
    }

    #[test]
    fn a_window_never_passes_4_mib() {
        // P-4.6
        let budget = Budget::new(u64::MAX);
        let mut credit = credit();
        for _ in 0..10 {
            let all = credit.limit() - credit.received();
            take(&mut credit, all);
            credit.grant(&budget, MAX_WINDOW).unwrap();
        }
        assert_eq!(credit.window(), 4 << 20);
    }

    #[test]
    fn grows_to_the_largest_window_and_no_further() {
        let (budget, mut credit) = after(W, W);
        assert_eq!(credit.grant(&budget, W + 100), window_after(2 * W + 100, W));
        assert_eq!((credit.window(), budget.used()), (W + 100, 100));
        credit.on_received(W + 100).unwrap();
        credit.consume(W + 100);
        credit.grant(&budget, W + 100).unwrap();
        assert_eq!((credit.window(), budget.used()), (W + 100, 100));
        take(&mut credit, W + 100);
        credit.grant(&budget, 1).unwrap();
        assert_eq!((credit.window(), budget.used()), (W + 100, 100));
    }

    #[test]
    fn the_window_grows_only_with_the_budget() {
        let (_, mut credit) = after(W, W);
        let full = Budget::new(W - 1);
        assert_eq!(credit.grant(&full, MAX_WINDOW), window_after(2 * W, W));
        assert_eq!((credit.window(), full.used()), (W, 0));
        take(&mut credit, W / 2 + 1);
        let free = Budget::new(W);
        credit.grant(&free, MAX_WINDOW).unwrap();
        assert_eq!((credit.window(), free.used()), (2 * W, W));
        credit.release();
        assert_eq!(free.used(), 0);
    }

    #[test]
    fn halves_under_pressure_and_gives_back_at_once() {
        // P-4.3, P-4.6: 4 W are borrowed from a budget of 8 W, which is then under pressure.
        let budget = Budget::new(8 * W);
        let mut credit = credit();
        take(&mut credit, W);
        credit.grant(&budget, MAX_WINDOW).unwrap();
        take(&mut credit, 2 * W);
        assert_eq!(
            credit.grant(&budget, MAX_WINDOW),
            window_after(7 * W, 3 * W)
        );
        assert_eq!((credit.window(), budget.used()), (4 * W, 3 * W));
        assert!(budget.try_charge(5 * W));
        // Half of the window is consumed: it halves, and the limit needs no change.
        assert!(take(&mut credit, 2 * W));
        assert_eq!(credit.grant(&budget, MAX_WINDOW), None);
        assert_eq!((credit.window(), credit.limit()), (2 * W, 7 * W));
        assert_eq!(budget.used(), 6 * W);
        assert!(budget.try_charge(2 * W));
        // All of the window is consumed: it halves, and the limit advances by the new window.
        assert!(take(&mut credit, 2 * W));
        assert_eq!(
            credit.grant(&budget, MAX_WINDOW),
            window_after(8 * W, 7 * W)
        );
        assert_eq!((credit.window(), budget.used()), (W, 7 * W));
        // The window does not fall below the initial one, and does not grow under pressure.
        assert!(budget.try_charge(W));
        assert!(take(&mut credit, W));
        assert_eq!(
            credit.grant(&budget, MAX_WINDOW),
            window_after(9 * W, 8 * W)
        );
        assert_eq!((credit.window(), budget.used()), (W, 8 * W));
        // After the pressure, the conditions for growth that were met before still hold.
        budget.release(8 * W);
        assert!(take(&mut credit, W));
        assert_eq!(
            credit.grant(&budget, MAX_WINDOW),
            window_after(11 * W, 9 * W)
        );
        assert_eq!(budget.used(), W);
    }

    #[test]
    fn a_loan_is_returned_once() {
        let (budget, mut credit) = after(W, W);
        credit.grant(&budget, MAX_WINDOW).unwrap();
        assert!(budget.try_charge(7));
        assert_eq!(budget.used(), W + 7);
        credit.release();
        credit.release();
        assert_eq!(budget.used(), 7);
        // The direction is over: nothing more is granted or borrowed.
        credit.on_received(2 * W).unwrap();
        assert!(!credit.consume(2 * W));
        assert_eq!(credit.grant(&budget, MAX_WINDOW), None);
        drop(credit);
        assert_eq!(budget.used(), 7);
    }

    #[test]
    fn a_loan_is_returned_when_the_credit_is_dropped() {
        let (budget, mut credit) = after(W, W);
        credit.grant(&budget, MAX_WINDOW).unwrap();
        assert_eq!(budget.used(), W);
        drop(credit);
        assert_eq!(budget.used(), 0);
    }
}
