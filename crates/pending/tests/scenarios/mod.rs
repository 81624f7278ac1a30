//! Concurrent calls on one small table, written once: `loom.rs` runs each scenario in every order, `stress.rs` runs it
//! on real threads many times.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_pending::{Config, InsertError, Settled, Table};

#[cfg(adit_loom)]
use loom::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};
#[cfg(not(adit_loom))]
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

fn table<T>(max_entries: usize) -> Arc<Table<T>> {
    Arc::new(Table::new(Config { max_entries }))
}

/// Holds whenever no operation is running.
fn assert_adds_up<T>(table: &Table<T>) {
    let s = table.stats();
    assert_eq!(
        s.inserted,
        s.completed + s.failed + s.cancelled + s.expired + s.waiting
    );
    assert_eq!(s.waiting, table.len() as u64);
}

/// The lane completes a request while the timer expires it.
///
/// Fails when `settle` finds the entry under one lock and removes it under another.
pub(crate) fn complete_races_expire() {
    let table = table(8);
    let start = Instant::now();
    let due = start + Duration::from_secs(1);
    table.insert(2, Some(due), "two").unwrap();
    table.insert(3, Some(due), "three").unwrap();

    let lane = thread::spawn({
        let table = table.clone();
        move || table.settle(2, Settled::Completed)
    });
    let mut expired = Vec::new();
    table.expire(due, &mut expired);
    let completed = lane.join().unwrap();

    let mut all = expired.clone();
    all.extend(completed.map(|value| (2, value)));
    all.sort_unstable();
    assert_eq!(all, [(2, "two"), (3, "three")], "each once");
    let stats = table.stats();
    assert_eq!(stats.completed, u64::from(completed.is_some()));
    assert_eq!(stats.expired, expired.len() as u64);
    assert_eq!(stats.late, u64::from(completed.is_none()));
    assert_adds_up(&table);
    assert!(table.is_empty());
}

/// The lane completes a request while its visitor leaves.
///
/// Fails when `settle` finds the entry under one lock and removes it under another.
pub(crate) fn complete_races_cancel() {
    let table = table(8);
    table.insert(2, None, "two").unwrap();

    let visitor = thread::spawn({
        let table = table.clone();
        move || table.settle(2, Settled::Cancelled)
    });
    let completed = table.settle(2, Settled::Completed);
    let cancelled = visitor.join().unwrap();

    assert_eq!(completed.xor(cancelled), Some("two"), "exactly one");
    let stats = table.stats();
    assert_eq!(stats.completed, u64::from(completed.is_some()));
    assert_eq!(stats.cancelled, u64::from(cancelled.is_some()));
    assert_eq!(stats.late, 1);
    assert_adds_up(&table);
}

/// A visitor leaves while the lane is lost.
///
/// Fails when `close` copies the entries under one lock and clears the table under another.
pub(crate) fn cancel_races_close() {
    let table = table(8);
    table.insert(2, None, "two").unwrap();
    table.insert(3, None, "three").unwrap();

    let visitor = thread::spawn({
        let table = table.clone();
        move || table.settle(3, Settled::Cancelled)
    });
    let failed = table.close();
    let cancelled = visitor.join().unwrap();

    let mut all = failed.clone();
    all.extend(cancelled.map(|value| (3, value)));
    all.sort_unstable();
    assert_eq!(all, [(2, "two"), (3, "three")], "each once");
    assert_eq!(table.stats().failed, failed.len() as u64);
    assert_adds_up(&table);
    assert!(table.is_empty());
}

