//! Credit windows, permits and the fair sender: they keep one request from delaying another (F11, F12, F13).
//!
//! Holds:
//! - [`SendCredit`] and [`RecvCredit`], the two ends of one direction of one request (P-4.1 to P-4.6);
//! - [`Budget`], bytes that many requests share, a link's below the process's;
//! - [`Gate`], a counted set of permits that tasks wait for in order;
//! - [`FairSender`], the requests' queues, served in turn by cost, newcomers early (P-5.1).
//! - [`Rate`], a rate of events with a burst, for any number of senders;
//! - [`Bandwidth`], a rate of bytes that senders share in turn.
//!
//! Promises:
//! - A sender that stays within its credit never exceeds the receiver's limit, however late windows arrive.
//! - When all that was sent has been consumed and every window has arrived, at least one byte may be sent.
//! - Limits never decrease. The bytes that all requests of a budget may have in flight or in memory are at most an
//!   initial window for each request plus what is charged to the budget.
//! - A budget is never over its capacity, nor is the one above it. Each byte charged by a request is returned, at the
//!   latest when its [`RecvCredit`] is dropped.
//! - No permit is lost or doubled, in any order of drops; waiters are served in the order of their first poll and their number is bounded.
//! - When permits are short, a holder takes at most an eighth of the permits that its share leaves to others.
//! - A [`Rate`] admits at most its burst and what the rate gives, in any window of time; a [`Bandwidth`] as well, and one
//!   chunk more.
//! - For two requests that always have something queued, the costs served differ by at most a quantum and one item; the
//!   items of a request keep their order; no item is lost.
//! - A request that had nothing queued is served before those in turn as far as its next turn covers the cost; those in
//!   turn keep half of the capacity.
//!
//! Leaves to the caller: time (a bounded wait at the gate is the caller's timer), sending the windows, measuring what a
//! buffer pins (P-4.7), and control messages, which are sent before the items of the fair sender (P-5.1).
//!
//! Costs: constant time per call, without allocation, except where a queue grows; the fair sender's `pop` is amortised.
//! The numbers are from the bench groups `flow/*`.
//!
//! Proof: `tests/properties.rs` compares both ends, the budgets and the fair sender with simple models; `tests/loom.rs`
//! runs concurrent calls of gate and budget in every order.

mod bandwidth;
mod budget;
mod cost;
mod fair;
mod gate;
mod rate;
mod recv_credit;
mod ring;
mod send_credit;
mod sync;

pub use bandwidth::Bandwidth;
pub use budget::{Budget, Loan};
pub use cost::MESSAGE_COST;
pub use fair::{FairSender, QUANTUM};
pub use gate::{Acquire, Claim, Gate, GateError, Permit, Shares};
pub use rate::{Arrivals, Rate};
pub use recv_credit::{Grant, MAX_WINDOW, MIN_WINDOW, Overrun, RecvCredit};
pub use send_credit::{InsufficientCredit, SendCredit, WindowError};
