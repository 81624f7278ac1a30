//! Files, environment and flags to typed settings (F26).
//!
//! Holds [`load_server`] and [`load_client`], which read what people wrote and answer [`adit_server::Settings`] and
//! [`adit_client::Settings`], and [`StateDir`], where a server leaves what a client on the same machine needs to find it.
//!
//! Promises:
//! - layers are read in the order defaults, file, environment (`ADIT__SERVER__BIND_PORT`), flags; the later wins, key by
//!   key;
//! - nothing that was written is ignored: an unknown key, a key of a capability that this version lacks, and an `ADIT__`
//!   variable that means nothing are errors; a variable that looks like one of ours is a warning;
//! - an error says where (file, line and column, or variable, or flag), which key, what was expected and what was found;
//!   keys of frp and ngrok are answered with the name that we use;
//! - all errors of a file are reported at once, up to a bound;
//! - settings that are answered have been checked together, by the rules of the crates that will use them;
//! - no error shows a secret.
//!
//! Leaves to the caller: printing the error and exit code 2, making the token of a new server, watching the file.
//!
//! Cost: each file is read once, whole, up to a bound.
//!
//! Proof: `tests/errors.rs` keeps every kind of error as it is printed, `tests/settings.rs` the files of the documentation
//! and the order of layers,
//! `tests/properties.rs` feeds files that nobody would write.

mod admin;
mod client;
mod document;
mod entry;
mod environment;
mod error;
mod fields;
mod hostname;
mod key_names;
mod layers;
mod loaded;
mod overrides;
pub mod permissions;
mod problems;
mod proxies;
mod ranges;
mod read;
#[cfg(test)]
mod reference;
mod server;
mod spelling;
mod state;
mod telemetry;
mod threads;
mod tls;
mod token;
mod tunnel;
mod upstream;

pub use client::{NO_WORK, load_client};
pub use environment::{FLAG_VARIABLES, environment};
pub use error::{ConfigError, Origin};
pub use loaded::Loaded;
pub use overrides::{ClientOverrides, ServerOverrides, TunnelOverrides};
pub use server::load_server;
pub use state::{RunningServer, StateDir};
pub use telemetry::Telemetry;
