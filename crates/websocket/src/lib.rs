//! WebSocket frames from bytes and back, and the rules of carrying them from one hop to the next (RFC 6455).
//!
//! Holds: [`FrameHead`] and its reader and writer; [`Mask`]; [`Inbound`], which cuts a socket's bytes into frames and
//! payload; [`Outbound`], which encodes them again; [`Relay`], which has one of each, carries frames between a socket and a
//! link, and decides how a WebSocket ends; key and accept value of the opening handshake ([`key`], [`accept`]).
//!
//! Promises:
//! - a frame crosses unchanged: fin, the three reserved bits, opcode, length and payload; extensions and messages are left
//!   to the two ends;
//! - exactly the frames that violate the protocol are errors ([`FrameError`]);
//! - no frame is buffered: payload is forwarded as it arrives, split anywhere, and no announced length allocates memory;
//! - a close frame that this side creates is sent between two frames, and no frame after a close frame (5.5.1);
//! - with a [`Relay`] at each end of the link, both peers receive every ending: a close frame as a close frame, a loss as a
//!   loss.
//!
//! Leaves to others: sockets, time (the caller bounds the wait once [`Relay::is_ending`]), randomness (the caller passes a
//! function for mask keys), credit (the caller passes how much may be sent), headers.
//!
//! Cost: constant time for a frame; masked payload is touched once, 32 bytes at a time; unmasked payload is not copied.
//!
//! Proof: `tests/properties.rs`: sequences of frames split anywhere, two relays back to back with losses and
//! closes in any order; `tests/fuzz.rs` for hostile bytes; a table of frames from the RFC in `src/frame.rs`.

mod closing;
mod frame;
mod handshake;
mod inbound;
mod mask;
mod outbound;
mod relay;

pub use closing::{Closing, Hop};
pub use frame::{
    FrameError, FrameHead, HeadBytes, HeadReader, MAX_CONTROL_BYTES, MAX_HEAD_BYTES, OPCODE_CLOSE,
};
pub use handshake::{VERSION, accept, is_key, key};
pub use inbound::{Inbound, Piece};
pub use mask::Mask;
pub use outbound::Outbound;
pub use relay::{GOING_AWAY, Outcome, POLICY_VIOLATION, PROTOCOL_ERROR, Relay, ResetCause, ToLink};
