//! Reads typed settings from files, environment and flags (F26).
//!
//! Holds [`load_server`] and [`load_client`], which return [`adit_server::Settings`] and [`adit_client::Settings`], and
//! [`StateDir`], where a server stores its addresses and token for clients of the same machine.
//!
//! Promises:
//! - layers are read in the order defaults, file, environment (`ADIT__SERVER__BIND_PORT`), flags; the later one takes
//!   precedence, for each key;
//! - nothing is ignored: an unknown key, a key of a capability that this version lacks, and an unknown `ADIT__`
//!   variable are errors; a variable whose name resembles one of adit is a warning;
//! - an error names the place (file, line and column, or variable, or flag), the key, the expected and the found value;
//!   for keys of frp and ngrok it names the key of adit;
//! - all errors of a file are reported at once, up to a bound;
//! - the returned settings are valid together, by the rules of the crates that use them;
//! - no error shows a secret.
//!
//! Leaves to the caller: printing the error and exit code 2, generating the token of a new server, watching the file.
//!
//! Cost: each file is read once, whole, up to a bound.
//!
//! Proof: `tests/it/errors.rs` keeps every kind of error as it is printed, `tests/it/settings.rs` the files of the documentation
//! and the order of layers,
//! `tests/it/properties.rs` feeds random files.

mod admin;
mod bounded_file;
mod certificates;
mod client;
mod document;
mod entry;
mod environment;
mod error;
mod fields;
mod hostname;
mod key_names;
mod layers;
mod lifetime;
mod loaded;
mod overrides;
pub mod permissions;
mod problems;
mod proxies;
mod proxy;
mod ranges;
mod read;
#[cfg(test)]
mod reference;
mod request_layers;
mod scopes;
mod secret_file;
mod server;
mod server_link;
mod spelling;
mod state;
mod telemetry;
mod threads;
mod timeouts;
mod tls;
mod token;
mod tunnel;
mod tunnel_tls;
mod upstream;

pub use client::load_client;
pub use environment::{FLAG_VARIABLES, environment};
pub use error::{ConfigError, Origin};
pub use hostname::default_client_id;
pub use lifetime::parse_lifetime;
pub use loaded::Loaded;
pub use overrides::{ClientOverrides, ServerOverrides, TunnelOverrides};
pub use proxy::proxy_of_environment;
pub use server::load_server;
pub use server_link::NO_WORK;
pub use state::{RunningServer, StateDir};
pub use telemetry::Telemetry;
