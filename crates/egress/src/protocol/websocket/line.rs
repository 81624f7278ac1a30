//! Header lines of a handshake.

/// A line of a head, its name in lower case.
pub(super) type Line = (Box<[u8]>, Box<[u8]>);
