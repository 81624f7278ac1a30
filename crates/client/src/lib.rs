//! Composition of the private side: takes [`Settings`] and runs a client.
//!
//! Everything here is assembly: `client` does what the reconnect machine (`adit-reconnect`) says, `session` is one
//! registration with its streams (`adit-link`), and what the server opens goes to the services through `adit-egress`.

#![allow(clippy::result_large_err)] // tonic's status, on paths that run once per connection

mod client;
mod instance;
mod session;
mod settings;
mod status;

pub use client::{Client, ClientHandle, Ended, Registration, StartError};
pub use instance::InstanceError;
pub use settings::{Limits, ServiceProtocol, ServiceSettings, Settings, Timeouts, TunnelSettings};
pub use status::{CoreCounters, Status, TunnelOutcome};
