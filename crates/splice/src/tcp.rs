//! TCP connections (section 10 of the protocol).

mod socket;
mod splice;

pub use socket::{Socket, is_transient};
pub use splice::{BufferPools, Progress, Splice, SpliceError};
