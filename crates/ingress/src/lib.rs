//! Public listeners: visitors in.
//!
//! Takes visitors' connections, reads HTTP/1.1 (hyper) and HTTP/2 (h2) from them, leads each request through one ordered
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
//! - whatever becomes of a request, the observer of its [`Admission`] is told of it once, when it is over;
//! - no task per request of HTTP/1, but for the one that sends a streamed body; one for each request of HTTP/2, TCP
//!   connection and UDP flow.
//!
//! Leaves to the caller: accepting connections and dealing them to threads, rules and clients (behind [`Director`]),
//! which layers there are and in which order, TLS.
//!
//! Proof: `tests/`: both ends of a lane in memory with a scripted service behind it, real sockets before it, raw bytes
//! where a library would be too polite.

mod access;
mod admission;
mod answer;
mod body;
mod call;
mod config;
mod connection;
mod demand;
pub mod descriptors;
mod director;
mod expectation;
mod failure_log;
mod framing;
mod grpc;
mod http;
mod http2;
mod http2_frames;
mod inbound;
mod interim;
mod layer;
pub mod layers;
pub mod listener;
mod ordered;
mod pace;
mod parked;
mod phases;
mod pump;
mod reply;
mod retry_budget;
mod serving;
mod session;
mod sniff;
mod socket;
mod stats;
mod streaming;
mod target;
mod tcp;
mod trusted_proxies;
mod udp;
mod unreadable;
mod upgrade;
mod upload;
mod visit;
mod websocket;

pub use admission::Admission;
pub use config::{HttpConfig, TcpConfig, UdpConfig};
pub use director::{Destination, Direction, Director};
pub use http::Http;
pub use layer::{BoxFuture, Held, Layer, Verdict};
pub use retry_budget::RetryBudget;
pub use session::Session;
pub use stats::Stats;
pub use target::Target;
pub use tcp::{SessionStats, Tcp};
pub use trusted_proxies::{Network, ParseNetworkError, TrustedProxies};
pub use udp::{Udp, UdpDropped, UdpStats};
pub use visit::{Scheme, Visit, Visitor};
