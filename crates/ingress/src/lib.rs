//! Public listeners for visitors.
//!
//! Accepts connections of visitors, reads HTTP/1.1 (hyper) and HTTP/2 (h2) from them, passes each request through a
//! chain of [`Layer`]s, gets its destination from a [`Director`], forwards it over a lane (`adit-link`) and sends the
//! response back. TCP connections and UDP flows take the same path without a head.
//!
//! Promises:
//! - a lane carries well-formed requests only: a request that two parsers could read differently gets 400 and its
//!   connection is closed;
//! - a request body is read only as fast as the lane has credit for it, and the credit of a response is returned only when
//!   its bytes have been written to the visitor's socket, so that a request holds a bounded amount of memory;
//! - a truncated response never looks complete (P-7.1); a failure before the head of the response results in an error
//!   response with a reason (section 7 of the protocol, `forward/error_response.rs`);
//! - a visitor that stalls, leaves or floods affects only itself: head, body, write and idle time are bounded, and all its
//!   exchanges are cancelled when it leaves;
//! - the observer of the [`Admission`] receives one record for each request, when the request is over;
//! - a request of HTTP/1 has no task except the one that sends a streamed body; each request of HTTP/2, TCP connection and
//!   UDP flow has one.
//!
//! Leaves to the caller: accepting connections and assigning them to threads, rules and clients (behind [`Director`]), the
//! list of layers and its order, TLS handshakes and the hosts that a connection over TLS may be used for.
//!
//! Proof: `tests/`: both ends of a lane in memory with a scripted service behind it, real sockets in front of it, and raw
//! bytes where an HTTP library would not send them.
//!
//! # Modules
//!
//! Imports go one way: `accept` -> `protocol` -> `forward`, and `layers` -> `forward`.
//!
//! - `accept`: from a stream to one request: protocol detection, the socket under hyper and h2.
//! - `protocol`: one module for each protocol that a visitor can use. It parses the request, forwards it with the options
//!   of the protocol, and turns the result into a response, a WebSocket or a byte stream.
//! - `forward`: what all protocols share: the request and its record, admission, the retry loop, bodies in both
//!   directions, responses and error responses.
//! - `layers`: the built-in layers.

mod accept;
mod config;
mod connection_shares;
mod failure_counters;
mod forward;
pub mod layers;
mod protocol;
mod stats;

pub use accept::http::Http;
pub use adit_splice::{EdgeTimeouts, SESSION_TIMEOUT};
pub use config::{HttpConfig, TcpConfig, UdpConfig};
pub use failure_counters::FailureCounts;
pub use forward::{
    admission::Admission,
    denial::Denial,
    director::{Destination, Direction, Director},
    error_pages::{ErrorPage, ErrorPageError, ErrorPages},
    layer::{Held, Layer, Layers, NoResponse, Verdict},
    limits::{Limits, limit_exchange},
    local_response::LocalResponse,
    request_meta::{RequestMeta, Scheme, Visitor},
    retry_budget::RetryBudget,
    served_hosts::ServedHosts,
    session::Session,
    target::Target,
};
pub use layers::{Network, ParseNetworkError, TrustedProxies};
pub use protocol::{
    tcp::{SessionStats, Tcp},
    udp::{Udp, UdpDropped, UdpStats},
};
pub use stats::Stats;
