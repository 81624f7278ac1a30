//! TCP connections (section 10 of the protocol).

mod connection;
mod delivery;
mod socket;

pub use connection::{BufferPools, Progress, Splice, SpliceError};
pub use delivery::Delivery;
pub use socket::{Socket, is_transient, set_keepalive};