/// The timer expires a request while the lane is lost.
///
/// Fails when `expire` copies what is due under one lock and removes it under another.
pub(crate) fn expire_races_close() {
    let table = table(8);
    let due = Instant::now();
    table.insert(2, Some(due), "two").unwrap();
    table.insert(3, Some(due), "three").unwrap();

    let timer = thread::spawn({
        let table = table.clone();
        move || {
            let mut expired = Vec::new();
            table.expire(due, &mut expired);
            expired
        }
    });
    let failed = table.close();
    let expired = timer.join().unwrap();

    let mut all = failed.clone();
    all.extend(&expired);
    all.sort_unstable();
    assert_eq!(all, [(2, "two"), (3, "three")], "each once");
    let stats = table.stats();
    assert_eq!(stats.failed, failed.len() as u64);
    assert_eq!(stats.expired, expired.len() as u64);
    assert_adds_up(&table);
}

/// Requests are inserted while the lane is lost.
///
/// Fails when `insert` reads the closed flag under one lock and inserts the entry under another: the entry remains, and
/// its task is never notified.
pub(crate) fn insert_races_close() {
    let table = table(8);
    let visitor = thread::spawn({
        let table = table.clone();
        move || {
            let first = table.insert(2, None, "two");
            let second = table.insert(3, None, "three");
            [first, second].map(|inserted| match inserted {
                Ok(()) => true,
                Err(InsertError::Closed { .. }) => false,
                Err(other) => panic!("{other}"),
            })
        }
    });
    let mut failed = table.close();
    let [first, second] = visitor.join().unwrap();

    failed.sort_unstable();
    let mut inserted = Vec::new();
    inserted.extend(first.then_some((2, "two")));
    inserted.extend(second.then_some((3, "three")));
    assert_eq!(failed, inserted, "failed or refused");
    assert!(table.is_empty());
    assert_adds_up(&table);
    assert!(matches!(
        table.insert(4, None, "four"),
        Err(InsertError::Closed { value: "four" })
    ));
}

/// A message arrives while its request is settled.
///
/// Fails when `lookup` reports a miss from a relaxed counter, without the lock: the reader then does
/// not see how the request ended.
pub(crate) fn lookup_races_settle() {
    let table = table(8);
    let outcome = Arc::new(AtomicUsize::new(0));
    table.insert(2, None, "two").unwrap();

    let settler = thread::spawn({
        let (table, outcome) = (table.clone(), outcome.clone());
        move || {
            outcome.store(7, Ordering::Relaxed);
            table.settle(2, Settled::Completed)
        }
    });
    match table.lookup(2) {
        Some(value) => assert_eq!(value, "two"),
        None => assert_eq!(outcome.load(Ordering::Relaxed), 7, "a miss is after"),
    }
    assert_eq!(settler.join().unwrap(), Some("two"));
    assert_eq!(table.lookup(2), None);
    assert_adds_up(&table);
}

/// Two requests compete for the last place, one from each end.
///
/// Fails when the room is found under one lock and taken under another.
pub(crate) fn insert_races_insert_for_the_last_place() {
    let table = table(1);
    let other = thread::spawn({
        let table = table.clone();
        move || table.insert(3, None, "three").is_ok()
    });
    let mine = table.insert(2, None, "two").is_ok();
    let other = other.join().unwrap();

    assert!(mine ^ other, "exactly one has room");
    assert_eq!((table.len(), table.stats().peak), (1, 1));
    assert_eq!(table.close().len(), 1);
    assert_adds_up(&table);
}

/// Deadlines are postponed while the timer runs.
///
/// Fails when `expire` copies what is due under one lock and removes it under another: a request is expired although it
/// has got a later deadline.
pub(crate) fn set_deadline_races_expire() {
    let table = table(8);
    let due = Instant::now();
    table.insert(2, Some(due), "two").unwrap();

    let visitor = thread::spawn({
        let table = table.clone();
        move || table.set_deadline(2, Some(due + Duration::from_secs(60)))
    });
    let mut expired = Vec::new();
    table.expire(due, &mut expired);
    let put_off = visitor.join().unwrap();

    assert_eq!(put_off, expired.is_empty());
    assert_eq!(table.lookup(2).is_some(), put_off);
    assert_eq!(table.close().len(), usize::from(put_off));
    assert_adds_up(&table);
}
