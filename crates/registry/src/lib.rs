//! The live links: the connected clients, their epochs and their streams (F16, F17).
//!
//! A registration creates a [`Link`]; its streams name the session. The link is routable as soon as its first data
//! stream is open, and ends when its last stream and its channel have ended. A [`MembershipObserver`] receives both
//! changes, so that the owner of tunnels and balancers never polls the state of a connection.
//!
//! Promises: a client id has one link at a time; the newer epoch of the same instance takes over at once, another
//! instance only if the holder does not respond (P-1.8); losing a link fails its requests once and removes all its state.
//!
//! Leaves to others: credentials (`auth`), names and hosts of tunnels (`server`), sockets.

#![allow(clippy::result_large_err)] // errors of registration: once per connection

mod config;
mod error;
mod link;
mod registry;

pub use config::Config;
pub use error::{RegisterError, StreamError};
pub use link::{Fence, Link, LinkId, LinkStats};
pub use registry::{ControlGuard, LaneGuard, MembershipObserver, Registered, Registry, Stats};
