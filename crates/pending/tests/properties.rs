//! Promises
//! 1. Any order of operations has the results of a simple map with a limit.
//! 2. A settled request is removed: exactly one settle, expire or close returns its value.
//! 3. `inserted == completed + failed + cancelled + expired + waiting`, always; each counter equals that of the model.
//! 4. Expire removes the requests that are due (their deadline is now or earlier) and no others; the reported next
//!    deadline is never too late, and right after an expire it is exact.
//! 5. After a close no request waits and none is inserted, until the table is opened again.
//! 6. Memory grows and shrinks with the number of waiting requests.
//! 7. No value is dropped under a lock; a panic of the caller's code leaves the table usable.
#![cfg(not(adit_loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_pending::{Config, InsertError, Settled, Stats, Table};
use proptest::prelude::*;

const MAX: usize = 40;

#[derive(Debug, Clone)]
enum Op {
    /// Inserts the next id of a side, as an opener does.
    Open {
        side: u64,
        deadline_ms: Option<u64>,
    },
    /// Inserts any id, in use or not.
    Insert {
        id: u64,
        deadline_ms: Option<u64>,
    },
    Lookup {
        id: u64,
    },
    Settle {
        id: u64,
        how: Settled,
    },
    SetDeadline {
        id: u64,
        deadline_ms: Option<u64>,
    },
    Expire {
        after_ms: u64,
    },
    ForEach,
    Close,
    Reopen,
}

fn id() -> impl Strategy<Value = u64> {
    prop_oneof![
        20 => 0..120_u64,
        1 => any::<u64>(),
        // Ids far apart, all for the same place.
        1 => (0..40_u64).prop_map(|n| n << 40),
    ]
}

fn deadline() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(0..100_u64)
}

fn how() -> impl Strategy<Value = Settled> {
    prop::sample::select(vec![
        Settled::Completed,
        Settled::Failed,
        Settled::Cancelled,
        Settled::Expired,
    ])
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        300 => (0..2_u64, deadline()).prop_map(|(side, deadline_ms)| Op::Open { side, deadline_ms }),
        100 => (id(), deadline()).prop_map(|(id, deadline_ms)| Op::Insert { id, deadline_ms }),
        100 => id().prop_map(|id| Op::Lookup { id }),
        300 => (id(), how()).prop_map(|(id, how)| Op::Settle { id, how }),
        60 => (id(), deadline()).prop_map(|(id, deadline_ms)| Op::SetDeadline { id, deadline_ms }),
        60 => (0..12_u64).prop_map(|after_ms| Op::Expire { after_ms }),
        20 => Just(Op::ForEach),
        2 => Just(Op::Close),
        4 => Just(Op::Reopen),
    ]
}

/// A simple model of the table.
#[derive(Default)]
struct Model {
    waiting: BTreeMap<u64, (Option<Instant>, u32)>,
    closed: bool,
    stats: Stats,
}

impl Model {
    fn count(&mut self, how: Settled) {
        *match how {
            Settled::Completed => &mut self.stats.completed,
            Settled::Failed => &mut self.stats.failed,
            Settled::Cancelled => &mut self.stats.cancelled,
            Settled::Expired => &mut self.stats.expired,
        } += 1;
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.waiting
            .values()
            .filter_map(|(deadline, _)| *deadline)
            .min()
    }
}

fn sorted(mut of: Vec<(u64, u32)>) -> Vec<(u64, u32)> {
    of.sort_unstable();
    of
}

