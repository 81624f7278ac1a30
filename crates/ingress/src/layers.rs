//! The layers that come with the house.

mod forwarded;
mod hop_by_hop;
mod permits;
mod via;

pub use forwarded::Forwarded;
pub(crate) use forwarded::request_id;
pub use hop_by_hop::HopByHop;
pub(crate) use hop_by_hop::{crosses, is_hop_by_hop};
pub use permits::{Permits, visitor_key};
pub use via::Via;
