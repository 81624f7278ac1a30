//! Chooses a link or a backend from loads.
//!
//! Holds: a policy and a fixed set of members, each with a weight, a key and a handle to its load. A change of
//! membership makes a new [`Balancer`] with [`Balancer::successor`]; rotation and counters carry over, loads carry over
//! because the caller passes the same [`Load`] again.
//!
//! Promises:
//! - a member that is not eligible is never chosen, and `None` is returned only
//!   when no member was eligible;
//! - round robin: the numbers of turns of any two members differ by at most one, over any sequence of choices and any
//!   number of threads (by two where the order begins again, after 2^32 choices);
//! - weighted round robin gives each member its exact share over one period, in
//!   the interleaved order of nginx;
//! - the hash policies move only the keys of the member that left, or only the keys that the new member takes, and
//!   select the same member for the same key in every process;
//! - an [`InFlight`] guard lowers its load exactly once.
//!
//! Leaves to the caller: random bits and the hash (both are arguments), health,
//! permits and retries (all through `eligible`), and beginning the load of the
//! chosen member.
//!
//! Cost, for `n` members: constant for all policies but least connections while the first choice is eligible, and
//! linear when it is not. Least connections reads members until it finds an idle one. The hash policies compute the
//! owner of a slot of keys when it is first needed, which is linear, and create the table of 4 to 32 KiB (more above
//! 65,535 members) at the first choice; nothing else allocates after [`Balancer::new`], and a choice waits for another
//! one only while the table is created. One atomic operation takes the turn of a choice and counts it; a request needs
//! one more to begin and one to end.
//!
//! Proof: `tests/properties.rs` for each promise, comparison of plain rendezvous with the table of slots,
//! `tests/loom.rs` for the guard, the tickets and the slots under threads.

mod balancer;
mod fill;
mod hash;
mod load;
mod member;
mod policy;
mod rendezvous;
mod schedule;
mod slots;
mod sync;

pub use balancer::{Balancer, Draw, Stats};
pub use hash::hash_bytes;
pub use load::{InFlight, Load};
pub use member::Member;
pub use policy::{ParsePolicyError, Policy};
