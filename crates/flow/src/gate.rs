//! Permits that tasks wait for.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use thiserror::Error;

pub use self::shares::{Claim, Shares};
use self::{
    line::{Line, Place},
    shares::{Holders, Level},
};
use crate::sync::{Arc, AtomicI64, Mutex, MutexGuard, Ordering, PoisonError};

mod line;
mod shares;

/// A number of permits, and a bounded line of tasks that wait for one (F12).
///
/// First come, first served, by the first poll of [`Acquire`]: a returned permit is given to the task at the head of
/// the line, never to a task outside of it. The caller's timer bounds a wait by dropping the future. It works with any
/// runtime.
///
/// Permits that are acquired with a [`Claim`] are shared by [`Shares`] when they run short: a holder that has its share waits in a line of its own, until enough permits are free for others.
///
/// While no task waits, taking a permit is one exchange of a word, and so is its return. A task that finds no permit
/// marks the word under the lock of the line; while it is marked every change goes through that lock. Many locks and
/// semaphores work so (Drepper, "Futexes Are Tricky", 2011).
///
/// # Complexity
///
/// Constant time per call, except [`close`](Self::close), [`set_permits`](Self::set_permits) and [`reconfigure`](Self::reconfigure), which wake every task concerned.
pub struct Gate {
    /// Twice the number of free permits, negative after their number was lowered; odd while a task waits or the gate is
    /// closed: then it only changes under the lock. While a task waits and the gate is open, the free permits are at
    /// most those that a waiting task has to leave to others.
    word: AtomicI64,
    /// Permits with a claim are taken without the lock, and not counted, while more than this are free.
    plenty: AtomicI64,
    state: Mutex<State>,
}

/// The value that one free permit adds to the word.
const ONE: i64 = 2;

/// The bit of the word that means: take the lock before a change.
const MARK: i64 = 1;

/// Upper bound of the number of permits: what the word can count, with room for permits in use.
const MOST: i64 = 1 << 60;

/// Why a task gets no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GateError {
    /// The number of waiting tasks is at its bound: report that the limit is reached.
    #[error("no permit is free and the queue is full: try again later")]
    Full,
    /// The gate has been closed: no permit is granted any more.
    #[error("the gate is closed: it grants no more permits")]
    Closed,
}

/// The right to have one more request open; returns to its gate when it is dropped.
#[must_use = "dropping a permit gives it back at once"]
pub struct Permit {
    gate: Arc<Gate>,
    /// The holder that is charged.
    claim: Option<Claim>,
}

/// A task's place in the line, from its first poll on.
///
/// # Cancel safety
///
/// Dropping it frees the place. A permit that was already given to it is passed to the next task in the line.
#[must_use = "a future does nothing unless it is polled"]
pub struct Acquire {
    /// Moves into the permit; `None` once this has completed.
    gate: Option<Arc<Gate>>,
    /// This task's place, once it is in a line.
    place: Option<(Level, u32)>,
    claim: Option<Claim>,
}

struct State {
    permits: i64,
    max_waiters: usize,
    closed: bool,
    shares: Shares,
    holders: Holders,
    /// One line for each level.
    lines: [Line; 3],
}

/// How a permit was taken.
enum Taken {
    /// Without the lock, while permits were plenty.
    Uncounted,
    /// Under the lock, and counted for the claim of its task.
    Counted,
}

impl Gate {
    /// A gate with `permits` permits, where at most `max_waiters` tasks wait.
    #[must_use]
    pub fn new(permits: usize, max_waiters: usize) -> Arc<Self> {
        Self::shared(permits, max_waiters, Shares::NONE)
    }

    /// [`Gate::new`], with permits that are shared when they run short. Of the tasks that wait, those that have their share
    /// already are at most half.
    #[must_use]
    pub fn shared(permits: usize, max_waiters: usize, shares: Shares) -> Arc<Self> {
        let permits = counted(permits);
        let holders = Holders::new(shares, permits);
        Arc::new(Self {
            word: AtomicI64::new(permits * ONE),
            plenty: AtomicI64::new(holders.plenty()),
            state: Mutex::new(State {
                permits,
                max_waiters,
                closed: false,
                shares,
                holders,
                lines: Default::default(),
            }),
        })
    }

