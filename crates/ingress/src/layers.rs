//! The built-in layers: those that every request passes, and those that a configuration can contain ([`LayerConfig`]).

mod access;
mod chain;
mod forwarded;
mod header_edit;
mod header_line;
mod hop_by_hop;
mod http_challenges;
mod https;
mod layer_config;
mod layer_error;
mod network;
mod permits;
mod redirect;
mod required_header;
mod respond;
mod status;
mod trusted_proxies;
mod via;

pub use access::{
    Access, AccessBounds, AccessConfig, AccessCounts, AccessRule, AuthProvider, Ban, BanRule,
    BasicAuth, HeaderToken, IpRules, PasswordBounds, PasswordHash, RateLimit, RateOf, TokenHash,
};
pub use chain::http_layers;
pub use forwarded::Forwarded;
pub use header_edit::{HeaderEdit, RequestHeaders, ResponseHeaders};
pub use header_line::header_to_copy;
pub use hop_by_hop::HopByHop;
pub use http_challenges::HttpChallenges;
pub use https::{Hsts, RedirectToHttps};
pub use layer_config::{LayerConfig, LayerList};
pub use layer_error::LayerError;
pub use network::{Network, ParseNetworkError};
pub use permits::{Permits, visitor_key};
pub use redirect::Redirect;
pub use required_header::RequiredHeader;
pub use respond::Respond;
pub use trusted_proxies::TrustedProxies;
pub use via::Via;
