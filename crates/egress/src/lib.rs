//! Forwards the requests that the peer opens to private services.
//!
//! [`Egress`] receives the requests that the peer opens (it is a lane's `Dispatch`) and forwards each over a connection
//! to its service: HTTP/1.1 (`http1`, a small client), HTTP/2 and gRPC (the `h2` crate), WebSocket, TCP and UDP.
//!
//! Promises:
//! - a response is forwarded completely or reset: a response that breaks off never looks complete (P-7.1);
//! - payload is forwarded at the rate of the slower side: a service is read only with credit, a connection that waits
//!   holds no buffer, and the credit of a visitor's payload is returned when the payload has been written (P-4.5);
//! - when a visitor leaves, the service's connection (HTTP/1.1) or stream (HTTP/2) is closed at once;
//! - a connection is reused only after an exchange that was complete in both directions;
//! - connections, idle connections and waiting requests of a service are bounded by [`Config`];
//! - the observer receives one record of each request when it has ended, refused ones included; the service receives the
//!   trace context of this hop where the request is traced, and the visitor's otherwise.
//!
//! Structure (a module imports only those below it):
//! - `egress`: services and their connections; `egress::dispatch` checks a request and selects the module of its protocol;
//! - `protocol`: one module for each protocol, which connects, writes the request and forwards the response;
//! - `forward`: what all protocols share: the service, the request's record, the errors and the reset that end it early;
//! - `connect`: addresses, TCP, TLS and the PROXY header.
//!
//! One request of HTTP/1, in the order of its calls: `egress.rs` (`Egress::dispatch_to`) finds the service;
//! `egress/dispatch.rs` checks the request and begins its record; `protocol/http1/pool.rs` (`submit`) passes it to an
//! idle connection, or `connection.rs` (`run`) opens one with `connect/dial.rs`; `exchange.rs` (`serve`) writes the
//! request (`request_writer.rs`, `request_head.rs`), forwards the response (`response_reader.rs`, `response_head.rs`)
//! and finishes the record (`forward/record.rs`).
//!
//! Leaves to others: which tunnel a request belongs to (the server's rules; in this crate it is a name in the opening
//! message), headers that describe the visitor to the service (P-3.4, the server), retries on other clients (the
//! opener).
//!
//! Cost: one task per connection and none per request (HTTP/1.1), or one task per request (HTTP/2); a small exchange is
//! one write and one read. Threads may share an `Egress`; with one for each data thread, requests are not passed
//! between threads. A record costs two or three readings of the clock and no memory; a traced request has a timeline,
//! and a reading of the clock for each end of a phase.
//!
//! Proof: `tests/it/services.rs` and `tests/it/lifecycle.rs` against services scripted byte by byte, `tests/it/hyper_services.rs`
//! against hyper's servers, `tests/it/grpc.rs` against HTTP/2 frame by frame, `tests/it/grpc_tls.rs` over TLS, `tests/it/oracle.rs`
//! beside hyper's client, `tests/it/observer.rs` and `tests/it/observer_protocols.rs` for records, `tests/fuzz.rs` for hostile
//! responses.

mod config;
mod connect;
mod egress;
mod forward;
mod protocol;
mod stats;

pub use config::{Config, Protocol, ProxyProtocol, ServiceConfig};
pub use connect::tls::Tls;
pub use egress::Egress;
pub use forward::origin::{RequestOrigin, RequestOwner};
pub use protocol::http1;
pub use stats::{Stats, TcpStats, UdpStats};