fn insert(
    table: &Table<u32>,
    model: &mut Model,
    id: u64,
    deadline: Option<Instant>,
    value: u32,
) -> Result<(), TestCaseError> {
    match table.insert(id, deadline, value) {
        Ok(()) => {
            prop_assert!(!model.closed && model.waiting.len() < MAX);
            prop_assert!(model.waiting.insert(id, (deadline, value)).is_none());
            model.stats.inserted += 1;
            model.stats.peak = model.stats.peak.max(model.waiting.len() as u64);
        }
        Err(InsertError::Closed { value: back }) => {
            prop_assert!(model.closed);
            prop_assert_eq!(back, value);
        }
        Err(InsertError::Duplicate {
            id: taken,
            value: back,
        }) => {
            prop_assert!(model.waiting.contains_key(&id));
            prop_assert_eq!((taken, back), (id, value));
        }
        Err(InsertError::Full {
            max_entries,
            value: back,
        }) => {
            prop_assert!(!model.waiting.contains_key(&id));
            prop_assert_eq!(model.waiting.len(), MAX);
            prop_assert_eq!((max_entries, back), (MAX, value));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_table_behaves_as_a_map(ops in prop::collection::vec(op(), 1..400)) {
        let start = Instant::now();
        let mut now = start;
        let table = Table::new(Config { max_entries: MAX });
        let mut model = Model::default();
        let mut next_id = [2_u64, 1];

        for (value, op) in (0_u32..).zip(ops) {
            let at = |ms: Option<u64>| ms.map(|ms| now + Duration::from_millis(ms));
            match op {
                Op::Open { side, deadline_ms } => {
                    let next = &mut next_id[usize::from(side == 1)];
                    let id = *next;
                    *next += 2;
                    insert(&table, &mut model, id, at(deadline_ms), value)?;
                }
                Op::Insert { id, deadline_ms } => {
                    insert(&table, &mut model, id, at(deadline_ms), value)?;
                }
                Op::Lookup { id } => {
                    let expected = model.waiting.get(&id).map(|(_, value)| *value);
                    model.stats.late += u64::from(expected.is_none());
                    prop_assert_eq!(table.lookup(id), expected);
                }
                Op::Settle { id, how } => {
                    let expected = model.waiting.remove(&id).map(|(_, value)| value);
                    match expected {
                        Some(_) => model.count(how),
                        None => model.stats.late += 1,
                    }
                    prop_assert_eq!(table.settle(id, how), expected);
                }
                Op::SetDeadline { id, deadline_ms } => {
                    let deadline = at(deadline_ms);
                    let found = model.waiting.get_mut(&id).map(|entry| entry.0 = deadline);
                    prop_assert_eq!(table.set_deadline(id, deadline), found.is_some());
                }
                Op::Expire { after_ms } => {
                    now += Duration::from_millis(after_ms);
                    let due: Vec<_> = model
                        .waiting
                        .extract_if(.., |_, (deadline, _)| deadline.is_some_and(|d| d <= now))
                        .map(|(id, (_, value))| (id, value))
                        .collect();
                    due.iter().for_each(|_| model.count(Settled::Expired));
                    let mut out = Vec::new();
                    table.expire(now, &mut out);
                    prop_assert_eq!(sorted(out), due);
                    // The bound of the next deadline may be too early, but never in the past.
                    prop_assert!(table.next_deadline().is_none_or(|next| next > now));
                }
                Op::ForEach => {
                    let mut seen = Vec::new();
                    table.for_each(|id, value| seen.push((id, *value)));
                    let expected: Vec<_> =
                        model.waiting.iter().map(|(id, (_, value))| (*id, *value)).collect();
                    prop_assert_eq!(sorted(seen), expected);
                }
                Op::Close => {
                    let expected: Vec<_> = std::mem::take(&mut model.waiting)
                        .into_iter()
                        .map(|(id, (_, value))| (id, value))
                        .collect();
                    expected.iter().for_each(|_| model.count(Settled::Failed));
                    model.closed = true;
                    prop_assert_eq!(sorted(table.close()), expected);
                    prop_assert_eq!((table.next_deadline(), table.stats().slots), (None, 0));
                }
                Op::Reopen => {
                    model.closed = false;
                    table.reopen();
                }
            }
            prop_assert_eq!(table.len(), model.waiting.len());
            prop_assert_eq!(table.is_empty(), model.waiting.is_empty());
            let stats = table.stats();
            let ended = stats.completed + stats.failed + stats.cancelled + stats.expired;
            prop_assert_eq!(stats.inserted, ended + stats.waiting);
            let expected = Stats {
                waiting: model.waiting.len() as u64,
                slots: stats.slots,
                ..model.stats
            };
            prop_assert_eq!(stats, expected);
            match (table.next_deadline(), model.next_deadline()) {
                (Some(announced), Some(real)) => prop_assert!(announced <= real),
                (None, real) => prop_assert_eq!(real, None),
                (Some(_), None) => {}
            }
        }
        drop(table.close());
    }
}

#[test]
fn the_next_deadline_is_exact_after_an_expire() {
    let table = Table::new(Config::default());
    let start = Instant::now();
    let at = |s| start + Duration::from_secs(s);
    let mut out = Vec::new();
    assert_eq!(table.next_deadline(), None);

    for (id, deadline) in [(16, 5), (32, 9), (48, 7)] {
        table.insert(id, Some(at(deadline)), id).unwrap();
        assert_eq!(table.next_deadline(), Some(at(5)));
    }
    table.insert(64, None, 64).unwrap();
    // Settling leaves the bound unchanged; the next scan corrects it.
    assert_eq!(table.settle(16, Settled::Completed), Some(16));
    assert_eq!(table.next_deadline(), Some(at(5)));
    table.expire(at(5) - Duration::from_nanos(1), &mut out);
    assert_eq!(table.next_deadline(), Some(at(5)), "not due: not scanned");
    table.expire(at(5), &mut out);
    assert_eq!((out.len(), table.next_deadline()), (0, Some(at(7))));

    // A deadline of the other side counts as well.
    table.insert(3, Some(at(6)), 3).unwrap();
    assert_eq!(table.next_deadline(), Some(at(6)));
    assert!(table.set_deadline(3, Some(at(20))));
    assert!(table.set_deadline(64, Some(at(4))));
    assert_eq!(table.next_deadline(), Some(at(4)));
    assert!(!table.set_deadline(80, Some(at(1))));
    assert_eq!(table.next_deadline(), Some(at(4)));
    assert!(table.set_deadline(64, None));

    table.expire(at(9) - Duration::from_nanos(1), &mut out);
    assert_eq!(out, [(48, 48)]);
    table.expire(at(9), &mut out);
    assert_eq!(out, [(48, 48), (32, 32)], "appended");
    assert_eq!(table.next_deadline(), Some(at(20)));
    assert_eq!(table.settle(64, Settled::Cancelled), Some(64));
    assert_eq!(table.settle(3, Settled::Cancelled), Some(3));
    assert_eq!(table.next_deadline(), None, "an empty table has none");
    // An empty table has no bound left from before.
    table.insert(66, Some(at(30)), 66).unwrap();
    assert_eq!(table.next_deadline(), Some(at(30)));
    assert_eq!(table.close(), [(66, 66)]);
    assert_eq!(table.next_deadline(), None, "nor has a closed one");
}

#[test]
fn the_limit_is_exact_over_both_sides() {
    let table = Table::new(Config { max_entries: 100 });
    for id in 0..100_u64 {
        table.insert(id, None, id).unwrap();
    }
    assert_eq!((table.len(), table.stats().peak), (100, 100));
    assert!(matches!(
        table.insert(100, None, 7),
        Err(InsertError::Full {
            max_entries: 100,
            value: 7
        })
    ));
    assert!(matches!(
        table.insert(99, None, 7),
        Err(InsertError::Duplicate { id: 99, value: 7 })
    ));
    assert_eq!(table.settle(50, Settled::Failed), Some(50));
    table.insert(100, None, 100).unwrap();
    assert_eq!(table.close().len(), 100);
    assert!(matches!(
        table.insert(101, None, 7),
        Err(InsertError::Closed { value: 7 })
    ));
    assert!(table.close().is_empty());
    assert_eq!(table.stats().failed, 101);

    let none = Table::new(Config { max_entries: 0 });
    assert!(matches!(
        none.insert(2, None, ()),
        Err(InsertError::Full { max_entries: 0, .. })
    ));
    assert_eq!(Config::default().max_entries, 10_000);
    assert_eq!(
        format!("{:?}", Table::<()>::new(Config { max_entries: 3 })),
        "Table { waiting: 0, max_entries: 3, .. }"
    );
}

#[test]
fn each_side_has_a_ring_of_its_own() {
    let table = Table::new(Config::default());
    for n in 1..=16 {
        table.insert(2 * n, None, ()).unwrap();
        assert_eq!(table.stats().slots, 16);
    }
    for n in 0..16 {
        table.insert(2 * n + 1, None, ()).unwrap();
        assert_eq!(
            table.stats().slots,
            2 * 16,
            "dense, although both are there"
        );
    }
    assert_eq!(table.close().len(), 32);
}

#[test]
fn ids_with_gaps_behave_as_dense_ones() {
    let table = Table::new(Config::default());
    let ids: Vec<u64> = (0..1000).map(|n| n << 20).chain(1..1000).collect();
    for &id in ids.iter().rev() {
        table.insert(id, None, id).unwrap();
    }
    for &id in &ids {
        assert_eq!(table.lookup(id), Some(id));
        assert!(matches!(
            table.insert(id, None, 7),
            Err(InsertError::Duplicate { value: 7, .. })
        ));
    }
    for &id in &ids {
        assert_eq!(table.settle(id, Settled::Completed), Some(id));
        assert_eq!(table.settle(id, Settled::Completed), None);
    }
    assert_eq!((table.len(), table.stats().slots), (0, 2 * 16));
}

#[test]
fn memory_returns_after_bursts_while_one_request_stays_for_days() {
    let table = Table::new(Config { max_entries: 6_000 });
    assert_eq!(table.stats().slots, 0, "nothing before the first request");
    table.insert(2, None, 2).unwrap();
    let mut id = 2;
    for round in 0..200_u64 {
        let mut ids = VecDeque::new();
        while table.len() < 5_000 {
            id += 2;
            table.insert(id, None, id).unwrap();
            ids.push_back(id);
        }
        assert!(table.stats().slots >= 5_000);
        assert!(table.stats().slots <= 16_384);
        while let Some(first) = if round % 2 == 0 {
            ids.pop_front()
        } else {
            ids.pop_back()
        } {
            assert_eq!(table.settle(first, Settled::Completed), Some(first));
        }
        assert_eq!(table.len(), 1);
        // The table has its smallest size, and beside it the entry that others have overtaken.
        assert!(table.stats().slots <= 16 + 1);
        assert_eq!(table.lookup(2), Some(2), "the WebSocket");
    }
    // Expiring releases memory as settling does.
    let due = Instant::now();
    for n in 1..=5_000_u64 {
        table.insert(id + 2 * n, Some(due), n).unwrap();
    }
    let mut out = Vec::new();
    table.expire(due, &mut out);
    assert_eq!((out.len(), table.stats().slots), (5_000, 16));
    assert_eq!(table.close(), [(2, 2)]);
    assert_eq!(table.stats().slots, 0);
}

/// A value that calls the table when it is cloned or dropped, as a waker may.
struct Returning {
    table: Arc<Table<Arc<Returning>>>,
    id: u64,
}

impl Drop for Returning {
    fn drop(&mut self) {
        // This call would wait forever if it were made under the lock.
        self.table.set_deadline(self.id, None);
        self.table.stats();
    }
}

#[test]
fn values_are_dropped_outside_of_the_lock() {
    let table = Arc::new(Table::new(Config { max_entries: 2 }));
    let value = |id| {
        let table = Arc::clone(&table);
        Arc::new(Returning { table, id })
    };
    let now = Instant::now();
    table.insert(2, None, value(2)).unwrap();
    drop(table.insert(2, None, value(2)));
    table.insert(3, Some(now), value(3)).unwrap();
    drop(table.insert(4, None, value(4)));
    table.for_each(|id, value| {
        assert_eq!(id, value.id);
        drop(table.settle(id, Settled::Completed));
    });
    assert!(table.is_empty());
    table.insert(3, Some(now), value(3)).unwrap();
    let mut out = Vec::new();
    table.expire(now, &mut out);
    drop(out);
    table.insert(5, None, value(5)).unwrap();
    drop(table.close());
    drop(table.insert(7, None, value(7)));
    let stats = table.stats();
    assert_eq!((stats.inserted, stats.waiting), (4, 0));
}

/// Panics when it is cloned on request.
#[derive(Debug)]
struct Brittle(bool);

impl Clone for Brittle {
    fn clone(&self) -> Self {
        assert!(!self.0, "does not want to be cloned");
        Self(self.0)
    }
}

#[test]
fn a_poisoned_lock_is_taken_over() {
    let table = Table::new(Config::default());
    table.insert(2, None, Brittle(true)).unwrap();
    table.insert(18, None, Brittle(false)).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| table.lookup(2))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| table.for_each(|_, _| {}))).is_err());
    assert!(table.lookup(18).is_some());
    assert!(table.settle(2, Settled::Failed).is_some());
    let mut seen = Vec::new();
    table.for_each(|id, _| seen.push(id));
    assert_eq!(seen, [18]);
    assert_eq!(table.close().len(), 1);
}

#[cfg(debug_assertions)]
#[test]
fn dropping_a_table_that_still_holds_requests_is_seen() {
    let table = Table::new(Config::default());
    table.insert(2, None, ()).unwrap();
    table.insert(4, None, ()).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| drop(table))).unwrap_err();
    assert_eq!(
        panicked.downcast_ref::<String>().unwrap(),
        "a request table was dropped with 2 requests unsettled; close it first"
    );

    // The panic must not happen during another panic, which would abort the process.
    let panicked = catch_unwind(|| {
        let table = Table::new(Config::default());
        table.insert(2, None, ()).unwrap();
        panic!("the first");
    })
    .unwrap_err();
    assert_eq!(panicked.downcast_ref::<&str>(), Some(&"the first"));

    let emptied = Table::new(Config::default());
    emptied.insert(2, None, ()).unwrap();
    assert_eq!(emptied.close().len(), 1);
}
