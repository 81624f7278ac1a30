//! A number of bytes that many requests share.

use crate::sync::{Arc, AtomicU64, Ordering};

/// A bounded number of bytes from which many requests borrow: that of a link, below that of the process (P-4.6, F13).
///
/// A handle: clones share the same bytes. A charge is counted at every level or at none. No other memory depends on the
/// counters, so that all operations are relaxed.
///
/// The caller measures what it charges: the buffers that are pinned, not the slices that pin them (P-4.7).
#[derive(Debug, Clone)]
pub struct Budget {
    level: Arc<Level>,
}

#[derive(Debug)]
struct Level {
    capacity: AtomicU64,
    /// Above `capacity` only after that was lowered.
    used: AtomicU64,
    above: Option<Budget>,
}

impl Budget {
    /// A budget without a parent.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self::with(capacity, None)
    }

    /// A budget below this one: its charges count in both.
    #[must_use]
    pub fn child(&self, capacity: u64) -> Self {
        Self::with(capacity, Some(self.clone()))
    }

    fn with(capacity: u64, above: Option<Self>) -> Self {
        Self {
            level: Arc::new(Level {
                capacity: AtomicU64::new(capacity),
                used: AtomicU64::new(0),
                above,
            }),
        }
    }

    /// Charges `bytes` here and to all parents, or nothing at all.
    ///
    /// While a parent refuses a charge, its bytes count here for a moment, so that a concurrent charge may be refused
    /// although it would have fitted; never the other way round.
    #[must_use = "bytes that were charged must be released"]
    pub fn try_charge(&self, bytes: u64) -> bool {
        let level = &*self.level;
        let capacity = self.capacity();
        let charged = level
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes)
                    .filter(|charged| *charged <= capacity)
            });
        if charged.is_err() {
            return false;
        }
        match &level.above {
            Some(above) if !above.try_charge(bytes) => {
                level.give_back(bytes);
                false
            }
            _ => true,
        }
    }

    /// Returns `bytes` to this budget and to all of its parents. Returning more than was charged is an error of the
    /// caller; the counter stops at zero.
    pub fn release(&self, bytes: u64) {
        self.level.give_back(bytes);
        if let Some(above) = &self.level.above {
            above.release(bytes);
        }
    }

    /// Charges `bytes` as a [`Loan`], which returns them when it is dropped.
    #[must_use]
    pub fn borrow(&self, bytes: u64) -> Option<Loan> {
        self.try_charge(bytes).then(|| Loan {
            budget: self.clone(),
            bytes,
        })
    }

    /// The bytes charged at this level.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.level.used.load(Ordering::Relaxed)
    }

    /// The most that may be charged at this level.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.level.capacity.load(Ordering::Relaxed)
    }

    /// Changes the most that may be charged at this level. What is charged already stays, also above a lower capacity.
    pub fn set_capacity(&self, capacity: u64) {
        self.level.capacity.store(capacity, Ordering::Relaxed);
    }

    /// Whether more than seven eighths of this budget or of a parent are used: time to return bytes instead of
    /// borrowing more.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        let capacity = self.capacity();
        let calm = capacity - capacity.div_ceil(8);
        self.used() > calm || self.level.above.as_ref().is_some_and(Self::is_pressed)
    }
}

impl Level {
    fn give_back(&self, bytes: u64) {
        // Cannot fail: the closure always returns a value.
        let _ = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                Some(used.saturating_sub(bytes))
            });
    }
}

/// Bytes borrowed from a [`Budget`]. They are returned when this is dropped, so that none can be forgotten or returned
/// twice.
#[derive(Debug)]
#[must_use = "dropping a loan gives the bytes back"]
pub struct Loan {
    budget: Budget,
    bytes: u64,
}

impl Loan {
    /// The bytes borrowed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Borrows `more` bytes from the same budget; false, and nothing changes, when it refuses.
    #[must_use]
    pub fn try_grow(&mut self, more: u64) -> bool {
        let granted = self.budget.try_charge(more);
        if granted {
            self.bytes += more;
        }
        granted
    }

    /// Returns all but `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        self.budget.release(less);
        self.bytes -= less;
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

#[cfg(all(test, not(adit_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_lower_capacity_takes_nothing_back() {
        let budget = Budget::new(100);
        assert!(budget.try_charge(80));
        budget.set_capacity(50);
        assert!(budget.is_pressed() && !budget.try_charge(1));
        budget.release(40);
        assert!(budget.try_charge(10) && !budget.try_charge(1));
        budget.set_capacity(200);
        assert!(!budget.is_pressed() && budget.try_charge(150));
    }

    #[test]
    fn the_capacity_can_be_used_whole_and_not_passed() {
        let budget = Budget::new(100);
        assert!(budget.try_charge(60));
        assert!(!budget.try_charge(41));
        assert!(budget.try_charge(40));
        assert!(!budget.try_charge(1));
        assert!(!budget.try_charge(u64::MAX));
        assert_eq!((budget.used(), budget.capacity()), (100, 100));
        budget.release(30);
        assert_eq!(budget.used(), 70);
        budget.release(71);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_charge_goes_through_every_level_or_none() {
        let process = Budget::new(100);
        let (one, two) = (process.child(80), process.child(80));
        assert!(one.try_charge(70));
        assert_eq!((one.used(), two.used(), process.used()), (70, 0, 70));
        assert!(!one.try_charge(11), "refused by the link");
        assert!(!two.try_charge(31), "refused by the process");
        assert_eq!((one.used(), two.used(), process.used()), (70, 0, 70));
        assert!(two.try_charge(30));
        one.release(70);
        assert_eq!((one.used(), two.used(), process.used()), (0, 30, 30));
        assert_eq!((one.capacity(), process.capacity()), (80, 100));
    }

    #[test]
    fn pressed_above_seven_eighths() {
        for (capacity, calm, pressed) in [(64, 56, 57), (100, 87, 88), (7, 6, 7)] {
            let budget = Budget::new(capacity);
            assert!(budget.try_charge(calm));
            assert!(!budget.is_pressed(), "{calm} of {capacity}");
            assert!(budget.try_charge(pressed - calm));
            assert!(budget.is_pressed(), "{pressed} of {capacity}");
        }
        assert!(!Budget::new(0).is_pressed());
    }

    #[test]
    fn pressure_above_is_felt_below() {
        let process = Budget::new(64);
        let link = process.child(1000);
        assert!(!link.is_pressed());
        assert!(process.try_charge(57));
        assert!(link.is_pressed());
        process.release(57);
        let small = process.child(8);
        assert!(small.try_charge(8));
        assert!(small.is_pressed());
        assert!(!process.is_pressed());
    }

    #[test]
    fn a_loan_goes_back_by_itself() {
        let budget = Budget::new(100);
        assert!(budget.borrow(101).is_none());
        let mut loan = budget.borrow(40).unwrap();
        assert!(loan.try_grow(60));
        assert!(!loan.try_grow(1));
        assert_eq!((loan.bytes(), budget.used()), (100, 100));
        loan.shrink_to(30);
        assert_eq!((loan.bytes(), budget.used()), (30, 30));
        loan.shrink_to(31);
        assert_eq!((loan.bytes(), budget.used()), (30, 30));
        drop(loan);
        assert_eq!(budget.used(), 0);
    }
}
