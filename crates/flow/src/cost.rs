//! The cost of a message.

/// The cost of a flow-controlled message beyond its payload (P-4.1): the most memory that a waiting message occupies
/// beside it, which is its entry in a queue that has just doubled, and the allocation of a small payload; tests of
/// `link` and `mux` compare. With less, empty messages would fill more memory than the window that they count against.
pub const MESSAGE_COST: u64 = 256;
