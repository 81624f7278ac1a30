//! Composition of the public side: takes [`Settings`] and runs a server.
//!
//! Everything here is assembly. What a visitor's request passes, in order: `ingress` (HTTP and its layers), `director`
//! (rule, tunnel, client, permit), a lane of the client's link. What a client's registration passes: `service`
//! (credential), `registry` (epoch, takeover), `directory` (names and hosts, which make the next snapshot of routes).

#![allow(clippy::result_large_err)] // tonic's status, on paths that run once per stream

mod channels;
mod director;
mod directory;
mod lanes;
mod retry_budget;
mod server;
mod service;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod threads;
mod tunnel;

pub use directory::RuleError;
pub use server::{Server, ServerHandle, StartError};
pub use settings::{Limits, NamedToken, RuleSettings, Settings, Timeouts};
pub use status::{
    ClientStatus, CoreCounters, ProcessStatus, RouteStatus, Status, TunnelStatus, VisitorStatus,
};
