//! The transport of [`crate::control`] and of lanes over gRPC.
//!
//! The data stream (`Proxy`) is plain gRPC on the wire, and any gRPC library can be the peer. It is served by hand on
//! hyper, because generated code copies each payload twice; the other methods are served by the generated service, on
//! the same connection. See `docs/decisions/0002-data-stream-by-hand.md`.

mod abort;
mod allowance;
mod body;
mod channel;
mod endpoint;
mod greeting;
mod http2;
mod message;
mod methods;
mod proxy;
mod status;
mod transport;

pub use body::{GrpcReader, TunnelBody, TunnelData};
pub use channel::{ChannelClosed, GrpcChannel, connect};
pub use endpoint::{Endpoint, serve_connection};
pub use greeting::Greeting;
pub use methods::Methods;
pub use proxy::{Proxy, ProxyError, ProxyUrlError};
pub use transport::GrpcTransport;
