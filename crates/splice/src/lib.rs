//! A socket and an exchange, tied together: what one gives the other gets.
//!
//! Holds [`tcp`], the bytes of a TCP connection, and [`websocket`], the frames of a WebSocket. The two ends of either
//! differ in who dials, who masks and what a loss is called, and in nothing else: `ingress` and `egress` carry them with
//! the same code.
//!
//! Promises:
//! - one future for both directions, none of which waits for the other;
//! - a socket is read only as far as credit lets the bytes go on, and into a buffer that is taken when there is something
//!   to read: what waits holds none;
//! - payload gives its credit back when it has been written (P-4.5);
//! - what is dropped before its end is reset on both hops: nothing that broke off looks whole.
//!
//! Leaves to the caller: dialling and accepting, the heads of both directions, time limits but the end of a WebSocket.
//!
//! Cost: one read for each 64 KiB of bulk, one write for as much as has come.
//!
//! Proof: through both ends, with real sockets: the `tcp` and `websocket` tests of `ingress` and `egress`.

pub mod tcp;
pub mod websocket;
