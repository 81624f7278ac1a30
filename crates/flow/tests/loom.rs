//! Concurrent calls of gate and budget, in every interleaving.
#![cfg(adit_loom)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use adit_flow::{Budget, Claim, Gate, GateError, Shares};
use loom::thread;

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread; loom reports a deadlock when the task is never woken.
fn wait<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Fails when `poll` takes the lock twice, to look for a free permit and to join the line: the permit is returned in
/// between and no task is woken.
#[test]
fn release_races_acquire() {
    loom::model(|| {
        let gate = Gate::new(1, 1);
        let held = gate.try_acquire().unwrap();
        let release = thread::spawn(move || drop(held));
        let permit = wait(gate.acquire()).unwrap();
        assert_eq!((gate.available(), gate.in_use()), (0, 1));
        drop(permit);
        release.join().unwrap();
        assert_eq!((gate.available(), gate.waiting()), (1, 0));
    });
}

/// Fails when a dropped waiter does not return the permit that it was given: the next task in the line waits forever.
#[test]
fn drop_waiter_races_release() {
    loom::model(|| {
        let gate = Gate::new(1, 2);
        let held = gate.try_acquire().unwrap();
        let mut leaver = gate.acquire();
        assert!(poll_once(&mut leaver).is_pending());
        let mut next = gate.acquire();
        assert!(poll_once(&mut next).is_pending());
        let release = thread::spawn(move || drop(held));
        drop(leaver);
        let permit = wait(next).unwrap();
        assert_eq!(gate.in_use(), 1);
        drop(permit);
        release.join().unwrap();
        assert_eq!((gate.available(), gate.in_use()), (1, 0));
    });
}

/// Fails when `poll` checks whether the gate is closed before it takes the lock under which it joins the line: it joins
/// after all waiting tasks have been rejected.
#[test]
fn close_races_acquire() {
    loom::model(|| {
        let gate = Gate::new(1, 1);
        let held = gate.try_acquire().unwrap();
        let closer = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.close())
        };
        assert_eq!(wait(gate.acquire()).unwrap_err(), GateError::Closed);
        closer.join().unwrap();
        drop(held);
        assert_eq!((gate.in_use(), gate.waiting()), (0, 0));
    });
}

/// Fails when `give_back` counts the permit as free under one lock and hands it over under another: `try_acquire` takes
/// it before the tasks in the line, and the permit is given twice.
#[test]
fn try_acquire_races_release() {
    loom::model(|| {
        let gate = Gate::new(1, 1);
        let held = gate.try_acquire().unwrap();
        let mut first = gate.acquire();
        assert!(poll_once(&mut first).is_pending());
        let other = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.try_acquire().is_some())
        };
        drop(held);
        assert!(!other.join().unwrap(), "the waiter comes first");
        assert!(matches!(poll_once(&mut first), Poll::Ready(Ok(_))));
    });
}

/// Fails when `take` loads and stores instead of exchanging: the only permit is given twice.
#[test]
fn two_acquires_one_permit() {
    loom::model(|| {
        let gate = Gate::new(1, 1);
        let other = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.try_acquire())
        };
        let here = gate.try_acquire();
        let there = other.join().unwrap();
        assert_eq!(gate.in_use(), 1);
        assert!(here.is_some() ^ there.is_some(), "exactly one has it");
        drop((here, there));
        assert_eq!((gate.available(), gate.in_use()), (1, 0));
    });
}

/// Fails when a task that leaves removes the mark from the word while another one waits: a returned permit is not given
/// to the line.
#[test]
fn drop_waiter_races_acquire() {
    loom::model(|| {
        let gate = Gate::new(1, 2);
        let held = gate.try_acquire().unwrap();
        let mut leaver = gate.acquire();
        assert!(poll_once(&mut leaver).is_pending());
        let waiter = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || drop(wait(gate.acquire()).unwrap()))
        };
        drop(leaver);
        drop(held);
        waiter.join().unwrap();
        assert_eq!((gate.available(), gate.waiting()), (1, 0));
    });
}

