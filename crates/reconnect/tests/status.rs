//! The cell on one thread, then the scenarios of `tests/loom.rs` with many threads.
#![cfg(not(adit_loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use adit_reconnect::{Status, StatusCell, StopReason, Version, Watcher};

#[derive(Default)]
struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Counted {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn poll(watcher: &mut Watcher, seen: Version, wake: &Arc<Counted>) -> Poll<(Status, Version)> {
    let waker = Waker::from(Arc::clone(wake));
    watcher.poll_changed(seen, &mut Context::from_waker(&waker))
}

const STOPPED: Status = Status::Stopped {
    reason: StopReason::Requested,
};

#[test]
fn a_new_cell_is_newer_than_nothing_seen() {
    let cell = StatusCell::default();
    let wake = Arc::new(Counted::default());
    let mut watcher = cell.watch();
    let (status, version) = cell.versioned();
    assert_eq!(status, Status::Idle);
    assert!(version > Version::default());
    assert_eq!(
        poll(&mut watcher, Version::default(), &wake),
        Poll::Ready((Status::Idle, version))
    );
    assert_eq!(poll(&mut watcher, version, &wake), Poll::Pending);
}

#[test]
fn a_change_wakes_once_and_is_seen_once() {
    let cell = StatusCell::new(Status::Connecting { attempt: 0 });
    let wake = Arc::new(Counted::default());
    let mut watcher = cell.watch();
    let (_, seen) = watcher.versioned();
    assert_eq!(poll(&mut watcher, seen, &wake), Poll::Pending);
    assert!(cell.set(Status::Connected { epoch: 1 }));
    assert!(cell.set(Status::Draining));
    assert_eq!(wake.count(), 1);
    let Poll::Ready((status, newer)) = poll(&mut watcher, seen, &wake) else {
        panic!("the change is there");
    };
    assert_eq!(status, Status::Draining);
    assert_eq!(status, cell.status());
    assert!(newer > seen);
    assert_eq!(poll(&mut watcher, newer, &wake), Poll::Pending);
}

#[test]
fn the_same_status_changes_nothing_and_stopped_is_final() {
    let cell = StatusCell::new(Status::Draining);
    let before = cell.versioned();
    assert!(!cell.set(Status::Draining));
    assert_eq!(cell.versioned(), before);
    assert!(cell.set(STOPPED));
    let end = cell.versioned();
    assert!(!cell.set(Status::Connected { epoch: 2 }));
    assert!(!cell.set(Status::Stopped {
        reason: StopReason::Refused
    }));
    assert_eq!(cell.versioned(), end);
}

#[test]
fn a_watcher_keeps_one_waker_the_last() {
    let cell = StatusCell::default();
    let (first, last) = (Arc::new(Counted::default()), Arc::new(Counted::default()));
    let mut watcher = cell.watch();
    let (_, seen) = cell.versioned();
    assert_eq!(poll(&mut watcher, seen, &first), Poll::Pending);
    assert_eq!(poll(&mut watcher, seen, &last), Poll::Pending);
    assert_eq!(cell.waiting(), 1);
    assert_eq!(Arc::strong_count(&first), 1);
    cell.set(Status::Draining);
    assert_eq!((first.count(), last.count()), (0, 1));
    assert_eq!(cell.waiting(), 0);
}

#[test]
fn polling_again_with_the_same_waker_registers_nothing_new() {
    let cell = StatusCell::default();
    let wake = Arc::new(Counted::default());
    let waker = Waker::from(Arc::clone(&wake));
    let mut watcher = cell.watch();
    let (_, seen) = cell.versioned();
    for _ in 0..3 {
        let poll = watcher.poll_changed(seen, &mut Context::from_waker(&waker));
        assert_eq!(poll, Poll::Pending);
    }
    assert_eq!(Arc::strong_count(&wake), 3);
}

#[test]
fn a_ready_poll_and_a_drop_leave_no_waker() {
    let cell = StatusCell::default();
    let wake = Arc::new(Counted::default());
    let (_, seen) = cell.versioned();
    let (mut gone, mut ready) = (cell.watch(), cell.watch());
    assert_eq!(poll(&mut gone, seen, &wake), Poll::Pending);
    assert_eq!(poll(&mut ready, seen, &wake), Poll::Pending);
    assert_eq!(cell.waiting(), 2);
    drop(gone);
    assert_eq!(cell.waiting(), 1);
    assert!(poll(&mut ready, Version::default(), &wake).is_ready());
    assert_eq!(cell.waiting(), 0);
    cell.set(Status::Draining);
    assert_eq!(wake.count(), 0);
    assert_eq!(Arc::strong_count(&wake), 1);
}

/// A task that reads the cell when its last waker is dropped, as a task does whose future holds a watcher.
struct Looks(StatusCell);

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        let _ = self.0.status();
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        let _ = self.0.status();
    }
}

#[test]
fn wakers_run_and_go_outside_the_lock() {
    let cell = StatusCell::default();
    let (_, seen) = cell.versioned();
    let mut watcher = cell.watch();
    let mut register = |seen| {
        let waker = Waker::from(Arc::new(Looks(cell.clone())));
        watcher.poll_changed(seen, &mut Context::from_waker(&waker))
    };
    assert_eq!(register(seen), Poll::Pending);
    assert_eq!(register(seen), Poll::Pending, "replaced");
    assert!(register(Version::default()).is_ready(), "removed");
    assert_eq!(register(seen), Poll::Pending);
    cell.set(Status::Draining);
    assert!(register(seen).is_ready());
    let (_, seen) = cell.versioned();
    let waker = Waker::from(Arc::new(Looks(cell.clone())));
    let mut last = cell.watch();
    assert_eq!(
        last.poll_changed(seen, &mut Context::from_waker(&waker)),
        Poll::Pending
    );
    drop(waker);
    drop(last);
    assert_eq!(cell.waiting(), 0);
}

#[test]
fn the_debug_text_shows_the_status() {
    let cell = StatusCell::new(Status::Draining);
    assert_eq!(
        format!("{cell:?}"),
        "StatusCell { status: Draining, version: 1, .. }"
    );
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(out) => return out,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn many_watchers_follow_many_changes_to_the_end() {
    let cell = StatusCell::default();
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut watcher = cell.watch();
            scope.spawn(move || {
                let (mut status, mut seen) = watcher.versioned();
                while status != STOPPED {
                    let (next, version) = block_on(watcher.changed(seen));
                    assert!(version > seen);
                    (status, seen) = (next, version);
                }
            });
        }
        for epoch in 0..20_000 {
            assert!(cell.set(Status::Connected { epoch }));
        }
        assert!(cell.set(STOPPED));
    });
    assert_eq!(cell.waiting(), 0);
}
