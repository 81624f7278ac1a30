//! Credit, permits and the sender's queue: the naive design (locked counters, a list of wakers that are all woken,
//! turns by messages), the designs of others, and the design of this project, each behind one trait.

use std::sync::{Mutex, MutexGuard, PoisonError};

mod credit;
mod permits;
mod sender;

pub use credit::{Credit, Http2Credit, LockedCredit, OurCredit, SemaphoreCredit};
pub use permits::{OurGate, Permits, TokioSemaphore, WakeAll};
pub use sender::{Fifo, OurSender, RoundRobin, Sender, VirtualTime};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