/// Fails when `set_permits` stores the word instead of adding to it: a permit that is returned meanwhile is lost.
#[test]
fn set_permits_races_release() {
    loom::model(|| {
        let gate = Gate::new(1, 1);
        let held = gate.try_acquire().unwrap();
        let release = thread::spawn(move || drop(held));
        gate.set_permits(2);
        release.join().unwrap();
        assert_eq!((gate.available(), gate.in_use()), (2, 0));
    });
}

const CLAIM: Claim = Claim {
    tunnel: 1,
    visitor: 1,
};

/// Fails when a claim is looked up under one lock and counted under another: both tasks take permits that are left to
/// others.
#[test]
fn two_claims_one_share() {
    loom::model(|| {
        // One permit is left to others, and one of them may be taken.
        let shares = Shares {
            tunnel_percent: 100,
            visitor_percent: 50,
        };
        let gate = Gate::shared(2, 1, shares);
        let plenty = gate.try_acquire_for(CLAIM).unwrap();
        let other = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.try_acquire_for(CLAIM))
        };
        let here = gate.try_acquire_for(CLAIM);
        let there = other.join().unwrap();
        assert!(here.is_some() ^ there.is_some(), "exactly one has it");
        drop((plenty, here, there));
        assert_eq!((gate.available(), gate.in_use()), (2, 0));
    });
}

/// Fails when a waiter with its share marks the word without a second look at the permits: a returned permit is not
/// noticed.
#[test]
fn waiting_claim_races_release() {
    loom::model(|| {
        let shares = Shares {
            tunnel_percent: 100,
            visitor_percent: 67,
        };
        let gate = Gate::shared(4, 1, shares);
        let held: Vec<_> = std::iter::from_fn(|| gate.try_acquire_for(CLAIM)).collect();
        let release = thread::spawn(move || drop(held));
        drop(wait(gate.acquire_for(CLAIM)).unwrap());
        release.join().unwrap();
        assert_eq!((gate.available(), gate.waiting()), (4, 0));
    });
}

/// Fails when a charge loads and stores instead of exchanging: both find the room and both take it.
#[test]
fn two_charges_one_place() {
    loom::model(|| {
        let budget = Budget::new(10);
        let other = {
            let budget = budget.clone();
            thread::spawn(move || budget.try_charge(6))
        };
        let here = budget.try_charge(6);
        let there = other.join().unwrap();
        assert!(here ^ there, "exactly one has the place");
        assert_eq!(budget.used(), 6);
    });
}

/// Fails when a charge that the parent refuses is not removed from the child.
#[test]
fn two_children_one_place() {
    loom::model(|| {
        let process = Budget::new(10);
        let (one, two) = (process.child(10), process.child(10));
        let other = {
            let two = two.clone();
            thread::spawn(move || two.try_charge(6))
        };
        let here = one.try_charge(6);
        assert!(process.used() <= 10);
        let there = other.join().unwrap();
        assert!(here ^ there, "exactly one has the place");
        let bytes = |charged| if charged { 6 } else { 0 };
        assert_eq!((one.used(), two.used()), (bytes(here), bytes(there)));
        assert_eq!(process.used(), 6);
    });
}

/// Fails when a release loads and stores instead of exchanging: the concurrent charge is overwritten, and its bytes are
/// no longer counted.
#[test]
fn release_races_charge() {
    loom::model(|| {
        let process = Budget::new(10);
        let link = process.child(10);
        let loan = link.borrow(4).unwrap();
        let other = thread::spawn(move || drop(loan));
        let charged = link.try_charge(6);
        other.join().unwrap();
        assert!(charged, "there was room with the loan and without it");
        assert_eq!((link.used(), process.used()), (6, 6));
    });
}
