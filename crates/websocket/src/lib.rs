//! WebSocket frames from bytes and back, and the rules of carrying them from one hop to the next (RFC 6455).
//!
//! Holds: [`FrameHead`] and its reader and writer; [`Mask`]; [`Inbound`], which cuts a socket's bytes into frames and
//! payload; [`Outbound`], which makes bytes of them again; [`Relay`], which has one of each, carries frames between a
//! socket and a link, and knows how a WebSocket ends; the two sums of the opening handshake ([`accept`], [`key`]).
//!
//! Promises:
//! - a frame crosses as it came: fin, the three reserved bits, opcode, length and payload; extensions, messages and
//!   what they mean are the business of the two ends;
//! - what cannot be read is an error ([`FrameError`]), and nothing else is;
//! - no frame is gathered: a payload goes on as it comes, cut anywhere, and no length takes memory;
//! - a close frame of our own stands between two frames, and no frame comes after a close frame (5.5.1);
//! - of two ends that are carried by a [`Relay`] each, both hear of every ending: a close frame as a close frame, a
//!   loss as a loss.
//!
//! Leaves to others: sockets, time (who carries waits no longer than it likes once [`Relay::is_ending`]), dice (mask
//! keys come from a function of the caller's), credit (the caller says how much may go on), headers.
//!
//! Cost: constant time for a frame; payload is touched once where it is masked, and not copied where it is not. The
//! mask goes over 32 bytes at a time.
//!
//! Proof: `tests/properties.rs`: sequences of frames cut anywhere, two relays back to back that meet losses and
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
