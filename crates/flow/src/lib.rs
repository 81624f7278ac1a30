//! Credit windows, permits and the fair sender: they keep one request from delaying another (F11, F12, F13).
//!
//! Holds:
//! - [`SendCredit`] and [`RecvCredit`], the two ends of one direction of one request (P-4.1 to P-4.6);
//! - [`Budget`], bytes that many requests share, a link's below the process's;
//! - [`Gate`], a counted set of permits that tasks wait for in order;
//! - [`FairSender`], the requests' queues, served in turn by cost, newcomers early (P-5.1).
//!
//! Promises:
//! - A sender that honours its credit never overruns the receiver, however late windows come.
//! - When all that was sent has been consumed and every window has come, at least one byte may be sent.
//! - Limits never go back. What all requests of a budget may have in flight or in memory is never more than an initial window each plus what the budget has been charged.
//! - A budget is never over its capacity, nor is the one above it. Each byte charged by a request comes back, at the latest when its [`RecvCredit`] is dropped.
//! - No permit is lost or doubled, in any order of drops; waiters are served in the order of their first poll and their number is bounded.
//! - When permits run short, no holder takes what its share leaves to others, as long as it has had an eighth of that.
//! - Two requests that always have something queued differ in the cost served by at most a quantum and one item; within a request order is kept; nothing is lost.
//! - A request that had nothing queued goes before those in turn as long as its next turn pays for it; those in turn keep half of the way.
//!
//! Leaves to the caller: time (a bounded wait at the gate is the caller's timer), sending the windows, measuring what a buffer pins (P-4.7), and control messages, which go before the fair sender (P-5.1).
//!
//! Costs: constant time per call, without allocation, except where a queue grows; the fair sender's `pop` is amortised. Numbers come from the bench groups `flow/*`.
//!
//! Proof: `tests/properties.rs` plays both ends, the budgets and the fair sender against simple models; `tests/loom.rs` runs the races of gate and budget.

mod budget;
mod cost;
mod fair;
mod gate;
mod recv_credit;
mod ring;
mod send_credit;
mod sync;

pub use budget::{Budget, Loan};
pub use cost::MESSAGE_COST;
pub use fair::{FairSender, QUANTUM};
pub use gate::{Acquire, Claim, Gate, GateError, Permit, Shares};
pub use recv_credit::{Grant, MAX_WINDOW, MIN_WINDOW, Overrun, RecvCredit};
pub use send_credit::{InsufficientCredit, SendCredit, WindowError};
