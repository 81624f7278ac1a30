//! Each pair of concurrent calls of outbox and pool, in every order that the lock allows. The comment of each test
//! names the fault that it finds.
#![cfg(adit_loom)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use adit_codec::{Outbox, Pool, Queue};
use loom::thread::{self, Thread};

/// Letters that the writer receives together once there are `at_once` of them.
struct Letters {
    waiting: Vec<u32>,
    at_once: usize,
    writer: u32,
}

impl Queue for Letters {
    type Batch = Vec<u32>;

    fn is_ready(&self) -> bool {
        self.waiting.len() >= self.at_once
    }

    fn next_batch(&mut self) -> Option<Vec<u32>> {
        self.is_ready().then(|| std::mem::take(&mut self.waiting))
    }

    fn writer(&self) -> u32 {
        self.writer
    }
}

fn outbox(at_once: usize) -> loom::sync::Arc<Outbox<Letters>> {
    loom::sync::Arc::new(Outbox::new(Letters {
        waiting: Vec::new(),
        at_once,
        writer: 0,
    }))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Drains one batch. Parks only on `Pending`: after a lost wake-up no thread can run, which loom reports.
fn drain(outbox: &Outbox<Letters>) -> Option<Vec<u32>> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match outbox.poll_drain(0, &mut context) {
            Poll::Ready(batch) => return batch,
            Poll::Pending => thread::park(),
        }
    }
}

/// A sender appends while the writer looks for something to write.
///
/// Fails when the writer leaves its waker under another lock than the one under which it found nothing, and when
/// `with` does not wake.
#[test]
fn append_races_drain() {
    loom::model(|| {
        let outbox = outbox(1);
        let sender = thread::spawn({
            let outbox = outbox.clone();
            move || outbox.with(|letters| letters.waiting.push(1))
        });
        assert_eq!(drain(&outbox), Some(vec![1]));
        sender.join().unwrap();
    });
}

/// Two senders append one letter each; the batch needs both.
///
/// Fails when `with` takes the waker before it checks whether there is something to write: the first append then uses
/// up the waker, and the second one wakes no task.
#[test]
fn two_appends_race_drain() {
    loom::model(|| {
        let outbox = outbox(2);
        let senders = [1, 2].map(|letter| {
            let outbox = outbox.clone();
            thread::spawn(move || outbox.with(|letters| letters.waiting.push(letter)))
        });
        let mut batch = drain(&outbox).unwrap();
        batch.sort_unstable();
        assert_eq!(batch, [1, 2], "each once");
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

/// A sender appends its last letter and closes the outbox while the writer drains.
///
/// Fails when `close` does not wake, and when `poll_drain` looks at `closed` before the queue: letters appended before
/// the close are then lost.
#[test]
fn close_races_drain() {
    loom::model(|| {
        let outbox = outbox(1);
        let sender = thread::spawn({
            let outbox = outbox.clone();
            move || {
                outbox.with(|letters| letters.waiting.push(1));
                outbox.close();
            }
        });
        assert_eq!(drain(&outbox), Some(vec![1]));
        assert_eq!(drain(&outbox), None);
        assert!(outbox.is_closed());
        sender.join().unwrap();
    });
}

/// The outbox gets another writer while the first one looks for something to write.
///
/// Fails when `reopen` does not wake the writer that is parked, and when `poll_drain` compares the number under another
/// lock than the one under which it takes the batch: the replaced writer then receives the batch of the new one.
#[test]
fn reopen_races_drain() {
    loom::model(|| {
        let outbox = outbox(1);
        let sender = thread::spawn({
            let outbox = outbox.clone();
            move || {
                outbox.reopen(|letters| letters.writer = 1);
                outbox.with(|letters| letters.waiting.push(1));
            }
        });
        assert_eq!(drain(&outbox), None);
        sender.join().unwrap();
        assert_eq!(outbox.with(|letters| letters.waiting.len()), 1);
    });
}

/// Two tasks return a buffer each, to a pool that keeps one, and take another.
///
/// Fails when `put_back` counts the free buffers under one lock and adds to them under another.
#[test]
fn take_races_return() {
    loom::model(|| {
        let pool = Pool::new(4, 1);
        let (mine, others) = (pool.take(), pool.take());
        let other = thread::spawn({
            let pool = pool.clone();
            move || {
                drop(others);
                assert!(pool.free() <= 1, "more than the bound");
                pool.take()
            }
        });
        drop(mine);
        assert!(pool.free() <= 1, "more than the bound");
        let mut mine = pool.take();
        let mut others = other.join().unwrap();
        assert_ne!(
            mine.unfilled().as_ptr(),
            others.unfilled().as_ptr(),
            "handed out twice"
        );
        drop((mine, others));
        assert_eq!(pool.free(), 1);
    });
}
