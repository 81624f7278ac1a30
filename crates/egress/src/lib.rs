//! Reaches the service: requests out.
//!
//! [`Egress`] takes the requests that the peer opens (it is a lane's `Dispatch`) and serves each through a pooled
//! connection to a private service, over HTTP/1.1 ([`http1`], a lean client of our own) or HTTP/2 in clear text or over
//! TLS (the `h2` crate), which carries gRPC too.
//!
//! Promises:
//! - an answer is whole or it is reset: a service that breaks off never looks like one that ended (P-7.1);
//! - payload flows at the pace of the slower side: nothing is read from a service without credit, no buffer is held
//!   while there is nothing to read, and a visitor's payload gives its credit back once it has been written (P-4.5);
//! - a visitor who leaves closes the service's connection (HTTP/1.1) or stream (HTTP/2) at once;
//! - a connection is used again only after an exchange that was complete in both directions;
//! - connections, idle connections and waiting requests of a service are bounded by [`Config`];
//! - an observer is told of each request once, when it is over, also of those that are refused; the service gets the trace
//!   context of this hop in place of the visitor's where the request is traced, and else what the visitor sent.
//!
//! Rooms: [`Egress`] takes opened requests from a lane and hands each to the module of its service's protocol
//! (`protocol`), which reaches the service through `connect`. Below stand `request`, what is recorded of one request and
//! how it is given up, and the settings, counters and buffers of all.
//!
//! Leaves to others: which tunnel a request belongs to (the server's rules; here it is a name in the opening message),
//! headers that tell the service about the visitor (P-3.4, the server), retries on other clients (the opener).
//!
//! Cost: one task per connection, none per request (HTTP/1.1), or one per request (HTTP/2); a small exchange is one write
//! and one read. An `Egress` may be shared by threads; one for each data thread keeps requests from crossing between
//! them. A request that is told of costs two or three looks at the clock and no memory; one that is traced a look for
//! each end of a phase, and its timeline.
//!
//! Proof: `tests/services.rs` and `tests/lifecycle.rs` against services scripted byte by byte, `tests/hyper_services.rs`
//! against hyper's servers, `tests/grpc.rs` against HTTP/2 frame by frame, `tests/grpc_tls.rs` over TLS,
//! `tests/oracle.rs` beside hyper's client, `tests/observer.rs` and `tests/observer_protocols.rs` for what is told,
//! `tests/fuzz.rs` for hostile answers.

mod config;
mod connect;
mod egress;
mod fields;
mod protocol;
mod request;
mod resources;
mod service;
mod stats;

pub use config::{Config, Protocol, ProxyProtocol, ServiceConfig};
pub use connect::tls::{NameError, Roots, RootsError, Tls, TlsName, Trust};
pub use egress::Egress;
pub use protocol::http1;
pub use request::arrival::{RequestOrigin, RequestOwner};
pub use stats::{Stats, TcpStats, UdpStats};
