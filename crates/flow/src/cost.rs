//! What a message costs.

/// What a flow-controlled message costs beyond its payload (P-4.1): what one that waits occupies at most. Its entry in a
/// queue that has just doubled, and the allocation of a small payload; tests of `link` and `mux` compare. With less, empty
/// messages fill more memory than the window that they count against.
pub const MESSAGE_COST: u64 = 256;
