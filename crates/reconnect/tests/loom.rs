//! Concurrent calls of the status cell, in every interleaving.
#![cfg(adit_loom)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use adit_reconnect::{Status, StatusCell, Version, Watcher};
use loom::{sync::Notify, thread};

/// A waker that a loom thread can wait for: a lost wake-up is a deadlock, which loom reports.
struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }
}

fn wait_for_change(watcher: &mut Watcher, seen: Version) -> Status {
    let bell = Arc::new(Bell(Notify::new()));
    let waker = Waker::from(Arc::clone(&bell));
    loop {
        match watcher.poll_changed(seen, &mut Context::from_waker(&waker)) {
            Poll::Ready((status, version)) => {
                assert!(version > seen);
                return status;
            }
            Poll::Pending => bell.0.wait(),
        }
    }
}

/// Fails when `poll_changed` frees the lock between the look at the version and the registration of the waker, or when
/// `set` takes the wakers in one hold of the lock and stores the status in a later one.
#[test]
fn set_races_poll_changed() {
    loom::model(|| {
        let cell = StatusCell::default();
        let mut watcher = cell.watch();
        let (_, seen) = cell.versioned();
        let setter = {
            let cell = cell.clone();
            thread::spawn(move || assert!(cell.set(Status::Draining)))
        };
        assert_eq!(wait_for_change(&mut watcher, seen), Status::Draining);
        setter.join().unwrap();
        assert_eq!(cell.waiting(), 0);
    });
}

/// Fails when `set` wakes only the first of the waiting watchers.
#[test]
fn two_watchers_one_set() {
    loom::model(|| {
        let cell = StatusCell::default();
        let (_, seen) = cell.versioned();
        let watchers: Vec<_> = (0..2)
            .map(|_| {
                let mut watcher = cell.watch();
                thread::spawn(move || wait_for_change(&mut watcher, seen))
            })
            .collect();
        assert!(cell.set(Status::Draining));
        for watcher in watchers {
            assert_eq!(watcher.join().unwrap(), Status::Draining);
        }
        assert_eq!(cell.waiting(), 0);
    });
}

/// Fails when a watcher's drop removes any waker but its own (for example all of them).
#[test]
fn drop_races_set_beside_a_waiting_watcher() {
    loom::model(|| {
        let cell = StatusCell::default();
        let (_, seen) = cell.versioned();
        let mut leaving = cell.watch();
        let mut staying = cell.watch();
        let bell = Waker::from(Arc::new(Bell(Notify::new())));
        assert!(
            leaving
                .poll_changed(seen, &mut Context::from_waker(&bell))
                .is_pending()
        );
        let waits = thread::spawn(move || wait_for_change(&mut staying, seen));
        let leaves = thread::spawn(move || drop(leaving));
        assert!(cell.set(Status::Draining));
        assert_eq!(waits.join().unwrap(), Status::Draining);
        leaves.join().unwrap();
        assert_eq!(cell.waiting(), 0);
    });
}
