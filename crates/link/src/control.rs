//! Registration, control streams and the opening of lanes, whatever transport carries them.
//!
//! A transport is a module beside `grpc`. It implements two traits and calls a third:
//!
//! ```text
//!  client                                         server
//!  Transport::connect -> Channel    (network)     transport's endpoint -> ControlServer
//!    Channel::register        ------------------>   ControlServer::register
//!    Channel::open_control    <----------------->   ControlServer::open_control
//!    Channel::sync_config     ------------------>   ControlServer::sync_config
//!    Channel::open_lane       <----------------->   AcceptLane::accept_lane
//! ```
//!
//! The messages are those of `adit-proto`; errors are a [`Refusal`] with a reason of `docs/protocol.md`, or a
//! [`CallError`] at the caller. Lanes use the small interface of [`crate::TransportReader`] and
//! [`crate::TransportWriter`]: a channel only opens them.
//!
//! Cost: each call allocates; all of them are rare (a registration, a control message, a lane), none is on the path of a
//! request.

mod client;
mod connection;
mod message;
mod refusal;
mod server;

pub use client::{Channel, ConnectError, ControlChannel, Driver, ForeignPeer, Transport};
pub use connection::{Allowance, ChannelId, ClientConnection, UNAUTHENTICATED_BYTES};
pub use message::{ControlInbound, ControlMessage, ControlOutbound, ControlReadError};
pub use refusal::{CallError, Refusal, RefusalReason};
pub use server::{AcceptLane, AcceptedLane, ControlServer, LaneRequest, OnEnd};

/// What this build supports beyond the version of the protocol (P-1.2). Both sides use the intersection.
pub const CAPABILITIES: &[&str] = &[
    "http",
    "trailers",
    "expect-continue",
    "grpc",
    "websocket",
    "tcp",
    "udp",
    "upgrade",
    "gzip",
    "zstd",
    "layers",
    "certificates",
    "https",
    "renewal",
    "acme",
];
