//! Composition of the private side: takes [`Settings`] and runs a client.
//!
//! Everything here is assembly: `client` does what the reconnect machine (`adit-reconnect`) says, `session` is one
//! registration with its streams (`adit-link`), and what the server opens goes to the services through `adit-egress`.
//! The other way round, `entries` lets visitors of this side in (`adit-ingress`), and `links` says on which link.

mod announcements;
mod client;
mod entries;
mod instance;
mod links;
pub mod metrics;
mod session;
mod settings;
mod status;

pub use client::{Client, ClientHandle, Ended, Registration, StartError};
pub use entries::EntryError;
pub use instance::InstanceError;
pub use settings::{
    Compression, EntryKind, EntrySettings, Limits, ProxyProtocol, Roots, ServiceProtocol,
    ServiceSettings, Settings, Timeouts, Tls, TlsName, Trust, TrustedProxies, TunnelKind,
    TunnelSettings,
};
pub use status::{CoreCounters, EntryStatus, Status, TunnelOutcome, TunnelStatus};