    /// A permit, if one is free now and no task waits for it.
    #[must_use]
    #[inline]
    pub fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        self.take(0).then(|| Permit {
            gate: Arc::clone(self),
            claim: None,
        })
    }

    /// [`Gate::try_acquire`] for a holder that has to leave some to others.
    #[must_use]
    #[inline]
    pub fn try_acquire_for(self: &Arc<Self>, claim: Claim) -> Option<Permit> {
        self.try_acquire_plenty().or_else(|| {
            self.take_share(&mut self.lock(), claim)?;
            Some(Permit {
                gate: Arc::clone(self),
                claim: Some(claim),
            })
        })
    }

    /// A permit, if they are plenty: if more are free than any holder must leave to others. The holder does not matter
    /// then.
    #[must_use]
    #[inline]
    pub fn try_acquire_plenty(self: &Arc<Self>) -> Option<Permit> {
        self.take(self.plenty.load(Ordering::Relaxed))
            .then(|| Permit {
                gate: Arc::clone(self),
                claim: None,
            })
    }

    /// Whether [`Gate::try_acquire_for`] would return a permit now.
    #[must_use]
    #[inline]
    pub fn has_room_for(&self, claim: Claim) -> bool {
        let free = self.free();
        if free > self.plenty.load(Ordering::Relaxed) {
            return true;
        }
        let state = self.lock();
        !state.closed && free > state.holders.rest(state.holders.level(claim))
    }

    /// Waits for a permit.
    ///
    /// The future returns [`GateError::Full`] at its first poll if the line is full, and [`GateError::Closed`] if the
    /// gate is or gets closed, or if it is polled after it has completed.
    #[inline]
    pub fn acquire(self: &Arc<Self>) -> Acquire {
        Acquire {
            gate: Some(Arc::clone(self)),
            place: None,
            claim: None,
        }
    }

    /// [`Gate::acquire`] for a holder that has to leave some to others.
    #[inline]
    pub fn acquire_for(self: &Arc<Self>, claim: Claim) -> Acquire {
        Acquire {
            gate: Some(Arc::clone(self)),
            place: None,
            claim: Some(claim),
        }
    }

    /// Number of free permits.
    #[must_use]
    pub fn available(&self) -> usize {
        usize::try_from(self.free()).unwrap_or(0)
    }

    /// Number of permits in use, including those given to waiters that have not been polled since. Greater than the
    /// number of permits only after that was lowered.
    #[must_use]
    pub fn in_use(&self) -> usize {
        let state = self.lock();
        usize::try_from(state.permits - self.free()).unwrap_or(0)
    }

    /// Number of waiting tasks, in all lines.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// Rejects all waiting and later tasks. Permits in use, or given to a waiter before, stay valid.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.word.fetch_or(MARK, Ordering::Relaxed);
        let mut wakers = Vec::with_capacity(state.waiting());
        for line in &mut state.lines {
            while let Some(waker) = line.pop(Place::TurnedAway) {
                wakers.push(waker);
            }
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Changes the number of permits. A greater number takes effect at once, a smaller one as permits are returned.
    pub fn set_permits(&self, permits: usize) {
        self.change(permits, None);
    }

    /// Changes all parameters of [`Gate::shared`]. More permits take effect at once; fewer, and a shorter line, as
    /// permits are returned.
    pub fn reconfigure(&self, permits: usize, max_waiters: usize, shares: Shares) {
        self.change(permits, Some((max_waiters, shares)));
    }

    fn change(&self, permits: usize, line: Option<(usize, Shares)>) {
        let mut state = self.lock();
        let permits = counted(permits);
        let more = permits - state.permits;
        state.permits = permits;
        if let Some((max_waiters, shares)) = line {
            state.max_waiters = max_waiters;
            state.shares = shares;
        }
        let shares = state.shares;
        state.holders.set_permits(shares, permits);
        self.plenty.store(state.holders.plenty(), Ordering::Relaxed);
        self.word.fetch_add(more * ONE, Ordering::AcqRel);
        let mut wakers = Vec::new();
        while let Some(waker) = state.pop(self.free()) {
            self.word.fetch_sub(ONE, Ordering::AcqRel);
            wakers.push(waker);
        }
        self.unmark(&state);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn free(&self) -> i64 {
        // The shift rounds down, which removes the mark.
        self.word.load(Ordering::Acquire) >> 1
    }

    /// Takes a permit, if more than `rest` are free. Fails while a task waits, and at a closed gate.
    #[inline]
    fn take(&self, rest: i64) -> bool {
        let least = (rest + 1) * ONE;
        let mut word = self.word.load(Ordering::Relaxed);
        while word >= least && word & MARK == 0 {
            let taken = self.word.compare_exchange_weak(
                word,
                word - ONE,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            match taken {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Takes a permit for a claim, if its level leaves one.
    fn take_share(&self, state: &mut State, claim: Claim) -> Option<()> {
        let rest = state.holders.rest(state.holders.level(claim));
        if state.closed {
            return None;
        }
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word >> 1 <= rest {
                return None;
            }
            // The word may be marked: only the holder of the lock changes a marked word; other tasks change an unmarked
            // one.
            let taken = { &self.word }.compare_exchange(
                word,
                word - ONE,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            match taken {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        state.holders.add(claim);
        Some(())
    }

    #[inline]
    fn give_back(&self) {
        let mut word = self.word.load(Ordering::Relaxed);
        while word & MARK == 0 {
            let given = self.word.compare_exchange_weak(
                word,
                word + ONE,
                Ordering::Release,
                Ordering::Relaxed,
            );
            match given {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
        self.give_back_counted(None);
    }

    /// Returns a permit under the lock, and stops counting it for its claim.
    fn give_back_counted(&self, claim: Option<Claim>) {
        let mut state = self.lock();
        if let Some(claim) = claim {
            state.holders.remove(claim);
        }
        let waker = self.hand_over(&mut state);
        drop(state);
        // The waker is woken outside the lock: it may poll immediately, and call this gate again.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Gives a permit to the head of the line, and returns its waker; without a waiter the permit becomes free.
    #[inline]
    fn hand_over(&self, state: &mut State) -> Option<Waker> {
        // Below zero there is one permit too many; no task waits at a closed gate.
        let next = state.pop(self.free() + 1);
        if next.is_none() {
            self.word.fetch_add(ONE, Ordering::AcqRel);
        }
        self.unmark(state);
        next
    }

    /// Returns to changes without the lock when no task waits.
    #[inline]
    fn unmark(&self, state: &State) {
        if state.waiting() == 0 && !state.closed {
            self.word.fetch_and(!MARK, Ordering::AcqRel);
        }
    }

    /// The place in a line for a task without a permit, or the result of its wait.
    fn wait(
        &self,
        place: &mut Option<(Level, u32)>,
        claim: Option<Claim>,
        cx: &Context<'_>,
    ) -> Poll<Result<Taken, GateError>> {
        let mut state = self.lock();
        let Some((level, index)) = *place else {
            return self.join(&mut state, place, claim, cx);
        };
        let line = state.line(level);
        if let Some(waker) = line.waker(index) {
            let stale = if waker.will_wake(cx.waker()) {
                None
            } else {
                Some(std::mem::replace(waker, cx.waker().clone()))
            };
            // The stale waker is dropped after the lock: dropping it may run any code.
            drop(state);
            drop(stale);
            return Poll::Pending;
        }
        *place = None;
        Poll::Ready(match line.vacate(index) {
            Place::Handed => Ok(Taken::Counted),
            _ => {
                if let Some(claim) = claim {
                    state.holders.remove(claim);
                }
                Err(GateError::Closed)
            }
        })
    }

    /// Adds a task to a line, unless a permit has become free meanwhile.
    fn join(
        &self,
        state: &mut State,
        place: &mut Option<(Level, u32)>,
        claim: Option<Claim>,
        cx: &Context<'_>,
    ) -> Poll<Result<Taken, GateError>> {
        if state.closed {
            return Poll::Ready(Err(GateError::Closed));
        }
        let level = claim.map_or(Level::Normal, |claim| state.holders.level(claim));
        let rest = state.holders.rest(level);
        let full = state.is_full(level);
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let free = word >> 1 > rest;
            // The word may be marked already: other tasks wait, and permits are returned only under the lock.
            if !free && (full || word & MARK != 0) {
                break;
            }
            let to = if free { word - ONE } else { word | MARK };
            let changed =
                { &self.word }.compare_exchange(word, to, Ordering::Acquire, Ordering::Relaxed);
            match changed {
                Ok(_) if free => {
                    if let Some(claim) = claim {
                        state.holders.add(claim);
                    }
                    return Poll::Ready(Ok(Taken::Counted));
                }
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        if full {
            return Poll::Ready(Err(GateError::Full));
        }
        // A waiting task counts as a holder: a crowd of one address must not fill the line of all.
        if let Some(claim) = claim {
            state.holders.add(claim);
        }
        *place = Some((level, state.line(level).push(cx.waker().clone())));
        Poll::Pending
    }

    /// Handles the drop of a future that has a place.
    fn give_up(&self, (level, place): (Level, u32), claim: Option<Claim>) {
        let mut state = self.lock();
        let left = state.line(level).vacate(place);
        if let Some(claim) = claim {
            state.holders.remove(claim);
        }
        let next = match left {
            Place::Handed => self.hand_over(&mut state),
            _ => {
                self.unmark(&state);
                None
            }
        };
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
        // `left` may contain this task's waker, which is dropped here, after the lock.
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, State> {
        // No step under the lock leaves the state inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn line(&mut self, level: Level) -> &mut Line {
        match level {
            Level::Normal => &mut self.lines[0],
            Level::Tunnel => &mut self.lines[1],
            Level::Visitor => &mut self.lines[2],
        }
    }

    fn waiting(&self) -> usize {
        self.lines.iter().map(Line::waiting).sum()
    }

    fn is_full(&mut self, level: Level) -> bool {
        let shared = self.max_waiters.div_ceil(2);
        self.waiting() >= self.max_waiters
            || (level != Level::Normal && self.line(level).waiting() >= shared)
    }

    /// Removes from its line the first task that may have one of this many free permits.
    #[inline]
    fn pop(&mut self, free: i64) -> Option<Waker> {
        Level::ALL.into_iter().find_map(|level| {
            let has_room = free > self.holders.rest(level);
            has_room.then(|| self.line(level).pop(Place::Handed))?
        })
    }
}

/// A number of permits in the form of the word.
fn counted(permits: usize) -> i64 {
    i64::try_from(permits).map_or(MOST, |permits| permits.min(MOST))
}

impl Future for Acquire {
    type Output = Result<Permit, GateError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(gate) = &this.gate else {
            return Poll::Ready(Err(GateError::Closed));
        };
        let rest = match this.claim {
            Some(_) => gate.plenty.load(Ordering::Relaxed),
            None => 0,
        };
        let outcome = if this.place.is_none() && gate.take(rest) {
            Poll::Ready(Ok(Taken::Uncounted))
        } else {
            gate.wait(&mut this.place, this.claim, cx)
        };
        outcome.map(|outcome| {
            let gate = this.gate.take().ok_or(GateError::Closed)?;
            let claim = match outcome? {
                Taken::Uncounted => None,
                Taken::Counted => this.claim,
            };
            Ok(Permit { gate, claim })
        })
    }
}

impl Drop for Acquire {
    #[inline]
    fn drop(&mut self) {
        if let (Some(gate), Some(place)) = (&self.gate, self.place) {
            gate.give_up(place, self.claim);
        }
    }
}

impl Permit {
    /// Whether tasks wait for permits of this permit's gate.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.gate.waiting() > 0
    }

    /// The gate that the permit is from.
    #[must_use]
    pub const fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        match self.claim {
            None => self.gate.give_back(),
            claim => self.gate.give_back_counted(claim),
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (waiting, closed) = {
            let state = self.lock();
            (state.waiting(), state.closed)
        };
        f.debug_struct("Gate")
            .field("available", &self.available())
            .field("in_use", &self.in_use())
            .field("waiting", &waiting)
            .field("closed", &closed)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire")
            .field("waiting", &self.place.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(adit_loom)))]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn woken(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn poll(acquire: &mut Acquire, waker: &Arc<Count>) -> Poll<Result<Permit, GateError>> {
        let waker = Waker::from(Arc::clone(waker));
        Pin::new(acquire).poll(&mut Context::from_waker(&waker))
    }

    fn counts(gate: &Gate) -> (usize, usize, usize) {
        (gate.available(), gate.in_use(), gate.waiting())
    }

    #[test]
    fn reconfigured_permits_line_and_shares_hold_at_once() {
        let claim = Claim {
            tunnel: 1,
            visitor: 1,
        };
        let gate = Gate::new(10, 0);
        let mut held: Vec<_> = (0..5).map_while(|_| gate.try_acquire_for(claim)).collect();
        assert_eq!(held.len(), 5);
        let half = Shares {
            tunnel_percent: 50,
            visitor_percent: 50,
        };
        gate.reconfigure(10, 1, half);
        held.extend((0..5).map_while(|_| gate.try_acquire_for(claim)));
        assert!(held.len() < 10, "the other half is for others");
        let waker = Arc::default();
        let mut waiting = gate.acquire_for(claim);
        assert!(poll(&mut waiting, &waker).is_pending());
        assert!(matches!(
            poll(&mut gate.acquire_for(claim), &waker),
            Poll::Ready(Err(GateError::Full))
        ));
        gate.reconfigure(20, 1, Shares::NONE);
        assert_eq!(waker.woken(), 1);
    }

    #[test]
    fn permits_are_bounded_and_come_back() {
        let gate = Gate::new(2, 0);
        let first = gate.try_acquire().unwrap();
        let second = gate.try_acquire().unwrap();
        assert!(gate.try_acquire().is_none());
        assert_eq!(counts(&gate), (0, 2, 0));
        drop(first);
        assert_eq!(counts(&gate), (1, 1, 0));
        drop(second);
        assert_eq!(counts(&gate), (2, 0, 0));
    }

    #[test]
    fn a_free_permit_is_had_at_the_first_poll() {
        let gate = Gate::new(1, 0);
        let waker = Arc::new(Count::default());
        let mut acquire = gate.acquire();
        assert!(matches!(poll(&mut acquire, &waker), Poll::Ready(Ok(_))));
        assert_eq!(counts(&gate), (1, 0, 0));
    }

    #[test]
    fn a_served_waiter_gets_one_permit() {
        let gate = Gate::new(2, 0);
        let waker = Arc::new(Count::default());
        let mut acquire = gate.acquire();
        let first = poll(&mut acquire, &waker);
        assert!(matches!(first, Poll::Ready(Ok(_))));
        assert!(matches!(
            poll(&mut acquire, &waker),
            Poll::Ready(Err(GateError::Closed))
        ));
        drop(acquire);
        assert_eq!(counts(&gate), (1, 1, 0));
        drop(first);
        assert_eq!(Arc::strong_count(&gate), 1);
    }

    #[test]
    fn the_line_is_bounded() {
        let gate = Gate::new(1, 1);
        let waker = Arc::new(Count::default());
        let permit = gate.try_acquire().unwrap();
        let (mut first, mut second) = (gate.acquire(), gate.acquire());
        assert!(poll(&mut first, &waker).is_pending());
        assert!(matches!(
            poll(&mut second, &waker),
            Poll::Ready(Err(GateError::Full))
        ));
        assert_eq!(counts(&gate), (0, 1, 1));
        drop((first, second));
        assert_eq!(counts(&gate), (0, 1, 0));
        drop(permit);
        assert_eq!(counts(&gate), (1, 0, 0));
    }

    #[test]
    fn a_permit_goes_to_the_head_of_the_line() {
        let gate = Gate::new(1, 3);
        let wakers: Vec<Arc<Count>> = (0..3).map(|_| Arc::default()).collect();
        let permit = gate.try_acquire().unwrap();
        let mut line: Vec<Acquire> = (0..3).map(|_| gate.acquire()).collect();
        for (acquire, waker) in line.iter_mut().zip(&wakers) {
            assert!(poll(acquire, waker).is_pending());
        }
        drop(permit);
        let woken: Vec<usize> = wakers.iter().map(|w| w.woken()).collect();
        assert_eq!(woken, [1, 0, 0]);
        assert!(gate.try_acquire().is_none(), "no task overtakes the line");
        assert_eq!(counts(&gate), (0, 1, 2));
        assert!(poll(&mut line[2], &wakers[2]).is_pending());
        let Poll::Ready(Ok(permit)) = poll(&mut line[0], &wakers[0]) else {
            panic!("the head has its permit");
        };
        drop(permit);
        assert_eq!(wakers[1].woken(), 1);
        // The task that was given a permit is dropped: the next one gets the permit.
        drop(line.remove(1));
        assert_eq!(wakers[2].woken(), 1);
        assert!(matches!(poll(&mut line[1], &wakers[2]), Poll::Ready(Ok(_))));
        assert_eq!(counts(&gate), (1, 0, 0));
    }

    #[test]
    fn a_waiter_that_gives_up_is_skipped() {
        let gate = Gate::new(1, 3);
        let waker = Arc::new(Count::default());
        let permit = gate.try_acquire().unwrap();
        let mut line: Vec<Acquire> = (0..3).map(|_| gate.acquire()).collect();
        for acquire in &mut line {
            assert!(poll(acquire, &waker).is_pending());
        }
        drop(line.remove(1));
        let mut late = gate.acquire();
        let late_waker = Arc::new(Count::default());
        assert!(poll(&mut late, &late_waker).is_pending());
        drop(line.remove(0));
        assert_eq!(gate.waiting(), 2);
        drop(permit);
        assert_eq!((waker.woken(), late_waker.woken()), (1, 0));
        drop(line);
        assert_eq!(late_waker.woken(), 1);
        drop(late);
        assert_eq!(counts(&gate), (1, 0, 0));
    }

    #[test]
    fn the_newest_waker_is_woken() {
        let gate = Gate::new(1, 1);
        let (old, new) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let permit = gate.try_acquire().unwrap();
        let mut acquire = gate.acquire();
        assert!(poll(&mut acquire, &old).is_pending());
        assert!(poll(&mut acquire, &new).is_pending());
        drop(permit);
        assert_eq!((old.woken(), new.woken()), (0, 1));
        assert_eq!(Arc::strong_count(&old), 1, "the old one is not kept");
    }

    #[test]
    fn a_closed_gate_refuses_all_and_takes_permits_back() {
        let gate = Gate::new(2, 4);
        let waker = Arc::new(Count::default());
        let (handed, held) = (gate.try_acquire().unwrap(), gate.try_acquire().unwrap());
        let mut line: Vec<Acquire> = (0..3).map(|_| gate.acquire()).collect();
        for acquire in &mut line {
            assert!(poll(acquire, &waker).is_pending());
        }
        drop(handed);
        gate.close();
        assert_eq!(waker.woken(), 3);
        assert!(matches!(poll(&mut line[0], &waker), Poll::Ready(Ok(_))));
        assert!(matches!(
            poll(&mut line[1], &waker),
            Poll::Ready(Err(GateError::Closed))
        ));
        drop(line);
        assert_eq!(counts(&gate), (1, 1, 0));
        assert!(gate.try_acquire().is_none());
        assert!(matches!(
            poll(&mut gate.acquire(), &waker),
            Poll::Ready(Err(GateError::Closed))
        ));
        drop(held);
        assert_eq!(counts(&gate), (2, 0, 0));
    }

    #[test]
    fn the_number_of_permits_can_change() {
        let gate = Gate::new(1, 4);
        let waker = Arc::new(Count::default());
        let held = gate.try_acquire().unwrap();
        let mut line: Vec<Acquire> = (0..3).map(|_| gate.acquire()).collect();
        for acquire in &mut line {
            assert!(poll(acquire, &waker).is_pending());
        }
        gate.set_permits(3);
        assert_eq!((waker.woken(), counts(&gate)), (2, (0, 3, 1)));
        gate.set_permits(1);
        drop(held);
        drop(line.remove(0));
        assert_eq!((waker.woken(), counts(&gate)), (2, (0, 1, 1)));
        drop(line.remove(0));
        assert_eq!((waker.woken(), counts(&gate)), (3, (0, 1, 0)));
        drop(line);
        assert_eq!(counts(&gate), (1, 0, 0));
    }

    #[test]
    fn an_empty_line_gives_its_memory_back() {
        let gate = Gate::new(0, 1000);
        let waker = Arc::new(Count::default());
        let stand = |n: usize| -> Vec<Acquire> {
            let mut line: Vec<Acquire> = (0..n).map(|_| gate.acquire()).collect();
            for acquire in &mut line {
                assert!(poll(acquire, &waker).is_pending());
            }
            line
        };
        let places = || gate.lock().lines[0].capacity();
        drop(stand(64));
        assert!(places() >= 64, "a short line is kept");
        let long = stand(65);
        assert!(places() >= 65);
        drop(long);
        assert_eq!(places(), 0);
        // Places are reused: no new ones are added.
        for _ in 0..100 {
            drop(stand(10));
        }
        assert!(places() < 64);
    }

    const SHARES: Shares = Shares {
        tunnel_percent: 80,
        visitor_percent: 60,
    };

    fn claim(tunnel: u64, visitor: u64) -> Claim {
        Claim { tunnel, visitor }
    }

    fn take_all(gate: &Arc<Gate>, claim: Claim) -> Vec<Permit> {
        std::iter::from_fn(|| gate.try_acquire_for(claim)).collect()
    }

    /// Of ten permits, an address leaves four to others and a tunnel two, once each of them has had one.
    #[test]
    fn one_address_leaves_permits_to_others() {
        let gate = Gate::shared(10, 10, SHARES);
        let hostile = take_all(&gate, claim(1, 1));
        assert_eq!(hostile.len(), 7);
        assert!(!gate.has_room_for(claim(1, 1)));
        let honest = take_all(&gate, claim(1, 2));
        assert_eq!(honest.len(), 1, "of the same tunnel");
        assert!(!gate.has_room_for(claim(1, 3)) && gate.has_room_for(claim(2, 3)));
        let other = gate.try_acquire_for(claim(2, 3)).unwrap();
        let another = gate.try_acquire_for(claim(3, 4)).unwrap();
        assert_eq!(counts(&gate), (0, 10, 0));
        drop((hostile, honest, other, another));
        assert_eq!(counts(&gate), (10, 0, 0));
        assert_eq!(
            take_all(&gate, claim(1, 1)).len(),
            7,
            "nothing is remembered"
        );
    }

    #[test]
    fn few_permits_and_no_shares_are_given_to_anybody() {
        for (gate, all) in [(Gate::shared(2, 1, SHARES), 2), (Gate::new(50, 1), 50)] {
            assert_eq!(take_all(&gate, claim(1, 1)).len(), all);
        }
    }

    #[test]
    fn waiter_with_its_share_is_passed_by_others() {
        let gate = Gate::shared(10, 4, SHARES);
        let waker = Arc::new(Count::default());
        let mut hostile = take_all(&gate, claim(1, 1));
        let mut greedy: Vec<_> = (0..3).map(|_| gate.acquire_for(claim(1, 1))).collect();
        assert!(poll(&mut greedy[0], &waker).is_pending());
        assert!(poll(&mut greedy[1], &waker).is_pending());
        // Half of the line is for other holders.
        assert!(matches!(
            poll(&mut greedy[2], &waker),
            Poll::Ready(Err(GateError::Full))
        ));
        let mut newcomer = gate.acquire_for(claim(2, 2));
        let Poll::Ready(Ok(permit)) = poll(&mut newcomer, &waker) else {
            panic!("it finds one free");
        };
        drop(permit);
        // Three permits are free; the address leaves four to others.
        hostile.pop();
        assert_eq!((waker.woken(), gate.waiting()), (0, 2));
        hostile.pop();
        assert_eq!((waker.woken(), gate.waiting()), (1, 1));
        drop(greedy);
        drop(hostile);
        assert_eq!(counts(&gate), (10, 0, 0));
    }

    #[test]
    fn debug_shows_permits_and_waiters() {
        let gate = Gate::new(2, 1);
        let permit = gate.try_acquire().unwrap();
        let shown = format!("{gate:?} {permit:?} {:?}", gate.acquire());
        assert_eq!(
            shown,
            "Gate { available: 1, in_use: 1, waiting: 0, closed: false, .. } Permit { .. } Acquire { waiting: false, .. }"
        );
    }
}
