//! Layers that decide who may visit: addresses, credentials, rates and bans. Decision 0035 has the reasons.
//!
//! Each has one opinion about a visitor ([`opinion::Opinion`]). [`layer::AccessLayer`] turns it into a verdict, by the
//! `enforce` and `sufficient` of its configuration. The state of all of them is in one [`Access`], which outlives the
//! layers: a reload makes new layers from the settings.

mod bans;
mod basic_auth;
mod config;
mod counters;
mod forward_auth;
mod header_token;
mod ip;
mod layer;
mod opinion;
mod password;
mod passwords;
mod rate_limit;
mod recent;
mod remove_copied;
mod shares;
mod state;
mod turns;
mod waits;

pub use bans::{Ban, BanRule};
pub use basic_auth::BasicAuth;
pub use config::{AccessConfig, AccessRule};
pub use counters::AccessCounts;
pub use forward_auth::AuthProvider;
pub use header_token::{HeaderToken, TokenHash};
pub use ip::IpRules;
pub(super) use layer::{Position, access_layers};
pub use password::PasswordHash;
pub use passwords::PasswordBounds;
pub use rate_limit::{RateLimit, RateOf};
pub(super) use remove_copied::RemoveCopied;
pub use state::{Access, AccessBounds};
