//! Tables of waiting requests that `adit_pending::Table` is compared with, behind one trait.
//!
//! None of them has a limit, deadlines, counters or a close; ours pays for those in the same figure.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use adit_pending::{Config, Settled, Table};
use dashmap::DashMap;
use slab::Slab;
use uuid::Uuid;

use crate::case::Role;

/// The handle of the waiting request.
pub type Value = Arc<u64>;

/// What a request goes through.
pub trait Pending: Send + Sync {
    /// What the messages of a request carry.
    type Key: Send;
    /// The name in bench ids.
    const NAME: &'static str;
    /// What it is to the comparison.
    const ROLE: Role;
    /// What a key holds on the heap.
    const KEY_HEAP_BYTES: usize = 0;
    /// An empty table.
    fn empty() -> Self;
    /// Lets a request wait. `id` grows; who makes keys of another kind ignores it.
    fn insert(&self, id: u64, value: Value) -> Self::Key;
    /// Finds the value for a message.
    fn lookup(&self, key: &Self::Key) -> Option<Value>;
    /// Takes the request out.
    fn settle(&self, key: &Self::Key) -> Option<Value>;
}

/// Ours.
pub struct Ours(Table<Value>);

impl Pending for Ours {
    type Key = u64;
    const NAME: &'static str = "ours";
    const ROLE: Role = Role::Ours;

    fn empty() -> Self {
        Self(Table::new(Config {
            max_entries: 1 << 20,
        }))
    }

    fn insert(&self, id: u64, value: Value) -> u64 {
        // A refusal would be seen by the settle that finds nothing.
        drop(self.0.insert(id, None, value));
        id
    }

    fn lookup(&self, key: &u64) -> Option<Value> {
        self.0.lookup(*key)
    }

    fn settle(&self, key: &u64) -> Option<Value> {
        self.0.settle(*key, Settled::Completed)
    }
}

/// The naive one: a map of random UUIDs as text behind one lock.
pub struct MutexMap(Mutex<HashMap<String, Value>>);

impl Pending for MutexMap {
    type Key = String;
    const NAME: &'static str = "mutex_map";
    const ROLE: Role = Role::Naive;
    const KEY_HEAP_BYTES: usize = 36;

    fn empty() -> Self {
        Self(Mutex::default())
    }

    fn insert(&self, _id: u64, value: Value) -> String {
        let key = Uuid::new_v4().to_string();
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.insert(key.clone(), value);
        key
    }

    fn lookup(&self, key: &String) -> Option<Value> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(key).cloned()
    }

    fn settle(&self, key: &String) -> Option<Value> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.remove(key)
    }
}

/// A general sharded map.
pub struct Dash(DashMap<u64, Value>);

impl Pending for Dash {
    type Key = u64;
    const NAME: &'static str = "dashmap_u64";
    const ROLE: Role = Role::Rival;

    fn empty() -> Self {
        Self(DashMap::new())
    }

    fn insert(&self, id: u64, value: Value) -> u64 {
        self.0.insert(id, value);
        id
    }

    fn lookup(&self, key: &u64) -> Option<Value> {
        self.0.get(key).map(|value| Arc::clone(&value))
    }

    fn settle(&self, key: &u64) -> Option<Value> {
        self.0.remove(key).map(|(_, value)| value)
    }
}

/// The same map under random UUIDs as text: what the lock costs beside what the key costs.
pub struct DashUuid(DashMap<String, Value>);

impl Pending for DashUuid {
    type Key = String;
    const NAME: &'static str = "dashmap_uuid";
    const ROLE: Role = Role::Rival;
    const KEY_HEAP_BYTES: usize = 36;

    fn empty() -> Self {
        Self(DashMap::new())
    }

    fn insert(&self, _id: u64, value: Value) -> String {
        let key = Uuid::new_v4().to_string();
        self.0.insert(key.clone(), value);
        key
    }

    fn lookup(&self, key: &String) -> Option<Value> {
        self.0.get(key).map(|value| Arc::clone(&value))
    }

    fn settle(&self, key: &String) -> Option<Value> {
        self.0.remove(key).map(|(_, value)| value)
    }
}

/// A general lock-free map, made for many more reads than writes.
pub struct Papaya(papaya::HashMap<u64, Value>);

impl Pending for Papaya {
    type Key = u64;
    const NAME: &'static str = "papaya";
    const ROLE: Role = Role::Rival;

    fn empty() -> Self {
        Self(papaya::HashMap::new())
    }

    fn insert(&self, id: u64, value: Value) -> u64 {
        self.0.pin().insert(id, value);
        id
    }

    fn lookup(&self, key: &u64) -> Option<Value> {
        self.0.pin().get(key).cloned()
    }

    fn settle(&self, key: &u64) -> Option<Value> {
        self.0.pin().remove(key).cloned()
    }
}

/// One slab for each link: slots handed out again, behind the link's lock, as its opener and its reader are two tasks. The
/// id beside the slot tells late messages.
pub struct SlabPerLink(Mutex<Slab<(u64, Value)>>);

impl Pending for SlabPerLink {
    type Key = (usize, u64);
    const NAME: &'static str = "slab_per_link";
    const ROLE: Role = Role::Rival;

    fn empty() -> Self {
        Self(Mutex::default())
    }

    fn insert(&self, id: u64, value: Value) -> (usize, u64) {
        let mut slab = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (slab.insert((id, value)), id)
    }

    fn lookup(&self, key: &(usize, u64)) -> Option<Value> {
        let slab = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, value) = slab.get(key.0)?;
        (*id == key.1).then(|| Arc::clone(value))
    }

    fn settle(&self, key: &(usize, u64)) -> Option<Value> {
        let mut slab = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slab.get(key.0)?.0 != key.1 {
            return None;
        }
        slab.try_remove(key.0).map(|(_, value)| value)
    }
}
