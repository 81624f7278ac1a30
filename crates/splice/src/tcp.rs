//! TCP connections (section 10 of the protocol).

mod delivery;
mod socket;
mod splice;

pub use delivery::Delivery;
pub use socket::{Socket, is_transient};
pub use splice::{BufferPools, Progress, Splice, SpliceError};
