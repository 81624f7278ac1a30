//! Composes the private side: runs a client with given [`Settings`].
//!
//! This crate only connects other crates: `client` executes the reconnect machine (`adit-reconnect`), `session` is one
//! registration with its streams (`adit-link`), and requests that the server opens are sent to the services by
//! `adit-egress`. In the other direction, `entries` serves visitors of this side (`adit-ingress`), and `links` provides
//! the current link for them.
//!
//! `join` exchanges an enrolment key for a credential, `joined` is the file that keeps it, and `certificate` renews it.
//!
//! Tunnels and entries can change while the client runs: [`Client::apply`].

mod announced_layers;
mod announcements;
mod certificate;
mod client;
mod entries;
mod instance;
mod join;
mod join_line;
mod joined;
mod links;
pub mod metrics;
mod renewal;
mod session;
mod settings;
mod status;
mod sync;

/// Custom headers with these names are not allowed.
pub use adit_codec::fields::is_message_control;
pub use client::{Applied, Changes, Client, ClientHandle, Ended, Registration, StartError};
pub use entries::EntryError;
pub use instance::InstanceError;
pub use join::{Join, JoinError, JoinOutcome};
pub use join_line::{JoinLine, JoinLineError, JoinTrust};
pub use joined::{Joined, JoinedCertificate, JoinedCredential, JoinedError, JoinedTrust};
pub use settings::{
    ClientTls, Compression, EdgeTimeouts, EntryKind, EntrySettings, HostPort, Hsts, Limits, Proxy,
    ProxyProtocol, ProxyUrlError, Roots, ServiceProtocol, ServiceSettings, Settings, Timeouts, Tls,
    TlsName, Trust, TrustedProxies, TunnelKind, TunnelSettings, layers,
};
pub use status::{ConfigStatus, CoreCounters, EntryStatus, Status, TunnelOutcome, TunnelStatus};
