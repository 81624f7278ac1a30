//! TCP connections (section 10 of the protocol).

mod connection;
mod socket;

pub use connection::{Broken, Buffers, Moved, Splice};
pub use socket::{Socket, is_no_failure};
