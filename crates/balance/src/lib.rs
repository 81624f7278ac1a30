//! Chooses a link or a backend from loads.
//!
//! Holds: a policy and a fixed set of members, each with a weight, a key and a
//! handle to its load. A change of membership makes a new [`Balancer`] with
//! [`Balancer::successor`]; rotation and counters carry over, loads carry over
//! because the caller hands the same [`Load`] in again.
//!
//! Promises:
//! - a member that the caller declares not eligible is never chosen, and `None`
//!   is answered only when no member was eligible;
//! - round robin gives any two members numbers of turns that differ by at most
//!   one, over any run of choices and whatever the number of threads;
//! - weighted round robin gives each member its exact share over one period, in
//!   the interleaved order of nginx;
//! - the hash policies move only the keys of the member that left, or only the
//!   keys that the newcomer takes;
//! - an [`InFlight`] guard lowers its load exactly once.
//!
//! Leaves to the caller: the dice and the hash (both are arguments), health,
//! permits and retries (all through `eligible`), and beginning the load of the
//! chosen member.
//!
//! Cost, for `n` members: constant for round robin, weighted round robin and
//! power of two while the first pick is eligible, and linear when it is not.
//! Least connections and the hash policies read every member, always. Nothing
//! allocates after [`Balancer::new`], nothing locks.
//!
//! Proof: `tests/properties.rs` for each promise, `tests/loom.rs` for the
//! guard and the cursor under threads.

mod balancer;
mod hash;
mod load;
mod member;
mod policy;
mod rendezvous;
mod schedule;
mod sync;

pub use balancer::{Balancer, Draw, Stats};
pub use hash::hash_bytes;
pub use load::{InFlight, Load};
pub use member::Member;
pub use policy::{ParsePolicyError, Policy};
