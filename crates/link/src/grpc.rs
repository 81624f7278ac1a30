//! Lanes over gRPC: the `Proxy` method, by hand, on hyper.
//!
//! The data stream is plain gRPC on the wire, and any gRPC library can be the peer. It is served without generated
//! code because that copies each payload twice; the other methods are the generated service's, on the same
//! connection. See `docs/decisions/0002-data-stream-by-hand.md`.

mod allowance;
mod body;
mod channel;
mod endpoint;
mod greeting;
mod http2;
mod resettable;

pub use allowance::{Allowance, UNAUTHENTICATED_BYTES};
pub use body::{GrpcReader, TunnelBody, TunnelData};
pub use channel::{Channel, ChannelClosed, connect, open_lane};
pub use endpoint::{AcceptLane, AcceptedLane, ChannelId, Endpoint, OnEnd, serve_connection};
pub use greeting::Greeting;
pub use http2::{prepare_socket, status_reason, with_reason};
