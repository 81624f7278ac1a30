//! Splices a socket and an exchange: forwards what arrives at one to the other, in both directions.
//!
//! [`tcp`] carries the bytes of a TCP connection, [`websocket`] the frames of a WebSocket. The two ends of the tunnel differ
//! in which one dials, which one masks frames, and what they report of a loss; `ingress` and `egress` share the rest.
//!
//! Promises:
//! - one future serves both directions, and neither waits for the other;
//! - a socket is read only within credit, into a buffer that is taken when there is something to read: a connection that
//!   waits holds none;
//! - the credit of a payload is returned when the payload has been written (P-4.5);
//! - a splice that is dropped before its end resets both hops: an incomplete stream never looks complete.
//!
//! Leaves to the caller: dialling and accepting, the heads of both directions, all timeouts except the one for closing a
//! WebSocket.
//!
//! Cost: one read for each 64 KiB of bulk data, one write for all that has arrived.
//!
//! Proof: the `tcp` and `websocket` tests of `ingress` and `egress`, through both ends.

pub mod tcp;
mod timeouts;
pub mod websocket;

pub use timeouts::{EdgeTimeouts, SESSION_TIMEOUT};
