//! The built-in layers.

mod forwarded;
mod hop_by_hop;
mod permits;
mod trusted_proxies;
mod via;

pub use forwarded::Forwarded;
pub use hop_by_hop::HopByHop;
pub use permits::{Permits, visitor_key};
pub use trusted_proxies::{Network, ParseNetworkError, TrustedProxies};
pub use via::Via;
