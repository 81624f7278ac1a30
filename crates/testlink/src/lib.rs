//! Both ends of a link in one process, for tests only.
//!
//! A test of one end takes the part of the other one. [`Link`] is a lane with both its ends, joined in memory. A request of its
//! near end reaches a service in the test ([`Link::serving`]), the test itself ([`Link::scripted`], which returns
//! [`Incoming`]), or an egress with real services (`EgressLink`). [`TunnelRequest`] and [`Response`] are what a
//! test opens and reads on a lane; the modules [`exchanges`] and [`websocket`] have the other side.
//!
//! Entries for visitors are in front of the near end: `Route` has the destination of requests and builds an
//! `HttpEntry`, a `TcpEntry` or a `UdpEntry`. [`streams`] has streams in memory and over TLS. Visitors are small
//! drivers over any stream: [`http1`], [`http2`], [`grpc`], [`websocket`], [`tcp`], [`udp`]. [`Recorder`] keeps the
//! records of finished requests.
//!
//! Every wait has a bound ([`within`], [`until`]), so that a hanging test fails with the name of the condition.
//!
//! Dev-dependency only: `ci/boundaries` checks it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::missing_panics_doc, clippy::missing_errors_doc)]

#[cfg(feature = "egress")]
mod egress;
#[cfg(feature = "ingress")]
mod entry;
pub mod exchanges;
pub mod grpc;
pub mod http1;
pub mod http2;
mod incoming;
mod link;
mod recorder;
mod request;
#[cfg(feature = "ingress")]
mod route;
pub mod streams;
pub mod tcp;
pub mod udp;
mod wait;
pub mod websocket;

#[cfg(feature = "egress")]
pub use egress::{EgressLink, ObservedEgress, http_service};
#[cfg(feature = "ingress")]
pub use entry::{Entry, HttpEntry, TcpEntry, UdpEntry, http_config};
pub use exchanges::{block, block_text};
pub use incoming::Incoming;
pub use link::{Link, TUNNEL, ends, lane, lane_config, lane_of};
pub use recorder::{FORWARDED, Recorded, Recorder, Records, SAMPLED, UNSAMPLED};
pub use request::{Response, TunnelRequest, read};
#[cfg(feature = "ingress")]
pub use route::{Route, ScriptedDirector, fail, never};
pub use wait::{next_part, pass, until, within};
