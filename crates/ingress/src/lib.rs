//! Public listeners: visitors in.
//!
//! Takes visitors' connections, reads HTTP/1.1 and HTTP/2 from them (hyper), leads each request through one ordered
//! chain of [`Layer`]s, asks a [`Director`] where it goes, and carries it over a lane (`adit-link`) and its answer back.
//!
//! Promises:
//! - what reaches a lane is one well-formed request: whatever could be read in two ways gets 400 and the connection
//!   closed;
//! - a body is read from the visitor only as fast as credit lets it go on, and an answer is given its credit back only
//!   when it has been written to the visitor's socket, so that a request holds a bounded amount of memory;
//! - an answer that broke off never looks whole (P-7.1); a failure before the answer's head is an answer with a reason
//!   (section 7 of the protocol), made in one place, `reply`;
//! - a visitor that stalls, leaves or floods costs only itself: timers on head, body, write and idleness, and every one
//!   of its exchanges is cancelled when it goes;
//! - no task per request, but for the one that sends a streamed body.
//!
//! Leaves to the caller: accepting connections and dealing them to threads, rules and clients (behind [`Director`]),
//! which layers there are and in which order, TLS.
//!
//! Proof: `tests/`: both ends of a lane in memory with a scripted service behind it, real sockets before it, raw bytes
//! where a library would be too polite.

mod access;
mod answer;
mod body;
mod call;
mod config;
mod connection;
mod director;
mod framing;
mod http;
mod layer;
pub mod layers;
pub mod listener;
mod pump;
mod reply;
mod sniff;
mod socket;
mod stats;
mod streaming;
mod visit;

pub use config::HttpConfig;
pub use director::{Destination, Direction, Director};
pub use http::Http;
pub use layer::{BoxFuture, Held, Layer, Verdict};
pub use stats::Stats;
pub use visit::{Scheme, Visit, Visitor};
