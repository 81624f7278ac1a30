//! TCP connections (section 10 of the protocol).

mod connection;
mod delivery;
mod socket;

pub use connection::{Broken, Buffers, Moved, Splice};
pub use delivery::Delivery;
pub use socket::{Socket, is_no_failure};
