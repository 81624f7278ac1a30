//! One data stream without sockets: messages, credit and state per request.
//!
//! Holds, for each open request: the credit of both directions, the messages that wait to be sent, and those that are
//! owed to the peer. The caller keeps received payloads and the tasks that wait for them, in the request table
//! (`adit-pending`).
//!
//! Shape: [`Mux`] is shared by every task of the stream. Frames from the transport are passed to
//! [`Receiver::handle_frame`], which turns them into [`Event`]s and never waits. Tasks append messages with
//! [`Mux::open`], [`Mux::send`] and similar methods; one writer takes [`Transmit`]s with [`Mux::poll_transmit`]. A
//! stream that loses its connection ([`Mux::detach`]) can be given another one ([`Mux::attach`]). The mux has no clock:
//! the caller owns every timer. The pattern is quinn-proto's: `handle_*` in, `poll_*` out.
//!
//! Promises (tests cite the clauses of `docs/protocol.md`):
//! - a violation of a rule fails its request, not the stream, unless the framing is lost (P-2.4);
//! - credit is never exceeded in either direction (P-4.2, P-4.4);
//! - messages are sent in the order of P-5.1, and requests take turns;
//! - owed messages are never queued (P-4.8), so the reader never waits for the writer;
//! - memory is bounded by [`Config`]: requests of the peer, queued bytes per request and in all, owed refusals; requests
//!   that are over leave no entry in any list, even while nothing can be written;
//! - the stream ends when its peer opens and resets requests in a loop ([`ReceiveError::RapidReset`]).
//!
//! Leaves to the caller: how many requests this end opens (P-2.9 bounds the peer's), to call [`Mux::sendable`] before
//! it sends, and to drop events of a request that it has ended while it handles the events of the same frame.
//!
//! Cost: one short lock per call; constant time per message. Numbers in `docs/bench/`, suite `path`.
//!
//! Proof: `tests/pairs.rs` runs two muxes over a pipe with delay and loss in virtual time, `tests/properties.rs` random
//! traffic against a model, `tests/rules.rs` each rule by its number, `tests/fuzz.rs` arbitrary bytes.

mod config;
mod event;
mod mux;
mod receive;
mod request;
mod send;
mod state;
mod transmit;

pub use config::Config;
pub use event::Event;
pub use mux::{Attachment, Mux, Receiver};
pub use receive::ReceiveError;
pub use send::{OpenError, SendError, Sendable};
pub use state::Stats;
pub use transmit::Transmit;
